//! Who comes: to which segment a session belongs.

use serin_core::plan::Plan;

use crate::dice::mixed;

/// How the sessions spread over the segments of a plan, in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Crowd {
    shares: Vec<f64>,
}

impl Crowd {
    /// Shares of all sessions by segment; the last segment gets what is left.
    pub(crate) fn new(shares: Vec<f64>) -> Self {
        Self { shares }
    }

    /// The shares that a scenario names, for the segments of a plan; where it names none, each brings as many.
    #[expect(clippy::cast_precision_loss, reason = "a plan has at most 32 segments")]
    pub(crate) fn of(plan: &Plan, named: &std::collections::BTreeMap<String, f64>) -> Self {
        let n = plan.segments.len();
        let share = |segment: &serin_core::plan::Segment| match named.is_empty() {
            true => 1.0 / n as f64,
            false => named.get(segment.name.as_str()).copied().unwrap_or(0.0),
        };
        Self::new(plan.segments.iter().map(share).collect())
    }

    /// The segment of somebody who stands at `place`, 0 to 1, of the whole crowd; `n` segments are there.
    pub(crate) fn at(&self, place: f64, n: usize) -> usize {
        let last = n.saturating_sub(1);
        let mut reached = 0.0;
        for (index, share) in self.shares.iter().take(last).enumerate() {
            reached += share;
            if place < reached {
                return index;
            }
        }
        last
    }

    /// The segment of a user, who always belongs to the same one.
    #[expect(clippy::cast_precision_loss, reason = "a place needs no more than 52 bits")]
    pub(crate) fn of_user(&self, user: u64, n: usize) -> usize {
        self.at((mixed(user, 0x5e6) >> 12) as f64 / (1_u64 << 52) as f64, n)
    }
}
