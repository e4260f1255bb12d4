//! What each operation asks of its caller: one table, from which the guard and the description both read.

use axum::http::Method;
use serde_json::json;
use serin_core::access::Permission;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response};

use super::error::PROBLEM_JSON;

/// The cookie of a session of the dashboard.
pub(super) const COOKIE: &str = "serin_session";
/// Where an operation of the description says what it needs.
pub(super) const PERMISSION: &str = "x-serin-permission";

/// What an operation asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing.
    Nothing,
    /// One permission.
    One(Permission),
    /// The permission that is named as the order is, in the last segment of the path.
    Order,
    /// To read, once the listener can be reached from other machines.
    ReadBeyondLoopback,
}

use Needs::{Nothing, One, Order, ReadBeyondLoopback};
use Permission::{Alerts, Apply, Data, Keys, Read, ReadPrompts};

/// Every operation; one that is missing here is for admins only, and a test names it.
const TABLE: &[(&str, &str, Needs)] = &[
    ("GET", "/healthz", Nothing),
    ("GET", "/readyz", Nothing),
    ("GET", "/metrics", ReadBeyondLoopback),
    // The token of a signed link is all that it needs.
    ("GET", "/link/{token}", Nothing),
    ("POST", "/link/{token}", Nothing),
    // Whoever signs in has nothing yet.
    ("GET", "/oidc/sign-in", Nothing),
    ("GET", "/oidc/callback", Nothing),
    ("GET", "/api/openapi.json", One(Read)),
    ("GET", "/api/v1/overview", One(Read)),
    ("GET", "/api/v1/packs", One(Read)),
    ("PUT", "/api/v1/packs", One(Apply)),
    ("GET", "/api/v1/packs/{pack}", One(Read)),
    ("GET", "/api/v1/packs/{pack}/sessions", One(Read)),
    ("GET", "/api/v1/packs/{pack}/versions", One(Read)),
    ("GET", "/api/v1/packs/{pack}/versions/{version}", One(ReadPrompts)),
    ("GET", "/api/v1/packs/{pack}/diff", One(ReadPrompts)),
    ("GET", "/api/v1/packs/{pack}/rollout", One(Read)),
    ("POST", "/api/v1/packs/{pack}/rollout/{order}", Order),
    ("GET", "/api/v1/packs/{pack}/explain", One(Read)),
    ("GET", "/api/v1/packs/{pack}/samples", One(ReadPrompts)),
    ("GET", "/api/v1/rollouts", One(Read)),
    ("GET", "/api/v1/rollouts/{id}", One(Read)),
    ("GET", "/api/v1/rollouts/{id}/checks", One(Read)),
    ("GET", "/api/v1/rollouts/{id}/timeline", One(Read)),
    ("GET", "/api/v1/rollouts/{id}/exposure", One(Read)),
    ("GET", "/api/v1/rollouts/{id}/exposure/sessions", One(Read)),
    ("GET", "/api/v1/rollouts/{id}/samples", One(ReadPrompts)),
    ("GET", "/api/v1/rollouts/{id}/series", One(Read)),
    ("GET", "/api/v1/rollouts/{id}/replay", One(Read)),
    ("GET", "/api/v1/policy", One(Read)),
    ("GET", "/api/v1/oncall", One(Read)),
    ("GET", "/api/v1/audit", One(Read)),
    ("GET", "/api/v1/audit/verify", One(Read)),
    ("GET", "/api/v1/audit/export", One(Read)),
    ("GET", "/api/v1/stream", One(Read)),
    ("GET", "/api/v1/notify/receivers", One(Keys)),
    ("POST", "/api/v1/notify/receivers/{receiver}/test", One(Keys)),
    ("GET", "/api/v1/notify/dead", One(Keys)),
    ("POST", "/api/v1/notify/dead/retry", One(Keys)),
    ("GET", "/api/v1/alerts", One(Read)),
    ("POST", "/api/v1/alerts", One(Alerts)),
    ("GET", "/api/v1/keys", One(Keys)),
    ("POST", "/api/v1/keys", One(Keys)),
    ("DELETE", "/api/v1/keys/{key}", One(Keys)),
    ("GET", "/api/v1/session", Nothing),
    ("POST", "/api/v1/session", Nothing),
    ("DELETE", "/api/v1/session", Nothing),
    ("GET", "/api/v1/whoami", One(Read)),
    ("POST", "/v1/resolve", One(Data)),
    ("POST", "/v1/events", One(Data)),
    ("POST", "/ofrep/v1/evaluate/flags", One(Data)),
    ("POST", "/ofrep/v1/evaluate/flags/{key}", One(Data)),
    ("GET", "/ofrep/v1/events", One(Data)),
    ("POST", "/otlp/v1/traces", One(Data)),
    ("POST", "/otlp/v1/logs", One(Data)),
];

