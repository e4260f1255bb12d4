//! Which sessions a judge was asked about, and what came of it; the verdicts themselves are observations.

use serin_core::ids::{PackName, RolloutId, SessionHash};
use serin_core::metric::MetricName;
use serin_core::routing::CohortId;
use serin_core::sample::last_drawn;
use serin_core::units::Timestamp;
use serin_core::weight::Weight;

use super::Store;
use super::db::{Row, Value, args};
use super::error::{Cause, During, StoreError};
use super::samples::{READ_SESSION, sample};
use crate::samples::Sample;

/// An outcome of a rollout that is judged.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// The pack.
    pub pack: &'a PackName,
    /// The rollout.
    pub rollout: &'a RolloutId,
    /// The outcome.
    pub outcome: &'a MetricName,
}

/// Which sessions are due to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// The share of the sessions that is judged, drawn by their hashes.
    pub rate: Weight,
    /// Nothing was said in them since.
    pub quiet: Timestamp,
    /// Those that wait have waited since.
    pub waiting: Timestamp,
    /// The time; what has expired by now is not there.
    pub now: Timestamp,
    /// At most so many.
    pub limit: u32,
}

/// A session that may be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgeable {
    /// The hash of its key.
    pub hash: SessionHash,
    /// What was stamped on it.
    pub cohort: CohortId,
}

/// How far the judgement of a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerdictState {
    /// The judge is being asked.
    Asked,
    /// The judge did not answer, or the server stopped before it did; it is asked again.
    Waiting,
    /// There is a verdict.
    Judged,
    /// There is none, and will be none.
    Failed,
    /// The budget was spent.
    OverBudget,
}

impl VerdictState {
    const ALL: [Self; 5] = [Self::Asked, Self::Waiting, Self::Judged, Self::Failed, Self::OverBudget];

    fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Waiting => "waiting",
            Self::Judged => "judged",
            Self::Failed => "failed",
            Self::OverBudget => "over_budget",
        }
    }
}

/// What came of asking about a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// How far it is.
    pub state: VerdictState,
    /// Why there is no verdict, in one word.
    pub reason: Option<&'static str>,
    /// What it cost, in millionths of a US dollar.
    pub cost_micros: u64,
}

/// What a judge was used for since a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Times that it was asked.
    pub requests: u64,
    /// What it cost, in millionths of a US dollar.
    pub cost_micros: u64,
}

/// What became of the sessions about which a judge was being asked when the server stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resumed {
    /// Sessions that are asked about again.
    pub again: u64,
    /// Sessions that stay without a verdict.
    pub given_up: u64,
}

/// So many sessions of a rollout are this far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictCount {
    /// The outcome.
    pub outcome: MetricName,
    /// How far they are.
    pub state: VerdictState,
    /// Why there is no verdict, in one word.
    pub reason: Option<String>,
    /// How many.
    pub count: u64,
}

const READ: &str = "read the sessions to be judged of";
const WRITE: &str = "note the judgement of a session of";
const RESUME: &str = "take up the sessions that were being judged of";
const COUNT: &str = "count the verdicts of";

