//! The settings that the reference numbers of the evidence engine rest on, for tests and for `make bench`.
//!
//! The references know no Observing step: evidence is there from the first minute. Comparisons never count its
//! sessions, so that a rollout with comparisons begins with one minute of it here; minute 0 is the minute after it.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serin_sim::Scenario;

/// Minutes before the first session counts in a comparison.
pub(crate) const BEFORE: u64 = 1;

/// 10-20-30-40-50-70-90 % for five minutes each.
const TIMETABLE: &str = "{weight: 10%, hold: 5m}, {weight: 20%, hold: 5m}, {weight: 30%, hold: 5m}, \
     {weight: 40%, hold: 5m}, {weight: 50%, hold: 5m}, {weight: 70%, hold: 5m}, {weight: 90%, hold: 5m}, \
     {weight: 100%, hold: 1m}";

/// Both gates of the first manifest of the design page, on the reference timetable, from the first minute.
pub(crate) fn two_gates() -> String {
    let success = "{name: success_rate, threshold: 90%, comparison: '>='}";
    let latency = "{name: latency_p99, threshold: 3000ms, comparison: '<='}";
    let rules = "failureThreshold: 2, initialDelay: 0s";
    manifest(&format!("{{steps: [{TIMETABLE}], analysis: {{metrics: [{success}, {latency}], {rules}}}}}"))
}

/// Metrics compared with stable, on the reference timetable, after a minute that no comparison counts.
fn comparing(metrics: &[&str]) -> String {
    let gates: Vec<String> = metrics.iter().map(|metric| gate(metric)).collect();
    let steps = format!("{{weight: 9.99%, hold: 0s}}, {TIMETABLE}");
    let analysis = format!("metrics: [{}], initialDelay: 0s", gates.join(", "));
    manifest(&format!("{{steps: [{steps}], analysis: {{{analysis}}}}}"))
}

/// One metric compared with stable at next to no margin, read at the first response.
pub(crate) fn compared(metric: &str) -> String {
    comparing(&[metric])
}

/// The same with the default ramp: five minutes of Observing come first, and nothing decides in them.
pub(crate) fn compared_after_observing(metric: &str) -> String {
    manifest(&format!("{{analysis: {{metrics: [{}]}}}}", gate(metric)))
}

/// The same at 10 % for as long as it takes, looked at every second.
pub(crate) fn compared_all_the_time(metric: &str) -> String {
    let steps = "steps: [{weight: 9.99%, hold: 0s}, {weight: 10%, hold: 1h}, {weight: 100%, hold: 1m}]";
    let analysis = format!("metrics: [{}], initialDelay: 0s, interval: 1s", gate(metric));
    manifest(&format!("{{{steps}, analysis: {{{analysis}}}}}"))
}

/// Ten metrics compared with stable, most of which say the same in other words.
pub(crate) fn ten_metrics() -> String {
    comparing(&[
        "success_rate",
        "error_rate",
        "latency_avg",
        "latency_p50",
        "latency_p90",
        "latency_p95",
        "latency_p99",
        "output_tokens_avg",
        "cost_avg",
        "refusal_rate",
    ])
}

/// A gate without a least number of sessions: the references hold for nothing.
fn gate(metric: &str) -> String {
    let margin = match metric {
        name if name.starts_with("latency") => "1ms",
        name if name.ends_with("_rate") => "0.001pp",
        _ => "0.00001",
    };
    format!("{{name: {metric}, compareTo: stable, maxRegression: {margin}, maturity: 0s, minSamples: 1}}")
}

/// A manifest for 2.4.0 with this text as `spec.rollout`, given in YAML flow style.
pub(crate) fn manifest(rollout: &str) -> String {
    format!(
        "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: support-prompts}}\n\
         spec: {{version: \"2.4.0\", rollout: {rollout}}}\n"
    )
}

/// What the world does to two versions that are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    /// Nothing.
    Steady,
    /// Failures of both grow from 4 to 10 %.
    Drift,
    /// Both fail for three minutes.
    Outage,
}

/// Median and 99th percentile of a latency with a mean of 1.2 s, in milliseconds.
pub(crate) const ABOUT_A_SECOND: (f64, f64) = (1_130.0, 2_600.0);
/// The same of a latency that just passes a gate of 3 s.
pub(crate) const JUST_PASSING: (f64, f64) = (1_400.0, 2_810.0);
/// The same of a latency exactly at a gate of 3 s.
pub(crate) const AT_THE_LIMIT: (f64, f64) = (1_400.0, 3_000.0);

