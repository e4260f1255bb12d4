//! The Chat Completions protocol as a client sees it.

use crate::client::{ask, chat, exchange, start};
use serde_json::{Value, json};

const TOOLS: &str = r#"{"tool_call_rate": 1, "tool_calls": [
    {"name": "look_up", "arguments": {"order": "A-1", "deep": true}},
    {"name": "write", "arguments": "{\"text\": "}
]}"#;

fn header_value(json: &str) -> String {
    json.replace('\n', " ")
}

fn streamed(mut request: Value, include_usage: bool) -> Value {
    request["stream"] = true.into();
    if include_usage {
        request["stream_options"] = json!({"include_usage": true});
    }
    request
}

#[tokio::test]
async fn an_answer_has_the_shape_of_a_chat_completion() {
    let provider = start("default: {replies: ['You said: {user}'], quality: 0.8}").await;
    let answer = ask(provider.addr(), &[], &chat("be kind", "hello")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-stand-in-quality"), "0.8");
    assert!(answer.header("x-request-id").starts_with("req_"));
    let mut json = answer.json();
    assert!(json["created"].as_u64().expect("a time") > 1_700_000_000);
    assert!(json["id"].as_str().expect("an id").starts_with("chatcmpl-"));
    json["created"] = 0.into();
    json["id"] = "".into();
    assert_eq!(
        json,
        json!({
            "id": "",
            "object": "chat.completion",
            "created": 0,
            "model": "small",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": "You said: hello", "refusal": null},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": {
                "prompt_tokens": 12,
                "completion_tokens": 4,
                "total_tokens": 16,
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
            "service_tier": "default",
            "system_fingerprint": "fp_stand_in",
        })
    );
}

#[tokio::test]
async fn a_stream_is_role_then_words_then_reason_then_usage_then_done() {
    let provider = start("default: {replies: [one two three four], chunks: 2}").await;
    let request = streamed(chat("be kind", "hello"), true);
    let answer = ask(provider.addr(), &[], &request).await;
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(answer.header("transfer-encoding"), "chunked");
    let events = answer.events();
    let [role, first, second, reason, usage, done] = &events[..] else {
        panic!("not six events: {events:?}");
    };
    assert_eq!(role["choices"][0]["delta"], json!({"role": "assistant", "content": "", "refusal": null}));
    assert_eq!(first["choices"][0]["delta"], json!({"content": "one two "}));
    assert_eq!(second["choices"][0]["delta"], json!({"content": "three four"}));
    assert_eq!(second["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(reason["choices"][0]["delta"], json!({}));
    assert_eq!(reason["choices"][0]["finish_reason"], "stop");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 5);
    assert_eq!(done, "[DONE]");
    for chunk in &events[..4] {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"], usage["id"]);
        assert!(chunk.get("usage").is_some_and(Value::is_null), "{chunk}");
    }
}

#[tokio::test]
async fn a_stream_shows_no_usage_unless_asked() {
    let provider = start("default: {replies: [one two]}").await;
    let answer = ask(provider.addr(), &[], &streamed(chat("", "hi"), false)).await;
    let events = answer.events();
    assert_eq!(events.len(), 5);
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn tool_calls_come_as_scripted_even_when_their_arguments_are_not_json() {
    let provider = start("{}").await;
    let script = header_value(TOOLS);
    let headers = [("x-stand-in-script", script.as_str())];
    let json = ask(provider.addr(), &headers, &chat("", "hi")).await.json();
    let choice = &json["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    let calls = &choice["message"]["tool_calls"];
    assert_eq!(calls[0]["type"], "function");
    assert_eq!(calls[0]["function"]["name"], "look_up");
    assert_eq!(calls[0]["function"]["arguments"], r#"{"deep":true,"order":"A-1"}"#);
    assert_eq!(calls[1]["function"]["arguments"], r#"{"text": "#);
    assert_ne!(calls[0]["id"], calls[1]["id"]);
}

#[tokio::test]
async fn streamed_tool_calls_name_the_tool_first_and_join_to_the_arguments() {
    let provider = start("{}").await;
    let script = header_value(TOOLS);
    let headers = [("x-stand-in-script", script.as_str())];
    let answer = ask(provider.addr(), &headers, &streamed(chat("", "hi"), false)).await;
    let mut calls: Vec<(String, String)> = Vec::new();
    let mut n_fragments = 0;
    for event in answer.events() {
        let call = &event["choices"][0]["delta"]["tool_calls"][0];
        let Some(index) = call["index"].as_u64() else {
            continue;
        };
        let arguments = call["function"]["arguments"].as_str().expect("a fragment");
        if let Some(name) = call["function"]["name"].as_str() {
            assert_eq!(index as usize, calls.len());
            assert!(call["id"].as_str().is_some_and(|id| id.starts_with("call_")));
            calls.push((name.to_owned(), arguments.to_owned()));
        } else {
            assert_eq!(call.get("id"), None);
            n_fragments += 1;
            calls[index as usize].1.push_str(arguments);
        }
    }
    assert!(n_fragments > 4, "{n_fragments} fragments");
    let look_up = ("look_up".to_owned(), r#"{"deep":true,"order":"A-1"}"#.to_owned());
    assert_eq!(calls, [look_up, ("write".to_owned(), r#"{"text": "#.to_owned())]);
}

#[tokio::test]
async fn the_answer_to_a_tool_result_is_text() {
    let provider = start("{}").await;
    let script = header_value(TOOLS);
    let mut request = chat("", "hi");
    let messages = request["messages"].as_array_mut().expect("messages");
    messages.push(json!({"role": "tool", "tool_call_id": "c", "content": "found"}));
    let answer = ask(provider.addr(), &[("x-stand-in-script", &script)], &request).await;
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn each_way_of_answering_badly_shows_in_reason_content_and_quality() {
    let provider = start("{}").await;
    let wrong_tool = TOOLS.replace("\"tool_call_rate\"", "\"wrong_tool_rate\": 1, \"tool_call_rate\"");
    for (behaviour, reason, content, quality) in [
        (r#"{"replies": ["12345678"]}"#, "stop", json!("12345678"), "1"),
        (r#"{"empty_rate": 1}"#, "stop", json!(""), "0"),
        (r#"{"refusal_rate": 1}"#, "stop", Value::Null, "0"),
        (r#"{"refusal_rate": 1, "refusal": "content_filter"}"#, "content_filter", Value::Null, "0"),
        (r#"{"truncate_rate": 1, "replies": ["12345678"], "quality": 0.8}"#, "length", json!("1234"), "0.4"),
        (&wrong_tool, "tool_calls", Value::Null, "0"),
    ] {
        let behaviour = header_value(behaviour);
        let headers = [("x-stand-in-script", behaviour.as_str())];
        let answer = ask(provider.addr(), &headers, &chat("", "hi")).await;
        assert_eq!(answer.header("x-stand-in-quality"), quality, "{behaviour}");
        let choice = &answer.json()["choices"][0];
        assert_eq!(choice["finish_reason"], reason, "{behaviour}");
        assert_eq!(choice["message"]["content"], content, "{behaviour}");
        let refused = behaviour == r#"{"refusal_rate": 1}"#;
        assert_eq!(choice["message"]["refusal"].is_string(), refused, "{behaviour}");
    }
}

#[tokio::test]
async fn a_wrong_tool_call_names_no_such_tool_or_has_arguments_that_no_tool_has() {
    let provider = start(
        "default:
  tool_call_rate: 1
  wrong_tool_rate: 1
  tool_calls: [{name: look_up, arguments: {order: A-1}}]
",
    )
    .await;
    let mut seen = [0, 0];
    for _ in 0..20 {
        let json = ask(provider.addr(), &[], &chat("", "hi")).await.json();
        let call = &json["choices"][0]["message"]["tool_calls"][0]["function"];
        match (call["name"].as_str(), call["arguments"].as_str()) {
            (Some("no_such_tool"), Some(r#"{"order":"A-1"}"#)) => seen[0] += 1,
            (Some("look_up"), Some(r#"{"no_such_argument":true}"#)) => seen[1] += 1,
            other => panic!("not a wrong call: {other:?}"),
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[tokio::test]
async fn the_client_s_token_limit_cuts_the_answer() {
    let provider = start("default: {replies: ['123456789012']}").await;
    for limit in ["max_tokens", "max_completion_tokens"] {
        let mut request = chat("", "hi");
        request[limit] = 2.into();
        let answer = ask(provider.addr(), &[], &request).await;
        let json = answer.json();
        assert_eq!(json["choices"][0]["finish_reason"], "length");
        assert_eq!(json["usage"]["completion_tokens"], 2);
        assert_eq!(answer.content(), "12345678");
    }
}

#[tokio::test]
async fn bad_requests_get_openai_s_error_shape() {
    let provider = start("models: [small]").await;
    let no_model = json!({"messages": [{"role": "user", "content": "hi"}]});
    let mut two_choices = chat("", "hi");
    two_choices["n"] = 2.into();
    let mut other_model = chat("", "hi");
    other_model["model"] = "large".into();
    let wrong_role = json!({"model": "small", "messages": [{"role": "boss", "content": "hi"}]});
    for (body, status, param, code) in [
        ("{\"model\": ".to_owned(), 400, Value::Null, Value::Null),
        (json!({"model": "small"}).to_string(), 400, json!("messages"), json!("missing_required_parameter")),
        (json!({"model": "small", "messages": []}).to_string(), 400, json!("messages"), json!("empty_array")),
        (no_model.to_string(), 400, json!("model"), json!("missing_required_parameter")),
        (two_choices.to_string(), 400, json!("n"), json!("unsupported_value")),
        (wrong_role.to_string(), 400, Value::Null, Value::Null),
        (other_model.to_string(), 404, Value::Null, json!("model_not_found")),
    ] {
        let path = "/v1/chat/completions";
        let answer = exchange(provider.addr(), "POST", path, &[], body.clone()).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.headers.contains_key("x-request-id"));
        let error = &answer.json()["error"];
        assert_eq!(error["type"], "invalid_request_error", "{body}");
        assert!(error["message"].is_string(), "{body}");
        assert_eq!((&error["param"], &error["code"]), (&param, &code), "{body}");
    }
}

#[tokio::test]
async fn scripted_failures_have_their_status_body_and_retry_after() {
    let provider = start("{}").await;
    let failing = async |failure: &str| {
        let script = format!(r#"{{"failure_rate": 1, "failure": {failure}}}"#);
        ask(provider.addr(), &[("x-stand-in-script", &script)], &chat("", "hi")).await
    };

    let limited = failing(r#"{"status": 429}"#).await;
    assert_eq!(limited.status, 429);
    assert_eq!(limited.header("retry-after"), "1");
    assert_eq!(limited.json()["error"]["code"], "rate_limit_exceeded");

    let patient = failing(r#"{"status": 503, "retry_after": 7}"#).await;
    assert_eq!((patient.status.as_u16(), patient.header("retry-after")), (503, "7"));

    let own = failing(r#"{"status": 502, "body": "<html>bad gateway</html>"}"#).await;
    assert_eq!((own.status.as_u16(), own.text.as_str()), (502, "<html>bad gateway</html>"));

    let plain = failing("{}").await;
    assert_eq!(plain.status, 500);
    assert_eq!(plain.json()["error"]["type"], "server_error");
    assert!(!plain.headers.contains_key("retry-after"));
    assert!(!plain.headers.contains_key("x-stand-in-quality"));
}

#[tokio::test]
async fn a_failure_in_the_middle_of_a_stream_is_an_error_event() {
    let provider = start("{}").await;
    let script = r#"{"failure_rate": 1, "failure": {"at": "middle"}, "replies": ["a b c d e f"]}"#;
    let headers = [("x-stand-in-script", script)];
    let answer = ask(provider.addr(), &headers, &streamed(chat("", "hi"), false)).await;
    assert_eq!(answer.status, 200);
    let events = answer.events();
    let (last, before) = events.split_last().expect("there are events");
    assert_eq!(last["error"]["type"], "server_error");
    assert!(before.len() > 2 && before.iter().all(|event| event.get("choices").is_some()));

    let in_one_piece = ask(provider.addr(), &headers, &chat("", "hi")).await;
    assert_eq!(in_one_piece.status, 500);
}

#[tokio::test]
async fn a_request_without_a_key_is_refused_where_keys_are_required() {
    let provider = start("require_key: true").await;
    let request = chat("", "hi");
    let refused = ask(provider.addr(), &[], &request).await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["error"]["type"], "invalid_request_error");
    let accepted = ask(provider.addr(), &[("authorization", "Bearer any")], &request).await;
    assert_eq!(accepted.status, 200);
}

#[tokio::test]
async fn a_bad_inline_script_is_refused_with_the_reason() {
    let provider = start("{}").await;
    let headers = [("x-stand-in-script", r#"{"failure_rate": 2}"#)];
    let answer = ask(provider.addr(), &headers, &chat("", "hi")).await;
    assert_eq!(answer.status, 400);
    let json = answer.json();
    let message = json["error"]["message"].as_str().expect("a message");
    assert!(message.contains("x-stand-in-script: 2 is not a fraction"), "{message}");
}
