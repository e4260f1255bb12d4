//! Connections to the provider.
//!
//! Over HTTP/1.1 each is driven by the task of the request that uses it: by whoever waits for the answer or reads its
//! body, and by no task of its own. No frame changes hands between tasks, and dropping an answer closes its
//! connection, which cancels the call. Over HTTP/2 requests share connections; those are in `shared`.

use std::error::Error;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_service::Service;

use super::answer_body::{AnswerBody, Carrier};
use super::http1::{Http1Error, Line};
use super::shared::{SharedLines, Stream, Unread, copy, for_http1, for_http2, unread};
use super::slots::Slot;
use crate::trust::of_tls;

/// The body of a request to the provider: in one piece, or streamed through.
pub(super) type RequestBody = Either<Full<Bytes>, Body>;

/// A connection that carries one request at a time.
pub(super) type OwnLine = Line<Wire>;

/// What it goes over; TLS takes so much room that connections without it had better not keep it free.
type Wire = tokio_util::either::Either<TcpStream, Box<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>>;

/// Unused connections that are kept; more are closed.
const MOST_IDLE: usize = 1_024;
/// Connections that may end under a request before it was sent; then it fails.
const MOST_ENDED: u32 = 5;
/// The wait before a connection is tried once more; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// How long what may take, and how often it is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The longest time to open a connection, TLS included.
    pub(super) connect_timeout: Duration,
    /// How often a request that was never sent is tried again.
    pub(super) connect_retries: u32,
    /// How long an unused connection is kept.
    pub(super) idle_timeout: Duration,
    /// How long a shared connection with requests under way may say nothing, and then not answer a ping.
    pub(super) ping: Duration,
    /// For how long an answer may be silent.
    pub(super) longest_silence: Duration,
}

/// Whether a provider is asked over HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Http2 {
    /// Over TLS when the provider chooses it; never without TLS.
    #[default]
    Auto,
    /// Always, without asking where there is no TLS.
    Always,
    /// Never.
    Never,
}

/// The version of HTTP that the provider spoke last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Spoken {
    Unknown,
    Http1,
    Http2,
}

/// Connections to one provider.
pub(super) struct Connections {
    connector: HttpsConnector<HttpConnector>,
    to: Uri,
    http2: Http2,
    /// A [`Spoken`], which decides whether connections are opened one after the other.
    spoken: AtomicU8,
    idle: Arc<Idle>,
    shared: Arc<SharedLines>,
    /// Held by who opens a connection that others wait for.
    dial: tokio::sync::Mutex<Option<LastFailure>>,
    limits: Limits,
    opened: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
}

/// The failure of the last connection that several requests waited for, and its number.
struct LastFailure {
    number: u64,
    error: Arc<dyn Error + Send + Sync>,
}

/// A connection for one request.
enum Way {
    /// Of its own, new or used before.
    Own { line: Box<OwnLine>, is_fresh: bool },
    /// A place on one that others use as well.
    Shared(Stream),
}

/// A request that got no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// No connection could be opened.
    NotConnected(Arc<dyn Error + Send + Sync>),
    /// The connection broke before the answer began, or what came is none.
    Http1(Http1Error),
    /// The same over HTTP/2.
    Http2(hyper::Error),
}

/// Connections that nobody uses, the last used one at the end.
pub(super) struct Idle {
    lines: Mutex<Vec<(Instant, Box<OwnLine>)>>,
    timeout: Duration,
    /// Whether a task is there that closes them when their time is over.
    is_watched: AtomicBool,
}

impl Connections {
    /// Opens no connection yet.
    pub(super) fn new(
        connector: HttpsConnector<HttpConnector>,
        to: Uri,
        http2: Http2,
        limits: Limits,
    ) -> Self {
        let idle = Idle {
            lines: Mutex::default(),
            timeout: limits.idle_timeout,
            is_watched: AtomicBool::new(false),
        };
        let is_https = to.scheme() == Some(&http::uri::Scheme::HTTPS);
        let spoken = match http2 {
            Http2::Always => Spoken::Http2,
            Http2::Auto if is_https => Spoken::Unknown,
            Http2::Auto | Http2::Never => Spoken::Http1,
        };
        Self {
            connector,
            to,
            http2,
            spoken: AtomicU8::new(spoken as u8),
            idle: Arc::new(idle),
            shared: Arc::new(SharedLines::new(limits.idle_timeout, limits.ping)),
            dial: tokio::sync::Mutex::default(),
            limits,
            opened: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
        }
    }

    /// The number of connections that were opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The number of those that speak HTTP/2.
    pub(super) fn opened_http2(&self) -> u64 {
        self.shared.opened()
    }

