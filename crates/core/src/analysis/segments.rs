//! The same evidence segment by segment: shown for each, and a segment that breaks a gate is named.
//!
//! The gates of all segments share one error budget of their own. What it finds holds the rollout and
//! names the segment; it never rolls back, which stays with the evidence of all segments together.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::gate::{self, Side, compare_by_evidence};
use super::scope::Scope;
use super::{
    Analysis, Evidence, GateReading, GateState, MetricReading, Sides, Sight, Status, merged, point_status,
};
use crate::evidence::metrics_of;
use crate::ids::SegmentName;
use crate::metric::{Metric, MetricName};
use crate::plan::{Decision, OnDegraded, Plan};
use crate::rollout::{Active, HoldCause, Rollout};
use crate::routing::Variant;
use crate::stats::logspace::LogE;
use crate::stats::merge::Alpha;
use crate::weight::Weight;

/// How one segment stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentReading {
    /// Its name.
    pub segment: SegmentName,
    /// The weight in force; nothing once the rollout is over.
    pub weight: Option<Weight>,
    /// Matured sessions since the rollout began.
    pub sessions: Sides<u64>,
    /// Each gate, read from the sessions of the segment alone.
    pub gates: Vec<GateReading>,
    /// Every metric that its matured sessions have shown, stable beside canary.
    pub metrics: Vec<MetricReading>,
}

/// How each segment of a rollout stands; one reading where the manifest names no segments.
pub fn by_segment(plan: &Plan, rollout: &Rollout, evidence: &Evidence) -> Vec<SegmentReading> {
    let seen = Sight::of(plan, evidence);
    let step = match (rollout.active(), rollout.ended()) {
        (Some(active), _) => active.step,
        (None, Some(ended)) => ended.step,
        (None, None) => 0,
    };
    if usize::from(step) >= plan.steps.len() {
        // A version that everyone got at once has no steps.
        return Vec::new();
    }
    let all = Scope::new(plan, step, rollout.baseline(), &seen);
    let alpha = alpha_of(plan);
    let reading = |(index, segment): (u8, &crate::plan::Segment)| {
        let scope = all.of_segment(index);
        SegmentReading {
            segment: segment.name.clone(),
            weight: rollout.weights().get(usize::from(index)).copied(),
            sessions: Sides {
                stable: scope.sessions(Variant::Stable),
                canary: scope.sessions(Variant::Canary),
            },
            gates: plan.analysis.gates.iter().map(|gate| gate::read(gate, &scope)).collect(),
            metrics: metrics(plan, &scope, alpha),
        }
    };
    (0..).zip(&plan.segments).map(reading).collect()
}

fn alpha_of(plan: &Plan) -> Alpha {
    Alpha::new(1.0 - plan.analysis.confidence).expect("confidence lies between 50 and 99.99 percent")
}

/// Every metric that the matured sessions of a segment have shown, judged under a budget of the segment's own.
fn metrics(plan: &Plan, scope: &Scope<'_>, alpha: Alpha) -> Vec<MetricReading> {
    let known = metrics_of(plan);
    let judged: Vec<(&Metric, LogE, LogE)> = known
        .iter()
        .filter_map(|metric| {
            let constants = scope.baseline?.metrics.get(&metric.name)?;
            let log_e = |side| compare_by_evidence(metric, scope, constants, 0.0, side);
            Some((metric, log_e(Side::Worse), log_e(Side::Better)))
        })
        .collect();
    let named = |pick: fn(&(&Metric, LogE, LogE)) -> LogE| -> BTreeSet<&MetricName> {
        let logs: Vec<LogE> = judged.iter().map(pick).collect();
        let (_, named) = merged(&logs, &vec![1.0; logs.len()], alpha);
        named.into_iter().map(|index| &judged[index].0.name).collect()
    };
    let (worse, better) = (named(|judged| judged.1), named(|judged| judged.2));
    let reading = |metric: &Metric| {
        let ((stable, stable_samples), (canary, canary_samples)) =
            (scope.value(metric, Variant::Stable), scope.value(metric, Variant::Canary));
        let status = if worse.contains(&metric.name) {
            Status::Degraded
        } else if better.contains(&metric.name) {
            Status::Improved
        } else {
            point_status(metric, stable, canary)
        };
        let name = metric.name.clone();
        let tier = metric.tier;
        let is_shown = stable.is_some() || canary.is_some();
        is_shown.then_some(MetricReading {
            metric: name,
            tier,
            stable,
            canary,
            stable_samples,
            canary_samples,
            status,
        })
    };
    known.iter().filter_map(reading).collect()
}

