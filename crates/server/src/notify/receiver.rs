//! Who is told: receivers as the settings name them, and what each of them wants to hear.

use std::fmt;

use http::Uri;
use serin_core::units::HoldFor;

use super::event::{Event, Severities, Severity, check_name};
use crate::gateway::Secret;

/// Everything that the settings say about telling people.
#[derive(Debug, Clone)]
pub struct NotifySettings {
    /// Who is told.
    pub receivers: Vec<Receiver>,
    /// Which events page, and which only tell.
    pub severities: Severities,
    /// A hold that lasts longer becomes an event of its own.
    pub hold_lasts: HoldFor,
    /// How long delivery of one event is tried before it goes to the dead letters.
    pub give_up_after: HoldFor,
    /// How long the links of a message work.
    pub link_lifetime: HoldFor,
}

/// Somebody who is told.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// What people call it.
    pub name: String,
    /// Where and in which form it is told.
    pub to: Channel,
    /// Packs that it is told about; without any, all.
    pub packs: Vec<Glob>,
    /// Events that it is told; without any, all.
    pub events: Vec<Glob>,
    /// Less urgent events are kept from it.
    pub min_severity: Severity,
    /// Whether it may be on this machine or in a private network.
    pub allow_internal: bool,
}

/// Where and in which form a receiver is told.
#[derive(Debug, Clone)]
pub enum Channel {
    /// An incoming webhook of Slack, whose address is the secret.
    Slack {
        /// The webhook.
        url: Endpoint,
    },
    /// The Events API of PagerDuty.
    PagerDuty {
        /// The API, without a path.
        url: Endpoint,
        /// The routing key of a service's integration.
        key: Secret,
    },
    /// An Alertmanager.
    Alertmanager {
        /// Where it is, without the path of its API.
        url: Endpoint,
    },
    /// Anything that takes signed CloudEvents.
    Webhook {
        /// Where it listens.
        url: Endpoint,
        /// Signs what is sent.
        key: SigningKey,
    },
}

impl Channel {
    /// The word of settings.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Slack { .. } => "slack",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Alertmanager { .. } => "alertmanager",
            Self::Webhook { .. } => "webhook",
        }
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Slack { url }
            | Self::PagerDuty { url, .. }
            | Self::Alertmanager { url }
            | Self::Webhook { url, .. } => url,
        }
    }

    /// Texts that no message and no log may show.
    pub(super) fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Slack { url } => vec![url.uri.path()],
            Self::PagerDuty { key, .. } => vec![key.expose()],
            Self::Alertmanager { .. } | Self::Webhook { .. } => vec![],
        }
    }
}

impl Receiver {
    /// What people and the audit log call it: `slack:oncall`.
    pub fn label(&self) -> String {
        format!("{}:{}", self.to.word(), self.name)
    }

    /// Whether it wants to be told of an event.
    pub fn wants(&self, event: &Event) -> bool {
        let name = event.name();
        let is_named = self.events.is_empty()
            || self.events.iter().any(|glob| glob.matches(&name) || glob.matches(event.action()));
        event.severity >= self.min_severity && is_named && self.hears_of(&event.pack)
    }

    /// Whether it is told about a pack at all.
    pub fn hears_of(&self, pack: &str) -> bool {
        self.packs.is_empty() || self.packs.iter().any(|glob| glob.matches(pack))
    }
}

/// A name in which `*` stands for any number of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Takes any text for a pattern.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// A pattern for the names of events, which must exist unless there is a `*` in it.
    ///
    /// # Errors
    /// A sentence that tells what is wrong with it.
    pub fn of_events(pattern: &str) -> Result<Self, String> {
        let name = pattern.strip_suffix(".*").unwrap_or(pattern);
        if !name.contains('*') {
            check_name(name)?;
        }
        Ok(Self::new(pattern))
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a whole name fits.
    pub fn matches(&self, name: &str) -> bool {
        serin_core::glob::fits(&self.0, name)
    }
}

/// An address to post to; shown by its host only, because its path may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
}

impl Endpoint {
    /// Reads an address with a scheme and a host.
    ///
    /// # Errors
    /// A sentence that tells what is wrong with it, without the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "is no address".to_owned())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("is no address that begins with https:// or http://".to_owned());
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => {
                Err("names a user or a password; such receivers are not supported".to_owned())
            }
            Some(authority) if !authority.host().is_empty() => Ok(Self { uri }),
            Some(_) | None => Err("names no host".to_owned()),
        }
    }

    /// The address.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The same host with another path.
    pub(super) fn at(&self, path: &str) -> Self {
        let mut parts = self.uri.clone().into_parts();
        let base = self.uri.path().trim_end_matches('/');
        let path = http::uri::PathAndQuery::try_from(format!("{base}{path}"));
        parts.path_and_query = Some(path.expect("a path with a fixed end is a path"));
        let uri = Uri::from_parts(parts).expect("only the path was changed");
        Self { uri }
    }

    /// Scheme and host, which may be shown.
    pub fn shown(&self) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("{scheme}://{host}")
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}/…)", self.shown())
    }
}

/// A key that signs what a webhook is sent, as Standard Webhooks has it.
#[derive(Clone)]
pub struct SigningKey(pub(super) ring::hmac::Key);

impl SigningKey {
    /// Reads `whsec_` followed by 24 to 64 bytes in base 64.
    ///
    /// # Errors
    /// A sentence that tells what would be right, without the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        use base64::Engine as _;
        let wrong = || "is no signing key: write `whsec_` and 24 to 64 bytes in base 64".to_owned();
        let encoded = text.strip_prefix("whsec_").ok_or_else(wrong)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|_| wrong())?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(wrong());
        }
        Ok(Self(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &bytes)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_number_of_characters() {
        let matches = |pattern: &str, name: &str| Glob::new(pattern).matches(name);
        assert!(matches("support-prompts", "support-prompts"));
        assert!(!matches("support", "support-prompts"));
        assert!(matches("support-*", "support-prompts"));
        assert!(matches("*", ""));
        assert!(matches("hold_*.degraded", "hold_set.degraded"));
        assert!(matches("*o*o*", "foo"));
        assert!(!matches("*o*o*o*", "foo"));
        assert!(!matches("ab*ba", "aba"), "the same characters do not count twice");
    }

    #[test]
    fn an_address_is_shown_without_its_path() {
        let url = Endpoint::parse("https://hooks.slack.com/services/T0/B0/secret").unwrap();
        assert_eq!(format!("{url:?}"), "Endpoint(https://hooks.slack.com/…)");
        assert_eq!(url.at("/x").uri().path(), "/services/T0/B0/secret/x");
        for wrong in ["hooks.slack.com/x", "ftp://x/y", "https://user:pw@host/x", "", "https:///x"] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_signing_key_has_its_prefix_and_its_length() {
        assert!(SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_ok());
        assert!(SigningKey::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_err());
        assert!(SigningKey::parse("whsec_c2hvcnQ=").is_err());
        assert!(SigningKey::parse("whsec_!").is_err());
    }
}
