//! The parts of the format beyond text and variables: models, tools, evals, and files as people write them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Pack, PackProblem, ToolChoice};
use crate::ids::PromptName;

fn whole() -> Value {
    json!({
        "id": "support", "name": "Support", "version": "1.0.0",
        "template_engine": {"version": "v1", "syntax": "{{variable}}"},
        "metadata": {"model": "gpt-5"},
        "fragments": {"tail": "Bye {{name}}."},
        "tools": {
            "find": {"name": "find", "description": "Finds.", "parameters": {"type": "object", "properties": {"id": {"type": "string"}}}},
            "drop": {"name": "drop", "description": "Drops."},
        },
        "evals": [{"id": "tone-check", "type": "llm_judge", "trigger": "every_turn"}],
        "prompts": {"p": {
            "id": "p", "name": "P", "version": "1.0.0", "system_template": "Hi {{name}}. {{fragment:tail}}",
            "variables": [{"name": "name", "type": "string", "required": true}],
            "tools": ["find", "drop"],
            "tool_policy": {"tool_choice": "required", "max_tool_calls_per_turn": 1, "blocklist": ["drop"]},
            "parameters": {"temperature": 0.2, "max_tokens": 100},
            "model_overrides": {
                "gpt-4.1": {"system_template_prefix": "[{{name}}] ", "system_template_suffix": " End.", "parameters": {"temperature": 1}},
                "claude-9": {"system_template": "Claude for {{name}}."},
            },
            "validators": [{"type": "max_length", "params": {"max_characters": 10}, "enabled": false}],
        }}
    })
}

fn read(value: Value) -> Pack {
    Pack::from_value(value).unwrap_or_else(|problems| panic!("{}", listed(&problems)))
}

