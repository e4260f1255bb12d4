//! Responses and Messages as clients see them, and answers that are spoilt.

use crate::client::{Answer, exchange, start};
use serde_json::{Value, json};
use serin_provider::Provider;

const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

async fn ask(provider: &Provider, path: &str, script: &str, body: &Value) -> Answer {
    let headers = [("anthropic-version", "2023-06-01"), ("x-stand-in-script", script)];
    exchange(provider.addr(), "POST", path, &headers, body.to_string()).await
}

fn request(path: &str, stream: bool) -> Value {
    match path {
        RESPONSES => json!({"model": "small", "input": "hello", "instructions": "be kind", "stream": stream}),
        _ => {
            let messages = json!([{"role": "user", "content": "hello"}]);
            json!({"model": "small", "messages": messages, "max_tokens": 99, "system": "be kind", "stream": stream})
        }
    }
}

/// The types of the events with their data.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let event = |event: &str| {
        let (kind, data) = event.split_once('\n').expect("an event has a type and data");
        let data = data.strip_prefix("data: ").expect("the second line is data");
        let kind = kind.strip_prefix("event: ").expect("the first line is the type").to_owned();
        (kind, serde_json::from_str(data).expect("an event is JSON"))
    };
    answer.text.split_terminator("\n\n").map(event).collect()
}

fn kinds(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(kind, _)| kind.trim_start_matches("response.")).collect()
}

#[tokio::test]
async fn a_response_has_its_output_and_usage_and_its_stream_ends_in_the_same() {
    let provider = start("default: {replies: ['You said: {user}'], chunks: 2, cached_share: 0.5}").await;
    let whole = ask(&provider, RESPONSES, "{}", &request(RESPONSES, false)).await.json();
    assert_eq!((&whole["object"], &whole["status"]), (&json!("response"), &json!("completed")));
    let whole =
        exchange(provider.addr(), "POST", RESPONSES, &[], request(RESPONSES, false).to_string()).await.json();
    assert_eq!(whole["output"][0]["content"][0]["text"], "You said: hello");
    assert_eq!(whole["usage"]["input_tokens_details"]["cached_tokens"], 4);
    let streamed =
        exchange(provider.addr(), "POST", RESPONSES, &[], request(RESPONSES, true).to_string()).await;
    let events = events(&streamed);
    assert_eq!(
        kinds(&events),
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
    );
    for (number, (kind, data)) in events.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(kind), &json!(number)));
    }
    let (_, end) = &events[9];
    assert_eq!(
        (&end["response"]["usage"], &end["response"]["output"][0]["type"]),
        (&whole["usage"], &json!("message"))
    );
}

#[tokio::test]
async fn a_message_has_its_blocks_and_usage_and_its_stream_builds_them() {
    let provider = start("default: {replies: ['You said: {user}'], chunks: 2, cached_share: 0.5}").await;
    let headers = [("anthropic-version", "2023-06-01")];
    let whole = exchange(provider.addr(), "POST", MESSAGES, &headers, request(MESSAGES, false).to_string())
        .await
        .json();
    assert_eq!(whole["content"], json!([{"type": "text", "text": "You said: hello"}]));
    assert_eq!(whole["usage"]["cache_read_input_tokens"], 4);
    let streamed =
        exchange(provider.addr(), "POST", MESSAGES, &headers, request(MESSAGES, true).to_string()).await;
    let events = events(&streamed);
    assert_eq!(
        kinds(&events),
        [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert_eq!(events[6].1["delta"]["stop_reason"], "end_turn");
    assert_eq!(events[6].1["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    let refused =
        exchange(provider.addr(), "POST", MESSAGES, &[], request(MESSAGES, false).to_string()).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["type"]), (400, &json!("error")));
}

#[tokio::test]
async fn tools_are_called_in_each_protocol_s_form() {
    let provider = start("{}").await;
    let script =
        r#"{"tool_call_rate": 1, "tool_calls": [{"name": "look_up", "arguments": {"order": "A-1"}}]}"#;
    let response = ask(&provider, RESPONSES, script, &request(RESPONSES, false)).await.json();
    let call = &response["output"][0];
    assert_eq!((&call["type"], &call["arguments"]), (&json!("function_call"), &json!("{\"order\":\"A-1\"}")));
    let message = ask(&provider, MESSAGES, script, &request(MESSAGES, false)).await.json();
    let block = &message["content"][0];
    assert_eq!((&block["type"], &block["input"]), (&json!("tool_use"), &json!({"order": "A-1"})));
    assert_eq!(message["stop_reason"], "tool_use");
    let streamed = ask(&provider, MESSAGES, script, &request(MESSAGES, true)).await;
    let events = events(&streamed);
    let pieces = events.iter().filter_map(|(_, data)| data["delta"]["partial_json"].as_str());
    assert_eq!(pieces.collect::<String>(), "{\"order\":\"A-1\"}");
    let result =
        json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}]);
    let mut body = request(MESSAGES, false);
    body["messages"] = result;
    let after = ask(&provider, MESSAGES, script, &body).await.json();
    assert_eq!(after["stop_reason"], "end_turn", "a tool's result is answered in text");
}

#[tokio::test]
async fn failures_use_each_protocol_s_words() {
    let provider = start("{}").await;
    let overloaded = r#"{"failure_rate": 1, "failure": {"status": 529}}"#;
    let answer = ask(&provider, MESSAGES, overloaded, &request(MESSAGES, false)).await;
    assert_eq!(answer.status.as_u16(), 529);
    assert_eq!(
        answer.json(),
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    );
    let inside = r#"{"failure_rate": 1, "failure": {"status": 529, "at": "middle"}}"#;
    let answer = ask(&provider, MESSAGES, inside, &request(MESSAGES, true)).await;
    let last = events(&answer).pop().expect("there are events");
    assert_eq!((answer.status.as_u16(), last.0.as_str()), (200, "error"));
    assert_eq!(last.1["error"]["type"], "overloaded_error");
    let answer = ask(&provider, RESPONSES, inside, &request(RESPONSES, true)).await;
    let last = events(&answer).pop().expect("there are events");
    assert_eq!((last.0.as_str(), &last.1["type"]), ("error", &json!("error")));
}

#[tokio::test]
async fn an_answer_can_be_spoilt() {
    let provider = start("{}").await;
    let chat = json!({"model": "small", "messages": [{"role": "user", "content": "hello"}]});
    let path = "/v1/chat/completions";
    let full = ask(&provider, path, "{}", &chat).await.text;
    let half = ask(&provider, path, r#"{"fault": "half_json"}"#, &chat).await.text;
    assert_eq!(half.len(), full.len() / 2);
    let stream = json!({"model": "small", "messages": chat["messages"], "stream": true});
    let pieces = ask(&provider, path, r#"{"frame_bytes": 1}"#, &stream).await;
    assert!(pieces.text.ends_with("data: [DONE]\n\n"), "{}", pieces.text);
    let half = ask(&provider, path, r#"{"fault": "half_json"}"#, &stream).await.text;
    assert!(!half.ends_with("\n\n") && half.starts_with("data: {"), "{half}");
}
