//! Orders to rollouts, and the answer to "which version does this session have".

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use serin_core::access::Permission;
use serin_core::command::Command;
use serin_core::ids::{SessionHash, SessionKey};
use serin_core::routing::{Assigned, Contact, Pin, Turn, assign};
use serin_core::units::{HoldFor, Timestamp};
use serin_core::weight::Weight;
use utoipa::IntoParams;

use super::App;
use super::caller::{Asker, By};
use super::error::ApiError;
use super::packs::known;
use super::read::{Params, SMALL_BODY, bytes, from_json};
use super::rollouts::rollout_view;
use super::types::{CarriedView, CommandRequest, ExplainView, PinView, ProblemDetails};
use super::view::rounded;
use crate::control::order::Carried;
use crate::gateway::Attributes;
use crate::snapshot::PackSnapshot;

/// The words of orders.
const ORDERS: [&str; 6] = ["pause", "resume", "approve", "promote", "rollback", "retry"];

/// The longest reason, in characters.
pub(super) const LONGEST_REASON: usize = 1_000;

/// Gives an order to the rollout of a pack.
///
/// `pause` stops it from advancing, `resume` clears that, `approve` lets a step go on that waits for it, `promote` enters
/// the next step now (`full`: makes the canary stable now), `rollback` brings everyone back to stable, `retry` starts a
/// new rollout of the version that was rolled back or superseded. A rollback is in force before it is recorded.
#[utoipa::path(
    post, path = "/packs/{pack}/rollout/{order}", tag = "orders",
    params(
        ("pack" = String, Path, description = "The pack."),
        ("order" = String, Path, description = "`pause`, `resume`, `approve`, `promote`, `rollback` or `retry`.", pattern = "^(pause|resume|approve|promote|rollback|retry)$"),
    ),
    request_body(content = CommandRequest, description = "Why; `full` belongs to `promote`."),
    responses(
        (status = 200, description = "It is carried out.", body = CarriedView),
        (status = 202, description = "A rollback is in force in this process, but not recorded yet: the store does not answer.", body = CarriedView),
        (status = 400, description = "The reason is missing.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is no such pack or order.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "The rollout does not stand so that it could be carried out.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn order(
    State(app): State<App>,
    asker: Asker,
    By(actor): By,
    Path((pack, order)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<(axum::http::StatusCode, Json<CarriedView>), ApiError> {
    if !ORDERS.contains(&order.as_str()) {
        let order: String = order.chars().take(80).collect();
        return Err(ApiError::not_found("unknown-order", format!("there is no order {order:?}"))
            .hint(format!("the orders are {}", ORDERS.join(", "))));
    }
    let (name, before) = known(&app, &pack).await?;
    let body = bytes(&headers, body, SMALL_BODY).await?;
    let request: CommandRequest =
        if body.trim_ascii().is_empty() { CommandRequest::default() } else { from_json(&body)? };
    let what = command(&order, request.full)?;
    asker.needs(Permission::of_order(what))?;
    let reason =
        request.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty()).ok_or_else(|| {
            ApiError::bad_request(
                "reason-missing",
                format!("{order} needs a reason, which goes to the audit log"),
            )
            .hint("send {\"reason\": \"why\"}, or use `--reason`")
        })?;
    if reason.chars().count() > LONGEST_REASON {
        return Err(ApiError::bad_request(
            "reason-too-long",
            format!("the reason has more than {LONGEST_REASON} characters"),
        ));
    }
    let carried = app.control.order(&name, what, &actor, reason).await?;
    // What was ordered is done; that its picture cannot be read does not undo it.
    let view = app.control.view(&name).await.ok().flatten();
    let rollout = match &view {
        Some(view) => rollout_view(&app, view).await.ok().flatten(),
        None => None,
    };
    let (status, recorded, message) = match carried {
        Carried::Recorded => {
            let state = view.as_ref().map_or(&before, |view| &view.state);
            (
                axum::http::StatusCode::OK,
                true,
                message(what, &name, &state.stable, rollout.as_ref().map(|r| r.weight)),
            )
        }
        Carried::InForce => {
            let message = format!(
                "{name} is back on stable {} in this process; it is recorded when the store returns",
                before.stable
            );
            (axum::http::StatusCode::ACCEPTED, false, message)
        }
    };
    Ok((status, Json(CarriedView { recorded, message, rollout })))
}

fn command(order: &str, full: bool) -> Result<Command, ApiError> {
    if full && order != "promote" {
        return Err(ApiError::bad_request("full", format!("`full` belongs to promote, not to {order}")));
    }
    match order {
        "pause" => Ok(Command::Pause),
        "resume" => Ok(Command::Resume),
        "approve" => Ok(Command::Approve),
        "promote" if full => Ok(Command::PromoteFully),
        "promote" => Ok(Command::Promote),
        "rollback" => Ok(Command::Rollback),
        "retry" => Ok(Command::Retry),
        other => Err(ApiError::not_found("unknown-order", format!("there is no order {other:?}"))),
    }
}

fn message(
    what: Command,
    pack: &serin_core::ids::PackName,
    stable: &serin_core::ids::Version,
    weight: Option<f64>,
) -> String {
    let weight = weight.unwrap_or(0.0);
    match what {
        Command::Pause => format!("{pack} is paused at {weight}%"),
        Command::Resume => format!("{pack} is no longer paused"),
        Command::Approve => format!("the step of {pack} is approved"),
        Command::Promote if weight >= 100.0 => format!("{pack} is at 100%"),
        Command::Promote => format!("{pack} is at {weight}% of new sessions"),
        Command::PromoteFully => format!("{pack} {stable} is stable for everyone"),
        Command::Rollback => format!("{pack} is back on stable {stable}"),
        Command::Retry => format!("{pack} has a new rollout at {weight}% of new sessions"),
    }
}

/// Which session is explained.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainParams {
    /// The session.
    session: String,
}

/// Explains which version a session has, and why; asking changes nothing.
#[utoipa::path(
    get, path = "/packs/{pack}/explain", tag = "orders",
    params(("pack" = String, Path, description = "The pack."), ExplainParams),
    responses(
        (status = 200, description = "The version and why.", body = ExplainView),
        (status = 404, description = "There is no such pack.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn explain(
    State(app): State<App>,
    Path(pack): Path<String>,
    Params(params): Params<ExplainParams>,
) -> Result<Json<ExplainView>, ApiError> {
    let snapshot = app.resolver().snapshot();
    let found = snapshot.packs.iter().find(|(name, _)| name.as_str() == pack).map(|(_, pack)| pack);
    let Some(pack_now) = found else {
        let known: Vec<_> = snapshot.packs.keys().cloned().collect();
        return Err(ApiError::unknown_pack(&pack, &known));
    };
    let key = SessionKey::parse(&params.session)
        .map_err(|error| ApiError::bad_request("session", error.to_string()))?;
    let pin = app.resolver().pins.get(SessionHash::of(&pack_now.name, &key));
    explained(pack_now, &key, pin, app.now()).map(Json).ok_or_else(|| {
        ApiError::unavailable("changing", "the weight is changing at this moment, and with it the answer")
            .hint("ask again in a moment")
    })
}

fn explained(pack: &PackSnapshot, key: &SessionKey, pin: Option<Pin>, now: Timestamp) -> Option<ExplainView> {
    let route = &pack.route;
    // No attributes are known of a session that is only asked about.
    let segment = if pack.reads_attributes() { pack.segments.peek(&Attributes::new()) } else { 0 };
    let contact = Contact { key, segment, turn: Turn::User };
    let assignment = match assign(route, pin, contact, now) {
        Assigned::Now(assignment) => assignment,
        Assigned::AfterChange => return None,
    };
    let split = route.split.as_ref();
    let version = &assignment.cohort.version;
    let bucket = assignment.bucket.map(|bucket| bucket.index());
    let because = why(assignment.reason, bucket, assignment.weight);
    Some(ExplainView {
        pack: pack.name.to_string(),
        session: key.to_string(),
        version: version.to_string(),
        variant: assignment.cohort.variant.into(),
        reason: assignment.reason.into(),
        message: format!("gets {version}: {because}"),
        rollout: split.map(|split| split.rollout.to_string()),
        segment: split.and_then(|split| split.segments.get(segment)).map(|segment| segment.name.to_string()),
        bucket,
        weight: assignment.weight.percent(),
        pin: pin.and_then(|pin| pin_view(pack, pin, now)),
    })
}

fn why(reason: serin_core::routing::Reason, bucket: Option<u16>, weight: Weight) -> String {
    use serin_core::routing::Reason;
    let bucket = bucket.map_or_else(String::new, |bucket| bucket.to_string());
    let limit = weight.bp();
    match reason {
        Reason::Static => "no rollout is under way".to_owned(),
        Reason::Split | Reason::TargetingMatch => {
            format!("its bucket {bucket} against {limit}, the buckets that {weight} gives to the canary")
        }
        Reason::Pinned => "it had this version before".to_owned(),
        Reason::Disabled => "everything is forced to stable".to_owned(),
    }
}

fn pin_view(pack: &PackSnapshot, pin: Pin, now: Timestamp) -> Option<PinView> {
    let cohort = pack.route.cohorts.get(pin.cohort)?;
    let at = |seconds: u32| Timestamp::from_second(i64::from(seconds)).unwrap_or(Timestamp::UNIX_EPOCH);
    let stamp = cohort.stamp.as_ref();
    let age: HoldFor = rounded(pin.age(now));
    Some(PinView {
        version: cohort.version.to_string(),
        variant: cohort.variant.into(),
        rollout: stamp.map(|stamp| stamp.rollout.to_string()),
        step: stamp.map(|stamp| stamp.step),
        weight: stamp.map(|stamp| stamp.weight.percent()),
        pinned_at: at(pin.pinned_at),
        last_seen: at(pin.last_seen),
        age,
        expired: pin.is_expired(&pack.route.sessions, now),
    })
}
