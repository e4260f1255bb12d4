//! The page behind a signed link: one action, rollback, that works on a phone and without a script.
//!
//! Asking for the page changes nothing, so that whatever looks at links on the way does no harm; only the
//! button does. The signature of the link is the permission: no key is asked for.

use std::fmt::Write as _;

use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serin_core::audit::{Origin, Source};
use serin_core::ids::Actor;

use super::App;
use super::error::ApiError;
use crate::control::order::{Carried, OrderError};
use crate::errors::Chain;
use crate::notify::link::{BadLink, Grant, Links};
use crate::notify::picture::{Canary, when};

const STYLE: &str = "body{font:18px/1.5 system-ui,sans-serif;margin:0 auto;max-width:34rem;padding:1rem;color:#1a1a1a;background:#fff}\
h1{font-size:1.4rem}dl{margin:1rem 0}dt{color:#555;font-size:.9rem}dd{margin:0 0 .6rem;overflow-wrap:anywhere}\
button{font:inherit;font-weight:600;width:100%;padding:1rem;border:0;border-radius:.5rem;background:#b3261e;color:#fff}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#111}dt{color:#aaa}}";

/// Shows what a signed link would do; nothing is changed.
#[utoipa::path(
    get, path = "/link/{token}", tag = "link",
    params(("token" = String, Path, description = "What the link carries.")),
    responses(
        (status = 200, description = "A page with one button.", content_type = "text/html"),
        (status = 403, description = "The link was not made here, or was changed.", content_type = "text/html"),
        (status = 410, description = "There is nothing to do any more: expired, used, or the rollout is over.", content_type = "text/html"),
    ),
)]
pub(super) async fn show(State(app): State<App>, Path(token): Path<String>) -> Response {
    let grant = match permitted(&app, &token).await {
        Ok(grant) => grant,
        Err(page) => return page,
    };
    match canary(&app, &grant).await {
        Some((stable, canary)) => question(&grant, &stable, &canary, app.now()),
        None => over(&grant),
    }
}

/// Rolls back the one rollout that a signed link names.
#[utoipa::path(
    post, path = "/link/{token}", tag = "link",
    params(("token" = String, Path, description = "What the link carries.")),
    responses(
        (status = 200, description = "Everyone is back on stable.", content_type = "text/html"),
        (status = 403, description = "The link was not made here, or was changed.", content_type = "text/html"),
        (status = 410, description = "There is nothing to do any more: expired, used, or the rollout is over.", content_type = "text/html"),
        (status = 503, description = "It could not be done.", content_type = "text/html"),
    ),
)]
pub(super) async fn carry_out(State(app): State<App>, Path(token): Path<String>) -> Response {
    let grant = match permitted(&app, &token).await {
        Ok(grant) => grant,
        Err(page) => return page,
    };
    let actor = Actor::named(&format!("link to {}", grant.to)).by(Origin::without_key(Source::Link));
    let reason = format!("rolled back with the link in the message about event {}", grant.event);
    let carried = match app.control.roll_back_only(&grant.rollout, &actor, &reason).await {
        Ok(carried) => carried,
        Err(OrderError::Refused(_) | OrderError::UnknownPack(_)) => return over(&grant),
        Err(error) => {
            tracing::error!(error = %Chain(&error), rollout = %grant.rollout, "a signed link could not roll back {}: {}", grant.rollout, Chain(&error));
            let text = "It could not be done at this moment. Try again, or run serin rollback.";
            return page(StatusCode::SERVICE_UNAVAILABLE, "Not done", &format!("<p>{text}</p>"));
        }
    };
    // The rollout is over, so that the link has nothing left to do, whether its use is noted or not.
    if let Err(error) = app.control.store().use_link(&Links::id(&token), &grant.to, app.now()).await {
        tracing::warn!(error = %Chain(&error), "could not note that a link was used");
    }
    let recorded = match carried {
        Carried::Recorded => "",
        Carried::InForce => " It is in force, and is recorded as soon as the database answers.",
    };
    let rollout = escaped(grant.rollout.as_str());
    let text = format!(
        "<p>{rollout} is rolled back: everyone is on stable.{recorded}</p><p>The audit log says: {}.</p>",
        escaped(actor.as_str())
    );
    page(StatusCode::OK, "Rolled back", &text)
}

