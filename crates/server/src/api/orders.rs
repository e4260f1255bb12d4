//! Orders to rollouts.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serin_core::access::Permission;
use serin_core::command::Command;

use super::App;
use super::caller::{Asker, By};
use super::error::ApiError;
use super::packs::known;
use super::policy::reason_to_override;
use super::read::{SMALL_BODY, bytes, from_json};
use super::rollouts::rollout_view;
use super::types::{CarriedView, CommandRequest, ProblemDetails};
use crate::control::order::{Carried, Ordered};

/// The words of orders.
const ORDERS: [&str; 6] = ["pause", "resume", "approve", "promote", "rollback", "retry"];

/// The longest reason, in characters.
pub(super) const LONGEST_REASON: usize = 1_000;

/// Gives an order to the rollout of a pack.
///
/// `pause` stops it from advancing, `resume` clears that, `approve` lets a step go on that waits for it, `promote` enters
/// the next step now (`full`: makes the canary stable now), `rollback` brings everyone back to stable, `retry` starts a
/// new rollout of the version that was rolled back or superseded. A rollback is in force before it is recorded, and no rule
/// of the policy stands in its way.
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
    let override_policy = match what {
        // No rule stands in the way of these.
        Command::Pause | Command::Resume | Command::Rollback => None,
        Command::Approve | Command::Promote | Command::PromoteFully | Command::Retry => {
            reason_to_override(&asker, request.override_policy.as_deref())?
        }
    };
    let ordered = Ordered { what, who: asker.who(&actor), reason, override_policy };
    let carried = app.control.order(&name, ordered).await?;
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
