//! Segments and schedules over the real store: stages, windows, what is shown of them, and restarts on the way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use serin_core::analysis::Sides;
use serin_core::audit::Action;
use serin_core::command::Command;
use serin_core::ids::Actor;
use serin_core::observation::Response;
use serin_core::rollout::HoldCause;
use serin_core::routing::{Reason, Variant};
use serin_core::units::HoldFor;
use serin_server::store::Store;

use crate::{House, STABLE, healthy, pack, start, whose};

/// Staff by an expression, beta testers by name, then everyone; a minute each, so that tests stay short.
fn stages(schedule: &str) -> String {
    let gate = r#"{name: success_rate, threshold: 90%, comparison: ">="}"#;
    let staff =
        r#"{name: staff, weight: 100%, duration: 5m, match: 'attributes.email.endsWith("@acme.com")'}"#;
    let segments = format!(
        "[{staff}, {{name: beta_users, weight: 50%, duration: 5m}}, {{name: all_users, weight: progressive}}]"
    );
    manifest(&format!(
        "{{stepInterval: 4m, segments: {segments}, analysis: {{metrics: [{gate}]}}{schedule}}}"
    ))
}

/// Windows in which the whole rollout fits: 10 % until 10:00, 30 % until 11:00, else 50 %.
fn windows() -> String {
    let gate = r#"{name: success_rate, threshold: 90%, comparison: ">="}"#;
    let schedule = "[{window: '09:00-10:00 UTC', canaryWeight: 10}, {window: '10:00-11:00 UTC', canaryWeight: 30}, \
                     {window: '11:00-09:00 UTC', canaryWeight: 50}]";
    manifest(&format!("{{schedule: {schedule}, analysis: {{metrics: [{gate}], interval: 10m}}}}"))
}

fn manifest(rollout: &str) -> String {
    format!("{STABLE}  # canary\n")
        .replace("spec: {version: \"2.3.1\"}", &format!("spec: {{version: \"2.4.0\", rollout: {rollout}}}"))
}

async fn with(dir: &Path, manifest: &str) -> House {
    let house = House::open(dir, start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    house.apply(manifest).await.unwrap();
    house
}

/// The weights in force, by segment, in percent.
async fn weights(house: &House) -> Vec<f64> {
    let view = house.view().await;
    view.state.rollout.unwrap().weights().iter().map(|weight| weight.percent()).collect()
}

async fn facts(house: &House, action: Action) -> Vec<String> {
    let entries = house.control.store().audit(&Default::default()).await.unwrap();
    let of_kind = entries.into_iter().filter(|entry| entry.action == action.as_str());
    of_kind.map(|entry| entry.reason).collect()
}

#[tokio::test]
async fn segments_get_the_canary_stage_by_stage_and_are_counted_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let house = with(dir.path(), &stages("")).await;
    assert_eq!(weights(&house).await, [100.0, 0.0, 0.0]);
    let first: BTreeMap<u64, Variant> = {
        let mut variants = BTreeMap::new();
        for n in 10_000..10_200 {
            let resolved = house.visit_as(&format!("stage-{n}"), &whose(n)).await;
            let expected = if n % 10 == 0 { Variant::Canary } else { Variant::Stable };
            assert_eq!(resolved.cohort.variant, expected, "session {n}");
            let reason =
                if n % 10 < 3 && n % 10 > 0 || n % 10 == 0 { Reason::TargetingMatch } else { Reason::Split };
            assert_eq!(resolved.reason, reason, "session {n}");
            variants.insert(n, resolved.cohort.variant);
        }
        variants
    };
    house.run(600, 4, &healthy).await;
    assert_eq!(weights(&house).await, [100.0, 50.0, 0.0], "{:?}", house.view().await.state.rollout);
    for (n, variant) in &first {
        let resolved = house.visit_as(&format!("stage-{n}"), &whose(*n)).await;
        assert_eq!((resolved.cohort.variant, resolved.reason), (*variant, Reason::Pinned), "session {n}");
    }
    house.run(300, 4, &healthy).await;
    assert_eq!(weights(&house).await, [100.0, 50.0, 10.0]);

    let measured = house.view().await.measured.unwrap();
    let names: Vec<&str> = measured.segments.iter().map(|segment| segment.reading.segment.as_str()).collect();
    assert_eq!(names, ["staff", "beta_users", "all_users"]);
    let assigned: Vec<Sides<u64>> =
        measured.segments.iter().map(|segment| segment.assigned.clone()).collect();
    assert_eq!(assigned[0].stable, 0, "{assigned:?}");
    assert!(assigned[0].canary > 300 && assigned[1].canary > 90 && assigned[2].canary < 30, "{assigned:?}");
    let all = assigned.iter().map(|sides| sides.canary).sum::<u64>();
    assert_eq!(all, measured.exposure.sessions);
    let unreadable: Vec<u64> = measured.segments.iter().map(|segment| segment.unreadable).collect();
    assert!(unreadable[0] > 300 && unreadable[0] == unreadable[1] && unreadable[2] == 0, "{unreadable:?}");
    let beta = &measured.segments[1].reading;
    let success = beta.metrics.iter().find(|metric| metric.metric.as_str() == "success_rate").unwrap();
    assert!(beta.sessions.canary > 60 && success.canary.is_some_and(|rate| rate > 0.9), "{success:?}");
    house.control.store().verify_audit(None).await.unwrap();
}

