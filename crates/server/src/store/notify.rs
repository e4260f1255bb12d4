//! How far each receiver of notifications is in the audit log, and what it was never told of.

use std::collections::BTreeMap;

use serin_core::units::Timestamp;

use super::Store;
use super::db::{Row, Tx, args};
use super::error::{Cause, During, StoreError};

/// How far a receiver is, and what stands in its way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivery {
    /// The last entry of the audit log that it is done with.
    pub done: u64,
    /// Failed attempts at the next entry.
    pub failures: u32,
    /// Those of them that were refusals.
    pub refusals: u32,
    /// When the first of them was made.
    pub failing_since: Option<Timestamp>,
    /// When the next attempt is due; nothing while nothing failed.
    pub next_at: Option<Timestamp>,
    /// What went wrong at the last attempt.
    pub problem: Option<String>,
}

/// An entry of the audit log that a receiver was not told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The receiver.
    pub receiver: String,
    /// The number of the entry.
    pub seq: u64,
    /// When it was last given up.
    pub at: Timestamp,
    /// Attempts that failed.
    pub attempts: u32,
    /// What went wrong at the last one.
    pub problem: String,
}

const READ: &str = "read the delivery to receiver";
const WRITE: &str = "note the delivery to receiver";

impl Store {
    /// How far every receiver is that the store knows, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn deliveries(&self) -> Result<BTreeMap<String, Delivery>, StoreError> {
        let sql =
            "SELECT name, done, failures, refusals, failing_since, next_at, problem FROM notify_receiver";
        let rows = self.db.fetch(sql, args![]).await.during(READ, &"*")?;
        let delivery = |row: &Row| {
            let delivery = Delivery {
                done: row.count(1)?,
                failures: small(row, 2)?,
                refusals: small(row, 3)?,
                failing_since: row.maybe_time(4)?,
                next_at: row.maybe_time(5)?,
                problem: row.maybe_text(6)?,
            };
            Ok((row.text(0)?, delivery))
        };
        rows.iter().map(delivery).collect::<Result<_, Cause>>().during(READ, &"*")
    }

    /// Notes how far a receiver is.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn save_delivery(&self, receiver: &str, delivery: &Delivery) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await.during(WRITE, &receiver)?;
        save(&mut tx, receiver, delivery).await?;
        tx.commit().await.during(WRITE, &receiver)
    }

    /// Notes that a receiver was not told of an entry, and how far it is with that.
    ///
    /// The oldest dead letters of the receiver beyond `most` are removed; how many is told.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn bury(&self, letter: &DeadLetter, after: &Delivery, most: u32) -> Result<u64, StoreError> {
        let receiver = &letter.receiver;
        let mut tx = self.db.begin().await.during(WRITE, receiver)?;
        let sql = "INSERT INTO notify_dead (receiver, seq, buried_at, attempts, problem) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (receiver, seq) DO UPDATE SET buried_at = excluded.buried_at, \
                   attempts = excluded.attempts, problem = excluded.problem";
        tx.execute(sql, columns(letter)).await.during(WRITE, receiver)?;
        let sql = "DELETE FROM notify_dead WHERE receiver = $1 AND seq NOT IN \
                   (SELECT seq FROM notify_dead WHERE receiver = $1 ORDER BY seq DESC LIMIT $2)";
        let dropped =
            tx.execute(sql, args![receiver.as_str(), i64::from(most)]).await.during(WRITE, receiver)?;
        save(&mut tx, receiver, after).await?;
        tx.commit().await.during(WRITE, receiver)?;
        Ok(dropped)
    }

    /// Notes another failed attempt at a dead letter.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn update_dead(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await.during(WRITE, &letter.receiver)?;
        let sql = "UPDATE notify_dead SET buried_at = $3, attempts = $4, problem = $5 \
                   WHERE receiver = $1 AND seq = $2";
        tx.execute(sql, columns(letter)).await.during(WRITE, &letter.receiver)?;
        tx.commit().await.during(WRITE, &letter.receiver)
    }

    /// Removes a dead letter, because the receiver was told after all.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn unbury(&self, receiver: &str, seq: u64) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await.during(WRITE, &receiver)?;
        let sql = "DELETE FROM notify_dead WHERE receiver = $1 AND seq = $2";
        tx.execute(sql, args![receiver, seq]).await.during(WRITE, &receiver)?;
        tx.commit().await.during(WRITE, &receiver)
    }

    /// The dead letters of a receiver, or of all, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn dead_letters(
        &self,
        receiver: Option<&str>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let id = receiver.unwrap_or("*");
        let sql = "SELECT receiver, seq, buried_at, attempts, problem FROM notify_dead \
                   WHERE ($1 IS NULL OR receiver = $1) ORDER BY seq, receiver LIMIT $2";
        let args = args![receiver.map(ToOwned::to_owned), i64::from(limit)];
        let rows = self.db.fetch(sql, args).await.during(READ, &id)?;
        let letter = |row: &Row| {
            Ok(DeadLetter {
                receiver: row.text(0)?,
                seq: row.count(1)?,
                at: row.time(2)?,
                attempts: small(row, 3)?,
                problem: row.text(4)?,
            })
        };
        rows.iter().map(letter).collect::<Result<_, Cause>>().during(READ, &id)
    }

    /// When a link was used; nothing for one that was not.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn link_used_at(&self, id: &str) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT used_at FROM link_used WHERE id = $1";
        let rows = self.db.fetch(sql, args![id]).await.during("read the use of link", &id)?;
        rows.first().map(|row| row.time(0)).transpose().during("read the use of link", &id)
    }

    /// Notes that a link was used; the first use counts.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn use_link(&self, id: &str, label: &str, at: Timestamp) -> Result<(), StoreError> {
        const USE: &str = "note the use of link";
        let mut tx = self.db.begin().await.during(USE, &id)?;
        let sql =
            "INSERT INTO link_used (id, label, used_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING";
        tx.execute(sql, args![id, label, at]).await.during(USE, &id)?;
        tx.commit().await.during(USE, &id)
    }

    /// Forgets a receiver with its dead letters.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn forget_receiver(&self, receiver: &str) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await.during(WRITE, &receiver)?;
        for sql in
            ["DELETE FROM notify_dead WHERE receiver = $1", "DELETE FROM notify_receiver WHERE name = $1"]
        {
            tx.execute(sql, args![receiver]).await.during(WRITE, &receiver)?;
        }
        tx.commit().await.during(WRITE, &receiver)
    }
}

async fn save(tx: &mut Tx, receiver: &str, delivery: &Delivery) -> Result<(), StoreError> {
    let sql = "INSERT INTO notify_receiver (name, done, failures, refusals, failing_since, next_at, problem) \
               VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO UPDATE SET done = excluded.done, \
               failures = excluded.failures, refusals = excluded.refusals, \
               failing_since = excluded.failing_since, next_at = excluded.next_at, problem = excluded.problem";
    let args = args![
        receiver,
        delivery.done,
        u64::from(delivery.failures),
        u64::from(delivery.refusals),
        delivery.failing_since,
        delivery.next_at,
        delivery.problem.clone(),
    ];
    tx.execute(sql, args).await.during(WRITE, &receiver)?;
    Ok(())
}

fn columns(letter: &DeadLetter) -> Vec<super::db::Value> {
    let attempts = u64::from(letter.attempts);
    args![letter.receiver.as_str(), letter.seq, letter.at, attempts, letter.problem.as_str()]
}

fn small(row: &Row, column: usize) -> Result<u32, Cause> {
    Ok(u32::try_from(row.count(column)?)?)
}
