//! The texts of a conversation that is recorded.
//!
//! What is asked is read the same way in all protocols, which differ in the names of a few members; what is
//! answered is collected piece by piece wherever the answer is read. Nothing here runs for a session that is not
//! recorded.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serin_core::observation::Response;

use super::json::{Json, Member, Node, SyntaxError};
use crate::samples::{Draft, Message, Samples, Subject};

/// Bytes that are kept beyond what a sample holds, so that what begins before its end is recognised in full.
const MARGIN: usize = 4 << 10;
/// The most messages of one turn that are kept; tools may answer many times.
const MOST_MESSAGES: usize = 32;

/// A recording under way.
pub(super) struct Recording {
    samples: Arc<Samples>,
    draft: Box<Draft>,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draft.fmt(f)
    }
}

impl Recording {
    /// Begins with what is asked: the body as the provider gets it.
    ///
    /// Nothing when the body cannot be read, which the provider will say.
    pub(super) fn of(samples: &Arc<Samples>, subject: Subject, body: &Bytes) -> Option<Self> {
        let limit = samples.settings().max_bytes + MARGIN;
        let (model, messages) = asked(body, limit).ok()?;
        let draft = Box::new(Draft::asked(subject, model, messages));
        Some(Self { samples: Arc::clone(samples), draft })
    }

    /// A place for the text of the answer.
    pub(super) fn answer(&self) -> AnswerText {
        AnswerText { text: String::new(), room: self.samples.settings().max_bytes + MARGIN }
    }

    /// Hands the conversation over, with its answer and what was measured of it.
    pub(super) fn end(mut self, answer: AnswerText, response: &Response, is_readable: bool) {
        self.draft.answered(answer.text, response, is_readable);
        self.samples.record(self.draft);
    }
}

/// The text of an answer, collected as it is read.
#[derive(Default)]
pub(super) struct AnswerText {
    text: String,
    /// Bytes that still fit.
    room: usize,
}

impl fmt::Debug for AnswerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerText").field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}

impl AnswerText {
    /// Adds a piece of the text.
    pub(super) fn add(&mut self, piece: &str) {
        let piece = beginning(piece, self.room);
        self.room -= piece.len();
        self.text.push_str(piece);
    }

    /// Adds a call of a tool, on a line of its own.
    pub(super) fn add_call(&mut self, name: &str, arguments: Option<&str>) {
        if !self.text.is_empty() {
            self.add("\n");
        }
        for piece in ["[calls ", name, "(", arguments.unwrap_or("…"), ")]"] {
            self.add(piece);
        }
    }
}

/// The model and the last turn of a request: the last message of the user and all that follow it.
fn asked(body: &Bytes, limit: usize) -> Result<(String, Vec<Message>), SyntaxError> {
    let json = Json::whole(body)?;
    let model = json.root().member(b"model").and_then(Node::decoded).unwrap_or_default();
    let model = beginning(&model, limit).to_owned();
    let said = json.root().member(b"messages").or_else(|| json.root().member(b"input"));
    if let Some(input) = said.and_then(Node::decoded) {
        let text = beginning(&input, limit).to_owned();
        return Ok((model, vec![Message { role: "user".to_owned(), text }]));
    }
    let items: Vec<Node<'_, '_>> = said.into_iter().flat_map(Node::elements).collect();
    let last_of_user = items.iter().rposition(|item| role(*item) == "user");
    let from = last_of_user.unwrap_or(items.len().saturating_sub(1));
    let turn = items[from..].iter().take(MOST_MESSAGES);
    Ok((model, turn.map(|item| message(*item, limit)).collect()))
}

/// Who speaks, as one of the words that the protocols have.
fn role(item: Node<'_, '_>) -> &'static str {
    const ROLES: [&str; 6] = ["user", "assistant", "tool", "system", "developer", "function"];
    let word = |name: &[u8]| item.member(name)?.decoded();
    match word(b"role") {
        Some(role) => ROLES.into_iter().find(|known| role == *known).unwrap_or("other"),
        // Items of a response's input: what a tool gave, or what the model called.
        None => match word(b"type") {
            Some(kind) if kind.ends_with("_output") => "tool",
            Some(kind) if kind.ends_with("_call") => "assistant",
            Some(_) | None => "other",
        },
    }
}

fn message(item: Node<'_, '_>, limit: usize) -> Message {
    let mut said = AnswerText { text: String::new(), room: limit };
    let mut calls = Vec::new();
    for member in item.members() {
        match &*member.name() {
            b"content" | b"output" => content(member.value, &mut said),
            b"tool_calls" => calls.extend(member.value.elements()),
            _ => {}
        }
    }
    call(item, &mut said);
    for called in calls {
        tool_call(called, &mut said);
    }
    Message { role: role(item).to_owned(), text: said.text }
}

