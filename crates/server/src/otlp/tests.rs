use prost::Message;
use serde_json::json;
use serin_core::observation::ErrorKind;
use serin_core::units::Timestamp;

use super::links::{LONGEST_WAIT, Links, MOST_WAITING};
use super::meaning::{Item, Own, Told};
use super::wire::{Logs, Traces};
use super::{of_logs, of_traces};

fn now() -> Timestamp {
    "2026-11-02T09:00:00Z".parse().unwrap()
}

/// Spans of one service: ids as bytes, attributes and events as JSON objects.
fn items(spans: &[serde_json::Value]) -> Vec<Item> {
    let traces = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    let traces: Traces = serde_json::from_value(traces).unwrap();
    of_traces(&traces, &Own { port: 8980, hosts: vec!["serin.internal".to_owned()] }).0
}

fn attributes(pairs: serde_json::Value) -> serde_json::Value {
    let value = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => json!({"stringValue": text}),
        serde_json::Value::Number(number) if number.is_i64() => json!({"intValue": number.to_string()}),
        serde_json::Value::Number(number) => json!({"doubleValue": number}),
        serde_json::Value::Bool(flag) => json!({"boolValue": flag}),
        serde_json::Value::Array(texts) => {
            json!({"arrayValue": {"values": texts.iter().map(|text| json!({"stringValue": text})).collect::<Vec<_>>()}})
        }
        other => panic!("{other} is no attribute"),
    };
    pairs.as_object().unwrap().iter().map(|(key, given)| json!({"key": key, "value": value(given)})).collect()
}

fn span(trace: u8, span: u8, pairs: serde_json::Value) -> serde_json::Value {
    json!({
        "traceId": format!("{trace:032x}"), "spanId": format!("{span:016x}"),
        "startTimeUnixNano": "1793610000000000000", "endTimeUnixNano": "1793610000250000000",
        "attributes": attributes(pairs), "unknownField": [1],
    })
}

fn call(item: &Item) -> &serin_core::observation::Response {
    match &item.told {
        Told::Call(response) => response,
        other => panic!("no call: {other:?}"),
    }
}

#[test]
fn a_chat_span_becomes_a_response() {
    let items = items(&[span(
        1,
        2,
        json!({
            "gen_ai.operation.name": "chat", "gen_ai.prompt.name": "support/answer",
            "gen_ai.prompt.version": "2.4.0", "gen_ai.conversation.id": "chat-17",
            "gen_ai.response.id": "chatcmpl-1", "gen_ai.response.finish_reasons": ["stop", "length"],
            "gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 30,
            "gen_ai.response.time_to_first_chunk": 0.1,
        }),
    )]);
    let [item] = items.as_slice() else { panic!("{items:?}") };
    let subject = &item.subject;
    assert_eq!(
        (subject.session.as_deref(), subject.pack.as_deref(), subject.version.as_deref()),
        (Some("chat-17"), Some("support"), Some("2.4.0"))
    );
    assert_eq!((item.at, item.response.as_deref()), (Some(now()), Some("chatcmpl-1")));
    let response = call(item);
    assert_eq!((response.success, response.error, response.latency_ms), (Some(true), None, Some(250.0)));
    assert_eq!(
        (response.input_tokens, response.output_tokens, response.ttft_ms),
        (Some(120.0), Some(30.0), Some(100.0))
    );
    assert_eq!((response.finish_reason.as_deref(), response.truncated), (Some("stop"), Some(true)));
    assert_eq!((response.tool_calls, response.refusal), (Some(0), Some(false)));
}

#[test]
fn older_names_and_those_of_other_libraries_are_read() {
    for (operation, pairs) in [
        (
            "llm.request.type",
            json!({"llm.request.type": "chat", "traceloop.prompt.key": "support", "traceloop.prompt.version": "1.0.0", "llm.usage.prompt_tokens": 7, "session.id": "s"}),
        ),
        (
            "langfuse.observation.type",
            json!({"langfuse.observation.type": "generation", "langfuse.observation.prompt.name": "support", "langfuse.observation.prompt.version": "1.0.0", "gen_ai.usage.prompt_tokens": 7, "langfuse.session.id": "s"}),
        ),
        (
            "openinference.span.kind",
            json!({"openinference.span.kind": "LLM", "gen_ai.prompt.name": "support.answer", "llm.prompt_template.version": "1.0.0", "llm.token_count.prompt": 7, "session.id": "s"}),
        ),
    ] {
        let items = items(&[span(1, 2, pairs)]);
        let item = &items[0];
        let subject = &item.subject;
        assert_eq!(
            (subject.session.as_deref(), subject.pack.as_deref()),
            (Some("s"), Some("support")),
            "{operation}"
        );
        assert_eq!(
            (subject.version.as_deref(), call(item).input_tokens),
            (Some("1.0.0"), Some(7.0)),
            "{operation}"
        );
    }
}

