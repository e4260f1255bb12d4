//! How many sessions each version of a pack has now, and when a version that only keeps those it has has lost the last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serin_core::ids::{PackName, PackTag, Version};
use serin_core::pack::{PackState, retire};
use serin_core::plan::SessionPolicy;
use serin_core::routing::Cohorts;
use serin_core::units::HoldFor;

use super::commit::{Beside, NotCommitted};
use super::{Control, Managed};
use crate::pins::PinTable;

/// For how long a count is shown again: walking millions of pins takes a tenth of a second.
const FRESH_FOR: HoldFor = HoldFor::from_secs(2);

/// The latest count of each pack.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<BTreeMap<(PackName, Whose), Count>>);

/// Whose sessions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// Those of versions that only keep the sessions they have.
    Draining,
    /// Those of every version.
    All,
}

#[derive(Debug, Clone)]
struct Count {
    at: Timestamp,
    revision: u64,
    left: BTreeMap<Version, u64>,
}

/// What is counted.
struct Asked {
    tag: PackTag,
    policy: SessionPolicy,
    versions: Vec<Version>,
    /// The index of its version by the number of a cohort.
    by_cohort: Vec<Option<usize>>,
    now: Timestamp,
}

impl Asked {
    /// Nothing where there is no such version.
    fn of(state: &PackState, cohorts: &Cohorts, whose: Whose, now: Timestamp) -> Option<Self> {
        let canary = state.active().map(|(rollout, _)| &rollout.canary);
        let versions: BTreeSet<&Version> = match whose {
            Whose::Draining => state
                .draining
                .iter()
                .map(|draining| &draining.version)
                .filter(|version| Some(*version) != canary && **version != state.stable)
                .collect(),
            Whose::All => cohorts.iter().map(|cohort| &cohort.version).collect(),
        };
        let versions: Vec<Version> = versions.into_iter().cloned().collect();
        if versions.is_empty() {
            return None;
        }
        let mut by_cohort = Vec::new();
        for cohort in cohorts.iter() {
            let index = versions.iter().position(|version| *version == cohort.version);
            by_cohort.resize(cohort.id.0 as usize, None);
            by_cohort.push(index);
        }
        Some(Self { tag: PackTag::of(&state.name), policy: state.sessions, versions, by_cohort, now })
    }

    fn count(self, pins: &PinTable) -> BTreeMap<Version, u64> {
        let mut counts = vec![0_u64; self.versions.len()];
        pins.iter(&mut |session, pin| {
            if session.tag() == self.tag
                && let Some(Some(index)) = self.by_cohort.get(pin.cohort.0 as usize)
                && !pin.is_expired(&self.policy, self.now)
            {
                counts[*index] += 1;
            }
        });
        self.versions.into_iter().zip(counts).collect()
    }
}

impl Control {
    /// Sessions left of each version of a pack that drains; a version that was not counted is absent.
    pub async fn sessions_left(&self, pack: &PackName) -> BTreeMap<Version, u64> {
        let Some(managed) = self.managed(pack).await else { return BTreeMap::new() };
        let managed = managed.lock().await;
        self.left_of(&managed).await
    }

    /// Sessions that each version of a pack has now; a version that was not counted is absent.
    pub async fn sessions(&self, pack: &PackName) -> BTreeMap<Version, u64> {
        let Some(managed) = self.managed(pack).await else { return BTreeMap::new() };
        let managed = managed.lock().await;
        self.counted(&managed, Whose::All).await
    }

    /// Sessions left of each version that drains, of a pack that is locked.
    pub(super) async fn left_of(&self, managed: &Managed) -> BTreeMap<Version, u64> {
        self.counted(managed, Whose::Draining).await
    }

    /// A count is shown again for two seconds.
    async fn counted(&self, managed: &Managed, whose: Whose) -> BTreeMap<Version, u64> {
        let (state, now) = (&managed.state, self.clock.now());
        let Some(asked) = Asked::of(state, &managed.cohorts, whose, now) else { return BTreeMap::new() };
        let key = (state.name.clone(), whose);
        let latest = self.left.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(count) = latest
            && count.revision == state.revision
            && (count.at..FRESH_FOR.after(count.at)).contains(&now)
        {
            return count.left;
        }
        let shares_its_tag = |other: &&PackName| **other != state.name && PackTag::of(other) == asked.tag;
        if self.names().await.iter().any(|name| shares_its_tag(&name)) {
            return BTreeMap::new();
        }
        let resolver = Arc::clone(&self.resolver);
        // Walking millions of pins takes tens of milliseconds.
        let Ok(left) = tokio::task::spawn_blocking(move || asked.count(&resolver.pins)).await else {
            tracing::error!(pack = %state.name, "the count of sessions left broke off");
            return BTreeMap::new();
        };
        let count = Count { at: now, revision: state.revision, left: left.clone() };
        self.left.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, count);
        left
    }

    /// Takes versions out of service that drain no longer.
    pub(super) async fn retire_drained(&self, pack: &PackName) -> Result<(), NotCommitted> {
        let Some(managed) = self.managed(pack).await else { return Ok(()) };
        let mut managed = managed.lock().await;
        if managed.state.draining.is_empty() {
            return Ok(());
        }
        let left = self.left_of(&managed).await;
        let ended: BTreeSet<Version> =
            left.into_iter().filter(|(_, sessions)| *sessions == 0).map(|(version, _)| version).collect();
        match retire(&managed.state, &ended, self.clock.now()) {
            Some(transition) => self.commit(&mut managed, transition, Beside::default()).await,
            None => Ok(()),
        }
    }
}
