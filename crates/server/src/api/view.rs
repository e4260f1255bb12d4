//! From what core and control know to what the wire says.

use std::collections::{BTreeMap, BTreeSet};

use serin_core::analysis::{Analysis, Difference, GateReading, MetricReading, Sides};
use serin_core::evidence::metrics_of;
use serin_core::forecast::{self, Traffic};
use serin_core::metric::{Metric, MetricName, Unit};
use serin_core::pack::PackState;
use serin_core::plan::{Plan, Segment, StepPhase};
use serin_core::rollout::{Active, End, Ended, Phase as CorePhase, Rollout};
use serin_core::tick::{next_step_at, windows};
use serin_core::units::{HoldFor, Timestamp};
use serin_core::watch::Watch;
use serin_core::weight::Weight;

use super::types::{
    CheckSummaryView, CheckView, DrainingView, EndView, ExposedAtView, ExposureCounts, ExposureView,
    GateView, HoldView, IntervalView, MeasuredShare, MetricView, NextStepView, PackSummary, Phase,
    ProgressView, RolloutSummary, RolloutView, SegmentView, SeriesOfMetric, SeriesPoint, SidesView, SpanView,
    StepPlace, StepView, WatchView, WeightChangeBy, WeightChangeView,
};
use crate::control::view::{Measured, SegmentMeasured};

/// A rollout with everything that its view is made of.
pub(super) struct Seen<'a> {
    pub(super) rollout: &'a Rollout,
    pub(super) plan: &'a Plan,
    pub(super) measured: &'a Measured,
    /// The last check in full, for a rollout that is over.
    pub(super) last: Option<&'a Analysis>,
    pub(super) draining: Vec<DrainingView>,
    pub(super) forced: bool,
    /// The watch over stable, whichever rollout it follows.
    pub(super) watch: Option<&'a Watch>,
    pub(super) now: Timestamp,
}

impl Seen<'_> {
    /// The rollout as the wire has it.
    pub(super) fn view(self) -> RolloutView {
        let Self { rollout, plan, measured, last, draining, forced, watch, now } = self;
        let active = rollout.active();
        let judged = measured.now.as_ref().or(last);
        let log_limit = judged.map_or(1.0, |analysis| analysis.log_limit);
        let gates = judged.map(|analysis| &*analysis.gates).unwrap_or_default();
        let step_sessions = measured.now.as_ref().map_or(0, |analysis| analysis.step_sessions);
        RolloutView {
            id: rollout.id.to_string(),
            pack: plan.pack.to_string(),
            attempt: rollout.attempt,
            kind: rollout.kind.into(),
            stable: rollout.stable.to_string(),
            canary: rollout.canary.to_string(),
            phase: rollout.phase(plan).into(),
            revision: rollout.revision,
            started_at: rollout.started_at,
            started_by: rollout.started_by.to_string(),
            reason: rollout.reason.clone(),
            forced,
            weight: rollout.weight().percent(),
            segments: segments(plan, measured, judged, log_limit),
            measured: measured_share(rollout, measured),
            progress: active.map(|active| progress(rollout, active, plan, step_sessions, now)),
            holds: active.map(holds).unwrap_or_default(),
            overridden: rollout.overridden.iter().map(Into::into).collect(),
            notes: active.map(|active| notes(active, plan, measured)).unwrap_or_default(),
            last_check: last_check(active, last),
            gates: gates.iter().map(|gate| gate_view(gate, log_limit)).collect(),
            metrics: metric_views(&measured.metrics, plan, gates, &measured.differences),
            exposure: exposure(rollout, measured, now),
            steps: steps(rollout, plan, now),
            draining,
            end: rollout.ended().map(end_view),
            watch: watch.filter(|watch| watch.rollout == rollout.id).map(WatchView::from),
            confidence: plan.analysis.confidence * 100.0,
            as_of: now,
        }
    }
}

fn measured_share(rollout: &Rollout, measured: &Measured) -> MeasuredShare {
    let weight = rollout.weight();
    let here = measured.assigned.iter().find(|assigned| assigned.weight == weight);
    let sessions =
        here.map_or_else(SidesView::default, |here| SidesView { stable: here.stable, canary: here.canary });
    let shown = &measured.shown;
    let requests = SidesView { stable: shown.stable.requests, canary: shown.canary.requests };
    MeasuredShare { new_sessions: percent(sessions), sessions, of_requests: percent(requests), requests }
}

