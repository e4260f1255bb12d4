//! The facts that a transition produces, and the hash chain over them.

mod export;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Actor, RolloutId};
use crate::units::Timestamp;

pub use self::export::{
    EXPORT_FORMAT, ExportProblem, Exported, Verifier, export_end, export_head, export_line,
};

/// What stands for the pack in entries that concern the whole server.
pub const WHOLE_SERVER: &str = "*";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A version was published.
    VersionPublished,
    /// The first version of a pack became stable.
    FirstStable,
    /// The rollout block of a known version was replaced, for its next rollout.
    PlanReplaced,
    /// A rollout started.
    RolloutStarted,
    /// The constants of the comparison were frozen.
    BaselineFrozen,
    /// The next step was entered.
    StepEntered,
    /// The weight followed a window of the schedule.
    WeightChanged,
    /// A check failed.
    CheckFailed,
    /// A hold was set.
    HoldSet,
    /// A hold was cleared.
    HoldCleared,
    /// A hold has lasted for a long time.
    HoldLasts,
    /// A person approved a step.
    Approved,
    /// A person moved the rollout on.
    Promoted,
    /// Nobody watched for a while; that time does not count.
    Unobserved,
    /// The canary became stable.
    Completed,
    /// Everyone went back to stable.
    RolledBack,
    /// Another version took the rollout's place.
    Superseded,
    /// A version that only kept the sessions it had was taken out of service.
    Retired,
    /// The new stable version was judged, and keeps its gates so far.
    Watched,
    /// The new stable version is proven to break a gate.
    WatchBreached,
    /// The time is over for which the new stable version was watched.
    WatchEnded,
    /// The break-glass file appeared.
    ForcedStable,
    /// The break-glass file was removed.
    ForcedStableCleared,
    /// Rules of the policy were set aside once.
    PolicyOverridden,
    /// A key was made.
    KeyCreated,
    /// A key was revoked.
    KeyRevoked,
}

impl Action {
    /// The word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VersionPublished => "version_published",
            Self::FirstStable => "first_stable",
            Self::PlanReplaced => "plan_replaced",
            Self::RolloutStarted => "rollout_started",
            Self::BaselineFrozen => "baseline_frozen",
            Self::StepEntered => "step_entered",
            Self::WeightChanged => "weight_changed",
            Self::CheckFailed => "check_failed",
            Self::HoldSet => "hold_set",
            Self::HoldCleared => "hold_cleared",
            Self::HoldLasts => "hold_lasts",
            Self::Approved => "approved",
            Self::Promoted => "promoted",
            Self::Unobserved => "unobserved",
            Self::Completed => "completed",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
            Self::Retired => "retired",
            Self::Watched => "watched",
            Self::WatchBreached => "watch_breached",
            Self::WatchEnded => "watch_ended",
            Self::ForcedStable => "forced_stable",
            Self::ForcedStableCleared => "forced_stable_cleared",
            Self::PolicyOverridden => "policy_overridden",
            Self::KeyCreated => "key_created",
            Self::KeyRevoked => "key_revoked",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// By which way something was caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Serin did it by itself.
    Serin,
    /// Somebody who showed a key to the API: the command line, a pipeline.
    Key,
    /// Somebody who is signed in to the dashboard.
    Dashboard,
    /// Whoever reached an open server on its own machine.
    Open,
    /// Whoever opened a signed link.
    Link,
    /// An alert from outside.
    Alert,
    /// Whoever owns the data directory.
    DataDirectory,
}

impl Source {
    /// The word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serin => "serin",
            Self::Key => "key",
            Self::Dashboard => "dashboard",
            Self::Open => "open",
            Self::Link => "link",
            Self::Alert => "alert",
            Self::DataDirectory => "data_directory",
        }
    }
}

/// By which way something was caused, and with which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The way.
    pub source: Source,
    /// The id of the key that was shown; nothing where none was.
    #[serde(default)]
    pub key: Option<String>,
}

impl Origin {
    /// A way on which no key is shown.
    pub const fn without_key(source: Source) -> Self {
        Self { source, key: None }
    }
}

