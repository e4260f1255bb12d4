//! Variables of a prompt: their types, and which values they accept.

use std::borrow::Cow;

use regex::Regex;
use serde_json::Value;

/// The most bytes that a compiled pattern may take.
const LARGEST_PATTERN: usize = 1 << 20;

/// The type of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableType {
    /// A text.
    String,
    /// Any number.
    Number,
    /// A number without a fraction.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A list, rendered as JSON.
    Array,
    /// A mapping, rendered as JSON.
    Object,
}

impl VariableType {
    /// Every type by its name.
    pub(super) const ALL: [(&'static str, Self); 6] = [
        ("string", Self::String),
        ("number", Self::Number),
        ("integer", Self::Integer),
        ("boolean", Self::Boolean),
        ("array", Self::Array),
        ("object", Self::Object),
    ];

    /// The name as written in a pack.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object => "object",
        }
    }

    /// Whether a value is of the type.
    pub(super) fn accepts(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Integer => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            Self::Boolean => value.is_boolean(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
        }
    }
}

/// One variable of a prompt.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// The type of its values.
    pub kind: VariableType,
    /// Whether a value must be given.
    pub required: bool,
    /// The value when none is given; without one it is rendered as nothing.
    pub default: Option<Value>,
    /// What else its values must keep to.
    pub(super) validation: Validation,
}

/// What values must keep to.
#[derive(Debug, Clone, Default)]
pub(super) struct Validation {
    pub(super) pattern: Option<Regex>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) one_of: Option<Vec<Value>>,
}

/// Why a value was refused; the value itself is never named, because it may be private.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is of another type, which is named.
    Type(&'static str),
    /// It breaks a rule, which is told.
    Rule(String),
}

impl Variable {
    /// Checks type and rules.
    pub(super) fn check(&self, value: &Value) -> Result<(), Unfit> {
        if !self.kind.accepts(value) {
            return Err(Unfit::Type(type_of(value)));
        }
        self.validation.check(value).map_err(Unfit::Rule)
    }
}

impl Validation {
    fn check(&self, value: &Value) -> Result<(), String> {
        if let Some(text) = value.as_str() {
            let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
            if let Some(least) = self.min_length.filter(|least| length < *least) {
                return Err(format!("has {length} characters, fewer than {least}"));
            }
            if let Some(most) = self.max_length.filter(|most| length > *most) {
                return Err(format!("has {length} characters, more than {most}"));
            }
            if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
                return Err(format!("does not match the pattern {:?}", pattern.as_str()));
            }
        }
        if let Some(number) = value.as_f64() {
            if let Some(least) = self.minimum.filter(|least| number < *least) {
                return Err(format!("is below {least}"));
            }
            if let Some(most) = self.maximum.filter(|most| number > *most) {
                return Err(format!("is above {most}"));
            }
        }
        match &self.one_of {
            Some(allowed) if !allowed.contains(value) => {
                let allowed: Vec<String> =
                    allowed.iter().take(20).map(|value| shown(value).into_owned()).collect();
                Err(format!("is none of {}", allowed.join(", ")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Compiles a pattern within a size that cannot hurt.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    let regex = regex::RegexBuilder::new(text).size_limit(LARGEST_PATTERN).build();
    regex.map_err(|error| {
        let reason = error.to_string();
        let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("pattern cannot be used: {last}")
    })
}

/// The type of a JSON value, in one word.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as it stands in a rendered prompt: text as it is, everything else as compact JSON with sorted keys.
pub(super) fn shown(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Cow::Owned(super::canonical(value))
        }
    }
}
