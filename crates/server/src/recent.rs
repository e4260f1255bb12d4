//! What was read of packs a moment ago, so that many who look at the same time cost what one costs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serin_core::ids::PackName;
use tokio::sync::OwnedMutexGuard;

/// What was read last of each pack; whoever keeps it says how long it is good.
#[derive(Debug)]
pub(crate) struct Recent<T>(Mutex<BTreeMap<PackName, Slot<T>>>);

type Slot<T> = Arc<tokio::sync::Mutex<Option<T>>>;

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Recent<T> {
    /// What is kept of a pack, to be read and replaced; those who come meanwhile wait for it.
    pub(crate) async fn of(&self, pack: &PackName) -> OwnedMutexGuard<Option<T>> {
        let slot = {
            let mut packs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(packs.entry(pack.clone()).or_default())
        };
        slot.lock_owned().await
    }
}
