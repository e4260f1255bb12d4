//! The ramp: the weights that a rollout passes, from either way of writing them.

use super::walk::{Field, Fields, Walk};
use crate::fields::{self, MOST_STEPS};
use crate::plan::{Segment, SegmentWeight, Step, StepPhase, StepWeight};
use crate::units::HoldFor;
use crate::weight::Weight;

/// How long the windows of a schedule set the weight.
const WINDOWS_HOLD: HoldFor = HoldFor::from_hours(24);

/// The weights of a rollout in order, before they become steps of a plan.
pub(super) struct Ramp {
    /// The weights, each above the one before; never empty.
    levels: Vec<Level>,
    /// Whether the first weight is held once more after Observing.
    repeats_first: bool,
}

/// One weight and how long it is held.
#[derive(Debug, Clone, Copy)]
struct Level {
    weight: Weight,
    hold: HoldFor,
    approval: bool,
}

/// Reads `steps`, or else `canaryWeight`, `stepWeight` and `stepInterval`; no weight is above `most`.
pub(super) fn ramp(walk: &mut Walk, fields: &Fields<'_>, most: Weight) -> Ramp {
    let Some(steps) = fields.get("steps") else { return generated(walk, fields, most) };
    for field in ["canaryWeight", "stepWeight", "stepInterval"].iter().filter_map(|name| fields.get(name)) {
        walk.error_with_hint(
            &field.key(),
            "cannot be combined with `steps`",
            "`steps` already says every weight and hold",
        );
    }
    listed(walk, &steps, most)
        .unwrap_or_else(|| generated(&mut Walk::default(), &Fields::none(fields.spot.clone()), most))
}

/// The ramp of `canaryWeight`, `stepWeight`, `stepInterval`: from 50 % on, increments are twice `stepWeight`.
fn generated(walk: &mut Walk, fields: &Fields<'_>, most: Weight) -> Ramp {
    let ten_percent = Weight::from_bp(1_000).expect("10 % is a weight");
    let first = fields.get("canaryWeight").and_then(|field| {
        let weight = walk.weight(&field)?;
        if weight == Weight::ZERO {
            walk.error_with_hint(&field.spot, "must be above 0%", "a canary without sessions shows nothing");
            return None;
        }
        within(walk, &field, weight, most)
    });
    let increment = fields.get("stepWeight").and_then(|field| {
        let weight = walk.weight(&field)?;
        if weight == Weight::ZERO {
            walk.error(&field.spot, "must be above 0%");
            return None;
        }
        Some((field, weight))
    });
    let hold = fields
        .get("stepInterval")
        .and_then(|field| walk.positive_duration(&field))
        .unwrap_or(HoldFor::from_mins(5));

    let mut weight = first.unwrap_or(ten_percent);
    let step_weight = increment.as_ref().map_or(ten_percent, |(_, weight)| *weight);
    let level = |weight| Level { weight, hold, approval: false };
    let mut levels = vec![level(weight)];
    while weight < most && levels.len() < MOST_STEPS {
        let from_half_on = weight >= Weight::HALF;
        let next = weight.saturating_add(step_weight);
        let next = if from_half_on { next.saturating_add(step_weight) } else { next };
        weight = next.min(most);
        levels.push(level(weight));
    }
    if weight < most
        && let Some((field, _)) = &increment
    {
        let message = format!("needs more than {MOST_STEPS} steps to reach {most}");
        walk.error_with_hint(&field.spot, message, "use a larger stepWeight");
    }
    Ramp { levels, repeats_first: true }
}

