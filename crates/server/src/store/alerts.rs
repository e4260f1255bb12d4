//! Alerts of other systems: what was said last of each.

use std::collections::BTreeMap;

use serin_core::access::Scope;
use serin_core::alert::Alert;
use serin_core::units::Timestamp;

use super::Store;
use super::db::{Row, args, json};
use super::error::{Cause, During, StoreError};

/// An alert as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAlert {
    /// The packs that whoever said so may speak of.
    pub scope: Scope,
    /// Its labels, by which settings find the packs that it holds.
    pub labels: BTreeMap<String, String>,
    /// When it was last said.
    pub said_at: Timestamp,
    /// What was said.
    pub alert: Alert,
}

/// What stands for the scope of all packs.
const ALL: &str = "*";

const LOAD: &str = "load alert";
const SAVE: &str = "store alert";
const FORGET: &str = "forget alert";

impl Store {
    /// Every alert that is remembered.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn alerts(&self) -> Result<Vec<StoredAlert>, StoreError> {
        let sql = "SELECT scope, fingerprint, name, labels, summary, url, said_by, since, said_at, expires_at, \
                   resolved_at FROM alert ORDER BY scope, fingerprint";
        let rows = self.db.fetch(sql, args![]).await.during(LOAD, &"*")?;
        rows.iter().map(stored_alert).collect::<Result<_, Cause>>().during(LOAD, &"*")
    }

    /// Remembers what was said last of some alerts and forgets others, all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn save_alerts(
        &self,
        said: &[StoredAlert],
        forgotten: &[StoredAlert],
    ) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await.during(SAVE, &"*")?;
        for StoredAlert { scope, alert, .. } in forgotten {
            let sql = "DELETE FROM alert WHERE scope = $1 AND fingerprint = $2";
            let args = args![scope_text(scope), alert.fingerprint.as_str()];
            tx.execute(sql, args).await.during(FORGET, &alert.fingerprint)?;
        }
        for StoredAlert { scope, labels, said_at, alert } in said {
            let sql = "INSERT INTO alert (scope, fingerprint, name, labels, summary, url, said_by, since, said_at, \
                       expires_at, resolved_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
                       ON CONFLICT (scope, fingerprint) DO UPDATE SET name = $3, labels = $4, summary = $5, \
                       url = $6, said_by = $7, since = $8, said_at = $9, expires_at = $10, resolved_at = $11";
            let args = args![
                scope_text(scope),
                alert.fingerprint.as_str(),
                alert.name.as_str(),
                json(labels),
                alert.summary.as_str(),
                alert.url.clone(),
                alert.said_by.as_str(),
                alert.since,
                *said_at,
                alert.expires_at,
                alert.resolved_at,
            ];
            tx.execute(sql, args).await.during(SAVE, &alert.fingerprint)?;
        }
        tx.commit().await.during(SAVE, &"*")
    }
}

/// A scope as the table has it.
pub fn scope_text(scope: &Scope) -> String {
    scope.packs().map_or_else(|| ALL.to_owned(), json)
}

fn stored_alert(row: &Row) -> Result<StoredAlert, Cause> {
    let scope = match row.text(0)?.as_str() {
        ALL => Scope::All,
        packs => Scope::Packs(serde_json::from_str(packs)?),
    };
    Ok(StoredAlert {
        scope,
        labels: serde_json::from_str(&row.text(3)?)?,
        said_at: row.time(8)?,
        alert: Alert {
            fingerprint: row.text(1)?,
            name: row.text(2)?,
            summary: row.text(4)?,
            url: row.maybe_text(5)?,
            said_by: row.text(6)?,
            since: row.time(7)?,
            expires_at: row.time(9)?,
            resolved_at: row.maybe_time(10)?,
        },
    })
}
