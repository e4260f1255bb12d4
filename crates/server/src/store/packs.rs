//! Packs, their versions and rollouts, and the one transaction that changes them.

use std::sync::Arc;

use serin_core::analysis::Analysis;
use serin_core::audit::{AuditEntry, AuditFact};
use serin_core::ids::{Actor, PackName, RolloutId, Version};
use serin_core::pack::{PackState, Transition};
use serin_core::replay::{CheckRecord, Counted, Seen};
use serin_core::rollout::{Rollout, RolloutKind};
use serin_core::routing::Cohort;
use serin_core::units::Timestamp;

use super::Store;
use super::audit::append;
use super::db::{Row, Tx, Value, args, json};
use super::error::{Cause, CommitError, During, StoreError};

/// A pack with every cohort that a pin of it may name.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPack {
    /// Its state.
    pub state: PackState,
    /// Its cohorts, in the order of their numbers.
    pub cohorts: Vec<Cohort>,
}

/// A published version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVersion {
    /// The version.
    pub version: Version,
    /// Its prompts as JSON text; nothing for a version-only pack.
    pub content: Option<String>,
    /// Digest of its prompts.
    pub content_digest: String,
    /// The manifest in force for its next rollout, as text.
    pub manifest: String,
    /// Digest of its rollout block.
    pub plan_digest: String,
    /// Who published it.
    pub actor: Actor,
    /// When.
    pub created_at: Timestamp,
}

/// A rollout with the manifest that it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRollout {
    /// The rollout.
    pub rollout: Rollout,
    /// Its pack.
    pub pack: PackName,
    /// The manifest that it runs, as text.
    pub manifest: String,
}

/// Which rollouts are listed, latest first.
#[derive(Debug, Clone, Default)]
pub struct RolloutFilter {
    /// Only those of a pack.
    pub pack: Option<PackName>,
    /// Only those under way, or only those that are over.
    pub active: Option<bool>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// What is stored together with a transition.
#[derive(Debug, Clone, Copy, Default)]
pub struct Commit<'a> {
    /// The version that it publishes.
    pub version: Option<&'a StoredVersion>,
    /// The manifest of a rollout that it starts; without one, that of the canary as stored.
    pub manifest: Option<&'a str>,
    /// What its check was decided on, counted since the start; without it, the check cannot be repeated.
    pub seen: Option<&'a Seen>,
}

const LOAD_PACK: &str = "load pack";
const LOAD_VERSION: &str = "load a version of";
const LOAD_ROLLOUT: &str = "load rollout";
const COMMIT: &str = "commit a change of pack";

