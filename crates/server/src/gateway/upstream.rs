//! The way to one provider: addresses, headers, connections.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, request};
use hyper_util::client::legacy::connect::HttpConnector;
use serin_core::ids::ProviderName;

use super::answer_body::AnswerBody;
use super::connections::{Connections, Http2, Limits, RequestBody, Unanswered};
use super::http1::listed;
use super::protocol::Protocol;
use super::refusal::Refusal;
use super::shared::is_not_spoken;
use super::slots::{Full, Slots};
use crate::errors::root_cause;
use crate::trust::{self, Offer, Roots};

/// Headers of one connection only, besides those that `Connection` names.
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Anthropic's API refuses requests without it.
static ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// A secret that no log and no debug output shows.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The secret, for where it is used.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Keeps a text secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The address of a provider, as its clients write it: `https://api.openai.com/v1`.
///
/// Its path stands in for the `/v1` of the gateway; without a path it is `/v1` as well. Other paths of the
/// gateway go to the same host, below the address without its final `/v1`.
#[derive(Debug, Clone)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    v1: String,
    root: String,
    as_written: String,
}

/// An address that is none of a provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not use {given:?} as the provider's address: {problem}; hint: write https://HOST/v1")]
pub struct InvalidBaseUrl {
    /// The address as given.
    pub given: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl BaseUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// [`InvalidBaseUrl`] when it is no http or https address, or holds more than host, port and path.
    pub fn parse(text: &str) -> Result<Self, InvalidBaseUrl> {
        let invalid = |problem| InvalidBaseUrl { given: text.to_owned(), problem };
        let uri: Uri = text.parse().map_err(|_| invalid("it is no address"))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.ok_or_else(|| invalid("it has no scheme"))?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(invalid("its scheme is neither http nor https"));
        }
        let authority = parts.authority.ok_or_else(|| invalid("it has no host"))?;
        if authority.as_str().contains('@') {
            // The address is told in errors, a password must not be.
            return Err(InvalidBaseUrl { given: "…".to_owned(), problem: "it holds a user name" });
        }
        if parts.path_and_query.as_ref().is_some_and(|path| path.query().is_some()) {
            return Err(invalid("it has a query"));
        }
        let path = parts.path_and_query.as_ref().map_or("", PathAndQuery::path).trim_end_matches('/');
        let v1 = if path.is_empty() { "/v1" } else { path };
        let root = v1.strip_suffix("/v1").unwrap_or(v1);
        let (v1, root) = (v1.to_owned(), root.to_owned());
        Ok(Self { scheme, authority, v1, root, as_written: text.to_owned() })
    }

    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.as_written
    }

    /// Where connections go.
    fn host(&self) -> Uri {
        let builder = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        builder.path_and_query("/").build().expect("scheme, host and path make an address")
    }

    /// The path at the provider that a path of the gateway stands for.
    fn join(&self, path: Option<&PathAndQuery>) -> PathAndQuery {
        let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let text = path.as_str();
        let below_v1 =
            text.strip_prefix("/v1").filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        match below_v1 {
            Some(_) if self.v1 == "/v1" => path,
            None if self.root.is_empty() => path,
            Some(rest) => together(&self.v1, rest),
            None => together(&self.root, text),
        }
    }
}

fn together(prefix: &str, rest: &str) -> PathAndQuery {
    let joined = [prefix, rest].concat();
    PathAndQuery::try_from(joined).expect("two valid paths in a row are a valid path")
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_written)
    }
}

/// Which APIs a provider has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speaks {
    /// OpenAI's and Anthropic's, each told by its path.
    #[default]
    Both,
    /// Chat Completions and Responses.
    OpenAi,
    /// Messages.
    Anthropic,
}

/// Settings of the way to the provider.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Where the provider is.
    pub base_url: BaseUrl,
    /// Which APIs it has.
    pub speaks: Speaks,
    /// Whether it is asked over HTTP/2.
    pub http2: Http2,
    /// Whose certificates it may show; without any, those of the public issuers.
    pub roots: Option<Roots>,
    /// The key that goes to the provider; without one the client's `Authorization` passes through.
    pub key: Option<Secret>,
    /// Requests that may be under way at once; over HTTP/1.1 each has a connection of its own, over HTTP/2 up to a
    /// hundred share one.
    pub max_requests: usize,
    /// Requests that wait for their turn at most; more are refused.
    pub max_waiting: usize,
    /// How often a request is sent again that was never sent, because no connection could be opened.
    pub connect_retries: u32,
    /// The longest time to open a connection, and to wait for a turn.
    pub connect_timeout: Duration,
    /// The longest time until the provider begins to answer.
    pub first_byte_timeout: Duration,
    /// The longest time that nothing comes in the middle of an answer.
    pub stall_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How long a connection over HTTP/2 with requests under way may say nothing before it is asked whether it is alive,
    /// and how long it may take to say so before it is given up.
    pub ping: Duration,
}

