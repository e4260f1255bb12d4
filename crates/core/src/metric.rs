//! The catalogue of metrics: what each is called, how it is computed, and how much it may decide.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The fact of one request or one session that a metric is computed from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Signal {
    /// A complete 2xx answer without an error event, per request.
    Success,
    /// Milliseconds from the request to the end of the answer, per request.
    Latency,
    /// Milliseconds from the request to the first byte of content, per request.
    Ttft,
    /// Tokens of the prompt as the provider counts them, per request.
    InputTokens,
    /// Tokens of the answer as the provider counts them, per request.
    OutputTokens,
    /// Price of the request in US dollars.
    Cost,
    /// The answer refuses, per request.
    Refusal,
    /// The answer stopped at the token limit, per request.
    Truncated,
    /// The answer holds neither text nor a tool call, per request.
    Empty,
    /// The answer breaks the format that was asked for, per request.
    InvalidFormat,
    /// The user asked the same thing again, per request.
    RepeatedQuestion,
    /// Tool calls that name a known tool with valid arguments, per answer that calls tools.
    ToolCalls,
    /// Characters of the answer, per request.
    ResponseLength,
    /// Requests in the session.
    Turns,
    /// Whether the user reached the goal, per session.
    Completion,
    /// Whether a person had to take over, per session.
    Escalation,
    /// A rating from 1 to 5, on sessions that rated.
    Satisfaction,
    /// A score from -1 to 1, on sessions that were scored.
    Sentiment,
    /// An outcome that the manifest declares, by its name.
    Custom(String),
}

/// The built-in signals and the words that are stored for them.
const SIGNALS: [(Signal, &str); 18] = [
    (Signal::Success, "success"),
    (Signal::Latency, "latency"),
    (Signal::Ttft, "ttft"),
    (Signal::InputTokens, "input_tokens"),
    (Signal::OutputTokens, "output_tokens"),
    (Signal::Cost, "cost"),
    (Signal::Refusal, "refusal"),
    (Signal::Truncated, "truncated"),
    (Signal::Empty, "empty"),
    (Signal::InvalidFormat, "invalid_format"),
    (Signal::RepeatedQuestion, "repeated_question"),
    (Signal::ToolCalls, "tool_calls"),
    (Signal::ResponseLength, "response_length"),
    (Signal::Turns, "turns"),
    (Signal::Completion, "completion"),
    (Signal::Escalation, "escalation"),
    (Signal::Satisfaction, "satisfaction"),
    (Signal::Sentiment, "sentiment"),
];

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        if let Signal::Custom(name) = signal {
            return format!("custom:{name}");
        }
        let word = SIGNALS.iter().find(|(known, _)| *known == signal).map(|(_, word)| *word);
        word.expect("every built-in signal has a word").to_owned()
    }
}

impl TryFrom<String> for Signal {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("custom:") {
            return Ok(Self::Custom(name.to_owned()));
        }
        let known = SIGNALS.iter().find(|(_, word)| *word == text).map(|(signal, _)| signal.clone());
        known.ok_or_else(|| format!("unknown signal {text:?}"))
    }
}

impl Signal {
    /// Every signal that responses carry.
    pub fn of_responses() -> impl Iterator<Item = Self> {
        SIGNALS.into_iter().map(|(signal, _)| signal).filter(Self::is_per_request)
    }

    /// Whether the fact belongs to requests; otherwise it belongs to the session as a whole.
    pub fn is_per_request(&self) -> bool {
        match self {
            Self::Success
            | Self::Latency
            | Self::Ttft
            | Self::InputTokens
            | Self::OutputTokens
            | Self::Cost
            | Self::Refusal
            | Self::Truncated
            | Self::Empty
            | Self::InvalidFormat
            | Self::RepeatedQuestion
            | Self::ToolCalls
            | Self::ResponseLength => true,
            Self::Turns
            | Self::Completion
            | Self::Escalation
            | Self::Satisfaction
            | Self::Sentiment
            | Self::Custom(_) => false,
        }
    }
}

/// How a metric condenses its signal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Share of requests or sessions for which the signal is true, 0 to 1.
    Rate,
    /// Share for which it is false, 0 to 1 (`error_rate` is the complement of success).
    ComplementRate,
    /// Arithmetic mean.
    Mean,
    /// The value below which this share (0 to 1, exclusive) of requests lies.
    Quantile(f64),
}

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither; a change in any direction is worth a look.
    Watched,
}

/// How much authority a metric has over a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Noisy or easily gamed: a Degraded one only notifies.
    Low,
    /// A Degraded one holds the rollout.
    Medium,
    /// A Degraded one holds the rollout, and it is fit to be a gate.
    High,
}

