//! `serin simulate` as people call it: without a server, with a fixed seed.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::process::Stdio;

use support::{DEADLINE, Place, Ran, repository};
use tokio::io::{AsyncReadExt, BufReader};

async fn simulate(flags: &str) -> Ran {
    let manifest = repository("examples/support-prompts.yaml");
    Place::empty().run(&format!("simulate -f '{}' {flags}", manifest.display())).await
}

#[tokio::test]
async fn a_harmful_version_is_caught_and_the_table_says_how_fast() {
    let ran = simulate("--scenario regression --runs 50 --seed 7").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("simulate_regression", ran.out);
}

#[tokio::test]
async fn rollouts_that_do_not_end_say_what_holds_them() {
    let scenario = repository("examples/scenarios/lost-sessions.yaml");
    let ran = simulate(&format!("--scenario '{}' --runs 10", scenario.display())).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("simulate_lost_sessions", ran.out);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_answer_as_data() {
    let flags = "--scenario healthy --runs 8 --sessions-per-second 2 -o json";
    let (first, again) = (simulate(flags).await, simulate(flags).await);
    assert_eq!(first.out, again.out);
    let json = first.json();
    for (field, expected) in [
        ("pack", serde_json::json!("support-prompts")),
        ("scenario", serde_json::json!("healthy")),
        ("runs", serde_json::json!(8)),
        ("seed", serde_json::json!(1)),
        ("sessions_per_second", serde_json::json!(2.0)),
        ("bad_promoted", serde_json::json!(0)),
    ] {
        assert_eq!(json[field], expected, "{field}");
    }
    assert_eq!(json["completed"]["count"], 8, "{json:#}");
    let yaml = simulate("--scenario healthy --runs 4 --sessions-per-second 2 -o yaml").await;
    assert!(yaml.code == 0 && yaml.out.contains("rolled_back:"), "{yaml:?}");
}

#[tokio::test]
async fn a_scenario_that_is_not_there_is_told_with_the_one_that_was_meant() {
    for (name, scenario) in
        [("misspelt", "regresion"), ("unknown", "mars"), ("no_such_file", "./nowhere/x.yaml")]
    {
        let ran = simulate(&format!("--scenario {scenario}")).await;
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
        insta::assert_snapshot!(format!("simulate_{name}"), ran.err);
    }
}

#[tokio::test]
async fn a_scenario_file_with_a_mistake_is_told_with_its_place() {
    let place = Place::empty();
    let manifest = repository("examples/support-prompts.yaml");
    place.write("hot.yaml", "{name: hot, harmful: true, stable: {success_rate: 94}}");
    let ran = place.run(&format!("simulate -f '{}' --scenario hot.yaml", manifest.display())).await;
    assert_eq!(ran.code, 1);
    assert_eq!(ran.err, "error: hot.yaml: scenario hot: stable.success_rate cannot be 94\n");
}

#[tokio::test]
async fn what_cannot_be_simulated_is_refused_before_anything_starts() {
    for flags in [
        "--scenario healthy --runs 0",
        "--scenario healthy --runs many",
        "--runs 10",
        "--scenario healthy --seed -1",
    ] {
        assert_eq!(simulate(flags).await.code, 2, "{flags}");
    }
    assert_eq!(simulate("--scenario healthy --sessions-per-second 0").await.code, 1);
    let place = Place::empty();
    place.write(
        "at-once.yaml",
        "{apiVersion: omnia.altairalabs.ai/v1alpha1, kind: PromptPack, metadata: {name: support}, \
         spec: {version: 2.0.0, rollout: {strategy: immediate}}}",
    );
    let ran = place.run("simulate -f at-once.yaml --scenario healthy").await;
    assert!(ran.code == 1 && ran.err.contains("`strategy: immediate`"), "{ran:?}");
}

#[tokio::test]
async fn the_help_lists_the_built_in_scenarios() {
    let help = Place::empty().run("simulate --help").await.out;
    for name in ["healthy", "regression", "subtle", "late-harm", "outage"] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))),
            "{name}:\n{help}"
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_interrupt_ends_it_with_what_is_known_by_then() {
    let manifest = repository("examples/support-prompts.yaml");
    let line = format!("simulate -f '{}' --scenario regression --runs 1000000 -o json", manifest.display());
    let mut child = Place::empty()
        .command(&line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let mut told = BufReader::new(child.stderr.take().expect("standard error is piped"));
    let ended = async {
        // The first line of progress tells that rollouts have ended.
        let mut first = [0_u8; 1];
        told.read_exact(&mut first).await.expect("progress is told");
        let pid = child.id().expect("it is running").to_string();
        let killed = tokio::process::Command::new("kill").args(["-INT", &pid]).status().await;
        assert!(killed.is_ok_and(|status| status.success()));
        let mut rest = String::new();
        told.read_to_string(&mut rest).await.expect("text");
        let output = child.wait_with_output().await.expect("it ends");
        (rest, output)
    };
    let (told, output) =
        tokio::time::timeout(DEADLINE, ended).await.expect("it ends soon after the interrupt");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("error: interrupted after "), "{told}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert!(json["runs"].as_u64().is_some_and(|runs| (1..1_000_000).contains(&runs)), "{json}");
    assert_eq!(json["rolled_back"]["share"], 1.0);
}
