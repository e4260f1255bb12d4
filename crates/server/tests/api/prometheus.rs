//! A gate that asks a real Prometheus, which scrapes this server.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use serin_server::api::types::RolloutView;
use tokio::process::{Child, Command};

use crate::app::{TestApp, stable};

/// How long anything may take that does not happen on the test's own clock.
const DEADLINE: Duration = Duration::from_secs(30);

/// A Prometheus server with a folder of its own.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    /// Starts it and waits until it answers.
    async fn start(folder: &Path, port: u16, scraped: &str) -> Self {
        let config = folder.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 200ms}}\n\
             scrape_configs: [{{job_name: serin, static_configs: [{{targets: ['{scraped}']}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("could not start prometheus: {error}; run `make test`"));
        Self { child, port }
    }

    /// Stops it at once.
    async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until a query has a value.
    async fn has(&self, app: &TestApp, query: &str) {
        let address = format!("127.0.0.1:{}", self.port).parse().unwrap();
        let path = format!("/api/v1/query?query={query}");
        let asked = async {
            loop {
                if std::net::TcpStream::connect(address).is_ok() {
                    let answer = app.send(address, "GET", &path, &[], "").await;
                    let samples = serde_json::from_slice::<Value>(&answer.body).ok();
                    if samples
                        .is_some_and(|json| json["data"]["result"].as_array().is_some_and(|s| !s.is_empty()))
                    {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, asked).await.expect("prometheus scrapes in time");
    }
}

/// A port that nobody listens on at this moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Version 2.4.0 without prompts, with one gate that only Prometheus can read.
fn manifest(threshold: u32) -> String {
    format!(
        r#"apiVersion: omnia.altairalabs.ai/v1alpha1
kind: PromptPack
metadata: {{name: support-prompts}}
spec:
  version: "2.4.0"
  rollout:
    analysis:
      initialDelay: 0s
      failureThreshold: 2
      interval: 1m
      metrics:
        - name: canary_requests
          provider: prom
          query: 'sum(serin_rollout_requests_total{{pack="{{{{pack}}}}",variant="{{{{variant}}}}",version="{{{{version}}}}"}})'
          threshold: {threshold}
          comparison: "<="
"#
    )
}

async fn rollout(app: &TestApp) -> RolloutView {
    app.get("/api/v1/packs/support-prompts/rollout").await.read()
}

fn is_unreachable(view: &RolloutView) -> Option<String> {
    let hold = view.holds.iter().find(|hold| hold.reason.starts_with("canary_requests: "));
    hold.map(|hold| hold.reason.clone())
}

#[tokio::test]
async fn a_metric_provider_that_is_down_holds_and_goes_on_and_never_rolls_back() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let settings = format!(
        "metricProviders:\n  prom: {{type: prometheus, url: 'http://127.0.0.1:{port}', timeout: 2s}}\n"
    );
    let app = TestApp::start_with_file(&settings).await;
    assert_eq!(app.apply(&stable()).await.status, 200);
    let applied = app.apply(&manifest(10)).await;
    assert_eq!(applied.status, 200, "{}", applied.text());

    // Nobody is there: each check says so, and none of them fails.
    app.pass(600).await;
    let view = rollout(&app).await;
    let reason = is_unreachable(&view).unwrap_or_else(|| panic!("{:?}", view.holds));
    assert!(reason.contains("could not reach"), "{reason}");
    assert_eq!((view.progress.as_ref().unwrap().failed_checks, view.end.is_none()), (0, true));

    // It is there: the hold goes with its cause.
    let scraped = app.server.data_addr().to_string();
    let query = "serin_rollout_requests_total%7Bvariant=%22canary%22%7D";
    let prometheus = Prometheus::start(folder.path(), port, &scraped).await;
    prometheus.has(&app, query).await;
    app.pass(120).await;
    let view = rollout(&app).await;
    assert_eq!(is_unreachable(&view), None, "{:?}", view.holds);
    let gate = &view.gates[0];
    assert_eq!((gate.metric.as_str(), gate.value), ("canary_requests", Some(0.0)), "{gate:?}");

    // It stops in the midst of it, and comes back.
    prometheus.stop().await;
    app.pass(300).await;
    let view = rollout(&app).await;
    assert!(is_unreachable(&view).is_some(), "{:?}", view.holds);
    assert!(view.end.is_none() && view.progress.unwrap().failed_checks == 0);
    let prometheus = Prometheus::start(folder.path(), port, &scraped).await;
    prometheus.has(&app, query).await;
    app.pass(120).await;
    assert_eq!(is_unreachable(&rollout(&app).await), None);

    // What it then says counts: beyond the limit in two checks in a row, the canary is rolled back.
    let mut canaries = 0;
    for n in 0..300 {
        let body = json!({"pack": "support-prompts", "session": format!("s-{n}")});
        let told = app.data("/v1/resolve", &body).await.json();
        canaries += u32::from(told["variant"] == "canary");
        let event = json!({"pack": "support-prompts", "session": format!("s-{n}"), "name": "response", "success": true});
        assert_eq!(app.data("/v1/events", &json!({"events": [event]})).await.status, 202);
    }
    assert!(canaries > 10, "{canaries} of 300 at 10 %");
    prometheus.has(&app, "serin_rollout_requests_total%7Bvariant=%22canary%22%7D%3E10").await;
    app.pass(180).await;
    let view = rollout(&app).await;
    assert!(view.end.is_some(), "{view:?}");
    prometheus.stop().await;
}
