//! What must hold for every transition, whoever made it; checked by tests, simulator and server alike.

use crate::audit::Action;
use crate::ids::RolloutId;
use crate::pack::{MOST_DRAINING, PackState, Transition};
use crate::rollout::{Active, CheckOutcome, End, Rollout};
use crate::routing::CohortId;
use crate::weight::Weight;

/// A transition that must not be committed: a bug of Serin, never of its user.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Violation {
    /// The revision must grow by one.
    #[error("the revision went from {from:?} to {to}, and the transition says that it started from {said:?}")]
    Revision {
        /// The revision before.
        from: Option<u64>,
        /// The revision after.
        to: u64,
        /// The revision that the transition names.
        said: Option<u64>,
    },
    /// The revision of a rollout must grow by one while it is under way, and then stand still.
    #[error("the revision of rollout {rollout} went from {from} to {to}")]
    RolloutRevision {
        /// The rollout.
        rollout: RolloutId,
        /// The revision before.
        from: u64,
        /// The revision after.
        to: u64,
    },
    /// A pack keeps its name.
    #[error("the pack changed its name")]
    Renamed,
    /// Time must not run backwards.
    #[error("the transition is older than the one before it")]
    Backwards,
    /// A rollout that is over is over for good.
    #[error("rollout {0} changed after its end")]
    EndedChanged(RolloutId),
    /// A rollout under way must end before another one starts.
    #[error("rollout {0} vanished without an end")]
    Vanished(RolloutId),
    /// Rollouts are numbered without gaps and never reused.
    #[error("rollout number {to} follows number {from}")]
    Attempt {
        /// The number before.
        from: u64,
        /// The number after.
        to: u64,
    },
    /// A rollback must leave the canary without a single new session, in this one transition.
    #[error("rollout {0} was rolled back and still gives sessions to its canary")]
    RollbackLeavesCanary(RolloutId),
    /// A rollout moves forward step by step.
    #[error("rollout {rollout} went from step {from} to step {to}")]
    StepJump {
        /// The rollout.
        rollout: RolloutId,
        /// The step before.
        from: u16,
        /// The step after.
        to: u16,
    },
    /// A rollout never moves forward on a failing check.
    #[error("rollout {0} moved forward although its last check failed")]
    ForwardOnFailure(RolloutId),
    /// A change of weight must be explained by a fact in the audit log.
    #[error("the weights changed from {from:?} to {to:?} without a recorded {expected}")]
    UnexplainedWeight {
        /// The weights before.
        from: Vec<Weight>,
        /// The weights after.
        to: Vec<Weight>,
        /// What would explain it.
        expected: &'static str,
    },
    /// On hold a window may lower a weight, never raise it.
    #[error("rollout {0} is on hold, and a window raised its weight")]
    RaisedOnHold(RolloutId),
    /// A new stable version must be explained by a fact in the audit log.
    #[error("the stable version changed without a recorded completion")]
    UnexplainedStable,
    /// Nothing happens unseen.
    #[error("the transition has neither a fact nor a check")]
    Silent,
    /// History is never rewritten.
    #[error("the weights that rollout {0} had before were rewritten")]
    HistoryRewritten(RolloutId),
    /// The clock of a step runs exactly while nothing holds the rollout.
    #[error("the step clock of rollout {rollout} is {clock} with {holds} holds set")]
    ClockAgainstHolds {
        /// The rollout.
        rollout: RolloutId,
        /// How the clock stands.
        clock: &'static str,
        /// How many holds are set.
        holds: usize,
    },
    /// New sessions must find their cohorts, and each cohort must carry the weight in force.
    #[error("cohort {0:?} is not what the rollout says about it")]
    Cohort(CohortId),
    /// Too many versions keep sessions.
    #[error("{0} versions drain at once")]
    TooManyDraining(usize),
}

