//! A whole world on virtual time: sessions arrive, are assigned, answered and rated, and the rollout reacts.
//!
//! Everything that is decided is decided by core: `publish`, `command`, `tick`, `assign`, `fold`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use serin_core::analysis::{Analysis, Evidence, Sides};
use serin_core::audit::{Action, AuditFact};
use serin_core::command::{self, Command};
use serin_core::ids::{Actor, SessionKey, Version};
use serin_core::metric::Signal;
use serin_core::observation::{Fact, Observation};
use serin_core::pack::PackState;
use serin_core::rollout::{HoldCause, Phase};
use serin_core::routing::{
    Assigned, CohortId, Contact, Pin, PinAction, Route, SegmentSplit, Split, Turn, Variant, assign,
};
use serin_core::units::{HoldFor, Timestamp};
use serin_core::weight::Weight;

use crate::book::{Book, Folding, Page};
use crate::controller::{Applied, ApplyError, Controller};
use crate::crowd::Crowd;
use crate::dice::{Dice, Habits, Model};
use crate::truth::{Change, Timeline, Truth};

/// Seconds since 1970 at which every world begins: 2030-01-01 00:00 UTC.
const BEGINNING: i64 = 1_893_456_000;

/// Seeded traffic around one pack, from the first version on.
#[derive(Debug)]
pub struct World {
    seed: u64,
    pack: String,
    dice: Dice,
    controller: Controller,
    book: Book,
    sessions_per_s: f64,
    habits: Habits,
    users: Option<u64>,
    crowd: Crowd,
    segment_truths: BTreeMap<(usize, Variant), Truth>,
    truths: Sides<Timeline>,
    first_version: Version,
    now_ms: u64,
    started_ms: u64,
    next_arrival_ms: f64,
    next_tick_ms: Option<u64>,
    watched: bool,
    clock_behind: HoldFor,
    route: Option<Route>,
    pins: BTreeMap<u64, Pin>,
    counted: BTreeSet<u64>,
    live: BTreeMap<u64, Live>,
    next_key: u64,
    next_live: u64,
    events: BinaryHeap<Reverse<Event>>,
    served: Served,
}

/// A session that still has something to show.
#[derive(Debug)]
struct Live {
    key: u64,
    cohort: CohortId,
    variant: Variant,
    page: Page,
    /// Whether its first request is past.
    has_begun: bool,
    coming: std::vec::IntoIter<Observation>,
}

/// The next observation of a session, in the order of time and then of arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at_ms: u64,
    number: u64,
}

/// What was really served since the last rollout began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Served {
    /// New sessions, by variant.
    pub sessions: Sides<u64>,
    /// Requests, by variant.
    pub requests: Sides<u64>,
    /// New sessions of each segment, by variant.
    pub segments: BTreeMap<usize, Sides<u64>>,
    /// The weights under which new sessions got the canary.
    pub weights: BTreeSet<Weight>,
    /// When the last new session got the canary.
    pub last_canary: Option<Timestamp>,
    /// Requests that were moved away from the version that their session had.
    pub moved: u64,
}