impl Store {
    /// Recorded sessions of a rollout that are drawn, quiet and not judged, the longest quiet first.
    ///
    /// Those that are not drawn take no place in the list: however many there are, the others are reached.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn judgeable(&self, judged: Judged<'_>, due: Due) -> Result<Vec<Judgeable>, StoreError> {
        let Some(last) = last_drawn(due.rate) else { return Ok(Vec::new()) };
        // A place in the draw is a part of the hash, and byte strings compare like the numbers that they are.
        let sql = "SELECT key_hash, cohort FROM sample WHERE pack = $1 AND rollout = $2 AND expires_at > $3 \
                   AND substr(key_hash, 5, 8) <= $8 AND NOT EXISTS (SELECT 1 FROM verdict WHERE verdict.rollout = $2 AND verdict.outcome = $4 \
                   AND verdict.key_hash = sample.key_hash AND verdict.cohort = sample.cohort \
                   AND NOT (verdict.state = 'waiting' AND verdict.at <= $5)) \
                   GROUP BY key_hash, cohort HAVING MAX(at) <= $6 ORDER BY MAX(at), key_hash LIMIT $7";
        let args = args![
            judged.pack,
            judged.rollout.as_str(),
            due.now,
            judged.outcome.as_str(),
            due.waiting,
            due.quiet,
            i64::from(due.limit),
            Value::Bytes(last.to_be_bytes().to_vec()),
        ];
        let rows = self.db.fetch(sql, args).await.during(READ, judged.pack)?;
        let judgeable = |row: &Row| Ok(Judgeable { hash: row.hash(0)?, cohort: row.cohort(1)? });
        rows.iter().map(judgeable).collect::<Result<_, Cause>>().during(READ, judged.pack)
    }

    /// What was recorded of a session, in the order in which it was said.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn samples_of_session(
        &self,
        pack: &PackName,
        session: Judgeable,
        now: Timestamp,
    ) -> Result<Vec<Sample>, StoreError> {
        let args = args![pack, session.hash, session.cohort, now];
        let rows = self.db.fetch(READ_SESSION, args).await.during(READ, pack)?;
        rows.iter().map(|row| sample(pack, row)).collect::<Result<_, Cause>>().during(READ, pack)
    }

    /// Notes that the judge is asked about a session, and for the how manieth time; nothing when somebody else was first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; nobody is to be asked then.
    pub async fn claim_verdict(
        &self,
        judged: Judged<'_>,
        session: Judgeable,
        now: Timestamp,
    ) -> Result<Option<u64>, StoreError> {
        let sql = "INSERT INTO verdict (rollout, outcome, key_hash, cohort, pack, at, state, attempts, cost) \
                   VALUES ($1, $2, $3, $4, $5, $6, 'asked', 1, 0) \
                   ON CONFLICT (rollout, outcome, key_hash, cohort) DO UPDATE SET state = 'asked', \
                   at = excluded.at, attempts = verdict.attempts + 1 WHERE verdict.state = 'waiting' \
                   RETURNING attempts";
        let args = args![
            judged.rollout.as_str(),
            judged.outcome.as_str(),
            session.hash,
            session.cohort,
            judged.pack,
            now
        ];
        let mut tx = self.db.begin().await.during(WRITE, judged.pack)?;
        let rows = tx.fetch(sql, args).await.during(WRITE, judged.pack)?;
        tx.commit().await.during(WRITE, judged.pack)?;
        rows.first().map(|row| row.count(0)).transpose().during(WRITE, judged.pack)
    }

    /// Takes up the sessions about which a judge was being asked when the server stopped: they wait to be asked about
    /// again, unless they were asked about `most_attempts` times or their rollout is over.
    ///
    /// Nobody may be asking: what is being asked about looks the same as what was.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; nothing has changed then.
    pub async fn resume_verdicts(&self, most_attempts: u64) -> Result<Resumed, StoreError> {
        let given_up = "UPDATE verdict SET state = 'failed', reason = 'interrupted' WHERE state = 'asked' \
                        AND (attempts >= $1 OR rollout NOT IN (SELECT id FROM rollout WHERE active = 1))";
        let again = "UPDATE verdict SET state = 'waiting', reason = 'interrupted' WHERE state = 'asked'";
        let mut tx = self.db.begin().await.during(RESUME, &"*")?;
        let given_up = tx.execute(given_up, args![most_attempts]).await.during(RESUME, &"*")?;
        let again = tx.execute(again, args![]).await.during(RESUME, &"*")?;
        tx.commit().await.during(RESUME, &"*")?;
        Ok(Resumed { again, given_up })
    }

    /// Notes what came of asking about a session.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn settle_verdict(
        &self,
        judged: Judged<'_>,
        session: Judgeable,
        settled: &Settled,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE verdict SET state = $5, reason = $6, cost = cost + $7 \
                   WHERE rollout = $1 AND outcome = $2 AND key_hash = $3 AND cohort = $4";
        let args = args![
            judged.rollout.as_str(),
            judged.outcome.as_str(),
            session.hash,
            session.cohort,
            settled.state.as_str(),
            settled.reason.map(ToOwned::to_owned),
            settled.cost_micros
        ];
        let mut tx = self.db.begin().await.during(WRITE, judged.pack)?;
        tx.execute(sql, args).await.during(WRITE, judged.pack)?;
        tx.commit().await.during(WRITE, judged.pack)
    }

    /// Notes that sessions are not judged because the budget is spent.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; none of them is noted then.
    pub async fn pass_over(
        &self,
        judged: Judged<'_>,
        sessions: &[Judgeable],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO verdict (rollout, outcome, key_hash, cohort, pack, at, state, attempts, cost) \
                   VALUES ($1, $2, $3, $4, $5, $6, 'over_budget', 0, 0) \
                   ON CONFLICT (rollout, outcome, key_hash, cohort) DO UPDATE SET state = 'over_budget' \
                   WHERE verdict.state = 'waiting'";
        let mut tx = self.db.begin().await.during(WRITE, judged.pack)?;
        for session in sessions {
            let args = args![
                judged.rollout.as_str(),
                judged.outcome.as_str(),
                session.hash,
                session.cohort,
                judged.pack,
                now
            ];
            tx.execute(sql, args).await.during(WRITE, judged.pack)?;
        }
        tx.commit().await.during(WRITE, judged.pack)
    }

    /// What the judge of an outcome was used for since a point in time, in all rollouts of the pack; without sessions
    /// that reached no judge.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn spent_on_verdicts(&self, judged: Judged<'_>, since: Timestamp) -> Result<Spent, StoreError> {
        let sql = "SELECT COALESCE(SUM(attempts), 0), COALESCE(SUM(cost), 0) FROM verdict \
                   WHERE pack = $1 AND outcome = $2 AND at > $3 \
                   AND COALESCE(reason, '') NOT IN ('no_provider', 'unreachable', 'refused')";
        let args = args![judged.pack, judged.outcome.as_str(), since];
        let rows = self.db.fetch(sql, args).await.during(COUNT, judged.pack)?;
        let spent = |row: &Row| Ok::<_, Cause>(Spent { requests: row.count(0)?, cost_micros: row.count(1)? });
        rows.first().map_or(Ok(Spent::default()), spent).during(COUNT, judged.pack)
    }

    /// How far the judgements of a rollout are, in the order of outcomes, states and reasons.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn verdict_counts(&self, rollout: &RolloutId) -> Result<Vec<VerdictCount>, StoreError> {
        let sql = "SELECT outcome, state, reason, COUNT(*) FROM verdict WHERE rollout = $1 \
                   GROUP BY outcome, state, reason ORDER BY outcome, state, reason";
        let rows = self.db.fetch(sql, args![rollout.as_str()]).await.during(COUNT, rollout)?;
        let count = |row: &Row| {
            let word = row.text(1)?;
            let state = VerdictState::ALL.into_iter().find(|state| state.as_str() == word);
            Ok(VerdictCount {
                outcome: MetricName::parse(&row.text(0)?)?,
                state: state.ok_or_else(|| format!("{word:?} is no state of a verdict"))?,
                reason: row.maybe_text(2)?,
                count: row.count(3)?,
            })
        };
        rows.iter().map(count).collect::<Result<_, Cause>>().during(COUNT, rollout)
    }
}
