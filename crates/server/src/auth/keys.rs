//! The keys of a server: those in the store, and those that the settings name.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde_json::json;
use serin_core::access::{Grant, Permission};
use serin_core::audit::{Action, AuditFact};
use serin_core::ids::Actor;
use tokio::sync::Mutex;

use super::pace::Pace;
use super::secret::{NEW_KEY_BYTES, base32, hash_of, new_key};
use super::{Caller, SettingsKey, Unknown, Via};
use crate::store::{Store, StoreError, StoredKey};

/// Keys that a server holds at most.
pub const MOST_KEYS: usize = 1_000;
/// The longest name of a key, in bytes.
pub const LONGEST_NAME: usize = 64;
/// Uses within so many seconds count as one.
const COARSE: i64 = 60;
/// Stands for a key that was never used.
const NEVER: i64 = i64::MIN;

/// What is known of a key; never the key itself.
#[derive(Debug)]
pub struct KeyInfo {
    /// Names it for good.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is good for.
    pub grant: Grant,
    /// From when on it is no longer good; nothing for never.
    pub expires_at: Option<Timestamp>,
    /// When it was made, and by whom; nothing for a key of the settings.
    pub made: Option<(Timestamp, String)>,
    hash: blake3::Hash,
    /// Seconds since 1970, rounded down to the minute.
    used: AtomicI64,
    /// The same as the store has it.
    noted: AtomicI64,
    /// How fast it is used on the control plane.
    pub(crate) on_control: Pace,
    /// How fast it is used on the data plane.
    pub(crate) on_data: Pace,
}

impl KeyInfo {
    /// When it was last shown, to the minute; nothing for never.
    pub fn last_used(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.used.load(Ordering::Relaxed)).ok()
    }

    /// Whether it is one of the settings, which only they can revoke.
    pub fn is_of_settings(&self) -> bool {
        self.made.is_none()
    }

    /// Its holder, who shows it in some way.
    pub(super) fn caller(&self, via: Via) -> Caller {
        Caller { name: Some(self.name.clone()), key: Some(self.id.clone()), grant: self.grant.clone(), via }
    }

    fn is_good(&self, now: Timestamp) -> Result<(), Unknown> {
        match self.expires_at {
            Some(until) if until <= now => Err(Unknown::Expired(until)),
            Some(_) | None => Ok(()),
        }
    }

    fn note_use(&self, now: Timestamp) {
        let minute = now.as_second() - now.as_second().rem_euclid(COARSE);
        if self.used.load(Ordering::Relaxed) != minute {
            self.used.store(minute, Ordering::Relaxed);
        }
    }
}

/// A key that is to be made, with a name and a time that it can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    name: String,
    grant: Grant,
    expires_at: Option<Timestamp>,
}

/// Why a key cannot be made as asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NewKeyProblem {
    /// The name is none.
    #[error("the name {0:?} must hold 1 to {LONGEST_NAME} letters, digits, '-', '_', '.' or '@'")]
    Name(String),
    /// It would have expired already.
    #[error("the key would have expired at {0}, which has passed")]
    Past(Timestamp),
    /// It would be good for no pack at all.
    #[error("the list of packs is empty; hint: leave it out for all packs")]
    NoPacks,
}

impl NewKey {
    /// A key with this name, good for this until then.
    ///
    /// # Errors
    /// [`NewKeyProblem`] tells what is wrong.
    pub fn new(
        name: &str,
        grant: Grant,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, NewKeyProblem> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
            return Err(NewKeyProblem::Name(name.chars().take(80).collect()));
        }
        if let Some(at) = expires_at
            && at <= now
        {
            return Err(NewKeyProblem::Past(at));
        }
        if grant.scope.packs().is_some_and(std::collections::BTreeSet::is_empty) {
            return Err(NewKeyProblem::NoPacks);
        }
        Ok(Self { name: name.to_owned(), grant, expires_at })
    }
}

