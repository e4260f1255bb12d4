//! The smallest harm a threshold gate can be expected to see at the traffic that is there.
//!
//! Said before a rollout starts and while it runs: after 30 canary sessions a gate
//! `success_rate >= 90%` catches a collapse, not a small decline. The number is exact
//! for a gate with one draw per session (see `share`) that is looked at after
//! every session, and contains no simulation.

use super::share::ONE_SIDED_GRID;

/// The share of rollouts in which a harm must be caught to be called visible: 4 of 5.
pub const CAUGHT: f64 = 0.8;

/// Up to this many sessions every look is counted; beyond, only the last one.
const EXACT_SESSIONS: u64 = 4096;

/// Probabilities below this are not followed any further.
const NEGLIGIBLE: f64 = 1e-18;

/// Halvings of the rate's range: 2^-20 is a ten-thousandth of a point.
const HALVINGS: u32 = 20;

/// A gate on a failure rate as its evidence sees it.
///
/// The allowed failure rate `p0` is strictly between 0 and 1 and the e-value that the
/// gate must reach is above 1, so every question below has an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThresholdGate {
    allowed: f64,
    ln_needed: f64,
    /// Per grid point t: ln(1 + p0 (e^t - 1)).
    ln_means: [f64; ONE_SIDED_GRID.len()],
}

impl ThresholdGate {
    /// Describes a gate: `allowed` is the failure rate in (0, 1) that is still fine,
    /// `alpha` the error budget in (0, 1), `share` the gate's part of it in (0, 1].
    ///
    /// The gate's own e-value must reach `1 / (alpha share)`: nothing is expected from
    /// the other gates. None outside of these ranges.
    #[must_use]
    pub fn new(allowed: f64, alpha: f64, share: f64) -> Option<Self> {
        let in_range =
            allowed > 0.0 && allowed < 1.0 && alpha > 0.0 && alpha < 1.0 && share > 0.0 && share <= 1.0;
        in_range.then(|| Self {
            allowed,
            ln_needed: -(alpha * share).ln(),
            ln_means: ONE_SIDED_GRID.map(|t| (allowed * t.exp_m1()).ln_1p()),
        })
    }

    /// Returns the smallest failure rate that is caught in 4 of 5 rollouts within `n_canary` sessions.
    ///
    /// None when even a canary that always fails would not be caught. Above 4096
    /// sessions only the last look counts, which is cautious by a small fraction.
    #[must_use]
    pub fn smallest_harm(&self, n_canary: u64) -> Option<f64> {
        let exact = self.bisect(&Looks::every(self, n_canary.min(EXACT_SESSIONS)));
        if n_canary <= EXACT_SESSIONS {
            return exact;
        }
        let at_the_end = self.bisect(&Looks::last(self, n_canary));
        // Looking longer never hides what was already visible.
        match (exact, at_the_end) {
            (Some(exact), Some(at_the_end)) => Some(exact.min(at_the_end)),
            (one, other) => one.or(other),
        }
    }

    /// Returns the chance that a failure rate in [0, 1] is caught within `n_canary` sessions.
    #[must_use]
    pub fn chance_caught(&self, failure_rate: f64, n_canary: u64) -> f64 {
        let looks = if n_canary <= EXACT_SESSIONS {
            Looks::every(self, n_canary)
        } else {
            Looks::last(self, n_canary)
        };
        looks.chance(failure_rate)
    }

    /// Returns the fewest canary sessions within which a failure rate is caught in 4 of 5 rollouts.
    ///
    /// None when `up_to` sessions are not enough.
    #[must_use]
    pub fn sessions_to_catch(&self, failure_rate: f64, up_to: u64) -> Option<u64> {
        let mut missed = Missed::all();
        for (limit, n) in Looks::every(self, up_to.min(EXACT_SESSIONS)).limits().zip(1..) {
            missed.one_more_session(failure_rate, limit);
            if 1.0 - missed.probability() >= CAUGHT {
                return Some(n);
            }
        }
        let caught_by = |n| Looks::last(self, n).chance(failure_rate) >= CAUGHT;
        if up_to <= EXACT_SESSIONS || !caught_by(up_to) {
            return None;
        }
        let (mut not_enough, mut enough) = (EXACT_SESSIONS, up_to);
        while enough - not_enough > 1 {
            let middle = not_enough + (enough - not_enough) / 2;
            if caught_by(middle) {
                enough = middle;
            } else {
                not_enough = middle;
            }
        }
        Some(enough)
    }

