//! What goes wrong, told as RFC 9457 has it: the kind, what was tried with what, and what to do.
//!
//! **Invariant:** an answer never carries the message of an inner error; that is logged once, here.

use std::error::Error;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serin_core::ids::PackName;
use serin_core::metric::nearest;
use serin_core::publish;

use super::types::{ContentChange, FieldProblem, ProblemDetails};
use crate::auth::{KeyError, NewKeyProblem};
use crate::control::apply::ApplyError;
use crate::control::order::OrderError;
use crate::control::policy::Broken;
use crate::control::{LoadError, NotCommitted};
use crate::errors::Chain;
use crate::gateway::{Refusal, provider_hint};
use crate::ingest::ReportError;
use crate::resolve::ResolveError;
use crate::store::StoreError;

/// The media type of problem details.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not done.
#[derive(Debug)]
pub struct ApiError(Box<ProblemDetails>);

impl ApiError {
    fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(ProblemDetails {
            kind: format!("urn:serin:problem:{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: Some(detail.into()),
            instance: None,
            hint: None,
            retry_after: None,
            problems: Vec::new(),
            diff: Vec::new(),
        }))
    }

    /// 400: the request cannot be read.
    pub fn bad_request(kind: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, kind, "the request cannot be read", detail)
    }

    /// 401: no key, or one that is not known here.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "a key is needed", detail)
    }

    /// 403: the caller may not do this, or not from where the request comes.
    pub fn forbidden(kind: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, kind, "not allowed", detail)
    }

    /// The same as the gateway tells it to clients of a provider.
    pub(super) fn refusal(&self) -> Refusal {
        let problem = &self.0;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = match status {
            StatusCode::UNAUTHORIZED => "invalid_api_key",
            _ => "not_permitted",
        };
        let detail = problem.detail.as_deref().unwrap_or(&problem.title);
        let message = match &problem.hint {
            Some(hint) => format!("{detail}; hint: {hint}"),
            None => detail.to_owned(),
        };
        Refusal::new(status, code, message)
    }

    /// 404: what is asked for does not exist.
    pub fn not_found(kind: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind, "not found", detail)
    }

    /// 404 for a pack, with the name that was perhaps meant.
    pub fn unknown_pack(given: &str, known: &[PackName]) -> Self {
        let given: String = given.chars().take(80).collect();
        let hint = match nearest(&given, known.iter().map(PackName::as_str)) {
            Some(name) => format!("did you mean {name}?"),
            None if known.is_empty() => "there is no pack yet: apply a first manifest".to_owned(),
            None => "`GET /api/v1/packs` lists all packs".to_owned(),
        };
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown-pack",
            "not found",
            format!("pack {given:?} does not exist"),
        )
        .hint(hint)
    }

    /// 405: the path exists, but not for this method.
    pub fn method_not_allowed(method: &str) -> Self {
        let detail = format!("{method} is not possible on this path");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "the method does not fit", detail)
            .hint("`/api/openapi.json` on the control plane describes every path")
    }

    /// 409: it cannot be done as things stand.
    pub fn conflict(kind: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, kind, "not as things stand", detail)
    }

    /// 408: the body did not come in time.
    pub fn too_slow(within: Duration) -> Self {
        let detail = format!("the body did not arrive within {} s", within.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "the request took too long", detail)
    }

    /// 429: whoever asks has asked too often.
    pub fn too_many_requests(who: &str, per_minute: u32, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let detail = format!("{who} may send {per_minute} requests a minute; one more passes in {seconds} s");
        let mut told =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "too many requests", detail)
                .hint("send fewer, or raise `maxRequestsPerMinute` in the settings");
        told.0.retry_after = Some(seconds.max(1));
        told
    }

    /// 413: the body is larger than allowed.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the request is too large", detail)
    }

    /// 415: the body is in a form that is not read here.
    pub fn unsupported_media(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "the form of the body is unknown",
            detail,
        )
    }

    /// 422: the request can be read, but says what cannot be.
    pub fn unprocessable(kind: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, kind, "the content cannot be used", detail)
    }

    /// 503: it could be done, but not now.
    pub fn unavailable(kind: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, "not possible at the moment", detail)
    }

    /// 503 because the store fails; why is logged.
    pub fn store(error: &dyn Error) -> Self {
        tracing::error!(error = %Chain(error), "the store failed a request: {}", Chain(error));
        Self::unavailable("store-unavailable", "the store does not answer; nothing was changed")
            .hint("try again; `/readyz` tells when the store is back, prompts are served meanwhile")
    }

    /// 500; why is logged.
    pub fn internal(error: &dyn Error) -> Self {
        tracing::error!(error = %Chain(error), "a request failed: {}", Chain(error));
        let detail = "the server could not do this; its log tells why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "an error of the server's own", detail)
    }

    /// The same with what the caller can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Status and detail, for answers that have a form of their own for errors.
    pub(super) fn brief(&self) -> (StatusCode, String) {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, self.0.detail.clone().unwrap_or_else(|| self.0.title.clone()))
    }

    /// The same with every rule of the policy that is not kept.
    fn broken(self, broken: &Broken) -> Self {
        self.problems(broken.0.iter().map(FieldProblem::from).collect()).hint(
            "keep the rules; somebody with the permission override_policy may set them aside with a reason, which is recorded",
        )
    }

    /// The same with everything that is wrong.
    #[must_use]
    pub(super) fn problems(mut self, problems: Vec<FieldProblem>) -> Self {
        self.0.problems = problems;
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = render(&self.0);
        response.extensions_mut().insert(Told(self.0));
        response
    }
}

