//! The description of the API and the page about it, held against what the server does.

use std::path::Path;

use serde_json::Value;
use serin_server::api::openapi;

use crate::app::{TestApp, canary, stable};
use crate::receiver::Inbox;

#[test]
fn the_description_is_the_one_that_was_reviewed() {
    let mut text = serde_json::to_string_pretty(&openapi()).unwrap();
    text.push('\n');
    insta::assert_snapshot!("openapi", text);
}

#[test]
fn every_operation_is_described() {
    let description = serde_json::to_value(openapi()).unwrap();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(
                operation["summary"].as_str().is_some_and(|text| text.ends_with('.')),
                "{name} has no summary"
            );
            let permission = &operation["x-serin-permission"];
            assert!(permission.is_string(), "{name} is not in the table of `access`");
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(!response["description"].as_str().unwrap().is_empty(), "{name} {status}");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{name}: {}", parameter["name"]);
            }
        }
    }
}

#[tokio::test]
async fn every_path_that_is_described_is_served() {
    let inbox = Inbox::open().await;
    // Nobody listens there; that a sign-in cannot begin is an answer as well.
    let oidc = "oidc: {issuer: 'http://127.0.0.1:9', clientId: serin, redirectUrl: 'http://127.0.0.1:1/oidc/callback', roles: [{value: a, role: viewer}]}\n";
    let settings = format!("{}{oidc}", inbox.settings(""));
    let app = TestApp::start_with_file(&settings).await.with_canary().await;
    let description: Value = app.get("/api/openapi.json").await.json();
    for (path, item) in description["paths"].as_object().unwrap() {
        let at = path
            .replace("{pack}", "support-prompts")
            .replace("{version}", "2.4.0")
            .replace("{id}", "support-prompts-r1")
            .replace("{key}", if path.starts_with("/ofrep/") { "support-prompts" } else { "ci" })
            .replace("{order}", "pause")
            .replace("{receiver}", "oncall")
            .replace("{token}", "none");
        let is_data = ["/v1/", "/ofrep/", "/otlp/"].iter().any(|plane| path.starts_with(plane));
        let to = if is_data { app.server.data_addr() } else { app.server.control_addr() };
        for method in item.as_object().unwrap().keys() {
            if path == "/api/v1/keys/{key}" {
                let headers = [("content-type", "application/json")];
                let body = r#"{"name": "ci", "role": "viewer"}"#;
                assert_eq!(app.send(to, "POST", "/api/v1/keys", &headers, body).await.status, 201);
            }
            // Headers are enough: the stream never ends.
            let answer = app.open(to, &method.to_uppercase(), &at, &[], "").await;
            assert!(![404, 405].contains(&answer.status().as_u16()), "{method} {path}: {}", answer.status());
        }
    }
}

/// Every command of the page is sent as it stands; only the addresses are those of the test.
#[tokio::test]
async fn the_commands_of_the_page_do_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let page = std::fs::read_to_string(&page).unwrap();
    let app = TestApp::start().await;
    let mut sent = 0;
    for block in page.split("```sh\n").skip(1) {
        // A quoted body may go on in the next line; a command begins at the start of one.
        for command in block.split("```").next().unwrap().split("curl ").skip(1) {
            let (method, url, body) = request(command);
            let to = if url.contains(":8980/") { app.server.data_addr() } else { app.server.control_addr() };
            let path = &url[url.find('/').unwrap()..];
            let answer = app
                .open(
                    to,
                    &method,
                    path,
                    &[("content-type", "application/json"), ("x-serin-actor", "ana")],
                    body,
                )
                .await;
            assert!(answer.status().is_success(), "{command}: {}", answer.status());
            sent += 1;
        }
    }
    assert!(sent >= 8, "{sent} commands were found");
}

/// Method, address without its scheme, and body of a curl command with single quotes.
fn request(command: &str) -> (String, String, String) {
    let mut words = Vec::new();
    let command = command.replace("\"authorization: Bearer $SERIN_KEY\"", "'authorization: Bearer KEY'");
    for (index, part) in command.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(ToOwned::to_owned));
        }
    }
    let (mut method, mut url, mut body) = (None, None, String::new());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-X" => method = words.next(),
            "-H" => drop(words.next()),
            "-d" | "--data-binary" => body = words.next().unwrap(),
            "-s" | "-N" => {}
            word => url = Some(word.to_owned()),
        }
    }
    body = match body.as_str() {
        "@support-prompts-2.3.1.yaml" => stable(),
        "@support-prompts-2.4.0.yaml" => canary(),
        _ => body,
    };
    let method = method.unwrap_or_else(|| if body.is_empty() { "GET".to_owned() } else { "POST".to_owned() });
    (method, url.unwrap(), body)
}
