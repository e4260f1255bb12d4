//! From what a provider says of somebody to who they are here and what they may do.

use serde_json::{Map, Value};
use serin_core::access::Grant;

use super::{OidcSettings, RoleRule};

/// The claim that is the name of a person in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameClaim {
    /// The address of their mail, where the provider has verified it, and else the subject.
    VerifiedEmail,
    /// This one, which whoever wrote the settings trusts to be nobody else's; the subject where it is missing.
    Named(String),
}

/// What a provider says of somebody.
pub(super) type Claims = Map<String, Value>;

/// Values of a claim that are looked at; providers list groups by the hundred.
const MOST_VALUES: usize = 1_000;
/// Values that a message names.
const MOST_NAMED: usize = 10;

/// The value of a claim; dots lead into objects where no claim has the whole name.
pub(super) fn find<'c>(claims: &'c Claims, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// The texts that a claim holds: one, or a list.
pub(super) fn values(claims: &Claims, path: &str) -> Option<Vec<String>> {
    let texts = match find(claims, path)? {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => {
            items.iter().take(MOST_VALUES).filter_map(|item| item.as_str().map(ToOwned::to_owned)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    Some(texts)
}

/// What the first rule grants that fits one of the values.
pub(super) fn grant(rules: &[RoleRule], values: &[String]) -> Option<Grant> {
    let fits = |rule: &&RoleRule| values.iter().any(|value| rule.value.matches(value));
    rules.iter().find(fits).map(|rule| rule.grant.clone())
}

/// What a message names of the values.
pub(super) fn named(mut values: Vec<String>) -> Vec<String> {
    let more = values.len().saturating_sub(MOST_NAMED);
    values.truncate(MOST_NAMED);
    if more > 0 {
        values.push(format!("and {more} more"));
    }
    values
}

/// Whether the user info may say what is missing: what roles depend on, or the name.
pub(super) fn lacks(claims: &Claims, settings: &OidcSettings) -> bool {
    let name = match &settings.name_claim {
        NameClaim::VerifiedEmail => "email",
        NameClaim::Named(name) => name,
    };
    find(claims, &settings.claim).is_none() || find(claims, name).is_none()
}

/// What somebody is called.
pub(super) fn name(claims: &Claims, claim: &NameClaim, subject: &str) -> String {
    let text = |name: &str| find(claims, name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let found = match claim {
        NameClaim::VerifiedEmail => {
            // Whoever can write any address into a profile must not get the name of somebody else.
            let is_verified = claims
                .get("email_verified")
                .is_some_and(|value| value.as_bool().unwrap_or_else(|| value.as_str() == Some("true")));
            text("email").filter(|_| is_verified)
        }
        NameClaim::Named(name) => text(name),
    };
    found.unwrap_or(subject).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serin_core::access::{Role, Scope};

    use super::*;
    use crate::notify::receiver::Glob;

    fn claims(value: Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_by_the_way_to_it() {
        let keycloak = claims(json!({"realm_access": {"roles": ["a", 7, "b"]}, "https://x.y/groups": "c"}));
        assert_eq!(values(&keycloak, "realm_access.roles"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(values(&keycloak, "https://x.y/groups"), Some(vec!["c".to_owned()]));
        assert_eq!(values(&keycloak, "groups"), None);
        assert_eq!(values(&keycloak, "realm_access"), None);
    }

    #[test]
    fn the_first_rule_that_fits_says_what_somebody_may_do() {
        let rule = |value: &str, role| RoleRule {
            value: Glob::new(value),
            grant: Grant { role, read_prompts: false, scope: Scope::All },
        };
        let rules = [rule("sre", Role::Operator), rule("prompts-*", Role::Engineer), rule("*", Role::Viewer)];
        let role = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            grant(&rules, &values).map(|grant| grant.role)
        };
        assert_eq!(role(&["prompts-support", "sre"]), Some(Role::Operator));
        assert_eq!(role(&["prompts-support"]), Some(Role::Engineer));
        assert_eq!(role(&["guests"]), Some(Role::Viewer));
        assert_eq!(role(&[]), None);
    }

    #[test]
    fn an_address_that_nobody_verified_is_nobodys_name() {
        let with = |verified: Value| claims(json!({"email": "ana@example.com", "email_verified": verified}));
        let named = |claims: &Claims| name(claims, &NameClaim::VerifiedEmail, "sub-1");
        assert_eq!(named(&with(json!(true))), "ana@example.com");
        assert_eq!(named(&with(json!("true"))), "ana@example.com");
        assert_eq!(named(&with(json!(false))), "sub-1");
        assert_eq!(named(&with(Value::Null)), "sub-1");
        let entra = claims(json!({"preferred_username": "ana@corp.example"}));
        assert_eq!(name(&entra, &NameClaim::Named("preferred_username".to_owned()), "s"), "ana@corp.example");
        assert_eq!(name(&entra, &NameClaim::Named("upn".to_owned()), "s"), "s");
    }
}
