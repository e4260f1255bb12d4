//! Keeps what must survive: packs and their rollouts, pins, observations, evidence and the audit log.
//!
//! The store never decides. A transition is one transaction with compare-and-set on the pack's
//! revision; everything that the request path tells is written in batches; each session is folded
//! into the evidence in the transaction that marks it folded.
//!
//! **Invariant:** nothing outside of this directory speaks SQL.

mod alerts;
mod audit;
mod db;
mod error;
mod evidence;
mod exposure;
mod keys;
mod notify;
mod packs;
mod rows;
mod samples;
mod sessions;
mod tallies;
#[cfg(test)]
mod tests;
mod verdicts;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serin_core::ids::PackName;
use serin_core::routing::{Cohort, CohortId};

pub use self::alerts::{StoredAlert, scope_text};
pub use self::audit::AuditFilter;
pub use self::error::{CommitError, StoreError, VerifyError};
pub use self::evidence::{Folded, Unit};
pub use self::exposure::{ExposedPlace, ExposedSession};
pub use self::keys::StoredKey;
pub use self::notify::{DeadLetter, Delivery};
pub use self::packs::{Commit, RolloutFilter, StoredPack, StoredRollout, StoredVersion};
pub use self::samples::{SampleFilter, Saved};
pub use self::sessions::{Expired, StoredSession};
pub use self::tallies::{Exposure, StoredTally, TALLY_SLOT};
pub use self::verdicts::{Due, Judgeable, Judged, Resumed, Settled, Spent, VerdictCount, VerdictState};
pub use self::write::{Batch, Receipt, Touch, Written};

use self::db::{Db, args};
use self::error::During;

/// How long a write waits for another process that is writing.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that must survive a restart; clones share their connections.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
    /// Cohorts never change, so that those once read need no second look.
    cohorts: Arc<Mutex<CohortCache>>,
}

type CohortCache = BTreeMap<PackName, BTreeMap<CohortId, Arc<Cohort>>>;

impl Store {
    /// Opens the database file, and creates it with its directory where there is none.
    ///
    /// # Errors
    /// [`StoreError`] tells what is wrong with the directory or the file, and what can be done.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, BUSY_TIMEOUT).await
    }

    /// Opens the database file; a write waits at most `busy_timeout` for another process.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(path: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
        let db = Db::open_sqlite(path, busy_timeout, None).await?;
        Ok(Self { db, cohorts: Arc::default() })
    }

    /// Opens the database file, which may have so many pages of 4 KiB and then is full, as a disk would be.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_bounded(path: &Path, most_pages: u32) -> Result<Self, StoreError> {
        let db = Db::open_sqlite(path, BUSY_TIMEOUT, Some(most_pages)).await?;
        Ok(Self { db, cohorts: Arc::default() })
    }

    /// Closes every connection, once what uses them has ended.
    pub async fn close(&self) {
        self.db.close().await;
    }

    /// A cohort; nothing where it is not stored.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn cohort(&self, pack: &PackName, id: CohortId) -> Result<Option<Arc<Cohort>>, StoreError> {
        if let Some(cohort) = self.cached_cohorts().get(pack).and_then(|cohorts| cohorts.get(&id)) {
            return Ok(Some(Arc::clone(cohort)));
        }
        const LOAD: &str = "load a cohort of";
        let sql = "SELECT body FROM cohort WHERE pack = $1 AND id = $2";
        let rows = self.db.fetch(sql, args![pack, id]).await.during(LOAD, pack)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let cohort: Arc<Cohort> = Arc::new(row.json(0).during(LOAD, pack)?);
        self.remember_cohort(pack, Arc::clone(&cohort));
        Ok(Some(cohort))
    }

    fn remember_cohort(&self, pack: &PackName, cohort: Arc<Cohort>) {
        self.cached_cohorts().entry(pack.clone()).or_default().insert(cohort.id, cohort);
    }

    fn cached_cohorts(&self) -> std::sync::MutexGuard<'_, CohortCache> {
        // The map is whole whatever panicked while it was held: entries are inserted one by one.
        self.cohorts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
