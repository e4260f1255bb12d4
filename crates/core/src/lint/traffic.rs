//! Gates that the traffic cannot feed.

use super::{ANALYSIS, Lint, add};
use crate::forecast::{Forecast, GateForecast, Sees, StepForecast};
use crate::plan::{Plan, StepPhase, Strategy};

/// A rollout that waits for less than this many times its length is not worth a word.
const LONGER: f64 = 1.25;

/// Looks over what a plan can show at some traffic; `forecast` is that of this plan.
pub fn lint_traffic(plan: &Plan, forecast: &Forecast) -> Vec<Lint> {
    let mut lints = Vec::new();
    match plan.strategy {
        Strategy::Immediate => return lints,
        Strategy::Canary => {}
    }
    for (index, gate) in forecast.gates.iter().enumerate() {
        let path = format!("{ANALYSIS}.metrics[{index}]");
        // A step that lacks sessions of its own is told once, with the gate that asks for most.
        let asks_most = forecast.gates.iter().all(|other| other.needed <= gate.needed)
            && forecast.gates[..index].iter().all(|earlier| earlier.needed < gate.needed);
        let waits_for = |step: &StepForecast| {
            let why = step.waits_for.as_deref()?;
            let is_of_gate = why.strip_prefix(gate.metric.as_str()).is_some_and(|rest| rest.starts_with(' '));
            (is_of_gate || (asks_most && why.starts_with("the step "))).then(|| why.to_owned())
        };
        let waiting: Vec<(&StepForecast, String)> = forecast
            .steps
            .iter()
            .filter(|step| step.phase != StepPhase::Observing && !step.fits)
            .filter_map(|step| Some((step, waits_for(step)?)))
            .collect();
        let is_long = forecast
            .expected_length
            .is_none_or(|length| length.secs_f64() > LONGER * forecast.planned_length.secs_f64());
        if let Some((step, why)) = waiting.first()
            && is_long
        {
            let ends = match forecast.expected_length {
                Some(length) => format!("the rollout takes {length} instead of {}", forecast.planned_length),
                None => "the rollout never ends".to_owned(),
            };
            let more = match waiting.len() - 1 {
                0 => String::new(),
                more => format!(", and so on in {more} more"),
            };
            let is_of_judge = gate.judged_share.is_some() && !why.starts_with("the step ");
            let gets = if is_of_judge { judged_in_hold(gate, step, forecast) } else { step.matured_in_hold };
            let message = format!(
                "in step {} ({} for {}) {why} and gets {gets}{more}: {ends}",
                step.index + 1,
                step.shown,
                step.hold,
            );
            let hint = if is_of_judge {
                "judge more sessions (`sampleRate`, `maxPerHour`), lengthen the steps, start at a higher weight, or lower `minSamples`"
            } else {
                "lengthen the steps, start at a higher weight, or lower `minSamples`; `serin plan` proposes steps that fit"
            };
            add(&mut lints, "unfed-gate", &path, message, hint);
        }
        let is_blind = gate.sights.iter().all(|sight| sight.harm.is_none());
        if gate.sees != Sees::Literal && is_blind && !gate.sights.is_empty() {
            let message = format!("{} sees no harm at all at this traffic, however large", gate.metric);
            let hint = "lengthen the steps, loosen `confidence`, or gate on fewer metrics";
            add(&mut lints, "blind-gate", &path, message, hint);
        }
    }
    lints
}

