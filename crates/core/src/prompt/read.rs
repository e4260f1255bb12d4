//! Reading a PromptPack: what is needed is checked, the rest is noted.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_json::{Map, Value};

use super::template::{self, Fragments, Piece};
use super::variable::{Unfit, Validation, Variable, VariableType, pattern, type_of};
use super::{Pack, PackProblem, Prompt};
use crate::ids::{PackName, PromptName, ProviderName, Version};
use crate::metric::nearest;

/// The most prompts of a pack.
const MOST_PROMPTS: usize = 200;

/// The most variables of a prompt.
const MOST_VARIABLES: usize = 200;

const PACK_FIELDS: &[&str] = &[
    "$schema",
    "id",
    "name",
    "version",
    "description",
    "template_engine",
    "prompts",
    "fragments",
    "tools",
    "metadata",
    "compilation",
    "evals",
    "workflow",
    "agents",
    "skills",
];

/// Fields of a pack that change what happens elsewhere and not in Serin.
const PACK_UNUSED: &[&str] = &["workflow", "agents", "skills"];

const PROMPT_FIELDS: &[&str] = &[
    "id",
    "name",
    "description",
    "version",
    "system_template",
    "variables",
    "tools",
    "tool_policy",
    "pipeline",
    "parameters",
    "validators",
    "evals",
    "tested_models",
    "model_overrides",
    "media",
];

/// Fields of a prompt that change what happens elsewhere and not in Serin.
const PROMPT_UNUSED: &[&str] =
    &["tool_policy", "pipeline", "validators", "evals", "model_overrides", "media"];

const VARIABLE_FIELDS: &[&str] =
    &["name", "type", "required", "default", "description", "example", "validation", "binding"];

const VALIDATION_FIELDS: &[&str] = &["pattern", "min_length", "max_length", "minimum", "maximum", "enum"];

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

/// Reads a pack.
pub(super) fn pack(raw: Value) -> Result<Pack, Vec<PackProblem>> {
    let mut reader = Reader::default();
    match reader.pack(&raw) {
        Some(parts) if reader.problems.is_empty() => {
            let (id, title, version, prompts) = parts;
            Ok(Pack { id, title, version, prompts, provider: reader.provider, notes: reader.notes, raw })
        }
        Some(_) | None => Err(reader.problems),
    }
}

/// What has been found so far.
#[derive(Default)]
struct Reader {
    problems: Vec<PackProblem>,
    notes: Vec<PackProblem>,
    provider: Option<ProviderName>,
}

/// An object and where it stands.
struct Object<'a> {
    path: String,
    fields: &'a Map<String, Value>,
}

impl Object<'_> {
    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

type Parts = (PackName, String, Version, BTreeMap<PromptName, Prompt>);

impl Reader {
    fn problem(&mut self, path: &str, message: impl Display, hint: Option<String>) {
        self.problems.push(PackProblem { json_path: path.to_owned(), message: message.to_string(), hint });
    }

    fn note(&mut self, path: &str, message: &str, hint: Option<String>) {
        self.notes.push(PackProblem { json_path: path.to_owned(), message: message.to_owned(), hint });
    }

    fn pack(&mut self, raw: &Value) -> Option<Parts> {
        let object = self.object("", raw)?;
        self.note_fields(&object, PACK_FIELDS, PACK_UNUSED);
        let id = self.required_text(&object, "id").and_then(|text| self.parsed("id", PackName::parse(text)));
        let title = self.required_text(&object, "name").map(str::to_owned);
        let version = self.version(&object);
        self.template_engine(&object);
        self.provider = self.provider(&object);

        let fragments = self.fragments(&object);
        let known_tools = object.fields.get("tools").and_then(Value::as_object);
        let mut prompts = BTreeMap::new();
        if let Some(listed) =
            self.required(&object, "prompts").and_then(|value| self.object("prompts", value))
        {
            if listed.fields.is_empty() || listed.fields.len() > MOST_PROMPTS {
                self.problem(
                    "prompts",
                    format!("{} prompts are not 1 to {MOST_PROMPTS}", listed.fields.len()),
                    None,
                );
            }
            for (name, value) in listed.fields.iter().take(MOST_PROMPTS) {
                let path = listed.path_of(name);
                let name = self.parsed(&path, PromptName::parse(name));
                let prompt = self
                    .object(&path, value)
                    .and_then(|object| self.prompt(&object, &fragments, known_tools));
                if let (Some(name), Some(prompt)) = (name, prompt) {
                    prompts.insert(name, prompt);
                }
            }
        }
        Some((id?, title?, version?, prompts))
    }

