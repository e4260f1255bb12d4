//! Signing in to the dashboard with OpenID Connect: the authorization code flow with PKCE.
//!
//! A sign-in begins here, goes on at the provider and ends here. In between, what belongs to it (nonce and PKCE
//! verifier) is kept for ten minutes, under a state that is good for one answer and for the browser that began it. Only
//! a verified ID token makes somebody a person here, and only the settings say what that person may do.
//!
//! **Invariant:** whatever goes wrong, there is no session.

#[cfg_attr(not(feature = "oidc"), expect(dead_code, reason = "such a build signs nobody in"))]
mod attempts;
#[cfg_attr(not(feature = "oidc"), expect(dead_code, reason = "such a build signs nobody in"))]
mod claims;
#[cfg(feature = "oidc")]
mod provider;

#[cfg(not(feature = "oidc"))]
mod absent;

use std::sync::atomic::AtomicU64;

use serin_core::access::Grant;
use serin_core::units::HoldFor;

#[cfg(not(feature = "oidc"))]
pub use self::absent::Oidc;
pub use self::attempts::{ATTEMPT_LASTS, MOST_ATTEMPTS};
pub use self::claims::NameClaim;
#[cfg(feature = "oidc")]
pub use self::provider::Oidc;
use crate::gateway::Secret;
use crate::notify::receiver::Glob;
use crate::trust::Roots;

/// Where a sign-in begins on the control plane.
pub const BEGIN_PATH: &str = "/oidc/sign-in";
/// Where the provider sends people back to.
pub const CALLBACK_PATH: &str = "/oidc/callback";

/// What the settings say about signing in with OpenID Connect.
#[derive(Debug, Clone)]
pub struct OidcSettings {
    /// Who signs people in, to the letter as the provider calls itself.
    pub issuer: String,
    /// What Serin is called there.
    pub client_id: String,
    /// What Serin shows there; a public client has none.
    pub client_secret: Option<Secret>,
    /// Where people are sent back to.
    pub redirect: String,
    /// What is asked for besides `openid`.
    pub scopes: Vec<String>,
    /// What the button says: `Sign in with …`.
    pub label: String,
    /// The claim that holds what roles depend on; dots lead into objects.
    pub claim: String,
    /// The claim that is the name of a person in the audit log.
    pub name_claim: NameClaim,
    /// What a person may do, by the values of the claim; the first that fits counts.
    pub roles: Vec<RoleRule>,
    /// How long somebody stays signed in.
    pub session_lasts: HoldFor,
    /// Whose certificates are trusted instead of the public ones.
    pub roots: Option<Roots>,
}

/// What people may do who have a value of the claim.
#[derive(Debug, Clone)]
pub struct RoleRule {
    /// The value.
    pub value: Glob,
    /// What they may do.
    pub grant: Grant,
}

/// Somebody whom the provider signed in and whom the settings know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name, as the audit log has it.
    pub name: String,
    /// `oidc:` and the subject, which never changes.
    pub id: String,
    /// What they may do.
    pub grant: Grant,
}

/// A sign-in that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser goes on.
    pub go_to: String,
    /// What only this browser knows.
    pub browser: String,
}

/// What the provider sends a browser back with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Returned {
    /// Names the sign-in.
    pub state: String,
    /// What the tokens are exchanged for.
    pub code: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
    /// The same in words.
    pub error_description: Option<String>,
    /// Who sent the browser back, where the provider says so (RFC 9207).
    pub issuer: Option<String>,
}

/// Why nobody is signed in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignInError {
    /// The provider does not answer.
    #[error("could not reach {issuer}: {why}")]
    Unreachable {
        /// The provider.
        issuer: String,
        /// Why.
        why: String,
    },
    /// What the provider says about itself cannot be used.
    #[error("could not use what {issuer} says about itself: {why}")]
    Discovery {
        /// The provider.
        issuer: String,
        /// Why.
        why: String,
    },
    /// No sign-in of this state is under way.
    #[error(
        "this sign-in is over: it was finished already, took longer than ten minutes, or did not begin here"
    )]
    NotUnderWay,
    /// Another browser began this sign-in.
    #[error("this browser did not begin this sign-in, or began another one since")]
    OtherBrowser,
    /// The provider signed nobody in.
    #[error("{issuer} signed nobody in: {error}{}", in_words(.description))]
    Denied {
        /// The provider.
        issuer: String,
        /// Its word for that.
        error: String,
        /// The same in words.
        description: Option<String>,
    },
    /// Another provider sent the browser back.
    #[error("the answer comes from {found:?}, not from {issuer}")]
    OtherIssuer {
        /// The provider.
        issuer: String,
        /// Whom the answer names.
        found: String,
    },
    /// The provider takes the code for no tokens.
    #[error("{issuer} refused the code: {why}")]
    CodeRefused {
        /// The provider.
        issuer: String,
        /// Why.
        why: String,
    },
    /// The ID token proves nothing.
    #[error("the ID token of {issuer} is not accepted: {why}")]
    Token {
        /// The provider.
        issuer: String,
        /// Why.
        why: String,
    },
    /// The settings give this person no role.
    #[error("{name} is signed in at {issuer}, and has no role here: {}", lacks(.claim, .found))]
    NoRole {
        /// The person.
        name: String,
        /// The provider.
        issuer: String,
        /// The claim that roles depend on.
        claim: String,
        /// What it holds; nothing where it is missing.
        found: Option<Vec<String>>,
    },
}

impl SignInError {
    /// Whether somebody was signed in after all, and only has no role here.
    pub fn is_for_want_of_a_role(&self) -> bool {
        match self {
            Self::NoRole { .. } => true,
            Self::Unreachable { .. }
            | Self::Discovery { .. }
            | Self::NotUnderWay
            | Self::OtherBrowser
            | Self::Denied { .. }
            | Self::OtherIssuer { .. }
            | Self::CodeRefused { .. }
            | Self::Token { .. } => false,
        }
    }
}

fn in_words(description: &Option<String>) -> String {
    description.as_ref().map_or_else(String::new, |text| format!(" ({text})"))
}

fn lacks(claim: &str, found: &Option<Vec<String>>) -> String {
    match found {
        None => format!("neither the ID token nor the user info has the claim {claim}"),
        Some(values) if values.is_empty() => format!("the claim {claim} is empty"),
        Some(values) => {
            format!("the claim {claim} holds {}, which oidc.roles does not name", values.join(", "))
        }
    }
}

/// What is counted of sign-ins.
#[derive(Debug, Default)]
pub struct OidcCounts {
    /// Begun.
    pub begun: AtomicU64,
    /// Ended with a session.
    pub signed_in: AtomicU64,
    /// Ended because the person has no role here.
    pub without_role: AtomicU64,
    /// Ended in another way.
    pub failed: AtomicU64,
    /// Forgotten while they were under way, to make room for newer ones.
    pub forgotten: AtomicU64,
}