impl World {
    /// A world without traffic; version 1.0.0 of pack `support-prompts` is stable.
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            pack: "support-prompts".to_owned(),
            dice: Dice::new(seed),
            controller: Controller::new(seed),
            book: Book::new(Folding::ByCore),
            sessions_per_s: 0.0,
            habits: Habits::default(),
            users: None,
            crowd: Crowd::default(),
            segment_truths: BTreeMap::new(),
            truths: Sides { stable: steady(Truth::healthy()), canary: steady(Truth::healthy()) },
            first_version: version("1.0.0"),
            now_ms: 0,
            started_ms: 0,
            next_arrival_ms: f64::INFINITY,
            next_tick_ms: None,
            watched: true,
            clock_behind: HoldFor::ZERO,
            route: None,
            pins: BTreeMap::new(),
            counted: BTreeSet::new(),
            live: BTreeMap::new(),
            next_key: 0,
            next_live: 0,
            events: BinaryHeap::new(),
            served: Served::default(),
        };
        world.publish_first("1.0.0");
        world
    }

    /// Begins anew with another pack name.
    #[must_use]
    pub fn pack_named(mut self, name: &str) -> Self {
        self.pack = name.to_owned();
        let first = self.first_version.to_string();
        self.stable(&first)
    }

    /// Begins anew with another version as the first one.
    #[must_use]
    pub fn stable(mut self, first_version: &str) -> Self {
        self.controller = Controller::new(self.seed);
        self.first_version = version(first_version);
        self.publish_first(first_version);
        self
    }

    fn publish_first(&mut self, first_version: &str) {
        let manifest = format!(
            "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: {}}}\n\
             spec: {{version: \"{first_version}\"}}\n",
            self.pack
        );
        self.apply(&manifest).expect("a manifest without a rollout block is accepted");
    }

    /// Sets the arrivals of new sessions per second.
    #[must_use]
    pub fn traffic(mut self, sessions_per_s: f64) -> Self {
        self.set_traffic(sessions_per_s);
        self
    }

    /// Changes the arrivals of new sessions per second.
    pub fn set_traffic(&mut self, sessions_per_s: f64) {
        self.sessions_per_s = sessions_per_s;
        self.plan_arrival();
    }

    /// Sets how sessions behave.
    #[must_use]
    pub fn habits(mut self, habits: Habits) -> Self {
        self.habits = habits;
        self
    }

    /// Draws sessions from a number of users who come back, instead of giving each session its own key.
    #[must_use]
    pub fn users(mut self, users: u64) -> Self {
        self.users = Some(users);
        self
    }

    /// Sets the share of users that each segment of a manifest has; the last segment has the rest.
    #[must_use]
    pub fn segment_shares(mut self, shares: &[f64]) -> Self {
        self.crowd = Crowd::new(shares.to_vec());
        self
    }

    /// Sets what is true about a variant for the users of one segment alone.
    #[must_use]
    pub fn truth_in_segment(mut self, segment: usize, variant: Variant, truth: Truth) -> Self {
        self.segment_truths.insert((segment, variant), truth);
        self
    }

    /// Sets what is true about the first version, or about every later one.
    #[must_use]
    pub fn truth(mut self, variant: Variant, truth: Truth) -> Self {
        self.truths.of_mut(variant).base = truth;
        self
    }

    /// Changes what is true about a variant, a time after the start of the rollout.
    #[must_use]
    pub fn change(mut self, variant: Variant, from: HoldFor, truth: Truth) -> Self {
        let change = Change { from, until: None, over: HoldFor::ZERO, truth };
        self.truths.of_mut(variant).changes.push(change);
        self
    }

    /// Lets traffic run for a while before anything is rolled out.
    #[must_use]
    pub fn warmed_up(mut self, length: HoldFor) -> Self {
        self.run_for(length);
        self
    }

    /// Applies a manifest now, as a pipeline does.
    ///
    /// # Errors
    /// [`ApplyError`] when it has problems or breaks a publishing rule; nothing changes then.
    pub fn apply(&mut self, manifest: &str) -> Result<Applied, ApplyError> {
        self.apply_as(manifest, false)
    }

    /// Applies a manifest now and begins its rollout anew if it is under way.
    ///
    /// # Errors
    /// [`ApplyError`] when it has problems or breaks a publishing rule; nothing changes then.
    pub fn restart(&mut self, manifest: &str) -> Result<Applied, ApplyError> {
        self.apply_as(manifest, true)
    }

    fn apply_as(&mut self, manifest: &str, restart: bool) -> Result<Applied, ApplyError> {
        let (actor, now) = (Actor::named("pipeline"), self.clock());
        let applied = self.controller.apply(manifest, &actor, "released", restart, now)?;
        self.follow();
        Ok(applied)
    }

    /// Gives a command now.
    ///
    /// # Errors
    /// [`command::Refused`] when it may not be carried out; nothing changes then.
    pub fn order(&mut self, order: Command, actor: &str, reason: &str) -> Result<(), command::Refused> {
        let now = self.clock();
        self.controller.order(order, &Actor::named(actor), reason, now)?;
        self.follow();
        Ok(())
    }

    /// Stops watching: sessions go on, and nobody ticks.
    pub fn stop_watching(&mut self) {
        self.watched = false;
    }

    /// Watches again.
    pub fn watch_again(&mut self) {
        self.watched = true;
        self.next_tick_ms = Some(self.now_ms);
    }

    /// Sets the control clock back by a length of time, for good.
    pub fn set_clock_back(&mut self, by: HoldFor) {
        self.clock_behind = by;
    }

    /// Kills the control side: it goes on from what was stored.
    pub fn crash(&mut self) {
        self.controller.crash();
        self.book.crash();
    }

    /// Runs for a length of time.
    pub fn run_for(&mut self, length: HoldFor) {
        self.run_to_ms(self.now_ms + length.millis());
    }

    /// Runs to a point in time counted from the start of the latest rollout.
    pub fn run_to(&mut self, since_start: HoldFor) {
        self.run_to_ms(self.started_ms + since_start.millis());
    }

    /// Runs until a condition holds, at most for a length of time; tells whether it held.
    pub fn run_until(&mut self, most: HoldFor, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now_ms + most.millis();
        while !condition(self) {
            if self.now_ms >= end {
                return false;
            }
            self.run_to_ms((self.now_ms + 1_000).min(end));
        }
        true
    }

    fn run_to_ms(&mut self, end: u64) {
        loop {
            let event = self.events.peek().map_or(u64::MAX, |Reverse(event)| event.at_ms);
            let arrival = as_ms(self.next_arrival_ms);
            let tick = if self.watched { self.next_tick_ms.unwrap_or(u64::MAX) } else { u64::MAX };
            let next = event.min(arrival).min(tick);
            if next > end {
                break;
            }
            self.now_ms = self.now_ms.max(next);
            if event == next {
                self.observe_next();
            } else if arrival == next {
                self.arrive();
            } else {
                self.control();
            }
        }
        self.now_ms = self.now_ms.max(end);
    }

    /// Makes everything follow a change of the pack, and asks the state machine what is next.
    fn follow(&mut self) {
        if let Some(rollout) = self.controller.rollout()
            && timestamp(self.started_ms) != rollout.started_at
            && rollout.active().is_some()
        {
            self.started_ms = self.now_ms;
            self.served = Served::default();
            self.counted.clear();
        }
        self.book.follow(&self.controller);
        self.route = self.controller.pack().map(|pack| route(pack, &self.controller));
        if self.watched {
            self.control();
        }
    }

    fn control(&mut self) {
        if self.controller.active().is_none() {
            self.next_tick_ms = None;
            return;
        }
        let before = self.controller.transitions();
        let evidence = self.evidence();
        let n_checks = self.controller.checks().len();
        let until = self.controller.tick(&evidence, self.clock());
        if self.controller.checks().len() > n_checks {
            self.book.checked();
        }
        // Something that is due already is asked for again a second later, never at once.
        self.next_tick_ms = until.map(|until| {
            let due = ms_of(until).saturating_add(self.clock_behind.millis());
            if due > self.now_ms { due } else { self.now_ms + 1_000 }
        });
        if self.controller.transitions() > before {
            self.book.follow(&self.controller);
            self.route = self.controller.pack().map(|pack| route(pack, &self.controller));
        }
    }

    /// The point in time that the control side believes in.
    fn clock(&self) -> Timestamp {
        self.clock_behind.before(timestamp(self.now_ms))
    }

    fn signals(&self) -> Vec<Signal> {
        // Core folds every measure; only the dense fold leaves some out.
        Vec::new()
    }

    fn plan_arrival(&mut self) {
        self.next_arrival_ms = if self.sessions_per_s > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "virtual time in ms stays far below 2^52")]
            let now = self.now_ms as f64;
            // Arrivals keep their fractions of a millisecond.
            let from = if self.next_arrival_ms.is_finite() { self.next_arrival_ms.max(now) } else { now };
            from + self.dice.wait_ms(self.sessions_per_s)
        } else {
            f64::INFINITY
        };
    }

    fn arrive(&mut self) {
        let key = match self.users {
            Some(users) => rand::RngExt::random_range(&mut self.dice.key, 0..users),
            None => self.next_key,
        };
        self.next_key += 1;
        self.plan_arrival();
        let (id, is_new) = self.contact(key);
        let cohort = self.controller.cohort(id);
        let (variant, is_first) = (cohort.variant, cohort.version == self.first_version);
        let stamp = cohort.stamp.clone();
        let now = timestamp(self.now_ms);
        let counts = is_new && (stamp.is_none() || self.counted.insert(key));
        let page =
            if is_new { self.book.assigned(&self.controller, id, counts, now) } else { Page::Uncounted };
        if is_new && let Some(stamp) = stamp {
            *self.served.sessions.of_mut(variant) += 1;
            *self.served.segments.entry(stamp.segment.into()).or_default().of_mut(variant) += 1;
            if variant == Variant::Canary {
                self.served.weights.insert(stamp.weight);
                self.served.last_canary = Some(now);
            }
        }
        let side = if is_first { Variant::Stable } else { Variant::Canary };
        let since_start = self.now_ms.saturating_sub(self.started_ms);
        let of_segment = self.segment_truths.get(&(self.segment_of(key), side));
        let model = Model::of(of_segment.copied().unwrap_or(self.truths.of(side).at(since_start).0));
        let seen = self.dice.session(&model, &self.habits, now);
        let number = self.next_live;
        self.next_live += 1;
        self.live.insert(
            number,
            Live { key, cohort: id, variant, page, has_begun: false, coming: seen.into_iter() },
        );
        self.plan_next(number);
    }

    /// The segment of a user in the rollout in force.
    fn segment_of(&self, key: u64) -> usize {
        let split = self.route.as_ref().and_then(|route| route.split.as_ref());
        split.map_or(0, |split| self.crowd.of_user(key, split.segments.len()))
    }

    /// Asks for the version of a session; also tells whether it is a new assignment.
    fn contact(&mut self, key: u64) -> (CohortId, bool) {
        let route = self.route.as_ref().expect("a pack has a route since its first version");
        let name = SessionKey::parse(&format!("user-{key}")).expect("a short key without control characters");
        let now = timestamp(self.now_ms);
        let pin = self.pins.get(&key).copied();
        let contact = Contact { key: &name, segment: self.segment_of(key), turn: Turn::User };
        let Assigned::Now(assignment) = assign(route, pin, contact, now) else {
            unreachable!("no weight is ever half committed here")
        };
        let (id, action) = (assignment.cohort.id, assignment.pin);
        *self.served.requests.of_mut(assignment.cohort.variant) += 1;
        match (action, pin) {
            (PinAction::Touch, Some(pin)) => {
                let touched = Pin { last_seen: Pin::new(id, now).last_seen, ..pin };
                self.pins.insert(key, touched);
            }
            (PinAction::Touch | PinAction::Create | PinAction::Move, _) => {
                self.pins.insert(key, Pin::new(id, now));
            }
        }
        self.served.moved += u64::from(action == PinAction::Move);
        (id, action == PinAction::Create)
    }

    fn plan_next(&mut self, number: u64) {
        let Some(live) = self.live.get(&number) else { return };
        match live.coming.as_slice().first() {
            Some(next) => {
                let at_ms = ms_of(next.at).max(self.now_ms);
                self.events.push(Reverse(Event { at_ms, number }));
            }
            None => {
                self.live.remove(&number);
            }
        }
    }

    fn observe_next(&mut self) {
        let Some(Reverse(Event { number, .. })) = self.events.pop() else { return };
        let Some(live) = self.live.get_mut(&number) else { return };
        let Some(observation) = live.coming.next() else { return };
        let (key, cohort, variant, page) = (live.key, live.cohort, live.variant, live.page);
        let is_request = matches!(observation.fact, Fact::Response(_));
        // The first request of a session is the contact that assigned it.
        let is_contact = is_request && std::mem::replace(&mut live.has_begun, true);
        let served_by = if is_contact { self.contact(key).0 } else { cohort };
        if served_by == cohort {
            for tally in self.book.tallies(page, variant).into_iter().flatten() {
                match &observation.fact {
                    Fact::Response(response) => tally.add_response(response),
                    Fact::Outcome(outcome) => tally.add_outcome(outcome),
                    Fact::Started => {}
                }
            }
            self.book.observe(page, observation);
        }
        self.plan_next(number);
    }
}

