//! Buckets for latency, tokens and cost, and the quantiles that are read from them.
//!
//! Values without an upper limit are counted in fixed buckets whose edges grow by
//! a constant factor, so that two replicas merge by addition. A quantile read from
//! the buckets is right to about 1.1 % (half a bucket), which is for display;
//! evidence counts values above a frozen edge instead.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Maps positive values onto buckets whose edges grow by 2^(1/32), about 2.2 %.
///
/// Bucket 0 holds zero, negative values, NaN and everything below the smallest
/// edge. Bucket `b >= 1` holds `[edge(b), edge(b + 1))` with
/// `edge(b) = 1e-6 * 2^((b - 1) / 32)`, in the unit of the value. The last bucket
/// also holds everything above 1e12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBuckets;

impl LogBuckets {
    /// The smallest value that has a bucket of its own, in the unit of the value.
    pub const SMALLEST: f64 = 1e-6;

    /// The largest value that is told apart from larger ones, in the unit of the value.
    pub const LARGEST: f64 = 1e12;

    /// The number of buckets in which the value doubles.
    pub const PER_DOUBLING: u32 = 32;

    /// The last bucket: the one that holds 1e12 and everything above.
    /// 18 decades are 59.79 doublings, 1913.4 buckets after bucket 1.
    pub const LAST: u32 = 1914;

    /// Returns the bucket of a value, from 0 to [`LogBuckets::LAST`].
    #[must_use]
    pub fn index(value: f64) -> u32 {
        if value.is_nan() || value < Self::SMALLEST {
            return 0;
        }
        if value >= Self::LARGEST {
            return Self::LAST;
        }
        let doublings = (value / Self::SMALLEST).log2();
        // In range: 0 <= doublings < 59.8, so the cast neither wraps nor saturates.
        let guess = 1 + (doublings * f64::from(Self::PER_DOUBLING)).floor() as u32;
        // The logarithm may be off by one rounding at an edge; the edges decide.
        if value < Self::lower_edge(guess) {
            guess - 1
        } else if guess < Self::LAST && value >= Self::lower_edge(guess + 1) {
            guess + 1
        } else {
            guess
        }
    }

    /// Returns the value a bucket stands for: the geometric middle of its edges, 0 for bucket 0.
    #[must_use]
    pub fn value(bucket: u32) -> f64 {
        if bucket == 0 {
            return 0.0;
        }
        Self::edge_after(f64::from(bucket.min(Self::LAST)) - 0.5)
    }

    /// Returns the smallest value of a bucket, 0 for bucket 0.
    #[must_use]
    pub fn lower_edge(bucket: u32) -> f64 {
        if bucket == 0 {
            return 0.0;
        }
        Self::edge_after(f64::from(bucket) - 1.0)
    }

    /// The edge `steps` buckets above the smallest one.
    fn edge_after(steps: f64) -> f64 {
        Self::SMALLEST * (steps / f64::from(Self::PER_DOUBLING)).exp2()
    }
}

/// A quantile of a histogram with rank bounds, for display.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QuantileEstimate {
    /// The middle of the bucket that holds the quantile, in the unit of the value.
    pub value: f64,
    /// The lower bound, in the unit of the value; none when it lies below the smallest sample.
    pub lower: Option<f64>,
    /// The upper bound, in the unit of the value; none when it lies above the largest sample.
    pub upper: Option<f64>,
    /// The number of values in the histogram, at least 1.
    pub n_samples: u64,
}

/// The two-sided 95 % point of the normal distribution.
const Z_95: f64 = 1.959_963_984_540_054;

/// Estimates quantile `q` (0 < q < 1) of a histogram over [`LogBuckets`] with 95 % rank bounds.
///
/// The estimate is the value of rank `ceil(q n)`. The bounds are the values of ranks
/// `floor(n q - z s)` and `ceil(n q + z s) + 1` with `s = sqrt(n q (1 - q))` and
/// z = 1.96: for independent values the number of values below the true quantile is
/// binomial (n, q), and between these ranks about 95 % of the time. They hold for one look, not for
/// many, and nothing is decided on them. Returns none for an empty histogram or a `q`
/// outside (0, 1).
#[must_use]
pub fn quantile(histogram: &BTreeMap<u32, u64>, q: f64) -> Option<QuantileEstimate> {
    let n_samples: u64 = histogram.values().sum();
    if n_samples == 0 || !(q > 0.0 && q < 1.0) {
        return None;
    }
    let n = n_samples as f64;
    let spread = Z_95 * (n * q * (1.0 - q)).sqrt();
    let middle = bucket_of_rank(histogram, (n * q).ceil())?;
    let lower = bucket_of_rank(histogram, (n * q - spread).floor());
    let upper = bucket_of_rank(histogram, (n * q + spread).ceil() + 1.0);
    Some(QuantileEstimate {
        value: LogBuckets::value(middle),
        lower: lower.map(LogBuckets::lower_edge),
        upper: upper.map(|bucket| LogBuckets::lower_edge(bucket + 1)),
        n_samples,
    })
}

