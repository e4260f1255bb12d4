//! Values that cannot be are refused with a reason, and values at the edge of what can be break nothing.

use std::collections::BTreeMap;

use serin_core::evidence::{SessionFacts, fold, fold_ages, freeze, measures};
use serin_core::metric::Signal;
use serin_core::observation::{Fact, InvalidOutcome, OUTCOMES, Observation, Outcome, Response};
use serin_core::parse::parse;
use serin_core::plan::Plan;
use serin_core::routing::Variant;
use serin_core::units::{HoldFor, Timestamp};

#[test]
fn an_outcome_that_is_no_number_or_out_of_range_is_refused_with_its_reason() {
    for name in OUTCOMES {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(
                matches!(Outcome::parse(name, value, &[]), Err(InvalidOutcome::NotFinite(_))),
                "{name} {value}"
            );
        }
        for value in [-2.0, 5.5, 1e300] {
            let refused = Outcome::parse(name, value, &[]).expect_err("outside every range");
            assert!(refused.to_string().contains(name), "{refused}");
            assert!(matches!(refused, InvalidOutcome::OutOfRange { .. }), "{name} {value}: {refused}");
        }
    }
}

#[test]
fn a_response_with_a_number_that_cannot_be_is_refused_with_the_field() {
    for value in [f64::NAN, f64::INFINITY, -1.0, 1.1e12] {
        let of = |field: &str| {
            let number = Some(value);
            match field {
                "latency_ms" => Response { latency_ms: number, ..Response::default() },
                "ttft_ms" => Response { ttft_ms: number, ..Response::default() },
                "input_tokens" => Response { input_tokens: number, ..Response::default() },
                "output_tokens" => Response { output_tokens: number, ..Response::default() },
                "cached_tokens" => Response { cached_tokens: number, ..Response::default() },
                "cost" => Response { cost: number, ..Response::default() },
                _ => Response { response_length: number, ..Response::default() },
            }
        };
        for field in [
            "latency_ms",
            "ttft_ms",
            "input_tokens",
            "output_tokens",
            "cached_tokens",
            "cost",
            "response_length",
        ] {
            assert_eq!(of(field).implausible().map(|(field, _)| field), Some(field), "{value}");
        }
    }
}

fn plan() -> Plan {
    let gates = "{name: latency_avg, compareTo: stable, maxRegression: 10%}, \
         {name: latency_p99, threshold: 3s, comparison: '<='}, \
         {name: user_satisfaction_avg, threshold: 4, comparison: '>='}";
    parse(&format!(
        "{{apiVersion: omnia.altairalabs.ai/v1alpha1, kind: PromptPack, metadata: {{name: support}}, \
         spec: {{version: 2.0.0, rollout: {{analysis: {{metrics: [{gates}]}}}}}}}}"
    ))
    .expect("a manifest without problems")
    .plan
}

/// A session whose one request shows a number everywhere, and whose outcomes show another.
fn session(number: f64, outcome: f64) -> SessionFacts {
    let at = Timestamp::UNIX_EPOCH;
    let response = Response {
        success: Some(true),
        latency_ms: Some(number),
        ttft_ms: Some(number),
        input_tokens: Some(number),
        output_tokens: Some(number),
        cost: Some(number),
        response_length: Some(number),
        ..Response::default()
    };
    assert_eq!(response.implausible(), None, "{number} can be");
    let seen = |fact| Observation { at, until: at, request: None, fact };
    let outcomes = [Signal::Completion, Signal::Escalation, Signal::Satisfaction, Signal::Sentiment];
    let outcomes = outcomes.map(|signal| seen(Fact::Outcome(Outcome { signal, value: outcome })));
    let observations = [seen(Fact::Response(response))].into_iter().chain(outcomes).collect();
    SessionFacts { assigned_at: at, variant: Variant::Stable, observations }
}

#[test]
fn the_smallest_and_the_largest_values_freeze_and_fold_to_counts() {
    let plan = plan();
    let now = HoldFor::from_hours(2).after(Timestamp::UNIX_EPOCH);
    let extremes = [0.0, f64::MIN_POSITIVE, 1e-300, 1.0, 1e12];
    for frozen_on in extremes {
        let sessions: Vec<SessionFacts> = (0..40).map(|_| session(frozen_on, 1.0)).collect();
        let baseline = freeze(&plan, &sessions, 30, now).expect("forty sessions");
        for constants in baseline.metrics.values() {
            assert!(constants.mean.is_finite() && constants.sd.is_finite(), "{frozen_on}: {constants:?}");
        }
        let measures = measures(&plan, &baseline);
        for number in extremes {
            let mut counted: BTreeMap<String, u64> = BTreeMap::new();
            for age in fold_ages(&measures) {
                for (measure, counts) in fold(&session(number, 1.0), age, &measures, &baseline).measures {
                    *counted.entry(format!("{measure:?}")).or_default() += counts.sessions();
                }
            }
            assert!(counted.values().all(|sessions| *sessions == 1), "{number}: {counted:?}");
            assert!(counted.len() > 10, "{number}: {counted:?}");
        }
    }
}
