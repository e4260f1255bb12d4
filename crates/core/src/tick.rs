//! The automatic side of the state machine: given what was seen, what happens now.
//!
//! [`tick`] makes at most one transition. The caller commits it and asks again, at the same point in
//! time, until there is nothing to do.

pub mod windows;

use std::collections::BTreeMap;

use serde_json::json;

use crate::alert;
use crate::analysis::{Analysis, Evidence, Verdict, analyze};
use crate::audit::Action;
use crate::command::{clear_alert_hold, clear_hold, set_alert_hold, set_hold, step_evidence};
use crate::evidence::{BASELINE_SESSIONS, Baseline, LEAST_BASELINE_SESSIONS};
use crate::ids::Actor;
use crate::pack::{Draft, PackState, Transition};
use crate::plan::{Plan, Step, StepPhase};
use crate::policy::Approving;
use crate::rollout::{Active, CheckOutcome, CheckSummary, End, HoldCause, RollbackCause, Rollout};
use crate::units::{HoldFor, Timestamp};

/// What a tick comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Tick {
    /// Something happens.
    Transition(Box<Transition>),
    /// Nothing happens before then, unless a person says so.
    Idle {
        /// When to ask again.
        until: Timestamp,
    },
}

/// Which sessions of stable a rollout wants its baseline from, while it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaselineWanted {
    /// Sessions assigned from then on.
    pub from: Timestamp,
    /// Sessions assigned before then.
    pub to: Timestamp,
    /// How many sessions suffice.
    pub least: u64,
}

/// How far back sessions of stable serve as a baseline.
const BASELINE_LOOKBACK: HoldFor = HoldFor::from_hours(24);

/// Where a rollout without a baseline may take one from, best first: stable's last day, or what Observing collected.
pub fn baseline_wanted(pack: &PackState, plan: &Plan, now: Timestamp) -> Vec<BaselineWanted> {
    let Some((rollout, active)) = pack.active() else { return Vec::new() };
    if active.baseline.is_some() {
        return Vec::new();
    }
    let before = BASELINE_LOOKBACK.before(rollout.started_at);
    let mut wanted = vec![BaselineWanted { from: before, to: rollout.started_at, least: BASELINE_SESSIONS }];
    if active.step_time_passed(plan, now) || active.step > 0 {
        // Without gates there is nothing to judge, and no constants are waited for.
        let least = if plan.analysis.gates.is_empty() { 0 } else { LEAST_BASELINE_SESSIONS };
        wanted.push(BaselineWanted { from: before, to: now, least });
    }
    wanted
}

/// When a rollout has to be looked at again at the latest; nothing without an active one.
pub fn next_due(pack: &PackState, plan: &Plan) -> Option<Timestamp> {
    let (rollout, active) = pack.active()?;
    let check = active.next_check_at(plan, rollout.started_at);
    let window = windows::next_change(plan, rollout, active, active.last_at).map(|(at, _)| at);
    let step_end = next_step_at(plan, active);
    // A step whose time has passed waits for a check, not for the clock.
    let step_end = step_end.filter(|end| *end > active.last_at);
    // A rollout that begins or moves on in a freeze is held at once.
    let is_held = active.holds.contains_key(&HoldCause::Frozen);
    let freeze = match plan.imposed.is_frozen(active.last_at) == is_held {
        true => plan.imposed.next_change(active.last_at),
        false => Some(active.last_at),
    };
    [Some(check), window, step_end, freeze].into_iter().flatten().min()
}

/// When the next step may start at the earliest: the current one's time has passed, and a window that the next
/// one asks for is open; nothing on hold, unless it is a freeze alone, which ends by itself.
pub fn next_step_at(plan: &Plan, active: &Active) -> Option<Timestamp> {
    let only_frozen =
        !active.holds.is_empty() && active.holds.keys().all(|cause| *cause == HoldCause::Frozen);
    let end = match (active.step_ends_at(plan), plan.imposed.thaws_at(active.last_at)) {
        (Some(end), _) if active.holds.is_empty() => end,
        // What remains of the step runs on when the freeze is over.
        (None, Some(thaw)) if only_frozen => {
            plan.imposed.after(thaw, step(plan, active).hold.minus(active.clock.accrued))
        }
        (Some(_) | None, Some(_) | None) => return None,
    };
    let next = usize::from(active.step) + 1;
    let at = if next < plan.steps.len() { plan.may_start_at(next, end.max(active.last_at)) } else { end };
    // A freeze without an end lets nothing start.
    (at < Timestamp::MAX).then_some(at)
}

