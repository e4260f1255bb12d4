//! The control side over the real store, on virtual time.

#[path = "control/alerts.rs"]
mod alerts;
#[path = "control/patterns.rs"]
mod patterns;
#[path = "control/replay.rs"]
mod replay;
#[path = "control/watch.rs"]
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serin_core::access::{Role, Scope};
use serin_core::command::Command;
use serin_core::ids::{Actor, PackName, SessionKey};
use serin_core::observation::{Fact, Outcome, Response};
use serin_core::policy::{Policy, Who};
use serin_core::rollout::{End, Phase};
use serin_core::routing::{Reason, Turn, Variant};
use serin_core::segment::Attributes;
use serin_core::units::HoldFor;
use serin_server::clock::{Clock, ManualClock};
use serin_server::control::apply::{Applied, ApplyError, Request};
use serin_server::control::order::{Carried, OrderError, Ordered};
use serin_server::control::view::PackView;
use serin_server::control::{Control, FORCE_STABLE_FILE};
use serin_server::ingest::Ingest;
use serin_server::pins::PinTable;
use serin_server::resolve::{Resolved, Resolver, Visit};
use serin_server::signal::{SessionFact, queue};
use serin_server::store::Store;

const STABLE: &str = r#"
apiVersion: omnia.altairalabs.ai/v1alpha1
kind: PromptPack
metadata: {name: support-prompts}
spec: {version: "2.3.1"}
"#;

/// The first manifest of the design, word for word in what it asks for.
const CANARY: &str = r#"
apiVersion: omnia.altairalabs.ai/v1alpha1
kind: PromptPack
metadata:
  name: support-prompts
spec:
  version: "2.4.0"
  rollout:
    strategy: canary
    canaryWeight: 10
    stepWeight: 10
    stepInterval: 5m
    analysis:
      metrics:
        - name: success_rate
          threshold: 90%
          comparison: ">="
        - name: latency_p99
          threshold: 3000ms
          comparison: "<="
      failureThreshold: 2
      interval: 1m
"#;

/// Everything of a server but its listeners.
struct House {
    control: Arc<Control>,
    clock: ManualClock,
    ingest: Ingest,
    sessions: AtomicU64,
}

fn start() -> Timestamp {
    "2026-11-02T09:00:00Z".parse().unwrap()
}

fn who(actor: &Actor) -> Who<'_> {
    Who { actor, role: Role::Admin, key: None }
}

fn pack() -> PackName {
    PackName::parse("support-prompts").unwrap()
}

impl House {
    async fn open(dir: &Path, now: Timestamp) -> Self {
        let clock = ManualClock::at(now);
        let store = Store::open(&dir.join("serin.db")).await.unwrap();
        Self::around(store, dir, clock).await
    }

    async fn around(store: Store, dir: &Path, clock: ManualClock) -> Self {
        let (signals, receiver) = queue(100_000);
        let ingest = Ingest::spawn(store.clone(), receiver);
        let resolver =
            Resolver::new(PinTable::with_capacity_limit(1_000_000), Clock::Manual(clock.clone()), signals);
        let salts = AtomicU64::new(0);
        let salts = Box::new(move || format!("salt-{}", salts.fetch_add(1, Ordering::Relaxed)));
        let control = Control::load(store, Arc::new(resolver), salts, dir, Policy::NONE).await.unwrap();
        Self { control, clock, ingest, sessions: AtomicU64::new(0) }
    }

    async fn apply(&self, manifest: &str) -> Result<Applied, ApplyError> {
        let actor = Actor::named("ana");
        let request = Request {
            manifest,
            scope: &Scope::All,
            who: who(&actor),
            reason: "test",
            dry_run: false,
            override_policy: None,
            restart: false,
        };
        self.control.apply(request).await
    }

    async fn order(&self, what: Command, actor: &Actor, reason: &str) -> Result<Carried, OrderError> {
        let ordered = Ordered { what, who: who(actor), reason, override_policy: None };
        self.control.order(&pack(), ordered).await
    }

    async fn visit(&self, key: &str) -> Resolved {
        self.visit_as(key, &Attributes::new()).await
    }

