//! Rollouts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serin_core::rollout;
use serin_core::units::HoldFor;
use utoipa::ToSchema;

use super::audit::AuditEntryView;
use super::check::{CheckSummaryView, GateView, MetricView};
use super::pack::DrainingView;
use super::segment::{SegmentView, WeightChangeView};
use super::word::words;

words! {
    /// Where a rollout is in its life.
    Phase from rollout::Phase {
        /// Baselines are collected.
        Observing "Observing",
        /// Below half of the sessions.
        Progressing "Progressing",
        /// From half of the sessions on.
        Completing "Completing",
        /// The canary is the new stable.
        Completed "Completed",
        /// Everyone is back on stable.
        RolledBack "RolledBack",
        /// Another version took its place.
        Superseded "Superseded",
    }
}

impl Phase {
    /// Whether the rollout is over.
    pub fn is_over(self) -> bool {
        match self {
            Self::Observing | Self::Progressing | Self::Completing => false,
            Self::Completed | Self::RolledBack | Self::Superseded => true,
        }
    }
}

words! {
    /// What started a rollout.
    RolloutKind from rollout::RolloutKind {
        /// A new version takes a growing share.
        Canary "canary",
        /// A new version takes everything at once, as its manifest says.
        Immediate "immediate",
        /// An earlier stable version takes everything back at once.
        Undo "undo",
    }
}

words! {
    /// Why a rollout does not advance.
    HoldCause from rollout::HoldCause {
        /// A person paused it.
        Paused "paused",
        /// A gate is on the wrong side, unproven.
        AtRisk "at_risk",
        /// A gate has too few sessions.
        NoData "no_data",
        /// A gate is not yet shown to be within the margin that the manifest asks for.
        Unproven "unproven",
        /// Stable breaks the same gate, so the canary is not to blame.
        StableFails "stable_fails",
        /// A metric that is no gate is proven worse.
        Degraded "degraded",
        /// The measured split is not the set one.
        SampleRatio "sample_ratio",
        /// An outside metric provider cannot be asked.
        ProviderUnreachable "provider_unreachable",
        /// A person has to approve.
        ApprovalDue "approval_due",
        /// Stable has too few sessions to compare with.
        NoBaseline "no_baseline",
        /// The rollout takes longer than it may.
        Deadline "deadline",
        /// Nobody watched for a while.
        Unobserved "unobserved",
        /// The break-glass file is there.
        ForcedStable "forced_stable",
        /// A rule of the policy freezes everything for a while.
        Frozen "frozen",
        /// An alert of another system fires.
        Alert "alert",
    }
}

/// One rollout in full: where it stands, why, and what comes next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// Its identity, such as `support-prompts-r3`.
    pub id: String,
    /// The pack.
    pub pack: String,
    /// Counts the rollouts of the pack, from 1.
    pub attempt: u64,
    /// What started it.
    pub kind: RolloutKind,
    /// The version that everyone had.
    pub stable: String,
    /// The version that is tried.
    pub canary: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Grows by one with each transition, from 1.
    pub revision: u64,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Who started it.
    pub started_by: String,
    /// Why.
    pub reason: String,
    /// Whether everything is forced to stable at this moment.
    pub forced: bool,
    /// Set share of new sessions of the last segment, which catches everyone, that get the canary, in percent.
    #[schema(minimum = 0, maximum = 100)]
    pub weight: f64,
    /// Each segment, in the order of the manifest; empty where it names none.
    #[serde(default)]
    pub segments: Vec<SegmentView>,
    /// What was served.
    pub measured: MeasuredShare,
    /// Its position; absent once it is over.
    pub progress: Option<ProgressView>,
    /// What keeps it from advancing.
    pub holds: Vec<HoldView>,
    /// Rules of the policy that somebody has set aside for it, oldest first.
    #[serde(default)]
    pub overridden: Vec<super::policy::OverriddenView>,
    /// What to know about it at the traffic that is there, in sentences; empty when there is traffic enough.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The last check; absent before the first one.
    pub last_check: Option<CheckSummaryView>,
    /// Each gate as it reads at this moment; as the last check read it once the rollout is over.
    pub gates: Vec<GateView>,
    /// Every metric that has data, stable beside canary.
    pub metrics: Vec<MetricView>,
    /// Who saw the canary.
    pub exposure: ExposureView,
    /// Every step of the plan.
    pub steps: Vec<StepView>,
    /// Versions that only keep the sessions they have.
    pub draining: Vec<DrainingView>,
    /// How it ended; absent while it is under way.
    pub end: Option<EndView>,
    /// The watch over its canary, since that has become stable; absent where there is none.
    #[serde(default)]
    pub watch: Option<super::watch::WatchView>,
    /// 1 - the chance of ever rolling back a canary that is within its gates, in percent.
    pub confidence: f64,
    /// When this was read.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
}

