//! What the next change of weights does to a session, held against what then happens.

mod state;

use serin_core::command::Command;
use serin_core::explain::{Ahead, ChangeBy, Fate, Kept, Who, ahead, fate, new_sessions};
use serin_core::ids::SessionKey;
use serin_core::routing::{Assigned, Bucket, Contact, Pin, Reason, Turn, Variant, assign};
use serin_core::units::Timestamp;
use serin_core::weight::Weight;

use state::{Pack, changed};

fn next(pack: &Pack) -> Ahead {
    let (rollout, active) = pack.state().active().expect("a rollout is under way");
    ahead(pack.active_plan().expect("it has a plan"), rollout, active, pack.now())
}

fn key(n: u32) -> SessionKey {
    SessionKey::parse(&format!("session-{n}")).expect("a key")
}

/// The version that a first request gets right now.
fn version_now(pack: &Pack, key: &SessionKey) -> String {
    let route = pack.route();
    match assign(&route, None, Contact { key, segment: 0, turn: Turn::User }, pack.now()) {
        Assigned::Now(assignment) => assignment.cohort.version.to_string(),
        Assigned::AfterChange => panic!("nothing is changing"),
    }
}

#[test]
fn what_is_foretold_of_new_sessions_is_what_the_next_step_gives_them() {
    let mut pack = Pack::with_stable("1.0.0");
    changed(pack.apply("2.0.0", "{canaryWeight: 10, stepWeight: 40}"));
    pack.order(Command::Promote).expect("nothing fails");
    let foretold = next(&pack);
    assert_eq!((foretold.by, foretold.weights.as_slice()), (ChangeBy::Step(2), &[Weight::HALF][..]));
    let rollout = pack.rollout().clone();
    let fates: Vec<Fate> = (0..200)
        .map(|n| {
            let who = Who { kept: None, bucket: Bucket::of(&rollout.salt, &key(n)), segment: 0 };
            fate(&foretold, &rollout, &pack.state().sessions, who)
        })
        .collect();
    assert!(fates.contains(&Fate::Begins(Variant::Canary)) && fates.contains(&Fate::Begins(Variant::Stable)));
    pack.order(Command::Promote).expect("nothing fails");
    for (n, fate) in (0..200).zip(fates) {
        let foretold = if fate == Fate::Begins(Variant::Canary) { "2.0.0" } else { "1.0.0" };
        assert_eq!(version_now(&pack, &key(n)), foretold, "session {n}");
    }
}

#[test]
fn a_session_keeps_its_version_until_a_completion_moves_it() {
    for (policy, expected) in [("drain", Fate::Keeps), ("move", Fate::Moves)] {
        let mut pack = Pack::with_stable("1.0.0");
        changed(pack.apply(
            "2.0.0",
            &format!(
                "{{steps: [{{weight: 5%, hold: 5m}}, {{weight: 50%, hold: 5m}}], sessions: {{onPromote: {policy}}}}}"
            ),
        ));
        let steps = pack.active_plan().expect("a plan").steps.len();
        let rollout = pack.rollout().clone();
        let long = Timestamp::from_second(state::START + 86_400).expect("a year that exists");
        let on = |version, ends_at| Who {
            kept: Some(Kept { version, ends_at }),
            bucket: Bucket::of(&rollout.salt, &key(1)),
            segment: 0,
        };
        let sessions = pack.state().sessions;
        for _ in 1..steps {
            let ahead = next(&pack);
            assert!(matches!(ahead.by, ChangeBy::Step(_)));
            assert_eq!(fate(&ahead, &rollout, &sessions, on(&rollout.stable, long)), Fate::Keeps);
            pack.order(Command::Promote).expect("nothing fails");
        }
        let ahead = next(&pack);
        assert_eq!(ahead.by, ChangeBy::Completion);
        assert_eq!(fate(&ahead, &rollout, &sessions, on(&rollout.stable, long)), expected);
        assert_eq!(fate(&ahead, &rollout, &sessions, on(&rollout.canary, long)), Fate::Keeps);
        let soon = pack.now();
        assert_eq!(
            fate(&ahead, &rollout, &sessions, on(&rollout.stable, soon)),
            Fate::BeginsAnew(Variant::Canary)
        );
    }
}

