//! Providers that spoil their answers and clients that spoil their requests, each in its own way.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use serin_core::observation::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::world::{ANTHROPIC, CHAT, MESSAGES, RESPONSES, World, exchange, prompted, prompted_at, world};

const ALL: [&str; 3] = [CHAT, RESPONSES, MESSAGES];

#[tokio::test]
async fn a_provider_that_falls_silent_in_the_middle_is_given_up_and_slow() {
    for path in ALL {
        for stream in [false, true] {
            let timeout = Duration::from_millis(30);
            let mut world = world("default: {fault: hang}").stall_timeout(timeout).start().await;
            let answer = world.ask(path, &[], &prompted_at(path, json!({ "stream": stream }))).await;
            assert_eq!((answer.status.as_u16(), answer.is_complete), (200, false), "{path} {stream}");
            assert!(!answer.body.is_empty(), "what came before arrives");
            let seen = world.seen().await;
            assert_eq!(
                (seen.success, seen.error),
                (Some(false), Some(ErrorKind::Provider)),
                "{path} {stream}"
            );
            assert!(seen.latency_ms.is_some_and(|latency| latency >= 30.0), "{seen:?}");
            assert_eq!(world.gateway.counts().stalled.load(Ordering::Relaxed), 1);
            world.provider.stats_when(|stats| stats.cancelled == 1).await;
        }
    }
}

#[tokio::test]
async fn a_slow_stream_is_no_silence_as_long_as_something_comes() {
    let script = "default: {replies: [a b c d e f], chunk_interval_ms: 40}";
    let mut world = world(script).stall_timeout(Duration::from_millis(200)).start().await;
    let answer = world.ask(CHAT, &[], &prompted(json!({"stream": true}))).await;
    assert!(answer.is_complete);
    assert_eq!(world.seen().await.success, Some(true));
}

#[tokio::test]
async fn garbage_and_half_a_json_arrive_as_they_are_and_are_failures() {
    for path in ALL {
        for fault in ["garbage", "half_json"] {
            for stream in [false, true] {
                let mut world = world(&format!("default: {{fault: {fault}}}")).start().await;
                let mut more = json!({ "stream": stream });
                if path == CHAT && stream {
                    more["stream_options"] = json!({"include_usage": true});
                }
                let answer = world.ask(path, &[("x-stand-in-key", "k")], &prompted_at(path, more)).await;
                assert!(answer.is_complete && !answer.body.is_empty(), "{path} {fault}");
                let direct = world.directly(&[("x-stand-in-key", "k")]).await;
                assert_eq!(answer.body.len(), direct.body.len(), "{path} {fault}");
                let seen = world.seen().await;
                assert_eq!(
                    (seen.success, seen.error),
                    (Some(false), Some(ErrorKind::Provider)),
                    "{path} {fault}"
                );
                assert_eq!(seen.empty, None, "nothing is made up: {seen:?}");
            }
        }
    }
}

#[tokio::test]
async fn pieces_of_any_size_tell_the_same() {
    let text = "na\u{ef}ve \u{1f600} caf\u{e9} ".repeat(40);
    for path in ALL {
        let mut told = Vec::new();
        for frame_bytes in ["1", "3", "1048576"] {
            let script = format!("default: {{replies: ['{text}'], frame_bytes: {frame_bytes}}}");
            let mut world = world(&script).start().await;
            for stream in [false, true] {
                let answer = world.ask(path, &[], &prompted_at(path, json!({ "stream": stream }))).await;
                assert!(answer.is_complete, "{path} {frame_bytes}");
                let mut seen = world.seen().await;
                (seen.latency_ms, seen.ttft_ms) = (None, None);
                assert_eq!(seen.success, Some(true), "{path} {frame_bytes} {seen:?}");
                told.push(seen);
            }
        }
        assert!(told.iter().all(|seen| seen.response_length == told[0].response_length), "{path}: {told:?}");
        assert!(told.iter().all(|seen| seen.output_tokens == told[0].output_tokens), "{path}: {told:?}");
    }
}

#[tokio::test]
async fn chunks_of_a_megabyte_pass_and_are_counted_when_they_are_too_large_to_be_read() {
    let script =
        format!("default: {{replies: ['{}'], chunks: 1, frame_bytes: 1048576}}", "x".repeat(3 << 20));
    let mut world = world(&script).start().await;
    for stream in [false, true] {
        let answer = world.ask(CHAT, &[], &prompted(json!({ "stream": stream }))).await;
        assert!(answer.is_complete && answer.body.len() > 3 << 20, "{}", answer.body.len());
        let seen = world.seen().await;
        assert_eq!((seen.success, seen.response_length), (Some(true), None), "{seen:?}");
    }
    assert_eq!(world.gateway.counts().tap_overflow.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn thirty_megabytes_of_a_client_arrive_unchanged() {
    let world = world("{}").start().await;
    let image = format!("data:image/png;base64,{}", "A".repeat(30 << 20));
    let messages = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]}]);
    let answer = world.ask(CHAT, &[], &prompted(json!({ "messages": messages }))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.received()["messages"][1], messages[0]);
}

