//! The evidence side of a world: every session's facts, folded once per age into the cells of its cohort.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serin_core::aggregate::{Counters, Tally};
use serin_core::analysis::{Assigned, Cell, Evidence, Sides};
use serin_core::evidence::{Baseline, PlannedMeasure, SessionFacts, fold, fold_ages, freeze, measures};
use serin_core::ids::RolloutId;
use serin_core::metric::{Metric, Signal};
use serin_core::observation::Observation;
use serin_core::plan::Plan;
use serin_core::routing::{CohortId, Variant};
use serin_core::tick::baseline_wanted;
use serin_core::units::{HoldFor, Timestamp};
use serin_core::weight::Weight;

use crate::controller::Controller;
use crate::dense::DenseFold;

/// A baseline is taken from at most this many sessions of stable, the newest.
const MOST_BASELINE_SESSIONS: usize = 1_000;

/// One session and where it counts.
#[derive(Debug)]
struct Record {
    facts: SessionFacts,
    cohort: CohortId,
}

/// Sessions in the order of their assignment; old ones are dropped from the front.
#[derive(Debug, Default)]
struct Records {
    first: u64,
    records: VecDeque<Record>,
}

impl Records {
    fn push(&mut self, record: Record) -> u64 {
        self.records.push_back(record);
        self.first + self.records.len() as u64 - 1
    }

    fn index(&self, id: u64) -> Option<usize> {
        usize::try_from(id.checked_sub(self.first)?).ok()
    }

    fn get(&self, id: u64) -> Option<&Record> {
        self.records.get(self.index(id)?)
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut Record> {
        let index = self.index(id)?;
        self.records.get_mut(index)
    }

    fn pop(&mut self) {
        self.records.pop_front();
        self.first += 1;
    }
}

/// Where the facts of a session are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// A session of stable without a rollout: it may serve as a baseline.
    Quiet(u64),
    /// A session of a rollout; the first number tells which one.
    Rollout(u64, u64),
    /// A session that no evidence counts.
    Uncounted,
}

/// By which code sessions are folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folding {
    /// By core itself, session by session.
    ByCore,
    /// By dense counters that add up to the same; many times faster.
    Dense,
}

#[derive(Debug)]
enum Cells {
    ByCore(BTreeMap<CohortId, Counters>),
    Dense(Option<DenseFold>),
}

/// Everything that was seen of the sessions of one pack.
#[derive(Debug)]
pub(crate) struct Book {
    folding: Folding,
    generation: u64,
    rollout: Option<RolloutId>,
    quiet: Records,
    records: Records,
    measures: Vec<PlannedMeasure>,
    /// Each age at which sessions are folded, and the next session that reaches it.
    ages: Vec<(HoldFor, u64)>,
    cells: Cells,
    assigned: BTreeMap<Weight, (u64, u64)>,
    shown: Sides<Tally>,
    recent: Sides<Tally>,
    n_folds: u64,
}

impl Book {
    pub(crate) fn new(folding: Folding) -> Self {
        Self {
            folding,
            generation: 0,
            rollout: None,
            quiet: Records::default(),
            records: Records::default(),
            measures: Vec::new(),
            ages: Vec::new(),
            cells: Cells::ByCore(BTreeMap::new()),
            assigned: BTreeMap::new(),
            shown: Sides::default(),
            recent: Sides::default(),
            n_folds: 0,
        }
    }

    /// Starts a fresh book when another rollout has begun: nothing of the one before enters it.
    pub(crate) fn follow(&mut self, controller: &Controller) {
        let rollout = controller.active().map(|(rollout, _)| &rollout.id);
        if rollout.is_none() || rollout == self.rollout.as_ref() {
            return;
        }
        self.rollout = rollout.cloned();
        self.generation += 1;
        self.records = Records::default();
        self.measures.clear();
        self.ages.clear();
        self.cells = match self.folding {
            Folding::ByCore => Cells::ByCore(BTreeMap::new()),
            Folding::Dense => Cells::Dense(None),
        };
        self.assigned.clear();
        self.shown = Sides::default();
        self.recent = Sides::default();
        self.n_folds = 0;
    }

