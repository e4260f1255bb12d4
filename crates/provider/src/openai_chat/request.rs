//! What is read of a chat completion request; everything else is accepted and ignored.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use crate::answer::tokens;
use crate::error::{ApiError, Dialect};
use crate::script::Script;

/// A valid chat completion request.
pub(super) struct ChatRequest<'a> {
    pub(super) model: Cow<'a, str>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) output_tokens_max: Option<u32>,
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    n: Option<u32>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message<'a> {
    role: Role,
    #[serde(borrow, default)]
    content: Text<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

impl<'a> ChatRequest<'a> {
    /// Reads a request body.
    pub(super) fn parse(body: &'a [u8], script: &Script) -> Result<ChatRequest<'a>, ApiError> {
        let written: Written<'a> = serde_json::from_slice(body).map_err(|error| {
            let what = match error.classify() {
                Category::Syntax | Category::Eof | Category::Io => "could not parse the JSON body",
                Category::Data => "invalid value in the body",
            };
            ApiError::invalid_request(Dialect::OpenAi, &format!("{what}: {error}"), None, None)
        })?;
        let missing = |name: &'static str| {
            let message = format!("missing required parameter: '{name}'");
            ApiError::invalid_request(
                Dialect::OpenAi,
                &message,
                Some(name),
                Some("missing_required_parameter"),
            )
        };
        let model = written.model.ok_or_else(|| missing("model"))?.0;
        let messages = written.messages.ok_or_else(|| missing("messages"))?;
        if messages.is_empty() {
            let message = "invalid 'messages': empty array, expected at least one message";
            let error =
                ApiError::invalid_request(Dialect::OpenAi, message, Some("messages"), Some("empty_array"));
            return Err(error);
        }
        if written.n.is_some_and(|n| n != 1) {
            let message = "only one choice can be made; hint: leave out `n`";
            let error =
                ApiError::invalid_request(Dialect::OpenAi, message, Some("n"), Some("unsupported_value"));
            return Err(error);
        }
        if !script.models.is_empty() && !script.models.iter().any(|name| *name == model) {
            return Err(ApiError::unknown_model(Dialect::OpenAi, &model));
        }
        Ok(ChatRequest {
            model,
            stream: written.stream.unwrap_or(false),
            include_usage: written.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            output_tokens_max: written.max_completion_tokens.or(written.max_tokens),
            messages,
        })
    }

    /// Returns the system and developer messages, one per line.
    pub(super) fn system(&self) -> Cow<'_, str> {
        let mut texts = self
            .messages
            .iter()
            .filter(|message| matches!(message.role, Role::System | Role::Developer))
            .map(|message| &*message.content.0);
        let Some(first) = texts.next() else {
            return Cow::Borrowed("");
        };
        let mut all = Cow::Borrowed(first);
        for text in texts {
            let all = all.to_mut();
            all.push('\n');
            all.push_str(text);
        }
        all
    }

    /// Returns the last message of the user, or nothing.
    pub(super) fn last_user_message(&self) -> &str {
        self.messages
            .iter()
            .rfind(|message| message.role == Role::User)
            .map_or("", |message| &message.content.0)
    }

    /// Returns whether the last message is a tool's result.
    pub(super) fn answers_tool(&self) -> bool {
        let last = self.messages.last();
        last.is_some_and(|message| matches!(message.role, Role::Tool | Role::Function))
    }

    /// Estimates the tokens of the prompt.
    pub(super) fn prompt_tokens(&self) -> u64 {
        const PER_MESSAGE: u64 = 4;
        let of_message = |message: &Message<'_>| PER_MESSAGE + tokens(&message.content.0);
        self.messages.iter().map(of_message).sum()
    }
}

/// Text written as a string, as an array of parts, or as null.
///
/// The text parts are joined; images and other parts have no text.
#[derive(Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of content parts")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let mut all = Cow::Borrowed("");
        while let Some(Part(text)) = parts.next_element()? {
            if all.is_empty() {
                all = text;
            } else {
                all.to_mut().push_str(&text);
            }
        }
        Ok(all)
    }
}

/// The text of one content part.
struct Part<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Part<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Part<'a>, D::Error> {
        struct PartVisitor;

        impl<'de> Visitor<'de> for PartVisitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a content part, such as {\"type\": \"text\", \"text\": \"...\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut text = Cow::Borrowed("");
                while let Some(Text(key)) = map.next_key()? {
                    if key == "text" {
                        text = map.next_value::<Text<'de>>()?.0;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(text)
            }
        }

        deserializer.deserialize_map(PartVisitor).map(Part)
    }
}
