//! What many rollouts add up to.

use std::collections::BTreeMap;

use serde::Serialize;
use serin_core::metric::{Better, Kind, Metric, MetricName, Signal};
use serin_core::plan::{Gate, GateRule, Plan};
use serin_core::rollout::HoldCause;
use serin_core::stats::bound::{Stretch, over_plan};
use serin_core::stats::share::Share;
use serin_core::units::HoldFor;

use crate::rollouts::{Ran, RanEnd, counted};
use crate::scenario::Scenario;
use crate::truth::Truth;

/// What many rollouts of one plan in one scenario add up to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// Whether a completed rollout is a mistake in it.
    pub harmful: bool,
    /// How many rollouts were run.
    pub runs: u64,
    /// The seed that gives the same report again.
    pub seed: u64,
    /// Rollouts that were rolled back.
    pub rolled_back: Proportion,
    /// Rollouts in which the canary became stable.
    pub completed: Proportion,
    /// Rollouts that had not ended after the longest time that the batch gives them.
    pub unfinished: Proportion,
    /// In how many of these each cause held at the end.
    pub unfinished_held: BTreeMap<HoldCause, u64>,
    /// Harmful versions that became stable.
    pub bad_promoted: u64,
    /// Minutes from the start to the rollback, of those rolled back.
    pub minutes_to_rollback: Option<Spread>,
    /// Minutes from the start to the completion, of those completed.
    pub minutes_to_completion: Option<Spread>,
    /// Sessions that got the canary, of those rolled back.
    pub exposed: Option<Spread>,
    /// What the harm is and how soon it could be seen at all, where a gate can see it.
    pub onset: Option<Onset>,
    /// Minutes from the onset of the harm to the rollback.
    pub minutes_from_onset: Option<Spread>,
    /// Sessions that got the canary since the onset, of those rolled back.
    pub exposed_since_onset: Option<Spread>,
    /// Mean sessions exposed since the onset over the information bound; 1 would be perfect.
    pub ratio_to_bound: Option<f64>,
    /// How often each metric was named as the cause of a rollback.
    pub culprits: BTreeMap<MetricName, u64>,
    /// In how many rollouts each cause held at least once.
    pub held: BTreeMap<HoldCause, u64>,
}

/// A share of runs with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Proportion {
    /// How many.
    pub count: u64,
    /// The share, 0 to 1.
    pub share: f64,
    /// The lower end of its interval by Wilson's formula.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Proportion {
    /// The share of some runs among all of them.
    #[expect(clippy::cast_precision_loss, reason = "counts of runs stay far below 2^52")]
    pub fn of(count: usize, runs: usize) -> Self {
        const Z: f64 = 1.959_963_984_540_054;
        let (n, share) = (runs.max(1) as f64, count as f64 / runs.max(1) as f64);
        let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        // At the ends the formula gives them up to rounding.
        let low = if count == 0 { 0.0 } else { middle - half };
        let high = if count == runs { 1.0 } else { middle + half };
        Self { count: count as u64, share, low, high }
    }
}

/// How values spread over the runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// One in twenty is below.
    pub p5: f64,
    /// One in two is below.
    pub median: f64,
    /// One in twenty is above.
    pub p95: f64,
}

impl Spread {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks of a list that is not empty"
    )]
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        if values.is_empty() {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Some(Self { mean, p5: at(0.05), median: at(0.5), p95: at(0.95) })
    }
}

/// A harm that a gate can see, and the least number of sessions that any test would need to see it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Onset {
    /// When it begins, counted from the start of the rollout.
    pub from: HoldFor,
    /// Sessions of the canary that any test needs on average.
    ///
    /// Nothing when the plan ends before, and where the harm is no share of single requests: in a mean, in an outcome,
    /// or in sessions of several requests.
    pub bound_canary: Option<f64>,
}

