//! What manifests mean: plans as tables.

use serde_json::json;

use super::*;
use crate::prompt::{Variable, VariableType};

#[test]
fn every_example_parses_and_its_pack_renders() {
    for (name, text) in EXAMPLES {
        if name.ends_with(".pack.json") {
            let pack = Pack::parse(text);
            assert!(pack.is_ok(), "{name}: {pack:?}");
            continue;
        }
        let parsed = parse(text).unwrap_or_else(|problems| panic!("{name}\n{problems}"));
        assert_eq!(parsed.warnings, [], "{name}");
        if let Some(PackSource::File(file)) = &parsed.source {
            let pack = Pack::parse(example(file)).unwrap_or_else(|problems| panic!("{file}: {problems:?}"));
            assert_eq!((pack.id(), pack.version()), (&parsed.plan.pack, &parsed.plan.version), "{name}");
            render_by_type(&pack);
        }
    }
}

/// Renders every prompt of a pack with a value of the right type for each required variable.
fn render_by_type(pack: &Pack) {
    for (name, prompt) in pack.prompts() {
        let value = |variable: &Variable| match variable.kind {
            VariableType::String => json!("Acme"),
            VariableType::Number | VariableType::Integer => json!(3),
            VariableType::Boolean => json!(true),
            VariableType::Array => json!(["billing", "orders"]),
            VariableType::Object => json!({"a": 1}),
        };
        let required = prompt.variables.iter().filter(|variable| variable.required);
        let values = required.map(|variable| (variable.name.clone(), value(variable))).collect();
        let rendered = pack.render(name, None, &values).unwrap_or_else(|error| panic!("{error}"));
        assert!(!rendered.system.contains("{{"), "{name}: {}", rendered.system);
    }
}

