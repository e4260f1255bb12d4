use super::*;

use serde_json::{Value, json};

fn expected() -> Expected {
    Expected { tools: vec!["search".to_owned()], ..Expected::nothing(Protocol::Chat) }
}

fn whole(message: Value, finish_reason: &str, expected: &Expected) -> Response {
    let usage =
        json!({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}});
    let choice = json!({"index": 0, "message": message, "finish_reason": finish_reason});
    let body = json!({"choices": [choice], "usage": usage}).to_string();
    let mut reading = Reading::default();
    reading.read_whole(body.as_bytes(), expected).unwrap();
    let mut response = Response::default();
    reading.complete_into(expected, &mut response);
    response
}

fn tool_call(name: &str, arguments: &str) -> Value {
    json!({"content": null, "tool_calls": [{"id": "1", "function": {"name": name, "arguments": arguments}}]})
}

#[test]
fn a_text_is_measured() {
    let seen = whole(json!({"content": "héllo", "refusal": null}), "stop", &expected());
    assert_eq!(
        seen,
        Response {
            input_tokens: Some(7.0),
            output_tokens: Some(3.0),
            cached_tokens: Some(2.0),
            finish_reason: Some("stop".to_owned()),
            tool_calls: Some(0),
            response_length: Some(5.0),
            refusal: Some(false),
            empty: Some(false),
            truncated: Some(false),
            ..Response::default()
        }
    );
    let parts = json!({"content": [{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]});
    assert_eq!(whole(parts, "length", &expected()).response_length, Some(3.0));
}

#[test]
fn refusals_emptiness_and_truncation_are_told_apart() {
    let flags = |message: Value, reason: &str| {
        let seen = whole(message, reason, &expected());
        (seen.refusal.unwrap(), seen.empty.unwrap(), seen.truncated.unwrap())
    };
    assert_eq!(flags(json!({"content": null, "refusal": "no"}), "stop"), (true, false, false));
    assert_eq!(flags(json!({"content": null}), "content_filter"), (true, true, false));
    assert_eq!(flags(json!({"content": " \n"}), "stop"), (false, true, false));
    assert_eq!(flags(json!({"content": "cut"}), "length"), (false, false, true));
    assert_eq!(flags(tool_call("search", "{}"), "tool_calls"), (false, false, false));
}

#[test]
fn a_tool_call_is_wrong_by_name_or_by_broken_arguments() {
    let wrong = |name: &str, arguments: &str| {
        let seen = whole(tool_call(name, arguments), "tool_calls", &expected());
        (seen.tool_calls, seen.wrong_tool_calls)
    };
    assert_eq!(wrong("search", r#"{"q":"x"}"#), (Some(1), Some(0)));
    assert_eq!(wrong("delete", "{}"), (Some(1), Some(1)));
    assert_eq!(wrong("search", r#"{"q":"#), (Some(1), Some(1)));
}

#[test]
fn the_format_is_judged_where_json_was_asked_for() {
    let json = Expected { json: true, ..expected() };
    let judged = |message: Value, expected: &Expected| whole(message, "stop", expected).invalid_format;
    assert_eq!(judged(json!({"content": "{\"a\": 1}"}), &json), Some(false));
    assert_eq!(judged(json!({"content": "Sure: {}"}), &json), Some(true));
    assert_eq!(judged(json!({"content": "Sure: {}"}), &expected()), None);
    assert_eq!(judged(json!({"content": null, "refusal": "no"}), &json), None);
    assert_eq!(judged(tool_call("search", "{}"), &json), None);
}

#[test]
fn chunks_add_up_to_the_answer() {
    let mut reading = Reading::default();
    let expected = expected();
    let mut read = |chunk: Value| reading.read_chunk(chunk.to_string().as_bytes(), &expected).unwrap();
    let delta = |delta: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    let call = |function: Value| delta(json!({"tool_calls": [{"index": 0, "function": function}]}));
    assert_eq!(read(delta(json!({"role": "assistant", "content": ""}))), Chunk::Other);
    assert_eq!(read(delta(json!({"content": "hé"}))), Chunk::Content);
    assert_eq!(read(call(json!({"name": "search", "arguments": ""}))), Chunk::Content);
    assert_eq!(read(call(json!({"arguments": "{\"a\""}))), Chunk::Content);
    assert_eq!(read(call(json!({"arguments": ":1}"}))), Chunk::Content);
    assert_eq!(read(json!({"choices": [{"index": 1, "delta": {"content": "other"}}]})), Chunk::Other);
    assert_eq!(read(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})), Chunk::Other);
    assert_eq!(read(json!({"choices": [], "usage": null})), Chunk::Other);
    assert_eq!(read(json!({"choices": [], "usage": {"prompt_tokens": 5}})), Chunk::UsageOnly);
    let mut response = Response::default();
    reading.complete_into(&expected, &mut response);
    assert_eq!((response.tool_calls, response.wrong_tool_calls), (Some(1), Some(0)));
    assert_eq!((response.response_length, response.input_tokens), (Some(2.0), Some(5.0)));
}

#[test]
fn an_error_object_is_told() {
    let mut reading = Reading::default();
    reading.read_chunk(br#"{"error":null}"#, &expected()).unwrap();
    assert!(!reading.has_error());
    reading.read_chunk(br#"{"error":{"message":"overloaded"}}"#, &expected()).unwrap();
    assert!(reading.has_error());
    assert!(reading.read_chunk(b"not json", &expected()).is_err());
}

/// What one object tells.
fn told(protocol: Protocol, body: &Value) -> Response {
    let expected = Expected { tools: vec!["search".to_owned()], ..Expected::nothing(protocol) };
    let mut reading = Reading::default();
    reading.read_whole(body.to_string().as_bytes(), &expected).unwrap();
    let mut response = Response::default();
    reading.complete_into(&expected, &mut response);
    response
}

/// What events tell, and what each of them is.
fn streamed(protocol: Protocol, events: &[Value]) -> (Response, Vec<Chunk>, bool) {
    let expected = Expected { tools: vec!["search".to_owned()], ..Expected::nothing(protocol) };
    let mut reading = Reading::default();
    let read = |event: &Value| reading.read_chunk(event.to_string().as_bytes(), &expected).unwrap();
    let chunks = events.iter().map(read).collect();
    let has_error = reading.has_error();
    let mut response = Response::default();
    reading.complete_into(&expected, &mut response);
    (response, chunks, has_error)
}

#[test]
fn a_response_tells_the_same_whole_and_streamed() {
    let usage = json!({"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3});
    let message = json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "héllo"}]});
    let call = json!({"type": "function_call", "name": "search", "arguments": "{\"q\":1}", "call_id": "c"});
    let done = json!({"id": "resp_1", "status": "completed", "error": null, "incomplete_details": null, "output": [message, call], "usage": usage});
    let whole = told(Protocol::Responses, &done);
    let events = [
        json!({"type": "response.created", "response": {"status": "in_progress", "error": null, "output": []}}),
        json!({"type": "response.output_text.delta", "output_index": 0, "delta": "hé"}),
        json!({"type": "response.output_text.delta", "output_index": 0, "delta": "llo"}),
        json!({"type": "response.output_text.done", "output_index": 0, "text": "héllo"}),
        json!({"type": "response.output_item.added", "output_index": 1, "item": {"type": "function_call", "name": "search", "arguments": ""}}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{\"q\":1}"}),
        json!({"type": "response.completed", "response": done}),
    ];
    let (stream, chunks, has_error) = streamed(Protocol::Responses, &events);
    assert_eq!(stream, whole);
    assert!(!has_error);
    let (content, other, end) = (Chunk::Content, Chunk::Other, Chunk::End);
    assert_eq!(chunks, [other, content, content, other, content, content, end]);
    assert_eq!(
        whole,
        Response {
            input_tokens: Some(9.0),
            output_tokens: Some(3.0),
            cached_tokens: Some(4.0),
            finish_reason: Some("completed".to_owned()),
            tool_calls: Some(1),
            wrong_tool_calls: Some(0),
            response_length: Some(5.0),
            refusal: Some(false),
            empty: Some(false),
            truncated: Some(false),
            ..Response::default()
        }
    );
}

#[test]
fn a_response_that_is_refused_cut_or_failed_says_so() {
    let with = |more: Value| {
        let mut body = json!({"status": "completed", "output": [], "error": null});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let seen = told(Protocol::Responses, &body);
        (seen.refusal.unwrap(), seen.empty.unwrap(), seen.truncated.unwrap())
    };
    let refusal = json!([{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]);
    assert_eq!(with(json!({ "output": refusal })), (true, false, false));
    let cut = json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}});
    assert_eq!(with(cut), (false, true, true));
    let filtered = json!({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}});
    assert_eq!(with(filtered), (true, true, false));
    for event in [
        json!({"type": "error", "code": "server_error", "message": "x"}),
        json!({"type": "response.failed", "response": {"status": "failed", "error": {"code": "x"}}}),
    ] {
        assert!(streamed(Protocol::Responses, &[event]).2);
    }
}

