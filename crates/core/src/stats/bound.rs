//! How many sessions any test needs at the very least: the information bound.
//!
//! A harm is a failure rate `p_c` of the canary above the rate `p_s` of stable. A
//! session that is assigned to the canary with probability `w` tells at most
//!
//! ```text
//! I(w) = w KL(p_c, p) + (1 - w) KL(p_s, p),   p = w p_c + (1 - w) p_s
//! ```
//!
//! nats about it, where `KL` is the divergence between two coins. No test that is
//! wrong at most a fraction alpha of the time can expect to see the harm before the
//! sum of `I(w)` over the sessions reaches `ln(1/alpha)`. Serin's tests need 1.3 to
//! 1.5 times as many. The bound is for plans and benchmarks; nothing is decided on it.

use serde::{Deserialize, Serialize};

use super::share::Share;

/// Returns the information of one session in nats: `I(w)`, 0 when the rates are equal or `w` is 0 or 1.
///
/// All three arguments are shares in [0, 1]: the failure rates of canary and
/// stable, and the probability of canary.
#[must_use]
pub fn information(p_canary: f64, p_stable: f64, w: f64) -> f64 {
    let mixed = w * p_canary + (1.0 - w) * p_stable;
    w * divergence(p_canary, mixed) + (1.0 - w) * divergence(p_stable, mixed)
}

/// The fewest sessions in which a harm can be seen, on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Sessions of both variants; a real number at a fixed weight, where it is an expectation.
    pub n_sessions: f64,
    /// Sessions that are exposed to the canary among them.
    pub n_canary: f64,
}

/// Returns the bound at a fixed weight: `ln(1/alpha) / I(w)` sessions; none when `I(w)` is 0.
///
/// `alpha` is the chance of a false alarm, in (0, 1).
#[must_use]
pub fn at_fixed_weight(p_canary: f64, p_stable: f64, w: f64, alpha: f64) -> Option<Bound> {
    let per_session = information(p_canary, p_stable, w);
    if per_session <= 0.0 {
        return None;
    }
    let n_sessions = -alpha.ln() / per_session;
    Some(Bound { n_sessions, n_canary: w * n_sessions })
}

/// A number of sessions that are assigned with the same weight, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// The probability of canary.
    pub weight: Share,
    /// The number of sessions of both variants.
    pub n_sessions: u64,
}

/// Returns the bound over a plan: the least number of sessions with `sum of I(w_i) >= ln(1/alpha)`.
///
/// Whole sessions; none when the plan ends before. `alpha` is in (0, 1).
#[must_use]
pub fn over_plan(p_canary: f64, p_stable: f64, plan: &[Stretch], alpha: f64) -> Option<Bound> {
    let mut missing = -alpha.ln();
    let mut bound = Bound { n_sessions: 0.0, n_canary: 0.0 };
    for stretch in plan {
        let per_session = information(p_canary, p_stable, stretch.weight.get());
        let in_stretch = stretch.n_sessions as f64;
        let needed = (missing / per_session).ceil();
        // Without information `needed` is infinite, and the whole stretch passes.
        let taken = if needed <= in_stretch { needed } else { in_stretch };
        bound.n_sessions += taken;
        bound.n_canary += stretch.weight.get() * taken;
        if needed <= in_stretch {
            return Some(bound);
        }
        missing -= per_session * in_stretch;
    }
    None
}

/// The divergence of coin `q` from coin `p` in nats, `KL(p, q)`.
fn divergence(p: f64, q: f64) -> f64 {
    relative_entropy(p, q) + relative_entropy(1.0 - p, 1.0 - q)
}

/// `p ln(p / q)`, 0 at p = 0, through `ln_1p` so that close rates keep their digits.
fn relative_entropy(p: f64, q: f64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    -p * ((q - p) / p).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(weight: f64, n_sessions: u64) -> Stretch {
        Stretch { weight: Share::new(weight).expect("weights of the tests are shares"), n_sessions }
    }

    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found / expected - 1.0).abs() < tolerance, "found {found}, expected {expected}");
    }

    #[test]
    fn a_drop_from_94_to_90_percent_exposes_at_least_284_sessions() {
        let bound = at_fixed_weight(0.10, 0.06, 0.10, 0.05).expect("the rates differ");
        close(bound.n_sessions, 2_837.920_953_994_123, 1e-9);
        close(bound.n_canary, 283.792_095_399_412_3, 1e-9);
    }

    #[test]
    fn a_drop_from_94_to_80_percent_exposes_at_least_31_sessions() {
        let bound = at_fixed_weight(0.20, 0.06, 0.10, 0.05).expect("the rates differ");
        close(bound.n_canary, 31.356_092_306_663_61, 1e-9);
    }

    #[test]
    fn nothing_is_learnt_from_equal_rates_or_without_a_concurrent_control() {
        assert_eq!(information(0.06, 0.06, 0.5), 0.0);
        assert_eq!(information(0.5, 0.06, 1.0), 0.0);
        assert_eq!(information(0.5, 0.06, 0.0), 0.0);
        assert_eq!(at_fixed_weight(0.5, 0.06, 1.0, 0.05), None);
    }

    #[test]
    fn certain_rates_have_a_finite_bound() {
        // A coin that tells everything: at w = 1/2 a session is worth ln 2 nats.
        close(information(1.0, 0.0, 0.5), std::f64::consts::LN_2, 1e-12);
    }

    #[test]
    fn a_plan_of_one_weight_rounds_the_fixed_bound_up_to_whole_sessions() {
        let plan = [stretch(0.1, 2000), stretch(0.1, 2000)];
        let bound = over_plan(0.10, 0.06, &plan, 0.05).expect("4000 sessions are enough");
        assert!((2838.0..=2839.0).contains(&bound.n_sessions), "{bound:?}");
    }

    #[test]
    fn sessions_at_full_weight_pass_without_information() {
        let with_control = [stretch(0.1, 5000)];
        let after_full = [stretch(1.0, 70), with_control[0]];
        let first = over_plan(0.10, 0.06, &with_control, 0.05).expect("5000 sessions are enough");
        let second = over_plan(0.10, 0.06, &after_full, 0.05).expect("5000 sessions are enough");
        assert_eq!(second.n_sessions, first.n_sessions + 70.0);
    }

    #[test]
    fn a_plan_that_ends_too_early_has_no_bound() {
        assert_eq!(over_plan(0.10, 0.06, &[stretch(0.1, 2837)], 0.05), None);
        assert_eq!(over_plan(0.10, 0.06, &[], 0.05), None);
    }
}
