//! The settings under `notify`: who is told what, and how urgently.

use serin_core::manifest::{Node, Value};
use serin_core::units::HoldFor;

use super::read::{Reader, Written, text_of_file};
use super::{duration, yes_or_no};
use crate::gateway::Secret;
use crate::notify::event::{Severities, Severity};
use crate::notify::pagerduty;
use crate::notify::receiver::{Channel, Endpoint, Glob, NotifySettings, Receiver, SigningKey};

/// Receivers that there can be; each costs a look at the audit log twice a second.
const MOST_RECEIVERS: usize = 50;
/// The fields of a receiver.
const FIELDS: &str =
    "name, type, url, urlEnv, urlFile, keyEnv, keyFile, packs, events, minSeverity, allowInternal";

/// Reads everything under `notify`.
pub(super) fn notify(reader: &mut Reader<'_>) -> NotifySettings {
    let receivers = receivers(reader);
    NotifySettings {
        receivers,
        severities: severities(reader),
        hold_lasts: reader.value("notify.holdLasts", None, "8h", at_least_a_minute),
        give_up_after: reader.value("notify.giveUpAfter", None, "24h", at_least_a_minute),
        link_lifetime: reader.value("notify.linkLifetime", None, "24h", at_least_a_minute),
    }
}

fn at_least_a_minute(text: &str) -> Result<HoldFor, String> {
    let length = duration(text)?;
    let fits = (HoldFor::from_mins(1)..=HoldFor::from_hours(24 * 30)).contains(&length);
    if fits { Ok(length) } else { Err("is outside 1m to 30d".to_owned()) }
}

fn severities(reader: &mut Reader<'_>) -> Severities {
    let mut severities = Severities::default();
    let mut shown = Vec::new();
    for Written { name, node, place } in reader.mapping("notify.severities") {
        let set = Severity::parse(text(&node)).and_then(|severity| {
            shown.push(format!("{name}: {severity}"));
            severities.set(&name, severity)
        });
        if let Err(message) = set {
            reader.problem(&place, &format!("notify.severities.{name}"), &message, None);
        }
    }
    let origin = if shown.is_empty() { "default" } else { "file" };
    reader.show("notify.severities", format!("{{{}}}", shown.join(", ")), origin.to_owned());
    severities
}

fn receivers(reader: &mut Reader<'_>) -> Vec<Receiver> {
    const SETTING: &str = "notify.receivers";
    let mut receivers: Vec<Receiver> = Vec::new();
    for (index, (place, fields)) in reader.mappings(SETTING).into_iter().enumerate() {
        let path = format!("{SETTING}[{index}]");
        let Some(receiver) = receiver(reader, &path, &place, &fields) else { continue };
        if receivers.iter().any(|other| other.name == receiver.name) {
            let message = format!("there is a receiver {:?} already", receiver.name);
            reader.problem(&place, &format!("{path}.name"), &message, None);
        } else if receivers.len() >= MOST_RECEIVERS {
            let message = format!("there are more than {MOST_RECEIVERS} receivers");
            reader.problem(&place, SETTING, &message, None);
            break;
        } else {
            receivers.push(receiver);
        }
    }
    let shown: Vec<String> = receivers
        .iter()
        .map(|receiver| {
            let url = receiver.to.endpoint().shown();
            format!("{{name: {}, type: {}, url: \"{url}/…\"}}", receiver.name, receiver.to.word())
        })
        .collect();
    reader.show_list(SETTING, &shown);
    receivers
}

