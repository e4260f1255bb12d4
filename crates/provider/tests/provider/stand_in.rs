//! Scripts, counters and connections of the stand-in.

use std::time::{Duration, Instant};

use crate::client::{ask, chat, exchange, raw_bytes, raw_request, send, start};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use serin_provider::{Script, StandIn, Stats};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

const TWO_PROMPTS: &str = "
rules:
  - when: {system_contains: support agent}
    behaviour: {replies: [good answer], quality: 0.9}
  - when: {system_contains: careless}
    behaviour: {replies: [bad answer], quality: 0.2}
default: {replies: [any answer]}
";

fn streamed(system: &str) -> Value {
    let mut request = chat(system, "hi");
    request["stream"] = true.into();
    request
}

#[tokio::test]
async fn a_worse_prompt_gets_worse_answers() {
    let provider = start(TWO_PROMPTS).await;
    for (system, content, quality) in [
        ("You are a support agent.", "good answer", "0.9"),
        ("You are careless.", "bad answer", "0.2"),
        ("You are anyone.", "any answer", "1"),
    ] {
        let answer = ask(provider.addr(), &[], &chat(system, "hi")).await;
        assert_eq!(answer.content(), content);
        assert_eq!(answer.header("x-stand-in-quality"), quality);
    }
}

#[tokio::test]
async fn the_system_prompt_is_all_system_and_developer_text_in_strings_or_parts() {
    let provider = start(TWO_PROMPTS).await;
    let user = json!({"role": "user", "content": "I am careless"});
    for messages in [
        json!([{"role": "developer", "content": "be careless"}, user]),
        json!([{"role": "system", "content": "be kind"}, user, {"role": "developer", "content": "be careless"}]),
        json!([{"role": "system", "content": [
            {"type": "text", "text": "be care"}, {"type": "text", "text": "less\u{e9}\n"},
        ]}, user]),
    ] {
        let request = json!({"model": "small", "messages": messages});
        let answer = ask(provider.addr(), &[], &request).await;
        assert_eq!(answer.content(), "bad answer", "{request}");
    }
    let only_the_user_says_so = json!({"model": "small", "messages": [user]});
    let answer = ask(provider.addr(), &[], &only_the_user_says_so).await;
    assert_eq!(answer.content(), "any answer");
}

#[tokio::test]
async fn a_new_script_answers_the_next_request() {
    let provider = start(TWO_PROMPTS).await;
    provider.set_script(Script::parse("default: {replies: [new]}").expect("a valid script"));
    let answer = ask(provider.addr(), &[], &chat("support agent", "hi")).await;
    assert_eq!(answer.content(), "new");
}

const DICE: &str = "
seed: 7
default:
  replies: [a, b, c, d, e, f, g, h]
  failure_rate: 0.3
  output_tokens: {median: 50, p99: 500}
";

/// Sends a request and returns what chance decides about it.
async fn rolled(addr: std::net::SocketAddr, key: Option<&str>) -> String {
    let headers: Vec<_> = key.map(|key| ("x-stand-in-key", key)).into_iter().collect();
    let answer = ask(addr, &headers, &chat("", "hi")).await;
    let json = answer.json();
    format!(
        "{} {} {} {}",
        answer.status,
        json["id"],
        json["choices"][0]["message"]["content"],
        json["usage"]["completion_tokens"]
    )
}

#[tokio::test]
async fn a_key_gives_the_same_answer_in_any_order_and_on_any_provider() {
    let (one, other) = (start(DICE).await, start(DICE).await);
    let keys: Vec<String> = (0..20).map(|turn| format!("session-{turn}")).collect();
    let mut forwards = Vec::new();
    for key in &keys {
        forwards.push(rolled(one.addr(), Some(key)).await);
    }
    let mut backwards = Vec::new();
    for key in keys.iter().rev() {
        backwards.push(rolled(other.addr(), Some(key)).await);
    }
    backwards.reverse();
    assert_eq!(forwards, backwards);
    let distinct: std::collections::BTreeSet<_> = forwards.iter().collect();
    assert!(distinct.len() > 10, "keys make a difference: {forwards:?}");
}

