//! Tests of the canary against stable: validity, no information, merging of counts.

use proptest::prelude::*;

use super::*;

fn badness(value: f64) -> Badness {
    Badness::new(value).expect("a badness")
}

fn share(share: f64) -> Share {
    Share::new(share).expect("a share")
}

fn test(mean: f64, sd: f64, margin: f64, direction: Direction) -> CanaryTest {
    CanaryTest::new(Baseline::new(mean, sd).expect("a baseline"), margin, direction).expect("a test")
}

/// Sessions of a rate: bad ones and good ones.
fn rate(bad: u64, good: u64) -> [(Badness, u64); 2] {
    [(Badness::WORST, bad), (Badness::BEST, good)]
}

fn cell<'a>(weight: f64, canary: &'a [(Badness, u64)], stable: &'a [(Badness, u64)]) -> CanaryCell<'a> {
    CanaryCell { step: 0, weight: share(weight), canary, stable }
}

/// A small generator (splitmix64), so that simulations are the same in every run.
struct Draws(u64);

impl Draws {
    /// A number from 0 up to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[test]
fn no_sessions_are_no_evidence() {
    for direction in [Direction::Rollback, Direction::Promotion] {
        let test = test(0.06, 0.24, 0.02, direction);
        assert_eq!(test.log_e(&[]), LogE::ONE);
        assert_eq!(test.log_e(&[cell(0.1, &[], &[])]), LogE::ONE);
        assert_eq!(test.log_e(&[cell(0.1, &rate(0, 0), &rate(0, 0))]), LogE::ONE);
    }
}

#[test]
fn a_worse_canary_is_evidence_for_rollback_and_a_better_one_is_not() {
    let test = test(0.06, 0.2375, 0.0, Direction::Rollback);
    assert!(test.log_e(&[cell(0.1, &rate(40, 160), &rate(108, 1692))]).ln() > 3.0);
    assert!(test.log_e(&[cell(0.1, &rate(0, 200), &rate(108, 1692))]).ln() < 0.0);
}

#[test]
fn a_failure_of_both_variants_blames_nobody() {
    let test = test(0.06, 0.2375, 0.0, Direction::Rollback);
    assert!(test.log_e(&[cell(0.1, &rate(100, 100), &rate(900, 900))]).ln() < 3.0);
}

#[test]
fn an_equal_canary_passes_a_margin_that_a_worse_one_does_not() {
    let test = test(0.06, 0.2375, 0.05, Direction::Promotion);
    assert!(test.log_e(&[cell(0.5, &rate(600, 9400), &rate(600, 9400))]).ln() > 3.0);
    assert!(test.log_e(&[cell(0.5, &rate(1200, 8800), &rate(600, 9400))]).ln() < 0.0);
}

#[test]
fn a_baseline_without_spread_still_gives_a_test() {
    for direction in [Direction::Rollback, Direction::Promotion] {
        for mean in [0.0, 1.0] {
            for margin in [0.0, 1.0] {
                let test = test(mean, 0.0, margin, direction);
                assert!(test.log_e(&[cell(0.1, &rate(5, 5), &rate(5, 5))]).ln().is_finite());
            }
        }
    }
    assert!(
        test(0.0, 0.0, 0.0, Direction::Rollback).log_e(&[cell(0.1, &rate(20, 80), &rate(0, 900))]).ln() > 3.0
    );
}

#[test]
fn bad_numbers_are_refused() {
    assert_eq!(Baseline::new(1.5, 0.1), Err(InvalidTest::Mean(1.5)));
    assert!(Baseline::new(0.5, f64::NAN).is_err());
    let baseline = Baseline::new(0.5, 0.1).expect("a baseline");
    assert_eq!(CanaryTest::new(baseline, -0.1, Direction::Rollback), Err(InvalidTest::Margin(-0.1)));
    let test = CanaryTest::new(baseline, 0.0, Direction::Rollback).expect("a test");
    assert_eq!(test.with_effects(&[-1.0]), Err(InvalidTest::Effect(-1.0)));
    assert!(serde_json::from_str::<Baseline>(r#"{"mean":2.0,"sd":0.1}"#).is_err());
}

/// 40 000 healthy rollouts of 60 sessions whose failure rate drifts: the mean of E stays at 1, within the error of
/// the simulation.
#[test]
fn the_simulated_mean_of_e_is_at_most_one_under_drift() {
    const RUNS: u32 = 40_000;
    let test = test(0.06, 0.2375, 0.0, Direction::Rollback);
    let mut draws = Draws(7);
    let (mut sum, mut sum_of_squares) = (0.0, 0.0);
    for _ in 0..RUNS {
        let mut values = [[0_u64; 2]; 4];
        for session in 0..60 {
            let failure_rate = if session < 30 { 0.04 } else { 0.2 };
            let (half, weight) = if session < 40 { (0, 0.2) } else { (1, 0.5) };
            let variant = usize::from(draws.uniform() < weight);
            let is_bad = usize::from(draws.uniform() < failure_rate);
            values[half * 2 + variant][is_bad] += 1;
        }
        let [stable_early, canary_early, stable_late, canary_late] =
            values.map(|[good, bad]| rate(bad, good));
        let e = test
            .log_e(&[cell(0.2, &canary_early, &stable_early), cell(0.5, &canary_late, &stable_late)])
            .value();
        sum += e;
        sum_of_squares += e * e;
    }
    let mean = sum / f64::from(RUNS);
    let error = ((sum_of_squares / f64::from(RUNS) - mean * mean) / f64::from(RUNS)).sqrt();
    assert!(mean < 1.0 + 4.0 * error, "mean of E is {mean} with an error of {error}");
    assert!(error < 0.05, "an error of {error} shows nothing");
}

/// Looking after every session, at most one healthy rollout in 20 ever reaches 1/alpha = 20.
#[test]
fn a_healthy_canary_is_blamed_at_most_1_time_in_20_however_often_one_looks() {
    const RUNS: u32 = 400;
    let test = test(0.06, 0.2375, 0.0, Direction::Rollback);
    let mut draws = Draws(11);
    let mut blamed = 0_u32;
    for _ in 0..RUNS {
        let (mut canary, mut stable) = (rate(0, 0), rate(0, 0));
        for _ in 0..1000 {
            let values = if draws.uniform() < 0.5 { &mut canary } else { &mut stable };
            values[usize::from(draws.uniform() >= 0.06)].1 += 1;
            if test.log_e(&[cell(0.5, &canary, &stable)]).ln() >= 20.0_f64.ln() {
                blamed += 1;
                break;
            }
        }
    }
    assert!(f64::from(blamed) <= 0.05 * f64::from(RUNS), "{blamed} of {RUNS} healthy canaries were blamed");
}

fn values() -> impl Strategy<Value = Vec<(Badness, u64)>> {
    prop::collection::vec(((0.0..=1.0_f64).prop_map(badness), 0_u64..500), 0..8)
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Rollback), Just(Direction::Promotion)]
}

proptest! {
    #[test]
    fn weights_of_0_and_1_add_nothing(canary in values(), stable in values(), end in prop_oneof![Just(0.0), Just(1.0)]) {
        let test = test(0.2, 0.12, 0.05, Direction::Rollback);
        prop_assert_eq!(test.log_e(&[cell(end, &canary, &stable)]), LogE::ONE);
        let alone = test.log_e(&[cell(0.3, &canary, &stable)]);
        prop_assert_eq!(test.log_e(&[cell(0.3, &canary, &stable), cell(end, &canary, &stable)]), alone);
    }

    /// One session of any value takes at most nine tenths of the wealth, in either direction.
    #[test]
    fn no_session_takes_more_than_nine_tenths(
        mean in 0.0..=1.0_f64, sd in 0.0..0.6_f64, margin in 0.0..=1.0_f64,
        weight in 0.0..=1.0_f64, value in 0.0..=1.0_f64, direction in direction(),
    ) {
        let test = test(mean, sd, margin, direction);
        let one = [(badness(value), 1)];
        for cell in [cell(weight, &one, &[]), cell(weight, &[], &one)] {
            for increment in test.increments(cell) {
                prop_assert!(increment.exp() >= 0.1 - 1e-9, "a session left {} of the wealth", increment.exp());
            }
        }
    }

    /// Both variants alike, one session: the mean of E over variant and value is at most 1.
    #[test]
    fn the_mean_of_e_over_one_session_is_at_most_one(
        mean in 0.0..=1.0_f64, sd in 0.0..0.6_f64, margin in 0.0..=0.5_f64,
        weight in 0.0..=1.0_f64, truth in 0.0..=1.0_f64, direction in direction(),
    ) {
        let test = test(mean, sd, margin, direction);
        // The worst canary that is still within the claim under test.
        let canary_truth = (truth + margin).min(1.0);
        let e = |canary: u64, stable: u64, value: Badness| {
            test.log_e(&[cell(weight, &[(value, canary)], &[(value, stable)])]).value()
        };
        let mean_e = weight * (canary_truth * e(1, 0, Badness::WORST) + (1.0 - canary_truth) * e(1, 0, Badness::BEST))
            + (1.0 - weight) * (truth * e(0, 1, Badness::WORST) + (1.0 - truth) * e(0, 1, Badness::BEST));
        let is_at_the_claim = direction == Direction::Rollback || truth + margin <= 1.0;
        prop_assert!(!is_at_the_claim || mean_e <= 1.0 + 1e-9, "the mean of E is {mean_e}");
    }

    #[test]
    fn the_order_of_cells_and_the_cutting_of_counts_do_not_matter(
        canary in values(), stable in values(), late_canary in values(), late_stable in values(),
    ) {
        let test = test(0.2, 0.12, 0.0, Direction::Rollback);
        let early = cell(0.1, &canary, &stable);
        let late = CanaryCell { step: 1, ..cell(0.4, &late_canary, &late_stable) };
        prop_assert_eq!(test.process([early, late]), test.process([late, early]));
        let cut = [cell(0.1, &canary, &[]), cell(0.1, &[], &stable), late];
        prop_assert!((test.log_e(&cut).ln() - test.log_e(&[early, late]).ln()).abs() < 1e-8);
    }
}