/// Decides what happens now; `evidence` is what was seen up to now.
pub fn tick(pack: &PackState, plan: &Plan, evidence: &Evidence, now: Timestamp) -> Tick {
    let Some((rollout, active)) = pack.active() else { return Tick::Idle { until: Timestamp::MAX } };
    let now = active.last_at.max(now);
    let decided = freeze_baseline(pack, active, evidence, now)
        .or_else(|| check(pack, plan, rollout, active, evidence, now))
        .or_else(|| adjust_holds(pack, plan, rollout, active, evidence, now))
        .or_else(|| advance(pack, plan, active, now))
        .or_else(|| windows::follow(pack, plan, rollout, active, now));
    match decided {
        Some(transition) => Tick::Transition(Box::new(transition)),
        None => Tick::Idle { until: next_due(pack, plan).unwrap_or(Timestamp::MAX) },
    }
}

/// Freezes the constants of the comparison as soon as they are offered.
fn freeze_baseline(
    pack: &PackState,
    active: &Active,
    evidence: &Evidence,
    now: Timestamp,
) -> Option<Transition> {
    let candidate: &Baseline = match (&active.baseline, &evidence.baseline_candidate) {
        (None, Some(candidate)) => candidate,
        (Some(_), _) | (None, None) => return None,
    };
    let mut draft = Draft::of(pack, now);
    draft.active().baseline = Some(candidate.clone());
    let reason = format!("constants frozen from {} sessions of stable", candidate.sessions);
    draft.fact(&Actor::serin(), Action::BaselineFrozen, &reason, json!({"baseline": candidate}));
    Some(draft.finish())
}

/// Makes the check that is due, and draws its consequences.
fn check(
    pack: &PackState,
    plan: &Plan,
    rollout: &Rollout,
    active: &Active,
    evidence: &Evidence,
    now: Timestamp,
) -> Option<Transition> {
    if now < active.next_check_at(plan, rollout.started_at) {
        return None;
    }
    let last_at = active.last_check.as_ref().map_or(rollout.started_at, |check| check.at);
    let gap = HoldFor::between(last_at, now);
    let interval = plan.analysis.interval;
    let actor = Actor::serin();
    let mut draft = Draft::of(pack, now);
    if gap > interval.times(2) {
        let unseen = gap.minus(interval);
        let state = draft.active();
        state.clock = state.clock.without(unseen, now);
        let reason = format!("nobody watched for {gap}; that time does not count towards the step");
        draft.fact(&actor, Action::Unobserved, &reason, json!({"gap_ms": gap.millis(), "from": last_at}));
    }

    let analysis = analyze(plan, active, evidence, now);
    let deciding = decides(plan, rollout, active.step, now);
    let outcome = outcome_of(plan, rollout, &analysis);
    let number = active.last_check.as_ref().map_or(0, |check| check.number) + 1;
    let state = draft.active();
    state.last_check = Some(CheckSummary {
        number,
        at: now,
        step: active.step,
        outcome,
        summary: analysis.summary(),
        holds: if deciding { analysis.holds.clone() } else { BTreeMap::new() },
        degraded: analysis.degraded.clone(),
        degraded_segments: analysis.degraded_segments.clone(),
    });
    if deciding {
        // What holds goes on holding, and says how far it has come.
        for (cause, hold) in &mut state.holds {
            if let Some(reason) = analysis.holds.get(cause) {
                hold.reason.clone_from(reason);
            }
        }
    }
    state.guard_tripped = analysis.guard_tripped.clone();
    state.failed_checks = match outcome {
        CheckOutcome::Fail => state.failed_checks + 1,
        CheckOutcome::Observed
        | CheckOutcome::Pass
        | CheckOutcome::AtRisk
        | CheckOutcome::NoData
        | CheckOutcome::StableFails => 0,
    };
    let failed = state.failed_checks;
    if outcome == CheckOutcome::Fail {
        let evidence = record(&analysis);
        let reason =
            format!("failed check {failed} of {}: {}", plan.analysis.failure_threshold, analysis.summary());
        draft.fact(&actor, Action::CheckFailed, &reason, evidence.clone());
        if failed >= plan.analysis.failure_threshold {
            let how = End::RolledBack { cause: RollbackCause::Gates, culprits: analysis.culprits.clone() };
            let reason = analysis.summary();
            draft.roll_back(how, &actor, &reason, evidence);
        }
    }
    if let Some((_, active)) = draft.pack.active() {
        let slice = plan.slice_at(active.step, active.clock.elapsed(now));
        if slice > active.slice {
            draft.open_slice(plan, slice);
        }
    }
    draft.check = Some(Analysis { number, ..analysis });
    Some(draft.finish())
}

