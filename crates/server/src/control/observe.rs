//! What a tick decides on: matured sessions are folded, then everything seen is read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serin_core::aggregate::{Counters, Tally};
use serin_core::analysis::{Assigned, Cell, Evidence, Sides};
use serin_core::evidence::{Baseline, fold, fold_ages, freeze, measures};
use serin_core::ids::{PackName, RolloutId};
use serin_core::plan::Plan;
use serin_core::replay::Counted;
use serin_core::rollout::Rollout;
use serin_core::routing::{Cohort, CohortId, Cohorts, Stamp};
use serin_core::tick::baseline_wanted;
use serin_core::weight::Weight;

use super::{Control, Managed};
use crate::store::{Folded, StoreError, StoredTally};

/// Sessions that are folded in one transaction.
const FOLD_BATCH: u32 = 1_000;
/// Sessions of stable that a baseline rests on at most.
const MOST_BASELINE_SESSIONS: u32 = 5_000;

impl Control {
    /// Folds the sessions that have matured, each once per age.
    pub(super) async fn fold_matured(
        &self,
        pack: &PackName,
        rollout: &RolloutId,
        plan: &Plan,
        baseline: &Baseline,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let measures = measures(plan, baseline);
        for (ages_done, age) in (0_u32..).zip(fold_ages(&measures)) {
            loop {
                let units = self.store.matured(rollout, ages_done, age.before(now), FOLD_BATCH).await?;
                if units.is_empty() {
                    break;
                }
                let mut additions: BTreeMap<CohortId, Counters> = BTreeMap::new();
                for (unit, session) in units.iter().zip(self.store.session_facts(pack, &units, age).await?) {
                    let mut counters = fold(&session, age, &measures, baseline);
                    counters.sessions = u64::from(ages_done == 0);
                    additions.entry(unit.cohort).or_default().merge(&counters);
                }
                match self.store.fold(rollout, &units, ages_done, &additions).await? {
                    Folded::Done => {}
                    // Another replica was first: its work counts, ours is dropped.
                    Folded::LostRace => break,
                }
            }
        }
        Ok(())
    }

    /// Everything seen of the rollout under way, with matured sessions folded first.
    pub(super) async fn evidence(
        &self,
        managed: &Managed,
        rollout: &Rollout,
        now: Timestamp,
    ) -> Result<Evidence, StoreError> {
        let (state, plan) = (&managed.state, &managed.plan);
        if let Some(baseline) = rollout.baseline() {
            self.fold_matured(&state.name, &rollout.id, plan, baseline, now).await?;
        }
        let mut evidence = self.seen(&managed.cohorts, rollout).await?;
        let last_check = rollout.active().and_then(|active| active.last_check.as_ref());
        let since = last_check.map_or(rollout.started_at, |check| check.at);
        evidence.recent = sides(self.store.tallies(&rollout.id, Some(since), Some(now)).await?);
        evidence.forced_stable = self.is_forced_by_file(&state.name);
        evidence.alerts = self.alerts_of(&state.name);
        evidence.back_since = self.back_since.get().copied();
        for wanted in baseline_wanted(state, plan, now) {
            let sessions = self
                .store
                .baseline_sessions(
                    &state.name,
                    &rollout.stable,
                    wanted.from,
                    wanted.to,
                    MOST_BASELINE_SESSIONS,
                )
                .await?;
            if let Some(candidate) = freeze(plan, &sessions, wanted.least, now) {
                evidence.baseline_candidate = Some(candidate);
                break;
            }
        }
        Ok(evidence)
    }

    /// The folded sessions of a rollout, by cohort.
    pub(super) async fn cells(
        &self,
        cohorts: &Cohorts,
        rollout: &RolloutId,
    ) -> Result<Vec<Cell>, StoreError> {
        let folded = self.store.evidence(rollout).await?.into_iter();
        let cell = |(id, counters)| {
            let (cohort, stamp) = stamped(cohorts, id)?;
            Some(Cell::of(stamp, cohort.variant, counters))
        };
        Ok(folded.filter_map(cell).collect())
    }

    /// Everything stored about a rollout, without folding anything.
    pub(super) async fn seen(&self, cohorts: &Cohorts, rollout: &Rollout) -> Result<Evidence, StoreError> {
        let mut evidence = Evidence { cells: self.cells(cohorts, &rollout.id).await?, ..Evidence::default() };
        let mut assigned: BTreeMap<Weight, Sides<u64>> = BTreeMap::new();
        for (id, sessions) in self.store.assigned(&rollout.id).await? {
            let Some((cohort, stamp)) = stamped(cohorts, id) else { continue };
            *assigned.entry(stamp.weight).or_default().of_mut(cohort.variant) += sessions;
        }
        evidence.assigned = assigned
            .into_iter()
            .map(|(weight, sides)| Assigned { weight, canary: sides.canary, stable: sides.stable })
            .collect();
        // Cohorts of one stamp are one cell, in an order of its own, so that a replay adds up the same.
        evidence.cells = Counted::of(&evidence).cells();
        evidence.shown = self.store.tally_total(&rollout.id).await?;
        Ok(evidence)
    }
}

impl Control {
    /// Sessions that were assigned, by the index of their segment.
    pub(super) async fn assigned_by_segment(
        &self,
        cohorts: &Cohorts,
        rollout: &Rollout,
    ) -> Result<BTreeMap<u8, Sides<u64>>, StoreError> {
        let mut assigned: BTreeMap<u8, Sides<u64>> = BTreeMap::new();
        for (id, sessions) in self.store.assigned(&rollout.id).await? {
            let Some((cohort, stamp)) = stamped(cohorts, id) else { continue };
            *assigned.entry(stamp.segment).or_default().of_mut(cohort.variant) += sessions;
        }
        Ok(assigned)
    }
}

/// A cohort of a rollout with its stamp.
fn stamped(cohorts: &Cohorts, id: CohortId) -> Option<(&Cohort, &Stamp)> {
    let cohort = cohorts.get(id)?;
    cohort.stamp.as_ref().map(|stamp| (&**cohort, stamp))
}

/// Adds up tallies by variant.
fn sides(tallies: Vec<StoredTally>) -> Sides<Tally> {
    let mut sides = Sides::<Tally>::default();
    for stored in tallies {
        sides.of_mut(stored.variant).merge(&stored.tally);
    }
    sides
}