    /// Asks for the version of a session of which something is known.
    async fn visit_as(&self, key: &str, attributes: &Attributes) -> Resolved {
        let key = SessionKey::parse(key).unwrap();
        let segment = self.control.resolver().snapshot().packs[&pack()].segment_of(attributes);
        let visit = Visit {
            pack: &pack(),
            session: Some(&key),
            own_key: &|| unreachable!("the session has a key"),
            segment,
            turn: Turn::User,
            version: None,
        };
        self.control.resolver().resolve(visit).await.unwrap()
    }

    /// One new session with one request; `response` says how the version answers.
    async fn session(&self, response: &dyn Fn(Variant, u64) -> Response) {
        let n = self.sessions.fetch_add(1, Ordering::Relaxed);
        let resolved = self.visit_as(&format!("session-{n}"), &whose(n)).await;
        let at = self.clock.now();
        let fact = |id: String, fact| SessionFact {
            pack: Arc::clone(&resolved.pack.name),
            hash: resolved.hash,
            cohort: resolved.cohort.id,
            id,
            at,
            until: at,
            fact,
        };
        let signals = &self.control.resolver().signals;
        assert!(signals.fact(fact(format!("r{n}"), Fact::Response(response(resolved.cohort.variant, n)))));
        let outcome = Outcome::parse("user_satisfaction", 4.0, &[]).unwrap();
        assert!(signals.fact(fact(format!("o{n}"), Fact::Outcome(outcome))));
    }

    /// Lets time pass second by second with some sessions in each, and the control loop looking.
    async fn run(&self, secs: u64, sessions_per_sec: u64, response: &dyn Fn(Variant, u64) -> Response) {
        for _ in 0..secs {
            for _ in 0..sessions_per_sec {
                self.session(response).await;
            }
            self.pass(1).await;
        }
    }

    /// Lets some seconds pass at once, without traffic.
    async fn pass(&self, secs: u64) {
        assert!(self.control.resolver().signals.barrier().await);
        self.clock.set(HoldFor::from_secs(secs).after(self.clock.now()));
        self.control.tick_pack(&pack()).await.unwrap();
    }

    async fn view(&self) -> PackView {
        self.control.view(&pack()).await.unwrap().unwrap()
    }

    async fn phase_and_weight(&self) -> (Phase, f64) {
        let view = self.view().await;
        let rollout = view.state.rollout.unwrap();
        (rollout.phase(&view.plan), rollout.weight().percent())
    }
}

/// What is known of the nth session: one in ten is of the staff, two in ten are beta testers.
fn whose(n: u64) -> Attributes {
    let attributes = match n % 10 {
        0 => serde_json::json!({"email": format!("{n}@acme.com"), "segment": "none"}),
        1 | 2 => serde_json::json!({"email": format!("{n}@example.org"), "segment": "beta_users"}),
        3 => serde_json::json!({}),
        _ => serde_json::json!({"email": format!("{n}@example.org"), "segment": "none"}),
    };
    let serde_json::Value::Object(attributes) = attributes else { unreachable!("it was written as one") };
    attributes
}

fn healthy(_: Variant, n: u64) -> Response {
    Response {
        success: Some(!n.is_multiple_of(17)),
        latency_ms: Some(900.0 + (n % 100) as f64 * 15.0),
        ..Response::default()
    }
}

fn failing_canary(variant: Variant, n: u64) -> Response {
    let success = match variant {
        Variant::Stable => !n.is_multiple_of(17),
        Variant::Canary => !n.is_multiple_of(3),
    };
    Response { success: Some(success), ..healthy(variant, n) }
}

#[tokio::test]
async fn a_healthy_canary_reaches_everyone_row_by_row() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    house.apply(CANARY).await.unwrap();
    assert_eq!(house.phase_and_weight().await, (Phase::Observing, 10.0));
    let rows = [
        (Phase::Progressing, 10.0),
        (Phase::Progressing, 20.0),
        (Phase::Progressing, 30.0),
        (Phase::Progressing, 40.0),
        (Phase::Completing, 50.0),
        (Phase::Completing, 70.0),
        (Phase::Completing, 90.0),
        (Phase::Completing, 100.0),
        (Phase::Completed, 100.0),
    ];
    for (index, row) in rows.into_iter().enumerate() {
        house.run(300, 4, &healthy).await;
        assert_eq!(
            house.phase_and_weight().await,
            row,
            "row {index}: {:?}",
            house.view().await.state.rollout
        );
    }
    let view = house.view().await;
    assert_eq!(view.state.stable.to_string(), "2.4.0");
    assert!(house.control.store().verify_audit(None).await.unwrap().seq > 10);
}

