//! Checks, gates and metrics.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serin_core::{analysis, metric, rollout};
use utoipa::ToSchema;

use super::word::words;

words! {
    /// How a gate reads.
    GateState from analysis::GateState {
        /// On its right side with enough sessions.
        Pass "pass",
        /// On its wrong side, unproven.
        AtRisk "at risk",
        /// Proven to be broken.
        Fail "fail",
        /// Too few sessions.
        NoData "no data",
        /// Cannot be measured in this step by construction.
        NotApplicable "not applicable",
    }
}

words! {
    /// What all gates together come to.
    Verdict from analysis::Verdict {
        /// Every gate passes or does not apply, and the step has its samples.
        Pass "pass",
        /// At least one gate is on its wrong side, unproven.
        AtRisk "at risk",
        /// At least one gate has too few sessions.
        NoData "no data",
        /// A gate is proven to be broken.
        Fail "fail",
        /// A gate is proven to be broken, and so it is by stable.
        StableFails "stable fails too",
    }
}

words! {
    /// What a check came to.
    CheckOutcome from rollout::CheckOutcome {
        /// Looked at without deciding: Observing, or before the initial delay has passed.
        Observed "observed",
        /// Every gate passes or does not apply, and the step has its samples.
        Pass "pass",
        /// At least one gate is on its wrong side, unproven.
        AtRisk "at risk",
        /// At least one gate has too few sessions.
        NoData "no data",
        /// A gate is proven to be broken.
        Fail "fail",
        /// A gate is proven to be broken, and so it is by stable.
        StableFails "stable fails too",
    }
}

words! {
    /// How a metric of the canary stands against stable.
    MetricStatus from analysis::Status {
        /// Better, proven.
        Improved "Improved",
        /// Worse, proven.
        Degraded "Degraded",
        /// Worse by its point estimate.
        Watch "Watch",
        /// Not worse by its point estimate.
        Ok "OK",
        /// Nothing to compare.
        NoData "No data",
    }
}

words! {
    /// How much authority a metric has.
    MetricTier from metric::Tier {
        /// A Degraded one only notifies.
        Low "low",
        /// A Degraded one holds the rollout.
        Medium "medium",
        /// A Degraded one holds the rollout, and it is fit to be a gate.
        High "high",
    }
}

words! {
    /// What the numbers of a metric are.
    MetricUnit from metric::Unit {
        /// A share from 0 to 1.
        Share "share",
        /// Milliseconds.
        Millis "milliseconds",
        /// Tokens.
        Tokens "tokens",
        /// US dollars.
        Dollars "dollars",
        /// A rating from 1 to 5.
        Rating "rating",
        /// A score from -1 to 1.
        Score "score",
        /// Requests per session.
        Turns "turns",
        /// Characters.
        Characters "characters",
        /// A plain number.
        Number "number",
    }
}

/// What is kept of the last check beside its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckSummaryView {
    /// Counts the checks of the rollout, from 1.
    pub number: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What it came to.
    pub outcome: CheckOutcome,
    /// What it came to, in words.
    pub summary: String,
}

/// One gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GateView {
    /// The metric.
    pub metric: String,
    /// The rule as people write it, such as `>= 90%`.
    pub rule: String,
    /// How it reads.
    pub state: GateState,
    /// The canary's value as the gate sees it, in the unit of the metric; for quantiles the share beyond the limit.
    pub value: Option<f64>,
    /// The value as shown, with its unit.
    pub shown: String,
    /// Matured canary sessions that it rests on.
    pub samples: u64,
    /// Sessions below which it reads no data.
    pub needed: u64,
    /// Log of its evidence against the canary.
    pub log_e: f64,
    /// The log at which the evidence acts when it stands alone: ln(1/alpha).
    pub log_limit: f64,
    /// How sure it is that the gate is broken, 0 to 1: `log_e / log_limit`, clamped.
    #[schema(minimum = 0, maximum = 1)]
    pub how_sure: f64,
}