#[test]
fn on_hold_nobody_knows_when_the_next_step_comes() {
    let mut pack = Pack::with_stable("1.0.0");
    changed(pack.apply("2.0.0", "{}"));
    assert!(next(&pack).at.is_some());
    pack.order(Command::Pause).expect("nothing fails");
    assert_eq!(next(&pack).at, None);
}

#[test]
fn a_window_that_comes_first_is_what_comes_next() {
    let mut pack = Pack::with_stable("1.0.0");
    // The pack begins at 17:46:40 UTC.
    changed(pack.apply("2.0.0", "{schedule: [{window: '18:00-20:00 UTC', canaryWeight: 30%}]}"));
    pack.order(Command::Promote).expect("nothing fails");
    let ahead = next(&pack);
    assert_eq!((ahead.by, ahead.weights.as_slice()), (ChangeBy::Window, &[weight(30)][..]));
    assert_eq!(ahead.at.map(|at| at.as_second()), Some(state::START + 800));
}

fn weight(percent: u16) -> Weight {
    Weight::from_bp(percent * 100).expect("at most 100")
}

#[test]
fn new_sessions_get_the_weight_of_their_segment_and_stable_when_forced() {
    let mut pack = Pack::with_stable("1.0.0");
    let shares = |pack: &Pack, segment, forced| {
        let mut route = pack.route();
        route.forced = forced;
        let new = new_sessions(&route, segment);
        let shares: Vec<String> =
            new.shares.iter().map(|(version, _, share)| format!("{version} {share}")).collect();
        (new.reason, shares.join(", "))
    };
    assert_eq!(shares(&pack, 0, false), (Reason::Static, "1.0.0 100%".to_owned()));
    let stages = "{segments: [{name: staff, weight: 100%, duration: 1h}, {name: beta, weight: 50%, duration: 1h}, {name: all, weight: progressive}]}";
    changed(pack.apply("2.0.0", stages));
    assert_eq!(shares(&pack, 0, false), (Reason::TargetingMatch, "2.0.0 100%".to_owned()));
    assert_eq!(shares(&pack, 1, false), (Reason::TargetingMatch, "1.0.0 100%".to_owned()));
    pack.order(Command::Promote).expect("nothing fails");
    pack.order(Command::Promote).expect("nothing fails");
    assert_eq!(shares(&pack, 1, false), (Reason::TargetingMatch, "2.0.0 50%, 1.0.0 50%".to_owned()));
    assert_eq!(shares(&pack, 2, false), (Reason::Split, "1.0.0 100%".to_owned()));
    assert_eq!(shares(&pack, 0, true), (Reason::Disabled, "1.0.0 100%".to_owned()));
}

#[test]
fn a_pin_that_is_live_now_may_end_before_the_next_step() {
    let mut pack = Pack::with_stable("1.0.0");
    changed(pack.apply("2.0.0", "{stepInterval: 2h, sessions: {maxLifetime: 1h}}"));
    let route = pack.route();
    let pin = Pin::new(route.base, pack.now());
    let ends_at = route.sessions.max_lifetime.after(pack.now());
    assert!(!pin.is_expired(&route.sessions, pack.now()) && pin.is_expired(&route.sessions, ends_at));
    let rollout = pack.rollout();
    let who = Who {
        kept: Some(Kept { version: &rollout.stable, ends_at }),
        bucket: Bucket::of(&rollout.salt, &key(1)),
        segment: 0,
    };
    assert!(matches!(fate(&next(&pack), rollout, &route.sessions, who), Fate::BeginsAnew(_)));
}
