//! Counters that merge by addition: what is shown, and what evidence is made of.
//!
//! A [`Tally`] holds all data at once and serves display. [`Counters`] hold each matured session
//! once and serve evidence. Both merges are associative and commutative, so that neither the order
//! of arrival nor the number of replicas changes a result.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metric::{Kind, Metric, MetricName, Signal};
use crate::observation::{ErrorKind, Outcome, Reading, Response};
use crate::stats::quantile::LogBuckets;

/// All that was seen of one signal.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Distribution {
    /// How many values.
    pub n: u64,
    /// Their sum; for facts the number of true ones.
    pub sum: f64,
    /// The sum of their squares.
    pub sum_squares: f64,
    /// Counts by logarithmic bucket; empty for facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub buckets: BTreeMap<u32, u64>,
}

impl Distribution {
    /// Adds one reading.
    pub fn add(&mut self, reading: Reading) {
        let value = match reading {
            Reading::Flag(flag) => f64::from(u8::from(flag)),
            Reading::Value(value) => {
                *self.buckets.entry(LogBuckets::index(value)).or_default() += 1;
                value
            }
        };
        self.n += 1;
        self.sum += value;
        self.sum_squares += value * value;
    }

    /// Adds everything that another distribution holds.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.sum += other.sum;
        self.sum_squares += other.sum_squares;
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }

    /// The mean; nothing without values.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }

    /// The value below which a share `q` (0 to 1) lies, from the buckets; nothing without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        quantile_of(&self.buckets, q)
    }
}

/// The value below which a share `q` of the counted values lies, within the width of a bucket.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts stay far below 2^52 and the rank is clamped to 1..=n"
)]
pub fn quantile_of(buckets: &BTreeMap<u32, u64>, q: f64) -> Option<f64> {
    let n: u64 = buckets.values().sum();
    if n == 0 {
        return None;
    }
    let rank = ((q * n as f64).ceil() as u64).clamp(1, n);
    let mut seen = 0;
    for (bucket, count) in buckets {
        seen += count;
        if seen >= rank {
            return Some(LogBuckets::value(*bucket));
        }
    }
    None
}

/// Everything seen of one variant in some span of time, for display.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Sessions that were assigned.
    #[serde(default)]
    pub sessions: u64,
    /// Requests that ended.
    #[serde(default)]
    pub requests: u64,
    /// Requests that failed, by who failed.
    #[serde(default)]
    pub errors: BTreeMap<ErrorKind, u64>,
    /// By signal.
    #[serde(default)]
    pub signals: BTreeMap<Signal, Distribution>,
}

impl Tally {
    /// Adds one response.
    pub fn add_response(&mut self, response: &Response) {
        self.requests += 1;
        if let Some(kind) = response.error {
            *self.errors.entry(kind).or_default() += 1;
        }
        for signal in Signal::of_responses() {
            if let Some(reading) = response.read(&signal) {
                self.signals.entry(signal).or_default().add(reading);
            }
        }
    }

    /// Adds one outcome.
    pub fn add_outcome(&mut self, outcome: &Outcome) {
        let reading = match outcome.signal {
            Signal::Completion | Signal::Escalation => Reading::Flag(outcome.value >= 0.5),
            _ => Reading::Value(outcome.value),
        };
        let distribution = self.signals.entry(outcome.signal.clone()).or_default();
        match (&outcome.signal, reading) {
            // Scores can be negative, where logarithmic buckets tell nothing.
            (Signal::Sentiment, Reading::Value(value)) => {
                distribution.n += 1;
                distribution.sum += value;
                distribution.sum_squares += value * value;
            }
            _ => distribution.add(reading),
        }
    }

    /// Adds everything that another tally holds.
    pub fn merge(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.requests += other.requests;
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        for (signal, distribution) in &other.signals {
            self.signals.entry(signal.clone()).or_default().merge(distribution);
        }
    }

    /// The value of a metric; nothing where nothing was seen.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn value(&self, metric: &Metric) -> Option<f64> {
        if metric.signal == Signal::Turns {
            return (self.sessions > 0 && self.requests > 0)
                .then(|| self.requests as f64 / self.sessions as f64);
        }
        let distribution = self.signals.get(&metric.signal)?;
        match metric.kind {
            Kind::Rate | Kind::Mean => distribution.mean(),
            Kind::ComplementRate => distribution.mean().map(|share| 1.0 - share),
            Kind::Quantile(q) => distribution.quantile(q),
        }
    }

    /// How many values a metric rests on.
    pub fn samples(&self, metric: &Metric) -> u64 {
        match metric.signal {
            Signal::Turns => self.sessions,
            _ => self.signals.get(&metric.signal).map_or(0, |distribution| distribution.n),
        }
    }
}