#[tokio::test]
async fn without_keys_the_same_sequence_gives_the_same_answers_and_another_seed_others() {
    let other_seed = DICE.replace("seed: 7", "seed: 8");
    let mut runs = Vec::new();
    for script in [DICE, DICE, &other_seed] {
        let provider = start(script).await;
        let mut run = Vec::new();
        for _ in 0..10 {
            run.push(rolled(provider.addr(), None).await);
        }
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn the_first_byte_comes_after_the_latency_and_chunks_after_their_interval() {
    let provider = start("{}").await;
    let start = Instant::now();
    let behaviour = r#"{"latency_ms": {"fixed": 60}, "chunk_interval_ms": 20, "replies": ["a b"]}"#;
    let headers = [("x-stand-in-script", behaviour)];
    let body = streamed("").to_string();
    let response = send(provider.addr(), "POST", "/v1/chat/completions", &headers, body).await;
    let response = response.expect("an answer");
    assert!(start.elapsed() >= Duration::from_millis(60));
    let collected = response.into_body().collect().await.expect("a complete body");
    assert!(collected.to_bytes().ends_with(b"data: [DONE]\n\n"));
    // Five events (role, two words, reason, end mark) have four intervals between them.
    assert!(start.elapsed() >= Duration::from_millis(140));
}

#[tokio::test]
async fn a_drop_before_the_answer_sends_no_byte() {
    let provider = start("{}").await;
    let behaviour = r#"{"drop_rate": 1, "drop": "before"}"#;
    for request in [chat("", "hi"), streamed("")] {
        assert_eq!(raw_bytes(provider.addr(), behaviour, &request).await, "");
    }
    assert_eq!(provider.stats_when(|stats| stats.dropped == 2).await.completed, 0);
}

#[tokio::test]
async fn a_drop_in_the_middle_of_a_stream_closes_without_the_last_chunk() {
    let provider = start("{}").await;
    let behaviour = r#"{"drop_rate": 1, "replies": ["a b c d"]}"#;
    let received = raw_bytes(provider.addr(), behaviour, &streamed("")).await;
    assert!(received.starts_with("HTTP/1.1 200 OK\r\n"), "{received}");
    assert_eq!(received.matches("data: {").count(), 3, "{received}");
    assert!(!received.contains("[DONE]"), "{received}");
    assert!(!received.ends_with("0\r\n\r\n"), "{received}");
    assert_eq!(provider.stats_when(|stats| stats.dropped == 1).await.in_flight, 0);
}

#[tokio::test]
async fn a_drop_in_the_middle_of_a_json_answer_sends_less_than_announced() {
    let provider = start("{}").await;
    let received = raw_bytes(provider.addr(), r#"{"drop_rate": 1}"#, &chat("", "hi")).await;
    let (head, body) = received.split_once("\r\n\r\n").expect("the head is complete");
    let announced =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length is announced");
    let announced: usize = announced.parse().expect("the length is a number");
    assert_eq!(body.len(), announced / 2);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_byte_counts_as_cancelled() {
    let provider = start("{}").await;
    let behaviour = r#"{"latency_ms": {"fixed": 3600000}}"#;
    let connection = raw_request(provider.addr(), behaviour, &chat("", "hi")).await;
    provider.stats_when(|stats| stats.in_flight == 1).await;
    drop(connection);
    let stats = provider.stats_when(|stats| stats.cancelled == 1).await;
    assert_eq!((stats.in_flight, stats.completed), (0, 0));
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_stream_counts_as_cancelled() {
    let provider = start("{}").await;
    let behaviour = r#"{"chunk_interval_ms": 60000}"#;
    let mut connection = raw_request(provider.addr(), behaviour, &streamed("")).await;
    let mut first_bytes = [0; 16];
    connection.read_exact(&mut first_bytes).await.expect("the stream begins");
    assert_eq!(provider.stats().in_flight, 1);
    drop(connection);
    let stats = provider.stats_when(|stats| stats.cancelled == 1).await;
    assert_eq!((stats.in_flight, stats.completed), (0, 0));
}

#[tokio::test]
async fn stats_count_answers_and_errors_but_not_questions_about_the_stand_in() {
    let provider = start("{}").await;
    let addr = provider.addr();
    ask(addr, &[], &chat("", "hi")).await;
    ask(addr, &[], &streamed("")).await;
    exchange(addr, "GET", "/v1/files/f-1", &[], "").await;
    exchange(addr, "HEAD", "/v1/models", &[], "").await;
    let shown = exchange(addr, "GET", "/stand-in/stats", &[], "").await;
    assert_eq!(
        shown.json(),
        json!({"requests": 4, "completed": 4, "cancelled": 0, "dropped": 0, "in_flight": 0})
    );
    let expected = Stats { requests: 4, completed: 4, ..Stats::default() };
    assert_eq!(provider.stats(), expected);
}

#[tokio::test]
async fn the_last_request_is_shown_as_it_arrived() {
    let provider = start("{}").await;
    let addr = provider.addr();
    let none_yet = exchange(addr, "GET", "/stand-in/last", &[], "").await;
    assert_eq!(none_yet.status, 404);
    let body = r#"{"model" :"small","messages":[{"role":"user","content":"h\u00e9"}], "x": 1.0}"#;
    let headers = [("x-tag", "one"), ("x-tag", "two"), ("authorization", "Bearer k")];
    exchange(addr, "POST", "/v1/chat/completions?beta=1", &headers, body).await;
    let last = exchange(addr, "GET", "/stand-in/last", &[], "").await.json();
    assert_eq!(last["method"], "POST");
    assert_eq!(last["path"], "/v1/chat/completions?beta=1");
    assert_eq!(last["headers"]["x-tag"], "one, two");
    assert_eq!(last["headers"]["authorization"], "Bearer k");
    assert_eq!(last["body"], body);
    let recorded = provider.last_request().expect("a request arrived");
    assert_eq!(recorded.body, body);
}

#[tokio::test]
async fn other_paths_answer_as_a_provider_does() {
    let provider = start("models: [small, large]").await;
    let addr = provider.addr();
    let models = exchange(addr, "GET", "/v1/models", &[], "").await.json();
    let ids: Vec<_> = (0..2).map(|n| &models["data"][n]["id"]).collect();
    assert_eq!(ids, ["small", "large"]);

    let request = json!({"model": "e", "input": ["one", "two", "one"]}).to_string();
    let embeddings = exchange(addr, "POST", "/v1/embeddings", &[], request).await.json();
    let vectors = [0, 1, 2].map(|n| &embeddings["data"][n]["embedding"]);
    assert_eq!(vectors[0].as_array().expect("a vector").len(), 8);
    assert_eq!(vectors[0], vectors[2]);
    assert_ne!(vectors[0], vectors[1]);

    let unknown = exchange(addr, "DELETE", "/v1/files/f-1", &[], "").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["error"]["code"], "unknown_url");
    let wrong_method = exchange(addr, "GET", "/v1/chat/completions", &[], "").await;
    assert_eq!(wrong_method.status, 405);
    assert_eq!(wrong_method.json()["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn a_body_of_some_megabytes_is_accepted_and_one_above_64_is_not() {
    let provider = start("{}").await;
    let large = chat("", &"x".repeat(5 * 1024 * 1024));
    assert_eq!(ask(provider.addr(), &[], &large).await.status, 200);
    let too_large = vec![b' '; 64 * 1024 * 1024 + 1];
    let refused = exchange(provider.addr(), "POST", "/v1/chat/completions", &[], too_large).await;
    assert_eq!(refused.status, 413);
}

#[tokio::test]
async fn shutdown_closes_open_connections_and_frees_the_port() {
    let provider = start("{}").await;
    let (addr, stand_in) = (provider.addr(), provider.stand_in().clone());
    let behaviour = r#"{"latency_ms": {"fixed": 3600000}}"#;
    let mut connection = raw_request(addr, behaviour, &chat("", "hi")).await;
    provider.stats_when(|stats| stats.in_flight == 1).await;
    provider.shutdown().await;
    let mut rest = Vec::new();
    // A reset instead of an orderly close is an end as well.
    let _ = connection.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
    stand_in.stats_when(|stats| stats.in_flight == 0).await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn the_routes_work_under_a_listener_of_the_caller_s() {
    let stand_in = StandIn::new(Script::parse(TWO_PROMPTS).expect("a valid script"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let addr = listener.local_addr().expect("it is bound");
    let serving = tokio::spawn(async move { axum::serve(listener, stand_in.router()).await });
    let answer = ask(addr, &[], &chat("support agent", "hi")).await;
    assert_eq!(answer.content(), "good answer");
    let behaviour = r#"{"drop_rate": 1, "drop": "before"}"#;
    assert_eq!(raw_bytes(addr, behaviour, &chat("", "hi")).await, "");
    serving.abort();
}
