//! The numbers that the evidence engine has to reach, beside those that it reaches: `make bench`.
//!
//! Every row is simulated through the functions that a server calls, with a fixed seed. The references advance by the
//! clock alone; Serin holds at the end of a step while a gate is at risk, so that it exposes fewer sessions to a harm
//! and takes longer over versions that are equal. A row that misses its limit fails the run.

#[path = "../tests/worlds/reference.rs"]
mod reference;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serin_core::analysis::analyze;
use serin_core::routing::Variant;
use serin_core::units::HoldFor;
use serin_sim::{Batch, Progress, Proportion, Report, Scenario, Spread, Truth, World, simulate_batch};

use reference::{
    ABOUT_A_SECOND, AT_THE_LIMIT, BEFORE, JUST_PASSING, at, compared, compared_after_observing,
    compared_all_the_time, drop_to, equal, equal_in_ten, manifest, slower, ten_metrics, two_gates,
    z_test_rolls_back,
};

const SEED: u64 = 1;
/// Steps of the rollout whose checks are timed.
const STEPS_OF_A_CHECK: usize = 10;
/// How often the same check is timed.
const LOOKS: usize = 1_000;

fn main() -> ExitCode {
    let began = Instant::now();
    let mut table = Table::default();
    table.heading("Equal versions rolled back, at 95 % confidence: at most 5 %, with its interval");
    equal_versions(&mut table);
    table.heading("The same by a two-sample z test each minute, which Serin does not use");
    by_z_test(&mut table);
    table.heading("Harm that is there from the beginning, 10 sessions/s");
    early_harm(&mut table);
    table.heading("Harm that begins late, 10 sessions/s");
    late_harm(&mut table);
    table.heading("success_rate >= 90% and latency_p99 <= 3000ms, two failed checks in a row");
    limits(&mut table);
    table.heading("Sessions needed over the least that any test needs, one weight, a look each second");
    against_the_bound(&mut table);
    table.heading("What a check costs");
    check(&mut table);
    println!("\n{} rows, {} missed, {:.0?}", table.rows, table.missed, began.elapsed());
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Rows that are printed as they come.
#[derive(Default)]
struct Table {
    rows: u32,
    missed: u32,
}

impl Table {
    fn heading(&self, text: &str) {
        println!("\n{text}\n  {:<58} {:>16}   reached", "", "reference");
    }

    fn row(&mut self, what: &str, reference: &str, reached: &str, holds: bool) {
        self.rows += 1;
        self.missed += u32::from(!holds);
        println!("  {what:<58} {reference:>16}   {reached}{}", if holds { "" } else { "   MISSED" });
    }
}

fn run(manifest: &str, scenario: &Scenario, runs: u32) -> Report {
    run_for(manifest, scenario, Batch::new(runs, SEED))
}

fn run_for(manifest: &str, scenario: &Scenario, batch: Batch) -> Report {
    simulate_batch(manifest, scenario, batch, &Progress::default()).expect("a manifest without problems")
}

fn share(proportion: Proportion, runs: u64) -> String {
    let Proportion { share, low, high, .. } = proportion;
    format!("{:.1} % ({:.1} to {:.1}), {runs} runs", share * 100.0, low * 100.0, high * 100.0)
}

fn equal_versions(table: &mut Table) {
    type Equal = fn(u32, reference::World) -> Scenario;
    let one = ("one gate", compared("success_rate"), equal as Equal, [1_000, 500, 300]);
    let ten = ("ten metrics", ten_metrics(), equal_in_ten as Equal, [200, 100, 80]);
    for (gates, manifest, equal, runs) in [one, ten] {
        for (sessions_per_s, runs) in [1, 10, 100].into_iter().zip(runs) {
            for world in [reference::World::Steady, reference::World::Drift, reference::World::Outage] {
                // At 100 a second, time allows for the planned length only.
                let most_lengths = if sessions_per_s == 100 { 1 } else { 3 };
                let batch = Batch { runs, seed: SEED, most_lengths };
                let report = run_for(&manifest, &equal(sessions_per_s, world), batch);
                let what = format!("{gates}, {sessions_per_s}/s, {}", words(world));
                let reached = share(report.rolled_back, report.runs);
                table.row(&what, "0.9-1.5 %, < 5 %", &reached, report.rolled_back.high < 0.05);
            }
        }
    }
}

fn words(world: reference::World) -> &'static str {
    match world {
        reference::World::Steady => "steady",
        reference::World::Drift => "both drift from 4 to 10 % failures",
        reference::World::Outage => "both fail for three minutes",
    }
}

