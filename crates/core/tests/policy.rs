//! Rules about a rollout under way, one by one, on virtual time.

mod state;

use serin_core::access::Role;
use serin_core::command::{Command, Refused};
use serin_core::forecast::timetable;
use serin_core::ids::Actor;
use serin_core::manifest::Node;
use serin_core::parse;
use serin_core::policy::{Policy, Violation, Who};
use serin_core::rollout::{HoldCause, Phase};
use serin_core::tick;
use serin_core::units::{HoldFor, Timestamp};

use state::Pack;
use state::seen::{Seen, evidence};

/// Two steps of five minutes, then everyone for five.
const STEPS: &str = "{steps: [{weight: 10%, hold: 5m}, {weight: 30%, hold: 5m}, {weight: 60%, hold: 5m}, {weight: 100%, hold: 5m}]}";

fn policy(rules: &str) -> Policy {
    parse::policy(&Node::read(rules).expect("YAML")).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Version 2.0.0 under way under a policy; \"pipeline\" applied it.
fn rolling_out(rules: &str, rollout: &str) -> Pack {
    let mut pack = Pack::with_stable("1.0.0");
    pack.policy = policy(rules);
    state::changed(pack.apply("2.0.0", rollout));
    pack
}

/// Lets minutes pass in which all looks good.
fn pass(pack: &mut Pack, minutes: u32) {
    for _ in 0..minutes {
        pack.wait(60);
        while pack.tick(&evidence(pack, Seen::Good, 200)) {}
    }
}

fn holds(pack: &Pack) -> Vec<HoldCause> {
    pack.rollout().active().map(|active| active.holds.keys().copied().collect()).unwrap_or_default()
}

/// The rules that an order of somebody would break.
fn broken(pack: &Pack, order: Command, actor: &str, role: Role) -> Vec<Violation> {
    let actor = Actor::named(actor);
    let plan = pack.plan("2.0.0");
    pack.policy.of_order(pack.state(), plan, order, Who { actor: &actor, role, key: None }, None, pack.now())
}

fn names(violations: &[Violation]) -> Vec<&str> {
    violations.iter().map(|violation| violation.rule.as_str()).collect()
}

#[test]
fn approvals_hold_a_rollout_before_the_weight_of_the_rule_although_the_manifest_asks_for_none() {
    let mut pack = rolling_out("[{name: two-eyes, approvals: {before: 50%}}]", STEPS);
    pass(&mut pack, 30);
    assert_eq!((pack.rollout().weight().percent(), holds(&pack)), (30.0, vec![HoldCause::ApprovalDue]));
    let reason = pack.rollout().active().expect("active").holds[&HoldCause::ApprovalDue].reason.clone();
    assert_eq!(reason, "the rule two-eyes asks for the approval of somebody else");
    pack.order_by("maria", Command::Approve).expect("an approval is due");
    pass(&mut pack, 1);
    assert_eq!((pack.rollout().weight().percent(), holds(&pack)), (60.0, vec![]));
}

#[test]
fn approvals_wait_at_the_first_step_or_before_completion_where_no_step_lies_before_the_weight() {
    let mut early = rolling_out("[{name: r, approvals: {before: 5%}}]", STEPS);
    pass(&mut early, 30);
    assert_eq!((early.rollout().weight().percent(), holds(&early)), (10.0, vec![HoldCause::ApprovalDue]));

    let mut late = rolling_out("[{name: r, approvals: {before: 100%}}]", "{holdback: 10%, stepInterval: 2m}");
    pass(&mut late, 60);
    assert_eq!((late.rollout().weight().percent(), holds(&late)), (90.0, vec![HoldCause::ApprovalDue]));
}

#[test]
fn approvals_by_two_people_are_two_different_people() {
    let mut pack = rolling_out("[{name: four-eyes, approvals: {before: 50%, count: 2}}]", STEPS);
    pass(&mut pack, 30);
    pack.order_by("maria", Command::Approve).expect("the first");
    let again = pack.order_by("maria (for jo)", Command::Approve).expect_err("the same key");
    assert_eq!(again, Refused::AlreadySo { command: "approve", state: "approved by you already" });
    assert_eq!(holds(&pack), [HoldCause::ApprovalDue]);
    let reason = pack.rollout().active().expect("active").holds[&HoldCause::ApprovalDue].reason.clone();
    assert_eq!(reason, "the rule four-eyes asks for the approval of 2 others, and 1 gave it");
    pack.order_by("jo", Command::Approve).expect("the second");
    assert_eq!(holds(&pack), []);
    let third = pack.order_by("kim", Command::Approve).expect_err("it has what it needs");
    assert_eq!(third, Refused::AlreadySo { command: "approve", state: "not waiting for an approval" });
}

#[test]
fn nobody_approves_what_they_applied_also_where_the_manifest_alone_asks_for_approval() {
    let steps = "{steps: [{weight: 10%, hold: 5m, approval: true}, {weight: 100%, hold: 5m}]}";
    let pack = rolling_out("[{name: others, approvals: {}}]", steps);
    for own in ["pipeline", "pipeline (for jo)", "ops (for pipeline)"] {
        let violations = broken(&pack, Command::Approve, own, Role::Operator);
        assert_eq!(names(&violations), ["others"], "{own}");
        assert!(violations[0].message.starts_with(own), "{}", violations[0].message);
    }
    assert_eq!(broken(&pack, Command::Approve, "maria", Role::Operator), []);
    let free = rolling_out("[]", steps);
    assert_eq!(broken(&free, Command::Approve, "pipeline", Role::Operator), []);
}

#[test]
fn whoever_published_the_version_does_not_approve_it_although_somebody_else_tried_it_again() {
    let mut pack = rolling_out("[{name: others, approvals: {}}]", STEPS);
    pack.order(Command::Rollback).expect("active");
    pack.order_by("jo", Command::Retry).expect("rolled back");
    let (published_by, plan) = (Actor::named("pipeline"), pack.plan("2.0.0"));
    let of = |name: &str| {
        let actor = Actor::named(name);
        let who = Who { actor: &actor, role: Role::Admin, key: None };
        pack.policy.of_order(pack.state(), plan, Command::Approve, who, Some(&published_by), pack.now()).len()
    };
    assert_eq!((of("pipeline"), of("jo"), of("maria")), (1, 1, 0));
}

#[test]
fn no_promotion_passes_an_approval_that_a_rule_asks_for() {
    let mut pack = rolling_out("[{name: two-eyes, approvals: {before: 50%}}]", STEPS);
    let at = |pack: &Pack, order| names(&broken(pack, order, "maria", Role::Admin)).join(" ");
    assert_eq!(at(&pack, Command::Promote), "", "the first step waits for nobody");
    assert_eq!(at(&pack, Command::PromoteFully), "two-eyes");
    pack.order(Command::Promote).expect("nothing fails");
    assert_eq!(at(&pack, Command::Promote), "two-eyes");
    pass(&mut pack, 6);
    pack.order_by("jo", Command::Approve).expect("due");
    assert_eq!(
        (at(&pack, Command::Promote), at(&pack, Command::PromoteFully)),
        (String::new(), String::new())
    );
}

#[test]
fn promote_fully_is_for_the_roles_and_keys_of_the_rule_and_so_is_the_promotion_of_the_last_step() {
    let mut pack =
        rolling_out("[{name: release, promoteFully: {roles: [admin], keys: [release-bot]}}]", STEPS);
    let of = |pack: &Pack, order, role, key: Option<&str>| {
        let actor = Actor::named("ana");
        let who = Who { actor: &actor, role, key };
        pack.policy.of_order(pack.state(), pack.plan("2.0.0"), order, who, None, pack.now())
    };
    let refused = of(&pack, Command::PromoteFully, Role::Operator, Some("ana"));
    assert_eq!(names(&refused), ["release"]);
    assert_eq!(
        refused[0].message,
        "ana has the role operator, and only role admin, key release-bot may make a version stable at once"
    );
    assert_eq!(of(&pack, Command::PromoteFully, Role::Admin, None), []);
    assert_eq!(of(&pack, Command::PromoteFully, Role::Operator, Some("release-bot")), []);
    assert_eq!(of(&pack, Command::Promote, Role::Operator, None), [], "one step is not all of them");
    for _ in 0..3 {
        pack.order(Command::Promote).expect("nothing fails");
    }
    assert_eq!(names(&of(&pack, Command::Promote, Role::Operator, None)), ["release"], "it would complete");
}

#[test]
fn stopping_and_going_back_break_no_rule_however_many_there_are() {
    let rules = "[{name: all, maxFirstWeight: 1%, requiredGates: [error_rate], \
                  approvals: {before: 1%, count: 9}, promoteFully: {keys: [nobody]}}]";
    let mut pack = rolling_out(rules, STEPS);
    for order in [Command::Pause, Command::Resume, Command::Rollback] {
        assert_eq!(broken(&pack, order, "pipeline", Role::Viewer), [], "{order:?}");
    }
    assert_eq!(names(&broken(&pack, Command::PromoteFully, "pipeline", Role::Viewer)), ["all", "all"]);
    pack.order(Command::Rollback).expect("active");
    assert_eq!(pack.rollout().phase(pack.plan("2.0.0")), Phase::RolledBack);
    assert_eq!(
        names(&broken(&pack, Command::Retry, "pipeline", Role::Viewer)),
        ["all", "all"],
        "retry goes forward"
    );
}

/// From a quarter past the start, which is 17:46:40 UTC on a Sunday, until the morning.
const NIGHT: &str = "[{name: quiet-night, freeze: ['18:00-08:00 UTC']}]";

fn reason(pack: &Pack, cause: HoldCause) -> String {
    pack.rollout().active().expect("active").holds[&cause].reason.clone()
}

fn weight(pack: &Pack) -> f64 {
    pack.rollout().weight().percent()
}

/// Lets time pass without a tick, then looks once as often as there is something to do.
fn look_after(pack: &mut Pack, seconds: i64) {
    pack.wait(seconds);
    while pack.tick(&evidence(pack, Seen::Good, 200)) {}
}

#[test]
fn freeze_holds_a_rollout_until_its_end_and_the_time_does_not_count() {
    let mut pack = rolling_out(NIGHT, STEPS);
    pass(&mut pack, 12);
    assert_eq!((weight(&pack), holds(&pack)), (60.0, vec![]), "17:58:40");
    pass(&mut pack, 2);
    assert_eq!((weight(&pack), holds(&pack)), (60.0, vec![HoldCause::Frozen]), "18:00:40");
    assert_eq!(
        reason(&pack, HoldCause::Frozen),
        "the rule quiet-night freezes 18:00-08:00 UTC; it ends at 2030-03-18T08:00:00Z"
    );
    pass(&mut pack, 13 * 60);
    assert_eq!((weight(&pack), holds(&pack)), (60.0, vec![HoldCause::Frozen]), "07:00:40");
    pass(&mut pack, 60);
    assert_eq!((weight(&pack), holds(&pack)), (60.0, vec![]), "08:00:40, with a minute of the step to go");
    pass(&mut pack, 2);
    assert_eq!(weight(&pack), 100.0);
}

#[test]
fn freeze_is_in_force_at_its_minute_and_tells_when_the_next_step_may_start() {
    let mut pack = rolling_out(NIGHT, STEPS);
    pass(&mut pack, 13);
    let start = "2030-03-17T18:00:00Z".parse().expect("a time");
    assert_eq!(pack.next_due(), Some(start), "the loop looks when the freeze begins");
    look_after(&mut pack, 20);
    assert_eq!(holds(&pack), [HoldCause::Frozen]);
    let (plan, active) = (pack.plan("2.0.0"), pack.rollout().active().expect("active"));
    let next = tick::next_step_at(plan, active).expect("the freeze ends by itself");
    assert_eq!(next.to_string(), "2030-03-18T08:01:40Z");
}

#[test]
fn freeze_never_keeps_anybody_from_going_back_neither_a_person_nor_a_gate() {
    let mut by_person = rolling_out(NIGHT, STEPS);
    pass(&mut by_person, 20);
    assert_eq!(broken(&by_person, Command::Rollback, "maria", Role::Viewer), []);
    by_person.order(Command::Rollback).expect("active");
    assert_eq!(by_person.rollout().phase(by_person.plan("2.0.0")), Phase::RolledBack);

    let gated = STEPS.replace(
        "{steps",
        "{analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '>='}]}, steps",
    );
    let mut by_gate = rolling_out(NIGHT, &gated);
    pass(&mut by_gate, 14);
    assert_eq!(holds(&by_gate), [HoldCause::Frozen]);
    by_gate.wait(60);
    while by_gate.tick(&evidence(&by_gate, Seen::Bad, 2_000)) {}
    assert_eq!(by_gate.rollout().phase(by_gate.plan("2.0.0")), Phase::RolledBack);
}

#[test]
fn freeze_refuses_every_order_that_moves_a_rollout_on_and_none_other() {
    let mut pack =
        rolling_out(NIGHT, "{steps: [{weight: 10%, hold: 5m, approval: true}, {weight: 100%, hold: 5m}]}");
    pass(&mut pack, 20);
    assert_eq!(holds(&pack), [HoldCause::ApprovalDue, HoldCause::Frozen]);
    for order in [Command::Promote, Command::PromoteFully] {
        let violations = broken(&pack, order, "maria", Role::Admin);
        assert_eq!(names(&violations), ["quiet-night"], "{order:?}");
        assert!(
            violations[0].message.ends_with("it ends at 2030-03-18T08:00:00Z"),
            "{}",
            violations[0].message
        );
    }
    for order in [Command::Approve, Command::Pause, Command::Resume, Command::Rollback] {
        assert_eq!(broken(&pack, order, "maria", Role::Viewer), [], "{order:?}");
    }
    pack.order(Command::Rollback).expect("active");
    assert_eq!(names(&broken(&pack, Command::Retry, "maria", Role::Admin)), ["quiet-night"]);
    pack.wait(14 * 3_600);
    assert_eq!(broken(&pack, Command::Retry, "maria", Role::Admin), [], "in the morning");
}

#[test]
fn freeze_outlasts_a_promotion_that_sets_it_aside() {
    let mut pack = rolling_out(NIGHT, STEPS);
    pass(&mut pack, 20);
    pack.order(Command::Promote).expect("the server has recorded the override");
    assert_eq!(weight(&pack), 100.0);
    pass(&mut pack, 60);
    assert_eq!((weight(&pack), holds(&pack)), (100.0, vec![HoldCause::Frozen]), "one step, and no more");
}

#[test]
fn no_deadline_counts_the_time_of_a_freeze() {
    let steps = STEPS.replace("{steps", "{progress: {deadline: 1h, maxHold: 30m}, steps");
    let mut pack = rolling_out(NIGHT, &steps);
    pass(&mut pack, 14 * 60 + 14);
    assert_eq!((weight(&pack), holds(&pack)), (60.0, vec![]), "after fourteen hours of freeze");
    pass(&mut pack, 10);
    assert_eq!(pack.rollout().phase(pack.plan("2.0.0")), Phase::Completed);
}

#[test]
fn in_a_freeze_a_window_may_lower_the_weight_and_never_raises_it() {
    let schedule = |evening: u8| {
        format!("{{canaryWeight: 20, schedule: [{{window: '19:00-20:00 UTC', canaryWeight: {evening}}}]}}")
    };
    for (evening, then) in [(5, 5.0), (40, 20.0)] {
        let mut pack = rolling_out(NIGHT, &schedule(evening));
        pass(&mut pack, 90);
        assert_eq!((weight(&pack), holds(&pack)), (then, vec![HoldCause::Frozen]), "19:16");
    }
    let mut free = rolling_out("[]", &schedule(40));
    pass(&mut free, 90);
    assert_eq!(weight(&free), 40.0, "without a freeze it rises");
}

#[test]
fn a_freeze_opens_on_its_days_and_lasts_through_midnight_and_clock_changes() {
    let plan = |windows: &str| {
        let mut plan = rolling_out("[]", STEPS).plan("2.0.0").clone();
        policy(&format!("[{{name: f, freeze: [{windows}]}}]")).impose(&mut plan);
        plan
    };
    let is_frozen = |windows: &str, at: &str| plan(windows).imposed.is_frozen(at.parse().expect("a time"));
    // 2026-11-27 is a Friday.
    let weekend = "{window: '18:00-08:00 Europe/Berlin', days: [fri, sat]}";
    for (at, frozen) in [
        ("2026-11-27T16:59:00Z", false),
        ("2026-11-27T17:00:00Z", true),
        ("2026-11-28T06:59:00Z", true),
        ("2026-11-28T07:00:00Z", false),
        ("2026-11-29T06:59:00Z", true),
        ("2026-11-29T17:30:00Z", false),
    ] {
        assert_eq!(is_frozen(weekend, at), frozen, "{at}");
    }
    let holidays = "{window: '00:00-24:00 UTC', from: 2026-12-20, until: 2027-01-03}";
    for (at, frozen) in [
        ("2026-12-19T23:59:59Z", false),
        ("2026-12-20T00:00:00Z", true),
        ("2027-01-03T23:59:59Z", true),
        ("2027-01-04T00:00:00Z", false),
    ] {
        assert_eq!(is_frozen(holidays, at), frozen, "{at}");
    }
    let frozen =
        plan(holidays).imposed.frozen_at("2026-12-24T20:00:00Z".parse().expect("a time")).expect("frozen");
    assert_eq!(
        frozen.to_string(),
        "the rule f freezes 00:00-24:00 UTC, 2026-12-20 to 2027-01-03; it ends at 2027-01-04T00:00:00Z"
    );
    let for_ever = plan("'00:00-24:00 UTC'").imposed.refuses_at(Timestamp::UNIX_EPOCH).expect("frozen");
    assert_eq!(
        for_ever.message,
        "nothing advances: the rule f freezes 00:00-24:00 UTC; no end of it is in sight"
    );
    assert!(for_ever.hint.starts_with("the rule has to leave some time open"), "{}", for_ever.hint);
    let ahead = plan(holidays).imposed.next_change("2026-03-01T00:00:00Z".parse().expect("a time"));
    assert_eq!(ahead.map(|at| at.to_string()).as_deref(), Some("2026-12-20T00:00:00Z"), "however far ahead");
    let over = plan(holidays).imposed.next_change("2027-03-01T00:00:00Z".parse().expect("a time"));
    assert_eq!(over, None);
}

#[test]
fn every_change_of_a_freeze_is_where_it_is_told_and_the_time_that_runs_is_the_time_between() {
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"];
    for zone in zones {
        let rules = format!(
            "[{{name: f, freeze: ['01:30-02:10 {zone}', {{window: '22:00-03:00 {zone}', days: [sat, sun]}}]}}, \
              {{name: g, freeze: ['12:00-12:45 UTC']}}]"
        );
        let mut plan = rolling_out("[]", STEPS).plan("2.0.0").clone();
        policy(&rules).impose(&mut plan);
        let imposed = &plan.imposed;
        for start in ["2026-03-28T00:07:00Z", "2026-10-24T00:07:00Z", "2026-11-01T00:07:00Z"] {
            let start: Timestamp = start.parse().expect("a time");
            let minutes = || (0..60 * 60).map(|minute| HoldFor::from_mins(minute).after(start));
            let mut told = imposed.next_change(start).expect("it freezes each day");
            for (at, later) in minutes().zip(minutes().skip(1)) {
                let changes = imposed.is_frozen(at) != imposed.is_frozen(later);
                assert_eq!(changes, at < told && told <= later, "{zone} {at}");
                if changes {
                    told = imposed.next_change(later).expect("it freezes each day");
                }
            }
            // A length of time is over when so many minutes were free.
            for length in [0, 1, 90, 600] {
                let end = imposed.after(start, HoldFor::from_mins(length));
                let free = minutes().take_while(|at| *at < end).filter(|at| !imposed.is_frozen(*at)).count();
                assert!(
                    !imposed.is_frozen(end) || length == 0 || free == usize::try_from(length).expect("small")
                );
                assert_eq!(
                    free,
                    usize::try_from(length).expect("small"),
                    "{zone} {start} {length} ends at {end}"
                );
            }
        }
    }
}

#[test]
fn a_timetable_passes_over_freezes() {
    let mut plan = rolling_out("[]", STEPS).plan("2.0.0").clone();
    policy(NIGHT).impose(&mut plan);
    let start: Timestamp = "2030-03-17T17:50:00Z".parse().expect("a time");
    let told: Vec<String> = timetable(&plan, start).iter().map(|entry| entry.at.to_string()).collect();
    assert_eq!(
        told,
        [
            "2030-03-17T17:50:00Z",
            "2030-03-17T17:55:00Z",
            "2030-03-18T08:00:00Z",
            "2030-03-18T08:05:00Z",
            "2030-03-18T08:10:00Z"
        ]
    );
}

#[test]
fn a_rollout_that_begins_in_a_freeze_is_held_at_once_and_one_without_an_end_lets_nothing_start() {
    let mut pack = rolling_out("[{name: shut, freeze: ['00:00-24:00 UTC']}]", STEPS);
    assert_eq!(pack.next_due(), Some(pack.now()), "not only when the first check is due");
    look_after(&mut pack, 0);
    assert_eq!(
        reason(&pack, HoldCause::Frozen),
        "the rule shut freezes 00:00-24:00 UTC; no end of it is in sight"
    );
    let (plan, active) = (pack.plan("2.0.0"), pack.rollout().active().expect("active"));
    assert_eq!(tick::next_step_at(plan, active), None);
}
