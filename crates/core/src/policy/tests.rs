//! Rule by rule: what keeps it, what does not, and what is said then.

use super::*;
use crate::manifest::Node;
use crate::parse;
use crate::plan::GateRule;

fn policy(rules: &str) -> Policy {
    let node = Node::read(rules).expect("YAML");
    parse::policy(&node).unwrap_or_else(|problems| panic!("{problems}"))
}

fn refused(rules: &str) -> String {
    parse::policy(&Node::read(rules).expect("YAML")).expect_err("the policy is wrong").to_string()
}

fn plan(rollout: &str) -> Plan {
    plan_of("{name: support, labels: {tier: critical}}", rollout)
}

fn plan_of(metadata: &str, rollout: &str) -> Plan {
    let text = format!(
        "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {metadata}\n\
         spec: {{version: 1.0.0, rollout: {rollout}}}"
    );
    parse::parse(&text).unwrap_or_else(|problems| panic!("{problems}")).plan
}

/// What a rule says of a rollout, each violation on a line with its hint.
fn told(rules: &str, rollout: &str) -> String {
    let violations = policy(rules).violations(&plan(rollout));
    let told = violations.iter().map(|violation| {
        let Violation { rule, path, message, hint } = violation;
        format!("{rule}: {path}: {message} ({hint})")
    });
    told.collect::<Vec<_>>().join("\n")
}

const START: &str = "[{name: careful, maxFirstWeight: 5%}]";

#[test]
fn max_first_weight_bounds_the_first_step_however_it_is_written() {
    assert_eq!(told(START, "{canaryWeight: 5}"), "");
    assert_eq!(
        told(START, "{canaryWeight: 10}"),
        "careful: spec.rollout.canaryWeight: the first weight is 10%, above the 5% that the policy allows (start at 5% or less)"
    );
    assert_eq!(told(START, "{}"), told(START, "{canaryWeight: 10}"), "the default counts");
    assert_eq!(
        told(START, "{steps: [{weight: 6, hold: 5m}, {weight: 100, hold: 5m}]}"),
        "careful: spec.rollout.steps[0].weight: the first weight is 6%, above the 5% that the policy allows (start at 5% or less)"
    );
    assert_eq!(told(START, "{steps: [{weight: 5, hold: 5m}, {weight: 100, hold: 5m}]}"), "");
    assert!(told(START, "{strategy: immediate}").starts_with("careful: spec.rollout.strategy: "));
    assert_eq!(told("[{name: any, maxFirstWeight: 100%}]", "{strategy: immediate}"), "");
}

#[test]
fn max_first_weight_takes_the_highest_window_because_a_rollout_may_start_in_any() {
    let windows = |night: u8| {
        format!("{{canaryWeight: 5, schedule: [{{window: '22:00-06:00 UTC', canaryWeight: {night}}}]}}")
    };
    assert_eq!(told(START, &windows(5)), "");
    assert_eq!(
        told(START, &windows(20)),
        "careful: spec.rollout.schedule: the first weight is 20%, above the 5% that the policy allows (start at 5% or less)"
    );
}

#[test]
fn max_first_weight_bounds_each_segment_but_those_that_the_rule_excepts() {
    let stages = "{canaryWeight: 5, segments: [{name: staff, weight: 100, duration: 1h}, \
                  {name: beta, weight: 20, duration: 1h}, {name: all, weight: progressive}]}";
    assert_eq!(
        told(START, stages),
        "careful: spec.rollout.segments[0].weight: the first weight of segment staff is 100%, above the 5% that the policy allows (start at 5% or less)\n\
         careful: spec.rollout.segments[1].weight: the first weight of segment beta is 20%, above the 5% that the policy allows (start at 5% or less)"
    );
    assert_eq!(told("[{name: careful, maxFirstWeight: 5%, exceptSegments: [staff, beta]}]", stages), "");
}

#[test]
fn required_gates_are_there_and_at_least_as_strict() {
    let rules = "[{name: judged, requiredGates: [success_rate, {name: latency_p99, threshold: 4s, comparison: '<='}, \
                 {name: error_rate, compareTo: stable, maxRegression: 2pp}]}]";
    let with = |gates: &str| told(rules, &format!("{{analysis: {{metrics: [{gates}]}}}}"));
    let good = "{name: success_rate, threshold: 50%, comparison: '>='}, {name: latency_p99, threshold: 4000ms, comparison: '<'}, \
                {name: error_rate, compareTo: stable, maxRegression: 1pp}";
    assert_eq!(with(good), "");
    insta::assert_snapshot!(with(
        "{name: latency_p99, threshold: 5s, comparison: '<='}, {name: error_rate, compareTo: stable, maxRegression: 10%}"
    ));
}

