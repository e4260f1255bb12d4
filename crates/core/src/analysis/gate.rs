//! Reads one gate from the matured sessions: its evidence, its point estimate, its state.

use std::collections::BTreeMap;

use super::scope::{Estimate, Scope, Span, is_split};
use super::{Cell, GateReading, GateState, comparison_of, rule_text};
use crate::aggregate::{Counts, Judge, Scale};
use crate::evidence::{Baseline, MetricBaseline, value_badness};
use crate::metric::{Better, Kind, Metric, MetricName};
use crate::plan::{Comparison, Decision, Gate, GateRule, Plan, Regression};
use crate::routing::Variant;
use crate::stats::badness::Badness;
use crate::stats::canary::{self, CanaryCell, CanaryTest, Direction};
use crate::stats::late_harm::Starts;
use crate::stats::logspace::{LogE, log_mean};
use crate::stats::mean::MeanTest;
use crate::stats::pairs::{PairCount, PairTest};
use crate::stats::process::Process;
use crate::stats::share::{Share, ShareCount};
use crate::weight::Weight;

/// The share of requests that may lie beyond the limit of a quantile gate.
pub(super) fn quantile_allows(q: f64, comparison: Comparison) -> f64 {
    if comparison.low_is_bad() { q } else { 1.0 - q }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub(super) fn bad_share(counts: &Counts) -> Option<f64> {
    let (n, bad) = counts.requests();
    (n > 0).then(|| bad as f64 / n as f64)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub(super) fn mean_value(counts: &Counts, metric: &Metric) -> Option<f64> {
    let n: u64 = counts.values.values().sum();
    let scale = Scale::of(metric);
    let sum: f64 = counts.values.iter().map(|(bucket, count)| scale.value(*bucket) * *count as f64).sum();
    (n > 0).then(|| sum / n as f64)
}

/// Reads one gate.
pub(super) fn read(gate: &Gate, scope: &Scope<'_>) -> GateReading {
    let blank = GateReading {
        metric: gate.metric.name.clone(),
        rule: rule_text(&gate.metric, &gate.rule),
        state: GateState::NoData,
        value: None,
        shown: "no data".to_owned(),
        samples: 0,
        needed: gate.min_samples,
        log_e: LogE::ONE,
        stable_log_e: LogE::ONE,
        wrong_in: Vec::new(),
    };
    match (gate.decision, gate.rule) {
        (Decision::Point, GateRule::Threshold { comparison, limit }) => {
            point(gate, comparison, limit, scope, blank)
        }
        (Decision::Point, GateRule::NotWorseThanStable { .. }) => point_comparison(gate, scope, blank),
        (Decision::Evidence, GateRule::Threshold { comparison, limit }) => {
            let Some(baseline) = scope.baseline else { return blank };
            threshold(gate, comparison, limit, scope, baseline, blank)
        }
        (Decision::Evidence, GateRule::NotWorseThanStable { .. }) => {
            let constants = scope.baseline.and_then(|baseline| baseline.metrics.get(&gate.metric.name));
            let Some(constants) = constants else { return blank };
            comparison(gate, scope, constants, blank)
        }
    }
}

/// The literal reading: the point estimate of the last interval against the limit.
fn point(
    gate: &Gate,
    comparison: Comparison,
    limit: f64,
    scope: &Scope<'_>,
    blank: GateReading,
) -> GateReading {
    if !scope.has_canary() {
        return scope.without_comparison(blank);
    }
    let recent = scope.seen().recent.get(&gate.metric.name);
    let Some((value, samples)) = recent.and_then(|r| Some((r.canary?, r.canary_samples))) else {
        return blank;
    };
    let state = if comparison.holds(value, limit) { GateState::Pass } else { GateState::Fail };
    GateReading { state, value: Some(value), shown: gate.metric.unit.show(value), samples, ..blank }
}

/// The literal reading of a comparison: both point estimates of the last interval.
fn point_comparison(gate: &Gate, scope: &Scope<'_>, blank: GateReading) -> GateReading {
    if !scope.is_compared() {
        return scope.without_comparison(blank);
    }
    let Some(recent) = scope.seen().recent.get(&gate.metric.name) else { return blank };
    let margin = match gate.rule {
        // Nothing of an outside metric is frozen: its margin follows stable's value of the moment.
        GateRule::NotWorseThanStable { max_regression } if gate.is_outside() => match max_regression {
            Regression::Relative(share) => recent.stable.map(|stable| stable.abs() * share),
            Regression::Absolute(margin) => Some(margin),
        },
        GateRule::NotWorseThanStable { .. } | GateRule::Threshold { .. } => {
            scope.baseline.and_then(|b| b.metrics.get(&gate.metric.name)).and_then(|c| c.margin)
        }
    };
    let values = (recent.stable, recent.canary, margin);
    let (Some(stable), Some(canary), Some(margin)) = values else { return blank };
    let worse = match comparison_of(&gate.rule, &gate.metric) {
        Comparison::AtLeast | Comparison::Above => stable - canary,
        Comparison::AtMost | Comparison::Below => canary - stable,
    };
    let state = if worse > margin { GateState::Fail } else { GateState::Pass };
    let shown = gate.metric.unit.show(canary);
    GateReading { state, value: Some(canary), shown, samples: recent.canary_samples, ..blank }
}

/// A gate against a constant, by evidence.
fn threshold(
    gate: &Gate,
    comparison: Comparison,
    limit: f64,
    scope: &Scope<'_>,
    baseline: &Baseline,
    blank: GateReading,
) -> GateReading {
    let evidence = |variant| {
        let process = threshold_process(gate, comparison, limit, scope.of_variant(variant), baseline);
        scope.threshold_starts.log_e(&process)
    };
    let sessions =
        |cell: &Cell| cell.counters.get(&gate.metric.name, Judge::Limit).map_or(0, Counts::sessions);
    let in_step: u64 = scope.in_step(Variant::Canary).map(sessions).sum();
    let in_all: u64 = scope.of_variant(Variant::Canary).map(sessions).sum();
    let (span, needed_in_all) = match gate.metric.kind {
        Kind::Quantile(q) => (Span::All, sessions_for_quantile(q)),
        Kind::Rate | Kind::ComplementRate | Kind::Mean => (Span::CurrentStep, 0),
    };
    let estimate = scope.estimate(gate, Variant::Canary, span);
    let state = match &estimate {
        // What earlier steps have shown still counts as evidence.
        _ if !scope.has_canary() => GateState::NotApplicable,
        None => GateState::NoData,
        Some(_) if in_step < gate.min_samples || in_all < needed_in_all => GateState::NoData,
        Some(estimate) if !estimate.is_right => GateState::AtRisk,
        Some(_) => GateState::Pass,
    };
    let (samples, needed) = if in_step < gate.min_samples {
        (in_step, gate.min_samples)
    } else {
        (in_all, needed_in_all.max(gate.min_samples))
    };
    GateReading {
        state,
        value: estimate.as_ref().map(|estimate| estimate.value),
        shown: estimate
            .as_ref()
            .map_or_else(|| "no data".to_owned(), |estimate| shown(gate, comparison, limit, estimate)),
        samples,
        needed,
        log_e: evidence(Variant::Canary),
        stable_log_e: evidence(Variant::Stable),
        ..blank
    }
}

fn shown(gate: &Gate, comparison: Comparison, limit: f64, estimate: &Estimate) -> String {
    let unit = gate.metric.unit;
    match gate.metric.kind {
        Kind::Quantile(_) => {
            let side = if comparison.low_is_bad() { "below" } else { "above" };
            format!("{:.1}% {side} {}", estimate.value * 100.0, unit.show(limit))
        }
        Kind::Rate | Kind::ComplementRate | Kind::Mean => unit.show(estimate.value),
    }
}

/// Sessions that a quantile gate needs since evidence began: 1/(1-q).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "q lies well inside 0 to 1")]
fn sessions_for_quantile(q: f64) -> u64 {
    (1.0 / (1.0 - q)).round() as u64
}

/// The evidence of cells against a constant, keyed by step.
fn threshold_process<'a>(
    gate: &Gate,
    comparison: Comparison,
    limit: f64,
    cells: impl Iterator<Item = &'a Cell>,
    baseline: &Baseline,
) -> Process {
    let metric = &gate.metric;
    let mut by_start: BTreeMap<u16, Counts> = BTreeMap::new();
    for cell in cells {
        if let Some(counts) = cell.counters.get(&metric.name, Judge::Limit) {
            by_start.entry(cell.start).or_default().merge(counts);
        }
    }
    let allowed = match metric.kind {
        Kind::Rate | Kind::ComplementRate if comparison.low_is_bad() => 1.0 - limit,
        Kind::Rate | Kind::ComplementRate => limit,
        Kind::Quantile(q) => quantile_allows(q, comparison),
        Kind::Mean => return mean_process(gate, comparison, limit, &by_start, baseline),
    };
    // A limit of "none at all" still needs a share to bet against; one in a million is as good as none.
    let allowed = Share::new(allowed.clamp(1e-6, 1.0)).expect("clamped to a share");
    let is_per_request = metric.signal.is_per_request();
    let (cap, mean) = if is_per_request { (baseline.request_cap, baseline.requests_mean) } else { (1, 1.0) };
    let test = PairTest::new(allowed, cap, mean).expect("the frozen cap and mean are at least 1");
    let pairs: Vec<(u16, Vec<PairCount>)> =
        by_start.iter().map(|(step, counts)| (*step, pair_counts(counts))).collect();
    test.process(pairs.iter().map(|(step, pairs)| (*step, pairs.as_slice())))
        .expect("the fold counts at most the frozen cap of requests, and bad ones among them")
}

fn pair_counts(counts: &Counts) -> Vec<PairCount> {
    counts
        .pairs
        .iter()
        .map(|((requests, bad), sessions)| PairCount { requests: *requests, bad: *bad, sessions: *sessions })
        .collect()
}

/// A mean against a constant.
fn mean_process(
    gate: &Gate,
    comparison: Comparison,
    limit: f64,
    by_start: &BTreeMap<u16, Counts>,
    baseline: &Baseline,
) -> Process {
    let constants = baseline.metrics.get(&gate.metric.name);
    let frozen_cap = constants.and_then(|constants| constants.cap);
    // The cap must leave room above the limit, or nothing could ever exceed it.
    let cap = frozen_cap.map_or(limit * 2.0, |cap| cap.max(limit * 1.5)).max(f64::MIN_POSITIVE);
    let sd = constants.map_or(0.25, |constants| constants.sd * frozen_cap.map_or(1.0, |frozen| frozen / cap));
    let directed = Metric {
        better: if comparison.low_is_bad() { Better::Higher } else { Better::Lower },
        ..gate.metric.clone()
    };
    let badness = |value: f64| {
        Badness::new(value_badness(value, &directed, Some(cap))).expect("badness is clamped to 0..=1")
    };
    let test = MeanTest::new(badness(limit), sd).expect("a standard deviation is finite and not negative");
    let scale = Scale::of(&gate.metric);
    let values: Vec<(u16, Vec<(Badness, u64)>)> = by_start
        .iter()
        .map(|(step, counts)| {
            (*step, counts.values.iter().map(|(bucket, n)| (badness(scale.value(*bucket)), *n)).collect())
        })
        .collect();
    test.process(values.iter().map(|(step, values)| (*step, values.as_slice())))
}

/// A gate against stable, by evidence.
fn comparison(gate: &Gate, scope: &Scope<'_>, constants: &MetricBaseline, blank: GateReading) -> GateReading {
    if !scope.is_compared() {
        return scope.without_comparison(blank);
    }
    let metric = &gate.metric;
    let margin = constants.margin.unwrap_or(0.0);
    let log_e = compare_by_evidence(metric, scope, constants, margin, Side::Worse);
    let Some(Difference { canary, excess, samples }) = difference(scope, metric, constants) else {
        return GateReading { log_e, ..blank };
    };
    let margin_badness = margin_in_badness(metric, constants, margin);
    let state = if samples < gate.min_samples {
        GateState::NoData
    } else if excess > margin_badness {
        GateState::AtRisk
    } else {
        GateState::Pass
    };
    let shown = scope.canary_value(metric).map_or_else(|| "no data".to_owned(), |v| metric.unit.show(v));
    GateReading { state, value: Some(canary), shown, samples, log_e, ..blank }
}

/// How much worse the canary's sessions of the current step are than stable's, in badness.
struct Difference {
    /// Mean badness of the canary.
    canary: f64,
    /// The canary's less stable's.
    excess: f64,
    /// Sessions of the canary that it rests on.
    samples: u64,
}

/// Compares session with session of the same segment and weight: a segment whose sessions are all on one side
/// says nothing, and segments of different quality do not stand in for the canary.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn difference(scope: &Scope<'_>, metric: &Metric, constants: &MetricBaseline) -> Option<Difference> {
    let mut strata: BTreeMap<(u8, Weight), (Counts, Counts)> = BTreeMap::new();
    for variant in [Variant::Canary, Variant::Stable] {
        for cell in scope.in_step(variant).filter(|cell| !cell.observing && is_split(cell.weight)) {
            let Some(more) = cell.counters.get(&metric.name, Judge::Stable) else { continue };
            let (canary, stable) = strata.entry((cell.segment, cell.weight)).or_default();
            match variant {
                Variant::Canary => canary.merge(more),
                Variant::Stable => stable.merge(more),
            }
        }
    }
    let pairs: Vec<(f64, f64, u64)> = strata
        .values()
        .filter_map(|(canary, stable)| {
            let canary_mean = mean_badness(canary, metric, constants.cap)?;
            let stable_mean = mean_badness(stable, metric, constants.cap)?;
            Some((canary_mean, canary_mean - stable_mean, canary.sessions()))
        })
        .collect();
    let samples: u64 = pairs.iter().map(|(_, _, n)| n).sum();
    let share = |n: u64| n as f64 / samples as f64;
    (samples > 0).then(|| Difference {
        canary: pairs.iter().map(|(canary, _, n)| canary * share(*n)).sum(),
        excess: pairs.iter().map(|(_, excess, n)| excess * share(*n)).sum(),
        samples,
    })
}

