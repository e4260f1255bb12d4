//! Signing in to the running program at a real identity provider: panva's certified oidc-provider.
//!
//! A browser is played by an HTTP client that keeps cookies and follows nothing by itself. `scripts/setup.sh test`
//! installs the provider.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Stdio;

use reqwest::header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use support::{Place, Server, eventually, repository};

const SECRET: &str = "a-secret-of-the-tests";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The identity provider.
struct Identity {
    url: String,
    child: Child,
}

impl Identity {
    async fn start(redirect: &str) -> Self {
        let folder = repository("crates/cli/tests/oidc");
        assert!(
            folder.join("node_modules").exists(),
            "the identity provider is not there: run `make test`, which installs it"
        );
        let port = free_port();
        let mut child = Command::new("node")
            .arg(folder.join("provider.mjs"))
            .args([&port.to_string(), redirect])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node is installed");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        loop {
            let line = lines.next_line().await.expect("it writes text").expect("it says when it is ready");
            if line.starts_with("ready at ") {
                break;
            }
        }
        // What else it says is read away, so that it always has somebody to say it to.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { url: format!("http://127.0.0.1:{port}"), child }
    }
}

/// A browser as far as signing in goes.
#[derive(Clone)]
struct Browser {
    http: reqwest::Client,
    /// Cookies by port, then by name.
    cookies: BTreeMap<u16, BTreeMap<String, String>>,
}

/// An answer, read in full.
struct Page {
    status: StatusCode,
    location: Option<String>,
    set_cookies: Vec<String>,
    text: String,
}

impl Browser {
    fn new() -> Self {
        // An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { http: http.build().expect("a client can be made"), cookies: BTreeMap::new() }
    }

    async fn get(&mut self, url: &str) -> Page {
        self.send(url, self.http.get(url)).await
    }

    async fn post(&mut self, url: &str, form: &'static str) -> Page {
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        self.send(url, request.body(form)).await
    }

    /// Asks the API as the dashboard does.
    async fn api(&mut self, control: &str, method: Method, path: &str, body: Option<Value>) -> Page {
        let url = format!("{control}{path}");
        let request = self.http.request(method, &url).header(ORIGIN, control);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        self.send(&url, request).await
    }

    async fn send(&mut self, url: &str, request: RequestBuilder) -> Page {
        let port = reqwest::Url::parse(url).expect("an address").port().expect("with a port");
        let jar = self.cookies.entry(port).or_default();
        let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header(COOKIE, cookies.join("; ")).send().await.expect("somebody answers");
        let headers = answer.headers().clone();
        let text = |value: &reqwest::header::HeaderValue| value.to_str().expect("text").to_owned();
        let set_cookies: Vec<String> = headers.get_all(SET_COOKIE).iter().map(text).collect();
        for cookie in &set_cookies {
            let (name, value) =
                cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            match value {
                "" => drop(jar.remove(name)),
                value => drop(jar.insert(name.to_owned(), value.to_owned())),
            }
        }
        let status = answer.status();
        Page {
            status,
            location: headers.get(LOCATION).map(text),
            set_cookies,
            text: answer.text().await.unwrap(),
        }
    }

    /// Goes from Serin to the provider, signs in there, and comes to where the provider sends people back to.
    async fn back_from(&mut self, control: &str, identity: &str, login: &'static str) -> String {
        let begun = self.get(&format!("{control}/oidc/sign-in")).await;
        assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.text);
        let mut at = begun.location.expect("to the provider");
        let callback = format!("{control}/oidc/callback");
        for _ in 0..10 {
            if at.starts_with(&callback) {
                return at;
            }
            let page = self.get(&at).await;
            let page = match page.location {
                Some(_) => page,
                // The pages of the provider: who one is, and whether Serin may know that.
                None if page.text.contains("value=\"login\"") => self.post(&at, login).await,
                None => self.post(&at, "prompt=consent").await,
            };
            let location = page.location.unwrap_or_else(|| panic!("nowhere to go on: {}", page.text));
            at = if location.starts_with('/') { format!("{identity}{location}") } else { location };
        }
        panic!("the provider does not come to an end");
    }

    fn has_session(&self) -> bool {
        self.cookies.values().any(|jar| jar.contains_key("serin_session"))
    }
}

struct World {
    server: Server,
    identity: Identity,
    place: Place,
}

