//! How every metric of the canary stands against stable, and what follows where no gate judges it.

use std::collections::BTreeSet;

use super::gate::{Side, compare_by_evidence};
use super::scope::Scope;
use super::{Analysis, MetricReading, Sides, Status, merged};
use crate::aggregate::Tally;
use crate::evidence::metrics_of;
use crate::metric::{Better, Metric, MetricName, Tier};
use crate::plan::{OnDegraded, Plan};
use crate::rollout::{Active, HoldCause};
use crate::stats::logspace::LogE;
use crate::stats::merge::Alpha;

/// With `onDegraded: rollback`, the metrics that are no gates and what speaks against the canary in each.
///
/// They join the budget of the gates. Metrics of the low tier only notify, whatever is asked for.
pub(super) fn joining_metrics(
    plan: &Plan,
    active: &Active,
    scope: &Scope<'_>,
    guard_tripped: &BTreeSet<MetricName>,
) -> Vec<(MetricName, LogE)> {
    match plan.analysis.on_degraded {
        OnDegraded::Rollback => {}
        OnDegraded::Hold | OnDegraded::Notify => return Vec::new(),
    }
    let Some(baseline) = &active.baseline else { return Vec::new() };
    let is_gate = |name: &MetricName| plan.analysis.gates.iter().any(|gate| gate.metric.name == *name);
    metrics_of(plan)
        .into_iter()
        .filter(|metric| {
            metric.tier > Tier::Low && !is_gate(&metric.name) && !guard_tripped.contains(&metric.name)
        })
        .filter_map(|metric| {
            let constants = baseline.metrics.get(&metric.name)?;
            let log_e = compare_by_evidence(&metric, scope, constants, 0.0, Side::Worse);
            Some((metric.name, log_e))
        })
        .collect()
}

/// Judges the metrics that are no gates under an error budget of their own, and sets what follows.
///
/// A metric already Degraded stays so until its evidence falls below half the log limit.
pub(super) fn judge_metrics(
    analysis: &mut Analysis,
    plan: &Plan,
    active: &Active,
    scope: &Scope<'_>,
    alpha: Alpha,
) {
    let Some(baseline) = &active.baseline else { return };
    let is_gate = |name: &MetricName| plan.analysis.gates.iter().any(|gate| gate.metric.name == *name);
    let before = active.last_check.as_ref().map(|check| &check.degraded);
    let judged: Vec<(Metric, LogE, LogE)> = metrics_of(plan)
        .into_iter()
        .filter(|metric| !analysis.guard_tripped.contains(&metric.name))
        .filter_map(|metric| {
            let constants = baseline.metrics.get(&metric.name)?;
            let worse = compare_by_evidence(&metric, scope, constants, 0.0, Side::Worse);
            let better = compare_by_evidence(&metric, scope, constants, 0.0, Side::Better);
            Some((metric, worse, better))
        })
        .collect();
    let named = |pick: fn(&(Metric, LogE, LogE)) -> LogE| -> BTreeSet<MetricName> {
        let logs: Vec<LogE> = judged.iter().map(pick).collect();
        let (_, named) = merged(&logs, &vec![1.0; logs.len()], alpha);
        named.into_iter().map(|index| judged[index].0.name.clone()).collect()
    };
    let (worse, better) = (named(|judged| judged.1), named(|judged| judged.2));
    for (metric, log_worse, _) in &judged {
        let Some(reading) = analysis.metrics.iter_mut().find(|reading| reading.metric == metric.name) else {
            continue;
        };
        let lingers = before.is_some_and(|before| before.contains(&metric.name))
            && log_worse.ln() >= analysis.log_limit / 2.0;
        if worse.contains(&metric.name) || lingers {
            reading.status = Status::Degraded;
            if !is_gate(&metric.name) {
                analysis.degraded.insert(metric.name.clone());
            }
        } else if better.contains(&metric.name) {
            reading.status = Status::Improved;
        }
    }
    let holding: Vec<String> = judged
        .iter()
        .filter(|(metric, _, _)| analysis.degraded.contains(&metric.name) && metric.tier > Tier::Low)
        .filter(|(metric, _, _)| !active.waived.contains(&metric.name))
        .map(|(metric, _, _)| metric.name.to_string())
        .collect();
    if !holding.is_empty() && plan.analysis.on_degraded == OnDegraded::Hold {
        analysis
            .holds
            .insert(HoldCause::Degraded, format!("{} is proven to be worse than stable", holding.join(", ")));
    }
}

/// Every metric that has data on either side, stable beside canary.
pub fn compare(plan: &Plan, shown: &Sides<Tally>) -> Vec<MetricReading> {
    metrics_of(plan)
        .iter()
        .filter_map(|metric| {
            let (stable, canary) = (shown.stable.value(metric), shown.canary.value(metric));
            (stable.is_some() || canary.is_some()).then(|| MetricReading {
                metric: metric.name.clone(),
                tier: metric.tier,
                stable,
                canary,
                stable_samples: shown.stable.samples(metric),
                canary_samples: shown.canary.samples(metric),
                status: point_status(metric, stable, canary),
            })
        })
        .collect()
}

/// How a metric stands by its point estimates alone.
pub(crate) fn point_status(metric: &Metric, stable: Option<f64>, canary: Option<f64>) -> Status {
    let (Some(stable), Some(canary)) = (stable, canary) else { return Status::NoData };
    // Equal up to what the display can show.
    let tolerance = stable.abs().max(canary.abs()) * 1e-3;
    let worse = match metric.better {
        Better::Higher => canary < stable - tolerance,
        Better::Lower => canary > stable + tolerance,
        Better::Watched => (canary - stable).abs() > stable.abs() * 0.1,
    };
    if worse { Status::Watch } else { Status::Ok }
}
