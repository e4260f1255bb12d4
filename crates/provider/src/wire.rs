//! How an answer of any protocol goes out: in one piece or as events, paced, cut and spoilt as scripted.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use crate::answer::{Answer, Interruption};
use crate::body::{AnswerBody, Ending};
use crate::draw::Draw;
use crate::error::{ApiError, Dialect, request_id};
use crate::script::{Behaviour, Fault, Script};
use crate::stand_in::Ticket;
use crate::values::milliseconds;

const KEY_HEADER: &str = "x-stand-in-key";
const SCRIPT_HEADER: &str = "x-stand-in-script";
const QUALITY_HEADER: HeaderName = HeaderName::from_static("x-stand-in-quality");

/// What a spoilt answer sends in place of JSON; it is no UTF-8 either.
const GARBAGE: &[u8] = b"\x00\xff\xfe<html>not what you asked for\xc3\n\n{\"choices\":[{]}\n\n";

/// The behaviour that the request brings along, if it does.
pub(crate) fn inline_behaviour(headers: &HeaderMap, dialect: Dialect) -> Result<Option<Behaviour>, ApiError> {
    let Some(value) = headers.get(SCRIPT_HEADER) else {
        return Ok(None);
    };
    let invalid = |cause: &dyn std::fmt::Display| {
        let message = format!("could not read the header {SCRIPT_HEADER}: {cause}");
        ApiError::invalid_request(dialect, &message, None, Some("invalid_stand_in_script"))
    };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|error| invalid(&error))?;
    Behaviour::parse_json(text).map(Some).map_err(|error| invalid(&error))
}

/// The dice of a request: keyed by its header, else by its number.
pub(crate) fn draw_for(headers: &HeaderMap, script: &Script, number: u64) -> Draw {
    match headers.get(KEY_HEADER) {
        Some(key) => Draw::keyed(script.seed, key.as_bytes()),
        None => Draw::numbered(script.seed, number),
    }
}

/// The events of a stream: one buffer, and the length of each event in it.
pub(crate) struct Events {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    ending: Ending,
}

/// Writes events one after the other.
pub(crate) struct EventWriter {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl EventWriter {
    /// Room for so many events of so many bytes.
    pub(crate) fn with_capacity(n_events: usize, event_bytes: usize) -> EventWriter {
        EventWriter {
            bytes: Vec::with_capacity(n_events * event_bytes),
            lengths: Vec::with_capacity(n_events),
        }
    }

    /// Writes an event whose data is this text.
    pub(crate) fn data(&mut self, data: &[u8]) {
        self.event(None, |bytes| bytes.extend_from_slice(data));
    }

    /// Writes an event whose data is this value, with its type where the protocol names it.
    pub(crate) fn json(&mut self, name: Option<&str>, value: &impl Serialize) {
        self.event(name, |bytes| {
            serde_json::to_writer(bytes, value).expect("an event has text keys only");
        });
    }

    fn event(&mut self, name: Option<&str>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        if let Some(name) = name {
            self.bytes.extend_from_slice(b"event: ");
            self.bytes.extend_from_slice(name.as_bytes());
            self.bytes.push(b'\n');
        }
        self.bytes.extend_from_slice(b"data: ");
        write(&mut self.bytes);
        self.bytes.extend_from_slice(b"\n\n");
        self.lengths.push(self.bytes.len() - start);
    }

    /// The whole stream, or its first half and how it breaks off.
    pub(crate) fn into_events(mut self, interruption: Option<&Interruption<'_>>, dialect: Dialect) -> Events {
        let ending = match interruption {
            None => Ending::Complete,
            Some(Interruption::Drop) => {
                self.keep_half();
                Ending::Abort
            }
            Some(Interruption::Error(failure)) => {
                self.keep_half();
                let error = ApiError::scripted(dialect, failure);
                let name = match dialect {
                    Dialect::OpenAi => None,
                    Dialect::OpenAiEvents | Dialect::Anthropic => Some("error"),
                };
                self.event(name, |bytes| bytes.extend_from_slice(error.event()));
                Ending::Complete
            }
        };
        Events { bytes: self.bytes, lengths: self.lengths, ending }
    }

