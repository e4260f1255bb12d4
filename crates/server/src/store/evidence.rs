//! Evidence: each session key counts once per rollout, and is folded once at each age.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_core::aggregate::Counters;
use serin_core::evidence::SessionFacts;
use serin_core::ids::{PackName, RolloutId, SessionHash, Version};
use serin_core::observation::{Fact, Observation};
use serin_core::routing::{Cohort, CohortId, Variant};
use serin_core::units::{HoldFor, Timestamp};

use super::Store;
use super::db::{Row, args, json};
use super::error::{Cause, During, StoreError};

/// A session as it counts in one rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The hash of its key.
    pub hash: SessionHash,
    /// What was stamped on it.
    pub cohort: CohortId,
    /// When.
    pub assigned_at: Timestamp,
}

/// Whether sessions were folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// They are marked, and what they showed is counted.
    Done,
    /// Somebody else has folded at least one of them; nothing has changed.
    LostRace,
}

/// The request that makes an assignment starts a little before it.
const BEFORE_ASSIGNMENT: HoldFor = HoldFor::from_mins(1);

const READ: &str = "read the evidence of rollout";
const FOLD: &str = "fold sessions of rollout";
const READ_FACTS: &str = "read what was seen of sessions of pack";

impl Store {
    /// Sessions that were folded at `ages_done` ages and assigned at or before a point in time, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn matured(
        &self,
        rollout: &RolloutId,
        ages_done: u32,
        assigned_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Unit>, StoreError> {
        let sql = "SELECT key_hash, cohort, assigned_at FROM unit \
                   WHERE rollout = $1 AND folded = $2 AND assigned_at <= $3 ORDER BY assigned_at LIMIT $4";
        let args = args![rollout, i64::from(ages_done), assigned_until, i64::from(limit)];
        let rows = self.db.fetch(sql, args).await.during(READ, rollout)?;
        let read = |row: &Row| -> Result<Unit, Cause> {
            Ok(Unit { hash: row.hash(0)?, cohort: row.cohort(1)?, assigned_at: row.time(2)? })
        };
        rows.iter().map(read).collect::<Result<_, Cause>>().during(READ, rollout)
    }

    /// What each session showed as a member of its cohort up to an age, in the order of `units`.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails or a cohort is not stored.
    pub async fn session_facts(
        &self,
        pack: &PackName,
        units: &[Unit],
        age: HoldFor,
    ) -> Result<Vec<SessionFacts>, StoreError> {
        let mut sessions = Vec::with_capacity(units.len());
        for unit in units {
            let variant = self.known_cohort(pack, unit.cohort).await?.variant;
            let observations = self.observations(pack, unit, age.after(unit.assigned_at)).await?;
            sessions.push(SessionFacts { assigned_at: unit.assigned_at, variant, observations });
        }
        Ok(sessions)
    }

    async fn known_cohort(&self, pack: &PackName, id: CohortId) -> Result<Arc<Cohort>, StoreError> {
        let missing =
            || StoreError::Missing { operation: "load a cohort of", id: format!("{pack}: {}", id.0) };
        self.cohort(pack, id).await?.ok_or_else(missing)
    }

    async fn observations(
        &self,
        pack: &PackName,
        unit: &Unit,
        until: Timestamp,
    ) -> Result<Vec<Observation>, StoreError> {
        let sql = "SELECT id, started_at, ended_at, body FROM observation \
                   WHERE key_hash = $1 AND cohort = $2 AND started_at >= $3 AND started_at <= $4 \
                   ORDER BY started_at, id";
        let args = args![unit.hash, unit.cohort, BEFORE_ASSIGNMENT.before(unit.assigned_at), until];
        let rows = self.db.fetch(sql, args).await.during(READ_FACTS, pack)?;
        let read = |row: &Row| -> Result<Observation, Cause> {
            let fact: Fact = row.json(3)?;
            let request = match fact {
                Fact::Started | Fact::Response(_) => Some(row.text(0)?),
                Fact::Outcome(_) => None,
            };
            Ok(Observation { at: row.time(1)?, until: row.time(2)?, request, fact })
        };
        rows.iter().map(read).collect::<Result<_, Cause>>().during(READ_FACTS, pack)
    }

