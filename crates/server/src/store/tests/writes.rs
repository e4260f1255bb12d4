//! Contacts, facts and pins.

use std::collections::BTreeMap;

use serin_core::analysis::Sides;
use serin_core::routing::{CohortId, Pin, Variant, seconds};
use serin_core::units::HoldFor;

use super::{
    BASE, CANARY, STABLE, World, at, completed, contact, hash, on_sqlite, pack, response, rollout, started,
    version,
};
use crate::signal::Contact;
use crate::store::db::args;
use crate::store::{Batch, Exposure, Receipt, Touch};

on_sqlite! { with_rollout:
    a_returning_key_counts_once as sqlite_a_returning_key_counts_once,
    within_a_batch_a_key_counts_where_it_was_first as sqlite_within_a_batch_a_key_counts_where_it_was_first,
    a_session_that_leaves_its_rollout_and_returns_to_it_counts_once as sqlite_a_session_that_returns_counts_once,
    a_session_without_a_rollout_is_no_unit as sqlite_a_session_without_a_rollout_is_no_unit,
    the_same_fact_counts_once as sqlite_the_same_fact_counts_once,
    the_end_of_a_request_replaces_its_start as sqlite_the_end_of_a_request_replaces_its_start,
    pins_are_told_as_they_were_made as sqlite_pins_are_told_as_they_were_made,
    a_session_that_was_seen_again_stays_alive as sqlite_a_session_that_was_seen_again_stays_alive,
    a_late_outcome_counts_for_what_the_session_was_exposed_to as sqlite_a_late_outcome_is_attributed,
    an_unknown_cohort_belongs_to_no_rollout as sqlite_an_unknown_cohort_belongs_to_no_rollout,
    what_was_seen_adds_up_by_variant as sqlite_what_was_seen_adds_up_by_variant,
    old_slots_are_joined_and_lose_nothing as sqlite_old_slots_are_joined_and_lose_nothing,
    what_is_old_is_forgotten_and_the_rest_stays as sqlite_what_is_old_is_forgotten,
    a_rate_counts_new_sessions_only as sqlite_a_rate_counts_new_sessions_only,
    a_baseline_reads_sessions_of_the_version_alone as sqlite_a_baseline_reads_sessions_of_the_version,
}

async fn pins(world: &World, since: i64) -> BTreeMap<serin_core::ids::SessionHash, Pin> {
    let mut pins = BTreeMap::new();
    let told =
        world.store.pins(at(since), &mut |hash, pin| assert_eq!(pins.insert(hash, pin), None)).await.unwrap();
    assert_eq!(told, pins.len() as u64);
    pins
}

async fn a_returning_key_counts_once(world: World) {
    assert_eq!(world.contact("anna", STABLE, at(100)).await, 1);
    assert_eq!(world.contact("anna", CANARY, at(9_000)).await, 0);
    assert_eq!(world.contact("bert", CANARY, at(9_000)).await, 1);
    assert_eq!(world.store.assigned(&rollout()).await.unwrap(), [(STABLE, 1), (CANARY, 1)]);
    // The pin is the new one all the same, and the evidence stays where it was.
    assert_eq!(world.store.attribution(hash("anna")).await.unwrap(), Some(CANARY));
    let units = world.store.matured(&rollout(), 0, at(9_000), 10).await.unwrap();
    assert_eq!(
        units.iter().map(|unit| (unit.hash, unit.cohort)).collect::<Vec<_>>(),
        [(hash("anna"), STABLE), (hash("bert"), CANARY)]
    );
    assert_eq!(world.store.exposure(&rollout()).await.unwrap(), Exposure { sessions: 1, requests: 0 });
}

async fn within_a_batch_a_key_counts_where_it_was_first(world: World) {
    let write = async |contacts| world.store.write(&Batch { contacts, ..Batch::default() }).await.unwrap();
    let contacts = vec![
        contact("anna", BASE, at(90)),
        contact("anna", STABLE, at(100)),
        contact("anna", CANARY, at(101)),
        contact("bert", CANARY, at(102)),
    ];
    assert_eq!(write(contacts).await.units, 2);
    assert_eq!(world.store.assigned(&rollout()).await.unwrap(), [(STABLE, 1), (CANARY, 1)]);
    assert_eq!(world.store.attribution(hash("anna")).await.unwrap(), Some(CANARY));
    let sessions =
        |slots: &[crate::store::StoredTally]| slots.iter().map(|slot| slot.tally.sessions).sum::<u64>();
    let outside = world.store.tallies_without_rollout(&pack(), at(0), at(900)).await.unwrap();
    let inside = world.store.tallies(&rollout(), None, None).await.unwrap();
    assert_eq!((sessions(&outside), sessions(&inside)), (1, 2));
    // News and repeats together: each is told apart.
    let contacts = vec![contact("anna", CANARY, at(200)), contact("carl", STABLE, at(201))];
    assert_eq!(write(contacts).await.units, 1);
    assert_eq!(world.store.assigned(&rollout()).await.unwrap(), [(STABLE, 2), (CANARY, 1)]);
}