/// Which claim evidence is collected for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The canary is worse.
    Worse,
    /// The canary is better.
    Better,
}

/// The evidence of Test B that the canary is worse (beyond a margin in the metric's unit), or better.
pub(super) fn compare_by_evidence(
    metric: &Metric,
    scope: &Scope<'_>,
    constants: &MetricBaseline,
    margin: f64,
    side: Side,
) -> LogE {
    let Some(starts) = &scope.comparison_starts else { return LogE::ONE };
    let margin = margin_in_badness(metric, constants, margin);
    match metric.better {
        // Both directions are watched: the average of the two e-values.
        Better::Watched => {
            let longer = directed_log_e(metric, scope, constants, margin, starts, false);
            let shorter = directed_log_e(metric, scope, constants, margin, starts, true);
            match side {
                Side::Worse => log_mean(&[longer, shorter]),
                Side::Better => LogE::ONE,
            }
        }
        Better::Higher | Better::Lower => {
            directed_log_e(metric, scope, constants, margin, starts, side == Side::Better)
        }
    }
}

fn directed_log_e(
    metric: &Metric,
    scope: &Scope<'_>,
    constants: &MetricBaseline,
    margin: f64,
    starts: &Starts,
    flipped: bool,
) -> LogE {
    let process = comparison_process(metric, scope, constants, margin, flipped, Direction::Rollback);
    process.map_or(LogE::ONE, |process| starts.log_e(&process))
}

