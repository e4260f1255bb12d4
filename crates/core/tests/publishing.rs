//! What applying a manifest and giving a command does, rule by rule; no traffic is needed for it.

mod state;

use serin_core::audit::Action;
use serin_core::command::{Command, Refused};
use serin_core::publish::{self, Change, Outcome};
use serin_core::rollout::{End, Phase, RollbackCause, RolloutKind};
use serin_core::weight::Weight;

use state::{Pack, applied, changed};

const PLAIN: &str = "{}";
const OTHER_RAMP: &str = "{canaryWeight: 50}";

/// A pack whose stable version is 1.0.0, with 2.0.0 under way.
fn rolling_out() -> Pack {
    let mut pack = Pack::with_stable("1.0.0");
    assert_eq!(changed(pack.apply("2.0.0", PLAIN)), Change::Started);
    pack
}

/// A pack that has completed the rollout from 1.0.0 to 2.0.0.
fn completed() -> Pack {
    let mut pack = rolling_out();
    pack.order(Command::PromoteFully).expect("nothing fails");
    pack
}

#[test]
fn the_first_version_of_a_pack_becomes_stable_at_once() {
    let mut pack = Pack::default();
    assert_eq!(changed(pack.apply("1.0.0", PLAIN)), Change::FirstStable);
    assert_eq!(pack.state().stable.to_string(), "1.0.0");
    assert_eq!(pack.state().rollout, None);
    assert_eq!(pack.actions(), [Action::VersionPublished, Action::FirstStable]);
}

#[test]
fn the_same_version_with_the_same_content_is_a_no_op() {
    for mut pack in [Pack::with_stable("1.0.0"), rolling_out(), completed()] {
        let before = pack.state().clone();
        let version =
            before.rollout.as_ref().map_or("1.0.0".to_owned(), |rollout| rollout.canary.to_string());
        assert!(matches!(applied(pack.apply(&version, PLAIN)), Outcome::Unchanged(_)));
        assert_eq!(*pack.state(), before);
    }
}

#[test]
fn the_same_version_with_other_content_is_refused() {
    let mut pack = rolling_out();
    let before = pack.state().clone();
    let refused = pack.apply_content("2.0.0", PLAIN, "other prompts").expect_err("a version is immutable");
    assert_eq!(refused.to_string(), "version 2.0.0 is already published with other content");
    assert_eq!(*pack.state(), before);
}

#[test]
fn another_plan_for_the_version_under_way_is_refused_with_a_hint() {
    let mut pack = rolling_out();
    let before = pack.state().clone();
    let refused = pack.apply("2.0.0", OTHER_RAMP).expect_err("a plan under way is not changed");
    assert!(matches!(refused, publish::Refused::PlanDiffers(_)));
    assert!(refused.hint().contains("apply --restart"));
    assert_eq!(*pack.state(), before);
}

#[test]
fn restart_begins_a_new_rollout_with_new_id_salt_and_step_0() {
    let mut pack = rolling_out();
    pack.order(Command::Promote).expect("nothing fails");
    let old = pack.rollout().clone();
    assert_eq!(changed(pack.restart("2.0.0", OTHER_RAMP)), Change::Superseded);
    let new = pack.rollout();
    assert_eq!((new.attempt, new.active().map(|active| active.step)), (old.attempt + 1, Some(0)));
    assert_ne!((&new.id, &new.salt), (&old.id, &old.salt));
    assert_eq!(new.weight().percent(), 50.0);
    assert_eq!(new.active().and_then(|active| active.last_check.as_ref()), None, "new evidence");
}

