//! The state of one pack, and the transitions that change it.
//!
//! A [`PackState`] is everything that is stored about a pack besides its versions. It changes only
//! by a [`Transition`], which is committed if the stored revision is still the one it started from.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::analysis::Analysis;
use crate::audit::{Action, AuditFact};
use crate::ids::{Actor, PackName, RolloutId, Version};
use crate::plan::{InFlight, Plan, SessionPolicy};
use crate::rollout::{Active, End, Ended, Rollout, RolloutKind, Span, State, StepClock};
use crate::routing::{Cohort, CohortId, Stamp, Variant};
use crate::units::{HoldFor, Timestamp};
use crate::watch::Watch;
use crate::weight::Weight;

/// At most this many versions drain at once; the oldest is moved.
pub const MOST_DRAINING: usize = 3;
/// A version drains for so long at least: a session that was assigned just before may be on its way to its pin.
pub const LEAST_DRAIN: HoldFor = HoldFor::from_mins(1);
/// At most this many earlier stable versions are remembered.
pub const MOST_HISTORY: usize = 100;

/// Everything that is stored about a pack besides its versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackState {
    /// Its name.
    pub name: PackName,
    /// Grows by one with each transition of the pack; the compare-and-set of the store.
    pub revision: u64,
    /// The version of sessions without a rollout.
    pub stable: Version,
    /// Earlier stable versions, oldest first.
    pub history: Vec<Version>,
    /// Versions that only keep the sessions they have.
    pub draining: Vec<Draining>,
    /// The cohort of sessions without a rollout.
    pub base: CohortId,
    /// The number of the next cohort.
    pub next_cohort: CohortId,
    /// Rollouts so far.
    pub attempts: u64,
    /// How long sessions live.
    pub sessions: SessionPolicy,
    /// The rollout under way, or the latest one.
    pub rollout: Option<Rollout>,
    /// Versions whose last rollout was rolled back; only `retry` starts them again.
    pub rolled_back: Vec<Version>,
    /// The watch over stable that the last completion began, until a rollout starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
}

/// A version that only keeps the sessions it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// The version.
    pub version: Version,
    /// Since when it gets no new sessions.
    #[serde(default)]
    pub since: Timestamp,
    /// Its sessions are moved then at the latest.
    pub until: Timestamp,
}

/// One committed change of a pack.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The revision that it started from; nothing for the first transition of a pack.
    pub from_revision: Option<u64>,
    /// The state that it leads to.
    pub pack: PackState,
    /// Cohorts that it opens.
    pub cohorts: Vec<Cohort>,
    /// What goes to the audit log.
    pub facts: Vec<AuditFact>,
    /// The check that it records.
    pub check: Option<Analysis>,
    /// Rollouts that it ends besides the current one of the state (a superseded one).
    pub superseded: Option<Rollout>,
    /// Whether it is a rollback, which waits for nothing.
    pub is_rollback: bool,
}

impl PackState {
    /// The rollout under way.
    pub fn active(&self) -> Option<(&Rollout, &Active)> {
        let rollout = self.rollout.as_ref()?;
        rollout.active().map(|active| (rollout, active))
    }

    /// The last point in time that is known to have passed; nothing before the first rollout.
    pub fn last_at(&self) -> Option<Timestamp> {
        self.rollout.as_ref().map(|rollout| match &rollout.state {
            State::Active(active) => active.last_at,
            State::Ended(ended) => ended.at,
        })
    }
}

/// Retires the versions that drain no longer: those in `ended`, which have no session left, and those whose time is
/// over; nothing where there is none.
pub fn retire(pack: &PackState, ended: &BTreeSet<Version>, now: Timestamp) -> Option<Transition> {
    let has_ended =
        |draining: &Draining| ended.contains(&draining.version) && LEAST_DRAIN.after(draining.since) <= now;
    if !pack.draining.iter().any(|draining| draining.until <= now || has_ended(draining)) {
        return None;
    }
    let mut draft = Draft::of(pack, now);
    let (over, draining): (Vec<_>, Vec<_>) =
        std::mem::take(&mut draft.pack.draining).into_iter().partition(has_ended);
    draft.pack.draining = draining;
    for draining in over {
        draft.retired(&draining.version, "its last session has ended");
    }
    Some(draft.finish())
}

/// A transition in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) pack: PackState,
    from_revision: Option<u64>,
    cohorts: Vec<Cohort>,
    facts: Vec<AuditFact>,
    pub(crate) check: Option<Analysis>,
    superseded: Option<Rollout>,
    is_rollback: bool,
    now: Timestamp,
}