    fn keep_half(&mut self) {
        self.lengths.truncate(self.lengths.len().div_ceil(2));
        self.bytes.truncate(self.lengths.iter().sum());
    }
}

/// Answers with one JSON object.
pub(crate) fn whole(
    ticket: Ticket,
    dialect: Dialect,
    json: Vec<u8>,
    answer: &Answer<'_>,
    behaviour: &Behaviour,
) -> Response {
    let id = request_id(&ticket, dialect);
    let announced = json.len();
    let (bytes, sent, ending) = match (&answer.interruption, behaviour.fault) {
        (Some(Interruption::Drop | Interruption::Error(_)), _) => (json, announced / 2, Ending::Abort),
        (None, None) => (json, announced, Ending::Complete),
        (None, Some(Fault::Hang)) => (json, announced / 2, Ending::Hang),
        (None, Some(Fault::HalfJson)) => (json, announced / 2, Ending::Complete),
        (None, Some(Fault::Garbage)) => (GARBAGE.to_vec(), GARBAGE.len(), Ending::Complete),
    };
    let lengths = frames(sent, behaviour.frame_bytes).unwrap_or_else(|| vec![sent]);
    let interval = milliseconds(behaviour.chunk_interval_ms.into());
    let interval = if behaviour.frame_bytes.is_some() { interval } else { Duration::ZERO };
    let body = AnswerBody::frames(ticket, Bytes::from(bytes), lengths, interval, ending);
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if ending != Ending::Complete {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(announced));
    }
    add_answer_headers(headers, id, answer);
    response
}

/// Answers with a stream of events.
pub(crate) fn stream(
    ticket: Ticket,
    dialect: Dialect,
    events: Events,
    answer: &Answer<'_>,
    behaviour: &Behaviour,
) -> Response {
    let id = request_id(&ticket, dialect);
    let Events { mut bytes, mut lengths, mut ending } = events;
    match behaviour.fault {
        None => {}
        Some(Fault::Hang) => {
            lengths.truncate(lengths.len().div_ceil(2));
            ending = Ending::Hang;
        }
        Some(Fault::HalfJson) => {
            // Half of the events, and half of the one after them.
            let next = lengths.len().div_ceil(2).min(lengths.len() - 1);
            lengths.truncate(next + 1);
            lengths[next] /= 2;
        }
        Some(Fault::Garbage) => {
            bytes = GARBAGE.to_vec();
            lengths = vec![bytes.len()];
        }
    }
    if let Some(cut) = frames(lengths.iter().sum(), behaviour.frame_bytes) {
        lengths = cut;
    }
    let interval = milliseconds(behaviour.chunk_interval_ms.into());
    let body = AnswerBody::frames(ticket, bytes.into(), lengths, interval, ending);
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    add_answer_headers(headers, id, answer);
    response
}

/// The lengths of frames of a scripted size, when there is one.
fn frames(total: usize, size: Option<NonZeroU32>) -> Option<Vec<usize>> {
    let size = usize::try_from(size?.get()).expect("a machine has at least 32 bits");
    let mut lengths = vec![size; total / size];
    if !total.is_multiple_of(size) {
        lengths.push(total % size);
    }
    Some(lengths)
}

fn add_answer_headers(headers: &mut HeaderMap, (name, id): (HeaderName, HeaderValue), answer: &Answer<'_>) {
    let quality = HeaderValue::try_from(answer.quality.to_string());
    headers.insert(name, id);
    headers.insert(QUALITY_HEADER, quality.expect("a number is valid in a header"));
}

/// Cuts a text after spaces into `n_max` pieces, or one per word when it has fewer words.
pub(crate) fn for_each_piece(text: &str, n_max: usize, mut take: impl FnMut(&str)) {
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