fn by_z_test(table: &mut Table) {
    for (sessions_per_s, runs) in [(1, 4_000), (10, 2_000), (100, 300)] {
        for (drifts, reference) in [(false, "18-22 %"), (true, "52-100 %")] {
            let world = if drifts { reference::World::Drift } else { reference::World::Steady };
            let count = z_test_rolls_back(sessions_per_s, world, runs);
            let what = format!("{sessions_per_s}/s, {}", words(world));
            let proportion = Proportion::of(count, runs);
            table.row(&what, reference, &share(proportion, runs as u64), proportion.low > 0.05);
        }
    }
}

/// How often, how fast and at what exposure a harm was caught.
fn caught(report: &Report) -> String {
    let (Some(minutes), Some(exposed)) = (report.minutes_from_onset, report.exposed_since_onset) else {
        return "never".to_owned();
    };
    let bound = report.onset.and_then(|onset| onset.bound_canary);
    let bound = bound.map_or_else(String::new, |bound| format!(", bound {bound:.0}"));
    let Spread { mean, p5, p95, .. } = exposed;
    format!(
        "{:.3}, {:.0} min, {mean:.0} exposed ({p5:.0} to {p95:.0}){bound}",
        report.rolled_back.share, minutes.median
    )
}

fn mean_exposed(report: &Report) -> f64 {
    report.exposed_since_onset.map_or(f64::INFINITY, |exposed| exposed.mean)
}

fn early_harm(table: &mut Table) {
    let always = |report: &Report| report.rolled_back.share > 0.995;
    let (early, observed) = (compared("success_rate"), compared_after_observing("success_rate"));
    let report = run(&early, &drop_to(0.90, BEFORE), 2_000);
    table.row(
        "94 -> 90 %",
        "1.00, 7, 611",
        &caught(&report),
        always(&report) && mean_exposed(&report) <= 700.0,
    );
    let report = run(&observed, &drop_to(0.90, 0), 2_000);
    table.row(
        "94 -> 90 %, after five minutes of Observing",
        "300 more",
        &caught(&report),
        mean_exposed(&report) <= 1_000.0,
    );
    let report = run(&early, &drop_to(0.80, BEFORE), 2_000);
    table.row(
        "94 -> 80 %",
        "1.00, 1, 93",
        &caught(&report),
        always(&report) && mean_exposed(&report) <= 110.0,
    );
    let report = run(&observed, &drop_to(0.80, 0), 2_000);
    table.row(
        "94 -> 80 %, after five minutes of Observing",
        "300 more",
        &caught(&report),
        mean_exposed(&report) <= 410.0,
    );
    let report = run(&compared("latency_avg"), &slower(0.97, ABOUT_A_SECOND, 200.0, BEFORE), 1_000);
    let minutes = report.minutes_from_onset.map_or(f64::INFINITY, |minutes| minutes.median);
    table.row(
        "latency +200 ms on a mean of 1.2 s",
        "1.00, 2, 100",
        &caught(&report),
        always(&report) && minutes <= 3.0,
    );
}

fn late_harm(table: &mut Table) {
    for (minute, reference, least) in [(15, "1.00", 0.99), (25, "0.75", 0.75)] {
        let report = run(&compared("success_rate"), &drop_to(0.90, BEFORE + minute), 1_000);
        let what = format!("94 -> 90 % from minute {minute} on");
        table.row(&what, reference, &caught(&report), report.rolled_back.share >= least);
        let report = run(&compared_after_observing("success_rate"), &drop_to(0.90, 5 + minute), 1_000);
        let what = format!("94 -> 90 % from minute {minute} on, after Observing");
        table.row(&what, reference, &caught(&report), report.rolled_back.share >= least);
    }
}

fn limits(table: &mut Table) {
    let manifest = two_gates();
    let report = run(&manifest, &slower(0.94, JUST_PASSING, 0.0, 0), 500);
    let reached = share(report.rolled_back, report.runs);
    table.row("healthy (94 %, 2.81 s)", "0.00 %", &reached, report.rolled_back.count == 0);
    let report = run(&manifest, &slower(0.90, AT_THE_LIMIT, 0.0, 0), 500);
    let reached = share(report.rolled_back, report.runs);
    table.row("exactly at both limits", "0.3-0.4 %", &reached, report.rolled_back.high < 0.05);
    // The reference goes on to 20 and 30 % by the clock and has 132 sessions on the canary in its nine minutes at 1/s.
    // Serin keeps the weight down while a gate is at risk: as many sessions, and so more minutes.
    for (sessions_per_s, runs, reference, most) in
        [(1.0, 500, "9 min, 132", 20.0), (10.0, 300, "3 min", 4.0), (100.0, 60, "3 min", 4.0)]
    {
        let scenario = at(sessions_per_s, slower(0.94, JUST_PASSING, 800.0, 5));
        let report = run(&manifest, &scenario, runs);
        let what = format!("latency +800 ms from minute 5 on, {sessions_per_s}/s");
        let minutes = report.minutes_from_onset.map_or(f64::INFINITY, |minutes| minutes.median);
        table.row(&what, reference, &caught(&report), minutes <= most);
    }
}

