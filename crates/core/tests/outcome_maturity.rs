//! Outcomes are read when nearly all of stable's have come in, at the same age in both variants.

use serin_core::evidence::{SessionFacts, freeze, measures};
use serin_core::observation::{Fact, Observation, Outcome};
use serin_core::parse::parse;
use serin_core::plan::Plan;
use serin_core::routing::Variant;
use serin_core::units::{HoldFor, Timestamp};

fn plan() -> Plan {
    let text = "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {name: support}\n\
                spec: {version: \"1.0.0\", rollout: {analysis: {metrics: [\
                {name: task_completion_rate, threshold: 80%, comparison: \">=\"}]}}}\n";
    parse(text).expect("the manifest is right").plan
}

fn now() -> Timestamp {
    "2026-11-02T09:00:00Z".parse().expect("a point in time")
}

/// A hundred sessions that began `age` ago, each with its outcome after `delay`.
fn sessions(age: HoldFor, delay: HoldFor) -> Vec<SessionFacts> {
    let assigned_at = age.before(now());
    let at = delay.after(assigned_at);
    let outcome = Outcome::parse("task_completion", 1.0, &[]).expect("a known outcome");
    let seen = Observation { at, until: at, request: None, fact: Fact::Outcome(outcome) };
    vec![SessionFacts { assigned_at, variant: Variant::Stable, observations: vec![seen] }; 100]
}

/// When the completion rate is read, with a baseline from such sessions.
fn read_at(sessions: &[SessionFacts]) -> HoldFor {
    let plan = plan();
    let baseline = freeze(&plan, sessions, 30, now()).expect("a hundred sessions suffice");
    let measures = measures(&plan, &baseline);
    let completion = measures.iter().find(|measure| measure.metric.name.as_str() == "task_completion_rate");
    completion.expect("the gate is measured").maturity.read_at
}

#[test]
fn an_outcome_is_read_after_three_times_the_delay_that_stable_has() {
    let known = read_at(&sessions(HoldFor::from_hours(2), HoldFor::from_mins(3)));
    assert_eq!(
        known,
        HoldFor::from_mins(10),
        "3 x 3 minutes, within a bucket's width, rounded up to a minute"
    );
}

#[test]
fn young_sessions_say_nothing_about_how_late_outcomes_come() {
    let unknown = read_at(&sessions(HoldFor::from_mins(10), HoldFor::from_mins(3)));
    assert_eq!(unknown, HoldFor::from_mins(30), "the idle timeout, while the delay is unknown");
}

#[test]
fn no_outcome_is_waited_for_longer_than_a_session_lives() {
    let late = read_at(&sessions(HoldFor::from_hours(40), HoldFor::from_hours(20)));
    assert_eq!(late, HoldFor::from_hours(24));
}
