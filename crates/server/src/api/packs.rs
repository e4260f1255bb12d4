//! Applying manifests, and reading packs and their versions.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use serin_core::command::{Command, is_possible};
use serin_core::ids::{PackName, Version};
use serin_core::manifest::LARGEST_DOCUMENT;
use serin_core::pack::PackState;
use serin_core::prompt::Pack;
use utoipa::IntoParams;

use super::App;
use super::caller::{Asker, By};
use super::error::ApiError;
use super::read::{NoParams, Params, pack_name, text, version};
use super::recent::MaxAge;
use super::rollouts::rollout_view;
use super::types::{
    AppliedView, ContentChange, DiffView, DrainingView, PackDetail, PackList, ProblemDetails,
    SessionsOfVersion, SessionsView, VersionDetail, VersionList, VersionView,
};
use super::view::pack_summary;
use crate::control::apply::Request;
use crate::store::StoredVersion;

/// How a manifest is applied.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ApplyParams {
    /// Only says what would happen.
    #[serde(default)]
    dry_run: bool,
    /// Begins a rollout of the same version anew: new id, new salt, new evidence, step 0.
    #[serde(default)]
    restart: bool,
    /// Why, for the audit log.
    #[serde(default)]
    reason: Option<String>,
    /// Why rules of the policy are set aside; needs the permission `override_policy`, and is recorded.
    #[serde(default)]
    override_policy: Option<String>,
}

