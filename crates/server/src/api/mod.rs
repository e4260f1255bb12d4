//! The HTTP interface: the control plane under `/api/v1`, and what the data plane adds to the gateway.
//!
//! Every path is described by `/api/openapi.json`, and every error is a problem detail of RFC 9457.

mod access;
mod alerts;
mod audit;
mod audit_proof;
mod caller;
pub mod error;
pub mod events;
mod explain;
mod exposure;
pub mod guard;
mod health;
mod judged;
mod keys;
mod link;
pub mod listen;
mod missing;
mod notify;
pub mod ofrep;
mod oidc;
mod orders;
pub mod otlp;
mod overview;
mod packs;
mod policy;
mod read;
mod recent;
mod resolve;
mod rollouts;
mod samples;
mod session;
mod touched;
pub mod types;
pub(crate) mod view;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use serin_core::access::Permission;
use serin_core::units::HoldFor;
use tokio::sync::watch;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::access::Needs;
use self::error::ApiError;
use self::guard::{Guard, guard, guarded};
use self::listen::ListenCounts;
pub use self::recent::Recent;
use crate::alerts::Alerts;
use crate::auth::Auth;
use crate::control::Control;
use crate::dashboard;
use crate::gateway::{Gateway, Ids, Protocol};
use crate::ingest::{IngestCounts, Reporter};
use crate::judge::Judges;
use crate::notify::Notifier;
use crate::notify::link::Links;
use crate::oidc::Oidc;
use crate::otlp::Otlp;
use crate::resolve::Resolver;
use crate::samples::Samples;

/// Everything that answering a request needs.
#[derive(Debug)]
pub struct Parts {
    /// What is counted of connections.
    pub connections: Arc<ListenCounts>,
    /// The control side.
    pub control: Arc<Control>,
    /// Keys and sessions.
    pub auth: Arc<Auth>,
    /// Whether cookies are for encrypted connections only.
    pub secure_cookies: bool,
    /// What the gateway asks of apps; nothing where every request can pass.
    pub gateway_guard: Option<Guard>,
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// The way of reported events to the store.
    pub reporter: Reporter,
    /// What the ingest counts.
    pub ingest: Arc<IngestCounts>,
    /// Tells people what happened.
    pub notifier: Arc<Notifier>,
    /// Signs people in; nothing where the settings name nobody who would.
    pub oidc: Option<Arc<Oidc>>,
    /// Alerts of other systems.
    pub alerts: Arc<Alerts>,
    /// Reads signed links.
    pub links: Arc<Links>,
    /// Conversation samples.
    pub samples: Arc<Samples>,
    /// Asks judges about them.
    pub judges: Arc<Judges>,
    /// Where new ids come from.
    pub ids: Ids,
    /// What evaluating flags needs besides the packs.
    pub ofrep: ofrep::Ofrep,
    /// What is known of the telemetry that apps send.
    pub otlp: Otlp,
    /// How long observations are kept.
    pub retention: HoldFor,
    /// When the server started.
    pub started_at: Timestamp,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
    /// What was read of packs a moment ago.
    pub recent: Recent,
}

/// Shared by all requests.
type App = Arc<Parts>;

impl Parts {
    fn resolver(&self) -> &Resolver {
        self.control.resolver()
    }

    fn now(&self) -> Timestamp {
        self.resolver().clock.now()
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Serin",
    description = "Progressive delivery for LLM prompts. Paths under /api/v1 belong to the control plane, those under /v1 to the data plane; health and metrics are on both.",
    license(name = "Apache-2.0", identifier = "Apache-2.0"),
))]
struct Description;

fn health_routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

