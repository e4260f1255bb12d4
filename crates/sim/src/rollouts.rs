//! Many rollouts of one plan in one scenario: how often, how fast, and at what price harm is caught.
//!
//! A rollout here knows nothing of single keys: each new session is assigned by a roll of the dice at the weight
//! in force, never comes back, and is folded into dense counters. Everything else is what a [`crate::World`]
//! does: the same sessions, the same analysis, the same state machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rand::RngExt;
use serin_core::ids::Actor;
use serin_core::metric::MetricName;
use serin_core::observation::Fact;
use serin_core::parse::parse;
use serin_core::plan::Plan;
use serin_core::rollout::{End, HoldCause};
use serin_core::routing::{CohortId, Variant};
use serin_core::units::{HoldFor, Timestamp};

use crate::book::{Book, Folding, Page};
use crate::controller::{ApplyError, Controller};
use crate::crowd::Crowd;
use crate::dice::{Dice, Model, mixed};
use crate::report::{Onset, Report, onset};
use crate::scenario::Scenario;
use crate::world::{ms_of, timestamp};

/// A rollout begins a day after the world, so that there is a day to look back on.
const START_MS: u64 = 24 * 3_600_000;
/// How many times its planned length a rollout may take where nothing else is asked for.
const MOST_LENGTHS: u64 = 3;

/// How one simulated rollout went.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ran {
    pub(crate) end: RanEnd,
    /// Time from the start of the rollout to its end.
    pub(crate) length: HoldFor,
    /// Sessions that got the canary.
    pub(crate) exposed: u64,
    /// Of them, those since the harm began.
    pub(crate) exposed_to_harm: u64,
    /// The causes for which it was held.
    pub(crate) holds: BTreeSet<HoldCause>,
    /// The causes that still held it when nobody watched it any longer.
    pub(crate) last_holds: BTreeSet<HoldCause>,
}

/// How one simulated rollout ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RanEnd {
    Completed,
    RolledBack(Vec<MetricName>),
    Unfinished,
}

/// Which rollouts are simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// How many rollouts.
    pub runs: u32,
    /// The seed of all of them; a rollout of the same number and seed is always the same.
    pub seed: u64,
    /// A rollout that has not ended after this many times its planned length counts as unfinished.
    pub most_lengths: u64,
}

impl Batch {
    /// Rollouts that may take three times their planned length.
    pub fn new(runs: u32, seed: u64) -> Self {
        Self { runs, seed, most_lengths: MOST_LENGTHS }
    }
}

/// How far a batch has come; shared between those who simulate and those who watch.
#[derive(Debug, Default)]
pub struct Progress {
    finished: AtomicU32,
    stopped: AtomicBool,
}

impl Progress {
    /// How many rollouts have ended.
    pub fn finished(&self) -> u32 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Asks for no more rollouts; the report is about the first ones that have ended by then.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Runs a manifest in a scenario many times; the same arguments give the same report, on any number of cores.
///
/// # Errors
/// [`ApplyError`] when the manifest has problems or cannot be applied.
pub fn simulate(manifest: &str, scenario: &Scenario, runs: u32, seed: u64) -> Result<Report, ApplyError> {
    simulate_batch(manifest, scenario, Batch::new(runs, seed), &Progress::default())
}

/// Runs a manifest in a scenario as often as a batch says, unless it is stopped before.
///
/// A stopped batch gives the report of a smaller batch: of its first rollouts, without a gap.
///
/// # Errors
/// [`ApplyError`] when the manifest has problems or cannot be applied.
pub fn simulate_batch(
    manifest: &str,
    scenario: &Scenario,
    batch: Batch,
    progress: &Progress,
) -> Result<Report, ApplyError> {
    let plan = parse(manifest)?.plan;
    // Whatever keeps the manifest from being applied is found before anything is started.
    begin(manifest, &plan, start_ms(&plan, scenario))?;
    let onset = onset(&plan, scenario);
    let setting = Setting { manifest, plan: &plan, scenario, onset, most_lengths: batch.most_lengths };
    let next = AtomicU32::new(0);
    let work = || {
        let mut own: Vec<(u32, Ran)> = Vec::new();
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= batch.runs {
                return own;
            }
            let seed = mixed(batch.seed, u64::from(run) + 1);
            let Some(ran) = simulate_one(&setting, seed, Folding::Dense, progress) else { return own };
            own.push((run, ran));
            progress.finished.fetch_add(1, Ordering::Relaxed);
        }
    };
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<(u32, Ran)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a simulation does not panic")).collect()
    });
    results.sort_by_key(|(run, _)| *run);
    let without_gap = (0..).zip(results).take_while(|(number, (run, _))| number == run);
    let ran: Vec<Ran> = without_gap.map(|(_, (_, ran))| ran).collect();
    Ok(Report::of(scenario, batch.seed, &ran, onset))
}

