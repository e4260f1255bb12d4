//! OpenTelemetry over HTTP: forms, limits, errors, and what becomes of what is told.

use std::io::Write;

use prost::Message;
use serde_json::{Value, json};
use serin_server::api::otlp::{LARGEST_BODY, MOST_ITEMS};
use serin_server::api::types::{ResolveResponse, RolloutView};
use serin_server::otlp::wire::{Answer as Exported, ResourceSpans, ScopeSpans, Span, Status, Traces};

use crate::app::{Answer, TestApp};

const TRACES: &str = "/otlp/v1/traces";
const LOGS: &str = "/otlp/v1/logs";

async fn send(app: &TestApp, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    app.send(app.server.data_addr(), "POST", path, headers, body).await
}

async fn json_spans(app: &TestApp, spans: Value) -> Answer {
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).to_string();
    send(app, TRACES, &[("content-type", "application/json")], body.into_bytes()).await
}

async fn json_records(app: &TestApp, records: Value) -> Answer {
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string();
    send(app, LOGS, &[("content-type", "application/json; charset=utf-8")], body.into_bytes()).await
}

fn attributes(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect()
}

/// A model call of a session at the start of the tests, a quarter of a second long.
fn chat(n: u8, pairs: &[(&str, &str)]) -> Value {
    let mut all = vec![("gen_ai.operation.name", "chat")];
    all.extend(pairs);
    json!({
        "traceId": format!("{n:032x}"), "spanId": format!("{n:016x}"), "attributes": attributes(&all),
        "startTimeUnixNano": "1793610000000000000", "endTimeUnixNano": "1793610000250000000",
    })
}

async fn version_of(app: &TestApp, session: &str) -> String {
    let body = json!({"pack": "support-prompts", "session": session});
    app.data("/v1/resolve", &body).await.read::<ResolveResponse>().version
}

async fn requests(app: &TestApp) -> u64 {
    let view: RolloutView = app.get("/api/v1/packs/support-prompts/rollout").await.read();
    view.measured.requests.stable + view.measured.requests.canary
}

async fn metric(app: &TestApp, name: &str) -> String {
    let text = app.get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("serin_otlp_{name} ")));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).to_owned()
}

const OF_S: [(&str, &str); 2] =
    [("gen_ai.conversation.id", "s"), ("gen_ai.prompt.name", "support-prompts/support")];

