//! The settings under `oidc`: who signs people in, and what they may do here.

use std::collections::BTreeSet;

use serin_core::access::{Grant, Permission, Role, Scope};
use serin_core::ids::PackName;
use serin_core::manifest::{Node, Value};
use serin_core::units::HoldFor;

use super::duration;
use super::read::{Reader, Written, text_of_file};
use crate::auth::SESSION_LASTS;
use crate::gateway::Secret;
use crate::notify::receiver::Glob;
use crate::oidc::{CALLBACK_PATH, NameClaim, OidcSettings, RoleRule};
use crate::trust::Roots;

/// Rules that there can be.
const MOST_RULES: usize = 200;
const ROLES: &str = "oidc.roles";

/// Reads everything under `oidc`; nothing where it names no issuer.
pub(super) fn read(reader: &mut Reader<'_>, public_url: Option<&str>) -> Option<OidcSettings> {
    let issuer = reader.optional("oidc.issuer");
    let client_id = reader.optional("oidc.clientId");
    let client_secret = secret(reader);
    let redirect = reader.optional("oidc.redirectUrl");
    let scopes = reader.list("oidc.scopes", scope);
    let label = reader.optional("oidc.label");
    let claim = reader.value("oidc.claim", None, "groups", not_empty);
    let name_claim = reader.optional("oidc.nameClaim");
    let session_lasts = reader.value("oidc.sessionLasts", None, "12h", within_a_session);
    let roots = reader.optional("oidc.caFile").and_then(|(path, origin)| match Roots::read(&path) {
        Ok(roots) => Some(roots),
        Err(message) => {
            reader.problem(&origin, "oidc.caFile", &message, None);
            None
        }
    });
    let roles = roles(reader);
    let (issuer, origin) = match issuer {
        Some(issuer) => issuer,
        None => {
            if let Some((_, origin)) = client_id {
                reader.problem(&origin, "oidc.issuer", "is missing", Some("name who signs people in"));
            }
            return None;
        }
    };
    let mut wrong = |setting: &str, message: &str, hint: &str| {
        reader.problem(&origin, setting, message, Some(hint));
    };
    if !cfg!(feature = "oidc") {
        wrong("oidc.issuer", "this build has no OpenID Connect", "build it with the feature `oidc`");
    }
    if let Err(message) = web_address(&issuer) {
        wrong("oidc.issuer", &message, "such as https://login.example.com/realms/main");
    }
    if client_id.is_none() {
        wrong("oidc.clientId", "is missing", "what this server is called at the issuer");
    }
    if roles.is_empty() {
        let hint = "such as {value: sre, role: operator}; without any, nobody who signs in may do anything";
        wrong(ROLES, "is missing or empty", hint);
    }
    let redirect = match (redirect, public_url) {
        (Some((redirect, _)), _) => Some(redirect),
        (None, Some(base)) => Some(format!("{}{CALLBACK_PATH}", base.trim_end_matches('/'))),
        (None, None) => {
            let hint =
                "set control.publicUrl, or the address of /oidc/callback as people's browsers reach it";
            wrong("oidc.redirectUrl", "is missing", hint);
            None
        }
    };
    if let Some(redirect) = &redirect {
        let checked = web_address(redirect);
        if let Err(message) = checked.and_then(|()| match redirect.ends_with(CALLBACK_PATH) {
            true => Ok(()),
            false => Err(format!("does not end with {CALLBACK_PATH}")),
        }) {
            wrong("oidc.redirectUrl", &message, "such as https://serin.example.com/oidc/callback");
        }
    }
    let host = || issuer.split('/').nth(2).unwrap_or_default().to_owned();
    let scopes = if scopes.is_empty() { vec!["profile".to_owned(), "email".to_owned()] } else { scopes };
    Some(OidcSettings {
        label: label.map_or_else(host, |(label, _)| label),
        issuer,
        client_id: client_id?.0,
        client_secret,
        redirect: redirect?,
        scopes,
        claim,
        name_claim: name_claim.map_or(NameClaim::VerifiedEmail, |(name, _)| NameClaim::Named(name)),
        roles,
        session_lasts,
        roots,
    })
}

/// The secret, from a variable or a file that the settings name.
fn secret(reader: &mut Reader<'_>) -> Option<Secret> {
    let from_variable = reader
        .optional("oidc.clientSecretEnv")
        .map(|(name, origin)| (reader.text_of_variable(&name), origin));
    let from_file =
        reader.optional("oidc.clientSecretFile").map(|(path, origin)| (text_of_file(&path), origin));
    let (text, origin) = from_variable.or(from_file)?;
    match text {
        Ok(text) => Some(Secret::new(text)),
        Err(message) => {
            reader.problem(&origin, "oidc.clientSecret", &message, None);
            None
        }
    }
}

fn scope(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '\\');
    if fits { Ok(text.to_owned()) } else { Err("is no scope".to_owned()) }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn within_a_session(text: &str) -> Result<HoldFor, String> {
    let length = duration(text)?;
    let fits = (HoldFor::from_mins(1)..=SESSION_LASTS).contains(&length);
    if fits { Ok(length) } else { Err("is outside 1m to 12h".to_owned()) }
}

