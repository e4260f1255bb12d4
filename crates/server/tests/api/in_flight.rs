//! Conversations in flight: what a rollback, a promotion and the end of a session do to them, and who saw the canary.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use serin_core::ids::Version;
use serin_core::units::HoldFor;
use serin_server::api::types::{
    AuditPage, DrainingView, ExposedPage, ExposureView, PackDetail, ResolveResponse, RolloutList,
    SessionsView,
};

use crate::app::{TestApp, canary, stable};

/// The manifest of the canary with another rule for conversations in flight.
fn canary_with(sessions: &str) -> String {
    let manifest = canary();
    assert!(manifest.contains("  rollout:\n"), "{manifest}");
    manifest.replace("  rollout:\n", &format!("  rollout:\n    sessions: {sessions}\n"))
}

async fn resolve(app: &TestApp, session: &str) -> ResolveResponse {
    app.data("/v1/resolve", &json!({"pack": "support-prompts", "session": session})).await.read()
}

/// Sixty sessions, and which of them got the canary.
async fn sessions(app: &TestApp) -> Vec<String> {
    let mut canaries = Vec::new();
    for n in 0..60 {
        let session = format!("session-{n}");
        if resolve(app, &session).await.version == "2.4.0" {
            canaries.push(session);
        }
    }
    assert!((2..30).contains(&canaries.len()), "{canaries:?}");
    assert!(app.server.control().resolver().signals.barrier().await);
    canaries
}

async fn pack(app: &TestApp) -> PackDetail {
    app.get("/api/v1/packs/support-prompts").await.read()
}

async fn left(app: &TestApp) -> Vec<(String, Option<u64>)> {
    let draining: Vec<DrainingView> = pack(app).await.draining;
    draining.into_iter().map(|draining| (draining.version, draining.sessions_left)).collect()
}

/// Why versions were taken out of service, as the audit log has it.
async fn retired(app: &TestApp) -> Vec<String> {
    let log: AuditPage = app.get("/api/v1/audit").await.read();
    let retired = log.entries.into_iter().filter(|entry| entry.action == "retired");
    retired
        .map(|entry| format!("{} by {}: {}", entry.evidence["version"], entry.actor, entry.reason))
        .collect()
}

fn minutes(app: &TestApp, n: u64) {
    app.clock.set(app.clock.now() + Duration::from_secs(n * 60));
}

async fn sweep(app: &TestApp) {
    app.server.control().sweep_once(HoldFor::from_hours(24 * 7)).await;
}

/// The version that answers a chat which ends with these messages.
async fn chat(app: &TestApp, session: &str, messages: Value) -> String {
    let body = json!({
        "model": "stand-in", "messages": messages,
        "prompt": {"id": "support-prompts/support", "variables": {"company": "Acme"}},
    });
    let headers = [("content-type", "application/json"), ("x-serin-session", session)];
    let answer =
        app.send(app.server.data_addr(), "POST", "/v1/chat/completions", &headers, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.headers["x-serin-version"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_rollback_moves_a_conversation_with_its_next_user_turn_but_never_before_a_tool_has_answered() {
    let app = TestApp::start().await.with_canary().await;
    let session = sessions(&app).await.remove(0);
    let question = json!({"role": "user", "content": "Where is my order?"});
    let call = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}]});
    let result = json!({"role": "tool", "tool_call_id": "c1", "content": "on its way"});
    assert_eq!(chat(&app, &session, json!([question])).await, "2.4.0");
    app.order("rollback", r#"{"reason": "it swears"}"#).await;
    assert_eq!(chat(&app, &session, json!([question, call, result])).await, "2.4.0");
    let served = app.server.control().resolver().snapshot();
    let prompts = &served.packs.values().next().unwrap().prompts;
    assert!(prompts.contains_key(&Version::parse("2.4.0").unwrap()), "the tool's result needs its prompt");
    let thanks = json!({"role": "user", "content": "Thanks"});
    assert_eq!(chat(&app, &session, json!([question, call, result, thanks])).await, "2.3.1");
    assert_eq!(chat(&app, &session, json!([question, call, result])).await, "2.3.1", "it has moved for good");
    assert!(pack(&app).await.draining.is_empty());
}

