//! The way from the request path to the store: one task that writes what it is told, in batches.
//!
//! While the store is away, what was told waits here: assignments always, facts up to
//! [`MOST_WAITING_FACTS`], beyond which the oldest are dropped and counted.
//!
//! **Invariant:** an answer to a barrier or a report means that everything before it is durable.

mod gathering;
mod unfinished;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use self::gathering::Gathering;
use self::unfinished::Unfinished;
use crate::errors::Chain;
use crate::signal::{Contact, SessionFact, Signal, Signals};
use crate::store::{Batch, Receipt, Store, StoreError};

/// Contacts, and facts, that are written in one transaction at most.
pub const BATCH: usize = 4_000;
/// Facts that wait at most while the store is away.
pub const MOST_WAITING_FACTS: usize = 100_000;
/// Reports that wait at most for their turn.
const MOST_WAITING_REPORTS: usize = 256;
/// Pauses between attempts while the store is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Attempts to write what is left when the server stops.
const LAST_ATTEMPTS: u32 = 5;

/// What the ingest has done so far.
#[derive(Debug, Default)]
pub struct IngestCounts {
    written: AtomicU64,
    contacts: AtomicU64,
    duplicates: AtomicU64,
    dropped: AtomicU64,
    is_failing: AtomicBool,
    batches: AtomicU64,
    failures: AtomicU64,
    waiting: AtomicU64,
}

impl IngestCounts {
    /// Facts that are stored and counted.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Assignments that are stored.
    pub fn contacts(&self) -> u64 {
        self.contacts.load(Ordering::Relaxed)
    }

    /// Facts whose id was counted before.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Facts that were dropped because the store was away for too long.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Transactions that were committed.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Transactions that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether the last attempt to write failed.
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Assignments and facts that wait for the store.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// The running ingest.
#[derive(Debug)]
pub struct Ingest {
    counts: Arc<IngestCounts>,
    reports: mpsc::Sender<Report>,
    stop: watch::Sender<bool>,
    task: JoinHandle<bool>,
}

/// Writes facts that somebody waits for; clones share one ingest.
#[derive(Debug, Clone)]
pub struct Reporter(mpsc::Sender<Report>);

/// Why a report was not written; nothing of it is stored then, and it can be sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The store failed.
    #[error("the facts could not be written: {0}")]
    Store(String),
    /// Too many reports wait for their turn.
    #[error("too many reports wait to be written")]
    Busy,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

#[derive(Debug)]
struct Report {
    facts: Vec<SessionFact>,
    answer: oneshot::Sender<Result<Vec<Receipt>, ReportError>>,
}

impl Ingest {
    /// Starts the task that owns the receiving end of the queue.
    pub fn spawn(store: Store, signals: Signals) -> Self {
        let counts: Arc<IngestCounts> = Arc::default();
        let (reports, reported) = mpsc::channel(MOST_WAITING_REPORTS);
        let (stop, stopped) = watch::channel(false);
        let writer = Writer { store, counts: Arc::clone(&counts), waiting: Waiting::default() };
        let task = tokio::spawn(writer.run(signals, reported, stopped));
        Self { counts, reports, stop, task }
    }

    /// What it has done so far.
    pub fn counts(&self) -> &Arc<IngestCounts> {
        &self.counts
    }

    /// Writes facts that somebody waits for.
    pub fn reporter(&self) -> Reporter {
        Reporter(self.reports.clone())
    }

    /// Writes what was told until now, and ends; whether everything could be written.
    pub async fn shutdown(self) -> bool {
        self.stop.send_replace(true);
        self.task.await.unwrap_or_else(|failed| {
            tracing::error!(error = %failed, "the ingest ended before everything was written");
            false
        })
    }
}

impl Reporter {
    /// Writes facts and tells for each whether it counts; durable once this returns.
    ///
    /// # Errors
    /// [`ReportError`] when nothing of it is stored.
    pub async fn report(&self, facts: Vec<SessionFact>) -> Result<Vec<Receipt>, ReportError> {
        if facts.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Report { facts, answer }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => ReportError::Busy,
            mpsc::error::TrySendError::Closed(_) => ReportError::Stopping,
        })?;
        answered.await.unwrap_or(Err(ReportError::Stopping))
    }
}