#[test]
fn another_plan_for_a_version_that_is_not_under_way_is_kept_for_its_next_rollout() {
    let mut stable = Pack::with_stable("1.0.0");
    assert!(matches!(applied(stable.apply("1.0.0", OTHER_RAMP)), Outcome::PlanKept(_)));
    let mut rolled_back = rolling_out();
    rolled_back.order(Command::Rollback).expect("always possible");
    assert!(matches!(applied(rolled_back.apply("2.0.0", OTHER_RAMP)), Outcome::PlanKept(_)));
    rolled_back.order(Command::Retry).expect("rolled back before");
    assert_eq!(rolled_back.rollout().weight().percent(), 50.0);
}

#[test]
fn stable_applied_again_while_a_canary_is_active_rolls_the_canary_back() {
    let mut pack = rolling_out();
    assert_eq!(changed(pack.apply("1.0.0", PLAIN)), Change::RolledBack);
    let ended = pack.rollout().ended().expect("over").clone();
    assert_eq!(ended.how, End::RolledBack { cause: RollbackCause::Revert, culprits: vec![] });
    assert_eq!(
        (pack.rollout().weight(), pack.state().stable.to_string()),
        (Weight::ZERO, "1.0.0".to_owned())
    );
    assert!(
        matches!(applied(pack.apply("2.0.0", PLAIN)), Outcome::Unchanged(_)),
        "only retry starts it again"
    );
}

#[test]
fn an_earlier_stable_version_applied_after_completion_is_back_at_once() {
    let mut pack = completed();
    assert_eq!(changed(pack.apply("1.0.0", PLAIN)), Change::Immediate);
    let undo = pack.rollout();
    assert_eq!((undo.kind, undo.phase(pack.plan("1.0.0"))), (RolloutKind::Undo, Phase::Completed));
    assert_eq!(pack.state().stable.to_string(), "1.0.0");
    assert!(
        pack.state().draining.is_empty(),
        "nobody stays on what was reverted: {:?}",
        pack.state().draining
    );
    assert_eq!(changed(pack.apply("2.0.0", PLAIN)), Change::Immediate, "2.0.0 was stable before, too");
}

#[test]
fn an_earlier_stable_version_is_a_canary_again_where_the_manifest_says_so() {
    let mut pack = Pack::with_stable("1.0.0");
    let on_revert = "{onRevert: canary}";
    applied(pack.apply("1.0.0", on_revert));
    changed(pack.apply("2.0.0", on_revert));
    pack.order(Command::PromoteFully).expect("nothing fails");
    assert_eq!(changed(pack.apply("1.0.0", on_revert)), Change::Started);
}

#[test]
fn rollback_after_completion_is_an_undo_with_its_own_record() {
    let mut pack = completed();
    let first = pack.rollout().clone();
    pack.order(Command::Rollback).expect("there is a version before");
    let undo = pack.rollout().clone();
    assert_eq!((undo.kind, undo.canary.to_string()), (RolloutKind::Undo, "1.0.0".to_owned()));
    assert_eq!(undo.attempt, first.attempt + 1);
    assert_eq!(first.ended().map(|ended| &ended.how), Some(&End::Completed), "the old one stays completed");
    assert_eq!(pack.state().stable.to_string(), "1.0.0");
    assert!(pack.state().draining.is_empty(), "an undo moves sessions: {:?}", pack.state().draining);
}

#[test]
fn a_version_that_a_person_took_back_starts_again_on_request_only_and_as_a_canary() {
    let mut pack = completed();
    pack.order(Command::Rollback).expect("there is a version before");
    // A pipeline that runs again must not bring everyone back to what was just taken back.
    assert!(matches!(applied(pack.apply("2.0.0", PLAIN)), Outcome::Unchanged(_)));
    let again = pack.order(Command::Rollback).expect_err("there is nothing before 1.0.0");
    assert!(matches!(again, Refused::NothingBefore(_)));
    pack.order(Command::Retry).expect("taken back before");
    assert_eq!((pack.rollout().kind, pack.rollout().weight().percent()), (RolloutKind::Canary, 10.0));
    assert_eq!(pack.rollout().canary.to_string(), "2.0.0");
}

