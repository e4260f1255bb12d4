//! What the records keep of a policy: which one was in force, and each use of an override.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Policy, RuleName, Violation, names};
use crate::audit::{Action, AuditFact};
use crate::ids::Actor;
use crate::pack::Transition;
use crate::units::Timestamp;

/// Rules that somebody sets aside once.
#[derive(Debug, Clone, Copy)]
pub struct Override<'a> {
    /// Who.
    pub actor: &'a Actor,
    /// Why, in words.
    pub reason: &'a str,
    /// What the rules found.
    pub violations: &'a [Violation],
}

/// An override as a rollout keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overridden {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: Actor,
    /// Why, in words.
    pub reason: String,
    /// The rules, each once.
    pub rules: Vec<RuleName>,
}

/// Notes in a transition under which policy it was made and, where rules were set aside, by whom and why.
///
/// Without a policy nothing is noted.
pub fn record(transition: &mut Transition, policy: &Policy, overridden: Option<Override<'_>>) {
    for fact in &mut transition.facts {
        note(fact, policy);
    }
    let (Some(overridden), Some(digest)) = (overridden, policy.digest()) else { return };
    let (last, revision) = (transition.facts.last(), transition.pack.revision);
    let rollout = last.and_then(|fact| fact.rollout.clone());
    let (at, revision) = last.map_or((Timestamp::UNIX_EPOCH, revision), |fact| (fact.at, fact.revision));
    if let (Some(id), Some(latest)) = (&rollout, &mut transition.pack.rollout)
        && latest.id == *id
    {
        latest.overridden.push(overridden.kept(at));
    }
    let fact = AuditFact { rollout, revision, ..overridden.fact(&digest, at) };
    transition.facts.push(fact);
}

/// Notes the policy in a fact that begins something; the others follow from these.
pub fn note(fact: &mut AuditFact, policy: &Policy) {
    let Some(digest) = policy.digest() else { return };
    let begins = matches!(
        fact.action,
        Action::VersionPublished
            | Action::PlanReplaced
            | Action::RolloutStarted
            | Action::Promoted
            | Action::Approved
    );
    if begins && let Some(evidence) = fact.evidence.as_object_mut() {
        evidence.insert("policy".to_owned(), json!(digest));
    }
}

impl Override<'_> {
    /// The same as a fact of the audit log that belongs to no rollout.
    pub fn fact(&self, digest: &str, at: Timestamp) -> AuditFact {
        AuditFact {
            at,
            rollout: None,
            revision: 0,
            actor: self.actor.clone(),
            action: Action::PolicyOverridden,
            reason: format!("{}: {}", names(self.violations), self.reason),
            evidence: json!({"policy": digest, "reason": self.reason, "violations": self.violations}),
        }
    }

    fn kept(&self, at: Timestamp) -> Overridden {
        let mut rules: Vec<RuleName> =
            self.violations.iter().map(|violation| violation.rule.clone()).collect();
        rules.dedup();
        Overridden { at, actor: self.actor.clone(), reason: self.reason.to_owned(), rules }
    }
}
