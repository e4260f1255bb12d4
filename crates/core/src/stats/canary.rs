//! Test B: the canary against stable, session by session, at the weight stamped on each.
//!
//! ```text
//! s = sigma (a - w)(y - m - delta a)          a = 1 canary, 0 stable; sigma = +1 rollback, -1 promotion
//! c_w = max((1-w)(m+delta), w(1-m))           rollback
//! c_w = max((1-w)(1-m-delta), w m)            promotion
//! lambda_{j,w} = min(d_j / sd, 0.9 / c_w)
//! log E = logsumexp_j [ -ln J + sum over w, variant, value of  n ln(1 + lambda_{j,w} s) ]
//! ```
//!
//! Given the past, the mean of s is `w(1-w)(mu_canary - delta - mu_stable)`, at most 0 when the canary is not worse,
//! and `1 + lambda s >= 0.1`: exact at every sample size, whatever drift hits both variants, whatever weights as
//! long as they depend on the past only. Wrong m or sd cost power, never validity. At w = 1 (and 0) every factor is
//! 1: without concurrent sessions of the other variant there is nothing to compare. Source: Waudby-Smith & Ramdas
//! 2023 (betting); Podkopaev & Ramdas 2023.

use serde::{Deserialize, Serialize};

use super::{
    badness::Badness,
    logspace::{LogE, LogWealth},
    process::Process,
    share::Share,
};

/// The standardised effects that a rollback test bets on.
pub const ROLLBACK_EFFECTS: [f64; 5] = [0.015, 0.05, 0.15, 0.4, 1.0];
/// The effects of a promotion test, in units of `delta / sd`.
const PROMOTION_EFFECTS_PER_MARGIN: [f64; 4] = [0.5, 0.75, 1.0, 1.5];
/// The share of the wealth that one session can take at most.
const LOSS_MAX: f64 = 0.9;

/// Which claim the evidence is collected for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The canary is worse than stable by more than the margin.
    Rollback,
    /// The canary is not worse than stable by as much as the margin.
    Promotion,
}

/// Mean and standard deviation of stable's badness, frozen before evidence starts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BaselineNumbers")]
pub struct Baseline {
    mean: f64,
    sd: f64,
}

/// A baseline as written, before its ranges are checked.
#[derive(Deserialize)]
struct BaselineNumbers {
    mean: f64,
    sd: f64,
}

/// Why numbers are no baseline, or no test.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidTest {
    /// The mean is no badness.
    #[error("mean {0} is no badness; it must lie between 0 and 1")]
    Mean(f64),
    /// The standard deviation is negative or not finite.
    #[error("standard deviation {0} must be finite and not negative")]
    Sd(f64),
    /// The margin is negative, above 1 or not a number.
    #[error("margin {0} must lie between 0 and 1, in units of badness")]
    Margin(f64),
    /// An effect of the grid is negative or not finite.
    #[error("effect {0} must be finite and not negative")]
    Effect(f64),
}

impl Baseline {
    /// Takes the mean (0 to 1) and standard deviation (0 or more) of stable's badness.
    ///
    /// A standard deviation of 0 is fine: bets are then as large as safety allows.
    ///
    /// # Errors
    /// [`InvalidTest`] outside of these ranges.
    pub fn new(mean: f64, sd: f64) -> Result<Self, InvalidTest> {
        if !(0.0..=1.0).contains(&mean) {
            return Err(InvalidTest::Mean(mean));
        }
        if !(sd.is_finite() && sd >= 0.0) {
            return Err(InvalidTest::Sd(sd));
        }
        Ok(Self { mean, sd })
    }

    /// The mean of stable's badness, 0 to 1.
    #[must_use]
    pub fn mean(self) -> f64 {
        self.mean
    }

    /// The standard deviation of stable's badness.
    #[must_use]
    pub fn sd(self) -> f64 {
        self.sd
    }
}

impl TryFrom<BaselineNumbers> for Baseline {
    type Error = InvalidTest;

    fn try_from(numbers: BaselineNumbers) -> Result<Self, InvalidTest> {
        Self::new(numbers.mean, numbers.sd)
    }
}

