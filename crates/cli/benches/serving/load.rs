//! The load: a closed loop of HTTP/1.1 connections that check every answer.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Sessions that come again and again.
pub(crate) const KNOWN_SESSIONS: u64 = 1_000;
/// Every so many requests with a prompt one comes from a session that was never seen.
const NEW_EVERY: u64 = 5;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One JSON object.
    Json,
    /// Events.
    Stream,
    /// Events, the usage among them, so that none is kept from the client and each gap is one of the source's.
    StreamWithUsage,
}

/// Who brings the system prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// The request itself, so that it passes through untouched.
    Own,
    /// A pack, in a version that depends on the session.
    Pack,
}

/// Requests of one kind to one server.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    to: SocketAddr,
    path: &'static str,
    prompt: Prompt,
    body: Body,
    /// Tells the sessions of one series of requests from those of another.
    series: Arc<str>,
}

#[derive(Debug, Clone)]
enum Body {
    /// A request without one, by GET.
    None,
    Same(Bytes),
    /// `/v1/resolve` names the session in the body.
    Resolve(Sessions),
    /// An OFREP evaluation names it as the targeting key of its context.
    Flag(Sessions),
    /// `/v1/events` with so many events, each with an id of its own, of sessions that were resolved before.
    Events(u64),
}

/// Whose version is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Of a session that was never seen.
    New,
    /// Of one of a thousand sessions.
    Known,
}

impl Requests {
    /// Chat requests of about one kilobyte.
    pub(crate) fn chat(to: SocketAddr, answer: Answer, prompt: Prompt, series: &str) -> Self {
        let question =
            "Where is my parcel? It was due last week, and the tracking page has said the same since. ";
        let mut body = json!({
            "model": "gpt-4.1-mini",
            "messages": [
                {"role": "system", "content": "Answer in the language of the customer."},
                {"role": "user", "content": question.repeat(4)},
                {"role": "assistant", "content": "I am sorry to hear that. May I have the order number?"},
                {"role": "user", "content": question.repeat(5)},
            ],
            "temperature": 0.2,
            "stream": answer != Answer::Json,
        });
        if answer == Answer::StreamWithUsage {
            body["stream_options"] = json!({"include_usage": true});
        }
        let body = Body::Same(body.to_string().into());
        Self { to, path: "/v1/chat/completions", prompt, body, series: series.into() }
    }

    /// Questions for the version of sessions.
    pub(crate) fn resolve(to: SocketAddr, sessions: Sessions, series: &str) -> Self {
        let body = Body::Resolve(sessions);
        Self { to, path: "/v1/resolve", prompt: Prompt::Own, body, series: series.into() }
    }

    /// Evaluations of the pack as a flag, as OpenFeature's providers ask for it.
    pub(crate) fn flag(to: SocketAddr, sessions: Sessions, series: &str) -> Self {
        let path = "/ofrep/v1/evaluate/flags/bench";
        Self { to, path, prompt: Prompt::Own, body: Body::Flag(sessions), series: series.into() }
    }

    /// Reports of so many outcomes each, of the sessions that [`Requests::resolve`] knows.
    pub(crate) fn events(to: SocketAddr, each: u64, series: &str) -> Self {
        let body = Body::Events(each);
        Self { to, path: "/v1/events", prompt: Prompt::Own, body, series: series.into() }
    }

    /// Requests for a file.
    pub(crate) fn file(to: SocketAddr) -> Self {
        Self { to, path: "/static", prompt: Prompt::Own, body: Body::None, series: "".into() }
    }

