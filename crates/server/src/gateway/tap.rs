//! Watches an answer on its way to the client.
//!
//! Frames pass as the same memory that the provider's connection gave. There is one exception: the chunk
//! with the usage that the gateway asked for in place of the client. While it is awaited, an event that
//! arrived in part waits for its rest; a client could not have read it either.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::answer::Chunk;
use super::answer_body::AnswerError;
use super::observer::{Ending, Observer};
use super::sse::Scanner;

/// The most bytes of an unfinished event that wait; the usage is far smaller.
const MOST_HELD: usize = 16 * 1024;

/// How the answer is read.
#[derive(Debug)]
pub(super) enum Watch {
    /// Its status says it all.
    Head,
    /// As one object of at most so many bytes.
    Whole(usize),
    /// As events.
    Stream,
    /// As events, of which the one with the usage is kept from the client.
    StreamWithoutUsage,
}

/// The body of an answer, watched.
///
/// Dropping it drops the provider's body, which cancels the call.
#[derive(Debug)]
pub(super) struct Tap<B: Body<Data = Bytes, Error: 'static> + Unpin> {
    inner: B,
    observer: Observer,
    reader: Reader,
    /// The end that comes after what was held.
    last: Option<Last<B::Error>>,
}

#[derive(Debug)]
enum Last<E> {
    End,
    Error(E),
}

#[derive(Debug)]
enum Reader {
    Head,
    Whole { kept: Kept, limit: usize },
    Stream { scanner: Scanner, removal: Removal },
}

/// An answer in one piece, as far as it arrived.
#[derive(Debug)]
enum Kept {
    Nothing,
    /// One frame, the usual case.
    One(Bytes),
    Several(Vec<u8>),
    TooLarge,
}

/// The search for the chunk that the client shall not see.
#[derive(Debug, Default)]
struct Removal {
    is_waiting: bool,
    /// The beginning of an event whose rest has not arrived.
    held: Vec<u8>,
    /// Whether the beginning of the event under way was passed on already.
    is_begun: bool,
    /// Whether the last frame ended with an event whose last byte is a carriage return; its line feed may come.
    ends_in_return: bool,
    /// Whether that event was removed, so that its line feed goes with it.
    drops_line_feed: bool,
}

/// What becomes of a frame.
enum Pass {
    Same,
    Other(Bytes),
    Nothing,
}

impl<B: Body<Data = Bytes, Error: 'static> + Unpin> Tap<B> {
    /// Watches a body.
    pub(super) fn new(inner: B, watch: Watch, mut observer: Observer) -> Self {
        let reader = match watch {
            Watch::Head => Reader::Head,
            Watch::Whole(limit) => Reader::Whole { kept: Kept::Nothing, limit },
            Watch::Stream | Watch::StreamWithoutUsage => {
                observer.is_stream();
                let is_waiting = matches!(watch, Watch::StreamWithoutUsage);
                Reader::Stream {
                    scanner: Scanner::default(),
                    removal: Removal { is_waiting, ..Removal::default() },
                }
            }
        };
        Self { inner, observer, reader, last: None }
    }

    fn see(&mut self, data: &Bytes) -> Pass {
        match &mut self.reader {
            Reader::Head => Pass::Same,
            Reader::Whole { kept, limit } => {
                kept.add(data, *limit);
                Pass::Same
            }
            Reader::Stream { scanner, removal } => {
                let observer = &mut self.observer;
                let start = removal.start_of(data);
                let mut last_end = start;
                let mut cut = None;
                let can_cut_first = !removal.is_begun;
                scanner.feed(data, |event| {
                    if event.is_oversized {
                        observer.overflow();
                    }
                    let chunk = observer.event(event.data, event.is_error);
                    let is_first = last_end == start;
                    if chunk == Chunk::UsageOnly && removal.is_waiting && (can_cut_first || !is_first) {
                        removal.is_waiting = false;
                        cut = Some(last_end..event.end);
                    }
                    last_end = event.end;
                });
                match cut {
                    Some(cut) => {
                        observer.chunk_removed();
                        removal.cut(data, cut)
                    }
                    None if removal.is_waiting => removal.pass_up_to(data, last_end),
                    None => removal.pass(data),
                }
            }
        }
    }

    /// The answer arrived in full.
    fn complete(&mut self) {
        if self.observer.is_over() {
            return;
        }
        let observer = &mut self.observer;
        match &mut self.reader {
            Reader::Head => {}
            Reader::Whole { kept, .. } => match kept {
                Kept::Nothing => observer.garbled(),
                Kept::One(bytes) => observer.whole(bytes),
                Kept::Several(bytes) => observer.whole(bytes),
                Kept::TooLarge => observer.overflow(),
            },
            Reader::Stream { scanner, .. } => scanner.finish(|event| {
                observer.event(event.data, event.is_error);
            }),
        }
        self.observer.end(Ending::Complete);
    }

    /// How an answer ends that breaks off with an error.
    fn ending_of(&self, error: &B::Error) -> Ending {
        let error: &dyn std::any::Any = error;
        match error.downcast_ref::<AnswerError>() {
            Some(AnswerError::Stalled(_)) => Ending::Stalled,
            Some(AnswerError::Http1(_) | AnswerError::Http2(_) | AnswerError::Cut) | None => Ending::Broken,
        }
    }

    fn held(&mut self) -> Option<Bytes> {
        match &mut self.reader {
            Reader::Stream { removal, .. } if !removal.held.is_empty() => {
                Some(Bytes::from(std::mem::take(&mut removal.held)))
            }
            Reader::Head | Reader::Whole { .. } | Reader::Stream { .. } => None,
        }
    }

    fn has_held(&self) -> bool {
        match &self.reader {
            Reader::Stream { removal, .. } => !removal.held.is_empty(),
            Reader::Head | Reader::Whole { .. } => false,
        }
    }
}

