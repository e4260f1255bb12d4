//! Runs the program as a user does: the binary itself, in a folder of its own, with a bare environment.

pub(crate) mod alertmanager;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use serin_provider::{Provider, Script};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// How long anything in these tests may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The stand-in provider, which answers by a script.
pub(crate) async fn provider(script: &str) -> Provider {
    let script = Script::parse(script).expect("it is a script");
    let listen = "127.0.0.1:0".parse().expect("it is an address");
    Provider::start(script, listen).await.expect("a free port can be had")
}

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ran {
    /// Both outputs and the exit code, as a snapshot shows them.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("exit code {}\n", self.code);
        for (name, output) in [("stdout", &self.out), ("stderr", &self.err)] {
            if !output.is_empty() {
                text.push_str(&format!("---- {name}\n{output}"));
            }
        }
        text
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON: {error}\n{self:?}"))
    }
}

/// A folder to run the program in, and the server it talks to.
pub(crate) struct Place {
    folder: TempDir,
    server: Option<String>,
}

impl Place {
    /// An empty folder, and no server.
    pub(crate) fn empty() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder can be made"), server: None }
    }

    /// The path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the temporary folder takes files");
    }

    /// The same folder, with a server at this address.
    pub(crate) fn with_server(self, address: &str) -> Self {
        Self { server: Some(address.to_owned()), ..self }
    }

    /// The program with these arguments, separated by blanks; `'…'` keeps an argument together.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = serin();
        command.args(words(line)).current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some(server) = &self.server {
            command.env("SERIN_SERVER", server);
        }
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, line: &str) -> Ran {
        let output = tokio::time::timeout(DEADLINE, self.command(line).output());
        let output = output.await.unwrap_or_else(|_| panic!("`serin {line}` does not end"));
        let output = output.expect("the program can be started");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes UTF-8");
        let code = output.status.code().expect("nothing kills the program");
        Ran { code, out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The program with nothing of this machine's environment.
pub(crate) fn serin() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
    command.env_clear().env("SERIN_ACTOR", "tester").kill_on_drop(true);
    command
}

fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let mut words = Vec::new();
    for (index, part) in parts {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(ToOwned::to_owned));
        }
    }
    words
}

/// A `serin serve` of its own, on free ports.
pub(crate) struct Server {
    /// The data plane, such as `http://127.0.0.1:41234`.
    pub(crate) data: String,
    /// The control plane.
    pub(crate) control: String,
    child: Child,
    _out: BufReader<ChildStdout>,
    data_dir: Option<TempDir>,
}

impl Server {
    /// Where the server keeps what it knows.
    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.as_ref().expect("the server was started with a folder of its own").path()
    }

    /// Starts a server in front of a provider; it asks for no key.
    pub(crate) async fn start(provider: &str) -> Self {
        Self::start_with(provider, &[]).await
    }

    /// Starts a server in front of a provider, with further arguments.
    pub(crate) async fn start_with(provider: &str, further: &[&str]) -> Self {
        let data_dir = TempDir::new().expect("a temporary folder can be made");
        let mut command = serin();
        command.arg("serve").arg("--data-dir").arg(data_dir.path()).args(["--provider", provider]);
        command.args(further).env("SERIN_CONTROL_OPEN", "true");
        Self { data_dir: Some(data_dir), ..Self::spawn(command, 0).await }
    }

    /// Starts a server as `serin serve` does in a folder; it asks for a key, which is in that folder.
    pub(crate) async fn start_in(place: &Place) -> Self {
        Self::spawn(place.command("serve --provider http://127.0.0.1:9/v1"), 0).await
    }

    /// The same with its control plane on a port that is known beforehand, further arguments and variables.
    pub(crate) async fn start_on(
        place: &Place,
        control: u16,
        further: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = place.command("serve --provider http://127.0.0.1:9/v1");
        command.args(further).envs(variables.iter().copied());
        Self::spawn(command, control).await
    }

    async fn spawn(mut command: Command, control: u16) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--control-listen", &format!("127.0.0.1:{control}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let mut out = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (mut data, mut control) = (None, None);
        while data.is_none() || control.is_none() {
            let mut line = String::new();
            let read = tokio::time::timeout(DEADLINE, out.read_line(&mut line)).await;
            if !matches!(read, Ok(Ok(1..))) {
                let mut err = String::new();
                let _ = child.start_kill();
                if let Some(mut stderr) = child.stderr.take() {
                    let _ = stderr.read_to_string(&mut err).await;
                }
                panic!("the server does not say where it listens: {err}");
            }
            let url = line.split_whitespace().find(|word| word.starts_with("http://"));
            match (line.split_whitespace().next(), url) {
                (Some("data"), Some(url)) => data = Some(url.trim_end_matches("/v1").to_owned()),
                (Some("control"), Some(url)) => control = Some(url.to_owned()),
                _ => {}
            }
        }
        let (Some(data), Some(control)) = (data, control) else { unreachable!("the loop ends with both") };
        // What it logs is read away, so that it never waits for us.
        let mut stderr = child.stderr.take().expect("standard error is piped");
        tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
        Self { data, control, child, _out: out, data_dir: None }
    }

    /// Asks it to stop as Ctrl-C does, and returns its exit code.
    pub(crate) async fn stop(mut self) -> i32 {
        let id = self.child.id().expect("the server runs").to_string();
        let kill = Command::new("kill").args(["-INT", &id]).status().await.expect("there is a `kill`");
        assert!(kill.success());
        let ended =
            tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("the server stops in time");
        ended.expect("the server can be waited for").code().expect("the server ends by itself")
    }
}

/// Asks again and again until there is an answer, at most for [`DEADLINE`].
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A manifest of the pack `support` with a rollout that stays at its first step until somebody moves it.
pub(crate) fn slow_manifest(version: &str) -> String {
    format!(
        r#"apiVersion: omnia.altairalabs.ai/v1alpha1
kind: PromptPack
metadata:
  name: support
spec:
  version: "{version}"
  source:
    file: support-{version}.pack.json
  rollout:
    canaryWeight: 10
    stepWeight: 30
    stepInterval: 1h
    analysis:
      metrics:
        - {{name: success_rate, threshold: 90%, comparison: ">="}}
"#
    )
}

/// The prompts of a version of the pack `support`; each version's text names it.
pub(crate) fn pack(version: &str) -> String {
    serde_json::json!({
        "id": "support",
        "name": "Support",
        "version": version,
        "template_engine": {"version": "v1", "syntax": "{{variable}}"},
        "prompts": {"answer": {
            "id": "answer",
            "name": "Answer",
            "version": version,
            "system_template": format!("You are version {version} of the agent of {{{{company}}}}."),
            "variables": [{"name": "company", "type": "string", "required": true}],
        }},
    })
    .to_string()
}

impl Place {
    /// Writes the manifest and the pack of a version; the manifest is `VERSION.yaml`.
    pub(crate) fn publishable(&self, version: &str) {
        self.write(&format!("{version}.yaml"), &slow_manifest(version));
        self.write(&format!("support-{version}.pack.json"), &pack(version));
    }
}
