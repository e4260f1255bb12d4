//! Alerts in, from Debian's Alertmanager to the running program. `scripts/setup.sh test` installs it.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use serde_json::{Value, json};
use support::alertmanager::{Alertmanager, http};
use support::{Place, Server, eventually};

/// How an Alertmanager tells Serin.
fn telling(control: &str, key: &str) -> Value {
    json!({
        "route": {
            "receiver": "serin", "group_by": ["alertname"],
            "group_wait": "100ms", "group_interval": "1s", "repeat_interval": "1s",
        },
        "receivers": [{
            "name": "serin",
            "webhook_configs": [{
                "url": format!("{control}/api/v1/alerts"),
                "http_config": {"authorization": {"credentials": key}},
            }],
        }],
    })
}

/// Says that an alert fires until a point in time, as Prometheus does.
async fn alert(manager: &Alertmanager, name: &str, ends_at: jiff::Timestamp) {
    let alert = json!([{
        "labels": {"alertname": name, "service": "chat", "severity": "page"},
        "annotations": {"summary": "5xx above 2 %"},
        "generatorURL": "http://prometheus.example:9090/graph",
        "endsAt": ends_at.to_string(),
    }]);
    let sent = http().post(format!("{}/api/v2/alerts", manager.url)).json(&alert).send().await.unwrap();
    assert!(sent.status().is_success(), "{}", sent.text().await.unwrap());
}

#[tokio::test]
async fn an_alert_of_a_real_alertmanager_holds_the_rollout_and_its_end_lets_it_go_on() {
    let place = Place::empty();
    place.publishable("1.0.0");
    place.publishable("2.0.0");
    place.write("serin.yaml", "alerts:\n  rules:\n  - {match: {service: chat}, packs: [support]}\n");
    let file = place.path("serin.yaml").display().to_string();
    let server = Server::start_with("http://127.0.0.1:9", &["--settings", &file]).await;
    let place = place.with_server(&server.control);
    let run = async |line: &str| {
        let ran = place.run(line).await;
        assert_eq!(ran.code, 0, "`serin {line}`: {ran:?}");
        ran
    };
    let key = run("key create monitoring --role alerts").await.out.trim().to_owned();
    run("apply -f 1.0.0.yaml").await;
    run("apply -f 2.0.0.yaml").await;
    let manager = Alertmanager::start(&telling(&server.control, &key)).await;
    let holds = async || {
        let status = run("status support --output json").await.json();
        status["rollout"]["holds"].as_array().expect("holds").clone()
    };

    let now = jiff::Timestamp::now();
    alert(&manager, "HighErrors", now + jiff::SignedDuration::from_hours(1)).await;
    let hold = eventually("the alert holds", async || holds().await.first().cloned()).await;
    assert_eq!(hold["cause"], "alert");
    let reason = hold["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("HighErrors fires since 20") && reason.ends_with(": 5xx above 2 %"),
        "{reason}"
    );
    let shown = run("status support").await.out;
    assert!(shown.contains("HighErrors fires since"), "{shown}");

    alert(&manager, "HighErrors", jiff::Timestamp::now()).await;
    eventually("the end of the alert lets go", async || holds().await.is_empty().then_some(())).await;
    let log = run("audit --output json").await.json();
    let about: Vec<&Value> = log["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .filter(|entry| entry["evidence"]["cause"] == "alert")
        .collect();
    let said: Vec<&str> = about.iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert!(
        said == ["hold_set", "hold_cleared"] || said == ["hold_cleared", "hold_set"],
        "repetitions: {log}"
    );
    assert!(about.iter().all(|entry| entry["evidence"]["alerts"][0]["said_by"] == "monitoring"), "{log}");
    run("audit verify").await;
    assert_eq!(server.stop().await, 0);
}