/// Two versions that are the same, at some sessions per second; they show success alone.
pub(crate) fn equal(sessions_per_s: u32, world: World) -> Scenario {
    equal_with(sessions_per_s, world, "")
}

/// The same, showing all of [`ten_metrics`].
pub(crate) fn equal_in_ten(sessions_per_s: u32, world: World) -> Scenario {
    let others =
        ", latency_median_ms: 1200, latency_p99_ms: 2400, output_tokens: 300, cost: 0.01, refusal_rate: 0.03";
    equal_with(sessions_per_s, world, others)
}

fn equal_with(sessions_per_s: u32, world: World, others: &str) -> Scenario {
    let changes = match world {
        World::Steady => "",
        World::Drift => "{of: both, from: 0s, over: 35m, truth: {success_rate: 0.90}}",
        World::Outage => "{of: both, from: 12m, until: 15m, truth: {success_rate: 0.4}}",
    };
    scenario(&format!(
        "{{name: equal, harmful: false, traffic: {{sessions_per_s: {sessions_per_s}}}, \
         stable: {{success_rate: 0.96{others}}}, changes: [{changes}]}}"
    ))
}

/// Stable succeeds at 94 %, and the canary at another rate from a minute on, at 10 sessions per second.
pub(crate) fn drop_to(rate: f64, from_minute: u64) -> Scenario {
    scenario(&format!(
        "{{name: drop, harmful: true, stable: {{success_rate: 0.94}}, \
         changes: [{{of: canary, from: {from_minute}m, truth: {{success_rate: {rate}}}}}]}}"
    ))
}

/// Both versions at a success rate and with a median and 99th percentile of latency in milliseconds, and a canary that
/// is slower from a minute on.
pub(crate) fn slower(success_rate: f64, latency: (f64, f64), shift_ms: f64, from_minute: u64) -> Scenario {
    let (median_ms, p99_ms) = latency;
    scenario(&format!(
        "{{name: slower, harmful: {}, stable: {{success_rate: {success_rate}, latency_median_ms: {median_ms}, \
         latency_p99_ms: {p99_ms}}}, changes: [{{of: canary, from: {from_minute}m, \
         truth: {{latency_shift_ms: {shift_ms}}}}}]}}",
        shift_ms > 0.0
    ))
}

/// The same scenario at other traffic.
pub(crate) fn at(sessions_per_s: f64, mut scenario: Scenario) -> Scenario {
    scenario.traffic.sessions_per_s = sessions_per_s;
    scenario
}

pub(crate) fn scenario(yaml: &str) -> Scenario {
    Scenario::parse(yaml).expect("a scenario")
}

/// In how many of some rollouts a two-sided z test of all failures so far, at 5 % each minute, ever finds the canary
/// worse than a stable that is the same: what Serin does not do.
pub(crate) fn z_test_rolls_back(sessions_per_s: u32, world: World, runs: usize) -> usize {
    let mut dice = Pcg64Mcg::seed_from_u64(1);
    (0..runs).filter(|_| z_test_finds(sessions_per_s, world, &mut dice)).count()
}

fn z_test_finds(sessions_per_s: u32, world: World, dice: &mut Pcg64Mcg) -> bool {
    const WEIGHTS: [f64; 7] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9];
    // Failures and sessions of canary and stable.
    let (mut canary, mut stable) = ((0.0, 0.0), (0.0, 0.0));
    for minute in 0..35_u32 {
        let weight = WEIGHTS[minute as usize / 5];
        let failing = match world {
            World::Steady => 0.04,
            World::Drift => 0.04 + 0.06 * f64::from(minute) / 35.0,
            World::Outage if (12..15).contains(&minute) => 0.6,
            World::Outage => 0.04,
        };
        for _ in 0..sessions_per_s * 60 {
            let side = if dice.random::<f64>() < weight { &mut canary } else { &mut stable };
            side.0 += f64::from(u8::from(dice.random::<f64>() < failing));
            side.1 += 1.0;
        }
        let pooled = (canary.0 + stable.0) / (canary.1 + stable.1);
        let error = (pooled * (1.0 - pooled) * (1.0 / canary.1 + 1.0 / stable.1)).sqrt();
        if canary.0 / canary.1 - stable.0 / stable.1 > 1.959_963_985 * error {
            return true;
        }
    }
    false
}