/// The gates that are not yet shown to be no worse than stable by more than the margin of `progress`.
///
/// Quantile gates have no margin in badness and are left to the clock, as is a step without a control.
pub(super) fn unproven(plan: &Plan, scope: &Scope<'_>, log_limit: f64) -> Vec<MetricName> {
    let Some(margin) = plan.progress.margin.filter(|_| scope.has_control()) else { return Vec::new() };
    let is_shown = |gate: &&Gate| {
        let constants = scope.baseline.and_then(|baseline| baseline.metrics.get(&gate.metric.name));
        let Some(constants) = constants else { return false };
        let margin = match margin {
            Regression::Relative(share) => share * constants.shown.abs(),
            Regression::Absolute(margin) => margin,
        };
        let margin = margin_in_badness(&gate.metric, constants, margin);
        let process = comparison_process(&gate.metric, scope, constants, margin, false, Direction::Promotion);
        process.is_some_and(|process| process.from_first().ln() >= log_limit)
    };
    let by_margin = |gate: &&Gate| match gate.metric.kind {
        Kind::Rate | Kind::ComplementRate | Kind::Mean => gate.decision == Decision::Evidence,
        Kind::Quantile(_) => false,
    };
    let gates = plan.analysis.gates.iter().filter(by_margin).filter(|gate| !is_shown(gate));
    gates.map(|gate| gate.metric.name.clone()).collect()
}

