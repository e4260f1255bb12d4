//! A server to talk to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serin_provider::{Provider, Script};
use serin_server::clock::{Clock, ManualClock};
use serin_server::gateway::Ids;
use serin_server::server::{Overrides, Server, StartError};
use serin_server::settings::{Options, Settings};
use tempfile::TempDir;

/// A running server with everything around it.
pub(crate) struct TestApp {
    pub(crate) server: Server,
    pub(crate) clock: ManualClock,
    pub(crate) provider: Provider,
    pub(crate) dir: TempDir,
    variables: Vec<(String, String)>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer that arrived in full.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The answer as a type of the wire, which it must be.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> T {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Status, media type and body, for a snapshot.
    pub(crate) fn shown(&self) -> String {
        let media = self.headers.get("content-type").map_or("", |value| value.to_str().unwrap());
        format!("{} {media}\n{:#}", self.status, self.json())
    }
}

/// The settings file beside the data directory, if a test wants one.
const SETTINGS: &str = "serin.yaml";

pub(crate) fn start_of_tests() -> Timestamp {
    "2026-11-02T09:00:00Z".parse().unwrap()
}

/// The settings of a server for tests, with some variables besides.
pub(crate) fn settings(data_dir: &Path, provider: SocketAddr, variables: &[(String, String)]) -> Settings {
    let own = [
        ("SERIN_DATA_DIR", data_dir.display().to_string()),
        ("SERIN_DATA_LISTEN", "127.0.0.1:0".to_owned()),
        ("SERIN_CONTROL_LISTEN", "127.0.0.1:0".to_owned()),
        ("SERIN_PROVIDER_BASE_URL", format!("http://{provider}/v1")),
        ("SERIN_DRAIN", "5s".to_owned()),
        ("SERIN_CONTROL_OPEN", "true".to_owned()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    let variables: BTreeMap<String, String> = own.chain(variables.iter().cloned()).collect();
    let file = data_dir.with_file_name(SETTINGS);
    let options = Options { file: file.exists().then_some(file), ..Options::default() };
    Settings::load(&options, &variables).unwrap()
}

/// A counted dice for salts and ids.
pub(crate) fn overrides(clock: &ManualClock) -> Overrides {
    let (salts, ids) = (AtomicU64::new(1), AtomicU64::new(1));
    Overrides {
        clock: Clock::Manual(clock.clone()),
        salts: Box::new(move || format!("salt-{}", salts.fetch_add(1, Ordering::Relaxed))),
        ids: Ids::new(move || u128::from(ids.fetch_add(1, Ordering::Relaxed))),
        seed: 1,
        disk_pages: None,
    }
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(variables: &[(&str, &str)]) -> Self {
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::start_scripted("{}", variables).await
    }

    /// A server whose provider answers by a script.
    pub(crate) async fn start_scripted(script: &str, variables: Vec<(String, String)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(start_of_tests());
        let script = Script::parse(script).unwrap();
        let provider = Provider::start(script, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self::around(dir, clock, provider, variables).await
    }

    /// A server with a settings file.
    pub(crate) async fn start_with_file(yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(SETTINGS), yaml).unwrap();
        let clock = ManualClock::at(start_of_tests());
        let script = Script::parse("{}").unwrap();
        let provider = Provider::start(script, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self::around(dir, clock, provider, Vec::new()).await
    }

    async fn around(
        dir: TempDir,
        clock: ManualClock,
        provider: Provider,
        variables: Vec<(String, String)>,
    ) -> Self {
        let settings = settings(&dir.path().join("data"), provider.addr(), &variables);
        let server = Server::start(&settings, overrides(&clock)).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { server, clock, provider, dir, variables, client }
    }

    /// Stops the server in order and starts it anew on a disk that has room for so many pages of 4 KiB.
    pub(crate) async fn restart_on_disk_of(self, pages: u32) -> Self {
        let Self { server, clock, provider, dir, variables, client } = self;
        drop(client);
        server.shutdown().await;
        let settings = settings(&dir.path().join("data"), provider.addr(), &variables);
        let overrides = Overrides { disk_pages: Some(pages), ..overrides(&clock) };
        let server = Server::start(&settings, overrides).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { server, clock, provider, dir, variables, client }
    }

    /// Stops the server in order and starts it anew on the same directory.
    pub(crate) async fn restart(self) -> Self {
        let Self { server, clock, provider, dir, variables, client } = self;
        drop(client);
        server.shutdown().await;
        Self::around(dir, clock, provider, variables).await
    }

    /// Stops the server in order and starts it anew with other variables.
    pub(crate) async fn restart_with(mut self, variables: &[(&str, &str)]) -> Self {
        self.variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.restart().await
    }

    /// Tries to start another server on the same directory.
    pub(crate) async fn second(&self) -> Result<Server, StartError> {
        let settings = settings(&self.data_dir(), self.provider.addr(), &self.variables);
        Server::start(&settings, overrides(&self.clock)).await
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Lets time pass and the control loop look, a second at a time.
    pub(crate) async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.set(self.clock.now() + std::time::Duration::from_secs(1));
            self.server.control().look().await;
        }
    }

    pub(crate) async fn send(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let response = self.open(to, method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Sends a request and returns as soon as the head of the answer is there.
    pub(crate) async fn open(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Incoming> {
        let mut request = Request::builder().method(method).uri(format!("http://{to}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.server.control_addr(), "GET", path, &[], "").await
    }

    pub(crate) async fn apply(&self, manifest: &str) -> Answer {
        self.put("/api/v1/packs", manifest).await
    }

    pub(crate) async fn put(&self, path: &str, manifest: &str) -> Answer {
        let headers = [("x-serin-actor", "ana"), ("content-type", "application/yaml")];
        self.send(self.server.control_addr(), "PUT", path, &headers, manifest.to_owned()).await
    }

    pub(crate) async fn order(&self, order: &str, body: &str) -> Answer {
        let path = format!("/api/v1/packs/support-prompts/rollout/{order}");
        let headers = [("x-serin-actor", "ana"), ("content-type", "application/json")];
        self.send(self.server.control_addr(), "POST", &path, &headers, body.to_owned()).await
    }

    pub(crate) async fn data(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send(self.server.data_addr(), "POST", path, &headers, body.to_string()).await
    }

    /// Applies both versions of the example: one is stable, the other a canary.
    pub(crate) async fn with_canary(self) -> Self {
        assert_eq!(self.apply(&stable()).await.status, 200);
        assert_eq!(self.apply(&canary()).await.status, 200);
        self
    }
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A manifest of the examples with its prompts inline, as the command line sends it.
fn inlined(manifest: &str, pack: &str) -> String {
    let prompts: Value = serde_json::from_str(&example(pack)).unwrap();
    let file = format!("file: {pack}");
    let manifest = example(manifest);
    assert!(manifest.contains(&file), "{manifest}");
    manifest.replace(&file, &format!("inline: {prompts}"))
}

pub(crate) fn stable() -> String {
    inlined("support-prompts-2.3.1.yaml", "support-prompts-2.3.1.pack.json")
}

pub(crate) fn canary() -> String {
    inlined("support-prompts.yaml", "support-prompts-2.4.0.pack.json")
}
