//! Judges counts that were collected elsewhere, by the same tests as a rollout.
//!
//! This is what `serin analyze` runs: a look back at an experiment of one's own, or a check of the
//! engine from outside.

use serde::{Deserialize, Serialize};

use crate::stats::badness::Badness;
use crate::stats::canary::{Baseline, CanaryCell, CanaryTest, Direction};
use crate::stats::late_harm::Starts;
use crate::stats::logspace::LogE;
use crate::stats::merge::{Alpha, BudgetShares, merge};
use crate::stats::pairs::{PairCount, PairTest};
use crate::stats::process::Process;
use crate::stats::share::{Share, ShareCount, ShareTest};

/// Counts to be judged.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// 1 - the chance of a false alarm over all gates together, 0.5 to 0.9999.
    #[serde(default = "default_confidence")]
    pub confidence: f64,
    /// What is judged.
    pub gates: Vec<GateCounts>,
}

fn default_confidence() -> f64 {
    0.95
}

/// The counts of one gate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "test", rename_all = "snake_case", deny_unknown_fields)]
pub enum GateCounts {
    /// The canary against stable.
    Stable {
        /// What the gate is called.
        name: String,
        /// Share of the error budget relative to the other gates, above 0.
        #[serde(default = "one")]
        weight: f64,
        /// Mean and standard deviation of stable's badness, known before these counts.
        baseline: Baseline,
        /// How much worse is still accepted, in units of badness, 0 to 1.
        #[serde(default)]
        margin: f64,
        /// Which claim is judged.
        #[serde(default = "rollback")]
        direction: Direction,
        /// The counts, by weight and step.
        counts: Vec<Comparison>,
    },
    /// A share of bad ones against a constant.
    Threshold {
        /// What the gate is called.
        name: String,
        /// Share of the error budget relative to the other gates, above 0.
        #[serde(default = "one")]
        weight: f64,
        /// The share of bad ones that is accepted, 0 to 1.
        limit: f64,
        /// Bad ones.
        #[serde(default)]
        bad: u64,
        /// Good ones.
        #[serde(default)]
        good: u64,
        /// Sessions of several requests: `[requests, bad ones among them, sessions]`.
        #[serde(default)]
        pairs: Vec<(u32, u32, u64)>,
        /// Mean number of requests in a session of stable; of these sessions when absent.
        #[serde(default)]
        requests_mean: Option<f64>,
        /// The counts by step, in place of `bad` and `good`.
        #[serde(default)]
        counts: Vec<StepCount>,
    },
}

fn one() -> f64 {
    1.0
}

fn rollback() -> Direction {
    Direction::Rollback
}

/// Sessions of both variants that were assigned at one weight.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The step, when harm may have started late.
    #[serde(default)]
    pub step: Option<u16>,
    /// Share of new sessions that got the canary, in percent.
    pub weight: f64,
    /// The canary's sessions.
    pub canary: Sessions,
    /// Stable's sessions.
    pub stable: Sessions,
}

/// Sessions of one variant: how many were bad, or how bad each was.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Sessions {
    /// Good or bad.
    Counted {
        /// All of them.
        sessions: u64,
        /// The bad ones.
        bad: u64,
    },
    /// Badness from 0 to 1 and how many sessions had it.
    Valued {
        /// `[badness, sessions]`.
        values: Vec<(f64, u64)>,
    },
}

/// Bad and good ones of one step.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepCount {
    /// The step.
    #[serde(default)]
    pub step: Option<u16>,
    /// Bad ones.
    pub bad: u64,
    /// Good ones.
    pub good: u64,
}

/// What the counts come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// Each gate, in the order given.
    pub gates: Vec<GateJudgement>,
    /// All gates that speak for a rollback, under one error budget.
    pub combined: Combined,
    /// Names of the gates that are to blame.
    pub culprits: Vec<String>,
}

/// What the counts of one gate come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateJudgement {
    /// What it is called.
    pub name: String,
    /// The natural logarithm of its e-value.
    #[serde(rename = "logE")]
    pub log_e: f64,
    /// What that means.
    pub verdict: Verdict,
}