#[tokio::test]
async fn a_failing_canary_is_rolled_back_in_one_transition() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    house.apply(CANARY).await.unwrap();
    house.run(900, 4, &failing_canary).await;
    let view = house.view().await;
    let rollout = view.state.rollout.as_ref().unwrap();
    let ended = rollout.ended().expect("the canary fails one request in three");
    assert!(matches!(&ended.how, End::RolledBack { culprits, .. } if culprits[0].as_str() == "success_rate"));
    assert_eq!(rollout.weight().percent(), 0.0);
    let exposure = view.measured.unwrap().exposure;
    assert!((1..2_000).contains(&exposure.sessions), "{exposure:?}");
    for n in 0..500 {
        assert_eq!(house.visit(&format!("after-{n}")).await.cohort.variant, Variant::Stable);
    }
}

#[tokio::test]
async fn a_restart_keeps_the_weight_the_pins_and_the_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    house.apply(CANARY).await.unwrap();
    house.run(700, 4, &healthy).await;
    let mut versions = Vec::new();
    for n in 0..300 {
        versions.push(house.visit(&format!("kept-{n}")).await.version);
    }
    assert!(house.control.resolver().signals.barrier().await);
    let before = house.view().await;
    let now = house.clock.now();
    house.ingest.shutdown().await;

    let again = House::open(dir.path(), now).await;
    let after = again.view().await;
    assert_eq!(after.state, before.state);
    assert_eq!(after.measured.unwrap().now, before.measured.unwrap().now);
    for (n, version) in versions.into_iter().enumerate() {
        let resolved = again.visit(&format!("kept-{n}")).await;
        assert_eq!((resolved.version, resolved.reason), (version, Reason::Pinned));
    }
}

/// FIELD bug 8: two control loops on one store; one writer wins, no event twice.
#[tokio::test]
async fn bug_08_of_two_control_loops_one_wins_and_nothing_happens_twice() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    house.apply(CANARY).await.unwrap();
    let store = Store::open(&dir.path().join("serin.db")).await.unwrap();
    let twin = House::around(store, dir.path(), house.clock.clone()).await;
    for _ in 0..400 {
        for _ in 0..4 {
            house.session(&healthy).await;
        }
        assert!(house.control.resolver().signals.barrier().await);
        house.clock.set(HoldFor::from_secs(1).after(house.clock.now()));
        let (pack, other) = (pack(), pack());
        let (_, _) = tokio::join!(house.control.tick_pack(&pack), twin.control.tick_pack(&other));
    }
    let entries = house.control.store().audit(&Default::default()).await.unwrap();
    let steps: Vec<_> = entries.iter().filter(|entry| entry.action == "step_entered").collect();
    assert_eq!(steps.len(), 1, "T+5m is one step: {steps:#?}");
    let mut revisions: Vec<_> =
        entries.iter().map(|entry| (entry.revision, &entry.action, &entry.evidence)).collect();
    let all = revisions.len();
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), all, "no event twice");
    house.control.store().verify_audit(None).await.unwrap();
}

#[tokio::test]
async fn a_rollback_is_in_force_at_once_and_recorded_when_the_store_returns() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    house.apply(CANARY).await.unwrap();
    house.run(30, 4, &healthy).await;
    house.control.store().close().await;

    let actor = Actor::named("oncall");
    let carried = house.order(Command::Rollback, &actor, "it is 3 AM").await.unwrap();
    assert_eq!(carried, Carried::InForce);
    for n in 0..200 {
        let resolved = house.visit(&format!("during-{n}")).await;
        assert_eq!((resolved.cohort.variant, resolved.reason), (Variant::Stable, Reason::Disabled));
    }

    let again = House::open(dir.path(), HoldFor::from_mins(1).after(house.clock.now())).await;
    for n in 0..200 {
        assert_eq!(again.visit(&format!("after-{n}")).await.cohort.variant, Variant::Stable);
    }
    again.control.look().await;
    let view = again.view().await;
    let rollout = view.state.rollout.unwrap();
    let ended = rollout.ended().expect("the rollback is recorded");
    assert_eq!((ended.actor.as_str(), ended.reason.as_str()), ("oncall", "it is 3 AM"));
    assert!(!view.forced);
    again.control.look().await;
    let entries = again.control.store().audit(&Default::default()).await.unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.action == "rolled_back").count(), 1);
}

