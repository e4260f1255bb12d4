//! Who gets which version, and why.
//!
//! Between two changes of weight an assignment is a pure function of the session key. On first
//! contact a session is pinned to its [`Cohort`]; from then on the pin decides, and the version
//! changes only for a cause that takes the pinned version out of service.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{PackName, RolloutId, SegmentName, SessionKey, Version};
use crate::plan::SessionPolicy;
use crate::units::{HoldFor, Timestamp};
use crate::weight::Weight;

/// The two sides of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// The version that everyone had before.
    Stable,
    /// The version that is being tried.
    Canary,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        })
    }
}

/// Where a session key falls, 0 to 9 999; the canary takes the buckets below its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bucket(u16);

impl Bucket {
    /// The bucket of a key in a rollout: XXH3-64 of `salt ‖ 0x00 ‖ key`, scaled to 0..10 000.
    ///
    /// The salt is the rollout's own, so that the same users are not the first to get every canary.
    pub fn of(salt: &str, key: &SessionKey) -> Self {
        let mut buffer = [0_u8; 384];
        let (salt, key) = (salt.as_bytes(), key.as_str().as_bytes());
        let length = salt.len() + 1 + key.len();
        let hash = if length <= buffer.len() {
            buffer[..salt.len()].copy_from_slice(salt);
            buffer[salt.len() + 1..length].copy_from_slice(key);
            xxhash_rust::xxh3::xxh3_64(&buffer[..length])
        } else {
            xxhash_rust::xxh3::xxh3_64(&[salt, &[0], key].concat())
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a u64 times 10 000 shifted by 64 is below 10 000"
        )]
        Self(((u128::from(hash) * 10_000) >> 64) as u16)
    }

    /// Whether the canary takes this bucket at a weight.
    pub fn is_canary_at(self, weight: Weight) -> bool {
        self.0 < weight.bp()
    }

    /// The number, 0 to 9 999.
    pub fn index(self) -> u16 {
        self.0
    }
}

/// The number of a cohort within its pack, in the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CohortId(pub u32);

/// Everything that is stamped on a session at its assignment.
///
/// Sessions assigned under the same weight, in the same step and segment, to the same variant share
/// one cohort, so that a pin needs four bytes for all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cohort {
    /// Its number.
    pub id: CohortId,
    /// The version that its sessions get.
    pub version: Version,
    /// The side of the comparison.
    pub variant: Variant,
    /// What the rollout in force stamped; nothing for sessions assigned without a rollout.
    pub stamp: Option<Stamp>,
}

/// What the rollout in force stamps on a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The rollout.
    pub rollout: RolloutId,
    /// Its revision when the cohort was opened.
    pub revision: u64,
    /// Index of the step in the plan.
    pub step: u16,
    /// The part of the plan in which evidence may start that the session belongs to ([`Plan::start`]).
    ///
    /// [`Plan::start`]: crate::plan::Plan::start
    #[serde(default)]
    pub start: u16,
    /// Index of the segment in the plan.
    pub segment: u8,
    /// Share of new sessions of the segment that got the canary.
    pub weight: Weight,
    /// Whether the step was Observing, so that the session takes no part in comparisons.
    pub observing: bool,
}

impl Cohort {
    /// What a rollout stamped; nothing for sessions of the watch over a version that was completed before.
    pub fn of_rollout(&self) -> Option<&Stamp> {
        self.stamp.as_ref().filter(|stamp| !stamp.rollout.is_watch())
    }
}

/// The cohorts of a pack by their number.
#[derive(Debug, Clone, Default)]
pub struct Cohorts(Vec<Option<Arc<Cohort>>>);

impl Cohorts {
    /// Adds or replaces a cohort.
    pub fn insert(&mut self, cohort: Arc<Cohort>) {
        let index = cohort.id.0 as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some(cohort);
    }

    /// The cohort with a number.
    pub fn get(&self, id: CohortId) -> Option<&Arc<Cohort>> {
        self.0.get(id.0 as usize)?.as_ref()
    }

    /// All cohorts in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cohort>> {
        self.0.iter().flatten()
    }
}

