//! The timetable of a rollout by the clock: which weights are in force when, if every check passes at once.

use serde::Serialize;

use crate::ids::SegmentName;
use crate::plan::{Plan, StepPhase, StepWeight};
use crate::units::{HoldFor, Timestamp};
use crate::weight::Weight;

/// Changes of weight that a timetable holds at most.
const MOST_ENTRIES: usize = 1_000;

/// What is in force from a point in time on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimetableEntry {
    /// Since when.
    pub at: Timestamp,
    /// The same, counted from the start.
    pub since_start: HoldFor,
    /// Index of the step; absent once the canary is stable.
    pub step: Option<u16>,
    /// Where the step stands in the life of a rollout; absent once the canary is stable.
    pub phase: Option<StepPhase>,
    /// Each segment with its weight, in the order of the plan.
    pub weights: Vec<(SegmentName, Weight)>,
    /// Why: the step, or the window that has opened.
    pub why: String,
}

/// The timetable of a plan that starts at a point in time, up to and including its completion.
///
/// Steps end with their hold, in which freezes of the policy do not count, and approvals come at once; nothing waits for
/// sessions.
pub fn timetable(plan: &Plan, start: Timestamp) -> Vec<TimetableEntry> {
    let mut entries = Vec::new();
    let mut add = |at: Timestamp, step: Option<u16>, weights: Vec<Weight>, why: String| {
        let names = plan.segments.iter().map(|segment| segment.name.clone());
        let phase = step.and_then(|step| plan.steps.get(usize::from(step))).map(|step| step.phase);
        let since_start = HoldFor::between(start, at);
        let weights = names.zip(weights).collect();
        entries.push(TimetableEntry { at, since_start, step, phase, weights, why });
        entries.len() < MOST_ENTRIES
    };
    let mut at = start;
    for (number, step) in (0_u16..).zip(&plan.steps) {
        let index = usize::from(number);
        at = plan.may_start_at(index, at);
        if !add(at, Some(number), plan.weights(index, at), plan.shown_weight(&step.weight)) {
            return entries;
        }
        let end = plan.imposed.after(at, step.hold);
        let next = if index + 1 < plan.steps.len() { plan.may_start_at(index + 1, end) } else { end };
        if let (StepWeight::Windows, Some(schedule)) = (&step.weight, &plan.schedule) {
            let changes =
                std::iter::successors(schedule.next_change(at), |(at, _)| schedule.next_change(*at));
            for (change, _) in changes.take_while(|(change, _)| *change < next) {
                let window =
                    schedule.window_at(change).map_or("no window is open", |window| &window.as_written);
                if !add(change, Some(number), plan.weights(index, change), window.to_owned()) {
                    return entries;
                }
            }
        }
        at = end;
    }
    add(at, None, vec![Weight::FULL; plan.segments.len()], "the canary is stable".to_owned());
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(manifest: &str, start: &str) -> String {
        let plan = crate::parse::parse(manifest).unwrap_or_else(|problems| panic!("{problems}")).plan;
        let start = start.parse().unwrap();
        let entries = timetable(&plan, start);
        let line = |entry: &TimetableEntry| {
            let step = entry.step.map_or_else(|| "-".to_owned(), |step| (step + 1).to_string());
            let phase = entry.phase.map_or_else(|| "Completed".to_owned(), |phase| format!("{phase:?}"));
            let weights: Vec<String> =
                entry.weights.iter().map(|(name, weight)| format!("{name} {weight}")).collect();
            format!(
                "{} T+{} {step} {phase}: {} ({})",
                entry.at,
                entry.since_start,
                weights.join(", "),
                entry.why
            )
        };
        entries.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_full_manifest_compiles_to_this_timeline_of_72_hours() {
        let full = include_str!("../../../../examples/full.yaml");
        insta::assert_snapshot!(told(full, "2026-11-24T09:00:00Z"), @r"
        2026-11-24T09:00:00Z T+0s 1 Observing: internal_users 100%, beta_users 0%, all_users 0% (internal_users 100%)
        2026-11-24T09:05:00Z T+5m 2 Progressing: internal_users 100%, beta_users 0%, all_users 0% (internal_users 100%)
        2026-11-25T09:05:00Z T+1d5m 3 Progressing: internal_users 100%, beta_users 50%, all_users 0% (internal_users 100%, beta_users 50%)
        2026-11-25T21:05:00Z T+1d12h5m 4 Progressing: internal_users 100%, beta_users 50%, all_users 30% (02:00-06:00 UTC 50%, 06:00-18:00 UTC 10%, 18:00-02:00 UTC 30%)
        2026-11-26T02:00:00Z T+1d17h 4 Progressing: internal_users 100%, beta_users 50%, all_users 50% (02:00-06:00 UTC)
        2026-11-26T06:00:00Z T+1d21h 4 Progressing: internal_users 100%, beta_users 50%, all_users 10% (06:00-18:00 UTC)
        2026-11-26T18:00:00Z T+2d9h 4 Progressing: internal_users 100%, beta_users 50%, all_users 30% (18:00-02:00 UTC)
        2026-11-27T02:00:00Z T+2d17h 5 Completing: internal_users 100%, beta_users 50%, all_users 50% (50%, from 02:00-06:00 UTC)
        2026-11-27T02:05:00Z T+2d17h5m 6 Completing: internal_users 100%, beta_users 70%, all_users 70% (70%, from 02:00-06:00 UTC)
        2026-11-27T02:10:00Z T+2d17h10m 7 Completing: internal_users 100%, beta_users 90%, all_users 90% (90%, from 02:00-06:00 UTC)
        2026-11-27T02:15:00Z T+2d17h15m 8 Completing: internal_users 100%, beta_users 100%, all_users 100% (100%, from 02:00-06:00 UTC)
        2026-11-27T02:20:00Z T+2d17h20m - Completed: internal_users 100%, beta_users 100%, all_users 100% (the canary is stable)
        ");
    }

    #[test]
    fn the_plan_of_the_lifecycle_table_takes_45_minutes() {
        let plain = "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {name: p}\nspec: {version: 1.0.0}\n";
        let told = told(plain, "2026-11-24T09:00:00Z");
        let weights: Vec<&str> =
            told.lines().filter_map(|line| line.split("everyone ").nth(1)?.split(' ').next()).collect();
        assert_eq!(weights, ["10%", "10%", "20%", "30%", "40%", "50%", "70%", "90%", "100%", "100%"]);
        assert!(
            told.ends_with("2026-11-24T09:45:00Z T+45m - Completed: everyone 100% (the canary is stable)"),
            "{told}"
        );
    }
}
