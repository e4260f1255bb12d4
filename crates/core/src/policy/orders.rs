//! Rules about orders: who may promote fully, and what an order must not pass by.

use std::collections::BTreeSet;

use super::{Policy, Rule, Violation, approvals};
use crate::access::Role;
use crate::command::Command;
use crate::ids::Actor;
use crate::pack::PackState;
use crate::plan::{Plan, Strategy};
use crate::units::Timestamp;

/// Who may make a version stable for everyone at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Promoters {
    /// Whoever has one of these roles.
    pub roles: BTreeSet<Role>,
    /// Whoever has one of these keys, by their names.
    pub keys: BTreeSet<String>,
}

/// Whoever gives an order or applies a manifest.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// Who, for the log.
    pub actor: &'a Actor,
    /// What their key is good for.
    pub role: Role,
    /// The name of their key; nothing where none was shown.
    pub key: Option<&'a str>,
}

impl Policy {
    /// Every rule that an order would break, as the rollout stands; `plan` is the one that the order is about, with
    /// what this policy imposes, and `applied_by` is whoever published its version.
    ///
    /// Stopping and going back break none.
    pub fn of_order(
        &self,
        pack: &PackState,
        plan: &Plan,
        order: Command,
        who: Who<'_>,
        applied_by: Option<&Actor>,
        now: Timestamp,
    ) -> Vec<Violation> {
        let active = pack.active();
        let frozen = || plan.imposed.refuses_at(now).into_iter();
        match (order, active) {
            (Command::Pause | Command::Resume | Command::Rollback, _) => Vec::new(),
            (Command::Approve, Some((rollout, _))) => {
                approvals::own(plan, rollout, applied_by, who.actor).into_iter().collect()
            }
            (Command::Promote, Some((_, active))) => {
                let completes = usize::from(active.step) + 1 >= plan.steps.len();
                let mut violations: Vec<Violation> =
                    frozen().chain(approvals::missing(plan, active, false)).collect();
                if completes {
                    violations.extend(self.fully(plan, who, ""));
                }
                violations
            }
            (Command::PromoteFully, Some((_, active))) => {
                let missing = approvals::missing(plan, active, true);
                frozen().chain(missing).chain(self.fully(plan, who, "")).collect()
            }
            (Command::Retry, _) => {
                let mut violations: Vec<Violation> = frozen().chain(self.violations(plan)).collect();
                if plan.strategy == Strategy::Immediate {
                    violations.extend(self.fully(plan, who, "spec.rollout.strategy"));
                }
                violations
            }
            // There is no rollout to give the order to.
            (Command::Approve | Command::Promote | Command::PromoteFully, None) => Vec::new(),
        }
    }

    /// The rules by which somebody may not make a version stable for everyone at once.
    pub fn fully(&self, plan: &Plan, who: Who<'_>, path: &str) -> Vec<Violation> {
        let refusing = |rule: &Rule| {
            let promoters = rule.promote_fully.as_ref()?;
            if promoters.include(who) {
                return None;
            }
            let Who { actor, role, .. } = who;
            let message = format!(
                "{actor} has the role {role}, and only {} may make a version stable at once",
                promoters.words()
            );
            Some(rule.violation(path, message, "let it pass its steps, or ask one of them"))
        };
        self.rules_for(plan).filter_map(refusing).collect()
    }
}

impl Promoters {
    fn include(&self, who: Who<'_>) -> bool {
        self.roles.contains(&who.role) || who.key.is_some_and(|key| self.keys.contains(key))
    }

    /// Who they are: `role admin, key release-bot`.
    fn words(&self) -> String {
        let roles = self.roles.iter().map(|role| format!("role {role}"));
        roles.chain(self.keys.iter().map(|key| format!("key {key}"))).collect::<Vec<_>>().join(", ")
    }
}
