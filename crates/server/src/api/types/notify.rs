//! Who is told what happened, and what could not be told.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::DeadLetter;

/// The receivers of notifications.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReceiverList {
    /// In the order of the settings.
    pub receivers: Vec<ReceiverView>,
}

/// A receiver, and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReceiverView {
    /// What people call it.
    pub name: String,
    /// `slack`, `pagerduty`, `alertmanager` or `webhook`.
    pub kind: String,
    /// Scheme and host; the path may be a secret.
    pub at: String,
    /// Packs that it is told about; empty for all.
    pub packs: Vec<String>,
    /// Events that it is told; empty for all.
    pub events: Vec<String>,
    /// The least urgent that it is told: `page`, `tell` or `info`.
    pub min_severity: String,
    /// Entries of the audit log that it is not done with.
    pub behind: u64,
    /// Failed attempts at the next entry.
    pub failures: u32,
    /// When the first of them was made; absent while nothing fails.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failing_since: Option<Timestamp>,
    /// When the next attempt is due; absent while nothing fails.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Timestamp>,
    /// What went wrong at the last attempt; absent while nothing fails.
    pub problem: Option<String>,
    /// Events that it took since the server started.
    pub delivered: u64,
    /// Attempts that failed since the server started.
    pub failed: u64,
    /// Events that went to its dead letters since the server started.
    pub buried: u64,
    /// Dead letters that made room for later ones since the server started.
    pub dropped: u64,
}

/// What came of a test message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestedView {
    /// The receiver.
    pub receiver: String,
    /// Whether it took the message.
    pub delivered: bool,
    /// Why not; absent when it did.
    pub problem: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What could not be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetters {
    /// Oldest first.
    pub letters: Vec<DeadLetterView>,
}

/// An entry of the audit log that a receiver was not told of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterView {
    /// The receiver.
    pub receiver: String,
    /// The number of the entry.
    pub seq: u64,
    /// When it was last given up.
    #[schema(value_type = String, format = DateTime)]
    pub given_up_at: Timestamp,
    /// Attempts that failed.
    pub attempts: u32,
    /// What went wrong at the last one.
    pub problem: String,
}

impl From<DeadLetter> for DeadLetterView {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { receiver, seq, at, attempts, problem } = letter;
        Self { receiver, seq, given_up_at: at, attempts, problem }
    }
}

/// What came of trying dead letters again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetriedView {
    /// Taken this time.
    pub delivered: u32,
    /// Not taken again.
    pub failed: u32,
}
