//! Who may do what: roles, permissions, and the packs that a key is good for.
//!
//! Rolling back takes less authority than promoting: whoever may ship a version may also take it back.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::ids::PackName;

/// Declares an enum of fixed words that are stored and shown.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$about])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that is stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Reads the word; nothing where it is none of these.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// What somebody is to Serin; each role is a fixed set of permissions.
    Role {
        /// Sees everything but the text of prompts.
        Viewer "viewer",
        /// Writes prompts: applies manifests, and takes back what was shipped.
        Engineer "engineer",
        /// Steers rollouts that others started.
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
    /// One thing that a caller may be allowed to do.
    Permission {
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

impl Role {
    /// Whether the role brings a permission, without anything that a key is granted besides.
    pub fn may(self, what: Permission) -> bool {
        use Permission as P;
        match self {
            Self::Admin => true,
            Self::Data => what == P::Data,
            Self::Alerts => what == P::Alerts,
            Self::Viewer => what == P::Read,
            Self::Engineer => matches!(what, P::Read | P::ReadPrompts | P::Apply | P::Rollback),
            Self::Operator => match what {
                P::Read | P::Pause | P::Resume | P::Approve => true,
                P::Promote | P::PromoteFull | P::Rollback | P::Retry | P::Alerts => true,
                P::ReadPrompts | P::Apply | P::OverridePolicy | P::Keys | P::Data => false,
            },
        }
    }
}

impl Permission {
    /// What an order needs.
    pub fn of_order(order: Command) -> Self {
        match order {
            Command::Pause => Self::Pause,
            Command::Resume => Self::Resume,
            Command::Approve => Self::Approve,
            Command::Promote => Self::Promote,
            Command::PromoteFully => Self::PromoteFull,
            Command::Rollback => Self::Rollback,
            Command::Retry => Self::Retry,
        }
    }

    /// The roles that bring it, for messages: `operator or admin`.
    pub fn roles(self) -> String {
        let roles: Vec<&str> =
            Role::ALL.iter().filter(|role| role.may(self)).map(|role| role.as_str()).collect();
        roles.join(" or ")
    }
}

/// The packs that a key is good for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// All of them, also those to come.
    #[default]
    All,
    /// These only.
    Packs(BTreeSet<PackName>),
}

impl Scope {
    /// Whether a pack lies in it.
    pub fn allows(&self, pack: &PackName) -> bool {
        match self {
            Self::All => true,
            Self::Packs(packs) => packs.contains(pack),
        }
    }

    /// The packs; nothing for all.
    pub fn packs(&self) -> Option<&BTreeSet<PackName>> {
        match self {
            Self::All => None,
            Self::Packs(packs) => Some(packs),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.pad("all packs"),
            Self::Packs(packs) => {
                let names: Vec<&str> = packs.iter().map(PackName::as_str).collect();
                f.pad(&names.join(", "))
            }
        }
    }
}

/// What a caller may do, and with which packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// Whether the text of prompts may be read although the role does not bring it.
    pub read_prompts: bool,
    /// The packs.
    pub scope: Scope,
}

impl Grant {
    /// Everything.
    pub const ADMIN: Self = Self { role: Role::Admin, read_prompts: true, scope: Scope::All };

    /// Whether something is allowed at all, with packs of the scope.
    pub fn may(&self, what: Permission) -> bool {
        match what {
            // Keys reach beyond any pack, so that only somebody who may do everything makes them.
            Permission::Keys => self.role.may(what) && self.scope == Scope::All,
            Permission::ReadPrompts => {
                self.role.may(what) || (self.read_prompts && self.role.may(Permission::Read))
            }
            what => self.role.may(what),
        }
    }

    /// Everything that is allowed.
    pub fn permissions(&self) -> Vec<Permission> {
        Permission::ALL.iter().copied().filter(|what| self.may(*what)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(role: Role, read_prompts: bool) -> String {
        let grant = Grant { role, read_prompts, scope: Scope::All };
        grant.permissions().iter().map(|what| what.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_role_is_this_set_of_permissions() {
        assert_eq!(permissions(Role::Viewer, false), "read");
        assert_eq!(permissions(Role::Viewer, true), "read read_prompts");
        assert_eq!(permissions(Role::Engineer, false), "read read_prompts apply rollback");
        assert_eq!(
            permissions(Role::Operator, false),
            "read pause resume approve promote promote_full rollback retry alerts"
        );
        assert_eq!(permissions(Role::Data, true), "data", "no grant brings an app to the control plane");
        assert_eq!(permissions(Role::Alerts, true), "alerts");
        assert_eq!(permissions(Role::Admin, false).split(' ').count(), Permission::ALL.len());
    }

    #[test]
    fn whoever_may_move_a_rollout_on_may_take_it_back() {
        let forward = [Permission::Apply, Permission::Promote, Permission::PromoteFull, Permission::Resume];
        for role in Role::ALL {
            if forward.iter().any(|what| role.may(*what)) {
                assert!(role.may(Permission::Rollback), "{role}");
            }
        }
        assert_eq!(Permission::Rollback.roles(), "engineer or operator or admin");
    }

    #[test]
    fn a_key_for_some_packs_makes_no_keys() {
        let packs = Scope::Packs([PackName::parse("support").unwrap()].into());
        let grant = Grant { role: Role::Admin, read_prompts: true, scope: packs };
        assert!(grant.may(Permission::Promote) && !grant.may(Permission::Keys));
        assert!(grant.scope.allows(&PackName::parse("support").unwrap()));
        assert!(!grant.scope.allows(&PackName::parse("billing").unwrap()));
    }

    #[test]
    fn every_word_reads_back() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(*role));
        }
        assert_eq!(Permission::parse("everything"), None);
    }
}
