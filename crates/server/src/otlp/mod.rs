//! OpenTelemetry: from spans and events of apps to facts of sessions.
//!
//! [`wire`] reads what is sent, [`meaning`] finds what it tells by the names of [`aliases`], and [`links`] joins what
//! does not name its session with what does: by span, by response, by trace. Finding the session's version and
//! writing the facts is the API's part.

pub mod aliases;
pub mod links;
pub mod meaning;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
pub mod wire;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::links::Links;
use self::meaning::{Item, Own};
use self::wire::{Logs, Traces};

/// What is known of the telemetry that apps send.
#[derive(Debug)]
pub struct Otlp {
    /// Where this server is reached.
    pub own: Own,
    /// Who is who, and what waits to be told.
    pub links: Mutex<Links>,
    /// What is counted on the way.
    pub counts: OtlpCounts,
}

impl Otlp {
    /// Knows nothing yet.
    pub fn new(own: Own) -> Self {
        Self { own, links: Mutex::default(), counts: OtlpCounts::default() }
    }
}

/// What is counted on the way.
#[derive(Debug, Default)]
pub struct OtlpCounts {
    /// Spans that came.
    pub spans: AtomicU64,
    /// Log records that came.
    pub records: AtomicU64,
    /// Model calls that were stored as responses.
    pub responses: AtomicU64,
    /// Evaluations that were stored as outcomes.
    pub outcomes: AtomicU64,
    /// Flags that were evaluated for a session with the version that it has.
    pub exposures: AtomicU64,
    /// Facts that were stored before.
    pub duplicates: AtomicU64,
    /// Model calls that this server's own gateway has seen already.
    pub seen: AtomicU64,
    /// Model calls and flags of prompts that are not ours.
    pub ignored: AtomicU64,
    /// What was refused, with a reason to the sender.
    pub rejected: AtomicU64,
    /// Model calls and evaluations that nothing gave a session in time, or that did not fit.
    pub unjoined: AtomicU64,
}

impl OtlpCounts {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The items of spans, and how many spans there were.
pub fn of_traces(traces: &Traces, own: &Own) -> (Vec<Item>, usize) {
    let mut items = Vec::new();
    let mut count = 0;
    for of_service in &traces.resource_spans {
        let resource = of_service.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        for span in of_service.scope_spans.iter().flat_map(|scope| &scope.spans) {
            items.extend(
                meaning::of_span(span, resource, own).into_iter().map(|item| Item { from: count, ..item }),
            );
            count += 1;
        }
    }
    (items, count)
}

/// The items of log records, and how many records there were.
pub fn of_logs(logs: &Logs) -> (Vec<Item>, usize) {
    let mut items = Vec::new();
    let mut count = 0;
    for of_service in &logs.resource_logs {
        let resource = of_service.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        for record in of_service.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            items.extend(meaning::of_record(record, resource).map(|item| Item { from: count, ..item }));
            count += 1;
        }
    }
    (items, count)
}
