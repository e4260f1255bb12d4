//! Repeats the checks of a rollout from what each of them saw, to the same bits.
//!
//! All that a check counts only grows, so that each check keeps no more than what came since the
//! check before: the *watermark* is what all checks together have counted, and a record is the
//! difference to it. Counts are whole numbers, which add up to the same sum on every replica.
//!
//! What the rollout then did by itself follows from its checks, and is compared with the audit log.

mod decisions;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::aggregate::Counters;
use crate::analysis::{
    Analysis, Assigned, Cell, Evidence, GateReading, MetricReading, RecentReading, Sides, Sight, judge,
    point_status,
};
use crate::audit::AuditEntry;
use crate::evidence::metrics_of;
use crate::ids::SegmentName;
use crate::metric::MetricName;
use crate::plan::Plan;
use crate::rollout::{Active, CheckOutcome, CheckSummary, Rollout, StepClock};
use crate::routing::Variant;
use crate::units::HoldFor;
use crate::weight::Weight;

/// What was stamped on the sessions of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "StoredStamp", into = "StoredStamp")]
struct CellStamp {
    step: u16,
    start: u16,
    segment: u8,
    weight: Weight,
    observing: bool,
    variant: Variant,
}

/// A stamp as stored: a list, because it comes with each cell of each check.
type StoredStamp = (u16, u16, u8, Weight, bool, Variant);

impl From<StoredStamp> for CellStamp {
    fn from((step, start, segment, weight, observing, variant): StoredStamp) -> Self {
        Self { step, start, segment, weight, observing, variant }
    }
}

impl From<CellStamp> for StoredStamp {
    fn from(stamp: CellStamp) -> Self {
        (stamp.step, stamp.start, stamp.segment, stamp.weight, stamp.observing, stamp.variant)
    }
}

/// Sessions that were assigned and sessions that have matured, by what was stamped on them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "StoredCounted", into = "StoredCounted")]
pub struct Counted {
    cells: BTreeMap<CellStamp, Counters>,
    assigned: BTreeMap<Weight, Sides<u64>>,
}

/// [`Counted`] as stored: lists, because JSON keys are text.
#[derive(Serialize, Deserialize)]
struct StoredCounted {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cells: Vec<(CellStamp, Counters)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    assigned: Vec<(Weight, u64, u64)>,
}

impl From<StoredCounted> for Counted {
    fn from(stored: StoredCounted) -> Self {
        let assigned = stored.assigned.into_iter();
        Self {
            cells: stored.cells.into_iter().collect(),
            assigned: assigned.map(|(weight, stable, canary)| (weight, Sides { stable, canary })).collect(),
        }
    }
}

impl From<Counted> for StoredCounted {
    fn from(counted: Counted) -> Self {
        let assigned = counted.assigned.into_iter();
        Self {
            cells: counted.cells.into_iter().collect(),
            assigned: assigned.map(|(weight, sides)| (weight, sides.stable, sides.canary)).collect(),
        }
    }
}

impl Counted {
    /// Everything that evidence counts.
    pub fn of(evidence: &Evidence) -> Self {
        let mut counted = Self::default();
        for cell in &evidence.cells {
            let stamp = CellStamp {
                step: cell.step,
                start: cell.start,
                segment: cell.segment,
                weight: cell.weight,
                observing: cell.observing,
                variant: cell.variant,
            };
            counted.cells.entry(stamp).or_default().merge(&cell.counters);
        }
        for assigned in &evidence.assigned {
            let sides = counted.assigned.entry(assigned.weight).or_default();
            sides.stable += assigned.stable;
            sides.canary += assigned.canary;
        }
        counted
    }

