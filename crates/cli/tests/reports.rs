//! What a pipeline reads: the proof before a merge, the reports of a rollout, and their exit codes.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::process::Stdio;

use serde_json::Value;
use support::{Place, Server, eventually, repository};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Each test of a JUnit report with how it ended, read by junitparser; the report has the published shape.
async fn tests_of(report: &str) -> Value {
    let python = repository("target/venv-receivers/bin/python");
    assert!(python.exists(), "{} is not there: run `make test`, which installs it", python.display());
    let mut judge = Command::new(python)
        .arg(repository("crates/cli/tests/receivers/junit.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the judge can be started");
    let mut input = judge.stdin.take().expect("standard input is piped");
    input.write_all(report.as_bytes()).await.unwrap();
    drop(input);
    let judged = judge.wait_with_output().await.unwrap();
    assert!(judged.status.success(), "{}\n{report}", String::from_utf8_lossy(&judged.stderr));
    serde_json::from_slice(&judged.stdout).unwrap()
}

const GATES: &str = "    analysis:
      metrics:
        - {name: success_rate, threshold: 90%, comparison: \">=\"}
        - {name: latency_p99, threshold: 3000ms, comparison: \"<=\"}
";

/// A place with a manifest without prompts of its own, whose rollout block is this.
fn with_rollout(rollout: &str) -> Place {
    let place = Place::empty();
    let text = format!(
        "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata:\n  name: support\nspec:\n  version: \"2.0.0\"\n  rollout:\n{rollout}"
    );
    place.write("support.yaml", &text);
    place
}

#[tokio::test]
async fn check_proves_a_manifest_in_every_form() {
    let place = with_rollout(GATES);
    let call = "check -f support.yaml --sessions-per-second 5 --runs 20";
    let ran = place.run(call).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("check_text", ran.out);
    let reports = "--report junit=a.xml --report json=a.json --report markdown=a.md";
    let ran = place.run(&format!("{call} {reports} -o markdown")).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("check_markdown", ran.out);
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(read("a.md").trim_end(), ran.out.trim_end());
    let json: Value = serde_json::from_str(&read("a.json")).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["simulations"][0]["scenario"], "healthy");
    assert_eq!(json["forecast"]["steps"].as_array().map(Vec::len), Some(9));
    let tests = tests_of(&read("a.xml")).await;
    assert_eq!(
        tests,
        serde_json::json!({
            "lint: the manifest and its pack": "passed",
            "plan: the rollout": "passed",
            "simulate: healthy at 5 sessions/s": "passed",
            "simulate: regression at 5 sessions/s": "passed",
        })
    );
}

#[tokio::test]
async fn check_fails_for_each_part_that_does_not_hold() {
    // An error: the parts after it are skipped, and say so.
    let place = with_rollout("    canaryWeight: 140\n");
    let ran = place.run("check -f support.yaml -o junit").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let tests = tests_of(&ran.out).await;
    assert_eq!(tests["lint: the manifest and its pack"], "failure");
    assert_eq!((&tests["plan"], &tests["simulate"]), (&"skipped".into(), &"skipped".into()));
    let ran = place.run("check -f support.yaml").await;
    assert!(
        ran.out.contains("weight 140 % is outside") && ran.out.contains("1 of 1 parts failed"),
        "{ran:?}"
    );

    // A gate that blames healthy versions, and no gate that sees the harm.
    let blames = with_rollout(
        "    analysis:\n      metrics:\n        - {name: success_rate, threshold: 99.9%, comparison: \">=\"}\n",
    );
    let ran = blames
        .run("check -f support.yaml --sessions-per-second 5 --runs 20 --scenario healthy -o json")
        .await;
    assert_eq!((ran.code, &ran.json()["parts"][2]["verdict"]), (1, &"failed".into()), "{ran:?}");
    let blind = with_rollout(
        "    analysis:\n      onDegraded: notify\n      metrics:\n        - {name: success_rate, threshold: 50%, comparison: \">=\"}\n",
    );
    let ran = blind
        .run("check -f support.yaml --sessions-per-second 5 --runs 20 --scenario regression -o json")
        .await;
    assert_eq!((ran.code, &ran.json()["parts"][2]["verdict"]), (1, &"failed".into()), "{ran:?}");
    let call =
        "check -f support.yaml --sessions-per-second 5 --runs 20 --scenario regression --least-caught 0";
    assert_eq!(blind.run(call).await.code, 0);

    // Warnings fail only when asked to.
    let warned = with_rollout(&format!("    canaryWeight: 30\n{GATES}"));
    assert_eq!(warned.run("check -f support.yaml --runs 0").await.code, 0);
    assert_eq!(warned.run("check -f support.yaml --runs 0 --deny-warnings").await.code, 1);
}

#[tokio::test]
async fn check_says_what_it_was_called_wrongly_with() {
    let place = with_rollout(GATES);
    place.write("empty.yaml", "\n");
    let ran = place.run("check -f empty.yaml").await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("the file is empty") && ran.out.contains("`serin init` writes"), "{ran:?}");
    for (call, code, told) in [
        ("check", 2, "--file"),
        ("check -f support.yaml --least-caught lots", 2, "is no share such as 80%"),
        ("check -f support.yaml --from tomorrow", 2, "is no time such as 2026-12-01T22:00Z"),
        ("check -f support.yaml --report xml=a", 2, "is no report such as junit=report.xml"),
        (
            "check -f support.yaml --report junit=no/such/folder.xml",
            1,
            "could not write the report no/such/folder.xml",
        ),
        ("check -f support.yaml --scenario regresion", 1, "did you mean regression?"),
        ("check -f nothing.yaml", 1, "could not read nothing.yaml"),
        ("check -f .", 1, "hint: name a manifest in this folder"),
        ("check -f support.yaml --against-server --server http://127.0.0.1:1", 1, "could not reach server"),
    ] {
        let ran = place.run(call).await;
        assert_eq!(ran.code, code, "{call}: {ran:?}");
        assert!(ran.err.contains(told), "{call}: {ran:?}");
    }
}

#[tokio::test]
async fn an_immediate_rollout_has_nothing_to_simulate() {
    let place = with_rollout("    strategy: immediate\n");
    let ran = place.run("check -f support.yaml").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("there is nothing to simulate"), "{ran:?}");
}

