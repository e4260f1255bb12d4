//! How many sessions a judge reads: a gate that it feeds sees no others.

use std::fmt;

use super::Traffic;
use crate::plan::{Gate, Plan};
use crate::weight::Weight;

/// The sessions that a judge reads at some traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// Their share of all sessions, above 0 to 1.
    pub(super) share: f64,
    /// What keeps it from reading more.
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    /// `sampleRate`.
    Rate(Weight),
    /// `maxPerHour`.
    Budget(u32),
}

impl Reading {
    /// What the judge of a gate reads at a steady rate: the sessions that it draws, as far as its budget goes; nothing
    /// for a gate without a judge.
    pub(super) fn of(plan: &Plan, gate: &Gate, traffic: &Traffic) -> Option<Self> {
        let judge = plan.analysis.judge_of(&gate.metric.name)?;
        let by_rate = judge.sample_rate.share();
        let by_budget = f64::from(judge.max_per_hour) / 3_600.0 / traffic.sessions_per_second();
        Some(if by_budget < by_rate {
            Self { share: by_budget, bound: Bound::Budget(judge.max_per_hour) }
        } else {
            Self { share: by_rate, bound: Bound::Rate(judge.sample_rate) }
        })
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound {
            Bound::Rate(rate) => write!(f, "its judge reads {rate} of all"),
            Bound::Budget(most) => write!(f, "its judge reads {most} of all in an hour"),
        }
    }
}
