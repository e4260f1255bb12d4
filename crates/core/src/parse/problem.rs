//! What is wrong with a manifest, where, and what would be right.

use std::fmt;

use serde::Serialize;

use crate::manifest::At;

/// The most problems that are reported at once.
const MOST_PROBLEMS: usize = 100;

/// The most characters of a source line that are shown.
const EXCERPT_WIDTH: usize = 100;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The manifest cannot be used.
    Error,
    /// The manifest can be used; something in it deserves a look.
    Warning,
}

/// One thing that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The field, such as `spec.rollout.steps[1].weight`; empty for the document as a whole.
    pub path: String,
    /// The line, counted from 1; 0 when the problem has no place.
    pub line: u32,
    /// The column in characters, counted from 1; 0 when the problem has no place.
    pub column: u32,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What would be right, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The source line, shortened when long.
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// A part of a source line and the place in it that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    text: String,
    caret: usize,
}

impl Problem {
    /// A problem without a source line; [`Problem::quoting`] adds it.
    pub(super) fn new(severity: Severity, path: &str, at: At, message: &str) -> Self {
        Self {
            severity,
            path: shorten(path),
            line: at.line,
            column: at.column,
            message: shorten(message),
            hint: None,
            excerpt: None,
        }
    }

    /// The same problem with a hint.
    pub(super) fn with_hint(mut self, hint: &str) -> Self {
        self.hint = Some(shorten(hint));
        self
    }

    /// The same problem with its source line, taken from the lines of the document.
    pub(super) fn quoting(mut self, lines: &[&str]) -> Self {
        let index = usize::try_from(self.line).ok().and_then(|line| line.checked_sub(1));
        let column = usize::try_from(self.column).ok().and_then(|column| column.checked_sub(1));
        if let (Some(index), Some(column)) = (index, column)
            && let Some(line) = lines.get(index)
        {
            let start = if column < EXCERPT_WIDTH { 0 } else { column - EXCERPT_WIDTH / 2 };
            let text: String = line.chars().skip(start).take(EXCERPT_WIDTH).map(printable).collect();
            self.excerpt = Some(Excerpt { text: text.trim_end().to_owned(), caret: column - start });
        }
        self
    }
}

/// A character that takes one cell and cannot steer a terminal.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// Cuts what a user wrote to a length that a message can carry.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 400;
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(LONGEST).map(clean).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if self.line > 0 {
            write!(f, "\n  --> line {}, column {}", self.line, self.column)?;
        }
        if let Some(excerpt) = &self.excerpt {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            write!(
                f,
                "\n {margin} |\n {number} | {}\n {margin} | {}^",
                excerpt.text,
                " ".repeat(excerpt.caret)
            )?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a manifest; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Sorts problems by place; beyond 100 only their number is kept.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        if problems.len() > MOST_PROBLEMS {
            let more = problems.len() - MOST_PROBLEMS;
            problems.truncate(MOST_PROBLEMS);
            let message = format!("and {more} more problems");
            problems.push(Problem::new(Severity::Error, "", At::default(), &message));
        }
        Self(problems)
    }

    /// The problems in the order of their places.
    pub fn list(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
