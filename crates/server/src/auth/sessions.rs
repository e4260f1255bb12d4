//! Sessions of the dashboard: kept in memory, bounded, and over after a working day.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serin_core::units::HoldFor;

use super::secret::base32;

/// How long a session lasts.
pub const SESSION_LASTS: HoldFor = HoldFor::from_hours(12);
/// Sessions at a time; the one that ends first makes room for a new one.
pub const MOST_SESSIONS: usize = 10_000;

/// The sessions, by the hash of their token; a restart ends them all.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<BTreeMap<[u8; 32], Session>>);

#[derive(Debug, Clone)]
struct Session {
    /// The id of the key that began it.
    key: String,
    until: Timestamp,
}

impl Sessions {
    /// Begins a session of a key and returns the token that stands for it.
    pub fn begin(&self, key: &str, random: [u8; 32], now: Timestamp) -> String {
        let token = base32(&random);
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.until > now);
        if sessions.len() >= MOST_SESSIONS {
            let first = sessions.iter().min_by_key(|(_, session)| session.until).map(|(token, _)| *token);
            first.map(|token| sessions.remove(&token));
        }
        let until = SESSION_LASTS.after(now);
        sessions.insert(hash(&token), Session { key: key.to_owned(), until });
        token
    }

    /// The id of the key that began a session; nothing once it is over.
    pub fn key_of(&self, token: &str, now: Timestamp) -> Option<String> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A token is found by its hash, of which nobody learns anything by guessing tokens.
        let session = sessions.get(&hash(token))?;
        (session.until > now).then(|| session.key.clone())
    }

    /// Ends a session; whether there was one.
    pub fn end(&self, token: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash(token)).is_some()
    }

    /// Sessions that are kept.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn hash(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}
