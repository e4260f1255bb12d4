//! Notes in the audit log that a hold lasts, so that whoever should know is told.

use std::sync::Arc;
use std::time::Duration;

use serin_core::remind::remind;
use serin_core::units::HoldFor;

use super::Control;
use super::commit::{Beside, NotCommitted};
use crate::errors::Chain;

/// How often it is looked how long holds have lasted.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Control {
    /// Notes holds that last for as long as the server runs.
    pub async fn remind_of_holds(self: Arc<Self>, after: HoldFor) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.remind(after).await;
        }
    }

    /// Notes every hold that has lasted for at least `after`, each once; what fails is tried at the next look.
    pub async fn remind(&self, after: HoldFor) {
        for pack in self.names().await {
            let Some(managed) = self.managed(&pack).await else { continue };
            let mut managed = managed.lock().await;
            let Some(transition) = remind(&managed.state, after, self.clock.now()) else { continue };
            match self.commit(&mut managed, transition, Beside::default()).await {
                Ok(()) | Err(NotCommitted::Conflict(_)) => {}
                Err(error) => {
                    tracing::warn!(%pack, error = %Chain(&error), "could not note that a hold of {pack} lasts");
                }
            }
        }
    }
}
