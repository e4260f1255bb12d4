use serde_json::{Value, json};
use serin_core::ids::{PackName, Version};
use serin_core::prompt::Pack;

use super::draft::{Draft, Loss, Place};
use super::template::{Dialect, convert};
use super::{Form, documents, form_of, langfuse, openai};

/// The pack that a file becomes, which is a pack, and what was lost on the way.
fn imported(text: &str, form: Form) -> (Value, String) {
    let mut draft = Draft::default();
    let documents = documents(text).expect("the file is JSON");
    let found = match form {
        Form::Langfuse => langfuse::read(&documents, &mut draft),
        Form::Openai | Form::Jinja | Form::Text => openai::read(&documents, &mut draft),
    };
    assert!(found > 0, "no prompt found");
    draft.settle();
    let losses = draft.take_losses();
    let pack = draft.pack(&PackName::parse("support").unwrap(), &Version::parse("1.0.0").unwrap());
    if let Err(problems) = Pack::from_value(pack.clone()) {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    (pack, losses.iter().map(shown).collect::<Vec<_>>().join("\n"))
}

fn shown(loss: &Loss) -> String {
    match &loss.place {
        Place::Path(path) => format!("{path}: {}", loss.message),
        Place::At(at) => format!("{}:{}: {}", at.line, at.column, loss.message),
    }
}

#[test]
fn a_reusable_prompt_of_openai_becomes_a_pack_and_each_loss_is_named_at_its_place() {
    let text = json!({
        "id": "pmpt_68c1", "object": "prompt", "name": "Support agent", "version": "7", "is_default": true,
        "model": "gpt-5-mini",
        "instructions": [
            {"role": "developer", "content": [{"type": "input_text", "text": "You help customers of {{company}}. Be {{ tone }}."}]},
            {"role": "user", "content": "My order {{order_id}} is late."}
        ],
        "variables": {"company": "Acme", "tone": "kind", "logo": {"type": "input_image"}},
        "tools": [
            {"type": "function", "name": "find_order", "description": "Finds an order.", "strict": true,
             "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}},
            {"type": "web_search"}
        ],
        "tool_choice": "auto", "temperature": 0.3, "max_output_tokens": 500,
        "text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"}, "store": true
    });
    let (pack, losses) = imported(&text.to_string(), Form::Openai);
    let prompt = &pack["prompts"]["Support-agent"];
    assert_eq!(prompt["system_template"], "You help customers of {{company}}. Be {{tone}}.");
    assert_eq!(
        prompt["variables"][0],
        json!({"name": "company", "type": "string", "required": true, "example": "Acme"})
    );
    assert_eq!(prompt["parameters"], json!({"temperature": 0.3, "max_tokens": 500}));
    assert_eq!(
        (&prompt["tools"], &pack["metadata"]["model"]),
        (&json!(["find_order"]), &json!("gpt-5-mini"))
    );
    insta::assert_snapshot!(losses, @r#"
    instructions[1]: a message of the user is not carried over
    variables.logo: variable logo is not used by the text
    tools[0]: `strict` of tool find_order is not carried over
    tools[1]: a tool of type web_search is not carried over
    reasoning: reasoning is not carried over
    store: store is not carried over
    text: text is not carried over
    : prompt "Support agent" is called Support-agent in the pack
    "#);
}

#[test]
fn an_export_of_langfuse_becomes_one_pack_with_the_versions_that_are_in_use() {
    let text = json!({"data": [
        {"name": "support/answer", "version": 2, "type": "text", "labels": ["production", "berlin"], "tags": ["shop"],
         "prompt": "Hello {{customer}}. @@@langfusePrompt:name=tone|label=production@@@ @@@langfusePrompt:name=gone|version=1@@@",
         "config": {"model": "gpt-4.1", "temperature": 0, "response_format": {"type": "json_object"}},
         "commitMessage": "Says hello"},
        {"name": "support/answer", "version": 3, "type": "text", "labels": ["latest"], "prompt": "Newer", "config": {}},
        {"name": "tone", "version": 1, "type": "text", "labels": ["production"], "prompt": "Be {{mood}}.", "config": {"model": "gpt-4.1"}},
        {"name": "triage", "version": 1, "type": "chat", "labels": ["production"], "config": {"model": "gpt-5"}, "prompt": [
            {"role": "system", "content": "Sort into {{queues}}."},
            {"type": "placeholder", "name": "history"},
            {"role": "user", "content": "{{question}}"}
        ]}
    ], "meta": {"page": 1}});
    let (pack, losses) = imported(&text.to_string(), Form::Langfuse);
    let answer = &pack["prompts"]["support-answer"];
    assert_eq!(answer["system_template"], "Hello {{customer}}. {{fragment:tone}} ");
    assert_eq!(pack["fragments"], json!({"tone": "Be {{mood}}."}));
    assert_eq!(answer["variables"][1]["name"], "mood");
    assert_eq!(answer["description"], "Says hello");
    assert_eq!(pack["prompts"]["triage"]["system_template"], "Sort into {{queues}}.");
    assert_eq!(pack.get("metadata"), None, "the prompts name two models");
    insta::assert_snapshot!(losses, @r#"
    data[1]: version 3 of support/answer is not carried over: version 2 is the one in use
    data[0].prompt: prompt "gone", which this one holds, is not in the export
    data[0].tags: tags is not carried over
    data[0].labels: labels berlin are not carried over
    data[0].config.response_format: response_format is not carried over
    data[0]: prompt "support/answer" is called support-answer in the pack
    data[3].prompt[1]: a placeholder for messages is not carried over
    data[3].prompt[2]: a message of the user is not carried over
    data[0]: model gpt-4.1 of prompt support-answer is not carried over: the prompts name different ones
    data[2]: model gpt-4.1 of prompt tone is not carried over: the prompts name different ones
    data[3]: model gpt-5 of prompt triage is not carried over: the prompts name different ones
    "#);
}

#[test]
fn a_jinja_template_keeps_its_variables_and_names_what_a_pack_cannot_say() {
    let template = "{# for support #}You are {{ name | default('Ann') }} of {{ company|upper }}.\n\
        {%- if vip %} Be quick.{% endif %}\n\
        {% for item in items %}- {{ item.title }}\n{% endfor %}\
        {{ 'Bye' }} {{ user[\"first name\"] }} {% raw %}{{ not_one }}{% endraw %} {% include 'tail.j2' %}{{ open";
    let converted = convert(template, Dialect::Jinja);
    insta::assert_snapshot!(converted.text, @"
    You are {{name}} of {{company}}. Be quick.
    - {{item_title}}
    Bye {{user_first_name}} { { not_one }} { { open
    ");
    let lines: Vec<u32> = converted.losses.iter().map(|lost| lost.at.line).collect();
    assert!(lines.is_sorted() && lines.iter().all(|line| (1..=4).contains(line)), "{:?}", converted.losses);
    let told: Vec<&str> = converted.losses.iter().map(|lost| lost.message.as_str()).collect();
    for part in [
        "filter upper",
        "{% if vip %}",
        "{% for item in items %}",
        "item.title",
        "first name",
        "include",
        "never closed",
    ] {
        assert!(told.iter().any(|message| message.contains(part)), "{part} is not told: {told:?}");
    }
    let names: Vec<&str> = converted.variables.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["name", "company", "item_title", "user_first_name"]);
    assert_eq!(converted.variables[0].default, Some(json!("Ann")));
}

#[test]
fn plain_text_with_variables_comes_along_whole() {
    let text = "Hi {{name}}, {{ name }}! A set: {1, 2}, {% kept %} {{{raw}}}.";
    let converted = convert(text, Dialect::Plain);
    assert_eq!(converted.text, "Hi {{name}}, {{name}}! A set: {1, 2}, {% kept %} {{raw}}.");
    assert_eq!(converted.losses, []);
    let sections = convert("{{#vip}}Be quick.{{/vip}}", Dialect::Plain);
    assert_eq!((sections.text.as_str(), sections.losses.len()), ("Be quick.", 2));
}

#[test]
fn the_form_of_a_file_is_found_out() {
    let of = |name: &str, text: &str| form_of(std::path::Path::new(name), &documents(text));
    assert_eq!(of("a.json", r#"{"prompt": "Hi {{x}}", "name": "a"}"#), Form::Langfuse);
    assert_eq!(of("a.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n"), Form::Langfuse);
    assert_eq!(
        of("a.json", r#"{"object": "list", "data": [{"id": "pmpt_1", "instructions": "x"}]}"#),
        Form::Openai
    );
    assert_eq!(of("a.j2", "Hi {{ x }}"), Form::Jinja);
    assert_eq!(of("a.txt", "Hi {{ x }}"), Form::Text);
}

proptest::proptest! {
    #[test]
    fn whatever_is_imported_is_a_pack_or_refused(text in "(\\{\\{|\\}\\}|\\{%|%\\}|\\{#|#\\}|if|raw|endraw|x|y\\.z|-| |\\||default\\('a'\\)|\n|é|\"|\\{){0,24}") {
        for dialect in [Dialect::Plain, Dialect::Jinja] {
            let mut draft = Draft::default();
            draft.text_file("p", &format!("x{text}"), dialect);
            let pack = draft.pack(&PackName::parse("p").unwrap(), &Version::parse("1.0.0").unwrap());
            if let Err(problems) = Pack::from_value(pack) {
                proptest::prop_assert!(problems.is_empty(), "{:?}", problems);
            }
        }
    }
}
