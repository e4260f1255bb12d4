//! Segments and windows of the day with real assignments, and what went wrong elsewhere with both.

use serin_core::audit::Action;
use serin_core::command::Command;
use serin_core::publish;
use serin_core::rollout::{HoldCause, Phase};
use serin_core::routing::Variant::{Canary, Stable};
use serin_core::units::{HoldFor, Timestamp};
use serin_sim::{Applied, ApplyError, Habits, Truth, World};

use crate::support::{healthy, manifest, minutes, seconds};

const FULL: &str = include_str!("../../../../examples/full.yaml");

const fn hours(n: u64) -> HoldFor {
    HoldFor::from_hours(n)
}

/// The weights in force, by segment, in percent.
fn weights(world: &World) -> Vec<f64> {
    let rollout = world.controller().rollout().expect("a rollout has begun");
    rollout.weights().iter().map(|weight| weight.percent()).collect()
}

/// Runs for a while; the share of the canary, in percent, among the new sessions of each segment in that time.
fn shares_of(world: &mut World, length: HoldFor) -> Vec<f64> {
    let before = world.served().segments.clone();
    world.run_for(length);
    let share = |segment: usize| {
        let now = world.served().segments.get(&segment).cloned().unwrap_or_default();
        let then = before.get(&segment).cloned().unwrap_or_default();
        let (canary, stable) = (now.canary - then.canary, now.stable - then.stable);
        canary as f64 / (canary + stable).max(1) as f64 * 100.0
    };
    (0..3).map(share).collect()
}

/// Asserts that measured shares are the set ones within so many points.
fn assert_near(measured: &[f64], set: &[f64], points: f64) {
    let near = measured.iter().zip(set).all(|(measured, set)| (measured - set).abs() <= points);
    assert!(near, "measured {measured:?} where {set:?} is set");
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a point in time")
}

/// Runs to a point in time by the wall clock.
fn run_to_clock(world: &mut World, time: &str) {
    let time = at(time);
    world.run_for(HoldFor::between(world.now(), time));
    assert_eq!(world.now(), time);
}

#[test]
fn the_full_manifest_takes_staff_then_beta_then_everyone_by_the_windows_of_the_day() {
    let mut world = healthy(41, 0.4).segment_shares(&[0.05, 0.15]);
    world.apply(FULL).expect("it applies as it stands");
    assert_eq!(world.now(), at("2030-01-01T00:10:00Z"));
    assert_eq!((weights(&world), world.phase()), (vec![100.0, 0.0, 0.0], Phase::Observing));

    run_to_clock(&mut world, "2030-01-01T00:15:00Z");
    assert_eq!((weights(&world), world.phase()), (vec![100.0, 0.0, 0.0], Phase::Progressing));
    assert_near(&shares_of(&mut world, hours(24).minus(seconds(1))), &[100.0, 0.0, 0.0], 0.0);
    assert_eq!(weights(&world), [100.0, 0.0, 0.0], "24 h are not over");
    run_to_clock(&mut world, "2030-01-02T00:15:00Z");
    assert_eq!(weights(&world), [100.0, 50.0, 0.0]);
    assert_near(&shares_of(&mut world, hours(12).minus(seconds(1))), &[100.0, 50.0, 0.0], 3.0);

    run_to_clock(&mut world, "2030-01-02T12:15:00Z");
    assert_eq!(weights(&world), [100.0, 50.0, 10.0], "06:00-18:00");
    assert_near(&shares_of(&mut world, hours(5)), &[100.0, 50.0, 10.0], 3.5);
    run_to_clock(&mut world, "2030-01-02T18:00:00Z");
    assert_eq!(weights(&world), [100.0, 50.0, 30.0], "18:00-02:00");
    assert_near(&shares_of(&mut world, hours(7)), &[100.0, 50.0, 30.0], 3.5);
    run_to_clock(&mut world, "2030-01-03T02:00:00Z");
    assert_eq!(weights(&world), [100.0, 50.0, 50.0], "02:00-06:00");
    assert_near(&shares_of(&mut world, hours(3)), &[100.0, 50.0, 50.0], 4.5);
    run_to_clock(&mut world, "2030-01-03T06:00:00Z");
    assert_eq!(weights(&world), [100.0, 50.0, 10.0]);

    run_to_clock(&mut world, "2030-01-03T20:00:00Z");
    assert_eq!(
        (weights(&world), world.phase()),
        (vec![100.0, 50.0, 30.0], Phase::Progressing),
        "24 h are over"
    );
    assert!(world.holds().is_empty(), "it waits for the window of the highest weight: {:?}", world.holds());
    world.set_traffic(2.0);
    run_to_clock(&mut world, "2030-01-04T01:59:59Z");
    assert_eq!(world.phase(), Phase::Progressing);
    for (time, weight) in [("02:00", 50.0), ("02:05", 70.0), ("02:10", 90.0), ("02:15", 100.0)] {
        run_to_clock(&mut world, &format!("2030-01-04T{time}:00Z"));
        let expected = vec![100.0, f64::max(50.0, weight), weight];
        assert_eq!(
            (weights(&world), world.phase()),
            (expected, Phase::Completing),
            "at {time}: {:?}",
            world.holds()
        );
    }
    run_to_clock(&mut world, "2030-01-04T02:20:00Z");
    assert_eq!(world.phase(), Phase::Completed);
    assert_eq!(world.pack().stable.to_string(), "2.4.0");
    assert!(world.facts(Action::HoldSet).is_empty(), "{:?}", world.facts(Action::HoldSet));
    assert_eq!(world.facts(Action::WeightChanged).len(), 4);
}

