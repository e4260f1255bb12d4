//! OpenFeature Remote Evaluation (OFREP 0.3): every pack is a flag, and so is every prompt of it.
//!
//! An evaluation pins the session exactly as resolving does, and counts as its contact. The value carries the
//! version and the parameters; the text of a prompt is filled in for callers that may read prompts, one flag at a
//! time, where the context brings `variables`.

mod cors;
mod stream;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use serin_core::access::Scope;
use serin_core::ids::{PackName, PromptName, SessionKey};
use serin_core::routing::{Reason, Turn};

pub(super) use self::cors::cors;
pub use self::cors::{InvalidOrigin, Origin};
use self::stream::stand;
pub(super) use self::stream::{__path_changes, changes};
use super::App;
use super::caller::AppScope;
use super::read::{SMALL_BODY, bytes, told};
use super::types::{
    OfrepBulk, OfrepEndpoint, OfrepErrorCode, OfrepEventStream, OfrepFailure, OfrepFlag, OfrepMetadata,
    OfrepReason, OfrepRequest, OfrepValue,
};

use crate::resolve::{ResolveError, Resolved, Visit};
use crate::snapshot::PackSnapshot;

/// Where changes are told.
const EVENTS: &str = "/ofrep/v1/events";
/// Seconds after which a client in the background should leave the stream of changes.
const INACTIVITY_SECONDS: u32 = 120;
/// Readers of the stream of changes at most.
const MOST_STREAMS: usize = 1_000;

/// What evaluating flags needs besides the packs.
#[derive(Debug)]
pub struct Ofrep {
    /// Whether values carry the text of prompts.
    prompt_text: PromptText,
    /// The web pages that may ask.
    origins: Vec<Origin>,
    /// The places for readers of the stream of changes.
    streams: std::sync::Arc<tokio::sync::Semaphore>,
}

/// Whether values carry the text of prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptText {
    /// Filled in, for contexts with `variables`.
    Filled,
    /// Never.
    Withheld,
}

impl Ofrep {
    /// Evaluates for callers that may or may not read prompts, and for pages of these origins.
    pub fn new(prompt_text: PromptText, origins: Vec<Origin>) -> Self {
        Self { prompt_text, origins, streams: std::sync::Arc::new(tokio::sync::Semaphore::new(MOST_STREAMS)) }
    }
}

/// Evaluates one flag, and pins the session as resolving does.
///
/// The key is the name of a pack, or `pack.prompt`. With `data.ofrepPromptText` and `variables` in the context, the
/// value of a prompt carries its text as `system`.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags/{key}", tag = "data plane", request_body = OfrepRequest,
    params(("key" = String, Path, description = "`pack` or `pack.prompt`.")),
    responses(
        (status = 200, description = "The version as a flag.", body = OfrepFlag),
        (status = 400, description = "The body or the context cannot be used.", body = OfrepFailure),
        (status = 404, description = "There is no such pack or prompt.", body = OfrepFailure),
    ),
)]
pub(super) async fn flag(
    State(app): State<App>,
    AppScope(scope): AppScope,
    Path(key): Path<String>,
    request: Request<Body>,
) -> Response {
    match evaluate(&app, &scope, &key, request).await {
        Ok(flag) => flag,
        Err(failed) => failed.told(Some(key)),
    }
}

/// Evaluates all flags, and pins the session in every pack.
///
/// `If-None-Match` with the `ETag` of an earlier answer gets 304 while nothing has changed. `eventStreams` says where
/// changes are told. The text of prompts is never part of this answer.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags", tag = "data plane", request_body = OfrepRequest,
    responses(
        (status = 200, description = "Every pack and prompt as a flag.", body = OfrepBulk),
        (status = 304, description = "The flags are those of the `ETag`."),
        (status = 400, description = "The body or the context cannot be used.", body = OfrepFailure),
    ),
)]
pub(super) async fn flags(
    State(app): State<App>,
    AppScope(scope): AppScope,
    request: Request<Body>,
) -> Response {
    let (head, body) = request.into_parts();
    match evaluate_all(&app, &scope, &head.headers, body).await {
        Ok(flags) => flags,
        Err(failed) => failed.told(None),
    }
}

/// Why an evaluation failed.
struct Failed {
    status: StatusCode,
    code: OfrepErrorCode,
    details: String,
}

impl Failed {
    fn new(status: StatusCode, code: OfrepErrorCode, details: impl Display) -> Self {
        Self { status, code, details: details.to_string() }
    }

    fn context(details: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, OfrepErrorCode::InvalidContext, details)
    }

    fn not_found(details: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, OfrepErrorCode::FlagNotFound, details)
    }

    fn told(self, key: Option<String>) -> Response {
        let Self { status, code, details } = self;
        let key = key.map(|key| key.chars().take(200).collect());
        (status, Json(OfrepFailure { key, error_code: code, error_details: details })).into_response()
    }
}

impl From<ResolveError> for Failed {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::UnknownPack(_) | ResolveError::UnknownVersion { .. } => Self::not_found(error),
        }
    }
}

