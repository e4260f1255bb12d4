//! The tools of a pack, and the policy for their use.

use serde::Serialize;
use serde_json::Value;

/// A tool that a model may call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tool {
    /// What the model calls it by.
    pub name: String,
    /// What the model is told about it.
    pub description: String,
    /// The JSON Schema of its arguments; nothing for a tool without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// The same as text, so that it need not be written for each request.
    #[serde(skip)]
    pub schema: Option<String>,
}

/// Whether the model calls tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As it sees fit.
    Auto,
    /// At least one.
    Required,
    /// None of them.
    None,
}

impl ToolChoice {
    /// Every choice by its name.
    pub(super) const ALL: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("required", Self::Required), ("none", Self::None)];
}

/// How a prompt's tools may be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolPolicy {
    /// Whether the model calls tools; nothing leaves it to the provider.
    pub choice: Option<ToolChoice>,
    /// The most calls of tools in one turn, at least 1; requests are kept to it where it is 1.
    pub max_calls_per_turn: Option<u64>,
    /// Tools that are never offered.
    pub blocklist: Vec<String>,
}

impl ToolPolicy {
    /// Whether the model may call several tools at once; nothing where the policy does not say.
    pub fn parallel_calls(&self) -> Option<bool> {
        (self.max_calls_per_turn == Some(1)).then_some(false)
    }

    /// Whether a tool may be offered.
    pub fn allows(&self, tool: &str) -> bool {
        !self.blocklist.iter().any(|blocked| blocked == tool)
    }
}