/// What the segments of a plan with several show about its gates.
pub(super) struct Several<'a> {
    plan: &'a Plan,
    /// By segment: each gate as it reads there.
    readings: Vec<Vec<GateReading>>,
    /// Segment and gate of what is proven to be broken there.
    broken: Vec<(usize, usize)>,
    log_limit: f64,
}

impl<'a> Several<'a> {
    /// Reads every gate in every segment; nothing is read where there is only one.
    pub(super) fn of(
        plan: &'a Plan,
        all: &Scope<'a>,
        gates: &[GateReading],
        log_limit: f64,
        alpha: Alpha,
    ) -> Self {
        let mut several = Self { plan, readings: Vec::new(), broken: Vec::new(), log_limit };
        if plan.segments.len() < 2 {
            return several;
        }
        let mut logs = Vec::new();
        let mut places = Vec::new();
        for (number, index) in (0_u8..).zip(0..plan.segments.len()) {
            let scope = all.of_segment(number);
            let has_stable = scope.sessions(Variant::Stable) > 0;
            let mut readings = Vec::with_capacity(plan.analysis.gates.len());
            for (place, gate) in plan.analysis.gates.iter().enumerate() {
                let reading = gate::read(gate, &scope);
                // A segment without a stable session asks the others whether stable is to blame.
                let blamed = match (has_stable, gates.get(place)) {
                    (false, Some(whole)) => all.blames_stable(gate, whole, log_limit),
                    (true, _) | (false, None) => scope.blames_stable(gate, &reading, log_limit),
                };
                if gate.decision == Decision::Evidence && !blamed {
                    logs.push(reading.log_e);
                    places.push((index, place));
                }
                readings.push(reading);
            }
            several.readings.push(readings);
        }
        let (_, named) = merged(&logs, &vec![1.0; logs.len()], alpha);
        several.broken = named.into_iter().map(|index| places[index]).collect();
        several
    }

    /// The segments in which a gate is on its wrong side, with their values.
    pub(super) fn wrong_in(&self, gate: &GateReading) -> Vec<String> {
        let wrong = self.readings.iter().zip(&self.plan.segments).filter_map(|(readings, segment)| {
            let reading = readings.iter().find(|reading| reading.metric == gate.metric)?;
            let is_wrong = match reading.state {
                GateState::AtRisk | GateState::Fail => true,
                GateState::Pass | GateState::NoData | GateState::NotApplicable => false,
            };
            is_wrong.then(|| format!("{} {}", segment.name, reading.shown))
        });
        wrong.collect()
    }

    /// The segments in which a gate is proven to be broken, or was and its evidence still stands at half its limit.
    pub(super) fn degraded(&self, active: &Active) -> BTreeSet<SegmentName> {
        let before = active.last_check.as_ref().map(|check| &check.degraded_segments);
        let lingers = |index: usize, name: &SegmentName| {
            let most = self.readings.get(index).into_iter().flatten().map(|reading| reading.log_e.ln());
            before.is_some_and(|before| before.contains(name))
                && most.fold(f64::NEG_INFINITY, f64::max) >= self.log_limit / 2.0
        };
        let names = self.plan.segments.iter().map(|segment| &segment.name).enumerate();
        let is_degraded = |(index, name): &(usize, &SegmentName)| {
            self.broken.iter().any(|(at, _)| at == index) || lingers(*index, name)
        };
        names.filter(is_degraded).map(|(_, name)| name.clone()).collect()
    }

    /// Holds for the degraded segments that no person has passed, and says what is broken in which.
    pub(super) fn hold(&self, analysis: &mut Analysis, plan: &Plan, active: &Active) {
        let holding: Vec<String> = analysis
            .degraded_segments
            .iter()
            .filter(|name| !active.waived_segments.contains(*name))
            .map(|name| self.told(name))
            .collect();
        if holding.is_empty() || plan.analysis.on_degraded == OnDegraded::Notify {
            return;
        }
        let reason = analysis.holds.entry(HoldCause::Degraded).or_default();
        if !reason.is_empty() {
            reason.push_str("; ");
        }
        reason.push_str(&holding.join("; "));
    }

    fn told(&self, name: &SegmentName) -> String {
        let index = self.plan.segments.iter().position(|segment| segment.name == *name);
        let broken = self.broken.iter().filter(|(at, _)| Some(*at) == index);
        let gates: Vec<String> = broken
            .filter_map(|(segment, gate)| self.readings.get(*segment)?.get(*gate))
            .map(|reading| format!("{} {} ({})", reading.metric, reading.shown, reading.rule))
            .collect();
        if gates.is_empty() {
            format!("segment {name} was proven to break a gate, and its evidence has not receded")
        } else {
            format!("{} is proven to be broken in segment {name}", gates.join(", "))
        }
    }
}
