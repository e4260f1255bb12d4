//! Starting, stopping and starting again.

use std::net::TcpListener;

use serde_json::json;
use serin_server::api::types::{ResolveReason, ResolveResponse, RolloutView};
use serin_server::server::Server;

use crate::app::{TestApp, overrides, settings};

fn told(app: &TestApp, error: &impl std::fmt::Display) -> String {
    error.to_string().replace(&app.data_dir().display().to_string(), "DATA")
}

#[tokio::test]
async fn a_restart_keeps_pins_and_state() {
    let app = TestApp::start().await.with_canary().await;
    app.order("promote", r#"{"reason": "go on"}"#).await;
    let ask = |n: u32| json!({"pack": "support-prompts", "session": format!("session-{n}")});
    let mut before = Vec::new();
    for n in 0..40 {
        before.push(app.data("/v1/resolve", &ask(n)).await.read::<ResolveResponse>().version);
    }
    let rollout: RolloutView = app.get("/api/v1/packs/support-prompts/rollout").await.read();
    let app = app.restart().await;
    for (n, version) in (0..).zip(before) {
        let resolved: ResolveResponse = app.data("/v1/resolve", &ask(n)).await.read();
        assert_eq!((resolved.version, resolved.reason), (version, ResolveReason::Pinned));
    }
    let after: RolloutView = app.get("/api/v1/packs/support-prompts/rollout").await.read();
    assert_eq!((after.id, after.revision, after.weight), (rollout.id, rollout.revision, rollout.weight));
    assert_eq!(after.progress.map(|p| p.step), rollout.progress.map(|p| p.step));
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let app = TestApp::start().await;
    let refused = app.second().await.unwrap_err();
    insta::assert_snapshot!(told(&app, &refused), @"
    the data directory DATA is in use by another process
    hint: stop it, or name another directory with `--data-dir`
    ");
    assert_eq!(app.get("/readyz").await.status, 200, "the first one is not disturbed");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_the_flag_that_changes_it() {
    let app = TestApp::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let other = app.dir.path().join("other");
    let variables = [("SERIN_CONTROL_LISTEN".to_owned(), address.to_string())];
    let settings = settings(&other, app.provider.addr(), &variables);
    let refused = Server::start(&settings, overrides(&app.clock)).await.unwrap_err();
    let told = refused.to_string().replace(&address.to_string(), "ADDRESS");
    insta::assert_snapshot!(told, @"
    could not listen on ADDRESS for the control plane: Address already in use (os error 98)
    hint: another process may listen there; choose another address with `--control-listen`
    ");
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_is_told() {
    let app = TestApp::start().await;
    let file = app.dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let settings = settings(&file, app.provider.addr(), &[]);
    let refused = Server::start(&settings, overrides(&app.clock)).await.unwrap_err();
    insta::assert_snapshot!(refused.to_string().replace(&file.display().to_string(), "FILE"), @"
    could not use the data directory FILE: File exists (os error 17)
    hint: name a directory that this user may write to with `--data-dir`
    ");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told() {
    let app = TestApp::start().await;
    let other = app.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(
        other.join("serin.db"),
        "this is no database, it is a letter to whoever finds it".repeat(40),
    )
    .unwrap();
    let settings = settings(&other, app.provider.addr(), &[]);
    let refused = Server::start(&settings, overrides(&app.clock)).await.unwrap_err();
    insta::assert_snapshot!(refused.to_string().replace(&other.display().to_string(), "OTHER"), @"
    OTHER/serin.db is no database, or a damaged one
    hint: restore it from a backup, or move it away to begin with an empty one
    ");
}
