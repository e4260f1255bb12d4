//! Contacts and facts, many in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use serin_core::aggregate::Tally;
use serin_core::ids::{PackName, RolloutId, SessionHash};
use serin_core::observation::Fact;
use serin_core::routing::{Cohort, CohortId, Variant};
use serin_core::units::Timestamp;

use super::Store;
use super::db::{Tx, Value, args, json, row};
use super::error::{Cause, During, StoreError};
use super::rows::ManyRows;
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
        let stamps = self.stamps(batch).await?;
        match self.write_as(batch, &stamps, Known::Nothing).await? {
            Some(written) => Ok(written),
            None => self
                .write_as(batch, &stamps, Known::Some)
                .await
                .map(|written| written.expect("a batch that is asked about row by row is written")),
        }
    }

    /// Writes a batch; nothing when something of it was known against what was supposed.
    async fn write_as(
        &self,
        batch: &Batch,
        stamps: &Stamps<'_>,
        known: Known,
    ) -> Result<Option<Written>, StoreError> {
        let what = format!("{} contacts and {} facts", batch.contacts.len(), batch.facts.len());
        let mut tx = self.db.begin().await.during(WRITE, &what)?;
        let mut written = Written::default();
        let mut slots: BTreeMap<SlotKey<'_>, Tally> = BTreeMap::new();
        let mut assigned: BTreeMap<(&RolloutId, CohortId), u64> = BTreeMap::new();

        let stamped: Vec<Stamped<'_>> = batch
            .contacts
            .iter()
            .map(|contact| Stamped { contact, cohort: stamps.get(&(&*contact.pack, contact.cohort)) })
            .collect();
        let Some(news) = save_contacts(&mut tx, &stamped, known).await.during(WRITE, &what)? else {
            return Ok(None);
        };
        for contact in news {
            let Stamped { contact: Contact { pack, cohort, at, .. }, cohort: stamp } = contact;
            if let Some(rollout) = contact.rollout() {
                written.units += 1;
                *assigned.entry((rollout, *cohort)).or_default() += 1;
            }
            slots.entry(slot_key(pack, stamp, *at)).or_default().sessions += 1;
        }
        let Some(receipts) = save_facts(&mut tx, &batch.facts, known).await.during(WRITE, &what)? else {
            return Ok(None);
        };
        for (fact, receipt) in batch.facts.iter().zip(&receipts) {
            if *receipt == Receipt::Duplicate {
                continue;
            }
            let key = || slot_key(&fact.pack, stamps.get(&(&*fact.pack, fact.cohort)), fact.until);
            match &fact.fact {
                Fact::Started => {}
                Fact::Response(response) => slots.entry(key()).or_default().add_response(response),
                Fact::Outcome(outcome) => slots.entry(key()).or_default().add_outcome(outcome),
            }
        }
        written.receipts = receipts;
        let mut seen: BTreeMap<SessionHash, Timestamp> = BTreeMap::new();
        for touch in &batch.touches {
            let last = seen.entry(touch.hash).or_insert(touch.at);
            *last = touch.at.max(*last);
        }

        for ((rollout, cohort), n) in assigned {
            let sql = "INSERT INTO evidence (rollout, cohort, assigned, counters) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT (rollout, cohort) DO UPDATE SET assigned = evidence.assigned + excluded.assigned";
            tx.execute(sql, args![rollout, cohort, n, "{}"]).await.during(WRITE, &what)?;
        }
        merge_slots(&mut tx, &slots).await?;
        touch_sessions(&mut tx, &seen).await.during(WRITE, &what)?;
        tx.commit().await.during(WRITE, &what)?;
        Ok(Some(written))
    }

    /// The cohorts that a batch names.
    ///
    /// One that is not stored was opened by a rollback that took effect while the store was away: it
    /// bears no stamp, and what is seen of it belongs to no rollout.
    async fn stamps<'b>(&self, batch: &'b Batch) -> Result<Stamps<'b>, StoreError> {
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

/// The cohorts that a batch names.
type Stamps<'b> = BTreeMap<(&'b PackName, CohortId), Arc<Cohort>>;

/// What is supposed of the ids and keys of a batch.
///
/// Nearly every batch holds nothing but news. Then it is enough to count the rows that were written; only
/// where some are missing does the database have to say which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// None of them is stored; a batch where that is wrong is not written.
    Nothing,
    /// Some may be.
    Some,
}

/// An assignment, and what was stamped on it.
#[derive(Debug, Clone, Copy)]
struct Stamped<'b> {
    contact: &'b Contact,
    cohort: Option<&'b Arc<Cohort>>,
}