/// Against what a metric is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// Against the constant of its gate.
    Limit,
    /// Against stable.
    Stable,
}

/// What a counter counts: a metric seen by a judge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Measure {
    /// The metric.
    pub metric: MetricName,
    /// Against what it is judged.
    pub judge: Judge,
}

impl From<Measure> for String {
    fn from(measure: Measure) -> Self {
        match measure.judge {
            Judge::Limit => format!("{}:limit", measure.metric),
            Judge::Stable => format!("{}:stable", measure.metric),
        }
    }
}

impl TryFrom<String> for Measure {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (metric, judge) = match text.rsplit_once(':') {
            Some((metric, "limit")) => (metric, Judge::Limit),
            Some((metric, "stable")) => (metric, Judge::Stable),
            Some(_) | None => return Err(format!("unknown measure {text:?}")),
        };
        Ok(Self { metric: MetricName::parse(metric)?, judge })
    }
}

/// Matured sessions by what they showed of one measure.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "CountsAsStored", into = "CountsAsStored")]
pub struct Counts {
    /// Sessions by (requests counted, bad ones among them); an outcome counts as one request.
    pub pairs: BTreeMap<(u32, u32), u64>,
    /// Sessions by the bucket of their value.
    pub values: BTreeMap<u32, u64>,
}

/// [`Counts`] as stored: lists, because JSON keys are text.
#[derive(Serialize, Deserialize)]
struct CountsAsStored {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<(u32, u32, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    values: Vec<(u32, u64)>,
}

impl From<CountsAsStored> for Counts {
    fn from(stored: CountsAsStored) -> Self {
        Self {
            pairs: stored.pairs.into_iter().map(|(n, bad, count)| ((n, bad), count)).collect(),
            values: stored.values.into_iter().collect(),
        }
    }
}

impl From<Counts> for CountsAsStored {
    fn from(counts: Counts) -> Self {
        Self {
            pairs: counts.pairs.into_iter().map(|((n, bad), count)| (n, bad, count)).collect(),
            values: counts.values.into_iter().collect(),
        }
    }
}

impl Counts {
    /// Adds everything that other counts hold.
    pub fn merge(&mut self, other: &Self) {
        for (pair, count) in &other.pairs {
            *self.pairs.entry(*pair).or_default() += count;
        }
        for (bucket, count) in &other.values {
            *self.values.entry(*bucket).or_default() += count;
        }
    }

    /// What came since earlier counts of the same sessions; counts only grow.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self { pairs: grown(&self.pairs, &earlier.pairs), values: grown(&self.values, &earlier.values) }
    }

    /// How many sessions are counted.
    pub fn sessions(&self) -> u64 {
        self.pairs.values().sum::<u64>() + self.values.values().sum::<u64>()
    }

    /// Requests counted, and bad ones among them.
    pub fn requests(&self) -> (u64, u64) {
        self.pairs.iter().fold((0, 0), |(n, bad), ((pair_n, pair_bad), count)| {
            (n + u64::from(*pair_n) * count, bad + u64::from(*pair_bad) * count)
        })
    }
}

/// What was added to counts, without what stayed as it was.
fn grown<K: Ord + Copy>(now: &BTreeMap<K, u64>, earlier: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let added = now.iter().map(|(key, n)| (*key, n.saturating_sub(earlier.get(key).copied().unwrap_or(0))));
    added.filter(|(_, n)| *n > 0).collect()
}

/// The evidence of one cohort: counts by measure.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Matured sessions, whatever they showed.
    #[serde(default)]
    pub sessions: u64,
    /// By measure.
    #[serde(default)]
    pub measures: BTreeMap<Measure, Counts>,
}

impl Counters {
    /// Adds everything that other counters hold.
    pub fn merge(&mut self, other: &Self) {
        self.sessions += other.sessions;
        for (measure, counts) in &other.measures {
            self.measures.entry(measure.clone()).or_default().merge(counts);
        }
    }

