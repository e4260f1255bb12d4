//! From a manifest as written to a [`Plan`], collecting every problem on the way.
//!
//! The document is read into a tree ([`crate::manifest`]) and walked once. Each part of the walk
//! reads what it can and notes what it cannot, so that one run reports all problems.

mod analysis;
mod conduct;
mod judge;
mod policy;
mod problem;
mod ramp;
mod rollout;
mod schedule;
mod segments;
#[cfg(test)]
mod tests;
mod walk;

pub use policy::policy;
pub use problem::{Problem, Problems, Severity};
pub(crate) use segments::everyone;

use self::walk::{Field, Fields, Spot, Walk};
use crate::fields::{self, LONGEST_TEXT};
use crate::ids::{PackName, Version};
use crate::manifest::{At, Node, Unreadable};
use crate::plan::{People, Plan};
use crate::policy::Imposed;

/// The `apiVersion` of every manifest.
pub const API_VERSION: &str = "omnia.altairalabs.ai/v1alpha1";

/// The `kind` of every manifest.
pub const KIND: &str = "PromptPack";

/// A manifest that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What the manifest means.
    pub plan: Plan,
    /// Where the prompts come from; without it the pack is version only.
    pub source: Option<PackSource>,
    /// What deserves a look.
    pub warnings: Vec<Problem>,
}

/// Where the prompts of a version come from.
#[derive(Debug, Clone, PartialEq)]
pub enum PackSource {
    /// A PromptPack JSON file, by its path beside the manifest.
    File(String),
    /// The PromptPack itself.
    Inline(serde_json::Value),
}

/// Parses a manifest in YAML or JSON.
///
/// # Errors
/// [`Problems`] holds everything that is wrong with it, each problem with its place.
pub fn parse(text: &str) -> Result<Parsed, Problems> {
    let lines: Vec<&str> = text.lines().collect();
    let quoting =
        |problems: Vec<Problem>| problems.into_iter().map(|p| p.quoting(&lines)).collect::<Vec<_>>();
    let root = Node::read(text).map_err(|unreadable| Problems::new(quoting(vec![as_problem(unreadable)])))?;
    let mut walk = Walk::default();
    let parsed = manifest(&mut walk, &root);
    if !walk.errors.is_empty() {
        return Err(Problems::new(quoting(walk.errors)));
    }
    let (plan, source) = parsed.expect("whatever keeps a plan from being made is noted as an error");
    Ok(Parsed { plan, source, warnings: quoting(walk.warnings) })
}

/// Reads a manifest as plain JSON, without judging what it says.
///
/// # Errors
/// [`Problems`] when the text is no YAML, or breaks a limit.
pub fn to_json(text: &str) -> Result<serde_json::Value, Problems> {
    match Node::read(text) {
        Ok(root) => Ok(root.to_json()),
        Err(unreadable) => {
            let lines: Vec<&str> = text.lines().collect();
            Err(Problems::new(vec![as_problem(unreadable).quoting(&lines)]))
        }
    }
}

fn as_problem(unreadable: Unreadable) -> Problem {
    let problem = Problem::new(Severity::Error, "", unreadable.at, &unreadable.message);
    match unreadable.hint {
        Some(hint) => problem.with_hint(&hint),
        None => problem,
    }
}

fn manifest(walk: &mut Walk, root: &Node) -> Option<(Plan, Option<PackSource>)> {
    let start = At { line: 1, column: 1 };
    let whole = Field { spot: Spot { path: String::new(), at: start }, key_at: start, node: root };
    let fields = walk.fields(&whole, &fields::MANIFEST)?;
    if let Some(field) = walk.require(&fields, "apiVersion", API_VERSION) {
        walk.choice(&field, &[(API_VERSION, ())]);
    }
    if let Some(field) = walk.require(&fields, "kind", KIND) {
        walk.choice(&field, &[(KIND, ())]);
    }
    let identity =
        walk.require(&fields, "metadata", "{name: my-pack}").and_then(|field| metadata(walk, &field));
    let spec = walk.require(&fields, "spec", "{version: \"1.0.0\"}")?;
    let spec = walk.fields(&spec, &fields::SPEC)?;
    let version =
        walk.require(&spec, "version", "\"1.0.0\"").and_then(|field| walk.read(&field, Version::parse));
    let source = spec.get("source").and_then(|field| source(walk, &field));
    let rollout = match spec.get("rollout") {
        Some(field) => walk.fields(&field, &fields::ROLLOUT),
        None => None,
    };
    let rollout =
        rollout.unwrap_or_else(|| Fields::none(Spot { path: spec.path_of("rollout"), at: spec.spot.at }));
    let rollout = rollout::rollout(walk, &rollout);

    let (pack, people) = identity?;
    let plan = Plan {
        pack,
        version: version?,
        people,
        strategy: rollout.strategy,
        steps: rollout.steps,
        segments: rollout.segments,
        schedule: rollout.schedule,
        analysis: rollout.analysis,
        progress: rollout.progress,
        sessions: rollout.sessions,
        on_revert: rollout.on_revert,
        holdback: rollout.holdback,
        watch: rollout.watch,
        imposed: Imposed::default(),
    };
    Some((plan, source))
}

fn metadata(walk: &mut Walk, field: &Field<'_>) -> Option<(PackName, People)> {
    let fields = walk.fields(field, &fields::METADATA)?;
    let mut contact = |name: &str| fields.get(name).and_then(|field| walk.text(&field, LONGEST_TEXT));
    let (owner, escalation) = (contact("owner"), contact("escalation"));
    let labels = fields.get("labels").map(|field| walk.labels(&field)).unwrap_or_default();
    let name = walk.require(&fields, "name", "my-pack")?;
    let name = walk.read(&name, PackName::parse)?;
    Some((name, People { labels, owner, escalation }))
}

fn source(walk: &mut Walk, field: &Field<'_>) -> Option<PackSource> {
    let fields = walk.fields(field, &fields::SOURCE)?;
    match (fields.get("file"), fields.get("inline")) {
        (Some(file), None) => walk.text(&file, LONGEST_TEXT).map(PackSource::File),
        (None, Some(inline)) => match &inline.node.value {
            crate::manifest::Value::Map(_) => Some(PackSource::Inline(inline.node.to_json())),
            crate::manifest::Value::Null
            | crate::manifest::Value::Scalar(_)
            | crate::manifest::Value::List(_) => {
                let found = inline.node.describe();
                walk.error_with_hint(
                    &inline.spot,
                    format!("expected a PromptPack, found {found}"),
                    "a path goes into `file`",
                );
                None
            }
        },
        (Some(_), Some(inline)) => {
            walk.error(&inline.key(), "`inline` and `file` exclude each other");
            None
        }
        (None, None) => {
            walk.error_with_hint(
                &field.key(),
                "neither `file` nor `inline` is given",
                "without a `source` the pack is version only",
            );
            None
        }
    }
}
