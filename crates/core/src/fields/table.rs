//! The table itself.

use super::Presence::{Default, Optional, Required};
use super::Rule::{ExactlyOne, Excludes, Needs, Where, WhereNot};
use super::Shape::{
    Choice, Count, Duration, Labels, List, Metric, Name, Number, Pack, Regression, SegmentWeight, Share,
    Text, Threshold, Truth, Version, Weight,
};
use super::judge::JUDGE;
use super::{
    Field, LONGEST_PROVIDER, LONGEST_QUERY, LONGEST_TEXT, MOST_FAILURES, MOST_GATES, MOST_OUTCOMES,
    MOST_SAMPLES, MOST_SEGMENTS, MOST_STEPS, MOST_WINDOWS, Mapping, Presence, Shape,
};
use crate::parse::{API_VERSION, KIND};
use crate::segment::LONGEST_EXPRESSION;

/// One row of the table.
pub(super) const fn field(
    name: &'static str,
    shape: Shape,
    presence: Presence,
    example: &'static str,
    rule: &'static str,
) -> Field {
    Field { name, shape, presence, example, rule }
}

/// A length of time that must not be nothing.
const TIME: Shape = Duration { zero: false };

/// A length of time that may be nothing.
const TIME_OR_NONE: Shape = Duration { zero: true };

/// The document.
pub static MANIFEST: Mapping = Mapping {
    path: "",
    about: "One version of a pack, and how it is shipped.",
    fields: &[
        field(
            "apiVersion",
            Choice(&[API_VERSION]),
            Required,
            API_VERSION,
            "The form of the manifest; there is one.",
        ),
        field("kind", Choice(&[KIND]), Required, KIND, "The kind of document; there is one."),
        field(
            "metadata",
            Shape::Mapping(&METADATA),
            Required,
            "{name: support}",
            "What the pack is called and who answers for it.",
        ),
        field(
            "spec",
            Shape::Mapping(&SPEC),
            Required,
            "{version: \"1.0.0\"}",
            "The version, its prompts, and its rollout.",
        ),
    ],
    rules: &[],
};

/// `metadata`.
pub static METADATA: Mapping = Mapping {
    path: "metadata",
    about: "What the pack is called and who answers for it.",
    fields: &[
        field(
            "name",
            Name { pattern: "^[a-z][a-z0-9-]{0,62}$", words: "1 to 63 of `a-z`, `0-9`, `-`, a letter first" },
            Required,
            "support",
            "The name of the pack, which apps ask for. All versions of a pack share it.",
        ),
        field(
            "labels",
            Labels,
            Optional("no labels"),
            "{team: payments}",
            "Free names and texts, for your own order.",
        ),
        field(
            "owner",
            Text { longest: LONGEST_TEXT },
            Optional("nobody is named"),
            "support-team",
            "Who owns the pack; shown to on-call and in alerts.",
        ),
        field(
            "escalation",
            Text { longest: LONGEST_TEXT },
            Optional("nobody is named"),
            "\"#support-oncall\"",
            "Whom on-call reaches when the pack needs a person; shown beside the owner.",
        ),
    ],
    rules: &[],
};

/// `spec`.
pub static SPEC: Mapping = Mapping {
    path: "spec",
    about: "The version, its prompts, and its rollout.",
    fields: &[
        field(
            "version",
            Version,
            Required,
            "\"2.4.0\"",
            "A semantic version. Its content never changes once it is published: the same version with other prompts is refused.",
        ),
        field(
            "source",
            Shape::Mapping(&SOURCE),
            Optional(
                "the pack is version only: the app holds the prompts and asks which version a session gets",
            ),
            "{file: support-2.4.0.pack.json}",
            "Where the prompts are. Name and version in the pack must be those of the manifest.",
        ),
        field(
            "rollout",
            Shape::Mapping(&ROLLOUT),
            Optional("a canary with every default below"),
            "{stepInterval: 10m}",
            "How the version is shipped. It may differ from one rollout of a version to the next.",
        ),
    ],
    rules: &[],
};

