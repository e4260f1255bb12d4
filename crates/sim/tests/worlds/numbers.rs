//! The numbers that the evidence engine has to reach, in short form with fixed seeds; `make bench` has the long one.
//!
//! Seeds are fixed, so that the limits here leave no room for luck: a change of the engine that breaks one is a change
//! of what it promises.

use serin_core::rollout::{HoldCause, Phase};
use serin_core::routing::Variant::{Canary, Stable};
use serin_sim::{Batch, Progress, Proportion, Report, Scenario, Truth, World, simulate, simulate_batch};

use crate::reference::{
    self, ABOUT_A_SECOND, AT_THE_LIMIT, BEFORE, JUST_PASSING, at, compared, compared_after_observing,
    compared_all_the_time, drop_to, equal, equal_in_ten, slower, ten_metrics, two_gates, z_test_rolls_back,
};
use crate::support::{SUPPORT, minutes};

fn run(manifest: &str, scenario: &Scenario, runs: u32) -> Report {
    simulate(manifest, scenario, runs, 1).expect("a manifest without problems")
}

const WORLDS: [reference::World; 3] =
    [reference::World::Steady, reference::World::Drift, reference::World::Outage];

/// Rollouts of equal versions in each world, at some sessions per second each; the share that was rolled back.
fn false_rollbacks(
    manifest: &str,
    equal: fn(u32, reference::World) -> Scenario,
    rates_and_runs: &[(u32, u32)],
) -> Proportion {
    let (mut back, mut all) = (0, 0);
    for (sessions_per_s, runs) in rates_and_runs {
        for world in WORLDS {
            // Busy traffic for the planned length only.
            let most_lengths = if *sessions_per_s == 100 { 1 } else { 3 };
            let batch = Batch { runs: *runs, seed: 1, most_lengths };
            let report =
                simulate_batch(manifest, &equal(*sessions_per_s, world), batch, &Progress::default())
                    .expect("a manifest without problems");
            let share = report.rolled_back;
            assert!(share.low < 0.05, "at {sessions_per_s}/s, {world:?}: {share:?}");
            back += usize::try_from(share.count).expect("at most all runs");
            all += usize::try_from(report.runs).expect("what was asked for");
        }
    }
    Proportion::of(back, all)
}

/// FIELD bug 16: whoever looks every minute at versions that are the same rolls back at most one in twenty.
#[test]
fn bug_16_equal_versions_are_rolled_back_at_most_one_time_in_twenty() {
    let share = false_rollbacks(&compared("success_rate"), equal, &[(1, 100), (10, 16), (100, 3)]);
    assert!(share.high < 0.05, "{share:?}");
}

#[test]
fn ten_correlated_metrics_share_one_error_budget() {
    let share = false_rollbacks(&ten_metrics(), equal_in_ten, &[(1, 30), (10, 5)]);
    assert!(share.high < 0.05, "{share:?}");
}

/// What Serin is for: the test that everyone uses is wrong several times as often, and under drift nearly always.
#[test]
fn a_z_test_each_minute_rolls_back_equal_versions_one_time_in_five() {
    let share = |world| Proportion::of(z_test_rolls_back(1, world, 500), 500);
    let (steady, drift) = (share(reference::World::Steady), share(reference::World::Drift));
    assert!(steady.low > 0.10, "{steady:?}");
    assert!(drift.low > steady.high, "{drift:?}");
}

#[test]
fn a_drop_from_94_to_90_percent_is_always_caught_in_about_seven_minutes() {
    let report = run(&compared("success_rate"), &drop_to(0.90, BEFORE), 120);
    assert_eq!((report.rolled_back.share, report.bad_promoted), (1.0, 0));
    let (minutes, exposed) =
        (report.minutes_from_onset.expect("caught"), report.exposed_since_onset.expect("caught"));
    assert!((5.0..=9.0).contains(&minutes.median), "{minutes:?}");
    assert!(exposed.mean <= 700.0, "{exposed:?}");
    let onset = report.onset.expect("a gate can see it");
    assert!((onset.bound_canary.expect("inside the plan") - 290.0).abs() < 3.0, "{onset:?}");
    assert!(report.ratio_to_bound.is_some_and(|ratio| ratio < 2.3), "{:?}", report.ratio_to_bound);
}

