//! Contacts and facts, many in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_core::aggregate::Tally;
use serin_core::ids::{PackName, RolloutId, SessionHash};
use serin_core::observation::Fact;
use serin_core::routing::{Cohort, CohortId, Variant};
use serin_core::units::Timestamp;

use super::Store;
use super::db::{Tx, args, json};
use super::error::{During, StoreError};
use super::tallies::{SlotKey, merge_slots, slot_of};
use crate::signal::{Contact, SessionFact};

/// What is written together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Assignments, in the order in which they were made; they are written before the facts.
    pub contacts: Vec<Contact>,
    /// What was seen.
    pub facts: Vec<SessionFact>,
    /// Sessions that were seen again.
    pub touches: Vec<Touch>,
}

/// A session that was seen again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    /// The session.
    pub hash: SessionHash,
    /// When.
    pub at: Timestamp,
}

/// What became of one fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It is stored and counted.
    Accepted,
    /// A fact with the same id was counted before.
    Duplicate,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// Sessions that are new units of evidence.
    pub units: u64,
    /// One for each fact, in the order of the batch.
    pub receipts: Vec<Receipt>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.contacts.is_empty() && self.facts.is_empty() && self.touches.is_empty()
    }
}

const WRITE: &str = "write a batch of";

impl Store {
    /// Writes a batch in one transaction; durable once this returns.
    ///
    /// A session key is a unit of evidence at most once per rollout, a fact counts once per id, and
    /// the end of a request takes the place of its start.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; nothing is written then.
    pub async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        if batch.is_empty() {
            return Ok(Written::default());
        }
        let what = format!("{} contacts and {} facts", batch.contacts.len(), batch.facts.len());
        let stamps = self.stamps(batch).await?;
        let mut tx = self.db.begin().await.during(WRITE, &what)?;
        let mut written = Written::default();
        let mut slots: BTreeMap<SlotKey, Tally> = BTreeMap::new();
        let mut assigned: BTreeMap<(&RolloutId, CohortId), u64> = BTreeMap::new();
        let mut seen: BTreeMap<SessionHash, Timestamp> = BTreeMap::new();

        for contact in &batch.contacts {
            save_session(&mut tx, contact).await.during(WRITE, &what)?;
            let cohort = stamps.get(&(&*contact.pack, contact.cohort));
            let is_new = match cohort.and_then(|cohort| cohort.stamp.as_ref()) {
                Some(stamp) => {
                    let is_new = insert_unit(&mut tx, contact, &stamp.rollout).await.during(WRITE, &what)?;
                    if is_new {
                        written.units += 1;
                        *assigned.entry((&stamp.rollout, contact.cohort)).or_default() += 1;
                    }
                    is_new
                }
                None => true,
            };
            if is_new {
                let key = slot_key(&contact.pack, cohort, contact.at);
                slots.entry(key).or_default().sessions += 1;
            }
        }
        for fact in &batch.facts {
            let is_new = save_fact(&mut tx, fact).await.during(WRITE, &what)?;
            written.receipts.push(if is_new { Receipt::Accepted } else { Receipt::Duplicate });
            if !is_new {
                continue;
            }
            let key = || slot_key(&fact.pack, stamps.get(&(&*fact.pack, fact.cohort)), fact.until);
            match &fact.fact {
                Fact::Started => saw(&mut seen, fact.hash, fact.at),
                Fact::Response(response) => {
                    saw(&mut seen, fact.hash, fact.at);
                    slots.entry(key()).or_default().add_response(response);
                }
                Fact::Outcome(outcome) => slots.entry(key()).or_default().add_outcome(outcome),
            }
        }
        for touch in &batch.touches {
            saw(&mut seen, touch.hash, touch.at);
        }