impl Report {
    pub(crate) fn of(scenario: &Scenario, seed: u64, ran: &[Ran], onset: Option<Onset>) -> Self {
        let is_back = |ran: &&Ran| matches!(ran.end, RanEnd::RolledBack(_));
        let count = |fits: fn(&RanEnd) -> bool| ran.iter().filter(|ran| fits(&ran.end)).count();
        let completed = count(|end| *end == RanEnd::Completed);
        let back = || ran.iter().filter(is_back);
        let minutes = |ran: &Ran| ran.length.secs_f64() / 60.0;
        let since_onset = onset.map(|onset| onset.from.secs_f64() / 60.0);
        // Who was rolled back before the harm began was rolled back for nothing.
        let harmed = || back().filter(|ran| since_onset.is_some_and(|from| minutes(ran) >= from));
        #[expect(clippy::cast_precision_loss, reason = "counts of sessions stay far below 2^52")]
        let as_number = |count: u64| count as f64;
        let exposed_since_onset = Spread::of(harmed().map(|ran| as_number(ran.exposed_to_harm)));
        let bound = onset.and_then(|onset| onset.bound_canary).filter(|bound| *bound > 0.0);
        Self {
            scenario: scenario.name.clone(),
            harmful: scenario.harmful,
            runs: ran.len() as u64,
            seed,
            rolled_back: Proportion::of(back().count(), ran.len()),
            completed: Proportion::of(completed, ran.len()),
            unfinished: Proportion::of(count(|end| *end == RanEnd::Unfinished), ran.len()),
            unfinished_held: counted(
                ran.iter()
                    .filter(|ran| ran.end == RanEnd::Unfinished)
                    .flat_map(|ran| ran.last_holds.iter().copied()),
            ),
            bad_promoted: if scenario.harmful { completed as u64 } else { 0 },
            minutes_to_rollback: Spread::of(back().map(minutes)),
            minutes_to_completion: Spread::of(
                ran.iter().filter(|ran| ran.end == RanEnd::Completed).map(minutes),
            ),
            exposed: Spread::of(back().map(|ran| as_number(ran.exposed))),
            onset,
            minutes_from_onset: Spread::of(harmed().map(|ran| minutes(ran) - since_onset.unwrap_or(0.0))),
            exposed_since_onset,
            ratio_to_bound: exposed_since_onset.zip(bound).map(|(exposed, bound)| exposed.mean / bound),
            culprits: counted(ran.iter().flat_map(|ran| match &ran.end {
                RanEnd::RolledBack(culprits) => culprits.clone(),
                RanEnd::Completed | RanEnd::Unfinished => Vec::new(),
            })),
            held: counted(ran.iter().flat_map(|ran| ran.holds.iter().copied())),
        }
    }
}

/// The first minute in which the canary is worse than stable in the eyes of a gate, and its information bound.
pub(crate) fn onset(plan: &Plan, scenario: &Scenario) -> Option<Onset> {
    let timelines = scenario.timelines();
    let length = plan.planned_length();
    let alpha = 1.0 - plan.analysis.confidence;
    let minutes = (0..).map(HoldFor::from_mins).take_while(|minute| *minute < length);
    for from in minutes {
        let (stable, canary) = (timelines.stable.at(from.millis()).0, timelines.canary.at(from.millis()).0);
        let harms: Vec<Harm> =
            plan.analysis.gates.iter().filter_map(|gate| harm(gate, &stable, &canary)).collect();
        if harms.is_empty() {
            continue;
        }
        // The bound is known for one request per session and one weight at a time.
        let is_single =
            scenario.habits.requests_mean <= 1.0 && plan.segments.len() == 1 && plan.schedule.is_none();
        let bounds = harms.iter().filter_map(|harm| match harm {
            Harm::Share { canary, stable } if is_single => {
                over_plan(*canary, *stable, &stretches_from(plan, scenario, from), alpha)
            }
            Harm::Share { .. } | Harm::Other => None,
        });
        let bound_canary = bounds.map(|bound| bound.n_canary).min_by(f64::total_cmp);
        return Some(Onset { from, bound_canary });
    }
    None
}

/// How much worse the canary is in the eyes of one gate.
enum Harm {
    /// By the share of bad requests.
    Share { canary: f64, stable: f64 },
    /// In another way.
    Other,
}

/// The harm that a gate can see; nothing where the canary is as good as stable or better.
fn harm(gate: &Gate, stable: &Truth, canary: &Truth) -> Option<Harm> {
    if let Some((canary, stable)) = bad_shares(gate, stable, canary) {
        return (canary > stable).then_some(Harm::Share { canary, stable });
    }
    let (canary, stable) = (true_value(&gate.metric, canary)?, true_value(&gate.metric, stable)?);
    let is_worse = match gate.metric.better {
        Better::Higher => canary < stable,
        Better::Lower => canary > stable,
        Better::Watched => false,
    };
    is_worse.then_some(Harm::Other)
}

/// The value of a mean or an outcome that the truth gives.
fn true_value(metric: &Metric, truth: &Truth) -> Option<f64> {
    match metric.signal {
        Signal::Latency => {
            let (mu, sigma, shift) = latency_shape(truth)?;
            Some((mu + sigma * sigma / 2.0).exp() + shift)
        }
        Signal::InputTokens => truth.input_tokens,
        Signal::OutputTokens => truth.output_tokens,
        Signal::Cost => truth.cost,
        Signal::Refusal => truth.refusal_rate,
        Signal::ToolCalls => truth.tool_accuracy,
        Signal::Completion => truth.completion,
        Signal::Escalation => truth.escalation,
        Signal::Satisfaction => truth.satisfaction,
        Signal::Success
        | Signal::Ttft
        | Signal::Truncated
        | Signal::Empty
        | Signal::InvalidFormat
        | Signal::RepeatedQuestion
        | Signal::ResponseLength
        | Signal::Turns
        | Signal::Sentiment
        | Signal::Custom(_) => None,
    }
}