/// The process of Test B over the sessions of both variants; nothing without a session of the canary.
fn comparison_process(
    metric: &Metric,
    scope: &Scope<'_>,
    constants: &MetricBaseline,
    margin: f64,
    flipped: bool,
    direction: Direction,
) -> Option<Process> {
    let mean = if flipped { 1.0 - constants.mean } else { constants.mean };
    let baseline =
        canary::Baseline::new(mean.clamp(0.0, 1.0), constants.sd).expect("frozen moments of badness");
    let test = CanaryTest::new(baseline, margin.clamp(0.0, 1.0), direction).expect("a margin in badness");
    let cells = values_by_stamp(metric, scope.cells(), constants.cap, flipped);
    if cells.values().all(|values| values.canary.is_empty()) {
        // Without a single session of the canary, stable alone would be compared with its own past.
        return None;
    }
    Some(test.process(cells.iter().map(|((step, _, weight), Values { canary, stable })| CanaryCell {
        step: *step,
        weight: Share::from_bp(weight.bp()).expect("a weight is a share"),
        canary,
        stable,
    })))
}

/// The badness of the sessions of both variants that share a stamp.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) canary: Vec<(Badness, u64)>,
    pub(super) stable: Vec<(Badness, u64)>,
}

/// The badness of all sessions that have a concurrent control, by the part of the plan, segment and weight.
pub(super) fn values_by_stamp<'c>(
    metric: &Metric,
    cells: impl IntoIterator<Item = &'c Cell>,
    cap: Option<f64>,
    flipped: bool,
) -> BTreeMap<(u16, u8, Weight), Values> {
    let mut by_stamp: BTreeMap<(u16, u8, Weight), Values> = BTreeMap::new();
    for cell in cells.into_iter().filter(|cell| !cell.observing && is_split(cell.weight)) {
        if let Some(counts) = cell.counters.get(&metric.name, Judge::Stable) {
            let values = by_stamp.entry((cell.start, cell.segment, cell.weight)).or_default();
            let side = match cell.variant {
                Variant::Canary => &mut values.canary,
                Variant::Stable => &mut values.stable,
            };
            side.extend(badness_values(counts, metric, cap, flipped));
        }
    }
    by_stamp
}

