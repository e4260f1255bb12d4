//! The messages that a request brings: who spoke, who spoke last, and where each lies.

use std::borrow::Cow;
use std::ops::Range;

use serin_core::ids::PackName;
use serin_core::routing::Turn;
use xxhash_rust::xxh3::xxh3_64;

use super::continuations::{Questions, TextHash, Trace};
use super::json::Node;
use super::protocol::Protocol;
use super::refusal::Refusal;
use super::request::ModelRequest;

/// Earlier messages of the user that the last one is compared with.
const MOST_COMPARED: usize = 8;

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
    /// The user's messages, by their index.
    users: Vec<usize>,
    /// The last answer, by its index.
    answer: Option<usize>,
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
        let json = request.json();
        let list = json.node(value);
        if !list.is_array() {
            if request.protocol == Protocol::Responses && list.text().is_some() {
                return Ok(Some(Self::default()));
            }
            let name = match request.protocol {
                Protocol::Chat | Protocol::Messages => "messages",
                Protocol::Responses => "input",
            };
            let message = format!("`{name}` is no list; hint: write a JSON array");
            return Err(Refusal::bad_request("invalid_messages", message));
        }
        let mut messages = Self { open: Some(value.start + 1), ..Self::default() };
        for item in list.elements() {
            messages.ends_in_tool_result = false;
            match speaker(request.protocol, item) {
                Speaker::System => messages.system.push(messages.items.len()),
                Speaker::Model => {
                    messages.has_history = true;
                    messages.answer = Some(messages.items.len());
                }
                Speaker::Tool => (messages.has_history, messages.ends_in_tool_result) = (true, true),
                Speaker::User => messages.users.push(messages.items.len()),
                Speaker::Unknown => {}
            }
            messages.items.push(item.range());
        }
        Ok(Some(messages))
    }

    /// The hash of what the user asked last: letter case, punctuation and spaces make no difference.
    pub(super) fn question(&self, request: &ModelRequest<'_>) -> Option<u64> {
        let asked = match self.open {
            // An input that is one text.
            None => request.json().node(request.messages.as_ref()?).decoded()?,
            Some(_) => self.said(request, *self.users.last()?),
        };
        let mut plain = String::with_capacity(asked.len() + 1);
        words(&asked).for_each(|word| plain.extend([word, " "]));
        Some(xxh3_64(plain.to_lowercase().as_bytes()))
    }

    /// Whether the user asked the same earlier in this request; nothing when nothing was asked before.
    pub(super) fn is_repeated(&self, request: &ModelRequest<'_>) -> Option<bool> {
        let (last, before) = self.users.split_last().filter(|(_, before)| !before.is_empty())?;
        let question = self.said(request, *last);
        let mut recent = before.iter().rev().take(MOST_COMPARED);
        Some(recent.any(|index| has_same_words(&self.said(request, *index), &question)))
    }

    /// The text of a message.
    fn said<'b>(&self, request: &ModelRequest<'b>, index: usize) -> Cow<'b, str> {
        said(request.json().node(&self.items[index]))
    }

    /// By what the answer of ours inside of the request is recognised.
    ///
    /// What is surest comes first.
    pub(super) fn traces(&self, request: &ModelRequest<'_>, pack: &PackName) -> Vec<Trace> {
        let Some(answer) = self.answer else { return Vec::new() };
        let json = request.json();
        let item = json.node(&self.items[answer]);
        if let Some(id) = call_id(item) {
            return vec![Trace::of_id(pack, &id)];
        }
        let text = said(item);
        if text.is_empty() {
            return Vec::new();
        }
        let mut hash = TextHash::new();
        hash.add(&text);
        let users = self.users.partition_point(|user| *user < answer);
        let questions = self.questions(request, users);
        Trace::of_text(pack, questions, hash.finish()).to_vec()
    }

    /// What the user asked in this request.
    pub(super) fn all_questions(&self, request: &ModelRequest<'_>) -> Questions {
        match self.open {
            None => Questions::default(),
            Some(_) => self.questions(request, self.users.len()),
        }
    }

    /// The first so many questions.
    fn questions(&self, request: &ModelRequest<'_>, n_users: usize) -> Questions {
        let mut all = TextHash::new();
        let mut last = 0;
        for user in &self.users[..n_users] {
            let text = self.said(request, *user);
            let mut one = TextHash::new();
            one.add(&text);
            last = one.finish();
            all.add(&text);
            all.add("\0");
        }
        Questions { all: all.finish(), last }
    }

    /// Who sent the last message.
    pub(super) fn turn(&self) -> Turn {
        if self.ends_in_tool_result { Turn::ToolResult } else { Turn::User }
    }
}

