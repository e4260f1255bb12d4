//! What differs between two versions of a pack.

use serde::Serialize;
use serde_json::Value;

use super::variable::shown;
use super::{Pack, content_of};

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackChange {
    /// Where it stands, such as `prompts.support.system_template`.
    pub json_path: String,
    /// The value before: text as it is, everything else as JSON; absent when added.
    pub before: Option<String>,
    /// The value after; absent when removed.
    pub after: Option<String>,
}

impl Pack {
    /// Lists what differs from this pack to another, in the order of the paths.
    pub fn diff(&self, other: &Self) -> Vec<PackChange> {
        let mut changes = Vec::new();
        compare("", Some(&content_of(&self.raw)), Some(&content_of(&other.raw)), &mut changes);
        changes
    }
}

/// Compares two values; mappings by key, lists by position.
fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<PackChange>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, a.get(key), b.get(key), changes);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                compare(&format!("{path}[{index}]"), a.get(index), b.get(index), changes);
            }
        }
        (before, after) => {
            let text = |value: Option<&Value>| value.map(|value| shown(value).into_owned());
            changes.push(PackChange { json_path: path.to_owned(), before: text(before), after: text(after) });
        }
    }
}