/// The matured sessions of both variants that were assigned in one step at one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CanaryCell<'a> {
    /// The step in which the sessions were assigned.
    pub step: u16,
    /// The share of the canary that was stamped on them.
    pub weight: Share,
    /// Values of the canary's sessions and how many have each.
    pub canary: &'a [(Badness, u64)],
    /// Values of stable's sessions and how many have each.
    pub stable: &'a [(Badness, u64)],
}

/// Test B with everything that is frozen before evidence starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryTest {
    baseline: Baseline,
    margin: f64,
    direction: Direction,
    effects: Vec<f64>,
}

impl CanaryTest {
    /// The test with its usual grid; `margin` is delta in units of badness, 0 to 1.
    ///
    /// # Errors
    /// [`InvalidTest::Margin`] outside of that range.
    pub fn new(baseline: Baseline, margin: f64, direction: Direction) -> Result<Self, InvalidTest> {
        if !(0.0..=1.0).contains(&margin) {
            return Err(InvalidTest::Margin(margin));
        }
        let effects = match direction {
            Direction::Rollback => ROLLBACK_EFFECTS.to_vec(),
            Direction::Promotion if baseline.sd > 0.0 => {
                PROMOTION_EFFECTS_PER_MARGIN.map(|factor| factor * margin / baseline.sd).to_vec()
            }
            // Without spread delta/sd has no value; the largest effects are bet on, within the safety bound.
            Direction::Promotion => PROMOTION_EFFECTS_PER_MARGIN.to_vec(),
        };
        Ok(Self { baseline, margin, direction, effects })
    }

    /// The same test with another grid of standardised effects.
    ///
    /// # Errors
    /// [`InvalidTest::Effect`] when one is negative or not finite.
    pub fn with_effects(self, effects: &[f64]) -> Result<Self, InvalidTest> {
        match effects.iter().find(|effect| !(effect.is_finite() && **effect >= 0.0)) {
            Some(bad) => Err(InvalidTest::Effect(*bad)),
            None => Ok(Self { effects: effects.to_vec(), ..self }),
        }
    }

    /// The process of cells keyed by step; cells of the same step add up.
    #[must_use]
    pub fn process<'a>(&self, cells: impl IntoIterator<Item = CanaryCell<'a>>) -> Process {
        let mut process = Process::empty(self.effects.len());
        for cell in cells {
            process.add_own(cell.step, &self.increments(cell));
        }
        process
    }

    /// The e-value over all cells from the first step on.
    #[must_use]
    pub fn log_e(&self, cells: &[CanaryCell<'_>]) -> LogE {
        self.process(cells.iter().copied()).from_first()
    }

    fn increments(&self, cell: CanaryCell<'_>) -> Vec<f64> {
        if !cell.weight.is_informative() {
            return vec![0.0; self.effects.len()];
        }
        let weight = cell.weight.get();
        let (mean, margin) = (self.baseline.mean, self.margin);
        let (sign, loss_max) = match self.direction {
            Direction::Rollback => (1.0, ((1.0 - weight) * (mean + margin)).max(weight * (1.0 - mean))),
            Direction::Promotion => (-1.0, ((1.0 - weight) * (1.0 - mean - margin)).max(weight * mean)),
        };
        let bets: Vec<f64> =
            self.effects.iter().map(|effect| bet(*effect, self.baseline.sd, loss_max)).collect();
        let mut wealth = LogWealth::new(&bets);
        for (value, sessions) in cell.canary {
            wealth.add(sign * (1.0 - weight) * (value.get() - mean - margin), *sessions);
        }
        for (value, sessions) in cell.stable {
            wealth.add(-sign * weight * (value.get() - mean), *sessions);
        }
        wealth.finish()
    }
}

/// The bet on a standardised effect, `min(effect / sd, 0.9 / loss_max)`, where a score is at least `-loss_max`.
///
/// Where neither bounds it (no spread and no loss possible) nothing is bet.
pub(super) fn bet(effect: f64, sd: f64, loss_max: f64) -> f64 {
    let safe = if loss_max > 0.0 { LOSS_MAX / loss_max } else { f64::INFINITY };
    let wanted = if sd > 0.0 { effect / sd } else { f64::INFINITY };
    let bet = wanted.min(safe);
    if bet.is_finite() { bet } else { 0.0 }
}

#[cfg(test)]
#[path = "canary_tests.rs"]
mod tests;