/// What the numbers of a metric are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A share from 0 to 1, shown in percent.
    Share,
    /// Milliseconds.
    Millis,
    /// Tokens.
    Tokens,
    /// US dollars.
    Dollars,
    /// A rating from 1 to 5.
    Rating,
    /// A score from -1 to 1.
    Score,
    /// Requests per session.
    Turns,
    /// Characters.
    Characters,
    /// A plain number.
    Number,
}

impl Unit {
    /// Writes a value with its unit and sensible digits.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Share => format!("{}%", digits(value * 100.0, 1)),
            Self::Millis if value.abs() >= 10_000.0 => format!("{}s", digits(value / 1_000.0, 1)),
            Self::Millis if value.abs() >= 1_000.0 => format!("{}s", digits(value / 1_000.0, 2)),
            Self::Millis => format!("{}ms", digits(value, 0)),
            Self::Dollars => format!("${}", digits(value, 4)),
            Self::Rating => format!("{}/5", digits(value, 2)),
            Self::Score => digits(value, 2),
            Self::Turns | Self::Tokens | Self::Characters => digits(value, 1),
            Self::Number => digits(value, 3),
        }
    }

    /// Writes a difference with its sign; shares in percentage points.
    pub fn show_difference(self, value: f64) -> String {
        let sign = if value < 0.0 { "-" } else { "+" };
        let size = value.abs();
        match self {
            Self::Share => format!("{sign}{}pp", digits(size * 100.0, 1)),
            Self::Rating => format!("{sign}{}", digits(size, 2)),
            Self::Millis
            | Self::Tokens
            | Self::Dollars
            | Self::Score
            | Self::Turns
            | Self::Characters
            | Self::Number => format!("{sign}{}", self.show(size)),
        }
    }
}

/// Formats with at most `n` decimals.
fn digits(value: f64, n: usize) -> String {
    let value = if value == 0.0 { 0.0 } else { value };
    format!("{value:.n$}")
}

/// The name of a metric: lower-case letters, digits and `_`, at most 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MetricName(String);

impl MetricName {
    /// Parses a name.
    ///
    /// # Errors
    /// The reason as a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=63).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_lowercase());
        if fits && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            Ok(Self(text.to_owned()))
        } else {
            let given: String = text.chars().take(80).collect();
            Err(format!("metric name {given:?} must start with a-z and hold only a-z, 0-9 and '_'"))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<MetricName> for String {
    fn from(name: MetricName) -> Self {
        name.0
    }
}

impl TryFrom<String> for MetricName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// One metric: everything that is known about it before any data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What it is called.
    pub name: MetricName,
    /// The fact it is computed from.
    pub signal: Signal,
    /// How that fact is condensed.
    pub kind: Kind,
    /// Which way is good.
    pub better: Better,
    /// How much it may decide.
    pub tier: Tier,
    /// What its numbers are.
    pub unit: Unit,
    /// Smallest and largest value a mean can have, where that is known.
    pub range: Option<(f64, f64)>,
}

impl Metric {
    /// Whether the metric is a share of requests or sessions.
    pub fn is_rate(&self) -> bool {
        match self.kind {
            Kind::Rate | Kind::ComplementRate => true,
            Kind::Mean | Kind::Quantile(_) => false,
        }
    }

    /// Whether only some sessions have a value, so that who answers may differ between variants.
    pub fn is_voluntary(&self) -> bool {
        matches!(self.signal, Signal::Satisfaction | Signal::Sentiment | Signal::Custom(_))
            && self.kind == Kind::Mean
    }
}

