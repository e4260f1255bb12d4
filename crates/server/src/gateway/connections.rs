//! Connections to the provider.
//!
//! Over HTTP/1.1 each is driven by the task of the request that uses it. A connection of hyper does its work when
//! it is polled. Here it is polled by whoever waits for the answer or reads its body, and by no task of its own: no
//! frame changes hands between tasks, chunks that arrived together leave together, and dropping an answer closes
//! its connection, which cancels the call. Over HTTP/2 requests share connections; those are in `shared`.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::shared::{SharedLines, Stream, Unread, copy, for_http1, for_http2, unread};
use super::slots::Slot;
use crate::trust::of_tls;

/// The body of a request to the provider: in one piece, or streamed through.
pub(super) type RequestBody = Either<Full<Bytes>, Body>;

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
    Own { line: Box<Line>, is_fresh: bool },
    /// A place on one that others use as well.
    Shared(Stream),
}

/// A request that got no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// No connection could be opened.
    NotConnected(Arc<dyn Error + Send + Sync>),
    /// The connection broke before the answer began.
    Broken(hyper::Error),
}

/// One connection with its sending end; the connection is gone once it has ended.
struct Line {
    sender: http1::SendRequest<RequestBody>,
    connection: Option<http1::Connection<MaybeHttpsStream<TokioIo<TcpStream>>, RequestBody>>,
}

/// Connections that nobody uses, the last used one at the end.
struct Idle {
    lines: Mutex<Vec<(Instant, Box<Line>)>>,
    timeout: Duration,
    /// Whether a task is there that closes them when their time is over.
    is_watched: AtomicBool,
}

/// What an answer comes over.
enum Carrier {
    /// A connection of its own, which its reader drives, and where that goes afterwards.
    Own(Option<Box<Line>>, Arc<Idle>),
    /// A connection that drives itself, and whether the answer is a success.
    Shared { is_success: bool, _stream: Stream },
}

/// The body of an answer, which drives its connection and gives it back after the end.
pub(super) struct AnswerBody {
    incoming: Incoming,
    carrier: Carrier,
    has_ended: bool,
    /// Whether frames were handed out that the client's connection may still hold back.
    has_unflushed: bool,
    /// How the answer broke off, told after the frames before it had their chance to leave.
    broken: Option<AnswerError>,
    silence: Silence,
    /// The place of its request, which is free again afterwards.
    _slot: Slot,
}

/// Watches for how long nothing comes.
struct Silence {
    longest: Duration,
    since: Option<Instant>,
    /// Armed when an answer first has to be waited for.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    /// The connection broke.
    #[error("the provider broke off its answer")]
    Broken(#[source] hyper::Error),
    /// The provider ended its stream without ending the answer.
    #[error("the provider ended its answer in the middle")]
    Cut,
    /// Nothing came for too long.
    #[error("the provider sent nothing for {0:?} in the middle of its answer")]
    Stalled(Duration),
}

impl Silence {
    /// Nothing is there for now; ready when that is so for too long.
    ///
    /// The alarm is set once and put off when it rings too early, so that frames cost no timer.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let longest = self.longest;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + longest)));
        while alarm.as_mut().poll(context).is_ready() {
            if since.elapsed() >= longest {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(since + longest);
        }
        Poll::Pending
    }
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
            shared: Arc::new(SharedLines::new(limits.idle_timeout)),
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
                            return Err(Unanswered::Broken(error));
                        }
                    }
                    self.retried.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            for_http1(&mut request);
            let sent = line.sender.try_send_request(request);
            match driven(sent, &mut line.connection).await {
                Ok(answer) => {
                    Idle::watch(&self.idle);
                    let carrier = Carrier::Own(Some(line), Arc::clone(&self.idle));
                    return Ok(answer.map(|incoming| self.answer(incoming, carrier, slot)));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_fresh => request = unsent,
                    Some(_) | None => return Err(Unanswered::Broken(error.into_error())),
                },
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
        let carrier = Carrier::Shared { is_success, _stream: stream };
        answer.map(|incoming| self.answer(incoming, carrier, slot))
    }

    fn answer(&self, incoming: Incoming, carrier: Carrier, slot: Slot) -> AnswerBody {
        AnswerBody {
            incoming,
            carrier,
            has_ended: false,
            has_unflushed: false,
            broken: None,
            silence: Silence { longest: self.limits.longest_silence, since: None, alarm: None },
            _slot: slot,
        }
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
        if self.spoke(Spoken::Http1) { self.connected().await } else { self.dialled().await }
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
                done @ (Ok(_) | Err(Unanswered::NotConnected(_) | Unanswered::Broken(_))) => return done,
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
        let (sender, connection) = http1::handshake(stream).await.map_err(Unanswered::Broken)?;
        let line = Box::new(Line { sender, connection: Some(connection) });
        Ok(Way::Own { line, is_fresh: true })
    }
}

