//! Connections to the provider, each driven by the task of the request that uses it.
//!
//! A connection of hyper does its work when it is polled. Here it is polled by whoever waits for the answer
//! or reads its body, and by no task of its own: no frame changes hands between tasks, chunks that arrived
//! together leave together, and dropping an answer closes its connection, which cancels the call.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::slots::Slot;
use crate::trust::of_tls;

/// The body of a request to the provider: in one piece, or streamed through.
pub(super) type RequestBody = Either<Full<Bytes>, Body>;

/// Unused connections that are kept; more are closed.
const MOST_IDLE: usize = 1_024;
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

/// Connections to one provider.
pub(super) struct Connections {
    connector: HttpsConnector<HttpConnector>,
    to: Uri,
    idle: Arc<Idle>,
    limits: Limits,
    opened: AtomicU64,
    retried: AtomicU64,
}

/// A request that got no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// No connection could be opened.
    NotConnected(Box<dyn Error + Send + Sync>),
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

/// The body of an answer, which drives its connection and gives it back after the end.
pub(super) struct AnswerBody {
    incoming: Incoming,
    line: Option<Box<Line>>,
    idle: Arc<Idle>,
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
    pub(super) fn new(connector: HttpsConnector<HttpConnector>, to: Uri, limits: Limits) -> Self {
        let idle = Idle {
            lines: Mutex::default(),
            timeout: limits.idle_timeout,
            is_watched: AtomicBool::new(false),
        };
        let (opened, retried) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { connector, to, idle: Arc::new(idle), limits, opened, retried }
    }

    /// The number of connections that were opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The number of times that a request was tried again because a new connection failed.
    pub(super) fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// Sends a request, whose address is a path, and waits for the head of the answer.
    ///
    /// Only what was never sent is sent again: when an unused connection turns out to be closed, and as often as
    /// the limits say when a new one cannot be opened.
    ///
    /// # Errors
    /// [`Unanswered`] when no answer begins.
    pub(super) async fn send(
        &self,
        mut request: Request<RequestBody>,
        slot: Slot,
    ) -> Result<Response<AnswerBody>, Unanswered> {
        loop {
            let (mut line, is_fresh) = match self.idle.take() {
                Some(line) => (line, false),
                None => (self.connected().await?, true),
            };
            let sent = line.sender.try_send_request(request);
            let connection = &mut line.connection;
            match driven(sent, connection).await {
                Ok(answer) => {
                    Idle::watch(&self.idle);
                    let idle = Arc::clone(&self.idle);
                    let longest = self.limits.longest_silence;
                    return Ok(answer.map(|incoming| AnswerBody {
                        incoming,
                        line: Some(line),
                        idle,
                        has_ended: false,
                        has_unflushed: false,
                        broken: None,
                        silence: Silence { longest, since: None, alarm: None },
                        _slot: slot,
                    }));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_fresh => request = unsent,
                    Some(_) | None => return Err(Unanswered::Broken(error.into_error())),
                },
            }
        }
    }

    /// Opens a connection, trying again what may go better the next time.
    async fn connected(&self) -> Result<Box<Line>, Unanswered> {
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

    async fn connect_in_time(&self) -> Result<Box<Line>, Unanswered> {
        let within = self.limits.connect_timeout;
        let too_slow = || format!("no connection within {} s", within.as_secs_f64()).into();
        let connecting = tokio::time::timeout(within, self.connect()).await;
        let line = connecting.map_err(|_| Unanswered::NotConnected(too_slow()))??;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(line)
    }

    async fn connect(&self) -> Result<Box<Line>, Unanswered> {
        let mut connector = self.connector.clone();
        poll_fn(|context| connector.poll_ready(context)).await.map_err(Unanswered::NotConnected)?;
        let stream = connector.call(self.to.clone()).await.map_err(Unanswered::NotConnected)?;
        let (sender, connection) = http1::handshake(stream).await.map_err(Unanswered::Broken)?;
        Ok(Box::new(Line { sender, connection: Some(connection) }))
    }
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
            && let Some(line) = &mut this.line
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

impl Drop for AnswerBody {
    /// Gives the connection back if the answer was read to its end; otherwise it is closed.
    fn drop(&mut self) {
        let is_complete = self.has_ended || self.incoming.is_end_stream();
        if let Some(mut line) = self.line.take().filter(|_| is_complete)
            && line.is_usable()
        {
            self.idle.put(line);
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

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn provider() -> (TcpListener, Connections) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = crate::trust::https(None, http).unwrap();
        let minute = Duration::from_secs(60);
        let limits = Limits {
            connect_timeout: minute,
            connect_retries: 0,
            idle_timeout: minute,
            longest_silence: minute,
        };
        (listener, Connections::new(connector, to, limits))
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
