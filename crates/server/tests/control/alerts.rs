//! Alerts of other systems hold what they are about, and nothing else comes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_core::access::Scope;
use serin_core::audit::AuditEntry;
use serin_core::command::Command;
use serin_core::ids::{Actor, RolloutId};
use serin_core::rollout::{HoldCause, Phase};
use serin_core::units::HoldFor;
use serin_server::alerts::{AlertSettings, Alerts, Heard, Said, Status};

use crate::{CANARY, House, STABLE, failing_canary, healthy, pack, start};

impl House {
    /// The alerts that hold rollouts here; each lasts for ten minutes without being repeated.
    async fn alerts(&self) -> Arc<Alerts> {
        let settings = AlertSettings { rules: vec![], expire_after: HoldFor::from_mins(10) };
        let alerts = Arc::new(Alerts::load(self.control.store().clone(), settings).await.unwrap());
        self.control.hold_by(Arc::clone(&alerts));
        alerts
    }

    async fn with_canary(&self) {
        self.apply(STABLE).await.unwrap();
        self.run(60, 4, &healthy).await;
        self.apply(CANARY).await.unwrap();
    }

    /// The weight of the canary, and why it is held by alerts.
    async fn stands(&self) -> (String, Option<String>) {
        let (_, weight) = self.phase_and_weight().await;
        let view = self.view().await;
        let hold = view.state.active().and_then(|(_, active)| active.holds.get(&HoldCause::Alert));
        (weight.to_string(), hold.map(|hold| hold.reason.clone()))
    }

    /// The entries of the audit log about holds by alerts, as action and reason.
    async fn log(&self) -> Vec<String> {
        let entries: Vec<AuditEntry> = self.control.store().audit(&Default::default()).await.unwrap();
        let mut entries: Vec<AuditEntry> =
            entries.into_iter().filter(|entry| entry.evidence.contains("\"alert\"")).collect();
        entries.sort_by_key(|entry| entry.seq);
        entries.iter().map(|entry| format!("{}: {}", entry.action, entry.reason)).collect()
    }
}

fn said(name: &str, status: Status) -> Said {
    let labels = [("alertname", name), ("pack", "support-prompts")];
    Said {
        status,
        fingerprint: name.to_owned(),
        name: name.to_owned(),
        labels: labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into(),
        summary: String::new(),
        url: None,
        since: None,
        expires_in: None,
    }
}

async fn say(house: &House, alerts: &Alerts, name: &str, status: Status) -> Heard {
    let heard = alerts.hear(&[said(name, status)], "monitor", &Scope::All, house.clock.now()).await;
    heard.unwrap()[0]
}

#[tokio::test]
async fn an_alert_holds_without_costing_time_and_the_log_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    let alerts = house.alerts().await;
    house.with_canary().await;
    house.run(400, 4, &healthy).await;
    assert_eq!(house.stands().await, ("10".to_owned(), None));

    assert_eq!(say(&house, &alerts, "HighErrors", Status::Firing).await, Heard::Firing);
    let began = house.clock.now();
    house.run(500, 4, &healthy).await;
    let why = format!("HighErrors fires since {began:.0}");
    assert_eq!(house.stands().await, ("10".to_owned(), Some(why.clone())));
    // A second one joins, and the first one goes: it is still held, for another reason.
    say(&house, &alerts, "Slow", Status::Firing).await;
    house.run(2, 4, &healthy).await;
    assert_eq!(say(&house, &alerts, "HighErrors", Status::Resolved).await, Heard::Resolved);
    house.run(2, 4, &healthy).await;
    assert!(house.stands().await.1.unwrap().starts_with("Slow fires since"));
    say(&house, &alerts, "Slow", Status::Resolved).await;

    // Two hundred seconds of the step were left.
    house.run(180, 4, &healthy).await;
    assert_eq!(house.stands().await, ("10".to_owned(), None));
    house.run(70, 4, &healthy).await;
    assert_eq!(house.stands().await, ("20".to_owned(), None));

    let log = house.log().await;
    assert_eq!(log.len(), 4, "{log:#?}");
    assert_eq!(log[0], format!("hold_set: {why}"));
    assert!(log[1].starts_with(&format!("hold_set: {why}; Slow fires")), "{log:#?}");
    assert!(log[2].starts_with("hold_set: Slow fires"), "{log:#?}");
    assert_eq!(log[3], "hold_cleared: HighErrors is resolved; Slow is resolved");
    assert!(house.control.resolver().signals.barrier().await);
    let replay = house.control.replay(&RolloutId::of(&pack(), 1)).await.unwrap().unwrap();
    assert_eq!(replay.differences, Vec::<String>::new());
    assert!(replay.decisions >= 2, "{replay:?}");
}

