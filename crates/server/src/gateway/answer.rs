//! What an answer of the Chat Completions protocol tells, as one object or as chunks of a stream.
//!
//! Values are read where they lie. Only what has to be judged as a whole is kept: the arguments of
//! tool calls, and the text when JSON was asked for.

use std::ops::Range;

use serde::de::IgnoredAny;
use serin_core::observation::Response;

use super::body::{Elements, Members, Object, SyntaxError, count_chars, text, whole_number};

/// The most bytes that are kept of one answer's text or arguments.
const MOST_KEPT: usize = 1 << 20;
/// The most tool calls of one answer that are judged.
const MOST_CALLS: usize = 128;

/// What the request leads one to expect of its answer.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// The tools that the request offers.
    pub(super) tools: Vec<String>,
    /// Whether the text shall be JSON.
    pub(super) json: bool,
}

/// What was read of an answer so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    finish_reason: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    chars: u64,
    has_ink: bool,
    is_refusal: bool,
    calls: Vec<Call>,
    text: String,
    kept_bytes: usize,
    has_overflowed: bool,
    has_error: bool,
}

#[derive(Debug)]
struct Call {
    index: u64,
    name: String,
    /// Nothing for a tool that takes free text.
    arguments: Option<String>,
}

/// What one chunk of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// It brings text, a refusal, or a part of a tool call.
    Content,
    /// It brings the usage and no choice.
    UsageOnly,
    /// Anything else.
    Other,
}

impl Reading {
    /// Why the answer ended, once that is known.
    pub(super) fn finish_reason(&self) -> Option<&str> {
        self.finish_reason.as_deref()
    }

    /// Whether the answer tells of an error.
    pub(super) fn has_error(&self) -> bool {
        self.has_error
    }

    /// Takes note of an error that is told outside of a chunk.
    pub(super) fn set_error(&mut self) {
        self.has_error = true;
    }

    /// Whether parts were too large to be judged.
    pub(super) fn has_overflowed(&self) -> bool {
        self.has_overflowed
    }

    /// Reads a whole answer.
    ///
    /// # Errors
    /// [`SyntaxError`] when it is no JSON object.
    pub(super) fn read_whole(&mut self, bytes: &[u8], expected: &Expected) -> Result<(), SyntaxError> {
        // The scan makes sure that it is one object and nothing else.
        Object::scan(bytes)?;
        let start = bytes.iter().position(|byte| *byte == b'{').unwrap_or(0);
        self.read(bytes, &(start..bytes.len()), expected).map(|_| ())
    }

    /// Reads one chunk of a stream.
    ///
    /// # Errors
    /// [`SyntaxError`] when it is no JSON object.
    pub(super) fn read_chunk(&mut self, data: &[u8], expected: &Expected) -> Result<Chunk, SyntaxError> {
        self.read(data, &(0..data.len()), expected)
    }

