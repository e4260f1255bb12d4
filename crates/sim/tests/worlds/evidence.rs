//! What counts as evidence: each session once, both variants, and the same bits after a restart.

use serin_core::analysis::{Analysis, GateState};
use serin_core::audit::Action;
use serin_core::command::Command;
use serin_core::rollout::{HoldCause, Phase};
use serin_core::routing::Variant::{Canary, Stable};
use serin_sim::{Truth, World};

use crate::support::{SUPPORT, healthy, manifest, minutes, seconds};

/// One gate that compares a metric with stable, read after some time.
fn compared(metric: &str, margin: &str, more: &str) -> String {
    let gate = format!("{{name: {metric}, compareTo: stable, maxRegression: {margin}{more}}}");
    manifest(&format!("{{analysis: {{metrics: [{gate}], onDegraded: notify}}}}"))
}

#[test]
fn a_session_key_that_returns_twenty_times_counts_once() {
    const USERS: u64 = 300;
    let rollout = "{analysis: {metrics: [{name: success_rate, compareTo: stable, maxRegression: 0.1pp}], \
         onDegraded: notify}, sessions: {idleTimeout: 10s, maxLifetime: 1m}}";
    let mut false_alarms = 0;
    for seed in 0..10 {
        let mut world = healthy(seed, 5.0).users(USERS);
        world.apply(&manifest(rollout)).expect("accepted");
        world.run_to(minutes(30));
        let assigned = world.served().sessions.clone();
        assert!(assigned.stable + assigned.canary > USERS * 15, "they come back: {assigned:?}");
        // Sessions are folded at two ages: responses, and outcomes at the idle timeout.
        assert!(world.n_folds() <= USERS * 2, "{} folds of {USERS} users", world.n_folds());
        false_alarms += u32::from(world.phase() == Phase::RolledBack);
    }
    assert_eq!(false_alarms, 0, "the same people again are no new evidence");
}

#[test]
fn data_of_the_canary_alone_are_no_comparison() {
    let mut world = healthy(61, 5.0);
    world.apply(&compared("latency_avg", "50ms", "")).expect("accepted");
    // From now on stable's requests bring no latency.
    world = world.truth(Stable, Truth::default().success(0.97));
    world.run_to(minutes(60));
    assert_eq!((world.weight().percent(), world.holds()), (10.0, vec![HoldCause::NoData]));
    assert!(world.facts(Action::RolledBack).is_empty());
    let check = world.last_check().expect("there were checks");
    assert_eq!(check.gates[0].state, GateState::NoData, "{:?}", check.gates);
}

#[test]
fn data_of_stable_alone_are_no_comparison() {
    let mut world = healthy(62, 5.0).truth(Canary, Truth::default().success(0.97));
    world.apply(&compared("latency_avg", "50ms", "")).expect("accepted");
    world.run_to(minutes(60));
    assert_eq!((world.weight().percent(), world.holds()), (10.0, vec![HoldCause::NoData]));
    let check = world.last_check().expect("there were checks");
    assert_eq!(check.gates[0].state, GateState::NoData, "{:?}", check.gates);
}

/// The canary asks twice as many people for a rating, and everyone is less happy than when stable was measured.
#[test]
fn ratings_with_unequal_response_rates_hold_instead_of_rolling_back() {
    let gate = compared("user_satisfaction_avg", "0.01", ", maturity: 10m");
    let ratings = |mean, share| Truth::healthy().satisfaction(mean, share);
    for seed in 0..4 {
        let mut world = World::new(seed)
            .stable("2.3.1")
            .truth(Stable, ratings(4.1, 0.1))
            .truth(Canary, ratings(3.9, 0.2))
            .traffic(10.0)
            .warmed_up(minutes(10));
        world.apply(&gate).expect("accepted");
        world = world.truth(Stable, ratings(3.9, 0.1));
        world.run_to(minutes(90));
        assert!(world.facts(Action::RolledBack).is_empty(), "seed {seed}");
        assert!(world.weight().percent() <= 20.0, "seed {seed}: held at {}", world.weight());
        assert_eq!(world.holds(), [HoldCause::AtRisk], "seed {seed}");
        let check = world.last_check().expect("there were checks");
        assert_eq!(check.gates[0].shown, "response rates differ", "seed {seed}");
    }

    let mut world = World::new(5)
        .stable("2.3.1")
        .truth(Stable, ratings(4.1, 0.2))
        .truth(Canary, ratings(3.6, 0.2))
        .traffic(10.0)
        .warmed_up(minutes(10));
    world.apply(&gate).expect("accepted");
    world.run_to(minutes(90));
    assert_eq!(world.phase(), Phase::RolledBack, "where equally many rate, worse ratings are proof");
}

/// A canary that is a little worse, on a way with everything that happens to rollouts.
fn eventful(restarts: bool) -> (Vec<Analysis>, World) {
    let stable = Truth::healthy().cost(0.01).satisfaction(4.2, 0.5);
    let mut world = World::new(63)
        .stable("2.3.1")
        .truth(Stable, stable)
        .truth(Canary, stable.success(0.955).cost(0.0104))
        .traffic(5.0)
        .warmed_up(minutes(10));
    world.apply(SUPPORT).expect("accepted");
    for quarter in 0..(55 * 4) {
        match quarter {
            50 => world.order(Command::Pause, "maria", "lunch").expect("can be paused"),
            70 => world.order(Command::Resume, "maria", "back").expect("can be resumed"),
            90 => world.order(Command::Promote, "omar", "looks good").expect("can be promoted"),
            _ => {}
        }
        if restarts {
            world.crash();
        }
        world.run_for(seconds(15));
    }
    (world.controller().checks().to_vec(), world)
}

#[test]
fn a_restart_at_any_point_leaves_the_evidence_exactly_as_it_was() {
    let (steady, world) = eventful(false);
    let (restarted, other) = eventful(true);
    assert!(steady.len() > 40, "{} checks", steady.len());
    let weights: Vec<f64> = world.served().weights.iter().map(|weight| weight.percent()).collect();
    assert!(weights.len() > 5, "the weight has changed: {weights:?}");
    for (steady, restarted) in steady.iter().zip(&restarted) {
        assert!(steady.log_e.ln() != 0.0 || steady.step == 0, "there is evidence to compare");
        let bits = |analysis: &Analysis| serde_json::to_string(analysis).expect("numbers and text");
        assert_eq!(bits(steady), bits(restarted), "check {}", steady.number);
        assert_eq!(steady.log_e.ln().to_bits(), restarted.log_e.ln().to_bits());
    }
    assert_eq!(steady, restarted);
    assert_eq!(world.audit(), other.audit());
}