    /// Marks sessions folded once more and adds what they showed, both or neither.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; nothing changes then.
    pub async fn fold(
        &self,
        rollout: &RolloutId,
        units: &[Unit],
        ages_done: u32,
        additions: &BTreeMap<CohortId, Counters>,
    ) -> Result<Folded, StoreError> {
        let mut tx = self.db.begin().await.during(FOLD, rollout)?;
        for unit in units {
            let sql = "UPDATE unit SET folded = folded + 1 \
                       WHERE rollout = $1 AND assigned_at = $2 AND key_hash = $3 AND folded = $4";
            let args = args![rollout, unit.assigned_at, unit.hash, i64::from(ages_done)];
            if tx.execute(sql, args).await.during(FOLD, rollout)? != 1 {
                return Ok(Folded::LostRace);
            }
        }
        for (cohort, addition) in additions {
            let sql = "SELECT counters FROM evidence WHERE rollout = $1 AND cohort = $2";
            let rows = tx.fetch(sql, args![rollout, *cohort]).await.during(FOLD, rollout)?;
            let mut counters: Counters = match rows.first() {
                Some(row) => row.json(0).during(FOLD, rollout)?,
                None => Counters::default(),
            };
            counters.merge(addition);
            let sql = "INSERT INTO evidence (rollout, cohort, assigned, counters) VALUES ($1, $2, 0, $3) \
                       ON CONFLICT (rollout, cohort) DO UPDATE SET counters = excluded.counters";
            tx.execute(sql, args![rollout, *cohort, json(&counters)]).await.during(FOLD, rollout)?;
        }
        tx.commit().await.during(FOLD, rollout)?;
        Ok(Folded::Done)
    }

    /// What the folded sessions of a rollout showed, by cohort.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn evidence(&self, rollout: &RolloutId) -> Result<Vec<(CohortId, Counters)>, StoreError> {
        let sql = "SELECT cohort, counters FROM evidence WHERE rollout = $1 ORDER BY cohort";
        let rows = self.db.fetch(sql, args![rollout]).await.during(READ, rollout)?;
        let read = |row: &Row| -> Result<(CohortId, Counters), Cause> { Ok((row.cohort(0)?, row.json(1)?)) };
        rows.iter().map(read).collect::<Result<_, Cause>>().during(READ, rollout)
    }

    /// How many session keys were assigned in a rollout, matured or not, by cohort.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn assigned(&self, rollout: &RolloutId) -> Result<Vec<(CohortId, u64)>, StoreError> {
        let sql = "SELECT cohort, assigned FROM evidence WHERE rollout = $1 ORDER BY cohort";
        let rows = self.db.fetch(sql, args![rollout]).await.during(READ, rollout)?;
        let read = |row: &Row| -> Result<(CohortId, u64), Cause> { Ok((row.cohort(0)?, row.count(1)?)) };
        rows.iter().map(read).collect::<Result<_, Cause>>().during(READ, rollout)
    }

    /// What sessions of a version showed that were assigned in `from..to`, latest first, at most `limit`.
    ///
    /// They are read as stable's, whatever they were when assigned: a version that completed its
    /// rollout goes on with the sessions that it had as canary.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn baseline_sessions(
        &self,
        pack: &PackName,
        version: &Version,
        from: Timestamp,
        to: Timestamp,
        limit: u32,
    ) -> Result<Vec<SessionFacts>, StoreError> {
        let sql = "SELECT session.key_hash, session.cohort, session.pinned_at FROM session \
                   JOIN cohort ON cohort.pack = session.pack AND cohort.id = session.cohort \
                   WHERE session.pack = $1 AND cohort.version = $2 \
                   AND session.pinned_at >= $3 AND session.pinned_at < $4 \
                   ORDER BY session.pinned_at DESC LIMIT $5";
        let args = args![pack, version, from, to, i64::from(limit)];
        let rows = self.db.fetch(sql, args).await.during(READ_FACTS, pack)?;
        let mut sessions = Vec::with_capacity(rows.len());
        for row in rows {
            let read = || -> Result<Unit, Cause> {
                Ok(Unit { hash: row.hash(0)?, cohort: row.cohort(1)?, assigned_at: row.time(2)? })
            };
            let unit = read().during(READ_FACTS, pack)?;
            let observations = self.observations(pack, &unit, to).await?;
            sessions.push(SessionFacts {
                assigned_at: unit.assigned_at,
                variant: Variant::Stable,
                observations,
            });
        }
        Ok(sessions)
    }
}