/// Why a key was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Another key has the name.
    #[error("there is a key {0:?} already")]
    Taken(String),
    /// There is no such key.
    #[error("there is no key {0:?}")]
    Unknown(String),
    /// The settings name it.
    #[error("the key {0:?} stands in the settings, which alone can revoke it")]
    OfSettings(String),
    /// Without it nobody could make keys.
    #[error("the key {0:?} is the last one that may make keys")]
    Last(String),
    /// There are too many.
    #[error("there are {MOST_KEYS} keys already, which is the limit")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All keys, in memory; changes go to the store first.
#[derive(Debug)]
pub struct KeyRing {
    store: Store,
    keys: ArcSwap<Vec<Arc<KeyInfo>>>,
    changing: Mutex<()>,
}

impl KeyRing {
    /// The keys of the store and of the settings.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn load(store: Store, settings: &[SettingsKey]) -> Result<Self, StoreError> {
        let stored = store.keys().await?.into_iter().map(of_store);
        let named = settings.iter().map(of_settings);
        let keys = stored.chain(named).map(Arc::new).collect::<Vec<_>>();
        Ok(Self { store, keys: ArcSwap::from_pointee(keys), changing: Mutex::new(()) })
    }

    /// Every key, those of the settings last.
    pub fn list(&self) -> Arc<Vec<Arc<KeyInfo>>> {
        self.keys.load_full()
    }

    /// The key that somebody shows; that it was shown is remembered.
    ///
    /// # Errors
    /// [`Unknown`] when there is none, or it is no longer good.
    pub fn find(&self, shown: &str, now: Timestamp) -> Result<Arc<KeyInfo>, Unknown> {
        let hash = hash_of(shown);
        let keys = self.keys.load();
        let mut found = None;
        // Hashes are compared in constant time, and every key is looked at.
        for key in keys.iter() {
            if key.hash == hash {
                found = Some(key);
            }
        }
        let key = found.ok_or(Unknown::Key)?;
        key.is_good(now)?;
        key.note_use(now);
        Ok(Arc::clone(key))
    }

    /// A key by its id, as long as it is good.
    pub fn get(&self, id: &str, now: Timestamp) -> Option<Arc<KeyInfo>> {
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id == id && key.is_good(now).is_ok())?;
        key.note_use(now);
        Some(Arc::clone(key))
    }

    /// Whether somebody may make keys.
    pub fn has_admin(&self, now: Timestamp) -> bool {
        self.keys.load().iter().any(|key| is_admin(key, now))
    }

    /// Makes a key; what is returned with it is shown once and kept nowhere.
    ///
    /// # Errors
    /// [`KeyError`] when the name is taken, there are too many, or the store fails.
    pub async fn create(
        &self,
        new: NewKey,
        by: &Actor,
        random: [u8; NEW_KEY_BYTES],
        now: Timestamp,
    ) -> Result<(Arc<KeyInfo>, String), KeyError> {
        let key = new_key(random);
        let info = self.add(new, by, hash_of(&key), now).await?;
        Ok((info, key))
    }

    /// Adds a key of which only the hash is known.
    pub(super) async fn add(
        &self,
        new: NewKey,
        by: &Actor,
        hash: blake3::Hash,
        now: Timestamp,
    ) -> Result<Arc<KeyInfo>, KeyError> {
        let _one_at_a_time = self.changing.lock().await;
        let keys = self.keys.load_full();
        if keys.iter().any(|key| key.name == new.name) {
            return Err(KeyError::Taken(new.name));
        }
        if keys.len() >= MOST_KEYS {
            return Err(KeyError::TooMany);
        }
        // Twelve letters of a hash of the hash: nothing of the key can be told from it.
        let id = base32(blake3::hash(hash.as_bytes()).as_bytes());
        let stored = StoredKey {
            id: id.chars().take(12).collect(),
            name: new.name,
            hash,
            grant: new.grant,
            created_at: now,
            created_by: by.to_string(),
            expires_at: new.expires_at,
            last_used_at: None,
        };
        let evidence = json!({
            "key": stored.id,
            "name": stored.name,
            "role": stored.grant.role,
            "packs": stored.grant.scope.packs(),
            "read_prompts": stored.grant.may(Permission::ReadPrompts),
            "expires_at": stored.expires_at,
        });
        let reason =
            format!("key {} with the role {} for {}", stored.name, stored.grant.role, stored.grant.scope);
        let fact = fact(Action::KeyCreated, by, reason, evidence, now);
        self.store.insert_key(&stored, &fact).await?;
        let info = Arc::new(of_store(stored));
        let mut next = Vec::clone(&keys);
        let end_of_stored = next.iter().position(|key| key.is_of_settings()).unwrap_or(next.len());
        next.insert(end_of_stored, Arc::clone(&info));
        self.keys.store(Arc::new(next));
        Ok(info)
    }

    /// Revokes a key by its name or id; it is good for nothing once this returns.
    ///
    /// # Errors
    /// [`KeyError`] when there is no such key, it must stay, or the store fails.
    pub async fn revoke(
        &self,
        name: &str,
        by: &Actor,
        reason: &str,
        now: Timestamp,
    ) -> Result<Arc<KeyInfo>, KeyError> {
        let _one_at_a_time = self.changing.lock().await;
        let keys = self.keys.load_full();
        let unknown = || KeyError::Unknown(name.chars().take(80).collect());
        let key = keys.iter().find(|key| key.name == name || key.id == name).ok_or_else(unknown)?;
        if key.is_of_settings() {
            return Err(KeyError::OfSettings(key.name.clone()));
        }
        let is_other_admin = |other: &&Arc<KeyInfo>| other.id != key.id && is_admin(other, now);
        if is_admin(key, now) && keys.iter().find(is_other_admin).is_none() {
            return Err(KeyError::Last(key.name.clone()));
        }
        let evidence = json!({"key": key.id, "name": key.name, "role": key.grant.role});
        let fact = fact(Action::KeyRevoked, by, reason.to_owned(), evidence, now);
        self.store.delete_key(&key.id, &fact).await?;
        let next: Vec<_> = keys.iter().filter(|other| other.id != key.id).cloned().collect();
        self.keys.store(Arc::new(next));
        Ok(Arc::clone(key))
    }

    /// Writes to the store which keys were used since it was last told.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; the next call writes it then.
    pub async fn note_uses(&self) -> Result<(), StoreError> {
        let keys = self.keys.load_full();
        let used: Vec<_> = keys
            .iter()
            .filter(|key| !key.is_of_settings())
            .map(|key| (key, key.used.load(Ordering::Relaxed)))
            .filter(|(key, used)| key.noted.load(Ordering::Relaxed) != *used)
            .collect();
        let rows: Vec<(String, Timestamp)> = used
            .iter()
            .filter_map(|(key, used)| Some((key.id.clone(), Timestamp::from_second(*used).ok()?)))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.store.touch_keys(&rows).await?;
        for (key, used) in used {
            key.noted.store(used, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn is_admin(key: &KeyInfo, now: Timestamp) -> bool {
    key.grant.may(Permission::Keys) && key.is_good(now).is_ok()
}

fn fact(action: Action, by: &Actor, reason: String, evidence: serde_json::Value, at: Timestamp) -> AuditFact {
    AuditFact { at, rollout: None, revision: 0, actor: by.clone(), action, reason, evidence }
}

fn of_store(stored: StoredKey) -> KeyInfo {
    let used = stored.last_used_at.map_or(NEVER, Timestamp::as_second);
    KeyInfo {
        id: stored.id,
        name: stored.name,
        grant: stored.grant,
        expires_at: stored.expires_at,
        made: Some((stored.created_at, stored.created_by)),
        hash: stored.hash,
        used: AtomicI64::new(used),
        noted: AtomicI64::new(used),
        on_control: Pace::default(),
        on_data: Pace::default(),
    }
}

fn of_settings(key: &SettingsKey) -> KeyInfo {
    KeyInfo {
        id: format!("settings:{}", key.name),
        name: key.name.clone(),
        grant: key.grant.clone(),
        expires_at: None,
        made: None,
        hash: key.hash,
        used: AtomicI64::new(NEVER),
        noted: AtomicI64::new(NEVER),
        on_control: Pace::default(),
        on_data: Pace::default(),
    }
}