/// Who is asked about.
struct Context {
    session: SessionKey,
    attributes: Map<String, Value>,
}

impl Context {
    async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Failed> {
        let unreadable =
            |details: String| Failed::new(StatusCode::BAD_REQUEST, OfrepErrorCode::ParseError, details);
        let missing = || {
            Failed::new(
                StatusCode::BAD_REQUEST,
                OfrepErrorCode::TargetingKeyMissing,
                "the context has no targetingKey: it names the session, which keeps its version",
            )
        };
        let bytes = bytes(headers, body, SMALL_BODY).await.map_err(|error| {
            let (status, detail) = error.brief();
            Failed::new(status, OfrepErrorCode::General, detail)
        })?;
        let body: Value = serde_json::from_slice(&bytes)
            .map_err(|error| unreadable(format!("could not read the body as JSON: {error}")))?;
        let Value::Object(mut body) = body else {
            return Err(unreadable("the body is no JSON object such as {\"context\": {…}}".to_owned()));
        };
        let mut context = match body.remove("context") {
            Some(Value::Object(context)) => context,
            Some(Value::Null) | None => return Err(missing()),
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                return Err(Failed::context("the context is no JSON object"));
            }
        };
        let key = match context.remove("targetingKey") {
            Some(Value::String(key)) if !key.is_empty() => key,
            Some(Value::String(_) | Value::Null) | None => return Err(missing()),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                return Err(Failed::context("targetingKey is no text"));
            }
        };
        let session =
            SessionKey::parse(&key).map_err(|error| Failed::context(format!("targetingKey: {error}")))?;
        Ok(Self { session, attributes: context })
    }

    /// The values of the prompt's variables; nothing where the context brings none.
    fn variables(&self) -> Result<Option<BTreeMap<String, Value>>, Failed> {
        match self.attributes.get("variables") {
            Some(Value::Object(variables)) => Ok(Some(variables.clone().into_iter().collect())),
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                Err(Failed::context("variables is no JSON object"))
            }
        }
    }

    /// The version of the session, pinned.
    async fn resolve(&self, app: &App, pack: &PackSnapshot) -> Result<Evaluated, ResolveError> {
        let visit = Visit {
            pack: &pack.name,
            session: Some(&self.session),
            own_key: &|| app.ids.session(),
            segment: pack.segment_of(&self.attributes),
            turn: Turn::User,
            version: None,
        };
        let resolved = app.resolver().resolve(visit).await?;
        Ok(Evaluated { version: resolved.version.to_string(), resolved })
    }
}

/// One flag as an answer.
async fn evaluate(app: &App, scope: &Scope, key: &str, request: Request<Body>) -> Result<Response, Failed> {
    let (head, body) = request.into_parts();
    let context = Context::read(&head.headers, body).await?;
    let (pack, prompt) = match key.split_once('.') {
        Some((pack, prompt)) => (pack, Some(prompt)),
        None => (key, None),
    };
    let name = PackName::parse(pack).ok();
    if name.as_ref().is_some_and(|name| !scope.allows(name)) {
        let details = format!("the key is for {scope} only, not for {pack}");
        return Err(Failed::new(StatusCode::FORBIDDEN, OfrepErrorCode::General, details));
    }
    let snapshot = app.resolver().snapshot();
    let found = name.and_then(|name| snapshot.packs.get(&name));
    let Some(found) = found else {
        let pack: String = pack.chars().take(80).collect();
        return Err(Failed::not_found(format!("pack {pack:?} does not exist")));
    };
    // What cannot be found in any version costs no pin.
    let prompt = match prompt {
        Some(prompt) => Some(known_prompt(found, prompt)?),
        None => None,
    };
    let variables = context.variables()?;
    let evaluated = context.resolve(app, found).await?;
    let Some(prompt) = prompt else { return Ok(told(&evaluated.pack_flag())) };
    let resolved = &evaluated.resolved;
    let mut flag = evaluated.prompt_flag(&prompt).ok_or_else(|| {
        Failed::not_found(format!("{} {} has no prompt {prompt}", resolved.pack.name, resolved.version))
    })?;
    match (variables, app.ofrep.prompt_text) {
        (None, _) => {}
        (Some(_), PromptText::Withheld) => {
            flag.metadata.prompt_text = Some("withheld");
        }
        (Some(variables), PromptText::Filled) => {
            let prompts = resolved.prompts().expect("a prompt that was found belongs to prompts");
            let rendered = prompts.render(&prompt, None, &variables).map_err(Failed::context)?;
            flag.value.system = Some(rendered.system);
        }
    }
    Ok(told(&flag))
}

/// A prompt that some version of the pack has.
fn known_prompt(pack: &PackSnapshot, name: &str) -> Result<PromptName, Failed> {
    let known = PromptName::parse(name)
        .ok()
        .filter(|name| pack.prompts.values().any(|prompts| prompts.prompts().contains_key(name)));
    known.ok_or_else(|| {
        let name: String = name.chars().take(80).collect();
        Failed::not_found(format!("pack {} has no prompt {name:?}", pack.name))
    })
}

