//! Several gates, one error budget.
//!
//! ```text
//! E = sum_k pi_k E_k                          act when log E >= ln(1/alpha)
//! e*_k = min over subsets S of the others of (pi_k E_k + sum_S pi_i E_i)/(pi_k + sum_S pi_i)
//! ```
//!
//! A weighted mean of e-values is an e-value under any dependence and dominates Bonferroni. A gate k with
//! `e*_k >= 1/alpha` is named as culprit (e-Holm: closed testing with the mean, so naming a healthy gate is as
//! unlikely as rolling back). Source: Vovk & Wang 2021.

use serde::{Deserialize, Serialize};

use super::logspace::{LogE, logsumexp, weighted_log_mean};

/// The accepted chance of a false alarm over a whole rollout, alpha: above 0 and below 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Alpha(f64);

/// Why a chance or budget shares were refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidBudget {
    /// The chance of a false alarm is not between 0 and 1.
    #[error("alpha {0} must be above 0 and below 1")]
    Alpha(f64),
    /// A share of the budget is not above 0.
    #[error("weight {weight} of gate {gate} must be finite and above 0")]
    Weight {
        /// Index of the gate.
        gate: usize,
        /// Its weight as given.
        weight: f64,
    },
}

impl Alpha {
    /// Takes the chance of a false alarm.
    ///
    /// # Errors
    /// [`InvalidBudget::Alpha`] unless it is above 0 and below 1.
    pub fn new(alpha: f64) -> Result<Self, InvalidBudget> {
        if alpha > 0.0 && alpha < 1.0 { Ok(Self(alpha)) } else { Err(InvalidBudget::Alpha(alpha)) }
    }

    /// The number above 0 and below 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// The log e-value at which the budget is spent, `ln(1/alpha)`; 3.0 for 5 %.
    #[must_use]
    pub fn log_limit(self) -> f64 {
        -self.0.ln()
    }
}

impl TryFrom<f64> for Alpha {
    type Error = InvalidBudget;

    fn try_from(alpha: f64) -> Result<Self, InvalidBudget> {
        Self::new(alpha)
    }
}

impl From<Alpha> for f64 {
    fn from(alpha: Alpha) -> Self {
        alpha.0
    }
}

/// How the gates share the error budget: positive shares that add up to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct BudgetShares(Vec<f64>);

impl BudgetShares {
    /// Gives each of `gates` gates the same share.
    #[must_use]
    pub fn equal(gates: usize) -> Self {
        Self::of_weights(&vec![1.0; gates]).expect("a weight of 1 is above 0")
    }

    /// Gives each gate a share in proportion to its weight.
    ///
    /// # Errors
    /// [`InvalidBudget::Weight`] when a weight is not finite and above 0, also relative to the others.
    pub fn of_weights(weights: &[f64]) -> Result<Self, InvalidBudget> {
        // Scaled by the largest first, so that the sum cannot overflow.
        let largest = weights.iter().copied().fold(0.0, f64::max);
        let total: f64 = weights.iter().map(|weight| weight / largest).sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / largest / total).collect();
        match shares.iter().position(|share| !(share.is_finite() && *share > 0.0)) {
            Some(gate) => Err(InvalidBudget::Weight { gate, weight: weights[gate] }),
            None => Ok(Self(shares)),
        }
    }

    /// The shares in the order of the gates.
    #[must_use]
    pub fn get(&self) -> &[f64] {
        &self.0
    }
}

impl TryFrom<Vec<f64>> for BudgetShares {
    type Error = InvalidBudget;

    fn try_from(shares: Vec<f64>) -> Result<Self, InvalidBudget> {
        Self::of_weights(&shares)
    }
}

impl From<BudgetShares> for Vec<f64> {
    fn from(shares: BudgetShares) -> Self {
        shares.0
    }
}

/// What several gates say together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Merged {
    /// The e-value of all gates together.
    pub combined: LogE,
    /// The log e-value at which the budget is spent, `ln(1/alpha)`.
    pub log_limit: f64,
    /// Indices of the gates that are to blame, ascending: empty exactly when `combined` is below the limit.
    pub culprits: Vec<usize>,
}

impl Merged {
    /// Tells whether the error budget is spent: the check fails.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        !self.culprits.is_empty()
    }
}

/// The number of e-values is not the number of budget shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{evidence} e-values were given for {shares} budget shares")]
pub struct LengthMismatch {
    /// E-values given.
    pub evidence: usize,
    /// Budget shares given.
    pub shares: usize,
}

/// Merges the gates' evidence and names who is to blame.
///
/// The culprits are those that e-Holm names, or the gate with the largest `pi_k E_k` when it names none.
///
/// # Errors
/// [`LengthMismatch`] unless there is one e-value per share.
pub fn merge(shares: &BudgetShares, evidence: &[LogE], alpha: Alpha) -> Result<Merged, LengthMismatch> {
    let adjusted = e_holm(shares, evidence)?;
    let weighted: Vec<(f64, LogE)> = shares.0.iter().copied().zip(evidence.iter().copied()).collect();
    let combined = weighted_log_mean(&weighted);
    let log_limit = alpha.log_limit();
    let culprits = if combined.ln() < log_limit {
        Vec::new()
    } else {
        let named: Vec<usize> =
            (0..adjusted.len()).filter(|gate| adjusted[*gate].ln() >= log_limit).collect();
        if named.is_empty() { largest(&weighted).into_iter().collect() } else { named }
    };
    Ok(Merged { combined, log_limit, culprits })
}

/// The e-value of each gate after adjustment for all others (e-Holm), in the order of the gates.
///
/// The least weighted mean over a gate and any subset of the others is reached by the others with the smallest
/// e-values: adding one lowers the mean exactly while it is below it. So prefixes of the ascending order suffice,
/// for unequal weights too.
///
/// # Errors
/// [`LengthMismatch`] unless there is one e-value per share.
pub fn e_holm(shares: &BudgetShares, evidence: &[LogE]) -> Result<Vec<LogE>, LengthMismatch> {
    if shares.0.len() != evidence.len() {
        return Err(LengthMismatch { evidence: evidence.len(), shares: shares.0.len() });
    }
    let mut ascending: Vec<usize> = (0..evidence.len()).collect();
    ascending.sort_by(|a, b| evidence[*a].ln().total_cmp(&evidence[*b].ln()).then(a.cmp(b)));
    Ok((0..evidence.len()).map(|gate| least_mean(gate, &ascending, &shares.0, evidence)).collect())
}

fn least_mean(gate: usize, ascending: &[usize], shares: &[f64], evidence: &[LogE]) -> LogE {
    let mut share = shares[gate];
    let mut log_sum = share.ln() + evidence[gate].ln();
    let mut least = evidence[gate].ln();
    for other in ascending.iter().copied().filter(|other| *other != gate) {
        share += shares[other];
        log_sum = logsumexp(&[log_sum, shares[other].ln() + evidence[other].ln()]);
        least = least.min(log_sum - share.ln());
    }
    LogE::of_finite(least)
}

/// The index of the largest weighted e-value, the first of equals.
fn largest(weighted: &[(f64, LogE)]) -> Option<usize> {
    let score = |gate: usize| weighted[gate].0.ln() + weighted[gate].1.ln();
    (0..weighted.len()).reduce(|best, gate| if score(gate) > score(best) { gate } else { best })
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