#[tokio::test]
async fn a_rollback_that_drains_keeps_the_version_until_its_last_session_has_ended() {
    let app = TestApp::start().await;
    app.apply(&stable()).await;
    app.apply(&canary_with("{onRollback: drain}")).await;
    let canaries = sessions(&app).await;
    let n = u64::try_from(canaries.len()).unwrap();
    app.order("rollback", r#"{"reason": "it swears"}"#).await;
    assert_eq!(left(&app).await, [("2.4.0".to_owned(), Some(n))]);
    assert_eq!(resolve(&app, &canaries[0]).await.version, "2.4.0", "it keeps its version");
    for n in 0..60 {
        assert_eq!(resolve(&app, &format!("new-{n}")).await.version, "2.3.1");
    }
    minutes(&app, 20);
    assert_eq!(resolve(&app, &canaries[1]).await.version, "2.4.0");
    minutes(&app, 11);
    sweep(&app).await;
    assert_eq!(left(&app).await, [("2.4.0".to_owned(), Some(1))], "the others were idle for half an hour");
    assert_eq!(retired(&app).await, Vec::<String>::new());
    minutes(&app, 20);
    sweep(&app).await;
    assert!(left(&app).await.is_empty());
    assert_eq!(retired(&app).await, [r#""2.4.0" by serin: its last session has ended"#]);
    assert_eq!(pack(&app).await.rolled_back, ["2.4.0"], "it stays in history");
}

#[tokio::test]
async fn sessions_of_a_version_are_those_that_have_not_ended() {
    let app = TestApp::start().await;
    app.apply(&stable()).await;
    app.apply(&canary_with("{idleTimeout: 10m}")).await;
    let on_canary = u64::try_from(sessions(&app).await.len()).unwrap();
    let counted = async || -> SessionsView { app.get("/api/v1/packs/support-prompts/sessions").await.read() };
    let of = |view: &SessionsView, version: &str| {
        view.versions.iter().find(|one| one.version == version).map_or(0, |one| one.sessions)
    };
    let view = counted().await;
    assert_eq!(of(&view, "2.4.0"), on_canary);
    assert!(of(&view, "2.3.1") > 0, "{view:?}");
    minutes(&app, 11);
    assert_eq!(of(&counted().await, "2.4.0"), 0, "whoever left is not counted");
}

#[tokio::test]
async fn sessions_left_are_counted_per_pack_and_after_a_restart() {
    let app = TestApp::start().await;
    app.apply(&stable()).await;
    app.apply(&canary_with("{onRollback: drain}")).await;
    let other = json!({"apiVersion": "omnia.altairalabs.ai/v1alpha1", "kind": "PromptPack",
                       "metadata": {"name": "tiny"}, "spec": {"version": "2.4.0"}});
    app.apply(&other.to_string()).await;
    let n = u64::try_from(sessions(&app).await.len()).unwrap();
    for n in 0..20 {
        app.data("/v1/resolve", &json!({"pack": "tiny", "session": format!("s-{n}")})).await;
    }
    app.order("rollback", r#"{"reason": "it swears"}"#).await;
    let app = app.restart().await;
    assert_eq!(left(&app).await, [("2.4.0".to_owned(), Some(n))]);
}

#[tokio::test]
async fn a_promotion_drains_the_old_version_for_as_long_as_a_session_may_live() {
    let app = TestApp::start().await.with_canary().await;
    sessions(&app).await;
    let mut old = None;
    for n in 0..60 {
        if resolve(&app, &format!("session-{n}")).await.version == "2.3.1" {
            old = Some(format!("session-{n}"));
        }
    }
    let session = old.unwrap();
    minutes(&app, 5);
    app.order("promote", r#"{"reason": "sure", "full": true}"#).await;
    assert_eq!(left(&app).await[0].0, "2.3.1");
    assert_eq!(resolve(&app, "after").await.version, "2.4.0");
    // Somebody who never stops talking: the lifetime ends it, five minutes before the drain would.
    for _ in 0..71 {
        minutes(&app, 20);
        assert_eq!(resolve(&app, &session).await.version, "2.3.1");
    }
    minutes(&app, 20);
    assert_eq!(resolve(&app, &session).await.version, "2.4.0");
    sweep(&app).await;
    assert_eq!(
        retired(&app).await,
        [r#""2.3.1" by serin: it has drained for as long as a session may live"#]
    );
    let versions: Value = app.get("/api/v1/packs/support-prompts/versions").await.json();
    assert_eq!(versions["versions"][1]["role"], "earlier stable");
}

#[tokio::test]
async fn a_promotion_that_moves_takes_the_old_version_from_everyone() {
    let app = TestApp::start().await;
    app.apply(&stable()).await;
    app.apply(&canary_with("{onPromote: move}")).await;
    sessions(&app).await;
    app.order("promote", r#"{"reason": "sure", "full": true}"#).await;
    assert!(left(&app).await.is_empty());
    for n in 0..60 {
        assert_eq!(resolve(&app, &format!("session-{n}")).await.version, "2.4.0");
    }
}

#[tokio::test]
async fn at_most_three_versions_drain_and_the_oldest_moves() {
    let app = TestApp::start().await;
    for n in 1..=5 {
        let manifest = json!({"apiVersion": "omnia.altairalabs.ai/v1alpha1", "kind": "PromptPack",
                              "metadata": {"name": "support-prompts"},
                              "spec": {"version": format!("{n}.0.0"), "rollout": {"strategy": "immediate"}}});
        assert_eq!(app.apply(&manifest.to_string()).await.status, 200);
        assert_eq!(resolve(&app, &format!("session-{n}")).await.version, format!("{n}.0.0"));
    }
    let counted: Vec<_> = ["2.0.0", "3.0.0", "4.0.0"].map(|v| (v.to_owned(), Some(1))).into();
    assert_eq!(left(&app).await, counted);
    assert_eq!(
        retired(&app).await,
        [r#""1.0.0" by serin: more than 3 versions would drain; the sessions it has move"#]
    );
    assert_eq!(resolve(&app, "session-1").await.version, "5.0.0");
    assert_eq!(resolve(&app, "session-2").await.version, "2.0.0");
}

#[tokio::test]
async fn the_sessions_that_saw_a_canary_are_counted_listed_and_exported() {
    let app = TestApp::start().await.with_canary().await;
    let canaries: BTreeSet<String> = sessions(&app).await.into_iter().collect();
    let n = u64::try_from(canaries.len()).unwrap();
    minutes(&app, 3);
    app.order("rollback", r#"{"reason": "it swears"}"#).await;
    let rollout = "/api/v1/rollouts/support-prompts-r1";
    let exposure: ExposureView = app.get(&format!("{rollout}/exposure")).await.read();
    assert_eq!((exposure.sessions, exposure.lasted.to_string()), (n, "3m".to_owned()));
    let at: Vec<_> = exposure.by_weight.iter().map(|at| (at.weight, at.sessions)).collect();
    assert_eq!(at, [(10.0, n)]);
    let listed: RolloutList = app.get("/api/v1/rollouts").await.read();
    assert_eq!(listed.rollouts[0].exposure.unwrap().sessions, n);

    let mut paged = Vec::new();
    let mut path = format!("{rollout}/exposure/sessions?limit=2");
    loop {
        let page: ExposedPage = app.get(&path).await.read();
        assert!(page.sessions.len() <= 2);
        paged.extend(page.sessions);
        match page.next_after {
            Some(after) => path = format!("{rollout}/exposure/sessions?limit=2&after={after}"),
            None => break,
        }
    }
    let names: Vec<String> = paged.iter().filter_map(|seen| seen.session.clone()).collect();
    assert_eq!(
        (names.iter().cloned().collect::<BTreeSet<_>>(), names.len()),
        (canaries.clone(), canaries.len())
    );
    assert!(paged.iter().all(|seen| seen.weight == 10.0 && seen.step == 0));

    let csv = app.get(&format!("{rollout}/exposure/sessions?format=csv")).await.text();
    assert!(
        csv.starts_with("session,key_hash,weight_percent,step,assigned_at,last_seen,requests\n"),
        "{csv}"
    );
    assert_eq!(
        csv.lines().skip(1).collect::<Vec<_>>(),
        paged.iter().map(|seen| seen.csv()).collect::<Vec<_>>()
    );
    let lines = app.get(&format!("{rollout}/exposure/sessions?format=ndjson")).await.text();
    assert_eq!(lines.lines().count(), canaries.len());
    assert_eq!(app.get(&format!("{rollout}/exposure/sessions?after=nobody")).await.status, 400);
    assert_eq!(app.get("/api/v1/rollouts/support-prompts-r9/exposure/sessions").await.status, 404);
}

#[tokio::test]
async fn a_superseded_version_still_has_its_prompt_after_a_restart_for_a_tool_that_is_at_work() {
    let app = TestApp::start().await.with_canary().await;
    let mut session = None;
    for n in 0..60 {
        if resolve(&app, &format!("session-{n}")).await.version == "2.4.0" {
            session = Some(format!("session-{n}"));
        }
    }
    let session = session.unwrap();
    let next = canary().replace("2.4.0", "2.5.0");
    assert_eq!(app.apply(&next).await.status, 200);
    let app = app.restart().await;
    let call = json!({"id": "c", "type": "function", "function": {"name": "search", "arguments": "{}"}});
    let body = json!({
        "model": "stand-in",
        "messages": [
            {"role": "user", "content": "Where is my order?"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "on its way"},
        ],
        "prompt": {"id": "support-prompts/support", "variables": {"company": "Acme"}},
    });
    let headers = [("content-type", "application/json"), ("x-serin-session", session.as_str())];
    let answer =
        app.send(app.server.data_addr(), "POST", "/v1/chat/completions", &headers, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["x-serin-version"], "2.4.0", "the result belongs to a call of this version");
    let sent = app.provider.stand_in().last_request().unwrap();
    let sent: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(sent["messages"][0]["role"], "system", "{sent}");
    assert!(sent["messages"][0]["content"].as_str().unwrap().contains("Acme"), "{sent}");
}
