//! Whether the server is alive and ready, and its metrics.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use super::error::ApiError;
use super::types::ProblemDetails;
use crate::telemetry::{self, Sources};

/// Tells that the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "It is alive.")))]
pub(super) async fn healthz() -> Json<serde_json::Value> {
    Json(json!({"status": "ok"}))
}

/// Tells whether the packs are loaded and the store answers.
///
/// Prompts are served without the store as well: take a server that is not ready out of the control plane, not out
/// of the data plane.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses(
        (status = 200, description = "It is ready."),
        (status = 503, description = "The store does not answer.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn readyz(State(app): State<App>) -> Result<Json<serde_json::Value>, ApiError> {
    app.control.store().audit_tail().await?;
    Ok(Json(json!({"status": "ready", "packs": app.resolver().snapshot().packs.len()})))
}

/// Shows metrics in the OpenMetrics text format.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "OpenMetrics text.", content_type = "application/openmetrics-text")),
)]
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let sources = Sources {
        control: &app.control,
        ingest: &app.ingest,
        auth: &app.auth,
        connections: &app.connections,
        gateway: app.gateway.counts(),
        upstreams: app.gateway.upstreams(),
        notifier: &app.notifier,
        alerts: &app.alerts,
        oidc: app.oidc.as_deref(),
        otlp: &app.otlp,
        samples: app.samples.counts(),
        judges: app.judges.counts(),
        started_at: app.started_at,
    };
    let text = telemetry::metrics(sources).await;
    ([(CONTENT_TYPE, telemetry::OPEN_METRICS)], text).into_response()
}