    /// What came since earlier counters of the same cohort, without measures that stayed as they were.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let measures = self.measures.iter().filter_map(|(measure, counts)| {
            let added = match earlier.measures.get(measure) {
                Some(before) if before == counts => return None,
                Some(before) => counts.since(before),
                None => counts.clone(),
            };
            Some((measure.clone(), added))
        });
        Self { sessions: self.sessions.saturating_sub(earlier.sessions), measures: measures.collect() }
    }

    /// The counts of a measure; nothing where no session showed it.
    pub fn get(&self, metric: &MetricName, judge: Judge) -> Option<&Counts> {
        self.measures.get(&Measure { metric: metric.clone(), judge })
    }
}

/// Maps a value of a metric to the bucket that counts it, and back.
///
/// Metrics with a known range use 1 000 equal buckets over it; others logarithmic ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Equal steps of a thousandth of the range.
    Linear {
        /// The smallest value.
        low: f64,
        /// The largest value.
        high: f64,
    },
    /// Ratio 2^(1/32) from bucket to bucket.
    Logarithmic,
}

impl Scale {
    /// The scale of a metric.
    pub fn of(metric: &Metric) -> Self {
        metric.range.map_or(Self::Logarithmic, |(low, high)| Self::Linear { low, high })
    }

    /// The bucket of a value.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
    pub fn bucket(self, value: f64) -> u32 {
        match self {
            Self::Linear { low, high } => {
                (((value - low) / (high - low)).clamp(0.0, 1.0) * 1_000.0).round() as u32
            }
            Self::Logarithmic => LogBuckets::index(value),
        }
    }

    /// The value that stands for a bucket.
    pub fn value(self, bucket: u32) -> f64 {
        match self {
            Self::Linear { low, high } => low + (high - low) * f64::from(bucket.min(1_000)) / 1_000.0,
            Self::Logarithmic => LogBuckets::value(bucket),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(values: &[(f64, bool)]) -> Tally {
        let mut tally = Tally::default();
        for (latency, success) in values {
            tally.add_response(&Response {
                latency_ms: Some(*latency),
                success: Some(*success),
                ..Response::default()
            });
        }
        tally
    }

    proptest! {
        #[test]
        fn merging_counters_is_associative_and_commutative(parts in prop::collection::vec(
            prop::collection::vec(((0_u32..5, 0_u32..5), 1_u64..100), 0..6), 3)) {
            let counts: Vec<Counts> = parts
                .iter()
                .map(|part| Counts { pairs: part.iter().copied().collect(), values: BTreeMap::new() })
                .collect();
            let merged = |order: [usize; 3]| {
                let mut sum = Counts::default();
                for index in order {
                    sum.merge(&counts[index]);
                }
                sum
            };
            prop_assert_eq!(merged([0, 1, 2]), merged([2, 1, 0]));
            let mut right = counts[1].clone();
            right.merge(&counts[2]);
            let mut all = counts[0].clone();
            all.merge(&right);
            prop_assert_eq!(merged([0, 1, 2]), all);
        }
    }

    #[test]
    fn a_metric_without_values_has_none() {
        let catalogue = crate::metric::catalogue();
        for metric in &catalogue {
            assert_eq!(Tally::default().value(metric), None, "{}", metric.name);
        }
        let seen = tally(&[(100.0, true), (300.0, false)]);
        let value = |name: &str| seen.value(catalogue.iter().find(|m| m.name.as_str() == name).unwrap());
        assert_eq!(value("success_rate"), Some(0.5));
        assert_eq!(value("error_rate"), Some(0.5));
        assert_eq!(value("latency_avg"), Some(200.0));
        assert!((value("latency_p99").unwrap() / 300.0 - 1.0).abs() < 0.02);
        assert_eq!(value("user_satisfaction_avg"), None);
    }

    #[test]
    fn stored_counters_read_back_the_same() {
        let mut counters = Counters { sessions: 3, ..Counters::default() };
        let measure = Measure { metric: MetricName::parse("latency_p99").unwrap(), judge: Judge::Limit };
        let counts = Counts { pairs: [((2, 1), 3)].into(), values: [(7, 2)].into() };
        counters.measures.insert(measure, counts);
        let stored = serde_json::to_string(&counters).unwrap();
        assert_eq!(
            stored,
            r#"{"sessions":3,"measures":{"latency_p99:limit":{"pairs":[[2,1,3]],"values":[[7,2]]}}}"#
        );
        assert_eq!(serde_json::from_str::<Counters>(&stored).unwrap(), counters);
    }
}