#[test]
fn a_drop_from_94_to_80_percent_is_always_caught_in_about_a_minute() {
    let report = run(&compared("success_rate"), &drop_to(0.80, BEFORE), 120);
    assert_eq!((report.rolled_back.share, report.bad_promoted), (1.0, 0));
    let (minutes, exposed) =
        (report.minutes_from_onset.expect("caught"), report.exposed_since_onset.expect("caught"));
    assert!(minutes.median <= 1.5, "{minutes:?}");
    assert!(exposed.mean <= 110.0, "{exposed:?}");
    let bound = report.onset.and_then(|onset| onset.bound_canary).expect("inside the plan");
    assert!((bound - 31.0).abs() < 1.0, "{bound}");
}

#[test]
fn five_minutes_of_observing_cost_their_300_sessions_and_no_more() {
    for (rate, most) in [(0.90, 700.0), (0.80, 110.0)] {
        let report = run(&compared_after_observing("success_rate"), &drop_to(rate, 0), 60);
        assert_eq!((report.rolled_back.share, report.bad_promoted), (1.0, 0));
        let exposed = report.exposed_since_onset.expect("caught");
        assert!((300.0..300.0 + most).contains(&exposed.mean), "{rate}: {exposed:?}");
    }
}

#[test]
fn a_drop_that_begins_late_is_still_caught() {
    for (minute, least) in [(15, 0.97), (25, 0.75)] {
        let report = run(&compared("success_rate"), &drop_to(0.90, BEFORE + minute), 40);
        assert!(report.rolled_back.share >= least, "from minute {minute}: {:?}", report.rolled_back);
    }
}

#[test]
fn with_a_look_each_second_a_drop_needs_about_half_as_much_again_as_the_information_bound() {
    for rate in [0.90, 0.80] {
        let report = run(&compared_all_the_time("success_rate"), &drop_to(rate, 0), 100);
        let ratio = report.ratio_to_bound.expect("caught");
        assert!((1.0..1.7).contains(&ratio), "94 -> {rate}: {ratio}");
    }
}

#[test]
fn two_healthy_gates_never_roll_back_and_complete_on_time() {
    let report = run(SUPPORT, &slower(0.94, (1_130.0, 2_700.0), 0.0, 0), 60);
    assert_eq!((report.rolled_back.count, report.unfinished.count), (0, 0), "{report:?}");
    assert_eq!(report.minutes_to_completion.expect("completed").median, 45.0);
}

#[test]
fn exactly_at_both_limits_a_canary_is_held_and_hardly_ever_rolled_back() {
    let report = run(&two_gates(), &at(3.0, slower(0.90, AT_THE_LIMIT, 0.0, 0)), 80);
    assert!(report.rolled_back.share <= 0.025, "{:?}", report.rolled_back);
    assert!(report.completed.share < 0.5, "at the limit is at risk: {:?}", report.completed);
}

#[test]
fn slower_by_800_ms_is_caught_within_minutes_at_any_traffic() {
    // At one session a second the first weight is held until the p99 gate has its hundred sessions.
    for (sessions_per_s, runs, most) in [(1.0, 40, 20.0), (10.0, 30, 4.0), (100.0, 4, 4.0)] {
        let scenario = at(sessions_per_s, slower(0.94, JUST_PASSING, 800.0, 5));
        let report = run(&two_gates(), &scenario, runs);
        assert_eq!(
            (report.rolled_back.share, report.bad_promoted),
            (1.0, 0),
            "{sessions_per_s}/s: {report:?}"
        );
        let minutes = report.minutes_from_onset.expect("caught");
        assert!(minutes.median <= most, "{sessions_per_s}/s: {minutes:?}");
    }
}

#[test]
fn slower_by_200_ms_on_average_is_caught_in_about_two_minutes() {
    let report = run(&compared("latency_avg"), &slower(0.97, ABOUT_A_SECOND, 200.0, BEFORE), 60);
    assert_eq!(report.rolled_back.share, 1.0, "{report:?}");
    let (minutes, exposed) =
        (report.minutes_from_onset.expect("caught"), report.exposed_since_onset.expect("caught"));
    assert!(minutes.median <= 3.0, "{minutes:?}");
    assert!(exposed.mean <= 200.0, "{exposed:?}");
}

#[test]
fn correlated_requests_of_a_session_do_not_make_false_alarms() {
    let scenario = "{name: chatty, harmful: false, traffic: {sessions_per_s: 2}, \
        habits: {requests_mean: 5, pause: 5s, correlation: 0.7}, \
        stable: {success_rate: 0.905, latency_median_ms: 1200, latency_p99_ms: 2400}}";
    let report = run(SUPPORT, &reference::scenario(scenario), 60);
    assert!(report.rolled_back.share <= 0.05, "{:?}", report.rolled_back);
}

