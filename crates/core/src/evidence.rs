//! From the facts of one session to its single contribution to the evidence.
//!
//! Each session is folded once per measure, at a fixed age in both variants, so that slow outcomes
//! do not bias early looks. The constants that turn facts into badness are frozen from stable in a
//! [`Baseline`] before evidence starts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::aggregate::{Counters, Counts, Judge, Measure, Scale, quantile_of};
use crate::metric::{Better, Kind, Metric, MetricName, Signal, catalogue};
use crate::observation::{Fact, Observation, Reading, Response};
use crate::plan::{Gate, GateRule, Plan, Regression};
use crate::routing::Variant;
use crate::stats::quantile::LogBuckets;
use crate::units::{HoldFor, Timestamp};

/// Requests that start within this age of their session count for metrics of responses.
pub const RESPONSE_WINDOW: HoldFor = HoldFor::from_mins(1);
/// No session counts more requests than this.
pub const MOST_REQUESTS: u32 = 20;
/// Matured sessions of stable's last day that make a baseline without waiting for Observing.
pub const BASELINE_SESSIONS: u64 = 200;
/// Matured sessions that Observing must have collected where stable's last day does not suffice.
pub const LEAST_BASELINE_SESSIONS: u64 = 30;
/// No latency cap is longer than this: the longest time that a request may take.
pub const LONGEST_REQUEST: HoldFor = HoldFor::from_mins(10);
/// The latency cap of an app that reports no latencies.
pub const UNKNOWN_LATENCY_CAP: HoldFor = HoldFor::from_mins(1);

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

/// Constants of one metric, frozen from stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricBaseline {
    /// Stable's value in the unit of the metric, as shown.
    pub shown: f64,
    /// Stable's mean badness m, 0 to 1.
    pub mean: f64,
    /// Standard deviation of badness, above 0.
    pub sd: f64,
    /// Cap B of a mean without a known range, in its unit.
    pub cap: Option<f64>,
    /// The edge T_q of a quantile, in its unit.
    pub edge: Option<f64>,
    /// The margin of `compareTo: stable`, absolute in the unit of the metric.
    pub margin: Option<f64>,
    /// Sessions that the constants rest on.
    pub sessions: u64,
}

/// Constants frozen from stable before evidence starts, and excluded from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// When it was frozen.
    pub frozen_at: Timestamp,
    /// Sessions of stable that it rests on.
    pub sessions: u64,
    /// The first N requests of a session count.
    pub request_cap: u32,
    /// Mean number of counted requests in a session, at least 1.
    pub requests_mean: f64,
    /// A request still unfinished at this age counts as bad, in milliseconds.
    pub latency_cap_ms: f64,
    /// By metric.
    pub metrics: BTreeMap<MetricName, MetricBaseline>,
}

