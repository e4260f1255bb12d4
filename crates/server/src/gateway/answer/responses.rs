//! An answer of OpenAI's Responses: one response object, or typed events around it.
//!
//! The text of a stream is read from its deltas; the last event, which repeats all of it, tells the usage and
//! how the answer ended.

use super::{Chunk, Expected, Reading};
use crate::gateway::json::{Member, Node};

/// Parts of an event.
#[derive(Default)]
struct Event<'j, 'b> {
    kind: Option<Node<'j, 'b>>,
    delta: Option<Node<'j, 'b>>,
    item: Option<Node<'j, 'b>>,
    response: Option<Node<'j, 'b>>,
    index: u64,
    is_response: bool,
}

impl Reading {
    /// Reads a response or an event.
    pub(super) fn responses(&mut self, answer: Node<'_, '_>, expected: &Expected) -> Chunk {
        let mut event = Event::default();
        for Member { key, value, .. } in answer.members() {
            match key {
                b"type" => event.kind = Some(value),
                b"delta" => event.delta = Some(value),
                b"item" => event.item = Some(value),
                b"response" => event.response = Some(value),
                b"output_index" => event.index = value.whole_number().unwrap_or(0),
                b"output" | b"status" => event.is_response = true,
                b"error" => self.has_error |= !value.is_null(),
                _ => {}
            }
        }
        let Some(kind) = event.kind.map(Node::raw) else {
            if event.is_response {
                self.response(answer, expected, Output::Read);
            }
            return Chunk::Other;
        };
        let has_content = match (kind, event.delta, event.item, event.response) {
            (b"\"response.output_text.delta\"", Some(delta), _, _) => {
                self.piece(delta, expected).unwrap_or(false)
            }
            (b"\"response.refusal.delta\"", Some(delta), _, _) => self.refusal(delta),
            (
                b"\"response.function_call_arguments.delta\"" | b"\"response.custom_tool_call_input.delta\"",
                Some(delta),
                _,
                _,
            ) => {
                if let Some(at) = self.call(event.index, false) {
                    self.call_arguments(at, delta);
                }
                true
            }
            (b"\"response.output_item.added\"", _, Some(item), _) => {
                self.call_of_item(item, event.index, expected).is_some()
            }
            (
                b"\"response.completed\"" | b"\"response.incomplete\"" | b"\"response.failed\"",
                _,
                _,
                Some(response),
            ) => {
                self.response(response, expected, Output::Known);
                return Chunk::End;
            }
            (b"\"error\"", _, _, _) => {
                self.has_error = true;
                false
            }
            (_, _, _, _) => false,
        };
        if has_content { Chunk::Content } else { Chunk::Other }
    }

    /// Reads a response object, with its output unless that was read from deltas.
    fn response(&mut self, response: Node<'_, '_>, expected: &Expected, output: Output) {
        let (mut status, mut reason) = (None, None);
        for Member { key, value, .. } in response.members() {
            match key {
                b"id" => self.answer_id(value),
                b"status" => status = value.decoded(),
                b"error" => self.has_error |= !value.is_null(),
                b"incomplete_details" => {
                    let details = value.members().filter(|detail| detail.key == b"reason");
                    reason = details.last().map_or(reason, |detail| detail.value.decoded());
                }
                b"usage" => self.responses_usage(value),
                b"output" if output == Output::Read => {
                    for (index, item) in value.elements().enumerate() {
                        self.item(item, index as u64, expected);
                    }
                }
                _ => {}
            }
        }
        self.has_error |= status.as_deref() == Some("failed");
        if let Some(reason) = reason.or(status) {
            self.finish_reason = Some(reason.into_owned());
        }
    }

    /// Reads one item of a whole output.
    fn item(&mut self, item: Node<'_, '_>, index: u64, expected: &Expected) {
        if let Some(at) = self.call_of_item(item, index, expected) {
            for Member { key, value, .. } in item.members() {
                if key == b"arguments" {
                    self.call_arguments(at, value);
                }
            }
            return;
        }
        if !is_message(item) {
            return;
        }
        let contents = item.members().filter(|member| member.key == b"content");
        let parts = contents.flat_map(|content| content.value.elements());
        for Member { key, value, .. } in parts.flat_map(Node::members) {
            match key {
                b"text" => {
                    self.piece(value, expected);
                }
                b"refusal" => {
                    self.refusal(value);
                }
                _ => {}
            }
        }
    }

    /// The place of the call that an item is; nothing when it is none.
    fn call_of_item(&mut self, item: Node<'_, '_>, index: u64, expected: &Expected) -> Option<usize> {
        let (mut kind, mut name, mut id) = (None, None, None);
        for Member { key, value, .. } in item.members() {
            match key {
                b"type" => kind = Some(value),
                b"name" => name = Some(value),
                b"call_id" => id = Some(value),
                _ => {}
            }
        }
        let is_free = match kind.map(Node::raw) {
            Some(b"\"function_call\"") => false,
            Some(b"\"custom_tool_call\"") => true,
            Some(_) | None => return None,
        };
        let at = self.call(index, is_free)?;
        if let Some(name) = name {
            self.call_name(at, name);
        }
        if let Some(id) = id {
            self.call_id(at, id, expected);
        }
        Some(at)
    }

    fn responses_usage(&mut self, usage: Node<'_, '_>) {
        for Member { key, value, .. } in usage.members() {
            match key {
                b"input_tokens" => self.input_tokens = value.whole_number().or(self.input_tokens),
                b"output_tokens" => self.output_tokens = value.whole_number().or(self.output_tokens),
                b"input_tokens_details" => self.cached_tokens(value),
                _ => {}
            }
        }
    }
}

/// Whether the output of a response is still to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Read,
    Known,
}

fn is_message(item: Node<'_, '_>) -> bool {
    item.members().any(|Member { key, value, .. }| key == b"type" && value.raw() == b"\"message\"")
}
