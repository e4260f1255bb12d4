//! Whatever somebody changes in the stored audit log is found and named.

use serin_core::audit::{BrokenChain, Noted};

use super::World;
use crate::store::db::{Value, args};
use crate::store::{AuditFilter, Store, VerifyError};

/// The columns of the log that hold text; each with the statements that read and replace it.
macro_rules! columns {
    ($($column:literal),*) => { [$((
        $column,
        concat!("SELECT ", $column, " FROM audit WHERE seq = $1"),
        concat!("UPDATE audit SET ", $column, " = CAST($2 AS TEXT) WHERE seq = $1"),
        concat!("UPDATE audit SET ", $column, " = $2 WHERE seq = $1"),
    )),*] };
}
const TEXTS: [(&str, &str, &str, &str); 9] =
    columns!("pack", "rollout", "actor", "source", "action", "reason", "evidence", "prev", "hash");
const NUMBERS: [(&str, &str, &str, &str); 2] = columns!("at", "revision");

impl World {
    async fn run(&self, sql: &'static str, args: Vec<Value>) -> u64 {
        let mut tx = self.store.db.begin().await.unwrap();
        let changed = tx.execute(sql, args).await.unwrap();
        tx.commit().await.unwrap();
        changed
    }
}

async fn broken(store: &Store) -> Option<BrokenChain> {
    match store.verify_audit(None).await {
        Ok(_) => None,
        Err(VerifyError::Broken(broken)) => Some(broken),
        Err(VerifyError::Store(error)) => panic!("{error:?}"),
    }
}

fn value(seq: u64) -> Value {
    Value::from(seq)
}

#[tokio::test]
async fn any_changed_byte_of_any_column_is_found_and_the_entry_named() {
    let world = World::with_rollout().await;
    let entries = world.store.audit(&AuditFilter::default()).await.unwrap();
    let full = entries.iter().find(|entry| entry.rollout.is_some() && !entry.reason.is_empty()).unwrap();
    let seq = full.seq;
    for (column, read, write, _) in TEXTS {
        let rows = world.store.db.fetch(read, args![seq]).await.unwrap();
        let text = rows[0].text(0).unwrap();
        assert!(!text.is_empty(), "{column}");
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1 << (at % 8);
            world.run(write, vec![value(seq), Value::Bytes(changed)]).await;
            // A changed hash is seen where the next entry does not follow, or in its own.
            let found = broken(&world.store).await;
            let named = [Some(BrokenChain::Changed(seq)), Some(BrokenChain::Unlinked(seq))];
            assert!(named.contains(&found), "byte {at} of {column}: {found:?}");
        }
        for other in [text.to_uppercase(), text.replace('e', "E"), format!("{text} "), format!("{text}\0")] {
            world.run(write, vec![value(seq), Value::from(other.clone())]).await;
            assert!(other == text || broken(&world.store).await.is_some(), "{column}: {other:?}");
        }
        world.run(write, vec![value(seq), Value::from(text)]).await;
        assert_eq!(broken(&world.store).await, None, "{column}");
    }
    for (column, read, _, write) in NUMBERS {
        let number = world.store.db.fetch(read, args![seq]).await.unwrap()[0].int(0).unwrap();
        for bit in 0..64 {
            world.run(write, args![seq, number ^ (1 << bit)]).await;
            assert_eq!(broken(&world.store).await, Some(BrokenChain::Changed(seq)), "bit {bit} of {column}");
        }
        world.run(write, args![seq, number]).await;
    }
    assert_eq!(broken(&world.store).await, None);
}

#[tokio::test]
async fn a_value_of_another_kind_is_found() {
    for sql in [
        "UPDATE audit SET reason = CAST(reason AS BLOB) WHERE seq = 3",
        "UPDATE audit SET rollout = NULL WHERE rollout IS NOT NULL",
        "UPDATE audit SET rollout = '' WHERE seq = 1",
        "UPDATE audit SET source = NULL WHERE seq = 3",
        "UPDATE audit SET key_id = '' WHERE seq = 3",
        "UPDATE audit SET at = at + 0.5 WHERE seq = 3",
        "UPDATE audit SET revision = 'many' WHERE seq = 3",
        "UPDATE audit SET seq = -3 WHERE seq = 3",
        "UPDATE audit SET seq = 1000 WHERE seq = 3",
    ] {
        let world = World::with_rollout().await;
        assert!(world.run(sql, args![]).await > 0, "{sql}");
        assert!(broken(&world.store).await.is_some(), "{sql}");
    }
}

