//! Keys as people meet them: the first one is found by itself, others are made, used and revoked.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use support::{Place, Server};

/// A folder with a server that keeps its data there, as the first five minutes have it.
async fn place() -> (Place, Server) {
    let place = Place::empty();
    let server = Server::start_in(&place).await;
    let place = place.with_server(&server.control);
    (place, server)
}

#[tokio::test]
async fn on_the_servers_machine_the_command_line_finds_the_first_key() {
    let (place, server) = place().await;
    let init = place.run("init --name support --prompt 'You are a friendly agent for {{company}}.'").await;
    assert_eq!(init.code, 0, "{init:?}");
    let applied = place.run("apply -f support.yaml").await;
    assert_eq!(applied.code, 0, "{applied:?}");
    let audit = place.run("audit --pack support --output json").await;
    assert_eq!(audit.json()["entries"][0]["actor"], "admin (for tester)");

    let elsewhere = Place::empty().with_server(&server.control);
    let refused = elsewhere.run("get packs").await;
    assert_eq!(refused.code, 1);
    insta::assert_snapshot!(refused.err, @r"
    error: the request brings no key
      hint: name a key with --key or SERIN_KEY, or the server's data directory with SERIN_DATA_DIR (looked for serin-data/admin.key: No such file or directory (os error 2))
    ");
    let mut named = elsewhere.command("get packs");
    named.env("SERIN_DATA_DIR", place.path("serin-data"));
    assert!(named.status().await.unwrap().success());
}

#[tokio::test]
async fn a_key_is_made_used_and_revoked() {
    let (place, _server) = place().await;
    let made = place.run("key create ci --role engineer --packs support,billing --expires 90d").await;
    assert_eq!(made.code, 0, "{made:?}");
    let key = made.out.trim();
    assert!(key.starts_with("serin_") && made.out.lines().count() == 1, "{made:?}");
    assert!(!made.err.contains(key) && made.err.contains("engineer for billing, support"), "{made:?}");
    let with = async |line: &str| place.run(&format!("{line} --key {key}")).await;
    assert_eq!(with("get packs").await.code, 0);
    let refused = with("key list").await;
    insta::assert_snapshot!(refused.err, @r#"
    error: the key "ci" has the role engineer, which does not bring keys
      hint: ask for a key with the role admin
    "#);
    let list = place.run("key list").await;
    assert!(list.out.contains("billing, support") && !list.out.contains(key), "{list:?}");
    assert_eq!(place.run("key revoke ci --reason left").await.code, 0);
    let gone = with("get packs").await;
    insta::assert_snapshot!(gone.err, @r"
    error: the key is not known here
      hint: check the key in --key or SERIN_KEY; an admin lists all with `serin key list`
    ");
    let twice = place.run("key revoke ci").await;
    assert!(twice.err.contains("there is no key \"ci\""), "{twice:?}");
}

#[tokio::test]
async fn a_key_made_offline_is_one_for_the_settings() {
    let place = Place::empty();
    let made = place.run("key create ci --role operator --offline").await;
    let hash = blake3::hash(made.out.trim().as_bytes()).to_hex();
    assert!(made.err.contains(&format!("role: operator, keyHash: \"{hash}\"")), "{made:?}");
    let settings: String = made.err.lines().skip(1).map(|line| format!("{line}\n")).collect();
    place.write("serin.yaml", &settings);
    let shown = place.run("serve --settings serin.yaml --print-settings").await;
    assert!(shown.out.contains("name: ci, role: operator"), "{shown:?}");
}