/// What the audit log keeps of a check.
fn record(analysis: &Analysis) -> serde_json::Value {
    serde_json::to_value(analysis).expect("an analysis holds numbers, text and lists only")
}

/// Whether checks decide in a step at a point in time.
fn decides(plan: &Plan, rollout: &Rollout, step: u16, now: Timestamp) -> bool {
    let delayed = now < plan.analysis.initial_delay.after(rollout.started_at);
    let observing = is_observing(plan, step) && plan.analysis.initial_delay > HoldFor::ZERO;
    !delayed && !observing
}

fn is_observing(plan: &Plan, step: u16) -> bool {
    plan.steps[usize::from(step)].phase == StepPhase::Observing
}

/// What a check comes to, given when and where it was made.
pub(crate) fn outcome_of(plan: &Plan, rollout: &Rollout, check: &Analysis) -> CheckOutcome {
    if decides(plan, rollout, check.step, check.at) {
        check.verdict.outcome()
    } else {
        CheckOutcome::Observed
    }
}

/// Whether a step may end after a check, as far as the check is concerned.
pub(crate) fn allows_next_step(plan: &Plan, step: u16, check_step: u16, outcome: CheckOutcome) -> bool {
    // Observing without checks that decide ends by time and baseline alone.
    let observing = is_observing(plan, step);
    match outcome {
        CheckOutcome::Pass => observing || check_step == step,
        CheckOutcome::Observed | CheckOutcome::AtRisk | CheckOutcome::NoData | CheckOutcome::StableFails => {
            observing
        }
        CheckOutcome::Fail => false,
    }
}

fn step<'p>(plan: &'p Plan, active: &Active) -> &'p Step {
    &plan.steps[usize::from(active.step)]
}

/// The holds that rules demand right now, with their reasons.
fn rule_holds(
    pack: &PackState,
    plan: &Plan,
    rollout: &Rollout,
    active: &Active,
    evidence: &Evidence,
    now: Timestamp,
) -> BTreeMap<HoldCause, String> {
    let mut wanted: BTreeMap<HoldCause, String> = BTreeMap::new();
    if evidence.forced_stable {
        wanted.insert(HoldCause::ForcedStable, "the force-stable file names this pack".to_owned());
    }
    let frozen = active.frozen_until(now);
    if HoldFor::between(rollout.started_at, now).minus(frozen) > plan.progress.deadline {
        wanted
            .insert(HoldCause::Deadline, format!("the rollout takes longer than {}", plan.progress.deadline));
    }
    // Until then a session whose pin was lost gets its version again, for the weight is the one that it was drawn by.
    let settled_at = evidence.back_since.map(|at| pack.sessions.idle_timeout.after(at));
    if let (Some(back_since), Some(settled_at)) = (evidence.back_since, settled_at)
        && rollout.started_at <= back_since
        && now < settled_at
    {
        let reason = format!(
            "the server ended without warning, and sessions that began in its last moments may come back until {settled_at:.0}"
        );
        wanted.insert(HoldCause::Unobserved, reason);
    }
    if let Some(reason) = alert::reason(&evidence.alerts, now) {
        wanted.insert(HoldCause::Alert, reason);
    }
    let time_is_up = active.step_time_passed(plan, now);
    if let Some(check) = &active.last_check {
        for (cause, reason) in &check.holds {
            let waits_for_the_end = cause.is_for_sessions();
            // What a check of an earlier step found says nothing about this one.
            let is_current = check.step == active.step || !waits_for_the_end;
            if is_current && (time_is_up || !waits_for_the_end) {
                wanted.insert(*cause, reason.clone());
            }
        }
    }
    let frozen_in_step = frozen.minus(active.frozen_before_step);
    let waited = HoldFor::between(active.entered_at, now).minus(frozen_in_step);
    if let Some(longest) = plan.progress.max_hold
        && waited > longest
        && waited > step(plan, active).hold
        && !wanted.is_empty()
    {
        // A person has to decide now; the hold goes with what the step waits for.
        wanted
            .entry(HoldCause::Deadline)
            .or_insert_with(|| format!("the step has waited for {waited}, longer than maxHold"));
    }
    if time_is_up {
        if active.baseline.is_none() && step(plan, active).phase == StepPhase::Observing {
            let reason = format!("stable has fewer than {LEAST_BASELINE_SESSIONS} sessions to compare with");
            wanted.insert(HoldCause::NoBaseline, reason);
        }
        if active.waits_for_approval(plan) {
            wanted.insert(HoldCause::ApprovalDue, approval_due(plan, active));
        }
    }
    if let Some(frozen) = plan.imposed.frozen_at(now) {
        wanted.insert(HoldCause::Frozen, frozen.to_string());
    }
    wanted
}

