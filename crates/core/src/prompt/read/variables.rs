//! Reading the variables of a prompt.

use serde_json::Value;

use super::{Object, Reader};
use crate::metric::nearest;
use crate::prompt::place::member;
use crate::prompt::variable::{Unfit, Validation, Variable, VariableType, pattern, type_of};

/// The most variables of a prompt.
const MOST_VARIABLES: usize = 200;

const VARIABLE_FIELDS: &[&str] =
    &["name", "type", "required", "default", "description", "example", "validation", "binding"];

const VALIDATION_FIELDS: &[&str] = &["pattern", "min_length", "max_length", "minimum", "maximum", "enum"];

impl Reader {
    pub(super) fn variables(&mut self, prompt: &Object<'_>) -> Vec<Variable> {
        let path = prompt.path_of("variables");
        let Some(value) = prompt.fields.get("variables") else { return Vec::new() };
        let mut variables: Vec<Variable> = Vec::new();
        for (index, item) in self.array(&path, value, MOST_VARIABLES).iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(variable) = self.object(&path, item).and_then(|object| self.variable(&object)) else {
                continue;
            };
            if variables.iter().any(|earlier| earlier.name == variable.name) {
                self.problem(&path, format!("variable {} is declared twice", variable.name), None);
            }
            variables.push(variable);
        }
        variables
    }

    fn variable(&mut self, object: &Object<'_>) -> Option<Variable> {
        self.note_fields(object, VARIABLE_FIELDS, &["binding"]);
        let name = self.required_text(object, "name").and_then(|name| {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit()) && name.len() <= 63 {
                return Some(name.to_owned());
            }
            let message =
                "a variable name holds 1 to 63 letters, digits or '_' and does not start with a digit";
            self.problem(&object.path_of("name"), message, None);
            None
        });
        let kind = self.required_text(object, "type").and_then(|kind| {
            let known = VariableType::ALL.iter().find(|(name, _)| *name == kind);
            if known.is_none() {
                let names = VariableType::ALL.map(|(name, _)| name);
                let hint = nearest(kind, names.into_iter()).map(|name| format!("did you mean `{name}`?"));
                self.problem(
                    &object.path_of("type"),
                    format!("type {kind:?} is none of {}", names.join(", ")),
                    hint,
                );
            }
            known.map(|(_, kind)| *kind)
        });
        let required = self.required(object, "required").and_then(|value| match value.as_bool() {
            Some(required) => Some(required),
            None => {
                self.wrong_type(&object.path_of("required"), "boolean", value);
                None
            }
        });
        let validation = match object.fields.get("validation") {
            Some(value) => self.validation(&object.path_of("validation"), value),
            None => Validation::default(),
        };
        if let Some(kind) = kind {
            self.fits_type(&object.path_of("validation"), &validation, kind);
        }
        let default = object.fields.get("default").filter(|value| !value.is_null()).cloned();
        let variable = Variable { name: name?, kind: kind?, required: required?, default, validation };
        if let Some(default) = &variable.default {
            let path = object.path_of("default");
            if variable.required {
                self.note(&path, "the default is never used, because the variable is required", None);
            }
            match variable.check(default) {
                Ok(()) => {}
                Err(Unfit::Type(_)) => self.wrong_type(&path, variable.kind.name(), default),
                Err(Unfit::Rule(reason)) => self.problem(&path, format!("the default {reason}"), None),
            }
        }
        Some(variable)
    }

    fn validation(&mut self, path: &str, value: &Value) -> Validation {
        let Some(object) = self.object(path, value) else { return Validation::default() };
        self.note_fields(&object, VALIDATION_FIELDS, &[]);
        let pattern = object.fields.get("pattern").and_then(|value| {
            let path = object.path_of("pattern");
            let text = self.text(&path, value)?;
            self.parsed(&path, pattern(text))
        });
        let one_of =
            object.fields.get("enum").map(|value| self.array(&object.path_of("enum"), value, 1_000).to_vec());
        Validation {
            pattern,
            min_length: self.length(&object, "min_length"),
            max_length: self.length(&object, "max_length"),
            minimum: self.number(&object, "minimum"),
            maximum: self.number(&object, "maximum"),
            one_of,
        }
    }

    /// Tells of rules that can never hold, and of those that say nothing about values of the type.
    fn fits_type(&mut self, path: &str, validation: &Validation, kind: VariableType) {
        let Validation { pattern, min_length, max_length, minimum, maximum, one_of } = validation;
        let is_text = kind == VariableType::String;
        let is_number = matches!(kind, VariableType::Number | VariableType::Integer);
        for (name, is_given, says_something) in [
            ("pattern", pattern.is_some(), is_text),
            ("min_length", min_length.is_some(), is_text),
            ("max_length", max_length.is_some(), is_text),
            ("minimum", minimum.is_some(), is_number),
            ("maximum", maximum.is_some(), is_number),
        ] {
            if is_given && !says_something {
                let message = format!("{name} says nothing about a value of type {}", kind.name());
                self.note(&member(path, name), &message, None);
            }
        }
        if let (Some(least), Some(most)) = (min_length, max_length)
            && least > most
        {
            self.flaw(path, format!("no text has at least {least} and at most {most} characters"), None);
        }
        if let (Some(least), Some(most)) = (minimum, maximum)
            && least > most
        {
            self.flaw(path, format!("no number is at least {least} and at most {most}"), None);
        }
        for (index, value) in one_of.iter().flatten().enumerate() {
            if !kind.accepts(value) {
                let message = format!("expected {}, found {}", kind.name(), type_of(value));
                self.flaw(&format!("{path}.enum[{index}]"), message, None);
            }
        }
    }

    fn length(&mut self, object: &Object<'_>, name: &str) -> Option<u64> {
        let value = object.fields.get(name)?;
        let length = value.as_u64();
        if length.is_none() {
            self.wrong_type(&object.path_of(name), "whole number", value);
        }
        length
    }

    pub(super) fn number(&mut self, object: &Object<'_>, name: &str) -> Option<f64> {
        let value = object.fields.get(name)?;
        let number = value.as_f64();
        if number.is_none() {
            self.wrong_type(&object.path_of(name), "number", value);
        }
        number
    }
}
