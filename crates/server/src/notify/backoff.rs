//! How long to wait before the next attempt.

use rand::RngExt;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use serin_core::units::HoldFor;

/// The wait after the first failure, before its jitter.
const FIRST: HoldFor = HoldFor::from_secs(1);
/// The longest wait, before its jitter.
const LONGEST: HoldFor = HoldFor::from_mins(5);

/// Draws waits: twice as long after each failure, up to five minutes, and anywhere in the upper half of that.
///
/// The half that is left to chance keeps servers that failed together from coming back together.
#[derive(Debug, Clone)]
pub struct Backoff(Pcg64Mcg);

impl Backoff {
    /// Waits of one receiver; the same seed and name draw the same ones.
    pub fn new(seed: u64, receiver: &str) -> Self {
        let name = blake3::hash(receiver.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&name.as_bytes()[..8]);
        Self(Pcg64Mcg::seed_from_u64(seed ^ u64::from_le_bytes(bytes)))
    }

    /// The wait after so many failures in a row, counted from 1.
    pub fn after(&mut self, failures: u32) -> HoldFor {
        let doublings = failures.saturating_sub(1).min(20);
        let full = FIRST.times(1 << doublings).millis().min(LONGEST.millis());
        HoldFor::from_millis(self.0.random_range(full / 2..=full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_are_drawn_from_their_upper_half() {
        let mut backoff = Backoff::new(7, "oncall");
        for (failures, seconds) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (4_000_000_000, 300)] {
            for _ in 0..100 {
                let wait = backoff.after(failures).millis();
                assert!((seconds * 500..=seconds * 1_000).contains(&wait), "{failures}: {wait} ms");
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_waits_and_receivers_draw_their_own() {
        let draw = |seed, name| {
            let mut backoff = Backoff::new(seed, name);
            (1..9).map(|failures| backoff.after(failures)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, "a"), draw(7, "a"));
        assert_ne!(draw(7, "a"), draw(7, "b"));
        assert_ne!(draw(7, "a"), draw(8, "a"));
    }
}