#[test]
fn an_error_says_who_failed() {
    for (error, kind) in [
        ("429", ErrorKind::Provider),
        ("503", ErrorKind::Provider),
        ("timeout", ErrorKind::Provider),
        ("openai.RateLimitError", ErrorKind::Provider),
        ("APIConnectionError", ErrorKind::Provider),
        ("400", ErrorKind::Request),
        ("404", ErrorKind::Request),
        ("openai.BadRequestError", ErrorKind::Request),
        ("AuthenticationError", ErrorKind::Request),
    ] {
        let items = items(&[span(1, 2, json!({"gen_ai.operation.name": "chat", "error.type": error}))]);
        let response = call(&items[0]);
        assert_eq!((response.success, response.error), (Some(false), Some(kind)), "{error}");
    }
}

#[test]
fn a_call_through_our_own_gateway_is_not_counted_again() {
    let of = |host: &str, port: i64| {
        let pairs = json!({"gen_ai.operation.name": "chat", "server.address": host, "server.port": port});
        items(&[span(1, 2, pairs)])[0].told == Told::Seen
    };
    assert!(
        of("127.0.0.1", 8980) && of("localhost", 8980) && of("serin.internal", 8980) && of("[::1]", 8980)
    );
    assert!(!of("api.openai.com", 443) && !of("127.0.0.1", 8990) && !of("api.openai.com", 8980));
}

#[test]
fn a_span_is_of_the_session_of_its_trace_whichever_comes_first() {
    let around = |id| span(1, id, json!({"gen_ai.conversation.id": "s", "gen_ai.prompt.name": "support"}));
    let inner = |id| span(1, id, json!({"gen_ai.operation.name": "chat"}));
    let is_joined = |item: &Item| {
        (item.subject.session.as_deref(), item.subject.pack.as_deref()) == (Some("s"), Some("support"))
    };
    // In one batch, child first as exporters have it.
    let mut links = Links::default();
    let joined = links.join(items(&[inner(2), around(1)]), now());
    assert!(joined.ready.len() == 2 && joined.ready.iter().all(is_joined), "{joined:?}");
    // In two batches, each way round.
    let mut links = Links::default();
    assert!(links.join(items(&[inner(2)]), now()).ready.is_empty());
    assert_eq!(links.waiting(), 1);
    let joined = links.join(items(&[around(1)]), now());
    assert!(joined.released.len() == 1 && is_joined(&joined.released[0]), "{joined:?}");
    let joined = links.join(items(&[inner(3)]), now());
    assert!(links.waiting() == 0 && is_joined(&joined.ready[0]), "{joined:?}");
}

#[test]
fn a_trace_about_several_packs_says_nothing_of_the_pack() {
    let around = |id, pack| span(1, id, json!({"gen_ai.conversation.id": "s", "gen_ai.prompt.name": pack}));
    let mut links = Links::default();
    let inner = span(1, 9, json!({"gen_ai.operation.name": "chat"}));
    let joined = links.join(items(&[around(1, "support"), around(2, "sales"), inner]), now());
    let subject = &joined.ready[2].subject;
    assert_eq!((subject.session.as_deref(), subject.pack.as_deref()), (Some("s"), None));
}

