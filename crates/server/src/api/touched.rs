//! Which versions of which packs a session was exposed to, for what is reported about it later.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_core::ids::{PackName, SessionHash, SessionKey};
use serin_core::observation::{Fact, Outcome};
use serin_core::routing::CohortId;
use serin_core::units::{HoldFor, Timestamp};

use super::Parts;
use crate::signal::SessionFact;
use crate::snapshot::{PackSnapshot, Snapshot};
use crate::store::StoreError;

/// How far ahead of this clock something reported may lie.
const FUTURE: HoldFor = HoldFor::from_mins(5);

/// A session of one pack.
#[derive(Debug, Clone)]
pub(super) struct Touched {
    /// The pack as it is served.
    pub(super) pack: Arc<PackSnapshot>,
    /// The hash of the session's key.
    pub(super) hash: SessionHash,
    /// What was stamped on it.
    pub(super) cohort: CohortId,
}

impl Touched {
    /// A fact about the session.
    pub(super) fn fact(&self, id: String, at: Timestamp, until: Timestamp, fact: Fact) -> SessionFact {
        let Self { pack, hash, cohort } = self;
        SessionFact { pack: Arc::clone(&pack.name), hash: *hash, cohort: *cohort, id, at, until, fact }
    }
}

/// Finds the sessions that one request reports about.
pub(super) struct Sessions<'a> {
    app: &'a Parts,
    /// What is served right now.
    pub(super) snapshot: Arc<Snapshot>,
    /// Sessions whose packs were looked for already.
    found: BTreeMap<SessionKey, Vec<Touched>>,
}

impl<'a> Sessions<'a> {
    pub(super) fn new(app: &'a Parts) -> Self {
        Self { app, snapshot: app.resolver().snapshot(), found: BTreeMap::new() }
    }

    /// The pack of a name.
    pub(super) fn pack(&self, name: &str) -> Option<&Arc<PackSnapshot>> {
        PackName::parse(name).ok().and_then(|name| self.snapshot.packs.get(&name))
    }

    /// The session of one pack; nothing where it is not known here.
    pub(super) async fn of_pack(
        &self,
        pack: &Arc<PackSnapshot>,
        key: &SessionKey,
    ) -> Result<Option<Touched>, StoreError> {
        let hash = SessionHash::of(&pack.name, key);
        // The pin first; the store remembers sessions that have ended.
        let cohort = match self.app.resolver().pins.get(hash) {
            Some(pin) => Some(pin.cohort),
            None => self.app.control.store().attribution(hash).await?,
        };
        Ok(cohort.map(|cohort| Touched { pack: Arc::clone(pack), hash, cohort }))
    }

    /// The session in every pack that it touched.
    pub(super) async fn of_all(&mut self, key: &SessionKey) -> Result<&[Touched], StoreError> {
        if !self.found.contains_key(key) {
            let mut touched = Vec::new();
            for pack in self.snapshot.packs.values() {
                touched.extend(self.of_pack(pack, key).await?);
            }
            self.found.insert(key.clone(), touched);
        }
        Ok(self.found.get(key).map_or(&[], Vec::as_slice))
    }

    /// Whether something reported may have happened then.
    pub(super) fn check_time(&self, at: Timestamp) -> Result<(), String> {
        let now = self.app.now();
        let retention = self.app.retention;
        if at > FUTURE.after(now) {
            return Err(format!("`at` {at} lies more than {FUTURE} ahead of this clock"));
        }
        if at < retention.before(now) {
            return Err(format!(
                "`at` {at} lies further back than the {retention} that observations are kept"
            ));
        }
        Ok(())
    }
}

/// The outcome for each pack that knows it; an error where none does.
pub(super) fn outcomes<'t>(
    touched: &'t [Touched],
    name: &str,
    value: f64,
) -> Result<Vec<(&'t Touched, Outcome)>, String> {
    let mut found = Vec::new();
    let mut refused = None;
    for touched in touched {
        match Outcome::parse(name, value, &touched.pack.custom) {
            Ok(outcome) => found.push((touched, outcome)),
            Err(error) => refused = Some(error.to_string()),
        }
    }
    match refused {
        Some(reason) if found.is_empty() => Err(reason),
        Some(_) | None => Ok(found),
    }
}
