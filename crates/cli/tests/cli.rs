//! The program as people and pipelines call it: what it prints and how it exits.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use support::{Place, Ran, Server, eventually, repository};

/// A manifest that is right but for what a test puts into its rollout block.
fn manifest(rollout: &str) -> String {
    format!(
        "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata:\n  name: support\nspec:\n  version: \"2.0.0\"\n  rollout:\n{rollout}"
    )
}

async fn lint(text: &str) -> Ran {
    let place = Place::empty();
    place.write("support.yaml", text);
    place.run("lint -f support.yaml").await
}

#[tokio::test]
async fn help_tells_what_there_is() {
    let place = Place::empty();
    let help = place.run("--help").await;
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    insta::assert_snapshot!("help", help.out);
    let commands = help.out.lines().skip_while(|line| *line != "Commands:").skip(1);
    for command in
        commands.take_while(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next())
    {
        if command == "help" {
            continue;
        }
        let help = place.run(&format!("{command} --help")).await;
        assert_eq!(help.code, 0, "{help:?}");
    }
    insta::assert_snapshot!("help_of_apply", place.run("apply --help").await.out);
    insta::assert_snapshot!("help_of_status", place.run("status --help").await.out);
}

#[tokio::test]
async fn a_wrong_call_exits_with_2() {
    for line in [
        "",
        "no-such-command",
        "lint",
        "status",
        "pause support",
        "apply -f x --timeout 5",
        "status 'Not A Name'",
    ] {
        let ran = Place::empty().run(line).await;
        assert_eq!(ran.code, 2, "`serin {line}`: {ran:?}");
    }
}

#[tokio::test]
async fn lint_shows_every_mistake_with_its_place_and_what_would_be_right() {
    for (name, text) in [
        ("yaml", "kind: PromptPack\n  metadata: [\n".to_owned()),
        ("unknown_field", manifest("    canaryWieght: 10\n")),
        ("weight_140", manifest("    canaryWeight: 140\n")),
        ("interval_without_unit", manifest("    stepInterval: 5\n")),
        (
            "unknown_metric",
            manifest(
                "    analysis:\n      metrics:\n        - name: succes_rate\n          threshold: 90%\n          comparison: \">=\"\n",
            ),
        ),
        (
            "overlapping_windows",
            manifest(
                "    schedule:\n      - window: \"02:00-08:00 UTC\"\n        canaryWeight: 50%\n      - window: \"06:00-18:00 UTC\"\n        canaryWeight: 10%\n",
            ),
        ),
        ("several_at_once", manifest("    canaryWeight: 140\n    stepInterval: 5\n    colour: red\n")),
    ] {
        let ran = lint(&text).await;
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        insta::assert_snapshot!(format!("lint_{name}"), ran.shown());
    }
}

#[tokio::test]
async fn lint_shows_warnings_and_passes() {
    let ran = lint(&manifest("    canaryWeight: 40\n")).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("lint_warnings", ran.shown());
}

#[tokio::test]
async fn an_import_writes_a_pack_that_lint_accepts_and_names_what_was_lost() {
    let place = Place::empty();
    place.write(
        "greeting.j2",
        "Hello {{ name | default('you') }}.\n{% if vip %}Be quick.{% endif %} {{ user.city }}\n",
    );
    let ran = place.run("import greeting.j2").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("import_jinja", ran.shown());
    let linted = place.run("lint greeting-1.0.0.pack.json").await;
    assert_eq!(linted.code, 0, "{linted:?}");
    let rendered = place.run("render greeting-1.0.0.pack.json --var user_city=Bonn").await;
    assert_eq!(rendered.out.trim(), "Hello you.\nBe quick. Bonn", "{rendered:?}");
    let again = place.run("import greeting.j2").await;
    assert_eq!(again.code, 1, "nothing is overwritten: {again:?}");
    let strict = place.run("import greeting.j2 --strict --to other.pack.json").await;
    assert_eq!(strict.code, 1, "{strict:?}");
    assert_eq!(place.run("lint other.pack.json").await.code, 1, "nothing was written");
    place.write("empty.json", "{}");
    assert_eq!(place.run("import empty.json").await.code, 1);
}

