//! Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use crate::body::AnswerBody;
use crate::script::Failure;
use crate::stand_in::{BODY_BYTES_MAX, Ticket};

/// An error answer of the OpenAI API.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    retry_after: Option<u32>,
    body: Vec<u8>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Details<'a>,
}

#[derive(Serialize)]
struct Details<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl ApiError {
    /// 400: the request is not what the protocol asks for.
    pub(crate) fn invalid_request(
        message: &str,
        param: Option<&'static str>,
        code: Option<&'static str>,
    ) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", message, param, code)
    }

    /// 401: no key.
    pub(crate) fn key_missing() -> ApiError {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "invalid_request_error",
            "no API key was provided; hint: send it as `Authorization: Bearer KEY`",
            None,
            None,
        )
    }

    /// 404: the script lists models, and this is none of them.
    pub(crate) fn unknown_model(model: &str) -> ApiError {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            &format!("the model `{model}` does not exist or you do not have access to it"),
            None,
            Some("model_not_found"),
        )
    }

    /// 404: no such path.
    pub(crate) fn unknown_path(request: &str) -> ApiError {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            &format!("invalid URL ({request})"),
            None,
            Some("unknown_url"),
        )
    }

    /// 405: the path exists, under another method.
    pub(crate) fn wrong_method(request: &str) -> ApiError {
        ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            &format!("method not allowed ({request})"),
            None,
            Some("method_not_supported"),
        )
    }

    /// 413: the body is too large, or broke off.
    pub(crate) fn body_unreadable() -> ApiError {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            &format!("the body is incomplete or larger than {BODY_BYTES_MAX} bytes"),
            None,
            None,
        )
    }

    /// The failure that a script asks for.
    pub(crate) fn scripted(failure: &Failure) -> ApiError {
        let code = failure.status.get();
        let status = StatusCode::from_u16(code).expect("400 to 599 are status codes");
        let (kind, error_code, message) = match code {
            401 => ("invalid_request_error", Some("invalid_api_key"), "incorrect API key provided"),
            429 => ("requests", Some("rate_limit_exceeded"), "rate limit reached for requests"),
            503 => ("server_error", None, "the engine is currently overloaded, please try again later"),
            500..=599 => ("server_error", None, "the server had an error while processing your request"),
            _ => ("invalid_request_error", None, "the request was refused"),
        };
        let mut error = ApiError::new(status, kind, message, None, error_code);
        if let Some(body) = &failure.body {
            error.body = body.as_str().as_bytes().to_vec();
        }
        error.retry_after = failure.retry_after.or((code == 429).then_some(1));
        error
    }

    /// Returns the error JSON.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Answers the request with the error.
    pub(crate) fn into_response(self, ticket: Ticket) -> Response {
        let request_id = request_id(&ticket);
        let mut response = Response::new(axum::body::Body::new(AnswerBody::whole(ticket, self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_REQUEST_ID, request_id);
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn new(
        status: StatusCode,
        kind: &'static str,
        message: &str,
        param: Option<&'static str>,
        code: Option<&'static str>,
    ) -> ApiError {
        let envelope = Envelope { error: Details { message, kind, param, code } };
        ApiError {
            status,
            retry_after: None,
            body: serde_json::to_vec(&envelope).expect("the envelope has text keys only"),
        }
    }
}

/// The header that names a request in every answer.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Returns the name of a request, unique within the stand-in.
pub(crate) fn request_id(ticket: &Ticket) -> HeaderValue {
    let text = format!("req_{:032x}", ticket.number());
    HeaderValue::try_from(text).expect("hexadecimal digits are valid in a header")
}