async fn a_session_that_leaves_its_rollout_and_returns_to_it_counts_once(world: World) {
    assert_eq!(world.contact("anna", CANARY, at(100)).await, 1);
    assert_eq!(world.contact("anna", BASE, at(200)).await, 0);
    assert_eq!(world.contact("anna", CANARY, at(300)).await, 0);
    assert_eq!(world.store.assigned(&rollout()).await.unwrap(), [(CANARY, 1)]);
}

async fn a_rate_counts_new_sessions_only(world: World) {
    let rate = async |now| world.store.session_rate(&pack(), at(now)).await.unwrap();
    for n in 0..9_i64 {
        world.contact(&format!("early-{n}"), STABLE, at(100 * n)).await;
    }
    assert_eq!(rate(900).await, None, "nine sessions say nothing");
    // One more, and the pack is as old as its first session.
    world.contact("early-9", STABLE, at(900)).await;
    assert_eq!(rate(1_000).await, Some(10.0 / 1_000.0));
    for n in 0..36_i64 {
        world.contact(&format!("late-{n}"), CANARY, at(50_000 + 100 * n)).await;
    }
    assert_eq!(rate(53_599).await, Some(36.0 / 3_600.0), "the last hour, once it has enough");
    let of_the_day = rate(80_000).await.unwrap();
    assert!((of_the_day - 46.0 / 80_000.0).abs() < 1e-12, "{of_the_day}");
    assert_eq!(rate(1_000_000).await, None, "a day without sessions");
}

async fn a_session_without_a_rollout_is_no_unit(world: World) {
    assert_eq!(world.contact("anna", BASE, at(10)).await, 0);
    assert_eq!(world.store.assigned(&rollout()).await.unwrap(), []);
    let seen = world.store.tallies_without_rollout(&pack(), at(0), at(60)).await.unwrap();
    assert_eq!(seen.iter().map(|slot| (slot.at, slot.tally.sessions)).collect::<Vec<_>>(), [(at(10), 1)]);
}

async fn the_same_fact_counts_once(world: World) {
    let first = world.see(vec![
        response("anna", CANARY, "r1", at(100)),
        completed("anna", CANARY, "o1", at(110)),
        response("anna", CANARY, "r1", at(100)),
    ]);
    assert_eq!(first.await, [Receipt::Accepted, Receipt::Accepted, Receipt::Duplicate]);
    let again =
        world.see(vec![completed("anna", CANARY, "o1", at(110)), response("bert", CANARY, "r1", at(120))]);
    assert_eq!(again.await, [Receipt::Duplicate, Receipt::Duplicate]);
    assert_eq!(world.store.tally_total(&rollout()).await.unwrap().canary.requests, 1);
}

async fn the_end_of_a_request_replaces_its_start(world: World) {
    world.contact("anna", CANARY, at(100)).await;
    let seen = world.see(vec![started("anna", CANARY, "r1", at(100))]).await;
    assert_eq!(seen, [Receipt::Accepted]);
    let seen = world
        .see(vec![response("anna", CANARY, "r1", at(100)), started("anna", CANARY, "r1", at(100))])
        .await;
    assert_eq!(seen, [Receipt::Accepted, Receipt::Duplicate]);

    let units = world.store.matured(&rollout(), 0, at(100), 1).await.unwrap();
    let facts = world.store.session_facts(&pack(), &units, HoldFor::from_mins(1)).await.unwrap();
    let [observation] = &facts[0].observations[..] else { panic!("{facts:?}") };
    assert_eq!(observation.request.as_deref(), Some("r1"));
    assert_eq!(observation.fact, response("anna", CANARY, "r1", at(100)).fact);
    assert_eq!((observation.at, observation.until), (at(100), HoldFor::from_millis(250).after(at(100))));
}

