use super::*;

use serde_json::json;
use serin_core::prompt::Prompt;

fn spliced_with(body: &str, mode: SystemMessage, parameters: Value) -> Result<(String, bool), Refusal> {
    spliced_in(Protocol::Chat, body, mode, parameters).map(|spliced| (text(&spliced), spliced.adds_usage))
}

fn text(spliced: &Spliced) -> String {
    String::from_utf8(spliced.body.to_vec()).unwrap()
}

fn spliced_in(
    protocol: Protocol,
    body: &str,
    mode: SystemMessage,
    parameters: Value,
) -> Result<Spliced, Refusal> {
    let bytes = Bytes::from(body.to_owned());
    let asked = ModelRequest::scan(protocol, &bytes).unwrap();
    let messages = Messages::of(&asked).unwrap();
    let Value::Object(parameters) = parameters else { panic!("parameters are an object") };
    let policy = ToolPolicy::default();
    let additions = Additions {
        system: "Be \"kind\".",
        model: None,
        parameters: &parameters,
        tools: &[],
        policy: &policy,
    };
    splice(&asked, messages.as_ref(), Some(&additions), mode, StreamUsage::Add)
}

fn spliced(body: &str) -> String {
    spliced_with(body, SystemMessage::Prepend, json!({})).unwrap().0
}

