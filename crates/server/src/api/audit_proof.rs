//! Proof that the audit log is the one that was written: its check, and its export for a check elsewhere.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serin_core::access::Scope;
use serin_core::audit::{Noted, export_end, export_head, export_line};
use utoipa::IntoParams;

use super::App;
use super::caller::Asker;
use super::error::ApiError;
use super::read::Params;
use super::types::{AuditVerified, ProblemDetails};
use crate::errors::Chain;
use crate::store::{AuditFilter, StoreError, VerifyError};

/// Entries that are read and sent at a time.
const PAGE: u32 = 500;

/// What the check is held against.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VerifyParams {
    /// An entry that was noted elsewhere, as `NUMBER:HASH`; the log must hold it unchanged.
    #[param(pattern = "^[0-9]{1,19}:[0-9a-f]{64}$")]
    noted: Option<String>,
}

/// Checks every entry of the audit log, its end, and that it holds an entry that was noted elsewhere.
///
/// Whoever can write to the database can write a whole new log; `last` of an earlier answer, kept where they cannot
/// write, tells the two apart.
#[utoipa::path(
    get, path = "/audit/verify", tag = "audit", params(VerifyParams),
    responses(
        (status = 200, description = "Whether the log is the one that was written.", body = AuditVerified),
        (status = 400, description = "What was noted cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn verify(
    State(app): State<App>,
    Params(params): Params<VerifyParams>,
) -> Result<Json<AuditVerified>, ApiError> {
    let noted = params.noted.as_deref().map(noted).transpose()?;
    match app.control.store().verify_audit(noted).await {
        Ok(last) => Ok(Json(AuditVerified {
            intact: true,
            entries: Some(last.seq),
            last: Some(last.to_string()),
            problem: None,
        })),
        Err(VerifyError::Broken(broken)) => {
            tracing::error!(error = %broken, "the audit log is not the one that was written: {broken}");
            let problem = Some(broken.to_string());
            Ok(Json(AuditVerified { intact: false, entries: None, last: None, problem }))
        }
        Err(VerifyError::Store(error)) => Err(error.into()),
    }
}

fn noted(text: &str) -> Result<Noted, ApiError> {
    Noted::parse(text).ok_or_else(|| {
        ApiError::bad_request("noted", "`noted` is no number of an entry and its hash")
            .hint("write it as NUMBER:HASH, as `last` of an earlier check was")
    })
}

/// Which part of the audit log is exported.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportParams {
    /// Only entries with a larger number; the export begins with the hash of this one.
    #[serde(default)]
    #[param(maximum = 9223372036854775807_u64)]
    after: u64,
}

/// Exports the audit log, one JSON object a line, for a check without this server.
///
/// The first line says what comes before, each further one holds everything that the hash of its entry covers, and the
/// last one says that it is the last. `serin audit verify FILE` checks it. It takes a key for all packs.
#[utoipa::path(
    get, path = "/audit/export", tag = "audit", params(ExportParams),
    responses(
        (status = 200, description = "The log as it is now.", body = String, content_type = "application/x-ndjson"),
        (status = 400, description = "The query cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is no entry with this number.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn export(
    State(app): State<App>,
    asker: Asker,
    Params(params): Params<ExportParams>,
) -> Result<Response, ApiError> {
    if *asker.scope() != Scope::All {
        return Err(asker.outside("all of the audit log"));
    }
    let written = app.control.store().audit_head().await?;
    let after = match params.after {
        0 => Noted::GENESIS,
        seq => {
            let before = seq.saturating_sub(1);
            let filter = AuditFilter { after: before, limit: Some(1), ..AuditFilter::default() };
            let entries = app.control.store().audit(&filter).await?;
            let found = entries.first().filter(|entry| entry.seq == seq);
            let unknown = || ApiError::not_found("unknown-entry", format!("there is no audit entry {seq}"));
            let entry = found.ok_or_else(unknown)?;
            Noted { seq, hash: entry.hash }
        }
    };
    let first = Progress::Entries { app, last: after, until: written.seq.max(after.seq) };
    let head = stream::once(std::future::ready(Ok(Bytes::from(export_head(after)))));
    let lines = stream::try_unfold(first, Progress::next);
    let body = Body::from_stream(futures_util::StreamExt::chain(head, lines));
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson"),
        (CONTENT_DISPOSITION, "attachment; filename=\"audit.ndjson\""),
    ];
    Ok((headers, body).into_response())
}

/// How far an export has got.
enum Progress {
    /// Entries up to `until` are to be sent behind `last`.
    Entries { app: App, last: Noted, until: u64 },
    /// The end was sent.
    Over,
}

impl Progress {
    /// The next lines. An error cuts the export off, which its reader notices by the missing end.
    async fn next(self) -> io::Result<Option<(Bytes, Self)>> {
        let Self::Entries { app, last, until } = self else { return Ok(None) };
        let filter = AuditFilter {
            after: last.seq,
            before: Some(until.saturating_add(1)),
            limit: Some(PAGE),
            ..AuditFilter::default()
        };
        let cut_off = |error: &StoreError| {
            tracing::error!(error = %Chain(error), "an export of the audit log broke off: {}", Chain(error));
            io::Error::other("the store failed")
        };
        let entries = app.control.store().audit(&filter).await.map_err(|error| cut_off(&error))?;
        let Some(newest) = entries.last() else {
            return Ok(Some((Bytes::from(export_end(last)), Self::Over)));
        };
        let last = Noted { seq: newest.seq, hash: newest.hash };
        let mut lines = String::new();
        for entry in &entries {
            lines.push_str(&export_line(entry).map_err(|broken| {
                tracing::error!(error = %broken, "an export of the audit log broke off: {broken}");
                io::Error::other("the log is broken")
            })?);
        }
        Ok(Some((Bytes::from(lines), Self::Entries { app, last, until })))
    }
}
