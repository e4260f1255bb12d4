//! The course of a request of Responses and of Messages, from its arrival to its answer; what differs is the speech.

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::Value;

use crate::answer::{self, Answer, Fate, Plan, Question};
use crate::body::AnswerBody;
use crate::conversation::{Conversation, object};
use crate::draw::Draw;
use crate::error::{ApiError, Dialect};
use crate::script::{Behaviour, Script};
use crate::stand_in::StandIn;
use crate::wire;

/// What a protocol does in its own way.
pub(crate) trait Speech {
    /// How it tells of errors.
    const DIALECT: Dialect;
    /// The field of a request that limits the tokens of its answer.
    const LIMIT: &'static str;

    /// Reads a request.
    fn read(headers: &HeaderMap, body: &Value, script: &Script) -> Result<Conversation, ApiError>;

    /// The answer in one piece.
    fn whole(exchange: &Exchange<'_>) -> Value;

    /// The answer as events.
    fn events(exchange: &Exchange<'_>) -> wire::Events;
}

/// A request and its answer, with everything that the wire shows of them.
pub(crate) struct Exchange<'a> {
    pub(crate) body: &'a Value,
    pub(crate) conversation: &'a Conversation,
    pub(crate) answer: &'a Answer<'a>,
    pub(crate) draw: Draw,
    pub(crate) behaviour: &'a Behaviour,
}

/// Answers a request.
pub(crate) async fn answer<S: Speech>(stand_in: StandIn, request: Request) -> Response {
    let ticket = stand_in.admit(&request);
    let script = stand_in.script();
    let received = match stand_in.receive(request, &script, S::DIALECT).await {
        Ok(received) => received,
        Err(error) => return error.into_response(ticket),
    };
    let number = stand_in.next_chat();
    let read = object(&received.body, S::DIALECT).and_then(|body| {
        let conversation = S::read(&received.headers, &body, &script)?;
        let inline = wire::inline_behaviour(&received.headers, S::DIALECT)?;
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
        output_tokens_max: body[S::LIMIT].as_u64().and_then(|most| u32::try_from(most).ok()),
    };
    let Plan { latency, fate } = answer::plan(behaviour, &question, draw);
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    match fate {
        Fate::Drop => Response::new(Body::new(AnswerBody::nothing(ticket))),
        Fate::Fail(failure) => ApiError::scripted(S::DIALECT, failure).into_response(ticket),
        Fate::Answer(answer) => {
            let exchange =
                Exchange { body: &body, conversation: &conversation, answer: &answer, draw, behaviour };
            if conversation.stream {
                wire::stream(ticket, S::DIALECT, S::events(&exchange), &answer, behaviour)
            } else {
                let json = S::whole(&exchange).to_string().into_bytes();
                wire::whole(ticket, S::DIALECT, json, &answer, behaviour)
            }
        }
    }
}
