//! Joins what does not name its session with what does.
//!
//! A library that instruments a client of a provider knows nothing of sessions: its spans lie in the trace of a span
//! that does, or of a flag that was evaluated. An evaluation names the span or the response that it judges. Either
//! may come first, so what finds no session waits for a while.

use std::collections::{HashMap, VecDeque};

use serin_core::units::{HoldFor, Timestamp};

use super::meaning::{Item, Subject, Told};

/// Spans, traces and responses that are remembered at most; the oldest are forgotten first.
pub const MOST_LINKS: usize = 200_000;
/// Items that wait for their session at most.
pub const MOST_WAITING: usize = 10_000;
/// The longest time that an item waits for its session.
pub const LONGEST_WAIT: HoldFor = HoldFor::from_mins(10);

/// What a session can be found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Span(Vec<u8>, Vec<u8>),
    Trace(Vec<u8>),
    Response(String),
}

/// Who is who, and what waits to be told.
#[derive(Debug, Default)]
pub struct Links {
    known: HashMap<Key, Subject>,
    /// The keys in the order in which they were learned.
    order: VecDeque<Key>,
    waiting: VecDeque<(Timestamp, Item)>,
}

/// What came of joining.
#[derive(Debug, Default)]
pub struct Joined {
    /// Items of this request with what is known of their subject.
    pub ready: Vec<Item>,
    /// Items of earlier requests that have found their session now.
    pub released: Vec<Item>,
    /// Items that waited in vain, or did not fit.
    pub unjoined: usize,
}

impl Links {
    /// Items that wait for their session.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whose response it was, as far as telemetry told.
    pub fn of_response(&self, id: &str) -> Option<&Subject> {
        self.known.get(&Key::Response(id.to_owned()))
    }

    /// Joins the items of one request with each other and with what came before.
    pub fn join(&mut self, mut items: Vec<Item>, now: Timestamp) -> Joined {
        let mut joined = Joined { unjoined: self.forget_waiting(now), ..Joined::default() };
        credit_tools(&mut items);
        let mut has_learned = false;
        for item in &items {
            has_learned |= self.learn(item);
        }
        for item in items {
            let item = self.filled(item);
            // By now the span's own session is known to whoever judges it.
            self.learn(&item);
            let needs_session = matches!(item.told, Told::Call(_) | Told::Outcome { .. });
            if !needs_session || item.subject.session.is_some() {
                joined.ready.push(item);
            } else if self.waiting.len() < MOST_WAITING {
                self.waiting.push_back((now, item));
            } else {
                joined.unjoined += 1;
            }
        }
        if has_learned {
            for (since, item) in std::mem::take(&mut self.waiting) {
                let item = self.filled(item);
                if item.subject.session.is_some() {
                    self.learn(&item);
                    joined.released.push(item);
                } else {
                    self.waiting.push_back((since, item));
                }
            }
        }
        joined
    }

    /// Drops what has waited for too long and says how much that was.
    fn forget_waiting(&mut self, now: Timestamp) -> usize {
        let is_over = |since: Timestamp| now >= LONGEST_WAIT.after(since);
        let over = self.waiting.iter().take_while(|(since, _)| is_over(*since)).count();
        self.waiting.drain(..over);
        over
    }

    /// Notes whom an item is about, if it says so; says whether that was new.
    fn learn(&mut self, item: &Item) -> bool {
        if item.subject.session.is_none() {
            return false;
        }
        let mut is_new = false;
        if let Some(response) = &item.response {
            is_new |= self.note(Key::Response(response.clone()), item.subject.clone());
        }
        let trace = &item.place.trace;
        if !trace.is_empty() && !item.place.span.is_empty() && !matches!(item.told, Told::Exposure) {
            let span = Key::Span(trace.clone(), item.place.span.clone());
            is_new |= self.note(span, item.subject.clone());
        }
        if !trace.is_empty() {
            is_new |= self.note_trace(item);
        }
        is_new
    }

    /// A trace is about one session; about one pack only as long as nothing in it is about another.
    fn note_trace(&mut self, item: &Item) -> bool {
        let key = Key::Trace(item.place.trace.clone());
        let is_around = matches!(item.told, Told::Context | Told::Exposure);
        let session = Subject { session: item.subject.session.clone(), ..Subject::default() };
        let told = if is_around { item.subject.clone() } else { session.clone() };
        match self.known.get(&key) {
            None => self.note(key, told),
            Some(known) if known.session != told.session || told.pack.is_none() => false,
            Some(known) => match &known.pack {
                None => self.note(key, told),
                Some(pack) if Some(pack) == told.pack.as_ref() => false,
                // An empty name stands for several packs and matches none.
                Some(_) => self.note(key, Subject { pack: Some(String::new()), ..session }),
            },
        }
    }

    fn note(&mut self, key: Key, subject: Subject) -> bool {
        match self.known.insert(key.clone(), subject.clone()) {
            Some(before) => before != subject,
            None => {
                self.order.push_back(key);
                if self.order.len() > MOST_LINKS
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.known.remove(&oldest);
                }
                true
            }
        }
    }

    /// The item with what is known of its subject.
    fn filled(&self, mut item: Item) -> Item {
        let of_response = item.response.clone().map(Key::Response);
        let place = &item.place;
        let of_span = (!place.span.is_empty()).then(|| Key::Span(place.trace.clone(), place.span.clone()));
        let of_trace = (!place.trace.is_empty()).then(|| Key::Trace(place.trace.clone()));
        for key in [of_response, of_span, of_trace].into_iter().flatten() {
            let Some(known) = self.known.get(&key) else { continue };
            // What is known of another session says nothing about this one.
            if item.subject.session.as_ref().is_none_or(|own| known.session.as_ref() == Some(own)) {
                let subject = std::mem::take(&mut item.subject);
                let several = known.pack.as_deref() == Some("");
                let pack = if several { None } else { known.pack.clone() };
                item.subject = subject.or(&Subject { pack, ..known.clone() });
            }
        }
        item
    }
}

/// A tool that failed was called wrongly by the model call before it.
fn credit_tools(items: &mut [Item]) {
    let tools: Vec<(Vec<u8>, Option<Timestamp>)> = items
        .iter()
        .filter(|item| matches!(item.told, Told::Tool { failed: true }) && !item.place.trace.is_empty())
        .map(|item| (item.place.trace.clone(), item.at))
        .collect();
    for (trace, at) in tools {
        let calls = items.iter_mut().filter(|item| item.place.trace == trace && item.at <= at);
        let calls = calls.filter_map(|item| match &mut item.told {
            Told::Call(response) => Some((item.at, response)),
            Told::Seen | Told::Tool { .. } | Told::Outcome { .. } | Told::Exposure | Told::Context => None,
        });
        if let Some((_, response)) = calls.max_by_key(|(at, _)| *at) {
            let wrong = response.wrong_tool_calls.unwrap_or(0) + 1;
            response.wrong_tool_calls = Some(wrong);
            response.tool_calls = Some(response.tool_calls.unwrap_or(0).max(wrong));
        }
    }
}
