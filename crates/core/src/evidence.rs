//! From the facts of one session to its single contribution to the evidence.
//!
//! Each session is folded once per measure, at a fixed age in both variants, so that slow outcomes
//! do not bias early looks. The constants that turn facts into badness are frozen from stable in a
//! [`Baseline`] before evidence starts.

mod baseline;

use std::time::Duration;

pub use self::baseline::{Baseline, MetricBaseline, freeze};
use crate::aggregate::{Counters, Counts, Judge, Measure, Scale};
use crate::metric::{Better, Kind, Metric, Signal, catalogue};
use crate::observation::{Fact, Observation, Reading, Response};
use crate::plan::{Gate, GateRule, Plan};
use crate::routing::Variant;
use crate::stats::maturity::{self, SessionLimits, of_outcomes};
use crate::units::{HoldFor, Timestamp};

/// Requests that start within this age of their session count for metrics of responses.
pub const RESPONSE_WINDOW: HoldFor = HoldFor::from_secs(maturity::RESPONSE_WINDOW.as_secs());
/// No session counts more requests than this.
pub const MOST_REQUESTS: u32 = 20;
/// Matured sessions of stable's last day that make a baseline without waiting for Observing.
pub const BASELINE_SESSIONS: u64 = 200;
/// Matured sessions that Observing must have collected where stable's last day does not suffice.
pub const LEAST_BASELINE_SESSIONS: u64 = 30;
/// No latency cap is longer than this: the longest time that a request may take.
pub const LONGEST_REQUEST: HoldFor = HoldFor::from_mins(10);

/// Everything that one session showed, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionFacts {
    /// When the session was assigned.
    pub assigned_at: Timestamp,
    /// To which side.
    pub variant: Variant,
    /// What was seen of it.
    pub observations: Vec<Observation>,
}

/// When the value of a session is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Maturity {
    /// Age at which the value is taken.
    pub read_at: HoldFor,
    /// Requests that start within this age count.
    pub window: HoldFor,
}

/// One measure of a plan and when it is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedMeasure {
    /// The metric.
    pub metric: Metric,
    /// Against what it is judged.
    pub judge: JudgeRule,
    /// When its value is taken.
    pub maturity: Maturity,
}

/// Against what a measure is judged, with what the fold needs of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum JudgeRule {
    /// Against a constant: for requests, small or large values beyond the limit are bad.
    Limit {
        /// The constant in the unit of the metric.
        limit: f64,
        /// Whether small values are the bad ones.
        low_is_bad: bool,
    },
    /// Against stable.
    Stable,
}

impl JudgeRule {
    /// The judge without its constants.
    pub fn judge(self) -> Judge {
        match self {
            Self::Limit { .. } => Judge::Limit,
            Self::Stable => Judge::Stable,
        }
    }
}

/// The metrics of a plan: the catalogue and what the manifest declares.
pub fn metrics_of(plan: &Plan) -> Vec<Metric> {
    catalogue().into_iter().chain(plan.analysis.custom.iter().cloned()).collect()
}

/// Everything that a plan counts, in the order in which it matures.
pub fn measures(plan: &Plan, baseline: &Baseline) -> Vec<PlannedMeasure> {
    let mut planned = Vec::new();
    for gate in plan.analysis.gates.iter().filter(|gate| gate.provider == "builtin") {
        if let GateRule::Threshold { comparison, limit } = gate.rule {
            let judge = JudgeRule::Limit { limit, low_is_bad: comparison.low_is_bad() };
            let maturity = maturity(&gate.metric, Some(gate), plan, baseline);
            planned.push(PlannedMeasure { metric: gate.metric.clone(), judge, maturity });
        }
    }
    for metric in metrics_of(plan) {
        let gate = plan.analysis.gates.iter().find(|gate| gate.metric.name == metric.name);
        let maturity = maturity(&metric, gate, plan, baseline);
        planned.push(PlannedMeasure { metric, judge: JudgeRule::Stable, maturity });
    }
    planned.sort_by_key(|measure| measure.maturity);
    planned
}

/// The ages at which sessions of a plan are folded, ascending and without repeats.
pub fn fold_ages(measures: &[PlannedMeasure]) -> Vec<HoldFor> {
    let mut ages: Vec<HoldFor> = measures.iter().map(|measure| measure.maturity.read_at).collect();
    ages.dedup();
    ages
}

