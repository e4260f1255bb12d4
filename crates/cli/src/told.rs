//! What goes wrong, told as a compiler tells it: what, where, why, and what to do.

use std::fmt;
use std::process::ExitCode;

use crate::terminal::{BAD, LOOK, PLACE, STRONG, paint};

/// Exit codes that mean something to a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It went well; the rollout completed; nothing differs.
    Done = 0,
    /// Any error; something differs.
    Failed = 1,
    /// The command was called wrongly; for `diff`, any error.
    Usage = 2,
    /// The rollout was rolled back, or superseded.
    RolledBack = 10,
    /// The rollout is on hold and needs a person.
    OnHold = 11,
    /// The rollout was not over in time.
    TimedOut = 12,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with what the user can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// What was tried, and with what.
    pub(crate) message: String,
    /// What is wrong in detail, each with its place.
    pub(crate) details: Vec<Detail>,
    /// What to do.
    pub(crate) hints: Vec<String>,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Detail {
    /// `error` or `warning`.
    pub(crate) severity: Severity,
    /// The rule of `lint`, or of the policy, that found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    /// What is wrong.
    pub(crate) message: String,
    /// The file.
    pub(crate) file: String,
    /// The field in it, such as `spec.rollout.steps[1].weight`.
    pub(crate) path: String,
    /// The line, counted from 1; 0 when unknown.
    pub(crate) line: u32,
    /// The column, counted from 1; 0 when unknown.
    pub(crate) column: u32,
    /// The source line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) excerpt: Option<String>,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// How bad a detail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// It cannot be used so.
    Error,
    /// It can be used, and deserves a look.
    Warning,
}

impl Told {
    /// An error without more to it.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), details: Vec::new(), hints: Vec::new() }
    }

    /// The same error with something to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl std::error::Error for Told {}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for detail in &self.details {
            writeln!(f, "{detail}\n")?;
        }
        write!(f, "{}: {}", paint(BAD, "error"), self.message)?;
        for hint in &self.hints {
            write!(f, "\n  {} {hint}", paint(PLACE, "hint:"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => paint(BAD, "error"),
            Severity::Warning => paint(LOOK, "warning"),
        };
        match &self.rule {
            Some(rule) => write!(f, "{severity}[{rule}]: ")?,
            None => write!(f, "{severity}: ")?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", paint(STRONG, &self.path))?;
        }
        f.write_str(&self.message)?;
        let arrow = paint(PLACE, "-->");
        match (self.line, self.file.is_empty()) {
            (_, true) => {}
            (0, false) => write!(f, "\n  {arrow} {}", self.file)?,
            (line, false) => write!(f, "\n  {arrow} {}:{line}:{}", self.file, self.column)?,
        }
        if let Some(excerpt) = &self.excerpt {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            let bar = paint(PLACE, "|");
            let caret = " ".repeat(usize::try_from(self.column).unwrap_or(1).saturating_sub(1));
            let number = paint(PLACE, number);
            write!(
                f,
                "\n {margin} {bar}\n {number} {bar} {excerpt}\n {margin} {bar} {caret}{}",
                paint(BAD, "^")
            )?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  {} {hint}", paint(PLACE, "hint:"))?;
        }
        Ok(())
    }
}

/// Prints an error with its causes.
pub(crate) fn print(error: &anyhow::Error) {
    match error.downcast_ref::<Told>() {
        Some(told) => anstream::eprintln!("{told}"),
        None => {
            // Errors of the server bring their hint in their text.
            let text = error.to_string().replace("; hint: ", "\nhint: ");
            let mut lines = text.lines();
            anstream::eprintln!("{}: {}", paint(BAD, "error"), lines.next().unwrap_or_default());
            for cause in error.chain().skip(1).map(ToString::to_string).filter(|cause| !text.contains(cause))
            {
                anstream::eprintln!("  {} {cause}", paint(PLACE, "because:"));
            }
            for line in lines {
                match line.strip_prefix("hint: ") {
                    Some(hint) => anstream::eprintln!("  {} {hint}", paint(PLACE, "hint:")),
                    None => anstream::eprintln!("  {line}"),
                }
            }
        }
    }
}
