//! Paths into a pack, and where in its text they stand.
//!
//! A path reads like JavaScript: `prompts.support.variables[0].type`, and `model_overrides["gpt-4.1"]` where a
//! key is no plain word.

use std::collections::BTreeMap;

use serde_json::Value;

use super::PackProblem;
use crate::manifest::At;

/// The path of a member of an object.
pub(super) fn member(parent: &str, key: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$' | ' ');
    match (!key.is_empty() && key.chars().all(is_plain), parent.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{parent}.{key}"),
        (false, _) => format!("{parent}[{}]", Value::from(key)),
    }
}

/// The path of what a JSON pointer leads to, inside of what a path leads to.
pub fn path_under(base: &str, pointer: &str) -> String {
    let keys = pointer.split('/').skip(1).map(|key| key.replace("~1", "/").replace("~0", "~"));
    keys.fold(base.to_owned(), |path, key| {
        let is_index = !key.is_empty() && key.chars().all(|c| c.is_ascii_digit());
        if is_index { format!("{path}[{key}]") } else { member(&path, &key) }
    })
}

/// Cuts a path into keys and indices; as far as it can be read.
fn steps(path: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(inside) = rest.strip_prefix("[\"") {
            let mut escaped = false;
            let end = inside.char_indices().find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            let Some((end, _)) = end else { break };
            steps.push(serde_json::from_str(&rest[1..end + 3]).unwrap_or_default());
            rest = inside[end + 1..].strip_prefix(']').unwrap_or_default();
        } else if let Some(inside) = rest.strip_prefix('[') {
            let Some(end) = inside.find(']') else { break };
            steps.push(inside[..end].to_owned());
            rest = &inside[end + 1..];
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
    }
    steps
}

/// Where everything stands in the text of a pack.
#[derive(Debug, Default)]
pub struct Places {
    root: Spot,
    twice: Vec<PackProblem>,
}

/// A value's place, and those inside of it.
#[derive(Debug, Default)]
struct Spot {
    at: At,
    inside: BTreeMap<String, Spot>,
}

impl Places {
    /// Reads the places of a text; a text that is no JSON has none.
    pub fn of(json: &str) -> Self {
        // The scan below relies on what this makes sure of, the nesting among it.
        if serde_json::from_str::<serde::de::IgnoredAny>(json).is_err() {
            return Self::default();
        }
        let mut scan = Scan { text: json, at: 0, place: At { line: 1, column: 1 }, twice: Vec::new() };
        let root = scan.value("").unwrap_or_default();
        Self { root, twice: scan.twice }
    }

    /// Where a path stands: a member at its key, an element at its value, else the nearest parent that exists.
    pub fn at(&self, path: &str) -> At {
        let mut spot = &self.root;
        for step in steps(path) {
            match spot.inside.get(&step) {
                Some(next) => spot = next,
                None => break,
            }
        }
        spot.at
    }

    /// Keys that an object has twice, of which readers take one and forget the other.
    pub(super) fn twice(self) -> Vec<PackProblem> {
        self.twice
    }
}

/// A walk over a text that is JSON.
struct Scan<'t> {
    text: &'t str,
    at: usize,
    place: At,
    twice: Vec<PackProblem>,
}

impl<'t> Scan<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes on to a position, and counts lines and columns on the way.
    fn go(&mut self, to: usize) {
        for c in self.text[self.at..to].chars() {
            if c == '\n' {
                self.place = At { line: self.place.line + 1, column: 1 };
            } else {
                self.place.column += 1;
            }
        }
        self.at = to;
    }

    fn skip(&mut self, skipped: impl Fn(u8) -> bool) {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| !skipped(*byte)).unwrap_or(rest.len());
        self.go(self.at + length);
    }

    fn skip_space(&mut self) {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    /// A string with its quotes.
    fn string(&mut self) -> Option<&'t str> {
        let start = self.at;
        let mut escaped = false;
        let inside = &self.text.as_bytes()[start + 1..];
        let length = inside.iter().position(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        })?;
        let end = start + 1 + length;
        self.go(end + 1);
        Some(&self.text[start..=end])
    }

    fn value(&mut self, path: &str) -> Option<Spot> {
        self.skip_space();
        let mut spot = Spot { at: self.place, inside: BTreeMap::new() };
        match self.peek()? {
            b'{' => {
                self.go(self.at + 1);
                loop {
                    self.skip_space();
                    match self.peek()? {
                        b'}' => break,
                        b',' => self.go(self.at + 1),
                        _ => self.member(path, &mut spot)?,
                    }
                }
                self.go(self.at + 1);
            }
            b'[' => {
                self.go(self.at + 1);
                let mut index = 0;
                loop {
                    self.skip_space();
                    match self.peek()? {
                        b']' => break,
                        b',' => self.go(self.at + 1),
                        _ => {
                            let item = self.value(&format!("{path}[{index}]"))?;
                            spot.inside.insert(index.to_string(), item);
                            index += 1;
                        }
                    }
                }
                self.go(self.at + 1);
            }
            b'"' => {
                self.string()?;
            }
            _ => self.skip(|byte| !matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r')),
        }
        Some(spot)
    }

    fn member(&mut self, parent: &str, spot: &mut Spot) -> Option<()> {
        let at = self.place;
        let key: String = serde_json::from_str(self.string()?).ok()?;
        let path = member(parent, &key);
        self.skip_space();
        self.go(self.at + 1);
        let mut value = self.value(&path)?;
        value.at = at;
        if spot.inside.insert(key, value).is_some() {
            let hint =
                Some("readers of JSON keep one of them and drop the other; keep the one that is meant");
            self.twice.push(PackProblem {
                json_path: path,
                message: "the key is written twice".to_owned(),
                hint: hint.map(str::to_owned),
            });
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_and_read_back() {
        for keys in [
            vec!["prompts", "a-b", "0"],
            vec!["model_overrides", "gpt-4.1", "x"],
            vec!["a\"]\\b.", "", "[0]"],
        ] {
            let path = keys.iter().fold(String::new(), |path, key| member(&path, key));
            assert_eq!(steps(&path), keys, "{path}");
        }
        assert_eq!(member("a.b", "gpt-4.1"), "a.b[\"gpt-4.1\"]");
        assert_eq!(steps("a[3].b"), ["a", "3", "b"]);
        assert_eq!(path_under("tools.x", "/a~1b/0/c"), "tools.x[\"a/b\"][0].c");
        assert_eq!(path_under("tools.x", ""), "tools.x");
    }

    #[test]
    fn places_are_those_of_keys_and_elements_also_behind_tabs_and_escapes() {
        let text = "{\n\t\"a\": {\"é\\\"\": [1, {\"x\": \"}\"}]},\n  \"b\":\"\\\\\", \"c\": true\n}";
        let places = Places::of(text);
        let at = |path: &str| {
            let At { line, column } = places.at(path);
            (line, column)
        };
        assert_eq!(at(""), (1, 1));
        assert_eq!(at("a"), (2, 2));
        assert_eq!(at("a[\"é\\\"\"][1].x"), (2, 20));
        assert_eq!(at("a.unknown.deeper"), (2, 2));
        assert_eq!(at("b"), (3, 3));
        assert_eq!(at("c"), (3, 13));
    }

    #[test]
    fn a_key_that_is_written_twice_is_told_with_its_place() {
        let twice = Places::of(r#"{"a": 1, "b": {"x": 1, "\u0078": 2}}"#).twice();
        assert_eq!(twice.iter().map(|problem| problem.json_path.as_str()).collect::<Vec<_>>(), ["b.x"]);
    }
}
