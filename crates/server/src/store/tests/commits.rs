//! Transitions: compare-and-set, all or nothing, and the audit chain.

use serin_core::audit::{Action, AuditFact, BrokenChain, ChainHash};
use serin_core::command::{Command, Order, command};
use serin_core::ids::Actor;
use serin_core::pack::Transition;

use super::{World, at, manifest, on_sqlite, pack, plan, rollout, stored_version, version};
use crate::store::db::args;
use crate::store::{AuditFilter, Commit, CommitError, RolloutFilter, StoreError, VerifyError};

on_sqlite! { with_rollout:
    what_is_committed_reads_back as sqlite_what_is_committed_reads_back,
    two_controllers_on_one_store_one_writer_wins_and_no_event_twice as sqlite_two_controllers_one_writer_wins,
    a_conflict_changes_nothing as sqlite_a_conflict_changes_nothing,
    a_failure_in_the_middle_changes_nothing as sqlite_a_failure_in_the_middle_changes_nothing,
    a_superseded_rollout_is_stored_beside_the_new_one as sqlite_a_superseded_rollout_is_stored,
    a_rollout_keeps_the_manifest_it_started_with as sqlite_a_rollout_keeps_its_manifest,
    checks_are_kept_with_their_number as sqlite_checks_are_kept_with_their_number,
    the_audit_chain_verifies_until_somebody_changes_it as sqlite_the_audit_chain_verifies,
    audit_entries_are_found_by_pack_and_rollout as sqlite_audit_entries_are_found,
}

on_sqlite! { empty:
    the_first_version_is_inserted_once as sqlite_the_first_version_is_inserted_once,
}

async fn order(world: &World, what: Command, second: i64) -> Transition {
    let actor = Actor::named("ada");
    let order = Order { actor: &actor, reason: "look at it", salt: "other", now: at(second) };
    command(&world.state().await, &plan("2.0.0"), what, order).unwrap()
}

async fn what_is_committed_reads_back(world: World) {
    let first = world.decide("3.0.0", at(120)).await;
    let version_3 = stored_version("3.0.0", at(120));
    let entries =
        world.store.commit(&first, Commit { version: Some(&version_3), ..Commit::default() }).await.unwrap();
    assert_eq!(entries.len(), first.facts.len());
    assert_eq!(world.state().await, first.pack);

    let stored = world.store.packs().await.unwrap();
    assert_eq!(stored.len(), 1);
    for cohort in &first.cohorts {
        assert_eq!(stored[0].cohorts[cohort.id.0 as usize], *cohort);
        assert_eq!(world.store.cohort(&pack(), cohort.id).await.unwrap().as_deref(), Some(cohort));
    }
    let versions = world.store.versions(&pack()).await.unwrap();
    let texts: Vec<String> = versions.iter().map(|stored| stored.version.to_string()).collect();
    assert_eq!(texts, ["3.0.0", "2.0.0", "1.0.0"]);
    assert_eq!(versions[0], version_3);
    assert_eq!(world.store.version(&pack(), &version("3.0.0")).await.unwrap().as_ref(), Some(&versions[0]));
    assert_eq!(world.store.version(&pack(), &version("9.0.0")).await.unwrap(), None);
}

async fn the_first_version_is_inserted_once(world: World) {
    let first = world.decide("1.0.0", at(0)).await;
    let version = stored_version("1.0.0", at(0));
    let with = Commit { version: Some(&version), ..Commit::default() };
    world.store.commit(&first, with).await.unwrap();
    let refused = world.store.commit(&first, with).await;
    assert!(matches!(refused, Err(CommitError::Conflict)), "{refused:?}");
    assert_eq!(world.store.audit(&AuditFilter::default()).await.unwrap().len(), first.facts.len());
}

