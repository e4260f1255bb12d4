//! Settings: one YAML file, `SERIN_*` variables and flags, read once at the start.
//!
//! A flag wins over a variable, a variable over the file, the file over the default. Everything that is
//! wrong is told at once, each with its place. Secrets are never shown.

mod alerts;
mod keys;
mod notify;
mod oidc;
mod policy;
mod providers;
mod read;
mod samples;
mod upstreams;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::HeaderName;
use serin_core::access::Grant;
use serin_core::policy::Policy;
use serin_core::units::{HoldFor, InvalidDuration};

pub(crate) use self::alerts::expiry as alert_expiry;
pub use self::policy::policy_of;
use self::read::Reader;
pub use self::samples::sample_rate;
pub use self::upstreams::provider_names;
use crate::alerts::AlertSettings;
use crate::api::ofrep::{Origin, PromptText};
use crate::auth::{SettingsKey, hash_of};
use crate::control::measure::MetricProvider;
use crate::gateway::{Prices, SystemMessage, UpstreamsSettings};
use crate::notify::receiver::NotifySettings;
use crate::oidc::OidcSettings;
use crate::samples::SampleSettings;

/// Everything that a server is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the database, the rollback journal and the lock are.
    pub data_dir: PathBuf,
    /// The data plane.
    pub data: DataSettings,
    /// The control plane.
    pub control: ControlSettings,
    /// The providers behind the gateway.
    pub providers: UpstreamsSettings,
    /// What tokens cost, by model.
    pub prices: Prices,
    /// Outside providers of metrics, by the names that manifests use.
    pub metric_providers: BTreeMap<String, MetricProvider>,
    /// Contacts and facts that wait for the store at most.
    pub ingest_queue: usize,
    /// How long raw observations are kept.
    pub retention: HoldFor,
    /// The longest time that requests under way have when the server stops.
    pub drain: HoldFor,
    /// Who is told what.
    pub notify: NotifySettings,
    /// Who signs people in besides keys.
    pub oidc: Option<OidcSettings>,
    /// Which alerts of other systems hold which packs.
    pub alerts: AlertSettings,
    /// Which conversations are recorded.
    pub samples: SampleSettings,
    /// Rules that manifests and orders have to keep.
    pub policy: Policy,
    /// How the log is written.
    pub log: LogSettings,
    /// Every setting as it is in force and where it comes from, secrets masked.
    shown: Vec<Shown>,
}

/// Settings of the data plane.
#[derive(Debug, Clone)]
pub struct DataSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Headers that name the session, besides `x-serin-session`.
    pub session_headers: Vec<HeaderName>,
    /// What becomes of system messages that a request brings.
    pub system_message: SystemMessage,
    /// Whether streamed answers are asked for their usage.
    pub include_usage: bool,
    /// Whether a caller may name a version.
    pub allow_version_override: bool,
    /// Whether OpenFeature clients may read the text of prompts.
    pub ofrep_prompt_text: PromptText,
    /// Origins of web pages that may evaluate flags.
    pub ofrep_origins: Vec<Origin>,
    /// The largest body of a chat request, in bytes.
    pub body_limit: usize,
    /// Sessions that are pinned at most.
    pub max_pins: usize,
    /// Whether apps need a key.
    pub keys: DataKeys,
    /// Requests that each key may send in a minute; 0 for any number.
    pub max_requests_per_minute: u32,
    /// Names besides localhost under which a loopback listener that holds the provider's key may be asked.
    pub hosts: Vec<String>,
}

/// Whether apps need a key on the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKeys {
    /// Whoever reaches the listener may resolve, send chats and report.
    Open,
    /// Every request brings a key.
    Required,
}

/// Settings of the control plane.
#[derive(Debug, Clone)]
pub struct ControlSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names besides localhost under which a loopback listener may be asked.
    pub hosts: Vec<String>,
    /// The address under which people reach it, for links in messages.
    pub public_url: Option<String>,
    /// Whether whoever reaches it may do everything; on loopback only.
    pub open: bool,
    /// Keys besides those that the store holds.
    pub keys: Vec<SettingsKey>,
    /// Requests that each key may send in a minute; 0 for any number.
    pub max_requests_per_minute: u32,
}

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// As text or as JSON.
    pub format: LogFormat,
    /// What is written, such as `info` or `info,serin_server=debug`.
    pub filter: String,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The settings file; without one there is none.
    pub file: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<String>,
    /// `--listen`, the address of the data plane.
    pub data_listen: Option<String>,
    /// `--control-listen`.
    pub control_listen: Option<String>,
    /// `--provider`, the provider's base URL.
    pub provider_base_url: Option<String>,
    /// `--log-format`.
    pub log_format: Option<String>,
}

