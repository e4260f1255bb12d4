//! What an answer tells, as one object or as events of a stream, in every protocol alike.
//!
//! Values are read where they lie. Only what has to be judged as a whole is kept: the arguments of
//! tool calls, the opening of the text, and all of it when JSON was asked for.

mod chat;
mod frame;
mod messages;
mod phrases;
mod responses;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serin_core::ids::PackName;
use serin_core::observation::Response;
use serin_core::prompt::{Tool, ToolPolicy};

use self::frame::Frame;
use super::continuations::{Questions, TextHash, Trace};
use super::json::{Json, Member, Node, SyntaxError, Text};
use super::prices::Price;
use super::protocol::Protocol;
use super::transcript::AnswerText;
use crate::tool_schema::{Fit, ToolSchema, ToolSchemas};

/// The most bytes that are kept of one answer's text or arguments.
const MOST_KEPT: usize = 1 << 20;
/// The most tool calls of one answer that are judged.
const MOST_CALLS: usize = 128;

/// What the request leads one to expect of its answer.
#[derive(Debug)]
pub(super) struct Expected {
    /// How the answer is written.
    pub(super) protocol: Protocol,
    /// The tools that the request offers.
    pub(super) tools: Vec<Offered>,
    /// Whether the text shall be JSON.
    pub(super) json: bool,
    /// Whether the answer shall be recognised when it comes back.
    pub(super) traces: bool,
    /// What its tokens cost.
    pub(super) price: Option<Price>,
}

/// A tool that the model may call.
#[derive(Debug)]
pub(super) struct Offered {
    /// What it is called by.
    pub(super) name: String,
    /// What its arguments have to fit.
    pub(super) schema: Schema,
}

/// What the arguments of a call have to fit.
#[derive(Debug)]
pub(super) enum Schema {
    /// Any JSON will do.
    Any,
    /// A schema.
    Of(Arc<ToolSchema>),
    /// A schema that is too large to judge by.
    TooLarge,
}

impl From<Option<Option<Arc<ToolSchema>>>> for Schema {
    fn from(schema: Option<Option<Arc<ToolSchema>>>) -> Self {
        match schema {
            None => Self::Any,
            Some(None) => Self::TooLarge,
            Some(Some(schema)) => Self::Of(schema),
        }
    }
}

impl Expected {
    /// Nothing in particular.
    pub(super) fn nothing(protocol: Protocol) -> Self {
        Self { protocol, tools: Vec::new(), json: false, traces: false, price: None }
    }

    /// Takes note of the tools that a pack adds, and of those that it blocks.
    pub(super) fn offers(&mut self, tools: &[Arc<Tool>], policy: &ToolPolicy, schemas: &ToolSchemas) {
        for tool in tools {
            if !self.tools.iter().any(|own| own.name == tool.name) {
                let schema = tool.schema.as_ref().map(|schema| schemas.of(schema.as_bytes())).into();
                self.tools.push(Offered { name: tool.name.clone(), schema });
            }
        }
        self.tools.retain(|tool| policy.allows(&tool.name));
    }
}

/// What was read of an answer so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    finish_reason: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    /// Tokens of the prompt that were written to a cache, which Anthropic counts apart from the input.
    cache_writes: Option<u64>,
    chars: u64,
    has_ink: bool,
    is_refusal: bool,
    calls: Vec<Call>,
    /// How the text begins, for as long as it may turn out to be a refusal.
    opening: String,
    text: String,
    /// The id of the answer.
    id: Option<String>,
    /// The hash of the text, where the answer shall be recognised.
    said: Option<TextHash>,
    /// The text for a recording; nothing when there is none.
    recorded: Option<AnswerText>,
    kept_bytes: usize,
    has_overflowed: bool,
    has_error: bool,
    /// What the chunks of a stream have in common around their text.
    frame: Frame,
}

/// Why the tool calls of an answer are neither right nor wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unjudged {
    /// A schema is too large, or too much work for the arguments of a call.
    BySchema,
    /// There are too many calls, or too long ones, to be kept.
    BySize,
}

#[derive(Debug)]
struct Call {
    index: u64,
    /// Its id, where the answer shall be recognised.
    id: Option<String>,
    name: String,
    /// Nothing for a tool that takes free text.
    arguments: Option<String>,
}

/// What one event of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// It brings text, a refusal, or a part of a tool call.
    Content,
    /// It brings the usage of a chat and no choice.
    UsageOnly,
    /// It says that the answer is complete.
    End,
    /// Anything else.
    Other,
}

impl Reading {
    /// Keeps the text for a recording, beside what is judged.
    pub(super) fn keep_text(&mut self, place: AnswerText) {
        self.recorded = Some(place);
    }

    /// The text that was kept, with the tools that the answer calls.
    pub(super) fn kept_text(&mut self) -> Option<AnswerText> {
        let mut kept = self.recorded.take()?;
        for call in &self.calls {
            kept.add_call(&call.name, call.arguments.as_deref());
        }
        Some(kept)
    }

