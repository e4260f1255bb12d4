//! Reading what a pack says about the model: which one, its parameters, and what is different for some of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Object, Reader};
use crate::metric::nearest;
use crate::prompt::Body;
use crate::prompt::template::Fragments;
use crate::prompt::variable::Variable;

/// The most models that a prompt is different for.
const MOST_MODELS: usize = 50;

const OVERRIDE_FIELDS: &[&str] =
    &["system_template", "system_template_prefix", "system_template_suffix", "parameters"];

/// Parameters with their least and largest value.
const PARAMETERS: [(&str, f64, f64); 6] = [
    ("temperature", 0.0, 2.0),
    ("max_tokens", 1.0, f64::INFINITY),
    ("top_p", 0.0, 1.0),
    ("top_k", 1.0, f64::INFINITY),
    ("frequency_penalty", -2.0, 2.0),
    ("presence_penalty", -2.0, 2.0),
];

/// Parameters that must be whole numbers.
const WHOLE: [&str; 2] = ["max_tokens", "top_k"];

impl Reader {
    /// Reads `metadata.model`: the model that the version is made for.
    pub(super) fn model(&mut self, pack: &Object<'_>) -> Option<String> {
        let metadata = pack.fields.get("metadata").filter(|value| !value.is_null())?;
        let metadata = self.object("metadata", metadata)?;
        metadata.fields.get("model").filter(|value| !value.is_null())?;
        self.required_text(&metadata, "model").map(str::to_owned)
    }

    /// Reads what is different for some models, put together with what holds for all.
    pub(super) fn model_overrides(
        &mut self,
        prompt: &Object<'_>,
        template: &str,
        parameters: &Map<String, Value>,
        variables: &[Variable],
        fragments: &Fragments<'_>,
    ) -> BTreeMap<String, Body> {
        let path = prompt.path_of("model_overrides");
        let mut models = BTreeMap::new();
        let Some(listed) = prompt.fields.get("model_overrides").and_then(|value| self.object(&path, value))
        else {
            return models;
        };
        if listed.fields.len() > MOST_MODELS {
            let message = format!("{} models are more than the {MOST_MODELS} allowed", listed.fields.len());
            self.problem(&path, message, None);
        }
        for (model, value) in listed.fields.iter().take(MOST_MODELS) {
            let Some(object) = self.object(&listed.path_of(model), value) else { continue };
            self.note_fields(&object, OVERRIDE_FIELDS, &[]);
            let text = |reader: &mut Self, name: &str| {
                object.fields.get(name).and_then(|value| reader.text(&object.path_of(name), value))
            };
            let whole = text(self, "system_template");
            let prefix = text(self, "system_template_prefix").unwrap_or_default();
            let suffix = text(self, "system_template_suffix").unwrap_or_default();
            // Problems of the template that all models share are told once, where it stands.
            let known = self.problems.len();
            let joined = format!("{prefix}{}{suffix}", whole.unwrap_or(template));
            let pieces = self.template(&object.path, &joined, variables, fragments);
            if whole.is_none() && prefix.is_empty() && suffix.is_empty() {
                self.problems.truncate(known);
            }
            let mut merged = parameters.clone();
            merged.extend(self.parameters(&object));
            if let Some(pieces) = pieces {
                models.insert(model.clone(), Body { pieces, parameters: merged });
            }
        }
        models
    }

    pub(super) fn parameters(&mut self, holder: &Object<'_>) -> Map<String, Value> {
        let path = holder.path_of("parameters");
        let Some(object) = holder.fields.get("parameters").and_then(|value| self.object(&path, value)) else {
            return Map::new();
        };
        let mut parameters = Map::new();
        for (name, value) in object.fields.iter().filter(|(_, value)| !value.is_null()) {
            let path = object.path_of(name);
            let Some((_, least, most)) = PARAMETERS.iter().find(|(known, _, _)| known == name) else {
                let hint = nearest(name, PARAMETERS.iter().map(|(known, _, _)| *known));
                self.note(
                    &path,
                    "unknown parameter, sent as it stands",
                    hint.map(|name| format!("did you mean `{name}`?")),
                );
                parameters.insert(name.clone(), value.clone());
                continue;
            };
            let must_be_whole = WHOLE.contains(&name.as_str());
            match value.as_f64() {
                Some(_) if must_be_whole && value.as_u64().is_none() => {
                    self.wrong_type(&path, "whole number", value)
                }
                Some(number) if number < *least || number > *most => {
                    let range = if most.is_finite() {
                        format!("{least} to {most}")
                    } else {
                        format!("{least} and more")
                    };
                    self.problem(&path, format!("{number} is outside {range}"), None);
                }
                Some(_) => {
                    parameters.insert(name.clone(), value.clone());
                }
                None => self.wrong_type(&path, "number", value),
            }
        }
        parameters
    }
}
