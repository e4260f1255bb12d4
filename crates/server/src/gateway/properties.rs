//! What holds for every body and every answer, of every protocol.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use serin_core::observation::Response;
use serin_core::prompt::{Pack, Prompt};

use super::answer::{Expected, Reading};
use super::messages::Messages;
use super::protocol::Protocol;
use super::request::ModelRequest;
use super::settings::{StreamUsage, SystemMessage};
use super::splice::{Additions, splice};
use super::sse::Scanner;
use crate::tool_schema::ToolSchemas;

const PROTOCOLS: [Protocol; 3] = [Protocol::Chat, Protocol::Responses, Protocol::Messages];

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(PROTOCOLS.to_vec())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "(user|system|tool|function|text|object|find|[a-z])".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop::sample::select(vec![
            "role",
            "content",
            "type",
            "name",
            "function",
            "parameters",
            "x",
            "text",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4).prop_map(|members| members
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
}

/// Members of requests with values of any kind, in any order, some of them twice.
fn body() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "model",
        "messages",
        "input",
        "instructions",
        "system",
        "tools",
        "tool_choice",
        "functions",
        "stream",
        "stream_options",
        "temperature",
        "max_tokens",
        "max_output_tokens",
        "metadata",
        "prompt",
        "text",
        "x",
        "é\"\\",
    ]);
    let message =
        (prop::sample::select(vec!["user", "assistant", "system", "developer", "tool"]), any_json())
            .prop_map(|(role, content)| json!({"role": role, "content": content}));
    let tool =
        ("(find|shell|own)", any_json()).prop_map(|(name, more)| json!({"name": name, "input_schema": more}));
    let value = prop_oneof![
        4 => any_json(),
        2 => prop::collection::vec(message, 0..4).prop_map(Value::from),
        1 => prop::collection::vec(tool, 0..4).prop_map(Value::from),
        1 => Just(json!(true)),
    ];
    prop::collection::vec((name, value), 0..8).prop_map(|members| {
        let written = members.iter().map(|(name, value)| format!("{} : {value}", Value::from(*name)));
        format!("{{ {} }}", written.collect::<Vec<_>>().join(" , "))
    })
}

fn pack() -> Pack {
    let pack = json!({
        "id": "p", "name": "P", "version": "1.0.0", "template_engine": {"version": "v1", "syntax": "{{variable}}"},
        "tools": {"find": {"name": "find", "description": "Finds.", "parameters": {"type": "object", "properties": {}}}},
        "prompts": {"p": {"id": "p", "name": "P", "version": "1.0.0", "system_template": "x", "tools": ["find"],
            "tool_policy": {"tool_choice": "auto", "blocklist": ["shell"]}}},
    });
    Pack::from_value(pack).expect("the pack is right")
}

/// What a splice may change; everything else reaches the provider as it came.
const OURS: [&str; 12] = [
    "prompt",
    "model",
    "messages",
    "input",
    "instructions",
    "system",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "stream_options",
    "temperature",
    "max_tokens",
];

/// The members of a body that are none of ours, as they are written.
fn foreign(protocol: Protocol, bytes: &Bytes) -> Vec<(Bytes, Bytes)> {
    let asked = ModelRequest::scan(protocol, bytes).expect("it is an object");
    let members = asked.object.members.iter();
    let foreign = members.filter(|member| !OURS.iter().any(|name| *member.name(bytes) == *name.as_bytes()));
    foreign.map(|member| (bytes.slice(member.key.clone()), bytes.slice(member.value.clone()))).collect()
}

/// Events of a stream, of every protocol and of none.
fn stream() -> impl Strategy<Value = String> {
    let text =
        prop_oneof!["[a-zé😀\n \"]{0,12}", Just("I'm sorry, but I can't assist with that.".to_owned())];
    let event = (text, 0..14_u8, 0..3_u8).prop_map(|(text, kind, index)| match kind {
        0 => json!({"choices": [{"index": 0, "delta": {"content": text}}]}),
        1 => json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, "function": {"name": "find", "arguments": text}}]}}]}),
        2 => json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}),
        3 => json!({"choices": [], "usage": {"prompt_tokens": index, "completion_tokens": 2}}),
        4 => json!({"type": "response.output_text.delta", "delta": text}),
        5 => json!({"type": "response.output_item.added", "output_index": index, "item": {"type": "function_call", "name": "find", "call_id": "1"}}),
        6 => json!({"type": "response.function_call_arguments.delta", "output_index": index, "delta": text}),
        7 => json!({"type": "response.completed", "response": {"id": "r", "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 2}}}),
        8 => json!({"type": "content_block_start", "index": index, "content_block": {"type": "tool_use", "id": "1", "name": "find", "input": {}}}),
        9 => json!({"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": text}}),
        10 => json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}),
        11 => json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": index}}),
        12 => json!({"type": "response.refusal.delta", "delta": text}),
        _ => json!({"error": null, "type": text}),
    });
    let end = prop::sample::select(vec!["\n", "\r\n", "\r"]);
    (prop::collection::vec(event, 0..12), end).prop_map(|(events, end)| {
        events.iter().map(|event| format!("event: x{end}data: {event}{end}{end}")).collect::<String>()
            + "data: [DONE]\n\n"
    })
}