/// What all rollouts of a batch have in common.
pub(crate) struct Setting<'s> {
    manifest: &'s str,
    plan: &'s Plan,
    scenario: &'s Scenario,
    onset: Option<Onset>,
    most_lengths: u64,
}

/// A controller with a stable version, about to roll out the manifest.
fn begin(manifest: &str, plan: &Plan, start_ms: u64) -> Result<Controller, ApplyError> {
    let mut controller = Controller::default();
    let stable = if plan.version.to_string() == "0.0.0" { "0.0.1" } else { "0.0.0" };
    let first = format!(
        "apiVersion: {}\nkind: {}\nmetadata: {{name: {}}}\nspec: {{version: \"{stable}\"}}\n",
        serin_core::parse::API_VERSION,
        serin_core::parse::KIND,
        plan.pack
    );
    let actor = Actor::named("simulation");
    controller.apply(&first, &actor, "first", false, timestamp(0))?;
    controller.apply(manifest, &actor, "simulated", false, timestamp(start_ms))?;
    Ok(controller)
}

/// When a rollout begins: a day after the world, and at the scenario's hour of the day where windows care for it.
fn start_ms(plan: &Plan, scenario: &Scenario) -> u64 {
    match plan.schedule {
        Some(_) => START_MS + u64::from(scenario.traffic.begins_at_hour) * 3_600_000,
        None => START_MS,
    }
}

/// Runs one rollout to its end; nothing when it is stopped on the way.
pub(crate) fn simulate_one(
    setting: &Setting<'_>,
    seed: u64,
    folding: Folding,
    progress: &Progress,
) -> Option<Ran> {
    let mut run = Run::new(setting, seed, folding);
    let horizon = run.start_ms + setting.plan.planned_length().millis() * setting.most_lengths;
    while run.controller.active().is_some() && run.now_ms < horizon {
        if progress.is_stopped() {
            return None;
        }
        run.until_next_tick(horizon, setting.onset);
    }
    Some(run.ran())
}

struct Run<'s> {
    scenario: &'s Scenario,
    controller: Controller,
    book: Book,
    crowd: Crowd,
    start_ms: u64,
    dice: Dice,
    signals: Vec<serin_core::metric::Signal>,
    models: Models,
    now_ms: u64,
    next_arrival_ms: f64,
    exposed: u64,
    exposed_to_harm: u64,
}

/// The models of both variants, made anew when what is true changes.
struct Models {
    timelines: serin_core::analysis::Sides<crate::truth::Timeline>,
    current: [Option<(Model, u64)>; 2],
}

impl Models {
    fn at(&mut self, variant: Variant, since_start_ms: u64) -> &Model {
        let slot = match variant {
            Variant::Stable => &mut self.current[0],
            Variant::Canary => &mut self.current[1],
        };
        if slot.as_ref().is_none_or(|(_, valid_until)| since_start_ms >= *valid_until) {
            let (truth, valid_until) = self.timelines.of(variant).at(since_start_ms);
            *slot = Some((Model::of(truth), valid_until));
        }
        &slot.as_ref().expect("it was just made").0
    }
}