/// One fact worth keeping for good.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditFact {
    /// When it happened.
    pub at: Timestamp,
    /// The rollout that it concerns.
    pub rollout: Option<RolloutId>,
    /// The revision that it led to.
    pub revision: u64,
    /// Who caused it.
    pub actor: Actor,
    /// What happened.
    pub action: Action,
    /// Why, in words.
    pub reason: String,
    /// What the decision was taken on.
    pub evidence: Value,
}

/// A link of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// The hash before the first entry.
    pub const GENESIS: Self = Self([0; 32]);

    /// Reads 64 hexadecimal digits as they are written: in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

/// One stored entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Counts the entries, from 1.
    pub seq: u64,
    /// When it happened, in microseconds since 1970.
    pub at_us: i64,
    /// The pack.
    pub pack: String,
    /// The rollout, or nothing.
    pub rollout: Option<String>,
    /// The revision that it led to.
    pub revision: u64,
    /// Who caused it.
    pub actor: String,
    /// By which way; nothing in entries of the first form, which did not tell.
    pub source: Option<String>,
    /// The id of the key that was shown.
    pub key: Option<String>,
    /// What happened.
    pub action: String,
    /// Why, in words.
    pub reason: String,
    /// What the decision was taken on, as JSON text.
    pub evidence: String,
    /// Hash of the entry before.
    pub prev: ChainHash,
    /// Hash of this entry.
    pub hash: ChainHash,
}

impl AuditEntry {
    /// Links a fact to the chain behind the entry `prev_seq` with hash `prev`; the pack may be [`WHOLE_SERVER`].
    pub fn link(prev_seq: u64, prev: ChainHash, pack: &str, fact: &AuditFact) -> Self {
        let origin = fact.actor.origin();
        let mut entry = Self {
            seq: prev_seq + 1,
            at_us: fact.at.as_microsecond(),
            pack: pack.to_owned(),
            rollout: fact.rollout.as_ref().map(ToString::to_string),
            revision: fact.revision,
            actor: fact.actor.to_string(),
            source: Some(origin.source.as_str().to_owned()),
            key: origin.key,
            action: fact.action.to_string(),
            reason: fact.reason.clone(),
            evidence: fact.evidence.to_string(),
            prev,
            hash: ChainHash::GENESIS,
        };
        entry.hash = entry.computed_hash();
        entry
    }

    /// BLAKE3 over the hash before and every field.
    ///
    /// The second form covers, in this order and after a context of its own: the hash before; number, time and
    /// revision as 8 bytes each, little end first; pack, rollout, actor, source, key, action, reason and evidence,
    /// each as a byte that says whether it is there, its length in 8 bytes, and its bytes. The first form, which knew
    /// neither source nor key, had no context and no such byte.
    pub fn computed_hash(&self) -> ChainHash {
        let is_first_form = self.source.is_none();
        let mut hasher = if is_first_form {
            blake3::Hasher::new()
        } else {
            blake3::Hasher::new_derive_key("serin audit entry, form 2")
        };
        hasher.update(&self.prev.0);
        hasher.update(&self.seq.to_le_bytes());
        hasher.update(&self.at_us.to_le_bytes());
        hasher.update(&self.revision.to_le_bytes());
        let (source, key) = (self.source.as_deref(), self.key.as_deref());
        let mut fields = vec![Some(&*self.pack), self.rollout.as_deref(), Some(&*self.actor)];
        if !is_first_form {
            fields.extend([source, key]);
        }
        fields.extend([&self.action, &self.reason, &self.evidence].map(|text| Some(&**text)));
        for field in fields {
            if !is_first_form {
                hasher.update(&[u8::from(field.is_some())]);
            }
            let text = field.unwrap_or("");
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        ChainHash(*hasher.finalize().as_bytes())
    }

    /// Whether the entry says something that its hash does not cover.
    fn says_more_than_its_hash(&self) -> bool {
        // In the first form, no rollout and an empty one look alike; no rollout has an empty id.
        self.source.is_none() && (self.key.is_some() || self.rollout.as_deref() == Some(""))
    }
}

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenChain {
    /// An entry is missing or out of order.
    #[error("audit entry {expected} is missing: found {found}")]
    Missing {
        /// The number that should follow.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// An entry does not follow the one before.
    #[error("audit entry {0} does not follow the entry before it")]
    Unlinked(u64),
    /// An entry was changed.
    #[error("audit entry {0} was changed after it was written")]
    Changed(u64),
    /// Entries are missing at the end, or were added behind it.
    #[error("the audit log ends with entry {found}; the last one that was written is {written}")]
    WrongEnd {
        /// The last entry that is there; 0 for none.
        found: u64,
        /// The last entry that was written.
        written: u64,
    },
    /// An entry is not the one that somebody noted elsewhere.
    #[error("audit entry {0} is not the one that was noted: the log was written anew")]
    NotAsNoted(u64),
    /// What somebody noted elsewhere is not there.
    #[error("audit entry {0}, which was noted, is not in the log")]
    NotedMissing(u64),
    /// The database contradicts itself where it keeps the log.
    #[error("the database is damaged where it keeps the audit log: {0}")]
    Damaged(String),
}

/// The number and hash of an entry, noted where nobody who can write to the log can change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// The number.
    pub seq: u64,
    /// The hash.
    pub hash: ChainHash,
}

impl Noted {
    /// What stands before the first entry.
    pub const GENESIS: Self = Self { seq: 0, hash: ChainHash::GENESIS };

