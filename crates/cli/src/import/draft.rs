//! The pack in the making.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use serin_core::ids::{PackName, Version};
use serin_core::manifest::At;

use super::template::{Converted, Dialect, Found, convert};

/// Parameters that a pack has, under the names that they have elsewhere.
const PARAMETERS: [(&str, &str); 8] = [
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("max_tokens", "max_tokens"),
    ("max_output_tokens", "max_tokens"),
    ("max_completion_tokens", "max_tokens"),
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
];

/// Something that did not come along.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Loss {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Where in its file something stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    /// By its path in JSON.
    Path(String),
    /// By line and column of a text.
    At(At),
}

/// The prompts so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    prompts: Vec<PromptDraft>,
    tools: BTreeMap<String, Value>,
    fragments: BTreeMap<String, String>,
    losses: Vec<Loss>,
}

/// One prompt so far.
#[derive(Debug, Default, Clone)]
pub(super) struct PromptDraft {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) description: Option<String>,
    pub(super) text: String,
    pub(super) variables: Vec<Found>,
    pub(super) parameters: Map<String, Value>,
    pub(super) tools: Vec<String>,
    pub(super) choice: Option<String>,
    pub(super) model: Option<String>,
    /// Where it stood, for what is told of it as a whole.
    pub(super) path: String,
}

impl Draft {
    pub(super) fn lose(&mut self, path: &str, message: impl Into<String>, hint: Option<&str>) {
        let place = Place::Path(path.to_owned());
        self.losses.push(Loss { place, message: message.into(), hint: hint.map(str::to_owned) });
    }

