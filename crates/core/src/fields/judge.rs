//! The fields of a judge.

use super::Presence::{Default, Optional, Required};
use super::Shape::{Count, Name, Number, Text, Weight};
use super::table::field;
use super::{LONGEST_MODEL, LONGEST_RUBRIC, MOST_JUDGEMENTS, Mapping};

/// `spec.rollout.analysis.outcomes[].judge`.
pub static JUDGE: Mapping = Mapping {
    path: "spec.rollout.analysis.outcomes[].judge",
    about: "Who judges sessions by a rubric: an LLM behind any API like OpenAI's Chat Completions.",
    fields: &[
        field(
            "model",
            Text { longest: LONGEST_MODEL },
            Required,
            "gpt-5-mini",
            "The model that judges; not the one that is judged, where that can be helped.",
        ),
        field(
            "rubric",
            Text { longest: LONGEST_RUBRIC },
            Required,
            "Pass if the answer solves what the user asked for.",
            "What is good and what is bad. The judge sees it and what was said, redacted; never the version, the variant, the prompt or the model.",
        ),
        field(
            "provider",
            Name { pattern: "^[a-z][a-z0-9-]{0,62}$", words: "1 to 63 of `a-z`, `0-9`, `-`, a letter first" },
            Optional("the default provider of the server"),
            "openai",
            "A provider of the settings of the server, asked with the key that it has there. One that is not there is refused.",
        ),
        field(
            "sampleRate",
            Weight,
            Default("100%"),
            "20%",
            "The share of the sessions that is judged, by a hash of the session, so that both variants are judged alike. Only recorded sessions can be: `samples.rate` in the settings is at least as high.",
        ),
        field(
            "maxPerHour",
            Count { least: 1, most: MOST_JUDGEMENTS },
            Default("200"),
            "1000",
            "Requests to the judge in an hour. Sessions beyond it are not judged, and counted.",
        ),
        field(
            "maxCostPerHour",
            Number,
            Optional("no limit besides `maxPerHour`"),
            "1.5",
            "US dollars for the judge in an hour, above 0, by the prices in the settings. Without a price for the model it is not asked.",
        ),
    ],
    rules: &[],
};
