//! What is true about a version: the numbers that an evidence engine tries to find out.

use serde::{Deserialize, Serialize};
use serin_core::units::HoldFor;

/// What is true about a version; a signal whose number is absent is never observed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Truth {
    /// Share of requests that succeed, 0 to 1.
    pub success_rate: Option<f64>,
    /// Median latency in milliseconds.
    pub latency_median_ms: Option<f64>,
    /// 99th percentile of latency in milliseconds, at least the median.
    pub latency_p99_ms: Option<f64>,
    /// Milliseconds added to every request; negative for a faster version.
    pub latency_shift_ms: Option<f64>,
    /// Mean tokens of the prompt.
    pub input_tokens: Option<f64>,
    /// Mean tokens of the answer.
    pub output_tokens: Option<f64>,
    /// Mean price of a request in US dollars.
    pub cost: Option<f64>,
    /// Share of answers with tool calls in which every call is right, 0 to 1.
    pub tool_accuracy: Option<f64>,
    /// Share of requests that are refused, 0 to 1.
    pub refusal_rate: Option<f64>,
    /// Share of sessions that reach their goal, 0 to 1.
    pub completion: Option<f64>,
    /// Share of sessions that a person has to take over, 0 to 1.
    pub escalation: Option<f64>,
    /// Mean rating, 1 to 5.
    pub satisfaction: Option<f64>,
    /// Share of sessions that rate, 0 to 1; everyone when absent.
    pub rating_share: Option<f64>,
    /// Share of sessions that are assigned and never heard of again, 0 to 1; nobody when absent.
    pub lost_sessions: Option<f64>,
}

/// The number of fields of [`Truth`].
const FIELDS: usize = 14;

impl Truth {
    /// A version with nothing to complain about: 97 % success, 1.2 s latency with a 99th percentile of 2.4 s.
    pub fn healthy() -> Self {
        Self::default().success(0.97).latency(1_200.0, 2_400.0)
    }

    /// Sets the success rate, 0 to 1.
    #[must_use]
    pub fn success(self, rate: f64) -> Self {
        Self { success_rate: Some(rate), ..self }
    }

    /// Sets median and 99th percentile of latency, in milliseconds.
    #[must_use]
    pub fn latency(self, median_ms: f64, p99_ms: f64) -> Self {
        Self { latency_median_ms: Some(median_ms), latency_p99_ms: Some(p99_ms), ..self }
    }

    /// Adds milliseconds to every request.
    #[must_use]
    pub fn slower_by(self, shift_ms: f64) -> Self {
        Self { latency_shift_ms: Some(shift_ms), ..self }
    }

    /// Sets the mean rating, 1 to 5, and the share of sessions that rate.
    #[must_use]
    pub fn satisfaction(self, mean: f64, rating_share: f64) -> Self {
        Self { satisfaction: Some(mean), rating_share: Some(rating_share), ..self }
    }

    /// Sets the share of sessions that reach their goal.
    #[must_use]
    pub fn completion(self, rate: f64) -> Self {
        Self { completion: Some(rate), ..self }
    }

    /// Sets the share of sessions that are never heard of again.
    #[must_use]
    pub fn lost(self, share: f64) -> Self {
        Self { lost_sessions: Some(share), ..self }
    }

    /// Sets the mean price of a request in US dollars.
    #[must_use]
    pub fn cost(self, dollars: f64) -> Self {
        Self { cost: Some(dollars), ..self }
    }

    /// Sets the share of answers with tool calls in which every call is right.
    #[must_use]
    pub fn tool_accuracy(self, rate: f64) -> Self {
        Self { tool_accuracy: Some(rate), ..self }
    }

    /// This truth where `change` says nothing, `change` where it does.
    #[must_use]
    pub fn changed_by(&self, change: &Self) -> Self {
        self.zip(change, |own, new| new.or(own))
    }

    /// This truth moved towards `change` by a share of the way, 0 to 1.
    #[must_use]
    pub fn moved_towards(&self, change: &Self, share: f64) -> Self {
        self.zip(change, |own, new| match (own, new) {
            (Some(own), Some(new)) => Some(own + (new - own) * share),
            (own, new) => own.or(new),
        })
    }

    /// The first number that cannot be, with the field it stands in.
    pub fn implausible(&self) -> Option<(&'static str, f64)> {
        let is_share = |value: f64| (0.0..=1.0).contains(&value);
        let is_size = |value: f64| value.is_finite() && value > 0.0 && value <= 1e9;
        let found = NAMES.into_iter().zip(self.as_array()).find(|(name, value)| {
            value.is_some_and(|value| match *name {
                "latency_shift_ms" => !value.is_finite() || value.abs() > 1e9,
                "satisfaction" => !(1.0..=5.0).contains(&value),
                name if SIZES.contains(&name) => !is_size(value),
                _ => !is_share(value),
            })
        });
        found.and_then(|(name, value)| value.map(|value| (name, value)))
    }

    fn zip(&self, other: &Self, pick: impl Fn(Option<f64>, Option<f64>) -> Option<f64>) -> Self {
        let (own, new) = (self.as_array(), other.as_array());
        Self::of_array(std::array::from_fn(|index| pick(own[index], new[index])))
    }

