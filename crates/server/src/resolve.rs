//! From a session to its version: the pure assignment, the pin table, and word to the ingest.
//!
//! **Invariant:** nothing here waits for the store. The only wait is for a change of weight that is
//! being committed at this moment, it concerns only new sessions between both weights, and it is
//! bounded by [`LONGEST_WAIT`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serin_core::ids::{PackName, SessionHash, SessionKey, Version};
use serin_core::prompt::Pack;
use serin_core::routing::{
    Assigned, Bucket, Cohort, CohortId, Contact, Pin, PinAction, Reason, Turn, assign,
};
use serin_core::weight::Weight;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::pins::{InsertOutcome, PinTable};
use crate::signal::{self, SignalSender};
use crate::snapshot::{PackSnapshot, Snapshot};

/// Longest time that a new session waits for a change of weight under way.
pub const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Answers which version a session gets, from memory.
#[derive(Debug)]
pub struct Resolver {
    snapshot: ArcSwap<Snapshot>,
    published: Notify,
    /// The pins of all live sessions.
    pub pins: PinTable,
    /// Tells the time.
    pub clock: Clock,
    /// Where contacts and facts go.
    pub signals: SignalSender,
    /// What is counted on the way.
    pub counts: ResolveCounts,
}

/// What is counted on the way.
#[derive(Debug, Default)]
pub struct ResolveCounts {
    /// New sessions that could not be pinned because the table was full.
    pub unpinned: AtomicU64,
    /// New sessions that waited in vain for a change of weight.
    pub wait_timeouts: AtomicU64,
    /// Requests without any session key.
    pub keyless: AtomicU64,
}

/// Who asks.
pub struct Visit<'a> {
    /// The pack.
    pub pack: &'a PackName,
    /// The session; a request without one is its own session and is not pinned.
    pub session: Option<&'a SessionKey>,
    /// A key for a request without one, once in a lifetime.
    pub own_key: &'a (dyn Fn() -> SessionKey + Sync),
    /// Index of the session's segment.
    pub segment: usize,
    /// Who sent the last message.
    pub turn: Turn,
    /// A version that an authorised caller names.
    pub version: Option<&'a Version>,
}

/// The version of a session.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The pack as it was served.
    pub pack: Arc<PackSnapshot>,
    /// The session.
    pub key: SessionKey,
    /// The hash of its key.
    pub hash: SessionHash,
    /// What was stamped on it.
    pub cohort: Arc<Cohort>,
    /// The version that it gets: the cohort's, or the one that an authorised caller named.
    pub version: Version,
    /// Why.
    pub reason: Reason,
    /// Where it falls in the rollout in force.
    pub bucket: Option<Bucket>,
    /// The set weight.
    pub weight: Weight,
    /// Whether what is seen of this request counts; a version that a caller names does not.
    pub counts: bool,
}

impl Resolved {
    /// The prompts of the version; nothing for a version-only pack.
    pub fn prompts(&self) -> Option<&Arc<Pack>> {
        self.pack.prompts.get(&self.version)
    }
}

/// Why a session got no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is no such pack.
    #[error("pack {0} does not exist")]
    UnknownPack(PackName),
    /// The caller names a version that the pack does not serve.
    #[error("version {version} of pack {pack} is not being served")]
    UnknownVersion {
        /// The pack.
        pack: PackName,
        /// The version.
        version: Version,
    },
}

