//! Every field of a manifest, told once: what the parser knows, what `docs/manifest.md` says, what editors check.
//!
//! The parser takes the names of fields from here, so that a field which is not in the table is unknown to it.
//! What is checked across fields is told by [`Rule`]; what only the parser checks (such as windows that overlap)
//! stands in the `rule` of its field.

mod judge;
mod policy;
mod reference;
mod schema;
mod table;

use crate::units::HoldFor;

pub use judge::JUDGE;
pub(crate) use policy::{APPROVALS, FREEZE, MOST_APPROVALS, MOST_RULES, PROMOTERS, REQUIRED_GATE, RULE};
pub use reference::reference;
pub use schema::schema;
pub use table::{
    ANALYSIS, GATE, MANIFEST, METADATA, OUTCOME, PROGRESS, ROLLOUT, SEGMENT, SESSIONS, SOURCE, SPEC, STEP,
    WATCH, WINDOW,
};

/// The longest time for which a version is watched.
pub(crate) const LONGEST_WATCH: HoldFor = HoldFor::from_hours(7 * 24);

/// The most steps of a rollout.
pub(crate) const MOST_STEPS: usize = 500;

/// The most windows of a schedule.
pub(crate) const MOST_WINDOWS: usize = 24;

/// The most segments of a rollout.
pub(crate) const MOST_SEGMENTS: usize = 32;

/// The most gates of a rollout.
pub(crate) const MOST_GATES: usize = 32;

/// The most outcomes that a manifest declares.
pub(crate) const MOST_OUTCOMES: usize = 32;

/// The longest free text, such as an owner, in bytes.
pub(crate) const LONGEST_TEXT: usize = 1_024;

/// The longest name of a provider, in bytes.
pub(crate) const LONGEST_PROVIDER: usize = 63;

/// The longest query of an outside provider, in bytes.
pub(crate) const LONGEST_QUERY: usize = 4_096;

/// The longest rubric of a judge, in bytes.
pub(crate) const LONGEST_RUBRIC: usize = 8_192;

/// The longest name of a model, in bytes.
pub(crate) const LONGEST_MODEL: usize = 200;

/// The most requests to a judge in an hour that a manifest can ask for.
pub(crate) const MOST_JUDGEMENTS: u64 = 100_000;

/// The most failed checks in a row that a manifest can ask for.
pub(crate) const MOST_FAILURES: u64 = 1_000;

/// The most sessions that a gate can ask for.
pub(crate) const MOST_SAMPLES: u64 = 1_000_000_000;

/// A mapping whose fields are all known.
#[derive(Debug)]
pub struct Mapping {
    /// Where it stands, such as `spec.rollout.steps[]`; empty for the document itself.
    pub path: &'static str,
    /// What it is, in one sentence with a full stop.
    pub about: &'static str,
    /// Its fields, in the order in which people write them.
    pub fields: &'static [Field],
    /// What holds between its fields.
    pub rules: &'static [Rule],
}

/// One field of a mapping.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What may stand there.
    pub shape: Shape,
    /// What holds when it is left out.
    pub presence: Presence,
    /// A value as it may be written, in YAML on one line.
    pub example: &'static str,
    /// The rule that it follows, in sentences with full stops.
    pub rule: &'static str,
}

/// What may stand in a field.
#[derive(Debug)]
pub enum Shape {
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Truth,
    /// Free text of 1 to `longest` bytes.
    Text {
        /// Bytes at most.
        longest: usize,
    },
    /// A name of a certain form.
    Name {
        /// The form, as a regular expression over the whole name.
        pattern: &'static str,
        /// The same in words.
        words: &'static str,
    },
    /// The name of a metric of the catalogue, or of an outcome.
    Metric,
    /// A semantic version.
    Version,
    /// A share of sessions.
    Weight,
    /// A share of sessions, or `progressive`.
    SegmentWeight,
    /// A length of time.
    Duration {
        /// Whether `0s` is one.
        zero: bool,
    },
    /// A whole number in a range.
    Count {
        /// At least.
        least: u64,
        /// At most.
        most: u64,
    },
    /// A share such as `95%` or `0.95`; its rule says in which range.
    Share,
    /// Any number.
    Number,
    /// A value of a metric in its unit.
    Threshold,
    /// How much worse than stable: `2%`, `2pp`, `200ms`, `0.2`.
    Regression,
    /// A part of the day: `HH:MM-HH:MM ZONE`.
    Window,
    /// A mapping from free names to texts.
    Labels,
    /// A PromptPack.
    Pack,
    /// A length of time, or a mapping that holds more.
    DurationOr(&'static Mapping),
    /// A mapping of known fields.
    Mapping(&'static Mapping),
    /// A list of mappings.
    List {
        /// What each item is.
        of: &'static Mapping,
        /// Items at most.
        most: usize,
        /// A field and its value that exactly one item has.
        one_with: Option<(&'static str, &'static str)>,
    },
}

/// What holds when a field is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It cannot be left out.
    Required,
    /// Writing this value means the same.
    Default(&'static str),
    /// What then holds, in words.
    Optional(&'static str),
}

/// What holds between the fields of a mapping.
#[derive(Debug)]
pub enum Rule {
    /// Exactly one of these is given.
    ExactlyOne(&'static [&'static str]),
    /// The first excludes each of the others.
    Excludes(&'static str, &'static [&'static str]),
    /// The first is given only together with the second.
    Needs(&'static str, &'static str),
    /// Where a field has a value.
    Where {
        /// The field.
        field: &'static str,
        /// Its value.
        is: &'static str,
        /// What must then be given.
        needs: &'static [&'static str],
        /// What must then be absent.
        without: &'static [&'static str],
    },
    /// Where a field has any other value.
    WhereNot {
        /// The field.
        field: &'static str,
        /// The value that it has not.
        is: &'static str,
        /// What must then be given.
        needs: &'static [&'static str],
    },
}

impl Mapping {
    /// The names of its fields.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().map(|field| field.name)
    }

    /// This mapping and every one below it, in the order in which they are written.
    pub fn all(&'static self) -> Vec<&'static Self> {
        let below = self.fields.iter().filter_map(|field| match &field.shape {
            Shape::Mapping(mapping) | Shape::DurationOr(mapping) | Shape::List { of: mapping, .. } => {
                Some(*mapping)
            }
            Shape::Choice(_)
            | Shape::Truth
            | Shape::Text { .. }
            | Shape::Name { .. }
            | Shape::Metric
            | Shape::Version
            | Shape::Weight
            | Shape::SegmentWeight
            | Shape::Duration { .. }
            | Shape::Count { .. }
            | Shape::Share
            | Shape::Number
            | Shape::Threshold
            | Shape::Regression
            | Shape::Window
            | Shape::Labels
            | Shape::Pack => None,
        });
        std::iter::once(self).chain(below.flat_map(Self::all)).collect()
    }
}
