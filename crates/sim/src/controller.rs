//! The control side of a world: what a server does around core, without storage, sockets or a clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_core::analysis::{Analysis, Evidence};
use serin_core::audit::AuditFact;
use serin_core::command::{self, Command, Order, command};
use serin_core::ids::{Actor, Version};
use serin_core::pack::{PackState, Transition};
use serin_core::parse::{self, Problems};
use serin_core::plan::Plan;
use serin_core::publish::{self, Application, Change, Outcome, Published, publish};
use serin_core::rollout::{Active, Rollout};
use serin_core::routing::{Cohort, Cohorts};
use serin_core::tick::{self, Tick, tick};
use serin_core::units::Timestamp;
use serin_core::{invariant, rollout};

/// Why a manifest was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The manifest has problems.
    #[error("could not read the manifest: {0}")]
    Unreadable(#[from] Problems),
    /// The publishing rules refuse it.
    #[error("could not apply the manifest: {0}")]
    Refused(#[from] publish::Refused),
}

/// What applying a manifest did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Nothing, for a reason in words.
    Unchanged(String),
    /// The rollout block is kept for the next rollout of the version.
    PlanKept(String),
    /// Something changed.
    Changed(Change),
}

/// A version as it was published.
#[derive(Debug, Clone)]
struct Known {
    /// As it was applied, from which the plan is read again after a crash.
    manifest: String,
    plan: Plan,
    published: Published,
}

/// Holds what a server stores about one pack, and carries out what core decides.
#[derive(Debug, Default)]
pub struct Controller {
    versions: BTreeMap<Version, Known>,
    pack: Option<PackState>,
    cohorts: Cohorts,
    audit: Vec<AuditFact>,
    checks: Vec<Analysis>,
    ended: Vec<Rollout>,
    transitions: u64,
    seed: u64,
}

/// Core says that something happens again and again at one point in time.
const MOST_TRANSITIONS_AT_ONCE: u32 = 32;

