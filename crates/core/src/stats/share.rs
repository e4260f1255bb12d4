//! Test C: a count against a known share.
//!
//! ```text
//! log E = logsumexp_j [ -ln J + sum_w  k1 t_j - (k1 + k0) ln((w r0 e^{t_j} + 1 - w)/(w r0 + 1 - w)) ]
//! ```
//!
//! k1 hits and k0 misses, where a hit has at most the odds `w r0 : 1 - w` when nothing is wrong. A threshold gate
//! takes `w := ` the allowed share of bad sessions; the sample-ratio test takes the stamped weight. Exact at every
//! sample size (a product of likelihood ratios). Source: Ville 1939; Lindon & Malek 2022 for sample ratios.

use serde::{Deserialize, Serialize};

use super::{
    logspace::{LogE, count_as_f64},
    process::Process,
};

/// The log risk ratios that are bet on when only "too many" is wrong.
pub const ONE_SIDED_GRID: [f64; 5] = [0.06, 0.15, 0.35, 0.8, 1.6];

/// A known share between 0 and 1: the weight stamped on sessions, or the limit of a gate.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(f64);

/// A share below 0, above 1 or not a number.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is no share; it must lie between 0 and 1")]
pub struct InvalidShare(pub f64);

impl Share {
    /// Takes a share between 0 and 1.
    ///
    /// # Errors
    /// [`InvalidShare`] outside of that range and for NaN.
    pub fn new(share: f64) -> Result<Self, InvalidShare> {
        if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err(InvalidShare(share)) }
    }

    /// Takes a share in basis points, 0 to 10 000.
    ///
    /// # Errors
    /// [`InvalidShare`] above 10 000.
    pub fn from_bp(share_bp: u16) -> Result<Self, InvalidShare> {
        Self::new(f64::from(share_bp) / 10_000.0)
    }

    /// The number between 0 and 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// Tells whether a comparison at this share can say anything: at 0 and 1 there is only one kind of session.
    #[must_use]
    pub fn is_informative(self) -> bool {
        self.0 > 0.0 && self.0 < 1.0
    }
}

impl TryFrom<f64> for Share {
    type Error = InvalidShare;

    fn try_from(share: f64) -> Result<Self, InvalidShare> {
        Self::new(share)
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        share.0
    }
}

/// Hits and misses counted at one known share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ShareCount {
    /// The share of hits that is expected, or allowed.
    pub share: Share,
    /// Sessions that count against the canary: bad ones, or those of the canary.
    pub hits: u64,
    /// All other sessions.
    pub misses: u64,
}

/// Test C with its grid and margin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareTest {
    grid: Vec<f64>,
    risk_ratio_margin: f64,
}

/// Why a grid or margin was refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidShareTest {
    /// A log risk ratio of the grid is infinite or not a number.
    #[error("{0} is no log risk ratio; it must be finite")]
    Grid(f64),
    /// The margin is not above 0.
    #[error("{0} is no risk-ratio margin; it must be finite and above 0")]
    Margin(f64),
}

impl ShareTest {
    /// The test of a gate: only too many hits are wrong.
    #[must_use]
    pub fn one_sided() -> Self {
        Self { grid: ONE_SIDED_GRID.to_vec(), risk_ratio_margin: 1.0 }
    }

    /// A test with its own grid of log risk ratios, on top of a risk ratio `risk_ratio_margin` that is tolerated
    /// (1 for none).
    ///
    /// # Errors
    /// [`InvalidShareTest`] when a number is not finite or the margin is not above 0.
    pub fn new(grid: &[f64], risk_ratio_margin: f64) -> Result<Self, InvalidShareTest> {
        if let Some(bad) = grid.iter().find(|log_ratio| !log_ratio.is_finite()) {
            return Err(InvalidShareTest::Grid(*bad));
        }
        if !(risk_ratio_margin.is_finite() && risk_ratio_margin > 0.0) {
            return Err(InvalidShareTest::Margin(risk_ratio_margin));
        }
        Ok(Self { grid: grid.to_vec(), risk_ratio_margin })
    }