/// Two segments and windows that change at 06:00 and 12:00.
fn by_windows(rollout: &str) -> String {
    manifest(&format!(
        "{{canaryWeight: 10, stepInterval: 5m, {rollout} segments: [{{name: staff, weight: 50%, duration: 30m}}, {{name: all, weight: progressive}}], \
         schedule: [{{window: '00:00-06:00 UTC', canaryWeight: 10}}, {{window: '06:00-12:00 UTC', canaryWeight: 30}}, {{window: '12:00-00:00 UTC', canaryWeight: 20}}], \
         analysis: {{metrics: [{{name: success_rate, threshold: 90%, comparison: '>='}}], interval: 5m}}}}"
    ))
}

#[test]
fn bug_04_with_segments_and_windows_the_split_of_sessions_and_requests_is_the_set_weight() {
    let habits = Habits { requests_mean: 4.0, pause: HoldFor::from_secs(120), ..Habits::default() };
    let mut world = healthy(4, 1.0).habits(habits).segment_shares(&[0.2]);
    world.apply(&by_windows("")).expect("accepted");
    run_to_clock(&mut world, "2030-01-01T06:30:00Z");
    for _ in 0..5 {
        let shares = shares_of(&mut world, hours(1));
        assert_near(&shares[..2], &[50.0, 30.0], 6.0);
    }
    let sessions = world.served().sessions.clone();
    let requests = world.served().requests.clone();
    let share = |canary: u64, stable: u64| canary as f64 / (canary + stable) as f64;
    let (of_sessions, of_requests) =
        (share(sessions.canary, sessions.stable), share(requests.canary, requests.stable));
    assert!((of_sessions - of_requests).abs() < 0.02, "{of_sessions} of sessions, {of_requests} of requests");
}

#[test]
fn bug_05_a_window_that_raises_the_weight_moves_no_session_that_is_pinned() {
    let mut world = healthy(5, 0.5).segment_shares(&[0.2]);
    world.apply(&by_windows("")).expect("accepted");
    run_to_clock(&mut world, "2030-01-01T05:50:00Z");
    let before: Vec<String> = (1_000_000..1_003_000).map(|user| world.version_of(user).to_string()).collect();
    assert!(before.iter().any(|version| version == "2.4.0"));
    run_to_clock(&mut world, "2030-01-01T06:05:00Z");
    assert_eq!(weights(&world), [50.0, 30.0]);
    let after: Vec<String> = (1_000_000..1_003_000).map(|user| world.version_of(user).to_string()).collect();
    assert_eq!(after, before);
}

