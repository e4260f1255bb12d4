//! What is allowed in a plan but seldom meant.

use serde::Serialize;

use crate::metric::{Better, Kind, Tier};
use crate::plan::{
    Decision, Gate, GateRule, Plan, Regression, SegmentWeight, StepPhase, StepWeight, Strategy,
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

/// Looks a plan over; the order is that of the manifest.
pub fn lint(plan: &Plan) -> Vec<Lint> {
    match plan.strategy {
        Strategy::Immediate => Vec::new(),
        Strategy::Canary => {
            let mut lints = Vec::new();
            steps(plan, &mut lints);
            gates(plan, &mut lints);
            lints
        }
    }
}

const ROLLOUT: &str = "spec.rollout";
const ANALYSIS: &str = "spec.rollout.analysis";

fn add(lints: &mut Vec<Lint>, rule: &'static str, path: impl Into<String>, message: String, hint: &str) {
    lints.push(Lint { rule, path: path.into(), message, hint: hint.to_owned() });
}

fn steps(plan: &Plan, lints: &mut Vec<Lint>) {
    let quarter = Weight::from_bp(2_500).expect("25 % is a weight");
    let first_ramp = plan.steps.iter().find_map(|step| match step.weight {
        StepWeight::Ramp(weight) | StepWeight::RampInBestWindow(weight) => Some(weight),
        StepWeight::Stage(_) | StepWeight::Windows => None,
    });
    if let Some(weight) = first_ramp
        && plan.schedule.is_none()
        && weight > quarter
    {
        let message = format!("the ramp starts at {weight} of all sessions");
        add(
            lints,
            "high-first-weight",
            ROLLOUT,
            message,
            "start at 25% or less, so that a bad version meets few people",
        );
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
        add(lints, "hold-below-interval", ROLLOUT, message, hint);
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
        high-first-weight spec.rollout: the ramp starts at 30% of all sessions
        hold-below-interval spec.rollout: 6 of 7 steps are shorter than the check interval 1m
        no-gates spec.rollout.analysis: no metric decides: the rollout advances by the clock, only Degraded metrics hold it
        "#);
        insta::assert_snapshot!(lints("{segments: [{name: a, weight: 0, duration: 1h}, {name: b, weight: progressive}]}"), @r#"
        empty-stage spec.rollout.segments[0]: segment a holds a weight of 0%
        no-gates spec.rollout.analysis: no metric decides: the rollout advances by the clock, only Degraded metrics hold it
        "#);
        insta::assert_snapshot!(
            lints("{analysis: {metrics: [{name: sentiment_avg, threshold: 0.1, comparison: '>=', decision: point, maturity: 10m}, {name: depth, threshold: 4, comparison: <=, provider: prometheus}]}}"),
            @r#"
            low-tier-gate spec.rollout.analysis.metrics[0]: sentiment_avg is noisy and easily gamed, yet it may roll back
            point-decision spec.rollout.analysis.metrics[0]: sentiment_avg is judged by its last point estimate, which rolls back 99.8% of healthy canaries at 1 session/s
            maturity-above-hold spec.rollout.analysis.metrics[0]: sessions of sentiment_avg mature after 10m, a step may last only 5m: the gate judges earlier steps
            outside-provider spec.rollout.analysis.metrics[1]: depth comes from prometheus, so it is judged by its point estimate and outside the promise of 95% confidence
            "#
        );
        insta::assert_snapshot!(lints("{analysis: {metrics: [{name: success_rate, compareTo: stable, maxRegression: 2%}]}}"), @"blind-last-step spec.rollout.analysis.metrics[0]: at 100% nothing is left to compare success_rate with: the last step has no gate");
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
