//! `kill -9` at random moments of a running rollout: nothing that was acknowledged is lost or counted twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

/// How long a start of the server may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Data directories, one after the other: the weight of each rises until its first kill.
const LIVES: u64 = 5;
/// How often the server is killed in each.
const KILLS: u64 = 4;
/// Clients that talk to it at the same time.
const CLIENTS: u64 = 6;

/// A running server on a data directory that outlives it.
struct Server {
    api: Api,
    child: Child,
}

/// How a server is talked to.
struct Api {
    data: String,
    control: String,
    client: reqwest::Client,
}

impl Server {
    async fn start(data_dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_serin"))
            .env_clear()
            .kill_on_drop(true)
            .args(["serve", "--listen", "127.0.0.1:0", "--control-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(["--provider", "http://127.0.0.1:9/v1"])
            .env("SERIN_CONTROL_OPEN", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let (mut data, mut control) = (None, None);
        while data.is_none() || control.is_none() {
            let line =
                tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("the server starts in time");
            let line = line.expect("its output can be read").expect("the server says where it listens");
            let mut words = line.split_whitespace();
            match (words.next(), words.find(|word| word.starts_with("http://"))) {
                (Some("data"), Some(url)) => data = Some(url.trim_end_matches("/v1").to_owned()),
                (Some("control"), Some(url)) => control = Some(url.to_owned()),
                _ => {}
            }
        }
        let (Some(data), Some(control)) = (data, control) else { unreachable!("the loop ends with both") };
        Self { api: Api { data, control, client: reqwest::Client::new() }, child }
    }

    /// Asks it to stop and waits until it has.
    async fn stop(mut self) {
        let pid = self.child.id().expect("it runs").to_string();
        let asked = Command::new("kill").args(["-INT", &pid]).status().await.expect("kill can be started");
        assert!(asked.success(), "{asked}");
        let ended = self.child.wait().await.expect("it ends");
        assert!(ended.success(), "{ended}");
    }
}

impl Api {
    /// Posts JSON; nothing when the server died on the way.
    async fn post(&self, path: &str, body: &Value) -> Option<Value> {
        let answer = self.client.post(format!("{}{path}", self.data)).json(body).send().await.ok()?;
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.ok()
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(format!("{}/api/v1{path}", self.control)).send().await;
        answer.expect("the server runs").json().await.expect("the API answers JSON")
    }

    async fn apply(&self, manifest: &str) {
        let put = self.client.put(format!("{}/api/v1/packs", self.control)).body(manifest.to_owned());
        let answer = put.send().await.expect("the server runs");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    }

    async fn version_of(&self, session: &str) -> Option<String> {
        let answer = self.post("/v1/resolve", &json!({"pack": "support", "session": session})).await?;
        Some(answer["version"].as_str().expect("an answer names its version").to_owned())
    }
}

/// What the server has acknowledged.
#[derive(Default)]
struct Acknowledged {
    versions: BTreeMap<String, String>,
    events: Vec<String>,
}

fn event(id: &str, session: &str) -> Value {
    json!({"id": id, "pack": "support", "session": session, "name": "user_satisfaction", "value": 4})
}

/// One client: new sessions, each with an event, until the server dies; says when enough was acknowledged.
async fn talk(api: &Api, known: &Mutex<Acknowledged>, name: &str, enough: usize, done: &Notify) {
    for n in 0..u64::MAX {
        let Some(events) = begin(api, known, &format!("session-{name}-{n}")).await else { return };
        if events >= enough {
            done.notify_one();
        }
    }
}

/// A new session with an event; how many events are acknowledged by now, or nothing when the server died on the way.
async fn begin(api: &Api, known: &Mutex<Acknowledged>, session: &str) -> Option<usize> {
    let version = api.version_of(session).await?;
    known.lock().unwrap().versions.insert(session.to_owned(), version);
    let id = format!("event-{session}");
    let answer = api.post("/v1/events", &json!({"events": [event(&id, session)]})).await?;
    assert_eq!(answer["accepted"], 1, "{answer}");
    let mut known = known.lock().unwrap();
    known.events.push(id);
    Some(known.events.len())
}

/// After a kill no weight rises: a session of the last moments would get another version.
async fn weight_is_held(api: &Api) {
    loop {
        let rollout = api.get("/packs/support/rollout").await;
        let holds = rollout["holds"].as_array().unwrap_or_else(|| panic!("{rollout}"));
        if holds.iter().any(|hold| hold["cause"] == "unobserved") {
            return;
        }
    }
}

/// Without a crash it rises, as long as somebody talks.
async fn weight_rises(api: &Api, known: &Mutex<Acknowledged>) {
    let weight = async || api.get("/packs/support/rollout").await["weight"].as_f64();
    let before = weight().await;
    for n in 0..u64::MAX {
        begin(api, known, &format!("session-rise-{n}")).await.expect("the server runs");
        if weight().await > before {
            return;
        }
    }
}

/// The weight in force must be the one of the last recorded decision.
async fn weight_is_recorded(api: &Api) {
    let rollout = api.get("/packs/support/rollout").await;
    let audit = api.get("/audit?pack=support&limit=1000").await;
    let entries = audit["entries"].as_array().unwrap_or_else(|| panic!("{audit}"));
    let weight_of = |entry: &Value| match entry["action"].as_str() {
        Some("rollout_started" | "step_entered") => entry["evidence"]["weights_percent"][0].as_f64(),
        Some("completed") => Some(100.0),
        Some(_) | None => None,
    };
    let last = entries.iter().filter_map(weight_of).next_back().expect("a rollout has started");
    assert_eq!(rollout["weight"].as_f64(), Some(last), "{rollout}");
}

#[tokio::test]
async fn twenty_kills_lose_nothing_flip_nobody_and_count_nothing_twice() {
    // An error means that there is a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for life in 0..LIVES {
        killed_four_times(life).await;
    }
}

async fn killed_four_times(life: u64) {
    let dir = TempDir::new().expect("a temporary folder can be made");
    let known = Arc::new(Mutex::new(Acknowledged::default()));
    let manifest = |version: &str, rollout: &str| {
        format!(
            "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: support}}\n\
             spec: {{version: \"{version}\", rollout: {{{rollout}}}}}\n"
        )
    };
    let mut seed: u64 = 0x5e71_0000 + life;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..KILLS {
        let Server { api, mut child } = Server::start(dir.path()).await;
        if round == 0 {
            api.apply(&manifest("1.0.0", "")).await;
            let gate = "{name: user_satisfaction_avg, threshold: 1.5, comparison: \">=\", maturity: 300ms, minSamples: 5}";
            let analysis = format!("analysis: {{interval: 500ms, metrics: [{gate}]}}");
            api.apply(&manifest(
                "1.1.0",
                &format!("canaryWeight: 5, stepWeight: 5, stepInterval: 1s, {analysis}"),
            ))
            .await;
            weight_rises(&api, &known).await;
        }
        // Everybody who was told a version still has it.
        let told: Vec<(String, String)> = known
            .lock()
            .unwrap()
            .versions
            .iter()
            .map(|(key, version)| (key.clone(), version.clone()))
            .collect();
        for (session, version) in told.iter().rev().take(200).chain(told.iter().take(50)) {
            assert_eq!(api.version_of(session).await.as_ref(), Some(version), "{session} in round {round}");
        }
        weight_is_recorded(&api).await;

        let enough =
            known.lock().unwrap().events.len() + 20 + usize::try_from(random(600)).expect("a small number");
        let done = Notify::new();
        let names: Vec<String> = (0..CLIENTS).map(|client| format!("{round:02}-{client}")).collect();
        let clients = names.iter().map(|name| talk(&api, &known, name, enough, &done));
        // The kill comes while every client is in the middle of something.
        let kill = async {
            done.notified().await;
            child.kill().await.expect("the server can be killed");
        };
        tokio::join!(futures_util::future::join_all(clients), kill);
    }

    // A stop in order brings back no pin, so that the weight is held after it too.
    let server = Server::start(dir.path()).await;
    weight_is_held(&server.api).await;
    server.stop().await;
    let Server { api, mut child } = Server::start(dir.path()).await;
    weight_is_held(&api).await;
    let events = std::mem::take(&mut known.lock().unwrap().events);
    for ids in events.chunks(500) {
        let again: Vec<Value> = ids.iter().map(|id| event(id, id.trim_start_matches("event-"))).collect();
        let answer = api.post("/v1/events", &json!({"events": again})).await.expect("the server runs");
        let duplicates = u64::try_from(ids.len()).expect("a small number");
        assert_eq!(
            (answer["accepted"].as_u64(), answer["duplicate"].as_u64()),
            (Some(0), Some(duplicates)),
            "{answer}"
        );
    }
    weight_is_recorded(&api).await;
    let rollout = api.get("/packs/support/rollout").await;
    assert!(rollout["weight"].as_f64() > Some(5.0), "the weight grew before the kills: {rollout}");
    let verified = api.get("/audit/verify").await;
    assert_eq!(verified["intact"], true, "{verified}");
    child.kill().await.expect("the server can be killed");
}
