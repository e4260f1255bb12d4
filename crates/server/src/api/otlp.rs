//! OpenTelemetry over HTTP: what apps tell of their model calls and evaluations.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::PoisonError;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::json;
use serin_core::ids::{SessionKey, Version};
use serin_core::observation::Fact;

use super::App;
use super::error::ApiError;
use super::read::bytes;
use super::touched::{Sessions, Touched, outcomes};
use crate::otlp::meaning::{Item, Told};
use crate::otlp::wire::{Answer, Logs, PartialSuccess, Status, Traces};
use crate::otlp::{OtlpCounts, of_logs, of_traces};
use crate::signal::SessionFact;
use crate::store::{Receipt, StoreError};

/// The largest body, in bytes, as it comes and inflated.
pub const LARGEST_BODY: usize = 8 << 20;
/// Spans or records that one request may bring.
pub const MOST_ITEMS: usize = 10_000;
/// Reasons that an answer names.
const MOST_REASONS: usize = 5;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// Takes spans; those of model calls become responses, and the evaluations in them outcomes.
///
/// The body is an `ExportTraceServiceRequest`, as protobuf or as JSON, gzip or not. A span belongs to a session by its
/// own attributes or by its trace. What is not taken is counted in `partial_success`; spans that tell nothing of a
/// prompt are taken and passed over.
#[utoipa::path(
    post, path = "/otlp/v1/traces", tag = "data plane",
    request_body(content = String, content_type = "application/x-protobuf", description = "At most 10 000 spans and 8 MiB; application/json as well."),
    responses(
        (status = 200, description = "An ExportTraceServiceResponse in the form of the request.", body = String, content_type = "application/x-protobuf"),
        (status = 400, description = "The body cannot be read: a google.rpc.Status.", body = String, content_type = "application/x-protobuf"),
        (status = 413, description = "More than 10 000 spans or 8 MiB, perhaps once inflated.", body = String, content_type = "application/x-protobuf"),
        (status = 415, description = "The body is in a form that is not read here: a google.rpc.Status.", body = serde_json::Value, content_type = "application/json"),
        (status = 503, description = "Nothing was stored; send the same spans again.", body = String, content_type = "application/x-protobuf"),
    ),
)]
pub(super) async fn traces(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let form = Form::of(&headers);
    let taken = async {
        let traces = received::<Traces>(form?, &headers, body).await?;
        let (items, count) = of_traces(&traces, &app.otlp.own);
        OtlpCounts::add(&app.otlp.counts.spans, count);
        take(&app, items, count).await
    };
    told(form, taken.await, "rejectedSpans")
}

/// Takes log records; evaluations become outcomes, and evaluated flags say whose trace it is.
///
/// The body is an `ExportLogsServiceRequest`, as protobuf or as JSON, gzip or not. Of records only the events
/// `gen_ai.evaluation.result` and `feature_flag.evaluation` are read.
#[utoipa::path(
    post, path = "/otlp/v1/logs", tag = "data plane",
    request_body(content = String, content_type = "application/x-protobuf", description = "At most 10 000 records and 8 MiB; application/json as well."),
    responses(
        (status = 200, description = "An ExportLogsServiceResponse in the form of the request.", body = String, content_type = "application/x-protobuf"),
        (status = 400, description = "The body cannot be read: a google.rpc.Status.", body = String, content_type = "application/x-protobuf"),
        (status = 413, description = "More than 10 000 records or 8 MiB, perhaps once inflated.", body = String, content_type = "application/x-protobuf"),
        (status = 415, description = "The body is in a form that is not read here: a google.rpc.Status.", body = serde_json::Value, content_type = "application/json"),
        (status = 503, description = "Nothing was stored; send the same records again.", body = String, content_type = "application/x-protobuf"),
    ),
)]
pub(super) async fn logs(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let form = Form::of(&headers);
    let taken = async {
        let logs = received::<Logs>(form?, &headers, body).await?;
        let (items, count) = of_logs(&logs);
        OtlpCounts::add(&app.otlp.counts.records, count);
        take(&app, items, count).await
    };
    told(form, taken.await, "rejectedLogRecords")
}

/// Anything else of OTLP ends here and not at a provider.
pub(super) async fn elsewhere(headers: HeaderMap) -> Response {
    let refused = Refused {
        status: StatusCode::NOT_FOUND,
        code: Code::Unimplemented,
        message: "only /otlp/v1/traces and /otlp/v1/logs are taken: metrics name no prompt".to_owned(),
    };
    told(Form::of(&headers), Err(refused), "")
}

/// The form of a request and of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

/// Codes of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    InvalidArgument = 3,
    Unimplemented = 12,
    Unavailable = 14,
}

/// Why a request is not taken at all.
#[derive(Debug, Clone)]
struct Refused {
    status: StatusCode,
    code: Code,
    message: String,
}

/// A request that is refused for its media type: `Copy`, so that the form can be looked at twice.
#[derive(Debug, Clone, Copy)]
struct UnknownForm;

impl From<UnknownForm> for Refused {
    fn from(_: UnknownForm) -> Self {
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code: Code::InvalidArgument,
            message: format!("send {PROTOBUF} or {JSON}"),
        }
    }
}