/// An address that codes and tokens may travel to: encrypted, or on this machine.
fn web_address(text: &str) -> Result<(), String> {
    let uri: http::Uri = text.parse().map_err(|_| "is no address".to_owned())?;
    let host = uri.host().unwrap_or_default();
    match uri.scheme_str() {
        Some("https") if !host.is_empty() && uri.query().is_none() => Ok(()),
        Some("http") if ["localhost", "127.0.0.1", "[::1]"].contains(&host) && uri.query().is_none() => {
            Ok(())
        }
        Some("http") => Err("begins with http://, which is for this machine only".to_owned()),
        Some(_) | None => Err("is no address that begins with https://".to_owned()),
    }
}

fn roles(reader: &mut Reader<'_>) -> Vec<RoleRule> {
    let rules = reader.rules(ROLES, MOST_RULES, rule);
    let shown: Vec<String> = rules
        .iter()
        .map(|RoleRule { value, grant }| {
            let packs =
                grant.scope.packs().map(|_| format!(", packs: [{}]", grant.scope)).unwrap_or_default();
            format!("{{value: {:?}, role: {}{packs}}}", value.as_str(), grant.role)
        })
        .collect();
    reader.show_list(ROLES, &shown);
    rules
}

fn rule(reader: &mut Reader<'_>, path: &str, place: &str, fields: Vec<Written>) -> Option<RoleRule> {
    let (mut value, mut role) = (None, None);
    let (mut scope, mut read_prompts) = (Scope::All, false);
    let mut is_good = true;
    for Written { name: field, node, place } in fields {
        let text = match &node.value {
            Value::Scalar(scalar) => scalar.text.as_str(),
            Value::Null | Value::List(_) | Value::Map(_) => "",
        };
        let read = match field.as_str() {
            "value" => not_empty(text).map(|text| value = Some(Glob::new(&text))),
            "role" => person_role(text).map(|read| role = Some(read)),
            "packs" => packs(&node).map(|packs| scope = Scope::Packs(packs)),
            "readPrompts" => super::yes_or_no(text).map(|yes| read_prompts = yes),
            _ => Err("unknown field; known here: value, role, packs, readPrompts".to_owned()),
        };
        if let Err(message) = read {
            reader.problem(&place, &format!("{path}.{field}"), &message, None);
            is_good = false;
        }
    }
    match (value, role) {
        (Some(value), Some(role)) if is_good => {
            Some(RoleRule { value, grant: Grant { role, read_prompts, scope } })
        }
        (_, _) if !is_good => None,
        (_, _) => {
            let hint = "such as {value: sre, role: operator}";
            reader.problem(place, path, "needs a value and a role", Some(hint));
            None
        }
    }
}

/// A role with which the dashboard can be read.
fn person_role(text: &str) -> Result<Role, String> {
    match Role::parse(text) {
        Some(role) if role.may(Permission::Read) => Ok(role),
        Some(_) => Err(format!("{text:?} is a role of programs, which do not sign in")),
        None => Err(format!("{text:?} is no role: viewer, engineer, operator or admin")),
    }
}

fn packs(node: &Node) -> Result<BTreeSet<PackName>, String> {
    let Value::List(items) = &node.value else {
        return Err(format!("expected a list, found {}", node.describe()));
    };
    if items.is_empty() {
        return Err("is empty".to_owned());
    }
    let name = |item: &Node| match &item.value {
        Value::Scalar(scalar) => PackName::parse(&scalar.text).map_err(|error| error.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => {
            Err(format!("expected the name of a pack, found {}", item.describe()))
        }
    };
    items.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::tests::load;

    #[test]
    fn a_provider_is_read_and_its_secret_is_not_shown() {
        let yaml = "control: {publicUrl: 'https://serin.example.com/'}\noidc:\n  issuer: https://login.example.com/realms/main\n  clientId: serin\n  clientSecretEnv: OIDC_SECRET\n  claim: realm_access.roles\n  roles:\n  - {value: sre, role: operator}\n  - {value: 'prompt-*', role: engineer, packs: [support]}\n";
        let settings = load(yaml, &[("OIDC_SECRET", "very-secret")], Options::default()).unwrap();
        let oidc = settings.oidc.as_ref().unwrap();
        assert_eq!(oidc.redirect, "https://serin.example.com/oidc/callback");
        assert_eq!((oidc.label.as_str(), oidc.scopes.len()), ("login.example.com", 2));
        assert_eq!(oidc.roles[1].grant.scope.to_string(), "support");
        let shown = format!("{settings:?}\n{}", settings.print());
        assert!(!shown.contains("very-secret"), "{shown}");
        assert!(shown.contains("{value: \"prompt-*\", role: engineer, packs: [support]}"), "{shown}");
    }

    #[test]
    fn everything_that_is_wrong_with_a_provider_is_told() {
        let yaml = "oidc:\n  issuer: http://login.example.com\n  clientSecretEnv: NOT_THERE\n  sessionLasts: 3d\n  scopes: ['a b']\n  roles:\n  - {value: sre, role: boss}\n  - {value: apps, role: data}\n  - {role: viewer}\n  - {value: x, role: viewer, packs: []}\n";
        insta::assert_snapshot!(load(yaml, &[], Options::default()).unwrap_err());
    }
}
