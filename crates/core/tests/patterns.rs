//! Random plans with segments, windows, explicit steps, approvals and a holdback, under random orders, checks and
//! readings of the clock.

mod state;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serin_core::audit::Action;
use serin_core::command::{Command, Refused};
use serin_core::ids::SessionKey;
use serin_core::pack::PackState;
use serin_core::publish::Outcome;
use serin_core::rollout::{HoldCause, Phase, State};
use serin_core::routing::{Assigned, Contact, Pin, PinAction, Turn, assign};
use serin_core::units::{HoldFor, Timestamp};
use serin_core::weight::Weight;

use state::Pack;
use state::seen::{Seen, evidence};

/// A rollout block.
fn plan() -> impl Strategy<Value = String> {
    let weight = prop::sample::select(vec![0_u16, 5, 25, 50, 100]);
    let stage = (weight.clone(), 3_u64..40);
    let stages = prop::collection::vec(stage, 0..4);
    // Borders of the day in quarters of an hour; each window has a weight.
    let borders = prop::collection::btree_set(0_u16..96, 0..4);
    let schedule = (borders, prop::collection::vec(weight, 4), any::<bool>());
    let zone = prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]);
    let steps = prop::option::of(prop::collection::vec((1_u16..30, 1_u64..20, any::<bool>()), 2..5));
    let holdback = prop::sample::select(vec![0_u16, 5, 20]);
    let gates = prop::sample::select(vec![
        "[]",
        "[{name: success_rate, threshold: 90%, comparison: '>='}]",
        "[{name: success_rate, compareTo: stable, maxRegression: 2%}]",
        "[{name: success_rate, threshold: 90%, comparison: '>=', minSamples: 100}]",
    ]);
    let conduct = (1_u32..4, 1_u64..4, any::<bool>(), any::<bool>());
    (stages, schedule, zone, steps, holdback, gates, conduct).prop_map(
        |(stages, (borders, weights, leaves_gap), zone, steps, holdback, gates, conduct)| {
            let (threshold, interval, moves, has_longest) = conduct;
            // A day of windows with a check each minute would be slow to walk through again and again.
            let interval = if borders.len() >= 2 { interval * 15 } else { interval };
            let mut parts = vec![format!(
                "analysis: {{metrics: {gates}, failureThreshold: {threshold}, interval: {interval}m}}"
            )];
            parts.push(format!("sessions: {{onRollback: {}}}", if moves { "move" } else { "drain" }));
            parts.push(format!("holdback: {holdback}%"));
            if has_longest {
                parts.push("progress: {maxHold: 2h}".to_owned());
            }
            match steps {
                None => parts.push("stepInterval: 4m, stepWeight: 20".to_owned()),
                Some(steps) => {
                    let mut reached = 0;
                    let listed = steps.iter().map(|(more, minutes, approval)| {
                        reached = (reached + more).min(80);
                        format!("{{weight: {reached}%, hold: {minutes}m, approval: {approval}}}")
                    });
                    let mut listed: Vec<String> = listed.collect();
                    listed.dedup_by(|a, b| a.split(',').next() == b.split(',').next());
                    parts.push(format!("steps: [{}]", listed.join(", ")));
                }
            }
            if !stages.is_empty() {
                let listed = stages.iter().enumerate().map(|(index, (weight, minutes))| {
                    format!("{{name: s{index}, weight: {weight}%, duration: {minutes}m}}, ")
                });
                parts.push(format!(
                    "segments: [{}{{name: rest, weight: progressive}}]",
                    listed.collect::<String>()
                ));
            }
            let borders: Vec<u16> = borders.into_iter().collect();
            if borders.len() >= 2 {
                let time = |quarter: u16| format!("{:02}:{:02}", quarter / 4, quarter % 4 * 15);
                let ends = borders.iter().skip(1).chain(borders.first());
                let windows = borders.iter().zip(ends).zip(&weights).map(|((from, to), weight)| {
                    let weight = (*weight).min(100 - holdback);
                    format!("{{window: '{}-{} {zone}', canaryWeight: {weight}%}}", time(*from), time(*to))
                });
                let windows: Vec<String> = windows.skip(usize::from(leaves_gap)).collect();
                parts.push(format!("schedule: [{}]", windows.join(", ")));
            }
            format!("{{{}}}", parts.join(", "))
        },
    )
}

