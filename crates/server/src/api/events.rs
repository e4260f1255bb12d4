//! What apps report of their sessions: outcomes, and responses of providers that they called themselves.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use serin_core::ids::{PackName, SessionHash, SessionKey};
use serin_core::observation::{Fact, Outcome, Response};
use serin_core::units::{HoldFor, Timestamp};

use super::App;
use super::error::ApiError;
use super::read::{bytes, from_json};
use super::types::{EventInput, EventsAnswer, EventsRequest, ProblemDetails, RejectedEvent};
use crate::signal::SessionFact;
use crate::snapshot::Snapshot;
use crate::store::{Receipt, StoreError};

/// Events that one request may bring.
pub const MOST_EVENTS: usize = 1_000;
/// The largest body, in bytes.
pub const LARGEST_BODY: usize = 1 << 20;
/// How far ahead of this clock an event may lie.
const FUTURE: HoldFor = HoldFor::from_mins(5);
/// The longest id, in bytes.
const LONGEST_ID: usize = 200;

/// Takes events; what is accepted is durable once this answers.
///
/// The body is `{"events": [...]}`, or NDJSON with one event a line (`application/x-ndjson`). An event is an outcome
/// (`name` and `value`) or, with the name `response`, what was seen of a provider's answer. An event with an id counts
/// once, however often it is sent. One bad event does not cost the others.
#[utoipa::path(
    post, path = "/v1/events", tag = "data plane",
    request_body(content = EventsRequest, description = "At most 1 000 events and 1 MiB."),
    responses(
        (status = 202, description = "What became of the events.", body = EventsAnswer),
        (status = 400, description = "The body cannot be read at all.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "More than 1 000 events or 1 MiB.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was stored; send the same events again.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn events(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<EventsAnswer>), ApiError> {
    let body = bytes(&headers, body, LARGEST_BODY).await?;
    let events = split(&headers, &body)?;
    if events.len() > MOST_EVENTS {
        let detail = format!("the request brings {} events, more than {MOST_EVENTS}", events.len());
        return Err(ApiError::too_large(detail).hint("send them in several requests"));
    }
    let snapshot = app.resolver().snapshot();
    let mut answer = EventsAnswer::default();
    let mut facts = Vec::with_capacity(events.len());
    for (index, event) in events.into_iter().enumerate() {
        match fact(&app, &snapshot, event).await? {
            Ok(fact) => facts.push(fact),
            Err(Rejected { id, reason }) => {
                answer.reasons.push(RejectedEvent {
                    index: u64::try_from(index).unwrap_or(u64::MAX),
                    id,
                    reason,
                });
            }
        }
    }
    answer.rejected = u64::try_from(answer.reasons.len()).unwrap_or(u64::MAX);
    for receipt in app.reporter.report(facts).await? {
        match receipt {
            Receipt::Accepted => answer.accepted += 1,
            Receipt::Duplicate => answer.duplicate += 1,
        }
    }
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// One event as it came; a line that is no JSON is rejected on its own.
type Given = Result<Value, String>;

/// Takes a body apart.
fn split(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Given>, ApiError> {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let media = media.split(';').next().unwrap_or(media).trim().to_ascii_lowercase();
    match media.as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            let lines =
                body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
            // One more than may be there is enough to know that there are too many.
            let lines = lines.take(MOST_EVENTS + 1);
            Ok(lines
                .map(|line| serde_json::from_slice(line).map_err(|error| format!("no JSON: {error}")))
                .collect())
        }
        "application/json" => {
            let EventsRequest { events } = from_json(body)?;
            Ok(events.into_iter().map(Ok).collect())
        }
        other => {
            let other: String = other.chars().take(80).collect();
            Err(ApiError::unsupported_media(format!("could not read events as {other:?}"))
                .hint("send application/json or application/x-ndjson"))
        }
    }
}

/// Why one event is not taken.
struct Rejected {
    id: Option<String>,
    reason: String,
}

/// Reads one event and finds the session that it belongs to.
async fn fact(
    app: &App,
    snapshot: &Snapshot,
    event: Given,
) -> Result<Result<SessionFact, Rejected>, StoreError> {
    let parsed = event.and_then(|value| match value {
        Value::Object(_) => {
            serde_json::from_value::<EventInput>(value).map_err(|error| format!("no event: {error}"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err("no event: expected an object with pack, session and name".to_owned())
        }
    });
    let event = match parsed {
        Ok(event) => event,
        Err(reason) => return Ok(Err(Rejected { id: None, reason })),
    };
    let id = event.id.clone();
    let rejected = |reason: String| Ok(Err(Rejected { id: id.clone(), reason }));
    let read = match read(app, snapshot, event) {
        Ok(read) => read,
        Err(reason) => return rejected(reason),
    };
    // The pin first; the store remembers sessions that have ended.
    let cohort = match app.resolver().pins.get(read.hash) {
        Some(pin) => Some(pin.cohort),
        None => app.control.store().attribution(read.hash).await?,
    };
    let Some(cohort) = cohort else {
        return rejected(format!("session {:?} of pack {} is not known here", read.key.as_str(), read.pack));
    };
    let Read { pack, hash, id, at, until, fact, .. } = read;
    Ok(Ok(SessionFact { pack, hash, cohort, id, at, until, fact }))
}

/// An event whose parts are all right.
struct Read {
    pack: Arc<PackName>,
    key: SessionKey,
    hash: SessionHash,
    id: String,
    at: Timestamp,
    until: Timestamp,
    fact: Fact,
}

fn read(app: &App, snapshot: &Snapshot, event: EventInput) -> Result<Read, String> {
    let pack = snapshot.packs.iter().find(|(name, _)| name.as_str() == event.pack).map(|(_, pack)| pack);
    let Some(pack) = pack else {
        let given: String = event.pack.chars().take(80).collect();
        return Err(format!("pack {given:?} does not exist"));
    };
    let key = SessionKey::parse(&event.session).map_err(|error| error.to_string())?;
    let now = app.now();
    let at = event.at.unwrap_or(now);
    if at > FUTURE.after(now) {
        return Err(format!("`at` {at} lies more than {FUTURE} ahead of this clock"));
    }
    if at < app.retention.before(now) {
        return Err(format!(
            "`at` {at} lies further back than the {} that observations are kept",
            app.retention
        ));
    }
    let fact = match event.name.as_str() {
        "response" => Fact::Response(response(event.value.is_some(), event.response)?),
        name => {
            if let Some(field) = event.response.keys().next() {
                return Err(format!(
                    "unknown field {field:?}; only events with the name response carry more fields"
                ));
            }
            let value = event.value.ok_or_else(|| format!("event {name:?} has no `value`"))?;
            Fact::Outcome(
                Outcome::parse(name, value.number(), &pack.custom).map_err(|error| error.to_string())?,
            )
        }
    };
    let latency = match &fact {
        Fact::Response(response) => response.latency_ms.unwrap_or(0.0),
        Fact::Started | Fact::Outcome(_) => 0.0,
    };
    let until = millis(latency).after(at);
    // Ids of apps and ids of the gateway share no space, so that no event can pass for a request.
    let id = match event.id {
        Some(id) if id.is_empty() || id.len() > LONGEST_ID || id.chars().any(char::is_control) => {
            return Err(format!("`id` must hold 1 to {LONGEST_ID} bytes without control characters"));
        }
        Some(id) => format!("event:{id}"),
        None => format!("event-without-id:{}", app.ids.text()),
    };
    let hash = SessionHash::of(&pack.name, &key);
    Ok(Read { pack: Arc::clone(&pack.name), key, hash, id, at, until, fact })
}

fn response(has_value: bool, fields: serde_json::Map<String, Value>) -> Result<Response, String> {
    if has_value {
        return Err(
            "an event with the name response has no `value`; it has fields such as success and latency_ms"
                .to_owned(),
        );
    }
    if fields.is_empty() {
        return Err("an event with the name response has no fields such as success and latency_ms".to_owned());
    }
    let response: Response =
        serde_json::from_value(Value::Object(fields)).map_err(|error| format!("no response: {error}"))?;
    match response.implausible() {
        None => Ok(response),
        Some((field, value)) => Err(format!("{field} cannot be {value}")),
    }
}

/// A length of time from a plausible number of milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 ..= one day")]
fn millis(ms: f64) -> HoldFor {
    HoldFor::from_millis(ms.clamp(0.0, 86_400_000.0) as u64)
}
