//! Which version a session has, why, and what comes next.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serin_core::explain::ChangeBy;
use serin_core::segment::Answer;
use serin_core::units::HoldFor;
use utoipa::ToSchema;

use super::data::{ResolveReason, Variant};
use super::word::words;

/// Which version a session has or would get, why, and what comes next; asking changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainView {
    /// The pack.
    pub pack: String,
    /// The session; absent when any new one was asked about.
    pub session: Option<String>,
    /// The response that led to the session.
    pub response: Option<ExplainedResponse>,
    /// The version that its next request gets; absent where it is not certain, which `new_sessions` tells then.
    pub version: Option<String>,
    /// The side of the comparison that it belongs to.
    pub variant: Option<Variant>,
    /// Why.
    pub reason: ResolveReason,
    /// The same in words.
    pub message: String,
    /// The rollout in force.
    pub rollout: Option<String>,
    /// Its segment in that rollout: the one it was assigned in, else the one that the attributes lead to.
    pub segment: Option<String>,
    /// What each segment says to the attributes, in the order of the manifest; empty for a session that was assigned
    /// under this rollout, and where the manifest names no segments.
    pub segments: Vec<SegmentTestView>,
    /// Where it falls in that rollout, 0 to 9 999; the canary takes the buckets below its weight.
    #[schema(maximum = 9999)]
    pub bucket: Option<u16>,
    /// Set share of new sessions of its segment that get the canary, in percent.
    pub weight: f64,
    /// What new sessions of its segment get.
    pub new_sessions: Vec<ShareView>,
    /// Its pin; absent for a session that has none.
    pub pin: Option<PinView>,
    /// The next change of the weights, and what it does to the session; absent without a rollout under way.
    pub next: Option<NextChangeView>,
}

/// A response that somebody asked about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedResponse {
    /// The id that the provider gave it.
    pub id: String,
    /// The version that gave it; absent where telemetry knows the session alone.
    pub version: Option<String>,
    /// The side of the comparison; absent as well where the caller named the version.
    pub variant: Option<Variant>,
}

/// What a segment says to the attributes of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SegmentTestView {
    /// Its name.
    pub name: String,
    /// Who belongs to it, in words or as the expression of the manifest.
    pub members: String,
    /// What it says.
    pub answer: SegmentAnswer,
}

words! {
    /// What a segment says to the attributes of a session.
    SegmentAnswer from Answer {
        /// The session belongs to it.
        Matches "matches",
        /// The session does not.
        Differs "differs",
        /// An attribute is missing or of another type: no match.
        Unreadable "unreadable",
        /// An earlier segment matches.
        NotAsked "not asked",
    }
}

/// What a share of new sessions gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShareView {
    /// The version.
    pub version: String,
    /// The side of the comparison.
    pub variant: Variant,
    /// The share in percent.
    #[schema(minimum = 0, maximum = 100)]
    pub share: f64,
}

/// The next change of the weights in force, and what it does to a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NextChangeView {
    /// When, at the earliest; absent on hold.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// What changes them.
    pub by: NextChangeBy,
    /// Index of the step that begins then; absent for a window and for the completion.
    pub step: Option<u16>,
    /// Share of new sessions of its segment that get the canary then, in percent.
    #[schema(minimum = 0, maximum = 100)]
    pub weight: f64,
    /// The version of the session then, if it goes on; absent where it is not certain.
    pub version: Option<String>,
    /// Whether that is another one than now; absent where it is not certain.
    pub changes: Option<bool>,
    /// The same in words.
    pub message: String,
}

/// What changes the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NextChangeBy {
    /// The next step.
    Step,
    /// A window of the schedule.
    Window,
    /// The rollout completes: the canary is stable.
    Completion,
}

impl From<ChangeBy> for NextChangeBy {
    fn from(by: ChangeBy) -> Self {
        match by {
            ChangeBy::Step(_) => Self::Step,
            ChangeBy::Window => Self::Window,
            ChangeBy::Completion => Self::Completion,
        }
    }
}

/// The stored assignment of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PinView {
    /// The version.
    pub version: String,
    /// The side of the comparison.
    pub variant: Variant,
    /// The rollout in force at the assignment.
    pub rollout: Option<String>,
    /// Index of the step in force then.
    pub step: Option<u16>,
    /// The weight in force then, in percent.
    pub weight: Option<f64>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub pinned_at: Timestamp,
    /// When the session was last seen.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen: Timestamp,
    /// Its age.
    #[schema(value_type = String, example = "5m")]
    pub age: HoldFor,
    /// Whether it has ended, so that the next request gets a new one.
    pub expired: bool,
}
