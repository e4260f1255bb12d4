//! Streamed answers.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::world::{CHAT, World, prompted, send, world};
use crate::gateway::StreamUsage;

const KEY: (&str, &str) = ("x-stand-in-key", "k");

fn events(body: &Bytes) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    let data = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| Value::from(data))).collect()
}

/// The answer through the gateway, and the answer to what the provider received, made in the same second.
async fn both(world: &World, body: &Value) -> (Bytes, Bytes) {
    loop {
        let answer = world.chat(&[KEY], body).await;
        let direct = world.directly(&[KEY]).await;
        assert!(answer.is_complete && direct.is_complete);
        if events(&answer.body)[0]["created"] == events(&direct.body)[0]["created"] {
            return (answer.body, direct.body);
        }
    }
}

#[tokio::test]
async fn a_stream_arrives_unchanged_and_is_measured() {
    let mut world = world("default: {replies: [\"one tw\u{f6} three\"]}").start().await;
    let (answer, direct) =
        both(&world, &prompted(json!({"stream": true, "stream_options": {"include_usage": true}}))).await;
    assert_eq!(answer, direct);
    let seen = world.seen().await;
    assert_eq!((seen.success, seen.error), (Some(true), None));
    assert!(seen.ttft_ms.unwrap() > 0.0 && seen.ttft_ms <= seen.latency_ms, "{seen:?}");
    assert_eq!((seen.response_length, seen.empty, seen.refusal), (Some(13.0), Some(false), Some(false)));
    let usage = &events(&direct)[events(&direct).len() - 2]["usage"];
    assert_eq!(seen.output_tokens, usage["completion_tokens"].as_f64());
    assert_eq!(world.gateway.counts().usage_chunks_removed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_usage_that_the_gateway_asked_for_is_kept_from_the_client() {
    let mut world = world("{}").start().await;
    let (answer, direct) = both(&world, &prompted(json!({"stream": true}))).await;
    assert_eq!(world.received()["stream_options"], json!({"include_usage": true}));
    let mut expected = events(&direct);
    let usage = expected.remove(expected.len() - 2);
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(events(&answer), expected);
    assert!(answer.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(world.seen().await.input_tokens, usage["usage"]["prompt_tokens"].as_f64());
    assert!(world.gateway.counts().usage_chunks_removed.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn usage_is_not_asked_for_when_the_setting_says_so() {
    let mut world = world("{}").settings(|settings| settings.stream_usage = StreamUsage::Leave).start().await;
    let (answer, direct) = both(&world, &prompted(json!({"stream": true}))).await;
    assert_eq!(answer, direct);
    assert_eq!(world.received().get("stream_options"), None);
    let seen = world.seen().await;
    assert_eq!((seen.success, seen.input_tokens), (Some(true), None));
}

#[tokio::test]
async fn the_first_chunk_arrives_while_the_answer_goes_on_and_leaving_cancels_the_call() {
    for asks_usage in [true, false] {
        let mut world = world("default: {chunk_interval_ms: 60000}").start().await;
        let body = prompted(json!({"stream": true, "stream_options": {"include_usage": asks_usage}}));
        let mut answer = send(world.addr, "POST", CHAT, &[], body.to_string()).await;
        let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"data: {") && first.ends_with(b"\n\n"), "{first:?}");
        let stats = world.provider.stats();
        assert_eq!((stats.in_flight, stats.completed), (1, 0));
        drop(answer);
        let stats = world.provider.stats_when(|stats| stats.cancelled == 1).await;
        assert_eq!((stats.in_flight, stats.completed), (0, 0));
        let seen = world.seen().await;
        assert_eq!((seen.success, seen.error, seen.latency_ms), (None, None, None));
        assert_eq!(world.gateway.counts().client_left.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_byte_cancels_the_call() {
    let mut world = world("default: {latency_ms: {fixed: 3600000}}").start().await;
    let addr = world.addr;
    let request =
        tokio::spawn(async move { send(addr, "POST", CHAT, &[], prompted(json!({})).to_string()).await });
    world.provider.stats_when(|stats| stats.in_flight == 1).await;
    request.abort();
    world.provider.stats_when(|stats| stats.cancelled == 1).await;
    let seen = world.seen().await;
    assert_eq!((seen.success, seen.error), (None, None));
}
