//! Real clients through the gateway: the official OpenAI packages for Python and Node, as users install them.
//!
//! Each test runs once for each language: a driver process does with its client what the test tells it,
//! one JSON document per line. `scripts/setup.sh test` installs the packages.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::{Value, json};
use serin_provider::{Provider, Script};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use support::{DEADLINE, Place, Server, eventually, provider, repository};

/// The clients that are driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Python,
    Node,
}

const LANGUAGES: [Language; 2] = [Language::Python, Language::Node];

/// A process that drives one client.
struct Driver {
    _child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Driver {
    /// Starts a driver whose client talks to the gateway at `data`.
    fn start(language: Language, data: &str) -> Self {
        let (program, script, needed) = match language {
            Language::Python => ("target/venv/bin/python", "python/driver.py", "target/venv/bin/python"),
            Language::Node => {
                ("node", "node/driver.mjs", "crates/cli/tests/clients/node/node_modules/openai")
            }
        };
        assert!(
            repository(needed).exists(),
            "{needed} is not there: run `make test`, which installs the clients"
        );
        let program = if program.contains('/') { repository(program) } else { program.into() };
        let mut child = Command::new(program)
            .arg(repository("crates/cli/tests/clients").join(script))
            .arg(format!("{data}/v1"))
            .env_remove("HTTP_PROXY")
            .env_remove("http_proxy")
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("could not start the {language:?} client: {error}; run `make test`")
            });
        let asks = child.stdin.take().expect("standard input is piped");
        let answers = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Self { _child: child, asks, answers }
    }

    /// Tells the driver what to do, and returns what came of it.
    async fn ask(&mut self, ask: Value) -> Value {
        self.asks.write_all(format!("{ask}\n").as_bytes()).await.expect("the driver listens");
        let mut line = String::new();
        let read = tokio::time::timeout(DEADLINE, self.answers.read_line(&mut line)).await;
        read.expect("the driver answers in time").expect("the driver writes text");
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the driver said {line:?} to {ask}: {error}"))
    }

    /// One chat request of a session, with the one variable that the prompt needs.
    async fn chat(&mut self, session: &str, stream: bool) -> Value {
        self.ask(
            json!({"do": "chat", "session": session, "stream": stream, "variables": {"company": "Acme"}}),
        )
        .await
    }
}

/// A provider, a server in front of it, and the command line.
struct World {
    provider: Provider,
    server: Server,
    place: Place,
}

impl World {
    /// Version 1.0.0 of the pack `support` is stable.
    async fn with_stable() -> Self {
        let provider = provider("default: {replies: ['All is well with your order.'], chunks: 6}").await;
        let server = Server::start(&format!("http://{}/v1", provider.addr())).await;
        let place = Place::empty().with_server(&server.control);
        for version in ["1.0.0", "2.0.0"] {
            place.publishable(version);
        }
        let world = Self { provider, server, place };
        world.does("apply -f 1.0.0.yaml").await;
        world
    }

    /// Runs a command that has to go well.
    async fn does(&self, line: &str) {
        let ran = self.place.run(line).await;
        assert_eq!(ran.code, 0, "`serin {line}`: {ran:?}");
    }

    fn driver(&self, language: Language) -> Driver {
        Driver::start(language, &self.server.data)
    }

    /// The system text of the last request that the provider got.
    fn last_system_text(&self) -> String {
        let last = self.provider.last_request().expect("the provider got a request");
        let body: Value = serde_json::from_slice(&last.body).expect("the gateway sends JSON");
        assert!(body.get("prompt").is_none(), "our own field does not reach the provider: {body}");
        body["messages"][0]["content"].as_str().expect("the first message is text").to_owned()
    }
}

#[tokio::test]
async fn a_prompt_is_filled_in_and_the_answer_comes_back_streamed_or_not() {
    let world = World::with_stable().await;
    for language in LANGUAGES {
        let mut driver = world.driver(language);
        for stream in [false, true] {
            let session = format!("{language:?}-{stream}");
            let told = driver.chat(&session, stream).await;
            assert_eq!(told["text"], "All is well with your order.", "{language:?}: {told}");
            assert_eq!(told["version"], "1.0.0", "{language:?}: {told}");
            assert_eq!((&told["variant"], &told["session"]), (&json!("stable"), &json!(session)), "{told}");
            assert_eq!(told["chunks_without_choices"], 0, "usage that nobody asked for is not shown: {told}");
            assert_eq!(told["chunks"].as_u64().is_some_and(|chunks| chunks > 1), stream, "{told}");
            assert_eq!(world.last_system_text(), "You are version 1.0.0 of the agent of Acme.");
        }
    }
}