fn control_routes() -> OpenApiRouter<App> {
    let v1 = OpenApiRouter::default()
        .routes(routes!(packs::apply, packs::list))
        .routes(routes!(overview::overview))
        .routes(routes!(packs::get))
        .routes(routes!(packs::sessions))
        .routes(routes!(packs::versions))
        .routes(routes!(packs::get_version))
        .routes(routes!(packs::diff))
        .routes(routes!(rollouts::of_pack))
        .routes(routes!(orders::order))
        .routes(routes!(explain::explain))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::get))
        .routes(routes!(rollouts::checks))
        .routes(routes!(rollouts::timeline))
        .routes(routes!(exposure::exposure))
        .routes(routes!(exposure::exposed_sessions))
        .routes(routes!(rollouts::metric_series))
        .routes(routes!(rollouts::replay))
        .routes(routes!(samples::of_rollout))
        .routes(routes!(samples::of_pack))
        .routes(routes!(policy::policy))
        .routes(routes!(audit::oncall))
        .routes(routes!(audit::log))
        .routes(routes!(audit_proof::verify))
        .routes(routes!(audit_proof::export))
        .routes(routes!(audit::stream))
        .routes(routes!(notify::receivers))
        .routes(routes!(notify::test))
        .routes(routes!(notify::dead))
        .routes(routes!(notify::retry_dead))
        .routes(routes!(alerts::list, alerts::take))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(session::begin, session::end, session::ways))
        .routes(routes!(session::whoami));
    OpenApiRouter::with_openapi(Description::openapi())
        .nest("/api/v1", v1)
        .routes(routes!(link::show, link::carry_out))
        .routes(routes!(oidc::begin))
        .routes(routes!(oidc::finish))
}

fn data_routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(resolve::resolve))
        .routes(routes!(events::events))
        .routes(routes!(ofrep::flag))
        .routes(routes!(ofrep::flags))
        .routes(routes!(ofrep::changes))
        .routes(routes!(otlp::traces))
        .routes(routes!(otlp::logs))
}

/// The description of both planes.
pub fn openapi() -> OpenApi {
    let mut openapi = control_routes().merge(data_routes()).merge(health_routes()).into_openapi();
    access::describe(&mut openapi);
    openapi
}

/// The control plane.
pub fn control_plane(parts: Arc<Parts>, checks: Guard) -> Router {
    let (routes, _) = control_routes().merge(health_routes()).split_for_parts();
    let description = Bytes::from(serde_json::to_vec(&openapi()).expect("a description is JSON"));
    let json = [(CONTENT_TYPE, "application/json")];
    let described = axum::routing::get(move || std::future::ready((json, description.clone())));
    routes
        .route("/api/openapi.json", described)
        .fallback(dashboard_or_unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(checks, guard))
        .with_state(parts)
}

/// The data plane: what Serin answers itself, and the gateway for everything else.
pub fn data_plane(parts: Arc<Parts>, checks: Guard) -> Router {
    let (routes, _) = data_routes().merge(health_routes()).split_for_parts();
    // The layer is cloned for each request: behind one pointer that counts once, and not each part of the guard.
    let guarding = Arc::new((checks, Arc::clone(&parts)));
    routes
        // What these protocols have besides is none of a provider's business.
        .route("/ofrep/{*rest}", axum::routing::any(async |uri: Uri| unknown_path(&uri)))
        .route("/otlp/{*rest}", axum::routing::any(otlp::elsewhere))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(guarding, guard_data))
        .fallback(gateway)
        .with_state(parts)
}

/// Guards the data plane, and tells browsers what they ask about flags: in one layer, since each costs a tenth of a
/// small request.
async fn guard_data(
    State(guarding): State<Arc<(Guard, App)>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let (checks, app) = &*guarding;
    guarded(checks, request, |request| ofrep::cors(app, request, next)).await
}

async fn gateway(State(app): State<App>, mut request: Request<Body>) -> Response {
    if let Some(guard) = &app.gateway_guard {
        match guard.admit(&request, Needs::One(Permission::Data)) {
            Ok(None) => {}
            Ok(Some(caller)) => {
                request.extensions_mut().insert(caller);
            }
            Err(error) => {
                let protocol = Protocol::of(request.method(), request.uri().path());
                return error.refusal().into_response(protocol);
            }
        }
    }
    app.gateway.handle(request).await
}

/// The dashboard has every path that the API has not.
async fn dashboard_or_unknown(request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    match dashboard::answer(&parts.method, parts.uri.path(), &parts.headers) {
        Some(response) => response,
        None => unknown_path(&parts.uri),
    }
}

fn unknown_path(uri: &Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::not_found("unknown-path", format!("there is nothing at {path}"))
        .hint("`/api/openapi.json` describes every path")
        .into_response()
}

async fn wrong_method(method: Method) -> Response {
    ApiError::method_not_allowed(method.as_str()).into_response()
}