    fn request(&self, n: u64) -> Request<Full<Bytes>> {
        let body: Bytes = match &self.body {
            Body::None => Bytes::new(),
            Body::Same(body) => body.clone(),
            Body::Resolve(Sessions::New) => resolve_body(&format!("{}-{n}", self.series)).into(),
            Body::Resolve(Sessions::Known) => resolve_body(&known(n)).into(),
            Body::Flag(Sessions::New) => flag_body(&format!("{}-{n}", self.series)).into(),
            Body::Flag(Sessions::Known) => flag_body(&known(n)).into(),
            Body::Events(each) => self.events_body(n, *each).into(),
        };
        let method = if matches!(self.body, Body::None) { Method::GET } else { Method::POST };
        let request = Request::builder()
            .method(method)
            .uri(self.path)
            .header(HOST, self.to.to_string())
            .header(CONTENT_TYPE, "application/json")
            .header("authorization", "Bearer sk-bench")
            .header("accept", "application/json")
            .header("user-agent", "serin-bench");
        let request = match self.prompt {
            Prompt::Own => request,
            Prompt::Pack => {
                let session =
                    if n.is_multiple_of(NEW_EVERY) { format!("{}-{n}", self.series) } else { known(n) };
                request.header("x-serin-prompt", "bench/answer").header("x-serin-session", session)
            }
        };
        request.body(Full::new(body)).expect("every part is valid")
    }
}

impl Requests {
    /// Written by hand: making it must not cost more than reading it.
    fn events_body(&self, n: u64, each: u64) -> String {
        let mut body = String::with_capacity(128 * usize::try_from(each).unwrap_or(0));
        body.push_str("{\"events\": [");
        for event in n * each..(n + 1) * each {
            let comma = if event == n * each { "" } else { "," };
            let (series, session) = (&self.series, known(event));
            let _ = write!(
                body,
                r#"{comma}{{"id":"{series}-{event}","pack":"bench","session":"{session}","name":"task_completion","value":true}}"#
            );
        }
        body.push_str("]}");
        body
    }
}

