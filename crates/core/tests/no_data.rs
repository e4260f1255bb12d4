//! Few or no data are never a pass, whatever they say.

mod state;

use std::collections::BTreeMap;

use serin_core::aggregate::{Counters, Counts, Judge, Measure};
use serin_core::analysis::{Analysis, Cell, Evidence, GateState, Verdict, analyze};
use serin_core::evidence::{Baseline, MetricBaseline};
use serin_core::metric::MetricName;
use serin_core::rollout::{Rollout, State};
use serin_core::routing::Variant;
use serin_core::weight::Weight;

use state::{Pack, changed};

fn name(text: &str) -> MetricName {
    MetricName::parse(text).expect("a metric name")
}

fn baseline(pack: &Pack, metric: &str) -> Baseline {
    let constants = MetricBaseline {
        shown: 0.01,
        mean: 0.01,
        sd: 0.1,
        cap: None,
        edge: Some(100.0),
        margin: Some(0.01),
        delay_p99_ms: None,
        sessions: 1_000,
    };
    Baseline {
        frozen_at: pack.now(),
        sessions: 1_000,
        request_cap: 1,
        requests_mean: 1.0,
        latency_cap_ms: 60_000.0,
        metrics: BTreeMap::from([(name(metric), constants)]),
    }
}

/// Reads one gate in the second step, with canary and stable sessions as (good, bad).
fn check(gate: &str, metric: &str, canary: Option<(u64, u64)>, stable: Option<(u64, u64)>) -> Analysis {
    let mut pack = Pack::with_stable("1.0.0");
    changed(pack.apply("2.0.0", &format!("{{analysis: {{metrics: [{gate}]}}}}")));
    let plan = pack.plan("2.0.0").clone();
    let mut rollout: Rollout = pack.rollout().clone();
    let State::Active(active) = &mut rollout.state else { panic!("just started") };
    active.step = 1;
    active.baseline = Some(baseline(&pack, metric));
    let active = active.clone();
    let mut evidence = Evidence::default();
    for (variant, counts) in [(Variant::Canary, canary), (Variant::Stable, stable)] {
        let Some((good, bad)) = counts else { continue };
        let counts = Counts { pairs: BTreeMap::from([((1, 0), good), ((1, 1), bad)]), ..Counts::default() };
        let measures = [Judge::Limit, Judge::Stable]
            .into_iter()
            .map(|judge| (Measure { metric: name(metric), judge }, counts.clone()))
            .collect();
        let counters = Counters { sessions: good + bad, measures };
        let weight = Weight::from_bp(1_000).expect("ten percent");
        evidence.cells.push(Cell {
            step: 1,
            start: 1,
            segment: 0,
            weight,
            observing: false,
            variant,
            counters,
        });
    }
    analyze(&plan, &active, &evidence, pack.now())
}

const AGAINST_STABLE: &str = "{name: error_rate, compareTo: stable, maxRegression: 1pp}";
const SLOWNESS: &str = "{name: latency_p90, compareTo: stable, maxRegression: 10ms}";

/// FIELD bug 9: failures [0, 1, 2, 1, 0, 0] against none, as six points or as six hundred, is no pass.
#[test]
fn bug_09_failures_against_none_are_never_a_pass() {
    for times in [1, 5, 10, 100] {
        let analysis =
            check(AGAINST_STABLE, "error_rate", Some((2 * times, 4 * times)), Some((6 * times, 0)));
        assert_ne!(analysis.verdict, Verdict::Pass, "{times} times: {}", analysis.summary());
        assert_ne!(analysis.gates[0].state, GateState::Pass, "{times} times");
    }
    let many = check(AGAINST_STABLE, "error_rate", Some((200, 400)), Some((600, 0)));
    assert_eq!(many.verdict, Verdict::Fail, "six hundred of them are proof");
}

/// FIELD bug 9: seven of ten points at a hundred times the value is no pass.
#[test]
fn bug_09_seven_of_ten_points_at_a_hundred_times_the_value_are_never_a_pass() {
    for times in [1, 3, 10, 100] {
        let analysis = check(SLOWNESS, "latency_p90", Some((3 * times, 7 * times)), Some((9 * times, times)));
        assert_ne!(analysis.verdict, Verdict::Pass, "{times} times: {}", analysis.summary());
    }
}

/// FIELD bug 10: nothing against nothing is no data.
#[test]
fn bug_10_nothing_against_nothing_is_no_data() {
    let threshold = "{name: success_rate, threshold: 90%, comparison: '>='}";
    for (gate, metric) in
        [(threshold, "success_rate"), (AGAINST_STABLE, "error_rate"), (SLOWNESS, "latency_p90")]
    {
        let nothing = check(gate, metric, None, None);
        assert_eq!(
            (nothing.verdict, nothing.gates[0].state),
            (Verdict::NoData, GateState::NoData),
            "{metric}"
        );
        let one_sided = check(gate, metric, None, Some((1_000, 0)));
        assert_eq!(
            one_sided.verdict,
            Verdict::NoData,
            "{metric}: stable alone says nothing about the canary"
        );
    }
}

#[test]
fn too_few_sessions_are_no_data_even_when_all_of_them_are_good() {
    let gate = "{name: success_rate, threshold: 90%, comparison: '>='}";
    for (sessions, expected) in [(1, Verdict::NoData), (29, Verdict::NoData), (30, Verdict::Pass)] {
        assert_eq!(
            check(gate, "success_rate", Some((sessions, 0)), None).verdict,
            expected,
            "{sessions} sessions"
        );
    }
    let slow = "{name: latency_p99, threshold: 3000ms, comparison: '<='}";
    for (sessions, expected) in [(30, Verdict::NoData), (99, Verdict::NoData), (100, Verdict::Pass)] {
        assert_eq!(
            check(slow, "latency_p99", Some((sessions, 0)), None).verdict,
            expected,
            "{sessions} for a p99"
        );
    }
}
