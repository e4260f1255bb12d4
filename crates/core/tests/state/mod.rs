//! A pack as a store keeps it: every transition is checked and committed.

#![expect(dead_code, reason = "each test program uses its own part")]

pub(crate) mod seen;

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_core::analysis::Evidence;
use serin_core::audit::{Action, AuditFact};
use serin_core::command::{self, Command, Order, command};
use serin_core::ids::{Actor, Version};
use serin_core::invariant;
use serin_core::pack::{PackState, Transition};
use serin_core::parse::parse;
use serin_core::plan::Plan;
use serin_core::policy::Policy;
use serin_core::publish::{self, Application, Change, Outcome, Published, publish};
use serin_core::rollout::Rollout;
use serin_core::routing::{Cohorts, Route, SegmentSplit, Split};
use serin_core::tick::{Tick, next_due, tick};
use serin_core::units::Timestamp;

/// Seconds since 1970 at which every pack begins: 2030-03-17 17:46:40 UTC, two weeks before Europe changes its clocks.
pub(crate) const START: i64 = 1_900_000_000;

#[derive(Debug, Default)]
pub(crate) struct Pack {
    state: Option<PackState>,
    known: BTreeMap<Version, (Plan, Published)>,
    pub(crate) facts: Vec<AuditFact>,
    pub(crate) superseded: Vec<Rollout>,
    pub(crate) cohorts: Cohorts,
    second: i64,
    /// The policy of the server.
    pub(crate) policy: Policy,
}

impl Pack {
    pub(crate) fn with_stable(version: &str) -> Self {
        let mut pack = Self::default();
        changed(pack.apply(version, "{}"));
        pack
    }

    pub(crate) fn apply(&mut self, version: &str, rollout: &str) -> Result<Outcome, publish::Refused> {
        self.publish(version, rollout, "the prompts", false)
    }

    pub(crate) fn restart(&mut self, version: &str, rollout: &str) -> Result<Outcome, publish::Refused> {
        self.publish(version, rollout, "the prompts", true)
    }

    pub(crate) fn apply_content(
        &mut self,
        version: &str,
        rollout: &str,
        content: &str,
    ) -> Result<Outcome, publish::Refused> {
        self.publish(version, rollout, content, false)
    }

    fn publish(
        &mut self,
        version: &str,
        rollout: &str,
        content: &str,
        restart: bool,
    ) -> Result<Outcome, publish::Refused> {
        let manifest = format!(
            "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: support}}\n\
             spec: {{version: \"{version}\", rollout: {rollout}}}\n"
        );
        let mut plan = parse(&manifest).expect("a manifest without problems").plan;
        self.policy.impose(&mut plan);
        let digests = Published { content_digest: content.to_owned(), plan_digest: rollout.to_owned() };
        let salt = self.salt();
        let application = Application {
            plan: &plan,
            digests: &digests,
            actor: &Actor::named("pipeline"),
            reason: "released",
            salt: &salt,
            restart,
            now: self.now(),
        };
        let known = self.known.get(&plan.version).map(|(_, published)| published);
        let outcome = publish(self.state.as_ref(), known, application)?;
        match &outcome {
            Outcome::Unchanged(_) => return Ok(outcome),
            Outcome::PlanKept(_) => {}
            Outcome::Changed(transition, _) => self.commit((**transition).clone()),
        }
        self.known.insert(plan.version.clone(), (plan, digests));
        Ok(outcome)
    }

    /// The transition that a command would lead to, uncommitted.
    pub(crate) fn prepared(&self, order: Command) -> Result<Transition, command::Refused> {
        self.prepared_by("maria", order)
    }

    /// The same, by somebody.
    fn prepared_by(&self, actor: &str, order: Command) -> Result<Transition, command::Refused> {
        let pack = self.state();
        let version = match command::needs_plan_of(pack, order)? {
            Some(version) => version,
            None => pack.rollout.as_ref().map_or(pack.stable.clone(), |rollout| rollout.canary.clone()),
        };
        let plan = &self.known[&version].0;
        let actor = Actor::named(actor);
        let salt = self.salt();
        command(pack, plan, order, Order { actor: &actor, reason: "a reason", salt: &salt, now: self.now() })
    }

