//! OpenFeature Remote Evaluation: packs as flags.

use futures_util::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use serin_server::api::types::{ExplainView, ResolveResponse, RolloutView};

use crate::app::{Answer, TestApp, stable};

const FLAGS: &str = "/ofrep/v1/evaluate/flags";

async fn flag(app: &TestApp, key: &str, context: Value) -> Answer {
    app.data(&format!("{FLAGS}/{key}"), &json!({"context": context})).await
}

async fn flags(app: &TestApp, session: &str, etag: Option<&str>) -> Answer {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(etag.map(|etag| ("if-none-match", etag)));
    let body = json!({"context": {"targetingKey": session}}).to_string();
    app.send(app.server.data_addr(), "POST", FLAGS, &headers, body).await
}

fn etag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_flag_is_the_version_that_resolving_gives_and_pins_the_session() {
    let app = TestApp::start().await.with_canary().await;
    let mut versions = Vec::new();
    for n in 0..40 {
        let session = format!("session-{n}");
        let told = flag(&app, "support-prompts", json!({"targetingKey": session})).await;
        assert_eq!(told.status, 200, "{}", told.text());
        let told = told.json();
        assert_eq!((&told["key"], &told["reason"]), (&json!("support-prompts"), &json!("SPLIT")));
        let resolved: ResolveResponse =
            app.data("/v1/resolve", &json!({"pack": "support-prompts", "session": session})).await.read();
        assert_eq!(told["variant"], json!(resolved.version));
        assert_eq!(told["value"]["variant"], json!(resolved.variant.as_str()));
        let path = format!("/api/v1/packs/support-prompts/explain?session={session}");
        assert!(app.get(&path).await.read::<ExplainView>().pin.is_some());
        assert_eq!(flag(&app, "support-prompts", json!({"targetingKey": session})).await.json(), told);
        versions.push(resolved.version);
    }
    assert!(versions.contains(&"2.3.1".to_owned()) && versions.contains(&"2.4.0".to_owned()), "{versions:?}");
    assert!(app.server.control().resolver().signals.barrier().await);
    let view: RolloutView = app.get("/api/v1/packs/support-prompts/rollout").await.read();
    assert_eq!(view.measured.sessions.stable + view.measured.sessions.canary, 40, "each one is a contact");
    insta::assert_snapshot!(
        "ofrep_flag",
        flag(&app, "support-prompts.support", json!({"targetingKey": "session-0"})).await.shown()
    );
}

#[tokio::test]
async fn without_a_rollout_a_flag_is_static() {
    let app = TestApp::start().await;
    app.apply(&stable()).await;
    for _ in 0..2 {
        let told = flag(&app, "support-prompts", json!({"targetingKey": "s"})).await.json();
        assert_eq!((&told["reason"], &told["variant"]), (&json!("STATIC"), &json!("2.3.1")));
    }
}

#[tokio::test]
async fn errors_are_told_in_the_words_of_openfeature() {
    let app = TestApp::start().await.with_canary().await;
    let mut told = String::new();
    for (key, body) in [
        ("support-prompts", "{".to_owned()),
        ("support-prompts", "[]".to_owned()),
        ("support-prompts", "{}".to_owned()),
        ("support-prompts", json!({"context": "s"}).to_string()),
        ("support-prompts", json!({"context": {}}).to_string()),
        ("support-prompts", json!({"context": {"targetingKey": ""}}).to_string()),
        ("support-prompts", json!({"context": {"targetingKey": 7}}).to_string()),
        ("support-prompts", json!({"context": {"targetingKey": "a\nb"}}).to_string()),
        ("suport-prompts", json!({"context": {"targetingKey": "s"}}).to_string()),
        ("support-prompts.suport", json!({"context": {"targetingKey": "s"}}).to_string()),
        ("support-prompts.", json!({"context": {"targetingKey": "s"}}).to_string()),
        ("%2F%00", json!({"context": {"targetingKey": "s"}}).to_string()),
        ("support-prompts.support", json!({"context": {"targetingKey": "s", "variables": 1}}).to_string()),
    ] {
        let headers = [("content-type", "application/json")];
        let path = format!("{FLAGS}/{key}");
        let answer = app.send(app.server.data_addr(), "POST", &path, &headers, body.clone()).await;
        told.push_str(&format!("{key} {body}\n{}\n\n", answer.shown()));
    }
    let all = app.data(FLAGS, &json!({"context": {}})).await;
    told.push_str(&format!("all\n{}\n", all.shown()));
    insta::assert_snapshot!("ofrep_errors", told);
    let large = json!({"context": {"targetingKey": "s", "text": "x".repeat(300 << 10)}});
    let large = app.data(FLAGS, &large).await;
    assert_eq!((large.status, &large.json()["errorCode"]), (413, &json!("GENERAL")));
    let path = "/api/v1/packs/support-prompts/explain?session=s";
    assert!(app.get(path).await.read::<ExplainView>().pin.is_none(), "an error pins nobody");
}

