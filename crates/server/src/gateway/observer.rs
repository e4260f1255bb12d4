//! Measures one request and tells the ingest what became of it, exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serin_core::ids::{PackName, SessionHash};
use serin_core::observation::{ErrorKind, Fact, Response};
use serin_core::routing::CohortId;
use tokio::time::Instant;

use super::answer::{Chunk, Expected, Reading};
use super::answered::{Answered, Responses};
use super::continuations::{Continuations, Known, Questions};
use super::protocol::Protocol;
use super::settings::GatewayCounts;
use super::transcript::Recording;
use crate::resolve::{Resolved, Resolver};
use crate::signal::SessionFact;

/// Watches one request from its assignment to the end of its answer.
///
/// **Invariant:** it tells of the end once, at the latest when it is dropped; dropped before an end was told,
/// the client has left.
#[derive(Debug)]
pub(super) struct Observer {
    resolver: Arc<Resolver>,
    counts: Arc<GatewayCounts>,
    /// Whom the facts are about; nothing for a request that is no evidence.
    subject: Option<Subject>,
    started: Instant,
    status: Option<StatusCode>,
    first_content: Option<Duration>,
    done: Option<Duration>,
    expected: Expected,
    reading: Reading,
    form: Form,
    link: Option<Link>,
    /// Where it is remembered whose response it is.
    response: Option<(Arc<Responses>, Arc<PackName>, Answered)>,
    repeated_question: Option<bool>,
    /// Where the conversation is recorded; nothing for a session that is not.
    recording: Option<Recording>,
    is_over: bool,
}

/// What is needed to find a session again that has no key of its own.
#[derive(Debug)]
pub(super) struct Link {
    /// Where answers are remembered.
    pub(super) continuations: Arc<Continuations>,
    /// The pack.
    pub(super) pack: Arc<PackName>,
    /// What was asked.
    pub(super) questions: Questions,
    /// Whose answer it is.
    pub(super) known: Known,
}

#[derive(Debug, Clone)]
struct Subject {
    pack: Arc<PackName>,
    hash: SessionHash,
    cohort: CohortId,
    id: String,
    at: Timestamp,
}

/// In what form the answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Not known yet, or not to be read.
    Unread,
    /// One object, which was read.
    Whole,
    /// Events.
    Stream,
    /// Something that cannot be read in full: too large, or encoded.
    Unreadable,
    /// Something that is no answer of its protocol.
    Garbled,
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The answer arrived in full.
    Complete,
    /// The provider broke off.
    Broken,
    /// The client left.
    Left,
    /// The provider could not be reached.
    Unreachable,
    /// The provider did not begin to answer in time.
    TimedOut,
    /// The provider fell silent in the middle of its answer.
    Stalled,
    /// The request could not be made, because its prompt could not be rendered.
    NotSent,
}

/// What a request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Result {
    Success,
    Failure(ErrorKind),
    /// Neither, because the client left first.
    Neither,
}

impl Observer {
    /// Begins to measure a request, and tells of its start when asked to.
    pub(super) fn start(
        resolver: &Arc<Resolver>,
        counts: &Arc<GatewayCounts>,
        resolved: &Resolved,
        protocol: Protocol,
        started: Instant,
        id: String,
        report_start: bool,
    ) -> Self {
        let subject = resolved.counts.then(|| Subject {
            pack: Arc::clone(&resolved.pack.name),
            hash: resolved.hash,
            cohort: resolved.cohort.id,
            id,
            at: resolver.clock.now(),
        });
        if let Some(subject) = subject.as_ref().filter(|_| report_start) {
            resolver.signals.fact(subject.clone().fact(subject.at, Fact::Started));
        }
        Self {
            resolver: Arc::clone(resolver),
            counts: Arc::clone(counts),
            subject,
            started,
            status: None,
            first_content: None,
            done: None,
            expected: Expected::nothing(protocol),
            reading: Reading::default(),
            form: Form::Unread,
            link: None,
            response: None,
            repeated_question: None,
            recording: None,
            is_over: false,
        }
    }