/// What is left of the plan from a point in time on, in sessions per weight.
fn stretches_from(plan: &Plan, scenario: &Scenario, from: HoldFor) -> Vec<Stretch> {
    let mut begins = HoldFor::ZERO;
    let mut stretches = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let ends = begins.plus(step.hold);
        let left = ends.minus(begins.max(from));
        let weight = plan.weights(index, serin_core::units::Timestamp::UNIX_EPOCH).last().copied();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
        let n_sessions = (left.secs_f64() * scenario.sessions_per_s(begins.millis())) as u64;
        let weight = weight.map_or(0.0, serin_core::weight::Weight::share);
        let weight = Share::new(weight).expect("a weight is a share");
        stretches.push(Stretch { weight, n_sessions });
        begins = ends;
    }
    stretches
}

/// The shares of bad requests of canary and stable as a gate counts them; nothing for means and outcomes.
fn bad_shares(gate: &Gate, stable: &Truth, canary: &Truth) -> Option<(f64, f64)> {
    match (&gate.metric.signal, gate.metric.kind) {
        (Signal::Success, Kind::Rate | Kind::ComplementRate) => {
            Some((1.0 - canary.success_rate?, 1.0 - stable.success_rate?))
        }
        (Signal::Latency, Kind::Quantile(q)) => {
            let limit = match gate.rule {
                GateRule::Threshold { limit, .. } => limit,
                GateRule::NotWorseThanStable { .. } => latency_quantile(stable, q)?,
            };
            Some((share_above(canary, limit)?, share_above(stable, limit)?))
        }
        _ => None,
    }
}

const Z99: f64 = 2.326_347_874_040_841;

fn latency_shape(truth: &Truth) -> Option<(f64, f64, f64)> {
    let median = truth.latency_median_ms?;
    let p99 = truth.latency_p99_ms.unwrap_or(median * 2.0);
    Some((median.ln(), (p99 / median).ln() / Z99, truth.latency_shift_ms.unwrap_or(0.0)))
}

/// The share of requests above a limit in milliseconds.
fn share_above(truth: &Truth, limit: f64) -> Option<f64> {
    let (mu, sigma, shift) = latency_shape(truth)?;
    let unshifted = limit - shift;
    if unshifted <= 0.0 {
        return Some(1.0);
    }
    if sigma <= 0.0 {
        return Some(if unshifted.ln() < mu { 1.0 } else { 0.0 });
    }
    Some(upper_tail((unshifted.ln() - mu) / sigma))
}

/// The quantile of latency by bisection of its tail.
fn latency_quantile(truth: &Truth, q: f64) -> Option<f64> {
    let (mut low, mut high) = (1e-3, 1e9);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if share_above(truth, middle)? > 1.0 - q { low = middle } else { high = middle }
    }
    Some(high)
}

/// The chance that a standard normal value is above `z`, to seven digits (Abramowitz and Stegun 26.2.17).
fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    density * series.iter().rev().fold(0.0, |sum, coefficient| (sum + coefficient) * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_and_quantiles_of_latency_are_those_of_the_truth() {
        let truth = Truth::default().latency(1_000.0, 3_000.0).slower_by(500.0);
        assert!((share_above(&truth, 3_500.0).unwrap_or_default() - 0.01).abs() < 1e-6);
        assert!((share_above(&truth, 1_500.0).unwrap_or_default() - 0.5).abs() < 1e-6);
        assert!((latency_quantile(&truth, 0.99).unwrap_or_default() - 3_500.0).abs() < 0.5);
    }

    #[test]
    fn shares_of_runs_have_an_interval_that_holds_them() {
        let none = Proportion::of(0, 100);
        assert_eq!((none.share, none.low), (0.0, 0.0));
        assert!((0.03..0.05).contains(&none.high), "{none:?}");
        let half = Proportion::of(50, 100);
        assert!(half.low > 0.4 && half.high < 0.6, "{half:?}");
    }

    #[test]
    fn spreads_name_the_ends_and_the_middle() {
        let spread = Spread::of((1..=101).map(f64::from));
        assert_eq!(spread, Some(Spread { mean: 51.0, p5: 6.0, median: 51.0, p95: 96.0 }));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
