//! Which sessions are recorded as samples.

use crate::ids::SessionHash;
use crate::weight::Weight;

/// Keeps the draw apart from the buckets of every rollout.
const SALT: &[u8] = b"serin sample";

/// Whether a session is recorded when a share of the sessions is.
///
/// A pure function of the session: its requests are recorded all or none. It knows nothing of a rollout, so that
/// both variants are recorded at the same rate.
pub fn is_drawn(session: SessionHash, rate: Weight) -> bool {
    let hash = xxhash_rust::xxh3::xxh3_64(&[SALT, &[0], &session.0.to_be_bytes()].concat());
    (u128::from(hash) * 10_000) >> 64 < u128::from(rate.bp())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::ids::{PackName, SessionKey};
    use crate::routing::Bucket;

    #[test]
    fn both_variants_are_drawn_at_the_rate_that_is_set() {
        let pack = PackName::parse("support").unwrap();
        let (rate, weight) = (Weight::from_percent(5.0).unwrap(), Weight::from_percent(10.0).unwrap());
        let (mut canary, mut stable) = ((0_u32, 0_u32), (0_u32, 0_u32));
        for n in 0..200_000 {
            let key = SessionKey::parse(&format!("session-{n}")).unwrap();
            let drawn = is_drawn(SessionHash::of(&pack, &key), rate);
            let side = if Bucket::of("salt", &key).is_canary_at(weight) { &mut canary } else { &mut stable };
            *side = (side.0 + u32::from(drawn), side.1 + 1);
        }
        for (drawn, sessions) in [canary, stable] {
            let share = f64::from(drawn) / f64::from(sessions);
            assert!((share - 0.05).abs() < 0.006, "{share} of {sessions}");
        }
    }

    #[test]
    fn a_rate_of_nothing_draws_nobody_and_a_full_one_everybody() {
        for n in 0..1_000 {
            assert!(!is_drawn(SessionHash(n), Weight::ZERO));
            assert!(is_drawn(SessionHash(n), Weight::FULL));
        }
    }
}