impl Controller {
    /// A controller without a version; the seed sets the salts of its rollouts apart from those of other seeds.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// [`ApplyError`] when it has problems or breaks a publishing rule; nothing changes then.
    pub fn apply(
        &mut self,
        manifest: &str,
        actor: &Actor,
        reason: &str,
        restart: bool,
        now: Timestamp,
    ) -> Result<Applied, ApplyError> {
        let parsed = parse::parse(manifest)?;
        let json = parse::to_json(manifest)?;
        let plan = parsed.plan;
        let digests = Published {
            content_digest: json["spec"]["source"].to_string(),
            plan_digest: json["spec"]["rollout"].to_string(),
        };
        let salt = self.next_salt();
        let known = self.versions.get(&plan.version);
        let application =
            Application { plan: &plan, digests: &digests, actor, reason, salt: &salt, restart, now };
        let outcome = publish(self.pack.as_ref(), known.map(|known| &known.published), application)?;
        let version = plan.version.clone();
        let applied = match outcome {
            Outcome::Unchanged(why) => return Ok(Applied::Unchanged(why)),
            Outcome::PlanKept(why) => Applied::PlanKept(why),
            Outcome::Changed(transition, change) => {
                self.commit(*transition);
                Applied::Changed(change)
            }
        };
        self.versions.insert(version, Known { manifest: manifest.to_owned(), plan, published: digests });
        Ok(applied)
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// [`command::Refused`] when it may not be carried out; nothing changes then.
    pub fn order(
        &mut self,
        order: Command,
        actor: &Actor,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), command::Refused> {
        let Some(pack) = &self.pack else {
            return Err(command::Refused::Idle {
                command: order.as_str(),
                pack: "without a version".to_owned(),
            });
        };
        let version = match command::needs_plan_of(pack, order)? {
            Some(version) => version,
            None => {
                pack.rollout.as_ref().map_or_else(|| pack.stable.clone(), |rollout| rollout.canary.clone())
            }
        };
        let salt = self.next_salt();
        let plan = &self.known(&version).plan;
        let transition = command(pack, plan, order, Order { actor, reason, salt: &salt, now })?;
        self.commit(transition);
        Ok(())
    }

    /// Ticks until nothing is left to do now, and tells when to come back; nothing without a rollout.
    pub fn tick(&mut self, evidence: &Evidence, now: Timestamp) -> Option<Timestamp> {
        for _ in 0..MOST_TRANSITIONS_AT_ONCE {
            let (pack, plan) = (self.pack.as_ref()?, self.active_plan()?);
            match tick(pack, plan, evidence, now) {
                Tick::Transition(transition) => self.commit(*transition),
                Tick::Idle { until } => return Some(until),
            }
        }
        panic!("the state machine made {MOST_TRANSITIONS_AT_ONCE} transitions at {now} and wants to go on");
    }

    /// Forgets everything but what is stored, as a crash does.
    pub fn crash(&mut self) {
        if let Some(pack) = &self.pack {
            let stored = serde_json::to_string(pack).expect("a pack state is plain data");
            self.pack = Some(serde_json::from_str(&stored).expect("what was written can be read"));
        }
        for known in self.versions.values_mut() {
            known.plan = parse::parse(&known.manifest).expect("it was read before").plan;
        }
    }

    fn commit(&mut self, transition: Transition) {
        if let Err(violation) = invariant::check(self.pack.as_ref(), &transition) {
            panic!("a transition breaks an invariant: {violation}\n{:#?}", transition.facts);
        }
        for cohort in &transition.cohorts {
            self.cohorts.insert(Arc::new(cohort.clone()));
        }
        self.audit.extend(transition.facts);
        self.checks.extend(transition.check);
        self.ended.extend(transition.superseded);
        if let Some(old) = self.pack.as_ref().and_then(|pack| pack.rollout.as_ref())
            && old.ended().is_some()
            && transition.pack.rollout.as_ref().is_some_and(|new| new.id != old.id)
        {
            self.ended.push(old.clone());
        }
        self.pack = Some(transition.pack);
        self.transitions += 1;
    }

    /// A salt of its own for each rollout.
    fn next_salt(&self) -> String {
        format!("salt-{}-{}", self.seed, self.pack.as_ref().map_or(0, |pack| pack.attempts) + 1)
    }

    fn known(&self, version: &Version) -> &Known {
        self.versions.get(version).expect("a version that a pack names was published")
    }

    /// The stored state of the pack.
    pub fn pack(&self) -> Option<&PackState> {
        self.pack.as_ref()
    }

    /// The rollout under way, or the latest one.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.pack.as_ref()?.rollout.as_ref()
    }

    /// The rollout under way.
    pub fn active(&self) -> Option<(&Rollout, &Active)> {
        self.pack.as_ref()?.active()
    }

    /// The plan of the rollout under way, or of the latest one.
    pub fn plan(&self) -> Option<&Plan> {
        self.rollout().map(|rollout| &self.known(&rollout.canary).plan)
    }

    /// The plan of the rollout under way.
    pub fn active_plan(&self) -> Option<&Plan> {
        self.active().map(|(rollout, _)| &self.known(&rollout.canary).plan)
    }

    /// Where the latest rollout is in its life.
    pub fn phase(&self) -> Option<rollout::Phase> {
        Some(self.rollout()?.phase(self.plan()?))
    }

    /// When a rollout under way has to be looked at again.
    pub fn next_due(&self) -> Option<Timestamp> {
        tick::next_due(self.pack.as_ref()?, self.active_plan()?)
    }

    /// Every cohort that was ever opened.
    pub fn cohorts(&self) -> &Cohorts {
        &self.cohorts
    }

    /// A cohort by its number.
    pub fn cohort(&self, id: serin_core::routing::CohortId) -> &Arc<Cohort> {
        self.cohorts.get(id).expect("every cohort of a pack was opened by a transition")
    }

    /// The audit log, oldest first.
    pub fn audit(&self) -> &[AuditFact] {
        &self.audit
    }

    /// Every check, oldest first.
    pub fn checks(&self) -> &[Analysis] {
        &self.checks
    }

    /// Rollouts before the latest one, oldest first.
    pub fn ended(&self) -> &[Rollout] {
        &self.ended
    }

    /// How many transitions were committed.
    pub fn transitions(&self) -> u64 {
        self.transitions
    }
}
