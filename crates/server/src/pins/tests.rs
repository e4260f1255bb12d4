use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;

use jiff::Timestamp;
use proptest::prelude::*;
use serin_core::ids::SessionHash;
use serin_core::routing::{CohortId, Pin};

use super::table::{Key, Room, SEGMENT, Step, Table, capacity_for};
use super::{InsertOutcome, PinTable};

fn pin(cohort: u32, at: u32) -> Pin {
    Pin { cohort: CohortId(cohort), pinned_at: at, last_seen: at }
}

fn at(second: u32) -> Timestamp {
    Timestamp::from_second(i64::from(second)).expect("32 bits of seconds are a point in time")
}

/// Sessions that share halves of their hashes, so that threads also meet half way to a slot.
fn session(number: u32) -> SessionHash {
    SessionHash(u128::from(number / 64) << 64 | u128::from(number % 64))
}

fn shown(table: &PinTable) -> BTreeMap<SessionHash, Pin> {
    let mut pins = BTreeMap::new();
    table
        .iter(&mut |session, pin| assert_eq!(pins.insert(session, pin), None, "{session:?} was shown twice"));
    pins
}

/// Runs the same work on some threads at once, each with its number.
fn at_once(threads: u32, work: impl Fn(u32) + Sync) {
    let start = Barrier::new(threads as usize);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                work(thread);
            });
        }
    });
}

#[derive(Debug, Clone)]
enum Act {
    Insert { first: u32, count: u32, new: Pin },
    Replace { first: u32, count: u32, old: Pin, new: Pin },
    Touch { first: u32, count: u32, now: u32 },
    RemoveSeenBefore(u32),
    Maintain,
}

fn act() -> impl Strategy<Value = Act> {
    let sessions = || (0..12_000_u32, 1..3_000_u32);
    let any_pin = || (0..3_u32, 0..3_u32).prop_map(|(cohort, second)| pin(cohort, second));
    prop_oneof![
        4 => (sessions(), any_pin()).prop_map(|((first, count), new)| Act::Insert { first, count, new }),
        2 => (sessions(), any_pin(), any_pin())
            .prop_map(|((first, count), old, new)| Act::Replace { first, count, old, new }),
        1 => (sessions(), 0..6_u32).prop_map(|((first, count), now)| Act::Touch { first, count, now }),
        1 => (0..4_u32).prop_map(Act::RemoveSeenBefore),
        1 => Just(Act::Maintain),
    ]
}

const MODEL_LIMIT: usize = 10_000;

