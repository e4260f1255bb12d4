//! A manifest on disk together with the prompts that it names.
//!
//! The server takes prompts inline only, so the file that `spec.source.file` names is read here. A
//! problem is shown where it was written: in the manifest, or in the pack file.

use std::path::{Path, PathBuf};

use serde_json::Value;
use serin_core::ids::ProviderName;
use serin_core::lint::{Lint, lint, lint_policy, lint_tools};
use serin_core::manifest::{At, Node, Value as NodeValue};
use serin_core::parse::{self, PackSource};
use serin_core::plan::Plan;
use serin_core::policy::{Policy, Violation};
use serin_core::prompt::{Pack, PackProblem, Places};
use serin_server::tool_schema;

use crate::told::{Detail, Severity, Told};

/// The longest source line that is shown, in characters.
const EXCERPT_WIDTH: usize = 100;

/// A manifest that can be applied.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What it means.
    pub(crate) plan: Plan,
    /// Its prompts; nothing for a pack that is version only.
    pub(crate) pack: Option<Pack>,
    /// The manifest as written.
    text: Written,
    /// Where its prompts are written.
    pack_text: Option<PackText>,
    /// The manifest as JSON, with its prompts inline: what is sent.
    pub(crate) json: Value,
    /// What deserves a look.
    pub(crate) warnings: Vec<Detail>,
}

/// A text with the name of its file.
#[derive(Debug, Clone)]
struct Written {
    name: String,
    text: String,
}

/// Where the prompts of a manifest are written.
#[derive(Debug)]
struct PackText {
    written: Written,
    /// The path of the pack in it, with a dot; empty for a file of its own.
    prefix: &'static str,
}

impl Written {
    fn source(&self) -> Source<'_> {
        Source { name: self.name.clone(), text: &self.text }
    }
}

impl Loaded {
    /// What `lint` says of this manifest at its place.
    pub(crate) fn warning(&self, lint: &Lint) -> Detail {
        self.text.source().of_lint(lint)
    }

    /// The rules of a policy that this manifest does not keep, each at its place, and those that nobody can.
    pub(crate) fn against(&self, policy: &Policy) -> Vec<Detail> {
        let source = self.text.source();
        let violations = policy.violations(&self.plan);
        let refused = violations.iter().map(|violation| source.of_violation(violation));
        refused.chain(lint_policy(&self.plan, policy).iter().map(|lint| self.warning(lint))).collect()
    }

    /// An error of the server about what was sent, with the places of what was written.
    pub(crate) fn placed(&self, mut told: Told) -> Told {
        let source = self.text.source();
        for detail in
            told.details.iter_mut().filter(|detail| detail.rule.is_some() && !detail.path.is_empty())
        {
            let at = source.place_of(&detail.path);
            let hint = detail.hint.as_deref();
            let placed = source.detail(detail.severity, &detail.path, at, &detail.message, hint);
            *detail = Detail { rule: detail.rule.take(), ..placed };
        }
        told
    }

    /// What deserves a look beside the prompts that are stable now.
    pub(crate) fn beside(&self, stable: &Pack) -> Vec<Detail> {
        let (Some(pack), Some(at)) = (&self.pack, &self.pack_text) else { return Vec::new() };
        let lints = lint_tools(&self.plan, stable, pack);
        let place = |lint: Lint| {
            let path = format!("{}{}", at.prefix, lint.path);
            at.written.source().of_lint(&Lint { path, ..lint })
        };
        lints.into_iter().map(place).collect()
    }
}

/// Everything found about a file.
pub(crate) struct Findings {
    /// Errors and warnings in the order of their places.
    pub(crate) details: Vec<Detail>,
    /// What was read, unless there are errors.
    pub(crate) loaded: Option<Loaded>,
}