/// Canary sessions of a step that its judge has read when the hold has passed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sessions of a step are few and not below 0"
)]
fn judged_in_hold(gate: &GateForecast, step: &StepForecast, forecast: &Forecast) -> u64 {
    let canary = step.canary_percent / 100.0 * forecast.sessions_per_second;
    let matured_secs = (step.hold.secs_f64() - gate.maturity.secs_f64()).max(0.0);
    (canary * matured_secs * gate.judged_share.unwrap_or(1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::Traffic;

    fn found(rollout: &str, sessions_per_day: f64) -> Vec<String> {
        let text = format!(
            "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: p}}\n\
             spec: {{version: 1.0.0, rollout: {rollout}}}"
        );
        let plan = crate::parse::parse(&text).unwrap_or_else(|problems| panic!("{problems}")).plan;
        let traffic = Traffic::per_day(sessions_per_day).unwrap();
        let lints = lint_traffic(&plan, &Forecast::new(&plan, &traffic, None));
        lints.iter().map(|lint| format!("{} {}: {}", lint.rule, lint.path, lint.message)).collect()
    }

    const GATE: &str = "analysis: {metrics: [{name: success_rate, threshold: 90%, comparison: '>='}]}";

    #[test]
    fn a_gate_that_the_traffic_cannot_feed_is_found() {
        let few = found(&format!("{{{GATE}}}"), 2_000.0);
        assert_eq!(few.len(), 1, "{few:?}");
        assert!(
            few[0].starts_with("unfed-gate spec.rollout.analysis.metrics[0]: in step 2 (10% for 5m) "),
            "{few:?}"
        );
        assert!(
            few[0].contains(" needs 30 canary sessions in the step and gets 0, and so on in 7 more"),
            "{few:?}"
        );
        assert!(few[0].ends_with(": the rollout takes 9h50m instead of 45m"), "{few:?}");
        assert_eq!(found(&format!("{{{GATE}}}"), 2_000_000.0), Vec::<String>::new());
        // Long steps gather the same sessions.
        assert_eq!(found(&format!("{{stepInterval: 1d, {GATE}}}"), 2_000.0), Vec::<String>::new());
    }

    /// Half an hour at each step, 10% of 3 600 sessions an hour: 180 canary sessions, of which 120 are ten minutes old.
    #[test]
    fn a_judged_gate_gets_the_share_of_the_sessions_that_its_judge_reads() {
        let judged = |judge: &str| {
            found(
                &format!(
                    "{{stepInterval: 30m, analysis: {{outcomes: [{{name: polite, kind: rate, better: higher, judge: {{model: m, rubric: r{judge}}}}}], \
                     metrics: [{{name: polite, threshold: 50%, comparison: '>=', maturity: 10m}}]}}}}"
                ),
                86_400.0,
            )
        };
        assert_eq!(judged(", maxPerHour: 100000"), Vec::<String>::new());
        let sampled = judged(", maxPerHour: 100000, sampleRate: 2%");
        assert_eq!(sampled.len(), 1, "{sampled:?}");
        let told = "in step 2 (10% for 30m) polite needs 30 judged canary sessions in the step (its judge reads 2% of all) and gets 2";
        assert!(sampled[0].contains(told), "{sampled:?}");
        assert!(sampled[0].contains(": the rollout takes "), "{sampled:?}");
        // 36 of 3 600 sessions in an hour are 1%.
        let budgeted = judged(", maxPerHour: 36");
        assert_eq!(budgeted.len(), 1, "{budgeted:?}");
        let told = "polite needs 30 judged canary sessions in the step (its judge reads 36 of all in an hour) and gets 1";
        assert!(budgeted[0].contains(told), "{budgeted:?}");
    }

    #[test]
    fn a_gate_that_sees_no_harm_is_found() {
        let strict = "{steps: [{weight: 10, hold: 1h}, {weight: 100, hold: 1h}], analysis: {confidence: 99.99%, metrics: [{name: success_rate, threshold: 10%, comparison: '>=', minSamples: 1}]}}";
        let found = found(strict, 24.0);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("unfed-gate ")
                && found[0].ends_with("the rollout takes 7h42m instead of 2h"),
            "{found:?}"
        );
        assert_eq!(
            found[1],
            "blind-gate spec.rollout.analysis.metrics[0]: success_rate sees no harm at all at this traffic, however large"
        );
    }

    #[test]
    fn a_rollout_without_gates_has_none_to_feed() {
        assert_eq!(found("{}", 10.0), Vec::<String>::new());
        assert_eq!(found("{strategy: immediate}", 10.0), Vec::<String>::new());
    }
}
