//! What is allowed in a plan but seldom meant.
//!
//! [`lint`] needs the plan alone. [`lint_traffic`] knows the traffic too, [`lint_tools`] the prompts of stable, and
//! [`lint_policy`] the policy of the server.

mod judges;
mod policy;
mod tools;
mod traffic;
mod windows;

pub use judges::lint_judges;
pub use policy::lint_policy;
pub use tools::lint_tools;
pub use traffic::lint_traffic;

use serde::Serialize;

use crate::judge;
use crate::metric::{Better, Kind, Tier};
use crate::plan::{
    Decision, Gate, GateRule, Plan, Regression, SegmentWeight, Step, StepPhase, StepWeight, Strategy,
};
use crate::units::HoldFor;
use crate::weight::Weight;

/// One thing in a plan that deserves a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lint {
    /// The rule that found it; stable, in kebab-case.
    pub rule: &'static str,
    /// The field, such as `spec.rollout.analysis.metrics[0]`.
    pub path: String,
    /// What is seldom meant, in one sentence without a full stop.
    pub message: String,
    /// What would be better.
    pub hint: String,
}

/// Every rule with what it finds, in the order in which a manifest is read.
pub const RULES: &[(&str, &str)] = &[
    ("high-first-weight", "a ramp that starts above 25%, or windows that all do"),
    ("hold-below-interval", "steps that are shorter than the time between two checks"),
    ("empty-stage", "a segment that holds 0%: its stage shows nothing"),
    ("idle-window", "a window with the weight that is in force without it"),
    ("skipped-window", "a window that does not open on the day on which the clocks go forward"),
    ("no-gates", "no metric decides"),
    ("low-tier-gate", "a gate on a metric that is noisy or easily gamed"),
    ("point-decision", "a gate that is read by its estimate of the moment"),
    ("outside-provider", "a gate whose numbers Serin cannot weigh as evidence"),
    ("maturity-above-hold", "a gate that judges sessions of earlier steps only"),
    ("early-verdict", "a gate that reads sessions before their judge has"),
    ("narrow-margin", "a margin that an equal version exceeds by chance"),
    (
        "blind-last-step",
        "the only gate compares with stable, and the last step leaves nothing to compare with",
    ),
    (
        "unfed-gate",
        "a gate that the traffic cannot feed, or whose judge reads too few sessions: a step has to wait for them; needs the traffic",
    ),
    ("blind-gate", "a gate that sees no harm at all at this traffic; needs the traffic"),
    ("unrecorded-judge", "a judge of more sessions than are recorded; needs the settings of the server"),
    ("endless-freeze", "freezes of the policy that leave no time open; needs the policy of the server"),
    ("removed-tool", "a tool that conversations in flight may still call; needs the prompts of stable"),
];

/// Looks a plan over; the order is that of the manifest.
pub fn lint(plan: &Plan) -> Vec<Lint> {
    match plan.strategy {
        Strategy::Immediate => Vec::new(),
        Strategy::Canary => {
            let mut lints = Vec::new();
            steps(plan, &mut lints);
            windows::windows(plan, &mut lints);
            gates(plan, &mut lints);
            watch(plan, &mut lints);
            lints
        }
    }
}

const ROLLOUT: &str = "spec.rollout";
const ANALYSIS: &str = "spec.rollout.analysis";

/// The least age at which most sessions have a verdict.
const LEAST_OF_JUDGED: HoldFor = HoldFor::from_mins(3);

fn add(lints: &mut Vec<Lint>, rule: &'static str, path: impl Into<String>, message: String, hint: &str) {
    lints.push(Lint { rule, path: path.into(), message, hint: hint.to_owned() });
}

/// The path of the ramp as it was written: by `canaryWeight` and so on, or as a list of steps.
///
/// A list must grow, the other way repeats its first weight. Behind stages neither can be told.
fn written(plan: &Plan, generated: &str, listed: &str) -> String {
    match plan.steps.as_slice() {
        [Step { weight: StepWeight::Ramp(first), .. }, Step { weight: StepWeight::Ramp(second), .. }, ..] => {
            format!("{ROLLOUT}.{}", if first == second { generated } else { listed })
        }
        _ => ROLLOUT.to_owned(),
    }
}

