//! Evals and validators of a pack: Serin runs none of them, and says of each what it has instead.

use serde::Serialize;

/// What judges answers after the fact, or holds them back before they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Judges quality, beside the conversation.
    Eval,
    /// Guards an answer, in the middle of it.
    Validator,
}

impl CheckKind {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eval => "eval",
            Self::Validator => "validator",
        }
    }
}

/// An eval or a validator as a pack declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclaredCheck {
    /// Where it stands, such as `prompts.support.evals[0]`.
    pub json_path: String,
    /// Which of both it is.
    pub kind: CheckKind,
    /// The id of an eval; a validator has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How it judges, such as `llm_judge` or `banned_words`.
    pub how: String,
    /// Whether it is switched on.
    pub enabled: bool,
    /// What Serin makes of it.
    pub support: Support,
}

/// What Serin makes of an eval or a validator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "metric")]
pub enum Support {
    /// It measures the same by itself, as this metric of the catalogue.
    Measured(&'static str),
    /// It does not run it; a result that the app reports counts.
    Reported,
}

impl Support {
    /// What is known of a way to judge.
    fn of(how: &str) -> Self {
        match how {
            "json_valid" | "is_valid_json" | "json_schema" | "valid_json" => {
                Self::Measured("invalid_format_rate")
            }
            "latency" | "latency_budget" | "max_latency" => Self::Measured("latency_p95"),
            "cost" | "cost_budget" | "max_cost" => Self::Measured("cost_avg"),
            "length" | "max_length" | "min_length" => Self::Measured("response_length_avg"),
            "tool_args" | "tool_args_valid" | "tool_call_accuracy" => Self::Measured("tool_call_accuracy"),
            _ => Self::Reported,
        }
    }
}

impl DeclaredCheck {
    /// A check, with what Serin makes of it.
    pub(super) fn new(
        kind: CheckKind,
        json_path: &str,
        id: Option<String>,
        how: String,
        enabled: bool,
    ) -> Self {
        let support = Support::of(&how);
        Self { json_path: json_path.to_owned(), kind, id, how, enabled, support }
    }

    /// What Serin makes of it, in one sentence without a full stop.
    pub fn told(&self) -> String {
        let kind = self.kind.name();
        let id = self.id.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
        let off = if self.enabled { "" } else { ", which is switched off," };
        match self.support {
            Support::Measured(metric) => {
                format!("{kind}{id} ({}){off} is not run; Serin measures {metric} instead", self.how)
            }
            Support::Reported => {
                format!("{kind}{id} ({}){off} is not supported: Serin does not run it", self.how)
            }
        }
    }

    /// How its result still becomes evidence; nothing where Serin measures it anyway or it is switched off.
    pub fn advice(&self) -> Option<String> {
        let wants = self.enabled && self.support == Support::Reported;
        wants.then(|| match (self.kind, &self.id) {
            (CheckKind::Eval, Some(id)) => format!(
                "report its result as the outcome {:?}, or as a gen_ai.evaluation.result event, and it counts",
                id.replace('-', "_")
            ),
            (CheckKind::Eval | CheckKind::Validator, _) => {
                "run it in the app, and report what it finds as an outcome".to_owned()
            }
        })
    }
}