async fn pins_are_told_as_they_were_made(world: World) {
    let own = Contact { pinned: false, ..contact("keyless", CANARY, at(300)) };
    let contacts = vec![contact("anna", STABLE, at(100)), contact("bert", CANARY, at(200)), own];
    world.store.write(&Batch { contacts, ..Batch::default() }).await.unwrap();
    let pin = |cohort: CohortId, second| Pin::new(cohort, at(second));
    let all = BTreeMap::from([(hash("anna"), pin(STABLE, 100)), (hash("bert"), pin(CANARY, 200))]);
    assert_eq!(pins(&world, 0).await, all);
    assert_eq!(pins(&world, 150).await.keys().copied().collect::<Vec<_>>(), [hash("bert")]);

    let session = world.store.session(hash("anna")).await.unwrap().unwrap();
    assert_eq!((session.pack, session.key.as_str(), session.cohort), (pack(), "anna", STABLE));
    assert_eq!(world.store.session(hash("nobody")).await.unwrap(), None);
    // A contact that comes late does not undo a newer one.
    world.contact("bert", STABLE, at(150)).await;
    assert_eq!(pins(&world, 0).await, all);
}

async fn a_session_that_was_seen_again_stays_alive(world: World) {
    world.contact("anna", STABLE, at(100)).await;
    // Facts are no touches: the sweep tells who was seen.
    world
        .see(vec![response("anna", STABLE, "r1", at(900)), completed("anna", STABLE, "o1", at(5_000))])
        .await;
    assert_eq!(pins(&world, 0).await[&hash("anna")].last_seen, seconds(at(100)));
    let touches =
        vec![Touch { hash: hash("anna"), at: at(1_200) }, Touch { hash: hash("anna"), at: at(700) }];
    world.store.write(&Batch { touches, ..Batch::default() }).await.unwrap();
    let pin = pins(&world, 0).await[&hash("anna")];
    assert_eq!((pin.pinned_at, pin.last_seen), (seconds(at(100)), seconds(at(1_200))));
}

async fn a_late_outcome_counts_for_what_the_session_was_exposed_to(world: World) {
    world.contact("anna", CANARY, at(100)).await;
    assert_eq!(world.store.attribution(hash("anna")).await.unwrap(), Some(CANARY));
    assert_eq!(world.store.attribution(hash("nobody")).await.unwrap(), None);
}

async fn an_unknown_cohort_belongs_to_no_rollout(world: World) {
    // A rollback that took effect while the store was away has opened it.
    let ahead = CohortId(77);
    assert_eq!(world.contact("anna", ahead, at(100)).await, 0);
    assert_eq!(world.see(vec![response("anna", ahead, "r1", at(100))]).await, [Receipt::Accepted]);
    assert_eq!(world.store.attribution(hash("anna")).await.unwrap(), Some(ahead));
    assert_eq!(world.store.tally_total(&rollout()).await.unwrap(), Sides::default());
}

async fn what_was_seen_adds_up_by_variant(world: World) {
    world.contact("anna", CANARY, at(100)).await;
    world.contact("bert", STABLE, at(101)).await;
    world.see(vec![response("anna", CANARY, "r1", at(101)), response("bert", STABLE, "r2", at(101))]).await;
    world.see(vec![response("anna", CANARY, "r3", at(108)), completed("anna", CANARY, "o1", at(108))]).await;

    let slots = world.store.tallies(&rollout(), None, None).await.unwrap();
    let shown: Vec<_> = slots.iter().map(|s| (s.at, s.variant, s.tally.sessions, s.tally.requests)).collect();
    let (canary, stable) = (Variant::Canary, Variant::Stable);
    assert_eq!(shown, [(at(100), canary, 1, 1), (at(100), stable, 1, 1), (at(105), canary, 0, 1)]);
    let late = world.store.tallies(&rollout(), Some(at(107)), Some(at(200))).await.unwrap();
    assert_eq!(late, slots[2..], "the slot that holds the beginning is part of the range");
    assert_eq!(world.store.tallies(&rollout(), None, Some(at(100))).await.unwrap(), []);

    let mut sum = Sides::default();
    for slot in &slots {
        let side: &mut serin_core::aggregate::Tally = sum.of_mut(slot.variant);
        side.merge(&slot.tally);
    }
    assert_eq!(world.store.tally_total(&rollout()).await.unwrap(), sum);
    assert_eq!(world.store.exposure(&rollout()).await.unwrap(), Exposure { sessions: 1, requests: 2 });
}

