//! The watch over a version that has become stable, on virtual time over the real store.

use std::path::Path;

use serin_core::audit::Action;
use serin_core::command::Command;
use serin_core::ids::Actor;
use serin_core::observation::Response;
use serin_core::rollout::RolloutKind;
use serin_core::routing::Variant;
use serin_core::units::HoldFor;
use serin_core::watch::WatchState;

use crate::{House, STABLE, healthy, start};

fn manifest(version: &str, watch: &str) -> String {
    let gates = r#"[{name: success_rate, threshold: 90%, comparison: ">="}, {name: latency_p99, compareTo: stable, maxRegression: 50%}]"#;
    let rollout = format!("{{analysis: {{metrics: {gates}}}, watch: {watch}}}");
    STABLE.replace(
        "spec: {version: \"2.3.1\"}",
        &format!("spec: {{version: \"{version}\", rollout: {rollout}}}"),
    )
}

/// A pack whose version 2.4.0 has just completed its rollout.
async fn completed(dir: &Path, watch: &str) -> House {
    let house = House::open(dir, start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    house.apply(&manifest("2.4.0", watch)).await.unwrap();
    house.run(360, 4, &healthy).await;
    let actor = Actor::named("ana");
    house.order(Command::PromoteFully, &actor, "it is good").await.unwrap();
    house
}

/// What the version that is stable answers once something broke: one request in three fails.
fn broken(variant: Variant, n: u64) -> Response {
    Response { success: Some(!n.is_multiple_of(3)), ..healthy(variant, n) }
}

async fn facts(house: &House, action: Action) -> Vec<(u64, String)> {
    let entries = house.control.store().audit(&Default::default()).await.unwrap();
    let of_kind = entries.into_iter().filter(|entry| entry.action == action.as_str());
    of_kind.map(|entry| (entry.revision, entry.reason)).collect()
}

async fn stands(house: &House) -> Option<WatchState> {
    house.view().await.state.watch.map(|watch| watch.state)
}

#[tokio::test]
async fn a_new_stable_that_breaks_its_gate_is_told_once_with_the_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let house = completed(dir.path(), "24h").await;
    house.run(600, 4, &healthy).await;
    assert_eq!(stands(&house).await, Some(WatchState::Running));
    assert!(facts(&house, Action::WatchBreached).await.is_empty());
    house.run(900, 4, &broken).await;
    let told = facts(&house, Action::WatchBreached).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].1.starts_with("success_rate "), "{told:?}");
    let view = house.view().await;
    assert!(matches!(view.state.watch.unwrap().state, WatchState::Breached { .. }));
    assert_eq!(view.state.stable.to_string(), "2.4.0", "who is told, decides");
    house.run(120, 4, &broken).await;
    assert_eq!(facts(&house, Action::WatchBreached).await.len(), 1);
    let entries = house.control.store().audit(&Default::default()).await.unwrap();
    let breach = entries.iter().find(|entry| entry.action == "watch_breached").unwrap();
    let evidence: serde_json::Value = serde_json::from_str(&breach.evidence).unwrap();
    assert_eq!(evidence["analysis"]["gates"][0]["state"], "fail");
    assert_eq!(evidence["analysis"]["gates"].as_array().unwrap().len(), 1, "nothing is left to compare with");
}

#[tokio::test]
async fn a_breach_brings_everyone_back_in_one_transition_where_the_manifest_says_so_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let house = completed(dir.path(), "{duration: 24h, onBreach: rollback}").await;
    house.run(120, 4, &healthy).await;
    let pinned = house.visit("kept").await;
    assert_eq!(pinned.version.to_string(), "2.4.0");
    house.run(100, 4, &broken).await;
    let now = house.clock.now();
    house.ingest.shutdown().await;

    let again = House::open(dir.path(), now).await;
    again.sessions.store(1_000_000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(stands(&again).await, Some(WatchState::Running), "a watch survives a restart");
    again.run(900, 4, &broken).await;
    let state = again.view().await.state;
    assert_eq!(state.stable.to_string(), "2.3.1");
    let rollout = state.rollout.as_ref().unwrap();
    assert_eq!((rollout.kind, rollout.started_by.as_str()), (RolloutKind::Undo, "serin"));
    assert!(rollout.reason.contains("success_rate"), "{}", rollout.reason);
    assert_eq!(state.watch, None);
    assert!(state.rolled_back.iter().any(|version| version.to_string() == "2.4.0"));
    assert_eq!(facts(&again, Action::WatchBreached).await.len(), 1);
    assert_eq!(again.visit("kept").await.version.to_string(), "2.3.1", "`onRollback: move` moves");
    again.control.store().verify_audit(None).await.unwrap();
}

#[tokio::test]
async fn a_watch_notes_each_hour_and_ends_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let house = completed(dir.path(), "3h").await;
    let until = house.view().await.state.watch.unwrap().until;
    for hour in 1..=2_usize {
        house.run(30, 4, &healthy).await;
        house.pass(3_600 - 30).await;
        assert_eq!(facts(&house, Action::Watched).await.len(), hour);
        house.pass(5).await;
        assert_eq!(facts(&house, Action::Watched).await.len(), hour, "once for each hour");
    }
    house.pass(u64::try_from(until.duration_since(house.clock.now()).as_secs()).unwrap()).await;
    let ended = facts(&house, Action::WatchEnded).await;
    assert!(ended.len() == 1 && ended[0].1.starts_with("watched for 3h: "), "{ended:?}");
    assert!(matches!(stands(&house).await, Some(WatchState::Over { .. })));
    assert_eq!(house.visit("later").await.cohort.stamp, None, "nothing is counted any more");
    house.pass(7_200).await;
    assert_eq!(facts(&house, Action::WatchEnded).await.len(), 1);
}

#[tokio::test]
async fn the_next_rollout_ends_the_watch() {
    let dir = tempfile::tempdir().unwrap();
    let house = completed(dir.path(), "24h").await;
    let watched = house.visit("watched").await;
    assert!(watched.cohort.stamp.is_some() && watched.cohort.of_rollout().is_none());
    assert_eq!(watched.cohort.variant, Variant::Stable);
    house.run(60, 4, &healthy).await;
    let before = house.view().await.measured.unwrap();
    assert_eq!(
        before.assigned.iter().map(|at| at.stable + at.canary).sum::<u64>(),
        1_440,
        "of the rollout alone"
    );
    house.apply(&manifest("2.5.0", "24h")).await.unwrap();
    assert_eq!(stands(&house).await, None);
    house.clock.set(HoldFor::from_secs(1).after(house.clock.now()));
    let actor = Actor::named("ana");
    house.order(Command::Rollback, &actor, "no").await.unwrap();
    assert_eq!(house.visit("after").await.cohort.stamp, None);
}
