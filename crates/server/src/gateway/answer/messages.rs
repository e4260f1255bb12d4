//! An answer of Anthropic's Messages: one message, or typed events that build it block by block.

use std::ops::Range;

use super::{Chunk, Expected, Reading};
use crate::gateway::body::{Elements, Members, SyntaxError, text, whole_number};

/// Parts of an event.
#[derive(Default)]
struct Event {
    kind: Option<Range<usize>>,
    message: Option<Range<usize>>,
    block: Option<Range<usize>>,
    delta: Option<Range<usize>>,
    usage: Option<Range<usize>>,
    index: u64,
}

impl Reading {
    /// Reads a message or an event.
    pub(super) fn messages(
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
                b"message" => event.message = Some(member.value),
                b"content_block" => event.block = Some(member.value),
                b"delta" => event.delta = Some(member.value),
                b"usage" => event.usage = Some(member.value),
                b"index" => event.index = whole_number(bytes, &member.value).unwrap_or(0),
                _ => {}
            }
        }
        let Some(kind) = event.kind.as_ref().map(|kind| &bytes[kind.clone()]) else {
            return Ok(Chunk::Other);
        };
        let has_content = match (kind, &event) {
            (b"\"message\"", _) => {
                self.message(bytes, whole, Some(expected))?;
                false
            }
            (b"\"message_start\"", Event { message: Some(message), .. }) => {
                self.message(bytes, message, None)?;
                false
            }
            (b"\"content_block_start\"", Event { block: Some(block), index, .. }) => {
                self.block(bytes, block, *index, expected, BlockIs::Begun)?
            }
            (b"\"content_block_delta\"", Event { delta: Some(delta), index, .. }) => {
                self.block_delta(bytes, delta, *index, expected)?
            }
            (b"\"message_delta\"", Event { delta, usage, .. }) => {
                if let Some(delta) = delta {
                    self.stop_reason(bytes, delta)?;
                }
                if let Some(usage) = usage {
                    self.messages_usage(bytes, usage)?;
                }
                false
            }
            (b"\"message_stop\"", _) => return Ok(Chunk::End),
            (b"\"error\"", _) => {
                self.has_error = true;
                false
            }
            (_, _) => false,
        };
        Ok(if has_content { Chunk::Content } else { Chunk::Other })
    }

    /// Reads a message, with its content unless that is still to come.
    fn message(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        content: Option<&Expected>,
    ) -> Result<(), SyntaxError> {
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"id" => self.answer_id(bytes, &member.value),
                b"usage" => self.messages_usage(bytes, &member.value)?,
                b"content" => {
                    let Some(expected) = content else { continue };
                    let blocks = Elements::of(bytes, &member.value).into_iter().flatten();
                    for (index, block) in blocks.enumerate() {
                        self.block(bytes, &block?, index as u64, expected, BlockIs::Whole)?;
                    }
                }
                _ => {}
            }
        }
        self.stop_reason(bytes, value)
    }

    fn stop_reason(&mut self, bytes: &[u8], value: &Range<usize>) -> Result<(), SyntaxError> {
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            if &bytes[member.key.clone()] == b"stop_reason"
                && let Some(reason) = text(bytes, &member.value)
            {
                self.finish_reason = Some(reason.into_owned());
            }
        }
        Ok(())
    }

    /// Reads a block of the content; whether it holds text or a call.
    fn block(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        index: u64,
        expected: &Expected,
        is: BlockIs,
    ) -> Result<bool, SyntaxError> {
        let (mut kind, mut name, mut input, mut said, mut id) = (None, None, None, None, None);
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"type" => kind = Some(member.value),
                b"id" => id = Some(member.value),
                b"name" => name = Some(member.value),
                b"input" => input = Some(member.value),
                b"text" => said = Some(member.value),
                _ => {}
            }
        }
        match (kind.map(|kind| &bytes[kind]), said) {
            (Some(b"\"text\""), Some(said)) => Ok(self.piece(bytes, &said, expected).unwrap_or(false)),
            (Some(b"\"tool_use\""), _) => {
                let Some(at) = self.call(index, false) else { return Ok(true) };
                if let Some(id) = id {
                    self.call_id(at, bytes, &id, expected);
                }
                if let Some(name) = name {
                    self.call_name(at, bytes, &name);
                }
                // A block that has only begun says `{}`; its input comes in deltas.
                if let (BlockIs::Whole, Some(input)) = (is, input)
                    && self.has_room_for(input.len())
                    && let (Some(arguments), Ok(input)) =
                        (&mut self.calls[at].arguments, std::str::from_utf8(&bytes[input]))
                {
                    arguments.push_str(input);
                }
                Ok(true)
            }
            (_, _) => Ok(false),
        }
    }

    fn block_delta(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        index: u64,
        expected: &Expected,
    ) -> Result<bool, SyntaxError> {
        let mut has_content = false;
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"text" => has_content |= self.piece(bytes, &member.value, expected).unwrap_or(false),
                // Tools of the provider's own build their input in the same way; they are no calls of ours.
                b"partial_json" => {
                    if let Some(at) = self.calls.iter().position(|call| call.index == index) {
                        self.call_arguments(at, bytes, &member.value);
                        has_content = true;
                    }
                }
                _ => {}
            }
        }
        Ok(has_content)
    }

    fn messages_usage(&mut self, bytes: &[u8], value: &Range<usize>) -> Result<(), SyntaxError> {
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            let place = match &bytes[member.key.clone()] {
                b"input_tokens" => &mut self.input_tokens,
                b"output_tokens" => &mut self.output_tokens,
                b"cache_read_input_tokens" => &mut self.cached_tokens,
                b"cache_creation_input_tokens" => &mut self.cache_writes,
                _ => continue,
            };
            *place = whole_number(bytes, &member.value).or(*place);
        }
        Ok(())
    }
}

/// How much of a block is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockIs {
    Whole,
    Begun,
}
