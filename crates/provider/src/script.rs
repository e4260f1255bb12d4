//! What the stand-in answers to whom.

use std::num::{NonZeroU16, NonZeroU32};

use serde::Deserialize;

use crate::values::{FailureStatus, Fraction, Payload, Spread};

/// The rules by which a stand-in provider answers.
///
/// The first rule that matches a request answers it; the field `default` answers what no
/// rule matches. A behaviour stands for itself: what it leaves out has the
/// built-in default, not that of another behaviour.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The seed of every random choice.
    pub seed: u64,
    /// Whether a request without a key in `Authorization` or `x-api-key` is refused with 401.
    pub require_key: bool,
    /// The models that exist; empty accepts every name.
    pub models: Vec<String>,
    /// The rules, tried from the first to the last.
    pub rules: Vec<Rule>,
    /// The behaviour for requests that no rule matches.
    pub default: Behaviour,
}

/// One behaviour and the requests it is for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests the rule is for; without conditions, all of them.
    #[serde(default)]
    pub when: When,
    /// How they are answered.
    pub behaviour: Behaviour,
}

/// The conditions of a rule, all of which must hold; letter case matters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// Text that the system and developer messages contain.
    pub system_contains: Option<String>,
    /// Text that the user's last message contains.
    pub user_contains: Option<String>,
    /// The exact name of the model.
    pub model: Option<String>,
}

/// How a request is answered.
///
/// Fates are drawn in this order, and the first that happens is the answer: failure, drop,
/// refusal, empty, tool call, text. Rates are from 0 to 1 and default to 0.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Milliseconds until the first byte; default 0.
    pub latency_ms: Spread,
    /// Milliseconds between two chunks of a stream, up to 65 535; default 0.
    pub chunk_interval_ms: u16,
    /// Chunks of content that a stream has, never more than the answer has words; default 8.
    pub chunks: NonZeroU16,
    /// The answers, one of which is drawn; `{user}` stands for the user's last message.
    pub replies: Vec<String>,
    /// How often a request fails.
    pub failure_rate: Fraction,
    /// What a failure looks like.
    pub failure: Failure,
    /// How often the connection breaks.
    pub drop_rate: Fraction,
    /// When it breaks.
    pub drop: Moment,
    /// How often an answer calls tools; never the answer to a tool's result.
    pub tool_call_rate: Fraction,
    /// The calls such an answer makes, all of them, in this order.
    pub tool_calls: Vec<ToolCall>,
    /// How often the first of these calls is wrong: a tool that does not exist
    /// (`no_such_tool`), or arguments that no tool has, half the time each.
    pub wrong_tool_rate: Fraction,
    /// How often the model refuses.
    pub refusal_rate: Fraction,
    /// What a refusal looks like.
    pub refusal: Refusal,
    /// How often an answer has no text.
    pub empty_rate: Fraction,
    /// How often a text ends early, with the finish reason `length`.
    pub truncate_rate: Fraction,
    /// The number of output tokens that a text reports; without it, one for four bytes.
    pub output_tokens: Option<Spread>,
    /// The share of the prompt's tokens that is said to come from a cache.
    pub cached_share: Fraction,
    /// What is wrong with the bytes of a complete answer; default nothing.
    pub fault: Option<Fault>,
    /// The bytes of each piece that an answer goes out in, wherever characters and lines end; without it one
    /// piece for an event, and one for a whole answer.
    pub frame_bytes: Option<NonZeroU32>,
    /// How good a complete answer is, from 0 to 1, as told in `x-stand-in-quality`; a
    /// truncated text is half as good, while a refusal, an empty answer and a wrong tool
    /// call are worth 0. Default 1.
    pub quality: Fraction,
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour {
            latency_ms: Spread::ZERO,
            chunk_interval_ms: 0,
            chunks: NonZeroU16::new(8).expect("eight is not zero"),
            replies: vec![
                "This is a scripted answer of the stand-in provider. It stays the same \
                 whatever the question is."
                    .to_owned(),
            ],
            failure_rate: Fraction::ZERO,
            failure: Failure::default(),
            drop_rate: Fraction::ZERO,
            drop: Moment::Middle,
            tool_call_rate: Fraction::ZERO,
            tool_calls: Vec::new(),
            wrong_tool_rate: Fraction::ZERO,
            refusal_rate: Fraction::ZERO,
            refusal: Refusal::Message,
            empty_rate: Fraction::ZERO,
            truncate_rate: Fraction::ZERO,
            output_tokens: None,
            cached_share: Fraction::ZERO,
            fault: None,
            frame_bytes: None,
            quality: Fraction::ONE,
        }
    }
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Failure {
    /// The HTTP status; default 500.
    pub status: FailureStatus,
    /// The body instead of the provider's usual error JSON for the status.
    pub body: Option<Payload>,
    /// Seconds for the `retry-after` header; a 429 says 1 when this is left out.
    pub retry_after: Option<u32>,
    /// When it fails; in the middle means that a stream of status 200 breaks off with an
    /// error event, and makes no difference to an answer in one piece.
    pub at: Moment,
}

impl Default for Failure {
    fn default() -> Failure {
        Failure { status: FailureStatus::SERVER_ERROR, body: None, retry_after: None, at: Moment::Before }
    }
}

/// The point of an answer at which something happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Before its first byte.
    Before,
    /// After about half of it.
    Middle,
}

/// What is wrong with the bytes of an answer whose status is 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Half of it comes, then nothing more, and the connection stays open.
    Hang,
    /// Bytes come that are neither JSON nor text.
    Garbage,
    /// Half of it comes, cut inside of its JSON, as if that were all.
    HalfJson,
}

