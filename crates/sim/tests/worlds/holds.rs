//! What keeps a rollout from advancing, and what clears it.

use serin_core::audit::Action;
use serin_core::command::{Command, Refused};
use serin_core::rollout::{HoldCause, Phase};
use serin_core::routing::Variant::{Canary, Stable};
use serin_sim::{Truth, World, simulate};

use crate::reference::{at, drop_to, scenario};
use crate::support::{SUPPORT, healthy, manifest, minutes, seconds};

#[test]
fn a_pause_stops_the_clock_of_the_step_and_checks_go_on() {
    let mut world = healthy(21, 5.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(12));
    world.order(Command::Pause, "maria", "lunch").expect("can be paused");
    assert!(matches!(world.order(Command::Pause, "maria", "more lunch"), Err(Refused::AlreadySo { .. })));
    let checks = world.controller().checks().len();
    world.run_for(minutes(60));
    assert_eq!((world.weight().percent(), world.holds()), (20.0, vec![HoldCause::Paused]));
    assert_eq!(world.controller().checks().len(), checks + 60, "one check a minute, also while held");
    world.order(Command::Resume, "maria", "back").expect("can be resumed");
    // Two of the five minutes had passed before the pause.
    world.run_for(minutes(3).minus(seconds(1)));
    assert_eq!(world.weight().percent(), 20.0);
    world.run_for(seconds(1));
    assert_eq!(world.weight().percent(), 30.0);
    assert!(matches!(world.order(Command::Resume, "maria", "again"), Err(Refused::AlreadySo { .. })));
}

#[test]
fn a_failing_canary_is_rolled_back_whatever_hold_is_set() {
    let bad = Truth::default().success(0.6);
    let mut world = healthy(22, 5.0).change(Canary, minutes(12), bad);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(11));
    world.order(Command::Pause, "maria", "wait").expect("can be paused");
    assert!(world.run_until(minutes(10), |world| world.phase() == Phase::RolledBack));
    assert_eq!(world.weight().percent(), 0.0);
}

#[test]
fn promote_passes_a_hold_for_lack_of_data_and_is_recorded() {
    let mut world = healthy(23, 0.2);
    world.set_traffic(5.0);
    world.run_for(minutes(5));
    world.set_traffic(0.05);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(15));
    assert_eq!((world.weight().percent(), world.holds()), (10.0, vec![HoldCause::NoData]));
    world.order(Command::Promote, "omar", "nobody is up at night").expect("can be promoted");
    assert_eq!((world.weight().percent(), world.holds()), (20.0, vec![]));
    let promoted = world.facts(Action::Promoted);
    assert_eq!((promoted.len(), promoted[0].actor.as_str()), (1, "omar"));
    assert_eq!(promoted[0].evidence["passed_holds"][0], "no_data");
    world.run_for(minutes(5));
    assert_eq!((world.weight().percent(), world.holds()), (20.0, vec![HoldCause::NoData]), "one step only");
}

#[test]
fn a_hold_says_how_far_it_has_come() {
    let mut world = healthy(23, 5.0);
    world.run_for(minutes(5));
    world.set_traffic(0.05);
    world.apply(SUPPORT).expect("accepted");
    let reason = |world: &World| {
        let (_, active) = world.controller().active().expect("under way");
        active.holds[&HoldCause::NoData].reason.clone()
    };
    world.run_to(minutes(15));
    let early = reason(&world);
    world.run_to(minutes(45));
    let (late, newest) = (reason(&world), world.controller().checks().last().expect("checks").clone());
    assert_ne!(early, late);
    assert_eq!(late, newest.holds[&HoldCause::NoData]);
    assert_eq!(world.facts(Action::HoldSet).len(), 1, "it is one hold all the time");
}

