//! The break-glass file: while it exists, the packs that it names are on stable.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use serin_core::audit::{Action, AuditFact};
use serin_core::ids::{Actor, PackName};

use super::{Control, Event};
use crate::errors::Chain;
use crate::store::StoreError;

/// The file in the data directory: one pack name a line, or `*`; `#` begins a comment.
pub const FILE: &str = "force-stable";
/// How often the file is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Packs that are forced to stable, and by what.
#[derive(Debug, Default)]
pub(super) struct Forced {
    /// By the file.
    pub(super) file: ForcedByFile,
    /// By a rollback that is in force and not yet recorded.
    pub(super) rolled_back: BTreeSet<PackName>,
    /// By the file, as the audit log tells it.
    pub(super) recorded: BTreeSet<PackName>,
}

/// What the break-glass file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum ForcedByFile {
    /// There is no file.
    #[default]
    Nothing,
    /// It names these packs.
    Packs(BTreeSet<PackName>),
    /// It says `*`, or cannot be read, in which case the careful reading is the right one.
    Everything,
}

impl ForcedByFile {
    pub(super) fn names(&self, pack: &PackName) -> bool {
        match self {
            Self::Nothing => false,
            Self::Packs(packs) => packs.contains(pack),
            Self::Everything => true,
        }
    }
}

/// Reads the file.
pub(super) fn read(data_dir: &Path) -> ForcedByFile {
    let path = data_dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return ForcedByFile::Nothing,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "the force-stable file cannot be read; every pack is on stable");
            return ForcedByFile::Everything;
        }
    };
    parse(&text)
}

fn parse(text: &str) -> ForcedByFile {
    let mut packs = BTreeSet::new();
    for line in text.lines() {
        let name = line.split('#').next().unwrap_or_default().trim();
        match name {
            "" => {}
            "*" => return ForcedByFile::Everything,
            name => match PackName::parse(name) {
                Ok(pack) => {
                    packs.insert(pack);
                }
                Err(error) => {
                    tracing::error!(%error, "a line of the force-stable file is no pack name; every pack is on stable");
                    return ForcedByFile::Everything;
                }
            },
        }
    }
    // An empty file is somebody in a hurry: `touch force-stable`.
    if packs.is_empty() { ForcedByFile::Everything } else { ForcedByFile::Packs(packs) }
}

impl Control {
    /// Whether something forces a pack to stable.
    pub(super) fn is_forced(&self, pack: &PackName) -> bool {
        let forced = self.forced.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        forced.file.names(pack) || forced.rolled_back.contains(pack)
    }

    /// Whether the break-glass file names a pack.
    pub fn is_forced_by_file(&self, pack: &PackName) -> bool {
        self.forced.lock().unwrap_or_else(std::sync::PoisonError::into_inner).file.names(pack)
    }

    /// Watches the break-glass file for as long as the server runs; independent of the store and the control loop.
    pub async fn watch_force_file(self: Arc<Self>) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        loop {
            every.tick().await;
            self.look_at_force_file();
        }
    }

    /// Reads the break-glass file and puts what it says in force.
    pub fn look_at_force_file(&self) {
        let file = read(&self.data_dir);
        let mut forced = self.forced.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if forced.file == file {
            return;
        }
        tracing::warn!(?file, "the force-stable file changed");
        forced.file = file;
        for snapshot in self.resolver.snapshot().packs.values() {
            let is_forced = forced.file.names(&snapshot.name) || forced.rolled_back.contains(&*snapshot.name);
            if snapshot.route.forced != is_forced {
                let mut next = crate::snapshot::PackSnapshot::clone(snapshot);
                next.route.forced = is_forced;
                self.resolver.publish(Arc::new(next));
            }
        }
    }

    /// Records for each pack that the file has come to name it, or no longer does.
    ///
    /// What the file says is in force long before: a store that fails keeps nobody from stable, and is asked again
    /// at the next look.
    pub(super) async fn record_force_file(&self) {
        for pack in self.names().await {
            let is_forced = {
                let forced = self.forced.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let is_forced = forced.file.names(&pack);
                if is_forced == forced.recorded.contains(&pack) {
                    continue;
                }
                is_forced
            };
            if let Err(error) = self.record_force(&pack, is_forced).await {
                tracing::warn!(%pack, error = %Chain(&error), "what the force-stable file says of {pack} is still not recorded");
                return;
            }
            let mut forced = self.forced.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if is_forced {
                forced.recorded.insert(pack);
            } else {
                forced.recorded.remove(&pack);
            }
        }
    }

    async fn record_force(&self, pack: &PackName, is_forced: bool) -> Result<(), StoreError> {
        let Some(managed) = self.managed(pack).await else { return Ok(()) };
        let managed = managed.lock().await;
        let (action, reason) = match is_forced {
            true => (Action::ForcedStable, "the force-stable file names this pack"),
            false => (Action::ForcedStableCleared, "the force-stable file no longer names this pack"),
        };
        let revision = managed.state.revision;
        let fact = AuditFact {
            at: self.clock.now(),
            rollout: managed.state.active().map(|(rollout, _)| rollout.id.clone()),
            revision,
            actor: Actor::named("force-stable file"),
            action,
            reason: reason.to_owned(),
            evidence: json!({"file": FILE}),
        };
        self.store.record(pack, &[fact]).await?;
        // Nobody listening is fine.
        let _ = self.events.send(Event { pack: pack.clone(), revision, actions: vec![action.as_str()] });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_careful_reading_of_the_force_stable_file_is_everything() {
        let names = |text: &str, pack: &str| parse(text).names(&PackName::parse(pack).unwrap());
        assert!(names("support\n# why\nbilling # both", "support"));
        assert!(names("support\nbilling # both", "billing"));
        assert!(!names("support", "billing"));
        assert!(names("*", "billing"));
        assert!(names("", "billing"), "`touch force-stable` forces everything");
        assert!(names("Not A Pack", "billing"), "what cannot be read forces everything");
    }
}
