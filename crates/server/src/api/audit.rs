//! The audit log, what on-call needs to know, and the stream of changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use serin_core::access::Scope;
use serin_core::audit::AuditEntry;
use serin_core::ids::PackName;
use serin_core::rollout::HoldCause;
use serin_core::units::HoldFor;
use tokio::sync::{broadcast, watch};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::caller::Asker;
use super::error::ApiError;
use super::overview::{closest, worst};
use super::read::{NoParams, Params, limit, rollout_id};
use super::recent::{Look, MaxAge};
use super::rollouts::summaries;
use super::types::{AuditPage, OncallCanary, OncallCommand, OncallView, ProblemDetails, StreamEvent};
use crate::control::Event as Change;
use crate::notify::message::commands_of_canary;
use crate::snapshot::PackSnapshot;
use crate::store::{AuditFilter, RolloutFilter};

/// How old what on-call reads may be, so that many who watch cost what one costs; a change shows at once.
const ONCALL_AGE: Duration = Duration::from_secs(1);

/// How far on-call looks back.
const LOOK_BACK: HoldFor = HoldFor::from_hours(24);
/// Rollouts that on-call is shown at most.
const MOST_ROLLOUTS: u32 = 200;
/// How often a quiet stream says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which part of the audit log is shown.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParams {
    /// Only entries of a pack.
    pack: Option<String>,
    /// Only entries of a rollout.
    rollout: Option<String>,
    /// Only entries of an actor, in full.
    actor: Option<String>,
    /// Only entries of an action, such as `rolled_back`.
    action: Option<String>,
    /// Only entries with a larger number.
    #[serde(default)]
    after: u64,
    /// Only entries with a smaller number.
    before: Option<u64>,
    /// `oldest` first or `newest` first.
    #[serde(default)]
    order: AuditOrder,
    /// At most so many, 1 to 1 000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Which end of the audit log comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum AuditOrder {
    /// The oldest entry first; `next_after` leads on.
    #[default]
    Oldest,
    /// The newest entry first; `next_before` leads on.
    Newest,
}

/// Shows a part of the audit log.
#[utoipa::path(
    get, path = "/audit", tag = "audit", params(AuditParams),
    responses(
        (status = 200, description = "In the order asked for.", body = AuditPage),
        (status = 404, description = "There is no such pack.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn log(
    State(app): State<App>,
    asker: Asker,
    Params(params): Params<AuditParams>,
) -> Result<Json<AuditPage>, ApiError> {
    let pack = asker.filter(&app, params.pack.as_deref()).await?;
    let most = limit(params.limit, 100, 1_000)?;
    let filter = AuditFilter {
        pack,
        rollout: params.rollout.as_deref().map(rollout_id).transpose()?,
        actor: params.actor,
        action: params.action,
        after: params.after,
        before: params.before,
        newest_first: params.order == AuditOrder::Newest,
        limit: Some(most),
    };
    let entries = app.control.store().audit(&filter).await?;
    let is_full = u32::try_from(entries.len()).is_ok_and(|count| count == most);
    let next = entries.last().filter(|_| is_full).map(|entry| entry.seq);
    let (next_after, next_before) = match params.order {
        AuditOrder::Oldest => (next, None),
        AuditOrder::Newest => (None, next),
    };
    // A page may hold fewer entries than asked for, because those of other packs are not shown to everyone.
    let is_seen = |entry: &&AuditEntry| match asker.scope() {
        Scope::All => true,
        scope @ Scope::Packs(_) => PackName::parse(&entry.pack).is_ok_and(|pack| scope.allows(&pack)),
    };
    let entries = entries.iter().filter(is_seen).map(Into::into).collect();
    Ok(Json(AuditPage { entries, next_after, next_before }))
}

/// Shows what is in canary, what ended within the last 24 hours, and what is forced.
#[utoipa::path(
    get, path = "/oncall", tag = "rollouts",
    responses((status = 200, description = "What on-call needs to know.", body = OncallView)),
)]
pub(super) async fn oncall(
    State(app): State<App>,
    asker: Asker,
    _: Params<NoParams>,
) -> Result<Json<OncallView>, ApiError> {
    let now = app.now();
    let of = |active: bool| RolloutFilter {
        active: Some(active),
        limit: Some(MOST_ROLLOUTS),
        ..RolloutFilter::default()
    };
    let active = summaries(&app, asker.scope(), &of(true)).await?;
    let since = LOOK_BACK.before(now);
    let mut ended = summaries(&app, asker.scope(), &of(false)).await?;
    ended.retain(|rollout| rollout.end.as_ref().is_some_and(|end| end.at >= since));
    ended.sort_by_key(|rollout| std::cmp::Reverse(rollout.end.as_ref().map(|end| end.at)));
    let snapshot = app.resolver().snapshot();
    let is_forced = |pack: &&Arc<PackSnapshot>| pack.route.forced && asker.scope().allows(&pack.name);
    let forced = snapshot.packs.values().filter(is_forced).map(|pack| pack.name.to_string()).collect();
    let mut canaries = Vec::new();
    for name in asker.visible(&app).await {
        let Some((state, ..)) = app.control.standing(&name).await else { continue };
        let Some((_, active)) = state.active() else { continue };
        let look = app.recent.look(&app, &name, MaxAge(ONCALL_AGE)).await?;
        canaries.extend(canary(&look, active.holds.keys().copied()));
    }
    Ok(Json(OncallView { canaries, active, ended, forced, as_of: now }))
}

