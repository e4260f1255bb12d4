//! From evidence to a verdict: each gate read, each metric compared, and what follows.
//!
//! No data is never a pass. Gates decide; the status of the other metrics informs.

mod difference;
mod gate;
mod metrics;
mod scope;
mod segments;
mod sight;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::difference::{Difference, differences};
pub use self::metrics::compare;
pub(crate) use self::metrics::point_status;
use self::metrics::{joining_metrics, judge_metrics};
use self::scope::Scope;
pub use self::segments::{SegmentReading, by_segment};
pub use self::sight::{RecentReading, Sight};
use crate::aggregate::{Counters, Tally};
use crate::alert::Alert;
use crate::evidence::{Baseline, metrics_of};
use crate::ids::SegmentName;
use crate::metric::{Better, Kind, Metric, MetricName, Signal, Tier};
use crate::outside::Outside;
use crate::plan::{Comparison, Decision, GateRule, Plan, ProgressWhen};
use crate::rollout::{Active, HoldCause};
use crate::routing::{Stamp, Variant};
use crate::stats::logspace::LogE;
use crate::stats::merge::{Alpha, BudgetShares, merge};
use crate::stats::response_guard::ResponseGuard;
use crate::stats::sample_ratio::SampleRatio;
use crate::stats::share::{Share, ShareCount};
use crate::units::Timestamp;
use crate::weight::Weight;

/// Everything that was seen of a rollout up to now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// Matured sessions by what was stamped on them.
    pub cells: Vec<Cell>,
    /// All data at once, for display.
    pub shown: Sides<Tally>,
    /// What came since the last check, for gates that are read literally.
    pub recent: Sides<Tally>,
    /// Sessions assigned, for the sample ratio.
    pub assigned: Vec<Assigned>,
    /// Constants that could be frozen now.
    pub baseline_candidate: Option<Baseline>,
    /// Whether the break-glass file names the pack.
    pub forced_stable: bool,
    /// Alerts about the pack that fire, or fired lately.
    pub alerts: Vec<Alert>,
    /// When the server came back from an end without warning, after which pins of its last moments may be missing.
    pub back_since: Option<Timestamp>,
    /// What outside providers measured for the gates that ask them.
    pub outside: BTreeMap<MetricName, Outside>,
}

/// One value for each variant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sides<T> {
    /// Of stable.
    pub stable: T,
    /// Of the canary.
    pub canary: T,
}

impl<T> Sides<T> {
    /// The value of a variant.
    pub fn of(&self, variant: Variant) -> &T {
        match variant {
            Variant::Stable => &self.stable,
            Variant::Canary => &self.canary,
        }
    }

    /// The value of a variant, to change.
    pub fn of_mut(&mut self, variant: Variant) -> &mut T {
        match variant {
            Variant::Stable => &mut self.stable,
            Variant::Canary => &mut self.canary,
        }
    }
}

/// Matured sessions that share a stamp.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Index of the step of their assignment.
    pub step: u16,
    /// The part of the plan in which evidence may start that they belong to.
    pub start: u16,
    /// Index of their segment.
    pub segment: u8,
    /// The weight in force at their assignment.
    pub weight: Weight,
    /// Whether the step was Observing.
    pub observing: bool,
    /// Their variant.
    pub variant: Variant,
    /// What they showed.
    pub counters: Counters,
}

impl Cell {
    /// What the sessions of a variant that bear a stamp showed.
    pub fn of(stamp: &Stamp, variant: Variant, counters: Counters) -> Self {
        let &Stamp { rollout: _, revision: _, step, start, segment, weight, observing } = stamp;
        Self { step, start, segment, weight, observing, variant, counters }
    }
}

/// Sessions assigned under one weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// The weight in force.
    pub weight: Weight,
    /// Of them on the canary.
    pub canary: u64,
    /// Of them on stable.
    pub stable: u64,
}

