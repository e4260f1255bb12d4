//! Puts the parts together: one process, one data directory, two listeners.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::alerts::Alerts;
use crate::api::guard::{DataExposure, Guard};
use crate::api::listen::{Limits, ListenCounts, Listener};
use crate::api::ofrep::Ofrep;
use crate::api::{Parts, Recent, control_plane, data_plane};
use crate::auth::{Auth, FirstKeyError, KeyRing, first_key, random};
use crate::clock::Clock;
use crate::control::measure::Measurer;
use crate::control::{Control, LoadError, Salts};
use crate::errors::Chain;
use crate::gateway::{Gateway, GatewaySettings, Ids, StreamUsage, UpstreamError, Upstreams};
use crate::ingest::{Ingest, IngestCounts};
use crate::judge::Judges;
use crate::lock::Lock;
use crate::notify::link::{LinkKeyError, Links};
use crate::notify::{Notifier, NotifyError};
use crate::oidc::Oidc;
use crate::otlp::Otlp;
use crate::otlp::meaning::Own;
use crate::pins::PinTable;
use crate::resolve::Resolver;
use crate::samples::Samples;
use crate::settings::Settings;
use crate::signal;
use crate::store::{Store, StoreError};

/// The database in the data directory.
pub const DATABASE: &str = "serin.db";
/// How often the pin table is looked after.
const MAINTAIN_EVERY: Duration = Duration::from_millis(100);
/// How often the last uses of keys go to the store.
const NOTE_USES_EVERY: Duration = Duration::from_secs(60);

/// What a test replaces: the clock and the dice.
pub struct Overrides {
    /// Tells the time.
    pub clock: Clock,
    /// Makes the salts of rollouts.
    pub salts: Salts,
    /// Makes ids of requests, events and sessions without a key.
    pub ids: Ids,
    /// Draws the waits between two attempts to tell somebody.
    pub seed: u64,
    /// The size at which the disk is full for the database, in pages of 4 KiB; nothing leaves that to the disk.
    pub disk_pages: Option<u32>,
}

impl Default for Overrides {
    /// The machine's clock and randomness.
    fn default() -> Self {
        Self {
            clock: Clock::System,
            salts: Box::new(|| format!("{:032x}", rand::random::<u128>())),
            ids: Ids::new(new_id),
            seed: rand::random(),
            disk_pages: None,
        }
    }
}

/// 48 bits of time in milliseconds and 80 random ones: ids that follow each other lie together in an index.
fn new_id() -> u128 {
    let milliseconds = u128::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    (milliseconds << 80) | (rand::random::<u128>() >> 48)
}

