//! What the gateway is told, and what it counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderName;
use serin_core::ids::{PackName, SessionKey};

use super::answer::Unjudged;
use super::prices::Prices;
use crate::samples::Samples;

/// Draws 128 random bits; the ids of requests and of sessions without a key are made of them.
#[derive(Clone)]
pub struct Ids(Arc<dyn Fn() -> u128 + Send + Sync>);

impl Ids {
    /// Ids from a source of random bits.
    pub fn new(draw: impl Fn() -> u128 + Send + Sync + 'static) -> Self {
        Self(Arc::new(draw))
    }

    /// A new id: 32 hexadecimal digits.
    pub fn text(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bits = (self.0)();
        let digits: [u8; 32] =
            std::array::from_fn(|place| DIGITS[(bits >> (4 * (31 - place))) as usize & 15]);
        std::str::from_utf8(&digits).expect("hexadecimal digits are ASCII").to_owned()
    }

    /// A new key for a session that has none.
    pub fn session(&self) -> SessionKey {
        SessionKey::parse(&self.text()).expect("32 hexadecimal digits are a session key")
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

/// What becomes of the pack's system text when the request has system messages of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SystemMessage {
    /// It goes before them.
    #[default]
    Prepend,
    /// It takes their place.
    Replace,
    /// Such a request is refused.
    Reject,
}

/// Whether streamed answers are asked for their usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamUsage {
    /// `stream_options.include_usage` is added, and the extra chunk kept from clients that did not ask.
    ///
    /// The other chunks of such a stream carry `"usage":null`, which clients ignore.
    #[default]
    Add,
    /// Requests stay as they are; streams of clients that do not ask tell no tokens.
    Leave,
}

/// Settings of the gateway.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// The largest body of a chat request, in bytes.
    pub body_limit: usize,
    /// The largest answer in one piece that is observed, in bytes; a larger one passes and is counted.
    pub answer_limit: usize,
    /// Headers that name the session, besides `x-serin-session`; the first one present wins.
    pub session_headers: Vec<HeaderName>,
    /// What becomes of the request's own system messages.
    pub system_message: SystemMessage,
    /// Whether streamed answers are asked for their usage.
    pub stream_usage: StreamUsage,
    /// Whether a caller may name a version; without it such a request is refused.
    pub allow_version_override: bool,
    /// What tokens cost, by model.
    pub prices: Prices,
    /// Answers that are remembered to find sessions without a key, and questions to see repeated ones.
    pub most_continuations: usize,
    /// Responses that are remembered to tell later whose they were, of about 150 bytes each.
    pub most_responses: usize,
    /// Whether the ingest is told of a request when it starts, so that one that hangs is seen.
    pub report_starts: bool,
    /// Who is recorded as a sample; nothing records nobody.
    pub samples: Option<Arc<Samples>>,
    /// Where new ids come from.
    pub ids: Ids,
}

impl GatewaySettings {
    /// The settings that hold unless somebody says otherwise.
    pub fn new(ids: Ids) -> Self {
        Self {
            body_limit: 32 << 20,
            answer_limit: 1 << 20,
            session_headers: Vec::new(),
            system_message: SystemMessage::default(),
            stream_usage: StreamUsage::default(),
            allow_version_override: false,
            prices: Prices::default(),
            most_continuations: 200_000,
            most_responses: 200_000,
            report_starts: true,
            samples: None,
            ids,
        }
    }
}