#[tokio::test]
async fn lint_of_a_pack_tells_everything_at_once_with_its_line_and_column() {
    let place = Place::empty();
    let pack = r#"{
  "id": "support", "name": "Support", "version": "1.0.0",
	"template_engine": {"version": "v1", "syntax": "{{variable}}"},
  "prompts": {"p": {
    "id": "p", "name": "P", "version": "1.0.0", "system_template": "Hi {{nmae}}.",
    "variables": [{"name": "name", "type": "strng", "required": true}],
    "model_overrides": {"gpt-4.1": {"parameters": {"temperature": 9}}},
    "model_overrides": {"gpt-4.1": {"parameters": {"temperature": 7}}},
    "tools": ["find"]
  }}
}"#;
    place.write("bad.pack.json", pack);
    let ran = place.run("lint bad.pack.json").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    insta::assert_snapshot!("lint_pack", ran.shown());
    place.write("broken.pack.json", &pack.replace("],", "]"));
    let ran = place.run("lint broken.pack.json").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    insta::assert_snapshot!("lint_pack_broken", ran.shown());
}

#[tokio::test]
async fn a_mistake_in_the_pack_is_shown_in_the_pack_and_in_the_manifest() {
    let place = Place::empty();
    place.publishable("2.0.0");
    let pack = support::pack("2.0.0").replace("\"string\"", "\"strng\"");
    place.write("support-2.0.0.pack.json", &pack);
    let ran = place.run("lint -f 2.0.0.yaml -o json").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let problems = ran.json()["problems"].clone();
    let files: Vec<&str> =
        problems.as_array().unwrap().iter().filter_map(|problem| problem["file"].as_str()).collect();
    assert_eq!((files.first(), files.last()), (Some(&"support-2.0.0.pack.json"), Some(&"2.0.0.yaml")));
    place.write("2.0.0.yaml", &support::slow_manifest("2.0.0").replace("support-2.0.0.pack", "elsewhere"));
    insta::assert_snapshot!("lint_pack_missing", place.run("lint -f 2.0.0.yaml").await.shown());
}

#[tokio::test]
async fn lint_knows_the_providers_of_settings() {
    let place = Place::empty();
    let pack = r#"{"id": "p", "name": "P", "version": "1.0.0", "template_engine": {"version": "v1", "syntax": "{{variable}}"}, "metadata": {"provider": "cloude"}, "prompts": {"p": {"id": "p", "name": "P", "version": "1.0.0", "system_template": "Hello."}}}"#;
    place.write("p.pack.json", pack);
    place.write("p.yaml", "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {name: p}\nspec: {version: 1.0.0, source: {file: p.pack.json}}\n");
    place.write("serin.yaml", "providers: {claude: {baseUrl: 'https://a.example'}}\n");
    let ran = place.run("lint -f p.yaml").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = place.run("lint -f p.yaml --settings serin.yaml").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let told = format!("{ran:?}");
    assert!(told.contains("the pack goes to the provider cloude, which is not in the settings"), "{told}");
    assert!(told.contains("did you mean claude?"), "{told}");
}

#[tokio::test]
async fn every_example_passes_lint() {
    let place = Place::empty();
    let mut files = Vec::new();
    for folder in ["examples", "examples/demo", "examples/patterns"] {
        for entry in std::fs::read_dir(repository(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.contains("kind: PromptPack") || path.to_string_lossy().ends_with(".pack.json") {
                files.push(path);
            }
        }
    }
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let ran = place.run(&format!("lint -f '{}'", file.display())).await;
        assert_eq!(ran.code, 0, "{}: {ran:?}", file.display());
    }
}

