use axum::http::StatusCode;
use serin_core::access::{Grant, Role, Scope};

use super::*;
use crate::auth::{KeyRing, SettingsKey, hash_of};
use crate::clock::ManualClock;
use crate::store::Store;

const ADMIN: &str = "a secret of some length";
const VIEWER: &str = "another secret of some length";
const APP: &str = "the secret of an app";

struct Place {
    auth: Arc<Auth>,
    clock: Clock,
    _dir: tempfile::TempDir,
}

impl Place {
    async fn new(open: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("serin.db")).await.unwrap();
        let key = |name: &str, secret: &str, role: Role, scope: Scope| SettingsKey {
            name: name.to_owned(),
            hash: hash_of(secret),
            grant: Grant { role, read_prompts: false, scope },
        };
        let support = Scope::Packs([PackName::parse("support").unwrap()].into());
        let keys = [
            key("ana", ADMIN, Role::Admin, Scope::All),
            key("eve", VIEWER, Role::Viewer, support),
            key("app", APP, Role::Data, Scope::All),
        ];
        let auth = Auth::new(KeyRing::load(store, &keys).await.unwrap(), open);
        let clock = Clock::Manual(ManualClock::at("2026-11-02T09:00:00Z".parse().unwrap()));
        Self { auth, clock, _dir: dir }
    }

    fn control(&self, address: &str) -> Guard {
        let hosts = ["serin.test".to_owned()];
        Guard::control(Arc::clone(&self.auth), self.clock.clone(), address.parse().unwrap(), &hosts)
    }

    fn data(&self, address: &str, keys: DataKeys, holds_provider_key: bool) -> Guard {
        let address = address.parse().unwrap();
        let exposure = DataExposure { address, keys, holds_provider_key, hosts: &[] };
        Guard::data(Arc::clone(&self.auth), self.clock.clone(), exposure)
    }
}

