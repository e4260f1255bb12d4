//! Who may ask: the names under which a listener is asked, keys and sessions, and what each may do.
//!
//! **Invariant:** a request reaches its handler only with what the table in `access` says that it needs.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, Method, Request, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serin_core::access::Permission;
use serin_core::ids::{PackName, RolloutId};

use super::access::{self, Needs, needs};
use super::error::{ApiError, with_instance};
use crate::auth::{Auth, Caller, Holder, Unknown, Via};
use crate::clock::Clock;
use crate::settings::DataKeys;

/// Names the person or pipeline that a request is sent for.
pub const ACTOR: HeaderName = HeaderName::from_static("x-serin-actor");
/// Brings a key where `Authorization` is the provider's.
pub const KEY: HeaderName = HeaderName::from_static("x-serin-key");
/// How clients of one provider bring their key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What a listener asks of its callers.
#[derive(Debug, Clone)]
pub struct Guard {
    auth: Arc<Auth>,
    clock: Clock,
    /// The names that a request must be for; nothing where any will do.
    names: Option<Arc<[String]>>,
    plane: Plane,
    is_loopback: bool,
    /// Requests that each key may send in a minute; nothing for any number.
    per_minute: Option<NonZeroU32>,
}

/// Which listener it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plane {
    Control,
    Data {
        keys: DataKeys,
        /// Whether `Authorization` is for us, because the provider's key is ours.
        holds_provider_key: bool,
    },
}

/// How a data plane is exposed.
#[derive(Debug, Clone, Copy)]
pub struct DataExposure<'a> {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether apps need a key.
    pub keys: DataKeys,
    /// Whether requests go to the provider with a key of ours.
    pub holds_provider_key: bool,
    /// Names besides localhost under which it may be asked then.
    pub hosts: &'a [String],
}

impl Guard {
    /// The guard of the control plane.
    ///
    /// On loopback only requests for `localhost`, the address itself or one of `hosts` are answered, so that
    /// no web page that a name leads here can reach it.
    pub fn control(auth: Arc<Auth>, clock: Clock, address: SocketAddr, hosts: &[String]) -> Self {
        let is_loopback = address.ip().is_loopback();
        let names = is_loopback.then(|| names(address, hosts));
        Self { auth, clock, names, plane: Plane::Control, is_loopback, per_minute: None }
    }

    /// The guard of the data plane.
    ///
    /// Where the provider's key is ours, a page that a name leads to loopback could spend it; so the names are
    /// checked there as well.
    pub fn data(auth: Arc<Auth>, clock: Clock, exposure: DataExposure<'_>) -> Self {
        let DataExposure { address, keys, holds_provider_key, hosts } = exposure;
        let is_loopback = address.ip().is_loopback();
        let names = (is_loopback && holds_provider_key).then(|| names(address, hosts));
        let plane = Plane::Data { keys, holds_provider_key };
        Self { auth, clock, names, plane, is_loopback, per_minute: None }
    }

    /// The same guard, which lets each key send so many requests in a minute; 0 for any number.
    #[must_use]
    pub fn with_pace(self, per_minute: u32) -> Self {
        Self { per_minute: NonZeroU32::new(per_minute), ..self }
    }

    /// Whether every request can pass as it is, so that nothing needs to be asked of any.
    pub fn is_open_to_apps(&self) -> bool {
        let asks_for_keys = matches!(self.plane, Plane::Data { keys: DataKeys::Required, .. });
        self.names.is_none() && !asks_for_keys
    }

    /// Whoever sends a request, if it may have what it needs; nothing where nobody asked.
    ///
    /// # Errors
    /// [`ApiError`] with 401 or 403 tells why it may not.
    pub(super) fn admit(&self, request: &Request<Body>, needs: Needs) -> Result<Option<Caller>, ApiError> {
        let (uri, headers) = (request.uri(), request.headers());
        if let Some(names) = &self.names {
            check_names(names, uri, headers)?;
        }
        let what = match needs {
            Needs::Nothing => return Ok(None),
            Needs::ReadBeyondLoopback if self.is_loopback => return Ok(None),
            Needs::One(Permission::Data) if self.lets_apps_in() => return Ok(None),
            Needs::One(permission) => permission,
            // An order that does not exist is told to whoever may read.
            Needs::Order => last_segment(uri).and_then(Permission::parse).unwrap_or(Permission::Read),
            Needs::ReadBeyondLoopback => Permission::Read,
        };
        let caller = self.identify(headers)?;
        self.check_pace(&caller, headers)?;
        let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
        let refused =
            if caller.via.is_cookie() && !is_safe { check_same_origin(uri, headers).err() } else { None };
        let refused = refused.or_else(|| (!caller.may(what)).then(|| not_permitted(&caller, what)));
        match refused {
            None => Ok(Some(caller)),
            Some(error) => Err(self.forbidden(error)),
        }
    }