fn entry(method: &str, path: &str) -> Option<Needs> {
    let is_it = |(known, at, _): &&(&str, &str, Needs)| *known == method && *at == path;
    TABLE.iter().find(is_it).map(|(_, _, needs)| *needs)
}

/// What a request needs, by the path as the router knows it; nothing where the router knows none.
///
/// What is not below `/api/` and not in the table belongs to the dashboard's files, which hold no secrets.
pub(super) fn needs(method: &Method, route: Option<&str>, path: &str) -> Needs {
    // The answer to HEAD is the head of the answer to GET.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    match route {
        // Browsers ask without any key whether a page of theirs may ask.
        Some(route) if method == "OPTIONS" && route.starts_with("/ofrep/") => Nothing,
        Some(route) => match entry(method, route) {
            Some(needs) => needs,
            None => match TABLE.iter().find(|(_, at, _)| *at == route) {
                // A method that the path does not have is told to whoever may use one that it has.
                Some((_, _, needs)) => *needs,
                None => One(Keys),
            },
        },
        None if path.starts_with("/api/") || path == "/api" => One(Read),
        None => Nothing,
    }
}

/// Writes into the description what each operation needs, and what it answers to those who do not have it.
pub(super) fn describe(openapi: &mut OpenApi) {
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A key."));
    let cookie = ApiKeyValue::with_description(COOKIE, "The cookie that `POST /api/v1/session` sets.");
    let components = openapi.components.get_or_insert_default();
    components.add_security_scheme("key", SecurityScheme::Http(key.build()));
    components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    for (path, item) in &mut openapi.paths.paths {
        let operations = [
            ("GET", &mut item.get),
            ("PUT", &mut item.put),
            ("POST", &mut item.post),
            ("DELETE", &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                annotate(operation, method, path);
            }
        }
    }
}

fn annotate(operation: &mut Operation, method: &str, path: &str) {
    let needs = entry(method, path);
    let word = match needs {
        None => json!(null),
        Some(Nothing) => json!("none"),
        Some(One(permission)) => json!(permission.as_str()),
        Some(Order) => json!("order"),
        Some(ReadBeyondLoopback) => json!("read_beyond_loopback"),
    };
    operation
        .extensions
        .get_or_insert_default()
        .merge(ExtensionsBuilder::new().add(PERMISSION, word).build());
    let is_of_api = path.starts_with("/api/");
    if is_of_api {
        problem(operation, "400", "The request cannot be read.");
    }
    if needs == Some(Nothing) {
        operation.security = Some(Vec::new());
    } else {
        let none: [&str; 0] = [];
        let mut schemes = vec![SecurityRequirement::new("key", none)];
        if is_of_api {
            schemes.push(SecurityRequirement::new("session", none));
        }
        operation.security = Some(schemes);
        problem(operation, "429", "The key was used too fast; `Retry-After` says how long to wait.");
        problem(operation, "401", "No key, or one that is not known or no longer good.");
        problem(
            operation,
            "403",
            "The key is not good for this, or the request comes from where it may not.",
        );
    }
}

/// Adds an answer, unless the operation describes it already.
fn problem(operation: &mut Operation, status: &str, description: &str) {
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| {
        let schema = RefOr::Ref(Ref::from_schema_name("ProblemDetails"));
        let mut response = Response::new(description);
        response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(Content::new(Some(schema))));
        RefOr::T(response)
    });
}
