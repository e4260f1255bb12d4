//! The constants of a comparison, frozen from stable before evidence starts.
//!
//! Wrong constants cost power, never validity (`docs/statistics.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Contribution, JudgeRule, LEAST_BASELINE_SESSIONS, LONGEST_REQUEST, MOST_REQUESTS, Maturity,
    PlannedMeasure, SessionFacts, badness, contribution, is_response, mean_of, metrics_of,
};
use crate::aggregate::{Scale, quantile_of};
use crate::metric::{Better, Kind, Metric, MetricName, Signal};
use crate::observation::{Fact, Reading, Response};
use crate::plan::{GateRule, Plan, Regression};
use crate::stats::quantile::LogBuckets;
use crate::units::{HoldFor, Timestamp};

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
    /// 99th percentile of the time from the assignment to the outcome, in milliseconds; unknown while few
    /// sessions with the outcome are old enough to tell.
    #[serde(default)]
    pub delay_p99_ms: Option<f64>,
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

/// Freezes the constants of a plan from sessions of stable; nothing while there are fewer than `least`.
///
/// Wrong constants cost power, never validity (`docs/statistics.md`).
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
            constants.delay_p99_ms = delay_p99_ms(&metric, &seen, plan.sessions.idle_timeout.before(now));
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
    let mut constants = MetricBaseline {
        shown: 0.0,
        mean: 0.0,
        sd: 0.0,
        cap: None,
        edge: None,
        margin: None,
        sessions: 0,
        delay_p99_ms: None,
    };
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
    // Sessions are counted by bucket later: constants from finer values would make the same session look off.
    let as_counted = |contribution: &Contribution| match *contribution {
        Contribution::Value(value) => {
            let scale = Scale::of(metric);
            Contribution::Value(scale.value(scale.bucket(value)))
        }
        Contribution::Requests { n, bad } => Contribution::Requests { n, bad },
    };
    let badness: Vec<f64> = read.iter().map(|c| badness(as_counted(c), metric, constants.cap)).collect();
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

/// The 99th percentile of the time from the assignment to an outcome, over sessions assigned before a point in time.
///
/// Younger sessions know only their fast outcomes: a percentile over them would be too short, and too short
/// a maturity blames a canary that is only slower.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of a day stay far below 2^52")]
fn delay_p99_ms(metric: &Metric, sessions: &[&SessionFacts], assigned_before: Timestamp) -> Option<f64> {
    let mut delays = BTreeMap::new();
    let mut n = 0_u64;
    for session in sessions.iter().filter(|session| session.assigned_at <= assigned_before) {
        let reported = session.observations.iter().find(|seen| match &seen.fact {
            Fact::Outcome(outcome) => outcome.signal == metric.signal,
            Fact::Started | Fact::Response(_) => false,
        });
        if let Some(outcome) = reported {
            let delay = HoldFor::between(session.assigned_at, outcome.at).millis();
            *delays.entry(LogBuckets::index(delay.max(1) as f64)).or_default() += 1;
            n += 1;
        }
    }
    if n < LEAST_BASELINE_SESSIONS { None } else { quantile_of(&delays, 0.99) }
}
