//! Connections to the provider, each driven by the task of the request that uses it.
//!
//! A connection of hyper does its work when it is polled. Here it is polled by whoever waits for the answer
//! or reads its body, and by no task of its own: no frame changes hands between tasks, chunks that arrived
//! together leave together, and dropping an answer closes its connection, which cancels the call.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
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
use tokio::time::Instant;
use tower_service::Service;

/// The body of a request to the provider: in one piece, or streamed through.
pub(super) type RequestBody = Either<Full<Bytes>, Body>;

/// Unused connections that are kept; more are closed.
const MOST_IDLE: usize = 1_024;

/// Connections to one provider.
pub(super) struct Connections {
    connector: HttpsConnector<HttpConnector>,
    to: Uri,
    idle: Arc<Idle>,
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
}

impl Connections {
    /// Opens no connection yet; unused ones are kept for `idle_timeout`.
    pub(super) fn new(connector: HttpsConnector<HttpConnector>, to: Uri, idle_timeout: Duration) -> Self {
        let idle = Idle { lines: Mutex::default(), timeout: idle_timeout, is_watched: AtomicBool::new(false) };
        Self { connector, to, idle: Arc::new(idle) }
    }

    /// Sends a request, whose address is a path, and waits for the head of the answer.
    ///
    /// Only what was never sent is sent again, when an unused connection turns out to be closed.
    ///
    /// # Errors
    /// [`Unanswered`] when no answer begins.
    pub(super) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<AnswerBody>, Unanswered> {
        loop {
            let (mut line, is_fresh) = match self.idle.take() {
                Some(line) => (line, false),
                None => (self.connect().await?, true),
            };
            let sent = line.sender.try_send_request(request);
            let connection = &mut line.connection;
            match driven(sent, connection).await {
                Ok(answer) => {
                    Idle::watch(&self.idle);
                    let idle = Arc::clone(&self.idle);
                    let body = |incoming| AnswerBody { incoming, line: Some(line), idle, has_ended: false };
                    return Ok(answer.map(body));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_fresh => request = unsent,
                    Some(_) | None => return Err(Unanswered::Broken(error.into_error())),
                },
            }
        }
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
    let has_ended = connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(context).is_ready());
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
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.incoming).poll_frame(context);
        if polled.is_pending()
            && let Some(line) = &mut this.line
        {
            drive(&mut line.connection, context);
            polled = Pin::new(&mut this.incoming).poll_frame(context);
        }
        this.has_ended |= matches!(polled, Poll::Ready(None));
        polled
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
