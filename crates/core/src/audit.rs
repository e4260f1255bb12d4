//! The facts that a transition produces, and the hash chain over them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Actor, RolloutId};
use crate::units::Timestamp;

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
    /// The break-glass file appeared.
    ForcedStable,
    /// The break-glass file was removed.
    ForcedStableCleared,
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
            Self::ForcedStable => "forced_stable",
            Self::ForcedStableCleared => "forced_stable_cleared",
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

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
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
        let mut entry = Self {
            seq: prev_seq + 1,
            at_us: fact.at.as_microsecond(),
            pack: pack.to_owned(),
            rollout: fact.rollout.as_ref().map(ToString::to_string),
            revision: fact.revision,
            actor: fact.actor.to_string(),
            action: fact.action.to_string(),
            reason: fact.reason.clone(),
            evidence: fact.evidence.to_string(),
            prev,
            hash: ChainHash::GENESIS,
        };
        entry.hash = entry.computed_hash();
        entry
    }

    /// BLAKE3 over the hash before and every field, each with its length, in the order of declaration.
    pub fn computed_hash(&self) -> ChainHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.prev.0);
        hasher.update(&self.seq.to_le_bytes());
        hasher.update(&self.at_us.to_le_bytes());
        hasher.update(&self.revision.to_le_bytes());
        let rollout = self.rollout.as_deref().unwrap_or("");
        for text in [&*self.pack, rollout, &self.actor, &self.action, &self.reason, &self.evidence] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        ChainHash(*hasher.finalize().as_bytes())
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
    if entry.hash != entry.computed_hash() {
        return Err(BrokenChain::Changed(entry.seq));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: u64) -> Vec<AuditEntry> {
        let (mut seq, mut prev) = (0, ChainHash::GENESIS);
        (0..n)
            .map(|i| {
                let fact = AuditFact {
                    at: Timestamp::from_second(1_800_000_000).unwrap(),
                    rollout: None,
                    revision: i,
                    actor: Actor::serin(),
                    action: Action::StepEntered,
                    reason: format!("step {i}"),
                    evidence: serde_json::json!({"weight": 10}),
                };
                let entry = AuditEntry::link(seq, prev, "support", &fact);
                (seq, prev) = (entry.seq, entry.hash);
                entry
            })
            .collect()
    }

    fn verify(entries: &[AuditEntry]) -> Result<(), BrokenChain> {
        let (mut seq, mut prev) = (0, ChainHash::GENESIS);
        for entry in entries {
            verify_link(seq, prev, entry)?;
            (seq, prev) = (entry.seq, entry.hash);
        }
        Ok(())
    }

    #[test]
    fn a_change_of_any_field_breaks_the_chain_and_is_named() {
        assert_eq!(verify(&chain(5)), Ok(()));
        type Tamper = fn(&mut AuditEntry);
        let tampers: [Tamper; 8] = [
            |e| e.at_us += 1,
            |e| e.pack.push('x'),
            |e| e.rollout = Some("r".to_owned()),
            |e| e.revision += 1,
            |e| e.actor.push('x'),
            |e| e.action.push('x'),
            |e| e.reason.push('x'),
            |e| e.evidence.push(' '),
        ];
        for tamper in tampers {
            let mut entries = chain(5);
            tamper(&mut entries[2]);
            assert_eq!(verify(&entries), Err(BrokenChain::Changed(3)));
        }
        let mut entries = chain(5);
        entries[2].reason.push('x');
        entries[2].hash = entries[2].computed_hash();
        assert_eq!(verify(&entries), Err(BrokenChain::Unlinked(4)));
        let mut entries = chain(5);
        entries.remove(2);
        assert_eq!(verify(&entries), Err(BrokenChain::Missing { expected: 3, found: 4 }));
    }
}
