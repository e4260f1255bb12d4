//! The audit log, what on-call needs to know, and the stream of changes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serin_core::audit::AuditEntry;
use utoipa::ToSchema;

use super::check::CheckSummaryView;
use super::overview::{ClosestView, WorstView};
use super::rollout::{HoldView, Phase, RolloutSummary};

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntryView {
    /// Counts the entries, from 1.
    pub seq: u64,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The pack.
    pub pack: String,
    /// The rollout that it concerns.
    pub rollout: Option<String>,
    /// The revision that it led to.
    pub revision: u64,
    /// Who caused it.
    pub actor: String,
    /// By which way: `serin`, `key`, `dashboard`, `open`, `link`, `alert` or `data_directory`; absent in entries of old.
    #[serde(default)]
    pub source: Option<String>,
    /// The id of the key that was shown.
    #[serde(default)]
    pub key: Option<String>,
    /// What happened, such as `step_entered`.
    pub action: String,
    /// Why, in words.
    pub reason: String,
    /// What the decision was taken on.
    #[schema(value_type = Object)]
    pub evidence: serde_json::Value,
    /// Hash of this entry, 64 hexadecimal digits.
    pub hash: String,
}

impl From<&AuditEntry> for AuditEntryView {
    fn from(entry: &AuditEntry) -> Self {
        Self {
            seq: entry.seq,
            at: Timestamp::from_microsecond(entry.at_us).unwrap_or_default(),
            pack: entry.pack.clone(),
            rollout: entry.rollout.clone(),
            revision: entry.revision,
            actor: entry.actor.clone(),
            source: entry.source.clone(),
            key: entry.key.clone(),
            action: entry.action.clone(),
            reason: entry.reason.clone(),
            evidence: serde_json::from_str(&entry.evidence).unwrap_or_default(),
            hash: entry.hash.to_string(),
        }
    }
}

/// A part of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// In the order asked for.
    pub entries: Vec<AuditEntryView>,
    /// Ask for `after=` this to go on from oldest to newest; absent at the end.
    pub next_after: Option<u64>,
    /// Ask for `before=` this to go on from newest to oldest; absent at the end.
    #[serde(default)]
    pub next_before: Option<u64>,
}

/// Whether the audit log is the one that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditVerified {
    /// Whether it is.
    pub intact: bool,
    /// Entries that were checked; absent when the log is broken.
    pub entries: Option<u64>,
    /// The last entry as `NUMBER:HASH`: note it elsewhere, and a later check can be held against it.
    #[serde(default)]
    pub last: Option<String>,
    /// What is wrong; absent when the log is intact.
    pub problem: Option<String>,
}

/// What is in canary, what was rolled back lately, and what is forced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OncallView {
    /// What is in canary now, with who can help and what to run.
    #[serde(default)]
    pub canaries: Vec<OncallCanary>,
    /// Rollouts under way.
    pub active: Vec<RolloutSummary>,
    /// Rollouts that ended within the last 24 hours, newest first.
    pub ended: Vec<RolloutSummary>,
    /// Packs that are forced to stable.
    pub forced: Vec<String>,
    /// When this was read.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
}

/// A rollout under way, as on-call needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OncallCanary {
    /// The pack.
    pub pack: String,
    /// The rollout.
    pub rollout: String,
    /// The version that everyone had.
    pub stable: String,
    /// The version that is tried.
    pub canary: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Set share of new sessions that get the canary, in percent.
    pub weight: f64,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Who applied it.
    pub started_by: String,
    /// Why.
    pub reason: String,
    /// Who owns the pack.
    pub owner: Option<String>,
    /// Who is told when something needs a person.
    pub escalation: Option<String>,
    /// The metric that stands worst.
    pub worst: Option<WorstView>,
    /// The gate with the most evidence against the canary.
    pub closest: Option<ClosestView>,
    /// What keeps it from advancing.
    pub holds: Vec<HoldView>,
    /// The last check; absent before the first one.
    pub last_check: Option<CheckSummaryView>,
    /// What to run.
    pub commands: Vec<OncallCommand>,
}

/// Something to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OncallCommand {
    /// What it does.
    pub what: String,
    /// The command.
    pub command: String,
}

/// One message of the stream of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamEvent {
    /// The pack that changed.
    pub pack: String,
    /// Its revision afterwards.
    pub revision: u64,
    /// The actions that went to the audit log.
    pub actions: Vec<String>,
}