/// Counts the values of a histogram that are certainly above `limit`: those in later buckets than the limit's own.
#[must_use]
pub fn count_above(histogram: &BTreeMap<u32, u64>, limit: f64) -> u64 {
    let first = LogBuckets::index(limit).saturating_add(1);
    histogram.range(first..).map(|(_, count)| count).sum()
}

/// The bucket that holds the value of a rank (from 1); none outside of the data.
fn bucket_of_rank(histogram: &BTreeMap<u32, u64>, rank: f64) -> Option<u32> {
    if rank < 1.0 {
        return None;
    }
    let mut seen = 0_u64;
    for (&bucket, &count) in histogram {
        seen += count;
        if count > 0 && seen as f64 >= rank {
            return Some(bucket);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram_of(values: impl IntoIterator<Item = f64>) -> BTreeMap<u32, u64> {
        let mut histogram = BTreeMap::new();
        for value in values {
            *histogram.entry(LogBuckets::index(value)).or_insert(0) += 1;
        }
        histogram
    }

    #[test]
    fn values_without_a_logarithm_are_in_bucket_zero() {
        for value in [0.0, -0.0, -3.0, f64::NAN, f64::NEG_INFINITY, 9.9e-7] {
            assert_eq!(LogBuckets::index(value), 0, "{value}");
        }
        assert_eq!(LogBuckets::value(0), 0.0);
        assert_eq!(LogBuckets::lower_edge(0), 0.0);
        assert_eq!(LogBuckets::index(1e-6), 1);
    }

    #[test]
    fn large_values_share_the_last_bucket() {
        for value in [1e12, 1e13, f64::MAX, f64::INFINITY] {
            assert_eq!(LogBuckets::index(value), LogBuckets::LAST);
        }
        assert!(LogBuckets::lower_edge(LogBuckets::LAST) <= LogBuckets::LARGEST);
        assert!(LogBuckets::lower_edge(LogBuckets::LAST + 1) > LogBuckets::LARGEST);
    }

    #[test]
    fn every_edge_and_every_middle_is_in_its_own_bucket() {
        for bucket in 1..=LogBuckets::LAST {
            assert_eq!(LogBuckets::index(LogBuckets::lower_edge(bucket)), bucket);
            assert_eq!(LogBuckets::index(LogBuckets::value(bucket)), bucket);
        }
    }

    #[test]
    fn the_median_of_one_to_a_thousand_is_within_two_percent() {
        let histogram = histogram_of((1..=1000).map(f64::from));
        let median = quantile(&histogram, 0.5).expect("the histogram has values");
        assert!((median.value / 500.0 - 1.0).abs() < 0.02, "{median:?}");
        // Rank bounds 500 +- 31, widened to bucket edges.
        let lower = median.lower.expect("rank 469 exists");
        let upper = median.upper.expect("rank 532 exists");
        assert!((457.0..=469.0).contains(&lower), "{lower}");
        assert!((532.0..=545.0).contains(&upper), "{upper}");
    }

    #[test]
    fn a_tail_quantile_of_few_values_has_no_upper_bound() {
        let estimate = quantile(&histogram_of((1..=50).map(f64::from)), 0.99).expect("not empty");
        assert_eq!(estimate.upper, None);
        assert!(estimate.lower.is_some());
    }

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(quantile(&BTreeMap::new(), 0.5), None);
        assert_eq!(quantile(&BTreeMap::from([(7, 0)]), 0.5), None);
        for q in [0.0, 1.0, f64::NAN] {
            assert_eq!(quantile(&BTreeMap::from([(7, 1)]), q), None);
        }
    }

    #[test]
    fn values_in_the_bucket_of_the_limit_do_not_count_as_above() {
        let histogram = histogram_of([100.0, 3000.0, 3001.0, 4000.0, 9000.0]);
        assert_eq!(count_above(&histogram, 3000.0), 2);
        assert_eq!(count_above(&histogram, f64::INFINITY), 0);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_value(exponent in -6.0..12.0_f64) {
            let value = 10_f64.powf(exponent);
            let bucket = LogBuckets::index(value);
            prop_assert!(bucket == 0 || LogBuckets::lower_edge(bucket) <= value);
            prop_assert!(value < LogBuckets::lower_edge(bucket + 1));
            prop_assert!(bucket == 0 || (LogBuckets::value(bucket) / value - 1.0).abs() < 0.0112);
        }

        #[test]
        fn a_larger_value_is_never_in_an_earlier_bucket(a in 0.0..1e13_f64, b in 0.0..1e13_f64) {
            let (small, large) = if a <= b { (a, b) } else { (b, a) };
            prop_assert!(LogBuckets::index(small) <= LogBuckets::index(large));
        }
    }
}
