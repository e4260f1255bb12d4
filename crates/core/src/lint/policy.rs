//! Rules of a policy that nobody can keep.

use super::{Lint, ROLLOUT, add};
use crate::plan::Plan;
use crate::policy::Policy;

/// Finds freezes of a policy that leave no time open for the rollout of a plan.
pub fn lint_policy(plan: &Plan, policy: &Policy) -> Vec<Lint> {
    let mut held = plan.clone();
    policy.impose(&mut held);
    let mut lints = Vec::new();
    if held.imposed.is_endless() {
        let rules: Vec<&str> = held.imposed.freezes.iter().map(|freeze| freeze.rule.as_str()).collect();
        let message = format!(
            "the freeze of {} leaves no time open: no rollout starts, and one under way is on hold for ever",
            rules.join(" and ")
        );
        let hint = "shorten a window of the policy, or give it a last day (`until`)";
        add(&mut lints, "endless-freeze", ROLLOUT, message, hint);
    }
    lints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Node;

    fn found(freezes: &[&str]) -> Vec<String> {
        let manifest = "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {name: p}\nspec: {version: 1.0.0, rollout: {}}";
        let plan = crate::parse::parse(manifest).unwrap_or_else(|problems| panic!("{problems}")).plan;
        let rule = |(index, freeze): (usize, &&str)| format!("- {{name: rule-{index}, freeze: {freeze}}}\n");
        let rules: String = freezes.iter().enumerate().map(rule).collect();
        let node = Node::read(&rules).expect("it is YAML");
        let policy = crate::parse::policy(&node).unwrap_or_else(|problems| panic!("{problems}"));
        lint_policy(&plan, &policy)
            .into_iter()
            .map(|lint| format!("{} {}: {}", lint.rule, lint.path, lint.message))
            .collect()
    }

    #[test]
    fn freezes_that_leave_no_time_open_are_found() {
        for freezes in [
            &["['00:00-24:00 UTC']"][..],
            &["['22:00-06:00 Europe/Berlin', '06:00-22:00 Europe/Berlin']"],
            &["['22:00-06:00 UTC']", "['05:00-23:00 UTC']"],
            &[
                "[{window: '00:00-24:00 UTC', days: [mon, tue, wed, thu, fri]}, {window: '00:00-24:00 UTC', days: [sat, sun]}]",
            ],
            &["[{window: '00:00-24:00 UTC', from: 2031-01-01}]"],
        ] {
            let found = found(freezes);
            assert_eq!(found.len(), 1, "{freezes:?}");
            assert!(found[0].starts_with("endless-freeze spec.rollout: the freeze of rule-0"), "{found:?}");
            assert!(found[0].contains(" leaves no time open: no rollout starts"), "{found:?}");
        }
    }

    #[test]
    fn a_freeze_that_ends_is_none_of_them() {
        for freezes in [
            &["['22:00-06:00 UTC', '06:00-21:59 UTC']"][..],
            &["[{window: '00:00-24:00 UTC', days: [mon, tue, wed, thu, fri, sat]}]"],
            &["[{window: '00:00-24:00 UTC', until: 2031-01-01}]"],
        ] {
            assert_eq!(found(freezes), Vec::<String>::new(), "{freezes:?}");
        }
    }
}
