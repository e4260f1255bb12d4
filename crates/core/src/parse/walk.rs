//! Walking the tree of a manifest: every reader returns what it could read and notes what it could not.

use std::fmt::Display;

use super::problem::{Problem, Severity};
use crate::fields::Mapping;
use crate::manifest::{At, Entry, Node, Scalar, Value};
use crate::metric::nearest;
use crate::units::{HoldFor, InvalidDuration};
use crate::weight::Weight;

/// A field by its path, and the place that a message about it points to.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) path: String,
    pub(super) at: At,
}

/// A field with a value; a field that says `null` counts as absent.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    /// Where the value stands.
    pub(super) spot: Spot,
    /// Where the key stands.
    pub(super) key_at: At,
    pub(super) node: &'a Node,
}

/// The fields of one mapping.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// The key of the mapping itself, which messages about missing fields point to.
    pub(super) spot: Spot,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// No fields at all, for a mapping that is absent.
    pub(super) fn none(spot: Spot) -> Self {
        Self { spot, entries: &[] }
    }

    /// The field, when it is there and not `null`.
    pub(super) fn get(&self, name: &str) -> Option<Field<'a>> {
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        if entry.node.value == Value::Null {
            return None;
        }
        Some(Field {
            spot: Spot { path: self.path_of(name), at: entry.node.at },
            key_at: entry.at,
            node: &entry.node,
        })
    }

    /// The path of a field of this mapping, whether it is there or not.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.spot.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.spot.path) }
    }
}

impl Field<'_> {
    /// The field by its key, for messages about the field as a whole.
    pub(super) fn key(&self) -> Spot {
        Spot { path: self.spot.path.clone(), at: self.key_at }
    }
}

