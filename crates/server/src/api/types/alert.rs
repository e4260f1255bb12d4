//! Alerts of other systems, as they come in and as they stand.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::word::words;

words! {
    /// Where an alert is in its life.
    AlertState from serin_core::alert::AlertState {
        /// It fires, and holds.
        Firing "firing",
        /// The other system said that it is over.
        Resolved "resolved",
        /// It was not repeated in time.
        Expired "expired",
    }
}

/// What is said of alerts: what Alertmanager sends to a webhook, or one alert of anything else.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum AlertsRequest {
    /// What Alertmanager sends.
    Alertmanager(AlertmanagerWebhook),
    /// One alert.
    One(AlertRequest),
}

words! {
    /// Whether an alert fires or is over.
    AlertStatus from crate::alerts::Status {
        /// It fires.
        Firing "firing",
        /// It is over.
        Resolved "resolved",
    }
}

/// What Alertmanager sends to a webhook, in version 4 of its form; what is not named here is passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertmanagerWebhook {
    /// The version of the form, which is 4.
    #[schema(pattern = "^4$")]
    pub version: String,
    /// Alerts that Alertmanager left out; `max_alerts` of its receiver bounds them.
    #[serde(default)]
    pub truncated_alerts: u64,
    /// The alerts of one group, at most 1 000.
    pub alerts: Vec<AlertmanagerAlert>,
}

/// One alert of Alertmanager; what is not named here is passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertmanagerAlert {
    /// Whether it fires or is over.
    pub status: AlertStatus,
    /// Its labels, `alertname` among them; `serin_pack` or `pack` names packs.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, of which `summary` or else `description` is shown.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub starts_at: Option<Timestamp>,
    /// Where it comes from.
    #[serde(default, rename = "generatorURL")]
    pub generator_url: String,
    /// Tells it from others.
    #[serde(default)]
    pub fingerprint: String,
}

/// One alert of any system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertRequest {
    /// What it is called.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// Whether it fires or is over.
    pub status: AlertStatus,
    /// The pack that it holds, or several with `*`; without it the settings say which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<String>,
    /// Labels by which the settings find its packs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How long it holds without being repeated, such as `30m`; without it as long as the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Tells it from others; without it, its name, pack and labels do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub fingerprint: Option<String>,
}

/// What became of alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlertsAnswer {
    /// Alerts that fire now.
    pub firing: u64,
    /// Alerts that are over now.
    pub resolved: u64,
    /// Alerts without effect, each with the reason.
    pub ignored: Vec<IgnoredAlert>,
    /// Packs that these alerts hold now, as soon as a rollout of theirs is under way.
    pub holds: Vec<String>,
}

/// An alert without effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IgnoredAlert {
    /// Its place in the request, from 0.
    pub index: u64,
    /// What it is called.
    pub name: String,
    /// Why it has no effect.
    pub reason: String,
}

/// Alerts that fire or fired within a day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertList {
    /// Those that fire first, then by the time at which they began.
    pub alerts: Vec<AlertView>,
}

/// An alert as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertView {
    /// What it is called.
    pub name: String,
    /// Where it is in its life.
    pub state: AlertState,
    /// What is wrong; may be empty.
    pub summary: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The packs that it is about, of those that may be seen.
    pub packs: Vec<String>,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Tells it from others.
    pub fingerprint: String,
    /// Who said so: the name of a key.
    pub said_by: String,
    /// Since when it fires.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When it was last said.
    #[schema(value_type = String, format = DateTime)]
    pub said_at: Timestamp,
    /// It is over then, unless it is repeated.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// When it was over; absent while it fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
}
