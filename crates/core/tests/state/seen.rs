//! Evidence as it would look with some sessions per variant under every weight that was in force.

use std::collections::{BTreeMap, BTreeSet};

use serin_core::aggregate::{Counters, Counts, Judge, Measure, Tally};
use serin_core::analysis::{Assigned, Cell, Evidence};
use serin_core::evidence::{Baseline, MetricBaseline};
use serin_core::metric::MetricName;
use serin_core::observation::Response;
use serin_core::plan::StepPhase;
use serin_core::routing::Variant;
use serin_core::weight::Weight;

use super::Pack;

/// What was seen up to a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    Good,
    Bad,
    BadOnBoth,
}

/// What was seen of the rollout under way: a hundred times `sessions` in each segment under each weight, split as it says.
pub(crate) fn evidence(pack: &Pack, seen: Seen, sessions: u64) -> Evidence {
    let (Some((rollout, _)), Some(plan)) = (pack.state().active(), pack.active_plan()) else {
        return Evidence::default();
    };
    let mut evidence = Evidence { baseline_candidate: Some(baseline(pack)), ..Evidence::default() };
    let mut told: BTreeSet<(u16, usize, Weight)> = BTreeSet::new();
    for span in &rollout.spans {
        for (segment, weight) in span.weights.iter().enumerate() {
            if !told.insert((span.step, segment, *weight)) {
                continue;
            }
            for variant in [Variant::Stable, Variant::Canary] {
                let share_bp = match variant {
                    Variant::Stable => 10_000 - u64::from(weight.bp()),
                    Variant::Canary => u64::from(weight.bp()),
                };
                let sessions = sessions * share_bp / 100;
                let is_bad = match (seen, variant) {
                    (Seen::Nothing, _) => continue,
                    (Seen::Good, _) | (Seen::Bad, Variant::Stable) => false,
                    (Seen::Bad, Variant::Canary) | (Seen::BadOnBoth, _) => true,
                };
                if sessions == 0 {
                    continue;
                }
                let bad = if is_bad { sessions * 3 / 5 } else { sessions * 3 / 100 };
                evidence.cells.push(Cell {
                    step: span.step,
                    start: plan.start(span.step, 0),
                    segment: u8::try_from(segment).expect("few segments"),
                    weight: *weight,
                    observing: plan.steps[usize::from(span.step)].phase == StepPhase::Observing,
                    variant,
                    counters: counters(sessions, bad),
                });
                let mut tally = Tally::default();
                tally.add_response(&Response { success: Some(true), ..Response::default() });
                *evidence.shown.of_mut(variant) = tally;
            }
        }
    }
    evidence.assigned = vec![Assigned { weight: Weight::HALF, canary: 200, stable: 200 }];
    evidence
}

fn counters(sessions: u64, bad: u64) -> Counters {
    let counts =
        Counts { pairs: BTreeMap::from([((1, 0), sessions - bad), ((1, 1), bad)]), ..Counts::default() };
    let measures = [Judge::Limit, Judge::Stable]
        .into_iter()
        .map(|judge| (Measure { metric: success_rate(), judge }, counts.clone()))
        .collect();
    Counters { sessions, measures }
}

fn success_rate() -> MetricName {
    MetricName::parse("success_rate").expect("a metric name")
}

fn baseline(pack: &Pack) -> Baseline {
    let constants = MetricBaseline {
        shown: 0.97,
        mean: 0.03,
        sd: 0.17,
        cap: None,
        edge: None,
        margin: Some(0.02),
        delay_p99_ms: None,
        sessions: 500,
    };
    Baseline {
        frozen_at: pack.now(),
        sessions: 500,
        request_cap: 1,
        requests_mean: 1.0,
        latency_cap_ms: 5_000.0,
        metrics: BTreeMap::from([(success_rate(), constants)]),
    }
}
