//! Metrics that an outside provider measures, and what it is asked.
//!
//! A query is a template. `{{version}}` and `{{variant}}` are the side that is measured, so that a query with one of
//! them is asked once for each side that a gate needs. Whatever keeps a provider from answering means that the metric
//! could not be measured: that holds a rollout, and never rolls it back.

use serde::{Deserialize, Serialize};

use crate::rollout::Rollout;
use crate::routing::Variant;

/// What may stand in a query between `{{` and `}}`.
const PLACEHOLDERS: [&str; 6] = ["pack", "rollout", "stable", "canary", "version", "variant"];

/// What an outside provider measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outside {
    /// It answered.
    Measured {
        /// The value of stable, where the gate compares with it.
        stable: Option<f64>,
        /// The value of the canary.
        canary: f64,
    },
    /// It could not be measured, for this reason.
    Unmeasured(String),
}

/// The placeholders, for people.
pub fn placeholders() -> String {
    PLACEHOLDERS.map(|name| format!("{{{{{name}}}}}")).join(", ")
}

/// What is wrong with a query, if anything; one that `compares` both sides has to tell them apart.
pub fn problem(query: &str, compares: bool) -> Option<String> {
    let unknown = pieces(query).find_map(|piece| match piece {
        Piece::Placeholder(name) if !PLACEHOLDERS.contains(&name) => Some(name),
        Piece::Placeholder(_) | Piece::Text(_) => None,
    });
    if let Some(name) = unknown {
        let name: String = name.chars().take(40).collect();
        return Some(format!("{{{{{name}}}}} stands for nothing in a query"));
    }
    let tells_apart = pieces(query).any(|piece| matches!(piece, Piece::Placeholder("version" | "variant")));
    (compares && !tells_apart).then(|| {
        "the query asks the same of stable and canary: it holds neither {{version}} nor {{variant}}"
            .to_owned()
    })
}

/// The query for one side of a rollout.
pub fn query(template: &str, pack: &str, rollout: &Rollout, side: Variant) -> String {
    let (version, variant) = match side {
        Variant::Stable => (&rollout.stable, "stable"),
        Variant::Canary => (&rollout.canary, "canary"),
    };
    let mut text = String::with_capacity(template.len());
    for piece in pieces(template) {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Placeholder("pack") => text.push_str(pack),
            Piece::Placeholder("rollout") => text.push_str(rollout.id.as_str()),
            Piece::Placeholder("stable") => text.push_str(&rollout.stable.to_string()),
            Piece::Placeholder("canary") => text.push_str(&rollout.canary.to_string()),
            Piece::Placeholder("version") => text.push_str(&version.to_string()),
            Piece::Placeholder("variant") => text.push_str(variant),
            // Parsing has refused it.
            Piece::Placeholder(_) => {}
        }
    }
    text
}

enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(start) = rest.find("{{") else { return Some(Piece::Text(std::mem::take(&mut rest))) };
        if start > 0 {
            let (text, after) = rest.split_at(start);
            rest = after;
            return Some(Piece::Text(text));
        }
        match rest[2..].split_once("}}") {
            Some((name, after)) => {
                rest = after;
                Some(Piece::Placeholder(name.trim()))
            }
            None => Some(Piece::Text(std::mem::take(&mut rest))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_known_placeholders_and_tells_the_sides_apart_where_it_compares() {
        for (query, compares, right) in [
            ("up", false, true),
            ("up", true, false),
            (r#"rate(errors{pack="{{pack}}",variant="{{ variant }}"}[5m])"#, true, true),
            (r#"errors{version="{{version}}"}"#, true, true),
            (r#"errors{version="{{canary}}"}"#, true, false),
            (r#"errors{version="{{verson}}"}"#, false, false),
            ("errors{{", false, true),
        ] {
            assert_eq!(problem(query, compares).is_none(), right, "{query}");
        }
    }
}
