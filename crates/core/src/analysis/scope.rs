//! Which sessions a check reads: those of all segments, or of one.

use super::gate::{bad_share, mean_value, quantile_allows};
use super::{Cell, GateReading, GateState, Sight};
use crate::aggregate::{Counts, Judge};
use crate::evidence::Baseline;
use crate::metric::{Better, Kind, Metric};
use crate::plan::{Gate, GateRule, Plan, StepPhase};
use crate::routing::Variant;
use crate::stats::late_harm::Starts;
use crate::weight::Weight;

/// What the gates of one check are read from.
pub(super) struct Scope<'a> {
    plan: &'a Plan,
    step: u16,
    seen: &'a Sight<'a>,
    /// Constants frozen from stable.
    pub(super) baseline: Option<&'a Baseline>,
    /// The only segment whose sessions are read; nothing for all.
    segment: Option<u8>,
    /// Every weight under which sessions are assigned in the current step.
    weights: Vec<Weight>,
    /// Whether the current step is Observing, whose sessions take no part in comparisons.
    observing: bool,
    /// Parts of the plan in which threshold evidence may start, and comparisons.
    pub(super) threshold_starts: Starts,
    pub(super) comparison_starts: Option<Starts>,
}

impl<'a> Scope<'a> {
    /// The sessions of all segments, in a step of a plan.
    pub(super) fn new(
        plan: &'a Plan,
        step: u16,
        baseline: Option<&'a Baseline>,
        seen: &'a Sight<'a>,
    ) -> Self {
        Self::of(plan, step, baseline, seen, None)
    }

    /// The same, but only the sessions of one segment.
    pub(super) fn of_segment(&self, segment: u8) -> Self {
        Self::of(self.plan, self.step, self.baseline, self.seen, Some(segment))
    }

    fn of(
        plan: &'a Plan,
        step: u16,
        baseline: Option<&'a Baseline>,
        seen: &'a Sight<'a>,
        segment: Option<u8>,
    ) -> Self {
        let weights_in = |step: u16| -> Vec<Weight> {
            let is_read =
                |(index, _): &(usize, Weight)| segment.is_none_or(|only| *index == usize::from(only));
            let possible = plan.weights_possible(usize::from(step)).into_iter();
            possible
                .flat_map(|set| set.into_iter().enumerate().filter(is_read))
                .map(|(_, weight)| weight)
                .collect()
        };
        let steps = || (0_u16..).zip(&plan.steps);
        let starts_of = |index: u16| (0..plan.slices(index)).map(move |slice| plan.start(index, slice));
        let all: Vec<u16> = steps().flat_map(|(index, _)| starts_of(index)).collect();
        // Without a concurrent control a step says nothing about a comparison.
        let compared: Vec<u16> = steps()
            .filter(|(index, step)| {
                step.phase != StepPhase::Observing && weights_in(*index).into_iter().any(is_split)
            })
            .flat_map(|(index, _)| starts_of(index))
            .collect();
        Self {
            plan,
            step,
            seen,
            baseline,
            segment,
            weights: weights_in(step),
            observing: plan.steps[usize::from(step)].phase == StepPhase::Observing,
            threshold_starts: Starts::new(all).expect("an active rollout has steps, numbered upwards"),
            comparison_starts: Starts::new(compared).ok(),
        }
    }

    /// Everything that was seen, of all segments.
    pub(super) fn seen(&self) -> &'a Sight<'a> {
        self.seen
    }

