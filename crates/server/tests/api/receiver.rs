//! A receiver of notifications that a test can switch off.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;

/// What the receiver does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Takes it.
    Takes,
    /// Is down.
    IsDown,
    /// Does not want it.
    Refuses,
    /// Sends the sender elsewhere.
    Redirects,
}

/// One request that was taken or turned away.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) was_taken: bool,
}

/// The mood it is in, and what it was sent.
type Kept = Arc<Mutex<(Mood, Vec<Letter>)>>;

/// A receiver with what it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    pub(crate) address: SocketAddr,
    state: Kept,
}

impl Inbox {
    pub(crate) async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new((Mood::Takes, Vec::new())));
        let router = Router::new().fallback(take).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, state }
    }

    pub(crate) fn is_now(&self, mood: Mood) {
        self.state.lock().unwrap().0 = mood;
    }

    /// Everything that was sent so far.
    pub(crate) fn letters(&self) -> Vec<Letter> {
        self.state.lock().unwrap().1.clone()
    }

    /// What was taken, in the order of arrival.
    pub(crate) fn taken(&self) -> Vec<Letter> {
        self.letters().into_iter().filter(|letter| letter.was_taken).collect()
    }

    /// Settings with this receiver as a signed webhook, with further fields and settings.
    pub(crate) fn settings(&self, further: &str) -> String {
        format!(
            "notify:\n  receivers:\n  - {{name: oncall, type: webhook, url: 'http://{}/hook', keyFile: {}, allowInternal: true, minSeverity: info{further}}}\n",
            self.address,
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/webhook.key"),
        )
    }
}

async fn take(
    State(state): State<Kept>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let mut state = state.lock().unwrap();
    let mood = state.0;
    let body = serde_json::from_slice(&body).unwrap();
    let was_taken = mood == Mood::Takes;
    state.1.push(Letter { path: uri.to_string(), headers, body, was_taken });
    match mood {
        Mood::Takes => StatusCode::ACCEPTED.into_response(),
        Mood::IsDown => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mood::Refuses => (StatusCode::BAD_REQUEST, "no such\u{7}thing").into_response(),
        Mood::Redirects => {
            (StatusCode::FOUND, [("location", "http://169.254.169.254/latest")]).into_response()
        }
    }
}
