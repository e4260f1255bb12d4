//! Alerts of other systems: taking them in, and showing which of them hold what.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serin_core::ids::PackName;

use super::App;
use super::caller::{Asker, By};
use super::error::ApiError;
use super::read::{NoParams, Params, bytes, from_json};
use super::types::{
    AlertList, AlertRequest, AlertState, AlertStatus, AlertView, AlertmanagerAlert, AlertmanagerWebhook,
    AlertsAnswer, AlertsRequest, FieldProblem, IgnoredAlert, ProblemDetails, ProblemSeverity,
};
use crate::alerts::{Heard, MOST_FIRING, NAME_LABEL, PACK_LABELS, Said, Status};
use crate::settings::alert_expiry;
use crate::store::StoredAlert;

/// The largest body, in bytes.
const LARGEST_BODY: usize = 1 << 20;
/// Alerts that one request may bring.
const MOST_ALERTS: usize = 1_000;
/// Labels that one alert may have.
const MOST_LABELS: usize = 64;
/// The longest value of a label, the longest name and the longest fingerprint, in bytes.
const LONGEST_VALUE: usize = 1_000;
/// What is kept of a text for people, in characters.
const LONGEST_SUMMARY: usize = 300;
/// The longest address that is kept; half an address helps nobody.
const LONGEST_URL: usize = 2_000;

