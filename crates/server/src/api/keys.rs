//! Making, listing and revoking keys.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;
use serin_core::access::{Grant, Permission, Scope};
use serin_core::ids::PackName;
use serin_core::units::{HoldFor, Timestamp};
use utoipa::IntoParams;

use super::App;
use super::caller::By;
use super::error::ApiError;
use super::read::{NoParams, Params, SMALL_BODY, json};
use super::types::{KeyCreated, KeyList, KeyRequest, KeyView, ProblemDetails};
use crate::auth::{KeyInfo, NewKey, random};

/// Lists all keys; none of them is shown itself.
#[utoipa::path(get, path = "/keys", tag = "keys", responses((status = 200, description = "By name.", body = KeyList)))]
pub(super) async fn list(State(app): State<App>, _: Params<NoParams>) -> Result<Json<KeyList>, ApiError> {
    let now = app.now();
    let keys = app.auth.keys.list();
    Ok(Json(KeyList { keys: keys.iter().map(|key| view(key, now)).collect() }))
}

/// Makes a key, which is shown this once.
#[utoipa::path(
    post, path = "/keys", tag = "keys", request_body = KeyRequest,
    responses(
        (status = 201, description = "The key.", body = KeyCreated),
        (status = 400, description = "The request cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken, or there are too many keys.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 256 KiB.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A key cannot have this name, these packs or this end.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create(
    State(app): State<App>,
    By(actor): By,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, [(HeaderName, &'static str); 1], Json<KeyCreated>), ApiError> {
    let request: KeyRequest = json(&headers, body, SMALL_BODY).await?;
    let now = app.now();
    let new = new_key(&request, now)?;
    let (info, key) = app.auth.keys.create(new, &actor, random(), now).await?;
    let created = KeyCreated { key, info: view(&info, now) };
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(created)))
}

fn new_key(request: &KeyRequest, now: Timestamp) -> Result<NewKey, ApiError> {
    let unusable = |detail: String| ApiError::unprocessable("key", detail);
    let scope = match &request.packs {
        None => Scope::All,
        Some(names) => {
            let packs: Result<BTreeSet<_>, _> = names.iter().map(|name| PackName::parse(name)).collect();
            Scope::Packs(packs.map_err(|error| unusable(error.to_string()))?)
        }
    };
    let expires_at = match &request.expires_in {
        None => None,
        Some(text) => {
            let length = HoldFor::parse(text).map_err(|error| unusable(format!("expires_in: {error}")))?;
            Some(length.after(now))
        }
    };
    let grant = Grant { role: request.role.into(), read_prompts: request.read_prompts, scope };
    Ok(NewKey::new(&request.name, grant, expires_at, now)?)
}

/// Why a key is revoked.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RevokeParams {
    /// Why, for the audit log.
    #[serde(default)]
    reason: Option<String>,
}

/// Revokes a key at once, with every session that it began.
#[utoipa::path(
    delete, path = "/keys/{key}", tag = "keys",
    params(("key" = String, Path, description = "The name or the id of the key."), RevokeParams),
    responses(
        (status = 200, description = "The key that is good for nothing now.", body = KeyView),
        (status = 404, description = "There is no such key.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "It stands in the settings, or nobody could make keys without it.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn revoke(
    State(app): State<App>,
    By(actor): By,
    Path(key): Path<String>,
    Params(params): Params<RevokeParams>,
) -> Result<Json<KeyView>, ApiError> {
    let reason = params.reason.unwrap_or_default();
    let reason = if reason.trim().is_empty() { "the key was revoked" } else { reason.trim() };
    let now = app.now();
    let reason: String = reason.chars().take(super::orders::LONGEST_REASON).collect();
    let revoked = app.auth.keys.revoke(&key, &actor, &reason, now).await?;
    Ok(Json(view(&revoked, now)))
}

fn view(key: &KeyInfo, now: Timestamp) -> KeyView {
    let (created_at, created_by) = key.made.clone().unzip();
    KeyView {
        id: key.id.clone(),
        name: key.name.clone(),
        role: key.grant.role.into(),
        packs: packs(&key.grant.scope),
        read_prompts: key.grant.may(Permission::ReadPrompts),
        created_at,
        created_by,
        expires_at: key.expires_at,
        expired: key.expires_at.is_some_and(|at| at <= now),
        last_used_at: key.last_used(),
        from_settings: key.is_of_settings(),
    }
}

/// The packs of a scope as the wire has them; absent for all.
pub(super) fn packs(scope: &Scope) -> Option<Vec<String>> {
    scope.packs().map(|packs| packs.iter().map(ToString::to_string).collect())
}
