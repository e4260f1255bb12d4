//! One table of fields: the parser, `docs/manifest.md` and the schema for editors know the same.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use jsonschema::Validator;
use serde_json::{Map, Value, json};
use serin_core::fields::{Field, MANIFEST, Mapping, Presence, Rule, Shape};
use serin_core::parse::{Parsed, parse, to_json};
use support::{Place, repository};

/// The smallest right value of each mapping that a manifest may hold.
fn smallest(path: &str) -> Value {
    match path {
        "" => json!({
            "apiVersion": "omnia.altairalabs.ai/v1alpha1", "kind": "PromptPack",
            "metadata": { "name": "support" }, "spec": { "version": "1.0.0" },
        }),
        "metadata" => json!({ "name": "support" }),
        "spec" => json!({ "version": "1.0.0" }),
        "spec.source" => json!({ "file": "a.pack.json" }),
        "spec.rollout" => json!({}),
        "spec.rollout.steps[]" => json!({ "weight": "10%", "hold": "5m" }),
        "spec.rollout.segments[]" => json!({ "name": "staff", "weight": "100%", "duration": "1h" }),
        "spec.rollout.schedule[]" => json!({ "window": "02:00-06:00 UTC", "canaryWeight": "10%" }),
        "spec.rollout.analysis" => json!({}),
        "spec.rollout.analysis.metrics[]" => {
            json!({ "name": "success_rate", "threshold": "90%", "comparison": ">=" })
        }
        "spec.rollout.analysis.outcomes[]" => json!({ "name": "sold", "kind": "mean", "better": "higher" }),
        "spec.rollout.analysis.outcomes[].judge" => json!({ "model": "m", "rubric": "r" }),
        "spec.rollout.progress" | "spec.rollout.sessions" => json!({}),
        "spec.rollout.watch" => json!({ "duration": "24h" }),
        other => panic!("{other} is new: say here what its smallest right value is"),
    }
}

/// A manifest in which one mapping has this value, and everything else is as small as can be.
fn manifest(path: &str, value: Value) -> Value {
    let mut whole = smallest("");
    let mut at = &mut whole;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        match part.strip_suffix("[]") {
            None => {
                // The one mapping below an item of a list is the judge of an outcome.
                if at.is_null() {
                    *at = json!({ "name": "sold", "kind": "rate", "better": "higher" });
                }
                at = at.as_object_mut().unwrap().entry(part).or_insert_with(|| json!({}));
            }
            Some(list) => {
                let others = match list {
                    "segments" => vec![Value::Null, json!({ "name": "all", "weight": "progressive" })],
                    _ => vec![Value::Null],
                };
                at = &mut at.as_object_mut().unwrap().entry(list).or_insert_with(|| json!(others))[0];
            }
        }
    }
    *at = value;
    whole
}

/// The path of a field as messages name it.
fn path_of(mapping: &Mapping, field: &str) -> String {
    let within = mapping.path.replace("[]", "[0]");
    if within.is_empty() { field.to_owned() } else { format!("{within}.{field}") }
}

/// YAML on one line as JSON.
fn yaml(text: &str) -> Value {
    to_json(&format!("value: {text}")).unwrap_or_else(|problems| panic!("{text}: {problems}"))["value"]
        .clone()
}

/// The smallest mapping with one more field, and what the rules between fields then ask for.
fn with(mapping: &Mapping, name: &str, value: Value) -> Value {
    let mut fields: Map<String, Value> = smallest(mapping.path).as_object().unwrap().clone();
    fields.insert(name.to_owned(), value);
    let example = |name: &str| {
        let field = mapping.fields.iter().find(|field| field.name == name).expect("rules name known fields");
        yaml(field.example)
    };
    for _ in 0..2 {
        for rule in mapping.rules {
            match rule {
                Rule::ExactlyOne(names) if names.contains(&name) => {
                    fields.retain(|field, _| field == name || !names.contains(&field.as_str()));
                }
                Rule::Excludes(first, others) if first == &name => {
                    fields.retain(|field, _| !others.contains(&field.as_str()));
                }
                Rule::Needs(first, second)
                    if fields.contains_key(*first) && !fields.contains_key(*second) =>
                {
                    if first == &name {
                        fields.insert((*second).to_owned(), example(second));
                    } else {
                        fields.remove(*first);
                    }
                }
                Rule::Where { field, is, needs, without } if fields.get(*field) == Some(&json!(is)) => {
                    fields.retain(|field, _| !without.contains(&field.as_str()));
                    for needed in *needs {
                        fields.insert((*needed).to_owned(), example(needed));
                    }
                }
                Rule::WhereNot { field, is, needs }
                    if fields.get(*field).is_some_and(|value| value != &json!(is)) =>
                {
                    for needed in *needs {
                        fields.entry(*needed).or_insert_with(|| example(needed));
                    }
                }
                Rule::ExactlyOne(_)
                | Rule::Excludes(..)
                | Rule::Needs(..)
                | Rule::Where { .. }
                | Rule::WhereNot { .. } => {}
            }
        }
    }
    // What needs one example of two: a comparison of the metric in the smallest gate.
    if name == "compareTo" || name == "maxRegression" {
        fields.insert("compareTo".to_owned(), json!("stable"));
        fields.remove("threshold");
        fields.remove("comparison");
    }
    // The judge of a mean needs a range besides.
    if name == "judge" {
        fields.insert("kind".to_owned(), json!("rate"));
    }
    Value::Object(fields)
}