/// One evaluation of all gates, with everything needed to understand it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// Counts the checks of the rollout, from 1.
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Index of the step.
    pub step: u16,
    /// Matured canary sessions of the step.
    pub step_sessions: u64,
    /// Each gate.
    pub gates: Vec<GateReading>,
    /// Log of the merged evidence of all gates against the canary.
    pub log_e: LogE,
    /// The log at which it acts: ln(1/alpha).
    pub log_limit: f64,
    /// What it comes to.
    pub verdict: Verdict,
    /// The gates that are named, when the verdict is a failure.
    pub culprits: Vec<MetricName>,
    /// Causes to hold, with their reasons.
    pub holds: BTreeMap<HoldCause, String>,
    /// Metrics that are no gates and proven worse.
    pub degraded: BTreeSet<MetricName>,
    /// Metrics whose response rates differ between the variants, so that they no longer count.
    pub guard_tripped: BTreeSet<MetricName>,
    /// Segments in which a gate is proven to be broken, whatever all segments together show.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub degraded_segments: BTreeSet<SegmentName>,
    /// Whether the step gives anybody the canary.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub has_canary: bool,
    /// Every metric that has data, stable beside canary.
    pub metrics: Vec<MetricReading>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// What an analysis comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every gate passes or does not apply, and the step has its samples.
    Pass,
    /// At least one gate is on its wrong side, unproven.
    AtRisk,
    /// At least one gate has too few sessions.
    NoData,
    /// A gate is proven to be broken.
    Fail,
    /// A gate is proven to be broken, and so it is by stable.
    StableFails,
}

/// How a gate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    /// On its right side with enough sessions.
    Pass,
    /// On its wrong side, unproven.
    AtRisk,
    /// Proven to be broken.
    Fail,
    /// Too few sessions.
    NoData,
    /// Cannot be measured in this step by construction.
    NotApplicable,
}

impl GateState {
    /// The word that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::AtRisk => "at risk",
            Self::Fail => "fail",
            Self::NoData => "no data",
            Self::NotApplicable => "not applicable",
        }
    }
}

/// One gate in one check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateReading {
    /// The metric.
    pub metric: MetricName,
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
    pub log_e: LogE,
    /// Log of the same evidence against stable.
    pub stable_log_e: LogE,
    /// The segments in which it is on its wrong side, with their values, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong_in: Vec<String>,
}

/// How a metric of the canary stands against stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Better, proven.
    Improved,
    /// Worse, proven.
    Degraded,
    /// Worse by its point estimate.
    Watch,
    /// Not worse by its point estimate.
    #[serde(rename = "OK")]
    Ok,
    /// Nothing to compare.
    #[serde(rename = "No data")]
    NoData,
}

impl Status {
    /// The word that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Improved => "Improved",
            Self::Degraded => "Degraded",
            Self::Watch => "Watch",
            Self::Ok => "OK",
            Self::NoData => "No data",
        }
    }
}

/// One metric, stable beside canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricReading {
    /// The metric.
    pub metric: MetricName,
    /// How much it may decide.
    pub tier: Tier,
    /// Stable's value over all data, in the unit of the metric.
    pub stable: Option<f64>,
    /// The canary's value over all data.
    pub canary: Option<f64>,
    /// Values that stable's rests on.
    pub stable_samples: u64,
    /// Values that the canary's rests on.
    pub canary_samples: u64,
    /// How the canary stands.
    pub status: Status,
}

impl Analysis {
    /// What the check came to, in one line.
    pub fn summary(&self) -> String {
        let named = |state: GateState| {
            let gates = self.gates.iter().filter(|gate| gate.state == state);
            let told = gates.map(|gate| match gate.wrong_in.is_empty() {
                true => format!("{} {} ({})", gate.metric, gate.shown, gate.rule),
                false => {
                    format!("{} {} ({}; {})", gate.metric, gate.shown, gate.rule, gate.wrong_in.join(", "))
                }
            });
            told.collect::<Vec<_>>().join(", ")
        };
        match self.verdict {
            Verdict::Fail => self.failure(&named(GateState::Fail)),
            Verdict::StableFails => format!("{} is broken, by stable as well", named(GateState::Fail)),
            Verdict::AtRisk => format!("{} is on its wrong side", named(GateState::AtRisk)),
            Verdict::NoData => {
                let short: Vec<String> = self
                    .gates
                    .iter()
                    .filter(|gate| gate.state == GateState::NoData)
                    .map(|gate| format!("{} has {} of {} sessions", gate.metric, gate.samples, gate.needed))
                    .collect();
                if short.is_empty() {
                    format!("the step has {} matured canary sessions, too few", self.step_sessions)
                } else {
                    short.join(", ")
                }
            }
            Verdict::Pass if !self.has_canary => "nobody gets the canary in this step".to_owned(),
            Verdict::Pass if self.gates.is_empty() => "no gates; the step has its sessions".to_owned(),
            Verdict::Pass => "every gate passes".to_owned(),
        }
    }

    /// What is proven: gates that are broken, and metrics without a gate that are worse than stable.
    fn failure(&self, broken: &str) -> String {
        let is_gate = |name: &MetricName| self.gates.iter().any(|gate| gate.metric == *name);
        let worse: Vec<&str> =
            self.culprits.iter().filter(|name| !is_gate(name)).map(MetricName::as_str).collect();
        let mut told = Vec::new();
        if !broken.is_empty() {
            told.push(format!("{broken} is proven to be broken"));
        }
        if !worse.is_empty() {
            told.push(format!("{} is proven to be worse than stable", worse.join(", ")));
        }
        told.join("; ")
    }
}