    /// What came since an earlier point in time; a cell without sessions is kept when it is new.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut delta = Self::default();
        for (stamp, counters) in &self.cells {
            match earlier.cells.get(stamp) {
                None => {
                    delta.cells.insert(*stamp, counters.clone());
                }
                Some(before) if before == counters => {}
                Some(before) => {
                    delta.cells.insert(*stamp, counters.since(before));
                }
            }
        }
        for (weight, sides) in &self.assigned {
            let before = earlier.assigned.get(weight).cloned().unwrap_or_default();
            if before != *sides || !earlier.assigned.contains_key(weight) {
                let stable = sides.stable.saturating_sub(before.stable);
                let canary = sides.canary.saturating_sub(before.canary);
                delta.assigned.insert(*weight, Sides { stable, canary });
            }
        }
        delta
    }

    /// Adds what came later.
    pub fn merge(&mut self, later: &Self) {
        for (stamp, counters) in &later.cells {
            self.cells.entry(*stamp).or_default().merge(counters);
        }
        for (weight, sides) in &later.assigned {
            let sum = self.assigned.entry(*weight).or_default();
            sum.stable = sum.stable.saturating_add(sides.stable);
            sum.canary = sum.canary.saturating_add(sides.canary);
        }
    }

    /// The cells as a check reads them, each stamp once and in the order of the stamps.
    pub fn cells(&self) -> Vec<Cell> {
        let cells = self.cells.iter().map(|(stamp, counters)| Cell {
            step: stamp.step,
            start: stamp.start,
            segment: stamp.segment,
            weight: stamp.weight,
            observing: stamp.observing,
            variant: stamp.variant,
            counters: counters.clone(),
        });
        cells.collect()
    }

    fn assigned(&self) -> Vec<Assigned> {
        let assigned = self.assigned.iter();
        assigned
            .map(|(weight, sides)| Assigned { weight: *weight, canary: sides.canary, stable: sides.stable })
            .collect()
    }
}

/// What one check was decided on, besides the plan, the frozen constants and its own point estimates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The weights in force, by segment.
    pub weights: Vec<Weight>,
    /// Whether the constants of the comparison were frozen.
    pub has_baseline: bool,
    /// Whether the break-glass file named the pack.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced_stable: bool,
    /// Degraded metrics that a person had passed by `promote`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub waived: BTreeSet<MetricName>,
    /// Metrics whose response rates had differed at an earlier check.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub guard_tripped: BTreeSet<MetricName>,
    /// Metrics that the check before had found to be Degraded.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub degraded: BTreeSet<MetricName>,
    /// Segments that a person had passed by `promote`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub waived_segments: BTreeSet<SegmentName>,
    /// Segments in which the check before had found a gate to be broken.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub degraded_segments: BTreeSet<SegmentName>,
    /// The last interval, for the gates that are read literally.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recent: BTreeMap<MetricName, RecentReading>,
    /// Metrics that an outside provider could not measure, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unmeasured: BTreeMap<MetricName, String>,
    /// What was counted: in a record since the check before, at the check itself since the start.
    pub counted: Counted,
}

impl Seen {
    /// What a check sees that is made now, counted since the start.
    pub fn of(plan: &Plan, rollout: &Rollout, active: &Active, evidence: &Evidence) -> Self {
        let before = active.last_check.as_ref();
        let sight = Sight::of(plan, evidence);
        Self {
            weights: rollout.weights().to_vec(),
            has_baseline: active.baseline.is_some(),
            forced_stable: evidence.forced_stable,
            waived: active.waived.clone(),
            guard_tripped: active.guard_tripped.clone(),
            degraded: before.map(|check| check.degraded.clone()).unwrap_or_default(),
            waived_segments: active.waived_segments.clone(),
            degraded_segments: before.map(|check| check.degraded_segments.clone()).unwrap_or_default(),
            recent: sight.recent,
            unmeasured: sight.unmeasured,
            counted: Counted::of(evidence),
        }
    }

    /// The same, counted since the watermark of the check before.
    #[must_use]
    pub fn since(&self, watermark: &Counted) -> Self {
        Self { counted: self.counted.since(watermark), ..self.clone() }
    }
}

/// A check as it is stored: what it came to and what it saw.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRecord {
    /// What it came to.
    pub analysis: Analysis,
    /// What it saw, counted since the check before.
    pub seen: Seen,
}

/// What comes of repeating the checks of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replay {
    /// Checks that were repeated.
    pub checks: u64,
    /// Steps entered, completions and rollbacks without a person, each compared with what the checks lead to.
    pub decisions: u64,
    /// Everything in which a repeated check differs from the stored one, oldest first, then every decision that
    /// does not follow from the repeated checks.
    pub differences: Vec<String>,
}

