//! Providers that fail, and what is told of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use serin_core::observation::ErrorKind;

use super::world::{CHAT, exchange, prompted, world};

#[tokio::test]
async fn errors_of_the_provider_arrive_as_they_are_and_count_by_kind() {
    for (status, kind) in [
        (429, ErrorKind::Provider),
        (500, ErrorKind::Provider),
        (503, ErrorKind::Provider),
        (400, ErrorKind::Request),
    ] {
        let script = format!("default: {{failure_rate: 1, failure: {{status: {status}, retry_after: 7}}}}");
        let mut world = world(&script).start().await;
        for stream in [false, true] {
            let answer = world.chat(&[], &prompted(json!({"stream": stream}))).await;
            let direct = world.directly(&[]).await;
            assert_eq!((answer.status, &answer.body), (direct.status, &direct.body));
            assert_eq!(answer.header("retry-after"), Some("7"));
            assert_eq!(answer.header("x-serin-version"), Some("1.0.0"));
            let seen = world.seen().await;
            assert_eq!((seen.success, seen.error), (Some(false), Some(kind)), "{status}");
            assert_eq!((seen.latency_ms, seen.response_length), (None, None));
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_breaks_off_for_the_client_and_is_a_failure() {
    let mut world = world("default: {drop_rate: 1, replies: [a b c d]}").start().await;
    for stream in [true, false] {
        let answer = world.chat(&[], &prompted(json!({"stream": stream}))).await;
        assert_eq!((answer.status.as_u16(), answer.is_complete), (200, false));
        assert!(!answer.body.is_empty());
        let seen = world.seen().await;
        assert_eq!((seen.success, seen.error), (Some(false), Some(ErrorKind::Provider)));
    }
    assert_eq!(world.gateway.counts().provider_failed.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_error_event_makes_a_stream_of_status_200_a_failure() {
    let mut world = world("default: {failure_rate: 1, failure: {at: middle}}").start().await;
    let answer = world.chat(&[], &prompted(json!({"stream": true}))).await;
    assert_eq!((answer.status.as_u16(), answer.is_complete), (200, true));
    assert!(answer.body.windows(9).any(|bytes| bytes == b"{\"error\":"), "{answer:?}");
    let seen = world.seen().await;
    assert_eq!((seen.success, seen.error), (Some(false), Some(ErrorKind::Provider)));
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_a_502() {
    let mut world = world("default: {drop_rate: 1, drop: before}").start().await;
    let answer = world.chat(&[], &prompted(json!({}))).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (502, "provider_unreachable"));
    assert_eq!(world.seen().await.error, Some(ErrorKind::Provider));
    assert_eq!(world.provider.stats().requests, 1, "what was sent is not sent again");
}

#[tokio::test]
async fn a_provider_that_is_down_is_named_in_a_502() {
    let mut world = world("{}").provider_down().start().await;
    let answer = world.chat(&[("x-request-id", "r")], &prompted(json!({}))).await;
    assert_eq!(answer.status, 502);
    let (code, message) = answer.error();
    assert_eq!(code, "provider_unreachable");
    assert!(message.starts_with("could not connect to the provider at http://127.0.0.1:"), "{message}");
    assert!(message.contains("refused"), "{message}");
    let seen = world.seen().await;
    assert_eq!((seen.success, seen.error), (Some(false), Some(ErrorKind::Provider)));
    let other = exchange(world.addr, "GET", "/v1/models", &[("x-request-id", "r")], "").await;
    assert_eq!((other.status.as_u16(), other.header("x-request-id")), (502, Some("r")));
    assert_eq!(world.gateway.counts().unreachable.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_provider_that_does_not_begin_in_time_is_a_504_and_slow() {
    let timeout = Duration::from_millis(20);
    let mut world =
        world("default: {latency_ms: {fixed: 3600000}}").first_byte_timeout(timeout).start().await;
    let answer = world.chat(&[], &prompted(json!({}))).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (504, "provider_timeout"));
    let seen = world.seen().await;
    assert_eq!((seen.success, seen.error), (Some(false), Some(ErrorKind::Provider)));
    assert!(seen.latency_ms.is_some_and(|latency| latency >= 20.0), "{seen:?}");
    world.provider.stats_when(|stats| stats.cancelled == 1).await;
    assert_eq!(world.gateway.counts().timed_out.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_answer_beyond_the_limit_passes_and_is_counted() {
    let mut world = world("{}").settings(|settings| settings.answer_limit = 100).start().await;
    let answer = exchange(world.addr, "POST", CHAT, &[], prompted(json!({})).to_string()).await;
    assert!(answer.is_complete && answer.body.len() > 100);
    let seen = world.seen().await;
    assert_eq!((seen.success, seen.response_length), (Some(true), None));
    assert_eq!(world.gateway.counts().tap_overflow.load(Ordering::Relaxed), 1);
}
