//! Gates over requests, judged in units of sessions.
//!
//! `success_rate`, latency, tokens and tool calls are rates *over requests*, but requests of one session are
//! correlated and must not count as independent. Of each matured session its first N requests count: n of them, b
//! bad. With `s = b - p0 n`, "the request rate is at most p0" is `E[s] <= 0` exactly, and
//!
//! ```text
//! E = mean over j of prod over sessions (1 + lambda_j s)
//! lambda_j = min(l_j / nbar, 0.9 / (p0 N)),  l_j = (e^{t_j} - 1)/(1 + p0 (e^{t_j} - 1))
//! and a sixth, min(l_5, 0.9 / (p0 N)), when nbar > 1
//! ```
//!
//! t_j as in [`share::ONE_SIDED_GRID`]; nbar (stable's mean n) and N are frozen. A session of one request each makes it
//! Test C. Source: Waudby-Smith & Ramdas 2023 (betting).

use serde::{Deserialize, Serialize};

use super::{
    logspace::{LogE, LogWealth, count_as_f64},
    process::Process,
    share::{self, Share},
};

/// Sessions with the same number of counted and of bad requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PairCount {
    /// Counted requests of each session, n: at most the cap.
    pub requests: u32,
    /// Bad ones among them, b: at most n.
    pub bad: u32,
    /// How many sessions have these two numbers.
    pub sessions: u64,
}

/// The gate "at most a share p0 of requests is bad", with what is frozen before evidence starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairTest {
    limit: Share,
    requests_max: u32,
    bets: Vec<f64>,
}

/// Why numbers are no test over requests, or no counts for it.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidPairs {
    /// No request of a session would count.
    #[error("the cap of requests per session is 0; it must be at least 1")]
    NoRequests,
    /// Stable's mean number of requests is not above 0.
    #[error("mean requests per session {0} must be finite and above 0")]
    MeanRequests(f64),
    /// A session has more requests than are counted.
    #[error("a session with {requests} requests was given to a test that counts {requests_max} at most")]
    AboveCap {
        /// Requests of the session.
        requests: u32,
        /// The cap.
        requests_max: u32,
    },
    /// A session has more bad requests than requests.
    #[error("a session has {bad} bad requests out of {requests}")]
    MoreBadThanAll {
        /// Bad requests.
        bad: u32,
        /// All its requests.
        requests: u32,
    },
}

impl PairTest {
    /// A test of the limit p0 for sessions whose first `requests_max` (N) requests count, and which have
    /// `requests_mean` (nbar) of them on stable.
    ///
    /// A limit of 0 or 1 carries no information.
    ///
    /// # Errors
    /// [`InvalidPairs`] when N is 0 or nbar is not above 0.
    pub fn new(limit: Share, requests_max: u32, requests_mean: f64) -> Result<Self, InvalidPairs> {
        if requests_max == 0 {
            return Err(InvalidPairs::NoRequests);
        }
        if !(requests_mean.is_finite() && requests_mean > 0.0) {
            return Err(InvalidPairs::MeanRequests(requests_mean));
        }
        let bet_max = 0.9 / (limit.get() * f64::from(requests_max));
        let bet_per_session = |log_ratio: f64| log_ratio.exp_m1() / (1.0 + limit.get() * log_ratio.exp_m1());
        let mut bets: Vec<f64> = share::ONE_SIDED_GRID
            .iter()
            .map(|log_ratio| (bet_per_session(*log_ratio) / requests_mean).min(bet_max))
            .collect();
        if requests_mean > 1.0 {
            let largest = share::ONE_SIDED_GRID[share::ONE_SIDED_GRID.len() - 1];
            bets.push(bet_per_session(largest).min(bet_max));
        }
        Ok(Self { limit, requests_max, bets })
    }

    /// The process of canary sessions keyed by step.
    ///
    /// # Errors
    /// [`InvalidPairs`] for a session with more requests than the cap, or more bad ones than requests.
    pub fn process<'a>(
        &self,
        steps: impl IntoIterator<Item = (u16, &'a [PairCount])>,
    ) -> Result<Process, InvalidPairs> {
        let mut process = Process::empty(self.bets.len());
        for (step, pairs) in steps {
            process.add_own(step, &self.increments(pairs)?);
        }
        Ok(process)
    }

