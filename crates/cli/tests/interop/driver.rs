//! A process that does with a client library what a test tells it, one JSON document per line.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::{DEADLINE, repository};

/// A running driver.
pub(crate) struct Driver {
    _child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    script: &'static str,
}

impl Driver {
    /// Starts a script of `tests/clients` with its arguments; `.py` runs in the tests' own Python environment.
    pub(crate) fn start(script: &'static str, arguments: &[&str]) -> Self {
        let is_python = script.ends_with(".py");
        let program = if is_python { repository("target/venv/bin/python") } else { "node".into() };
        let needed = if is_python { "target/venv" } else { "crates/cli/tests/clients/node/node_modules" };
        assert!(
            repository(needed).exists(),
            "{needed} is not there: run `make test`, which installs the clients"
        );
        let mut child = Command::new(program)
            .arg(repository("crates/cli/tests/clients").join(script))
            .args(arguments)
            .env_remove("HTTP_PROXY")
            .env_remove("http_proxy")
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("could not start {script}: {error}; run `make test`"));
        let asks = child.stdin.take().expect("standard input is piped");
        let answers = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Self { _child: child, asks, answers, script }
    }

    /// Tells the driver what to do, and returns what came of it.
    pub(crate) async fn ask(&mut self, ask: Value) -> Value {
        self.asks.write_all(format!("{ask}\n").as_bytes()).await.expect("the driver listens");
        let mut line = String::new();
        let read = tokio::time::timeout(DEADLINE, self.answers.read_line(&mut line)).await;
        read.expect("the driver answers in time").expect("the driver writes text");
        let script = self.script;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{script} said {line:?} to {ask}: {error}"))
    }
}
