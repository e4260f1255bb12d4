//! The watch over a version that has become stable: judged like a rollout under way, at its own interval.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serin_core::analysis::{Analysis, Cell};
use serin_core::ids::PackName;
use serin_core::plan::OnBreach;
use serin_core::units::Timestamp;
use serin_core::watch::{Before, Look, Watch, breach, look, running};

use super::commit::{Beside, NotCommitted};
use super::{Control, Managed};
use crate::store::StoreError;

/// When each pack was looked at last; lost with the process, which then looks at once.
#[derive(Debug, Default)]
pub(super) struct Looked(Mutex<BTreeMap<PackName, Timestamp>>);

impl Looked {
    /// Whether a look is due; takes note of it then.
    fn is_due(&self, pack: &PackName, watch: &Watch, managed: &Managed, now: Timestamp) -> bool {
        let mut looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let interval = managed.plan.analysis.interval;
        let is_due = match looked.get(pack).filter(|last| **last >= watch.since) {
            None => true,
            Some(last) => {
                let border = watch.next_border(&managed.plan);
                interval.after(*last) <= now || (*last < border && border <= now)
            }
        };
        if is_due {
            looked.insert(pack.clone(), now);
        }
        is_due
    }
}

impl Control {
    /// Looks at the watch of a pack without a rollout under way, when that is due.
    pub(super) async fn look_at_watch(&self, managed: &mut Managed) -> Result<(), NotCommitted> {
        let now = self.clock.now();
        let Some((watch, _)) = running(&managed.state) else { return Ok(()) };
        if !self.looked.is_due(&managed.state.name, watch, managed, now) {
            return Ok(());
        }
        let cells = self.watched(managed, now).await?;
        match look(&managed.state, &managed.plan, &cells, now) {
            Look::Nothing => Ok(()),
            Look::On(transition) => self.commit(managed, *transition, Beside::default()).await,
            Look::Broken(analysis) => self.watch_is_broken(managed, &analysis, now).await,
        }
    }

    /// The matured sessions of the watch that goes on, each folded once.
    async fn watched(&self, managed: &Managed, now: Timestamp) -> Result<Vec<Cell>, StoreError> {
        let Some((watch, rollout)) = running(&managed.state) else { return Ok(Vec::new()) };
        let id = watch.rollout.watch();
        if let Some(baseline) = rollout.baseline() {
            let plan = watch.plan(&managed.plan);
            self.fold_matured(&managed.state.name, &id, &plan, baseline, now).await?;
        }
        self.cells(&managed.cohorts, &id).await
    }

    /// Records a breach, and brings everybody back to the version before where the manifest says so.
    async fn watch_is_broken(
        &self,
        managed: &mut Managed,
        analysis: &Analysis,
        now: Timestamp,
    ) -> Result<(), NotCommitted> {
        let rolls_back =
            managed.state.watch.as_ref().is_some_and(|watch| watch.on_breach == OnBreach::Rollback);
        let version = managed.state.history.last().filter(|_| rolls_back).cloned();
        let stored = match &version {
            Some(version) => self.store.version(&managed.state.name, version).await?,
            None => None,
        };
        let Some(stored) = stored else {
            let transition = breach(&managed.state, analysis, None, now);
            return self.commit(managed, transition, Beside::default()).await;
        };
        let text = stored.manifest;
        let plan = self.plan_of(&managed.state.name, &stored.version, Some(text.clone())).await?;
        let salt = (self.salts)();
        let before = Before { plan: &plan, salt: &salt };
        let transition = breach(&managed.state, analysis, Some(before), now);
        let manifest = Some((text.as_str(), Arc::clone(&plan)));
        self.commit(managed, transition, Beside { manifest, ..Beside::default() }).await
    }
}
