//! Messages for anything else: CloudEvents, signed as Standard Webhooks has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::Outgoing;
use super::message::Message;
use super::receiver::{Endpoint, SigningKey};

/// The one request that a message is; the signature holds for the time of the attempt.
pub fn requests(url: &Endpoint, key: &SigningKey, message: &Message, now: Timestamp) -> Vec<Outgoing> {
    let body = payload(message).to_string();
    let id = format!("msg_{}", message.event.id);
    let timestamp = now.as_second().to_string();
    let signature = sign(key, &id, &timestamp, &body);
    let header = |name, value: &str| {
        let value = HeaderValue::from_str(value).expect("digits, letters and signs are valid in a header");
        (HeaderName::from_static(name), value)
    };
    let headers = vec![
        header("webhook-id", &id),
        header("webhook-timestamp", &timestamp),
        header("webhook-signature", &signature),
    ];
    vec![Outgoing {
        to: url.clone(),
        media: "application/cloudevents+json",
        headers,
        body: Bytes::from(body),
    }]
}

/// HMAC-SHA256 over `id.timestamp.body`.
fn sign(key: &SigningKey, id: &str, timestamp: &str, body: &str) -> String {
    let signed = format!("{id}.{timestamp}.{body}");
    let tag = ring::hmac::sign(&key.0, signed.as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

/// The message as a CloudEvent in structured JSON.
pub fn payload(message: &Message) -> Value {
    let event = &message.event;
    let facts: Vec<Value> =
        message.facts.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let commands: Vec<Value> =
        message.commands.iter().map(|(what, command)| json!({"what": what, "command": command})).collect();
    json!({
        "specversion": "1.0",
        "id": event.id,
        "source": "/serin",
        "type": format!("serin.{}", event.name()),
        "subject": event.rollout.as_deref().unwrap_or(&event.pack),
        "time": event.at.to_string(),
        "datacontenttype": "application/json",
        "data": {
            "severity": event.severity.as_str(),
            "ask": message.ask.as_str(),
            "headline": message.headline,
            "text": message.text(),
            "pack": event.pack,
            "rollout": event.rollout,
            "actor": event.actor,
            "reason": event.reason,
            "evidence": event.evidence,
            "facts": facts,
            "canaries": message.canaries,
            "commands": commands,
            "rollbackLink": message.rollback_link,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn the_signature_is_the_one_of_standard_webhooks() {
        let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signature = sign(&key, id, "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