/// What an insert does, written down plainly.
fn model_insert(
    model: &mut BTreeMap<SessionHash, Pin>,
    session: SessionHash,
    replaces: Option<Pin>,
    new: Pin,
) -> InsertOutcome {
    match model.get(&session) {
        Some(present)
            if replaces.map(|old| (old.cohort, old.pinned_at))
                != Some((present.cohort, present.pinned_at)) =>
        {
            InsertOutcome::Existing(*present)
        }
        None if model.len() == MODEL_LIMIT => InsertOutcome::Full,
        None | Some(_) => {
            model.insert(session, new);
            InsertOutcome::Inserted
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_does_what_a_map_does(acts in prop::collection::vec(act(), 1..16)) {
        let table = PinTable::with_capacity_limit(MODEL_LIMIT);
        let mut model = BTreeMap::new();
        for act in acts {
            match act {
                Act::Insert { first, count, new } => for number in first..first + count {
                    let expected = model_insert(&mut model, session(number), None, new);
                    prop_assert_eq!(table.insert(session(number), None, new), expected);
                },
                Act::Replace { first, count, old, new } => for number in first..first + count {
                    let expected = model_insert(&mut model, session(number), Some(old), new);
                    prop_assert_eq!(table.insert(session(number), Some(old), new), expected);
                },
                Act::Touch { first, count, now } => for number in first..first + count {
                    table.touch(session(number), at(now));
                    model.entry(session(number)).and_modify(|pin| pin.last_seen = pin.last_seen.max(now));
                },
                Act::RemoveSeenBefore(second) => {
                    let before = model.len();
                    model.retain(|_, pin| pin.last_seen >= second);
                    let removed = table.remove_expired(&|_, pin| pin.last_seen < second);
                    prop_assert_eq!(removed, before - model.len());
                }
                Act::Maintain => table.maintain(),
            }
            prop_assert_eq!(table.len(), model.len());
        }
        for number in 0..15_000 {
            prop_assert_eq!(table.get(session(number)), model.get(&session(number)).copied());
        }
        prop_assert_eq!(shown(&table), model);
    }
}

#[test]
fn of_many_inserts_of_a_session_one_is_inserted_and_all_agree_on_it() {
    const SESSIONS: u32 = 20_000;
    const NOBODY: u32 = u32::MAX;
    let table = PinTable::with_capacity_limit(usize::MAX);
    let inserted = AtomicUsize::new(0);
    let winners: Vec<_> = (0..SESSIONS).map(|_| AtomicU32::new(NOBODY)).collect();
    at_once(4, |thread| {
        for number in 0..SESSIONS {
            let held = match table.insert(session(number), None, pin(thread, number)) {
                InsertOutcome::Inserted => {
                    inserted.fetch_add(1, Ordering::Relaxed);
                    pin(thread, number)
                }
                InsertOutcome::Existing(pin) => pin,
                InsertOutcome::Full => panic!("there is no limit here"),
            };
            assert_eq!(held.pinned_at, number);
            let told = winners[number as usize].swap(held.cohort.0, Ordering::AcqRel);
            assert!(
                told == NOBODY || told == held.cohort.0,
                "session {number}: {told} and {}",
                held.cohort.0
            );
        }
    });
    assert_eq!(inserted.into_inner(), SESSIONS as usize);
    assert_eq!(table.len(), SESSIONS as usize);
    assert_eq!(shown(&table).len(), SESSIONS as usize);
    for number in 0..SESSIONS {
        let held = table.get(session(number)).expect("it was inserted");
        assert_eq!(held.cohort.0, winners[number as usize].load(Ordering::Acquire));
    }
}

#[test]
fn live_pins_survive_growing_touching_sweeping_and_maintaining_at_once() {
    const PER_THREAD: u32 = 8_000;
    let table = PinTable::with_capacity_limit(usize::MAX);
    let still_going = AtomicUsize::new(3);
    at_once(5, |thread| match thread {
        // Every second session ends at once; it may be swept, the others must stay.
        0..3 => {
            for number in 0..PER_THREAD {
                let (live, ended) = (session(number * 6 + thread * 2), session(number * 6 + thread * 2 + 1));
                assert_eq!(table.insert(live, None, pin(7, 100)), InsertOutcome::Inserted);
                assert_eq!(table.insert(ended, None, pin(8, 100)), InsertOutcome::Inserted);
                table.touch(live, at(200));
                assert_eq!(table.get(live), Some(Pin { last_seen: 200, ..pin(7, 100) }));
                if number % 2 == 0 {
                    let later = Pin { last_seen: 200, ..pin(9, 200) };
                    assert_eq!(table.insert(live, Some(pin(7, 100)), later), InsertOutcome::Inserted);
                }
            }
            still_going.fetch_sub(1, Ordering::AcqRel);
        }
        3 => {
            while still_going.load(Ordering::Acquire) > 0 {
                table.remove_expired(&|_, pin| pin.cohort == CohortId(8));
            }
        }
        _ => {
            while still_going.load(Ordering::Acquire) > 0 {
                table.maintain();
                table.iter(&mut |_, pin| {
                    assert!([(7, 100), (8, 100), (9, 200)].contains(&(pin.cohort.0, pin.pinned_at)))
                });
            }
        }
    });
    table.remove_expired(&|_, pin| pin.cohort == CohortId(8));
    let pins = shown(&table);
    assert_eq!(pins.len(), 3 * PER_THREAD as usize);
    assert_eq!(table.len(), pins.len());
    for number in 0..3 * PER_THREAD {
        let held = table.get(session(number * 2)).expect("only sessions with odd numbers ended");
        assert_eq!(held.last_seen, 200);
        assert_eq!(table.get(session(number * 2 + 1)), None);
    }
}

#[test]
fn of_many_replacements_of_a_pin_one_succeeds() {
    const ROUNDS: u32 = 3_000;
    const SESSIONS: u32 = 5;
    let table = PinTable::with_capacity_limit(usize::MAX);
    for number in 0..SESSIONS {
        table.insert(session(number), None, pin(0, 0));
    }
    let succeeded = AtomicUsize::new(0);
    at_once(3, |thread| {
        for round in 0..ROUNDS {
            // New sessions beside them keep the table moving.
            table.insert(session(1_000 + round * 3 + thread), None, pin(0, 0));
            let chosen = session(round % SESSIONS);
            let Some(old) = table.get(chosen) else { continue };
            assert_eq!(old.cohort.0, old.pinned_at, "half of one pin and half of another");
            let next = pin(old.cohort.0 + 1, old.pinned_at + 1);
            match table.insert(chosen, Some(old), next) {
                InsertOutcome::Inserted => {
                    succeeded.fetch_add(1, Ordering::Relaxed);
                }
                InsertOutcome::Existing(present) => assert!(present.cohort > old.cohort),
                InsertOutcome::Full => panic!("there is no limit here"),
            }
        }
    });
    let steps: u32 =
        (0..SESSIONS).filter_map(|number| table.get(session(number))).map(|pin| pin.cohort.0).sum();
    assert_eq!(succeeded.into_inner(), steps as usize);
}

#[test]
fn pins_and_removals_are_counted_exactly_while_sessions_come_and_go() {
    let table = PinTable::with_capacity_limit(usize::MAX);
    let (inserted, removed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    at_once(4, |thread| {
        for round in 0..20_u32 {
            for number in 0..1_000 {
                // Half of the sessions are always the same, half are new.
                let number = if number % 2 == 0 { number } else { number + round * 1_000 };
                if table.insert(session(number), None, pin(thread, round)) == InsertOutcome::Inserted {
                    inserted.fetch_add(1, Ordering::Relaxed);
                }
            }
            removed.fetch_add(table.remove_expired(&|session, _| session.0 % 3 != 0), Ordering::Relaxed);
        }
    });
    let left = inserted.into_inner() - removed.into_inner();
    assert_eq!(table.len(), left);
    assert_eq!(shown(&table).len(), left);
}

#[test]
fn a_full_table_refuses_new_sessions_and_keeps_the_others() {
    const LIMIT: u32 = 5_000;
    let table = PinTable::with_capacity_limit(LIMIT as usize);
    let (inserted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    at_once(3, |thread| {
        for number in 0..3_000 {
            let outcome = table.insert(session(number * 3 + thread), None, pin(1, 5));
            let count = match outcome {
                InsertOutcome::Inserted => &inserted,
                InsertOutcome::Full => &refused,
                InsertOutcome::Existing(_) => panic!("every session comes once"),
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(inserted.into_inner(), LIMIT as usize);
    assert_eq!(refused.into_inner(), 9_000 - LIMIT as usize);
    let pins = shown(&table);
    assert_eq!(pins.len(), LIMIT as usize);

    let (&held, _) = pins.first_key_value().expect("it is full");
    assert_eq!(table.insert(held, None, pin(2, 6)), InsertOutcome::Existing(pin(1, 5)));
    assert_eq!(table.insert(held, Some(pin(1, 5)), pin(2, 6)), InsertOutcome::Inserted);
    assert_eq!(table.insert(session(20_000), None, pin(1, 5)), InsertOutcome::Full);
    assert_eq!(table.remove_expired(&|session, _| session == held), 1);
    assert_eq!(table.insert(session(20_000), None, pin(1, 5)), InsertOutcome::Inserted);
}

#[test]
fn a_pin_that_is_touched_while_it_is_judged_stays() {
    let table = PinTable::with_capacity_limit(10);
    table.insert(session(1), None, pin(1, 100));
    let removed = table.remove_expired(&|session, pin| {
        table.touch(session, at(200));
        pin.last_seen < 200
    });
    assert_eq!(removed, 0);
    assert_eq!(table.get(session(1)), Some(Pin { last_seen: 200, ..pin(1, 100) }));
}

#[test]
fn a_walk_shows_each_pin_once_and_as_it_is_although_the_table_moves_meanwhile() {
    let table = PinTable::with_capacity_limit(usize::MAX);
    for number in 0..3_000 {
        table.insert(session(number), None, pin(1, 100));
    }
    let mut seen = BTreeMap::new();
    table.iter(&mut |shown, held| {
        if seen.is_empty() {
            for number in 3_000..9_000 {
                table.insert(session(number), None, pin(2, 100));
            }
            (0..3_000).for_each(|number| table.touch(session(number), at(200)));
        } else {
            assert_eq!(held.last_seen, if held.cohort == CohortId(1) { 200 } else { 100 });
        }
        assert_eq!(seen.insert(shown, held), None);
    });
    assert_eq!(seen.values().filter(|pin| pin.cohort == CohortId(1)).count(), 3_000);
}

#[test]
fn a_worn_table_refuses_what_was_carried_off_also_absence() {
    let (old, next) = (Table::with_capacity(SEGMENT), Table::with_capacity(SEGMENT));
    let population = super::Population { live: AtomicUsize::new(0), max: 10 };
    let (here, absent) = (Key::of(session(1)), Key::of(session(2)));
    let insert = |table: &Table, key| table.insert(key, None, pin(1, 100), Room::Own, &population);
    assert!(matches!(insert(&old, here), Step::Done(InsertOutcome::Inserted)));
    old.carry(here, &next);
    old.carry(absent, &next);
    assert!(matches!(next.get(here), Ok(Some(held)) if held == pin(1, 100)));
    assert!(matches!(next.get(absent), Ok(None)));

    assert!(matches!(insert(&old, here), Step::Frozen));
    assert!(matches!(insert(&old, absent), Step::Frozen));
    assert!(old.touch(here, 200).is_err());
    assert!(old.get(absent).is_err());
    assert!((0..SEGMENT).all(|index| !old.remove_if(index, |_, _| true)));
    assert_eq!(population.live.load(Ordering::Relaxed), 1);

    // Carried again after it was removed, or touched, it does not come back as it was.
    next.touch(here, 300).expect("the successor is in force");
    old.carry(here, &next);
    assert!(matches!(next.get(here), Ok(Some(held)) if held.last_seen == 300));
    assert!((0..SEGMENT).any(|index| next.remove_if(index, |_, _| true)));
    old.move_all(&next);
    assert!(matches!(next.get(here), Ok(None)));
}

#[test]
fn a_pin_takes_at_most_64_bytes() {
    let table = PinTable::with_capacity_limit(usize::MAX);
    for number in 0..100_000_u32 {
        table.insert(session(number), None, pin(1, 1));
        if number % 5_000 == 4_999 && number > 20_000 {
            table.maintain();
            let per_pin = table.bytes() / table.len();
            // A table of few segments is rounded up to the next one: here by up to 4 bytes per pin.
            assert!((40..=64).contains(&per_pin), "{per_pin} bytes per pin at {number}");
        }
    }
    // The rest by the rule: worn at four fifths, then 15/8 slots per pin.
    let mut capacity = capacity_for(0);
    while capacity < 20_000_000 {
        let pins = capacity / 5 * 4;
        capacity = capacity_for(pins);
        let bytes = Table::with_capacity(capacity).bytes() + capacity * 32;
        assert!(pins < 100_000 || bytes <= 64 * pins, "{bytes} bytes for {pins} pins");
    }
}

#[test]
fn the_memory_of_ended_sessions_is_given_back() {
    let table = PinTable::with_capacity_limit(usize::MAX);
    let empty = table.bytes();
    for round in 0..10 {
        for number in 0..10_000 {
            table.insert(session(round * 10_000 + number), None, pin(round, 1));
        }
        table.remove_expired(&|_, pin| pin.cohort < CohortId(round));
        table.maintain();
        assert!(table.bytes() < 10_000 * 160, "{} bytes in round {round}", table.bytes());
    }
    table.remove_expired(&|_, _| true);
    table.maintain();
    assert!(table.bytes() <= empty + SEGMENT * 32);
    assert!(table.is_empty());
}

#[test]
fn any_hash_is_shown_as_it_was_given() {
    let table = PinTable::with_capacity_limit(100);
    let hashes = [0, 1, u128::MAX, u128::from(u64::MAX), 1 << 64, 0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978];
    for hash in hashes {
        assert_eq!(table.insert(SessionHash(hash), None, pin(u32::MAX, u32::MAX)), InsertOutcome::Inserted);
    }
    let expected: BTreeMap<_, _> = hashes.map(|hash| (SessionHash(hash), pin(u32::MAX, u32::MAX))).into();
    assert_eq!(shown(&table), expected);
}

#[test]
fn readers_find_every_pin_while_it_is_carried_across() {
    let table = PinTable::with_capacity_limit(usize::MAX);
    for number in 0..3_000 {
        table.insert(session(number), None, pin(1, 100));
    }
    let done = AtomicBool::new(false);
    at_once(3, |thread| {
        if thread == 0 {
            (3_000..20_000).for_each(|number| {
                table.insert(session(number), None, pin(2, 100));
            });
            done.store(true, Ordering::Release);
        }
        while !done.load(Ordering::Acquire) {
            for number in 0..3_000 {
                assert!(table.get(session(number)).is_some(), "session {number}");
            }
        }
    });
}
