//! The one normal form that every rollout strategy compiles to.
//!
//! A [`Plan`] is what a manifest means after parsing: a flat list of [`Step`]s, each a position in
//! the lifecycle. Whether the manifest said `canaryWeight`, `steps`, `segments` or `schedule` shows
//! only in what the steps hold.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{PackName, SegmentName, Version};
use crate::judge::Judge;
use crate::metric::{Metric, MetricName};
use crate::policy::Imposed;
use crate::units::{HoldFor, Timestamp};
use crate::weight::Weight;

/// What shipping one version of a pack means, in full.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The pack.
    pub pack: PackName,
    /// The version that is shipped.
    pub version: Version,
    /// Who answers for the pack, and who is told.
    pub people: People,
    /// How new sessions move to the version.
    pub strategy: Strategy,
    /// The positions that the rollout passes, first to last; never empty for a canary.
    pub steps: Vec<Step>,
    /// Classes of sessions in order; the last one catches everyone. Without segments in the manifest there is one.
    pub segments: Vec<Segment>,
    /// Windows of the day that set the weight below Completing.
    pub schedule: Option<Schedule>,
    /// What is measured and what it decides.
    pub analysis: AnalysisPlan,
    /// When a step may end.
    pub progress: Progress,
    /// How long sessions keep their version.
    pub sessions: SessionPolicy,
    /// What applying an earlier stable version does.
    pub on_revert: OnRevert,
    /// Share of sessions that stay on stable in the last step.
    pub holdback: Weight,
    /// For how long the version goes on being judged after it has become stable; nothing where it does not.
    pub watch: Option<WatchPolicy>,
    /// What the policy of the server adds; no manifest says it.
    pub imposed: Imposed,
}

/// How a version is judged after it has become stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchPolicy {
    /// For how long, at most 7 days.
    pub duration: HoldFor,
    /// What a gate does that is proven to be broken.
    pub on_breach: OnBreach,
}

/// What a gate does that a stable version is proven to break while it is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBreach {
    /// Tells people only.
    Notify,
    /// Brings everyone back to the version before.
    Rollback,
}

/// Labels and contacts of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct People {
    /// Free labels, by name.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Who owns the pack.
    pub owner: Option<String>,
    /// Who is told when something needs a person.
    pub escalation: Option<String>,
}

/// How new sessions move to a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A growing share, compared with stable.
    Canary,
    /// All at once, without comparison.
    Immediate,
}

/// Where a step stands in the lifecycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepPhase {
    /// Baselines are collected; nothing is decided.
    Observing,
    /// Below half of the sessions.
    Progressing,
    /// From half of the sessions on; stable stands by.
    Completing,
}

/// One position of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Where it stands in the lifecycle.
    pub phase: StepPhase,
    /// What sets the weight while it lasts.
    pub weight: StepWeight,
    /// How long it lasts at least, not counting time on hold.
    pub hold: HoldFor,
    /// Whether a person must approve before the next step.
    pub approval: bool,
}

/// What sets the weight of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum StepWeight {
    /// One weight for the progressive segment; every earlier segment gets the larger of its own weight and this.
    Ramp(Weight),
    /// Segments up to and including this index hold their own weights, later ones are at 0.
    Stage(usize),
    /// The windows of the schedule set the weight of the progressive segment.
    Windows,
    /// Like `Ramp`, but the step starts only inside the windows of the highest weight.
    RampInBestWindow(Weight),
}

/// A class of sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Its name.
    pub name: SegmentName,
    /// Who belongs to it.
    pub matcher: Matcher,
    /// The weight it holds.
    pub weight: SegmentWeight,
    /// How long its stage lasts; the progressive segment has none.
    pub duration: Option<HoldFor>,
}

/// Who belongs to a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matcher {
    /// A CEL expression over `attributes`.
    Expression(String),
    /// Sessions whose `segment` attribute equals the segment's name.
    NamedByAttribute,
    /// Everyone that no earlier segment took.
    Everyone,
}

/// The weight of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentWeight {
    /// A weight of its own.
    Fixed(Weight),
    /// Whatever the ramp says.
    Progressive,
}

/// Windows of the day, each with a weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The windows in the order written; they never overlap.
    pub windows: Vec<Window>,
    /// The weight outside all windows.
    pub otherwise: Weight,
}

