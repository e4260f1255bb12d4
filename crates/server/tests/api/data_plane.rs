//! Resolving, reporting, and the gateway behind it.

use serde_json::{Value, json};
use serin_server::api::types::{EventsAnswer, ExplainView, ResolveReason, ResolveResponse, RolloutView};

use crate::app::{Answer, TestApp, stable};

async fn resolve(app: &TestApp, session: &str) -> ResolveResponse {
    app.data("/v1/resolve", &json!({"pack": "support-prompts", "session": session})).await.read()
}

async fn explain(app: &TestApp, session: &str) -> ExplainView {
    app.get(&format!("/api/v1/packs/support-prompts/explain?session={session}")).await.read()
}

async fn events(app: &TestApp, events: Value) -> Answer {
    app.data("/v1/events", &json!({"events": events})).await
}

#[tokio::test]
async fn a_session_keeps_its_version_and_explain_says_why() {
    let app = TestApp::start().await.with_canary().await;
    let mut variants = Vec::new();
    for n in 0..40 {
        let session = format!("session-{n}");
        let foretold = explain(&app, &session).await;
        assert!(foretold.pin.is_none(), "asking does not pin");
        let first = resolve(&app, &session).await;
        assert_eq!(foretold.version.as_ref(), Some(&first.version));
        assert_eq!(foretold.variant, Some(first.variant));
        assert_eq!(first.reason, ResolveReason::Split);
        let second = resolve(&app, &session).await;
        assert_eq!((&first.version, ResolveReason::Pinned), (&second.version, second.reason));
        let pin = explain(&app, &session).await.pin.unwrap();
        assert_eq!((&pin.version, pin.rollout.as_deref()), (&first.version, Some("support-prompts-r1")));
        variants.push(first.variant.as_str());
    }
    assert!(variants.contains(&"canary") && variants.contains(&"stable"), "{variants:?}");
    insta::assert_snapshot!(
        "explain",
        app.get("/api/v1/packs/support-prompts/explain?session=session-0").await.shown()
    );
}

#[tokio::test]
async fn a_prompt_is_rendered_with_its_variables_or_refused() {
    let app = TestApp::start().await.with_canary().await;
    let ask = |prompt: &'static str, variables: Value| {
        let body =
            json!({"pack": "support-prompts", "session": "s", "prompt": prompt, "variables": variables});
        let app = &app;
        async move { app.data("/v1/resolve", &body).await }
    };
    let pack: Value = app.get("/api/v1/packs/support-prompts").await.json();
    assert!(pack["prompts"].as_array().unwrap().contains(&json!("support")), "{pack}");
    let answer = ask("support", json!({"company": "Acme"})).await;
    assert!(answer.read::<ResolveResponse>().prompt.unwrap().system.contains("Acme"), "{}", answer.text());
    assert_eq!(ask("support", json!({})).await.status, 422);
    assert_eq!(ask("support", json!({"company": "Acme", "compny": "x"})).await.status, 422);
    assert_eq!(ask("suport", json!({"company": "Acme"})).await.status, 404);
    let without =
        app.data("/v1/resolve", &json!({"pack": "support-prompts", "variables": {"company": "x"}})).await;
    assert_eq!(without.status, 400);
    let unknown = app.data("/v1/resolve", &json!({"pack": "support"})).await;
    assert_eq!((unknown.status, &unknown.json()["hint"]), (404, &json!("did you mean support-prompts?")));
}

#[tokio::test]
async fn an_event_counts_once_however_often_it_is_sent() {
    let app = TestApp::start().await.with_canary().await;
    resolve(&app, "s").await;
    let batch = json!([
        {"id": "a", "pack": "support-prompts", "session": "s", "name": "task_completion", "value": true},
        {"id": "b", "pack": "support-prompts", "session": "s", "name": "response", "success": true, "latency_ms": 210.5},
    ]);
    let first: EventsAnswer = events(&app, batch.clone()).await.read();
    assert_eq!((first.accepted, first.duplicate, first.rejected), (2, 0, 0));
    let again: EventsAnswer = events(&app, batch).await.read();
    assert_eq!((again.accepted, again.duplicate, again.rejected), (0, 2, 0));
    let nameless =
        json!([{"pack": "support-prompts", "session": "s", "name": "user_satisfaction", "value": 4}]);
    for _ in 0..2 {
        let answer: EventsAnswer = events(&app, nameless.clone()).await.read();
        assert_eq!(answer.accepted, 1, "an event without an id always counts");
    }
    let view: RolloutView = app.get("/api/v1/packs/support-prompts/rollout").await.read();
    assert_eq!(view.measured.requests.stable + view.measured.requests.canary, 1);
}

