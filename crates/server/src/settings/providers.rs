//! `metricProviders`: whom gates may ask, by name.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;
use serin_core::manifest::{Node, Value};

use super::read::Reader;
use super::within_a_day;
use crate::control::measure::MetricProvider;

const SETTING: &str = "metricProviders";
/// The longest time that a query may take, unless the settings say otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Providers that the settings name at most.
const MOST_PROVIDERS: usize = 32;

/// Reads the providers; what is wrong is noted.
pub(super) fn read(reader: &mut Reader<'_>) -> BTreeMap<String, MetricProvider> {
    let mut providers = BTreeMap::new();
    let Some(node) = reader.node(SETTING) else { return providers };
    for entry in reader.entries(&node, SETTING) {
        let path = format!("{SETTING}.{}", entry.key);
        let place = reader.place(entry.at);
        if entry.key == serin_core::plan::BUILTIN || providers.len() >= MOST_PROVIDERS {
            let message = format!("the name is taken, or there are more than {MOST_PROVIDERS} providers");
            reader.problem(&place, &path, &message, None);
        } else if let Some(provider) = provider(reader, &path, &place, &entry.node) {
            providers.insert(entry.key, provider);
        }
    }
    let told: Vec<String> = providers
        .iter()
        .map(|(name, provider)| format!("{name}: {{type: prometheus, url: {}}}", provider.url))
        .collect();
    let place = reader.place(node.at);
    reader.show(SETTING, format!("{{{}}}", told.join(", ")), place);
    providers
}

fn provider(reader: &mut Reader<'_>, path: &str, place: &str, node: &Node) -> Option<MetricProvider> {
    let (mut url, mut timeout, mut kind) = (None, TIMEOUT, None);
    for entry in reader.entries(node, path) {
        let at = reader.place(entry.at);
        let text = match &entry.node.value {
            Value::Scalar(scalar) => scalar.text.clone(),
            Value::Null | Value::List(_) | Value::Map(_) => String::new(),
        };
        let path = format!("{path}.{}", entry.key);
        match entry.key.as_str() {
            "type" if text == "prometheus" => kind = Some(()),
            "type" => {
                reader.problem(
                    &at,
                    &path,
                    &format!("{text:?} is no type of provider"),
                    Some("known here: prometheus"),
                );
            }
            "url" => match text.parse::<Uri>() {
                Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() => {
                    url = Some(uri);
                }
                Ok(_) | Err(_) => {
                    reader.problem(&at, &path, "is no address such as http://127.0.0.1:9090", None);
                }
            },
            "timeout" => match within_a_day(&text) {
                Ok(length) => timeout = length.as_std(),
                Err(why) => reader.problem(&at, &path, &format!("{text:?} {why}"), None),
            },
            _ => reader.problem(&at, &path, "unknown field", Some("known here: type, url, timeout")),
        }
    }
    if kind.is_none() || url.is_none() {
        reader.problem(
            place,
            path,
            "needs a type and a url",
            Some("{type: prometheus, url: http://127.0.0.1:9090}"),
        );
    }
    Some(MetricProvider { url: url?, timeout })
}