#[tokio::test]
async fn entries_taken_away_at_the_end_are_missed_also_after_new_ones_were_written() {
    let world = World::with_rollout().await;
    let last = world.store.verify_audit(None).await.unwrap().seq;
    world.run("DELETE FROM audit WHERE seq = $1", args![last]).await;
    assert_eq!(broken(&world.store).await, Some(BrokenChain::WrongEnd { found: last - 1, written: last }));
    world.apply("3.0.0", super::at(120)).await;
    let missing = BrokenChain::Missing { expected: last, found: last + 1 };
    assert_eq!(broken(&world.store).await, Some(missing));

    let world = World::with_rollout().await;
    world.run("DELETE FROM audit", args![]).await;
    assert_eq!(broken(&world.store).await, Some(BrokenChain::WrongEnd { found: 0, written: last }));
    world.run("DELETE FROM audit_head", args![]).await;
    assert_eq!(broken(&world.store).await, None, "a new database looks the same; what was noted tells");
    let noted = Noted::parse(&format!("{last}:{}", "ab".repeat(32)));
    let found = world.store.verify_audit(noted).await;
    assert!(matches!(found, Err(VerifyError::Broken(BrokenChain::NotedMissing(_)))), "{found:?}");
}

#[tokio::test]
async fn an_entry_added_behind_the_end_is_found() {
    let world = World::with_rollout().await;
    let sql = "INSERT INTO audit SELECT seq + 1, at, pack, rollout, revision, actor, action, reason, evidence, hash, \
               prev, source, key_id FROM audit ORDER BY seq DESC LIMIT 1";
    world.run(sql, args![]).await;
    assert!(broken(&world.store).await.is_some());
}

/// The page of the file that holds the log is changed byte by byte: the log is then found to be broken or unreadable, or
/// the byte belonged to none of its entries and all of them read as before.
#[tokio::test]
async fn a_changed_byte_of_the_file_is_found() {
    const PAGE: usize = 4096;
    const LEAF: u8 = 0x0d;
    let world = World::with_rollout().await;
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'audit'";
    let root = world.store.db.fetch(sql, args![]).await.unwrap()[0].count(0).unwrap();
    let written = world.store.audit(&AuditFilter::default()).await.unwrap();
    world.store.close().await;
    let file = std::fs::read(&world.path).unwrap();
    let start = (usize::try_from(root).unwrap() - 1) * PAGE;
    assert_eq!(file[start], LEAF, "the whole log lies on one page");
    let path = world.path.with_file_name("changed.db");
    let mut found = 0;
    for at in (start..start + PAGE).step_by(7) {
        let mut changed = file.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&path, &changed).unwrap();
        let Ok(store) = Store::open(&path).await else { continue };
        match store.verify_audit(None).await {
            Err(_) => found += 1,
            Ok(_) => {
                let read = store.audit(&AuditFilter::default()).await.unwrap();
                assert_eq!(read, written, "byte {} of the page", at - start);
                let of_pack = AuditFilter { pack: Some(super::pack()), ..AuditFilter::default() };
                assert_eq!(store.audit(&of_pack).await.unwrap(), written, "byte {} of the page", at - start);
            }
        }
        store.close().await;
    }
    assert!(found > 100, "only {found} changes were found");
}

#[tokio::test]
async fn an_index_that_contradicts_the_log_is_found() {
    const PAGE: usize = 4096;
    let world = World::with_rollout().await;
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'audit_by_pack'";
    let root = world.store.db.fetch(sql, args![]).await.unwrap()[0].count(0).unwrap();
    world.store.close().await;
    let mut file = std::fs::read(&world.path).unwrap();
    let start = (usize::try_from(root).unwrap() - 1) * PAGE;
    let at = start + file[start..start + PAGE].windows(7).position(|text| text == b"support").unwrap();
    file[at] = b'S';
    std::fs::write(&world.path, &file).unwrap();
    let store = Store::open(&world.path).await.unwrap();
    assert!(matches!(broken(&store).await, Some(BrokenChain::Damaged(_))));
}
