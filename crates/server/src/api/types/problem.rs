//! What went wrong, as RFC 9457 has it.

use serde::{Deserialize, Serialize};
use serin_core::parse;
use serin_core::policy::Violation;
use serin_core::prompt::PackProblem;
use utoipa::ToSchema;

use super::pack::ContentChange;
use super::word::words;

/// What went wrong and what to do about it (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// Names the kind of problem for programs, such as `urn:serin:problem:unknown-pack`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was tried with what, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The path that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What the caller can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// After how many seconds it may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Everything that is wrong with a manifest or its prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<FieldProblem>,
    /// What differs from the content that is published under the same version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<ContentChange>,
}

/// One thing that is wrong with a manifest or its prompts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    /// How bad it is.
    pub severity: ProblemSeverity,
    /// The rule of the policy that is not kept; absent where it is no matter of policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The field, such as `spec.rollout.steps[1].weight`; empty for the document as a whole.
    pub path: String,
    /// The line, counted from 1; absent when the problem has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in characters, counted from 1; absent when the problem has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

words! {
    /// How bad a problem is.
    ProblemSeverity from parse::Severity {
        /// The manifest cannot be used.
        Error "error",
        /// The manifest can be used; something in it deserves a look.
        Warning "warning",
    }
}

impl From<&parse::Problem> for FieldProblem {
    fn from(problem: &parse::Problem) -> Self {
        let place = |number: u32| (number > 0).then_some(number);
        Self {
            severity: problem.severity.into(),
            rule: None,
            path: problem.path.clone(),
            line: place(problem.line),
            column: place(problem.column),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        }
    }
}

impl From<&PackProblem> for FieldProblem {
    fn from(problem: &PackProblem) -> Self {
        let path = match problem.json_path.as_str() {
            "" => "spec.source.inline".to_owned(),
            path => format!("spec.source.inline.{path}"),
        };
        Self {
            severity: ProblemSeverity::Error,
            rule: None,
            path,
            line: None,
            column: None,
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        }
    }
}

impl From<&Violation> for FieldProblem {
    fn from(violation: &Violation) -> Self {
        Self {
            severity: ProblemSeverity::Error,
            rule: Some(violation.rule.to_string()),
            path: violation.path.clone(),
            line: None,
            column: None,
            message: violation.message.clone(),
            hint: Some(violation.hint.clone()),
        }
    }
}