/// A half-open part of every day in some time zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Minute of the day at which it opens, 0 to 1439.
    pub from_minute: u16,
    /// Minute of the day at which it closes, 0 to 1439; at or before `from_minute` it wraps midnight.
    pub to_minute: u16,
    /// `UTC` or an IANA name.
    pub zone: String,
    /// The weight inside.
    pub weight: Weight,
    /// The window as written.
    pub as_written: String,
}

/// What is measured and what it decides.
#[derive(Debug, Clone, PartialEq)]
pub struct AnalysisPlan {
    /// The metrics that decide.
    pub gates: Vec<Gate>,
    /// Outcomes that the manifest declares beyond the catalogue.
    pub custom: Vec<Metric>,
    /// Who judges those of them that are judged.
    pub judges: Vec<Judge>,
    /// Failed checks in a row that roll back, at least 1.
    pub failure_threshold: u32,
    /// Time between two checks.
    pub interval: HoldFor,
    /// 1 - the chance of ever rolling back a canary that is within its gates, 0.5 to 0.9999.
    pub confidence: f64,
    /// Time after the start during which no check decides.
    pub initial_delay: HoldFor,
    /// What a Degraded metric that is no gate does.
    pub on_degraded: OnDegraded,
}

impl AnalysisPlan {
    /// Who judges an outcome; nothing for a metric that is not judged.
    pub fn judge_of(&self, outcome: &MetricName) -> Option<&Judge> {
        self.judges.iter().find(|judge| judge.outcome == *outcome)
    }
}

/// What a Degraded metric that is no gate does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDegraded {
    /// Stops the rollout until the evidence recedes or a person decides.
    Hold,
    /// Counts towards rollback.
    Rollback,
    /// Tells people only.
    Notify,
}

/// A metric that the manifest judges.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// The metric.
    pub metric: Metric,
    /// What is required of it.
    pub rule: GateRule,
    /// How the data are read.
    pub decision: Decision,
    /// Matured canary sessions in a step below which the gate reads no data.
    pub min_samples: u64,
    /// Age at which a session's value is taken; the default of its kind when absent.
    pub maturity: Option<HoldFor>,
    /// Share of the error budget relative to the other gates, above 0.
    pub budget: f64,
    /// Where the numbers come from.
    pub provider: String,
    /// What an outside provider is asked; see [`crate::outside`].
    pub query: Option<String>,
}

/// The provider of everything that Serin measures itself.
pub const BUILTIN: &str = "builtin";

impl Gate {
    /// Whether the numbers come from somebody else.
    pub fn is_outside(&self) -> bool {
        self.provider != BUILTIN
    }
}

/// What a gate requires.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateRule {
    /// The canary against a constant, in the unit of the metric.
    Threshold {
        /// On which side of the limit the canary must be.
        comparison: Comparison,
        /// The constant.
        limit: f64,
    },
    /// The canary against stable.
    NotWorseThanStable {
        /// How much worse is still accepted.
        max_regression: Regression,
    },
}

/// On which side of a limit a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// At least the limit.
    #[serde(rename = ">=")]
    AtLeast,
    /// Above the limit.
    #[serde(rename = ">")]
    Above,
    /// At most the limit.
    #[serde(rename = "<=")]
    AtMost,
    /// Below the limit.
    #[serde(rename = "<")]
    Below,
}

impl Comparison {
    /// Whether `value` is on the right side of `limit`.
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::AtLeast => value >= limit,
            Self::Above => value > limit,
            Self::AtMost => value <= limit,
            Self::Below => value < limit,
        }
    }

    /// Whether small values are the bad ones.
    pub fn low_is_bad(self) -> bool {
        match self {
            Self::AtLeast | Self::Above => true,
            Self::AtMost | Self::Below => false,
        }
    }

    /// The sign as written.
    pub fn sign(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::Above => ">",
            Self::AtMost => "<=",
            Self::Below => "<",
        }
    }
}

/// How much worse than stable is still accepted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Regression {
    /// A share of stable's frozen value, above 0 (`2%` of 94 % is 1.88 points).
    Relative(f64),
    /// In the unit of the metric, above 0.
    Absolute(f64),
}

/// How a gate reads its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// By e-values, honest however often one looks.
    Evidence,
    /// By the point estimate of the last interval, literally.
    Point,
}

