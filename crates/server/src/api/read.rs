//! Reading requests: bodies with a limit, parameters, names.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Query};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serin_core::ids::{PackName, RolloutId, Version};

use super::error::ApiError;

/// The largest body of a small request, in bytes.
pub(super) const SMALL_BODY: usize = 256 << 10;
/// The longest time that a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// Reads a whole body of at most `limit` bytes.
pub(super) async fn bytes(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::too_large(format!("the body is larger than {limit} bytes"))
            .hint("send less, or in several requests")
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_WITHIN, Limited::new(body, limit).collect()).await;
    match collected.map_err(|_| ApiError::too_slow(BODY_WITHIN))? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if is_length_error(&*error) => Err(too_large()),
        Err(_) => Err(ApiError::bad_request("incomplete-body", "the body broke off before its end")),
    }
}

fn is_length_error(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<LengthLimitError>())
}

/// Reads a whole body as text.
pub(super) async fn text(headers: &HeaderMap, body: Body, limit: usize) -> Result<String, ApiError> {
    let bytes = bytes(headers, body, limit).await?;
    String::from_utf8(bytes.into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ApiError::bad_request("not-utf-8", format!("the body is no UTF-8 text: byte {at} does not fit"))
    })
}

/// Room for an answer of the data plane, in bytes: a version with its reasons takes 200 to 300.
const ANSWER: usize = 512;

/// Answers with JSON.
pub(super) fn told<T: Serialize>(answer: &T) -> Response {
    let mut json = Vec::with_capacity(ANSWER);
    serde_json::to_writer(&mut json, answer)
        .expect("answers hold only numbers, text, lists and maps with text keys");
    let mut response = Response::new(Body::from(json));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Reads a whole body as JSON.
pub(super) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<T, ApiError> {
    from_json(&bytes(headers, body, limit).await?)
}

/// Reads bytes as JSON.
pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request("json", format!("could not read the body as JSON: {error}")))
}

/// Parameters of the query; unknown ones are refused.
pub(super) struct Params<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let uri: &Uri = &parts.uri;
        match Query::<T>::try_from_uri(uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let reason = std::error::Error::source(&rejection)
                    .map_or_else(|| rejection.to_string(), ToString::to_string);
                Err(ApiError::bad_request("query", format!("could not read the query: {reason}")))
            }
        }
    }
}

/// No parameters at all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParams {}

/// Reads the name of a pack; one that cannot be a name belongs to no pack.
pub(super) fn pack_name(text: &str, known: &[PackName]) -> Result<PackName, ApiError> {
    let name = PackName::parse(text).ok().filter(|name| known.contains(name));
    name.ok_or_else(|| ApiError::unknown_pack(text, known))
}

/// Reads a version.
pub(super) fn version(text: &str) -> Result<Version, ApiError> {
    Version::parse(text).map_err(|error| ApiError::bad_request("version", error.to_string()))
}

/// Reads the id of a rollout.
pub(super) fn rollout_id(text: &str) -> Result<RolloutId, ApiError> {
    RolloutId::parse(text).map_err(|_| unknown_rollout(text))
}

/// 404 for a rollout.
pub(super) fn unknown_rollout(id: &str) -> ApiError {
    let id: String = id.chars().take(80).collect();
    ApiError::not_found("unknown-rollout", format!("rollout {id:?} does not exist"))
        .hint("`GET /api/v1/rollouts` lists the rollouts; their ids look like support-prompts-r3")
}

/// How many entries of a list are asked for.
pub(super) fn limit(asked: Option<u32>, default: u32, most: u32) -> Result<u32, ApiError> {
    match asked {
        None => Ok(default),
        Some(n) if (1..=most).contains(&n) => Ok(n),
        Some(n) => Err(ApiError::bad_request("query", format!("limit {n} is outside 1 to {most}"))),
    }
}
