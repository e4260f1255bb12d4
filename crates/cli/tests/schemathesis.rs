//! schemathesis asks the running program for everything that its own description allows, and for what it does not.
//!
//! Whatever it sends, no answer is a server error, and each is one that the description names: status, media type, headers
//! and shape. `scripts/setup.sh test` installs it.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::time::Duration;

use serin_provider::Provider;
use support::{Place, Server, provider, repository};
use tokio::process::Command;

const PROGRAM: &str = "target/venv-schema/bin/schemathesis";
/// What is held against the description.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method";
/// Requests to one operation that are made up at random, besides those at the edges of what is allowed.
const RANDOM: &str = "12";
/// One thread: with two, CPython 3.11 now and then fails to parse what hypothesis looks at, its own code.
const WORKERS: &str = "1";
/// Answers that never end; `tests/api/ofrep.rs` and `tests/api/matrix.rs` ask for them.
const STREAMS: &str = "^(/api/v1/stream|/ofrep/v1/events)$";
/// How long one run may take.
const WITHIN: Duration = Duration::from_secs(150);

async fn run(place: &Place, control: &str, base: &str, paths: &str) {
    let program = repository(PROGRAM);
    assert!(program.exists(), "{PROGRAM} is not there: run `make test`, which installs it");
    let mut command = Command::new(program);
    command
        .args(["run", &format!("{control}/api/openapi.json"), "--url", base])
        .args(["--include-path-regex", paths, "--exclude-path-regex", STREAMS])
        .args(["--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", RANDOM])
        .args(["--seed", "1", "--no-shrink", "--request-timeout", "20", "--workers", WORKERS])
        .args(["--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure"])
        .current_dir(place.path(""))
        .env_clear()
        .env("NO_COLOR", "1")
        .env("NO_PROXY", "127.0.0.1")
        .env("HOME", place.path(""))
        .env("PYTHONPATH", repository("crates/cli/tests/schema"))
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .kill_on_drop(true);
    let output = tokio::time::timeout(WITHIN, command.output()).await.expect("it ends in time");
    let output = output.expect("schemathesis can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
}

/// A server with two versions of a pack, the second one a canary, that asks for no key.
async fn world() -> (Place, Server, Provider) {
    let provider = provider("{}").await;
    let server = Server::start(&format!("http://{}/v1", provider.addr())).await;
    let place = Place::empty().with_server(&server.control);
    for version in ["1.0.0", "2.0.0"] {
        place.publishable(version);
        let ran = place.run(&format!("apply -f {version}.yaml")).await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    (place, server, provider)
}

#[tokio::test]
async fn the_control_plane_answers_only_what_it_describes() {
    let (place, server, _provider) = world().await;
    run(&place, &server.control, &server.control, "^/(api/|link/|healthz|readyz|metrics)").await;
}

#[tokio::test]
async fn the_data_plane_answers_only_what_it_describes() {
    let (place, server, _provider) = world().await;
    run(&place, &server.control, &server.data, "^/(v1|ofrep|otlp)/").await;
}
