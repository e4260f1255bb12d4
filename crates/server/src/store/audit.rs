//! The audit log: append only, each entry chained to the one before.

use std::collections::BTreeSet;

use serin_core::audit::{Action, AuditEntry, AuditFact, BrokenChain, Chain, ChainHash, Noted};
use serin_core::ids::{PackName, RolloutId};

use super::Store;
use super::db::{Row, Tx, args};
use super::error::{Cause, During, StoreError, VerifyError};

/// Which entries are listed, oldest first unless asked for otherwise.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only those of a pack.
    pub pack: Option<PackName>,
    /// Only those of a rollout; name its pack as well, by which entries are found.
    pub rollout: Option<RolloutId>,
    /// Only those of an actor, in full.
    pub actor: Option<String>,
    /// Only those of an action, such as `rolled_back`.
    pub action: Option<String>,
    /// Only those with a larger number.
    pub after: u64,
    /// Only those with a smaller number.
    pub before: Option<u64>,
    /// From the newest to the oldest.
    pub newest_first: bool,
    /// At most so many.
    pub limit: Option<u32>,
}

const READ: &str = "read the audit log of";
const APPEND: &str = "append to the audit log of";
/// Entries that are verified at a time.
const PAGE: u32 = 1_000;

/// The entries that a filter lets through; entries of one pack are found by its name.
macro_rules! listed {
    ($pack:literal, $order:literal) => {
        concat!(
            "SELECT seq, at, pack, rollout, revision, actor, action, reason, evidence, prev, hash, source, key_id FROM audit \
             WHERE seq > $1 AND seq < $2 AND ",
            $pack,
            " AND ($4 IS NULL OR rollout = $4) AND ($5 IS NULL OR actor = $5) AND ($6 IS NULL OR action = $6) \
             ORDER BY seq ",
            $order,
            " LIMIT $7"
        )
    };
}
const OF_ALL: &str = listed!("$3 IS NULL", "ASC");
const OF_ALL_NEWEST_FIRST: &str = listed!("$3 IS NULL", "DESC");
const OF_PACK: &str = listed!("pack = $3", "ASC");
const OF_PACK_NEWEST_FIRST: &str = listed!("pack = $3", "DESC");

impl Store {
    /// Entries of the audit log.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let sql = match (&filter.pack, filter.newest_first) {
            (None, false) => OF_ALL,
            (None, true) => OF_ALL_NEWEST_FIRST,
            (Some(_), false) => OF_PACK,
            (Some(_), true) => OF_PACK_NEWEST_FIRST,
        };
        let pack = filter.pack.as_ref().map(ToString::to_string);
        let id = pack.clone().unwrap_or_else(|| "*".to_owned());
        let args = args![
            filter.after,
            filter.before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX)),
            pack,
            filter.rollout.as_ref().map(ToString::to_string),
            filter.actor.clone(),
            filter.action.clone(),
            filter.limit.map_or(i64::MAX, i64::from)
        ];
        let rows = self.db.fetch(sql, args).await.during(READ, &id)?;
        rows.iter().map(entry).collect::<Result<_, Cause>>().during(READ, &id)
    }

    /// The number and hash of the last entry; 0 and the genesis hash where there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn audit_tail(&self) -> Result<(u64, ChainHash), StoreError> {
        let rows = self.db.fetch(TAIL, args![]).await.during(READ, &"*")?;
        tail(&rows).during(READ, &"*")
    }

    /// The last entry that was written, as it was noted beside the log.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn audit_head(&self) -> Result<Noted, StoreError> {
        let rows = self.db.fetch(HEAD, args![]).await.during(READ, &"*")?;
        let (seq, hash) = tail(&rows).during(READ, &"*")?;
        Ok(Noted { seq, hash })
    }

    /// Records facts about a pack that change nothing else.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; nothing is recorded then.
    pub async fn record(&self, pack: &PackName, facts: &[AuditFact]) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await.during(APPEND, pack)?;
        append(&mut tx, pack.as_str(), facts).await?;
        tx.commit().await.during(APPEND, pack)
    }

    /// The packs whose last entry about the break-glass file says that it forces them to stable.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn forced_packs(&self) -> Result<BTreeSet<PackName>, StoreError> {
        // In the words of its index, which is found by them.
        let sql = "SELECT pack, action FROM audit \
                   WHERE action IN ('forced_stable', 'forced_stable_cleared') ORDER BY seq";
        let rows = self.db.fetch(sql, args![]).await.during(READ, &"*")?;
        let mut forced = BTreeSet::new();
        for row in &rows {
            let (pack, action) = forced_entry(row).during(READ, &"*")?;
            if action == Action::ForcedStable.as_str() {
                forced.insert(pack);
            } else {
                forced.remove(&pack);
            }
        }
        Ok(forced)
    }

    /// Checks every entry of the audit log, its end, that it holds what was `noted` elsewhere, and that its
    /// indexes say the same; tells the last entry.
    ///
    /// # Errors
    /// [`VerifyError::Broken`] names the first entry that is not the one that was written.
    pub async fn verify_audit(&self, noted: Option<Noted>) -> Result<Noted, VerifyError> {
        let mut chain = Chain::new(Noted::GENESIS, noted)?;
        let mut after = i64::MIN;
        loop {
            let args = args![after, i64::from(PAGE)];
            let rows = self.db.fetch(EVERYTHING, args).await.during(READ, &"*")?;
            for row in &rows {
                // What does not read back as an entry is not what was written.
                let entry = entry(row).map_err(|_| BrokenChain::Changed(chain.last().seq + 1))?;
                chain.follow(&entry)?;
            }
            match rows.last() {
                Some(last) => {
                    after = last.int(0).map_err(|_| BrokenChain::Changed(chain.last().seq + 1))?;
                }
                None if self.ends_with(&chain).await? => break,
                // Something was written since the last row was read.
                None => {}
            }
        }
        match self.db.damage_of("audit").await.during(READ, &"*")? {
            None => Ok(chain.last()),
            Some(damage) => Err(BrokenChain::Damaged(damage).into()),
        }
    }

    /// Whether a chain ends where the log does; an error when it should and does not.
    async fn ends_with(&self, chain: &Chain) -> Result<bool, VerifyError> {
        let last = chain.last();
        let rows = self.db.fetch(HEAD, args![]).await.during(READ, &"*")?;
        let lost = BrokenChain::WrongEnd { found: last.seq, written: 0 };
        let (seq, hash) = tail(&rows).map_err(|_| lost)?;
        let behind = i64::try_from(last.seq).unwrap_or(i64::MAX);
        if seq > last.seq
            && !self.db.fetch(EVERYTHING, args![behind, 1_i64]).await.during(READ, &"*")?.is_empty()
        {
            return Ok(false);
        }
        chain.end(Noted { seq, hash })?;
        Ok(true)
    }
}

