//! What else OpenAI's API has that a gateway passes through.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::answer::tokens;
use crate::body::AnswerBody;
use crate::error::{ApiError, Dialect, request_id};
use crate::stand_in::{RecordedRequest, StandIn, Ticket};

/// Dimensions of an embedding.
const DIMENSIONS: usize = 8;

/// `GET /v1/models`: the models of the script, or one that stands for all.
pub(crate) async fn models(State(stand_in): State<StandIn>, request: Request) -> Response {
    let ticket = stand_in.admit(&request);
    let script = stand_in.script();
    if let Err(error) = stand_in.receive(request, &script, Dialect::OpenAi).await {
        return error.into_response(ticket);
    }
    let any = ["stand-in".to_owned()];
    let names = if script.models.is_empty() { &any[..] } else { &script.models[..] };
    let data: Vec<Value> = names
        .iter()
        .map(|id| json!({"id": id, "object": "model", "created": 0, "owned_by": "stand-in"}))
        .collect();
    respond(ticket, &json!({"object": "list", "data": data}))
}

/// `POST /v1/embeddings`: a vector of length 1 that depends on the text alone.
pub(crate) async fn embeddings(State(stand_in): State<StandIn>, request: Request) -> Response {
    let ticket = stand_in.admit(&request);
    let script = stand_in.script();
    let answer = match stand_in.receive(request, &script, Dialect::OpenAi).await {
        Ok(received) => embed(&received),
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => respond(ticket, &answer),
        Err(error) => error.into_response(ticket),
    }
}

/// Any path that does not exist.
pub(crate) async fn unknown_path(State(stand_in): State<StandIn>, request: Request) -> Response {
    refuse(&stand_in, request, ApiError::unknown_path).await
}

/// A path that exists under another method.
pub(crate) async fn wrong_method(State(stand_in): State<StandIn>, request: Request) -> Response {
    refuse(&stand_in, request, ApiError::wrong_method).await
}

async fn refuse(stand_in: &StandIn, request: Request, refusal: fn(&str) -> ApiError) -> Response {
    let ticket = stand_in.admit(&request);
    let script = stand_in.script();
    match stand_in.receive(request, &script, Dialect::OpenAi).await {
        Ok(received) => {
            let line = format!("{} {}", received.method, received.uri.path());
            refusal(&line).into_response(ticket)
        }
        Err(error) => error.into_response(ticket),
    }
}

fn embed(received: &RecordedRequest) -> Result<Value, ApiError> {
    let invalid = |message: &str, param| ApiError::invalid_request(Dialect::OpenAi, message, param, None);
    let body: Value = serde_json::from_slice(&received.body)
        .map_err(|error| invalid(&format!("could not parse the JSON body: {error}"), None))?;
    let texts: Vec<&str> = match &body["input"] {
        Value::String(text) => vec![text],
        Value::Array(items) => items
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()
            .ok_or_else(|| invalid("the items of `input` are not all strings", Some("input")))?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(invalid("`input` is not a string or an array of strings", Some("input")));
        }
    };
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({"object": "embedding", "index": index, "embedding": vector(text)}))
        .collect();
    let prompt_tokens: u64 = texts.iter().map(|text| tokens(text)).sum();
    Ok(json!({
        "object": "list",
        "data": data,
        "model": body["model"],
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }))
}

fn vector(text: &str) -> [f64; DIMENSIONS] {
    let bytes = xxh3_64(text.as_bytes()).to_le_bytes();
    let raw = bytes.map(|byte| f64::from(byte) - 127.5);
    let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
    raw.map(|x| x / length)
}

fn respond(ticket: Ticket, answer: &Value) -> Response {
    let (name, id) = request_id(&ticket, Dialect::OpenAi);
    let body = AnswerBody::whole(ticket, answer.to_string());
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(name, id);
    response
}
