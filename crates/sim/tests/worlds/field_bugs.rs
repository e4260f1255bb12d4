//! What went wrong elsewhere, each as a test with the number that FIELD gives it.

use serin_core::audit::Action;
use serin_core::command::{Command, Refused};
use serin_core::publish;
use serin_core::rollout::{HoldCause, Phase};
use serin_core::routing::Variant::Canary;
use serin_core::units::HoldFor;
use serin_sim::{Applied, ApplyError, Truth, World};

use crate::support::{SUPPORT, busy, healthy, manifest, minutes, seconds, support};

fn steps_entered(world: &World) -> usize {
    world.facts(Action::StepEntered).len()
}

#[test]
fn bug_01_zero_samples_never_promotes() {
    let mut world = busy(1, 2.0);
    world.set_traffic(0.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(6 * 60));
    assert_eq!((world.weight().percent(), world.phase()), (10.0, Phase::Progressing));
    assert_eq!(world.holds(), [HoldCause::NoData]);
    assert_eq!(steps_entered(&world), 1, "Observing ends by time, nothing else does");
    world.run_to(minutes(9 * 60));
    assert!(
        world.holds().contains(&HoldCause::Deadline),
        "a person is told after ten times the planned length"
    );
}

#[test]
fn bug_01_without_a_single_session_not_even_observing_ends() {
    let mut world = World::new(1).stable("2.3.1");
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(4 * 60));
    assert_eq!((world.phase(), world.holds()), (Phase::Observing, vec![HoldCause::NoBaseline]));
}

#[test]
fn bug_01_a_canary_that_nobody_hears_of_never_promotes() {
    let mut world = busy(2, 2.0).truth(Canary, Truth::default());
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(60));
    let holds = [HoldCause::NoData, HoldCause::SampleRatio];
    assert_eq!((world.weight().percent(), world.holds()), (10.0, holds.to_vec()));
}

#[test]
fn bug_03_a_metric_that_arrives_later_than_the_step_lasts_holds_it_and_then_lets_it_go_on() {
    let gate = "{name: task_completion_rate, threshold: 80%, comparison: '>=', maturity: 90m}";
    let rollout = format!("{{stepInterval: 5m, analysis: {{metrics: [{gate}]}}}}");
    let truth = Truth::healthy().completion(0.9);
    let mut world = World::new(3)
        .stable("2.3.1")
        .truth(serin_core::routing::Variant::Stable, truth)
        .truth(Canary, truth)
        .traffic(1.0)
        .warmed_up(minutes(10));
    world.apply(&manifest(&rollout)).expect("accepted");
    world.run_to(minutes(94));
    assert_eq!(
        (world.weight().percent(), world.holds()),
        (10.0, vec![HoldCause::NoData]),
        "nothing has matured"
    );
    world.run_to(minutes(94 + 16));
    assert_eq!(world.weight().percent(), 20.0, "thirty sessions of the step have matured");
    assert!(world.facts(Action::RolledBack).is_empty());
}

#[test]
fn bug_06_rollback_wins_over_a_promote_and_is_refused_when_idle() {
    let mut world = healthy(6, 2.0);
    let before = world.pack().clone();
    let refused = world.order(Command::Rollback, "maria", "why not").expect_err("nothing to roll back to");
    assert_eq!(refused, Refused::NothingBefore("support-prompts".to_owned()));
    assert_eq!(*world.pack(), before, "nothing changes");

    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(7));
    world.order(Command::Promote, "omar", "looks good").expect("can be promoted");
    world.order(Command::Rollback, "maria", "it does not").expect("can be rolled back");
    assert_eq!((world.phase(), world.weight().percent()), (Phase::RolledBack, 0.0));
    let before = world.pack().clone();
    for late in [Command::Promote, Command::PromoteFully, Command::Resume, Command::Pause, Command::Approve] {
        assert!(matches!(world.order(late, "omar", "late"), Err(Refused::Idle { .. })), "{late:?}");
    }
    assert!(world.order(Command::Rollback, "maria", "again").is_err());
    world.run_for(minutes(30));
    assert_eq!(*world.pack(), before, "nothing changes");
}

#[test]
fn bug_07_after_a_crash_at_any_point_the_rollout_goes_on_as_if_nothing_had_happened() {
    let mut steady = healthy(7, 2.0);
    let mut crashing = healthy(7, 2.0);
    for world in [&mut steady, &mut crashing] {
        world.apply(SUPPORT).expect("accepted");
    }
    for _ in 0..(50 * 4) {
        crashing.crash();
        let weight = crashing.weight();
        crashing.crash();
        assert_eq!(crashing.weight(), weight, "a restart alone changes no weight");
        crashing.run_for(seconds(15));
        steady.run_for(seconds(15));
        assert_eq!(crashing.pack(), steady.pack());
    }
    assert_eq!(crashing.audit(), steady.audit());
    assert_eq!(crashing.phase(), Phase::Completed);
}