/// `spec.source`.
pub static SOURCE: Mapping = Mapping {
    path: "spec.source",
    about: "Where the prompts of the version are.",
    fields: &[
        field(
            "file",
            Text { longest: LONGEST_TEXT },
            Optional("`inline` is given"),
            "support-2.4.0.pack.json",
            "A PromptPack (JSON), by its path relative to the manifest. The command line reads it and sends it along; the server takes no paths.",
        ),
        field(
            "inline",
            Pack,
            Optional("`file` is given"),
            "{id: support, name: Support, version: \"2.4.0\", template_engine: {version: v1, syntax: \"{{variable}}\"}, prompts: {}}",
            "The PromptPack itself.",
        ),
    ],
    rules: &[ExactlyOne(&["file", "inline"])],
};

/// `spec.rollout`.
pub static ROLLOUT: Mapping = Mapping {
    path: "spec.rollout",
    about: "How new sessions move to the version. The first version of a pack is stable at once, whatever stands here.",
    fields: &[
        field(
            "strategy",
            Choice(&["canary", "immediate"]),
            Default("canary"),
            "canary",
            "`canary`: a growing share beside stable. `immediate`: all sessions at once, without comparison; fields that shape a canary then only warn.",
        ),
        field(
            "canaryWeight",
            Weight,
            Default("10%"),
            "5%",
            "The share of new sessions that the rollout starts with; above 0%. Between the windows of a `schedule` it is the weight in force.",
        ),
        field(
            "stepWeight",
            Weight,
            Default("10%"),
            "5%",
            "What each step adds; from 50% on each adds twice as much. Above 0%.",
        ),
        field(
            "stepInterval",
            TIME,
            Default("5m"),
            "15m",
            "How long each step lasts at least. The first weight is held twice: while baselines are collected (Observing), and then as a step.",
        ),
        field(
            "steps",
            List { of: &STEP, most: MOST_STEPS, one_with: None },
            Optional("the steps follow from `canaryWeight`, `stepWeight` and `stepInterval`"),
            "[{weight: 5%, hold: 30m}, {weight: 50%, hold: 1h}, {weight: 100%, hold: 1h}]",
            "Every step with its weight and hold; the first one is Observing. Weights grow; a last step of 100% is added, with a warning, when the list ends below. A single step of 100% is refused: it would decide nothing.",
        ),
        field(
            "analysis",
            Shape::Mapping(&ANALYSIS),
            Optional("no gates, and every default below"),
            "{interval: 30s}",
            "What is measured and what it decides.",
        ),
        field(
            "segments",
            List { of: &SEGMENT, most: MOST_SEGMENTS, one_with: Some(("weight", "progressive")) },
            Optional("everyone is one segment"),
            "[{name: staff, weight: 100%, duration: 24h}, {name: all, weight: progressive}]",
            "Who gets it first: stages before the ramp, in this order. The last segment, and only that one, is `progressive` and catches everyone. Names are unique.",
        ),
        field(
            "schedule",
            List { of: &WINDOW, most: MOST_WINDOWS, one_with: None },
            Optional("the ramp alone sets the weight"),
            "[{window: \"22:00-06:00 Europe/Berlin\", canaryWeight: 30%}]",
            "Windows of the day, each with a weight. They replace the ramp below 50% for 24 hours that are not on hold; from 50% on each step starts inside a window of the highest weight. Windows must not overlap.",
        ),
        field(
            "progress",
            Shape::Mapping(&PROGRESS),
            Optional("every default below"),
            "{maxHold: 2h}",
            "When a step may end.",
        ),
        field(
            "sessions",
            Shape::Mapping(&SESSIONS),
            Optional("every default below"),
            "{idleTimeout: 1h}",
            "How long a session keeps its version.",
        ),
        field(
            "holdback",
            Weight,
            Default("0%"),
            "5%",
            "A share that stays on stable during the last step, so that a comparison stays possible. At most 50%; no other weight may be above what it leaves.",
        ),
        field(
            "onRevert",
            Choice(&["immediate", "canary"]),
            Default("immediate"),
            "canary",
            "What applying a version does that was stable before: back to it at once, or as a canary like any other.",
        ),
        field(
            "watch",
            Shape::DurationOr(&WATCH),
            Optional("the version is not watched"),
            "24h",
            "For how long the version goes on being judged after it has become stable, by the gates that have a threshold and decide by evidence; a comparison has nothing left to compare with.",
        ),
    ],
    rules: &[Excludes("steps", &["canaryWeight", "stepWeight", "stepInterval"])],
};

