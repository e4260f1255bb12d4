//! Rules of the policy, as those meet them who apply manifests.

use serde_json::{Value, json};
use serin_server::api::types::PackDetail;

use crate::app::{Answer, TestApp};

const RULES: &str = "policy:\n\
    - {name: careful-start, packs: ['support-*'], maxFirstWeight: 5%}\n\
    - {name: judged, requiredGates: [success_rate]}\n";

/// A manifest of a version that starts at `percent`, with a gate or without.
fn manifest(version: &str, percent: u8, has_gate: bool) -> String {
    let gate = json!({"name": "success_rate", "threshold": "90%", "comparison": ">="});
    let gates: Vec<Value> = if has_gate { vec![gate] } else { Vec::new() };
    json!({
        "apiVersion": "omnia.altairalabs.ai/v1alpha1", "kind": "PromptPack",
        "metadata": {"name": "support-prompts"},
        "spec": {"version": version, "rollout": {"canaryWeight": percent, "analysis": {"metrics": gates}}},
    })
    .to_string()
}

async fn with_stable() -> TestApp {
    let app = TestApp::start_with_file(RULES).await;
    let first = app.apply(&manifest("1.0.0", 5, true)).await;
    assert_eq!(first.status, 200, "{}", first.text());
    app
}

async fn pack(app: &TestApp) -> PackDetail {
    app.get("/api/v1/packs/support-prompts").await.read()
}

async fn override_with(app: &TestApp, reason: &str, manifest: &str) -> Answer {
    app.put(&format!("/api/v1/packs?overridePolicy={}", reason.replace(' ', "%20")), manifest).await
}

/// Makes a key; the server is open, and a key that is shown counts all the same.
async fn key(app: &TestApp, name: &str, role: &str) -> String {
    let request = json!({"name": name, "role": role}).to_string();
    let headers = [("content-type", "application/json")];
    let made = app.send(app.server.control_addr(), "POST", "/api/v1/keys", &headers, request).await;
    assert_eq!(made.status, 201, "{}", made.text());
    format!("Bearer {}", made.json()["key"].as_str().unwrap())
}

async fn with_key(app: &TestApp, key: &str, method: &str, path: &str, body: &str) -> Answer {
    let headers = [("authorization", key), ("content-type", "application/json")];
    app.send(app.server.control_addr(), method, path, &headers, body.to_owned()).await
}

async fn order_with(app: &TestApp, key: &str, order: &str, body: &Value) -> Answer {
    let path = format!("/api/v1/packs/support-prompts/rollout/{order}");
    with_key(app, key, "POST", &path, &body.to_string()).await
}

/// The entries of the audit log of an action, oldest first.
async fn audited(app: &TestApp, action: &str) -> Vec<Value> {
    let log = app.get("/api/v1/audit?limit=1000").await.json();
    let entries = log["entries"].as_array().unwrap().iter();
    entries.filter(|entry| entry["action"] == action).cloned().collect()
}

#[tokio::test]
async fn max_first_weight_and_required_gates_refuse_a_manifest_by_the_names_of_the_rules() {
    let app = with_stable().await;
    let revision = pack(&app).await.revision;
    insta::assert_snapshot!("refused", app.apply(&manifest("2.0.0", 10, false)).await.shown());
    assert_eq!(app.put("/api/v1/packs?dryRun=true", &manifest("2.0.0", 10, false)).await.status, 422);
    assert_eq!(pack(&app).await.revision, revision, "nothing was changed");
    assert_eq!(app.apply(&manifest("2.0.0", 5, true)).await.status, 200);
}