/// What was told and is not written yet.
#[derive(Debug, Default)]
struct Waiting {
    contacts: VecDeque<Contact>,
    facts: VecDeque<SessionFact>,
    unfinished: Unfinished,
    barriers: Vec<oneshot::Sender<()>>,
    reports: Vec<Report>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.contacts.is_empty()
            && self.facts.is_empty()
            && self.barriers.is_empty()
            && self.reports.is_empty()
    }

    /// Whether it is time to write, because somebody waits or a batch is full.
    fn is_urgent(&self) -> bool {
        !self.barriers.is_empty()
            || !self.reports.is_empty()
            || self.contacts.len() >= BATCH
            || self.facts.len() >= BATCH
    }

    fn add(&mut self, signal: Signal) {
        match signal {
            Signal::Contact(contact) => self.contacts.push_back(contact),
            Signal::Fact(fact) => self.facts.extend(self.unfinished.sift(fact, Instant::now())),
            Signal::Barrier(answer) => self.barriers.push(answer),
        }
    }

    /// Drops the oldest facts beyond the limit and says how many.
    fn drop_oldest_facts(&mut self) -> u64 {
        let excess = self.facts.len().saturating_sub(MOST_WAITING_FACTS);
        self.facts.drain(..excess);
        u64::try_from(excess).unwrap_or(u64::MAX)
    }

    /// The next batch; assignments go before the facts about them.
    fn next_batch(&mut self) -> Batch {
        let contacts: Vec<Contact> = self.contacts.drain(..self.contacts.len().min(BATCH)).collect();
        // Facts wait until every assignment before them is written.
        let facts = if self.contacts.is_empty() { self.facts.len().min(BATCH) } else { 0 };
        Batch { contacts, facts: self.facts.drain(..facts).collect(), touches: Vec::new() }
    }

    /// Puts a batch that was not written back to where it came from.
    fn put_back(&mut self, batch: Batch) {
        batch.contacts.into_iter().rev().for_each(|contact| self.contacts.push_front(contact));
        batch.facts.into_iter().rev().for_each(|fact| self.facts.push_front(fact));
    }
}

struct Writer {
    store: Store,
    counts: Arc<IngestCounts>,
    waiting: Waiting,
}