impl<'s> Run<'s> {
    fn new(setting: &Setting<'s>, seed: u64, folding: Folding) -> Self {
        let scenario = setting.scenario;
        let start_ms = start_ms(setting.plan, scenario);
        let controller = begin(setting.manifest, setting.plan, start_ms).expect("it was applied before");
        let mut book = Book::new(folding);
        book.follow(&controller);
        let mut run = Self {
            scenario,
            controller,
            book,
            crowd: Crowd::of(setting.plan, &scenario.traffic.segments),
            start_ms,
            dice: Dice::new(seed),
            signals: scenario.signals(),
            models: Models { timelines: scenario.timelines(), current: [None, None] },
            now_ms: start_ms,
            next_arrival_ms: 0.0,
            exposed: 0,
            exposed_to_harm: 0,
        };
        run.live_through_the_past();
        run.next_arrival_ms = start_ms as f64 + run.wait_ms(start_ms);
        run.tick();
        run
    }

    /// Sessions of stable before the rollout, all of them matured.
    fn live_through_the_past(&mut self) {
        let base = CohortId(0);
        let n = u64::from(self.scenario.traffic.earlier_sessions);
        // One per second at most, and the last one an hour ago.
        let apart_ms = (20 * 3_600_000 / n.max(1)).min(1_000);
        for number in (0..n).rev() {
            let at = timestamp(self.start_ms - 3_600_000 - number * apart_ms);
            let model = *self.models.at(Variant::Stable, 0);
            let page = self.book.assigned(&self.controller, base, true, at);
            for observation in self.dice.session(&model, &self.scenario.habits, at) {
                self.book.observe(page, observation);
            }
        }
    }

    fn wait_ms(&mut self, now_ms: u64) -> f64 {
        let rate = self.scenario.sessions_per_s(now_ms.saturating_sub(self.start_ms));
        // An hour without traffic is passed in steps of a minute.
        if rate > 0.0 { self.dice.wait_ms(rate) } else { 60_000.0 }
    }

    fn until_next_tick(&mut self, horizon: u64, onset: Option<Onset>) {
        let due = self.controller.next_due().map_or(horizon, ms_of);
        // Something that is due already is asked for again a second later.
        let due = if due > self.now_ms { due } else { self.now_ms + 1_000 };
        let due = due.min(horizon);
        let Some((rollout, active)) = self.controller.active() else { return };
        let cohorts = active.cohorts.clone();
        let shares: Vec<f64> = rollout.weights().iter().map(|weight| weight.share()).collect();
        #[expect(clippy::cast_precision_loss, reason = "virtual time in ms stays far below 2^52")]
        while self.next_arrival_ms <= due as f64 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a float cast saturates"
            )]
            let at_ms = self.next_arrival_ms as u64;
            let wait = self.wait_ms(at_ms);
            self.next_arrival_ms += wait;
            if self.scenario.sessions_per_s(at_ms - self.start_ms) <= 0.0 {
                continue;
            }
            // Without segments no die is rolled for one.
            let segment = match cohorts.len() {
                1 => 0,
                n => self.crowd.at(self.dice.segment.random::<f64>(), n),
            };
            let is_canary = self.dice.variant.random::<f64>() < shares[segment];
            let (stable, canary) = cohorts[segment];
            let (variant, cohort) =
                if is_canary { (Variant::Canary, canary) } else { (Variant::Stable, stable) };
            self.arrive(variant, cohort, at_ms, onset);
        }
        self.now_ms = due;
        self.tick();
    }

    fn arrive(&mut self, variant: Variant, cohort: CohortId, at_ms: u64, onset: Option<Onset>) {
        let since_start = at_ms - self.start_ms;
        if variant == Variant::Canary {
            self.exposed += 1;
            let harmed = onset.is_some_and(|onset| since_start >= onset.from.millis());
            self.exposed_to_harm += u64::from(harmed);
        }
        let at = timestamp(at_ms);
        let model = self.models.at(variant, since_start);
        let seen = self.dice.session(model, &self.scenario.habits, at);
        let page: Page = self.book.assigned(&self.controller, cohort, true, at);
        for tally in self.book.tallies(page, variant).into_iter().flatten() {
            for observation in &seen {
                match &observation.fact {
                    Fact::Response(response) => tally.add_response(response),
                    Fact::Outcome(outcome) => tally.add_outcome(outcome),
                    Fact::Started => {}
                }
            }
        }
        self.book.observe_all(page, seen);
    }

    fn tick(&mut self) {
        let now: Timestamp = timestamp(self.now_ms);
        let n_checks = self.controller.checks().len();
        let evidence = self.book.evidence(&self.controller, &self.signals, now);
        self.controller.tick(&evidence, now);
        if self.controller.checks().len() > n_checks {
            self.book.checked();
        }
    }

    fn ran(&self) -> Ran {
        let rollout = self.controller.rollout().expect("a rollout has begun");
        let ended = rollout.ended();
        let end = match ended.map(|ended| &ended.how) {
            Some(End::Completed) => RanEnd::Completed,
            Some(End::RolledBack { culprits, .. }) => RanEnd::RolledBack(culprits.clone()),
            Some(End::Superseded { .. }) | None => RanEnd::Unfinished,
        };
        let until = ended.map_or_else(|| timestamp(self.now_ms), |ended| ended.at);
        Ran {
            end,
            length: HoldFor::between(rollout.started_at, until),
            exposed: self.exposed,
            exposed_to_harm: self.exposed_to_harm,
            holds: self.holds(),
            last_holds: rollout
                .active()
                .map(|active| active.holds.keys().copied().collect())
                .unwrap_or_default(),
        }
    }

    /// The causes for which the rollout was held at any time.
    fn holds(&self) -> BTreeSet<HoldCause> {
        self.controller
            .audit()
            .iter()
            .filter(|fact| fact.action == serin_core::audit::Action::HoldSet)
            .filter_map(|fact| serde_json::from_value(fact.evidence["cause"].clone()).ok())
            .collect()
    }
}

