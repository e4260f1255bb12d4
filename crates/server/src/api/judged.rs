//! How far the judges of a rollout are, in words: what they could not judge is said where the numbers are shown.

use serin_core::ids::RolloutId;
use serin_core::judge::Judge;
use serin_core::plan::Plan;

use super::App;
use crate::store::{StoreError, VerdictCount, VerdictState};

/// One note for each judge.
pub(super) async fn notes(app: &App, plan: &Plan, rollout: &RolloutId) -> Result<Vec<String>, StoreError> {
    if plan.analysis.judges.is_empty() {
        return Ok(Vec::new());
    }
    let counts = app.control.store().verdict_counts(rollout).await?;
    let judges = plan.analysis.judges.iter();
    Ok(judges.map(|judge| note(judge, &counts, app.judges.obstacle(judge, rollout))).collect())
}

fn note(judge: &Judge, counts: &[VerdictCount], obstacle: Option<String>) -> String {
    let of_judge = || counts.iter().filter(|count| count.outcome == judge.outcome);
    let in_state =
        |state| of_judge().filter(|count| count.state == state).map(|count| count.count).sum::<u64>();
    let mut text = format!(
        "The judge of {} has judged {} sessions of both variants, blindly.",
        judge.outcome,
        in_state(VerdictState::Judged)
    );
    if let Some(obstacle) = obstacle {
        text.push_str(&format!(" In its way: {obstacle}."));
    }
    let failed = in_state(VerdictState::Failed);
    if failed > 0 {
        let reasons: Vec<String> = of_judge()
            .filter(|count| count.state == VerdictState::Failed)
            .map(|count| format!("{} {}", count.count, words(count.reason.as_deref().unwrap_or(""))))
            .collect();
        text.push_str(&format!(
            " {failed} could not be judged and count for neither side: {}.",
            reasons.join(", ")
        ));
    }
    let (stopped, unanswered): (Vec<_>, Vec<_>) = of_judge()
        .filter(|count| count.state == VerdictState::Waiting)
        .partition(|count| count.reason.as_deref() == Some("interrupted"));
    for (waiting, why) in
        [(unanswered, "it did not answer"), (stopped, "the server stopped while it was asked")]
    {
        let waiting: u64 = waiting.iter().map(|count| count.count).sum();
        if waiting > 0 {
            text.push_str(&format!(" {waiting} wait because {why}."));
        }
    }
    let beyond = in_state(VerdictState::OverBudget);
    if beyond > 0 {
        let money = judge.max_cost_per_hour.map_or_else(String::new, |most| format!(" or ${most}"));
        text.push_str(&format!(
            " {beyond} were not judged because its budget of {} requests{money} an hour was spent.",
            judge.max_per_hour
        ));
    }
    text
}

/// The reason of a failure for people.
fn words(reason: &str) -> &str {
    match reason {
        "other_form" => "were answered in another form than asked for",
        "outside_scale" => "were given a number outside the scale",
        "nothing_to_judge" => "had no complete answer",
        "no_provider" => "had no provider to ask",
        "unreachable" => "reached no judge",
        "timed_out" => "were not answered in time",
        "refused" => "were refused by the provider",
        "broken_off" => "got half an answer",
        "interrupted" => "were being asked about when the server stopped",
        "not_stored" => "were judged, but could not be stored",
        other => other,
    }
}
