//! The tools of a pack, with the official packages of PyPI and npm in front of every protocol.

use serde_json::{Value, json};
use serin_provider::Provider;

use super::driver::Driver;
use crate::support::{self, Place, Server, eventually, provider};

const SCRIPTS: [&str; 2] = ["python/models.py", "node/models.mjs"];
const APIS: [&str; 3] = ["chat", "responses", "messages"];

/// Half of the sessions get the canary, which is judged by its tool calls at once.
const MANIFEST: &str = r#"apiVersion: omnia.altairalabs.ai/v1alpha1
kind: PromptPack
metadata:
  name: support
spec:
  version: "2.0.0"
  source:
    file: support-2.0.0.pack.json
  rollout:
    steps:
      - {weight: 50, hold: 1h}
      - {weight: 100, hold: 1h}
    analysis:
      interval: 1s
      metrics:
        - {name: tool_call_accuracy, threshold: 10%, comparison: ">=", maturity: 0s}
"#;

const DESCRIPTION: &str = "Finds an order by its number.";

/// What the arguments of `lookup_order` have to fit.
fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"order": {"type": "string", "pattern": "^[A-Z]-[0-9]+$"}},
        "required": ["order"],
        "additionalProperties": false,
    })
}

/// Version 2.0.0 with a tool that it offers, one that its policy blocks, and a tool of the app's that is blocked too.
fn pack_with_tools() -> String {
    let mut pack: Value = serde_json::from_str(&support::pack("2.0.0")).expect("a pack is JSON");
    let tool = |name: &str, parameters: Value| json!({"name": name, "description": DESCRIPTION, "parameters": parameters});
    pack["tools"] = json!({
        "lookup_order": tool("lookup_order", schema()),
        "delete_account": tool("delete_account", json!({"type": "object"})),
    });
    let prompt = &mut pack["prompts"]["answer"];
    prompt["tools"] = json!(["lookup_order", "delete_account"]);
    prompt["tool_policy"] = json!({"blocklist": ["delete_account", "search"]});
    pack.to_string()
}

/// `lookup_order` as each protocol writes it.
fn offered(api: &str) -> Value {
    match api {
        "chat" => json!({
            "type": "function",
            "function": {"name": "lookup_order", "description": DESCRIPTION, "parameters": schema()},
        }),
        "responses" => json!({
            "type": "function", "name": "lookup_order", "description": DESCRIPTION, "parameters": schema(), "strict": false,
        }),
        "messages" => json!({"name": "lookup_order", "description": DESCRIPTION, "input_schema": schema()}),
        other => panic!("{other} is none of {APIS:?}"),
    }
}

/// A provider, and a server in front of it where 1.0.0 has no tools and 2.0.0 is tried with some.
struct World {
    provider: Provider,
    server: Server,
    _place: Place,
}

impl World {
    async fn start() -> Self {
        super::tls();
        let provider = provider("{}").await;
        let server = Server::start(&format!("http://{}/v1", provider.addr())).await;
        let place = Place::empty().with_server(&server.control);
        place.publishable("1.0.0");
        place.write("2.0.0.yaml", MANIFEST);
        place.write("support-2.0.0.pack.json", &pack_with_tools());
        for version in ["1.0.0", "2.0.0"] {
            let applied = place.run(&format!("apply -f {version}.yaml")).await;
            assert_eq!(applied.code, 0, "{applied:?}");
        }
        Self { provider, server, _place: place }
    }

    /// The tools in the last request that the provider got.
    fn tools_received(&self) -> Value {
        let last = self.provider.last_request().expect("the provider got a request");
        let body: Value = serde_json::from_slice(&last.body).expect("the gateway sends JSON");
        body["tools"].clone()
    }

