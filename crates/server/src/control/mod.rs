//! The control side: applies manifests, carries out orders, and runs the loop that ticks rollouts.
//!
//! Everything here decides through `serin_core` and keeps no memory between ticks beyond what the
//! store holds; the copy in memory is reloaded whenever a commit finds that somebody else was first.
//!
//! **Invariant:** a rollback never waits. It is in force in this process before anything is locked
//! or written; see [`journal`].

pub mod apply;
mod commit;
mod draining;
mod force;
pub mod journal;
pub mod measure;
mod observe;
pub mod order;
pub mod policy;
mod recent;
mod remind;
mod run;
pub mod view;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use serin_core::alert::Alert;
use serin_core::ids::{PackName, ProviderName, Version};
use serin_core::pack::PackState;
use serin_core::parse::parse;
use serin_core::plan::Plan;
use serin_core::policy::Policy;
use serin_core::prompt::Pack;
use serin_core::routing::{Cohorts, Pin, seconds};
use serin_core::units::Timestamp;
use serin_core::weight::Weight;
use tokio::sync::{Mutex, RwLock, broadcast};

use self::commit::MOST_KEPT;
pub use self::commit::NotCommitted;
pub use self::force::FILE as FORCE_STABLE_FILE;
use self::force::Forced;
use self::journal::Journal;
use self::measure::Measurer;
use self::run::SWEPT_TWICE;
use crate::alerts::Alerts;
use crate::clock::Clock;
use crate::recent::Recent;
use crate::resolve::Resolver;
use crate::segments::Segments;
use crate::store::{Store, StoreError, StoredPack};

/// Makes the salts of rollouts; random in production, counted in tests.
pub type Salts = Box<dyn Fn() -> String + Send + Sync>;

/// The control side of a running server.
pub struct Control {
    store: Store,
    resolver: Arc<Resolver>,
    clock: Clock,
    salts: Salts,
    data_dir: PathBuf,
    journal: Journal,
    forced: std::sync::Mutex<Forced>,
    packs: RwLock<BTreeMap<PackName, Arc<Mutex<Managed>>>>,
    events: broadcast::Sender<Event>,
    left: draining::Counted,
    /// Asks outside providers; without one, what only they know cannot be measured.
    measurer: OnceLock<Measurer>,
    /// Alerts of other systems; without them none holds.
    alerts: OnceLock<Arc<Alerts>>,
    /// The LLM providers that versions may name; not checked as long as nobody told.
    providers: OnceLock<BTreeSet<ProviderName>>,
    /// Rules that manifests and orders have to keep.
    policy: Policy,
    /// The share of the sessions that is recorded; not checked as long as nobody told.
    recorded: OnceLock<Weight>,
    /// When the server came back from an end without warning, if it did.
    back_since: OnceLock<Timestamp>,
    recent: Recent<recent::Kept>,
    looked: watch::Looked,
    /// What is counted on the way.
    pub counts: ControlCounts,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// What is counted on the way.
#[derive(Debug, Default)]
pub struct ControlCounts {
    /// Ticks of rollouts.
    pub ticks: AtomicU64,
    /// Transitions committed.
    pub transitions: AtomicU64,
    /// Commits that found that somebody else was first.
    pub conflicts: AtomicU64,
    /// Ticks and commits that the store failed.
    pub store_failures: AtomicU64,
    /// Times that the evidence of a pack was added up for metrics.
    pub views: AtomicU64,
    /// Changes of weight put off because pins were not durable in time.
    pub put_off: AtomicU64,
}

/// Something that happened to a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The pack.
    pub pack: PackName,
    /// Its revision afterwards.
    pub revision: u64,
    /// The actions that went to the audit log, as they are written there.
    pub actions: Vec<&'static str>,
}

/// One pack in memory.
#[derive(Debug)]
struct Managed {
    state: PackState,
    cohorts: Cohorts,
    /// The plan of the rollout under way, or of the last one, or of stable.
    plan: Arc<Plan>,
    /// Who belongs to which segment of the plan.
    segments: Arc<Segments>,
    /// The prompts of the versions that sessions may get.
    prompts: BTreeMap<Version, Arc<Pack>>,
}