#[test]
fn whatever_passes_the_stricter_gate_passes_the_required_one() {
    let gate = |sign: &str, limit: u32| {
        plan(&format!(
            "{{analysis: {{metrics: [{{name: success_rate, threshold: {limit}%, comparison: '{sign}'}}]}}}}"
        ))
    };
    for asked in [">=", ">", "<=", "<"] {
        let rules = policy(&format!(
            "[{{name: r, requiredGates: [{{name: success_rate, threshold: 50%, comparison: '{asked}'}}]}}]"
        ));
        for given in [">=", ">", "<=", "<"] {
            for limit in [49, 50, 51] {
                let plan = gate(given, limit);
                let kept = rules.violations(&plan).is_empty();
                let rule = plan.analysis.gates[0].rule;
                let GateRule::Threshold { comparison, limit } = rule else { panic!("a threshold") };
                let asked_rule = rules.rules()[0].required_gates[0].rule.as_ref().map(|asked| asked.rule);
                let Some(GateRule::Threshold { comparison: asks, limit: at }) = asked_rule else {
                    panic!("a threshold")
                };
                // A hundredth of a percent is fine enough to tell limits of whole percents apart.
                let implied = (0..=10_000)
                    .map(|bp| f64::from(bp) / 10_000.0)
                    .chain([at, limit])
                    .all(|value| !comparison.holds(value, limit) || asks.holds(value, at));
                assert_eq!(kept, implied, "asked {asked} 50%, given {given} {limit}");
            }
        }
    }
}

#[test]
fn a_required_gate_of_the_catalogue_is_measured_by_serin_and_an_immediate_rollout_has_none() {
    let rules = "[{name: judged, requiredGates: [success_rate]}]";
    let outside = "{analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '>=', provider: prom, query: q}]}}";
    insta::assert_snapshot!(told(rules, outside));
    insta::assert_snapshot!(told(rules, "{strategy: immediate}"));
    let own = "{analysis: {outcomes: [{name: order_placed, kind: rate, better: higher}], \
               metrics: [{name: order_placed, threshold: 5%, comparison: '>='}]}}";
    assert_eq!(told("[{name: judged, requiredGates: [order_placed]}]", own), "");
    assert_ne!(told("[{name: judged, requiredGates: [order_placed]}]", "{}"), "");
}

#[test]
fn a_rule_is_for_the_packs_that_it_names_with_all_of_its_labels() {
    let rules =
        policy("[{name: r, packs: ['support-*', billing], labels: {tier: critical}, maxFirstWeight: 1}]");
    let is_for = |metadata: &str| !rules.violations(&plan_of(metadata, "{}")).is_empty();
    assert!(is_for("{name: support-mail, labels: {tier: critical, team: a}}"));
    assert!(is_for("{name: billing, labels: {tier: critical}}"));
    assert!(!is_for("{name: billing-2, labels: {tier: critical}}"));
    assert!(!is_for("{name: support-mail, labels: {tier: low}}"));
    assert!(!is_for("{name: support-mail}"));
}

#[test]
fn another_policy_has_another_digest_and_none_has_none() {
    assert_eq!(Policy::NONE.digest(), None);
    assert_eq!(policy("[]").digest(), None);
    let (first, other) = (policy(START).digest(), policy("[{name: careful, maxFirstWeight: 6%}]").digest());
    assert!(first.is_some() && first != other);
    let again = serde_json::to_string(policy(START).written()).unwrap();
    assert_eq!(policy(&again), policy(START), "the form of the API is the form of the settings");
}

#[test]
fn everything_that_is_wrong_with_a_policy_is_told_with_its_place() {
    insta::assert_snapshot!(refused(
        "- name: a b\n  maxFirstWeight: 0\n- name: empty\n- {name: r, maxFirstWeigt: 5}\n- {name: s, exceptSegments: [a], requiredGates: [sucess_rate, {name: order_placed, threshold: 5%, comparison: '>='}, {name: latency_p99, threshold: 3s}]}\n- {name: s, maxFirstWeight: 5%, packs: [], labels: all}\n- {name: s, maxFirstWeight: 5%, packs: ['Support']}\n"
    ));
    insta::assert_snapshot!(refused("name: r"));
}

#[test]
fn what_is_wrong_with_approvals_and_promoters_is_told() {
    insta::assert_snapshot!(refused(
        "- {name: a, approvals: {count: 0, before: 0}}\n- {name: b, approvals: yes}\n- {name: c, promoteFully: {}}\n- {name: d, promoteFully: {roles: [viewer, admn], keys: []}}\n"
    ));
}

#[test]
fn an_immediate_rollout_asks_for_no_approval() {
    let rules = "[{name: two-eyes, approvals: {before: 50%}}, {name: own, approvals: {}}]";
    assert_eq!(
        told(rules, "{strategy: immediate}"),
        "two-eyes: spec.rollout.strategy: `strategy: immediate` asks for no approval, and the policy requires it before 50% (use `strategy: canary`)"
    );
}

#[test]
fn what_is_wrong_with_a_freeze_is_told() {
    insta::assert_snapshot!(refused(
        "- {name: a, freeze: ['18:00-08:00', '08:00-08:00 UTC', 3]}\n- {name: b, freeze: [{days: [sat]}, {window: '18:00-08:00 Mars/Base', days: [saturday], from: soon}]}\n- {name: c, freeze: [{window: '00:00-24:00 UTC', from: 2027-01-03, until: 2026-12-20}]}\n- {name: d, freeze: []}\n"
    ));
}
