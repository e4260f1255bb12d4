use super::*;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn problem(body: &str) -> String {
    Json::whole(body.as_bytes()).expect_err("the body is wrong").to_string()
}

#[test]
fn what_is_no_object_is_refused_with_its_position() {
    for (body, expected) in [
        ("", "expected '{' at byte 0"),
        (" [1]", "expected '{' at byte 1"),
        ("{", "expected a key at byte 1"),
        ("{,}", "expected a key at byte 1"),
        ("{\"a\":1", "expected ',' or the end of the list at byte 6"),
        ("{\"a\":1]", "expected ',' or the end of the list at byte 6"),
        ("{\"a\" 1}", "expected ':' at byte 5"),
        ("{\"a\":1,}", "expected a key at byte 7"),
        ("{\"a\":[1,]}", "expected a value at byte 8"),
        ("{\"a\":[,1]}", "expected a value at byte 6"),
        ("{\"a\":[1}", "expected ',' or a closing bracket at byte 7"),
        ("{\"a\":{\"b\":1]", "expected ',' or a closing bracket at byte 11"),
        ("{\"a\":tru}", "expected a value at byte 5"),
        ("{\"a\":01}", "a number starts with 0 at byte 5"),
        ("{\"a\":1.}", "expected a digit at byte 7"),
        ("{\"a\":-}", "expected a digit at byte 6"),
        ("{\"a\":1e+}", "expected a digit at byte 8"),
        ("{\"a\":\"b}", "a string without an end at byte 5"),
        ("{\"a\":\"b\\", "a string without an end at byte 5"),
        ("{\"a\":\"b\\\"", "a string without an end at byte 5"),
        ("{} {}", "expected nothing after the object at byte 3"),
    ] {
        assert_eq!(problem(body), expected, "{body}");
    }
}

#[test]
fn nesting_ends_at_128_levels() {
    let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(Json::whole(nested(128).as_bytes()).is_ok());
    assert_eq!(problem(&nested(129)), "nested deeper than 128 levels at byte 133");
    let text = nested(128);
    let json = Json::whole(text.as_bytes()).unwrap();
    let mut inner = json.root().members().next().unwrap().value;
    for _ in 0..128 {
        inner = inner.elements().next().unwrap();
    }
    assert_eq!(inner.whole_number(), Some(1));
}

