//! Signing in to the dashboard at an identity provider: there, and back.
//!
//! What a browser sees when something goes wrong is a page that says what, and how to get in all the same.

use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, COOKIE as COOKIES, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::App;
use super::error::ApiError;
use super::link::{escaped, page};
use super::session::session_cookie_of;
use crate::auth::random;
use crate::oidc::{ATTEMPT_LASTS, Oidc, Returned, SignInError};

/// What ties an answer to the browser that began the sign-in.
const COOKIE: &str = "serin_signin";

/// Sends the browser to the identity provider, to sign in there.
#[utoipa::path(
    get, path = "/oidc/sign-in", tag = "session",
    responses(
        (status = 303, description = "To the identity provider."),
        (status = 404, description = "The settings name no identity provider.", content_type = "text/html"),
        (status = 502, description = "What the identity provider says about itself cannot be used.", content_type = "text/html"),
        (status = 503, description = "The identity provider does not answer.", content_type = "text/html"),
    ),
)]
pub(super) async fn begin(State(app): State<App>) -> Response {
    let Some(oidc) = &app.oidc else { return not_set_up() };
    match oidc.begin(app.now()).await {
        Ok(begun) => {
            let cookie = cookie(&app, &begun.browser, ATTEMPT_LASTS.as_std().as_secs());
            see_other(&begun.go_to, [cookie].into())
        }
        Err(error) => refused(&app, oidc, &error),
    }
}

/// Takes the answer of the identity provider, and begins a session for whoever it signed in.
#[utoipa::path(
    get, path = "/oidc/callback", tag = "session",
    params(
        ("state" = Option<String>, Query, description = "Names the sign-in."),
        ("code" = Option<String>, Query, description = "What the tokens are exchanged for."),
        ("error" = Option<String>, Query, description = "Why there is no code."),
    ),
    responses(
        (status = 303, description = "To the dashboard, with the cookie of a session."),
        (status = 400, description = "The sign-in is over, or another browser began it.", content_type = "text/html"),
        (status = 403, description = "The identity provider signed nobody in, or the person has no role here.", content_type = "text/html"),
        (status = 404, description = "The settings name no identity provider.", content_type = "text/html"),
        (status = 502, description = "What the identity provider answered is not accepted.", content_type = "text/html"),
        (status = 503, description = "The identity provider does not answer.", content_type = "text/html"),
    ),
)]
pub(super) async fn finish(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(oidc) = &app.oidc else { return not_set_up() };
    let browser = headers
        .get_all(COOKIES)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value));
    let now = app.now();
    match oidc.finish(returned(query.as_deref().unwrap_or_default()), browser, now).await {
        Ok(person) => {
            tracing::info!(name = person.name, id = person.id, role = %person.grant.role, "{} signed in", person.name);
            let lasts = oidc.settings().session_lasts;
            let token = app.auth.sessions.begin_person(person, random(), lasts, now);
            let session = session_cookie_of(&app, &token, lasts.as_std().as_secs());
            see_other("/", [session, cookie(&app, "", 0)].into())
        }
        Err(error) => refused(&app, oidc, &error),
    }
}

/// Reads the query that a provider adds; what is not ours is passed over.
fn returned(query: &str) -> Returned {
    let mut returned = Returned::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = value.into_owned();
        match &*name {
            "state" => returned.state = value,
            "code" => returned.code = Some(value),
            "error" => returned.error = Some(value),
            "error_description" => returned.error_description = Some(value),
            "iss" => returned.issuer = Some(value),
            _ => {}
        }
    }
    returned
}

fn see_other(to: &str, cookies: Vec<HeaderValue>) -> Response {
    let Ok(to) = HeaderValue::from_str(to) else {
        return ApiError::internal(&std::fmt::Error).into_response();
    };
    let mut response = (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// A cookie that comes back with the answer of the provider, which is a request from another site.
fn cookie(app: &App, browser: &str, seconds: u64) -> HeaderValue {
    let secure = if app.secure_cookies { "; Secure" } else { "" };
    let text = format!("{COOKIE}={browser}; Path=/oidc; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).expect("letters, digits and attributes are a header")
}

fn not_set_up() -> Response {
    let text = "<p>The settings of this server name no identity provider under <code>oidc</code>.</p>\
                <p><a href=\"/\">Sign in with a key</a></p>";
    page(StatusCode::NOT_FOUND, "Nobody to sign in with", text)
}

/// The page that says why nobody is signed in.
fn refused(app: &App, oidc: &Oidc, error: &SignInError) -> Response {
    let (status, title, hint) = match error {
        SignInError::Unreachable { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The identity provider does not answer",
            "Try again in a moment. Signing in with a key works meanwhile.",
        ),
        SignInError::Discovery { .. } => (
            StatusCode::BAD_GATEWAY,
            "The identity provider cannot be used",
            "Whoever runs this server should compare oidc.issuer in its settings, to the letter, with what the provider calls itself.",
        ),
        SignInError::NotUnderWay | SignInError::OtherBrowser => (
            StatusCode::BAD_REQUEST,
            "Begin again",
            "Nobody was signed in. Begin a new sign-in in this browser.",
        ),
        SignInError::Denied { .. } => (
            StatusCode::FORBIDDEN,
            "Not signed in",
            "Nobody was signed in. Begin again, or ask whoever runs the identity provider.",
        ),
        SignInError::CodeRefused { .. } => (
            StatusCode::BAD_GATEWAY,
            "Not signed in",
            "Begin again. If it stays so, whoever runs this server should check oidc.clientId, the secret, and that the provider knows the redirect address.",
        ),
        SignInError::OtherIssuer { .. } | SignInError::Token { .. } => (
            StatusCode::BAD_GATEWAY,
            "Not signed in",
            "Begin again. If it stays so, whoever runs this server should check oidc.clientId and the clocks of both machines.",
        ),
        SignInError::NoRole { .. } => (
            StatusCode::FORBIDDEN,
            "No role here",
            "Ask whoever runs this server for a role, or the identity provider for a group that has one.",
        ),
    };
    tracing::warn!(%error, "nobody signed in: {error}");
    let again = if error.is_for_want_of_a_role() {
        String::new()
    } else {
        let label = escaped(&oidc.settings().label);
        format!("<p><a href=\"{}\">Sign in with {label}</a></p>", crate::oidc::BEGIN_PATH)
    };
    let text = format!(
        "<p>{}.</p><p>{hint}</p>{again}<p><a href=\"/\">Sign in with a key</a></p>",
        escaped(&error.to_string())
    );
    let mut response = page(status, title, &text);
    response.headers_mut().append(SET_COOKIE, cookie(app, "", 0));
    response
}
