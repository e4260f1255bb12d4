//! Messages for Alertmanager: alerts that fire until what they are about is over.
//!
//! A rollout has at most one alert of each severity; what is said of it is replaced by what comes later. The
//! end of the rollout is an alert of its own, which goes out by itself.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use serin_core::audit::Action;
use serin_core::units::HoldFor;

use super::client::Outgoing;
use super::event::{Kind, Severity};
use super::message::Message;
use super::receiver::Endpoint;

/// How long an alert fires that nothing takes back.
const FACT_FIRES: HoldFor = HoldFor::from_hours(1);
/// How long an alert fires at most that the end of a hold or of the rollout takes back.
const HOLD_FIRES: HoldFor = HoldFor::from_hours(24 * 7);

/// What a message is to Alertmanager; `wanted` says whether the receiver wants to be told of the event itself.
pub fn requests(url: &Endpoint, message: &Message, wanted: bool) -> Vec<Outgoing> {
    let alerts = alerts(message, wanted);
    if alerts.is_empty() {
        return Vec::new();
    }
    let body = Bytes::from(Value::Array(alerts).to_string());
    vec![Outgoing { to: url.at("/api/v2/alerts"), media: "application/json", headers: Vec::new(), body }]
}

fn alerts(message: &Message, wanted: bool) -> Vec<Value> {
    let event = &message.event;
    let at = event.at;
    let fires = |name: &str, lasts: HoldFor| {
        let mut alert = alert(name, message, event.severity, lasts.after(at));
        alert["startsAt"] = json!(at.to_string());
        alert
    };
    let mut alerts = Vec::new();
    if event.ends_the_rollout() {
        for severity in [Severity::Info, Severity::Tell, Severity::Page] {
            alerts.push(alert(ROLLOUT, message, severity, at));
        }
    } else if let Some(cleared) =
        message.holds.cleared.filter(|cleared| !message.holds.open.contains(cleared))
    {
        alerts.push(alert(ROLLOUT, message, cleared, at));
    }
    if wanted {
        alerts.extend(match event.kind {
            Kind::Test => Some(fires(TEST, HoldFor::from_mins(5))),
            Kind::Audited(Action::HoldSet | Action::HoldLasts) => Some(fires(ROLLOUT, HOLD_FIRES)),
            Kind::Audited(Action::HoldCleared) => None,
            Kind::Audited(_) if event.ends_the_rollout() => Some(fires(ENDED, FACT_FIRES)),
            Kind::Audited(_) => Some(fires(ROLLOUT, FACT_FIRES)),
        });
    }
    alerts
}

/// The name of the alert of a rollout under way.
const ROLLOUT: &str = "SerinRollout";
/// The name of the alert of a rollout that is over.
const ENDED: &str = "SerinRolloutEnded";
/// The name of the alert that says that nothing happened.
const TEST: &str = "SerinTest";
/// The names of all alerts that Serin sends.
pub const OWN_ALERTS: [&str; 3] = [ROLLOUT, ENDED, TEST];

/// An alert; its labels are its identity.
fn alert(name: &str, message: &Message, severity: Severity, ends_at: Timestamp) -> Value {
    let event = &message.event;
    let mut annotations = json!({
        "summary": message.headline,
        "description": message.text(),
        "event": event.name(),
        "id": event.id,
    });
    if let Some(link) = &message.rollback_link {
        annotations["rollback"] = json!(link);
    }
    json!({
        "labels": {
            "alertname": name,
            "pack": event.pack,
            "rollout": event.rollout.as_deref().unwrap_or(""),
            "severity": severity.as_str(),
        },
        "annotations": annotations,
        "endsAt": ends_at.to_string(),
    })
}