impl Resolver {
    /// A resolver that knows no pack yet.
    pub fn new(pins: PinTable, clock: Clock, signals: SignalSender) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            published: Notify::new(),
            pins,
            clock,
            signals,
            counts: ResolveCounts::default(),
        }
    }

    /// What is served right now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Whether a pack exists.
    pub fn has_pack(&self, pack: &PackName) -> bool {
        self.snapshot.load().packs.contains_key(pack)
    }

    /// Puts one pack's new picture in force and wakes whoever waited for it.
    pub fn publish(&self, pack: Arc<PackSnapshot>) {
        self.snapshot.rcu(|current| {
            let mut next = Snapshot::clone(current);
            next.packs.insert(PackName::clone(&pack.name), Arc::clone(&pack));
            next
        });
        self.published.notify_waiters();
    }

    /// Ends when a picture is put in force after this call.
    pub fn published(&self) -> impl Future<Output = ()> + '_ {
        self.published.notified()
    }

    /// Which version a session gets, and pins it.
    ///
    /// # Errors
    /// [`ResolveError`] when there is no such pack or version.
    pub async fn resolve(&self, visit: Visit<'_>) -> Result<Resolved, ResolveError> {
        let own_key;
        let (key, pinned) = match visit.session {
            Some(key) => (key, true),
            None => {
                self.counts.keyless.fetch_add(1, Ordering::Relaxed);
                own_key = (visit.own_key)();
                (&own_key, false)
            }
        };
        let hash = SessionHash::of(visit.pack, key);
        let deadline = tokio::time::Instant::now() + LONGEST_WAIT;
        loop {
            let woken = self.published.notified();
            if let Some(resolved) = self.try_resolve(&visit, key, hash, pinned)? {
                return Ok(resolved);
            }
            if tokio::time::timeout_at(deadline, woken).await.is_err() {
                self.counts.wait_timeouts.fetch_add(1, Ordering::Relaxed);
                return self.unpinned_stable(&visit, key, hash);
            }
        }
    }

    /// Pins a session that was served without a pin before, to what it was served with.
    ///
    /// Does nothing when it has a pin; a full table is counted, and the session stays without one.
    pub fn resume(&self, pack: &PackName, key: &SessionKey, cohort: CohortId) {
        let hash = SessionHash::of(pack, key);
        if self.pins.get(hash).is_some() {
            return;
        }
        let Ok(pack) = self.pack(pack) else { return };
        let now = self.clock.now();
        match self.pins.insert(hash, None, Pin::new(cohort, now)) {
            InsertOutcome::Inserted => {
                let pack = Arc::clone(&pack.name);
                self.signals.contact(signal::Contact {
                    pack,
                    key: key.clone(),
                    hash,
                    cohort,
                    at: now,
                    pinned: true,
                });
            }
            InsertOutcome::Existing(_) => {}
            InsertOutcome::Full => {
                self.counts.unpinned.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn pack(&self, name: &PackName) -> Result<Arc<PackSnapshot>, ResolveError> {
        let snapshot = self.snapshot.load();
        snapshot.packs.get(name).cloned().ok_or_else(|| ResolveError::UnknownPack(name.clone()))
    }

    /// The answer, or nothing while a change of weight that concerns the session is being committed.
    fn try_resolve(
        &self,
        visit: &Visit<'_>,
        key: &SessionKey,
        hash: SessionHash,
        pinned: bool,
    ) -> Result<Option<Resolved>, ResolveError> {
        let pack = self.pack(visit.pack)?;
        let now = self.clock.now();
        let pin = if pinned { self.pins.get(hash) } else { None };
        // The picture may have changed since the segment was found.
        let last_segment =
            pack.route.split.as_ref().map_or(0, |split| split.segments.len().saturating_sub(1));
        let contact = Contact { key, segment: visit.segment.min(last_segment), turn: visit.turn };
        let assignment = match assign(&pack.route, pin, contact, now) {
            Assigned::Now(assignment) => assignment,
            Assigned::AfterChange => return Ok(None),
        };
        let (bucket, weight) = (assignment.bucket, assignment.weight);
        let (cohort, reason, action) = (Arc::clone(assignment.cohort), assignment.reason, assignment.pin);
        if let Some(version) = visit.version {
            return self.named(pack, version, key, hash, cohort, weight).map(Some);
        }
        let resolved = |pack: Arc<PackSnapshot>, cohort: Arc<Cohort>, reason, counts| Resolved {
            pack,
            key: key.clone(),
            hash,
            version: cohort.version.clone(),
            cohort,
            reason,
            bucket,
            weight,
            counts,
        };
        let contact = |pack: &PackSnapshot, cohort: &Cohort| signal::Contact {
            pack: Arc::clone(&pack.name),
            key: key.clone(),
            hash,
            cohort: cohort.id,
            at: now,
            pinned,
        };
        match action {
            PinAction::Touch => {
                self.pins.touch(hash, now);
                Ok(Some(resolved(pack, cohort, reason, true)))
            }
            PinAction::Create | PinAction::Move if !pinned => {
                self.signals.contact(contact(&pack, &cohort));
                Ok(Some(resolved(pack, cohort, reason, true)))
            }
            PinAction::Create | PinAction::Move => {
                match self.pins.insert(hash, pin, Pin::new(cohort.id, now)) {
                    InsertOutcome::Inserted => {
                        self.signals.contact(contact(&pack, &cohort));
                        Ok(Some(resolved(pack, cohort, reason, true)))
                    }
                    // Another request of the same session was first: its pin holds.
                    InsertOutcome::Existing(existing) => {
                        let cohort = pack.route.cohorts.get(existing.cohort).cloned().unwrap_or(cohort);
                        Ok(Some(resolved(pack, cohort, Reason::Pinned, true)))
                    }
                    InsertOutcome::Full => {
                        self.counts.unpinned.fetch_add(1, Ordering::Relaxed);
                        self.unpinned_stable(visit, key, hash).map(Some)
                    }
                }
            }
        }
    }

    /// A version that an authorised caller names: served, never counted, never pinned.
    fn named(
        &self,
        pack: Arc<PackSnapshot>,
        version: &Version,
        key: &SessionKey,
        hash: SessionHash,
        cohort: Arc<Cohort>,
        weight: Weight,
    ) -> Result<Resolved, ResolveError> {
        if !pack.route.serves(version, self.clock.now()) {
            return Err(ResolveError::UnknownVersion {
                pack: PackName::clone(&pack.name),
                version: version.clone(),
            });
        }
        Ok(Resolved {
            pack,
            key: key.clone(),
            hash,
            cohort,
            version: version.clone(),
            reason: Reason::TargetingMatch,
            bucket: None,
            weight,
            counts: false,
        })
    }

    /// Stable, unpinned and uncounted: what a new session gets when it cannot be pinned.
    fn unpinned_stable(
        &self,
        visit: &Visit<'_>,
        key: &SessionKey,
        hash: SessionHash,
    ) -> Result<Resolved, ResolveError> {
        let pack = self.pack(visit.pack)?;
        let cohort = pack.route.cohorts.get(pack.route.base).expect("a route holds its base cohort");
        Ok(Resolved {
            key: key.clone(),
            hash,
            version: cohort.version.clone(),
            cohort: Arc::clone(cohort),
            reason: Reason::Static,
            bucket: None,
            weight: Weight::ZERO,
            counts: false,
            pack,
        })
    }
}
