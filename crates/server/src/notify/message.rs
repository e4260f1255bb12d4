//! What people are told: a first line that says what to do, then what on-call needs to know.
//!
//! A message is the same for every receiver; each channel gives it its form.

use std::collections::BTreeSet;

use serin_core::audit::Action;
use serin_core::rollout::{HoldCause, RolloutKind};
use serin_core::units::HoldFor;

use super::event::{Event, Kind, Severity};
use super::picture::{Picture, minutes, when};

/// What a message asks of whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Look and decide now.
    ActNow,
    /// Decide when there is time.
    Decide,
    /// Nothing yet; it may go on by itself.
    Watch,
    /// Nothing: the danger is over.
    AlreadySafe,
    /// Nothing.
    Nothing,
}

impl Ask {
    /// How a message begins.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ActNow => "Act now",
            Self::Decide => "Needs a decision",
            Self::Watch => "Watch",
            Self::AlreadySafe => "Already safe",
            Self::Nothing => "Nothing to do",
        }
    }
}

/// What people are told about an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What happened.
    pub event: Event,
    /// What it asks of whoever reads it.
    pub ask: Ask,
    /// What happened in one line, behind what to do.
    pub headline: String,
    /// What to know about the rollout: a name and a value each.
    pub facts: Vec<(&'static str, String)>,
    /// Everything that is in canary now, one line each.
    pub canaries: Vec<String>,
    /// What to run: what it does, and the command.
    pub commands: Vec<(&'static str, String)>,
    /// A page with one action, rollback.
    pub rollback_link: Option<String>,
    /// How urgent the holds of the rollout are.
    pub holds: Holds,
}

/// How urgent the holds of a rollout are, for receivers that close what they have opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holds {
    /// Those in force now.
    pub open: BTreeSet<Severity>,
    /// The one that the event clears.
    pub cleared: Option<Severity>,
}

impl Message {
    /// Puts into words what happened, with what is known now.
    pub fn new(event: Event, picture: &Picture, rollback_link: Option<String>, holds: Holds) -> Self {
        let (ask, what) = told(&event, picture);
        Self {
            ask,
            headline: format!("{}: {what}", ask.as_str()),
            facts: facts(&event, picture),
            canaries: picture.canaries.iter().map(|canary| canary.line(picture.as_of)).collect(),
            commands: commands(&event, picture),
            rollback_link,
            holds,
            event,
        }
    }

    /// The whole message as plain text.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.headline);
        for (name, value) in &self.facts {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text.push_str("In canary now:");
        if self.canaries.is_empty() {
            text.push_str(" nothing");
        }
        text.push('\n');
        for line in &self.canaries {
            text.push_str(&format!("  {line}\n"));
        }
        for (what, command) in &self.commands {
            text.push_str(&format!("{what}: {command}\n"));
        }
        if let Some(link) = &self.rollback_link {
            text.push_str(&format!("Roll back from here: {link}\n"));
        }
        text
    }
}

