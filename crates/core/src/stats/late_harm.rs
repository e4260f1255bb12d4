//! Harm that starts late: one e-value from several starting points.
//!
//! A process from the first step carries the weight of the good past. The mixture
//!
//! ```text
//! E = 1/2 E_(from the first step) + 1/2 x average over the other starts of E_(from that start)
//! ```
//!
//! sees harm that begins in a late step, for a small price in harm that is there from the beginning. It is still an
//! e-process: each part is one, the weights are fixed before evidence starts, and a start that has not begun counts
//! as 1.

use serde::{Deserialize, Serialize};

use super::{
    logspace::{LogE, log_mean, weighted_log_mean},
    process::Process,
};

/// The starts of evidence, fixed when a rollout starts: strictly ascending indices, at least one.
///
/// An index is the one that keys the counts: a step, or a part of a step that is longer than an hour. Steps in
/// which a test cannot measure anything (Test B at weight 1) are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u16>", into = "Vec<u16>")]
pub struct Starts(Vec<u16>);

/// Starts that are not strictly ascending, or none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("starts {0:?} must be strictly ascending and at least one")]
pub struct InvalidStarts(pub Vec<u16>);

impl Starts {
    /// Takes the list of starts, the first step first.
    ///
    /// # Errors
    /// [`InvalidStarts`] when the list is empty or not strictly ascending.
    pub fn new(starts: Vec<u16>) -> Result<Self, InvalidStarts> {
        let is_ascending = starts.windows(2).all(|pair| pair[0] < pair[1]);
        if starts.is_empty() || !is_ascending { Err(InvalidStarts(starts)) } else { Ok(Self(starts)) }
    }

    /// The e-value of a process as the mixture over these starts.
    ///
    /// A start without data has not begun or was skipped and counts as 1; weights are never renormalised. Sessions
    /// are read in the order in which they were assigned, so a start cannot gain data after a later one. With a
    /// single start this is the plain e-value.
    #[must_use]
    pub fn log_e(&self, process: &Process) -> LogE {
        let from_first = process.from_first();
        let others = &self.0[1..];
        if others.is_empty() {
            return from_first;
        }
        let suffixes = process.suffixes();
        let from_others: Vec<LogE> =
            others.iter().map(|start| suffixes.get(start).copied().unwrap_or(LogE::ONE)).collect();
        weighted_log_mean(&[(0.5, from_first), (0.5, log_mean(&from_others))])
    }
}

impl TryFrom<Vec<u16>> for Starts {
    type Error = InvalidStarts;

    fn try_from(starts: Vec<u16>) -> Result<Self, InvalidStarts> {
        Self::new(starts)
    }
}

impl From<Starts> for Vec<u16> {
    fn from(starts: Starts) -> Self {
        starts.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(starts: &[u16]) -> Starts {
        Starts::new(starts.to_vec()).expect("ascending starts")
    }

    fn process(steps: &[(u16, f64)]) -> Process {
        let mut process = Process::empty(1);
        for (step, increment) in steps {
            process.add_own(*step, &[*increment]);
        }
        process
    }

    fn check(starts_of_plan: &[u16], steps: &[(u16, f64)], expected_e: f64) {
        let log_e = starts(starts_of_plan).log_e(&process(steps));
        assert!(
            (log_e.value() - expected_e).abs() < 1e-12 * expected_e.max(1.0),
            "{} is not {expected_e}",
            log_e.value()
        );
    }

    #[test]
    fn half_of_the_weight_is_on_the_first_start() {
        check(&[0, 1, 2], &[(0, -1.0), (1, 0.5), (2, 2.0)], {
            0.5 * 1.5_f64.exp() + 0.5 * (2.5_f64.exp() + 2.0_f64.exp()) / 2.0
        });
    }

    #[test]
    fn starts_that_have_not_begun_count_as_1() {
        check(
            &[0, 1, 2, 3],
            &[(0, -1.0), (1, 0.5)],
            0.5 * (-0.5_f64).exp() + 0.5 * (0.5_f64.exp() + 1.0 + 1.0) / 3.0,
        );
    }

    #[test]
    fn a_skipped_start_counts_as_1() {
        check(&[0, 1, 2], &[(0, -1.0), (2, 2.0)], 0.5 * 1.0_f64.exp() + 0.5 * (1.0 + 2.0_f64.exp()) / 2.0);
    }

    #[test]
    fn a_single_start_is_the_plain_e_value() {
        check(&[0], &[(0, -1.0), (1, 3.0)], 2.0_f64.exp());
    }

    #[test]
    fn no_data_is_no_evidence() {
        assert!(starts(&[0, 1, 2]).log_e(&Process::empty(5)).ln().abs() < 1e-15);
    }

    #[test]
    fn a_good_past_does_not_hide_late_harm() {
        let late = process(&[(0, -20.0), (1, -20.0), (2, 8.0)]);
        assert!(late.from_first().ln() < -30.0);
        assert!(starts(&[0, 1, 2]).log_e(&late).ln() > 20.0_f64.ln());
    }

    #[test]
    fn starts_are_strictly_ascending() {
        assert!(Starts::new(vec![]).is_err());
        assert!(Starts::new(vec![0, 0]).is_err());
        assert!(Starts::new(vec![1, 0]).is_err());
    }
}
