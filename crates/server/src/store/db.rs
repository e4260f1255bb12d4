//! The engine below the store: one writer, a few readers, statements with their arguments.
//!
//! Everything above this file is written once, in SQL that SQLite and PostgreSQL both read: `$1`
//! parameters, BIGINT, TEXT and byte strings, `INSERT … ON CONFLICT`. A second engine is a second
//! variant of the three enums below.
//!
//! **Invariant:** SQL decides nothing: times, ids and random numbers come in as arguments.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serin_core::ids::{Actor, PackName, RolloutId, SessionHash, SessionKey, Version};
use serin_core::routing::CohortId;
use serin_core::units::Timestamp;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::query::Query;
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{Arguments as _, Row as _, SqlSafeStr, Transaction};

use super::error::{Cause, StoreError};

/// Connections that only read.
const READERS: u32 = 3;

/// Pages that the writer keeps in memory, in KiB below zero; the indexes of a busy day fit.
const CACHE: &str = "-32768";
/// Pages of 4 KiB in the log that make SQLite carry them over into the database.
const CHECKPOINT_PAGES: &str = "8000";

/// An open database.
#[derive(Debug, Clone)]
pub(super) enum Db {
    /// A file on this machine.
    Sqlite {
        /// The one connection that writes.
        writer: SqlitePool,
        /// Connections that only read.
        readers: SqlitePool,
    },
}

/// A transaction that writes; nothing of it stays unless it is committed.
pub(super) enum Tx {
    /// On SQLite, which takes the write lock at once.
    Sqlite(Transaction<'static, Sqlite>),
}

/// One row of a result.
pub(super) enum Row {
    /// Of SQLite.
    Sqlite(SqliteRow),
}

/// One argument of a statement.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Int(Option<i64>),
    /// Shared, so that the engine takes it over as it is.
    Text(Option<Arc<str>>),
    Bytes(Vec<u8>),
}

/// The arguments of a statement, in the order of `$1`, `$2`, …
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::db::Value::from($value)),*] };
}
pub(super) use args;

/// The values of one row of a statement over many, in the order of its columns.
macro_rules! row {
    ($($value:expr),* $(,)?) => { [$($crate::store::db::Value::from($value)),*] };
}
pub(super) use row;

impl Db {
    /// Opens or creates a database file and brings its tables to this release's form; `most_pages` of 4 KiB, where
    /// given, are all that it may have.
    pub(super) async fn open_sqlite(
        path: &Path,
        busy_timeout: Duration,
        most_pages: Option<u32>,
    ) -> Result<Self, StoreError> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(directory)
                .await
                .map_err(|source| StoreError::Directory { path: directory.to_owned(), source })?;
        }
        let opening = |source| StoreError::opening(path.to_owned(), source);
        let options =
            SqliteConnectOptions::new().filename(path).busy_timeout(busy_timeout).foreign_keys(false);
        let pool =
            || SqlitePoolOptions::new().idle_timeout(None).max_lifetime(None).test_before_acquire(false);
        let writing = options
            .clone()
            .create_if_missing(true)
            .pragma("cache_size", CACHE)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            // What a statement over many rows would need to undo itself stays in memory, not in a file beside.
            .pragma("temp_store", "MEMORY")
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let writing = match most_pages {
            Some(pages) => writing.pragma("max_page_count", pages.to_string()),
            None => writing,
        };
        let writer = pool().max_connections(1).connect_with(writing).await.map_err(opening)?;
        let migrated = migrations().run(&writer).await;
        migrated.map_err(|source| StoreError::migrating(path.to_owned(), source))?;
        let reading = options.read_only(true);
        let readers = pool().max_connections(READERS).connect_with(reading).await.map_err(opening)?;
        Ok(Self::Sqlite { writer, readers })
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<Tx, sqlx::Error> {
        match self {
            // A deferred transaction could find at its first write that it came too late.
            Self::Sqlite { writer, .. } => Ok(Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?)),
        }
    }

    /// Reads what is committed.
    pub(super) async fn fetch(&self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite { readers, .. } => {
                let rows = bound(sql, args).fetch_all(readers).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
        }
    }

    /// Where the engine finds a table and its indexes to contradict each other; nothing when they do not.
    ///
    /// The name is one of ours: it is part of the statement.
    pub(super) async fn damage_of(&self, table: &'static str) -> Result<Option<String>, sqlx::Error> {
        match self {
            Self::Sqlite { readers, .. } => {
                let sql = sqlx::AssertSqlSafe(format!("PRAGMA integrity_check({table})"));
                let said: String = sqlx::query_scalar(sql).fetch_one(readers).await?;
                Ok((said != "ok").then_some(said))
            }
        }
    }

    /// Closes every connection, once what uses them has ended.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
        }
    }
}