#[test]
fn any_other_version_supersedes_the_rollout_under_way() {
    let mut pack = rolling_out();
    let old = pack.rollout().id.clone();
    assert_eq!(changed(pack.apply("3.0.0", PLAIN)), Change::Superseded);
    let superseded = pack.superseded.last().expect("the old record is handed over");
    assert_eq!(superseded.id, old);
    assert_eq!(superseded.weight(), Weight::ZERO);
    assert_eq!(
        (pack.state().stable.to_string(), pack.rollout().weight().percent()),
        ("1.0.0".to_owned(), 10.0)
    );
    assert_eq!(pack.rollout().active().map(|active| active.step), Some(0));
}

#[test]
fn strategy_immediate_takes_everything_at_once() {
    let mut pack = Pack::with_stable("1.0.0");
    assert_eq!(changed(pack.apply("2.0.0", "{strategy: immediate}")), Change::Immediate);
    assert_eq!(pack.rollout().kind, RolloutKind::Immediate);
    assert_eq!(pack.state().stable.to_string(), "2.0.0");
}

#[test]
fn commands_on_an_idle_pack_are_refused_and_change_nothing() {
    let mut pack = Pack::with_stable("1.0.0");
    let before = pack.state().clone();
    for order in [Command::Pause, Command::Resume, Command::Approve, Command::Promote, Command::PromoteFully]
    {
        assert!(matches!(pack.order(order), Err(Refused::Idle { .. })), "{order:?}");
    }
    assert!(matches!(pack.order(Command::Rollback), Err(Refused::NothingBefore(_))));
    assert!(matches!(pack.order(Command::Retry), Err(Refused::NothingToRetry(_))));
    assert_eq!(*pack.state(), before);
}

/// FIELD bug 6: of two commands given on the same state one wins, and a rollback wins in the end in any order.
#[test]
fn bug_06_rollback_while_a_promote_is_pending_wins() {
    let pack = rolling_out();
    let promote = pack.prepared(Command::Promote).expect("nothing fails");
    let rollback = pack.prepared(Command::Rollback).expect("always possible");
    assert_eq!(promote.from_revision, rollback.from_revision, "the store takes only the first of them");

    let mut promoted_first = rolling_out();
    promoted_first.commit(promote);
    promoted_first.order(Command::Rollback).expect("always possible");
    let mut rolled_back_first = rolling_out();
    rolled_back_first.commit(rollback);
    assert!(matches!(rolled_back_first.order(Command::Promote), Err(Refused::Idle { .. })));
    for pack in [promoted_first, rolled_back_first] {
        assert_eq!(pack.rollout().weight(), Weight::ZERO);
        assert_eq!(pack.rollout().phase(pack.plan("2.0.0")), Phase::RolledBack);
    }
}

#[test]
fn at_most_three_versions_drain_at_once_and_the_oldest_is_moved() {
    let mut pack = Pack::with_stable("1.0.0");
    for version in ["2.0.0", "3.0.0", "4.0.0", "5.0.0", "6.0.0"] {
        changed(pack.apply(version, PLAIN));
        pack.order(Command::PromoteFully).expect("nothing fails");
    }
    let draining: Vec<String> =
        pack.state().draining.iter().map(|draining| draining.version.to_string()).collect();
    assert_eq!(draining, ["3.0.0", "4.0.0", "5.0.0"]);
}

#[test]
fn a_clock_that_steps_back_never_dates_a_transition_before_the_one_it_follows() {
    let mut pack = rolling_out();
    pack.wait(600);
    pack.order(Command::Pause).expect("not paused");
    pack.wait(-300);
    pack.order(Command::Rollback).expect("always possible");
    let ended = pack.rollout().ended().expect("over").at;
    assert_eq!(ended.duration_since(pack.rollout().started_at).as_secs(), 600);
    pack.order(Command::Retry).expect("rolled back before");
    assert_eq!(pack.rollout().started_at, ended);
}
