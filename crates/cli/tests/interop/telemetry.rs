//! OpenTelemetry: what its exporters send of an instrumented OpenAI client counts for the session's version.

use serde_json::{Value, json};

use super::driver::Driver;
use crate::support::{Place, Server, eventually, provider};

/// The responses and outcomes that are stored of the pack, by version.
async fn measured(place: &Place) -> Value {
    let status = place.run("status support -o json").await;
    assert_eq!(status.code, 0, "{status:?}");
    status.json()["rollout"].clone()
}

#[tokio::test]
async fn an_instrumented_client_reports_its_calls_and_their_evaluations_by_itself() {
    super::tls();
    let provider = provider("default: {replies: ['All is well.']}").await;
    let provider = format!("http://{}", provider.addr());
    for script in ["python/traces.py", "node/traces.mjs"] {
        // The app asks its provider itself: nothing of it passes the gateway.
        let server = Server::start("http://127.0.0.1:9/v1").await;
        let place = Place::empty().with_server(&server.control);
        for version in ["1.0.0", "2.0.0"] {
            place.publishable(version);
            let applied = place.run(&format!("apply -f {version}.yaml")).await;
            assert_eq!(applied.code, 0, "{applied:?}");
        }
        let client = reqwest::Client::new();
        let session = format!("{script}-1");
        let asked = client.post(format!("{}/v1/resolve", server.data));
        let told = asked.json(&json!({"pack": "support", "session": session})).send().await;
        let told: Value = told.expect("the server answers").json().await.expect("in JSON");
        let variant = told["variant"].as_str().expect("with a variant").to_owned();

        let mut driver = Driver::start(script, &[&server.data, &provider]);
        let failing = json!({"failure_rate": 1, "failure": {"status": 500}}).to_string();
        for (ask, error) in [
            (json!({"session": session, "prompt": "support/answer", "evaluate": 1.0}), Value::Null),
            (
                json!({"session": session, "prompt": "support/answer", "headers": {"x-stand-in-script": failing}}),
                json!("InternalServerError"),
            ),
            (json!({"session": session, "prompt": "somebody-elses"}), Value::Null),
        ] {
            let told = driver.ask(ask).await;
            assert_eq!(told, json!({"error": error, "flushed": true}), "{script}");
        }
        let counted = eventually("two calls are stored", async || {
            let rollout = measured(&place).await;
            (rollout["measured"]["requests"][&variant] == 2).then_some(rollout)
        })
        .await;
        let metric = |name: &str| {
            let metrics = counted["metrics"].as_array().expect("metrics are listed");
            let found = metrics.iter().find(|metric| metric["metric"] == name);
            found.unwrap_or_else(|| panic!("{script}: no {name}: {counted}"))[&variant].clone()
        };
        assert_eq!(metric("success_rate"), json!(0.5), "{script}");
        assert_eq!(metric("task_completion_rate"), json!(1.0), "{script}");
        assert!(metric("latency_avg").as_f64().is_some_and(|ms| ms > 0.0), "{script}");
        assert!(metric("input_tokens_avg").as_f64().is_some_and(|tokens| tokens > 0.0), "{script}");
    }
}