    pub(super) fn take_losses(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.losses)
    }

    /// Takes a file that is one prompt.
    pub(super) fn text_file(&mut self, stem: &str, text: &str, dialect: Dialect) {
        let Converted { text, variables, losses } = convert(text, dialect);
        self.losses.extend(losses.into_iter().map(|lost| Loss {
            place: Place::At(lost.at),
            message: lost.message,
            hint: lost.hint,
        }));
        self.add(PromptDraft {
            name: stem.to_owned(),
            title: stem.to_owned(),
            text,
            variables,
            ..PromptDraft::default()
        });
    }

    /// Takes a text of JSON, whose losses are told at its path.
    pub(super) fn text_at(&mut self, path: &str, text: &str) -> (String, Vec<Found>) {
        let Converted { text, variables, losses } = convert(text, Dialect::Plain);
        for lost in losses {
            let At { line, column } = lost.at;
            let message = format!("line {line}, column {column}: {}", lost.message);
            self.lose(path, message, lost.hint.as_deref());
        }
        (text, variables)
    }

    /// Takes the parameters out of an object that says more than those; the rest is lost, but for what is `known`.
    pub(super) fn parameters(
        &mut self,
        path: &str,
        fields: &Map<String, Value>,
        known: &[&str],
    ) -> Map<String, Value> {
        let mut parameters = Map::new();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let place = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match PARAMETERS.iter().find(|(theirs, _)| theirs == name) {
                Some((_, ours)) if value.is_number() => {
                    parameters.insert((*ours).to_owned(), value.clone());
                }
                Some(_) => self.lose(&place, format!("{name} is no number"), None),
                None if known.contains(&name.as_str()) || is_empty(value) => {}
                None => {
                    let hint = "a pack has no such field: send it with each request";
                    self.lose(&place, format!("{name} is not carried over"), Some(hint));
                }
            }
        }
        parameters
    }

    /// Takes tools in any of OpenAI's forms, and returns the names of those that came along.
    pub(super) fn tools(&mut self, path: &str, value: &Value) -> Vec<String> {
        let mut names = Vec::new();
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}[{index}]");
            let tool = item.get("function").unwrap_or(item);
            let Some(name) = tool.get("name").and_then(Value::as_str) else {
                let kind = item.get("type").and_then(Value::as_str).unwrap_or("unknown");
                let hint = "the provider runs it: name it in the requests, which keep their own tools";
                self.lose(&path, format!("a tool of type {kind} is not carried over"), Some(hint));
                continue;
            };
            let description = tool.get("description").and_then(Value::as_str).filter(|text| !text.is_empty());
            if description.is_none() {
                self.lose(&path, format!("tool {name} has no description; its name stands in"), None);
            }
            if tool.get("strict") == Some(&Value::Bool(true)) {
                self.lose(
                    &path,
                    format!("`strict` of tool {name} is not carried over"),
                    Some("arguments are checked against the schema either way"),
                );
            }
            let mut made = json!({"name": name, "description": description.unwrap_or(name)});
            let schema = tool.get("parameters").or_else(|| tool.get("input_schema"));
            if let Some(schema) = schema.filter(|schema| schema.is_object()) {
                made["parameters"] = schema.clone();
            }
            match self.tools.get(name) {
                Some(known) if *known != made => {
                    self.lose(
                        &path,
                        format!("tool {name} differs from the one of another prompt, which stays"),
                        None,
                    );
                }
                Some(_) => {}
                None => {
                    self.tools.insert(name.to_owned(), made);
                }
            }
            names.push(name.to_owned());
        }
        names
    }

    /// Takes what is said about the use of tools.
    pub(super) fn choice(&mut self, path: &str, value: &Value) -> Option<String> {
        match value.as_str() {
            Some(choice @ ("auto" | "required" | "none")) => Some(choice.to_owned()),
            _ => {
                self.lose(
                    path,
                    "a choice of one tool is not carried over",
                    Some("send `tool_choice` with the requests"),
                );
                None
            }
        }
    }

    /// Takes the messages of a chat: the system text, and the variables in it.
    pub(super) fn messages(&mut self, path: &str, value: &Value) -> (String, Vec<Found>) {
        let (mut texts, mut variables) = (Vec::new(), Vec::new());
        for (index, message) in value.as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}[{index}]");
            let role = message.get("role").and_then(Value::as_str);
            let Some(role @ ("system" | "developer")) = role else {
                let message = match (message.get("type").and_then(Value::as_str), role) {
                    (Some("placeholder"), _) => "a placeholder for messages is not carried over".to_owned(),
                    (_, role) => {
                        format!("a message of the {} is not carried over", role.unwrap_or("unknown role"))
                    }
                };
                self.lose(
                    &path,
                    message,
                    Some("a pack holds the system text; the app sends the conversation"),
                );
                continue;
            };
            let content = message.get("content");
            let parts: Vec<(String, &Value)> = match content {
                Some(Value::Array(parts)) => {
                    let numbered = parts.iter().enumerate();
                    numbered
                        .map(|(index, part)| {
                            (format!("{path}.content[{index}]"), part.get("text").unwrap_or(part))
                        })
                        .collect()
                }
                Some(content) => vec![(format!("{path}.content"), content)],
                None => Vec::new(),
            };
            for (path, part) in parts {
                match part.as_str() {
                    Some(text) => {
                        let (text, found) = self.text_at(&path, text);
                        texts.push(text);
                        variables.extend(found);
                    }
                    None => self.lose(&path, format!("a part of the {role} message is no text"), None),
                }
            }
        }
        (texts.join("\n\n"), variables)
    }

    /// Adds a text that prompts may hold as a fragment.
    pub(super) fn fragment(&mut self, name: &str, text: &str) {
        self.fragments.insert(name.to_owned(), text.to_owned());
    }

    /// Adds a prompt under a name that no other has.
    pub(super) fn add(&mut self, mut prompt: PromptDraft) {
        let wanted = name(&prompt.name);
        let taken = |draft: &Self, name: &str| draft.prompts.iter().any(|prompt| prompt.name == name);
        let mut free = wanted.clone();
        let mut number = 2;
        while taken(self, &free) {
            free = format!("{wanted}-{number}");
            number += 1;
        }
        if free != prompt.name {
            let message = format!("prompt {:?} is called {free} in the pack", prompt.name);
            self.lose(&prompt.path.clone(), message, Some("a name holds letters, digits, '-' and '_'"));
        }
        prompt.name = free;
        let mut known: Vec<Found> = Vec::new();
        for found in std::mem::take(&mut prompt.variables) {
            if known.iter().all(|earlier| earlier.name != found.name) {
                known.push(found);
            }
        }
        prompt.variables = known;
        self.prompts.push(prompt);
    }

    /// Settles what concerns all prompts: a pack names one model, or none.
    pub(super) fn settle(&mut self) {
        let models: Vec<Option<String>> = self.prompts.iter().map(|prompt| prompt.model.clone()).collect();
        if models.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        for at in 0..self.prompts.len() {
            let (path, name) = (self.prompts[at].path.clone(), self.prompts[at].name.clone());
            if let Some(model) = self.prompts[at].model.take() {
                let message = format!(
                    "model {model} of prompt {name} is not carried over: the prompts name different ones"
                );
                self.lose(
                    &path,
                    message,
                    Some("a pack names one model for all its prompts; import them as packs of their own"),
                );
            }
        }
    }

    /// The pack as JSON.
    pub(super) fn pack(&self, id: &PackName, version: &Version) -> Value {
        let mut pack = json!({
            "$schema": "https://promptpack.org/schema/latest/promptpack.schema.json",
            "id": id.as_str(),
            "name": id.as_str(),
            "version": version.to_string(),
            "template_engine": {"version": "v1", "syntax": "{{variable}}"},
        });
        if let Some(model) = self.prompts.first().and_then(|prompt| prompt.model.as_ref()) {
            pack["metadata"] = json!({ "model": model });
        }
        if !self.fragments.is_empty() {
            pack["fragments"] = json!(self.fragments);
        }
        if !self.tools.is_empty() {
            pack["tools"] = json!(self.tools);
        }
        let prompts: Map<String, Value> =
            self.prompts.iter().map(|prompt| (prompt.name.clone(), prompt.json(version))).collect();
        pack["prompts"] = Value::Object(prompts);
        pack
    }
}

impl PromptDraft {
    fn json(&self, version: &Version) -> Value {
        let mut prompt = json!({
            "id": self.name,
            "name": self.title,
            "version": version.to_string(),
            "system_template": self.text,
        });
        if let Some(description) = &self.description {
            prompt["description"] = json!(description);
        }
        if !self.variables.is_empty() {
            prompt["variables"] = self.variables.iter().map(Found::json).collect();
        }
        if !self.tools.is_empty() {
            prompt["tools"] = json!(self.tools);
        }
        if let Some(choice) = &self.choice {
            prompt["tool_policy"] = json!({ "tool_choice": choice });
        }
        if !self.parameters.is_empty() {
            prompt["parameters"] = Value::Object(self.parameters.clone());
        }
        prompt
    }
}

/// A name with nothing but letters, digits, `-` and `_` in it, 60 characters at most.
pub(super) fn name(wanted: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    let name: String = wanted.trim().chars().map(fits).take(60).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "main".to_owned() } else { name.to_owned() }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
