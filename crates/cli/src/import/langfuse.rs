//! Prompts of Langfuse, as its API exports them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::draft::{Draft, PromptDraft, name as name_of};
use super::template::{Dialect, Found, convert};

/// Fields of a prompt that are read, or that say when and by whom it was made.
const KNOWN: &[&str] = &[
    "id",
    "name",
    "version",
    "prompt",
    "type",
    "config",
    "labels",
    "isActive",
    "createdAt",
    "updatedAt",
    "createdBy",
    "projectId",
    "commitMessage",
    "resolutionGraph",
];

/// Fields of its `config` that are read.
const CONFIG: &[&str] = &["model", "tools", "tool_choice"];

/// A version of a prompt: its path and its fields.
type Versioned<'a> = (&'a str, &'a Map<String, Value>);

/// Reads prompts, the version of each that is in production, and returns how many were found.
pub(super) fn read(documents: &[(String, Value)], draft: &mut Draft) -> usize {
    let mut by_name: BTreeMap<&str, Vec<Versioned<'_>>> = BTreeMap::new();
    for (path, value) in documents {
        let Some(fields) = value.as_object().filter(|fields| fields.contains_key("prompt")) else { continue };
        let name = fields.get("name").and_then(Value::as_str).unwrap_or("main");
        by_name.entry(name).or_default().push((path, fields));
    }
    let mut chosen: Vec<(&str, &str, &Map<String, Value>)> = Vec::new();
    for (name, versions) in &by_name {
        let rank = |fields: &Map<String, Value>| {
            let has = |label: &str| {
                let labels = fields.get("labels").and_then(Value::as_array);
                labels.is_some_and(|labels| labels.iter().any(|known| known == label))
            };
            let number = fields.get("version").and_then(Value::as_u64).unwrap_or(0);
            (has("production"), has("latest"), number)
        };
        let Some(best) = versions.iter().max_by_key(|(_, fields)| rank(fields)) else { continue };
        for (path, fields) in versions.iter().filter(|version| version.0 != best.0) {
            let number =
                |fields: &Map<String, Value>| fields.get("version").map_or("?".to_owned(), Value::to_string);
            let message = format!(
                "version {} of {name} is not carried over: version {} is the one in use",
                number(fields),
                number(best.1)
            );
            draft.lose(
                path,
                message,
                Some("a pack holds one version; import the other as another version of the pack"),
            );
        }
        chosen.push((name, best.0, best.1));
    }
    let texts: Texts<'_> = chosen
        .iter()
        .filter_map(|(name, _, fields)| Some((*name, fields.get("prompt")?.as_str()?)))
        .collect();
    for (name, path, fields) in &chosen {
        prompt(name, path, fields, &texts, draft);
    }
    chosen.len()
}

/// The texts of the prompts that are no chats, by name: what other prompts can hold.
type Texts<'a> = BTreeMap<&'a str, &'a str>;

/// Puts fragments in place of the prompts that a text holds (`@@@langfusePrompt:name=tone|label=production@@@`), and
/// returns their names, first those that are known and then those that are not.
fn with_fragments(text: &str, texts: &Texts<'_>) -> (String, Vec<String>, Vec<String>) {
    const OPEN: &str = "@@@langfusePrompt:";
    let (mut out, mut known, mut unknown) = (String::new(), Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(open) = rest.find(OPEN) {
        let inside = &rest[open + OPEN.len()..];
        let Some(close) = inside.find("@@@") else { break };
        let named = inside[..close].split('|').find_map(|part| part.trim().strip_prefix("name="));
        let named = named.unwrap_or_default();
        out.push_str(&rest[..open]);
        if texts.contains_key(named) {
            out.push_str(&format!("{{{{fragment:{}}}}}", name_of(named)));
            known.push(named.to_owned());
        } else {
            unknown.push(named.to_owned());
        }
        rest = &inside[close + 3..];
    }
    out.push_str(rest);
    (out, known, unknown)
}

/// Makes fragments of prompts that another holds, with those that they hold themselves; returns their variables.
fn fragments(held: Vec<String>, texts: &Texts<'_>, draft: &mut Draft) -> Vec<Found> {
    let (mut waiting, mut done, mut variables) = (held, Vec::new(), Vec::new());
    while let Some(name) = waiting.pop() {
        if done.contains(&name) {
            continue;
        }
        let (text, known, _) = with_fragments(texts[name.as_str()], texts);
        let converted = convert(&text, Dialect::Plain);
        draft.fragment(&name_of(&name), &converted.text);
        variables.extend(converted.variables);
        waiting.extend(known);
        done.push(name);
    }
    variables
}

fn prompt(name: &str, path: &str, fields: &Map<String, Value>, texts: &Texts<'_>, draft: &mut Draft) {
    let at = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
    let (written, mut variables) = match &fields["prompt"] {
        Value::String(text) => (text.clone(), None),
        list => {
            let (text, found) = draft.messages(&at("prompt"), list);
            (text, Some(found))
        }
    };
    let (text, held, unknown) = with_fragments(&written, texts);
    let text = match variables {
        Some(_) => text,
        None => {
            let (text, found) = draft.text_at(&at("prompt"), &text);
            variables = Some(found);
            text
        }
    };
    let mut variables = variables.unwrap_or_default();
    for other in unknown {
        let hint = "export it as well, as a text, and it becomes a fragment";
        draft.lose(
            &at("prompt"),
            format!("prompt {other:?}, which this one holds, is not in the export"),
            Some(hint),
        );
    }
    variables.extend(fragments(held, texts, draft));
    if text.is_empty() {
        draft.lose(
            path,
            format!("prompt {name} has no system text"),
            Some("a pack holds system texts alone"),
        );
        return;
    }
    for (field, value) in fields {
        let says_something = !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty());
        if !KNOWN.contains(&field.as_str()) && says_something {
            draft.lose(&at(field), format!("{field} is not carried over"), None);
        }
    }
    let labels =
        fields.get("labels").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let others: Vec<&str> = labels.filter(|label| !matches!(*label, "production" | "latest")).collect();
    if !others.is_empty() {
        let hint = "who gets which version is what a rollout says: segments and weights";
        draft.lose(&at("labels"), format!("labels {} are not carried over", others.join(", ")), Some(hint));
    }
    let empty = Map::new();
    let config = fields.get("config").and_then(Value::as_object).unwrap_or(&empty);
    let config_path = at("config");
    let tools = config.get("tools").map(|tools| draft.tools(&format!("{config_path}.tools"), tools));
    let choice = config.get("tool_choice").filter(|value| !value.is_null());
    let choice = choice.and_then(|choice| draft.choice(&format!("{config_path}.tool_choice"), choice));
    let parameters = draft.parameters(&config_path, config, CONFIG);
    draft.add(PromptDraft {
        name: name.to_owned(),
        title: name.to_owned(),
        description: fields.get("commitMessage").and_then(Value::as_str).map(str::to_owned),
        text,
        variables,
        parameters,
        tools: tools.unwrap_or_default(),
        choice: choice.filter(|choice| choice != "auto"),
        model: config.get("model").and_then(Value::as_str).map(str::to_owned),
        path: path.to_owned(),
    });
}
