//! Reading a PromptPack: everything about prompts is checked, what Serin does not use is noted.

mod checks;
mod models;
mod tools;
mod variables;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::checks::{CheckKind, DeclaredCheck};
use super::place::member;
use super::template::{self, Fragments, Piece};
use super::tools::Tool;
use super::variable::{Variable, type_of};
use super::{Body, Pack, PackProblem, Prompt};
use crate::ids::{PackName, PromptName, ProviderName, Version};
use crate::metric::nearest;

/// The most prompts of a pack.
const MOST_PROMPTS: usize = 200;

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
const PROMPT_UNUSED: &[&str] = &["pipeline", "media"];

/// How much is asked of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rigour {
    /// It keeps to its format: what is written now is held to what is known now.
    Strict,
    /// Its prompts can be rendered: what was published once is never refused later.
    Stored,
}

/// Reads a pack.
pub(super) fn pack(raw: Value, rigour: Rigour) -> Result<Pack, Vec<PackProblem>> {
    let mut reader =
        Reader { rigour, problems: Vec::new(), notes: Vec::new(), provider: None, checks: Vec::new() };
    match reader.pack(&raw) {
        Some(parts) if reader.problems.is_empty() => {
            let Parts { id, title, version, model, prompts } = parts;
            let Reader { notes, checks, provider, .. } = reader;
            Ok(Pack { id, title, version, model, prompts, provider, checks, notes, raw })
        }
        Some(_) | None => Err(reader.problems),
    }
}

/// What has been found so far.
struct Reader {
    rigour: Rigour,
    problems: Vec<PackProblem>,
    notes: Vec<PackProblem>,
    provider: Option<ProviderName>,
    checks: Vec<DeclaredCheck>,
}

/// An object and where it stands.
struct Object<'a> {
    path: String,
    fields: &'a Map<String, Value>,
}

impl Object<'_> {
    fn path_of(&self, name: &str) -> String {
        member(&self.path, name)
    }
}

/// What is read of a pack.
struct Parts {
    id: PackName,
    title: String,
    version: Version,
    model: Option<String>,
    prompts: BTreeMap<PromptName, Prompt>,
}

/// What the prompts of a pack share.
struct Shared<'a> {
    fragments: Fragments<'a>,
    tools: BTreeMap<&'a str, Option<Arc<Tool>>>,
}

impl Reader {
    fn problem(&mut self, path: &str, message: impl Display, hint: Option<String>) {
        self.problems.push(PackProblem { json_path: path.to_owned(), message: message.to_string(), hint });
    }

    fn note(&mut self, path: &str, message: &str, hint: Option<String>) {
        self.notes.push(PackProblem { json_path: path.to_owned(), message: message.to_owned(), hint });
    }

    /// A problem with what a pack can be rendered without.
    fn flaw(&mut self, path: &str, message: impl Display, hint: Option<String>) {
        match self.rigour {
            Rigour::Strict => self.problem(path, message, hint),
            Rigour::Stored => self.note(path, &message.to_string(), hint),
        }
    }

    /// Reads what a pack can be rendered without: its problems are flaws.
    fn leniently<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let known = self.problems.len();
        let value = read(self);
        match self.rigour {
            Rigour::Strict => {}
            Rigour::Stored => self.notes.extend(self.problems.drain(known..)),
        }
        value
    }

    fn pack(&mut self, raw: &Value) -> Option<Parts> {
        let object = self.object("", raw)?;
        self.note_fields(&object, PACK_FIELDS, PACK_UNUSED);
        let id = self.required_text(&object, "id").and_then(|text| self.parsed("id", PackName::parse(text)));
        let title = self.required_text(&object, "name").map(str::to_owned);
        let version = self.version(&object);
        self.template_engine(&object);
        self.provider = self.provider(&object);

        let model = self.leniently(|reader| reader.model(&object));
        let fragments = self.fragments(&object);
        let tools = self.leniently(|reader| reader.tools(&object));
        let shared = Shared { fragments, tools };
        self.leniently(|reader| reader.checks(&object, "evals", CheckKind::Eval));
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
                let prompt = self.object(&path, value).and_then(|object| self.prompt(&object, &shared));
                if let (Some(name), Some(prompt)) = (name, prompt) {
                    prompts.insert(name, prompt);
                }
            }
        }
        Some(Parts { id: id?, title: title?, version: version?, model, prompts })
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
            let path = member("fragments", name);
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

    fn prompt(&mut self, object: &Object<'_>, shared: &Shared<'_>) -> Option<Prompt> {
        self.note_fields(object, PROMPT_FIELDS, PROMPT_UNUSED);
        self.required_text(object, "id");
        let title = self.required_text(object, "name").map(str::to_owned);
        let version = self.version(object);
        let variables = self.variables(object);
        let template = self.required_text(object, "system_template");
        let pieces = template.and_then(|text| {
            self.template(&object.path_of("system_template"), text, &variables, &shared.fragments)
        });
        let parameters = self.parameters(object);
        let models = match template {
            Some(template) => self.leniently(|reader| {
                reader.model_overrides(object, template, &parameters, &variables, &shared.fragments)
            }),
            None => BTreeMap::new(),
        };
        for (index, variable) in variables.iter().enumerate() {
            let uses = |pieces: &[Piece]| pieces.contains(&Piece::Variable(index));
            let is_used_by_model = models.values().any(|body: &Body| uses(&body.pieces));
            if pieces.as_ref().is_some_and(|pieces| !uses(pieces)) && !is_used_by_model {
                let path = format!("{}[{index}]", object.path_of("variables"));
                self.note(&path, &format!("variable {} is not used by the template", variable.name), None);
            }
        }
        let policy = self.leniently(|reader| reader.tool_policy(object));
        let tools = self.tools_of(object, &shared.tools, &policy);
        self.leniently(|reader| {
            reader.checks(object, "evals", CheckKind::Eval);
            reader.checks(object, "validators", CheckKind::Validator);
        });
        let base = Body { pieces: pieces?, parameters };
        Some(Prompt { title: title?, version: version?, variables, tools, policy, base, models })
    }

    fn template(
        &mut self,
        path: &str,
        text: &str,
        variables: &[Variable],
        fragments: &Fragments<'_>,
    ) -> Option<Vec<Piece>> {
        match template::compile(text, variables, fragments) {
            Ok(pieces) => Some(pieces),
            Err(refused) => {
                self.problem(path, refused.message, refused.hint);
                None
            }
        }
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
