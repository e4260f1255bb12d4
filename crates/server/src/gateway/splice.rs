//! What is changed in a chat request on its way to the provider.

use std::ops::Range;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};

use super::body::{Edits, ListEdit, Member, Members, Write, write_text};
use super::refusal::Refusal;
use super::request::{ChatBody, Messages};
use super::settings::{StreamUsage, SystemMessage};

/// What the pack brings into a request.
#[derive(Debug)]
pub(super) struct Additions<'a> {
    /// The system text; an empty one is left out.
    pub(super) system: &'a str,
    /// Fill in what the request leaves out.
    pub(super) parameters: &'a Map<String, Value>,
}

/// A request as it goes to the provider.
#[derive(Debug)]
pub(super) struct Spliced {
    /// The body.
    pub(super) body: Bytes,
    /// Whether the usage was asked for in place of the client, who did not want to see it.
    pub(super) adds_usage: bool,
}

/// Names of one and the same parameter; a request that has one of them leaves nothing out.
const TWINS: [[&str; 2]; 1] = [["max_tokens", "max_completion_tokens"]];

/// Takes the prompt member out and puts in what the pack brings.
///
/// # Errors
/// 422 when the request has system messages of its own and the setting forbids them.
pub(super) fn splice(
    body: &ChatBody<'_>,
    messages: Option<&Messages>,
    additions: Option<&Additions<'_>>,
    system_message: SystemMessage,
    stream_usage: StreamUsage,
) -> Result<Spliced, Refusal> {
    let mut edits = Edits::default();
    let system = additions.map(|additions| additions.system).filter(|system| !system.is_empty());
    if let (Some(messages), Some(system)) = (messages, system) {
        put_system(&mut edits, messages, system, system_message)?;
    }
    let usage = usage_edit(body, stream_usage, &mut edits);
    let missing: Vec<(&String, &Value)> = additions
        .iter()
        .flat_map(|additions| additions.parameters)
        .filter(|(name, _)| !has_parameter(body, name))
        .collect();

    let first_message = system.filter(|_| messages.is_none());
    let suffix: Write<'_> = &|out: &mut Vec<u8>| {
        for (name, value) in &missing {
            write_text(out, name);
            out.push(b':');
            serde_json::to_writer(&mut *out, value).expect("a JSON value is always writable to memory");
            out.push(b',');
        }
        if usage == UsageEdit::Append {
            out.extend_from_slice(b"\"stream_options\":{\"include_usage\":true},");
        }
        if let Some(system) = first_message {
            out.extend_from_slice(b"\"messages\":[");
            write_system(out, system);
            out.extend_from_slice(b"],");
        }
        out.pop();
    };
    let has_suffix = !missing.is_empty() || usage == UsageEdit::Append || first_message.is_some();
    let is_prompt = |index: usize| *body.object.members[index].name(body.bytes) == *b"prompt";
    let has_prompt = (0..body.object.members.len()).any(is_prompt);
    if has_suffix || has_prompt {
        let items: Vec<Range<usize>> = body.object.members.iter().map(Member::range).collect();
        let suffix = has_suffix.then_some(suffix);
        edits.list(&items, &ListEdit { open: body.object.open, removed: &is_prompt, prefix: None, suffix });
    }
    Ok(Spliced { body: edits.apply(body.bytes), adds_usage: usage != UsageEdit::None })
}

fn put_system(
    edits: &mut Edits,
    messages: &Messages,
    system: &str,
    mode: SystemMessage,
) -> Result<(), Refusal> {
    let goes = match mode {
        SystemMessage::Prepend => false,
        SystemMessage::Replace => true,
        SystemMessage::Reject if messages.system.is_empty() => false,
        SystemMessage::Reject => {
            let message = "the request has a system message beside the prompt of a pack; \
                           hint: leave it out, or set `systemMessage` to `prepend` or `replace`";
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "system_message_rejected", message));
        }
    };
    let removed = |index: usize| goes && messages.system.contains(&index);
    let prefix: Write<'_> = &|out| write_system(out, system);
    edits.list(
        &messages.items,
        &ListEdit { open: messages.open, removed: &removed, prefix: Some(prefix), suffix: None },
    );
    Ok(())
}

fn write_system(out: &mut Vec<u8>, system: &str) {
    out.extend_from_slice(b"{\"role\":\"system\",\"content\":");
    write_text(out, system);
    out.push(b'}');
}

