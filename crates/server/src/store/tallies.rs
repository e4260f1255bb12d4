//! What was seen, by slots of time: for charts, status and exposure, never for decisions of gates by evidence.

use std::collections::BTreeMap;

use serin_core::aggregate::Tally;
use serin_core::analysis::Sides;
use serin_core::ids::{PackName, RolloutId};
use serin_core::routing::Variant;
use serin_core::units::{HoldFor, Timestamp};

use super::Store;
use super::db::{Row, Tx, args, json};
use super::error::{Cause, During, StoreError};

/// Length of a slot of time when it is written; older ones are joined to longer ones.
pub const TALLY_SLOT: HoldFor = HoldFor::from_secs(5);
/// Slots older than this are joined to whole minutes.
const MINUTES_AFTER: HoldFor = HoldFor::from_hours(1);
/// Slots older than this are joined to whole hours.
const HOURS_AFTER: HoldFor = HoldFor::from_hours(7 * 24);

/// What was seen of one variant in one slot of time.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTally {
    /// When the slot begins.
    pub at: Timestamp,
    /// The variant.
    pub variant: Variant,
    /// What was seen.
    pub tally: Tally,
}

/// How many saw the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exposure {
    /// Sessions that were assigned to it.
    pub sessions: u64,
    /// Requests that it answered.
    pub requests: u64,
}

/// Names a slot; what was seen outside of any rollout has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotKey<'b> {
    pub(super) pack: &'b PackName,
    pub(super) rollout: Option<&'b RolloutId>,
    pub(super) variant: Variant,
    pub(super) at: Timestamp,
}

const READ: &str = "read what was seen of";
const MERGE: &str = "add to what was seen of";

impl Store {
    /// What was seen of a rollout in the slots that begin in `from..to`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn tallies(
        &self,
        rollout: &RolloutId,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Vec<StoredTally>, StoreError> {
        let sql = "SELECT slot_at, variant, body FROM tally \
                   WHERE rollout = $1 AND slot_at >= $2 AND slot_at < $3 ORDER BY slot_at, variant";
        let (from, to) = (from.unwrap_or(Timestamp::MIN), to.unwrap_or(Timestamp::MAX));
        let rows = self.db.fetch(sql, args![rollout, slot_of(from), to]).await.during(READ, rollout)?;
        rows.iter().map(slot).collect::<Result<_, Cause>>().during(READ, rollout)
    }

    /// What was seen of a pack outside of any rollout in the slots that begin in `from..to`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn tallies_without_rollout(
        &self,
        pack: &PackName,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<StoredTally>, StoreError> {
        let sql = "SELECT slot_at, variant, body FROM tally \
                   WHERE rollout = '' AND pack = $1 AND slot_at >= $2 AND slot_at < $3 ORDER BY slot_at, variant";
        let rows = self.db.fetch(sql, args![pack, slot_of(from), to]).await.during(READ, pack)?;
        rows.iter().map(slot).collect::<Result<_, Cause>>().during(READ, pack)
    }

    /// Everything that was seen of a rollout, by variant.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn tally_total(&self, rollout: &RolloutId) -> Result<Sides<Tally>, StoreError> {
        let sql = "SELECT variant, body FROM tally_total WHERE rollout = $1";
        let rows = self.db.fetch(sql, args![rollout]).await.during(READ, rollout)?;
        let mut total = Sides::default();
        for row in &rows {
            let side = variant(row, 0).during(READ, rollout)?;
            *total.of_mut(side) = row.json(1).during(READ, rollout)?;
        }
        Ok(total)
    }

    /// How many saw the canary of a rollout.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn exposure(&self, rollout: &RolloutId) -> Result<Exposure, StoreError> {
        let sql = "SELECT evidence.assigned FROM evidence \
                   JOIN cohort ON cohort.rollout = evidence.rollout AND cohort.id = evidence.cohort \
                   WHERE evidence.rollout = $1 AND cohort.variant = $2";
        let args = args![rollout, Variant::Canary.to_string()];
        let rows = self.db.fetch(sql, args).await.during(READ, rollout)?;
        let sessions =
            rows.iter().map(|row| row.count(0)).sum::<Result<u64, Cause>>().during(READ, rollout)?;
        Ok(Exposure { sessions, requests: self.tally_total(rollout).await?.canary.requests })
    }

    /// Joins old slots to longer ones, so that a year of rollouts stays small; returns how many were joined.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub(super) async fn join_slots(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut joined = 0;
        for (after, length) in [(MINUTES_AFTER, HoldFor::from_mins(1)), (HOURS_AFTER, HoldFor::from_hours(1))]
        {
            joined += self.join_slots_before(floor(after.before(now), length), length).await?;
        }
        Ok(joined)
    }

    async fn join_slots_before(&self, before: Timestamp, length: HoldFor) -> Result<u64, StoreError> {
        const JOIN: &str = "join slots before";
        let length_us = i64::try_from(length.millis() * 1_000).expect("an hour has few microseconds");
        // Groups of slots that make one longer slot and are still apart.
        let sql = "SELECT pack, rollout, variant, slot_at - slot_at % $2 AS long_at FROM tally WHERE slot_at < $1 \
                   GROUP BY pack, rollout, variant, slot_at - slot_at % $2 HAVING COUNT(*) > 1";
        let groups = self.db.fetch(sql, args![before, length_us]).await.during(JOIN, &before)?;
        let mut joined = 0;
        for group in groups {
            let mut tx = self.db.begin().await.during(JOIN, &before)?;
            let pack = group.text(0).during(JOIN, &before)?;
            let rollout = group.text(1).during(JOIN, &before)?;
            let variant = group.text(2).during(JOIN, &before)?;
            let from = group.int(3).during(JOIN, &before)?;
            let to = from + length_us;
            let own = || args![pack.as_str(), rollout.as_str(), variant.as_str(), from, to];
            let sql = "SELECT body FROM tally WHERE pack = $1 AND rollout = $2 AND variant = $3 \
                       AND slot_at >= $4 AND slot_at < $5";
            let rows = tx.fetch(sql, own()).await.during(JOIN, &before)?;
            let mut sum = Tally::default();
            for row in &rows {
                sum.merge(&row.json(0).during(JOIN, &before)?);
            }
            let sql = "DELETE FROM tally WHERE pack = $1 AND rollout = $2 AND variant = $3 \
                       AND slot_at >= $4 AND slot_at < $5";
            joined += tx.execute(sql, own()).await.during(JOIN, &before)?;
            let sql = "INSERT INTO tally (pack, rollout, variant, slot_at, body) VALUES ($1, $2, $3, $4, $5)";
            let args = args![pack.as_str(), rollout.as_str(), variant.as_str(), from, json(&sum)];
            tx.execute(sql, args).await.during(JOIN, &before)?;
            tx.commit().await.during(JOIN, &before)?;
        }
        Ok(joined)
    }
}