    /// Notes an assignment; `counts` is false for a key that was counted before.
    pub(crate) fn assigned(
        &mut self,
        controller: &Controller,
        id: CohortId,
        counts: bool,
        at: Timestamp,
    ) -> Page {
        let cohort = controller.cohort(id);
        let facts = SessionFacts { assigned_at: at, variant: cohort.variant, observations: Vec::new() };
        let record = Record { facts, cohort: id };
        let Some(stamp) = &cohort.stamp else {
            let page = Page::Quiet(self.quiet.push(record));
            if self.quiet.records.len() > MOST_BASELINE_SESSIONS {
                self.quiet.pop();
            }
            return page;
        };
        if !counts || Some(&stamp.rollout) != self.rollout.as_ref() {
            return Page::Uncounted;
        }
        let counts = self.assigned.entry(stamp.weight).or_default();
        match cohort.variant {
            Variant::Canary => counts.0 += 1,
            Variant::Stable => counts.1 += 1,
        }
        for tallies in [&mut self.shown, &mut self.recent] {
            tallies.of_mut(cohort.variant).sessions += 1;
        }
        Page::Rollout(self.generation, self.records.push(record))
    }

    /// Writes what began on the page of its session.
    pub(crate) fn observe(&mut self, page: Page, observation: Observation) {
        let record = match page {
            Page::Quiet(id) => self.quiet.get_mut(id),
            Page::Rollout(generation, id) if generation == self.generation => self.records.get_mut(id),
            Page::Rollout(..) | Page::Uncounted => None,
        };
        if let Some(record) = record {
            record.facts.observations.push(observation);
        }
    }

    /// Writes everything that a session will show, oldest first.
    pub(crate) fn observe_all(&mut self, page: Page, observations: Vec<Observation>) {
        if let Page::Rollout(generation, id) = page
            && generation == self.generation
            && let Some(record) = self.records.get_mut(id)
        {
            record.facts.observations = observations;
        }
    }

    /// What is shown and what came since the last check, of a session of the rollout under way.
    pub(crate) fn tallies(&mut self, page: Page, variant: Variant) -> Option<[&mut Tally; 2]> {
        let is_current = matches!(page, Page::Rollout(generation, _) if generation == self.generation);
        is_current.then(|| [self.shown.of_mut(variant), self.recent.of_mut(variant)])
    }

    /// Folds every session that has come of age, and gathers what is known now.
    ///
    /// `signals` are those that sessions can show at all.
    pub(crate) fn evidence(
        &mut self,
        controller: &Controller,
        signals: &[Signal],
        now: Timestamp,
    ) -> Evidence {
        self.mature(controller, signals, now);
        Evidence {
            cells: self.cells(controller),
            shown: self.shown.clone(),
            recent: self.recent.clone(),
            assigned: self
                .assigned
                .iter()
                .map(|(weight, (canary, stable))| Assigned {
                    weight: *weight,
                    canary: *canary,
                    stable: *stable,
                })
                .collect(),
            baseline_candidate: self.baseline_candidate(controller, now),
            forced_stable: false,
            alerts: Vec::new(),
            back_since: None,
            // Nobody stands in for an outside provider: what only it knows cannot be measured.
            outside: BTreeMap::new(),
        }
    }

    /// Forgets everything but what is stored, as a crash does.
    pub(crate) fn crash(&mut self) {
        match &mut self.cells {
            Cells::ByCore(cells) => cells.values_mut().for_each(store_and_read),
            // Simulated rollouts do not crash.
            Cells::Dense(_) => {}
        }
        for tallies in [&mut self.shown, &mut self.recent] {
            store_and_read(tallies);
        }
    }

    /// A check was made: what comes from now on is recent.
    pub(crate) fn checked(&mut self) {
        self.recent = Sides::default();
    }

