//! Conversation samples: bounded for each version of a pack, and gone at their expiry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serin_core::ids::{PackName, RolloutId, SessionHash, SessionKey, Version};
use serin_core::judge::QUIET;
use serin_core::metric::Signal;
use serin_core::observation::Fact;
use serin_core::routing::{CohortId, Variant};
use serin_core::units::{HoldFor, Timestamp};

use super::Store;
use super::db::{Row, args, json, row};
use super::error::{Cause, During, StoreError};
use super::rows::ManyRows;
use crate::samples::{Sample, SampleSignal};

/// Which samples are read, newest first.
#[derive(Debug, Clone, Default)]
pub struct SampleFilter {
    /// Only those of a rollout.
    pub rollout: Option<RolloutId>,
    /// Only those of one side of a comparison.
    pub variant: Option<Variant>,
    /// Only those of a segment.
    pub segment: Option<String>,
    /// Only those with a signal.
    pub signal: Option<SampleSignal>,
    /// Only those behind one in the order of the list: its time and its id.
    pub behind: Option<(Timestamp, String)>,
    /// At most so many.
    pub limit: u32,
}

/// What became of samples.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    /// Samples that are stored.
    pub stored: u64,
    /// Older ones that went, because there were too many.
    pub displaced: u64,
    /// Those of them that went before a judge could read them, of each rollout: their session was under way, or quiet
    /// for less than [`QUIET`] when the newest sample was taken.
    pub early: BTreeMap<RolloutId, u64>,
}

/// Reads a session of a pack as a member of a cohort, in the order in which it was said.
pub(super) const READ_SESSION: &str = "SELECT id, version, variant, rollout, segment, key_hash, session_key, \
    cohort, at, signals, body FROM sample WHERE pack = $1 AND key_hash = $2 AND cohort = $3 AND expires_at > $4 \
    ORDER BY at, id";

const SAVE: &str = "save samples of";
const READ: &str = "read the samples of";
const READ_OUTCOMES: &str = "read the outcomes of a session of";
const SHORTEN: &str = "shorten the expiry of samples to";

impl Store {
    /// Stores samples; of each version of a pack the newest `limit` stay.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; nothing is stored then.
    pub async fn save_samples(
        &self,
        samples: &[Sample],
        expiry: HoldFor,
        limit: usize,
    ) -> Result<Saved, StoreError> {
        static INSERT: LazyLock<ManyRows<13>> = LazyLock::new(|| {
            let head = "INSERT INTO sample (id, pack, version, variant, rollout, segment, key_hash, session_key, \
                        cohort, at, expires_at, signals, body) VALUES";
            ManyRows::new(head, "ON CONFLICT (id) DO NOTHING RETURNING id")
        });
        let versions: BTreeSet<(&PackName, &Version)> =
            samples.iter().map(|sample| (&sample.pack, &sample.version)).collect();
        let what = samples.first().map_or_else(String::new, |sample| sample.pack.to_string());
        let mut tx = self.db.begin().await.during(SAVE, &what)?;
        let values = |sample: &Sample| {
            row![
                sample.id.as_str(),
                &sample.pack,
                &sample.version,
                sample.variant.map(|variant| variant.to_string()),
                sample.rollout.as_ref().map(ToString::to_string),
                sample.segment.clone(),
                sample.hash,
                &sample.key,
                sample.cohort,
                sample.at,
                expiry.after(sample.at),
                signals(&sample.signals),
                json(&sample.said),
            ]
        };
        let inserted = INSERT.fetch(&mut tx, samples, values).await.during(SAVE, &what)?;
        let stored = u64::try_from(inserted.len()).unwrap_or(u64::MAX);
        let mut saved = Saved { stored, ..Saved::default() };
        let newest = samples.iter().map(|sample| sample.at).max().unwrap_or(Timestamp::MIN);
        for (pack, version) in versions {
            let sql = "SELECT COUNT(*) FROM sample WHERE pack = $1 AND version = $2";
            let rows = tx.fetch(sql, args![pack, version]).await.during(SAVE, &what)?;
            let count = rows.first().map_or(Ok(0), |row| row.count(0)).during(SAVE, &what)?;
            let excess = count.saturating_sub(u64::try_from(limit).unwrap_or(u64::MAX));
            if excess > 0 {
                let sql = "SELECT gone.rollout, COUNT(*) FROM \
                           (SELECT rollout, key_hash, cohort FROM sample WHERE pack = $1 AND version = $2 \
                            ORDER BY at, id LIMIT $3) AS gone \
                           WHERE gone.rollout IS NOT NULL AND EXISTS (SELECT 1 FROM sample WHERE sample.pack = $1 \
                           AND sample.key_hash = gone.key_hash AND sample.cohort = gone.cohort AND sample.at > $4) \
                           GROUP BY gone.rollout";
                let args = args![pack, version, excess, QUIET.before(newest)];
                for row in tx.fetch(sql, args).await.during(SAVE, &what)? {
                    let early = |row: &Row| Ok::<_, Cause>((RolloutId::parse(&row.text(0)?)?, row.count(1)?));
                    let (rollout, count) = early(&row).during(SAVE, &what)?;
                    *saved.early.entry(rollout).or_default() += count;
                }
                let sql = "DELETE FROM sample WHERE id IN \
                           (SELECT id FROM sample WHERE pack = $1 AND version = $2 ORDER BY at, id LIMIT $3)";
                saved.displaced += tx.execute(sql, args![pack, version, excess]).await.during(SAVE, &what)?;
            }
        }
        tx.commit().await.during(SAVE, &what)?;
        Ok(saved)
    }

