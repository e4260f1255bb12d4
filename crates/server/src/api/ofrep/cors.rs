//! Which web pages may ask for flags: browsers want to be told.

use std::fmt;

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::App;

/// The origin of web pages, such as `https://app.example`, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// A text that is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no origin such as https://app.example, and not *")]
pub struct InvalidOrigin;

impl Origin {
    /// Reads a scheme and an authority without a path, or `*`.
    ///
    /// # Errors
    /// [`InvalidOrigin`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidOrigin> {
        let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_origin = authority.is_some_and(|authority| {
            !authority.is_empty()
                && authority.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c))
        });
        if text == "*" || is_origin {
            HeaderValue::try_from(text).map(Self).map_err(|_| InvalidOrigin)
        } else {
            Err(InvalidOrigin)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// Answers the question that a browser asks first, and tells it which answers a page may read.
pub(in crate::api) async fn cors(app: &App, request: Request<Body>, next: Next) -> Response {
    if !request.uri().path().starts_with("/ofrep/") {
        return next.run(request).await;
    }
    let given = request.headers().get(ORIGIN).cloned();
    let allowed = given.filter(|given| app.ofrep.origins.iter().any(|own| own.0 == "*" || own.0 == given));
    let mut response = match (request.method() == Method::OPTIONS, &allowed) {
        (true, Some(_)) => StatusCode::NO_CONTENT.into_response(),
        (true | false, _) => next.run(request).await,
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        for (name, value) in [
            (VARY, "origin"),
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
            (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, if-none-match, last-event-id"),
            (ACCESS_CONTROL_EXPOSE_HEADERS, "etag, retry-after"),
            (ACCESS_CONTROL_MAX_AGE, "600"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_no_path() {
        for right in ["https://app.example", "http://localhost:3000", "http://[::1]:80", "*"] {
            assert_eq!(Origin::parse(right).map(|origin| origin.to_string()), Ok(right.to_owned()));
        }
        for wrong in ["", "app.example", "https://", "https://app.example/", "https://a b", "ftp://a", "null"]
        {
            assert_eq!(Origin::parse(wrong), Err(InvalidOrigin), "{wrong}");
        }
    }
}