/// Applies a manifest.
///
/// The body is a manifest in YAML or JSON with its prompts in `spec.source.inline`. The first version of a pack
/// becomes stable at once; a later one starts a rollout. Applying the same manifest again changes nothing.
#[utoipa::path(
    put, path = "/packs", tag = "packs", params(ApplyParams),
    request_body(content_type = "application/yaml", description = "A manifest, at most 1 MiB.", content = String),
    responses(
        (status = 200, description = "What happened, or would happen.", body = AppliedView),
        (status = 409, description = "The publishing rules refuse it, or somebody else changed the pack.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "The manifest is larger than 1 MiB.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "The manifest has problems, or breaks rules of the policy; all of them are told.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn apply(
    State(app): State<App>,
    asker: Asker,
    By(actor): By,
    Params(params): Params<ApplyParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AppliedView>, ApiError> {
    let manifest = text(&headers, body, LARGEST_DOCUMENT).await?;
    let ApplyParams { dry_run, restart, reason, override_policy } = params;
    let override_policy = super::policy::reason_to_override(&asker, override_policy.as_deref())?;
    let reason = reason.filter(|reason| !reason.trim().is_empty());
    let request = Request {
        manifest: &manifest,
        scope: asker.scope(),
        who: asker.who(&actor),
        reason: reason.as_deref().unwrap_or("the manifest was applied"),
        dry_run,
        restart,
        override_policy,
    };
    let applied = app.control.apply(request).await?;
    Ok(Json(AppliedView::new(&applied, dry_run)))
}

/// Lists all packs.
#[utoipa::path(get, path = "/packs", tag = "packs", responses((status = 200, description = "By name.", body = PackList)))]
pub(super) async fn list(
    State(app): State<App>,
    asker: Asker,
    _: Params<NoParams>,
) -> Result<Json<PackList>, ApiError> {
    let mut packs = Vec::new();
    let names = app.control.names().await;
    for name in names.into_iter().filter(|name| asker.scope().allows(name)) {
        if let Some((state, plan, forced)) = app.control.standing(&name).await {
            packs.push(pack_summary(&state, &plan, forced));
        }
    }
    Ok(Json(PackList { packs }))
}

/// Shows one pack with its current or latest rollout.
#[utoipa::path(
    get, path = "/packs/{pack}", tag = "packs", params(("pack" = String, Path, description = "The pack.")),
    responses(
        (status = 200, description = "The pack.", body = PackDetail),
        (status = 404, description = "There is no such pack.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(app): State<App>,
    Path(pack): Path<String>,
    age: MaxAge,
    _: Params<NoParams>,
) -> Result<Json<PackDetail>, ApiError> {
    let name = pack_name(&pack, &app.control.names().await)?;
    let look = app.recent.look(&app, &name, age).await?;
    Ok(Json(look.detail.clone()))
}

/// Counts the sessions that each version of a pack has now.
///
/// It tells how many an order would move. Sessions are counted as they are asked for, so ask when you need it.
#[utoipa::path(
    get, path = "/packs/{pack}/sessions", tag = "packs", params(("pack" = String, Path, description = "The pack.")),
    responses(
        (status = 200, description = "By version.", body = SessionsView),
        (status = 404, description = "There is no such pack.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn sessions(
    State(app): State<App>,
    Path(pack): Path<String>,
    _: Params<NoParams>,
) -> Result<Json<SessionsView>, ApiError> {
    let name = pack_name(&pack, &app.control.names().await)?;
    let counted = app.control.sessions(&name).await;
    let versions = counted
        .into_iter()
        .map(|(version, sessions)| SessionsOfVersion { version: version.to_string(), sessions })
        .collect();
    Ok(Json(SessionsView { pack: name.to_string(), versions }))
}

/// A pack in full.
pub(super) async fn detail(app: &App, name: &PackName) -> Result<PackDetail, ApiError> {
    let view = app.control.view(name).await?.ok_or_else(|| ApiError::unknown_pack(name.as_str(), &[]))?;
    let rollout = rollout_view(app, &view).await?;
    let state = &view.state;
    let snapshot = app.resolver().snapshot();
    let prompts = snapshot.packs.get(name).and_then(|pack| pack.prompts.get(&state.stable));
    let people = &view.plan.people;
    let sessions_per_second = match &view.measured {
        Some(measured) => measured.sessions_per_second,
        None => app.control.store().session_rate(name, app.now()).await?,
    };
    Ok(PackDetail {
        name: state.name.to_string(),
        stable: state.stable.to_string(),
        history: state.history.iter().map(ToString::to_string).collect(),
        rolled_back: state.rolled_back.iter().map(ToString::to_string).collect(),
        draining: draining(state, &view.left),
        forced: view.forced,
        revision: state.revision,
        owner: people.owner.clone(),
        escalation: people.escalation.clone(),
        labels: people.labels.clone(),
        prompts: prompts
            .map(|pack| pack.prompts().keys().map(ToString::to_string).collect())
            .unwrap_or_default(),
        orders: possible_orders(state),
        sessions_per_second,
        rollout,
    })
}

/// The versions that only keep the sessions they have.
pub(super) fn draining(state: &PackState, left: &BTreeMap<Version, u64>) -> Vec<DrainingView> {
    let view = |draining: &serin_core::pack::Draining| DrainingView {
        version: draining.version.to_string(),
        since: draining.since,
        until: draining.until,
        sessions_left: left.get(&draining.version).copied(),
    };
    state.draining.iter().map(view).collect()
}

pub(super) fn possible_orders(state: &PackState) -> Vec<String> {
    let all = [
        Command::Pause,
        Command::Resume,
        Command::Approve,
        Command::Promote,
        Command::Rollback,
        Command::Retry,
    ];
    all.into_iter()
        .filter(|order| is_possible(state, *order))
        .map(|order| order.as_str().to_owned())
        .collect()
}

/// Lists the published versions of a pack.
#[utoipa::path(
    get, path = "/packs/{pack}/versions", tag = "packs", params(("pack" = String, Path, description = "The pack.")),
    responses(
        (status = 200, description = "Published last, first.", body = VersionList),
        (status = 404, description = "There is no such pack.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn versions(
    State(app): State<App>,
    Path(pack): Path<String>,
    _: Params<NoParams>,
) -> Result<Json<VersionList>, ApiError> {
    let (name, state) = known(&app, &pack).await?;
    let stored = app.control.store().versions(&name).await?;
    let versions = stored.iter().map(|stored| version_view(&state, stored)).collect();
    Ok(Json(VersionList { versions }))
}

/// Shows one version with its manifest and prompts.
#[utoipa::path(
    get, path = "/packs/{pack}/versions/{version}", tag = "packs",
    params(("pack" = String, Path, description = "The pack."), ("version" = String, Path, description = "The version.")),
    responses(
        (status = 200, description = "The version.", body = VersionDetail),
        (status = 404, description = "There is no such pack or version.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get_version(
    State(app): State<App>,
    Path((pack, wanted)): Path<(String, String)>,
    _: Params<NoParams>,
) -> Result<Json<VersionDetail>, ApiError> {
    let (name, state) = known(&app, &pack).await?;
    let stored = stored_version(&app, &name, &version(&wanted)?).await?;
    let content = match &stored.content {
        Some(text) => Some(serde_json::from_str(text).map_err(|error| ApiError::internal(&error))?),
        None => None,
    };
    let summary = version_view(&state, &stored);
    Ok(Json(VersionDetail { summary, manifest: stored.manifest, content }))
}

/// Which versions are compared.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DiffParams {
    /// The version on the left.
    from: String,
    /// The version on the right.
    to: String,
}

/// Shows what differs between the prompts of two versions.
#[utoipa::path(
    get, path = "/packs/{pack}/diff", tag = "packs",
    params(("pack" = String, Path, description = "The pack."), DiffParams),
    responses(
        (status = 200, description = "What differs.", body = DiffView),
        (status = 404, description = "There is no such pack or version.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn diff(
    State(app): State<App>,
    Path(pack): Path<String>,
    Params(params): Params<DiffParams>,
) -> Result<Json<DiffView>, ApiError> {
    let (name, _) = known(&app, &pack).await?;
    let (from, to) = (version(&params.from)?, version(&params.to)?);
    let left = prompts(&stored_version(&app, &name, &from).await?)?;
    let right = prompts(&stored_version(&app, &name, &to).await?)?;
    let whole = |before: Option<&Pack>, after: Option<&Pack>| ContentChange {
        path: String::new(),
        before: before.map(Pack::content),
        after: after.map(Pack::content),
    };
    let changes = match (&left, &right) {
        (Some(left), Some(right)) => left.diff(right).iter().map(ContentChange::from).collect(),
        (None, None) => Vec::new(),
        (left, right) => vec![whole(left.as_ref(), right.as_ref())],
    };
    Ok(Json(DiffView { pack: name.to_string(), from: from.to_string(), to: to.to_string(), changes }))
}

fn prompts(stored: &StoredVersion) -> Result<Option<Pack>, ApiError> {
    let Some(content) = &stored.content else { return Ok(None) };
    Pack::stored(content).map(Some).map_err(|problems| {
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        ApiError::internal(&std::io::Error::other(text))
    })
}

/// A pack and its state, from memory.
pub(super) async fn known(app: &App, pack: &str) -> Result<(PackName, PackState), ApiError> {
    let name = pack_name(pack, &app.control.names().await)?;
    let (state, _, _) = app.control.standing(&name).await.ok_or_else(|| ApiError::unknown_pack(pack, &[]))?;
    Ok((name, state))
}

async fn stored_version(app: &App, pack: &PackName, version: &Version) -> Result<StoredVersion, ApiError> {
    let stored = app.control.store().version(pack, version).await?;
    stored.ok_or_else(|| {
        ApiError::not_found("unknown-version", format!("pack {pack} has no version {version}"))
            .hint(format!("`GET /api/v1/packs/{pack}/versions` lists its versions"))
    })
}

fn version_view(state: &PackState, stored: &StoredVersion) -> VersionView {
    VersionView {
        pack: state.name.to_string(),
        version: stored.version.to_string(),
        role: role(state, &stored.version).to_owned(),
        content_digest: stored.content_digest.clone(),
        published_by: stored.actor.to_string(),
        published_at: stored.created_at,
    }
}

fn role(state: &PackState, version: &Version) -> &'static str {
    if state.stable == *version {
        "stable"
    } else if state.active().is_some_and(|(rollout, _)| rollout.canary == *version) {
        "canary"
    } else if state.draining.iter().any(|draining| draining.version == *version) {
        "draining"
    } else if state.rolled_back.contains(version) {
        "rolled back"
    } else if state.history.contains(version) {
        "earlier stable"
    } else {
        "published"
    }
}
