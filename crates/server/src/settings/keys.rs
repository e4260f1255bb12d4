//! The settings about keys: those that the file names, and whether the data plane asks for one.

use std::net::SocketAddr;

use serin_core::access::{Grant, Role, Scope};
use serin_core::ids::PackName;
use serin_core::manifest::{Node, Value};

use super::DataKeys;
use super::read::Reader;
use crate::auth::SettingsKey;

/// Reads whether the data plane asks for a key: beyond loopback it always does.
pub(super) fn of_data(reader: &mut Reader<'_>, listen: SocketAddr) -> DataKeys {
    let is_loopback = listen.ip().is_loopback();
    let default = if is_loopback { "open" } else { "required" };
    let keys = reader.value("data.keys", None, default, |text| match text {
        "open" => Ok(DataKeys::Open),
        "required" => Ok(DataKeys::Required),
        _ => Err("is none of open, required"),
    });
    if keys == DataKeys::Open && !is_loopback {
        let place = reader.origin_of("data.keys");
        let message = format!("{listen} can be reached from other machines, which keys alone can keep out");
        reader.problem(&place, "data.keys", &message, Some("leave it out, or listen on 127.0.0.1"));
    }
    keys
}

impl Reader<'_> {
    /// Reads the list of keys: `{name, keyHash, role, packs, readPrompts}`, the hash as 64 hexadecimal digits.
    ///
    /// A key without a role is one of an admin, as it was before there were roles.
    pub(super) fn keys(&mut self, setting: &str) -> Vec<SettingsKey> {
        let Some(node) = self.node(setting) else { return Vec::new() };
        let place = self.place(node.at);
        let Value::List(items) = &node.value else {
            self.problem(&place, setting, &format!("expected a list, found {}", node.describe()), None);
            return Vec::new();
        };
        let mut keys: Vec<SettingsKey> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{setting}[{index}]");
            let Some(key) = self.key(&path, item) else { continue };
            if keys.iter().any(|other| other.name == key.name) {
                let place = self.place(item.at);
                self.problem(&place, &path, &format!("another key is named {} too", key.name), None);
            }
            keys.push(key);
        }
        let shown = |key: &SettingsKey| {
            let packs = key.grant.scope.packs().map(|_| format!(", packs: [{}]", key.grant.scope));
            let packs = packs.unwrap_or_default();
            format!("{{name: {}, role: {}{packs}, keyHash: \"…\"}}", key.name, key.grant.role)
        };
        let names: Vec<String> = keys.iter().map(shown).collect();
        self.show(setting, format!("[{}]", names.join(", ")), place);
        keys
    }

    fn key(&mut self, path: &str, item: &Node) -> Option<SettingsKey> {
        let place = self.place(item.at);
        let (mut name, mut hash) = (None, None);
        let mut grant = Grant { read_prompts: false, ..Grant::ADMIN };
        let mut is_good = true;
        for entry in self.entries(item, path) {
            let at = self.place(entry.at);
            let field = format!("{path}.{}", entry.key);
            let text = match &entry.node.value {
                Value::Scalar(scalar) => scalar.text.as_str(),
                Value::Null | Value::List(_) | Value::Map(_) => "",
            };
            let mut wrong = |message: &str, hint: Option<&str>| {
                self.problem(&at, &field, message, hint);
                is_good = false;
            };
            match entry.key.as_str() {
                "name" if !text.is_empty() => name = Some(text.to_owned()),
                "name" => wrong("is empty", None),
                "keyHash" => match blake3::Hash::from_hex(text) {
                    Ok(read) => hash = Some(read),
                    Err(_) => wrong(
                        "is no hash of a key",
                        Some(
                            "64 hexadecimal digits: the BLAKE3 hash of the key, as `serin key create --offline` prints it",
                        ),
                    ),
                },
                "role" => match Role::parse(text) {
                    Some(role) => grant.role = role,
                    None => wrong(
                        &format!("{text:?} is no role"),
                        Some("viewer, engineer, operator, admin, data or alerts"),
                    ),
                },
                "readPrompts" => match text {
                    "true" | "false" => grant.read_prompts = text == "true",
                    _ => wrong("is neither true nor false", None),
                },
                "packs" => match packs(&entry.node) {
                    Ok(scope) => grant.scope = scope,
                    Err(message) => wrong(&message, Some("a list of names, such as [support, billing]")),
                },
                _ => wrong("unknown field", Some("known here: name, keyHash, role, packs, readPrompts")),
            }
        }
        match (name, hash) {
            (Some(name), Some(hash)) => Some(SettingsKey { name, hash, grant }),
            (_, _) if !is_good => None,
            (_, _) => {
                self.problem(&place, path, "needs a name and a keyHash", None);
                None
            }
        }
    }
}

fn packs(node: &Node) -> Result<Scope, String> {
    let Value::List(items) = &node.value else {
        return Err(format!("expected a list, found {}", node.describe()));
    };
    let mut packs = std::collections::BTreeSet::new();
    for item in items {
        match &item.value {
            Value::Scalar(scalar) => {
                packs.insert(PackName::parse(&scalar.text).map_err(|error| error.to_string())?);
            }
            Value::Null | Value::List(_) | Value::Map(_) => {
                return Err(format!("expected the name of a pack, found {}", item.describe()));
            }
        }
    }
    if packs.is_empty() { Err("is empty".to_owned()) } else { Ok(Scope::Packs(packs)) }
}
