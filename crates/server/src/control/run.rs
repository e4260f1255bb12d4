//! The control loop: looks at every active rollout when it is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serin_core::alert;
use serin_core::ids::PackName;
use serin_core::metric::MetricName;
use serin_core::outside::Outside;
use serin_core::plan::Gate;
use serin_core::replay::Seen;
use serin_core::rollout::HoldCause;
use serin_core::routing::{Pin, seconds};
use serin_core::tick::{Tick, next_due, tick};
use serin_core::units::{HoldFor, Timestamp};
use tokio::sync::Mutex;

use super::commit::{Beside, NotCommitted};
use super::{Control, Managed};
use crate::errors::Chain;
use crate::store::{Batch, Touch};

/// How often the loop looks whether a rollout is due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Transitions of one pack in one look, at most; a plan has fewer steps than that.
const MOST_TRANSITIONS: usize = 200;
/// Sessions seen since the last sweep but one are remembered as seen. So after a restart a session may have been
/// seen that much later than it is remembered, and lives on for as long.
pub(super) const SWEPT_TWICE: HoldFor = HoldFor::from_mins(2);
/// Sessions that are remembered in one transaction.
const TOUCH_BATCH: usize = 2_000;
/// Longest time between reading a pin and touching it.
const AFTER_READ: HoldFor = HoldFor::from_secs(2);
/// How often expired pins are swept and old rows removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

impl Control {
    /// Runs the control loop for as long as the server runs.
    pub async fn run(self: Arc<Self>) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.look().await;
        }
    }

    /// Looks once at every pack; failures are counted, logged and tried again at the next look.
    pub async fn look(&self) {
        self.record_pending().await;
        self.record_force_file().await;
        for pack in self.names().await {
            if let Err(error) = self.tick_pack(&pack).await {
                tracing::warn!(%pack, error = %Chain(&error), "could not tick pack {pack}");
            }
        }
    }

    /// Ticks one pack until there is nothing to do.
    ///
    /// # Errors
    /// [`NotCommitted`] when the store fails or somebody else was first; nothing changes then.
    pub async fn tick_pack(&self, pack: &PackName) -> Result<(), NotCommitted> {
        let Some(managed) = self.managed(pack).await else { return Ok(()) };
        // Asked before anything is locked: a provider that hangs keeps no order waiting.
        let outside = self.outside(pack, &managed).await;
        let mut managed = managed.lock().await;
        for transitions in 0..MOST_TRANSITIONS {
            let now = self.clock.now();
            let due = next_due(&managed.state, &managed.plan);
            let forced = self.is_forced_by_file(pack);
            let Some((rollout, active)) = managed.state.active() else {
                return self.look_at_watch(&mut managed).await;
            };
            let shows_forced = active.holds.contains_key(&HoldCause::ForcedStable);
            let alerts = alert::reason(&self.alerts_of(pack), now);
            let shown_alerts = active.holds.get(&HoldCause::Alert).map(|hold| hold.reason.clone());
            // One transition may open the way for the next, at the same point in time.
            let shows_all = forced == shows_forced && alerts == shown_alerts;
            if transitions == 0 && due.is_some_and(|due| now < due) && shows_all {
                return Ok(());
            }
            self.counts.ticks.fetch_add(1, Ordering::Relaxed);
            let mut evidence = self.evidence(&managed, rollout, now).await.inspect_err(|_| {
                self.counts.store_failures.fetch_add(1, Ordering::Relaxed);
            })?;
            evidence.outside = outside.clone();
            match tick(&managed.state, &managed.plan, &evidence, now) {
                Tick::Idle { .. } => return Ok(()),
                Tick::Transition(transition) => {
                    let is_check = transition.check.is_some();
                    let seen = is_check.then(|| Seen::of(&managed.plan, rollout, active, &evidence));
                    self.commit(&mut managed, *transition, Beside { seen, ..Beside::default() }).await?;
                }
            }
        }
        Ok(())
    }

    /// What outside providers measure for a check that is due.
    async fn outside(&self, pack: &PackName, managed: &Mutex<Managed>) -> BTreeMap<MetricName, Outside> {
        let (plan, rollout) = {
            let managed = managed.lock().await;
            let due = next_due(&managed.state, &managed.plan).is_some_and(|due| self.clock.now() >= due);
            let asks = managed.plan.analysis.gates.iter().any(Gate::is_outside);
            match managed.state.active() {
                Some((rollout, _)) if due && asks => (Arc::clone(&managed.plan), rollout.clone()),
                Some(_) | None => return BTreeMap::new(),
            }
        };
        match self.measurer.get() {
            Some(measurer) => measurer.measure(pack, &plan, &rollout).await,
            None => BTreeMap::new(),
        }
    }

    /// Sweeps expired pins and removes rows past their retention, now and then.
    pub async fn sweep(self: Arc<Self>, retention: HoldFor) {
        let mut every = tokio::time::interval(SWEEP_EVERY);
        loop {
            every.tick().await;
            self.sweep_once(retention).await;
        }
    }

    /// Sweeps once.
    pub async fn sweep_once(&self, retention: HoldFor) {
        let now = self.clock.now();
        let snapshot = self.resolver.snapshot();
        // Pins of all packs share one table: the most patient policy decides.
        let policies: Vec<_> = snapshot.packs.values().map(|pack| pack.route.sessions).collect();
        if !policies.is_empty() {
            let resolver = Arc::clone(&self.resolver);
            // A request that has just read a pin must find it when it touches it.
            let judged_at = AFTER_READ.before(now);
            let sweep = move || {
                let ended = |pin: Pin| policies.iter().all(|policy| pin.is_expired(policy, judged_at));
                resolver.pins.remove_expired(&|_, pin| ended(pin))
            };
            // Walking millions of pins takes tens of milliseconds.
            if tokio::task::spawn_blocking(sweep).await.is_err() {
                tracing::error!("the sweep of expired pins broke off");
            }
        }
        for pack in self.names().await {
            if let Err(error) = self.retire_drained(&pack).await {
                tracing::warn!(%pack, error = %Chain(&error), "could not retire versions of {pack} that have drained");
            }
        }
        self.remember_touches(now).await;
        if let Some(alerts) = self.alerts.get() {
            alerts.forget(now).await;
        }
        if let Err(error) = self.store.expire(now, retention).await {
            tracing::warn!(error = %Chain(&error), "could not remove old rows");
        }
    }
}

impl Control {
    /// Stores when sessions were last seen, so that their pins survive a restart.
    ///
    /// Not with each request: that would write a row of the busiest table a second time for all of them.
    async fn remember_touches(&self, now: Timestamp) {
        let since = seconds(SWEPT_TWICE.before(now));
        let mut touches = Vec::new();
        self.resolver.pins.iter(&mut |hash, pin| {
            if pin.last_seen >= since && pin.last_seen > pin.pinned_at {
                let at = Timestamp::from_second(i64::from(pin.last_seen)).unwrap_or(now);
                touches.push(Touch { hash, at });
            }
        });
        for touches in touches.chunks(TOUCH_BATCH) {
            let batch = Batch { touches: touches.to_vec(), ..Batch::default() };
            if let Err(error) = self.store.write(&batch).await {
                tracing::warn!(error = %Chain(&error), "could not store when sessions were last seen");
                return;
            }
        }
    }
}