/// The canary's part in percent; nothing where there is nothing.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub(crate) fn percent(sides: SidesView) -> Option<f64> {
    let all = sides.stable + sides.canary;
    (all > 0).then(|| sides.canary as f64 / all as f64 * 100.0)
}

fn progress(
    rollout: &Rollout,
    active: &Active,
    plan: &Plan,
    step_sessions: u64,
    now: Timestamp,
) -> ProgressView {
    let step = &plan.steps[usize::from(active.step)];
    let next = active.step + 1;
    let has_next = usize::from(next) < plan.steps.len();
    let at = next_step_at(plan, active);
    let weights = if has_next {
        plan.weights(usize::from(next), at.unwrap_or(now))
    } else {
        vec![Weight::FULL; plan.segments.len()]
    };
    let weight = last_weight(&weights);
    let by_step = at.map(|at| weight_change(at.max(now), &weights, WeightChangeBy::Step));
    let by_window = windows::next_change(plan, rollout, active, now)
        .map(|(at, weights)| weight_change(at, &weights, WeightChangeBy::Window));
    let window = plan.schedule.as_ref().and_then(|schedule| schedule.window_at(now));
    ProgressView {
        step: active.step,
        of: u16::try_from(plan.steps.len()).unwrap_or(u16::MAX),
        entered_at: active.entered_at,
        in_step: active.clock.elapsed(now),
        hold: step.hold,
        step_sessions,
        next: NextStepView { step: has_next.then_some(next), weight: weight.percent(), at },
        next_change: [by_step, by_window].into_iter().flatten().min_by_key(|change| change.at),
        window: window.map(|window| window.as_written.clone()),
        next_check_at: active.next_check_at(plan, rollout.started_at),
        failed_checks: active.failed_checks,
        failure_threshold: plan.analysis.failure_threshold,
        approval: step.approval,
        approved: active.approved,
        approvals_needed: if step.approval { plan.imposed.approving.count } else { 0 },
        approved_by: active.approvals.iter().map(|approval| approval.actor.to_string()).collect(),
    }
}

fn weight_change(at: Timestamp, weights: &[Weight], by: WeightChangeBy) -> WeightChangeView {
    WeightChangeView {
        at,
        weight: last_weight(weights).percent(),
        weights: weights.iter().map(|weight| weight.percent()).collect(),
        by,
    }
}

/// Each segment; nothing where the manifest names none.
fn segments(plan: &Plan, measured: &Measured, judged: Option<&Analysis>, log_limit: f64) -> Vec<SegmentView> {
    if plan.segments.len() < 2 {
        return Vec::new();
    }
    let view = |(segment, measured): (&Segment, &SegmentMeasured)| {
        let SegmentMeasured { reading, assigned, unreadable } = measured;
        let sides = |sides: &Sides<u64>| SidesView { stable: sides.stable, canary: sides.canary };
        SegmentView {
            name: segment.name.to_string(),
            members: segment.members(),
            weight: reading.weight.map(|weight| weight.percent()),
            sessions: sides(assigned),
            matured: sides(&reading.sessions),
            unreadable: *unreadable,
            degraded: judged.is_some_and(|analysis| analysis.degraded_segments.contains(&segment.name)),
            gates: reading.gates.iter().map(|gate| gate_view(gate, log_limit)).collect(),
            metrics: metric_views(&reading.metrics, plan, &reading.gates, &BTreeMap::new()),
        }
    };
    plan.segments.iter().zip(&measured.segments).map(view).collect()
}

fn last_weight(weights: &[Weight]) -> Weight {
    weights.last().copied().unwrap_or(Weight::ZERO)
}

fn holds(active: &Active) -> Vec<HoldView> {
    let view = |(cause, hold): (&serin_core::rollout::HoldCause, &serin_core::rollout::Hold)| HoldView {
        cause: (*cause).into(),
        shown: cause.to_string(),
        since: hold.since,
        reason: hold.reason.clone(),
        actor: hold.actor.to_string(),
        cleared_by: cause.cleared_by().to_owned(),
    };
    active.holds.iter().map(view).collect()
}