/// How often each of some things was counted.
pub(crate) fn counted<T: Ord>(things: impl Iterator<Item = T>) -> BTreeMap<T, u64> {
    let mut counts = BTreeMap::new();
    for thing in things {
        *counts.entry(thing).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "
apiVersion: omnia.altairalabs.ai/v1alpha1
kind: PromptPack
metadata: {name: support}
spec:
  version: 2.0.0
  rollout:
    analysis:
      metrics:
        - {name: success_rate, threshold: 90%, comparison: '>='}
        - {name: latency_p90, compareTo: stable, maxRegression: 200ms}
";

    #[test]
    fn folded_by_core_or_densely_a_rollout_goes_the_same_way() {
        let plan = parse(MANIFEST).expect("a manifest without problems").plan;
        for name in ["healthy", "regression", "late-harm", "subtle"] {
            let mut scenario = Scenario::built_in(name).expect("built in");
            scenario.traffic.sessions_per_s = 2.0;
            scenario.habits.requests_mean = 2.0;
            let onset = onset(&plan, &scenario);
            let setting =
                Setting { manifest: MANIFEST, plan: &plan, scenario: &scenario, onset, most_lengths: 3 };
            for seed in 0..3 {
                let ran = |folding| simulate_one(&setting, seed, folding, &Progress::default());
                assert_eq!(ran(Folding::ByCore), ran(Folding::Dense), "{name}, seed {seed}");
            }
        }
    }

    #[test]
    fn a_stopped_batch_reports_its_first_rollouts() {
        let scenario = Scenario::built_in("regression").expect("built in");
        let progress = Progress::default();
        let report = std::thread::scope(|scope| {
            let batch =
                scope.spawn(|| simulate_batch(MANIFEST, &scenario, Batch::new(100_000, 4), &progress));
            while progress.finished() < 3 {
                std::thread::yield_now();
            }
            progress.stop();
            batch.join().expect("a simulation does not panic").expect("a manifest without problems")
        });
        assert!((1..100_000).contains(&report.runs), "{}", report.runs);
        let runs = u32::try_from(report.runs).expect("fewer than asked for");
        assert_eq!(simulate(MANIFEST, &scenario, runs, 4).expect("a manifest without problems"), report);
    }
}
