//! Decides what a request gets, in no protocol's words.
//!
//! Nothing here waits, sends or reads a clock.

use std::borrow::Cow;
use std::time::Duration;

use crate::draw::{Draw, Purpose};
use crate::script::{Behaviour, Failure, Moment, Refusal, ToolCall};
use crate::values::{Fraction, milliseconds};

/// The text of a refusal.
pub(crate) const REFUSAL_TEXT: &str = "I'm sorry, but I can't help with that.";

/// What the decision needs to know of a request.
pub(crate) struct Question<'q> {
    /// The user's last message.
    pub(crate) user: &'q str,
    /// Whether the last message is a tool's result.
    pub(crate) answers_tool: bool,
    /// Whether the answer is streamed.
    pub(crate) stream: bool,
    /// The most output tokens that the client accepts.
    pub(crate) output_tokens_max: Option<u32>,
}

/// What happens to a request, and when it starts to happen.
pub(crate) struct Plan<'s> {
    pub(crate) latency: Duration,
    pub(crate) fate: Fate<'s>,
}

/// What happens to a request.
pub(crate) enum Fate<'s> {
    /// The connection closes without an answer.
    Drop,
    /// An error status.
    Fail(&'s Failure),
    /// An answer of the model.
    Answer(Answer<'s>),
}

/// An answer of the model.
pub(crate) struct Answer<'s> {
    pub(crate) content: Content<'s>,
    pub(crate) interruption: Option<Interruption<'s>>,
    pub(crate) output_tokens: u64,
    pub(crate) quality: Fraction,
}

/// What the model says.
pub(crate) enum Content<'s> {
    /// Text, perhaps none, and whether it was cut off.
    Text { text: Cow<'s, str>, cut: bool },
    /// A message that says no.
    Refusal,
    /// Nothing: a filter took it away.
    Filtered,
    /// Calls of tools.
    ToolCalls(Vec<Call<'s>>),
}

/// One call of a tool.
pub(crate) struct Call<'s> {
    pub(crate) name: &'s str,
    pub(crate) arguments: &'s str,
}

/// What ends an answer in its middle.
pub(crate) enum Interruption<'s> {
    /// The connection breaks.
    Drop,
    /// An error event; only in streams.
    Error(&'s Failure),
}

/// Decides what a request gets.
pub(crate) fn plan<'s>(behaviour: &'s Behaviour, question: &Question<'_>, draw: Draw) -> Plan<'s> {
    Plan {
        latency: milliseconds(draw.amount(Purpose::Latency, behaviour.latency_ms)),
        fate: fate(behaviour, question, draw),
    }
}

fn fate<'s>(behaviour: &'s Behaviour, question: &Question<'_>, draw: Draw) -> Fate<'s> {
    let fails = draw.happens(Purpose::Failure, behaviour.failure_rate);
    let drops = draw.happens(Purpose::Drop, behaviour.drop_rate);
    let interruption = if fails {
        match (behaviour.failure.at, question.stream) {
            (Moment::Middle, true) => Some(Interruption::Error(&behaviour.failure)),
            (Moment::Middle, false) | (Moment::Before, _) => {
                return Fate::Fail(&behaviour.failure);
            }
        }
    } else if drops {
        match behaviour.drop {
            Moment::Before => return Fate::Drop,
            Moment::Middle => Some(Interruption::Drop),
        }
    } else {
        None
    };
    Fate::Answer(Answer { interruption, ..answer(behaviour, question, draw) })
}

fn answer<'s>(behaviour: &'s Behaviour, question: &Question<'_>, draw: Draw) -> Answer<'s> {
    let worthless = |content, output_tokens| Answer {
        content,
        interruption: None,
        output_tokens,
        quality: Fraction::ZERO,
    };
    if draw.happens(Purpose::Refusal, behaviour.refusal_rate) {
        return match behaviour.refusal {
            Refusal::Message => worthless(Content::Refusal, tokens(REFUSAL_TEXT)),
            Refusal::ContentFilter => worthless(Content::Filtered, 0),
        };
    }
    if draw.happens(Purpose::Empty, behaviour.empty_rate) {
        let nothing = Content::Text { text: Cow::Borrowed(""), cut: false };
        return worthless(nothing, 0);
    }
    let may_call = !behaviour.tool_calls.is_empty() && !question.answers_tool;
    if may_call && draw.happens(Purpose::ToolCall, behaviour.tool_call_rate) {
        return tool_calls(behaviour, draw);
    }
    text(behaviour, question, draw)
}

fn tool_calls(behaviour: &Behaviour, draw: Draw) -> Answer<'_> {
    let as_scripted = |call: &'_ ToolCall| (call.name.len() + call.arguments.as_str().len()) as u64;
    let mut calls: Vec<Call<'_>> = behaviour
        .tool_calls
        .iter()
        .map(|call| Call { name: &call.name, arguments: call.arguments.as_str() })
        .collect();
    let mut quality = behaviour.quality;
    if draw.happens(Purpose::WrongTool, behaviour.wrong_tool_rate) {
        quality = Fraction::ZERO;
        let half = Fraction::ONE.halved();
        if draw.happens(Purpose::WrongToolKind, half) {
            calls[0].name = "no_such_tool";
        } else {
            calls[0].arguments = r#"{"no_such_argument":true}"#;
        }
    }
    Answer {
        content: Content::ToolCalls(calls),
        interruption: None,
        output_tokens: behaviour.tool_calls.iter().map(as_scripted).sum::<u64>() / 4 + 1,
        quality,
    }
}

fn text<'s>(behaviour: &'s Behaviour, question: &Question<'_>, draw: Draw) -> Answer<'s> {
    let reply = draw.pick(Purpose::Reply, &behaviour.replies).map_or("", String::as_str);
    let mut text = if reply.contains("{user}") {
        Cow::Owned(reply.replace("{user}", question.user))
    } else {
        Cow::Borrowed(reply)
    };
    let mut output_tokens = behaviour
        .output_tokens
        .map_or_else(|| tokens(&text), |spread| draw.amount(Purpose::OutputTokens, spread).round() as u64);

    let mut cut = draw.happens(Purpose::Truncation, behaviour.truncate_rate);
    if cut {
        output_tokens = output_tokens.div_ceil(2);
        shorten(&mut text, 0.5);
    }
    let accepted = question.output_tokens_max.map_or(u64::MAX, u64::from);
    if output_tokens > accepted {
        cut = true;
        shorten(&mut text, accepted as f64 / output_tokens as f64);
        output_tokens = accepted;
    }
    Answer {
        content: Content::Text { text, cut },
        interruption: None,
        output_tokens,
        quality: if cut { behaviour.quality.halved() } else { behaviour.quality },
    }
}

/// Keeps the first `share` (0 to 1) of the text.
fn shorten(text: &mut Cow<'_, str>, share: f64) {
    let end = text.floor_char_boundary((text.len() as f64 * share) as usize);
    match text {
        Cow::Borrowed(text) => *text = &text[..end],
        Cow::Owned(text) => text.truncate(end),
    }
}

/// How many of the prompt's tokens are said to come from a cache.
pub(crate) fn cached(prompt_tokens: u64, behaviour: &Behaviour) -> u64 {
    (prompt_tokens as f64 * behaviour.cached_share.get()) as u64
}

/// Estimates the tokens of a text: one for four bytes.
pub(crate) fn tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}