impl Kept {
    fn add(&mut self, data: &Bytes, limit: usize) {
        let length = match self {
            Self::Nothing => 0,
            Self::One(first) => first.len(),
            Self::Several(bytes) => bytes.len(),
            Self::TooLarge => return,
        };
        if length + data.len() > limit {
            *self = Self::TooLarge;
            return;
        }
        match self {
            Self::Nothing => *self = Self::One(data.clone()),
            Self::One(first) => *self = Self::Several([&first[..], data].concat()),
            Self::Several(bytes) => bytes.extend_from_slice(data),
            Self::TooLarge => {}
        }
    }
}

impl Removal {
    /// Where a frame begins to belong to a new event: behind the line feed that the last one still lacked.
    fn start_of(&mut self, data: &Bytes) -> usize {
        usize::from(std::mem::take(&mut self.ends_in_return) && data.first() == Some(&b'\n'))
    }

    /// Passes a frame on after the search.
    fn pass(&mut self, data: &Bytes) -> Pass {
        if std::mem::take(&mut self.drops_line_feed) && data.first() == Some(&b'\n') {
            return some(data.slice(1..));
        }
        Pass::Same
    }

    /// Passes on what belongs to complete events, and holds the rest.
    fn pass_up_to(&mut self, data: &Bytes, end: usize) -> Pass {
        let rest = &data[end..];
        self.ends_in_return = rest.is_empty() && data.last() == Some(&b'\r');
        let is_begun = self.is_begun && end == 0;
        if is_begun || self.held.len() * usize::from(end == 0) + rest.len() > MOST_HELD {
            // Too long for the usage, or begun to pass already: all of it goes on.
            self.is_begun = true;
            return self.with_held(data);
        }
        self.is_begun = false;
        if end == 0 {
            self.held.extend_from_slice(rest);
            return Pass::Nothing;
        }
        let pass = if rest.is_empty() { self.with_held(data) } else { self.with_held(&data.slice(..end)) };
        self.held.extend_from_slice(rest);
        match pass {
            Pass::Same if !rest.is_empty() => Pass::Other(data.slice(..end)),
            pass => pass,
        }
    }

    /// Leaves one event out, with what was held of it.
    fn cut(&mut self, data: &Bytes, cut: std::ops::Range<usize>) -> Pass {
        let after = data.slice(cut.end..);
        self.drops_line_feed = after.is_empty() && data[..cut.end].ends_with(b"\r");
        if cut.start == 0 {
            self.held.clear();
            return some(after);
        }
        match (self.with_held(&data.slice(..cut.start)), after.is_empty()) {
            (Pass::Same | Pass::Nothing, true) => Pass::Other(data.slice(..cut.start)),
            (Pass::Same | Pass::Nothing, false) => Pass::Other([&data[..cut.start], &after].concat().into()),
            (Pass::Other(before), true) => Pass::Other(before),
            (Pass::Other(before), false) => Pass::Other([&before[..], &after].concat().into()),
        }
    }

    fn with_held(&mut self, data: &Bytes) -> Pass {
        if self.held.is_empty() {
            return Pass::Same;
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(data);
        Pass::Other(held.into())
    }
}

fn some(data: Bytes) -> Pass {
    if data.is_empty() { Pass::Nothing } else { Pass::Other(data) }
}

/// Nothing in it is ever pinned in place.
impl<B: Body<Data = Bytes, Error: 'static> + Unpin> Unpin for Tap<B> {}

impl<B: Body<Data = Bytes, Error: 'static> + Unpin> Body for Tap<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        loop {
            match this.last.take() {
                Some(Last::End) => {
                    this.last = Some(Last::End);
                    return Poll::Ready(None);
                }
                Some(Last::Error(error)) => {
                    this.last = Some(Last::End);
                    return Poll::Ready(Some(Err(error)));
                }
                None => {}
            }
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                None => {
                    this.complete();
                    this.last = Some(Last::End);
                    match this.held() {
                        Some(held) => return Poll::Ready(Some(Ok(Frame::data(held)))),
                        None => continue,
                    }
                }
                Some(Err(error)) => {
                    let ending = this.ending_of(&error);
                    this.observer.end(ending);
                    this.last = Some(Last::Error(error));
                    match this.held() {
                        Some(held) => return Poll::Ready(Some(Ok(Frame::data(held)))),
                        None => continue,
                    }
                }
            };
            let pass = frame.data_ref().map_or(Pass::Same, |data| this.see(data));
            // The server asks no further once it knows that this was the last frame.
            if this.inner.is_end_stream() && !this.has_held() {
                this.complete();
            }
            match pass {
                Pass::Same => return Poll::Ready(Some(Ok(frame))),
                Pass::Other(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Pass::Nothing => {}
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.last {
            Some(Last::End) => true,
            Some(Last::Error(_)) => false,
            None => self.inner.is_end_stream() && !self.has_held(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.reader {
            Reader::Stream { .. } => SizeHint::default(),
            Reader::Head | Reader::Whole { .. } => self.inner.size_hint(),
        }
    }
}

impl<B: Body<Data = Bytes, Error: 'static> + Unpin> Drop for Tap<B> {
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.complete();
        }
    }
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
