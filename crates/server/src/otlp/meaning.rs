//! What a span, a record or an event tells of a session.

use serin_core::observation::{ErrorKind, Response};
use serin_core::units::Timestamp;

use super::aliases;
use super::wire::{KeyValue, LogRecord, Span, SpanEvent, Value};

/// A trace and a span in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The trace; empty when there is none.
    pub trace: Vec<u8>,
    /// The span; empty when there is none.
    pub span: Vec<u8>,
}

/// Whom something is about, as far as it says so itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The session.
    pub session: Option<String>,
    /// The pack.
    pub pack: Option<String>,
    /// The version that the app says it used.
    pub version: Option<String>,
}

impl Subject {
    /// This subject, filled in with what another one knows.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            session: self.session.or_else(|| other.session.clone()),
            pack: self.pack.or_else(|| other.pack.clone()),
            version: self.version.or_else(|| other.version.clone()),
        }
    }
}

/// Something that was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Index of the span or record in the request.
    pub from: usize,
    /// Stands for the span or record, once.
    pub id: String,
    /// Where it was told.
    pub place: Place,
    /// Whom it is about.
    pub subject: Subject,
    /// When it began; nothing when the sender did not say.
    pub at: Option<Timestamp>,
    /// When it ended.
    pub until: Option<Timestamp>,
    /// The response of a provider that it is about.
    pub response: Option<String>,
    /// What it tells.
    pub told: Told,
}

/// What was told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A model was asked.
    Call(Box<Response>),
    /// A model was asked through this server's own gateway, which has seen it already.
    Seen,
    /// A tool was run.
    Tool {
        /// Whether it failed.
        failed: bool,
    },
    /// The session was judged.
    Outcome {
        /// By what.
        name: String,
        /// With which result; nothing where it cannot be read as a number.
        value: Option<f64>,
    },
    /// The session saw a version.
    Exposure,
    /// Nothing but whom the trace is about, if that.
    Context,
}

/// Where this server is reached, to know its own gateway in a span.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// The port of the data plane.
    pub port: u16,
    /// Names of this host besides the loopback ones.
    pub hosts: Vec<String>,
}

impl Own {
    fn is(&self, attributes: Attributes<'_>) -> bool {
        let port = attributes.number(aliases::PORT);
        let host = attributes.text(aliases::SERVER);
        let is_host = |host: &str| {
            let host = host.trim_matches(['[', ']']);
            ["localhost", "127.0.0.1", "::1"].contains(&host)
                || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
        };
        port == Some(f64::from(self.port)) && host.is_some_and(is_host)
    }
}

/// Attributes, to be looked up by their aliases.
#[derive(Clone, Copy)]
struct Attributes<'a>(&'a [KeyValue]);

impl<'a> Attributes<'a> {
    fn value(self, aliases: &[&str]) -> Option<&'a Value> {
        aliases.iter().find_map(|alias| {
            let found = self.0.iter().find(|attribute| attribute.key == *alias)?;
            found.value.as_ref()?.value.as_ref()
        })
    }

    fn text(self, aliases: &[&str]) -> Option<&'a str> {
        match self.value(aliases)? {
            Value::Text(text) if !text.is_empty() => Some(text),
            Value::List(list) => match list.values.first()?.value.as_ref()? {
                Value::Text(text) => Some(text),
                Value::Flag(_) | Value::Whole(_) | Value::Number(_) | Value::List(_) => None,
            },
            Value::Text(_) | Value::Flag(_) | Value::Whole(_) | Value::Number(_) => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and scores stay far below 2^52")]
    fn number(self, aliases: &[&str]) -> Option<f64> {
        match self.value(aliases)? {
            Value::Whole(number) => Some(*number as f64),
            Value::Number(number) => Some(*number),
            Value::Flag(flag) => Some(f64::from(u8::from(*flag))),
            Value::Text(text) => text.trim().parse().ok(),
            Value::List(_) => None,
        }
    }

    /// How many texts of a list are among some words.
    fn count_of(self, aliases: &[&str], words: &[&str]) -> u32 {
        let is_word = |value: &Value| matches!(value, Value::Text(text) if words.contains(&text.as_str()));
        match self.value(aliases) {
            Some(Value::List(list)) => {
                let found =
                    list.values.iter().filter_map(|value| value.value.as_ref()).filter(|v| is_word(v));
                u32::try_from(found.count()).unwrap_or(u32::MAX)
            }
            Some(value) => u32::from(is_word(value)),
            None => 0,
        }
    }

    fn is_one_of(self, aliases: &[&str], words: &[&str]) -> bool {
        self.text(aliases).is_some_and(|text| words.contains(&text))
    }

    fn subject(self) -> Subject {
        let whole = |aliases| self.text(aliases).map(str::to_owned);
        Subject {
            session: whole(aliases::SESSION),
            pack: self.text(aliases::PROMPT).map(pack_of),
            version: whole(aliases::VERSION),
        }
    }
}

