//! The numbers that the evidence engine has to reach, in short form with fixed seeds.
//!
//! The references rest on evidence from the first minute. Here Observing comes first, and comparisons begin after
//! it, so that harm sets in at the fifth minute where the reference has it at the start.

use serin_core::rollout::Phase;
use serin_core::routing::Variant::{Canary, Stable};
use serin_sim::{Report, Scenario, Truth, World, simulate};

use crate::support::{SUPPORT, manifest, minutes};

/// Compared with stable at next to no margin, read at the first response.
fn compared(metric: &str) -> String {
    let margin = if metric.starts_with("latency") { "1ms" } else { "0.001pp" };
    manifest(&format!(
        "{{analysis: {{metrics: [{{name: {metric}, compareTo: stable, maxRegression: {margin}, maturity: 0s}}], \
         initialDelay: 0s}}}}"
    ))
}

fn run(manifest: &str, scenario: &str, runs: u32) -> Report {
    let scenario = Scenario::parse(scenario).expect("a scenario");
    simulate(manifest, &scenario, runs, 1).expect("a manifest without problems")
}

/// A scenario in which stable succeeds at 94 % and the canary at another rate from a minute on.
fn drop_to(rate: f64, from_minute: u64) -> String {
    format!(
        "{{name: drop, harmful: true, stable: {{success_rate: 0.94}}, \
         changes: [{{of: canary, from: {from_minute}m, truth: {{success_rate: {rate}}}}}]}}"
    )
}

/// FIELD bug 16: whoever looks every minute at versions that are the same rolls back at most one in twenty.
#[test]
fn bug_16_equal_versions_are_rolled_back_at_most_one_time_in_twenty() {
    let drift = "changes: [{of: both, from: 0s, over: 35m, truth: {success_rate: 0.90}}]";
    let outage = "changes: [{of: both, from: 12m, until: 15m, truth: {success_rate: 0.4}}]";
    for (sessions_per_s, runs, rest) in
        [(1, 120, "changes: []"), (10, 20, "changes: []"), (2, 50, drift), (2, 50, outage)]
    {
        let scenario = format!(
            "{{name: equal, harmful: false, traffic: {{sessions_per_s: {sessions_per_s}}}, \
             stable: {{success_rate: 0.96}}, {rest}}}"
        );
        let report = run(&compared("success_rate"), &scenario, runs);
        assert!(report.rolled_back.share <= 0.05, "at {sessions_per_s}/s: {:?}", report.rolled_back);
    }
}

#[test]
fn a_drop_from_94_to_90_percent_is_always_caught_in_about_seven_minutes() {
    let report = run(&compared("success_rate"), &drop_to(0.90, 5), 60);
    assert_eq!((report.rolled_back.share, report.bad_promoted), (1.0, 0));
    let (minutes, exposed) =
        (report.minutes_from_onset.expect("caught"), report.exposed_since_onset.expect("caught"));
    assert!((5.0..=9.0).contains(&minutes.median), "{minutes:?}");
    assert!(exposed.mean <= 611.0 * 1.1, "{exposed:?}");
    let onset = report.onset.expect("a gate can see it");
    assert!((onset.bound_canary.expect("inside the plan") - 284.0).abs() < 2.0, "{onset:?}");
    assert!(report.ratio_to_bound.is_some_and(|ratio| ratio < 2.3), "{:?}", report.ratio_to_bound);
}

#[test]
fn a_drop_from_94_to_80_percent_is_always_caught_in_about_a_minute() {
    let report = run(&compared("success_rate"), &drop_to(0.80, 5), 60);
    assert_eq!((report.rolled_back.share, report.bad_promoted), (1.0, 0));
    let (minutes, exposed) =
        (report.minutes_from_onset.expect("caught"), report.exposed_since_onset.expect("caught"));
    assert!(minutes.median <= 1.5, "{minutes:?}");
    assert!(exposed.mean <= 93.0 * 1.1, "{exposed:?}");
    let bound = report.onset.and_then(|onset| onset.bound_canary).expect("inside the plan");
    assert!((bound - 31.0).abs() < 1.0, "{bound}");
}

#[test]
fn a_drop_that_begins_late_is_still_caught_more_often_than_not() {
    let report = run(&compared("success_rate"), &drop_to(0.90, 30), 40);
    assert!(report.rolled_back.share >= 0.7, "{:?}", report.rolled_back);
}

#[test]
fn two_healthy_gates_never_roll_back_and_complete_on_time() {
    let stable = "stable: {success_rate: 0.94, latency_median_ms: 1200, latency_p99_ms: 2700}";
    let report = run(SUPPORT, &format!("{{name: healthy, harmful: false, {stable}}}"), 60);
    assert_eq!((report.rolled_back.count, report.unfinished.count), (0, 0), "{report:?}");
    assert_eq!(report.minutes_to_completion.expect("completed").median, 45.0);
}

#[test]
fn exactly_at_both_limits_a_canary_is_held_and_hardly_ever_rolled_back() {
    let stable = "stable: {success_rate: 0.90, latency_median_ms: 1200, latency_p99_ms: 3000}";
    let report = run(
        SUPPORT,
        &format!("{{name: limit, harmful: false, traffic: {{sessions_per_s: 3}}, {stable}}}"),
        80,
    );
    assert!(report.rolled_back.share <= 0.025, "{:?}", report.rolled_back);
    assert!(report.completed.share < 0.5, "at the limit is at risk: {:?}", report.completed);
}

#[test]
fn slower_by_800_ms_is_caught_within_minutes_at_ten_sessions_a_second() {
    let scenario = "{name: slow, harmful: true, \
        stable: {success_rate: 0.97, latency_median_ms: 1200, latency_p99_ms: 2810}, \
        changes: [{of: canary, from: 5m, truth: {latency_shift_ms: 800}}]}";
    let report = run(SUPPORT, scenario, 30);
    assert_eq!((report.rolled_back.share, report.bad_promoted), (1.0, 0), "{report:?}");
    let minutes = report.minutes_from_onset.expect("caught");
    assert!(minutes.median <= 7.0, "{minutes:?}");
}

#[test]
fn slower_by_200_ms_on_average_is_caught_in_about_two_minutes() {
    let scenario = "{name: slower, harmful: true, \
        stable: {success_rate: 0.97, latency_median_ms: 1130, latency_p99_ms: 2600}, \
        changes: [{of: canary, from: 5m, truth: {latency_shift_ms: 200}}]}";
    let report = run(&compared("latency_avg"), scenario, 30);
    assert_eq!(report.rolled_back.share, 1.0, "{report:?}");
    let minutes = report.minutes_to_rollback.expect("caught");
    assert!(minutes.median <= 8.0, "five minutes of Observing, and two or three more: {minutes:?}");
}

#[test]
fn correlated_requests_of_a_session_do_not_make_false_alarms() {
    let scenario = "{name: chatty, harmful: false, traffic: {sessions_per_s: 2}, \
        habits: {requests_mean: 5, pause: 5s, correlation: 0.7}, \
        stable: {success_rate: 0.905, latency_median_ms: 1200, latency_p99_ms: 2400}}";
    let report = run(SUPPORT, scenario, 60);
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
    let simulated = run(SUPPORT, scenario, 120).minutes_to_rollback.expect("caught");
    #[expect(clippy::cast_precision_loss, reason = "a small number of runs")]
    let mean = total / runs as f64;
    assert!((mean / simulated.mean - 1.0).abs() < 0.15, "{mean} in worlds, {simulated:?} simulated");
}
