//! Who may ask: keys, and the names under which a loopback listener is asked.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Request, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serin_core::ids::Actor;

use super::error::{ApiError, with_instance};
use crate::settings::ControlKey;

/// Names the person or pipeline behind a request.
pub const ACTOR: HeaderName = HeaderName::from_static("x-serin-actor");

/// What a listener asks of its callers.
#[derive(Debug, Clone)]
pub struct Guard {
    keys: Arc<[ControlKey]>,
    loopback: Option<Arc<[String]>>,
    protects: Protects,
}

/// What of a listener needs a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protects {
    /// The API, and beyond loopback the metrics.
    Api { metrics: bool },
    /// Nothing but the metrics, and those beyond loopback only.
    Metrics { metrics: bool },
}

/// The key that a request came with.
#[derive(Debug, Clone)]
struct KeyName(String);

impl Guard {
    /// The guard of the control plane.
    ///
    /// On loopback only requests for `localhost`, the address itself or one of `hosts` are answered, so that
    /// no web page that a name leads here can reach it.
    pub fn control(address: SocketAddr, keys: &[ControlKey], hosts: &[String]) -> Self {
        let is_loopback = address.ip().is_loopback();
        let own = ["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned(), bracketed(address)];
        let names: Vec<String> = own.into_iter().chain(hosts.iter().cloned()).collect();
        Self {
            keys: keys.into(),
            loopback: is_loopback.then(|| names.into()),
            protects: Protects::Api { metrics: !is_loopback },
        }
    }

    /// The guard of the data plane, which needs a key for nothing but its metrics.
    pub fn data(address: SocketAddr, keys: &[ControlKey]) -> Self {
        let metrics = !address.ip().is_loopback();
        Self { keys: keys.into(), loopback: None, protects: Protects::Metrics { metrics } }
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<Option<KeyName>, ApiError> {
        if let Some(names) = &self.loopback {
            check_names(names, uri, headers)?;
        }
        let needs_key = match (self.protects, uri.path()) {
            (Protects::Api { metrics } | Protects::Metrics { metrics }, "/metrics") => metrics,
            (Protects::Api { .. }, path) => path.starts_with("/api/") && !self.keys.is_empty(),
            (Protects::Metrics { .. }, _) => false,
        };
        if !needs_key {
            return Ok(None);
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err(ApiError::unauthorized("the request brings no key"));
        };
        let given = value.to_str().ok().and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
        });
        let Some(given) = given else {
            return Err(ApiError::unauthorized("the `Authorization` header is no `Bearer KEY`"));
        };
        // Hashes are compared in constant time, and every key is looked at.
        let given = blake3::hash(given.as_bytes());
        let mut found = None;
        for key in self.keys.iter() {
            if key.hash == given {
                found = Some(KeyName(key.name.clone()));
            }
        }
        found.map(Some).ok_or_else(|| ApiError::unauthorized("the key is not known here"))
    }
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
    let hint = "ask for localhost or 127.0.0.1, or add the name to `control.hosts`";
    let is_ours = |authority: &str| {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            Some(_) | None => authority,
        };
        names.iter().any(|name| name.eq_ignore_ascii_case(host))
    };
    let host = match headers.get(HOST) {
        Some(value) => value.to_str().unwrap_or("?"),
        None => uri.authority().map_or("", |authority| authority.as_str()),
    };
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
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        if !is_ours(authority) {
            let origin: String = origin.chars().take(80).collect();
            return Err(ApiError::forbidden(
                "origin",
                format!("the request comes from a page of {origin:?}"),
            )
            .hint(hint));
        }
    }
    Ok(())
}

/// Lets a request through or refuses it, and names the path in whatever problem comes back.
pub(super) async fn guard(State(guard): State<Guard>, mut request: Request<Body>, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = match guard.check(request.uri(), request.headers()) {
        Ok(key) => {
            if let Some(key) = key {
                request.extensions_mut().insert(key);
            }
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    };
    with_instance(response, &path)
}

/// Whoever sent a request: the name of the key, the name that the caller gives, or both.
pub(super) struct By(pub(super) Actor);

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let key = parts.extensions.get::<KeyName>().map(|KeyName(name)| name.as_str());
        let given = match parts.headers.get(ACTOR) {
            None => None,
            Some(value) => Some(
                std::str::from_utf8(value.as_bytes())
                    .map_err(|_| ApiError::bad_request("actor", format!("header {ACTOR} is no UTF-8")))?,
            ),
        };
        Ok(Self(match (given, key) {
            (Some(given), Some(key)) => Actor::named(&format!("{given} (key {key})")),
            (Some(given), None) => Actor::named(given),
            (None, Some(key)) => Actor::named(key),
            (None, None) => Actor::named("unknown"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(guard: &Guard, path: &str, headers: &[(&'static str, &str)]) -> Result<Option<String>, u16> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        match guard.check(&path.parse().unwrap(), &headers) {
            Ok(key) => Ok(key.map(|KeyName(name)| name)),
            Err(error) => Err(error.into_response().status().as_u16()),
        }
    }

    fn key(name: &str, secret: &str) -> ControlKey {
        ControlKey { name: name.to_owned(), hash: blake3::hash(secret.as_bytes()) }
    }

    #[test]
    fn loopback_answers_only_to_its_own_names() {
        let guard = Guard::control("127.0.0.1:8981".parse().unwrap(), &[], &["serin.test".to_owned()]);
        for host in ["localhost", "localhost:8981", "127.0.0.1:8981", "[::1]:1", "[::1]", "SERIN.test:80"] {
            assert_eq!(checked(&guard, "/api/v1/packs", &[("host", host)]), Ok(None), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""] {
            assert_eq!(checked(&guard, "/healthz", &[("host", host)]), Err(403), "{host}");
        }
        let from = |origin| checked(&guard, "/api/v1/packs", &[("host", "localhost"), ("origin", origin)]);
        assert_eq!(from("http://localhost:8981"), Ok(None));
        assert_eq!(from("https://evil.example"), Err(403));
        assert_eq!(from("null"), Err(403));
    }

    #[test]
    fn beyond_loopback_the_api_and_the_metrics_need_a_known_key() {
        let keys = [key("ci", "a secret of some length"), key("ana", "another secret")];
        let guard = Guard::control("0.0.0.0:8981".parse().unwrap(), &keys, &[]);
        assert_eq!(checked(&guard, "/healthz", &[]), Ok(None));
        for path in ["/api/v1/packs", "/api/openapi.json", "/metrics"] {
            assert_eq!(checked(&guard, path, &[]), Err(401), "{path}");
            assert_eq!(checked(&guard, path, &[("authorization", "Bearer wrong")]), Err(401), "{path}");
            assert_eq!(
                checked(&guard, path, &[("authorization", "Basic another secret")]),
                Err(401),
                "{path}"
            );
            let right = checked(&guard, path, &[("authorization", "bearer another secret")]);
            assert_eq!(right, Ok(Some("ana".to_owned())), "{path}");
        }
        let data = Guard::data("0.0.0.0:8980".parse().unwrap(), &keys);
        assert_eq!(checked(&data, "/v1/resolve", &[]), Ok(None));
        assert_eq!(checked(&data, "/metrics", &[]), Err(401));
    }

    #[test]
    fn the_metrics_of_a_data_plane_beyond_loopback_are_closed_when_there_is_no_key() {
        let data = Guard::data("0.0.0.0:8980".parse().unwrap(), &[]);
        assert_eq!(checked(&data, "/metrics", &[("authorization", "Bearer any")]), Err(401));
    }
}
