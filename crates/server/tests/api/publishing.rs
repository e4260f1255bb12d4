//! The publishing rules, as a pipeline meets them.

use serde_json::{Value, json};
use serin_server::api::types::{AppliedView, PackDetail, RolloutList};

use crate::app::{Answer, TestApp};

/// A manifest of a version whose prompts say `text`.
fn manifest(version: &str, text: &str, rollout: Value) -> String {
    let prompts = json!({
        "id": "support-prompts", "name": "Support", "version": version,
        "template_engine": {"version": "v1", "syntax": "{{variable}}"},
        "prompts": {"answer": {"id": "answer", "name": "Answer", "version": version, "system_template": text}},
    });
    json!({
        "apiVersion": "omnia.altairalabs.ai/v1alpha1", "kind": "PromptPack",
        "metadata": {"name": "support-prompts"},
        "spec": {"version": version, "source": {"inline": prompts}, "rollout": rollout},
    })
    .to_string()
}

fn plain(version: &str) -> String {
    manifest(version, &format!("You are {version}."), json!({"canaryWeight": 10}))
}

async fn with_canary() -> TestApp {
    let app = TestApp::start().await;
    assert_eq!(outcome(&app.apply(&plain("1.0.0")).await), "first_stable");
    assert_eq!(outcome(&app.apply(&plain("2.0.0")).await), "started");
    app
}

fn outcome(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["outcome"].as_str().unwrap().to_owned()
}

async fn pack(app: &TestApp) -> PackDetail {
    app.get("/api/v1/packs/support-prompts").await.read()
}

/// Every attempt, oldest first: kind, versions and how it ended.
async fn attempts(app: &TestApp) -> Vec<String> {
    let list: RolloutList = app.get("/api/v1/rollouts").await.read();
    let told = list.rollouts.iter().rev().map(|rollout| {
        let end = rollout.end.as_ref().map_or("under way", |end| end.how.as_str());
        format!("{} {} -> {}: {end}", rollout.kind.as_str(), rollout.stable, rollout.canary)
    });
    told.collect()
}

#[tokio::test]
async fn the_same_version_again_changes_nothing_also_after_it_was_rolled_back() {
    let app = with_canary().await;
    let revision = pack(&app).await.revision;
    assert_eq!(outcome(&app.apply(&plain("2.0.0")).await), "unchanged");
    assert_eq!(pack(&app).await.revision, revision);
    app.order("rollback", r#"{"reason": "no"}"#).await;
    let again: AppliedView = app.apply(&plain("2.0.0")).await.read();
    assert_eq!(again.message, "version 2.0.0 was rolled back; `serin retry support-prompts` tries it again");
    app.order("retry", r#"{"reason": "fixed upstream"}"#).await;
    assert_eq!(
        attempts(&app).await,
        ["canary 1.0.0 -> 2.0.0: rolled back by order", "canary 1.0.0 -> 2.0.0: under way"]
    );
}

#[tokio::test]
async fn a_published_version_never_changes_its_content() {
    let app = with_canary().await;
    let other = manifest("2.0.0", "You are somebody else.", json!({"canaryWeight": 10}));
    let refused = app.apply(&other).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(
        refused.json()["diff"][0]["path"].as_str().unwrap().contains("system_template"),
        "{}",
        refused.text()
    );
}

#[tokio::test]
async fn another_rollout_block_waits_for_the_next_attempt_or_restarts_on_request() {
    let app = with_canary().await;
    let edited = manifest("2.0.0", "You are 2.0.0.", json!({"canaryWeight": 20}));
    let refused = app.apply(&edited).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.json()["hint"].as_str().unwrap().contains("apply --restart"), "{}", refused.text());
    assert_eq!(pack(&app).await.rollout.unwrap().weight, 10.0);

    assert_eq!(outcome(&app.put("/api/v1/packs?restart=true", &edited).await), "superseded");
    let rollout = pack(&app).await.rollout.unwrap();
    assert_eq!((rollout.id.as_str(), rollout.weight), ("support-prompts-r2", 20.0));
    assert_eq!(rollout.progress.unwrap().step, 0);

    app.order("rollback", r#"{"reason": "no"}"#).await;
    assert_eq!(outcome(&app.apply(&plain("2.0.0")).await), "plan_kept");
    app.order("retry", r#"{"reason": "again"}"#).await;
    assert_eq!(pack(&app).await.rollout.unwrap().weight, 10.0, "the block that was kept");
}

#[tokio::test]
async fn stable_applied_again_brings_everyone_back_as_a_git_revert_does() {
    let app = with_canary().await;
    assert_eq!(outcome(&app.apply(&plain("1.0.0")).await), "rolled_back");
    assert_eq!(attempts(&app).await, ["canary 1.0.0 -> 2.0.0: rolled back by applying stable again"]);
}

#[tokio::test]
async fn an_earlier_stable_version_comes_back_at_once_or_as_a_canary() {
    let app = with_canary().await;
    app.order("promote", r#"{"reason": "sure", "full": true}"#).await;
    assert_eq!(outcome(&app.apply(&plain("1.0.0")).await), "immediate");
    assert_eq!(attempts(&app).await, ["canary 1.0.0 -> 2.0.0: completed", "undo 2.0.0 -> 1.0.0: completed"]);
    let careful = manifest("2.0.0", "You are 2.0.0.", json!({"canaryWeight": 10, "onRevert": "canary"}));
    assert_eq!(outcome(&app.apply(&careful).await), "started");
}

#[tokio::test]
async fn a_rollback_after_completion_is_an_attempt_of_its_own() {
    let app = with_canary().await;
    app.order("promote", r#"{"reason": "sure", "full": true}"#).await;
    app.order("rollback", r#"{"reason": "not so sure"}"#).await;
    let after = pack(&app).await;
    assert_eq!((after.stable.as_str(), after.rollout.unwrap().id.as_str()), ("1.0.0", "support-prompts-r2"));
    assert_eq!(attempts(&app).await, ["canary 1.0.0 -> 2.0.0: completed", "undo 2.0.0 -> 1.0.0: completed"]);
}

#[tokio::test]
async fn another_version_takes_the_place_of_the_canary_and_begins_at_step_0() {
    let app = with_canary().await;
    app.order("promote", r#"{"reason": "go on"}"#).await;
    assert_eq!(outcome(&app.apply(&plain("3.0.0")).await), "superseded");
    let rollout = pack(&app).await.rollout.unwrap();
    assert_eq!((rollout.canary.as_str(), rollout.progress.unwrap().step), ("3.0.0", 0));
    assert_eq!(
        attempts(&app).await,
        ["canary 1.0.0 -> 2.0.0: superseded", "canary 1.0.0 -> 3.0.0: under way"]
    );
}