/// What a stream tells when it arrives in these pieces.
fn signals<'a>(protocol: Protocol, pieces: impl IntoIterator<Item = &'a [u8]>) -> Response {
    let expected = Expected { json: true, traces: true, ..Expected::nothing(protocol) };
    let (mut scanner, mut reading) = (Scanner::default(), Reading::default());
    let read = |data: &[u8], reading: &mut Reading| {
        if !data.is_empty() && data != b"[DONE]" {
            let _ = reading.read_chunk(data, &expected);
        }
    };
    for piece in pieces {
        scanner.feed(piece, |event| read(event.data, &mut reading));
    }
    scanner.finish(|event| read(event.data, &mut reading));
    let mut response = Response::default();
    reading.complete_into(&expected, &mut response);
    response
}

/// Cuts bytes at places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

proptest! {
    #[test]
    fn a_splice_changes_nothing_but_what_is_ours_and_leaves_valid_json(
        protocol in protocol(),
        body in body(),
        mode in prop::sample::select(vec![SystemMessage::Prepend, SystemMessage::Replace, SystemMessage::Reject]),
        model in prop::option::of(Just("large")),
    ) {
        let bytes = Bytes::from(body);
        let asked = ModelRequest::scan(protocol, &bytes).unwrap();
        let _ = asked.expected(&ToolSchemas::default());
        let Ok(messages) = Messages::of(&asked) else { return Ok(()) };
        let pack = pack();
        let Prompt { tools, policy, .. } = &pack.prompts().values().next().unwrap();
        let parameters: Map<String, Value> = json!({"temperature": 0.5}).as_object().unwrap().clone();
        let additions = Additions { system: "Be \"kind\".", model, parameters: &parameters, tools, policy };
        let Ok(spliced) = splice(&asked, messages.as_ref(), Some(&additions), mode, StreamUsage::Add) else {
            return Ok(());
        };
        prop_assert!(serde_json::from_slice::<Value>(&spliced.body).is_ok(), "{:?}", spliced.body);
        prop_assert_eq!(foreign(protocol, &spliced.body), foreign(protocol, &bytes));
        let after: Value = serde_json::from_slice(&spliced.body).unwrap();
        prop_assert_eq!(after.get("prompt"), None);
        if let Some(model) = model {
            prop_assert_eq!(&after["model"], model);
        }
        let own = after["tools"].as_array().into_iter().flatten();
        prop_assert!(own.clone().all(|tool| tool["name"] != "shell"), "a blocked tool is left");
    }

    #[test]
    fn a_stream_tells_the_same_in_pieces_of_any_kind(
        protocol in protocol(),
        stream in stream(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let bytes = stream.as_bytes();
        let whole = signals(protocol, [bytes]);
        prop_assert_eq!(&signals(protocol, cut(bytes, &places)), &whole);
        prop_assert_eq!(&signals(protocol, bytes.chunks(1)), &whole);
    }

    #[test]
    fn arbitrary_and_damaged_answers_never_panic(
        protocol in protocol(),
        stream in stream(),
        at in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = stream.into_bytes();
        let at = at.index(bytes.len());
        bytes.splice(at..(at + noise.len() / 2).min(bytes.len()), noise.iter().copied());
        let _ = signals(protocol, bytes.chunks(7));
        let _ = signals(protocol, [noise.as_slice()]);
        let expected = Expected::nothing(protocol);
        for answer in [&bytes, &noise] {
            let mut reading = Reading::default();
            let _ = reading.read_whole(answer, &expected);
            reading.complete_into(&expected, &mut Response::default());
        }
    }

    #[test]
    fn arbitrary_json_as_an_answer_never_panics(protocol in protocol(), value in any_json()) {
        let expected = Expected { json: true, traces: true, ..Expected::nothing(protocol) };
        let answers = [value.clone(), json!({"choices": value}), json!({"type": "message", "content": value}),
            json!({"status": "completed", "output": value}), json!({"type": "content_block_delta", "delta": value})];
        for answer in answers {
            let mut reading = Reading::default();
            let _ = reading.read_whole(answer.to_string().as_bytes(), &expected);
            reading.complete_into(&expected, &mut Response::default());
        }
    }
}