impl Store {
    /// Every pack, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn packs(&self) -> Result<Vec<StoredPack>, StoreError> {
        let rows =
            self.db.fetch("SELECT state FROM pack ORDER BY name", args![]).await.during(LOAD_PACK, &"*")?;
        let mut packs = Vec::with_capacity(rows.len());
        for row in rows {
            packs.push(self.with_cohorts(row.json(0).during(LOAD_PACK, &"*")?).await?);
        }
        Ok(packs)
    }

    /// One pack; nothing where there is none of that name.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn pack(&self, name: &PackName) -> Result<Option<StoredPack>, StoreError> {
        let sql = "SELECT state FROM pack WHERE name = $1";
        let rows = self.db.fetch(sql, args![name]).await.during(LOAD_PACK, name)?;
        match rows.first() {
            Some(row) => Ok(Some(self.with_cohorts(row.json(0).during(LOAD_PACK, name)?).await?)),
            None => Ok(None),
        }
    }

    /// Cohorts are read after the state, so that every cohort that the state names is among them.
    async fn with_cohorts(&self, state: PackState) -> Result<StoredPack, StoreError> {
        let sql = "SELECT body FROM cohort WHERE pack = $1 ORDER BY id";
        let rows = self.db.fetch(sql, args![&state.name]).await.during(LOAD_PACK, &state.name)?;
        let cohorts: Result<Vec<Cohort>, Cause> = rows.iter().map(|row| row.json(0)).collect();
        Ok(StoredPack { cohorts: cohorts.during(LOAD_PACK, &state.name)?, state })
    }

    /// The published versions of a pack, latest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn versions(&self, pack: &PackName) -> Result<Vec<StoredVersion>, StoreError> {
        let sql = "SELECT version, content, content_digest, manifest, plan_digest, actor, created_at FROM version \
                   WHERE pack = $1 ORDER BY created_at DESC, version DESC";
        let rows = self.db.fetch(sql, args![pack]).await.during(LOAD_VERSION, pack)?;
        rows.iter().map(stored_version).collect::<Result<_, Cause>>().during(LOAD_VERSION, pack)
    }

    /// One published version; nothing where there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn version(
        &self,
        pack: &PackName,
        version: &Version,
    ) -> Result<Option<StoredVersion>, StoreError> {
        let sql = "SELECT version, content, content_digest, manifest, plan_digest, actor, created_at FROM version \
                   WHERE pack = $1 AND version = $2";
        let rows = self.db.fetch(sql, args![pack, version]).await.during(LOAD_VERSION, pack)?;
        rows.first().map(stored_version).transpose().during(LOAD_VERSION, pack)
    }

    /// Rollouts, latest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn rollouts(&self, filter: &RolloutFilter) -> Result<Vec<StoredRollout>, StoreError> {
        let sql = "SELECT state, pack, manifest FROM rollout \
                   WHERE ($1 IS NULL OR pack = $1) AND ($2 IS NULL OR active = $2) \
                   ORDER BY started_at DESC, attempt DESC, id LIMIT $3";
        let pack = filter.pack.as_ref().map(ToString::to_string);
        let limit = filter.limit.map_or(i64::MAX, i64::from);
        let rows = self.db.fetch(sql, args![pack, filter.active, limit]).await.during(LOAD_ROLLOUT, &"*")?;
        let rollouts: Result<Vec<StoredRollout>, Cause> = rows.iter().map(stored_rollout).collect();
        rollouts.during(LOAD_ROLLOUT, &"*")
    }

    /// One rollout; nothing where there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn rollout(&self, id: &RolloutId) -> Result<Option<StoredRollout>, StoreError> {
        let sql = "SELECT state, pack, manifest FROM rollout WHERE id = $1";
        let rows = self.db.fetch(sql, args![id]).await.during(LOAD_ROLLOUT, id)?;
        rows.first().map(stored_rollout).transpose().during(LOAD_ROLLOUT, id)
    }

    /// The latest checks of a rollout, latest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn checks(&self, rollout: &RolloutId, limit: u32) -> Result<Vec<Analysis>, StoreError> {
        const LOAD: &str = "load the checks of rollout";
        let sql = "SELECT body FROM checks WHERE rollout = $1 ORDER BY number DESC LIMIT $2";
        let rows = self.db.fetch(sql, args![rollout, i64::from(limit)]).await.during(LOAD, rollout)?;
        rows.iter().map(|row| row.json(0)).collect::<Result<_, Cause>>().during(LOAD, rollout)
    }

    /// The latest checks of a rollout that were made after a point in time, latest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn checks_after(
        &self,
        rollout: &RolloutId,
        after: Timestamp,
        limit: u32,
    ) -> Result<Vec<Analysis>, StoreError> {
        const LOAD: &str = "load the checks of rollout";
        let sql = "SELECT body FROM checks WHERE rollout = $1 AND made_at > $2 ORDER BY number DESC LIMIT $3";
        let args = args![rollout, after, i64::from(limit)];
        let rows = self.db.fetch(sql, args).await.during(LOAD, rollout)?;
        rows.iter().map(|row| row.json(0)).collect::<Result<_, Cause>>().during(LOAD, rollout)
    }

    /// Every check of a rollout with what it saw, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn check_records(&self, rollout: &RolloutId) -> Result<Vec<CheckRecord>, StoreError> {
        const LOAD: &str = "load what was seen by the checks of rollout";
        let sql = "SELECT body, seen FROM checks WHERE rollout = $1 AND seen IS NOT NULL ORDER BY number";
        let rows = self.db.fetch(sql, args![rollout]).await.during(LOAD, rollout)?;
        let read = |row: &Row| -> Result<CheckRecord, Cause> {
            Ok(CheckRecord { analysis: row.json(0)?, seen: row.json(1)? })
        };
        rows.iter().map(read).collect::<Result<_, Cause>>().during(LOAD, rollout)
    }

    /// Commits a transition if the pack is still at the revision that it was decided on.
    ///
    /// State, rollouts, cohorts, check, version and audit entries change together or not at all.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when somebody else was first.
    pub async fn commit(
        &self,
        transition: &Transition,
        with: Commit<'_>,
    ) -> Result<Vec<AuditEntry>, CommitError> {
        let pack = &transition.pack;
        let mut tx = self.db.begin().await.during(COMMIT, &pack.name)?;
        if !set_state(&mut tx, transition).await.during(COMMIT, &pack.name)? {
            return Err(CommitError::Conflict);
        }
        if let Some(version) = with.version
            && !insert_version(&mut tx, &pack.name, version).await.during(COMMIT, &pack.name)?
        {
            return Err(CommitError::Conflict);
        }
        for rollout in transition.superseded.iter().chain(&pack.rollout) {
            save_rollout(&mut tx, &pack.name, rollout, with.manifest).await?;
        }
        for cohort in &transition.cohorts {
            let sql = "INSERT INTO cohort (pack, id, version, variant, rollout, body) VALUES ($1, $2, $3, $4, $5, $6)";
            let variant = cohort.variant.to_string();
            let rollout = cohort.stamp.as_ref().map(|stamp| stamp.rollout.to_string());
            let args = args![&pack.name, cohort.id, &cohort.version, variant, rollout, json(cohort)];
            tx.execute(sql, args).await.during(COMMIT, &pack.name)?;
        }
        if let (Some(check), Some(rollout)) = (&transition.check, &pack.rollout) {
            let seen = match with.seen {
                Some(seen) => Some(json(&since_watermark(&mut tx, &rollout.id, seen).await?)),
                None => None,
            };
            let sql = "INSERT INTO checks (rollout, number, made_at, body, seen) VALUES ($1, $2, $3, $4, $5)";
            let args = args![&rollout.id, check.number, check.at, json(check), seen];
            tx.execute(sql, args).await.during(COMMIT, &pack.name)?;
        }
        for over in transition.superseded.iter().chain(&pack.rollout).filter(|r| r.ended().is_some()) {
            let sql = "DELETE FROM check_watermark WHERE rollout = $1";
            tx.execute(sql, args![&over.id]).await.during(COMMIT, &pack.name)?;
        }
        let entries = append(&mut tx, pack.name.as_str(), &transition.facts).await?;
        tx.commit().await.during(COMMIT, &pack.name)?;
        for cohort in &transition.cohorts {
            self.remember_cohort(&pack.name, Arc::new(cohort.clone()));
        }
        Ok(entries)
    }

    /// Keeps another rollout block for the next rollout of a version that is published already.
    ///
    /// # Errors
    /// [`StoreError`] when the version does not exist or the store fails.
    pub async fn replace_plan(
        &self,
        pack: &PackName,
        version: &Version,
        manifest: &str,
        plan_digest: &str,
        facts: &[AuditFact],
    ) -> Result<Vec<AuditEntry>, StoreError> {
        const REPLACE: &str = "replace the rollout block of";
        let id = format!("{pack} {version}");
        let mut tx = self.db.begin().await.during(REPLACE, &id)?;
        let sql = "UPDATE version SET manifest = $3, plan_digest = $4 WHERE pack = $1 AND version = $2";
        if tx.execute(sql, args![pack, version, manifest, plan_digest]).await.during(REPLACE, &id)? == 0 {
            return Err(StoreError::Missing { operation: REPLACE, id });
        }
        let entries = append(&mut tx, pack.as_str(), facts).await?;
        tx.commit().await.during(REPLACE, &id)?;
        Ok(entries)
    }
}

