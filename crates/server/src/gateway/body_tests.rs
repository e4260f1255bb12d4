use super::*;

use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn members_are_found_with_their_ranges() {
    let body = br#" { "a" : 1.5e3 , "b\"\\" : [ { "x": "}" } , [] ] , "a": null } "#;
    let object = Object::scan(body).unwrap();
    let seen: Vec<(String, &str)> = object
        .members
        .iter()
        .map(|member| {
            let name = String::from_utf8(member.name(body).into_owned()).unwrap();
            (name, std::str::from_utf8(&body[member.value.clone()]).unwrap())
        })
        .collect();
    let expected = [("a", "1.5e3"), ("b\"\\", r#"[ { "x": "}" } , [] ]"#), ("a", "null")];
    assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn an_escaped_key_is_the_key_it_stands_for() {
    let body = br#"{"pr\u006fmpt": 1}"#;
    let object = Object::scan(body).unwrap();
    assert_eq!(&*object.members[0].name(body), b"prompt");
}

/// Removes the members called `gone`, appends `added`, and puts an element before the list `list`.
fn spliced(body: &Bytes) -> Bytes {
    let object = Object::scan(body).unwrap();
    let ranges: Vec<Range<usize>> = object.members.iter().map(MemberPlace::range).collect();
    let mut edits = Edits::default();
    if let Some(list) = object.members.iter().rfind(|member| *member.name(body) == *b"list")
        && body[list.value.start] == b'['
    {
        let json = object.json(body);
        let elements = json.node(&list.value).elements();
        let items: Vec<Range<usize>> = elements.map(|element| element.range()).collect();
        let is_null = |index: usize| body[items[index].clone()] == *b"null";
        edits.list(
            &items,
            &ListEdit {
                open: list.value.start + 1,
                removed: &is_null,
                prefix: Some(&|out| out.extend_from_slice(b"\"first\"")),
                suffix: None,
            },
        );
    }
    let is_gone = |index: usize| *object.members[index].name(body) == *b"gone";
    edits.list(
        &ranges,
        &ListEdit {
            open: object.open,
            removed: &is_gone,
            prefix: None,
            suffix: Some(&|out| out.extend_from_slice(b"\"added\":true")),
        },
    );
    edits.apply(body)
}

/// The same on a tree.
fn changed(mut value: Value) -> Value {
    let object = value.as_object_mut().unwrap();
    object.remove("gone");
    if let Some(Value::Array(list)) = object.get_mut("list") {
        list.retain(|element| !element.is_null());
        list.insert(0, json!("first"));
    }
    object.insert("added".to_owned(), json!(true));
    value
}

#[test]
fn commas_stay_right_wherever_members_go() {
    for (before, after) in [
        ("{}", r#"{"added":true}"#),
        (r#"{ "gone" : 1 }"#, r#"{"added":true }"#),
        (r#"{"gone":1,"gone":2}"#, r#"{"added":true}"#),
        (r#"{"gone":1, "a":2}"#, r#"{"a":2,"added":true}"#),
        (r#"{"a":2 , "gone":1 }"#, r#"{"a":2,"added":true }"#),
        (r#"{"a":1,"gone":2,"gone":3,"b":4,"gone":5,"gone":6}"#, r#"{"a":1,"b":4,"added":true}"#),
        (r#"{"list":[]}"#, r#"{"list":["first"],"added":true}"#),
        (r#"{"list":[null]}"#, r#"{"list":["first"],"added":true}"#),
        (r#"{"list":[null,1,null]}"#, r#"{"list":["first",1],"added":true}"#),
    ] {
        assert_eq!(spliced(&Bytes::from(before)), after, "{before}");
    }
}

#[test]
fn a_body_without_changes_comes_back_as_the_same_memory() {
    let body = Bytes::from_static(b"{\"a\": 1}");
    assert_eq!(Edits::default().apply(&body).as_ptr(), body.as_ptr());
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|quarters| Value::from(f64::from(quarters) / 4.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            json_object(inner).prop_map(Value::Object),
        ]
    })
}

fn json_object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    let key = prop_oneof![Just("gone".to_owned()), Just("list".to_owned()), any::<String>()];
    prop::collection::vec((key, value), 0..6).prop_map(|members| members.into_iter().collect())
}

proptest! {
    #[test]
    fn a_spliced_document_is_the_changed_tree(object in json_object(json_value()), pretty: bool) {
        let value = Value::Object(object);
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let after = spliced(&Bytes::from(text.unwrap()));
        prop_assert_eq!(serde_json::from_slice::<Value>(&after).unwrap(), changed(value));
    }

    #[test]
    fn a_text_is_written_as_a_serializer_writes_it(text in "[\\x00-\\x7fé😀]{0,100}", plain in "[a-z ]{0,80}") {
        for text in [text.clone(), plain.clone() + &text + &plain] {
            let mut out = Vec::new();
            write_text(&mut out, &text);
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }

    #[test]
    fn damaged_documents_never_panic(object in json_object(json_value()), at: prop::sample::Index, byte: u8) {
        let mut bytes = Value::Object(object).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if Object::scan(&bytes).is_ok() {
            let _ = spliced(&Bytes::from(bytes.clone()));
        }
        bytes.truncate(at);
        prop_assert!(Object::scan(&bytes).is_err());
    }
}
