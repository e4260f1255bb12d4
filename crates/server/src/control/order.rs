//! Orders of people and pipelines to a rollout.

use std::sync::Arc;

use jiff::Timestamp;
use serin_core::access::Role;
use serin_core::command::{Command, Order, Refused, command, needs_plan_of};
use serin_core::ids::{Actor, PackName, RolloutId};
use serin_core::policy::{self, Who};

use super::commit::{Beside, NotCommitted, ROLLBACK_WITHIN};
use super::journal::Pending;
use super::policy::{Broken, unless_overridden};
use super::{Control, LoadError, Managed};
use crate::errors::Chain;

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no such pack.
    #[error("pack {0} does not exist")]
    UnknownPack(PackName),
    /// The rollout does not stand so that it could be carried out.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Rules of the policy do not allow it.
    #[error(transparent)]
    Policy(#[from] Broken),
    /// It could not be recorded.
    #[error(transparent)]
    NotCommitted(#[from] NotCommitted),
    /// A stored manifest could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// An order as somebody gives it.
#[derive(Debug, Clone, Copy)]
pub struct Ordered<'a> {
    /// What is to be done.
    pub what: Command,
    /// Who gives it.
    pub who: Who<'a>,
    /// Why.
    pub reason: &'a str,
    /// Why rules of the policy are set aside, by somebody who may.
    pub override_policy: Option<&'a str>,
}

impl<'a> Ordered<'a> {
    /// To go back to stable, which no rule is about.
    fn rollback(entry: &'a Pending) -> Self {
        let who = Who { actor: &entry.actor, role: Role::Viewer, key: None };
        Self { what: Command::Rollback, who, reason: &entry.reason, override_policy: None }
    }
}

/// How far an order has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// It is in force and recorded.
    Recorded,
    /// It is in force in this process and noted in the local journal; the store does not answer.
    InForce,
}

impl Control {
    /// Carries out an order.
    ///
    /// A rollback is in force in this process before anything else happens; with the store down it
    /// is noted in the local journal and recorded when the store returns.
    ///
    /// # Errors
    /// [`OrderError`] when it may not or could not be carried out.
    pub async fn order(&self, pack: &PackName, ordered: Ordered<'_>) -> Result<Carried, OrderError> {
        let managed = self.managed(pack).await.ok_or_else(|| OrderError::UnknownPack(pack.clone()))?;
        if ordered.what == Command::Rollback && self.is_split(pack) {
            let entry = Pending {
                pack: pack.clone(),
                actor: ordered.who.actor.clone(),
                reason: ordered.reason.to_owned(),
                at: self.clock.now(),
                rollout: None,
            };
            return self.roll_back_now(&managed, entry).await;
        }
        let mut managed = managed.lock().await;
        self.carry_out(&mut managed, ordered, self.clock.now()).await?;
        Ok(Carried::Recorded)
    }

    /// Rolls back one rollout and nothing else: neither a later one of its pack, nor a completed one.
    ///
    /// It is in force before it is recorded, as any rollback is.
    ///
    /// # Errors
    /// [`OrderError::Refused`] when the rollout is not under way.
    pub async fn roll_back_only(
        &self,
        rollout: &RolloutId,
        actor: &Actor,
        reason: &str,
    ) -> Result<Carried, OrderError> {
        let over = || Refused::Idle { command: "roll back", pack: rollout.to_string() };
        let snapshot = self.resolver.snapshot();
        let pack = snapshot
            .packs
            .values()
            .find(|pack| pack.route.split.as_ref().is_some_and(|split| split.rollout == *rollout));
        let pack = pack.ok_or_else(over)?.name.as_ref().clone();
        let managed = self.managed(&pack).await.ok_or_else(|| OrderError::UnknownPack(pack.clone()))?;
        let entry = Pending {
            pack,
            actor: actor.clone(),
            reason: reason.to_owned(),
            at: self.clock.now(),
            rollout: Some(rollout.clone()),
        };
        self.roll_back_now(&managed, entry).await
    }

    /// Whether a pack has a split in force, as the request path sees it.
    fn is_split(&self, pack: &PackName) -> bool {
        self.resolver.snapshot().packs.get(pack).is_some_and(|pack| pack.route.split.is_some())
    }

