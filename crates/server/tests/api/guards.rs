//! Who may ask, and for what.

use serde_json::{Value, json};
use serin_server::auth::ADMIN_KEY_FILE;

use crate::app::{Answer, TestApp, canary, stable};

/// A server that asks for keys, and the key of its first start.
struct Locked {
    app: TestApp,
    admin: String,
}

impl Locked {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let variables: Vec<_> = [("SERIN_CONTROL_OPEN", "false")].iter().chain(variables).copied().collect();
        let app = TestApp::start_with(&variables).await;
        let admin = std::fs::read_to_string(app.data_dir().join(ADMIN_KEY_FILE)).unwrap().trim().to_owned();
        Self { app, admin }
    }

    async fn ask(&self, key: &str, method: &str, path: &str, body: &str) -> Answer {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let headers = if key.is_empty() { &headers[1..] } else { &headers[..] };
        self.app.send(self.app.server.control_addr(), method, path, headers, body.to_owned()).await
    }

    /// Makes a key and returns it.
    async fn key(&self, request: Value) -> String {
        let created = self.ask(&self.admin, "POST", "/api/v1/keys", &request.to_string()).await;
        assert_eq!(created.status, 201, "{}", created.text());
        assert_eq!(created.headers["cache-control"], "no-store");
        created.json()["key"].as_str().unwrap().to_owned()
    }

    async fn with_canary(self) -> Self {
        for manifest in [stable(), canary()] {
            assert_eq!(self.ask(&self.admin, "PUT", "/api/v1/packs", &manifest).await.status, 200);
        }
        self
    }
}

const TINY: &str = "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {name: tiny}\nspec: {version: 1.0.0}";

#[tokio::test]
async fn without_its_key_the_api_tells_nothing_and_the_log_names_the_key() {
    let locked = Locked::start(&[]).await;
    let refused = locked.ask("", "GET", "/api/v1/packs", "").await;
    insta::assert_snapshot!("no_key", refused.shown());
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    assert_eq!(locked.ask("serin_wrong", "GET", "/api/v1/packs", "").await.status, 401);
    assert_eq!(locked.ask(&locked.admin, "GET", "/api/v1/packs", "").await.status, 200);
    assert_eq!(locked.app.get("/healthz").await.status, 200);
    assert_eq!(locked.app.get("/metrics").await.status, 200, "on loopback the metrics need no key");

    let authorization = format!("Bearer {}", locked.admin);
    let headers = [("authorization", authorization.as_str()), ("x-serin-actor", "ana")];
    let to = locked.app.server.control_addr();
    let applied = locked.app.send(to, "PUT", "/api/v1/packs", &headers, TINY).await;
    assert_eq!(applied.status, 200, "{}", applied.text());
    let audit = locked.ask(&locked.admin, "GET", "/api/v1/audit?pack=tiny", "").await;
    assert_eq!(audit.json()["entries"][0]["actor"], "admin (for ana)", "a name never takes the key's place");
}

#[tokio::test]
async fn a_key_of_the_settings_still_opens_everything() {
    let app = TestApp::start_with(&[
        ("SERIN_CONTROL_OPEN", "false"),
        ("SERIN_CONTROL_KEY", "a key of some length"),
    ])
    .await;
    assert!(!app.data_dir().join(ADMIN_KEY_FILE).exists(), "somebody has a key already");
    let headers = [("authorization", "Bearer a key of some length")];
    let answer = app.send(app.server.control_addr(), "GET", "/api/v1/whoami", &headers, "").await;
    assert_eq!(
        (&answer.json()["name"], &answer.json()["role"]),
        (&json!("SERIN_CONTROL_KEY"), &json!("admin"))
    );
}

