//! Rules of the policy, from the settings file to the command line: lint before the merge, apply after it.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use support::{Place, Server, repository};

/// A manifest of a version that starts at a weight; it has no gate.
fn manifest(version: &str, percent: u8) -> String {
    format!(
        "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata:\n  name: support-mail\nspec:\n  \
         version: {version}\n  rollout:\n    canaryWeight: {percent}%\n"
    )
}

const RULE: &str = "policy:\n  - {name: careful-start, maxFirstWeight: 5%}\n";

#[tokio::test]
async fn lint_tells_each_rule_that_is_not_kept_at_its_line() {
    let place = Place::empty();
    place.write("support.yaml", &manifest("2.0.0", 30));
    let settings = repository("examples/policy.yaml");
    let ran = place.run(&format!("lint -f support.yaml --settings {}", settings.display())).await;
    insta::assert_snapshot!("lint", ran.shown());
    let kept = repository("examples/support-prompts.yaml");
    let ran = place.run(&format!("lint -f {} --settings {}", kept.display(), settings.display())).await;
    assert_eq!(ran.code, 0, "{}", ran.shown());

    place.write("broken.yaml", "policy:\n  - {name: careful-start, maxFirstWeigth: 5%}\n");
    let ran = place.run("lint -f support.yaml --settings broken.yaml").await;
    assert_eq!(ran.code, 1, "{}", ran.shown());
    assert!(
        ran.err.contains("line 2, column 27") && ran.err.contains("did you mean `maxFirstWeight`?"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn apply_is_refused_by_the_name_of_the_rule_until_somebody_sets_it_aside() {
    let place = Place::empty();
    place.write("serin.yaml", RULE);
    let settings = place.path("serin.yaml");
    let server =
        Server::start_with("http://127.0.0.1:9/v1", &["--settings", settings.to_str().unwrap()]).await;
    let place = place.with_server(&server.control);
    place.write("one.yaml", &manifest("1.0.0", 5));
    place.write("two.yaml", &manifest("2.0.0", 30));
    assert_eq!(place.run("apply -f one.yaml").await.code, 0);

    insta::assert_snapshot!("apply", place.run("apply -f two.yaml").await.shown());
    let lint = place.run("lint -f two.yaml --against-server").await;
    assert!(lint.code == 1 && lint.out.contains("error[careful-start]"), "{}", lint.shown());
    let diff = place.run("diff -f two.yaml").await;
    assert!(diff.code == 1 && diff.out.contains("error[careful-start]"), "{}", diff.shown());

    let applied = place.run("apply -f two.yaml --override-policy 'agreed with ana'").await;
    assert_eq!(applied.code, 0, "{}", applied.shown());
    let status = place.run("status support-mail").await;
    assert!(
        status.out.contains("policy overridden: careful-start") && status.out.contains("agreed with ana"),
        "{}",
        status.out
    );
    let audit = place.run("audit --pack support-mail").await;
    assert!(audit.out.contains("policy overridden"), "{}", audit.out);
    assert_eq!(place.run("rollback support-mail --reason no").await.code, 0);
    server.stop().await;
}

#[tokio::test]
async fn lint_warns_of_a_freeze_that_never_ends_and_apply_is_refused_with_what_is_wrong_with_it() {
    let place = Place::empty();
    place.write("serin.yaml", "policy:\n  - {name: quiet, freeze: ['08:00-20:00 UTC', '20:00-08:00 UTC']}\n");
    let settings = place.path("serin.yaml");
    let server =
        Server::start_with("http://127.0.0.1:9/v1", &["--settings", settings.to_str().unwrap()]).await;
    let place = place.with_server(&server.control);
    place.write("one.yaml", &manifest("1.0.0", 5));
    place.write("two.yaml", &manifest("2.0.0", 5));
    for line in ["lint -f one.yaml --settings serin.yaml", "lint -f one.yaml --against-server"] {
        let lint = place.run(line).await;
        assert!(
            lint.code == 0 && lint.out.contains("warning[endless-freeze]: spec.rollout: the freeze of quiet"),
            "{}",
            lint.shown()
        );
    }
    // The first version is stable at once: it starts no rollout.
    assert_eq!(place.run("apply -f one.yaml").await.code, 0);
    let refused = place.run("apply -f two.yaml").await;
    assert_ne!(refused.code, 0);
    let told = refused.shown();
    assert!(
        told.contains("the rule quiet freezes ") && told.contains("; no end of it is in sight"),
        "{told}"
    );
    assert!(told.contains("the rule has to leave some time open"), "{told}");
    server.stop().await;
}
