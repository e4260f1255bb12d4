//! What one check is decided on: everything seen, reduced to what gates and metrics read of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Assigned, Cell, Evidence, MetricReading, compare};
use crate::metric::MetricName;
use crate::outside::Outside;
use crate::plan::{Decision, Plan};

/// What one check is decided on, besides the plan and the state of the rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight<'a> {
    /// Matured sessions by what was stamped on them.
    pub cells: &'a [Cell],
    /// Sessions assigned, for the sample ratio.
    pub assigned: &'a [Assigned],
    /// The last interval, for the gates that are read literally.
    pub recent: BTreeMap<MetricName, RecentReading>,
    /// Metrics that an outside provider could not measure, and why.
    pub unmeasured: BTreeMap<MetricName, String>,
    /// Every metric that has data, judged by its point estimates alone.
    pub metrics: Vec<MetricReading>,
}

/// The point estimates of a metric over the last interval, in its unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RecentReading {
    /// Of stable.
    pub stable: Option<f64>,
    /// Of the canary.
    pub canary: Option<f64>,
    /// Values that the canary's rests on.
    pub canary_samples: u64,
}

impl<'a> Sight<'a> {
    /// Reduces everything seen to what a plan reads of it.
    pub fn of(plan: &Plan, evidence: &'a Evidence) -> Self {
        let literal = plan.analysis.gates.iter().filter(|gate| match gate.decision {
            Decision::Point => !gate.is_outside(),
            Decision::Evidence => false,
        });
        let (stable, canary) = (&evidence.recent.stable, &evidence.recent.canary);
        let recent = literal.map(|gate| {
            let reading = RecentReading {
                stable: stable.value(&gate.metric),
                canary: canary.value(&gate.metric),
                canary_samples: canary.samples(&gate.metric),
            };
            (gate.metric.name.clone(), reading)
        });
        let mut recent: BTreeMap<MetricName, RecentReading> = recent.collect();
        let mut unmeasured = BTreeMap::new();
        for gate in plan.analysis.gates.iter().filter(|gate| gate.is_outside()) {
            let name = gate.metric.name.clone();
            match evidence.outside.get(&name) {
                Some(Outside::Measured { stable, canary }) => {
                    let reading = RecentReading { stable: *stable, canary: Some(*canary), canary_samples: 0 };
                    recent.insert(name, reading);
                }
                Some(Outside::Unmeasured(why)) => {
                    unmeasured.insert(name, why.clone());
                }
                None => {
                    unmeasured.insert(name, format!("{} was not asked", gate.provider));
                }
            }
        }
        Self {
            cells: &evidence.cells,
            assigned: &evidence.assigned,
            recent,
            unmeasured,
            metrics: compare(plan, &evidence.shown),
        }
    }

    /// The canary's value of a metric over all data; nothing where there is none.
    pub(super) fn canary_value(&self, metric: &MetricName) -> Option<f64> {
        self.metrics.iter().find(|reading| reading.metric == *metric).and_then(|reading| reading.canary)
    }
}