/// All flags as an answer.
async fn evaluate_all(app: &App, scope: &Scope, headers: &HeaderMap, body: Body) -> Result<Response, Failed> {
    let context = Context::read(headers, body).await?;
    let snapshot = app.resolver().snapshot();
    let stand = stand(&snapshot);
    let mut all = Vec::new();
    for pack in snapshot.packs.values().filter(|pack| scope.allows(&pack.name)) {
        all.push(context.resolve(app, pack).await?);
    }
    let mut flags = Vec::new();
    for evaluated in &all {
        flags.push(evaluated.pack_flag());
        flags.extend(evaluated.prompts().filter_map(|prompt| evaluated.prompt_flag(prompt)));
    }
    // What changes before the client listens is told as soon as it does.
    let since = stand.map(|stand| format!("?since={stand}")).unwrap_or_default();
    let stream = OfrepEventStream {
        kind: "sse",
        endpoint: OfrepEndpoint { request_uri: format!("{EVENTS}{since}") },
        inactivity_delay_sec: INACTIVITY_SECONDS,
    };
    let bulk = OfrepBulk { flags, metadata: BTreeMap::new(), event_streams: vec![stream] };
    Ok(conditional(headers, &bulk))
}

/// All flags, or 304 where the caller has them already.
fn conditional(headers: &HeaderMap, bulk: &OfrepBulk<'_>) -> Response {
    let flags = serde_json::to_vec(&bulk.flags).expect("flags are JSON");
    let etag = format!("\"{}\"", &blake3::hash(&flags).to_hex()[..32]);
    let given = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let has_them = given
        .flat_map(|list| list.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == etag || tag == "*");
    let etag = [(ETAG, HeaderValue::try_from(etag).expect("hexadecimal digits fit into a header"))];
    if has_them {
        return (StatusCode::NOT_MODIFIED, etag).into_response();
    }
    (etag, Json(bulk)).into_response()
}

/// The version of a session, and its text.
struct Evaluated {
    resolved: Resolved,
    version: String,
}

impl Evaluated {
    /// The flag of the pack: which version the session gets.
    fn pack_flag(&self) -> OfrepFlag<'_> {
        let prompts = self.prompts().map(PromptName::as_str).collect();
        let value = OfrepValue { prompts: Some(prompts), ..self.value() };
        self.flag(Cow::Borrowed(self.resolved.pack.name.as_str()), value)
    }

    /// The flag of a prompt; nothing where the version has no such prompt.
    fn prompt_flag<'a>(&'a self, name: &'a PromptName) -> Option<OfrepFlag<'a>> {
        let pack = self.resolved.prompts()?;
        let prompt = pack.prompts().get(name)?;
        let value = OfrepValue {
            model: pack.model(),
            parameters: Some(prompt.parameters(pack.model())),
            prompt: Some(name.as_str()),
            ..self.value()
        };
        Some(self.flag(Cow::Owned(format!("{}.{name}", self.resolved.pack.name)), value))
    }

    /// The prompts of the version.
    fn prompts(&self) -> impl Iterator<Item = &PromptName> {
        self.resolved.prompts().into_iter().flat_map(|prompts| prompts.prompts().keys())
    }

    /// What the values of a pack and of its prompts have in common.
    fn value(&self) -> OfrepValue<'_> {
        OfrepValue {
            model: None,
            pack: self.resolved.pack.name.as_str(),
            parameters: None,
            prompt: None,
            prompts: None,
            system: None,
            variant: self.resolved.cohort.variant.into(),
            version: &self.version,
        }
    }

    /// What stays the same for as long as the session keeps its version, so that an `ETag` holds that long.
    fn flag<'a>(&'a self, key: Cow<'a, str>, value: OfrepValue<'a>) -> OfrepFlag<'a> {
        let rollout = self.resolved.cohort.of_rollout().map(|stamp| stamp.rollout.as_str());
        let metadata = OfrepMetadata { prompt_text: None, rollout, variant: value.variant };
        OfrepFlag { key, reason: reason(&self.resolved), variant: value.version, value, metadata }
    }
}

/// Why the session got its version in the first place: OpenFeature has no word for a session that keeps it.
fn reason(resolved: &Resolved) -> OfrepReason {
    match resolved.reason {
        Reason::Static => OfrepReason::Static,
        Reason::Split => OfrepReason::Split,
        Reason::TargetingMatch => OfrepReason::TargetingMatch,
        Reason::Disabled => OfrepReason::Disabled,
        Reason::Pinned => match (resolved.cohort.of_rollout(), &resolved.pack.route.split) {
            (None, _) => OfrepReason::Static,
            (Some(stamp), Some(split))
                if split.rollout == stamp.rollout
                    && usize::from(stamp.segment) + 1 < split.segments.len() =>
            {
                OfrepReason::TargetingMatch
            }
            (Some(_), _) => OfrepReason::Split,
        },
    }
}