/// What was served, beside what was set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MeasuredShare {
    /// Share of the new sessions assigned under the weight in force that got the canary, in percent.
    pub new_sessions: Option<f64>,
    /// Those sessions.
    pub sessions: SidesView,
    /// Share of all requests of the rollout that the canary served, in percent.
    pub of_requests: Option<f64>,
    /// Those requests.
    pub requests: SidesView,
}

/// A count on each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SidesView {
    /// On stable.
    pub stable: u64,
    /// On the canary.
    pub canary: u64,
}

/// The position of a rollout under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProgressView {
    /// Index of the step, from 0.
    pub step: u16,
    /// Number of steps.
    pub of: u16,
    /// When the step was entered.
    #[schema(value_type = String, format = DateTime)]
    pub entered_at: Timestamp,
    /// Time spent in the step, not counting holds.
    #[schema(value_type = String, example = "2m30s")]
    pub in_step: HoldFor,
    /// How long the step lasts at least.
    #[schema(value_type = String, example = "5m")]
    pub hold: HoldFor,
    /// Matured canary sessions of the step.
    pub step_sessions: u64,
    /// What comes after the step.
    pub next: NextStepView,
    /// The next change of the weights in force; absent on hold, where no window lowers them.
    #[serde(default)]
    pub next_change: Option<WeightChangeView>,
    /// The window of the schedule in force, as written; absent between windows and without a schedule.
    #[serde(default)]
    pub window: Option<String>,
    /// When the next check is due.
    #[schema(value_type = String, format = DateTime)]
    pub next_check_at: Timestamp,
    /// Failed checks in a row.
    pub failed_checks: u32,
    /// Failed checks in a row that roll back.
    pub failure_threshold: u32,
    /// Whether a person must approve before the next step.
    pub approval: bool,
    /// Whether a person has.
    pub approved: bool,
    /// Different people who have to approve the step; 0 where it waits for nobody.
    #[serde(default)]
    pub approvals_needed: u32,
    /// Who has approved it.
    #[serde(default)]
    pub approved_by: Vec<String>,
}

/// What comes after the step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NextStepView {
    /// Index of the next step; absent after the last one, when the canary becomes stable.
    pub step: Option<u16>,
    /// Its weight in percent; 100 after the last step.
    pub weight: f64,
    /// When, at the earliest; absent on hold.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
}

/// One thing that keeps a rollout from advancing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldView {
    /// Why, for programs.
    pub cause: HoldCause,
    /// The cause as shown, such as `at risk`.
    pub shown: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Why, in words.
    pub reason: String,
    /// Who set it.
    pub actor: String,
    /// What ends it.
    pub cleared_by: String,
}

/// Who saw the canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExposureView {
    /// Sessions.
    pub sessions: u64,
    /// Requests.
    pub requests: u64,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Until when; absent while it goes on.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// How long the canary got new sessions.
    #[schema(value_type = String, example = "25m")]
    pub lasted: HoldFor,
    /// The largest weight that was set, in percent.
    pub largest_weight: f64,
    /// The same by the weight at which the sessions were assigned, the smallest first.
    pub by_weight: Vec<ExposedAtView>,
}

/// Who got the canary at one weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExposedAtView {
    /// The weight, in percent.
    pub weight: f64,
    /// Sessions assigned to the canary at it.
    pub sessions: u64,
    /// How long it was in force.
    #[schema(value_type = String, example = "5m")]
    pub lasted: HoldFor,
}

/// How many saw the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExposureCounts {
    /// Sessions.
    pub sessions: u64,
    /// Requests.
    pub requests: u64,
}

/// A session that was assigned to the canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExposedSessionView {
    /// What the app calls it; absent once it is forgotten, some days after it was last seen.
    pub session: Option<String>,
    /// The hash of its key, 32 hexadecimal digits.
    pub key_hash: String,
    /// The weight at which it was assigned, in percent.
    pub weight: f64,
    /// Index of the step in which it was assigned, from 0.
    pub step: u16,
    /// When it was assigned.
    #[schema(value_type = String, format = DateTime)]
    pub assigned_at: Timestamp,
    /// When it was last seen, as far as that is still known.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen: Timestamp,
    /// Requests of it that the canary answered, as long as raw observations are kept.
    pub requests: u64,
}

/// Sessions that were assigned to the canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExposedPage {
    /// The rollout.
    pub rollout: String,
    /// In the order of their assignment.
    pub sessions: Vec<ExposedSessionView>,
    /// The place to ask on with; absent at the end.
    pub next_after: Option<String>,
}