    /// The cells that are read.
    pub(super) fn cells(&self) -> impl Iterator<Item = &'a Cell> {
        let segment = self.segment;
        self.seen.cells.iter().filter(move |cell| segment.is_none_or(|only| cell.segment == only))
    }

    /// Matured canary sessions of the current step.
    pub(super) fn step_sessions(&self) -> u64 {
        self.in_step(Variant::Canary).map(|cell| cell.counters.sessions).sum()
    }

    /// Matured sessions of a variant since the rollout began.
    pub(super) fn sessions(&self, variant: Variant) -> u64 {
        self.of_variant(variant).map(|cell| cell.counters.sessions).sum()
    }

    /// The cells of a variant.
    pub(super) fn of_variant(&self, variant: Variant) -> impl Iterator<Item = &'a Cell> {
        self.cells().filter(move |cell| cell.variant == variant)
    }

    /// The cells of a variant whose sessions were assigned in the current step.
    pub(super) fn in_step(&self, variant: Variant) -> impl Iterator<Item = &'a Cell> {
        let step = self.step;
        self.of_variant(variant).filter(move |cell| cell.step == step)
    }

    /// Whether any session of the current step can get the canary.
    pub(super) fn has_canary(&self) -> bool {
        self.weights.iter().any(|weight| *weight > Weight::ZERO)
    }

    /// Whether the current step has a concurrent control.
    pub(super) fn has_control(&self) -> bool {
        self.weights.iter().copied().any(is_split)
    }

    /// Whether the sessions of the current step may be compared with stable's.
    pub(super) fn is_compared(&self) -> bool {
        self.has_control() && !self.observing
    }

    /// The reading of a comparison in a step that has none by construction.
    pub(super) fn without_comparison(&self, blank: GateReading) -> GateReading {
        let why = match (self.observing, self.has_canary()) {
            (true, _) => "compared after Observing",
            (false, true) => "no control in this step",
            (false, false) => "no canary in this step",
        };
        GateReading { state: GateState::NotApplicable, shown: why.to_owned(), ..blank }
    }

    /// Whether stable breaks the gate too, so that the canary is not to blame.
    ///
    /// Beside a control: stable's own evidence stands at half its log limit or more, on the wrong side.
    /// Without one: stable did not pass the gate in the last step that had one.
    pub(super) fn blames_stable(&self, gate: &Gate, reading: &GateReading, log_limit: f64) -> bool {
        let GateRule::Threshold { .. } = gate.rule else { return false };
        if self.has_control() {
            let wrong = self.estimate(gate, Variant::Stable, Span::CurrentStep).is_some_and(|e| !e.is_right);
            return wrong && reading.stable_log_e.ln() >= log_limit / 2.0;
        }
        let with_sessions = self.of_variant(Variant::Stable).filter(|cell| cell.counters.sessions > 0);
        let last_step = with_sessions.map(|cell| cell.step).max();
        let before = last_step.and_then(|step| self.estimate(gate, Variant::Stable, Span::Step(step)));
        !before.is_some_and(|estimate| estimate.is_right)
    }

    /// The point estimate of a variant over some sessions; nothing where none showed the metric.
    pub(super) fn estimate(&self, gate: &Gate, variant: Variant, span: Span) -> Option<Estimate> {
        let GateRule::Threshold { comparison, limit } = gate.rule else { return None };
        let cells = self.of_variant(variant).filter(|cell| match span {
            Span::CurrentStep => cell.step == self.step,
            Span::Step(step) => cell.step == step,
            Span::All => true,
        });
        let counts = counts_of(cells, &gate.metric, Judge::Limit);
        match gate.metric.kind {
            Kind::Rate | Kind::ComplementRate => {
                let bad = bad_share(&counts)?;
                let value = if comparison.low_is_bad() { 1.0 - bad } else { bad };
                Some(Estimate { value, is_right: comparison.holds(value, limit) })
            }
            Kind::Quantile(q) => {
                let bad = bad_share(&counts)?;
                Some(Estimate { value: bad, is_right: bad <= quantile_allows(q, comparison) })
            }
            Kind::Mean => {
                let value = mean_value(&counts, &gate.metric)?;
                Some(Estimate { value, is_right: comparison.holds(value, limit) })
            }
        }
    }

    /// The value of a metric over the matured sessions of a variant, in its unit, and how many showed it.
    ///
    /// Of a quantile the cells keep no value, only how much lies beyond its edge.
    pub(super) fn value(&self, metric: &Metric, variant: Variant) -> (Option<f64>, u64) {
        let counts = counts_of(self.of_variant(variant), metric, Judge::Stable);
        let value = match metric.kind {
            Kind::Rate | Kind::ComplementRate => {
                bad_share(&counts).map(|bad| if metric.better == Better::Higher { 1.0 - bad } else { bad })
            }
            Kind::Mean => mean_value(&counts, metric),
            Kind::Quantile(_) => None,
        };
        (value, counts.sessions())
    }

    /// The canary's value of a metric as it is shown: over all data, or over the matured sessions of the segment.
    pub(super) fn canary_value(&self, metric: &Metric) -> Option<f64> {
        match self.segment {
            None => self.seen.canary_value(&metric.name),
            Some(_) => self.value(metric, Variant::Canary).0,
        }
    }
}

fn counts_of<'c>(cells: impl Iterator<Item = &'c Cell>, metric: &Metric, judge: Judge) -> Counts {
    let mut counts = Counts::default();
    for cell in cells {
        if let Some(more) = cell.counters.get(&metric.name, judge) {
            counts.merge(more);
        }
    }
    counts
}

/// Over which sessions an estimate is taken.
#[derive(Clone, Copy)]
pub(super) enum Span {
    CurrentStep,
    Step(u16),
    All,
}

/// A point estimate and whether it is on the right side.
pub(super) struct Estimate {
    pub(super) value: f64,
    pub(super) is_right: bool,
}

/// Whether a weight leaves sessions to both variants.
pub(super) fn is_split(weight: Weight) -> bool {
    weight > Weight::ZERO && weight < Weight::FULL
}
