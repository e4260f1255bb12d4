//! What is wrong with manifests, as people read it.

use super::*;

#[test]
fn each_problem_shows_its_place_and_a_way_out() {
    insta::assert_snapshot!(problems(&manifest("strategy: canary\ncanaryWeight: 140")), @r#"
        error: spec.rollout.canaryWeight: weight 140 % is outside 0 to 100 %
          --> line 9, column 19
           |
         9 |     canaryWeight: 140
           |                   ^
        "#);
}

#[test]
fn every_problem_is_told_at_once() {
    let text = "apiVersion: v1
kind: PromptPak
metadata: {name: Support, onwer: me}
spec:
  version: 2.4
  rollout:
    canary_weight: 10
    stepInterval: 5
    holdback: ten
    analysis: {failureThreshold: 0, interval: 0s, confidence: 30%}
";
    insta::assert_snapshot!(problems(text), @r#"
        error: apiVersion: "v1" is not omnia.altairalabs.ai/v1alpha1
          --> line 1, column 13
           |
         1 | apiVersion: v1
           |             ^

        error: kind: "PromptPak" is not PromptPack
          --> line 2, column 7
           |
         2 | kind: PromptPak
           |       ^
          hint: did you mean `PromptPack`?

        error: metadata.name: pack name "Support" must start with a lower-case letter and hold only a-z, 0-9 and '-'
          --> line 3, column 18
           |
         3 | metadata: {name: Support, onwer: me}
           |                  ^

        error: metadata.onwer: unknown field
          --> line 3, column 27
           |
         3 | metadata: {name: Support, onwer: me}
           |                           ^
          hint: did you mean `owner`?

        error: spec.version: version "2.4" is no semantic version such as 2.4.0
          --> line 5, column 12
           |
         5 |   version: 2.4
           |            ^

        error: spec.rollout.canary_weight: unknown field
          --> line 7, column 5
           |
         7 |     canary_weight: 10
           |     ^
          hint: did you mean `canaryWeight`?

        error: spec.rollout.stepInterval: "5" has no unit
          --> line 8, column 19
           |
         8 |     stepInterval: 5
           |                   ^
          hint: write 5m for 5 minutes or 5s for 5 seconds

        error: spec.rollout.holdback: "ten" is no weight such as 10 or 10%
          --> line 9, column 15
           |
         9 |     holdback: ten
           |               ^

        error: spec.rollout.analysis.failureThreshold: 0 is outside 1 to 1000
          --> line 10, column 34
            |
         10 |     analysis: {failureThreshold: 0, interval: 0s, confidence: 30%}
            |                                  ^

        error: spec.rollout.analysis.interval: must be longer than 0s
          --> line 10, column 47
            |
         10 |     analysis: {failureThreshold: 0, interval: 0s, confidence: 30%}
            |                                               ^

        error: spec.rollout.analysis.confidence: confidence "30%" is outside 50% to 99.99%
          --> line 10, column 63
            |
         10 |     analysis: {failureThreshold: 0, interval: 0s, confidence: 30%}
            |                                                               ^
        "#);
}

#[test]
fn what_is_no_yaml_is_told_with_its_line() {
    insta::assert_snapshot!(problems("spec:\n  a: [1, 2\n  b: 3\n"), @r#"
        error: illegal placement of ':' indicator
          --> line 3, column 4
           |
         3 |   b: 3
           |    ^
        "#);
    insta::assert_snapshot!(problems("spec:\n\tversion: 1.0.0\n"), @r#"
        error: tabs disallowed within this context (block indentation)
          --> line 2, column 2
           |
         2 |  version: 1.0.0
           |  ^
          hint: YAML is indented with spaces, this line starts with a tab
        "#);
    insta::assert_snapshot!(problems("kind: a\nkind: b\n"), @r#"
        error: duplicate mapping key `kind` is not allowed here
          --> line 2, column 1
           |
         2 | kind: b
           | ^
        "#);
    insta::assert_snapshot!(problems("kind: a\n---\nkind: b\n"), @r#"
        error: only single YAML document expected but multiple found
          --> line 3, column 1
           |
         3 | kind: b
           | ^
        "#);
    insta::assert_snapshot!(problems(""), @r#"
        error: expected a mapping, found nothing
          --> line 1, column 1
        "#);
    insta::assert_snapshot!(problems("- a\n"), @r#"
        error: expected a mapping, found a list
          --> line 1, column 1
           |
         1 | - a
           | ^
        "#);
    insta::assert_snapshot!(problems("a: *b\n"), @r#"
        error: reference to unknown value
          --> line 1, column 4
           |
         1 | a: *b
           |    ^
        "#);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{aliases}]").expect("a string takes everything");
    }
    insta::assert_snapshot!(problems(&bomb), @r#"
        error: YAML document too large or too complex: total_replayed_events=5001 > 5000
          --> line 4, column 20
           |
         4 | a3: &a3 [*a2, *a2, *a2, *a2, *a2, *a2, *a2, *a2, *a2, *a2]
           |                    ^
        "#);
}

#[test]
fn missing_fields_point_to_where_they_belong() {
    insta::assert_snapshot!(problems("kind: PromptPack\nmetadata: {}\nspec:\n  source: {}\n"), @r#"
        error: apiVersion: missing field
          --> line 1, column 1
           |
         1 | kind: PromptPack
           | ^
          hint: add `apiVersion: omnia.altairalabs.ai/v1alpha1`

        error: metadata.name: missing field
          --> line 2, column 1
           |
         2 | metadata: {}
           | ^
          hint: add `name: my-pack`

        error: spec.version: missing field
          --> line 3, column 1
           |
         3 | spec:
           | ^
          hint: add `version: "1.0.0"`

        error: spec.source: neither `file` nor `inline` is given
          --> line 4, column 3
           |
         4 |   source: {}
           |   ^
          hint: without a `source` the pack is version only
        "#);
}

#[test]
fn a_ramp_is_written_in_one_way() {
    insta::assert_snapshot!(messages("canaryWeight: 10\nstepInterval: 5m\nsteps: [{weight: 10, hold: 5m}]"), @r#"
        canaryWeight: cannot be combined with `steps` (`steps` already says every weight and hold)
        stepInterval: cannot be combined with `steps` (`steps` already says every weight and hold)
        "#);
    insta::assert_snapshot!(messages("steps: []"), @"steps: the list is empty (list `{weight: 10%, hold: 5m}` and so on)");
    insta::assert_snapshot!(messages("steps: [{weight: 10}, {hold: 5m}, {weight: 10, hold: 5m, aproval: yes}]"), @r#"
        steps[0].hold: missing field (add `hold: 5m`)
        steps[1].weight: missing field (add `weight: 10%`)
        steps[2].weight: weight 10% is not above the 10% before it (weights must grow from step to step)
        steps[2].aproval: unknown field (did you mean `approval`?)
        "#);
    insta::assert_snapshot!(messages("steps: [{weight: 20, hold: 5m}, {weight: 10, hold: 5m, approval: yes}]"), @r#"
        steps[1].weight: weight 10% is not above the 20% before it (weights must grow from step to step)
        steps[1].approval: "yes" is none of true, false
        "#);
    insta::assert_snapshot!(messages("steps: [{weight: 100, hold: 5m}]"), @"steps: the only step is the Observing one, in which nothing is decided (list at least two steps, or use `strategy: immediate`)");
    insta::assert_snapshot!(messages("canaryWeight: 0\nstepWeight: 0\nstepInterval: 0s"), @r#"
        canaryWeight: must be above 0% (a canary without sessions shows nothing)
        stepWeight: must be above 0%
        stepInterval: must be longer than 0s
        "#);
    insta::assert_snapshot!(messages("stepWeight: 0.01"), @"stepWeight: needs more than 500 steps to reach 100% (use a larger stepWeight)");
    insta::assert_snapshot!(messages("holdback: 20\ncanaryWeight: 90"), @"canaryWeight: weight 90% is above the 80% that `holdback` leaves");
    insta::assert_snapshot!(messages("holdback: 60"), @"holdback: holdback 60% is above 50%");
    insta::assert_snapshot!(messages("steps: {weight: 10}"), @"steps: expected a list, found a mapping");
}

#[test]
fn exactly_the_last_segment_is_progressive() {
    insta::assert_snapshot!(messages("segments: [{name: a, weight: progressive}, {name: b, weight: 10%, duration: 1h}]"), @r#"
        segments[0].duration: missing field (add `duration: 24h`)
        segments[0].weight: only the last segment can be progressive (move it to the end, and give every other segment a weight and a duration)
        segments[1].weight: the last segment must be progressive (end with a segment such as `{name: all_users, weight: progressive}`)
        segments[1].duration: the progressive segment has no duration (the ramp says how long it takes)
        "#);
    insta::assert_snapshot!(messages("segments: [{name: a, weight: 5%}, {name: a, weight: progressive, duration: 1h, match: 'true'}]"), @r#"
        segments[0].duration: missing field (add `duration: 24h`)
        segments[1].duration: the progressive segment has no duration (the ramp says how long it takes)
        segments[1].match: the last segment catches everyone (remove its `match`)
        "#);
    insta::assert_snapshot!(messages("segments: [{name: a, weight: 5%, duration: 1h, match: ''}, {name: a b, weight: progressive}]"), @r#"
        segments[0].match: must not be empty
        segments[1].name: segment name "a b" must hold 1 to 63 letters, digits, '-' or '_'
        "#);
    insta::assert_snapshot!(messages("segments: [{name: a, weight: 5%, duration: 1h}, {name: a, weight: progressive}]"), @"segments[1]: segment a is listed twice");
}

#[test]
fn windows_must_not_overlap() {
    insta::assert_snapshot!(messages("schedule:\n- {window: '02:00-06:00 UTC', canaryWeight: 10}\n- {window: '22:00-03:00 UTC', canaryWeight: 20}"), @r#"schedule[1].window: window "22:00-03:00 UTC" overlaps "02:00-06:00 UTC" (windows are half open: one may begin at the minute another ends)"#);
    insta::assert_snapshot!(messages("schedule:\n- {window: '02:00-06:00 UTC', canaryWeight: 10}\n- {window: '08:00-09:00 Europe/Berlin', canaryWeight: 20}\n- {window: '07:30-08:00 Europe/Berlin', canaryWeight: 20}"), @r#"schedule[2].window: window "07:30-08:00 Europe/Berlin" overlaps "02:00-06:00 UTC", for example on 2026-03-29 (windows are half open: one may begin at the minute another ends)"#);
    insta::assert_snapshot!(messages("schedule:\n- {window: 6am UTC, canaryWeight: 110}\n- {window: '06:00-06:00 UTC'}\n- {window: '06:00-07:00 Erewhon', canaryWeight: 1}"), @r#"
        schedule[0].window: "6am UTC" is no window (write it as "02:00-06:00 UTC" or "22:00-06:00 Europe/Berlin")
        schedule[0].canaryWeight: weight 110 % is outside 0 to 100 %
        schedule[1].canaryWeight: missing field (add `canaryWeight: 10%`)
        schedule[1].window: window "06:00-06:00 UTC" opens and closes at the same minute (the whole day is "00:00-24:00 UTC")
        schedule[2].window: time zone "Erewhon" is not known (write UTC or an IANA name such as Europe/Berlin)
        "#);
}

#[test]
fn gates_need_a_metric_and_one_rule() {
    let gate = |gate: &str| messages(&format!("analysis:\n  metrics:\n  - {gate}"));
    insta::assert_snapshot!(gate("{name: sucess_rate, threshold: 90%, comparison: '>='}"), @r#"analysis.metrics[0].name: no metric is called "sucess_rate" (did you mean `success_rate`?)"#);
    insta::assert_snapshot!(gate("{name: xyzzy, threshold: 90%, comparison: '=>'}"), @r#"
        analysis.metrics[0].name: no metric is called "xyzzy" (name a built-in metric, or declare it in `analysis.outcomes`)
        analysis.metrics[0].comparison: "=>" is none of >=, >, <=, <
        "#);
    insta::assert_snapshot!(gate("{name: success_rate}"), @"analysis.metrics[0]: the gate has no rule (add `threshold` and `comparison`, or `compareTo: stable` and `maxRegression`)");
    insta::assert_snapshot!(gate("{name: latency_p99, threshold: 3s}"), @r#"analysis.metrics[0].comparison: missing field (add `comparison: "<="`)"#);
    insta::assert_snapshot!(gate("{name: success_rate, threshold: 90, comparison: '>='}"), @r#"analysis.metrics[0].threshold: "90" lies outside 0 to 1 (write 90%)"#);
    insta::assert_snapshot!(gate("{name: success_rate, threshold: 3s, comparison: '>='}"), @r#"analysis.metrics[0].threshold: "3s" is no threshold for a metric in percent (such as 90% or 0.9)"#);
    insta::assert_snapshot!(gate("{name: success_rate, threshold: 90%, comparison: '>=', compareTo: stable}"), @"analysis.metrics[0].compareTo: `compareTo` and `threshold` exclude each other (write two gates)");
    insta::assert_snapshot!(gate("{name: success_rate, compareTo: stable}"), @"analysis.metrics[0].maxRegression: missing field (add `maxRegression: 2%`)");
    insta::assert_snapshot!(gate("{name: success_rate, compareTo: stable, maxRegression: 0%}"), @r#"analysis.metrics[0].maxRegression: "0%" must be above 0"#);
    insta::assert_snapshot!(gate("{name: success_rate, compareTo: stable, maxRegression: 2ms, comparison: '<'}"), @r#"
        analysis.metrics[0].maxRegression: "2ms" is no regression such as 2% or 2pp
        analysis.metrics[0].comparison: `comparison` belongs to `threshold` (remove it: the metric itself says which way is good)
        "#);
    insta::assert_snapshot!(gate("{name: success_rate, threshold: 90%, comparison: '>=', maxRegression: 2%}"), @"analysis.metrics[0].maxRegression: `maxRegression` belongs to `compareTo: stable` (remove it)");
    insta::assert_snapshot!(gate("{name: success_rate, threshold: 90%, comparison: '>=', minSamples: 0, weight: 0, maturity: 5}"), @r#"
        analysis.metrics[0].minSamples: 0 is outside 1 to 1000000000
        analysis.metrics[0].weight: "0" is no share above 0, such as 2 or 50%
        analysis.metrics[0].maturity: "5" has no unit (write 5m for 5 minutes or 5s for 5 seconds)
        "#);
    insta::assert_snapshot!(gate("{name: queue_depth, compareTo: stable, maxRegression: 2, provider: prometheus, decision: evidence, query: 'v{{version}}'}"), @r#"
        analysis.metrics[0].name: no metric is called "queue_depth" (name a built-in metric, or declare it in `analysis.outcomes`)
        analysis.metrics[0].decision: provider "prometheus" gives no sessions to weigh as evidence (use `decision: point`, or leave it out)
        "#);
    insta::assert_snapshot!(gate("{name: queue_depth, threshold: 5, comparison: '<=', provider: prom}"), @r#"analysis.metrics[0].query: missing field (add `query: 'sum(rate(errors_total{version="{{version}}"}[5m]))'`)"#);
    insta::assert_snapshot!(gate("{name: queue_depth, threshold: 5, comparison: '<=', provider: prom, query: 'depth{{verson}}'}"), @"analysis.metrics[0].query: {{verson}} stands for nothing in a query (it may hold {{pack}}, {{rollout}}, {{stable}}, {{canary}}, {{version}}, {{variant}})");
    insta::assert_snapshot!(gate("{name: error_rate, compareTo: stable, maxRegression: 1pp, provider: prom, query: errors}"), @"analysis.metrics[0].query: the query asks the same of stable and canary: it holds neither {{version}} nor {{variant}} (it may hold {{pack}}, {{rollout}}, {{stable}}, {{canary}}, {{version}}, {{variant}})");
    insta::assert_snapshot!(gate("{name: error_rate, threshold: 5%, comparison: '<=', query: errors}"), @"analysis.metrics[0].query: `query` belongs to an outside `provider` (name the provider that is asked, as the server's settings call it, or remove it)");
    insta::assert_snapshot!(gate("{name: error_rate, threshold: 5%, comparison: '<='}\n  - {name: error_rate, threshold: 4%, comparison: '<'}"), @"analysis.metrics[1]: a gate on error_rate of this kind is already listed (keep the stricter one)");
}

#[test]
fn outcomes_are_declared_once_and_in_full() {
    let outcome = |outcome: &str| messages(&format!("analysis:\n  outcomes:\n  - {outcome}"));
    insta::assert_snapshot!(outcome("{name: success_rate, kind: rate, better: higher}"), @"analysis.outcomes[0]: success_rate already names the built-in metric success_rate");
    insta::assert_snapshot!(outcome("{name: a, kind: rate, better: higher}\n  - {name: a, kind: mean, better: lower}"), @"analysis.outcomes[1]: outcome a is declared twice");
    insta::assert_snapshot!(outcome("{name: Basket, kind: men}"), @r#"
        analysis.outcomes[0].better: missing field (add `better: higher`)
        analysis.outcomes[0].name: metric name "Basket" must start with a-z and hold only a-z, 0-9 and '_'
        analysis.outcomes[0].kind: "men" is none of rate, mean (did you mean `mean`?)
        "#);
    insta::assert_snapshot!(outcome("{name: basket, kind: mean, better: higher, min: 5}"), @"analysis.outcomes[0].min: `min` and `max` belong together (give both or none)");
    insta::assert_snapshot!(outcome("{name: basket, kind: mean, better: higher, min: 5, max: 4}"), @"analysis.outcomes[0].max: max 4 is not above min 5");
    insta::assert_snapshot!(outcome("{name: basket, kind: rate, better: higher, max: 4}"), @"analysis.outcomes[0].max: a rate lies between 0 and 1 (remove it, or use `kind: mean`)");
}

#[test]
fn conduct_is_checked_too() {
    insta::assert_snapshot!(messages("progress: {when: evidence, deadline: 1m}\nsessions: {idleTimeout: 0s, onRollback: kill}\nonRevert: never"), @r#"
        progress.margin: missing field (add `margin: 2%`)
        progress.deadline: deadline 1m is shorter than the planned length 45m (the default is 7h30m)
        sessions.idleTimeout: must be longer than 0s
        sessions.onRollback: "kill" is none of move, drain
        onRevert: "never" is none of immediate, canary
        "#);
}

#[test]
fn what_is_allowed_but_odd_is_a_warning() {
    let gates = "analysis:\n  metrics:\n  - {name: user_satisfaction, threshold: 4.2, comparison: '>='}\n  - {name: success_rate, threshold: 90%, comparison: '<='}\nprogress: {margin: 2%}\nsessions: {idleTimeout: 2d}";
    insta::assert_snapshot!(warnings(gates), @r#"
        warning: spec.rollout.analysis.metrics[0].name: user_satisfaction is read as user_satisfaction_avg
          --> line 10, column 16
            |
         10 |       - {name: user_satisfaction, threshold: 4.2, comparison: '>='}
            |                ^
          hint: write `name: user_satisfaction_avg`
        warning: spec.rollout.analysis.metrics[1].comparison: `<=` rolls back for a high success_rate, which is the good side
          --> line 11, column 58
            |
         11 |       - {name: success_rate, threshold: 90%, comparison: '<='}
            |                                                          ^
          hint: use `comparison: ">="`
        warning: spec.rollout.progress.margin: has no effect with `when: clock`
          --> line 12, column 16
            |
         12 |     progress: {margin: 2%}
            |                ^
          hint: remove it, or use `when: evidence`
        warning: spec.rollout.sessions.idleTimeout: idleTimeout 2d is longer than maxLifetime 1d
          --> line 13, column 16
            |
         13 |     sessions: {idleTimeout: 2d}
            |                ^
          hint: sessions end at maxLifetime; raise it, or lower idleTimeout
        "#);
}

#[test]
fn a_long_line_is_shown_around_its_problem() {
    let json = super::super::to_json(&manifest("canaryWeight: 140\nstepWeight: 10")).unwrap().to_string();
    insta::assert_snapshot!(problems(&json), @r#"
        error: spec.rollout.canaryWeight: weight 140 % is outside 0 to 100 %
          --> line 1, column 139
           |
         1 | pport-prompts"},"spec":{"rollout":{"canaryWeight":140,"stepWeight":10},"version":"2.4.0"}}
           |                                                   ^
        "#);
}

#[test]
fn hundreds_of_problems_are_cut_short() {
    let unknown: String = (0..300).map(|n| format!("field{n}: 1\n")).collect();
    let problems = problems(&manifest(&unknown));
    assert_eq!(problems.list().len(), 101);
    assert_eq!(problems.list()[100].message, "and 200 more problems");
}
