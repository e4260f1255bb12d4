//! Alerts of other systems: which of them fire, and which packs they hold.
//!
//! What was said last of each alert is in the store, so that it holds after a restart as well. An alert that ended is
//! remembered for a day, so that whoever looks can see why a hold went away.
//!
//! **Invariant:** an alert holds only packs that whoever said so may speak of, and nothing but holds comes of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use serin_core::access::Scope;
use serin_core::alert::{Alert, AlertState};
use serin_core::ids::PackName;
use serin_core::units::{HoldFor, Timestamp};

use crate::errors::Chain;
use crate::notify::alertmanager::OWN_ALERTS;
use crate::notify::receiver::Glob;
use crate::store::{Store, StoreError, StoredAlert, scope_text};

/// Alerts that may fire at a time.
pub const MOST_FIRING: usize = 1_000;
/// How long an alert that ended is remembered.
const REMEMBERED: HoldFor = HoldFor::from_hours(24);
/// Alerts that are remembered at most, those that ended included, of which the oldest make room.
const MOST_REMEMBERED: usize = 2 * MOST_FIRING;

/// The label that names an alert.
pub const NAME_LABEL: &str = "alertname";
/// Labels that name the packs of an alert, `*` in them standing for any number of characters.
pub const PACK_LABELS: [&str; 2] = ["serin_pack", "pack"];

/// What the settings say about alerts.
#[derive(Debug, Clone)]
pub struct AlertSettings {
    /// Which alerts hold which packs, besides those whose labels name a pack.
    pub rules: Vec<AlertRule>,
    /// How long an alert holds that is not repeated.
    pub expire_after: HoldFor,
}

/// Alerts that hold packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRule {
    /// Labels that an alert must have.
    pub labels: BTreeMap<String, Glob>,
    /// The packs that it then holds.
    pub packs: Vec<Glob>,
}

impl AlertRule {
    fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(name, glob)| labels.get(name).is_some_and(|value| glob.matches(value)))
    }
}

/// What somebody says of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whether it fires or is over.
    pub status: Status,
    /// Tells it from others.
    pub fingerprint: String,
    /// Its name.
    pub name: String,
    /// Its labels, the name among them.
    pub labels: BTreeMap<String, String>,
    /// What is wrong; may be empty.
    pub summary: String,
    /// Where to read more.
    pub url: Option<String>,
    /// Since when it fires, if that was said.
    pub since: Option<Timestamp>,
    /// How long it holds without being repeated; nothing for what the settings say.
    pub expires_in: Option<HoldFor>,
}

/// Whether an alert fires or is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It fires.
    Firing,
    /// It is over.
    Resolved,
}

/// What became of one alert that somebody spoke of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It fires now, or goes on firing.
    Firing,
    /// It is over now.
    Resolved,
    /// It is over, and was not known to fire.
    NotFiring,
    /// No rule and no label of it names a pack.
    NoPack,
    /// Serin itself sent it: a hold of a rollout must not hold the rollout.
    Own,
    /// As many fire as there may be.
    Refused,
}

/// What is counted of alerts.
#[derive(Debug, Default)]
pub struct AlertCounts {
    /// Said to fire.
    pub firing: AtomicU64,
    /// Said to be over.
    pub resolved: AtomicU64,
    /// Without effect.
    pub ignored: AtomicU64,
    /// Refused because too many fire.
    pub refused: AtomicU64,
}

type Key = (String, String);

/// The alerts of a running server.
#[derive(Debug)]
pub struct Alerts {
    store: Store,
    settings: AlertSettings,
    known: RwLock<BTreeMap<Key, StoredAlert>>,
    /// One at a time changes what is known.
    changing: tokio::sync::Mutex<()>,
    /// What is counted.
    pub counts: AlertCounts,
}