/// All gates together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Combined {
    /// The natural logarithm of the merged e-value.
    #[serde(rename = "logE")]
    pub log_e: f64,
    /// What that means.
    pub verdict: Verdict,
}

/// What evidence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Shown to be broken; for a promotion this never occurs.
    Fail,
    /// Not shown to be broken; for a promotion: shown not to be worse than the margin.
    Pass,
    /// A promotion that is not shown yet.
    Unproven,
    /// There is nothing to judge.
    NoData,
}

/// Why counts cannot be judged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("gate {gate:?}: {problem}")]
pub struct Unjudgeable {
    /// The gate; empty for the question as a whole.
    pub gate: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The evidence of one gate.
struct GateEvidence {
    name: String,
    budget: f64,
    log_e: LogE,
    has_data: bool,
    direction: Direction,
}

/// Judges counts.
///
/// # Errors
/// [`Unjudgeable`] when a number lies outside its range or a name is given twice.
pub fn judge(question: &Question) -> Result<Judgement, Unjudgeable> {
    let whole = |problem: String| Unjudgeable { gate: String::new(), problem };
    if !(0.5..=0.9999).contains(&question.confidence) {
        return Err(whole(format!("confidence {} lies outside 0.5 to 0.9999", question.confidence)));
    }
    let alpha = Alpha::new(1.0 - question.confidence).map_err(|error| whole(error.to_string()))?;
    let gates: Vec<GateEvidence> = question.gates.iter().map(evidence).collect::<Result<_, _>>()?;
    for (index, gate) in gates.iter().enumerate() {
        if gates[..index].iter().any(|before| before.name == gate.name) {
            return Err(Unjudgeable {
                gate: gate.name.clone(),
                problem: "the name is given twice".to_owned(),
            });
        }
    }

    let against: Vec<usize> =
        (0..gates.len()).filter(|i| gates[*i].direction == Direction::Rollback).collect();
    let logs: Vec<LogE> = against.iter().map(|i| gates[*i].log_e).collect();
    let budgets: Vec<f64> = against.iter().map(|i| gates[*i].budget).collect();
    let (combined, named) = if logs.is_empty() {
        (LogE::ONE, Vec::new())
    } else {
        let shares = BudgetShares::of_weights(&budgets).map_err(|error| whole(error.to_string()))?;
        let merged = merge(&shares, &logs, alpha).map_err(|error| whole(error.to_string()))?;
        (merged.combined, merged.culprits.into_iter().map(|i| against[i]).collect())
    };
    let verdict = |index: usize, gate: &GateEvidence| match gate.direction {
        _ if !gate.has_data => Verdict::NoData,
        Direction::Rollback if named.contains(&index) => Verdict::Fail,
        Direction::Rollback => Verdict::Pass,
        Direction::Promotion if gate.log_e.ln() >= alpha.log_limit() => Verdict::Pass,
        Direction::Promotion => Verdict::Unproven,
    };
    let judged = |(index, gate): (usize, &GateEvidence)| GateJudgement {
        name: gate.name.clone(),
        log_e: gate.log_e.ln(),
        verdict: verdict(index, gate),
    };
    let combined_verdict = if !against.iter().any(|i| gates[*i].has_data) {
        Verdict::NoData
    } else if named.is_empty() {
        Verdict::Pass
    } else {
        Verdict::Fail
    };
    Ok(Judgement {
        gates: gates.iter().enumerate().map(judged).collect(),
        combined: Combined { log_e: combined.ln(), verdict: combined_verdict },
        culprits: named.iter().map(|index| gates[*index].name.clone()).collect(),
    })
}

fn evidence(gate: &GateCounts) -> Result<GateEvidence, Unjudgeable> {
    match gate {
        GateCounts::Stable { name, weight, baseline, margin, direction, counts } => {
            let wrong = |problem: String| Unjudgeable { gate: name.clone(), problem };
            let test =
                CanaryTest::new(*baseline, *margin, *direction).map_err(|error| wrong(error.to_string()))?;
            let mut cells = Vec::with_capacity(counts.len());
            for comparison in counts {
                let share = Share::new(comparison.weight / 100.0).map_err(|_| {
                    wrong(format!("weight {} lies outside 0 to 100 percent", comparison.weight))
                })?;
                let sides =
                    (values(&comparison.canary).map_err(wrong)?, values(&comparison.stable).map_err(wrong)?);
                cells.push((comparison.step, share, sides));
            }
            let process = test.process(cells.iter().map(|(step, weight, (canary, stable))| CanaryCell {
                step: step.unwrap_or(0),
                weight: *weight,
                canary,
                stable,
            }));
            // At a weight of 0 or 1 there is nothing to compare, so that no evidence starts there.
            let starts =
                cells.iter().filter(|(_, share, _)| share.is_informative()).filter_map(|(step, _, _)| *step);
            Ok(GateEvidence {
                name: name.clone(),
                budget: *weight,
                log_e: mixture(&process, starts),
                has_data: cells.iter().any(|(_, share, (canary, stable))| {
                    share.is_informative() && canary.iter().chain(stable).any(|(_, n)| *n > 0)
                }),
                direction: *direction,
            })
        }
        GateCounts::Threshold { name, weight, limit, bad, good, pairs, requests_mean, counts } => {
            let wrong = |problem: String| Unjudgeable { gate: name.clone(), problem };
            let limit = Share::new(*limit).map_err(|error| wrong(error.to_string()))?;
            let given = [*bad + *good > 0, !pairs.is_empty(), !counts.is_empty()];
            if given.iter().filter(|given| **given).count() > 1 {
                return Err(wrong("give one of `bad` and `good`, `pairs`, or `counts`".to_owned()));
            }
            let (process, starts) = if pairs.is_empty() {
                let single = [StepCount { step: None, bad: *bad, good: *good }];
                let counts = if counts.is_empty() { &single[..] } else { counts };
                let shares = counts.iter().map(|count| {
                    (
                        count.step.unwrap_or(0),
                        ShareCount { share: limit, hits: count.bad, misses: count.good },
                    )
                });
                let process = ShareTest::one_sided().process(shares);
                (process, counts.iter().filter_map(|count| count.step).collect())
            } else {
                (pair_process(limit, pairs, *requests_mean).map_err(wrong)?, Vec::new())
            };
            Ok(GateEvidence {
                name: name.clone(),
                budget: *weight,
                log_e: mixture(&process, starts.into_iter()),
                has_data: given.contains(&true),
                direction: Direction::Rollback,
            })
        }
    }
}

/// The e-value of a process: with several starts the mixture over them.
fn mixture(process: &Process, starts: impl Iterator<Item = u16>) -> LogE {
    let mut starts: Vec<u16> = starts.collect();
    starts.sort_unstable();
    starts.dedup();
    match Starts::new(starts) {
        Ok(starts) => starts.log_e(process),
        Err(_) => process.from_first(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn pair_process(
    limit: Share,
    pairs: &[(u32, u32, u64)],
    requests_mean: Option<f64>,
) -> Result<Process, String> {
    let cap = pairs.iter().map(|(requests, _, _)| *requests).max().unwrap_or(0);
    let sessions: u64 = pairs.iter().map(|(_, _, sessions)| sessions).sum();
    let requests: u64 = pairs.iter().map(|(requests, _, sessions)| u64::from(*requests) * sessions).sum();
    let mean = requests_mean.unwrap_or(requests as f64 / sessions.max(1) as f64);
    let test = PairTest::new(limit, cap, mean).map_err(|error| error.to_string())?;
    let counts: Vec<PairCount> = pairs
        .iter()
        .map(|(requests, bad, sessions)| PairCount { requests: *requests, bad: *bad, sessions: *sessions })
        .collect();
    test.process([(0, counts.as_slice())]).map_err(|error| error.to_string())
}

fn values(sessions: &Sessions) -> Result<Vec<(Badness, u64)>, String> {
    match sessions {
        Sessions::Counted { sessions, bad } => {
            let good = sessions
                .checked_sub(*bad)
                .ok_or_else(|| format!("{bad} of {sessions} sessions cannot be bad"))?;
            Ok(vec![(Badness::WORST, *bad), (Badness::BEST, good)])
        }
        Sessions::Valued { values } => values
            .iter()
            .map(|(badness, n)| Ok((Badness::new(*badness).map_err(|error| error.to_string())?, *n)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(question: &str) -> Result<Judgement, String> {
        let question: Question = serde_json::from_str(question).map_err(|error| error.to_string())?;
        judge(&question).map_err(|error| error.to_string())
    }

    /// The values of `B.counts.drop94to90_w10` and `C.SLO_success_ge_90pct` of the reference vectors.
    #[test]
    fn counts_from_elsewhere_are_judged_as_the_reference_vectors_say() {
        let judged = ask(r#"{"gates": [
                {"name": "success", "test": "threshold", "limit": 0.10, "bad": 20, "good": 80},
                {"name": "latency", "test": "threshold", "limit": 0.10, "bad": 60, "good": 940}
            ]}"#)
        .unwrap();
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/data/stats-vectors.json")).unwrap();
        let expected = |id: &str| {
            let vectors = vectors["vectors"].as_array().unwrap();
            vectors.iter().find(|v| v["id"].as_str().unwrap().starts_with(id)).unwrap()["expected"]
                .as_f64()
                .unwrap()
        };
        assert!((judged.gates[0].log_e - expected("C.SLO_success_ge_90pct")).abs() < 1e-9);
        assert!((judged.gates[1].log_e - expected("C.SLO_pass")).abs() < 1e-9);
        assert_eq!(judged.gates[1].verdict, Verdict::Pass);
    }

    #[test]
    fn steps_bring_the_late_harm_mixture_in() {
        let at = |step: &str, bad: u64| {
            format!(
                r#"{{"weight": 50, {step} "canary": {{"sessions": 200, "bad": {bad}}}, "stable": {{"sessions": 200, "bad": 12}}}}"#
            )
        };
        let question = |first: &str, second: &str| {
            format!(
                r#"{{"gates": [{{"name": "g", "test": "stable", "baseline": {{"mean": 0.06, "sd": 0.2375}}, "counts": [{}, {}]}}]}}"#,
                at(first, 4),
                at(second, 40)
            )
        };
        let one_process = ask(&question("", "")).unwrap().gates[0].log_e;
        let mixed = ask(&question(r#""step": 1,"#, r#""step": 2,"#)).unwrap().gates[0].log_e;
        assert!(
            mixed > one_process + 0.5,
            "{mixed} against {one_process}: the good start must not outweigh the late harm"
        );
    }

    #[test]
    fn nothing_is_no_data_and_impossible_counts_are_refused() {
        let judged = ask(r#"{"gates": [{"name": "g", "test": "threshold", "limit": 0.1}]}"#).unwrap();
        assert_eq!((judged.gates[0].verdict, judged.combined.verdict), (Verdict::NoData, Verdict::NoData));
        let stable = |counts: &str| {
            ask(&format!(
                r#"{{"gates": [{{"name": "g", "test": "stable", "baseline": {{"mean": 0.1, "sd": 0.3}}, "counts": [{counts}]}}]}}"#
            ))
        };
        assert_eq!(
            stable(
                r#"{"weight": 10, "canary": {"sessions": 1, "bad": 2}, "stable": {"sessions": 1, "bad": 0}}"#
            ),
            Err("gate \"g\": 2 of 1 sessions cannot be bad".to_owned())
        );
        assert_eq!(
            stable(
                r#"{"weight": 140, "canary": {"sessions": 1, "bad": 1}, "stable": {"sessions": 1, "bad": 0}}"#
            ),
            Err("gate \"g\": weight 140 lies outside 0 to 100 percent".to_owned())
        );
        assert!(ask(r#"{"gates": [{"name": "g", "test": "threshold", "limit": 1.5}]}"#).is_err());
        assert!(ask(r#"{"gates": [], "confidence": 1}"#).is_err());
        assert!(ask(r#"{"gates": [{"name": "g", "test": "threshold", "limit": 0.1, "oops": 1}]}"#).is_err());
    }
}
