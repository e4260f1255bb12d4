//! Sign-ins under way: bounded, short-lived, each good for one answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serin_core::units::{HoldFor, Timestamp};

/// How long a sign-in may take.
pub const ATTEMPT_LASTS: HoldFor = HoldFor::from_mins(10);
/// Sign-ins under way at a time; the oldest makes room for a new one.
pub const MOST_ATTEMPTS: usize = 10_000;

/// What belongs to a sign-in until its answer comes.
#[derive(Clone)]
pub(super) struct Attempt {
    /// BLAKE3 of what only the browser knows.
    pub(super) browser: blake3::Hash,
    /// Ties the ID token to this sign-in.
    pub(super) nonce: String,
    /// Ties the code to this sign-in.
    pub(super) verifier: String,
    /// When it began.
    pub(super) begun_at: Timestamp,
}

/// The sign-ins under way, by the hash of their state.
#[derive(Default)]
pub(super) struct Attempts(Mutex<BTreeMap<[u8; 32], Attempt>>);

/// What keeps an answer from belonging to a sign-in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotOurs {
    /// No sign-in of this state is under way.
    NotUnderWay,
    /// Another browser began it.
    OtherBrowser,
}

impl Attempts {
    /// Notes a sign-in; whether an older one was forgotten for it.
    pub(super) fn begin(&self, state: &str, attempt: Attempt) -> bool {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.retain(|_, other| ATTEMPT_LASTS.after(other.begun_at) > attempt.begun_at);
        let is_full = attempts.len() >= MOST_ATTEMPTS;
        if is_full {
            let oldest = attempts.iter().min_by_key(|(_, attempt)| attempt.begun_at).map(|(state, _)| *state);
            oldest.map(|oldest| attempts.remove(&oldest));
        }
        attempts.insert(hash(state), attempt);
        is_full
    }

    /// Takes the sign-in that an answer belongs to, which is good for no other answer then.
    pub(super) fn take(
        &self,
        state: &str,
        browser: Option<&str>,
        now: Timestamp,
    ) -> Result<Attempt, NotOurs> {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = attempts.get(&hash(state)).filter(|attempt| ATTEMPT_LASTS.after(attempt.begun_at) > now);
        let attempt = found.ok_or(NotOurs::NotUnderWay)?;
        // A blake3 hash compares in constant time.
        if !browser.is_some_and(|browser| blake3::hash(browser.as_bytes()) == attempt.browser) {
            return Err(NotOurs::OtherBrowser);
        }
        attempts.remove(&hash(state)).ok_or(NotOurs::NotUnderWay)
    }
}

fn hash(state: &str) -> [u8; 32] {
    // A state is found by its hash, of which nobody learns anything by guessing states.
    *blake3::hash(state.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn attempt(browser: &str, begun_at: Timestamp) -> Attempt {
        let (nonce, verifier) = ("n".to_owned(), "v".to_owned());
        Attempt { browser: blake3::hash(browser.as_bytes()), nonce, verifier, begun_at }
    }

    #[test]
    fn a_sign_in_is_good_for_one_answer_to_the_browser_that_began_it() {
        let attempts = Attempts::default();
        attempts.begin("s", attempt("ours", at(0)));
        let take = |state: &str, browser: Option<&str>, now| {
            attempts.take(state, browser, now).map(|attempt| attempt.nonce)
        };
        assert_eq!(take("other", Some("ours"), at(1)), Err(NotOurs::NotUnderWay));
        assert_eq!(take("s", Some("theirs"), at(1)), Err(NotOurs::OtherBrowser));
        assert_eq!(take("s", None, at(1)), Err(NotOurs::OtherBrowser));
        assert_eq!(take("s", Some("ours"), at(1)), Ok("n".to_owned()));
        assert_eq!(take("s", Some("ours"), at(1)), Err(NotOurs::NotUnderWay), "a second answer");
    }

    #[test]
    fn a_sign_in_ends_by_itself_and_only_so_many_are_under_way() {
        let attempts = Attempts::default();
        attempts.begin("old", attempt("b", at(0)));
        assert!(attempts.take("old", Some("b"), at(600)).is_err());
        for n in 0..MOST_ATTEMPTS {
            assert!(!attempts.begin(&format!("s{n}"), attempt("b", at(700 + i64::from(n > 0)))), "{n}");
        }
        assert!(attempts.begin("one more", attempt("b", at(702))));
        assert_eq!(attempts.take("s0", Some("b"), at(702)).err(), Some(NotOurs::NotUnderWay));
        assert!(attempts.take("s1", Some("b"), at(702)).is_ok());
    }
}
