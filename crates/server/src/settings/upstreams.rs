//! The providers: the section `provider`, further ones by name under `providers`, and which is the default.
//!
//! The section `provider` is the provider named `default`. Its limits and timeouts hold for every other one
//! that says nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serin_core::ids::ProviderName;
use serin_core::manifest::{Node, Value};

use super::read::{Reader, Written};
use super::{count, within_a_day};
use crate::gateway::{BaseUrl, Http2, Secret, Speaks, UpstreamSettings, UpstreamsSettings, provider_hint};
use crate::trust::Roots;

const SETTING: &str = "providers";
/// Providers that the settings name at most; each has its own connections and metrics.
const MOST_PROVIDERS: usize = 32;
/// The fields of a provider under `providers`.
const FIELDS: &str = "baseUrl, protocol, http2, caFile, apiKeyEnv, apiKeyFile, maxRequests, maxWaiting, connectRetries, connectTimeout, firstByteTimeout, stallTimeout, idleTimeout";

/// Reads everything about providers; `base_url` is what the command line says of the section `provider`.
pub(super) fn read(reader: &mut Reader<'_>, base_url: Option<(&'static str, String)>) -> UpstreamsSettings {
    let own = section(reader, base_url);
    let of_section = ProviderName::parse("default").expect("the word is a name");
    let mut by_name = BTreeMap::new();
    for Written { name, node, place } in reader.mapping(SETTING) {
        let path = format!("{SETTING}.{name}");
        let name = match ProviderName::parse(&name) {
            Ok(name) if name == of_section => {
                let message = "the name is taken by the section `provider`";
                reader.problem(&place, &path, message, Some("choose another name, or move its fields there"));
                continue;
            }
            Ok(name) => name,
            Err(error) => {
                reader.problem(&place, &path, &error.to_string(), None);
                continue;
            }
        };
        if by_name.len() >= MOST_PROVIDERS {
            reader.problem(&place, SETTING, &format!("there are more than {MOST_PROVIDERS} providers"), None);
            break;
        }
        if let Some(provider) = named(reader, &path, &place, &node, &own) {
            by_name.insert(name, provider);
        }
    }
    by_name.insert(of_section.clone(), own);
    let default = default(reader, &by_name).unwrap_or(of_section);
    UpstreamsSettings { by_name, default }
}

/// The names of the providers in a settings file, without looking at anything else in it.
///
/// # Errors
/// What is wrong with the file.
pub fn provider_names(yaml: &str) -> Result<BTreeSet<ProviderName>, String> {
    let mut names = BTreeSet::from([ProviderName::parse("default").expect("the word is a name")]);
    let root = Node::read(yaml).map_err(|error| error.message)?;
    let Value::Map(settings) = &root.value else { return Err("it holds no settings".to_owned()) };
    let Some(providers) = settings.iter().find(|entry| entry.key == SETTING) else { return Ok(names) };
    let Value::Map(providers) = &providers.node.value else {
        return Err(format!("`{SETTING}` is no mapping"));
    };
    for entry in providers {
        names.insert(ProviderName::parse(&entry.key).map_err(|error| error.to_string())?);
    }
    Ok(names)
}

fn default(
    reader: &mut Reader<'_>,
    by_name: &BTreeMap<ProviderName, UpstreamSettings>,
) -> Option<ProviderName> {
    const SETTING: &str = "defaultProvider";
    let (text, origin) = reader.optional(SETTING)?;
    let name = ProviderName::parse(&text).ok().filter(|name| by_name.contains_key(name));
    if name.is_none() {
        let hint = provider_hint(&text, by_name.keys());
        reader.problem(&origin, SETTING, &format!("{text:?} is none of the providers"), Some(&hint));
    }
    name
}