fn listed(problems: &[PackProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn without_target() -> Value {
    let mut value = whole();
    value.as_object_mut().unwrap().remove("metadata");
    value
}

#[test]
fn a_model_gets_what_is_said_to_it_and_a_dated_name_is_the_same_model() {
    let pack = read(without_target());
    let name = PromptName::parse("p").unwrap();
    let said = |model: Option<&str>| {
        let values = BTreeMap::from([("name".to_owned(), json!("{{name}}"))]);
        let rendered = pack.render(&name, model, &values).unwrap();
        (
            rendered.system,
            rendered.parameters["temperature"].as_f64(),
            rendered.parameters["max_tokens"].as_u64(),
        )
    };
    let bye = "Hi {{name}}. Bye {{name}}.";
    let base = (bye.to_owned(), Some(0.2), Some(100));
    assert_eq!(said(None), base);
    assert_eq!(said(Some("gpt-5")), base);
    assert_eq!(said(Some("gpt-4.1-mini")), base, "another model of the family");
    let other = (format!("[{{{{name}}}}] {bye} End."), Some(1.0), Some(100));
    assert_eq!(said(Some("gpt-4.1")), other);
    assert_eq!(said(Some("gpt-4.1-2026-01-31")), other);
    assert_eq!(said(Some("claude-9-latest")).0, "Claude for {{name}}.");
}

#[test]
fn the_model_that_a_version_is_made_for_comes_before_that_of_the_request() {
    let mut value = whole();
    value["metadata"]["model"] = json!("gpt-4.1");
    let pack = read(value);
    let name = PromptName::parse("p").unwrap();
    let values = BTreeMap::from([("name".to_owned(), json!("Ann"))]);
    let rendered = pack.render(&name, Some("claude-9"), &values).unwrap();
    assert_eq!(rendered.model, Some("gpt-4.1"));
    assert!(rendered.system.starts_with("[Ann] "), "{}", rendered.system);
    assert_eq!(pack.model(), Some("gpt-4.1"));
}

#[test]
fn a_prompt_offers_its_tools_without_those_that_its_policy_blocks() {
    let pack = read(whole());
    let prompt = pack.prompts().values().next().unwrap();
    assert_eq!(prompt.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["find"]);
    assert_eq!(
        (prompt.policy.choice, prompt.policy.parallel_calls()),
        (Some(ToolChoice::Required), Some(false))
    );
    assert!(!prompt.policy.allows("drop"));
}

#[test]
fn evals_and_validators_are_read_and_each_is_told_with_what_becomes_of_it() {
    let pack = read(whole());
    insta::assert_snapshot!(listed(pack.notes()), @r#"
    evals[0]: eval tone-check (llm_judge) is not supported: Serin does not run it
      hint: report its result as the outcome "tone_check", or as a gen_ai.evaluation.result event, and it counts
    prompts.p.tools[1]: tool drop is on the blocklist, so it is not offered
    prompts.p.validators[0]: validator (max_length), which is switched off, is not run; Serin measures response_length_avg instead
    "#);
    assert_eq!(pack.checks().len(), 2);
}

#[test]
fn what_is_wrong_with_models_tools_and_checks_is_told_at_its_place() {
    let mut value = whole();
    value["metadata"]["model"] = json!("");
    value["tools"]["find"]["parameters"]["type"] = json!("array");
    value["tools"]["drop"] = json!({"name": "dr op"});
    value["evals"][0] = json!({"id": "a", "type": "llm_judge", "sample_percentage": 101, "metric": {"name": "m", "type": "sum"}});
    let prompt = &mut value["prompts"]["p"];
    prompt["tools"] = json!(["finf"]);
    prompt["tool_policy"] = json!({"tool_choice": "requierd", "max_rounds": 0, "blocklist": [1]});
    prompt["validators"] = json!([{"enabled": "no"}]);
    prompt["model_overrides"]["gpt-4.1"] =
        json!({"system_template": "{{nmae}}", "parameters": {"temperature": 9}});
    prompt["variables"] = json!([
        {"name": "name", "type": "string", "required": true, "validation": {"min_length": 5, "max_length": 3, "enum": [1]}}
    ]);
    insta::assert_snapshot!(listed(&Pack::from_value(value.clone()).unwrap_err()), @r#"
    metadata.model: must not be empty
    tools.drop.description: missing field
    tools.drop.name: tool name "dr op" does not hold 1 to 64 letters, digits, '_' or '-'
    tools.find.parameters.type: the arguments of a tool are no object
      hint: arguments have names: write `"type": "object"`
    evals[0].trigger: missing field
    evals[0].sample_percentage: 101 is outside 0 to 100
    evals[0].metric.type: metric type "sum" is none of gauge, counter, histogram, boolean
    prompts.p.variables[0].validation: no text has at least 5 and at most 3 characters
    prompts.p.variables[0].validation.enum[0]: expected string, found number
    prompts.p.model_overrides["gpt-4.1"]: `{{nmae}}` at line 1, column 1 is neither a variable nor a fragment
      hint: did you mean `{{name}}`?
    prompts.p.model_overrides["gpt-4.1"].parameters.temperature: 9 is outside 0 to 2
    prompts.p.tool_policy.tool_choice: tool choice "requierd" is none of auto, required, none
      hint: did you mean `required`?
    prompts.p.tool_policy.max_rounds: 0 is less than 1
    prompts.p.tool_policy.blocklist[0]: expected string, found number
    prompts.p.tools[0]: tool "finf" is not in the pack's `tools`
      hint: did you mean `find`?
    prompts.p.validators[0].type: missing field
    prompts.p.validators[0].enabled: expected boolean, found string
    "#);
    // What was published once is never refused later.
    value["prompts"]["p"]["tools"] = json!(["find"]);
    assert_eq!(Pack::stored_value(value).map(|pack| pack.id().to_string()), Ok("support".to_owned()));
}

#[test]
fn a_key_that_is_written_twice_is_a_problem() {
    let text = whole().to_string().replacen("\"p\":", "\"p\": {}, \"p\":", 1);
    insta::assert_snapshot!(listed(&Pack::parse(&text).unwrap_err()), @"
    prompts.p: the key is written twice
      hint: readers of JSON keep one of them and drop the other; keep the one that is meant
    ");
}

/// JSON that is a little like a pack: names of the format, in the wrong places as well.
fn json_like_a_pack() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "id",
        "name",
        "version",
        "prompts",
        "p",
        "tools",
        "parameters",
        "type",
        "variables",
        "validation",
        "metadata",
        "model",
        "model_overrides",
        "system_template",
        "fragments",
        "tool_policy",
        "blocklist",
        "evals",
        "validators",
        "enabled",
        "template_engine",
        "syntax",
        "gpt-4.1",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(\\{\\{|\\}\\}|name|1\\.0\\.0|object|string|find|é|[a-z]){0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// Every place in a value, as a JSON pointer.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    for (key, inner) in value.as_object().into_iter().flatten() {
        pointers(inner, &format!("{at}/{}", escaped(key)), all);
    }
    for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
        pointers(inner, &format!("{at}/{index}"), all);
    }
}

proptest! {
    #[test]
    fn arbitrary_json_is_read_or_refused(value in json_like_a_pack()) {
        let _ = Pack::stored_value(value.clone());
        if let Err(problems) = Pack::from_value(value) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn a_pack_with_one_value_exchanged_is_read_or_refused_at_a_place_in_it(
        place in any::<prop::sample::Index>(),
        value in json_like_a_pack(),
    ) {
        let mut mutated = whole();
        let mut all = Vec::new();
        pointers(&mutated, "", &mut all);
        *mutated.pointer_mut(&all[place.index(all.len())]).unwrap() = value;
        let text = mutated.to_string();
        match Pack::parse(&text) {
            // A pack reads to the same pack after it was written.
            Ok(pack) => {
                let again = Pack::parse(&pack.content()).map_err(|problems| TestCaseError::fail(listed(&problems)))?;
                prop_assert_eq!(again.content(), pack.content());
                prop_assert_eq!(again.digest(), pack.digest());
                prop_assert_eq!(again.diff(&pack), vec![]);
            }
            Err(problems) => {
                let places = super::Places::of(&text);
                prop_assert!(problems.iter().all(|problem| places.at(&problem.json_path).line == 1));
            }
        }
    }

    #[test]
    fn a_pack_with_bytes_exchanged_never_panics(at in any::<prop::sample::Index>(), bytes in "(\\{|\\}|\"|\\[|\\\\|,|:|é|\t|\n| ){0,6}") {
        let text = serde_json::to_string_pretty(&whole()).unwrap();
        let at = at.index(text.len());
        let mutated = format!("{}{bytes}{}", &text[..at], &text[(at + 2).min(text.len())..]);
        let _ = Pack::parse(&mutated);
        let _ = super::Places::of(&mutated).at("prompts.p.tools[0]");
    }
}
