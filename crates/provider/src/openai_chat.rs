//! `POST /v1/chat/completions`: OpenAI's Chat Completions protocol.
//!
//! Reading the request is at the top, the two forms of an answer below it: one JSON object
//! here, and the event stream in `stream`.

mod request;
mod stream;

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use self::request::ChatRequest;
use crate::answer::{self, Answer, Content, Fate, Question, REFUSAL_TEXT};
use crate::body::AnswerBody;
use crate::draw::Draw;
use crate::error::{ApiError, Dialect};
use crate::script::Behaviour;
use crate::stand_in::StandIn;
use crate::wire;

const SYSTEM_FINGERPRINT: &str = "fp_stand_in";

/// Answers a chat completion request.
pub(crate) async fn chat_completions(State(stand_in): State<StandIn>, request: Request) -> Response {
    let ticket = stand_in.admit(&request);
    let script = stand_in.script();
    let received = match stand_in.receive(request, &script, Dialect::OpenAi).await {
        Ok(received) => received,
        Err(error) => return error.into_response(ticket),
    };
    let number = stand_in.next_chat();
    let chat = match ChatRequest::parse(&received.body, &script) {
        Ok(chat) => chat,
        Err(error) => return error.into_response(ticket),
    };
    let inline = match wire::inline_behaviour(&received.headers, Dialect::OpenAi) {
        Ok(inline) => inline,
        Err(error) => return error.into_response(ticket),
    };
    let system = chat.system();
    let question = Question {
        user: chat.last_user_message(),
        answers_tool: chat.answers_tool(),
        stream: chat.stream,
        output_tokens_max: chat.output_tokens_max,
    };
    let behaviour =
        inline.as_ref().unwrap_or_else(|| script.behaviour_for(&system, question.user, &chat.model));
    let draw = wire::draw_for(&received.headers, &script, number);
    let plan = answer::plan(behaviour, &question, draw);
    if !plan.latency.is_zero() {
        tokio::time::sleep(plan.latency).await;
    }
    match plan.fate {
        Fate::Drop => Response::new(Body::new(AnswerBody::nothing(ticket))),
        Fate::Fail(failure) => ApiError::scripted(Dialect::OpenAi, failure).into_response(ticket),
        Fate::Answer(answer) => {
            let reply = Reply::new(&chat, &answer, draw, behaviour);
            if chat.stream {
                let events = stream::render(&reply, behaviour.chunks.get().into(), chat.include_usage);
                wire::stream(ticket, Dialect::OpenAi, events, &answer, behaviour)
            } else {
                wire::whole(ticket, Dialect::OpenAi, whole_json(&reply), &answer, behaviour)
            }
        }
    }
}

/// An answer with everything that its wire form shows.
struct Reply<'a> {
    answer: &'a Answer<'a>,
    model: &'a str,
    id: String,
    call_ids: Vec<String>,
    created: u64,
    usage: Usage,
}

#[derive(Clone, Copy, Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokens,
    completion_tokens_details: CompletionTokens,
}

#[derive(Clone, Copy, Serialize)]
struct PromptTokens {
    cached_tokens: u64,
}

#[derive(Clone, Copy, Serialize)]
struct CompletionTokens {
    reasoning_tokens: u64,
}

impl<'a> Reply<'a> {
    fn new(chat: &'a ChatRequest<'_>, answer: &'a Answer<'a>, draw: Draw, behaviour: &Behaviour) -> Self {
        let n_calls = match &answer.content {
            Content::ToolCalls(calls) => calls.len() as u64,
            Content::Text { .. } | Content::Refusal | Content::Filtered => 0,
        };
        let prompt_tokens = chat.prompt_tokens();
        Reply {
            answer,
            model: &chat.model,
            id: draw.identifier("chatcmpl-", 0, 29),
            call_ids: (1..=n_calls).map(|call| draw.identifier("call_", call, 24)).collect(),
            created: unix_seconds(),
            usage: Usage {
                prompt_tokens,
                completion_tokens: answer.output_tokens,
                total_tokens: prompt_tokens + answer.output_tokens,
                prompt_tokens_details: PromptTokens {
                    cached_tokens: answer::cached(prompt_tokens, behaviour),
                },
                completion_tokens_details: CompletionTokens { reasoning_tokens: 0 },
            },
        }
    }

    fn finish_reason(&self) -> &'static str {
        match &self.answer.content {
            Content::Text { cut: true, .. } => "length",
            Content::Text { cut: false, .. } | Content::Refusal => "stop",
            Content::Filtered => "content_filter",
            Content::ToolCalls(_) => "tool_calls",
        }
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
    usage: Usage,
    service_tier: &'static str,
    system_fingerprint: &'static str,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u8,
    message: Message<'a>,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

/// Renders the answer as one JSON object.
fn whole_json(reply: &Reply<'_>) -> Vec<u8> {
    let mut message = Message { role: "assistant", content: None, refusal: None, tool_calls: Vec::new() };
    let mut expected_bytes = 640;
    match &reply.answer.content {
        Content::Text { text, .. } => {
            expected_bytes += text.len();
            message.content = Some(text);
        }
        Content::Refusal => message.refusal = Some(REFUSAL_TEXT),
        Content::Filtered => {}
        Content::ToolCalls(calls) => {
            message.tool_calls = calls
                .iter()
                .zip(&reply.call_ids)
                .map(|(call, id)| WireCall {
                    id,
                    kind: "function",
                    function: WireFunction { name: call.name, arguments: call.arguments },
                })
                .collect();
        }
    }
    let completion = Completion {
        id: &reply.id,
        object: "chat.completion",
        created: reply.created,
        model: reply.model,
        choices: [Choice { index: 0, message, logprobs: None, finish_reason: reply.finish_reason() }],
        usage: reply.usage,
        service_tier: "default",
        system_fingerprint: SYSTEM_FINGERPRINT,
    };
    let mut json = Vec::with_capacity(expected_bytes);
    serde_json::to_writer(&mut json, &completion).expect("a completion has text keys only");
    json
}

/// Reads the clock, for the `created` field alone.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
