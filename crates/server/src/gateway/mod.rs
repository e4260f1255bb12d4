//! The data plane: requests to models get their prompt, everything else passes through.
//!
//! **Invariant:** the gateway reads one snapshot and the pin table, and waits for nothing but the provider.
//!
//! ```text
//! request -> prompt, session, attributes -> resolve -> render -> splice -> provider
//! answer  <- frames unchanged            <- tap -> one fact, when the answer has ended
//! ```

mod answer;
mod answer_body;
mod answered;
mod ask;
mod body;
mod connections;
mod continuations;
mod http1;
mod identity;
mod json;
mod messages;
mod observer;
mod prices;
mod protocol;
mod refusal;
mod request;
mod settings;
mod shared;
mod slots;
mod splice;
mod sse;
mod tap;
mod tools;
mod transcript;
mod upstream;
mod upstreams;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, request as http_request};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use serin_core::access::Scope;
use serin_core::ids::{PackName, PromptName, SessionKey, Version};
use serin_core::prompt::{RenderError, Rendered};
use serin_core::routing::Turn;
use tokio::time::Instant;

pub use answered::Answered;
pub use ask::AskError;
pub use connections::Http2;
pub use identity::{ATTRIBUTES, Attributes, SESSION, attributes};
pub use prices::{Price, Prices};
pub use protocol::Protocol;
pub use refusal::Refusal;
pub use request::{PROMPT, VARIABLES, VERSION};
pub use settings::{GatewayCounts, GatewaySettings, Ids, StreamUsage, SystemMessage};
pub use upstream::{BaseUrl, InvalidBaseUrl, Secret, Speaks, Upstream, UpstreamError, UpstreamSettings};
pub use upstreams::{PROVIDER, Upstreams, UpstreamsSettings, hint as provider_hint};

use self::answer::Expected;
use self::answered::Responses;
use self::connections::RequestBody;
use self::continuations::{Continuations, Known, Questions, Trace};
use self::messages::Messages;
use self::observer::{Ending, Link, Observer};
use self::request::{ModelRequest, PromptRef, VariablesSource};
use self::splice::{Additions, splice};
use self::tap::{Tap, Watch};
use self::transcript::Recording;
use self::upstream::SendError;
use crate::auth::Caller;
use crate::resolve::{ResolveError, Resolved, Resolver, Visit};
use crate::samples::{Samples, Subject};
use crate::tool_schema::ToolSchemas;

/// The longest time that the body of a request may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(120);

/// Tells which side of the comparison answered.
pub static VARIANT: HeaderName = HeaderName::from_static("x-serin-variant");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The data plane in front of the providers.
#[derive(Debug)]
pub struct Gateway {
    resolver: Arc<Resolver>,
    upstreams: Upstreams,
    settings: GatewaySettings,
    counts: Arc<GatewayCounts>,
    continuations: Arc<Continuations>,
    responses: Arc<Responses>,
    schemas: ToolSchemas,
}

/// A request that has its version.
struct Served<'r> {
    asked: &'r ModelRequest<'r>,
    prompt: &'r PromptRef,
    messages: Option<Messages>,
    variables: request::Variables,
    resolved: Resolved,
    /// Whether no key names the session, so that it has to be found again by our answer.
    is_unnamed: bool,
}

impl Gateway {
    /// A gateway in front of providers.
    pub fn new(resolver: Arc<Resolver>, upstreams: Upstreams, settings: GatewaySettings) -> Self {
        let counts = Arc::<GatewayCounts>::default();
        let room = settings.most_continuations;
        let continuations = Arc::new(Continuations::with_room(room, Arc::clone(&counts)));
        let responses = Arc::new(Responses::with_room(settings.most_responses, Arc::clone(&counts)));
        Self {
            resolver,
            upstreams,
            settings,
            counts,
            continuations,
            responses,
            schemas: ToolSchemas::default(),
        }
    }

    /// The providers behind it.
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// What it counted so far.
    pub fn counts(&self) -> &GatewayCounts {
        &self.counts
    }

    /// Whose session a response belongs to, by the id that the provider gave it; nothing for one that this process
    /// has not served, or that is forgotten.
    pub fn answered(&self, pack: &PackName, id: &str) -> Option<Answered> {
        self.responses.find(pack, id)
    }