#[tokio::test]
async fn init_lint_and_render_work_in_an_empty_folder() {
    let place = Place::empty();
    let ran =
        place.run("init --name greeter --prompt 'Greet {{customer}} in the name of {{company}}.'").await;
    insta::assert_snapshot!("init", ran.shown());
    let ran = place.run("lint -f greeter.yaml").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "1 file: nothing to say\n"));
    let ran = place.run("render greeter.yaml --var customer=Ada --var company=Acme").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "Greet Ada in the name of Acme.\n"));
    let ran =
        place.run("render greeter-1.0.0.pack.json/main --var customer={{company}} --var company=Acme").await;
    assert_eq!(ran.out, "Greet {{company}} in the name of Acme.\n", "values are data");
}

#[tokio::test]
async fn init_never_overwrites() {
    let place = Place::empty();
    place.write("greeter.yaml", "mine");
    let ran = place.run("init --name greeter --prompt hello").await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("greeter.yaml exists already; nothing was written"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(place.path("greeter.yaml")).unwrap(), "mine");
    assert!(!place.path("greeter-1.0.0.pack.json").exists());
}

#[tokio::test]
async fn render_names_what_is_missing() {
    let place = Place::empty();
    place.publishable("1.0.0");
    for (name, line) in [
        ("missing_variable", "render 1.0.0.yaml"),
        ("unknown_variable", "render 1.0.0.yaml --var company=Acme --var compnay=x"),
        ("unknown_prompt", "render support-1.0.0.pack.json/other"),
        ("no_such_file", "render ./other.pack.json/answer"),
    ] {
        let ran = place.run(line).await;
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{name}");
        insta::assert_snapshot!(format!("render_{name}"), ran.err);
    }
}

#[tokio::test]
async fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = Place::empty().run(&format!("completions {shell}")).await;
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("serin") && ran.out.contains("rollback"), "{shell}");
    }
}

#[tokio::test]
async fn the_description_of_the_api_is_printed_without_a_server() {
    let ran = Place::empty().run("openapi").await;
    let paths = ran.json()["paths"].clone();
    assert!(paths.get("/api/v1/packs").is_some() && paths.get("/v1/resolve").is_some(), "{paths:#}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_in_one_line_with_a_hint() {
    // Port 1 of this machine is nobody's.
    let place = Place::empty().with_server("http://127.0.0.1:1");
    for line in ["get packs", "status support", "oncall", "pause support --reason x"] {
        let ran = place.run(line).await;
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{line}");
        assert!(ran.err.starts_with("error: could not reach server http://127.0.0.1:1: "), "{ran:?}");
        assert!(ran.err.contains("hint: start one with `serin serve`"), "{ran:?}");
        assert_eq!(ran.err.lines().count(), 2, "{ran:?}");
    }
    place.publishable("1.0.0");
    assert_eq!(place.run("diff -f 1.0.0.yaml").await.code, 2, "any error of diff is above 1");
}

/// A server in front of a provider that nobody asks, with version 1.0.0 of `support` in service.
async fn with_stable() -> (Place, Server) {
    let server = Server::start("http://127.0.0.1:1/v1").await;
    let place = Place::empty().with_server(&server.control);
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        place.publishable(version);
    }
    let ran = place.run("apply -f 1.0.0.yaml --wait").await;
    assert_eq!(ran.code, 0, "the first version is stable at once: {ran:?}");
    (place, server)
}

