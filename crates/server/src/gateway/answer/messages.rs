//! An answer of Anthropic's Messages: one message, or typed events that build it block by block.

use super::{Chunk, Expected, Reading};
use crate::gateway::json::{Member, Node};

/// Parts of an event.
#[derive(Default)]
struct Event<'j, 'b> {
    kind: Option<Node<'j, 'b>>,
    message: Option<Node<'j, 'b>>,
    block: Option<Node<'j, 'b>>,
    delta: Option<Node<'j, 'b>>,
    usage: Option<Node<'j, 'b>>,
    index: u64,
}

impl Reading {
    /// Reads a message or an event.
    pub(super) fn messages(&mut self, answer: Node<'_, '_>, expected: &Expected) -> Chunk {
        let mut event = Event::default();
        for Member { key, value, .. } in answer.members() {
            match key {
                b"type" => event.kind = Some(value),
                b"message" => event.message = Some(value),
                b"content_block" => event.block = Some(value),
                b"delta" => event.delta = Some(value),
                b"usage" => event.usage = Some(value),
                b"index" => event.index = value.whole_number().unwrap_or(0),
                _ => {}
            }
        }
        let Some(kind) = event.kind.map(Node::raw) else {
            return Chunk::Other;
        };
        let has_content = match (kind, event) {
            (b"\"message\"", _) => {
                self.message(answer, Some(expected));
                false
            }
            (b"\"message_start\"", Event { message: Some(message), .. }) => {
                self.message(message, None);
                false
            }
            (b"\"content_block_start\"", Event { block: Some(block), index, .. }) => {
                self.block(block, index, expected, BlockIs::Begun)
            }
            (b"\"content_block_delta\"", Event { delta: Some(delta), index, .. }) => {
                self.block_delta(delta, index, expected)
            }
            (b"\"message_delta\"", Event { delta, usage, .. }) => {
                if let Some(delta) = delta {
                    self.stop_reason(delta);
                }
                if let Some(usage) = usage {
                    self.messages_usage(usage);
                }
                false
            }
            (b"\"message_stop\"", _) => return Chunk::End,
            (b"\"error\"", _) => {
                self.has_error = true;
                false
            }
            (_, _) => false,
        };
        if has_content { Chunk::Content } else { Chunk::Other }
    }

    /// Reads a message, with its content unless that is still to come.
    fn message(&mut self, message: Node<'_, '_>, content: Option<&Expected>) {
        for Member { key, value, .. } in message.members() {
            match (key, content) {
                (b"id", _) => self.answer_id(value),
                (b"usage", _) => self.messages_usage(value),
                (b"content", Some(expected)) => {
                    for (index, block) in value.elements().enumerate() {
                        self.block(block, index as u64, expected, BlockIs::Whole);
                    }
                }
                (_, _) => {}
            }
        }
        self.stop_reason(message);
    }

    fn stop_reason(&mut self, object: Node<'_, '_>) {
        for Member { key, value, .. } in object.members() {
            if key == b"stop_reason"
                && let Some(reason) = value.decoded()
            {
                self.finish_reason = Some(reason.into_owned());
            }
        }
    }

    /// Reads a block of the content; whether it holds text or a call.
    fn block(&mut self, block: Node<'_, '_>, index: u64, expected: &Expected, is: BlockIs) -> bool {
        let (mut kind, mut name, mut input, mut said, mut id) = (None, None, None, None, None);
        for Member { key, value, .. } in block.members() {
            match key {
                b"type" => kind = Some(value),
                b"id" => id = Some(value),
                b"name" => name = Some(value),
                b"input" => input = Some(value),
                b"text" => said = Some(value),
                _ => {}
            }
        }
        match (kind.map(Node::raw), said) {
            (Some(b"\"text\""), Some(said)) => self.piece(said, expected).unwrap_or(false),
            (Some(b"\"tool_use\""), _) => {
                let Some(at) = self.call(index, false) else { return true };
                if let Some(id) = id {
                    self.call_id(at, id, expected);
                }
                if let Some(name) = name {
                    self.call_name(at, name);
                }
                // A block that has only begun says `{}`; its input comes in deltas.
                if let (BlockIs::Whole, Some(input)) = (is, input.map(Node::raw))
                    && self.has_room_for(input.len())
                    && let (Some(arguments), Ok(input)) =
                        (&mut self.calls[at].arguments, std::str::from_utf8(input))
                {
                    arguments.push_str(input);
                }
                true
            }
            (_, _) => false,
        }
    }

    fn block_delta(&mut self, delta: Node<'_, '_>, index: u64, expected: &Expected) -> bool {
        let mut has_content = false;
        for Member { key, value, .. } in delta.members() {
            match key {
                b"text" => has_content |= self.piece(value, expected).unwrap_or(false),
                // Tools of the provider's own build their input in the same way; they are no calls of ours.
                b"partial_json" => {
                    if let Some(at) = self.calls.iter().position(|call| call.index == index) {
                        self.frame.adds_more();
                        self.call_arguments(at, value);
                        has_content = true;
                    }
                }
                _ => {}
            }
        }
        has_content
    }

    fn messages_usage(&mut self, usage: Node<'_, '_>) {
        for Member { key, value, .. } in usage.members() {
            let place = match key {
                b"input_tokens" => &mut self.input_tokens,
                b"output_tokens" => &mut self.output_tokens,
                b"cache_read_input_tokens" => &mut self.cached_tokens,
                b"cache_creation_input_tokens" => &mut self.cache_writes,
                _ => continue,
            };
            *place = value.whole_number().or(*place);
        }
    }
}

/// How much of a block is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockIs {
    Whole,
    Begun,
}
