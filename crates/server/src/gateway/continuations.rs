//! Sessions of requests that name none, found again by what we answered before.
//!
//! A client that sends no session still shows whose request it is: it names the response that it goes on from,
//! or it sends the conversation again with our answer inside. Both are remembered here, as hashes only.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serin_core::ids::{PackName, SessionHash, SessionKey};
use serin_core::routing::CohortId;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::settings::GatewayCounts;

/// Places to remember in; each is locked for as long as one look-up takes.
const SHARDS: usize = 64;

/// What is remembered of an answer: the hash of what a later request will show of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Trace(u128);

impl Trace {
    /// The hash itself.
    pub(super) fn hash(self) -> u128 {
        self.0
    }

    /// The id of a response or of a tool's call, which the provider makes once.
    pub(super) fn of_id(pack: &PackName, id: &str) -> Self {
        Self(xxh3_128(&[pack.as_str(), "\0id\0", id].concat().into_bytes()))
    }

    /// The text of an answer: after all questions before it, and, for clients that leave out old ones, after the
    /// last of them alone.
    pub(super) fn of_text(pack: &PackName, questions: Questions, answer: u64) -> [Self; 2] {
        [("all", questions.all), ("last", questions.last)].map(|(which, question)| {
            Self(xxh3_128(format!("{pack}\0{which}\0{question:x}\0{answer:x}").as_bytes()))
        })
    }
}

/// Hashes of what the user asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Questions {
    /// Of everything, in its order.
    pub(super) all: u64,
    /// Of the last question.
    pub(super) last: u64,
}

/// The hash of a text that arrives in pieces.
pub(super) struct TextHash(Box<Xxh3>);

impl TextHash {
    /// Of nothing so far.
    pub(super) fn new() -> Self {
        Self(Box::new(Xxh3::new()))
    }

    /// Takes a piece.
    pub(super) fn add(&mut self, piece: &str) {
        self.0.update(piece.as_bytes());
    }

    /// The hash of all pieces.
    pub(super) fn finish(&self) -> u64 {
        self.0.digest()
    }
}

impl std::fmt::Debug for TextHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TextHash")
    }
}

/// Whose answer it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// The session, under the key that it was given.
    pub(super) key: SessionKey,
    /// What was stamped on it.
    pub(super) cohort: CohortId,
}

/// Whose an answer is, as far as that is clear.
#[derive(Debug, Clone)]
enum Owner {
    One(Known),
    /// The same answer to the same question was given to sessions of several versions.
    Several,
}

/// What is remembered.
#[derive(Debug)]
pub(super) struct Continuations {
    answers: Box<[Mutex<Generations<u128, Owner>>]>,
    questions: Box<[Mutex<Generations<u128, u64>>]>,
    counts: Arc<GatewayCounts>,
}

/// A map that forgets its older half when it is full.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    most_young: usize,
}

impl<K: std::hash::Hash + Eq, V: Clone> Generations<K, V> {
    fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), most_young: (most / 2).max(1) }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.young.get(key).or_else(|| self.old.get(key)).cloned()
    }

    /// Remembers a value, and returns how many others were forgotten for it.
    pub(super) fn put(&mut self, key: K, value: V) -> usize {
        let mut forgotten = 0;
        if self.young.len() >= self.most_young {
            forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young)).len();
        }
        self.young.insert(key, value);
        forgotten
    }
}

/// Empty maps that together hold so many values.
pub(super) fn shards<V: Clone>(most: usize) -> Box<[Mutex<Generations<u128, V>>]> {
    (0..SHARDS).map(|_| Mutex::new(Generations::new(most / SHARDS))).collect()
}

/// The map that holds a key.
pub(super) fn shard<V>(
    shards: &[Mutex<Generations<u128, V>>],
    key: u128,
) -> MutexGuard<'_, Generations<u128, V>> {
    // The highest bits choose, so that the map can use the others.
    shards[(key >> 122) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
}

impl Continuations {
    /// Room for so many answers, and for as many questions.
    pub(super) fn with_room(most: usize, counts: Arc<GatewayCounts>) -> Self {
        Self { answers: shards(most), questions: shards(most), counts }
    }

