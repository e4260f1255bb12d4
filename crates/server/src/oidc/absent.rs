//! A build without OpenID Connect, in which nobody signs in that way.

use serin_core::units::Timestamp;

use super::{Begun, OidcCounts, OidcSettings, Person, Returned, SignInError};

/// Nothing: a build without the feature `oidc` has none of it.
#[derive(Debug)]
pub enum Oidc {}

impl Oidc {
    /// Never there: settings that name a provider are refused in such a build.
    ///
    /// # Errors
    /// Always.
    pub fn new(_: OidcSettings) -> std::io::Result<Self> {
        Err(std::io::Error::other("this build has no OpenID Connect"))
    }

    /// Never called.
    pub fn settings(&self) -> &OidcSettings {
        match *self {}
    }

    /// Never called.
    pub fn counts(&self) -> &OidcCounts {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub async fn begin(&self, _: Timestamp) -> Result<Begun, SignInError> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub async fn finish(&self, _: Returned, _: Option<&str>, _: Timestamp) -> Result<Person, SignInError> {
        match *self {}
    }
}
