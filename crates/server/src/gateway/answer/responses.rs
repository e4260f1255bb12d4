//! An answer of OpenAI's Responses: one response object, or typed events around it.
//!
//! The text of a stream is read from its deltas; the last event, which repeats all of it, tells the usage and
//! how the answer ended.

use std::ops::Range;

use super::{Chunk, Expected, Reading, is_null};
use crate::gateway::body::{Elements, Members, SyntaxError, text, whole_number};

/// Parts of an event.
#[derive(Default)]
struct Event {
    kind: Option<Range<usize>>,
    delta: Option<Range<usize>>,
    item: Option<Range<usize>>,
    response: Option<Range<usize>>,
    index: u64,
    is_response: bool,
}

impl Reading {
    /// Reads a response or an event.
    pub(super) fn responses(
        &mut self,
        bytes: &[u8],
        members: Members<'_>,
        whole: &Range<usize>,
        expected: &Expected,
    ) -> Result<Chunk, SyntaxError> {
        let mut event = Event::default();
        for member in members {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"type" => event.kind = Some(member.value),
                b"delta" => event.delta = Some(member.value),
                b"item" => event.item = Some(member.value),
                b"response" => event.response = Some(member.value),
                b"output_index" => event.index = whole_number(bytes, &member.value).unwrap_or(0),
                b"output" | b"status" => event.is_response = true,
                b"error" => self.has_error |= !is_null(bytes, &member.value),
                _ => {}
            }
        }
        let Some(kind) = event.kind.as_ref().map(|kind| &bytes[kind.clone()]) else {
            if event.is_response {
                self.response(bytes, whole, expected, Output::Read)?;
            }
            return Ok(Chunk::Other);
        };
        let has_content = match (kind, &event.delta, &event.item, &event.response) {
            (b"\"response.output_text.delta\"", Some(delta), _, _) => {
                self.piece(bytes, delta, expected).unwrap_or(false)
            }
            (b"\"response.refusal.delta\"", Some(delta), _, _) => self.refusal(bytes, delta),
            (
                b"\"response.function_call_arguments.delta\"" | b"\"response.custom_tool_call_input.delta\"",
                Some(delta),
                _,
                _,
            ) => {
                if let Some(at) = self.call(event.index, false) {
                    self.call_arguments(at, bytes, delta);
                }
                true
            }
            (b"\"response.output_item.added\"", _, Some(item), _) => {
                self.call_of_item(bytes, item, event.index, expected)?.is_some()
            }
            (
                b"\"response.completed\"" | b"\"response.incomplete\"" | b"\"response.failed\"",
                _,
                _,
                Some(response),
            ) => {
                self.response(bytes, response, expected, Output::Known)?;
                return Ok(Chunk::End);
            }
            (b"\"error\"", _, _, _) => {
                self.has_error = true;
                false
            }
            (_, _, _, _) => false,
        };
        Ok(if has_content { Chunk::Content } else { Chunk::Other })
    }

    /// Reads a response object, with its output unless that was read from deltas.
    fn response(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        expected: &Expected,
        output: Output,
    ) -> Result<(), SyntaxError> {
        let (mut status, mut reason) = (None, None);
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"id" => self.answer_id(bytes, &member.value),
                b"status" => status = text(bytes, &member.value),
                b"error" => self.has_error |= !is_null(bytes, &member.value),
                b"incomplete_details" => {
                    for detail in Members::of(bytes, &member.value).into_iter().flatten() {
                        let detail = detail?;
                        if &bytes[detail.key.clone()] == b"reason" {
                            reason = text(bytes, &detail.value);
                        }
                    }
                }
                b"usage" => self.responses_usage(bytes, &member.value)?,
                b"output" if output == Output::Read => {
                    let items = Elements::of(bytes, &member.value).into_iter().flatten();
                    for (index, item) in items.enumerate() {
                        self.item(bytes, &item?, index as u64, expected)?;
                    }
                }
                _ => {}
            }
        }
        self.has_error |= status.as_deref() == Some("failed");
        if let Some(reason) = reason.or(status) {
            self.finish_reason = Some(reason.into_owned());
        }
        Ok(())
    }

    /// Reads one item of a whole output.
    fn item(
        &mut self,
        bytes: &[u8],
        item: &Range<usize>,
        index: u64,
        expected: &Expected,
    ) -> Result<(), SyntaxError> {
        if let Some(at) = self.call_of_item(bytes, item, index, expected)? {
            for member in Members::of(bytes, item).into_iter().flatten() {
                let member = member?;
                if &bytes[member.key.clone()] == b"arguments" {
                    self.call_arguments(at, bytes, &member.value);
                }
            }
            return Ok(());
        }
        for member in Members::of(bytes, item).into_iter().flatten() {
            let member = member?;
            if &bytes[member.key.clone()] != b"content" || !is_message(bytes, item) {
                continue;
            }
            for part in Elements::of(bytes, &member.value).into_iter().flatten() {
                for member in Members::of(bytes, &part?).into_iter().flatten() {
                    let member = member?;
                    match &bytes[member.key.clone()] {
                        b"text" => {
                            self.piece(bytes, &member.value, expected);
                        }
                        b"refusal" => {
                            self.refusal(bytes, &member.value);
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// The place of the call that an item is; nothing when it is none.
    fn call_of_item(
        &mut self,
        bytes: &[u8],
        item: &Range<usize>,
        index: u64,
        expected: &Expected,
    ) -> Result<Option<usize>, SyntaxError> {
        let (mut kind, mut name, mut id) = (None, None, None);
        for member in Members::of(bytes, item).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"type" => kind = Some(member.value),
                b"name" => name = Some(member.value),
                b"call_id" => id = Some(member.value),
                _ => {}
            }
        }
        let is_free = match kind.map(|kind| &bytes[kind]) {
            Some(b"\"function_call\"") => false,
            Some(b"\"custom_tool_call\"") => true,
            Some(_) | None => return Ok(None),
        };
        let Some(at) = self.call(index, is_free) else { return Ok(None) };
        if let Some(name) = name {
            self.call_name(at, bytes, &name);
        }
        if let Some(id) = id {
            self.call_id(at, bytes, &id, expected);
        }
        Ok(Some(at))
    }

    fn responses_usage(&mut self, bytes: &[u8], value: &Range<usize>) -> Result<(), SyntaxError> {
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"input_tokens" => {
                    self.input_tokens = whole_number(bytes, &member.value).or(self.input_tokens)
                }
                b"output_tokens" => {
                    self.output_tokens = whole_number(bytes, &member.value).or(self.output_tokens)
                }
                b"input_tokens_details" => {
                    for detail in Members::of(bytes, &member.value).into_iter().flatten() {
                        let detail = detail?;
                        if &bytes[detail.key.clone()] == b"cached_tokens" {
                            self.cached_tokens = whole_number(bytes, &detail.value).or(self.cached_tokens);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether the output of a response is still to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Read,
    Known,
}

fn is_message(bytes: &[u8], item: &Range<usize>) -> bool {
    let mut members = Members::of(bytes, item).into_iter().flatten().flatten();
    members
        .any(|member| &bytes[member.key.clone()] == b"type" && &bytes[member.value.clone()] == b"\"message\"")
}
