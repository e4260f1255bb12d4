//! Parsing survives whatever it is given.

use proptest::prelude::*;

use super::*;

/// Pieces of which a manifest is made, right and wrong.
const PIECES: [&str; 24] = [
    "10",
    "140%",
    "-1",
    "5m",
    "0s",
    "[]",
    "{}",
    "null",
    "progressive",
    "\"",
    "*a",
    "&a",
    "<<: *a",
    "- ",
    ": ",
    "\t",
    "\n",
    "é😀",
    "24:00-00:00 UTC",
    "canary",
    "stable",
    "2pp",
    ".nan",
    "99999999999999999999",
];

proptest! {
    #[test]
    fn on_any_text(text in any::<String>()) {
        let _ = parse(&text).map_err(|problems| problems.to_string());
    }

    #[test]
    fn on_text_that_looks_like_yaml(text in "([a-z]{1,3}: ?|- |\\[|\\]|\\{|\\}|,|\n|  |\"|'|&a|\\*a|#|!!?[a-z]+|\\||>|0x1F|1e9){0,60}") {
        let _ = parse(&text).map_err(|problems| problems.to_string());
    }

    #[test]
    fn on_a_manifest_with_parts_replaced(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..20, prop::sample::select(&PIECES[..])), 1..5),
    ) {
        let mut text = example("full.yaml").to_owned();
        for (at, length, piece) in edits {
            let mut start = at.index(text.len());
            let mut end = (start + length).min(text.len());
            while !text.is_char_boundary(start) { start -= 1; }
            while !text.is_char_boundary(end) { end += 1; }
            text.replace_range(start..end, piece);
        }
        match parse(&text) {
            Ok(parsed) => prop_assert!(!parsed.plan.segments.is_empty()),
            Err(problems) => prop_assert!(!problems.list().is_empty() && !problems.to_string().is_empty()),
        }
    }

    #[test]
    fn on_a_manifest_with_any_field_set_to_anything(
        line in 0_usize..43,
        value in prop::sample::select(&PIECES[..]),
    ) {
        let text = example("full.yaml");
        let replace = |(index, text): (usize, &str)| match text.split_once(": ") {
            Some((key, _)) if index == line => format!("{key}: {value}"),
            Some(_) | None => text.to_owned(),
        };
        let text = text.lines().enumerate().map(replace).collect::<Vec<_>>().join("\n");
        let _ = parse(&text).map_err(|problems| problems.to_string());
    }
}
