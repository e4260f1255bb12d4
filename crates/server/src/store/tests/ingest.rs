//! The ingest on a real store: what an answer promises, and what happens while the store is away.

use std::time::Duration;

use super::{BASE, CANARY, STABLE, World, at, completed, contact, hash, response, rollout};
use crate::ingest::{BATCH, Ingest, MOST_WAITING_FACTS, ReportError};
use crate::signal::{SignalSender, queue};
use crate::store::{Receipt, Store};

fn ingest(store: &Store, capacity: usize) -> (SignalSender, Ingest) {
    let (signals, receiver) = queue(capacity);
    (signals, Ingest::spawn(store.clone(), receiver))
}

#[tokio::test]
async fn after_a_barrier_everything_before_it_is_durable() {
    let world = World::with_rollout().await;
    let (signals, ingest) = ingest(&world.store, 4 * BATCH);
    let keys = BATCH + 500;
    for n in 0..keys {
        let key = format!("session-{n}");
        assert!(signals.contact(contact(&key, CANARY, at(100))));
        assert!(signals.fact(response(&key, CANARY, &format!("r{n}"), at(100))));
    }
    assert!(signals.barrier().await);
    let other = world.other_process().await;
    let keys = u64::try_from(keys).unwrap();
    assert_eq!(other.assigned(&rollout()).await.unwrap(), [(CANARY, keys)]);
    assert_eq!(other.tally_total(&rollout()).await.unwrap().canary.requests, keys);
    assert_eq!(ingest.counts().written(), keys);
    assert_eq!(ingest.counts().waiting(), 0);
    assert!(ingest.counts().batches() < 100, "{} signals take few transactions", 2 * keys);
    ingest.shutdown().await;
    assert!(!signals.barrier().await, "nobody answers once the ingest is gone");
}

#[tokio::test]
async fn a_report_is_durable_and_counts_each_fact_once() {
    let world = World::with_rollout().await;
    let (signals, ingest) = ingest(&world.store, 100);
    let reporter = ingest.reporter();
    let told = vec![completed("anna", CANARY, "o1", at(100)), completed("anna", CANARY, "o1", at(100))];
    let (first, second) =
        tokio::join!(reporter.report(told), reporter.report(vec![completed("bert", STABLE, "o2", at(100))]));
    assert_eq!(first, Ok(vec![Receipt::Accepted, Receipt::Duplicate]));
    assert_eq!(second, Ok(vec![Receipt::Accepted]));
    assert_eq!(
        reporter.report(vec![completed("anna", CANARY, "o1", at(100))]).await,
        Ok(vec![Receipt::Duplicate])
    );
    assert_eq!(reporter.report(vec![]).await, Ok(vec![]));
    assert_eq!((ingest.counts().written(), ingest.counts().duplicates()), (2, 2));
    ingest.shutdown().await;
    drop(signals);
    let late = reporter.report(vec![completed("anna", CANARY, "o3", at(100))]).await;
    assert_eq!(late, Err(ReportError::Stopping));
}

#[tokio::test]
async fn what_is_told_while_the_store_is_away_is_written_when_it_returns() {
    let world = World::with_rollout().await;
    let (signals, ingest) = ingest(&world.other_process().await, 100);
    // Somebody else holds the write lock, and the ingest gives up after a moment.
    let lock = world.store.db.begin().await.unwrap();
    signals.contact(contact("anna", CANARY, at(100)));
    signals.fact(response("anna", CANARY, "r1", at(100)));
    let refused = ingest.reporter().report(vec![completed("anna", CANARY, "o1", at(100))]).await;
    assert!(matches!(refused, Err(ReportError::Store(_))), "{refused:?}");
    assert!(ingest.counts().failures() > 0);

    let barrier = signals.clone();
    let barrier = tokio::spawn(async move { barrier.barrier().await });
    drop(lock);
    assert!(tokio::time::timeout(Duration::from_secs(30), barrier).await.unwrap().unwrap());
    assert_eq!(world.store.attribution(hash("anna")).await.unwrap(), Some(CANARY));
    let total = world.store.tally_total(&rollout()).await.unwrap().canary;
    assert_eq!((total.sessions, total.requests), (1, 1));
    assert!(total.signals.keys().all(|signal| *signal != serin_core::metric::Signal::Completion));
    assert_eq!(ingest.counts().dropped(), 0);
    ingest.shutdown().await;
}

#[tokio::test]
async fn beyond_the_limit_the_oldest_facts_are_dropped_and_no_contact() {
    let world = World::with_rollout().await;
    let (signals, ingest) = ingest(&world.other_process().await, MOST_WAITING_FACTS * 2);
    let lock = world.store.db.begin().await.unwrap();
    let refused = ingest.reporter().report(vec![completed("anna", BASE, "o1", at(100))]).await;
    assert!(matches!(refused, Err(ReportError::Store(_))), "{refused:?}");
    signals.contact(contact("anna", BASE, at(100)));
    let excess = 10;
    for n in 0..MOST_WAITING_FACTS + excess {
        assert!(signals.fact(completed("anna", BASE, &format!("o{n}"), at(100))));
    }
    // The store stays away until the ingest has taken in everything.
    while ingest.counts().dropped() < excess as u64 {
        tokio::task::yield_now().await;
    }
    drop(lock);
    assert!(signals.barrier().await);
    assert_eq!(ingest.counts().dropped(), excess as u64);
    assert_eq!(ingest.counts().written(), MOST_WAITING_FACTS as u64);
    assert_eq!(ingest.counts().contacts(), 1);
    let newest = completed("anna", BASE, &format!("o{}", MOST_WAITING_FACTS + excess - 1), at(100));
    assert_eq!(world.see(vec![newest]).await, [Receipt::Duplicate]);
    assert_eq!(world.see(vec![completed("anna", BASE, "o0", at(100))]).await, [Receipt::Accepted]);
    ingest.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_writes_what_was_told() {
    let world = World::with_rollout().await;
    let (signals, ingest) = ingest(&world.store, 100);
    signals.contact(contact("anna", CANARY, at(100)));
    signals.fact(response("anna", CANARY, "r1", at(100)));
    ingest.shutdown().await;
    let total = world.store.tally_total(&rollout()).await.unwrap().canary;
    assert_eq!((total.sessions, total.requests), (1, 1));
}
