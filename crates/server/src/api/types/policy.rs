//! The policy.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_core::policy::Overridden;
use utoipa::ToSchema;

/// The rules that manifests and orders have to keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// Tells this policy apart from any other; entries of the audit log name it. Absent without rules.
    pub digest: Option<String>,
    /// The rules as the settings have them.
    #[schema(value_type = Vec<Object>)]
    pub rules: Vec<Value>,
}

/// Rules of the policy that somebody has set aside for a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OverriddenView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The names of the rules.
    pub rules: Vec<String>,
}

impl From<&Overridden> for OverriddenView {
    fn from(overridden: &Overridden) -> Self {
        Self {
            at: overridden.at,
            actor: overridden.actor.to_string(),
            reason: overridden.reason.clone(),
            rules: overridden.rules.iter().map(ToString::to_string).collect(),
        }
    }
}
