//! What was read of packs a moment ago, so that fifty open dashboards ask the store once.
//!
//! Reading a rollout adds up its evidence, which costs milliseconds. A request that says how old its
//! answer may be, as `Cache-Control: max-age=1` does, may get what another one has just read. An answer
//! from before a change of the pack is never given, and a request that says nothing reads anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::header::CACHE_CONTROL;
use axum::http::request::Parts;
use serin_core::ids::PackName;

use super::App;
use super::error::ApiError;
use super::packs::detail;
use super::types::{DecisionView, PackDetail};
use crate::recent;
use crate::store::AuditFilter;

/// No request gets an older answer, whatever it allows.
const OLDEST: Duration = Duration::from_secs(10);

/// How old an answer may be; zero where the request does not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaxAge(pub(super) Duration);

impl<S: Sync> FromRequestParts<S> for MaxAge {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let header = parts.headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
        let seconds = header.into_iter().flat_map(|value| value.split(',')).find_map(|directive| {
            let (name, seconds) = directive.split_once('=')?;
            name.trim().eq_ignore_ascii_case("max-age").then(|| seconds.trim().parse().ok())?
        });
        Ok(Self(Duration::from_secs(seconds.unwrap_or(0)).min(OLDEST)))
    }
}

/// A pack as a dashboard shows it.
#[derive(Debug)]
pub(super) struct Look {
    /// The pack with its current or latest rollout.
    pub(super) detail: PackDetail,
    /// What was decided last about that rollout.
    pub(super) decision: Option<DecisionView>,
}

/// What was read a moment ago, one look per pack.
#[derive(Debug, Default)]
pub struct Recent(recent::Recent<Kept>);

#[derive(Debug)]
struct Kept {
    made: Instant,
    look: Arc<Look>,
}

impl Recent {
    /// A pack, read now or not longer ago than `age`.
    pub(super) async fn look(
        &self,
        app: &App,
        name: &PackName,
        MaxAge(age): MaxAge,
    ) -> Result<Arc<Look>, ApiError> {
        if age.is_zero() {
            return Ok(Arc::new(look(app, name).await?));
        }
        let mut kept = self.0.of(name).await;
        if let Some(kept) = &*kept
            && kept.made.elapsed() <= age
            && is_current(app, name, &kept.look.detail).await
        {
            return Ok(Arc::clone(&kept.look));
        }
        let look = Arc::new(look(app, name).await?);
        *kept = Some(Kept { made: Instant::now(), look: Arc::clone(&look) });
        Ok(look)
    }
}

async fn is_current(app: &App, name: &PackName, detail: &PackDetail) -> bool {
    let standing = app.control.standing(name).await;
    standing.is_some_and(|(state, _, forced)| state.revision == detail.revision && forced == detail.forced)
}

async fn look(app: &App, name: &PackName) -> Result<Look, ApiError> {
    let detail = detail(app, name).await?;
    let decision = match &detail.rollout {
        None => None,
        Some(rollout) => {
            let filter = AuditFilter {
                pack: Some(name.clone()),
                rollout: super::read::rollout_id(&rollout.id).ok(),
                newest_first: true,
                limit: Some(1),
                ..AuditFilter::default()
            };
            app.control.store().audit(&filter).await?.first().map(DecisionView::from)
        }
    };
    Ok(Look { detail, decision })
}
