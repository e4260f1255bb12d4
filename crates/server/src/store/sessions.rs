//! Sessions: their pins across restarts, what they are called, and when they are forgotten.

use serin_core::ids::{PackName, SessionHash, SessionKey};
use serin_core::pack::PackState;
use serin_core::routing::{CohortId, Pin, seconds};
use serin_core::units::{HoldFor, Timestamp};

use super::Store;
use super::db::{Row, Value, args};
use super::error::{Cause, During, StoreError};

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// The pack.
    pub pack: PackName,
    /// What the app calls it.
    pub key: SessionKey,
    /// What was stamped on it.
    pub cohort: CohortId,
    /// When.
    pub pinned_at: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Raw observations.
    pub observations: u64,
    /// Sessions.
    pub sessions: u64,
    /// Units of rollouts that are over.
    pub units: u64,
    /// Slots of time that were joined to longer ones.
    pub slots: u64,
    /// Conversation samples past their expiry.
    pub samples: u64,
    /// Notes about the judgement of sessions.
    pub verdicts: u64,
}

/// New sessions that a rate is taken from at most; at high rates they span seconds, at low ones hours.
const RATED_SESSIONS: i64 = 10_000;
/// New sessions below which an hour says too little about a rate, and then a day.
const LEAST_RATED: u64 = 30;
/// New sessions below which nothing is said about a rate.
const FEWEST_RATED: u64 = 10;

/// Pins that are read at a time.
const PAGE: i64 = 10_000;
/// Rows that are deleted in one transaction, so that no other write waits long.
const DELETED_AT_ONCE: i64 = 5_000;

const READ: &str = "read session";
const READ_PINS: &str = "read the pins of sessions seen since";
const READ_RATE: &str = "read the rate of new sessions of";
const EXPIRE: &str = "forget what is older than";

impl Store {
    /// Tells of every pin whose session was seen since a point in time, and returns how many there are.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; pins told until then are as stored.
    pub async fn pins(
        &self,
        seen_since: Timestamp,
        tell: &mut (dyn FnMut(SessionHash, Pin) + Send),
    ) -> Result<u64, StoreError> {
        let sql = "SELECT key_hash, cohort, pinned_at, last_seen FROM session \
                   WHERE pinned = 1 AND last_seen >= $1 AND key_hash > $2 ORDER BY key_hash LIMIT $3";
        let mut after = Value::Bytes(Vec::new());
        let mut count = 0;
        loop {
            let rows =
                self.db.fetch(sql, args![seen_since, after, PAGE]).await.during(READ_PINS, &seen_since)?;
            let Some(last) = rows.last() else { return Ok(count) };
            after = Value::from(last.hash(0).during(READ_PINS, &seen_since)?);
            for row in &rows {
                let read = || -> Result<(SessionHash, Pin), Cause> {
                    let (pinned_at, last_seen) = (seconds(row.time(2)?), seconds(row.time(3)?));
                    Ok((row.hash(0)?, Pin { cohort: row.cohort(1)?, pinned_at, last_seen }))
                };
                let (hash, pin) = read().during(READ_PINS, &seen_since)?;
                tell(hash, pin);
                count += 1;
            }
        }
    }

