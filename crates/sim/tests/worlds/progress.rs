//! `progress: {when: evidence}`: a step ends when every gate is shown to be within the margin.

use serin_core::rollout::{HoldCause, Phase};
use serin_core::routing::Variant::Canary;
use serin_sim::Truth;

use crate::support::{healthy, minutes};

/// The usual ramp with a gate on success, and steps that end by evidence.
fn by_evidence(more: &str) -> String {
    format!(
        "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: support-prompts}}\n\
         spec: {{version: \"2.4.0\", rollout: {{canaryWeight: 10, stepWeight: 10, stepInterval: 5m,\n\
         progress: {{when: evidence, margin: 3pp{more}}},\n\
         analysis: {{interval: 1m, metrics: [{{name: success_rate, threshold: 80%, comparison: \">=\"}}]}}}}}}\n"
    )
}

#[test]
fn a_step_waits_until_every_gate_is_shown_to_be_within_the_margin() {
    let mut world = healthy(61, 10.0);
    world.apply(&by_evidence("")).expect("accepted");
    world.run_to(minutes(11));
    assert_eq!(
        (world.weight().percent(), world.holds()),
        (10.0, vec![HoldCause::Unproven]),
        "the clock alone says 20"
    );
    assert!(
        world.run_until(minutes(600), |world| world.phase() == Phase::Completed),
        "a healthy canary gets there"
    );
    assert!(world.since_start() > minutes(45), "later than by the clock: {}", world.since_start());
}

#[test]
fn a_canary_beyond_the_margin_is_not_promoted_by_evidence() {
    for seed in 0..8 {
        // Well inside its gate of 80 %, and 6 points worse than stable where 3 are accepted.
        let worse = Truth::default().success(0.88);
        let mut world = healthy(100 + seed, 10.0).truth(Canary, Truth::healthy().changed_by(&worse));
        world.apply(&by_evidence("")).expect("accepted");
        world.run_to(minutes(240));
        assert_eq!(world.weight().percent(), 10.0, "seed {seed}: {:?}", world.holds());
    }
}

#[test]
fn a_step_that_waits_longer_than_max_hold_asks_for_a_person() {
    let mut world = healthy(62, 1.0);
    world.apply(&by_evidence(", maxHold: 30m")).expect("accepted");
    world.run_to(minutes(34));
    assert_eq!(world.holds(), vec![HoldCause::Unproven]);
    world.run_to(minutes(38));
    assert_eq!(world.holds(), vec![HoldCause::Unproven, HoldCause::Deadline]);
}