impl Tx {
    /// Runs a statement and tells how many rows it changed.
    pub(super) async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64, sqlx::Error> {
        match self {
            Self::Sqlite(tx) => Ok(bound(sql, args).execute(&mut **tx).await?.rows_affected()),
        }
    }

    /// Reads, with this transaction's own changes.
    pub(super) async fn fetch(
        &mut self,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(tx) => {
                let rows = bound(sql, args).fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
        }
    }

    /// Makes everything durable.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
        }
    }
}

fn bound(sql: &'static str, args: Vec<Value>) -> Query<'static, Sqlite, SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(args.len(), 0);
    for value in args {
        let added = match value {
            Value::Int(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Bytes(value) => arguments.add(value),
        };
        added.expect("numbers, text and bytes are arguments as they are");
    }
    sqlx::query_with(sql, arguments)
}

fn migrations() -> Migrator {
    let simple = |number, name: &'static str, sql: &'static str| {
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        simple(1, "start", include_str!("migrations/0001_start.sql")),
        simple(2, "replay", include_str!("migrations/0002_replay.sql")),
        simple(6, "samples", include_str!("migrations/0006_samples.sql")),
        simple(8, "audit_head", include_str!("migrations/0008_audit_head.sql")),
        simple(10, "keys", include_str!("migrations/0010_keys.sql")),
        simple(12, "notify", include_str!("migrations/0012_notify.sql")),
        simple(16, "alerts", include_str!("migrations/0016_alerts.sql")),
        simple(20, "verdicts", include_str!("migrations/0020_verdicts.sql")),
        simple(22, "audit_forced", include_str!("migrations/0022_audit_forced.sql")),
        simple(28, "sample_sessions", include_str!("migrations/0028_sample_sessions.sql")),
        simple(30, "counted_in", include_str!("migrations/0030_counted_in.sql")),
    ])
}

impl Row {
    pub(super) fn int(&self, column: usize) -> Result<i64, Cause> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
        }
    }

    pub(super) fn count(&self, column: usize) -> Result<u64, Cause> {
        Ok(u64::try_from(self.int(column)?)?)
    }

    pub(super) fn text(&self, column: usize) -> Result<String, Cause> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
        }
    }

    pub(super) fn maybe_text(&self, column: usize) -> Result<Option<String>, Cause> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
        }
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, column: usize) -> Result<T, Cause> {
        Ok(serde_json::from_str(&self.text(column)?)?)
    }

    pub(super) fn time(&self, column: usize) -> Result<Timestamp, Cause> {
        Ok(Timestamp::from_microsecond(self.int(column)?)?)
    }

    pub(super) fn maybe_time(&self, column: usize) -> Result<Option<Timestamp>, Cause> {
        let microseconds: Option<i64> = match self {
            Self::Sqlite(row) => row.try_get(column)?,
        };
        Ok(microseconds.map(Timestamp::from_microsecond).transpose()?)
    }

    pub(super) fn cohort(&self, column: usize) -> Result<CohortId, Cause> {
        Ok(CohortId(u32::try_from(self.int(column)?)?))
    }

    pub(super) fn hash(&self, column: usize) -> Result<SessionHash, Cause> {
        let bytes: Vec<u8> = match self {
            Self::Sqlite(row) => row.try_get(column)?,
        };
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| "a key hash has 16 bytes")?;
        Ok(SessionHash(u128::from_be_bytes(bytes)))
    }
}

/// JSON text of a value that is stored.
pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value)
        .expect("what is stored holds only numbers, text, lists and maps with text keys")
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}

impl From<Option<bool>> for Value {
    fn from(value: Option<bool>) -> Self {
        Self::Int(value.map(i64::from))
    }
}

impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Self::Int(Some(value.as_microsecond()))
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(value: Option<Timestamp>) -> Self {
        Self::Int(value.map(Timestamp::as_microsecond))
    }
}

impl From<CohortId> for Value {
    fn from(value: CohortId) -> Self {
        Self::Int(Some(value.0.into()))
    }
}

impl From<SessionHash> for Value {
    fn from(value: SessionHash) -> Self {
        Self::Bytes(value.0.to_be_bytes().to_vec())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.into()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value.into()))
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        Self::Text(value.map(Arc::from))
    }
}

/// Ids are stored as the text that they show.
macro_rules! stored_as_text {
    ($($id:ty),*) => { $(
        impl From<&$id> for Value {
            fn from(value: &$id) -> Self {
                Self::from(value.as_str())
            }
        }
    )* };
}
stored_as_text!(PackName, RolloutId, SessionKey, Actor);

impl From<&Version> for Value {
    fn from(value: &Version) -> Self {
        Self::from(value.to_string())
    }
}
