//! `explain` for sessions, responses and attributes, and what comes next.

use serde_json::{Value, json};
use serin_server::api::types::{ExplainView, NextChangeBy, ResolveReason, SegmentAnswer};

use crate::app::{Answer, TestApp};

const STABLE: &str = "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {name: support-prompts}\n\
    spec: {version: 1.0.0}";
const CANARY: &str = "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {name: support-prompts}\n\
    spec:\n  version: 2.0.0\n  rollout:\n    stepInterval: 5m\n    segments:\n\
    \x20     - {name: staff, weight: 100%, duration: 1h, match: 'attributes.email.endsWith(\"@acme.com\")'}\n\
    \x20     - {name: beta, weight: 50%, duration: 1h, match: 'attributes.tier == \"beta\"'}\n\
    \x20     - {name: all, weight: progressive}\n";

async fn segmented() -> TestApp {
    let app = TestApp::start().await;
    assert_eq!(app.apply(STABLE).await.status, 200);
    assert_eq!(app.apply(CANARY).await.status, 200);
    app
}

async fn ask(app: &TestApp, query: &[(&str, &str)]) -> Answer {
    let encoded = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    app.get(&format!("/api/v1/packs/support-prompts/explain?{}", query.join("&"))).await
}

async fn explain(app: &TestApp, query: &[(&str, &str)]) -> ExplainView {
    ask(app, query).await.read()
}

async fn resolve(app: &TestApp, session: &str, attributes: Value) {
    let body = json!({"pack": "support-prompts", "session": session, "attributes": attributes});
    assert_eq!(app.data("/v1/resolve", &body).await.status, 200);
}