/// Takes alerts, which hold the rollouts of packs that they are about for as long as they fire.
///
/// The body is what Alertmanager sends to a webhook, or one alert of any other system. A label `serin_pack` or `pack`
/// names a pack, `*` in it standing for any number of characters; `alerts.rules` in the settings names others. An alert
/// is over when it is resolved, or when it was not repeated for as long as `alerts.expireAfter` says. The same alert
/// again only lasts longer. Alerts never roll back.
#[utoipa::path(
    post, path = "/alerts", tag = "alerts",
    request_body(content = AlertsRequest, description = "At most 1 000 alerts and 1 MiB."),
    responses(
        (status = 200, description = "What became of the alerts; it is stored.", body = AlertsAnswer),
        (status = 400, description = "The body cannot be read at all.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "More than 1 000 alerts or 1 MiB.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "Something in it is not as it should be; `problems` says where. Nothing was changed.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer, or as many alerts fire as there may be; send the same again.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn take(
    State(app): State<App>,
    Asker(caller): Asker,
    By(actor): By,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AlertsAnswer>, ApiError> {
    let body: Value = from_json(&bytes(&headers, body, LARGEST_BODY).await?)?;
    let said = said(body)?;
    let now = app.now();
    let heard = app.alerts.hear(&said, actor.as_str(), &caller.grant.scope, now).await?;
    let refused = heard.iter().filter(|heard| **heard == Heard::Refused).count();
    if refused > 0 {
        tracing::warn!(refused, said_by = %actor, "refused {refused} alerts: {MOST_FIRING} fire already");
        let detail = format!(
            "{refused} of {} alerts were refused: {MOST_FIRING} fire already; the others are taken",
            said.len()
        );
        return Err(ApiError::unavailable("too-many-alerts", detail)
            .hint("send alerts that are about packs only, or resolve some"));
    }
    let known: Vec<PackName> = app.control.names().await;
    let fingerprints: BTreeSet<&str> = said.iter().map(|said| said.fingerprint.as_str()).collect();
    let held = app.alerts.list(&known).into_iter().filter(|(stored, _)| {
        stored.scope == caller.grant.scope
            && fingerprints.contains(stored.alert.fingerprint.as_str())
            && stored.alert.ended_at(now).is_none()
    });
    let holds: BTreeSet<String> = held.flat_map(|(_, packs)| packs).map(|pack| pack.to_string()).collect();
    Ok(Json(answer(&said, &heard, holds.into_iter().collect())))
}

fn answer(said: &[Said], heard: &[Heard], holds: Vec<String>) -> AlertsAnswer {
    let count =
        |what: Heard| u64::try_from(heard.iter().filter(|heard| **heard == what).count()).unwrap_or(u64::MAX);
    let ignored = (0_u64..).zip(said).zip(heard).filter_map(|((index, said), heard)| {
        let reason = match heard {
            Heard::Firing | Heard::Resolved => return None,
            Heard::NotFiring => "it is not known to fire here",
            Heard::NoPack => "it has no label serin_pack or pack, and no rule in alerts.rules fits it",
            Heard::Own => "Serin itself sent it",
            Heard::Refused => "as many alerts fire as there may be",
        };
        Some(IgnoredAlert { index, name: said.name.clone(), reason: reason.to_owned() })
    });
    AlertsAnswer {
        firing: count(Heard::Firing),
        resolved: count(Heard::Resolved),
        ignored: ignored.collect(),
        holds,
    }
}

/// Lists the alerts that fire, and those that ended within a day.
///
/// A key for some packs sees the alerts about these.
#[utoipa::path(get, path = "/alerts", tag = "alerts", responses((status = 200, description = "Those that fire first.", body = AlertList)))]
pub(super) async fn list(
    State(app): State<App>,
    asker: Asker,
    _: Params<NoParams>,
) -> Result<Json<AlertList>, ApiError> {
    let now = app.now();
    let visible = asker.visible(&app).await;
    let sees_all = asker.scope().packs().is_none();
    let alerts = app.alerts.list(&visible).into_iter();
    let mut alerts: Vec<AlertView> = alerts
        .filter(|(_, packs)| sees_all || !packs.is_empty())
        .map(|(StoredAlert { scope: _, labels, said_at, alert }, packs)| AlertView {
            state: alert.state(now).into(),
            ended_at: alert.ended_at(now),
            name: alert.name,
            summary: alert.summary,
            labels,
            packs: packs.iter().map(ToString::to_string).collect(),
            url: alert.url,
            fingerprint: alert.fingerprint,
            said_by: alert.said_by,
            since: alert.since,
            said_at,
            expires_at: alert.expires_at,
        })
        .collect();
    alerts.sort_by_key(|alert| (alert.state != AlertState::Firing, alert.since));
    Ok(Json(AlertList { alerts }))
}

/// Reads a body in either form.
fn said(body: Value) -> Result<Vec<Said>, ApiError> {
    match &body {
        Value::Object(members) if members.contains_key("alerts") => {
            let AlertmanagerWebhook { version, truncated_alerts, alerts } = typed(body)?;
            if version != "4" {
                let message = format!("{version:?} is a version of the form that is not read here");
                return Err(wrong("version", message, Some("Alertmanager sends version 4")));
            }
            if alerts.len() > MOST_ALERTS {
                let detail = format!("the request brings {} alerts, more than {MOST_ALERTS}", alerts.len());
                return Err(ApiError::too_large(detail).hint("set `max_alerts` of the receiver"));
            }
            if truncated_alerts > 0 {
                tracing::warn!(
                    truncated_alerts,
                    "Alertmanager left out {truncated_alerts} alerts of a group"
                );
            }
            (0..).zip(alerts).map(|(index, alert)| of_alertmanager(index, alert)).collect()
        }
        Value::Object(_) => Ok(vec![one(typed(body)?)?]),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            let hint =
                "send what Alertmanager sends, or {\"name\": \"…\", \"status\": \"firing\", \"pack\": \"…\"}";
            Err(wrong("", "expected an object".to_owned(), Some(hint)))
        }
    }
}

/// Reads a type of the wire, and tells in which member it does not fit.
fn typed<T: DeserializeOwned>(body: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(body).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "" } else { &path };
        wrong(path, error.inner().to_string(), None)
    })
}

fn wrong(path: &str, message: String, hint: Option<&str>) -> ApiError {
    let detail = match path {
        "" => format!("could not read the alerts: {message}"),
        path => format!("could not read the alerts: {path}: {message}"),
    };
    let problem = FieldProblem {
        rule: None,
        severity: ProblemSeverity::Error,
        path: path.to_owned(),
        line: None,
        column: None,
        message,
        hint: hint.map(ToOwned::to_owned),
    };
    ApiError::unprocessable("alerts", detail).problems(vec![problem])
}