impl Baseline {
    /// The latency cap as a length of time.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1 ms ..= 10 min")]
    pub fn latency_cap(&self) -> HoldFor {
        HoldFor::from_millis(self.latency_cap_ms.clamp(1.0, LONGEST_REQUEST.secs_f64() * 1_000.0) as u64)
    }
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
    let cap = baseline.latency_cap();
    let mut planned = Vec::new();
    for gate in plan.analysis.gates.iter().filter(|gate| gate.provider == "builtin") {
        if let GateRule::Threshold { comparison, limit } = gate.rule {
            let judge = JudgeRule::Limit { limit, low_is_bad: comparison.low_is_bad() };
            let maturity = maturity(&gate.metric, Some(gate), plan, cap);
            planned.push(PlannedMeasure { metric: gate.metric.clone(), judge, maturity });
        }
    }
    for metric in metrics_of(plan) {
        let gate = plan.analysis.gates.iter().find(|gate| gate.metric.name == metric.name);
        let maturity = maturity(&metric, gate, plan, cap);
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
/// missing. Outcomes are read at the gate's `maturity`, or at the idle timeout.
fn maturity(metric: &Metric, gate: Option<&Gate>, plan: &Plan, cap: HoldFor) -> Maturity {
    let asked = gate.and_then(|gate| gate.maturity);
    if metric.signal.is_per_request() {
        let window = asked.unwrap_or(RESPONSE_WINDOW);
        Maturity { read_at: window.plus(cap), window }
    } else {
        let read_at = asked.unwrap_or(plan.sessions.idle_timeout).min(plan.sessions.max_lifetime);
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

/// Freezes the constants of a plan from sessions of stable; nothing while there are fewer than `least`.
///
/// Wrong constants cost power, never validity (STATISTICS, "Sufficient statistics").
pub fn freeze(plan: &Plan, sessions: &[SessionFacts], least: u64, now: Timestamp) -> Option<Baseline> {
    let is_fact = |fact: &Fact| match fact {
        Fact::Response(_) | Fact::Outcome(_) => true,
        Fact::Started => false,
    };
    let seen: Vec<&SessionFacts> = sessions
        .iter()
        .filter(|session| session.observations.iter().any(|seen| is_fact(&seen.fact)))
        .collect();
    let n = u64::try_from(seen.len()).unwrap_or(u64::MAX);
    if n < least {
        return None;
    }
    let mut request_counts: Vec<u32> =
        seen.iter().map(|session| u32::try_from(responses(session).count()).unwrap_or(u32::MAX)).collect();
    request_counts.sort_unstable();
    let p99 =
        request_counts.get((request_counts.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(1);
    let request_cap = p99.clamp(1, MOST_REQUESTS);
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let requests_mean = request_counts.iter().map(|count| f64::from((*count).min(request_cap))).sum::<f64>()
        / seen.len() as f64;
    let latency = buckets_of(&seen, &Signal::Latency, request_cap);
    let longest_ms = LONGEST_REQUEST.secs_f64() * 1_000.0;
    // Where no latency is reported, answers are as old as they seem: from their request to their end.
    let slowest = quantile_of(&latency, 0.999).or_else(|| longest_answer_ms(&seen));
    let latency_cap_ms = slowest.map_or(longest_ms, |slowest| (1.5 * slowest).clamp(1.0, longest_ms));

    let mut baseline = Baseline {
        frozen_at: now,
        sessions: n,
        request_cap,
        requests_mean: requests_mean.max(1.0),
        latency_cap_ms,
        metrics: BTreeMap::new(),
    };
    for metric in metrics_of(plan) {
        if let Some(mut constants) = freeze_metric(&metric, &seen, &baseline) {
            constants.margin = plan.analysis.gates.iter().find_map(|gate| match gate.rule {
                GateRule::NotWorseThanStable { max_regression } if gate.metric.name == metric.name => {
                    Some(match max_regression {
                        Regression::Relative(share) => share * constants.shown.abs(),
                        Regression::Absolute(margin) => margin,
                    })
                }
                GateRule::NotWorseThanStable { .. } | GateRule::Threshold { .. } => None,
            });
            baseline.metrics.insert(metric.name.clone(), constants);
        }
    }
    Some(baseline)
}

fn responses(session: &SessionFacts) -> impl Iterator<Item = &Response> {
    session.observations.iter().filter_map(|seen| match &seen.fact {
        Fact::Response(response) => Some(response),
        Fact::Started | Fact::Outcome(_) => None,
    })
}

/// The longest time in milliseconds from a request to the end of its answer; nothing without answers.
fn longest_answer_ms(sessions: &[&SessionFacts]) -> Option<f64> {
    let answers =
        sessions.iter().flat_map(|session| &session.observations).filter(|seen| is_response(&seen.fact));
    answers.map(|seen| HoldFor::between(seen.at, seen.until).secs_f64() * 1_000.0).max_by(f64::total_cmp)
}

fn buckets_of(sessions: &[&SessionFacts], signal: &Signal, cap: u32) -> BTreeMap<u32, u64> {
    let mut buckets = BTreeMap::new();
    for session in sessions {
        for response in responses(session).take(cap as usize) {
            if let Some(Reading::Value(value)) = response.read(signal) {
                *buckets.entry(LogBuckets::index(value)).or_default() += 1;
            }
        }
    }
    buckets
}

/// Reads stable's sessions as the fold would, without regard to maturity, and takes their moments.
fn freeze_metric(metric: &Metric, sessions: &[&SessionFacts], baseline: &Baseline) -> Option<MetricBaseline> {
    let forever = Maturity { read_at: HoldFor::from_hours(24 * 365), window: HoldFor::from_hours(24 * 365) };
    let mut constants =
        MetricBaseline { shown: 0.0, mean: 0.0, sd: 0.0, cap: None, edge: None, margin: None, sessions: 0 };
    if let Kind::Quantile(q) = metric.kind {
        let edge = quantile_of(&buckets_of(sessions, &metric.signal, baseline.request_cap), q)?;
        constants.edge = Some(edge);
        constants.shown = edge;
    }
    let with_edge =
        Baseline { metrics: BTreeMap::from([(metric.name.clone(), constants.clone())]), ..baseline.clone() };
    let measure = PlannedMeasure { metric: metric.clone(), judge: JudgeRule::Stable, maturity: forever };
    let read: Vec<Contribution> =
        sessions.iter().filter_map(|session| contribution(session, &measure, &with_edge)).collect();
    if read.is_empty() {
        return None;
    }
    if metric.kind == Kind::Mean && metric.range.is_none() {
        let mut buckets = BTreeMap::new();
        for contribution in &read {
            if let Contribution::Value(value) = contribution {
                *buckets.entry(LogBuckets::index(*value)).or_default() += 1;
            }
        }
        constants.cap = quantile_of(&buckets, 0.999).map(|p999| (1.5 * p999).max(f64::MIN_POSITIVE));
    }
    let badness: Vec<f64> = read.iter().map(|c| badness(*c, metric, constants.cap)).collect();
    constants.mean = mean_of(&badness)?;
    let squares: Vec<f64> = badness.iter().map(|y| (y - constants.mean).powi(2)).collect();
    constants.sd = mean_of(&squares)?.sqrt().max(1e-3);
    constants.sessions = u64::try_from(read.len()).unwrap_or(u64::MAX);
    match metric.kind {
        Kind::Quantile(_) => {}
        Kind::Mean => {
            let values: Vec<f64> = read
                .iter()
                .filter_map(|c| match c {
                    Contribution::Value(value) => Some(*value),
                    Contribution::Requests { .. } => None,
                })
                .collect();
            constants.shown = mean_of(&values)?;
        }
        Kind::Rate | Kind::ComplementRate => {
            let (n, bad) = read.iter().fold((0, 0), |(n, bad), c| match c {
                Contribution::Requests { n: more, bad: worse } => (n + more, bad + worse),
                Contribution::Value(_) => (n, bad),
            });
            let share = f64::from(bad) / f64::from(n.max(1));
            constants.shown = if metric.better == Better::Higher { 1.0 - share } else { share };
        }
    }
    Some(constants)
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
