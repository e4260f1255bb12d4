//! Derives what a rollout did by itself from its repeated checks, and compares it with the audit log.
//!
//! Causes to hold that no check can find, such as an alert from outside, are facts of the log: nothing advances between
//! the entry that sets such a hold and the one that clears it.

use std::collections::BTreeSet;

use crate::analysis::Analysis;
use crate::audit::{Action, AuditEntry};
use crate::ids::Actor;
use crate::plan::Plan;
use crate::rollout::{CheckOutcome, Rollout};
use crate::tick::{allows_next_step, outcome_of};

/// Something that the rollout did by itself, as the audit log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It entered a step.
    Step(u16),
    /// It completed.
    Completion,
    /// It went back to stable.
    Rollback,
}

/// What the log says that the rollout did by itself, each with its point in time in microseconds.
fn taken(log: &[AuditEntry]) -> Vec<(i64, Taken)> {
    let by_itself = log.iter().filter(|entry| entry.actor == Actor::serin().as_str());
    let taken = by_itself.filter_map(|entry| {
        let what = match entry.action.as_str() {
            action if action == Action::StepEntered.as_str() => Taken::Step(step_of(entry)?),
            action if action == Action::Completed.as_str() => Taken::Completion,
            action if action == Action::RolledBack.as_str() => Taken::Rollback,
            _ => return None,
        };
        Some((entry.at_us, what))
    });
    taken.collect()
}

fn step_of(entry: &AuditEntry) -> Option<u16> {
    let evidence: serde_json::Value = serde_json::from_str(&entry.evidence).ok()?;
    u16::try_from(evidence["step"].as_u64()?).ok()
}

/// How many decisions were compared, and everything in which they differ from what the checks lead to.
pub(super) fn compared(
    plan: &Plan,
    rollout: &Rollout,
    checks: &[Analysis],
    log: &[AuditEntry],
) -> (u64, Vec<String>) {
    let taken = taken(log);
    let mut differences = Vec::new();
    differences.extend(rollback_difference(plan, rollout, checks, &taken));
    differences.extend(steps_on_hold(log));
    let last_step = u16::try_from(plan.steps.len().saturating_sub(1)).unwrap_or(u16::MAX);
    for (at_us, what) in &taken {
        let (left, told) = match what {
            Taken::Step(step) => (step.saturating_sub(1), format!("step {} was entered", step + 1)),
            Taken::Completion => (last_step, "the rollout was completed".to_owned()),
            Taken::Rollback => continue,
        };
        let before = checks.iter().rfind(|check| check.at.as_microsecond() <= *at_us);
        let allowed = before
            .is_some_and(|check| allows_next_step(plan, left, check.step, outcome_of(plan, rollout, check)));
        if !allowed {
            let why = before.map_or_else(
                || "no check was made before".to_owned(),
                |check| format!("check {} before it does not allow that: {}", check.number, check.summary()),
            );
            differences.push(format!("{told}, and {why}"));
        }
    }
    (u64::try_from(taken.len()).unwrap_or(u64::MAX), differences)
}

/// Steps that were entered, and completions, in spite of a hold that the log has.
fn steps_on_hold(log: &[AuditEntry]) -> Vec<String> {
    let is = |entry: &AuditEntry, action: Action| entry.action == action.as_str();
    let cause = |entry: &AuditEntry| {
        let evidence: serde_json::Value = serde_json::from_str(&entry.evidence).unwrap_or_default();
        evidence["cause"].as_str().map(ToOwned::to_owned)
    };
    let mut entries: Vec<&AuditEntry> = log.iter().collect();
    entries.sort_by_key(|entry| entry.seq);
    let mut holds: BTreeSet<String> = BTreeSet::new();
    let mut differences = Vec::new();
    for entry in entries {
        let by_itself = entry.actor == Actor::serin().as_str();
        if is(entry, Action::HoldSet) {
            holds.extend(cause(entry));
        } else if is(entry, Action::HoldCleared) {
            cause(entry).map(|cause| holds.remove(&cause));
        } else if is(entry, Action::Promoted) {
            // A person passes every hold but one that a person set.
            holds.retain(|cause| cause == "paused");
        } else if by_itself && (is(entry, Action::StepEntered) || is(entry, Action::Completed)) {
            let names: Vec<&str> = holds.iter().map(String::as_str).collect();
            if !names.is_empty() {
                let what = if is(entry, Action::Completed) {
                    "the rollout was completed"
                } else {
                    "a step was entered"
                };
                differences.push(format!("entry {}: {what} on hold: {}", entry.seq, names.join(", ")));
            }
        }
    }
    differences
}

/// Failed checks in a row lead to a rollback at once, and nothing else does.
fn rollback_difference(
    plan: &Plan,
    rollout: &Rollout,
    checks: &[Analysis],
    taken: &[(i64, Taken)],
) -> Option<String> {
    let threshold = plan.analysis.failure_threshold;
    let mut failed = 0;
    let expected = checks.iter().find(|check| {
        failed = match outcome_of(plan, rollout, check) {
            CheckOutcome::Fail => failed + 1,
            CheckOutcome::Observed
            | CheckOutcome::Pass
            | CheckOutcome::AtRisk
            | CheckOutcome::NoData
            | CheckOutcome::StableFails => 0,
        };
        failed >= threshold
    });
    let rolled_back = taken.iter().find(|(_, what)| *what == Taken::Rollback).map(|(at_us, _)| *at_us);
    match (expected, rolled_back) {
        (None, None) => None,
        (Some(check), Some(at_us)) if check.at.as_microsecond() == at_us => None,
        (Some(check), Some(_)) => {
            Some(format!("check {} leads to a rollback, which came at another time", check.number))
        }
        (Some(check), None) => Some(format!("check {} leads to a rollback, which never came", check.number)),
        (None, Some(_)) => Some(format!(
            "the rollout was rolled back, and no {threshold} failed {} in a row lead to that",
            if threshold == 1 { "check" } else { "checks" }
        )),
    }
}
