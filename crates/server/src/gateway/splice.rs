//! What is changed in a request on its way to the provider.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};
use serin_core::prompt::{Tool, ToolPolicy};

use super::body::{Edits, ListEdit, Write, write_text};
use super::json::MemberPlace;
use super::messages::Messages;
use super::protocol::Protocol;
use super::refusal::Refusal;
use super::request::ModelRequest;
use super::settings::{StreamUsage, SystemMessage};
use super::tools::{ToolEdit, edit_tools, is_about_tools, write_member};

/// What the pack brings into a request.
#[derive(Debug)]
pub(super) struct Additions<'a> {
    /// The system text; an empty one is left out.
    pub(super) system: &'a str,
    /// Takes the place of the request's model.
    pub(super) model: Option<&'a str>,
    /// Fill in what the request leaves out.
    pub(super) parameters: &'a Map<String, Value>,
    /// Added to the tools of the request.
    pub(super) tools: &'a [Arc<Tool>],
    /// How tools may be used.
    pub(super) policy: &'a ToolPolicy,
}

/// A request as it goes to the provider.
#[derive(Debug)]
pub(super) struct Spliced {
    /// The body.
    pub(super) body: Bytes,
    /// Whether the usage was asked for in place of the client, who did not want to see it.
    pub(super) adds_usage: bool,
    /// How many parameters of the pack the protocol does not have.
    pub(super) n_left_out: u64,
    /// How many tools of the pack were left out.
    pub(super) n_tools_left_out: u64,
}

/// Names of one and the same parameter; a request that has one of them leaves nothing out.
const TWINS: [[&str; 2]; 1] = [["max_tokens", "max_completion_tokens"]];

/// Takes the prompt member out and puts in what the pack brings.
///
/// # Errors
/// 422 when the request has system text of its own and the setting forbids it; 400 when its system text is in a
/// form that nothing can be put before.
pub(super) fn splice(
    asked: &ModelRequest<'_>,
    messages: Option<&Messages>,
    additions: Option<&Additions<'_>>,
    mode: SystemMessage,
    stream_usage: StreamUsage,
) -> Result<Spliced, Refusal> {
    let mut edits = Edits::default();
    let system = additions.map(|additions| additions.system).filter(|system| !system.is_empty());
    let appended = match system {
        Some(system) => put_system(&mut edits, asked, messages, system, mode)?,
        None => Appended::Nothing,
    };
    let usage = usage_edit(asked, stream_usage, &mut edits);
    let tools = match additions {
        Some(Additions { tools, policy, .. }) => edit_tools(&mut edits, asked, tools, policy),
        None => ToolEdit::default(),
    };
    let model = additions.and_then(|additions| additions.model);
    if let (Some(model), Some(value)) = (model, &asked.model) {
        edits.replace(value.clone(), &|out| write_text(out, model));
    }
    let new_model = model.filter(|_| asked.model.is_none());
    let mut n_left_out = 0;
    let mut missing: Vec<(&str, &Value)> = Vec::new();
    for (name, value) in additions.iter().flat_map(|additions| additions.parameters) {
        match asked.protocol.parameter(name) {
            Some("model") if model.is_some() => {}
            Some(name) if has_parameter(asked, name) => {}
            Some(name) => missing.push((name, value)),
            None => n_left_out += 1,
        }
    }

    let suffix: Write<'_> = &|out: &mut Vec<u8>| {
        if let Some(model) = new_model {
            write_text(out, "model");
            out.push(b':');
            write_text(out, model);
            out.push(b',');
        }
        for (name, value) in &missing {
            write_member(out, name, value);
        }
        for (name, value) in &tools.appended {
            write_member(out, name, value);
        }
        if usage == UsageEdit::Append {
            out.extend_from_slice(b"\"stream_options\":{\"include_usage\":true},");
        }
        match appended {
            Appended::Nothing => {}
            Appended::Member(name, text) => {
                write_text(out, name);
                out.push(b':');
                write_text(out, text);
                out.push(b',');
            }
            Appended::Message(name, text) => {
                write_text(out, name);
                out.extend_from_slice(b":[");
                write_system(out, text);
                out.extend_from_slice(b"],");
            }
        }
        out.pop();
    };
    let has_suffix = !missing.is_empty()
        || !tools.appended.is_empty()
        || new_model.is_some()
        || usage == UsageEdit::Append
        || appended != Appended::Nothing;
    let goes = |index: usize| {
        let member = &asked.object.members[index];
        *member.name(asked.bytes) == *b"prompt" || (tools.loses_tools && is_about_tools(asked.bytes, member))
    };
    if has_suffix || (0..asked.object.members.len()).any(goes) {
        let items: Vec<Range<usize>> = asked.object.members.iter().map(MemberPlace::range).collect();
        let suffix = has_suffix.then_some(suffix);
        edits.list(&items, &ListEdit { open: asked.object.open, removed: &goes, prefix: None, suffix });
    }
    let body = edits.apply(asked.bytes);
    let adds_usage = usage != UsageEdit::None;
    Ok(Spliced { body, adds_usage, n_left_out, n_tools_left_out: tools.n_left_out })
}