    pub(crate) fn order(&mut self, order: Command) -> Result<(), command::Refused> {
        self.order_by("maria", order)
    }

    pub(crate) fn order_by(&mut self, actor: &str, order: Command) -> Result<(), command::Refused> {
        let transition = self.prepared_by(actor, order)?;
        self.commit(transition);
        Ok(())
    }

    /// Ticks once; tells whether something happened.
    pub(crate) fn tick(&mut self, evidence: &Evidence) -> bool {
        let Some((rollout, _)) = self.state().active() else { return false };
        let plan = &self.known[&rollout.canary].0;
        match tick(self.state(), plan, evidence, self.now()) {
            Tick::Transition(transition) => {
                self.commit(*transition);
                true
            }
            Tick::Idle { .. } => false,
        }
    }

    pub(crate) fn commit(&mut self, transition: Transition) {
        if let Err(violation) = invariant::check(self.state.as_ref(), &transition) {
            panic!("{violation}: {:#?}", transition.facts);
        }
        for cohort in &transition.cohorts {
            self.cohorts.insert(Arc::new(cohort.clone()));
        }
        self.facts.extend(transition.facts);
        self.superseded.extend(transition.superseded);
        // What is stored is what is read back.
        let stored = serde_json::to_string(&transition.pack).expect("plain data");
        self.state = Some(serde_json::from_str(&stored).expect("reads back"));
        assert_eq!(self.state.as_ref(), Some(&transition.pack));
    }

    /// When the rollout under way has to be looked at again.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        next_due(self.state(), self.active_plan()?)
    }

    /// The plan of the rollout under way.
    pub(crate) fn active_plan(&self) -> Option<&Plan> {
        let (rollout, _) = self.state().active()?;
        Some(&self.known[&rollout.canary].0)
    }

    /// How the pack is routed as it stands.
    pub(crate) fn route(&self) -> Route {
        let pack = self.state();
        let split = pack.active().zip(self.active_plan()).map(|((rollout, active), plan)| {
            let weights = rollout.weights().iter().zip(&active.cohorts);
            let segments = plan.segments.iter().zip(weights).map(|(segment, (weight, (stable, canary)))| {
                let (stable, canary, weight) = (*stable, *canary, *weight);
                SegmentSplit { name: segment.name.clone(), weight, changing: None, stable, canary }
            });
            let (id, salt, canary) = (rollout.id.clone(), rollout.salt.clone(), rollout.canary.clone());
            Split { rollout: id, salt, canary, segments: segments.collect() }
        });
        Route {
            pack: pack.name.clone(),
            stable: pack.stable.clone(),
            base: pack.base,
            split,
            draining: pack
                .draining
                .iter()
                .map(|draining| (draining.version.clone(), draining.until))
                .collect(),
            forced: false,
            sessions: pack.sessions,
            cohorts: self.cohorts.clone(),
        }
    }

    pub(crate) fn wait(&mut self, seconds: i64) {
        self.second += seconds;
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_second(START + self.second).expect("a year that exists")
    }

    fn salt(&self) -> String {
        format!("salt-{}", self.state.as_ref().map_or(0, |pack| pack.attempts) + 1)
    }

    pub(crate) fn state(&self) -> &PackState {
        self.state.as_ref().expect("a version was applied")
    }

    pub(crate) fn rollout(&self) -> &Rollout {
        self.state().rollout.as_ref().expect("a rollout has begun")
    }

    pub(crate) fn plan(&self, version: &str) -> &Plan {
        &self.known[&Version::parse(version).expect("a version")].0
    }

    pub(crate) fn actions(&self) -> Vec<Action> {
        self.facts.iter().map(|fact| fact.action).collect()
    }
}

pub(crate) fn applied(outcome: Result<Outcome, publish::Refused>) -> Outcome {
    outcome.expect("the publishing rules allow it")
}

pub(crate) fn changed(outcome: Result<Outcome, publish::Refused>) -> Change {
    match applied(outcome) {
        Outcome::Changed(_, change) => change,
        Outcome::Unchanged(why) | Outcome::PlanKept(why) => panic!("nothing changed: {why}"),
    }
}