/// The pack of `pack`, `pack/prompt` or `pack.prompt`.
fn pack_of(name: &str) -> String {
    name.split(['/', '.']).next().unwrap_or(name).to_owned()
}

/// What a span tells, and the events in it.
pub fn of_span(span: &Span, resource: &[KeyValue], own: &Own) -> Vec<Item> {
    let attributes = Attributes(&span.attributes);
    let resource = Attributes(resource).subject();
    // A service may be about one prompt; it is never about one session.
    let of_service = Subject { session: None, ..resource };
    let place = Place { trace: span.trace_id.clone(), span: span.span_id.clone() };
    let subject = attributes.subject().or(&of_service);
    let told = told(span, attributes, own);
    let mut items = vec![Item {
        from: 0,
        id: format!("{}-{}", hex(&place.trace), hex(&place.span)),
        place: place.clone(),
        subject: subject.clone(),
        at: time(span.start_time_unix_nano),
        until: time(span.end_time_unix_nano),
        response: attributes.text(aliases::RESPONSE_ID).map(str::to_owned),
        told,
    }];
    for event in &span.events {
        let SpanEvent { time_unix_nano, name, attributes } = event;
        items.extend(of_event(name, attributes, *time_unix_nano, &place, &subject));
    }
    items
}

/// What a record tells, if it is an event that is known here.
pub fn of_record(record: &LogRecord, resource: &[KeyValue]) -> Option<Item> {
    let attributes = Attributes(&record.attributes);
    let name = if record.event_name.is_empty() {
        attributes.text(aliases::EVENT_NAME)?
    } else {
        record.event_name.as_str()
    };
    let place = Place { trace: record.trace_id.clone(), span: record.span_id.clone() };
    let of_service = Subject { session: None, ..Attributes(resource).subject() };
    let at = [record.time_unix_nano, record.observed_time_unix_nano].into_iter().find(|at| *at > 0);
    of_event(name, &record.attributes, at.unwrap_or(0), &place, &of_service)
}

fn of_event(
    name: &str,
    attributes: &[KeyValue],
    nanoseconds: u64,
    place: &Place,
    around: &Subject,
) -> Option<Item> {
    let attributes = Attributes(attributes);
    let (subject, told, what) = if aliases::EVALUATION_EVENTS.contains(&name) {
        let what = attributes.text(aliases::EVALUATION_NAME)?;
        let label = || attributes.text(aliases::EVALUATION_LABEL).and_then(value_of_label);
        let value = attributes.number(aliases::EVALUATION_VALUE).or_else(label);
        let told = Told::Outcome { name: outcome_name(what), value };
        (attributes.subject().or(around), told, what)
    } else if aliases::FLAG_EVENTS.contains(&name) {
        let key = attributes.text(aliases::FLAG_KEY)?;
        let subject = Subject {
            session: attributes.text(aliases::FLAG_CONTEXT).map(str::to_owned),
            pack: Some(pack_of(key)),
            version: attributes.text(aliases::FLAG_VARIANT).map(str::to_owned),
        };
        (subject.or(&Subject { version: None, pack: None, ..around.clone() }), Told::Exposure, key)
    } else {
        return None;
    };
    let response = attributes.text(aliases::RESPONSE_ID).map(str::to_owned);
    let about = match &response {
        Some(response) => response.clone(),
        None if place.span.is_empty() => subject.session.clone().unwrap_or_default(),
        None => format!("{}-{}", hex(&place.trace), hex(&place.span)),
    };
    let at = time(nanoseconds);
    let id = format!("{about}-{what}-{nanoseconds}");
    Some(Item { from: 0, id, place: place.clone(), subject, at, until: at, response, told })
}