/// A problem that was told, so that the path can be added on the way out.
#[derive(Debug, Clone)]
struct Told(Box<ProblemDetails>);

/// Adds the path that was asked for to a problem.
pub(super) fn with_instance(response: Response, path: &str) -> Response {
    match response.extensions().get::<Told>() {
        Some(Told(problem)) => {
            let problem =
                ProblemDetails { instance: Some(path.to_owned()), ..ProblemDetails::clone(problem) };
            render(&problem)
        }
        None => response,
    }
}

fn render(problem: &ProblemDetails) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = serde_json::to_vec(problem).expect("text and numbers are JSON");
    let mut response = (status, json).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let retry_after = problem.retry_after;
    if let Some(seconds) = retry_after.or((status == StatusCode::SERVICE_UNAVAILABLE).then_some(1)) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::store(&error)
    }
}

impl From<LoadError> for ApiError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Store(error) => Self::store(&error),
            error @ (LoadError::Manifest { .. } | LoadError::Journal { .. }) => Self::internal(&error),
        }
    }
}

impl From<NotCommitted> for ApiError {
    fn from(error: NotCommitted) -> Self {
        match error {
            NotCommitted::Conflict(_) => Self::conflict("changed-meanwhile", error.to_string())
                .hint("look at the pack as it is now, then try again"),
            NotCommitted::PutOff(_) => {
                Self::unavailable("put-off", error.to_string()).hint("try again in a moment")
            }
            NotCommitted::Store(error) => Self::store(&error),
            NotCommitted::Load(error) => error.into(),
            error @ NotCommitted::Invariant(_) => Self::internal(&error),
        }
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        let wrong = |kind, what: &str, count: usize| {
            let s = if count == 1 { "" } else { "s" };
            Self::unprocessable(kind, format!("the {what} has {count} problem{s}; nothing was changed"))
        };
        match error {
            ApplyError::Manifest(problems) => {
                let problems: Vec<FieldProblem> = problems.list().iter().map(FieldProblem::from).collect();
                wrong("manifest", "manifest", problems.len()).problems(problems)
            }
            ApplyError::Pack(problems) => {
                let problems: Vec<FieldProblem> = problems.iter().map(FieldProblem::from).collect();
                wrong("pack", "pack in spec.source", problems.len()).problems(problems)
            }
            ApplyError::SourceIsPath(_) => Self::unprocessable("source-is-path", error.to_string())
                .hint("`serin apply -f` puts the file into `spec.source.inline`"),
            ApplyError::OtherPack { .. } => Self::unprocessable("other-pack", error.to_string())
                .hint("give the pack file and the manifest the same id and version"),
            ApplyError::UnknownProvider { ref provider, ref known } => {
                let hint = provider_hint(provider.as_str(), known.iter());
                Self::unprocessable("unknown-provider", error.to_string())
                    .hint(format!("{hint}; `providers` in the settings of the server names them"))
            }
            ApplyError::UnknownJudge { ref provider, ref known, .. } => {
                let hint = provider_hint(provider.as_str(), known.iter());
                Self::unprocessable("unknown-provider", error.to_string())
                    .hint(format!("{hint}; `providers` in the settings of the server names them"))
            }
            ApplyError::Refused { refused, diff } => {
                let kind = match refused {
                    publish::Refused::ContentDiffers(_) => "content-differs",
                    publish::Refused::PlanDiffers(_) => "plan-differs",
                };
                let mut told = Self::conflict(kind, refused.to_string()).hint(refused.hint());
                told.0.diff = diff.iter().map(ContentChange::from).collect();
                told
            }
            ApplyError::OutOfScope { .. } => Self::forbidden("other-pack", error.to_string())
                .hint("ask for a key that is made for this pack too"),
            ApplyError::Policy(broken) => broken.into(),
            ApplyError::NotCommitted(error) => error.into(),
            ApplyError::Load(error) => error.into(),
            ApplyError::Store(error) => error.into(),
        }
    }
}