/// Stores the state of a pack; says whether it still was at the revision that the transition started from.
async fn set_state(tx: &mut Tx, transition: &Transition) -> Result<bool, sqlx::Error> {
    let pack = &transition.pack;
    let changed = match transition.from_revision {
        Some(from) => {
            let sql = "UPDATE pack SET revision = $3, state = $4 WHERE name = $1 AND revision = $2";
            tx.execute(sql, args![&pack.name, from, pack.revision, json(pack)]).await?
        }
        None => {
            let sql = "INSERT INTO pack (name, revision, state) VALUES ($1, $2, $3) \
                       ON CONFLICT (name) DO NOTHING";
            tx.execute(sql, args![&pack.name, pack.revision, json(pack)]).await?
        }
    };
    Ok(changed == 1)
}

/// Stores a version; says whether it was new.
async fn insert_version(tx: &mut Tx, pack: &PackName, version: &StoredVersion) -> Result<bool, sqlx::Error> {
    let sql = "INSERT INTO version (pack, version, content, content_digest, manifest, plan_digest, actor, created_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (pack, version) DO NOTHING";
    let args = args![
        pack,
        &version.version,
        version.content.clone(),
        version.content_digest.as_str(),
        version.manifest.as_str(),
        version.plan_digest.as_str(),
        &version.actor,
        version.created_at,
    ];
    Ok(tx.execute(sql, args).await? == 1)
}

