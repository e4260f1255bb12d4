//! What goes wrong, as people read it.

use serde_json::Value;

use crate::app::{TestApp, canary, stable};

fn check(name: &str, answer: &crate::app::Answer) {
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{}", answer.text());
    assert_eq!(answer.json()["status"], answer.status);
    insta::assert_snapshot!(name, answer.shown());
}

#[tokio::test]
async fn a_manifest_that_is_no_yaml_is_told_with_its_place() {
    let app = TestApp::start().await;
    check("bad_yaml", &app.apply("apiVersion: [\nkind: PromptPack").await);
    check(
        "not_utf_8",
        &app.send(app.server.control_addr(), "PUT", "/api/v1/packs", &[], &b"kind: \xff"[..]).await,
    );
    check("empty_manifest", &app.apply("").await);
}

#[tokio::test]
async fn all_problems_of_a_manifest_are_told_at_once() {
    let app = TestApp::start().await;
    let manifest =
        stable().replace("canaryWeight: 10", "canryWeight: 10").replace("interval: 1m", "interval: 1");
    check("unknown_field", &app.apply(&manifest).await);
    let pack = stable().replace("\"system_template\"", "\"system_templat\"");
    check("bad_pack", &app.apply(&pack).await);
    assert_eq!(app.get("/api/v1/packs").await.json()["packs"], Value::Array(vec![]), "nothing has changed");
}

#[tokio::test]
async fn the_publishing_rules_refuse_with_a_way_out() {
    let app = TestApp::start().await.with_canary().await;
    let other = canary().replace("Support prompts", "Support prompts, changed");
    check("same_version_other_content", &app.apply(&other).await);
    let plan = canary().replace("stepInterval: 5m", "stepInterval: 6m");
    check("other_plan_while_active", &app.apply(&plan).await);
    let restarted = app.put("/api/v1/packs?restart=true", &plan).await;
    assert_eq!(restarted.json()["rollout"], "support-prompts-r2", "{}", restarted.text());
    let path = canary().split("inline: ").next().unwrap().to_owned() + "file: a.json\n";
    check("source_is_a_path", &app.apply(&path).await);
}

#[tokio::test]
async fn a_version_for_a_provider_that_the_settings_do_not_name_is_refused_with_a_hint() {
    let file = "providers:\n  claude: {baseUrl: 'http://127.0.0.1:9/v1'}\n";
    let app = TestApp::start_with_file(file).await;
    let naming = |provider: &str| {
        let inline = stable().find("inline: {").unwrap() + "inline: {".len();
        let mut manifest = stable();
        manifest.insert_str(inline, &format!("\"metadata\": {{\"provider\": \"{provider}\"}}, "));
        manifest
    };
    check("unknown_provider", &app.apply(&naming("cloude")).await);
    assert_eq!(app.apply(&naming("claude")).await.status, 200);
    let told = app.get("/metrics").await.text();
    assert!(told.contains("serin_provider_requests_total{provider=\"claude\"} 0"), "{told}");
}

#[tokio::test]
async fn what_is_asked_for_and_does_not_exist_is_named() {
    let app = TestApp::start().await.with_canary().await;
    check("unknown_pack", &app.get("/api/v1/packs/suport-prompts").await);
    check("unknown_version", &app.get("/api/v1/packs/support-prompts/versions/9.9.9").await);
    check("unknown_rollout", &app.get("/api/v1/rollouts/support-prompts-r9").await);
    check("unknown_order", &app.order("stop", r#"{"reason": "x"}"#).await);
    check("unknown_path", &app.get("/api/v2/packs").await);
    check("unknown_parameter", &app.get("/api/v1/rollouts?actve=true").await);
    check("limit_out_of_range", &app.get("/api/v1/rollouts?limit=0").await);
    check("wrong_method", &app.send(app.server.control_addr(), "DELETE", "/api/v1/packs", &[], "").await);
}

#[tokio::test]
async fn an_order_that_cannot_be_is_refused_and_changes_nothing() {
    let app = TestApp::start().await.with_canary().await;
    let before = app.get("/api/v1/packs/support-prompts").await.json();
    check("reason_missing", &app.order("rollback", "").await);
    check("reason_empty", &app.order("rollback", r#"{"reason": "  "}"#).await);
    check("unknown_field_in_order", &app.order("pause", r#"{"reason": "x", "ful": true}"#).await);
    check("not_json", &app.order("pause", "reason=x").await);
    check("full_belongs_to_promote", &app.order("pause", r#"{"reason": "x", "full": true}"#).await);
    check("not_paused", &app.order("resume", r#"{"reason": "x"}"#).await);
    assert_eq!(app.get("/api/v1/packs/support-prompts").await.json(), before);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let app = TestApp::start().await;
    check("manifest_too_large", &app.apply(&"#".repeat((1 << 20) + 1)).await);
}

#[tokio::test]
async fn a_store_that_is_gone_is_told_without_its_inner_words() {
    let app = TestApp::start().await.with_canary().await;
    app.server.control().store().close().await;
    check("store_gone", &app.apply(&stable().replace("2.3.1", "2.5.0")).await);
    check("not_ready", &app.get("/readyz").await);
    assert_eq!(app.get("/healthz").await.status, 200);
    let resolved =
        app.data("/v1/resolve", &serde_json::json!({"pack": "support-prompts", "session": "s"})).await;
    assert_eq!(resolved.status, 200, "prompts are served without the store");
    check("pause_without_store", &app.order("pause", r#"{"reason": "look"}"#).await);

    let back = app.order("rollback", r#"{"reason": "it swears"}"#).await;
    assert_eq!((back.status, &back.json()["recorded"]), (202, &Value::Bool(false)), "{}", back.text());
    let resolved =
        app.data("/v1/resolve", &serde_json::json!({"pack": "support-prompts", "session": "t"})).await;
    assert_eq!(resolved.json()["reason"], "DISABLED", "a rollback is in force without the store");
}