/// What a refusal looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The message has a `refusal` in place of content.
    Message,
    /// The answer has no content and the finish reason `content_filter`.
    ContentFilter,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments; a string goes out as it stands, valid JSON or not. Default `{}`.
    #[serde(default)]
    pub arguments: Payload,
}

/// A script that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not read the provider script: {message}")]
pub struct ScriptError {
    /// The line of the mistake, from 1; 0 when unknown.
    pub line: u64,
    /// The column of the mistake, from 1; 0 when unknown.
    pub column: u64,
    /// What is wrong, with the place.
    pub message: String,
}

impl Script {
    /// Reads a script written as YAML or JSON.
    pub fn parse(text: &str) -> Result<Script, ScriptError> {
        serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location();
            ScriptError {
                line: place.map_or(0, |place| place.line()),
                column: place.map_or(0, |place| place.column()),
                message: error.without_snippet().to_string(),
            }
        })
    }

    /// Returns the behaviour that answers a request.
    pub(crate) fn behaviour_for(&self, system: &str, user: &str, model: &str) -> &Behaviour {
        self.rules
            .iter()
            .find(|rule| rule.when.holds(system, user, model))
            .map_or(&self.default, |rule| &rule.behaviour)
    }
}

impl When {
    fn holds(&self, system: &str, user: &str, model: &str) -> bool {
        let contains =
            |text: &str, part: &Option<String>| part.as_deref().is_none_or(|part| text.contains(part));
        contains(system, &self.system_contains)
            && contains(user, &self.user_contains)
            && self.model.as_deref().is_none_or(|name| name == model)
    }
}

impl Behaviour {
    /// Reads one behaviour written as JSON, as in the `x-stand-in-script` header.
    pub fn parse_json(text: &str) -> Result<Behaviour, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks where a bad script is said to be wrong, and with which words.
    fn check_error(script: &str, line: u64, column: u64, words: &str) {
        let error = Script::parse(script).expect_err("the script is wrong");
        assert_eq!((error.line, error.column), (line, column), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn a_bad_script_is_refused_with_line_and_column() {
        check_error("seed: 7\nrulez: []\n", 2, 1, "unknown field");
        check_error("rules:\n  - when: {system: x}\n    behaviour: {}\n", 2, 12, "unknown field");
        check_error("default:\n  failure_rate: 1.5\n", 2, 17, "1.5 is not a fraction");
        check_error("default:\n  failure: {status: 200}\n", 2, 21, "200 is not an HTTP error status");
        check_error("default:\n  drop: sometimes\n", 2, 9, "sometimes");
        check_error("default:\n  chunks: 0\n", 2, 3, "zero");
        check_error("default: {replies: [a}\n", 1, 20, "mismatched bracket");
    }

    #[test]
    fn a_spread_is_fixed_or_has_median_and_p99() {
        for (latency, words) in [
            ("{fixed: 1, p99: 2}", "excludes"),
            ("{median: 5}", "belong together"),
            ("{}", "belong together"),
            ("{median: 5, p99: 4}", "no distribution"),
            ("{fixed: -1}", "out of range"),
            ("{fixed: .inf}", "out of range"),
        ] {
            let script = format!("default:\n  latency_ms: {latency}\n");
            let error = Script::parse(&script).expect_err("the spread is wrong");
            assert!(error.to_string().contains(words), "{latency}: {error}");
            assert_eq!(error.line, 2, "{latency}: {error}");
        }
    }

    #[test]
    fn json_is_read_as_well_as_yaml() {
        let yaml = "seed: 7\ndefault:\n  failure_rate: 1\n  latency_ms: {median: 4, p99: 9}\n";
        let json = r#"{"seed": 7, "default": {"failure_rate": 1, "latency_ms": {"median": 4, "p99": 9}}}"#;
        assert_eq!(Script::parse(yaml), Script::parse(json));
        assert!(Script::parse(json).is_ok());
    }

    #[test]
    fn the_first_matching_rule_wins_and_all_its_conditions_must_hold() {
        let script = Script::parse(
            "rules:
  - when: {system_contains: support, user_contains: refund}
    behaviour: {replies: [both]}
  - when: {system_contains: support}
    behaviour: {replies: [support]}
  - when: {model: small}
    behaviour: {replies: [small]}
default: {replies: [default]}
",
        )
        .expect("a valid script");
        for (system, user, model, reply) in [
            ("a support agent", "a refund please", "small", "both"),
            ("a support agent", "hello", "small", "support"),
            ("an agent", "a refund please", "small", "small"),
            ("an agent", "a refund please", "smaller", "default"),
        ] {
            let behaviour = script.behaviour_for(system, user, model);
            assert_eq!(behaviour.replies, [reply]);
        }
    }

    #[test]
    fn arguments_are_a_json_value_or_raw_text() {
        let behaviour = Behaviour::parse_json(
            r#"{"tool_calls": [{"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": "{\"x\":"}]}"#,
        )
        .expect("a valid behaviour");
        assert_eq!(behaviour.tool_calls[0].arguments.as_str(), r#"{"x":1}"#);
        assert_eq!(behaviour.tool_calls[1].arguments.as_str(), r#"{"x":"#);
    }

    #[test]
    fn the_example_script_is_valid_and_ranks_its_three_prompts() {
        let script = Script::parse(include_str!("../../../examples/provider-script.yaml"))
            .expect("the example is valid");
        assert_eq!(script.rules.len(), 3);
        let [improved, slow, good] = [0, 1, 2].map(|n| &script.rules[n].behaviour);
        assert!(improved.quality > good.quality && good.quality > slow.quality);
        assert!(slow.failure_rate > good.failure_rate);
    }
}
