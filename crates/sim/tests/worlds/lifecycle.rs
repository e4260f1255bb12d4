//! The table of the lifecycle, row by row, on virtual time.

use serin_core::audit::Action;
use serin_core::rollout::Phase;
use serin_core::units::HoldFor;

use crate::support::{SUPPORT, healthy, minutes, seconds};

/// Weight in percent and phase just after each of these minutes.
const TABLE: [(u64, f64, Phase); 10] = [
    (0, 10.0, Phase::Observing),
    (5, 10.0, Phase::Progressing),
    (10, 20.0, Phase::Progressing),
    (15, 30.0, Phase::Progressing),
    (20, 40.0, Phase::Progressing),
    (25, 50.0, Phase::Completing),
    (30, 70.0, Phase::Completing),
    (35, 90.0, Phase::Completing),
    (40, 100.0, Phase::Completing),
    (45, 100.0, Phase::Completed),
];

#[test]
fn the_plan_of_the_design_page_passes_every_row_of_the_lifecycle_table() {
    let mut world = healthy(8, 5.0);
    world.apply(SUPPORT).expect("the manifest of the design page is accepted");
    let mut before = None;
    for (minute, weight, phase) in TABLE {
        if let Some((earlier_weight, earlier_phase)) = before {
            world.run_to(minutes(minute).minus(HoldFor::from_millis(1)));
            assert_eq!(
                (world.weight().percent(), world.phase()),
                (earlier_weight, earlier_phase),
                "before T+{minute}m"
            );
        }
        world.run_to(minutes(minute));
        assert_eq!(
            (world.weight().percent(), world.phase()),
            (weight, phase),
            "at T+{minute}m: {:?}",
            world.holds()
        );
        before = Some((weight, phase));
    }
    let completed = world.facts(Action::Completed);
    assert_eq!(completed.len(), 1);
    assert_eq!(completed[0].evidence["stable"], "2.4.0");
    assert_eq!(completed[0].evidence["before"], "2.3.1");
    assert_eq!(world.pack().stable.to_string(), "2.4.0", "the canary is the new stable");
    assert!(world.facts(Action::HoldSet).is_empty(), "nothing held");
    assert_eq!(world.facts(Action::RolloutStarted).len(), 1);
    assert_eq!(world.facts(Action::StepEntered).len(), 8);
}

#[test]
fn what_is_served_is_the_set_weight() {
    let mut world = healthy(2, 20.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(5).minus(seconds(1)));
    let sessions = &world.served().sessions;
    let share = sessions.canary as f64 / (sessions.canary + sessions.stable) as f64;
    assert!((share - 0.10).abs() < 0.015, "{share}");
    let assigned = (sessions.canary, sessions.stable);
    assert_eq!(world.last_check().map(|check| check.step), Some(0));
    world.run_to(minutes(30).minus(seconds(1)));
    let sessions = &world.served().sessions;
    let since = (sessions.canary - assigned.0, sessions.stable - assigned.1);
    let share = since.0 as f64 / (since.0 + since.1) as f64;
    assert!((share - 0.30).abs() < 0.015, "10, 20, 30, 40 and 50 % for five minutes each: {share}");
}

#[test]
fn without_earlier_traffic_the_baseline_comes_from_observing() {
    let mut world = serin_sim::World::new(3).stable("2.3.1");
    world.apply(SUPPORT).expect("accepted");
    world.set_traffic(5.0);
    world.run_to(minutes(5).minus(seconds(1)));
    assert!(world.facts(Action::BaselineFrozen).is_empty());
    world.run_to(minutes(45));
    let frozen = world.facts(Action::BaselineFrozen);
    assert_eq!(frozen.len(), 1);
    assert_eq!(frozen[0].at, minutes(5).after(world.controller().rollout().expect("a rollout").started_at));
    assert_eq!(world.phase(), Phase::Completed);
}

#[test]
fn every_matured_session_is_folded_once_per_age() {
    let mut world = healthy(4, 5.0);
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(44));
    let check = world.last_check().expect("there were checks");
    let baseline = world.controller().rollout().and_then(|rollout| rollout.baseline()).expect("frozen");
    // Responses are read after a minute and one latency cap, outcomes at the idle timeout of half an hour.
    let sessions = world.served().sessions.canary + world.served().sessions.stable;
    let share = |age: HoldFor| (minutes(44).minus(age)).secs_f64() / minutes(44).secs_f64();
    let expected = sessions as f64 * (share(minutes(1).plus(baseline.latency_cap())) + share(minutes(30)));
    assert!((world.n_folds() as f64 / expected - 1.0).abs() < 0.03, "{} {expected}", world.n_folds());
    let shown: u64 = check.gates.iter().map(|gate| gate.samples).max().unwrap_or(0);
    assert!(shown <= world.served().sessions.canary);
}