/// A text with the name it goes by.
pub(crate) struct Source<'a> {
    /// The name that problems are shown under.
    pub(crate) name: String,
    /// The text.
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// Something about this text.
    pub(crate) fn detail(
        &self,
        severity: Severity,
        path: &str,
        at: At,
        message: &str,
        hint: Option<&str>,
    ) -> Detail {
        let index = usize::try_from(at.line).ok().and_then(|line| line.checked_sub(1));
        let line = index.and_then(|index| self.text.lines().nth(index));
        let column = usize::try_from(at.column).unwrap_or(usize::MAX);
        let excerpt = line.filter(|_| column <= EXCERPT_WIDTH).map(|line| {
            let clean = |c: char| if c.is_control() { ' ' } else { c };
            line.chars().take(EXCERPT_WIDTH).map(clean).collect::<String>().trim_end().to_owned()
        });
        Detail {
            severity,
            rule: None,
            message: message.to_owned(),
            file: self.name.clone(),
            path: path.to_owned(),
            line: at.line,
            column: at.column,
            excerpt,
            hint: hint.map(ToOwned::to_owned),
        }
    }

    /// Where a path stands in this text; the nearest parent that exists.
    pub(crate) fn place_of(&self, path: &str) -> At {
        place_of(self.text, path)
    }

    fn of_problem(&self, problem: &parse::Problem) -> Detail {
        let severity = match problem.severity {
            parse::Severity::Error => Severity::Error,
            parse::Severity::Warning => Severity::Warning,
        };
        let at = At { line: problem.line, column: problem.column };
        self.detail(severity, &problem.path, at, &problem.message, problem.hint.as_deref())
    }

    fn of_lint(&self, lint: &Lint) -> Detail {
        let at = self.place_of(&lint.path);
        let detail = self.detail(Severity::Warning, &lint.path, at, &lint.message, Some(&lint.hint));
        Detail { rule: Some(lint.rule.to_owned()), ..detail }
    }

    fn of_violation(&self, violation: &Violation) -> Detail {
        let Violation { rule, path, message, hint } = violation;
        let detail = self.detail(Severity::Error, path, self.place_of(path), message, Some(hint));
        Detail { rule: Some(rule.to_string()), ..detail }
    }

    fn of_pack(&self, places: &Places, severity: Severity, problem: &PackProblem) -> Detail {
        let at = places.at(&problem.json_path);
        self.detail(severity, &problem.json_path, at, &problem.message, problem.hint.as_deref())
    }
}

/// Where a path such as `prompts.support.variables[0]` stands in a document; the nearest parent that exists.
fn place_of(text: &str, path: &str) -> At {
    let Ok(root) = Node::read(text) else { return At::default() };
    let mut node = &root;
    let mut at = root.at;
    let keys = path.split('.').flat_map(|part| part.split('[')).map(|key| key.trim_end_matches(']'));
    for key in keys.filter(|key| !key.is_empty()) {
        let next = match &node.value {
            NodeValue::Map(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| (&entry.node, entry.at))
            }
            NodeValue::List(items) => {
                key.parse::<usize>().ok().and_then(|index| items.get(index)).map(|item| (item, item.at))
            }
            NodeValue::Null | NodeValue::Scalar(_) => None,
        };
        let Some((next, place)) = next else { break };
        (node, at) = (next, place);
    }
    at
}

