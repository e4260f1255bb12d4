//! Forecasts of the first manifest, and proposals that keep what they promise.

use proptest::prelude::*;

use super::*;

const FIRST: &str = include_str!("../../../../examples/support-prompts.yaml");

fn plan_of(manifest: &str) -> Plan {
    crate::parse::parse(manifest).unwrap_or_else(|problems| panic!("{problems}")).plan
}

/// A plan with this `rollout` block.
fn rollout(block: &str) -> Plan {
    plan_of(&format!(
        "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: p}}\nspec: {{version: 1.0.0, rollout: {block}}}"
    ))
}

fn per_second(rate: f64) -> Traffic {
    Traffic::per_second(rate).expect("a rate")
}

/// A forecast as a table with its sentences and what is proposed instead.
fn shown(plan: &Plan, traffic: &Traffic) -> String {
    let forecast = Forecast::new(plan, traffic, None);
    let mut text = String::new();
    for step in &forecast.steps {
        let hold = step.expected_hold.map_or("never ends".to_owned(), |hold| hold.to_string());
        let sights: Vec<&str> =
            forecast.gates.iter().map(|gate| gate.sights[usize::from(step.index)].shown.as_str()).collect();
        text.push_str(&format!(
            "{:<5} {:<6} {:<9} {:>6} | {}\n",
            step.planned_start.to_string(),
            step.shown,
            hold,
            step.matured_in_all,
            sights.join(" | ")
        ));
    }
    for sentence in sentences(plan, &forecast) {
        text.push_str(&format!("- {sentence}\n"));
    }
    for step in propose(plan, traffic, None) {
        text.push_str(&format!("{} held {}: {} sessions\n", step.weight, step.hold, step.canary_sessions));
    }
    text
}

