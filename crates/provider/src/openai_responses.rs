//! `POST /v1/responses`: OpenAI's Responses protocol.
//!
//! Nothing is stored: a `previous_response_id` is taken as said when it looks like one.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use crate::answer::{self, Content, REFUSAL_TEXT};
use crate::conversation::{Conversation, missing, text_of};
use crate::error::{ApiError, Dialect};
use crate::exchange::{self, Exchange, Speech};
use crate::openai_chat::unix_seconds;
use crate::script::Script;
use crate::stand_in::StandIn;
use crate::wire::{self, EventWriter, for_each_piece};

const DIALECT: Dialect = Dialect::OpenAiEvents;

/// Answers a request for a response.
pub(crate) async fn responses(State(stand_in): State<StandIn>, request: Request) -> Response {
    exchange::answer::<Responses>(stand_in, request).await
}

struct Responses;

impl Speech for Responses {
    const DIALECT: Dialect = DIALECT;
    const LIMIT: &'static str = "max_output_tokens";

    fn read(_: &HeaderMap, body: &Value, script: &Script) -> Result<Conversation, ApiError> {
        conversation(body, script)
    }

    fn whole(exchange: &Exchange<'_>) -> Value {
        let reply = Reply(exchange);
        reply.response(reply.status(), &reply.output())
    }

    fn events(exchange: &Exchange<'_>) -> wire::Events {
        Reply(exchange).events()
    }
}

fn conversation(body: &Value, script: &Script) -> Result<Conversation, ApiError> {
    let mut conversation = Conversation::begin(body, script, DIALECT)?;
    if let Some(instructions) = body["instructions"].as_str() {
        conversation.add_system(instructions);
    }
    let previous = body["previous_response_id"].as_str();
    if let Some(id) = previous.filter(|id| !id.starts_with("resp_")) {
        let message = format!("Previous response with id '{id}' not found.");
        let param = Some("previous_response_id");
        let code = Some("previous_response_not_found");
        return Err(ApiError::invalid_request(DIALECT, &message, param, code));
    }
    match &body["input"] {
        Value::String(text) => conversation.add_user(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| add(&mut conversation, item)),
        Value::Null if previous.is_some() || !body["prompt"].is_null() => {}
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(missing(DIALECT, "input"));
        }
    }
    Ok(conversation)
}

fn add(conversation: &mut Conversation, item: &Value) {
    let text = text_of(&item["content"]);
    match (item["type"].as_str().unwrap_or("message"), item["role"].as_str()) {
        ("function_call_output" | "custom_tool_call_output", _) => {
            conversation.add_result(&text_of(&item["output"]));
        }
        ("message", Some("system" | "developer")) => conversation.add_system(&text),
        ("message", Some("assistant")) => conversation.add_answer(&text),
        ("message", _) => conversation.add_user(text),
        (_, _) => conversation.add_answer(""),
    }
}

/// An answer as its protocol writes it.
struct Reply<'a>(&'a Exchange<'a>);

