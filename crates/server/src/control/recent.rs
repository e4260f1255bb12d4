//! What was measured of packs a moment ago, so that whoever looks often costs what one look costs.
//!
//! Adding up the evidence of a rollout takes milliseconds under the lock of its pack. Metrics need no number that
//! is newer than the last scrape but one; a change of the pack shows at once all the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serin_core::ids::PackName;
use serin_core::units::{HoldFor, Timestamp};

use super::Control;
use super::view::PackView;
use crate::store::StoreError;

/// How old the evidence of an active rollout may be.
const WHILE_ACTIVE: HoldFor = HoldFor::from_secs(5);
/// How old that of a rollout may be which is over: only late outcomes still change what is shown of it.
const AFTERWARDS: HoldFor = HoldFor::from_secs(60);

/// The last view of a pack.
#[derive(Debug)]
pub(super) struct Kept {
    at: Timestamp,
    view: Arc<PackView>,
}

impl Control {
    /// A pack as it stands, with what was measured of it a few seconds ago; nothing when it does not exist.
    ///
    /// State, weights and holds are of now: a view from before a change of the pack is never given.
    ///
    /// # Errors
    /// [`StoreError`] when what was measured cannot be read.
    pub async fn recent_view(&self, pack: &PackName) -> Result<Option<Arc<PackView>>, StoreError> {
        let Some((state, _, forced)) = self.standing(pack).await else { return Ok(None) };
        let mut kept = self.recent.of(pack).await;
        let now = self.clock.now();
        let longest = if state.active().is_some() { WHILE_ACTIVE } else { AFTERWARDS };
        if let Some(kept) = &*kept
            && (longest.before(now)..=now).contains(&kept.at)
            && (kept.view.state.revision, kept.view.forced) == (state.revision, forced)
        {
            return Ok(Some(Arc::clone(&kept.view)));
        }
        self.counts.views.fetch_add(1, Ordering::Relaxed);
        let Some(view) = self.view(pack).await?.map(Arc::new) else { return Ok(None) };
        *kept = Some(Kept { at: now, view: Arc::clone(&view) });
        Ok(Some(view))
    }
}