#[test]
fn bug_11_editing_the_manifest_during_a_rollout_never_jumps_to_100_percent() {
    let mut world = healthy(11, 2.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(12));
    let before = world.pack().clone();
    let edited = SUPPORT.replace("stepWeight: 10", "stepWeight: 90");
    let refused = world.apply(&edited).expect_err("a plan under way is not changed");
    let ApplyError::Refused(refused) = refused else { panic!("{refused}") };
    assert!(matches!(refused, publish::Refused::PlanDiffers(_)));
    assert!(refused.hint().contains("--restart"), "{}", refused.hint());
    assert_eq!(*world.pack(), before, "nothing changes");

    world.restart(&edited).expect("restarted on request");
    assert_eq!((world.weight().percent(), world.phase()), (10.0, Phase::Observing), "from step 0");
    let rollout = world.controller().rollout().expect("a rollout");
    assert_eq!(rollout.id.as_str(), "support-prompts-r2");
    assert_ne!(rollout.salt, world.controller().ended()[0].salt);
    world.run_to(minutes(9));
    assert_eq!(world.weight().percent(), 10.0);
}

#[test]
fn bug_12_a_new_version_during_a_rollout_supersedes_it_visibly() {
    let mut world = healthy(12, 5.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(22));
    let on_old = (0..20_000).find(|user| world.version_of(*user).to_string() == "2.4.0");
    let user = on_old.expect("40 % of the users got it");
    world.apply(&support("2.5.0")).expect("accepted");

    let old = world.controller().ended().last().expect("the old rollout is kept").clone();
    assert_eq!(old.canary.to_string(), "2.4.0");
    assert_eq!(old.phase(world.controller().plan().expect("a plan")), Phase::Superseded);
    let told = world.facts(Action::Superseded);
    assert_eq!((told.len(), told[0].rollout.as_ref()), (1, Some(&old.id)));
    assert_eq!(told[0].evidence["by"], "2.5.0");
    assert_eq!((world.weight().percent(), world.phase()), (10.0, Phase::Observing));
    assert_eq!(world.version_of(user).to_string(), "2.3.1", "sessions of the old canary return to stable");
    assert_eq!(world.pack().stable.to_string(), "2.3.1");
    world.run_to(minutes(45));
    assert_eq!(world.pack().stable.to_string(), "2.5.0");
}

#[test]
fn bug_13_the_same_version_can_be_tried_again_after_a_rollback_on_request_only() {
    let mut world = healthy(13, 2.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(8));
    world.order(Command::Rollback, "maria", "a hunch").expect("can be rolled back");
    let before = world.pack().clone();
    let Applied::Unchanged(why) = world.apply(SUPPORT).expect("accepted") else { panic!("it started again") };
    assert!(why.contains("serin retry support-prompts"), "{why}");
    world.run_for(minutes(30));
    assert_eq!(*world.pack(), before, "nothing changes");

    world.order(Command::Retry, "maria", "it was the network").expect("can be tried again");
    let rollout = world.controller().rollout().expect("a rollout");
    assert_eq!(rollout.id.as_str(), "support-prompts-r2");
    assert_eq!((world.weight().percent(), world.phase()), (10.0, Phase::Observing));
    world.run_to(minutes(45));
    assert_eq!(world.phase(), Phase::Completed);
}

#[test]
fn bug_14_a_clock_that_steps_back_neither_hurries_nor_rewinds_the_rollout() {
    let mut world = healthy(14, 5.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(12));
    let (weight, revision) = (world.weight(), world.pack().revision);
    world.set_clock_back(minutes(4));
    world.run_to(minutes(15));
    assert_eq!(
        (world.weight(), world.pack().revision),
        (weight, revision),
        "it waits for the clock to catch up"
    );
    let last_at = |world: &World| world.controller().active().map(|(_, active)| active.last_at);
    let before = last_at(&world);
    world.run_to(minutes(19).minus(seconds(1)));
    assert_eq!(world.weight(), weight);
    assert!(last_at(&world) >= before);
    world.run_to(minutes(19));
    assert_eq!(world.weight().percent(), 30.0, "four minutes later, by the world's clock");
    world.run_to(minutes(49));
    assert_eq!(world.phase(), Phase::Completed);
}

#[test]
fn bug_14_half_an_hour_that_nobody_watched_does_not_count() {
    let mut world = healthy(15, 5.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(12));
    world.stop_watching();
    world.run_to(minutes(42));
    world.watch_again();
    world.run_for(HoldFor::ZERO);
    assert_eq!(world.weight().percent(), 20.0, "back after 30 minutes, and no step is entered");
    let told = world.facts(Action::Unobserved);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].evidence["gap_ms"], 30 * 60_000);
    // Two minutes of the step had passed before the gap, and one interval of the gap counts.
    world.run_to(minutes(44).minus(seconds(1)));
    assert_eq!(world.weight().percent(), 20.0);
    world.run_to(minutes(44));
    assert_eq!(world.weight().percent(), 30.0);
}

#[test]
fn bug_20_a_value_of_the_run_before_never_passes_the_gate_of_the_next() {
    let mut world = healthy(20, 5.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(14));
    let samples = world.last_check().map(|check| check.step_sessions).unwrap_or(0);
    assert!(samples > 100, "the first run has plenty of good values: {samples}");
    world.order(Command::Rollback, "maria", "stop").expect("can be rolled back");
    // Nobody new comes; whoever is still there goes on.
    world.set_traffic(0.0);
    world.order(Command::Retry, "maria", "again").expect("can be tried again");
    world.run_for(minutes(60));
    assert_eq!((world.weight().percent(), world.holds()), (10.0, vec![HoldCause::NoData]));
    let check = world.last_check().expect("there were checks");
    assert_eq!(check.step_sessions, 0);
    assert!(check.gates.iter().all(|gate| gate.samples == 0 && gate.value.is_none()), "{:?}", check.gates);
}