/// The stored assignment of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// What was stamped at the assignment.
    pub cohort: CohortId,
    /// Seconds since 1970 at the assignment.
    pub pinned_at: u32,
    /// Seconds since 1970 at the last request.
    pub last_seen: u32,
}

impl Pin {
    /// A pin made now.
    pub fn new(cohort: CohortId, now: Timestamp) -> Self {
        let now = seconds(now);
        Self { cohort, pinned_at: now, last_seen: now }
    }

    /// Whether the session has ended by idleness or age.
    pub fn is_expired(&self, policy: &SessionPolicy, now: Timestamp) -> bool {
        let since = |then: u32| u64::from(seconds(now).saturating_sub(then)) * 1_000;
        since(self.last_seen) >= policy.idle_timeout.millis()
            || since(self.pinned_at) >= policy.max_lifetime.millis()
    }

    /// Time since the assignment.
    pub fn age(&self, now: Timestamp) -> HoldFor {
        HoldFor::from_secs(u64::from(seconds(now).saturating_sub(self.pinned_at)))
    }
}

/// Whole seconds since 1970, clamped to what 32 bits hold (until 2106).
pub fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.as_second().max(0)).unwrap_or(u32::MAX)
}

/// How one pack is routed right now.
#[derive(Debug, Clone)]
pub struct Route {
    /// The pack.
    pub pack: PackName,
    /// The version of sessions without a rollout.
    pub stable: Version,
    /// The cohort of sessions without a rollout, and of sessions that were moved.
    pub base: CohortId,
    /// The rollout in force.
    pub split: Option<Split>,
    /// Versions beside stable and canary that keep their sessions until then.
    pub draining: Vec<(Version, Timestamp)>,
    /// Whether everything is forced to stable.
    pub forced: bool,
    /// How long sessions live.
    pub sessions: SessionPolicy,
    /// All cohorts that a pin may name.
    pub cohorts: Cohorts,
}

/// The rollout in force.
#[derive(Debug, Clone)]
pub struct Split {
    /// The rollout.
    pub rollout: RolloutId,
    /// Its salt.
    pub salt: String,
    /// The canary.
    pub canary: Version,
    /// What each segment gets, in the order of the plan.
    pub segments: Vec<SegmentSplit>,
}

/// What one segment gets.
#[derive(Debug, Clone)]
pub struct SegmentSplit {
    /// Its name.
    pub name: SegmentName,
    /// Share of its new sessions that get the canary.
    pub weight: Weight,
    /// What is being committed at this moment.
    pub changing: Option<Changing>,
    /// The cohort of its new stable sessions.
    pub stable: CohortId,
    /// The cohort of its new canary sessions.
    pub canary: CohortId,
}

/// A change of routing that is being committed at this moment.
///
/// A first contact that the change concerns waits for its outcome: otherwise a crash between the
/// commit and the pin's way to disk could flip it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changing {
    /// The weight changes: sessions whose variant differs between both weights are concerned.
    To(Weight),
    /// More than the weight changes: every new session is concerned.
    Everything,
}

/// Who sent the last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A user, or unknown.
    User,
    /// A tool: its result belongs to a call that the pinned version made, so a move waits.
    ToolResult,
}

/// Why a session has its version; the words of OpenFeature where it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// There is no rollout.
    Static,
    /// The bucket of the session decided.
    Split,
    /// The session belongs to a segment with a weight of its own.
    TargetingMatch,
    /// The session had it before.
    Pinned,
    /// Everything is forced to stable.
    Disabled,
}

impl Reason {
    /// The word as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::Split => "SPLIT",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Pinned => "PINNED",
            Self::Disabled => "DISABLED",
        }
    }
}

/// What is to be done with the pin table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinAction {
    /// The session was seen again.
    Touch,
    /// The session is new, or its old pin had ended.
    Create,
    /// The session was moved away from a version that is out of service.
    Move,
}

/// The answer to "which version does this session get".
#[derive(Debug, Clone)]
pub struct Assignment<'r> {
    /// What is stamped on the session.
    pub cohort: &'r Arc<Cohort>,
    /// Why.
    pub reason: Reason,
    /// Where the session falls in the rollout in force.
    pub bucket: Option<Bucket>,
    /// The weight of its segment in the rollout in force.
    pub weight: Weight,
    /// What the pin table has to do.
    pub pin: PinAction,
}

