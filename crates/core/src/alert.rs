//! Alerts of other systems, which hold the rollouts of packs that they are about.
//!
//! An alert that fires keeps a rollout from advancing and never rolls it back. It is over when the other system says
//! so, or when it has not repeated itself in time: a message that got lost must not hold for ever.

use serde::{Deserialize, Serialize};

use crate::rollout::HoldCause;
use crate::units::Timestamp;

/// Alerts that a reason names; of the others it says how many they are.
const MOST_NAMED: usize = 3;

/// An alert as it stands, for one pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What the other system calls it.
    pub name: String,
    /// What it says is wrong; may be empty.
    pub summary: String,
    /// Where to read more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Tells it from others of the same name.
    pub fingerprint: String,
    /// Who said so: the name of a key.
    pub said_by: String,
    /// Since when it fires.
    pub since: Timestamp,
    /// It is over then, unless it is repeated.
    pub expires_at: Timestamp,
    /// When the other system said that it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
}

/// Where an alert is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertState {
    /// It fires, and holds.
    Firing,
    /// The other system said that it is over.
    Resolved,
    /// It was not repeated in time.
    Expired,
}

impl Alert {
    /// Where it is in its life at a point in time.
    pub fn state(&self, now: Timestamp) -> AlertState {
        match self.resolved_at {
            Some(_) => AlertState::Resolved,
            None if self.expires_at <= now => AlertState::Expired,
            None => AlertState::Firing,
        }
    }

    /// When it was over; nothing while it fires.
    pub fn ended_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state(now) {
            AlertState::Firing => None,
            AlertState::Resolved => self.resolved_at,
            AlertState::Expired => Some(self.expires_at),
        }
    }
}

/// Why a rollout is held, in words; nothing where no alert fires.
pub fn reason(alerts: &[Alert], now: Timestamp) -> Option<String> {
    let firing: Vec<&Alert> = alerts.iter().filter(|alert| alert.state(now) == AlertState::Firing).collect();
    let named = firing.iter().take(MOST_NAMED).map(|alert| {
        let summary = if alert.summary.is_empty() { String::new() } else { format!(": {}", alert.summary) };
        format!("{} fires since {:.0}{summary}", alert.name, alert.since)
    });
    let mut text = named.collect::<Vec<_>>().join("; ");
    if firing.len() > MOST_NAMED {
        text.push_str(&format!("; and {} more alerts fire", firing.len() - MOST_NAMED));
    }
    (!firing.is_empty()).then_some(text)
}

/// Why a hold that began at `held_since` is over, in words.
pub(crate) fn reason_to_clear(alerts: &[Alert], held_since: Timestamp, now: Timestamp) -> String {
    let ended = ended_since(alerts, held_since, now);
    let named = ended.iter().take(MOST_NAMED).map(|alert| match alert.state(now) {
        AlertState::Expired => format!("{} was not repeated until {:.0}", alert.name, alert.expires_at),
        AlertState::Resolved | AlertState::Firing => format!("{} is resolved", alert.name),
    });
    let text = named.collect::<Vec<_>>().join("; ");
    if text.is_empty() { "no alert fires for this pack any more".to_owned() } else { text }
}

/// What the audit log keeps beside a hold that is set.
pub(crate) fn set_evidence(alerts: &[Alert], now: Timestamp) -> serde_json::Value {
    let firing = alerts.iter().filter(|alert| alert.state(now) == AlertState::Firing);
    let firing: Vec<&Alert> = firing.take(MOST_KEPT).collect();
    serde_json::json!({
        "cause": HoldCause::Alert, "cleared_by": HoldCause::Alert.cleared_by(), "alerts": firing,
    })
}

/// What the audit log keeps beside a hold that is cleared.
pub(crate) fn clear_evidence(alerts: &[Alert], held_since: Timestamp, now: Timestamp) -> serde_json::Value {
    let ended: Vec<&Alert> = ended_since(alerts, held_since, now).into_iter().take(MOST_KEPT).collect();
    serde_json::json!({"cause": HoldCause::Alert, "alerts": ended})
}

/// Alerts that one entry of the audit log keeps.
const MOST_KEPT: usize = 20;

fn ended_since(alerts: &[Alert], since: Timestamp, now: Timestamp) -> Vec<&Alert> {
    alerts.iter().filter(|alert| alert.ended_at(now).is_some_and(|at| at >= since)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn alert(name: &str) -> Alert {
        Alert {
            name: name.to_owned(),
            summary: String::new(),
            url: None,
            fingerprint: name.to_owned(),
            said_by: "monitor".to_owned(),
            since: at(0),
            expires_at: at(600),
            resolved_at: None,
        }
    }

    #[test]
    fn an_alert_fires_until_it_is_resolved_or_was_not_repeated_in_time() {
        let firing = alert("HighErrors");
        let resolved = Alert { resolved_at: Some(at(60)), ..firing.clone() };
        assert_eq!(firing.state(at(599)), AlertState::Firing);
        assert_eq!(firing.state(at(600)), AlertState::Expired);
        assert_eq!(resolved.state(at(60)), AlertState::Resolved);
        assert_eq!(resolved.state(at(900)), AlertState::Resolved);
        assert_eq!(
            [firing.ended_at(at(1)), firing.ended_at(at(900)), resolved.ended_at(at(900))],
            [None, Some(at(600)), Some(at(60))]
        );
    }

    #[test]
    fn the_reason_names_what_fires_and_is_bounded() {
        assert_eq!(reason(&[], at(0)), None);
        assert_eq!(reason(&[alert("A")], at(600)), None);
        let told = Alert { summary: "5xx above 2 %".to_owned(), ..alert("A") };
        let all: Vec<Alert> = ["B", "C", "D", "E"].iter().map(|name| alert(name)).collect();
        assert_eq!(
            reason(&[vec![told], all].concat(), at(0)).unwrap(),
            "A fires since 1970-01-01T00:00:00Z: 5xx above 2 %; B fires since 1970-01-01T00:00:00Z; \
             C fires since 1970-01-01T00:00:00Z; and 2 more alerts fire"
        );
    }

    #[test]
    fn a_hold_is_cleared_by_what_ended_while_it_was_set() {
        let early = Alert { resolved_at: Some(at(10)), ..alert("Early") };
        let late = Alert { resolved_at: Some(at(30)), ..alert("Late") };
        let lost = alert("Lost");
        let told = reason_to_clear(&[early, late, lost], at(20), at(700));
        assert_eq!(told, "Late is resolved; Lost was not repeated until 1970-01-01T00:10:00Z");
        assert_eq!(reason_to_clear(&[], at(20), at(700)), "no alert fires for this pack any more");
    }
}
