//! The stand-in itself: its script, its counters, and its routes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::error::{ApiError, Dialect};
use crate::script::Script;
use crate::{anthropic_messages, openai_chat, openai_responses, openai_rest};

/// The largest request body, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A stand-in provider without a listener, cheap to clone.
///
/// All clones and routers share one script and one set of counters.
#[derive(Clone)]
pub struct StandIn {
    shared: Arc<Shared>,
}

struct Shared {
    script: ArcSwap<Script>,
    stats: watch::Sender<Stats>,
    chats: AtomicU64,
    last_request: Mutex<Option<Arc<RecordedRequest>>>,
}

/// What became of the requests so far; each is counted once it arrived and once it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Requests that arrived.
    pub requests: u64,
    /// Requests whose answer, error or not, was handed out to its end.
    pub completed: u64,
    /// Requests that the client left before the end of the answer.
    pub cancelled: u64,
    /// Requests whose connection the script dropped.
    pub dropped: u64,
    /// Requests that have not ended yet.
    pub in_flight: u64,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// The method.
    pub method: Method,
    /// The path with its query.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl StandIn {
    /// Makes a stand-in that answers by this script.
    pub fn new(script: Script) -> StandIn {
        StandIn {
            shared: Arc::new(Shared {
                script: ArcSwap::from_pointee(script),
                stats: watch::Sender::new(Stats::default()),
                chats: AtomicU64::new(0),
                last_request: Mutex::new(None),
            }),
        }
    }

    /// Returns the routes, to be served by a listener of the caller's.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/chat/completions", post(openai_chat::chat_completions))
            .route("/v1/responses", post(openai_responses::responses))
            .route("/v1/messages", post(anthropic_messages::messages))
            .route("/v1/models", get(openai_rest::models))
            .route("/v1/embeddings", post(openai_rest::embeddings))
            .route("/stand-in/stats", get(show_stats))
            .route("/stand-in/last", get(show_last_request))
            .fallback(openai_rest::unknown_path)
            .method_not_allowed_fallback(openai_rest::wrong_method)
            .with_state(self.clone())
    }

    /// Replaces the script; requests in flight keep the one they started with.
    pub fn set_script(&self, script: Script) {
        self.shared.script.store(Arc::new(script));
    }

    /// Returns what became of the requests so far.
    pub fn stats(&self) -> Stats {
        *self.shared.stats.borrow()
    }

    /// Waits until the counters satisfy `condition`, and returns them.
    pub async fn stats_when(&self, condition: impl FnMut(&Stats) -> bool) -> Stats {
        let mut changes = self.shared.stats.subscribe();
        *changes.wait_for(condition).await.expect("the sender lives as long as self")
    }

    /// Returns the last request whose body arrived in full, if there was one.
    pub fn last_request(&self) -> Option<Arc<RecordedRequest>> {
        let last = self.shared.last_request.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the script in force.
    pub(crate) fn script(&self) -> Arc<Script> {
        self.shared.script.load_full()
    }

    /// Returns the number of the next chat request, from 0.
    pub(crate) fn next_chat(&self) -> u64 {
        self.shared.chats.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a request, the first thing to be done with it.
    ///
    /// The answer to `HEAD` has no body whose end could be seen: it is complete at once.
    pub(crate) fn admit(&self, request: &Request) -> Ticket {
        let mut number = 0;
        self.shared.stats.send_modify(|stats| {
            number = stats.requests;
            stats.requests += 1;
            stats.in_flight += 1;
        });
        let mut ticket = Ticket { shared: self.shared.clone(), number, state: TicketState::Open };
        if request.method() == Method::HEAD {
            ticket.completed();
        }
        ticket
    }

    /// Reads a request's body, records the request, and checks that it has a key.
    pub(crate) async fn receive(
        &self,
        request: Request,
        script: &Script,
        dialect: Dialect,
    ) -> Result<Arc<RecordedRequest>, ApiError> {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, BODY_BYTES_MAX)
            .await
            .map_err(|_| ApiError::body_unreadable(dialect))?;
        let recorded =
            Arc::new(RecordedRequest { method: parts.method, uri: parts.uri, headers: parts.headers, body });
        *self.shared.last_request.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorded.clone());
        let has_key =
            recorded.headers.contains_key(AUTHORIZATION) || recorded.headers.contains_key("x-api-key");
        if script.require_key && !has_key {
            return Err(ApiError::key_missing(dialect));
        }
        Ok(recorded)
    }
}

/// The right to answer one request; dropped without an end, the client is said to have left.
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    number: u64,
    state: TicketState,
}

#[derive(PartialEq, Eq)]
enum TicketState {
    Open,
    Settled,
}

impl Ticket {
    /// Returns the number of the request, from 0.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The answer was handed out to its end.
    pub(crate) fn completed(&mut self) {
        self.settle(|stats| &mut stats.completed);
    }

    /// The script dropped the connection.
    pub(crate) fn dropped(&mut self) {
        self.settle(|stats| &mut stats.dropped);
    }

    fn settle(&mut self, counter: fn(&mut Stats) -> &mut u64) {
        if self.state == TicketState::Open {
            self.state = TicketState::Settled;
            self.shared.stats.send_modify(|stats| {
                stats.in_flight -= 1;
                *counter(stats) += 1;
            });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.settle(|stats| &mut stats.cancelled);
    }
}

async fn show_stats(State(stand_in): State<StandIn>) -> Response {
    json(&stand_in.stats())
}

async fn show_last_request(State(stand_in): State<StandIn>) -> Response {
    let Some(last) = stand_in.last_request() else {
        let nothing = serde_json::json!({"error": "no request has arrived yet"});
        return (StatusCode::NOT_FOUND, json(&nothing)).into_response();
    };
    let mut headers = serde_json::Map::new();
    for name in last.headers.keys() {
        let values: Vec<_> = last
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        headers.insert(name.to_string(), values.join(", ").into());
    }
    json(&serde_json::json!({
        "method": last.method.as_str(),
        "path": last.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&last.body),
    }))
}

fn json(value: &impl Serialize) -> Response {
    let text = serde_json::to_vec(value).expect("the value has text keys only");
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}