impl Reply<'_> {
    fn id(&self, prefix: &str, variant: u64) -> String {
        self.0.draw.identifier(prefix, variant, 48)
    }

    fn status(&self) -> &'static str {
        match &self.0.answer.content {
            Content::Text { cut: true, .. } | Content::Filtered => "incomplete",
            Content::Text { cut: false, .. } | Content::Refusal | Content::ToolCalls(_) => "completed",
        }
    }

    fn output(&self) -> Value {
        let message = |parts: Value| json!([{"type": "message", "id": self.id("msg_", 1), "status": self.status(), "role": "assistant", "content": parts}]);
        match &self.0.answer.content {
            Content::Text { text, .. } => message(json!([text_part(text)])),
            Content::Refusal => message(json!([{"type": "refusal", "refusal": REFUSAL_TEXT}])),
            Content::Filtered => json!([]),
            Content::ToolCalls(calls) => {
                let items = calls.iter().enumerate();
                items.map(|(index, call)| self.call(index, call.name, call.arguments)).collect()
            }
        }
    }

    fn call(&self, index: usize, name: &str, arguments: &str) -> Value {
        let number = index as u64 + 1;
        json!({
            "type": "function_call", "id": self.id("fc_", number), "call_id": self.0.draw.identifier("call_", number, 24),
            "name": name, "arguments": arguments, "status": "completed",
        })
    }

    /// The response object around some output; a finished one has its usage.
    fn response(&self, status: &str, output: &Value) -> Value {
        let Conversation { prompt_tokens, model, .. } = self.0.conversation;
        let output_tokens = self.0.answer.output_tokens;
        let reason = match &self.0.answer.content {
            Content::Filtered => "content_filter",
            Content::Text { .. } | Content::Refusal | Content::ToolCalls(_) => "max_output_tokens",
        };
        let incomplete = (status == "incomplete").then(|| json!({"reason": reason}));
        let usage = (status != "in_progress").then(|| {
            json!({
                "input_tokens": prompt_tokens,
                "input_tokens_details": {"cached_tokens": answer::cached(*prompt_tokens, self.0.behaviour)},
                "output_tokens": output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": prompt_tokens + output_tokens,
            })
        });
        let conversation = match &self.0.body["conversation"] {
            Value::String(id) => json!({"id": id}),
            other => other.clone(),
        };
        let tools = self.0.body["tools"].as_array().cloned().unwrap_or_default();
        json!({
            "id": self.id("resp_", 0), "object": "response", "created_at": unix_seconds(), "status": status,
            "background": false, "error": null, "incomplete_details": incomplete,
            "instructions": self.0.body["instructions"], "max_output_tokens": self.0.body["max_output_tokens"],
            "model": model, "output": output, "parallel_tool_calls": true,
            "previous_response_id": self.0.body["previous_response_id"], "conversation": conversation,
            "reasoning": {"effort": null, "summary": null}, "store": true, "temperature": 1.0,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": tools, "top_p": 1.0,
            "truncation": "disabled", "usage": usage, "user": null, "metadata": {},
        })
    }

    fn events(&self) -> wire::Events {
        let n_chunks = usize::from(self.0.behaviour.chunks.get());
        let mut writer = Writer { events: EventWriter::with_capacity(n_chunks + 10, 320), sequence: 0 };
        let begun = self.response("in_progress", &json!([]));
        writer.event("response.created", json!({"response": begun}));
        writer.event("response.in_progress", json!({"response": begun}));
        match &self.0.answer.content {
            Content::Text { text, .. } => self.message(&mut writer, text, "output_text", n_chunks),
            Content::Refusal => self.message(&mut writer, REFUSAL_TEXT, "refusal", n_chunks),
            Content::Filtered => {}
            Content::ToolCalls(calls) => {
                for (index, call) in calls.iter().enumerate() {
                    self.call_events(&mut writer, index, call, n_chunks);
                }
            }
        }
        let end = self.response(self.status(), &self.output());
        writer.event(&format!("response.{}", self.status()), json!({"response": end}));
        writer.events.into_events(self.0.answer.interruption.as_ref(), DIALECT)
    }

    fn message(&self, writer: &mut Writer, text: &str, kind: &str, n_chunks: usize) {
        let id = self.id("msg_", 1);
        let item = |status: &str, content: Value| json!({"type": "message", "id": id, "status": status, "role": "assistant", "content": content});
        let part = |text: &str| match kind {
            "refusal" => json!({"type": "refusal", "refusal": text}),
            _ => text_part(text),
        };
        let place = json!({"item_id": id, "output_index": 0, "content_index": 0});
        let at = |more: Value| merged(&place, more);
        writer.event(
            "response.output_item.added",
            json!({"output_index": 0, "item": item("in_progress", json!([]))}),
        );
        writer.event("response.content_part.added", at(json!({"part": part("")})));
        for_each_piece(text, n_chunks, |piece| {
            writer.event(&format!("response.{kind}.delta"), at(json!({"delta": piece, "logprobs": []})));
        });
        let field = if kind == "refusal" { "refusal" } else { "text" };
        writer.event(&format!("response.{kind}.done"), at(json!({field: text, "logprobs": []})));
        writer.event("response.content_part.done", at(json!({"part": part(text)})));
        let done = item(self.status(), json!([part(text)]));
        writer.event("response.output_item.done", json!({"output_index": 0, "item": done}));
    }

    fn call_events(&self, writer: &mut Writer, index: usize, call: &answer::Call<'_>, n_chunks: usize) {
        let done = self.call(index, call.name, call.arguments);
        let mut begun = self.call(index, call.name, "");
        begun["status"] = "in_progress".into();
        writer.event("response.output_item.added", json!({"output_index": index, "item": begun}));
        let place = json!({"item_id": done["id"], "output_index": index});
        let mut rest = call.arguments;
        let piece_bytes = call.arguments.len().div_ceil(n_chunks).max(1);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.ceil_char_boundary(piece_bytes));
            rest = after;
            writer.event("response.function_call_arguments.delta", merged(&place, json!({"delta": piece})));
        }
        writer.event(
            "response.function_call_arguments.done",
            merged(&place, json!({"name": call.name, "arguments": call.arguments})),
        );
        writer.event("response.output_item.done", json!({"output_index": index, "item": done}));
    }
}

/// Events with their type and number.
struct Writer {
    events: EventWriter,
    sequence: u64,
}

impl Writer {
    fn event(&mut self, kind: &str, fields: Value) {
        let event = merged(&json!({"type": kind, "sequence_number": self.sequence}), fields);
        self.sequence += 1;
        self.events.json(Some(kind), &event);
    }
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn merged(base: &Value, more: Value) -> Value {
    let (Value::Object(base), Value::Object(more)) = (base, more) else {
        unreachable!("both are written as objects in this file");
    };
    base.clone().into_iter().chain(more).collect()
}