async fn two_controllers_on_one_store_one_writer_wins_and_no_event_twice(world: World) {
    let other = world.other_process().await;
    let before = world.store.audit_tail().await.unwrap().0;
    let pause = order(&world, Command::Pause, 120).await;
    let rollback = order(&world, Command::Rollback, 120).await;
    let (here, there) = tokio::join!(
        world.store.commit(&pause, Commit::default()),
        other.commit(&rollback, Commit::default())
    );
    let conflicts =
        [&here, &there].iter().filter(|result| matches!(result, Err(CommitError::Conflict))).count();
    assert_eq!(conflicts, 1, "{here:?} {there:?}");
    let (winner, entries) =
        if let Ok(entries) = here { (pause, entries) } else { (rollback, there.unwrap()) };

    assert_eq!(world.state().await, winner.pack);
    assert_eq!(other.pack(&pack()).await.unwrap().unwrap().state, winner.pack);
    let filter = AuditFilter { after: before, ..AuditFilter::default() };
    assert_eq!(world.store.audit(&filter).await.unwrap(), entries);
    assert_eq!(entries.len(), winner.facts.len());
    assert_eq!(world.store.verify_audit(None).await.unwrap().seq, before + entries.len() as u64);
}

async fn a_conflict_changes_nothing(world: World) {
    let late = world.decide("3.0.0", at(180)).await;
    world.store.commit(&order(&world, Command::Pause, 120).await, Commit::default()).await.unwrap();
    let (state, tail) = (world.state().await, world.store.audit_tail().await.unwrap());

    let version_3 = stored_version("3.0.0", at(180));
    let refused = world.store.commit(&late, Commit { version: Some(&version_3), ..Commit::default() }).await;
    assert!(matches!(refused, Err(CommitError::Conflict)), "{refused:?}");
    assert_eq!(world.state().await, state);
    assert_eq!(world.store.audit_tail().await.unwrap(), tail);
    assert_eq!(world.store.version(&pack(), &version("3.0.0")).await.unwrap(), None);
    assert_eq!(world.store.rollouts(&RolloutFilter::default()).await.unwrap().len(), 1);
    assert_eq!(world.store.cohort(&pack(), late.cohorts[0].id).await.unwrap(), None);
}

async fn a_failure_in_the_middle_changes_nothing(world: World) {
    // The rollout's manifest is nowhere to be found: the version that it needs was never published.
    let (state, tail) = (world.state().await, world.store.audit_tail().await.unwrap());
    let transition = world.decide("3.0.0", at(120)).await;
    let failed = world.store.commit(&transition, Commit::default()).await;
    assert!(matches!(failed, Err(CommitError::Store(StoreError::Missing { .. }))), "{failed:?}");
    assert_eq!(world.state().await, state);
    assert_eq!(world.store.audit_tail().await.unwrap(), tail);
}

async fn a_superseded_rollout_is_stored_beside_the_new_one(world: World) {
    world.apply("3.0.0", at(120)).await;
    let rollouts = world.store.rollouts(&RolloutFilter::default()).await.unwrap();
    let shown: Vec<(String, bool)> = rollouts
        .iter()
        .map(|stored| (stored.rollout.canary.to_string(), stored.rollout.active().is_some()))
        .collect();
    assert_eq!(shown, [("3.0.0".to_owned(), true), ("2.0.0".to_owned(), false)]);

    let listed = |active, limit| RolloutFilter { pack: Some(pack()), active, limit };
    assert_eq!(world.store.rollouts(&listed(Some(false), None)).await.unwrap(), rollouts[1..]);
    assert_eq!(world.store.rollouts(&listed(None, Some(1))).await.unwrap(), rollouts[..1]);
    let stranger = serin_core::ids::PackName::parse("other").unwrap();
    let filter = RolloutFilter { pack: Some(stranger), ..RolloutFilter::default() };
    assert_eq!(world.store.rollouts(&filter).await.unwrap(), []);
}

