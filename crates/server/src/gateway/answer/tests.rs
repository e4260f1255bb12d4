use super::*;

use proptest::prelude::*;
use serde_json::{Value, json};

fn any(name: &str) -> Offered {
    Offered { name: name.to_owned(), schema: Schema::Any }
}

fn expected() -> Expected {
    Expected { tools: vec![any("search")], ..Expected::nothing(Protocol::Chat) }
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
    let expected = Expected { tools: vec![any("search")], ..Expected::nothing(protocol) };
    let mut reading = Reading::default();
    reading.read_whole(body.to_string().as_bytes(), &expected).unwrap();
    let mut response = Response::default();
    reading.complete_into(&expected, &mut response);
    response
}

/// What events tell, and what each of them is.
fn streamed(protocol: Protocol, events: &[Value]) -> (Response, Vec<Chunk>, bool) {
    let expected = Expected { tools: vec![any("search")], ..Expected::nothing(protocol) };
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

/// What the calls of an answer with these arguments come to, whole and streamed in pieces of `size`.
fn called(
    protocol: Protocol,
    arguments: &str,
    size: usize,
    expected: &Expected,
) -> [(Option<u32>, Option<u32>); 2] {
    let whole = match protocol {
        Protocol::Chat => {
            json!({"choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "find", "arguments": arguments}}]}}]})
        }
        Protocol::Responses => json!({"status": "completed", "output": [
            {"type": "function_call", "call_id": "1", "name": "find", "arguments": arguments}]}),
        Protocol::Messages => json!({"type": "message", "stop_reason": "tool_use", "content": [
            {"type": "tool_use", "id": "1", "name": "find", "input": serde_json::from_str::<Value>(arguments).unwrap()}]}),
    };
    let pieces = arguments.as_bytes().chunks(size).map(|piece| String::from_utf8(piece.to_vec()).unwrap());
    let begun = match protocol {
        Protocol::Chat => json!({"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": 0, "id": "1", "function": {"name": "find", "arguments": ""}}]}}]}),
        Protocol::Responses => json!({"type": "response.output_item.added", "output_index": 0,
            "item": {"type": "function_call", "call_id": "1", "name": "find", "arguments": ""}}),
        Protocol::Messages => json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "tool_use", "id": "1", "name": "find", "input": {}}}),
    };
    let chunks = pieces.map(|piece| match protocol {
        Protocol::Chat => json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}]}),
        Protocol::Responses => json!({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": piece}),
        Protocol::Messages => json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}),
    });
    let told = |reading: Reading| {
        let mut response = Response::default();
        reading.complete_into(expected, &mut response);
        (response.tool_calls, response.wrong_tool_calls)
    };
    let mut once = Reading::default();
    once.read_whole(whole.to_string().as_bytes(), expected).unwrap();
    let mut streamed = Reading::default();
    for chunk in std::iter::once(begun).chain(chunks) {
        streamed.read_chunk(chunk.to_string().as_bytes(), expected).unwrap();
    }
    [told(once), told(streamed)]
}