#[test]
fn at_one_session_in_twenty_seconds_the_first_manifest_waits_for_hours() {
    insta::assert_snapshot!(shown(&plan_of(FIRST), &per_second(0.05)), @r#"
        0s    10%    5m             1 | nothing | nothing
        5m    10%    5h30m        100 | 77% or lower | 8% of requests above 3.00s
        10m   20%    52m          131 | 79% or lower | 6% of requests above 3.00s
        15m   30%    35m          162 | 80% or lower | 6% of requests above 3.00s
        20m   40%    27m          194 | 81% or lower | 5% of requests above 3.00s
        25m   50%    22m          226 | 81% or lower | 5% of requests above 3.00s
        30m   70%    16m          259 | 82% or lower | 4% of requests above 3.00s
        35m   90%    13m          294 | 83% or lower | 4% of requests above 3.00s
        40m   100%   12m          329 | 83% or lower | 4% of requests above 3.00s
        - At this traffic Serin can catch a collapse, not a small decline: after 30 canary sessions a success rate of 63% or lower in 4 of 5 rollouts, after 329, 83% or lower; after 30, 18% of requests above 3.00s, after 329, 4%. Pass means no harm was seen, not that none exists.
        - 8 of 9 steps wait for sessions: the rollout takes about 8h32m instead of 45m; in step 2 latency_p99 needs 100 canary sessions since the start.
        - Its deadline of 7h30m passes before: from then on it holds for a person; set `progress.deadline` to 8h32m or more.
        - What helps: more weight in the first steps, so that sessions come sooner; longer steps; latency_p90 instead of latency_p99 (10 sessions instead of 100); `compareTo: stable` on a mean such as latency_avg, where every session tells something; a judge that rates every session; reading some conversations yourself before you approve.
        10% held 1h45m: 31 sessions
        25% held 1h35m: 70 sessions
        50% held 25m: 35 sessions
        90% held 15m: 37 sessions
        100% held 15m: 41 sessions
        "#);
}

#[test]
fn at_1_7_sessions_a_second_the_first_manifest_nearly_keeps_its_timetable() {
    insta::assert_snapshot!(shown(&plan_of(FIRST), &per_second(1.7)), @r#"
        0s    10%    5m            39 | 67% or lower | 16% of requests above 3.00s
        5m    10%    6m           100 | 77% or lower | 8% of requests above 3.00s
        10m   20%    5m           190 | 81% or lower | 5% of requests above 3.00s
        15m   30%    5m           331 | 83% or lower | 4% of requests above 3.00s
        20m   40%    5m           523 | 85% or lower | 3% of requests above 3.00s
        25m   50%    5m           766 | 86% or lower | 2.7% of requests above 3.00s
        30m   70%    5m          1099 | 86% or lower | 2.4% of requests above 3.00s
        35m   90%    5m          1535 | 87% or lower | 2.1% of requests above 3.00s
        40m   100%   5m          2033 | 87% or lower | 2.0% of requests above 3.00s
        - Serin can catch: after 30 canary sessions a success rate of 63% or lower in 4 of 5 rollouts, after 2,033, 87% or lower; after 30, 18% of requests above 3.00s, after 2,033, 2.0%. Pass means no harm was seen, not that none exists.
        - 1 of 9 steps waits for sessions: the rollout takes about 46m instead of 45m; in step 2 latency_p99 needs 100 canary sessions since the start.
        5% held 8m: 34 sessions
        10% held 7m: 59 sessions
        20% held 5m: 78 sessions
        30% held 5m: 117 sessions
        40% held 5m: 156 sessions
        50% held 5m: 195 sessions
        70% held 5m: 273 sessions
        90% held 5m: 351 sessions
        100% held 5m: 391 sessions
        "#);
}

#[test]
fn at_ten_sessions_a_second_every_step_gets_its_sessions() {
    insta::assert_snapshot!(shown(&plan_of(FIRST), &per_second(10.0)), @r#"
        0s    10%    5m           230 | 82% or lower | 5% of requests above 3.00s
        5m    10%    5m           530 | 85% or lower | 3% of requests above 3.00s
        10m   20%    5m          1060 | 86% or lower | 2.4% of requests above 3.00s
        15m   30%    5m          1890 | 87% or lower | 2.0% of requests above 3.00s
        20m   40%    5m          3020 | 88% or lower | 1.8% of requests above 3.00s
        25m   50%    5m          4450 | 88.2% or lower | 1.7% of requests above 3.00s
        30m   70%    5m          6410 | 88.4% or lower | 1.6% of requests above 3.00s
        35m   90%    5m          8970 | 88.7% or lower | 1.5% of requests above 3.00s
        40m   100%   5m         11900 | 88.8% or lower | 1.4% of requests above 3.00s
        - Serin can catch: after 30 canary sessions a success rate of 63% or lower in 4 of 5 rollouts, after 11,900, 88.8% or lower; after 30, 18% of requests above 3.00s, after 11,900, 1.4%. Pass means no harm was seen, not that none exists.
        - Every step gets its sessions in its time: the rollout takes 45m.
        5% held 5m: 115 sessions
        10% held 5m: 230 sessions
        20% held 5m: 460 sessions
        30% held 4m: 510 sessions
        40% held 4m: 680 sessions
        50% held 3m: 550 sessions
        70% held 3m: 770 sessions
        90% held 3m: 990 sessions
        100% held 2m: 500 sessions
        "#);
}

#[test]
fn at_200_sessions_a_day_larger_steps_are_proposed() {
    let traffic = Traffic::per_day(200.0).expect("a rate");
    insta::assert_snapshot!(shown(&plan_of(FIRST), &traffic), @r#"
        0s    10%    5m             0 | nothing | nothing
        5m    10%    4d23h57m     100 | 77% or lower | 8% of requests above 3.00s
        10m   20%    18h2m        130 | 79% or lower | 6% of requests above 3.00s
        15m   30%    12h2m        160 | 80% or lower | 6% of requests above 3.00s
        20m   40%    9h2m         190 | 81% or lower | 5% of requests above 3.00s
        25m   50%    7h14m        220 | 81% or lower | 5% of requests above 3.00s
        30m   70%    5h10m        250 | 82% or lower | 4% of requests above 3.00s
        35m   90%    4h2m         280 | 82% or lower | 4% of requests above 3.00s
        40m   100%   3h38m        310 | 83% or lower | 4% of requests above 3.00s
        - At this traffic Serin can catch a collapse, not a small decline: after 30 canary sessions a success rate of 63% or lower in 4 of 5 rollouts, after 310, 83% or lower; after 30, 18% of requests above 3.00s, after 310, 4%. Pass means no harm was seen, not that none exists.
        - 8 of 9 steps wait for sessions: the rollout takes about 7d12h instead of 45m; in step 2 latency_p99 needs 100 canary sessions since the start.
        - Its deadline of 7h30m passes before: from then on it holds for a person; set `progress.deadline` to 7d12h or more.
        - What helps: more weight in the first steps, so that sessions come sooner; longer steps; latency_p90 instead of latency_p99 (10 sessions instead of 100); `compareTo: stable` on a mean such as latency_avg, where every session tells something; a judge that rates every session; reading some conversations yourself before you approve.
        25% held 14h30m: 30 sessions
        50% held 17h: 70 sessions
        90% held 4h30m: 33 sessions
        100% held 4h: 33 sessions
        "#);
}

#[test]
fn at_3000_sessions_a_second_shorter_steps_are_proposed() {
    let proposed = propose(&plan_of(FIRST), &per_second(3_000.0), None);
    let shown: Vec<String> = proposed.iter().map(|step| format!("{} {}", step.weight, step.hold)).collect();
    insta::assert_snapshot!(shown.join(", "), @"5% 2m, 10% 2m, 20% 2m, 30% 2m, 40% 2m, 50% 2m, 70% 2m, 90% 2m, 100% 2m");
}

#[test]
fn the_sentences_of_the_documentation_come_out() {
    let gates = "{metrics: [{name: success_rate, threshold: 90%, comparison: '>='}, {name: error_rate, threshold: 5%, comparison: '<='}]}";
    let plan = rollout(&format!(
        "{{steps: [{{weight: 25, hold: 15h}}, {{weight: 50, hold: 8h}}, {{weight: 90, hold: 5h}}, {{weight: 100, hold: 4h}}], analysis: {gates}}}"
    ));
    let traffic = Traffic::per_day(200.0).expect("a rate");
    let forecast = Forecast::new(&plan, &traffic, None);
    assert!(forecast.is_low && forecast.fits());
    insta::assert_snapshot!(sentences(&plan, &forecast).join("\n"), @r#"
        At this traffic Serin can catch a collapse, not a small decline: after 30 canary sessions a success rate of 63% or lower in 4 of 5 rollouts, after 135, 79% or lower; after 30, an error rate of 28% or higher, after 135, 14% or higher. Pass means no harm was seen, not that none exists.
        Every step gets its sessions in its time: the rollout takes 1d8h.
        What helps: longer steps; `compareTo: stable` on a mean such as latency_avg, where every session tells something; a judge that rates every session; reading some conversations yourself before you approve.
        "#);
    assert_eq!(notes(&plan, &traffic, None), sentences(&plan, &forecast));
    assert_eq!(notes(&plan, &per_second(10.0), None), Vec::<String>::new());
}

#[test]
fn comparisons_means_and_literal_gates_are_told_as_what_they_are() {
    let metrics = "[
        {name: success_rate, compareTo: stable, maxRegression: 2pp},
        {name: latency_p99, compareTo: stable, maxRegression: 200ms},
        {name: latency_avg, compareTo: stable, maxRegression: 100ms},
        {name: user_satisfaction_avg, threshold: 4.0, comparison: '>='},
        {name: refusal_rate, threshold: 3%, comparison: '<=', decision: point}]";
    let plan = rollout(&format!("{{analysis: {{metrics: {metrics}}}}}"));
    let forecast = Forecast::new(&plan, &per_second(10.0), None);
    let mut text = String::new();
    for gate in &forecast.gates {
        let sights: Vec<String> =
            gate.sights.iter().map(|sight| format!("{}: {}", sight.sessions, sight.shown)).collect();
        text.push_str(&format!(
            "{} {} {:.2}\n  {}\n",
            gate.metric,
            gate.rule,
            gate.budget,
            sights.join("\n  ")
        ));
    }
    text.push_str(&sentences(&plan, &forecast).join("\n"));
    text.push_str(&format!("\ntaken for granted: {}", forecast.assumptions.join("; ")));
    insta::assert_snapshot!(text, @r#"
        success_rate within 2.0pp of stable 0.25
          0: nothing to compare
          1790: 90% or lower where stable has 95.0%
          5440: 91.2% or lower where stable has 95.0%
          10950: 91.7% or lower where stable has 95.0%
          18320: 92.0% or lower where stable has 95.0%
          27550: 92.1% or lower where stable has 95.0%
          40430: 92.2% or lower where stable has 95.0%
          57030: 92.2% or lower where stable has 95.0%
          57660: 92.2% or lower where stable has 95.0%
        latency_p99 within 200ms of stable 0.25
          0: nothing to compare
          1790: 2.3% of requests above stable's p99 + 200ms
          5440: 1.7% of requests above stable's p99 + 200ms
          10950: 1.5% of requests above stable's p99 + 200ms
          18320: 1.4% of requests above stable's p99 + 200ms
          27550: 1.4% of requests above stable's p99 + 200ms
          40430: 1.3% of requests above stable's p99 + 200ms
          57030: 1.3% of requests above stable's p99 + 200ms
          57660: 1.3% of requests above stable's p99 + 200ms
        latency_avg within 100ms of stable 0.25
          0: nothing to compare
          1790: 100ms and 0.11 standard deviations worse than stable
          5440: 100ms and 0.07 standard deviations worse than stable
          10950: 100ms and 0.05 standard deviations worse than stable
          18320: 100ms and 0.04 standard deviations worse than stable
          27550: 100ms and 0.03 standard deviations worse than stable
          40430: 100ms and 0.03 standard deviations worse than stable
          57030: 100ms and 0.03 standard deviations worse than stable
          57660: 100ms and 0.03 standard deviations worse than stable
        user_satisfaction_avg >= 4.00/5 0.25
          0: nothing
          360: 0.24 standard deviations lower than 4.00/5
          2280: 0.09 standard deviations lower than 4.00/5
          6060: 0.06 standard deviations lower than 4.00/5
          11700: 0.04 standard deviations lower than 4.00/5
          19200: 0.03 standard deviations lower than 4.00/5
          28620: 0.03 standard deviations lower than 4.00/5
          41760: 0.02 standard deviations lower than 4.00/5
          58560: 0.02 standard deviations lower than 4.00/5
        refusal_rate <= 3.0% 0.00
          230: read literally
          2090: read literally
          5740: read literally
          11250: read literally
          18620: read literally
          27850: read literally
          40730: read literally
          57330: read literally
          75860: read literally
        Serin can catch: after 30 canary sessions a success rate of 61% or lower where stable has 95.0% in 4 of 5 rollouts, after 57,660, 92.2% or lower where stable has 95.0%; after 30, 21% of requests above stable's p99 + 200ms, after 57,660, 1.3%; after 30, latency 100ms and 0.86 standard deviations worse than stable, after 57,660, 100ms and 0.03 standard deviations worse than stable; after 30, user satisfaction 0.82 standard deviations lower than 4.00/5, after 58,560, 0.02 standard deviations lower than 4.00/5. Pass means no harm was seen, not that none exists.
        8 of 9 steps wait for sessions: the rollout takes about 4h13m instead of 45m; in step 2 user_satisfaction_avg needs 30 canary sessions in the step.
        refusal_rate is read literally: a failed check whenever the last interval is on the wrong side, on however few sessions; the promise of 95% does not cover that.
        What helps: more weight in the first steps, so that sessions come sooner; a judge that rates every session; reading some conversations yourself before you approve.
        taken for granted: sessions arrive at a steady rate, day and night; answers take at most 10s, so that a session counts 1m10s after it began; every session has a rating; with one in ten, the gate needs ten times as long
        "#);
}

#[test]
fn segments_and_windows_appear_in_the_timeline() {
    let plan = plan_of(include_str!("../../../../examples/full.yaml"));
    let traffic = per_second(1.0).with_segment_shares(vec![0.02, 0.08, 0.9]).expect("shares");
    let forecast = Forecast::new(&plan, &traffic, None);
    let rows: Vec<String> = forecast
        .steps
        .iter()
        .map(|step| {
            let hold = step.expected_hold.expect("it ends");
            format!(
                "{} {} {:.1}% {hold} {}",
                step.planned_start, step.shown, step.canary_percent, step.canary_sessions
            )
        })
        .collect();
    insta::assert_snapshot!(rows.join("\n"), @r#"
        0s internal_users 100% 2.0% 5m 6
        5m internal_users 100% 2.0% 1d 1728
        1d5m internal_users 100%, beta_users 50% 6.0% 12h 2592
        1d12h5m 02:00-06:00 UTC 50%, 06:00-18:00 UTC 10%, 18:00-02:00 UTC 30% 27.0% 1d 23328
        2d12h5m 50%, from 02:00-06:00 UTC 51.0% 5m 153
        2d12h10m 70%, from 02:00-06:00 UTC 70.6% 5m 211
        2d12h15m 90%, from 02:00-06:00 UTC 90.2% 5m 270
        2d12h20m 100%, from 02:00-06:00 UTC 100.0% 5m 300
        "#);
    assert_eq!(propose(&plan, &traffic, None), []);
}

#[test]
fn a_step_that_gets_no_session_never_ends() {
    let segments = "[{name: a, weight: 50, duration: 1h}, {name: b, weight: progressive}]";
    let plan = rollout(&format!("{{segments: {segments}}}"));
    let traffic = per_second(10.0).with_segment_shares(vec![0.0, 1.0]).expect("shares");
    let forecast = Forecast::new(&plan, &traffic, None);
    assert_eq!(forecast.expected_length, None);
    assert_eq!(forecast.steps.last().and_then(|step| step.expected_start), None);
    let told = sentences(&plan, &forecast).join(" ");
    assert!(told.contains("The rollout never ends: the step needs 30 canary sessions in the step"), "{told}");
}

#[test]
fn a_step_that_gives_nobody_the_canary_waits_for_nothing() {
    let segments = "[{name: a, weight: 0, duration: 1h}, {name: b, weight: progressive}]";
    let plan = rollout(&format!("{{segments: {segments}}}"));
    let forecast = Forecast::new(&plan, &per_second(10.0), None);
    assert_eq!(forecast.expected_length, Some(forecast.planned_length));
}

#[test]
fn numbers_that_are_no_traffic_are_refused() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7] {
        assert!(Traffic::per_second(rate).is_err(), "{rate}");
    }
    assert!(per_second(1.0).with_requests(0.5).is_err());
    assert!(per_second(1.0).with_segment_shares(vec![0.5, 0.4]).is_err());
    assert!(per_second(1.0).with_segment_shares(vec![1.5, -0.5]).is_err());
}

/// Rollouts of which the comparison catches a harm of the size that the forecast calls visible.
#[test]
fn a_comparison_catches_the_harm_that_is_called_visible_in_about_4_of_5_rollouts() {
    use crate::stats::badness::Badness;
    use crate::stats::canary::{Baseline, CanaryCell, CanaryTest, Direction};
    use crate::stats::share::Share;

    let mut state = 11_u64;
    let mut uniform = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let block = "{steps: [{weight: 10, hold: 5m}, {weight: 11, hold: 50m}, {weight: 100, hold: 5m}], analysis: {metrics: [{name: success_rate, compareTo: stable, maxRegression: 0.000001pp}]}}";
    for rate in [2.0, 10.0] {
        let forecast = Forecast::new(&rollout(block), &per_second(rate), None);
        let sight = &forecast.gates[0].sights[1];
        let harm = sight.harm.expect("a harm is seen");
        let baseline = Baseline::new(0.05, (0.05_f64 * 0.95).sqrt()).expect("a baseline");
        let test = CanaryTest::new(baseline, 0.0, Direction::Rollback).expect("a test");
        let weight = Share::new(0.11).expect("a share");
        let n = (sight.sessions as f64 / 0.11) as u64;
        let mut n_caught = 0;
        for _ in 0..200 {
            let mut sides = [[(Badness::BEST, 0_u64), (Badness::WORST, 0)]; 2];
            let mut caught = false;
            for session in 1..=n {
                let is_canary = uniform() < 0.11;
                let is_bad = uniform() < if is_canary { harm } else { 0.05 };
                sides[usize::from(is_canary)][usize::from(is_bad)].1 += 1;
                if session % 100 == 0 && !caught {
                    let cell = CanaryCell { step: 0, weight, canary: &sides[1], stable: &sides[0] };
                    caught = test.log_e(&[cell]).ln() >= 20_f64.ln();
                }
            }
            n_caught += u32::from(caught);
        }
        assert!((140..=185).contains(&n_caught), "{n_caught} of 200 at {rate}/s with a harm of {harm}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_proposed_step_reaches_its_sessions(
        exponent in -3.5..4.5_f64,
        min_samples in 1_u64..400,
        minutes in 0_u64..60,
        p99 in any::<bool>(),
        requests in 1.0..30.0_f64,
    ) {
        let latency = if p99 { ", {name: latency_p99, threshold: 3s, comparison: '<='}" } else { "" };
        let block = format!("{{analysis: {{metrics: [{{name: success_rate, threshold: 90%, comparison: '>=', minSamples: {min_samples}, maturity: {minutes}m}}{latency}]}}}}");
        let plan = rollout(&block);
        let traffic = per_second(10_f64.powf(exponent)).with_requests(requests).expect("requests");
        let proposed = propose(&plan, &traffic, None);
        prop_assert!(proposed.len() >= 3);
        for pair in proposed.windows(2) {
            prop_assert!(pair[0].weight < pair[1].weight);
        }
        let needed = min_samples.max(if p99 { DEFAULT_MIN_SAMPLES } else { 0 });
        for step in &proposed {
            prop_assert!(step.canary_sessions >= needed, "{step:?}");
        }
        let steps: Vec<String> =
            proposed.iter().map(|step| format!("{{weight: {}, hold: {}}}", step.weight, step.hold)).collect();
        let with_steps = block.replacen('{', &format!("{{steps: [{}], ", steps.join(", ")), 1);
        let forecast = Forecast::new(&rollout(&with_steps), &traffic, None);
        prop_assert!(forecast.fits(), "{:#?}", forecast.steps);
    }

    #[test]
    fn more_traffic_is_never_slower_and_never_sees_less(rate in 0.01..5.0_f64, factor in 1.0..4.0_f64) {
        let plan = plan_of(FIRST);
        let (less, more) =
            (Forecast::new(&plan, &per_second(rate), None), Forecast::new(&plan, &per_second(rate * factor), None));
        prop_assert!(more.expected_length <= less.expected_length);
        for (less, more) in less.steps.iter().zip(&more.steps) {
            prop_assert!(more.canary_sessions + 1 >= less.canary_sessions.min(30));
        }
    }
}