/// FIELD bug 15: watching shows values, thresholds, sample sizes and reasons, not only ticks.
#[tokio::test]
async fn bug_15_status_and_its_watch_show_values_thresholds_sample_sizes_and_reasons() {
    let (place, server) = with_stable().await;
    assert_eq!(place.run("apply -f 2.0.0.yaml").await.code, 0);
    assert_eq!(place.run("pause support --reason 'let me look'").await.code, 0);
    // An error means that there is a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let events: Vec<serde_json::Value> = (0..60)
        .map(|n| serde_json::json!({"pack": "support", "session": format!("s-{n}"), "name": "response", "success": n % 4 != 0}))
        .collect();
    let client = reqwest::Client::new();
    for n in 0..60 {
        let visit = serde_json::json!({"pack": "support", "session": format!("s-{n}")});
        let answer = client.post(format!("{}/v1/resolve", server.data)).json(&visit).send().await;
        assert!(answer.expect("the server answers").status().is_success());
    }
    let report =
        client.post(format!("{}/v1/events", server.data)).json(&serde_json::json!({"events": events}));
    assert_eq!(report.send().await.expect("the server answers").status(), 202);

    let told = ["success_rate", ">= 90.0%", "of 30", "on hold: paused", "let me look", "DIFFERENCE"];
    let status = place.run("status support").await;
    for words in told {
        assert!(status.out.contains(words), "{words:?} is missing in\n{}", status.out);
    }
    let watched = place.run("status support --watch --timeout 1s").await;
    for words in ["success_rate", ">= 90.0%", "of 30 sessions", "paused"] {
        assert!(watched.out.contains(words), "{words:?} is missing in\n{}", watched.out);
    }
}

#[tokio::test]
async fn a_version_is_applied_shown_paused_and_rolled_back() {
    let (place, server) = with_stable().await;
    let does = async |line: &str, code: i32| {
        let ran = place.run(line).await;
        assert_eq!(ran.code, code, "`serin {line}`: {ran:?}");
        ran
    };
    let ran = does("apply -f 2.0.0.yaml --dry-run", 0).await;
    assert!(ran.out.starts_with("would be applied: support 2.0.0 is a canary at 10%"), "{ran:?}");
    does("diff -f 2.0.0.yaml", 1).await;
    does("apply -f 2.0.0.yaml --reason 'names the agent'", 0).await;
    does("diff -f 2.0.0.yaml", 0).await;
    let ran = does("apply -f 2.0.0.yaml", 0).await;
    assert!(ran.out.contains("is being rolled out already"), "{ran:?}");

    does("pause support --reason 'let me look'", 0).await;
    let ran = does("status support", 0).await;
    for words in [
        "1.0.0 → 2.0.0",
        "on hold: paused",
        "by tester): let me look",
        "cleared by serin resume",
        "success_rate",
        ">= 90",
    ] {
        assert!(ran.out.contains(words), "{words:?} is missing in\n{}", ran.out);
    }
    does("status support --wait", 11).await;
    does("apply -f 2.0.0.yaml --wait", 11).await;
    does("resume support --reason 'looks good'", 0).await;
    does("status support --wait --timeout 10ms", 12).await;
    let packs = does("get packs -o json", 0).await.json();
    assert_eq!(packs["packs"][0]["canary"], "2.0.0", "{packs}");

    does("rollback support --reason 'on second thought'", 0).await;
    does("status support --wait", 10).await;
    does("apply -f 2.0.0.yaml --wait", 10).await;
    let ran = does("rollback support --reason again", 1).await;
    assert!(ran.err.starts_with("error: "), "{ran:?}");
    let ran = does("history support", 0).await;
    assert!(ran.out.contains("RolledBack") && ran.out.contains("on second thought"), "{ran:?}");

    does("retry support --reason 'fixed elsewhere'", 0).await;
    does("promote support --full --reason 'sure now'", 0).await;
    does("status support --wait", 0).await;
    does("apply -f 2.0.0.yaml --wait", 0).await;
    let ran = does("get versions support", 0).await;
    assert!(ran.out.contains("draining"), "{ran:?}");

    let audit = does("audit --pack support -o json", 0).await.json();
    let reasons: Vec<&str> =
        audit["entries"].as_array().unwrap().iter().filter_map(|entry| entry["reason"].as_str()).collect();
    for reason in
        ["names the agent", "let me look", "looks good", "on second thought", "fixed elsewhere", "sure now"]
    {
        assert!(reasons.contains(&reason), "{reason:?} is missing in {reasons:?}");
    }
    let ran = does("audit verify", 0).await;
    assert!(ran.out.starts_with("the audit log is intact"), "{ran:?}");
    let ran = does("exposure support-r1", 0).await;
    assert!(ran.out.contains("met the canary in") && ran.out.contains("10%"), "{ran:?}");
    let ran = does("exposure support-r1 -o csv", 0).await;
    assert_eq!(ran.out, "session,key_hash,weight_percent,step,assigned_at,last_seen,requests\n");
    assert_eq!(does("exposure support-r1 -o json", 0).await.json()["sessions"], serde_json::json!([]));
    let ran = does("audit replay", 0).await;
    for words in ["support-r1", "support-r2", "the same to the last bit"] {
        assert!(ran.out.contains(words), "{words:?} is missing in\n{}", ran.out);
    }
    let repeated = does("audit replay support-r2 -o json", 0).await.json();
    assert_eq!(repeated["rollouts"][0]["differences"], serde_json::json!([]), "{repeated}");
    does("audit replay support-r9", 1).await;
    does("oncall", 0).await;
    let ran = does("explain support --session user-1", 0).await;
    assert!(ran.out.starts_with("session user-1 of support gets 2.0.0"), "{ran:?}");
    let ran = does("explain support --attribute tier=beta", 0).await;
    assert!(ran.out.starts_with("a new session of support gets 2.0.0"), "{ran:?}");
    assert!(does("explain support --response resp_1", 1).await.err.contains("nothing is known of response"));
    does("explain support --attribute beta", 2).await;
    does("explain support --session a --response b", 2).await;
    let ran = does("render support/answer --var company=Acme", 0).await;
    assert_eq!(ran.out, "You are version 2.0.0 of the agent of Acme.\n");
    assert_eq!(server.stop().await, 0, "an interrupt ends the server in order");
}

