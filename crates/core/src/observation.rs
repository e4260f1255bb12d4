//! What was measured of one session: responses and outcomes.

use serde::{Deserialize, Serialize};

use crate::metric::{Metric, Signal};
use crate::units::Timestamp;

/// One answer of a provider, as far as it can be seen from outside.
///
/// What was not seen stays absent: an absent value never counts as zero.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// Whether the answer was complete, 2xx and without an error event; absent when the client left first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// Who failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorKind>,
    /// Milliseconds from the request to the end of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Milliseconds from the request to the first byte of content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// Tokens of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<f64>,
    /// Tokens of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<f64>,
    /// Tokens of the prompt that the provider took from its cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<f64>,
    /// Price in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Why the answer ended, in the provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Tools that the answer called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u32>,
    /// Of those, calls of an unknown tool or with arguments that do not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong_tool_calls: Option<u32>,
    /// Characters of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_length: Option<f64>,
    /// The answer refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<bool>,
    /// The answer holds neither text nor a tool call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty: Option<bool>,
    /// The answer stopped at the token limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
    /// The answer breaks the format that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_format: Option<bool>,
    /// The user asked the same thing again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated_question: Option<bool>,
}

/// Who failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The provider: 429, 5xx, a timeout, a broken stream.
    Provider,
    /// The request, which the provider refused with another 4xx.
    Request,
    /// The app, as it reports it.
    App,
}

/// What a value looks like to a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// A fact that is true or false.
    Flag(bool),
    /// A number.
    Value(f64),
}

impl Response {
    /// What a signal reads of this response; nothing where the response does not tell.
    pub fn read(&self, signal: &Signal) -> Option<Reading> {
        match signal {
            Signal::Success => self.success.map(Reading::Flag),
            Signal::Latency => self.latency_ms.map(Reading::Value),
            Signal::Ttft => self.ttft_ms.map(Reading::Value),
            Signal::InputTokens => self.input_tokens.map(Reading::Value),
            Signal::OutputTokens => self.output_tokens.map(Reading::Value),
            Signal::Cost => self.cost.map(Reading::Value),
            Signal::Refusal => self.refusal.map(Reading::Flag),
            Signal::Truncated => self.truncated.map(Reading::Flag),
            Signal::Empty => self.empty.map(Reading::Flag),
            Signal::InvalidFormat => self.invalid_format.map(Reading::Flag),
            Signal::RepeatedQuestion => self.repeated_question.map(Reading::Flag),
            Signal::ToolCalls => match self.tool_calls {
                Some(calls) if calls > 0 => Some(Reading::Flag(self.wrong_tool_calls.unwrap_or(0) == 0)),
                Some(_) | None => None,
            },
            Signal::ResponseLength => self.response_length.map(Reading::Value),
            Signal::Turns
            | Signal::Completion
            | Signal::Escalation
            | Signal::Satisfaction
            | Signal::Sentiment
            | Signal::Custom(_) => None,
        }
    }

    /// The first number that cannot be, with its field.
    pub fn implausible(&self) -> Option<(&'static str, f64)> {
        [
            ("latency_ms", self.latency_ms),
            ("ttft_ms", self.ttft_ms),
            ("input_tokens", self.input_tokens),
            ("output_tokens", self.output_tokens),
            ("cached_tokens", self.cached_tokens),
            ("cost", self.cost),
            ("response_length", self.response_length),
        ]
        .into_iter()
        .filter_map(|(field, value)| value.map(|value| (field, value)))
        .find(|(_, value)| !value.is_finite() || *value < 0.0 || *value > 1e12)
    }
}

/// A fact about a session as a whole, reported by the app or a judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What it tells.
    pub signal: Signal,
    /// Its value in the unit of the signal; 0 or 1 for a fact.
    pub value: f64,
}

/// Why an outcome was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidOutcome {
    /// No outcome of that name exists for the pack.
    #[error("no outcome {name:?} is known for this pack (known: {known})")]
    Unknown {
        /// The name as given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The value is outside the range of the outcome.
    #[error("value {value} of {name:?} is outside {low} to {high}")]
    OutOfRange {
        /// The name as given.
        name: String,
        /// The value as given.
        value: f64,
        /// The smallest possible value.
        low: f64,
        /// The largest possible value.
        high: f64,
    },
    /// The value is NaN or infinite.
    #[error("value of {0:?} is no finite number")]
    NotFinite(String),
}

impl Outcome {
    /// Reads an event's name and value.
    ///
    /// # Errors
    /// [`InvalidOutcome`] when the name is unknown or the value impossible.
    pub fn parse(name: &str, value: f64, custom: &[Metric]) -> Result<Self, InvalidOutcome> {
        let (signal, low, high) = match name {
            "task_completion" => (Signal::Completion, 0.0, 1.0),
            "escalation" => (Signal::Escalation, 0.0, 1.0),
            "user_satisfaction" => (Signal::Satisfaction, 1.0, 5.0),
            "sentiment" => (Signal::Sentiment, -1.0, 1.0),
            other => {
                let Some(metric) = custom.iter().find(|metric| metric.name.as_str() == other) else {
                    let own = custom.iter().map(|metric| metric.name.as_str());
                    let known: Vec<&str> = OUTCOMES.into_iter().chain(own).collect();
                    return Err(InvalidOutcome::Unknown { name: other.to_owned(), known: known.join(", ") });
                };
                let (low, high) = metric.range.unwrap_or((0.0, 1e12));
                (metric.signal.clone(), low, high)
            }
        };
        if !value.is_finite() {
            return Err(InvalidOutcome::NotFinite(name.to_owned()));
        }
        if value < low || value > high {
            return Err(InvalidOutcome::OutOfRange { name: name.to_owned(), value, low, high });
        }
        Ok(Self { signal, value })
    }
}

/// The outcomes that every pack has.
pub const OUTCOMES: [&str; 4] = ["task_completion", "escalation", "user_satisfaction", "sentiment"];

/// A response or an outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A request was sent and has not ended yet.
    Started,
    /// A request has ended.
    Response(Response),
    /// Something was reported about the session.
    Outcome(Outcome),
}

/// A fact of one session and when it began.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// When the request was sent, or the outcome reported.
    pub at: Timestamp,
    /// When the request ended; equal to `at` for outcomes.
    pub until: Timestamp,
    /// Names the request, so that its end replaces its start.
    pub request: Option<String>,
    /// What was seen.
    pub fact: Fact,
}
