//! An answer of Chat Completions: one object, or chunks of a stream that look alike.

use std::ops::Range;

use super::{Chunk, Expected, Reading, is_null};
use crate::gateway::body::{Elements, Members, SyntaxError, text, whole_number};

impl Reading {
    /// Reads an answer or a chunk.
    pub(super) fn chat(
        &mut self,
        bytes: &[u8],
        members: Members<'_>,
        expected: &Expected,
    ) -> Result<Chunk, SyntaxError> {
        let (mut has_content, mut has_choice, mut has_usage) = (false, false, false);
        for member in members {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"choices" => {
                    for choice in Elements::of(bytes, &member.value).into_iter().flatten() {
                        has_choice = true;
                        has_content |= self.choice(bytes, &choice?, expected)?;
                    }
                }
                b"id" => self.answer_id(bytes, &member.value),
                b"usage" => has_usage = self.chat_usage(bytes, &member.value)?,
                b"error" => self.has_error |= !is_null(bytes, &member.value),
                _ => {}
            }
        }
        Ok(match (has_content, has_choice, has_usage) {
            (true, _, _) => Chunk::Content,
            (false, false, true) => Chunk::UsageOnly,
            (false, _, _) => Chunk::Other,
        })
    }

    /// Reads one choice; only the first one of several is looked at.
    fn choice(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        expected: &Expected,
    ) -> Result<bool, SyntaxError> {
        let (mut message, mut reason, mut index) = (None, None, 0);
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"delta" | b"message" => message = Some(member.value),
                b"finish_reason" => reason = text(bytes, &member.value),
                b"index" => index = whole_number(bytes, &member.value).unwrap_or(0),
                _ => {}
            }
        }
        if index != 0 {
            return Ok(false);
        }
        if let Some(reason) = reason {
            self.finish_reason = Some(reason.into_owned());
        }
        match message {
            Some(message) => self.chat_message(bytes, &message, expected),
            None => Ok(false),
        }
    }

    fn chat_message(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        expected: &Expected,
    ) -> Result<bool, SyntaxError> {
        let mut has_content = false;
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"content" => has_content |= self.chat_content(bytes, &member.value, expected)?,
                b"refusal" => has_content |= self.refusal(bytes, &member.value),
                b"tool_calls" => {
                    for (position, call) in
                        Elements::of(bytes, &member.value).into_iter().flatten().enumerate()
                    {
                        self.chat_call(bytes, &call?, position as u64, expected)?;
                        has_content = true;
                    }
                }
                _ => {}
            }
        }
        Ok(has_content)
    }

    /// Reads the text, which some providers write as a list of parts.
    fn chat_content(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        expected: &Expected,
    ) -> Result<bool, SyntaxError> {
        if let Some(has_content) = self.piece(bytes, value, expected) {
            return Ok(has_content);
        }
        let mut has_content = false;
        for part in Elements::of(bytes, value).into_iter().flatten() {
            for member in Members::of(bytes, &part?).into_iter().flatten() {
                let member = member?;
                if &bytes[member.key.clone()] == b"text" {
                    has_content |= self.piece(bytes, &member.value, expected).unwrap_or(false);
                }
            }
        }
        Ok(has_content)
    }

    fn chat_call(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        position: u64,
        expected: &Expected,
    ) -> Result<(), SyntaxError> {
        let (mut index, mut function, mut is_free, mut id) = (position, None, false, None);
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"index" => index = whole_number(bytes, &member.value).unwrap_or(position),
                b"id" => id = Some(member.value),
                b"function" => function = Some(member.value),
                b"custom" => (function, is_free) = (Some(member.value), true),
                _ => {}
            }
        }
        let Some(at) = self.call(index, is_free) else { return Ok(()) };
        if let Some(id) = id {
            self.call_id(at, bytes, &id, expected);
        }
        for member in function.and_then(|function| Members::of(bytes, &function)).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"name" => self.call_name(at, bytes, &member.value),
                b"arguments" => self.call_arguments(at, bytes, &member.value),
                _ => {}
            }
        }
        Ok(())
    }

    fn chat_usage(&mut self, bytes: &[u8], value: &Range<usize>) -> Result<bool, SyntaxError> {
        let Some(members) = Members::of(bytes, value) else {
            return Ok(false);
        };
        for member in members {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"prompt_tokens" => {
                    self.input_tokens = whole_number(bytes, &member.value).or(self.input_tokens)
                }
                b"completion_tokens" => {
                    self.output_tokens = whole_number(bytes, &member.value).or(self.output_tokens)
                }
                b"prompt_tokens_details" => {
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
        Ok(true)
    }
}