/// What a person should know about a rollout at the traffic that is there.
fn notes(active: &Active, plan: &Plan, measured: &Measured) -> Vec<String> {
    let traffic = measured.sessions_per_second.and_then(|rate| Traffic::per_second(rate).ok());
    traffic.map(|traffic| forecast::notes(plan, &traffic, active.baseline.as_ref())).unwrap_or_default()
}

fn last_check(active: Option<&Active>, last: Option<&Analysis>) -> Option<CheckSummaryView> {
    match active {
        Some(active) => active.last_check.as_ref().map(|check| CheckSummaryView {
            number: check.number,
            at: check.at,
            outcome: check.outcome.into(),
            summary: check.summary.clone(),
        }),
        None => last.map(|analysis| CheckSummaryView {
            number: analysis.number,
            at: analysis.at,
            outcome: outcome(analysis).into(),
            summary: analysis.summary(),
        }),
    }
}

fn outcome(analysis: &Analysis) -> serin_core::rollout::CheckOutcome {
    use serin_core::analysis::Verdict;
    use serin_core::rollout::CheckOutcome;
    match analysis.verdict {
        Verdict::Pass => CheckOutcome::Pass,
        Verdict::AtRisk => CheckOutcome::AtRisk,
        Verdict::NoData => CheckOutcome::NoData,
        Verdict::Fail => CheckOutcome::Fail,
        Verdict::StableFails => CheckOutcome::StableFails,
    }
}

fn gate_view(gate: &GateReading, log_limit: f64) -> GateView {
    let log_e = finite(gate.log_e.ln());
    GateView {
        metric: gate.metric.to_string(),
        rule: gate.rule.clone(),
        state: gate.state.into(),
        value: gate.value,
        shown: gate.shown.clone(),
        samples: gate.samples,
        needed: gate.needed,
        log_e,
        log_limit,
        how_sure: how_sure(log_e, log_limit),
    }
}

fn how_sure(log_e: f64, log_limit: f64) -> f64 {
    if log_limit > 0.0 { (log_e / log_limit).clamp(0.0, 1.0) } else { 0.0 }
}

/// A number that JSON can hold.
fn finite(value: f64) -> f64 {
    value.clamp(-1e9, 1e9)
}

fn metric_views(
    readings: &[MetricReading],
    plan: &Plan,
    gates: &[GateReading],
    differences: &BTreeMap<MetricName, Difference>,
) -> Vec<MetricView> {
    let known = metrics_of(plan);
    let unit = |reading: &MetricReading| unit_of(&known, reading);
    let view = |reading: &MetricReading| {
        let unit = unit(reading);
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| unit.show(value));
        let difference = reading.canary.zip(reading.stable).map(|(canary, stable)| canary - stable);
        MetricView {
            metric: reading.metric.to_string(),
            unit: unit.into(),
            tier: reading.tier.into(),
            stable: reading.stable,
            canary: reading.canary,
            difference,
            stable_shown: shown(reading.stable),
            canary_shown: shown(reading.canary),
            difference_shown: difference.map_or_else(|| "-".to_owned(), |value| unit.show_difference(value)),
            interval: differences.get(&reading.metric).map(|difference| interval(*difference, unit)),
            gate: gates.iter().find(|gate| gate.metric == reading.metric).map(|gate| gate.rule.clone()),
            status: reading.status.into(),
            stable_samples: reading.stable_samples,
            canary_samples: reading.canary_samples,
        }
    };
    readings.iter().map(view).collect()
}

fn interval(difference: Difference, unit: Unit) -> IntervalView {
    let Difference { estimate, low, high } = difference;
    let shown = format!("{} to {}", unit.show_difference(low), unit.show_difference(high));
    IntervalView { estimate, low, high, shown }
}

fn unit_of(known: &[Metric], reading: &MetricReading) -> Unit {
    known.iter().find(|metric| metric.name == reading.metric).map_or(Unit::Number, |metric| metric.unit)
}

