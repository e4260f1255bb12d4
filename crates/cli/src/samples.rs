//! `serin samples`: recorded conversations of stable and canary beside each other.

use serin_core::ids::PackName;
use serin_server::api::types::{RecordingView, SampleView, SamplesView, Variant};

use crate::api::{Client, ServerArgs};
use crate::status::pack_name;
use crate::terminal::{GOOD, LOOK, Output, OutputFlag, QUIET, STRONG, TRIAL, ago, duration, paint};
use crate::told::Exit;

/// The least columns of a terminal on which two samples stand beside each other.
const WIDE: usize = 100;
/// Columns where the width of the terminal is not known.
const ASSUMED_WIDTH: usize = 120;
/// Columns between stable and canary.
const GAP: usize = 3;
/// The widest column of text; longer lines are hard to read.
const WIDEST: usize = 90;

/// Read recorded conversations of stable and canary beside each other
///
/// Recording is off unless the server's `samples.rate` says otherwise. What was said is redacted before it is stored.
#[derive(Debug, clap::Args)]
pub(crate) struct SamplesArgs {
    /// The pack
    #[arg(value_parser = pack_name)]
    pack: PackName,
    /// Only one side of the comparison
    #[arg(long, value_name = "VARIANT", value_parser = ["stable", "canary"])]
    variant: Option<String>,
    /// Only answers that stand out so: refusal, truncated, empty, error, tool_wrong, invalid_format, left
    #[arg(long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Only sessions of a segment
    #[arg(long, value_name = "SEGMENT")]
    segment: Option<String>,
    /// Only sessions with an outcome, such as `task_completion`, or with a value of it, such as `task_completion:0`
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// At most so many of each side, 1 to 200
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

/// Shows samples; for programs the server's answer as it is.
pub(crate) async fn run(args: &SamplesArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    let list = async |variant: Option<&str>| {
        let limit = args.limit.to_string();
        let given = [
            ("variant", variant),
            ("signal", args.signal.as_deref()),
            ("segment", args.segment.as_deref()),
            ("outcome", args.outcome.as_deref()),
            ("limit", Some(&limit)),
        ];
        let query: Vec<(&str, &str)> =
            given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        client.samples(&args.pack, &query).await
    };
    let variant = args.variant.as_deref();
    if variant.is_some() || args.output.output != Output::Table {
        args.output.print(&list(variant).await?, |view| stacked(view, &[&view.samples], width()))?;
        return Ok(Exit::Done);
    }
    let (stable, canary) = (list(Some("stable")).await?, list(Some("canary")).await?);
    let text = if stable.samples.is_empty() && canary.samples.is_empty() {
        // Outside of a rollout there are no sides.
        let all = list(None).await?;
        stacked(&all, &[&all.samples], width())
    } else if width() >= WIDE {
        beside(&stable.recording, &stable.samples, &canary.samples, width())
    } else {
        stacked(&stable, &[&stable.samples, &canary.samples], width())
    };
    anstream::println!("{}", text.trim_end());
    Ok(Exit::Done)
}

fn width() -> usize {
    terminal_size::terminal_size().map_or(ASSUMED_WIDTH, |(width, _)| usize::from(width.0).max(40))
}

/// One below the other.
fn stacked(view: &SamplesView, lists: &[&Vec<SampleView>], width: usize) -> String {
    let now = jiff::Timestamp::now();
    let mut text = heading(&view.recording);
    let mut samples = lists.iter().copied().flatten().peekable();
    if samples.peek().is_none() {
        text.push_str(nothing(&view.recording));
    }
    for sample in samples {
        for line in block(sample, width.min(WIDEST), now) {
            text.push_str(&line.painted());
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// Stable at the left, canary at the right.
fn beside(recording: &RecordingView, stable: &[SampleView], canary: &[SampleView], width: usize) -> String {
    let now = jiff::Timestamp::now();
    let column = ((width - GAP) / 2).min(WIDEST);
    let mut text = heading(recording);
    for index in 0..stable.len().max(canary.len()) {
        let side =
            |list: &[SampleView]| list.get(index).map_or_else(Vec::new, |sample| block(sample, column, now));
        let (left, right) = (side(stable), side(canary));
        for row in 0..left.len().max(right.len()) {
            let empty = Line::default();
            let (left, right) = (left.get(row).unwrap_or(&empty), right.get(row).unwrap_or(&empty));
            let padding = " ".repeat(column - left.width() + GAP);
            let line = format!("{}{padding}{}", left.painted(), right.painted());
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

fn heading(recording: &RecordingView) -> String {
    let mut text = match recording.on {
        true => format!(
            "recording {}% of the sessions, each kept for {}",
            recording.rate_percent, recording.expires_after
        ),
        false => "not recording; what was recorded before is kept until it expires".to_owned(),
    };
    if recording.dropped > 0 {
        text.push_str(&format!(", {} lost", recording.dropped));
    }
    format!("{}\n\n", paint(QUIET, text))
}

fn nothing(recording: &RecordingView) -> &'static str {
    if recording.on {
        "no conversation is recorded that fits\n"
    } else {
        "no conversation is recorded; set `samples.rate` (SERIN_SAMPLES_RATE) on the server to record some\n"
    }
}

/// A line in one style, no longer than its column.
#[derive(Debug, Clone, Default)]
struct Line {
    text: String,
    style: clap::builder::styling::Style,
}

impl Line {
    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn painted(&self) -> String {
        if self.text.is_empty() { String::new() } else { paint(self.style, &self.text) }
    }
}

/// One sample within so many columns.
fn block(sample: &SampleView, width: usize, now: jiff::Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |text: &str, style| {
        lines.extend(wrapped(text, width).into_iter().map(|text| Line { text, style }));
    };
    let plain = clap::builder::styling::Style::new();
    let side = match sample.variant {
        Some(Variant::Canary) => TRIAL,
        Some(Variant::Stable) | None => STRONG,
    };
    let variant = sample.variant.map_or_else(String::new, |variant| format!(" {variant}"));
    add(&format!("{}{variant} · {} · {}", sample.version, sample.session, ago(sample.at, now)), side);
    let mut about: Vec<String> = vec![sample.prompt.clone(), sample.model.clone()];
    about.extend(sample.segment.clone());
    about.extend(sample.latency_ms.map(latency));
    about.extend(sample.outcomes.iter().map(|(name, value)| format!("{name} {value}")));
    about.retain(|word| !word.is_empty());
    add(&about.join(" · "), QUIET);
    let signals: Vec<&str> = sample.signals.iter().map(|signal| signal.as_str()).collect();
    if !signals.is_empty() {
        add(&signals.join(", "), LOOK);
    }
    for message in &sample.messages {
        add(&format!("{}: {}", message.role, message.text), QUIET);
    }
    add(
        if sample.answer.is_empty() { "(no answer)" } else { &sample.answer },
        if signals.is_empty() { GOOD } else { plain },
    );
    lines
}

#[expect(clippy::cast_possible_truncation, reason = "a length of time in seconds")]
fn latency(milliseconds: f64) -> String {
    if milliseconds < 10_000.0 {
        format!("{milliseconds:.0}ms")
    } else {
        duration((milliseconds / 1_000.0) as i64)
    }
}

/// Breaks a text into lines of so many columns, between words where it can.
///
/// What would move the cursor or change colours is replaced: the texts come from users and models.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut current = String::new();
        let mut length = 0;
        for word in line.split(' ') {
            let word: Vec<char> = word.chars().map(|c| if c.is_control() { '�' } else { c }).collect();
            if length > 0 && length + 1 + word.len() > width {
                lines.push(std::mem::take(&mut current));
                length = 0;
            } else if length > 0 {
                current.push(' ');
                length += 1;
            }
            for c in word {
                if length == width {
                    lines.push(std::mem::take(&mut current));
                    length = 0;
                }
                current.push(c);
                length += 1;
            }
        }
        lines.push(current);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use serin_core::units::HoldFor;
    use serin_server::api::types::{MessageView, SampleSignal};

    fn sample(variant: Variant, answer: &str, signals: &[SampleSignal]) -> SampleView {
        SampleView {
            id: "1".to_owned(),
            at: jiff::Timestamp::now(),
            session: "chat-7".to_owned(),
            version: if variant == Variant::Canary { "2.0.0" } else { "1.0.0" }.to_owned(),
            variant: Some(variant),
            segment: Some("all_users".to_owned()),
            prompt: "answer".to_owned(),
            model: "small".to_owned(),
            messages: vec![MessageView {
                role: "user".to_owned(),
                text: "Where is my order? I am [redacted:email].".to_owned(),
            }],
            answer: answer.to_owned(),
            signals: signals.to_vec(),
            latency_ms: Some(812.4),
            outcomes: BTreeMap::from([("task_completion".to_owned(), 1.0)]),
            redactions: 1,
        }
    }

    fn recording(on: bool) -> RecordingView {
        RecordingView { on, rate_percent: 5.0, expires_after: HoldFor::from_hours(168), dropped: 0 }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn stable_and_canary_stand_beside_each_other() {
        let stable = [sample(Variant::Stable, "It is on its way and arrives tomorrow.\nAnything else?", &[])];
        let canary = [
            sample(Variant::Canary, "I cannot help with that.", &[SampleSignal::Refusal]),
            sample(Variant::Canary, "", &[SampleSignal::Error]),
        ];
        insta::assert_snapshot!(plain(&beside(&recording(true), &stable, &canary, 100)), @"
        recording 5% of the sessions, each kept for 7d

        1.0.0 stable · chat-7 · just now                   2.0.0 canary · chat-7 · just now
        answer · small · all_users · 812ms ·               answer · small · all_users · 812ms ·
        task_completion 1                                  task_completion 1
        user: Where is my order? I am [redacted:email].    refusal
        It is on its way and arrives tomorrow.             user: Where is my order? I am [redacted:email].
        Anything else?                                     I cannot help with that.

                                                           2.0.0 canary · chat-7 · just now
                                                           answer · small · all_users · 812ms ·
                                                           task_completion 1
                                                           error
                                                           user: Where is my order? I am [redacted:email].
                                                           (no answer)
        ");
    }

    #[test]
    fn on_a_narrow_terminal_they_stand_below_each_other() {
        let samples = vec![sample(Variant::Canary, "It is on its way and arrives tomorrow.", &[])];
        let view = SamplesView { recording: recording(false), samples, next: None };
        insta::assert_snapshot!(plain(&stacked(&view, &[&view.samples], 40)), @"
        not recording; what was recorded before is kept until it expires

        2.0.0 canary · chat-7 · just now
        answer · small · all_users · 812ms ·
        task_completion 1
        user: Where is my order? I am
        [redacted:email].
        It is on its way and arrives tomorrow.
        ");
        let empty = Vec::new();
        assert!(plain(&stacked(&view, &[&empty], 40)).contains("set `samples.rate`"));
    }

    #[test]
    fn lines_are_broken_between_words_and_nothing_moves_the_cursor() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrapped("a\u{1b}[2Jb\tc\n\nd", 20), ["a�[2Jb�c", "", "d"]);
        assert_eq!(wrapped("", 4), [""; 0]);
    }
}