impl ExposedSessionView {
    /// The first line of a list as CSV.
    pub const CSV_HEAD: &str = "session,key_hash,weight_percent,step,assigned_at,last_seen,requests";

    /// The session as a line of CSV (RFC 4180), without its end.
    pub fn csv(&self) -> String {
        let Self { session, key_hash, weight, step, assigned_at, last_seen, requests } = self;
        let session = session.as_deref().unwrap_or_default();
        let session = if session.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", session.replace('"', "\"\""))
        } else {
            session.to_owned()
        };
        format!("{session},{key_hash},{weight},{step},{assigned_at},{last_seen},{requests}")
    }
}

/// Where a step lies, seen from the rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepPlace {
    /// Behind it.
    Done,
    /// Where it is.
    Current,
    /// Ahead of it.
    Next,
    /// Never reached.
    Skipped,
}

/// One step of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Its index, from 0.
    pub index: u16,
    /// Where it stands in the life of a rollout.
    pub phase: Phase,
    /// Share of new sessions of the last segment that get the canary, in percent.
    pub weight: f64,
    /// What sets its weight, such as `10%` or `internal_users 100%, beta_users 50%`.
    #[serde(default)]
    pub shown: String,
    /// How long it lasts at least.
    #[schema(value_type = String, example = "5m")]
    pub hold: HoldFor,
    /// Whether a person must approve before the next step.
    pub approval: bool,
    /// Where it lies, seen from the rollout.
    pub state: StepPlace,
    /// When it was entered.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub entered_at: Option<Timestamp>,
}

words! {
    /// How a rollout ended.
    EndHow from EndWord {
        /// The canary is the new stable.
        Completed "completed",
        /// Everyone went back to stable because of failed checks.
        FailedChecks "rolled back by failed checks",
        /// Everyone went back to stable because somebody ordered it.
        Ordered "rolled back by order",
        /// Everyone went back to stable because the stable version was applied again.
        Reverted "rolled back by applying stable again",
        /// Another version took its place.
        Superseded "superseded",
    }
}

/// How a rollout ended, flat: core keeps the cause of a rollback inside it.
pub(super) enum EndWord {
    Completed,
    FailedChecks,
    Ordered,
    Reverted,
    Superseded,
}

impl From<&rollout::End> for EndHow {
    fn from(end: &rollout::End) -> Self {
        let word = match end {
            rollout::End::Completed => EndWord::Completed,
            rollout::End::RolledBack { cause: rollout::RollbackCause::Gates, .. } => EndWord::FailedChecks,
            rollout::End::RolledBack { cause: rollout::RollbackCause::Command, .. } => EndWord::Ordered,
            rollout::End::RolledBack { cause: rollout::RollbackCause::Revert, .. } => EndWord::Reverted,
            rollout::End::Superseded { .. } => EndWord::Superseded,
        };
        word.into()
    }
}

/// The end of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndView {
    /// How.
    pub how: EndHow,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why, in words.
    pub reason: String,
    /// The gates that were named, for an automatic rollback.
    pub culprits: Vec<String>,
    /// The version that took its place.
    pub superseded_by: Option<String>,
    /// Index of the step that it had reached.
    pub step: u16,
}

/// One rollout in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutSummary {
    /// Its identity.
    pub id: String,
    /// The pack.
    pub pack: String,
    /// What started it.
    pub kind: RolloutKind,
    /// The version that everyone had.
    pub stable: String,
    /// The version that is tried.
    pub canary: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Set share of new sessions that get the canary, in percent.
    pub weight: f64,
    /// Causes of the holds in force, in words.
    pub holds: Vec<String>,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Who started it.
    pub started_by: String,
    /// How many saw the canary; absent where only an overview was asked for.
    pub exposure: Option<ExposureCounts>,
    /// How it ended; absent while it is under way.
    pub end: Option<EndView>,
}

/// Rollouts, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutList {
    /// Newest first, at most as many as were asked for.
    pub rollouts: Vec<RolloutSummary>,
}

/// Weights in force between two points in time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpanView {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// Until when; absent while it lasts.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub to: Option<Timestamp>,
    /// Index of the step.
    pub step: u16,
    /// By segment, in percent.
    pub weights: Vec<f64>,
}

/// What happened in a rollout, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimelineView {
    /// The rollout.
    pub rollout: String,
    /// Weights in force, oldest first.
    pub spans: Vec<SpanView>,
    /// Entries of the audit log about it, oldest first.
    pub entries: Vec<AuditEntryView>,
}