#[test]
fn an_event_is_what_it_begins_with() {
    let json = Json::beginning(br#"{"a":[1,2]}, {"b"#).unwrap();
    assert_eq!(json.root().raw(), br#"{"a":[1,2]}"#);
    assert!(Json::beginning(br#" {"a":1}"#).is_err());
    assert!(Json::beginning(br#"{"a":1"#).is_err());
}

#[test]
fn a_string_ends_where_it_ends_however_long_it_is() {
    for length in 0..3 * SHORT {
        for (text, has_escapes) in [("x", false), ("\\\\", true), ("\\\"", true), ("é", false)] {
            let body = format!("{{\"{0}\":\"{0}\"}}", "x".repeat(length) + text);
            let json = Json::whole(body.as_bytes()).unwrap();
            let member = json.root().members().next().unwrap();
            assert_eq!(member.value.raw(), [b"\"", member.key, b"\""].concat());
            assert_eq!(member.value.text().unwrap().has_escapes, has_escapes);
        }
    }
}

#[test]
fn an_escaped_key_is_the_key_it_stands_for() {
    let json = Json::whole(br#"{"pr\u006fmpt": 1, "\ud800": 2, "a\"": 3}"#).unwrap();
    let names: Vec<Cow<'_, [u8]>> = json.root().members().map(|member| member.name()).collect();
    assert_eq!(names, [&b"prompt"[..], b"\\ud800", b"a\""]);
}

#[test]
fn what_is_no_list_has_no_items() {
    let json = Json::whole(br#"{"a": "[1]", "b": {"c": 1}, "d": [2]}"#).unwrap();
    for (member, (n_members, n_elements)) in json.root().members().zip([(0, 0), (1, 0), (0, 1)]) {
        let counts = (member.value.members().count(), member.value.elements().count());
        assert_eq!(counts, (n_members, n_elements));
    }
}

#[test]
fn characters_are_counted_without_decoding() {
    let count = |encoded: &str| {
        let body = format!("{{\"a\":{encoded}}}");
        let json = Json::whole(body.as_bytes()).unwrap();
        json.root().members().next().unwrap().value.text().map(Text::count_chars)
    };
    for (text, chars, has_ink) in
        [("", 0, false), (" \n\t", 3, false), ("hé😀", 3, true), ("\u{1}x", 2, true), ("a\"\\", 3, true)]
    {
        assert_eq!(count(&json!(text).to_string()), Some((chars, has_ink)), "{text:?}");
    }
    assert_eq!(count(r#""\ud83d\ude00\u00e9""#), Some((2, true)));
    assert_eq!(count("null"), None);
}

/// JSON as text, with spaces or without, whose keys may come twice.
fn text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        Just("-0.5e-3".to_owned()),
        any::<String>().prop_map(|value| json!(value).to_string()),
        "[{}\\[\\],:a ]{0,40}".prop_map(|value| json!(value).to_string()),
        Just(r#""\ud83d\ude00\/""#.to_owned()),
    ];
    let space = prop::sample::select(vec!["", "", " ", "\n\t", "\r\n "]);
    let value = leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..5), space.clone()).prop_map(|(items, space)| {
                format!("[{space}{}{space}]", items.join(&format!("{space},{space}")))
            }),
            object(inner, space.clone()),
        ]
    });
    object(value, prop::sample::select(vec!["", " ", "\n\t"]))
}

fn object(
    value: impl Strategy<Value = String>,
    space: impl Strategy<Value = &'static str>,
) -> impl Strategy<Value = String> {
    let key = prop_oneof!["[ab]".boxed(), any::<String>().boxed()];
    (prop::collection::vec((key, value), 0..5), space).prop_map(|(members, space)| {
        let members: Vec<String> =
            members.iter().map(|(key, value)| format!("{}{space}:{space}{value}", json!(key))).collect();
        format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
    })
}

/// The tree that a parser makes, found by reading; the last one of a key counts.
fn tree(node: Node<'_, '_>) -> Value {
    if let Some(text) = node.decoded() {
        return Value::from(text.into_owned());
    }
    if node.is_object() {
        let member = |member: Member<'_, '_>| {
            (String::from_utf8(member.name().into_owned()).unwrap(), tree(member.value))
        };
        return node.members().map(member).collect::<Map<String, Value>>().into();
    }
    if node.is_array() {
        return node.elements().map(tree).collect();
    }
    serde_json::from_slice(node.raw()).unwrap()
}

/// Reads some of it, in some way, and leaves the rest.
fn read_some(node: Node<'_, '_>, how: &mut impl Iterator<Item = u8>) {
    match how.next().unwrap_or(0) % 7 {
        0 => {}
        1 => drop(node.raw()),
        2 => drop(node.decoded()),
        3 => drop(node.members().next().map(|member| read_some(member.value, how))),
        4 => drop(node.elements().next().map(|element| read_some(element, how))),
        5 => node.members().for_each(|member| read_some(member.value, how)),
        _ => node.elements().for_each(|element| read_some(element, how)),
    }
}

proptest! {
    #[test]
    fn what_is_read_is_what_a_parser_finds(text in text()) {
        let json = Json::whole(text.as_bytes()).unwrap();
        prop_assert_eq!(tree(json.root()), serde_json::from_str::<Value>(&text).unwrap());
        prop_assert_eq!(json.root().raw(), text.as_bytes());
    }

    #[test]
    fn what_was_read_before_makes_no_difference(text in text(), how: Vec<u8>) {
        let json = Json::whole(text.as_bytes()).unwrap();
        let mut how = how.into_iter();
        for member in json.root().members() {
            let before = member.value;
            read_some(member.value, &mut how);
            let name = member.name();
            let again = json.root().members().filter(|member| member.name() == name);
            prop_assert!(again.map(|member| member.value.start()).any(|start| start == before.start()));
        }
        prop_assert_eq!(tree(json.root()), serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn what_is_told_of_members_is_where_they_lie(text in text()) {
        let mut told = Vec::new();
        let json = Json::whole_with(text.as_bytes(), |member| told.push(member)).unwrap();
        let bytes = text.as_bytes();
        let read = json.root().members().map(|member| (member.name(), member.value.range()));
        let told = told.iter().map(|member| (member.name(bytes), member.value.clone()));
        prop_assert!(read.eq(told));
    }

    #[test]
    fn what_a_parser_refuses_is_refused(text in text(), at: prop::sample::Index, byte in b' '..=b'~') {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        // Both may still find an object; what strings hold is not looked at until somebody reads them.
        if Json::whole(&bytes).is_err() {
            prop_assert!(serde_json::from_slice::<Map<String, Value>>(&bytes).is_err());
        }
        bytes.truncate(at);
        prop_assert!(Json::whole(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Json::whole(&bytes);
        // Not even what claims to be checked and is not.
        let json = Json::checked(&bytes, 0);
        let _ = read_all(json.root());
    }
}

fn read_all(node: Node<'_, '_>) -> usize {
    let members = node.members().map(|member| read_all(member.value)).sum::<usize>();
    members + node.elements().map(read_all).sum::<usize>() + node.raw().len()
}