impl Draft {
    /// Begins a transition of a pack, never before the one that it follows.
    pub(crate) fn of(pack: &PackState, now: Timestamp) -> Self {
        let now = pack.last_at().map_or(now, |last_at| last_at.max(now));
        let mut pack = pack.clone();
        let from_revision = Some(pack.revision);
        pack.revision += 1;
        let (draining, over): (Vec<_>, Vec<_>) =
            pack.draining.into_iter().partition(|draining| now < draining.until);
        pack.draining = draining;
        let mut draft = Self::empty(pack, from_revision, now);
        if let Some(rollout) = draft.pack.rollout.as_mut()
            && matches!(rollout.state, State::Active(_))
        {
            rollout.revision += 1;
        }
        for draining in over {
            draft.retired(&draining.version, "it has drained for as long as a session may live");
        }
        draft
    }

    /// Begins the first transition of a pack: its first version becomes stable.
    pub(crate) fn first(plan: &Plan, now: Timestamp) -> Self {
        let base =
            Cohort { id: CohortId(0), version: plan.version.clone(), variant: Variant::Stable, stamp: None };
        let pack = PackState {
            name: plan.pack.clone(),
            revision: 1,
            stable: plan.version.clone(),
            history: Vec::new(),
            draining: Vec::new(),
            base: base.id,
            next_cohort: CohortId(1),
            attempts: 0,
            sessions: plan.sessions,
            rollout: None,
            rolled_back: Vec::new(),
            watch: None,
        };
        let mut draft = Self::empty(pack, None, now);
        draft.cohorts.push(base);
        draft
    }

    fn empty(pack: PackState, from_revision: Option<u64>, now: Timestamp) -> Self {
        Self {
            pack,
            from_revision,
            cohorts: vec![],
            facts: vec![],
            check: None,
            superseded: None,
            is_rollback: false,
            now,
        }
    }

    /// When it happens.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Notes a fact for the audit log.
    pub(crate) fn fact(&mut self, actor: &Actor, action: Action, reason: &str, evidence: serde_json::Value) {
        let rollout = self.pack.rollout.as_ref();
        self.facts.push(AuditFact {
            at: self.now,
            rollout: rollout.map(|rollout| rollout.id.clone()),
            revision: rollout.map_or(self.pack.revision, |rollout| rollout.revision),
            actor: actor.clone(),
            action,
            reason: reason.to_owned(),
            evidence,
        });
    }

    /// The active state of the rollout under way.
    ///
    /// # Panics
    /// When there is none, which the caller has checked.
    pub(crate) fn active(&mut self) -> &mut Active {
        match self.pack.rollout.as_mut().map(|rollout| &mut rollout.state) {
            Some(State::Active(active)) => active,
            Some(State::Ended(_)) | None => unreachable!("the caller has checked that a rollout is active"),
        }
    }

    /// Starts a rollout at step 0, or completes it at once when it is not a canary.
    pub(crate) fn start(&mut self, kind: RolloutKind, plan: &Plan, salt: &str, actor: &Actor, reason: &str) {
        let now = self.now;
        self.drop_watch();
        self.pack.attempts += 1;
        self.pack.rolled_back.retain(|version| *version != plan.version);
        self.pack.sessions = plan.sessions;
        let rollout = Rollout {
            id: RolloutId::of(&self.pack.name, self.pack.attempts),
            attempt: self.pack.attempts,
            kind,
            stable: self.pack.stable.clone(),
            canary: plan.version.clone(),
            salt: salt.to_owned(),
            started_by: actor.clone(),
            started_with: actor.origin().key,
            reason: reason.to_owned(),
            started_at: now,
            revision: 1,
            spans: Vec::new(),
            overridden: Vec::new(),
            state: State::Active(Box::new(Active {
                step: 0,
                slice: 0,
                entered_at: now,
                clock: StepClock::started(now),
                cohorts: Vec::new(),
                holds: Default::default(),
                failed_checks: 0,
                last_check: None,
                baseline: None,
                approved: false,
                approvals: Vec::new(),
                frozen: HoldFor::ZERO,
                frozen_before_step: HoldFor::ZERO,
                waived: Default::default(),
                waived_segments: Default::default(),
                guard_tripped: Default::default(),
                last_at: now,
            })),
        };
        self.pack.rollout = Some(rollout);
        match kind {
            RolloutKind::Canary => {
                self.open_step(plan, 0);
                let weights: Vec<f64> = self.weights().iter().map(|weight| weight.percent()).collect();
                let evidence =
                    json!({"from": self.pack.stable, "to": plan.version, "weights_percent": weights});
                self.fact(actor, Action::RolloutStarted, reason, evidence);
            }
            RolloutKind::Immediate | RolloutKind::Undo => {
                let evidence = json!({"from": self.pack.stable, "to": plan.version, "kind": kind});
                self.fact(actor, Action::RolloutStarted, reason, evidence);
                self.complete(plan, actor, reason);
            }
        }
    }

