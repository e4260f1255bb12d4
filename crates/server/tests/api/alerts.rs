//! Alerts of other systems over HTTP: both forms, who may send them, and what is wrong with them.

use serde_json::{Value, json};
use serin_server::api::types::{AlertList, AlertsAnswer, OncallView, RolloutView};
use serin_server::auth::ADMIN_KEY_FILE;

use crate::app::{Answer, TestApp, canary, stable};

const RULES: &str =
    "alerts:\n  rules:\n  - {match: {severity: page, service: 'chat-*'}, packs: ['support-*']}\n";

impl TestApp {
    async fn alert(&self, body: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("x-serin-actor", "monitor")];
        self.send(self.server.control_addr(), "POST", "/api/v1/alerts", &headers, body.to_string()).await
    }

    async fn rollout(&self) -> RolloutView {
        self.get("/api/v1/rollouts/support-prompts-r1").await.read()
    }
}

/// What Alertmanager sends, with what it sends besides.
fn webhook(status: &str, labels: &Value) -> Value {
    json!({
        "receiver": "serin", "status": status, "groupKey": "{}:{}", "version": "4", "truncatedAlerts": 0,
        "groupLabels": {}, "commonLabels": labels, "commonAnnotations": {}, "externalURL": "http://am:9093",
        "alerts": [{
            "status": status, "labels": labels,
            "annotations": {"summary": "5xx above 2 %\nfor ten minutes", "runbook": "x"},
            "startsAt": "2026-11-02T08:58:30Z", "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus:9090/graph?g0.expr=up", "fingerprint": "e7a0cf6b4cd2b1f6",
        }],
    })
}

#[tokio::test]
async fn an_alert_of_alertmanager_holds_what_the_settings_say_until_it_is_resolved() {
    let app = TestApp::start_with_file(RULES).await.with_canary().await;
    let labels = json!({"alertname": "HighErrors", "severity": "page", "service": "chat-eu"});
    let told: AlertsAnswer = app.alert(&webhook("firing", &labels)).await.read();
    assert_eq!((told.firing, told.holds), (1, vec!["support-prompts".to_owned()]));
    app.pass(1).await;
    let hold = app.rollout().await.holds.remove(0);
    assert_eq!(hold.reason, "HighErrors fires since 2026-11-02T08:58:30Z: 5xx above 2 % for ten minutes");
    assert!(hold.cleared_by.contains("the alert being resolved"), "{}", hold.cleared_by);
    let oncall: OncallView = app.get("/api/v1/oncall").await.read();
    assert!(format!("{oncall:?}").contains("HighErrors fires since"), "{oncall:?}");
    insta::assert_snapshot!("alerts", app.get("/api/v1/alerts").await.shown());
    let metrics = app.get("/metrics").await.text();
    assert!(metrics.contains("serin_alerts_firing 1\n"), "{metrics}");

    let told: AlertsAnswer = app.alert(&webhook("resolved", &labels)).await.read();
    assert_eq!((told.resolved, told.holds), (1, vec![]));
    app.pass(1).await;
    assert!(app.rollout().await.holds.is_empty());
    let audit = app.get("/api/v1/audit?limit=100").await.text();
    for told in ["HighErrors is resolved", "\"said_by\":\"monitor\"", "e7a0cf6b4cd2b1f6"] {
        assert!(audit.replace("\\\"", "\"").contains(told), "{told}: {audit}");
    }
}

#[tokio::test]
async fn an_alert_of_anything_else_names_its_pack_and_how_long_it_lasts() {
    let app = TestApp::start().await.with_canary().await;
    let firing = json!({
        "name": "eval score fell", "status": "firing", "pack": "support-*", "reason": "0.61, was 0.83",
        "url": "https://evals.example.com/runs/7", "expires": "2m",
    });
    let told: AlertsAnswer = app.alert(&firing).await.read();
    assert_eq!((told.firing, told.holds), (1, vec!["support-prompts".to_owned()]));
    app.pass(1).await;
    assert_eq!(app.rollout().await.holds.len(), 1);
    app.pass(120).await;
    assert!(app.rollout().await.holds.is_empty(), "it was not repeated within two minutes");
    let list: AlertList = app.get("/api/v1/alerts").await.read();
    assert_eq!(list.alerts[0].state.as_str(), "expired");

    app.alert(&firing).await;
    app.pass(1).await;
    let over = json!({"name": "eval score fell", "status": "resolved", "pack": "support-*"});
    assert_eq!(
        app.alert(&over).await.read::<AlertsAnswer>().resolved,
        1,
        "name and pack tell it from others"
    );
}