#[test]
fn the_plain_manifest_means_the_lifecycle_table() {
    let parsed = parse(example("support-prompts.yaml")).unwrap();
    assert_eq!(parsed.warnings, []);
    insta::assert_snapshot!(shown(&parsed.plan), @r#"
        support-prompts 2.4.0 Canary

        T+0s        10%                  Observing 5m
        T+5m        10%                  Progressing 5m
        T+10m       20%                  Progressing 5m
        T+15m       30%                  Progressing 5m
        T+20m       40%                  Progressing 5m
        T+25m       50%                  Completing 5m
        T+30m       70%                  Completing 5m
        T+35m       90%                  Completing 5m
        T+40m       100%                 Completing 5m
        T+45m       end

        segment everyone Everyone Progressive
        gate success_rate >= 90.0% Evidence samples 30 budget 1 maturity None from builtin
        gate latency_p99 <= 3.00s Evidence samples 30 budget 1 maturity None from builtin
        analysis every 1m, 2 failed in a row, confidence 0.95, delay 5m, degraded Hold
        progress Clock margin None max hold None deadline 7h30m
        sessions idle 30m life 1d rollback Move promote Drain
        revert Immediate, holdback 0%
        "#);
}

#[test]
fn the_full_manifest_means_stages_windows_and_best_windows() {
    let parsed = parse(example("full.yaml")).unwrap();
    assert_eq!((parsed.source, parsed.warnings.len()), (None, 0));
    insta::assert_snapshot!(shown(&parsed.plan), @r#"
        support-prompts 2.4.0 Canary

        T+0s        stage internal_users Observing 5m
        T+5m        stage internal_users Progressing 1d
        T+1d5m      stage beta_users     Progressing 12h
        T+1d12h5m   windows              Progressing 1d
        T+2d12h5m   50% in best window   Completing 5m
        T+2d12h10m  70% in best window   Completing 5m
        T+2d12h15m  90% in best window   Completing 5m
        T+2d12h20m  100% in best window  Completing 5m
        T+2d12h25m  end

        segment internal_users NamedByAttribute Fixed(Weight(10000)) for 1d
        segment beta_users NamedByAttribute Fixed(Weight(5000)) for 12h
        segment all_users Everyone Progressive
        window 02:00-06:00 UTC 50%
        window 06:00-18:00 UTC 10%
        window 18:00-02:00 UTC 30%
        otherwise 10%
        gate success_rate >= 90.0% Evidence samples 30 budget 1 maturity None from builtin
        gate latency_p99 <= 3.00s Evidence samples 30 budget 1 maturity None from builtin
        analysis every 1m, 2 failed in a row, confidence 0.95, delay 5m, degraded Hold
        progress Clock margin None max hold None deadline 25d4h10m
        sessions idle 30m life 1d rollback Move promote Drain
        revert Immediate, holdback 0%
        "#);
}

#[test]
fn a_manifest_without_rollout_gets_every_default() {
    let text = "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {name: p}\nspec: {version: 1.0.0}\n";
    let defaults = parse(text).unwrap().plan;
    let plain = parse(example("support-prompts.yaml")).unwrap().plan;
    assert_eq!(defaults.steps, plain.steps);
    assert_eq!(defaults.analysis.gates, []);
    assert_eq!(defaults.analysis.failure_threshold, 1);
}

#[test]
fn json_means_the_same_as_yaml() {
    let yaml = example("full.yaml");
    let json = super::super::to_json(yaml).unwrap();
    let pretty = serde_json::to_string_pretty(&json).unwrap().replace("  ", "\t");
    assert_eq!(parse(&pretty).unwrap().plan, parse(yaml).unwrap().plan);
    assert_eq!(parse(&json.to_string()).unwrap().plan, parse(yaml).unwrap().plan);
}

#[test]
fn increments_double_from_half_on_and_stop_at_what_holdback_leaves() {
    insta::assert_snapshot!(timetable(&parsed("canaryWeight: 20%\nstepWeight: 20\nholdback: 5%\nstepInterval: 1h").plan), @r#"
        T+0s        20%                  Observing 1h
        T+1h        20%                  Progressing 1h
        T+2h        40%                  Progressing 1h
        T+3h        60%                  Completing 1h
        T+4h        95%                  Completing 1h
        T+5h        end
        "#);
}

#[test]
fn a_ramp_that_starts_at_half_or_above_completes_at_once() {
    insta::assert_snapshot!(timetable(&parsed("canaryWeight: 60\nstepWeight: 15").plan), @r#"
        T+0s        60%                  Observing 5m
        T+5m        60%                  Completing 5m
        T+10m       90%                  Completing 5m
        T+15m       100%                 Completing 5m
        T+20m       end
        "#);
}

#[test]
fn listed_steps_end_with_everyone() {
    let rollout = "steps:\n  - {weight: 0.5%, hold: 10m}\n  - {weight: 25, hold: 1h, approval: true}\n  - {weight: 50, hold: 1d}";
    insta::assert_snapshot!(timetable(&parsed(rollout).plan), @r#"
        T+0s        0.5%                 Observing 10m
        T+10m       25%                  Progressing 1h, approval
        T+1h10m     50%                  Completing 1d
        T+1d1h10m   100%                 Completing 1d
        T+2d1h10m   end
        "#);
    insta::assert_snapshot!(warnings(rollout), @r#"
        warning: spec.rollout.steps: the list ends at 50%; a last step of 100% held 1d is added
          --> line 8, column 5
           |
         8 |     steps:
           |     ^
          hint: write the step as `{weight: 100%, hold: 1d}`
        "#);
}

#[test]
fn stages_come_before_the_ramp_and_start_with_observing() {
    let rollout = "steps: [{weight: 10, hold: 5m}, {weight: 50, hold: 10m}, {weight: 100, hold: 15m}]\nsegments:\n  - {name: staff, weight: 100%, duration: 24h, match: 'attributes.email.endsWith(\"@acme.com\")'}\n  - {name: rest, weight: progressive}";
    let plan = parsed(rollout).plan;
    insta::assert_snapshot!(timetable(&plan), @r#"
        T+0s        stage staff          Observing 5m
        T+5m        stage staff          Progressing 1d
        T+1d5m      10%                  Progressing 5m
        T+1d10m     50%                  Completing 10m
        T+1d20m     100%                 Completing 15m
        T+1d35m     end
        "#);
    assert_eq!(
        plan.segments[0].matcher,
        Matcher::Expression("attributes.email.endsWith(\"@acme.com\")".to_owned())
    );
    assert_eq!(
        (&plan.segments[1].matcher, plan.segments[1].weight),
        (&Matcher::Everyone, SegmentWeight::Progressive)
    );
}

#[test]
fn a_schedule_takes_the_place_of_the_ramp_below_half() {
    let rollout = "canaryWeight: 5\nschedule:\n  - {window: '22:00-24:00 Europe/Berlin', canaryWeight: 40}";
    let plan = parsed(rollout).plan;
    insta::assert_snapshot!(timetable(&plan), @r#"
        T+0s        windows              Observing 5m
        T+5m        windows              Progressing 1d
        T+1d5m      55% in best window   Completing 5m
        T+1d10m     75% in best window   Completing 5m
        T+1d15m     95% in best window   Completing 5m
        T+1d20m     100% in best window  Completing 5m
        T+1d25m     end
        "#);
    let at = |time: &str| plan.weights(1, time.parse::<Timestamp>().unwrap())[0].percent();
    assert_eq!(
        (at("2026-01-10T20:59:59Z"), at("2026-01-10T21:00:00Z"), at("2026-01-10T23:00:00Z")),
        (5.0, 40.0, 5.0)
    );
    assert_eq!((at("2026-07-10T19:59:59Z"), at("2026-07-10T20:00:00Z")), (5.0, 40.0));
}

#[test]
fn an_immediate_rollout_has_no_steps() {
    let plan = parsed("strategy: immediate").plan;
    assert_eq!(plan.steps, []);
    insta::assert_snapshot!(warnings("strategy: immediate\nstepWeight: 5"), @r#"
        warning: spec.rollout.stepWeight: has no effect with `strategy: immediate`
          --> line 9, column 5
           |
         9 |     stepWeight: 5
           |     ^
          hint: remove it, or use `strategy: canary`
        "#);
}

#[test]
fn every_field_of_analysis_reaches_the_plan() {
    let rollout = "analysis:
  confidence: 99%
  initialDelay: 0s
  onDegraded: rollback
  outcomes:
    - {name: order_placed, kind: rate, better: higher, tier: high}
    - {name: basket, kind: mean, better: higher, min: 0, max: 500}
  metrics:
    - {name: order_placed, compareTo: stable, maxRegression: 2%, minSamples: 50, maturity: 10m, weight: 2}
    - {name: success_rate, compareTo: stable, maxRegression: 1pp}
    - {name: latency_p99, compareTo: stable, maxRegression: 200ms, decision: point}
    - {name: user_satisfaction_avg, compareTo: stable, maxRegression: 0.2}
    - {name: basket, threshold: 20, comparison: '>'}
    - {name: cpu_seconds, threshold: 4.5, comparison: <=, provider: prometheus, query: cpu_seconds}
progress: {when: evidence, margin: 2pp, maxHold: 2h, deadline: 7d}
sessions: {idleTimeout: 10m, maxLifetime: 1d, onRollback: drain, onPromote: move}
onRevert: canary";
    let plan = parsed(rollout).plan;
    insta::assert_snapshot!(shown(&plan), @r#"
        support-prompts 2.4.0 Canary

        T+0s        10%                  Observing 5m
        T+5m        10%                  Progressing 5m
        T+10m       20%                  Progressing 5m
        T+15m       30%                  Progressing 5m
        T+20m       40%                  Progressing 5m
        T+25m       50%                  Completing 5m
        T+30m       70%                  Completing 5m
        T+35m       90%                  Completing 5m
        T+40m       100%                 Completing 5m
        T+45m       end

        segment everyone Everyone Progressive
        gate order_placed vs stable Relative(0.02) Evidence samples 50 budget 2 maturity Some("10m") from builtin
        gate success_rate vs stable Absolute(0.01) Evidence samples 30 budget 1 maturity None from builtin
        gate latency_p99 vs stable Absolute(200.0) Point samples 30 budget 1 maturity None from builtin
        gate user_satisfaction_avg vs stable Absolute(0.2) Evidence samples 30 budget 1 maturity None from builtin
        gate basket > 20.000 Evidence samples 30 budget 1 maturity None from builtin
        gate cpu_seconds <= 4.500 Point samples 30 budget 1 maturity None from prometheus
        analysis every 1m, 1 failed in a row, confidence 0.99, delay 0s, degraded Rollback
        progress Evidence margin Some(Absolute(0.02)) max hold Some("2h") deadline 7d
        sessions idle 10m life 1d rollback Drain promote Move
        revert Canary, holdback 0%
        "#);
    assert_eq!(
        plan.analysis.gates[1].rule,
        GateRule::NotWorseThanStable { max_regression: Regression::Absolute(0.01) }
    );
    assert!(matches!(
        plan.analysis.gates[5].rule,
        GateRule::Threshold { comparison: Comparison::AtMost, .. }
    ));
}