#[tokio::test]
async fn a_session_keeps_its_version_over_fifty_turns_while_the_weight_goes_from_10_to_100_and_leaves_it_on_rollback()
 {
    for language in LANGUAGES {
        let world = World::with_stable().await;
        world.does("apply -f 2.0.0.yaml").await;
        let mut driver = world.driver(language);
        let mut kept: BTreeMap<String, String> = BTreeMap::new();
        // At 10 % a canary is found within 300 sessions but for one time in 10^13.
        for session in (0..300).map(|number| format!("user-{number}")) {
            let told = driver.chat(&session, false).await;
            kept.insert(told["version"].as_str().expect("a version is named").to_owned(), session);
            if kept.len() == 2 {
                break;
            }
        }
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["1.0.0", "2.0.0"], "{language:?}");

        for turn in 1..=50 {
            for (version, session) in &kept {
                let told = driver.chat(session, turn % 2 == 0).await;
                assert_eq!(told["version"], *version, "{language:?}, turn {turn} of {session}: {told}");
            }
            // From Observing to 10, 40, 70 and 100 %.
            if turn % 10 == 0 && turn <= 40 {
                world.does("promote support --reason 'next step'").await;
            }
        }
        let status = world.place.run("status support -o json").await.json();
        assert_eq!(status["rollout"]["weight"], 100.0, "{status}");
        let newcomer = driver.chat("newcomer", false).await;
        assert_eq!(newcomer["version"], "2.0.0", "at 100 % every new session gets the canary: {newcomer}");

        world.does("rollback support --reason 'enough'").await;
        for session in kept.values().map(String::as_str).chain(["newcomer", "another"]) {
            let told = driver.chat(session, false).await;
            assert_eq!(told["version"], "1.0.0", "{language:?}, {session} right after the rollback: {told}");
            assert_eq!(world.last_system_text(), "You are version 1.0.0 of the agent of Acme.");
        }
    }
}

#[tokio::test]
async fn errors_of_the_provider_arrive_as_the_errors_that_the_client_knows() {
    let world = World::with_stable().await;
    for language in LANGUAGES {
        let mut driver = world.driver(language);
        for (status, name) in
            [(429, "RateLimitError"), (401, "AuthenticationError"), (500, "InternalServerError")]
        {
            let script = json!({"failure_rate": 1, "failure": {"status": status}}).to_string();
            let ask = json!({
                "do": "chat", "session": "s", "variables": {"company": "Acme"}, "headers": {"x-stand-in-script": script},
            });
            let told = driver.ask(ask).await;
            assert_eq!(
                (&told["error"], &told["status"]),
                (&json!(name), &json!(status)),
                "{language:?}: {told}"
            );
        }
    }
}

#[tokio::test]
async fn a_missing_variable_is_an_error_to_the_caller_and_nothing_reaches_the_model() {
    let world = World::with_stable().await;
    for language in LANGUAGES {
        let before = world.provider.stats().requests;
        let told = world.driver(language).ask(json!({"do": "chat", "session": "s"})).await;
        assert_eq!(told["error"], "UnprocessableEntityError", "{language:?}: {told}");
        assert!(told["message"].as_str().is_some_and(|message| message.contains("company")), "{told}");
        assert_eq!(world.provider.stats().requests, before, "{language:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_cancels_the_call_of_the_provider() {
    let world = World::with_stable().await;
    // Slow enough that leaving comes before the end, by far.
    let script = "default: {replies: ['one two three four five six seven eight nine ten'], chunks: 10, chunk_interval_ms: 3000}";
    world.provider.set_script(Script::parse(script).expect("it is a script"));
    for language in LANGUAGES {
        let before = world.provider.stats();
        let told = world
            .driver(language)
            .ask(json!({"do": "leave", "session": format!("{language:?}"), "variables": {"company": "Acme"}}))
            .await;
        assert!(told["left_after"].is_string(), "{language:?}: {told}");
        let after =
            tokio::time::timeout(DEADLINE, world.provider.stats_when(|stats| stats.in_flight == 0)).await;
        let after = after.expect("the call ends long before its answer would");
        assert_eq!(after.cancelled, before.cancelled + 1, "{language:?}: {after:?}");
        assert_eq!(after.completed, before.completed, "{language:?}: {after:?}");
    }
}

#[tokio::test]
async fn the_stand_in_provider_of_the_command_line_answers_a_client() {
    let mut child = support::serin()
        .args(["provider", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
    let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("it says where it listens");
    let line = line.expect("it writes text").expect("it writes a line");
    let url = line
        .split_whitespace()
        .last()
        .expect("the line ends with the address")
        .trim_end_matches("/v1")
        .to_owned();
    let told = Driver::start(Language::Python, &url).chat("s", false).await;
    assert!(told["text"].is_string(), "{told}");
    // An error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stats = eventually("the counters show the request", async || {
        let stats: Value = reqwest::get(format!("{url}/stand-in/stats")).await.ok()?.json().await.ok()?;
        (stats["completed"] == 1).then_some(stats)
    });
    assert_eq!(stats.await["requests"], 1);
}
