//! The body of every answer: frames in one buffer, paced, and perhaps never finished.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::stand_in::Ticket;

/// The body of an answer, which settles the request's ticket when it ends.
///
/// Dropped before its last frame, it counts as cancelled by the client.
pub(crate) struct AnswerBody {
    ticket: Ticket,
    rest: Bytes,
    frame_lengths: std::vec::IntoIter<usize>,
    pace: Option<Pace>,
    ending: Ending,
    progress: Progress,
}

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As announced.
    Complete,
    /// With the connection closed where more was to come.
    Abort,
    /// Never: nothing more comes, and the connection stays open.
    Hang,
}

/// How far the way to an abrupt end is gone.
enum Progress {
    /// Nothing was handed out yet, not even the head.
    Untouched,
    /// Frames were handed out since the last flush.
    Unflushed,
    /// All that was handed out had its chance to be written.
    Flushed,
}

struct Pace {
    interval: Duration,
    /// When the next frame is due; the first one is at once.
    next: Option<Pin<Box<Sleep>>>,
}

/// The error that makes the HTTP server close the connection.
#[derive(Debug, thiserror::Error)]
#[error("the script drops this connection")]
pub(crate) struct Dropped;

impl AnswerBody {
    /// A body in one piece.
    pub(crate) fn whole(ticket: Ticket, bytes: impl Into<Bytes>) -> AnswerBody {
        let bytes = bytes.into();
        let lengths = vec![bytes.len()];
        AnswerBody::frames(ticket, bytes, lengths, Duration::ZERO, Ending::Complete)
    }

    /// A body of frames of the given lengths, `interval` apart.
    ///
    /// The lengths add up to at most the length of `bytes`; what is beyond is not sent.
    pub(crate) fn frames(
        ticket: Ticket,
        bytes: Bytes,
        lengths: Vec<usize>,
        interval: Duration,
        ending: Ending,
    ) -> AnswerBody {
        let paced = !interval.is_zero() && lengths.len() > 1;
        AnswerBody {
            ticket,
            rest: bytes,
            frame_lengths: lengths.into_iter(),
            pace: paced.then(|| Pace { interval, next: None }),
            ending,
            progress: Progress::Untouched,
        }
    }

    /// No byte, and the connection closed.
    pub(crate) fn nothing(ticket: Ticket) -> AnswerBody {
        let no_frames = Vec::new();
        AnswerBody::frames(ticket, Bytes::new(), no_frames, Duration::ZERO, Ending::Abort)
    }

    fn poll_abort(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        match self.progress {
            // The server flushes when a body has nothing to give for the moment; an error
            // right away would throw away what it still buffers.
            Progress::Unflushed => {
                self.progress = Progress::Flushed;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Progress::Untouched | Progress::Flushed => {
                self.ticket.dropped();
                Poll::Ready(Some(Err(Dropped)))
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        let this = &mut *self;
        if this.frame_lengths.len() == 0 {
            return match this.ending {
                Ending::Complete => Poll::Ready(None),
                Ending::Abort => this.poll_abort(context),
                // The client's leaving ends it, and drops this body.
                Ending::Hang => Poll::Pending,
            };
        }
        if let Some(pace) = &mut this.pace {
            match &mut pace.next {
                Some(next) => {
                    ready!(next.as_mut().poll(context));
                    let due = next.deadline() + pace.interval;
                    next.as_mut().reset(due);
                }
                None => {
                    let due = Instant::now() + pace.interval;
                    pace.next = Some(Box::pin(sleep_until(due)));
                }
            }
        }
        let length = this.frame_lengths.next().expect("a frame is left");
        this.progress = Progress::Unflushed;
        if this.frame_lengths.len() == 0 && this.ending == Ending::Complete {
            this.ticket.completed();
        }
        Poll::Ready(Some(Ok(Frame::data(this.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.frame_lengths.len() == 0 && self.ending == Ending::Complete
    }

    /// The length is known for a body in one piece; a stream has none.
    fn size_hint(&self) -> SizeHint {
        match (self.frame_lengths.as_slice(), self.ending) {
            ([length], Ending::Complete) => SizeHint::with_exact(*length as u64),
            (_, Ending::Complete | Ending::Abort | Ending::Hang) => SizeHint::default(),
        }
    }
}