/// What has been found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) errors: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Walk {
    pub(super) fn error(&mut self, spot: &Spot, message: impl Display) {
        self.errors.push(Problem::new(Severity::Error, &spot.path, spot.at, &message.to_string()));
    }

    pub(super) fn error_with_hint(&mut self, spot: &Spot, message: impl Display, hint: impl Display) {
        let problem = Problem::new(Severity::Error, &spot.path, spot.at, &message.to_string());
        self.errors.push(problem.with_hint(&hint.to_string()));
    }

    pub(super) fn warn(&mut self, spot: &Spot, message: impl Display, hint: impl Display) {
        let problem = Problem::new(Severity::Warning, &spot.path, spot.at, &message.to_string());
        self.warnings.push(problem.with_hint(&hint.to_string()));
    }

    /// Reads a mapping whose fields are all known; each unknown one is a problem.
    pub(super) fn fields<'a>(&mut self, field: &Field<'a>, known: &Mapping) -> Option<Fields<'a>> {
        let fields = self.open_fields(field)?;
        for entry in fields.entries {
            if known.names().any(|name| name == entry.key) {
                continue;
            }
            let spot = Spot { path: fields.path_of(&entry.key), at: entry.at };
            let hint = match nearest(&entry.key, known.names()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known here: {}", known.names().collect::<Vec<_>>().join(", ")),
            };
            self.error_with_hint(&spot, "unknown field", hint);
        }
        Some(fields)
    }

    /// Reads a mapping with any keys.
    fn open_fields<'a>(&mut self, field: &Field<'a>) -> Option<Fields<'a>> {
        match &field.node.value {
            Value::Map(entries) => Some(Fields { spot: field.key(), entries }),
            Value::Null | Value::Scalar(_) | Value::List(_) => {
                self.error(&field.spot, format!("expected a mapping, found {}", field.node.describe()));
                None
            }
        }
    }

    /// Reads a mapping from free names to texts.
    pub(super) fn labels(&mut self, field: &Field<'_>) -> std::collections::BTreeMap<String, String> {
        let mut labels = std::collections::BTreeMap::new();
        if let Some(fields) = self.open_fields(field) {
            for entry in fields.entries {
                if let Some(field) = fields.get(&entry.key)
                    && let Some(scalar) = self.scalar(&field)
                {
                    labels.insert(entry.key.clone(), scalar.text.clone());
                }
            }
        }
        labels
    }

    /// The field, or a problem that it is missing.
    pub(super) fn require<'a>(
        &mut self,
        fields: &Fields<'a>,
        name: &str,
        example: &str,
    ) -> Option<Field<'a>> {
        let field = fields.get(name);
        if field.is_none() {
            let spot = Spot { path: fields.path_of(name), at: fields.spot.at };
            self.error_with_hint(&spot, "missing field", format!("add `{name}: {example}`"));
        }
        field
    }

    /// Reads a list of at most `most` items.
    pub(super) fn list<'a>(&mut self, field: &Field<'a>, most: usize) -> Vec<Field<'a>> {
        let Value::List(items) = &field.node.value else {
            self.error(&field.spot, format!("expected a list, found {}", field.node.describe()));
            return Vec::new();
        };
        if items.len() > most {
            self.error(&field.spot, format!("{} items are more than the {most} allowed", items.len()));
        }
        let item = |(index, node): (usize, &'a Node)| Field {
            spot: Spot { path: format!("{}[{index}]", field.spot.path), at: node.at },
            key_at: node.at,
            node,
        };
        items.iter().take(most).enumerate().map(item).collect()
    }

    /// Reads one piece of text, number or truth value.
    pub(super) fn scalar<'a>(&mut self, field: &Field<'a>) -> Option<&'a Scalar> {
        match &field.node.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::Null | Value::List(_) | Value::Map(_) => {
                self.error(&field.spot, format!("expected one value, found {}", field.node.describe()));
                None
            }
        }
    }

    /// Reads a scalar by a parser of its text.
    pub(super) fn read<T, E: Display>(
        &mut self,
        field: &Field<'_>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(&self.scalar(field)?.text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(&field.spot, error);
                None
            }
        }
    }

    /// Reads a text of 1 to `longest` bytes.
    pub(super) fn text(&mut self, field: &Field<'_>, longest: usize) -> Option<String> {
        self.read(field, |text| {
            if text.trim().is_empty() {
                Err("must not be empty".to_owned())
            } else if text.len() > longest {
                Err(format!("{} bytes are more than the {longest} allowed", text.len()))
            } else {
                Ok(text.to_owned())
            }
        })
    }

    pub(super) fn weight(&mut self, field: &Field<'_>) -> Option<Weight> {
        self.read(field, Weight::parse)
    }

    pub(super) fn duration(&mut self, field: &Field<'_>) -> Option<HoldFor> {
        let text = &self.scalar(field)?.text;
        match HoldFor::parse(text) {
            Ok(length) => Some(length),
            Err(error @ InvalidDuration::NoUnit(_)) => {
                let number: String = text.trim().chars().take(20).collect();
                let hint = format!("write {number}m for {number} minutes or {number}s for {number} seconds");
                self.error_with_hint(&field.spot, error, hint);
                None
            }
            Err(error @ (InvalidDuration::Malformed(_) | InvalidDuration::TooLong(_))) => {
                self.error(&field.spot, error);
                None
            }
        }
    }

    /// Reads a duration above zero.
    pub(super) fn positive_duration(&mut self, field: &Field<'_>) -> Option<HoldFor> {
        let length = self.duration(field)?;
        if length == HoldFor::ZERO {
            self.error(&field.spot, "must be longer than 0s");
            return None;
        }
        Some(length)
    }

    /// Reads a whole number from `least` to `most`.
    pub(super) fn whole_number(&mut self, field: &Field<'_>, least: u64, most: u64) -> Option<u64> {
        self.read(field, |text| match text.trim().parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            Ok(number) => Err(format!("{number} is outside {least} to {most}")),
            Err(_) => Err(format!("{text:?} is no whole number from {least} to {most}")),
        })
    }

    pub(super) fn truth(&mut self, field: &Field<'_>) -> Option<bool> {
        self.choice(field, &[("true", true), ("false", false)])
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(&mut self, field: &Field<'_>, choices: &[(&str, T)]) -> Option<T> {
        let text = &self.scalar(field)?.text;
        if let Some((_, value)) = choices.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let message = match words[..] {
            [only] => format!("{text:?} is not {only}"),
            _ => format!("{text:?} is none of {}", words.join(", ")),
        };
        match nearest(text, words.iter().copied()) {
            Some(word) => self.error_with_hint(&field.spot, message, format!("did you mean `{word}`?")),
            None => self.error(&field.spot, message),
        }
        None
    }
}
