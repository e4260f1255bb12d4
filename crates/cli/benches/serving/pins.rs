//! What an assignment costs in this process, with a million sessions pinned.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serin_core::ids::{PackName, RolloutId, SegmentName, SessionHash, SessionKey, Version};
use serin_core::plan::SessionPolicy;
use serin_core::routing::{
    Assigned, Cohort, CohortId, Cohorts, Contact, Pin, Route, SegmentSplit, Split, Stamp, Turn, Variant,
    assign,
};
use serin_core::weight::Weight;
use serin_server::pins::{InsertOutcome, PinTable};

use crate::report::{median, row};

const PINS: usize = 1_000_000;
const MANY_PINS: usize = 5_000_000;
const SERIES: usize = 5;

/// Prints the costs of inserts, lookups and assignments.
pub(crate) fn print() -> anyhow::Result<()> {
    let pack = PackName::parse("bench")?;
    let route = route(&pack)?;
    let now = Timestamp::from_second(1_900_000_000)?;
    let key = |n: usize| SessionKey::parse(&format!("9f3c2a61-7d40-4e7b-8a51-{n:012}"));
    let known: Vec<SessionKey> = (0..PINS).map(key).collect::<Result<_, _>>()?;
    let unknown: Vec<SessionKey> = (PINS..2 * PINS).map(key).collect::<Result<_, _>>()?;

    let table = PinTable::with_capacity_limit(2 * PINS);
    let hashes: Vec<SessionHash> = known.iter().map(|key| SessionHash::of(&pack, key)).collect();
    let started = Instant::now();
    for (n, hash) in hashes.iter().enumerate() {
        let pin = Pin::new(CohortId(1 + u32::from(n % 2 == 0)), now);
        anyhow::ensure!(table.insert(*hash, None, pin) == InsertOutcome::Inserted, "pin {n} is not in");
    }
    let insert = started.elapsed();
    row("insert of a pin, from an empty table on", &format!("{:.0} ns", per(insert, PINS)));

    // The order of the keys is not that of their places in the table.
    let contact = |key| Contact { key, segment: 0, turn: Turn::User };
    let pinned = series(|| {
        for key in &known {
            let pin = table.get(SessionHash::of(&pack, key));
            black_box(assign(&route, pin, contact(key), now));
        }
    });
    let new = series(|| {
        for key in &unknown {
            let pin = table.get(SessionHash::of(&pack, key));
            black_box(assign(&route, pin, contact(key), now));
        }
    });
    let lookup = series(|| {
        for hash in &hashes {
            black_box(table.get(*hash));
        }
    });
    let hash = series(|| {
        for key in &known {
            black_box(SessionHash::of(&pack, key));
        }
    });
    let pin = Some(Pin::new(CohortId(1), now));
    let alone_pinned = series(|| {
        for key in &known {
            black_box(assign(&route, pin, contact(key), now));
        }
    });
    let alone = series(|| {
        for key in &unknown {
            black_box(assign(&route, None, contact(key), now));
        }
    });
    for n in (0..PINS).step_by(997) {
        let assigned = assign(&route, table.get(hashes[n]), contact(&known[n]), now);
        let expected = CohortId(1 + u32::from(n % 2 == 0));
        let is_right = matches!(assigned, Assigned::Now(ref found) if found.cohort.id == expected);
        anyhow::ensure!(is_right, "session {n} lost its version");
    }
    row("hash, lookup and assign(), pinned session", &format!("{pinned:.0} ns"));
    row("hash, lookup and assign(), new session", &format!("{new:.0} ns"));
    row("  of which the hash of a key", &format!("{hash:.0} ns"));
    row("  of which the lookup of a pin", &format!("{lookup:.0} ns"));
    row("  of which assign(), pinned session", &format!("{alone_pinned:.0} ns"));
    row("  of which assign(), new session", &format!("{alone:.0} ns"));
    #[expect(clippy::cast_precision_loss, reason = "a few million")]
    let bytes = table.bytes() as f64 / PINS as f64;
    row("memory of a pin, its key included", &format!("{bytes:.1} bytes"));
    drop(table);

    let table = PinTable::with_capacity_limit(MANY_PINS);
    let started = Instant::now();
    for n in 0..MANY_PINS as u128 {
        let pin = Pin::new(CohortId(1), now);
        let hash = SessionHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        anyhow::ensure!(table.insert(hash, None, pin) == InsertOutcome::Inserted, "pin {n} is not in");
    }
    row("insert of a pin, five million of them", &format!("{:.0} ns", per(started.elapsed(), MANY_PINS)));
    #[expect(clippy::cast_precision_loss, reason = "a few million")]
    let bytes = table.bytes() as f64 / MANY_PINS as f64;
    row("memory of a pin among five million", &format!("{bytes:.1} bytes"));
    Ok(())
}

/// The median of a few series, in nanoseconds per lookup.
fn series(mut run: impl FnMut()) -> f64 {
    let times = (0..SERIES).map(|_| {
        let started = Instant::now();
        run();
        per(started.elapsed(), PINS)
    });
    median(times.collect())
}

#[expect(clippy::cast_precision_loss, reason = "seconds as nanoseconds, and a few million")]
fn per(elapsed: std::time::Duration, n: usize) -> f64 {
    elapsed.as_nanos() as f64 / n as f64
}

/// A rollout at half of the sessions; cohort 0 is the base, 1 stable, 2 canary.
fn route(pack: &PackName) -> anyhow::Result<Route> {
    let mut cohorts = Cohorts::default();
    let weight = Weight::from_percent(50.0)?;
    let rollout = RolloutId::parse("bench-r1")?;
    let (stable, canary) = (Version::parse("1.0.0")?, Version::parse("2.0.0")?);
    let stamp = Stamp {
        rollout: rollout.clone(),
        revision: 1,
        step: 0,
        start: 0,
        segment: 0,
        weight,
        observing: false,
    };
    for (id, variant, version, stamp) in [
        (0, Variant::Stable, &stable, None),
        (1, Variant::Stable, &stable, Some(stamp.clone())),
        (2, Variant::Canary, &canary, Some(stamp)),
    ] {
        cohorts.insert(Arc::new(Cohort { id: CohortId(id), version: version.clone(), variant, stamp }));
    }
    let segment = SegmentSplit {
        name: SegmentName::parse("everyone")?,
        weight,
        changing: None,
        stable: CohortId(1),
        canary: CohortId(2),
    };
    Ok(Route {
        pack: pack.clone(),
        stable,
        base: CohortId(0),
        split: Some(Split { rollout, salt: "bench-r1".to_owned(), canary, segments: vec![segment] }),
        draining: Vec::new(),
        forced: false,
        sessions: SessionPolicy::default(),
        cohorts,
    })
}
