//! What the request path tells the ingest: contacts and facts, over a bounded queue.
//!
//! Sending never waits. What does not fit is dropped and counted, and `/metrics` shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serin_core::ids::{PackName, SessionHash, SessionKey};
use serin_core::observation::Fact;
use serin_core::routing::CohortId;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Notify, mpsc, oneshot};

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
    hurry: Arc<Notify>,
}

/// The receiving end of the queue.
///
/// Whoever takes from it may leave signals there for a moment, so that they cost no waking up each; it is told when
/// that has to end.
#[derive(Debug)]
pub struct Signals {
    queue: mpsc::Receiver<Signal>,
    hurry: Arc<Notify>,
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
pub fn queue(capacity: usize) -> (SignalSender, Signals) {
    let (queue, receiver) = mpsc::channel(capacity);
    let hurry: Arc<Notify> = Arc::default();
    let signals = Signals { queue: receiver, hurry: Arc::clone(&hurry) };
    (SignalSender { queue, dropped: Arc::default(), hurry }, signals)
}

impl Signals {
    /// The next signal; nothing once nobody is left to send one.
    pub async fn recv(&mut self) -> Option<Signal> {
        self.queue.recv().await
    }

    /// How many wait to be received.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The next signal, if there is one.
    ///
    /// # Errors
    /// When there is none for now, or ever.
    pub fn try_recv(&mut self) -> Result<Signal, TryRecvError> {
        self.queue.try_recv()
    }

    /// Ends once somebody waits for what is in the queue to be durable, or the queue is half full.
    pub async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Takes no more signals; those in the queue can still be received.
    pub fn close(&mut self) {
        self.queue.close();
    }
}

impl SignalSender {
    /// Tells of an assignment; says whether it fitted.
    pub fn contact(&self, contact: Contact) -> bool {
        let fits = self.send(Signal::Contact(contact));
        if !fits {
            self.dropped.contacts.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Tells of something seen; says whether it fitted.
    pub fn fact(&self, fact: SessionFact) -> bool {
        let fits = self.send(Signal::Fact(fact));
        if !fits {
            self.dropped.facts.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    fn send(&self, signal: Signal) -> bool {
        let fits = self.queue.try_send(signal).is_ok();
        if self.queue.capacity() < self.queue.max_capacity() / 2 {
            self.hurry.notify_one();
        }
        fits
    }

    /// Waits until everything sent before is durable; `false` when the ingest is gone.
    pub async fn barrier(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        let is_sent = self.queue.send(Signal::Barrier(answer)).await.is_ok();
        self.hurry.notify_one();
        is_sent && answered.await.is_ok()
    }

    /// What did not fit so far.
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }
}

#[cfg(test)]
mod tests {
    use serin_core::observation::Fact;

    use super::*;

    #[tokio::test]
    async fn whoever_lets_signals_wait_is_told_once_half_of_the_queue_is_taken() {
        let (sender, signals) = queue(4);
        let at = Timestamp::UNIX_EPOCH;
        let pack = Arc::new(PackName::parse("support").unwrap());
        let fact = |id: &str| SessionFact {
            pack: Arc::clone(&pack),
            hash: SessionHash(1),
            cohort: CohortId(0),
            id: id.to_owned(),
            at,
            until: at,
            fact: Fact::Started,
        };
        let is_hurried = |signals: &Signals| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            std::pin::pin!(signals.hurried()).poll(&mut context).is_ready()
        };
        assert!(sender.fact(fact("1")) && sender.fact(fact("2")));
        assert!(!is_hurried(&signals));
        assert!(sender.fact(fact("3")));
        assert!(is_hurried(&signals));
    }
}
