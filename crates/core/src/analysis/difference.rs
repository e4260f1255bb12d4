//! How far the canary is from stable, with an interval, for people; nothing is ever decided on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::gate::{Values, values_by_stamp};
use super::scope::is_split;
use super::{Evidence, Sides};
use crate::aggregate::Tally;
use crate::evidence::{MetricBaseline, metrics_of};
use crate::metric::{Better, Kind, Metric, MetricName};
use crate::plan::{Plan, StepPhase};
use crate::rollout::Rollout;
use crate::stats::bound::Stretch;
use crate::stats::canary::CanaryCell;
use crate::stats::interval::{LEAST_SESSIONS, Setting, estimate, expected_information};
use crate::stats::quantile::quantile;
use crate::stats::share::Share;
use crate::units::Timestamp;

/// Sessions for which the interval is made tightest: as many as it takes until it is first shown, where one in
/// ten gets the canary. At ten times as many it is 7 % wider than it could be.
const TIGHTEST_AT: u64 = 4_000;

/// Canary less stable, in the unit of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The estimate: sessions are compared with sessions of the same weight, so that drift cancels out.
    pub estimate: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

/// The differences of all metrics that have enough data, at the confidence of the plan.
///
/// Of rates and means the interval holds at every look; of quantiles it is made of rank bounds, which hold for one
/// look and take the requests of a session for independent.
pub fn differences(plan: &Plan, rollout: &Rollout, evidence: &Evidence) -> BTreeMap<MetricName, Difference> {
    let Some(baseline) = rollout.baseline() else { return BTreeMap::new() };
    let stretches = stretches(plan, rollout.started_at);
    let mut differences = BTreeMap::new();
    for metric in metrics_of(plan) {
        let constants = baseline.metrics.get(&metric.name);
        let difference = match metric.kind {
            Kind::Quantile(q) => of_quantile(&metric, q, &evidence.shown),
            Kind::Rate | Kind::ComplementRate | Kind::Mean => {
                constants.and_then(|constants| of_mean(&metric, constants, plan, &stretches, evidence))
            }
        };
        if let Some(difference) = difference {
            differences.insert(metric.name, difference);
        }
    }
    differences
}

/// The steps with a concurrent control, with their parts of the sessions for which the interval is tightest.
fn stretches(plan: &Plan, at: Timestamp) -> Vec<Stretch> {
    let compared: Vec<(Share, u64)> = plan
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.phase != StepPhase::Observing)
        .filter_map(|(index, step)| {
            let weight = plan.weights(index, at).last().copied().filter(|weight| is_split(*weight))?;
            Some((Share::from_bp(weight.bp()).expect("a weight is a share"), step.hold.millis()))
        })
        .collect();
    let all: u64 = compared.iter().map(|(_, millis)| millis).sum();
    let part = |millis: u64| u128::from(TIGHTEST_AT) * u128::from(millis) / u128::from(all.max(1));
    compared
        .into_iter()
        .map(|(weight, millis)| Stretch {
            weight,
            n_sessions: u64::try_from(part(millis)).expect("a part of a few thousand"),
        })
        .collect()
}

/// The difference of a rate or a mean, from its mean badness.
fn of_mean(
    metric: &Metric,
    constants: &MetricBaseline,
    plan: &Plan,
    stretches: &[Stretch],
    evidence: &Evidence,
) -> Option<Difference> {
    let sides = values_by_stamp(metric, &evidence.cells, constants.cap, false);
    let cells: Vec<CanaryCell<'_>> = sides
        .iter()
        .map(|((start, _, weight), Values { canary, stable })| CanaryCell {
            step: *start,
            weight: Share::from_bp(weight.bp()).expect("a weight is a share"),
            canary,
            stable,
        })
        .collect();
    let setting = Setting {
        mean: constants.mean,
        alpha: 1.0 - plan.analysis.confidence,
        information_at_end: expected_information(stretches, constants.sd),
    };
    let effect = estimate(&cells, setting)?;
    let scale = match (metric.kind, metric.range) {
        (Kind::Rate | Kind::ComplementRate, _) => 1.0,
        (Kind::Mean | Kind::Quantile(_), Some((low, high))) => high - low,
        (Kind::Mean | Kind::Quantile(_), None) => constants.cap?,
    };
    // Badness grows as the value falls where higher is better.
    Some(match metric.better {
        Better::Higher => Difference {
            estimate: -effect.tau * scale,
            low: -effect.upper() * scale,
            high: -effect.lower() * scale,
        },
        Better::Lower | Better::Watched => Difference {
            estimate: effect.tau * scale,
            low: effect.lower() * scale,
            high: effect.upper() * scale,
        },
    })
}

/// The difference of a quantile over all data: from the worst case of both rank bounds.
fn of_quantile(metric: &Metric, q: f64, shown: &Sides<Tally>) -> Option<Difference> {
    let of = |tally: &Tally| {
        let seen = quantile(&tally.signals.get(&metric.signal)?.buckets, q)?;
        let bounds = seen.lower.zip(seen.upper)?;
        (seen.n_samples >= LEAST_SESSIONS).then_some((seen.value, bounds))
    };
    let ((canary, (canary_low, canary_high)), (stable, (stable_low, stable_high))) =
        (of(&shown.canary)?, of(&shown.stable)?);
    Some(Difference {
        estimate: canary - stable,
        low: canary_low - stable_high,
        high: canary_high - stable_low,
    })
}