impl UpstreamSettings {
    /// The settings that hold unless somebody says otherwise.
    pub fn new(base_url: BaseUrl) -> Self {
        Self {
            base_url,
            speaks: Speaks::default(),
            http2: Http2::default(),
            roots: None,
            key: None,
            max_requests: 10_000,
            max_waiting: 1_000,
            connect_retries: 1,
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(600),
            stall_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(60),
            ping: Duration::from_secs(20),
        }
    }
}

/// An upstream that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The key cannot be sent in a header.
    #[error("could not use the key of the provider {0}: it holds characters that no header may hold")]
    Key(ProviderName),
    /// TLS could not be set up.
    #[error("could not set up TLS for the provider {0}")]
    Tls(ProviderName, #[source] std::io::Error),
    /// The default is no provider.
    #[error("the default provider {0} is none of those in the settings")]
    NoDefault(ProviderName),
}

/// The provider, with a pool of connections to it.
pub struct Upstream {
    name: ProviderName,
    speaks: Speaks,
    slots: Slots,
    counts: UpstreamCounts,
    connections: Connections,
    base_url: BaseUrl,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    /// The same key as Anthropic's API takes it.
    api_key: Option<HeaderValue>,
    must_speak_http2: bool,
    first_byte_timeout: Duration,
}

