//! Tests of parsing, and the helpers that they share.

mod mistakes;
mod never_panics;
mod plans;

use std::fmt::Write as _;

use super::{PackSource, Parsed, Problems, parse};
use crate::plan::{Comparison, GateRule, Matcher, Plan, Regression, SegmentWeight, StepWeight};
use crate::prompt::Pack;
use crate::units::Timestamp;

/// A manifest with one gate; `rollout` is what stands under `spec.rollout`, not indented.
fn manifest(rollout: &str) -> String {
    let mut text = "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata:\n  name: support-prompts\nspec:\n  version: \"2.4.0\"\n  rollout:\n".to_owned();
    for line in rollout.lines() {
        writeln!(text, "    {line}").expect("a string takes everything");
    }
    text
}

fn parsed(rollout: &str) -> Parsed {
    parse(&manifest(rollout)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(text: &str) -> Problems {
    parse(text).expect_err("the manifest is wrong")
}

/// All messages of a rollout that is wrong, one line each.
fn messages(rollout: &str) -> String {
    let problems = problems(&manifest(rollout));
    let line = |problem: &super::Problem| {
        let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}: {}{hint}", problem.path.trim_start_matches("spec.rollout."), problem.message)
    };
    problems.list().iter().map(line).collect::<Vec<_>>().join("\n")
}

fn warnings(rollout: &str) -> String {
    parsed(rollout).warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Every example by its file name; a manifest or a pack that is added to the folder is added here.
const EXAMPLES: [(&str, &str); 5] = [
    ("full.yaml", include_str!("../../../../../examples/full.yaml")),
    ("support-prompts.yaml", include_str!("../../../../../examples/support-prompts.yaml")),
    ("support-prompts-2.3.1.yaml", include_str!("../../../../../examples/support-prompts-2.3.1.yaml")),
    (
        "support-prompts-2.3.1.pack.json",
        include_str!("../../../../../examples/support-prompts-2.3.1.pack.json"),
    ),
    (
        "support-prompts-2.4.0.pack.json",
        include_str!("../../../../../examples/support-prompts-2.4.0.pack.json"),
    ),
];

fn example(name: &str) -> &'static str {
    let found = EXAMPLES.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no example is called {name}")).1
}

/// The steps of a plan as a table: when each begins, its weight, its phase.
fn timetable(plan: &Plan) -> String {
    let mut text = String::new();
    let mut at = crate::units::HoldFor::ZERO;
    for step in &plan.steps {
        let weight = match &step.weight {
            StepWeight::Ramp(weight) => weight.to_string(),
            StepWeight::Stage(index) => format!("stage {}", plan.segments[*index].name),
            StepWeight::Windows => "windows".to_owned(),
            StepWeight::RampInBestWindow(weight) => format!("{weight} in best window"),
        };
        let approval = if step.approval { ", approval" } else { "" };
        writeln!(text, "T+{at:<9} {weight:<20} {:?} {}{approval}", step.phase, step.hold)
            .expect("a string takes everything");
        at = at.plus(step.hold);
    }
    writeln!(text, "T+{at:<9} end").expect("a string takes everything");
    text
}

/// A plan in full, for reading.
fn shown(plan: &Plan) -> String {
    let mut text = format!("{} {} {:?}\n\n{}\n", plan.pack, plan.version, plan.strategy, timetable(plan));
    for segment in &plan.segments {
        let duration = segment.duration.map(|duration| format!(" for {duration}")).unwrap_or_default();
        writeln!(text, "segment {} {:?} {:?}{duration}", segment.name, segment.matcher, segment.weight)
            .expect("a string takes everything");
    }
    if let Some(schedule) = &plan.schedule {
        for window in &schedule.windows {
            let (from, to) = (window.from_minute, window.to_minute);
            writeln!(
                text,
                "window {:02}:{:02}-{:02}:{:02} {} {}",
                from / 60,
                from % 60,
                to / 60,
                to % 60,
                window.zone,
                window.weight
            )
            .expect("a string takes everything");
        }
        writeln!(text, "otherwise {}", schedule.otherwise).expect("a string takes everything");
    }
    let analysis = &plan.analysis;
    for gate in &analysis.gates {
        let rule = match gate.rule {
            GateRule::Threshold { comparison, limit } => {
                format!("{} {}", comparison.sign(), gate.metric.unit.show(limit))
            }
            GateRule::NotWorseThanStable { max_regression } => format!("vs stable {max_regression:?}"),
        };
        writeln!(
            text,
            "gate {} {rule} {:?} samples {} budget {} maturity {:?} from {}",
            gate.metric.name,
            gate.decision,
            gate.min_samples,
            gate.budget,
            gate.maturity.map(|age| age.to_string()),
            gate.provider
        )
        .expect("a string takes everything");
    }
    writeln!(
        text,
        "analysis every {}, {} failed in a row, confidence {}, delay {}, degraded {:?}",
        analysis.interval,
        analysis.failure_threshold,
        analysis.confidence,
        analysis.initial_delay,
        analysis.on_degraded
    )
    .expect("a string takes everything");
    writeln!(
        text,
        "progress {:?} margin {:?} max hold {:?} deadline {}",
        plan.progress.when,
        plan.progress.margin,
        plan.progress.max_hold.map(|hold| hold.to_string()),
        plan.progress.deadline
    )
    .expect("a string takes everything");
    writeln!(
        text,
        "sessions idle {} life {} rollback {:?} promote {:?}",
        plan.sessions.idle_timeout,
        plan.sessions.max_lifetime,
        plan.sessions.on_rollback,
        plan.sessions.on_promote
    )
    .expect("a string takes everything");
    write!(text, "revert {:?}, holdback {}", plan.on_revert, plan.holdback)
        .expect("a string takes everything");
    text
}