    /// Samples of a pack that have not expired, newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn samples(
        &self,
        pack: &PackName,
        filter: &SampleFilter,
        now: Timestamp,
    ) -> Result<Vec<Sample>, StoreError> {
        let sql = "SELECT id, version, variant, rollout, segment, key_hash, session_key, cohort, at, signals, body \
                   FROM sample WHERE pack = $1 AND expires_at > $2 \
                   AND ($3 IS NULL OR rollout = $3) AND ($4 IS NULL OR variant = $4) \
                   AND ($5 IS NULL OR segment = $5) AND ($6 IS NULL OR signals LIKE $6) \
                   AND (at < $7 OR (at = $7 AND id < $8)) ORDER BY at DESC, id DESC LIMIT $9";
        let behind = filter.behind.clone();
        let (before, id) = behind.unwrap_or((Timestamp::MAX, String::new()));
        let args = args![
            pack,
            now,
            filter.rollout.as_ref().map(ToString::to_string),
            filter.variant.map(|variant| variant.to_string()),
            filter.segment.clone(),
            filter.signal.map(|signal| format!("%,{},%", signal.as_str())),
            before,
            id,
            i64::from(filter.limit),
        ];
        let rows = self.db.fetch(sql, args).await.during(READ, pack)?;
        rows.iter().map(|row| sample(pack, row)).collect::<Result<_, Cause>>().during(READ, pack)
    }

    /// What was reported of a session as a member of its cohort: by name, the latest value of each.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn outcomes(
        &self,
        pack: &PackName,
        hash: SessionHash,
        cohort: CohortId,
    ) -> Result<BTreeMap<String, f64>, StoreError> {
        let sql = "SELECT body FROM observation WHERE key_hash = $1 AND cohort = $2 AND kind = 2 ORDER BY started_at";
        let rows = self.db.fetch(sql, args![hash, cohort]).await.during(READ_OUTCOMES, pack)?;
        let mut outcomes = BTreeMap::new();
        for row in &rows {
            if let Fact::Outcome(outcome) = row.json(0).during(READ_OUTCOMES, pack)? {
                outcomes.extend(name(&outcome.signal).map(|name| (name, outcome.value)));
            }
        }
        Ok(outcomes)
    }

    /// Lets samples that are stored expire no later than a length of time after they were taken.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn shorten_samples(&self, expiry: HoldFor) -> Result<u64, StoreError> {
        let microseconds = expiry.millis().saturating_mul(1_000);
        let sql = "UPDATE sample SET expires_at = at + $1 WHERE expires_at > at + $1";
        let mut tx = self.db.begin().await.during(SHORTEN, &expiry)?;
        let count = tx.execute(sql, args![microseconds]).await.during(SHORTEN, &expiry)?;
        tx.commit().await.during(SHORTEN, &expiry)?;
        Ok(count)
    }
}

/// Signals between commas, so that each can be looked for.
fn signals(signals: &[SampleSignal]) -> String {
    signals.iter().fold(",".to_owned(), |text, signal| text + signal.as_str() + ",")
}

pub(super) fn sample(pack: &PackName, row: &Row) -> Result<Sample, Cause> {
    let variant = match row.maybe_text(2)?.as_deref() {
        None => None,
        Some("stable") => Some(Variant::Stable),
        Some("canary") => Some(Variant::Canary),
        Some(other) => return Err(format!("{other:?} is no variant").into()),
    };
    let words = row.text(9)?;
    let words = words.split(',').filter(|word| !word.is_empty());
    Ok(Sample {
        id: row.text(0)?,
        pack: pack.clone(),
        version: Version::parse(&row.text(1)?)?,
        variant,
        rollout: row.maybe_text(3)?.map(|id| RolloutId::parse(&id)).transpose()?,
        segment: row.maybe_text(4)?,
        hash: row.hash(5)?,
        key: SessionKey::parse(&row.text(6)?)?,
        cohort: row.cohort(7)?,
        at: row.time(8)?,
        signals: words
            .map(|word| SampleSignal::parse(word).ok_or_else(|| format!("{word:?} is no signal").into()))
            .collect::<Result<_, Cause>>()?,
        said: row.json(10)?,
    })
}

/// The name under which an outcome is reported; nothing for what is no outcome.
fn name(signal: &Signal) -> Option<String> {
    match signal {
        Signal::Completion => Some("task_completion".to_owned()),
        Signal::Escalation => Some("escalation".to_owned()),
        Signal::Satisfaction => Some("user_satisfaction".to_owned()),
        Signal::Sentiment => Some("sentiment".to_owned()),
        Signal::Custom(name) => Some(name.clone()),
        Signal::Success
        | Signal::Latency
        | Signal::Ttft
        | Signal::InputTokens
        | Signal::OutputTokens
        | Signal::Cost
        | Signal::Refusal
        | Signal::Truncated
        | Signal::Empty
        | Signal::InvalidFormat
        | Signal::RepeatedQuestion
        | Signal::ToolCalls
        | Signal::ResponseLength
        | Signal::Turns => None,
    }
}
