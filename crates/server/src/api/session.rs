//! Signing in to the dashboard, signing out, and asking who one is.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serin_core::access::Permission;

use super::App;
use super::access::COOKIE;
use super::caller::Asker;
use super::error::ApiError;
use super::guard::{check_same_origin, session_cookie};
use super::keys::packs;
use super::read::{NoParams, Params, SMALL_BODY, json};
use super::types::{CallerSource, ProblemDetails, SessionRequest, SignInProvider, SignInView, WhoamiView};
use crate::auth::{Caller, SESSION_LASTS, Unknown, Via, random};
use crate::oidc::BEGIN_PATH;

/// Begins a session: the answer sets a cookie that stands for the key from then on.
///
/// The cookie is out of reach for scripts, goes to this host only, and is good for twelve hours. What changes
/// something is taken with it from pages of this host only.
#[utoipa::path(
    post, path = "/session", tag = "session", request_body = SessionRequest,
    responses(
        (status = 200, description = "Who that is, as `GET /whoami` tells it.", body = WhoamiView),
        (status = 400, description = "The request cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "The key is not known or no longer good.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "The key is one of an app, or the request comes from another page.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 256 KiB.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn begin(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    check_page(&uri, &headers)?;
    let request: SessionRequest = json(&headers, body, SMALL_BODY).await?;
    let now = app.now();
    let key = app.auth.keys.find(request.key.trim(), now).map_err(|unknown| {
        app.auth.counts.unauthorized.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ApiError::unauthorized(match unknown {
            Unknown::Expired(at) => format!("the key was good until {at:.0}"),
            Unknown::Nothing | Unknown::Key | Unknown::Session => "the key is not known here".to_owned(),
        })
        .hint("an admin makes keys with `serin key create`; the first one is in admin.key in the data directory")
    })?;
    if !key.grant.may(Permission::Read) {
        return Err(ApiError::forbidden("not-permitted", "the key is one of an app")
            .hint(format!("sign in with a key with the role {}", Permission::Read.roles())));
    }
    let token = app.auth.sessions.begin(&key.id, random(), now);
    let caller = Caller {
        name: Some(key.name.clone()),
        key: Some(key.id.clone()),
        grant: key.grant.clone(),
        via: Via::Session,
    };
    let cookie = session_cookie_of(&app, &token, SESSION_LASTS.as_std().as_secs());
    let headers = [(SET_COOKIE, cookie), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((headers, Json(view(&caller))).into_response())
}

/// Tells how one can sign in besides with a key; whoever asks needs none.
#[utoipa::path(
    get, path = "/session", tag = "session",
    responses((status = 200, description = "The ways to sign in.", body = SignInView)),
)]
pub(super) async fn ways(State(app): State<App>, _: Params<NoParams>) -> Json<SignInView> {
    let oidc = app
        .oidc
        .as_ref()
        .map(|oidc| SignInProvider { label: oidc.settings().label.clone(), path: BEGIN_PATH.to_owned() });
    Json(SignInView { oidc })
}

/// Ends a session.
#[utoipa::path(
    delete, path = "/session", tag = "session",
    responses(
        (status = 204, description = "There is no session any more."),
        (status = 403, description = "The request comes from another page.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn end(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
    _: Params<NoParams>,
) -> Result<Response, ApiError> {
    check_page(&uri, &headers)?;
    if let Some(token) = session_cookie(&headers) {
        app.auth.sessions.end(token);
    }
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, session_cookie_of(&app, "", 0))]).into_response())
}

/// Tells who asks, and what they may do.
#[utoipa::path(
    get, path = "/whoami", tag = "session",
    responses((status = 200, description = "Who asks.", body = WhoamiView)),
)]
pub(super) async fn whoami(Asker(caller): Asker, _: Params<NoParams>) -> Result<Json<WhoamiView>, ApiError> {
    Ok(Json(view(&caller)))
}

/// Pages of other hosts neither sign anybody in nor out; programs name no page.
fn check_page(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(ORIGIN) { check_same_origin(uri, headers) } else { Ok(()) }
}

/// The cookie that stands for a session.
pub(super) fn session_cookie_of(app: &App, token: &str, seconds: u64) -> HeaderValue {
    let secure = if app.secure_cookies { "; Secure" } else { "" };
    let text = format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(text).expect("letters, digits and attributes are a header")
}

fn view(caller: &Caller) -> WhoamiView {
    WhoamiView {
        name: caller.name.clone().unwrap_or_else(|| "anyone".to_owned()),
        role: caller.grant.role.into(),
        packs: packs(&caller.grant.scope),
        source: match caller.via {
            Via::Key => CallerSource::Key,
            Via::Session => CallerSource::Session,
            Via::Person => CallerSource::Person,
            Via::Open => CallerSource::Open,
        },
        may: caller.grant.permissions().into_iter().map(Into::into).collect(),
    }
}
