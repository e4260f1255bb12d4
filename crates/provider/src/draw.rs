//! The dice of one request.
//!
//! Each purpose has its own stream, keyed by the script's seed, the request and the
//! purpose. A script that fails more often is therefore no slower, and two behaviours under
//! one key differ only where they are meant to.

use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::values::{Fraction, Spread};

/// What a stream of random numbers is used for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Latency = 1,
    Failure,
    Drop,
    Refusal,
    Empty,
    ToolCall,
    WrongTool,
    WrongToolKind,
    Truncation,
    Reply,
    OutputTokens,
    Identifier,
}

/// The source of all random numbers of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw(u64);

impl Draw {
    /// The dice of the request with this number.
    pub(crate) fn numbered(seed: u64, number: u64) -> Draw {
        Draw(xxh3_64_with_seed(&number.to_le_bytes(), seed))
    }

    /// The dice of the request with this key, the same whenever it is sent.
    pub(crate) fn keyed(seed: u64, key: &[u8]) -> Draw {
        Draw(xxh3_64_with_seed(key, seed))
    }

    /// Returns whether something that has this rate happens to the request.
    pub(crate) fn happens(self, purpose: Purpose, rate: Fraction) -> bool {
        rate > Fraction::ZERO && self.stream(purpose).random::<f64>() < rate.get()
    }

    /// Picks one of `items`, or none when there are none.
    pub(crate) fn pick<T>(self, purpose: Purpose, items: &[T]) -> Option<&T> {
        match items {
            [] => None,
            [only] => Some(only),
            several => several.get(self.stream(purpose).random_range(0..several.len())),
        }
    }

    /// Draws an amount from a distribution.
    pub(crate) fn amount(self, purpose: Purpose, spread: Spread) -> f64 {
        spread.at(|| standard_normal(&mut self.stream(purpose)))
    }

    /// Returns `prefix` followed by `length` letters and digits.
    pub(crate) fn identifier(self, prefix: &str, variant: u64, length: usize) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789xy";
        let mut stream = Draw(self.0.wrapping_add(variant)).stream(Purpose::Identifier);
        let mut text = String::with_capacity(prefix.len() + length);
        text.push_str(prefix);
        let mut bits = 0;
        for position in 0..length {
            if position % 10 == 0 {
                bits = stream.next_u64();
            }
            text.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
        text
    }

    fn stream(self, purpose: Purpose) -> Pcg64Mcg {
        Pcg64Mcg::seed_from_u64(self.0 ^ (purpose as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Draws from the standard normal distribution (Box-Muller).
fn standard_normal(stream: &mut Pcg64Mcg) -> f64 {
    let radius = (-2.0 * (1.0 - stream.random::<f64>()).ln()).sqrt();
    let angle = std::f64::consts::TAU * stream.random::<f64>();
    radius * angle.cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_normal_spread_has_the_median_and_p99_it_was_given() {
        let spread = Spread::log_normal(400.0, 1800.0).expect("a valid spread");
        let mut amounts: Vec<f64> =
            (0..20_000).map(|number| Draw::numbered(7, number).amount(Purpose::Latency, spread)).collect();
        amounts.sort_by(f64::total_cmp);
        assert!((380.0..420.0).contains(&amounts[10_000]), "{}", amounts[10_000]);
        assert!((1650.0..1950.0).contains(&amounts[19_800]), "{}", amounts[19_800]);
    }

    #[test]
    fn a_rate_is_met_over_many_requests() {
        let rate = Fraction::new(0.05).expect("a valid rate");
        let hits =
            (0..20_000).filter(|number| Draw::numbered(7, *number).happens(Purpose::Failure, rate)).count();
        assert!((900..1100).contains(&hits), "{hits}");
    }

    #[test]
    fn purposes_are_independent() {
        let rate = Fraction::new(0.5).expect("a valid rate");
        let both = (0..20_000)
            .map(|number| Draw::numbered(7, number))
            .filter(|d| d.happens(Purpose::Failure, rate) && d.happens(Purpose::Refusal, rate))
            .count();
        assert!((4_700..5_300).contains(&both), "{both}");
    }
}
