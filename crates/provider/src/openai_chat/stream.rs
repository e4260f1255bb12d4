//! An answer as server-sent events, one `chat.completion.chunk` each.

use serde::Serialize;

use super::{Reply, SYSTEM_FINGERPRINT, Usage};
use crate::answer::{Call, Content, REFUSAL_TEXT};
use crate::error::Dialect;
use crate::wire::{EventWriter, Events, for_each_piece};

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    service_tier: &'static str,
    system_fingerprint: &'static str,
    choices: &'a [ChunkChoice<'a>],
    /// Absent unless the client asked for usage; then null in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u8,
    delta: Delta<'a>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[DeltaCall<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Option<&'a str>>,
}

#[derive(Serialize)]
struct DeltaCall<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: DeltaFunction<'a>,
}

#[derive(Serialize)]
struct DeltaFunction<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

/// Renders the answer in at most `n_chunks` chunks of content, plus those around them.
pub(super) fn render(reply: &Reply<'_>, n_chunks: usize, include_usage: bool) -> Events {
    let mut writer = Writer { reply, include_usage, events: EventWriter::with_capacity(n_chunks + 4, 320) };
    match &reply.answer.content {
        Content::Text { text, .. } => {
            writer.opening(Some(""));
            for_each_piece(text, n_chunks, |piece| {
                writer.delta(Delta { content: Some(Some(piece)), ..Delta::default() });
            });
        }
        Content::Refusal => {
            writer.opening(None);
            for_each_piece(REFUSAL_TEXT, n_chunks, |piece| {
                writer.delta(Delta { refusal: Some(Some(piece)), ..Delta::default() });
            });
        }
        Content::Filtered => writer.opening(Some("")),
        Content::ToolCalls(calls) => {
            writer.opening(None);
            for (index, (call, id)) in calls.iter().zip(&reply.call_ids).enumerate() {
                writer.tool_call(index, call, id, n_chunks);
            }
        }
    }
    // What breaks off is cut in the middle of its content.
    if reply.answer.interruption.is_none() {
        writer.finish();
    }
    writer.events.into_events(reply.answer.interruption.as_ref(), Dialect::OpenAi)
}

struct Writer<'a> {
    reply: &'a Reply<'a>,
    include_usage: bool,
    events: EventWriter,
}

impl Writer<'_> {
    /// The first chunk: the role, and what kind of content is to come.
    fn opening(&mut self, content: Option<&str>) {
        self.delta(Delta {
            role: Some("assistant"),
            content: Some(content),
            refusal: Some(None),
            tool_calls: None,
        });
    }

    fn tool_call(&mut self, index: usize, call: &Call<'_>, id: &str, n_chunks: usize) {
        self.call_delta(DeltaCall {
            index,
            id: Some(id),
            kind: Some("function"),
            function: DeltaFunction { name: Some(call.name), arguments: "" },
        });
        let mut rest = call.arguments;
        let piece_bytes = call.arguments.len().div_ceil(n_chunks).max(1);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.ceil_char_boundary(piece_bytes));
            rest = after;
            self.call_delta(DeltaCall {
                index,
                id: None,
                kind: None,
                function: DeltaFunction { name: None, arguments: piece },
            });
        }
    }

    fn call_delta(&mut self, call: DeltaCall<'_>) {
        self.delta(Delta { tool_calls: Some([call]), ..Delta::default() });
    }

    fn delta(&mut self, delta: Delta<'_>) {
        let null_usage = self.include_usage.then_some(None);
        self.chunk(&[choice(delta, None)], null_usage);
    }

    /// The reason why it ends, the usage if asked for, and the end mark.
    fn finish(&mut self) {
        let null_usage = self.include_usage.then_some(None);
        let reason = self.reply.finish_reason();
        self.chunk(&[choice(Delta::default(), Some(reason))], null_usage);
        if self.include_usage {
            self.chunk(&[], Some(Some(self.reply.usage)));
        }
        self.events.data(b"[DONE]");
    }

    fn chunk(&mut self, choices: &[ChunkChoice<'_>], usage: Option<Option<Usage>>) {
        let chunk = Chunk {
            id: &self.reply.id,
            object: "chat.completion.chunk",
            created: self.reply.created,
            model: self.reply.model,
            service_tier: "default",
            system_fingerprint: SYSTEM_FINGERPRINT,
            choices,
            usage,
        };
        self.events.json(None, &chunk);
    }
}

fn choice<'a>(delta: Delta<'a>, finish_reason: Option<&'static str>) -> ChunkChoice<'a> {
    ChunkChoice { index: 0, delta, logprobs: None, finish_reason }
}
