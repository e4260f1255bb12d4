//! The checks on transitions catch what they are there for.

mod state;

use serin_core::command::Command;
use serin_core::invariant::{Violation, check};
use serin_core::pack::Transition;
use serin_core::rollout::State;
use serin_core::weight::Weight;

use state::{Pack, changed};

/// What the check says of a command's transition after it was tampered with.
fn tampered(order: Command, tamper: impl FnOnce(&mut Transition)) -> Result<(), Violation> {
    let mut pack = Pack::with_stable("1.0.0");
    changed(pack.apply("2.0.0", "{}"));
    let mut transition = pack.prepared(order).expect("possible");
    assert_eq!(check(Some(pack.state()), &transition), Ok(()));
    tamper(&mut transition);
    check(Some(pack.state()), &transition)
}

#[test]
fn a_transition_that_skips_a_revision_is_caught() {
    let found = tampered(Command::Pause, |transition| transition.pack.revision += 1);
    assert!(matches!(found, Err(Violation::Revision { .. })), "{found:?}");
}

#[test]
fn a_weight_that_rises_without_a_recorded_step_is_caught() {
    let found = tampered(Command::Promote, |transition| transition.facts.truncate(1));
    assert_eq!(found, Ok(()), "from 10 % to 10 % nothing rises");
    let found = tampered(Command::Pause, |transition| {
        let Some(rollout) = transition.pack.rollout.as_mut() else { return };
        let mut span = rollout.spans[0].clone();
        span.weights = vec![Weight::FULL];
        rollout.spans.push(span);
    });
    assert!(matches!(found, Err(Violation::UnexplainedWeight { .. })), "{found:?}");
}

#[test]
fn a_rollback_that_leaves_the_canary_in_place_is_caught() {
    let found = tampered(Command::Rollback, |transition| {
        let canary = transition.pack.rollout.as_ref().map(|rollout| rollout.canary.clone());
        transition.cohorts.iter_mut().for_each(|cohort| cohort.version = canary.clone().expect("a canary"));
    });
    assert!(matches!(found, Err(Violation::RollbackLeavesCanary(_))), "{found:?}");
}

#[test]
fn a_step_that_is_skipped_and_a_clock_that_runs_on_hold_are_caught() {
    let active = |transition: &mut Transition, change: fn(&mut serin_core::rollout::Active)| {
        if let Some(State::Active(active)) =
            transition.pack.rollout.as_mut().map(|rollout| &mut rollout.state)
        {
            change(active);
        }
    };
    let found = tampered(Command::Pause, |transition| active(transition, |active| active.step = 3));
    assert!(matches!(found, Err(Violation::StepJump { .. })), "{found:?}");
    let found = tampered(Command::Pause, |transition| active(transition, |active| active.holds.clear()));
    assert!(matches!(found, Err(Violation::ClockAgainstHolds { .. })), "{found:?}");
}

#[test]
fn a_silent_transition_and_a_silent_change_of_stable_are_caught() {
    let found = tampered(Command::Pause, |transition| transition.facts.clear());
    assert_eq!(found, Err(Violation::Silent));
    let found = tampered(Command::PromoteFully, |transition| transition.facts.truncate(1));
    assert_eq!(found, Err(Violation::UnexplainedStable));
}
