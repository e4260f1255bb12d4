//! One attempt to replace stable by canary: the facts that are stored, and what derives from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::evidence::Baseline;
use crate::ids::{Actor, RolloutId, SegmentName, Version};
use crate::metric::MetricName;
use crate::plan::{Plan, StepPhase};
use crate::policy::Overridden;
use crate::routing::CohortId;
use crate::units::{HoldFor, Timestamp};
use crate::weight::Weight;

/// One attempt to replace stable by canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its identity.
    pub id: RolloutId,
    /// Counts the rollouts of the pack, from 1.
    pub attempt: u64,
    /// What started it.
    pub kind: RolloutKind,
    /// The version that everyone had.
    pub stable: Version,
    /// The version that is tried.
    pub canary: Version,
    /// Sets this rollout's buckets apart from those of any other.
    pub salt: String,
    /// Who started it.
    pub started_by: Actor,
    /// The id of the key that they showed; nothing where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_with: Option<String>,
    /// Why.
    pub reason: String,
    /// When.
    pub started_at: Timestamp,
    /// Grows by one with each transition, from 1.
    pub revision: u64,
    /// Each set of weights in force and since when, oldest first.
    pub spans: Vec<Span>,
    /// Rules of the policy that somebody has set aside for it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<Overridden>,
    /// Where it stands.
    pub state: State,
}

/// What started a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutKind {
    /// A new version takes a growing share.
    Canary,
    /// A new version takes everything at once, as its manifest says.
    Immediate,
    /// An earlier stable version takes everything back at once.
    Undo,
}

/// Weights in force from a point in time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Since when.
    pub from: Timestamp,
    /// Index of the step.
    pub step: u16,
    /// By segment, in the order of the plan.
    pub weights: Vec<Weight>,
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Both versions are served and compared.
    Active(Box<Active>),
    /// It is over, for good.
    Ended(Ended),
}

/// A rollout under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Active {
    /// Index of the step in the plan.
    pub step: u16,
    /// The part of the step that new sessions belong to, from 0.
    #[serde(default)]
    pub slice: u16,
    /// When the step was entered.
    pub entered_at: Timestamp,
    /// Time spent in the step, not counting holds.
    pub clock: StepClock,
    /// The cohorts of new sessions, by segment: stable and canary.
    pub cohorts: Vec<(CohortId, CohortId)>,
    /// What keeps the rollout from advancing.
    pub holds: BTreeMap<HoldCause, Hold>,
    /// Failed checks in a row.
    pub failed_checks: u32,
    /// The last check.
    pub last_check: Option<CheckSummary>,
    /// Constants frozen from stable, once there were enough sessions.
    pub baseline: Option<Baseline>,
    /// Whether the step has the approvals that it waits for.
    pub approved: bool,
    /// Who has approved the step, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// Degraded metrics that a person has passed by `promote`.
    pub waived: BTreeSet<MetricName>,
    /// Degraded segments that a person has passed by `promote`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub waived_segments: BTreeSet<SegmentName>,
    /// Voluntary metrics whose response rates were once found to differ.
    pub guard_tripped: BTreeSet<MetricName>,
    /// How long the rollout was frozen by policy, as far as that is over.
    #[serde(default, skip_serializing_if = "HoldFor::is_zero")]
    pub frozen: HoldFor,
    /// How much of it lies before the step.
    #[serde(default, skip_serializing_if = "HoldFor::is_zero")]
    pub frozen_before_step: HoldFor,
    /// The last point in time that was committed.
    pub last_at: Timestamp,
}

/// The approval of one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// The id of the key that they showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A clock that stops on hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepClock {
    /// Time that has run before it last started.
    pub accrued: HoldFor,
    /// Since when it has been running; nothing on hold.
    pub running_since: Option<Timestamp>,
}

impl StepClock {
    /// A clock that starts now.
    pub fn started(now: Timestamp) -> Self {
        Self { accrued: HoldFor::ZERO, running_since: Some(now) }
    }

