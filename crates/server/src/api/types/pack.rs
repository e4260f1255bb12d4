//! Packs and their versions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serin_core::prompt::PackChange;
use utoipa::ToSchema;

use super::rollout::{Phase, RolloutView};
use super::word::words;
use crate::control::apply;

/// One pack in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PackSummary {
    /// Its name.
    pub name: String,
    /// The version that sessions without a rollout get.
    pub stable: String,
    /// The version that is tried; absent without an active rollout.
    pub canary: Option<String>,
    /// The current or latest rollout.
    pub rollout: Option<String>,
    /// Where that rollout is in its life.
    pub phase: Option<Phase>,
    /// Set share of new sessions that get the canary, in percent.
    #[schema(minimum = 0, maximum = 100)]
    pub weight: f64,
    /// Causes of the holds in force, in words.
    pub holds: Vec<String>,
    /// Whether everything is forced to stable.
    pub forced: bool,
    /// Grows by one with each change of the pack.
    pub revision: u64,
    /// Who owns it.
    pub owner: Option<String>,
}

/// All packs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PackList {
    /// By name.
    pub packs: Vec<PackSummary>,
}

/// One pack in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PackDetail {
    /// Its name.
    pub name: String,
    /// The version that sessions without a rollout get.
    pub stable: String,
    /// Earlier stable versions, oldest first.
    pub history: Vec<String>,
    /// Versions whose last rollout was rolled back; only `retry` starts them again.
    pub rolled_back: Vec<String>,
    /// Versions that only keep the sessions they have.
    pub draining: Vec<DrainingView>,
    /// Whether everything is forced to stable.
    pub forced: bool,
    /// Grows by one with each change of the pack.
    pub revision: u64,
    /// Who owns it.
    pub owner: Option<String>,
    /// Who is told when something needs a person.
    pub escalation: Option<String>,
    /// Free labels, by name.
    pub labels: BTreeMap<String, String>,
    /// Names of the prompts of stable; empty for a version-only pack.
    pub prompts: Vec<String>,
    /// What may be ordered right now: `pause`, `resume`, `approve`, `promote`, `rollback`, `retry`.
    pub orders: Vec<String>,
    /// New sessions per second over the last hour, or over the last day where the hour had fewer than 30; absent
    /// where there are too few to say.
    pub sessions_per_second: Option<f64>,
    /// The current or latest rollout.
    pub rollout: Option<RolloutView>,
}

/// A version that only keeps the sessions it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainingView {
    /// The version.
    pub version: String,
    /// Since when it gets no new sessions.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Its sessions are moved then at the latest.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Sessions that it still has, as of at most two seconds ago; absent where it is canary or stable again.
    pub sessions_left: Option<u64>,
}

/// The sessions of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionsView {
    /// The pack.
    pub pack: String,
    /// By version; a version without sessions may be absent.
    pub versions: Vec<SessionsOfVersion>,
}

/// The sessions that have a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionsOfVersion {
    /// The version.
    pub version: String,
    /// Sessions that have it and have not ended, as of at most two seconds ago.
    pub sessions: u64,
}

/// One version in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionView {
    /// The pack.
    pub pack: String,
    /// The version.
    pub version: String,
    /// What becomes of it now: `stable`, `canary`, `draining`, `rolled back`, `earlier stable` or `published`.
    pub role: String,
    /// BLAKE3 of its prompts; `version-only` without prompts of its own.
    pub content_digest: String,
    /// Who published it.
    pub published_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub published_at: Timestamp,
}

/// The versions of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionList {
    /// Published last, first.
    pub versions: Vec<VersionView>,
}

/// One version in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VersionDetail {
    /// What a list shows of it.
    #[serde(flatten)]
    pub summary: VersionView,
    /// The manifest as it was applied.
    pub manifest: String,
    /// Its prompts, a PromptPack; absent for a version-only pack.
    #[schema(value_type = Option<Object>)]
    pub content: Option<serde_json::Value>,
}

/// What differs between two versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffView {
    /// The pack.
    pub pack: String,
    /// The version on the left.
    pub from: String,
    /// The version on the right.
    pub to: String,
    /// What differs; empty when nothing does.
    pub changes: Vec<ContentChange>,
}

/// One place in which two versions differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContentChange {
    /// The place, such as `prompts.support.system_template`.
    pub path: String,
    /// What was there; absent for an addition.
    pub before: Option<String>,
    /// What is there now; absent for a removal.
    pub after: Option<String>,
}

impl From<&PackChange> for ContentChange {
    fn from(change: &PackChange) -> Self {
        Self { path: change.json_path.clone(), before: change.before.clone(), after: change.after.clone() }
    }
}

words! {
    /// What applying a manifest did, or would do.
    AppliedOutcome from apply::AppliedOutcome {
        /// Nothing.
        Unchanged "unchanged",
        /// The rollout block is kept for the next rollout of the version.
        PlanKept "plan_kept",
        /// The first version of a pack is stable.
        FirstStable "first_stable",
        /// A rollout has started.
        Started "started",
        /// A rollout has started in place of another one.
        Superseded "superseded",
        /// The canary was rolled back because stable was applied again.
        RolledBack "rolled_back",
        /// Everyone is on the version at once.
        Immediate "immediate",
    }
}

/// What applying a manifest came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedView {
    /// The pack.
    pub pack: String,
    /// The version.
    pub version: String,
    /// What happened, or would happen.
    pub outcome: AppliedOutcome,
    /// The same in words.
    pub message: String,
    /// The rollout that it started.
    pub rollout: Option<String>,
    /// Whether nothing was changed because only the question was asked.
    pub dry_run: bool,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

impl AppliedView {
    /// What applying came to, with whether it was only a question.
    pub fn new(applied: &apply::Applied, dry_run: bool) -> Self {
        Self {
            pack: applied.pack.to_string(),
            version: applied.version.to_string(),
            outcome: applied.outcome.into(),
            message: applied.message.clone(),
            rollout: applied.rollout.clone(),
            dry_run,
            warnings: applied.warnings.clone(),
        }
    }
}
