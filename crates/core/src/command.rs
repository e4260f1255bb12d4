//! What people may tell a rollout to do.

use serde_json::json;

use crate::alert::{self, Alert};
use crate::audit::Action;
use crate::ids::{Actor, Version};
use crate::metric::MetricName;
use crate::pack::{Draft, PackState, Transition};
use crate::plan::{Plan, Strategy};
use crate::policy::is_one;
use crate::rollout::{Approval, CheckOutcome, End, Hold, HoldCause, RollbackCause, RolloutKind, State};
use crate::tick::approval_due;
use crate::units::Timestamp;

/// What people may tell a rollout to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Stop advancing until `Resume`.
    Pause,
    /// Clear a person's pause.
    Resume,
    /// Approve the step that waits for it.
    Approve,
    /// Enter the next step now, past every hold except a failing check.
    Promote,
    /// Make the canary stable now.
    PromoteFully,
    /// Bring everyone back to stable; after completion, back to the version before.
    Rollback,
    /// Start a new rollout of the version that was rolled back or superseded last.
    Retry,
}

impl Command {
    /// The word of the command line and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Promote => "promote",
            Self::PromoteFully => "promote --full",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
        }
    }
}

/// Why a command was refused; nothing changes then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The pack has no rollout under way.
    #[error("cannot {command}: pack {pack} has no active rollout")]
    Idle {
        /// The command.
        command: &'static str,
        /// The pack.
        pack: String,
    },
    /// The rollout is paused already, or not paused.
    #[error("cannot {command}: the rollout is {state}")]
    AlreadySo {
        /// The command.
        command: &'static str,
        /// How it stands.
        state: &'static str,
    },
    /// A failing check stands in the way.
    #[error("cannot promote: the last check failed ({0})")]
    CheckFails(String),
    /// There is nothing to go back to.
    #[error("cannot roll back: pack {0} has no active rollout and no earlier stable version")]
    NothingBefore(String),
    /// There is nothing to try again.
    #[error("cannot retry: {0}")]
    NothingToRetry(String),
}

impl Refused {
    /// What the user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Idle { .. } => "`serin get packs` lists what is under way",
            Self::AlreadySo { .. } => "`serin status` shows how the rollout stands",
            Self::CheckFails(_) => "wait for a check that does not fail, or roll back",
            Self::NothingBefore(_) => "apply the version that you want",
            Self::NothingToRetry(_) => "apply a version to start a rollout",
        }
    }
}

/// Which version a command needs the plan of, besides the plan of the rollout under way.
///
/// `Rollback` of an idle pack and `Retry` start a rollout, whose plan the caller has to read first.
///
/// # Errors
/// [`Refused`] when the command cannot be carried out as the pack stands.
pub fn needs_plan_of(pack: &PackState, command: Command) -> Result<Option<Version>, Refused> {
    match (command, pack.active()) {
        (Command::Rollback, None) => {
            let before = pack.history.last().cloned();
            before.map(Some).ok_or_else(|| Refused::NothingBefore(pack.name.to_string()))
        }
        (Command::Retry, None) => match pack.rollout.as_ref() {
            Some(rollout) => match rollout.ended().map(|ended| &ended.how) {
                Some(End::RolledBack { .. } | End::Superseded { .. }) => Ok(Some(rollout.canary.clone())),
                Some(End::Completed) if pack.rolled_back.contains(&rollout.stable) => {
                    Ok(Some(rollout.stable.clone()))
                }
                Some(End::Completed) | None => Err(Refused::NothingToRetry(format!(
                    "the last rollout of pack {} is completed",
                    pack.name
                ))),
            },
            None => Err(Refused::NothingToRetry(format!("pack {} had no rollout yet", pack.name))),
        },
        (Command::Retry, Some(_)) => {
            Err(Refused::NothingToRetry(format!("pack {} has an active rollout", pack.name)))
        }
        (
            Command::Pause
            | Command::Resume
            | Command::Approve
            | Command::Promote
            | Command::PromoteFully
            | Command::Rollback,
            _,
        ) => Ok(None),
    }
}

/// Who gives a command, when and why.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Who.
    pub actor: &'a Actor,
    /// Why.
    pub reason: &'a str,
    /// The salt of a rollout that the command may start.
    pub salt: &'a str,
    /// When.
    pub now: Timestamp,
}

