//! The fold of core over flat arrays: the same counters, many times faster.
//!
//! A test folds the same sessions by core and here, and compares the counters.

use std::collections::BTreeMap;

use serin_core::aggregate::{Counters, Counts, Measure, Scale};
use serin_core::evidence::{Baseline, JudgeRule, Maturity, PlannedMeasure, SessionFacts};
use serin_core::metric::{Better, Kind, Signal};
use serin_core::observation::{Fact, Reading, Response};
use serin_core::routing::{CohortId, Variant};
use serin_core::units::HoldFor;

/// No session counts more requests than this.
const MOST_ANSWERS: usize = serin_core::evidence::MOST_REQUESTS as usize;

/// Folds sessions into flat arrays by cohort.
#[derive(Debug)]
pub(crate) struct DenseFold {
    request_cap: usize,
    first_age: HoldFor,
    /// Measures by the age and window at which they are read.
    groups: Vec<(Maturity, Vec<(usize, DenseMeasure)>)>,
    names: Vec<Measure>,
    cells: BTreeMap<CohortId, DenseCell>,
}

/// A measure with its constants worked in.
#[derive(Debug)]
struct DenseMeasure {
    signal: Signal,
    kind: Kind,
    scale: Scale,
    low_is_bad: bool,
    /// The limit for stable and for canary.
    limits: [Option<f64>; 2],
}

#[derive(Debug)]
struct DenseCell {
    sessions: u64,
    measures: Vec<DenseCounts>,
}

#[derive(Debug, Clone, Default)]
struct DenseCounts {
    /// By requests times a row length plus bad ones.
    pairs: Vec<u64>,
    values: Vec<u64>,
}

/// A row of pairs: the bad ones among n requests.
const ROW: usize = MOST_ANSWERS + 1;

impl DenseCounts {
    fn add_pair(&mut self, n: usize, bad: usize) {
        add_at(&mut self.pairs, n * ROW + bad);
    }

    fn add_value(&mut self, bucket: u32) {
        add_at(&mut self.values, bucket as usize);
    }

    fn as_counts(&self) -> Counts {
        let counted = |counts: &[u64]| -> Vec<(u32, u64)> {
            let numbered = (0_u32..).zip(counts.iter().copied());
            numbered.filter(|(_, count)| *count > 0).collect()
        };
        let row = u32::try_from(ROW).expect("a row is short");
        Counts {
            pairs: counted(&self.pairs)
                .into_iter()
                .map(|(at, count)| ((at / row, at % row), count))
                .collect(),
            values: counted(&self.values).into_iter().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.values.is_empty()
    }
}

fn add_at(counts: &mut Vec<u64>, index: usize) {
    if counts.len() <= index {
        counts.resize(index + 1, 0);
    }
    counts[index] += 1;
}

/// One request as it stood when the session was read.
#[derive(Clone, Copy)]
enum Answer<'f> {
    Ended(&'f Response),
    Unfinished,
}

impl DenseFold {
    pub(crate) fn new(measures: &[PlannedMeasure], baseline: &Baseline) -> Self {
        let mut groups: Vec<(Maturity, Vec<(usize, DenseMeasure)>)> = Vec::new();
        for (index, measure) in measures.iter().enumerate() {
            let dense = DenseMeasure::of(measure, baseline);
            match groups.iter_mut().find(|(maturity, _)| *maturity == measure.maturity) {
                Some((_, group)) => group.push((index, dense)),
                None => groups.push((measure.maturity, vec![(index, dense)])),
            }
        }
        let names = measures
            .iter()
            .map(|measure| Measure { metric: measure.metric.name.clone(), judge: measure.judge.judge() })
            .collect();
        let first_age =
            measures.iter().map(|measure| measure.maturity.read_at).min().unwrap_or(HoldFor::ZERO);
        Self { request_cap: baseline.request_cap as usize, first_age, groups, names, cells: BTreeMap::new() }
    }

    /// Folds a session into the measures that are read at an age.
    pub(crate) fn fold(&mut self, cohort: CohortId, facts: &SessionFacts, age: HoldFor) {
        let n_measures = self.names.len();
        let cell = self
            .cells
            .entry(cohort)
            .or_insert_with(|| DenseCell { sessions: 0, measures: vec![DenseCounts::default(); n_measures] });
        cell.sessions += u64::from(age == self.first_age);
        let side = match facts.variant {
            Variant::Stable => 0,
            Variant::Canary => 1,
        };
        for (maturity, group) in self.groups.iter().filter(|(maturity, _)| maturity.read_at == age) {
            let mut answers = [Answer::Unfinished; MOST_ANSWERS];
            let n = counted_answers(facts, *maturity, self.request_cap, &mut answers);
            for (index, measure) in group {
                measure.add(&mut cell.measures[*index], facts, *maturity, &answers[..n], side);
            }
        }
    }