    /// The process of counts keyed by step; shares of 0 and 1 carry no information.
    #[must_use]
    pub fn process(&self, counts: impl IntoIterator<Item = (u16, ShareCount)>) -> Process {
        let mut process = Process::empty(self.grid.len());
        for (step, count) in counts {
            process.add_own(step, &increments(count, &self.grid, self.risk_ratio_margin));
        }
        process
    }

    /// The e-value of counts that are all in one step.
    #[must_use]
    pub fn log_e(&self, counts: &[ShareCount]) -> LogE {
        log_e(counts, &self.grid, self.risk_ratio_margin)
    }
}

/// The e-value of counts for a grid of log risk ratios that is fixed in code, such as the two-sided ones.
///
/// # Panics
/// When a log risk ratio is not finite or the margin is not above 0; [`ShareTest::new`] checks numbers that are
/// not fixed.
#[must_use]
pub fn log_e(counts: &[ShareCount], grid: &[f64], risk_ratio_margin: f64) -> LogE {
    let mut process = Process::empty(grid.len());
    for count in counts {
        process.add_own(0, &increments(*count, grid, risk_ratio_margin));
    }
    process.from_first()
}

fn increments(count: ShareCount, grid: &[f64], risk_ratio_margin: f64) -> Vec<f64> {
    if !count.share.is_informative() {
        return vec![0.0; grid.len()];
    }
    let hits = count_as_f64(count.hits);
    let sessions = hits + count_as_f64(count.misses);
    let share = count.share.get();
    let hits_expected = share * risk_ratio_margin / (share * risk_ratio_margin + 1.0 - share);
    grid.iter()
        .map(|log_ratio| hits * log_ratio - sessions * (hits_expected * log_ratio.exp_m1()).ln_1p())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_SIDED: [f64; 8] = [-0.25, -0.1, -0.05, -0.02, 0.02, 0.05, 0.1, 0.25];

    fn count(share: f64, hits: u64, misses: u64) -> ShareCount {
        ShareCount { share: Share::new(share).expect("a share"), hits, misses }
    }

    #[test]
    fn no_sessions_are_no_evidence() {
        assert_eq!(ShareTest::one_sided().log_e(&[]), LogE::ONE);
        assert_eq!(ShareTest::one_sided().log_e(&[count(0.1, 0, 0)]), LogE::ONE);
    }

    #[test]
    fn shares_of_0_and_1_carry_no_information() {
        assert_eq!(ShareTest::one_sided().log_e(&[count(1.0, 30, 5)]), LogE::ONE);
        assert_eq!(ShareTest::one_sided().log_e(&[count(0.0, 30, 5)]), LogE::ONE);
    }

    #[test]
    fn a_gate_at_its_limit_never_grows_and_one_above_it_does() {
        assert!(ShareTest::one_sided().log_e(&[count(0.1, 100, 900)]).ln() < 0.0);
        assert!(ShareTest::one_sided().log_e(&[count(0.1, 200, 800)]).ln() > 3.0);
    }

    #[test]
    fn a_two_sided_grid_sees_too_few_as_well_as_too_many() {
        for canary in [700, 1300] {
            assert!(log_e(&[count(0.1, canary, 10_000 - canary)], &TWO_SIDED, 1.0).ln() > 7.0);
        }
        assert!(log_e(&[count(0.1, 1000, 9000)], &TWO_SIDED, 1.0).ln() < 0.0);
    }

    /// For one session the mean of E over a hit (probability w) and a miss is exactly 1.
    #[test]
    fn the_mean_of_e_at_the_known_share_is_one() {
        for share in [0.01, 0.1, 0.5, 0.9] {
            for grid in [&ONE_SIDED_GRID[..], &TWO_SIDED[..]] {
                let hit = log_e(&[count(share, 1, 0)], grid, 1.0).value();
                let miss = log_e(&[count(share, 0, 1)], grid, 1.0).value();
                assert!((share * hit + (1.0 - share) * miss - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_margin_must_be_above_0() {
        assert_eq!(ShareTest::new(&ONE_SIDED_GRID, 0.0), Err(InvalidShareTest::Margin(0.0)));
        assert!(ShareTest::new(&[f64::NAN], 1.0).is_err());
    }
}