/// What an event asks for, and what happened.
fn told(event: &Event, picture: &Picture) -> (Ask, String) {
    let Event { pack, reason, actor, .. } = event;
    let rollout = picture.rollout.as_ref();
    let canary = rollout.map_or_else(|| pack.clone(), |rollout| format!("{pack} {}", rollout.canary));
    let weight = event.evidence["weights_percent"].as_array().and_then(|weights| weights.last()?.as_f64());
    let at = weight.map_or_else(String::new, |weight| format!(" at {weight}% of new sessions"));
    let urgent = |otherwise| if event.severity == Severity::Page { Ask::ActNow } else { otherwise };
    let action = match event.kind {
        Kind::Test => {
            return (Ask::Nothing, format!("this is a test by {actor}; messages arrive here"));
        }
        Kind::Audited(action) => action,
    };
    match action {
        Action::RolledBack => {
            let versions = rollout.map_or_else(String::new, |rollout| {
                format!(" from {} to {}", rollout.canary, rollout.stable)
            });
            let by = if event.qualifier.as_deref() == Some("gates") {
                String::new()
            } else {
                format!(" by {actor}")
            };
            (Ask::AlreadySafe, format!("{pack} was rolled back{versions}{by}: {reason}"))
        }
        Action::Completed => match rollout.map(|rollout| rollout.kind) {
            Some(RolloutKind::Undo) => {
                (Ask::AlreadySafe, format!("everyone is back on {canary}, by {actor}: {reason}"))
            }
            Some(RolloutKind::Canary | RolloutKind::Immediate) | None => {
                (Ask::Nothing, format!("{canary} is stable for everyone: {reason}"))
            }
        },
        Action::Superseded => (Ask::Nothing, format!("{canary} made way for another version: {reason}")),
        Action::RolloutStarted => {
            (urgent(Ask::Nothing), format!("{canary} is in canary{at}, started by {actor}: {reason}"))
        }
        Action::StepEntered => (urgent(Ask::Nothing), format!("{canary} is{at}, by {actor}: {reason}")),
        Action::WeightChanged => (urgent(Ask::Nothing), format!("{canary} is{at}: {reason}")),
        Action::KeyCreated | Action::KeyRevoked => (urgent(Ask::Nothing), format!("{reason}, by {actor}")),
        Action::CheckFailed => (urgent(Ask::Watch), format!("a check of {canary} failed: {reason}")),
        Action::HoldSet => {
            let cause = event.hold_cause();
            let asks = if cause.is_some_and(waits_for_a_person) { Ask::Decide } else { Ask::Watch };
            (urgent(asks), format!("{canary} is on hold ({}): {reason}", cause_words(cause)))
        }
        Action::HoldLasts => {
            let lasts = event.evidence["lasts_ms"]
                .as_u64()
                .map_or_else(|| "a long time".to_owned(), |ms| minutes(HoldFor::from_millis(ms)).to_string());
            let cause = cause_words(event.hold_cause());
            (urgent(Ask::Decide), format!("{canary} has been on hold ({cause}) for {lasts}: {reason}"))
        }
        Action::HoldCleared => {
            let cause = cause_words(event.hold_cause());
            (urgent(Ask::Nothing), format!("{canary} is no longer on hold ({cause}): {reason}"))
        }
        Action::Unobserved => {
            (urgent(Ask::Nothing), format!("{canary} was not watched for a while: {reason}"))
        }
        Action::Approved => {
            (urgent(Ask::Nothing), format!("{actor} approved the step of {canary}: {reason}"))
        }
        Action::Retired => (urgent(Ask::Nothing), format!("a version of {pack} is out of service: {reason}")),
        Action::PolicyOverridden => {
            (urgent(Ask::Nothing), format!("{actor} set rules of the policy aside for {canary}: {reason}"))
        }
        Action::Promoted => (urgent(Ask::Nothing), format!("{actor} moved {canary} on: {reason}")),
        Action::BaselineFrozen => (urgent(Ask::Nothing), format!("{canary} has its baseline: {reason}")),
        Action::VersionPublished | Action::FirstStable | Action::PlanReplaced => {
            let what = action.as_str().replace('_', " ");
            (urgent(Ask::Nothing), format!("{pack}: {what} by {actor}: {reason}"))
        }
        Action::Watched => (urgent(Ask::Nothing), format!("stable of {pack} keeps its gates: {reason}")),
        Action::WatchEnded => {
            (urgent(Ask::Nothing), format!("stable of {pack} is no longer watched: {reason}"))
        }
        Action::WatchBreached => (urgent(Ask::Decide), format!("stable of {pack} breaks a gate: {reason}")),
        Action::ForcedStable => (urgent(Ask::Watch), format!("{pack} is forced to stable: {reason}")),
        Action::ForcedStableCleared => {
            (urgent(Ask::Nothing), format!("{pack} is no longer forced to stable: {reason}"))
        }
    }
}

