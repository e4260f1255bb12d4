//! Tests of merging: validity, order, and e-Holm against every subset.

use proptest::prelude::*;

use super::*;

fn log_e(e: f64) -> LogE {
    LogE::new(e.ln()).expect("a positive e-value")
}

fn alpha() -> Alpha {
    Alpha::new(0.05).expect("a chance")
}

/// The minimum over every subset of the others, term by term.
fn e_holm_by_every_subset(shares: &[f64], evidence: &[LogE]) -> Vec<f64> {
    (0..evidence.len())
        .map(|gate| {
            (0_u32..1 << evidence.len())
                .filter(|subset| subset >> gate & 1 == 1)
                .map(|subset| {
                    let members = (0..evidence.len()).filter(|k| subset >> k & 1 == 1);
                    let (sum, share) = members.fold((0.0, 0.0), |(sum, share), k| {
                        (sum + shares[k] * evidence[k].value(), share + shares[k])
                    });
                    sum / share
                })
                .fold(f64::INFINITY, f64::min)
        })
        .collect()
}

#[test]
fn no_gates_never_fail() {
    let merged = merge(&BudgetShares::equal(0), &[], alpha()).expect("equal lengths");
    assert_eq!(merged.combined, LogE::ONE);
    assert!(!merged.is_spent());
}

#[test]
fn gates_without_data_are_no_evidence() {
    let merged = merge(&BudgetShares::equal(3), &[LogE::ONE; 3], alpha()).expect("equal lengths");
    assert!(merged.combined.ln().abs() < 1e-15);
    assert_eq!(merged.culprits, Vec::<usize>::new());
}

#[test]
fn a_single_gate_fails_at_one_over_alpha() {
    let shares = BudgetShares::equal(1);
    for (e, is_spent) in [(19.99, false), (20.01, true)] {
        assert_eq!(merge(&shares, &[log_e(e)], alpha()).expect("equal lengths").is_spent(), is_spent);
    }
}

#[test]
fn ten_gates_share_the_budget_of_one() {
    let mut evidence = [log_e(1.0); 10];
    evidence[4] = log_e(150.0);
    let shares = BudgetShares::equal(10);
    assert!(!merge(&shares, &evidence, alpha()).expect("equal lengths").is_spent());
    evidence[4] = log_e(250.0);
    assert_eq!(merge(&shares, &evidence, alpha()).expect("equal lengths").culprits, [4]);
}

#[test]
fn without_a_named_culprit_the_largest_share_of_the_evidence_is_blamed() {
    // Together 22.5, yet with the small one alone neither of the others stands at 20.
    let evidence = [log_e(30.0), log_e(37.0), log_e(0.5)];
    let merged = merge(&BudgetShares::equal(3), &evidence, alpha()).expect("equal lengths");
    assert!(merged.is_spent());
    assert_eq!(merged.culprits, [1]);
}

#[test]
fn weights_are_shares_of_the_budget() {
    let shares = BudgetShares::of_weights(&[3.0, 1.0]).expect("positive weights");
    assert_eq!(shares.get(), [0.75, 0.25]);
    let heavy_first = merge(&shares, &[log_e(30.0), log_e(0.1)], alpha()).expect("equal lengths");
    let heavy_last = merge(&shares, &[log_e(0.1), log_e(30.0)], alpha()).expect("equal lengths");
    assert_eq!((heavy_first.is_spent(), heavy_last.is_spent()), (true, false));
}

#[test]
fn bad_budgets_are_refused() {
    for weights in [[1.0, 0.0], [1.0, -1.0], [1.0, f64::NAN], [1.0, f64::INFINITY], [0.0, 0.0]] {
        assert!(BudgetShares::of_weights(&weights).is_err(), "{weights:?} was taken");
    }
    for alpha in [0.0, 1.0, -0.1, f64::NAN] {
        assert!(Alpha::new(alpha).is_err());
    }
    let mismatch = merge(&BudgetShares::equal(2), &[LogE::ONE], alpha());
    assert_eq!(mismatch, Err(LengthMismatch { evidence: 1, shares: 2 }));
}

proptest! {
    #[test]
    fn prefixes_reach_the_least_mean_of_every_subset(
        gates in prop::collection::vec((0.01..1.0_f64, -6.0..9.0_f64), 1..=8),
        are_equal in any::<bool>(),
    ) {
        let weights: Vec<f64> = gates.iter().map(|(weight, _)| if are_equal { 1.0 } else { *weight }).collect();
        let evidence: Vec<LogE> = gates.iter().map(|(_, ln)| LogE::of_finite(*ln)).collect();
        let shares = BudgetShares::of_weights(&weights).expect("positive weights");
        let by_prefixes = e_holm(&shares, &evidence).expect("equal lengths");
        for (prefix, subset) in by_prefixes.iter().zip(e_holm_by_every_subset(shares.get(), &evidence)) {
            prop_assert!((prefix.ln() - subset.ln()).abs() < 1e-9, "{} is not {}", prefix.value(), subset);
        }
    }

    #[test]
    fn the_order_of_the_gates_does_not_matter(
        gates in prop::collection::vec((0.01..1.0_f64, -6.0..9.0_f64), 1..=8),
        turn in 0_usize..8,
    ) {
        let merged = |gates: &[(f64, f64)]| {
            let weights: Vec<f64> = gates.iter().map(|(weight, _)| *weight).collect();
            let evidence: Vec<LogE> = gates.iter().map(|(_, ln)| LogE::of_finite(*ln)).collect();
            let shares = BudgetShares::of_weights(&weights).expect("positive weights");
            (merge(&shares, &evidence, alpha()).expect("equal lengths"), e_holm(&shares, &evidence).expect("same"))
        };
        let turn = turn % gates.len();
        let mut turned = gates.clone();
        turned.rotate_left(turn);
        let (here, adjusted_here) = merged(&gates);
        let (there, adjusted_there) = merged(&turned);
        prop_assert!((here.combined.ln() - there.combined.ln()).abs() < 1e-9);
        for (gate, here) in adjusted_here.iter().enumerate() {
            let there = adjusted_there[(gate + gates.len() - turn) % gates.len()];
            prop_assert!((here.ln() - there.ln()).abs() < 1e-9);
        }
    }

    #[test]
    fn a_named_gate_stands_out_alone_and_together(
        evidence in prop::collection::vec(-3.0..9.0_f64, 1..=8),
    ) {
        let evidence: Vec<LogE> = evidence.into_iter().map(LogE::of_finite).collect();
        let shares = BudgetShares::equal(evidence.len());
        let merged = merge(&shares, &evidence, alpha()).expect("equal lengths");
        let adjusted = e_holm(&shares, &evidence).expect("equal lengths");
        for (gate, adjusted) in adjusted.iter().enumerate() {
            prop_assert!(adjusted.ln() <= evidence[gate].ln() + 1e-12);
            prop_assert!(adjusted.ln() <= merged.combined.ln() + 1e-9);
        }
    }
}
