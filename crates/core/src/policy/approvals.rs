//! `approvals`: how many people let a rollout go on, and that nobody approves their own.

use super::{Rule, RuleName, Violation};
use crate::ids::Actor;
use crate::plan::{Plan, Strategy};
use crate::rollout::{Active, Rollout};
use crate::weight::Weight;

/// Approvals that a rule demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approvals {
    /// Different people at each step that waits for approval, at least 1.
    pub count: u32,
    /// The weight before which a rollout waits for them; nothing where the manifest says which steps wait.
    pub before: Option<Weight>,
}

/// Who lets a rollout go on, as the rules for its pack have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approving {
    /// Different people at each step that waits for approval, at least 1.
    pub count: u32,
    /// The rule by which nobody approves what they applied; nothing where anybody may.
    pub by_others: Option<RuleName>,
}

impl Default for Approving {
    /// As a manifest alone has it: one person, whoever that is.
    fn default() -> Self {
        Self { count: 1, by_others: None }
    }
}

/// Lets the steps of a plan wait as a rule demands.
pub(super) fn impose(rule: &Rule, plan: &mut Plan) {
    let Some(approvals) = rule.approvals else { return };
    let approving = &mut plan.imposed.approving;
    approving.count = approving.count.max(approvals.count);
    approving.by_others.get_or_insert_with(|| rule.name.clone());
    if let Some(before) = approvals.before
        && plan.strategy == Strategy::Canary
    {
        let waits = last_step_below(plan, before);
        plan.steps[waits].approval = true;
    }
}

/// The last step in which everyone's weight is below this; the first step where there is none.
fn last_step_below(plan: &Plan, weight: Weight) -> usize {
    let reaches = (0..plan.steps.len()).find(|step| {
        let possible = plan.weights_possible(*step);
        possible.iter().filter_map(|weights| weights.last()).any(|everyone| *everyone >= weight)
    });
    reaches.unwrap_or(plan.steps.len()).saturating_sub(1)
}

/// An immediate rollout asks nobody.
pub(super) fn check(rule: &Rule, plan: &Plan, violations: &mut Vec<Violation>) {
    if let Some(Approvals { before: Some(before), .. }) = rule.approvals
        && plan.strategy == Strategy::Immediate
    {
        violations.push(rule.violation(
            "spec.rollout.strategy",
            format!("`strategy: immediate` asks for no approval, and the policy requires it before {before}"),
            "use `strategy: canary`",
        ));
    }
}

/// Refuses the approval of somebody who has to do with what is approved.
pub(super) fn own(
    plan: &Plan,
    rollout: &Rollout,
    applied_by: Option<&Actor>,
    actor: &Actor,
) -> Option<Violation> {
    let rule = plan.imposed.approving.by_others.clone()?;
    let started = is_one(&rollout.started_by, rollout.started_with.as_deref(), actor);
    let applied = applied_by.is_some_and(|applied_by| is_one(applied_by, None, actor));
    (started || applied).then(|| Violation {
        rule,
        path: String::new(),
        message: format!(
            "{actor} applied version {} or started its rollout, and nobody approves their own",
            rollout.canary
        ),
        hint: "ask somebody else, with a key of their own, to approve it".to_owned(),
    })
}

/// Refuses to pass steps that still wait for approvals: the current one, or all that are left.
pub(super) fn missing(plan: &Plan, active: &Active, all: bool) -> Option<Violation> {
    let Approving { count, by_others } = &plan.imposed.approving;
    let rule = by_others.clone()?;
    let current = usize::from(active.step);
    let given = active.approvals_given();
    let waits = |step: usize| plan.steps[step].approval && (step > current || given < *count);
    let last = if all { plan.steps.len() - 1 } else { current };
    let step = (current..=last).find(|step| waits(*step))?;
    let (given, s) = (if step == current { given } else { 0 }, if *count == 1 { "" } else { "s" });
    Some(Violation {
        rule,
        path: String::new(),
        message: format!(
            "step {} needs {count} approval{s} by others before it ends, and has {given}",
            step + 1
        ),
        hint: "`serin approve` gives one; a rollout that reaches the step waits for it".to_owned(),
    })
}

/// Whether two actors may be one person: they share a name, or a key.
pub(crate) fn is_one(one: &Actor, key: Option<&str>, other: &Actor) -> bool {
    let with = other.origin().key;
    one.names().any(|name| other.names().any(|theirs| theirs == name))
        || (key.is_some() && key == with.as_deref())
}