    /// The id that the provider gave the answer, once it is known.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

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

    /// Reads a whole answer; of one that is wrong anywhere nothing counts.
    ///
    /// # Errors
    /// [`SyntaxError`] when it is no JSON object.
    pub(super) fn read_whole(&mut self, bytes: &[u8], expected: &Expected) -> Result<(), SyntaxError> {
        self.read(Json::whole(bytes)?.root(), expected);
        Ok(())
    }

    /// Reads the data of one event; of one that is wrong anywhere nothing counts.
    ///
    /// # Errors
    /// [`SyntaxError`] when it is no JSON object.
    pub(super) fn read_chunk(&mut self, data: &[u8], expected: &Expected) -> Result<Chunk, SyntaxError> {
        if let Some(said) = self.frame.text_in(data)
            && self.say(said, expected)
        {
            return Ok(Chunk::Content);
        }
        let json = Json::beginning(data)?;
        self.frame.begin();
        let chunk = self.read(json.root(), expected);
        if chunk == Chunk::Content {
            self.frame.end(data);
        }
        Ok(chunk)
    }

    fn read(&mut self, answer: Node<'_, '_>, expected: &Expected) -> Chunk {
        match expected.protocol {
            Protocol::Chat => self.chat(answer, expected),
            Protocol::Responses => self.responses(answer, expected),
            Protocol::Messages => self.messages(answer, expected),
        }
    }

    /// Takes a piece of the text; nothing when the value is no string, else whether it holds anything.
    fn piece(&mut self, value: Node<'_, '_>, expected: &Expected) -> Option<bool> {
        let said = value.text()?;
        self.frame.adds_text(value.start(), said.len());
        Some(self.say(said, expected))
    }

    /// Takes a piece of the text; whether it holds anything.
    fn say(&mut self, said: Text<'_>, expected: &Expected) -> bool {
        let (chars, has_ink) = said.count_chars();
        self.chars += chars;
        self.has_ink |= has_ink;
        let is_opening = self.opening.len() < phrases::OPENING;
        let is_kept = is_opening || expected.traces || expected.json || self.recorded.is_some();
        if is_kept && let Some(piece) = said.decoded().filter(|piece| !piece.is_empty()) {
            if let Some(recorded) = &mut self.recorded {
                recorded.add(&piece);
            }
            if is_opening {
                if self.opening.is_empty() {
                    self.opening.reserve(phrases::OPENING);
                }
                self.opening.push_str(&piece[..piece.floor_char_boundary(phrases::OPENING)]);
            }
            if expected.traces {
                self.said.get_or_insert_with(TextHash::new).add(&piece);
            }
            if expected.json && self.has_room_for(said.len()) {
                self.text.push_str(&piece);
            }
        }
        chars > 0
    }

    /// Takes the id of the answer as a whole, of which the first counts.
    fn answer_id(&mut self, value: Node<'_, '_>) {
        if self.id.is_none() {
            self.id = value.decoded().map(Cow::into_owned);
        }
    }

    fn call_id(&mut self, at: usize, value: Node<'_, '_>, expected: &Expected) {
        if expected.traces
            && self.calls[at].id.is_none()
            && let Some(id) = value.decoded()
        {
            self.calls[at].id = Some(id.into_owned());
        }
    }

    /// By what a later request shows that it goes on from this answer, as the answer to a question.
    pub(super) fn traces(&self, pack: &PackName, questions: Questions, protocol: Protocol) -> Vec<Trace> {
        let id = self.id.as_deref().filter(|_| protocol == Protocol::Responses);
        let call = self.calls.first().and_then(|call| call.id.as_deref());
        let text = self.said.as_ref().map(|said| Trace::of_text(pack, questions, said.finish()));
        let ids = id.into_iter().chain(call).map(|id| Trace::of_id(pack, id));
        ids.chain(text.into_iter().flatten()).collect()
    }

    /// Takes a piece of a refusal; whether it holds anything.
    fn refusal(&mut self, value: Node<'_, '_>) -> bool {
        let Some(said) = value.text() else { return false };
        let has_text = said.count_chars().0 > 0;
        self.is_refusal |= has_text;
        if has_text {
            self.frame.adds_more();
        }
        if let Some(recorded) = &mut self.recorded
            && let Some(piece) = said.decoded()
        {
            recorded.add(&piece);
        }
        has_text
    }

    /// Reads how many tokens of the input came from a cache, where OpenAI tells its details.
    fn cached_tokens(&mut self, details: Node<'_, '_>) {
        for Member { key, value, .. } in details.members() {
            if key == b"cached_tokens" {
                self.cached_tokens = value.whole_number().or(self.cached_tokens);
            }
        }
    }