    /// The smallest rate above the allowed one that these looks catch often enough.
    fn bisect(&self, looks: &Looks) -> Option<f64> {
        if looks.chance(1.0) < CAUGHT {
            return None;
        }
        let (mut missed, mut caught) = (self.allowed, 1.0);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (missed + caught);
            if looks.chance(middle) >= CAUGHT {
                caught = middle;
            } else {
                missed = middle;
            }
        }
        Some(caught)
    }

    /// Whether `failures` in `n` sessions are enough evidence.
    fn fails(&self, failures: u64, n: u64) -> bool {
        let (k, n) = (failures as f64, n as f64);
        let exponents: [f64; ONE_SIDED_GRID.len()] =
            std::array::from_fn(|j| k * ONE_SIDED_GRID[j] - n * self.ln_means[j]);
        let largest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = exponents.iter().map(|exponent| (exponent - largest).exp()).sum();
        largest + (sum / ONE_SIDED_GRID.len() as f64).ln() >= self.ln_needed
    }
}

/// The least number of failures that fails the gate, at each look.
enum Looks {
    /// After session 1, 2, 3 and so on.
    Every(Vec<u64>),
    /// Only after the last of `n` sessions.
    Last { n: u64, limit: u64 },
}

impl Looks {
    fn every(gate: &ThresholdGate, n: u64) -> Self {
        // A success never adds evidence, so the limit only ever grows.
        let mut limit = 0;
        let limits = (1..=n).map(|looked_at| {
            while limit <= looked_at && !gate.fails(limit, looked_at) {
                limit += 1;
            }
            limit
        });
        Self::Every(limits.collect())
    }

    fn last(gate: &ThresholdGate, n: u64) -> Self {
        let (mut fine, mut limit) = (0, n + 1);
        while limit - fine > 1 {
            let middle = fine + (limit - fine) / 2;
            if gate.fails(middle, n) {
                limit = middle;
            } else {
                fine = middle;
            }
        }
        Self::Last { n, limit }
    }

    fn limits(&self) -> impl Iterator<Item = u64> {
        match self {
            Self::Every(limits) => limits.as_slice(),
            Self::Last { .. } => &[],
        }
        .iter()
        .copied()
    }

    /// The chance that a failure rate reaches a limit at one of the looks.
    fn chance(&self, failure_rate: f64) -> f64 {
        match self {
            Self::Every(_) => {
                let mut missed = Missed::all();
                for limit in self.limits() {
                    missed.one_more_session(failure_rate, limit);
                }
                1.0 - missed.probability()
            }
            Self::Last { n, limit } => at_least(*limit, *n, failure_rate),
        }
    }
}

/// The rollouts that were not caught so far: the probability of each number of failures.
struct Missed {
    /// The number of failures that the first entry stands for.
    first: u64,
    probabilities: Vec<f64>,
}

impl Missed {
    fn all() -> Self {
        Self { first: 0, probabilities: vec![1.0] }
    }

    fn probability(&self) -> f64 {
        self.probabilities.iter().sum()
    }