#[tokio::test]
async fn a_segment_that_breaks_a_gate_is_named_and_holds_although_all_together_pass() {
    let dir = tempfile::tempdir().unwrap();
    let house = with(dir.path(), &stages("").replace("90%", "70%")).await;
    // Beta testers are the sessions whose number ends in 1 or 2.
    let worse = |variant, n: u64| {
        let is_beta = n % 10 == 1 || n % 10 == 2;
        let fails = variant == Variant::Canary && is_beta && (n / 10).is_multiple_of(2);
        Response { success: Some(!fails && !n.is_multiple_of(97)), ..healthy(variant, n) }
    };
    house.run(900, 6, &worse).await;
    let view = house.view().await;
    let (_, active) =
        view.state.active().expect("all segments together are within the gate, or it rolls back");
    assert!(
        active.holds.contains_key(&HoldCause::Degraded),
        "beta users are proven to be worse: {:?}",
        active.holds
    );
    let now = view.measured.unwrap().now.unwrap();
    let reason = &now.holds[&HoldCause::Degraded];
    assert!(reason.contains("is proven to be broken in segment beta_users"), "{reason}");
    assert_eq!(now.degraded_segments.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["beta_users"]);

    let actor = Actor::named("ana");
    house.order(Command::Promote, &actor, "beta users are few").await.unwrap();
    house.run(70, 6, &healthy).await;
    let holds = house.view().await.state.active().unwrap().1.holds.clone();
    assert!(!holds.contains_key(&HoldCause::Degraded), "a person has passed it: {holds:?}");
}

