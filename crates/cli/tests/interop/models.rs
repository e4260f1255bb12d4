//! OpenAI's Responses and Anthropic's Messages with the official packages of PyPI and npm, through the gateway.

use serde_json::{Value, json};
use serin_provider::{Provider, Script};

use super::driver::Driver;
use crate::support::{DEADLINE, Place, Server, provider};

const SCRIPTS: [&str; 2] = ["python/models.py", "node/models.mjs"];
const APIS: [&str; 2] = ["responses", "messages"];
const TEXT: &str = "All is well with your order.";

/// A provider, and a server in front of it that has version 1.0.0 of the pack `support`.
struct World {
    provider: Provider,
    server: Server,
    _place: Place,
}

impl World {
    async fn start() -> Self {
        super::tls();
        let provider = provider(&format!("default: {{replies: ['{TEXT}'], chunks: 6}}")).await;
        let server = Server::start(&format!("http://{}/v1", provider.addr())).await;
        let place = Place::empty().with_server(&server.control);
        place.publishable("1.0.0");
        let applied = place.run("apply -f 1.0.0.yaml").await;
        assert_eq!(applied.code, 0, "{applied:?}");
        Self { provider, server, _place: place }
    }

    fn driver(&self, script: &'static str) -> Driver {
        Driver::start(script, &[&self.server.data])
    }

    /// The body of the last request that the provider got.
    fn received(&self) -> Value {
        let last = self.provider.last_request().expect("the provider got a request");
        serde_json::from_slice(&last.body).expect("the gateway sends JSON")
    }
}

/// What a driver is asked to do, with the one variable that the prompt needs.
fn ask(api: &str, more: Value) -> Value {
    let mut ask = json!({"do": "ask", "api": api, "session": "s", "variables": {"company": "Acme"}});
    ask.as_object_mut().expect("it is an object").extend(more.as_object().expect("it is one too").clone());
    ask
}

#[tokio::test]
async fn a_prompt_is_filled_in_and_the_answer_comes_back_streamed_or_not() {
    let world = World::start().await;
    for script in SCRIPTS {
        let mut driver = world.driver(script);
        for api in APIS {
            for stream in [false, true] {
                let told = driver.ask(ask(api, json!({ "stream": stream }))).await;
                assert_eq!(
                    (&told["text"], &told["version"]),
                    (&json!(TEXT), &json!("1.0.0")),
                    "{script} {api}: {told}"
                );
                assert_eq!((&told["variant"], &told["session"]), (&json!("stable"), &json!("s")), "{told}");
                let ended = if api == "responses" { "completed" } else { "end_turn" };
                assert_eq!(
                    (&told["ended"], told["tokens"].as_u64() > Some(0)),
                    (&json!(ended), true),
                    "{told}"
                );
                assert_eq!(told["events"].as_u64() > Some(5), stream, "{told}");
                let received = world.received();
                let member = if api == "responses" { "instructions" } else { "system" };
                assert_eq!(received[member], "You are version 1.0.0 of the agent of Acme.", "{received}");
                assert!(received.get("prompt").is_none(), "{received}");
            }
        }
    }
}

#[tokio::test]
async fn tools_are_offered_and_called() {
    let world = World::start().await;
    let calls = json!({"tool_call_rate": 1, "tool_calls": [{"name": "search", "arguments": {"q": "shoes"}}]});
    for script in SCRIPTS {
        let mut driver = world.driver(script);
        for api in APIS {
            for stream in [false, true] {
                let headers = json!({"x-stand-in-script": calls.to_string()});
                let told =
                    driver.ask(ask(api, json!({"stream": stream, "tools": true, "headers": headers}))).await;
                assert_eq!(told["calls"], json!([["search", {"q": "shoes"}]]), "{script} {api}: {told}");
                assert_eq!(world.received()["tools"][0]["name"], "search", "{script} {api}");
            }
        }
    }
}

#[tokio::test]
async fn errors_arrive_as_the_errors_that_the_client_knows_before_and_inside_of_an_answer() {
    let world = World::start().await;
    for script in SCRIPTS {
        let mut driver = world.driver(script);
        for (api, status, names) in [
            ("responses", 429, ["RateLimitError", "RateLimitError"]),
            ("responses", 401, ["AuthenticationError", "AuthenticationError"]),
            ("messages", 429, ["RateLimitError", "RateLimitError"]),
            ("messages", 529, ["OverloadedError", "InternalServerError"]),
        ] {
            let failing = json!({"failure_rate": 1, "failure": {"status": status}});
            let headers = json!({"x-stand-in-script": failing.to_string()});
            let told = driver.ask(ask(api, json!({ "headers": headers }))).await;
            assert!(names.iter().any(|name| told["error"] == *name), "{script} {api} {status}: {told}");
            assert_eq!(told["status"], status, "{script} {api}: {told}");
        }
        // An error in the middle of a stream of status 200 is an error to Anthropic's clients.
        let failing = json!({"failure_rate": 1, "failure": {"status": 529, "at": "middle"}});
        let headers = json!({"x-stand-in-script": failing.to_string()});
        let told = driver.ask(ask("messages", json!({"stream": true, "headers": headers}))).await;
        assert!(
            told["message"].as_str().is_some_and(|message| message.contains("verloaded")),
            "{script}: {told}"
        );
        // A missing variable never reaches the model, and says what is missing.
        for api in APIS {
            let told = driver.ask(ask(api, json!({"variables": {}}))).await;
            assert_eq!(
                (&told["error"], &told["status"]),
                (&json!("UnprocessableEntityError"), &json!(422)),
                "{told}"
            );
            assert!(told["message"].as_str().is_some_and(|message| message.contains("company")), "{told}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_cancels_the_call_of_the_provider() {
    let world = World::start().await;
    // Slow enough that leaving comes before the end, by far.
    let slow = "default: {replies: ['one two three four five six seven eight nine ten'], chunks: 10, chunk_interval_ms: 3000}";
    world.provider.set_script(Script::parse(slow).expect("it is a script"));
    for script in SCRIPTS {
        let mut driver = world.driver(script);
        for api in APIS {
            let before = world.provider.stats();
            let told = driver.ask(ask(api, json!({"do": "leave"}))).await;
            assert!(told["left_after"].is_string(), "{script} {api}: {told}");
            let after = world.provider.stats_when(|stats| stats.in_flight == 0);
            let after =
                tokio::time::timeout(DEADLINE, after).await.expect("the call ends long before its answer");
            assert_eq!(after.cancelled, before.cancelled + 1, "{script} {api}: {after:?}");
        }
    }
}