/// `spec.rollout.watch`.
pub static WATCH: Mapping = Mapping {
    path: "spec.rollout.watch",
    about: "How a version is judged after it has become stable.",
    fields: &[
        field("duration", TIME, Required, "24h", "For how long, at most 7d."),
        field(
            "onBreach",
            Choice(&["notify", "rollback"]),
            Default("notify"),
            "rollback",
            "What a gate does that is proven to be broken: people are told, or everyone is also brought back to the version before.",
        ),
    ],
    rules: &[],
};

/// `spec.rollout.steps[]`.
pub static STEP: Mapping = Mapping {
    path: "spec.rollout.steps[]",
    about: "One weight and how long it is held.",
    fields: &[
        field(
            "weight",
            Weight,
            Required,
            "10%",
            "The share of new sessions; above that of the step before, at most what `holdback` leaves.",
        ),
        field(
            "hold",
            TIME_OR_NONE,
            Required,
            "30m",
            "How long the step lasts at least; time on hold does not count.",
        ),
        field(
            "approval",
            Truth,
            Default("false"),
            "true",
            "Whether the step ends only after `serin approve`.",
        ),
    ],
    rules: &[],
};

/// `spec.rollout.segments[]`.
pub static SEGMENT: Mapping = Mapping {
    path: "spec.rollout.segments[]",
    about: "A named class of sessions. A session belongs to the first segment that matches.",
    fields: &[
        field(
            "name",
            Name { pattern: "^[A-Za-z0-9_-]{1,63}$", words: "1 to 63 letters, digits, `-` or `_`" },
            Required,
            "beta_users",
            "Its name, unique among the segments.",
        ),
        field(
            "weight",
            SegmentWeight,
            Required,
            "50%",
            "The weight that it holds from its stage on, or the ramp where that is higher. `progressive`, in the last segment: what the ramp says.",
        ),
        field(
            "duration",
            TIME,
            Optional("the segment is `progressive`"),
            "24h",
            "How long its stage lasts at least. Every segment but the last has one.",
        ),
        field(
            "match",
            Text { longest: LONGEST_EXPRESSION },
            Optional(
                "sessions whose `segment` attribute is the name of the segment; the last segment catches everyone",
            ),
            "attributes.email.endsWith(\"@acme.com\")",
            "A CEL expression over `attributes`, compiled when the manifest is read. An attribute that is missing or of another type is no match.",
        ),
    ],
    rules: &[
        Where { field: "weight", is: "progressive", needs: &[], without: &["duration", "match"] },
        WhereNot { field: "weight", is: "progressive", needs: &["duration"] },
    ],
};

/// `spec.rollout.schedule[]`.
pub static WINDOW: Mapping = Mapping {
    path: "spec.rollout.schedule[]",
    about: "A part of every day and its weight.",
    fields: &[
        field(
            "window",
            Shape::Window,
            Required,
            "\"02:00-06:00 UTC\"",
            "`HH:MM-HH:MM ZONE`, half open, by the wall clock of the zone (`UTC` or an IANA name), also across midnight and clock changes.",
        ),
        field(
            "canaryWeight",
            Weight,
            Required,
            "50%",
            "The share of new sessions while the window is open; `0%` pauses new canary sessions.",
        ),
    ],
    rules: &[],
};