#[test]
fn bug_11_editing_segments_or_windows_during_a_rollout_is_refused_and_a_restart_begins_at_step_0() {
    let mut world = healthy(11, 0.5).segment_shares(&[0.2]);
    world.apply(&by_windows("")).expect("accepted");
    run_to_clock(&mut world, "2030-01-01T07:00:00Z");
    assert_eq!(weights(&world), [50.0, 30.0]);
    let before = world.pack().clone();
    for edited in [
        by_windows("").replace("canaryWeight: 30", "canaryWeight: 90"),
        by_windows("").replace("weight: 50%", "weight: 100%"),
    ] {
        let refused = world.apply(&edited).expect_err("a plan under way is not changed");
        assert!(matches!(refused, ApplyError::Refused(publish::Refused::PlanDiffers(_))), "{refused}");
        assert_eq!(*world.pack(), before, "nothing changes");
    }
    world.restart(&by_windows("").replace("weight: 50%", "weight: 40%")).expect("restarted on request");
    assert_eq!(
        (weights(&world), world.phase()),
        (vec![40.0, 0.0], Phase::Observing),
        "the first stage again"
    );
}

#[test]
fn bug_12_a_new_version_supersedes_a_rollout_in_the_middle_of_a_window() {
    let mut world = healthy(12, 0.5).segment_shares(&[0.2]);
    world.apply(&by_windows("")).expect("accepted");
    run_to_clock(&mut world, "2030-01-01T07:00:00Z");
    let user = (0..9_000).find(|user| world.version_of(*user).to_string() == "2.4.0").expect("some have it");
    world.apply(&by_windows("").replace("2.4.0", "2.5.0")).expect("accepted");
    assert_eq!(world.facts(Action::Superseded).len(), 1);
    assert_eq!((weights(&world), world.phase()), (vec![50.0, 0.0], Phase::Observing));
    assert_eq!(world.version_of(user).to_string(), "2.3.1", "sessions of the old canary return to stable");
}

#[test]
fn bug_13_after_a_rollback_segments_and_windows_start_again_on_request_only() {
    let mut world = healthy(13, 0.5).segment_shares(&[0.2]);
    world.apply(&by_windows("")).expect("accepted");
    run_to_clock(&mut world, "2030-01-01T02:00:00Z");
    world.order(Command::Rollback, "maria", "a hunch").expect("can be rolled back");
    assert_eq!((weights(&world), world.weight().percent()), (vec![], 0.0));
    let before = world.pack().clone();
    assert!(matches!(world.apply(&by_windows("")).expect("accepted"), Applied::Unchanged(_)));
    run_to_clock(&mut world, "2030-01-01T06:30:00Z");
    assert_eq!(*world.pack(), before, "no window starts it again");
    world.order(Command::Retry, "maria", "it was the network").expect("can be tried again");
    assert_eq!((weights(&world), world.phase()), (vec![50.0, 0.0], Phase::Observing));
}

#[test]
fn bug_14_a_clock_that_steps_back_over_a_border_neither_rewinds_nor_repeats_the_change() {
    let mut world = healthy(14, 0.5).segment_shares(&[0.2]);
    world.apply(&by_windows("")).expect("accepted");
    run_to_clock(&mut world, "2030-01-01T06:02:00Z");
    assert_eq!(weights(&world), [50.0, 30.0]);
    world.set_clock_back(minutes(10));
    for _ in 0..20 {
        world.run_for(minutes(1));
        assert_eq!(weights(&world), [50.0, 30.0], "the weight of 06:00 stays in force");
    }
    let changes: Vec<String> =
        world.facts(Action::WeightChanged).iter().map(|fact| fact.at.to_string()).collect();
    assert_eq!(changes, ["2030-01-01T06:00:00Z"]);
}

