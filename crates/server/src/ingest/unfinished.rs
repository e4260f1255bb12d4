//! Requests that have started and not ended.
//!
//! Most end soon, and then only their end is worth a row. One that is still under way after a while
//! is written as started, so that a session is judged by it even when it never ends.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serin_core::observation::Fact;
use tokio::time::Instant;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::signal::SessionFact;

/// A request that takes longer than this is written as started.
pub(super) const SLOW: Duration = Duration::from_secs(5);
/// Requests that are remembered at most; beyond, the oldest are written as started at once.
const MOST_REMEMBERED: usize = 100_000;

/// Names a request: the hash of its id within its pack.
type Id = u128;

/// Requests that have started and not ended, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    started: HashMap<Id, SessionFact>,
    order: VecDeque<(Instant, Id)>,
}

impl Unfinished {
    /// Takes in a fact: a start is kept back, the end of a request drops its start; returns what is to be written.
    pub(super) fn sift(&mut self, fact: SessionFact, now: Instant) -> Option<SessionFact> {
        let id = || xxh3_128_with_seed(fact.id.as_bytes(), xxh3_64(fact.pack.as_str().as_bytes()));
        match fact.fact {
            Fact::Started => {
                let id = id();
                self.order.push_back((now, id));
                self.started.insert(id, fact);
                None
            }
            Fact::Response(_) => {
                self.started.remove(&id());
                Some(fact)
            }
            Fact::Outcome(_) => Some(fact),
        }
    }

    /// The starts that are to be written, because they are old or too many.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<SessionFact> {
        let mut overdue = Vec::new();
        while let Some((since, id)) = self.order.front() {
            let is_over = !self.started.contains_key(id);
            if !is_over && now < *since + SLOW && self.started.len() <= MOST_REMEMBERED {
                break;
            }
            overdue.extend(self.started.remove(id));
            self.order.pop_front();
        }
        overdue
    }

    /// When the oldest start is to be written.
    pub(super) fn next_overdue(&self) -> Option<Instant> {
        self.order.front().map(|(since, _)| *since + SLOW)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serin_core::ids::{PackName, SessionHash};
    use serin_core::observation::Response;
    use serin_core::routing::CohortId;

    use super::*;

    fn fact(id: &str, fact: Fact) -> SessionFact {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let pack = Arc::new(PackName::parse("support").unwrap());
        SessionFact {
            pack,
            hash: SessionHash(1),
            cohort: CohortId(0),
            id: id.to_owned(),
            at,
            until: at,
            fact,
        }
    }

    #[tokio::test]
    async fn only_a_request_that_is_slow_to_end_is_written_as_started() {
        let start = Instant::now();
        let mut unfinished = Unfinished::default();
        assert_eq!(unfinished.sift(fact("quick", Fact::Started), start), None);
        assert_eq!(unfinished.sift(fact("slow", Fact::Started), start), None);
        let ended = fact("quick", Fact::Response(Response::default()));
        assert_eq!(unfinished.sift(ended.clone(), start), Some(ended));
        assert_eq!(unfinished.overdue(start + SLOW / 2), vec![]);
        assert_eq!(unfinished.next_overdue(), Some(start + SLOW));
        assert_eq!(unfinished.overdue(start + SLOW), vec![fact("slow", Fact::Started)]);
        assert_eq!(unfinished.next_overdue(), None);
    }
}