/// What a check saw since the one before; everything counted so far becomes the next watermark.
///
/// The watermark is stored in the transaction of the check, so that it is the sum of the stored
/// checks whoever made them, before and after a restart.
async fn since_watermark(tx: &mut Tx, rollout: &RolloutId, seen: &Seen) -> Result<Seen, StoreError> {
    const READ: &str = "read the watermark of rollout";
    let sql = "SELECT counted FROM check_watermark WHERE rollout = $1";
    let rows = tx.fetch(sql, args![rollout]).await.during(READ, rollout)?;
    let watermark: Counted = match rows.first() {
        Some(row) => row.json(0).during(READ, rollout)?,
        None => Counted::default(),
    };
    let sql = "INSERT INTO check_watermark (rollout, counted) VALUES ($1, $2) \
               ON CONFLICT (rollout) DO UPDATE SET counted = excluded.counted";
    tx.execute(sql, args![rollout, json(&seen.counted)]).await.during(READ, rollout)?;
    Ok(seen.since(&watermark))
}

async fn save_rollout(
    tx: &mut Tx,
    pack: &PackName,
    rollout: &Rollout,
    manifest: Option<&str>,
) -> Result<(), StoreError> {
    let ended_at = rollout.ended().map(|ended| ended.at);
    let sql = "UPDATE rollout SET revision = $2, active = $3, state = $4, ended_at = $5 WHERE id = $1";
    let args = args![&rollout.id, rollout.revision, rollout.active().is_some(), json(rollout), ended_at];
    if tx.execute(sql, args).await.during(COMMIT, pack)? == 1 {
        return Ok(());
    }
    let manifest = match manifest {
        Some(manifest) => manifest.to_owned(),
        None => manifest_of(tx, pack, &rollout.canary).await?,
    };
    let kind = match rollout.kind {
        RolloutKind::Canary => "canary",
        RolloutKind::Immediate => "immediate",
        RolloutKind::Undo => "undo",
    };
    let sql = "INSERT INTO rollout \
               (id, pack, attempt, revision, active, kind, canary, stable, manifest, state, started_at, ended_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let args: Vec<Value> = args![
        &rollout.id,
        pack,
        rollout.attempt,
        rollout.revision,
        rollout.active().is_some(),
        kind,
        &rollout.canary,
        &rollout.stable,
        manifest,
        json(rollout),
        rollout.started_at,
        ended_at,
    ];
    tx.execute(sql, args).await.during(COMMIT, pack)?;
    Ok(())
}

async fn manifest_of(tx: &mut Tx, pack: &PackName, version: &Version) -> Result<String, StoreError> {
    const FIND: &str = "find the manifest of";
    let id = format!("{pack} {version}");
    let sql = "SELECT manifest FROM version WHERE pack = $1 AND version = $2";
    let rows = tx.fetch(sql, args![pack, version]).await.during(FIND, &id)?;
    match rows.first() {
        Some(row) => row.text(0).during(FIND, &id),
        None => Err(StoreError::Missing { operation: FIND, id }),
    }
}

fn stored_version(row: &Row) -> Result<StoredVersion, Cause> {
    Ok(StoredVersion {
        version: Version::parse(&row.text(0)?)?,
        content: row.maybe_text(1)?,
        content_digest: row.text(2)?,
        manifest: row.text(3)?,
        plan_digest: row.text(4)?,
        actor: Actor::named(&row.text(5)?),
        created_at: row.time(6)?,
    })
}

fn stored_rollout(row: &Row) -> Result<StoredRollout, Cause> {
    Ok(StoredRollout { rollout: row.json(0)?, pack: PackName::parse(&row.text(1)?)?, manifest: row.text(2)? })
}