fn has_parameter(body: &ChatBody<'_>, name: &str) -> bool {
    let has =
        |name: &str| body.object.members.iter().any(|member| *member.name(body.bytes) == *name.as_bytes());
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

fn usage_edit(body: &ChatBody<'_>, stream_usage: StreamUsage, edits: &mut Edits) -> UsageEdit {
    if !body.is_stream() || stream_usage == StreamUsage::Leave {
        return UsageEdit::None;
    }
    let Some(value) = &body.stream_options else {
        return UsageEdit::Append;
    };
    let Some(members) = Members::of(body.bytes, value) else {
        // Nothing but an object or null is valid here, and the provider is the one to say so.
        if body.bytes[value.clone()] != *b"null" {
            return UsageEdit::None;
        }
        edits.replace(value.clone(), &|out| out.extend_from_slice(b"{\"include_usage\":true}"));
        return UsageEdit::Within;
    };
    let members: Vec<Member> = members.flatten().collect();
    let asked = members.iter().rfind(|member| *member.name(body.bytes) == *b"include_usage");
    match asked {
        Some(asked) if body.bytes[asked.value.clone()] == *b"true" => return UsageEdit::None,
        Some(asked) => edits.replace(asked.value.clone(), &|out| out.extend_from_slice(b"true")),
        None => {
            let items: Vec<Range<usize>> = members.iter().map(Member::range).collect();
            let suffix: Write<'_> = &|out| out.extend_from_slice(b"\"include_usage\":true");
            let open = value.start + 1;
            edits.list(&items, &ListEdit { open, removed: &|_| false, prefix: None, suffix: Some(suffix) });
        }
    }
    UsageEdit::Within
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    fn spliced_with(body: &str, mode: SystemMessage, parameters: Value) -> Result<(String, bool), Refusal> {
        let bytes = Bytes::from(body.to_owned());
        let chat = ChatBody::scan(&bytes).unwrap();
        let messages = Messages::of(&chat).unwrap();
        let Value::Object(parameters) = parameters else { panic!("parameters are an object") };
        let additions = Additions { system: "Be \"kind\".", parameters: &parameters };
        let spliced = splice(&chat, messages.as_ref(), Some(&additions), mode, StreamUsage::Add)?;
        Ok((String::from_utf8(spliced.body.to_vec()).unwrap(), spliced.adds_usage))
    }

    fn spliced(body: &str) -> String {
        spliced_with(body, SystemMessage::Prepend, json!({})).unwrap().0
    }

    #[test]
    fn the_system_text_goes_first_and_the_prompt_away() {
        let system = r#"{"role":"system","content":"Be \"kind\"."}"#;
        for (before, after) in [
            (
                r#"{"model":"m", "prompt":{"id":"p"}, "messages" : [ {"role":"user"} ]}"#,
                format!(r#"{{"model":"m", "messages" : [{system}, {{"role":"user"}} ]}}"#),
            ),
            (r#"{"prompt":1,"messages":[],"prompt":2}"#, format!(r#"{{"messages":[{system}]}}"#)),
            (r#"{"prompt":1}"#, format!(r#"{{"messages":[{system}]}}"#)),
        ] {
            assert_eq!(spliced(before), after, "{before}");
        }
    }

    #[test]
    fn own_system_messages_stay_go_or_are_refused() {
        let body = r#"{"messages":[{"role":"system","content":"a"},{"role":"user"},{"role":"developer"}]}"#;
        let roles = |mode| {
            let (text, _) = spliced_with(body, mode, json!({})).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            let messages = value["messages"].as_array().unwrap().clone();
            messages.iter().map(|message| message["role"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(roles(SystemMessage::Prepend), ["system", "system", "user", "developer"]);
        assert_eq!(roles(SystemMessage::Replace), ["system", "user"]);
        let refused = spliced_with(body, SystemMessage::Reject, json!({})).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (422, "system_message_rejected"));
        assert!(spliced_with(r#"{"messages":[{"role":"user"}]}"#, SystemMessage::Reject, json!({})).is_ok());
    }

    #[test]
    fn parameters_fill_in_what_the_request_leaves_out() {
        let parameters = json!({"max_tokens": 100, "temperature": 0.2});
        let filled = |body: &str| {
            let (text, _) = spliced_with(body, SystemMessage::Prepend, parameters.clone()).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            (value["temperature"].clone(), value["max_tokens"].clone())
        };
        assert_eq!(filled(r#"{"messages":[]}"#), (json!(0.2), json!(100)));
        assert_eq!(filled(r#"{"messages":[],"temperature":1}"#), (json!(1), json!(100)));
        assert_eq!(filled(r#"{"messages":[],"max_completion_tokens":7}"#), (json!(0.2), Value::Null));
    }

    #[test]
    fn usage_is_asked_for_where_the_client_did_not() {
        let usage = |body: &str| {
            let (text, adds) = spliced_with(body, SystemMessage::Prepend, json!({})).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            (value["stream_options"].clone(), adds)
        };
        let added = json!({"include_usage": true});
        for (body, expected) in [
            (r#"{"stream":true}"#, (added.clone(), true)),
            (r#"{"stream":true,"stream_options":null}"#, (added.clone(), true)),
            (r#"{"stream":true,"stream_options":{}}"#, (added.clone(), true)),
            (r#"{"stream":true,"stream_options":{"include_usage":false}}"#, (added.clone(), true)),
            (r#"{"stream":true,"stream_options":{"x":1}}"#, (json!({"x": 1, "include_usage": true}), true)),
            (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, (added, false)),
            (r#"{"stream":true,"stream_options":7}"#, (json!(7), false)),
            (r#"{"stream":false}"#, (Value::Null, false)),
            (r"{}", (Value::Null, false)),
        ] {
            assert_eq!(usage(body), expected, "{body}");
        }
    }

    #[test]
    fn a_version_only_pack_loses_the_prompt_member_alone() {
        let bytes = Bytes::from_static(b"{\"a\":1,\"prompt\":{\"id\":\"p\"},\"stream\":true}");
        let chat = ChatBody::scan(&bytes).unwrap();
        let spliced = splice(&chat, None, None, SystemMessage::Prepend, StreamUsage::Leave).unwrap();
        assert_eq!(spliced.body, "{\"a\":1,\"stream\":true}");
    }
}
