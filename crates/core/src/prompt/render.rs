//! Rendering a prompt: strict, in one pass, and never expanding what a value holds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::template::Piece;
use super::variable::{Unfit, shown};
use super::{Body, Pack, Prompt, Tool, ToolPolicy};
use crate::ids::PromptName;

/// A prompt as it goes to the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered<'p> {
    /// Which prompt it is.
    pub prompt: PromptName,
    /// The system text.
    pub system: String,
    /// The model that the version is made for; takes the place of the one that a request names.
    pub model: Option<&'p str>,
    /// What the pack says about temperature, token limit and so on; fills in what a request leaves out.
    pub parameters: &'p serde_json::Map<String, Value>,
    /// The tools that the prompt offers; added to those of a request.
    pub tools: &'p [Arc<Tool>],
    /// How tools may be used.
    pub policy: &'p ToolPolicy,
}

/// Why a prompt was not rendered; values are never part of the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The pack has no prompt of that name.
    #[error("pack {pack} has no prompt {prompt}, it has {}", known.join(", "))]
    UnknownPrompt {
        /// The pack.
        pack: String,
        /// The name as given.
        prompt: PromptName,
        /// The names of its prompts.
        known: Vec<String>,
    },
    /// Values were given for variables that the prompt does not have.
    #[error("prompt {prompt} has no variable {}, it has {}", given.join(", "), listed(known))]
    UnknownVariables {
        /// The prompt.
        prompt: PromptName,
        /// The names that it does not have.
        given: Vec<String>,
        /// The names that it has.
        known: Vec<String>,
    },
    /// Required variables were not given.
    #[error("prompt {prompt} needs a value for {}", missing.join(", "))]
    MissingVariables {
        /// The prompt.
        prompt: PromptName,
        /// The variables without a value.
        missing: Vec<String>,
    },
    /// A value is of another type than its variable.
    #[error("variable {variable} of prompt {prompt} is {expected}, the value given is {found}")]
    WrongType {
        /// The prompt.
        prompt: PromptName,
        /// The variable.
        variable: String,
        /// Its type.
        expected: &'static str,
        /// The type of the value.
        found: &'static str,
    },
    /// A value breaks the rules of its variable.
    #[error("the value of variable {variable} of prompt {prompt} {reason}")]
    Invalid {
        /// The prompt.
        prompt: PromptName,
        /// The variable.
        variable: String,
        /// The rule that it breaks.
        reason: String,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Pack {
    /// Renders a prompt for a model with the values given for its variables.
    ///
    /// The model is the one that the request names; the one that the pack is made for comes before it.
    ///
    /// Values are data: `{{…}}` inside a value stays as it is. Optional variables without value and default
    /// are rendered as nothing.
    ///
    /// # Errors
    /// [`RenderError`] when the prompt or a variable is unknown, a required value is missing, or a value does not fit.
    pub fn render(
        &self,
        name: &PromptName,
        model: Option<&str>,
        values: &BTreeMap<String, Value>,
    ) -> Result<Rendered<'_>, RenderError> {
        let Some(prompt) = self.prompts.get(name) else {
            let known = self.prompts.keys().map(ToString::to_string).collect();
            return Err(RenderError::UnknownPrompt {
                pack: self.id.to_string(),
                prompt: name.clone(),
                known,
            });
        };
        let texts = texts(name, prompt, values)?;
        let length = |piece: &Piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Variable(index) => texts[*index].len(),
        };
        let own_model = self.model.as_deref();
        let Body { pieces, parameters } = prompt.body(own_model.or(model));
        let mut system = String::with_capacity(pieces.iter().map(length).sum());
        for piece in pieces {
            match piece {
                Piece::Text(text) => system.push_str(text),
                Piece::Variable(index) => system.push_str(&texts[*index]),
            }
        }
        let Prompt { tools, policy, .. } = prompt;
        Ok(Rendered { prompt: name.clone(), system, model: own_model, parameters, tools, policy })
    }
}

/// The text of every variable, in the order of the prompt's variables.
fn texts<'a>(
    name: &PromptName,
    prompt: &'a Prompt,
    values: &'a BTreeMap<String, Value>,
) -> Result<Vec<Cow<'a, str>>, RenderError> {
    let is_known = |given: &String| prompt.variables.iter().any(|variable| variable.name == *given);
    let given: Vec<String> = values.keys().filter(|given| !is_known(given)).cloned().collect();
    if !given.is_empty() {
        let known = prompt.variables.iter().map(|variable| variable.name.clone()).collect();
        return Err(RenderError::UnknownVariables { prompt: name.clone(), given, known });
    }
    let is_missing = |variable: &&super::Variable| variable.required && !values.contains_key(&variable.name);
    let missing: Vec<String> =
        prompt.variables.iter().filter(is_missing).map(|variable| variable.name.clone()).collect();
    if !missing.is_empty() {
        return Err(RenderError::MissingVariables { prompt: name.clone(), missing });
    }
    let mut texts = Vec::with_capacity(prompt.variables.len());
    for variable in &prompt.variables {
        let text = match (values.get(&variable.name), &variable.default) {
            (Some(value), _) => {
                variable.check(value).map_err(|unfit| match unfit {
                    Unfit::Type(found) => RenderError::WrongType {
                        prompt: name.clone(),
                        variable: variable.name.clone(),
                        expected: variable.kind.name(),
                        found,
                    },
                    Unfit::Rule(reason) => {
                        RenderError::Invalid { prompt: name.clone(), variable: variable.name.clone(), reason }
                    }
                })?;
                shown(value)
            }
            (None, Some(default)) => shown(default),
            (None, None) => Cow::Borrowed(""),
        };
        texts.push(text);
    }
    Ok(texts)
}