impl Writer {
    async fn run(
        mut self,
        mut signals: Signals,
        mut reports: mpsc::Receiver<Report>,
        mut stopped: watch::Receiver<bool>,
    ) -> bool {
        let mut backoff = BACKOFF.0;
        // While the store is away: when to try again.
        let mut retry_at: Option<Instant> = None;
        loop {
            let told = self.listen(&mut signals, &mut reports, &mut stopped, retry_at).await;
            if told == Told::Stop {
                break;
            }
            if retry_at.is_some_and(|at| Instant::now() < at) {
                // Whoever waits for an answer is told at once; the rest waits for the next attempt.
                self.refuse_reports("the store is away");
                continue;
            }
            match self.flush().await {
                Ok(()) => {
                    self.counts.is_failing.store(false, Ordering::Relaxed);
                    (backoff, retry_at) = (BACKOFF.0, None);
                }
                Err(error) => {
                    self.counts.is_failing.store(true, Ordering::Relaxed);
                    tracing::warn!(error = %Chain(&error), "the ingest could not write; it will try again");
                    retry_at = Some(Instant::now() + backoff);
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
        self.finish(signals, reports).await
    }

    /// Takes in what is told, until there is something to write or the next attempt is due.
    async fn listen(
        &mut self,
        signals: &mut Signals,
        reports: &mut mpsc::Receiver<Report>,
        stopped: &mut watch::Receiver<bool>,
        retry_at: Option<Instant>,
    ) -> Told {
        let overdue = self.waiting.unfinished.next_overdue();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => return Told::Stop,
            () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => return Told::Something,
            () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {}
            Some(report) = reports.recv() => self.waiting.reports.push(report),
            signal = signals.recv() => match signal {
                Some(signal) => self.waiting.add(signal),
                // Nobody is left to tell anything, now or later.
                None => return Told::Stop,
            }
        }
        self.waiting.facts.extend(self.waiting.unfinished.overdue(Instant::now()));
        let mut gathering = Gathering::begin(Instant::now());
        while retry_at.is_none() && !self.waiting.is_urgent() {
            tokio::select! {
                Some(report) = reports.recv() => self.waiting.reports.push(report),
                () = signals.hurried() => break,
                () = sleep_until(gathering.next_look()) => {
                    if !gathering.goes_on(signals.waiting()) {
                        break;
                    }
                }
            }
        }
        while let Ok(report) = reports.try_recv() {
            self.waiting.reports.push(report);
        }
        // Whatever was told before these reports goes before them: a fact is worth nothing without its session.
        while let Ok(signal) = signals.try_recv() {
            self.waiting.add(signal);
        }
        self.count_waiting();
        Told::Something
    }

    /// Writes everything that waits, and answers whoever waits for it.
    async fn flush(&mut self) -> Result<(), StoreError> {
        while !self.waiting.is_empty() {
            let mut batch = self.waiting.next_batch();
            // Reports go with the last batch, behind everything that was told before them.
            let is_last = self.waiting.contacts.is_empty() && self.waiting.facts.is_empty();
            let reports = if is_last { std::mem::take(&mut self.waiting.reports) } else { Vec::new() };
            let own_facts = batch.facts.len();
            let mut lengths = Vec::with_capacity(reports.len());
            let mut answers = Vec::with_capacity(reports.len());
            for report in reports {
                lengths.push(report.facts.len());
                answers.push(report.answer);
                batch.facts.extend(report.facts);
            }
            match self.store.write(&batch).await {
                Ok(written) => {
                    self.count_batch(&batch, &written.receipts);
                    let mut receipts = written.receipts.into_iter().skip(own_facts);
                    for (answer, length) in answers.into_iter().zip(lengths) {
                        // Whoever has gone away needs no answer.
                        let _ = answer.send(Ok(receipts.by_ref().take(length).collect()));
                    }
                    if is_last {
                        for barrier in self.waiting.barriers.drain(..) {
                            let _ = barrier.send(());
                        }
                    }
                }
                Err(error) => {
                    self.counts.failures.fetch_add(1, Ordering::Relaxed);
                    for answer in answers {
                        let _ = answer.send(Err(ReportError::Store(error.to_string())));
                    }
                    batch.facts.truncate(own_facts);
                    self.waiting.put_back(batch);
                    self.refuse_reports(&error.to_string());
                    self.count_waiting();
                    return Err(error);
                }
            }
        }
        self.count_waiting();
        Ok(())
    }

    /// Takes in what is left in the queues and writes it, in a bounded number of attempts; whether it could.
    async fn finish(mut self, mut signals: Signals, mut reports: mpsc::Receiver<Report>) -> bool {
        signals.close();
        reports.close();
        while let Some(signal) = signals.recv().await {
            self.waiting.add(signal);
        }
        while let Some(report) = reports.recv().await {
            self.waiting.reports.push(report);
        }
        for attempt in 1..=LAST_ATTEMPTS {
            match self.flush().await {
                Ok(()) => return true,
                Err(error) => {
                    tracing::warn!(attempt, error = %Chain(&error), "the ingest could not write what was left");
                    tokio::time::sleep(BACKOFF.0 * attempt).await;
                }
            }
        }
        let (contacts, facts) = (self.waiting.contacts.len(), self.waiting.facts.len());
        tracing::error!(
            contacts,
            facts,
            "the server stops without having written {contacts} contacts and {facts} facts"
        );
        false
    }

    fn refuse_reports(&mut self, why: &str) {
        for report in self.waiting.reports.drain(..) {
            let _ = report.answer.send(Err(ReportError::Store(why.to_owned())));
        }
    }

    fn count_batch(&self, batch: &Batch, receipts: &[Receipt]) {
        let add = |counter: &AtomicU64, n: usize| {
            counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        let duplicates = receipts.iter().filter(|receipt| **receipt == Receipt::Duplicate).count();
        add(&self.counts.batches, 1);
        add(&self.counts.contacts, batch.contacts.len());
        add(&self.counts.written, receipts.len() - duplicates);
        add(&self.counts.duplicates, duplicates);
    }

    fn count_waiting(&mut self) {
        let dropped = self.waiting.drop_oldest_facts();
        self.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
        let waiting = self.waiting.contacts.len() + self.waiting.facts.len();
        self.counts.waiting.store(u64::try_from(waiting).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Something,
    Stop,
}
