//! Debian's Alertmanager, as a process of its own. `scripts/setup.sh test` installs it.

use std::net::TcpListener;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::eventually;

/// One that runs until it is dropped.
pub(crate) struct Alertmanager {
    pub(crate) url: String,
    _child: Child,
    _folder: TempDir,
}

impl Alertmanager {
    /// Starts it with this configuration, and waits until it is ready.
    pub(crate) async fn start(config: &Value) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let path = folder.path().join("alertmanager.yml");
        std::fs::write(&path, config.to_string()).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={free}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus-alertmanager is installed: run `make test`, which installs it");
        let manager = Self { url: format!("http://{free}"), _child: child, _folder: folder };
        eventually("Alertmanager is ready", async || {
            http().get(format!("{}/-/ready", manager.url)).send().await.ok()?.error_for_status().ok()
        })
        .await;
        manager
    }

    /// What fires, as `name severity`; nothing while it does not answer.
    pub(crate) async fn alerts(&self) -> Option<Vec<String>> {
        let url = format!("{}/api/v2/alerts?active=true", self.url);
        let alerts: Vec<Value> = http().get(url).send().await.ok()?.json().await.ok()?;
        let mut names: Vec<String> = alerts
            .iter()
            .map(|alert| {
                let labels = &alert["labels"];
                let (name, severity) = (labels["alertname"].as_str()?, labels["severity"].as_str()?);
                Some(format!("{name} {severity}"))
            })
            .collect::<Option<_>>()?;
        names.sort();
        Some(names)
    }

    pub(crate) async fn fires(&self, expected: &[&str]) {
        eventually(&format!("{expected:?} fires"), async || {
            self.alerts().await.filter(|alerts| alerts == expected)
        })
        .await;
    }
}

pub(crate) fn http() -> reqwest::Client {
    // An error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client can be made")
}
