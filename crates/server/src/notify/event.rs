//! What happened, as people are told it: an entry of the audit log with its name and its severity.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as WordError, StrDeserializer};
use serde_json::Value;
use serin_core::audit::{Action, AuditEntry};
use serin_core::ids::Actor;
use serin_core::rollout::HoldCause;

/// How urgent an event is, from what is only of interest to what somebody is woken up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Of interest to those who watch.
    Info,
    /// Worth a message.
    Tell,
    /// Somebody has to look now.
    Page,
}

impl Severity {
    /// Reads `info`, `tell` or `page`.
    ///
    /// # Errors
    /// A sentence that tells what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "info" => Ok(Self::Info),
            "tell" => Ok(Self::Tell),
            "page" => Ok(Self::Page),
            _ => Err("is none of page, tell, info".to_owned()),
        }
    }

    /// The word of settings and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Tell => "tell",
            Self::Page => "page",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An entry of the audit log.
    Audited(Action),
    /// Somebody tries whether messages arrive.
    Test,
}

/// Something that people may want to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its identity, the same at every attempt to deliver it and for every receiver.
    pub id: String,
    /// What it is about.
    pub kind: Kind,
    /// What sets it apart from others of its kind: the cause of a hold, or what caused a rollback.
    pub qualifier: Option<String>,
    /// How urgent it is.
    pub severity: Severity,
    /// When it happened.
    pub at: Timestamp,
    /// The pack.
    pub pack: String,
    /// The rollout that it concerns.
    pub rollout: Option<String>,
    /// Who caused it.
    pub actor: String,
    /// Why, in words.
    pub reason: String,
    /// What the decision was taken on.
    pub evidence: Value,
}

impl Event {
    /// Reads an entry of the audit log; nothing for an action that this release does not know.
    pub fn of(entry: &AuditEntry, severities: &Severities) -> Option<Self> {
        let action: Action = word(&entry.action).ok()?;
        let evidence: Value = serde_json::from_str(&entry.evidence).unwrap_or_default();
        let cause = || evidence["cause"].as_str().map(ToOwned::to_owned);
        let qualifier = match action {
            Action::HoldSet | Action::HoldCleared | Action::HoldLasts => cause(),
            Action::RolledBack if entry.actor == Actor::serin().as_str() => Some("gates".to_owned()),
            Action::RolledBack => Some("person".to_owned()),
            Action::VersionPublished
            | Action::FirstStable
            | Action::PlanReplaced
            | Action::RolloutStarted
            | Action::BaselineFrozen
            | Action::StepEntered
            | Action::WeightChanged
            | Action::CheckFailed
            | Action::Approved
            | Action::Promoted
            | Action::Unobserved
            | Action::Completed
            | Action::Superseded
            | Action::Retired
            | Action::Watched
            | Action::WatchBreached
            | Action::WatchEnded
            | Action::ForcedStable
            | Action::ForcedStableCleared
            | Action::PolicyOverridden
            | Action::KeyCreated
            | Action::KeyRevoked => None,
        };
        let hash = entry.hash.to_string();
        Some(Self {
            id: format!("{}-{}", entry.seq, &hash[..16]),
            kind: Kind::Audited(action),
            severity: severities.of(action, qualifier.as_deref()),
            qualifier,
            at: Timestamp::from_microsecond(entry.at_us).unwrap_or_default(),
            pack: entry.pack.clone(),
            rollout: entry.rollout.clone(),
            actor: entry.actor.clone(),
            reason: entry.reason.clone(),
            evidence,
        })
    }

    /// An event that says that nothing happened, to try whether messages arrive.
    pub fn test(id: String, at: Timestamp, actor: &Actor) -> Self {
        Self {
            id,
            kind: Kind::Test,
            qualifier: None,
            severity: Severity::Info,
            at,
            pack: "serin".to_owned(),
            rollout: None,
            actor: actor.to_string(),
            reason: "somebody tries whether messages arrive".to_owned(),
            evidence: Value::Null,
        }
    }

    /// The name that settings know it by, such as `completed` or `hold_set.degraded`.
    pub fn name(&self) -> String {
        match &self.qualifier {
            Some(qualifier) => format!("{}.{qualifier}", self.action()),
            None => self.action().to_owned(),
        }
    }

    /// The name without what sets it apart from others of its kind.
    pub fn action(&self) -> &'static str {
        match self.kind {
            Kind::Audited(action) => action.as_str(),
            Kind::Test => "test",
        }
    }

    /// The cause of the hold that it is about.
    pub fn hold_cause(&self) -> Option<HoldCause> {
        match self.kind {
            Kind::Audited(Action::HoldSet | Action::HoldCleared | Action::HoldLasts) => {
                word(self.qualifier.as_deref()?).ok()
            }
            Kind::Audited(_) | Kind::Test => None,
        }
    }

    /// Whether it may close what an earlier event opened, so that receivers who open something hear of it.
    pub fn may_close(&self) -> bool {
        self.ends_the_rollout() || matches!(self.kind, Kind::Audited(Action::HoldCleared))
    }

    /// Whether the rollout that it concerns is over with it.
    pub fn ends_the_rollout(&self) -> bool {
        matches!(self.kind, Kind::Audited(Action::Completed | Action::RolledBack | Action::Superseded))
    }
}

/// Which events page somebody, and which only tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Severities {
    /// What the settings say, by the name of the event with or without its qualifier.
    by_name: BTreeMap<String, Severity>,
}

