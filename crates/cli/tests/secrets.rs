//! Secrets are planted everywhere that one can come in, and searched in everything that the program writes.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{DEADLINE, Place, eventually, provider, serin};

const PROVIDER_KEY: &str = "canary-of-the-provider-key";
const CLIENT_KEY: &str = "canary-of-the-clients-authorization";
const WRONG_KEY: &str = "serin_canaryofakeythatisnotknownhere";
const QUESTION: &str = "canary of what a person asked";
const ANSWER: &str = "canary of what the model said";
const VARIABLE: &str = "canary of a value of a variable";
const HOOK_SECRET: &str = "whsec_Y2FuYXJ5b2ZhcmVjZWl2ZXJzc2VjcmV0";
const HOOK_PATH: &str = "canary-of-an-address-that-is-a-secret";

/// Everything that the files of a folder hold, but for those that exist to hold a secret.
fn written(folder: &Path, text: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            written(&path, text);
        } else if name != "admin.key" {
            text.push((name, std::fs::read(&path).unwrap()));
        }
    }
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn no_secret_is_in_anything_that_is_written() {
    // An error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let provider = provider(&format!("default: {{replies: ['{ANSWER}']}}")).await;
    let place = Place::empty();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (data, control, nobody) = (free(), free(), free());
    place.write("hook.key", HOOK_SECRET);
    place.write(
        "serin.yaml",
        &format!(
            "dataDir: data\ndata: {{listen: '{data}'}}\ncontrol: {{listen: '{control}'}}\n\
             provider: {{baseUrl: 'http://{}/v1'}}\nlog: {{filter: trace}}\n\
             notify:\n  receivers:\n    - {{name: team, type: webhook, urlEnv: HOOK_URL, keyFile: hook.key, allowInternal: true}}\n",
            provider.addr()
        ),
    );
    let log = std::fs::File::create(place.path("log")).unwrap();
    let mut server = serin()
        .args(["serve", "--settings", "serin.yaml"])
        .current_dir(place.path(""))
        .env("SERIN_PROVIDER_API_KEY", PROVIDER_KEY)
        .env("HOOK_URL", format!("http://{nobody}/{HOOK_PATH}"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let base = format!("http://{control}");
    eventually("the server answers", async || http.get(format!("{base}/healthz")).send().await.ok()).await;
    let admin = std::fs::read_to_string(place.path("data/admin.key")).unwrap().trim().to_owned();
    let place = place.with_server(&base);
    place.publishable("1.0.0");
    place.publishable("2.0.0");
    for line in ["apply -f 1.0.0.yaml", "apply -f 2.0.0.yaml", "pause support --reason lunch"] {
        let ran = place.run(&format!("{line} --key {admin}")).await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let made = place.run(&format!("key create app --role data --key {admin}")).await;
    let app_key = made.out.trim().to_owned();
    assert!(app_key.starts_with("serin_"), "{made:?}");

    // Answers are kept as well: an error may repeat what was sent.
    let mut said = Vec::new();
    let chat = |prompt: Value| json!({"model": "m", "prompt": prompt, "messages": [{"role": "user", "content": QUESTION}]});
    let right = json!({"id": "support/answer", "variables": {"company": VARIABLE}});
    let chats = [
        chat(right.clone()).to_string(),
        chat(json!({"id": "support/answer"})).to_string(),
        chat(json!({"id": "nothing/answer", "variables": {"company": VARIABLE}})).to_string(),
        chat(right)["messages"].to_string(),
    ];
    let mut answered = false;
    for body in chats {
        let request = http.post(format!("http://{data}/v1/chat/completions")).header("x-serin-key", &app_key);
        let request =
            request.header("authorization", format!("Bearer {CLIENT_KEY}")).header("x-serin-session", "s1");
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let is_success = answer.status().is_success();
        let bytes = answer.bytes().await.unwrap().to_vec();
        if is_success {
            answered |= holds(&bytes, ANSWER);
        } else {
            said.push(("refused chat".to_owned(), bytes));
        }
    }
    assert!(answered, "a chat got through");
    let last = provider.last_request().unwrap();
    assert!(holds(&last.body, QUESTION), "the provider got the question");
    for (path, key) in [
        ("/api/v1/packs", WRONG_KEY),
        ("/api/v1/keys", app_key.as_str()),
        ("/api/v1/keys", admin.as_str()),
        ("/api/v1/audit?limit=1000", admin.as_str()),
        ("/api/v1/audit/export", admin.as_str()),
        ("/api/v1/notify/receivers", admin.as_str()),
        ("/api/v1/packs/support", admin.as_str()),
        ("/api/v1/oncall", admin.as_str()),
        ("/metrics", admin.as_str()),
    ] {
        let answer = http.get(format!("{base}{path}")).bearer_auth(key).send().await.unwrap();
        said.push((path.to_owned(), answer.bytes().await.unwrap().to_vec()));
    }
    let body = json!({"key": admin}).to_string();
    let signed_in = http.post(format!("{base}/api/v1/session")).header("content-type", "application/json");
    let signed_in = signed_in.header("origin", &base).body(body).send().await.unwrap();
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().to_owned();
    let token = cookie.split(';').next().unwrap().split_once('=').unwrap().1.to_owned();
    assert!(token.len() > 20, "{cookie}");
    let cookie = format!("serin_session={token}");
    let answer = http.get(format!("{base}/api/v1/packs")).header("cookie", cookie).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    // The receiver is not there: that it cannot be told is in the log and in the store.
    eventually("a message could not be sent", async || {
        let list =
            http.get(format!("{base}/api/v1/notify/receivers")).bearer_auth(&admin).send().await.ok()?;
        let text = list.text().await.ok()?;
        text.contains("problem\":\"").then_some(text)
    })
    .await;
    let id = server.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    tokio::time::timeout(DEADLINE, server.wait()).await.unwrap().unwrap();

    written(&place.path("data"), &mut said);
    said.push(("log".to_owned(), std::fs::read(place.path("log")).unwrap()));
    assert!(said.iter().any(|(name, bytes)| name == "serin.db" && bytes.len() > 4096));
    assert!(said.iter().any(|(name, bytes)| name == "log" && bytes.len() > 1_000));
    let secrets = [
        ("provider key", PROVIDER_KEY),
        ("client's key", CLIENT_KEY),
        ("unknown key", WRONG_KEY),
        ("key of an admin", &admin),
        ("key of an app", &app_key),
        ("session", &token),
        ("question", QUESTION),
        ("answer", ANSWER),
        ("variable", VARIABLE),
        ("receiver's secret", HOOK_SECRET),
        ("receiver's address", HOOK_PATH),
    ];
    let found: Vec<_> = said
        .iter()
        .flat_map(|(place, bytes)| {
            secrets
                .iter()
                .filter(|(_, text)| holds(bytes, text))
                .map(move |(name, _)| format!("{name} in {place}"))
        })
        .collect();
    assert!(found.is_empty(), "{found:?}");
}
