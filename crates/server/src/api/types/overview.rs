//! Every pack at a glance.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serin_core::audit::AuditEntry;
use utoipa::ToSchema;

use super::check::{CheckSummaryView, GateState, MetricStatus, MetricTier};
use super::rollout::{
    ExposureView, HoldView, MeasuredShare, Phase, ProgressView, RolloutKind, RolloutSummary,
};
use super::watch::WatchView;

/// Every pack at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OverviewView {
    /// By name.
    pub packs: Vec<OverviewPack>,
    /// When this was read; a part of it may be some seconds older if the request allows it.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
}

/// One pack at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OverviewPack {
    /// Its name.
    pub name: String,
    /// The version that sessions without a rollout get.
    pub stable: String,
    /// Who owns it.
    pub owner: Option<String>,
    /// Whether everything is forced to stable.
    pub forced: bool,
    /// Grows by one with each change of the pack.
    pub revision: u64,
    /// What may be ordered right now: `pause`, `resume`, `approve`, `promote`, `rollback`, `retry`.
    pub orders: Vec<String>,
    /// The rollout under way.
    pub active: Option<ActiveView>,
    /// The last rollout, when it is over.
    pub last: Option<RolloutSummary>,
    /// How stable is judged since it became stable for everyone; absent without a watch.
    #[serde(default)]
    pub watch: Option<WatchView>,
}

/// A rollout under way at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActiveView {
    /// Its identity.
    pub id: String,
    /// What started it.
    pub kind: RolloutKind,
    /// The version that is tried.
    pub canary: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Set share of new sessions that get the canary, in percent.
    #[schema(minimum = 0, maximum = 100)]
    pub weight: f64,
    /// Who gets the canary, in words; absent where `weight` alone says it.
    #[serde(default)]
    pub shown: Option<String>,
    /// Who gets it in the next step, in words; absent where the weight of the step alone says it, and in the last step.
    #[serde(default)]
    pub next_shown: Option<String>,
    /// What was served.
    pub measured: MeasuredShare,
    /// Its position.
    pub progress: Option<ProgressView>,
    /// What keeps it from advancing.
    pub holds: Vec<HoldView>,
    /// The metric that stands worst.
    pub worst: Option<WorstView>,
    /// The gate with the most evidence against the canary.
    pub closest: Option<ClosestView>,
    /// The last check; absent before the first one.
    pub last_check: Option<CheckSummaryView>,
    /// What was decided last.
    pub last_decision: Option<DecisionView>,
    /// Who saw the canary.
    pub exposure: ExposureView,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Who started it.
    pub started_by: String,
}

/// The metric of a rollout that stands worst.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorstView {
    /// The metric.
    pub metric: String,
    /// How the canary stands.
    pub status: MetricStatus,
    /// How much it may decide.
    pub tier: MetricTier,
    /// Stable's value as shown.
    pub stable_shown: String,
    /// The canary's value as shown.
    pub canary_shown: String,
}

/// The gate of a rollout that is closest to being broken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClosestView {
    /// The metric.
    pub metric: String,
    /// The rule as people write it.
    pub rule: String,
    /// How it reads.
    pub state: GateState,
    /// How sure it is that the gate is broken, 0 to 1 of how sure it must be.
    #[schema(minimum = 0, maximum = 1)]
    pub how_sure: f64,
}

/// One decision, from the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DecisionView {
    /// What happened, such as `step_entered`.
    pub action: String,
    /// Why, in words.
    pub reason: String,
    /// Who caused it.
    pub actor: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

impl From<&AuditEntry> for DecisionView {
    fn from(entry: &AuditEntry) -> Self {
        Self {
            action: entry.action.clone(),
            reason: entry.reason.clone(),
            actor: entry.actor.clone(),
            at: Timestamp::from_microsecond(entry.at_us).unwrap_or_default(),
        }
    }
}
