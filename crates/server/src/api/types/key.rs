//! Keys, and whoever shows one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::word::words;

words! {
    /// What a key is good for.
    Role from serin_core::access::Role {
        /// Sees everything but the text of prompts.
        Viewer "viewer",
        /// Publishes versions, and takes back what was shipped.
        Engineer "engineer",
        /// Steers rollouts: pause, resume, approve, promote, roll back, retry.
        Operator "operator",
        /// May do everything.
        Admin "admin",
        /// An app: resolves, sends chats and reports, on the data plane only.
        Data "data",
        /// A monitoring system: says which alerts fire, and nothing else.
        Alerts "alerts",
    }
}

words! {
    /// One thing that a caller may do.
    Permission from serin_core::access::Permission {
        /// See packs, rollouts and the audit log.
        Read "read",
        /// See the text of prompts.
        ReadPrompts "read_prompts",
        /// Publish versions and start rollouts.
        Apply "apply",
        /// Stop a rollout where it is.
        Pause "pause",
        /// Let a paused rollout go on.
        Resume "resume",
        /// Approve a step that waits for it.
        Approve "approve",
        /// Enter the next step.
        Promote "promote",
        /// Make the canary stable at once.
        PromoteFull "promote_full",
        /// Send everyone back to stable.
        Rollback "rollback",
        /// Try a version again.
        Retry "retry",
        /// Set rules of the policy aside, once each time.
        OverridePolicy "override_policy",
        /// Make and revoke keys.
        Keys "keys",
        /// Resolve, send chats and report, on the data plane.
        Data "data",
        /// Say that an alert fires, which holds rollouts, or that it is over.
        Alerts "alerts",
    }
}

impl From<Role> for serin_core::access::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Engineer => Self::Engineer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
            Role::Data => Self::Data,
            Role::Alerts => Self::Alerts,
        }
    }
}

/// A key that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// What people call it, and what the audit log says: 1 to 64 letters, digits, `-`, `_`, `.` or `@`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._@-]+$")]
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// The packs that it is good for; all of them when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1)]
    pub packs: Option<Vec<String>>,
    /// Whether it may read the text of prompts although its role does not bring that.
    #[serde(default)]
    pub read_prompts: bool,
    /// How long it is good for, such as `90d`; for good when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

/// What is known of a key; never the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Names it for good, also in the audit log.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// The packs that it is good for; absent for all of them.
    pub packs: Option<Vec<String>>,
    /// Whether it may read the text of prompts.
    pub read_prompts: bool,
    /// When it was made; absent for a key of the settings.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// By whom; absent for a key of the settings.
    pub created_by: Option<String>,
    /// From when on it is no longer good; absent for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Whether that has passed.
    pub expired: bool,
    /// When it was last shown, to the minute; absent for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// Whether it stands in the settings, which alone can revoke it.
    pub from_settings: bool,
}

/// All keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// By name; those of the settings last.
    pub keys: Vec<KeyView>,
}

/// A key that was made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyCreated {
    /// The key; it is shown this once and kept nowhere.
    pub key: String,
    /// What is known of it from now on.
    pub info: KeyView,
}

impl std::fmt::Debug for KeyCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyCreated").field("info", &self.info).finish_non_exhaustive()
    }
}

/// How one can sign in to the dashboard, besides with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignInView {
    /// The identity provider; absent where the settings name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<SignInProvider>,
}

/// An identity provider that signs people in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignInProvider {
    /// What the button says after `Sign in with`.
    pub label: String,
    /// Where a browser begins, on this server.
    pub path: String,
}

/// A sign-in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// A key.
    pub key: String,
}

/// How somebody showed who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallerSource {
    /// By a key.
    Key,
    /// By the cookie of a session that a key began.
    Session,
    /// By the cookie of a session of somebody whom an identity provider signed in.
    Person,
    /// Not at all: the server is open to whoever reaches it on its machine.
    Open,
}

/// Who asks, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhoamiView {
    /// The name of the key or the person; `anyone` where none was shown.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// The packs that it is good for; absent for all of them.
    pub packs: Option<Vec<String>>,
    /// How it was shown.
    pub source: CallerSource,
    /// Everything that is allowed.
    pub may: Vec<Permission>,
}
