//! Reusable prompts of OpenAI, as its API gives them.

use serde_json::{Map, Value};

use super::draft::{Draft, PromptDraft};

/// Fields that are read, or that say when and by whom a prompt was made.
const KNOWN: &[&str] = &[
    "id",
    "object",
    "name",
    "title",
    "description",
    "version",
    "model",
    "instructions",
    "messages",
    "input",
    "prompt",
    "variables",
    "tools",
    "tool_choice",
    "created_at",
    "updated_at",
    "created",
    "is_default",
    "status",
    "created_by",
];

/// Reads prompts, and returns how many were found.
pub(super) fn read(documents: &[(String, Value)], draft: &mut Draft) -> usize {
    let mut count = 0;
    for (path, value) in documents {
        let Some(fields) = value.as_object() else { continue };
        // A response, and some exports, hold the prompt one level deeper.
        let (path, fields) = match fields.get("prompt").and_then(Value::as_object) {
            Some(inner) if inner.contains_key("instructions") || inner.contains_key("messages") => {
                (under(path, "prompt"), inner)
            }
            Some(_) | None => (path.clone(), fields),
        };
        count += usize::from(prompt(&path, fields, draft));
    }
    count
}

fn prompt(path: &str, fields: &Map<String, Value>, draft: &mut Draft) -> bool {
    let (mut texts, mut variables) = (Vec::new(), Vec::new());
    for field in ["instructions", "messages", "input"] {
        let path = under(path, field);
        match fields.get(field) {
            Some(Value::String(text)) if field == "instructions" => {
                let (text, found) = draft.text_at(&path, text);
                texts.push(text);
                variables.extend(found);
            }
            Some(Value::String(_)) => {
                let hint = "a pack holds the system text; the app sends the conversation";
                draft.lose(&path, "a message of the user is not carried over", Some(hint));
            }
            Some(list @ Value::Array(_)) => {
                let (text, found) = draft.messages(&path, list);
                texts.extend((!text.is_empty()).then_some(text));
                variables.extend(found);
            }
            Some(_) | None => {}
        }
    }
    if texts.is_empty() {
        return false;
    }
    let text_of = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    for (name, value) in fields.get("variables").and_then(Value::as_object).into_iter().flatten() {
        let path = under(&under(path, "variables"), name);
        match variables.iter_mut().find(|found| found.name == *name) {
            Some(found) if value.is_string() => found.example = Some(value.clone()),
            Some(_) => draft.lose(
                &path,
                format!("the value of variable {name} is no text"),
                Some("send files and images with the requests"),
            ),
            None => draft.lose(&path, format!("variable {name} is not used by the text"), None),
        }
    }
    let tools_path = under(path, "tools");
    let tools = fields.get("tools").map(|tools| draft.tools(&tools_path, tools)).unwrap_or_default();
    let choice_path = under(path, "tool_choice");
    let choice = fields.get("tool_choice").filter(|value| !value.is_null());
    let choice =
        choice.and_then(|choice| draft.choice(&choice_path, choice)).filter(|choice| choice != "auto");
    let parameters = draft.parameters(path, fields, KNOWN);
    let title = text_of("name").or(text_of("title")).or(text_of("id")).unwrap_or("main");
    draft.add(PromptDraft {
        name: title.to_owned(),
        title: title.to_owned(),
        description: text_of("description").map(str::to_owned),
        text: texts.join("\n\n"),
        variables,
        parameters,
        tools,
        choice,
        model: text_of("model").map(str::to_owned),
        path: path.to_owned(),
    });
    true
}

fn under(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}