/// What a world tells about itself.
impl World {
    /// What a check now would see of the rollout under way.
    pub fn evidence(&mut self) -> Evidence {
        self.book.evidence(&self.controller, &self.signals(), timestamp(self.now_ms))
    }

    /// Where the latest rollout is in its life.
    ///
    /// # Panics
    /// When there never was a rollout.
    pub fn phase(&self) -> Phase {
        self.controller.phase().expect("a rollout has begun")
    }

    /// The set weight of the latest rollout.
    ///
    /// # Panics
    /// When there never was a rollout.
    pub fn weight(&self) -> Weight {
        self.controller.rollout().expect("a rollout has begun").weight()
    }

    /// What holds the rollout under way.
    pub fn holds(&self) -> Vec<HoldCause> {
        self.controller.active().map(|(_, active)| active.holds.keys().copied().collect()).unwrap_or_default()
    }

    /// The control side: states, rollouts, cohorts.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// The stored state of the pack.
    ///
    /// # Panics
    /// Never: every world has a first version.
    pub fn pack(&self) -> &PackState {
        self.controller.pack().expect("every world has a first version")
    }

    /// The audit log, oldest first.
    pub fn audit(&self) -> &[AuditFact] {
        self.controller.audit()
    }

    /// The entries of the audit log about one kind of event.
    pub fn facts(&self, action: Action) -> Vec<&AuditFact> {
        self.audit().iter().filter(|fact| fact.action == action).collect()
    }