    fn read(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        expected: &Expected,
    ) -> Result<Chunk, SyntaxError> {
        let Some(members) = Members::of(bytes, value) else {
            return Err(SyntaxError { at: 0, problem: "expected '{'" });
        };
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
                b"usage" => has_usage = self.usage(bytes, &member.value)?,
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
            Some(message) => self.message(bytes, &message, expected),
            None => Ok(false),
        }
    }

    fn message(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        expected: &Expected,
    ) -> Result<bool, SyntaxError> {
        let mut has_content = false;
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"content" => has_content |= self.content(bytes, &member.value, expected)?,
                b"refusal" => {
                    let is_refusal = count_chars(bytes, &member.value).is_some_and(|(chars, _)| chars > 0);
                    self.is_refusal |= is_refusal;
                    has_content |= is_refusal;
                }
                b"tool_calls" => {
                    for (position, call) in
                        Elements::of(bytes, &member.value).into_iter().flatten().enumerate()
                    {
                        self.tool_call(bytes, &call?, position as u64)?;
                        has_content = true;
                    }
                }
                _ => {}
            }
        }
        Ok(has_content)
    }

    /// Reads the text, which some providers write as a list of parts.
    fn content(
        &mut self,
        bytes: &[u8],
        value: &Range<usize>,
        expected: &Expected,
    ) -> Result<bool, SyntaxError> {
        let Some((chars, has_ink)) = count_chars(bytes, value) else {
            let mut has_content = false;
            for part in Elements::of(bytes, value).into_iter().flatten() {
                for member in Members::of(bytes, &part?).into_iter().flatten() {
                    let member = member?;
                    if &bytes[member.key.clone()] == b"text" && bytes[member.value.start] == b'"' {
                        has_content |= self.content(bytes, &member.value, expected)?;
                    }
                }
            }
            return Ok(has_content);
        };
        self.chars += chars;
        self.has_ink |= has_ink;
        if expected.json
            && self.has_room_for(value.len())
            && let Some(piece) = text(bytes, value)
        {
            self.text.push_str(&piece);
        }
        Ok(chars > 0)
    }

    fn tool_call(&mut self, bytes: &[u8], value: &Range<usize>, position: u64) -> Result<(), SyntaxError> {
        let (mut index, mut function, mut is_free) = (position, None, false);
        for member in Members::of(bytes, value).into_iter().flatten() {
            let member = member?;
            match &bytes[member.key.clone()] {
                b"index" => index = whole_number(bytes, &member.value).unwrap_or(position),
                b"function" => function = Some(member.value),
                b"custom" => (function, is_free) = (Some(member.value), true),
                _ => {}
            }
        }
        let at = match self.calls.iter().position(|call| call.index == index) {
            Some(at) => at,
            None if self.calls.len() == MOST_CALLS => {
                self.has_overflowed = true;
                return Ok(());
            }
            None => {
                let arguments = (!is_free).then(String::new);
                self.calls.push(Call { index, name: String::new(), arguments });
                self.calls.len() - 1
            }
        };
        for member in function.and_then(|function| Members::of(bytes, &function)).into_iter().flatten() {
            let member = member?;
            let is_name = &bytes[member.key.clone()] == b"name";
            let is_arguments = &bytes[member.key.clone()] == b"arguments";
            if !(is_name || is_arguments) || !self.has_room_for(member.value.len()) {
                continue;
            }
            let Some(piece) = text(bytes, &member.value) else { continue };
            let call = &mut self.calls[at];
            if is_name {
                call.name.push_str(&piece);
            } else if let Some(arguments) = &mut call.arguments {
                arguments.push_str(&piece);
            }
        }
        Ok(())
    }

    fn usage(&mut self, bytes: &[u8], value: &Range<usize>) -> Result<bool, SyntaxError> {
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

    fn has_room_for(&mut self, bytes: usize) -> bool {
        self.kept_bytes += bytes;
        let fits = self.kept_bytes <= MOST_KEPT;
        self.has_overflowed |= !fits;
        fits
    }

    /// Writes the tokens down, which also count when the answer broke off.
    pub(super) fn tokens_into(&self, response: &mut Response) {
        response.input_tokens = self.input_tokens.map(number);
        response.output_tokens = self.output_tokens.map(number);
        response.cached_tokens = self.cached_tokens.map(number);
    }

    /// Writes everything down that a complete answer tells.
    pub(super) fn complete_into(self, expected: &Expected, response: &mut Response) {
        self.tokens_into(response);
        let is_filtered = self.finish_reason() == Some("content_filter");
        let is_refusal = self.is_refusal || is_filtered;
        let has_calls = !self.calls.is_empty();
        response.response_length = Some(number(self.chars));
        response.refusal = Some(is_refusal);
        response.empty = Some(!self.has_ink && !self.is_refusal && !has_calls);
        response.truncated = Some(self.finish_reason() == Some("length"));
        response.tool_calls = Some(small(self.calls.len()));
        if has_calls && !self.has_overflowed {
            response.wrong_tool_calls =
                Some(small(self.calls.iter().filter(|call| call.is_wrong(expected)).count()));
        }
        let has_answer = !is_refusal && (self.chars > 0 || !has_calls);
        if expected.json && has_answer && !self.has_overflowed {
            response.invalid_format = Some(!is_json(&self.text));
        }
        response.finish_reason = self.finish_reason;
    }
}

