//! Database files: durable for the next process, and clear about what is wrong with them.

use super::{CANARY, World, at, contact, hash, pack, response, rollout};
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