/// One row of the built-in catalogue.
type Row = (&'static str, Signal, Kind, Better, Tier, Unit);

/// The built-in catalogue in the order in which it is shown: high tier first.
fn rows() -> Vec<Row> {
    use Better::{Higher, Lower, Watched};
    use Kind::{ComplementRate, Mean, Quantile, Rate};
    use Tier::{High, Low, Medium};
    vec![
        ("success_rate", Signal::Success, Rate, Higher, High, Unit::Share),
        ("task_completion_rate", Signal::Completion, Rate, Higher, High, Unit::Share),
        ("tool_call_accuracy", Signal::ToolCalls, Rate, Higher, High, Unit::Share),
        ("escalation_rate", Signal::Escalation, Rate, Lower, High, Unit::Share),
        ("conversation_length_avg", Signal::Turns, Mean, Watched, High, Unit::Turns),
        ("error_rate", Signal::Success, ComplementRate, Lower, Medium, Unit::Share),
        ("latency_avg", Signal::Latency, Mean, Lower, Medium, Unit::Millis),
        ("latency_p50", Signal::Latency, Quantile(0.5), Lower, Medium, Unit::Millis),
        ("latency_p90", Signal::Latency, Quantile(0.9), Lower, Medium, Unit::Millis),
        ("latency_p95", Signal::Latency, Quantile(0.95), Lower, Medium, Unit::Millis),
        ("latency_p99", Signal::Latency, Quantile(0.99), Lower, Medium, Unit::Millis),
        ("ttft_avg", Signal::Ttft, Mean, Lower, Medium, Unit::Millis),
        ("ttft_p50", Signal::Ttft, Quantile(0.5), Lower, Medium, Unit::Millis),
        ("ttft_p90", Signal::Ttft, Quantile(0.9), Lower, Medium, Unit::Millis),
        ("ttft_p95", Signal::Ttft, Quantile(0.95), Lower, Medium, Unit::Millis),
        ("ttft_p99", Signal::Ttft, Quantile(0.99), Lower, Medium, Unit::Millis),
        ("input_tokens_avg", Signal::InputTokens, Mean, Lower, Medium, Unit::Tokens),
        ("output_tokens_avg", Signal::OutputTokens, Mean, Lower, Medium, Unit::Tokens),
        ("cost_avg", Signal::Cost, Mean, Lower, Medium, Unit::Dollars),
        ("refusal_rate", Signal::Refusal, Rate, Lower, Medium, Unit::Share),
        ("truncation_rate", Signal::Truncated, Rate, Lower, Medium, Unit::Share),
        ("empty_response_rate", Signal::Empty, Rate, Lower, Medium, Unit::Share),
        ("invalid_format_rate", Signal::InvalidFormat, Rate, Lower, Medium, Unit::Share),
        ("repeated_question_rate", Signal::RepeatedQuestion, Rate, Lower, Medium, Unit::Share),
        ("response_length_avg", Signal::ResponseLength, Mean, Watched, Low, Unit::Characters),
        ("sentiment_avg", Signal::Sentiment, Mean, Higher, Low, Unit::Score),
        ("user_satisfaction_avg", Signal::Satisfaction, Mean, Higher, Low, Unit::Rating),
    ]
}

/// Names as people write them, and what they resolve to.
const ALIASES: [(&str, &str); 6] = [
    ("user_satisfaction", "user_satisfaction_avg"),
    ("conversation_length", "conversation_length_avg"),
    ("avg_response_time", "latency_avg"),
    ("token_usage", "output_tokens_avg"),
    ("latency", "latency_avg"),
    ("task_completion", "task_completion_rate"),
];

/// Names as people write them, each with the built-in metric that it resolves to.
pub fn aliases() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALIASES.into_iter()
}

/// The built-in metrics in the order in which they are shown.
pub fn catalogue() -> Vec<Metric> {
    rows()
        .into_iter()
        .map(|(name, signal, kind, better, tier, unit)| {
            let range = match unit {
                Unit::Rating => Some((1.0, 5.0)),
                Unit::Score => Some((-1.0, 1.0)),
                Unit::Share => Some((0.0, 1.0)),
                Unit::Millis
                | Unit::Tokens
                | Unit::Dollars
                | Unit::Turns
                | Unit::Characters
                | Unit::Number => None,
            };
            Metric { name: MetricName(name.to_owned()), signal, kind, better, tier, unit, range }
        })
        .collect()
}

/// What a name as written in a manifest resolves to.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    /// The name of a metric itself.
    Exact(Metric),
    /// Another usual name of it; worth a note.
    Alias(Metric),
    /// No metric; the nearest known name, when one is near.
    Unknown {
        /// A name that was perhaps meant.
        nearest: Option<String>,
    },
}

/// Finds the metric that a manifest means by `name`, among the built-in and the `custom` ones.
pub fn resolve(name: &str, custom: &[Metric]) -> Resolved {
    let known: Vec<Metric> = catalogue().into_iter().chain(custom.iter().cloned()).collect();
    if let Some(metric) = known.iter().find(|m| m.name.as_str() == name) {
        return Resolved::Exact(metric.clone());
    }
    if let Some((_, target)) = ALIASES.iter().find(|(alias, _)| *alias == name)
        && let Some(metric) = known.iter().find(|m| m.name.as_str() == *target)
    {
        return Resolved::Alias(metric.clone());
    }
    let names = known.iter().map(|m| m.name.as_str()).chain(ALIASES.iter().map(|(alias, _)| *alias));
    Resolved::Unknown { nearest: nearest(name, names) }
}

