//! Connections that many requests share, over HTTP/2.
//!
//! A connection is driven by a task of its own, because its requests come and go. A request holds a place on it
//! until its answer was read or dropped; dropping an answer early resets its stream, which cancels the call and
//! leaves the others alone.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request, Uri, Version};
use http_body_util::Either;
use hyper::client::conn::http2;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::connections::RequestBody;

/// Requests on one connection at most; a provider may allow fewer.
const MOST_STREAMS: usize = 100;
/// Bytes of one answer that may wait for its client.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of all answers of a connection that may wait: enough for each of them, so that clients that do not read
/// stop nobody else's answer.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST_STREAMS as u32;
/// Bytes of the headers of an answer.
const MOST_HEADER_BYTES: u32 = 64 << 10;

/// The connections to one provider that have room for more requests, or had.
pub(super) struct SharedLines {
    lines: Mutex<Vec<Arc<SharedLine>>>,
    timeout: Duration,
    ping: Duration,
    opened: AtomicU64,
    /// Whether a task is there that closes them when their time is over.
    is_watched: AtomicBool,
}

/// One connection.
struct SharedLine {
    sender: http2::SendRequest<RequestBody>,
    taken: AtomicUsize,
    /// Requests that the provider allows at once, as far as it has said so.
    allowed: Arc<AtomicUsize>,
    /// Whether a request came since somebody looked for unused connections.
    was_used: AtomicBool,
}

/// A request's place on a connection; free again when it is dropped.
pub(super) struct Stream(Arc<SharedLine>);

impl SharedLines {
    /// No connections yet; unused ones are closed after `timeout`, and before twice that.
    ///
    /// One with requests under way on which nothing comes for the length of `ping` is asked whether it is alive. When it
    /// takes as long again to say so, it and everything on it is given up.
    pub(super) fn new(timeout: Duration, ping: Duration) -> Self {
        Self {
            lines: Mutex::default(),
            timeout,
            ping,
            opened: AtomicU64::new(0),
            is_watched: AtomicBool::new(false),
        }
    }

    /// The number of connections that were opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Arc<SharedLine>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place on the first connection that has one: the fuller ones stay in use, the others may end.
    pub(super) fn take(&self) -> Option<Stream> {
        let mut lines = self.lines();
        lines.retain(|line| line.sender.is_ready());
        lines.iter().find_map(SharedLine::take)
    }

    /// Begins to speak HTTP/2 on a new connection, and takes its first place.
    ///
    /// # Errors
    /// When the connection breaks at once.
    pub(super) async fn open(
        lines: &Arc<Self>,
        stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    ) -> hyper::Result<Stream> {
        let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MOST_HEADER_BYTES)
            .keep_alive_interval(lines.ping)
            .keep_alive_timeout(lines.ping)
            .handshake(stream)
            .await?;
        let allowed = Arc::new(AtomicUsize::new(MOST_STREAMS));
        let told = Arc::clone(&allowed);
        // It ends with the connection: when the provider closes it, or when nobody can send any more and the last
        // answer was read. How that happened is told by the requests on it.
        tokio::spawn(async move {
            let _ = poll_fn(|context| {
                let polled = Pin::new(&mut connection).poll(context);
                told.store(connection.current_max_send_streams(), Ordering::Relaxed);
                polled
            })
            .await;
        });
        let line = Arc::new(SharedLine {
            sender,
            taken: AtomicUsize::new(1),
            allowed,
            was_used: AtomicBool::new(true),
        });
        lines.opened.fetch_add(1, Ordering::Relaxed);
        lines.lines().push(Arc::clone(&line));
        Self::watch(lines);
        Ok(Stream(line))
    }

    /// Makes sure that unused connections are closed when their time is over, also when no request comes.
    fn watch(lines: &Arc<Self>) {
        if lines.is_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let timeout = lines.timeout;
        let lines: Weak<Self> = Arc::downgrade(lines);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(timeout).await;
                let Some(lines) = lines.upgrade() else { return };
                lines.lines().retain(|line| line.is_wanted());
            }
        });
    }
}

impl SharedLine {
    /// A place, if there is one; the lock on the connections is held.
    fn take(line: &Arc<Self>) -> Option<Stream> {
        let most = line.allowed.load(Ordering::Relaxed).clamp(1, MOST_STREAMS);
        if line.taken.load(Ordering::Relaxed) >= most {
            return None;
        }
        line.taken.fetch_add(1, Ordering::Relaxed);
        line.was_used.store(true, Ordering::Relaxed);
        Some(Stream(Arc::clone(line)))
    }

    /// Whether it is alive and was used since this was asked last.
    fn is_wanted(&self) -> bool {
        let was_used = self.was_used.swap(false, Ordering::Relaxed);
        self.sender.is_ready() && (was_used || self.taken.load(Ordering::Relaxed) > 0)
    }
}

impl Stream {
    /// What sends the request.
    pub(super) fn sender(&self) -> http2::SendRequest<RequestBody> {
        self.0.sender.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// The connection ended before it came to this request.
    Ended,
    /// The provider takes no more for now.
    Refused,
}

/// Whether a provider is certain to have done nothing with a request that failed.
pub(super) fn unread(error: &hyper::Error) -> Option<Unread> {
    let error = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    if !error.is_remote() {
        return None;
    }
    match error.reason() {
        // The provider named the last request that it works on, and this one came after it.
        _ if error.is_go_away() => Some(Unread::Ended),
        Some(h2::Reason::REFUSED_STREAM) if error.is_reset() => Some(Unread::Refused),
        _ => None,
    }
}

/// Whether a connection broke because the other side does not speak HTTP/2, as far as that can be told.
pub(super) fn is_not_spoken(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| {
        source.is::<std::io::Error>()
            || source.downcast_ref::<h2::Error>().is_some_and(|error| error.is_library())
    })
}

/// The same request once more, if its body is at hand.
pub(super) fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let Either::Left(body) = request.body() else { return None };
    let mut copy = Request::new(Either::Left(body.clone()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// The form of HTTP/2: the host is in the address.
pub(super) fn for_http2(request: &mut Request<RequestBody>, to: &Uri) {
    let mut parts = to.clone().into_parts();
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts).expect("an address with another path is an address");
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(HOST);
}

/// The form of HTTP/1.1: the host is in a header.
pub(super) fn for_http1(request: &mut Request<RequestBody>) {
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str()).expect("a host is valid in a header");
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        *request.uri_mut() = path;
    }
    *request.version_mut() = Version::HTTP_11;
}
