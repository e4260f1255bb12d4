//! Messages for Slack: Block Kit over an incoming webhook.

use bytes::Bytes;
use serde_json::{Value, json};

use super::client::Outgoing;
use super::message::{Ask, Message};
use super::receiver::Endpoint;

/// Characters that a header may have.
const MOST_HEADER: usize = 150;
/// Characters that a section may have, with room for what escaping adds.
const MOST_SECTION: usize = 2_800;
/// Characters of one field.
const MOST_FIELD: usize = 1_900;
/// Fields that a section may have.
const MOST_FIELDS: usize = 10;

/// The one request that a message is.
pub fn requests(url: &Endpoint, message: &Message) -> Vec<Outgoing> {
    let body = Bytes::from(payload(message).to_string());
    vec![Outgoing { to: url.clone(), media: "application/json", headers: Vec::new(), body }]
}

/// The message as Slack takes it.
pub fn payload(message: &Message) -> Value {
    let sign = match message.ask {
        Ask::ActNow => ":rotating_light:",
        Ask::Decide => ":raised_hand:",
        Ask::Watch => ":eyes:",
        Ask::AlreadySafe => ":white_check_mark:",
        Ask::Nothing => ":information_source:",
    };
    let title = format!("{sign} {}", message.ask.as_str());
    let (_, what) = message.headline.split_once(": ").unwrap_or(("", &message.headline));
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": cut(&title, MOST_HEADER), "emoji": true}}),
        section(&format!("*{}*", escaped(&cut(what, MOST_SECTION / 2)))),
    ];
    if !message.facts.is_empty() {
        let fields: Vec<Value> = message
            .facts
            .iter()
            .take(MOST_FIELDS)
            .map(|(name, value)| mrkdwn(&format!("*{name}*\n{}", escaped(&cut(value, MOST_FIELD / 2)))))
            .collect();
        blocks.push(json!({"type": "section", "fields": fields}));
    }
    let canaries = match &message.canaries[..] {
        [] => "nothing".to_owned(),
        lines => lines.iter().map(|line| format!("\n• {}", escaped(line))).collect(),
    };
    blocks.push(section(&cut(&format!("*In canary now:* {canaries}"), MOST_SECTION)));
    if !message.commands.is_empty() {
        let lines: String = message
            .commands
            .iter()
            .map(|(what, command)| format!("{what}: `{}`\n", escaped(command)))
            .collect();
        blocks.push(section(&cut(&lines, MOST_SECTION)));
    }
    if let Some(link) = &message.rollback_link {
        blocks.push(json!({"type": "actions", "elements": [{
            "type": "button",
            "action_id": "rollback",
            "style": "danger",
            "text": {"type": "plain_text", "text": "Roll back …"},
            "url": link,
        }]}));
    }
    let context = format!("{} · {} · {}", message.event.name(), message.event.severity, message.event.id);
    blocks.push(json!({"type": "context", "elements": [mrkdwn(&escaped(&context))]}));
    json!({"text": cut(&escaped(&message.headline), MOST_SECTION), "blocks": blocks})
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": mrkdwn(text)})
}

fn mrkdwn(text: &str) -> Value {
    json!({"type": "mrkdwn", "text": text})
}

/// What Slack takes for markup is taken for text; a name cannot become a link or a mention.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut text: String = text.chars().take(most - 1).collect();
    text.push('…');
    text
}
