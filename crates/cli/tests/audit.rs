//! The audit log leaves the server and is checked without it.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use support::{Place, Server};

#[tokio::test]
async fn an_export_is_checked_offline_and_any_change_is_named() {
    let place = Place::empty();
    let server = Server::start_in(&place).await;
    let place = place.with_server(&server.control);
    place.publishable("1.0.0");
    place.publishable("2.0.0");
    for version in ["1.0.0", "2.0.0"] {
        let ran = place.run(&format!("apply -f {version}.yaml --reason ship")).await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let online = place.run("audit verify -o json").await;
    assert_eq!(online.code, 0, "{online:?}");
    let (entries, last) = (online.json()["entries"].clone(), online.json()["last"].clone());
    let ran = place.run("audit export audit.ndjson").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
    let printed = place.run("audit export").await;
    assert_eq!(printed.out, std::fs::read_to_string(place.path("audit.ndjson")).unwrap());
    let tail = place.run("audit export --after 2 tail.ndjson").await;
    assert_eq!(tail.code, 0, "{tail:?}");
    drop(server);

    let last = last.as_str().unwrap();
    let offline = place.run(&format!("audit verify audit.ndjson --noted {last} -o json")).await;
    assert_eq!((offline.code, &offline.json()["entries"]), (0, &entries), "{offline:?}");
    assert_eq!(place.run("audit verify tail.ndjson").await.code, 0);

    let text = printed.out;
    let entry: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    for part in ["actor", "source", "key", "reason", "evidence", "prev", "hash"] {
        assert!(entry.get(part).is_some(), "{part}: {entry}");
    }
    for (change, with) in [("ship", "slip"), ("\"source\"", "\"Source\""), ("}\n", "} \n")] {
        place.write("changed.ndjson", &text.replacen(change, with, 1));
        let ran = place.run("audit verify changed.ndjson").await;
        assert_eq!(ran.code, 1, "{change}: {ran:?}");
        assert!(ran.out.contains("line "), "{ran:?}");
    }
    let cut = text.lines().take(3).collect::<Vec<_>>().join("\n") + "\n";
    place.write("cut.ndjson", &cut);
    let ran = place.run("audit verify cut.ndjson").await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("cut off behind audit entry 2"), "{ran:?}");
    let ran = place.run(&format!("audit verify audit.ndjson --noted 1:{}", "ab".repeat(32))).await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("audit entry 1 is not the one that was noted"), "{ran:?}");
    let ran = place.run("audit verify nowhere.ndjson").await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("could not read nowhere.ndjson"), "{ran:?}");
}