/// When a metric's value is taken: one constant per metric and rollout.
///
/// Metrics of responses count requests that start within the window (a minute, or the gate's
/// `maturity`) and are read one latency cap later, so that a slow answer is seen as slow and not as
/// missing. Outcomes are read at the gate's `maturity`, or after three times the delay that stable's have; at
/// the idle timeout while that is unknown.
fn maturity(metric: &Metric, gate: Option<&Gate>, plan: &Plan, baseline: &Baseline) -> Maturity {
    let asked = gate.and_then(|gate| gate.maturity);
    if metric.signal.is_per_request() {
        let window = asked.unwrap_or(RESPONSE_WINDOW);
        Maturity { read_at: window.plus(baseline.latency_cap()), window }
    } else {
        let delay_ms = baseline.metrics.get(&metric.name).and_then(|constants| constants.delay_p99_ms);
        let limits = SessionLimits {
            idle_timeout: plan.sessions.idle_timeout.as_std(),
            max_lifetime: plan.sessions.max_lifetime.as_std(),
        };
        let usual = of_outcomes(delay_ms.map(|ms| Duration::from_secs_f64(ms / 1_000.0)), limits);
        let usual = HoldFor::from_millis(u64::try_from(usual.as_millis()).unwrap_or(u64::MAX));
        let read_at = asked.unwrap_or(usual).min(plan.sessions.max_lifetime);
        Maturity { read_at, window: read_at }
    }
}

/// What a session contributes at one of the [`fold_ages`], to the measures that mature there.
///
/// The session itself is counted once, at the first of the ages.
pub fn fold(
    facts: &SessionFacts,
    age: HoldFor,
    measures: &[PlannedMeasure],
    baseline: &Baseline,
) -> Counters {
    let is_first_age = measures.iter().all(|measure| measure.maturity.read_at >= age);
    let mut counters = Counters { sessions: u64::from(is_first_age), ..Counters::default() };
    for measure in measures.iter().filter(|measure| measure.maturity.read_at == age) {
        let mut counts = Counts::default();
        match contribution(facts, measure, baseline) {
            Some(Contribution::Requests { n, bad }) => *counts.pairs.entry((n, bad)).or_default() += 1,
            Some(Contribution::Value(value)) => {
                *counts.values.entry(Scale::of(&measure.metric).bucket(value)).or_default() += 1;
            }
            None => continue,
        }
        let key = Measure { metric: measure.metric.name.clone(), judge: measure.judge.judge() };
        counters.measures.insert(key, counts);
    }
    counters
}

/// What one session shows of one measure.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Contribution {
    /// Of `n` counted requests (or one outcome) `bad` were bad.
    Requests { n: u32, bad: u32 },
    /// The session's own value.
    Value(f64),
}

fn contribution(facts: &SessionFacts, measure: &PlannedMeasure, baseline: &Baseline) -> Option<Contribution> {
    let metric = &measure.metric;
    if metric.signal == Signal::Turns {
        let end = measure.maturity.read_at.after(facts.assigned_at);
        let turns =
            facts.observations.iter().filter(|seen| seen.at <= end && is_response(&seen.fact)).count();
        return (turns > 0).then(|| Contribution::Value(u32::try_from(turns).unwrap_or(u32::MAX).into()));
    }
    if !metric.signal.is_per_request() {
        return outcome_contribution(facts, measure);
    }
    let answers = counted_answers(facts, measure.maturity, baseline);
    let constants = baseline.metrics.get(&metric.name);
    // The margin of a quantile shifts the edge that canary sessions are read against.
    let shift = match facts.variant {
        Variant::Stable => 0.0,
        Variant::Canary => constants.and_then(|constants| constants.margin).unwrap_or(0.0),
    };
    let edge = constants.and_then(|constants| constants.edge).map(|edge| edge + shift);
    let limit = match measure.judge {
        JudgeRule::Limit { limit, .. } => Some(limit),
        JudgeRule::Stable => edge,
    };
    let low_is_bad = match measure.judge {
        JudgeRule::Limit { low_is_bad, .. } => low_is_bad,
        JudgeRule::Stable => metric.better == Better::Higher,
    };
    match metric.kind {
        Kind::Rate | Kind::ComplementRate => {
            let flags = answers.iter().filter_map(|answer| answer.flag(metric));
            let (n, bad) = flags.fold((0, 0), |(n, bad), flag| (n + 1, bad + u32::from(flag != low_is_bad)));
            (n > 0).then_some(Contribution::Requests { n, bad })
        }
        Kind::Quantile(_) => {
            let limit = limit?;
            let values = answers.iter().filter_map(|answer| answer.value(&metric.signal));
            let is_bad = |value: f64| if low_is_bad { value < limit } else { value > limit };
            let (n, bad) = values.fold((0, 0), |(n, bad), value| (n + 1, bad + u32::from(is_bad(value))));
            (n > 0).then_some(Contribution::Requests { n, bad })
        }
        Kind::Mean => {
            let values: Vec<f64> = answers.iter().filter_map(|answer| answer.value(&metric.signal)).collect();
            mean_of(&values).map(Contribution::Value)
        }
    }
}

