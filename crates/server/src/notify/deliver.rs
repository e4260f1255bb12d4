//! Delivery: each receiver at its own place in the audit log, with its own waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serin_core::audit::AuditEntry;
use serin_core::units::HoldFor;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::backoff::Backoff;
use super::client::{Client, Outgoing, Reach, Undelivered};
use super::event::Event;
use super::link::Links;
use super::message::{Holds, Message};
use super::picture::Picture;
use super::receiver::{Channel, NotifySettings, Receiver};
use super::{alertmanager, pagerduty, slack, webhook};
use crate::control::Control;
use crate::errors::Chain;
use crate::store::{AuditFilter, DeadLetter, Delivery, Store, StoreError};

/// How often a receiver's place is compared with the end of the audit log.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Entries of the audit log that are read at a time.
const PAGE: u32 = 100;
/// Pages that one look goes through at most.
const MOST_PAGES: usize = 20;
/// Refusals of one event after which it goes to the dead letters.
///
/// More than one, because what stands before a receiver answers for it while it is being restarted.
const MOST_REFUSALS: u32 = 5;
/// Dead letters of one receiver that are kept; the oldest go first.
pub(crate) const MOST_DEAD: u32 = 10_000;
/// Dead letters that one call tries again.
const MOST_RETRIED: u32 = 100;

/// Tells receivers what happened.
#[derive(Debug)]
pub struct Notifier {
    control: Arc<Control>,
    client: Client,
    links: Arc<Links>,
    settings: NotifySettings,
    workers: Vec<Worker>,
}

/// One receiver and how far it is.
#[derive(Debug)]
struct Worker {
    receiver: Receiver,
    desk: Mutex<Desk>,
    counts: Counts,
}

/// What is kept between two looks; the store has a copy of the delivery.
#[derive(Debug)]
struct Desk {
    delivery: Delivery,
    /// The place that the store knows.
    stored: u64,
    backoff: Backoff,
}

/// What is counted of one receiver.
#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicU64,
    failures: AtomicU64,
    buried: AtomicU64,
    dropped: AtomicU64,
    unknown: AtomicU64,
}

/// Why receivers could not be told.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// TLS cannot be set up.
    #[error("could not set up TLS for the receivers of notifications")]
    Tls(#[source] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a receiver stands.
#[derive(Debug, Clone)]
pub struct Standing<'n> {
    /// The receiver.
    pub receiver: &'n Receiver,
    /// How far it is.
    pub delivery: Delivery,
    /// Entries of the audit log that it is not done with.
    pub behind: u64,
    /// Events that it took since the server started.
    pub delivered: u64,
    /// Attempts that failed since the server started.
    pub failed: u64,
    /// Events that went to its dead letters since the server started.
    pub buried: u64,
    /// Dead letters that made room for later ones since the server started.
    pub dropped: u64,
}

/// What came of trying dead letters again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retried {
    /// Taken this time.
    pub delivered: u32,
    /// Not taken again.
    pub failed: u32,
}

impl Notifier {
    /// Reads how far each receiver is; one that is new begins at the end of the audit log, and one that is
    /// gone from the settings is forgotten with its dead letters.
    ///
    /// # Errors
    /// [`NotifyError`] when the store or TLS fails.
    pub async fn load(
        control: Arc<Control>,
        links: Arc<Links>,
        settings: NotifySettings,
        seed: u64,
    ) -> Result<Self, NotifyError> {
        let client = Client::new().map_err(NotifyError::Tls)?;
        let store = control.store();
        let known = store.deliveries().await?;
        let names: BTreeSet<&str> =
            settings.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        for name in known.keys().filter(|name| !names.contains(name.as_str())) {
            tracing::info!(receiver = %name, "receiver {name} is not in the settings any more and is forgotten");
            store.forget_receiver(name).await?;
        }
        let (tail, _) = store.audit_tail().await?;
        let mut workers = Vec::with_capacity(settings.receivers.len());
        for receiver in &settings.receivers {
            let delivery = match known.get(&receiver.name) {
                Some(delivery) => delivery.clone(),
                None => {
                    let fresh = Delivery { done: tail, ..Delivery::default() };
                    store.save_delivery(&receiver.name, &fresh).await?;
                    fresh
                }
            };
            let backoff = Backoff::new(seed, &receiver.name);
            let desk = Mutex::new(Desk { stored: delivery.done, delivery, backoff });
            workers.push(Worker { receiver: receiver.clone(), desk, counts: Counts::default() });
        }
        Ok(Self { control, client, links, settings, workers })
    }