        for ((rollout, cohort), n) in assigned {
            let sql = "INSERT INTO evidence (rollout, cohort, assigned, counters) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT (rollout, cohort) DO UPDATE SET assigned = evidence.assigned + excluded.assigned";
            tx.execute(sql, args![rollout, cohort, n, "{}"]).await.during(WRITE, &what)?;
        }
        merge_slots(&mut tx, &slots).await?;
        for (hash, at) in seen {
            let sql = "UPDATE session SET last_seen = $2 WHERE key_hash = $1 AND last_seen < $2";
            tx.execute(sql, args![hash, at]).await.during(WRITE, &what)?;
        }
        tx.commit().await.during(WRITE, &what)?;
        Ok(written)
    }

    /// The cohorts that a batch names.
    ///
    /// One that is not stored was opened by a rollback that took effect while the store was away: it
    /// bears no stamp, and what is seen of it belongs to no rollout.
    async fn stamps<'b>(
        &self,
        batch: &'b Batch,
    ) -> Result<BTreeMap<(&'b PackName, CohortId), Arc<Cohort>>, StoreError> {
        let contacts = batch.contacts.iter().map(|contact| (&*contact.pack, contact.cohort));
        let facts = batch.facts.iter().map(|fact| (&*fact.pack, fact.cohort));
        let mut named = BTreeMap::new();
        for (pack, id) in contacts.chain(facts) {
            if !named.contains_key(&(pack, id))
                && let Some(cohort) = self.cohort(pack, id).await?
            {
                named.insert((pack, id), cohort);
            }
        }
        Ok(named)
    }
}

fn saw(seen: &mut BTreeMap<SessionHash, Timestamp>, hash: SessionHash, at: Timestamp) {
    let last = seen.entry(hash).or_insert(at);
    *last = at.max(*last);
}

fn slot_key(pack: &PackName, cohort: Option<&Arc<Cohort>>, at: Timestamp) -> SlotKey {
    SlotKey {
        pack: pack.clone(),
        rollout: cohort.and_then(|cohort| cohort.stamp.as_ref()).map(|stamp| stamp.rollout.clone()),
        variant: cohort.map_or(Variant::Stable, |cohort| cohort.variant),
        at: slot_of(at),
    }
}

/// Stores where a session is pinned; an assignment that is older than the stored one changes nothing.
async fn save_session(tx: &mut Tx, contact: &Contact) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO session (key_hash, pack, session_key, cohort, pinned, pinned_at, last_seen) \
               VALUES ($1, $2, $3, $4, $5, $6, $6) \
               ON CONFLICT (key_hash) DO UPDATE SET cohort = excluded.cohort, pinned = excluded.pinned, \
               pinned_at = excluded.pinned_at, last_seen = excluded.last_seen \
               WHERE excluded.pinned_at >= session.pinned_at";
    let args = args![contact.hash, &*contact.pack, &contact.key, contact.cohort, contact.pinned, contact.at];
    tx.execute(sql, args).await?;
    Ok(())
}

/// Makes a session a unit of evidence; says whether its key had been none in this rollout.
async fn insert_unit(tx: &mut Tx, contact: &Contact, rollout: &RolloutId) -> Result<bool, sqlx::Error> {
    let sql = "INSERT INTO unit (rollout, key_hash, pack, cohort, assigned_at, folded) VALUES ($1, $2, $3, $4, $5, 0) \
               ON CONFLICT (rollout, key_hash) DO NOTHING";
    let args = args![rollout, contact.hash, &*contact.pack, contact.cohort, contact.at];
    Ok(tx.execute(sql, args).await? == 1)
}

/// How facts are told apart in the table.
const STARTED: i64 = 0;
const ENDED: i64 = 1;
const OUTCOME: i64 = 2;

/// Stores a fact; says whether it counts: it is the first with its id, or the end of a request that had only started.
async fn save_fact(tx: &mut Tx, fact: &SessionFact) -> Result<bool, sqlx::Error> {
    let kind = match &fact.fact {
        Fact::Started => STARTED,
        Fact::Response(_) => ENDED,
        Fact::Outcome(_) => OUTCOME,
    };
    let sql = "INSERT INTO observation (pack, id, key_hash, cohort, kind, started_at, ended_at, body) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
               ON CONFLICT (pack, id) DO UPDATE SET kind = excluded.kind, ended_at = excluded.ended_at, \
               body = excluded.body \
               WHERE observation.kind = $9 AND excluded.kind = $10";
    let args = args![
        &*fact.pack,
        fact.id.as_str(),
        fact.hash,
        fact.cohort,
        kind,
        fact.at,
        fact.until,
        json(&fact.fact),
        STARTED,
        ENDED,
    ];
    Ok(tx.execute(sql, args).await? == 1)
}