/// Reads a file, or standard input for `-`.
///
/// # Errors
/// [`Told`] when it cannot be read.
pub(crate) fn read_text(path: &Path) -> Result<String, Told> {
    let read = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    read.map_err(|error| {
        let told = Told::new(format!("could not read {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::NotFound => told.hint("`serin init` writes a first pack and manifest"),
            std::io::ErrorKind::IsADirectory => {
                told.hint("name a manifest in this folder, such as support.yaml")
            }
            _ => told,
        }
    })
}

/// A mistake in the provider that the pack of a file names.
pub(crate) fn wrong_provider(path: &Path, named: &ProviderName, hint: &str) -> Result<Detail, Told> {
    const IN_PACK: &str = "metadata.provider";
    let text = read_text(path)?;
    let source = Source { name: path.display().to_string(), text: &text };
    let message = format!("the pack goes to the provider {named}, which is not in the settings");
    let at = source.place_of("spec.source");
    Ok(source.detail(Severity::Error, IN_PACK, at, &message, Some(hint)))
}

/// Whether a document is a PromptPack file and no manifest; also one whose JSON is broken.
fn is_pack(text: &str) -> bool {
    match serde_json::from_str::<Value>(text) {
        Ok(json) => {
            let has = |field| json.get(field).is_some();
            (has("prompts") || has("template_engine")) && !has("kind")
        }
        Err(_) => {
            let has = |field: &str| text.contains(&format!("\"{field}\""));
            text.trim_start().starts_with('{') && has("prompts") && !has("kind")
        }
    }
}

/// Looks over a manifest with its prompts, or a pack file on its own.
///
/// # Errors
/// [`Told`] when the file cannot be read at all.
pub(crate) fn examine(path: &Path) -> Result<Findings, Told> {
    let text = read_text(path)?;
    let source = Source { name: path.display().to_string(), text: &text };
    if is_pack(&text) {
        let (_, details) = examine_pack(&source);
        return Ok(Findings { details, loaded: None });
    }
    Ok(examine_manifest(path, &source))
}

/// Reads a manifest that is to be used.
///
/// # Errors
/// [`Told`] with everything that is wrong with it.
pub(crate) fn load(path: &Path) -> Result<Loaded, Told> {
    let Findings { details, loaded } = examine(path)?;
    match loaded {
        Some(loaded) => Ok(loaded),
        None if details.iter().any(|detail| detail.severity == Severity::Error) => {
            let message = format!("{} cannot be used as it stands", path.display());
            Err(Told { message, details, hints: Vec::new() })
        }
        None => Err(Told::new(format!("{} is a pack file and no manifest", path.display()))
            .hint("name the manifest whose `spec.source.file` points to it")),
    }
}

/// A pack whose tools have schemas that can be used.
fn with_schemas(pack: Result<Pack, Vec<PackProblem>>) -> Result<Pack, Vec<PackProblem>> {
    let pack = pack?;
    let problems = tool_schema::problems(&pack);
    if problems.is_empty() { Ok(pack) } else { Err(problems) }
}

/// Reads a pack file; the details hold its problems, or else its notes.
fn examine_pack(source: &Source<'_>) -> (Option<Pack>, Vec<Detail>) {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(source.text) {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let at = At { line: number(error.line()), column: number(error.column()) };
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let told = format!("the pack is no JSON: {message}");
        return (None, vec![source.detail(Severity::Error, "", at, &told, None)]);
    }
    let places = Places::of(source.text);
    let (pack, severity, found) = match with_schemas(Pack::parse(source.text)) {
        Ok(pack) => {
            let notes = pack.notes().to_vec();
            (Some(pack), Severity::Warning, notes)
        }
        Err(problems) => (None, Severity::Error, problems),
    };
    let mut details: Vec<Detail> =
        found.iter().map(|problem| source.of_pack(&places, severity, problem)).collect();
    details.sort_by_key(|detail| (detail.line, detail.column));
    (pack, details)
}

