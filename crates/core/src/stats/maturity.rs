//! When a session is old enough to be counted, the same age in both variants.
//!
//! A session's value is taken at a fixed age, so that a canary that is only slower
//! does not look worse at an early look. With outcomes whose 99th percentile is ten
//! minutes, reading at one such delay rolls back 25 to 100 % of merely slower
//! canaries, reading at three rolls back none.
//!
//! The constants here are taken from stable once, frozen before evidence starts, and
//! then never change within a rollout.

use std::time::Duration;

/// The time after its assignment in which a session's requests must *start* to count.
pub const RESPONSE_WINDOW: Duration = Duration::from_secs(60);

/// How far above stable's 99.9th percentile a value is capped.
const CAP_FACTOR: f64 = 1.5;

/// How many of stable's 99th percentile delays an outcome is waited for.
const OUTCOME_DELAYS: f64 = 3.0;

const MINUTE: Duration = Duration::from_secs(60);

/// Returns the cap of a mean, 1.5 times stable's 99.9th percentile, in the unit of the value.
///
/// Values above it count as the cap, so that `min(x, cap) / cap` is in [0, 1]. None
/// when stable has no positive percentile: without one there is no scale.
#[must_use]
pub fn value_cap(stable_p999: Option<f64>) -> Option<f64> {
    let cap = CAP_FACTOR * stable_p999?;
    (cap.is_finite() && cap > 0.0).then_some(cap)
}

/// Returns the latency cap: 1.5 times stable's 99.9th percentile, at most the request timeout.
///
/// A request that is still unfinished then is bad and above every latency threshold.
/// While stable's percentile is unknown the cap is the timeout.
#[must_use]
pub fn latency_cap(stable_p999: Option<Duration>, request_timeout: Duration) -> Duration {
    match stable_p999 {
        Some(p999) => times(p999, CAP_FACTOR).min(request_timeout),
        None => request_timeout,
    }
}

/// Returns the age at which response metrics are read: the window in which requests start, and one latency cap.
#[must_use]
pub fn of_responses(latency_cap: Duration) -> Duration {
    RESPONSE_WINDOW.saturating_add(latency_cap)
}

/// The limits of a session's life, as the manifest sets them under `sessions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// The time without a request after which a session ends.
    pub idle_timeout: Duration,
    /// The longest time for which a session is kept.
    pub max_lifetime: Duration,
}

/// Returns the age at which an outcome is read; an outcome that is absent then counts as not reached.
///
/// Three times stable's 99th percentile delay from assignment to outcome, rounded up
/// to a whole minute and at least one, at most the longest lifetime. While the delay
/// is unknown, the idle timeout within the same limit.
#[must_use]
pub fn of_outcomes(stable_p99_delay: Option<Duration>, limits: SessionLimits) -> Duration {
    let age = match stable_p99_delay {
        Some(delay) => up_to_a_minute(times(delay, OUTCOME_DELAYS)),
        None => limits.idle_timeout,
    };
    age.min(limits.max_lifetime)
}

/// Says whether a gate with this maturity judges earlier steps than the one it stands in.
///
/// Sessions of a step are then too young to count before the step's hold has passed.
#[must_use]
pub fn judges_earlier_steps(maturity: Duration, hold: Duration) -> bool {
    maturity > hold
}

fn up_to_a_minute(age: Duration) -> Duration {
    let minutes = age.as_nanos().div_ceil(MINUTE.as_nanos()).max(1);
    // A duration of 2^64 seconds has fewer than 2^59 minutes.
    Duration::from_secs(u64::try_from(minutes).unwrap_or(u64::MAX).saturating_mul(MINUTE.as_secs()))
}

/// A multiple of a duration, without the panic of `mul_f64` on overflow.
fn times(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: SessionLimits =
        SessionLimits { idle_timeout: Duration::from_mins(30), max_lifetime: Duration::from_hours(24) };

    #[test]
    fn the_latency_cap_is_half_again_the_tail_of_stable_and_never_above_the_timeout() {
        let timeout = Duration::from_secs(30);
        assert_eq!(latency_cap(Some(Duration::from_secs(4)), timeout), Duration::from_secs(6));
        assert_eq!(latency_cap(Some(Duration::from_secs(25)), timeout), timeout);
        assert_eq!(latency_cap(Some(Duration::MAX), timeout), timeout);
        assert_eq!(latency_cap(None, timeout), timeout);
    }

    #[test]
    fn a_value_cap_needs_a_positive_percentile() {
        assert_eq!(value_cap(Some(200.0)), Some(300.0));
        for unusable in [None, Some(0.0), Some(f64::NAN), Some(f64::INFINITY)] {
            assert_eq!(value_cap(unusable), None, "{unusable:?}");
        }
    }

    #[test]
    fn responses_are_read_one_cap_after_the_last_request_may_start() {
        assert_eq!(of_responses(Duration::from_secs(6)), Duration::from_secs(66));
        assert_eq!(of_responses(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn outcomes_are_read_after_three_tail_delays_rounded_up_to_a_minute() {
        let after = |delay| of_outcomes(Some(delay), LIMITS);
        assert_eq!(after(Duration::from_mins(10)), Duration::from_mins(30));
        assert_eq!(after(Duration::from_secs(61)), Duration::from_mins(4));
        assert_eq!(after(Duration::from_secs(1)), Duration::from_mins(1));
        assert_eq!(after(Duration::ZERO), Duration::from_mins(1));
    }

    #[test]
    fn outcomes_are_read_within_the_longest_lifetime() {
        assert_eq!(of_outcomes(Some(Duration::from_hours(9)), LIMITS), LIMITS.max_lifetime);
        assert_eq!(of_outcomes(Some(Duration::MAX), LIMITS), LIMITS.max_lifetime);
        let short = SessionLimits { max_lifetime: Duration::from_mins(5), ..LIMITS };
        assert_eq!(of_outcomes(None, short), Duration::from_mins(5));
    }

    #[test]
    fn an_unknown_delay_waits_for_the_idle_timeout() {
        assert_eq!(of_outcomes(None, LIMITS), LIMITS.idle_timeout);
    }

    #[test]
    fn a_gate_judges_earlier_steps_once_its_maturity_exceeds_the_hold() {
        let hold = Duration::from_mins(5);
        assert!(!judges_earlier_steps(hold, hold));
        assert!(judges_earlier_steps(Duration::from_mins(30), hold));
    }

    proptest! {
        #[test]
        fn a_longer_delay_is_never_read_earlier(a in 0..200_000_u64, b in 0..200_000_u64) {
            let age = |millis| of_outcomes(Some(Duration::from_millis(millis * 1000)), LIMITS);
            prop_assert!(age(a.min(b)) <= age(a.max(b)));
            prop_assert_eq!(age(a).as_secs() % 60, 0);
        }
    }
}