/// What the gateway counts.
#[derive(Debug, Default)]
pub struct GatewayCounts {
    /// All requests.
    pub requests: AtomicU64,
    /// Requests that passed through without a prompt of ours.
    pub passed: AtomicU64,
    /// Requests that got a prompt and a complete answer.
    pub succeeded: AtomicU64,
    /// Requests that got a prompt and that the provider failed: 429, 5xx, a timeout, a broken stream.
    pub provider_failed: AtomicU64,
    /// Requests that got a prompt and that the provider refused, or whose prompt could not be rendered.
    pub request_failed: AtomicU64,
    /// Requests that got a prompt and whose client left first.
    pub client_left: AtomicU64,
    /// Requests that the gateway answered with an error of its own.
    pub refused: AtomicU64,
    /// Requests for which the provider could not be reached.
    pub unreachable: AtomicU64,
    /// Requests for which the provider did not begin to answer in time.
    pub timed_out: AtomicU64,
    /// Requests refused because too many were under way to their provider.
    pub busy: AtomicU64,
    /// Answers in whose middle the provider fell silent for too long.
    pub stalled: AtomicU64,
    /// Answers that were too large to be observed in full.
    pub tap_overflow: AtomicU64,
    /// Answers in a form that only their clients can read, such as a compressed one.
    pub tap_unreadable: AtomicU64,
    /// Answers that are none of their protocol, such as half a JSON; they count as failures of the provider.
    pub tap_garbled: AtomicU64,
    /// Parameters of packs that the protocol of a request does not have, once for each request.
    pub parameters_left_out: AtomicU64,
    /// Tools of packs that were not added, because the request offers functions in the old form.
    pub tools_left_out: AtomicU64,
    /// Requests that bring a history and no session: those that may change versions between turns.
    pub history_without_session: AtomicU64,
    /// Answers whose tool calls are neither right nor wrong, for a schema is too large or too much work.
    pub tools_unjudged_by_schema: AtomicU64,
    /// Answers whose tool calls are neither right nor wrong, for there are too many or too long ones.
    pub tools_unjudged_by_size: AtomicU64,
    /// What is told of each pack; only packs that exist are in it.
    by_pack: Mutex<BTreeMap<PackName, PackCounts>>,
    /// Requests without a key whose session was found by a response that they name.
    pub sessions_by_response: AtomicU64,
    /// Requests without a key whose session was found by our answer inside of them.
    pub sessions_by_answer: AtomicU64,
    /// Requests without a key whose answer inside was given to sessions of several versions, so that it tells nothing.
    pub answers_ambiguous: AtomicU64,
    /// Remembered answers and questions that were forgotten to make room.
    pub answers_forgotten: AtomicU64,
    /// Responses of which it was forgotten whose they were, to make room for newer ones.
    pub responses_forgotten: AtomicU64,
    /// Requests for models without a price, while others have one.
    pub unpriced: AtomicU64,
    /// Requests that named their version.
    pub version_overrides: AtomicU64,
    /// Chunks with the usage that were kept from clients that did not ask for them.
    pub usage_chunks_removed: AtomicU64,
}

/// What is counted of one pack.
#[derive(Debug, Clone, Copy, Default)]
struct PackCounts {
    history_without_session: u64,
    tools_unjudged: u64,
}

impl GatewayCounts {
    /// Counts a request of a pack that brings a history and no session.
    pub(super) fn has_no_session(&self, pack: &PackName) {
        self.history_without_session.fetch_add(1, Ordering::Relaxed);
        self.of_pack(pack, |counts| counts.history_without_session += 1);
    }

    /// Counts an answer to a request of a pack whose tool calls nobody can judge.
    pub(super) fn left_unjudged(&self, pack: &PackName, why: Unjudged) {
        let count = match why {
            Unjudged::BySchema => &self.tools_unjudged_by_schema,
            Unjudged::BySize => &self.tools_unjudged_by_size,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.of_pack(pack, |counts| counts.tools_unjudged += 1);
    }

    fn of_pack(&self, pack: &PackName, count: impl Fn(&mut PackCounts)) {
        let mut by_pack = self.by_pack.lock().unwrap_or_else(PoisonError::into_inner);
        count(by_pack.entry(pack.clone()).or_default());
    }

    fn counted_of(&self, pack: &PackName) -> PackCounts {
        self.by_pack.lock().unwrap_or_else(PoisonError::into_inner).get(pack).copied().unwrap_or_default()
    }

    /// Requests of a pack that brought a history and no session.
    pub fn without_session(&self, pack: &PackName) -> u64 {
        self.counted_of(pack).history_without_session
    }

    /// Answers to requests of a pack whose tool calls nobody could judge.
    pub fn tools_unjudged(&self, pack: &PackName) -> u64 {
        self.counted_of(pack).tools_unjudged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_hexadecimal_digits() {
        let ids = Ids::new(|| 0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(ids.text(), "0123456789abcdef0011223344556677");
        assert_eq!(ids.session().as_str(), ids.text());
    }
}
