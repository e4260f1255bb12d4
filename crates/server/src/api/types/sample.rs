//! Conversation samples on the wire.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serin_core::units::HoldFor;
use utoipa::ToSchema;

use super::data::Variant;
use super::word::words;

words! {
    /// What stands out about an answer.
    SampleSignal from crate::samples::SampleSignal {
        /// It refuses.
        Refusal "refusal",
        /// It stopped at the token limit.
        Truncated "truncated",
        /// It holds neither text nor a tool call.
        Empty "empty",
        /// It failed.
        Error "error",
        /// It calls an unknown tool, or one with arguments that do not fit.
        ToolWrong "tool_wrong",
        /// It breaks the format that was asked for.
        InvalidFormat "invalid_format",
        /// The user had asked the same thing before.
        RepeatedQuestion "repeated_question",
        /// The client left before its end.
        Left "left",
        /// It came in a form that cannot be read, or was too large.
        Unreadable "unreadable",
    }
}

/// Recorded conversations, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SamplesView {
    /// What is being recorded.
    pub recording: RecordingView,
    /// One for each request that was recorded.
    pub samples: Vec<SampleView>,
    /// Where the list goes on, for `after`; absent at its end.
    pub next: Option<String>,
}

/// What is being recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecordingView {
    /// Whether anything is.
    pub on: bool,
    /// Share of the sessions that are recorded, in percent.
    pub rate_percent: f64,
    /// How long a sample is kept.
    #[schema(value_type = String, example = "7d")]
    pub expires_after: HoldFor,
    /// Samples lost since the start of the server, because the queue was full or the store failed.
    pub dropped: u64,
}

/// One request of a conversation and its answer. What was taken out of a text reads `[redacted:email]` or the like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SampleView {
    /// Names the request.
    pub id: String,
    /// When it came.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The session.
    pub session: String,
    /// The version that answered.
    pub version: String,
    /// The side of the comparison; absent outside of a rollout.
    pub variant: Option<Variant>,
    /// The segment of the session in its rollout.
    pub segment: Option<String>,
    /// The prompt of the pack, which stands for the system text; empty when the app holds it.
    pub prompt: String,
    /// The model that was asked for.
    pub model: String,
    /// The last message of the user, and what followed it: tools called and their results.
    pub messages: Vec<MessageView>,
    /// The answer; tools that it calls read `[calls NAME(ARGUMENTS)]`.
    pub answer: String,
    /// What stands out about the answer.
    pub signals: Vec<SampleSignal>,
    /// Milliseconds from the request to the end of the answer; absent for one that failed or was left.
    pub latency_ms: Option<f64>,
    /// What was reported of the session: by name, the latest value of each.
    pub outcomes: BTreeMap<String, f64>,
    /// Places that were taken out of the texts.
    pub redactions: u32,
}

/// A message of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageView {
    /// Who speaks: `user`, `assistant`, `tool`, …
    pub role: String,
    /// What is said.
    pub text: String,
}