#[tokio::test]
async fn one_bad_event_does_not_cost_the_others() {
    let app = TestApp::start().await.with_canary().await;
    resolve(&app, "s").await;
    let of = |more: Value| {
        let mut event =
            json!({"pack": "support-prompts", "session": "s", "name": "task_completion", "value": 1});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let batch = json!([
        of(json!({"id": "good"})),
        of(json!({"id": "pack", "pack": "other"})),
        of(json!({"id": "session", "session": "nobody"})),
        of(json!({"id": "name", "name": "applause"})),
        of(json!({"id": "range", "value": 7})),
        of(json!({"id": "future", "at": "2026-11-02T09:06:00Z"})),
        of(json!({"id": "past", "at": "2026-10-01T09:00:00Z"})),
        of(json!({"id": "field", "latency_ms": 3})),
        of(json!({"id": "both", "name": "response", "success": true})),
        {"pack": "support-prompts", "session": "s", "name": "response", "id": "typo", "sucess": true},
        {"pack": "support-prompts", "session": "s", "name": "response", "id": "minus", "latency_ms": -1},
        {"pack": "support-prompts"},
        7,
    ]);
    insta::assert_snapshot!("events_rejected", events(&app, batch).await.shown());
}

#[tokio::test]
async fn events_may_come_as_lines() {
    let app = TestApp::start().await.with_canary().await;
    resolve(&app, "s").await;
    let line = |id: &str| json!({"id": id, "pack": "support-prompts", "session": "s", "name": "escalation", "value": 0});
    let body = format!("{}\n\n{}\r\nnot json\n", line("1"), line("2"));
    let headers = [("content-type", "application/x-ndjson")];
    let answer: EventsAnswer =
        app.send(app.server.data_addr(), "POST", "/v1/events", &headers, body).await.read();
    assert_eq!((answer.accepted, answer.rejected), (2, 1));
    assert_eq!(answer.reasons[0].index, 2);
}

#[tokio::test]
async fn too_many_events_or_bytes_are_refused_as_a_whole() {
    let app = TestApp::start().await.with_canary().await;
    let many: Vec<Value> = vec![json!({}); 1_001];
    assert_eq!(events(&app, json!(many)).await.status, 413);
    let large = json!([{"pack": "x".repeat(1 << 20)}]);
    insta::assert_snapshot!("events_too_large", events(&app, large).await.shown());
    let headers = [("content-type", "text/csv")];
    let csv = app.send(app.server.data_addr(), "POST", "/v1/events", &headers, "a,b").await;
    assert_eq!(csv.status, 415);
}

#[tokio::test]
async fn a_chat_through_the_gateway_is_served_and_counted() {
    let app = TestApp::start().await.with_canary().await;
    let body = json!({
        "model": "stand-in", "messages": [{"role": "user", "content": "Where is my order?"}],
        "prompt": {"id": "support-prompts/support", "variables": {"company": "Acme"}},
    });
    let headers = [
        ("content-type", "application/json"),
        ("x-serin-session", "chat-1"),
        ("authorization", "Bearer sk-test"),
    ];
    let answer =
        app.send(app.server.data_addr(), "POST", "/v1/chat/completions", &headers, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let pinned = explain(&app, "chat-1").await;
    assert_eq!(answer.headers["x-serin-version"], *pinned.version.as_ref().unwrap());
    assert!(app.server.control().resolver().signals.barrier().await);
    let view: RolloutView = app.get("/api/v1/packs/support-prompts/rollout").await.read();
    assert_eq!(view.measured.requests.stable + view.measured.requests.canary, 1);
    assert_eq!(view.measured.sessions.stable + view.measured.sessions.canary, 1);

    let text = app.get("/metrics").await.text();
    assert!(text.contains("serin_gateway_succeeded_total 1"), "{text}");
    assert!(text.contains("serin_pack_weight_percent{pack=\"support-prompts\"} 10.0"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn sessions_before_the_rollout_stay_where_they_are() {
    let app = TestApp::start().await;
    app.apply(&stable()).await;
    let before = resolve(&app, "early").await;
    assert_eq!((before.reason, before.rollout), (ResolveReason::Static, None));
    let app = app.with_canary().await;
    let after = resolve(&app, "early").await;
    assert_eq!((after.version.as_str(), after.reason), ("2.3.1", ResolveReason::Pinned));
}

#[tokio::test]
async fn an_outcome_without_a_pack_counts_for_every_pack_that_its_session_touched() {
    let app = TestApp::start().await.with_canary().await;
    let other = "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {name: sales}\n\
                 spec: {version: 1.0.0, rollout: {analysis: {outcomes: [{name: order_placed, kind: rate, better: higher}]}}}";
    assert_eq!(app.apply(other).await.status, 200);
    resolve(&app, "both").await;
    assert_eq!(app.data("/v1/resolve", &json!({"pack": "sales", "session": "both"})).await.status, 200);
    resolve(&app, "one").await;
    let batch = json!([
        {"id": "a", "session": "both", "name": "task_completion", "value": true},
        {"id": "b", "session": "both", "name": "order_placed", "value": true},
        {"id": "c", "session": "one", "name": "task_completion", "value": true},
        {"id": "d", "session": "one", "name": "response", "success": true},
        {"id": "e", "session": "both", "name": "response", "success": true},
        {"id": "f", "session": "one", "name": "order_placed", "value": true},
        {"id": "g", "session": "nobody", "name": "task_completion", "value": true},
    ]);
    let answer: EventsAnswer = events(&app, batch.clone()).await.read();
    assert_eq!((answer.accepted, answer.duplicate, answer.rejected), (4, 0, 3));
    let reasons: Vec<&str> = answer.reasons.iter().map(|rejected| rejected.reason.as_str()).collect();
    assert!(reasons[0].contains("several packs") && reasons[2].contains("not known here"), "{reasons:?}");
    assert!(reasons[1].contains("no outcome \"order_placed\""), "{reasons:?}");
    let again: EventsAnswer = events(&app, batch).await.read();
    assert_eq!((again.accepted, again.duplicate), (0, 4));
    // task_completion of `both` in two packs, order_placed in one; task_completion and a response of `one`.
    let text = app.get("/metrics").await.text();
    assert!(text.contains("serin_ingest_facts_total 5\n"), "{text}");
}
