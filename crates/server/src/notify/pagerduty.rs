//! Messages for PagerDuty: Events API v2.
//!
//! One incident a rollout, whose id is the key that keeps repetitions together. What pages opens it, the end
//! of the rollout or of the hold closes it; what does not page is a change event beside it.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::client::Outgoing;
use super::event::{Kind, Severity};
use super::message::Message;
use super::receiver::Endpoint;
use crate::gateway::Secret;

/// Characters that a summary may have.
const MOST_SUMMARY: usize = 1_024;

/// The address of the API, unless the settings name another one.
pub const API: &str = "https://events.pagerduty.com";

/// Whether a message opens an incident, closes it, or goes beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Trigger,
    Resolve,
    Change,
}

/// What a message is to PagerDuty; `wanted` says whether the receiver wants to be told of the event itself.
pub fn requests(url: &Endpoint, key: &Secret, message: &Message, wanted: bool) -> Vec<Outgoing> {
    let post = |path: &str, body: Value| Outgoing {
        to: url.at(path),
        media: "application/json",
        headers: Vec::new(),
        body: Bytes::from(body.to_string()),
    };
    steps(message, wanted)
        .into_iter()
        .map(|step| match step {
            Step::Trigger => post("/v2/enqueue", trigger(key, message)),
            Step::Resolve => post("/v2/enqueue", resolve(key, message)),
            Step::Change => post("/v2/change/enqueue", change(key, message)),
        })
        .collect()
}

/// Whether a message closes the incident: the rollout is over, or its last hold that pages is.
fn closes(message: &Message) -> bool {
    let holds = &message.holds;
    let is_last = holds.cleared == Some(Severity::Page) && !holds.open.contains(&Severity::Page);
    message.event.ends_the_rollout() || is_last
}

fn steps(message: &Message, wanted: bool) -> Vec<Step> {
    let event = &message.event;
    match (event.kind, wanted) {
        (Kind::Test, _) => vec![Step::Trigger, Step::Resolve],
        (Kind::Audited(_), true) if event.severity == Severity::Page => vec![Step::Trigger],
        (Kind::Audited(_), true) if closes(message) => vec![Step::Resolve, Step::Change],
        (Kind::Audited(_), true) => vec![Step::Change],
        (Kind::Audited(_), false) if closes(message) => vec![Step::Resolve],
        (Kind::Audited(_), false) => vec![],
    }
}

/// The key that keeps all events of one rollout in one incident.
fn dedup_key(message: &Message) -> String {
    match &message.event.rollout {
        Some(rollout) => rollout.clone(),
        None => format!("{}-{}", message.event.pack, message.event.action()),
    }
}

fn trigger(key: &Secret, message: &Message) -> Value {
    let severity = match (message.event.kind, message.event.severity) {
        (Kind::Test, _) | (_, Severity::Info) => "info",
        (Kind::Audited(_), Severity::Tell) => "warning",
        (Kind::Audited(_), Severity::Page) => "critical",
    };
    json!({
        "routing_key": key.expose(),
        "event_action": "trigger",
        "dedup_key": dedup_key(message),
        "client": "Serin",
        "payload": {
            "summary": summary(message),
            "source": source(message),
            "severity": severity,
            "timestamp": message.event.at.to_string(),
            "component": message.event.pack,
            "group": "prompts",
            "class": message.event.name(),
            "custom_details": details(message),
        },
        "links": links(message),
    })
}

fn resolve(key: &Secret, message: &Message) -> Value {
    json!({"routing_key": key.expose(), "event_action": "resolve", "dedup_key": dedup_key(message)})
}

fn change(key: &Secret, message: &Message) -> Value {
    json!({
        "routing_key": key.expose(),
        "payload": {
            "summary": summary(message),
            "source": source(message),
            "timestamp": message.event.at.to_string(),
            "custom_details": details(message),
        },
        "links": links(message),
    })
}

fn summary(message: &Message) -> String {
    message.headline.chars().take(MOST_SUMMARY).collect()
}

fn source(message: &Message) -> String {
    message.event.rollout.clone().unwrap_or_else(|| message.event.pack.clone())
}

fn details(message: &Message) -> Value {
    let mut details = Map::new();
    for (name, value) in &message.facts {
        let known = details.get(*name).and_then(Value::as_str).map(|before| format!("{before}; {value}"));
        details.insert((*name).to_owned(), known.unwrap_or_else(|| value.clone()).into());
    }
    details.insert("In canary now".to_owned(), json!(message.canaries));
    for (what, command) in &message.commands {
        details.insert((*what).to_owned(), command.clone().into());
    }
    details.insert("Event".to_owned(), format!("{} {}", message.event.name(), message.event.id).into());
    Value::Object(details)
}

fn links(message: &Message) -> Value {
    match &message.rollback_link {
        Some(link) => json!([{"href": link, "text": "Roll back …"}]),
        None => json!([]),
    }
}
