//! Responses and Messages, which are served as chats are.

use std::sync::atomic::Ordering;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use serin_core::observation::ErrorKind;

use crate::gateway::Price;

use super::world::{ANTHROPIC, Answer, CHAT, MESSAGES, RESPONSES, World, exchange, prompted_at, send, world};

const ALL: [&str; 3] = [CHAT, RESPONSES, MESSAGES];
const KEY: (&str, &str) = ("x-stand-in-key", "k");

/// The answer through the gateway and the answer to what the provider received, made in the same second.
async fn both(world: &World, path: &str, body: &Value) -> (Answer, Answer) {
    let second = |answer: &Answer| {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        text.split("created").nth(1).map(|rest| rest.chars().take(20).collect::<String>())
    };
    loop {
        let answer = world.ask(path, &[KEY], body).await;
        let direct = world.directly(&[KEY]).await;
        if second(&answer) == second(&direct) {
            return (answer, direct);
        }
    }
}

#[tokio::test]
async fn the_prompt_becomes_the_system_text_of_each_protocol_and_the_pack_s_parameters_follow() {
    let world = world("{}").start().await;
    let system = "You are support 1.0.0 for Ann.";
    let image = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "what is this?"}, {"type": "input_image", "image_url": "data:,"}]},
    ]);
    let answer = world
        .ask(RESPONSES, &[("x-serin-session", "s")], &prompted_at(RESPONSES, json!({"input": image})))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-serin-version")),
        (200, Some("1.0.0")),
        "{answer:?}"
    );
    assert_eq!(
        world.received(),
        json!({"model": "small", "input": image, "temperature": 0.2, "instructions": system})
    );
    let own = json!([{"type": "text", "text": "own", "cache_control": {"type": "ephemeral"}}]);
    let answer = world.ask(MESSAGES, &[], &prompted_at(MESSAGES, json!({ "system": own }))).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-serin-variant")),
        (200, Some("stable")),
        "{answer:?}"
    );
    let received = world.received();
    assert_eq!(received["system"], json!([{"type": "text", "text": system}, own[0]]));
    assert_eq!((&received["temperature"], received.get("prompt")), (&json!(0.2), None));
}

#[tokio::test]
async fn answers_arrive_unchanged_and_are_measured_whole_and_streamed_alike() {
    for path in ALL {
        let mut world =
            world("default: {replies: [\"one tw\u{f6} three\"], cached_share: 0.5}").start().await;
        let mut measured = Vec::new();
        for stream in [false, true] {
            let mut more = json!({ "stream": stream });
            if stream && path == CHAT {
                more["stream_options"] = json!({"include_usage": true});
            }
            let (answer, direct) = both(&world, path, &prompted_at(path, more)).await;
            assert_eq!((answer.status.as_u16(), &answer.body), (200, &direct.body), "{path}");
            let mut seen = world.seen().await;
            assert_eq!(seen.ttft_ms.is_some(), stream, "{path}: {seen:?}");
            assert!(seen.latency_ms.is_some_and(|latency| latency > 0.0), "{path}: {seen:?}");
            (seen.latency_ms, seen.ttft_ms) = (None, None);
            measured.push(seen);
        }
        assert_eq!(measured[0], measured[1], "{path}");
        let seen = &measured[0];
        assert_eq!((seen.success, seen.response_length, seen.empty), (Some(true), Some(13.0), Some(false)));
        assert!(seen.cached_tokens > Some(0.0) && seen.cached_tokens < seen.input_tokens, "{path}: {seen:?}");
        assert!(seen.output_tokens > Some(0.0), "{path}: {seen:?}");
    }
}

