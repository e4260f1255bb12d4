//! The table as a JSON Schema (draft 2020-12), for editors.
//!
//! Whatever the parser takes, the schema takes, but for fields that say `null`. It cannot say everything that the
//! parser checks: growing weights, windows that overlap, expressions, ranges of metrics.

use serde_json::{Map, Value, json};

use super::{Field, MANIFEST, Mapping, Presence, Rule, Shape};
use crate::metric::{aliases, catalogue};

/// Numbers of percent with at most two decimals, 0 to 100.
const WEIGHT: &str = r"^\s*(100(\.0{1,2}0*)?|\d{1,2}(\.\d{1,2}0*)?)\s*%?\s*$";

/// Units from large to small, each at most once.
const DURATION: &str = r"^\s*(?=\d)(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?\s*$";

/// The same, and not nothing.
const POSITIVE_DURATION: &str = r"^\s*(?=[^1-9]*[1-9])(?=\d)(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?\s*$";

/// Semantic Versioning 2.0.
const VERSION: &str = r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$";

/// `HH:MM-HH:MM ZONE`.
const WINDOW: &str =
    r"^\s*([01]\d|2[0-3]):[0-5]\d\s*-\s*(([01]\d|2[0-3]):[0-5]\d|24:00)\s+[A-Za-z][A-Za-z0-9_+/-]*\s*$";

/// A number with an optional unit in front or behind.
const QUANTITY: &str = r"^\s*\$?[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*(%|pp|ms|s)?\s*$";

/// A number, or a number of percent.
const SHARE: &str = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*%?\s*$";

/// Any number as text.
const NUMBER: &str = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$";

/// The JSON Schema of a manifest.
pub fn schema() -> Value {
    let mut schema = mapping(&MANIFEST);
    let head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Serin manifest",
    });
    if let (Value::Object(head), Some(schema)) = (head, schema.as_object_mut()) {
        for (key, value) in head {
            schema.insert(key, value);
        }
    }
    schema
}

fn mapping(mapping: &Mapping) -> Value {
    let properties: Map<String, Value> =
        mapping.fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> = mapping
        .fields
        .iter()
        .filter(|field| field.presence == Presence::Required)
        .map(|field| field.name)
        .collect();
    let mut schema = json!({
        "type": "object",
        "description": mapping.about,
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let rules: Vec<Value> = mapping.rules.iter().map(rule).collect();
    if !rules.is_empty() {
        schema["allOf"] = json!(rules);
    }
    schema
}

fn rule(rule: &Rule) -> Value {
    let absent = |names: &[&str]| {
        let any: Vec<Value> = names.iter().map(|name| json!({ "required": [name] })).collect();
        json!({ "not": { "anyOf": any } })
    };
    let is = |field: &str, value: &str| json!({ "properties": { field: { "const": value } }, "required": [field] });
    match rule {
        Rule::ExactlyOne(names) => {
            let one: Vec<Value> = names.iter().map(|name| json!({ "required": [name] })).collect();
            json!({ "oneOf": one })
        }
        Rule::Excludes(name, others) => json!({ "if": { "required": [name] }, "then": absent(others) }),
        Rule::Needs(name, other) => json!({ "dependentRequired": { *name: [other] } }),
        Rule::Where { field, is: value, needs, without } => {
            let mut then = json!({ "required": needs });
            if !without.is_empty() {
                then["not"] = absent(without)["not"].clone();
            }
            json!({ "if": is(field, value), "then": then })
        }
        Rule::WhereNot { field, is: value, needs } => {
            json!({ "if": { "required": [field], "not": is(field, value) }, "then": { "required": needs } })
        }
    }
}

fn property(field: &Field) -> Value {
    let mut schema = shape(&field.shape);
    let description = match field.presence {
        Presence::Required => field.rule.to_owned(),
        Presence::Default(value) => format!("{} Default: {value}.", field.rule),
        Presence::Optional(without) => format!("{} Without it: {without}.", field.rule),
    };
    schema["description"] = json!(description);
    match (&field.shape, field.presence) {
        (Shape::Truth, Presence::Default(value)) => schema["default"] = json!(value == "true"),
        (_, Presence::Default(value)) => schema["default"] = json!(value),
        (_, Presence::Required | Presence::Optional(_)) => {}
    }
    schema
}

/// A text of this form, or a number from `least` to `most`.
fn number_or_text(pattern: &str, least: Option<f64>, most: Option<f64>) -> Value {
    let mut schema = json!({ "type": ["number", "string"], "pattern": pattern });
    for (key, bound) in [("minimum", least), ("maximum", most)] {
        if let Some(bound) = bound {
            schema[key] = json!(bound);
        }
    }
    schema
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Choice(choices) => json!({ "enum": choices }),
        Shape::Truth => json!({ "enum": [true, false, "true", "false"] }),
        Shape::Text { longest } => {
            json!({ "type": ["string", "number", "boolean"], "minLength": 1, "maxLength": longest })
        }
        Shape::Name { pattern, words: _ } => json!({ "type": ["string", "number"], "pattern": pattern }),
        Shape::Metric => {
            let known = catalogue().into_iter().map(|metric| metric.name.to_string());
            let known: Vec<String> = known.chain(aliases().map(|(written, _)| written.to_owned())).collect();
            json!({ "anyOf": [{ "enum": known }, { "type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$" }] })
        }
        Shape::Version => json!({ "type": "string", "pattern": VERSION }),
        Shape::Weight => number_or_text(WEIGHT, Some(0.0), Some(100.0)),
        Shape::SegmentWeight => {
            let weight = number_or_text(WEIGHT, Some(0.0), Some(100.0));
            json!({ "anyOf": [{ "const": "progressive" }, weight] })
        }
        Shape::Duration { zero } => {
            json!({ "type": "string", "pattern": if *zero { DURATION } else { POSITIVE_DURATION } })
        }
        Shape::Count { least, most } => {
            json!({ "type": ["integer", "string"], "minimum": least, "maximum": most, "pattern": r"^\s*\+?\d+\s*$" })
        }
        Shape::Share => number_or_text(SHARE, Some(0.0), None),
        Shape::Number => number_or_text(NUMBER, None, None),
        Shape::Threshold | Shape::Regression => number_or_text(QUANTITY, None, None),
        Shape::Window => json!({ "type": "string", "pattern": WINDOW }),
        Shape::Labels => {
            json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean", "null"] } })
        }
        Shape::Pack => json!({ "type": "object" }),
        Shape::DurationOr(below) => {
            json!({ "anyOf": [{ "type": "string", "pattern": POSITIVE_DURATION }, mapping(below)] })
        }
        Shape::Mapping(below) => mapping(below),
        Shape::List { of, most, one_with } => {
            let mut schema = json!({ "type": "array", "items": mapping(of), "maxItems": most });
            if let Some((field, value)) = one_with {
                let one = json!({ "properties": { *field: { "const": value } }, "required": [field] });
                schema["contains"] = one;
                schema["maxContains"] = json!(1);
            }
            schema
        }
    }
}