/// What a link permits, or the page that says why it permits nothing.
async fn permitted(app: &App, token: &str) -> Result<Grant, Response> {
    let grant = match app.links.read(token, app.now()) {
        Ok(grant) => grant,
        Err(BadLink::NotOurs) => {
            let text = "<p>This link was not made by this server, or it was changed or cut on the way. Nothing was done.</p>";
            return Err(page(StatusCode::FORBIDDEN, "This link is not valid", text));
        }
        Err(BadLink::Expired(grant)) => {
            let text = format!(
                "<p>It worked until {}. Nothing was done.</p><p>Run <code>serin oncall</code> to see what is in canary.</p>",
                when(grant.until)
            );
            return Err(page(StatusCode::GONE, "This link has expired", &text));
        }
    };
    match app.control.store().link_used_at(&Links::id(token)).await {
        Ok(Some(at)) => {
            let text = format!("<p>It rolled back {} on {}.</p>", escaped(grant.rollout.as_str()), when(at));
            Err(page(StatusCode::GONE, "This link was used already", &text))
        }
        Ok(None) => Ok(grant),
        // A rollback does not wait for the store; a link that was used finds no rollout under way.
        Err(_) => Ok(grant),
    }
}

/// The rollout of a link, if it is under way, with its stable version.
async fn canary(app: &App, grant: &Grant) -> Option<(String, Canary)> {
    for pack in app.control.names().await {
        let (state, _, _) = app.control.standing(&pack).await?;
        let Some((rollout, active)) = state.active() else { continue };
        if rollout.id == grant.rollout {
            return Some((rollout.stable.to_string(), Canary::of(&pack, rollout, active)));
        }
    }
    None
}

fn question(grant: &Grant, stable: &str, canary: &Canary, now: jiff::Timestamp) -> Response {
    let (pack, version) = (escaped(canary.pack.as_str()), escaped(&canary.version));
    let stable = escaped(stable);
    let mut text = format!(
        "<p>Every session of {pack} goes back to <strong>{stable}</strong> at once, and {version} gets nobody new.</p><dl>"
    );
    let mut fact = |name: &str, value: &str| {
        let _ = write!(text, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
    };
    fact("In canary now", &canary.line(now));
    for (cause, hold) in &canary.holds {
        fact("On hold", &format!("{cause} since {}: {}", when(hold.since), hold.reason));
    }
    fact("This link", &format!("was sent to {} and works once, until {}", grant.to, when(grant.until)));
    let _ = write!(
        text,
        "</dl><form method=\"post\"><button type=\"submit\">Roll back {pack} to {stable}</button></form>"
    );
    page(StatusCode::OK, &format!("Roll back {pack} {version}?"), &text)
}

fn over(grant: &Grant) -> Response {
    let text = format!(
        "<p>The rollout {} is over; there is nothing to roll back with this link.</p>\
         <p>Run <code>serin oncall</code> to see how it ended.</p>",
        escaped(grant.rollout.as_str())
    );
    page(StatusCode::GONE, "Nothing to do", &text)
}

/// A page; the title and the text are HTML already.
pub(super) fn page(status: StatusCode, title: &str, text: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1>{text}</main></body></html>"
    );
    let style = ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes());
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        STANDARD.encode(style.as_ref())
    );
    let Ok(policy) = HeaderValue::from_str(&policy) else {
        return ApiError::internal(&std::fmt::Error).into_response();
    };
    let fixed = |text: &'static str| HeaderValue::from_static(text);
    let headers = [
        (CONTENT_TYPE, fixed("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy),
        // The address is the permission: it goes into no cache and to no other site.
        (CACHE_CONTROL, fixed("no-store")),
        (REFERRER_POLICY, fixed("same-origin")),
        (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
    ];
    (status, headers, html).into_response()
}

/// A text as HTML shows it.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