    /// Takes note of what the answer shall be like.
    pub(super) fn expect(&mut self, expected: Expected) {
        self.expected = expected;
    }

    /// Takes note of how the session is found again.
    pub(super) fn link(&mut self, link: Option<Link>) {
        self.expected.traces = link.is_some();
        self.link = link;
    }

    /// Takes note of whose response it is going to be.
    pub(super) fn remember_response(&mut self, responses: &Arc<Responses>, resolved: &Resolved) {
        let pack = Arc::clone(&resolved.pack.name);
        self.response = Some((Arc::clone(responses), pack, Answered::of(resolved)));
    }

    /// Takes note of whether the user asks the same again.
    pub(super) fn repeats(&mut self, repeated: Option<bool>) {
        self.repeated_question = repeated;
    }

    /// Remembers the answer, before the client has all of it and can go on from it.
    fn remember(&mut self) {
        if let Some(id) = self.reading.id()
            && let Some((responses, pack, answered)) = self.response.take()
        {
            responses.remember(&pack, id, answered);
        }
        let Some(link) = self.link.take() else { return };
        for trace in self.reading.traces(&link.pack, link.questions, self.expected.protocol) {
            link.continuations.remember(trace, link.known.clone());
        }
    }

    /// Names the request among all of its pack; empty for one that does not count.
    pub(super) fn id(&self) -> &str {
        self.subject.as_ref().map_or("", |subject| &subject.id)
    }

    /// Keeps the text of the answer for a recording.
    pub(super) fn record(&mut self, recording: Option<Recording>) {
        if let Some(recording) = &recording {
            self.reading.keep_text(recording.answer());
        }
        self.recording = recording;
    }

