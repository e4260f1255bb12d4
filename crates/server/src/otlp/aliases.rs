//! The names under which instrumentations tell the same thing; the first one present counts.
//!
//! OpenTelemetry's conventions for generative AI are still under development, so the names that came before, and
//! those of other libraries, are read as well.

/// The session.
pub const SESSION: &[&str] = &[
    "gen_ai.conversation.id",
    "session.id",
    "langfuse.session.id",
    "traceloop.association.properties.session_id",
];
/// The prompt: `pack`, `pack/prompt` or `pack.prompt`.
pub const PROMPT: &[&str] =
    &["gen_ai.prompt.name", "langfuse.observation.prompt.name", "traceloop.prompt.key"];
/// The version of the prompt.
pub const VERSION: &[&str] = &[
    "gen_ai.prompt.version",
    "langfuse.observation.prompt.version",
    "traceloop.prompt.version",
    "llm.prompt_template.version",
];
/// What the span does.
pub const OPERATION: &[&str] =
    &["gen_ai.operation.name", "llm.request.type", "langfuse.observation.type", "openinference.span.kind"];
/// Operations that ask a model for an answer.
pub const MODEL_CALLS: &[&str] =
    &["chat", "text_completion", "generate_content", "completion", "generation", "LLM"];
/// The operation that runs a tool.
pub const TOOL_CALL: &[&str] = &["execute_tool", "tool", "TOOL"];
/// The name of a response that its provider gave it.
pub const RESPONSE_ID: &[&str] = &["gen_ai.response.id"];
/// Why the answer ended: one word, or one for each choice.
pub const FINISH_REASONS: &[&str] =
    &["gen_ai.response.finish_reasons", "gen_ai.completion.0.finish_reason", "llm.response.finish_reason"];
/// Tokens of the prompt.
pub const INPUT_TOKENS: &[&str] = &[
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.usage.prompt_tokens",
    "llm.token_count.prompt",
];
/// Tokens of the answer.
pub const OUTPUT_TOKENS: &[&str] = &[
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
];
/// Tokens of the prompt that the provider took from its cache.
pub const CACHED_TOKENS: &[&str] = &[
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "llm.usage.cache_read_input_tokens",
];
/// Price in US dollars.
pub const COST: &[&str] = &["gen_ai.usage.cost"];
/// Seconds until the first piece of the answer.
pub const TIME_TO_FIRST_CHUNK: &[&str] = &["gen_ai.response.time_to_first_chunk"];
/// Why it failed: a status, or the name of an error.
pub const ERROR: &[&str] = &["error.type"];
/// The host that was asked.
pub const SERVER: &[&str] = &["server.address", "net.peer.name"];
/// Its port.
pub const PORT: &[&str] = &["server.port", "net.peer.port"];
/// The name of an event in a record that has no field for it.
pub const EVENT_NAME: &[&str] = &["event.name"];

/// The event of an evaluation.
pub const EVALUATION_EVENTS: &[&str] = &["gen_ai.evaluation.result"];
/// What was evaluated.
pub const EVALUATION_NAME: &[&str] = &["gen_ai.evaluation.name"];
/// With which result.
pub const EVALUATION_VALUE: &[&str] = &["gen_ai.evaluation.score.value", "gen_ai.evaluation.score"];
/// With which result, in a word.
pub const EVALUATION_LABEL: &[&str] = &["gen_ai.evaluation.score.label", "gen_ai.evaluation.label"];
/// Words for a good result.
pub const GOOD_LABELS: &[&str] = &["pass", "passed", "true", "yes", "correct", "relevant", "positive"];
/// Words for a bad one.
pub const BAD_LABELS: &[&str] = &["fail", "failed", "false", "no", "incorrect", "irrelevant", "negative"];

/// The events of a flag that was evaluated.
pub const FLAG_EVENTS: &[&str] = &["feature_flag.evaluation", "feature_flag"];
/// The flag: `pack` or `pack.prompt`.
pub const FLAG_KEY: &[&str] = &["feature_flag.key"];
/// The session that it was evaluated for.
pub const FLAG_CONTEXT: &[&str] = &["feature_flag.context.id"];
/// The version that came of it.
pub const FLAG_VARIANT: &[&str] = &["feature_flag.result.variant", "feature_flag.variant"];
