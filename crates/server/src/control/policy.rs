//! The policy in force, and how it is held against what people ask for.
//!
//! The rules are core's. Here they are asked at the right moment, and what was set aside is recorded.

use serin_core::audit::AuditFact;
use serin_core::ids::Actor;
use serin_core::policy::{Override, Policy, Violation, names};

use super::Control;

/// Rules that are not kept, and that nobody set aside.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.0))]
pub struct Broken(pub Vec<Violation>);

fn told(violations: &[Violation]) -> String {
    let names = names(violations);
    let rules = if names.contains(',') { "rules" } else { "rule" };
    format!("the policy does not allow it: {rules} {names}; nothing was changed")
}

impl Control {
    /// The rules in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// Refuses what breaks a rule, unless somebody who may gives a reason to set it aside.
///
/// # Errors
/// [`Broken`] with every rule that is not kept.
pub(super) fn unless_overridden<'a>(
    violations: &'a [Violation],
    actor: &'a Actor,
    reason: Option<&'a str>,
) -> Result<Option<Override<'a>>, Broken> {
    match (violations, reason) {
        ([], _) => Ok(None),
        (violations, Some(reason)) => Ok(Some(Override { actor, reason, violations })),
        (violations, None) => Err(Broken(violations.to_vec())),
    }
}

/// The fact that a rule was set aside where no transition carries it.
pub(super) fn fact(policy: &Policy, overridden: Option<Override<'_>>, like: &AuditFact) -> Option<AuditFact> {
    let fact = overridden?.fact(&policy.digest()?, like.at);
    Some(AuditFact { revision: like.revision, ..fact })
}