#[derive(Debug, Clone)]
enum Deed {
    Order(Command),
    Apply(u8, bool),
    /// Watches for some minutes, looking whenever something is due.
    Watch {
        minutes: i64,
        seen: Seen,
    },
    /// Nobody watches for some minutes, or the clock steps back.
    Away {
        minutes: i64,
    },
    /// Sessions come: some new, some with a tool's result.
    Visit {
        from: u64,
        tools: bool,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    let order = prop::sample::select(vec![
        Command::Pause,
        Command::Resume,
        Command::Resume,
        Command::Approve,
        Command::Approve,
        Command::Promote,
        Command::PromoteFully,
        Command::Rollback,
        Command::Retry,
    ]);
    let seen = prop_oneof![
        1 => Just(Seen::Nothing), 12 => Just(Seen::Good), 1 => Just(Seen::Bad), 1 => Just(Seen::BadOnBoth)
    ];
    prop_oneof![
        3 => order.prop_map(Deed::Order),
        1 => (1_u8..5, any::<bool>()).prop_map(|(version, restart)| Deed::Apply(version, restart)),
        8 => (1_i64..400, seen).prop_map(|(minutes, seen)| Deed::Watch { minutes, seen }),
        1 => prop_oneof![-120_i64..0, 3_i64..600].prop_map(|minutes| Deed::Away { minutes }),
        6 => (0_u64..60, any::<bool>()).prop_map(|(from, tools)| Deed::Visit { from, tools }),
    ]
}

/// A pack with the sessions that use it, and a count of the time that its step has really run.
struct Scene {
    pack: Pack,
    pins: BTreeMap<u64, Pin>,
    /// Time that the current step has run while nothing held it and somebody watched, counted transition by transition.
    ran: HoldFor,
}

impl Scene {
    fn new(rollout: &str) -> Self {
        let mut pack = Pack::with_stable("1.0.0");
        let before = pack.state().clone();
        pack.apply("2.0.0", rollout).expect("a plan that parses can be applied");
        let mut scene = Self { pack, pins: BTreeMap::new(), ran: HoldFor::ZERO };
        scene.follow(&before, 0);
        scene
    }

    /// Checks what must hold after a transition from `before`, when `facts` were known.
    fn follow(&mut self, before: &PackState, facts: usize) {
        let Some((rollout, active)) = self.pack.state().active() else { return };
        // The weight in force is explained by the latest decision about it.
        let decided = self.pack.facts.iter().rev().find(|fact| {
            fact.rollout.as_ref() == Some(&rollout.id)
                && [Action::StepEntered, Action::RolloutStarted, Action::WeightChanged].contains(&fact.action)
        });
        let decided = decided.expect("the start of a rollout is a fact");
        let weights: Vec<f64> = rollout.weights().iter().map(|weight| weight.percent()).collect();
        assert_eq!(decided.evidence["weights_percent"], serde_json::json!(weights), "{}", decided.reason);
        if let Some(step) = decided.evidence.get("step") {
            assert_eq!(*step, active.step);
        }
        let plan = self.pack.active_plan().expect("a rollout is under way");
        if usize::from(active.step) + 1 == plan.steps.len() {
            let most = Weight::FULL.saturating_sub(plan.holdback);
            assert!(rollout.weights().iter().all(|weight| *weight <= most), "the holdback is kept");
        }
        // Holds neither lose nor gain time.
        let unseen = self.pack.facts[facts..]
            .iter()
            .filter_map(|fact| {
                (fact.action == Action::Unobserved).then(|| fact.evidence["gap_ms"].as_u64())?
            })
            .fold(HoldFor::ZERO, |sum, gap| {
                sum.plus(HoldFor::from_millis(gap).minus(plan.analysis.interval))
            });
        self.ran = match before.active() {
            Some((old, was)) if old.id == rollout.id && was.step == active.step => {
                let passed = HoldFor::between(was.last_at, active.last_at);
                if was.holds.is_empty() { self.ran.plus(passed).minus(unseen) } else { self.ran }
            }
            Some(_) | None => HoldFor::ZERO,
        };
        assert_eq!(
            active.clock.elapsed(active.last_at),
            self.ran,
            "step {} at {}",
            active.step,
            active.last_at
        );
    }

