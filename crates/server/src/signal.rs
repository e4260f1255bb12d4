//! What the request path tells the ingest: contacts and facts, over a bounded queue.
//!
//! Sending never waits. What does not fit is dropped and counted, and `/metrics` shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serin_core::ids::{PackName, SessionHash, SessionKey};
use serin_core::observation::Fact;
use serin_core::routing::CohortId;
use tokio::sync::{mpsc, oneshot};

/// What the request path tells the ingest.
#[derive(Debug)]
pub enum Signal {
    /// A session was assigned.
    Contact(Contact),
    /// Something was seen of a session.
    Fact(SessionFact),
    /// Asks for an answer once everything sent before is durable.
    Barrier(oneshot::Sender<()>),
}

/// The assignment of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Contact {
    /// The pack.
    pub pack: Arc<PackName>,
    /// What the app calls the session.
    pub key: SessionKey,
    /// The hash of the key.
    pub hash: SessionHash,
    /// What was stamped on it.
    pub cohort: CohortId,
    /// When.
    pub at: Timestamp,
    /// Whether the session keeps the assignment; one without a key of its own does not.
    pub pinned: bool,
}

/// Something seen of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionFact {
    /// The pack.
    pub pack: Arc<PackName>,
    /// The hash of the session's key.
    pub hash: SessionHash,
    /// What was stamped on the session.
    pub cohort: CohortId,
    /// Names the request or the event, once within a pack.
    pub id: String,
    /// When the request was sent, or the outcome happened.
    pub at: Timestamp,
    /// When the request ended.
    pub until: Timestamp,
    /// What was seen.
    pub fact: Fact,
}

/// The sending end of the queue.
#[derive(Debug, Clone)]
pub struct SignalSender {
    queue: mpsc::Sender<Signal>,
    dropped: Arc<Dropped>,
}

/// Signals that did not fit into the queue.
#[derive(Debug, Default)]
pub struct Dropped {
    contacts: AtomicU64,
    facts: AtomicU64,
}

impl Dropped {
    /// Contacts that did not fit.
    pub fn contacts(&self) -> u64 {
        self.contacts.load(Ordering::Relaxed)
    }

    /// Facts that did not fit.
    pub fn facts(&self) -> u64 {
        self.facts.load(Ordering::Relaxed)
    }
}

/// Opens a queue that holds at most `capacity` signals.
pub fn queue(capacity: usize) -> (SignalSender, mpsc::Receiver<Signal>) {
    let (queue, receiver) = mpsc::channel(capacity);
    (SignalSender { queue, dropped: Arc::default() }, receiver)
}

impl SignalSender {
    /// Tells of an assignment; says whether it fitted.
    pub fn contact(&self, contact: Contact) -> bool {
        let fits = self.queue.try_send(Signal::Contact(contact)).is_ok();
        if !fits {
            self.dropped.contacts.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Tells of something seen; says whether it fitted.
    pub fn fact(&self, fact: SessionFact) -> bool {
        let fits = self.queue.try_send(Signal::Fact(fact)).is_ok();
        if !fits {
            self.dropped.facts.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Waits until everything sent before is durable; `false` when the ingest is gone.
    pub async fn barrier(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Signal::Barrier(answer)).await.is_ok() && answered.await.is_ok()
    }

    /// What did not fit so far.
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }
}
