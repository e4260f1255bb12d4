use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Pack, PackProblem};
use crate::ids::PromptName;

/// A pack with one prompt `p`.
fn pack_json(template: &str, variables: Value, fragments: Value) -> Value {
    json!({
        "id": "support-prompts", "name": "Support", "version": "2.4.0",
        "template_engine": {"version": "v1", "syntax": "{{variable}}"},
        "fragments": fragments,
        "prompts": {"p": {"id": "p", "name": "P", "version": "1.0.0", "system_template": template, "variables": variables}}
    })
}

fn pack(template: &str, variables: Value, fragments: Value) -> Pack {
    Pack::from_value(pack_json(template, variables, fragments))
        .unwrap_or_else(|problems| panic!("{}", listed(&problems)))
}

fn listed(problems: &[PackProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn refused(template: &str, variables: Value, fragments: Value) -> String {
    listed(&Pack::from_value(pack_json(template, variables, fragments)).expect_err("the pack is wrong"))
}

fn text(name: &str) -> Value {
    json!({"name": name, "type": "string", "required": true})
}

fn render(pack: &Pack, values: Value) -> Result<String, String> {
    let values: BTreeMap<String, Value> = serde_json::from_value(values).expect("the values are a mapping");
    let name = PromptName::parse("p").expect("p is a name");
    pack.render(&name, None, &values).map(|rendered| rendered.system).map_err(|error| error.to_string())
}

#[test]
fn values_take_the_place_of_their_variables() {
    let variables = json!([
        text("name"),
        {"name": "n", "type": "integer", "required": true},
        {"name": "list", "type": "array", "required": true},
        {"name": "tone", "type": "string", "required": false, "default": "kind"},
        {"name": "extra", "type": "string", "required": false}
    ]);
    let pack = pack("{{name}}/{{ n }}/{{list}}/{{tone}}/{{extra}}/{{name}} {json: {}}", variables, json!({}));
    assert_eq!(
        render(&pack, json!({"name": "Zoë", "n": 3, "list": [{"b": 1, "a": true}]})),
        Ok("Zoë/3/[{\"a\":true,\"b\":1}]/kind//Zoë {json: {}}".to_owned())
    );
}

#[test]
fn fragments_are_put_in_place_in_every_spelling() {
    let fragments =
        json!({"a": "A[{{name}}]", "b": "B[{{fragment:a}}]", "name": "never: the variable goes first"});
    let pack = pack(
        "{{fragment:a}} {{ fragments.b }} {{b}} {{name}} {{fragment: name}}",
        json!([text("name")]),
        fragments,
    );
    assert_eq!(
        render(&pack, json!({"name": "x"})),
        Ok("A[x] B[A[x]] B[A[x]] x never: the variable goes first".to_owned())
    );
}

#[test]
fn what_does_not_fit_is_refused_with_its_reason() {
    let variables = json!([
        text("name"),
        {"name": "n", "type": "integer", "required": false, "validation": {"minimum": 1, "maximum": 5}},
        {"name": "code", "type": "string", "required": false, "validation": {"pattern": "^[A-Z]{2}$", "max_length": 2, "min_length": 2}},
        {"name": "tone", "type": "string", "required": false, "validation": {"enum": ["kind", "formal"]}}
    ]);
    let pack = pack("{{name}}{{n}}{{code}}{{tone}}", variables, json!({}));
    let refused = |values: Value| render(&pack, values).expect_err("the values do not fit");
    insta::assert_snapshot!(refused(json!({})), @"prompt p needs a value for name");
    insta::assert_snapshot!(refused(json!({"name": "x", "nmae": "y", "z": 1})), @"prompt p has no variable nmae, z, it has name, n, code, tone");
    insta::assert_snapshot!(refused(json!({"name": 4})), @"variable name of prompt p is string, the value given is number");
    insta::assert_snapshot!(refused(json!({"name": null})), @"variable name of prompt p is string, the value given is null");
    insta::assert_snapshot!(refused(json!({"name": "x", "n": 1.5})), @"variable n of prompt p is integer, the value given is number");
    insta::assert_snapshot!(refused(json!({"name": "x", "n": 6})), @"the value of variable n of prompt p is above 5");
    insta::assert_snapshot!(refused(json!({"name": "x", "code": "ABC"})), @"the value of variable code of prompt p has 3 characters, more than 2");
    insta::assert_snapshot!(refused(json!({"name": "x", "code": "ab"})), @r#"the value of variable code of prompt p does not match the pattern "^[A-Z]{2}$""#);
    insta::assert_snapshot!(refused(json!({"name": "x", "tone": "rude"})), @"the value of variable tone of prompt p is none of kind, formal");
    let other = PromptName::parse("q").unwrap();
    insta::assert_snapshot!(pack.render(&other, None, &BTreeMap::new()).unwrap_err(), @"pack support-prompts has no prompt q, it has p");
}

#[test]
fn a_template_that_cannot_be_rendered_is_refused_when_read() {
    insta::assert_snapshot!(refused("line\n  {{name", json!([text("name")]), json!({})), @r#"
    prompts.p.system_template: `{{` at line 2, column 3 is never closed
      hint: close it with `}}`
    "#);
    insta::assert_snapshot!(refused("{{nmae}}", json!([text("name")]), json!({})), @r#"
    prompts.p.system_template: `{{nmae}}` at line 1, column 1 is neither a variable nor a fragment
      hint: did you mean `{{name}}`?
    "#);
    insta::assert_snapshot!(refused("{{#if x}}a{{/if}}", json!([]), json!({})), @r#"
    prompts.p.system_template: `{{#if x}}` at line 1, column 1 is neither a variable nor a fragment
      hint: only `{{variable}}` and `{{fragment:name}}` are supported; conditions, loops and filters are not
    "#);
    insta::assert_snapshot!(refused("{{}}", json!([]), json!({})), @r#"
    prompts.p.system_template: `{{}}` at line 1, column 1 is neither a variable nor a fragment
      hint: declare it in the prompt's `variables`
    "#);
    insta::assert_snapshot!(refused("{{fragment:a}}", json!([]), json!({"a": "{{b}}", "b": "{{fragments.a}}"})), @r#"prompts.p.system_template: fragment "a" holds itself: a -> b -> a"#);
    insta::assert_snapshot!(refused("{{fragment:a}}", json!([]), json!({"a": "{{x"})), @r#"
    fragments.a: `{{` at line 1, column 1 is never closed
      hint: close it with `}}`
    "#);
    insta::assert_snapshot!(refused("{{fragment:a}}", json!([]), json!({"a": "{{x}}"})), @r#"
    prompts.p.system_template: `{{x}}` at line 1, column 1 of fragment "a" is neither a variable nor a fragment
      hint: declare it in the prompt's `variables`
    "#);
    insta::assert_snapshot!(refused("{{fragment:x}}", json!([text("x")]), json!({})), @r#"
    prompts.p.system_template: `{{fragment:x}}` at line 1, column 1 is neither a variable nor a fragment
      hint: declare it in the prompt's `variables`
    "#);
}

#[test]
fn fragments_cannot_blow_up() {
    let mut fragments = serde_json::Map::new();
    for level in 0..12 {
        fragments.insert(format!("f{level}"), json!(format!("{{{{f{}}}}}", level + 1).repeat(10)));
    }
    fragments.insert("f12".to_owned(), json!(""));
    insta::assert_snapshot!(refused("{{f0}}", json!([]), fragments.into()), @"prompts.p.system_template: fragments are nested deeper than 16, or used more than 10000 times");
    let deep: serde_json::Map<String, Value> = (0..40)
        .map(|n| (format!("f{n}"), json!(format!("{{{{f{}}}}}", n + 1))))
        .chain([("f40".to_owned(), json!("x"))])
        .collect();
    insta::assert_snapshot!(refused("{{f0}}", json!([]), deep.into()), @"prompts.p.system_template: fragments are nested deeper than 16, or used more than 10000 times");
}

#[test]
fn every_problem_of_a_pack_is_told_at_once() {
    let bad = json!({
        "id": "Support", "version": "2", "extra": 1, "workflow": {},
        "template_engine": {"version": "v1", "syntax": "${variable}", "features": ["loops"]},
        "tools": {"find_order": {"name": "find_order", "description": "d"}},
        "prompts": {"p q": {}, "p": {
            "id": "p", "name": "P", "version": "v1.0.0", "system_template": "", "tools": ["find_ordr"],
            "variables": [
                {"name": "a-b", "type": "strng", "required": "yes"},
                {"name": "a", "type": "string", "required": false, "default": 4, "validation": {"pattern": "("}},
                {"name": "a", "type": "integer", "required": false, "default": 9, "validation": {"maximum": 5, "min_length": -1}}
            ],
            "parameters": {"temperature": 3, "max_tokens": 1.5, "top_k": null, "seed": 7}
        }}
    });
    insta::assert_snapshot!(listed(&Pack::from_value(bad).unwrap_err()), @r#"
    id: pack name "Support" must start with a lower-case letter and hold only a-z, 0-9 and '-'
    name: missing field
    version: version "2" is no semantic version such as 2.4.0
    template_engine.syntax: syntax "${variable}" is not supported
      hint: write variables as {{variable}}
    prompts.p.variables[0].name: a variable name holds 1 to 63 letters, digits or '_' and does not start with a digit
    prompts.p.variables[0].type: type "strng" is none of string, number, integer, boolean, array, object
      hint: did you mean `string`?
    prompts.p.variables[0].required: expected boolean, found string
    prompts.p.variables[1].validation.pattern: pattern cannot be used: unclosed group
    prompts.p.variables[1].default: expected string, found number
    prompts.p.variables[2].validation.min_length: expected whole number, found number
    prompts.p.variables[2].default: the default is above 5
    prompts.p.variables[2]: variable a is declared twice
    prompts.p.system_template: must not be empty
    prompts.p.parameters.max_tokens: expected whole number, found number
    prompts.p.parameters.temperature: 3 is outside 0 to 2
    prompts.p.tools[0]: tool "find_ordr" is not in the pack's `tools`
      hint: did you mean `find_order`?
    prompts.p q: prompt name "p q" must hold 1 to 63 letters, digits, '-' or '_'
    prompts.p q.id: missing field
    prompts.p q.name: missing field
    prompts.p q.version: missing field
    prompts.p q.system_template: missing field
    "#);
    insta::assert_snapshot!(listed(&Pack::parse("{\"id\": }").unwrap_err()), @"the pack is no JSON: expected value at line 1 column 8");
    insta::assert_snapshot!(listed(&Pack::parse("[]").unwrap_err()), @"expected object, found array");
}

#[test]
fn what_is_not_used_is_noted_and_kept() {
    let mut value = pack_json("hello", json!([text("unused")]), json!({}));
    value["agents"] = json!({"x": 1});
    value["verison"] = json!("1");
    value["prompts"]["p"]["model_overrides"] = json!({"m": {}});
    value["prompts"]["p"]["parameters"] = json!({"temperature": 0.5, "seed": 7, "top_k": null});
    let pack = Pack::from_value(value.clone()).unwrap();
    insta::assert_snapshot!(listed(pack.notes()), @r#"
    agents: kept, but not used by Serin
    verison: unknown field, kept as it stands
      hint: did you mean `version`?
    prompts.p.parameters.seed: unknown parameter, sent as it stands
    prompts.p.variables[0]: variable unused is not used by the template
    "#);
    assert_eq!(pack.raw(), &value);
    let prompt = &pack.prompts()[&PromptName::parse("p").unwrap()];
    assert_eq!(Value::Object(prompt.parameters(None).clone()), json!({"temperature": 0.5, "seed": 7}));
}

#[test]
fn a_pack_names_its_provider_in_its_metadata() {
    let with = |metadata: Value| {
        let mut pack = pack_json("Hello.", json!([]), json!({}));
        pack["metadata"] = metadata;
        Pack::from_value(pack).map(|pack| pack.provider().map(ToString::to_string)).map_err(|e| listed(&e))
    };
    assert_eq!(with(json!({"provider": "claude"})), Ok(Some("claude".to_owned())));
    assert_eq!(with(json!({"domain": "support"})), Ok(None));
    assert_eq!(
        with(json!({"provider": "Big One"})),
        Err("metadata.provider: provider name \"Big One\" must start with a lower-case letter and hold only a-z, 0-9 and '-', 63 at most".to_owned())
    );
    assert_eq!(
        with(json!({"provider": 3})),
        Err("metadata.provider: expected string, found number".to_owned())
    );
}

#[test]
fn content_is_the_same_however_the_file_was_written() {
    let a = Pack::parse(r#"{"name":"S","id":"s","version":"1.0.0","template_engine":{"syntax":"{{variable}}","version":"v1"},"prompts":{"p":{"id":"p","name":"P","version":"1.0.0","system_template":"hi"}},"compilation":{"compiled_at":"today"}}"#).unwrap();
    let b = Pack::parse(r#"{ "id": "s", "name": "S", "version": "1.0.0", "prompts": {"p": {"version": "1.0.0", "id": "p", "name": "P", "system_template": "h\u0069"}}, "template_engine": {"version": "v1", "syntax": "{{variable}}"} }"#).unwrap();
    assert_eq!(a.content(), b.content());
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.digest().len(), 64);
    insta::assert_snapshot!(a.content(), @r#"{"id":"s","name":"S","prompts":{"p":{"id":"p","name":"P","system_template":"hi","version":"1.0.0"}},"template_engine":{"syntax":"{{variable}}","version":"v1"},"version":"1.0.0"}"#);
    assert_eq!(a.diff(&b), []);
}

#[test]
fn a_diff_names_every_value_that_differs() {
    let a = pack("Hello {{a}}", json!([text("a")]), json!({"x": "1"}));
    let b = pack("Bye {{a}}", json!([text("a"), text("b")]), json!({}));
    let line = |change: &super::PackChange| {
        format!("{}: {:?} -> {:?}", change.json_path, change.before, change.after)
    };
    insta::assert_snapshot!(a.diff(&b).iter().map(line).collect::<Vec<_>>().join("\n"), @r#"
    fragments.x: Some("1") -> None
    prompts.p.system_template: Some("Hello {{a}}") -> Some("Bye {{a}}")
    prompts.p.variables[1]: None -> Some("{\"name\":\"b\",\"required\":true,\"type\":\"string\"}")
    "#);
}

proptest! {
    #[test]
    fn a_value_is_never_expanded(value in "(\\{\\{|\\}\\}|secret|fragment:f|fragments\\.f|name|f|\\{|\\}| |[a-z]){0,20}") {
        let pack = pack(
            "[{{name}}|{{secret}}]{{f}}",
            json!([text("name"), {"name": "secret", "type": "string", "required": false, "default": "S3"}]),
            json!({"f": "<{{name}}>"}),
        );
        prop_assert_eq!(render(&pack, json!({"name": value})), Ok(format!("[{value}|S3]<{value}>")));
    }

    #[test]
    fn reading_a_pack_never_panics(template in "(\\{\\{|\\}\\}|fragment:|f|g|name|é|\n| ){0,30}", f in "(\\{\\{|\\}\\}|f|g| ){0,12}", g in "(\\{\\{|\\}\\}|f|g|name){0,12}") {
        let _ = Pack::from_value(pack_json(&template, json!([text("name")]), json!({"f": f, "g": g})));
    }

    #[test]
    fn any_json_is_read_or_refused(text in any::<String>()) {
        let _ = Pack::parse(&text);
    }
}
