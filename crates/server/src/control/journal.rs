//! Rollbacks that are in force but not yet recorded, kept in a local file until the store returns.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serin_core::command::Refused;
use serin_core::ids::{Actor, PackName, RolloutId};
use serin_core::pack::PackState;

/// The file in the data directory.
pub const FILE: &str = "rollbacks.journal";

/// A rollback that is in force but not yet recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The pack.
    pub pack: PackName,
    /// Who ordered it.
    pub actor: Actor,
    /// Why.
    pub reason: String,
    /// When it took effect.
    pub at: Timestamp,
    /// The one rollout that it is about; without it, whichever is under way.
    #[serde(default)]
    pub rollout: Option<RolloutId>,
}

impl Pending {
    /// Checks that the rollout that it is about is still under way.
    ///
    /// # Errors
    /// [`Refused`] when it is over.
    pub(super) fn still_concerns(&self, pack: &PackState) -> Result<(), Refused> {
        let Some(only) = &self.rollout else { return Ok(()) };
        if pack.active().is_some_and(|(rollout, _)| rollout.id == *only) {
            Ok(())
        } else {
            Err(Refused::Idle { command: "roll back", pack: pack.name.to_string() })
        }
    }
}

/// The file and what it holds.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    pending: Mutex<BTreeMap<PackName, Pending>>,
}

impl Journal {
    /// Opens the journal; a missing file is an empty one.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut pending = BTreeMap::new();
        for line in text.lines() {
            // A line that was cut short by the end of the process was never acknowledged.
            match serde_json::from_str::<Pending>(line) {
                Ok(entry) => {
                    pending.insert(entry.pack.clone(), entry);
                }
                Err(error) => tracing::warn!(%error, "a line of the rollback journal is cut short"),
            }
        }
        Ok(Self { path: path.to_owned(), pending: Mutex::new(pending) })
    }

    /// Notes a rollback durably.
    ///
    /// # Errors
    /// When the file cannot be written; the rollback is in force all the same.
    pub fn note(&self, entry: Pending) -> std::io::Result<()> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let line = serde_json::to_string(&entry).expect("names, text and a time are JSON");
        pending.insert(entry.pack.clone(), entry);
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        writeln!(file, "{line}")?;
        file.sync_all()
    }

    /// Strikes out a rollback that is recorded now.
    ///
    /// # Errors
    /// When the file cannot be written; the entry is then recorded twice at most, never lost.
    pub fn strike(&self, pack: &PackName) -> std::io::Result<()> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.remove(pack).is_none() {
            return Ok(());
        }
        let lines: Vec<String> = pending
            .values()
            .map(|entry| serde_json::to_string(entry).expect("names, text and a time are JSON") + "\n")
            .collect();
        let next = self.path.with_extension("journal.next");
        let mut file = std::fs::File::create(&next)?;
        file.write_all(lines.concat().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)
    }

    /// The packs that have a rollback in force but not yet recorded.
    pub fn packs(&self) -> BTreeSet<PackName> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The rollback of a pack that is in force but not yet recorded.
    pub fn pending(&self, pack: &PackName) -> Option<Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).get(pack).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_survives_the_process_until_it_is_struck_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let entry = |pack: &str| Pending {
            pack: PackName::parse(pack).unwrap(),
            actor: Actor::named("ana"),
            reason: "worse".to_owned(),
            at: Timestamp::from_second(1_800_000_000).unwrap(),
            rollout: None,
        };
        let journal = Journal::open(&path).unwrap();
        journal.note(entry("support")).unwrap();
        journal.note(entry("billing")).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"pack\":\"cut").unwrap();

        let reopened = Journal::open(&path).unwrap();
        assert_eq!(reopened.pending(&PackName::parse("support").unwrap()), Some(entry("support")));
        reopened.strike(&PackName::parse("support").unwrap()).unwrap();
        let packs = Journal::open(&path).unwrap().packs();
        assert_eq!(packs, [PackName::parse("billing").unwrap()].into());
    }
}