    /// Remembers whose answer this is.
    pub(super) fn remember(&self, trace: Trace, known: Known) {
        let mut shard = shard(&self.answers, trace.0);
        let owner = match shard.get(&trace.0) {
            Some(Owner::One(other)) if other.key != known.key && other.cohort != known.cohort => {
                Owner::Several
            }
            Some(Owner::Several) => Owner::Several,
            Some(Owner::One(_)) | None => Owner::One(known),
        };
        let forgotten = shard.put(trace.0, owner);
        self.counts.answers_forgotten.fetch_add(forgotten as u64, Ordering::Relaxed);
    }

    /// Whose answer it was, by the first trace that leads to one session.
    pub(super) fn find(&self, traces: &[Trace]) -> Option<Known> {
        let mut is_ambiguous = false;
        for trace in traces {
            match shard(&self.answers, trace.0).get(&trace.0) {
                Some(Owner::One(known)) => return Some(known),
                Some(Owner::Several) => is_ambiguous = true,
                None => {}
            }
        }
        if is_ambiguous {
            self.counts.answers_ambiguous.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    /// Remembers what a session asked; whether it asked the same just before.
    pub(super) fn is_asked_again(&self, session: SessionHash, question: u64) -> bool {
        let mut shard = shard(&self.questions, session.0);
        let is_same = shard.get(&session.0) == Some(question);
        let forgotten = shard.put(session.0, question);
        self.counts.answers_forgotten.fetch_add(forgotten as u64, Ordering::Relaxed);
        is_same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(key: &str, cohort: u32) -> Known {
        Known { key: SessionKey::parse(key).unwrap(), cohort: CohortId(cohort) }
    }

    #[test]
    fn an_answer_leads_back_to_its_session_unless_two_versions_gave_it() {
        let pack = PackName::parse("support").unwrap();
        let known_answers = Continuations::with_room(1_000, Arc::default());
        let asked = |all, last| Questions { all, last };
        let [hello, hello_alone] = Trace::of_text(&pack, asked(1, 7), 2);
        known_answers.remember(hello, known("a", 1));
        assert_eq!(known_answers.find(&[hello]), Some(known("a", 1)));
        assert_eq!(known_answers.find(&Trace::of_text(&pack, asked(2, 7), 1)), None);
        known_answers.remember(hello, known("b", 1));
        assert_eq!(known_answers.find(&[hello]), Some(known("b", 1)), "of one version either will do");
        known_answers.remember(hello, known("c", 2));
        assert_eq!(known_answers.find(&[hello]), None);
        known_answers.remember(hello_alone, known("c", 2));
        assert_eq!(known_answers.find(&[hello, hello_alone]), Some(known("c", 2)));
        assert_eq!(known_answers.counts.answers_ambiguous.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_forgotten_is_counted() {
        let pack = PackName::parse("support").unwrap();
        let known_answers = Continuations::with_room(64 * 20, Arc::default());
        for number in 0..10_000 {
            known_answers.remember(Trace::of_id(&pack, &format!("resp_{number}")), known("s", 1));
        }
        let kept: usize = known_answers
            .answers
            .iter()
            .map(|shard| shard.lock().unwrap())
            .map(|shard| shard.young.len() + shard.old.len())
            .sum();
        assert!(kept <= 64 * 20, "{kept}");
        assert_eq!(known_answers.counts.answers_forgotten.load(Ordering::Relaxed) as usize + kept, 10_000);
        assert!(known_answers.find(&[Trace::of_id(&pack, "resp_9999")]).is_some());
    }

    #[test]
    fn a_question_is_repeated_when_it_follows_itself() {
        let known_answers = Continuations::with_room(1_000, Arc::default());
        let asked = [7, 7, 8, 7].map(|question| known_answers.is_asked_again(SessionHash(1), question));
        assert_eq!(asked, [false, true, false, false]);
        assert!(!known_answers.is_asked_again(SessionHash(2), 7));
    }
}
