//! An answer of Chat Completions: one object, or chunks of a stream that look alike.

use super::{Chunk, Expected, Reading};
use crate::gateway::json::{Member, Node};

impl Reading {
    /// Reads an answer or a chunk.
    pub(super) fn chat(&mut self, answer: Node<'_, '_>, expected: &Expected) -> Chunk {
        let (mut has_content, mut has_choice, mut has_usage) = (false, false, false);
        for Member { key, value, .. } in answer.members() {
            match key {
                b"choices" => {
                    for choice in value.elements() {
                        has_choice = true;
                        has_content |= self.choice(choice, expected);
                    }
                }
                b"id" => self.answer_id(value),
                b"usage" => has_usage = self.chat_usage(value),
                b"error" => self.has_error |= !value.is_null(),
                _ => {}
            }
        }
        match (has_content, has_choice, has_usage) {
            (true, _, _) => Chunk::Content,
            (false, false, true) => Chunk::UsageOnly,
            (false, _, _) => Chunk::Other,
        }
    }

    /// Reads one choice; only the first one of several is looked at.
    fn choice(&mut self, choice: Node<'_, '_>, expected: &Expected) -> bool {
        let (mut message, mut reason, mut index) = (None, None, 0);
        for Member { key, value, .. } in choice.members() {
            match key {
                b"delta" | b"message" => message = Some(value),
                b"finish_reason" => reason = value.decoded(),
                b"index" => index = value.whole_number().unwrap_or(0),
                _ => {}
            }
        }
        if index != 0 {
            return false;
        }
        if let Some(reason) = reason {
            self.finish_reason = Some(reason.into_owned());
        }
        message.is_some_and(|message| self.chat_message(message, expected))
    }

    fn chat_message(&mut self, message: Node<'_, '_>, expected: &Expected) -> bool {
        let mut has_content = false;
        for Member { key, value, .. } in message.members() {
            match key {
                b"content" => has_content |= self.chat_content(value, expected),
                b"refusal" => has_content |= self.refusal(value),
                b"tool_calls" => {
                    for (position, call) in value.elements().enumerate() {
                        self.chat_call(call, position as u64, expected);
                        has_content = true;
                    }
                }
                _ => {}
            }
        }
        has_content
    }

    /// Reads the text, which some providers write as a list of parts.
    fn chat_content(&mut self, content: Node<'_, '_>, expected: &Expected) -> bool {
        if let Some(has_content) = self.piece(content, expected) {
            return has_content;
        }
        let mut has_content = false;
        for Member { key, value, .. } in content.elements().flat_map(Node::members) {
            if key == b"text" {
                has_content |= self.piece(value, expected).unwrap_or(false);
            }
        }
        has_content
    }

    fn chat_call(&mut self, call: Node<'_, '_>, position: u64, expected: &Expected) {
        let (mut index, mut function, mut is_free, mut id) = (position, None, false, None);
        for Member { key, value, .. } in call.members() {
            match key {
                b"index" => index = value.whole_number().unwrap_or(position),
                b"id" => id = Some(value),
                b"function" => function = Some(value),
                b"custom" => (function, is_free) = (Some(value), true),
                _ => {}
            }
        }
        let Some(at) = self.call(index, is_free) else { return };
        if let Some(id) = id {
            self.call_id(at, id, expected);
        }
        for Member { key, value, .. } in function.into_iter().flat_map(Node::members) {
            match key {
                b"name" => self.call_name(at, value),
                b"arguments" => self.call_arguments(at, value),
                _ => {}
            }
        }
    }

    /// Reads the usage; whether there is one.
    fn chat_usage(&mut self, usage: Node<'_, '_>) -> bool {
        for Member { key, value, .. } in usage.members() {
            match key {
                b"prompt_tokens" => self.input_tokens = value.whole_number().or(self.input_tokens),
                b"completion_tokens" => self.output_tokens = value.whole_number().or(self.output_tokens),
                b"prompt_tokens_details" => self.cached_tokens(value),
                _ => {}
            }
        }
        usage.is_object()
    }
}
