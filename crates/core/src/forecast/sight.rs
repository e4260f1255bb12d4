//! How large a harm has to be for a gate to see it.

use serde::Serialize;

use super::{Reading, Traffic, Walk, hold_for, is_split, whole};
use crate::analysis::rule_text;
use crate::evidence::{Baseline, MetricBaseline, metrics_of};
use crate::metric::{Better, Kind, Metric, Tier};
use crate::plan::{Comparison, Decision, Gate, GateRule, OnDegraded, Plan, Regression};
use crate::stats::bound::information;
use crate::stats::power::ThresholdGate;
use crate::units::HoldFor;
use crate::weight::Weight;

/// Sessions that a comparison needs to see a harm in 4 of 5 rollouts, over the information bound.
///
/// On average the tests need 1.3 to 1.5 times the bound, but only half of the rollouts are through by then. With 2.3
/// times the bound, simulated at weights of 10 to 30 % and from 1000 to 30 000 sessions, 77 to 86 % are.
const OVER_THE_BOUND: f64 = 2.3;

/// The smallest effect that the smallest bet (0.015 standard deviations) does not lose on, in standard deviations.
const SMALLEST_EFFECT: f64 = 0.0075;

/// Stable's share of bad sessions that is assumed as long as it is not frozen.
pub(super) const ASSUMED_BAD_SHARE: f64 = 0.05;

/// Halvings of a range in a search: 2^-30 is a billionth.
const HALVINGS: u32 = 30;

/// The largest effect that is searched for, in standard deviations.
const LARGEST_EFFECT: f64 = 8.0;

/// What a gate can see.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateForecast {
    /// The metric.
    pub metric: String,
    /// The rule as people write it, such as `>= 90%`.
    pub rule: String,
    /// How its facts are condensed.
    pub kind: Kind,
    /// Its share of the error budget, 0 to 1; nothing for a gate that is read literally.
    pub budget: f64,
    /// The age at which a session counts.
    pub maturity: HoldFor,
    /// Canary sessions below which it reads no data: in the step, and for quantiles since the start.
    pub needed: u64,
    /// The share of the sessions that its judge reads at this traffic, above 0 to 1; absent without a judge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged_share: Option<f64>,
    /// How it is read.
    pub sees: Sees,
    /// The share of bad ones that it accepts, 0 to 1; absent for a mean and a gate that is read literally.
    pub accepted: Option<f64>,
    /// By the end of each step.
    pub sights: Vec<Sight>,
    /// As soon as it may pass at all.
    pub at_first: Sight,
}

/// On what a forecast of a gate rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sees {
    /// Exact for one draw per session: the canary against a share.
    Share,
    /// By 2.3 times the information bound: a mean against a constant.
    Mean,
    /// By 2.3 times the information bound: the canary against stable.
    Comparison,
    /// Nothing: the gate fails whenever the last interval is on the wrong side.
    Literal,
}

/// The smallest harm that is seen in 4 of 5 rollouts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sight {
    /// Matured canary sessions that it rests on.
    pub sessions: u64,
    /// The harm: a share of bad ones from 0 to 1, or standard deviations for a mean; absent when none is seen.
    pub harm: Option<f64>,
    /// The harm in words, such as `63% or lower`.
    pub shown: String,
}

/// Forecasts every gate.
pub(super) fn gates(
    plan: &Plan,
    traffic: &Traffic,
    walk: &Walk,
    baseline: Option<&Baseline>,
) -> Vec<GateForecast> {
    let budgets = total_budget(plan);
    let gates = plan.analysis.gates.iter();
    gates.map(|gate| gate_forecast(plan, traffic, gate, budgets, walk, baseline)).collect()
}

/// The budget weights of everything that speaks for a rollback.
fn total_budget(plan: &Plan) -> f64 {
    let by_evidence = plan.analysis.gates.iter().filter(|gate| gate.decision == Decision::Evidence);
    let is_gate = |metric: &Metric| plan.analysis.gates.iter().any(|gate| gate.metric.name == metric.name);
    let joining = match plan.analysis.on_degraded {
        OnDegraded::Hold | OnDegraded::Notify => 0,
        OnDegraded::Rollback => {
            metrics_of(plan).iter().filter(|metric| metric.tier > Tier::Low && !is_gate(metric)).count()
        }
    };
    by_evidence.map(|gate| gate.budget).sum::<f64>() + joining as f64
}