    fn as_array(&self) -> [Option<f64>; FIELDS] {
        [
            self.success_rate,
            self.latency_median_ms,
            self.latency_p99_ms,
            self.latency_shift_ms,
            self.input_tokens,
            self.output_tokens,
            self.cost,
            self.tool_accuracy,
            self.refusal_rate,
            self.completion,
            self.escalation,
            self.satisfaction,
            self.rating_share,
            self.lost_sessions,
        ]
    }

    fn of_array(values: [Option<f64>; FIELDS]) -> Self {
        let [
            success_rate,
            latency_median_ms,
            latency_p99_ms,
            latency_shift_ms,
            input_tokens,
            output_tokens,
            cost,
            tool_accuracy,
            refusal_rate,
            completion,
            escalation,
            satisfaction,
            rating_share,
            lost_sessions,
        ] = values;
        Self {
            success_rate,
            latency_median_ms,
            latency_p99_ms,
            latency_shift_ms,
            input_tokens,
            output_tokens,
            cost,
            tool_accuracy,
            refusal_rate,
            completion,
            escalation,
            satisfaction,
            rating_share,
            lost_sessions,
        }
    }
}

/// The names of the fields in the order of `as_array`.
const NAMES: [&str; FIELDS] = [
    "success_rate",
    "latency_median_ms",
    "latency_p99_ms",
    "latency_shift_ms",
    "input_tokens",
    "output_tokens",
    "cost",
    "tool_accuracy",
    "refusal_rate",
    "completion",
    "escalation",
    "satisfaction",
    "rating_share",
    "lost_sessions",
];

/// Fields that hold a size above zero; the others hold shares.
const SIZES: [&str; 5] = ["latency_median_ms", "latency_p99_ms", "input_tokens", "output_tokens", "cost"];

/// A change of the truth of one version, at a time counted from the start of the rollout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Since when.
    pub from: HoldFor,
    /// Until when; for good when absent.
    pub until: Option<HoldFor>,
    /// How long it takes to arrive; at once when zero.
    pub over: HoldFor,
    /// What is true then; what is absent stays as it was.
    pub truth: Truth,
}

/// What is true about a version in the course of a rollout.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timeline {
    /// What is true at first.
    pub base: Truth,
    /// Changes, applied in this order.
    pub changes: Vec<Change>,
}

/// While a change arrives, its way is walked in steps of this many milliseconds.
const STRIDE_MS: u64 = 60_000;

impl Timeline {
    /// What is true at a point in time, and until when at least, in milliseconds since the rollout's start.
    pub fn at(&self, since_start_ms: u64) -> (Truth, u64) {
        let mut truth = self.base;
        let mut valid_until = u64::MAX;
        for change in &self.changes {
            let (from, over) = (change.from.millis(), change.over.millis());
            let until = change.until.map_or(u64::MAX, HoldFor::millis);
            if since_start_ms < from {
                valid_until = valid_until.min(from);
                continue;
            }
            if since_start_ms >= until {
                continue;
            }
            valid_until = valid_until.min(until);
            let passed = since_start_ms - from;
            if passed >= over {
                truth = truth.changed_by(&change.truth);
            } else {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "lengths of rollouts in ms stay far below 2^52"
                )]
                let share = passed as f64 / over as f64;
                truth = truth.moved_towards(&change.truth, share);
                valid_until = valid_until.min((since_start_ms / STRIDE_MS + 1) * STRIDE_MS);
            }
        }
        (truth, valid_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_and_go_and_drift_arrives_slowly() {
        let change = |from, until: Option<u64>, over, truth| Change {
            from: HoldFor::from_mins(from),
            until: until.map(HoldFor::from_mins),
            over: HoldFor::from_mins(over),
            truth,
        };
        let timeline = Timeline {
            base: Truth::default().success(0.9),
            changes: vec![
                change(10, Some(13), 0, Truth::default().success(0.5)),
                change(20, None, 10, Truth::default().success(0.8)),
            ],
        };
        let at = |minute: u64| timeline.at(minute * 60_000).0.success_rate.unwrap_or_default();
        let seen: Vec<f64> = [0, 9, 10, 12, 13, 20, 25, 30, 90].into_iter().map(at).collect();
        let expected = [0.9, 0.9, 0.5, 0.5, 0.9, 0.9, 0.85, 0.8, 0.8];
        assert!(seen.iter().zip(expected).all(|(seen, expected)| (seen - expected).abs() < 1e-9), "{seen:?}");
        assert_eq!(timeline.at(0).1, 600_000, "valid until the first change");
    }

    #[test]
    fn impossible_truths_are_named() {
        assert_eq!(Truth::default().success(1.2).implausible(), Some(("success_rate", 1.2)));
        assert_eq!(Truth::default().satisfaction(0.5, 1.0).implausible(), Some(("satisfaction", 0.5)));
        assert_eq!(Truth::default().cost(0.0).implausible(), Some(("cost", 0.0)));
        assert_eq!(Truth::healthy().slower_by(-200.0).implausible(), None);
    }
}