/// The candidate that `given` most probably means, when one is near enough.
pub fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(given, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

/// Why a threshold was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidThreshold {
    /// The text is no number with a unit that fits.
    #[error("{given:?} is no threshold for a metric in {unit}")]
    Malformed {
        /// The text as given.
        given: String,
        /// The unit, in words.
        unit: &'static str,
    },
    /// The number cannot be reached by the metric.
    #[error("{given:?} lies outside {low} to {high}")]
    OutOfRange {
        /// The text as given.
        given: String,
        /// The smallest possible value.
        low: f64,
        /// The largest possible value.
        high: f64,
    },
}

/// Reads a threshold in the unit of its metric: `90%` or `0.9`, `3000ms` or `3s`, `4.2`.
///
/// # Errors
/// [`InvalidThreshold`] when the number or its unit does not fit the metric.
pub fn parse_threshold(text: &str, metric: &Metric) -> Result<f64, InvalidThreshold> {
    let trimmed = text.trim();
    let words = match metric.unit {
        Unit::Share => "percent (such as 90% or 0.9)",
        Unit::Millis => "time (such as 3000ms or 3s)",
        Unit::Tokens => "tokens",
        Unit::Dollars => "dollars (such as 0.02)",
        Unit::Rating => "points from 1 to 5 (such as 4.2)",
        Unit::Score => "points from -1 to 1",
        Unit::Turns => "requests per session",
        Unit::Characters => "characters",
        Unit::Number => "plain numbers",
    };
    let malformed = || InvalidThreshold::Malformed { given: text.to_owned(), unit: words };
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(malformed);
    let value = match metric.unit {
        Unit::Share => match trimmed.strip_suffix('%') {
            Some(percent) => number(percent)? / 100.0,
            None => number(trimmed)?,
        },
        Unit::Millis => match trimmed.strip_suffix("ms") {
            Some(ms) => number(ms)?,
            None => match trimmed.strip_suffix('s') {
                Some(secs) => number(secs)? * 1_000.0,
                None => number(trimmed)?,
            },
        },
        Unit::Dollars => number(trimmed.strip_prefix('$').unwrap_or(trimmed))?,
        Unit::Tokens | Unit::Rating | Unit::Score | Unit::Turns | Unit::Characters | Unit::Number => {
            number(trimmed)?
        }
    };
    let (low, high) = metric.range.unwrap_or((0.0, f64::INFINITY));
    if value < low || value > high {
        return Err(InvalidThreshold::OutOfRange { given: text.to_owned(), low, high });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str) -> Metric {
        match resolve(name, &[]) {
            Resolved::Exact(metric) | Resolved::Alias(metric) => metric,
            Resolved::Unknown { nearest } => panic!("unknown metric {name}, nearest {nearest:?}"),
        }
    }

    #[test]
    fn names_that_people_write_resolve_to_the_catalogue() {
        for (alias, name) in ALIASES {
            assert_eq!(metric(alias).name.as_str(), name);
            assert!(matches!(resolve(alias, &[]), Resolved::Alias(_)));
        }
        assert_eq!(
            resolve("sucess_rate", &[]),
            Resolved::Unknown { nearest: Some("success_rate".to_owned()) }
        );
        assert_eq!(resolve("zzz", &[]), Resolved::Unknown { nearest: None });
    }

    #[test]
    fn thresholds_are_read_in_the_unit_of_their_metric() {
        let read = |name: &str, text: &str| parse_threshold(text, &metric(name)).map_err(|e| e.to_string());
        assert_eq!(read("success_rate", "90%"), Ok(0.9));
        assert_eq!(read("success_rate", "0.9"), Ok(0.9));
        assert_eq!(read("latency_p99", "3000ms"), Ok(3_000.0));
        assert_eq!(read("latency_p99", "3s"), Ok(3_000.0));
        assert_eq!(read("user_satisfaction_avg", "4.2"), Ok(4.2));
        assert_eq!(read("cost_avg", "$0.02"), Ok(0.02));
        assert_eq!(read("success_rate", "90"), Err("\"90\" lies outside 0 to 1".to_owned()));
        assert_eq!(
            read("success_rate", "3s"),
            Err("\"3s\" is no threshold for a metric in percent (such as 90% or 0.9)".to_owned())
        );
        assert_eq!(read("latency_p99", "-1ms"), Err("\"-1ms\" lies outside 0 to inf".to_owned()));
    }

    #[test]
    fn values_are_shown_with_units_and_sensible_digits() {
        assert_eq!(Unit::Share.show(0.942), "94.2%");
        assert_eq!(Unit::Millis.show(812.4), "812ms");
        assert_eq!(Unit::Millis.show(2_810.0), "2.81s");
        assert_eq!(Unit::Share.show_difference(-0.004), "-0.4pp");
        assert_eq!(Unit::Millis.show_difference(200.0), "+200ms");
        assert_eq!(Unit::Rating.show(4.2), "4.20/5");
    }
}