/// The name of the caller, `-` for nobody, or the status of the refusal.
fn checked(guard: &Guard, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let needs = needs(request.method(), Some(path), path);
    match guard.admit(&request, needs) {
        Ok(None) => "-".to_owned(),
        Ok(Some(caller)) => caller.name.unwrap_or_else(|| "anyone".to_owned()),
        Err(error) => error.into_response().status().as_u16().to_string(),
    }
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

#[tokio::test]
async fn loopback_answers_only_to_its_own_names() {
    let place = Place::new(true).await;
    let guard = place.control("127.0.0.1:8981");
    for host in ["localhost", "localhost:8981", "127.0.0.1:8981", "[::1]:1", "[::1]", "SERIN.test:80"] {
        assert_eq!(checked(&guard, "GET", "/api/v1/packs", &[("host", host)]), "anyone", "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""] {
        assert_eq!(checked(&guard, "GET", "/healthz", &[("host", host)]), "403", "{host}");
    }
    let from = |origin| checked(&guard, "GET", "/api/v1/packs", &[("host", "localhost"), ("origin", origin)]);
    assert_eq!(from("http://localhost:8981"), "anyone");
    assert_eq!(from("https://evil.example"), "403");
    assert_eq!(from("null"), "403");
}

#[tokio::test]
async fn without_a_key_only_health_is_told_and_beyond_loopback_not_even_the_metrics() {
    let place = Place::new(false).await;
    for (address, metrics) in [("127.0.0.1:8981", "-"), ("0.0.0.0:8981", "401")] {
        let guard = place.control(address);
        let with = |path: &str, authorization: &str| {
            let headers = [("host", "localhost"), ("authorization", authorization)];
            let headers = if authorization.is_empty() { &headers[..1] } else { &headers[..] };
            checked(&guard, "GET", path, headers)
        };
        assert_eq!(with("/healthz", ""), "-");
        assert_eq!(with("/metrics", ""), metrics);
        for path in ["/api/v1/packs", "/api/openapi.json", "/api/v1/oncall"] {
            assert_eq!(with(path, ""), "401", "{path}");
            assert_eq!(with(path, "Bearer wrong"), "401", "{path}");
            assert_eq!(with(path, &format!("Basic {ADMIN}")), "401", "{path}");
            assert_eq!(with(path, &format!("bearer {ADMIN}")), "ana", "{path}");
            assert_eq!(with(path, &bearer(APP)), "403", "an app has no business here: {path}");
        }
    }
}

#[tokio::test]
async fn a_role_reaches_as_far_as_its_permissions() {
    let place = Place::new(false).await;
    let guard = place.control("0.0.0.0:8981");
    let with = |method, path, key| checked(&guard, method, path, &[("authorization", &bearer(key))]);
    assert_eq!(with("GET", "/api/v1/packs", VIEWER), "eve");
    assert_eq!(with("HEAD", "/api/v1/packs", VIEWER), "eve");
    assert_eq!(with("PUT", "/api/v1/packs", VIEWER), "403");
    assert_eq!(with("GET", "/api/v1/keys", VIEWER), "403");
    assert_eq!(with("GET", "/api/v1/keys", ADMIN), "ana");
    let unlisted = needs(&Method::GET, Some("/api/v1/new"), "/api/v1/new");
    assert_eq!(unlisted, Needs::One(Permission::Keys), "what is not in the table is for admins");
}

#[tokio::test]
async fn an_order_needs_the_permission_of_its_name() {
    let place = Place::new(false).await;
    let guard = place.control("0.0.0.0:8981");
    let order = |order: &str, key: &str| {
        let request = Request::builder()
            .method("POST")
            .uri(format!("/api/v1/packs/support/rollout/{order}"))
            .header("authorization", bearer(key))
            .body(Body::empty())
            .unwrap();
        guard.admit(&request, Needs::Order).map_err(|error| error.into_response().status())
    };
    assert_eq!(order("promote", VIEWER).unwrap_err(), StatusCode::FORBIDDEN);
    assert!(order("promote", ADMIN).is_ok());
    assert!(order("explode", VIEWER).is_ok(), "that there is no such order is told by the handler");
}

#[tokio::test]
async fn the_data_plane_asks_for_keys_where_it_is_told_to() {
    let place = Place::new(false).await;
    let with = |guard: &Guard, headers: &[(&str, &str)]| checked(guard, "POST", "/v1/resolve", headers);
    let open = place.data("127.0.0.1:8980", DataKeys::Open, false);
    assert_eq!(with(&open, &[("host", "any.example")]), "-");
    assert!(open.is_open_to_apps());
    for holds in [false, true] {
        let guard = place.data("0.0.0.0:8980", DataKeys::Required, holds);
        assert!(!guard.is_open_to_apps());
        assert_eq!(with(&guard, &[]), "401");
        assert_eq!(with(&guard, &[("x-serin-key", APP)]), "app");
        assert_eq!(with(&guard, &[("x-serin-key", VIEWER)]), "403");
        assert_eq!(with(&guard, &[("x-serin-key", ADMIN)]), "ana");
        assert_eq!(checked(&guard, "GET", "/healthz", &[]), "-");
        assert_eq!(checked(&guard, "GET", "/metrics", &[("x-serin-key", VIEWER)]), "eve");
        let ours = if holds { "app" } else { "401" };
        assert_eq!(with(&guard, &[("authorization", &bearer(APP))]), ours, "the provider's otherwise");
        assert_eq!(with(&guard, &[("x-api-key", APP)]), ours);
    }
}

#[tokio::test]
async fn a_page_cannot_spend_the_key_of_the_provider() {
    let place = Place::new(false).await;
    let guard = place.data("127.0.0.1:8980", DataKeys::Open, true);
    let from = |host: &str, origin: Option<&str>| {
        let mut headers = vec![("host", host)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        checked(&guard, "POST", "/v1/resolve", &headers)
    };
    assert_eq!(from("127.0.0.1:8980", None), "-");
    assert_eq!(from("localhost:8980", Some("http://localhost:3000")), "-");
    assert_eq!(from("evil.example", None), "403");
    assert_eq!(from("127.0.0.1:8980", Some("https://evil.example")), "403");
}

#[tokio::test]
async fn a_session_changes_things_from_its_own_page_only() {
    let place = Place::new(false).await;
    let guard = place.control("0.0.0.0:8981");
    let id = place.auth.keys.find(ADMIN, place.clock.now()).unwrap().id.clone();
    let token = place.auth.sessions.begin(&id, [3; 32], place.clock.now());
    let cookie = format!("theme=dark; serin_session={token}");
    let with = |method: &str, origin: Option<&str>| {
        let mut headers = vec![("host", "serin.example:8981"), ("cookie", cookie.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        checked(&guard, method, "/api/v1/packs", &headers)
    };
    assert_eq!(with("GET", None), "ana");
    assert_eq!(with("PUT", Some("https://serin.example:8981")), "ana");
    for other in [None, Some("https://evil.example"), Some("null"), Some("https://serin.example:9000")] {
        assert_eq!(with("PUT", other), "403", "{other:?}");
    }
}
