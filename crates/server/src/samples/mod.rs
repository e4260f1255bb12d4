//! Conversation samples: what people read before they decide. Off unless switched on.
//!
//! ```text
//! gateway -> Draft -> bounded queue (drops counted) -> redact, cut -> Sample -> store, until it expires
//! ```
//!
//! **Invariant:** what is kept is a [`Sample`], and only [`Draft::redacted`] makes one of what was said. A draft
//! lives in memory, and none of its texts is ever logged.

mod draft;
mod early;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serin_core::ids::{PackName, RolloutId, SessionHash, SessionKey, Version};
use serin_core::redact::Redactor;
use serin_core::routing::{CohortId, Variant};
use serin_core::sample::is_drawn;
use serin_core::units::HoldFor;
use serin_core::weight::Weight;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use self::draft::{Draft, Subject};
use self::early::Early;
use self::writer::Writer;
use crate::store::Store;

/// Drafts that wait for the writer at most; a further one is dropped and counted.
pub const QUEUE: usize = 256;
/// The longest time that a reader waits for drafts under way.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);

/// What is recorded, and for how long.
#[derive(Debug, Clone)]
pub struct SampleSettings {
    /// Share of the sessions that are recorded; zero records nothing.
    pub rate: Weight,
    /// Samples that are kept of each version of a pack; beyond it the oldest go.
    pub limit: usize,
    /// The most bytes of text that are kept of one sample.
    pub max_bytes: usize,
    /// How long a sample is kept.
    pub expiry: HoldFor,
    /// What is taken out of every text.
    pub redactor: Redactor,
}

impl SampleSettings {
    /// Nothing is recorded.
    pub fn off() -> Self {
        Self {
            rate: Weight::ZERO,
            limit: 500,
            max_bytes: 16 << 10,
            expiry: HoldFor::from_hours(7 * 24),
            redactor: Redactor::default(),
        }
    }
}

/// One request of a conversation and its answer, redacted.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Names the request.
    pub id: String,
    /// The pack.
    pub pack: PackName,
    /// The session, as the app calls it.
    pub key: SessionKey,
    /// The hash of its key.
    pub hash: SessionHash,
    /// What was stamped on it.
    pub cohort: CohortId,
    /// The version that answered.
    pub version: Version,
    /// The side of the comparison; nothing outside of a rollout.
    pub variant: Option<Variant>,
    /// The rollout that the session belongs to.
    pub rollout: Option<RolloutId>,
    /// Its segment in that rollout.
    pub segment: Option<String>,
    /// When the request came.
    pub at: Timestamp,
    /// What stands out about the answer.
    pub signals: Vec<SampleSignal>,
    /// What was said.
    pub said: Said,
}

/// What was said in one request and its answer.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Said {
    /// The prompt of the pack, which stands for the system text.
    pub prompt: String,
    /// The model that was asked for.
    pub model: String,
    /// The last turn of the user, and what followed it.
    pub messages: Vec<Message>,
    /// The answer, with the tools that it called.
    pub answer: String,
    /// Milliseconds from the request to the end of the answer.
    pub latency_ms: Option<f64>,
    /// Places that were taken out of the texts.
    pub redactions: u32,
}

/// A message of a request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Who speaks: `user`, `assistant`, `tool`, …
    pub role: String,
    /// What is said.
    pub text: String,
}

/// What stands out about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SampleSignal {
    /// It refuses.
    Refusal,
    /// It stopped at the token limit.
    Truncated,
    /// It holds neither text nor a tool call.
    Empty,
    /// It failed.
    Error,
    /// It calls an unknown tool, or one with arguments that do not fit.
    ToolWrong,
    /// It breaks the format that was asked for.
    InvalidFormat,
    /// The user had asked the same thing before.
    RepeatedQuestion,
    /// The client left before its end.
    Left,
    /// It came in a form that cannot be read, or was too large.
    Unreadable,
}

impl SampleSignal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Refusal,
        Self::Truncated,
        Self::Empty,
        Self::Error,
        Self::ToolWrong,
        Self::InvalidFormat,
        Self::RepeatedQuestion,
        Self::Left,
        Self::Unreadable,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refusal => "refusal",
            Self::Truncated => "truncated",
            Self::Empty => "empty",
            Self::Error => "error",
            Self::ToolWrong => "tool_wrong",
            Self::InvalidFormat => "invalid_format",
            Self::RepeatedQuestion => "repeated_question",
            Self::Left => "left",
            Self::Unreadable => "unreadable",
        }
    }

    /// The signal with a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == word)
    }
}

/// What is counted on the way.
#[derive(Debug, Default)]
pub struct SampleCounts {
    stored: AtomicU64,
    dropped: AtomicU64,
    displaced: AtomicU64,
    redactions: AtomicU64,
    early: Early,
}

impl SampleCounts {
    /// Samples that are stored.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Samples that were lost because the queue was full or the store failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Samples that went before their expiry, because newer ones took their place.
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }

    /// Samples that newer ones took the place of before a judge could read them.
    pub fn displaced_early(&self) -> u64 {
        self.early.total()
    }

    /// Those of a rollout.
    pub fn displaced_early_of(&self, rollout: &RolloutId) -> u64 {
        self.early.of(rollout)
    }

    /// Places that were taken out of texts.
    pub fn redactions(&self) -> u64 {
        self.redactions.load(Ordering::Relaxed)
    }
}

/// What the writer is told.
enum Told {
    Draft(Box<Draft>),
    /// Asks for an answer once every draft before it is stored or dropped.
    Settle(oneshot::Sender<()>),
}

/// Decides who is recorded, and hands drafts to the writer.
pub struct Samples {
    settings: SampleSettings,
    counts: Arc<SampleCounts>,
    queue: mpsc::Sender<Told>,
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Samples").field("rate", &self.settings.rate).finish_non_exhaustive()
    }
}

impl Samples {
    /// Starts the writer; it ends when the last clone of the samples is gone.
    pub fn start(settings: SampleSettings, store: Store) -> (Arc<Self>, JoinHandle<()>) {
        let (queue, told) = mpsc::channel(QUEUE);
        let counts: Arc<SampleCounts> = Arc::default();
        let writer = Writer { settings: settings.clone(), store, counts: Arc::clone(&counts) };
        let task = tokio::spawn(writer.run(told));
        (Arc::new(Self { settings, counts, queue }), task)
    }

    /// What is recorded, and for how long.
    pub fn settings(&self) -> &SampleSettings {
        &self.settings
    }

    /// What was counted so far.
    pub fn counts(&self) -> &SampleCounts {
        &self.counts
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.settings.rate > Weight::ZERO
    }

    /// Whether a session is recorded.
    pub fn draws(&self, session: SessionHash) -> bool {
        self.is_on() && is_drawn(session, self.settings.rate)
    }

    /// Hands a draft to the writer, without waiting.
    pub fn record(&self, draft: Box<Draft>) {
        if self.queue.try_send(Told::Draft(draft)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits, for a moment at most, until every draft that was handed over is stored or dropped.
    pub async fn settled(&self) {
        let settle = async {
            let (answer, answered) = oneshot::channel();
            if self.queue.send(Told::Settle(answer)).await.is_ok() {
                // A writer that is gone has nothing under way.
                let _ = answered.await;
            }
        };
        // What is not there in time is not shown yet.
        let _ = tokio::time::timeout(SETTLED_WITHIN, settle).await;
    }
}