impl Alerts {
    /// Reads the alerts that the store remembers.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn load(store: Store, settings: AlertSettings) -> Result<Self, StoreError> {
        let known = store.alerts().await?.into_iter().map(|alert| (key(&alert), alert)).collect();
        let (known, changing) = (RwLock::new(known), tokio::sync::Mutex::default());
        Ok(Self { store, settings, known, changing, counts: AlertCounts::default() })
    }

    /// Takes what somebody says, who may speak of the packs of a scope; what became of each comes back in order.
    ///
    /// It is stored before it counts. Saying the same again only makes it last longer.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; nothing has changed then.
    pub async fn hear(
        &self,
        said: &[Said],
        said_by: &str,
        scope: &Scope,
        now: Timestamp,
    ) -> Result<Vec<Heard>, StoreError> {
        let _one_at_a_time = self.changing.lock().await;
        let mut known = self.known();
        let (mut changed, mut forgotten) = (BTreeMap::new(), Vec::new());
        let mut firing = known.values().filter(|stored| is_firing(stored, now)).count();
        let mut heard = Vec::with_capacity(said.len());
        for said in said {
            let key = (scope_text(scope), said.fingerprint.clone());
            let before = known.get(&key).filter(|stored| is_firing(stored, now));
            let (result, stored) = match (said.status, before) {
                _ if OWN_ALERTS.contains(&said.name.as_str()) => (Heard::Own, None),
                (Status::Resolved, None) => (Heard::NotFiring, None),
                (Status::Resolved, Some(before)) => {
                    firing -= 1;
                    let alert = Alert { resolved_at: Some(now), ..before.alert.clone() };
                    (Heard::Resolved, Some(StoredAlert { said_at: now, alert, ..before.clone() }))
                }
                (Status::Firing, _) if !self.names_a_pack(&said.labels) => (Heard::NoPack, None),
                (Status::Firing, None) if firing >= MOST_FIRING => (Heard::Refused, None),
                (Status::Firing, before) => {
                    firing += usize::from(before.is_none());
                    (Heard::Firing, Some(self.fires(said, before, said_by, scope, now)))
                }
            };
            if let Some(stored) = stored {
                if !known.contains_key(&key) && known.len() >= MOST_REMEMBERED {
                    let oldest = take_oldest_ended(&mut known, now);
                    forgotten.extend(oldest.inspect(|oldest| drop(changed.remove(&self::key(oldest)))));
                }
                known.insert(key.clone(), stored.clone());
                changed.insert(key, stored);
            }
            heard.push(result);
        }
        let changed: Vec<StoredAlert> = changed.into_values().collect();
        if !changed.is_empty() {
            self.store.save_alerts(&changed, &forgotten).await?;
            *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        }
        self.count(&heard);
        Ok(heard)
    }

    /// An alert that is said to fire.
    fn fires(
        &self,
        said: &Said,
        before: Option<&StoredAlert>,
        said_by: &str,
        scope: &Scope,
        now: Timestamp,
    ) -> StoredAlert {
        let since = said.since.filter(|since| *since <= now);
        let since = since.or_else(|| before.map(|before| before.alert.since)).unwrap_or(now);
        let alert = Alert {
            name: said.name.clone(),
            summary: said.summary.clone(),
            url: said.url.clone(),
            fingerprint: said.fingerprint.clone(),
            said_by: said_by.to_owned(),
            since,
            expires_at: said.expires_in.unwrap_or(self.settings.expire_after).after(now),
            resolved_at: None,
        };
        StoredAlert { scope: scope.clone(), labels: said.labels.clone(), said_at: now, alert }
    }

    fn names_a_pack(&self, labels: &BTreeMap<String, String>) -> bool {
        PACK_LABELS.iter().any(|label| labels.contains_key(*label))
            || self.settings.rules.iter().any(|rule| rule.fits(labels))
    }

    fn holds(&self, stored: &StoredAlert, pack: &PackName) -> bool {
        let labels = &stored.labels;
        let by_label = || {
            let named = PACK_LABELS.iter().filter_map(|label| labels.get(*label));
            named.into_iter().any(|glob| Glob::new(glob).matches(pack.as_str()))
        };
        let by_rule = || {
            let mut rules = self.settings.rules.iter().filter(|rule| rule.fits(labels));
            rules.any(|rule| rule.packs.iter().any(|glob| glob.matches(pack.as_str())))
        };
        stored.scope.allows(pack) && (by_label() || by_rule())
    }

    /// The alerts about a pack that fire, or ended lately, those that fire longest first.
    pub fn of(&self, pack: &PackName) -> Vec<Alert> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let about = known.values().filter(|stored| self.holds(stored, pack));
        let mut alerts: Vec<Alert> = about.map(|stored| stored.alert.clone()).collect();
        alerts.sort_by(|a, b| (a.since, &a.name, &a.fingerprint).cmp(&(b.since, &b.name, &b.fingerprint)));
        alerts
    }

    /// Every alert that is remembered, each with those of `packs` that it is about.
    pub fn list(&self, packs: &[PackName]) -> Vec<(StoredAlert, Vec<PackName>)> {
        let about = |stored: &StoredAlert| {
            packs.iter().filter(|pack| self.holds(stored, pack)).cloned().collect::<Vec<_>>()
        };
        let known = self.known().into_values();
        known.map(|stored| (about(&stored), stored)).map(|(packs, stored)| (stored, packs)).collect()
    }

    /// How many alerts fire.
    pub fn firing(&self, now: Timestamp) -> usize {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().filter(|stored| is_firing(stored, now)).count()
    }

    /// Forgets alerts that ended long ago.
    pub async fn forget(&self, now: Timestamp) {
        let _one_at_a_time = self.changing.lock().await;
        let is_old =
            |stored: &StoredAlert| stored.alert.ended_at(now).is_some_and(|at| REMEMBERED.after(at) <= now);
        let (old, known): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.known().into_iter().partition(|(_, stored)| is_old(stored));
        if old.is_empty() {
            return;
        }
        let old: Vec<StoredAlert> = old.into_values().collect();
        match self.store.save_alerts(&[], &old).await {
            Ok(()) => *self.known.write().unwrap_or_else(PoisonError::into_inner) = known,
            Err(error) => tracing::warn!(error = %Chain(&error), "could not forget alerts that ended"),
        }
    }

    fn known(&self) -> BTreeMap<Key, StoredAlert> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, heard: &[Heard]) {
        for heard in heard {
            let counter = match heard {
                Heard::Firing => &self.counts.firing,
                Heard::Resolved => &self.counts.resolved,
                Heard::NotFiring | Heard::NoPack | Heard::Own => &self.counts.ignored,
                Heard::Refused => &self.counts.refused,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn key(stored: &StoredAlert) -> Key {
    (scope_text(&stored.scope), stored.alert.fingerprint.clone())
}

fn is_firing(stored: &StoredAlert, now: Timestamp) -> bool {
    stored.alert.state(now) == AlertState::Firing
}

/// Takes out what ended first, to make room; at most half of what is remembered fires.
fn take_oldest_ended(known: &mut BTreeMap<Key, StoredAlert>, now: Timestamp) -> Option<StoredAlert> {
    let ended = known.iter().filter_map(|(key, stored)| Some((stored.alert.ended_at(now)?, key)));
    let oldest = ended.min().map(|(_, key)| key.clone())?;
    known.remove(&oldest)
}
