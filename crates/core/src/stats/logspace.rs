//! Arithmetic on logarithms of e-values.

use serde::{Deserialize, Serialize};

/// The natural logarithm of an e-value; always finite.
///
/// 0 is no evidence, `ln(1/alpha)` is where an error budget of alpha is spent, negative values speak for "nothing
/// is wrong".
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct LogE(f64);

/// A logarithm of an e-value was infinite or not a number.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is no logarithm of an e-value; it must be finite")]
pub struct NotFinite(pub f64);

impl LogE {
    /// An e-value of 1: no evidence either way.
    pub const ONE: Self = Self(0.0);

    /// Takes the natural logarithm of an e-value.
    ///
    /// # Errors
    /// [`NotFinite`] when it is infinite or not a number.
    pub fn new(ln: f64) -> Result<Self, NotFinite> {
        if ln.is_finite() { Ok(Self(ln)) } else { Err(NotFinite(ln)) }
    }

    /// Takes a logarithm that is finite because every wealth factor is at least 0.1 and every count is a `u64`.
    pub(super) fn of_finite(ln: f64) -> Self {
        Self::new(ln).expect("a finite number of factors between 0.1 and 1e300 has a finite logarithm")
    }

    /// The natural logarithm.
    #[must_use]
    pub fn ln(self) -> f64 {
        self.0
    }

    /// The e-value itself; infinite above a logarithm of about 709.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0.exp()
    }
}

impl TryFrom<f64> for LogE {
    type Error = NotFinite;

    fn try_from(ln: f64) -> Result<Self, NotFinite> {
        Self::new(ln)
    }
}

impl From<LogE> for f64 {
    fn from(log_e: LogE) -> Self {
        log_e.0
    }
}

/// `ln(sum of exp(x))` without overflow, summed in the order given; minus infinity for no terms.
#[must_use]
pub fn logsumexp(terms: &[f64]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return largest;
    }
    largest + terms.iter().map(|term| (term - largest).exp()).sum::<f64>().ln()
}

/// `ln(sum of weight x E)` for weights that are positive and add up to 1, summed in the order given.
///
/// A weighted mean of e-values is an e-value under any dependence between them. No terms give [`LogE::ONE`].
#[must_use]
pub fn weighted_log_mean(terms: &[(f64, LogE)]) -> LogE {
    if terms.is_empty() {
        return LogE::ONE;
    }
    let logs: Vec<f64> = terms.iter().map(|(weight, log_e)| weight.ln() + log_e.ln()).collect();
    LogE::of_finite(logsumexp(&logs))
}

/// The logarithm of the plain mean of e-values; [`LogE::ONE`] for none.
#[must_use]
pub fn log_mean(terms: &[LogE]) -> LogE {
    if terms.is_empty() {
        return LogE::ONE;
    }
    let logs: Vec<f64> = terms.iter().map(|log_e| log_e.ln()).collect();
    LogE::of_finite(logsumexp(&logs) - count_as_f64(terms.len() as u64).ln())
}

/// A count as a float; exact below 2^53, which no rollout reaches.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 sessions")]
pub(super) fn count_as_f64(count: u64) -> f64 {
    count as f64
}

/// The sums of `n ln(1 + lambda_j s)` over scores, one for each bet `lambda_j`.
///
/// Scores with few sessions are multiplied first and share one logarithm; scores with many take `ln_1p` each. The
/// bets must keep `1 + lambda s` at or above 0.1.
#[derive(Debug)]
pub(super) struct LogWealth<'a> {
    bets: &'a [f64],
    products: Vec<f64>,
    logs: Vec<f64>,
}

/// Up to this count a power is cheaper than a logarithm.
const COUNT_MULTIPLIED_MAX: u64 = 64;
/// A product is turned into its logarithm outside of this range, well before it could overflow.
const PRODUCT_RANGE: std::ops::Range<f64> = 1e-100..1e100;

impl<'a> LogWealth<'a> {
    /// Starts with no sessions: every sum is 0.
    pub(super) fn new(bets: &'a [f64]) -> Self {
        Self { bets, products: vec![1.0; bets.len()], logs: vec![0.0; bets.len()] }
    }

    /// Adds `count` sessions with the same score.
    pub(super) fn add(&mut self, score: f64, count: u64) {
        for ((bet, product), log) in self.bets.iter().zip(&mut self.products).zip(&mut self.logs) {
            let gain = bet * score;
            // Together with the range of the product, 64 factors of at most 16 cannot overflow.
            if count <= COUNT_MULTIPLIED_MAX && gain < 15.0 {
                *product *= power(1.0 + gain, count);
                if !PRODUCT_RANGE.contains(product) {
                    *log += product.ln();
                    *product = 1.0;
                }
            } else {
                *log += count_as_f64(count) * gain.ln_1p();
            }
        }
    }

    /// The sums, one for each bet.
    pub(super) fn finish(self) -> Vec<f64> {
        self.logs.iter().zip(&self.products).map(|(log, product)| log + product.ln()).collect()
    }
}

/// `base^exponent` by squaring, in a fixed order of multiplications.
fn power(base: f64, exponent: u64) -> f64 {
    let (mut result, mut square, mut rest) = (1.0, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result *= square;
        }
        rest >>= 1;
        if rest > 0 {
            square *= square;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_terms_are_no_evidence() {
        assert_eq!(weighted_log_mean(&[]), LogE::ONE);
        assert_eq!(log_mean(&[]), LogE::ONE);
        assert_eq!(logsumexp(&[]), f64::NEG_INFINITY);
    }

    #[test]
    fn large_terms_do_not_overflow() {
        assert!((logsumexp(&[1000.0, 1000.0]) - (1000.0 + 2.0_f64.ln())).abs() < 1e-12);
        assert!((logsumexp(&[-1000.0, -1000.0]) - (-1000.0 + 2.0_f64.ln())).abs() < 1e-12);
    }

    #[test]
    fn a_log_e_is_finite() {
        assert!(LogE::new(f64::NAN).is_err());
        assert!(LogE::new(f64::NEG_INFINITY).is_err());
        assert_eq!(serde_json::from_str::<LogE>("1.5").expect("a number"), LogE::of_finite(1.5));
    }

    proptest! {
        #[test]
        fn multiplying_first_equals_one_logarithm_per_score(
            scores in prop::collection::vec((-1.0..1.0_f64, 0_u64..200), 0..60),
            bet in 0.0..0.9_f64,
        ) {
            let mut wealth = LogWealth::new(std::slice::from_ref(&bet));
            let mut expected = 0.0;
            for (score, count) in scores {
                wealth.add(score, count);
                expected += count_as_f64(count) * (bet * score).ln_1p();
            }
            let sum = wealth.finish()[0];
            prop_assert!((sum - expected).abs() < 1e-10 * (1.0 + expected.abs()), "{sum} is not {expected}");
        }
    }
}
