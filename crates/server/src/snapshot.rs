//! What the request path reads: one immutable picture of all packs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_core::ids::{PackName, Version};
use serin_core::prompt::Pack;
use serin_core::routing::Route;
use serin_core::segment::Attributes;

use crate::segments::Segments;

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
    /// Who belongs to which segment of the rollout in force.
    pub segments: Arc<Segments>,
    /// The prompts of every version that a session may get; a version-only pack has none.
    pub prompts: BTreeMap<Version, Arc<Pack>>,
    /// The revision of the pack that this is.
    pub revision: u64,
    /// Outcomes that the manifest in force declares.
    pub custom: Vec<serin_core::metric::Metric>,
}

impl PackSnapshot {
    /// Whether the attributes of a session can make a difference right now.
    pub fn reads_attributes(&self) -> bool {
        self.route.split.is_some() && self.segments.read_attributes()
    }

    /// The index of the segment that a session with these attributes belongs to, for [`Visit::segment`].
    ///
    /// An attribute that is missing or of another type is no match, and counted.
    ///
    /// [`Visit::segment`]: crate::resolve::Visit::segment
    pub fn segment_of(&self, attributes: &Attributes) -> usize {
        if self.reads_attributes() { self.segments.find(attributes) } else { 0 }
    }
}
