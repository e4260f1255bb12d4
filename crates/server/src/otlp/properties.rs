//! Whatever bytes come: they are read, or refused with a reason, and never more than that.

use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};

use super::meaning::Own;
use super::wire::{Logs, Traces};
use super::{of_logs, of_traces};

/// A value of an attribute in OTLP's JSON, of every kind and nested.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({})),
        any::<String>().prop_map(|text| json!({"stringValue": text})),
        any::<bool>().prop_map(|flag| json!({"boolValue": flag})),
        any::<i64>().prop_map(|number| json!({"intValue": number.to_string()})),
        (-1e300..1e300).prop_map(|number: f64| json!({"doubleValue": number})),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| json!({"arrayValue": {"values": values}})),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|pairs| {
                let pairs: Vec<Value> =
                    pairs.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
                json!({"kvlistValue": {"values": pairs}})
            }),
        ]
    })
}

/// Attributes, most of them by names that mean something.
fn attributes() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "gen_ai.operation.name",
        "gen_ai.prompt.name",
        "gen_ai.prompt.version",
        "gen_ai.conversation.id",
        "gen_ai.response.id",
        "gen_ai.response.finish_reasons",
        "gen_ai.usage.input_tokens",
        "gen_ai.evaluation.name",
        "gen_ai.evaluation.score.value",
        "gen_ai.evaluation.score.label",
        "feature_flag.key",
        "feature_flag.context.id",
        "feature_flag.result.variant",
        "error.type",
        "server.port",
        "anything",
    ]);
    let pair = (name, value()).prop_map(|(key, value)| json!({"key": key, "value": value}));
    prop::collection::vec(pair, 0..10).prop_map(Value::Array)
}

fn traces() -> impl Strategy<Value = Value> {
    let span = (attributes(), attributes(), any::<u64>(), any::<u64>(), any::<i32>(), "([0-9a-f]{2}){0,16}").prop_map(
        |(attributes, of_event, start, end, code, id)| {
            json!({
                "traceId": id, "spanId": id, "startTimeUnixNano": start.to_string(), "endTimeUnixNano": end.to_string(),
                "attributes": attributes, "status": {"code": code},
                "events": [{"name": "gen_ai.evaluation.result", "timeUnixNano": end.to_string(), "attributes": of_event}],
            })
        },
    );
    (attributes(), prop::collection::vec(span, 0..4)).prop_map(|(resource, spans)| {
        json!({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [{"spans": spans}]}]})
    })
}

fn logs() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["gen_ai.evaluation.result", "feature_flag.evaluation", "other", ""]);
    let record = (name, attributes(), value(), any::<u64>()).prop_map(|(name, attributes, body, at)| {
        json!({"eventName": name, "timeUnixNano": at.to_string(), "attributes": attributes, "body": body})
    });
    prop::collection::vec(record, 0..4)
        .prop_map(|records| json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}))
}

fn meaning_of_traces(traces: &Traces) {
    of_traces(traces, &Own { port: 8980, hosts: vec!["serin.internal".to_owned()] });
}

/// One byte of it is another, or it ends early.
fn damaged(mut bytes: Vec<u8>, at: prop::sample::Index, byte: Option<u8>) -> Vec<u8> {
    if !bytes.is_empty() {
        let at = at.index(bytes.len());
        match byte {
            Some(byte) => bytes[at] = byte,
            None => bytes.truncate(at),
        }
    }
    bytes
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        if let Ok(traces) = Traces::decode(bytes.as_slice()) {
            meaning_of_traces(&traces);
        }
        if let Ok(logs) = Logs::decode(bytes.as_slice()) {
            of_logs(&logs);
        }
        if let Ok(traces) = serde_json::from_slice::<Traces>(&bytes) {
            meaning_of_traces(&traces);
        }
        if let Ok(logs) = serde_json::from_slice::<Logs>(&bytes) {
            of_logs(&logs);
        }
    }

    #[test]
    fn spans_of_any_content_are_read_and_mean_the_same_in_both_encodings(given in traces()) {
        let read: Traces = serde_json::from_value(given).map_err(|error| TestCaseError::fail(error.to_string()))?;
        meaning_of_traces(&read);
        let again = Traces::decode(read.encode_to_vec().as_slice());
        prop_assert_eq!(again, Ok(read));
    }

    #[test]
    fn records_of_any_content_are_read_and_mean_the_same_in_both_encodings(given in logs()) {
        let read: Logs = serde_json::from_value(given).map_err(|error| TestCaseError::fail(error.to_string()))?;
        of_logs(&read);
        let again = Logs::decode(read.encode_to_vec().as_slice());
        prop_assert_eq!(again, Ok(read));
    }

    #[test]
    fn damaged_protobuf_never_panics(given in traces(), at: prop::sample::Index, byte: Option<u8>) {
        let read: Traces = serde_json::from_value(given).map_err(|error| TestCaseError::fail(error.to_string()))?;
        if let Ok(read) = Traces::decode(damaged(read.encode_to_vec(), at, byte).as_slice()) {
            meaning_of_traces(&read);
        }
    }

    #[test]
    fn damaged_json_is_read_or_refused_with_its_place(given in logs(), at: prop::sample::Index, byte: Option<u8>) {
        is_read_or_refused_with_its_place(&damaged(given.to_string().into_bytes(), at, byte));
    }
}

fn is_read_or_refused_with_its_place(bytes: &[u8]) {
    match serde_json::from_slice::<Logs>(bytes) {
        Ok(logs) => {
            of_logs(&logs);
        }
        Err(error) => {
            let lines = bytes.split(|byte| *byte == b'\n').count();
            assert!((1..=lines).contains(&error.line()), "{error}");
            assert!(error.to_string().contains(" column "), "{error}");
        }
    }
}

#[test]
fn a_line_break_for_a_bracket_is_refused_with_its_place() {
    is_read_or_refused_with_its_place(b"\n\"resourceLogs\":[]}");
}