/// The section `provider`.
fn section(reader: &mut Reader<'_>, flag: Option<(&'static str, String)>) -> UpstreamSettings {
    let base_url = reader.value("provider.baseUrl", flag, "https://api.openai.com/v1", address);
    let timeout = |reader: &mut Reader<'_>, setting: &str, default: &str| -> Duration {
        reader.value(setting, None, default, within_a_day).as_std()
    };
    UpstreamSettings {
        speaks: reader.value("provider.protocol", None, "both", protocol),
        http2: reader.value("provider.http2", None, "auto", http2),
        roots: roots_of_section(reader),
        key: key_of_section(reader),
        max_requests: reader.value("provider.maxRequests", None, "10000", most_requests),
        max_waiting: reader.value("provider.maxWaiting", None, "1000", most_waiting),
        connect_retries: reader.value("provider.connectRetries", None, "1", retries),
        connect_timeout: timeout(reader, "provider.connectTimeout", "10s"),
        first_byte_timeout: timeout(reader, "provider.firstByteTimeout", "10m"),
        stall_timeout: timeout(reader, "provider.stallTimeout", "5m"),
        idle_timeout: timeout(reader, "provider.idleTimeout", "1m"),
        ..UpstreamSettings::new(base_url)
    }
}

fn roots_of_section(reader: &mut Reader<'_>) -> Option<Roots> {
    const SETTING: &str = "provider.caFile";
    let (path, origin) = reader.optional(SETTING)?;
    let roots = Roots::read(&path);
    roots.map_err(|message| reader.problem(&origin, SETTING, &format!("{path:?} {message}"), None)).ok()
}

/// One entry of `providers`; nothing when it has no address.
fn named(
    reader: &mut Reader<'_>,
    path: &str,
    place: &str,
    node: &Node,
    own: &UpstreamSettings,
) -> Option<UpstreamSettings> {
    let mut base_url = None;
    // Limits and timeouts are those of the section `provider`; its key, protocol and trust are its own.
    let mut provider = UpstreamSettings {
        speaks: Speaks::default(),
        http2: Http2::default(),
        key: None,
        roots: None,
        ..own.clone()
    };
    let mut keys = Vec::new();
    let mut shown = Vec::new();
    for Written { name: field, node, place } in reader.members(path, node) {
        let setting = format!("{path}.{field}");
        let text = match &node.value {
            Value::Scalar(scalar) => scalar.text.as_str(),
            Value::Null | Value::List(_) | Value::Map(_) => "",
        };
        let read = match field.as_str() {
            "baseUrl" => address(text).map(|url| base_url = Some(url)),
            "protocol" => protocol(text).map(|speaks| provider.speaks = speaks),
            "http2" => http2(text).map(|http2| provider.http2 = http2),
            "caFile" => Roots::read(text).map(|roots| provider.roots = Some(roots)),
            "apiKeyEnv" => key_of_variable(reader, text).map(|key| keys.push(key)),
            "apiKeyFile" => key_of_file(text).map(|key| keys.push(key)),
            "maxRequests" => most_requests(text).map(|most| provider.max_requests = most),
            "maxWaiting" => most_waiting(text).map(|most| provider.max_waiting = most),
            "connectRetries" => retries(text).map(|times| provider.connect_retries = times),
            "connectTimeout" => within_a_day(text).map(|time| provider.connect_timeout = time.as_std()),
            "firstByteTimeout" => within_a_day(text).map(|time| provider.first_byte_timeout = time.as_std()),
            "stallTimeout" => within_a_day(text).map(|time| provider.stall_timeout = time.as_std()),
            "idleTimeout" => within_a_day(text).map(|time| provider.idle_timeout = time.as_std()),
            "apiKey" => {
                let hint = "put it into a variable or a file, and name that with `apiKeyEnv` or `apiKeyFile`";
                reader.problem(&place, &setting, "a key does not belong into the settings", Some(hint));
                continue;
            }
            _ => {
                let hint = format!("known here: {FIELDS}");
                reader.problem(&place, &setting, "unknown field", Some(&hint));
                continue;
            }
        };
        match read {
            Ok(()) => shown.push(format!("{field}: {text}")),
            Err(message) => reader.problem(&place, &setting, &format!("{text:?} {message}"), None),
        }
    }
    if keys.len() > 1 {
        let message = "the key is given more than once";
        reader.problem(place, path, message, Some("keep one of apiKeyEnv and apiKeyFile"));
    }
    reader.show(path, format!("{{{}}}", shown.join(", ")), place.to_owned());
    if base_url.is_none() {
        reader.problem(place, path, "needs a baseUrl", Some("write `baseUrl: https://HOST/v1`"));
    }
    Some(UpstreamSettings { base_url: base_url?, key: keys.pop(), ..provider })
}