/// When a step may end.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// By the clock or by evidence.
    pub when: ProgressWhen,
    /// Non-inferiority margin of `when: evidence`.
    pub margin: Option<Regression>,
    /// Longest time that a step waits for evidence before it holds for a person.
    pub max_hold: Option<HoldFor>,
    /// Length of the whole rollout after which it holds for a person.
    pub deadline: HoldFor,
}

/// By what a step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgressWhen {
    /// When its hold has passed, the last check is a pass and the step has its samples.
    Clock,
    /// When every gate is shown to be non-inferior by the margin.
    Evidence,
}

/// How long sessions keep their version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicy {
    /// A session ends after this long without a request.
    pub idle_timeout: HoldFor,
    /// A session ends this long after its first request.
    pub max_lifetime: HoldFor,
    /// What a rollback does to canary sessions.
    pub on_rollback: InFlight,
    /// What a promotion does to stable sessions.
    pub on_promote: InFlight,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self {
            idle_timeout: HoldFor::from_mins(30),
            max_lifetime: HoldFor::from_hours(24),
            on_rollback: InFlight::Move,
            on_promote: InFlight::Drain,
        }
    }
}

/// What happens to sessions whose version is taken out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InFlight {
    /// They move to the other version with their next user turn.
    Move,
    /// They keep it until they end.
    Drain,
}

/// What applying an earlier stable version does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRevert {
    /// Back to it at once.
    Immediate,
    /// A canary like any other version.
    Canary,
}

/// A step that is longer is cut into parts, so that evidence can start inside it.
const SLICE: HoldFor = HoldFor::from_hours(1);
/// Windows and freezes are brought together so often at most: a month of days has fewer.
const MOST_LOOKS: usize = 64;
/// No step is cut into more parts.
const MOST_SLICES: u64 = 24;

impl Plan {
    /// The weight of each segment, in the order of [`Plan::segments`], in a step at a point in time.
    ///
    /// In the last step no segment is above what `holdback` leaves, whatever its own weight is.
    ///
    /// # Panics
    /// When `step` is not a step of this plan.
    pub fn weights(&self, step: usize, now: Timestamp) -> Vec<Weight> {
        match &self.steps[step].weight {
            StepWeight::Ramp(weight) | StepWeight::RampInBestWindow(weight) => self.ramped(step, *weight),
            StepWeight::Windows => {
                let ramp = self.schedule.as_ref().map_or(Weight::ZERO, |schedule| schedule.weight_at(now));
                self.ramped(step, ramp)
            }
            StepWeight::Stage(last) => self.staged(*last),
        }
    }

    /// Every set of weights that a step can have; more than one where windows set them.
    ///
    /// # Panics
    /// When `step` is not a step of this plan.
    pub fn weights_possible(&self, step: usize) -> Vec<Vec<Weight>> {
        match (&self.steps[step].weight, &self.schedule) {
            (StepWeight::Windows, Some(schedule)) => {
                schedule.weights().into_iter().map(|ramp| self.ramped(step, ramp)).collect()
            }
            (StepWeight::Windows, None) => vec![self.ramped(step, Weight::ZERO)],
            (StepWeight::Ramp(weight) | StepWeight::RampInBestWindow(weight), _) => {
                vec![self.ramped(step, *weight)]
            }
            (StepWeight::Stage(last), _) => vec![self.staged(*last)],
        }
    }

    /// The earliest time from `from` on at which a step may start: inside the best windows, where it asks for them,
    /// and outside of every freeze of the policy.
    ///
    /// # Panics
    /// When `step` is not a step of this plan.
    pub fn may_start_at(&self, step: usize, from: Timestamp) -> Timestamp {
        let mut at = from;
        for _ in 0..MOST_LOOKS {
            let open = self.window_from(step, at);
            match self.imposed.thaws_at(open) {
                Some(thaw) if thaw == open => return open,
                Some(thaw) => at = thaw,
                None => return Timestamp::MAX,
            }
        }
        Timestamp::MAX
    }

    /// The earliest time from `from` on at which the schedule lets a step start.
    fn window_from(&self, step: usize, from: Timestamp) -> Timestamp {
        match (&self.steps[step].weight, &self.schedule) {
            (StepWeight::RampInBestWindow(_), Some(schedule)) => schedule.best_from(from),
            (
                StepWeight::RampInBestWindow(_)
                | StepWeight::Ramp(_)
                | StepWeight::Stage(_)
                | StepWeight::Windows,
                _,
            ) => from,
        }
    }

