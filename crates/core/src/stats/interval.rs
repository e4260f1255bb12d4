//! The effect size that people see, with an interval that holds at every look.
//!
//! Shown, never decided on. Over sessions with variant `a` (1 canary, 0 stable),
//! stamped probability of canary `w` and badness `y` in [0, 1], with stable's frozen
//! mean `m`:
//!
//! ```text
//! tau = S / D,  S = sum of (a - w)(y - m),  D = sum of a (1 - w)
//! V = sum of [(a - w)(y - m - tau a)]^2
//! half width = sqrt((V + rho)(ln(1 + V / rho) + 2 ln(1/alpha))) / D
//! rho = v / (2 ln(1/alpha) + ln(1 + 2 ln(1/alpha)))
//! ```
//!
//! where `v` is the `V` that is expected at the plan's end, so that the interval is
//! tightest there. It is an asymptotic confidence sequence (Waudby-Smith et al. 2024):
//! not exact for few sessions, which is why [`estimate`] is silent below 400 sessions
//! and 25 events per variant.

use serde::{Deserialize, Serialize};

use super::badness::Badness;
use super::bound::Stretch;
use super::canary::CanaryCell;

/// The fewest sessions of each variant for which an effect size is shown.
pub const LEAST_SESSIONS: u64 = 400;

/// The fewest sessions with any badness, of each variant, for which an effect size is shown.
pub const LEAST_EVENTS: u64 = 25;

/// How much worse the canary is than stable, in units of badness.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The difference canary minus stable of the mean badness, about -1 to 1; positive is worse.
    pub tau: f64,
    /// Half the width of the interval around `tau`, above 0.
    pub half_width: f64,
}

impl Effect {
    /// Returns the lower end of the interval.
    #[must_use]
    pub fn lower(&self) -> f64 {
        self.tau - self.half_width
    }

    /// Returns the upper end of the interval.
    #[must_use]
    pub fn upper(&self) -> f64 {
        self.tau + self.half_width
    }
}

/// What the interval is computed for, frozen before the first session counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Stable's mean badness `m`, in [0, 1].
    pub mean: f64,
    /// The chance that the interval ever misses the truth, in (0, 1).
    pub alpha: f64,
    /// The `V` that is expected at the plan's end, above 0: see [`expected_information`].
    pub information_at_end: f64,
}

