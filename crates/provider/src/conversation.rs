//! What the protocols of Responses and Messages have in common: a conversation in loosely typed JSON.

use serde_json::Value;

use crate::answer::tokens;
use crate::error::{ApiError, Dialect};
use crate::script::Script;

/// What is read of a request.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    pub(crate) model: String,
    pub(crate) system: String,
    pub(crate) user: String,
    pub(crate) answers_tool: bool,
    pub(crate) stream: bool,
    pub(crate) prompt_tokens: u64,
}

/// Reads the body as a JSON object.
pub(crate) fn object(body: &[u8], dialect: Dialect) -> Result<Value, ApiError> {
    let invalid = |message: &str| ApiError::invalid_request(dialect, message, None, None);
    match serde_json::from_slice(body) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(invalid("the body is no JSON object")),
        Err(error) => Err(invalid(&format!("could not parse the JSON body: {error}"))),
    }
}

impl Conversation {
    /// The model and whether to stream, which every protocol writes alike.
    pub(crate) fn begin(body: &Value, script: &Script, dialect: Dialect) -> Result<Conversation, ApiError> {
        let Some(model) = body["model"].as_str() else {
            return Err(missing(dialect, "model"));
        };
        if !script.models.is_empty() && !script.models.iter().any(|name| name == model) {
            return Err(ApiError::unknown_model(dialect, model));
        }
        let stream = body["stream"].as_bool().unwrap_or(false);
        Ok(Conversation { model: model.to_owned(), stream, ..Conversation::default() })
    }

    /// Adds system text, on a line of its own.
    pub(crate) fn add_system(&mut self, text: &str) {
        if !self.system.is_empty() {
            self.system.push('\n');
        }
        self.system.push_str(text);
        self.prompt_tokens += tokens(text);
    }

    /// Adds a message of the user.
    pub(crate) fn add_user(&mut self, text: String) {
        self.prompt_tokens += 4 + tokens(&text);
        self.user = text;
        self.answers_tool = false;
    }

    /// Adds a tool's result.
    pub(crate) fn add_result(&mut self, text: &str) {
        self.prompt_tokens += 4 + tokens(text);
        self.answers_tool = true;
    }

    /// Adds an answer of before.
    pub(crate) fn add_answer(&mut self, text: &str) {
        self.prompt_tokens += 4 + tokens(text);
        self.answers_tool = false;
    }
}

/// 400: something is missing.
pub(crate) fn missing(dialect: Dialect, name: &'static str) -> ApiError {
    let message = match dialect {
        Dialect::OpenAi | Dialect::OpenAiEvents => format!("missing required parameter: '{name}'."),
        Dialect::Anthropic => format!("{name}: Field required"),
    };
    ApiError::invalid_request(dialect, &message, Some(name), Some("missing_required_parameter"))
}

/// The text of a string, or of the parts of a list; images and other parts have none.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}
