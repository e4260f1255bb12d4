//! Database files: durable for the next process, and clear about what is wrong with them.

use super::{CANARY, STABLE, World, at, contact, hash, pack, response, rollout};
use crate::store::db::args;
use crate::store::{Batch, Store, StoreError};

#[tokio::test]
async fn a_second_process_sees_what_is_committed() {
    let world = World::with_rollout().await;
    let batch = Batch {
        contacts: vec![contact("anna", CANARY, at(100))],
        facts: vec![response("anna", CANARY, "r1", at(100))],
        ..Batch::default()
    };
    world.store.write(&batch).await.unwrap();
    let other = world.other_process().await;
    assert_eq!(other.packs().await.unwrap(), world.store.packs().await.unwrap());
    assert_eq!(other.attribution(hash("anna")).await.unwrap(), Some(CANARY));
    assert_eq!(other.tally_total(&rollout()).await.unwrap().canary.requests, 1);

    world.store.close().await;
    other.close().await;
    let again = Store::open(&world.path).await.unwrap();
    assert_eq!(again.pack(&pack()).await.unwrap().unwrap().state.revision, 2);
    assert!(again.verify_audit(None).await.unwrap().seq > 0);
}

#[tokio::test]
async fn a_missing_directory_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data/of/serin/serin.db");
    assert_eq!(Store::open(&path).await.unwrap().packs().await.unwrap(), []);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let refused = Store::open(&file.join("data/serin.db")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Directory { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("file/data") && text.contains("hint:"), "{text}");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named() {
    // A directory in the place of the file: even an administrator cannot write to it.
    let directory = tempfile::tempdir().unwrap();
    let refused = Store::open(directory.path()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotWritable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("hint:"), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("serin.db");
    let text = "this is no database, however long one looks at it. ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let refused = Store::open(&path).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotADatabase { .. }), "{refused:?}");
    assert!(refused.to_string().contains("hint:"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_left_alone() {
    let world = World::empty().await;
    let mut tx = world.store.db.begin().await.unwrap();
    let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
               VALUES (99, 'later', 1, $1, 0)";
    tx.execute(sql, args!["later"]).await.unwrap();
    tx.commit().await.unwrap();
    let refused = Store::open(&world.path).await.unwrap_err();
    assert!(matches!(refused, StoreError::UnknownSchema { schema: 99, .. }), "{refused:?}");
}

/// What opening takes from a database of the time when units had an index by the hash of their keys.
#[tokio::test]
async fn units_of_an_older_database_count_on_and_count_once() {
    let world = World::with_rollout().await;
    world.contact("anna", CANARY, at(100)).await;
    world.contact("bert", STABLE, at(101)).await;
    let mut tx = world.store.db.begin().await.unwrap();
    for sql in [
        "DELETE FROM _sqlx_migrations WHERE version = 30",
        "DROP INDEX session_forgotten",
        "DROP INDEX session_by_end",
        "CREATE INDEX session_by_end ON session (last_seen)",
        "ALTER TABLE session DROP COLUMN counted_in",
        "CREATE TABLE old (rollout TEXT NOT NULL, key_hash BYTEA NOT NULL, pack TEXT NOT NULL, cohort BIGINT NOT NULL, \
         assigned_at BIGINT NOT NULL, folded BIGINT NOT NULL, PRIMARY KEY (rollout, key_hash))",
        "INSERT INTO old SELECT rollout, key_hash, pack, cohort, assigned_at, folded FROM unit",
        // A session may have been a unit of a rollout before.
        "INSERT INTO old SELECT 'support-r0', key_hash, pack, 0, assigned_at - 50000000, 1 FROM unit",
        "DROP TABLE unit",
        "ALTER TABLE old RENAME TO unit",
        "CREATE INDEX unit_by_maturity ON unit (rollout, folded, assigned_at)",
    ] {
        tx.execute(sql, args![]).await.unwrap();
    }
    tx.commit().await.unwrap();
    world.store.close().await;

    let store = Store::open(&world.path).await.unwrap();
    let contacts = vec![
        contact("anna", CANARY, at(200)),
        contact("bert", CANARY, at(200)),
        contact("carl", CANARY, at(200)),
    ];
    assert_eq!(store.write(&Batch { contacts, ..Batch::default() }).await.unwrap().units, 1);
    let units = store.matured(&rollout(), 0, at(900), 10).await.unwrap();
    let units: Vec<_> = units.into_iter().map(|unit| (unit.hash, unit.cohort, unit.assigned_at)).collect();
    let expected =
        [(hash("anna"), CANARY, at(100)), (hash("bert"), STABLE, at(101)), (hash("carl"), CANARY, at(200))];
    assert_eq!(units, expected);
    assert_eq!(store.attribution(hash("bert")).await.unwrap(), Some(CANARY), "the pin moves all the same");
}
