//! Rules about a rollout under way, one by one, on virtual time.

mod state;

use serin_core::access::Role;
use serin_core::command::{Command, Refused};
use serin_core::ids::Actor;
use serin_core::manifest::Node;
use serin_core::parse;
use serin_core::policy::{Policy, Violation, Who};
use serin_core::rollout::{HoldCause, Phase};

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
    pack.policy.of_order(pack.state(), plan, order, Who { actor: &actor, role, key: None }, None)
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
        pack.policy.of_order(pack.state(), plan, Command::Approve, who, Some(&published_by)).len()
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
        pack.policy.of_order(pack.state(), pack.plan("2.0.0"), order, who, None)
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
