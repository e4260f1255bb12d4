//! How long signals gather before they are written together.
//!
//! A row costs less the more of them are in a transaction: those of one session lie anywhere in an index, and among
//! few rows nearly each changes a page of its own. So while many signals come, they gather longer; while few come, that
//! would only make them durable later.

use std::time::Duration;

use tokio::time::Instant;

use super::BATCH;

/// How long signals gather in any case, and how often it is asked whether they go on.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Looks after which they are written in any case.
const MOST_LOOKS: usize = 5;
/// Signals between two looks that are many.
const MANY: usize = 10;

/// Signals that gather.
#[derive(Debug)]
pub(super) struct Gathering {
    next_look: Instant,
    looks: usize,
}

impl Gathering {
    /// The first signal is there.
    pub(super) fn begin(now: Instant) -> Self {
        Self { next_look: now + LOOK_EVERY, looks: 0 }
    }

    /// When to ask whether it goes on.
    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Whether so many signals go on gathering: many come, and there is room for more of them in a transaction.
    pub(super) fn goes_on(&mut self, waiting: usize) -> bool {
        self.looks += 1;
        self.next_look += LOOK_EVERY;
        let many_come = waiting >= MANY * self.looks;
        many_come && waiting < BATCH && self.looks < MOST_LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many milliseconds signals gather of which so many come in each.
    fn gathered_ms(per_ms: usize) -> usize {
        let start = Instant::now();
        let mut gathering = Gathering::begin(start);
        loop {
            let ms = usize::try_from((gathering.next_look() - start).as_millis()).unwrap();
            if !gathering.goes_on(per_ms * ms) {
                return ms;
            }
        }
    }

    #[test]
    fn few_signals_are_written_after_ten_milliseconds_and_many_after_fifty() {
        assert_eq!(gathered_ms(0), 10);
        assert_eq!(gathered_ms(1), 50);
        assert_eq!(gathered_ms(79), 50);
    }

    #[test]
    fn signals_that_fill_a_transaction_are_written_before_that() {
        assert_eq!(gathered_ms(200), 20);
        assert_eq!(gathered_ms(400), 10);
    }

    #[test]
    fn signals_that_cease_to_come_are_written_at_the_next_look() {
        let mut gathering = Gathering::begin(Instant::now());
        assert!(gathering.goes_on(15));
        assert!(!gathering.goes_on(16));
    }
}
