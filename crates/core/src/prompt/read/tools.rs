//! Reading the tools of a pack, and which of them a prompt may use.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Object, Reader};
use crate::metric::nearest;
use crate::prompt::tools::{Tool, ToolChoice, ToolPolicy};

/// The most tools of a pack, and of one prompt.
const MOST_TOOLS: usize = 200;

const TOOL_FIELDS: &[&str] = &["name", "description", "parameters"];

const POLICY_FIELDS: &[&str] = &["tool_choice", "max_rounds", "max_tool_calls_per_turn", "blocklist"];

impl Reader {
    /// Reads the tools of the pack; nothing for one that has problems, so that its name stays known.
    pub(super) fn tools<'a>(&mut self, pack: &Object<'a>) -> BTreeMap<&'a str, Option<Arc<Tool>>> {
        let mut tools = BTreeMap::new();
        let Some(listed) = pack.fields.get("tools").and_then(|value| self.object("tools", value)) else {
            return tools;
        };
        if listed.fields.len() > MOST_TOOLS {
            let message = format!("{} tools are more than the {MOST_TOOLS} allowed", listed.fields.len());
            self.problem("tools", message, None);
        }
        for (key, value) in listed.fields {
            let object = self.object(&listed.path_of(key), value);
            let tool = object.and_then(|object| self.tool(key, &object));
            tools.insert(key.as_str(), tool.map(Arc::new));
        }
        tools
    }

    fn tool(&mut self, key: &str, object: &Object<'_>) -> Option<Tool> {
        self.note_fields(object, TOOL_FIELDS, &[]);
        let name = self.required_text(object, "name").map(str::to_owned);
        let description = self.required_text(object, "description").map(str::to_owned);
        if let Some(name) = &name {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if !name.chars().all(fits) || name.len() > 64 {
                let message = format!("tool name {name:?} does not hold 1 to 64 letters, digits, '_' or '-'");
                self.problem(&object.path_of("name"), message, None);
            } else if name != key {
                let hint = format!(
                    "prompts name it {key:?} and the model {name:?}; write the same name in both places"
                );
                self.problem(&object.path_of("name"), "the name differs from its key in `tools`", Some(hint));
            }
        }
        let parameters = match object.fields.get("parameters").filter(|value| !value.is_null()) {
            Some(value) => {
                let schema = self.object(&object.path_of("parameters"), value)?;
                match schema.fields.get("type") {
                    Some(Value::String(kind)) if kind == "object" => {}
                    Some(_) => {
                        let hint = Some("arguments have names: write `\"type\": \"object\"`".to_owned());
                        self.problem(&schema.path_of("type"), "the arguments of a tool are no object", hint);
                    }
                    None => {
                        let hint = Some("write `\"type\": \"object\"`, as providers demand it".to_owned());
                        self.problem(&schema.path_of("type"), "missing field", hint);
                    }
                }
                Some(value.clone())
            }
            None => None,
        };
        let schema = parameters.as_ref().map(Value::to_string);
        Some(Tool { name: name?, description: description?, parameters, schema })
    }

    /// Reads the tools that a prompt names, without those that its policy blocks.
    pub(super) fn tools_of(
        &mut self,
        prompt: &Object<'_>,
        known: &BTreeMap<&str, Option<Arc<Tool>>>,
        policy: &ToolPolicy,
    ) -> Vec<Arc<Tool>> {
        let path = prompt.path_of("tools");
        let mut tools: Vec<Arc<Tool>> = Vec::new();
        let listed = prompt.fields.get("tools").map(|value| self.array(&path, value, MOST_TOOLS));
        for (index, item) in listed.unwrap_or_default().iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(name) = self.text(&path, item) else { continue };
            let Some(tool) = known.get(name) else {
                let hint = nearest(name, known.keys().copied()).map(|name| format!("did you mean `{name}`?"));
                self.problem(&path, format!("tool {name:?} is not in the pack's `tools`"), hint);
                continue;
            };
            if !policy.allows(name) {
                self.note(&path, &format!("tool {name} is on the blocklist, so it is not offered"), None);
            } else if tools.iter().any(|earlier| earlier.name == name) {
                self.note(&path, &format!("tool {name} is named twice"), None);
            } else {
                tools.extend(tool.clone());
            }
        }
        if policy.choice == Some(ToolChoice::Required) && tools.is_empty() {
            let path = format!("{}.tool_choice", prompt.path_of("tool_policy"));
            let message =
                "a tool is required, but the prompt offers none; it holds for tools of the request alone";
            self.note(&path, message, None);
        }
        tools
    }

    /// Reads the policy for the tools of a prompt.
    pub(super) fn tool_policy(&mut self, prompt: &Object<'_>) -> ToolPolicy {
        let path = prompt.path_of("tool_policy");
        let Some(object) = prompt.fields.get("tool_policy").and_then(|value| self.object(&path, value))
        else {
            return ToolPolicy::default();
        };
        self.note_fields(&object, POLICY_FIELDS, &[]);
        let choice = object.fields.get("tool_choice").and_then(|value| {
            let path = object.path_of("tool_choice");
            let text = self.text(&path, value)?;
            let known = ToolChoice::ALL.iter().find(|(name, _)| *name == text);
            if known.is_none() {
                let names = ToolChoice::ALL.map(|(name, _)| name);
                let hint = nearest(text, names.into_iter()).map(|name| format!("did you mean `{name}`?"));
                self.problem(&path, format!("tool choice {text:?} is none of {}", names.join(", ")), hint);
            }
            known.map(|(_, choice)| *choice)
        });
        let app = "kept, but not counted by Serin: the app runs the tools, and keeps to it";
        if self.at_least_one(&object, "max_rounds").is_some() {
            self.note(&object.path_of("max_rounds"), app, None);
        }
        let max_calls_per_turn = self.at_least_one(&object, "max_tool_calls_per_turn");
        if max_calls_per_turn.is_some_and(|most| most > 1) {
            let hint = Some("1 is asked of the provider: no two tools at once".to_owned());
            self.note(&object.path_of("max_tool_calls_per_turn"), app, hint);
        }
        let path = object.path_of("blocklist");
        let blocked = object.fields.get("blocklist").map(|value| self.array(&path, value, MOST_TOOLS));
        let mut blocklist = Vec::new();
        for (index, item) in blocked.unwrap_or_default().iter().enumerate() {
            blocklist.extend(self.text(&format!("{path}[{index}]"), item).map(str::to_owned));
        }
        ToolPolicy { choice, max_calls_per_turn, blocklist }
    }

    fn at_least_one(&mut self, object: &Object<'_>, name: &str) -> Option<u64> {
        let value = object.fields.get(name)?;
        let path = object.path_of(name);
        match value.as_u64() {
            Some(0) => self.problem(&path, "0 is less than 1", None),
            Some(number) => return Some(number),
            None => self.wrong_type(&path, "whole number", value),
        }
        None
    }
}