async fn old_slots_are_joined_and_lose_nothing(world: World) {
    for (n, second) in [120, 130, 170, 190, 4_000].into_iter().enumerate() {
        world.see(vec![response("anna", CANARY, &format!("r{n}"), at(second))]).await;
    }
    let retention = HoldFor::from_hours(24 * 7);
    let hour_later = HoldFor::from_hours(1).after(at(240));
    assert_eq!(world.store.expire(hour_later, retention).await.unwrap().slots, 3);
    let counts = |slots: &[crate::store::StoredTally]| -> Vec<_> {
        slots.iter().map(|slot| (slot.at, slot.tally.requests)).collect()
    };
    let slots = world.store.tallies(&rollout(), None, None).await.unwrap();
    assert_eq!(counts(&slots), [(at(120), 3), (at(190), 1), (at(4_000), 1)]);
    assert_eq!(
        world.store.expire(hour_later, retention).await.unwrap().slots,
        0,
        "joined slots stay as they are"
    );

    let days_later = HoldFor::from_hours(24 * 8).after(at(0));
    world.store.expire(days_later, retention).await.unwrap();
    let slots = world.store.tallies(&rollout(), None, None).await.unwrap();
    assert_eq!(slots.iter().map(|slot| slot.tally.requests).collect::<Vec<_>>(), [4, 1]);
    assert_eq!(world.store.tally_total(&rollout()).await.unwrap().canary.requests, 5);
}

async fn what_is_old_is_forgotten_and_the_rest_stays(world: World) {
    let rows =
        async || world.store.db.fetch("SELECT COUNT(*) FROM session", args![]).await.unwrap()[0].count(0);
    world.contact("anna", CANARY, at(100)).await;
    world.see(vec![response("anna", CANARY, "r1", at(100))]).await;
    world.contact("dora", CANARY, at(101)).await;
    world.contact("bert", CANARY, at(7_200)).await;
    world.see(vec![response("bert", CANARY, "r2", at(7_200))]).await;

    let retention = HoldFor::from_hours(1);
    let expired = world.store.expire(at(7_200), retention).await.unwrap();
    assert_eq!((expired.observations, expired.sessions), (1, 2));
    assert_eq!(expired.units, 0, "the rollout is under way and its keys still count once");
    assert_eq!(pins(&world, 0).await.keys().copied().collect::<Vec<_>>(), [hash("bert")]);
    assert_eq!(world.store.session(hash("anna")).await.unwrap(), None);
    let exposed = world.store.exposed_sessions(&pack(), &rollout(), None, 10).await.unwrap();
    assert_eq!(exposed.iter().map(|one| one.key.as_deref()).collect::<Vec<_>>(), [None, None, Some("bert")]);
    assert_eq!(world.store.expire(at(7_200), retention).await.unwrap().sessions, 0, "it is forgotten once");
    assert_eq!(world.contact("anna", CANARY, at(7_300)).await, 0);
    assert_eq!(world.store.session(hash("anna")).await.unwrap().unwrap().key.as_str(), "anna");

    world.apply("1.0.0", at(7_400)).await;
    let expired = world.store.expire(at(20_000), retention).await.unwrap();
    assert_eq!((expired.observations, expired.sessions, expired.units), (1, 2, 3));
    assert_eq!(world.store.assigned(&rollout()).await.unwrap(), [(CANARY, 3)], "what was counted stays");
    assert_eq!(rows().await.unwrap(), 0, "what has no name is gone with its unit");
    // However short the retention, a pin that may be live is kept.
    world.contact("carl", BASE, at(20_000)).await;
    world.store.expire(at(20_100), HoldFor::from_secs(1)).await.unwrap();
    assert_eq!(pins(&world, 0).await.len(), 1);
}

async fn a_baseline_reads_sessions_of_the_version_alone(world: World) {
    for (n, (key, cohort, second)) in
        [("anna", BASE, 10), ("bert", STABLE, 100), ("carl", CANARY, 100), ("dora", BASE, 40)]
            .into_iter()
            .enumerate()
    {
        world.contact(key, cohort, at(second)).await;
        world.see(vec![response(key, cohort, &format!("r{n}"), at(second))]).await;
    }
    let read = |from, to, limit| {
        let store = &world.store;
        async move {
            let sessions =
                store.baseline_sessions(&pack(), &version("1.0.0"), at(from), at(to), limit).await.unwrap();
            assert!(sessions.iter().all(|s| s.observations.len() == 1 && s.variant == Variant::Stable));
            sessions.into_iter().map(|session| session.assigned_at).collect::<Vec<_>>()
        }
    };
    assert_eq!(read(0, 1_000, 10).await, [at(100), at(40), at(10)]);
    assert_eq!(read(0, 1_000, 2).await, [at(100), at(40)]);
    assert_eq!(read(0, 40, 10).await, [at(10)]);
}