fn exposure(rollout: &Rollout, measured: &Measured, now: Timestamp) -> ExposureView {
    let largest = rollout.spans.iter().flat_map(|span| &span.weights).max().copied().unwrap_or(Weight::ZERO);
    ExposureView {
        sessions: measured.exposure.sessions,
        requests: measured.exposure.requests,
        since: rollout.started_at,
        until: rollout.ended().map(|ended| ended.at),
        lasted: spans(rollout).iter().fold(HoldFor::ZERO, |sum, span| {
            let canary = span.weights.iter().any(|weight| *weight > 0.0);
            if canary { sum.plus(rounded(HoldFor::between(span.from, span.to.unwrap_or(now)))) } else { sum }
        }),
        largest_weight: largest.percent(),
        by_weight: exposed_at(rollout, measured, now),
    }
}

/// Who got the canary at which weight, and for how long that was in force.
fn exposed_at(rollout: &Rollout, measured: &Measured, now: Timestamp) -> Vec<ExposedAtView> {
    let mut weights: BTreeMap<Weight, (u64, HoldFor)> = BTreeMap::new();
    for (span, shown) in rollout.spans.iter().zip(spans(rollout)) {
        let lasted = HoldFor::between(span.from, shown.to.unwrap_or(now));
        let distinct: BTreeSet<Weight> = span.weights.iter().copied().filter(|w| *w > Weight::ZERO).collect();
        for weight in distinct {
            let at = weights.entry(weight).or_default();
            at.1 = at.1.plus(lasted);
        }
    }
    for assigned in measured.assigned.iter().filter(|assigned| assigned.canary > 0) {
        weights.entry(assigned.weight).or_default().0 += assigned.canary;
    }
    weights
        .into_iter()
        .map(|(weight, (sessions, lasted))| ExposedAtView {
            weight: weight.percent(),
            sessions,
            lasted: rounded(lasted),
        })
        .collect()
}

fn steps(rollout: &Rollout, plan: &Plan, now: Timestamp) -> Vec<StepView> {
    let reached = match (rollout.active(), rollout.ended()) {
        (Some(active), _) => active.step,
        (None, Some(ended)) => ended.step,
        (None, None) => 0,
    };
    let is_active = rollout.active().is_some();
    let view = |(index, step): (usize, &serin_core::plan::Step)| {
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        let entered_at = rollout.spans.iter().find(|span| span.step == number).map(|span| span.from);
        let state = match (number.cmp(&reached), is_active) {
            (std::cmp::Ordering::Less, _) if entered_at.is_none() => StepPlace::Skipped,
            (std::cmp::Ordering::Less, _) | (std::cmp::Ordering::Equal, false) => StepPlace::Done,
            (std::cmp::Ordering::Equal, true) => StepPlace::Current,
            (std::cmp::Ordering::Greater, true) => StepPlace::Next,
            (std::cmp::Ordering::Greater, false) => StepPlace::Skipped,
        };
        let phase = match step.phase {
            StepPhase::Observing => Phase::Observing,
            StepPhase::Progressing => Phase::Progressing,
            StepPhase::Completing => Phase::Completing,
        };
        StepView {
            index: number,
            phase,
            weight: last_weight(&plan.weights(index, now)).percent(),
            shown: plan.shown_weight(&step.weight),
            hold: step.hold,
            approval: step.approval,
            state,
            entered_at,
        }
    };
    plan.steps.iter().enumerate().map(view).collect()
}

/// The end of a rollout.
pub(super) fn end_view(ended: &Ended) -> EndView {
    let (culprits, superseded_by) = match &ended.how {
        End::Completed => (Vec::new(), None),
        End::RolledBack { culprits, .. } => (culprits.iter().map(ToString::to_string).collect(), None),
        End::Superseded { by } => (Vec::new(), Some(by.to_string())),
    };
    EndView {
        how: (&ended.how).into(),
        at: ended.at,
        actor: ended.actor.to_string(),
        reason: ended.reason.clone(),
        culprits,
        superseded_by,
        step: ended.step,
    }
}