/// Repeats the checks of a rollout, oldest first, compares each with what it came to, and what followed with the
/// audit log of the rollout.
pub fn replay(plan: &Plan, rollout: &Rollout, records: &[CheckRecord], log: &[AuditEntry]) -> Replay {
    let mut counted = Counted::default();
    let mut result = Replay::default();
    let mut repeated_checks = Vec::with_capacity(records.len());
    for record in records {
        counted.merge(&record.seen.counted);
        let number = record.analysis.number;
        let expected = result.checks + 1;
        if number != expected {
            result.differences.push(format!("check {expected}: what it saw is not stored"));
            return result;
        }
        result.checks = expected;
        match repeated(plan, rollout, record, &counted) {
            Ok(again) => {
                let differences = differences(&record.analysis, &again);
                result.differences.extend(differences.iter().map(|what| format!("check {number}: {what}")));
                repeated_checks.push(again);
            }
            Err(what) => {
                result.differences.push(format!("check {number}: {what}"));
                return result;
            }
        }
    }
    let (decisions, differences) = decisions::compared(plan, rollout, &repeated_checks, log);
    result.decisions = decisions;
    result.differences.extend(differences);
    result
}

/// Repeats one check on everything counted up to it.
fn repeated(
    plan: &Plan,
    rollout: &Rollout,
    record: &CheckRecord,
    counted: &Counted,
) -> Result<Analysis, String> {
    let CheckRecord { analysis, seen } = record;
    if usize::from(analysis.step) >= plan.steps.len() {
        return Err(format!("it names step {}, and the plan has {}", analysis.step, plan.steps.len()));
    }
    let baseline = match (seen.has_baseline, rollout.baseline()) {
        (false, _) => None,
        (true, Some(baseline)) => Some(baseline.clone()),
        (true, None) => return Err("the constants that it was compared with are not stored".to_owned()),
    };
    // Of a rollout under way, a check reads no more than this.
    let active = Active {
        step: analysis.step,
        slice: 0,
        entered_at: analysis.at,
        clock: StepClock::started(analysis.at),
        cohorts: Vec::new(),
        holds: BTreeMap::new(),
        failed_checks: 0,
        last_check: Some(CheckSummary {
            number: analysis.number.saturating_sub(1),
            at: analysis.at,
            step: analysis.step,
            outcome: CheckOutcome::Observed,
            summary: String::new(),
            holds: BTreeMap::new(),
            degraded: seen.degraded.clone(),
            degraded_segments: seen.degraded_segments.clone(),
        }),
        baseline,
        approved: false,
        approvals: Vec::new(),
        frozen: HoldFor::ZERO,
        frozen_before_step: HoldFor::ZERO,
        waived: seen.waived.clone(),
        waived_segments: seen.waived_segments.clone(),
        guard_tripped: seen.guard_tripped.clone(),
        last_at: analysis.at,
    };
    let (cells, assigned) = (counted.cells(), counted.assigned());
    let metrics = by_point_estimates(plan, &analysis.metrics);
    let (recent, unmeasured) = (seen.recent.clone(), seen.unmeasured.clone());
    let sight = Sight { cells: &cells, assigned: &assigned, recent, unmeasured, metrics };
    let again = judge(plan, &active, sight, analysis.at);
    Ok(Analysis { number: analysis.number, ..again })
}

/// The stored values of metrics, judged anew by themselves.
fn by_point_estimates(plan: &Plan, stored: &[MetricReading]) -> Vec<MetricReading> {
    let known = metrics_of(plan);
    let mut readings = stored.to_vec();
    for reading in &mut readings {
        if let Some(metric) = known.iter().find(|metric| metric.name == reading.metric) {
            reading.status = point_status(metric, reading.stable, reading.canary);
        }
    }
    readings
}

/// Everything in which two analyses differ, to the last bit.
pub fn differences(stored: &Analysis, again: &Analysis) -> Vec<String> {
    let mut told = Vec::new();
    for (gate, repeated) in stored.gates.iter().zip(&again.gates) {
        gate_differences(gate, repeated, &mut told);
    }
    for (metric, repeated) in stored.metrics.iter().zip(&again.metrics) {
        if metric != repeated {
            let (before, after) = (metric.status.as_str(), repeated.status.as_str());
            told.push(format!("metric {} was {before} and is {after}", metric.metric));
        }
    }
    let fields = [
        (
            "log evidence",
            stored.log_e.ln().to_bits() == again.log_e.ln().to_bits(),
            format!("{} and is {}", stored.log_e.ln(), again.log_e.ln()),
        ),
        (
            "verdict",
            stored.verdict == again.verdict,
            format!("{:?} and is {:?}", stored.verdict, again.verdict),
        ),
        (
            "matured canary sessions of the step",
            stored.step_sessions == again.step_sessions,
            format!("{} and is {}", stored.step_sessions, again.step_sessions),
        ),
        (
            "culprits",
            stored.culprits == again.culprits,
            format!("{:?} and is {:?}", stored.culprits, again.culprits),
        ),
        ("holds", stored.holds == again.holds, format!("{:?} and is {:?}", stored.holds, again.holds)),
        (
            "degraded metrics",
            stored.degraded == again.degraded,
            format!("{:?} and is {:?}", stored.degraded, again.degraded),
        ),
        (
            "response guard",
            stored.guard_tripped == again.guard_tripped,
            format!("{:?} and is {:?}", stored.guard_tripped, again.guard_tripped),
        ),
    ];
    let differing = fields.into_iter().filter(|(_, same, _)| !same);
    told.extend(differing.map(|(what, _, values)| format!("{what} was {values}")));
    // Whatever an analysis may hold besides.
    if told.is_empty() && stored != again {
        told.push("it comes to something else".to_owned());
    }
    told
}