/// System text that is written as a new member, behind all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Appended<'a> {
    Nothing,
    /// A member with this name and text.
    Member(&'static str, &'a str),
    /// A list of this name with one message of this text.
    Message(&'static str, &'a str),
}

fn put_system<'a>(
    edits: &mut Edits,
    asked: &ModelRequest<'_>,
    messages: Option<&Messages>,
    system: &'a str,
    mode: SystemMessage,
) -> Result<Appended<'a>, Refusal> {
    let has_messages = messages.is_some_and(|messages| !messages.system.is_empty());
    let is_empty = |value: &Range<usize>| matches!(&asked.bytes[value.clone()], b"null" | b"\"\"" | b"[]");
    let own = asked.system.as_ref().filter(|value| !is_empty(value));
    if mode == SystemMessage::Reject && (has_messages || own.is_some()) {
        let message = "the request has a system message beside the prompt of a pack; \
                       hint: leave it out, or set `systemMessage` to `prepend` or `replace`";
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "system_message_rejected", message));
    }
    let goes = mode == SystemMessage::Replace;
    let Some(member) = asked.protocol.system_member() else {
        let Some((messages, open)) = listed(messages) else {
            return Ok(Appended::Message("messages", system));
        };
        let removed = |index: usize| goes && messages.system.contains(&index);
        let prefix: Write<'_> = &|out| write_system(out, system);
        edits
            .list(&messages.items, &ListEdit { open, removed: &removed, prefix: Some(prefix), suffix: None });
        return Ok(Appended::Nothing);
    };
    if let Some((messages, open)) = listed(messages).filter(|_| goes && has_messages) {
        let removed = |index: usize| messages.system.contains(&index);
        edits.list(&messages.items, &ListEdit { open, removed: &removed, prefix: None, suffix: None });
    }
    let Some(value) = &asked.system else {
        let has_input = asked.messages.is_some() || asked.has_history_at_provider();
        // A prompt alone is a request of its own to OpenAI, while instructions alone are none.
        let stands_alone = asked.protocol == Protocol::Responses && !has_input;
        return Ok(if stands_alone {
            Appended::Message("input", system)
        } else {
            Appended::Member(member, system)
        });
    };
    match (asked.bytes[value.start], own) {
        (_, None) => edits.replace(value.clone(), &|out| write_text(out, system)),
        (_, Some(_)) if goes => edits.replace(value.clone(), &|out| write_text(out, system)),
        (b'"', Some(value)) => edits.replace(value.start..value.start + 1, &|out| {
            write_text(out, system);
            out.pop();
            out.extend_from_slice(b"\\n\\n");
        }),
        (b'[', Some(value)) => edits.replace(value.start + 1..value.start + 1, &|out| {
            out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
            write_text(out, system);
            out.extend_from_slice(b"},");
        }),
        (_, Some(_)) => {
            let message = format!("`{member}` is neither text nor a list; hint: write it as text");
            return Err(Refusal::bad_request("invalid_system", message));
        }
    }
    Ok(Appended::Nothing)
}

/// The messages of a request and where their list begins.
fn listed(messages: Option<&Messages>) -> Option<(&Messages, usize)> {
    let messages = messages?;
    Some((messages, messages.open?))
}

fn write_system(out: &mut Vec<u8>, system: &str) {
    out.extend_from_slice(b"{\"role\":\"system\",\"content\":");
    write_text(out, system);
    out.push(b'}');
}

fn has_parameter(asked: &ModelRequest<'_>, name: &str) -> bool {
    let has = |name: &str| asked.has_member(name);
    has(name) || TWINS.iter().any(|twins| twins.contains(&name) && twins.iter().any(|twin| has(twin)))
}

/// How the usage is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UsageEdit {
    /// Not at all, or by the client itself.
    None,
    /// Inside the `stream_options` that the request has.
    Within,
    /// By a member that is still to be appended.
    Append,
}

fn usage_edit(body: &ModelRequest<'_>, stream_usage: StreamUsage, edits: &mut Edits) -> UsageEdit {
    if body.protocol != Protocol::Chat || !body.is_stream() || stream_usage == StreamUsage::Leave {
        return UsageEdit::None;
    }
    let Some(value) = &body.stream_options else {
        return UsageEdit::Append;
    };
    let json = body.json();
    let options = json.node(value);
    if !options.is_object() {
        // Nothing but an object or null is valid here, and the provider is the one to say so.
        if !options.is_null() {
            return UsageEdit::None;
        }
        edits.replace(value.clone(), &|out| out.extend_from_slice(b"{\"include_usage\":true}"));
        return UsageEdit::Within;
    }
    match options.member(b"include_usage") {
        Some(asked) if asked.raw() == b"true" => return UsageEdit::None,
        Some(asked) => edits.replace(asked.range(), &|out| out.extend_from_slice(b"true")),
        None => {
            let behind = options.members().last().map(|last| last.value.range().end);
            let place = behind.unwrap_or(value.start + 1);
            edits.replace(place..place, &|out| {
                out.extend_from_slice(if behind.is_some() { b"," } else { b"" });
                out.extend_from_slice(b"\"include_usage\":true");
            });
        }
    }
    UsageEdit::Within
}

#[cfg(test)]
#[path = "splice_tests.rs"]
mod tests;