#[test]
fn an_outage_that_hits_both_versions_delays_a_rollout_and_ends_none() {
    let outage = Scenario::built_in("outage").expect("built in");
    let report = simulate(SUPPORT, &outage, 40, 3).expect("a manifest without problems");
    assert_eq!((report.rolled_back.count, report.unfinished.count), (0, 0), "{report:?}");
}

#[test]
fn the_built_in_scenarios_end_as_their_names_say() {
    let ends = |name: &str| {
        let scenario = Scenario::built_in(name).expect("built in");
        let report = simulate(SUPPORT, &scenario, 24, 5).expect("a manifest without problems");
        (report.rolled_back.share, report.completed.share)
    };
    assert_eq!(ends("healthy"), (0.0, 1.0));
    assert_eq!(ends("regression"), (1.0, 0.0));
    assert_eq!(ends("late-harm"), (1.0, 0.0));
    assert_eq!(ends("subtle"), (0.0, 1.0), "no gate sees ratings: this is what people and holds are for");
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let scenario = Scenario::built_in("regression").expect("built in");
    let report = |seed| simulate(SUPPORT, &scenario, 12, seed).expect("a manifest without problems");
    assert_eq!(report(9), report(9));
    assert_ne!(report(9), report(10));
}

#[test]
fn worlds_and_simulated_rollouts_agree() {
    // The world knows every key, pin and event; the simulation only rolls dice.
    let stable = Truth::healthy().latency(1_100.0, 2_400.0);
    let (runs, mut total) = (40, 0.0);
    for seed in 0..runs {
        let mut world = World::new(seed)
            .stable("2.3.1")
            .truth(Stable, stable)
            .truth(Canary, stable.success(0.8))
            .traffic(2.0)
            .warmed_up(minutes(10));
        world.apply(SUPPORT).expect("accepted");
        assert!(world.run_until(minutes(120), |world| world.phase() == Phase::RolledBack));
        total += world.since_start().secs_f64() / 60.0;
    }
    let scenario = "{name: same, harmful: true, traffic: {sessions_per_s: 2}, \
        stable: {success_rate: 0.97, latency_median_ms: 1100, latency_p99_ms: 2400}, canary: {success_rate: 0.8}}";
    let simulated = run(SUPPORT, &reference::scenario(scenario), 120).minutes_to_rollback.expect("caught");
    #[expect(clippy::cast_precision_loss, reason = "a small number of runs")]
    let mean = total / runs as f64;
    assert!((mean / simulated.mean - 1.0).abs() < 0.15, "{mean} in worlds, {simulated:?} simulated");
}

#[test]
fn the_example_scenarios_end_as_they_say() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the examples are there") {
        let path = entry.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(scenario.name.as_str()));
        assert!(!scenario.about.is_empty(), "{}", scenario.name);
        names.push(scenario.name.clone());
    }
    names.sort();
    assert_eq!(names, ["day-and-night", "late-outcomes", "lost-sessions", "who-rates"]);
    let ran = |name: &str, manifest: &str| {
        let text = std::fs::read_to_string(format!("{folder}/{name}.yaml")).expect("a text");
        run(manifest, &reference::scenario(&text), 12)
    };

    let goals = "{analysis: {metrics: [{name: task_completion_rate, compareTo: stable, maxRegression: 2pp, \
         maturity: 20m}]}}";
    let report = ran("late-outcomes", &reference::manifest(goals));
    assert_eq!((report.rolled_back.share, report.bad_promoted), (1.0, 0), "{report:?}");

    let report = ran("lost-sessions", SUPPORT);
    assert_eq!((report.rolled_back.count, report.bad_promoted), (0, 0), "it holds and tells: {report:?}");
    assert!(report.unfinished_held.contains_key(&HoldCause::SampleRatio), "{report:?}");

    let ratings = "{analysis: {metrics: [{name: user_satisfaction_avg, compareTo: stable, maxRegression: 0.01, \
         maturity: 10m}]}}";
    let report = ran("who-rates", &reference::manifest(ratings));
    assert_eq!(report.rolled_back.count, 0, "who rates is no reason to roll back: {report:?}");

    let hours = "{steps: [{weight: 10%, hold: 1h}, {weight: 25%, hold: 2h}, {weight: 50%, hold: 3h}, {weight: 100%, \
         hold: 1h}], analysis: {metrics: [{name: success_rate, compareTo: stable, maxRegression: 1pp}]}}";
    let report = ran("day-and-night", &reference::manifest(hours));
    assert_eq!((report.rolled_back.share, report.bad_promoted), (1.0, 0), "{report:?}");
}
