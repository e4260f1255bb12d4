//! Whatever bytes an app sends: they are taken, or refused with a reason, and the server goes on.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::app::{Answer, TestApp};

fn running() -> (Runtime, TestApp) {
    let runtime = Runtime::new().unwrap();
    let app = runtime.block_on(async {
        let app = TestApp::start().await.with_canary().await;
        app.data("/v1/resolve", &json!({"pack": "support-prompts", "session": "s"})).await;
        app
    });
    (runtime, app)
}

async fn post(app: &TestApp, path: &str, media: &str, body: Vec<u8>) -> Answer {
    app.send(app.server.data_addr(), "POST", path, &[("content-type", media)], body).await
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(|number: f64| json!(number)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Value::Array))
}

/// An event with fields that are right, wrong or missing.
fn event() -> impl Strategy<Value = Value> {
    let field =
        |right: Value| prop_oneof![3 => Just(Some(right)), 1 => any_value().prop_map(Some), 1 => Just(None)];
    let fields = [
        ("id", json!("e-1")),
        ("pack", json!("support-prompts")),
        ("session", json!("s")),
        ("name", json!("task_completion")),
        ("value", json!(true)),
        ("at", json!("2026-11-02T09:00:00Z")),
    ];
    let fields =
        fields.map(|(name, right)| field(right).prop_map(move |value| Some((name.to_owned(), value?))));
    fields.to_vec().prop_map(|fields| Value::Object(fields.into_iter().flatten().collect()))
}

#[test]
fn every_event_is_accepted_a_duplicate_or_rejected_with_its_index_and_a_reason() {
    let (runtime, app) = running();
    let events = prop::collection::vec(prop_oneof![4 => event(), 1 => any_value()], 1..6);
    proptest!(ProptestConfig::with_cases(150), |(events in events, as_lines: bool)| {
        let n = events.len();
        let (media, body) = if as_lines {
            let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
            ("application/x-ndjson", lines.join("\n"))
        } else {
            ("application/json", json!({"events": events}).to_string())
        };
        let answer = runtime.block_on(post(&app, "/v1/events", media, body.into_bytes()));
        prop_assert_eq!(answer.status, 202, "{}", answer.text());
        let told = answer.json();
        let sum: u64 = ["accepted", "duplicate", "rejected"].iter().map(|field| told[field].as_u64().unwrap()).sum();
        prop_assert_eq!(sum, n as u64, "{}", told);
        let reasons = told["reasons"].as_array().unwrap();
        prop_assert_eq!(reasons.len() as u64, told["rejected"].as_u64().unwrap());
        for one in reasons {
            prop_assert!(one["index"].as_u64().is_some_and(|index| index < n as u64), "{}", one);
            prop_assert!(one["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{}", one);
        }
    });
    runtime.block_on(async move { drop(app) });
}

#[test]
fn bytes_of_any_kind_are_answered_and_bad_json_with_its_place() {
    let (runtime, app) = running();
    let paths = prop::sample::select(vec!["/v1/events", "/otlp/v1/traces", "/otlp/v1/logs"]);
    let medias =
        prop::sample::select(vec!["application/json", "application/x-ndjson", "application/x-protobuf"]);
    let bodies = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[\\[\\]{}\",:a-z0-9\\\\ \n]{0,80}".prop_map(String::into_bytes),
    ];
    proptest!(ProptestConfig::with_cases(300), |(path in paths, media in medias, body in bodies)| {
        let answer = runtime.block_on(post(&app, path, media, body));
        prop_assert!([200, 202, 400, 415].contains(&answer.status), "{} {}", answer.status, answer.text());
        if answer.status == 400 && path == "/v1/events" && media == "application/json" {
            let told = answer.text();
            prop_assert!(told.contains("line ") && told.contains("column "), "{}", told);
        }
    });
    runtime.block_on(async move { drop(app) });
}
