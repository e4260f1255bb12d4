//! Who is told what happened, how far each of them is, and what could not be told.

use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::caller::By;
use super::error::ApiError;
use super::read::{NoParams, Params, limit};
use super::types::{
    DeadLetterView, DeadLetters, ProblemDetails, ReceiverList, ReceiverView, RetriedView, TestedView,
};
use crate::notify::Standing;
use crate::notify::event::Event;
use crate::notify::receiver::Glob;

/// Lists the receivers of notifications and how far each of them is.
#[utoipa::path(
    get, path = "/notify/receivers", tag = "notify",
    responses((status = 200, description = "In the order of the settings.", body = ReceiverList)),
)]
pub(super) async fn receivers(
    State(app): State<App>,
    _: Params<NoParams>,
) -> Result<Json<ReceiverList>, ApiError> {
    let standings = app.notifier.standings().await?;
    Ok(Json(ReceiverList { receivers: standings.into_iter().map(receiver).collect() }))
}

fn receiver(standing: Standing<'_>) -> ReceiverView {
    let Standing { receiver, delivery, behind, delivered, failed, buried, dropped } = standing;
    let words = |globs: &[Glob]| globs.iter().map(|glob| glob.as_str().to_owned()).collect();
    ReceiverView {
        name: receiver.name.clone(),
        kind: receiver.to.word().to_owned(),
        at: receiver.to.endpoint().shown(),
        packs: words(&receiver.packs),
        events: words(&receiver.events),
        min_severity: receiver.min_severity.to_string(),
        behind,
        failures: delivery.failures,
        failing_since: delivery.failing_since,
        next_attempt_at: delivery.next_at,
        problem: delivery.problem,
        delivered,
        failed,
        buried,
        dropped,
    }
}

/// Sends a receiver a message that says that nothing happened.
#[utoipa::path(
    post, path = "/notify/receivers/{receiver}/test", tag = "notify",
    params(("receiver" = String, Path, description = "The receiver.")),
    responses(
        (status = 200, description = "Whether it took the message.", body = TestedView),
        (status = 404, description = "There is no such receiver.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn test(
    State(app): State<App>,
    By(actor): By,
    Path(name): Path<String>,
) -> Result<Json<TestedView>, ApiError> {
    let event = Event::test(format!("test-{}", app.ids.text()), app.now(), &actor);
    let began = Instant::now();
    match app.notifier.test(&name, event).await? {
        Some(answer) => Ok(Json(TestedView {
            receiver: name,
            delivered: answer.is_ok(),
            problem: answer.err().map(|undelivered| undelivered.problem().to_owned()),
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        })),
        None => {
            let given: String = name.chars().take(80).collect();
            let known: Vec<&str> =
                app.notifier.settings().receivers.iter().map(|receiver| receiver.name.as_str()).collect();
            let hint = match &known[..] {
                [] => "there are none: name them under `notify.receivers` in the settings".to_owned(),
                known => format!("known are {}", known.join(", ")),
            };
            Err(ApiError::not_found("unknown-receiver", format!("receiver {given:?} does not exist"))
                .hint(hint))
        }
    }
}

/// How many dead letters are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeadParams {
    /// Only those of a receiver.
    receiver: Option<String>,
    /// At most so many, 1 to 1 000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists what could not be told.
#[utoipa::path(
    get, path = "/notify/dead", tag = "notify", params(DeadParams),
    responses((status = 200, description = "Oldest first.", body = DeadLetters)),
)]
pub(super) async fn dead(
    State(app): State<App>,
    Params(params): Params<DeadParams>,
) -> Result<Json<DeadLetters>, ApiError> {
    let most = limit(params.limit, 100, 1_000)?;
    let letters = app.control.store().dead_letters(params.receiver.as_deref(), most).await?;
    Ok(Json(DeadLetters { letters: letters.into_iter().map(DeadLetterView::from).collect() }))
}

/// Tries the oldest dead letters again, at most 100 of them.
#[utoipa::path(
    post, path = "/notify/dead/retry", tag = "notify",
    responses((status = 200, description = "How many were taken this time.", body = RetriedView)),
)]
pub(super) async fn retry_dead(
    State(app): State<App>,
    _: Params<NoParams>,
) -> Result<Json<RetriedView>, ApiError> {
    let retried = app.notifier.retry_dead().await?;
    Ok(Json(RetriedView { delivered: retried.delivered, failed: retried.failed }))
}
