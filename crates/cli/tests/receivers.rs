//! Telling real receivers: Debian's Alertmanager, the reference verifier of Standard Webhooks, and judges that
//! hold messages against the published shapes of Slack and PagerDuty. `scripts/setup.sh test` installs them.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use support::alertmanager::Alertmanager;
use support::{Place, Server, eventually, repository};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

/// Takes what Slack, PagerDuty and a signed webhook would take, and keeps what it was sent.
struct Judge {
    url: String,
    seen: Arc<Mutex<Vec<Value>>>,
    _child: Child,
}

impl Judge {
    async fn start() -> Self {
        let python = repository("target/venv-receivers/bin/python");
        assert!(python.exists(), "{} is not there: run `make test`, which installs it", python.display());
        let mut child = Command::new(python)
            .arg(repository("crates/cli/tests/receivers/receiver.py"))
            .arg(SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the receiver can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let port = lines.next_line().await.expect("it writes text").expect("it says its port");
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push(serde_json::from_str(&line).expect("one JSON document a line"));
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), seen, _child: child }
    }

    /// The bodies that came in at a path; none of anything that came in was wrong.
    fn bodies(&self, path: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        for one in &*seen {
            assert_eq!(one["wrong"], Value::Null, "{} got {}", one["path"], one["body"]);
        }
        seen.iter().filter(|one| one["path"] == path).map(|one| one["body"].clone()).collect()
    }
}

fn telling_nobody() -> Value {
    json!({"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]})
}

fn settings(folder: &Path, judge: &Judge, manager: &Alertmanager) -> String {
    let key = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (hook, pager) = (key("hook.key", SECRET), key("pager.key", ROUTING_KEY));
    let (judge, manager) = (&judge.url, &manager.url);
    format!(
        "notify:
  severities: {{hold_set.paused: page}}
  receivers:
  - {{name: chat, type: slack, url: '{judge}/slack', minSeverity: info, allowInternal: true}}
  - {{name: pager, type: pagerduty, url: '{judge}', keyFile: {pager}, minSeverity: info, allowInternal: true}}
  - {{name: hook, type: webhook, url: '{judge}/hook', keyFile: {hook}, minSeverity: info, allowInternal: true}}
  - {{name: alerts, type: alertmanager, url: '{manager}', allowInternal: true}}
  - {{name: outside, type: webhook, url: '{judge}/hook', keyFile: {hook}}}
"
    )
}

#[tokio::test]
async fn real_receivers_take_what_they_are_told() {
    let judge = Judge::start().await;
    let manager = Alertmanager::start(&telling_nobody()).await;
    let place = Place::empty();
    place.publishable("1.0.0");
    place.publishable("2.0.0");
    place.write("serin.yaml", &settings(&place.path("."), &judge, &manager));
    let file = place.path("serin.yaml").display().to_string();
    let server = Server::start_with("http://127.0.0.1:9", &["--settings", &file]).await;
    let place = place.with_server(&server.control);
    let run = async |line: &str| {
        let ran = place.run(line).await;
        assert_eq!(ran.code, 0, "`serin {line}`: {ran:?}");
        ran
    };

    for receiver in ["chat", "pager", "hook", "alerts"] {
        run(&format!("notify test {receiver}")).await;
    }
    let refused = place.run("notify test outside").await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.out.contains("127.0.0.1, which is internal"), "{refused:?}");
    assert_eq!(place.run("notify test nobody").await.code, 1);

    run("apply -f 1.0.0.yaml").await;
    run("apply -f 2.0.0.yaml").await;
    manager.fires(&["SerinRollout tell", "SerinTest info"]).await;
    run("pause support --reason looking").await;
    manager.fires(&["SerinRollout page", "SerinRollout tell", "SerinTest info"]).await;
    run("resume support --reason looked").await;
    manager.fires(&["SerinRollout tell", "SerinTest info"]).await;
    run("rollback support --reason 'wrong <tone>'").await;
    manager.fires(&["SerinRolloutEnded tell", "SerinTest info"]).await;

    let audited = run("audit --output json").await.json();
    let audited = audited["entries"].as_array().expect("entries").len();
    eventually("everything is told", async || {
        let receivers = place.run("notify receivers --output json").await.json();
        let behind = |receiver: &Value| receiver["name"] != "outside" && receiver["behind"] != 0;
        let all = receivers["receivers"].as_array().expect("receivers").iter();
        (!all.into_iter().any(behind)).then_some(())
    })
    .await;
    assert_eq!(judge.bodies("/slack").len(), audited + 1, "each entry once, and the test");
    assert_eq!(judge.bodies("/hook").len(), audited + 1);

    let incidents: Vec<String> = judge
        .bodies("/v2/enqueue")
        .iter()
        .map(|event| {
            assert_eq!(event["routing_key"], ROUTING_KEY);
            format!("{} {}", event["event_action"], event["dedup_key"]).replace('"', "")
        })
        .collect();
    assert_eq!(
        incidents,
        [
            "trigger serin-test",
            "resolve serin-test",
            "trigger support-r1",
            "resolve support-r1",
            "resolve support-r1"
        ],
        "the pause pages, its end and the end of the rollout close the incident"
    );
    assert_eq!(judge.bodies("/v2/change/enqueue").len(), audited - 1, "everything but the pause");
    let last = judge.bodies("/slack").pop().expect("there are some").to_string();
    assert!(last.contains("Already safe") && last.contains("wrong &lt;tone&gt;"), "{last}");
    assert_eq!(server.stop().await, 0);
}
