//! Every pack at a glance: what the first page of the dashboard shows.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serin_core::pack::PackState;
use serin_core::plan::Plan;

use super::App;
use super::caller::Asker;
use super::error::ApiError;
use super::packs::possible_orders;
use super::read::{NoParams, Params};
use super::recent::{Look, MaxAge};
use super::types::{
    ActiveView, ClosestView, GateState, GateView, MetricStatus, MetricTier, MetricView, OverviewPack,
    OverviewView, RolloutView, WatchView, WorstView,
};
use super::view::rollout_summary;

/// Numbers of a rollout that did not change otherwise may be so old, where the request allows any age.
const NUMBERS: Duration = Duration::from_secs(10);

/// Shows every pack at a glance.
///
/// With `Cache-Control: max-age` in the request, the numbers of a rollout may be up to ten seconds old; a change
/// of a rollout always shows.
#[utoipa::path(
    get, path = "/overview", tag = "packs",
    responses((status = 200, description = "By name.", body = OverviewView)),
)]
pub(super) async fn overview(
    State(app): State<App>,
    asker: Asker,
    MaxAge(age): MaxAge,
    _: Params<NoParams>,
) -> Result<Json<OverviewView>, ApiError> {
    let age = MaxAge(if age.is_zero() { age } else { age.max(NUMBERS) });
    let mut packs = Vec::new();
    for name in asker.visible(&app).await {
        let Some((state, plan, forced)) = app.control.standing(&name).await else { continue };
        let look = match state.active() {
            Some(_) => Some(app.recent.look(&app, &name, age).await?),
            None => None,
        };
        packs.push(pack(&state, &plan, forced, look.as_deref()));
    }
    Ok(Json(OverviewView { packs, as_of: app.now() }))
}

fn pack(state: &PackState, plan: &Plan, forced: bool, look: Option<&Look>) -> OverviewPack {
    let over = state.rollout.as_ref().filter(|rollout| rollout.active().is_none());
    OverviewPack {
        name: state.name.to_string(),
        stable: state.stable.to_string(),
        owner: plan.people.owner.clone(),
        forced,
        revision: state.revision,
        orders: possible_orders(state),
        active: look.and_then(active),
        last: over.map(|rollout| rollout_summary(rollout, plan, None)),
        watch: state.watch.as_ref().map(WatchView::from),
    }
}

/// The rollout of a look; nothing if it ended just before the look.
fn active(look: &Look) -> Option<ActiveView> {
    let rollout = look.detail.rollout.as_ref().filter(|rollout| rollout.end.is_none())?;
    Some(ActiveView {
        id: rollout.id.clone(),
        kind: rollout.kind,
        canary: rollout.canary.clone(),
        phase: rollout.phase,
        weight: rollout.weight,
        shown: rollout.progress.as_ref().and_then(|progress| in_words(rollout, progress.step)),
        next_shown: rollout.progress.as_ref().and_then(|progress| in_words(rollout, progress.next.step?)),
        measured: rollout.measured.clone(),
        progress: rollout.progress.clone(),
        holds: rollout.holds.clone(),
        worst: worst(&rollout.metrics),
        closest: closest(&rollout.gates),
        last_check: rollout.last_check.clone(),
        last_decision: look.decision.clone(),
        exposure: rollout.exposure.clone(),
        started_at: rollout.started_at,
        started_by: rollout.started_by.clone(),
    })
}

/// Who gets the canary in a step in which segments have weights of their own.
fn in_words(rollout: &RolloutView, step: u16) -> Option<String> {
    let step = rollout.steps.get(usize::from(step))?;
    let is_one_weight = step.shown.strip_suffix('%').is_some_and(|weight| weight.parse::<f64>().is_ok());
    (!is_one_weight && !rollout.segments.is_empty()).then(|| step.shown.clone())
}

pub(super) fn worst(metrics: &[MetricView]) -> Option<WorstView> {
    let badness = |metric: &&MetricView| {
        let status = match metric.status {
            MetricStatus::Degraded => 4,
            MetricStatus::Watch => 3,
            MetricStatus::Ok => 2,
            MetricStatus::Improved => 1,
            MetricStatus::NoData => 0,
        };
        let tier = match metric.tier {
            MetricTier::High => 2,
            MetricTier::Medium => 1,
            MetricTier::Low => 0,
        };
        (status, tier)
    };
    // Of equals the first one shown is named.
    let worst = metrics.iter().rev().max_by_key(badness)?;
    Some(WorstView {
        metric: worst.metric.clone(),
        status: worst.status,
        tier: worst.tier,
        stable_shown: worst.stable_shown.clone(),
        canary_shown: worst.canary_shown.clone(),
    })
}

pub(super) fn closest(gates: &[GateView]) -> Option<ClosestView> {
    let judged = gates.iter().filter(|gate| gate.state != GateState::NotApplicable);
    let closest = judged.max_by(|a, b| a.how_sure.total_cmp(&b.how_sure))?;
    Some(ClosestView {
        metric: closest.metric.clone(),
        rule: closest.rule.clone(),
        state: closest.state,
        how_sure: closest.how_sure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::MetricUnit;

    fn metric(name: &str, status: MetricStatus, tier: MetricTier) -> MetricView {
        serde_json::from_value(serde_json::json!({
            "metric": name, "unit": MetricUnit::Share, "tier": tier, "stable": null, "canary": null,
            "difference": null, "stable_shown": "-", "canary_shown": "-", "difference_shown": "-",
            "gate": null, "status": status, "stable_samples": 0, "canary_samples": 0,
        }))
        .unwrap()
    }

    #[test]
    fn the_worst_metric_is_named_by_status_before_tier() {
        let named = |metrics: &[MetricView]| worst(metrics).map(|worst| worst.metric);
        let ok = metric("a", MetricStatus::Ok, MetricTier::High);
        let watch = metric("b", MetricStatus::Watch, MetricTier::Low);
        let degraded = metric("c", MetricStatus::Degraded, MetricTier::Medium);
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[ok.clone(), watch.clone()]).as_deref(), Some("b"));
        assert_eq!(named(&[degraded, ok.clone(), watch]).as_deref(), Some("c"));
        assert_eq!(named(&[metric("d", MetricStatus::Ok, MetricTier::High), ok]).as_deref(), Some("d"));
    }
}