fn steps(plan: &Plan, lints: &mut Vec<Lint>) {
    let quarter = Weight::from_bp(2_500).expect("25 % is a weight");
    let first_ramp = plan.steps.iter().find_map(|step| match step.weight {
        StepWeight::Ramp(weight) | StepWeight::RampInBestWindow(weight) => Some(weight),
        StepWeight::Stage(_) | StepWeight::Windows => None,
    });
    let first = match &plan.schedule {
        None => first_ramp
            .map(|weight| (written(plan, "canaryWeight", "steps[0].weight"), weight, "the ramp starts")),
        Some(schedule) => {
            let lowest = schedule.weights().first().copied();
            lowest.map(|weight| (format!("{ROLLOUT}.schedule"), weight, "every window starts"))
        }
    };
    if let Some((path, weight, what)) = first
        && weight > quarter
    {
        let message = format!("{what} at {weight} of all sessions");
        let hint = "start at 25% or less, so that a bad version meets few people";
        add(lints, "high-first-weight", path, message, hint);
    }
    let interval = plan.analysis.interval;
    let short = |hold: HoldFor| hold < interval;
    let count = plan
        .steps
        .iter()
        .filter(|step| step.phase != StepPhase::Observing && !step.approval && short(step.hold))
        .count();
    if count > 0 {
        let message =
            format!("{count} of {} steps are shorter than the check interval {interval}", plan.steps.len());
        let hint =
            "lengthen the steps or shorten `analysis.interval`; a step never ends before a check of its own";
        let path = written(plan, "stepInterval", "steps");
        add(lints, "hold-below-interval", path, message, hint);
    }
    for (index, segment) in plan.segments.iter().enumerate() {
        if segment.weight == SegmentWeight::Fixed(Weight::ZERO) {
            let message = format!("segment {} holds a weight of 0%", segment.name);
            add(
                lints,
                "empty-stage",
                format!("{ROLLOUT}.segments[{index}]"),
                message,
                "give it a weight, or remove the segment",
            );
        }
    }
}

fn gates(plan: &Plan, lints: &mut Vec<Lint>) {
    if plan.analysis.gates.is_empty() {
        let message =
            "no metric decides: the rollout advances by the clock, only Degraded metrics hold it".to_owned();
        add(
            lints,
            "no-gates",
            ANALYSIS,
            message,
            "add a gate such as `{name: success_rate, threshold: 90%, comparison: \">=\"}`",
        );
    }
    let holds = plan.steps.iter().filter(|step| step.phase != StepPhase::Observing).map(|step| step.hold);
    let shortest = holds.min();
    for (index, gate) in plan.analysis.gates.iter().enumerate() {
        let path = format!("{ANALYSIS}.metrics[{index}]");
        let name = &gate.metric.name;
        match gate.metric.tier {
            Tier::Low => {
                let message = format!("{name} is noisy and easily gamed, yet it may roll back");
                add(
                    lints,
                    "low-tier-gate",
                    &path,
                    message,
                    "gate on a high-tier metric such as task_completion_rate; low ones still notify",
                );
            }
            Tier::Medium | Tier::High => {}
        }
        match (gate.provider.as_str(), gate.decision) {
            (_, Decision::Evidence) => {}
            ("builtin", Decision::Point) => {
                let message = format!(
                    "{name} is judged by its last point estimate, which rolls back 99.8% of healthy canaries at 1 session/s"
                );
                add(lints, "point-decision", &path, message, "use `decision: evidence`, the default");
            }
            (provider, Decision::Point) => {
                let message = format!(
                    "{name} comes from {provider}, so it is judged by its point estimate and outside the promise of {}% confidence",
                    plan.analysis.confidence * 100.0
                );
                add(
                    lints,
                    "outside-provider",
                    &path,
                    message,
                    "send the outcome to Serin as an event to have it weighed as evidence",
                );
            }
        }
        if let (Some(maturity), Some(hold)) = (gate.maturity, shortest)
            && maturity > hold
        {
            let message = format!(
                "sessions of {name} mature after {maturity}, a step may last only {hold}: the gate judges earlier steps"
            );
            add(lints, "maturity-above-hold", &path, message, "lengthen the steps, or lower `maturity`");
        }
        let is_judged = plan.analysis.judge_of(name).is_some();
        if let Some(maturity) = gate.maturity.filter(|maturity| is_judged && *maturity < LEAST_OF_JUDGED) {
            let message = format!(
                "sessions of {name} are read after {maturity}, and judged once they have been quiet for {}: most verdicts come too late",
                judge::QUIET
            );
            add(lints, "early-verdict", &path, message, "leave `maturity` out, or set it to 10m or more");
        }
        if let Some(margin) = narrow_margin(gate) {
            let message = format!(
                "{name} may be worse than stable by no more than {margin}: about half of the rollouts of an equal version are still held `at risk` after three times their planned length"
            );
            let hint = "allow what you would accept, such as `maxRegression: 2pp`; a held step passes by `serin promote`";
            add(lints, "narrow-margin", &path, message, hint);
        }
        let reaches_full =
            plan.holdback == Weight::ZERO && matches!(gate.rule, GateRule::NotWorseThanStable { .. });
        if reaches_full && plan.analysis.gates.len() == 1 {
            let message =
                format!("at 100% nothing is left to compare {name} with: the last step has no gate");
            add(
                lints,
                "blind-last-step",
                &path,
                message,
                "keep `holdback: 5%`, or add a gate with a threshold",
            );
        }
    }
}

