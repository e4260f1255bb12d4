//! Tools that a new version takes from conversations in flight.

use super::Lint;
use crate::plan::{InFlight, Plan};
use crate::prompt::Pack;

/// Looks over the tools that the prompts of a plan's version no longer have, compared with those of stable.
///
/// The path of each warning is one in the pack, such as `prompts.answer.tools`.
pub fn lint_tools(plan: &Plan, stable: &Pack, canary: &Pack) -> Vec<Lint> {
    let mut lints = Vec::new();
    for (name, before) in stable.prompts() {
        // A prompt that is gone cannot be asked for; `serin diff` shows that.
        let Some(now) = canary.prompts().get(name) else { continue };
        let is_removed = |name: &&str| now.tools.iter().all(|tool| tool.name != *name);
        let removed: Vec<&str> =
            before.tools.iter().map(|tool| tool.name.as_str()).filter(is_removed).collect();
        if removed.is_empty() {
            continue;
        }
        let message = format!(
            "prompt {name} of {} has no tool {} any more, which conversations that began on {} may still call",
            canary.version(),
            removed.join(", "),
            stable.version()
        );
        let sessions = &plan.sessions;
        let hint = match sessions.on_promote {
            InFlight::Drain => format!(
                "keep answering its calls until {} after the rollout (`sessions.maxLifetime`): such conversations stay on {} until they end",
                sessions.max_lifetime,
                stable.version()
            ),
            InFlight::Move => format!(
                "`sessions.onPromote: move` takes it away in the middle of a conversation: use `drain`, and keep answering its calls for {}",
                sessions.max_lifetime
            ),
        };
        lints.push(Lint { rule: "removed-tool", path: format!("prompts.{name}.tools"), message, hint });
    }
    lints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(version: &str, tools: &[&str]) -> Pack {
        let declared: serde_json::Map<String, serde_json::Value> = ["find_order", "refund"]
            .iter()
            .map(|tool| ((*tool).to_owned(), serde_json::json!({"name": tool, "description": "d"})))
            .collect();
        Pack::from_value(serde_json::json!({
            "id": "p", "name": "P", "version": version,
            "template_engine": {"version": "v1", "syntax": "{{variable}}"},
            "tools": declared,
            "prompts": {"answer": {
                "id": "answer", "name": "Answer", "version": version, "system_template": "Help.", "tools": tools,
            }},
        }))
        .unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn found(sessions: &str, stable: &[&str], canary: &[&str]) -> Vec<String> {
        let text = format!(
            "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: p}}\n\
             spec: {{version: 2.0.0, rollout: {{sessions: {sessions}}}}}"
        );
        let plan = crate::parse::parse(&text).unwrap_or_else(|problems| panic!("{problems}")).plan;
        let lints = lint_tools(&plan, &pack("1.0.0", stable), &pack("2.0.0", canary));
        lints
            .iter()
            .map(|lint| format!("{} {}: {}\n  {}", lint.rule, lint.path, lint.message, lint.hint))
            .collect()
    }

    #[test]
    fn a_canary_that_removes_a_tool_of_conversations_in_flight_is_found() {
        insta::assert_snapshot!(found("{}", &["find_order", "refund"], &["find_order"]).join("\n"), @r"
        removed-tool prompts.answer.tools: prompt answer of 2.0.0 has no tool refund any more, which conversations that began on 1.0.0 may still call
          keep answering its calls until 1d after the rollout (`sessions.maxLifetime`): such conversations stay on 1.0.0 until they end
        ");
        insta::assert_snapshot!(found("{onPromote: move}", &["refund"], &[]).join("\n"), @r"
        removed-tool prompts.answer.tools: prompt answer of 2.0.0 has no tool refund any more, which conversations that began on 1.0.0 may still call
          `sessions.onPromote: move` takes it away in the middle of a conversation: use `drain`, and keep answering its calls for 1d
        ");
        assert!(found("{}", &["find_order"], &["find_order", "refund"]).is_empty());
        assert!(found("{}", &["find_order", "refund"], &["refund", "find_order"]).is_empty());
    }
}