#[test]
fn the_arguments_of_a_call_are_held_to_the_schema_in_every_protocol_whole_and_streamed() {
    let schemas = ToolSchemas::default();
    let schema = json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}});
    let offered = |schema| vec![any("other"), Offered { name: "find".to_owned(), schema }];
    for protocol in [Protocol::Chat, Protocol::Responses, Protocol::Messages] {
        let of = |schema: &Value| Expected {
            tools: offered(Some(schemas.of(schema.to_string().as_bytes())).into()),
            ..Expected::nothing(protocol)
        };
        for size in [1, 3, 100] {
            let right = (Some(1), Some(0));
            assert_eq!(called(protocol, r#"{"id":7}"#, size, &of(&schema)), [right, right], "{protocol:?}");
            let wrong = (Some(1), Some(1));
            assert_eq!(called(protocol, r#"{"id":"7"}"#, size, &of(&schema)), [wrong, wrong], "{protocol:?}");
            let unknown = (None, None);
            let no_schema = of(&json!({"type": "strng"}));
            assert_eq!(called(protocol, r#"{"id":7}"#, size, &no_schema), [unknown, unknown], "{protocol:?}");
        }
    }
}

#[test]
fn the_tools_of_a_pack_are_expected_beside_those_of_the_request_and_blocked_ones_are_not() {
    let schemas = ToolSchemas::default();
    let tool = |name: &str| {
        let schema = Some(r#"{"type":"object","required":["id"]}"#.to_owned());
        Arc::new(Tool { name: name.to_owned(), description: "d".to_owned(), parameters: None, schema })
    };
    let policy = ToolPolicy { blocklist: vec!["shell".to_owned()], ..ToolPolicy::default() };
    let mut expected =
        Expected { tools: vec![any("shell"), any("own")], ..Expected::nothing(Protocol::Chat) };
    expected.offers(&[tool("find"), tool("own")], &policy, &schemas);
    assert_eq!(expected.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["own", "find"]);
    assert_eq!(called(Protocol::Chat, "{}", 1, &expected), [(Some(1), Some(1)); 2]);
}

#[test]
fn a_refusal_in_plain_words_is_seen_in_every_protocol_whole_and_streamed() {
    for protocol in [Protocol::Chat, Protocol::Responses, Protocol::Messages] {
        let expected = Expected::nothing(protocol);
        for (text, refuses) in
            [("I'm sorry, but I can't assist with that.", true), ("I'm sorry, I can't find it.", false)]
        {
            let whole = match protocol {
                Protocol::Chat => {
                    json!({"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": text}}]})
                }
                Protocol::Responses => {
                    json!({"status": "completed", "output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}]})
                }
                Protocol::Messages => {
                    json!({"type": "message", "stop_reason": "end_turn", "content": [{"type": "text", "text": text}]})
                }
            };
            let mut once = Reading::default();
            once.read_whole(whole.to_string().as_bytes(), &expected).unwrap();
            let mut streamed = Reading::default();
            for piece in text.as_bytes().chunks(2).map(|piece| String::from_utf8(piece.to_vec()).unwrap()) {
                let chunk = match protocol {
                    Protocol::Chat => json!({"choices": [{"index": 0, "delta": {"content": piece}}]}),
                    Protocol::Responses => json!({"type": "response.output_text.delta", "delta": piece}),
                    Protocol::Messages => {
                        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
                    }
                };
                streamed.read_chunk(chunk.to_string().as_bytes(), &expected).unwrap();
            }
            for reading in [once, streamed] {
                let mut response = Response::default();
                reading.complete_into(&expected, &mut response);
                assert_eq!(
                    (response.refusal, response.empty),
                    (Some(refuses), Some(false)),
                    "{protocol:?} {text}"
                );
            }
        }
    }
}

/// Chunks of a stream, of which many differ from the one before in their text alone.
fn chunks() -> impl Strategy<Value = Vec<(Protocol, String)>> {
    let text = prop::sample::select(vec!["", " ", "a", "hé\n\"😀\"", "{\"choices\":[{\"delta\":{}}]}", "\\"]);
    let chunk = (text, 0..11_u8, 0..8_u8).prop_map(|(text, kind, rare)| {
        let reason = if rare < 2 { json!(["stop", "length"][usize::from(rare)]) } else { json!(null) };
        let index = u8::from(rare == 2);
        let usage = if rare > 5 { json!({"prompt_tokens": rare}) } else { json!(null) };
        match kind {
            0..=2 => json!({"id": "c", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}], "usage": usage}),
            3 => json!({"id": "c", "choices": [{"index": 0, "delta": {"content": text, "tool_calls": [{"index": index, "function": {"arguments": "1"}}]}}]}),
            4 => json!({"choices": [{"index": 0, "delta": {"content": text, "refusal": if rare == 3 { "no" } else { "" }}}]}),
            5 => json!({"choices": [{"index": 0, "delta": {"content": [{"text": text}, {"text": "b"}]}}], "error": if rare == 4 { json!({}) } else { json!(null) }}),
            6 => json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}),
            7 => json!({"type": "message", "content": [{"type": "text", "text": text}]}),
            8 => json!({"type": "content_block_delta", "index": 0, "delta": {"text": text, "partial_json": "1"}}),
            9 => json!({"type": "response.output_text.delta", "delta": text, "output_index": index}),
            _ => json!({"status": if rare == 5 { "failed" } else { "completed" }, "output": [{"type": "message", "content": [{"text": text}]}]}),
        }
    });
    let protocols = vec![Protocol::Chat, Protocol::Responses, Protocol::Messages];
    let several = (chunk, 1..4_usize).prop_map(|(chunk, n)| vec![chunk; n]);
    (prop::sample::select(protocols), prop::collection::vec(several, 0..8)).prop_map(|(protocol, chunks)| {
        chunks.into_iter().flatten().map(|chunk| (protocol, chunk.to_string())).collect()
    })
}

proptest! {
    #[test]
    fn a_chunk_like_the_one_before_tells_what_it_would_tell_alone(chunks in chunks()) {
        let (mut quick, mut slow) = (Reading::default(), Reading::default());
        for (protocol, chunk) in chunks {
            let expected = Expected { json: true, traces: true, ..Expected::nothing(protocol) };
            let told = quick.read_chunk(chunk.as_bytes(), &expected).unwrap();
            slow.frame = Frame::default();
            prop_assert_eq!(told, slow.read_chunk(chunk.as_bytes(), &expected).unwrap());
            slow.frame = Frame::default();
            let shown = |reading: &mut Reading| {
                let frame = std::mem::take(&mut reading.frame);
                let shown = (format!("{reading:?}"), reading.said.as_ref().map(TextHash::finish));
                reading.frame = frame;
                shown
            };
            prop_assert_eq!(shown(&mut quick), shown(&mut slow));
        }
    }
}

#[test]
fn a_chunk_is_known_by_what_is_around_its_text() {
    let expected = expected();
    let mut reading = Reading::default();
    let chunk =
        |text: &str| json!({"choices": [{"index": 0, "delta": {"content": text}}], "x": 1}).to_string();
    assert_eq!(reading.read_chunk(chunk("one").as_bytes(), &expected), Ok(Chunk::Content));
    let known = |chunk: &str| reading.frame.text_in(chunk.as_bytes()).is_some();
    assert!(known(&chunk("two \"x\"")));
    assert!(!known(&chunk("two").replace("1", "2")));
    assert!(!known(&(chunk("two") + " ")));
    assert!(!known(chunk("two").trim_end_matches('}')));
    assert!(!known(&chunk("two").replace("\"two\"", "null")));
}

#[test]
fn what_a_chunk_says_besides_its_text_counts_again_after_another_one() {
    let mut reading = Reading::default();
    for (text, reason) in [("a", "stop"), ("", "length"), ("a", "stop")] {
        let chunk = json!({"choices": [{"delta": {"content": text}, "finish_reason": reason}]}).to_string();
        reading.read_chunk(chunk.as_bytes(), &expected()).unwrap();
        assert_eq!(reading.finish_reason(), Some(reason));
    }
}