fn address(text: &str) -> Result<BaseUrl, String> {
    BaseUrl::parse(text).map_err(|error| format!("is no address of a provider: {}", error.problem))
}

fn protocol(text: &str) -> Result<Speaks, String> {
    match text {
        "both" => Ok(Speaks::Both),
        "openai" => Ok(Speaks::OpenAi),
        "anthropic" => Ok(Speaks::Anthropic),
        _ => Err("is none of both, openai, anthropic".to_owned()),
    }
}

fn http2(text: &str) -> Result<Http2, String> {
    match text {
        "auto" => Ok(Http2::Auto),
        "always" => Ok(Http2::Always),
        "never" => Ok(Http2::Never),
        _ => Err("is none of auto, always, never".to_owned()),
    }
}

fn most_requests(text: &str) -> Result<usize, String> {
    count(text, 1, 1_000_000)
}

fn most_waiting(text: &str) -> Result<usize, String> {
    count(text, 0, 1_000_000)
}

fn retries(text: &str) -> Result<u32, String> {
    count(text, 0, 5).map(|times| u32::try_from(times).unwrap_or(5))
}

fn key_of_variable(reader: &mut Reader<'_>, variable: &str) -> Result<Secret, String> {
    match reader.variable(variable) {
        Some(text) => key(&text),
        None => Err("is a variable that is not set, or empty".to_owned()),
    }
}

fn key_of_file(path: &str) -> Result<Secret, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => key(text.trim()),
        Err(error) => Err(format!("could not be read: {error}")),
    }
}

fn key(text: &str) -> Result<Secret, String> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err("holds a key that is empty, or has characters that no header may hold".to_owned());
    }
    Ok(Secret::new(text))
}

/// The key of the section `provider`: from a variable that a setting names, from a file, or from `SERIN_PROVIDER_API_KEY`.
fn key_of_section(reader: &mut Reader<'_>) -> Option<Secret> {
    let direct = reader.secret("SERIN_PROVIDER_API_KEY");
    let env = reader.optional("provider.apiKeyEnv");
    let file = reader.optional("provider.apiKeyFile");
    let given = [direct.is_some(), env.is_some(), file.is_some()].into_iter().filter(|given| *given).count();
    if given > 1 {
        let message = "the key is given more than once";
        let hint = "keep one of SERIN_PROVIDER_API_KEY, provider.apiKeyEnv and provider.apiKeyFile";
        reader.problem("provider", "provider.apiKeyEnv", message, Some(hint));
    }
    let key = match (direct, env, file) {
        (Some(secret), _, _) => secret,
        (None, Some((name, origin)), _) => match reader.secret(&name) {
            Some(secret) => secret,
            None => {
                let message = format!("the variable {name} is not set, or empty");
                reader.problem(
                    &origin,
                    "provider.apiKeyEnv",
                    &message,
                    Some("set it, or remove the setting"),
                );
                return None;
            }
        },
        (None, None, Some((path, origin))) => match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => {
                let message = format!("could not read {path}: {error}");
                reader.problem(&origin, "provider.apiKeyFile", &message, None);
                return None;
            }
        },
        (None, None, None) => return None,
    };
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic()) {
        let message = "the key is empty, or holds characters that no header may hold";
        reader.problem("provider", "provider.apiKey", message, None);
        return None;
    }
    Some(Secret::new(key))
}