fn told(span: &Span, attributes: Attributes<'_>, own: &Own) -> Told {
    let failed = attributes.text(aliases::ERROR).is_some()
        || span.status.as_ref().is_some_and(|status| status.code == 2);
    if attributes.is_one_of(aliases::OPERATION, aliases::TOOL_CALL) {
        Told::Tool { failed }
    } else if !attributes.is_one_of(aliases::OPERATION, aliases::MODEL_CALLS) {
        Told::Context
    } else if own.is(attributes) {
        Told::Seen
    } else {
        Told::Call(Box::new(response(span, attributes, failed)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a span lasts far less than 2^52 nanoseconds")]
fn response(span: &Span, attributes: Attributes<'_>, failed: bool) -> Response {
    let ended = |words: &[&str]| attributes.count_of(aliases::FINISH_REASONS, words);
    let finished = attributes.value(aliases::FINISH_REASONS).is_some();
    let length = span.end_time_unix_nano.checked_sub(span.start_time_unix_nano);
    let calls = ended(&["tool_calls", "tool_call", "tool_use", "function_call"]);
    Response {
        success: Some(!failed),
        error: failed.then(|| error_kind(attributes)),
        latency_ms: length.map(|nanoseconds| nanoseconds as f64 / 1e6),
        ttft_ms: attributes.number(aliases::TIME_TO_FIRST_CHUNK).map(|seconds| seconds * 1e3),
        input_tokens: attributes.number(aliases::INPUT_TOKENS),
        output_tokens: attributes.number(aliases::OUTPUT_TOKENS),
        cached_tokens: attributes.number(aliases::CACHED_TOKENS),
        cost: attributes.number(aliases::COST),
        finish_reason: attributes
            .text(aliases::FINISH_REASONS)
            .map(|reason| reason.chars().take(100).collect()),
        tool_calls: finished.then_some(calls),
        truncated: finished.then(|| ended(&["length", "max_tokens", "max_output_tokens"]) > 0),
        refusal: finished.then(|| ended(&["content_filter", "refusal"]) > 0),
        ..Response::default()
    }
}

/// Who failed: a status says it, or else the name of the error.
fn error_kind(attributes: Attributes<'_>) -> ErrorKind {
    /// Errors of the request, in the names of the official clients.
    const OF_THE_REQUEST: [&str; 7] = [
        "BadRequest",
        "InvalidRequest",
        "Authentication",
        "PermissionDenied",
        "NotFound",
        "UnprocessableEntity",
        "Conflict",
    ];
    let Some(text) = attributes.text(aliases::ERROR) else { return ErrorKind::Provider };
    match text.parse::<u16>() {
        Ok(408 | 429) => ErrorKind::Provider,
        Ok(400..=499) => ErrorKind::Request,
        Ok(_) => ErrorKind::Provider,
        Err(_) if OF_THE_REQUEST.iter().any(|name| text.contains(name)) => ErrorKind::Request,
        Err(_) => ErrorKind::Provider,
    }
}

fn value_of_label(label: &str) -> Option<f64> {
    let label = label.to_ascii_lowercase();
    if aliases::GOOD_LABELS.contains(&label.as_str()) {
        Some(1.0)
    } else if aliases::BAD_LABELS.contains(&label.as_str()) {
        Some(0.0)
    } else {
        None
    }
}

/// `Task Completion`, `task-completion` and `TaskCompletion` are `task_completion`.
fn outcome_name(name: &str) -> String {
    let mut snake = String::new();
    let mut after_small = false;
    for c in name.chars().take(100) {
        if c.is_ascii_uppercase() && after_small {
            snake.push('_');
        }
        after_small = c.is_ascii_lowercase() || c.is_ascii_digit();
        snake.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    snake
}

fn time(nanoseconds: u64) -> Option<Timestamp> {
    if nanoseconds == 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