/// What is counted of one provider.
#[derive(Debug, Default)]
struct UpstreamCounts {
    requests: AtomicU64,
    unreachable: AtomicU64,
    timed_out: AtomicU64,
    tls_failures: AtomicU64,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

/// A request to which the provider did not begin to answer.
#[derive(Debug)]
pub(super) enum SendError {
    /// It could not be reached, or broke the connection.
    Unreachable(Refusal),
    /// It took too long.
    TimedOut(Refusal),
    /// Too many requests are under way to it.
    Busy(Refusal),
}

impl Upstream {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// [`UpstreamError`] when the key or TLS cannot be used.
    pub fn new(name: ProviderName, settings: &UpstreamSettings) -> Result<Self, UpstreamError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(settings.connect_timeout));
        let offer = match settings.http2 {
            Http2::Auto => Offer::Both,
            Http2::Always => Offer::Http2,
            Http2::Never => Offer::Http1,
        };
        let connector = trust::https(settings.roots.as_ref(), offer, http)
            .map_err(|error| UpstreamError::Tls(name.clone(), error))?;
        let limits = Limits {
            connect_timeout: settings.connect_timeout,
            connect_retries: settings.connect_retries,
            idle_timeout: settings.idle_timeout,
            ping: settings.ping,
            longest_silence: settings.stall_timeout,
        };
        let connections = Connections::new(connector, settings.base_url.host(), settings.http2, limits);
        let secret = |text: String| {
            let mut value = HeaderValue::try_from(text).map_err(|_| UpstreamError::Key(name.clone()))?;
            value.set_sensitive(true);
            Ok::<_, UpstreamError>(value)
        };
        let key = settings.key.as_ref();
        let authorization = key.map(|key| secret(format!("Bearer {}", key.0))).transpose()?;
        let api_key = key.map(|key| secret(key.0.clone())).transpose()?;
        let base_url = settings.base_url.clone();
        let host = HeaderValue::from_str(base_url.authority.as_str()).expect("a host is valid in a header");
        Ok(Self {
            speaks: settings.speaks,
            slots: Slots::new(settings.max_requests, settings.max_waiting, settings.connect_timeout),
            counts: UpstreamCounts::default(),
            name,
            connections,
            base_url,
            host,
            authorization,
            api_key,
            must_speak_http2: settings.http2 == Http2::Always,
            first_byte_timeout: settings.first_byte_timeout,
        })
    }

    /// Its name in the settings.
    pub fn name(&self) -> &ProviderName {
        &self.name
    }

    /// Every counter of it with its name and what it counts.
    pub fn counted(&self) -> [(&'static str, &'static str, u64); 9] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("requests", "Requests that were to go to a provider", load(&self.counts.requests)),
            (
                "unreachable",
                "Requests for which a provider could not be reached",
                load(&self.counts.unreachable),
            ),
            (
                "timeouts",
                "Requests to which a provider did not begin to answer in time",
                load(&self.counts.timed_out),
            ),
            (
                "tls_failures",
                "Connections to a provider that failed by its certificate or TLS",
                load(&self.counts.tls_failures),
            ),
            ("waited", "Requests that waited until others to their provider had ended", self.slots.waited()),
            (
                "busy",
                "Requests refused because too many were under way to their provider",
                self.slots.refused(),
            ),
            ("connections", "Connections opened to a provider", self.connections.opened()),
            (
                "http2_connections",
                "Connections opened to a provider that speak HTTP/2",
                self.connections.opened_http2(),
            ),
            (
                "retries",
                "Requests sent again that were never sent, because a connection failed, or that a provider had not read",
                self.connections.retried(),
            ),
        ]
    }

    /// The requests under way to it, and those that wait for their turn.
    pub fn in_flight(&self) -> (usize, usize) {
        (self.slots.taken(), self.slots.waiting())
    }

    /// Whether it has the API of a protocol.
    pub(super) fn speaks(&self, protocol: Protocol) -> bool {
        match (self.speaks, protocol) {
            (Speaks::Both, _)
            | (Speaks::OpenAi, Protocol::Chat | Protocol::Responses)
            | (Speaks::Anthropic, Protocol::Messages) => true,
            (Speaks::OpenAi, Protocol::Messages)
            | (Speaks::Anthropic, Protocol::Chat | Protocol::Responses) => false,
        }
    }

    /// Turns a request to the gateway into one to the provider.
    pub(super) fn address(&self, parts: &mut request::Parts) {
        let is_anthropic = match self.speaks {
            Speaks::Both => parts.uri.path().starts_with("/v1/messages"),
            Speaks::OpenAi => false,
            Speaks::Anthropic => true,
        };
        parts.uri = Uri::from(self.base_url.join(parts.uri.path_and_query()));
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let headers = &mut parts.headers;
        // Framing is this connection's business: the length follows from the body.
        strip(headers, |name| {
            name == CONTENT_LENGTH || name == EXPECT || name.as_str().starts_with("x-serin-")
        });
        headers.insert(HOST, self.host.clone());
        if let (Some(authorization), Some(api_key)) = (&self.authorization, &self.api_key) {
            if is_anthropic {
                headers.remove(AUTHORIZATION);
                headers.insert(&X_API_KEY, api_key.clone());
            } else {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
        }
        if is_anthropic && !headers.contains_key(&ANTHROPIC_VERSION) {
            headers.insert(&ANTHROPIC_VERSION, HeaderValue::from_static("2023-06-01"));
        }
    }

    /// Asks for an answer that can be read on its way.
    pub(super) fn ask_for_identity(headers: &mut HeaderMap) {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }

    /// Sends a request and waits for the head of the answer, whose connection headers are taken off.
    ///
    /// # Errors
    /// [`SendError`] when no answer begins.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<AnswerBody>, SendError> {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let slot = self.slots.take().await.map_err(|Full| self.busy())?;
        let answer =
            tokio::time::timeout(self.first_byte_timeout, self.connections.send(request, slot)).await;
        let unreachable = |what: &str, error: &(dyn Error + 'static), hint: &str| {
            self.counts.unreachable.fetch_add(1, Ordering::Relaxed);
            let message = format!("{what} the provider at {}: {}{hint}", self.base_url, root_cause(error));
            SendError::Unreachable(Refusal::new(StatusCode::BAD_GATEWAY, "provider_unreachable", message))
        };
        match answer {
            Ok(Ok(mut response)) => {
                strip(response.headers_mut(), |_| false);
                *response.version_mut() = Version::HTTP_11;
                Ok(response)
            }
            Ok(Err(Unanswered::NotConnected(error))) => match trust::of_tls(&*error) {
                Some(error) => Err(self.not_trusted(error)),
                None => Err(unreachable("could not connect to", &*error, "")),
            },
            Ok(Err(Unanswered::Http1(error))) => Err(unreachable("got no answer from", &error, "")),
            Ok(Err(Unanswered::Http2(error))) => {
                Err(unreachable("got no answer from", &error, self.hint_of(&error)))
            }
            Err(_) => {
                self.counts.timed_out.fetch_add(1, Ordering::Relaxed);
                let seconds = self.first_byte_timeout.as_secs_f64();
                let message =
                    format!("the provider at {} did not begin to answer within {seconds} s", self.base_url);
                Err(SendError::TimedOut(Refusal::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "provider_timeout",
                    message,
                )))
            }
        }
    }
}

