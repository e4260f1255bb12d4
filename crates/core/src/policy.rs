//! The policy of an organisation: rules that manifests and orders have to keep, whatever a manifest says.
//!
//! A [`Policy`] is read once, from the settings; [`crate::parse::policy`] knows its form. What is here judges: rules
//! and a plan lead to [`Violation`]s, and nothing is done about them.
//!
//! **Invariant:** no rule stands in the way of going back to stable.

mod approvals;
mod freeze;
mod gates;
mod orders;
mod record;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::glob;
use crate::ids::SegmentName;
use crate::plan::Plan;
use crate::prompt::canonical;
use crate::weight::Weight;

pub(crate) use self::approvals::is_one;
pub use self::approvals::{Approvals, Approving};
pub(crate) use self::freeze::word as day_word;
pub use self::freeze::{Freeze, FreezeWindow, Frozen};
pub use self::gates::{RequiredGate, RequiredRule};
pub use self::orders::{Promoters, Who};
pub use self::record::{Overridden, Override, note, record};

/// Rules that manifests and orders have to keep.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    rules: Vec<Rule>,
    /// The rules as they were written.
    written: serde_json::Value,
}

/// One rule, and which packs it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name, unique in the policy; stands in every violation.
    pub name: RuleName,
    /// Patterns of the names of packs; empty for all.
    pub packs: Vec<String>,
    /// Labels that a pack must have, all of them.
    pub labels: BTreeMap<String, String>,
    /// The most that the first weight of a segment may be.
    pub max_first_weight: Option<Weight>,
    /// Segments that may start higher.
    pub except_segments: Vec<SegmentName>,
    /// Gates that every manifest must have.
    pub required_gates: Vec<RequiredGate>,
    /// Approvals that a rollout waits for.
    pub approvals: Option<Approvals>,
    /// Who may make a version stable for everyone at once; nothing where every promoter may.
    pub promote_fully: Option<Promoters>,
    /// Times in which nothing advances.
    pub freeze: Vec<FreezeWindow>,
}

/// What a policy adds to the plan of a rollout.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Imposed {
    /// Who lets it go on.
    pub approving: Approving,
    /// When nothing advances.
    pub freezes: Vec<Freeze>,
}

/// The name of a rule: 1 to 63 letters, digits, `-` or `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleName(String);

/// A rule that is not kept: by which field, what was found, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The rule.
    pub rule: RuleName,
    /// The field of the manifest, such as `spec.rollout.canaryWeight`; empty where no field is to blame.
    pub path: String,
    /// What was found and what is allowed, in one sentence without a full stop.
    pub message: String,
    /// What would keep the rule.
    pub hint: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self::NONE
    }
}

impl Policy {
    /// Without any rule.
    pub const NONE: Self = Self { rules: Vec::new(), written: serde_json::Value::Null };

    /// A policy of rules, with the form in which they were written.
    pub(crate) fn new(rules: Vec<Rule>, written: serde_json::Value) -> Self {
        Self { rules, written }
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules as they were written, which [`crate::parse::policy`] reads again.
    pub fn written(&self) -> &serde_json::Value {
        &self.written
    }

    /// Tells this policy apart from any other, so that a record can say which one was in force; nothing without rules.
    pub fn digest(&self) -> Option<String> {
        (!self.rules.is_empty())
            .then(|| blake3::hash(canonical(&self.written).as_bytes()).to_hex().to_string())
    }

    /// The rules that are for the pack of a plan, by its name and its labels.
    pub fn rules_for<'p>(&'p self, plan: &Plan) -> impl Iterator<Item = &'p Rule> {
        self.rules.iter().filter(move |rule| rule.is_for(plan))
    }

    /// Every rule that a manifest does not keep, in the order of the rules.
    pub fn violations(&self, plan: &Plan) -> Vec<Violation> {
        let mut violations = Vec::new();
        for rule in self.rules_for(plan) {
            weights::check(rule, plan, &mut violations);
            gates::check(rule, plan, &mut violations);
            approvals::check(rule, plan, &mut violations);
        }
        violations
    }

    /// Adds to a plan what the rules for its pack demand of a rollout under way.
    pub fn impose(&self, plan: &mut Plan) {
        plan.imposed = Imposed::default();
        let rules: Vec<&Rule> = self.rules_for(plan).collect();
        for rule in rules {
            approvals::impose(rule, plan);
            if !rule.freeze.is_empty() {
                plan.imposed.freezes.push(Freeze { rule: rule.name.clone(), windows: rule.freeze.clone() });
            }
        }
    }
}

impl Rule {
    fn is_for(&self, plan: &Plan) -> bool {
        let by_name =
            self.packs.is_empty() || self.packs.iter().any(|glob| glob::fits(glob, plan.pack.as_str()));
        by_name && self.labels.iter().all(|(name, value)| plan.people.labels.get(name) == Some(value))
    }

    fn violation(&self, path: impl Into<String>, message: String, hint: impl Into<String>) -> Violation {
        Violation { rule: self.name.clone(), path: path.into(), message, hint: hint.into() }
    }
}

impl RuleName {
    /// Reads a name.
    ///
    /// # Errors
    /// A sentence that tells what a name is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=63).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("rule name {text:?} must hold 1 to 63 letters, digits, '-' or '_'"))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RuleName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<RuleName> for String {
    fn from(name: RuleName) -> Self {
        name.0
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The rules of violations, each once, in their order: `careful-start, gates`.
pub fn names(violations: &[Violation]) -> String {
    let mut names: Vec<&str> = violations.iter().map(|violation| violation.rule.as_str()).collect();
    names.dedup();
    names.join(", ")
}
