//! `spec.rollout.progress`, `sessions` and `watch`: when a step may end, how long sessions keep their version, and how long
//! a version is judged that has become stable.

use super::analysis::regression;
use super::walk::{Field, Fields, Walk};
use crate::fields::{LONGEST_WATCH, WATCH};
use crate::manifest::Value;
use crate::plan::{InFlight, OnBreach, Progress, ProgressWhen, SessionPolicy, WatchPolicy};
use crate::units::HoldFor;

/// The default deadline in planned lengths.
const DEADLINE_LENGTHS: u64 = 10;

/// Reads `progress`; `length` is the planned length of the rollout.
pub(super) fn progress(walk: &mut Walk, fields: &Fields<'_>, length: HoldFor) -> Progress {
    let choices = [("clock", ProgressWhen::Clock), ("evidence", ProgressWhen::Evidence)];
    let when =
        fields.get("when").and_then(|field| walk.choice(&field, &choices)).unwrap_or(ProgressWhen::Clock);
    let margin = match (when, fields.get("margin")) {
        (ProgressWhen::Clock, Some(field)) => {
            walk.warn(&field.key(), "has no effect with `when: clock`", "remove it, or use `when: evidence`");
            regression(walk, &field, None)
        }
        (ProgressWhen::Evidence, Some(field)) => regression(walk, &field, None),
        (ProgressWhen::Evidence, None) => {
            walk.require(fields, "margin", "2%");
            None
        }
        (ProgressWhen::Clock, None) => None,
    };
    let max_hold = fields.get("maxHold").and_then(|field| walk.positive_duration(&field));
    let deadline = fields.get("deadline").and_then(|field| {
        let deadline = walk.positive_duration(&field)?;
        if deadline < length {
            let message = format!("deadline {deadline} is shorter than the planned length {length}");
            walk.error_with_hint(
                &field.spot,
                message,
                format!("the default is {}", length.times(DEADLINE_LENGTHS)),
            );
        }
        Some(deadline)
    });
    Progress { when, margin, max_hold, deadline: deadline.unwrap_or_else(|| length.times(DEADLINE_LENGTHS)) }
}

/// Reads `watch`: a length of time, or a mapping that also says what a breach does.
pub(super) fn watch(walk: &mut Walk, field: &Field<'_>) -> Option<WatchPolicy> {
    let (length, on_breach) = match &field.node.value {
        Value::Map(_) => {
            let fields = walk.fields(field, &WATCH)?;
            let choices = [("notify", OnBreach::Notify), ("rollback", OnBreach::Rollback)];
            let on_breach = fields.get("onBreach").and_then(|field| walk.choice(&field, &choices));
            (walk.require(&fields, "duration", "24h")?, on_breach.unwrap_or(OnBreach::Notify))
        }
        Value::Null | Value::Scalar(_) | Value::List(_) => {
            return checked_watch(walk, field, OnBreach::Notify);
        }
    };
    checked_watch(walk, &length, on_breach)
}

fn checked_watch(walk: &mut Walk, field: &Field<'_>, on_breach: OnBreach) -> Option<WatchPolicy> {
    let duration = walk.positive_duration(field)?;
    if duration > LONGEST_WATCH {
        walk.error(&field.spot, format!("{duration} is longer than {LONGEST_WATCH}"));
        return None;
    }
    Some(WatchPolicy { duration, on_breach })
}

/// Reads `sessions`.
pub(super) fn sessions(walk: &mut Walk, fields: &Fields<'_>) -> SessionPolicy {
    let default = SessionPolicy::default();
    let choices = [("move", InFlight::Move), ("drain", InFlight::Drain)];
    let mut duration = |name: &str| fields.get(name).and_then(|field| walk.positive_duration(&field));
    let (idle_timeout, max_lifetime) = (duration("idleTimeout"), duration("maxLifetime"));
    let mut in_flight = |name: &str| fields.get(name).and_then(|field| walk.choice(&field, &choices));
    let policy = SessionPolicy {
        on_rollback: in_flight("onRollback").unwrap_or(default.on_rollback),
        on_promote: in_flight("onPromote").unwrap_or(default.on_promote),
        idle_timeout: idle_timeout.unwrap_or(default.idle_timeout),
        max_lifetime: max_lifetime.unwrap_or(default.max_lifetime),
    };
    if policy.idle_timeout > policy.max_lifetime
        && let Some(field) = fields.get("idleTimeout").or_else(|| fields.get("maxLifetime"))
    {
        let message =
            format!("idleTimeout {} is longer than maxLifetime {}", policy.idle_timeout, policy.max_lifetime);
        walk.warn(&field.key(), message, "sessions end at maxLifetime; raise it, or lower idleTimeout");
    }
    policy
}
