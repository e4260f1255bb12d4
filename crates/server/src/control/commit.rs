//! From a transition to what is served: durable first, then in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serin_core::ids::{PackName, Version};
use serin_core::invariant::check;
use serin_core::pack::{PackState, Transition};
use serin_core::plan::Plan;
use serin_core::prompt::Pack;
use serin_core::replay::Seen;
use serin_core::rollout::Rollout;
use serin_core::routing::{Changing, Route, SegmentSplit, Split};
use serin_core::weight::Weight;

use super::{Control, Event, LoadError, Managed, segments_of};
use crate::snapshot::PackSnapshot;
use crate::store::{Commit, CommitError, StoreError, StoredVersion};

/// Longest time that a change of weight waits for the pins made before it.
const BARRIER_WITHIN: Duration = Duration::from_secs(5);
/// Longest time that a rollback waits for the store before it goes to the journal.
pub(super) const ROLLBACK_WITHIN: Duration = Duration::from_secs(2);

/// Versions out of service whose prompts are kept, the highest: a session between a tool call and its result has
/// its version until its next user turn.
pub(super) const MOST_KEPT: usize = 8;

/// What goes to the store beside a transition.
#[derive(Default)]
pub(super) struct Beside<'a> {
    /// A version that is published with it.
    pub(super) version: Option<Publication<'a>>,
    /// The manifest text and plan of a rollout that it starts.
    pub(super) manifest: Option<(&'a str, Arc<Plan>)>,
    /// What its check was decided on.
    pub(super) seen: Option<Seen>,
}

/// A version that is published, with its prompts as they are served.
#[derive(Clone, Copy)]
pub(super) struct Publication<'a> {
    /// What is stored.
    pub(super) stored: &'a StoredVersion,
    /// What is served.
    pub(super) prompts: Option<&'a Arc<Pack>>,
}