#[test]
fn a_message_tells_the_same_whole_and_streamed_and_its_cached_tokens_are_part_of_the_input() {
    let usage = json!({"input_tokens": 5, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 7, "output_tokens": 1});
    let mut message =
        json!({"type": "message", "role": "assistant", "stop_reason": null, "usage": usage, "content": []});
    let start = json!({"type": "message_start", "message": message});
    message["content"] =
        json!([{"type": "text", "text": "héllo"}, {"type": "tool_use", "name": "search", "input": {"q": 1}}]);
    message["stop_reason"] = json!("tool_use");
    message["usage"]["output_tokens"] = json!(12);
    let whole = told(Protocol::Messages, &message);
    let events = [
        start,
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "héllo"}}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "search", "input": {}}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"q\":"}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": " 1}"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 12}}),
        json!({"type": "message_stop"}),
    ];
    let (stream, chunks, _) = streamed(Protocol::Messages, &events);
    assert_eq!(stream, whole);
    let (content, other, end) = (Chunk::Content, Chunk::Other, Chunk::End);
    assert_eq!(chunks, [other, other, other, content, content, content, content, other, end]);
    assert_eq!(
        (whole.input_tokens, whole.cached_tokens, whole.output_tokens),
        (Some(42.0), Some(30.0), Some(12.0))
    );
    assert_eq!((whole.tool_calls, whole.wrong_tool_calls), (Some(1), Some(0)));
    assert_eq!(whole.finish_reason.as_deref(), Some("tool_use"));
}

#[test]
fn a_message_that_is_refused_or_cut_says_so_and_a_tool_may_take_nothing() {
    let flags = |reason: &str| {
        let content = json!([{"type": "text", "text": "x"}]);
        let seen =
            told(Protocol::Messages, &json!({"type": "message", "stop_reason": reason, "content": content}));
        (seen.refusal.unwrap(), seen.truncated.unwrap())
    };
    assert_eq!(flags("end_turn"), (false, false));
    assert_eq!(flags("refusal"), (true, false));
    assert_eq!(flags("max_tokens"), (false, true));
    let call = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "search", "input": {}}});
    let (seen, _, _) = streamed(Protocol::Messages, &[call]);
    assert_eq!((seen.tool_calls, seen.wrong_tool_calls), (Some(1), Some(0)));
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    assert!(streamed(Protocol::Messages, &[error]).2);
}
