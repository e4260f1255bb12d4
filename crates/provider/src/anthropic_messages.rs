//! `POST /v1/messages`: Anthropic's Messages protocol.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use crate::answer::{self, Content, REFUSAL_TEXT};
use crate::conversation::{Conversation, missing, text_of};
use crate::error::{ApiError, Dialect};
use crate::exchange::{self, Exchange, Speech};
use crate::script::Script;
use crate::stand_in::StandIn;
use crate::wire::{self, EventWriter, for_each_piece};

const DIALECT: Dialect = Dialect::Anthropic;

/// Answers a request for a message.
pub(crate) async fn messages(State(stand_in): State<StandIn>, request: Request) -> Response {
    exchange::answer::<Messages>(stand_in, request).await
}

struct Messages;

impl Speech for Messages {
    const DIALECT: Dialect = DIALECT;
    const LIMIT: &'static str = "max_tokens";

    fn read(headers: &HeaderMap, body: &Value, script: &Script) -> Result<Conversation, ApiError> {
        if !headers.contains_key("anthropic-version") {
            let message = "anthropic-version: header is required";
            return Err(ApiError::invalid_request(DIALECT, message, None, None));
        }
        conversation(body, script)
    }

    fn whole(exchange: &Exchange<'_>) -> Value {
        let reply = Reply(exchange);
        reply.message(&reply.content(), Some(reply.stop_reason()), exchange.answer.output_tokens)
    }

    fn events(exchange: &Exchange<'_>) -> wire::Events {
        Reply(exchange).events()
    }
}

fn conversation(body: &Value, script: &Script) -> Result<Conversation, ApiError> {
    let mut conversation = Conversation::begin(body, script, DIALECT)?;
    if body["max_tokens"].as_u64().is_none_or(|most| most == 0) {
        return Err(missing(DIALECT, "max_tokens"));
    }
    if body.get("prompt").is_some() {
        let message = "prompt: Extra inputs are not permitted";
        return Err(ApiError::invalid_request(DIALECT, message, None, None));
    }
    if !body["system"].is_null() {
        conversation.add_system(&text_of(&body["system"]));
    }
    let messages = body["messages"].as_array().filter(|messages| !messages.is_empty());
    for message in messages.ok_or_else(|| missing(DIALECT, "messages"))? {
        let content = &message["content"];
        let is_result = |block: &Value| block["type"] == "tool_result";
        let result = content.as_array().and_then(|blocks| blocks.iter().find(|block| is_result(block)));
        match (message["role"].as_str(), result) {
            (Some("assistant"), _) => conversation.add_answer(&text_of(content)),
            (Some("user"), Some(result)) => conversation.add_result(&text_of(&result["content"])),
            (Some("user"), None) => conversation.add_user(text_of(content)),
            (_, _) => {
                let message = "messages: role must be user or assistant";
                return Err(ApiError::invalid_request(DIALECT, message, None, None));
            }
        }
    }
    Ok(conversation)
}

/// An answer as its protocol writes it.
struct Reply<'a>(&'a Exchange<'a>);

impl Reply<'_> {
    fn stop_reason(&self) -> &'static str {
        match &self.0.answer.content {
            Content::Text { cut: true, .. } => "max_tokens",
            Content::Text { cut: false, .. } => "end_turn",
            Content::Refusal | Content::Filtered => "refusal",
            Content::ToolCalls(_) => "tool_use",
        }
    }

    fn content(&self) -> Value {
        match &self.0.answer.content {
            Content::Text { text, .. } if text.is_empty() => json!([]),
            Content::Text { text, .. } => json!([{"type": "text", "text": text}]),
            Content::Refusal => json!([{"type": "text", "text": REFUSAL_TEXT}]),
            Content::Filtered => json!([]),
            Content::ToolCalls(calls) => {
                let blocks = calls.iter().enumerate();
                blocks.map(|(index, call)| self.call(index, call.name, input(call.arguments))).collect()
            }
        }
    }

    fn call(&self, index: usize, name: &str, input: Value) -> Value {
        let id = self.0.draw.identifier("toolu_", index as u64 + 1, 24);
        json!({"type": "tool_use", "id": id, "name": name, "input": input})
    }

    fn message(&self, content: &Value, stop_reason: Option<&str>, output_tokens: u64) -> Value {
        let all = self.0.conversation.prompt_tokens;
        let cached = answer::cached(all, self.0.behaviour);
        json!({
            "id": self.0.draw.identifier("msg_", 0, 24), "type": "message", "role": "assistant",
            "model": self.0.conversation.model, "content": content,
            "stop_reason": stop_reason, "stop_sequence": null,
            "usage": {
                "input_tokens": all - cached, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": cached, "output_tokens": output_tokens,
            },
        })
    }

    fn events(&self) -> wire::Events {
        let n_chunks = usize::from(self.0.behaviour.chunks.get());
        let mut events = EventWriter::with_capacity(n_chunks + 8, 160);
        let mut event = |fields: Value| {
            let kind = fields["type"].as_str().expect("every event here has a type").to_owned();
            events.json(Some(&kind), &fields);
        };
        event(json!({"type": "message_start", "message": self.message(&json!([]), None, 1)}));
        event(json!({"type": "ping"}));
        let delta = |index: usize, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let say = |text: &str, event: &mut dyn FnMut(Value)| {
            event(
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            );
            for_each_piece(text, n_chunks, |piece| {
                event(delta(0, json!({"type": "text_delta", "text": piece})))
            });
            event(json!({"type": "content_block_stop", "index": 0}));
        };
        match &self.0.answer.content {
            Content::Text { text, .. } if text.is_empty() => {}
            Content::Text { text, .. } => say(text, &mut event),
            Content::Refusal => say(REFUSAL_TEXT, &mut event),
            Content::Filtered => {}
            Content::ToolCalls(calls) => {
                for (index, call) in calls.iter().enumerate() {
                    let block = self.call(index, call.name, json!({}));
                    event(json!({"type": "content_block_start", "index": index, "content_block": block}));
                    let mut rest = call.arguments;
                    let piece_bytes = call.arguments.len().div_ceil(n_chunks).max(1);
                    while !rest.is_empty() {
                        let (piece, after) = rest.split_at(rest.ceil_char_boundary(piece_bytes));
                        rest = after;
                        event(delta(index, json!({"type": "input_json_delta", "partial_json": piece})));
                    }
                    event(json!({"type": "content_block_stop", "index": index}));
                }
            }
        }
        let end = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
        let usage = json!({"output_tokens": self.0.answer.output_tokens});
        event(json!({"type": "message_delta", "delta": end, "usage": usage}));
        event(json!({"type": "message_stop"}));
        events.into_events(self.0.answer.interruption.as_ref(), DIALECT)
    }
}

/// The arguments of a call as a value; what is no JSON arrives as an empty object, as the protocol has it.
fn input(arguments: &str) -> Value {
    serde_json::from_str(arguments).unwrap_or_else(|_| json!({}))
}