/// Why a transition did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum NotCommitted {
    /// Somebody else changed the pack first; what they did is loaded now.
    #[error("pack {0} was changed by somebody else at the same time")]
    Conflict(PackName),
    /// Pins made under the old weight were not durable in time, so the weight does not change.
    #[error("the pins of pack {0} were not durable in time; the weight does not change")]
    PutOff(PackName),
    /// The change would break what must always hold; a bug of Serin's own, and nothing has changed.
    #[error("the change of pack {0} would break an invariant; it is dropped")]
    Invariant(PackName),
    /// The store failed.
    #[error("could not record the change")]
    Store(#[from] StoreError),
    /// The pack could not be read back.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Control {
    /// Commits a transition and puts it in force.
    ///
    /// A change of weight becomes visible only when every pin made before it is durable; while it is
    /// being committed, new sessions that it concerns wait. A rollback skips all of this.
    pub(super) async fn commit(
        &self,
        managed: &mut Managed,
        transition: Transition,
        beside: Beside<'_>,
    ) -> Result<(), NotCommitted> {
        let name = managed.state.name.clone();
        if let Err(violation) = check(transition.from_revision.map(|_| &managed.state), &transition) {
            tracing::error!(pack = %name, %violation, "a transition of pack {name} breaks an invariant and is dropped");
            return Err(NotCommitted::Invariant(name));
        }
        let next = self.after(managed, &transition, &beside);
        let changing = if transition.is_rollback { None } else { change(&managed.state, &next.state) };
        if let Some(changing) = changing {
            self.publish_changing(managed, &next, &changing);
            let durable = tokio::time::timeout(BARRIER_WITHIN, self.resolver.signals.barrier()).await;
            if !matches!(durable, Ok(true)) {
                self.counts.put_off.fetch_add(1, Ordering::Relaxed);
                self.publish(managed, None);
                return Err(NotCommitted::PutOff(name));
            }
        }
        let manifest = beside.manifest.as_ref().map(|(text, _)| *text);
        let version = beside.version.map(|publication| publication.stored);
        let with = Commit { version, manifest, seen: beside.seen.as_ref() };
        let committed = self.store.commit(&transition, with).await;
        match committed {
            Ok(_) => {
                self.counts.transitions.fetch_add(1, Ordering::Relaxed);
                *managed = next;
                self.load_missing_prompts(managed).await?;
                self.publish(managed, None);
                self.tell(&transition);
                Ok(())
            }
            Err(CommitError::Conflict) => {
                self.counts.conflicts.fetch_add(1, Ordering::Relaxed);
                self.reload(managed).await?;
                Err(NotCommitted::Conflict(name))
            }
            Err(CommitError::Store(error)) => {
                self.counts.store_failures.fetch_add(1, Ordering::Relaxed);
                self.publish(managed, None);
                Err(NotCommitted::Store(error))
            }
        }
    }

    /// Reads a pack anew, because somebody else changed it.
    pub(super) async fn reload(&self, managed: &mut Managed) -> Result<(), LoadError> {
        if let Some(stored) = self.store.pack(&managed.state.name).await? {
            *managed = self.manage(stored).await?;
        }
        self.publish(managed, None);
        Ok(())
    }

    fn tell(&self, transition: &Transition) {
        let event = Event {
            pack: transition.pack.name.clone(),
            revision: transition.pack.revision,
            actions: transition.facts.iter().map(|fact| fact.action.as_str()).collect(),
        };
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// The pack in memory as it is after a transition.
    fn after(&self, managed: &Managed, transition: &Transition, beside: &Beside<'_>) -> Managed {
        let mut cohorts = managed.cohorts.clone();
        for cohort in &transition.cohorts {
            cohorts.insert(Arc::new(cohort.clone()));
        }
        let plan =
            beside.manifest.as_ref().map_or_else(|| Arc::clone(&managed.plan), |(_, plan)| Arc::clone(plan));
        let mut prompts = managed.prompts.clone();
        if let Some(Publication { stored, prompts: Some(pack) }) = beside.version {
            prompts.insert(stored.version.clone(), Arc::clone(pack));
        }
        let segments = match &beside.manifest {
            Some((_, plan)) => segments_of(plan),
            None => Arc::clone(&managed.segments),
        };
        Managed { state: transition.pack.clone(), cohorts, plan, segments, prompts }
    }

    /// Reads the prompts of versions that have come back into service.
    async fn load_missing_prompts(&self, managed: &mut Managed) -> Result<(), LoadError> {
        let in_service = in_service(&managed.state);
        let out_of_service = managed.prompts.keys().filter(|version| !in_service.contains(version));
        let out_of_service: Vec<Version> = out_of_service.cloned().collect();
        for version in out_of_service.iter().take(out_of_service.len().saturating_sub(MOST_KEPT)) {
            managed.prompts.remove(version);
        }
        if in_service.iter().any(|version| !managed.prompts.contains_key(version)) {
            managed.prompts.extend(self.prompts_of(&managed.state, Vec::new()).await?);
        }
        Ok(())
    }

    /// Puts a pack in force as it stands.
    pub(super) fn publish(&self, managed: &Managed, changing: Option<&SplitChange>) {
        let route = route(managed, self.is_forced(&managed.state.name), changing);
        self.resolver.publish(Arc::new(PackSnapshot {
            name: Arc::new(managed.state.name.clone()),
            route,
            segments: Arc::clone(&managed.segments),
            prompts: managed.prompts.clone(),
            revision: managed.state.revision,
            custom: managed.plan.analysis.custom.clone(),
        }));
    }

    /// Puts a pack in force as it stands, with new sessions that a change concerns waiting for it.
    fn publish_changing(&self, managed: &Managed, next: &Managed, changing: &SplitChange) {
        if managed.state.active().is_some() {
            self.publish(managed, Some(changing));
            return;
        }
        // Without a rollout there is no split that could say who waits: borrow the next one at weight 0.
        let mut borrowed = route(managed, self.is_forced(&managed.state.name), None);
        let base = borrowed.base;
        let (rollout, salt, canary) = match &next.state.rollout {
            Some(rollout) => (rollout.id.clone(), rollout.salt.clone(), rollout.canary.clone()),
            None => return,
        };
        let segments = next.plan.segments.iter().enumerate().map(|(index, segment)| SegmentSplit {
            name: segment.name.clone(),
            weight: Weight::ZERO,
            changing: changing.of(index, Weight::ZERO),
            stable: base,
            canary: base,
        });
        borrowed.split = Some(Split { rollout, salt, canary, segments: segments.collect() });
        self.resolver.publish(Arc::new(PackSnapshot {
            name: Arc::new(managed.state.name.clone()),
            route: borrowed,
            segments: Arc::clone(&next.segments),
            prompts: managed.prompts.clone(),
            revision: managed.state.revision,
            custom: managed.plan.analysis.custom.clone(),
        }));
    }
}

/// The versions that sessions may get.
fn in_service(state: &PackState) -> Vec<Version> {
    let canary = state.active().map(|(rollout, _)| rollout.canary.clone());
    let draining = state.draining.iter().map(|draining| draining.version.clone());
    std::iter::once(state.stable.clone()).chain(canary).chain(draining).collect()
}

/// A change of the split that is being committed at this moment.
pub(super) enum SplitChange {
    /// The weights change, segment by segment.
    Weights(Vec<Weight>),
    /// More than the weights change.
    Everything,
}

impl SplitChange {
    /// What it changes for new sessions of one segment, whose weight is the one in force.
    fn of(&self, segment: usize, weight: Weight) -> Option<Changing> {
        match self {
            Self::Everything => Some(Changing::Everything),
            Self::Weights(next) => {
                let next = next.get(segment).copied().unwrap_or(weight);
                (next != weight).then_some(Changing::To(next))
            }
        }
    }
}

/// Which new sessions a transition concerns; nothing when the split stays as it is.
fn change(before: &PackState, after: &PackState) -> Option<SplitChange> {
    let weights = |rollout: &Rollout| rollout.weights().to_vec();
    match (before.active(), after.active()) {
        (Some((old, _)), Some((new, _))) if old.id == new.id => {
            (weights(old) != weights(new)).then(|| SplitChange::Weights(weights(new)))
        }
        (None, Some((new, _))) => Some(SplitChange::Weights(weights(new))),
        (Some(_), Some(_)) => Some(SplitChange::Everything),
        (Some((old, _)), None) => Some(SplitChange::Weights(vec![Weight::FULL; weights(old).len()])),
        (None, None) => (before.stable != after.stable).then_some(SplitChange::Everything),
    }
}

/// How a pack is routed as it stands.
fn route(managed: &Managed, forced: bool, changing: Option<&SplitChange>) -> Route {
    let state = &managed.state;
    let split = state.active().map(|(rollout, active)| {
        let segments = managed.plan.segments.iter().zip(rollout.weights()).zip(&active.cohorts).enumerate();
        let segments = segments.map(|(index, ((segment, weight), (stable, canary)))| SegmentSplit {
            name: segment.name.clone(),
            weight: *weight,
            changing: changing.and_then(|changing| changing.of(index, *weight)),
            stable: *stable,
            canary: *canary,
        });
        Split {
            rollout: rollout.id.clone(),
            salt: rollout.salt.clone(),
            canary: rollout.canary.clone(),
            segments: segments.collect(),
        }
    });
    Route {
        pack: state.name.clone(),
        stable: state.stable.clone(),
        base: state.base,
        split,
        draining: state.draining.iter().map(|draining| (draining.version.clone(), draining.until)).collect(),
        forced,
        sessions: state.sessions,
        cohorts: managed.cohorts.clone(),
    }
}
