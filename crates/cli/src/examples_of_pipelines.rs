//! The examples for pipelines call the program as it can be called.

use clap::Parser as _;
use serin_core::manifest::{Node, Value};

use crate::Cli;

/// Every text in a document.
fn texts(node: &Node, found: &mut Vec<String>) {
    match &node.value {
        Value::Null => {}
        Value::Scalar(scalar) => found.push(scalar.text.clone()),
        Value::List(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Map(entries) => entries.iter().for_each(|entry| texts(&entry.node, found)),
    }
}

/// The calls of the program in a shell script, without what the shell takes for itself.
fn calls(script: &str) -> Vec<Vec<String>> {
    let lines = script.lines().map(str::trim).filter(|line| line.starts_with("serin "));
    let own = |word: &&str| !matches!(*word, ">" | "||" | "|" | "&&");
    lines.map(|line| line.split_whitespace().take_while(own).map(ToOwned::to_owned).collect()).collect()
}

#[test]
fn every_call_in_the_examples_for_pipelines_is_accepted() {
    let examples = [
        include_str!("../../../examples/ci/github-actions.yml"),
        include_str!("../../../examples/ci/gitlab-ci.yml"),
    ];
    for example in examples {
        let document = Node::read(example).expect("an example is YAML");
        let mut found = Vec::new();
        texts(&document, &mut found);
        let calls: Vec<Vec<String>> = found.iter().flat_map(|text| calls(text)).collect();
        assert_eq!(calls.len(), 3, "{calls:?}");
        for call in calls {
            if let Err(error) = Cli::try_parse_from(&call) {
                panic!("{}: {error}", call.join(" "));
            }
        }
    }
    let wrong = calls("serin apply -f x --no-such-flag > y").remove(0);
    assert!(Cli::try_parse_from(wrong).is_err());
}