#[test]
fn bug_14_a_border_that_passes_while_nobody_watches_is_followed_after_one_fresh_check() {
    let mut world = healthy(15, 0.5).segment_shares(&[0.2]);
    world.apply(&by_windows("")).expect("accepted");
    run_to_clock(&mut world, "2030-01-01T05:30:00Z");
    world.stop_watching();
    run_to_clock(&mut world, "2030-01-01T06:30:00Z");
    assert_eq!(weights(&world), [50.0, 10.0]);
    let checks = world.controller().checks().len();
    world.watch_again();
    world.run_for(HoldFor::ZERO);
    assert_eq!(weights(&world), [50.0, 30.0]);
    assert_eq!(world.controller().checks().len(), checks + 1);
    assert_eq!(world.facts(Action::Unobserved).len(), 1);
}

#[test]
fn on_hold_the_weight_falls_with_a_window_and_never_rises() {
    let mut world = healthy(16, 0.5).segment_shares(&[0.2]);
    world.apply(&by_windows("")).expect("accepted");
    run_to_clock(&mut world, "2030-01-01T05:00:00Z");
    world.order(Command::Pause, "maria", "lunch").expect("can be paused");
    run_to_clock(&mut world, "2030-01-01T07:00:00Z");
    assert_eq!(weights(&world), [50.0, 10.0], "30 % would be more");
    world.order(Command::Resume, "maria", "back").expect("was paused");
    assert_eq!(weights(&world), [50.0, 30.0]);
    world.order(Command::Pause, "maria", "more lunch").expect("can be paused");
    run_to_clock(&mut world, "2030-01-01T13:00:00Z");
    assert_eq!(weights(&world), [50.0, 20.0], "less is possible");
    run_to_clock(&mut world, "2030-01-02T01:00:00Z");
    assert_eq!(weights(&world), [50.0, 10.0]);
    run_to_clock(&mut world, "2030-01-02T13:00:00Z");
    assert_eq!(weights(&world), [50.0, 10.0], "and it stays there until somebody resumes");
}

#[test]
fn a_stage_without_sessions_holds_for_lack_of_data_and_goes_on_when_they_come() {
    let mut world = healthy(17, 0.5).segment_shares(&[0.0]);
    world.apply(&by_windows("")).expect("accepted");
    world.run_for(hours(3));
    assert_eq!((weights(&world), world.holds()), (vec![50.0, 0.0], vec![HoldCause::NoData]));
    let mut world = world.segment_shares(&[0.2]);
    world.run_for(minutes(30));
    assert_eq!(weights(&world), [50.0, 10.0]);
}

#[test]
fn a_segment_that_breaks_a_gate_is_named_in_the_hold() {
    let mut world = healthy(18, 2.0)
        .segment_shares(&[0.05])
        .truth_in_segment(0, Canary, Truth::healthy().success(0.6))
        .truth_in_segment(0, Stable, Truth::healthy());
    let ramp = "{segments: [{name: staff, weight: 0%, duration: 5m}, {name: all, weight: progressive}], stepInterval: 20m, \
                analysis: {metrics: [{name: success_rate, threshold: 85%, comparison: '>='}]}}";
    world.apply(&manifest(ramp)).expect("accepted");
    assert!(
        world.run_until(hours(3), |world| world.holds().contains(&HoldCause::Degraded)),
        "{:?}",
        world.last_check()
    );
    let check = world.last_check().expect("there were checks");
    let reason = &check.holds[&HoldCause::Degraded];
    assert!(reason.contains("is proven to be broken in segment staff"), "{reason}");
    assert!(world.facts(Action::RolledBack).is_empty(), "all segments together are within the gate");
}