#[tokio::test]
async fn each_change_of_weight_at_a_border_is_committed_and_audited() {
    let dir = tempfile::tempdir().unwrap();
    let house = with(dir.path(), &windows()).await;
    let mut seen = Vec::new();
    for _ in 0..(150 * 6) {
        house.session(&healthy).await;
        house.pass(10).await;
        let now = weights(&house).await[0];
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    assert_eq!(seen, [10.0, 30.0, 50.0]);
    let told = facts(&house, Action::WeightChanged).await;
    assert_eq!(told, ["window 10:00-11:00 UTC: 30%", "window 11:00-09:00 UTC: 50%"]);
    let rollout = house.view().await.state.rollout.unwrap();
    let spans: Vec<String> =
        rollout.spans.iter().map(|span| format!("{} {}", span.from, span.weights[0])).collect();
    assert_eq!(
        spans,
        [
            "2026-11-02T09:01:00Z 10%",
            // Observing is over.
            "2026-11-02T09:11:00Z 10%",
            "2026-11-02T10:00:00Z 30%",
            "2026-11-02T11:00:00Z 50%"
        ]
    );
    house.control.store().verify_audit(None).await.unwrap();
}

/// FIELD bug 8, with a schedule: two control loops on one store at a border of two windows.
#[tokio::test]
async fn bug_08_of_two_control_loops_one_changes_the_weight_at_a_border() {
    let dir = tempfile::tempdir().unwrap();
    let house = with(dir.path(), &windows()).await;
    let store = Store::open(&dir.path().join("serin.db")).await.unwrap();
    let twin = House::around(store, dir.path(), house.clock.clone()).await;
    for _ in 0..(70 * 2) {
        house.session(&healthy).await;
        assert!(house.control.resolver().signals.barrier().await);
        house.clock.set(HoldFor::from_secs(30).after(house.clock.now()));
        let (ours, theirs) = (pack(), pack());
        let (_, _) = tokio::join!(house.control.tick_pack(&ours), twin.control.tick_pack(&theirs));
    }
    assert_eq!(facts(&house, Action::WeightChanged).await, ["window 10:00-11:00 UTC: 30%"]);
    house.control.store().verify_audit(None).await.unwrap();
}

/// A run of a plan, quarter of an hour by quarter of an hour, with orders on the way; restarted where asked.
async fn evidence_after(manifest: &str, restarts: &[u64]) -> (String, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let mut house = with(dir.path(), manifest).await;
    for step in 0..300_u64 {
        match step {
            60 => order(&house, Command::Pause).await,
            90 => order(&house, Command::Resume).await,
            _ => {}
        }
        for _ in 0..4 {
            house.session(&healthy).await;
        }
        house.pass(30).await;
        if restarts.contains(&step) {
            let (now, sessions) = (house.clock.now(), house.sessions.load(Ordering::Relaxed));
            house.ingest.shutdown().await;
            house = House::open(dir.path(), now).await;
            house.sessions.store(sessions, Ordering::Relaxed);
        }
    }
    assert!(house.control.resolver().signals.barrier().await);
    let view = house.view().await;
    let rollout = view.state.rollout.clone().unwrap();
    let evidence = house.control.store().evidence(&rollout.id).await.unwrap();
    let assigned = house.control.store().assigned(&rollout.id).await.unwrap();
    let checks = house.control.store().checks(&rollout.id, 500).await.unwrap();
    let told = format!("{rollout:?}\n{evidence:?}\n{assigned:?}\n{checks:?}");
    let entries = house.control.store().audit(&Default::default()).await.unwrap();
    (told, entries.into_iter().map(|entry| format!("{} {}", entry.action, entry.hash)).collect())
}

async fn order(house: &House, command: Command) {
    house.order(command, &Actor::named("ana"), "test").await.unwrap();
}

#[tokio::test]
async fn a_weight_change_a_pause_a_schedule_and_restarts_leave_the_evidence_as_without_the_restarts() {
    let schedule = ", schedule: [{window: '09:00-10:10 UTC', canaryWeight: 10}, {window: '10:10-09:00 UTC', canaryWeight: 40}]";
    for manifest in [windows(), stages(schedule)] {
        let steady = evidence_after(&manifest, &[]).await;
        let restarted = evidence_after(&manifest, &[3, 20, 61, 75, 91, 150, 151, 240]).await;
        assert!(steady.1.iter().any(|entry| entry.starts_with("weight_changed")), "{:?}", steady.1);
        assert!(steady.0 == restarted.0, "the evidence differs:\n{}\n\n{}", steady.0, restarted.0);
        assert_eq!(steady.1, restarted.1, "the audit log is the same, hash by hash");
    }
}