    /// Answers any request of the data plane.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        count(&self.counts.requests);
        let request_id = request.headers().get(&X_REQUEST_ID).cloned();
        let protocol = Protocol::of(request.method(), request.uri().path());
        let answered = match protocol {
            Some(protocol) => self.model(protocol, request).await,
            None => {
                let (parts, body) = request.into_parts();
                self.pass(parts, Either::Right(body)).await
            }
        };
        answered.unwrap_or_else(|refusal| {
            count(&self.counts.refused);
            let mut response = refusal.into_response(protocol);
            if let Some(id) = request_id {
                response.headers_mut().insert(&X_REQUEST_ID, id);
            }
            response
        })
    }

    /// Sends a request on as it came, and its answer back as it comes.
    async fn pass(
        &self,
        mut parts: http_request::Parts,
        body: RequestBody,
    ) -> Result<Response<Body>, Refusal> {
        if let Some(scope) = scope_of(&parts) {
            let message = format!(
                "the key is for {scope} only, and this request names none of its prompts; hint: use a key for all packs"
            );
            return Err(Refusal::new(StatusCode::FORBIDDEN, "not_permitted", message));
        }
        let protocol = Protocol::of(&parts.method, parts.uri.path());
        let upstream = self.upstreams.choose(None, &parts.headers, protocol)?;
        count(&self.counts.passed);
        upstream.address(&mut parts);
        match upstream.send(Request::from_parts(parts, body)).await {
            Ok(answer) => Ok(answer.map(Body::new)),
            Err(error) => Err(self.unanswered(error).1),
        }
    }

    /// A request to a model: with a prompt of ours it is served, without one it passes.
    async fn model(&self, protocol: Protocol, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let in_header = request::prompt_of_headers(&parts.headers)?;
        if is_encoded(&parts.headers) {
            if in_header.is_none() {
                return self.pass(parts, Either::Right(body)).await;
            }
            let message = "the request body is compressed; hint: send it without `content-encoding`";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed_body", message));
        }
        let bytes = self.read(&parts.headers, body).await?;
        let asked = match ModelRequest::scan(protocol, &bytes) {
            Ok(asked) => asked,
            Err(error) if in_header.is_some() => return Err(request::bad_json(&error)),
            // The provider is the one to say what is wrong with a request that is not ours.
            Err(_) => return self.pass(parts, Either::Left(Full::new(bytes.clone()))).await,
        };
        let in_body = asked.prompt(|pack| self.resolver.has_pack(pack));
        let prompt = match (in_header, in_body) {
            (None, None) => return self.pass(parts, Either::Left(Full::new(bytes.clone()))).await,
            (None, Some(in_body)) => in_body,
            (Some(in_header), None) => in_header,
            (Some(in_header), Some(in_body)) => match in_header.variables {
                VariablesSource::None => PromptRef { variables: in_body.variables, ..in_header },
                VariablesSource::Body(_) | VariablesSource::Header => in_header,
            },
        };
        if let Some(scope) = scope_of(&parts).filter(|scope| !scope.allows(&prompt.pack)) {
            let message = format!("the key is for {scope} only, not for {}", prompt.pack);
            return Err(Refusal::new(StatusCode::FORBIDDEN, "not_permitted", message));
        }
        let messages = Messages::of(&asked)?;
        let variables = prompt.variables(&bytes, &parts.headers)?;
        let (resolved, is_unnamed) = self.resolve(&parts.headers, &asked, &prompt, messages.as_ref()).await?;
        let served = Served { asked: &asked, prompt: &prompt, messages, variables, resolved, is_unnamed };
        Ok(self.serve(parts, served, started).await)
    }

    /// Reads the body of a request into memory.
    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
        let limit = self.settings.body_limit;
        let too_large = || {
            let message = format!(
                "the request body is larger than {limit} bytes; hint: send less, or raise `bodyLimit`"
            );
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        };
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let collected = tokio::time::timeout(BODY_WITHIN, Limited::new(body, limit).collect()).await;
        let too_slow = |_| {
            let message = format!("the request body did not arrive within {} s", BODY_WITHIN.as_secs());
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message)
        };
        match collected.map_err(too_slow)? {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if is_length_error(&*error) => Err(too_large()),
            Err(_) => {
                Err(Refusal::bad_request("body_incomplete", "the request body broke off before its end"))
            }
        }
    }

    /// Finds session and segment, and asks which version they get.
    async fn resolve(
        &self,
        headers: &HeaderMap,
        asked: &ModelRequest<'_>,
        prompt: &PromptRef,
        messages: Option<&Messages>,
    ) -> Result<(Resolved, bool), Refusal> {
        let named = self.session(headers, asked)?;
        let is_unnamed = named.is_none();
        let session = named.or_else(|| self.followed(asked, prompt, messages));
        let has_history =
            asked.has_history_at_provider() || messages.is_some_and(|messages| messages.has_history);
        let version = self.version(headers, prompt)?;
        let segment = self.segment(headers, prompt)?;
        let visit = Visit {
            pack: &prompt.pack,
            session: session.as_ref(),
            own_key: &|| self.settings.ids.session(),
            segment,
            turn: messages.map_or(Turn::User, Messages::turn),
            version: version.as_ref(),
        };
        let resolved = self.resolver.resolve(visit).await.map_err(|error| {
            let (code, hint) = match &error {
                ResolveError::UnknownPack(_) => {
                    ("unknown_pack", "apply its manifest first, or check the name")
                }
                ResolveError::UnknownVersion { .. } => {
                    ("unknown_version", "name a version that is being served")
                }
            };
            Refusal::new(StatusCode::NOT_FOUND, code, format!("{error}; hint: {hint}"))
        })?;
        // Of packs that exist: a made-up name is no pack to be counted for.
        if session.is_none() && has_history {
            self.counts.has_no_session(&prompt.pack);
        }
        if version.is_some() {
            count(&self.counts.version_overrides);
        }
        Ok((resolved, is_unnamed))
    }

    /// The session of a request that names none, by the response that it goes on from or our answer inside of it.
    fn followed(
        &self,
        asked: &ModelRequest<'_>,
        prompt: &PromptRef,
        messages: Option<&Messages>,
    ) -> Option<SessionKey> {
        let pack = &prompt.pack;
        let (traces, counter) = match asked.previous_response() {
            Some(id) => (vec![Trace::of_id(pack, &id)], &self.counts.sessions_by_response),
            None => (messages?.traces(asked, pack), &self.counts.sessions_by_answer),
        };
        let Known { key, cohort } = self.continuations.find(&traces)?;
        count(counter);
        // Its first request had no key and made no pin; from now on it is a session like any other.
        self.resolver.resume(pack, &key, cohort);
        Some(key)
    }

    fn price(&self, model: Option<&str>) -> Option<Price> {
        if self.settings.prices.is_empty() {
            return None;
        }
        let price = model.and_then(|model| self.settings.prices.of(model));
        if price.is_none() {
            count(&self.counts.unpriced);
        }
        price
    }

    /// How the session of a request is found again; nothing for one that has a key.
    fn link(&self, served: &Served<'_>) -> Option<Link> {
        let resolved = &served.resolved;
        (served.is_unnamed && resolved.counts).then(|| Link {
            continuations: Arc::clone(&self.continuations),
            pack: Arc::clone(&resolved.pack.name),
            questions: served
                .messages
                .as_ref()
                .map_or_else(Questions::default, |messages| messages.all_questions(served.asked)),
            known: Known { key: resolved.key.clone(), cohort: resolved.cohort.id },
        })
    }

    /// Whether the user asks again what was asked before; nothing when a tool's result came.
    fn repeats(&self, served: &Served<'_>) -> Option<bool> {
        let messages = served.messages.as_ref().filter(|messages| messages.turn() == Turn::User)?;
        if let Some(repeated) = messages.is_repeated(served.asked) {
            return Some(repeated);
        }
        let question = messages.question(served.asked)?;
        Some(self.continuations.is_asked_again(served.resolved.hash, question))
    }

    fn session(&self, headers: &HeaderMap, asked: &ModelRequest<'_>) -> Result<Option<SessionKey>, Refusal> {
        if let Some(session) = identity::session_of_headers(headers, &self.settings.session_headers)? {
            return Ok(Some(session));
        }
        match (asked.session_id(), asked.conversation()) {
            (Some(id), _) => identity::session(&id, "`metadata.session_id`").map(Some),
            (None, Some(id)) => identity::session(&id, "`conversation`").map(Some),
            (None, None) => Ok(identity::session_of_baggage(headers)),
        }
    }

    fn version(&self, headers: &HeaderMap, prompt: &PromptRef) -> Result<Option<Version>, Refusal> {
        let in_header = headers.get(&VERSION).map(|value| value.to_str().unwrap_or("?"));
        let Some(text) = in_header.or(prompt.version.as_deref()) else { return Ok(None) };
        if !self.settings.allow_version_override {
            let message = "the request names a version, which is not allowed here; hint: leave it out";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "version_not_allowed", message));
        }
        let version = Version::parse(text);
        version.map(Some).map_err(|error| Refusal::bad_request("invalid_version", error.to_string()))
    }

    fn segment(&self, headers: &HeaderMap, prompt: &PromptRef) -> Result<usize, Refusal> {
        let snapshot = self.resolver.snapshot();
        let pack = snapshot.packs.get(&prompt.pack).filter(|pack| pack.reads_attributes());
        match pack {
            Some(pack) => Ok(pack.segment_of(&attributes(headers)?)),
            None => {
                // Read all the same: a mistake shall not wait for the first rollout with segments.
                if headers.contains_key(&ATTRIBUTES) {
                    attributes(headers)?;
                }
                Ok(0)
            }
        }
    }

    /// Renders the prompt, sends the request, and hands back the watched answer.
    async fn serve(
        &self,
        mut parts: http_request::Parts,
        served: Served<'_>,
        started: Instant,
    ) -> Response<Body> {
        let resolved = &served.resolved;
        let id = self.settings.ids.text();
        let report_start = self.settings.report_starts;
        let protocol = served.asked.protocol;
        let mut observer =
            Observer::start(&self.resolver, &self.counts, resolved, protocol, started, id, report_start);
        let refused = |refusal: Refusal| {
            count(&self.counts.refused);
            marked(refusal.into_response(Some(protocol)), resolved)
        };
        let (spliced, expected) = match self.spliced(&served) {
            Ok(spliced) => spliced,
            Err(refusal) => {
                observer.end(Ending::NotSent);
                return refused(refusal);
            }
        };
        let of_version = resolved.prompts().and_then(|pack| pack.provider());
        let upstream = match self.upstreams.choose(of_version, &parts.headers, Some(protocol)) {
            Ok(upstream) => upstream,
            Err(refusal) => {
                let is_gone = refusal.status.is_server_error();
                observer.end(if is_gone { Ending::Unreachable } else { Ending::NotSent });
                return refused(refusal);
            }
        };
        observer.expect(expected);
        observer.link(self.link(&served));
        observer.remember_response(&self.responses, resolved);
        observer.repeats(self.repeats(&served));
        if let Some(samples) = &self.settings.samples
            && resolved.counts
            && samples.draws(resolved.hash)
        {
            observer.record(self.recording(samples, &served, observer.id(), &spliced.body));
        }
        upstream.address(&mut parts);
        Upstream::ask_for_identity(&mut parts.headers);
        let request = Request::from_parts(parts, Either::Left(Full::new(spliced.body)));
        let mut answer = match upstream.send(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let (ending, refusal) = self.unanswered(error);
                observer.end(ending);
                return refused(refusal);
            }
        };
        observer.head(answer.status());
        let is_readable = answer.status().is_success() && !is_encoded(answer.headers());
        let watch = match (is_readable, is_event_stream(answer.headers())) {
            (false, _) => Watch::Head,
            (true, false) => Watch::Whole(self.settings.answer_limit),
            (true, true) if spliced.adds_usage => {
                answer.headers_mut().remove(CONTENT_LENGTH);
                Watch::StreamWithoutUsage
            }
            (true, true) => Watch::Stream,
        };
        if answer.status().is_success() && !is_readable {
            observer.unreadable();
        }
        marked(answer.map(|body| Body::new(Tap::new(body, watch, observer))), resolved)
    }

    /// The request as it goes to the provider, and what is expected of its answer.
    fn spliced(&self, served: &Served<'_>) -> Result<(splice::Spliced, Expected), Refusal> {
        let asked = served.asked;
        let model = asked.model();
        let rendered = match served.resolved.prompts() {
            Some(pack) => {
                let name = served.prompt.choose(pack.prompts().keys())?;
                let rendered = pack.render(&name, model.as_deref(), &served.variables);
                Some(rendered.map_err(|error| unrendered(&error))?)
            }
            // The app holds the prompts of a version-only pack.
            None => None,
        };
        let additions = rendered.as_ref().map(|rendered| {
            let Rendered { prompt: _, system, model, parameters, tools, policy } = rendered;
            Additions { system, model: *model, parameters, tools, policy }
        });
        let GatewaySettings { system_message, stream_usage, .. } = self.settings;
        let spliced =
            splice(asked, served.messages.as_ref(), additions.as_ref(), system_message, stream_usage)?;
        self.counts.parameters_left_out.fetch_add(spliced.n_left_out, Ordering::Relaxed);
        self.counts.tools_left_out.fetch_add(spliced.n_tools_left_out, Ordering::Relaxed);
        let mut expected = asked.expected(&self.schemas);
        if let Some(Additions { tools, policy, .. }) = additions {
            expected.offers(tools, policy, &self.schemas);
        }
        expected.price =
            self.price(rendered.as_ref().and_then(|rendered| rendered.model).or(model.as_deref()));
        Ok((spliced, expected))
    }

    /// What is kept of a conversation, which begins with what is asked.
    fn recording(
        &self,
        samples: &Arc<Samples>,
        served: &Served<'_>,
        id: &str,
        body: &Bytes,
    ) -> Option<Recording> {
        let resolved = served.resolved.clone();
        let prompt = match resolved.prompts() {
            Some(pack) => served.prompt.choose(pack.prompts().keys()).ok(),
            None => served.prompt.prompt.as_deref().and_then(|name| PromptName::parse(name).ok()),
        };
        let subject = Subject { id: id.to_owned(), resolved, prompt, at: self.resolver.clock.now() };
        Recording::of(samples, subject, body)
    }

    fn unanswered(&self, error: SendError) -> (Ending, Refusal) {
        match error {
            SendError::Unreachable(refusal) => {
                count(&self.counts.unreachable);
                (Ending::Unreachable, refusal)
            }
            SendError::TimedOut(refusal) => {
                count(&self.counts.timed_out);
                (Ending::TimedOut, refusal)
            }
            SendError::Busy(refusal) => {
                count(&self.counts.busy);
                (Ending::Unreachable, refusal)
            }
        }
    }
}

