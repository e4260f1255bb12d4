use serin_core::access::{Role, Scope};
use serin_core::ids::Actor;
use serin_core::units::HoldFor;

use super::*;
use crate::store::Store;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn grant(role: Role) -> Grant {
    Grant { role, read_prompts: false, scope: Scope::All }
}

async fn ring(dir: &tempfile::TempDir) -> KeyRing {
    KeyRing::load(Store::open(&dir.path().join("serin.db")).await.unwrap(), &[]).await.unwrap()
}

async fn created(ring: &KeyRing, name: &str, role: Role, until: Option<i64>, random: u8) -> String {
    let new = NewKey::new(name, grant(role), until.map(at), at(0)).unwrap();
    ring.create(new, &Actor::named("ana"), [random; NEW_KEY_BYTES], at(0)).await.unwrap().1
}

#[tokio::test]
async fn a_key_is_good_until_it_expires_or_is_revoked_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let keys = ring(&dir).await;
    let ci = created(&keys, "ci", Role::Engineer, Some(100), 1).await;
    let ops = created(&keys, "ops", Role::Operator, None, 2).await;
    for keys in [&keys, &ring(&dir).await] {
        assert_eq!(keys.find(&ci, at(99)).unwrap().name, "ci");
        assert_eq!(keys.find(&ci, at(100)).unwrap_err(), Unknown::Expired(at(100)));
        assert_eq!(keys.find(&ops, at(1_000_000)).unwrap().grant, grant(Role::Operator));
        assert_eq!(keys.find("serin_other", at(0)).unwrap_err(), Unknown::Key);
    }
    keys.revoke("ops", &Actor::named("ana"), "left", at(5)).await.unwrap();
    for keys in [&keys, &ring(&dir).await] {
        assert_eq!(keys.find(&ops, at(6)).unwrap_err(), Unknown::Key);
    }
}

#[tokio::test]
async fn the_store_holds_no_key_that_could_be_shown() {
    let dir = tempfile::tempdir().unwrap();
    let keys = ring(&dir).await;
    let key = created(&keys, "ci", Role::Engineer, None, 1).await;
    drop(keys);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&key) && !text.contains(key.trim_start_matches(PREFIX)));
    }
}

#[tokio::test]
async fn the_last_key_that_may_make_keys_stays() {
    let dir = tempfile::tempdir().unwrap();
    let keys = ring(&dir).await;
    created(&keys, "first", Role::Admin, None, 1).await;
    created(&keys, "brief", Role::Admin, Some(10), 2).await;
    let by = Actor::named("ana");
    assert!(matches!(keys.revoke("first", &by, "x", at(11)).await, Err(KeyError::Last(_))));
    keys.revoke("first", &by, "x", at(9)).await.unwrap();
    assert!(matches!(keys.revoke("nobody", &by, "x", at(9)).await, Err(KeyError::Unknown(_))));
}

#[tokio::test]
async fn the_last_use_is_kept_to_the_minute() {
    let dir = tempfile::tempdir().unwrap();
    let keys = ring(&dir).await;
    let ci = created(&keys, "ci", Role::Engineer, None, 1).await;
    assert_eq!(keys.list()[0].last_used(), None);
    for second in [61, 75, 119] {
        keys.find(&ci, at(second)).unwrap();
        keys.note_uses().await.unwrap();
        assert_eq!(ring(&dir).await.list()[0].last_used(), Some(at(60)));
    }
}

#[tokio::test]
async fn the_first_key_is_made_once_in_a_file_for_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let keys = ring(&dir).await;
    let path = first_key(&keys, dir.path(), [7; NEW_KEY_BYTES], at(0)).await.unwrap().unwrap();
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    let key = std::fs::read_to_string(&path).unwrap();
    let found = keys.find(key.trim(), at(1)).unwrap();
    assert_eq!((found.name.as_str(), &found.grant), ("admin", &Grant::ADMIN));
    assert_eq!(first_key(&keys, dir.path(), [8; NEW_KEY_BYTES], at(2)).await.unwrap(), None);
    let settings = [SettingsKey { name: "root".to_owned(), hash: hash_of("x"), grant: Grant::ADMIN }];
    let other = tempfile::tempdir().unwrap();
    let store = Store::open(&other.path().join("serin.db")).await.unwrap();
    let keys = KeyRing::load(store, &settings).await.unwrap();
    assert_eq!(first_key(&keys, other.path(), [9; NEW_KEY_BYTES], at(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_ends_with_its_time_its_key_or_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let keys = ring(&dir).await;
    created(&keys, "root", Role::Admin, None, 1).await;
    let key = created(&keys, "ana", Role::Operator, None, 2).await;
    let auth = Auth::new(keys, false);
    let id = auth.keys.find(&key, at(0)).unwrap().id.clone();
    let token = auth.sessions.begin(&id, [1; 32], at(0));
    let caller = auth.identify(None, Some(&token), at(10)).unwrap();
    assert_eq!((caller.name.as_deref(), caller.via), (Some("ana"), Via::Session));
    let over = at(0) + SESSION_LASTS.as_std();
    assert_eq!(auth.identify(None, Some(&token), over), Err(Unknown::Session));
    let other = auth.sessions.begin(&id, [2; 32], at(0));
    assert!(auth.sessions.end(&other));
    assert_eq!(auth.identify(None, Some(&other), at(1)), Err(Unknown::Session));
    auth.keys.revoke("ana", &Actor::named("root"), "left", at(20)).await.unwrap();
    assert_eq!(auth.identify(None, Some(&token), at(21)), Err(Unknown::Session));
    assert_eq!(auth.identify(None, None, at(21)), Err(Unknown::Nothing));
}

#[test]
fn sessions_are_bounded_and_the_one_that_ends_first_makes_room() {
    let sessions = Sessions::default();
    let random = |n: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        bytes
    };
    let first = sessions.begin("a", random(0), at(0));
    let second = sessions.begin("a", random(1), at(1));
    for n in 2..=MOST_SESSIONS {
        sessions.begin("a", random(n), at(2));
    }
    assert_eq!(sessions.len(), MOST_SESSIONS);
    assert!(sessions.holder(&first, at(3)).is_none());
    assert!(matches!(sessions.holder(&second, at(3)), Some(Holder::Key(id)) if id == "a"));
    sessions.begin("a", random(9), at(3) + HoldFor::from_hours(24).as_std());
    assert_eq!(sessions.len(), 1, "what is over is forgotten");
}

#[test]
fn a_key_needs_a_name_a_future_and_packs() {
    let new = |name: &str, until, scope| {
        let grant = Grant { role: Role::Viewer, read_prompts: false, scope };
        NewKey::new(name, grant, until, at(0))
    };
    assert!(new("ci@build-1.x_y", Some(at(1)), Scope::All).is_ok());
    for name in ["", "two words", "ä", &"a".repeat(65)] {
        assert!(matches!(new(name, None, Scope::All), Err(NewKeyProblem::Name(_))), "{name:?}");
    }
    assert_eq!(new("ci", Some(at(0)), Scope::All), Err(NewKeyProblem::Past(at(0))));
    assert_eq!(new("ci", None, Scope::Packs([].into())), Err(NewKeyProblem::NoPacks));
}