    fn weights(&self) -> &[Weight] {
        self.pack.rollout.as_ref().map_or(&[], Rollout::weights)
    }

    /// Enters a step: its weights, its cohorts, a fresh step clock.
    pub(crate) fn open_step(&mut self, plan: &Plan, step: u16) {
        let weights = plan.weights(usize::from(step), self.now);
        let now = self.now;
        let cohorts = self.open_cohorts(plan, step, 0, &weights);
        let active = self.active();
        let clock = StepClock::started(now);
        active.clock = if active.holds.is_empty() { clock } else { clock.stopped(now) };
        active.step = step;
        active.slice = 0;
        active.entered_at = now;
        active.cohorts = cohorts;
        active.approved = false;
        active.approvals = Vec::new();
        active.frozen_before_step = active.frozen_until(now);
        if let Some(rollout) = self.pack.rollout.as_mut() {
            rollout.spans.push(Span { from: now, step, weights });
        }
    }

    /// Goes on to the next part of a long step: new cohorts at the same weights.
    pub(crate) fn open_slice(&mut self, plan: &Plan, slice: u16) {
        let (step, weights) = (self.active().step, self.weights().to_vec());
        let cohorts = self.open_cohorts(plan, step, slice, &weights);
        let active = self.active();
        active.slice = slice;
        active.cohorts = cohorts;
    }

    /// Changes the weights in the middle of a step: new cohorts, in the part of the step that it is in.
    pub(crate) fn change_weights(&mut self, plan: &Plan, weights: Vec<Weight>) {
        let (now, step, slice) = (self.now, self.active().step, self.active().slice);
        let cohorts = self.open_cohorts(plan, step, slice, &weights);
        self.active().cohorts = cohorts;
        if let Some(rollout) = self.pack.rollout.as_mut() {
            rollout.spans.push(Span { from: now, step, weights });
        }
    }

    /// Opens a stable and a canary cohort for each segment.
    fn open_cohorts(
        &mut self,
        plan: &Plan,
        step: u16,
        slice: u16,
        weights: &[Weight],
    ) -> Vec<(CohortId, CohortId)> {
        let Some(rollout) = self.pack.rollout.as_ref() else { return Vec::new() };
        let (id, revision) = (rollout.id.clone(), rollout.revision);
        let (stable, canary) = (rollout.stable.clone(), rollout.canary.clone());
        let observing = plan.steps[usize::from(step)].phase == crate::plan::StepPhase::Observing;
        let mut opened = Vec::with_capacity(weights.len());
        for (segment, weight) in weights.iter().enumerate() {
            let stamp = Stamp {
                rollout: id.clone(),
                revision,
                step,
                start: plan.start(step, slice),
                segment: u8::try_from(segment).expect("a plan has at most 100 segments"),
                weight: *weight,
                observing,
            };
            let stable = self.open_cohort(stable.clone(), Variant::Stable, Some(stamp.clone()));
            let canary = self.open_cohort(canary.clone(), Variant::Canary, Some(stamp));
            opened.push((stable, canary));
        }
        opened
    }

    /// Opens a cohort with the next number.
    pub(crate) fn open_cohort(
        &mut self,
        version: Version,
        variant: Variant,
        stamp: Option<Stamp>,
    ) -> CohortId {
        let id = self.pack.next_cohort;
        self.pack.next_cohort = CohortId(id.0 + 1);
        self.cohorts.push(Cohort { id, version, variant, stamp });
        id
    }

