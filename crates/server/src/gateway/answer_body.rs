//! The body of an answer on its way from the provider.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::connections::{Idle, OwnLine};
use super::http1::Http1Error;
use super::shared::Stream;
use super::slots::Slot;

/// What an answer comes over.
pub(super) enum Carrier {
    /// A connection of its own, which its reader drives, and where that goes afterwards.
    Own { line: Option<Box<OwnLine>>, idle: Arc<Idle> },
    /// A connection that drives itself, and whether the answer is a success.
    Shared { incoming: Incoming, is_success: bool, _stream: Stream },
}

/// The body of an answer, which drives its connection and gives it back after the end.
pub(super) struct AnswerBody {
    carrier: Carrier,
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
    /// The connection broke, or what came over it is no answer.
    #[error("the provider broke off its answer")]
    Http1(#[source] Http1Error),
    /// The same over HTTP/2.
    #[error("the provider broke off its answer")]
    Http2(#[source] hyper::Error),
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

impl Carrier {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self {
            Self::Own { line: None, .. } => Poll::Ready(None),
            Self::Own { line: Some(line), .. } => {
                let data = ready!(line.poll_data(context));
                Poll::Ready(data.map(|data| data.map(Frame::data).map_err(AnswerError::Http1)))
            }
            Self::Shared { incoming, is_success, .. } => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(context));
                let is_cut = frame.is_none() && *is_success && !is_whole(incoming);
                let frame = frame.map(|frame| frame.map_err(AnswerError::Http2));
                Poll::Ready(if is_cut { Some(Err(AnswerError::Cut)) } else { frame })
            }
        }
    }
}

/// Whether a stream that has ended was the whole answer.
///
/// A provider may give one up without an error and without an end, and rightly so after an error that it answers
/// before it has read the request.
fn is_whole(incoming: &Incoming) -> bool {
    incoming.is_end_stream() || incoming.size_hint().exact() == Some(0)
}

impl AnswerBody {
    /// A body that may be silent for so long.
    pub(super) fn new(carrier: Carrier, longest_silence: Duration, slot: Slot) -> Self {
        Self {
            carrier,
            has_unflushed: false,
            broken: None,
            silence: Silence { longest: longest_silence, since: None, alarm: None },
            _slot: slot,
        }
    }
}

impl Body for AnswerBody {
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
        match this.carrier.poll(context) {
            Poll::Ready(Some(Err(error))) if this.has_unflushed => {
                // An error right away would throw away what the client's connection still buffers; it
                // writes that out when there is nothing more for the moment.
                this.broken = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                (this.has_unflushed, this.silence.since) = (true, None);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end @ (Some(Err(_)) | None)) => Poll::Ready(end),
            Poll::Pending => {
                this.has_unflushed = false;
                ready!(this.silence.poll(context));
                Poll::Ready(Some(Err(AnswerError::Stalled(this.silence.longest))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.carrier {
            Carrier::Own { line, .. } => {
                self.broken.is_none() && line.as_ref().is_none_or(|line| line.is_over())
            }
            Carrier::Shared { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.carrier {
            Carrier::Own { line, .. } => line
                .as_ref()
                .and_then(|line| line.bytes_left())
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Carrier::Shared { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl Drop for AnswerBody {
    /// Gives the connection back if the answer was read to its end; otherwise it is closed, or its stream reset.
    fn drop(&mut self) {
        if let Carrier::Own { line, idle } = &mut self.carrier
            && let Some(mut line) = line.take()
            && line.is_usable()
        {
            idle.put(line);
        }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").field("has_unflushed", &self.has_unflushed).finish_non_exhaustive()
    }
}