/// Sessions that showed a metric, per stamped weight, canary as hits: for the guard of voluntary metrics.
pub(super) fn responses_by_weight(metric: &Metric, cells: &[Cell]) -> Vec<ShareCount> {
    let mut by_weight: BTreeMap<Weight, (u64, u64)> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| !cell.observing && is_split(cell.weight)) {
        let sessions = cell.counters.get(&metric.name, Judge::Stable).map_or(0, Counts::sessions);
        let counts = by_weight.entry(cell.weight).or_default();
        match cell.variant {
            Variant::Canary => counts.0 += sessions,
            Variant::Stable => counts.1 += sessions,
        }
    }
    by_weight
        .into_iter()
        .map(|(weight, (hits, misses))| ShareCount {
            share: Share::from_bp(weight.bp()).expect("a weight is a share"),
            hits,
            misses,
        })
        .collect()
}

fn badness_values(
    counts: &Counts,
    metric: &Metric,
    cap: Option<f64>,
    flipped: bool,
) -> impl Iterator<Item = (Badness, u64)> {
    let scale = Scale::of(metric);
    let pairs =
        counts.pairs.iter().map(|((n, bad), count)| (f64::from(*bad) / f64::from((*n).max(1)), *count));
    let values =
        counts.values.iter().map(move |(bucket, n)| (value_badness(scale.value(*bucket), metric, cap), *n));
    pairs.chain(values).map(move |(badness, n)| {
        let badness = if flipped { 1.0 - badness } else { badness };
        (Badness::new(badness.clamp(0.0, 1.0)).expect("clamped to 0..=1"), n)
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn mean_badness(counts: &Counts, metric: &Metric, cap: Option<f64>) -> Option<f64> {
    let (sum, n) = badness_values(counts, metric, cap, false)
        .fold((0.0, 0_u64), |(sum, n), (badness, count)| (sum + badness.get() * count as f64, n + count));
    (n > 0).then(|| sum / n as f64)
}

/// A margin in the unit of the metric as a margin of badness.
///
/// Quantiles carry theirs in the edge that canary sessions are read against.
fn margin_in_badness(metric: &Metric, constants: &MetricBaseline, margin: f64) -> f64 {
    match metric.kind {
        Kind::Rate | Kind::ComplementRate => margin,
        Kind::Quantile(_) => 0.0,
        Kind::Mean => match (metric.range, constants.cap) {
            (Some((low, high)), _) => margin / (high - low),
            (None, Some(cap)) => margin / cap,
            (None, None) => 0.0,
        },
    }
}
