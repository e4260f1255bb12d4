//! Three rollouts as teams live through them, each from beginning to end.

use serin_core::analysis::{MetricReading, Status};
use serin_core::audit::Action;
use serin_core::command::Command;
use serin_core::rollout::{End, HoldCause, Phase, RollbackCause};
use serin_core::routing::Variant::{Canary, Stable};
use serin_core::weight::Weight;
use serin_sim::{Truth, World};

use crate::support::{SUPPORT, minutes, seconds};

/// What the latest check says about a metric.
fn reading(world: &World, metric: &str) -> MetricReading {
    let check = world.last_check().expect("there were checks");
    let found = check.metrics.iter().find(|reading| reading.metric.as_str() == metric);
    found.unwrap_or_else(|| panic!("{metric} has no data")).clone()
}

#[test]
fn successful_rollout_completes_on_time_with_stable_trends_on_the_way() {
    let stable = Truth::healthy().satisfaction(4.0, 0.6);
    let mut world = World::new(11)
        .stable("2.3.1")
        .truth(Stable, stable)
        .truth(Canary, stable.satisfaction(4.2, 0.6))
        .traffic(5.0)
        .warmed_up(minutes(10));
    world.apply(SUPPORT).expect("accepted");
    for (minute, weight) in [(15 + 4, 30.0), (30 + 4, 70.0)] {
        world.run_to(minutes(minute));
        assert_eq!(world.weight().percent(), weight);
        let satisfaction = reading(&world, "user_satisfaction_avg");
        let gain = satisfaction.canary.expect("rated") - satisfaction.stable.expect("rated");
        assert!((0.05..0.35).contains(&gain), "satisfaction at {weight} %: {gain:+.2}");
        for unchanged in ["latency_avg", "latency_p90", "success_rate"] {
            let metric = reading(&world, unchanged);
            assert_ne!(metric.status, Status::Degraded, "{unchanged} at {weight} %");
            let change = metric.canary.expect("seen") / metric.stable.expect("seen") - 1.0;
            assert!(change.abs() < 0.06, "{unchanged} at {weight} %: {change:+.3}");
        }
    }
    world.run_to(minutes(45));
    assert_eq!(world.phase(), Phase::Completed);
    assert_eq!(world.facts(Action::Completed)[0].at, world.now());
    assert_eq!(world.pack().stable.to_string(), "2.4.0");
    assert!(world.facts(Action::RolledBack).is_empty());
    assert!(world.facts(Action::HoldSet).is_empty());
}

#[test]
fn caught_regression_is_rolled_back_by_itself_before_the_30_percent_step() {
    // Better answers, and 800 ms more with a slow tail: one request in six takes more than three seconds.
    let stable = Truth::healthy().latency(1_100.0, 2_400.0).tool_accuracy(0.92);
    let canary = Truth::healthy().latency(1_450.0, 4_200.0).slower_by(450.0).tool_accuracy(0.95);
    for sessions_per_s in [1.0, 2.0] {
        for seed in 0..12 {
            let mut world = World::new(seed)
                .stable("2.3.1")
                .truth(Stable, stable)
                .truth(Canary, canary)
                .traffic(sessions_per_s)
                .warmed_up(minutes(20));
            world.apply(SUPPORT).expect("accepted");
            let told = format!("seed {seed} at {sessions_per_s}/s");
            assert!(
                world.run_until(minutes(60), |world| world.phase() == Phase::RolledBack),
                "{told}: never"
            );
            let rollout = world.controller().rollout().expect("a rollout");
            let ended = rollout.ended().expect("over");
            let End::RolledBack { cause, culprits } = &ended.how else { panic!("{told}: {:?}", ended.how) };
            assert_eq!(*cause, RollbackCause::Gates, "{told}");
            assert_eq!(culprits[0].as_str(), "latency_p99", "{told}: {}", ended.reason);
            assert!(ended.at >= minutes(5).after(rollout.started_at), "{told}: Observing decides nothing");

            // Nobody was exposed beyond the second weight, and one transition restored stable for everyone.
            let exposed: Vec<f64> = world.served().weights.iter().map(|weight| weight.percent()).collect();
            assert!(
                exposed.iter().all(|weight| [10.0, 20.0].contains(weight)),
                "{told}: exposed at {exposed:?}"
            );
            assert_eq!(world.weight(), Weight::ZERO);
            let last = world.facts(Action::RolledBack);
            assert_eq!((last.len(), last[0].revision), (1, rollout.revision), "{told}: one transition");
            assert_eq!(world.pack().stable.to_string(), "2.3.1");
            let requests = world.served().requests.clone();
            world.run_for(minutes(3));
            let canary_since = world.served().requests.canary - requests.canary;
            assert_eq!(canary_since, 0, "{told}: every request goes to stable");
            assert!(world.served().requests.stable > requests.stable);
        }
    }
}

#[test]
fn subtle_degradation_is_seen_by_a_person_who_pauses_looks_and_rolls_back() {
    let stable = Truth::healthy().latency(1_200.0, 2_600.0).cost(0.02).satisfaction(4.2, 0.6);
    let better = stable.slower_by(-200.0).cost(0.017);
    let mut world = World::new(5)
        .stable("2.3.1")
        .truth(Stable, stable)
        .truth(Canary, better)
        .change(Canary, minutes(15), Truth::default().satisfaction(3.9, 0.6))
        .traffic(5.0)
        .warmed_up(minutes(10));
    world.apply(SUPPORT).expect("accepted");
    world.run_to(minutes(23));
    assert_eq!(world.weight().percent(), 40.0, "no gate sees anything wrong: {:?}", world.holds());
    world.order(Command::Pause, "maria", "ratings look odd since 30 %").expect("can be paused");
    world.run_for(minutes(6));
    assert_eq!(
        (world.weight().percent(), world.holds()),
        (40.0, vec![HoldCause::Paused]),
        "time stands still"
    );

    let satisfaction = reading(&world, "user_satisfaction_avg");
    assert!(satisfaction.canary < satisfaction.stable, "{satisfaction:?}");
    assert!([Status::Watch, Status::Degraded].contains(&satisfaction.status), "{satisfaction:?}");
    for better in ["latency_avg", "cost_avg"] {
        let metric = reading(&world, better);
        assert!(metric.canary < metric.stable, "{metric:?}");
        assert!([Status::Improved, Status::Ok].contains(&metric.status), "{metric:?}");
    }

    world.order(Command::Rollback, "maria", "people like the answers less").expect("can be rolled back");
    assert_eq!((world.phase(), world.weight()), (Phase::RolledBack, Weight::ZERO));
    let told: Vec<(Action, &str, &str)> = world
        .audit()
        .iter()
        .filter(|fact| fact.actor.as_str() == "maria")
        .map(|fact| (fact.action, fact.reason.as_str(), fact.actor.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Action::HoldSet, "ratings look odd since 30 %", "maria"),
            (Action::RolledBack, "people like the answers less", "maria"),
        ]
    );
    let started = world.controller().rollout().expect("a rollout").started_at;
    assert_eq!(world.facts(Action::RolledBack)[0].at, minutes(29).after(started), "who, when and why");
    world.run_for(seconds(30));
    assert_eq!(world.pack().stable.to_string(), "2.3.1");
}