impl Refused {
    fn invalid(status: StatusCode, message: String) -> Self {
        Self { status, code: Code::InvalidArgument, message }
    }

    fn too_large(message: String) -> Self {
        Self::invalid(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    fn unavailable(error: &ApiError) -> Self {
        let (status, message) = error.brief();
        Self { status, code: Code::Unavailable, message }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::unavailable(&ApiError::from(error))
    }
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Self, UnknownForm> {
        let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            PROTOBUF => Ok(Self::Protobuf),
            JSON => Ok(Self::Json),
            _ => Err(UnknownForm),
        }
    }
}

/// Reads the message of a request; the limit of the body holds inflated as well.
async fn received<M>(form: Form, headers: &HeaderMap, body: Body) -> Result<M, Refused>
where
    M: Message + Default + DeserializeOwned + 'static,
{
    let body = bytes(headers, body, LARGEST_BODY).await.map_err(|error| {
        let (status, message) = error.brief();
        Refused::invalid(status, message)
    })?;
    let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("identity");
    let is_gzip = match encoding.trim().to_ascii_lowercase().as_str() {
        "gzip" => true,
        "identity" | "" => false,
        other => {
            let other: String = other.chars().take(40).collect();
            let message = format!("content-encoding {other:?} is not read here; send gzip or none");
            return Err(Refused::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    // Inflating and reading megabytes would keep others waiting.
    let read = tokio::task::spawn_blocking(move || {
        let body = if is_gzip { inflated(&body)? } else { body };
        decoded(form, &body)
    });
    match read.await {
        Ok(read) => read,
        Err(_) => Err(Refused {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: Code::Unavailable,
            message: "the server is stopping".to_owned(),
        }),
    }
}

fn inflated(body: &[u8]) -> Result<Bytes, Refused> {
    let mut inflated = Vec::new();
    let limit = u64::try_from(LARGEST_BODY).unwrap_or(u64::MAX);
    let read = flate2::read::MultiGzDecoder::new(body).take(limit + 1).read_to_end(&mut inflated);
    if let Err(error) = read {
        return Err(Refused::invalid(StatusCode::BAD_REQUEST, format!("the body is no gzip: {error}")));
    }
    if inflated.len() > LARGEST_BODY {
        let message =
            format!("the body is larger than {LARGEST_BODY} bytes once inflated; send smaller batches");
        return Err(Refused::too_large(message));
    }
    Ok(inflated.into())
}

fn decoded<M: Message + Default + DeserializeOwned>(form: Form, body: &[u8]) -> Result<M, Refused> {
    let read = match form {
        Form::Protobuf => M::decode(body).map_err(|error| error.to_string()),
        Form::Json => {
            serde_json::from_slice(body).map_err(|error| format!("could not read the JSON: {error}"))
        }
    };
    read.map_err(|message| Refused::invalid(StatusCode::BAD_REQUEST, message))
}

/// The answer in the form of the request.
fn told(form: Result<Form, UnknownForm>, taken: Result<Taken, Refused>, rejected_field: &str) -> Response {
    // Where the form is unknown, JSON can at least be read by people.
    let form = form.unwrap_or(Form::Json);
    let (status, code, bytes) = match taken {
        Ok(taken) => (StatusCode::OK, None, taken.encoded(form, rejected_field)),
        Err(Refused { status, code, message }) => {
            let told = Status { code: code as i32, message };
            let bytes = match form {
                Form::Protobuf => told.encode_to_vec(),
                Form::Json => serde_json::to_vec(&told).expect("a number and text are JSON"),
            };
            (status, Some(code), bytes)
        }
    };
    let media = match form {
        Form::Protobuf => PROTOBUF,
        Form::Json => JSON,
    };
    let mut response = (status, [(CONTENT_TYPE, media)], bytes).into_response();
    if code == Some(Code::Unavailable) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What became of a request.
#[derive(Debug, Default)]
struct Taken {
    /// Spans or records with something that was not taken.
    rejected: BTreeSet<usize>,
    /// Why, each reason once.
    reasons: Vec<String>,
}

impl Taken {
    fn reject(&mut self, from: usize, reason: String) {
        self.rejected.insert(from);
        if self.reasons.len() < MOST_REASONS && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    fn encoded(&self, form: Form, rejected_field: &str) -> Vec<u8> {
        let rejected = i64::try_from(self.rejected.len()).unwrap_or(i64::MAX);
        let error_message = self.reasons.join("; ");
        match form {
            Form::Protobuf => {
                let partial_success = (rejected > 0).then_some(PartialSuccess { rejected, error_message });
                Answer { partial_success }.encode_to_vec()
            }
            Form::Json if rejected == 0 => b"{}".to_vec(),
            Form::Json => {
                let partial = json!({rejected_field: rejected.to_string(), "errorMessage": error_message});
                serde_json::to_vec(&json!({"partialSuccess": partial})).expect("text is JSON")
            }
        }
    }
}

/// Joins items with their sessions and writes what they tell.
async fn take(app: &App, items: Vec<Item>, count: usize) -> Result<Taken, Refused> {
    if count > MOST_ITEMS {
        let message =
            format!("the request brings {count} items, more than {MOST_ITEMS}; send smaller batches");
        return Err(Refused::too_large(message));
    }
    let counts = &app.otlp.counts;
    let joined = {
        let mut links = app.otlp.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.join(items, app.now())
    };
    OtlpCounts::add(&counts.unjoined, joined.unjoined);
    let mut sessions = Sessions::new(app);
    let mut taken = Taken::default();
    let mut facts = Vec::new();
    for (item, is_own) in
        joined.ready.iter().map(|item| (item, true)).chain(joined.released.iter().map(|item| (item, false)))
    {
        match facts_of(app, &mut sessions, item).await? {
            Ok(found) => facts.extend(found),
            Err(reason) => {
                OtlpCounts::add(&counts.rejected, 1);
                // Who sent an item of before has its answer already.
                if is_own {
                    taken.reject(item.from, reason);
                }
            }
        }
    }
    let kinds: Vec<bool> = facts.iter().map(|fact| matches!(fact.fact, Fact::Response(_))).collect();
    let receipts = app.reporter.report(facts).await.map_err(|error| Refused::unavailable(&error.into()))?;
    for (receipt, is_response) in receipts.into_iter().zip(kinds) {
        let counter = match (receipt, is_response) {
            (Receipt::Duplicate, _) => &counts.duplicates,
            (Receipt::Accepted, true) => &counts.responses,
            (Receipt::Accepted, false) => &counts.outcomes,
        };
        OtlpCounts::add(counter, 1);
    }
    Ok(taken)
}

/// The facts that an item comes to, or why it comes to none.
async fn facts_of(
    app: &App,
    sessions: &mut Sessions<'_>,
    item: &Item,
) -> Result<Result<Vec<SessionFact>, String>, StoreError> {
    let counts = &app.otlp.counts;
    let nothing = || Ok(Ok(Vec::new()));
    match &item.told {
        Told::Context | Told::Tool { .. } => return nothing(),
        Told::Seen => {
            OtlpCounts::add(&counts.seen, 1);
            return nothing();
        }
        Told::Call(_) | Told::Outcome { .. } | Told::Exposure => {}
    }
    let Some(session) = &item.subject.session else { return nothing() };
    let key = match SessionKey::parse(session) {
        Ok(key) => key,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let touched: Vec<Touched> = match &item.subject.pack {
        Some(name) => {
            let Some(pack) = sessions.pack(name).cloned() else {
                OtlpCounts::add(&counts.ignored, 1);
                return nothing();
            };
            match sessions.of_pack(&pack, &key).await? {
                Some(touched) => vec![touched],
                None => return Ok(Err(format!("session {session:?} of pack {name} is not known here"))),
            }
        }
        None => sessions.of_all(&key).await?.to_vec(),
    };
    if touched.is_empty() {
        OtlpCounts::add(&counts.ignored, 1);
        return nothing();
    }
    if let Some(reason) = touched.iter().find_map(|touched| other_version(item, touched)) {
        return Ok(Err(reason));
    }
    let at = item.at.unwrap_or_else(|| app.now());
    let until = item.until.unwrap_or(at).max(at);
    if let Err(reason) = sessions.check_time(at).and_then(|()| sessions.check_time(until)) {
        return Ok(Err(reason));
    }
    // Ids of telemetry share no space with those of events and requests.
    let id = format!("otlp:{}", item.id);
    let facts = match &item.told {
        Told::Call(response) => {
            if let Some((field, value)) = response.implausible() {
                return Ok(Err(format!("{field} cannot be {value}")));
            }
            let [touched] = touched.as_slice() else {
                let reason =
                    format!("session {session:?} has several packs: name the prompt in gen_ai.prompt.name");
                return Ok(Err(reason));
            };
            vec![touched.fact(id, at, until, Fact::Response(response.as_ref().clone()))]
        }
        Told::Outcome { name, value } => {
            let Some(value) = value else {
                return Ok(Err(format!(
                    "evaluation {name:?} has no score, and no label such as pass or fail"
                )));
            };
            return Ok(outcomes(&touched, name, *value).map(|outcomes| {
                outcomes
                    .into_iter()
                    .map(|(touched, outcome)| touched.fact(id.clone(), at, until, Fact::Outcome(outcome)))
                    .collect()
            }));
        }
        Told::Exposure => {
            OtlpCounts::add(&counts.exposures, 1);
            Vec::new()
        }
        Told::Context | Told::Tool { .. } | Told::Seen => Vec::new(),
    };
    Ok(Ok(facts))
}

/// Why an item does not count: its app used another version than the session has.
///
/// Versions that are no semantic ones, such as a running number, belong to somebody else and are passed over.
fn other_version(item: &Item, touched: &Touched) -> Option<String> {
    let told = Version::parse(item.subject.version.as_deref()?).ok()?;
    let cohort = touched.pack.route.cohorts.get(touched.cohort)?;
    (cohort.version != told).then(|| {
        format!(
            "a session of pack {} has version {}, the sender says {told}",
            touched.pack.name, cohort.version
        )
    })
}