async fn a_rollout_keeps_the_manifest_it_started_with(world: World) {
    let fact = AuditFact {
        at: at(120),
        rollout: None,
        revision: 2,
        actor: Actor::named("ada"),
        action: Action::PlanReplaced,
        reason: "slower".to_owned(),
        evidence: serde_json::json!({}),
    };
    let kept = world
        .store
        .replace_plan(&pack(), &version("2.0.0"), "slower", "other", std::slice::from_ref(&fact))
        .await
        .unwrap();
    assert_eq!(kept[0].action, "plan_replaced");
    let stored = world.store.version(&pack(), &version("2.0.0")).await.unwrap().unwrap();
    assert_eq!((stored.manifest.as_str(), stored.plan_digest.as_str()), ("slower", "other"));
    assert_eq!(world.store.rollout(&rollout()).await.unwrap().unwrap().manifest, manifest("2.0.0"));

    let tail = world.store.audit_tail().await.unwrap();
    let missing = world
        .store
        .replace_plan(&pack(), &version("9.0.0"), "slower", "other", std::slice::from_ref(&fact))
        .await;
    assert!(matches!(missing, Err(StoreError::Missing { .. })), "{missing:?}");
    assert_eq!(world.store.audit_tail().await.unwrap(), tail);
}

async fn checks_are_kept_with_their_number(world: World) {
    for minute in 1..=3 {
        let evidence = serin_core::analysis::Evidence::default();
        let now = at(60 + minute * 60);
        match serin_core::tick::tick(&world.state().await, &plan("2.0.0"), &evidence, now) {
            serin_core::tick::Tick::Transition(transition) => {
                assert!(transition.check.is_some());
                world.store.commit(&transition, Commit::default()).await.unwrap();
            }
            idle @ serin_core::tick::Tick::Idle { .. } => panic!("{idle:?}"),
        }
    }
    let checks = world.store.checks(&rollout(), 2).await.unwrap();
    assert_eq!(
        checks.iter().map(|check| (check.number, check.at)).collect::<Vec<_>>(),
        [(3, at(240)), (2, at(180))]
    );
}

async fn the_audit_chain_verifies_until_somebody_changes_it(world: World) {
    let count = world.store.verify_audit(None).await.unwrap().seq;
    assert!(count >= 4, "two applied versions leave at least four entries, not {count}");
    let store = &world.store;
    let tamper = |sql: &'static str| async move {
        let mut tx = store.db.begin().await.unwrap();
        tx.execute(sql, args![]).await.unwrap();
        tx.commit().await.unwrap();
        match store.verify_audit(None).await {
            Err(VerifyError::Broken(broken)) => broken,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(tamper("UPDATE audit SET hash = 'ff' WHERE seq = 4").await, BrokenChain::Changed(4));
    assert_eq!(
        tamper("UPDATE audit SET reason = 'a better one' WHERE seq = 3").await,
        BrokenChain::Changed(3)
    );
    let missing = BrokenChain::Missing { expected: 2, found: 3 };
    assert_eq!(tamper("DELETE FROM audit WHERE seq = 2").await, missing);
}

async fn audit_entries_are_found_by_pack_and_rollout(world: World) {
    let all = world.store.audit(&AuditFilter::default()).await.unwrap();
    assert_eq!(all[0].prev, ChainHash::GENESIS);
    assert_eq!(world.store.audit_tail().await.unwrap(), (all.len() as u64, all[all.len() - 1].hash));
    let of_rollout = AuditFilter { rollout: Some(rollout()), ..AuditFilter::default() };
    let found = world.store.audit(&of_rollout).await.unwrap();
    assert!(!found.is_empty() && found.iter().all(|entry| entry.rollout.as_deref() == Some("support-r1")));
    let page = AuditFilter { pack: Some(pack()), after: 1, limit: Some(2), ..AuditFilter::default() };
    assert_eq!(world.store.audit(&page).await.unwrap(), all[1..3]);
}