    fn check_pace(&self, caller: &Caller, headers: &HeaderMap) -> Result<(), ApiError> {
        let (Some(per_minute), Some(id)) = (self.per_minute, &caller.key) else { return Ok(()) };
        let too_fast = |wait| {
            self.auth.counts.too_many.fetch_add(1, Ordering::Relaxed);
            ApiError::too_many_requests(&caller.shown(), per_minute.get(), wait)
        };
        let now = self.clock.now();
        if caller.via == Via::Person {
            let holder = session_cookie(headers).and_then(|token| self.auth.sessions.holder(token, now));
            return match holder {
                Some(Holder::Person(signed_in)) => signed_in.pace.take(per_minute, now).map_err(too_fast),
                Some(Holder::Key(_)) | None => Ok(()),
            };
        }
        let keys = self.auth.keys.list();
        let Some(key) = keys.iter().find(|key| key.id == *id) else { return Ok(()) };
        let pace = match self.plane {
            Plane::Control => &key.on_control,
            Plane::Data { .. } => &key.on_data,
        };
        pace.take(per_minute, now).map_err(too_fast)
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let found = match self.key(headers) {
            Ok(key) => {
                let cookie = session_cookie(headers);
                let identified = self.auth.identify(key, cookie, self.clock.now());
                identified.map_err(|unknown| self.unauthorized(unknown))
            }
            Err(error) => Err(error),
        };
        found.inspect_err(|_| {
            self.auth.counts.unauthorized.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Refuses what concerns a pack outside of the caller's scope, whether or not there is such a pack.
    fn check_scope(&self, caller: &Caller, params: &RawPathParams) -> Result<(), ApiError> {
        if caller.grant.scope.packs().is_none() {
            return Ok(());
        }
        for (name, value) in params {
            let pack = match name {
                "pack" => PackName::parse(value).ok(),
                "id" => RolloutId::parse(value).ok().and_then(|id| id.pack()),
                _ => continue,
            };
            if !pack.is_some_and(|pack| caller.sees(&pack)) {
                return Err(self.forbidden(outside_of_scope(caller, value)));
            }
        }
        Ok(())
    }

    fn forbidden(&self, error: ApiError) -> ApiError {
        self.auth.counts.forbidden.fetch_add(1, Ordering::Relaxed);
        error
    }

    fn lets_apps_in(&self) -> bool {
        matches!(self.plane, Plane::Data { keys: DataKeys::Open, .. })
    }

    /// The key that a request brings.
    fn key<'h>(&self, headers: &'h HeaderMap) -> Result<Option<&'h str>, ApiError> {
        if let Some(value) = headers.get(&KEY) {
            return Ok(Some(value.to_str().unwrap_or("").trim()));
        }
        let authorization_is_ours = match self.plane {
            Plane::Control => true,
            Plane::Data { holds_provider_key, .. } => holds_provider_key,
        };
        if !authorization_is_ours {
            return Ok(None);
        }
        if let (Plane::Data { .. }, Some(value)) = (self.plane, headers.get(&X_API_KEY)) {
            return Ok(Some(value.to_str().unwrap_or("").trim()));
        }
        let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
        let key = value.to_str().ok().and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
        });
        let no_bearer = || ApiError::unauthorized("the `Authorization` header is no `Bearer KEY`");
        key.map(Some).ok_or_else(no_bearer)
    }

    fn unauthorized(&self, unknown: Unknown) -> ApiError {
        let hint = match self.plane {
            Plane::Control => {
                "send `Authorization: Bearer KEY`; the command line takes the key from --key, SERIN_KEY or the \
                 file admin.key in the data directory"
            }
            Plane::Data { holds_provider_key: true, .. } => {
                "send a key with the role data as `Authorization: Bearer KEY` or `x-serin-key`"
            }
            Plane::Data { holds_provider_key: false, .. } => {
                "send a key with the role data as `x-serin-key`; `Authorization` goes to the provider"
            }
        };
        let detail = match unknown {
            Unknown::Nothing => "the request brings no key".to_owned(),
            Unknown::Key => "the key is not known here".to_owned(),
            Unknown::Expired(at) => format!("the key was good until {at:.0}"),
            Unknown::Session => "the session is over".to_owned(),
        };
        ApiError::unauthorized(detail).hint(hint)
    }
}