#[tokio::test]
async fn what_names_no_pack_or_comes_from_serin_itself_has_no_effect_and_that_is_said() {
    let app = TestApp::start_with_file(RULES).await.with_canary().await;
    let other = json!({"alertname": "DiskFull", "severity": "page", "service": "db"});
    let own = json!({"alertname": "SerinRollout", "pack": "support-prompts", "severity": "page"});
    for (labels, reason) in [
        (other, "it has no label serin_pack or pack, and no rule in alerts.rules fits it"),
        (own, "Serin itself sent it"),
    ] {
        let told: AlertsAnswer = app.alert(&webhook("firing", &labels)).await.read();
        assert_eq!((told.firing, told.ignored[0].reason.as_str()), (0, reason));
    }
    app.pass(1).await;
    assert!(app.rollout().await.holds.is_empty());
    assert!(app.get("/metrics").await.text().contains("serin_alerts_ignored_total 2\n"));
}

#[tokio::test]
async fn what_is_wrong_with_an_alert_is_told_with_its_place() {
    let app = TestApp::start().await.with_canary().await;
    let mut told = String::new();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = webhook("firing", &json!({"alertname": "A", "pack": "support-prompts"}));
        change(&mut body);
        body
    };
    for body in [
        json!([]),
        json!({"name": "A"}),
        json!({"name": "", "status": "firing"}),
        json!({"name": "A", "status": "firing", "packs": ["a"]}),
        json!({"name": "A", "status": "firing", "expires": "soon"}),
        json!({"name": "A", "status": "firing", "expires": "1y"}),
        with(&|body| body["version"] = json!("5")),
        with(&|body| body["alerts"] = json!("none")),
        with(&|body| body["alerts"][0]["status"] = json!("burning")),
        with(&|body| body["alerts"][0]["labels"]["severity"] = json!(7)),
        with(&|body| body["alerts"][0]["labels"]["long"] = json!("x".repeat(1_001))),
        with(&|body| body["alerts"][0]["startsAt"] = json!("yesterday")),
    ] {
        let answer = app.alert(&body).await;
        assert_eq!(answer.status, 422, "{body}");
        let problem = answer.json();
        let place = &problem["problems"][0];
        told.push_str(&format!("{} {}\n", place["path"], problem["detail"]));
    }
    insta::assert_snapshot!("alert_problems", told);
    let broken = app.send(app.server.control_addr(), "POST", "/api/v1/alerts", &[], "{").await;
    assert_eq!(broken.status, 400);
    assert!(app.get("/api/v1/alerts").await.read::<AlertList>().alerts.is_empty(), "nothing was changed");
}

#[tokio::test]
async fn a_key_of_monitoring_says_alerts_about_its_packs_and_nothing_else() {
    let app = TestApp::start_with(&[("SERIN_CONTROL_OPEN", "false")]).await;
    let admin = std::fs::read_to_string(app.data_dir().join(ADMIN_KEY_FILE)).unwrap().trim().to_owned();
    let to = app.server.control_addr();
    let send = async |key: &str, method: &str, path: &str, body: String| {
        app.send(to, method, path, &[("x-serin-key", key), ("content-type", "application/json")], body).await
    };
    for manifest in [stable(), canary()] {
        assert_eq!(send(&admin, "PUT", "/api/v1/packs", manifest).await.status, 200);
    }
    let make = async |name: &str, packs: Value| {
        let request = json!({"name": name, "role": "alerts", "packs": packs}).to_string();
        send(&admin, "POST", "/api/v1/keys", request).await.json()["key"].as_str().unwrap().to_owned()
    };
    let (ours, other) = (make("ours", Value::Null).await, make("other", json!(["billing"])).await);
    for (method, path) in [
        ("GET", "/api/v1/packs"),
        ("GET", "/api/v1/alerts"),
        ("POST", "/api/v1/packs/support-prompts/rollout/pause"),
    ] {
        assert_eq!(send(&ours, method, path, r#"{"reason": "x"}"#.to_owned()).await.status, 403, "{path}");
    }
    let alert = |status: &str| json!({"name": "A", "status": status, "pack": "*"}).to_string();
    let told: AlertsAnswer = send(&other, "POST", "/api/v1/alerts", alert("firing")).await.read();
    assert_eq!(told.holds, Vec::<String>::new(), "it may not speak of this pack");
    let told: AlertsAnswer = send(&ours, "POST", "/api/v1/alerts", alert("firing")).await.read();
    assert_eq!(told.holds, ["support-prompts"]);
    let told: AlertsAnswer = send(&other, "POST", "/api/v1/alerts", alert("resolved")).await.read();
    assert_eq!(told.resolved, 1, "its own");
    app.pass(1).await;
    let rollout: RolloutView =
        send(&admin, "GET", "/api/v1/rollouts/support-prompts-r1", String::new()).await.read();
    assert_eq!(rollout.holds.len(), 1, "nobody else ends the alert of another key");
}
