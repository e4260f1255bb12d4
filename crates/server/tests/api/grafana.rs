//! The Grafana dashboard of the examples asks for what the server exposes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::app::TestApp;

/// Every query of a dashboard: those of its panels and those of its variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let of_panels = targets.map(|target| &target["expr"]);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let of_variables = variables.iter().filter(|variable| variable["type"] == "query");
    let of_variables = of_variables.map(|variable| &variable["query"]["query"]);
    of_panels.chain(of_variables).map(|query| query.as_str().unwrap().to_owned()).collect()
}

/// The series that a query names, each with the labels that it asks of it.
fn series(query: &str) -> Vec<(String, Vec<String>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in query.match_indices("serin_") {
        if query[..at].ends_with(is_word) {
            continue;
        }
        let rest = &query[at..];
        let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
        let matchers = rest[name.len()..].strip_prefix('{').and_then(|inner| inner.split('}').next());
        let labels = matchers.unwrap_or_default().split(',').filter_map(|matcher| {
            Some(matcher.split(['=', '!']).next()?.trim().to_owned()).filter(|label| !label.is_empty())
        });
        found.push((name, labels.collect()));
    }
    found
}

/// The labels of every series that a scrape shows.
fn exposed(metrics: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut exposed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        exposed.entry(name.to_owned()).or_default().extend(labels);
    }
    exposed
}

#[tokio::test]
async fn every_series_and_label_of_the_dashboard_is_exposed() {
    let app = TestApp::start().await.with_canary().await;
    let body = json!({
        "model": "stand-in", "messages": [{"role": "user", "content": "Where is my order?"}],
        "prompt": {"id": "support-prompts/support", "variables": {"company": "Acme"}},
    });
    for n in 0..40 {
        let session = format!("s-{n}");
        let headers = [("content-type", "application/json"), ("x-serin-session", session.as_str())];
        let to = app.server.data_addr();
        assert_eq!(
            app.send(to, "POST", "/v1/chat/completions", &headers, body.to_string()).await.status,
            200
        );
    }
    assert_eq!(app.order("pause", r#"{"reason": "look"}"#).await.status, 200);
    assert!(app.server.control().resolver().signals.barrier().await);
    let exposed = exposed(&app.get("/metrics").await.text());
    let dashboard = include_str!("../../../../examples/grafana/serin.json");
    let queries = queries(&serde_json::from_str(dashboard).unwrap());
    assert!(queries.len() > 15, "{queries:?}");
    for query in queries {
        let named = series(&query);
        assert!(!named.is_empty(), "{query}");
        for (name, labels) in named {
            let has = exposed.get(&name).unwrap_or_else(|| panic!("{query}: there is no series {name}"));
            for label in labels {
                assert!(has.contains(&label), "{query}: {name} has no label {label}, only {has:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_metric_of_a_rollout_is_a_series_for_each_version_and_a_word() {
    let app = TestApp::start().await.with_canary().await;
    for n in 0..30 {
        let session = format!("s-{n}");
        app.data("/v1/resolve", &json!({"pack": "support-prompts", "session": session})).await;
        let event = json!({"id": session, "pack": "support-prompts", "session": session, "name": "task_completion", "value": n % 2 == 0});
        assert_eq!(app.data("/v1/events", &json!({"events": [event]})).await.status, 202);
    }
    app.pass(60).await;
    let text = app.get("/metrics").await.text();
    let of_stable = "serin_metric_value{pack=\"support-prompts\",version=\"2.3.1\",variant=\"stable\",metric=\"task_completion_rate\"} ";
    let line = text.lines().find(|line| line.starts_with(of_stable)).unwrap_or_else(|| panic!("{text}"));
    let value: f64 = line[of_stable.len()..].parse().unwrap();
    assert!((0.2..0.8).contains(&value), "{line}");
    assert!(
        text.contains("serin_metric_status{pack=\"support-prompts\",metric=\"task_completion_rate\",status="),
        "{text}"
    );
    assert!(text.contains("serin_metric_left_out 0\n"), "{text}");
}

#[tokio::test]
async fn many_who_look_at_once_cost_one_look_until_something_changes_or_time_passes() {
    let app = TestApp::start().await.with_canary().await;
    let looked = || app.server.control().counts.views.load(std::sync::atomic::Ordering::Relaxed);
    let scrape = async || {
        let scrapes = (0..50).map(async |_| assert_eq!(app.get("/metrics").await.status, 200));
        futures_util::future::join_all(scrapes).await;
    };
    scrape().await;
    assert_eq!(looked(), 1, "fifty scrapes read the evidence once");
    assert_eq!(app.order("pause", r#"{"reason": "look"}"#).await.status, 200);
    scrape().await;
    assert_eq!(looked(), 2, "a change shows at once");
    let text = app.get("/metrics").await.text();
    assert!(text.contains("serin_rollout_hold{pack=\"support-prompts\",cause="), "{text}");
    app.pass(6).await;
    scrape().await;
    assert_eq!(looked(), 3, "and so does what was measured, after some seconds");
}
