//! Steps that fit the traffic.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{FEW_SESSIONS, NEVER_SECS, NeedOf, Traffic, Walk, hold_for, up_to, whole};
use crate::evidence::Baseline;
use crate::plan::{Plan, Step, StepPhase, StepWeight, Strategy};
use crate::units::HoldFor;
use crate::weight::Weight;

/// How long a proposed rollout may take before one with fewer steps is preferred.
const PATIENCE_SECS: f64 = 8.0 * 3_600.0;

/// Weights in percent for traffic that is too low for many steps.
const FEW_STEPS: [&[u16]; 2] = [&[10, 25, 50, 90], &[25, 50, 90]];

/// One step that is proposed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProposedStep {
    /// Share of new sessions that get the canary.
    #[serde(serialize_with = "percent")]
    pub weight: Weight,
    /// How long it lasts.
    pub hold: HoldFor,
    /// Canary sessions of the step that are matured by its end.
    pub canary_sessions: u64,
}

fn percent<S: serde::Serializer>(weight: &Weight, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(weight)
}

/// Proposes the `steps` of a manifest that fit the traffic; the first one is the Observing one.
///
/// Each step lasts until its least number of matured canary sessions can be expected, and no longer than the plan's
/// own steps where many more come sooner. The plan's own weights are kept as long as the rollout then takes a working
/// day or twice its planned length at most; at lower traffic there are fewer and larger steps. Nothing is proposed for
/// segments and schedules, whose weights are not those of a ramp, and where so many sessions would take ten years.
pub fn propose(plan: &Plan, traffic: &Traffic, baseline: Option<&Baseline>) -> Vec<ProposedStep> {
    if plan.strategy == Strategy::Immediate || plan.segments.len() > 1 || plan.schedule.is_some() {
        return Vec::new();
    }
    let own: BTreeSet<Weight> = plan
        .steps
        .iter()
        .filter_map(|step| match step.weight {
            StepWeight::Ramp(weight) if weight > Weight::ZERO => Some(weight),
            StepWeight::Ramp(_)
            | StepWeight::Stage(_)
            | StepWeight::Windows
            | StepWeight::RampInBestWindow(_) => None,
        })
        .collect();
    let most = Weight::FULL.saturating_sub(plan.holdback);
    let half = |weight: &Weight| Weight::from_bp(weight.bp() / 2).ok();
    // The list begins with the Observing step, which the ramp holds at its first weight twice.
    let observing = own.first().and_then(half).filter(|weight| *weight > Weight::ZERO);
    let mut ladders = vec![observing.into_iter().chain(own).collect::<Vec<Weight>>()];
    for percents in FEW_STEPS {
        let weights = percents.iter().filter_map(|percent| Weight::from_bp(percent * 100).ok());
        ladders.push(weights.filter(|weight| *weight < most).chain([most]).collect());
    }
    let patience = PATIENCE_SECS.max(2.0 * plan.planned_length().secs_f64());
    let mut proposed = Vec::new();
    for ladder in ladders {
        proposed = climb(plan, traffic, baseline, &ladder);
        let length: f64 = proposed.iter().map(|step| step.hold.secs_f64()).sum();
        if !proposed.is_empty() && length <= patience {
            break;
        }
    }
    proposed
}

/// The holds of a ladder of weights; nothing when one would take too long.
fn climb(
    plan: &Plan,
    traffic: &Traffic,
    baseline: Option<&Baseline>,
    ladder: &[Weight],
) -> Vec<ProposedStep> {
    let step = |(index, weight): (usize, &Weight)| Step {
        phase: match index {
            0 => StepPhase::Observing,
            _ if *weight < Weight::HALF => StepPhase::Progressing,
            _ => StepPhase::Completing,
        },
        weight: StepWeight::Ramp(*weight),
        hold: HoldFor::ZERO,
        approval: false,
    };
    let steps: Vec<Step> = ladder.iter().enumerate().map(step).collect();
    let plan_of_ladder = Plan { steps, ..plan.clone() };
    let longest_hold = plan.steps.iter().map(|step| step.hold.secs_f64()).fold(0.0, f64::max);
    let mut walk = Walk::start(&plan_of_ladder, traffic, baseline);
    let mut proposed = Vec::with_capacity(ladder.len());
    for (index, weight) in ladder.iter().enumerate() {
        let mut flow = walk.next_flow(&plan_of_ladder, traffic, index);
        let in_step = walk.needs.iter().filter(|need| need.of != NeedOf::All);
        let oldest = in_step.clone().map(|need| need.age).fold(walk.first_age, f64::max);
        let own = in_step.map(|need| walk.secs_for(need, &flow)).fold(0.0, f64::max);
        let since_start = if flow.is_observing { 0.0 } else { walk.slowest_need(&flow).1 };
        let least = own.max(since_start).max(walk.interval);
        let plenty = FEW_SESSIONS as f64 / flow.canary() + oldest;
        let hold = rounded_up(plenty.clamp(least, longest_hold.max(least)), walk.interval);
        if hold > NEVER_SECS {
            return Vec::new();
        }
        let matured = flow.canary() * (hold - walk.first_age).max(0.0);
        proposed.push(ProposedStep {
            weight: *weight,
            hold: hold_for(hold).unwrap_or_default(),
            canary_sessions: whole(matured),
        });
        flow.length = hold;
        walk.flows.push(flow);
    }
    proposed
}

/// A length as people write it: whole minutes, then steps of five, of thirty, and whole hours.
fn rounded_up(secs: f64, interval: f64) -> f64 {
    let unit = match secs {
        ..600.0 => 60.0,
        600.0..7_200.0 => 300.0,
        7_200.0..86_400.0 => 1_800.0,
        _ => 3_600.0,
    };
    up_to(secs, unit).max(interval)
}
