//! `maxFirstWeight`: how many meet a new version before anything is known about it.

use super::{Rule, Violation};
use crate::plan::{Plan, Step, StepWeight, Strategy};
use crate::weight::Weight;

const ROLLOUT: &str = "spec.rollout";

pub(super) fn check(rule: &Rule, plan: &Plan, violations: &mut Vec<Violation>) {
    let Some(most) = rule.max_first_weight.filter(|most| *most < Weight::FULL) else { return };
    match plan.strategy {
        Strategy::Immediate => violations.push(rule.violation(
            format!("{ROLLOUT}.strategy"),
            format!(
                "the first weight of `strategy: immediate` is 100%, above the {most} that the policy allows"
            ),
            format!("use `strategy: canary` with a `canaryWeight` of at most {most}"),
        )),
        Strategy::Canary => {
            for (index, segment) in plan.segments.iter().enumerate() {
                let excepted = rule.except_segments.contains(&segment.name);
                let Some((step, first)) = first_weight(plan, index) else { continue };
                if excepted || first <= most {
                    continue;
                }
                let whose = match plan.segments.len() {
                    1 => "the first weight".to_owned(),
                    _ => format!("the first weight of segment {}", segment.name),
                };
                let message = format!("{whose} is {first}, above the {most} that the policy allows");
                violations.push(rule.violation(
                    path(plan, index, step),
                    message,
                    format!("start at {most} or less"),
                ));
            }
        }
    }
}

/// The first weight above zero that a segment gets, the highest where windows set it, and the index of its step.
fn first_weight(plan: &Plan, segment: usize) -> Option<(usize, Weight)> {
    (0..plan.steps.len()).find_map(|step| {
        let possible = plan.weights_possible(step);
        let highest = possible.iter().filter_map(|weights| weights.get(segment)).max().copied()?;
        (highest > Weight::ZERO).then_some((step, highest))
    })
}

/// Where the first weight of a segment is written.
fn path(plan: &Plan, segment: usize, step: usize) -> String {
    match plan.steps[step].weight {
        StepWeight::Stage(_) => format!("{ROLLOUT}.segments[{segment}].weight"),
        StepWeight::Windows => format!("{ROLLOUT}.schedule"),
        StepWeight::RampInBestWindow(_) => ROLLOUT.to_owned(),
        StepWeight::Ramp(_) => match &plan.steps[step..] {
            // A list grows; the other way of writing repeats its first weight.
            [Step { weight: first, .. }, Step { weight: second, .. }, ..] if first != second && step == 0 => {
                format!("{ROLLOUT}.steps[0].weight")
            }
            _ if step == 0 => format!("{ROLLOUT}.canaryWeight"),
            _ => ROLLOUT.to_owned(),
        },
    }
}