/// One receiver; nothing when something about it is wrong, which is noted.
fn receiver(reader: &mut Reader<'_>, path: &str, place: &str, fields: &[Written]) -> Option<Receiver> {
    let mut is_good = true;
    let mut wrong = |reader: &mut Reader<'_>, place: &str, field: &str, message: &str, hint: Option<&str>| {
        is_good = false;
        let setting = if field.is_empty() { path.to_owned() } else { format!("{path}.{field}") };
        reader.problem(place, &setting, message, hint);
    };
    let (mut name, mut word, mut allow_internal) = (None, None, false);
    let (mut packs, mut events, mut min_severity) = (Vec::new(), Vec::new(), Severity::Tell);
    let (mut url, mut key) = (None, None);
    for Written { name: field, node, place } in fields {
        let text = text(node);
        let mut fits = |reader: &mut Reader<'_>, read: Result<(), String>| {
            if let Err(message) = read {
                wrong(reader, place, field, &message, None);
            }
        };
        match field.as_str() {
            "name" => fits(reader, receiver_name(text).map(|text| name = Some(text))),
            "type" => word = Some((text.to_owned(), place.clone())),
            "url" if text.is_empty() => fits(reader, Err("is empty".to_owned())),
            "url" => url = Some(Ok(text.to_owned())),
            "urlEnv" => url = Some(reader.text_of_variable(text)),
            "urlFile" => url = Some(text_of_file(text)),
            "keyEnv" => key = Some(reader.text_of_variable(text)),
            "keyFile" => key = Some(text_of_file(text)),
            "packs" => {
                let read = list(node, |text| Ok(Glob::new(text)));
                fits(reader, read.map(|globs| packs = globs));
            }
            "events" => fits(reader, list(node, Glob::of_events).map(|globs| events = globs)),
            "minSeverity" => fits(reader, Severity::parse(text).map(|severity| min_severity = severity)),
            "allowInternal" => fits(reader, yes_or_no(text).map(|yes| allow_internal = yes)),
            "key" => {
                let hint = "put it into a variable or a file, and name that with `keyEnv` or `keyFile`";
                wrong(reader, place, field, "a key does not belong into the settings", Some(hint));
            }
            _ => wrong(reader, place, field, "unknown field", Some(&format!("known here: {FIELDS}"))),
        }
    }
    let mut given = |reader: &mut Reader<'_>, what: &str, value: Option<Result<String, String>>| match value {
        Some(Ok(value)) => Some(value),
        Some(Err(message)) => {
            wrong(reader, place, what, &message, None);
            None
        }
        None => None,
    };
    let (url, key) = (given(reader, "url", url), given(reader, "key", key));
    if name.is_none() {
        wrong(reader, place, "", "needs a name", None);
    }
    let to = match word {
        None => Err(("type", "needs a type: slack, pagerduty, alertmanager or webhook".to_owned())),
        Some((word, _)) => channel(&word, url, key),
    };
    let to = match to {
        Ok(to) => Some(to),
        Err((field, message)) => {
            wrong(reader, place, field, &message, None);
            None
        }
    };
    let (name, to) = (name?, to?);
    is_good.then_some(Receiver { name, to, packs, events, min_severity, allow_internal })
}

/// Puts a receiver's address and key together, or tells which of them is not as it should be, and how.
fn channel(word: &str, url: Option<String>, key: Option<String>) -> Result<Channel, (&'static str, String)> {
    let url = match (url, word) {
        (Some(url), _) => url,
        (None, "pagerduty") => pagerduty::API.to_owned(),
        (None, _) => return Err(("url", "needs url, urlEnv or urlFile".to_owned())),
    };
    let url = Endpoint::parse(&url).map_err(|message| ("url", message))?;
    let needs_key = || ("key", format!("a receiver of type {word} needs keyEnv or keyFile"));
    match (word, key) {
        ("slack", None) => Ok(Channel::Slack { url }),
        ("slack", Some(_)) => Err(("key", "Slack needs no key: its address is the secret".to_owned())),
        ("alertmanager", None) => Ok(Channel::Alertmanager { url }),
        ("alertmanager", Some(_)) => Err(("key", "Alertmanager takes no key".to_owned())),
        ("pagerduty", Some(key)) => Ok(Channel::PagerDuty { url, key: Secret::new(key) }),
        ("webhook", Some(key)) => {
            let key = SigningKey::parse(&key).map_err(|message| ("key", message))?;
            Ok(Channel::Webhook { url, key })
        }
        ("pagerduty" | "webhook", None) => Err(needs_key()),
        (_, _) => Err(("type", format!("{word:?} is none of slack, pagerduty, alertmanager, webhook"))),
    }
}

