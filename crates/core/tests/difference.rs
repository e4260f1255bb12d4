//! The difference that people see, in the unit of its metric, and only once there are enough sessions.

mod state;

use std::collections::BTreeMap;

use serin_core::aggregate::{Counters, Counts, Judge, Measure};
use serin_core::analysis::{Cell, Difference, Evidence, Sides, differences};
use serin_core::evidence::{Baseline, MetricBaseline};
use serin_core::metric::MetricName;
use serin_core::observation::Response;
use serin_core::rollout::State;
use serin_core::routing::Variant;
use serin_core::weight::Weight;

use state::{Pack, changed};

fn name(text: &str) -> MetricName {
    MetricName::parse(text).expect("a metric name")
}

/// The difference of a metric after sessions of the second step, which are (badness or value, how many) by variant.
fn difference(metric: &str, cap: Option<f64>, sessions: &Sides<Counts>) -> Option<Difference> {
    let mut pack = Pack::with_stable("1.0.0");
    changed(pack.apply("2.0.0", "{}"));
    let constants = MetricBaseline {
        shown: 0.06,
        mean: 0.06,
        sd: 0.2,
        cap,
        edge: None,
        margin: None,
        delay_p99_ms: None,
        sessions: 1_000,
    };
    let baseline = Baseline {
        frozen_at: pack.now(),
        sessions: 1_000,
        request_cap: 1,
        requests_mean: 1.0,
        latency_cap_ms: 60_000.0,
        metrics: BTreeMap::from([(name(metric), constants)]),
    };
    let mut rollout = pack.rollout().clone();
    let State::Active(active) = &mut rollout.state else { panic!("just started") };
    active.baseline = Some(baseline);
    let cell = |variant| Cell {
        step: 1,
        start: 1,
        segment: 0,
        weight: Weight::from_bp(1_000).expect("ten percent"),
        observing: false,
        variant,
        counters: Counters {
            sessions: sessions.of(variant).sessions(),
            measures: BTreeMap::from([(
                Measure { metric: name(metric), judge: Judge::Stable },
                sessions.of(variant).clone(),
            )]),
        },
    };
    let evidence =
        Evidence { cells: vec![cell(Variant::Canary), cell(Variant::Stable)], ..Evidence::default() };
    differences(pack.plan("2.0.0"), &rollout, &evidence).get(&name(metric)).copied()
}

fn rate(good: u64, bad: u64) -> Counts {
    Counts { pairs: BTreeMap::from([((1, 0), good), ((1, 1), bad)]), ..Counts::default() }
}

fn near(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-9
}

#[test]
fn a_canary_that_fails_more_has_a_lower_success_rate_and_a_higher_error_rate() {
    let sessions = Sides { canary: rate(900, 100), stable: rate(8_460, 540) };
    let success = difference("success_rate", None, &sessions).expect("there are enough sessions");
    assert!(near(success.estimate, -0.04), "{success:?}");
    assert!(success.low < -0.04 && success.high > -0.04 && success.high - success.low < 0.2, "{success:?}");
    let errors = difference("error_rate", None, &sessions).expect("there are enough sessions");
    let mirrored = [-success.estimate, -success.high, -success.low];
    assert_eq!([errors.estimate, errors.low, errors.high], mirrored);
}

#[test]
fn a_mean_is_told_in_its_own_unit() {
    // A bucket that stands for about 300, and one for about 400.
    let at = |value: f64| serin_core::stats::quantile::LogBuckets::index(value);
    let counts = |value: f64, n| Counts { values: BTreeMap::from([(at(value), n)]), ..Counts::default() };
    let sessions = Sides { canary: counts(400.0, 1_000), stable: counts(300.0, 9_000) };
    let tokens =
        difference("output_tokens_avg", Some(1_000.0), &sessions).expect("there are enough sessions");
    assert!((90.0..110.0).contains(&tokens.estimate), "{tokens:?}");
}

#[test]
fn nothing_is_shown_of_few_sessions() {
    assert_eq!(
        difference("success_rate", None, &Sides { canary: rate(300, 40), stable: rate(8_000, 500) }),
        None
    );
    assert_eq!(difference("success_rate", None, &Sides::default()), None);
}

#[test]
fn a_quantile_is_bounded_by_the_ranks_of_both_sides() {
    let mut pack = Pack::with_stable("1.0.0");
    changed(pack.apply("2.0.0", "{}"));
    let mut rollout = pack.rollout().clone();
    let State::Active(active) = &mut rollout.state else { panic!("just started") };
    active.baseline = Some(Baseline {
        frozen_at: pack.now(),
        sessions: 0,
        request_cap: 1,
        requests_mean: 1.0,
        latency_cap_ms: 60_000.0,
        metrics: BTreeMap::new(),
    });
    let mut evidence = Evidence::default();
    for n in 0..1_000_u32 {
        for (variant, slower) in [(Variant::Stable, 0.0), (Variant::Canary, 500.0)] {
            let latency_ms = Some(1_000.0 + f64::from(n) + slower);
            evidence.shown.of_mut(variant).add_response(&Response { latency_ms, ..Response::default() });
        }
    }
    let told = differences(pack.plan("2.0.0"), &rollout, &evidence);
    let p50 = told[&name("latency_p50")];
    assert!((450.0..550.0).contains(&p50.estimate) && p50.low > 300.0 && p50.high < 700.0, "{p50:?}");
    assert!(!told.contains_key(&name("success_rate")), "there is nothing to compare: {told:?}");
}