    /// How often a session was folded so far.
    pub(crate) fn n_folds(&self) -> u64 {
        self.n_folds
    }

    fn mature(&mut self, controller: &Controller, signals: &[Signal], now: Timestamp) {
        let Some(plan) = controller.active_plan() else { return };
        let Some(baseline) = controller.active().and_then(|(_, active)| active.baseline.as_ref()) else {
            return;
        };
        if self.ages.is_empty() {
            self.plan_folds(plan, baseline, signals);
        }
        let Self { ages, records, cells, measures, .. } = self;
        for (age, next) in ages.iter_mut() {
            while let Some(record) = records.get(*next)
                && age.after(record.facts.assigned_at) <= now
            {
                match cells {
                    Cells::ByCore(cells) => {
                        let counters = fold(&record.facts, *age, measures, baseline);
                        cells.entry(record.cohort).or_default().merge(&counters);
                    }
                    Cells::Dense(Some(dense)) => dense.fold(record.cohort, &record.facts, *age),
                    Cells::Dense(None) => {}
                }
                *next += 1;
                self.n_folds += 1;
            }
        }
        let done = ages.iter().map(|(_, next)| *next).min().unwrap_or(0);
        while records.first < done {
            records.pop();
        }
    }

    fn plan_folds(&mut self, plan: &Plan, baseline: &Baseline, signals: &[Signal]) {
        let can_show = |metric: &Metric| metric.signal == Signal::Turns || signals.contains(&metric.signal);
        let is_gate =
            |metric: &Metric| plan.analysis.gates.iter().any(|gate| gate.metric.name == metric.name);
        self.measures = measures(plan, baseline);
        if self.folding == Folding::Dense {
            // What no session ever shows would only be folded to nothing.
            self.measures.retain(|measure| can_show(&measure.metric) || is_gate(&measure.metric));
            self.cells = Cells::Dense(Some(DenseFold::new(&self.measures, baseline)));
        }
        let first = self.records.first;
        self.ages = fold_ages(&self.measures).into_iter().map(|age| (age, first)).collect();
    }

    fn cells(&self, controller: &Controller) -> Vec<Cell> {
        let cell = |id: CohortId, counters: Counters| {
            let cohort = controller.cohort(id);
            let stamp = cohort.stamp.as_ref()?;
            Some(Cell::of(stamp, cohort.variant, counters))
        };
        match &self.cells {
            Cells::ByCore(cells) => {
                cells.iter().filter_map(|(id, counters)| cell(*id, counters.clone())).collect()
            }
            Cells::Dense(Some(dense)) => {
                dense.counters().filter_map(|(id, counters)| cell(id, counters)).collect()
            }
            Cells::Dense(None) => Vec::new(),
        }
    }

    fn baseline_candidate(&self, controller: &Controller, now: Timestamp) -> Option<Baseline> {
        let (pack, plan) = (controller.pack()?, controller.active_plan()?);
        for wanted in baseline_wanted(pack, plan, now) {
            let sessions: Vec<SessionFacts> = self
                .quiet
                .records
                .iter()
                .chain(&self.records.records)
                .rev()
                .filter(|record| record.facts.variant == Variant::Stable)
                .filter(|record| (wanted.from..wanted.to).contains(&record.facts.assigned_at))
                .filter(|record| record.facts.observations.iter().all(|seen| seen.until <= now))
                .take(MOST_BASELINE_SESSIONS)
                .map(|record| record.facts.clone())
                .collect();
            if let Some(baseline) = freeze(plan, &sessions, wanted.least, now) {
                return Some(baseline);
            }
        }
        None
    }
}

/// Writes a value and reads it back, as a restart does.
fn store_and_read<T: Serialize + DeserializeOwned>(value: &mut T) {
    let stored = serde_json::to_string(value).expect("counters are plain data");
    *value = serde_json::from_str(&stored).expect("what was written can be read");
}