fn gate_differences(stored: &GateReading, again: &GateReading, told: &mut Vec<String>) {
    let logs = [
        ("log evidence", stored.log_e, again.log_e),
        ("log evidence against stable", stored.stable_log_e, again.stable_log_e),
    ];
    let before = told.len();
    for (what, stored_log, log) in logs {
        if stored_log.ln().to_bits() != log.ln().to_bits() {
            let metric = &stored.metric;
            told.push(format!("gate {metric}: {what} was {} and is {}", stored_log.ln(), log.ln()));
        }
    }
    if stored.state != again.state {
        let (metric, before, after) = (&stored.metric, stored.state.as_str(), again.state.as_str());
        told.push(format!("gate {metric} was {before} and is {after}"));
    }
    if stored.samples != again.samples {
        let metric = &stored.metric;
        told.push(format!("gate {metric} had {} sessions and has {}", stored.samples, again.samples));
    }
    if told.len() == before && stored != again {
        told.push(format!("gate {} reads {:?} and read {:?}", stored.metric, again.shown, stored.shown));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::aggregate::{Counts, Judge, Measure};

    type Batch = Vec<((u16, bool, u16), (u32, u32), u64)>;

    fn batches() -> impl Strategy<Value = Vec<Batch>> {
        let stamp = (0_u16..3, any::<bool>(), 1_u16..3);
        let batch = prop::collection::vec((stamp, (0_u32..4, 0_u32..4), 0_u64..50), 0..8);
        prop::collection::vec(batch, 1..6)
    }

    /// Adds sessions to evidence as they mature.
    fn grow(evidence: &mut Evidence, batch: &Batch) {
        for ((step, is_canary, weight), pair, n) in batch {
            let variant = if *is_canary { Variant::Canary } else { Variant::Stable };
            let metric = MetricName::parse("success_rate").unwrap();
            let counts = Counts { pairs: [(*pair, *n)].into(), values: [(pair.0, *n)].into() };
            let counts = if *n == 0 { Counts::default() } else { counts };
            let measures = [(Measure { metric, judge: Judge::Limit }, counts)];
            let measures = if *n == 0 { BTreeMap::new() } else { measures.into() };
            evidence.cells.push(Cell {
                step: *step,
                start: *step,
                segment: 0,
                weight: Weight::from_bp(weight * 1_000).unwrap(),
                observing: false,
                variant,
                counters: Counters { sessions: *n, measures },
            });
            evidence.assigned.push(Assigned {
                weight: Weight::from_bp(weight * 1_000).unwrap(),
                canary: if *is_canary { *n } else { 0 },
                stable: if *is_canary { 0 } else { *n },
            });
        }
    }

    proptest! {
        #[test]
        fn the_stored_differences_add_up_to_everything_counted(batches in batches()) {
            let mut evidence = Evidence::default();
            let (mut watermark, mut sum) = (Counted::default(), Counted::default());
            for batch in &batches {
                grow(&mut evidence, batch);
                let counted = Counted::of(&evidence);
                let delta = serde_json::to_string(&counted.since(&watermark)).unwrap();
                sum.merge(&serde_json::from_str(&delta).unwrap());
                prop_assert_eq!(&sum, &counted);
                let stored = serde_json::to_string(&counted).unwrap();
                watermark = serde_json::from_str(&stored).unwrap();
            }
            prop_assert_eq!(sum.since(&watermark), Counted::default());
        }
    }
}