#[tokio::test]
async fn a_key_is_shown_once_listed_without_itself_and_gone_when_revoked() {
    let locked = Locked::start(&[]).await;
    let key = locked
        .key(json!({"name": "ci", "role": "engineer", "packs": ["support-prompts"], "expires_in": "90d"}))
        .await;
    assert!(key.starts_with("serin_"));
    let list = locked.ask(&locked.admin, "GET", "/api/v1/keys", "").await;
    assert!(!list.text().contains(&key) && !list.text().contains("hash"), "{}", list.text());
    let mut shown = list.json();
    for key in shown["keys"].as_array_mut().unwrap() {
        key["id"] = json!("(id)");
    }
    insta::assert_snapshot!("keys", format!("{shown:#}"));
    assert_eq!(locked.ask(&key, "GET", "/api/v1/packs", "").await.status, 200);
    let revoked = locked.ask(&locked.admin, "DELETE", "/api/v1/keys/ci?reason=left", "").await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    assert_eq!(locked.ask(&key, "GET", "/api/v1/packs", "").await.status, 401);
    let audit = locked.ask(&locked.admin, "GET", "/api/v1/audit", "").await.json();
    let told: Vec<_> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| format!("{} {} {}: {}", entry["pack"], entry["action"], entry["actor"], entry["reason"]))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    "*" "key_created" "serin": "key admin with the role admin for all packs"
    "*" "key_created" "admin": "key ci with the role engineer for support-prompts"
    "*" "key_revoked" "admin": "left"
    "#);
    assert_eq!(locked.ask(&locked.admin, "DELETE", "/api/v1/keys/admin", "").await.status, 409);
}