#[tokio::test]
async fn a_published_version_is_immutable_and_the_difference_is_shown() {
    let (place, _server) = with_stable().await;
    let other = support::pack("1.0.0").replace("the agent of", "the assistant of");
    place.write("support-1.0.0.pack.json", &other);
    let ran = place.run("apply -f 1.0.0.yaml").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    insta::assert_snapshot!("apply_other_content", ran.err);
    let ran = place.run("diff -f 1.0.0.yaml -o json").await;
    assert_eq!(
        (ran.code, &ran.json()["content"][0]["path"]),
        (1, &serde_json::json!("prompts.answer.system_template"))
    );
}

#[tokio::test]
async fn what_goes_wrong_on_the_server_is_said_with_a_hint() {
    let (place, _server) = with_stable().await;
    for (name, line) in [
        ("unknown_pack", "status suport"),
        ("nothing_to_pause", "pause support --reason x"),
        ("unknown_version", "render support/answer --pack-version 9.9.9"),
    ] {
        let ran = place.run(line).await;
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{line}");
        insta::assert_snapshot!(format!("server_{name}"), ran.err);
    }
}

#[tokio::test]
async fn apply_writes_a_test_report_for_pipelines() {
    let (place, _server) = with_stable().await;
    let waiting = place.command("apply -f 2.0.0.yaml --wait --output junit").output();
    let pausing = eventually("the rollout starts", async || {
        let ran = place.run("pause support --reason 'let me look'").await;
        (ran.code == 0).then_some(())
    });
    let (report, ()) = tokio::join!(waiting, pausing);
    let report = report.unwrap();
    assert_eq!(report.status.code(), Some(11));
    insta::assert_snapshot!("junit_on_hold", String::from_utf8(report.stdout).unwrap());
    place.run("rollback support --reason 'not this one'").await;
    let ran = place.run("apply -f 2.0.0.yaml --wait --output junit").await;
    assert_eq!(ran.code, 10);
    assert!(ran.out.contains("<failure message=\"rolled_back: not this one\"/>"), "{ran:?}");
}

#[tokio::test]
async fn settings_are_printed_with_their_origin_and_problems_are_told_at_once() {
    let place = Place::empty();
    let ran = place.run("serve --listen 127.0.0.1:4000 --print-settings").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("listen: 127.0.0.1:4000  # --listen"), "{ran:?}");
    let ran = place.run("serve --listen nowhere --provider ftp://x").await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("--listen") && ran.err.contains("--provider"), "{ran:?}");
}
