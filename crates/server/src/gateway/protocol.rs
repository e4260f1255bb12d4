//! The protocols of models that the gateway reads and writes.

use http::Method;

/// How a request to a model and its answer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// OpenAI's Chat Completions: `POST /v1/chat/completions`.
    Chat,
    /// OpenAI's Responses: `POST /v1/responses`.
    Responses,
    /// Anthropic's Messages: `POST /v1/messages`.
    Messages,
}

impl Protocol {
    /// The protocol of a request; nothing for what passes through.
    pub fn of(method: &Method, path: &str) -> Option<Self> {
        let protocol = match path {
            "/v1/chat/completions" => Self::Chat,
            "/v1/responses" => Self::Responses,
            "/v1/messages" => Self::Messages,
            _ => return None,
        };
        (method == Method::POST).then_some(protocol)
    }

    /// What the protocol calls a parameter of a pack; nothing where it has no such parameter.
    pub(super) fn parameter(self, name: &str) -> Option<&str> {
        match (self, name) {
            (Self::Responses, "max_tokens") => Some("max_output_tokens"),
            (Self::Responses, "top_k" | "frequency_penalty" | "presence_penalty")
            | (Self::Messages, "frequency_penalty" | "presence_penalty") => None,
            (Self::Chat | Self::Responses | Self::Messages, name) => Some(name),
        }
    }

    /// The member that holds the system text beside the messages, where the protocol has one.
    pub(super) fn system_member(self) -> Option<&'static str> {
        match self {
            Self::Chat => None,
            Self::Responses => Some("instructions"),
            Self::Messages => Some("system"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_paths_are_protocols_and_only_when_posted_to() {
        for (path, protocol) in [
            ("/v1/chat/completions", Some(Protocol::Chat)),
            ("/v1/responses", Some(Protocol::Responses)),
            ("/v1/messages", Some(Protocol::Messages)),
            ("/v1/messages/count_tokens", None),
            ("/v1/responses/resp_1", None),
        ] {
            assert_eq!(Protocol::of(&Method::POST, path), protocol, "{path}");
            assert_eq!(Protocol::of(&Method::GET, path), None, "{path}");
        }
    }
}