#[test]
fn the_system_text_goes_first_and_the_prompt_away() {
    let system = r#"{"role":"system","content":"Be \"kind\"."}"#;
    for (before, after) in [
        (
            r#"{"model":"m", "prompt":{"id":"p"}, "messages" : [ {"role":"user"} ]}"#,
            format!(r#"{{"model":"m", "messages" : [{system}, {{"role":"user"}} ]}}"#),
        ),
        (r#"{"prompt":1,"messages":[],"prompt":2}"#, format!(r#"{{"messages":[{system}]}}"#)),
        (r#"{"prompt":1}"#, format!(r#"{{"messages":[{system}]}}"#)),
    ] {
        assert_eq!(spliced(before), after, "{before}");
    }
}

#[test]
fn own_system_messages_stay_go_or_are_refused() {
    let body = r#"{"messages":[{"role":"system","content":"a"},{"role":"user"},{"role":"developer"}]}"#;
    let roles = |mode| {
        let (text, _) = spliced_with(body, mode, json!({})).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let messages = value["messages"].as_array().unwrap().clone();
        messages.iter().map(|message| message["role"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(roles(SystemMessage::Prepend), ["system", "system", "user", "developer"]);
    assert_eq!(roles(SystemMessage::Replace), ["system", "user"]);
    let refused = spliced_with(body, SystemMessage::Reject, json!({})).unwrap_err();
    assert_eq!((refused.status.as_u16(), refused.code), (422, "system_message_rejected"));
    assert!(spliced_with(r#"{"messages":[{"role":"user"}]}"#, SystemMessage::Reject, json!({})).is_ok());
}

#[test]
fn parameters_fill_in_what_the_request_leaves_out() {
    let parameters = json!({"max_tokens": 100, "temperature": 0.2});
    let filled = |body: &str| {
        let (text, _) = spliced_with(body, SystemMessage::Prepend, parameters.clone()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        (value["temperature"].clone(), value["max_tokens"].clone())
    };
    assert_eq!(filled(r#"{"messages":[]}"#), (json!(0.2), json!(100)));
    assert_eq!(filled(r#"{"messages":[],"temperature":1}"#), (json!(1), json!(100)));
    assert_eq!(filled(r#"{"messages":[],"max_completion_tokens":7}"#), (json!(0.2), Value::Null));
}

#[test]
fn usage_is_asked_for_where_the_client_did_not() {
    let usage = |body: &str| {
        let (text, adds) = spliced_with(body, SystemMessage::Prepend, json!({})).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        (value["stream_options"].clone(), adds)
    };
    let added = json!({"include_usage": true});
    for (body, expected) in [
        (r#"{"stream":true}"#, (added.clone(), true)),
        (r#"{"stream":true,"stream_options":null}"#, (added.clone(), true)),
        (r#"{"stream":true,"stream_options":{}}"#, (added.clone(), true)),
        (r#"{"stream":true,"stream_options":{"include_usage":false}}"#, (added.clone(), true)),
        (r#"{"stream":true,"stream_options":{"x":1}}"#, (json!({"x": 1, "include_usage": true}), true)),
        (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, (added, false)),
        (r#"{"stream":true,"stream_options":7}"#, (json!(7), false)),
        (r#"{"stream":false}"#, (Value::Null, false)),
        (r"{}", (Value::Null, false)),
    ] {
        assert_eq!(usage(body), expected, "{body}");
    }
}

#[test]
fn a_version_only_pack_loses_the_prompt_member_alone() {
    let bytes = Bytes::from_static(b"{\"a\":1,\"prompt\":{\"id\":\"p\"},\"stream\":true}");
    let chat = ModelRequest::scan(Protocol::Chat, &bytes).unwrap();
    let spliced = splice(&chat, None, None, SystemMessage::Prepend, StreamUsage::Leave).unwrap();
    assert_eq!(spliced.body, "{\"a\":1,\"stream\":true}");
}

/// What becomes of a body, and the code of the refusal where it is refused.
fn becomes(protocol: Protocol, body: &str, mode: SystemMessage) -> Result<String, &'static str> {
    let spliced = spliced_in(protocol, body, mode, json!({}));
    spliced.map(|spliced| text(&spliced)).map_err(|refusal| refusal.code)
}

#[test]
fn the_system_text_of_a_response_goes_to_its_instructions() {
    use SystemMessage::{Prepend, Reject, Replace};
    let rejected = || Err("system_message_rejected");
    let developer = r#"{"input":[{"role":"developer","content":"d"},{"role":"user","content":"u"}]}"#;
    for (mode, before, after) in [
        (Prepend, r#"{"input":"hi"}"#, Ok(r#"{"input":"hi","instructions":"Be \"kind\"."}"#)),
        (Prepend, r#"{"prompt":1,"input": []}"#, Ok(r#"{"input": [],"instructions":"Be \"kind\"."}"#)),
        (
            Prepend,
            r#"{"instructions":"own é","input":"hi"}"#,
            Ok(r#"{"instructions":"Be \"kind\".\n\nown é","input":"hi"}"#),
        ),
        (
            Prepend,
            r#"{"instructions":null,"input":"hi"}"#,
            Ok(r#"{"instructions":"Be \"kind\".","input":"hi"}"#),
        ),
        (
            Replace,
            r#"{"instructions":"own","input":"hi"}"#,
            Ok(r#"{"instructions":"Be \"kind\".","input":"hi"}"#),
        ),
        (
            Replace,
            developer,
            Ok(r#"{"input":[{"role":"user","content":"u"}],"instructions":"Be \"kind\"."}"#),
        ),
        (Reject, developer, rejected()),
        (Reject, r#"{"instructions":"own","input":"hi"}"#, rejected()),
        (
            Reject,
            r#"{"instructions":"","input":"hi"}"#,
            Ok(r#"{"instructions":"Be \"kind\".","input":"hi"}"#),
        ),
        (Prepend, r#"{"instructions":7,"input":"hi"}"#, Err("invalid_system")),
        (
            Prepend,
            r#"{"previous_response_id":"resp_1"}"#,
            Ok(r#"{"previous_response_id":"resp_1","instructions":"Be \"kind\"."}"#),
        ),
        (Prepend, r#"{"prompt":1}"#, Ok(r#"{"input":[{"role":"system","content":"Be \"kind\"."}]}"#)),
    ] {
        assert_eq!(becomes(Protocol::Responses, before, mode), after.map(str::to_owned), "{mode:?} {before}");
    }
}

#[test]
fn the_system_text_of_anthropic_s_messages_goes_to_system() {
    use SystemMessage::{Prepend, Reject, Replace};
    let user = r#""messages":[{"role":"user","content":"u"}]"#;
    let blocks = r#"[ {"type":"text","text":"own","cache_control":{"type":"ephemeral"}}]"#;
    for (mode, own, after) in [
        (Prepend, None, Ok(None)),
        (Prepend, Some(r#""own""#), Ok(Some(r#""Be \"kind\".\n\nown""#.to_owned()))),
        (
            Prepend,
            Some(blocks),
            Ok(Some(format!(r#"[{{"type":"text","text":"Be \"kind\"."}},{}"#, &blocks[1..]))),
        ),
        (Prepend, Some("[]"), Ok(Some(r#""Be \"kind\".""#.to_owned()))),
        (Replace, Some(blocks), Ok(Some(r#""Be \"kind\".""#.to_owned()))),
        (Reject, Some(blocks), Err("system_message_rejected")),
        (Reject, None, Ok(None)),
    ] {
        let before = match own {
            Some(own) => format!(r#"{{"system":{own},{user}}}"#),
            None => format!("{{{user}}}"),
        };
        let after = after.map(|system| match system {
            Some(system) => format!(r#"{{"system":{system},{user}}}"#),
            None => format!(r#"{{{user},"system":"Be \"kind\"."}}"#),
        });
        assert_eq!(becomes(Protocol::Messages, &before, mode), after, "{mode:?} {before}");
    }
}

#[test]
fn parameters_go_by_the_names_of_the_protocol_and_those_it_lacks_are_counted() {
    let parameters = json!({"max_tokens": 100, "temperature": 0.2, "top_k": 5, "frequency_penalty": 1, "presence_penalty": 1});
    for (protocol, body, expected, n_left_out) in [
        (Protocol::Responses, r#"{"input":"u"}"#, json!({"max_output_tokens": 100, "temperature": 0.2}), 3),
        (
            Protocol::Responses,
            r#"{"input":"u","max_output_tokens":7}"#,
            json!({"max_output_tokens": 7, "temperature": 0.2}),
            3,
        ),
        (
            Protocol::Messages,
            r#"{"messages":[]}"#,
            json!({"max_tokens": 100, "temperature": 0.2, "top_k": 5}),
            2,
        ),
    ] {
        let spliced = spliced_in(protocol, body, SystemMessage::Prepend, parameters.clone()).unwrap();
        let mut value: Value = serde_json::from_str(&text(&spliced)).unwrap();
        let fields = value.as_object_mut().unwrap();
        for name in ["input", "messages", "instructions", "system"] {
            fields.remove(name);
        }
        assert_eq!((value, spliced.n_left_out), (expected, n_left_out), "{protocol:?}");
    }
}

/// What a pack with two tools, a policy and a model makes of a body.
fn with_tools(protocol: Protocol, body: &str, policy: Value, model: Option<&str>) -> Value {
    let pack = json!({
        "id": "p", "name": "P", "version": "1.0.0", "template_engine": {"version": "v1", "syntax": "{{variable}}"},
        "tools": {
            "find": {"name": "find", "description": "Finds.", "parameters": {"type": "object", "properties": {}}},
            "stop": {"name": "stop", "description": "Stops."},
        },
        "prompts": {"p": {"id": "p", "name": "P", "version": "1.0.0", "system_template": "x", "tools": ["find", "stop"], "tool_policy": policy}},
    });
    let pack = serin_core::prompt::Pack::from_value(pack).unwrap();
    let prompt = pack.prompts().values().next().unwrap();
    let bytes = Bytes::from(body.to_owned());
    let asked = ModelRequest::scan(protocol, &bytes).unwrap();
    let parameters = Map::new();
    let Prompt { tools, policy, .. } = prompt;
    let additions = Additions { system: "", model, parameters: &parameters, tools, policy };
    let spliced = splice(&asked, None, Some(&additions), SystemMessage::Prepend, StreamUsage::Leave).unwrap();
    serde_json::from_slice(&spliced.body).unwrap()
}

#[test]
fn the_tools_of_a_pack_are_added_in_the_form_of_each_protocol() {
    let policy = json!({"tool_choice": "required", "max_tool_calls_per_turn": 1});
    let object = json!({"type": "object", "properties": {}});
    assert_eq!(
        with_tools(Protocol::Chat, r#"{"a":1}"#, policy.clone(), None),
        json!({"a": 1, "tool_choice": "required", "parallel_tool_calls": false, "tools": [
            {"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": object}},
            {"type": "function", "function": {"name": "stop", "description": "Stops."}},
        ]})
    );
    assert_eq!(
        with_tools(Protocol::Responses, r#"{"tools":null}"#, policy.clone(), None),
        json!({"tool_choice": "required", "parallel_tool_calls": false, "tools": [
            {"type": "function", "name": "find", "description": "Finds.", "parameters": object, "strict": false},
            {"type": "function", "name": "stop", "description": "Stops.", "parameters": object, "strict": false},
        ]})
    );
    assert_eq!(
        with_tools(Protocol::Messages, r#"{"tools":[]}"#, policy, None),
        json!({"tool_choice": {"type": "any", "disable_parallel_tool_use": true}, "tools": [
            {"name": "find", "description": "Finds.", "input_schema": object},
            {"name": "stop", "description": "Stops.", "input_schema": object},
        ]})
    );
}

#[test]
fn tools_of_the_request_stay_unless_the_pack_blocks_them_and_its_word_about_their_use_comes_first() {
    let own = r#"{"tools":[ {"name":"find","x":1}, {"name":"shell"},{"type":"web_search"}],"tool_choice":{"type":"none"}}"#;
    let kept = with_tools(
        Protocol::Messages,
        own,
        json!({"tool_choice": "required", "blocklist": ["shell", "stop"]}),
        None,
    );
    assert_eq!(
        kept,
        json!({"tools": [{"name": "find", "x": 1}, {"type": "web_search"}], "tool_choice": {"type": "none"}})
    );
    let own = r#"{"m":1,"tools":[{"name":"shell"}],"tool_choice":"auto"}"#;
    let none_left = json!({"tool_choice": "auto", "blocklist": ["shell", "stop", "find"]});
    assert_eq!(with_tools(Protocol::Responses, own, none_left.clone(), None), json!({"m": 1}));
    assert_eq!(with_tools(Protocol::Responses, "{}", none_left, None), json!({}), "no word about no tools");
    let old = r#"{"functions":[{"name":"old"}]}"#;
    assert_eq!(with_tools(Protocol::Chat, old, json!({}), None), json!({"functions": [{"name": "old"}]}));
}

#[test]
fn the_model_that_a_version_is_made_for_takes_the_place_of_the_request_s() {
    let blocked = json!({"blocklist": ["find", "stop"]});
    for (body, after) in [
        (r#"{"model": "small" ,"x":1}"#, json!({"model": "large", "x": 1})),
        (r#"{"x":1}"#, json!({"model": "large", "x": 1})),
        (r#"{"model":"a","model":"b"}"#, json!({"model": "large"})),
    ] {
        assert_eq!(with_tools(Protocol::Chat, body, blocked.clone(), Some("large")), after, "{body}");
    }
}
