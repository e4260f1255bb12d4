//! The stream that tells clients when their flags may have other values.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::MOST_STREAMS;
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::read::Params;
use crate::api::types::{OfrepChange, ProblemDetails};
use crate::snapshot::Snapshot;

/// How often a quiet stream says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Since when changes are told.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ChangesParams {
    /// How packs were routed when the client asked for its flags; `eventStreams` names it.
    since: Option<String>,
}

/// Tells when flags may have other values: the routing of a pack has changed.
///
/// A client that comes back with a `Last-Event-ID` of before, or with a `since` of before, is told at once.
#[utoipa::path(
    get, path = "/ofrep/v1/events", tag = "data plane", params(ChangesParams),
    responses(
        (status = 200, description = "Server-sent events.", body = OfrepChange, content_type = "text/event-stream"),
        (status = 503, description = "1 000 clients listen already.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn changes(
    State(app): State<App>,
    Params(params): Params<ChangesParams>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let place = Arc::clone(&app.ofrep.streams).try_acquire_owned().map_err(|_| {
        ApiError::unavailable("too-many-streams", format!("{MOST_STREAMS} clients listen already"))
            .hint("try again, or ask for the flags from time to time")
    })?;
    let known = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let known = known.or(params.since).or_else(|| stand(&app.resolver().snapshot()));
    Ok(Sse::new(told(app, known, place)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Every change from what the client knows on, until the server stops.
fn told(
    app: App,
    known: Option<String>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((app, known, place), |(app, known, place)| async move {
        let mut stop = app.stop.clone();
        loop {
            let published = app.resolver().published();
            let now = stand(&app.resolver().snapshot());
            if let Some(now) = now
                && known.as_ref() != Some(&now)
            {
                let change = OfrepChange {
                    kind: "refetchEvaluation",
                    etag: now.clone(),
                    last_modified: app.now().as_second(),
                };
                let json = serde_json::to_string(&change).expect("text and numbers are JSON");
                let event = Event::default().id(now.clone()).data(json);
                return Some((Ok(event), (Arc::clone(&app), Some(now), place)));
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return None,
                () = published => {}
            }
        }
    })
}

/// Stands for how all packs are routed: it changes when a session may get another version than before.
///
/// Nothing while a change is being committed, which may yet come to nothing.
pub(super) fn stand(snapshot: &Snapshot) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(text.as_bytes()).update(&[0]);
    };
    for (name, pack) in &snapshot.packs {
        let route = &pack.route;
        add(name.as_str());
        add(&route.stable.to_string());
        add(if route.forced { "forced" } else { "" });
        route.draining.iter().for_each(|(version, _)| add(&version.to_string()));
        if let Some(split) = &route.split {
            add(split.rollout.as_str());
            for segment in &split.segments {
                if segment.changing.is_some() {
                    return None;
                }
                add(&segment.weight.bp().to_string());
            }
        }
    }
    Some(hasher.finalize().to_hex()[..32].to_owned())
}
