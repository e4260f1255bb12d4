//! Reference values of the evidence engine, computed independently at 50 digits.
//!
//! Every vector is either checked or named as unused with its reason: a new one fails the test until someone
//! decides which it is.

use serde_json::Value;
use serin_core::stats::{
    badness::Badness,
    bound,
    canary::{Baseline, CanaryCell, CanaryTest, Direction},
    interval,
    logspace::LogE,
    merge::{self, Alpha, BudgetShares},
    sample_ratio,
    share::{Share, ShareCount, ShareTest},
};

const VECTORS: &str = include_str!("data/stats-vectors.json");

/// Vectors of methods that were considered and not chosen, by the prefix of their id.
const UNUSED: [(&str, &str); 5] = [
    ("SRM_dirichlet.", "the sample-ratio test is the two-sided Test C"),
    ("C_CS.", "no interval of the risk ratio is shown"),
    ("WSR.", "no confidence sequence of one mean is shown"),
    ("confseq.", "mixture boundaries are not used"),
    ("ratio.", "gates over requests are judged by pairs"),
];

#[test]
fn every_reference_value_is_met() {
    let file: Value = serde_json::from_str(VECTORS).expect("the file of vectors is JSON");
    let vectors = file["vectors"].as_array().expect("a list of vectors");
    let (mut checked, mut unknown) = (0, Vec::new());
    for vector in vectors {
        let vector = Vector(vector);
        let id = vector.id();
        if UNUSED.iter().any(|(prefix, _)| id.starts_with(prefix)) {
            continue;
        }
        match id.split_once('.').map_or(id, |(family, _)| family) {
            "C" => check_share(&vector),
            "B" if id == "B.w50_vs_confseq_diversified" => check_wealth_over_time(&vector),
            "B" if id.starts_with("B.counts.") => check_canary_counts(&vector),
            "B" => check_canary_rows(&vector),
            "merge" if id == "merge.weighted" => check_weighted_merge(&vector),
            "merge" => check_merge(&vector),
            "LB" => check_bound(&vector),
            "ScoreCS" => check_interval(&vector),
            _ => {
                unknown.push(id.to_owned());
                continue;
            }
        }
        checked += 1;
    }
    assert!(unknown.is_empty(), "these vectors are neither checked nor named as unused: {unknown:?}");
    assert_eq!(checked, 10 + 8 + 3 + 4 + 1, "a vector that was checked is gone");
}

fn check_share(vector: &Vector<'_>) {
    let counts: Vec<ShareCount> = vector
        .rows("table_w_kc_ks")
        .iter()
        .map(|row| ShareCount { share: share(row[0]), hits: count(row[1]), misses: count(row[2]) })
        .collect();
    let (grid, margin) = (vector.numbers("log_r"), vector.number("r0"));
    let test = ShareTest::new(&grid, margin).expect("a grid");
    vector.expect("", test.log_e(&counts).ln());
    // A gate's limit and a split's weight are the same test under two names.
    if vector.id() == "C.SRM_two_sided_ok" {
        vector.expect("", sample_ratio::SampleRatio::of(&counts).log_e.ln());
    }
    if margin == 1.0 && vector.id() != "C.SRM_two_sided_ok" {
        assert_eq!(test, ShareTest::one_sided(), "{} is of another grid", vector.id());
    }
}

fn check_canary_rows(vector: &Vector<'_>) {
    let direction = if vector.id() == "B.promote_NI" { Direction::Promotion } else { Direction::Rollback };
    let baseline = Baseline::new(vector.number("m"), vector.number("sd")).expect("a baseline");
    let test = CanaryTest::new(baseline, vector.number("delta"), direction)
        .and_then(|test| test.with_effects(&vector.numbers("d_grid")))
        .expect("a test");
    let rows = vector.rows("rows_a_w_y");
    vector.expect("", log_e_of_rows(&test, &rows).ln());
}

/// The mean wealth after each session, against another implementation of betting.
fn check_wealth_over_time(vector: &Vector<'_>) {
    // With a standard deviation of 1 an effect is a bet, as long as no bet is cut by the safety bound.
    let baseline = Baseline::new(vector.number("m"), 1.0).expect("a baseline");
    let test = CanaryTest::new(baseline, 0.0, Direction::Rollback)
        .and_then(|test| test.with_effects(&vector.numbers("lambdas")))
        .expect("a test");
    let rows = vector.rows("rows_a_w_y");
    for n_sessions in 1..=rows.len() {
        let e = log_e_of_rows(&test, &rows[..n_sessions]).value();
        vector.expect(&format!("/{}", n_sessions - 1), e);
    }
}

fn check_canary_counts(vector: &Vector<'_>) {
    let direction = if vector.number("sign") > 0.0 { Direction::Rollback } else { Direction::Promotion };
    let baseline = Baseline::new(vector.number("m"), vector.number("sd")).expect("a baseline");
    let usual = CanaryTest::new(baseline, vector.number("delta"), direction).expect("a test");
    let listed = usual.clone().with_effects(&vector.numbers("d_grid")).expect("a test");
    let rows = vector.rows("table_w_nc_kc_ns_ks");
    let rate = |sessions: f64, bad: f64| {
        [(Badness::WORST, count(bad)), (Badness::BEST, count(sessions) - count(bad))]
    };
    let variants: Vec<_> =
        rows.iter().map(|row| (row[0], rate(row[1], row[2]), rate(row[3], row[4]))).collect();
    let cells: Vec<_> = variants
        .iter()
        .map(|(weight, canary, stable)| CanaryCell { step: 0, weight: share(*weight), canary, stable })
        .collect();
    vector.expect("", listed.log_e(&cells).ln());
    // The usual grid of either direction is the listed one.
    vector.expect("", usual.log_e(&cells).ln());
}

