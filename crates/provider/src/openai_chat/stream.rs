//! An answer as server-sent events, one `chat.completion.chunk` each.

use bytes::Bytes;
use serde::Serialize;

use super::{Reply, SYSTEM_FINGERPRINT, Usage};
use crate::answer::{Call, Content, Interruption, REFUSAL_TEXT};
use crate::body::Ending;
use crate::openai_error::ApiError;

/// The events of a stream: one buffer, and the length of each event in it.
pub(super) struct Events {
    pub(super) bytes: Bytes,
    pub(super) lengths: Vec<usize>,
    pub(super) ending: Ending,
}

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
    let mut writer = Writer {
        reply,
        include_usage,
        bytes: Vec::with_capacity(320 * (n_chunks + 3)),
        lengths: Vec::with_capacity(n_chunks + 4),
    };
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
    match &reply.answer.interruption {
        None => writer.finish(),
        Some(Interruption::Drop) => writer.break_off(),
        Some(Interruption::Error(failure)) => writer.fail(&ApiError::scripted(failure)),
    }
}

struct Writer<'a> {
    reply: &'a Reply<'a>,
    include_usage: bool,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
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
    fn finish(mut self) -> Events {
        let null_usage = self.include_usage.then_some(None);
        let reason = self.reply.finish_reason();
        self.chunk(&[choice(Delta::default(), Some(reason))], null_usage);
        if self.include_usage {
            self.chunk(&[], Some(Some(self.reply.usage)));
        }
        self.event(|bytes| bytes.extend_from_slice(b"[DONE]"));
        self.events(Ending::Complete)
    }

    /// Keeps the first half, after which the connection breaks.
    fn break_off(mut self) -> Events {
        self.lengths.truncate(self.lengths.len().div_ceil(2));
        self.events(Ending::Abort)
    }

    /// Keeps the first half, after which an error event ends the stream.
    fn fail(mut self, error: &ApiError) -> Events {
        self.lengths.truncate(self.lengths.len().div_ceil(2));
        self.bytes.truncate(self.lengths.iter().sum());
        self.event(|bytes| bytes.extend_from_slice(error.body()));
        self.events(Ending::Complete)
    }

    fn events(self, ending: Ending) -> Events {
        Events { bytes: self.bytes.into(), lengths: self.lengths, ending }
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
        self.event(|bytes| {
            serde_json::to_writer(bytes, &chunk).expect("a chunk has text keys only");
        });
    }

    fn event(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(b"data: ");
        write(&mut self.bytes);
        self.bytes.extend_from_slice(b"\n\n");
        self.lengths.push(self.bytes.len() - start);
    }
}

fn choice<'a>(delta: Delta<'a>, finish_reason: Option<&'static str>) -> ChunkChoice<'a> {
    ChunkChoice { index: 0, delta, logprobs: None, finish_reason }
}

/// Cuts a text after spaces into `n_max` pieces, or one per word when it has fewer words.
fn for_each_piece(text: &str, n_max: usize, mut take: impl FnMut(&str)) {
    let n_words = text.split_inclusive(' ').count();
    let n_pieces = n_words.min(n_max);
    let (mut start, mut end, mut piece) = (0, 0, 1);
    for (index, word) in text.split_inclusive(' ').enumerate() {
        end += word.len();
        if (index + 1) * n_pieces >= piece * n_words {
            take(&text[start..end]);
            start = end;
            piece += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_many_as_asked_for_and_join_to_the_text() {
        for (text, n_max, n_pieces) in [
            ("one two three four five", 2, 2),
            ("one two three four five", 4, 4),
            ("one two three four five", 8, 5),
            ("  two  spaces ", 3, 3),
            ("", 8, 0),
        ] {
            let mut pieces = Vec::new();
            for_each_piece(text, n_max, |piece| pieces.push(piece.to_owned()));
            assert_eq!(pieces.len(), n_pieces, "{text:?} in {n_max}");
            assert_eq!(pieces.concat(), text);
        }
    }
}
