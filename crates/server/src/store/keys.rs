//! Keys: who may ask, by the hash of what they show.

use std::collections::BTreeSet;

use serin_core::access::{Grant, Role, Scope};
use serin_core::audit::{AuditFact, WHOLE_SERVER};
use serin_core::ids::PackName;
use serin_core::units::Timestamp;

use super::Store;
use super::audit::append;
use super::db::{Row, args, json};
use super::error::{Cause, During, StoreError};

/// A key as it is stored; what its holder shows is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Names it for good, also after it is revoked and its name is given anew.
    pub id: String,
    /// What people call it; no two keys have the same.
    pub name: String,
    /// BLAKE3 of the key.
    pub hash: blake3::Hash,
    /// What it is good for.
    pub grant: Grant,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// From when on it is no longer good; nothing for never.
    pub expires_at: Option<Timestamp>,
    /// When it was last shown, to the minute; nothing for never.
    pub last_used_at: Option<Timestamp>,
}

const LOAD: &str = "load key";
const INSERT: &str = "store key";
const DELETE: &str = "revoke key";
const TOUCH: &str = "note the last use of key";

impl Store {
    /// Every key, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let sql = "SELECT id, name, hash, role, packs, read_prompts, created_at, created_by, expires_at, last_used_at \
                   FROM api_key ORDER BY name";
        let rows = self.db.fetch(sql, args![]).await.during(LOAD, &"*")?;
        rows.iter().map(stored_key).collect::<Result<_, Cause>>().during(LOAD, &"*")
    }

    /// Stores a new key together with its entry in the audit log.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails, or has a key of this name.
    pub async fn insert_key(&self, key: &StoredKey, fact: &AuditFact) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await.during(INSERT, &key.name)?;
        let sql = "INSERT INTO api_key \
                   (id, name, hash, role, packs, read_prompts, created_at, created_by, expires_at, last_used_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let args = args![
            key.id.as_str(),
            key.name.as_str(),
            key.hash.to_hex().as_str(),
            key.grant.role.as_str(),
            key.grant.scope.packs().map(json),
            key.grant.read_prompts,
            key.created_at,
            key.created_by.as_str(),
            key.expires_at,
            key.last_used_at,
        ];
        tx.execute(sql, args).await.during(INSERT, &key.name)?;
        append(&mut tx, WHOLE_SERVER, std::slice::from_ref(fact)).await?;
        tx.commit().await.during(INSERT, &key.name)
    }

    /// Removes a key together with an entry in the audit log; whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn delete_key(&self, id: &str, fact: &AuditFact) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await.during(DELETE, &id)?;
        let gone = tx.execute("DELETE FROM api_key WHERE id = $1", args![id]).await.during(DELETE, &id)?;
        if gone == 0 {
            return Ok(false);
        }
        append(&mut tx, WHOLE_SERVER, std::slice::from_ref(fact)).await?;
        tx.commit().await.during(DELETE, &id)?;
        Ok(true)
    }

    /// Notes when keys were last used; a key that is gone is passed over.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn touch_keys(&self, used: &[(String, Timestamp)]) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await.during(TOUCH, &"*")?;
        for (id, at) in used {
            let sql = "UPDATE api_key SET last_used_at = $2 WHERE id = $1";
            tx.execute(sql, args![id.as_str(), *at]).await.during(TOUCH, id)?;
        }
        tx.commit().await.during(TOUCH, &"*")
    }
}

fn stored_key(row: &Row) -> Result<StoredKey, Cause> {
    let packs = match row.maybe_text(4)? {
        None => Scope::All,
        Some(list) => Scope::Packs(serde_json::from_str::<BTreeSet<PackName>>(&list)?),
    };
    Ok(StoredKey {
        id: row.text(0)?,
        name: row.text(1)?,
        hash: blake3::Hash::from_hex(row.text(2)?)?,
        grant: Grant {
            role: Role::parse(&row.text(3)?).ok_or("the role is unknown to this release")?,
            read_prompts: row.int(5)? != 0,
            scope: packs,
        },
        created_at: row.time(6)?,
        created_by: row.text(7)?,
        expires_at: row.maybe_time(8)?,
        last_used_at: row.maybe_time(9)?,
    })
}