fn gate_forecast(
    plan: &Plan,
    traffic: &Traffic,
    gate: &Gate,
    budgets: f64,
    walk: &Walk,
    baseline: Option<&Baseline>,
) -> GateForecast {
    let need = walk.needs.iter().skip(1).filter(|need| need.what == gate.metric.name.as_str());
    let (age, needed) = need
        .fold((walk.first_age, gate.min_samples), |(_, needed), need| (need.age, needed.max(need.sessions)));
    let judged_share = Reading::of(plan, gate, traffic).map(|reading| reading.share);
    let counted = Counted { age, share: judged_share.unwrap_or(1.0) };
    let eye = Eye::of(plan, gate, gate.budget / budgets, baseline);
    let sights = (0..walk.flows.len()).map(|index| eye.by_end_of(walk, index, counted)).collect();
    GateForecast {
        metric: gate.metric.name.to_string(),
        rule: rule_text(&gate.metric, &gate.rule),
        kind: gate.metric.kind,
        budget: if gate.decision == Decision::Evidence { gate.budget / budgets } else { 0.0 },
        maturity: hold_for(age).unwrap_or_default(),
        needed,
        judged_share,
        sees: eye.sees,
        accepted: eye.accepted(),
        at_first: eye.at_first(walk, gate.min_samples),
        sights,
    }
}

/// Which sessions a gate counts.
#[derive(Debug, Clone, Copy)]
struct Counted {
    /// The age at which they count, in seconds.
    age: f64,
    /// The share of them that has a value.
    share: f64,
}

/// A gate as its forecast needs it.
struct Eye<'a> {
    gate: &'a Gate,
    constants: Option<&'a MetricBaseline>,
    sees: Sees,
    /// The error budget of the gate alone: alpha times its share.
    alpha: f64,
}

impl<'a> Eye<'a> {
    fn of(plan: &Plan, gate: &'a Gate, share: f64, baseline: Option<&'a Baseline>) -> Self {
        let sees = match (gate.decision, gate.rule, gate.metric.kind) {
            (Decision::Point, _, _) => Sees::Literal,
            (Decision::Evidence, GateRule::NotWorseThanStable { .. }, _) => Sees::Comparison,
            (Decision::Evidence, GateRule::Threshold { .. }, Kind::Mean) => Sees::Mean,
            (
                Decision::Evidence,
                GateRule::Threshold { .. },
                Kind::Rate | Kind::ComplementRate | Kind::Quantile(_),
            ) => Sees::Share,
        };
        let constants = baseline.and_then(|baseline| baseline.metrics.get(&gate.metric.name));
        Self { gate, constants, sees, alpha: (1.0 - plan.analysis.confidence) * share }
    }

    /// What is seen when a step ends.
    fn by_end_of(&self, walk: &Walk, index: usize, counted: Counted) -> Sight {
        let Counted { age, share } = counted;
        let now = walk.end_of(index);
        if now.is_infinite() {
            return Sight { sessions: 0, harm: None, shown: "never reached".to_owned() };
        }
        let sessions = share * walk.matured_by_end(index, age);
        match self.sees {
            Sees::Literal | Sees::Share | Sees::Mean => self.with(whole(sessions), &[]),
            Sees::Comparison => {
                let mut compared = Vec::new();
                for flow in walk.flows[..=index].iter().filter(|flow| !flow.is_observing) {
                    let secs = flow.matured_secs(now, age);
                    let split = flow.by_weight.iter().filter(|(weight, _)| is_split(**weight));
                    compared.extend(split.map(|(weight, rate)| (*weight, share * rate * secs)));
                }
                let canary: f64 = compared.iter().map(|(weight, sessions)| weight.share() * sessions).sum();
                self.with(whole(canary), &compared)
            }
        }
    }

    /// What is seen with the first sessions that let the gate pass.
    fn at_first(&self, walk: &Walk, sessions: u64) -> Sight {
        let weights =
            walk.flows.iter().filter(|flow| !flow.is_observing).flat_map(|flow| flow.by_weight.keys());
        let weight = weights.copied().find(|weight| is_split(*weight));
        let compared = weight.map(|weight| (weight, sessions as f64 / weight.share()));
        self.with(sessions, compared.as_slice())
    }