/// A watch that nothing can break.
fn watch(plan: &Plan, lints: &mut Vec<Lint>) {
    if plan.watch.is_some() && !plan.analysis.gates.iter().any(crate::watch::judges) {
        let message = "no gate can judge a version that is alone: the watch begins never".to_owned();
        let hint = "add a gate with `threshold` that decides by evidence, or remove `watch`";
        add(lints, "watch-without-gate", format!("{ROLLOUT}.watch"), message, hint);
    }
}

/// The margin of a comparison, in words, where chance alone keeps an equal version beyond it for long.
///
/// A step ends only while the canary is within its margin. At next to none that is a toss of a coin in each step.
fn narrow_margin(gate: &Gate) -> Option<String> {
    /// Half a percentage point, or half a percent of stable's value.
    const NARROW: f64 = 0.005;
    /// What is seldom is small: a share of it is next to nothing.
    const NARROW_OF_A_SMALL_RATE: f64 = 0.10;
    let GateRule::NotWorseThanStable { max_regression } = gate.rule else { return None };
    let is_rate = matches!(gate.metric.kind, Kind::Rate | Kind::ComplementRate);
    match max_regression {
        Regression::Absolute(margin) if is_rate && margin < NARROW => Some(format!("{}pp", margin * 100.0)),
        Regression::Relative(share) => {
            let is_small = is_rate && gate.metric.better == Better::Lower;
            let narrow = if is_small { NARROW_OF_A_SMALL_RATE } else { NARROW };
            (share < narrow).then(|| format!("{}% of its value", share * 100.0))
        }
        Regression::Absolute(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lints(rollout: &str) -> String {
        let text = format!(
            "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: p}}\nspec: {{version: 1.0.0, rollout: {rollout}}}"
        );
        let plan = crate::parse::parse(&text).unwrap_or_else(|problems| panic!("{problems}")).plan;
        lint(&plan)
            .iter()
            .map(|lint| format!("{} {}: {}", lint.rule, lint.path, lint.message))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn a_plain_rollout_with_a_gate_is_clean() {
        let gates = "analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '>='}]}";
        assert_eq!(lints(&format!("{{{gates}}}")), "");
        assert_eq!(lints("{strategy: immediate}"), "");
    }

    #[test]
    fn each_rule_finds_what_it_is_for() {
        insta::assert_snapshot!(lints("{}"), @"no-gates spec.rollout.analysis: no metric decides: the rollout advances by the clock, only Degraded metrics hold it");
        insta::assert_snapshot!(lints("{canaryWeight: 30, stepInterval: 30s}"), @r#"
        high-first-weight spec.rollout.canaryWeight: the ramp starts at 30% of all sessions
        hold-below-interval spec.rollout.stepInterval: 6 of 7 steps are shorter than the check interval 1m
        no-gates spec.rollout.analysis: no metric decides: the rollout advances by the clock, only Degraded metrics hold it
        "#);
        insta::assert_snapshot!(lints("{segments: [{name: a, weight: 0, duration: 1h}, {name: b, weight: progressive}]}"), @r#"
        empty-stage spec.rollout.segments[0]: segment a holds a weight of 0%
        no-gates spec.rollout.analysis: no metric decides: the rollout advances by the clock, only Degraded metrics hold it
        "#);
        insta::assert_snapshot!(
            lints("{analysis: {metrics: [{name: sentiment_avg, threshold: 0.1, comparison: '>=', decision: point, maturity: 10m}, {name: depth, threshold: 4, comparison: <=, provider: prometheus, query: depth}]}}"),
            @r#"
            low-tier-gate spec.rollout.analysis.metrics[0]: sentiment_avg is noisy and easily gamed, yet it may roll back
            point-decision spec.rollout.analysis.metrics[0]: sentiment_avg is judged by its last point estimate, which rolls back 99.8% of healthy canaries at 1 session/s
            maturity-above-hold spec.rollout.analysis.metrics[0]: sessions of sentiment_avg mature after 10m, a step may last only 5m: the gate judges earlier steps
            outside-provider spec.rollout.analysis.metrics[1]: depth comes from prometheus, so it is judged by its point estimate and outside the promise of 95% confidence
            "#
        );
        insta::assert_snapshot!(lints("{analysis: {metrics: [{name: success_rate, compareTo: stable, maxRegression: 2%}]}}"), @"blind-last-step spec.rollout.analysis.metrics[0]: at 100% nothing is left to compare success_rate with: the last step has no gate");
    }

    #[test]
    fn a_step_shorter_than_the_check_interval_is_found_where_it_was_written() {
        let gates = "analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '>='}]}";
        let listed =
            lints(&format!("{{steps: [{{weight: 30, hold: 5m}}, {{weight: 100, hold: 30s}}], {gates}}}"));
        insta::assert_snapshot!(listed, @r"
        high-first-weight spec.rollout.steps[0].weight: the ramp starts at 30% of all sessions
        hold-below-interval spec.rollout.steps: 1 of 2 steps are shorter than the check interval 1m
        ");
    }

    #[test]
    fn windows_that_all_start_high_are_found() {
        let gates = "analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '>='}]}";
        let windows = |day: u8, night: u8| {
            lints(&format!(
                "{{schedule: [{{window: '06:00-18:00 UTC', canaryWeight: {day}}}, {{window: '18:00-06:00 UTC', canaryWeight: {night}}}], {gates}}}"
            ))
        };
        assert_eq!(
            windows(30, 50),
            "high-first-weight spec.rollout.schedule: every window starts at 30% of all sessions"
        );
        assert_eq!(windows(10, 50), "");
    }

    /// Every rule that a test of this crate or a user meets is explained.
    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = RULES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), RULES.len());
        // The parts below write their names as they find things; here each name stands once in the table besides.
        let sources = [
            include_str!("lint.rs"),
            include_str!("lint/judges.rs"),
            include_str!("lint/policy.rs"),
            include_str!("lint/tools.rs"),
            include_str!("lint/traffic.rs"),
            include_str!("lint/windows.rs"),
        ]
        .concat();
        for name in names {
            let written = sources.matches(&format!("\"{name}\"")).count();
            assert!(written >= 2, "nothing finds {name}");
        }
    }

    /// The simulator shows what this is about: `a_margin_next_to_nothing_holds_half_of_all_equal_versions`.
    #[test]
    fn a_margin_that_chance_alone_exceeds_is_found() {
        let found = |metric: &str, margin: &str| {
            lints(&format!(
                "{{holdback: 5%, analysis: {{metrics: [{{name: {metric}, compareTo: stable, maxRegression: {margin}}}]}}}}"
            ))
        };
        let narrow = "narrow-margin spec.rollout.analysis.metrics[0]: ";
        for (metric, margin, told) in [
            (
                "success_rate",
                "0.1pp",
                "success_rate may be worse than stable by no more than 0.1pp: about half",
            ),
            (
                "success_rate",
                "0.1%",
                "success_rate may be worse than stable by no more than 0.1% of its value:",
            ),
            ("error_rate", "2%", "error_rate may be worse than stable by no more than 2% of its value:"),
        ] {
            let found = found(metric, margin);
            assert!(found.starts_with(&format!("{narrow}{told}")), "{found}");
        }
        for (metric, margin) in
            [("success_rate", "2%"), ("success_rate", "1pp"), ("error_rate", "20%"), ("latency_p95", "200ms")]
        {
            assert_eq!(found(metric, margin), "", "{metric} {margin}");
        }
    }
}
