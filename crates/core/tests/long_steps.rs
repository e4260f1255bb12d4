//! A step longer than an hour is cut into parts in which evidence may start.

use serin_core::parse::parse;
use serin_core::plan::Plan;
use serin_core::units::HoldFor;

fn plan(interval: &str) -> Plan {
    let text = format!(
        "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: support}}\n\
         spec: {{version: \"1.0.0\", rollout: {{stepInterval: {interval}, analysis: {{interval: 1m}}}}}}\n"
    );
    parse(&text).expect("the manifest is right").plan
}

#[test]
fn a_step_is_cut_into_one_part_for_each_hour_and_at_most_24() {
    for (interval, slices) in [("5m", 1), ("1h", 1), ("90m", 2), ("10h", 10), ("24h", 24), ("7d", 24)] {
        assert_eq!(plan(interval).slices(0), slices, "{interval}");
    }
}

#[test]
fn parts_are_numbered_through_all_steps_without_gaps() {
    let plan = plan("90m");
    let steps = u16::try_from(plan.steps.len()).unwrap();
    let numbers: Vec<u16> = (0..steps)
        .flat_map(|step| (0..plan.slices(step)).map(move |slice| (step, slice)))
        .map(|(step, slice)| plan.start(step, slice))
        .collect();
    assert_eq!(numbers, (0..2 * steps).collect::<Vec<u16>>());
}

#[test]
fn the_part_follows_the_clock_of_the_step_and_stays_in_it() {
    let plan = plan("10h");
    for (minutes, slice) in [(0, 0), (59, 0), (60, 1), (599, 9), (600, 9), (6_000, 9)] {
        assert_eq!(plan.slice_at(3, HoldFor::from_mins(minutes)), slice, "after {minutes} minutes");
    }
}
