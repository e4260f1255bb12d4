//! The watch over a version that has become stable.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serin_core::{plan, watch};
use utoipa::ToSchema;

use super::word::words;

words! {
    /// What a gate does that a stable version is proven to break while it is watched.
    OnBreach from plan::OnBreach {
        /// Tells people only.
        Notify "notify",
        /// Brings everyone back to the version before.
        Rollback "rollback",
    }
}

/// The watch over the version that a rollout made stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchView {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Until when, as long as no gate is broken.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// What a breach does.
    pub on_breach: OnBreach,
    /// How it stands.
    pub state: WatchState,
    /// When a gate was found to be broken.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub breached_at: Option<Timestamp>,
    /// What it came to, in words; absent while it goes on.
    pub summary: Option<String>,
}

/// How a watch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WatchState {
    /// It goes on.
    Running,
    /// Its time is over, and no gate was proven to be broken.
    Over,
    /// A gate is proven to be broken.
    Breached,
}

impl From<&watch::Watch> for WatchView {
    fn from(watch: &watch::Watch) -> Self {
        let (state, breached_at, summary) = match &watch.state {
            watch::WatchState::Running => (WatchState::Running, None, None),
            watch::WatchState::Over { summary } => (WatchState::Over, None, Some(summary.clone())),
            watch::WatchState::Breached { at, reason } => {
                (WatchState::Breached, Some(*at), Some(reason.clone()))
            }
        };
        let (since, until, on_breach) = (watch.since, watch.until, watch.on_breach.into());
        Self { since, until, on_breach, state, breached_at, summary }
    }
}