    /// Takes note of the answer's status.
    pub(super) fn head(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Takes note that the answer is a stream of events.
    pub(super) fn is_stream(&mut self) {
        self.form = Form::Stream;
    }

    /// Reads the data of an event, and says what it is.
    pub(super) fn event(&mut self, data: &[u8], is_error: bool) -> Chunk {
        if is_error {
            self.reading.set_error();
        }
        if data.is_empty() {
            return Chunk::Other;
        }
        if data == b"[DONE]" {
            self.done = Some(self.started.elapsed());
            self.remember();
            return Chunk::Other;
        }
        match self.reading.read_chunk(data, &self.expected) {
            Ok(chunk) => {
                match chunk {
                    Chunk::Content if self.first_content.is_none() => {
                        self.first_content = Some(self.started.elapsed());
                    }
                    Chunk::End => {
                        self.done = Some(self.started.elapsed());
                        self.remember();
                    }
                    Chunk::Content | Chunk::UsageOnly | Chunk::Other => {}
                }
                chunk
            }
            Err(_) => {
                self.garbled();
                Chunk::Other
            }
        }
    }

    /// Reads an answer in one piece.
    pub(super) fn whole(&mut self, bytes: &[u8]) {
        match self.reading.read_whole(bytes, &self.expected) {
            Ok(()) => self.form = Form::Whole,
            Err(_) => self.garbled(),
        }
    }

    /// Takes note that the answer is no answer of its protocol, so that no client can read it either.
    pub(super) fn garbled(&mut self) {
        if self.form != Form::Garbled {
            self.form = Form::Garbled;
            count(&self.counts.tap_garbled);
        }
    }

    /// Takes note that the answer is in a form that only its client can read.
    pub(super) fn unreadable(&mut self) {
        if !matches!(self.form, Form::Unreadable | Form::Garbled) {
            self.form = Form::Unreadable;
            count(&self.counts.tap_unreadable);
        }
    }

    /// Takes note that a part of the answer is too large to be read.
    pub(super) fn overflow(&mut self) {
        if !matches!(self.form, Form::Unreadable | Form::Garbled) {
            self.form = Form::Unreadable;
            count(&self.counts.tap_overflow);
        }
    }

    /// Counts a chunk that was kept from the client.
    pub(super) fn chunk_removed(&self) {
        count(&self.counts.usage_chunks_removed);
    }

    /// Whether the end was told.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Tells of the end; later calls do nothing.
    pub(super) fn end(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let elapsed = self.started.elapsed();
        self.remember();
        let result = self.result(ending);
        if ending == Ending::Stalled {
            count(&self.counts.stalled);
        }
        count(match result {
            Result::Success => &self.counts.succeeded,
            Result::Failure(ErrorKind::Provider) => &self.counts.provider_failed,
            Result::Failure(ErrorKind::Request | ErrorKind::App) => &self.counts.request_failed,
            Result::Neither => &self.counts.client_left,
        });
        let mut reading = std::mem::take(&mut self.reading);
        if reading.has_overflowed() {
            count(&self.counts.tap_overflow);
        }
        let Some(subject) = self.subject.take() else { return };
        let text = reading.kept_text();
        let mut response = Response { ttft_ms: self.first_content.map(milliseconds), ..Response::default() };
        match result {
            Result::Success => {
                response.success = Some(true);
                response.latency_ms = Some(milliseconds(self.done.unwrap_or(elapsed)));
                match self.form {
                    Form::Whole | Form::Stream => {
                        if let Some(unjudged) = reading.complete_into(&self.expected, &mut response) {
                            self.counts.left_unjudged(&subject.pack, unjudged);
                        }
                    }
                    Form::Unread | Form::Unreadable | Form::Garbled => {
                        reading.tokens_into(&self.expected, &mut response)
                    }
                }
            }
            Result::Failure(kind) => {
                response.success = Some(false);
                response.error = Some(kind);
                // How fast a failure came says nothing about speed, except that a timeout is slow.
                response.latency_ms =
                    matches!(ending, Ending::TimedOut | Ending::Stalled).then(|| milliseconds(elapsed));
                reading.tokens_into(&self.expected, &mut response);
            }
            Result::Neither => reading.tokens_into(&self.expected, &mut response),
        }
        response.repeated_question = self.repeated_question.filter(|_| response.success.is_some());
        if let (Some(recording), Some(text)) = (self.recording.take(), text) {
            recording.end(text, &response, !matches!(self.form, Form::Unreadable | Form::Garbled));
        }
        let until = self.resolver.clock.now();
        self.resolver.signals.fact(subject.fact(until, Fact::Response(response)));
    }

    fn result(&self, ending: Ending) -> Result {
        let provider = Result::Failure(ErrorKind::Provider);
        match (ending, self.status) {
            (Ending::NotSent, _) => return Result::Failure(ErrorKind::Request),
            (Ending::Unreachable | Ending::TimedOut, _) => return provider,
            (Ending::Complete | Ending::Broken | Ending::Left | Ending::Stalled, Some(status))
                if !status.is_success() =>
            {
                let is_request = status.is_client_error()
                    && status != StatusCode::TOO_MANY_REQUESTS
                    && status != StatusCode::REQUEST_TIMEOUT;
                return if is_request { Result::Failure(ErrorKind::Request) } else { provider };
            }
            (Ending::Complete | Ending::Broken | Ending::Left | Ending::Stalled, Some(_) | None) => {}
        }
        if self.reading.has_error() || self.form == Form::Garbled {
            return provider;
        }
        let has_finish = self.done.is_some() || self.reading.finish_reason().is_some();
        match ending {
            Ending::Complete if self.form == Form::Stream && !has_finish => provider,
            Ending::Complete => Result::Success,
            // The end mark was there: what came apart behind it is not the answer.
            Ending::Broken | Ending::Stalled if self.done.is_some() => Result::Success,
            Ending::Left if has_finish => Result::Success,
            Ending::Left => Result::Neither,
            Ending::Broken | Ending::Stalled | Ending::Unreachable | Ending::TimedOut | Ending::NotSent => {
                provider
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.end(Ending::Left);
    }
}

impl Subject {
    fn fact(self, until: Timestamp, fact: Fact) -> SessionFact {
        let Self { pack, hash, cohort, id, at } = self;
        SessionFact { pack, hash, cohort, id, at, until, fact }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
