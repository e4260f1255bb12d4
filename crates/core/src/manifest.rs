//! The manifest as written: YAML (or JSON, which is YAML) as a tree in which every node knows its place.
//!
//! The tree knows nothing of what a manifest means; [`crate::parse`] walks it. This is the only file
//! that names the YAML reader, so that its limits are set once: [`LARGEST_DOCUMENT`] bytes,
//! [`DEEPEST_NESTING`] levels, and few enough aliases that none can blow up.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error, Location, MergeKeyPolicy, MessageFormatter, Spanned, UserMessageFormatter};

/// The most bytes a manifest may have: 1 MiB.
pub const LARGEST_DOCUMENT: usize = 1 << 20;

/// The most levels that mappings and lists may be nested.
pub const DEEPEST_NESTING: usize = 40;

/// The most nodes that a document may have, after its aliases are followed.
const MOST_NODES: usize = 100_000;

/// The most nodes that aliases may add to a document.
const MOST_ALIASED_NODES: usize = 5_000;

/// A place in a document, both counted from 1; 0 where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct At {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins; for an alias, where the alias stands.
    pub at: At,
    /// What it is.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing, `null` or `~`.
    Null,
    /// One piece of text, number or truth value.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order written; keys are unique.
    Map(Vec<Entry>),
}

/// One piece of text, number or truth value.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// The characters as written, without quotes: `2.40` stays `2.40`.
    pub text: String,
    /// What YAML takes it for.
    pub json: serde_json::Value,
}

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: At,
    /// The value.
    pub node: Node,
}