/// A server whose settings know the people of a provider, with a canary of the pack `support` under way.
async fn world() -> World {
    let place = Place::empty();
    place.publishable("1.0.0");
    place.publishable("2.0.0");
    let port = free_port();
    let control = format!("http://127.0.0.1:{port}");
    let identity = Identity::start(&format!("{control}/oidc/callback")).await;
    place.write(
        "serin.yaml",
        &format!(
            "control: {{publicUrl: '{control}'}}
oidc:
  issuer: {}
  clientId: serin
  clientSecretEnv: OIDC_SECRET
  label: the test provider
  scopes: [email, groups]
  roles:
  - {{value: sre, role: operator}}
  - {{value: 'prompts-*', role: engineer, packs: [support]}}
",
            identity.url
        ),
    );
    let settings = place.path("serin.yaml").display().to_string();
    let server = Server::start_on(&place, port, &["--settings", &settings], &[("OIDC_SECRET", SECRET)]).await;
    assert_eq!(server.control, control);
    let place = place.with_server(&control);
    for version in ["1.0.0", "2.0.0"] {
        let ran = place.run(&format!("apply -f {version}.yaml")).await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    World { server, identity, place }
}

const ANA: &str = "prompt=login&login=ana&password=x";

#[tokio::test]
async fn a_person_signs_in_does_what_the_role_allows_and_stands_in_the_audit_log() {
    let World { server, identity, place } = world().await;
    let control = server.control.clone();
    let mut ana = Browser::new();
    let ways: Value =
        serde_json::from_str(&ana.api(&control, Method::GET, "/api/v1/session", None).await.text).unwrap();
    assert_eq!(ways, json!({"oidc": {"label": "the test provider", "path": "/oidc/sign-in"}}));

    let back = ana.back_from(&control, &identity.url, ANA).await;
    let signed_in = ana.get(&back).await;
    assert_eq!((signed_in.status, signed_in.location.as_deref()), (StatusCode::SEE_OTHER, Some("/")));
    let session = signed_in.set_cookies.iter().find(|cookie| cookie.starts_with("serin_session=")).unwrap();
    assert!(session.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{session}");

    let who: Value =
        serde_json::from_str(&ana.api(&control, Method::GET, "/api/v1/whoami", None).await.text).unwrap();
    assert_eq!(
        (&who["name"], &who["role"], &who["source"]),
        (&json!("ana@example.com"), &json!("operator"), &json!("person"))
    );
    let pause = "/api/v1/packs/support/rollout/pause";
    let reason = || Some(json!({"reason": "looking"}));
    assert_eq!(ana.api(&control, Method::POST, pause, reason()).await.status, StatusCode::OK);
    let refused = ana.api(&control, Method::GET, "/api/v1/keys", None).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.text.contains("\\\"ana@example.com\\\" has the role operator"), "{}", refused.text);
    // A page of another site cannot use the cookie.
    let elsewhere = ana.http.post(format!("{control}{pause}")).header(ORIGIN, "https://elsewhere.example");
    let elsewhere = ana.send(&control, elsewhere.json(&reason())).await;
    assert_eq!(elsewhere.status, StatusCode::FORBIDDEN, "{}", elsewhere.text);

    let log = place.run("audit --output json").await.json();
    let paused =
        log["entries"].as_array().unwrap().iter().find(|entry| entry["action"] == "hold_set").unwrap();
    assert_eq!(
        (&paused["actor"], &paused["source"], &paused["key"]),
        (&json!("ana@example.com"), &json!("dashboard"), &json!("oidc:ana"))
    );

    // An address that the provider has not verified is nobody's name, whoever has it.
    let mut ben = Browser::new();
    let back = ben.back_from(&control, &identity.url, "prompt=login&login=ben&password=x").await;
    assert_eq!(ben.get(&back).await.status, StatusCode::SEE_OTHER);
    let who: Value =
        serde_json::from_str(&ben.api(&control, Method::GET, "/api/v1/whoami", None).await.text).unwrap();
    assert_eq!(
        (&who["name"], &who["role"], &who["packs"]),
        (&json!("ben"), &json!("engineer"), &json!(["support"]))
    );
    assert_eq!(ben.api(&control, Method::POST, pause, reason()).await.status, StatusCode::FORBIDDEN);

    assert_eq!(
        ana.api(&control, Method::DELETE, "/api/v1/session", None).await.status,
        StatusCode::NO_CONTENT
    );
    assert!(!ana.has_session());
    assert_eq!(ana.api(&control, Method::GET, "/api/v1/whoami", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn whatever_goes_wrong_is_said_and_there_is_no_session() {
    let World { server, mut identity, place } = world().await;
    let control = server.control.clone();
    let said = |page: &Page, status: StatusCode, words: &str, browser: &Browser| {
        assert!(page.status == status && page.text.contains(words), "{} {}", page.status, page.text);
        assert!(!browser.has_session(), "{words}");
    };

    for (login, words) in [
        ("prompt=login&login=wrong-audience&password=x", "Invalid audiences"),
        ("prompt=login&login=wrong-issuer&password=x", "Invalid issuer"),
        ("prompt=login&login=wrong-nonce&password=x", "Invalid nonce"),
        ("prompt=login&login=expired&password=x", "Expired"),
        ("prompt=login&login=wrong-key&password=x", "Crypto error"),
    ] {
        let mut browser = Browser::new();
        let back = browser.back_from(&control, &identity.url, login).await;
        let page = browser.get(&back).await;
        said(&page, StatusCode::BAD_GATEWAY, words, &browser);
    }
    for (login, words) in [
        (
            "prompt=login&login=guest&password=x",
            "the claim groups holds visitors, which oidc.roles does not name",
        ),
        ("prompt=login&login=nobody&password=x", "has the claim groups"),
    ] {
        let mut browser = Browser::new();
        let back = browser.back_from(&control, &identity.url, login).await;
        let page = browser.get(&back).await;
        said(&page, StatusCode::FORBIDDEN, words, &browser);
    }

    // An answer to nobody's question, to another browser's, and the same answer twice.
    let mut ana = Browser::new();
    let back = ana.back_from(&control, &identity.url, ANA).await;
    let state = reqwest::Url::parse(&back).unwrap();
    let state = state.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let mut mallory = Browser::new();
    let page = mallory.get(&back.replace(&state, "made-up")).await;
    said(&page, StatusCode::BAD_REQUEST, "this sign-in is over", &mallory);
    let page = mallory.get(&back).await;
    said(&page, StatusCode::BAD_REQUEST, "this browser did not begin this sign-in", &mallory);
    let page = ana.get(&back.replace("iss=http", "iss=https")).await;
    said(&page, StatusCode::BAD_GATEWAY, "the answer comes from", &ana);
    let back = ana.back_from(&control, &identity.url, ANA).await;
    assert_eq!(ana.get(&back).await.status, StatusCode::SEE_OTHER);
    let mut again = Browser::new();
    let page = again.get(&back).await;
    said(&page, StatusCode::BAD_REQUEST, "this sign-in is over", &again);
    // The code of one sign-in brought back with the state of another one.
    let code = |url: &str| {
        let url = reqwest::Url::parse(url).unwrap();
        url.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned()
    };
    let fresh = again.back_from(&control, &identity.url, ANA).await;
    let page = again.get(&fresh.replace(&code(&fresh), &code(&back))).await;
    said(&page, StatusCode::BAD_GATEWAY, "refused the code", &again);
    // Somebody who thinks better of it.
    let begun = again.get(&format!("{control}/oidc/sign-in")).await;
    let state = reqwest::Url::parse(&begun.location.unwrap()).unwrap();
    let state = state.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let denied = format!("{control}/oidc/callback?error=access_denied&error_description=no&state={state}");
    let page = again.get(&denied).await;
    said(&page, StatusCode::FORBIDDEN, "access_denied (no)", &again);

    // A provider that is gone keeps nobody with a key out.
    let mut late = Browser::new();
    let back = late.back_from(&control, &identity.url, ANA).await;
    identity.child.kill().await.unwrap();
    let page = late.get(&back).await;
    said(&page, StatusCode::SERVICE_UNAVAILABLE, "could not reach", &late);
    let key = std::fs::read_to_string(place.path("serin-data/admin.key")).unwrap();
    let with_key =
        late.api(&control, Method::POST, "/api/v1/session", Some(json!({"key": key.trim()}))).await;
    assert_eq!(with_key.status, StatusCode::OK, "{}", with_key.text);
    assert!(late.has_session());
    let metrics = late.api(&control, Method::GET, "/metrics", None).await.text;
    for count in ["serin_oidc_signed_in_total 1", "serin_oidc_without_role_total 2"] {
        assert!(metrics.contains(&format!("{count}\n")), "{count}: {metrics}");
    }
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn a_provider_that_is_not_there_or_calls_itself_otherwise_is_said() {
    let port = free_port();
    let control = format!("http://127.0.0.1:{port}");
    let identity = Identity::start(&format!("{control}/oidc/callback")).await;
    for (issuer, status, words) in [
        (format!("http://127.0.0.1:{}", free_port()), StatusCode::SERVICE_UNAVAILABLE, "could not reach"),
        (identity.url.replace("127.0.0.1", "localhost"), StatusCode::BAD_GATEWAY, "unexpected issuer URI"),
    ] {
        let place = Place::empty();
        let settings = format!(
            "control: {{publicUrl: '{control}'}}\noidc:\n  issuer: '{issuer}'\n  clientId: serin\n  roles: [{{value: sre, role: viewer}}]\n"
        );
        place.write("serin.yaml", &settings);
        let file = place.path("serin.yaml").display().to_string();
        let server = Server::start_on(&place, port, &["--settings", &file], &[]).await;
        let mut browser = Browser::new();
        let page = browser.get(&format!("{control}/oidc/sign-in")).await;
        assert!(page.status == status && page.text.contains(words), "{} {}", page.status, page.text);
        assert_eq!(server.stop().await, 0);
        eventually("the port is free", async || TcpListener::bind(("127.0.0.1", port)).ok()).await;
    }
}