#[tokio::test]
async fn the_break_glass_file_forces_stable_while_it_exists_and_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    house.apply(CANARY).await.unwrap();
    house.order(Command::PromoteFully, &Actor::named("ana"), "jump").await.unwrap();
    house
        .apply(&CANARY.replace("2.4.0", "2.5.0").replace("canaryWeight: 10", "canaryWeight: 90"))
        .await
        .unwrap();
    house.run(5, 4, &healthy).await;

    std::fs::write(dir.path().join(FORCE_STABLE_FILE), "support-prompts\n").unwrap();
    house.control.look_at_force_file();
    for n in 0..100 {
        let resolved = house.visit(&format!("forced-{n}")).await;
        assert_eq!((resolved.version.to_string(), resolved.reason), ("2.4.0".to_owned(), Reason::Disabled));
    }
    house.pass(1).await;
    let view = house.view().await;
    let holds: Vec<String> = view.state.active().unwrap().1.holds.keys().map(ToString::to_string).collect();
    assert!(view.forced);
    assert!(holds.contains(&"forced to stable".to_owned()), "{holds:?}");

    std::fs::remove_file(dir.path().join(FORCE_STABLE_FILE)).unwrap();
    house.control.look_at_force_file();
    house.pass(1).await;
    let view = house.view().await;
    assert!(!view.forced && view.state.active().unwrap().1.holds.is_empty());
    let entries = house.control.store().audit(&Default::default()).await.unwrap();
    let about_force = |action: &str| {
        entries
            .iter()
            .filter(|entry| entry.action == action && entry.evidence.contains("forced_stable"))
            .count()
    };
    assert_eq!((about_force("hold_set"), about_force("hold_cleared")), (1, 1));
}

#[tokio::test]
async fn the_break_glass_file_is_recorded_once_for_a_pack_at_rest_too_and_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    let recorded = async |house: &House| -> Vec<String> {
        let entries = house.control.store().audit(&Default::default()).await.unwrap();
        let about = entries.iter().filter(|entry| entry.action.starts_with("forced_stable"));
        about
            .map(|entry| {
                let source = entry.source.as_deref().unwrap_or_default();
                format!("{} {} by {} ({source})", entry.pack, entry.action, entry.actor)
            })
            .collect()
    };
    let set = "support-prompts forced_stable by force-stable file (data_directory)";
    let cleared = "support-prompts forced_stable_cleared by force-stable file (data_directory)";

    std::fs::write(dir.path().join(FORCE_STABLE_FILE), "*\n").unwrap();
    house.control.look_at_force_file();
    house.control.look().await;
    house.control.look().await;
    assert_eq!(recorded(&house).await, [set]);
    let now = house.clock.now();
    drop(house);

    // The file goes while the server is down, and the next one tells.
    let again = House::open(dir.path(), now).await;
    again.control.look().await;
    assert_eq!(recorded(&again).await, [set]);
    drop(again);
    std::fs::remove_file(dir.path().join(FORCE_STABLE_FILE)).unwrap();
    let last = House::open(dir.path(), now).await;
    last.control.look().await;
    assert_eq!(recorded(&last).await, [set, cleared]);
}

#[tokio::test]
async fn orders_that_cannot_be_carried_out_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    let before = house.view().await.state;
    for (order, refusal) in [
        (
            Command::Rollback,
            "cannot roll back: pack support-prompts has no active rollout and no earlier stable version",
        ),
        (Command::Retry, "cannot retry: pack support-prompts had no rollout yet"),
        (Command::Pause, "cannot pause: pack support-prompts has no active rollout"),
        (Command::Promote, "cannot promote: pack support-prompts has no active rollout"),
    ] {
        let error = house.order(order, &Actor::named("ana"), "why not").await.unwrap_err();
        assert_eq!(error.to_string(), refusal);
    }
    assert_eq!(house.view().await.state, before);
}