/// `spec.rollout.analysis`.
pub static ANALYSIS: Mapping = Mapping {
    path: "spec.rollout.analysis",
    about: "What is measured and what it decides.",
    fields: &[
        field(
            "metrics",
            List { of: &GATE, most: MOST_GATES, one_with: None },
            Optional("no gates: the rollout advances by the clock, and only a Degraded metric holds it"),
            "[{name: success_rate, threshold: 90%, comparison: \">=\"}]",
            "The gates: metrics that hold the rollout and roll it back. A gate of the same metric, kind of rule and provider is listed once.",
        ),
        field(
            "failureThreshold",
            Count { least: 1, most: MOST_FAILURES },
            Default("1"),
            "2",
            "Failed checks in a row that roll back.",
        ),
        field("interval", TIME, Default("1m"), "30s", "Time between two checks of all gates."),
        field(
            "confidence",
            Share,
            Default("95%"),
            "99%",
            "1 minus the chance of ever rolling back a canary that is within its gates, over the whole rollout. 50% to 99.99%.",
        ),
        field(
            "initialDelay",
            TIME_OR_NONE,
            Optional("the length of the Observing step"),
            "0s",
            "Time after the start in which no check decides.",
        ),
        field(
            "onDegraded",
            Choice(&["hold", "rollback", "notify"]),
            Default("hold"),
            "notify",
            "What a metric of high or medium tier does that is no gate and proven worse than stable. `rollback` lets these metrics share the error budget of the gates.",
        ),
        field(
            "outcomes",
            List { of: &OUTCOME, most: MOST_OUTCOMES, one_with: None },
            Optional("only the metrics of the catalogue exist"),
            "[{name: order_placed, kind: rate, better: higher}]",
            "Outcomes of your own, which apps report as events and gates may name. A name of the catalogue is taken.",
        ),
    ],
    rules: &[],
};

/// `spec.rollout.analysis.metrics[]`.
pub static GATE: Mapping = Mapping {
    path: "spec.rollout.analysis.metrics[]",
    about: "A gate: a metric and what is required of the canary, as a limit or against stable.",
    fields: &[
        field(
            "name",
            Metric,
            Required,
            "success_rate",
            "A metric of the catalogue below, or an outcome. Other usual names are understood, with a note. With a `provider`, any name.",
        ),
        field(
            "threshold",
            Threshold,
            Optional("`compareTo` is given"),
            "90%",
            "The limit, in the unit of the metric: `90%` or `0.9`, `3000ms` or `3s`, `4.2`.",
        ),
        field(
            "comparison",
            Choice(&[">=", ">", "<=", "<"]),
            Optional("`compareTo` is given"),
            "\">=\"",
            "On which side of `threshold` the canary must be. The side that contradicts the metric is a warning.",
        ),
        field(
            "compareTo",
            Choice(&["stable"]),
            Optional("`threshold` is given"),
            "stable",
            "The canary against stable in the same steps, segments and weights. Not judged where nothing is left to compare with.",
        ),
        field(
            "maxRegression",
            Regression,
            Optional("`threshold` is given"),
            "2pp",
            "How much worse than stable is accepted; above 0. `2%` is relative to the value of stable, which is frozen when Observing ends; `2pp`, `200ms`, `0.2` are absolute.",
        ),
        field(
            "decision",
            Choice(&["evidence", "point"]),
            Default("evidence"),
            "point",
            "`evidence`: by e-values, honest however often one looks. `point`: by the estimate of the moment, outside the promise of `confidence`; lint warns. A `provider` other than `builtin` knows `point` only.",
        ),
        field(
            "minSamples",
            Count { least: 1, most: MOST_SAMPLES },
            Default("30"),
            "200",
            "Matured canary sessions of a step below which the gate reads `no data`, which never lets a step end.",
        ),
        field(
            "maturity",
            TIME_OR_NONE,
            Optional(
                "`1m` for metrics of requests; for outcomes three times the delay that they have on stable, and `idleTimeout` while that is unknown",
            ),
            "15m",
            "The age at which a session is judged, once and for all: requests that start later do not count, outcomes that come later are shown only.",
        ),
        field(
            "weight",
            Share,
            Default("1"),
            "2",
            "Its share of the error budget beside the other gates; any number above 0.",
        ),
        field(
            "provider",
            Text { longest: LONGEST_PROVIDER },
            Default("builtin"),
            "prometheus",
            "Where the numbers come from: `builtin`, or a name of `metricProviders` in the settings of the server.",
        ),
        field(
            "query",
            Text { longest: LONGEST_QUERY },
            Optional("`builtin` needs none; every other provider does"),
            r#"sum(rate(errors_total{version="{{version}}"}[5m]))"#,
            "What an outside provider is asked, once for each side that the gate needs. `{{pack}}`, `{{rollout}}`, `{{stable}}`, `{{canary}}`, `{{version}}` and `{{variant}}` are filled in, the last two with the side that is measured.",
        ),
    ],
    rules: &[
        ExactlyOne(&["threshold", "compareTo"]),
        Needs("threshold", "comparison"),
        Needs("comparison", "threshold"),
        Needs("compareTo", "maxRegression"),
        Needs("maxRegression", "compareTo"),
        Needs("query", "provider"),
        WhereNot { field: "provider", is: "builtin", needs: &["query"] },
    ],
};

