//! `POST /v1/messages`: Anthropic's Messages protocol.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use crate::answer::{self, Answer, Content, Fate, Plan, Question, REFUSAL_TEXT};
use crate::body::AnswerBody;
use crate::conversation::{Conversation, missing, object, text_of};
use crate::draw::Draw;
use crate::error::{ApiError, Dialect};
use crate::script::{Behaviour, Script};
use crate::stand_in::StandIn;
use crate::wire::{self, EventWriter, for_each_piece};

const DIALECT: Dialect = Dialect::Anthropic;

/// Answers a request for a message.
pub(crate) async fn messages(State(stand_in): State<StandIn>, request: Request) -> Response {
    let ticket = stand_in.admit(&request);
    let script = stand_in.script();
    let received = match stand_in.receive(request, &script, DIALECT).await {
        Ok(received) => received,
        Err(error) => return error.into_response(ticket),
    };
    let number = stand_in.next_chat();
    let read = object(&received.body, DIALECT).and_then(|body| {
        if !received.headers.contains_key("anthropic-version") {
            let message = "anthropic-version: header is required";
            return Err(ApiError::invalid_request(DIALECT, message, None, None));
        }
        let conversation = conversation(&body, &script)?;
        let inline = wire::inline_behaviour(&received.headers, DIALECT)?;
        Ok((body, conversation, inline))
    });
    let (body, conversation, inline) = match read {
        Ok(read) => read,
        Err(error) => return error.into_response(ticket),
    };
    let Conversation { system, user, model, .. } = &conversation;
    let behaviour = inline.as_ref().unwrap_or_else(|| script.behaviour_for(system, user, model));
    let draw = wire::draw_for(&received.headers, &script, number);
    let question = Question {
        user,
        answers_tool: conversation.answers_tool,
        stream: conversation.stream,
        output_tokens_max: body["max_tokens"].as_u64().and_then(|most| u32::try_from(most).ok()),
    };
    let Plan { latency, fate } = answer::plan(behaviour, &question, draw);
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    match fate {
        Fate::Drop => Response::new(Body::new(AnswerBody::nothing(ticket))),
        Fate::Fail(failure) => ApiError::scripted(DIALECT, failure).into_response(ticket),
        Fate::Answer(answer) => {
            let reply = Reply { conversation: &conversation, answer: &answer, draw, behaviour };
            if conversation.stream {
                wire::stream(ticket, DIALECT, reply.events(), &answer, behaviour)
            } else {
                let json = reply.message(&reply.content(), Some(reply.stop_reason()), answer.output_tokens);
                wire::whole(ticket, DIALECT, json.to_string().into_bytes(), &answer, behaviour)
            }
        }
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

/// An answer with everything that its wire form shows.
struct Reply<'a> {
    conversation: &'a Conversation,
    answer: &'a Answer<'a>,
    draw: Draw,
    behaviour: &'a Behaviour,
}

impl Reply<'_> {
    fn stop_reason(&self) -> &'static str {
        match &self.answer.content {
            Content::Text { cut: true, .. } => "max_tokens",
            Content::Text { cut: false, .. } => "end_turn",
            Content::Refusal | Content::Filtered => "refusal",
            Content::ToolCalls(_) => "tool_use",
        }
    }

    fn content(&self) -> Value {
        match &self.answer.content {
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
        let id = self.draw.identifier("toolu_", index as u64 + 1, 24);
        json!({"type": "tool_use", "id": id, "name": name, "input": input})
    }

    fn message(&self, content: &Value, stop_reason: Option<&str>, output_tokens: u64) -> Value {
        let all = self.conversation.prompt_tokens;
        let cached = answer::cached(all, self.behaviour);
        json!({
            "id": self.draw.identifier("msg_", 0, 24), "type": "message", "role": "assistant",
            "model": self.conversation.model, "content": content,
            "stop_reason": stop_reason, "stop_sequence": null,
            "usage": {
                "input_tokens": all - cached, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": cached, "output_tokens": output_tokens,
            },
        })
    }

    fn events(&self) -> wire::Events {
        let n_chunks = usize::from(self.behaviour.chunks.get());
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
        match &self.answer.content {
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
        let usage = json!({"output_tokens": self.answer.output_tokens});
        event(json!({"type": "message_delta", "delta": end, "usage": usage}));
        event(json!({"type": "message_stop"}));
        events.into_events(self.answer.interruption.as_ref(), DIALECT)
    }
}

/// The arguments of a call as a value; what is no JSON arrives as an empty object, as the protocol has it.
fn input(arguments: &str) -> Value {
    serde_json::from_str(arguments).unwrap_or_else(|_| json!({}))
}