    /// The e-value of sessions that are all in one step.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub fn log_e(&self, pairs: &[PairCount]) -> Result<LogE, InvalidPairs> {
        Ok(self.process([(0, pairs)])?.from_first())
    }

    fn increments(&self, pairs: &[PairCount]) -> Result<Vec<f64>, InvalidPairs> {
        if !self.limit.is_informative() {
            return Ok(vec![0.0; self.bets.len()]);
        }
        let mut wealth = LogWealth::new(&self.bets);
        for PairCount { requests, bad, sessions } in pairs.iter().copied() {
            if requests > self.requests_max {
                return Err(InvalidPairs::AboveCap { requests, requests_max: self.requests_max });
            }
            if bad > requests {
                return Err(InvalidPairs::MoreBadThanAll { bad, requests });
            }
            wealth.add(f64::from(bad) - self.limit.get() * f64::from(requests), sessions);
        }
        Ok(wealth.finish())
    }
}

/// The share of bad requests over all sessions, the estimate that is shown; `None` without a request.
#[must_use]
pub fn bad_share(pairs: &[PairCount]) -> Option<f64> {
    let (mut bad, mut requests) = (0.0, 0.0);
    for pair in pairs {
        bad += f64::from(pair.bad) * count_as_f64(pair.sessions);
        requests += f64::from(pair.requests) * count_as_f64(pair.sessions);
    }
    (requests > 0.0).then(|| bad / requests)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::share::{ShareCount, ShareTest},
        *,
    };

    fn limit(share: f64) -> Share {
        Share::new(share).expect("a share")
    }

    fn pair(requests: u32, bad: u32, sessions: u64) -> PairCount {
        PairCount { requests, bad, sessions }
    }

    #[test]
    fn no_sessions_are_no_evidence() {
        let test = PairTest::new(limit(0.1), 20, 5.0).expect("a test");
        assert_eq!(test.log_e(&[]), Ok(LogE::ONE));
        assert_eq!(bad_share(&[]), None);
        assert_eq!(bad_share(&[pair(5, 1, 2), pair(2, 2, 1)]), Some(4.0 / 12.0));
    }

    #[test]
    fn there_is_a_sixth_bet_only_when_sessions_hold_several_requests() {
        assert_eq!(PairTest::new(limit(0.1), 20, 1.0).expect("a test").bets.len(), 5);
        assert_eq!(PairTest::new(limit(0.1), 20, 1.1).expect("a test").bets.len(), 6);
    }

    #[test]
    fn bad_input_is_refused() {
        let test = PairTest::new(limit(0.1), 3, 2.0).expect("a test");
        assert_eq!(
            test.log_e(&[pair(4, 0, 1)]),
            Err(InvalidPairs::AboveCap { requests: 4, requests_max: 3 })
        );
        assert_eq!(test.log_e(&[pair(1, 2, 1)]), Err(InvalidPairs::MoreBadThanAll { bad: 2, requests: 1 }));
        assert!(PairTest::new(limit(0.1), 0, 2.0).is_err());
        assert!(PairTest::new(limit(0.1), 3, f64::NAN).is_err());
    }

    #[test]
    fn one_bad_session_of_many_requests_counts_once_not_often() {
        let test = PairTest::new(limit(0.1), 20, 5.0).expect("a test");
        let one_session = test.log_e(&[pair(20, 20, 1), pair(5, 0, 20)]).expect("valid pairs");
        let spread = test.log_e(&[pair(5, 1, 20), pair(20, 0, 1)]).expect("valid pairs");
        assert!(one_session.ln() < 3.0, "{one_session:?} would blame one session");
        assert!(spread.ln() > 0.0 && spread.ln() < 3.0);
    }

    proptest! {
        /// Below p0 = 0.69 no bet of Test C is cut by the safety bound.
        #[test]
        fn with_one_request_per_session_it_is_test_c(p0 in 0.001..0.69_f64, bad in 0_u64..2000, good in 0_u64..20_000) {
            let pairs = PairTest::new(limit(p0), 1, 1.0).expect("a test");
            let of_pairs = pairs.log_e(&[pair(1, 1, bad), pair(1, 0, good)]).expect("valid pairs").ln();
            let count = ShareCount { share: limit(p0), hits: bad, misses: good };
            let of_share = ShareTest::one_sided().log_e(&[count]).ln();
            prop_assert!((of_pairs - of_share).abs() < 1e-9 * (1.0 + of_share.abs()));
        }

        #[test]
        fn no_session_takes_more_than_nine_tenths(p0 in 0.0001..0.9999_f64, cap in 1_u32..=20, mean in 0.5..20.0_f64) {
            let test = PairTest::new(limit(p0), cap, mean).expect("a test");
            for bet in &test.bets {
                prop_assert!(1.0 - bet * p0 * f64::from(cap) >= 0.1 - 1e-12);
            }
        }
    }
}