#[tokio::test]
async fn attributes_alone_tell_what_any_new_session_with_them_would_get_and_why() {
    let app = segmented().await;
    insta::assert_snapshot!(
        "explain_attributes",
        ask(&app, &[("attributes", r#"{"email": 7, "tier": "beta"}"#)]).await.shown()
    );
    let staff = explain(&app, &[("attributes", r#"{"email": "ana@acme.com"}"#)]).await;
    assert_eq!((staff.version.as_deref(), staff.reason), (Some("2.0.0"), ResolveReason::TargetingMatch));
    assert_eq!(staff.segments[1].answer, SegmentAnswer::NotAsked);
    let anyone = explain(&app, &[]).await;
    assert_eq!((anyone.version.as_deref(), anyone.segment.as_deref()), (Some("1.0.0"), Some("all")));

    // Both stages pass, so that the second one has a share and the first one everything.
    for _ in 0..2 {
        assert_eq!(app.order("promote", r#"{"reason": "on"}"#).await.status, 200);
    }
    let beta = explain(&app, &[("attributes", r#"{"tier": "beta"}"#)]).await;
    assert_eq!((beta.version.as_deref(), beta.new_sessions.len(), beta.weight), (None, 2, 50.0));
    assert!(beta.message.contains("2.0.0 (canary) in 50% of cases"), "{}", beta.message);
    let counted = app.get("/metrics").await.text();
    assert!(
        counted.contains("segment_unreadable_total{pack=\"support-prompts\",segment=\"staff\"} 0"),
        "{counted}"
    );
}

#[tokio::test]
async fn a_session_is_explained_in_the_segment_that_it_was_assigned_in() {
    let app = segmented().await;
    resolve(&app, "ana", json!({"email": "ana@acme.com"})).await;
    let view = explain(&app, &[("session", "ana")]).await;
    assert_eq!((view.version.as_deref(), view.segment.as_deref()), (Some("2.0.0"), Some("staff")));
    assert_eq!(view.weight, 100.0, "not the weight of somebody without attributes");
    let other = explain(&app, &[("session", "ana"), ("attributes", "{}")]).await;
    assert_eq!(
        other.segment.as_deref(),
        Some("staff"),
        "a session keeps it whatever its attributes are later"
    );
    let new = explain(&app, &[("session", "bo"), ("attributes", r#"{"email": "bo@acme.com"}"#)]).await;
    assert_eq!((new.version.as_deref(), new.segment.as_deref()), (Some("2.0.0"), Some("staff")));
    assert!(
        new.pin.is_none() && explain(&app, &[("session", "bo")]).await.pin.is_none(),
        "asking does not pin"
    );
}

#[tokio::test]
async fn the_next_step_changes_nothing_for_who_has_a_version_and_is_foretold_to_who_has_none() {
    let app = TestApp::start().await.with_canary().await;
    for n in 0..40 {
        resolve(&app, &format!("old-{n}"), json!({})).await;
    }
    assert_eq!(app.order("promote", r#"{"reason": "on"}"#).await.status, 200);
    let mut foretold = Vec::new();
    for n in 0..40 {
        let old = explain(&app, &[("session", &format!("old-{n}"))]).await;
        let next = old.next.unwrap();
        assert_eq!((next.version, next.changes), (old.version, Some(false)));
        assert_eq!((next.by, next.step, next.weight), (NextChangeBy::Step, Some(2), 20.0));
        assert_eq!(next.at.unwrap().to_string(), "2026-11-02T09:05:00Z");
        foretold.push(explain(&app, &[("session", &format!("new-{n}"))]).await);
    }
    let changes = foretold.iter().filter(|view| view.next.as_ref().unwrap().changes == Some(true)).count();
    assert!((1..=12).contains(&changes), "of 40 sessions about four begin with the canary later: {changes}");
    assert_eq!(app.order("promote", r#"{"reason": "on"}"#).await.status, 200);
    for view in foretold {
        let session = view.session.unwrap();
        let now = explain(&app, &[("session", &session)]).await;
        assert_eq!(now.version, view.next.unwrap().version, "{session}");
    }
    assert_eq!(app.order("pause", r#"{"reason": "wait"}"#).await.status, 200);
    let next = explain(&app, &[]).await.next.unwrap();
    assert_eq!(next.at, None);
    assert!(next.message.ends_with("; 30% of the new sessions get 2.4.0 then"), "{}", next.message);
}

#[tokio::test]
async fn a_response_leads_to_its_session_and_to_the_version_that_gave_it() {
    let app = TestApp::start().await.with_canary().await;
    let messages = json!([{"role": "user", "content": "Where is my order?"}]);
    let prompt = json!({"id": "support-prompts/support", "variables": {"company": "Acme"}});
    for (path, stream) in [
        ("/v1/chat/completions", false),
        ("/v1/chat/completions", true),
        ("/v1/messages", false),
        ("/v1/messages", true),
        ("/v1/responses", false),
        ("/v1/responses", true),
    ] {
        let history = if path == "/v1/responses" { "input" } else { "messages" };
        let mut body = json!({"model": "stand-in", "prompt": prompt, "stream": stream, history: messages});
        if path == "/v1/messages" {
            body["max_tokens"] = json!(50);
        }
        let session = format!("chat-{}-{stream}", path.len());
        let headers = [("content-type", "application/json"), ("x-serin-session", session.as_str())];
        let answer = app.send(app.server.data_addr(), "POST", path, &headers, body.to_string()).await;
        assert_eq!(answer.status, 200, "{path} {stream}: {}", answer.text());
        let text = answer.text().replace(": ", ":");
        let id = ["\"chatcmpl-", "\"resp_", "\"msg_"].iter().find_map(|prefix| {
            let rest = &text[text.find(prefix)? + 1..];
            rest.split('"').next().map(ToOwned::to_owned)
        });
        let Some(id) = id else { panic!("{path} {stream}: no id in {text}") };
        let view = explain(&app, &[("response", &id)]).await;
        assert_eq!(view.session.as_deref(), Some(session.as_str()), "{path} {stream}");
        let response = view.response.unwrap();
        assert_eq!(answer.headers["x-serin-version"], *response.version.unwrap());
        assert_eq!(answer.headers["x-serin-variant"], *response.variant.unwrap().as_str());
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_what_to_do() {
    let app = segmented().await;
    for (query, status, word) in [
        (vec![("session", "")], 400, "session key"),
        (vec![("session", "a"), ("response", "b")], 400, "both a session and a response"),
        (vec![("response", "resp_none")], 404, "nothing is known of response"),
        (vec![("response", "")], 400, "1 to 1024 bytes"),
        (vec![("attributes", "[1]")], 400, "attributes as a JSON object"),
        (vec![("attributes", "tier=beta")], 400, "attributes as a JSON object"),
        (vec![("sesion", "a")], 400, "sesion"),
    ] {
        let answer = ask(&app, &query).await;
        assert_eq!(answer.status, status, "{query:?}: {}", answer.text());
        assert!(answer.json()["detail"].as_str().unwrap().contains(word), "{query:?}: {}", answer.text());
    }
}