#[tokio::test]
async fn refusals_truncation_emptiness_and_tool_calls_are_seen_in_every_protocol() {
    for path in ALL {
        let mut world = world("{}").start().await;
        let tools = match path {
            CHAT => json!([{"type": "function", "function": {"name": "search", "parameters": {}}}]),
            RESPONSES => json!([{"type": "function", "name": "search", "parameters": {}}]),
            _ => json!([{"name": "search", "input_schema": {"type": "object"}}]),
        };
        for stream in [false, true] {
            let mut see = async |script: &str| {
                let body = prompted_at(path, json!({"stream": stream, "tools": tools}));
                let answer = world.ask(path, &[("x-stand-in-script", script)], &body).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                let seen = world.seen().await;
                assert_eq!(seen.success, Some(true), "{path} {script}: {seen:?}");
                seen
            };
            let refused = see(r#"{"refusal_rate": 1}"#).await;
            assert_eq!((refused.refusal, refused.empty), (Some(true), Some(false)), "{path}");
            let filtered = see(r#"{"refusal_rate": 1, "refusal": "content_filter"}"#).await;
            assert_eq!(filtered.refusal, Some(true), "{path}");
            let cut = see(r#"{"truncate_rate": 1}"#).await;
            assert_eq!((cut.truncated, cut.refusal), (Some(true), Some(false)), "{path}");
            let empty = see(r#"{"empty_rate": 1}"#).await;
            assert_eq!((empty.empty, empty.refusal), (Some(true), Some(false)), "{path}");
            let called = see(r#"{"tool_call_rate": 1, "tool_calls": [{"name": "search", "arguments": {"q": [1]}}, {"name": "other"}]}"#).await;
            assert_eq!((called.tool_calls, called.wrong_tool_calls), (Some(2), Some(1)), "{path}");
            assert_eq!(called.empty, Some(false), "{path}");
        }
    }
}

#[tokio::test]
async fn a_format_that_was_asked_for_and_is_broken_is_seen_in_every_protocol() {
    for path in ALL {
        let mut world = world("{}").start().await;
        let format = match path {
            CHAT => json!({"response_format": {"type": "json_object"}}),
            RESPONSES => json!({"text": {"format": {"type": "json_object"}}}),
            _ => json!({"output_config": {"format": {"type": "json_schema", "schema": {}}}}),
        };
        for stream in [false, true] {
            for (script, invalid) in
                [(r#"{"replies": ["no JSON"]}"#, true), (r#"{"replies": ["{\"a\": [1, 2]}"]}"#, false)]
            {
                let mut body = prompted_at(path, format.clone());
                body["stream"] = stream.into();
                world.ask(path, &[("x-stand-in-script", script)], &body).await;
                assert_eq!(world.seen().await.invalid_format, Some(invalid), "{path} {script}");
            }
        }
    }
}

#[tokio::test]
async fn errors_of_the_provider_arrive_as_they_are_before_and_inside_of_an_answer() {
    for (path, status) in [(RESPONSES, 503), (MESSAGES, 529)] {
        let before = format!("default: {{failure_rate: 1, failure: {{status: {status}}}}}");
        let inside = format!("default: {{failure_rate: 1, failure: {{status: {status}, at: middle}}}}");
        for (script, expected) in [(before, status), (inside, 200)] {
            let mut world = world(&script).start().await;
            let (answer, direct) = both(&world, path, &prompted_at(path, json!({"stream": true}))).await;
            assert_eq!((answer.status.as_u16(), &answer.body), (expected, &direct.body), "{path}");
            let word: &[u8] = if path == MESSAGES { b"overloaded_error" } else { b"overloaded, please" };
            assert!(answer.body.windows(word.len()).any(|bytes| bytes == word), "{answer:?}");
            let seen = world.seen().await;
            assert_eq!((seen.success, seen.error), (Some(false), Some(ErrorKind::Provider)), "{path}");
        }
    }
}

#[tokio::test]
async fn leaving_a_stream_cancels_the_call_in_every_protocol() {
    for path in [RESPONSES, MESSAGES] {
        let mut world = world("default: {chunk_interval_ms: 60000}").start().await;
        let body = prompted_at(path, json!({"stream": true}));
        let mut answer = send(world.addr, "POST", path, &[ANTHROPIC], body.to_string()).await;
        let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"event: ") && first.ends_with(b"\n\n"), "{first:?}");
        drop(answer);
        let stats = world.provider.stats_when(|stats| stats.cancelled == 1).await;
        assert_eq!((stats.in_flight, stats.completed), (0, 0));
        assert_eq!(world.seen().await.success, None, "{path}");
    }
}

#[tokio::test]
async fn prompts_of_openai_s_own_and_requests_without_one_pass_through_untouched() {
    let mut world = world("{}").start().await;
    for (path, body) in [
        (RESPONSES, r#"{ "model":"small", "prompt":{"id":"pmpt_12","version":"3","variables":{"a":"b"}} }"#),
        (RESPONSES, r#"{"model":"small","input":"hi","instructions":"own"}"#),
        (
            MESSAGES,
            r#"{"model":"small","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"system":"own"}"#,
        ),
    ] {
        let answer = exchange(world.addr, "POST", path, &[ANTHROPIC], body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(world.provider.last_request().unwrap().body, body);
        assert!(answer.header("x-serin-session").is_none());
    }
    assert!(world.signals.try_recv().is_err(), "nothing is told");
}

#[tokio::test]
async fn a_prompt_object_of_the_responses_api_works_with_its_version_for_those_who_may() {
    let mut world = world("{}").settings(|settings| settings.allow_version_override = true).start().await;
    let prompt = json!({"id": "support/answer", "version": "2.0.0", "variables": {"name": "Ann"}});
    let body = json!({"model": "small", "prompt": prompt, "input": "hi"});
    let answer = world.ask(RESPONSES, &[("x-serin-session", "s")], &body).await;
    assert_eq!((answer.header("x-serin-version"), answer.header("x-serin-variant")), (Some("2.0.0"), None));
    assert_eq!(world.received()["instructions"], "You are support 2.0.0 for Ann.");
    assert!(world.signals.try_recv().is_err(), "it is no evidence");
    let forbidding = super::world::world("{}").start().await;
    let refused = forbidding.ask(RESPONSES, &[], &body).await;
    assert_eq!((refused.status.as_u16(), refused.error().0.as_str()), (403, "version_not_allowed"));
}

#[tokio::test]
async fn errors_of_the_gateway_speak_the_protocol_of_their_client() {
    let world = world("{}").start().await;
    let body = prompted_at(MESSAGES, json!({"prompt": {"id": "support/answer"}}));
    let refused = world.ask(MESSAGES, &[], &body).await;
    assert_eq!((refused.status.as_u16(), refused.error().0.as_str()), (422, "missing_variable"));
    assert_eq!(refused.json()["type"], "error");
    let refused = world.ask(RESPONSES, &[], &prompted_at(RESPONSES, json!({"input": 7}))).await;
    assert_eq!((refused.status.as_u16(), refused.error().0.as_str()), (400, "invalid_messages"));
    assert_eq!(refused.json().get("type"), None);
}

#[tokio::test]
async fn a_conversation_is_a_session_and_history_without_one_is_counted() {
    let world = world("{}").start().await;
    for conversation in [json!("conv_1"), json!({"id": "conv_1"})] {
        let body = prompted_at(RESPONSES, json!({ "conversation": conversation }));
        let answer = world.ask(RESPONSES, &[("baggage", "gen_ai.conversation.id=b")], &body).await;
        assert_eq!(answer.header("x-serin-session"), Some("conv_1"));
    }
    let counted = || world.gateway.counts().history_without_session.load(Ordering::Relaxed);
    assert_eq!(counted(), 0);
    world.ask(RESPONSES, &[], &prompted_at(RESPONSES, json!({"previous_response_id": "resp_1"}))).await;
    assert_eq!(counted(), 1);
    let turns = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]);
    world.ask(MESSAGES, &[], &prompted_at(MESSAGES, json!({ "messages": turns }))).await;
    assert_eq!(counted(), 2);
}

#[tokio::test]
async fn an_answer_has_its_price_by_the_table_with_cached_tokens_apart() {
    let price = Price { input: 2.0, cached: 0.5, output: 8.0 };
    for path in ALL {
        let mut world = world("default: {cached_share: 0.5}")
            .settings(|settings| settings.prices = [("small".to_owned(), price)].into_iter().collect())
            .start()
            .await;
        for stream in [false, true] {
            world.ask(path, &[], &prompted_at(path, json!({ "stream": stream }))).await;
            let seen = world.seen().await;
            let [input, cached, output] =
                [seen.input_tokens, seen.cached_tokens, seen.output_tokens].map(Option::unwrap);
            assert!(cached > 0.0);
            let expected = ((input - cached) * 2.0 + cached * 0.5 + output * 8.0) / 1e6;
            assert!((seen.cost.unwrap() - expected).abs() < 1e-12, "{path} {stream}: {seen:?}");
        }
        world.ask(path, &[], &prompted_at(path, json!({"model": "other"}))).await;
        assert_eq!(world.seen().await.cost, None);
        assert_eq!(world.gateway.counts().unpriced.load(Ordering::Relaxed), 1);
    }
}