/// Sessions that a step needs where no gate says otherwise.
pub const DEFAULT_MIN_SAMPLES: u64 = 30;

/// Evaluates all gates and compares all metrics; a pure function of what was seen.
pub fn analyze(plan: &Plan, active: &Active, evidence: &Evidence, now: Timestamp) -> Analysis {
    judge(plan, active, Sight::of(plan, evidence), now)
}

/// Evaluates all gates and compares all metrics, on no more than what they read; the heart of [`analyze`].
pub fn judge(plan: &Plan, active: &Active, seen: Sight<'_>, now: Timestamp) -> Analysis {
    let scope = Scope::new(plan, active.step, active.baseline.as_ref(), &seen);
    let alpha =
        Alpha::new(1.0 - plan.analysis.confidence).expect("confidence lies between 50 and 99.99 percent");
    let log_limit = alpha.log_limit();
    let guard_tripped = tripped_guards(plan, active, &seen);
    let mut gates: Vec<GateReading> =
        plan.analysis.gates.iter().map(|gate| gate::read(gate, &scope)).collect();
    for gate in gates.iter_mut().filter(|gate| guard_tripped.contains(&gate.metric)) {
        // Equal ratings look different when the canary changes who rates: the gate no longer counts.
        gate.state = GateState::AtRisk;
        gate.shown = "response rates differ".to_owned();
        gate.log_e = LogE::ONE;
    }

    // The gates that decide by evidence share one error budget.
    let by_evidence: Vec<usize> =
        (0..gates.len()).filter(|index| plan.analysis.gates[*index].decision == Decision::Evidence).collect();
    let mut logs: Vec<LogE> = by_evidence.iter().map(|index| gates[*index].log_e).collect();
    let mut budgets: Vec<f64> = by_evidence.iter().map(|index| plan.analysis.gates[*index].budget).collect();
    let joining = joining_metrics(plan, active, &scope, &guard_tripped);
    for (_, log_e) in &joining {
        logs.push(*log_e);
        budgets.push(1.0);
    }
    let (log_e, named) = merged(&logs, &budgets, alpha);
    let mut worse_metrics: Vec<MetricName> = Vec::new();
    for index in named {
        match by_evidence.get(index) {
            Some(gate) => gates[*gate].state = GateState::Fail,
            None => worse_metrics.push(joining[index - by_evidence.len()].0.clone()),
        }
    }

    let failing: Vec<&GateReading> = gates.iter().filter(|gate| gate.state == GateState::Fail).collect();
    let stable_fails = !failing.is_empty()
        && worse_metrics.is_empty()
        && failing.iter().all(|failed| {
            let gate = plan.analysis.gates.iter().find(|gate| gate.metric.name == failed.metric);
            gate.is_some_and(|gate| scope.blames_stable(gate, failed, log_limit))
        });
    let is_worse = !worse_metrics.is_empty();
    let culprits = failing.iter().map(|gate| gate.metric.clone()).chain(worse_metrics).collect();
    let step_sessions = scope.step_sessions();
    let needed = match scope.has_canary() {
        true => plan.analysis.gates.iter().map(|gate| gate.min_samples).max().unwrap_or(DEFAULT_MIN_SAMPLES),
        // A step that gives nobody the canary by construction has nothing to show, and waits for nothing.
        false => 0,
    };
    let several = segments::Several::of(plan, &scope, &gates, log_limit, alpha);
    for gate in &mut gates {
        gate.wrong_in = several.wrong_in(gate);
    }
    let any = |state: GateState| gates.iter().any(|gate| gate.state == state);
    let verdict = if stable_fails {
        Verdict::StableFails
    } else if any(GateState::Fail) || is_worse {
        Verdict::Fail
    } else if any(GateState::AtRisk) {
        Verdict::AtRisk
    } else if any(GateState::NoData) || step_sessions < needed {
        Verdict::NoData
    } else {
        Verdict::Pass
    };
    let mut analysis = Analysis {
        number: 0,
        at: now,
        step: active.step,
        step_sessions,
        gates,
        log_e,
        log_limit,
        verdict,
        culprits,
        holds: BTreeMap::new(),
        degraded: BTreeSet::new(),
        guard_tripped,
        degraded_segments: several.degraded(active),
        has_canary: scope.has_canary(),
        metrics: seen.metrics.clone(),
    };
    judge_metrics(&mut analysis, plan, active, &scope, alpha);
    several.hold(&mut analysis, plan, active);
    if !seen.unmeasured.is_empty() {
        let told = seen.unmeasured.iter().map(|(metric, why)| format!("{metric}: {why}"));
        let reason = told.collect::<Vec<_>>().join("; ");
        analysis.holds.insert(HoldCause::ProviderUnreachable, reason);
    }
    let ratio = SampleRatio::of(&split_counts(seen.assigned));
    if ratio.is_mismatch() {
        let reason = format!(
            "{} of {} sessions got the canary, where the weights give {:.0}",
            ratio.n_canary, ratio.n_sessions, ratio.expected_canary
        );
        analysis.holds.insert(HoldCause::SampleRatio, reason);
    }
    // The same at maturity: sessions of one side that were never heard of again would bias every comparison.
    let heard = metrics_of(plan)
        .iter()
        .find(|metric| metric.signal == Signal::Success && metric.kind == Kind::Rate)
        .map(|metric| SampleRatio::of(&gate::responses_by_weight(metric, seen.cells)));
    if let Some(heard) = heard.filter(SampleRatio::is_mismatch) {
        let reason = format!(
            "{} of {} sessions with answers had the canary, where the weights give {:.0}",
            heard.n_canary, heard.n_sessions, heard.expected_canary
        );
        analysis.holds.entry(HoldCause::SampleRatio).or_insert(reason);
    }
    let cause = match verdict {
        Verdict::Pass | Verdict::Fail => None,
        Verdict::AtRisk => Some(HoldCause::AtRisk),
        Verdict::NoData => Some(HoldCause::NoData),
        Verdict::StableFails => Some(HoldCause::StableFails),
    };
    if let Some(cause) = cause {
        analysis.holds.insert(cause, analysis.summary());
    }
    let unproven = match plan.progress.when {
        ProgressWhen::Clock => Vec::new(),
        ProgressWhen::Evidence => gate::unproven(plan, &scope, log_limit),
    };
    if !unproven.is_empty() {
        let names = unproven.iter().map(MetricName::as_str).collect::<Vec<_>>().join(", ");
        analysis
            .holds
            .insert(HoldCause::Unproven, format!("{names} is not yet shown to be within the margin"));
    }
    analysis
}