    /// What was folded so far, by cohort.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (CohortId, Counters)> {
        self.cells.iter().map(|(id, cell)| {
            let shown = self.names.iter().zip(&cell.measures).filter(|(_, counts)| !counts.is_empty());
            let measures = shown.map(|(name, counts)| (name.clone(), counts.as_counts())).collect();
            (*id, Counters { sessions: cell.sessions, measures })
        })
    }
}

fn counted_answers<'f>(
    facts: &'f SessionFacts,
    maturity: Maturity,
    cap: usize,
    answers: &mut [Answer<'f>; MOST_ANSWERS],
) -> usize {
    let last_start = maturity.window.after(facts.assigned_at);
    let read_at = maturity.read_at.after(facts.assigned_at);
    let mut n = 0;
    for seen in &facts.observations {
        let Fact::Response(response) = &seen.fact else { continue };
        if n > 0 && seen.at > last_start {
            continue;
        }
        answers[n] = if seen.until > read_at { Answer::Unfinished } else { Answer::Ended(response) };
        n += 1;
        if n >= cap {
            break;
        }
    }
    n
}

impl DenseMeasure {
    fn of(measure: &PlannedMeasure, baseline: &Baseline) -> Self {
        let metric = &measure.metric;
        let constants = baseline.metrics.get(&metric.name);
        let (limits, low_is_bad) = match measure.judge {
            JudgeRule::Limit { limit, low_is_bad } => ([Some(limit); 2], low_is_bad),
            JudgeRule::Stable => {
                let edge = constants.and_then(|constants| constants.edge);
                let margin = constants.and_then(|constants| constants.margin).unwrap_or(0.0);
                ([edge, edge.map(|edge| edge + margin)], metric.better == Better::Higher)
            }
        };
        Self {
            signal: metric.signal.clone(),
            kind: metric.kind,
            scale: Scale::of(metric),
            low_is_bad,
            limits,
        }
    }

