//! Templates: text with `{{placeholders}}`, compiled once so that rendering is a single pass.

use std::collections::BTreeMap;

use super::variable::Variable;
use crate::metric::nearest;

/// How deep fragments may hold fragments.
const DEEPEST_FRAGMENTS: usize = 16;

/// The most pieces of a compiled template, and the most fragments put into it.
const MOST_PIECES: usize = 10_000;

/// The most bytes of text of a compiled template: 1 MiB.
const LARGEST_TEXT: usize = 1 << 20;

/// A part of a compiled template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Text that is sent as it stands.
    Text(String),
    /// The value of a variable, by its index among the variables of the prompt.
    Variable(usize),
}

/// A part of a template as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    Text(&'a str),
    /// What stands between `{{` and `}}`, trimmed, and where.
    Placeholder {
        name: &'a str,
        place: Place,
    },
}

/// A place in a template, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a template was refused.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refused {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Refused {
    fn new(message: String) -> Self {
        Self { message, hint: None }
    }
}

/// Cuts a template at its placeholders.
pub(super) fn tokens(template: &str) -> Result<Vec<Token<'_>>, Refused> {
    let mut tokens = Vec::new();
    let mut rest = template;
    let mut place = Place { line: 1, column: 1 };
    while let Some(open) = rest.find("{{") {
        if open > 0 {
            tokens.push(Token::Text(&rest[..open]));
        }
        let at = moved(place, &rest[..open]);
        let inside = &rest[open + 2..];
        let Some(close) = inside.find("}}") else {
            let hint = Some("close it with `}}`".to_owned());
            return Err(Refused { message: format!("`{{{{` at {at} is never closed"), hint });
        };
        tokens.push(Token::Placeholder { name: inside[..close].trim(), place: at });
        let end = open + 2 + close + 2;
        place = moved(place, &rest[..end]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        tokens.push(Token::Text(rest));
    }
    Ok(tokens)
}

/// The place after some text.
fn moved(from: Place, text: &str) -> Place {
    match text.rfind('\n') {
        Some(last) => Place {
            line: from.line + text.matches('\n').count(),
            column: text[last + 1..].chars().count() + 1,
        },
        None => Place { line: from.line, column: from.column + text.chars().count() },
    }
}

/// The fragments of a pack, cut into tokens.
pub(super) type Fragments<'a> = BTreeMap<&'a str, Vec<Token<'a>>>;

/// Compiles a template for the variables of its prompt, with all fragments put in place.
pub(super) fn compile(
    template: &str,
    variables: &[Variable],
    fragments: &Fragments<'_>,
) -> Result<Vec<Piece>, Refused> {
    let mut compiler = Compiler { variables, fragments, pieces: Vec::new(), text_bytes: 0, n_fragments: 0 };
    compiler.add(&tokens(template)?, &mut Vec::new())?;
    Ok(compiler.pieces)
}

struct Compiler<'a> {
    variables: &'a [Variable],
    fragments: &'a Fragments<'a>,
    pieces: Vec<Piece>,
    text_bytes: usize,
    n_fragments: usize,
}

impl<'a> Compiler<'a> {
    /// Adds tokens; `inside` names the fragments that they come from, outermost first.
    fn add(&mut self, tokens: &[Token<'_>], inside: &mut Vec<&'a str>) -> Result<(), Refused> {
        for token in tokens {
            match token {
                Token::Text(text) => self.add_text(text)?,
                Token::Placeholder { name, place } => match self.resolve(name) {
                    Some(Target::Variable(index)) => self.pieces.push(Piece::Variable(index)),
                    Some(Target::Fragment(fragment)) => self.add_fragment(fragment, inside)?,
                    None => return Err(self.unknown(name, *place, inside)),
                },
            }
            if self.pieces.len() > MOST_PIECES {
                return Err(Refused::new(format!("the template has more than {MOST_PIECES} parts")));
            }
        }
        Ok(())
    }

    fn add_text(&mut self, text: &str) -> Result<(), Refused> {
        self.text_bytes += text.len();
        if self.text_bytes > LARGEST_TEXT {
            return Err(Refused::new(format!(
                "the template with its fragments has more than {LARGEST_TEXT} bytes"
            )));
        }
        match self.pieces.last_mut() {
            Some(Piece::Text(before)) => before.push_str(text),
            Some(Piece::Variable(_)) | None => self.pieces.push(Piece::Text(text.to_owned())),
        }
        Ok(())
    }

    fn add_fragment(&mut self, name: &'a str, inside: &mut Vec<&'a str>) -> Result<(), Refused> {
        if let Some(first) = inside.iter().position(|outer| *outer == name) {
            let circle = inside[first..].join(" -> ");
            return Err(Refused::new(format!("fragment {name:?} holds itself: {circle} -> {name}")));
        }
        self.n_fragments += 1;
        if inside.len() >= DEEPEST_FRAGMENTS || self.n_fragments > MOST_PIECES {
            let message = format!(
                "fragments are nested deeper than {DEEPEST_FRAGMENTS}, or used more than {MOST_PIECES} times"
            );
            return Err(Refused::new(message));
        }
        let fragments = self.fragments;
        if let Some(tokens) = fragments.get(name) {
            inside.push(name);
            self.add(tokens, inside)?;
            inside.pop();
        }
        Ok(())
    }

    /// What a placeholder means: `fragment:x`, `fragments.x`, a variable, or else a fragment of that name.
    fn resolve(&self, name: &str) -> Option<Target<'a>> {
        let fragment =
            |name: &str| self.fragments.get_key_value(name.trim()).map(|(name, _)| Target::Fragment(name));
        if let Some(named) = name.strip_prefix("fragment:").or_else(|| name.strip_prefix("fragments.")) {
            return fragment(named);
        }
        let variable = self.variables.iter().position(|variable| variable.name == name);
        variable.map(Target::Variable).or_else(|| fragment(name))
    }

    fn unknown(&self, name: &str, place: Place, inside: &[&str]) -> Refused {
        let shown: String = name.chars().take(60).collect();
        let origin = inside.last().map(|fragment| format!(" of fragment {fragment:?}")).unwrap_or_default();
        let message = format!("`{{{{{shown}}}}}` at {place}{origin} is neither a variable nor a fragment");
        let known = self
            .variables
            .iter()
            .map(|variable| variable.name.as_str())
            .chain(self.fragments.keys().copied());
        let hint = if name.starts_with(['#', '/', '>', '^', '!', '{']) || name.contains('|') {
            "only `{{variable}}` and `{{fragment:name}}` are supported; conditions, loops and filters are not"
                .to_owned()
        } else {
            match nearest(name, known) {
                Some(nearest) => format!("did you mean `{{{{{nearest}}}}}`?"),
                None => "declare it in the prompt's `variables`".to_owned(),
            }
        };
        Refused { message, hint: Some(hint) }
    }
}

enum Target<'a> {
    Variable(usize),
    Fragment(&'a str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_cut_at_their_placeholders() {
        let place = |line, column| Place { line, column };
        assert_eq!(
            tokens("Hé {{ a }}!\n  {{b}}{ {\"x\": {}}} ").unwrap(),
            [
                Token::Text("Hé "),
                Token::Placeholder { name: "a", place: place(1, 4) },
                Token::Text("!\n  "),
                Token::Placeholder { name: "b", place: place(2, 3) },
                Token::Text("{ {\"x\": {}}} "),
            ]
        );
        assert_eq!(tokens("a\nb {{c").unwrap_err().message, "`{{` at line 2, column 3 is never closed");
    }
}
