//! `requiredGates`: what every manifest has to judge by, and how strictly.

use super::{Rule, Violation};
use crate::analysis::rule_text;
use crate::metric::{self, MetricName};
use crate::plan::{Gate, GateRule, Plan, Regression, Strategy};

const METRICS: &str = "spec.rollout.analysis.metrics";

/// A gate that every manifest must have.
#[derive(Debug, Clone, PartialEq)]
pub struct RequiredGate {
    /// The metric.
    pub metric: MetricName,
    /// The least that it must require; nothing where any gate on the metric will do.
    pub rule: Option<RequiredRule>,
}

/// What a required gate must require at least.
#[derive(Debug, Clone, PartialEq)]
pub struct RequiredRule {
    /// The rule.
    pub rule: GateRule,
    /// The same as people read it, such as `>= 90 %`.
    pub shown: String,
    /// A gate that keeps it, as a manifest may have it.
    pub example: String,
}

pub(super) fn check(rule: &Rule, plan: &Plan, violations: &mut Vec<Violation>) {
    if plan.strategy == Strategy::Immediate && !rule.required_gates.is_empty() {
        let names: Vec<&str> = rule.required_gates.iter().map(|gate| gate.metric.as_str()).collect();
        violations.push(rule.violation(
            "spec.rollout.strategy",
            format!("`strategy: immediate` decides by no gate, and the policy requires {}", names.join(", ")),
            "use `strategy: canary`",
        ));
        return;
    }
    for required in &rule.required_gates {
        violations.extend(required.missing(rule, plan));
    }
}

impl RequiredGate {
    /// What a plan lacks of it.
    fn missing(&self, rule: &Rule, plan: &Plan) -> Option<Violation> {
        let metric = &self.metric;
        let gates = || plan.analysis.gates.iter().enumerate().filter(|(_, gate)| gate.metric.name == *metric);
        let measured = || gates().filter(|(_, gate)| self.may_measure(gate));
        let is_strict =
            |gate: &Gate| self.rule.as_ref().is_none_or(|asked| is_as_strict(gate.rule, asked.rule));
        if measured().any(|(_, gate)| is_strict(gate)) {
            return None;
        }
        let add = match &self.rule {
            Some(asked) => format!("add `{}` to `analysis.metrics`", asked.example),
            None => format!("add a gate on {metric} to `analysis.metrics`"),
        };
        Some(match (&self.rule, measured().next(), gates().next()) {
            (Some(asked), Some((index, gate)), _) => rule.violation(
                format!("{METRICS}[{index}]"),
                format!(
                    "the gate on {metric} asks for {}, and the policy requires {} at least",
                    rule_text(&gate.metric, &gate.rule),
                    asked.shown
                ),
                format!("write `{}`, or something stricter", asked.example),
            ),
            (_, _, Some((index, gate))) => rule.violation(
                format!("{METRICS}[{index}].provider"),
                format!(
                    "the gate on {metric} takes its numbers from {}, and the policy requires those of Serin",
                    gate.provider
                ),
                format!("{add}, and give the one of {} another name", gate.provider),
            ),
            (_, _, None) => rule.violation(
                "spec.rollout.analysis",
                format!("there is no gate on {metric}, which the policy requires"),
                add,
            ),
        })
    }

    /// Whether the numbers of a gate are those that are meant: of a metric of the catalogue, Serin's own.
    fn may_measure(&self, gate: &Gate) -> bool {
        !gate.is_outside() || !is_of_catalogue(&self.metric)
    }
}

fn is_of_catalogue(name: &MetricName) -> bool {
    metric::catalogue().iter().any(|metric| metric.name == *name)
}

/// Whether whatever passes `given` passes `asked` too.
fn is_as_strict(given: GateRule, asked: GateRule) -> bool {
    match (given, asked) {
        (
            GateRule::Threshold { comparison: given, limit: given_limit },
            GateRule::Threshold { comparison: asked, limit: asked_limit },
        ) => {
            let same_side = given.low_is_bad() == asked.low_is_bad();
            // The given limit itself must lie on the right side, or be left out by the given comparison.
            let inside =
                if asked.low_is_bad() { given_limit > asked_limit } else { given_limit < asked_limit };
            let at_limit = given_limit == asked_limit;
            same_side && (inside || (at_limit && (given == asked || !given.holds(given_limit, given_limit))))
        }
        (
            GateRule::NotWorseThanStable { max_regression: given },
            GateRule::NotWorseThanStable { max_regression: asked },
        ) => match (given, asked) {
            (Regression::Relative(given), Regression::Relative(asked))
            | (Regression::Absolute(given), Regression::Absolute(asked)) => given <= asked,
            // Which of the two is stricter depends on a value that is not known yet.
            (Regression::Relative(_), Regression::Absolute(_))
            | (Regression::Absolute(_), Regression::Relative(_)) => false,
        },
        (GateRule::Threshold { .. }, GateRule::NotWorseThanStable { .. })
        | (GateRule::NotWorseThanStable { .. }, GateRule::Threshold { .. }) => false,
    }
}