fn against_the_bound(table: &mut Table) {
    for rate in [0.90, 0.80] {
        let scenario = drop_to(rate, 0);
        let report = run(&compared_all_the_time("success_rate"), &scenario, 1_000);
        let ratio = report.ratio_to_bound.unwrap_or(f64::INFINITY);
        let what = format!("94 -> {:.0} %", rate * 100.0);
        table.row(&what, "1.3-1.5", &format!("{ratio:.2}, {}", caught(&report)), ratio <= 1.6);
    }
}

/// One check of 20 gates in the last of ten steps, each with sessions of its own.
fn check(table: &mut Table) {
    let truth = Truth::healthy().completion(0.8).cost(0.01).satisfaction(4.2, 1.0).tool_accuracy(0.97);
    let truth = Truth {
        input_tokens: Some(700.0),
        output_tokens: Some(300.0),
        refusal_rate: Some(0.03),
        escalation: Some(0.05),
        ..truth
    };
    let mut world = World::new(SEED)
        .stable("2.3.1")
        .truth(Variant::Stable, truth)
        .truth(Variant::Canary, truth)
        .traffic(10.0)
        .warmed_up(HoldFor::from_mins(10));
    world.apply(&twenty_gates()).expect("the manifest has no problems");
    let is_there = world.run_until(HoldFor::from_hours(4), |world| {
        world
            .controller()
            .active()
            .is_some_and(|(_, active)| usize::from(active.step) == STEPS_OF_A_CHECK - 1)
    });
    world.run_for(HoldFor::from_mins(8));
    let evidence = world.evidence();
    let (Some(plan), Some((_, active))) = (world.controller().active_plan(), world.controller().active())
    else {
        panic!("the rollout ended early, after {} checks", world.controller().checks().len());
    };
    let now = active.baseline.as_ref().expect("frozen long ago").frozen_at;
    let mut times: Vec<Duration> = (0..LOOKS)
        .map(|_| {
            let began = Instant::now();
            black_box(analyze(black_box(plan), black_box(active), black_box(&evidence), now));
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (median, most) = (times[LOOKS / 2], times[LOOKS * 99 / 100]);
    let what = format!(
        "{} gates, {} steps, {} cells",
        plan.analysis.gates.len(),
        plan.steps.len(),
        evidence.cells.len()
    );
    let reached = format!("median {median:.0?}, 99 of 100 within {most:.0?}");
    table.row(&what, "1 ms", &reached, is_there && median < Duration::from_millis(1));
}

/// Twenty gates over ten steps, five of them against a constant.
fn twenty_gates() -> String {
    let compared = [
        "success_rate",
        "task_completion_rate",
        "tool_call_accuracy",
        "escalation_rate",
        "error_rate",
        "latency_avg",
        "latency_p50",
        "latency_p90",
        "latency_p95",
        "latency_p99",
        "input_tokens_avg",
        "output_tokens_avg",
        "cost_avg",
        "refusal_rate",
        "user_satisfaction_avg",
    ];
    let mut gates: Vec<String> = compared
        .iter()
        .map(|metric| format!("{{name: {metric}, compareTo: stable, maxRegression: 90%, maturity: 3m}}"))
        .collect();
    for limit in [
        "success_rate, threshold: 80%, comparison: '>='",
        "error_rate, threshold: 20%, comparison: '<='",
        "refusal_rate, threshold: 20%, comparison: '<='",
        "latency_p95, threshold: 6000ms, comparison: '<='",
        "task_completion_rate, threshold: 20%, comparison: '>='",
    ] {
        gates.push(format!("{{name: {limit}, maturity: 3m}}"));
    }
    let steps: Vec<String> = [5, 10, 15, 20, 30, 40, 50, 60, 80, 100]
        .iter()
        .map(|weight| format!("{{weight: {weight}%, hold: 10m}}"))
        .collect();
    let (steps, gates) = (steps.join(", "), gates.join(", "));
    manifest(&format!("{{steps: [{steps}], analysis: {{metrics: [{gates}]}}}}"))
}
