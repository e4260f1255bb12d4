//! The fields of a policy: they stand in the settings, and no manifest has them.

use super::Mapping;
use super::Presence::{Default, Optional, Required};
use super::Shape::{self, Count, Labels, List, Metric, Regression, Text, Threshold, Weight};
use super::table::field;
use super::{LONGEST_TEXT, MOST_GATES, MOST_WINDOWS};

/// The most rules of a policy.
pub(crate) const MOST_RULES: usize = 100;

/// The most approvals that a rule can ask for.
pub(crate) const MOST_APPROVALS: u64 = 10;

/// One rule.
pub(crate) static RULE: Mapping = Mapping {
    path: "policy[]",
    about: "One rule, and which packs it is for.",
    fields: &[
        field("name", Text { longest: 63 }, Required, "careful-start", "Its name, unique in the policy."),
        field(
            "packs",
            Text { longest: LONGEST_TEXT },
            Optional("all packs"),
            "[\"support-*\"]",
            "Patterns of names.",
        ),
        field(
            "labels",
            Labels,
            Optional("any labels"),
            "{tier: critical}",
            "Labels that the pack must have, all of them.",
        ),
        field(
            "maxFirstWeight",
            Weight,
            Optional("any"),
            "5%",
            "The most that the first weight of a segment may be.",
        ),
        field(
            "exceptSegments",
            Text { longest: LONGEST_TEXT },
            Optional("none"),
            "[staff]",
            "Segments that `maxFirstWeight` does not bound.",
        ),
        field(
            "requiredGates",
            List { of: &REQUIRED_GATE, most: MOST_GATES, one_with: None },
            Optional("none"),
            "[success_rate]",
            "Gates that every manifest must have.",
        ),
        field(
            "approvals",
            Shape::Mapping(&APPROVALS),
            Optional("none"),
            "{count: 2, before: 50%}",
            "Who lets a rollout go on.",
        ),
        field(
            "promoteFully",
            Shape::Mapping(&PROMOTERS),
            Optional("every promoter"),
            "{roles: [admin]}",
            "Who may make a version stable for everyone at once.",
        ),
        field(
            "freeze",
            List { of: &FREEZE, most: MOST_WINDOWS, one_with: None },
            Optional("never"),
            "[\"18:00-08:00 Europe/Berlin\"]",
            "Times in which nothing advances.",
        ),
    ],
    rules: &[],
};

/// A part of the day in which nothing advances, on some days.
pub(crate) static FREEZE: Mapping = Mapping {
    path: "policy[].freeze[]",
    about: "A part of the day in which nothing advances, on some days.",
    fields: &[
        field("window", Shape::Window, Required, "\"18:00-08:00 Europe/Berlin\"", "The part of the day."),
        field(
            "days",
            Text { longest: 3 },
            Optional("every day"),
            "[sat, sun]",
            "Days of the week on which it opens.",
        ),
        field(
            "from",
            Text { longest: 10 },
            Optional("always"),
            "2026-12-20",
            "The first day on which it opens.",
        ),
        field(
            "until",
            Text { longest: 10 },
            Optional("for ever"),
            "2027-01-03",
            "The last day on which it opens.",
        ),
    ],
    rules: &[],
};

/// Approvals of a rule.
pub(crate) static APPROVALS: Mapping = Mapping {
    path: "policy[].approvals",
    about: "Approvals by others than whoever applied the version.",
    fields: &[
        field("count", Count { least: 1, most: MOST_APPROVALS }, Default("1"), "2", "Different people."),
        field(
            "before",
            Weight,
            Optional("the steps that the manifest marks"),
            "50%",
            "A weight that waits for them.",
        ),
    ],
    rules: &[],
};

/// Who may promote fully.
pub(crate) static PROMOTERS: Mapping = Mapping {
    path: "policy[].promoteFully",
    about: "Who may make a version stable for everyone at once.",
    fields: &[
        field("roles", Text { longest: LONGEST_TEXT }, Optional("none"), "[admin]", "Roles."),
        field(
            "keys",
            Text { longest: LONGEST_TEXT },
            Optional("none"),
            "[release-manager]",
            "Names of keys.",
        ),
    ],
    rules: &[],
};

/// A gate that every manifest must have.
pub(crate) static REQUIRED_GATE: Mapping = Mapping {
    path: "policy[].requiredGates[]",
    about: "A gate that every manifest must have, and the least that it must require.",
    fields: &[
        field("name", Metric, Required, "success_rate", "The metric."),
        field("threshold", Threshold, Optional("any"), "90%", "The limit that is asked for at least."),
        field("comparison", Text { longest: 2 }, Optional("any"), "\">=\"", "On which side of it."),
        field("compareTo", Text { longest: 6 }, Optional("any"), "stable", "A comparison is asked for."),
        field("maxRegression", Regression, Optional("any"), "2pp", "How much worse than stable at most."),
    ],
    rules: &[],
};
