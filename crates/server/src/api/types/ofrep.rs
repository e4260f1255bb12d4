//! OpenFeature Remote Evaluation: flags whose value is a version of a pack.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::Variant;

/// Asks for flags.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct OfrepRequest {
    /// `targetingKey` is the session. Everything else is an attribute of it; `variables` fills in the prompt.
    #[schema(value_type = Object)]
    pub context: serde_json::Map<String, serde_json::Value>,
}

/// One flag with its value.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct OfrepFlag<'a> {
    /// `pack`, or `pack.prompt`.
    pub key: Cow<'a, str>,
    /// The version, its side of the comparison, and of a prompt its parameters.
    #[schema(value_type = Object)]
    pub value: OfrepValue<'a>,
    /// Why.
    pub reason: OfrepReason,
    /// The version.
    pub variant: &'a str,
    /// Text, numbers, yes and no only.
    #[schema(value_type = Object)]
    pub metadata: OfrepMetadata<'a>,
}

/// The value of a flag; its names are in the order of the alphabet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OfrepValue<'a> {
    /// The model that the prompt is made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a str>,
    /// The pack.
    pub pack: &'a str,
    /// Parameters of the prompt, such as `temperature`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<&'a serde_json::Map<String, serde_json::Value>>,
    /// The prompt, of the flag of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<&'a str>,
    /// The prompts of the version, of the flag of a pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Vec<&'a str>>,
    /// The prompt with its variables filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The side of the comparison.
    pub variant: Variant,
    /// The version.
    pub version: &'a str,
}

/// What is said about a flag besides its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfrepMetadata<'a> {
    /// `withheld` where the text of the prompt was asked for and is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_text: Option<&'static str>,
    /// The rollout that the session belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<&'a str>,
    /// The side of the comparison.
    pub variant: Variant,
}

/// Why a flag has its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OfrepReason {
    /// There is no rollout, or the session began before it.
    Static,
    /// The session belongs to a segment with a weight of its own.
    TargetingMatch,
    /// The bucket of the session decided.
    Split,
    /// Everything is forced to stable.
    Disabled,
}

/// Why a flag, or all of them, could not be evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfrepFailure {
    /// The flag as it was asked for; absent when all of them fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is wrong.
    pub error_code: OfrepErrorCode,
    /// What is wrong, in words.
    pub error_details: String,
}

/// What is wrong, in the words of OpenFeature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OfrepErrorCode {
    /// The body is no JSON object.
    ParseError,
    /// The context names no session.
    TargetingKeyMissing,
    /// The context cannot be used.
    InvalidContext,
    /// There is no such pack or prompt.
    FlagNotFound,
    /// Anything else.
    General,
}

/// All flags.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfrepBulk<'a> {
    /// Each pack, and each prompt of the version that the session gets.
    pub flags: Vec<OfrepFlag<'a>>,
    /// Nothing so far.
    #[schema(value_type = Object)]
    pub metadata: BTreeMap<&'static str, serde_json::Value>,
    /// Where changes are told.
    pub event_streams: Vec<OfrepEventStream>,
}

/// Where changes are told.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfrepEventStream {
    /// `sse`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// On the server that answered.
    pub endpoint: OfrepEndpoint,
    /// Seconds after which a client in the background should leave.
    pub inactivity_delay_sec: u32,
}

/// A path on the server that answered.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfrepEndpoint {
    /// The path and query.
    pub request_uri: String,
}

/// Says that flags may have other values now.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfrepChange {
    /// `refetchEvaluation`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Stands for how all packs are routed.
    pub etag: String,
    /// When, in seconds since 1970.
    pub last_modified: i64,
}