    /// Asks with new sessions until one of them gets a version; what that one is told.
    async fn ask(&self, driver: &mut Driver, version: &str, ask: &Value) -> Value {
        // At 50 % a version is found within 60 sessions but for one time in 10^18.
        for n in 0..60 {
            let mut ask = ask.clone();
            ask["session"] = json!(format!("{}-{n}", ask["session"].as_str().expect("it is text")));
            if self.version_of(&ask["session"]).await != version {
                continue;
            }
            let told = driver.ask(ask).await;
            assert_eq!(told["version"], version, "{told}");
            return told;
        }
        panic!("none of 60 sessions gets {version}");
    }

    async fn version_of(&self, session: &Value) -> String {
        let asked = reqwest::Client::new().post(format!("{}/v1/resolve", self.server.data));
        let told = asked.json(&json!({"pack": "support", "session": session})).send().await;
        let told: Value = told.expect("the server answers").json().await.expect("in JSON");
        told["version"].as_str().expect("with a version").to_owned()
    }

    /// The accuracy of the canary's tool calls, as soon as it rests on so many sessions.
    async fn accuracy_of(&self, sessions: u64) -> Value {
        let url = format!("{}/api/v1/packs/support/rollout", self.server.control);
        eventually("the tool calls are evidence", async || {
            let view: Value = reqwest::get(&url).await.ok()?.json().await.ok()?;
            let metrics = view["metrics"].as_array()?;
            let accuracy = metrics.iter().find(|metric| metric["metric"] == "tool_call_accuracy")?;
            (accuracy["canary_samples"] == sessions).then(|| accuracy.clone())
        })
        .await
    }
}

#[tokio::test]
async fn tools_of_a_version_are_offered_in_every_protocol_and_calls_that_do_not_fit_are_evidence_against_it()
{
    let world = World::start().await;
    let fitting = json!({"order": "A-17"});
    let (mut n_right, mut n_wrong) = (0, 0);
    for script in SCRIPTS {
        let mut driver = Driver::start(script, &[&world.server.data]);
        for api in APIS {
            for stream in [false, true] {
                for arguments in [&fitting, &fitting, &json!({"order": 17})] {
                    let calls = json!({"tool_call_rate": 1, "tool_calls": [{"name": "lookup_order", "arguments": arguments}]});
                    let ask = json!({
                        "do": "ask", "api": api, "stream": stream, "variables": {"company": "Acme"},
                        "session": format!("{script}-{api}-{stream}-{n_right}-{n_wrong}"),
                        "headers": {"x-stand-in-script": calls.to_string()},
                    });
                    let told = world.ask(&mut driver, "2.0.0", &ask).await;
                    assert_eq!(told["calls"], json!([["lookup_order", arguments]]), "{script} {api}: {told}");
                    assert_eq!(world.tools_received(), json!([offered(api)]), "{script} {api}");
                    if arguments == &fitting {
                        n_right += 1;
                    } else {
                        n_wrong += 1;
                    }
                }
            }
        }
    }
    let accuracy = world.accuracy_of(n_right + n_wrong).await;
    assert_eq!((n_right, n_wrong, &accuracy["canary_shown"]), (24, 12, &json!("66.7%")), "{accuracy}");
}

#[tokio::test]
async fn a_tool_that_the_policy_blocks_reaches_no_provider_whoever_offers_it() {
    let world = World::start().await;
    for script in SCRIPTS {
        let mut driver = Driver::start(script, &[&world.server.data]);
        for api in APIS {
            let ask = json!({
                "do": "ask", "api": api, "tools": true, "variables": {"company": "Acme"},
                "session": format!("{script}-{api}"), "headers": {},
            });
            // The app offers `search`: 1.0.0 leaves that to it, 2.0.0 has a tool of its own in its place.
            world.ask(&mut driver, "1.0.0", &ask).await;
            let tools = world.tools_received();
            let named =
                |tool: &Value| tool["name"].as_str().or(tool["function"]["name"].as_str()) == Some("search");
            assert!(tools.as_array().is_some_and(|tools| tools.len() == 1 && named(&tools[0])), "{tools}");
            world.ask(&mut driver, "2.0.0", &ask).await;
            assert_eq!(world.tools_received(), json!([offered(api)]), "{script} {api}");
        }
    }
}
