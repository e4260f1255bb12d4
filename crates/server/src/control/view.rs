//! What can be read about a pack and its rollouts; nothing here changes anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serin_core::aggregate::Tally;
use serin_core::analysis::{
    Analysis, Assigned, Difference, Evidence, MetricReading, SegmentReading, Sides, analyze, by_segment,
    compare, differences,
};
use serin_core::ids::{PackName, RolloutId, Version};
use serin_core::metric::MetricName;
use serin_core::pack::PackState;
use serin_core::plan::{Gate, Plan};
use serin_core::replay::{Replay, replay};
use serin_core::rollout::Rollout;
use serin_core::tick::next_due;

use super::{Control, LoadError, Managed};
use crate::segments::Segments;
use crate::store::{AuditFilter, Exposure, StoreError};

/// A pack as it stands.
#[derive(Debug, Clone)]
pub struct PackView {
    /// Its state.
    pub state: PackState,
    /// The plan of its current or latest rollout, or of stable.
    pub plan: Arc<Plan>,
    /// Whether something forces it to stable right now.
    pub forced: bool,
    /// Sessions left of each version that drains; a version that was not counted is absent.
    pub left: BTreeMap<Version, u64>,
    /// When the control loop looks at it again.
    pub next_due: Option<Timestamp>,
    /// What was measured of the current or latest rollout.
    pub measured: Option<Measured>,
    /// Who belongs to which segment of the plan, with what is counted about it.
    pub segments: Arc<Segments>,
}

/// What was measured of a rollout.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What a check would say at this moment; only while the rollout is active.
    pub now: Option<Analysis>,
    /// Every metric that has data, stable beside canary.
    pub metrics: Vec<MetricReading>,
    /// How far the canary is from stable, of the metrics that have enough data to say.
    pub differences: BTreeMap<MetricName, Difference>,
    /// All data at once.
    pub shown: Sides<Tally>,
    /// Sessions assigned, by set weight.
    pub assigned: Vec<Assigned>,
    /// Each segment; one where the manifest names none.
    pub segments: Vec<SegmentMeasured>,
    /// Sessions and requests that saw the canary.
    pub exposure: Exposure,
    /// New sessions of the pack per second; nothing where there are too few to say.
    pub sessions_per_second: Option<f64>,
}

/// What was measured of one segment.
#[derive(Debug, Clone)]
pub struct SegmentMeasured {
    /// How it stands.
    pub reading: SegmentReading,
    /// Sessions assigned.
    pub assigned: Sides<u64>,
    /// Requests for which it could not tell, since this process took up the rollout.
    pub unreadable: u64,
}

impl Control {
    /// A pack as it stands; nothing when it does not exist.
    ///
    /// # Errors
    /// [`StoreError`] when what was measured cannot be read.
    pub async fn view(&self, pack: &PackName) -> Result<Option<PackView>, StoreError> {
        let Some(managed) = self.managed(pack).await else { return Ok(None) };
        let managed = managed.lock().await;
        let measured = match &managed.state.rollout {
            Some(rollout) => Some(self.measured(&managed, rollout, &managed.plan).await?),
            None => None,
        };
        Ok(Some(PackView {
            state: managed.state.clone(),
            plan: Arc::clone(&managed.plan),
            forced: self.is_forced(pack),
            left: self.left_of(&managed).await,
            next_due: next_due(&managed.state, &managed.plan),
            measured,
            segments: Arc::clone(&managed.segments),
        }))
    }

    /// The state and the plan of a pack and whether it is forced, from memory; nothing when it does not exist.
    pub async fn standing(&self, pack: &PackName) -> Option<(PackState, Arc<Plan>, bool)> {
        let managed = self.managed(pack).await?;
        let managed = managed.lock().await;
        Some((managed.state.clone(), Arc::clone(&managed.plan), self.is_forced(pack)))
    }

    /// Any rollout with its plan and what was measured; nothing when it does not exist.
    ///
    /// # Errors
    /// [`LoadError`] when it cannot be read.
    pub async fn rollout(&self, id: &RolloutId) -> Result<Option<(Rollout, Arc<Plan>, Measured)>, LoadError> {
        let Some(stored) = self.store.rollout(id).await? else { return Ok(None) };
        let plan = self.plan_of(&stored.pack, &stored.rollout.canary, Some(stored.manifest)).await?;
        let Some(managed) = self.managed(&stored.pack).await else { return Ok(None) };
        let managed = managed.lock().await;
        let measured = self.measured(&managed, &stored.rollout, &plan).await?;
        Ok(Some((stored.rollout, plan, measured)))
    }

