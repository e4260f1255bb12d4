//! Requests of our own to a provider, such as those to a judge.
//!
//! They count towards the provider's limits and go by its connections, key and timeouts, as those of apps do.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Either, Full, Limited};
use serin_core::ids::ProviderName;

use super::Upstream;
use super::protocol::Protocol;
use super::upstream::SendError;
use super::upstreams::Upstreams;

/// The largest answer, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The settings do not have the provider, or it does not speak the protocol.
    #[error("the settings have no provider {0} that speaks OpenAI's protocol")]
    NoProvider(String),
    /// It could not be reached, or too many requests to it are under way.
    #[error("{0}")]
    NotReached(String),
    /// It took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// It answered with an error.
    #[error("the provider answered {0}")]
    Refused(u16),
    /// Its answer broke off, or is too large.
    #[error("the answer broke off, or is larger than {LARGEST_ANSWER} bytes")]
    Broken,
}

impl AskError {
    /// The same in one word; the store knows which of them cost nothing.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoProvider(_) => "no_provider",
            Self::NotReached(_) => "unreachable",
            Self::TimedOut(_) => "timed_out",
            Self::Refused(_) => "refused",
            Self::Broken => "broken_off",
        }
    }
}

impl Upstreams {
    /// Sends a body to Chat Completions of a provider, the default one where none is named, and reads the answer.
    ///
    /// # Errors
    /// [`AskError`] when there is no answer of status 2xx in time.
    pub async fn ask(
        &self,
        provider: Option<&ProviderName>,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<Bytes, AskError> {
        let upstream = self.find(provider).filter(|upstream| upstream.speaks(Protocol::Chat));
        let Some(upstream) = upstream else {
            return Err(AskError::NoProvider(
                provider.map_or_else(|| "by default".to_owned(), ToString::to_string),
            ));
        };
        let request = Request::post("/v1/chat/completions").header(CONTENT_TYPE, "application/json");
        let (mut parts, ()) = request.body(()).expect("a path and a header make a request").into_parts();
        upstream.address(&mut parts);
        Upstream::ask_for_identity(&mut parts.headers);
        let request = Request::from_parts(parts, Either::Left(Full::new(Bytes::from(body))));
        let answered = tokio::time::timeout(within, async {
            let answer = upstream.send(request).await.map_err(|error| match error {
                SendError::Unreachable(refusal) | SendError::Busy(refusal) => {
                    AskError::NotReached(refusal.message)
                }
                SendError::TimedOut(_) => AskError::TimedOut(within),
            })?;
            if !answer.status().is_success() {
                return Err(AskError::Refused(answer.status().as_u16()));
            }
            let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
            Ok(body.map_err(|_| AskError::Broken)?.to_bytes())
        });
        answered.await.unwrap_or(Err(AskError::TimedOut(within)))
    }
}
