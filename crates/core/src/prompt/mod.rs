//! PromptPack files: prompts with variables, read once and rendered strictly.
//!
//! Serin reads what concerns prompts: text, variables, parameters, models, tools. Everything else in a file is
//! kept, is part of the content, and is told in [`Pack::notes`].

mod checks;
mod diff;
mod place;
mod read;
mod render;
mod template;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_format;
mod tools;
mod variable;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

pub use checks::{CheckKind, DeclaredCheck, Support};
pub use diff::PackChange;
pub use place::{Places, path_under};
pub use render::{RenderError, Rendered};
pub use tools::{Tool, ToolChoice, ToolPolicy};
pub use variable::{Variable, VariableType};

use crate::ids::{PackName, PromptName, ProviderName, Version};

use read::Rigour;

/// The most bytes a pack may have: 1 MiB.
pub const LARGEST_PACK: usize = 1 << 20;

/// Fields that say how a file was made and not what its prompts are.
const NO_CONTENT: [&str; 2] = ["$schema", "compilation"];

/// A pack of prompts, ready to render.
#[derive(Debug, Clone)]
pub struct Pack {
    id: PackName,
    title: String,
    version: Version,
    model: Option<String>,
    prompts: BTreeMap<PromptName, Prompt>,
    provider: Option<ProviderName>,
    checks: Vec<DeclaredCheck>,
    notes: Vec<PackProblem>,
    raw: Value,
}

/// One prompt of a pack.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its name for people.
    pub title: String,
    /// Its own version, which Serin does not use.
    pub version: Version,
    /// Its variables in the order declared.
    pub variables: Vec<Variable>,
    /// The tools that it offers; those on its blocklist are left out.
    pub tools: Vec<Arc<Tool>>,
    /// How they may be used.
    pub policy: ToolPolicy,
    base: Body,
    /// What takes the place of the base for some models, by their names.
    models: BTreeMap<String, Body>,
}

/// What a prompt says to one model, or to all.
#[derive(Debug, Clone)]
struct Body {
    pieces: Vec<template::Piece>,
    /// Temperature, token limit and so on.
    parameters: serde_json::Map<String, Value>,
}

impl Prompt {
    /// Temperature, token limit and so on for a model.
    pub fn parameters(&self, model: Option<&str>) -> &serde_json::Map<String, Value> {
        &self.body(model).parameters
    }

    /// What is said to a model: under its own name, else under the name that it is a dated form of
    /// (`gpt-5-2026-01-31` is a `gpt-5`, a `gpt-5-mini` is none), else what is said to all.
    fn body(&self, model: Option<&str>) -> &Body {
        let Some(model) = model.filter(|_| !self.models.is_empty()) else { return &self.base };
        if let Some(body) = self.models.get(model) {
            return body;
        }
        let is_date = |rest: &str| rest == "latest" || rest.chars().all(|c| c.is_ascii_digit() || c == '-');
        let mut ends = model.rmatch_indices('-').map(|(end, _)| end);
        let dated =
            ends.find_map(|end| self.models.get(&model[..end]).filter(|_| is_date(&model[end + 1..])));
        dated.unwrap_or(&self.base)
    }
}

/// Something that is wrong with a pack, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackProblem {
    /// Where it stands, such as `prompts.support.variables[0].type`; empty for the file as a whole.
    pub json_path: String,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What would be right, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl std::fmt::Display for PackProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.json_path.is_empty() {
            write!(f, "{}: ", self.json_path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl Pack {
    /// Reads a PromptPack file.
    ///
    /// # Errors
    /// Every [`PackProblem`] that keeps it from being published.
    pub fn parse(json: &str) -> Result<Self, Vec<PackProblem>> {
        let value = value_of(json)?;
        let twice = Places::of(json).twice();
        match Self::from_value(value) {
            Ok(pack) if twice.is_empty() => Ok(pack),
            Ok(_) => Err(twice),
            Err(problems) => Err(twice.into_iter().chain(problems).collect()),
        }
    }

    /// Reads a PromptPack that is JSON already, such as the `inline` source of a manifest.
    ///
    /// # Errors
    /// Every [`PackProblem`] that keeps it from being published.
    pub fn from_value(value: Value) -> Result<Self, Vec<PackProblem>> {
        read::pack(value, Rigour::Strict)
    }

    /// Reads a pack that was published before, maybe by an earlier Serin that asked for less.
    ///
    /// # Errors
    /// Every [`PackProblem`] that keeps it from being rendered.
    pub fn stored(json: &str) -> Result<Self, Vec<PackProblem>> {
        Self::stored_value(value_of(json)?)
    }

    /// Reads a pack that was published before and is JSON already.
    ///
    /// # Errors
    /// As [`Pack::stored`].
    pub fn stored_value(value: Value) -> Result<Self, Vec<PackProblem>> {
        read::pack(value, Rigour::Stored)
    }

    /// The pack's id.
    pub fn id(&self) -> &PackName {
        &self.id
    }

    /// The pack's name for people.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The version of the pack as its file says.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The model that it is made for, `metadata.model`; takes the place of the one that a request names.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The evals and validators that it declares, and what becomes of each.
    pub fn checks(&self) -> &[DeclaredCheck] {
        &self.checks
    }

    /// The prompts by name.
    pub fn prompts(&self) -> &BTreeMap<PromptName, Prompt> {
        &self.prompts
    }

    /// The provider that requests with this version go to, by its name in the settings: `metadata.provider`.
    pub fn provider(&self) -> Option<&ProviderName> {
        self.provider.as_ref()
    }

    /// What the file holds beyond what Serin uses, and what deserves a look.
    pub fn notes(&self) -> &[PackProblem] {
        &self.notes
    }

    /// The whole file as JSON, with everything that Serin does not use.
    pub fn raw(&self) -> &Value {
        &self.raw
    }

    /// The content as JSON with sorted keys and no white space.
    ///
    /// `$schema` and `compilation` are left out: they say how the file was made, not what its prompts are.
    pub fn content(&self) -> String {
        canonical(&content_of(&self.raw))
    }

    /// The BLAKE3 hash of the content, 64 hexadecimal digits.
    pub fn digest(&self) -> String {
        blake3::hash(self.content().as_bytes()).to_hex().to_string()
    }
}

/// The JSON of a pack that is not too large.
fn value_of(json: &str) -> Result<Value, Vec<PackProblem>> {
    let whole = |message: String| vec![PackProblem { json_path: String::new(), message, hint: None }];
    if json.len() > LARGEST_PACK {
        return Err(whole(format!("the pack has {} bytes, more than {LARGEST_PACK}", json.len())));
    }
    serde_json::from_str(json).map_err(|error| whole(format!("the pack is no JSON: {error}")))
}

/// A pack without the fields that are no content.
fn content_of(raw: &Value) -> Value {
    match raw {
        Value::Object(fields) => {
            let is_content = |(name, _): &(&String, &Value)| !NO_CONTENT.contains(&name.as_str());
            fields.iter().filter(is_content).map(|(name, value)| (name.clone(), value.clone())).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => raw.clone(),
    }
}

/// Writes JSON with sorted keys and no white space, whatever order the map type keeps.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string())
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (index, (name, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(&Value::String(name.clone()), text);
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
    }
}