    /// The place of the call with this index, made if it is new; nothing when there are too many.
    fn call(&mut self, index: u64, is_free: bool) -> Option<usize> {
        self.frame.adds_more();
        if let Some(at) = self.calls.iter().position(|call| call.index == index) {
            return Some(at);
        }
        if self.calls.len() == MOST_CALLS {
            self.has_overflowed = true;
            return None;
        }
        let arguments = (!is_free).then(String::new);
        self.calls.push(Call { index, id: None, name: String::new(), arguments });
        Some(self.calls.len() - 1)
    }

    fn call_name(&mut self, at: usize, value: Node<'_, '_>) {
        if self.has_room_for(value.range().len())
            && let Some(piece) = value.decoded()
        {
            self.calls[at].name.push_str(&piece);
        }
    }

    fn call_arguments(&mut self, at: usize, value: Node<'_, '_>) {
        if self.has_room_for(value.range().len())
            && let Some(piece) = value.decoded()
            && let Some(arguments) = &mut self.calls[at].arguments
        {
            arguments.push_str(&piece);
        }
    }

    fn has_room_for(&mut self, bytes: usize) -> bool {
        self.kept_bytes += bytes;
        let fits = self.kept_bytes <= MOST_KEPT;
        self.has_overflowed |= !fits;
        fits
    }

    /// Writes the tokens down, which also count when the answer broke off.
    ///
    /// The input is the whole prompt in every protocol: Anthropic's tokens of the cache are added to it.
    pub(super) fn tokens_into(&self, expected: &Expected, response: &mut Response) {
        let input = match expected.protocol {
            Protocol::Chat | Protocol::Responses => self.input_tokens,
            Protocol::Messages => self.input_tokens.map(|input| {
                input
                    .saturating_add(self.cached_tokens.unwrap_or(0))
                    .saturating_add(self.cache_writes.unwrap_or(0))
            }),
        };
        if let (Some(price), Some(input), Some(output)) = (expected.price, input, self.output_tokens) {
            let cached = self.cached_tokens.unwrap_or(0);
            response.cost = Some(price.of(number(input), number(cached), number(output)));
        }
        response.input_tokens = input.map(number);
        response.output_tokens = self.output_tokens.map(number);
        response.cached_tokens = self.cached_tokens.map(number);
    }

    /// Writes everything down that a complete answer tells; why its tool calls are left out, where they are.
    pub(super) fn complete_into(self, expected: &Expected, response: &mut Response) -> Option<Unjudged> {
        self.tokens_into(expected, response);
        let reason = self.finish_reason.as_deref();
        let is_filtered = matches!(reason, Some("content_filter" | "refusal"));
        let is_refusal = self.is_refusal || is_filtered;
        // A model that calls a tool has not refused, whatever it says meanwhile.
        let says_no = self.calls.is_empty() && phrases::is_refusal(&self.opening);
        let has_calls = !self.calls.is_empty();
        response.response_length = Some(number(self.chars));
        response.refusal = Some(is_refusal || says_no);
        response.empty = Some(!self.has_ink && !self.is_refusal && !has_calls);
        response.truncated = Some(matches!(
            reason,
            Some("length" | "max_tokens" | "max_output_tokens" | "model_context_window_exceeded")
        ));
        response.tool_calls = Some(small(self.calls.len()));
        let mut unjudged = None;
        if has_calls {
            let fits: Vec<Fit> = self.calls.iter().map(|call| call.fit(expected)).collect();
            let n_wrong = fits.iter().filter(|fit| **fit == Fit::Misfits).count();
            let is_unknown = self.has_overflowed || fits.contains(&Fit::Unknown);
            if n_wrong > 0 && !self.has_overflowed || !is_unknown {
                response.wrong_tool_calls = Some(small(n_wrong));
            } else {
                // Calls of which nobody knows whether they are right must not count as right.
                response.tool_calls = None;
                unjudged = Some(if self.has_overflowed { Unjudged::BySize } else { Unjudged::BySchema });
            }
        }
        let has_answer = !is_refusal && (self.chars > 0 || !has_calls);
        if expected.json && has_answer && !self.has_overflowed {
            response.invalid_format = Some(!is_json(&self.text));
        }
        response.finish_reason = self.finish_reason;
        unjudged
    }
}

impl Call {
    /// Whether it calls a tool that is offered, with arguments that fit.
    fn fit(&self, expected: &Expected) -> Fit {
        let Some(tool) = expected.tools.iter().find(|tool| tool.name == self.name) else {
            return Fit::Misfits;
        };
        let arguments = match (expected.protocol, self.arguments.as_deref()) {
            // A tool without arguments gets none at all.
            (Protocol::Messages, Some("")) => Some("{}"),
            (Protocol::Chat | Protocol::Responses | Protocol::Messages, arguments) => arguments,
        };
        let Some(arguments) = arguments else { return Fit::Fits };
        match &tool.schema {
            Schema::Of(schema) => schema.judge(arguments),
            Schema::Any | Schema::TooLarge if !is_json(arguments) => Fit::Misfits,
            Schema::Any => Fit::Fits,
            Schema::TooLarge => Fit::Unknown,
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens and characters stay far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