/// Checks a transition against the state that it starts from; nothing before the first one of a pack.
///
/// # Errors
/// The first [`Violation`] that is found.
pub fn check(before: Option<&PackState>, transition: &Transition) -> Result<(), Violation> {
    let after = &transition.pack;
    let from = before.map(|pack| pack.revision);
    if transition.from_revision != from || after.revision != from.map_or(1, |revision| revision + 1) {
        return Err(Violation::Revision { from, to: after.revision, said: transition.from_revision });
    }
    if transition.facts.is_empty() && transition.check.is_none() {
        return Err(Violation::Silent);
    }
    if transition.facts.windows(2).any(|pair| pair[1].at < pair[0].at) {
        return Err(Violation::Backwards);
    }
    if after.draining.len() > MOST_DRAINING {
        return Err(Violation::TooManyDraining(after.draining.len()));
    }
    fresh_cohorts(before, transition)?;
    if let Some((rollout, active)) = after.active() {
        holds_stop_the_clock(rollout, active)?;
        cohorts_carry_the_weights(rollout, active, before, transition)?;
    }
    let Some(before) = before else { return Ok(()) };
    if before.name != after.name {
        return Err(Violation::Renamed);
    }
    if before.stable != after.stable && !has(transition, &[Action::Completed, Action::FirstStable]) {
        return Err(Violation::UnexplainedStable);
    }
    rollouts_end_for_good(before, transition)?;
    windows_never_raise_on_hold(before, transition)?;
    weights_are_explained(before, transition)
}

/// While something holds the rollout, a window lowers the weights or leaves them.
fn windows_never_raise_on_hold(before: &PackState, transition: &Transition) -> Result<(), Violation> {
    let (Some((old, _)), Some((new, active))) = (before.active(), transition.pack.active()) else {
        return Ok(());
    };
    if old.id != new.id || active.holds.is_empty() || !has(transition, &[Action::WeightChanged]) {
        return Ok(());
    }
    let within = |most: &[Weight]| new.weights().iter().zip(most).all(|(weight, most)| weight <= most);
    let nobody = old.weights().iter().all(|weight| *weight == Weight::ZERO);
    // What a window took to nothing may come back, so that a hold which waits for sessions can end.
    let came_back = || old.spans.iter().any(|span| span.step == active.step && within(&span.weights));
    if within(old.weights()) || (nobody && came_back()) {
        Ok(())
    } else {
        Err(Violation::RaisedOnHold(new.id.clone()))
    }
}

fn has(transition: &Transition, actions: &[Action]) -> bool {
    transition.facts.iter().any(|fact| actions.contains(&fact.action))
}

/// Cohorts are numbered without gaps, so that no session is counted under two stamps.
fn fresh_cohorts(before: Option<&PackState>, transition: &Transition) -> Result<(), Violation> {
    let first = before.map_or(0, |pack| pack.next_cohort.0);
    for (expected, cohort) in (first..).zip(&transition.cohorts) {
        if cohort.id.0 != expected {
            return Err(Violation::Cohort(cohort.id));
        }
    }
    let opened = u32::try_from(transition.cohorts.len()).unwrap_or(u32::MAX);
    let next = transition.pack.next_cohort;
    if next.0 == first + opened { Ok(()) } else { Err(Violation::Cohort(next)) }
}

fn holds_stop_the_clock(rollout: &Rollout, active: &Active) -> Result<(), Violation> {
    let runs = active.clock.running_since.is_some();
    if runs == active.holds.is_empty() {
        return Ok(());
    }
    let clock = if runs { "running" } else { "stopped" };
    Err(Violation::ClockAgainstHolds { rollout: rollout.id.clone(), clock, holds: active.holds.len() })
}

/// What is stamped on new sessions is the weight in force.
fn cohorts_carry_the_weights(
    rollout: &Rollout,
    active: &Active,
    before: Option<&PackState>,
    transition: &Transition,
) -> Result<(), Violation> {
    let known = before.map_or(0, |pack| pack.next_cohort.0);
    for (index, (stable, canary)) in active.cohorts.iter().enumerate() {
        let weight = rollout.weights().get(index).copied();
        for (id, version) in [(stable, &rollout.stable), (canary, &rollout.canary)] {
            let opened = transition.cohorts.iter().find(|cohort| cohort.id == *id);
            let is_right = match opened {
                Some(cohort) => {
                    let stamp = cohort.stamp.as_ref();
                    cohort.version == *version
                        && stamp.map(|stamp| stamp.weight) == weight
                        && stamp.map(|stamp| stamp.step) == Some(active.step)
                        && stamp.is_some_and(|stamp| stamp.rollout == rollout.id)
                }
                None => id.0 < known,
            };
            if !is_right {
                return Err(Violation::Cohort(*id));
            }
        }
    }
    if active.cohorts.len() == rollout.weights().len() {
        Ok(())
    } else {
        Err(Violation::Cohort(transition.pack.next_cohort))
    }
}