/// A server in front of a provider that nobody asks, with version 1.0.0 of `support` in service.
async fn with_stable() -> (Place, Server) {
    let server = Server::start("http://127.0.0.1:1/v1").await;
    let place = Place::empty().with_server(&server.control);
    for version in ["1.0.0", "2.0.0"] {
        place.publishable(version);
    }
    assert_eq!(place.run("apply -f 1.0.0.yaml --wait --report json=first.json").await.code, 0);
    (place, server)
}

#[tokio::test]
async fn apply_writes_its_reports_beside_plain_lines_of_progress() {
    let (place, _server) = with_stable().await;
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    let json = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap();
    assert_eq!(
        (&json("first.json")["outcome"], &json("first.json")["exit_code"]),
        (&"completed".into(), &0.into())
    );

    // Nothing ends in time.
    let reports = "--report junit=a.xml --report json=a.json --report markdown=a.md";
    let ran = place.run(&format!("apply -f 2.0.0.yaml --wait --timeout 10ms {reports}")).await;
    assert!(matches!(ran.code, 11 | 12), "{ran:?}");
    assert_eq!(json("a.json")["exit_code"], ran.code);
    let line = ran.out.lines().find(|line| line.starts_with("2.0.0 Observing  step 1/"));
    assert!(line.is_some() && !ran.out.contains('\u{1b}'), "plain lines in a log: {ran:?}");
    let tests = tests_of(&read("a.xml")).await;
    assert_eq!(
        (&tests["support 2.0.0"], &tests["success_rate >= 90.0%"]),
        (&"failure".into(), &"skipped".into())
    );
    assert!(read("a.md").contains("| success_rate | >= 90.0% |"), "{}", read("a.md"));

    // It is rolled back while a pipeline waits.
    let waiting = place.command(&format!("apply -f 2.0.0.yaml --wait {reports}")).output();
    let rolling_back = eventually("the rollout is there", async || {
        let ran = place.run("rollback support --reason 'wrong <tone> & \"style\"'").await;
        (ran.code == 0).then_some(())
    });
    let (waited, ()) = tokio::join!(waiting, rolling_back);
    assert_eq!(waited.unwrap().status.code(), Some(10));
    assert_eq!(
        (&json("a.json")["outcome"], &json("a.json")["exit_code"]),
        (&"rolled_back".into(), &10.into())
    );
    assert!(
        read("a.xml").contains("rolled_back: wrong &lt;tone&gt; &amp; &quot;style&quot;"),
        "{}",
        read("a.xml")
    );
    assert_eq!(tests_of(&read("a.xml")).await["support 2.0.0"], "failure");
}

