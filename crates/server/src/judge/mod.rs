//! Asks judges about recorded sessions, and reports their verdicts as outcomes.
//!
//! ```text
//! sample (stored, redacted) -> quiet for a minute -> drawn, within the budget -> claimed -> asked -> outcome of the session
//! ```
//!
//! Everything here is off the request path. What waits is in the store: samples, which have limits of their own.
//!
//! **Invariant:** a session is claimed in the store before its judge is asked, and its verdict has an id that follows
//! from the session, so that no session has two verdicts: a restart in the middle of a question asks again, and what
//! comes second is known. Whatever keeps a judge from a verdict is counted and is no evidence, neither good nor bad.

mod answer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use serin_core::ids::{PackName, RolloutId};
use serin_core::judge::{Judge, QUIET, Said, Speaker, Verdict};
use serin_core::metric::{MetricName, Signal};
use serin_core::observation::{Fact, Outcome};
use serin_core::units::HoldFor;
use tokio::sync::Mutex;

use crate::control::Control;
use crate::errors::Chain;
use crate::gateway::{AskError, Gateway, Ids, Prices};
use crate::ingest::Reporter;
use crate::samples::{Sample, SampleSettings, SampleSignal, Samples};
use crate::signal::SessionFact;
use crate::store::{Due, Judgeable, Judged, Resumed, Settled, StoreError, VerdictState};

/// How often it is looked whether sessions are to be judged.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sessions that one look finds at most: what is beyond the budget is noted for so many at a time.
const MOST_FOUND: u32 = 20_000;
/// Sessions that one look asks about at most.
const BATCH: usize = 32;
/// Requests to judges under way at once.
const AT_ONCE: usize = 4;
/// How long a judge may take.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);
/// How often a judge that does not answer is asked about the same session.
const MOST_ATTEMPTS: u64 = 3;
/// How long a judge that did not answer is left alone.
const PAUSE: HoldFor = HoldFor::from_secs(30);
/// The time for which a budget is.
const HOUR: HoldFor = HoldFor::from_hours(1);
/// Attempts to report a verdict, and the wait after the first; each further one is twice as long.
const REPORTING: (u32, Duration) = (5, Duration::from_millis(200));

/// What is counted of judges since the start.
#[derive(Debug, Default)]
pub struct JudgeCounts {
    /// Times that a judge was asked.
    pub asked: AtomicU64,
    /// Verdicts.
    pub judged: AtomicU64,
    /// Times that a judge did not answer.
    pub unanswered: AtomicU64,
    /// Answers that were no verdict.
    pub unreadable: AtomicU64,
    /// Sessions that were given up without a verdict.
    pub failed: AtomicU64,
    /// Sessions that were not judged because the budget was spent.
    pub over_budget: AtomicU64,
    /// What judges cost by the table of prices, in millionths of a US dollar.
    pub cost_micros: AtomicU64,
}

/// Asks judges.
pub struct Judges {
    control: Arc<Control>,
    gateway: Arc<Gateway>,
    samples: Arc<Samples>,
    reporter: Reporter,
    ids: Ids,
    prices: Prices,
    counts: JudgeCounts,
    /// Held for as long as somebody looks.
    looking: Mutex<Looking>,
}

/// What one look leaves to the next.
#[derive(Debug, Default)]
struct Looking {
    /// Whether the sessions that a stop broke off were taken up.
    has_resumed: bool,
    /// Until when judges are left alone.
    paused: BTreeMap<(PackName, MetricName), Timestamp>,
}

impl fmt::Debug for Judges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judges").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// What a session is judged with.
struct Task<'a> {
    judge: &'a Judge,
    of: Judged<'a>,
    /// Turns true when the judge did not answer.
    is_down: AtomicBool,
}

impl Judges {
    /// Asks nobody yet.
    pub fn new(
        control: Arc<Control>,
        gateway: Arc<Gateway>,
        samples: Arc<Samples>,
        reporter: Reporter,
        ids: Ids,
        prices: Prices,
    ) -> Self {
        let (counts, looking) = (JudgeCounts::default(), Mutex::default());
        Self { control, gateway, samples, reporter, ids, prices, counts, looking }
    }

    /// What was counted so far.
    pub fn counts(&self) -> &JudgeCounts {
        &self.counts
    }

