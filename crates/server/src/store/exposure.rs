//! Who saw the canary of a rollout.

use serin_core::ids::{PackName, RolloutId, SessionHash};
use serin_core::routing::{CohortId, Variant};
use serin_core::units::Timestamp;

use super::Store;
use super::db::{Row, args};
use super::error::{Cause, During, StoreError};

/// A session that was assigned to the canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposedSession {
    /// The hash of its key.
    pub hash: SessionHash,
    /// What the app calls it; forgotten some time after it was last seen.
    pub key: Option<String>,
    /// What was stamped on it.
    pub cohort: CohortId,
    /// When it was assigned.
    pub assigned_at: Timestamp,
    /// When it was last seen, as far as that is still known.
    pub last_seen: Timestamp,
    /// Requests of it that the canary answered and that are not yet deleted.
    pub requests: u64,
}

/// The place of a session in the list of those that a rollout assigned: earlier ones first, at the same time by hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExposedPlace {
    /// When it was assigned.
    pub assigned_at: Timestamp,
    /// The hash of its key.
    pub hash: SessionHash,
}

impl ExposedPlace {
    /// In front of every session.
    const BEGINNING: Self = Self { assigned_at: Timestamp::MIN, hash: SessionHash(0) };
}

const READ: &str = "read the exposed sessions of rollout";

impl Store {
    /// Sessions that a rollout assigned to its canary, in the order of their assignment, after one of them.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn exposed_sessions(
        &self,
        pack: &PackName,
        rollout: &RolloutId,
        after: Option<ExposedPlace>,
        limit: u32,
    ) -> Result<Vec<ExposedSession>, StoreError> {
        // kind 1 is a request that has ended.
        let sql = "SELECT unit.key_hash, NULLIF(session.session_key, ''), unit.cohort, unit.assigned_at, \
                   COALESCE(session.last_seen, unit.assigned_at), \
                   (SELECT COUNT(*) FROM observation WHERE observation.key_hash = unit.key_hash \
                    AND observation.cohort = unit.cohort AND observation.kind = 1) \
                   FROM unit JOIN cohort ON cohort.pack = $1 AND cohort.id = unit.cohort \
                   LEFT JOIN session ON session.key_hash = unit.key_hash \
                   WHERE unit.rollout = $2 AND (unit.assigned_at, unit.key_hash) > ($3, $4) AND cohort.variant = $5 \
                   ORDER BY unit.assigned_at, unit.key_hash LIMIT $6";
        let ExposedPlace { assigned_at, hash } = after.unwrap_or(ExposedPlace::BEGINNING);
        let args = args![pack, rollout, assigned_at, hash, Variant::Canary.to_string(), i64::from(limit)];
        let rows = self.db.fetch(sql, args).await.during(READ, rollout)?;
        let read = |row: &Row| -> Result<ExposedSession, Cause> {
            Ok(ExposedSession {
                hash: row.hash(0)?,
                key: row.maybe_text(1)?,
                cohort: row.cohort(2)?,
                assigned_at: row.time(3)?,
                last_seen: row.time(4)?,
                requests: row.count(5)?,
            })
        };
        rows.iter().map(read).collect::<Result<_, Cause>>().during(READ, rollout)
    }
}