#[tokio::test]
async fn each_use_of_an_override_is_recorded_with_rules_actor_and_reason_and_shown() {
    let app = with_stable().await;
    let started = override_with(&app, "the fix cannot wait", &manifest("2.0.0", 50, true)).await;
    assert_eq!(started.status, 200, "{}", started.text());
    assert!(
        started.json()["warnings"].to_string().contains("careful-start is set aside"),
        "{}",
        started.text()
    );
    let shown = pack(&app).await.rollout.unwrap().overridden;
    assert_eq!((shown[0].actor.as_str(), shown[0].reason.as_str()), ("ana", "the fix cannot wait"));
    assert_eq!(shown[0].rules, ["careful-start"]);

    app.order("rollback", r#"{"reason": "no"}"#).await;
    let kept = override_with(&app, "for the next try", &manifest("2.0.0", 60, true)).await;
    assert_eq!(kept.json()["outcome"], "plan_kept", "{}", kept.text());
    let entries = audited(&app, "policy_overridden").await;
    let told: Vec<&Value> = entries.iter().map(|entry| &entry["reason"]).collect();
    assert_eq!(told, ["careful-start: the fix cannot wait", "careful-start: for the next try"]);
    assert_eq!(entries[0]["actor"], "ana");
    assert_eq!(entries[0]["rollout"], "support-prompts-r1");
    assert_eq!(entries[0]["evidence"]["violations"][0]["rule"], "careful-start");
}

#[tokio::test]
async fn an_override_that_sets_nothing_aside_is_none_and_one_without_a_reason_is_refused() {
    let app = with_stable().await;
    assert_eq!(override_with(&app, "", &manifest("2.0.0", 50, true)).await.status, 400);
    assert_eq!(override_with(&app, "just in case", &manifest("2.0.0", 5, true)).await.status, 200);
    assert_eq!(audited(&app, "policy_overridden").await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_log_tells_which_policy_was_in_force() {
    let app = with_stable().await;
    app.apply(&manifest("2.0.0", 5, true)).await;
    let policy = app.get("/api/v1/policy").await.json();
    assert_eq!(policy["rules"][1], json!({"name": "judged", "requiredGates": ["success_rate"]}));
    for action in ["version_published", "rollout_started"] {
        for entry in audited(&app, action).await {
            assert_eq!(entry["evidence"]["policy"], policy["digest"], "{action}");
        }
    }
    let without = TestApp::start().await;
    let policy = without.get("/api/v1/policy").await.json();
    assert_eq!((&policy["digest"], &policy["rules"]), (&json!(null), &json!([])));
}

#[tokio::test]
async fn no_rule_stands_in_the_way_of_going_back() {
    let app = with_stable().await;
    override_with(&app, "now", &manifest("2.0.0", 50, true)).await;
    // What is stable applied again is a rollback, whatever its block says; so is an earlier version after completion.
    let reverted = app.apply(&manifest("1.0.0", 80, false)).await;
    assert_eq!(reverted.json()["outcome"], "rolled_back", "{}", reverted.text());
    let refused = app.order("retry", r#"{"reason": "again"}"#).await;
    assert_eq!(refused.status, 403, "what is tried again goes forward: {}", refused.text());
    let again = app.order("retry", r#"{"reason": "again", "override_policy": "now"}"#).await;
    assert_eq!(again.status, 200, "{}", again.text());
    app.order("promote", r#"{"reason": "sure", "full": true}"#).await;
    let reverted = app.apply(&manifest("1.0.0", 80, false)).await;
    assert_eq!(reverted.json()["outcome"], "immediate", "{}", reverted.text());
    assert_eq!(pack(&app).await.stable, "1.0.0");
}

const PEOPLE: &str = "policy:\n\
    - {name: two-eyes, approvals: {before: 50%}}\n\
    - {name: release, promoteFully: {roles: [admin], keys: [release-bot]}}\n";

/// A manifest that reaches 60 % with its second step.
fn quick(version: &str) -> String {
    json!({
        "apiVersion": "omnia.altairalabs.ai/v1alpha1", "kind": "PromptPack",
        "metadata": {"name": "support-prompts"},
        "spec": {"version": version, "rollout": {"steps": [
            {"weight": 10, "hold": "5m"}, {"weight": 60, "hold": "5m"}, {"weight": 100, "hold": "5m"}]}},
    })
    .to_string()
}

#[tokio::test]
async fn nobody_approves_what_they_applied_and_another_key_does() {
    let app = TestApp::start_with_file(PEOPLE).await;
    let (ana, jo) = (key(&app, "ana", "admin").await, key(&app, "jo", "operator").await);
    for version in ["1.0.0", "2.0.0"] {
        assert_eq!(with_key(&app, &ana, "PUT", "/api/v1/packs", &quick(version)).await.status, 200);
    }
    let steps = pack(&app).await.rollout.unwrap().steps;
    assert_eq!(steps.iter().map(|step| step.approval).collect::<Vec<_>>(), [true, false, false]);
    let own = order_with(&app, &ana, "approve", &json!({"reason": "looks good"})).await;
    insta::assert_snapshot!("own_approval", own.shown());
    let past = order_with(&app, &jo, "promote", &json!({"reason": "go on"})).await;
    assert_eq!(
        (past.status, &past.json()["problems"][0]["rule"]),
        (403, &json!("two-eyes")),
        "{}",
        past.text()
    );

    let approved = order_with(&app, &jo, "approve", &json!({"reason": "read ten samples"})).await;
    assert_eq!(approved.status, 200, "{}", approved.text());
    let progress = pack(&app).await.rollout.unwrap().progress.unwrap();
    assert_eq!(
        (progress.approved, progress.approvals_needed, progress.approved_by),
        (true, 1, vec!["jo".to_owned()])
    );
    assert_eq!(order_with(&app, &jo, "promote", &json!({"reason": "go on"})).await.status, 200);
}

#[tokio::test]
async fn promote_fully_is_refused_by_the_name_of_the_rule_to_whoever_it_does_not_name() {
    let rules = "policy:\n- {name: release, promoteFully: {roles: [admin], keys: [release-bot]}}\n";
    let app = TestApp::start_with_file(rules).await;
    for version in ["1.0.0", "2.0.0"] {
        assert_eq!(app.apply(&quick(version)).await.status, 200);
    }
    let (jo, bot) = (key(&app, "jo", "operator").await, key(&app, "release-bot", "operator").await);
    let full = json!({"reason": "sure", "full": true});
    insta::assert_snapshot!("promote_fully", order_with(&app, &jo, "promote", &full).await.shown());
    let overriding = json!({"reason": "sure", "full": true, "override_policy": "it is late"});
    let refused = order_with(&app, &jo, "promote", &overriding).await;
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (403, &json!("urn:serin:problem:not-permitted")),
        "{}",
        refused.text()
    );
    assert_eq!(order_with(&app, &bot, "promote", &full).await.status, 200);
    assert_eq!(pack(&app).await.stable, "2.0.0");
}

#[tokio::test]
async fn an_admin_sets_a_rule_about_orders_aside_and_it_is_recorded() {
    let app = TestApp::start_with_file(PEOPLE).await;
    let ana = key(&app, "ana", "admin").await;
    for version in ["1.0.0", "2.0.0"] {
        assert_eq!(with_key(&app, &ana, "PUT", "/api/v1/packs", &quick(version)).await.status, 200);
    }
    let full = json!({"reason": "sure", "full": true, "override_policy": "jo is on a plane"});
    assert_eq!(order_with(&app, &ana, "promote", &full).await.status, 200);
    let entries = audited(&app, "policy_overridden").await;
    assert_eq!(entries[0]["reason"], "two-eyes: jo is on a plane");
    assert_eq!((&entries[0]["actor"], &entries[0]["rollout"]), (&json!("ana"), &json!("support-prompts-r1")));
    assert_eq!(pack(&app).await.rollout.unwrap().overridden[0].rules, ["two-eyes"]);
}

#[tokio::test]
async fn an_immediate_rollout_and_a_retry_are_held_against_the_rules_too() {
    let app = TestApp::start_with_file(PEOPLE).await;
    let eng = key(&app, "eng", "engineer").await;
    assert_eq!(app.apply(&quick("1.0.0")).await.status, 200);
    let immediate = quick("2.0.0").replace("\"rollout\":{", "\"rollout\":{\"strategy\":\"immediate\",");
    let refused = with_key(&app, &eng, "PUT", "/api/v1/packs", &immediate).await;
    let rules: Vec<Value> =
        refused.json()["problems"].as_array().unwrap().iter().map(|p| p["rule"].clone()).collect();
    assert_eq!(
        (refused.status, rules),
        (422, vec![json!("two-eyes"), json!("release")]),
        "{}",
        refused.text()
    );
    assert_eq!(pack(&app).await.stable, "1.0.0");
}

#[tokio::test]
async fn freeze_holds_a_rollout_tells_when_it_ends_and_refuses_what_moves_on() {
    // The server starts at 09:00.
    let app = TestApp::start_with_file("policy:\n- {name: lunch, freeze: ['09:10-13:00 UTC']}\n").await;
    for version in ["1.0.0", "2.0.0"] {
        assert_eq!(app.apply(&quick(version)).await.status, 200);
    }
    app.pass(10 * 60 + 1).await;
    let rollout = pack(&app).await.rollout.unwrap();
    let hold = rollout.holds.iter().find(|hold| hold.cause.as_str() == "frozen").unwrap();
    assert_eq!(hold.reason, "the rule lunch freezes 09:10-13:00 UTC; it ends at 2026-11-02T13:00:00Z");
    let explained = app.get("/api/v1/packs/support-prompts/explain?session=s").await;
    assert_eq!(explained.status, 200, "{}", explained.text());

    let promote = app.order("promote", r#"{"reason": "go on"}"#).await;
    assert_eq!(
        (promote.status, &promote.json()["problems"][0]["rule"]),
        (403, &json!("lunch")),
        "{}",
        promote.text()
    );
    let superseding = app.apply(&quick("3.0.0")).await;
    assert_eq!(
        (superseding.status, &superseding.json()["problems"][0]["rule"]),
        (422, &json!("lunch")),
        "{}",
        superseding.text()
    );
    assert_eq!(override_with(&app, "a fix", &quick("3.0.0")).await.json()["outcome"], "superseded");
    assert_eq!(app.order("rollback", r#"{"reason": "no"}"#).await.status, 200);
    let replayed = app.get("/api/v1/rollouts/support-prompts-r1/replay").await.json();
    assert_eq!(replayed["differences"], json!([]), "{replayed}");
}