/// Why a pack could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store failed.
    #[error("could not load the packs")]
    Store(#[from] StoreError),
    /// A stored manifest does not parse any more.
    #[error("could not read the stored manifest of {pack} {version}: {problems}")]
    Manifest {
        /// The pack.
        pack: PackName,
        /// The version.
        version: Version,
        /// What is wrong with it.
        problems: String,
    },
    /// The journal of rollbacks cannot be read.
    #[error("could not read the rollback journal {path}")]
    Journal {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Control {
    /// Loads all packs, reloads the pins of live sessions, and puts everything in force.
    ///
    /// Rollbacks that were in force but not yet recorded when the process ended are in force again
    /// before the first request is answered.
    ///
    /// # Errors
    /// [`LoadError`] when the store or the journal cannot be read.
    pub async fn load(
        store: Store,
        resolver: Arc<Resolver>,
        salts: Salts,
        data_dir: &Path,
        policy: Policy,
    ) -> Result<Arc<Self>, LoadError> {
        let journal_path = data_dir.join(journal::FILE);
        let journal = Journal::open(&journal_path)
            .map_err(|source| LoadError::Journal { path: journal_path.clone(), source })?;
        let forced = Forced {
            file: force::read(data_dir),
            rolled_back: journal.packs(),
            recorded: store.forced_packs().await?,
        };
        let clock = resolver.clock.clone();
        let control = Arc::new(Self {
            store,
            resolver,
            clock,
            salts,
            data_dir: data_dir.to_owned(),
            journal,
            forced: std::sync::Mutex::new(forced),
            packs: RwLock::default(),
            events: broadcast::channel(256).0,
            left: draining::Counted::default(),
            measurer: OnceLock::new(),
            alerts: OnceLock::new(),
            providers: OnceLock::new(),
            policy,
            recorded: OnceLock::new(),
            back_since: OnceLock::new(),
            recent: Recent::default(),
            looked: watch::Looked::default(),
            counts: ControlCounts::default(),
        });
        for stored in control.store.packs().await? {
            let managed = control.manage(stored).await?;
            control.publish(&managed, None);
            let name = managed.state.name.clone();
            control.packs.write().await.insert(name, Arc::new(Mutex::new(managed)));
        }
        let snapshot = control.resolver.snapshot();
        let idle =
            snapshot.packs.values().map(|pack| pack.route.sessions.idle_timeout).max().unwrap_or_default();
        let pins = &control.resolver.pins;
        let now = control.clock.now();
        let seen_since = idle.plus(SWEPT_TWICE).before(now);
        control
            .store
            .pins(seen_since, &mut |hash, pin| {
                let last_seen = Timestamp::from_second(i64::from(pin.last_seen)).unwrap_or(now);
                let last_seen = seconds(SWEPT_TWICE.after(last_seen).min(now)).max(pin.last_seen);
                pins.insert(hash, None, Pin { last_seen, ..pin });
            })
            .await?;
        Ok(control)
    }

    /// Asks these providers from now on for what outside gates want to know; the first call counts.
    pub fn measure_with(&self, measurer: Measurer) {
        // A second call comes from nobody.
        let _ = self.measurer.set(measurer);
    }

    /// From now on holds rollouts whose packs these alerts are about; the first call counts.
    pub fn hold_by(&self, alerts: Arc<Alerts>) {
        // A second call comes from nobody.
        let _ = self.alerts.set(alerts);
    }

    /// The alerts about a pack.
    fn alerts_of(&self, pack: &PackName) -> Vec<Alert> {
        self.alerts.get().map(|alerts| alerts.of(pack)).unwrap_or_default()
    }

    /// From now on refuses versions that name another provider than these, and warns of those that are served
    /// already; the first call counts.
    pub fn know_providers(&self, providers: BTreeSet<ProviderName>) {
        for (name, pack) in &self.resolver.snapshot().packs {
            let of_versions =
                pack.prompts.iter().filter_map(|(version, pack)| Some((version, pack.provider()?)));
            for (version, provider) in of_versions.filter(|(_, provider)| !providers.contains(provider)) {
                tracing::warn!(pack = %name, %version, %provider, "{name} {version} goes to the provider {provider}, which is not in the settings; its requests will fail");
            }
        }
        // A second call comes from nobody.
        let _ = self.providers.set(providers);
    }

    /// From now on warns of judges that are to judge more sessions than are recorded; the first call counts.
    pub fn know_recording(&self, rate: Weight) {
        // A second call comes from nobody.
        let _ = self.recorded.set(rate);
    }

    /// From now on knows that the server came back from an end without warning; the first call counts.
    pub fn know_crash(&self, back_since: Timestamp) {
        // A second call comes from nobody.
        let _ = self.back_since.set(back_since);
    }

    /// Tells of everything that happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The resolver.
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.resolver
    }

    /// The names of all packs.
    pub async fn names(&self) -> Vec<PackName> {
        self.packs.read().await.keys().cloned().collect()
    }

    async fn managed(&self, pack: &PackName) -> Option<Arc<Mutex<Managed>>> {
        self.packs.read().await.get(pack).cloned()
    }

    /// Reads everything that serving a pack needs besides its state.
    async fn manage(&self, stored: StoredPack) -> Result<Managed, LoadError> {
        let StoredPack { state, cohorts: list } = stored;
        let mut cohorts = Cohorts::default();
        for cohort in list {
            cohorts.insert(Arc::new(cohort));
        }
        let plan = match &state.rollout {
            Some(rollout) => {
                let manifest = self.store.rollout(&rollout.id).await?.map(|stored| stored.manifest);
                self.plan_of(&state.name, &rollout.canary, manifest).await?
            }
            None => self.plan_of(&state.name, &state.stable, None).await?,
        };
        // A session between a tool call and its result may have a version whose rollout was superseded.
        let latest = latest_versions(&cohorts);
        let prompts = self.prompts_of(&state, latest).await?;
        let segments = segments_of(&plan);
        Ok(Managed { state, cohorts, plan, segments, prompts })
    }

    /// The plan of a version with what the policy imposes, from a manifest text or else from the one that it was
    /// published with.
    async fn plan_of(
        &self,
        pack: &PackName,
        version: &Version,
        manifest: Option<String>,
    ) -> Result<Arc<Plan>, LoadError> {
        let text = match manifest {
            Some(text) => text,
            None => {
                self.store.version(pack, version).await?.map(|stored| stored.manifest).unwrap_or_default()
            }
        };
        let parsed = parse(&text).map_err(|problems| LoadError::Manifest {
            pack: pack.clone(),
            version: version.clone(),
            problems: problems.to_string(),
        })?;
        let mut plan = parsed.plan;
        self.policy.impose(&mut plan);
        Ok(Arc::new(plan))
    }

    /// The prompts of every version that a session of the pack may get, and of others.
    async fn prompts_of(
        &self,
        state: &PackState,
        also: Vec<Version>,
    ) -> Result<BTreeMap<Version, Arc<Pack>>, LoadError> {
        // A session between a tool call and its result keeps a version that is out of service already.
        let sides = state.rollout.iter().flat_map(|rollout| [rollout.canary.clone(), rollout.stable.clone()]);
        let draining = state.draining.iter().map(|draining| draining.version.clone());
        let mut prompts = BTreeMap::new();
        for version in std::iter::once(state.stable.clone()).chain(sides).chain(draining).chain(also) {
            if prompts.contains_key(&version) {
                continue;
            }
            let Some(stored) = self.store.version(&state.name, &version).await? else { continue };
            let Some(content) = stored.content else { continue };
            let pack = Pack::stored(&content).map_err(|problems| LoadError::Manifest {
                pack: state.name.clone(),
                version: version.clone(),
                problems: problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            })?;
            prompts.insert(version, Arc::new(pack));
        }
        Ok(prompts)
    }
}

/// The versions that sessions were assigned to lately, the latest first.
fn latest_versions(cohorts: &Cohorts) -> Vec<Version> {
    let mut versions: Vec<Version> = Vec::new();
    let mut all: Vec<_> = cohorts.iter().collect();
    all.reverse();
    for cohort in all {
        if versions.len() == MOST_KEPT {
            break;
        }
        if !versions.contains(&cohort.version) {
            versions.push(cohort.version.clone());
        }
    }
    versions
}

/// The segments of a plan, ready for the request path.
fn segments_of(plan: &Plan) -> Arc<Segments> {
    Arc::new(Segments::of(&plan.segments).expect("parsing a manifest compiles every expression"))
}