/// The ramp of an explicit list; a last step at `most` is added when the list ends below.
fn listed(walk: &mut Walk, field: &Field<'_>, most: Weight) -> Option<Ramp> {
    let errors_before = walk.errors.len();
    let items = walk.list(field, MOST_STEPS);
    let mut levels: Vec<Level> = Vec::new();
    for item in &items {
        let Some(fields) = walk.fields(item, &fields::STEP) else { continue };
        let approval = fields.get("approval").and_then(|field| walk.truth(&field)).unwrap_or(false);
        let hold = walk.require(&fields, "hold", "5m").and_then(|field| walk.duration(&field));
        let Some(field) = walk.require(&fields, "weight", "10%") else { continue };
        let Some(weight) = walk.weight(&field).and_then(|weight| within(walk, &field, weight, most)) else {
            continue;
        };
        let previous = levels.last().map_or(Weight::ZERO, |level| level.weight);
        if weight <= previous {
            let message = format!("weight {weight} is not above the {previous} before it");
            walk.error_with_hint(&field.spot, message, "weights must grow from step to step");
        }
        levels.push(Level { weight, hold: hold.unwrap_or(HoldFor::ZERO), approval });
    }
    let last = match levels.last() {
        Some(last) => *last,
        None => {
            if walk.errors.len() == errors_before {
                walk.error_with_hint(
                    &field.spot,
                    "the list is empty",
                    "list `{weight: 10%, hold: 5m}` and so on",
                );
            }
            return None;
        }
    };
    if levels.len() == 1 && last.weight == most {
        let hint = "list at least two steps, or use `strategy: immediate`";
        walk.error_with_hint(
            &field.key(),
            "the only step is the Observing one, in which nothing is decided",
            hint,
        );
    }
    if last.weight < most {
        levels.push(Level { weight: most, approval: false, ..last });
        let message =
            format!("the list ends at {}; a last step of {most} held {} is added", last.weight, last.hold);
        walk.warn(
            &field.key(),
            message,
            format!("write the step as `{{weight: {most}, hold: {}}}`", last.hold),
        );
    }
    Some(Ramp { levels, repeats_first: false })
}

fn within(walk: &mut Walk, field: &Field<'_>, weight: Weight, most: Weight) -> Option<Weight> {
    if weight <= most {
        return Some(weight);
    }
    walk.error(&field.spot, format!("weight {weight} is above the {most} that `holdback` leaves"));
    None
}

impl Ramp {
    /// The weight that the rollout starts at.
    pub(super) fn first_weight(&self) -> Weight {
        self.levels.first().map_or(Weight::ZERO, |level| level.weight)
    }

    /// Warns when a schedule takes the place of listed steps that wait for an approval.
    pub(super) fn warn_of_replaced_approvals(&self, walk: &mut Walk, steps: &Field<'_>) {
        if self.levels.iter().any(|level| level.approval && level.weight < Weight::HALF) {
            let hint = "ask for the approval in a step of 50% or more";
            walk.warn(&steps.key(), "the schedule replaces the steps below 50%, also their approvals", hint);
        }
    }

    /// The steps of the plan: Observing, one stage per fixed segment, the ramp or the windows, Completing.
    pub(super) fn compile(&self, segments: &[Segment], has_schedule: bool) -> Vec<Step> {
        let first = self.levels.first().copied().expect("a ramp has at least one weight");
        let stages: Vec<HoldFor> = segments.iter().filter_map(stage).collect();
        let has_stages = !stages.is_empty();
        let start = if has_stages {
            StepWeight::Stage(0)
        } else if has_schedule {
            StepWeight::Windows
        } else {
            StepWeight::Ramp(first.weight)
        };
        let is_first_done = !self.repeats_first && !has_stages;
        let approval = is_first_done && !has_schedule && first.approval;
        let mut steps = vec![Step { phase: StepPhase::Observing, weight: start, hold: first.hold, approval }];
        for (index, hold) in stages.into_iter().enumerate() {
            let weight = StepWeight::Stage(index);
            steps.push(Step { phase: StepPhase::Progressing, weight, hold, approval: false });
        }
        if has_schedule {
            let weight = StepWeight::Windows;
            steps.push(Step { phase: StepPhase::Progressing, weight, hold: WINDOWS_HOLD, approval: false });
        }
        for level in self.levels.iter().skip(usize::from(is_first_done)) {
            let is_completing = level.weight >= Weight::HALF;
            let (phase, weight) = match (is_completing, has_schedule) {
                (false, true) => continue,
                (false, false) => (StepPhase::Progressing, StepWeight::Ramp(level.weight)),
                (true, true) => (StepPhase::Completing, StepWeight::RampInBestWindow(level.weight)),
                (true, false) => (StepPhase::Completing, StepWeight::Ramp(level.weight)),
            };
            steps.push(Step { phase, weight, hold: level.hold, approval: level.approval });
        }
        steps
    }
}

/// How long a segment's stage lasts; the progressive segment has none.
fn stage(segment: &Segment) -> Option<HoldFor> {
    match segment.weight {
        SegmentWeight::Fixed(_) => Some(segment.duration.unwrap_or(HoldFor::ZERO)),
        SegmentWeight::Progressive => None,
    }
}
