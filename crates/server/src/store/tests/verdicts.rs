//! Which sessions a judge is asked about.

use std::collections::BTreeSet;

use serin_core::ids::SessionKey;
use serin_core::metric::MetricName;
use serin_core::routing::Variant;
use serin_core::sample::is_drawn;
use serin_core::units::HoldFor;
use serin_core::weight::Weight;

use super::*;
use crate::samples::{Said, Sample};
use crate::store::{Due, Judgeable, Judged, Resumed, VerdictCount, VerdictState};

on_sqlite! {
    with_rollout:
    sessions_that_are_not_drawn_keep_nobody_from_being_judged
        as sqlite_sessions_that_are_not_drawn_keep_nobody_from_being_judged,
    of_displaced_samples_those_that_no_judge_could_read_are_told
        as sqlite_of_displaced_samples_those_that_no_judge_could_read_are_told,
    what_a_stop_broke_off_is_asked_again_and_given_up_in_the_end
        as sqlite_what_a_stop_broke_off_is_asked_again_and_given_up_in_the_end,
    the_database_draws_the_sessions_that_the_rate_draws as sqlite_the_database_draws_the_sessions_that_the_rate_draws,
}

/// What was said in a session by a request of its own.
fn sample(key: &str, now: Timestamp) -> Sample {
    Sample {
        id: format!("request-of-{key}"),
        pack: pack(),
        key: SessionKey::parse(key).unwrap(),
        hash: hash(key),
        cohort: CANARY,
        version: version("2.0.0"),
        variant: Some(Variant::Canary),
        rollout: Some(rollout()),
        segment: None,
        at: now,
        signals: Vec::new(),
        said: Said::default(),
    }
}

impl World {
    async fn record(&self, samples: &[Sample]) {
        self.store.save_samples(samples, HoldFor::from_hours(24), usize::MAX).await.unwrap();
    }

    /// The sessions that are due an hour after the start, the longest quiet first.
    async fn due(&self, rate: Weight, limit: u32) -> Vec<Judgeable> {
        let due = Due { rate, quiet: at(3_540), waiting: at(3_570), now: at(3_600), limit };
        let polite = polite();
        self.store.judgeable(polite.of(), due).await.unwrap()
    }
}

/// An outcome with what it belongs to.
struct Polite {
    pack: PackName,
    rollout: RolloutId,
    outcome: MetricName,
}

fn polite() -> Polite {
    Polite { pack: pack(), rollout: rollout(), outcome: MetricName::parse("polite").unwrap() }
}

impl Polite {
    fn of(&self) -> Judged<'_> {
        Judged { pack: &self.pack, rollout: &self.rollout, outcome: &self.outcome }
    }
}

async fn sessions_that_are_not_drawn_keep_nobody_from_being_judged(world: World) {
    let rate = Weight::from_percent(10.0).unwrap();
    let keys: Vec<String> = (0..400).map(|n| format!("session-{n}")).collect();
    let (drawn, others): (Vec<_>, Vec<_>) = keys.iter().partition(|key| is_drawn(hash(key), rate));
    assert!(drawn.len() > 10 && others.len() > 300, "{} {}", drawn.len(), others.len());
    // The others are quiet for longer, and are more than one look reads.
    let first: Vec<Sample> = others.iter().map(|key| sample(key, at(100))).collect();
    let later: Vec<Sample> = drawn.iter().map(|key| sample(key, at(200))).collect();
    world.record(&first).await;
    world.record(&later).await;
    let found = world.due(rate, 10).await;
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|session| is_drawn(session.hash, rate)));
}

async fn the_database_draws_the_sessions_that_the_rate_draws(world: World) {
    let keys: Vec<String> = (0..300).map(|n| format!("session-{n}")).collect();
    let samples: Vec<Sample> = keys.iter().map(|key| sample(key, at(100))).collect();
    world.record(&samples).await;
    for percent in [0.0, 0.01, 1.0, 33.0, 50.0, 99.99, 100.0] {
        let rate = Weight::from_percent(percent).unwrap();
        let due: BTreeSet<_> = world.due(rate, 1_000).await.iter().map(|session| session.hash).collect();
        let drawn = keys.iter().map(|key| hash(key)).filter(|hash| is_drawn(*hash, rate)).collect();
        assert_eq!(due, drawn, "{percent}%");
    }
}

async fn what_a_stop_broke_off_is_asked_again_and_given_up_in_the_end(mut world: World) {
    let (polite, session) = (polite(), Judgeable { hash: hash("user-1"), cohort: CANARY });
    world.record(&[sample("user-1", at(100))]).await;
    for attempt in 1..=3 {
        assert_eq!(world.due(Weight::FULL, 10).await, [session], "attempt {attempt}");
        let claimed = world.store.claim_verdict(polite.of(), session, at(200 + attempt)).await.unwrap();
        assert_eq!(claimed, Some(attempt.unsigned_abs()));
        assert_eq!(world.due(Weight::FULL, 10).await, [], "nobody asks twice at a time");
        world.store.close().await;
        world.store = Store::open(&world.path).await.unwrap();
        let resumed = world.store.resume_verdicts(3).await.unwrap();
        let (again, given_up) = if attempt < 3 { (1, 0) } else { (0, 1) };
        assert_eq!(resumed, Resumed { again, given_up }, "attempt {attempt}");
    }
    assert_eq!(world.due(Weight::FULL, 10).await, []);
    let told = world.store.verdict_counts(&rollout()).await.unwrap();
    let reason = Some("interrupted".to_owned());
    let state = VerdictState::Failed;
    assert_eq!(told, [VerdictCount { outcome: polite.outcome, state, reason, count: 1 }]);
}

async fn of_displaced_samples_those_that_no_judge_could_read_are_told(world: World) {
    let save = async |samples: &[Sample]| {
        let saved = world.store.save_samples(samples, HoldFor::from_hours(24), 3).await.unwrap();
        (saved.stored, saved.displaced, saved.early.get(&rollout()).copied().unwrap_or(0))
    };
    let turn = |key: &str, turn: i64| Sample { id: format!("{key}-{turn}"), ..sample(key, at(turn)) };
    let outside = |key: &str, second: i64| Sample { rollout: None, variant: None, ..sample(key, at(second)) };
    assert_eq!(save(&[turn("a", 0), turn("b", 1), turn("c", 30)]).await, (3, 0, 0));
    // a is quiet for a minute by now, and was read if it was to be; b goes on, and its first turn is missing from it.
    assert_eq!(save(&[turn("b", 60)]).await, (1, 1, 0));
    assert_eq!(save(&[turn("d", 61)]).await, (1, 1, 1));
    // What was said outside of rollouts no judge reads.
    assert_eq!(save(&[outside("e", 62), outside("f", 63), outside("g", 64)]).await, (3, 3, 3));
    assert_eq!(save(&[outside("h", 65)]).await, (1, 1, 0));
}