impl<'b> Stamped<'b> {
    /// The rollout that it is part of.
    fn rollout(self) -> Option<&'b RolloutId> {
        Some(&self.cohort?.stamp.as_ref()?.rollout)
    }
}

fn slot_key<'b>(pack: &'b PackName, cohort: Option<&'b Arc<Cohort>>, at: Timestamp) -> SlotKey<'b> {
    SlotKey {
        pack,
        rollout: cohort.and_then(|cohort| cohort.stamp.as_ref()).map(|stamp| &stamp.rollout),
        variant: cohort.map_or(Variant::Stable, |cohort| cohort.variant),
        at: slot_of(at),
    }
}

/// Stores where sessions are pinned, makes them units of evidence of their rollouts, and tells which assignments are
/// news: those of no rollout, and those of a key that counted in none or in another. Nothing when that is not as supposed.
///
/// An assignment that is older than the stored one changes nothing.
async fn save_contacts<'b>(
    tx: &mut Tx,
    contacts: &[Stamped<'b>],
    known: Known,
) -> Result<Option<Vec<Stamped<'b>>>, Cause> {
    // One that repeats where its session counts touches nothing, so that the rows changed are the news.
    const HEAD: &str = "INSERT INTO session (key_hash, pack, session_key, cohort, pinned, pinned_at, last_seen, counted_in) VALUES";
    const TAIL: &str = "ON CONFLICT (key_hash) DO UPDATE SET session_key = excluded.session_key, \
                        cohort = excluded.cohort, pinned = excluded.pinned, pinned_at = excluded.pinned_at, \
                        last_seen = excluded.last_seen, counted_in = CASE WHEN excluded.counted_in = '' \
                        THEN session.counted_in ELSE excluded.counted_in END \
                        WHERE excluded.pinned_at >= session.pinned_at \
                        AND (excluded.counted_in = '' OR excluded.counted_in <> session.counted_in)";
    static SAVE: LazyLock<ManyRows<8>> = LazyLock::new(|| ManyRows::new(HEAD, TAIL));
    static SAVE_AND_TELL: LazyLock<ManyRows<8>> =
        LazyLock::new(|| ManyRows::new(HEAD, &format!("{TAIL} RETURNING key_hash")));
    fn row(contact: &Contact, rollout: Option<&RolloutId>) -> [Value; 8] {
        let Contact { pack, key, hash, cohort, at, pinned } = contact;
        let counted_in = rollout.map_or("", RolloutId::as_str);
        row![*hash, &**pack, key, *cohort, *pinned, *at, *at, counted_in]
    }

    let pieces = without_repeats(contacts, |stamped| stamped.contact.hash);
    if known == Known::Nothing {
        let [contacts] = pieces[..] else { return Ok(None) };
        let saved = SAVE.execute(tx, &by_hash(contacts), |one| row(one.contact, one.rollout())).await?;
        if saved != count_of(contacts) {
            return Ok(None);
        }
        insert_units(tx, contacts).await?;
        return Ok(Some(contacts.to_vec()));
    }
    let mut news = Vec::with_capacity(contacts.len());
    for contacts in pieces {
        let sorted = by_hash(contacts);
        let rows = SAVE_AND_TELL.fetch(tx, &sorted, |one| row(one.contact, one.rollout())).await?;
        let changed: HashSet<SessionHash> = rows.iter().map(|row| row.hash(0)).collect::<Result<_, _>>()?;
        let is_new = |one: &Stamped<'_>| one.rollout().is_none() || changed.contains(&one.contact.hash);
        let again: Vec<Stamped<'_>> = sorted.into_iter().filter(|one| !is_new(one)).collect();
        SAVE.execute(tx, &again, |one| row(one.contact, None)).await?;
        let start = news.len();
        news.extend(contacts.iter().copied().filter(is_new));
        insert_units(tx, &news[start..]).await?;
    }
    Ok(Some(news))
}

/// In the order of the index by hash: neighbours are written together, and processes do not lock each other out.
fn by_hash<'b>(contacts: &[Stamped<'b>]) -> Vec<Stamped<'b>> {
    let mut sorted = contacts.to_vec();
    sorted.sort_unstable_by_key(|one| one.contact.hash);
    sorted
}

