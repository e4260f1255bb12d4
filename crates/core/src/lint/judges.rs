//! Judges that have nothing to read.

use super::{ANALYSIS, Lint, add};
use crate::plan::Plan;
use crate::weight::Weight;

/// Finds judges that are to judge more sessions than a server records.
pub fn lint_judges(plan: &Plan, recorded: Weight) -> Vec<Lint> {
    let mut lints = Vec::new();
    for judge in plan.analysis.judges.iter().filter(|judge| judge.sample_rate > recorded) {
        let index = plan.analysis.custom.iter().position(|metric| metric.name == judge.outcome);
        let path = format!("{ANALYSIS}.outcomes[{}].judge", index.unwrap_or(0));
        let rate = judge.sample_rate;
        let message = match recorded {
            Weight::ZERO => format!(
                "{} is never judged: a judge reads recorded conversations, and the server records none",
                judge.outcome
            ),
            recorded => format!(
                "{rate} of the sessions are to be judged by {}, and {recorded} are recorded: the others are not judged",
                judge.outcome
            ),
        };
        let hint = format!("set `samples.rate` in the settings of the server to {rate} or more");
        add(&mut lints, "unrecorded-judge", path, message, &hint);
    }
    lints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_of_more_sessions_than_are_recorded_is_found() {
        let text = "
apiVersion: omnia.altairalabs.ai/v1alpha1
kind: PromptPack
metadata: {name: p}
spec:
  version: 1.0.0
  rollout:
    analysis:
      outcomes:
        - {name: order_placed, kind: rate, better: higher}
        - {name: helpful, kind: rate, better: higher, judge: {model: m, rubric: r, sampleRate: 20%}}
";
        let plan = crate::parse::parse(text).unwrap_or_else(|problems| panic!("{problems}")).plan;
        let found = |percent| lint_judges(&plan, Weight::from_percent(percent).unwrap());
        assert_eq!((found(20.0), found(100.0)), (Vec::new(), Vec::new()));
        for (percent, words) in [
            (0.0, "helpful is never judged"),
            (5.0, "20% of the sessions are to be judged by helpful, and 5% are recorded"),
        ] {
            let found = found(percent);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].path, "spec.rollout.analysis.outcomes[1].judge");
            assert!(found[0].message.contains(words), "{}", found[0].message);
        }
    }
}