    /// Ticks until nothing happens.
    fn tick(&mut self, seen: Seen) {
        for round in 0.. {
            assert!(round < 40, "the state machine does not come to rest: {:?}", self.pack.facts.last());
            let (before, facts) = (self.pack.state().clone(), self.pack.facts.len());
            if !self.pack.tick(&evidence(&self.pack, seen, 200)) {
                return;
            }
            self.follow(&before, facts);
        }
    }

    /// Watches until a time, looking whenever something is due.
    fn watch_until(&mut self, end: Timestamp, seen: Seen, mut stop: impl FnMut(&mut Self) -> bool) {
        while let Some(due) = self.pack.next_due() {
            // What is due already and waits for something else is asked for again a little later.
            let next = due.max(HoldFor::from_secs(20).after(self.pack.now())).min(end);
            let seconds = HoldFor::between(self.pack.now(), next).millis().div_ceil(1_000);
            self.pack.wait(i64::try_from(seconds).expect("a few days"));
            self.tick(seen);
            if self.pack.now() >= end || stop(self) {
                return;
            }
        }
    }

    fn order(&mut self, order: Command) -> Result<(), Refused> {
        let (before, facts) = (self.pack.state().clone(), self.pack.facts.len());
        let done = self.pack.order(order);
        match &done {
            Ok(()) => self.follow(&before, facts),
            Err(_) => assert_eq!(*self.pack.state(), before, "a refused command changes nothing"),
        }
        done
    }

    fn perform(&mut self, deed: &Deed) {
        match deed {
            Deed::Order(order) => {
                let was_active = self.pack.state().active().is_some();
                let done = self.order(*order);
                if *order == Command::Rollback && was_active {
                    assert!(done.is_ok(), "a rollback is always possible");
                    assert_eq!(self.pack.rollout().weight(), Weight::ZERO, "in one transition");
                    assert!(self.pack.rollout().weights().is_empty(), "for every segment");
                }
            }
            Deed::Apply(version, restart) => {
                let (before, facts) = (self.pack.state().clone(), self.pack.facts.len());
                let (version, rollout) = (format!("{version}.0.0"), "{stepInterval: 5m}");
                let done = if *restart {
                    self.pack.restart(&version, rollout)
                } else {
                    self.pack.apply(&version, rollout)
                };
                match done {
                    Ok(Outcome::Changed(..)) => self.follow(&before, facts),
                    Ok(Outcome::Unchanged(_) | Outcome::PlanKept(_)) | Err(_) => {
                        assert_eq!(*self.pack.state(), before, "nothing changes");
                    }
                }
            }
            Deed::Watch { minutes, seen } => {
                let end = HoldFor::from_mins(minutes.unsigned_abs()).after(self.pack.now());
                self.watch_until(end, *seen, |_| false);
            }
            Deed::Away { minutes } => self.pack.wait(minutes * 60),
            Deed::Visit { from, tools } => {
                for user in *from..from + 20 {
                    self.visit(user, if *tools { Turn::ToolResult } else { Turn::User });
                }
            }
        }
    }