/// Why there are no settings to start with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("could not read the settings file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in them is wrong.
    #[error("the settings have problems:\n{}", list(.0))]
    Problems(Vec<SettingsProblem>),
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsProblem {
    /// Where it was said, such as `serin.yaml line 4, column 11`, `SERIN_DATA_LISTEN` or `--listen`.
    pub place: String,
    /// The setting, such as `data.listen`.
    pub setting: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl fmt::Display for SettingsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.setting.is_empty() {
            write!(f, "{}: ", self.setting)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

fn list(problems: &[SettingsProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    setting: String,
    value: String,
    origin: String,
}

/// The least length of a key that is given in plain text.
const SHORTEST_KEY: usize = 16;

impl Settings {
    /// Reads the settings from the file that `options` name, the variables and the options.
    ///
    /// # Errors
    /// [`SettingsError`] holds everything that is wrong.
    pub fn load(options: &Options, variables: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let file = match &options.file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| SettingsError::File { path: path.clone(), source })?;
                Some((path.display().to_string(), text))
            }
        };
        let mut reader = Reader::new(file, variables);
        let settings = Self::read(&mut reader, options);
        reader.finish(settings)
    }

    fn read(reader: &mut Reader<'_>, options: &Options) -> Self {
        let flag = |name: &'static str, value: &Option<String>| value.clone().map(|value| (name, value));
        let data_dir =
            reader.value("dataDir", flag("--data-dir", &options.data_dir), "serin-data", |text| match text {
                "" => Err("is empty".to_owned()),
                text => Ok(PathBuf::from(text)),
            });
        let data = DataSettings {
            listen: reader.value(
                "data.listen",
                flag("--listen", &options.data_listen),
                "127.0.0.1:8980",
                address,
            ),
            session_headers: reader.list("data.sessionHeaders", |name| {
                HeaderName::try_from(name.to_ascii_lowercase())
                    .map_err(|_| "is no name of a header".to_owned())
            }),
            system_message: reader.value("data.systemMessage", None, "prepend", |text| match text {
                "prepend" => Ok(SystemMessage::Prepend),
                "replace" => Ok(SystemMessage::Replace),
                "reject" => Ok(SystemMessage::Reject),
                _ => Err("is none of prepend, replace, reject".to_owned()),
            }),
            include_usage: reader.value("data.includeUsage", None, "true", yes_or_no),
            allow_version_override: reader.value("data.allowVersionOverride", None, "false", yes_or_no),
            ofrep_prompt_text: reader.value("data.ofrepPromptText", None, "false", |text| {
                yes_or_no(text).map(|yes| if yes { PromptText::Filled } else { PromptText::Withheld })
            }),
            ofrep_origins: reader
                .list("data.ofrepOrigins", |text| Origin::parse(text).map_err(|error| error.to_string())),
            body_limit: reader.value("data.bodyLimit", None, "32MiB", bytes),
            max_pins: reader.value("data.maxPins", None, "2000000", |text| count(text, 1, 100_000_000)),
            keys: DataKeys::Open,
            max_requests_per_minute: reader.value("data.maxRequestsPerMinute", None, "0", per_minute),
            hosts: reader.list("data.hosts", host),
        };
        let data = DataSettings { keys: keys::of_data(reader, data.listen), ..data };
        let providers = upstreams::read(reader, flag("--provider", &options.provider_base_url));
        let control = control(reader, options);
        let oidc = oidc::read(reader, control.public_url.as_deref());
        Self {
            data_dir,
            data,
            control,
            providers,
            prices: reader.prices("prices"),
            metric_providers: providers::read(reader),
            ingest_queue: reader.value("ingest.queue", None, "65536", |text| count(text, 1_000, 10_000_000)),
            retention: reader.value("retention", None, "7d", |text| {
                let retention = duration(text)?;
                if retention < HoldFor::from_hours(1) {
                    Err("is shorter than 1h".to_owned())
                } else {
                    Ok(retention)
                }
            }),
            drain: reader.value("drain", None, "30s", within_a_day),
            notify: notify::notify(reader),
            oidc,
            alerts: alerts::read(reader),
            samples: samples::read(reader),
            policy: policy::read(reader),
            log: LogSettings {
                format: reader.value(
                    "log.format",
                    flag("--log-format", &options.log_format),
                    "text",
                    |text| match text {
                        "text" => Ok(LogFormat::Text),
                        "json" => Ok(LogFormat::Json),
                        _ => Err("is none of text, json".to_owned()),
                    },
                ),
                filter: reader.value("log.filter", None, "info", |text| Ok::<_, String>(text.to_owned())),
            },
            shown: reader.shown(),
        }
    }

    /// Every setting as it is in force, as YAML with its origin beside it; secrets are masked.
    pub fn print(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        let mut shown: Vec<&Shown> = self.shown.iter().collect();
        // Sections stay together, whatever the order of reading was.
        shown.sort_by_key(|shown| (shown.setting.contains('.'), shown.setting.split('.').next()));
        for Shown { setting, value, origin } in shown {
            let (own, name) = setting.split_once('.').unwrap_or(("", setting));
            if own != section {
                text.push_str(&format!("{own}:\n"));
                section = own;
            }
            let indent = if own.is_empty() { "" } else { "  " };
            text.push_str(&format!("{indent}{name}: {value}  # {origin}\n"));
        }
        text
    }
}