    /// Draws one more session, then removes the rollouts that have `limit` failures or more.
    fn one_more_session(&mut self, failure_rate: f64, limit: u64) {
        let mut failed_before = 0.0;
        for probability in &mut self.probabilities {
            let here = *probability;
            *probability = here * (1.0 - failure_rate) + failed_before * failure_rate;
            failed_before = here;
        }
        self.probabilities.push(failed_before * failure_rate);
        let kept = usize::try_from(limit.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.probabilities.truncate(kept);
        while self.probabilities.last().is_some_and(|&last| last < NEGLIGIBLE) {
            self.probabilities.pop();
        }
        let thin = self.probabilities.iter().take_while(|&&p| p < NEGLIGIBLE).count();
        self.probabilities.drain(..thin);
        self.first += thin as u64;
    }
}

/// The chance of at least `limit` failures in `n` sessions, from the ratios of neighbouring terms.
fn at_least(limit: u64, n: u64, failure_rate: f64) -> f64 {
    if failure_rate <= 0.0 || failure_rate >= 1.0 {
        return if limit == 0 || (failure_rate >= 1.0 && limit <= n) { 1.0 } else { 0.0 };
    }
    let odds = failure_rate / (1.0 - failure_rate);
    let mode = (((n + 1) as f64 * failure_rate).floor() as u64).min(n);
    let (mut reached, mut all) = (0.0, 0.0);
    let mut count = |failures: u64, term: f64| {
        all += term;
        if failures >= limit {
            reached += term;
        }
    };
    // Terms relative to the most likely one, outwards until they no longer matter.
    let mut term = 1.0;
    let mut failures = mode;
    while term > NEGLIGIBLE {
        count(failures, term);
        if failures == n {
            break;
        }
        term *= (n - failures) as f64 / (failures + 1) as f64 * odds;
        failures += 1;
    }
    let mut term = 1.0;
    for failures in (1..=mode).rev() {
        term *= failures as f64 / ((n - failures + 1) as f64 * odds);
        if term <= NEGLIGIBLE {
            break;
        }
        count(failures - 1, term);
    }
    reached / all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gate that shares a budget of 5 % equally with one other gate.
    fn one_of_two_gates(allowed: f64) -> ThresholdGate {
        ThresholdGate::new(allowed, 0.05, 0.5).expect("the arguments are in range")
    }

    fn check_table(allowed: f64, rows: &[(u64, f64)]) {
        let gate = one_of_two_gates(allowed);
        for &(n, percent) in rows {
            let found = 100.0 * gate.smallest_harm(n).expect("a broken canary is caught");
            assert!((found - percent).abs() < 1.0, "after {n} sessions {found:.1} %, not {percent} %");
        }
    }

    #[test]
    fn a_ten_percent_gate_sees_what_the_documentation_says() {
        check_table(0.10, &[(20, 45.0), (30, 37.0), (50, 30.0), (100, 23.0), (200, 19.0), (500, 16.0)]);
    }

    #[test]
    fn a_p99_gate_sees_what_the_documentation_says() {
        check_table(0.01, &[(20, 26.0), (50, 13.0), (100, 8.0), (200, 5.0), (500, 3.0)]);
    }

    #[test]
    fn too_few_sessions_catch_nothing() {
        let gate = one_of_two_gates(0.10);
        assert_eq!(gate.smallest_harm(0), None);
        assert_eq!(gate.smallest_harm(2), None);
        assert_eq!(gate.sessions_to_catch(0.11, 100), None);
    }

    #[test]
    fn a_rate_that_is_exactly_allowed_is_rarely_caught() {
        // Ville's inequality: at most alpha times the gate's share.
        let chance = one_of_two_gates(0.10).chance_caught(0.10, 4000);
        assert!(chance > 0.0 && chance <= 0.025, "{chance}");
    }

    #[test]
    fn the_sessions_needed_for_a_harm_and_the_harm_seen_in_them_agree() {
        let gate = one_of_two_gates(0.10);
        for n in [20, 100, 500] {
            let harm = gate.smallest_harm(n).expect("a broken canary is caught");
            assert_eq!(gate.sessions_to_catch(harm, 1000), Some(n));
        }
    }

    #[test]
    fn more_sessions_never_see_less() {
        let gate = one_of_two_gates(0.10);
        let harms = [20, 50, 500, 4096, 4097, 20_000, 1_000_000].map(|n| gate.smallest_harm(n));
        for pair in harms.windows(2) {
            assert!(pair[0] >= pair[1], "{harms:?}");
        }
        let last = harms[6].expect("a broken canary is caught");
        // The smallest bet loses money below a risk ratio of about 1.03, however long it is held.
        assert!(last > 0.103 && last < 0.1032, "{last}");
    }

    #[test]
    fn a_small_harm_beyond_the_exact_range_is_found_in_time() {
        let n = one_of_two_gates(0.10).sessions_to_catch(0.105, 1_000_000).expect("a million is enough");
        assert!((4097..100_000).contains(&n), "{n}");
        assert_eq!(one_of_two_gates(0.10).sessions_to_catch(0.105, n - 1), None);
    }

    #[test]
    fn a_gate_outside_of_its_ranges_does_not_exist() {
        for (allowed, alpha, share) in [
            (0.0, 0.05, 1.0),
            (1.0, 0.05, 1.0),
            (f64::NAN, 0.05, 1.0),
            (0.1, 0.0, 1.0),
            (0.1, 1.0, 1.0),
            (0.1, 0.05, 0.0),
            (0.1, 0.05, 1.1),
        ] {
            assert_eq!(ThresholdGate::new(allowed, alpha, share), None);
        }
    }

    #[test]
    fn the_tail_of_ten_coins_is_exact() {
        assert!((at_least(8, 10, 0.5) - 56.0 / 1024.0).abs() < 1e-15);
        assert_eq!(at_least(0, 10, 0.0), 1.0);
        assert_eq!(at_least(10, 10, 1.0), 1.0);
        assert_eq!(at_least(11, 10, 1.0), 0.0);
    }
}