fn receiver_name(text: &str) -> Result<String, String> {
    let fits = (1..=63).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if fits { Ok(text.to_owned()) } else { Err("must hold 1 to 63 letters, digits, '-' or '_'".to_owned()) }
}

fn text(node: &Node) -> &str {
    match &node.value {
        Value::Scalar(scalar) => &scalar.text,
        Value::Null | Value::List(_) | Value::Map(_) => "",
    }
}

fn list<T>(node: &Node, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    match &node.value {
        Value::List(items) => items
            .iter()
            .map(|item| match text(item) {
                "" => Err(format!("expected text, found {}", item.describe())),
                text => read(text).map_err(|message| format!("{text:?} {message}")),
            })
            .collect(),
        Value::Null | Value::Scalar(_) | Value::Map(_) => {
            Err(format!("expected a list, found {}", node.describe()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::super::{Options, Settings};
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn settings(yaml: &str) -> Result<Settings, String> {
        let variables = [
            ("SLACK", "https://hooks.slack.com/services/T0/B0/very-secret"),
            ("PAGER", "0123456789abcdef0123456789abcdef"),
            ("HOOK", SECRET),
        ];
        load(yaml, &variables, Options::default())
    }

    #[test]
    fn receivers_are_read_and_their_secrets_are_not_shown() {
        let yaml = "notify:\n  receivers:\n  - {name: oncall, type: slack, urlEnv: SLACK, packs: ['support-*'], events: [rolled_back, 'hold_set.*']}\n  - {name: pager, type: pagerduty, keyEnv: PAGER, minSeverity: page}\n  - {name: hook, type: webhook, url: 'https://example.com/hook?token=very-secret', keyEnv: HOOK, allowInternal: true}\n  severities: {hold_lasts: page, rolled_back.gates: page}\n  holdLasts: 6h\n";
        let settings = settings(yaml).unwrap();
        let notify = &settings.notify;
        let labels: Vec<String> = notify.receivers.iter().map(Receiver::label).collect();
        assert_eq!(labels, ["slack:oncall", "pagerduty:pager", "webhook:hook"]);
        assert_eq!(notify.receivers[1].to.endpoint().shown(), "https://events.pagerduty.com");
        assert_eq!(notify.receivers[1].min_severity, Severity::Page);
        assert!(notify.receivers[2].allow_internal && !notify.receivers[0].allow_internal);
        assert_eq!(notify.hold_lasts, HoldFor::from_hours(6));
        let shown = format!("{settings:?}\n{}", settings.print());
        for secret in ["very-secret", "0123456789abcdef", SECRET] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(settings.print().contains("name: oncall, type: slack"), "{}", settings.print());
    }

    #[test]
    fn everything_that_is_wrong_with_receivers_is_told() {
        let yaml = "notify:\n  receivers:\n  - {name: a b, type: slack, url: nowhere}\n  - {name: x, type: pigeon, url: 'https://x.example'}\n  - {name: y, type: webhook, url: 'https://x.example', keyEnv: NOT_THERE}\n  - {name: y, type: webhook, url: 'https://x.example', key: abc, packs: all}\n  - {name: z, type: slack, urlEnv: SLACK, events: [rolledback], minSeverity: loud}\n  - {name: z, type: slack, urlEnv: SLACK, color: red}\n  severities: {complete: page, completed: loud}\n  holdLasts: 1s\n";
        insta::assert_snapshot!(settings(yaml).unwrap_err());
    }
}