#[tokio::test]
async fn an_alert_that_is_repeated_lasts_and_one_that_is_lost_does_not_hold_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    let alerts = house.alerts().await;
    house.with_canary().await;
    for _ in 0..3 {
        assert_eq!(say(&house, &alerts, "HighErrors", Status::Firing).await, Heard::Firing);
        house.pass(300).await;
        assert!(house.stands().await.1.is_some());
    }
    // The alert outlives the server.
    let now = house.clock.now();
    house.ingest.shutdown().await;
    let house = House::open(dir.path(), now).await;
    let alerts = house.alerts().await;
    house.pass(200).await;
    assert!(house.stands().await.1.is_some());
    house.pass(101).await;
    assert_eq!(house.stands().await.1, None);
    let log = house.log().await;
    assert_eq!(log.len(), 2, "saying the same again changes nothing: {log:#?}");
    assert!(log[1].starts_with("hold_cleared: HighErrors was not repeated until 2026-"), "{log:#?}");

    assert_eq!(say(&house, &alerts, "HighErrors", Status::Resolved).await, Heard::NotFiring);
    alerts.forget(HoldFor::from_hours(25).after(house.clock.now())).await;
    assert!(alerts.of(&pack()).is_empty());
    assert!(house.control.store().alerts().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_alert_neither_rolls_back_nor_keeps_a_rollback_from_happening() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    let alerts = house.alerts().await;
    house.with_canary().await;
    house.run(320, 4, &healthy).await;
    say(&house, &alerts, "HighErrors", Status::Firing).await;
    house.run(200, 4, &healthy).await;
    assert_eq!(house.phase_and_weight().await.0, Phase::Progressing);
    // A person may pass it, for one step.
    house.order(Command::Promote, &Actor::named("ana"), "known").await.unwrap();
    house.run(2, 4, &healthy).await;
    let (weight, why) = house.stands().await;
    assert!(weight == "20" && why.is_some(), "{weight} {why:?}");
    house.run(600, 4, &failing_canary).await;
    assert_eq!(house.phase_and_weight().await.0, Phase::RolledBack);
    assert!(house.control.resolver().signals.barrier().await);
    let replay = house.control.replay(&RolloutId::of(&pack(), 1)).await.unwrap().unwrap();
    assert_eq!(replay.differences, Vec::<String>::new());
}

#[tokio::test]
async fn only_so_many_alerts_fire_and_those_that_ended_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    let alerts = house.alerts().await;
    let now = house.clock.now();
    let named = |status: Status, from: u32| -> Vec<Said> {
        (from..from + 1_000).map(|n| said(&format!("a{n}"), status)).collect()
    };
    let hear = async |said: &[Said]| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for heard in alerts.hear(said, "monitor", &Scope::All, now).await.unwrap() {
            *counts.entry(format!("{heard:?}")).or_default() += 1;
        }
        counts
    };
    assert_eq!(hear(&named(Status::Firing, 0)).await, [("Firing".to_owned(), 1_000)].into());
    assert_eq!(
        hear(&named(Status::Firing, 500)).await,
        [("Firing".into(), 500), ("Refused".into(), 500)].into()
    );
    for from in [0, 1_000, 2_000] {
        hear(&named(Status::Firing, from)).await;
        assert_eq!(hear(&named(Status::Resolved, from)).await, [("Resolved".to_owned(), 1_000)].into());
    }
    assert_eq!(alerts.firing(now), 0);
    let stored = house.control.store().alerts().await.unwrap();
    assert_eq!((alerts.of(&pack()).len(), stored.len()), (2_000, 2_000));
    assert_eq!(alerts.counts.refused.load(std::sync::atomic::Ordering::Relaxed), 500);
}