    fn add(
        &self,
        counts: &mut DenseCounts,
        facts: &SessionFacts,
        maturity: Maturity,
        answers: &[Answer<'_>],
        side: usize,
    ) {
        if self.signal == Signal::Turns {
            let end = maturity.read_at.after(facts.assigned_at);
            let is_turn = |fact: &Fact| matches!(fact, Fact::Response(_));
            let turns =
                facts.observations.iter().filter(|seen| seen.at <= end && is_turn(&seen.fact)).count();
            if turns > 0 {
                counts.add_value(self.scale.bucket(f64::from(u32::try_from(turns).unwrap_or(u32::MAX))));
            }
            return;
        }
        if !self.signal.is_per_request() {
            return self.add_outcome(counts, facts, maturity);
        }
        match self.kind {
            Kind::Rate | Kind::ComplementRate => {
                let flags = answers.iter().filter_map(|answer| self.flag(*answer));
                let (n, bad) =
                    flags.fold((0, 0), |(n, bad), flag| (n + 1, bad + usize::from(flag != self.low_is_bad)));
                if n > 0 {
                    counts.add_pair(n, bad);
                }
            }
            Kind::Quantile(_) => {
                let Some(limit) = self.limits[side] else { return };
                let values = answers.iter().filter_map(|answer| self.value(*answer));
                let is_bad = |value: f64| if self.low_is_bad { value < limit } else { value > limit };
                let (n, bad) =
                    values.fold((0, 0), |(n, bad), value| (n + 1, bad + usize::from(is_bad(value))));
                if n > 0 {
                    counts.add_pair(n, bad);
                }
            }
            Kind::Mean => {
                let n = answers.iter().filter_map(|answer| self.value(*answer)).count();
                if n > 0 {
                    #[expect(clippy::cast_precision_loss, reason = "at most twenty answers")]
                    let share = 1.0 / n as f64;
                    let mean = answers
                        .iter()
                        .filter_map(|answer| self.value(*answer))
                        .map(|value| value * share)
                        .sum();
                    counts.add_value(self.scale.bucket(mean));
                }
            }
        }
    }

    fn add_outcome(&self, counts: &mut DenseCounts, facts: &SessionFacts, maturity: Maturity) {
        let end = maturity.read_at.after(facts.assigned_at);
        let reported =
            facts.observations.iter().rev().filter(|seen| seen.at <= end).find_map(|seen| match &seen.fact {
                Fact::Outcome(outcome) if outcome.signal == self.signal => Some(outcome.value),
                Fact::Outcome(_) | Fact::Started | Fact::Response(_) => None,
            });
        match self.kind {
            Kind::Rate | Kind::ComplementRate => {
                let reached = reported.is_some_and(|value| value >= 0.5);
                counts.add_pair(1, usize::from(reached != self.low_is_bad));
            }
            Kind::Mean | Kind::Quantile(_) => {
                if let Some(value) = reported {
                    counts.add_value(self.scale.bucket(value));
                }
            }
        }
    }

    fn flag(&self, answer: Answer<'_>) -> Option<bool> {
        let raw = match answer {
            Answer::Unfinished => (self.signal == Signal::Success).then_some(false)?,
            Answer::Ended(response) => match response.read(&self.signal)? {
                Reading::Flag(flag) => flag,
                Reading::Value(_) => return None,
            },
        };
        Some(if self.kind == Kind::ComplementRate { !raw } else { raw })
    }

    fn value(&self, answer: Answer<'_>) -> Option<f64> {
        match answer {
            Answer::Unfinished => matches!(self.signal, Signal::Latency | Signal::Ttft).then_some(f64::MAX),
            Answer::Ended(response) => match response.read(&self.signal)? {
                Reading::Value(value) => Some(value),
                Reading::Flag(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serin_core::evidence::{fold, fold_ages, freeze, measures};
    use serin_core::parse::parse;
    use serin_core::units::Timestamp;

    use super::*;
    use crate::dice::{Dice, Habits, Model};
    use crate::truth::Truth;

    const MANIFEST: &str = "
apiVersion: omnia.altairalabs.ai/v1alpha1
kind: PromptPack
metadata: {name: support}
spec:
  version: 2.0.0
  rollout:
    analysis:
      metrics:
        - {name: success_rate, threshold: 90%, comparison: '>='}
        - {name: latency_p99, threshold: 3000ms, comparison: '<='}
        - {name: latency_p90, compareTo: stable, maxRegression: 200ms, maturity: 30s}
        - {name: user_satisfaction_avg, threshold: 4.0, comparison: '>=', maturity: 5m}
        - {name: task_completion_rate, compareTo: stable, maxRegression: 2%, maturity: 10m}
        - {name: cost_avg, compareTo: stable, maxRegression: 10%}
";

    #[test]
    fn the_dense_fold_counts_every_session_as_core_does() {
        let truth = Truth {
            escalation: Some(0.1),
            refusal_rate: Some(0.05),
            output_tokens: Some(300.0),
            ..Truth::healthy().satisfaction(4.1, 0.4).completion(0.7).cost(0.02).tool_accuracy(0.9)
        };
        let plan = parse(MANIFEST).expect("a manifest without problems").plan;
        let model = Model::of(truth.latency(1_500.0, 9_000.0));
        for (seed, requests_mean) in [(1, 1.0), (2, 4.0), (3, 30.0)] {
            let habits = Habits { requests_mean, lost_outcomes: 0.2, correlation: 0.3, ..Habits::default() };
            let mut dice = Dice::new(seed);
            let mut session = |variant| {
                let assigned_at = Timestamp::UNIX_EPOCH;
                SessionFacts {
                    assigned_at,
                    variant,
                    observations: dice.session(&model, &habits, assigned_at),
                }
            };
            let earlier: Vec<SessionFacts> = (0..300).map(|_| session(Variant::Stable)).collect();
            let mut baseline = freeze(&plan, &earlier, 200, Timestamp::UNIX_EPOCH).expect("enough sessions");
            // A short cap leaves some requests unfinished.
            baseline.latency_cap_ms = 4_000.0;
            let measures = measures(&plan, &baseline);
            let mut dense = DenseFold::new(&measures, &baseline);
            let mut expected: BTreeMap<CohortId, Counters> = BTreeMap::new();
            for number in 0..2_000 {
                let variant = if number % 3 == 0 { Variant::Canary } else { Variant::Stable };
                let (facts, cohort) = (session(variant), CohortId(number % 3));
                for age in fold_ages(&measures) {
                    dense.fold(cohort, &facts, age);
                    expected.entry(cohort).or_default().merge(&fold(&facts, age, &measures, &baseline));
                }
            }
            let counted: BTreeMap<CohortId, Counters> = dense.counters().collect();
            assert_eq!(counted, expected);
        }
    }
}