/// The merged evidence of several gates, and the indices of those that are named when it reaches the limit.
fn merged(logs: &[LogE], budgets: &[f64], alpha: Alpha) -> (LogE, Vec<usize>) {
    if logs.is_empty() {
        return (LogE::ONE, Vec::new());
    }
    let shares = BudgetShares::of_weights(budgets).expect("a plan's budget weights are above zero");
    let merged = merge(&shares, logs, alpha).expect("there is one e-value for each budget");
    (merged.combined, merged.culprits)
}

/// Voluntary metrics whose response rates differ, now or at an earlier check.
fn tripped_guards(plan: &Plan, active: &Active, seen: &Sight<'_>) -> BTreeSet<MetricName> {
    let now = metrics_of(plan)
        .into_iter()
        .filter(Metric::is_voluntary)
        .filter(|metric| ResponseGuard::of(&gate::responses_by_weight(metric, seen.cells)).is_tripped())
        .map(|metric| metric.name);
    active.guard_tripped.iter().cloned().chain(now).collect()
}

fn split_counts(assigned: &[Assigned]) -> Vec<ShareCount> {
    let share = |weight: Weight| Share::from_bp(weight.bp()).expect("a weight is a share");
    assigned.iter().map(|a| ShareCount { share: share(a.weight), hits: a.canary, misses: a.stable }).collect()
}

/// The rule of a gate as people write it.
pub fn rule_text(metric: &Metric, rule: &GateRule) -> String {
    match rule {
        GateRule::Threshold { comparison, limit } => {
            format!("{} {}", comparison.sign(), metric.unit.show(*limit))
        }
        GateRule::NotWorseThanStable { max_regression } => match max_regression {
            crate::plan::Regression::Relative(share) => format!("within {}% of stable", share * 100.0),
            crate::plan::Regression::Absolute(margin) => {
                format!("within {} of stable", metric.unit.show_difference(*margin).trim_start_matches('+'))
            }
        },
    }
}

/// On which side of its limit a rule wants the value.
pub(crate) fn comparison_of(rule: &GateRule, metric: &Metric) -> Comparison {
    match rule {
        GateRule::Threshold { comparison, .. } => *comparison,
        GateRule::NotWorseThanStable { .. } if metric.better == Better::Higher => Comparison::AtLeast,
        GateRule::NotWorseThanStable { .. } => Comparison::AtMost,
    }
}