/// Text, or parts of which those that are no text are named by their type.
fn content(value: Node<'_, '_>, said: &mut AnswerText) {
    if let Some(piece) = value.decoded() {
        said.add(&piece);
        return;
    }
    for part in value.elements() {
        let (mut kind, mut piece) = (None, None);
        for member in part.members() {
            match &*member.name() {
                b"type" => kind = member.value.decoded(),
                b"text" => piece = member.value.decoded(),
                // What a tool gave, as one text.
                b"content" => piece = member.value.decoded().or(piece),
                _ => {}
            }
        }
        if kind.as_deref() == Some("tool_use") {
            call(part, said);
            continue;
        }
        if !said.text.is_empty() {
            said.add("\n");
        }
        match piece {
            Some(piece) => said.add(&piece),
            None => {
                said.add("[");
                said.add(kind.as_deref().unwrap_or("part"));
                said.add("]");
            }
        }
    }
}

/// A call in the list of a chat message.
fn tool_call(item: Node<'_, '_>, said: &mut AnswerText) {
    for member in item.members().filter(|member| *member.name() == *b"function") {
        call(member.value, said);
    }
}

/// A call of a tool: its name, and its arguments as text or as an object; nothing for what has no arguments.
fn call(value: Node<'_, '_>, said: &mut AnswerText) {
    let (mut name, mut arguments) = (None, None);
    for member in value.members() {
        let Member { value, .. } = member;
        match &*member.name() {
            b"name" => name = value.decoded(),
            b"arguments" | b"input" => {
                arguments = value.decoded().or_else(|| Some(String::from_utf8_lossy(value.raw())));
            }
            _ => {}
        }
    }
    if let Some(arguments) = arguments {
        said.add_call(name.as_deref().unwrap_or("?"), Some(&arguments));
    }
}

/// As much of a text as fits into so many bytes.
fn beginning(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::{Value, json};

    fn turn(messages: Value) -> Vec<(String, String)> {
        let body = Bytes::from(json!({"model": "m", "messages": messages}).to_string());
        read(&body)
    }

    fn read(body: &Bytes) -> Vec<(String, String)> {
        let (model, messages) = asked(body, 40).unwrap();
        assert_eq!(model, "m");
        messages.into_iter().map(|message| (message.role, message.text)).collect()
    }

    fn said(role: &str, text: &str) -> (String, String) {
        (role.to_owned(), text.to_owned())
    }

    #[test]
    fn the_last_turn_of_the_user_is_kept_and_nothing_before_it() {
        let messages = json!([
            {"role": "system", "content": "You are support."},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "answer"},
            {"content": "sec\u{f6}nd \"it\"", "role": "user"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "function": {"name": "find", "arguments": "{\"id\": 7}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "found"},
        ]);
        assert_eq!(
            turn(messages),
            [
                said("user", "sec\u{f6}nd \"it\""),
                said("assistant", "[calls find({\"id\": 7})]"),
                said("tool", "found"),
            ]
        );
        assert_eq!(turn(json!([{"role": "system", "content": "only"}])), [said("system", "only")]);
        assert_eq!(turn(json!([{"role": "wizard", "content": "x"}])), [said("other", "x")]);
        assert_eq!(turn(json!([])), []);
    }

    #[test]
    fn the_other_protocols_say_the_same_in_other_words() {
        let read = |body: Value| read(&Bytes::from(body.to_string()));
        assert_eq!(read(json!({"model": "m", "input": "hello"})), [said("user", "hello")]);
        let input = json!([
            {"role": "user", "content": [{"type": "input_text", "text": "find it"}]},
            {"type": "function_call", "call_id": "1", "name": "find", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "found"},
        ]);
        let expected =
            [said("user", "find it"), said("assistant", "[calls find({})]"), said("tool", "found")];
        assert_eq!(read(json!({"model": "m", "input": input})), expected);
        let messages = json!([
            {"role": "user", "content": "find it"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "find", "input": {"id": 7}}]},
        ]);
        let expected = [said("user", "find it"), said("assistant", "[calls find({\"id\":7})]")];
        assert_eq!(read(json!({"model": "m", "messages": messages})), expected);
        let result = json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "found"}]}]);
        assert_eq!(read(json!({"model": "m", "messages": result})), [said("user", "found")]);
    }

    #[test]
    fn parts_that_are_no_text_are_named() {
        let parts =
            json!([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:…"}}]);
        assert_eq!(turn(json!([{"role": "user", "content": parts}])), [said("user", "see\n[image_url]")]);
    }

    #[test]
    fn a_text_is_kept_up_to_the_limit() {
        let long = "é".repeat(100);
        assert_eq!(turn(json!([{"role": "user", "content": long}])), [said("user", &"é".repeat(20))]);
        let mut answer = AnswerText { text: String::new(), room: 5 };
        answer.add("abc");
        answer.add("déf");
        answer.add_call("find", None);
        assert_eq!(answer.text, "abcd\n");
    }
}
