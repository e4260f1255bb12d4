//! What applying a manifest does: the publishing rules.

use serde_json::json;

use crate::audit::Action;
use crate::ids::{Actor, Version};
use crate::pack::{Draft, PackState, Transition};
use crate::plan::{OnRevert, Plan, Strategy};
use crate::rollout::{End, RollbackCause, RolloutKind};
use crate::units::Timestamp;

/// A version as it was published before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Digest of its prompts.
    pub content_digest: String,
    /// Digest of its rollout block.
    pub plan_digest: String,
}

/// A manifest that somebody applies.
#[derive(Debug, Clone, Copy)]
pub struct Application<'a> {
    /// What it means.
    pub plan: &'a Plan,
    /// Digest of its prompts and of its rollout block.
    pub digests: &'a Published,
    /// Who applies it.
    pub actor: &'a Actor,
    /// Why.
    pub reason: &'a str,
    /// The salt of a rollout that it may start.
    pub salt: &'a str,
    /// Whether a rollout of the same version is to begin anew.
    pub restart: bool,
    /// When.
    pub now: Timestamp,
}

/// What an application leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Nothing is to be done, for a reason in words.
    Unchanged(String),
    /// The rollout block is kept for the next rollout of the version.
    PlanKept(String),
    /// Something changes.
    Changed(Box<Transition>, Change),
}

impl Outcome {
    /// Whether it keeps or ships something that the policy is about, rather than going back or changing nothing.
    pub fn goes_forward(&self) -> bool {
        match self {
            Self::Unchanged(_) => false,
            Self::PlanKept(_) => true,
            Self::Changed(transition, change) => match change {
                Change::RolledBack => false,
                Change::FirstStable | Change::Started | Change::Superseded => true,
                Change::Immediate => {
                    transition.pack.rollout.as_ref().is_none_or(|rollout| rollout.kind != RolloutKind::Undo)
                }
            },
        }
    }
}

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The first version of a pack is stable.
    FirstStable,
    /// A rollout has started.
    Started,
    /// A rollout has started in place of another one.
    Superseded,
    /// The canary was rolled back because stable was applied again.
    RolledBack,
    /// Everyone is on the version at once.
    Immediate,
}

/// Why an application was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A published version is immutable.
    #[error("version {0} is already published with other content")]
    ContentDiffers(Version),
    /// The rollout block of a version under way differs.
    #[error("version {0} is being rolled out with another rollout block")]
    PlanDiffers(Version),
}

impl Refused {
    /// What the user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::ContentDiffers(_) => "publish the change as a new version",
            Self::PlanDiffers(_) => {
                "`serin apply --restart` begins a new rollout at step 0 with fresh evidence"
            }
        }
    }
}

/// Decides what applying a manifest does.
///
/// # Errors
/// [`Refused`] when it may not be applied; nothing changes then.
pub fn publish(
    state: Option<&PackState>,
    known: Option<&Published>,
    application: Application<'_>,
) -> Result<Outcome, Refused> {
    let Application { plan, digests, actor, reason, now, .. } = application;
    let version = &plan.version;
    if let Some(known) = known
        && known.content_digest != digests.content_digest
    {
        return Err(Refused::ContentDiffers(version.clone()));
    }
    let Some(state) = state else {
        let mut draft = Draft::first(plan, now);
        draft.fact(actor, Action::VersionPublished, reason, published(application));
        draft.fact(
            actor,
            Action::FirstStable,
            "the first version of a pack becomes stable at once",
            json!({"stable": version}),
        );
        return Ok(Outcome::Changed(Box::new(draft.finish()), Change::FirstStable));
    };
    let same_plan = known.is_some_and(|known| known.plan_digest == digests.plan_digest);

    if let Some((rollout, _)) = state.active() {
        if rollout.canary == *version {
            return match (application.restart, same_plan) {
                (true, _) => Ok(begin(state, known, application, &format!("restarted on request: {reason}"))),
                (false, true) => {
                    Ok(Outcome::Unchanged(format!("version {version} is being rolled out already")))
                }
                (false, false) => Err(Refused::PlanDiffers(version.clone())),
            };
        }
        if state.stable == *version {
            let mut draft = Draft::of(state, now);
            let how = End::RolledBack { cause: RollbackCause::Revert, culprits: vec![] };
            let reason = format!("stable version {version} was applied again: {reason}");
            draft.roll_back(how, actor, &reason, json!({"canary": rollout.canary, "stable": version}));
            return Ok(Outcome::Changed(Box::new(draft.finish()), Change::RolledBack));
        }
    }
    if state.stable == *version {
        return Ok(if same_plan {
            Outcome::Unchanged(format!("version {version} is stable already"))
        } else {
            Outcome::PlanKept(format!("version {version} is stable already; its rollout block is kept"))
        });
    }
    if known.is_some() && state.rolled_back.contains(version) && !application.restart {
        let hint = format!("version {version} was rolled back; `serin retry {}` tries it again", state.name);
        return Ok(if same_plan { Outcome::Unchanged(hint) } else { Outcome::PlanKept(hint) });
    }
    Ok(begin(state, known, application, reason))
}

/// Starts a rollout of the version, in place of the one under way if there is one.
fn begin(
    state: &PackState,
    known: Option<&Published>,
    application: Application<'_>,
    reason: &str,
) -> Outcome {
    let Application { plan, actor, salt, now, .. } = application;
    let mut draft = Draft::of(state, now);
    if known.is_none() {
        draft.fact(actor, Action::VersionPublished, application.reason, published(application));
    }
    let was_active = state.active().is_some();
    if was_active {
        draft.supersede(&plan.version, actor, &format!("version {} was applied", plan.version));
    }
    let is_revert =
        state.history.contains(&plan.version) && plan.on_revert == OnRevert::Immediate && !was_active;
    let kind = match plan.strategy {
        _ if is_revert => RolloutKind::Undo,
        Strategy::Canary => RolloutKind::Canary,
        Strategy::Immediate => RolloutKind::Immediate,
    };
    draft.start(kind, plan, salt, actor, reason);
    let change = match (kind, was_active) {
        (RolloutKind::Immediate | RolloutKind::Undo, _) => Change::Immediate,
        (RolloutKind::Canary, true) => Change::Superseded,
        (RolloutKind::Canary, false) => Change::Started,
    };
    Outcome::Changed(Box::new(draft.finish()), change)
}

fn published(application: Application<'_>) -> serde_json::Value {
    json!({
        "version": application.plan.version,
        "content_digest": application.digests.content_digest,
        "plan_digest": application.digests.plan_digest,
    })
}