    /// What is seen with so many canary sessions, in comparisons with all sessions at each weight.
    fn with(&self, sessions: u64, compared: &[(Weight, f64)]) -> Sight {
        let harm = match self.sees {
            Sees::Literal => None,
            Sees::Share => {
                let gate = ThresholdGate::new(self.allowed(), self.alpha, 1.0);
                gate.and_then(|gate| gate.smallest_harm(sessions))
            }
            // One canary session of a mean tells d^2/2 about an effect of d standard deviations.
            Sees::Mean => {
                smallest(SMALLEST_EFFECT, LARGEST_EFFECT, |d| sessions as f64 * d * d / 2.0 >= self.enough())
            }
            Sees::Comparison => self.smallest_difference(compared),
        };
        let shown = match (self.sees, harm) {
            (Sees::Literal, _) => "read literally".to_owned(),
            (Sees::Comparison, None) if compared.is_empty() => "nothing to compare".to_owned(),
            (_, None) => "nothing".to_owned(),
            (_, Some(harm)) => self.shown(harm),
        };
        Sight { sessions, harm, shown }
    }

    /// The information that is enough in 4 of 5 rollouts, in nats.
    fn enough(&self) -> f64 {
        -OVER_THE_BOUND * self.alpha.ln()
    }

    fn smallest_difference(&self, compared: &[(Weight, f64)]) -> Option<f64> {
        match self.gate.metric.kind {
            Kind::Rate | Kind::ComplementRate | Kind::Quantile(_) => {
                // A margin makes stable as bad as it allows.
                let stable = self.accepted_bad_share();
                let least = stable + SMALLEST_EFFECT * (stable * (1.0 - stable)).sqrt();
                smallest(least, 1.0, |canary| {
                    let told = |(weight, n): &(Weight, f64)| n * information(canary, stable, weight.share());
                    compared.iter().map(told).sum::<f64>() >= self.enough()
                })
            }
            Kind::Mean => {
                let told: f64 = compared.iter().map(|(w, n)| n * w.share() * (1.0 - w.share()) / 2.0).sum();
                smallest(SMALLEST_EFFECT, LARGEST_EFFECT, |d| told * d * d >= self.enough())
            }
        }
    }

    /// Stable's share of bad ones.
    fn stable_bad_share(&self) -> f64 {
        match (self.gate.metric.kind, self.constants) {
            (Kind::Quantile(q), _) => 1.0 - q,
            (Kind::Rate | Kind::ComplementRate | Kind::Mean, Some(constants)) => constants.mean,
            (Kind::Rate | Kind::ComplementRate | Kind::Mean, None) => ASSUMED_BAD_SHARE,
        }
    }

    /// The share of bad ones up to which the canary does not break a comparison.
    fn accepted_bad_share(&self) -> f64 {
        (self.stable_bad_share() + self.margin_share()).min(1.0)
    }

    /// The margin of a rate as a share; that of a quantile moves its edge instead.
    fn margin_share(&self) -> f64 {
        match self.gate.metric.kind {
            Kind::Rate | Kind::ComplementRate => self.margin(),
            Kind::Quantile(_) | Kind::Mean => 0.0,
        }
    }

    /// The margin in the unit of the metric; for a mean that is not frozen only an absolute one is known.
    fn margin(&self) -> f64 {
        if let Some(margin) = self.constants.and_then(|constants| constants.margin) {
            return margin;
        }
        match self.gate.rule {
            GateRule::Threshold { .. } => 0.0,
            GateRule::NotWorseThanStable { max_regression: Regression::Absolute(margin) } => margin,
            GateRule::NotWorseThanStable { max_regression: Regression::Relative(share) } => {
                let bad = ASSUMED_BAD_SHARE;
                share * if self.gate.metric.better == Better::Higher { 1.0 - bad } else { bad }
            }
        }
    }

    /// The share of bad ones above which there is harm, where the gate is about a share.
    fn accepted(&self) -> Option<f64> {
        match (self.sees, self.gate.metric.kind) {
            (Sees::Share, _) => Some(self.allowed()),
            (Sees::Comparison, Kind::Rate | Kind::ComplementRate | Kind::Quantile(_)) => {
                Some(self.accepted_bad_share())
            }
            (Sees::Comparison, Kind::Mean) | (Sees::Mean | Sees::Literal, _) => None,
        }
    }

    /// The share of bad ones that the gate allows.
    fn allowed(&self) -> f64 {
        let allowed = match (self.gate.rule, self.gate.metric.kind) {
            (GateRule::Threshold { comparison, .. }, Kind::Quantile(q)) => {
                if comparison.low_is_bad() {
                    q
                } else {
                    1.0 - q
                }
            }
            (GateRule::Threshold { comparison, limit }, Kind::Rate | Kind::ComplementRate | Kind::Mean) => {
                if comparison.low_is_bad() {
                    1.0 - limit
                } else {
                    limit
                }
            }
            (GateRule::NotWorseThanStable { .. }, _) => self.stable_bad_share(),
        };
        allowed.clamp(1e-6, 1.0 - 1e-6)
    }