    /// Why the judge of an outcome of a rollout is not asked at all, or not about every session, in words.
    pub fn obstacle(&self, judge: &Judge, rollout: &RolloutId) -> Option<String> {
        let SampleSettings { rate: recorded, limit, .. } = *self.samples.settings();
        if recorded < judge.sample_rate {
            return Some(format!(
                "it reads recorded conversations, of which the server records {recorded} and not the {} that it is to judge; set `samples.rate` in the settings",
                judge.sample_rate
            ));
        }
        let is_unpriced = judge.max_cost_per_hour.is_some() && self.prices.of(&judge.model).is_none();
        if is_unpriced {
            return Some(format!(
                "it is not asked: `maxCostPerHour` needs a price for {} in the settings",
                judge.model
            ));
        }
        let early = self.samples.counts().displaced_early_of(rollout);
        (early > 0).then(|| {
            let lower = if recorded > judge.sample_rate {
                format!(", or lower `samples.rate` ({recorded}) to the {} that it judges", judge.sample_rate)
            } else {
                format!(", or lower `samples.rate` ({recorded}) and its `sampleRate`")
            };
            format!(
                "of the conversations that it reads, {early} recordings went before their session was quiet for {QUIET}, because newer ones took their place; raise `samples.limit` ({limit} of each version) above what is recorded in a few minutes{lower}"
            )
        })
    }