const TAIL: &str = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
const HEAD: &str = "SELECT seq, hash FROM audit_head WHERE one = 1";
/// Also rows that no entry can have.
const EVERYTHING: &str = "SELECT seq, at, pack, rollout, revision, actor, action, reason, evidence, prev, hash, source, key_id \
                          FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";

/// Links facts to the end of the chain, inside the transaction that makes them true.
pub(super) async fn append(
    tx: &mut Tx,
    pack: &str,
    facts: &[AuditFact],
) -> Result<Vec<AuditEntry>, StoreError> {
    // Not behind the last row: entries that somebody took away at the end leave a gap.
    let rows = tx.fetch(HEAD, args![]).await.during(APPEND, &pack)?;
    let (mut seq, mut prev) = tail(&rows).during(APPEND, &pack)?;
    let mut entries = Vec::with_capacity(facts.len());
    for fact in facts {
        let entry = AuditEntry::link(seq, prev, pack, fact);
        (seq, prev) = (entry.seq, entry.hash);
        let sql = "INSERT INTO audit \
                   (seq, at, pack, rollout, revision, actor, action, reason, evidence, prev, hash, source, key_id) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        let args = args![
            entry.seq,
            entry.at_us,
            entry.pack.as_str(),
            entry.rollout.clone(),
            entry.revision,
            entry.actor.as_str(),
            entry.action.as_str(),
            entry.reason.as_str(),
            entry.evidence.as_str(),
            entry.prev.to_string(),
            entry.hash.to_string(),
            entry.source.clone(),
            entry.key.clone(),
        ];
        tx.execute(sql, args).await.during(APPEND, &pack)?;
        entries.push(entry);
    }
    if !facts.is_empty() {
        let sql = "INSERT INTO audit_head (one, seq, hash) VALUES (1, $1, $2) \
                   ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, hash = excluded.hash";
        tx.execute(sql, args![seq, prev.to_string()]).await.during(APPEND, &pack)?;
    }
    Ok(entries)
}

fn forced_entry(row: &Row) -> Result<(PackName, String), Cause> {
    Ok((PackName::parse(&row.text(0)?)?, row.text(1)?))
}

fn tail(rows: &[Row]) -> Result<(u64, ChainHash), Cause> {
    match rows.first() {
        Some(row) => Ok((row.count(0)?, chain_hash(row, 1)?)),
        None => Ok((0, ChainHash::GENESIS)),
    }
}

fn chain_hash(row: &Row, column: usize) -> Result<ChainHash, Cause> {
    Ok(ChainHash::parse(&row.text(column)?).ok_or("a hash has 64 hexadecimal digits")?)
}

fn entry(row: &Row) -> Result<AuditEntry, Cause> {
    Ok(AuditEntry {
        seq: row.count(0)?,
        at_us: row.int(1)?,
        pack: row.text(2)?,
        rollout: row.maybe_text(3)?,
        revision: row.count(4)?,
        actor: row.text(5)?,
        action: row.text(6)?,
        reason: row.text(7)?,
        evidence: row.text(8)?,
        prev: chain_hash(row, 9)?,
        hash: chain_hash(row, 10)?,
        source: row.maybe_text(11)?,
        key: row.maybe_text(12)?,
    })
}
