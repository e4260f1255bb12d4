//! The policy in force, and who may set its rules aside.

use axum::Json;
use axum::extract::State;
use serin_core::access::Permission;

use super::App;
use super::caller::Asker;
use super::error::ApiError;
use super::orders::LONGEST_REASON;
use super::read::{NoParams, Params};
use super::types::PolicyView;

/// Shows the rules that manifests and orders have to keep.
#[utoipa::path(get, path = "/policy", tag = "policy", responses((status = 200, description = "The rules in force.", body = PolicyView)))]
pub(super) async fn policy(State(app): State<App>, _: Params<NoParams>) -> Json<PolicyView> {
    let policy = app.control.policy();
    let rules = policy.written().as_array().cloned().unwrap_or_default();
    Json(PolicyView { digest: policy.digest(), rules })
}

/// Why rules are set aside, if somebody who may says so.
///
/// # Errors
/// 403 without the permission, 400 for a reason that is none.
pub(super) fn reason_to_override<'r>(
    asker: &Asker,
    reason: Option<&'r str>,
) -> Result<Option<&'r str>, ApiError> {
    let Some(reason) = reason.map(str::trim) else { return Ok(None) };
    asker.needs(Permission::OverridePolicy)?;
    if reason.is_empty() {
        let detail = "setting rules of the policy aside needs a reason, which goes to the audit log";
        return Err(
            ApiError::bad_request("reason-missing", detail).hint("say why, as with `--override-policy`")
        );
    }
    if reason.chars().count() > LONGEST_REASON {
        let detail = format!("the reason has more than {LONGEST_REASON} characters");
        return Err(ApiError::bad_request("reason-too-long", detail));
    }
    Ok(Some(reason))
}
