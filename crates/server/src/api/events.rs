//! What apps report of their sessions: outcomes, and responses of providers that they called themselves.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use serin_core::access::Scope;
use serin_core::ids::SessionKey;
use serin_core::observation::{Fact, Response};
use serin_core::units::{HoldFor, Timestamp};

use super::App;
use super::caller::AppScope;
use super::error::ApiError;
use super::read::{bytes, from_json};
use super::touched::{Sessions, outcomes};
use super::types::{EventInput, EventsAnswer, EventsRequest, ProblemDetails, RejectedEvent};
use crate::signal::SessionFact;
use crate::snapshot::PackSnapshot;
use crate::store::{Receipt, StoreError};

/// Events that one request may bring.
pub const MOST_EVENTS: usize = 1_000;
/// The largest body, in bytes.
pub const LARGEST_BODY: usize = 1 << 20;
/// The longest id, in bytes.
const LONGEST_ID: usize = 200;

/// Takes events; what is accepted is durable once this answers.
///
/// The body is `{"events": [...]}`, or NDJSON with one event a line (`application/x-ndjson`). An event is an outcome
/// (`name` and `value`) or, with the name `response`, what was seen of a provider's answer. An outcome without a pack
/// counts for every pack that its session touched. An event with an id counts once, however often it is sent. One bad
/// event does not cost the others.
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
    AppScope(scope): AppScope,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<EventsAnswer>), ApiError> {
    let body = bytes(&headers, body, LARGEST_BODY).await?;
    let events = split(&headers, &body)?;
    if events.len() > MOST_EVENTS {
        let detail = format!("the request brings {} events, more than {MOST_EVENTS}", events.len());
        return Err(ApiError::too_large(detail).hint("send them in several requests"));
    }
    let mut sessions = Sessions::new(&app);
    let mut answer = EventsAnswer::default();
    let mut facts = Vec::with_capacity(events.len());
    // How many facts each event came to: one for each pack that it counts for.
    let mut counts = Vec::with_capacity(events.len());
    for (index, event) in events.into_iter().enumerate() {
        match facts_of(&app, &mut sessions, &scope, event).await? {
            Ok(found) => {
                counts.push(found.len());
                facts.extend(found);
            }
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
    let mut receipts = app.reporter.report(facts).await?.into_iter();
    for count in counts {
        let receipts: Vec<Receipt> = receipts.by_ref().take(count).collect();
        match receipts.contains(&Receipt::Accepted) {
            true => answer.accepted += 1,
            false => answer.duplicate += 1,
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

/// Reads one event and finds the sessions that it is about: one, or one for each pack where it names none.
async fn facts_of(
    app: &App,
    sessions: &mut Sessions<'_>,
    scope: &Scope,
    event: Given,
) -> Result<Result<Vec<SessionFact>, Rejected>, StoreError> {
    let parsed = event.and_then(|value| match value {
        Value::Object(_) => {
            serde_json::from_value::<EventInput>(value).map_err(|error| format!("no event: {error}"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err("no event: expected an object with session and name".to_owned())
        }
    });
    let event = match parsed {
        Ok(event) => event,
        Err(reason) => return Ok(Err(Rejected { id: None, reason })),
    };
    let id = event.id.clone();
    let rejected = |reason: String| Ok(Err(Rejected { id: id.clone(), reason }));
    let read = match read(app, sessions, event) {
        Ok(read) => read,
        Err(reason) => return rejected(reason),
    };
    let Read { pack, key, id, at, until, told } = read;
    let touched = match &pack {
        Some(pack) if !scope.allows(&pack.name) => {
            return rejected(format!("the key is for {scope} only, not for {}", pack.name));
        }
        None if scope.packs().is_some() => {
            return rejected(format!("the key is for {scope} only, and the event names no pack"));
        }
        Some(pack) => match sessions.of_pack(pack, &key).await? {
            Some(touched) => vec![touched],
            None => {
                return rejected(format!(
                    "session {:?} of pack {} is not known here",
                    key.as_str(),
                    pack.name
                ));
            }
        },
        None => sessions.of_all(&key).await?.to_vec(),
    };
    if touched.is_empty() {
        return rejected(format!("session {:?} is not known here", key.as_str()));
    }
    match told {
        Told::Response(response) => {
            let [touched] = touched.as_slice() else {
                return rejected(format!(
                    "session {:?} has several packs: name the one of the response",
                    key.as_str()
                ));
            };
            Ok(Ok(vec![touched.fact(id, at, until, Fact::Response(*response))]))
        }
        Told::Outcome { name, value } => match outcomes(&touched, &name, value) {
            Ok(outcomes) => Ok(Ok(outcomes
                .into_iter()
                .map(|(touched, outcome)| touched.fact(id.clone(), at, until, Fact::Outcome(outcome)))
                .collect())),
            Err(reason) => rejected(reason),
        },
    }
}

/// An event whose parts are all right.
struct Read {
    pack: Option<Arc<PackSnapshot>>,
    key: SessionKey,
    id: String,
    at: Timestamp,
    until: Timestamp,
    told: Told,
}

/// What an event tells.
enum Told {
    Response(Box<Response>),
    Outcome { name: String, value: f64 },
}

fn read(app: &App, sessions: &Sessions<'_>, event: EventInput) -> Result<Read, String> {
    let pack = match &event.pack {
        Some(name) => Some(sessions.pack(name).cloned().ok_or_else(|| {
            let given: String = name.chars().take(80).collect();
            format!("pack {given:?} does not exist")
        })?),
        None => None,
    };
    let key = SessionKey::parse(&event.session).map_err(|error| error.to_string())?;
    let at = event.at.unwrap_or_else(|| app.now());
    sessions.check_time(at)?;
    let told = match event.name.as_str() {
        "response" => Told::Response(Box::new(response(event.value.is_some(), event.response)?)),
        name => {
            if let Some(field) = event.response.keys().next() {
                return Err(format!(
                    "unknown field {field:?}; only events with the name response carry more fields"
                ));
            }
            let value = event.value.ok_or_else(|| format!("event {name:?} has no `value`"))?;
            Told::Outcome { name: name.to_owned(), value: value.number() }
        }
    };
    let latency = match &told {
        Told::Response(response) => response.latency_ms.unwrap_or(0.0),
        Told::Outcome { .. } => 0.0,
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
    Ok(Read { pack, key, id, at, until, told })
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
