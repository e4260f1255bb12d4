//! Which version a session gets, for apps that hold their prompts or send their requests themselves.

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use serin_core::ids::{PackName, PromptName, SessionKey};
use serin_core::prompt::RenderError;
use serin_core::routing::Turn;

use super::App;
use super::caller::AppScope;
use super::error::ApiError;
use super::read::{SMALL_BODY, json, told};
use super::types::{ProblemDetails, RenderedPrompt, ResolveRequest, ResolveResponse};
use crate::resolve::{Resolved, Visit};

/// Tells which version a session gets, and pins it.
///
/// With `prompt`, the answer carries that prompt of the version with its variables filled in.
#[utoipa::path(
    post, path = "/v1/resolve", tag = "data plane", request_body = ResolveRequest,
    responses(
        (status = 200, description = "The version and why.", body = ResolveResponse),
        (status = 400, description = "The request cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is no such pack or prompt.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A variable is missing or does not fit.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn resolve(
    State(app): State<App>,
    scope: AppScope,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let request: ResolveRequest = json(&head.headers, body, SMALL_BODY).await?;
    let pack = PackName::parse(&request.pack).ok();
    if let Some(pack) = &pack {
        scope.needs_pack(pack)?;
    }
    let snapshot = app.resolver().snapshot();
    let found = pack.and_then(|pack| snapshot.packs.get_key_value(&pack));
    let Some((name, pack)) = found else {
        let known: Vec<PackName> = snapshot.packs.keys().cloned().collect();
        return Err(ApiError::unknown_pack(&request.pack, &known));
    };
    let session = match &request.session {
        Some(session) => Some(
            SessionKey::parse(session)
                .map_err(|error| ApiError::bad_request("session", error.to_string()))?,
        ),
        None => None,
    };
    let visit = Visit {
        pack: name,
        session: session.as_ref(),
        own_key: &|| app.ids.session(),
        segment: pack.segment_of(&request.attributes),
        turn: Turn::User,
        version: None,
    };
    let resolved = app.resolver().resolve(visit).await?;
    let prompt = match &request.prompt {
        Some(name) => Some(rendered(&resolved, name, &request)?),
        None if request.variables.is_empty() => None,
        None => {
            return Err(ApiError::bad_request(
                "variables",
                "variables are given, but no prompt that they are for",
            )
            .hint("name it in `prompt`"));
        }
    };
    Ok(told(&ResolveResponse {
        pack: request.pack,
        session: resolved.key.into(),
        version: resolved.version.into(),
        variant: resolved.cohort.variant.into(),
        reason: resolved.reason.into(),
        weight: resolved.weight.percent(),
        rollout: resolved.cohort.of_rollout().map(|stamp| stamp.rollout.as_str().to_owned()),
        prompt,
    }))
}

fn rendered(resolved: &Resolved, name: &str, request: &ResolveRequest) -> Result<RenderedPrompt, ApiError> {
    let name = PromptName::parse(name).map_err(|error| ApiError::bad_request("prompt", error.to_string()))?;
    let Some(prompts) = resolved.prompts() else {
        let detail =
            format!("{} {} is version only: it holds no prompts", resolved.pack.name, resolved.version);
        return Err(ApiError::unprocessable("version-only", detail).hint("leave out `prompt`"));
    };
    let rendered =
        prompts.render(&name, request.model.as_deref(), &request.variables).map_err(
            |error| match &error {
                RenderError::UnknownPrompt { .. } => ApiError::not_found("unknown-prompt", error.to_string()),
                RenderError::UnknownVariables { .. }
                | RenderError::MissingVariables { .. }
                | RenderError::WrongType { .. }
                | RenderError::Invalid { .. } => ApiError::unprocessable("variables", error.to_string()),
            },
        )?;
    Ok(RenderedPrompt {
        name: name.to_string(),
        system: rendered.system,
        parameters: rendered.parameters.clone(),
        model: rendered.model.map(str::to_owned),
        tools: rendered.tools.iter().map(|tool| serde_json::json!(**tool)).collect(),
        tool_choice: rendered.policy.choice.map(|choice| serde_json::json!(choice)),
    })
}