/// What an outcome contributes: one that is absent at maturity counts as not reached.
fn outcome_contribution(facts: &SessionFacts, measure: &PlannedMeasure) -> Option<Contribution> {
    let metric = &measure.metric;
    let end = measure.maturity.read_at.after(facts.assigned_at);
    let reported =
        facts.observations.iter().rev().filter(|seen| seen.at <= end).find_map(|seen| match &seen.fact {
            Fact::Outcome(outcome) if outcome.signal == metric.signal => Some(outcome.value),
            Fact::Outcome(_) | Fact::Started | Fact::Response(_) => None,
        });
    if !metric.is_rate() {
        return reported.map(Contribution::Value);
    }
    let reached = reported.is_some_and(|value| value >= 0.5);
    let low_is_bad = match measure.judge {
        JudgeRule::Limit { low_is_bad, .. } => low_is_bad,
        JudgeRule::Stable => metric.better == Better::Higher,
    };
    Some(Contribution::Requests { n: 1, bad: u32::from(reached != low_is_bad) })
}

/// One request that counts.
enum Answer<'f> {
    /// It ended in time.
    Ended(&'f Response),
    /// It was still unfinished when the session was read: a failure, and slower than every limit.
    Unfinished,
}

impl Answer<'_> {
    /// The fact that a rate is about, in the sense of the metric: true means that it counts towards the share.
    fn flag(&self, metric: &Metric) -> Option<bool> {
        let raw = match self {
            Self::Unfinished => (metric.signal == Signal::Success).then_some(false)?,
            Self::Ended(response) => match response.read(&metric.signal)? {
                Reading::Flag(flag) => flag,
                Reading::Value(_) => return None,
            },
        };
        Some(if metric.kind == Kind::ComplementRate { !raw } else { raw })
    }

    fn value(&self, signal: &Signal) -> Option<f64> {
        match self {
            Self::Unfinished => matches!(signal, Signal::Latency | Signal::Ttft).then_some(f64::MAX),
            Self::Ended(response) => match response.read(signal)? {
                Reading::Value(value) => Some(value),
                Reading::Flag(_) => None,
            },
        }
    }
}

fn is_response(fact: &Fact) -> bool {
    match fact {
        Fact::Response(_) => true,
        Fact::Started | Fact::Outcome(_) => false,
    }
}

/// The first N requests of a session that started inside the window, as they stood at maturity.
fn counted_answers<'f>(facts: &'f SessionFacts, maturity: Maturity, baseline: &Baseline) -> Vec<Answer<'f>> {
    let last_start = maturity.window.after(facts.assigned_at);
    let read_at = maturity.read_at.after(facts.assigned_at);
    let ended = |request: &Option<String>| {
        request.is_some()
            && facts.observations.iter().any(|other| is_response(&other.fact) && other.request == *request)
    };
    let mut first = true;
    let mut answers = Vec::new();
    for seen in &facts.observations {
        let answer = match &seen.fact {
            Fact::Outcome(_) => continue,
            Fact::Started if ended(&seen.request) => continue,
            Fact::Started => Answer::Unfinished,
            Fact::Response(_) if seen.until > read_at => Answer::Unfinished,
            Fact::Response(response) => Answer::Ended(response),
        };
        // The request that made the assignment started a little before it, and counts in any case.
        if !first && seen.at > last_start {
            continue;
        }
        first = false;
        answers.push(answer);
        if answers.len() >= baseline.request_cap as usize {
            break;
        }
    }
    answers
}

fn mean_of(values: &[f64]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "at most twenty values")]
    let n = values.len() as f64;
    (!values.is_empty()).then(|| values.iter().map(|value| value / n).sum())
}

/// Badness of a contribution, 0 to 1: the share of bad requests, or the place in the range or below the cap.
fn badness(contribution: Contribution, metric: &Metric, cap: Option<f64>) -> f64 {
    match contribution {
        Contribution::Requests { n, bad } => f64::from(bad) / f64::from(n.max(1)),
        Contribution::Value(value) => value_badness(value, metric, cap),
    }
}

/// Badness of a value, 0 to 1: its place in the known range, or its share of the cap B.
pub fn value_badness(value: f64, metric: &Metric, cap: Option<f64>) -> f64 {
    let size = match (metric.range, cap) {
        (Some((low, high)), _) => ((value - low) / (high - low)).clamp(0.0, 1.0),
        (None, Some(cap)) => (value / cap).clamp(0.0, 1.0),
        (None, None) => 0.0,
    };
    if metric.better == Better::Higher { 1.0 - size } else { size }
}