/// Carries out a command; `plan` is the plan of the rollout under way, or of [`needs_plan_of`].
///
/// # Errors
/// [`Refused`] when it may not be carried out; nothing changes then.
pub fn command(
    pack: &PackState,
    plan: &Plan,
    command: Command,
    order: Order<'_>,
) -> Result<Transition, Refused> {
    let Order { actor, reason, salt, now } = order;
    let Some((rollout, active)) = pack.active() else {
        needs_plan_of(pack, command)?;
        let kind = match command {
            Command::Rollback => RolloutKind::Undo,
            Command::Retry => match plan.strategy {
                Strategy::Canary => RolloutKind::Canary,
                Strategy::Immediate => RolloutKind::Immediate,
            },
            Command::Pause
            | Command::Resume
            | Command::Approve
            | Command::Promote
            | Command::PromoteFully => {
                return Err(Refused::Idle { command: command.as_str(), pack: pack.name.to_string() });
            }
        };
        let mut draft = Draft::of(pack, now);
        draft.start(kind, plan, salt, actor, reason);
        if kind == RolloutKind::Undo {
            draft.take_back(pack.stable.clone());
        }
        return Ok(draft.finish());
    };
    let now = active.last_at.max(now);
    let mut draft = Draft::of(pack, now);
    match command {
        Command::Pause => {
            if active.holds.contains_key(&HoldCause::Paused) {
                return Err(Refused::AlreadySo { command: "pause", state: "paused already" });
            }
            set_hold(&mut draft, HoldCause::Paused, reason, actor, now);
        }
        Command::Resume => {
            if !active.holds.contains_key(&HoldCause::Paused) {
                return Err(Refused::AlreadySo { command: "resume", state: "not paused" });
            }
            clear_hold(&mut draft, HoldCause::Paused, reason, actor, now);
        }
        Command::Approve => {
            if !active.waits_for_approval(plan) {
                return Err(Refused::AlreadySo { command: "approve", state: "not waiting for an approval" });
            }
            if active.approvals.iter().any(|given| is_one(&given.actor, given.key.as_deref(), actor)) {
                return Err(Refused::AlreadySo { command: "approve", state: "approved by you already" });
            }
            approve(&mut draft, plan, order);
        }
        Command::Promote | Command::PromoteFully => {
            if let Some(check) = &active.last_check
                && check.outcome == CheckOutcome::Fail
            {
                return Err(Refused::CheckFails(check.summary.clone()));
            }
            let passed: Vec<HoldCause> =
                active.holds.keys().copied().filter(|cause| !cause.is_by_person()).collect();
            let evidence = json!({"passed_holds": passed, "from_step": active.step, "full": command == Command::PromoteFully});
            draft.fact(actor, Action::Promoted, reason, evidence);
            let degraded: Vec<MetricName> =
                active.last_check.iter().flat_map(|check| check.degraded.iter().cloned()).collect();
            let state = draft.active();
            state.frozen = state.frozen_until(now);
            state.holds.retain(|cause, _| cause.is_by_person());
            state.waived.extend(degraded);
            let segments = active.last_check.iter().flat_map(|check| check.degraded_segments.iter().cloned());
            state.waived_segments.extend(segments);
            // What the last check found has been passed; only the next one can hold again.
            if let Some(check) = state.last_check.as_mut() {
                check.holds.clear();
            }
            let next = active.step + 1;
            if command == Command::PromoteFully || usize::from(next) >= plan.steps.len() {
                draft.complete(plan, actor, reason);
            } else {
                draft.open_step(plan, next);
                draft.fact(actor, Action::StepEntered, reason, step_evidence(plan, next, now));
            }
        }
        Command::Rollback => {
            let how = End::RolledBack { cause: RollbackCause::Command, culprits: vec![] };
            let evidence = json!({"canary": rollout.canary, "stable": rollout.stable, "step": active.step});
            draft.roll_back(how, actor, reason, evidence);
        }
        Command::Retry => {
            return Err(Refused::NothingToRetry(format!("pack {} has an active rollout", pack.name)));
        }
    }
    Ok(draft.finish())
}