    /// Puts a rollback in force, then records it if the store answers in time.
    async fn roll_back_now(
        &self,
        managed: &Arc<tokio::sync::Mutex<Managed>>,
        entry: Pending,
    ) -> Result<Carried, OrderError> {
        self.force(&entry.pack, true);
        let recorded = tokio::time::timeout(ROLLBACK_WITHIN, async {
            let mut managed = managed.lock().await;
            entry.still_concerns(&managed.state)?;
            self.carry_out(&mut managed, Ordered::rollback(&entry), entry.at).await
        })
        .await;
        match recorded {
            Ok(Ok(())) => {
                self.force(&entry.pack, false);
                Ok(Carried::Recorded)
            }
            Ok(Err(OrderError::Refused(refused))) => {
                // It ended by itself in the meantime.
                self.force(&entry.pack, false);
                Err(refused.into())
            }
            Ok(Err(error)) => {
                tracing::error!(pack = %entry.pack, error = %Chain(&error), "rollback of {} is in force but not recorded", entry.pack);
                self.note(entry);
                Ok(Carried::InForce)
            }
            Err(_) => {
                tracing::error!(pack = %entry.pack, "rollback of {} is in force but the store does not answer", entry.pack);
                self.note(entry);
                Ok(Carried::InForce)
            }
        }
    }

    fn note(&self, entry: Pending) {
        if let Err(error) = self.journal.note(entry) {
            tracing::error!(%error, "could not write the rollback journal; the rollback holds as long as this process runs");
        }
    }

    /// Forces a pack to stable because of a rollback, or no longer.
    fn force(&self, pack: &PackName, on: bool) {
        let mut forced = self.forced.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if on {
            forced.rolled_back.insert(pack.clone());
        } else {
            forced.rolled_back.remove(pack);
        }
        let is_forced = on || forced.file.names(pack);
        if let Some(snapshot) = self.resolver.snapshot().packs.get(pack) {
            let mut next = crate::snapshot::PackSnapshot::clone(snapshot);
            next.route.forced = is_forced;
            self.resolver.publish(Arc::new(next));
        }
    }

    /// Records the rollbacks of the journal, as far as the store answers.
    pub(super) async fn record_pending(&self) {
        for pack in self.journal.packs() {
            let Some(entry) = self.journal.pending(&pack) else { continue };
            let Some(managed) = self.managed(&pack).await else { continue };
            let mut managed = managed.lock().await;
            if let Err(error) = self.reload(&mut managed).await {
                tracing::warn!(%pack, error = %Chain(&error), "the rollback of {pack} is still not recorded");
                continue;
            }
            let recorded = match entry.still_concerns(&managed.state) {
                Ok(()) => self.carry_out(&mut managed, Ordered::rollback(&entry), entry.at).await,
                Err(over) => Err(over.into()),
            };
            match recorded {
                // Idle: it was recorded before the process ended, or the rollout ended otherwise.
                Ok(()) | Err(OrderError::Refused(_)) => {
                    drop(managed);
                    if let Err(error) = self.journal.strike(&pack) {
                        tracing::error!(%error, "could not strike the rollback of {pack} out of the journal");
                    }
                    self.force(&pack, false);
                }
                Err(error) => {
                    tracing::warn!(%pack, error = %Chain(&error), "the rollback of {pack} is still not recorded");
                }
            }
        }
    }

    /// Whoever published the canary; asked for where it matters who that was.
    async fn applied_by(&self, managed: &Managed, what: Command) -> Result<Option<Actor>, OrderError> {
        match (what, managed.state.active()) {
            (Command::Approve, Some((rollout, _))) => {
                let stored = self.store.version(&managed.state.name, &rollout.canary).await;
                Ok(stored.map_err(NotCommitted::Store)?.map(|stored| stored.actor))
            }
            (
                Command::Approve
                | Command::Pause
                | Command::Resume
                | Command::Promote
                | Command::PromoteFully
                | Command::Rollback
                | Command::Retry,
                _,
            ) => Ok(None),
        }
    }

    async fn carry_out(
        &self,
        managed: &mut Managed,
        ordered: Ordered<'_>,
        now: Timestamp,
    ) -> Result<(), OrderError> {
        let Ordered { what, who, reason, override_policy } = ordered;
        let starts = match managed.state.active() {
            Some(_) => None,
            None => needs_plan_of(&managed.state, what)?,
        };
        let manifest = match &starts {
            Some(version) => {
                let stored =
                    self.store.version(&managed.state.name, version).await.map_err(NotCommitted::Store)?;
                stored.map(|stored| stored.manifest)
            }
            None => None,
        };
        let plan = match (&starts, &manifest) {
            (Some(version), Some(text)) => {
                self.plan_of(&managed.state.name, version, Some(text.clone())).await?
            }
            (Some(_), None) | (None, _) => Arc::clone(&managed.plan),
        };
        let salt = (self.salts)();
        let order = Order { actor: who.actor, reason, salt: &salt, now };
        let mut transition = command(&managed.state, &plan, what, order)?;
        let applied_by = self.applied_by(managed, what).await?;
        let violations = self.policy().of_order(&managed.state, &plan, what, who, applied_by.as_ref(), now);
        let overridden = unless_overridden(&violations, who.actor, override_policy)?;
        policy::record(&mut transition, self.policy(), overridden);
        let beside = Beside { manifest: manifest.as_deref().map(|text| (text, plan)), ..Beside::default() };
        Ok(self.commit(managed, transition, beside).await?)
    }
}