#[tokio::test]
async fn an_error_of_apply_stands_in_its_reports() {
    let (place, _server) = with_stable().await;
    place.write(
        "support-1.0.0.pack.json",
        &support::pack("1.0.0").replace("the agent of", "the assistant of"),
    );
    let ran = place.run("apply -f 1.0.0.yaml --wait --report junit=a.xml --report json=a.json").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(tests_of(&read("a.xml")).await["support 1.0.0"], "failure");
    let json: Value = serde_json::from_str(&read("a.json")).unwrap();
    assert_eq!((&json["outcome"], &json["exit_code"]), (&"failed".into(), &1.into()));
    for (call, code) in [
        ("apply -f 2.0.0.yaml --wait --report junit=no/such/folder.xml", 1),
        ("apply -f 2.0.0.yaml --report junit=a.xml", 2),
    ] {
        assert_eq!(place.run(call).await.code, code, "{call}");
    }
    let packs = place.run("get packs -o json").await.json();
    assert_eq!(packs["packs"][0]["canary"], Value::Null, "nothing was applied without its report: {packs}");
}

/// What on-call reads at 2 AM: what is in canary, what holds it, who can help, what to run.
#[tokio::test]
async fn oncall_shows_what_is_in_canary_and_what_ended() {
    let (place, server) = with_stable().await;
    let shown = async || {
        let ran = place.run("oncall").await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        let mut text = ran.out.replace(&server.control, "http://SERVER");
        // The test takes seconds, however fast the machine is.
        for seconds in 1..=30 {
            text = text.replace(&format!(" {seconds}s ago"), " just now");
        }
        text
    };
    assert_eq!(shown().await, "in canary now\n  nothing\n\nended within 24 hours\n  nothing\n");
    place.write(
        "2.0.0.yaml",
        &support::slow_manifest("2.0.0").replace(
            "  name: support\n",
            "  name: support\n  owner: support-team\n  escalation: \"#support\"\n",
        ),
    );
    assert_eq!(place.run("apply -f 2.0.0.yaml --reason 'names the agent'").await.code, 0);
    assert_eq!(place.run("pause support --reason 'let me look'").await.code, 0);
    insta::assert_snapshot!("oncall", shown().await);
    assert_eq!(place.run("rollback support --reason 'wrong tone'").await.code, 0);
    let ended = shown().await;
    assert!(ended.starts_with("in canary now\n  nothing\n") && ended.contains("wrong tone"), "{ended}");
}

/// A person's rollback that the stored log gives to the rollout itself: no check leads to it.
#[tokio::test]
async fn a_record_that_was_tampered_with_fails_the_replay() {
    let (place, server) = with_stable().await;
    assert_eq!(place.run("apply -f 2.0.0.yaml").await.code, 0);
    assert_eq!(place.run("rollback support --reason 'wrong tone'").await.code, 0);
    assert_eq!(place.run("audit replay support-r1").await.code, 0);
    let change = "UPDATE audit SET actor = 'serin' WHERE rollout = 'support-r1' AND actor = 'tester' AND reason = 'wrong tone'";
    let script = format!(
        "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1], timeout=10) as db: print(db.execute({change:?}).rowcount)"
    );
    let changed = Command::new("python3")
        .args(["-c", &script])
        .arg(server.data_dir().join("serin.db"))
        .output()
        .await
        .expect("python3 is installed: `make test` needs it");
    assert_eq!(String::from_utf8_lossy(&changed.stdout), "1\n", "{changed:?}");
    let ran = place.run("audit replay support-r1").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.out.contains("1 difference") && ran.out.contains("in a row lead to that"),
        "what differs is told: {ran:?}"
    );
    let ran = place.run("audit replay support-r1 -o json").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(place.run("audit verify").await.code, 1, "the chain is broken as well");
}
