//! Prompts, sessions and versions of chat requests.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use serin_core::observation::Fact;

use super::world::{CHAT, exchange, prompted, world};
use crate::gateway::SystemMessage;
use crate::signal::Signal;

#[tokio::test]
async fn the_prompt_member_goes_and_its_system_text_and_parameters_come() {
    let world = world("{}").start().await;
    let body =
        prompted(json!({"x": 1.50, "messages": [{"role": "system", "content": "own"}, {"role": "user"}]}));
    let answer = world.chat(&[("x-serin-session", "s-1")], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        world.received(),
        json!({
            "model": "small",
            "x": 1.5,
            "messages": [
                {"role": "system", "content": "You are support 1.0.0 for Ann."},
                {"role": "system", "content": "own"},
                {"role": "user"},
            ],
            "temperature": 0.2,
        })
    );
    let told = ["x-serin-version", "x-serin-variant", "x-serin-session"].map(|name| answer.header(name));
    assert_eq!(told, [Some("1.0.0"), Some("stable"), Some("s-1")]);
}

#[tokio::test]
async fn headers_name_the_prompt_as_well_and_none_of_ours_reach_the_provider() {
    let world = world("{}").start().await;
    let headers = [
        ("x-serin-prompt", "support"),
        ("x-serin-variables", r#"{"name": "Bob"}"#),
        ("x-serin-session", "s"),
        ("x-request-id", "r-1"),
        ("authorization", "Bearer client"),
        ("accept-encoding", "gzip"),
    ];
    let body = json!({"model": "small", "messages": [{"role": "user", "content": "hi"}]});
    let answer = world.chat(&headers, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(world.received()["messages"][0]["content"], "You are support 1.0.0 for Bob.");
    let received = world.provider.last_request().unwrap().headers.clone();
    assert!(!received.keys().any(|name| name.as_str().starts_with("x-serin-")), "{received:?}");
    let value = |name: &str| received.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(value("x-request-id").as_deref(), Some("r-1"));
    assert_eq!(value("authorization").as_deref(), Some("Bearer client"));
    assert_eq!(value("accept-encoding").as_deref(), Some("identity"));
    assert_eq!(value("host"), Some(world.provider.addr().to_string()));
}

#[tokio::test]
async fn a_provider_key_of_the_gateway_takes_the_place_of_the_client_s() {
    let world = world("require_key: true").provider_key("secret").start().await;
    let answer = world.chat(&[("authorization", "Bearer client")], &prompted(json!({}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(world.provider.last_request().unwrap().headers["authorization"], "Bearer secret");
    assert!(!format!("{:?}", world.gateway).contains("secret"));
}

#[tokio::test]
async fn an_answer_in_one_piece_arrives_unchanged_and_is_measured() {
    let mut world = world("default: {replies: [\"h\u{e9}llo {user}\"]}").start().await;
    let headers = [("x-stand-in-key", "k"), ("x-serin-session", "s")];
    // The answer holds the second it was made in: both must fall into the same one.
    let (answer, direct) = loop {
        let answer = world.chat(&headers, &prompted(json!({}))).await;
        let direct = world.directly(&headers).await;
        if answer.json()["created"] == direct.json()["created"] {
            break (answer, direct);
        }
    };
    assert_eq!(answer.body, direct.body);
    assert_eq!(answer.header("x-stand-in-quality"), direct.header("x-stand-in-quality"));
    assert_eq!(answer.header("content-length"), direct.header("content-length"));
    let seen = world.seen().await;
    assert_eq!((seen.success, seen.error, seen.ttft_ms), (Some(true), None, None));
    assert!(seen.latency_ms.is_some_and(|latency| latency > 0.0), "{seen:?}");
    assert_eq!(seen.response_length, Some(8.0));
    let usage = &direct.json()["usage"];
    assert_eq!(seen.input_tokens, usage["prompt_tokens"].as_f64());
    assert_eq!(seen.output_tokens, usage["completion_tokens"].as_f64());
    assert_eq!(seen.finish_reason.as_deref(), Some("stop"));
}

#[tokio::test]
async fn a_request_tells_its_contact_its_start_and_its_end_under_one_id() {
    let mut world = world("{}").canary_at(100.0).start().await;
    let answer = world.chat(&[("x-serin-session", "s")], &prompted(json!({}))).await;
    assert_eq!(
        (answer.header("x-serin-version"), answer.header("x-serin-variant")),
        (Some("2.0.0"), Some("canary"))
    );
    let Some(Signal::Contact(contact)) = world.signals.recv().await else {
        panic!("the contact comes first")
    };
    let Some(Signal::Fact(start)) = world.signals.recv().await else { panic!("the start comes second") };
    let Some(Signal::Fact(end)) = world.signals.recv().await else { panic!("the end comes last") };
    assert_eq!((contact.key.as_str(), contact.cohort.0, contact.pinned), ("s", 2, true));
    assert_eq!(start.fact, Fact::Started);
    assert!(matches!(end.fact, Fact::Response(_)));
    assert_eq!((&start.id, start.hash, start.cohort), (&end.id, end.hash, end.cohort));
    assert_eq!((start.hash, start.cohort), (contact.hash, contact.cohort));
}

#[tokio::test]
async fn the_session_is_found_in_header_metadata_and_baggage_in_this_order() {
    let world = world("{}")
        .settings(|settings| settings.session_headers = vec!["x-chat-id".parse().unwrap()])
        .start()
        .await;
    let with_metadata = prompted(json!({"metadata": {"session_id": "m"}}));
    let bare = prompted(json!({}));
    let baggage = ("baggage", "a=b,gen_ai.conversation.id=b%2d1");
    for (headers, body, session) in [
        (&[("x-serin-session", "h"), ("x-chat-id", "c")][..], &with_metadata, "h"),
        (&[("x-chat-id", "c"), baggage], &with_metadata, "c"),
        (&[baggage], &with_metadata, "m"),
        (&[baggage], &bare, "b-1"),
    ] {
        let answer = world.chat(headers, body).await;
        assert_eq!(answer.header("x-serin-session"), Some(session));
    }
    assert_eq!(world.received().get("metadata"), None);
    let answer = world.chat(&[("x-serin-session", &"x".repeat(257))], &bare).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (400, "invalid_session"));
}

#[tokio::test]
async fn a_request_without_a_session_is_its_own_and_counted_when_it_has_a_history() {
    let world = world("{}").start().await;
    let single = world.chat(&[], &prompted(json!({}))).await;
    assert_eq!(single.header("x-serin-session").map(str::len), Some(32));
    let counted = || world.gateway.counts().history_without_session.load(Ordering::Relaxed);
    assert_eq!(counted(), 0);
    let turns = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "again"},
    ]);
    world.chat(&[], &prompted(json!({"messages": turns}))).await;
    assert_eq!(counted(), 1);
    world.chat(&[("x-serin-session", "s")], &prompted(json!({"messages": turns}))).await;
    assert_eq!(counted(), 1);
    assert_eq!(world.resolver.counts.keyless.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn attributes_choose_the_segment() {
    let world = world("{}").start().await;
    let version = async |attributes: &str, session: &str| {
        let headers = [("x-serin-attributes", attributes), ("x-serin-session", session)];
        let answer = world.chat(&headers, &prompted(json!({}))).await;
        answer.header("x-serin-version").map(str::to_owned)
    };
    assert_eq!(version(r#"{"segment": "internal"}"#, "a").await.as_deref(), Some("2.0.0"));
    assert_eq!(version(r#"{"segment": "unheard-of"}"#, "b").await.as_deref(), Some("1.0.0"));
    let headers = [("x-serin-attributes", "{"), ("x-serin-session", "c")];
    let refused = world.chat(&headers, &prompted(json!({}))).await;
    assert_eq!((refused.status.as_u16(), refused.error().0.as_str()), (400, "invalid_attributes"));
}

/// FIELD bug 19: a rendered prompt with a missing variable is an error to the caller, never the raw template.
#[tokio::test]
async fn bug_19_a_missing_variable_is_an_error_to_the_caller() {
    let mut world = world("{}").start().await;
    let body = prompted(json!({"prompt": {"id": "support/answer"}}));
    let answer = world.chat(&[("x-serin-session", "s"), ("x-request-id", "r")], &body).await;
    assert_eq!(answer.status, 422);
    let expected = ("missing_variable".to_owned(), "prompt answer needs a value for name".to_owned());
    assert_eq!(answer.error(), expected);
    assert_eq!(answer.header("x-serin-version"), Some("1.0.0"));
    assert_eq!(world.provider.stats().requests, 0, "nothing reached the model");
    // A version that nobody can render must not look good for lack of answers.
    let seen = world.seen().await;
    assert_eq!((seen.success, seen.error), (Some(false), Some(serin_core::observation::ErrorKind::Request)));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_a_hint() {
    let world = world("{}").settings(|settings| settings.body_limit = 1_000).start().await;
    let messages = json!({"model": "m", "messages": []});
    let body = messages.to_string();
    for (headers, body, status, code) in [
        (&[("x-serin-prompt", "sales/answer")][..], body.as_str(), 404, "unknown_pack"),
        (&[("x-serin-prompt", "support/nothing")], &body, 404, "unknown_prompt"),
        (&[("x-serin-prompt", "support/a b")], &body, 400, "invalid_prompt"),
        (&[("x-serin-prompt", "S!")], &body, 400, "invalid_prompt"),
        (&[("x-serin-prompt", "support")], "[1]", 400, "invalid_json"),
        (&[("x-serin-prompt", "support"), ("content-encoding", "gzip")], &body, 415, "compressed_body"),
        (&[("x-serin-prompt", "support"), ("x-serin-variables", "no")], &body, 400, "invalid_variables"),
        (&[("x-serin-prompt", "support"), ("x-serin-version", "2.0.0")], &body, 403, "version_not_allowed"),
        (&[], &format!("{{\"a\":\"{}\"}}", "x".repeat(1_000)), 413, "body_too_large"),
    ] {
        let answer = exchange(world.addr, "POST", CHAT, headers, body.to_owned()).await;
        assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (status, code), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(world.provider.stats().requests, 0);
    assert_eq!(world.gateway.counts().refused.load(Ordering::Relaxed), 9);
    let unknown = exchange(world.addr, "POST", CHAT, &[("x-serin-prompt", "sales/answer")], body).await;
    assert_eq!(
        unknown.error().1,
        "pack sales does not exist; hint: apply its manifest first, or check the name"
    );
}

#[tokio::test]
async fn a_version_that_an_authorised_caller_names_is_served_and_never_counted() {
    let mut world = world("{}").settings(|settings| settings.allow_version_override = true).start().await;
    let headers = [("x-serin-session", "s"), ("x-serin-version", "2.0.0")];
    let answer = world.chat(&headers, &prompted(json!({}))).await;
    assert_eq!((answer.header("x-serin-version"), answer.header("x-serin-variant")), (Some("2.0.0"), None));
    assert_eq!(world.received()["messages"][0]["content"], "You are support 2.0.0 for Ann.");
    assert!(world.signals.try_recv().is_err(), "no contact, no fact");
    assert_eq!(world.gateway.counts().version_overrides.load(Ordering::Relaxed), 1);
    let unknown = world.chat(&[("x-serin-version", "9.0.0")], &prompted(json!({}))).await;
    assert_eq!((unknown.status.as_u16(), unknown.error().0.as_str()), (404, "unknown_version"));
    let invalid = world.chat(&[("x-serin-version", "new")], &prompted(json!({}))).await;
    assert_eq!((invalid.status.as_u16(), invalid.error().0.as_str()), (400, "invalid_version"));
}

#[tokio::test]
async fn own_system_messages_go_when_the_setting_says_so() {
    let world =
        world("{}").settings(|settings| settings.system_message = SystemMessage::Replace).start().await;
    let messages = json!([{"role": "system", "content": "own"}, {"role": "user", "content": "hi"}]);
    world.chat(&[], &prompted(json!({"messages": messages}))).await;
    let received = world.received();
    let contents: Vec<&Value> =
        received["messages"].as_array().unwrap().iter().map(|message| &message["content"]).collect();
    assert_eq!(contents, ["You are support 1.0.0 for Ann.", "hi"]);
}

#[tokio::test]
async fn wrong_tool_calls_and_broken_formats_are_seen() {
    let script = r#"default: {tool_call_rate: 1, tool_calls: [{name: search, arguments: '{"q":'}]}"#;
    let mut world = world(script).start().await;
    let tools = json!([{"type": "function", "function": {"name": "search"}}]);
    for stream in [false, true] {
        world.chat(&[], &prompted(json!({"tools": tools, "stream": stream}))).await;
        let seen = world.seen().await;
        assert_eq!((seen.tool_calls, seen.wrong_tool_calls), (Some(1), Some(1)), "stream {stream}");
        assert_eq!(seen.finish_reason.as_deref(), Some("tool_calls"));
    }
    let plain = r#"{"replies": ["no JSON"]}"#;
    for stream in [false, true] {
        let body = prompted(json!({"response_format": {"type": "json_object"}, "stream": stream}));
        world.chat(&[("x-stand-in-script", plain)], &body).await;
        assert_eq!(world.seen().await.invalid_format, Some(true), "stream {stream}");
    }
}
