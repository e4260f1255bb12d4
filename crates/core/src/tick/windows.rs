//! The weight follows the windows of the schedule, one committed transition for each change.
//!
//! On hold, and after a failed check, the weight may fall with a window and never rises.

use serde_json::json;

use crate::audit::Action;
use crate::ids::Actor;
use crate::pack::{Draft, PackState, Transition};
use crate::plan::{Plan, StepWeight};
use crate::rollout::{Active, Rollout};
use crate::units::Timestamp;
use crate::weight::Weight;

/// Borders of windows that are looked through for the next change of weight: more than a week has.
const MOST_BORDERS: usize = 400;

/// Brings the weight to what the window in force says.
pub(super) fn follow(
    pack: &PackState,
    plan: &Plan,
    rollout: &Rollout,
    active: &Active,
    now: Timestamp,
) -> Option<Transition> {
    let weights = target(plan, rollout, active, now)?;
    let schedule = plan.schedule.as_ref()?;
    let window = schedule.window_at(now).map(|window| window.as_written.as_str());
    let set = weights.last().copied().unwrap_or(Weight::ZERO);
    let says = schedule.weight_at(now);
    let place = window.map_or_else(|| "no window is open".to_owned(), |window| format!("window {window}"));
    let reason = if set == says {
        format!("{place}: {set}")
    } else {
        format!("{place} says {says}, of which the rollout keeps {set} for now")
    };
    let percent = |weights: &[Weight]| weights.iter().map(|weight| weight.percent()).collect::<Vec<_>>();
    let evidence = json!({
        "step": active.step,
        "window": window,
        "from_percent": percent(rollout.weights()),
        "weights_percent": percent(&weights),
    });
    let mut draft = Draft::of(pack, now);
    draft.change_weights(plan, weights);
    draft.fact(&Actor::serin(), Action::WeightChanged, &reason, evidence);
    Some(draft.finish())
}

/// The weights that the window in force asks for at a point in time; nothing where they are in force already.
pub(super) fn target(plan: &Plan, rollout: &Rollout, active: &Active, at: Timestamp) -> Option<Vec<Weight>> {
    match plan.steps[usize::from(active.step)].weight {
        StepWeight::Windows => {}
        StepWeight::Ramp(_) | StepWeight::Stage(_) | StepWeight::RampInBestWindow(_) => return None,
    }
    let current = rollout.weights();
    let asked = plan.weights(usize::from(active.step), at);
    let is_free = active.holds.is_empty() && !plan.imposed.is_frozen(at);
    let ceiling = match (is_free, active.failed_checks) {
        (true, 0) => None,
        (true, _) | (false, _) => Some(ceiling(rollout, active)),
    };
    let allowed = |(index, asked): (usize, Weight)| match &ceiling {
        None => asked,
        Some(ceiling) => asked.min(ceiling.get(index).copied().unwrap_or(Weight::ZERO)),
    };
    let weights: Vec<Weight> = asked.into_iter().enumerate().map(allowed).collect();
    (weights != current).then_some(weights)
}

/// The most that the weights may be while something holds the rollout: what they are.
///
/// A weight of 0 % can show nothing new, so that a hold which waits for sessions would never end: on such a
/// hold a window may bring back what another window took, up to what was in force before.
fn ceiling(rollout: &Rollout, active: &Active) -> Vec<Weight> {
    let current = rollout.weights();
    let nobody = current.iter().all(|weight| *weight == Weight::ZERO);
    let waits_for_sessions =
        !active.holds.is_empty() && active.holds.keys().all(|cause| cause.is_for_sessions());
    if !nobody || !waits_for_sessions {
        return current.to_vec();
    }
    let in_step = rollout.spans.iter().rev().take_while(|span| span.step == active.step);
    let before = in_step.map(|span| &span.weights).find(|weights| weights.iter().any(|w| *w > Weight::ZERO));
    before.map_or_else(|| current.to_vec(), Clone::clone)
}

/// The earliest time from `from` on at which a window changes the weights as things stand, and to what by segment;
/// nothing in a step whose weight no window sets.
pub fn next_change(
    plan: &Plan,
    rollout: &Rollout,
    active: &Active,
    from: Timestamp,
) -> Option<(Timestamp, Vec<Weight>)> {
    let schedule = match plan.steps[usize::from(active.step)].weight {
        StepWeight::Windows => plan.schedule.as_ref()?,
        StepWeight::Ramp(_) | StepWeight::Stage(_) | StepWeight::RampInBestWindow(_) => return None,
    };
    let mut borders = std::iter::successors(Some(from), |at| schedule.next_border(*at)).take(MOST_BORDERS);
    borders.find_map(|at| target(plan, rollout, active, at).map(|weights| (at, weights)))
}