/// What [`assign`] answers.
#[derive(Debug, Clone)]
pub enum Assigned<'r> {
    /// The session has its version.
    Now(Assignment<'r>),
    /// The weight is changing at this moment and the change concerns this new session: ask again after it.
    AfterChange,
}

/// One contact of a session.
#[derive(Debug, Clone, Copy)]
pub struct Contact<'k> {
    /// Who.
    pub key: &'k SessionKey,
    /// Index of its segment in the rollout in force.
    pub segment: usize,
    /// Who sent the last message.
    pub turn: Turn,
}

/// Decides which version a session gets; reads nothing but its arguments.
///
/// # Panics
/// When the route names a cohort that it does not hold, or the segment is not in the rollout.
pub fn assign<'r>(route: &'r Route, pin: Option<Pin>, contact: Contact<'_>, now: Timestamp) -> Assigned<'r> {
    let live = pin.filter(|pin| !pin.is_expired(&route.sessions, now));
    let split = route.split.as_ref();
    let segment = split.map(|split| &split.segments[contact.segment]);
    let bucket = split.map(|split| Bucket::of(&split.salt, contact.key));
    let weight = segment.map_or(Weight::ZERO, |segment| segment.weight);
    let answer = |id: CohortId, reason: Reason, pin: PinAction| {
        let cohort = route.cohorts.get(id).expect("a route holds every cohort that it names");
        Assigned::Now(Assignment { cohort, reason, bucket, weight, pin })
    };

    if let Some(cohort) = live.and_then(|pin| route.cohorts.get(pin.cohort)) {
        let mid_tool = contact.turn == Turn::ToolResult;
        if mid_tool || route.serves(&cohort.version, now) {
            return answer(cohort.id, Reason::Pinned, PinAction::Touch);
        }
        let reason = if route.forced { Reason::Disabled } else { Reason::Static };
        return answer(route.base, reason, PinAction::Move);
    }
    if route.forced {
        return answer(route.base, Reason::Disabled, PinAction::Create);
    }
    let (Some(segment), Some(bucket)) = (segment, bucket) else {
        return answer(route.base, Reason::Static, PinAction::Create);
    };
    let is_canary = bucket.is_canary_at(segment.weight);
    match segment.changing {
        Some(Changing::Everything) => return Assigned::AfterChange,
        Some(Changing::To(weight)) if bucket.is_canary_at(weight) != is_canary => {
            return Assigned::AfterChange;
        }
        Some(Changing::To(_)) | None => {}
    }
    let is_targeted =
        split.is_some_and(|split| split.segments.len() > 1 && contact.segment + 1 < split.segments.len());
    let reason = if is_targeted { Reason::TargetingMatch } else { Reason::Split };
    answer(if is_canary { segment.canary } else { segment.stable }, reason, PinAction::Create)
}