    fn template_engine(&mut self, pack: &Object<'_>) {
        let Some(engine) =
            self.required(pack, "template_engine").and_then(|value| self.object("template_engine", value))
        else {
            return;
        };
        self.required_text(&engine, "version");
        if let Some(syntax) = self.required_text(&engine, "syntax")
            && !(syntax.starts_with("{{") && syntax.ends_with("}}"))
        {
            let syntax: String = syntax.chars().take(60).collect();
            let hint = Some("write variables as {{variable}}".to_owned());
            self.problem("template_engine.syntax", format!("syntax {syntax:?} is not supported"), hint);
        }
        for feature in engine.fields.get("features").and_then(Value::as_array).into_iter().flatten() {
            if let Some(feature @ ("conditionals" | "loops" | "filters")) = feature.as_str() {
                let message =
                    format!("feature {feature} is not supported: a template that uses it is refused");
                self.note("template_engine.features", &message, None);
            }
        }
    }

    /// `metadata.provider`: the one place of a PromptPack that is open for fields of others.
    fn provider(&mut self, pack: &Object<'_>) -> Option<ProviderName> {
        let metadata = pack.fields.get("metadata").filter(|value| !value.is_null())?;
        let metadata = self.object("metadata", metadata)?;
        let path = metadata.path_of("provider");
        let name = metadata.fields.get("provider").filter(|value| !value.is_null())?;
        let name = self.text(&path, name)?;
        self.parsed(&path, ProviderName::parse(name))
    }