/// What on-call needs to know about the rollout of a pack; nothing if it ended just before the look.
fn canary(look: &Look, causes: impl Iterator<Item = HoldCause>) -> Option<OncallCanary> {
    let rollout = look.detail.rollout.as_ref().filter(|rollout| rollout.end.is_none())?;
    let commands = commands_of_canary(&rollout.pack, causes);
    let command = |(what, command): (&str, String)| OncallCommand { what: what.to_owned(), command };
    Some(OncallCanary {
        pack: rollout.pack.clone(),
        rollout: rollout.id.clone(),
        stable: rollout.stable.clone(),
        canary: rollout.canary.clone(),
        phase: rollout.phase,
        weight: rollout.weight,
        started_at: rollout.started_at,
        started_by: rollout.started_by.clone(),
        reason: rollout.reason.clone(),
        owner: look.detail.owner.clone(),
        escalation: look.detail.escalation.clone(),
        worst: worst(&rollout.metrics),
        closest: closest(&rollout.gates),
        holds: rollout.holds.clone(),
        last_check: rollout.last_check.clone(),
        commands: commands.into_iter().map(command).collect(),
    })
}

/// Which changes are streamed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamParams {
    /// Only changes of a pack.
    pack: Option<String>,
}

/// Streams changes as server-sent events.
///
/// `change` carries a change of a pack. `missed` says that changes were lost on the way because the reader is too
/// slow: read everything anew.
#[utoipa::path(
    get, path = "/stream", tag = "audit", params(StreamParams),
    responses(
        (status = 200, description = "Server-sent events.", body = StreamEvent, content_type = "text/event-stream"),
        (status = 404, description = "There is no such pack.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn stream(
    State(app): State<App>,
    asker: Asker,
    Params(params): Params<StreamParams>,
) -> Result<impl IntoResponse, ApiError> {
    let pack = asker.filter(&app, params.pack.as_deref()).await?;
    let packs = pack.map_or_else(|| asker.scope().clone(), |pack| Scope::Packs([pack].into()));
    // Something is sent at once, so that whatever lies between passes on that the stream is open.
    let opened = stream::once(std::future::ready(Ok(Event::default().comment("open"))));
    let changes = opened.chain(changes(app.control.subscribe(), app.stop.clone(), packs));
    Ok(Sse::new(changes).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// The changes of these packs until the server stops.
fn changes(
    changes: broadcast::Receiver<Change>,
    stop: watch::Receiver<bool>,
    packs: Scope,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((changes, stop, packs), |(mut changes, mut stop, packs)| async move {
        loop {
            let change = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return None,
                change = changes.recv() => change,
            };
            let event = match change {
                Ok(change) if !packs.allows(&change.pack) => continue,
                Ok(change) => change_event(&change),
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    Event::default().event("missed").data(count.to_string())
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            return Some((Ok(event), (changes, stop, packs)));
        }
    })
}

fn change_event(change: &Change) -> Event {
    let view = StreamEvent {
        pack: change.pack.to_string(),
        revision: change.revision,
        actions: change.actions.iter().map(ToString::to_string).collect(),
    };
    let json = serde_json::to_string(&view).expect("names and numbers are JSON");
    Event::default().event("change").data(json)
}