    /// Time that it has run.
    pub fn elapsed(&self, now: Timestamp) -> HoldFor {
        let running = self.running_since.map_or(HoldFor::ZERO, |since| HoldFor::between(since, now));
        self.accrued.plus(running)
    }

    /// The clock stopped.
    #[must_use]
    pub fn stopped(&self, now: Timestamp) -> Self {
        Self { accrued: self.elapsed(now), running_since: None }
    }

    /// The clock running; one that runs already is left alone.
    #[must_use]
    pub fn resumed(&self, now: Timestamp) -> Self {
        Self { accrued: self.accrued, running_since: self.running_since.or(Some(now)) }
    }

    /// The clock less a length of time that nobody observed.
    #[must_use]
    pub fn without(&self, gap: HoldFor, now: Timestamp) -> Self {
        if self.running_since.is_none() {
            return *self;
        }
        Self { accrued: self.elapsed(now).minus(gap), running_since: Some(now) }
    }
}

/// Why a rollout does not advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldCause {
    /// A person paused it.
    Paused,
    /// A gate is on the wrong side, unproven.
    AtRisk,
    /// A gate has too few sessions.
    NoData,
    /// `progress: {when: evidence}`: a gate is not yet shown to be within the margin.
    Unproven,
    /// Stable breaks the same gate, so the canary is not to blame.
    StableFails,
    /// A metric that is no gate is proven worse.
    Degraded,
    /// The measured split is not the set one.
    SampleRatio,
    /// An outside metric provider cannot be asked.
    ProviderUnreachable,
    /// A person has to approve.
    ApprovalDue,
    /// Stable has too few sessions to compare with.
    NoBaseline,
    /// The rollout takes longer than it may.
    Deadline,
    /// The server ended without warning, and sessions of its last moments may come back without their pins.
    Unobserved,
    /// The break-glass file is there.
    ForcedStable,
    /// An alert of another system fires.
    Alert,
    /// A rule of the policy freezes everything for a while.
    Frozen,
}

impl HoldCause {
    /// Whether a person set the hold and only a person clears it.
    pub fn is_by_person(self) -> bool {
        match self {
            Self::Paused => true,
            Self::AtRisk
            | Self::NoData
            | Self::Unproven
            | Self::StableFails
            | Self::Degraded
            | Self::SampleRatio
            | Self::ProviderUnreachable
            | Self::ApprovalDue
            | Self::NoBaseline
            | Self::Deadline
            | Self::Unobserved
            | Self::ForcedStable
            | Self::Alert
            | Self::Frozen => false,
        }
    }

    /// Whether the hold ends only when new sessions of the canary have matured.
    pub(crate) fn is_for_sessions(self) -> bool {
        match self {
            Self::AtRisk | Self::NoData | Self::Unproven => true,
            Self::Paused
            | Self::StableFails
            | Self::Degraded
            | Self::SampleRatio
            | Self::ProviderUnreachable
            | Self::ApprovalDue
            | Self::NoBaseline
            | Self::Deadline
            | Self::Unobserved
            | Self::ForcedStable
            | Self::Alert
            | Self::Frozen => false,
        }
    }

    /// What ends the hold, as a sentence for people.
    pub fn cleared_by(self) -> &'static str {
        match self {
            Self::Paused => "serin resume",
            Self::AtRisk => "the next check in which every gate is on its right side, or serin promote",
            Self::NoData => "enough matured canary sessions in this step, or serin promote",
            Self::Unproven => "enough evidence that every gate is within the margin, or serin promote",
            Self::StableFails => "stable passing the gate again, or serin promote",
            Self::Degraded => "the evidence falling below half its limit, or serin promote",
            Self::SampleRatio => "the split matching the set weight again, or serin promote",
            Self::ProviderUnreachable => "the metric provider answering again, or serin promote",
            Self::ApprovalDue => "serin approve",
            Self::NoBaseline => "enough sessions on stable, or serin promote",
            Self::Deadline => "serin promote or serin rollback",
            Self::Unobserved => {
                "the idle timeout of sessions having passed since the server came back, or serin promote"
            }
            Self::ForcedStable => "removing the force-stable file",
            Self::Frozen => "the end of the freeze, or serin promote --override-policy",
            Self::Alert => {
                "the alert being resolved or no longer repeated; serin promote passes it for one step"
            }
        }
    }
}