#[test]
fn promote_does_not_pass_a_failing_check() {
    // Three failed checks in a row are needed, so that one can stand in between.
    let rollout = "{analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '>='}], failureThreshold: 3}}";
    let mut world = healthy(24, 10.0).change(Canary, minutes(12), Truth::default().success(0.3));
    world.apply(&manifest(rollout)).expect("accepted");
    assert!(world.run_until(minutes(20), |world| !world.facts(Action::CheckFailed).is_empty()));
    let weight = world.weight();
    for promote in [Command::Promote, Command::PromoteFully] {
        assert!(matches!(world.order(promote, "omar", "ship it"), Err(Refused::CheckFails(_))));
    }
    assert_eq!(world.weight(), weight);
    world.run_for(minutes(2));
    assert_eq!(world.phase(), Phase::RolledBack);
    assert_eq!(world.facts(Action::CheckFailed).len(), 3);
}

#[test]
fn promote_full_makes_the_canary_stable_at_once() {
    let mut world = healthy(25, 2.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(7));
    world.order(Command::PromoteFully, "omar", "urgent fix").expect("can be promoted");
    assert_eq!((world.phase(), world.weight().percent()), (Phase::Completed, 100.0));
    assert_eq!(world.pack().stable.to_string(), "2.4.0");
}

#[test]
fn a_metric_that_is_no_gate_and_proven_worse_holds_until_a_person_passes_it() {
    let stable = Truth::healthy().cost(0.010);
    let mut world = World::new(26)
        .stable("2.3.1")
        .truth(Stable, stable)
        .truth(Canary, stable.cost(0.013))
        .traffic(5.0)
        .warmed_up(minutes(10));
    world.apply(SUPPORT).expect("accepted");
    assert!(world.run_until(minutes(40), |world| world.holds().contains(&HoldCause::Degraded)));
    let weight = world.weight();
    world.run_for(minutes(20));
    assert_eq!((world.weight(), world.phase()), (weight, Phase::Progressing), "held, not rolled back");
    world.order(Command::Promote, "omar", "the better model costs more").expect("can be promoted");
    assert!(world.weight() > weight);
    assert_eq!(world.holds(), [], "a metric that a person has passed holds no more");
    assert!(world.run_until(minutes(60), |world| world.phase() == Phase::Completed));
    let holds = world.facts(Action::HoldSet);
    assert_eq!(holds.len(), 1, "{holds:?}");
}

#[test]
fn with_on_degraded_rollback_such_a_metric_rolls_back() {
    let stable = Truth::healthy().cost(0.010);
    let mut world = World::new(27)
        .stable("2.3.1")
        .truth(Stable, stable)
        .truth(Canary, stable.cost(0.013))
        .traffic(5.0)
        .warmed_up(minutes(10));
    let gate = "{name: success_rate, threshold: 90%, comparison: '>='}";
    world
        .apply(&manifest(&format!("{{analysis: {{metrics: [{gate}], onDegraded: rollback}}}}")))
        .expect("accepted");
    assert!(world.run_until(minutes(40), |world| world.phase() == Phase::RolledBack));
    let told = world.facts(Action::RolledBack);
    assert!(told[0].reason.contains("cost_avg"), "{}", told[0].reason);
}

#[test]
fn an_outage_that_hits_both_holds_and_then_the_rollout_goes_on() {
    for seed in 30..36 {
        let outage = Truth::default().success(0.3);
        let mut world = healthy(seed, 5.0)
            .change(Stable, minutes(12), outage)
            .change(Canary, minutes(12), outage)
            .change(Stable, minutes(15), Truth::default().success(0.97))
            .change(Canary, minutes(15), Truth::default().success(0.97));
        world.apply(SUPPORT).expect("accepted");
        world.run_to(minutes(120));
        assert_eq!(
            world.phase(),
            Phase::Completed,
            "seed {seed}: {:?}",
            world.last_check().map(|c| c.summary())
        );
    }
}

#[test]
fn at_full_weight_a_failing_gate_that_stable_passed_rolls_back() {
    let mut world = healthy(37, 5.0).change(Canary, minutes(41), Truth::default().success(0.5));
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(40));
    assert_eq!(world.weight().percent(), 100.0);
    assert!(world.run_until(minutes(6), |world| world.phase() == Phase::RolledBack), "{:?}", world.holds());
}

