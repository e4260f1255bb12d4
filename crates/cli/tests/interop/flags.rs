//! OpenFeature: the SDKs and OFREP providers of PyPI and npm evaluate a pack as a flag.

use serde_json::{Value, json};

use super::driver::Driver;
use crate::support::{Place, Server};

/// A server with 1.0.0 stable and 2.0.0 on its way; flags need no provider behind it.
async fn with_canary() -> (Server, Place) {
    let server = Server::start("http://127.0.0.1:9/v1").await;
    let place = Place::empty().with_server(&server.control);
    for version in ["1.0.0", "2.0.0"] {
        place.publishable(version);
        let applied = place.run(&format!("apply -f {version}.yaml")).await;
        assert_eq!(applied.code, 0, "{applied:?}");
    }
    (server, place)
}

async fn version_of(server: &Server, session: &str) -> String {
    let client = reqwest::Client::new();
    let asked = client.post(format!("{}/v1/resolve", server.data));
    let told = asked.json(&json!({"pack": "support", "session": session})).send().await;
    let told: Value = told.expect("the server answers").json().await.expect("in JSON");
    told["version"].as_str().expect("with a version").to_owned()
}

fn server_ask(key: &str, session: Option<&str>) -> Value {
    json!({"do": "server", "key": key, "session": session})
}

#[tokio::test]
async fn server_sdks_get_the_version_that_resolving_gives() {
    super::tls();
    let (server, _place) = with_canary().await;
    for script in ["python/flags.py", "node/flags.mjs"] {
        let mut driver = Driver::start(script, &[&server.data]);
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..60 {
            let session = format!("{script}-{n}");
            let told = driver.ask(server_ask("support.answer", Some(&session))).await;
            assert_eq!((&told["error"], &told["reason"]), (&Value::Null, &json!("SPLIT")), "{told}");
            assert_eq!(told["variant"], json!(version_of(&server, &session).await), "{told}");
            assert_eq!(
                (&told["value"]["version"], &told["value"]["prompt"]),
                (&told["variant"], &json!("answer"))
            );
            assert_eq!(told["metadata"]["rollout"], "support-r1", "{told}");
            seen.insert(told["variant"].to_string());
        }
        assert_eq!(seen.len(), 2, "{script}: at 10 % both versions are among 60 sessions: {seen:?}");
        for (ask, code) in [
            (server_ask("suport", Some("s")), "FLAG_NOT_FOUND"),
            (server_ask("support.nothing", Some("s")), "FLAG_NOT_FOUND"),
            (server_ask("support", None), "TARGETING_KEY_MISSING"),
            (
                json!({"do": "server", "key": "support.answer", "session": "s", "attributes": {"variables": 1}}),
                "INVALID_CONTEXT",
            ),
        ] {
            let told = driver.ask(ask).await;
            assert_eq!((&told["error"], &told["value"]), (&json!(code), &json!({})), "{script}: {told}");
            assert!(told["message"].as_str().is_some_and(|text| !text.is_empty()), "{script}: {told}");
        }
    }
}

#[tokio::test]
async fn a_page_has_all_flags_and_learns_of_a_change_by_itself() {
    super::tls();
    let (server, place) = with_canary().await;
    let mut driver = Driver::start("node/flags.mjs", &[&server.data]);
    let mut canary = None;
    for session in (0..300).map(|n| format!("page-{n}")) {
        if version_of(&server, &session).await == "2.0.0" {
            canary = Some(session);
            break;
        }
    }
    let canary = canary.expect("at 10 % a canary is among 300 sessions");
    let told = driver.ask(json!({"do": "web", "key": "support", "session": canary})).await;
    assert_eq!(
        (&told["variant"], &told["reason"], &told["error"]),
        (&json!("2.0.0"), &json!("SPLIT"), &Value::Null)
    );

    // A higher weight is told as well, but changes nothing for this session: 304.
    // The end of Observing is none: the weight stays at 10 %.
    for _ in 0..2 {
        let promoted = place.run("promote support --reason 'next step'").await;
        assert_eq!(promoted.code, 0, "{promoted:?}");
    }
    crate::support::eventually("the page asks again after the promotion", async || {
        let fetches = driver.ask(json!({"do": "fetches"})).await["fetches"].clone();
        (fetches == json!([200, 304])).then_some(())
    })
    .await;

    let rolled_back = place.run("rollback support --reason 'enough'").await;
    assert_eq!(rolled_back.code, 0, "{rolled_back:?}");
    let told = driver.ask(json!({"do": "change", "key": "support"})).await;
    assert_eq!(told["variant"], "1.0.0", "{told}");
    assert_eq!(told["changed"], json!(["support", "support.answer"]), "{told}");
    assert_eq!(driver.ask(json!({"do": "fetches"})).await["fetches"], json!([200, 304, 200]));
}