/// Whether a hold waits for somebody, rather than for its cause to go.
fn waits_for_a_person(cause: HoldCause) -> bool {
    match cause {
        HoldCause::Paused
        | HoldCause::StableFails
        | HoldCause::Degraded
        | HoldCause::ApprovalDue
        | HoldCause::Deadline
        | HoldCause::ForcedStable => true,
        HoldCause::AtRisk
        | HoldCause::NoData
        | HoldCause::Unproven
        | HoldCause::SampleRatio
        | HoldCause::ProviderUnreachable
        | HoldCause::NoBaseline
        | HoldCause::Unobserved
        | HoldCause::Alert
        | HoldCause::Frozen => false,
    }
}

fn cause_words(cause: Option<HoldCause>) -> String {
    cause.map_or_else(|| "unknown cause".to_owned(), |cause| cause.to_string())
}

/// What to know about the rollout of an event.
fn facts(event: &Event, picture: &Picture) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(rollout) = &picture.rollout {
        facts.push(("Rollout", format!("{}: {} to {}", rollout.id, rollout.stable, rollout.canary)));
        let age = minutes(HoldFor::between(rollout.started_at, picture.as_of));
        let since = format!("{} ({age} ago)", when(rollout.started_at));
        facts.push(("Started", format!("{since} by {}", rollout.started_by)));
    }
    if let Some(canary) = picture.canary_of(event) {
        facts.push(("Canary now", format!("{}% of new sessions", canary.weight.percent())));
        for (cause, hold) in &canary.holds {
            let since = minutes(HoldFor::between(hold.since, picture.as_of));
            let clears = cause.cleared_by();
            facts.push(("On hold", format!("{cause} for {since}: {}; cleared by {clears}", hold.reason)));
        }
    }
    let culprits: Vec<&str> = event.evidence["culprits"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str())
        .collect();
    if !culprits.is_empty() {
        facts.push(("Metric", culprits.join(", ")));
    }
    if let Some(owner) = &picture.people.owner {
        facts.push(("Owner", owner.clone()));
    }
    if let Some(escalation) = &picture.people.escalation {
        facts.push(("Escalate to", escalation.clone()));
    }
    facts.push(("When", when(event.at)));
    facts
}

/// What to run about the rollout of an event, as it stands now.
fn commands(event: &Event, picture: &Picture) -> Vec<(&'static str, String)> {
    let Event { pack, .. } = event;
    if event.kind == Kind::Test {
        return vec![("See what is in canary", "serin oncall".to_owned())];
    }
    if let Some(canary) = picture.canary_of(event) {
        return commands_of_canary(pack, canary.holds.iter().map(|(cause, _)| *cause));
    }
    let mut commands = vec![("Look", look(pack))];
    match event.kind {
        Kind::Audited(Action::RolledBack) => commands.push(("Try it again", order("retry", pack))),
        Kind::Audited(Action::Completed) => commands.push(("Go back all the same", order("rollback", pack))),
        Kind::Audited(_) | Kind::Test => {}
    }
    commands
}

/// What to run about a rollout under way: what it does, and the command.
pub fn commands_of_canary(pack: &str, holds: impl Iterator<Item = HoldCause>) -> Vec<(&'static str, String)> {
    let mut commands = vec![("Look", look(pack)), ("Roll back", order("rollback", pack))];
    for cause in holds {
        let command = match cause {
            HoldCause::ApprovalDue => ("Approve the step", order("approve", pack)),
            HoldCause::Paused => ("Go on", order("resume", pack)),
            HoldCause::AtRisk
            | HoldCause::NoData
            | HoldCause::Unproven
            | HoldCause::StableFails
            | HoldCause::Degraded
            | HoldCause::SampleRatio
            | HoldCause::ProviderUnreachable
            | HoldCause::NoBaseline
            | HoldCause::Deadline
            | HoldCause::Unobserved
            | HoldCause::Alert => ("Go on all the same", order("promote", pack)),
            HoldCause::ForcedStable | HoldCause::Frozen => continue,
        };
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    commands
}

fn look(pack: &str) -> String {
    format!("serin status {pack}")
}

fn order(order: &str, pack: &str) -> String {
    format!("serin {order} {pack} --reason \"…\"")
}