/// The names under which a listener on loopback is asked.
fn names(address: SocketAddr, hosts: &[String]) -> Arc<[String]> {
    let own = ["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned(), bracketed(address)];
    own.into_iter().chain(hosts.iter().cloned()).collect()
}

/// The address without its port, as it stands in a URL.
fn bracketed(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

/// Refuses a request that names another host than this one, or comes from a page of another.
fn check_names(names: &[String], uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let hint = "ask for localhost or 127.0.0.1, or add the name to `control.hosts` or `data.hosts`";
    let is_ours = |authority: &str| {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            Some(_) | None => authority,
        };
        names.iter().any(|name| name.eq_ignore_ascii_case(host))
    };
    let host = host(uri, headers);
    if !is_ours(host) {
        let host: String = host.chars().take(80).collect();
        return Err(ApiError::forbidden(
            "host",
            format!("the request is for host {host:?}, not for this machine"),
        )
        .hint(hint));
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or("?");
        if !is_ours(authority(origin)) {
            return Err(other_page(origin).hint(hint));
        }
    }
    Ok(())
}

/// Refuses a request that a page of another origin could have sent along with the cookie.
pub(super) fn check_same_origin(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let origin = headers.get(ORIGIN).map_or("", |origin| origin.to_str().unwrap_or("?"));
    let is_same = !origin.is_empty() && authority(origin).eq_ignore_ascii_case(host(uri, headers));
    if is_same {
        return Ok(());
    }
    Err(other_page(origin)
        .hint("a session changes things from the dashboard's own page only; elsewhere use a key"))
}

fn other_page(origin: &str) -> ApiError {
    let origin: String = origin.chars().take(80).collect();
    ApiError::forbidden("origin", format!("the request comes from a page of {origin:?}"))
}

/// The host that a request is for, with its port.
fn host<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> &'r str {
    match headers.get(HOST) {
        Some(value) => value.to_str().unwrap_or("?"),
        None => uri.authority().map_or("", |authority| authority.as_str()),
    }
}

fn authority(origin: &str) -> &str {
    origin.split_once("://").map_or("", |(_, authority)| authority)
}

fn last_segment(uri: &Uri) -> Option<&str> {
    uri.path().rsplit('/').next()
}

/// The token of a session that the cookies of a request hold.
pub(super) fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(name, value)| (name == access::COOKIE).then_some(value))
}

/// 403: the key is not good for this.
pub(super) fn not_permitted(caller: &Caller, what: Permission) -> ApiError {
    let role = caller.grant.role;
    let detail = format!("{} has the role {role}, which does not bring {what}", caller.shown());
    let detail = if what == Permission::Keys && role.may(what) {
        format!("{} is for {} only, and keys reach further", caller.shown(), caller.grant.scope)
    } else {
        detail
    };
    let hint = match what {
        Permission::ReadPrompts => {
            "ask for a key made with --read-prompts, or with the role engineer or admin".to_owned()
        }
        what => format!("ask for a key with the role {}", what.roles()),
    };
    ApiError::forbidden("not-permitted", detail).hint(hint)
}

/// 403: the pack is another one.
pub(super) fn outside_of_scope(caller: &Caller, pack: &str) -> ApiError {
    let pack: String = pack.chars().take(80).collect();
    let detail = format!("{} is for {} only, not for {pack:?}", caller.shown(), caller.grant.scope);
    ApiError::forbidden("other-pack", detail).hint("ask for a key that is made for this pack too")
}

/// Lets a request through or refuses it, and names the path in whatever problem comes back.
pub(super) async fn guard(State(guard): State<Guard>, request: Request<Body>, next: Next) -> Response {
    guarded(&guard, request, |request| next.run(request)).await
}

/// Has a request answered or refuses it, and names the path in whatever problem comes back.
pub(super) async fn guarded<F: Future<Output = Response>>(
    guard: &Guard,
    request: Request<Body>,
    answer: impl FnOnce(Request<Body>) -> F,
) -> Response {
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let needs = needs(request.method(), route, &path);
    let response = match admitted(guard, request, needs).await {
        Ok(request) => answer(request).await,
        Err(refused) => refused.into_response(),
    };
    with_instance(response, &path)
}

/// The request with its caller, if it may go on.
async fn admitted(guard: &Guard, request: Request<Body>, needs: Needs) -> Result<Request<Body>, ApiError> {
    let Some(caller) = guard.admit(&request, needs)? else { return Ok(request) };
    let (mut parts, body) = request.into_parts();
    // What is read from telemetry may concern any pack.
    if parts.uri.path().starts_with("/otlp/") && caller.grant.scope.packs().is_some() {
        return Err(guard.forbidden(outside_of_scope(&caller, "all of a telemetry stream")));
    }
    // Where the router knows no path there are no parameters.
    if let Ok(params) = RawPathParams::from_request_parts(&mut parts, &()).await {
        guard.check_scope(&caller, &params)?;
    }
    parts.extensions.insert(caller);
    Ok(Request::from_parts(parts, body))
}

#[cfg(test)]
mod tests;