#[tokio::test]
async fn the_text_of_a_prompt_is_for_those_who_may_read_it() {
    let context = json!({"targetingKey": "s", "variables": {"company": "Acme"}});
    let closed = TestApp::start().await.with_canary().await;
    let told = flag(&closed, "support-prompts.support", context.clone()).await.json();
    assert_eq!(
        (&told["value"]["system"], &told["metadata"]["promptText"]),
        (&Value::Null, &json!("withheld"))
    );

    let open = TestApp::start_with(&[("SERIN_DATA_OFREP_PROMPT_TEXT", "true")]).await.with_canary().await;
    let told = flag(&open, "support-prompts.support", context.clone()).await.json();
    assert!(told["value"]["system"].as_str().unwrap().contains("Acme"), "{told}");
    let missing = flag(&open, "support-prompts.support", json!({"targetingKey": "s", "variables": {}})).await;
    assert_eq!((missing.status, &missing.json()["errorCode"]), (400, &json!("INVALID_CONTEXT")));
    assert!(missing.text().contains("company"), "{}", missing.text());
    let unasked = flag(&open, "support-prompts.support", json!({"targetingKey": "s"})).await.json();
    assert_eq!(unasked["value"].get("system"), None);
    let all = open.data(FLAGS, &json!({"context": context})).await;
    assert!(!all.text().contains("Acme") && !all.text().contains("system"), "{}", all.text());
}

#[tokio::test]
async fn all_flags_come_with_an_etag_that_holds_while_the_session_keeps_its_version() {
    let app = TestApp::start().await.with_canary().await;
    let first = flags(&app, "session-0", None).await;
    insta::assert_snapshot!("ofrep_flags", first.shown());
    let tag = etag(&first);
    for given in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
        let again = flags(&app, "session-0", Some(&given)).await;
        assert_eq!((again.status, again.body.len(), etag(&again)), (304, 0, tag.clone()), "{given}");
    }
    assert_eq!(flags(&app, "session-0", Some("\"other\"")).await.status, 200);

    let promoted = app.order("promote", r#"{"reason": "next step"}"#).await;
    assert_eq!(promoted.status, 200, "{}", promoted.text());
    assert_eq!(flags(&app, "session-0", Some(&tag)).await.status, 304, "a pinned session sees no change");

    let mut canary = None;
    for n in 0..100 {
        let session = format!("other-{n}");
        let told = flags(&app, &session, None).await;
        if told.json()["flags"][0]["variant"] == "2.4.0" {
            canary = Some((session, etag(&told)));
            break;
        }
    }
    let (session, tag) = canary.expect("at 10 % a canary is among 100");
    app.order("rollback", r#"{"reason": "enough"}"#).await;
    let after = flags(&app, &session, Some(&tag)).await;
    assert_eq!((after.status, &after.json()["flags"][0]["variant"]), (200, &json!("2.3.1")));
}

#[tokio::test]
async fn a_stream_tells_when_flags_may_have_changed() {
    let app = TestApp::start().await;
    app.apply(&stable()).await;
    let path = flags(&app, "s", None).await.json()["eventStreams"][0]["endpoint"]["requestUri"].clone();
    let since_then = path.as_str().unwrap();
    let (path, _) = since_then.split_once("?since=").unwrap();
    let listen = async |path: &str, headers: &[(&str, &str)]| {
        let answer = app.open(app.server.data_addr(), "GET", path, headers, "").await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answer.into_body().into_data_stream()
    };
    let mut stream = listen(path, &[]).await;
    assert_eq!(app.apply(&crate::app::canary()).await.status, 200);
    let event = String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(event.starts_with("id: ") || event.starts_with("data: "), "{event}");
    let field =
        |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let data: Value = serde_json::from_str(&field("data:")).unwrap();
    assert_eq!((&data["type"], &data["etag"]), (&json!("refetchEvaluation"), &json!(field("id:"))));
    // Whoever was away while it changed is told at once.
    for mut late in [listen(path, &[("last-event-id", "of before")]).await, listen(since_then, &[]).await] {
        let told = String::from_utf8(late.next().await.unwrap().unwrap().to_vec()).unwrap();
        assert!(told.contains(&field("id:")), "{told} {event}");
    }
}

#[tokio::test]
async fn pages_of_origins_that_are_named_may_ask_and_others_may_not() {
    let app = TestApp::start_with(&[("SERIN_DATA_OFREP_ORIGINS", "https://app.example")]).await;
    app.apply(&stable()).await;
    let ask = async |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        app.send(app.server.data_addr(), "OPTIONS", FLAGS, &headers, "").await
    };
    let right = ask("https://app.example").await;
    assert_eq!(
        (right.status, &right.headers["access-control-allow-origin"]),
        (204, &"https://app.example".parse().unwrap())
    );
    let wrong = ask("https://evil.example").await;
    assert_eq!((wrong.status, wrong.headers.get("access-control-allow-origin")), (405, None));
    let headers = [("origin", "https://app.example")];
    let body = json!({"context": {"targetingKey": "s"}}).to_string();
    let told = app.send(app.server.data_addr(), "POST", FLAGS, &headers, body).await;
    assert_eq!(told.headers["access-control-expose-headers"], "etag, retry-after");
}
