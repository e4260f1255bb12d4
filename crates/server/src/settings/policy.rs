//! `policy`: rules that manifests and orders have to keep. Their form is core's; the places are the file's.

use serin_core::manifest::{Node, Value};
use serin_core::parse;
use serin_core::policy::{Policy, Rule};

use super::read::Reader;

const SETTING: &str = "policy";

/// Reads the rules; what is wrong is noted, and no rule is in force then.
pub(super) fn read(reader: &mut Reader<'_>) -> Policy {
    let Some(node) = reader.node(SETTING) else { return Policy::NONE };
    match parse::policy(&node) {
        Ok(policy) => {
            let names: Vec<&str> = policy.rules().iter().map(|rule: &Rule| rule.name.as_str()).collect();
            let place = reader.place(node.at);
            reader.show(SETTING, format!("[{}]", names.join(", ")), place);
            policy
        }
        Err(problems) => {
            for problem in problems.list() {
                let place =
                    reader.place(serin_core::manifest::At { line: problem.line, column: problem.column });
                reader.problem(&place, &problem.path, &problem.message, problem.hint.as_deref());
            }
            Policy::NONE
        }
    }
}

/// The policy of a settings file, whatever else stands in it.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn policy_of(yaml: &str) -> Result<Policy, String> {
    let root = Node::read(yaml).map_err(|error| error.message)?;
    let Value::Map(settings) = &root.value else { return Err("it holds no settings".to_owned()) };
    match settings.iter().find(|entry| entry.key == SETTING && entry.node.value != Value::Null) {
        Some(entry) => parse::policy(&entry.node).map_err(|problems| problems.to_string()),
        None => Ok(Policy::NONE),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::tests::load;
    use super::*;

    #[test]
    fn rules_are_read_and_shown_by_their_names() {
        let yaml = "policy:\n- {name: careful, packs: ['support-*'], maxFirstWeight: 5%}\n- {name: judged, requiredGates: [success_rate]}\n";
        let settings = load(yaml, &[], Options::default()).unwrap();
        assert_eq!(settings.policy.rules().len(), 2);
        assert!(settings.print().starts_with("dataDir: "), "{}", settings.print());
        assert!(settings.print().contains("\npolicy: [careful, judged]  # "), "{}", settings.print());
        assert_eq!(policy_of(yaml).unwrap(), settings.policy, "lint judges by what the server judges by");
        assert_eq!(policy_of("retention: 7d\n").unwrap(), Policy::NONE);
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_told_with_its_place_in_the_settings() {
        let yaml = "retention: 7d\npolicy:\n- name: careful\n  maxFirstWeigth: 5%\n- {name: careful, maxFirstWeight: 500%}\n";
        insta::assert_snapshot!(load(yaml, &[], Options::default()).unwrap_err());
    }
}
