//! What can go wrong between Serin and its store.

use std::path::PathBuf;

/// Whatever made a stored value unreadable.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory is not there and cannot be made.
    #[error("could not create the data directory {}\nhint: name a directory that this user may write to", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database file cannot be created or written.
    #[error("could not write to the database {}\nhint: the file and its directory must be writable for this user, and the disk must have room", path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// The file is there, but it is no database or a damaged one.
    #[error("{} is no database, or a damaged one\nhint: restore it from a backup, or move it away to begin with an empty one", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// The database was written by a release that this one does not know.
    #[error("the database {} has schema {schema}, which this release of serin does not know\nhint: run the release that wrote it, or a newer one", path.display())]
    UnknownSchema {
        /// The file.
        path: PathBuf,
        /// The number of the schema.
        schema: i64,
    },
    /// The tables could not be brought to the form that this release needs.
    #[error("could not bring the database {} to this release's schema", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
    /// The database could not be opened for another cause.
    #[error("could not open the database {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// A read or write failed.
    #[error("could not {operation} {id:?}")]
    Query {
        /// What was tried.
        operation: &'static str,
        /// With what.
        id: String,
        /// Why.
        source: sqlx::Error,
    },
    /// A stored value does not read back.
    #[error("could not {operation} {id:?}: the stored value does not read back")]
    Unreadable {
        /// What was tried.
        operation: &'static str,
        /// With what.
        id: String,
        /// Why.
        source: Cause,
    },
    /// What was to be changed is not there.
    #[error("could not {operation} {id:?}: it is not stored")]
    Missing {
        /// What was tried.
        operation: &'static str,
        /// With what.
        id: String,
    },
}

/// Why a transition was not committed; nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Somebody else has changed the pack since the transition was decided.
    #[error("the pack is no longer at the revision that the change was decided on")]
    Conflict,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the audit log did not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The log is not the one that was written.
    #[error(transparent)]
    Broken(#[from] serin_core::audit::BrokenChain),
    /// The log could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Says what was tried when a statement or a stored value fails.
pub(super) trait During<T> {
    /// Names the operation and what it was about.
    fn during(self, operation: &'static str, id: &impl ToString) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, operation: &'static str, id: &impl ToString) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Query { operation, id: id.to_string(), source })
    }
}

impl<T> During<T> for Result<T, Cause> {
    fn during(self, operation: &'static str, id: &impl ToString) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Unreadable { operation, id: id.to_string(), source })
    }
}

impl StoreError {
    /// Names the file that could not be opened, by what the engine says of it.
    pub(super) fn opening(path: PathBuf, source: sqlx::Error) -> Self {
        match primary_code(&source) {
            Some(CANNOT_OPEN | READ_ONLY | INPUT_OUTPUT | FULL) => Self::NotWritable { path, source },
            Some(NOT_A_DATABASE | CORRUPT) => Self::NotADatabase { path, source },
            Some(_) | None => Self::Open { path, source },
        }
    }

    /// Names the file whose tables could not be brought up to date.
    pub(super) fn migrating(path: PathBuf, source: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError;
        match source {
            MigrateError::VersionMissing(schema) | MigrateError::VersionMismatch(schema) => {
                Self::UnknownSchema { path, schema }
            }
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                Self::opening(path, source)
            }
            source => Self::Migrate { path, source },
        }
    }
}

const READ_ONLY: i64 = 8;
const INPUT_OUTPUT: i64 = 10;
const CORRUPT: i64 = 11;
const FULL: i64 = 13;
const CANNOT_OPEN: i64 = 14;
const NOT_A_DATABASE: i64 = 26;

/// SQLite's result code without its extension.
fn primary_code(error: &sqlx::Error) -> Option<i64> {
    let code: i64 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}