    /// Tells receivers for as long as the server runs; a slow one keeps no other one waiting.
    pub async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        for index in 0..self.workers.len() {
            let notifier = Arc::clone(&self);
            tasks.spawn(async move {
                let mut every = tokio::time::interval(LOOK_EVERY);
                every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    every.tick().await;
                    notifier.look_at(&notifier.workers[index]).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Tells every receiver once what it has not been told, as far as its wait is over.
    pub async fn look(&self) {
        join_all(self.workers.iter().map(|worker| self.look_at(worker))).await;
    }

    async fn look_at(&self, worker: &Worker) {
        let mut desk = worker.desk.lock().await;
        if let Err(error) = self.work(worker, &mut desk).await {
            let name = &worker.receiver.name;
            tracing::warn!(receiver = %name, error = %Chain(&error), "could not read or write what receiver {name} was told");
        }
    }

    async fn work(&self, worker: &Worker, desk: &mut Desk) -> Result<(), StoreError> {
        let store = self.control.store();
        for _ in 0..MOST_PAGES {
            if desk.delivery.next_at.is_some_and(|next| self.now() < next) {
                return Ok(());
            }
            let after = desk.delivery.done;
            let entries =
                store.audit(&AuditFilter { after, limit: Some(PAGE), ..AuditFilter::default() }).await?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in &entries {
                if !self.deal_with(worker, desk, entry).await? {
                    return Ok(());
                }
            }
            if desk.stored != desk.delivery.done {
                self.save(worker, desk).await?;
            }
        }
        Ok(())
    }

    /// Deals with one entry, and tells whether the receiver is done with it.
    async fn deal_with(
        &self,
        worker: &Worker,
        desk: &mut Desk,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let Some(event) = Event::of(entry, &self.settings.severities) else {
            worker.counts.unknown.fetch_add(1, Ordering::Relaxed);
            desk.delivery.done = entry.seq;
            return Ok(true);
        };
        let now = self.now();
        let requests = self.requests(&worker.receiver, event, now).await?;
        if requests.is_empty() {
            desk.delivery.done = entry.seq;
            return Ok(true);
        }
        match self.send(&worker.receiver, &requests).await {
            Ok(()) => {
                worker.counts.delivered.fetch_add(1, Ordering::Relaxed);
                desk.delivery = Delivery { done: entry.seq, ..Delivery::default() };
                self.save(worker, desk).await?;
                Ok(true)
            }
            Err(undelivered) => self.failed(worker, desk, entry, undelivered, now).await,
        }
    }

    /// Notes a failed attempt, and tells whether it was the last one.
    async fn failed(
        &self,
        worker: &Worker,
        desk: &mut Desk,
        entry: &AuditEntry,
        undelivered: Undelivered,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        worker.counts.failures.fetch_add(1, Ordering::Relaxed);
        let name = &worker.receiver.name;
        let delivery = &mut desk.delivery;
        delivery.failures = delivery.failures.saturating_add(1);
        let since = *delivery.failing_since.get_or_insert(now);
        let asked = match &undelivered {
            Undelivered::Later { after, .. } => after.unwrap_or_default(),
            Undelivered::Refused { .. } => {
                delivery.refusals = delivery.refusals.saturating_add(1);
                HoldFor::ZERO
            }
        };
        let problem = undelivered.problem();
        let is_hopeless =
            delivery.refusals >= MOST_REFUSALS || HoldFor::between(since, now) >= self.settings.give_up_after;
        if is_hopeless {
            let letter = DeadLetter {
                receiver: name.clone(),
                seq: entry.seq,
                at: now,
                attempts: delivery.failures,
                problem: problem.to_owned(),
            };
            let after = Delivery { done: entry.seq, ..Delivery::default() };
            tracing::error!(receiver = %name, entry = entry.seq, %problem, "receiver {name} was not told of audit entry {}: {problem}", entry.seq);
            let dropped = self.control.store().bury(&letter, &after, MOST_DEAD).await?;
            desk.stored = after.done;
            desk.delivery = after;
            worker.counts.buried.fetch_add(1, Ordering::Relaxed);
            worker.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
            return Ok(true);
        }
        let wait = desk.backoff.after(delivery.failures).max(asked);
        delivery.next_at = Some(wait.after(now));
        delivery.problem = Some(problem.to_owned());
        tracing::warn!(receiver = %name, entry = entry.seq, %problem, "could not tell receiver {name} of audit entry {}, next attempt in {wait}: {problem}", entry.seq);
        self.save(worker, desk).await?;
        Ok(false)
    }

    async fn save(&self, worker: &Worker, desk: &mut Desk) -> Result<(), StoreError> {
        self.control.store().save_delivery(&worker.receiver.name, &desk.delivery).await?;
        desk.stored = desk.delivery.done;
        Ok(())
    }

    /// What telling a receiver of an event takes; nothing when it does not want to hear of it.
    async fn requests(
        &self,
        receiver: &Receiver,
        event: Event,
        now: Timestamp,
    ) -> Result<Vec<Outgoing>, StoreError> {
        let wanted = receiver.wants(&event);
        let may_close = match &receiver.to {
            Channel::PagerDuty { .. } | Channel::Alertmanager { .. } => {
                receiver.hears_of(&event.pack) && event.may_close()
            }
            Channel::Slack { .. } | Channel::Webhook { .. } => false,
        };
        if !wanted && !may_close {
            return Ok(Vec::new());
        }
        let picture = Picture::read(&self.control, &event, now).await?;
        let severity = |cause| self.settings.severities.of_hold(cause);
        let in_force = picture.canary_of(&event).map(|canary| &canary.holds[..]).unwrap_or_default();
        let holds = Holds {
            open: in_force.iter().map(|(cause, _)| severity(*cause)).collect(),
            cleared: event.hold_cause().filter(|_| event.may_close()).map(severity),
        };
        let link = picture
            .canary_of(&event)
            .and_then(|canary| self.links.rollback(&canary.id, &receiver.label(), &event.id, now));
        let message = Message::new(event, &picture, link, holds);
        Ok(as_sent(receiver, &message, wanted, now))
    }

    async fn send(&self, receiver: &Receiver, requests: &[Outgoing]) -> Result<(), Undelivered> {
        let reach = if receiver.allow_internal { Reach::Any } else { Reach::Public };
        for request in requests {
            self.client
                .post(request, reach)
                .await
                .map_err(|undelivered| without_secrets(undelivered, receiver))?;
        }
        Ok(())
    }

    /// Sends a receiver a message that says that nothing happened; nothing when there is no such receiver.
    ///
    /// # Errors
    /// The store fails.
    pub async fn test(
        &self,
        name: &str,
        event: Event,
    ) -> Result<Option<Result<(), Undelivered>>, StoreError> {
        let Some(worker) = self.worker(name) else { return Ok(None) };
        let now = self.now();
        let picture = Picture::read(&self.control, &event, now).await?;
        let message = Message::new(event, &picture, None, Holds::default());
        let requests = as_sent(&worker.receiver, &message, true, now);
        Ok(Some(self.send(&worker.receiver, &requests).await))
    }

    /// Tries the oldest dead letters again, at most 100 of them; what is taken this time is one no longer.
    ///
    /// A receiver that cannot be reached is asked once only.
    ///
    /// # Errors
    /// The store fails.
    pub async fn retry_dead(&self) -> Result<Retried, StoreError> {
        let store = self.control.store();
        let mut retried = Retried::default();
        let mut unreached = BTreeSet::new();
        for letter in store.dead_letters(None, MOST_RETRIED).await? {
            let Some(worker) = self.worker(&letter.receiver) else { continue };
            if unreached.contains(&letter.receiver) {
                continue;
            }
            // Nothing else is sent to the receiver meanwhile.
            let _desk = worker.desk.lock().await;
            let delivered = match self.retry(worker, store, &letter).await? {
                Ok(()) => {
                    store.unbury(&letter.receiver, letter.seq).await?;
                    retried.delivered += 1;
                    &worker.counts.delivered
                }
                Err(undelivered) => {
                    if matches!(undelivered, Undelivered::Later { .. }) {
                        unreached.insert(letter.receiver.clone());
                    }
                    let attempts = letter.attempts.saturating_add(1);
                    let problem = undelivered.problem().to_owned();
                    store.update_dead(&DeadLetter { attempts, problem, at: self.now(), ..letter }).await?;
                    retried.failed += 1;
                    &worker.counts.failures
                }
            };
            delivered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(retried)
    }

    async fn retry(
        &self,
        worker: &Worker,
        store: &Store,
        letter: &DeadLetter,
    ) -> Result<Result<(), Undelivered>, StoreError> {
        let filter = AuditFilter { after: letter.seq - 1, limit: Some(1), ..AuditFilter::default() };
        let entry = store.audit(&filter).await?.pop().filter(|entry| entry.seq == letter.seq);
        let event = entry.and_then(|entry| Event::of(&entry, &self.settings.severities));
        // Without its entry there is nothing that could be told.
        let Some(event) = event else { return Ok(Ok(())) };
        let requests = self.requests(&worker.receiver, event, self.now()).await?;
        Ok(self.send(&worker.receiver, &requests).await)
    }

    /// How each receiver stands.
    ///
    /// # Errors
    /// The store fails.
    pub async fn standings(&self) -> Result<Vec<Standing<'_>>, StoreError> {
        let (tail, _) = self.control.store().audit_tail().await?;
        let known = self.control.store().deliveries().await?;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok(self
            .workers
            .iter()
            .map(|Worker { receiver, counts, .. }| {
                let delivery = known.get(&receiver.name).cloned().unwrap_or_default();
                Standing {
                    receiver,
                    behind: tail.saturating_sub(delivery.done),
                    delivery,
                    delivered: load(&counts.delivered),
                    failed: load(&counts.failures),
                    buried: load(&counts.buried),
                    dropped: load(&counts.dropped),
                }
            })
            .collect())
    }

    /// What is counted of each receiver: taken, failed, dead, dead and dropped, unknown.
    pub fn counts(&self) -> impl Iterator<Item = (&str, [u64; 5])> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.workers.iter().map(move |Worker { receiver, counts, .. }| {
            let Counts { delivered, failures, buried, dropped, unknown } = counts;
            (receiver.name.as_str(), [delivered, failures, buried, dropped, unknown].map(load))
        })
    }

    /// The settings.
    pub fn settings(&self) -> &NotifySettings {
        &self.settings
    }

    fn worker(&self, name: &str) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.receiver.name == name)
    }

    fn now(&self) -> Timestamp {
        self.control.resolver().clock.now()
    }
}

/// A message in the form of a receiver.
fn as_sent(receiver: &Receiver, message: &Message, wanted: bool, now: Timestamp) -> Vec<Outgoing> {
    match &receiver.to {
        Channel::Slack { url } => slack::requests(url, message),
        Channel::PagerDuty { url, key } => pagerduty::requests(url, key, message, wanted),
        Channel::Alertmanager { url } => alertmanager::requests(url, message, wanted),
        Channel::Webhook { url, key } => webhook::requests(url, key, message, now),
    }
}

/// Takes out what a receiver may have said about its own secrets.
fn without_secrets(undelivered: Undelivered, receiver: &Receiver) -> Undelivered {
    let hide = |problem: String| {
        receiver
            .to
            .secrets()
            .iter()
            .filter(|secret| secret.len() > 1)
            .fold(problem, |problem, secret| problem.replace(secret, "…"))
    };
    match undelivered {
        Undelivered::Later { problem, after } => Undelivered::Later { problem: hide(problem), after },
        Undelivered::Refused { problem } => Undelivered::Refused { problem: hide(problem) },
    }
}