/// Returns the effect size once 400 sessions and 25 events of each variant have been seen.
///
/// Only sessions with a concurrent control count. An event is a session with any badness.
#[must_use]
pub fn estimate(cells: &[CanaryCell<'_>], setting: Setting) -> Option<Effect> {
    let informative = || cells.iter().filter(|cell| cell.weight.is_informative());
    let canary = Seen::of(informative().flat_map(|cell| cell.canary));
    let stable = Seen::of(informative().flat_map(|cell| cell.stable));
    let enough = canary.is_enough() && stable.is_enough();
    if enough { estimate_early(cells, setting) } else { None }
}

/// Returns the effect size from any number of sessions; none without a canary session beside a control.
#[must_use]
pub fn estimate_early(cells: &[CanaryCell<'_>], setting: Setting) -> Option<Effect> {
    let moments = Moments::of(cells, setting.mean);
    if moments.exposure <= 0.0 || setting.information_at_end <= 0.0 {
        return None;
    }
    let tau = moments.score / moments.exposure;
    let spent = squared_scores(cells, setting.mean, tau);
    let twice_ln = -2.0 * setting.alpha.ln();
    let rho = setting.information_at_end / (twice_ln + twice_ln.ln_1p());
    let half_width = ((spent + rho) * ((spent / rho).ln_1p() + twice_ln)).sqrt() / moments.exposure;
    half_width.is_finite().then_some(Effect { tau, half_width })
}

/// Returns the `V` that a plan is expected to gather: the sum of `w (1 - w) sd^2` over its sessions.
///
/// `sd` is stable's standard deviation of badness, in [0, 0.5].
#[must_use]
pub fn expected_information(plan: &[Stretch], sd: f64) -> f64 {
    plan.iter()
        .map(|stretch| {
            stretch.n_sessions as f64 * stretch.weight.get() * (1.0 - stretch.weight.get()) * sd * sd
        })
        .sum()
}

/// How much one variant has shown.
struct Seen {
    n_sessions: u64,
    n_events: u64,
}

impl Seen {
    fn of<'a>(histogram: impl Iterator<Item = &'a (Badness, u64)>) -> Self {
        let mut seen = Self { n_sessions: 0, n_events: 0 };
        for &(badness, count) in histogram {
            seen.n_sessions += count;
            if badness > Badness::BEST {
                seen.n_events += count;
            }
        }
        seen
    }

    fn is_enough(&self) -> bool {
        self.n_sessions >= LEAST_SESSIONS && self.n_events >= LEAST_EVENTS
    }
}

/// S and D.
struct Moments {
    score: f64,
    exposure: f64,
}

impl Moments {
    fn of(cells: &[CanaryCell<'_>], mean: f64) -> Self {
        let mut moments = Self { score: 0.0, exposure: 0.0 };
        for cell in cells {
            let w = cell.weight.get();
            for &(badness, count) in cell.canary {
                moments.score += count as f64 * (1.0 - w) * (badness.get() - mean);
                moments.exposure += count as f64 * (1.0 - w);
            }
            for &(badness, count) in cell.stable {
                moments.score -= count as f64 * w * (badness.get() - mean);
            }
        }
        moments
    }
}

/// V, the squares of the scores around `tau`.
fn squared_scores(cells: &[CanaryCell<'_>], mean: f64, tau: f64) -> f64 {
    let mut sum = 0.0;
    for cell in cells {
        let w = cell.weight.get();
        for &(badness, count) in cell.canary {
            sum += count as f64 * ((1.0 - w) * (badness.get() - mean - tau)).powi(2);
        }
        for &(badness, count) in cell.stable {
            sum += count as f64 * (w * (badness.get() - mean)).powi(2);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::share::Share;
    use super::*;

    const SETTING: Setting = Setting { mean: 0.06, alpha: 0.05, information_at_end: 50.0 };

    type Rate = [(Badness, u64); 2];

    fn rate(n: u64, bad: u64) -> Rate {
        [(Badness::BEST, n - bad), (Badness::WORST, bad)]
    }

    fn share(weight: f64) -> Share {
        Share::new(weight).expect("weights of the tests are shares")
    }

    fn cell<'a>(w: f64, canary: &'a [(Badness, u64)], stable: &'a [(Badness, u64)]) -> CanaryCell<'a> {
        CanaryCell { step: 0, weight: share(w), canary, stable }
    }

    #[test]
    fn the_effect_of_a_rate_is_the_difference_of_the_rates() {
        let (canary, stable) = (rate(1000, 100), rate(9000, 540));
        let effect = estimate(&[cell(0.1, &canary, &stable)], SETTING).expect("there are enough sessions");
        assert!((effect.tau - 0.04).abs() < 1e-12, "{effect:?}");
        assert!(effect.lower() < 0.04 && effect.upper() > 0.04);
    }

    #[test]
    fn nothing_is_shown_before_each_variant_has_enough_sessions_and_events() {
        let shown = |canary: Rate, stable: Rate| estimate(&[cell(0.1, &canary, &stable)], SETTING).is_some();
        assert!(shown(rate(400, 25), rate(400, 25)));
        assert!(!shown(rate(399, 25), rate(400, 25)));
        assert!(!shown(rate(400, 24), rate(400, 25)));
        assert!(!shown(rate(400, 25), rate(399, 25)));
        assert!(!shown(rate(400, 25), rate(400, 24)));
    }

    #[test]
    fn sessions_without_a_concurrent_control_change_nothing() {
        let (canary, stable, alone) = (rate(1000, 100), rate(9000, 540), rate(5000, 900));
        let with_control = cell(0.1, &canary, &stable);
        let full = cell(1.0, &alone, &[]);
        assert_eq!(estimate(&[with_control, full], SETTING), estimate(&[with_control], SETTING));
        assert_eq!(estimate(&[full], SETTING), None);
        assert_eq!(estimate_early(&[full], SETTING), None);
        assert_eq!(estimate_early(&[], SETTING), None);
    }

    #[test]
    fn more_sessions_make_the_interval_narrower() {
        let width = |scale: u64| {
            let (canary, stable) = (rate(500 * scale, 50 * scale), rate(4500 * scale, 270 * scale));
            let sessions = cell(0.1, &canary, &stable);
            estimate(&[sessions], SETTING).expect("there are enough sessions").half_width
        };
        assert!(width(1) > width(2) && width(2) > width(8));
    }

    #[test]
    fn the_information_of_a_plan_adds_up_over_its_stretches() {
        let plan = [
            Stretch { weight: share(0.1), n_sessions: 1000 },
            Stretch { weight: share(0.5), n_sessions: 100 },
        ];
        assert!((expected_information(&plan, 0.2) - (90.0 + 25.0) * 0.04).abs() < 1e-12);
        assert_eq!(expected_information(&[Stretch { weight: share(1.0), n_sessions: 9 }], 0.2), 0.0);
    }

    /// Coverage of a healthy canary over many looks, with a generator of its own.
    #[test]
    fn the_interval_rarely_excludes_the_truth_at_any_look() {
        let mut state = 7_u64;
        let mut uniform = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = state;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut n_missed = 0;
        for _ in 0..200 {
            let (mut canary, mut stable) = (rate(0, 0), rate(0, 0));
            let mut missed = false;
            for look in 1..=4000 {
                let variant = if uniform() < 0.3 { &mut canary } else { &mut stable };
                variant[usize::from(uniform() < 0.1)].1 += 1;
                if look % 100 == 0 {
                    let sessions = cell(0.3, &canary, &stable);
                    missed |=
                        estimate(&[sessions], SETTING).is_some_and(|e| e.lower() > 0.0 || e.upper() < 0.0);
                }
            }
            n_missed += u32::from(missed);
        }
        assert!(n_missed <= 10, "{n_missed} of 200 rollouts, nominally at most 10");
    }
}
