//! What a person reads before a rollout: traps that `lint` names, and the patterns of the examples.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use support::{Place, Ran, Server, pack, repository, slow_manifest};

/// The same pack with these tools.
fn pack_with_tools(version: &str, tools: &[&str]) -> String {
    let mut pack: serde_json::Value = serde_json::from_str(&pack(version)).unwrap();
    pack["tools"] = serde_json::json!({
        "find_order": {"name": "find_order", "description": "Finds an order."},
        "refund": {"name": "refund", "description": "Pays back."},
    });
    pack["prompts"]["answer"]["tools"] = serde_json::json!(tools);
    format!("{pack:#}")
}

/// Version 1.0.0 with two tools, and 2.0.0 with one of them.
fn place_with_tools() -> Place {
    let place = Place::empty();
    for (version, tools) in [("1.0.0", ["find_order", "refund"].as_slice()), ("2.0.0", &["find_order"])] {
        place.write(&format!("{version}.yaml"), &slow_manifest(version));
        place.write(&format!("support-{version}.pack.json"), &pack_with_tools(version, tools));
    }
    place
}

#[tokio::test]
async fn lint_tells_which_gate_the_traffic_cannot_feed() {
    let place = Place::empty();
    place.publishable("2.0.0");
    let ran = place.run("lint -f 2.0.0.yaml --sessions-per-day 200").await;
    assert_eq!(ran.code, 0, "a warning is no error: {ran:?}");
    insta::assert_snapshot!("lint_unfed_gate", ran.shown());
    let ran = place.run("lint -f 2.0.0.yaml --sessions-per-second 1000").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "1 file: nothing to say\n"));
    let ran = place.run("lint -f 2.0.0.yaml --sessions-per-second 0").await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("a rate of 0 sessions per second cannot be planned for"), "{ran:?}");
}

#[tokio::test]
async fn lint_tells_what_a_judge_of_the_example_lacks_in_the_settings() {
    let place = Place::empty();
    place.write("all.yaml", "samples: {rate: 100%}\n");
    let judged = repository("examples/judged.yaml");
    let lint = |settings: String| {
        let (place, judged) = (&place, &judged);
        async move { place.run(&format!("lint -f {} --settings {settings}", judged.display())).await }
    };
    let ran = lint("all.yaml".to_owned()).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "1 file: nothing to say\n"));
    // The settings of the examples record 1 %.
    let ran = lint(repository("examples/serin.yaml").display().to_string()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains("20% of the sessions are to be judged by answer_ok, and 1% are recorded"),
        "{ran:?}"
    );
    let text = std::fs::read_to_string(&judged).unwrap();
    place.write(
        "support-prompts-2.4.0.pack.json",
        &std::fs::read_to_string(repository("examples/support-prompts-2.4.0.pack.json")).unwrap(),
    );
    place.write(
        "elsewhere.yaml",
        &text.replace("model: gpt-5-mini", "provider: elsewhere\n            model: gpt-5-mini"),
    );
    let ran = place.run("lint -f elsewhere.yaml --settings all.yaml").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let told = "answer_ok is judged by the provider elsewhere, which is not in the settings";
    assert!(ran.out.contains(told), "{ran:?}");
}

#[tokio::test]
async fn lint_tells_which_tool_conversations_in_flight_would_lose() {
    let place = place_with_tools();
    let ran = place.run("lint -f 2.0.0.yaml --against 1.0.0.yaml").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("lint_removed_tool", ran.shown());
    let from_pack = place.run("lint -f 2.0.0.yaml --against support-1.0.0.pack.json").await;
    assert_eq!(from_pack.out, ran.out);
    let same = place.run("lint -f 1.0.0.yaml --against 1.0.0.yaml -o json").await;
    assert_eq!(same.json()["warnings"], 0);

    place.write("other.pack.json", &pack("1.0.0").replace("\"id\":\"support\"", "\"id\":\"sales\""));
    for (file, told) in [
        ("other.pack.json", "other.pack.json is a pack sales, the manifest is one of support"),
        ("nothing.json", "could not read nothing.json"),
    ] {
        let ran = place.run(&format!("lint -f 2.0.0.yaml --against {file}")).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains(told) && ran.err.contains("hint:"), "{ran:?}");
    }
    let ran = place.run("lint -f 2.0.0.yaml --against 1.0.0.yaml --against-server").await;
    assert_eq!(ran.code, 2);
}

#[tokio::test]
async fn a_removed_tool_is_told_by_the_server_and_at_apply() {
    let server = Server::start("http://127.0.0.1:1/v1").await;
    let place = place_with_tools().with_server(&server.control);
    let unknown = place.run("lint -f 1.0.0.yaml --against-server").await;
    assert_eq!((unknown.code, unknown.out.as_str()), (0, "1 file: nothing to say\n"), "{unknown:?}");
    assert_eq!(place.run("apply -f 1.0.0.yaml").await.code, 0);
    let ran = place.run("lint -f 2.0.0.yaml --against-server -o json").await;
    assert_eq!(ran.json()["problems"][0]["rule"], "removed-tool", "{ran:?}");
    let ran = place.run("apply -f 2.0.0.yaml").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("warning[removed-tool]: prompts.answer.tools: "), "{ran:?}");
    let ran = place.run("apply -f 2.0.0.yaml --restart -o json").await;
    let warnings = ran.json()["applied"]["warnings"].to_string();
    assert!(warnings.contains("prompt answer of 2.0.0 has no tool refund any more"), "{ran:?}");
}

async fn lint(rollout: &str) -> Ran {
    let place = Place::empty();
    let text = format!(
        "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata:\n  name: support\nspec:\n  version: \"2.0.0\"\n  rollout:\n{rollout}"
    );
    place.write("support.yaml", &text);
    place.run("lint -f support.yaml").await
}

/// Each trap that the manifest alone shows, with its name, its place and what would be better.
#[tokio::test]
async fn each_trap_is_shown_where_it_was_written() {
    let ran = lint(
        "    canaryWeight: 30%
    stepInterval: 30s
    segments:
      - {name: staff, weight: 0%, duration: 1h}
      - {name: all, weight: progressive}
",
    )
    .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("lint_traps_of_a_ramp", ran.shown());
    let ran = lint(
        "    canaryWeight: 30%
    schedule:
      - {window: \"02:00-03:00 Europe/Berlin\", canaryWeight: 30%}
    analysis:
      metrics:
        - {name: sentiment_avg, threshold: 0.1, comparison: \">=\", decision: point}
",
    )
    .await;
    insta::assert_snapshot!("lint_traps_of_a_schedule", ran.shown());
}

/// The files of `examples/patterns`, by name.
fn patterns() -> Vec<String> {
    let entries = std::fs::read_dir(repository("examples/patterns")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    names
}

#[tokio::test]
async fn every_pattern_of_the_examples_is_linted_clean_and_told_in_the_docs() {
    let docs = std::fs::read_to_string(repository("docs/rollouts.md")).unwrap();
    for name in patterns() {
        let file = repository(&format!("examples/patterns/{name}"));
        let ran = Place::empty().run(&format!("lint -f '{}' --sessions-per-second 10", file.display())).await;
        assert_eq!((ran.code, ran.out.as_str()), (0, "1 file: nothing to say\n"), "{name}");
        assert!(
            docs.contains(&format!("../examples/patterns/{name}")),
            "docs/rollouts.md does not name {name}"
        );
    }
}