/// Adds to slots, and to the totals of their rollouts, inside a transaction.
pub(super) async fn merge_slots(tx: &mut Tx, slots: &BTreeMap<SlotKey<'_>, Tally>) -> Result<(), StoreError> {
    let mut totals: BTreeMap<(&RolloutId, Variant), Tally> = BTreeMap::new();
    for (key, tally) in slots {
        if let Some(rollout) = key.rollout {
            totals.entry((rollout, key.variant)).or_default().merge(tally);
        }
        let rollout = key.rollout.map_or("", RolloutId::as_str);
        let variant = key.variant.to_string();
        let sql = "SELECT body FROM tally WHERE rollout = $1 AND pack = $2 AND slot_at = $3 AND variant = $4";
        let args = args![rollout, key.pack, key.at, variant.as_str()];
        let before = tx.fetch(sql, args).await.during(MERGE, key.pack)?;
        let sum = added(&before, tally).during(MERGE, key.pack)?;
        let sql = "INSERT INTO tally (rollout, pack, slot_at, variant, body) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (rollout, pack, slot_at, variant) DO UPDATE SET body = excluded.body";
        let args = args![rollout, key.pack, key.at, variant, json(&sum)];
        tx.execute(sql, args).await.during(MERGE, key.pack)?;
    }
    for ((rollout, variant), tally) in totals {
        let variant = variant.to_string();
        let sql = "SELECT body FROM tally_total WHERE rollout = $1 AND variant = $2";
        let before = tx.fetch(sql, args![rollout, variant.as_str()]).await.during(MERGE, rollout)?;
        let sum = added(&before, &tally).during(MERGE, rollout)?;
        let sql = "INSERT INTO tally_total (rollout, variant, body) VALUES ($1, $2, $3) \
                   ON CONFLICT (rollout, variant) DO UPDATE SET body = excluded.body";
        tx.execute(sql, args![rollout, variant, json(&sum)]).await.during(MERGE, rollout)?;
    }
    Ok(())
}

/// What a row holds, if there is one, and what is added to it.
fn added(rows: &[Row], tally: &Tally) -> Result<Tally, Cause> {
    let mut sum: Tally = match rows.first() {
        Some(row) => row.json(0)?,
        None => Tally::default(),
    };
    sum.merge(tally);
    Ok(sum)
}

/// The beginning of the slot that holds a point in time.
pub(super) fn slot_of(at: Timestamp) -> Timestamp {
    floor(at, TALLY_SLOT)
}

fn floor(at: Timestamp, length: HoldFor) -> Timestamp {
    let length_us = i64::try_from(length.millis() * 1_000).expect("slots are at most an hour long");
    let us = at.as_microsecond();
    Timestamp::from_microsecond(us - us.rem_euclid(length_us)).unwrap_or(at)
}

fn slot(row: &Row) -> Result<StoredTally, Cause> {
    Ok(StoredTally { at: row.time(0)?, variant: variant(row, 1)?, tally: row.json(2)? })
}

fn variant(row: &Row, column: usize) -> Result<Variant, Cause> {
    match row.text(column)?.as_str() {
        "stable" => Ok(Variant::Stable),
        "canary" => Ok(Variant::Canary),
        other => Err(format!("unknown variant {other:?}").into()),
    }
}