impl Upstream {
    fn not_trusted(&self, error: &rustls::Error) -> SendError {
        self.counts.unreachable.fetch_add(1, Ordering::Relaxed);
        self.counts.tls_failures.fetch_add(1, Ordering::Relaxed);
        let (wrong, hint) = trust::told(error);
        let message =
            format!("could not connect to the provider at {}: {wrong}; hint: {hint}", self.base_url);
        SendError::Unreachable(Refusal::new(StatusCode::BAD_GATEWAY, "provider_tls", message))
    }

    /// What may be done about a connection that broke before the answer.
    fn hint_of(&self, error: &hyper::Error) -> &'static str {
        if self.must_speak_http2 && is_not_spoken(error) {
            "; hint: if it does not speak HTTP/2, set the provider's `http2` to `auto`"
        } else {
            ""
        }
    }

    fn busy(&self) -> SendError {
        let message = format!(
            "{} requests to the provider {} are under way, and this one got no turn; hint: try again later, or raise its `maxRequests` or `maxWaiting`",
            self.slots.most(),
            self.name
        );
        SendError::Busy(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "provider_busy", message))
    }
}

/// Takes off what concerns one connection only, and what else `goes`.
fn strip(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let mut gone: Vec<HeaderName> =
        headers.keys().filter(|name| HOP_BY_HOP.contains(name) || goes(name)).cloned().collect();
    gone.extend(listed(headers, &CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()));
    for name in gone {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(base: &str, path: &str) -> String {
        let path: PathAndQuery = path.parse().unwrap();
        let base = BaseUrl::parse(base).unwrap();
        format!("{}{}", base.host().to_string().trim_end_matches('/'), base.join(Some(&path)))
    }

    #[test]
    fn the_path_of_the_address_stands_in_for_v1() {
        for (base, path, expected) in [
            ("https://a.example", "/v1/models?x=1", "https://a.example/v1/models?x=1"),
            ("https://a.example/", "/stand-in/last", "https://a.example/stand-in/last"),
            ("https://a.example/v1/", "/v1/models", "https://a.example/v1/models"),
            ("https://a.example/v1", "/v1", "https://a.example/v1"),
            ("https://a.example/v1", "/v1beta/x", "https://a.example/v1beta/x"),
            ("https://a.example/api/v1", "/v1/models", "https://a.example/api/v1/models"),
            ("https://a.example/api/v1", "/credits", "https://a.example/api/credits"),
            ("http://a.example:81/openai", "/v1/models", "http://a.example:81/openai/models"),
            ("http://a.example:81/openai", "/v1?x", "http://a.example:81/openai?x"),
        ] {
            assert_eq!(joined(base, path), expected);
        }
    }

    #[test]
    fn an_address_is_refused_with_its_reason() {
        for (text, problem) in [
            ("api.example", "it has no scheme"),
            ("ftp://a.example", "its scheme is neither http nor https"),
            ("https://a.example/v1?key=1", "it has a query"),
            ("https://me:secret@a.example/v1", "it holds a user name"),
            ("https://", "it is no address"),
        ] {
            let error = BaseUrl::parse(text).unwrap_err();
            assert_eq!(error.problem, problem);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn headers_of_one_connection_and_of_ours_stay_behind() {
        let settings = UpstreamSettings {
            key: Some(Secret::new("provider-key")),
            ..UpstreamSettings::new(BaseUrl::parse("http://a.example:81").unwrap())
        };
        assert!(!format!("{settings:?}").contains("provider-key"), "{settings:?}");
        let upstream = Upstream::new(ProviderName::parse("p").unwrap(), &settings).unwrap();
        let request = Request::post("/v1/models")
            .header("host", "gateway")
            .header("connection", "keep-alive, X-Hop")
            .header("keep-alive", "timeout=5")
            .header("x-hop", "1")
            .header("te", "trailers")
            .header("content-length", "3")
            .header("authorization", "Bearer client-key")
            .header("x-serin-session", "s")
            .header("x-request-id", "r")
            .header("x-tag", "one")
            .header("x-tag", "two");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        upstream.address(&mut parts);
        let mut headers: Vec<_> =
            parts.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        headers.sort_unstable();
        assert_eq!(
            headers,
            [
                ("authorization", "Bearer provider-key"),
                ("host", "a.example:81"),
                ("x-request-id", "r"),
                ("x-tag", "one"),
                ("x-tag", "two"),
            ]
        );
    }
}
