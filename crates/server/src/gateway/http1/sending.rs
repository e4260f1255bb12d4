//! A request on its way to the provider.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use http::Request;
use http_body::Body as _;
use http_body_util::{BodyExt, Either, Full};
use tokio::io::AsyncWrite;

use super::head::{self, BodyForm};
use super::{Http1Error, RequestBody};

/// What is left to be written of a request.
#[derive(Debug)]
pub(super) struct Sending {
    /// Goes next, in this order.
    pieces: [Bytes; 3],
    rest: Option<Rest>,
    has_begun: bool,
    is_flushed: bool,
}

/// The part of a body that its client has not sent yet.
#[derive(Debug)]
struct Rest {
    body: Body,
    form: BodyForm,
}

impl Sending {
    /// Nothing.
    pub(super) fn nothing() -> Self {
        Self { pieces: Default::default(), rest: None, has_begun: false, is_flushed: true }
    }

    /// A request, of which a body that is streamed is taken; [`Self::give_back`] undoes that.
    pub(super) fn of(request: &mut Request<RequestBody>) -> Self {
        let (form, whole) = match request.body() {
            Either::Left(whole) => {
                let whole = bytes_of(whole);
                (BodyForm::Length(whole.len() as u64), whole)
            }
            Either::Right(body) => {
                (body.size_hint().exact().map_or(BodyForm::Chunked, BodyForm::Length), Bytes::new())
            }
        };
        let head = Bytes::from(head::write(request, form));
        let rest = match request.body_mut() {
            Either::Left(_) => None,
            Either::Right(body) => Some(Rest { body: std::mem::take(body), form }),
        };
        Self { pieces: [head, whole, Bytes::new()], rest, has_begun: false, is_flushed: false }
    }

    /// Whether every byte of it was written.
    pub(super) fn is_done(&self) -> bool {
        self.is_flushed
    }

    /// Puts the body back that was taken; whether nothing of the request was written, so that it can be sent again.
    pub(super) fn give_back(&mut self, request: &mut Request<RequestBody>) -> bool {
        if !self.has_begun
            && let Some(rest) = self.rest.take()
        {
            *request.body_mut() = Either::Right(rest.body);
        }
        !self.has_begun
    }

    /// Writes what can be written now; ready when all of it is.
    ///
    /// # Errors
    /// [`Http1Error`] when it cannot be written, or when its client broke off.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Http1Error>> {
        while !self.is_flushed {
            ready!(self.poll_pieces(stream, context)).map_err(Http1Error::Broken)?;
            let Some(rest) = &mut self.rest else {
                ready!(Pin::new(&mut *stream).poll_flush(context)).map_err(Http1Error::Broken)?;
                self.is_flushed = true;
                break;
            };
            let frame = match Pin::new(&mut rest.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    // What is there goes before what is awaited.
                    ready!(Pin::new(&mut *stream).poll_flush(context)).map_err(Http1Error::Broken)?;
                    return Poll::Pending;
                }
            };
            match frame {
                // Trailers concern one connection only.
                Some(Ok(frame)) => {
                    if let Some(data) = frame.into_data().ok().filter(|data| !data.is_empty()) {
                        self.pieces = rest.pieces(data);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(Http1Error::Request(error))),
                None => {
                    let last = rest.end()?;
                    (self.pieces, self.rest) = ([last, Bytes::new(), Bytes::new()], None);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_pieces<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.pieces.iter().any(|piece| !piece.is_empty()) {
            let slices = self.pieces.each_ref().map(|piece| IoSlice::new(piece));
            let mut written = ready!(Pin::new(&mut *stream).poll_write_vectored(context, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.has_begun = true;
            for piece in &mut self.pieces {
                let of_this = written.min(piece.len());
                piece.advance(of_this);
                written -= of_this;
            }
        }
        // Written pieces are of no use to an answer that may take long.
        self.pieces = Default::default();
        Poll::Ready(Ok(()))
    }
}

impl Rest {
    fn pieces(&mut self, data: Bytes) -> [Bytes; 3] {
        match &mut self.form {
            BodyForm::Chunked => {
                let size = Bytes::from(format!("{:x}\r\n", data.len()));
                [size, data, Bytes::from_static(b"\r\n")]
            }
            BodyForm::Length(left) => {
                *left = left.saturating_sub(data.len() as u64);
                [data, Bytes::new(), Bytes::new()]
            }
        }
    }

    fn end(&self) -> Result<Bytes, Http1Error> {
        match self.form {
            BodyForm::Chunked => Ok(Bytes::from_static(b"0\r\n\r\n")),
            BodyForm::Length(0) => Ok(Bytes::new()),
            BodyForm::Length(_) => Err(Http1Error::Short),
        }
    }
}

/// All of a body that is at hand.
fn bytes_of(body: &Full<Bytes>) -> Bytes {
    let frame = body.clone().frame().now_or_never().flatten();
    frame.and_then(Result::ok).and_then(|frame| frame.into_data().ok()).unwrap_or_default()
}