    /// The latest check.
    pub fn last_check(&self) -> Option<&Analysis> {
        self.controller.checks().last()
    }

    /// What was really served since the latest rollout began.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Time since the latest rollout began.
    pub fn since_start(&self) -> HoldFor {
        HoldFor::from_millis(self.now_ms - self.started_ms)
    }

    /// Now, by the clock of the world.
    pub fn now(&self) -> Timestamp {
        timestamp(self.now_ms)
    }

    /// How often a session was folded into the evidence of the latest rollout.
    pub fn n_folds(&self) -> u64 {
        self.book.n_folds()
    }

    /// Which version a session gets now; the session is seen by it.
    pub fn version_of(&mut self, user: u64) -> Version {
        let id = self.contact(user).0;
        self.controller.cohort(id).version.clone()
    }
}

fn steady(truth: Truth) -> Timeline {
    Timeline { base: truth, changes: Vec::new() }
}

fn version(text: &str) -> Version {
    Version::parse(text).expect("tests and scenarios name semantic versions")
}

/// A point in virtual time.
pub(crate) fn timestamp(ms: u64) -> Timestamp {
    let begin = Timestamp::from_second(BEGINNING).expect("a year that exists");
    HoldFor::from_millis(ms).after(begin)
}

pub(crate) fn ms_of(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond() - BEGINNING * 1_000).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
fn as_ms(ms: f64) -> u64 {
    ms.ceil() as u64
}

/// How a pack is routed as it stands.
fn route(pack: &PackState, controller: &Controller) -> Route {
    let split = pack.active().zip(controller.active_plan()).map(|((rollout, active), plan)| Split {
        rollout: rollout.id.clone(),
        salt: rollout.salt.clone(),
        canary: rollout.canary.clone(),
        segments: plan
            .segments
            .iter()
            .zip(rollout.weights())
            .zip(&active.cohorts)
            .map(|((segment, weight), (stable, canary))| SegmentSplit {
                name: segment.name.clone(),
                weight: *weight,
                changing: None,
                stable: *stable,
                canary: *canary,
            })
            .collect(),
    });
    Route {
        pack: pack.name.clone(),
        stable: pack.stable.clone(),
        base: pack.base,
        split,
        draining: pack.draining.iter().map(|draining| (draining.version.clone(), draining.until)).collect(),
        forced: false,
        sessions: pack.sessions,
        cohorts: controller.cohorts().clone(),
    }
}
