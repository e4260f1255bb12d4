//! Whose session each response belongs to, for whoever asks about it later.
//!
//! Only [`Gateway::answered`] reads it; no request is decided by it. What finds the sessions of requests that name
//! none is in [`super::continuations`], with room of its own.
//!
//! [`Gateway::answered`]: super::Gateway::answered

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serin_core::ids::{PackName, SessionKey, Version};
use serin_core::routing::CohortId;

use super::continuations::{Generations, Trace, shard, shards};
use super::settings::GatewayCounts;
use crate::resolve::Resolved;

/// Whose response it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The session.
    pub session: SessionKey,
    /// What was stamped on the session.
    pub cohort: CohortId,
    /// The version, where a caller named another one than the session's.
    pub named: Option<Arc<Version>>,
}

impl Answered {
    /// What is remembered of a response to a request that was served.
    pub(super) fn of(resolved: &Resolved) -> Self {
        let is_named = resolved.version != resolved.cohort.version;
        Self {
            session: resolved.key.clone(),
            cohort: resolved.cohort.id,
            named: is_named.then(|| Arc::new(resolved.version.clone())),
        }
    }
}

/// The newest responses, by the id that the provider gave them.
#[derive(Debug)]
pub(super) struct Responses {
    known: Box<[Mutex<Generations<u128, Answered>>]>,
    counts: Arc<GatewayCounts>,
}

impl Responses {
    /// Room for so many responses.
    pub(super) fn with_room(most: usize, counts: Arc<GatewayCounts>) -> Self {
        Self { known: shards(most), counts }
    }

    /// Remembers whose response this is; the oldest ones are forgotten when there is no room, and counted.
    pub(super) fn remember(&self, pack: &PackName, id: &str, answered: Answered) {
        let hash = Trace::of_id(pack, id).hash();
        let forgotten = shard(&self.known, hash).put(hash, answered);
        self.counts.responses_forgotten.fetch_add(forgotten as u64, Ordering::Relaxed);
    }

    /// Whose response it was; nothing for one that was never seen, or that is forgotten.
    pub(super) fn find(&self, pack: &PackName, id: &str) -> Option<Answered> {
        let hash = Trace::of_id(pack, id).hash();
        shard(&self.known, hash).get(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_responses_are_known_in_their_pack_and_older_ones_are_counted_out() {
        let (support, sales) = (PackName::parse("support").unwrap(), PackName::parse("sales").unwrap());
        let responses = Responses::with_room(64 * 20, Arc::default());
        let answered = |n: u32| Answered {
            session: SessionKey::parse(&format!("s{n}")).unwrap(),
            cohort: CohortId(n),
            named: None,
        };
        for n in 0..10_000 {
            responses.remember(&support, &format!("resp_{n}"), answered(n));
        }
        assert_eq!(responses.find(&support, "resp_9999"), Some(answered(9_999)));
        assert_eq!(responses.find(&sales, "resp_9999"), None, "another pack is another conversation");
        let kept = (0..10_000).filter(|n| responses.find(&support, &format!("resp_{n}")).is_some()).count();
        assert!(kept <= 64 * 20, "{kept}");
        assert_eq!(responses.counts.responses_forgotten.load(Ordering::Relaxed) as usize + kept, 10_000);
    }
}