    /// Ends the rollout under way with the canary as the new stable.
    pub(crate) fn complete(&mut self, plan: &Plan, actor: &Actor, reason: &str) {
        let Some(canary) = self.pack.rollout.as_ref().map(|rollout| rollout.canary.clone()) else { return };
        self.end(End::Completed, actor, reason);
        let old = std::mem::replace(&mut self.pack.stable, canary.clone());
        self.pack.draining.retain(|draining| draining.version != canary);
        // An undo takes a version out of service as a rollback does.
        let is_undo = self.pack.rollout.as_ref().is_some_and(|rollout| rollout.kind == RolloutKind::Undo);
        let in_flight = if is_undo { self.pack.sessions.on_rollback } else { self.pack.sessions.on_promote };
        match in_flight {
            InFlight::Drain => self.drain(old.clone()),
            InFlight::Move => {}
        }
        self.pack.history.retain(|version| *version != old && *version != canary);
        self.pack.history.push(old.clone());
        if self.pack.history.len() > MOST_HISTORY {
            self.pack.history.remove(0);
        }
        let stamp = self.begin_watch(plan);
        self.pack.base = self.open_cohort(canary.clone(), Variant::Stable, stamp);
        let watched_until = self.pack.watch.as_ref().map(|watch| watch.until);
        let mut evidence = json!({"stable": canary, "before": old});
        if let Some(until) = watched_until {
            evidence["watched_until"] = json!(until);
        }
        self.fact(actor, Action::Completed, reason, evidence);
    }

    /// Ends the rollout under way with everyone back on stable.
    pub(crate) fn roll_back(&mut self, how: End, actor: &Actor, reason: &str, evidence: serde_json::Value) {
        let Some(canary) = self.pack.rollout.as_ref().map(|rollout| rollout.canary.clone()) else { return };
        self.end(how, actor, reason);
        self.is_rollback = true;
        self.leave_canary(canary.clone());
        self.pack.rolled_back.push(canary);
        self.fact(actor, Action::RolledBack, reason, evidence);
    }

    /// Ends the rollout under way because another version takes its place.
    pub(crate) fn supersede(&mut self, by: &Version, actor: &Actor, reason: &str) {
        let Some(canary) = self.pack.rollout.as_ref().map(|rollout| rollout.canary.clone()) else { return };
        self.end(End::Superseded { by: by.clone() }, actor, reason);
        if canary != *by {
            self.leave_canary(canary.clone());
        }
        self.fact(actor, Action::Superseded, reason, json!({"canary": canary, "by": by}));
        self.superseded = self.pack.rollout.take();
    }

    /// Moves or drains the sessions of a canary that is not going to be stable.
    fn leave_canary(&mut self, canary: Version) {
        match self.pack.sessions.on_rollback {
            InFlight::Move => {}
            InFlight::Drain => self.drain(canary),
        }
        // Sessions that move get a cohort of their own, so that no rollout counts them.
        self.pack.base = self.open_cohort(self.pack.stable.clone(), Variant::Stable, None);
    }

    /// Notes that the version which was stable until now was taken back by a person.
    ///
    /// Applying it again is no wish to go back to it at once: only `retry` starts it again, as a canary.
    pub(crate) fn take_back(&mut self, version: Version) {
        self.pack.history.retain(|earlier| *earlier != version);
        self.pack.rolled_back.push(version);
    }

    fn drain(&mut self, version: Version) {
        let until = self.pack.sessions.max_lifetime.after(self.now);
        self.pack.draining.retain(|draining| draining.version != version);
        self.pack.draining.push(Draining { version, since: self.now, until });
        if self.pack.draining.len() > MOST_DRAINING {
            let oldest = self.pack.draining.remove(0);
            let reason = format!("more than {MOST_DRAINING} versions would drain; the sessions it has move");
            self.retired(&oldest.version, &reason);
        }
    }

    /// Notes that a version is out of service: a session that it still has moves with its next user turn.
    fn retired(&mut self, version: &Version, reason: &str) {
        self.fact(&Actor::serin(), Action::Retired, reason, json!({"version": version}));
    }

    fn end(&mut self, how: End, actor: &Actor, reason: &str) {
        let now = self.now;
        if let Some(rollout) = self.pack.rollout.as_mut()
            && let State::Active(active) = &rollout.state
        {
            let ended = Ended {
                at: now,
                how,
                actor: actor.clone(),
                reason: reason.to_owned(),
                step: active.step,
                baseline: active.baseline.clone(),
            };
            rollout.state = State::Ended(ended);
        }
    }

    /// The finished transition.
    pub(crate) fn finish(mut self) -> Transition {
        let now = self.now;
        if let Some(State::Active(active)) = self.pack.rollout.as_mut().map(|rollout| &mut rollout.state) {
            active.last_at = active.last_at.max(now);
        }
        Transition {
            from_revision: self.from_revision,
            pack: self.pack,
            cohorts: self.cohorts,
            facts: self.facts,
            check: self.check,
            superseded: self.superseded,
            is_rollback: self.is_rollback,
        }
    }
}