fn of_alertmanager(index: usize, alert: AlertmanagerAlert) -> Result<Said, ApiError> {
    let AlertmanagerAlert { status, labels, mut annotations, starts_at, generator_url, fingerprint } = alert;
    let path = format!("alerts[{index}]");
    check_labels(&format!("{path}.labels"), &labels)?;
    check_length(&format!("{path}.fingerprint"), &fingerprint)?;
    let fingerprint = if fingerprint.is_empty() { fingerprint_of(&labels) } else { fingerprint };
    let name = labels.get(NAME_LABEL).filter(|name| !name.is_empty());
    let summary = ["summary", "description", "message"].into_iter().find_map(|name| annotations.remove(name));
    Ok(Said {
        status: status.into(),
        name: name.cloned().unwrap_or_else(|| format!("alert {fingerprint}")),
        fingerprint,
        labels,
        summary: for_people(&summary.unwrap_or_default()),
        url: address(generator_url),
        since: starts_at,
        expires_in: None,
    })
}

fn one(alert: AlertRequest) -> Result<Said, ApiError> {
    let AlertRequest { name, status, pack, mut labels, reason, url, expires, fingerprint } = alert;
    if name.trim().is_empty() {
        return Err(wrong("name", "is empty".to_owned(), None));
    }
    labels.insert(NAME_LABEL.to_owned(), name.clone());
    if let Some(pack) = pack {
        labels.insert(PACK_LABELS[0].to_owned(), pack);
    }
    check_length("name", &name)?;
    check_labels("labels", &labels)?;
    let expires_in = match expires {
        None => None,
        Some(text) => {
            let hint = "a length of time such as 30m";
            let length = alert_expiry(&text);
            Some(length.map_err(|error| wrong("expires", format!("{text:?} {error}"), Some(hint)))?)
        }
    };
    if let Some(fingerprint) = &fingerprint {
        check_length("fingerprint", fingerprint)?;
    }
    let fingerprint = fingerprint.filter(|fingerprint| !fingerprint.is_empty());
    Ok(Said {
        status: status.into(),
        fingerprint: fingerprint.unwrap_or_else(|| fingerprint_of(&labels)),
        name,
        labels,
        summary: for_people(&reason),
        url: url.and_then(address),
        since: None,
        expires_in,
    })
}

fn check_labels(path: &str, labels: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if labels.len() > MOST_LABELS {
        return Err(wrong(path, format!("has {} labels, more than {MOST_LABELS}", labels.len()), None));
    }
    labels.iter().try_for_each(|(name, value)| {
        check_length(path, name)?;
        check_length(&format!("{path}.{name}"), value)
    })
}

fn check_length(path: &str, text: &str) -> Result<(), ApiError> {
    if text.len() <= LONGEST_VALUE {
        return Ok(());
    }
    Err(wrong(path, format!("has {} bytes, more than {LONGEST_VALUE}", text.len()), None))
}

/// A text on one line, cut where it is too long.
fn for_people(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LONGEST_SUMMARY {
        return line;
    }
    line.chars().take(LONGEST_SUMMARY - 1).chain(['…']).collect()
}

fn address(text: String) -> Option<String> {
    let is_web = text.starts_with("https://") || text.starts_with("http://");
    (is_web && text.len() <= LONGEST_URL && !text.contains(char::is_control)).then_some(text)
}

/// What tells an alert from others that names no fingerprint of its own.
fn fingerprint_of(labels: &BTreeMap<String, String>) -> String {
    let text = serde_json::to_vec(labels).expect("texts are JSON");
    blake3::hash(&text).to_hex()[..16].to_owned()
}

impl From<AlertStatus> for Status {
    fn from(status: AlertStatus) -> Self {
        match status {
            AlertStatus::Firing => Self::Firing,
            AlertStatus::Resolved => Self::Resolved,
        }
    }
}