#[test]
fn an_evaluation_is_joined_by_span_response_or_conversation() {
    let record = |trace: &str, span: &str, pairs: serde_json::Value| {
        let mut pairs = pairs;
        pairs["gen_ai.evaluation.name"] = json!("Task Completion");
        let record = json!({
            "timeUnixNano": 1_793_610_001_000_000_000_u64, "eventName": "gen_ai.evaluation.result",
            "traceId": trace, "spanId": span, "attributes": attributes(pairs),
        });
        let logs = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]});
        of_logs(&serde_json::from_value::<Logs>(logs).unwrap()).0
    };
    let mut links = Links::default();
    let chat = json!({"gen_ai.operation.name": "chat", "gen_ai.conversation.id": "s", "gen_ai.prompt.name": "support", "gen_ai.response.id": "r-1"});
    links.join(items(&[span(1, 2, chat)]), now());
    let (trace, other) = (format!("{:032x}", 1), format!("{:032x}", 7));
    let spans = [format!("{:016x}", 2), format!("{:016x}", 3)];
    for (records, value, pack) in [
        (
            record(&trace, &spans[0], json!({"gen_ai.evaluation.score.value": 0.0})),
            Some(0.0),
            Some("support"),
        ),
        (record(&trace, &spans[1], json!({"gen_ai.evaluation.score.value": 1})), Some(1.0), None),
        (
            record(
                &other,
                &spans[1],
                json!({"gen_ai.response.id": "r-1", "gen_ai.evaluation.score.label": "Pass"}),
            ),
            Some(1.0),
            Some("support"),
        ),
        (
            record(
                "",
                "",
                json!({"gen_ai.conversation.id": "s", "gen_ai.evaluation.score.label": "unclear"}),
            ),
            None,
            None,
        ),
    ] {
        let joined = links.join(records, now());
        let [item] = joined.ready.as_slice() else { panic!("{joined:?}") };
        assert_eq!((item.subject.session.as_deref(), item.subject.pack.as_deref()), (Some("s"), pack));
        assert_eq!(item.told, Told::Outcome { name: "task_completion".to_owned(), value });
    }
    let unheard_of = format!("{:032x}", 9);
    let stranger =
        links.join(record(&unheard_of, &spans[1], json!({"gen_ai.evaluation.score.value": 1})), now());
    assert!(stranger.ready.is_empty() && links.waiting() == 1);
}

#[test]
fn a_flag_that_was_evaluated_says_whose_trace_it_is() {
    let mut chat = span(1, 2, json!({"gen_ai.operation.name": "chat"}));
    chat["events"] = json!([{
        "name": "feature_flag.evaluation", "timeUnixNano": "1793610000000000000",
        "attributes": attributes(json!({
            "feature_flag.key": "support.answer", "feature_flag.context.id": "s", "feature_flag.result.variant": "2.4.0",
        })),
    }]);
    let joined = Links::default().join(items(&[chat]), now());
    for item in &joined.ready {
        let subject = &item.subject;
        assert_eq!(
            (subject.session.as_deref(), subject.pack.as_deref(), subject.version.as_deref()),
            (Some("s"), Some("support"), Some("2.4.0")),
            "{item:?}"
        );
    }
    assert_eq!(joined.ready.len(), 2);
}

#[test]
fn a_tool_that_failed_was_called_wrongly_by_the_call_before_it() {
    let chat = json!({"gen_ai.operation.name": "chat", "gen_ai.conversation.id": "s", "gen_ai.response.finish_reasons": ["tool_calls"]});
    let tool = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "refund", "error.type": "KeyError"});
    let joined = Links::default().join(items(&[span(1, 2, chat), span(1, 3, tool)]), now());
    let response = call(&joined.ready[0]);
    assert_eq!((response.tool_calls, response.wrong_tool_calls), (Some(1), Some(1)));
}

#[test]
fn what_waits_is_bounded_in_number_and_time() {
    let mut links = Links::default();
    let calls: Vec<Item> = (0..MOST_WAITING + 5)
        .map(|n| {
            let mut item = items(&[span(1, 2, json!({"gen_ai.operation.name": "chat"}))]).remove(0);
            item.place.trace = n.to_be_bytes().to_vec();
            item
        })
        .collect();
    let joined = links.join(calls, now());
    assert_eq!((joined.unjoined, links.waiting()), (5, MOST_WAITING));
    let joined = links.join(Vec::new(), LONGEST_WAIT.after(now()));
    assert_eq!((joined.unjoined, links.waiting()), (MOST_WAITING, 0));
}

#[test]
fn both_encodings_say_the_same_and_pass_over_what_is_not_known() {
    let json: Traces = serde_json::from_value(json!({
        "resourceSpans": [{"resource": {"attributes": attributes(json!({"service.name": "app"})), "entityRefs": []},
            "scopeSpans": [{"scope": {"name": "x"}, "spans": [span(1, 2, json!({"a": 1, "b": 0.5, "c": true, "d": ["x"]}))]}]}],
    }))
    .unwrap();
    let mut bytes = json.encode_to_vec();
    // A field of a version to come: number 100, of length 3.
    bytes.extend([0xa2, 0x06, 3, b'n', b'e', b'w']);
    assert_eq!(Traces::decode(bytes.as_slice()).unwrap(), json);
    for wrong in [
        json!({"resourceSpans": {}}),
        json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}),
        json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "soon"}]}]}]}),
    ] {
        assert!(serde_json::from_value::<Traces>(wrong.clone()).is_err(), "{wrong}");
    }
}