fn examine_manifest(path: &Path, source: &Source<'_>) -> Findings {
    if source.text.trim().is_empty() {
        let hint = Some("`serin init` writes a first pack and manifest");
        let empty = source.detail(Severity::Error, "", At::default(), "the file is empty", hint);
        return Findings { details: vec![empty], loaded: None };
    }
    let parsed = match parse::parse(source.text) {
        Ok(parsed) => parsed,
        Err(problems) => {
            let details = problems.list().iter().map(|problem| source.of_problem(problem)).collect();
            return Findings { details, loaded: None };
        }
    };
    let mut details: Vec<Detail> = parsed.warnings.iter().map(|warning| source.of_problem(warning)).collect();
    details.extend(lint(&parsed.plan).iter().map(|found| source.of_lint(found)));
    let text = Written { name: source.name.clone(), text: source.text.to_owned() };
    let mut json = parse::to_json(source.text).expect("a manifest that parses is readable");
    let (pack, pack_text) = match parsed.source {
        None => (None, None),
        Some(PackSource::Inline(value)) => match with_schemas(Pack::from_value(value)) {
            Ok(pack) => (Some(pack), Some(PackText { written: text.clone(), prefix: "spec.source.inline." })),
            Err(problems) => {
                let within = |problem: &PackProblem| {
                    let path = format!("spec.source.inline.{}", problem.json_path);
                    let at = place_of(source.text, &path);
                    source.detail(Severity::Error, &path, at, &problem.message, problem.hint.as_deref())
                };
                details.extend(problems.iter().map(within));
                return Findings { details, loaded: None };
            }
        },
        Some(PackSource::File(named)) => {
            let (pack, found) = inline(path, source, &named, &mut json);
            details.extend(found);
            match pack {
                Some((pack, written)) => (Some(pack), Some(PackText { written, prefix: "" })),
                None => return Findings { details, loaded: None },
            }
        }
    };
    if let Some(pack) = &pack
        && (*pack.id() != parsed.plan.pack || *pack.version() != parsed.plan.version)
    {
        let message = format!(
            "the pack calls itself {} {}, the manifest {} {}",
            pack.id(),
            pack.version(),
            parsed.plan.pack,
            parsed.plan.version
        );
        let at = place_of(source.text, "spec.version");
        let hint = "give both the same name and version";
        details.push(source.detail(Severity::Error, "spec.version", at, &message, Some(hint)));
        return Findings { details, loaded: None };
    }
    let loaded = Loaded { plan: parsed.plan, pack, text, pack_text, json, warnings: details.clone() };
    Findings { details, loaded: Some(loaded) }
}

/// Reads the pack file that a manifest names and puts it into the manifest's JSON.
fn inline(
    manifest: &Path,
    source: &Source<'_>,
    named: &str,
    json: &mut Value,
) -> (Option<(Pack, Written)>, Vec<Detail>) {
    const FIELD: &str = "spec.source.file";
    let path = manifest.parent().map_or_else(|| PathBuf::from(named), |folder| folder.join(named));
    let here = |message: &str, hint: Option<&str>| {
        source.detail(Severity::Error, FIELD, place_of(source.text, FIELD), message, hint)
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("could not read {}: {error}", path.display());
            return (None, vec![here(&message, Some("the path is relative to the manifest"))]);
        }
    };
    let file = Source { name: path.display().to_string(), text: &text };
    let (pack, mut details) = examine_pack(&file);
    match &pack {
        None => details.push(here(&format!("the pack in {} has problems", path.display()), None)),
        Some(pack) => {
            if let Some(field) = json.pointer_mut("/spec/source") {
                *field = serde_json::json!({ "inline": pack.raw() });
            }
        }
    }
    let written = Written { name: file.name.clone(), text: text.clone() };
    (pack.map(|pack| (pack, written)), details)
}

/// Reads the prompts of a version that is to be compared with: a pack file, or a manifest with prompts.
///
/// # Errors
/// [`Told`] when the file has none.
pub(crate) fn load_pack(path: &Path) -> Result<Pack, Told> {
    let text = read_text(path)?;
    let source = Source { name: path.display().to_string(), text: &text };
    if is_pack(&text) {
        let (pack, details) = examine_pack(&source);
        return pack.ok_or_else(|| Told {
            message: format!("{} cannot be used as it stands", path.display()),
            details,
            hints: Vec::new(),
        });
    }
    let loaded = load(path)?;
    loaded.pack.ok_or_else(|| {
        Told::new(format!("{} holds no prompts", path.display()))
            .hint("name a pack file, or a manifest with `spec.source`")
    })
}
