//! Sessions of the dashboard: kept in memory, bounded, and over after a working day.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serin_core::units::HoldFor;

use super::pace::Pace;
use super::secret::base32;
use super::{Caller, Via};
use crate::oidc::Person;

/// How long a session lasts.
pub const SESSION_LASTS: HoldFor = HoldFor::from_hours(12);
/// Sessions at a time; the one that ends first makes room for a new one.
pub const MOST_SESSIONS: usize = 10_000;

/// The sessions, by the hash of their token; a restart ends them all.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<BTreeMap<[u8; 32], Session>>);

#[derive(Debug, Clone)]
struct Session {
    holder: Holder,
    until: Timestamp,
}

/// Whose session it is.
#[derive(Debug, Clone)]
pub enum Holder {
    /// Whoever has the key of this id, which may be revoked meanwhile.
    Key(String),
    /// A person.
    Person(Arc<SignedIn>),
}

/// Somebody whom an identity provider signed in.
#[derive(Debug)]
pub struct SignedIn {
    person: Person,
    pub(crate) pace: Pace,
}

impl SignedIn {
    pub(super) fn caller(&self) -> Caller {
        let Person { name, id, grant } = &self.person;
        let (name, key) = (Some(name.clone()), Some(id.clone()));
        Caller { name, key, grant: grant.clone(), via: Via::Person }
    }
}

impl Sessions {
    /// Begins a session of a key and returns the token that stands for it.
    pub fn begin(&self, key: &str, random: [u8; 32], now: Timestamp) -> String {
        self.insert(Holder::Key(key.to_owned()), random, SESSION_LASTS, now)
    }

    /// Begins a session of a person, which ends by itself, and returns the token that stands for it.
    pub fn begin_person(&self, person: Person, random: [u8; 32], lasts: HoldFor, now: Timestamp) -> String {
        let signed_in = SignedIn { person, pace: Pace::default() };
        self.insert(Holder::Person(Arc::new(signed_in)), random, lasts, now)
    }

    fn insert(&self, holder: Holder, random: [u8; 32], lasts: HoldFor, now: Timestamp) -> String {
        let token = base32(&random);
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.until > now);
        if sessions.len() >= MOST_SESSIONS {
            let first = sessions.iter().min_by_key(|(_, session)| session.until).map(|(token, _)| *token);
            first.map(|token| sessions.remove(&token));
        }
        sessions.insert(hash(&token), Session { holder, until: lasts.after(now) });
        token
    }

    /// Whose session it is; nothing once it is over.
    pub fn holder(&self, token: &str, now: Timestamp) -> Option<Holder> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A token is found by its hash, of which nobody learns anything by guessing tokens.
        let session = sessions.get(&hash(token))?;
        (session.until > now).then(|| session.holder.clone())
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
