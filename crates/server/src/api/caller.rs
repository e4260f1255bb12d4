//! Whoever sent a request, as handlers see them.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serin_core::access::{Permission, Scope};
use serin_core::audit::{Origin, Source};
use serin_core::ids::{Actor, PackName};
use serin_core::policy::Who;

use super::App;
use super::error::ApiError;
use super::guard::{ACTOR, not_permitted, outside_of_scope};
use super::read::pack_name;
use crate::auth::{Caller, Via};

/// Whoever sent a request that needed a permission.
pub(super) struct Asker(pub(super) Caller);

impl Asker {
    /// Whoever it is, as the policy asks.
    pub(super) fn who<'a>(&'a self, actor: &'a Actor) -> Who<'a> {
        Who { actor, role: self.0.grant.role, key: self.0.name.as_deref() }
    }

    /// Refuses what the role does not bring.
    pub(super) fn needs(&self, what: Permission) -> Result<(), ApiError> {
        if self.0.may(what) { Ok(()) } else { Err(not_permitted(&self.0, what)) }
    }

    /// Refuses a pack outside of the scope.
    pub(super) fn needs_pack(&self, pack: &PackName) -> Result<(), ApiError> {
        if self.0.sees(pack) { Ok(()) } else { Err(outside_of_scope(&self.0, pack.as_str())) }
    }

    /// 403: what is asked for reaches beyond the scope.
    pub(super) fn outside(&self, what: &str) -> ApiError {
        outside_of_scope(&self.0, what)
    }

    /// The packs that there are and that may be seen.
    pub(super) async fn visible(&self, app: &App) -> Vec<PackName> {
        let names = app.control.names().await;
        names.into_iter().filter(|name| self.0.sees(name)).collect()
    }

    /// Reads the pack of a filter, which must be one that may be seen.
    pub(super) async fn filter(&self, app: &App, pack: Option<&str>) -> Result<Option<PackName>, ApiError> {
        let Some(given) = pack else { return Ok(None) };
        if let Ok(pack) = PackName::parse(given) {
            self.needs_pack(&pack)?;
        }
        pack_name(given, &self.visible(app).await).map(Some)
    }

    /// The packs that may be seen.
    pub(super) fn scope(&self) -> &Scope {
        &self.0.grant.scope
    }
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>().cloned();
        // What needs nothing has no caller, and sees nothing that only a caller may see.
        caller.map(Self).ok_or_else(|| ApiError::unauthorized("the request brings no key"))
    }
}

/// The packs that an app may name; all of them where the data plane asks for no key.
pub(super) struct AppScope(pub(super) Scope);

impl AppScope {
    /// Refuses a pack outside of the scope.
    pub(super) fn needs_pack(&self, pack: &PackName) -> Result<(), ApiError> {
        if self.0.allows(pack) {
            return Ok(());
        }
        let detail = format!("the key is for {} only, not for \"{pack}\"", self.0);
        Err(ApiError::forbidden("other-pack", detail).hint("ask for a key that is made for this pack too"))
    }
}

impl<S: Sync> FromRequestParts<S> for AppScope {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(
            parts.extensions.get::<Caller>().map(|caller| caller.grant.scope.clone()).unwrap_or_default(),
        ))
    }
}

/// Whoever sent a request, for the audit log: the name of the key and, beside it, for whom it says it is sent.
pub(super) struct By(pub(super) Actor);

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>();
        let key = caller.and_then(|caller| caller.name.as_deref());
        let given = match parts.headers.get(ACTOR) {
            None => None,
            Some(value) => Some(
                std::str::from_utf8(value.as_bytes())
                    .map_err(|_| ApiError::bad_request("actor", format!("header {ACTOR} is no UTF-8")))?,
            ),
        };
        let actor = match (key, given.filter(|given| !given.trim().is_empty())) {
            (Some(key), Some(given)) if given != key => Actor::for_somebody(key, given),
            (Some(key), _) => Actor::named(key),
            (None, Some(given)) => Actor::named(given),
            (None, None) => Actor::named("unknown"),
        };
        Ok(Self(actor.by(origin(caller))))
    }
}

/// By which way somebody came.
fn origin(caller: Option<&Caller>) -> Origin {
    let source = match caller.map(|caller| caller.via) {
        Some(Via::Key) => Source::Key,
        Some(Via::Session | Via::Person) => Source::Dashboard,
        Some(Via::Open) | None => Source::Open,
    };
    Origin { source, key: caller.and_then(|caller| caller.key.clone()) }
}
