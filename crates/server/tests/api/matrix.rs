//! The access matrix: every operation of the description, asked for with every kind of key and with none.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use serin_core::access::{Permission, Role};
use serin_server::api::openapi;
use serin_server::auth::ADMIN_KEY_FILE;

use crate::app::{TestApp, canary, stable};

/// Whoever asks.
struct Asker {
    name: String,
    key: Option<String>,
    /// What a key that is good for anything brings; nothing for one that is good for nothing.
    role: Option<Role>,
    is_for_other_pack: bool,
}

/// One operation as it is asked for.
struct Operation {
    method: String,
    path: String,
    needs: String,
    /// Whether the path names a pack or a rollout of one.
    names_pack: bool,
    /// Whether it reaches beyond any pack.
    is_of_all_packs: bool,
    is_data: bool,
    body: String,
}

fn operations() -> Vec<Operation> {
    let description = serde_json::to_value(openapi()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase();
            let needs = operation["x-serin-permission"].as_str();
            let needs = needs.unwrap_or_else(|| panic!("{method} {path} is missing in the table of access"));
            let orders = match path.contains("{order}") {
                true => &["pause", "resume", "approve", "promote", "rollback", "retry"][..],
                false => &[""],
            };
            for order in orders {
                let at = path.replace("{order}", order);
                let needs = if needs == "order" { order } else { needs };
                operations.push(operation_of(&method, &at, needs));
            }
        }
    }
    // What the gateway passes on is described by its provider, and belongs to no pack.
    for (method, path) in [("POST", "/v1/chat/completions"), ("POST", "/v1/messages"), ("GET", "/v1/models")]
    {
        operations.push(operation_of(method, path, "data"));
    }
    operations
}

fn operation_of(method: &str, path: &str, needs: &str) -> Operation {
    let is_data = ["/v1/", "/ofrep/", "/otlp/"].iter().any(|plane| path.starts_with(plane));
    let body = match (method, path) {
        ("PUT", "/api/v1/packs") => canary(),
        ("POST", "/v1/resolve") => json!({"pack": "support-prompts", "session": "s"}).to_string(),
        ("POST", "/ofrep/v1/evaluate/flags/{key}") => json!({"context": {"targetingKey": "s"}}).to_string(),
        _ => String::new(),
    };
    Operation {
        method: method.to_owned(),
        path: path.to_owned(),
        needs: needs.to_owned(),
        names_pack: path.contains("{pack}") || path.contains("{id}") || !body.is_empty(),
        is_of_all_packs: path.starts_with("/otlp/")
            || path == "/api/v1/audit/export"
            || ["/v1/chat/completions", "/v1/messages", "/v1/models"].contains(&path),
        is_data,
        body,
    }
}

impl Operation {
    /// What the rules say: 401, 403, or nothing where the request goes on to be answered.
    fn refusal(&self, asker: &Asker) -> Option<u16> {
        // The address of the listener is loopback.
        if ["none", "read_beyond_loopback"].contains(&self.needs.as_str()) {
            return None;
        }
        let Some(role) = asker.role else { return Some(401) };
        let permission = Permission::parse(&self.needs).unwrap_or_else(|| panic!("{}", self.needs));
        let reaches_further = self.names_pack || self.is_of_all_packs || permission == Permission::Keys;
        let may = role.may(permission) && !(asker.is_for_other_pack && reaches_further);
        (!may).then_some(403)
    }
}

async fn askers(app: &TestApp) -> Vec<Asker> {
    let admin = std::fs::read_to_string(app.data_dir().join(ADMIN_KEY_FILE)).unwrap().trim().to_owned();
    let authorization = format!("Bearer {admin}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let to = app.server.control_addr();
    for manifest in [stable(), canary()] {
        assert_eq!(app.send(to, "PUT", "/api/v1/packs", &headers, manifest).await.status, 200);
    }
    let make = async |name: &str, request: Value| {
        let mut request = request;
        request["name"] = json!(name);
        let made = app.send(to, "POST", "/api/v1/keys", &headers, request.to_string()).await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()["key"].as_str().unwrap().to_owned()
    };
    let asker = |name: &str, key: Option<String>, role: Option<Role>, is_for_other_pack: bool| Asker {
        name: name.to_owned(),
        key,
        role,
        is_for_other_pack,
    };
    let wrong = format!("serin_{}", "a".repeat(52));
    let expired = make("expired", json!({"role": "admin", "expires_in": "1h"})).await;
    let mut askers = vec![
        asker("no key", None, None, false),
        asker("wrong", Some(wrong), None, false),
        asker("expired", Some(expired), None, false),
    ];
    for other in [false, true] {
        for role in Role::ALL {
            let name = if other { format!("{role} of other") } else { role.to_string() };
            let packs = if other { json!(["other"]) } else { Value::Null };
            let key =
                make(&format!("a-{name}").replace(' ', "-"), json!({"role": role.as_str(), "packs": packs}))
                    .await;
            askers.push(asker(&name, Some(key), Some(*role), other));
        }
    }
    app.clock.set(app.clock.now() + Duration::from_secs(2 * 3_600));
    askers
}

#[tokio::test]
async fn every_operation_answers_those_who_may_and_nobody_else() {
    let app = TestApp::start_with(&[("SERIN_CONTROL_OPEN", "false"), ("SERIN_DATA_KEYS", "required")]).await;
    let askers = askers(&app).await;
    let mut table = String::new();
    let mut wrong = Vec::new();
    for operation in operations() {
        let path = operation
            .path
            .replace("{pack}", "support-prompts")
            .replace("{version}", "2.4.0")
            .replace("{id}", "support-prompts-r1")
            .replace("/flags/{key}", "/flags/support-prompts")
            .replace("{key}", "nobodys")
            .replace("{receiver}", "oncall")
            .replace("{token}", "none");
        let to = if operation.is_data { app.server.data_addr() } else { app.server.control_addr() };
        writeln!(table, "{} {} ({})", operation.method, operation.path, operation.needs).unwrap();
        for asker in &askers {
            let mut headers = vec![("content-type", "application/json")];
            headers.extend(asker.key.as_deref().map(|key| ("x-serin-key", key)));
            // The head of the answer is enough: streams never end.
            let answer = app.open(to, &operation.method, &path, &headers, operation.body.clone()).await;
            let status = answer.status().as_u16();
            writeln!(table, "    {:18} {status}", asker.name).unwrap();
            let refused = [401, 403].contains(&status).then_some(status);
            // A link that was not made here is refused with its own page, whoever asks.
            let expected = if path.starts_with("/link/") { Some(403) } else { operation.refusal(asker) };
            if refused != expected {
                let name = &asker.name;
                wrong.push(format!("{} {path} with {name}: {status}, not {expected:?}", operation.method));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    insta::assert_snapshot!("access_matrix", table);
}