/// `spec.rollout.analysis.outcomes[]`.
pub static OUTCOME: Mapping = Mapping {
    path: "spec.rollout.analysis.outcomes[]",
    about: "An outcome of your own: what an app reports about a session.",
    fields: &[
        field(
            "name",
            Name { pattern: "^[a-z][a-z0-9_]{0,62}$", words: "1 to 63 of `a-z`, `0-9`, `_`, a letter first" },
            Required,
            "order_placed",
            "The name of the event, and of the metric.",
        ),
        field(
            "kind",
            Choice(&["rate", "mean"]),
            Required,
            "rate",
            "`rate`: the share of sessions with a value of 1. `mean`: the average of the values.",
        ),
        field("better", Choice(&["higher", "lower"]), Required, "higher", "Which way is good."),
        field(
            "min",
            Number,
            Optional("values have no known range"),
            "1",
            "The smallest value of a mean; a bounded mean is proven sooner. Given together with `max`.",
        ),
        field(
            "max",
            Number,
            Optional("values have no known range"),
            "5",
            "The largest value of a mean, above `min`.",
        ),
        field(
            "tier",
            Choice(&["low", "medium", "high"]),
            Default("medium"),
            "high",
            "Its authority: a Degraded metric of high or medium tier holds the rollout, a low one only tells.",
        ),
        field(
            "judge",
            Shape::Mapping(&JUDGE),
            Optional("apps report the outcome"),
            "{model: gpt-5-mini, rubric: Pass if the answer solves what the user asked for.}",
            "An LLM that judges recorded sessions of both variants blindly, beside what apps report. A `rate` is pass or fail, and then the share of the sessions that have a verdict; a `mean` is a number from `min` to `max`, which it then needs.",
        ),
    ],
    rules: &[
        Needs("min", "max"),
        Needs("max", "min"),
        Where { field: "kind", is: "rate", needs: &[], without: &["min", "max"] },
    ],
};

/// `spec.rollout.progress`.
pub static PROGRESS: Mapping = Mapping {
    path: "spec.rollout.progress",
    about: "When a step may end, and what takes too long.",
    fields: &[
        field(
            "when",
            Choice(&["clock", "evidence"]),
            Default("clock"),
            "evidence",
            "`clock`: when its hold has passed, the last check passed, and it has its `minSamples`. `evidence`: besides, when every gate is proven to be no worse than `margin`.",
        ),
        field(
            "margin",
            Regression,
            Optional("`when` is `clock`"),
            "2%",
            "The margin of `when: evidence`: `2%` or `2pp`. Has no effect with `clock`.",
        ),
        field(
            "maxHold",
            TIME,
            Optional("no limit"),
            "4h",
            "How long a step waits, counted from its start, before it holds for a person.",
        ),
        field(
            "deadline",
            TIME,
            Optional("ten times the planned length"),
            "3d",
            "The age of the whole rollout at which it holds for a person; not below the planned length.",
        ),
    ],
    rules: &[Where { field: "when", is: "evidence", needs: &["margin"], without: &[] }],
};

/// `spec.rollout.sessions`.
pub static SESSIONS: Mapping = Mapping {
    path: "spec.rollout.sessions",
    about: "How long a session keeps its version, and what happens to it when that version is taken away.",
    fields: &[
        field(
            "idleTimeout",
            TIME,
            Default("30m"),
            "2h",
            "A session ends after this long without a request. Longer than `maxLifetime` is a warning.",
        ),
        field(
            "maxLifetime",
            TIME,
            Default("24h"),
            "7d",
            "A session ends this long after its first request; also how long an old version drains at most.",
        ),
        field(
            "onRollback",
            Choice(&["move", "drain"]),
            Default("move"),
            "drain",
            "Canary sessions after a rollback: `move` to stable with their next user turn, or `drain`: keep their version until they end.",
        ),
        field(
            "onPromote",
            Choice(&["move", "drain"]),
            Default("drain"),
            "move",
            "Stable sessions after the canary became stable: `drain` or `move`.",
        ),
    ],
    rules: &[],
};