impl Severities {
    /// Gives an event another severity than its own.
    ///
    /// # Errors
    /// A sentence that tells why there is no such event.
    pub fn set(&mut self, name: &str, severity: Severity) -> Result<(), String> {
        check_name(name)?;
        self.by_name.insert(name.to_owned(), severity);
        Ok(())
    }

    /// The severity of an event: the most exact setting there is, or the one of its own.
    pub fn of(&self, action: Action, qualifier: Option<&str>) -> Severity {
        let exact = qualifier.and_then(|qualifier| self.by_name.get(&format!("{action}.{qualifier}")));
        let found = exact.or_else(|| self.by_name.get(action.as_str())).copied();
        found.unwrap_or_else(|| own(action, qualifier))
    }

    /// The severity of a hold.
    pub fn of_hold(&self, cause: HoldCause) -> Severity {
        let cause = serde_json::to_value(cause).unwrap_or_default();
        self.of(Action::HoldSet, cause.as_str())
    }

    /// What the settings say, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Severity)> {
        self.by_name.iter().map(|(name, severity)| (name.as_str(), *severity))
    }
}

/// The severity of an event as long as the settings say nothing else.
fn own(action: Action, qualifier: Option<&str>) -> Severity {
    match action {
        // Everyone has the version that breaks its gate.
        Action::ForcedStable | Action::WatchBreached => Severity::Page,
        Action::HoldSet => match qualifier.and_then(|cause| word(cause).ok()) {
            // Stable breaks the gate as well: going back to it helps nobody.
            Some(HoldCause::StableFails) => Severity::Page,
            // The file has an event of its own, which pages.
            Some(
                HoldCause::ForcedStable
                | HoldCause::Paused
                | HoldCause::AtRisk
                | HoldCause::Degraded
                | HoldCause::SampleRatio
                | HoldCause::ProviderUnreachable
                | HoldCause::ApprovalDue
                | HoldCause::Deadline
                | HoldCause::Alert,
            )
            | None => Severity::Tell,
            Some(
                HoldCause::NoData
                | HoldCause::Unproven
                | HoldCause::NoBaseline
                | HoldCause::Unobserved
                | HoldCause::Frozen,
            ) => Severity::Info,
        },
        Action::RolloutStarted
        | Action::CheckFailed
        | Action::HoldLasts
        | Action::Completed
        | Action::RolledBack
        | Action::Superseded
        | Action::PolicyOverridden
        | Action::ForcedStableCleared => Severity::Tell,
        Action::VersionPublished
        | Action::FirstStable
        | Action::PlanReplaced
        | Action::BaselineFrozen
        | Action::StepEntered
        | Action::WeightChanged
        | Action::HoldCleared
        | Action::Approved
        | Action::Promoted
        | Action::Retired
        | Action::Watched
        | Action::WatchEnded
        | Action::Unobserved
        | Action::KeyCreated
        | Action::KeyRevoked => Severity::Info,
    }
}

/// Checks that there is an event of that name, with or without its qualifier.
///
/// # Errors
/// A sentence that tells what is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let (action, qualifier) = match name.split_once('.') {
        Some((action, qualifier)) => (action, Some(qualifier)),
        None => (name, None),
    };
    let action: Action = word(action).map_err(|error| format!("is no event: {error}"))?;
    match (action, qualifier) {
        (_, None) | (Action::RolledBack, Some("gates" | "person")) => Ok(()),
        (Action::RolledBack, Some(_)) => {
            Err("is no event: known are rolled_back.gates and rolled_back.person".to_owned())
        }
        (Action::HoldSet | Action::HoldCleared | Action::HoldLasts, Some(cause)) => {
            word::<HoldCause>(cause).map(drop).map_err(|error| format!("is no event: {error}"))
        }
        (action, Some(_)) => Err(format!("is no event: {action} has no kinds")),
    }
}

/// Reads a word as it is stored and sent.
fn word<'w, T: Deserialize<'w>>(word: &'w str) -> Result<T, WordError> {
    let word: StrDeserializer<'w, WordError> = word.into_deserializer();
    T::deserialize(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_setting_gives_the_severity() {
        let mut severities = Severities::default();
        let of = |severities: &Severities, cause| severities.of(Action::HoldSet, Some(cause));
        assert_eq!(of(&severities, "degraded"), Severity::Tell);
        assert_eq!(of(&severities, "no_data"), Severity::Info);
        severities.set("hold_set", Severity::Page).unwrap();
        assert_eq!(of(&severities, "no_data"), Severity::Page);
        severities.set("hold_set.no_data", Severity::Tell).unwrap();
        assert_eq!(of(&severities, "no_data"), Severity::Tell);
        assert_eq!(severities.of_hold(HoldCause::NoData), Severity::Tell);
        assert_eq!(of(&severities, "degraded"), Severity::Page);
    }

    #[test]
    fn an_event_that_does_not_exist_is_refused_with_those_that_do() {
        for name in ["completed", "hold_lasts", "hold_set.approval_due", "rolled_back.gates"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        assert!(check_name("rolledback").unwrap_err().contains("`rolled_back`"));
        assert!(check_name("hold_set.tired").unwrap_err().contains("`approval_due`"));
        assert!(check_name("completed.well").unwrap_err().contains("has no kinds"));
        assert!(check_name("rolled_back.luck").is_err());
    }
}
