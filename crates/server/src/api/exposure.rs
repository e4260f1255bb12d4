//! Who saw the canary of a rollout: how many, and the list of sessions to export.

use std::collections::VecDeque;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::try_unfold;
use serde::Deserialize;
use serin_core::ids::{PackName, RolloutId, SessionHash};
use serin_core::units::Timestamp;
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::error::ApiError;
use super::read::{NoParams, Params, limit};
use super::rollouts::{any_rollout, stored};
use super::types::{ExposedPage, ExposedSessionView, ExposureView, ProblemDetails};
use crate::store::{ExposedPlace, ExposedSession, StoreError};

/// Sessions that are read at a time.
const PAGE: u32 = 1_000;

/// Shows who saw the canary of a rollout.
#[utoipa::path(
    get, path = "/rollouts/{id}/exposure", tag = "rollouts", params(("id" = String, Path, description = "The rollout.")),
    responses(
        (status = 200, description = "Sessions and requests that saw the canary.", body = ExposureView),
        (status = 404, description = "There is no such rollout.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn exposure(
    State(app): State<App>,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Json<ExposureView>, ApiError> {
    Ok(Json(any_rollout(&app, &id).await?.exposure))
}

/// Which sessions are listed, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SessionsParams {
    /// Only sessions after this place: `next_after` of the page before.
    after: Option<String>,
    /// At most so many in a page of JSON, 1 to 1 000; the other formats hold all.
    #[param(default = 1_000, minimum = 1, maximum = 1_000)]
    limit: Option<u32>,
    /// How the list is written.
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// How a list of sessions is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Page by page.
    #[default]
    Json,
    /// All, an object in a line.
    Ndjson,
    /// All, with a line of headings.
    Csv,
}

/// Lists the sessions that were assigned to the canary of a rollout.
#[utoipa::path(
    get, path = "/rollouts/{id}/exposure/sessions", tag = "rollouts",
    params(("id" = String, Path, description = "The rollout."), SessionsParams),
    responses(
        (status = 200, description = "In the order of their assignment; a session counts where it was first assigned.", content((ExposedPage = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 400, description = "A parameter is wrong.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is no such rollout.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn exposed_sessions(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(params): Params<SessionsParams>,
) -> Result<Response, ApiError> {
    let rollout = stored(&app, &id).await?;
    let after = params.after.as_deref().map(place).transpose()?;
    let most = limit(params.limit, PAGE, PAGE)?;
    let list = List { app, pack: rollout.pack, rollout: rollout.rollout.id };
    match params.format {
        Format::Json => {
            let (sessions, last) = list.page(after, most).await?;
            let is_full = u32::try_from(sessions.len()).is_ok_and(|n| n == most);
            let next_after = last.filter(|_| is_full).map(shown);
            Ok(Json(ExposedPage { rollout: list.rollout.to_string(), sessions, next_after }).into_response())
        }
        Format::Ndjson => Ok(list.written("application/x-ndjson", after, None, |session| {
            serde_json::to_string(session).expect("a session holds text and numbers only")
        })),
        Format::Csv => {
            let head = Some(ExposedSessionView::CSV_HEAD);
            Ok(list.written("text/csv; charset=utf-8", after, head, ExposedSessionView::csv))
        }
    }
}

/// A place as it stands in `next_after`: microseconds since 1970, and 32 hexadecimal digits of the hash.
fn shown(place: ExposedPlace) -> String {
    format!("{}-{:032x}", place.assigned_at.as_microsecond(), place.hash.0)
}

fn place(text: &str) -> Result<ExposedPlace, ApiError> {
    let read = || {
        let (at, hash) = text.rsplit_once('-')?;
        let is_hash = hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hash = if is_hash { u128::from_str_radix(hash, 16).ok()? } else { return None };
        let assigned_at = Timestamp::from_microsecond(at.parse().ok()?).ok()?;
        Some(ExposedPlace { assigned_at, hash: SessionHash(hash) })
    };
    read().ok_or_else(|| {
        ApiError::bad_request("query", "after is no place in the list")
            .hint("give `next_after` of the page before")
    })
}

/// The exposed sessions of one rollout.
struct List {
    app: App,
    pack: PackName,
    rollout: RolloutId,
}

impl List {
    /// A page, and the place of its last session.
    async fn page(
        &self,
        after: Option<ExposedPlace>,
        most: u32,
    ) -> Result<(Vec<ExposedSessionView>, Option<ExposedPlace>), StoreError> {
        let store = self.app.control.store();
        let mut views = Vec::new();
        let mut last = None;
        for exposed in store.exposed_sessions(&self.pack, &self.rollout, after, most).await? {
            let ExposedSession { hash, key, cohort, assigned_at, last_seen, requests } = exposed;
            last = Some(ExposedPlace { assigned_at, hash });
            let cohort = store.cohort(&self.pack, cohort).await?;
            let stamp = cohort.as_ref().and_then(|cohort| cohort.stamp.as_ref());
            views.push(ExposedSessionView {
                session: key,
                key_hash: format!("{:032x}", hash.0),
                weight: stamp.map_or(0.0, |stamp| stamp.weight.percent()),
                step: stamp.map_or(0, |stamp| stamp.step),
                assigned_at,
                last_seen,
                requests,
            });
        }
        Ok((views, last))
    }

    /// All sessions as lines, read page by page while they are sent.
    fn written(
        self,
        media: &'static str,
        after: Option<ExposedPlace>,
        head: Option<&'static str>,
        line: fn(&ExposedSessionView) -> String,
    ) -> Response {
        let first: VecDeque<Bytes> = head.into_iter().map(|head| Bytes::from(format!("{head}\n"))).collect();
        let lines = try_unfold((self, Some(after), first), move |(list, next, mut ready)| async move {
            if let Some(bytes) = ready.pop_front() {
                return Ok::<_, StoreError>(Some((bytes, (list, next, ready))));
            }
            let Some(after) = next else { return Ok(None) };
            let (sessions, last) = list.page(after, PAGE).await?;
            if sessions.is_empty() {
                return Ok(None);
            }
            let text: String = sessions.iter().map(|session| line(session) + "\n").collect();
            let is_full = u32::try_from(sessions.len()).is_ok_and(|n| n == PAGE);
            let next = is_full.then_some(last);
            Ok(Some((Bytes::from(text), (list, next, ready))))
        });
        ([(CONTENT_TYPE, media)], Body::from_stream(lines)).into_response()
    }
}