/// Makes sessions units of evidence of their rollouts; those of none are passed over.
async fn insert_units(tx: &mut Tx, contacts: &[Stamped<'_>]) -> Result<(), sqlx::Error> {
    static INSERT: LazyLock<ManyRows<6>> = LazyLock::new(|| {
        let head = "INSERT INTO unit (rollout, assigned_at, key_hash, pack, cohort, folded) VALUES";
        ManyRows::new(head, "ON CONFLICT (rollout, assigned_at, key_hash) DO NOTHING")
    });
    let units: Vec<(&Contact, &RolloutId)> =
        contacts.iter().filter_map(|one| Some((one.contact, one.rollout()?))).collect();
    INSERT
        .execute(tx, &units, |(contact, rollout)| {
            row![*rollout, contact.at, contact.hash, &*contact.pack, contact.cohort, 0_i64]
        })
        .await?;
    Ok(())
}

/// Notes when sessions were seen last; the time only rises.
async fn touch_sessions(tx: &mut Tx, seen: &BTreeMap<SessionHash, Timestamp>) -> Result<(), sqlx::Error> {
    static TOUCH: LazyLock<ManyRows<2>> = LazyLock::new(|| {
        let head = "UPDATE session SET last_seen = seen.column2 FROM (VALUES";
        let tail = ") AS seen WHERE session.key_hash = seen.column1 AND session.last_seen < seen.column2";
        ManyRows::new(head, tail)
    });
    let rows: Vec<(SessionHash, Timestamp)> = seen.iter().map(|(hash, at)| (*hash, *at)).collect();
    TOUCH.execute(tx, &rows, |(hash, at)| row![*hash, *at]).await?;
    Ok(())
}

/// How facts are told apart in the table.
const STARTED: i64 = 0;
const ENDED: i64 = 1;
const OUTCOME: i64 = 2;

/// Stores facts; one counts if it is the first with its id, or the end of a request that had only started.
/// Nothing when that is not as supposed.
async fn save_facts(tx: &mut Tx, facts: &[SessionFact], known: Known) -> Result<Option<Vec<Receipt>>, Cause> {
    const HEAD: &str =
        "INSERT INTO observation (pack, id, key_hash, cohort, kind, started_at, ended_at, body) VALUES";
    const UPDATE: &str = "ON CONFLICT (pack, id) DO UPDATE SET kind = excluded.kind, \
                          ended_at = excluded.ended_at, body = excluded.body";
    static SAVE: LazyLock<ManyRows<8>> = LazyLock::new(|| ManyRows::new(HEAD, &if_it_ends()));
    static SAVE_AND_TELL: LazyLock<ManyRows<8>> =
        LazyLock::new(|| ManyRows::new(HEAD, &format!("{} RETURNING pack, id", if_it_ends())));
    fn if_it_ends() -> String {
        format!("{UPDATE} WHERE observation.kind = {STARTED} AND excluded.kind = {ENDED}")
    }
    let values = |fact: &SessionFact| {
        let kind = match &fact.fact {
            Fact::Started => STARTED,
            Fact::Response(_) => ENDED,
            Fact::Outcome(_) => OUTCOME,
        };
        let (pack, id, body) = (&*fact.pack, fact.id.as_str(), json(&fact.fact));
        row![pack, id, fact.hash, fact.cohort, kind, fact.at, fact.until, body]
    };
    let pieces = without_repeats(facts, |fact| (fact.pack.as_str(), fact.id.as_str()));
    match (known, &pieces[..]) {
        (Known::Nothing, [facts]) => {
            let saved = SAVE.execute(tx, facts, values).await?;
            return Ok((saved == count_of(facts)).then(|| vec![Receipt::Accepted; facts.len()]));
        }
        (Known::Nothing, _) => return Ok(None),
        (Known::Some, _) => {}
    }
    let mut receipts = Vec::with_capacity(facts.len());
    for facts in pieces {
        let rows = SAVE_AND_TELL.fetch(tx, facts, values).await?;
        let accepted: BTreeSet<(String, String)> =
            rows.iter().map(|row| Ok((row.text(0)?, row.text(1)?))).collect::<Result<_, Cause>>()?;
        receipts.extend(facts.iter().map(|fact| {
            let is_new = accepted.contains(&(fact.pack.to_string(), fact.id.clone()));
            if is_new { Receipt::Accepted } else { Receipt::Duplicate }
        }));
    }
    Ok(Some(receipts))
}

fn count_of<T>(rows: &[T]) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}

/// Cuts rows into pieces none of which names anything twice: such rows are judged one after the other.
fn without_repeats<'r, T, N: Eq + Hash>(rows: &'r [T], name: impl Fn(&'r T) -> N) -> Vec<&'r [T]> {
    let mut pieces = Vec::new();
    let mut named: HashSet<N> = HashSet::with_capacity(rows.len());
    let mut start = 0;
    for (index, row) in rows.iter().enumerate() {
        if !named.insert(name(row)) {
            pieces.push(&rows[start..index]);
            named = HashSet::from([name(row)]);
            start = index;
        }
    }
    pieces.push(&rows[start..]);
    pieces
}