/// The packs that the caller's key is for, where it is not for all.
fn scope_of(parts: &http_request::Parts) -> Option<&Scope> {
    let scope = &parts.extensions.get::<Caller>()?.grant.scope;
    scope.packs().map(|_| scope)
}

/// Writes into an answer which version it is of.
fn marked(mut response: Response<Body>, resolved: &Resolved) -> Response<Body> {
    let headers = response.headers_mut();
    let version = HeaderValue::try_from(resolved.version.to_string());
    headers.insert(&VERSION, version.expect("a semantic version is valid in a header"));
    // A version that the caller names belongs to no side of the comparison.
    if resolved.version == resolved.cohort.version {
        let variant = match resolved.cohort.variant {
            serin_core::routing::Variant::Stable => HeaderValue::from_static("stable"),
            serin_core::routing::Variant::Canary => HeaderValue::from_static("canary"),
        };
        headers.insert(&VARIANT, variant);
    }
    let session = HeaderValue::from_bytes(resolved.key.as_str().as_bytes());
    headers.insert(&SESSION, session.expect("a session key holds no control characters"));
    response
}

fn unrendered(error: &RenderError) -> Refusal {
    let (status, code) = match error {
        RenderError::UnknownPrompt { .. } => (StatusCode::NOT_FOUND, "unknown_prompt"),
        RenderError::MissingVariables { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "missing_variable"),
        RenderError::UnknownVariables { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "unknown_variable"),
        RenderError::WrongType { .. } | RenderError::Invalid { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid_variable")
        }
    };
    Refusal::new(status, code, error.to_string())
}

fn is_length_error(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<LengthLimitError>())
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let prefix = b"text/event-stream";
    value.and_then(|value| value.get(..prefix.len())).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
