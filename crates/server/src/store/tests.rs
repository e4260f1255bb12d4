//! The store suite: every rule as a function over a [`World`], so that each backend runs the same ones.

mod commits;
mod files;
mod folding;
mod ingest;
mod tampering;
mod verdicts;
mod writes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serin_core::ids::{Actor, PackName, RolloutId, SessionHash, SessionKey, Version};
use serin_core::observation::{Fact, Outcome, Response};
use serin_core::pack::{PackState, Transition};
use serin_core::plan::Plan;
use serin_core::publish::{Application, Outcome as Published, Published as Digests, publish};
use serin_core::routing::CohortId;
use serin_core::units::{HoldFor, Timestamp};

use super::{Commit, Receipt, Store, StoredVersion};
use crate::signal::{Contact, SessionFact};
use crate::store::Batch;

/// A fresh store in a directory of its own, and words to fill it with.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) path: PathBuf,
    _directory: tempfile::TempDir,
}

/// The stable cohort and the canary cohort of the only segment in step 0.
pub(super) const STABLE: CohortId = CohortId(1);
pub(super) const CANARY: CohortId = CohortId(2);
/// The cohort of sessions without a rollout.
pub(super) const BASE: CohortId = CohortId(0);

impl World {
    /// A store without any pack.
    pub(super) async fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("serin.db");
        Self { store: Store::open(&path).await.unwrap(), path, _directory: directory }
    }

    /// A store with a pack whose version 2.0.0 is being rolled out beside 1.0.0.
    pub(super) async fn with_rollout() -> Self {
        let world = Self::empty().await;
        world.apply("1.0.0", at(0)).await;
        world.apply("2.0.0", at(60)).await;
        world
    }

    /// A second process on the same file, which waits a moment only for the first one.
    pub(super) async fn other_process(&self) -> Store {
        Store::open_with(&self.path, Duration::from_millis(20)).await.unwrap()
    }

    pub(super) async fn state(&self) -> PackState {
        self.store.pack(&pack()).await.unwrap().unwrap().state
    }

    /// Decides what applying a version does now, without committing it.
    pub(super) async fn decide(&self, version: &str, now: Timestamp) -> Transition {
        let state = self.store.pack(&pack()).await.unwrap().map(|stored| stored.state);
        let plan = plan(version);
        let application = Application {
            plan: &plan,
            digests: &Digests {
                content_digest: format!("content-{version}"),
                plan_digest: "plan".to_owned(),
            },
            actor: &Actor::named("ada"),
            reason: "try it",
            salt: "salt",
            restart: false,
            now,
        };
        match publish(state.as_ref(), None, application).unwrap() {
            Published::Changed(transition, _) => *transition,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn apply(&self, text: &str, now: Timestamp) {
        let transition = self.decide(text, now).await;
        let known = self.store.version(&pack(), &version(text)).await.unwrap();
        let new = known.is_none().then(|| stored_version(text, now));
        self.store.commit(&transition, Commit { version: new.as_ref(), ..Commit::default() }).await.unwrap();
    }

    pub(super) async fn contact(&self, key: &str, cohort: CohortId, now: Timestamp) -> u64 {
        let batch = Batch { contacts: vec![contact(key, cohort, now)], ..Batch::default() };
        self.store.write(&batch).await.unwrap().units
    }

    pub(super) async fn see(&self, facts: Vec<SessionFact>) -> Vec<Receipt> {
        self.store.write(&Batch { facts, ..Batch::default() }).await.unwrap().receipts
    }
}

pub(super) fn pack() -> PackName {
    PackName::parse("support").unwrap()
}

pub(super) fn rollout() -> RolloutId {
    RolloutId::of(&pack(), 1)
}

pub(super) fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(super) fn hash(key: &str) -> SessionHash {
    SessionHash::of(&pack(), &SessionKey::parse(key).unwrap())
}

pub(super) fn manifest(version: &str) -> String {
    format!(
        "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: support}}\n\
         spec:\n  version: \"{version}\"\n  rollout: {{strategy: canary}}\n"
    )
}

fn plan(version: &str) -> Plan {
    serin_core::parse::parse(&manifest(version)).expect("the manifest of the tests is right").plan
}

/// A version as [`World::apply`] publishes it.
pub(super) fn stored_version(text: &str, now: Timestamp) -> StoredVersion {
    StoredVersion {
        version: version(text),
        content: Some("{}".to_owned()),
        content_digest: format!("content-{text}"),
        manifest: manifest(text),
        plan_digest: "plan".to_owned(),
        actor: Actor::named("ada"),
        created_at: now,
    }
}

pub(super) fn contact(key: &str, cohort: CohortId, now: Timestamp) -> Contact {
    let key = SessionKey::parse(key).unwrap();
    Contact {
        pack: Arc::new(pack()),
        hash: SessionHash::of(&pack(), &key),
        key,
        cohort,
        at: now,
        pinned: true,
    }
}

fn fact(key: &str, cohort: CohortId, id: &str, now: Timestamp, fact: Fact) -> SessionFact {
    SessionFact {
        pack: Arc::new(pack()),
        hash: hash(key),
        cohort,
        id: id.to_owned(),
        at: now,
        until: now,
        fact,
    }
}

pub(super) fn started(key: &str, cohort: CohortId, id: &str, now: Timestamp) -> SessionFact {
    fact(key, cohort, id, now, Fact::Started)
}

/// A successful answer after 250 ms.
pub(super) fn response(key: &str, cohort: CohortId, id: &str, now: Timestamp) -> SessionFact {
    let seen = Response { success: Some(true), latency_ms: Some(250.0), ..Response::default() };
    let until = HoldFor::from_millis(250).after(now);
    SessionFact { until, ..fact(key, cohort, id, now, Fact::Response(seen)) }
}

pub(super) fn completed(key: &str, cohort: CohortId, id: &str, now: Timestamp) -> SessionFact {
    let outcome = Outcome::parse("task_completion", 1.0, &[]).unwrap();
    fact(key, cohort, id, now, Fact::Outcome(outcome))
}

/// Runs every rule on SQLite, each on a fresh store.
macro_rules! on_sqlite {
    ($world:ident: $($rule:path as $name:ident),* $(,)?) => { $(
        #[tokio::test]
        async fn $name() {
            $rule(crate::store::tests::World::$world().await).await;
        }
    )* };
}
pub(super) use on_sqlite;