#[tokio::test]
async fn a_model_call_counts_once_however_often_it_is_exported() {
    let app = TestApp::start().await.with_canary().await;
    version_of(&app, "s").await;
    for _ in 0..2 {
        let answer = json_spans(&app, json!([chat(1, &OF_S), chat(2, &OF_S)])).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    assert_eq!(requests(&app).await, 2);
    assert_eq!(
        (metric(&app, "responses_total").await, metric(&app, "duplicates_total").await),
        ("2".to_owned(), "2".to_owned())
    );
}

#[tokio::test]
async fn an_evaluation_counts_for_the_session_of_its_span_or_conversation() {
    let app = TestApp::start().await.with_canary().await;
    version_of(&app, "s").await;
    json_spans(&app, json!([chat(1, &OF_S)])).await;
    let record = |pairs: &[(&str, &str)], place: Value| {
        let mut record =
            json!({"timeUnixNano": "1793610001000000000", "eventName": "gen_ai.evaluation.result"});
        record.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        record["attributes"] = attributes(pairs);
        record
    };
    let span = json!({"traceId": format!("{:032x}", 1), "spanId": format!("{:016x}", 1)});
    let answer = json_records(
        &app,
        json!([
            record(&[("gen_ai.evaluation.name", "task_completion"), ("gen_ai.evaluation.score.label", "pass")], span.clone()),
            record(&[("gen_ai.evaluation.name", "sentiment"), ("gen_ai.evaluation.score.value", "0.5"), ("gen_ai.conversation.id", "s")], json!({})),
            record(&[("gen_ai.evaluation.name", "applause"), ("gen_ai.evaluation.score.value", "1")], span.clone()),
            record(&[("gen_ai.evaluation.name", "escalation"), ("gen_ai.evaluation.score.label", "maybe")], span),
            {"body": {"stringValue": "a record of text"}},
        ]),
    )
    .await;
    insta::assert_snapshot!("otlp_partial", answer.shown());
    assert_eq!(metric(&app, "outcomes_total").await, "2");
}

#[tokio::test]
async fn what_is_not_counted_comes_back_with_its_reason_and_what_is_not_ours_is_passed_over() {
    let app = TestApp::start().await.with_canary().await;
    let version = version_of(&app, "s").await;
    let other = if version == "2.4.0" { "2.3.1" } else { "2.4.0" };
    let with = |more: &[(&'static str, &'static str)]| [&OF_S[..], more].concat();
    let of_nobody = [("gen_ai.conversation.id", "nobody"), ("gen_ai.prompt.name", "support-prompts")];
    let answer = json_spans(
        &app,
        json!([
            chat(1, &with(&[("gen_ai.prompt.version", if other == "2.4.0" { "2.4.0" } else { "2.3.1" })])),
            chat(2, &with(&[("gen_ai.usage.input_tokens", "-1")])),
            chat(3, &of_nobody),
            chat(4, &with(&[("gen_ai.prompt.version", "17")])),
            chat(5, &[("gen_ai.conversation.id", "s"), ("gen_ai.prompt.name", "somebody-elses")]),
            chat(6, &[("gen_ai.conversation.id", "nobody")]),
            {"traceId": "", "name": "GET /health", "attributes": []},
        ]),
    )
    .await;
    let partial = answer.json()["partialSuccess"].clone();
    assert_eq!((answer.status, &partial["rejectedSpans"]), (200, &json!("3")));
    let message = partial["errorMessage"].as_str().unwrap();
    for part in [
        &format!("the sender says {other}"),
        "input_tokens cannot be -1",
        "\"nobody\" of pack support-prompts is not known here",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!((requests(&app).await, metric(&app, "ignored_total").await), (1, "2".to_owned()));
}

#[tokio::test]
async fn protobuf_is_answered_in_protobuf_and_gzip_is_inflated() {
    let app = TestApp::start().await.with_canary().await;
    let span = Span { trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span] }];
    let traces = Traces { resource_spans: vec![ResourceSpans { resource: None, scope_spans }] };
    let bytes = traces.encode_to_vec();
    let protobuf = ("content-type", "application/x-protobuf");
    let plain = send(&app, TRACES, &[protobuf], bytes.clone()).await;
    assert_eq!(
        (plain.status, &plain.headers["content-type"]),
        (200, &"application/x-protobuf".parse().unwrap())
    );
    assert_eq!(Exported::decode(plain.body).unwrap(), Exported::default());
    let zipped = send(&app, TRACES, &[protobuf, ("content-encoding", "gzip")], gzip(&bytes)).await;
    assert_eq!(zipped.status, 200);
    assert_eq!(metric(&app, "spans_total").await, "2");

    let broken = send(&app, TRACES, &[protobuf], vec![0x0a, 0xff]).await;
    let status = Status::decode(broken.body).unwrap();
    assert_eq!((broken.status, status.code), (400, 3));
    assert!(status.message.contains("resource_spans"), "it says where: {}", status.message);
}

#[tokio::test]
async fn errors_are_statuses_of_rpc() {
    let app = TestApp::start().await;
    let json = ("content-type", "application/json");
    let mut told = String::new();
    for (path, headers, body) in [
        (TRACES, vec![json], &b"{"[..]),
        (TRACES, vec![json], br#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": "xyz"}]}]}]}"#),
        (TRACES, vec![], b"{}"),
        (TRACES, vec![("content-type", "text/plain")], b"{}"),
        (TRACES, vec![json, ("content-encoding", "br")], b"{}"),
        (TRACES, vec![json, ("content-encoding", "gzip")], b"{}"),
        ("/otlp/v1/metrics", vec![json], b"{}"),
    ] {
        let answer = send(&app, path, &headers, body.to_vec()).await;
        told.push_str(&format!(
            "{path} {headers:?} {}\n{}\n\n",
            String::from_utf8_lossy(body),
            answer.shown()
        ));
    }
    insta::assert_snapshot!("otlp_errors", told);
    assert_eq!(app.provider.stats().requests, 0, "nothing of it goes to the provider");
}

#[tokio::test]
async fn a_body_is_limited_as_it_comes_and_inflated() {
    let app = TestApp::start().await;
    let json = ("content-type", "application/json");
    let large = vec![b' '; LARGEST_BODY + 1];
    assert_eq!(send(&app, TRACES, &[json], large.clone()).await.status, 413);
    let zipped = gzip(&large);
    assert!(zipped.len() < 100_000);
    let inflated = send(&app, TRACES, &[json, ("content-encoding", "gzip")], zipped).await;
    assert_eq!((inflated.status, &inflated.json()["code"]), (413, &json!(3)));
    let many = json_spans(&app, Value::Array(vec![json!({}); MOST_ITEMS + 1])).await;
    assert_eq!(many.status, 413);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    zipped.write_all(bytes).unwrap();
    zipped.finish().unwrap()
}