    /// A session comes; its version changes only for a cause that takes the old one away.
    fn visit(&mut self, user: u64, turn: Turn) {
        let (route, now) = (self.pack.route(), self.pack.now());
        let key = SessionKey::parse(&format!("user-{user}")).expect("a key");
        let segments = route.split.as_ref().map_or(1, |split| split.segments.len());
        let segment = usize::try_from(user).expect("few users") % segments;
        let pin = self.pins.get(&user).copied();
        let Assigned::Now(assignment) = assign(&route, pin, Contact { key: &key, segment, turn }, now) else {
            unreachable!("no change is half committed here")
        };
        let live = pin.filter(|pin| !pin.is_expired(&route.sessions, now));
        if let Some(before) = live.and_then(|pin| route.cohorts.get(pin.cohort)) {
            let moved = before.version != assignment.cohort.version;
            if moved {
                assert_eq!(turn, Turn::User, "never between a tool call and its result");
                assert!(!route.serves(&before.version, now), "{} is still served", before.version);
                let causes = [Action::RolledBack, Action::Superseded, Action::Completed];
                assert!(
                    self.pack.facts.iter().any(|fact| causes.contains(&fact.action)),
                    "a version leaves by a recorded end"
                );
            } else {
                let touched = match assignment.pin {
                    PinAction::Touch => true,
                    // Moved to another cohort of the same version.
                    PinAction::Move | PinAction::Create => !route.serves(&before.version, now),
                };
                assert!(touched, "a live session keeps its pin");
            }
        }
        let id = assignment.cohort.id;
        let pin = match (assignment.pin, pin) {
            (PinAction::Touch, Some(pin)) => Pin { last_seen: Pin::new(id, now).last_seen, ..pin },
            (PinAction::Touch | PinAction::Create | PinAction::Move, _) => Pin::new(id, now),
        };
        self.pins.insert(user, pin);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_deeds_keeps_the_invariants_of_any_plan(
        rollout in plan(),
        deeds in prop::collection::vec(deed(), 1..40),
    ) {
        let mut scene = Scene::new(&rollout);
        for deed in &deeds {
            let before = scene.pack.state().clone();
            scene.perform(deed);
            let after = scene.pack.state();
            let is_same =
                before.rollout.as_ref().map(|old| &old.id) == after.rollout.as_ref().map(|new| &new.id);
            if let Some(old) = &before.rollout && is_same && matches!(old.state, State::Ended(_)) {
                prop_assert_eq!(Some(old), after.rollout.as_ref(), "what is over is over");
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    /// No plan deadlocks: watched, with checks that pass and approvals given, it completes.
    #[test]
    fn every_plan_that_can_complete_does(rollout in plan(), pauses in prop::collection::vec(0_u64..2_000, 0..3)) {
        let mut scene = Scene::new(&rollout);
        let plan = scene.pack.active_plan().expect("a rollout has begun").clone();
        // Each step of Completing may wait a day and a clock change for its window, and each pause lasts an hour.
        let waits = HoldFor::from_hours(26).times(plan.steps.len() as u64 + 2);
        let most = plan.planned_length().plus(waits).plus(HoldFor::from_hours(2).times(pauses.len() as u64));
        let end = most.after(scene.pack.now());
        let mut looks = 0_u64;
        scene.watch_until(end, Seen::Good, |scene| {
            looks += 1;
            let is_due = |cause| scene.pack.state().active().is_some_and(|(_, active)| active.holds.contains_key(&cause));
            if is_due(HoldCause::ApprovalDue) {
                scene.order(Command::Approve).expect("an approval is due");
            }
            if pauses.contains(&looks) && scene.order(Command::Pause).is_ok() {
                let end = HoldFor::from_hours(1).after(scene.pack.now());
                scene.watch_until(end, Seen::Good, |_| false);
                scene.order(Command::Resume).expect("it was paused");
            }
            scene.pack.state().active().is_none()
        });
        let ended = scene.pack.rollout().phase(&plan);
        let active = scene.pack.state().active().map(|(_, active)| (active.step, active.holds.clone()));
        prop_assert_eq!(ended, Phase::Completed, "{:?} of {} steps", active, plan.steps.len());
    }
}

#[test]
fn random_plans_are_of_every_kind() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    let mut actions: Vec<Action> = Vec::new();
    for _ in 0..120 {
        let rollout = plan().new_tree(&mut runner).expect("a plan").current();
        let deeds = prop::collection::vec(deed(), 30).new_tree(&mut runner).expect("deeds").current();
        for kind in ["segments:", "schedule:", "steps:", "approval: true", "compareTo", "holdback: 5%"] {
            *kinds.entry(kind).or_default() += u32::from(rollout.contains(kind));
        }
        let mut scene = Scene::new(&rollout);
        deeds.iter().for_each(|deed| scene.perform(deed));
        actions.extend(scene.pack.actions());
    }
    assert!(kinds.len() == 6 && kinds.values().all(|count| *count > 15), "{kinds:?}");
    for action in
        [Action::WeightChanged, Action::StepEntered, Action::Completed, Action::RolledBack, Action::Approved]
    {
        assert!(actions.contains(&action), "{action} never happens");
    }
}
