//! Which sessions are recorded as samples.

use crate::ids::SessionHash;
use crate::weight::Weight;

/// The place of a session in the draw: the 64 bits of its hash below the tag of its pack.
///
/// A database can compare them: they are the bytes 4 to 11 of the hash, the most significant first. No bucket of a
/// rollout follows from them, for a bucket is a hash with the rollout's own salt.
#[expect(clippy::cast_possible_truncation, reason = "the tag above these bits is no part of the draw")]
fn place(session: SessionHash) -> u64 {
    (session.0 >> 32) as u64
}

/// The last place that is drawn at a rate; nothing when nobody is drawn.
pub fn last_drawn(rate: Weight) -> Option<u64> {
    let drawn = (u128::from(rate.bp()) << 64) / u128::from(Weight::FULL.bp());
    let last = drawn.checked_sub(1)?;
    Some(u64::try_from(last).expect("no rate is above 100%, which draws 2^64 places"))
}

/// Whether a session is recorded when a share of the sessions is.
///
/// A pure function of the session: its requests are recorded all or none. It knows nothing of a rollout, so that
/// both variants are recorded at the same rate.
pub fn is_drawn(session: SessionHash, rate: Weight) -> bool {
    last_drawn(rate).is_some_and(|last| place(session) <= last)
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
        assert_eq!((last_drawn(Weight::ZERO), last_drawn(Weight::FULL)), (None, Some(u64::MAX)));
    }

    #[test]
    fn whoever_is_drawn_at_a_rate_is_drawn_at_every_higher_one() {
        for n in 0..1_000_u128 {
            let session = SessionHash(n << 118 | n << 86);
            let draws: Vec<bool> =
                (0..=10_000).map(|bp| is_drawn(session, Weight::from_bp(bp).unwrap())).collect();
            assert!(draws.is_sorted(), "{n}");
        }
    }
}