    /// The number of times that a request was tried again because a new connection failed, or because the provider
    /// had not read it.
    pub(super) fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// Sends a request, whose address is a path, and waits for the head of the answer.
    ///
    /// Only what was never sent, or what the provider says that it did not read, is sent again: when a connection
    /// turns out to be closed, and as often as the limits say when a new one cannot be opened or the provider
    /// refuses the request.
    ///
    /// # Errors
    /// [`Unanswered`] when no answer begins.
    pub(super) async fn send(
        &self,
        mut request: Request<RequestBody>,
        slot: Slot,
    ) -> Result<Response<AnswerBody>, Unanswered> {
        let (mut ended, mut refused, mut wait) = (0, 0, FIRST_WAIT);
        loop {
            let (mut line, is_fresh) = match self.way().await? {
                Way::Own { line, is_fresh } => (line, is_fresh),
                Way::Shared(stream) => {
                    for_http2(&mut request, &self.to);
                    let again = copy(&request);
                    let mut error = match stream.sender().try_send_request(request).await {
                        Ok(answer) => return Ok(self.answer_on_shared(answer, stream, slot)),
                        Err(error) => error,
                    };
                    let (unsent, error) = (error.take_message(), error.into_error());
                    let why = if unsent.is_some() { Some(Unread::Ended) } else { unread(&error) };
                    match (why, unsent.or(again)) {
                        (Some(Unread::Ended), Some(once_more)) if ended < MOST_ENDED => {
                            (ended, request) = (ended + 1, once_more);
                        }
                        (Some(Unread::Refused), Some(once_more)) if refused < self.limits.connect_retries => {
                            (refused, request) = (refused + 1, once_more);
                            tokio::time::sleep(wait).await;
                            wait *= 2;
                        }
                        (Some(Unread::Ended | Unread::Refused) | None, _) => {
                            return Err(Unanswered::Http2(error));
                        }
                    }
                    self.retried.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            for_http1(&mut request);
            line.send(&mut request);
            match poll_fn(|context| line.poll_head(context)).await {
                Ok(answer) => {
                    Idle::watch(&self.idle);
                    let carrier = Carrier::Own { line: Some(line), idle: Arc::clone(&self.idle) };
                    return Ok(answer.map(|()| self.answer(carrier, slot)));
                }
                Err(_) if line.give_back(&mut request) && !is_fresh => {}
                Err(error) => return Err(Unanswered::Http1(error)),
            }
        }
    }

    fn answer_on_shared(
        &self,
        answer: Response<Incoming>,
        stream: Stream,
        slot: Slot,
    ) -> Response<AnswerBody> {
        let is_success = answer.status().is_success();
        answer.map(|incoming| self.answer(Carrier::Shared { incoming, is_success, _stream: stream }, slot))
    }

    fn answer(&self, carrier: Carrier, slot: Slot) -> AnswerBody {
        AnswerBody::new(carrier, self.limits.longest_silence, slot)
    }

    /// A connection to send on.
    async fn way(&self) -> Result<Way, Unanswered> {
        if !self.spoke(Spoken::Http1)
            && let Some(stream) = self.shared.take()
        {
            return Ok(Way::Shared(stream));
        }
        if let Some(line) = self.idle.take() {
            return Ok(Way::Own { line, is_fresh: false });
        }
        // Boxed, since opening one is rare and would take room in the future of every request.
        if self.spoke(Spoken::Http1) {
            Box::pin(self.connected()).await
        } else {
            Box::pin(self.dialled()).await
        }
    }

    fn spoke(&self, spoken: Spoken) -> bool {
        self.spoken.load(Ordering::Relaxed) == spoken as u8
    }

    /// A place on a connection that was opened for everyone who waits, one at a time.
    ///
    /// Who waited while it failed fails with it, and does not try again in its turn.
    async fn dialled(&self) -> Result<Way, Unanswered> {
        let failed = self.failed.load(Ordering::Relaxed);
        let mut dial = self.dial.lock().await;
        if let Some(stream) = self.shared.take() {
            return Ok(Way::Shared(stream));
        }
        if let Some(LastFailure { number, error }) = &*dial
            && *number > failed
        {
            return Err(Unanswered::NotConnected(Arc::clone(error)));
        }
        if self.spoke(Spoken::Http1) {
            drop(dial);
            return self.connected().await;
        }
        let connected = self.connected().await;
        if let Err(Unanswered::NotConnected(error)) = &connected {
            let number = self.failed.fetch_add(1, Ordering::Relaxed) + 1;
            *dial = Some(LastFailure { number, error: Arc::clone(error) });
        }
        connected
    }

    /// Opens a connection, trying again what may go better the next time.
    async fn connected(&self) -> Result<Way, Unanswered> {
        let mut wait = FIRST_WAIT;
        for _ in 0..self.limits.connect_retries {
            match self.connect_in_time().await {
                // A certificate is no better the next time.
                Err(Unanswered::NotConnected(error)) if of_tls(&*error).is_none() => {}
                done @ (Ok(_)
                | Err(Unanswered::NotConnected(_) | Unanswered::Http1(_) | Unanswered::Http2(_))) => {
                    return done;
                }
            }
            self.retried.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        self.connect_in_time().await
    }

    async fn connect_in_time(&self) -> Result<Way, Unanswered> {
        let within = self.limits.connect_timeout;
        let too_slow = || not_connected(format!("no connection within {} s", within.as_secs_f64()));
        let connecting = tokio::time::timeout(within, self.connect()).await;
        let way = connecting.map_err(|_| too_slow())??;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(way)
    }

    async fn connect(&self) -> Result<Way, Unanswered> {
        let mut connector = self.connector.clone();
        poll_fn(|context| connector.poll_ready(context)).await.map_err(not_connected)?;
        let stream = connector.call(self.to.clone()).await.map_err(not_connected)?;
        let has_chosen_http2 = stream.connected().is_negotiated_h2();
        let is_plain = matches!(stream, MaybeHttpsStream::Http(_));
        let is_http2 = match self.http2 {
            Http2::Always if is_plain || has_chosen_http2 => true,
            Http2::Always => {
                let wrong = "it does not choose HTTP/2; hint: set the provider's `http2` to `auto`";
                return Err(not_connected(wrong));
            }
            Http2::Auto | Http2::Never => has_chosen_http2,
        };
        let spoken = if is_http2 { Spoken::Http2 } else { Spoken::Http1 };
        self.spoken.store(spoken as u8, Ordering::Relaxed);
        if is_http2 {
            let stream = SharedLines::open(&self.shared, stream).await.map_err(not_connected)?;
            return Ok(Way::Shared(stream));
        }
        let wire = match stream {
            MaybeHttpsStream::Http(plain) => Wire::Left(plain.into_inner()),
            tls @ MaybeHttpsStream::Https(_) => Wire::Right(Box::new(TokioIo::new(tls))),
        };
        Ok(Way::Own { line: Box::new(Line::new(wire)), is_fresh: true })
    }
}

fn not_connected(error: impl Into<Box<dyn Error + Send + Sync>>) -> Unanswered {
    Unanswered::NotConnected(Arc::from(error.into()))
}

impl Idle {
    fn lines(&self) -> MutexGuard<'_, Vec<(Instant, Box<OwnLine>)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, which is the least likely to be closed.
    fn take(&self) -> Option<Box<OwnLine>> {
        loop {
            let (since, mut line) = self.lines().pop()?;
            if since.elapsed() < self.timeout && line.is_usable() {
                return Some(line);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(&self, line: Box<OwnLine>) {
        let mut lines = self.lines();
        if lines.len() < MOST_IDLE {
            lines.push((Instant::now(), line));
        }
    }

    /// Makes sure that unused connections are closed when their time is over, also when no request comes.
    fn watch(idle: &Arc<Self>) {
        if idle.is_watched.load(Ordering::Relaxed) || idle.is_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let timeout = idle.timeout;
        let idle: Weak<Self> = Arc::downgrade(idle);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(timeout).await;
                let Some(idle) = idle.upgrade() else { return };
                idle.lines().retain(|(since, _)| since.elapsed() < timeout);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::slots::Slots;
    use crate::trust::Offer;

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn provider() -> (TcpListener, Connections) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = crate::trust::https(None, Offer::Http1, http).unwrap();
        let minute = Duration::from_secs(60);
        let limits = Limits {
            connect_timeout: minute,
            connect_retries: 0,
            idle_timeout: minute,
            ping: minute,
            longest_silence: minute,
        };
        (listener, Connections::new(connector, to, Http2::Auto, limits))
    }

    async fn slot() -> Slot {
        Slots::new(1, 0, Duration::ZERO).take().await.unwrap()
    }

    fn request() -> Request<RequestBody> {
        let body = Either::Left(Full::new(Bytes::from_static(b"?")));
        Request::post("/v1/x").header("host", "provider").body(body).unwrap()
    }

    /// Reads one request and answers with a head that announces five bytes, and with `body`.
    async fn answer(stream: &mut TcpStream, body: &str) {
        let mut seen = Vec::new();
        while !seen.ends_with(b"?") {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "the connection ended before its request");
        }
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn ask(connections: &Connections) -> Bytes {
        connections
            .send(request(), slot().await)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
    }

    #[tokio::test]
    async fn a_connection_is_used_again_once_its_answer_was_read() {
        let (listener, connections) = provider().await;
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for body in ["hello", "again"] {
                answer(&mut stream, body).await;
            }
        };
        let asking = async { (ask(&connections).await, ask(&connections).await) };
        let ((), (first, second)) = tokio::join!(serving, asking);
        assert_eq!((&*first, &*second), (&b"hello"[..], &b"again"[..]));
    }

    #[tokio::test]
    async fn an_unused_connection_that_the_provider_closed_is_replaced() {
        let (listener, connections) = provider().await;
        for body in ["hello", "again"] {
            let serving = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                answer(&mut stream, body).await;
            };
            let ((), seen) = tokio::join!(serving, ask(&connections));
            assert_eq!(seen, body);
        }
    }

    #[tokio::test]
    async fn dropping_an_answer_before_its_end_closes_the_connection() {
        let (listener, connections) = provider().await;
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            answer(&mut stream, "he").await;
            stream.read(&mut [0; 8]).await.unwrap()
        };
        let asking = async { drop(connections.send(request(), slot().await).await.unwrap()) };
        let (rest, ()) = tokio::join!(serving, asking);
        assert_eq!(rest, 0, "the provider sees the end of the connection");
        assert!(connections.idle.take().is_none());
    }
}
