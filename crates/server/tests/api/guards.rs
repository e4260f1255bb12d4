//! Who may ask.

use crate::app::TestApp;

#[tokio::test]
async fn with_a_key_the_api_answers_only_to_it_and_notes_whose_it_is() {
    let app = TestApp::start_with(&[("SERIN_CONTROL_KEY", "a key of some length")]).await;
    insta::assert_snapshot!("no_key", app.get("/api/v1/packs").await.shown());
    assert_eq!(app.get("/api/v1/packs").await.headers["www-authenticate"], "Bearer");
    let with = |key: &'static str| {
        let app = &app;
        async move {
            app.send(app.server.control_addr(), "GET", "/api/v1/packs", &[("authorization", key)], "")
                .await
                .status
        }
    };
    assert_eq!(with("Bearer a key of some other length").await, 401);
    assert_eq!(with("Bearer a key of some length").await, 200);
    assert_eq!(app.get("/healthz").await.status, 200);
    assert_eq!(app.get("/metrics").await.status, 200, "on loopback the metrics need no key");

    let headers = [("authorization", "Bearer a key of some length"), ("x-serin-actor", "ana")];
    let manifest = "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {name: tiny}\nspec: {version: 1.0.0}";
    let applied = app.send(app.server.control_addr(), "PUT", "/api/v1/packs", &headers, manifest).await;
    assert_eq!(applied.status, 200, "{}", applied.text());
    let audit = app.send(app.server.control_addr(), "GET", "/api/v1/audit", &headers, "").await;
    assert_eq!(audit.json()["entries"][0]["actor"], "ana (key SERIN_CONTROL_KEY)");
}

#[tokio::test]
async fn a_page_of_another_host_cannot_reach_the_loopback_control_plane() {
    let app = TestApp::start().await;
    let to = app.server.control_addr();
    let rebound = app.send(to, "GET", "/api/v1/packs", &[("host", "evil.example")], "").await;
    insta::assert_snapshot!("other_host", rebound.shown());
    let page = app.send(to, "GET", "/api/v1/packs", &[("origin", "https://evil.example")], "").await;
    insta::assert_snapshot!("other_origin", page.shown());
}
