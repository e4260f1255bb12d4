//! How fast a key may be used: so many requests a minute, and as many at once after a quiet minute.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serin_core::units::Timestamp;

const MINUTE_US: i64 = 60_000_000;

/// How far a key is ahead of its pace.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When everything that was let through would have come at an even pace, in microseconds since 1970.
    arrival_us: AtomicI64,
}

impl Pace {
    /// Lets one more request through.
    ///
    /// # Errors
    /// How long to wait, when there were too many.
    pub(crate) fn take(&self, per_minute: NonZeroU32, now: Timestamp) -> Result<(), Duration> {
        let now = now.as_microsecond();
        let interval = (MINUTE_US / i64::from(per_minute.get())).max(1);
        let next = |arrival: i64| {
            let arrival = arrival.max(now);
            (arrival - now <= MINUTE_US - interval).then_some(arrival + interval)
        };
        match self.arrival_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(()),
            Err(arrival) => {
                let wait = arrival - now - (MINUTE_US - interval);
                Err(Duration::from_micros(u64::try_from(wait).unwrap_or(0)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_passes_at_once_and_then_one_at_a_time() {
        let pace = Pace::default();
        let per_minute = NonZeroU32::new(60).unwrap();
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        for n in 0..60 {
            assert_eq!(pace.take(per_minute, at(0)), Ok(()), "{n}");
        }
        assert_eq!(pace.take(per_minute, at(0)), Err(Duration::from_secs(1)));
        assert_eq!(pace.take(per_minute, at(1)), Ok(()));
        assert_eq!(pace.take(per_minute, at(1)), Err(Duration::from_secs(1)));
        assert_eq!((0..100).filter(|_| pace.take(per_minute, at(600)).is_ok()).count(), 60);
    }
}
