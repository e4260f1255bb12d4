//! The watch period: after its completion a new stable version goes on being judged by its own thresholds.
//!
//! Nothing is left to compare it with, so that only the gates with a threshold that decide by evidence say something.
//! Their evidence begins anew, from the sessions assigned since the completion, under an error budget of its own: a
//! version within its gates breaks its watch at most with a chance of 1 - `confidence`.
//!
//! New sessions are stamped with [`RolloutId::watch`], so that nothing of this is counted for the rollout.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::analysis::{Analysis, Cell, Evidence, GateReading, GateState, Verdict, analyze};
use crate::audit::Action;
use crate::ids::{Actor, RolloutId};
use crate::pack::{Draft, PackState, Transition};
use crate::parse::everyone;
use crate::plan::{
    Decision, GateRule, OnBreach, OnDegraded, Plan, ProgressWhen, Step, StepPhase, StepWeight, WatchPolicy,
};
use crate::rollout::{Active, End, Rollout, RolloutKind, StepClock};
use crate::routing::{Stamp, Variant};
use crate::units::{HoldFor, Timestamp};
use crate::weight::Weight;

/// The watch over the version that is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The rollout whose completion began it, and whose gates judge.
    pub rollout: RolloutId,
    /// Since when.
    pub since: Timestamp,
    /// Until when, as long as it is not broken.
    pub until: Timestamp,
    /// What a breach does.
    pub on_breach: OnBreach,
    /// The part of it that new sessions belong to, from 0.
    pub slice: u16,
    /// How it stands.
    pub state: WatchState,
}

/// How a watch stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchState {
    /// It goes on.
    Running,
    /// Its time is over, and no gate was proven to be broken.
    Over {
        /// What it came to, in words.
        summary: String,
    },
    /// A gate is proven to be broken; who is told, decides.
    Breached {
        /// When that was found.
        at: Timestamp,
        /// Which gate, in words.
        reason: String,
    },
}

/// What looking at a watch comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// Nothing happens.
    Nothing,
    /// It goes on with another part, or is over.
    On(Box<Transition>),
    /// A gate is proven to be broken: [`breach`] carries out what follows.
    Broken(Box<Analysis>),
}

impl Watch {
    /// The watch that the completion of a rollout begins; nothing where the manifest asks for none, or nothing could
    /// be judged.
    pub(crate) fn of(plan: &Plan, rollout: &Rollout, now: Timestamp) -> Option<Self> {
        let WatchPolicy { duration, on_breach } = plan.watch?;
        match rollout.kind {
            RolloutKind::Canary => {}
            RolloutKind::Immediate | RolloutKind::Undo => return None,
        }
        rollout.baseline()?;
        let has_gates = plan.analysis.gates.iter().any(judges);
        has_gates.then(|| Self {
            rollout: rollout.id.clone(),
            since: now,
            until: duration.after(now),
            on_breach,
            slice: 0,
            state: WatchState::Running,
        })
    }

    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        match self.state {
            WatchState::Running => true,
            WatchState::Over { .. } | WatchState::Breached { .. } => false,
        }
    }

    /// Its length.
    pub fn duration(&self) -> HoldFor {
        HoldFor::between(self.since, self.until)
    }

    /// When the next part of it begins, or when it ends.
    pub fn next_border(&self, plan: &Plan) -> Timestamp {
        let parts = u64::from(self.plan(plan).slices(0));
        let millis =
            self.duration().millis().saturating_mul(u64::from(self.slice) + 1).div_ceil(parts.max(1));
        HoldFor::from_millis(millis).after(self.since).min(self.until)
    }

    /// What it is judged by: one step in which everybody has the version, and the gates that can say something.
    pub fn plan(&self, plan: &Plan) -> Plan {
        let mut analysis = plan.analysis.clone();
        analysis.gates.retain(judges);
        analysis.on_degraded = OnDegraded::Notify;
        let mut progress = plan.progress.clone();
        progress.when = ProgressWhen::Clock;
        let step = Step {
            phase: StepPhase::Completing,
            weight: StepWeight::Ramp(Weight::FULL),
            hold: self.duration(),
            approval: false,
        };
        Plan {
            steps: vec![step],
            segments: vec![everyone()],
            schedule: None,
            analysis,
            progress,
            holdback: Weight::ZERO,
            ..plan.clone()
        }
    }

    pub(crate) fn stamp(&self, revision: u64) -> Stamp {
        Stamp {
            rollout: self.rollout.watch(),
            revision,
            step: 0,
            start: self.slice,
            segment: 0,
            weight: Weight::FULL,
            observing: false,
        }
    }

    /// Judges what was seen: `cells` are the matured sessions of the watch.
    fn judge(&self, plan: &Plan, rollout: &Rollout, cells: &[Cell], now: Timestamp) -> Analysis {
        // It is judged as a canary without a control is.
        let cells = cells.iter().map(|cell| Cell { variant: Variant::Canary, ..cell.clone() }).collect();
        let evidence = Evidence { cells, ..Evidence::default() };
        let active = Active {
            step: 0,
            slice: self.slice,
            entered_at: self.since,
            clock: StepClock::started(self.since),
            cohorts: Vec::new(),
            holds: Default::default(),
            failed_checks: 0,
            last_check: None,
            baseline: rollout.baseline().cloned(),
            approved: false,
            approvals: Vec::new(),
            frozen: HoldFor::ZERO,
            frozen_before_step: HoldFor::ZERO,
            waived: Default::default(),
            waived_segments: Default::default(),
            guard_tripped: Default::default(),
            last_at: now,
        };
        let mut analysis = analyze(&self.plan(plan), &active, &evidence, now);
        if analysis.verdict == Verdict::StableFails {
            // There is no other version to blame.
            analysis.verdict = Verdict::Fail;
        }
        analysis.holds.clear();
        analysis
    }
}