/// Every field of every mapping.
fn every_field() -> impl Iterator<Item = (&'static Mapping, &'static Field)> {
    MANIFEST.all().into_iter().flat_map(|mapping| mapping.fields.iter().map(move |field| (mapping, field)))
}

fn schema() -> Validator {
    jsonschema::validator_for(&serin_core::fields::schema()).expect("the schema is a schema")
}

fn parsed(manifest: &Value) -> Parsed {
    parse(&manifest.to_string()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_example_of_every_field_is_right_for_the_parser_and_for_the_schema() {
    let schema = schema();
    let mut seen = 0;
    for (mapping, field) in every_field() {
        let path = path_of(mapping, field.name);
        let mut manifest = manifest(mapping.path, with(mapping, field.name, yaml(field.example)));
        if path == "spec.rollout.segments[0].weight" {
            assert_eq!(field.example, "50%");
        }
        if let Err(problems) = parse(&manifest.to_string()) {
            panic!("{path}\n{problems}");
        }
        if let Err(error) = schema.validate(&manifest) {
            panic!("{path}: {error}\n{manifest:#}");
        }
        // JSON is YAML; a manifest in YAML means the same.
        manifest = to_json(&serde_saphyr::to_string(&manifest).unwrap()).unwrap();
        assert!(schema.is_valid(&manifest), "{path}");
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn a_default_written_out_means_the_same_as_left_out() {
    let mut seen = 0;
    for (mapping, field) in every_field() {
        let Presence::Default(value) = field.presence else { continue };
        let without = parsed(&manifest(mapping.path, smallest(mapping.path)));
        let with = parsed(&manifest(mapping.path, with(mapping, field.name, yaml(value))));
        assert_eq!(with.plan, without.plan, "{} {value}", path_of(mapping, field.name));
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn every_field_is_read_a_wrong_value_is_refused_where_it_stands() {
    let schema = schema();
    for (mapping, field) in every_field() {
        let path = path_of(mapping, field.name);
        let is_scalar =
            !matches!(field.shape, Shape::Mapping(_) | Shape::Labels | Shape::Pack | Shape::List { .. });
        let wrong = if is_scalar { json!([[]]) } else { json!("nonsense") };
        let mut broken = with(mapping, field.name, yaml(field.example));
        broken[field.name] = wrong;
        let manifest = manifest(mapping.path, broken);
        let problems = parse(&manifest.to_string()).expect_err(&path);
        assert!(problems.list().iter().any(|problem| problem.path == path), "{path}\n{problems}");
        assert!(!schema.is_valid(&manifest), "{path}");
    }
}

#[test]
fn the_words_of_a_choice_are_those_of_the_parser() {
    for (mapping, field) in every_field() {
        let Shape::Choice(choices) = field.shape else { continue };
        let path = path_of(mapping, field.name);
        for choice in choices {
            let manifest = manifest(mapping.path, with(mapping, field.name, json!(choice)));
            assert!(parse(&manifest.to_string()).is_ok(), "{path}: {choice}");
        }
        let mut nonsense = with(mapping, field.name, json!(choices[0]));
        nonsense[field.name] = json!("nonsense");
        let problems = parse(&manifest(mapping.path, nonsense).to_string()).expect_err(&path);
        let told = match choices {
            [only] => format!("\"nonsense\" is not {only}"),
            _ => format!("\"nonsense\" is none of {}", choices.join(", ")),
        };
        assert!(problems.to_string().contains(&told), "{path}\n{problems}");
    }
}

#[test]
fn what_is_required_is_missed_by_the_parser_and_by_the_schema() {
    let schema = schema();
    for (mapping, field) in every_field() {
        if field.presence != Presence::Required {
            continue;
        }
        let mut without = smallest(mapping.path);
        without.as_object_mut().unwrap().remove(field.name);
        let manifest = manifest(mapping.path, without);
        let path = path_of(mapping, field.name);
        let problems = parse(&manifest.to_string()).expect_err(&path).to_string();
        assert!(problems.contains(&format!("{path}: missing field")), "{path}\n{problems}");
        assert!(!schema.is_valid(&manifest), "{path}");
    }
}

#[test]
fn wrong_manifests_are_refused_by_the_parser_and_by_the_schema() {
    let schema = schema();
    let rollouts = [
        "{canaryWieght: 10}",
        "{canaryWeight: 140}",
        "{canaryWeight: -1%}",
        "{canaryWeight: 10.005%}",
        "{canaryWeight: ten}",
        "{stepInterval: 5}",
        "{stepInterval: PT5M}",
        "{stepInterval: 5m1h}",
        "{stepInterval: 0s}",
        "{strategy: blue-green}",
        "{steps: [{weight: 10, hold: 5m}], canaryWeight: 10}",
        "{steps: [{weight: 10}]}",
        "{steps: {weight: 10, hold: 5m}}",
        "{steps: [{weight: 10, hold: 5m, approval: yes}]}",
        "{segments: [{name: a, weight: 10%, duration: 1h}]}",
        "{segments: [{name: a, weight: 10%}, {name: b, weight: progressive}]}",
        "{segments: [{name: a, weight: progressive}, {name: b, weight: progressive}]}",
        "{segments: [{name: a b, weight: 10%, duration: 1h}, {name: b, weight: progressive}]}",
        "{segments: [{name: b, weight: progressive, duration: 1h}]}",
        "{schedule: [{window: '2:00-6:00 UTC', canaryWeight: 10}]}",
        "{schedule: [{window: '02:00-06:00', canaryWeight: 10}]}",
        "{schedule: [{window: '25:00-26:00 UTC', canaryWeight: 10}]}",
        "{schedule: [{window: '02:00-06:00 UTC'}]}",
        "{analysis: {failureThreshold: 0}}",
        "{analysis: {failureThreshold: 1.5}}",
        "{analysis: {interval: 0s}}",
        "{analysis: {onDegraded: panic}}",
        "{analysis: {metrics: [{name: success_rate}]}}",
        "{analysis: {metrics: [{name: success_rate, threshold: 90%}]}}",
        "{analysis: {metrics: [{name: success_rate, threshold: lots, comparison: '>='}]}}",
        "{analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '=>'}]}}",
        "{analysis: {metrics: [{name: success_rate, compareTo: stable}]}}",
        "{analysis: {metrics: [{name: success_rate, compareTo: canary, maxRegression: 2%}]}}",
        "{analysis: {metrics: [{name: success_rate, compareTo: stable, maxRegression: 2%, threshold: 90%, comparison: '>='}]}}",
        "{analysis: {metrics: [{name: Success Rate, threshold: 90%, comparison: '>='}]}}",
        "{analysis: {metrics: [{name: depth, threshold: 4, comparison: <=, provider: prometheus}]}}",
        "{analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '>=', query: up}]}}",
        "{analysis: {outcomes: [{name: sold, kind: rate, better: higher, min: 0, max: 1}]}}",
        "{analysis: {outcomes: [{name: sold, kind: mean, better: higher, min: 0}]}}",
        "{progress: {when: evidence}}",
        "{progress: {when: luck}}",
        "{sessions: {onRollback: stay}}",
        "{sessions: {idleTimeout: 30}}",
        "{watch: 0s}",
        "{watch: [24h]}",
        "{watch: {onBreach: rollback}}",
        "{watch: {duration: 24h, onBreach: page}}",
        "[]",
    ];
    for rollout in rollouts {
        let manifest = manifest("spec.rollout", yaml(rollout));
        assert!(parse(&manifest.to_string()).is_err(), "the parser takes {rollout}");
        assert!(!schema.is_valid(&manifest), "the schema takes {rollout}");
    }
    for (path, value) in [
        ("", json!([])),
        ("metadata", json!({ "name": "Support" })),
        ("metadata", json!({ "name": "support", "onwer": "me" })),
        ("spec", json!({ "version": "2.4" })),
        ("spec", json!({ "version": 2.4 })),
        ("spec", json!({ "version": "01.0.0" })),
        ("spec.source", json!({})),
        ("spec.source", json!({ "file": "a.json", "inline": {} })),
    ] {
        let manifest = manifest(path, value);
        assert!(parse(&manifest.to_string()).is_err(), "the parser takes {manifest}");
        assert!(!schema.is_valid(&manifest), "the schema takes {manifest}");
    }
}

/// Every way to write a value that the parser takes, the schema takes too: no false alarm in an editor.
#[test]
fn the_schema_takes_every_way_to_write_a_value() {
    let schema = schema();
    let rollouts = [
        "{canaryWeight: 10}",
        "{canaryWeight: 10%}",
        "{canaryWeight: 0.5 %}",
        "{canaryWeight: '7.25'}",
        "{canaryWeight: 100.00%}",
        "{stepInterval: 1h30m}",
        "{stepInterval: 250ms}",
        "{stepInterval: 1d}",
        "{stepInterval: 100s}",
        "{analysis: {initialDelay: 0s, confidence: 0.95, failureThreshold: 2}}",
        "{analysis: {confidence: 99.9%, failureThreshold: '2'}}",
        "{analysis: {metrics: [{name: success_rate, threshold: 0.9, comparison: '>', minSamples: 5, weight: 50%}]}}",
        "{analysis: {metrics: [{name: latency_p99, threshold: 3s, comparison: <}]}}",
        "{analysis: {metrics: [{name: latency_p99, threshold: 3000, comparison: <}]}}",
        "{analysis: {metrics: [{name: cost_avg, threshold: $0.02, comparison: <}]}}",
        "{analysis: {metrics: [{name: sentiment_avg, threshold: -0.2, comparison: '>='}]}}",
        "{analysis: {metrics: [{name: latency, compareTo: stable, maxRegression: 200ms}]}}",
        "{analysis: {metrics: [{name: user_satisfaction, compareTo: stable, maxRegression: 0.2}]}}",
        "{analysis: {outcomes: [{name: sold, kind: mean, better: lower, min: -1, max: 1.5, tier: low}], metrics: [{name: sold, threshold: 0.5, comparison: <=}]}}",
        "{schedule: [{window: '22:00-24:00 Europe/Berlin', canaryWeight: 30}, {window: '00:00-06:00  Etc/GMT+5', canaryWeight: 0}]}",
        "{segments: [{name: A_b-1, weight: 10.5, duration: 1h, match: attributes.vip == true}, {name: b, weight: progressive}]}",
        "{progress: {when: evidence, margin: 2pp, maxHold: 4h, deadline: 30d}}",
        "{progress: {when: clock, margin: 2%}}",
        "{strategy: immediate, canaryWeight: 5, onRevert: canary}",
        "{watch: 24h}",
        "{watch: {duration: 1d, onBreach: rollback}}",
        "{steps: [{weight: 5, hold: 0s, approval: true}, {weight: 100, hold: 5m}], holdback: 0}",
    ];
    for rollout in rollouts {
        let manifest = manifest("spec.rollout", yaml(rollout));
        parsed(&manifest);
        if let Err(error) = schema.validate(&manifest) {
            panic!("{rollout}: {error} at {}", error.instance_path());
        }
    }
    let labels =
        manifest("metadata", yaml("{name: s, labels: {team: payments, tier: 1, old: true}, owner: 7}"));
    parsed(&labels);
    assert!(schema.is_valid(&labels));
}

/// Every manifest of the examples, by its path.
fn examples() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![repository("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path)
                && text.contains("kind: PromptPack")
            {
                found.insert(path, text);
            }
        }
    }
    found
}

#[test]
fn every_example_is_right_by_the_schema() {
    let schema = schema();
    let examples = examples();
    assert!(examples.len() >= 6, "{examples:?}");
    for (path, text) in examples {
        if let Err(error) = schema.validate(&to_json(&text).unwrap()) {
            panic!("{}: {error} at {}", path.display(), error.instance_path());
        }
    }
}

/// Compares a file of the project with what the program prints; `INSTA_UPDATE=always` writes it instead.
fn is_current(file: &str, expected: &str, command: &str) {
    let path = repository(file);
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{file} is not what `{command}` prints; INSTA_UPDATE=always with this test writes it"
    );
}

#[tokio::test]
async fn the_schema_for_editors_is_the_one_that_the_program_prints() {
    let printed = Place::empty().run("schema").await;
    assert_eq!((printed.code, printed.err.as_str()), (0, ""));
    assert!(jsonschema::meta::is_valid(&printed.json()), "it is no JSON Schema");
    is_current("docs/manifest.schema.json", &printed.out, "serin schema");
}

#[tokio::test]
async fn the_reference_names_every_field_that_the_parser_knows_and_no_other() {
    const MARK: &str = "<!-- From here on: `serin schema --output markdown` -->\n\n";
    let printed = Place::empty().run("schema --output markdown").await;
    assert_eq!((printed.code, printed.err.as_str()), (0, ""));
    let page = std::fs::read_to_string(repository("docs/manifest.md")).unwrap();
    let (by_hand, _) = page.split_once(MARK).expect("docs/manifest.md has the mark");
    is_current(
        "docs/manifest.md",
        &format!("{by_hand}{MARK}{}", printed.out),
        "serin schema --output markdown",
    );
    for (mapping, field) in every_field() {
        assert!(printed.out.contains(&format!("\n- `{}`: ", field.name)), "{}", path_of(mapping, field.name));
        assert!(field.rule.ends_with('.') && !field.rule.contains('\n'), "{}", path_of(mapping, field.name));
    }
    let rows = printed.out.lines().filter(|line| line.starts_with("- `") && line.contains("`: "));
    assert_eq!(rows.count(), every_field().count());
}