#[tokio::test]
async fn a_key_that_cannot_be_is_refused_with_its_reason() {
    let locked = Locked::start(&[]).await;
    locked.key(json!({"name": "ci", "role": "viewer"})).await;
    for (request, status) in [
        (json!({"name": "ci", "role": "viewer"}), 409),
        (json!({"name": "two words", "role": "viewer"}), 422),
        (json!({"name": "x", "role": "root"}), 400),
        (json!({"name": "x", "role": "viewer", "packs": []}), 422),
        (json!({"name": "x", "role": "viewer", "packs": ["No"]}), 422),
        (json!({"name": "x", "role": "viewer", "expires_in": "5"}), 422),
        (json!({"name": "x", "role": "viewer", "expires_in": "0s"}), 422),
    ] {
        let answer = locked.ask(&locked.admin, "POST", "/api/v1/keys", &request.to_string()).await;
        assert_eq!(answer.status, status, "{request}: {}", answer.text());
    }
    let answer = locked.ask(&locked.admin, "DELETE", "/api/v1/keys/nobody", "").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[tokio::test]
async fn rolling_back_takes_less_than_promoting() {
    let locked = Locked::start(&[]).await.with_canary().await;
    let engineer = locked.key(json!({"name": "writer", "role": "engineer"})).await;
    let viewer = locked.key(json!({"name": "eve", "role": "viewer"})).await;
    let order = async |key: &str, order: &str| {
        let path = format!("/api/v1/packs/support-prompts/rollout/{order}");
        locked.ask(key, "POST", &path, r#"{"reason": "because"}"#).await
    };
    for word in ["pause", "resume", "approve", "promote", "rollback", "retry"] {
        assert_eq!(order(&viewer, word).await.status, 403, "{word}");
    }
    insta::assert_snapshot!("not_permitted", order(&engineer, "promote").await.shown());
    assert_eq!(order(&engineer, "rollback").await.status, 200);
}

#[tokio::test]
async fn a_key_for_a_pack_reaches_no_other_and_sees_no_other() {
    let locked = Locked::start(&[]).await.with_canary().await;
    assert_eq!(locked.ask(&locked.admin, "PUT", "/api/v1/packs", TINY).await.status, 200);
    let tiny = locked.key(json!({"name": "tiny", "role": "admin", "packs": ["tiny"]})).await;
    insta::assert_snapshot!(
        "other_pack",
        locked.ask(&tiny, "GET", "/api/v1/packs/support-prompts", "").await.shown()
    );
    for (method, path, body) in [
        ("GET", "/api/v1/packs/support%2Dprompts", ""),
        ("GET", "/api/v1/packs/not-there", ""),
        ("GET", "/api/v1/rollouts/support-prompts-r1", ""),
        ("GET", "/api/v1/rollouts?pack=support-prompts", ""),
        ("GET", "/api/v1/audit?pack=support-prompts", ""),
        ("GET", "/api/v1/stream?pack=support-prompts", ""),
        ("POST", "/api/v1/packs/support-prompts/rollout/rollback", r#"{"reason": "x"}"#),
        ("PUT", "/api/v1/packs", &stable()),
        ("GET", "/api/v1/keys", ""),
    ] {
        let answer = locked.ask(&tiny, method, path, body).await;
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
    }
    for path in ["/api/v1/packs", "/api/v1/rollouts", "/api/v1/oncall", "/api/v1/audit"] {
        let answer = locked.ask(&tiny, "GET", path, "").await;
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains("support-prompts"), "{path}: {}", answer.text());
    }
    assert_eq!(locked.ask(&tiny, "GET", "/api/v1/packs/tiny", "").await.status, 200);
}

#[tokio::test]
async fn the_text_of_prompts_takes_a_permission_of_its_own() {
    let locked = Locked::start(&[]).await.with_canary().await;
    let operator = locked.key(json!({"name": "op", "role": "operator"})).await;
    let reader = locked.key(json!({"name": "op2", "role": "operator", "read_prompts": true})).await;
    for path in ["/versions/2.4.0", "/diff?from=2.3.1&to=2.4.0"] {
        let path = format!("/api/v1/packs/support-prompts{path}");
        assert_eq!(locked.ask(&operator, "GET", &path, "").await.status, 403, "{path}");
        assert_eq!(locked.ask(&reader, "GET", &path, "").await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_session_stands_for_its_key_until_it_is_ended() {
    let locked = Locked::start(&[]).await;
    let key = locked.key(json!({"name": "ana", "role": "operator"})).await;
    let app_key = locked.key(json!({"name": "shop", "role": "data"})).await;
    let sign_in =
        async |key: &str| locked.ask("", "POST", "/api/v1/session", &json!({"key": key}).to_string()).await;
    assert_eq!(sign_in("serin_wrong").await.status, 401);
    assert_eq!(sign_in(&app_key).await.status, 403);
    let begun = sign_in(&key).await;
    insta::assert_snapshot!("signed_in", begun.shown());
    let cookie = begun.headers["set-cookie"].to_str().unwrap().to_owned();
    let (token, attributes) = cookie.split_once(';').unwrap();
    assert_eq!(attributes, " Path=/; Max-Age=43200; HttpOnly; SameSite=Strict");
    assert!(!cookie.contains(&key));

    let to = locked.app.server.control_addr();
    let host = to.to_string();
    let origin = format!("http://{host}");
    let with = async |method: &str, path: &str, origin: Option<&str>, body: &str| {
        let mut headers = vec![("cookie", token), ("content-type", "application/json")];
        headers.extend(origin.map(|origin| ("origin", origin)));
        locked.app.send(to, method, path, &headers, body.to_owned()).await
    };
    let whoami = with("GET", "/api/v1/whoami", None, "").await;
    assert_eq!((&whoami.json()["name"], &whoami.json()["source"]), (&json!("ana"), &json!("session")));
    let order = "/api/v1/packs/nothing/rollout/pause";
    assert_eq!(with("POST", order, None, "{}").await.status, 403, "no page is named");
    assert_eq!(with("POST", order, Some("http://localhost:1"), "{}").await.status, 403, "another page");
    assert_eq!(with("POST", order, Some(&origin), "{}").await.status, 404, "there is no such pack");
    let ended = with("DELETE", "/api/v1/session", Some(&origin), "").await;
    assert_eq!(ended.status, 204);
    assert!(ended.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(with("GET", "/api/v1/whoami", None, "").await.status, 401);
}

#[tokio::test]
async fn apps_need_a_data_key_where_the_settings_say_so() {
    let locked = Locked::start(&[("SERIN_DATA_KEYS", "required"), ("SERIN_PROVIDER_API_KEY", "sk-of-serin")])
        .await
        .with_canary()
        .await;
    let app_key = locked.key(json!({"name": "shop", "role": "data"})).await;
    let scoped = locked.key(json!({"name": "tiny", "role": "data", "packs": ["tiny"]})).await;
    let to = locked.app.server.data_addr();
    let send = async |key: Option<&str>, path: &str, body: Value| {
        let authorization = key.map(|key| format!("Bearer {key}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        locked.app.send(to, "POST", path, &headers, body.to_string()).await
    };
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
    let prompted = json!({
        "model": "m", "messages": [{"role": "user", "content": "hello"}],
        "prompt": {"id": "support-prompts/support", "variables": {"company": "Acme"}},
    });
    let resolve = json!({"pack": "support-prompts", "session": "s"});
    let event = json!({"events": [{"pack": "support-prompts", "session": "s", "name": "escalation", "value": false}]});
    for (path, body) in [
        ("/v1/chat/completions", &chat),
        ("/v1/chat/completions", &prompted),
        ("/v1/resolve", &resolve),
        ("/v1/events", &event),
        ("/v1/embeddings", &chat),
    ] {
        for key in [
            None,
            Some("serin_wrong"),
            Some(locked.admin.as_str()),
            Some(app_key.as_str()),
            Some(scoped.as_str()),
        ] {
            let answer = send(key, path, body.clone()).await;
            let who = match key {
                None | Some("serin_wrong") => "nobody",
                Some(key) if key == scoped => "other pack",
                Some(_) => "app",
            };
            match (who, path) {
                ("nobody", _) => assert_eq!(answer.status, 401, "{path}: {}", answer.text()),
                ("other pack", "/v1/events") => {
                    assert_eq!(
                        (answer.status, &answer.json()["rejected"]),
                        (202, &json!(1)),
                        "{}",
                        answer.text()
                    );
                }
                ("other pack", _) => assert_eq!(answer.status, 403, "{path}: {}", answer.text()),
                (_, _) => assert!(![401, 403].contains(&answer.status), "{path}: {}", answer.text()),
            }
        }
    }
    insta::assert_snapshot!("app_without_key", send(None, "/v1/chat/completions", chat).await.shown());
    let viewer = locked.key(json!({"name": "eve", "role": "viewer"})).await;
    assert_eq!(send(Some(&viewer), "/v1/resolve", resolve).await.status, 403);
}

#[tokio::test]
async fn a_page_of_another_host_cannot_reach_the_loopback_control_plane() {
    let app = TestApp::start().await;
    let to = app.server.control_addr();
    let rebound = app.send(to, "GET", "/api/v1/packs", &[("host", "evil.example")], "").await;
    insta::assert_snapshot!("other_host", rebound.shown());
    let page = app.send(to, "GET", "/api/v1/packs", &[("origin", "https://evil.example")], "").await;
    insta::assert_snapshot!("other_origin", page.shown());
}

#[tokio::test]
async fn on_an_open_server_whoever_asks_is_anyone_and_may_do_everything() {
    let app = TestApp::start().await;
    insta::assert_snapshot!("anyone", app.get("/api/v1/whoami").await.shown());
    assert!(!app.data_dir().join(ADMIN_KEY_FILE).exists());
}

#[tokio::test]
async fn a_key_that_is_used_too_fast_waits_and_others_do_not() {
    let locked = Locked::start(&[("SERIN_CONTROL_MAX_REQUESTS_PER_MINUTE", "60")]).await;
    let key = locked.key(json!({"name": "ci", "role": "viewer"})).await;
    for _ in 0..60 {
        assert_eq!(locked.ask(&key, "GET", "/api/v1/packs", "").await.status, 200);
    }
    let refused = locked.ask(&key, "GET", "/api/v1/packs", "").await;
    assert_eq!((refused.status, &refused.headers["retry-after"]), (429, &"1".parse().unwrap()));
    insta::assert_snapshot!("too_fast", refused.shown());
    assert_eq!(locked.ask(&locked.admin, "GET", "/api/v1/packs", "").await.status, 200);
    let metrics = locked.app.get("/metrics").await.text();
    assert!(metrics.contains("auth_too_many_total 1"), "{metrics}");
    locked.app.clock.set(locked.app.clock.now() + std::time::Duration::from_secs(1));
    assert_eq!(locked.ask(&key, "GET", "/api/v1/packs", "").await.status, 200);
}
