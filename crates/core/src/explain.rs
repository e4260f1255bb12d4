//! What comes next for a session: the change of weights ahead, and what it does to its version.
//!
//! [`routing::assign`] says what a session gets now; nothing here decides anything.
//!
//! [`routing::assign`]: crate::routing::assign

use crate::ids::Version;
use crate::plan::{InFlight, Plan, SessionPolicy};
use crate::rollout::{Active, Rollout};
use crate::routing::{Bucket, Reason, Route, Variant};
use crate::tick::{next_step_at, windows};
use crate::units::Timestamp;
use crate::weight::Weight;

/// The next change of the weights in force, as long as nothing else happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// When, at the earliest; nothing on hold.
    pub at: Option<Timestamp>,
    /// What changes them.
    pub by: ChangeBy,
    /// Share of new sessions that get the canary from then on, by segment in the order of the plan.
    pub weights: Vec<Weight>,
}

/// What changes weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeBy {
    /// The next step, by its index in the plan.
    Step(u16),
    /// A window of the schedule.
    Window,
    /// The rollout completes: the canary is stable.
    Completion,
}

/// The next change of weights of a rollout under way.
pub fn ahead(plan: &Plan, rollout: &Rollout, active: &Active, now: Timestamp) -> Ahead {
    let at = next_step_at(plan, active).map(|at| at.max(now));
    let next = active.step + 1;
    let by_step = if usize::from(next) < plan.steps.len() {
        let weights = plan.weights(usize::from(next), at.unwrap_or(now));
        Ahead { at, by: ChangeBy::Step(next), weights }
    } else {
        Ahead { at, by: ChangeBy::Completion, weights: vec![Weight::FULL; plan.segments.len()] }
    };
    match windows::next_change(plan, rollout, active, now) {
        Some((window, weights)) if at.is_none_or(|at| window < at) => {
            Ahead { at: Some(window), by: ChangeBy::Window, weights }
        }
        Some(_) | None => by_step,
    }
}

/// A session that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// What it has; nothing for one that is new.
    pub kept: Option<Kept<'a>>,
    /// Where it falls in the rollout.
    pub bucket: Bucket,
    /// Index of its segment in the plan.
    pub segment: usize,
}

/// The version of a session that is not new.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// The version.
    pub version: &'a Version,
    /// When the session ends by its age.
    pub ends_at: Timestamp,
}

/// What a change of weights does to a session that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It keeps its version.
    Keeps,
    /// It moves to the canary, which is stable then, with its next user turn.
    Moves,
    /// It is new, and gets this side if its first request comes then.
    Begins(Variant),
    /// It ends by its age before then; the next request under its key begins a session on this side.
    BeginsAnew(Variant),
}

/// What a change of weights does to a session.
///
/// # Panics
/// When the session's segment is not in the plan.
pub fn fate(ahead: &Ahead, rollout: &Rollout, policy: &SessionPolicy, who: Who<'_>) -> Fate {
    let new =
        if who.bucket.is_canary_at(ahead.weights[who.segment]) { Variant::Canary } else { Variant::Stable };
    let Some(kept) = who.kept else { return Fate::Begins(new) };
    if ahead.at.is_some_and(|at| kept.ends_at <= at) {
        return Fate::BeginsAnew(new);
    }
    match (ahead.by, policy.on_promote) {
        (ChangeBy::Completion, InFlight::Move) if *kept.version == rollout.stable => Fate::Moves,
        (ChangeBy::Completion, InFlight::Move | InFlight::Drain)
        | (ChangeBy::Step(_) | ChangeBy::Window, _) => Fate::Keeps,
    }
}

/// What new sessions of a segment get right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSessions<'r> {
    /// Why.
    pub reason: Reason,
    /// Each version with the share of new sessions that get it, none of them at 0.
    pub shares: Vec<(&'r Version, Variant, Weight)>,
}

/// What new sessions of a segment get right now.
///
/// # Panics
/// When the segment is not in the rollout in force.
pub fn new_sessions(route: &Route, segment: usize) -> NewSessions<'_> {
    let all_stable =
        |reason| NewSessions { reason, shares: vec![(&route.stable, Variant::Stable, Weight::FULL)] };
    let Some(split) = &route.split else {
        return all_stable(if route.forced { Reason::Disabled } else { Reason::Static });
    };
    if route.forced {
        return all_stable(Reason::Disabled);
    }
    let weight = split.segments[segment].weight;
    let is_targeted = segment + 1 < split.segments.len();
    let reason = if is_targeted { Reason::TargetingMatch } else { Reason::Split };
    let mut shares = vec![
        (&split.canary, Variant::Canary, weight),
        (&route.stable, Variant::Stable, Weight::FULL.saturating_sub(weight)),
    ];
    shares.retain(|(_, _, share)| *share > Weight::ZERO);
    NewSessions { reason, shares }
}
