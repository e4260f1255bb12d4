//! Who asks: keys by their hash, sessions of the dashboard by their cookie, and what each may do.
//!
//! A key is 256 random bits, so that one fast hash is all it takes to look one up. Every known key is
//! compared with, in constant time, whether the first one fits or none.

mod admin;
mod keys;
mod pace;
mod secret;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use serin_core::access::{Grant, Permission};
use serin_core::ids::PackName;

pub use self::admin::{ADMIN_KEY_FILE, FirstKeyError, first_key};
pub use self::keys::{KeyError, KeyInfo, KeyRing, LONGEST_NAME, MOST_KEYS, NewKey, NewKeyProblem};
#[cfg(feature = "oidc")]
pub(crate) use self::secret::base32;
pub use self::secret::{NEW_KEY_BYTES, PREFIX, hash_of, new_key, random};
pub use self::sessions::{Holder, MOST_SESSIONS, SESSION_LASTS, Sessions, SignedIn};

/// A key that the settings name; only its hash is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsKey {
    /// Who has it; goes to the audit log.
    pub name: String,
    /// BLAKE3 of the key.
    pub hash: blake3::Hash,
    /// What it is good for.
    pub grant: Grant,
}

/// How somebody showed who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// By a key.
    Key,
    /// By the cookie of a session, which a key began.
    Session,
    /// By the cookie of a session of somebody whom an identity provider signed in.
    Person,
    /// Not at all: the server is open to whoever reaches it on this machine.
    Open,
}

impl Via {
    /// The word that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Session => "session",
            Self::Person => "person",
            Self::Open => "open",
        }
    }

    /// Whether a cookie showed it, which browsers also send along with what other pages ask for.
    pub fn is_cookie(self) -> bool {
        match self {
            Self::Session | Self::Person => true,
            Self::Key | Self::Open => false,
        }
    }
}

/// Whoever sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name of the key or the person; nothing where none was shown.
    pub name: Option<String>,
    /// The id of the key, or of the person (`oidc:` and the subject); nothing where none was shown.
    pub key: Option<String>,
    /// What it is good for.
    pub grant: Grant,
    /// How it was shown.
    pub via: Via,
}

impl Caller {
    /// Whoever reaches an open server.
    pub fn anyone() -> Self {
        Self { name: None, key: None, grant: Grant::ADMIN, via: Via::Open }
    }

    /// Whether something is allowed, with packs of the scope.
    pub fn may(&self, what: Permission) -> bool {
        self.grant.may(what)
    }

    /// Whether a pack lies in the scope.
    pub fn sees(&self, pack: &PackName) -> bool {
        self.grant.scope.allows(pack)
    }

    /// The name as messages have it.
    pub fn shown(&self) -> String {
        match (&self.name, self.via) {
            (Some(name), Via::Person) => format!("{name:?}"),
            (Some(name), Via::Key | Via::Session | Via::Open) => format!("the key {name:?}"),
            (None, _) => "whoever shows no key".to_owned(),
        }
    }
}

/// Keys and sessions of a running server.
#[derive(Debug)]
pub struct Auth {
    /// The keys.
    pub keys: KeyRing,
    /// The sessions of the dashboard.
    pub sessions: Sessions,
    /// Whether the control plane asks for nothing.
    pub open: bool,
    /// What is counted on the way.
    pub counts: AuthCounts,
}

/// What is counted on the way.
#[derive(Debug, Default)]
pub struct AuthCounts {
    /// Requests without a key, or with one that is not known or no longer good.
    pub unauthorized: AtomicU64,
    /// Requests whose key is not good for what they asked.
    pub forbidden: AtomicU64,
    /// Requests whose key was used too fast.
    pub too_many: AtomicU64,
}

/// Why a request is not known to come from anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing was shown.
    Nothing,
    /// The key is not known here.
    Key,
    /// The key was good until then.
    Expired(Timestamp),
    /// The session is over, or its key is gone.
    Session,
}

impl Auth {
    /// Keys and sessions; the keys of the settings come on top of those that the store holds.
    pub fn new(keys: KeyRing, open: bool) -> Arc<Self> {
        Arc::new(Self { keys, sessions: Sessions::default(), open, counts: AuthCounts::default() })
    }

    /// Who shows this key or, without one, this cookie.
    ///
    /// On an open server somebody who shows nothing of use is anyone.
    ///
    /// # Errors
    /// [`Unknown`] tells why it is nobody.
    pub fn identify(
        &self,
        key: Option<&str>,
        cookie: Option<&str>,
        now: Timestamp,
    ) -> Result<Caller, Unknown> {
        let found = match (key, cookie) {
            (Some(key), _) => self.keys.find(key, now).map(|info| info.caller(Via::Key)),
            (None, Some(cookie)) => match self.sessions.holder(cookie, now) {
                Some(Holder::Key(id)) => self.keys.get(&id, now).map(|info| info.caller(Via::Session)),
                Some(Holder::Person(signed_in)) => Some(signed_in.caller()),
                None => None,
            }
            .ok_or(Unknown::Session),
            (None, None) => Err(Unknown::Nothing),
        };
        match found {
            Err(_) if self.open => Ok(Caller::anyone()),
            found => found,
        }
    }
}
