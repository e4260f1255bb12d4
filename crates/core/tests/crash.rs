//! After an end without warning no weight rises before the sessions of the last moments have come back or ended.

mod state;

use serin_core::audit::Action;
use serin_core::rollout::HoldCause;
use serin_core::units::{HoldFor, Timestamp};
use serin_core::weight::Weight;

use state::seen::{Seen, evidence};
use state::{Pack, changed};

const ROLLOUT: &str = "{steps: [{weight: 10%, hold: 2m}, {weight: 30%, hold: 2m}, {weight: 100%, hold: 2m}], \
    sessions: {idleTimeout: 20m}, analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '>='}]}}";

/// Lets minutes pass and ticks to the end of each; the server may have come back from a crash.
fn watch(pack: &mut Pack, minutes: i64, seen: Seen, back_since: Option<Timestamp>) {
    for _ in 0..minutes {
        pack.wait(60);
        loop {
            let mut evidence = evidence(pack, seen, 200);
            evidence.back_since = back_since;
            if !pack.tick(&evidence) {
                break;
            }
        }
    }
}

fn with_canary() -> Pack {
    let mut pack = Pack::with_stable("1.0.0");
    changed(pack.apply("2.0.0", ROLLOUT));
    watch(&mut pack, 1, Seen::Good, None);
    pack
}

#[test]
fn no_weight_rises_until_the_idle_timeout_has_passed_and_then_it_does() {
    let mut pack = with_canary();
    let before = pack.rollout().weight();
    let crash = pack.now();
    watch(&mut pack, 19, Seen::Good, Some(crash));
    assert_eq!(pack.rollout().weight(), before);
    let (_, active) = pack.state().active().expect("it goes on");
    let hold = &active.holds[&HoldCause::Unobserved];
    let until = HoldFor::from_mins(20).after(crash);
    assert!(hold.reason.contains(&format!("{until:.0}")), "{}", hold.reason);
    watch(&mut pack, 10, Seen::Good, Some(crash));
    assert!(pack.rollout().weight() > before);
    assert!(pack.actions().contains(&Action::HoldCleared));
}

#[test]
fn a_rollout_that_began_after_the_crash_goes_on() {
    let mut pack = Pack::with_stable("1.0.0");
    let crash = pack.now();
    pack.wait(60);
    changed(pack.apply("2.0.0", ROLLOUT));
    watch(&mut pack, 10, Seen::Good, Some(crash));
    assert!(pack.rollout().weight() > Weight::parse("10%").expect("a weight"));
}

#[test]
fn a_bad_canary_is_rolled_back_all_the_same() {
    let mut pack = with_canary();
    // While a rollout observes, checks decide nothing.
    watch(&mut pack, 3, Seen::Good, None);
    assert!(pack.rollout().weight() > Weight::ZERO && pack.state().active().is_some());
    let crash = pack.now();
    watch(&mut pack, 15, Seen::Bad, Some(crash));
    assert_eq!(pack.rollout().weight(), Weight::ZERO);
}