fn resolve_body(session: &str) -> String {
    format!(r#"{{"pack":"bench","session":"{session}"}}"#)
}

fn flag_body(session: &str) -> String {
    format!(r#"{{"context":{{"targetingKey":"{session}"}}}}"#)
}

/// One of the sessions that come again and again.
fn known(n: u64) -> String {
    format!("known-{}", n % KNOWN_SESSIONS)
}

/// One connection.
struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    async fn open(to: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to).await.with_context(|| format!("could not connect to {to}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends one request, reads its answer to the end, and returns the bytes of its body.
    async fn ask(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<usize> {
        self.0.ready().await?;
        let mut answer = self.0.send_request(request).await?;
        let status = answer.status();
        let mut length = 0;
        let mut told = Vec::new();
        while let Some(frame) = answer.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            length += data.len();
            if !status.is_success() {
                told.extend_from_slice(&data);
            }
        }
        ensure!(status.is_success(), "answered {status}: {}", String::from_utf8_lossy(&told));
        Ok(length)
    }
}

/// How long an answer to such requests is, in bytes.
pub(crate) async fn answer_length(requests: &Requests) -> anyhow::Result<usize> {
    Connection::open(requests.to).await?.ask(requests.request(0)).await
}

/// Sends `total` requests over `connections`, each as soon as the answer before has ended.
///
/// An answer of another length than `length` is an error, where one is given.
pub(crate) async fn run(
    requests: &Requests,
    connections: usize,
    total: u64,
    length: Option<usize>,
) -> anyhow::Result<Duration> {
    let next = Arc::new(AtomicU64::new(0));
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(requests.to).await?);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let (requests, next) = (requests.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= total {
                    return Ok(());
                }
                let seen = connection.ask(requests.request(n)).await?;
                if length.is_some_and(|length| length != seen) {
                    bail!("answer {n} of {} has {seen} bytes, not {length:?}", requests.to);
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(started.elapsed())
}

/// Sends requests to several servers in turn, so many a second to each, and returns their times.
pub(crate) async fn in_turn(
    targets: &[Requests],
    per_second: u32,
    rounds: u64,
) -> anyhow::Result<Vec<Vec<Duration>>> {
    let mut connections = Vec::new();
    for target in targets {
        connections.push(Connection::open(target.to).await?);
    }
    let mut times = vec![Vec::new(); targets.len()];
    let count = u32::try_from(targets.len()).expect("a handful");
    let mut due = tokio::time::interval(Duration::from_secs(1) / (per_second * count));
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0..rounds {
        for (index, target) in targets.iter().enumerate() {
            let request = target.request(n);
            due.tick().await;
            let started = Instant::now();
            connections[index].ask(request).await?;
            times[index].push(started.elapsed());
        }
    }
    Ok(times)
}

/// Opens so many streams at once, reads the first chunk of each and keeps them open.
pub(crate) async fn open_streams(requests: &Requests, count: u64) -> anyhow::Result<Vec<OpenStream>> {
    let mut open = Vec::new();
    let mut opening = JoinSet::new();
    for n in 0..count {
        let requests = requests.clone();
        opening.spawn(async move {
            let mut connection = Connection::open(requests.to).await?;
            let mut answer = connection.0.send_request(requests.request(n)).await?;
            ensure!(answer.status().is_success(), "answered {}", answer.status());
            answer.frame().await.context("the stream ended at once")??;
            anyhow::Ok(OpenStream { _connection: connection, _answer: answer })
        });
        // As fast as they come, with no more than the server's backlog at a time.
        if opening.len() >= STREAMS_OPENING {
            open.extend(opening.join_next().await.transpose()?.transpose()?);
        }
    }
    while let Some(stream) = opening.join_next().await {
        open.push(stream??);
    }
    Ok(open)
}

/// Connections that are opened at the same time.
const STREAMS_OPENING: usize = 64;

/// A stream under way; it ends with this value.
pub(crate) struct OpenStream {
    _connection: Connection,
    _answer: hyper::Response<hyper::body::Incoming>,
}

/// The times between the chunks of one stream.
pub(crate) async fn gaps(requests: &Requests, n: u64) -> anyhow::Result<Vec<Duration>> {
    let mut connection = Connection::open(requests.to).await?;
    let mut answer = connection.0.send_request(requests.request(n)).await?;
    let mut gaps = Vec::new();
    let mut last = None;
    while let Some(frame) = answer.frame().await {
        frame?;
        let now = Instant::now();
        gaps.extend(last.replace(now).map(|last| now - last));
    }
    Ok(gaps)
}

/// The first session of a series that has a variant.
pub(crate) async fn session_on(
    data: SocketAddr,
    series: &str,
    count: u64,
    variant: &str,
) -> anyhow::Result<String> {
    let mut connection = Connection::open(data).await?;
    for n in 0..count {
        let session = format!("{series}-{n}");
        if connection.variant_of(data, &session).await? == variant {
            return Ok(session);
        }
    }
    bail!("none of {count} sessions is on {variant}")
}

/// How long an order takes until it is answered.
pub(crate) async fn order(control: SocketAddr, word: &str) -> anyhow::Result<Duration> {
    let mut connection = Connection::open(control).await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/api/v1/packs/bench/rollout/{word}"))
        .header(HOST, control.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from_static(br#"{"reason": "benchmark"}"#)))?;
    let started = Instant::now();
    connection.ask(request).await?;
    Ok(started.elapsed())
}

/// How long a rollback takes until it is answered, and until a session on the canary is on stable.
pub(crate) async fn rollback(
    control: SocketAddr,
    data: SocketAddr,
    session: &str,
) -> anyhow::Result<(Duration, Duration)> {
    let mut connection = Connection::open(data).await?;
    ensure!(connection.variant_of(data, session).await? == "canary", "{session} is not on the canary");
    let started = Instant::now();
    let ordered = tokio::spawn(order(control, "rollback"));
    while connection.variant_of(data, session).await? != "stable" {
        ensure!(started.elapsed() < Duration::from_secs(10), "the rollback does not reach {session}");
    }
    let reached = started.elapsed();
    Ok((ordered.await??, reached))
}

impl Connection {
    async fn variant_of(&mut self, data: SocketAddr, session: &str) -> anyhow::Result<String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/resolve")
            .header(HOST, data.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(resolve_body(session))))?;
        self.0.ready().await?;
        let answer = self.0.send_request(request).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        let answer: serde_json::Value = serde_json::from_slice(&body)?;
        let variant = answer["variant"].as_str().with_context(|| format!("no variant in {answer}"))?;
        Ok(variant.to_owned())
    }
}
