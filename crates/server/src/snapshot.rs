//! What the request path reads: one immutable picture of all packs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_core::ids::{PackName, Version};
use serin_core::prompt::Pack;
use serin_core::routing::Route;

/// All packs as they are served right now.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By name.
    pub packs: BTreeMap<PackName, Arc<PackSnapshot>>,
}

/// One pack as it is served right now.
#[derive(Debug, Clone)]
pub struct PackSnapshot {
    /// Its name, shared.
    pub name: Arc<PackName>,
    /// Who gets which version.
    pub route: Route,
    /// The prompts of every version that a session may get; a version-only pack has none.
    pub prompts: BTreeMap<Version, Arc<Pack>>,
    /// The revision of the pack that this is.
    pub revision: u64,
    /// Outcomes that the manifest in force declares.
    pub custom: Vec<serin_core::metric::Metric>,
}
