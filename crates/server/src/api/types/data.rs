//! Resolving sessions, reporting events, giving orders.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serin_core::routing;
use utoipa::ToSchema;

use super::word::words;

words! {
    /// The two sides of a comparison.
    Variant from routing::Variant {
        /// The version that everyone had before.
        Stable "stable",
        /// The version that is being tried.
        Canary "canary",
    }
}

words! {
    /// Why a session has its version.
    ResolveReason from routing::Reason {
        /// There is no rollout.
        Static "STATIC",
        /// The bucket of the session decided.
        Split "SPLIT",
        /// The session belongs to a segment with a weight of its own, or the caller named the version.
        TargetingMatch "TARGETING_MATCH",
        /// The session had it before.
        Pinned "PINNED",
        /// Everything is forced to stable.
        Disabled "DISABLED",
    }
}

/// Asks which version a session gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The pack.
    pub pack: String,
    /// The session; without one the request is its own session and is not pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// A prompt of the pack to render.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The model that the app will ask, where a prompt is different for some models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Values of the prompt's variables, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub variables: BTreeMap<String, serde_json::Value>,
    /// What is known of the session besides its key; `segment` names its segment.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// Which version a session gets, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResolveResponse {
    /// The pack.
    pub pack: String,
    /// The session; made up here when the request named none.
    pub session: String,
    /// The version.
    pub version: String,
    /// The side of the comparison.
    pub variant: Variant,
    /// Why.
    pub reason: ResolveReason,
    /// Set share of new sessions that get the canary, in percent.
    pub weight: f64,
    /// The rollout that the session belongs to.
    pub rollout: Option<String>,
    /// The rendered prompt, when one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<RenderedPrompt>,
}

/// A prompt with its variables filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RenderedPrompt {
    /// Its name.
    pub name: String,
    /// The text for the system message.
    pub system: String,
    /// Parameters of the model, such as `temperature`.
    #[schema(value_type = Object)]
    pub parameters: serde_json::Map<String, serde_json::Value>,
    /// The model that the version is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The tools that the prompt offers: `name`, `description`, and `parameters` as a JSON Schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub tools: Vec<serde_json::Value>,
    /// Whether the model calls tools: `auto`, `required` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tool_choice: Option<serde_json::Value>,
}

/// Reports what happened in sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsRequest {
    /// At most 1 000 events; each is read on its own, so that one bad event does not cost the others.
    #[schema(value_type = Vec<EventInput>)]
    pub events: Vec<serde_json::Value>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventInput {
    /// Names the event once within its pack: the same id is counted once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The pack; an outcome without one counts for every pack that the session touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<String>,
    /// The session.
    pub session: String,
    /// `task_completion`, `escalation`, `user_satisfaction`, `sentiment`, an outcome that the manifest declares, or `response`.
    pub name: String,
    /// The value of an outcome; `true` and `false` are 1 and 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<EventValue>,
    /// When it happened; now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// The fields of a response: `success`, `error`, `latency_ms`, `ttft_ms`, `input_tokens`, `output_tokens`, `cached_tokens`,
    /// `cost`, `finish_reason`, `tool_calls`, `wrong_tool_calls`, `response_length`, `refusal`, `empty`, `truncated`,
    /// `invalid_format`, `repeated_question`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub response: serde_json::Map<String, serde_json::Value>,
}

/// The value of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EventValue {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(f64),
}

impl EventValue {
    /// The value as a number.
    pub fn number(self) -> f64 {
        match self {
            Self::Flag(flag) => f64::from(u8::from(flag)),
            Self::Number(number) => number,
        }
    }
}

/// What became of reported events; what was accepted is durable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct EventsAnswer {
    /// Events that were taken.
    pub accepted: u64,
    /// Events whose id was known already; they do not count again.
    pub duplicate: u64,
    /// Events that were refused.
    pub rejected: u64,
    /// Why each was refused.
    pub reasons: Vec<RejectedEvent>,
}

/// Why an event was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedEvent {
    /// Its position in the request, from 0.
    pub index: u64,
    /// Its id, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why.
    pub reason: String,
}

/// Gives an order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// Why; required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For `promote`: make the canary stable now instead of entering the next step.
    #[serde(default)]
    pub full: bool,
    /// For `approve`, `promote` and `retry`: why rules of the policy are set aside; needs the permission
    /// `override_policy`, and is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_policy: Option<String>,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CarriedView {
    /// Whether it is recorded; otherwise it is in force in this process and noted in its journal, because the store does not answer.
    pub recorded: bool,
    /// What happened, in words.
    pub message: String,
    /// The rollout afterwards; absent when it cannot be read at the moment.
    pub rollout: Option<super::rollout::RolloutView>,
}