    /// Judges for as long as the server runs.
    pub async fn run(self: Arc<Self>) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.look().await;
        }
    }

    /// Judges what is to be judged now; failures are counted, logged and tried again.
    pub async fn look(&self) {
        if !self.samples.is_on() {
            return;
        }
        let mut looking = self.looking.lock().await;
        let Looking { has_resumed, paused } = &mut *looking;
        if !*has_resumed {
            *has_resumed = self.resume().await;
        }
        if !*has_resumed {
            return;
        }
        for pack in self.control.names().await {
            let Some((state, plan, _)) = self.control.standing(&pack).await else { continue };
            let Some((rollout, _)) = state.active() else { continue };
            for judge in &plan.analysis.judges {
                let of = Judged { pack: &pack, rollout: &rollout.id, outcome: &judge.outcome };
                let task = Task { judge, of, is_down: AtomicBool::new(false) };
                let key = (pack.clone(), judge.outcome.clone());
                let now = self.now();
                if paused.get(&key).is_some_and(|until| now < *until) {
                    continue;
                }
                if let Err(error) = self.judge(&task, now).await {
                    tracing::warn!(%pack, outcome = %judge.outcome, error = %Chain(&error), "could not judge sessions of {pack}");
                }
                if task.is_down.into_inner() {
                    paused.insert(key, PAUSE.after(self.now()));
                } else {
                    paused.remove(&key);
                }
            }
        }
    }

    /// Takes up the sessions that the last stop of the server broke off; false when the store does not.
    async fn resume(&self) -> bool {
        match self.control.store().resume_verdicts(MOST_ATTEMPTS).await {
            Ok(Resumed { again, given_up }) => {
                self.counts.failed.fetch_add(given_up, Ordering::Relaxed);
                if again + given_up > 0 {
                    tracing::info!(
                        again,
                        given_up,
                        "the server stopped while judges were asked: {again} sessions are asked about again, {given_up} stay without a verdict"
                    );
                }
                true
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "no session is judged yet: {}", Chain(&error));
                false
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.control.resolver().clock.now()
    }

    /// Judges the sessions of one outcome that are quiet, as far as the budget goes.
    async fn judge(&self, task: &Task<'_>, now: Timestamp) -> Result<(), StoreError> {
        let Task { judge, of, .. } = task;
        let price = self.prices.of(&judge.model);
        if judge.max_cost_per_hour.is_some() && price.is_none() {
            return Ok(());
        }
        self.samples.settled().await;
        let store = self.control.store();
        let due = Due {
            rate: judge.sample_rate,
            quiet: QUIET.before(now),
            waiting: PAUSE.before(now),
            now,
            limit: MOST_FOUND,
        };
        let sessions = store.judgeable(*of, due).await?;
        if sessions.is_empty() {
            return Ok(());
        }
        let spent = store.spent_on_verdicts(*of, HOUR.before(now)).await?;
        #[expect(clippy::cast_precision_loss, reason = "what an hour costs stays far below 2^52")]
        let cost = spent.cost_micros as f64 / 1e6;
        let is_spent = judge.max_cost_per_hour.is_some_and(|most| cost >= most);
        let left = u64::from(judge.max_per_hour).saturating_sub(spent.requests);
        let left = if is_spent { 0 } else { usize::try_from(left).unwrap_or(usize::MAX) };
        let (within, beyond) = sessions.split_at(left.min(sessions.len()));
        if !beyond.is_empty() {
            store.pass_over(*of, beyond, now).await?;
            add(&self.counts.over_budget, beyond.len());
        }
        let mut asking = Vec::with_capacity(BATCH);
        for session in within.iter().take(BATCH) {
            asking.push(self.session(task, *session));
        }
        let results: Vec<Result<(), StoreError>> =
            futures_util::stream::iter(asking).buffer_unordered(AT_ONCE).collect().await;
        results.into_iter().collect()
    }

    /// Judges one session, unless the judge is down or somebody else does.
    async fn session(&self, task: &Task<'_>, session: Judgeable) -> Result<(), StoreError> {
        let Task { judge, of, is_down } = task;
        let store = self.control.store();
        if is_down.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(attempt) = store.claim_verdict(*of, session, self.now()).await? else { return Ok(()) };
        let said = said(&store.samples_of_session(of.pack, session, self.now()).await?);
        let settled = if said.is_empty() {
            self.failed("nothing_to_judge", 0)
        } else {
            let question = judge.question(&said, &self.ids.text());
            let body = answer::request(&judge.model, &question);
            add(&self.counts.asked, 1);
            match self.gateway.upstreams().ask(judge.provider.as_ref(), body, LONGEST_ANSWER).await {
                Ok(answer) => self.heard(task, session, &answer).await,
                Err(error) => {
                    is_down.store(true, Ordering::Relaxed);
                    self.unanswered(of, &error, attempt)
                }
            }
        };
        store.settle_verdict(*of, session, &settled).await
    }

    /// Reports the verdict of an answer.
    async fn heard(&self, task: &Task<'_>, session: Judgeable, answer: &[u8]) -> Settled {
        let judge = task.judge;
        let (text, usage) = answer::read(answer);
        let cost_micros = self.prices.of(&judge.model).map_or(0, |price| usage.cost_micros(&price));
        self.counts.cost_micros.fetch_add(cost_micros, Ordering::Relaxed);
        let verdict = text.ok_or("other_form").and_then(|text| {
            judge.read(&text).map_err(|no_verdict| match no_verdict {
                serin_core::judge::NoVerdict::OtherForm => "other_form",
                serin_core::judge::NoVerdict::OutsideScale => "outside_scale",
            })
        });
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(reason) => {
                add(&self.counts.unreadable, 1);
                return self.failed(reason, cost_micros);
            }
        };
        if self.report(task, session, verdict).await {
            add(&self.counts.judged, 1);
            Settled { state: VerdictState::Judged, reason: None, cost_micros }
        } else {
            self.failed("not_stored", cost_micros)
        }
    }

    fn unanswered(&self, of: &Judged<'_>, error: &AskError, attempt: u64) -> Settled {
        add(&self.counts.unanswered, 1);
        tracing::warn!(pack = %of.pack, outcome = %of.outcome, why = %error, "the judge of {} did not answer: {error}", of.outcome);
        if attempt < MOST_ATTEMPTS {
            Settled { state: VerdictState::Waiting, reason: Some(error.word()), cost_micros: 0 }
        } else {
            self.failed(error.word(), 0)
        }
    }

    fn failed(&self, reason: &'static str, cost_micros: u64) -> Settled {
        add(&self.counts.failed, 1);
        Settled { state: VerdictState::Failed, reason: Some(reason), cost_micros }
    }

    /// Makes a verdict an outcome of its session; false when the store does not take it.
    async fn report(&self, task: &Task<'_>, session: Judgeable, verdict: Verdict) -> bool {
        let Judgeable { hash, cohort } = session;
        let (outcome, now) = (&task.judge.outcome, self.now());
        let signal = Signal::Custom(outcome.as_str().to_owned());
        let fact = SessionFact {
            pack: Arc::new(task.of.pack.clone()),
            hash,
            cohort,
            id: format!("judge-{outcome}-{:032x}-{}", hash.0, cohort.0),
            at: now,
            until: now,
            fact: Fact::Outcome(Outcome { signal, value: verdict.0 }),
        };
        let (attempts, mut wait) = REPORTING;
        for _ in 1..attempts {
            if self.reporter.report(vec![fact.clone()]).await.is_ok() {
                return true;
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        match self.reporter.report(vec![fact]).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(pack = %task.of.pack, %outcome, %error, "a verdict is lost: {error}");
                false
            }
        }
    }
}

/// What was said in a session, without answers that failed on their way.
fn said(samples: &[Sample]) -> Vec<Said> {
    let is_whole = |sample: &&Sample| {
        !sample.signals.iter().any(|signal| match signal {
            SampleSignal::Error | SampleSignal::Left | SampleSignal::Unreadable => true,
            SampleSignal::Refusal
            | SampleSignal::Truncated
            | SampleSignal::Empty
            | SampleSignal::ToolWrong
            | SampleSignal::InvalidFormat
            | SampleSignal::RepeatedQuestion => false,
        })
    };
    let mut said = Vec::new();
    for sample in samples.iter().filter(is_whole) {
        let asked = sample.said.messages.iter().filter_map(|message| {
            Some(Said { by: Speaker::of_role(&message.role)?, text: message.text.clone() })
        });
        said.extend(asked);
        said.push(Said { by: Speaker::Assistant, text: sample.said.answer.clone() });
    }
    said
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
}
