//! Every check can be repeated from what it saw, to the same bits, and stays small.

use std::path::Path;

use serin_core::command::Command;
use serin_core::ids::{Actor, RolloutId};
use serin_core::replay::Replay;
use serin_core::rollout::Phase;
use serin_core::units::HoldFor;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use crate::{CANARY, House, STABLE, failing_canary, healthy, pack, start};

/// The year of docs/operations.md, and the bytes that it states for it.
const ROLLOUTS_A_YEAR: i64 = 1_000;
const STATED: i64 = 350_000_000;

fn rollout() -> RolloutId {
    RolloutId::of(&pack(), 1)
}

async fn replayed(house: &House) -> Replay {
    house.control.replay(&rollout()).await.unwrap().unwrap()
}

async fn with_canary(dir: &Path) -> House {
    let house = House::open(dir, start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    house.apply(CANARY).await.unwrap();
    house
}

async fn order(house: &House, command: Command) {
    house.order(command, &Actor::named("ana"), "test").await.unwrap();
}

/// Opens the database beside the server, to look at what is stored or to change it.
async fn database(dir: &Path) -> SqlitePool {
    SqlitePool::connect_with(SqliteConnectOptions::new().filename(dir.join("serin.db"))).await.unwrap()
}

#[tokio::test]
async fn a_healthy_rollout_replays_without_differences_across_a_pause_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let house = with_canary(dir.path()).await;
    house.run(700, 4, &healthy).await;
    order(&house, Command::Pause).await;
    house.run(130, 4, &healthy).await;
    order(&house, Command::Resume).await;
    house.run(100, 4, &healthy).await;
    assert!(house.control.resolver().signals.barrier().await);
    let before = replayed(&house).await;
    assert_eq!(before, Replay { checks: 15, decisions: 2, differences: vec![] });
    let (now, sessions) = (house.clock.now(), house.sessions.into_inner());
    house.ingest.shutdown().await;

    let again = House::open(dir.path(), now).await;
    again.sessions.store(sessions, std::sync::atomic::Ordering::Relaxed);
    again.run(2_000, 4, &healthy).await;
    assert_eq!(again.phase_and_weight().await.0, Phase::Completed);
    let after = replayed(&again).await;
    assert!(after.checks > 40, "{after:?}");
    assert_eq!(after.differences, Vec::<String>::new());
    sizes(dir.path(), again.sessions.load(std::sync::atomic::Ordering::Relaxed)).await;
    // A week later minutes are joined to hours, and what is kept for some days is gone.
    let later = again.clock.now().checked_add(jiff::SignedDuration::from_hours(9 * 24)).unwrap();
    let gone = again.control.store().expire(later, HoldFor::from_hours(7 * 24)).await.unwrap();
    assert!(gone.slots > 300 && gone.units > 0, "{gone:?}");
    year(dir.path()).await;
}

/// What docs/operations.md says about growth; printed with `--nocapture`.
async fn sizes(dir: &Path, sessions: u64) {
    let database = database(dir).await;
    let (checks, body, seen): (i64, i64, i64) =
        sqlx::query_as("SELECT COUNT(*), SUM(LENGTH(body)), SUM(LENGTH(seen)) FROM checks")
            .fetch_one(&database)
            .await
            .unwrap();
    println!("a check: {} bytes of result, {} bytes of what it saw", body / checks, seen / checks);
    assert!(body / checks < 2_560, "{} bytes", body / checks);
    assert!(seen / checks < 2_560, "{} bytes", seen / checks);
    let watermarks: (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM check_watermark").fetch_one(&database).await.unwrap();
    assert_eq!(watermarks.0, 0, "a rollout that is over leaves no watermark");
    let tables = pages(&database).await;
    for (name, bytes) in &tables {
        println!("{name}: {bytes} bytes, {} a session", bytes / i64::try_from(sessions).unwrap());
    }
}

async fn pages(database: &SqlitePool) -> Vec<(String, i64)> {
    let sql = "SELECT name, SUM(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC";
    sqlx::query_as(sql).fetch_all(database).await.unwrap()
}

/// A year of rollouts stays under the size that docs/operations.md states.
async fn year(dir: &Path) {
    let database = database(dir).await;
    sqlx::query("VACUUM").execute(&database).await.unwrap();
    let stays: i64 =
        pages(&database).await.iter().filter(|(name, _)| stays_for_good(name)).map(|(_, bytes)| bytes).sum();
    println!("a rollout, for good: {stays} bytes");
    assert!(stays * ROLLOUTS_A_YEAR < STATED, "{stays} bytes stay of a rollout for good");
}

/// Whether a table, or an index of it, is what a rollout leaves behind for good.
fn stays_for_good(name: &str) -> bool {
    let of = |table: &str| {
        name == table || name == format!("sqlite_autoindex_{table}_1") || name == format!("{table}_by_pack")
    };
    ["rollout", "cohort", "evidence", "tally", "tally_total", "checks", "audit"].into_iter().any(of)
}

#[tokio::test]
async fn a_rolled_back_rollout_replays_and_one_changed_count_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let house = with_canary(dir.path()).await;
    house.run(900, 4, &failing_canary).await;
    assert_eq!(house.phase_and_weight().await.0, Phase::RolledBack);
    let whole = replayed(&house).await;
    assert!(whole.checks > 3, "{whole:?}");
    assert_eq!(whole.differences, Vec::<String>::new());

    let database = database(dir.path()).await;
    let (number, seen): (i64, String) = sqlx::query_as(
        "SELECT number, seen FROM checks WHERE seen LIKE '%\"canary\"%success_rate:limit%' ORDER BY number DESC LIMIT 1",
    )
    .fetch_one(&database)
    .await
    .unwrap();
    let mut changed: serde_json::Value = serde_json::from_str(&seen).unwrap();
    let cells = changed["counted"]["cells"].as_array_mut().unwrap();
    let canary = cells.iter_mut().find(|cell| cell[0][5] == "canary").expect("the canary had sessions");
    let count = &mut canary[1]["measures"]["success_rate:limit"]["pairs"][0][2];
    *count = serde_json::json!(count.as_u64().unwrap() + 1);
    sqlx::query("UPDATE checks SET seen = $1 WHERE number = $2")
        .bind(changed.to_string())
        .bind(number)
        .execute(&database)
        .await
        .unwrap();
    let differences = replayed(&house).await.differences;
    let named = format!("check {number}: gate success_rate: log evidence was");
    assert!(differences.iter().any(|what| what.starts_with(&named)), "{differences:#?}");
    assert!(
        differences.iter().all(|what| what.starts_with(&format!("check {number}: "))
            || what.split(&[' ', ':'][..]).nth(1).is_some_and(|n| n.parse::<i64>().unwrap() > number)),
        "checks before it are as they were: {differences:#?}"
    );
}

#[tokio::test]
async fn a_gate_that_is_read_literally_replays_from_its_point_estimates() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), start()).await;
    house.apply(STABLE).await.unwrap();
    house.run(60, 4, &healthy).await;
    let literal = CANARY.replace("threshold: 90%", "threshold: 90%\n          decision: point");
    assert_ne!(literal, CANARY);
    house.apply(&literal).await.unwrap();
    house.run(400, 4, &failing_canary).await;
    let result = replayed(&house).await;
    assert!(result.checks >= 5, "{result:?}");
    assert_eq!(result.differences, Vec::<String>::new());
}