    /// Repeats the checks of a rollout from what each of them saw, and derives what it did by itself; nothing when it
    /// does not exist.
    ///
    /// # Errors
    /// [`LoadError`] when it cannot be read.
    pub async fn replay(&self, id: &RolloutId) -> Result<Option<Replay>, LoadError> {
        let Some(stored) = self.store.rollout(id).await? else { return Ok(None) };
        let plan = self.plan_of(&stored.pack, &stored.rollout.canary, Some(stored.manifest)).await?;
        let records = self.store.check_records(id).await?;
        let filter = AuditFilter { rollout: Some(id.clone()), ..AuditFilter::default() };
        let log = self.store.audit(&filter).await?;
        Ok(Some(replay(&plan, &stored.rollout, &records, &log)))
    }

    async fn measured(
        &self,
        managed: &Managed,
        rollout: &Rollout,
        plan: &Plan,
    ) -> Result<Measured, StoreError> {
        let evidence = self.seen(&managed.cohorts, rollout).await?;
        let mut now = rollout.active().map(|active| analyze(plan, active, &evidence, self.clock.now()));
        if let Some(now) = &mut now
            && plan.analysis.gates.iter().any(Gate::is_outside)
        {
            // Nobody is asked for a look: what the last check heard is shown.
            let last = self.store.checks(&rollout.id, 1).await?.pop();
            let gates = plan.analysis.gates.iter().zip(&mut now.gates).filter(|(gate, _)| gate.is_outside());
            for (_, reading) in gates {
                let mut heard = last.iter().flat_map(|check| &check.gates);
                if let Some(heard) =
                    heard.find(|heard| (&heard.metric, &heard.rule) == (&reading.metric, &reading.rule))
                {
                    *reading = heard.clone();
                }
            }
        }
        // The status of a rollout that is over is the one of its last check.
        let metrics = match &now {
            Some(analysis) => analysis.metrics.clone(),
            None => {
                let last = self.store.checks(&rollout.id, 1).await?.pop();
                let mut metrics = compare(plan, &evidence.shown);
                for reading in &mut metrics {
                    let judged =
                        last.iter().flat_map(|check| &check.metrics).find(|m| m.metric == reading.metric);
                    if let Some(judged) = judged {
                        reading.status = judged.status;
                    }
                }
                metrics
            }
        };
        let segments = self.segments(managed, rollout, plan, &evidence).await?;
        let sessions = evidence.assigned.iter().map(|assigned| assigned.canary).sum();
        let exposure = Exposure { sessions, requests: evidence.shown.canary.requests };
        let sessions_per_second = self.store.session_rate(&managed.state.name, self.clock.now()).await?;
        Ok(Measured {
            now,
            metrics,
            differences: differences(plan, rollout, &evidence),
            shown: evidence.shown,
            assigned: evidence.assigned,
            segments,
            exposure,
            sessions_per_second,
        })
    }

    /// What was measured of each segment.
    async fn segments(
        &self,
        managed: &Managed,
        rollout: &Rollout,
        plan: &Plan,
        evidence: &Evidence,
    ) -> Result<Vec<SegmentMeasured>, StoreError> {
        let assigned = self.assigned_by_segment(&managed.cohorts, rollout).await?;
        // What the request path counts is about the rollout in force.
        let is_in_force = managed.state.rollout.as_ref().is_some_and(|latest| latest.id == rollout.id);
        let unreadable: Vec<u64> = managed.segments.unreadable().map(|(_, count)| count).collect();
        let measured =
            (0_u8..).zip(by_segment(plan, rollout, evidence)).map(|(index, reading)| SegmentMeasured {
                reading,
                assigned: assigned.get(&index).cloned().unwrap_or_default(),
                unreadable: unreadable.get(usize::from(index)).copied().filter(|_| is_in_force).unwrap_or(0),
            });
        Ok(measured.collect())
    }
}
