//! A mean against a constant, such as `user_satisfaction_avg >= 4.0`: Test B's form with one variant.
//!
//! ```text
//! s = y - m0,  lambda_j = min(d_j / sd, 0.9 / m0)
//! log E = logsumexp_j [ -ln J + sum over values of  n ln(1 + lambda_j s) ]
//! ```
//!
//! y and the constant m0 are badness (4.0 stars: `m0 = (5 - 4)/4 = 0.25`), d_j as in
//! [`canary::ROLLBACK_EFFECTS`]. The mean of s is at most 0 while the metric keeps its limit, and
//! `1 + lambda s >= 0.1`. Source: Waudby-Smith & Ramdas 2023 (betting).

use serde::{Deserialize, Serialize};

use super::{
    badness::Badness,
    canary::{self, InvalidTest},
    logspace::{LogE, LogWealth},
    process::Process,
};

/// The gate "mean badness is at most m0".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanTest {
    limit: Badness,
    bets: Vec<f64>,
}

impl MeanTest {
    /// A test of the limit m0, with stable's frozen standard deviation (0 or more, in units of badness) to size the
    /// bets.
    ///
    /// # Errors
    /// [`InvalidTest::Sd`] when the standard deviation is negative or not finite.
    pub fn new(limit: Badness, sd: f64) -> Result<Self, InvalidTest> {
        if !(sd.is_finite() && sd >= 0.0) {
            return Err(InvalidTest::Sd(sd));
        }
        let bets = canary::ROLLBACK_EFFECTS.map(|effect| canary::bet(effect, sd, limit.get())).to_vec();
        Ok(Self { limit, bets })
    }

    /// The process of the canary's values keyed by step.
    #[must_use]
    pub fn process<'a>(&self, steps: impl IntoIterator<Item = (u16, &'a [(Badness, u64)])>) -> Process {
        let mut process = Process::empty(self.bets.len());
        for (step, values) in steps {
            let mut wealth = LogWealth::new(&self.bets);
            for (value, sessions) in values {
                wealth.add(value.get() - self.limit.get(), *sessions);
            }
            process.add_own(step, &wealth.finish());
        }
        process
    }

    /// The e-value of values that are all in one step.
    #[must_use]
    pub fn log_e(&self, values: &[(Badness, u64)]) -> LogE {
        self.process([(0, values)]).from_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn badness(value: f64) -> Badness {
        Badness::new(value).expect("a badness")
    }

    #[test]
    fn no_sessions_are_no_evidence() {
        let test = MeanTest::new(badness(0.25), 0.2).expect("a test");
        assert_eq!(test.log_e(&[]), LogE::ONE);
        assert_eq!(test.log_e(&[(badness(1.0), 0)]), LogE::ONE);
    }

    #[test]
    fn ratings_below_the_limit_are_evidence_and_above_it_are_not() {
        let test = MeanTest::new(badness(0.25), 0.2).expect("a test");
        assert!(test.log_e(&[(badness(0.25), 100), (badness(0.5), 100)]).ln() > 3.0);
        assert!(test.log_e(&[(badness(0.0), 100), (badness(0.25), 100)]).ln() < 0.0);
    }

    #[test]
    fn values_at_the_limit_say_nothing() {
        let test = MeanTest::new(badness(0.25), 0.2).expect("a test");
        assert_eq!(test.log_e(&[(badness(0.25), 1_000_000)]), LogE::ONE);
    }

    /// A value of 0 or 1 whose mean is m0: the mean of E over it is exactly 1.
    #[test]
    fn the_mean_of_e_at_the_limit_is_one() {
        for (limit, sd) in [(0.25, 0.2), (0.01, 0.0), (0.9, 0.4), (0.5, 1e-9)] {
            let test = MeanTest::new(badness(limit), sd).expect("a test");
            let worst = test.log_e(&[(Badness::WORST, 1)]).value();
            let best = test.log_e(&[(Badness::BEST, 1)]).value();
            assert!((limit * worst + (1.0 - limit) * best - 1.0).abs() < 1e-9);
            assert!(best >= 0.1 - 1e-12, "one session took more than nine tenths");
        }
    }

    #[test]
    fn a_limit_of_0_without_spread_bets_nothing() {
        let test = MeanTest::new(Badness::BEST, 0.0).expect("a test");
        assert_eq!(test.log_e(&[(Badness::WORST, 5)]), LogE::ONE);
        assert!(MeanTest::new(Badness::BEST, -1.0).is_err());
    }
}
