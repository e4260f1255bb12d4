//! Errors in the words of each protocol.
//!
//! OpenAI: `{"error": {"message", "type", "param", "code"}}`; Anthropic:
//! `{"type": "error", "error": {"type", "message"}, "request_id"}`.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::body::AnswerBody;
use crate::script::Failure;
use crate::stand_in::{BODY_BYTES_MAX, Ticket};

/// Whose words an error is told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenAI, whose streams of Chat Completions tell errors as data.
    OpenAi,
    /// OpenAI, whose streams of Responses tell errors as an event of their own.
    OpenAiEvents,
    /// Anthropic.
    Anthropic,
}

/// An error answer.
#[derive(Debug)]
pub(crate) struct ApiError {
    dialect: Dialect,
    status: StatusCode,
    retry_after: Option<u32>,
    body: Vec<u8>,
    /// What an event tells in the middle of a stream.
    event: Vec<u8>,
}

impl ApiError {
    /// 400: the request is not what the protocol asks for.
    pub(crate) fn invalid_request(
        dialect: Dialect,
        message: &str,
        param: Option<&'static str>,
        code: Option<&'static str>,
    ) -> ApiError {
        ApiError::new(dialect, StatusCode::BAD_REQUEST, "invalid_request_error", message, param, code)
    }

    /// 401: no key.
    pub(crate) fn key_missing(dialect: Dialect) -> ApiError {
        let (kind, message) = match dialect {
            Dialect::OpenAi | Dialect::OpenAiEvents => (
                "invalid_request_error",
                "no API key was provided; hint: send it as `Authorization: Bearer KEY`",
            ),
            Dialect::Anthropic => {
                ("authentication_error", "no API key was provided; hint: send it as `x-api-key: KEY`")
            }
        };
        ApiError::new(dialect, StatusCode::UNAUTHORIZED, kind, message, None, None)
    }

    /// 404: the script lists models, and this is none of them.
    pub(crate) fn unknown_model(dialect: Dialect, model: &str) -> ApiError {
        let (kind, message) = match dialect {
            Dialect::OpenAi | Dialect::OpenAiEvents => (
                "invalid_request_error",
                format!("the model `{model}` does not exist or you do not have access to it"),
            ),
            Dialect::Anthropic => ("not_found_error", format!("model: {model}")),
        };
        ApiError::new(dialect, StatusCode::NOT_FOUND, kind, &message, None, Some("model_not_found"))
    }

    /// 404: no such path.
    pub(crate) fn unknown_path(request: &str) -> ApiError {
        let message = format!("invalid URL ({request})");
        let kind = "invalid_request_error";
        ApiError::new(Dialect::OpenAi, StatusCode::NOT_FOUND, kind, &message, None, Some("unknown_url"))
    }

    /// 405: the path exists, under another method.
    pub(crate) fn wrong_method(request: &str) -> ApiError {
        ApiError::new(
            Dialect::OpenAi,
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            &format!("method not allowed ({request})"),
            None,
            Some("method_not_supported"),
        )
    }

    /// 413: the body is too large, or broke off.
    pub(crate) fn body_unreadable(dialect: Dialect) -> ApiError {
        let kind = match dialect {
            Dialect::OpenAi | Dialect::OpenAiEvents => "invalid_request_error",
            Dialect::Anthropic => "request_too_large",
        };
        let message = format!("the body is incomplete or larger than {BODY_BYTES_MAX} bytes");
        ApiError::new(dialect, StatusCode::PAYLOAD_TOO_LARGE, kind, &message, None, None)
    }

    /// The failure that a script asks for.
    pub(crate) fn scripted(dialect: Dialect, failure: &Failure) -> ApiError {
        let number = failure.status.get();
        let status = StatusCode::from_u16(number).expect("400 to 599 are status codes");
        let (kind, code, message) = match dialect {
            Dialect::OpenAi | Dialect::OpenAiEvents => openai_words(number),
            Dialect::Anthropic => anthropic_words(number),
        };
        let mut error = ApiError::new(dialect, status, kind, message, None, code);
        if let Some(body) = &failure.body {
            error.body = body.as_str().as_bytes().to_vec();
            error.event = error.body.clone();
        }
        error.retry_after = failure.retry_after.or((number == 429).then_some(1));
        error
    }

    /// Returns the error JSON as an event in the middle of a stream tells it.
    pub(crate) fn event(&self) -> &[u8] {
        &self.event
    }

    /// Answers the request with the error.
    pub(crate) fn into_response(self, ticket: Ticket) -> Response {
        let (name, id) = request_id(&ticket, self.dialect);
        let mut response = Response::new(axum::body::Body::new(AnswerBody::whole(ticket, self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(name, id);
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn new(
        dialect: Dialect,
        status: StatusCode,
        kind: &'static str,
        message: &str,
        param: Option<&'static str>,
        code: Option<&'static str>,
    ) -> ApiError {
        let openai = json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
        let (body, event) = match dialect {
            Dialect::OpenAi => (openai.clone(), openai),
            Dialect::OpenAiEvents => {
                let code = code.unwrap_or(kind);
                (openai, json!({"type": "error", "code": code, "message": message, "param": param}))
            }
            Dialect::Anthropic => {
                let error = json!({"type": "error", "error": {"type": kind, "message": message}});
                (error.clone(), error)
            }
        };
        ApiError {
            dialect,
            status,
            retry_after: None,
            body: body.to_string().into_bytes(),
            event: event.to_string().into_bytes(),
        }
    }
}

type Words = (&'static str, Option<&'static str>, &'static str);

fn openai_words(status: u16) -> Words {
    match status {
        401 => ("invalid_request_error", Some("invalid_api_key"), "incorrect API key provided"),
        429 => ("requests", Some("rate_limit_exceeded"), "rate limit reached for requests"),
        503 => ("server_error", None, "the engine is currently overloaded, please try again later"),
        500..=599 => ("server_error", None, "the server had an error while processing your request"),
        _ => ("invalid_request_error", None, "the request was refused"),
    }
}

fn anthropic_words(status: u16) -> Words {
    match status {
        401 => ("authentication_error", None, "invalid x-api-key"),
        403 => ("permission_error", None, "the key may not use this"),
        404 => ("not_found_error", None, "not found"),
        413 => ("request_too_large", None, "the request is too large"),
        429 => ("rate_limit_error", None, "the number of requests exceeds the rate limit"),
        504 => ("timeout_error", None, "the request took too long"),
        529 => ("overloaded_error", None, "Overloaded"),
        500..=599 => ("api_error", None, "Internal server error"),
        _ => ("invalid_request_error", None, "the request was refused"),
    }
}

/// Returns the header that names a request, with a name that is unique within the stand-in.
pub(crate) fn request_id(ticket: &Ticket, dialect: Dialect) -> (HeaderName, HeaderValue) {
    let name = match dialect {
        Dialect::OpenAi | Dialect::OpenAiEvents => HeaderName::from_static("x-request-id"),
        Dialect::Anthropic => HeaderName::from_static("request-id"),
    };
    let text = format!("req_{:032x}", ticket.number());
    (name, HeaderValue::try_from(text).expect("hexadecimal digits are valid in a header"))
}