    fn shown(&self, harm: f64) -> String {
        let metric = &self.gate.metric;
        match (self.gate.rule, metric.kind) {
            (GateRule::Threshold { comparison, limit }, Kind::Quantile(_)) => {
                let side = if comparison.low_is_bad() { "below" } else { "above" };
                let share = percent(harm, harm - self.allowed());
                format!("{share} of requests {side} {}", metric.unit.show(limit))
            }
            (GateRule::Threshold { comparison, .. }, Kind::Rate | Kind::ComplementRate) => {
                rate(comparison, harm, harm - self.allowed())
            }
            (GateRule::Threshold { comparison, limit }, Kind::Mean) => {
                let side = if comparison.low_is_bad() { "lower" } else { "higher" };
                match self.spread() {
                    Some(sd) => {
                        let away = if comparison.low_is_bad() { -harm * sd } else { harm * sd };
                        format!("{} or {side}", metric.unit.show(limit + away))
                    }
                    None => format!("{harm:.2} standard deviations {side} than {}", metric.unit.show(limit)),
                }
            }
            (GateRule::NotWorseThanStable { .. }, Kind::Rate | Kind::ComplementRate) => {
                let side =
                    if metric.better == Better::Higher { Comparison::AtLeast } else { Comparison::AtMost };
                let stable = self.stable_bad_share();
                let of_stable = if side.low_is_bad() { 1.0 - stable } else { stable };
                let canary = rate(side, harm, harm - self.accepted_bad_share());
                format!("{canary} where stable has {}", metric.unit.show(of_stable))
            }
            (GateRule::NotWorseThanStable { .. }, Kind::Quantile(q)) => {
                let share = percent(harm, harm - self.stable_bad_share());
                let margin = self.quantile_margin();
                let beyond =
                    if margin > 0.0 { format!(" + {}", metric.unit.show(margin)) } else { String::new() };
                format!("{share} of requests above stable's p{:.0}{beyond}", q * 100.0)
            }
            (GateRule::NotWorseThanStable { max_regression }, Kind::Mean) => match self.spread() {
                Some(sd) => {
                    let away = self.margin() + harm * sd;
                    let sign = if metric.better == Better::Higher { -1.0 } else { 1.0 };
                    format!("{} against stable", metric.unit.show_difference(sign * away))
                }
                None => {
                    let margin = match max_regression {
                        Regression::Relative(share) => format!("{}%", share * 100.0),
                        Regression::Absolute(margin) => metric.unit.show(margin),
                    };
                    format!("{margin} and {harm:.2} standard deviations worse than stable")
                }
            },
        }
    }

    /// The margin that moves the edge of a quantile, where it is known.
    fn quantile_margin(&self) -> f64 {
        match self.gate.rule {
            GateRule::NotWorseThanStable { max_regression: Regression::Absolute(margin) } => margin,
            GateRule::NotWorseThanStable { max_regression: Regression::Relative(_) }
            | GateRule::Threshold { .. } => self.constants.and_then(|c| c.margin).unwrap_or(0.0),
        }
    }

    /// Stable's standard deviation in the unit of the metric, where it is frozen.
    fn spread(&self) -> Option<f64> {
        let constants = self.constants?;
        let range = self.gate.metric.range.map(|(low, high)| high - low);
        range.or(constants.cap).map(|scale| constants.sd * scale)
    }
}

/// A rate that is reached or passed on its bad side, from the share of bad ones.
fn rate(comparison: Comparison, bad: f64, above_allowed: f64) -> String {
    if comparison.low_is_bad() {
        format!("{} or lower", percent(1.0 - bad, above_allowed))
    } else {
        format!("{} or higher", percent(bad, above_allowed))
    }
}

/// A share in percent; with decimals where whole percents would hide the distance.
fn percent(share: f64, distance: f64) -> String {
    if distance.abs() >= 0.02 { format!("{:.0}%", share * 100.0) } else { format!("{:.1}%", share * 100.0) }
}

/// The smallest number in a range that is enough; none when even the largest is not.
fn smallest(low: f64, high: f64, is_enough: impl Fn(f64) -> bool) -> Option<f64> {
    if !is_enough(high) {
        return None;
    }
    let (mut low, mut high) = (low, high);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if is_enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}
