//! Whether the canary really gets the share of sessions that its weight says.
//!
//! A split that is off (lost assignments, a cache, a router that bypasses one variant)
//! makes every comparison doubtful. The test is the two-sided form of `share`: among
//! the sessions that were assigned with probability `w`, the number of the canary's
//! against that known share. It is done twice, when sessions are assigned and again
//! when they mature, and a mismatch holds the rollout and alerts; it never rolls back.
//! Source: Lindon & Malek 2022 for sequential sample-ratio tests.

use serde::{Deserialize, Serialize};

use super::logspace::LogE;
use super::share::{self, ShareCount};

/// The log risk ratios that are bet on, both ways: too few is as wrong as too many.
pub const GRID: [f64; 8] = [-0.25, -0.1, -0.05, -0.02, 0.02, 0.05, 0.1, 0.25];

/// The chance that a sound split is ever called a mismatch.
pub const ALPHA: f64 = 0.001;

/// Where in the life of a session its variant is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// When the session is assigned: a mismatch means the router is wrong.
    Assignment,
    /// When the session matures: a mismatch means sessions of one variant get lost on the way.
    Maturity,
}

/// The split as it was found beside the split as it was set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SampleRatio {
    /// The evidence against the set weights, as a natural logarithm.
    pub log_e: LogE,
    /// The sessions of the canary that were assigned at a weight strictly between 0 and 1.
    pub n_canary: u64,
    /// All sessions that were assigned at such a weight.
    pub n_sessions: u64,
    /// The number of canary sessions that the weights would give on average.
    pub expected_canary: f64,
}

impl SampleRatio {
    /// Judges the counts: per stamped weight (`share`), canary sessions as hits and stable sessions as misses.
    #[must_use]
    pub fn of(counts: &[ShareCount]) -> Self {
        let mut ratio = Self {
            log_e: share::log_e(counts, &GRID, 1.0),
            n_canary: 0,
            n_sessions: 0,
            expected_canary: 0.0,
        };
        for count in counts.iter().filter(|count| count.share.is_informative()) {
            let n_sessions = count.hits + count.misses;
            ratio.n_canary += count.hits;
            ratio.n_sessions += n_sessions;
            ratio.expected_canary += count.share.get() * n_sessions as f64;
        }
        ratio
    }

    /// Says whether the split contradicts the weights: E stands at 1000 or more.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        self.log_e.ln() >= -ALPHA.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::super::share::Share;
    use super::*;

    fn judged(counts: &[(f64, u64, u64)]) -> SampleRatio {
        let count = |&(share, hits, misses)| {
            let share = Share::new(share).expect("weights of the tests are shares");
            ShareCount { share, hits, misses }
        };
        let counts: Vec<_> = counts.iter().map(count).collect();
        SampleRatio::of(&counts)
    }

    #[test]
    fn a_sound_split_over_two_weights_is_no_mismatch() {
        let ratio = judged(&[(0.1, 1003, 8997), (0.2, 1985, 8015)]);
        assert!((ratio.log_e.ln() / -1.775_624_886_212_723_7 - 1.0).abs() < 1e-9, "{ratio:?}");
        assert!(!ratio.is_mismatch());
        assert_eq!((ratio.n_canary, ratio.n_sessions), (2988, 20_000));
        assert!((ratio.expected_canary - 3000.0).abs() < 1e-9);
    }

    #[test]
    fn too_many_and_too_few_canary_sessions_are_both_a_mismatch() {
        assert!(judged(&[(0.5, 5400, 4600)]).is_mismatch());
        assert!(judged(&[(0.5, 4600, 5400)]).is_mismatch());
        assert!(judged(&[(0.1, 800, 9200)]).is_mismatch());
    }

    #[test]
    fn a_wrong_split_at_a_new_weight_is_seen_after_a_sound_one() {
        assert!(judged(&[(0.1, 1000, 9000), (0.2, 1600, 8400)]).is_mismatch());
    }

    #[test]
    fn full_weight_and_no_data_say_nothing() {
        for counts in [&[][..], &[(1.0, 5000, 0)], &[(0.0, 0, 5000)]] {
            let ratio = judged(counts);
            assert_eq!(ratio.log_e, LogE::ONE);
            assert_eq!(ratio.n_sessions, 0);
        }
    }
}