impl std::fmt::Debug for Overrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overrides").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// Why a server did not start; nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("could not use the data directory {}: {source}\nhint: name a directory that this user may write to with `--data-dir`", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses the data directory.
    #[error("the data directory {} is in use by another process\nhint: stop it, or name another directory with `--data-dir`", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// An address cannot be listened on.
    #[error(
        "could not listen on {address} for the {plane}: {source}\nhint: another process may listen there; choose another address with `{flag}`"
    )]
    Listen {
        /// `data plane` or `control plane`.
        plane: &'static str,
        /// The address.
        address: SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The way to the metric providers cannot be set up.
    #[error("could not set up TLS for the metric providers: {0}")]
    MetricProviders(#[source] std::io::Error),
    /// The way to the provider cannot be set up.
    #[error(transparent)]
    Provider(#[from] UpstreamError),
    /// The receivers of notifications cannot be set up.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// The key of signed links cannot be used.
    #[error(transparent)]
    Link(#[from] LinkKeyError),
    /// The way to the identity provider cannot be set up.
    #[error("could not set up TLS for the identity provider: {0}")]
    Oidc(#[source] std::io::Error),
    /// The first key cannot be made.
    #[error(transparent)]
    FirstKey(#[from] FirstKeyError),
}

/// A running server; dropping it stops it at once, [`Server::shutdown`] stops it in order.
#[derive(Debug)]
pub struct Server {
    data: SocketAddr,
    control_address: SocketAddr,
    control: Arc<Control>,
    auth: Arc<Auth>,
    first_key: Option<PathBuf>,
    gateway: Arc<Gateway>,
    notifier: Arc<Notifier>,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
    background: JoinSet<()>,
    ingest: Ingest,
    samples: Arc<Samples>,
    sampling: JoinHandle<()>,
    judges: Arc<Judges>,
    store: Store,
    /// Held for as long as the server runs.
    lock: Lock,
}

impl Server {
    /// Starts a server and returns once both listeners answer.
    ///
    /// # Errors
    /// [`StartError`] tells what is in the way.
    pub async fn start(settings: &Settings, overrides: Overrides) -> Result<Self, StartError> {
        let mut lock = Lock::take(&settings.data_dir)?;
        let data = listen("data plane", settings.data.listen, "--listen").await?;
        let control_listener = listen("control plane", settings.control.listen, "--control-listen").await?;
        let Overrides { clock, salts, ids, seed, disk_pages } = overrides;
        let upstreams = Upstreams::new(&settings.providers)?;
        let database = settings.data_dir.join(DATABASE);
        let store = match disk_pages {
            Some(pages) => Store::open_bounded(&database, pages).await?,
            None => Store::open(&database).await?,
        };
        let keys = KeyRing::load(store.clone(), &settings.control.keys).await?;
        let first_key = match settings.control.open {
            true => None,
            false => first_key(&keys, &settings.data_dir, random(), clock.now()).await?,
        };
        let auth = Auth::new(keys, settings.control.open);
        let (signals, received) = signal::queue(settings.ingest_queue);
        let ingest = Ingest::spawn(store.clone(), received);
        let pins = PinTable::with_capacity_limit(settings.data.max_pins);
        let started_at = clock.now();
        let resolver = Arc::new(Resolver::new(pins, clock, signals));
        let (data_dir, policy) = (&settings.data_dir, settings.policy.clone());
        let control = Control::load(store.clone(), Arc::clone(&resolver), salts, data_dir, policy).await?;
        control.know_providers(settings.providers.by_name.keys().cloned().collect());
        control.know_recording(settings.samples.rate);
        let (samples, sampling) = Samples::start(settings.samples.clone(), store.clone());
        let mut gateway_settings = gateway_settings(settings, ids.clone());
        gateway_settings.samples = samples.is_on().then(|| Arc::clone(&samples));
        control.measure_with(
            Measurer::new(settings.metric_providers.clone()).map_err(StartError::MetricProviders)?,
        );
        let oidc = settings.oidc.clone().map(Oidc::new).transpose().map_err(StartError::Oidc)?;
        let alerts = Arc::new(Alerts::load(store.clone(), settings.alerts.clone()).await?);
        control.hold_by(Arc::clone(&alerts));
        let gateway = Arc::new(Gateway::new(resolver, upstreams, gateway_settings));
        let base = settings.control.public_url.as_deref();
        let links = Arc::new(Links::open(&settings.data_dir, base, settings.notify.link_lifetime)?);
        let of_people = settings.notify.clone();
        let notifier = Notifier::load(Arc::clone(&control), Arc::clone(&links), of_people, seed).await?;
        let notifier = Arc::new(notifier);
        let judges = Arc::new(Judges::new(
            Arc::clone(&control),
            Arc::clone(&gateway),
            Arc::clone(&samples),
            ingest.reporter(),
            ids.clone(),
            settings.prices.clone(),
        ));
        let (stop, stopped) = watch::channel(false);
        let (data_address, control_address) = (data.address(), control_listener.address());
        let clock = &control.resolver().clock;
        let exposure = DataExposure {
            address: data_address,
            keys: settings.data.keys,
            holds_provider_key: settings.providers.hold_a_key(),
            hosts: &settings.data.hosts,
        };
        let data_guard = Guard::data(Arc::clone(&auth), clock.clone(), exposure);
        let data_guard = data_guard.with_pace(settings.data.max_requests_per_minute);
        let hosts = &settings.control.hosts;
        let control_guard = Guard::control(Arc::clone(&auth), clock.clone(), control_address, hosts);
        let control_guard = control_guard.with_pace(settings.control.max_requests_per_minute);
        let connections = Arc::new(ListenCounts::default());
        let parts = Arc::new(Parts {
            connections: Arc::clone(&connections),
            control: Arc::clone(&control),
            auth: Arc::clone(&auth),
            secure_cookies: !control_address.ip().is_loopback(),
            gateway_guard: (!data_guard.is_open_to_apps()).then(|| data_guard.clone()),
            gateway: Arc::clone(&gateway),
            notifier: Arc::clone(&notifier),
            alerts,
            oidc: oidc.map(Arc::new),
            links,
            reporter: ingest.reporter(),
            ingest: Arc::clone(ingest.counts()),
            samples: Arc::clone(&samples),
            judges: Arc::clone(&judges),
            ids,
            ofrep: Ofrep::new(settings.data.ofrep_prompt_text, settings.data.ofrep_origins.clone()),
            otlp: Otlp::new(Own { port: data.address().port(), hosts: settings.control.hosts.clone() }),
            retention: settings.retention,
            started_at,
            stop: stopped.clone(),
            recent: Recent::default(),
        });
        let back_since = lock
            .note_running(started_at)
            .map_err(|source| StartError::DataDir { path: settings.data_dir.clone(), source })?;
        if let Some(back_since) = back_since {
            if back_since == started_at {
                tracing::warn!(
                    "the server before ended without warning: no weight rises until the sessions of that time have had their idle timeout to come back"
                );
            }
            control.know_crash(back_since);
        }
        let planes = [
            (data, data_plane(Arc::clone(&parts), data_guard)),
            (control_listener, control_plane(parts, control_guard)),
        ];
        let drain = settings.drain.as_std();
        let serving = planes
            .into_iter()
            .map(|(listener, router)| {
                let counts = Arc::clone(&connections);
                tokio::spawn(listener.serve(router, Limits::default(), counts, stopped.clone(), drain))
            })
            .collect();
        let mut background = background(&control, &auth, settings);
        background.spawn(Arc::clone(&notifier).run());
        background.spawn(Arc::clone(&judges).run());
        tracing::info!(data = %data_address, control = %control_address, "serving on {data_address}, control plane on {control_address}");
        Ok(Self {
            data: data_address,
            control_address,
            control,
            auth,
            first_key,
            gateway,
            notifier,
            stop,
            serving,
            background,
            ingest,
            samples,
            sampling,
            judges,
            store,
            lock,
        })
    }

    /// Where the data plane listens.
    pub fn data_addr(&self) -> SocketAddr {
        self.data
    }

    /// Where the control plane listens.
    pub fn control_addr(&self) -> SocketAddr {
        self.control_address
    }

    /// The control side.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Keys and sessions.
    pub fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    /// Where this start wrote the first key; nothing when there was one already, or none is needed.
    pub fn first_key(&self) -> Option<&Path> {
        self.first_key.as_deref()
    }

    /// What the ingest counts.
    pub fn ingest_counts(&self) -> &IngestCounts {
        self.ingest.counts()
    }

    /// The gateway.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Tells people what happened.
    pub fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    /// Asks judges about recorded sessions.
    pub fn judges(&self) -> &Arc<Judges> {
        &self.judges
    }

    /// Stops accepting, lets requests under way end, and writes what waits for the store.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        for plane in self.serving.drain(..) {
            if let Err(failed) = plane.await {
                tracing::error!(error = %failed, "a listener ended badly");
            }
        }
        self.background.shutdown().await;
        self.samples.settled().await;
        self.sampling.abort();
        let is_written = self.ingest.shutdown().await;
        note_uses(&self.auth).await;
        self.store.close().await;
        if is_written && let Err(failed) = self.lock.note_ended() {
            tracing::warn!(error = %failed, "could not note that the server ended in order; the next start takes it for a crash");
        }
    }
}

async fn listen(
    plane: &'static str,
    address: SocketAddr,
    flag: &'static str,
) -> Result<Listener, StartError> {
    Listener::bind(address).await.map_err(|source| StartError::Listen { plane, address, flag, source })
}

fn gateway_settings(settings: &Settings, ids: Ids) -> GatewaySettings {
    let data = &settings.data;
    GatewaySettings {
        body_limit: data.body_limit,
        session_headers: data.session_headers.clone(),
        system_message: data.system_message,
        stream_usage: if data.include_usage { StreamUsage::Add } else { StreamUsage::Leave },
        allow_version_override: data.allow_version_override,
        prices: settings.prices.clone(),
        ..GatewaySettings::new(ids)
    }
}

/// What runs beside the requests for as long as the server does.
fn background(control: &Arc<Control>, auth: &Arc<Auth>, settings: &Settings) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(control).run());
    tasks.spawn(Arc::clone(control).watch_force_file());
    tasks.spawn(Arc::clone(control).remind_of_holds(settings.notify.hold_lasts));
    tasks.spawn(Arc::clone(control).sweep(settings.retention));
    tasks.spawn(maintain_pins(Arc::clone(control.resolver())));
    tasks.spawn(note_uses_of_keys(Arc::clone(auth)));
    tasks
}

async fn note_uses_of_keys(auth: Arc<Auth>) {
    let mut every = tokio::time::interval(NOTE_USES_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        note_uses(&auth).await;
    }
}

async fn note_uses(auth: &Auth) {
    if let Err(error) = auth.keys.note_uses().await {
        tracing::warn!(error = %Chain(&error), "could not note the last use of keys: {}", Chain(&error));
    }
}

async fn maintain_pins(resolver: Arc<Resolver>) {
    let mut every = tokio::time::interval(MAINTAIN_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let resolver = Arc::clone(&resolver);
        // Moving millions of pins to a larger table takes up to a second.
        if tokio::task::spawn_blocking(move || resolver.pins.maintain()).await.is_err() {
            tracing::error!("looking after the pin table broke off");
        }
    }
}
