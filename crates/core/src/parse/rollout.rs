//! `spec.rollout`: how a version is shipped, put together from its parts.

use super::walk::{Fields, Spot, Walk};
use super::{analysis, conduct, ramp, schedule, segments};
use crate::fields::{self, Mapping};
use crate::plan::{
    AnalysisPlan, OnRevert, Progress, Schedule, Segment, SessionPolicy, Step, Strategy, WatchPolicy,
};
use crate::units::HoldFor;
use crate::weight::Weight;

/// The fields that shape a canary and mean nothing to `strategy: immediate`.
const CANARY_ONLY: [&str; 8] =
    ["canaryWeight", "stepWeight", "stepInterval", "steps", "segments", "schedule", "holdback", "watch"];

/// The part of a plan that `spec.rollout` says.
pub(super) struct Rollout {
    pub(super) strategy: Strategy,
    pub(super) steps: Vec<Step>,
    pub(super) segments: Vec<Segment>,
    pub(super) schedule: Option<Schedule>,
    pub(super) analysis: AnalysisPlan,
    pub(super) progress: Progress,
    pub(super) sessions: SessionPolicy,
    pub(super) on_revert: OnRevert,
    pub(super) holdback: Weight,
    pub(super) watch: Option<WatchPolicy>,
}

/// Reads `spec.rollout` and compiles it to steps; what is absent gets its default.
pub(super) fn rollout(walk: &mut Walk, fields: &Fields<'_>) -> Rollout {
    let strategies = [("canary", Strategy::Canary), ("immediate", Strategy::Immediate)];
    let strategy =
        fields.get("strategy").and_then(|field| walk.choice(&field, &strategies)).unwrap_or(Strategy::Canary);
    let holdback = holdback(walk, fields);
    let most = Weight::FULL.saturating_sub(holdback);
    let watch = fields.get("watch").and_then(|field| conduct::watch(walk, &field));

    let ramp = ramp::ramp(walk, fields, most);
    let segments = match fields.get("segments") {
        Some(field) => segments::segments(walk, &field),
        None => vec![segments::everyone()],
    };
    let schedule =
        fields.get("schedule").map(|field| schedule::schedule(walk, &field, ramp.first_weight(), most));
    if let (Some(_), Some(field)) = (&schedule, fields.get("steps")) {
        ramp.warn_of_replaced_approvals(walk, &field);
    }

    let (steps, segments, schedule) = match strategy {
        Strategy::Canary => (ramp.compile(&segments, schedule.is_some()), segments, schedule),
        Strategy::Immediate => {
            for field in CANARY_ONLY.iter().filter_map(|name| fields.get(name)) {
                walk.warn(
                    &field.key(),
                    "has no effect with `strategy: immediate`",
                    "remove it, or use `strategy: canary`",
                );
            }
            (Vec::new(), vec![segments::everyone()], None)
        }
    };
    let observing = steps.first().map_or(HoldFor::ZERO, |step| step.hold);
    let length = steps.iter().fold(HoldFor::ZERO, |sum, step| sum.plus(step.hold));

    let absent = |name: &str| Fields::none(Spot { path: fields.path_of(name), at: fields.spot.at });
    let part = |walk: &mut Walk, name: &str, known: &Mapping| {
        fields.get(name).and_then(|field| walk.fields(&field, known)).unwrap_or_else(|| absent(name))
    };
    let analysis = part(walk, "analysis", &fields::ANALYSIS);
    let analysis = analysis::analysis(walk, &analysis, observing);
    let progress = part(walk, "progress", &fields::PROGRESS);
    let progress = conduct::progress(walk, &progress, length);
    let sessions = part(walk, "sessions", &fields::SESSIONS);
    let sessions = conduct::sessions(walk, &sessions);
    let reverts = [("immediate", OnRevert::Immediate), ("canary", OnRevert::Canary)];
    let on_revert =
        fields.get("onRevert").and_then(|field| walk.choice(&field, &reverts)).unwrap_or(OnRevert::Immediate);

    Rollout { strategy, steps, segments, schedule, analysis, progress, sessions, on_revert, holdback, watch }
}

/// Reads `holdback`, 0 to 50 %: the last step must still be Completing.
fn holdback(walk: &mut Walk, fields: &Fields<'_>) -> Weight {
    let Some(field) = fields.get("holdback") else { return Weight::ZERO };
    match walk.weight(&field) {
        Some(weight) if weight > Weight::HALF => {
            walk.error(&field.spot, format!("holdback {weight} is above 50%"));
            Weight::ZERO
        }
        Some(weight) => weight,
        None => Weight::ZERO,
    }
}