impl fmt::Display for HoldCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Paused => "paused",
            Self::AtRisk => "at risk",
            Self::NoData => "no data",
            Self::Unproven => "unproven",
            Self::StableFails => "stable fails too",
            Self::Degraded => "degraded",
            Self::SampleRatio => "sample ratio mismatch",
            Self::ProviderUnreachable => "metric provider unreachable",
            Self::ApprovalDue => "approval due",
            Self::NoBaseline => "no baseline",
            Self::Deadline => "deadline passed",
            Self::Unobserved => "unobserved",
            Self::ForcedStable => "forced to stable",
            Self::Frozen => "frozen by policy",
            Self::Alert => "alert",
        })
    }
}

/// A hold in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: Timestamp,
    /// Why, in words.
    pub reason: String,
    /// Who set it.
    pub actor: Actor,
    /// Whether it was noted that it lasts.
    #[serde(default)]
    pub reminded: bool,
}

/// What the state machine keeps of a check; the whole record is stored beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckSummary {
    /// Counts the checks of the rollout, from 1.
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Index of the step in which it was made.
    pub step: u16,
    /// What it came to.
    pub outcome: CheckOutcome,
    /// What it came to, in words.
    pub summary: String,
    /// Causes to hold that the check found, with their reasons.
    pub holds: BTreeMap<HoldCause, String>,
    /// Degraded metrics that are no gates.
    pub degraded: BTreeSet<MetricName>,
    /// Segments in which a gate is proven to be broken.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub degraded_segments: BTreeSet<SegmentName>,
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// Looked at without deciding: Observing, or before the initial delay has passed.
    Observed,
    /// Every gate passes or does not apply, and the step has its samples.
    Pass,
    /// At least one gate is on its wrong side, unproven.
    AtRisk,
    /// At least one gate has too few sessions.
    NoData,
    /// A gate is proven to be broken.
    Fail,
    /// A gate is proven to be broken, and so it is by stable.
    StableFails,
}

impl fmt::Display for CheckOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Observed => "observed",
            Self::Pass => "pass",
            Self::AtRisk => "at risk",
            Self::NoData => "no data",
            Self::Fail => "fail",
            Self::StableFails => "stable fails too",
        })
    }
}

/// A rollout that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// How.
    pub how: End,
    /// By whom.
    pub actor: Actor,
    /// Why, in words.
    pub reason: String,
    /// The step that it had reached.
    pub step: u16,
    /// The constants that its evidence rested on.
    pub baseline: Option<Baseline>,
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The canary is the new stable.
    Completed,
    /// Everyone is back on stable.
    RolledBack {
        /// Whether gates, a person, or a re-applied stable version caused it.
        cause: RollbackCause,
        /// The gates that were named, for an automatic one.
        culprits: Vec<MetricName>,
    },
    /// Another version took its place.
    Superseded {
        /// That version.
        by: Version,
    },
}

/// What caused a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollbackCause {
    /// Failed checks.
    Gates,
    /// A person or pipeline.
    Command,
    /// The stable version was applied again.
    Revert,
}