    /// Reads `NUMBER:HASH`.
    pub fn parse(text: &str) -> Option<Self> {
        let (seq, hash) = text.split_once(':')?;
        Some(Self { seq: seq.parse().ok()?, hash: ChainHash::parse(hash)? })
    }
}

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

/// Follows a chain from one entry to the next.
#[derive(Debug, Clone)]
pub struct Chain {
    last: Noted,
    noted: Option<Noted>,
}

impl Chain {
    /// A chain that goes on behind `after`, and must hold what was noted.
    ///
    /// # Errors
    /// [`BrokenChain`] when what was noted is `after` itself with another hash.
    pub fn new(after: Noted, noted: Option<Noted>) -> Result<Self, BrokenChain> {
        match noted {
            Some(noted) if noted.seq == after.seq && noted.hash != after.hash => {
                Err(BrokenChain::NotAsNoted(noted.seq))
            }
            // What was noted lies before: nothing can be said about it.
            noted => Ok(Self { last: after, noted: noted.filter(|noted| noted.seq != after.seq) }),
        }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`BrokenChain`] names the entry that does not follow or was changed.
    pub fn follow(&mut self, entry: &AuditEntry) -> Result<(), BrokenChain> {
        verify_link(self.last.seq, self.last.hash, entry)?;
        self.last = Noted { seq: entry.seq, hash: entry.hash };
        match self.noted {
            Some(noted) if noted.seq == entry.seq => {
                self.noted = None;
                if noted.hash == entry.hash { Ok(()) } else { Err(BrokenChain::NotAsNoted(noted.seq)) }
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The last entry that was taken.
    pub fn last(&self) -> Noted {
        self.last
    }

    /// Compares the end with the last entry that was written.
    ///
    /// # Errors
    /// [`BrokenChain`] when the chain ends elsewhere, or what was noted never came.
    pub fn end(&self, written: Noted) -> Result<(), BrokenChain> {
        let found = self.last;
        if found.seq != written.seq {
            return Err(BrokenChain::WrongEnd { found: found.seq, written: written.seq });
        }
        if found.hash != written.hash {
            return Err(BrokenChain::Changed(found.seq));
        }
        self.noted.map_or(Ok(()), |noted| Err(BrokenChain::NotedMissing(noted.seq)))
    }
}

/// Checks that an entry follows the one before and was not changed.
///
/// # Errors
/// [`BrokenChain`] names the entry.
pub fn verify_link(prev_seq: u64, prev: ChainHash, entry: &AuditEntry) -> Result<(), BrokenChain> {
    if entry.seq != prev_seq + 1 {
        return Err(BrokenChain::Missing { expected: prev_seq + 1, found: entry.seq });
    }
    if entry.prev != prev {
        return Err(BrokenChain::Unlinked(entry.seq));
    }
    if entry.hash != entry.computed_hash() || entry.says_more_than_its_hash() {
        return Err(BrokenChain::Changed(entry.seq));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