fn control(reader: &mut Reader<'_>, options: &Options) -> ControlSettings {
    let flag = options.control_listen.clone().map(|value| ("--control-listen", value));
    let listen = reader.value("control.listen", flag, "127.0.0.1:8981", address);
    let mut hosts = reader.list("control.hosts", host);
    let open = reader.value("control.open", None, "false", yes_or_no);
    let public_url =
        reader.optional("control.publicUrl").and_then(|(text, origin)| match public_host(&text) {
            Ok(host) => {
                // Whoever follows a link asks for this name, also through a proxy to a loopback listener.
                hosts.push(host);
                Some(text)
            }
            Err(message) => {
                reader.problem(&origin, "control.publicUrl", &message, None);
                None
            }
        });
    let mut keys = reader.keys("control.keys");
    if let Some(secret) = reader.secret("SERIN_CONTROL_KEY") {
        if secret.len() < SHORTEST_KEY {
            let message = format!("the key has {} bytes, fewer than {SHORTEST_KEY}", secret.len());
            reader.problem(
                "SERIN_CONTROL_KEY",
                "control.keys",
                &message,
                Some("`serin key create` makes one"),
            );
        } else {
            keys.push(SettingsKey {
                name: "SERIN_CONTROL_KEY".to_owned(),
                hash: hash_of(&secret),
                grant: Grant::ADMIN,
            });
        }
    }
    if open && !listen.ip().is_loopback() {
        let place = reader.origin_of("control.open");
        let message = format!("{listen} can be reached from other machines, which keys alone can keep out");
        let hint = "leave it out, or listen on 127.0.0.1";
        reader.problem(&place, "control.open", &message, Some(hint));
    }
    let max_requests_per_minute = reader.value("control.maxRequestsPerMinute", None, "6000", per_minute);
    ControlSettings { listen, hosts, public_url, open, keys, max_requests_per_minute }
}

fn host(name: &str) -> Result<String, String> {
    let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._[]:".contains(c));
    if fits { Ok(name.to_owned()) } else { Err("is no name of a host".to_owned()) }
}

/// The host of the address under which people reach the control plane.
fn public_host(text: &str) -> Result<String, String> {
    let wrong = || "is no address such as https://serin.example.com".to_owned();
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
    let authority = uri.authority().filter(|authority| is_web && !authority.as_str().contains('@'));
    Ok(authority.ok_or_else(wrong)?.host().to_owned())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.replace("localhost", "127.0.0.1");
    text.parse().map_err(|_| "is no address such as 127.0.0.1:8980 or [::]:8980".to_owned())
}

fn per_minute(text: &str) -> Result<u32, String> {
    let count = count(text, 0, 10_000_000)?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

fn count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number: usize = text.replace('_', "").parse().map_err(|_| "is no whole number".to_owned())?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(format!("is outside {least} to {most}")) }
}

/// Reads a number of bytes: `65536`, `512KiB`, `32MiB`.
fn bytes(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(end) => (&text[..end], text[end..].trim()),
        None => (text, ""),
    };
    let factor: usize = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return Err("is no number of bytes such as 65536, 512KiB or 32MiB".to_owned()),
    };
    let number: usize = digits.parse().map_err(|_| "is no number of bytes such as 32MiB".to_owned())?;
    let bytes = number.saturating_mul(factor);
    if (1 << 10..=1 << 30).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("is outside 1KiB to 1024MiB".to_owned())
    }
}

fn duration(text: &str) -> Result<HoldFor, String> {
    HoldFor::parse(text).map_err(|error| match error {
        InvalidDuration::NoUnit(_) => "has no unit such as s, m, h or d".to_owned(),
        InvalidDuration::Malformed(_) => "is no duration such as 90s, 5m or 7d".to_owned(),
        InvalidDuration::TooLong(_) => "is longer than ten years".to_owned(),
    })
}

fn within_a_day(text: &str) -> Result<HoldFor, String> {
    let length = duration(text)?;
    let fits = length > HoldFor::ZERO && length <= HoldFor::from_hours(24);
    if fits { Ok(length) } else { Err("is outside 1ms to 24h".to_owned()) }
}

#[cfg(test)]
mod tests;
