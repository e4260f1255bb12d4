use super::*;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use http_body_util::BodyExt;
use serin_core::observation::{ErrorKind, Response};
use tokio::time::Instant;

use super::super::protocol::Protocol;
use super::super::settings::GatewayCounts;
use super::super::tests::{next_response, resolved, resolver};

/// A body of given frames, which may end in an error.
#[derive(Debug)]
struct Frames {
    frames: VecDeque<Bytes>,
    breaks: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(match self.frames.pop_front() {
            Some(frame) => Some(Ok(Frame::data(frame))),
            None if std::mem::take(&mut self.breaks) => Some(Err("broken")),
            None => None,
        })
    }
}

/// What came out: the frames, whether an error came, what was told, and what was counted.
struct Outcome {
    frames: Vec<Bytes>,
    is_broken: bool,
    seen: Response,
    counts: Arc<GatewayCounts>,
}

impl Outcome {
    fn text(&self) -> String {
        String::from_utf8(self.frames.concat()).unwrap()
    }
}

/// Taps these frames; the client takes at most `most` of them.
async fn tapped(frames: Vec<Bytes>, breaks: bool, watch: Watch, most: usize) -> Outcome {
    let (resolver, mut signals) = resolver(0.0);
    let counts = Arc::<GatewayCounts>::default();
    let resolved = resolved(&resolver).await;
    let mut observer = Observer::start(
        &resolver,
        &counts,
        &resolved,
        Protocol::Chat,
        Instant::now(),
        "r-1".to_owned(),
        true,
    );
    observer.head(StatusCode::OK);
    let mut tap = Tap::new(Frames { frames: frames.into(), breaks }, watch, observer);
    let (mut passed, mut is_broken) = (Vec::new(), false);
    while passed.len() < most {
        match tap.frame().await {
            Some(Ok(frame)) => passed.push(frame.into_data().unwrap()),
            Some(Err(_)) => is_broken = true,
            None => break,
        }
    }
    drop(tap);
    let seen = next_response(&mut signals).await;
    assert!(signals.try_recv().is_err(), "the end is told once");
    Outcome { frames: passed, is_broken, seen, counts }
}

fn pieces(stream: &str, size: usize) -> Vec<Bytes> {
    stream.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect()
}

const HELLO: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hé😀\"},\"finish_reason\":null}]}";
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}";
const DONE: &str = "data: [DONE]";

fn stream(events: &[&str], line_end: &str) -> String {
    events.iter().map(|event| format!("{event}{line_end}{line_end}")).collect()
}

#[tokio::test]
async fn a_stream_passes_unchanged_in_pieces_of_any_size_also_through_characters() {
    for line_end in ["\n", "\r\n", "\r"] {
        let stream = stream(&[": ping", HELLO, STOP, USAGE, DONE], line_end);
        for size in 1..=stream.len() {
            let outcome = tapped(pieces(&stream, size), false, Watch::Stream, usize::MAX).await;
            assert_eq!(outcome.text(), stream);
            assert_eq!(outcome.frames.len(), stream.len().div_ceil(size), "frame by frame");
            let seen = outcome.seen;
            assert_eq!(
                (seen.success, seen.response_length, seen.input_tokens),
                (Some(true), Some(3.0), Some(9.0))
            );
        }
    }
}

#[tokio::test]
async fn frames_pass_as_the_same_memory() {
    let frames = vec![Bytes::from(stream(&[HELLO, STOP], "\n")), Bytes::from(stream(&[USAGE, DONE], "\n"))];
    let before: Vec<_> = frames.iter().map(|frame| frame.as_ptr()).collect();
    let outcome = tapped(frames, false, Watch::Stream, usize::MAX).await;
    assert_eq!(outcome.frames.iter().map(|frame| frame.as_ptr()).collect::<Vec<_>>(), before);
}

#[tokio::test]
async fn the_usage_is_removed_wherever_the_pieces_end() {
    for line_end in ["\n", "\r\n", "\r"] {
        for events in
            [&[HELLO, STOP, USAGE, DONE][..], &[USAGE, HELLO, STOP, DONE], &[HELLO, STOP, DONE, USAGE]]
        {
            let before = stream(events, line_end);
            let kept: Vec<&str> = events.iter().copied().filter(|event| *event != USAGE).collect();
            let after = stream(&kept, line_end);
            for size in 1..=before.len() {
                let outcome =
                    tapped(pieces(&before, size), false, Watch::StreamWithoutUsage, usize::MAX).await;
                assert_eq!(outcome.text(), after, "pieces of {size}");
                assert!(outcome.frames.iter().all(|frame| !frame.is_empty()));
                assert_eq!(outcome.seen.output_tokens, Some(4.0));
                assert_eq!(outcome.counts.usage_chunks_removed.load(Ordering::Relaxed), 1);
            }
        }
    }
}