/// One check in full.
pub(super) fn check_view(analysis: &Analysis, plan: &Plan) -> CheckView {
    CheckView {
        number: analysis.number,
        at: analysis.at,
        step: analysis.step,
        verdict: analysis.verdict.into(),
        summary: analysis.summary(),
        step_sessions: analysis.step_sessions,
        log_e: finite(analysis.log_e.ln()),
        log_limit: analysis.log_limit,
        culprits: analysis.culprits.iter().map(ToString::to_string).collect(),
        holds: analysis.holds.iter().map(|(cause, reason)| (cause.to_string(), reason.clone())).collect(),
        degraded: analysis.degraded.iter().map(ToString::to_string).collect(),
        gates: analysis.gates.iter().map(|gate| gate_view(gate, analysis.log_limit)).collect(),
        metrics: metric_views(&analysis.metrics, plan, &analysis.gates, &BTreeMap::new()),
    }
}

/// Every metric over checks, which come oldest first.
pub(super) fn series(checks: &[Analysis], plan: &Plan) -> Vec<SeriesOfMetric> {
    let known = metrics_of(plan);
    let mut series = Vec::new();
    for metric in &known {
        let mut points = Vec::new();
        let mut rule = None;
        for check in checks {
            let gate = check.gates.iter().find(|gate| gate.metric == metric.name);
            let reading = check.metrics.iter().find(|reading| reading.metric == metric.name);
            if gate.is_none() && reading.is_none() {
                continue;
            }
            rule = gate.map(|gate| gate.rule.clone()).or(rule);
            points.push(SeriesPoint {
                at: check.at,
                stable: reading.and_then(|reading| reading.stable),
                canary: reading.and_then(|reading| reading.canary),
                how_sure: gate.map(|gate| how_sure(finite(gate.log_e.ln()), check.log_limit)),
            });
        }
        if !points.is_empty() {
            series.push(SeriesOfMetric {
                metric: metric.name.to_string(),
                unit: metric.unit.into(),
                gate: rule,
                points,
            });
        }
    }
    series
}

/// One rollout in a list.
pub(super) fn rollout_summary(
    rollout: &Rollout,
    plan: &Plan,
    exposure: Option<ExposureCounts>,
) -> RolloutSummary {
    let causes = rollout.active().map(|active| active.holds.keys().map(ToString::to_string).collect());
    RolloutSummary {
        id: rollout.id.to_string(),
        pack: plan.pack.to_string(),
        kind: rollout.kind.into(),
        stable: rollout.stable.to_string(),
        canary: rollout.canary.to_string(),
        phase: rollout.phase(plan).into(),
        weight: rollout.weight().percent(),
        holds: causes.unwrap_or_default(),
        started_at: rollout.started_at,
        started_by: rollout.started_by.to_string(),
        exposure,
        end: rollout.ended().map(end_view),
    }
}

/// One pack in a list.
pub(super) fn pack_summary(state: &PackState, plan: &Plan, forced: bool) -> PackSummary {
    let active = state.active();
    let phase: Option<CorePhase> = state.rollout.as_ref().map(|rollout| rollout.phase(plan));
    PackSummary {
        name: state.name.to_string(),
        stable: state.stable.to_string(),
        canary: active.map(|(rollout, _)| rollout.canary.to_string()),
        rollout: state.rollout.as_ref().map(|rollout| rollout.id.to_string()),
        phase: phase.map(Phase::from),
        weight: active.map_or(Weight::ZERO, |(rollout, _)| rollout.weight()).percent(),
        holds: active
            .map(|(_, active)| active.holds.keys().map(ToString::to_string).collect())
            .unwrap_or_default(),
        forced,
        revision: state.revision,
        owner: plan.people.owner.clone(),
    }
}

/// The weights in force, span by span.
pub(super) fn spans(rollout: &Rollout) -> Vec<SpanView> {
    let ended_at = rollout.ended().map(|ended| ended.at);
    let ends = rollout.spans.iter().skip(1).map(|span| Some(span.from)).chain(std::iter::once(ended_at));
    let view = |(span, to): (&serin_core::rollout::Span, Option<Timestamp>)| SpanView {
        from: span.from,
        to,
        step: span.step,
        weights: span.weights.iter().map(|weight| weight.percent()).collect(),
    };
    rollout.spans.iter().zip(ends).map(view).collect()
}

/// How long something has been so, for people.
pub(super) fn rounded(length: HoldFor) -> HoldFor {
    HoldFor::from_secs(length.millis() / 1_000)
}