#[tokio::test]
async fn a_session_that_only_asks_for_its_version_is_remembered_as_seen() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    let first = house.visit("asks-only").await;
    house.pass(20 * 60).await;
    assert_eq!(house.visit("asks-only").await.reason, Reason::Pinned);
    house.control.sweep_once(HoldFor::from_hours(24 * 7)).await;
    let now = HoldFor::from_mins(25).after(house.clock.now());
    house.ingest.shutdown().await;

    let again = House::open(dir.path(), now).await;
    let after = again.visit("asks-only").await;
    assert_eq!(
        (after.reason, after.cohort.id),
        (Reason::Pinned, first.cohort.id),
        "seen 25 minutes ago, not 45"
    );
}

#[tokio::test]
async fn a_version_only_pack_that_reports_outcomes_alone_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    let gate = "analysis: {metrics: [{name: task_completion_rate, threshold: 80%, comparison: \">=\", maturity: 30s}]}";
    let manifest = format!("{STABLE}  # canary\n")
        .replace("spec: {version: \"2.3.1\"}", &format!("spec: {{version: \"2.4.0\", rollout: {{{gate}}}}}"));
    house.apply(&manifest).await.unwrap();
    for second in 0..900_u64 {
        for n in 0..3_u64 {
            let resolved = house.visit(&format!("s-{second}-{n}")).await;
            let reached = resolved.cohort.variant == Variant::Stable || !second.is_multiple_of(2);
            let fact = SessionFact {
                pack: Arc::clone(&resolved.pack.name),
                hash: resolved.hash,
                cohort: resolved.cohort.id,
                id: format!("o-{second}-{n}"),
                at: house.clock.now(),
                until: house.clock.now(),
                fact: Fact::Outcome(
                    Outcome::parse("task_completion", f64::from(u8::from(reached)), &[]).unwrap(),
                ),
            };
            assert!(house.control.resolver().signals.fact(fact));
        }
        house.pass(1).await;
    }
    let rollout = house.view().await.state.rollout.unwrap();
    let how = rollout.ended().map(|ended| ended.how.clone());
    assert!(matches!(how, Some(End::RolledBack { .. })), "{:?}", rollout.active());
}

/// FIELD bug 18: what status says is what was served, counted from the answers and not from the set weight.
#[tokio::test]
async fn bug_18_status_says_what_was_really_served() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    house.apply(CANARY).await.unwrap();
    let (mut sessions, mut requests) = ([0_u64; 2], [0_u64; 2]);
    for n in 0..1_000_u64 {
        let resolved = house.visit(&format!("served-{n}")).await;
        let is_canary = resolved.version.to_string() == "2.4.0";
        assert_eq!(is_canary, resolved.cohort.variant == Variant::Canary, "the version is the variant's");
        sessions[usize::from(is_canary)] += 1;
        for turn in 0..=(n % 3) {
            requests[usize::from(is_canary)] += 1;
            let at = house.clock.now();
            let fact = SessionFact {
                pack: Arc::clone(&resolved.pack.name),
                hash: resolved.hash,
                cohort: resolved.cohort.id,
                id: format!("r-{n}-{turn}"),
                at,
                until: at,
                fact: Fact::Response(healthy(resolved.cohort.variant, n)),
            };
            assert!(house.control.resolver().signals.fact(fact));
        }
    }
    assert!(house.control.resolver().signals.barrier().await);
    let measured = house.view().await.measured.unwrap();
    let assigned = measured.assigned.iter().fold([0, 0], |sum, a| [sum[0] + a.stable, sum[1] + a.canary]);
    assert_eq!(assigned, sessions);
    assert_eq!([measured.shown.stable.requests, measured.shown.canary.requests], requests);
    assert_eq!((measured.exposure.sessions, measured.exposure.requests), (sessions[1], requests[1]));
    assert!((50..200).contains(&sessions[1]), "about 10 % of a thousand: {sessions:?}");
}