#[tokio::test]
async fn a_stream_without_the_extra_usage_loses_nothing() {
    let with_choice = "data: {\"choices\":[{\"index\":0,\"delta\":{}}],\"usage\":{\"prompt_tokens\":9}}";
    let filtered = "data: {\"choices\":[],\"usage\":null}";
    let long = format!("data: {{\"choices\":[],\"usage\":{{\"x\":\"{}\"}}}}", "x".repeat(2 * MOST_HELD));
    let stream = stream(&[filtered, HELLO, with_choice, &long, STOP, DONE], "\n") + "data: unfinished";
    for size in [1_000, 4_096, MOST_HELD, MOST_HELD + 1] {
        let outcome = tapped(pieces(&stream, size), false, Watch::StreamWithoutUsage, usize::MAX).await;
        assert_eq!(outcome.text(), stream, "pieces of {size}");
    }
}

#[tokio::test]
async fn what_is_held_comes_before_the_error_that_ends_a_stream() {
    let text = stream(&[HELLO], "\n") + "data: {\"choi";
    let outcome = tapped(pieces(&text, 7), true, Watch::StreamWithoutUsage, usize::MAX).await;
    assert_eq!((outcome.text(), outcome.is_broken), (text, true));
    assert_eq!((outcome.seen.success, outcome.seen.error), (Some(false), Some(ErrorKind::Provider)));
}

#[tokio::test]
async fn a_stream_is_a_success_only_with_its_end() {
    let result = async |events: &[&str], breaks: bool| {
        let frames = vec![Bytes::from(stream(events, "\n"))];
        tapped(frames, breaks, Watch::Stream, usize::MAX).await.seen.success
    };
    assert_eq!(result(&[HELLO, DONE], false).await, Some(true));
    assert_eq!(result(&[HELLO, STOP], false).await, Some(true));
    assert_eq!(result(&[HELLO], false).await, Some(false));
    assert_eq!(result(&[HELLO, STOP], true).await, Some(false));
    assert_eq!(result(&[HELLO, STOP, DONE], true).await, Some(true));
    assert_eq!(result(&["data: {\"error\":{\"message\":\"x\"}}", DONE], false).await, Some(false));
    assert_eq!(result(&["event: error\ndata: {}", DONE], false).await, Some(false));
    assert_eq!(result(&[], false).await, Some(false));
}

#[tokio::test]
async fn a_client_that_leaves_is_neither_unless_it_had_everything() {
    let left_after = async |events: &[&str]| {
        let frames = events.iter().map(|event| Bytes::from(stream(&[event], "\n"))).collect();
        let outcome = tapped(frames, false, Watch::Stream, events.len()).await;
        (outcome.seen.success, outcome.seen.error, outcome.seen.ttft_ms.is_some())
    };
    assert_eq!(left_after(&[HELLO]).await, (None, None, true));
    assert_eq!(left_after(&[": ping"]).await, (None, None, false));
    assert_eq!(left_after(&[HELLO, STOP]).await, (Some(true), None, true));
    assert_eq!(left_after(&[HELLO, STOP, DONE]).await, (Some(true), None, true));
}

#[tokio::test]
async fn an_answer_in_several_frames_is_read_as_one() {
    let answer = r#"{"choices":[{"index":0,"message":{"content":"hé"},"finish_reason":"length"}]}"#;
    for size in [1, 7, answer.len()] {
        let outcome = tapped(pieces(answer, size), false, Watch::Whole(1_000), usize::MAX).await;
        assert_eq!(outcome.text(), answer);
        assert_eq!((outcome.seen.response_length, outcome.seen.truncated), (Some(2.0), Some(true)));
    }
}

#[tokio::test]
async fn what_is_no_answer_passes_and_is_a_failure() {
    for text in ["<html>", "{\"choices\":[", "\u{0}"] {
        let outcome = tapped(pieces(text, 3), false, Watch::Whole(1_000), usize::MAX).await;
        assert_eq!((outcome.text().as_str(), outcome.seen.success), (text, Some(false)));
        assert_eq!((outcome.seen.empty, outcome.seen.error), (None, Some(ErrorKind::Provider)));
        assert_eq!(outcome.counts.tap_garbled.load(Ordering::Relaxed), 1);
    }
    let broken = stream(&[HELLO, "data: {\"choices\":", STOP, DONE], "\n");
    let outcome = tapped(pieces(&broken, 9), false, Watch::Stream, usize::MAX).await;
    assert_eq!((outcome.text(), outcome.seen.success), (broken, Some(false)));
}