    /// What sets the weight of a step, in words: `10%`, or `internal_users 100%, beta_users 50%`.
    pub fn shown_weight(&self, weight: &StepWeight) -> String {
        let windows = self.schedule.iter().flat_map(|schedule| &schedule.windows);
        match (weight, &self.schedule) {
            (StepWeight::Ramp(weight), _) => weight.to_string(),
            (StepWeight::Stage(last), _) => {
                let segments = self.segments.iter().take(last + 1);
                let named = segments.map(|segment| match segment.weight {
                    SegmentWeight::Fixed(weight) => format!("{} {weight}", segment.name),
                    SegmentWeight::Progressive => segment.name.to_string(),
                });
                named.collect::<Vec<_>>().join(", ")
            }
            (StepWeight::Windows, None) => Weight::ZERO.to_string(),
            (StepWeight::Windows, Some(schedule)) => {
                let told = windows.map(|window| format!("{} {}", window.as_written, window.weight));
                let told = told.collect::<Vec<_>>().join(", ");
                let has_gaps = schedule.has_gaps();
                if has_gaps { format!("{told}, else {}", schedule.otherwise) } else { told }
            }
            (StepWeight::RampInBestWindow(weight), schedule) => {
                let best = schedule.as_ref().map(Schedule::best);
                let best = windows.filter(|window| Some(window.weight) == best);
                let best: BTreeSet<&str> = best.map(|window| window.as_written.as_str()).collect();
                format!("{weight}, from {}", best.into_iter().collect::<Vec<_>>().join(" or "))
            }
        }
    }

    /// Segments up to an index hold their own weights, later ones are at 0.
    fn staged(&self, last: usize) -> Vec<Weight> {
        let own = |(index, segment): (usize, &Segment)| match segment.weight {
            SegmentWeight::Fixed(weight) if index <= last => weight,
            SegmentWeight::Fixed(_) | SegmentWeight::Progressive => Weight::ZERO,
        };
        self.segments.iter().enumerate().map(own).collect()
    }

    /// The progressive segment gets the ramp, every earlier one the larger of its own weight and the ramp.
    fn ramped(&self, step: usize, ramp: Weight) -> Vec<Weight> {
        let is_last = step + 1 == self.steps.len();
        let most = if is_last { Weight::FULL.saturating_sub(self.holdback) } else { Weight::FULL };
        let weight_of = |segment: &Segment| match segment.weight {
            SegmentWeight::Fixed(weight) => weight.max(ramp).min(most),
            SegmentWeight::Progressive => ramp.min(most),
        };
        self.segments.iter().map(weight_of).collect()
    }

    /// Into how many parts a step is cut, so that harm that starts in the middle of a long step is seen:
    /// one for each hour, at most 24.
    pub fn slices(&self, step: u16) -> u16 {
        let hours = self.steps[usize::from(step)].hold.millis().div_ceil(SLICE.millis());
        u16::try_from(hours.clamp(1, MOST_SLICES)).unwrap_or(1)
    }

    /// The part of a step that sessions belong to that are assigned after it has run for a while.
    pub fn slice_at(&self, step: u16, elapsed: HoldFor) -> u16 {
        let (slices, hold) = (self.slices(step), self.steps[usize::from(step)].hold.millis());
        let slice = elapsed.millis().saturating_mul(u64::from(slices)) / hold.max(1);
        u16::try_from(slice).unwrap_or(u16::MAX).min(slices - 1)
    }

    /// The number of a part of a step among the parts of all steps, from 0: where evidence may start.
    pub fn start(&self, step: u16, slice: u16) -> u16 {
        (0..step).map(|before| self.slices(before)).sum::<u16>() + slice
    }

    /// The planned length: the sum of all holds.
    pub fn planned_length(&self) -> HoldFor {
        self.steps.iter().fold(HoldFor::ZERO, |sum, step| sum.plus(step.hold))
    }
}

impl Segment {
    /// Who belongs to it, in words or as the expression of the manifest.
    pub fn members(&self) -> String {
        match &self.matcher {
            Matcher::Expression(text) => text.clone(),
            Matcher::NamedByAttribute => format!("attributes.segment == \"{}\"", self.name),
            Matcher::Everyone => "everyone else".to_owned(),
        }
    }
}