    fn fragments<'a>(&mut self, pack: &Object<'a>) -> Fragments<'a> {
        let mut fragments = Fragments::new();
        let listed = pack.fields.get("fragments").and_then(|value| self.object("fragments", value));
        for (name, value) in listed.iter().flat_map(|listed| listed.fields.iter()) {
            let path = format!("fragments.{name}");
            let Some(text) = self.text(&path, value) else { continue };
            match template::tokens(text) {
                Ok(tokens) => {
                    fragments.insert(name.as_str(), tokens);
                }
                Err(refused) => {
                    self.problem(&path, refused.message, refused.hint);
                    // Its name stays known, so that one mistake is not reported at every use.
                    fragments.insert(name.as_str(), Vec::new());
                }
            }
        }
        fragments
    }

    fn prompt(
        &mut self,
        object: &Object<'_>,
        fragments: &Fragments<'_>,
        tools: Option<&Map<String, Value>>,
    ) -> Option<Prompt> {
        self.note_fields(object, PROMPT_FIELDS, PROMPT_UNUSED);
        self.required_text(object, "id");
        let title = self.required_text(object, "name").map(str::to_owned);
        let version = self.version(object);
        let variables = self.variables(object);
        let path = object.path_of("system_template");
        let pieces = self.required_text(object, "system_template").and_then(|text| {
            match template::compile(text, &variables, fragments) {
                Ok(pieces) => Some(pieces),
                Err(refused) => {
                    self.problem(&path, refused.message, refused.hint);
                    None
                }
            }
        });
        for (index, variable) in variables.iter().enumerate() {
            if pieces.as_ref().is_some_and(|pieces| !pieces.contains(&Piece::Variable(index))) {
                let path = format!("{}[{index}]", object.path_of("variables"));
                self.note(&path, &format!("variable {} is not used by the template", variable.name), None);
            }
        }
        let parameters = self.parameters(object);
        let tools = self.tools(object, tools);
        Some(Prompt { title: title?, version: version?, variables, parameters, tools, pieces: pieces? })
    }

    fn variables(&mut self, prompt: &Object<'_>) -> Vec<Variable> {
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

    fn length(&mut self, object: &Object<'_>, name: &str) -> Option<u64> {
        let value = object.fields.get(name)?;
        let length = value.as_u64();
        if length.is_none() {
            self.wrong_type(&object.path_of(name), "whole number", value);
        }
        length
    }

    fn number(&mut self, object: &Object<'_>, name: &str) -> Option<f64> {
        let value = object.fields.get(name)?;
        let number = value.as_f64();
        if number.is_none() {
            self.wrong_type(&object.path_of(name), "number", value);
        }
        number
    }

    fn parameters(&mut self, prompt: &Object<'_>) -> Map<String, Value> {
        let path = prompt.path_of("parameters");
        let Some(object) = prompt.fields.get("parameters").and_then(|value| self.object(&path, value)) else {
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

    fn tools(&mut self, prompt: &Object<'_>, known: Option<&Map<String, Value>>) -> Vec<String> {
        let path = prompt.path_of("tools");
        let Some(value) = prompt.fields.get("tools") else { return Vec::new() };
        let mut tools = Vec::new();
        for (index, item) in self.array(&path, value, 1_000).iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(tool) = self.text(&path, item) else { continue };
            if !known.is_some_and(|known| known.contains_key(tool)) {
                let names = known.iter().flat_map(|known| known.keys()).map(String::as_str);
                let hint = nearest(tool, names).map(|name| format!("did you mean `{name}`?"));
                self.problem(&path, format!("tool {tool:?} is not in the pack's `tools`"), hint);
            }
            tools.push(tool.to_owned());
        }
        tools
    }

    fn version(&mut self, object: &Object<'_>) -> Option<Version> {
        let text = self.required_text(object, "version")?;
        self.parsed(&object.path_of("version"), Version::parse(text.strip_prefix('v').unwrap_or(text)))
    }

    /// Notes each field that is unknown, or known and not used.
    fn note_fields(&mut self, object: &Object<'_>, known: &[&str], unused: &[&str]) {
        for name in object.fields.keys() {
            let path = object.path_of(name);
            if unused.contains(&name.as_str()) {
                self.note(&path, "kept, but not used by Serin", None);
            } else if !known.contains(&name.as_str()) {
                let hint = nearest(name, known.iter().copied()).map(|name| format!("did you mean `{name}`?"));
                self.note(&path, "unknown field, kept as it stands", hint);
            }
        }
    }

    fn required<'a>(&mut self, object: &Object<'a>, name: &str) -> Option<&'a Value> {
        let value = object.fields.get(name);
        if value.is_none() {
            self.problem(&object.path_of(name), "missing field", None);
        }
        value
    }

    /// The text of a field that must not be empty.
    fn required_text<'a>(&mut self, object: &Object<'a>, name: &str) -> Option<&'a str> {
        let value = self.required(object, name)?;
        let path = object.path_of(name);
        let text = self.text(&path, value)?;
        if text.is_empty() {
            self.problem(&path, "must not be empty", None);
            return None;
        }
        Some(text)
    }

    fn text<'a>(&mut self, path: &str, value: &'a Value) -> Option<&'a str> {
        let text = value.as_str();
        if text.is_none() {
            self.wrong_type(path, "string", value);
        }
        text
    }

    fn object<'a>(&mut self, path: &str, value: &'a Value) -> Option<Object<'a>> {
        match value.as_object() {
            Some(fields) => Some(Object { path: path.to_owned(), fields }),
            None => {
                self.wrong_type(path, "object", value);
                None
            }
        }
    }

    fn array<'a>(&mut self, path: &str, value: &'a Value, most: usize) -> &'a [Value] {
        let Some(items) = value.as_array() else {
            self.wrong_type(path, "array", value);
            return &[];
        };
        if items.len() > most {
            self.problem(path, format!("{} items are more than the {most} allowed", items.len()), None);
        }
        &items[..items.len().min(most)]
    }

    fn wrong_type(&mut self, path: &str, expected: &str, found: &Value) {
        self.problem(path, format!("expected {expected}, found {}", type_of(found)), None);
    }

    fn parsed<T, E: Display>(&mut self, path: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(path, error, None);
                None
            }
        }
    }
}
