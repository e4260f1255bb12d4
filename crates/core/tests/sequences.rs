//! Any sequence of commands, manifests, checks and clock readings keeps what must always hold.

mod state;

use proptest::prelude::*;
use serin_core::audit::Action;
use serin_core::command::Command;
use serin_core::rollout::State;
use serin_core::weight::Weight;

use state::Pack;
use state::seen::{Seen, evidence};

/// Short steps, a gate, an approval and a failure threshold, so that every kind of transition is near.
const ROLLOUT: &str = "{steps: [{weight: 10%, hold: 2m}, {weight: 30%, hold: 2m, approval: true}, \
    {weight: 60%, hold: 2m}, {weight: 100%, hold: 2m}], \
    analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '>='}], failureThreshold: 2}}";

#[derive(Debug, Clone)]
enum Deed {
    Order(Command),
    Apply(u8, bool),
    /// Lets seconds pass (or steps the clock back) and ticks to the end on what was seen.
    Watch {
        seconds: i64,
        seen: Seen,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    let order = prop::sample::select(vec![
        Command::Pause,
        Command::Resume,
        Command::Approve,
        Command::Promote,
        Command::PromoteFully,
        Command::Rollback,
        Command::Retry,
    ]);
    let seen = prop_oneof![
        1 => Just(Seen::Nothing),
        8 => Just(Seen::Good),
        1 => Just(Seen::Bad),
        1 => Just(Seen::BadOnBoth)
    ];
    let seconds = prop_oneof![12 => 20_i64..150, 1 => -300_i64..0, 1 => 1_000_i64..4_000];
    prop_oneof![
        2 => order.prop_map(Deed::Order),
        1 => (1_u8..5, any::<bool>()).prop_map(|(version, restart)| Deed::Apply(version, restart)),
        10 => (seconds, seen).prop_map(|(seconds, seen)| Deed::Watch { seconds, seen }),
    ]
}

/// Does a deed; every transition on the way is checked where it is committed.
fn perform(pack: &mut Pack, deed: &Deed) {
    match deed {
        Deed::Order(order) => {
            let before = pack.state().clone();
            let is_active = before.active().is_some();
            match (order, pack.order(*order)) {
                (Command::Rollback, done) if is_active => {
                    assert!(done.is_ok(), "a rollback is always possible");
                    assert_eq!(pack.rollout().weight(), Weight::ZERO, "in one transition");
                    assert_eq!(pack.state().stable, before.stable);
                }
                (_, Ok(())) => {}
                (_, Err(_)) => assert_eq!(*pack.state(), before, "a refused command changes nothing"),
            }
        }
        Deed::Apply(version, restart) => {
            let (before, version) = (pack.state().clone(), format!("{version}.0.0"));
            let done = if *restart { pack.restart(&version, ROLLOUT) } else { pack.apply(&version, ROLLOUT) };
            if done.is_err() {
                assert_eq!(*pack.state(), before, "a refused manifest changes nothing");
            }
        }
        Deed::Watch { seconds, seen } => {
            pack.wait(*seconds);
            let mut rounds = 0;
            while pack.tick(&evidence(pack, *seen, 200)) {
                rounds += 1;
                assert!(rounds < 20, "the state machine does not come to rest");
            }
        }
    }
}

/// A weight is in force only because the audit log says that its step was entered.
fn weight_is_explained(pack: &Pack) {
    let Some((rollout, active)) = pack.state().active() else { return };
    let entered = pack.facts.iter().rev().find(|fact| {
        fact.rollout.as_ref() == Some(&rollout.id)
            && [Action::StepEntered, Action::RolloutStarted].contains(&fact.action)
    });
    let entered = entered.expect("the start of a rollout is a fact");
    assert_eq!(entered.evidence["weights_percent"][0].as_f64(), Some(rollout.weight().percent()));
    match entered.action {
        Action::StepEntered => assert_eq!(entered.evidence["step"], active.step),
        _ => assert_eq!(active.step, 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_deeds_keeps_the_invariants(deeds in prop::collection::vec(deed(), 1..60)) {
        let mut pack = Pack::with_stable("1.0.0");
        for deed in &deeds {
            let before = pack.state().clone();
            perform(&mut pack, deed);
            weight_is_explained(&pack);
            let is_same = before.rollout.as_ref().map(|old| &old.id) == pack.state().rollout.as_ref().map(|new| &new.id);
            if let Some(old) = &before.rollout && is_same && matches!(old.state, State::Ended(_)) {
                prop_assert_eq!(Some(old), pack.state().rollout.as_ref(), "what is over is over");
            }
        }
    }
}

#[test]
fn sequences_reach_every_kind_of_fact() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen: Vec<Action> = Vec::new();
    for _ in 0..300 {
        let deeds =
            prop::collection::vec(deed(), 40).new_tree(&mut runner).expect("a list of deeds").current();
        let mut pack = Pack::with_stable("1.0.0");
        for deed in &deeds {
            perform(&mut pack, deed);
        }
        for action in pack.actions() {
            if !seen.contains(&action) {
                seen.push(action);
            }
        }
    }
    for action in [
        Action::StepEntered,
        Action::BaselineFrozen,
        Action::CheckFailed,
        Action::HoldSet,
        Action::HoldCleared,
        Action::Approved,
        Action::Promoted,
        Action::Unobserved,
        Action::Completed,
        Action::RolledBack,
        Action::Superseded,
    ] {
        assert!(seen.contains(&action), "{action} never happens");
    }
}