impl Route {
    /// Whether sessions pinned to a version may keep it.
    pub fn serves(&self, version: &Version, now: Timestamp) -> bool {
        if *version == self.stable {
            return true;
        }
        if self.forced {
            return false;
        }
        self.split.as_ref().is_some_and(|split| split.canary == *version)
            || self.draining.iter().any(|(draining, until)| draining == version && now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    fn key(n: u64) -> SessionKey {
        SessionKey::parse(&format!("session-{n}")).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// A route with one rollout at `percent`; cohort 0 is the base, 1 stable, 2 canary.
    fn route(percent: f64) -> Route {
        let mut cohorts = Cohorts::default();
        let weight = Weight::from_percent(percent).unwrap();
        let rollout = RolloutId::parse("support-r1").unwrap();
        let stamp = Stamp {
            rollout: rollout.clone(),
            revision: 1,
            step: 1,
            start: 1,
            segment: 0,
            weight,
            observing: false,
        };
        for (id, variant, text, stamp) in [
            (0, Variant::Stable, "1.0.0", None),
            (1, Variant::Stable, "1.0.0", Some(stamp.clone())),
            (2, Variant::Canary, "2.0.0", Some(stamp)),
        ] {
            cohorts.insert(Arc::new(Cohort { id: CohortId(id), version: version(text), variant, stamp }));
        }
        let segment = SegmentSplit {
            name: SegmentName::parse("everyone").unwrap(),
            weight,
            changing: None,
            stable: CohortId(1),
            canary: CohortId(2),
        };
        Route {
            pack: PackName::parse("support").unwrap(),
            stable: version("1.0.0"),
            base: CohortId(0),
            split: Some(Split {
                rollout,
                salt: "salt".to_owned(),
                canary: version("2.0.0"),
                segments: vec![segment],
            }),
            draining: vec![],
            forced: false,
            sessions: SessionPolicy::default(),
            cohorts,
        }
    }

    fn ask(
        route: &Route,
        pin: Option<Pin>,
        key: &SessionKey,
        now: Timestamp,
    ) -> (Variant, Reason, PinAction, CohortId) {
        match assign(route, pin, Contact { key, segment: 0, turn: Turn::User }, now) {
            Assigned::Now(a) => (a.cohort.variant, a.reason, a.pin, a.cohort.id),
            Assigned::AfterChange => panic!("no change is under way"),
        }
    }

    #[test]
    fn buckets_are_frozen() {
        let bucket = |salt: &str, key: &str| Bucket::of(salt, &SessionKey::parse(key).unwrap()).index();
        let vectors =
            [bucket("salt", "session-1"), bucket("salt", "session-2"), bucket("s2", "ünï"), bucket("", "a")];
        let direct = |bytes: &[u8]| ((u128::from(xxhash_rust::xxh3::xxh3_64(bytes)) * 10_000) >> 64) as u16;
        let long = "k".repeat(256);
        assert_eq!(
            bucket(&"s".repeat(200), &long),
            direct([&[b's'; 200][..], &[0], long.as_bytes()].concat().as_slice())
        );
        assert_eq!(
            vectors,
            [
                direct(b"salt\0session-1"),
                direct(b"salt\0session-2"),
                direct("s2\0ünï".as_bytes()),
                direct(b"\0a")
            ]
        );
        assert_eq!(vectors, [8750, 8084, 4033, 5358], "other languages reproduce these");
    }

    #[test]
    fn two_million_sessions_split_within_a_tenth_of_a_point_of_the_set_weight() {
        for percent in [1.0, 10.0, 50.0, 90.0] {
            let route = route(percent);
            let canary =
                (0..2_000_000).filter(|n| ask(&route, None, &key(*n), at(0)).0 == Variant::Canary).count();
            let share = canary as f64 / 2_000_000.0 * 100.0;
            assert!((share - percent).abs() < 0.1, "{share} % at a set weight of {percent} %");
        }
    }

    /// FIELD bug 5: raising 10 -> 20 % keeps every canary session canary and every pinned stable session stable.
    #[test]
    fn bug_05_raising_the_weight_moves_no_pinned_session() {
        let (low, high) = (route(10.0), route(20.0));
        for n in 0..20_000 {
            let before = ask(&low, None, &key(n), at(0));
            let pin = Pin::new(before.3, at(0));
            assert_eq!(
                ask(&high, Some(pin), &key(n), at(60)),
                (before.0, Reason::Pinned, PinAction::Touch, before.3)
            );
            if before.0 == Variant::Canary {
                assert_eq!(
                    ask(&high, None, &key(n), at(60)).0,
                    Variant::Canary,
                    "new buckets only join the canary"
                );
            }
        }
    }

    /// FIELD bug 4: stickiness on one side only lets the split drift; with pins on both sides it stays.
    #[test]
    fn bug_04_a_million_sessions_of_several_requests_keep_the_split() {
        let route = route(30.0);
        let (mut canary_sessions, mut canary_requests, mut requests) = (0_u64, 0_u64, 0_u64);
        for n in 0..1_000_000_u64 {
            let key = key(n);
            let first = ask(&route, None, &key, at(0));
            canary_sessions += u64::from(first.0 == Variant::Canary);
            let pin = Pin::new(first.3, at(0));
            for turn in 0..=(n % 3) {
                let again = ask(&route, Some(pin), &key, at(1 + turn as i64));
                assert_eq!(again.0, first.0);
                requests += 1;
                canary_requests += u64::from(again.0 == Variant::Canary);
            }
        }
        assert!((canary_sessions as f64 / 1e6 - 0.3).abs() < 0.002, "{canary_sessions}");
        assert!(
            (canary_requests as f64 / requests as f64 - 0.3).abs() < 0.002,
            "{canary_requests} of {requests}"
        );
    }

    #[test]
    fn a_session_without_a_rollout_is_pinned_and_is_no_evidence() {
        let mut quiet = route(10.0);
        quiet.split = None;
        let (variant, reason, action, cohort) = ask(&quiet, None, &key(1), at(0));
        assert_eq!((variant, reason, action), (Variant::Stable, Reason::Static, PinAction::Create));
        assert!(quiet.cohorts.get(cohort).unwrap().stamp.is_none());
        let pin = Pin::new(cohort, at(0));
        assert_eq!(ask(&route(100.0), Some(pin), &key(1), at(60)).0, Variant::Stable, "stays on its version");
    }

    #[test]
    fn a_version_changes_under_a_session_only_by_expiry_or_removal() {
        let full = route(100.0);
        let pin = Pin::new(CohortId(2), at(0));
        assert_eq!(ask(&full, Some(pin), &key(7), at(1_799)).1, Reason::Pinned);
        assert_eq!(ask(&full, Some(pin), &key(7), at(1_800)).2, PinAction::Create, "idle for 30 minutes");
        let seen = Pin { last_seen: seconds(at(86_399)), ..pin };
        assert_eq!(ask(&full, Some(seen), &key(7), at(86_400)).2, PinAction::Create, "a day old");

        let mut rolled_back = route(10.0);
        rolled_back.split = None;
        assert_eq!(
            ask(&rolled_back, Some(pin), &key(7), at(60)),
            (Variant::Stable, Reason::Static, PinAction::Move, CohortId(0))
        );
        rolled_back.draining = vec![(version("2.0.0"), at(100))];
        assert_eq!(ask(&rolled_back, Some(pin), &key(7), at(99)).1, Reason::Pinned);
        assert_eq!(ask(&rolled_back, Some(pin), &key(7), at(100)).2, PinAction::Move);
    }

    #[test]
    fn a_move_never_lands_between_a_tool_call_and_its_result() {
        let mut rolled_back = route(10.0);
        rolled_back.split = None;
        let pin = Pin::new(CohortId(2), at(0));
        let key = key(7);
        let turn =
            |turn| match assign(&rolled_back, Some(pin), Contact { key: &key, segment: 0, turn }, at(60)) {
                Assigned::Now(a) => a.cohort.variant,
                Assigned::AfterChange => panic!("no change is under way"),
            };
        assert_eq!(turn(Turn::ToolResult), Variant::Canary);
        assert_eq!(turn(Turn::User), Variant::Stable);
    }

    #[test]
    fn forcing_stable_takes_the_canary_from_everyone() {
        let mut forced = route(100.0);
        forced.forced = true;
        let pin = Pin::new(CohortId(2), at(0));
        assert_eq!(ask(&forced, Some(pin), &key(1), at(1)).1, Reason::Disabled);
        assert_eq!(ask(&forced, None, &key(2), at(1)).0, Variant::Stable);
    }

    #[test]
    fn while_a_weight_is_being_committed_only_sessions_that_it_concerns_wait() {
        let mut changing = route(10.0);
        if let Some(split) = changing.split.as_mut() {
            split.segments[0].changing = Some(Changing::To(Weight::from_percent(20.0).unwrap()));
        }
        let mut waiting = 0;
        for n in 0..10_000 {
            let key = key(n);
            let bucket = Bucket::of("salt", &key).index();
            match assign(&changing, None, Contact { key: &key, segment: 0, turn: Turn::User }, at(0)) {
                Assigned::AfterChange => {
                    assert!((1_000..2_000).contains(&bucket));
                    waiting += 1;
                }
                Assigned::Now(_) => assert!(!(1_000..2_000).contains(&bucket)),
            }
        }
        assert!(waiting > 800);
    }
}