/// Notes the approval of one person; the last one that is needed clears the hold.
fn approve(draft: &mut Draft, plan: &Plan, order: Order<'_>) {
    let Order { actor, reason, .. } = order;
    let now = draft.now();
    let active = draft.active();
    active.approvals.push(Approval { at: now, actor: actor.clone(), key: actor.origin().key });
    let (step, given, needed) = (active.step, active.approvals_given(), plan.imposed.approving.count);
    active.approved = given >= needed;
    let (is_enough, is_due) = (active.approved, active.holds.contains_key(&HoldCause::ApprovalDue));
    if !is_enough {
        let waits_for = approval_due(plan, active);
        if let Some(hold) = active.holds.get_mut(&HoldCause::ApprovalDue) {
            hold.reason = waits_for;
        }
    }
    let evidence = match needed {
        1 => json!({"step": step}),
        needed => json!({"step": step, "given": given, "needed": needed}),
    };
    draft.fact(actor, Action::Approved, reason, evidence);
    if is_enough && is_due {
        clear_hold(draft, HoldCause::ApprovalDue, "approved", actor, now);
    }
}

/// What the audit log keeps of entering a step.
pub(crate) fn step_evidence(plan: &Plan, step: u16, now: Timestamp) -> serde_json::Value {
    let weights: Vec<f64> =
        plan.weights(usize::from(step), now).iter().map(|weight| weight.percent()).collect();
    json!({"step": step, "weights_percent": weights, "phase": plan.steps[usize::from(step)].phase})
}

/// Sets a hold, stops the step clock and notes both.
pub(crate) fn set_hold(draft: &mut Draft, cause: HoldCause, reason: &str, actor: &Actor, now: Timestamp) {
    hold(draft, cause, reason, actor, now);
    draft.fact(actor, Action::HoldSet, reason, json!({"cause": cause, "cleared_by": cause.cleared_by()}));
}

/// Sets the hold of alerts, or tells which alerts it stands for now.
pub(crate) fn set_alert_hold(draft: &mut Draft, reason: &str, alerts: &[Alert], now: Timestamp) {
    let actor = Actor::serin();
    hold(draft, HoldCause::Alert, reason, &actor, now);
    draft.fact(&actor, Action::HoldSet, reason, alert::set_evidence(alerts, now));
}

/// Clears a hold; the step clock runs again when it was the last one.
pub(crate) fn clear_hold(draft: &mut Draft, cause: HoldCause, reason: &str, actor: &Actor, now: Timestamp) {
    release(draft, cause, now);
    draft.fact(actor, Action::HoldCleared, reason, json!({"cause": cause}));
}

/// Clears the hold of alerts, and tells what became of them.
pub(crate) fn clear_alert_hold(draft: &mut Draft, alerts: &[Alert], now: Timestamp) {
    let since = release(draft, HoldCause::Alert, now).map_or(now, |hold| hold.since);
    let reason = alert::reason_to_clear(alerts, since, now);
    let evidence = alert::clear_evidence(alerts, since, now);
    draft.fact(&Actor::serin(), Action::HoldCleared, &reason, evidence);
}

/// Stops the step clock for a cause; one that holds already goes on with another reason.
fn hold(draft: &mut Draft, cause: HoldCause, reason: &str, actor: &Actor, now: Timestamp) {
    let active = draft.active();
    active.clock = active.clock.stopped(now);
    let new = Hold { since: now, reason: String::new(), actor: actor.clone(), reminded: false };
    active.holds.entry(cause).or_insert(new).reason = reason.to_owned();
}

/// Takes a hold away; the step clock runs again when it was the last one.
fn release(draft: &mut Draft, cause: HoldCause, now: Timestamp) -> Option<Hold> {
    let active = draft.active();
    if cause == HoldCause::Frozen {
        active.frozen = active.frozen_until(now);
    }
    let released = active.holds.remove(&cause);
    if active.holds.is_empty() {
        active.clock = active.clock.resumed(now);
    }
    released
}

/// Whether a pack can be told to do something at all; used to show only what is possible.
pub fn is_possible(pack: &PackState, command: Command) -> bool {
    let active = match pack.rollout.as_ref().map(|rollout| &rollout.state) {
        Some(State::Active(active)) => Some(active),
        Some(State::Ended(_)) | None => None,
    };
    match (command, active) {
        (Command::Pause, Some(active)) => !active.holds.contains_key(&HoldCause::Paused),
        (Command::Resume, Some(active)) => active.holds.contains_key(&HoldCause::Paused),
        (Command::Approve, Some(active)) => active.holds.contains_key(&HoldCause::ApprovalDue),
        (Command::Promote | Command::PromoteFully | Command::Rollback, Some(_)) => true,
        (Command::Retry, Some(_)) => false,
        (Command::Rollback | Command::Retry, None) => needs_plan_of(pack, command).is_ok(),
        (
            Command::Pause | Command::Resume | Command::Approve | Command::Promote | Command::PromoteFully,
            None,
        ) => false,
    }
}
