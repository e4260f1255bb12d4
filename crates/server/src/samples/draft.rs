//! A conversation as it was, in memory only, and its redaction.

use std::fmt;

use jiff::Timestamp;
use serin_core::ids::PromptName;
use serin_core::observation::Response;
use serin_core::redact::Redactor;

use super::{Message, Said, Sample, SampleSignal};
use crate::resolve::Resolved;

/// Characters of a model's name that are kept.
const LONGEST_MODEL: usize = 100;

/// Whose conversation it is.
#[derive(Clone)]
pub struct Subject {
    /// Names the request.
    pub id: String,
    /// The version of the session.
    pub resolved: Resolved,
    /// The prompt of the pack; nothing when the app holds the prompts and names none.
    pub prompt: Option<PromptName>,
    /// When the request came.
    pub at: Timestamp,
}

/// What was said and is not redacted yet.
pub struct Draft {
    subject: Subject,
    model: String,
    messages: Vec<Message>,
    answer: String,
    signals: Vec<SampleSignal>,
    latency_ms: Option<f64>,
}

impl fmt::Debug for Draft {
    /// Its texts are not shown: they may hold anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft").field("id", &self.subject.id).finish_non_exhaustive()
    }
}

impl Draft {
    /// What was asked; the answer is to come.
    pub fn asked(subject: Subject, model: String, messages: Vec<Message>) -> Self {
        let (answer, signals) = (String::new(), Vec::new());
        Self { subject, model, messages, answer, signals, latency_ms: None }
    }

    /// Adds the answer as it was, and what was measured of it.
    pub fn answered(&mut self, answer: String, response: &Response, is_readable: bool) {
        let is = |flag: Option<bool>| flag == Some(true);
        let told = [
            (SampleSignal::Refusal, is(response.refusal)),
            (SampleSignal::Truncated, is(response.truncated)),
            (SampleSignal::Empty, is(response.empty)),
            (SampleSignal::Error, response.success == Some(false)),
            (SampleSignal::ToolWrong, response.wrong_tool_calls.is_some_and(|calls| calls > 0)),
            (SampleSignal::InvalidFormat, is(response.invalid_format)),
            (SampleSignal::RepeatedQuestion, is(response.repeated_question)),
            (SampleSignal::Left, response.success.is_none()),
            (SampleSignal::Unreadable, !is_readable),
        ];
        self.signals = told.into_iter().filter(|(_, holds)| *holds).map(|(signal, _)| signal).collect();
        self.answer = answer;
        self.latency_ms = response.latency_ms;
    }

    /// The sample: redacted, and cut to `max_bytes` of text, of which the answer gets at least half.
    pub fn redacted(self, redactor: &Redactor, max_bytes: usize) -> Sample {
        let Self { subject, model, messages, answer, signals, latency_ms } = self;
        let Subject { id, resolved, prompt, at } = subject;
        let mut redactions = 0;
        let mut redact = |text: &str, keep: usize| {
            let mut redacted = redactor.redact(text, keep);
            redactions += redacted.count;
            if redacted.is_cut {
                redacted.text.push('…');
            }
            redacted.text
        };
        let mut room = max_bytes / 2;
        let messages = messages
            .into_iter()
            .map(|Message { role, text }| {
                let text = redact(&text, room);
                room = room.saturating_sub(text.len());
                Message { role, text }
            })
            .collect();
        let answer = redact(&answer, max_bytes / 2 + room);
        let model = redact(&model, LONGEST_MODEL);
        let stamp = resolved.cohort.of_rollout();
        // The names of segments are those of the rollout in force, which may be another one by now.
        let segment = stamp.and_then(|stamp| {
            let split = resolved.pack.route.split.as_ref().filter(|split| split.rollout == stamp.rollout)?;
            split.segments.get(usize::from(stamp.segment)).map(|segment| segment.name.to_string())
        });
        Sample {
            id,
            pack: resolved.pack.route.pack.clone(),
            key: resolved.key,
            hash: resolved.hash,
            cohort: resolved.cohort.id,
            version: resolved.version,
            variant: stamp.map(|_| resolved.cohort.variant),
            rollout: stamp.map(|stamp| stamp.rollout.clone()),
            segment,
            at,
            signals,
            said: Said {
                prompt: prompt.map_or_else(String::new, |prompt| prompt.to_string()),
                model,
                messages,
                answer,
                latency_ms,
                redactions,
            },
        }
    }
}