/// Why a document could not be read at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Where reading stopped.
    pub at: At,
    /// What is wrong there.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl Node {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Unreadable`] when the text is no YAML, or breaks a limit.
    pub fn read(text: &str) -> Result<Self, Unreadable> {
        if text.len() > LARGEST_DOCUMENT {
            return Err(Unreadable {
                at: At { line: 1, column: 1 },
                message: format!("the document has {} bytes, more than {LARGEST_DOCUMENT}", text.len()),
                hint: None,
            });
        }
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: DEEPEST_NESTING,
                flow_nesting_limit: DEEPEST_NESTING,
                max_nodes: MOST_NODES,
                max_events: 3 * MOST_NODES,
                max_aliases: 1_000,
                max_anchors: 1_000,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: MOST_ALIASED_NODES,
                max_replay_stack_depth: 8,
            },
            duplicate_keys: DuplicateKeyPolicy::Error,
            merge_keys: MergeKeyPolicy::Merge,
            strict_booleans: true,
            with_snippet: false,
        };
        match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
            Ok(root) => Ok(located(root, text)),
            Err(error) => Err(unreadable(&error, text)),
        }
    }

    /// The same value as JSON; the places are dropped.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Scalar(scalar) => scalar.json.clone(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// What the node is, in words for a message.
    pub fn describe(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(scalar) if scalar.json.is_boolean() => "a truth value",
            Value::Scalar(scalar) if scalar.json.is_number() => "a number",
            Value::Scalar(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// A node as the YAML reader hands it over.
enum Raw {
    Null,
    Scalar(serde_json::Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Raw, E> {
        match serde_json::Number::from_f64(value) {
            Some(number) => Ok(Raw::Scalar(number.into())),
            None => Err(E::custom(format!("{value} is no number that JSON can hold"))),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries: Vec<(Spanned<String>, Spanned<Raw>)> = Vec::new();
        while let Some((key, value)) = access.next_entry::<Spanned<String>, Spanned<Raw>>()? {
            // The reader refuses equal keys, but takes `1` and `"1"` for different ones.
            if entries.iter().any(|(known, _)| known.value == key.value) {
                return Err(A::Error::custom(format!("duplicate mapping key {:?}", key.value)));
            }
            entries.push((key, value));
        }
        Ok(Raw::Map(entries))
    }
}

/// Gives every node its place, and every scalar the characters it was written with.
fn located(raw: Spanned<Raw>, text: &str) -> Node {
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Scalar(json) => Value::Scalar(Scalar { text: as_written(&json, raw.defined, text), json }),
        Raw::List(items) => Value::List(items.into_iter().map(|item| located(item, text)).collect()),
        Raw::Map(entries) => {
            let entry = |(key, node): (Spanned<String>, Spanned<Raw>)| Entry {
                at: at(key.referenced),
                key: key.value,
                node: located(node, text),
            };
            Value::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { at: at(raw.referenced), value }
}

/// The characters of a scalar: a number is taken from the document, because its value has lost them.
fn as_written(json: &serde_json::Value, defined: Location, text: &str) -> String {
    if let Some(text) = json.as_str() {
        return text.to_owned();
    }
    let slice = || {
        let start = usize::try_from(defined.span().byte_offset()?).ok()?;
        let length = usize::try_from(defined.span().byte_len()?).ok()?;
        text.get(start..start.checked_add(length)?).map(str::trim)
    };
    match slice() {
        Some(written) if !written.is_empty() && written.len() <= 64 => written.to_owned(),
        Some(_) | None => json.to_string(),
    }
}

fn at(location: Location) -> At {
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    At { line: narrow(location.line()), column: narrow(location.column()) }
}

fn unreadable(error: &Error, text: &str) -> Unreadable {
    let at = error.location().map_or(At::default(), at);
    let mut cause = error;
    while let Error::AliasError { error, .. } | Error::WithSnippet { error, .. } = cause {
        cause = error;
    }
    let message: String =
        UserMessageFormatter.format_message(cause).chars().filter(|c| !c.is_control()).take(300).collect();
    let line =
        usize::try_from(at.line).ok().and_then(|n| text.lines().nth(n.checked_sub(1)?)).unwrap_or_default();
    let indent: &str = &line[..line.len() - line.trim_start().len()];
    let hint = if indent.contains('\t') {
        Some("YAML is indented with spaces, this line starts with a tab".to_owned())
    } else {
        None
    };
    Unreadable { at, message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(node: &'a Node, key: &str) -> &'a Entry {
        match &node.value {
            Value::Map(entries) => {
                entries.iter().find(|entry| entry.key == key).expect("the key is in the document")
            }
            Value::Null | Value::Scalar(_) | Value::List(_) => panic!("{key} asked of {}", node.describe()),
        }
    }

    fn scalar(node: &Node) -> &str {
        match &node.value {
            Value::Scalar(scalar) => &scalar.text,
            Value::Null | Value::List(_) | Value::Map(_) => panic!("no scalar but {}", node.describe()),
        }
    }

    #[test]
    fn every_node_knows_where_it_stands() {
        let root =
            Node::read("spec:\n  version: \"2.4.0\"\n  steps: [1, {a: 2}]\n  base: &b {x: 1}\n  again: *b\n")
                .unwrap();
        let spec = entry(&root, "spec");
        assert_eq!(spec.at, At { line: 1, column: 1 });
        let version = entry(&spec.node, "version");
        assert_eq!((version.at, version.node.at), (At { line: 2, column: 3 }, At { line: 2, column: 12 }));
        let Value::List(steps) = &entry(&spec.node, "steps").node.value else { panic!("steps is a list") };
        assert_eq!(steps[0].at, At { line: 3, column: 11 });
        assert_eq!(entry(&steps[1], "a").node.at, At { line: 3, column: 18 });
        let again = &entry(&spec.node, "again").node;
        assert_eq!(again.at, At { line: 5, column: 10 });
        assert_eq!(again.to_json(), serde_json::json!({"x": 1}));
    }

    #[test]
    fn numbers_keep_the_characters_they_were_written_with() {
        let root =
            Node::read("a: 2.40\nb: 0123\nc: &n 1.50\nd: *n\ne: true\nf: yes\ng: '7'\nh: 1_000\n").unwrap();
        for (key, text) in [
            ("a", "2.40"),
            ("b", "0123"),
            ("c", "1.50"),
            ("d", "1.50"),
            ("e", "true"),
            ("f", "yes"),
            ("g", "7"),
            ("h", "1_000"),
        ] {
            assert_eq!(scalar(&entry(&root, key).node), text, "{key}");
        }
    }

    #[test]
    fn json_is_read_as_it_stands() {
        let json = "{\n\t\"a\": \"\\ud83d\\ude00 \\/ \\n\",\n\t\"b\": [1.5e3, null, true]\n}";
        let read = Node::read(json).unwrap().to_json();
        assert_eq!(read, serde_json::json!({"a": "😀 / \n", "b": [1500.0, null, true]}));
    }

    #[test]
    fn what_is_too_large_or_too_deep_is_refused() {
        let message = |text: &str| Node::read(text).unwrap_err().message;
        assert!(message(&"a".repeat(LARGEST_DOCUMENT + 1)).contains("more than 1048576"));
        assert!(
            Node::read(&format!("{}{}", "[".repeat(DEEPEST_NESTING + 2), "]".repeat(DEEPEST_NESTING + 2)))
                .is_err()
        );
        let mut block = String::new();
        for level in 0..DEEPEST_NESTING + 2 {
            block.push_str(&format!("{}a:\n", " ".repeat(level)));
        }
        assert!(Node::read(&block).is_err());
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(Node::read(&bomb).is_err());
    }
}
