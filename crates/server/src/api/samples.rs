//! Reading conversation samples.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::Deserialize;
use serin_core::ids::{PackName, RolloutId};
use serin_core::routing;
use utoipa::IntoParams;

use super::App;
use super::error::ApiError;
use super::read::{Params, limit, pack_name, rollout_id, unknown_rollout};
use super::types::{MessageView, ProblemDetails, RecordingView, SampleView, SamplesView};
use crate::samples::{Message, Sample, SampleSignal};
use crate::store::SampleFilter;

/// Samples that are looked through for one answer at most; the list goes on behind them.
const MOST_LOOKED_THROUGH: usize = 5_000;

/// Which samples are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SampleParams {
    /// Only those of one side of the comparison: `stable` or `canary`.
    variant: Option<String>,
    /// Only those of a segment.
    segment: Option<String>,
    /// Only those with a signal, such as `refusal`.
    signal: Option<String>,
    /// Only those of sessions with an outcome, such as `task_completion`, or with a value of it, such as `task_completion:0`.
    outcome: Option<String>,
    /// At most so many, 1 to 200.
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Goes on where a list ended: its `next`.
    after: Option<String>,
}

/// Lists conversations that were recorded of a pack.
#[utoipa::path(
    get, path = "/packs/{pack}/samples", tag = "samples",
    params(("pack" = String, Path, description = "The pack."), SampleParams),
    responses(
        (status = 200, description = "Newest first.", body = SamplesView),
        (status = 400, description = "The query cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is no such pack.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn of_pack(
    State(app): State<App>,
    Path(pack): Path<String>,
    Params(params): Params<SampleParams>,
) -> Result<Json<SamplesView>, ApiError> {
    let pack = pack_name(&pack, &app.control.names().await)?;
    list(&app, &pack, None, params).await.map(Json)
}

/// Lists conversations that were recorded of the sessions of a rollout.
#[utoipa::path(
    get, path = "/rollouts/{id}/samples", tag = "samples",
    params(("id" = String, Path, description = "The rollout."), SampleParams),
    responses(
        (status = 200, description = "Newest first.", body = SamplesView),
        (status = 400, description = "The query cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is no such rollout.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn of_rollout(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(params): Params<SampleParams>,
) -> Result<Json<SamplesView>, ApiError> {
    let stored = app.control.store().rollout(&rollout_id(&id)?).await?;
    let stored = stored.ok_or_else(|| unknown_rollout(&id))?;
    list(&app, &stored.pack, Some(stored.rollout.id), params).await.map(Json)
}

async fn list(
    app: &App,
    pack: &PackName,
    rollout: Option<RolloutId>,
    params: SampleParams,
) -> Result<SamplesView, ApiError> {
    let most = limit(params.limit, 50, 200)?;
    let outcome = params.outcome.as_deref().map(OutcomeFilter::parse).transpose()?;
    let mut filter = SampleFilter {
        rollout,
        variant: params.variant.as_deref().map(variant).transpose()?,
        segment: params.segment,
        signal: params.signal.as_deref().map(signal).transpose()?,
        behind: params.after.as_deref().map(cursor).transpose()?,
        limit: most,
    };
    app.samples.settled().await;
    let (store, now) = (app.control.store(), app.now());
    let mut samples = Vec::new();
    let mut next = None;
    let mut looked_through = 0;
    'pages: loop {
        let page = store.samples(pack, &filter, now).await?;
        let is_last = page.len() < most as usize;
        for sample in page {
            if samples.len() == most as usize || looked_through == MOST_LOOKED_THROUGH {
                next = filter.behind.as_ref().map(|(at, id)| format!("{}.{id}", at.as_microsecond()));
                break 'pages;
            }
            looked_through += 1;
            filter.behind = Some((sample.at, sample.id.clone()));
            let outcomes = store.outcomes(pack, sample.hash, sample.cohort).await?;
            if outcome.as_ref().is_none_or(|outcome| outcome.fits(&outcomes)) {
                samples.push(view(sample, outcomes));
            }
        }
        if is_last {
            break;
        }
    }
    let settings = app.samples.settings();
    let recording = RecordingView {
        on: app.samples.is_on(),
        rate_percent: settings.rate.percent(),
        expires_after: settings.expiry,
        dropped: app.samples.counts().dropped(),
    };
    Ok(SamplesView { recording, samples, next })
}

fn view(sample: Sample, outcomes: BTreeMap<String, f64>) -> SampleView {
    let Sample { id, key, version, variant, segment, at, signals, said, .. } = sample;
    let message = |Message { role, text }| MessageView { role, text };
    SampleView {
        id,
        at,
        session: key.to_string(),
        version: version.to_string(),
        variant: variant.map(Into::into),
        segment,
        prompt: said.prompt,
        model: said.model,
        messages: said.messages.into_iter().map(message).collect(),
        answer: said.answer,
        signals: signals.into_iter().map(Into::into).collect(),
        latency_ms: said.latency_ms,
        outcomes,
        redactions: said.redactions,
    }
}

/// An outcome that the session of a sample must have.
struct OutcomeFilter {
    name: String,
    value: Option<f64>,
}

impl OutcomeFilter {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let Some((name, value)) = text.split_once(':') else {
            return Ok(Self { name: text.to_owned(), value: None });
        };
        let value = value.parse().map_err(|_| {
            wrong("outcome", value, "a name, or a name and a number such as task_completion:0")
        })?;
        Ok(Self { name: name.to_owned(), value: Some(value) })
    }

    fn fits(&self, outcomes: &BTreeMap<String, f64>) -> bool {
        outcomes.get(&self.name).is_some_and(|found| self.value.is_none_or(|value| value == *found))
    }
}

fn variant(text: &str) -> Result<routing::Variant, ApiError> {
    match text {
        "stable" => Ok(routing::Variant::Stable),
        "canary" => Ok(routing::Variant::Canary),
        other => Err(wrong("variant", other, "stable or canary")),
    }
}

fn signal(text: &str) -> Result<SampleSignal, ApiError> {
    let words: Vec<&str> = SampleSignal::ALL.into_iter().map(SampleSignal::as_str).collect();
    SampleSignal::parse(text).ok_or_else(|| wrong("signal", text, &format!("one of {}", words.join(", "))))
}

fn cursor(text: &str) -> Result<(Timestamp, String), ApiError> {
    let read = || {
        let (at, id) = text.split_once('.')?;
        Some((Timestamp::from_microsecond(at.parse().ok()?).ok()?, id.to_owned()))
    };
    read().ok_or_else(|| wrong("after", text, "the `next` of a list"))
}

fn wrong(parameter: &str, given: &str, expected: &str) -> ApiError {
    let given: String = given.chars().take(80).collect();
    ApiError::bad_request("query", format!("{parameter} {given:?} is not {expected}"))
}
