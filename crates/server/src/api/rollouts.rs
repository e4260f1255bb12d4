//! Reading rollouts: where they stand, their checks, what happened.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serin_core::access::Scope;
use serin_core::analysis::Analysis;
use serin_core::ids::PackName;
use serin_core::parse::parse;
use serin_core::rollout::Rollout;
use serin_core::units::Timestamp;
use utoipa::IntoParams;

use super::App;
use super::caller::Asker;
use super::error::ApiError;
use super::judged;
use super::missing;
use super::packs::draining;
use super::read::{NoParams, Params, limit, pack_name, rollout_id, unknown_rollout};
use super::recent::MaxAge;
use super::types::{
    CheckList, ExposureCounts, ProblemDetails, ReplayView, RolloutList, RolloutSummary, RolloutView,
    SeriesView, TimelineView,
};
use super::view::{Seen, check_view, rollout_summary, series, spans};
use crate::control::view::PackView;
use crate::store::{AuditFilter, Exposure, RolloutFilter, StoredRollout};

/// Checks that a series is made of at most.
const MOST_POINTS: u32 = 2_000;
/// Audit entries of one rollout that are shown at most.
const MOST_ENTRIES: u32 = 1_000;

/// Which rollouts are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only those of a pack.
    pack: Option<String>,
    /// Only those under way, or only those that are over.
    active: Option<bool>,
    /// At most so many, 1 to 200.
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Lists rollouts.
#[utoipa::path(
    get, path = "/rollouts", tag = "rollouts", params(ListParams),
    responses(
        (status = 200, description = "Newest first.", body = RolloutList),
        (status = 404, description = "There is no such pack.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(app): State<App>,
    asker: Asker,
    Params(params): Params<ListParams>,
) -> Result<Json<RolloutList>, ApiError> {
    let pack = asker.filter(&app, params.pack.as_deref()).await?;
    let filter = RolloutFilter { pack, active: params.active, limit: Some(limit(params.limit, 50, 200)?) };
    Ok(Json(RolloutList { rollouts: summaries(&app, asker.scope(), &filter).await? }))
}

/// Rollouts of the packs of a scope as a list shows them, latest first.
pub(super) async fn summaries(
    app: &App,
    scope: &Scope,
    filter: &RolloutFilter,
) -> Result<Vec<RolloutSummary>, ApiError> {
    let store = app.control.store();
    let mut stored = match (&filter.pack, scope.packs()) {
        (Some(_), _) | (None, None) => store.rollouts(filter).await?,
        (None, Some(packs)) => {
            let mut stored = Vec::new();
            for pack in packs {
                let filter = RolloutFilter { pack: Some(pack.clone()), ..filter.clone() };
                stored.extend(store.rollouts(&filter).await?);
            }
            stored.sort_by_key(|stored| std::cmp::Reverse(stored.rollout.started_at));
            stored.truncate(filter.limit.map_or(usize::MAX, |limit| limit as usize));
            stored
        }
    };
    stored.retain(|stored| scope.allows(&stored.pack));
    let mut summaries = Vec::with_capacity(stored.len());
    for StoredRollout { rollout, manifest, .. } in stored {
        let plan = parse(&manifest).map_err(|problems| ApiError::internal(&problems))?.plan;
        let Exposure { sessions, requests } = app.control.store().exposure(&rollout.id).await?;
        summaries.push(rollout_summary(&rollout, &plan, Some(ExposureCounts { sessions, requests })));
    }
    Ok(summaries)
}

/// Shows the current or latest rollout of a pack.
#[utoipa::path(
    get, path = "/packs/{pack}/rollout", tag = "rollouts", params(("pack" = String, Path, description = "The pack.")),
    responses(
        (status = 200, description = "The rollout.", body = RolloutView),
        (status = 404, description = "There is no such pack, or it never had a rollout.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn of_pack(
    State(app): State<App>,
    Path(pack): Path<String>,
    age: MaxAge,
    _: Params<NoParams>,
) -> Result<Json<RolloutView>, ApiError> {
    let name = pack_name(&pack, &app.control.names().await)?;
    let look = app.recent.look(&app, &name, age).await?;
    look.detail.rollout.clone().map(Json).ok_or_else(|| {
        let stable = &look.detail.stable;
        ApiError::not_found("no-rollout", format!("pack {name} never had a rollout; everyone gets {stable}"))
            .hint("apply a manifest with another version to start one")
    })
}

/// The current or latest rollout of a pack; nothing for a pack that never had one.
pub(super) async fn rollout_view(app: &App, view: &PackView) -> Result<Option<RolloutView>, ApiError> {
    let (Some(rollout), Some(measured)) = (&view.state.rollout, &view.measured) else { return Ok(None) };
    let last = last_check(app, rollout).await?;
    let seen = Seen {
        rollout,
        plan: &view.plan,
        measured,
        last: last.as_ref(),
        draining: draining(&view.state, &view.left),
        forced: view.forced,
        watch: view.state.watch.as_ref(),
        now: app.now(),
    };
    let mut told = seen.view();
    if rollout.active().is_some() {
        told.notes.splice(0..0, missing::notes(app, &view.plan.pack));
        told.notes.extend(judged::notes(app, &view.plan, &rollout.id).await?);
    }
    Ok(Some(told))
}

/// The last check in full of a rollout that is over; an active one reads its gates at this moment.
async fn last_check(app: &App, rollout: &Rollout) -> Result<Option<Analysis>, ApiError> {
    if rollout.active().is_some() {
        return Ok(None);
    }
    let checks = app.control.store().checks(&rollout.id, 1).await?;
    Ok(checks.into_iter().next())
}

/// Shows any rollout.
#[utoipa::path(
    get, path = "/rollouts/{id}", tag = "rollouts", params(("id" = String, Path, description = "The rollout.")),
    responses(
        (status = 200, description = "The rollout.", body = RolloutView),
        (status = 404, description = "There is no such rollout.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    age: MaxAge,
    _: Params<NoParams>,
) -> Result<Json<RolloutView>, ApiError> {
    match current(&app, &id, age).await? {
        Some(rollout) => Ok(Json(rollout)),
        None => Ok(Json(any_rollout(&app, &id).await?)),
    }
}

/// A rollout that is the current or latest one of its pack.
async fn current(app: &App, id: &str, age: MaxAge) -> Result<Option<RolloutView>, ApiError> {
    let pack = id.rsplit_once("-r").and_then(|(pack, _)| PackName::parse(pack).ok());
    let Some(pack) = pack else { return Ok(None) };
    let standing = app.control.standing(&pack).await;
    let latest = standing.and_then(|(state, ..)| state.rollout.map(|rollout| rollout.id.to_string()));
    if latest.as_deref() != Some(id) {
        return Ok(None);
    }
    let look = app.recent.look(app, &pack, age).await?;
    Ok(look.detail.rollout.clone().filter(|rollout| rollout.id == id))
}

pub(super) async fn any_rollout(app: &App, id: &str) -> Result<RolloutView, ApiError> {
    let found = app.control.rollout(&rollout_id(id)?).await?;
    let (rollout, plan, measured) = found.ok_or_else(|| unknown_rollout(id))?;
    let last = last_check(app, &rollout).await?;
    let standing = app.control.standing(&plan.pack).await;
    let (draining, forced) = match &standing {
        Some((state, _, forced)) if state.rollout.as_ref().is_some_and(|latest| latest.id == rollout.id) => {
            (draining(state, &app.control.sessions_left(&plan.pack).await), *forced)
        }
        Some(_) | None => (Vec::new(), false),
    };
    let now = app.now();
    let seen = Seen {
        rollout: &rollout,
        plan: &plan,
        measured: &measured,
        last: last.as_ref(),
        draining,
        forced,
        watch: standing.as_ref().and_then(|(state, ..)| state.watch.as_ref()),
        now,
    };
    Ok(seen.view())
}

pub(super) async fn stored(app: &App, id: &str) -> Result<StoredRollout, ApiError> {
    app.control.store().rollout(&rollout_id(id)?).await?.ok_or_else(|| unknown_rollout(id))
}

/// How many checks are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChecksParams {
    /// At most so many, 1 to 500.
    #[param(default = 20, minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Lists the checks of a rollout.
#[utoipa::path(
    get, path = "/rollouts/{id}/checks", tag = "rollouts",
    params(("id" = String, Path, description = "The rollout."), ChecksParams),
    responses(
        (status = 200, description = "Newest first.", body = CheckList),
        (status = 404, description = "There is no such rollout.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn checks(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(params): Params<ChecksParams>,
) -> Result<Json<CheckList>, ApiError> {
    let most = limit(params.limit, 20, 500)?;
    let StoredRollout { rollout, manifest, .. } = stored(&app, &id).await?;
    let plan = parse(&manifest).map_err(|problems| ApiError::internal(&problems))?.plan;
    let checks = app.control.store().checks(&rollout.id, most).await?;
    let checks = checks.iter().map(|check| check_view(check, &plan)).collect();
    Ok(Json(CheckList { rollout: rollout.id.to_string(), checks }))
}

/// Shows what happened in a rollout.
#[utoipa::path(
    get, path = "/rollouts/{id}/timeline", tag = "rollouts", params(("id" = String, Path, description = "The rollout.")),
    responses(
        (status = 200, description = "Weights and audit entries, oldest first.", body = TimelineView),
        (status = 404, description = "There is no such rollout.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn timeline(
    State(app): State<App>,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Json<TimelineView>, ApiError> {
    let StoredRollout { pack, rollout, .. } = stored(&app, &id).await?;
    let filter = AuditFilter {
        pack: Some(pack),
        rollout: Some(rollout.id.clone()),
        limit: Some(MOST_ENTRIES),
        ..AuditFilter::default()
    };
    let entries = app.control.store().audit(&filter).await?;
    Ok(Json(TimelineView {
        rollout: rollout.id.to_string(),
        spans: spans(&rollout),
        entries: entries.iter().map(Into::into).collect(),
    }))
}

/// Which checks a series is made of.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SeriesParams {
    /// Only checks made later, so that a chart which goes on reads what is new.
    #[param(value_type = Option<String>, format = DateTime)]
    after: Option<Timestamp>,
}

/// Shows the metrics of a rollout over its checks.
#[utoipa::path(
    get, path = "/rollouts/{id}/series", tag = "rollouts",
    params(("id" = String, Path, description = "The rollout."), SeriesParams),
    responses(
        (status = 200, description = "By metric, oldest point first; the last 2 000 checks at most.", body = SeriesView),
        (status = 404, description = "There is no such rollout.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn metric_series(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(params): Params<SeriesParams>,
) -> Result<Json<SeriesView>, ApiError> {
    let StoredRollout { rollout, manifest, .. } = stored(&app, &id).await?;
    let plan = parse(&manifest).map_err(|problems| ApiError::internal(&problems))?.plan;
    let after = params.after.unwrap_or(Timestamp::MIN);
    let mut checks = app.control.store().checks_after(&rollout.id, after, MOST_POINTS).await?;
    checks.reverse();
    Ok(Json(SeriesView { rollout: rollout.id.to_string(), series: series(&checks, &plan) }))
}

/// Repeats the checks of a rollout from what each of them saw, and derives again what it did by itself.
#[utoipa::path(
    get, path = "/rollouts/{id}/replay", tag = "rollouts", params(("id" = String, Path, description = "The rollout.")),
    responses(
        (status = 200, description = "Every difference between what was repeated and what is stored.", body = ReplayView),
        (status = 404, description = "There is no such rollout.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn replay(
    State(app): State<App>,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Json<ReplayView>, ApiError> {
    let rollout = rollout_id(&id)?;
    let replay = app.control.replay(&rollout).await?.ok_or_else(|| unknown_rollout(&id))?;
    Ok(Json(ReplayView {
        rollout: rollout.to_string(),
        checks: replay.checks,
        decisions: replay.decisions,
        differences: replay.differences,
    }))
}