fn not_connected(error: impl Into<Box<dyn Error + Send + Sync>>) -> Unanswered {
    Unanswered::NotConnected(Arc::from(error.into()))
}

/// Waits for something that a connection brings about.
async fn driven<T, C: Future + Unpin>(wanted: impl Future<Output = T>, connection: &mut Option<C>) -> T {
    let mut wanted = pin!(wanted);
    poll_fn(|context| {
        drive(connection, context);
        wanted.as_mut().poll(context)
    })
    .await
}

/// Lets a connection do what it can; how it ended is told by what it carried.
fn drive<C: Future + Unpin>(connection: &mut Option<C>, context: &mut Context<'_>) {
    let has_ended =
        connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(context).is_ready());
    if has_ended {
        *connection = None;
    }
}

impl Line {
    /// Whether the next request can be sent, as far as that can be told now.
    fn is_usable(&mut self) -> bool {
        // Whoever takes the connection next polls it with a waker of its own.
        drive(&mut self.connection, &mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}

impl Idle {
    fn lines(&self) -> MutexGuard<'_, Vec<(Instant, Box<Line>)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, which is the least likely to be closed.
    fn take(&self) -> Option<Box<Line>> {
        loop {
            let (since, mut line) = self.lines().pop()?;
            if since.elapsed() < self.timeout && line.is_usable() {
                return Some(line);
            }
        }
    }

    fn put(&self, line: Box<Line>) {
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

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = &mut *self;
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut polled = Pin::new(&mut this.incoming).poll_frame(context);
        if polled.is_pending()
            && let Carrier::Own(Some(line), _) = &mut this.carrier
        {
            drive(&mut line.connection, context);
            polled = Pin::new(&mut this.incoming).poll_frame(context);
        }
        match polled {
            Poll::Ready(Some(Err(error))) if this.has_unflushed => {
                // An error right away would throw away what the client's connection still buffers; it
                // writes that out when there is nothing more for the moment.
                this.broken = Some(AnswerError::Broken(error));
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                (this.has_unflushed, this.silence.since) = (true, None);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(AnswerError::Broken(error)))),
            Poll::Ready(None) if this.is_cut() => Poll::Ready(Some(Err(AnswerError::Cut))),
            Poll::Ready(None) => {
                this.has_ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                this.has_unflushed = false;
                ready!(this.silence.poll(context));
                Poll::Ready(Some(Err(AnswerError::Stalled(this.silence.longest))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl AnswerBody {
    /// Whether the stream of a success was given up without an error and without an end.
    ///
    /// A provider may do so after an error that it answers before it has read the request.
    fn is_cut(&self) -> bool {
        match self.carrier {
            Carrier::Own(..) => false,
            Carrier::Shared { is_success, .. } => {
                let is_whole = self.incoming.is_end_stream() || self.incoming.size_hint().exact() == Some(0);
                is_success && !is_whole
            }
        }
    }
}

impl Drop for AnswerBody {
    /// Gives the connection back if the answer was read to its end; otherwise it is closed, or its stream reset.
    fn drop(&mut self) {
        let is_complete = self.has_ended || self.incoming.is_end_stream();
        if let Carrier::Own(line, idle) = &mut self.carrier
            && let Some(mut line) = line.take().filter(|_| is_complete)
            && line.is_usable()
        {
            idle.put(line);
        }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").field("incoming", &self.incoming).finish_non_exhaustive()
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