/// What a step waits for that waits for approval.
pub(crate) fn approval_due(plan: &Plan, active: &Active) -> String {
    let Approving { count, by_others } = &plan.imposed.approving;
    let given = active.approvals_given();
    match by_others {
        None => "the step asks for a person's approval".to_owned(),
        Some(rule) if *count == 1 => format!("the rule {rule} asks for the approval of somebody else"),
        Some(rule) => format!("the rule {rule} asks for the approval of {count} others, and {given} gave it"),
    }
}

/// Sets and clears the holds of rules, where they differ from what the rules demand.
fn adjust_holds(
    pack: &PackState,
    plan: &Plan,
    rollout: &Rollout,
    active: &Active,
    evidence: &Evidence,
    now: Timestamp,
) -> Option<Transition> {
    let wanted = rule_holds(pack, plan, rollout, active, evidence, now);
    let is_new = |cause: &HoldCause, reason: &String| match active.holds.get(cause) {
        None => true,
        // Other alerts may fire than when the hold was set.
        Some(hold) => *cause == HoldCause::Alert && hold.reason != *reason,
    };
    let set: Vec<(&HoldCause, &String)> =
        wanted.iter().filter(|(cause, reason)| is_new(cause, reason)).collect();
    let cleared: Vec<HoldCause> = active
        .holds
        .keys()
        .copied()
        .filter(|cause| !cause.is_by_person() && !wanted.contains_key(cause))
        .collect();
    if set.is_empty() && cleared.is_empty() {
        return None;
    }
    let actor = Actor::serin();
    let mut draft = Draft::of(pack, now);
    for (cause, reason) in set {
        if *cause == HoldCause::Alert {
            set_alert_hold(&mut draft, reason, &evidence.alerts, now);
        } else {
            set_hold(&mut draft, *cause, reason, &actor, now);
        }
    }
    for cause in cleared {
        if cause == HoldCause::Alert {
            clear_alert_hold(&mut draft, &evidence.alerts, now);
        } else {
            clear_hold(&mut draft, cause, "its cause is gone", &actor, now);
        }
    }
    Some(draft.finish())
}

/// Enters the next step, or completes, when the current step's time has passed and nothing is in the way.
fn advance(pack: &PackState, plan: &Plan, active: &Active, now: Timestamp) -> Option<Transition> {
    if !active.holds.is_empty() || !active.step_time_passed(plan, now) {
        return None;
    }
    let check = active.last_check.as_ref()?;
    let may_advance = allows_next_step(plan, active.step, check.step, check.outcome);
    if !may_advance || active.baseline.is_none() {
        return None;
    }
    let actor = Actor::serin();
    let mut draft = Draft::of(pack, now);
    let next = active.step + 1;
    if usize::from(next) >= plan.steps.len() {
        draft.complete(plan, &actor, "every step has passed");
    } else if plan.may_start_at(usize::from(next), now) > now {
        return None;
    } else {
        draft.open_step(plan, next);
        let reason = format!("step {} of {}: {}", next + 1, plan.steps.len(), check.summary);
        draft.fact(&actor, Action::StepEntered, &reason, step_evidence(plan, next, now));
    }
    Some(draft.finish())
}

impl Verdict {
    /// What the check comes to.
    fn outcome(self) -> CheckOutcome {
        match self {
            Self::Pass => CheckOutcome::Pass,
            Self::AtRisk => CheckOutcome::AtRisk,
            Self::NoData => CheckOutcome::NoData,
            Self::Fail => CheckOutcome::Fail,
            Self::StableFails => CheckOutcome::StableFails,
        }
    }
}
