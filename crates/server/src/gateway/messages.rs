//! The messages that a request brings: who spoke, who spoke last, and where each lies.

use std::ops::Range;

use serin_core::routing::Turn;

use super::body::{Elements, Members};
use super::protocol::Protocol;
use super::refusal::Refusal;
use super::request::{ModelRequest, bad_json};

/// The messages of a request.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The position behind the bracket of the list; nothing for an input that is one text.
    pub(super) open: Option<usize>,
    /// Where each message lies.
    pub(super) items: Vec<Range<usize>>,
    /// Which of them are system or developer messages.
    pub(super) system: Vec<usize>,
    /// Whether an answer or a tool's result is among them.
    pub(super) has_history: bool,
    /// Whether the last one is a tool's result.
    pub(super) ends_in_tool_result: bool,
}

/// Who speaks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    System,
    User,
    Model,
    Tool,
    Unknown,
}

impl Messages {
    /// Finds the messages of a request; nothing when it has none.
    ///
    /// # Errors
    /// 400 when they are no list, and no text either where the protocol takes one.
    pub(super) fn of(request: &ModelRequest<'_>) -> Result<Option<Self>, Refusal> {
        let Some(value) = &request.messages else { return Ok(None) };
        let Some(elements) = Elements::of(request.bytes, value) else {
            if request.protocol == Protocol::Responses && request.bytes[value.start] == b'"' {
                return Ok(Some(Self::default()));
            }
            let name = match request.protocol {
                Protocol::Chat | Protocol::Messages => "messages",
                Protocol::Responses => "input",
            };
            let message = format!("`{name}` is no list; hint: write a JSON array");
            return Err(Refusal::bad_request("invalid_messages", message));
        };
        let mut messages = Self { open: Some(value.start + 1), ..Self::default() };
        for item in elements {
            let item = item.map_err(|error| bad_json(&error))?;
            let speaker = speaker(request, &item);
            messages.ends_in_tool_result = false;
            match speaker {
                Speaker::System => messages.system.push(messages.items.len()),
                Speaker::Model => messages.has_history = true,
                Speaker::Tool => (messages.has_history, messages.ends_in_tool_result) = (true, true),
                Speaker::User | Speaker::Unknown => {}
            }
            messages.items.push(item);
        }
        Ok(Some(messages))
    }

    /// Who sent the last message.
    pub(super) fn turn(&self) -> Turn {
        if self.ends_in_tool_result { Turn::ToolResult } else { Turn::User }
    }
}

fn speaker(request: &ModelRequest<'_>, item: &Range<usize>) -> Speaker {
    let bytes = request.bytes;
    let (mut role, mut kind, mut content) = (None, None, None);
    for member in Members::of(bytes, item).into_iter().flatten().flatten() {
        match &*member.name(bytes) {
            b"role" => role = Some(member.value),
            b"type" => kind = Some(member.value),
            b"content" => content = Some(member.value),
            _ => {}
        }
    }
    let said = |value: &Option<Range<usize>>| value.as_ref().map_or(&b""[..], |value| &bytes[value.clone()]);
    match (request.protocol, said(&role)) {
        (_, b"\"system\"" | b"\"developer\"") => Speaker::System,
        (_, b"\"assistant\"") => Speaker::Model,
        (Protocol::Chat, b"\"tool\"" | b"\"function\"") => Speaker::Tool,
        (Protocol::Messages, b"\"user\"") if content.is_some_and(|content| has_result(bytes, &content)) => {
            Speaker::Tool
        }
        (_, b"\"user\"") => Speaker::User,
        (Protocol::Responses, b"") => match said(&kind) {
            kind if kind.ends_with(b"_output\"") => Speaker::Tool,
            b"" | b"\"message\"" | b"\"item_reference\"" => Speaker::Unknown,
            // Calls of tools, reasoning: what the model said before.
            _ => Speaker::Model,
        },
        (_, _) => Speaker::Unknown,
    }
}

/// Whether one of the blocks is the result of a tool.
fn has_result(bytes: &[u8], content: &Range<usize>) -> bool {
    let mut blocks = Elements::of(bytes, content).into_iter().flatten().flatten();
    blocks.any(|block| {
        let mut members = Members::of(bytes, &block).into_iter().flatten().flatten();
        members.any(|member| {
            *member.name(bytes) == *b"type" && bytes[member.value.clone()] == *b"\"tool_result\""
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;
    use serde_json::{Value, json};

    fn read(protocol: Protocol, body: &Value) -> (Turn, bool, Vec<usize>) {
        let bytes = Bytes::from(body.to_string());
        let request = ModelRequest::scan(protocol, &bytes).unwrap();
        let messages = Messages::of(&request).unwrap().unwrap();
        (messages.turn(), messages.has_history, messages.system)
    }

    #[test]
    fn messages_of_a_chat_tell_the_turn_and_the_history() {
        let read = |roles: &[&str]| {
            let messages: Vec<Value> =
                roles.iter().map(|role| json!({"content": "x", "role": role})).collect();
            read(Protocol::Chat, &json!({ "messages": messages }))
        };
        assert_eq!(read(&[]), (Turn::User, false, vec![]));
        assert_eq!(read(&["system", "user"]), (Turn::User, false, vec![0]));
        assert_eq!(read(&["user", "assistant", "developer", "user"]), (Turn::User, true, vec![2]));
        assert_eq!(read(&["user", "assistant", "tool"]), (Turn::ToolResult, true, vec![]));
    }

    #[test]
    fn items_of_a_response_s_input_tell_them_as_well() {
        let read = |input: Value| read(Protocol::Responses, &json!({ "input": input }));
        let user = json!({"role": "user", "content": "x"});
        let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
        let output = json!({"type": "function_call_output", "call_id": "c", "output": "1"});
        assert_eq!(read(json!("hello")), (Turn::User, false, vec![]));
        assert_eq!(read(json!([{"role": "developer", "content": "d"}, user])), (Turn::User, false, vec![0]));
        assert_eq!(read(json!([user, call])), (Turn::User, true, vec![]));
        assert_eq!(read(json!([user, call, output])), (Turn::ToolResult, true, vec![]));
        assert_eq!(
            read(json!([{"type": "message", "role": "assistant", "content": []}, user])),
            (Turn::User, true, vec![])
        );
    }

    #[test]
    fn blocks_of_anthropic_s_messages_tell_results_of_tools() {
        let read = |content: Value| {
            read(Protocol::Messages, &json!({"messages": [{"role": "user", "content": content}]}))
        };
        assert_eq!(read(json!("hello")), (Turn::User, false, vec![]));
        assert_eq!(read(json!([{"type": "text", "text": "tool_result"}])), (Turn::User, false, vec![]));
        assert_eq!(
            read(json!([{"type": "tool_result", "tool_use_id": "t"}])),
            (Turn::ToolResult, true, vec![])
        );
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (protocol, body) in [
            (Protocol::Chat, json!({"messages": "hi"})),
            (Protocol::Messages, json!({"messages": "hi"})),
            (Protocol::Responses, json!({"input": 7})),
        ] {
            let bytes = Bytes::from(body.to_string());
            let request = ModelRequest::scan(protocol, &bytes).unwrap();
            assert_eq!(Messages::of(&request).unwrap_err().code, "invalid_messages");
        }
    }
}