fn speaker(protocol: Protocol, item: Node<'_, '_>) -> Speaker {
    let (mut role, mut kind, mut content) = (&b""[..], &b""[..], None);
    for member in item.members() {
        match &*member.name() {
            b"role" => role = member.value.raw(),
            b"type" => kind = member.value.raw(),
            b"content" => content = Some(member.value),
            _ => {}
        }
    }
    match (protocol, role) {
        (_, b"\"system\"" | b"\"developer\"") => Speaker::System,
        (_, b"\"assistant\"") => Speaker::Model,
        (Protocol::Chat, b"\"tool\"" | b"\"function\"") => Speaker::Tool,
        (Protocol::Messages, b"\"user\"") if content.is_some_and(has_result) => Speaker::Tool,
        (_, b"\"user\"") => Speaker::User,
        (Protocol::Responses, b"") => match kind {
            kind if kind.ends_with(b"_output\"") => Speaker::Tool,
            b"" | b"\"message\"" | b"\"item_reference\"" => Speaker::Unknown,
            // Calls of tools, reasoning: what the model said before.
            _ => Speaker::Model,
        },
        (_, _) => Speaker::Unknown,
    }
}

/// The text of a message, of which images and other parts have none.
fn said<'b>(item: Node<'_, 'b>) -> Cow<'b, str> {
    let mut all = Cow::Borrowed("");
    for content in item.members().filter(|member| *member.name() == *b"content") {
        all += content.value.decoded().unwrap_or_default();
        let parts = content.value.elements().flat_map(Node::members);
        for text in parts.filter(|member| *member.name() == *b"text") {
            all += text.value.decoded().unwrap_or_default();
        }
    }
    all
}

/// The id of the first call that a message of the model makes.
fn call_id(item: Node<'_, '_>) -> Option<String> {
    let id_of = |object: Node<'_, '_>, name: &[u8]| {
        let id = object.members().find(|member| *member.name() == *name)?;
        id.value.decoded().map(Cow::into_owned)
    };
    for member in item.members() {
        match &*member.name() {
            b"call_id" => return id_of(item, b"call_id"),
            b"tool_calls" => {
                return member.value.elements().next().and_then(|first| id_of(first, b"id"));
            }
            b"content" => {
                let is_call = |block: &Node<'_, '_>| {
                    block.members().any(|member| member.value.raw() == b"\"tool_use\"")
                };
                let call = member.value.elements().find(is_call);
                if let Some(id) = call.and_then(|block| id_of(block, b"id")) {
                    return Some(id);
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether two texts say the same: letter case, punctuation and spaces make no difference.
fn has_same_words(one: &str, other: &str) -> bool {
    // As far as they are the same to the letter, nobody has to look for words; from the last space there on it matters.
    let same = &one[..one.floor_char_boundary(same_bytes(one.as_bytes(), other.as_bytes()))];
    let from = same.rfind(|c: char| !c.is_alphanumeric()).unwrap_or(0);
    let (mut one, mut other) = (words(&one[from..]), words(&other[from..]));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one.eq_ignore_ascii_case(other) => {}
            (Some(one), Some(other)) if one.to_lowercase() == other.to_lowercase() => {}
            (Some(_), _) | (None, Some(_)) => return false,
        }
    }
}

/// With how many bytes in common they begin.
fn same_bytes(one: &[u8], other: &[u8]) -> usize {
    const STRIDE: usize = 16;
    let strides = one.chunks_exact(STRIDE).zip(other.chunks_exact(STRIDE));
    let from = strides.take_while(|(one, other)| one == other).count() * STRIDE;
    let rest = one[from..].iter().zip(&other[from..]);
    from + rest.take_while(|(one, other)| one == other).count()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Whether one of the blocks is the result of a tool.
fn has_result(content: Node<'_, '_>) -> bool {
    content
        .elements()
        .flat_map(Node::members)
        .any(|member| *member.name() == *b"type" && member.value.raw() == b"\"tool_result\"")
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
    fn a_question_is_the_same_in_other_letters_and_other_punctuation() {
        for (one, other, is_same) in [
            ("Where is my parcel?", "  where IS my parcel", true),
            ("ÜBER Straße 7!", "über strasse 7", false),
            ("Über uns", "ÜBER, uns…", true),
            ("Where is it", "Where is it now", false),
            ("Where is it now", "Where is it", false),
            ("", "?!", true),
            ("to be or not", "to be, or NOT", true),
            ("to be or not", "to be or nothing", false),
            ("naïve", "naïf", false),
            ("so été", "so étê", false),
            ("same to the letter", "same to the letter", true),
        ] {
            assert_eq!(has_same_words(one, other), is_same, "{one:?}, {other:?}");
        }
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
