//! The tools of a pack in a request: added to those that the request offers, in the form of its protocol.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Value, json};
use serin_core::prompt::{Tool, ToolChoice, ToolPolicy};

use super::body::{Edits, ListEdit, Write, write_text};
use super::json::MemberPlace;
use super::protocol::Protocol;
use super::request::ModelRequest;

/// What becomes of the tools of a request.
#[derive(Debug, Default)]
pub(super) struct ToolEdit {
    /// New members of the body, each with its value.
    pub(super) appended: Vec<(&'static str, Value)>,
    /// Whether the request loses its tools, and with them what it says about their use.
    pub(super) loses_tools: bool,
    /// How many tools of the pack could not be added, because the request offers functions in the old form.
    pub(super) n_left_out: u64,
}

/// Members that mean nothing, and that providers refuse, in a request without tools.
const ABOUT_TOOLS: [&str; 3] = ["tools", "tool_choice", "parallel_tool_calls"];

/// Adds the tools that a pack offers and takes out those that it blocks.
///
/// A tool that the request offers under the same name stays as it is: the app that runs it knows it best.
pub(super) fn edit_tools(
    edits: &mut Edits,
    asked: &ModelRequest<'_>,
    tools: &[Arc<Tool>],
    policy: &ToolPolicy,
) -> ToolEdit {
    let mut edit = ToolEdit::default();
    let own = asked.offered();
    let is_blocked = |index: usize| own[index].name.as_ref().is_some_and(|name| !policy.allows(name));
    let n_kept = (0..own.len()).filter(|index| !is_blocked(*index)).count();
    let is_offered = |tool: &&Arc<Tool>| !own.iter().any(|own| own.name.as_deref() == Some(&tool.name));
    let mut added: Vec<&Arc<Tool>> = tools.iter().filter(is_offered).collect();
    if asked.has_functions() {
        edit.n_left_out = added.len() as u64;
        added.clear();
    }
    let form = |tool: &Tool| written(asked.protocol, tool);
    let list = asked.tools.as_ref();
    match list.filter(|list| asked.json().node(list).is_array()) {
        Some(_) if n_kept == 0 && added.is_empty() => edit.loses_tools = !own.is_empty(),
        Some(list) => {
            let items: Vec<Range<usize>> = own.iter().map(|own| own.place.clone()).collect();
            let suffix: Write<'_> = &|out| {
                for (index, tool) in added.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_value(out, &form(tool));
                }
            };
            if n_kept < own.len() || !added.is_empty() {
                let suffix = (!added.is_empty()).then_some(suffix);
                let open = list.start + 1;
                edits.list(&items, &ListEdit { open, removed: &is_blocked, prefix: None, suffix });
            }
        }
        None if added.is_empty() => {}
        None => {
            let all = Value::Array(added.iter().map(|tool| form(tool)).collect());
            match list {
                // `null` is the one thing besides a list that providers take.
                Some(list) => edits.replace(list.clone(), &|out| write_value(out, &all)),
                None => edit.appended.push(("tools", all)),
            }
        }
    }
    if n_kept + added.len() > 0 {
        say_how(asked, policy, &mut edit);
    }
    edit
}

/// Says how tools may be used, where the request does not.
fn say_how(asked: &ModelRequest<'_>, policy: &ToolPolicy, edit: &mut ToolEdit) {
    let has_choice = asked.has_member("tool_choice");
    match asked.protocol {
        Protocol::Chat | Protocol::Responses => {
            if let Some(choice) = policy.choice.filter(|_| !has_choice) {
                edit.appended.push(("tool_choice", json!(choice)));
            }
            if let Some(parallel) = policy.parallel_calls()
                && !asked.has_member("parallel_tool_calls")
            {
                edit.appended.push(("parallel_tool_calls", json!(parallel)));
            }
        }
        Protocol::Messages => {
            if has_choice || (policy.choice.is_none() && policy.parallel_calls().is_none()) {
                return;
            }
            let kind = match policy.choice {
                Some(ToolChoice::Required) => "any",
                Some(ToolChoice::None) => "none",
                Some(ToolChoice::Auto) | None => "auto",
            };
            let mut choice = json!({ "type": kind });
            if policy.parallel_calls() == Some(false) && kind != "none" {
                choice["disable_parallel_tool_use"] = json!(true);
            }
            edit.appended.push(("tool_choice", choice));
        }
    }
}

/// A tool as a protocol writes it.
fn written(protocol: Protocol, tool: &Tool) -> Value {
    let Tool { name, description, parameters, schema: _ } = tool;
    let none = || json!({"type": "object", "properties": {}});
    match protocol {
        Protocol::Chat => {
            let mut function = json!({"name": name, "description": description});
            if let Some(parameters) = parameters {
                function["parameters"] = parameters.clone();
            }
            json!({"type": "function", "function": function})
        }
        Protocol::Responses => {
            let parameters = parameters.clone().unwrap_or_else(none);
            // Without a word about it, Responses holds a schema to rules that Chat Completions does not have.
            json!({"type": "function", "name": name, "description": description, "parameters": parameters, "strict": false})
        }
        Protocol::Messages => {
            let schema = parameters.clone().unwrap_or_else(none);
            json!({"name": name, "description": description, "input_schema": schema})
        }
    }
}

/// Writes a member of an object with a comma behind it.
pub(super) fn write_member(out: &mut Vec<u8>, name: &str, value: &Value) {
    write_text(out, name);
    out.push(b':');
    write_value(out, value);
    out.push(b',');
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("a JSON value is always writable to memory");
}

/// Whether a member goes with the tools.
pub(super) fn is_about_tools(body: &[u8], member: &MemberPlace) -> bool {
    ABOUT_TOOLS.iter().any(|name| *member.name(body) == *name.as_bytes())
}
