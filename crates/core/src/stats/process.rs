//! What every test produces: the wealth of each bet, step by step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::logspace::{LogE, count_as_f64, logsumexp};

/// The growth of log wealth per step and grid point of one test.
///
/// A test bets on J grid points at once with a J-th of the wealth each:
/// `E = mean over j of exp(sum over steps of increment_j)`. The order in which steps are added does not matter.
///
/// **Invariant:** every step has J finite increments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Process {
    grid_points: usize,
    increments: BTreeMap<u16, Vec<f64>>,
}

/// A process as written, before its invariant is checked.
#[derive(Deserialize)]
struct Stored {
    grid_points: usize,
    increments: BTreeMap<u16, Vec<f64>>,
}

/// Why increments are no process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProcess {
    /// A step has more or fewer increments than the test has grid points.
    #[error("step {step} has {found} increments where the test has {expected} grid points")]
    Length {
        /// The step.
        step: u16,
        /// Increments it has.
        found: usize,
        /// Grid points of the test.
        expected: usize,
    },
    /// An increment is infinite or not a number.
    #[error("step {step} has an increment that is not finite")]
    NotFinite {
        /// The step.
        step: u16,
    },
}

impl Process {
    /// A process of `grid_points` bets without any step: its e-value is 1.
    #[must_use]
    pub fn empty(grid_points: usize) -> Self {
        Self { grid_points, increments: BTreeMap::new() }
    }

    /// Adds the increments of a cell to its step; cells of one step add up.
    ///
    /// # Errors
    /// [`InvalidProcess`] when there is not one finite increment per grid point.
    pub fn add(&mut self, step: u16, increments: &[f64]) -> Result<(), InvalidProcess> {
        if increments.len() != self.grid_points {
            return Err(InvalidProcess::Length { step, found: increments.len(), expected: self.grid_points });
        }
        let sums = self.increments.entry(step).or_insert_with(|| vec![0.0; increments.len()]);
        for (sum, increment) in sums.iter_mut().zip(increments) {
            *sum += increment;
        }
        if sums.iter().all(|sum| sum.is_finite()) { Ok(()) } else { Err(InvalidProcess::NotFinite { step }) }
    }

    /// Adds increments that the tests of this module computed themselves.
    pub(super) fn add_own(&mut self, step: u16, increments: &[f64]) {
        self.add(step, increments).expect("a test computes one finite increment per grid point");
    }

    /// How many bets the test makes at once.
    #[must_use]
    pub fn grid_points(&self) -> usize {
        self.grid_points
    }

    /// The steps that hold data, ascending.
    pub fn steps(&self) -> impl Iterator<Item = u16> + '_ {
        self.increments.keys().copied()
    }

    /// Tells whether a step holds data.
    #[must_use]
    pub fn has_step(&self, step: u16) -> bool {
        self.increments.contains_key(&step)
    }

    /// The e-value over all steps: `logsumexp_j(-ln J + sum over steps)`.
    #[must_use]
    pub fn from_first(&self) -> LogE {
        self.from_step(0)
    }

    /// The e-value over one step and all later ones, as if evidence had begun there.
    #[must_use]
    pub fn from_step(&self, start: u16) -> LogE {
        let mut sums = vec![0.0; self.grid_points];
        // From the last step back, as `suffixes` does, so that both give the same bits.
        for increments in self.increments.range(start..).rev().map(|(_, increments)| increments) {
            add_to(&mut sums, increments);
        }
        mean_wealth(&sums)
    }

    /// For each step that holds data the e-value over it and all later ones, in one pass.
    #[must_use]
    pub fn suffixes(&self) -> BTreeMap<u16, LogE> {
        let mut sums = vec![0.0; self.grid_points];
        let mut suffixes = BTreeMap::new();
        for (step, increments) in self.increments.iter().rev() {
            add_to(&mut sums, increments);
            suffixes.insert(*step, mean_wealth(&sums));
        }
        suffixes
    }
}

impl TryFrom<Stored> for Process {
    type Error = InvalidProcess;

    fn try_from(stored: Stored) -> Result<Self, InvalidProcess> {
        let mut process = Self::empty(stored.grid_points);
        for (step, increments) in &stored.increments {
            process.add(*step, increments)?;
        }
        Ok(process)
    }
}

fn add_to(sums: &mut [f64], increments: &[f64]) {
    for (sum, increment) in sums.iter_mut().zip(increments) {
        *sum += increment;
    }
}

/// The logarithm of the mean of `exp(sum_j)`; a test that makes no bet has an e-value of 1.
fn mean_wealth(sums: &[f64]) -> LogE {
    if sums.is_empty() {
        return LogE::ONE;
    }
    let all_zero = sums.iter().all(|sum| *sum == 0.0);
    if all_zero {
        // Exactly 1, not 1 up to rounding: no data is no evidence.
        return LogE::ONE;
    }
    LogE::of_finite(logsumexp(sums) - count_as_f64(sums.len() as u64).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_steps_is_no_evidence() {
        assert_eq!(Process::empty(5).from_first(), LogE::ONE);
        assert_eq!(Process::empty(0).from_first(), LogE::ONE);
    }

    #[test]
    fn a_suffix_forgets_the_steps_before_it() {
        let mut process = Process::empty(2);
        process.add_own(3, &[-5.0, -1.0]);
        process.add_own(7, &[2.0, 1.0]);
        let late = ((2.0_f64.exp() + 1.0_f64.exp()) / 2.0).ln();
        assert!((process.from_step(4).ln() - late).abs() < 1e-12);
        assert_eq!(process.from_step(8), LogE::ONE);
        assert_eq!(process.suffixes()[&3], process.from_first());
        assert_eq!(process.suffixes()[&7], process.from_step(4));
    }

    #[test]
    fn a_step_has_one_finite_increment_per_grid_point() {
        let mut process = Process::empty(2);
        assert_eq!(process.add(0, &[0.0]), Err(InvalidProcess::Length { step: 0, found: 1, expected: 2 }));
        assert_eq!(process.add(1, &[0.0, f64::NAN]), Err(InvalidProcess::NotFinite { step: 1 }));
        assert!(serde_json::from_str::<Process>(r#"{"grid_points":2,"increments":{"0":[1.0]}}"#).is_err());
    }
}