impl From<Broken> for ApiError {
    fn from(broken: Broken) -> Self {
        Self::unprocessable("policy", broken.to_string()).broken(&broken)
    }
}

impl From<OrderError> for ApiError {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Policy(broken) => Self::forbidden("policy", broken.to_string()).broken(&broken),
            OrderError::UnknownPack(pack) => Self::unknown_pack(pack.as_str(), &[]),
            OrderError::Refused(refused) => {
                let pack_state = "look at `orders` of the pack: it names what may be ordered right now";
                Self::conflict("refused", refused.to_string()).hint(pack_state)
            }
            OrderError::NotCommitted(error) => error.into(),
            OrderError::Load(error) => error.into(),
        }
    }
}

impl From<ResolveError> for ApiError {
    fn from(error: ResolveError) -> Self {
        match &error {
            ResolveError::UnknownPack(_) => Self::not_found("unknown-pack", error.to_string())
                .hint("apply its manifest first, or check the name"),
            ResolveError::UnknownVersion { .. } => Self::not_found("unknown-version", error.to_string())
                .hint("name a version that is being served"),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        match &error {
            KeyError::Unknown(_) => Self::not_found("unknown-key", error.to_string())
                .hint("`GET /api/v1/keys` and `serin key list` list all keys"),
            KeyError::Taken(_) => Self::conflict("key-exists", error.to_string())
                .hint("choose another name, or revoke that key first"),
            KeyError::OfSettings(_) => Self::conflict("key-of-settings", error.to_string())
                .hint("remove it from `control.keys` and start the server anew"),
            KeyError::Last(_) => Self::conflict("last-key", error.to_string())
                .hint("make another key with the role admin first"),
            KeyError::TooMany => {
                Self::conflict("too-many-keys", error.to_string()).hint("revoke keys that nobody uses")
            }
            KeyError::Store(error) => Self::store(error),
        }
    }
}

impl From<NewKeyProblem> for ApiError {
    fn from(problem: NewKeyProblem) -> Self {
        Self::unprocessable("key", problem.to_string())
    }
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Store(_) => Self::store(&error),
            ReportError::Busy => Self::unavailable("busy", error.to_string())
                .hint("send the same events again; an id counts once"),
            ReportError::Stopping => Self::unavailable("stopping", error.to_string())
                .hint("send the same events again; an id counts once"),
        }
    }
}
