//! The servers under test: Serin, nginx, and the stand-in provider behind both.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::json;
use tempfile::TempDir;

use crate::process::{Server, free_address};

/// The program under test, built with this benchmark.
const SERIN: &str = env!("CARGO_BIN_EXE_serin");

/// All of them.
pub(crate) struct Stage {
    pub(crate) provider: Provider,
    pub(crate) serin: Serin,
    pub(crate) nginx: Option<Nginx>,
}

impl Stage {
    /// Starts all of them; the chunks of streams are so many milliseconds apart.
    pub(crate) fn set(chunk_interval_ms: u16, nginx: Option<&Path>, workers: usize) -> anyhow::Result<Self> {
        let provider = Provider::start(chunk_interval_ms)?;
        let serin = Serin::start(provider.address)?;
        serin.apply_pack()?;
        let nginx = nginx.map(|program| Nginx::start(program, provider.address, workers)).transpose()?;
        Ok(Self { provider, serin, nginx })
    }
}

/// The stand-in provider, which answers at once.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    _server: Server,
    _dir: TempDir,
}

impl Provider {
    /// Starts it; streams have 20 chunks of content, so many milliseconds apart.
    pub(crate) fn start(chunk_interval_ms: u16) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let address = free_address()?;
        let reply = "Your parcel is at the depot next to you and comes tomorrow between nine and noon. ";
        let behaviour =
            json!({"replies": [reply.repeat(2)], "chunks": 20, "chunk_interval_ms": chunk_interval_ms});
        let script = dir.path().join("script.json");
        fs::write(&script, json!({ "default": behaviour }).to_string())?;
        let mut command = Command::new(SERIN);
        command.arg("provider").arg("--script").arg(script).args(["--listen", &address.to_string()]);
        let server = Server::start("the stand-in provider", &mut command, &dir.path().join("log"), address)?;
        Ok(Self { address, _server: server, _dir: dir })
    }
}

/// `serin serve` with a pack that has a rollout under way.
pub(crate) struct Serin {
    pub(crate) data: SocketAddr,
    pub(crate) control: SocketAddr,
    pub(crate) server: Server,
    dir: TempDir,
}

impl Serin {
    /// Starts it in front of a provider; it knows no pack yet.
    pub(crate) fn start(provider: SocketAddr) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (data, control) = (free_address()?, free_address()?);
        let settings = json!({
            "dataDir": dir.path().join("data"),
            "data": {"listen": data, "maxPins": 6_000_000},
            "control": {"listen": control, "open": true},
            "provider": {"baseUrl": format!("http://{provider}/v1")},
            "log": {"filter": "warn"},
        });
        let file = dir.path().join("serin.yaml");
        fs::write(&file, settings.to_string())?;
        let mut command = Command::new(SERIN);
        command.arg("serve").arg("--settings").arg(file);
        let server = Server::start("serin serve", &mut command, &dir.path().join("log"), data)?;
        Ok(Self { data, control, server, dir })
    }

    /// Applies two versions of the pack `bench`: the second one is a canary for half of the sessions.
    pub(crate) fn apply_pack(&self) -> anyhow::Result<()> {
        for version in ["1.0.0", "2.0.0"] {
            let pack = self.dir.path().join("pack.json");
            fs::write(&pack, prompts(version))?;
            let manifest = self.dir.path().join("manifest.json");
            fs::write(&manifest, manifest_of(version))?;
            let applied = Command::new(SERIN)
                .args(["apply", "--server", &format!("http://{}", self.control), "-f"])
                .arg(manifest)
                .env("SERIN_DATA_DIR", self.dir.path().join("data"))
                .output()?;
            let told = String::from_utf8_lossy(&applied.stderr);
            ensure!(applied.status.success(), "could not apply version {version}: {told}");
        }
        Ok(())
    }
}

/// Both versions are equally long, so that all answers are.
fn prompts(version: &str) -> String {
    let system = "You are the support assistant of a web shop. Be friendly and brief. Look an order up before you \
                  answer, never promise a refund, and hand the conversation over when the customer asks for it.";
    json!({
        "id": "bench",
        "name": "Bench",
        "version": version,
        "template_engine": {"version": "v1", "syntax": "{{variable}}"},
        "prompts": {
            "answer": {
                "id": "answer",
                "name": "Answer",
                "version": version,
                "system_template": format!("{system} Version {version}."),
                "parameters": {"max_tokens": 800},
            },
        },
    })
    .to_string()
}

fn manifest_of(version: &str) -> String {
    json!({
        "apiVersion": "omnia.altairalabs.ai/v1alpha1",
        "kind": "PromptPack",
        "metadata": {"name": "bench"},
        "spec": {
            "version": version,
            "source": {"file": "pack.json"},
            "rollout": {
                "strategy": "canary",
                "canaryWeight": 50,
                "stepWeight": 50,
                "stepInterval": "24h",
                "analysis": {
                    "metrics": [{"name": "success_rate", "threshold": "90%", "comparison": ">="}],
                    "interval": "1m",
                },
            },
        },
    })
    .to_string()
}

/// The length of the file that nginx serves as `/static`: about that of an answer of `/v1/resolve`.
pub(crate) const STATIC_BYTES: usize = 300;

/// nginx as a plain proxy.
pub(crate) struct Nginx {
    /// With its buffers, as it comes.
    pub(crate) buffered: SocketAddr,
    /// Every read is passed on at once, as streams need it.
    pub(crate) unbuffered: SocketAddr,
    pub(crate) server: Server,
    _dir: TempDir,
}

impl Nginx {
    /// Where it is installed, if it is.
    pub(crate) fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let also = Path::new("/usr/sbin").to_owned();
        let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
        dirs.push(also);
        dirs.into_iter().map(|dir| dir.join("nginx")).find(|file| file.is_file())
    }

    /// Starts it in front of a provider.
    pub(crate) fn start(program: &Path, provider: SocketAddr, workers: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (buffered, unbuffered) = (free_address()?, free_address()?);
        let root = dir.path().display();
        let server = |address: SocketAddr, buffering: &str| {
            format!(
                "  server {{
    listen {address};
    location = /static {{
      root {root};
    }}
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering {buffering};
    }}
  }}
"
            )
        };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("  {what}_temp_path {root}/{what};\n"))
            .concat();
        let configuration = format!(
            "daemon off;
worker_processes {workers};
pid {root}/pid;
error_log {root}/error.log warn;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
{temporary}  upstream provider {{
    server {provider};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
{}{}}}
",
            server(buffered, "on"),
            server(unbuffered, "off"),
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, configuration)?;
        fs::write(dir.path().join("static"), "x".repeat(STATIC_BYTES))?;
        let mut command = Command::new(program);
        command.arg("-p").arg(dir.path()).arg("-c").arg(&file).arg("-e").arg(dir.path().join("error.log"));
        let server = Server::start("nginx", &mut command, &dir.path().join("log"), buffered)
            .with_context(|| format!("nginx as {}", program.display()))?;
        Ok(Self { buffered, unbuffered, server, _dir: dir })
    }
}