fn check_merge(vector: &Vector<'_>) {
    let evidence = vector.log_evidence();
    let shares = BudgetShares::equal(evidence.len());
    let alpha = Alpha::new(vector.number("alpha")).expect("a chance");
    let merged = merge::merge(&shares, &evidence, alpha).expect("one e-value per gate");
    vector.expect("/mean", merged.combined.value());
    vector.expect("/log_mean", merged.combined.ln());
    let adjusted = merge::e_holm(&shares, &evidence).expect("one e-value per gate");
    for (gate, e) in adjusted.iter().enumerate() {
        vector.expect(&format!("/eholm/{gate}"), e.value());
    }
    let rejected: Vec<usize> =
        serde_json::from_value(vector.0["expected"]["rejected_fwer"].clone()).expect("a list of gates");
    assert_eq!(merged.culprits, rejected, "{}", vector.id());
}

fn check_weighted_merge(vector: &Vector<'_>) {
    let evidence = vector.log_evidence();
    let shares = BudgetShares::of_weights(&vector.numbers("weights")).expect("positive weights");
    let alpha = Alpha::new(0.05).expect("a chance");
    let merged = merge::merge(&shares, &evidence, alpha).expect("one e-value per gate");
    vector.expect("/E", merged.combined.value());
    vector.expect("/log", merged.combined.ln());
}

fn check_bound(vector: &Vector<'_>) {
    let (canary, stable, weight) = (vector.number("pc"), vector.number("ps"), vector.number("w"));
    vector.expect("/I", bound::information(canary, stable, weight));
    let bound = bound::at_fixed_weight(canary, stable, weight, vector.number("alpha"))
        .expect("the rates differ, so there is a bound");
    vector.expect("/sessions", bound.n_sessions);
    vector.expect("/exposures", bound.n_canary);
}

fn check_interval(vector: &Vector<'_>) {
    let setting = interval::Setting {
        mean: vector.number("m"),
        alpha: vector.number("alpha"),
        information_at_end: vector.number("v_opt"),
    };
    let sessions = sessions(&vector.rows("rows_a_w_y"));
    let cells: Vec<_> = sessions.iter().map(Session::cell).collect();
    let effect = interval::estimate_early(&cells, setting).expect("there are canary sessions");
    vector.expect("/tau", effect.tau);
    vector.expect("/halfwidth", effect.half_width);
}

fn log_e_of_rows(test: &CanaryTest, rows: &[Vec<f64>]) -> LogE {
    let sessions = sessions(rows);
    let cells: Vec<_> = sessions.iter().map(Session::cell).collect();
    test.log_e(&cells)
}

/// One session as the file lists it: a (1 for the canary), w, y.
struct Session {
    is_canary: bool,
    weight: Share,
    value: [(Badness, u64); 1],
}

impl Session {
    fn cell(&self) -> CanaryCell<'_> {
        let (canary, stable) =
            if self.is_canary { (&self.value[..], &[][..]) } else { (&[][..], &self.value[..]) };
        CanaryCell { step: 0, weight: self.weight, canary, stable }
    }
}

fn sessions(rows: &[Vec<f64>]) -> Vec<Session> {
    rows.iter()
        .map(|row| Session {
            is_canary: row[0] > 0.5,
            weight: share(row[1]),
            value: [(Badness::new(row[2]).expect("a badness"), 1)],
        })
        .collect()
}

fn share(share: f64) -> Share {
    Share::new(share).expect("a share")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the file holds whole counts")]
fn count(number: f64) -> u64 {
    assert!(number >= 0.0 && number.fract() == 0.0, "{number} is no count");
    number as u64
}

/// One reference value as the file has it.
struct Vector<'a>(&'a Value);

impl Vector<'_> {
    fn id(&self) -> &str {
        self.0["id"].as_str().expect("every vector has an id")
    }

    fn number(&self, input: &str) -> f64 {
        self.0["inputs"][input].as_f64().unwrap_or_else(|| panic!("{} has no number {input}", self.id()))
    }

    fn numbers(&self, input: &str) -> Vec<f64> {
        serde_json::from_value(self.0["inputs"][input].clone()).expect("a list of numbers")
    }

    fn rows(&self, input: &str) -> Vec<Vec<f64>> {
        serde_json::from_value(self.0["inputs"][input].clone()).expect("a table of numbers")
    }

    fn log_evidence(&self) -> Vec<LogE> {
        self.numbers("E").into_iter().map(|e| LogE::new(e.ln()).expect("a positive e-value")).collect()
    }

    /// Holds a result against the expected number at a JSON pointer, within the vector's tolerance: relative where
    /// the number is above 1, else absolute.
    fn expect(&self, pointer: &str, found: f64) {
        let expected = self.0["expected"].pointer(pointer).and_then(Value::as_f64);
        let expected = expected.unwrap_or_else(|| panic!("{} expects nothing at {pointer:?}", self.id()));
        let tolerance =
            self.0["tol"].as_f64().expect("every vector has a tolerance") * expected.abs().max(1.0);
        let gap = (found - expected).abs();
        assert!(gap <= tolerance, "{}{pointer}: {found} is not {expected} within {tolerance:e}", self.id());
    }
}
