//! The providers by their names, and which of them a request goes to.
//!
//! A version of a pack that names a provider is sent there. Otherwise the request may name one in
//! `x-serin-provider`; every other request goes to the default provider.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, StatusCode};
use serin_core::ids::ProviderName;
use serin_core::metric::nearest;

use super::protocol::Protocol;
use super::refusal::Refusal;
use super::upstream::{Upstream, UpstreamError, UpstreamSettings};

/// Names the provider of a request whose version names none.
pub static PROVIDER: HeaderName = HeaderName::from_static("x-serin-provider");

/// All providers.
///
/// **Invariant:** the default is one of them.
#[derive(Debug)]
pub struct Upstreams {
    by_name: BTreeMap<ProviderName, Upstream>,
    default: ProviderName,
}

/// What is said about the providers.
#[derive(Debug, Clone)]
pub struct UpstreamsSettings {
    /// Each provider by its name.
    pub by_name: BTreeMap<ProviderName, UpstreamSettings>,
    /// Who gets what names no other; one of them.
    pub default: ProviderName,
}

impl UpstreamsSettings {
    /// One provider and no other, which is called `default`.
    pub fn one(settings: UpstreamSettings) -> Self {
        let default = ProviderName::parse("default").expect("the word is a name");
        Self { by_name: BTreeMap::from([(default.clone(), settings)]), default }
    }

    /// The provider that gets what names no other.
    pub fn of_default(&self) -> Option<&UpstreamSettings> {
        self.by_name.get(&self.default)
    }

    /// Whether requests go to a provider with a key of ours, so that whoever may send them uses that key.
    pub fn hold_a_key(&self) -> bool {
        self.by_name.values().any(|settings| settings.key.is_some())
    }
}

impl Upstreams {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// [`UpstreamError`] when a key or TLS cannot be used, or the default is no provider.
    pub fn new(settings: &UpstreamsSettings) -> Result<Self, UpstreamError> {
        let UpstreamsSettings { by_name, default } = settings;
        if !by_name.contains_key(default) {
            return Err(UpstreamError::NoDefault(default.clone()));
        }
        let upstream = |(name, settings): (&ProviderName, &UpstreamSettings)| {
            Ok((name.clone(), Upstream::new(name.clone(), settings)?))
        };
        let by_name = by_name.iter().map(upstream).collect::<Result<_, UpstreamError>>()?;
        Ok(Self { by_name, default: default.clone() })
    }

    /// Every provider, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.by_name.values()
    }

    /// The provider of a name, or the default one.
    pub(super) fn find(&self, name: Option<&ProviderName>) -> Option<&Upstream> {
        self.by_name.get(name.unwrap_or(&self.default))
    }

    /// Who gets a request of `protocol`: the provider that its version names, or its header, or the default.
    ///
    /// # Errors
    /// [`Refusal`] when there is no such provider, or it does not speak the protocol.
    pub(super) fn choose(
        &self,
        of_version: Option<&ProviderName>,
        headers: &HeaderMap,
        protocol: Option<Protocol>,
    ) -> Result<&Upstream, Refusal> {
        let upstream = match (of_version, headers.get(&PROVIDER)) {
            (Some(name), _) => self.by_name.get(name).ok_or_else(|| self.gone(name))?,
            (None, Some(named)) => self.named(named.to_str().unwrap_or("?"))?,
            (None, None) => &self.by_name[&self.default],
        };
        match protocol {
            Some(protocol) if !upstream.speaks(protocol) => Err(wrong_protocol(upstream, protocol)),
            Some(_) | None => Ok(upstream),
        }
    }

    fn named(&self, name: &str) -> Result<&Upstream, Refusal> {
        let found = ProviderName::parse(name).ok().and_then(|name| self.by_name.get(&name));
        found.ok_or_else(|| {
            let message =
                format!("{PROVIDER} names {name:?}, which is no provider; hint: {}", self.hint(name));
            Refusal::bad_request("unknown_provider", message)
        })
    }

    /// The settings have changed since the version was applied.
    fn gone(&self, name: &ProviderName) -> Refusal {
        let message = format!(
            "the version names the provider {name}, which is not in the settings; hint: {}",
            self.hint(name.as_str())
        );
        Refusal::new(StatusCode::BAD_GATEWAY, "unknown_provider", message)
    }

    fn hint(&self, name: &str) -> String {
        hint(name, self.by_name.keys())
    }
}

/// What to do about a provider that is unknown.
pub fn hint<'a>(name: &str, known: impl Iterator<Item = &'a ProviderName> + Clone) -> String {
    match nearest(name, known.clone().map(ProviderName::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => {
            let known: Vec<&str> = known.map(ProviderName::as_str).collect();
            format!("the settings know {}", known.join(", "))
        }
    }
}

fn wrong_protocol(upstream: &Upstream, protocol: Protocol) -> Refusal {
    let (spoken, path) = match protocol {
        Protocol::Messages => ("openai", "/v1/messages"),
        Protocol::Chat => ("anthropic", "/v1/chat/completions"),
        Protocol::Responses => ("anthropic", "/v1/responses"),
    };
    let message = format!(
        "the provider {} speaks the protocol of {spoken}, which has no {path}; hint: ask it by that protocol, or name another provider in {PROVIDER}",
        upstream.name()
    );
    Refusal::bad_request("wrong_protocol", message)
}