/// Whether a gate can judge a version that has no other beside it.
pub fn judges(gate: &crate::plan::Gate) -> bool {
    match (gate.rule, gate.decision) {
        (GateRule::Threshold { .. }, Decision::Evidence) => true,
        (GateRule::Threshold { .. }, Decision::Point) | (GateRule::NotWorseThanStable { .. }, _) => false,
    }
}

/// Looks at the watch of a pack; `cells` are its matured sessions up to now.
pub fn look(pack: &PackState, plan: &Plan, cells: &[Cell], now: Timestamp) -> Look {
    let Some((watch, rollout)) = running(pack) else { return Look::Nothing };
    let analysis = watch.judge(plan, rollout, cells, now);
    if analysis.verdict == Verdict::Fail {
        return Look::Broken(Box::new(analysis));
    }
    let summary = format!("{} ({} matured sessions)", analysis.summary(), analysis.step_sessions);
    let elapsed = HoldFor::between(watch.since, now);
    if now >= watch.until {
        let mut draft = Draft::of(pack, now);
        draft.end_watch(WatchState::Over { summary: summary.clone() });
        let reason = format!("watched for {}: {summary}", watch.duration());
        draft.fact(&Actor::serin(), Action::WatchEnded, &reason, record(watch, &analysis));
        return Look::On(Box::new(draft.finish()));
    }
    let slice = watch.plan(plan).slice_at(0, elapsed);
    if slice <= watch.slice {
        return Look::Nothing;
    }
    let mut draft = Draft::of(pack, now);
    draft.watch_slice(slice);
    let reason = format!("watched until {}: {summary}", watch.until);
    draft.fact(&Actor::serin(), Action::Watched, &reason, record(watch, &analysis));
    Look::On(Box::new(draft.finish()))
}

/// The version before, as an undo needs it.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// Its plan.
    pub plan: &'a Plan,
    /// The salt of the rollout that takes everybody back.
    pub salt: &'a str,
}

/// Notes a breach, and brings everybody back to the version before where one is given.
pub fn breach(
    pack: &PackState,
    analysis: &Analysis,
    before: Option<Before<'_>>,
    now: Timestamp,
) -> Transition {
    let mut draft = Draft::of(pack, now);
    let Some((watch, _)) = running(pack) else { return draft.finish() };
    let broken = |gate: &&GateReading| gate.state == GateState::Fail;
    let named = analysis.gates.iter().filter(broken);
    let named: Vec<String> =
        named.map(|gate| format!("{} {} ({})", gate.metric, gate.shown, gate.rule)).collect();
    let reason = format!("{} is proven to be broken since the rollout completed", named.join(", "));
    draft.fact(&Actor::serin(), Action::WatchBreached, &reason, record(watch, analysis));
    match before {
        Some(Before { plan, salt }) => {
            let taken_back = pack.stable.clone();
            draft.start(RolloutKind::Undo, plan, salt, &Actor::serin(), &reason);
            draft.take_back(taken_back);
        }
        None => draft.end_watch(WatchState::Breached { at: now, reason }),
    }
    draft.finish()
}

/// The watch that goes on, with the rollout that it follows.
pub fn running(pack: &PackState) -> Option<(&Watch, &Rollout)> {
    let watch = pack.watch.as_ref().filter(|watch| watch.is_running())?;
    let rollout = pack.rollout.as_ref().filter(|rollout| rollout.id == watch.rollout)?;
    rollout.ended().filter(|ended| ended.how == End::Completed)?;
    Some((watch, rollout))
}

/// What the audit log keeps of a look.
fn record(watch: &Watch, analysis: &Analysis) -> serde_json::Value {
    json!({
        "since": watch.since,
        "until": watch.until,
        "on_breach": watch.on_breach,
        "analysis": analysis,
    })
}

impl Draft {
    /// Begins the watch that a completed rollout asks for; what new sessions are stamped with.
    pub(crate) fn begin_watch(&mut self, plan: &Plan) -> Option<Stamp> {
        let now = self.now();
        let rollout = self.pack.rollout.as_ref()?;
        let watch = Watch::of(plan, rollout, now);
        let stamp = watch.as_ref().map(|watch| watch.stamp(rollout.revision));
        self.pack.watch = watch;
        stamp
    }

    /// Ends the watch: new sessions are stamped no longer.
    fn end_watch(&mut self, state: WatchState) {
        self.restamp(None);
        if let Some(watch) = self.pack.watch.as_mut() {
            watch.state = state;
        }
    }

    /// Forgets the watch because a rollout starts.
    pub(crate) fn drop_watch(&mut self) {
        if self.pack.watch.take().is_some_and(|watch| watch.is_running()) {
            self.restamp(None);
        }
    }

    fn watch_slice(&mut self, slice: u16) {
        let revision = self.pack.rollout.as_ref().map_or(0, |rollout| rollout.revision);
        let stamp = self.pack.watch.as_mut().map(|watch| {
            watch.slice = slice;
            watch.stamp(revision)
        });
        self.restamp(stamp);
    }

    fn restamp(&mut self, stamp: Option<Stamp>) {
        let stable = self.pack.stable.clone();
        self.pack.base = self.open_cohort(stable, Variant::Stable, stamp);
    }
}
