//! A connection to a provider over HTTP/1.1, as its client sees it.
//!
//! It does its work when whoever waits for the answer polls it: no task of its own, no queue, and no buffer that
//! outlives a poll. So a stream that waits for its next chunk costs little more than its socket. Chunks that
//! arrived together are handed out as one piece.
//!
//! ```text
//! send -> poll_head -> poll_data … until it is over -> send
//! ```

mod framing;
mod head;
mod sending;

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::{Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use self::framing::Framing;
use self::head::Head;
pub(super) use self::head::listed;
use self::sending::Sending;
use super::connections::RequestBody;

/// Bytes that are read at once, on the stack.
const AT_ONCE: usize = 8 * 1024;
/// Bytes that are read at once of an answer that comes faster than that.
const MUCH_AT_ONCE: usize = 64 * 1024;

/// How an exchange over HTTP/1.1 failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Http1Error {
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// The connection was closed too early.
    #[error("the connection was closed before the answer was complete")]
    Closed,
    /// What came is no answer.
    #[error("the answer does not begin as one of HTTP/1.1: {0}")]
    Head(httparse::Error),
    /// The head of the answer is beyond the limits.
    #[error(
        "the answer has more than {} header lines, or {} bytes of them",
        head::MOST_HEADERS,
        head::LONGEST_HEAD
    )]
    HeadTooLarge,
    /// It cannot be told where the answer ends.
    #[error("the answer is not framed as one of HTTP/1.1: {0}")]
    Framing(&'static str),
    /// The client broke off its request.
    #[error("the request broke off")]
    Request(#[source] axum::Error),
    /// The body of the request is shorter than it was to be.
    #[error("the request ended before its length")]
    Short,
}

/// One connection, which carries one request at a time.
#[derive(Debug)]
pub(super) struct Line<S> {
    stream: S,
    sending: Sending,
    /// The method of the request, which says whether its answer has a body.
    method: Method,
    answer: Answer,
    /// What came of the body together with the head.
    first: Bytes,
    /// Why the request cannot be sent to its end, told if no answer comes all the same.
    unsent: Option<Http1Error>,
    /// Whether the last read brought as much as fits.
    is_fast: bool,
    /// Whether another request may follow.
    stays_open: bool,
}

/// Where the answer is.
#[derive(Debug)]
enum Answer {
    /// The beginning of a head.
    Head(Vec<u8>),
    /// In its body.
    Body(Framing),
    /// In its body, behind which nothing can be understood.
    Garbled(&'static str),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// A connection that was just opened.
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            sending: Sending::nothing(),
            method: Method::GET,
            answer: Answer::Body(Framing::Length(0)),
            first: Bytes::new(),
            unsent: None,
            is_fast: false,
            stays_open: true,
        }
    }

    /// Whether the next request can be sent, as far as that can be told now.
    pub(super) fn is_usable(&mut self) -> bool {
        if !self.is_over() || !self.sending.is_done() || !self.stays_open {
            return false;
        }
        // Whatever comes without a request, its end included, says that there is nothing to be had here.
        let mut space = [MaybeUninit::uninit(); 1];
        let mut buffer = ReadBuf::uninit(&mut space);
        // Whoever uses the connection next polls it with a waker of its own.
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer).is_pending()
    }

    /// Whether the answer was read to its end.
    pub(super) fn is_over(&self) -> bool {
        match &self.answer {
            Answer::Body(framing) => framing.is_over() && self.first.is_empty(),
            Answer::Head(_) | Answer::Garbled(_) => false,
        }
    }

    /// The bytes of the answer that are still to come, if its head told.
    pub(super) fn bytes_left(&self) -> Option<u64> {
        let here = self.first.len() as u64;
        match &self.answer {
            Answer::Body(Framing::Length(left)) => Some(left + here),
            // Somebody may tell a length by it, which the answer may rightly have left out.
            Answer::Body(Framing::Bodiless) => None,
            Answer::Body(framing) => framing.is_over().then_some(here),
            Answer::Head(_) | Answer::Garbled(_) => None,
        }
    }

    /// Begins to send a request, whose address is a path, on a connection that is usable.
    pub(super) fn send(&mut self, request: &mut Request<RequestBody>) {
        self.method = request.method().clone();
        self.stays_open = !head::lists(request.headers(), &CONNECTION, b"close");
        self.sending = Sending::of(request);
        self.answer = Answer::Head(Vec::new());
        self.is_fast = false;
    }

    /// After a failure: puts back what was taken of the request; whether it can be sent again, because nothing of it
    /// was written.
    pub(super) fn give_back(&mut self, request: &mut Request<RequestBody>) -> bool {
        self.sending.give_back(request)
    }

    /// The head of the answer.
    ///
    /// # Errors
    /// [`Http1Error`] when none comes; the connection is of no use then.
    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<()>, Http1Error>> {
        loop {
            self.poll_send(context)?;
            let mut space = [MaybeUninit::uninit(); AT_ONCE];
            let mut buffer = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            let error = match read {
                Ok(()) if buffer.filled().is_empty() => Http1Error::Closed,
                Ok(()) => match self.head(buffer.filled_mut())? {
                    Some(answer) => return Poll::Ready(Ok(answer)),
                    None => continue,
                },
                Err(error) => Http1Error::Broken(error),
            };
            return Poll::Ready(Err(self.unsent.take().unwrap_or(error)));
        }
    }

    /// The next piece of the answer's body; nothing behind its end.
    ///
    /// # Errors
    /// [`Http1Error`] when it breaks off; the connection is of no use then.
    pub(super) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Http1Error>>> {
        loop {
            if !self.first.is_empty() {
                return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
            }
            match &self.answer {
                Answer::Garbled(problem) => return Poll::Ready(Some(Err(Http1Error::Framing(problem)))),
                Answer::Head(_) => return Poll::Ready(None),
                Answer::Body(framing) if framing.is_over() => return Poll::Ready(None),
                Answer::Body(_) => {}
            }
            // A provider may begin to answer before it has the whole request.
            self.poll_send(context)?;
            let data = if self.is_fast { self.poll_much(context) } else { self.poll_some(context) };
            match ready!(data) {
                Ok(Some(data)) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(data.map(Ok)),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Goes on sending the request. That it cannot be sent to its end is no error yet: an answer may be there.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Result<(), Http1Error> {
        if self.sending.is_done() || self.unsent.is_some() {
            return Ok(());
        }
        match self.sending.poll(&mut self.stream, context) {
            Poll::Ready(Err(error @ (Http1Error::Request(_) | Http1Error::Short))) => Err(error),
            Poll::Ready(Err(error)) => {
                self.unsent = Some(error);
                Ok(())
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Reads bytes of a head; nothing when its end is not among them.
    fn head(&mut self, new: &mut [u8]) -> Result<Option<Response<()>>, Http1Error> {
        let Answer::Head(kept) = &mut self.answer else { return Ok(None) };
        let mut kept = std::mem::take(kept);
        let mut bytes = if kept.is_empty() {
            new
        } else {
            kept.extend_from_slice(new);
            &mut kept[..]
        };
        loop {
            let Some(head) = head::read(bytes)? else {
                self.answer = Answer::Head(bytes.to_vec());
                return Ok(None);
            };
            bytes = &mut bytes[head.length..];
            match head.status {
                StatusCode::SWITCHING_PROTOCOLS => return Err(Http1Error::Framing("it switches protocols")),
                status if status.is_informational() => {}
                _ => return self.begin(head, bytes).map(Some),
            }
        }
    }

    /// Begins to read the body, with what came of it together with the head.
    fn begin(&mut self, head: Head, body: &mut [u8]) -> Result<Response<()>, Http1Error> {
        let Head { status, version, reason, mut headers, length: _ } = head;
        let framing = Framing::of(&self.method, status, version, &mut headers);
        let framing = framing.map_err(Http1Error::Framing)?;
        let says = |word| head::lists(&headers, &CONNECTION, word);
        self.stays_open &= match version {
            Version::HTTP_11 => !says(b"close"),
            _ => says(b"keep-alive"),
        } && framing != Framing::UntilClose
            && self.method != Method::CONNECT;
        self.answer = Answer::Body(framing);
        let length = self.take(body);
        self.first = Bytes::copy_from_slice(&body[..length]);
        let mut answer = Response::new(());
        (*answer.status_mut(), *answer.version_mut(), *answer.headers_mut()) = (status, version, headers);
        if let Some(reason) = reason {
            answer.extensions_mut().insert(reason);
        }
        Ok(answer)
    }

    /// The number of bytes of data in a piece of the body, at whose beginning they lie now.
    fn take(&mut self, piece: &mut [u8]) -> usize {
        let Answer::Body(framing) = &mut self.answer else { return 0 };
        let taken = framing.take(piece);
        self.stays_open &= !taken.has_surplus;
        if let Some(problem) = taken.problem {
            self.answer = Answer::Garbled(problem);
        }
        taken.data
    }

    /// Reads what fits on the stack. An empty piece had no data; none at all is the end.
    fn poll_some(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Http1Error>> {
        let mut space = [MaybeUninit::uninit(); AT_ONCE];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)).map_err(Http1Error::Broken)?;
        let read = buffer.filled_mut();
        if read.is_empty() {
            return Poll::Ready(self.closed().map(|()| None));
        }
        self.is_fast = read.len() == AT_ONCE;
        let length = self.take(read);
        Poll::Ready(Ok(Some(Bytes::copy_from_slice(&read[..length]))))
    }

    /// The same for an answer that comes fast, without a copy.
    fn poll_much(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Http1Error>> {
        let mut buffer = BytesMut::with_capacity(MUCH_AT_ONCE);
        let read = ready!(pin!(self.stream.read_buf(&mut buffer)).poll(context));
        if read.map_err(Http1Error::Broken)? == 0 {
            return Poll::Ready(self.closed().map(|()| None));
        }
        self.is_fast = buffer.len() >= AT_ONCE;
        let length = self.take(&mut buffer);
        buffer.truncate(length);
        Poll::Ready(Ok(Some(buffer.freeze())))
    }

    /// The provider has closed the connection, which ends some answers and cuts others.
    fn closed(&mut self) -> Result<(), Http1Error> {
        match &mut self.answer {
            Answer::Body(framing @ Framing::UntilClose) => {
                *framing = Framing::Length(0);
                Ok(())
            }
            Answer::Body(_) | Answer::Head(_) | Answer::Garbled(_) => {
                Err(self.unsent.take().unwrap_or(Http1Error::Closed))
            }
        }
    }
}

#[cfg(test)]
mod tests;