    /// A session; nothing where it was never pinned or is forgotten.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn session(&self, hash: SessionHash) -> Result<Option<StoredSession>, StoreError> {
        let id = format!("{:032x}", hash.0);
        let sql = "SELECT pack, session_key, cohort, pinned_at, last_seen FROM session \
                   WHERE key_hash = $1 AND session_key <> ''";
        let rows = self.db.fetch(sql, args![hash]).await.during(READ, &id)?;
        let read = |row: &Row| -> Result<StoredSession, Cause> {
            Ok(StoredSession {
                pack: PackName::parse(&row.text(0)?)?,
                key: SessionKey::parse(&row.text(1)?)?,
                cohort: row.cohort(2)?,
                pinned_at: row.time(3)?,
                last_seen: row.time(4)?,
            })
        };
        rows.first().map(read).transpose().during(READ, &id)
    }

    /// The cohort that a late outcome of a session counts for: the one it was last exposed to.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn attribution(&self, hash: SessionHash) -> Result<Option<CohortId>, StoreError> {
        Ok(self.session(hash).await?.map(|session| session.cohort))
    }

    /// New sessions of a pack per second: over the last hour, or over the last day where the hour had fewer than
    /// 30; nothing where the day had fewer than 10.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn session_rate(&self, pack: &PackName, now: Timestamp) -> Result<Option<f64>, StoreError> {
        let hour = self.rate_since(pack, HoldFor::from_hours(1), now).await?;
        let (sessions, rate) = match hour {
            (sessions, rate) if sessions >= LEAST_RATED => (sessions, rate),
            _ => self.rate_since(pack, HoldFor::from_hours(24), now).await?,
        };
        Ok((sessions >= FEWEST_RATED && rate > 0.0).then_some(rate))
    }

    /// New sessions within a time, and how many that is per second.
    #[expect(clippy::cast_precision_loss, reason = "at most ten thousand")]
    async fn rate_since(
        &self,
        pack: &PackName,
        window: HoldFor,
        now: Timestamp,
    ) -> Result<(u64, f64), StoreError> {
        let since = window.before(now);
        let recent = "SELECT COUNT(*), MIN(pinned_at) FROM (SELECT pinned_at FROM session \
                      WHERE pack = $1 AND pinned_at >= $2 ORDER BY pinned_at DESC LIMIT $3) AS recent";
        let rows = self.db.fetch(recent, args![pack, since, RATED_SESSIONS]).await.during(READ_RATE, pack)?;
        let Some(row) = rows.first() else { return Ok((0, 0.0)) };
        let sessions = row.count(0).during(READ_RATE, pack)?;
        if sessions == 0 {
            return Ok((0, 0.0));
        }
        let first = row.time(1).during(READ_RATE, pack)?;
        let earlier = "SELECT pinned_at FROM session WHERE pack = $1 AND pinned_at < $2 LIMIT 1";
        let is_full = sessions >= RATED_SESSIONS.unsigned_abs();
        // A pack that is younger than the window has had no chance to fill it.
        let is_young =
            is_full || self.db.fetch(earlier, args![pack, since]).await.during(READ_RATE, pack)?.is_empty();
        let span = if is_young { HoldFor::between(first, now) } else { window };
        Ok((sessions, sessions as f64 / span.secs_f64().max(1.0)))
    }

    /// Forgets raw observations, sessions and units of ended rollouts that are older than `retention`,
    /// and joins old slots of time.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; what is forgotten until then stays so.
    pub async fn expire(&self, now: Timestamp, retention: HoldFor) -> Result<Expired, StoreError> {
        let before = retention.before(now);
        let unseen_since = retention.max(self.longest_idle_timeout().await?).before(now);
        let observations = "DELETE FROM observation WHERE (pack, id) IN \
                            (SELECT pack, id FROM observation WHERE started_at < $1 LIMIT $2)";
        // Whose unit is kept counts once, whenever it comes back: its row stays, without its name.
        let counted = "UPDATE session SET session_key = '', pinned = 0 WHERE key_hash IN \
                       (SELECT key_hash FROM session WHERE last_seen < $1 AND session_key <> '' AND EXISTS \
                        (SELECT 1 FROM rollout WHERE rollout.pack = session.pack \
                         AND session.counted_in IN (rollout.id, rollout.id || '-watch') \
                         AND (rollout.active = 1 OR rollout.ended_at >= $3)) LIMIT $2)";
        let sessions = "DELETE FROM session WHERE key_hash IN \
                        (SELECT key_hash FROM session WHERE last_seen < $1 AND session_key <> '' LIMIT $2)";
        let nameless = "DELETE FROM session WHERE key_hash IN (SELECT key_hash FROM rollout \
                        JOIN session ON session.counted_in IN (rollout.id, rollout.id || '-watch') \
                        AND session.session_key = '' \
                        WHERE rollout.active = 0 AND rollout.ended_at < $1 LIMIT $2)";
        let units = "DELETE FROM unit WHERE (rollout, assigned_at, key_hash) IN \
                     (SELECT unit.rollout, unit.assigned_at, unit.key_hash FROM rollout \
                      JOIN unit ON unit.rollout IN (rollout.id, rollout.id || '-watch') \
                      WHERE rollout.active = 0 AND rollout.ended_at < $1 LIMIT $2)";
        let samples =
            "DELETE FROM sample WHERE id IN (SELECT id FROM sample WHERE expires_at <= $1 LIMIT $2)";
        let verdicts = "DELETE FROM verdict WHERE (rollout, outcome, key_hash, cohort) IN \
                        (SELECT verdict.rollout, outcome, key_hash, cohort FROM verdict \
                         JOIN rollout ON rollout.id = verdict.rollout \
                         WHERE rollout.active = 0 AND rollout.ended_at < $1 LIMIT $2)";
        self.delete(nameless, before, None).await?;
        Ok(Expired {
            observations: self.delete(observations, before, None).await?,
            sessions: self.delete(counted, unseen_since, Some(before)).await?
                + self.delete(sessions, unseen_since, None).await?,
            units: self.delete(units, before, None).await?,
            samples: self.delete(samples, now, None).await?,
            verdicts: self.delete(verdicts, before, None).await?,
            slots: self.join_slots(now).await?,
        })
    }

    /// A pin that may still be live is kept, however short the retention is.
    async fn longest_idle_timeout(&self) -> Result<HoldFor, StoreError> {
        let rows = self.db.fetch("SELECT state FROM pack", args![]).await.during(READ, &"*")?;
        let mut timeouts =
            rows.iter().map(|row| row.json(0).map(|pack: PackState| pack.sessions.idle_timeout));
        timeouts
            .try_fold(HoldFor::ZERO, |longest, timeout| timeout.map(|t| longest.max(t)))
            .during(READ, &"*")
    }

    /// Runs a statement that deletes until nothing is left; its arguments are the time before which it deletes, how
    /// many rows at once, and the time since which something is kept, if there is one.
    async fn delete(
        &self,
        sql: &'static str,
        before: Timestamp,
        kept_since: Option<Timestamp>,
    ) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let mut tx = self.db.begin().await.during(EXPIRE, &before)?;
            let mut args = args![before, DELETED_AT_ONCE];
            args.extend(kept_since.map(Value::from));
            let count = tx.execute(sql, args).await.during(EXPIRE, &before)?;
            tx.commit().await.during(EXPIRE, &before)?;
            deleted += count;
            if count < DELETED_AT_ONCE.unsigned_abs() {
                return Ok(deleted);
            }
        }
    }
}
