//! Whether a metric that only some sessions have can be compared at all.
//!
//! Ratings come from the sessions that rate. If the canary changes *who* rates, equal
//! ratings look different, and no frozen constant helps: with 20 % instead of 10 %
//! response and a mean that is off by 0.2 stars, up to every healthy canary would be
//! rolled back. So the sessions that have a value are themselves counted against the
//! weights, with the two-sided test of `share`. Once E reaches 20 the gate holds, says
//! that response rates differ, and no longer counts towards rollback. For these metrics
//! the promise is conditional on equal response.

use serde::{Deserialize, Serialize};

use super::logspace::LogE;
use super::share::{self, ShareCount};

/// The log risk ratios that are bet on, both ways: also a large shift, which must be seen early.
pub const GRID: [f64; 10] = [-0.8, -0.25, -0.1, -0.05, -0.02, 0.02, 0.05, 0.1, 0.25, 0.8];

/// The e-value from which response rates count as different.
pub const THRESHOLD: f64 = 20.0;

/// The evidence that the canary changes which sessions have a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ResponseGuard {
    /// The evidence against equal response, as a natural logarithm.
    pub log_e: LogE,
}

impl ResponseGuard {
    /// Judges the sessions that have a value: per stamped weight (`share`), the canary's as hits and stable's as misses.
    #[must_use]
    pub fn of(counts: &[ShareCount]) -> Self {
        Self { log_e: share::log_e(counts, &GRID, 1.0) }
    }

    /// Says whether the response rates differ now.
    ///
    /// The caller remembers that the guard has tripped once: evidence that falls again
    /// does not make earlier ratings comparable.
    #[must_use]
    pub fn is_tripped(&self) -> bool {
        self.log_e.ln() >= THRESHOLD.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::super::share::Share;
    use super::*;

    fn tripped(w: f64, canary: u64, stable: u64) -> bool {
        ResponseGuard::of(&[ShareCount {
            share: Share::new(w).expect("weights of the tests are shares"),
            hits: canary,
            misses: stable,
        }])
        .is_tripped()
    }

    #[test]
    fn equal_response_does_not_trip() {
        assert!(!tripped(0.1, 100, 900));
        assert!(!tripped(0.5, 5020, 4980));
    }

    #[test]
    fn doubled_response_trips_within_a_few_hundred_ratings() {
        // Odds of canary among the rated at w = 0.1: 2 to 9 instead of 1 to 9.
        assert!(!tripped(0.1, 10, 45));
        assert!(tripped(0.1, 60, 270));
    }

    #[test]
    fn halved_response_trips_too() {
        assert!(tripped(0.5, 50, 100));
    }

    #[test]
    fn no_rated_session_and_full_weight_are_no_evidence() {
        assert_eq!(ResponseGuard::of(&[]).log_e, LogE::ONE);
        assert!(!tripped(1.0, 10_000, 0));
    }
}