/// One metric, stable beside canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricView {
    /// The metric.
    pub metric: String,
    /// What its numbers are.
    pub unit: MetricUnit,
    /// How much it may decide.
    pub tier: MetricTier,
    /// Stable's value over all data, in the unit.
    pub stable: Option<f64>,
    /// The canary's value over all data, in the unit.
    pub canary: Option<f64>,
    /// The canary's less stable's.
    pub difference: Option<f64>,
    /// Stable's value as shown; `-` without data.
    pub stable_shown: String,
    /// The canary's value as shown; `-` without data.
    pub canary_shown: String,
    /// The difference as shown, with its sign; `-` without data.
    pub difference_shown: String,
    /// How far the canary is from stable, with its interval; absent while there are too few data.
    pub interval: Option<IntervalView>,
    /// The rule, when the manifest judges it.
    pub gate: Option<String>,
    /// How the canary stands.
    pub status: MetricStatus,
    /// Values that stable's rests on.
    pub stable_samples: u64,
    /// Values that the canary's rests on.
    pub canary_samples: u64,
}

/// Canary less stable with an interval at the confidence of the rollout; shown, never decided on.
///
/// The estimate compares sessions with sessions of the same weight, so that what hits both versions cancels out; it
/// may therefore differ from the plain difference over all data. It is there from 400 sessions of each version on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IntervalView {
    /// The estimate, in the unit of the metric.
    pub estimate: f64,
    /// The lower end, in the unit of the metric.
    pub low: f64,
    /// The upper end, in the unit of the metric.
    pub high: f64,
    /// Both ends as shown, such as `-0.8pp to +1.2pp`.
    pub shown: String,
}

/// One check in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckView {
    /// Counts the checks of the rollout, from 1.
    pub number: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Index of the step in which it was made, from 0.
    pub step: u16,
    /// What all gates together come to.
    pub verdict: Verdict,
    /// The same in words.
    pub summary: String,
    /// Matured canary sessions of the step.
    pub step_sessions: u64,
    /// Log of the merged evidence of all gates against the canary.
    pub log_e: f64,
    /// The log at which it acts: ln(1/alpha).
    pub log_limit: f64,
    /// The gates that are named, when the verdict is a failure.
    pub culprits: Vec<String>,
    /// Causes to hold, with their reasons.
    pub holds: BTreeMap<String, String>,
    /// Metrics that are no gates and proven worse.
    pub degraded: Vec<String>,
    /// Each gate.
    pub gates: Vec<GateView>,
    /// Every metric that has data, stable beside canary.
    pub metrics: Vec<MetricView>,
}

/// The checks of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckList {
    /// The rollout.
    pub rollout: String,
    /// Newest first, at most as many as were asked for.
    pub checks: Vec<CheckView>,
}

/// What comes of repeating every check of a rollout from what it saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplayView {
    /// The rollout.
    pub rollout: String,
    /// Checks that were repeated.
    pub checks: u64,
    /// Steps entered, completions and rollbacks without a person, each compared with what the checks lead to.
    pub decisions: u64,
    /// Everything in which a repeated check or decision differs from the stored one, oldest first; empty when none
    /// does.
    pub differences: Vec<String>,
}

/// The metrics of a rollout over its checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesView {
    /// The rollout.
    pub rollout: String,
    /// By metric, in the order in which they are shown.
    pub series: Vec<SeriesOfMetric>,
}

/// One metric over the checks of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesOfMetric {
    /// The metric.
    pub metric: String,
    /// What its numbers are.
    pub unit: MetricUnit,
    /// The rule, when the manifest judges it.
    pub gate: Option<String>,
    /// Oldest first.
    pub points: Vec<SeriesPoint>,
}

/// One metric at one check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesPoint {
    /// When the check was made.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Stable's value over all data so far.
    pub stable: Option<f64>,
    /// The canary's value over all data so far.
    pub canary: Option<f64>,
    /// How sure the gate was to be broken, 0 to 1; absent for a metric that is no gate.
    pub how_sure: Option<f64>,
}