#[tokio::test]
async fn a_json_that_is_too_deep_is_refused_or_left_to_the_provider() {
    let world = world("{}").start().await;
    let deep =
        format!("{{\"model\":\"small\",\"messages\":[],\"x\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let refused = exchange(world.addr, "POST", CHAT, &[("x-serin-prompt", "support")], deep.clone()).await;
    assert_eq!((refused.status.as_u16(), refused.error().0.as_str()), (400, "invalid_json"));
    exchange(world.addr, "POST", CHAT, &[], deep.clone()).await;
    assert_eq!(world.provider.last_request().unwrap().body, deep);
}

#[tokio::test]
async fn of_a_key_that_comes_twice_the_last_one_counts_and_every_prompt_goes() {
    let world = world("{}").start().await;
    let body = r#"{"prompt":{"id":"pmpt_1"},"x":1,"model":"small","messages":[],"x":2,"prompt":{"id":"support","variables":{"name":"Ann","name":"Bob"}}}"#;
    let answer = exchange(world.addr, "POST", CHAT, &[], body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let received = world.provider.last_request().unwrap().body.clone();
    let text = String::from_utf8(received.to_vec()).unwrap();
    assert!(!text.contains("prompt") && text.contains("for Bob."), "{text}");
    assert!(text.starts_with(r#"{"x":1,"model":"small","messages":[{"#), "{text}");
}

/// Writes to a connection of its own piece by piece, and returns what comes back until it closes.
async fn written(world: &World, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(world.addr).await.unwrap();
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    String::from_utf8(received).unwrap()
}

#[tokio::test]
async fn a_body_that_comes_slowly_in_chunks_or_after_a_question_is_the_same_body() {
    let world = world("{}").start().await;
    let body = prompted(json!({})).to_string();
    let (first, second) = body.as_bytes().split_at(11);
    let head = |more: &str| format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n{more}\r\n\r\n");
    let length = format!("content-length: {}", body.len());
    // One byte at a time.
    let slow = head(&length);
    let bytes: Vec<&[u8]> = slow.as_bytes().chunks(7).chain(body.as_bytes().chunks(1)).collect();
    let answer = written(&world, &bytes).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let expected = world.received();
    // With `transfer-encoding: chunked`.
    let chunked = [
        format!("{}{:x}\r\n", head("transfer-encoding: chunked"), first.len()).into_bytes(),
        first.to_vec(),
        format!("\r\n{:x}\r\n", second.len()).into_bytes(),
        second.to_vec(),
        b"\r\n0\r\n\r\n".to_vec(),
    ];
    let answer = written(&world, &chunked.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(world.received(), expected);
    // After `Expect: 100-continue`, which is for the gateway alone.
    let asking = head(&format!("{length}\r\nexpect: 100-continue"));
    let answer = written(&world, &[asking.as_bytes(), body.as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 100") && answer.contains("HTTP/1.1 200"), "{answer}");
    assert_eq!(world.received(), expected);
    assert!(!world.provider.last_request().unwrap().headers.contains_key("expect"));
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_nobody() {
    let world = world("{}").start().await;
    let mut stream = TcpStream::connect(world.addr).await.unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\ncontent-length: 500\r\n\r\n{{\"model\":");
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    // A request behind it is served as ever.
    let answer = world.ask(CHAT, &[], &prompted(json!({}))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.provider.stats().requests, 1);
}

#[tokio::test]
async fn a_full_queue_drops_what_was_seen_and_counts_it_while_prompts_go_on() {
    let world = world("{}").start().await;
    // Nobody takes what is told: the queue of this world holds 1 000 signals.
    let body = prompted(json!({}));
    for number in 0..400 {
        let session = format!("s-{number}");
        let answer = world.ask(CHAT, &[("x-serin-session", &session)], &body).await;
        assert_eq!(answer.status, 200, "{number}");
    }
    let dropped = world.resolver.signals.dropped();
    assert_eq!(dropped.contacts() + dropped.facts(), 3 * 400 - 1_000);
}

#[tokio::test]
async fn a_key_of_the_gateway_goes_to_anthropic_in_its_own_header() {
    let world = world("require_key: true").provider_key("secret").start().await;
    let body = Bytes::from(prompted_at(MESSAGES, json!({})).to_string());
    for headers in [&[("x-api-key", "client"), ANTHROPIC][..], &[("authorization", "Bearer client")]] {
        let answer = exchange(world.addr, "POST", MESSAGES, headers, body.clone()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let received = world.provider.last_request().unwrap().headers.clone();
        assert_eq!(
            (&received["x-api-key"], received.get("authorization")),
            (&"secret".parse().unwrap(), None)
        );
        assert_eq!(received["anthropic-version"], ANTHROPIC.1);
    }
    let _: Value = world.received();
}
