//! Each session is folded once at each age.

use std::collections::BTreeMap;

use serin_core::aggregate::Counters;
use serin_core::routing::{CohortId, Variant};
use serin_core::units::{HoldFor, Timestamp};

use super::{CANARY, STABLE, World, at, completed, hash, on_sqlite, pack, response, rollout};
use crate::store::{Folded, Unit};

on_sqlite! { with_rollout:
    a_session_is_folded_exactly_once as sqlite_a_session_is_folded_exactly_once,
    a_lost_race_changes_nothing as sqlite_a_lost_race_changes_nothing,
    sessions_mature_in_the_order_of_their_assignment as sqlite_sessions_mature_in_order,
    a_session_shows_what_its_own_cohort_saw as sqlite_a_session_shows_what_its_own_cohort_saw,
}

fn sessions(cohort: CohortId, sessions: u64) -> BTreeMap<CohortId, Counters> {
    BTreeMap::from([(cohort, Counters { sessions, ..Counters::default() })])
}

fn unit(key: &str, assigned_at: Timestamp) -> Unit {
    Unit { hash: hash(key), cohort: CANARY, assigned_at }
}

async fn counted(world: &World) -> Vec<(CohortId, u64)> {
    let evidence = world.store.evidence(&rollout()).await.unwrap();
    evidence.into_iter().map(|(cohort, counters)| (cohort, counters.sessions)).collect()
}

async fn a_session_is_folded_exactly_once(world: World) {
    for key in ["anna", "bert"] {
        world.contact(key, CANARY, at(100)).await;
    }
    let both = [unit("anna", at(100)), unit("bert", at(100))];
    let other = world.other_process().await;
    let additions = sessions(CANARY, 2);
    let rollout_1 = rollout();
    let (here, there) = tokio::join!(
        world.store.fold(&rollout_1, &both, 0, &additions),
        other.fold(&rollout_1, &both, 0, &additions),
    );
    let mut outcomes = [here.unwrap(), there.unwrap()];
    outcomes.sort_by_key(|outcome| *outcome == Folded::LostRace);
    assert_eq!(outcomes, [Folded::Done, Folded::LostRace]);
    assert_eq!(counted(&world).await, [(CANARY, 2)]);
    assert_eq!(world.store.matured(&rollout(), 0, at(900), 10).await.unwrap(), []);

    // At its next age it adds what matures there.
    assert_eq!(world.store.matured(&rollout(), 1, at(900), 10).await.unwrap().len(), 2);
    let next = world.store.fold(&rollout(), &both[..1], 1, &sessions(CANARY, 1)).await.unwrap();
    assert_eq!(next, Folded::Done);
    assert_eq!(counted(&world).await, [(CANARY, 3)]);
    assert_eq!(world.store.assigned(&rollout()).await.unwrap(), [(CANARY, 2)]);
}

async fn a_lost_race_changes_nothing(world: World) {
    world.contact("anna", CANARY, at(100)).await;
    let with_stranger = [unit("anna", at(100)), unit("nobody", at(100))];
    let lost = world.store.fold(&rollout(), &with_stranger, 0, &sessions(CANARY, 2)).await.unwrap();
    assert_eq!(lost, Folded::LostRace);
    assert_eq!(counted(&world).await, [(CANARY, 0)]);
    assert_eq!(world.store.matured(&rollout(), 0, at(900), 10).await.unwrap().len(), 1);
}

async fn sessions_mature_in_the_order_of_their_assignment(world: World) {
    for (key, second) in [("anna", 300), ("bert", 100), ("carl", 200)] {
        world.contact(key, STABLE, at(second)).await;
    }
    let matured = |until, limit| {
        let store = &world.store;
        async move {
            let units = store.matured(&rollout(), 0, at(until), limit).await.unwrap();
            units.into_iter().map(|unit| unit.hash).collect::<Vec<_>>()
        }
    };
    assert_eq!(matured(200, 10).await, [hash("bert"), hash("carl")]);
    assert_eq!(matured(900, 1).await, [hash("bert")]);
    assert_eq!(matured(99, 10).await, []);
}

async fn a_session_shows_what_its_own_cohort_saw(world: World) {
    world.contact("anna", CANARY, at(100)).await;
    world
        .see(vec![
            // The request that makes the assignment starts before it.
            response("anna", CANARY, "first", at(99)),
            completed("anna", CANARY, "outcome", at(130)),
            response("anna", CANARY, "too late", at(161)),
            // The key came back under another cohort.
            response("anna", STABLE, "other", at(120)),
        ])
        .await;
    let units = world.store.matured(&rollout(), 0, at(100), 10).await.unwrap();
    let facts = world.store.session_facts(&pack(), &units, HoldFor::from_mins(1)).await.unwrap();
    assert_eq!((facts.len(), facts[0].variant, facts[0].assigned_at), (1, Variant::Canary, at(100)));
    let seen: Vec<_> = facts[0].observations.iter().map(|seen| (seen.at, seen.request.as_deref())).collect();
    assert_eq!(seen, [(at(99), Some("first")), (at(130), None)]);
}