fn rollouts_end_for_good(before: &PackState, transition: &Transition) -> Result<(), Violation> {
    let after = &transition.pack;
    if after.attempts < before.attempts || after.attempts > before.attempts + 1 {
        return Err(Violation::Attempt { from: before.attempts, to: after.attempts });
    }
    let Some(old) = before.rollout.as_ref() else { return Ok(()) };
    let followed = after.attempts > before.attempts;
    // Where the old rollout is found after the transition.
    let now = match (followed, old.active()) {
        (false, _) => after.rollout.as_ref(),
        (true, Some(_)) => transition.superseded.as_ref(),
        // A rollout that is over gives way to the next one.
        (true, None) => return Ok(()),
    };
    let Some(now) = now.filter(|now| now.id == old.id) else {
        return Err(Violation::Vanished(old.id.clone()));
    };
    let Some(active) = old.active() else {
        return if now == old { Ok(()) } else { Err(Violation::EndedChanged(old.id.clone())) };
    };
    if now.revision != old.revision + 1 {
        let (from, to) = (old.revision, now.revision);
        return Err(Violation::RolloutRevision { rollout: old.id.clone(), from, to });
    }
    if !now.spans.starts_with(&old.spans) {
        return Err(Violation::HistoryRewritten(old.id.clone()));
    }
    match (now.active(), now.ended()) {
        (Some(later), _) => step_by_step(old, active, later),
        (None, Some(ended)) => {
            if ended.at < active.last_at {
                return Err(Violation::Backwards);
            }
            let failed = active.last_check.as_ref().is_some_and(|check| check.outcome == CheckOutcome::Fail);
            match &ended.how {
                End::Completed if failed => Err(Violation::ForwardOnFailure(old.id.clone())),
                End::Completed => Ok(()),
                End::RolledBack { .. } | End::Superseded { .. } => leaves_canary(old, now, transition),
            }
        }
        (None, None) => Err(Violation::Vanished(old.id.clone())),
    }
}

fn step_by_step(old: &Rollout, before: &Active, after: &Active) -> Result<(), Violation> {
    if after.last_at < before.last_at {
        return Err(Violation::Backwards);
    }
    if after.step == before.step {
        return Ok(());
    }
    if after.step != before.step + 1 {
        let (from, to) = (before.step, after.step);
        return Err(Violation::StepJump { rollout: old.id.clone(), from, to });
    }
    let failed = before.last_check.as_ref().is_some_and(|check| check.outcome == CheckOutcome::Fail);
    if failed { Err(Violation::ForwardOnFailure(old.id.clone())) } else { Ok(()) }
}

/// After a rollback or supersede the canary gets nobody new, and those it has are nobody's evidence.
fn leaves_canary(old: &Rollout, now: &Rollout, transition: &Transition) -> Result<(), Violation> {
    let after = &transition.pack;
    let is_rolled_back = matches!(now.ended().map(|ended| &ended.how), Some(End::RolledBack { .. }));
    let at_zero = now.weight() == Weight::ZERO && now.weights().is_empty();
    let stable_serves = after.stable == old.stable;
    let marked = transition.is_rollback == is_rolled_back;
    let restarted = after.active().is_some_and(|(rollout, _)| rollout.canary == old.canary);
    let base_is_fresh =
        transition.cohorts.iter().any(|cohort| cohort.id == after.base && cohort.version == after.stable);
    let superseded_at_once = !is_rolled_back && after.active().is_none();
    if at_zero && marked && (superseded_at_once || (stable_serves && (base_is_fresh || restarted))) {
        Ok(())
    } else {
        Err(Violation::RollbackLeavesCanary(old.id.clone()))
    }
}

/// The weights in force before and after differ only for a recorded reason.
fn weights_are_explained(before: &PackState, transition: &Transition) -> Result<(), Violation> {
    let in_force =
        |pack: &PackState| pack.active().map(|(rollout, _)| rollout.weights().to_vec()).unwrap_or_default();
    let (from, to) = (in_force(before), in_force(&transition.pack));
    if from == to {
        return Ok(());
    }
    let rises = to
        .iter()
        .enumerate()
        .any(|(index, weight)| *weight > from.get(index).copied().unwrap_or(Weight::ZERO));
    let (explaining, expected): (&[Action], &'static str) = if rises {
        (&[Action::StepEntered, Action::RolloutStarted, Action::WeightChanged], "step, start or window")
    } else {
        let ends = &[
            Action::RolledBack,
            Action::Superseded,
            Action::Completed,
            Action::WeightChanged,
            Action::RolloutStarted,
            Action::StepEntered,
        ];
        (ends, "end, step or window")
    };
    if has(transition, explaining) {
        Ok(())
    } else {
        Err(Violation::UnexplainedWeight { from, to, expected })
    }
}