#[test]
fn a_step_that_asks_for_approval_waits_for_it() {
    let rollout = "{steps: [{weight: 10%, hold: 5m}, {weight: 50%, hold: 5m, approval: true}, {weight: 100%, hold: 5m}]}";
    let mut world = healthy(38, 5.0);
    world.apply(&manifest(rollout)).expect("accepted");
    world.run_to(minutes(25));
    assert_eq!((world.weight().percent(), world.holds()), (50.0, vec![HoldCause::ApprovalDue]));
    world.order(Command::Approve, "maria", "read ten samples").expect("can be approved");
    assert_eq!((world.weight().percent(), world.holds()), (100.0, vec![]));
    assert_eq!(world.facts(Action::Approved)[0].reason, "read ten samples");
}

#[test]
fn at_risk_holds_at_the_end_of_the_step_and_lets_go_when_the_gate_is_right_again() {
    // 84 % against a gate of 90 %: wrong, and too little to be proven at once.
    let mut world = healthy(39, 3.0).change(Canary, minutes(5), Truth::default().success(0.84)).change(
        Canary,
        minutes(13),
        Truth::default().success(0.99),
    );
    let gate = "{name: success_rate, threshold: 90%, comparison: '>='}";
    world
        .apply(&manifest(&format!("{{analysis: {{metrics: [{gate}], onDegraded: notify}}}}")))
        .expect("accepted");
    world.run_to(minutes(12));
    assert_eq!((world.weight().percent(), world.holds()), (10.0, vec![HoldCause::AtRisk]));
    assert!(world.run_until(minutes(40), |world| world.weight().percent() > 10.0), "{:?}", world.holds());
}

#[test]
fn a_canary_whose_sessions_get_lost_holds_for_a_sample_ratio_mismatch() {
    let mut world = healthy(40, 10.0).change(Canary, minutes(5), Truth::default().lost(0.5));
    world.apply(SUPPORT).expect("accepted");
    assert!(
        world.run_until(minutes(20), |world| world.holds().contains(&HoldCause::SampleRatio)),
        "{:?}",
        world.holds()
    );
    world.run_for(minutes(30));
    assert_ne!(world.phase(), Phase::RolledBack, "it holds and tells, and does not roll back");
    assert!(world.weight().percent() <= 30.0);
}

/// What is left of the sessions looks as good as ever, so that no metric is to blame; only their number is off.
#[test]
fn sessions_lost_on_one_side_hold_for_their_number_and_make_no_metric_look_worse() {
    let scenario = scenario(include_str!("../../../../examples/scenarios/lost-sessions.yaml"));
    let report = simulate(SUPPORT, &scenario, 20, 1).expect("accepted");
    let held = |cause| report.held.get(&cause).copied().unwrap_or(0);
    assert_eq!(held(HoldCause::SampleRatio), 20, "{report:#?}");
    // Of metrics that are as they were, chance may prove one worse in 1 rollout of 20.
    assert!(held(HoldCause::Degraded) <= 2, "{report:#?}");
    assert_eq!((report.completed.count, report.rolled_back.count), (0, 0), "{report:#?}");
}

/// What `serin lint` says about narrow margins.
#[test]
fn a_margin_next_to_nothing_holds_half_of_all_equal_versions() {
    let unfinished = |margin: &str| {
        let rollout = format!(
            "{{analysis: {{metrics: [{{name: success_rate, compareTo: stable, maxRegression: {margin}}}]}}}}"
        );
        let report = simulate(&manifest(&rollout), &at(1.0, drop_to(0.94, 0)), 60, 1).expect("accepted");
        report.unfinished.share
    };
    let narrow = unfinished("0.001pp");
    assert!((0.35..0.65).contains(&narrow), "{narrow}");
    assert_eq!(unfinished("3pp"), 0.0);
}
