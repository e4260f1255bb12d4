//! Errors of the gateway's own, in the shape that clients of each API read.
//!
//! `{"error": {"message", "type": "serin_gateway_error", "param": null, "code"}}` as
//! `application/json`, for Anthropic's clients with `"type": "error"` before it. An error of the provider is never put in other words: it arrives as it is.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::body::write_text;
use super::protocol::Protocol;

/// Why the gateway answers itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// One word for programs.
    pub code: &'static str,
    /// What was tried with what, and what to do about it.
    pub message: String,
}

impl Refusal {
    /// An error with its status, its word for programs and its message for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// 400.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The answer to the client, in the words of the protocol that it speaks.
    pub fn into_response(self, protocol: Option<Protocol>) -> Response<Body> {
        let mut json = Vec::with_capacity(self.message.len() + 96);
        let head: &[u8] = match protocol {
            Some(Protocol::Messages) => b"{\"type\":\"error\",\"error\":{\"message\":",
            Some(Protocol::Chat | Protocol::Responses) | None => b"{\"error\":{\"message\":",
        };
        json.extend_from_slice(head);
        write_text(&mut json, &self.message);
        json.extend_from_slice(b",\"type\":\"serin_gateway_error\",\"param\":null,\"code\":");
        write_text(&mut json, self.code);
        json.extend_from_slice(b"}}");
        let mut response = Response::new(Body::from(Bytes::from(json)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
