//! The settings under `alerts`: which alerts of other systems hold which packs, and for how long.

use std::collections::BTreeMap;

use serin_core::manifest::{Node, Value};
use serin_core::units::HoldFor;

use super::duration;
use super::read::{Reader, Written};
use crate::alerts::{AlertRule, AlertSettings};
use crate::notify::receiver::Glob;

/// Rules that there can be; each alert is held against all of them.
const MOST_RULES: usize = 100;
const RULES: &str = "alerts.rules";

/// Reads everything under `alerts`.
pub(super) fn read(reader: &mut Reader<'_>) -> AlertSettings {
    let rules = rules(reader);
    // Alertmanager repeats itself every four hours unless it is told otherwise.
    let expire_after = reader.value("alerts.expireAfter", None, "5h", expiry);
    AlertSettings { rules, expire_after }
}

/// Reads how long an alert holds without being repeated.
///
/// # Errors
/// A sentence that tells what is wrong with it.
pub(crate) fn expiry(text: &str) -> Result<HoldFor, String> {
    let length = duration(text)?;
    let fits = (HoldFor::from_mins(1)..=HoldFor::from_hours(24 * 7)).contains(&length);
    if fits { Ok(length) } else { Err("is outside 1m to 7d".to_owned()) }
}

fn rules(reader: &mut Reader<'_>) -> Vec<AlertRule> {
    let rules = reader.rules(RULES, MOST_RULES, rule);
    let shown: Vec<String> = rules
        .iter()
        .map(|AlertRule { labels, packs }| {
            let labels = labels.iter().map(|(name, glob)| format!("{name}: {:?}", glob.as_str()));
            let packs = packs.iter().map(Glob::as_str).collect::<Vec<_>>().join(", ");
            format!("{{match: {{{}}}, packs: [{packs}]}}", labels.collect::<Vec<_>>().join(", "))
        })
        .collect();
    reader.show_list(RULES, &shown);
    rules
}

fn rule(reader: &mut Reader<'_>, path: &str, place: &str, fields: Vec<Written>) -> Option<AlertRule> {
    let (mut labels, mut packs) = (None, None);
    let mut is_good = true;
    for Written { name: field, node, place } in fields {
        let setting = format!("{path}.{field}");
        let read = match field.as_str() {
            "match" => matchers(&node).map(|read| labels = Some(read)),
            "packs" => globs(&node).map(|read| packs = Some(read)),
            _ => Err("unknown field; known here: match, packs".to_owned()),
        };
        if let Err(message) = read {
            reader.problem(&place, &setting, &message, None);
            is_good = false;
        }
    }
    match (labels, packs) {
        (Some(labels), Some(packs)) if is_good => Some(AlertRule { labels, packs }),
        (_, _) if !is_good => None,
        (_, _) => {
            let hint = "such as {match: {severity: page, service: 'chat-*'}, packs: ['support-*']}";
            reader.problem(place, path, "needs match and packs", Some(hint));
            None
        }
    }
}

fn matchers(node: &Node) -> Result<BTreeMap<String, Glob>, String> {
    let Value::Map(entries) = &node.value else {
        return Err(format!("expected labels with their values, found {}", node.describe()));
    };
    if entries.is_empty() {
        return Err("is empty, and would fit every alert".to_owned());
    }
    let matcher = |entry: &serin_core::manifest::Entry| match &entry.node.value {
        Value::Scalar(scalar) => Ok((entry.key.clone(), Glob::new(&scalar.text))),
        Value::Null | Value::List(_) | Value::Map(_) => {
            Err(format!("{}: expected text, found {}", entry.key, entry.node.describe()))
        }
    };
    entries.iter().map(matcher).collect()
}

fn globs(node: &Node) -> Result<Vec<Glob>, String> {
    let Value::List(items) = &node.value else {
        return Err(format!("expected a list, found {}", node.describe()));
    };
    if items.is_empty() {
        return Err("is empty".to_owned());
    }
    let glob = |item: &Node| match &item.value {
        Value::Scalar(scalar) => Ok(Glob::new(&scalar.text)),
        Value::Null | Value::List(_) | Value::Map(_) => {
            Err(format!("expected the name of a pack, found {}", item.describe()))
        }
    };
    items.iter().map(glob).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::tests::load;
    use super::*;

    #[test]
    fn rules_are_read_and_shown() {
        let yaml = "alerts:\n  expireAfter: 15m\n  rules:\n  - {match: {severity: page, service: 'chat-*'}, packs: ['support-*', billing]}\n";
        let settings = load(yaml, &[], Options::default()).unwrap();
        assert_eq!(settings.alerts.expire_after, HoldFor::from_mins(15));
        assert_eq!(settings.alerts.rules.len(), 1);
        let shown =
            "rules: [{match: {service: \"chat-*\", severity: \"page\"}, packs: [support-*, billing]}]";
        assert!(settings.print().contains(shown), "{}", settings.print());
    }

    #[test]
    fn everything_that_is_wrong_with_rules_is_told() {
        let yaml = "alerts:\n  expireAfter: 5s\n  rules:\n  - {match: {}, packs: [a]}\n  - {match: {severity: [page]}, packs: a}\n  - {match: {severity: page}}\n  - {labels: {severity: page}, packs: []}\n";
        insta::assert_snapshot!(load(yaml, &[], Options::default()).unwrap_err());
    }
}