/// Where a rollout is in its life; derived from its position in the plan, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Baselines are collected.
    Observing,
    /// Below half of the sessions.
    Progressing,
    /// From half of the sessions on.
    Completing,
    /// The canary is the new stable.
    Completed,
    /// Everyone is back on stable.
    RolledBack,
    /// Another version took its place.
    Superseded,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Observing => "Observing",
            Self::Progressing => "Progressing",
            Self::Completing => "Completing",
            Self::Completed => "Completed",
            Self::RolledBack => "RolledBack",
            Self::Superseded => "Superseded",
        })
    }
}

impl Rollout {
    /// Where the rollout is in its life.
    pub fn phase(&self, plan: &Plan) -> Phase {
        match &self.state {
            State::Active(active) => match plan.steps[usize::from(active.step)].phase {
                StepPhase::Observing => Phase::Observing,
                StepPhase::Progressing => Phase::Progressing,
                StepPhase::Completing => Phase::Completing,
            },
            State::Ended(ended) => match ended.how {
                End::Completed => Phase::Completed,
                End::RolledBack { .. } => Phase::RolledBack,
                End::Superseded { .. } => Phase::Superseded,
            },
        }
    }

    /// The active state; nothing once the rollout is over.
    pub fn active(&self) -> Option<&Active> {
        match &self.state {
            State::Active(active) => Some(active),
            State::Ended(_) => None,
        }
    }

    /// The end; nothing while the rollout is active.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Active(_) => None,
            State::Ended(ended) => Some(ended),
        }
    }

    /// The weights in force by segment; empty once the rollout is over.
    pub fn weights(&self) -> &[Weight] {
        match &self.state {
            State::Active(_) => self.spans.last().map_or(&[], |span| &span.weights),
            State::Ended(_) => &[],
        }
    }

    /// The set weight of the last segment, which catches everyone; zero or full once the rollout is over.
    pub fn weight(&self) -> Weight {
        match &self.state {
            State::Active(_) => self.weights().last().copied().unwrap_or(Weight::ZERO),
            State::Ended(ended) if ended.how == End::Completed => Weight::FULL,
            State::Ended(_) => Weight::ZERO,
        }
    }

    /// The constants that evidence rests on.
    pub fn baseline(&self) -> Option<&Baseline> {
        match &self.state {
            State::Active(active) => active.baseline.as_ref(),
            State::Ended(ended) => ended.baseline.as_ref(),
        }
    }
}

impl Active {
    /// When the current step may end at the earliest, as long as no hold is set.
    pub fn step_ends_at(&self, plan: &Plan) -> Option<Timestamp> {
        let hold = plan.steps[usize::from(self.step)].hold;
        self.clock.running_since.map(|since| plan.imposed.after(since, hold.minus(self.clock.accrued)))
    }

    /// How long the rollout was frozen by policy up to a point in time: no deadline counts that.
    pub fn frozen_until(&self, now: Timestamp) -> HoldFor {
        let lasting = self.holds.get(&HoldCause::Frozen).map(|hold| HoldFor::between(hold.since, now));
        self.frozen.plus(lasting.unwrap_or_default())
    }

    /// Whether the hold time of the current step has passed.
    pub fn step_time_passed(&self, plan: &Plan, now: Timestamp) -> bool {
        self.clock.elapsed(now) >= plan.steps[usize::from(self.step)].hold
    }

    /// How many people have approved the step.
    pub fn approvals_given(&self) -> u32 {
        // Who approved was not kept once.
        let unnamed = u32::from(self.approved && self.approvals.is_empty());
        u32::try_from(self.approvals.len()).unwrap_or(u32::MAX).saturating_add(unnamed)
    }

    /// Whether the step waits for approvals that it does not have.
    pub fn waits_for_approval(&self, plan: &Plan) -> bool {
        plan.steps[usize::from(self.step)].approval && self.approvals_given() < plan.imposed.approving.count
    }

    /// When the next check is due.
    pub fn next_check_at(&self, plan: &Plan, started_at: Timestamp) -> Timestamp {
        let last = self.last_check.as_ref().map_or(started_at, |check| check.at);
        plan.analysis.interval.after(last)
    }
}