impl Call {
    fn is_wrong(&self, expected: &Expected) -> bool {
        let is_known = expected.tools.contains(&self.name);
        !is_known || self.arguments.as_deref().is_some_and(|arguments| !is_json(arguments))
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn is_null(bytes: &[u8], value: &Range<usize>) -> bool {
    &bytes[value.clone()] == b"null"
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens and characters stay far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::{Value, json};

    fn expected() -> Expected {
        Expected { tools: vec!["search".to_owned()], json: false }
    }

    fn whole(message: Value, finish_reason: &str, expected: &Expected) -> Response {
        let usage = json!({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}});
        let choice = json!({"index": 0, "message": message, "finish_reason": finish_reason});
        let body = json!({"choices": [choice], "usage": usage}).to_string();
        let mut reading = Reading::default();
        reading.read_whole(body.as_bytes(), expected).unwrap();
        let mut response = Response::default();
        reading.complete_into(expected, &mut response);
        response
    }

    fn tool_call(name: &str, arguments: &str) -> Value {
        json!({"content": null, "tool_calls": [{"id": "1", "function": {"name": name, "arguments": arguments}}]})
    }

    #[test]
    fn a_text_is_measured() {
        let seen = whole(json!({"content": "héllo", "refusal": null}), "stop", &expected());
        assert_eq!(
            seen,
            Response {
                input_tokens: Some(7.0),
                output_tokens: Some(3.0),
                cached_tokens: Some(2.0),
                finish_reason: Some("stop".to_owned()),
                tool_calls: Some(0),
                response_length: Some(5.0),
                refusal: Some(false),
                empty: Some(false),
                truncated: Some(false),
                ..Response::default()
            }
        );
        let parts = json!({"content": [{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]});
        assert_eq!(whole(parts, "length", &expected()).response_length, Some(3.0));
    }

    #[test]
    fn refusals_emptiness_and_truncation_are_told_apart() {
        let flags = |message: Value, reason: &str| {
            let seen = whole(message, reason, &expected());
            (seen.refusal.unwrap(), seen.empty.unwrap(), seen.truncated.unwrap())
        };
        assert_eq!(flags(json!({"content": null, "refusal": "no"}), "stop"), (true, false, false));
        assert_eq!(flags(json!({"content": null}), "content_filter"), (true, true, false));
        assert_eq!(flags(json!({"content": " \n"}), "stop"), (false, true, false));
        assert_eq!(flags(json!({"content": "cut"}), "length"), (false, false, true));
        assert_eq!(flags(tool_call("search", "{}"), "tool_calls"), (false, false, false));
    }

    #[test]
    fn a_tool_call_is_wrong_by_name_or_by_broken_arguments() {
        let wrong = |name: &str, arguments: &str| {
            let seen = whole(tool_call(name, arguments), "tool_calls", &expected());
            (seen.tool_calls, seen.wrong_tool_calls)
        };
        assert_eq!(wrong("search", r#"{"q":"x"}"#), (Some(1), Some(0)));
        assert_eq!(wrong("delete", "{}"), (Some(1), Some(1)));
        assert_eq!(wrong("search", r#"{"q":"#), (Some(1), Some(1)));
    }

    #[test]
    fn the_format_is_judged_where_json_was_asked_for() {
        let json = Expected { tools: vec!["search".to_owned()], json: true };
        let judged = |message: Value, expected: &Expected| whole(message, "stop", expected).invalid_format;
        assert_eq!(judged(json!({"content": "{\"a\": 1}"}), &json), Some(false));
        assert_eq!(judged(json!({"content": "Sure: {}"}), &json), Some(true));
        assert_eq!(judged(json!({"content": "Sure: {}"}), &expected()), None);
        assert_eq!(judged(json!({"content": null, "refusal": "no"}), &json), None);
        assert_eq!(judged(tool_call("search", "{}"), &json), None);
    }

    #[test]
    fn chunks_add_up_to_the_answer() {
        let mut reading = Reading::default();
        let expected = expected();
        let mut read = |chunk: Value| reading.read_chunk(chunk.to_string().as_bytes(), &expected).unwrap();
        let delta = |delta: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        let call = |function: Value| delta(json!({"tool_calls": [{"index": 0, "function": function}]}));
        assert_eq!(read(delta(json!({"role": "assistant", "content": ""}))), Chunk::Other);
        assert_eq!(read(delta(json!({"content": "hé"}))), Chunk::Content);
        assert_eq!(read(call(json!({"name": "search", "arguments": ""}))), Chunk::Content);
        assert_eq!(read(call(json!({"arguments": "{\"a\""}))), Chunk::Content);
        assert_eq!(read(call(json!({"arguments": ":1}"}))), Chunk::Content);
        assert_eq!(read(json!({"choices": [{"index": 1, "delta": {"content": "other"}}]})), Chunk::Other);
        assert_eq!(
            read(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})),
            Chunk::Other
        );
        assert_eq!(read(json!({"choices": [], "usage": null})), Chunk::Other);
        assert_eq!(read(json!({"choices": [], "usage": {"prompt_tokens": 5}})), Chunk::UsageOnly);
        let mut response = Response::default();
        reading.complete_into(&expected, &mut response);
        assert_eq!((response.tool_calls, response.wrong_tool_calls), (Some(1), Some(0)));
        assert_eq!((response.response_length, response.input_tokens), (Some(2.0), Some(5.0)));
    }

    #[test]
    fn an_error_object_is_told() {
        let mut reading = Reading::default();
        reading.read_chunk(br#"{"error":null}"#, &expected()).unwrap();
        assert!(!reading.has_error());
        reading.read_chunk(br#"{"error":{"message":"overloaded"}}"#, &expected()).unwrap();
        assert!(reading.has_error());
        assert!(reading.read_chunk(b"not json", &expected()).is_err());
    }
}
