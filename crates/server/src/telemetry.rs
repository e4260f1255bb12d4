//! The log, and the metrics in the OpenMetrics text format.
//!
//! Metrics are counted where things happen and gathered here for each scrape. Labels come from the names of packs,
//! the versions under way and fixed words, so that their number stays bounded.

mod judges;
mod measured;
mod providers;

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use serin_core::aggregate::Tally;
use serin_core::ids::PackName;
use serin_core::observation::ErrorKind;
use tracing_subscriber::EnvFilter;

pub use self::measured::MOST_METRICS;
use self::measured::Measured;
use crate::alerts::Alerts;
use crate::api::listen::ListenCounts;
use crate::api::types::SidesView;
use crate::api::view::percent;
use crate::auth::Auth;
use crate::control::Control;
use crate::control::view::PackView;
use crate::gateway::{GatewayCounts, Upstreams};
use crate::ingest::IngestCounts;
use crate::judge::JudgeCounts;
use crate::notify::Notifier;
use crate::oidc::Oidc;
use crate::otlp::Otlp;
use crate::samples::SampleCounts;
use crate::settings::{LogFormat, LogSettings};

/// The media type of the metrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The longest time that a scrape waits for what is known of one pack.
const PACK_WITHIN: Duration = Duration::from_secs(2);

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(
        "could not read log.filter {filter:?}: {problem}; hint: write `info` or `info,serin_server=debug`"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is a log already.
    #[error("the log is set up already")]
    Twice,
}

/// Writes the log of this process to standard error, as the settings say.
///
/// # Errors
/// [`LogError`] when the filter is wrong or there is a log already.
pub fn init(settings: &LogSettings) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|error| LogError::Filter { filter: settings.filter.clone(), problem: error.to_string() })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match settings.format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    set.map_err(|_| LogError::Twice)
}

/// Where the metrics come from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The control side.
    pub control: &'a Control,
    /// What the ingest counts.
    pub ingest: &'a IngestCounts,
    /// Keys and sessions.
    pub auth: &'a Auth,
    /// What is counted of connections.
    pub connections: &'a ListenCounts,
    /// What the gateway counts.
    pub gateway: &'a GatewayCounts,
    /// The providers, with what is counted of each.
    pub upstreams: &'a Upstreams,
    /// What is counted of each receiver of notifications.
    pub notifier: &'a Notifier,
    /// Signs people in; nothing where the settings name nobody who would.
    pub oidc: Option<&'a Oidc>,
    /// Alerts of other systems, and what is counted of them.
    pub alerts: &'a Alerts,
    /// What is counted of the telemetry that apps send.
    pub otlp: &'a Otlp,
    /// What is counted of conversation samples.
    pub samples: &'a SampleCounts,
    /// What is counted of judges.
    pub judges: &'a JudgeCounts,
    /// When the server started.
    pub started_at: Timestamp,
}

/// All metrics as text.
pub async fn metrics(sources: Sources<'_>) -> String {
    let mut registry = Registry::with_prefix("serin");
    process(&mut registry, sources);
    auth(&mut registry, sources.auth);
    connections(&mut registry, sources.connections);
    gateway(&mut registry, sources.gateway);
    providers::providers(&mut registry, sources.upstreams);
    otlp(&mut registry, sources.otlp);
    ingest(&mut registry, sources);
    samples(&mut registry, sources.samples);
    judges::judges(&mut registry, sources.judges);
    control(&mut registry, sources.control);
    notify(&mut registry, sources.notifier);
    alerts(&mut registry, sources);
    sources.oidc.inspect(|oidc| sign_ins(&mut registry, oidc));
    packs(&mut registry, sources.control).await;
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string cannot fail");
    text
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Counts as a gauge holds them.
fn gauge_of(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstGauge::new(gauge_of(value)));
}

fn process(registry: &mut Registry, sources: Sources<'_>) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    let info = prometheus_client::metrics::info::Info::new(version);
    registry.register("build", "The release", info);
    let start = ConstGauge::new(sources.started_at.as_second());
    registry.register("start_time_seconds", "When the server started, in seconds since 1970", start);
}

fn connections(registry: &mut Registry, counts: &ListenCounts) {
    let registry = registry.sub_registry_with_prefix("connections");
    counter(registry, "accepted", "Connections that were accepted", load(&counts.accepted));
    let refused = "Connections that were closed because their address had too many";
    counter(registry, "refused", refused, load(&counts.refused));
}

fn auth(registry: &mut Registry, auth: &Auth) {
    let registry = registry.sub_registry_with_prefix("auth");
    let counts = &auth.counts;
    counter(
        registry,
        "unauthorized",
        "Requests without a key, or with one that is not known or no longer good",
        load(&counts.unauthorized),
    );
    counter(
        registry,
        "forbidden",
        "Requests whose key is not good for what they asked",
        load(&counts.forbidden),
    );
    counter(registry, "too_many", "Requests whose key was used too fast", load(&counts.too_many));
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    gauge(registry, "keys", "Keys that there are", count(auth.keys.list().len()));
    gauge(registry, "sessions", "Sessions of the dashboard", count(auth.sessions.len()));
}

fn sign_ins(registry: &mut Registry, oidc: &Oidc) {
    let registry = registry.sub_registry_with_prefix("oidc");
    let counts = oidc.counts();
    for (name, help, count) in [
        ("begun", "Sign-ins that were begun at the identity provider", &counts.begun),
        ("signed_in", "Sign-ins that ended with a session", &counts.signed_in),
        ("without_role", "Sign-ins of people who have no role here", &counts.without_role),
        ("failed", "Sign-ins that ended in another way", &counts.failed),
        ("forgotten", "Sign-ins under way that were forgotten to make room", &counts.forgotten),
    ] {
        counter(registry, name, help, load(count));
    }
}

fn alerts(registry: &mut Registry, sources: Sources<'_>) {
    let registry = registry.sub_registry_with_prefix("alerts");
    let now = sources.control.resolver().clock.now();
    let firing = u64::try_from(sources.alerts.firing(now)).unwrap_or(u64::MAX);
    gauge(registry, "firing", "Alerts of other systems that fire", firing);
    let counts = &sources.alerts.counts;
    for (name, help, count) in [
        ("said_firing", "Alerts that came in as firing, repetitions included", &counts.firing),
        ("said_resolved", "Alerts that came in as resolved and ended what fired", &counts.resolved),
        ("ignored", "Alerts that came in and had no effect", &counts.ignored),
        ("refused", "Alerts that were refused because too many fire", &counts.refused),
    ] {
        counter(registry, name, help, load(count));
    }
}

fn gateway(registry: &mut Registry, counts: &GatewayCounts) {
    let registry = registry.sub_registry_with_prefix("gateway");
    for (name, help, count) in [
        ("requests", "All requests", &counts.requests),
        ("passed", "Requests that passed through without a prompt of ours", &counts.passed),
        ("succeeded", "Requests that got a prompt and a complete answer", &counts.succeeded),
        ("provider_failed", "Requests with a prompt that the provider failed", &counts.provider_failed),
        (
            "request_failed",
            "Requests with a prompt that were refused or could not be rendered",
            &counts.request_failed,
        ),
        ("client_left", "Requests with a prompt whose client left first", &counts.client_left),
        ("refused", "Requests that the gateway answered with an error of its own", &counts.refused),
        ("provider_unreachable", "Requests for which the provider could not be reached", &counts.unreachable),
        (
            "provider_timeouts",
            "Requests for which the provider did not begin to answer in time",
            &counts.timed_out,
        ),
        ("answers_too_large", "Answers that were too large to be observed in full", &counts.tap_overflow),
        ("answers_unreadable", "Answers in a form that only their clients can read", &counts.tap_unreadable),
        ("answers_garbled", "Answers that are none of their protocol, which fail", &counts.tap_garbled),
        (
            "parameters_left_out",
            "Parameters of packs that the protocol of a request does not have",
            &counts.parameters_left_out,
        ),
        (
            "tools_left_out",
            "Tools of packs that were not added to requests with functions in the old form",
            &counts.tools_left_out,
        ),
        (
            "tools_unjudged_by_schema",
            "Answers whose tool calls were not judged, for a schema is too large or too much work",
            &counts.tools_unjudged_by_schema,
        ),
        (
            "tools_unjudged_by_size",
            "Answers whose tool calls were not judged, for there are too many or too long ones",
            &counts.tools_unjudged_by_size,
        ),
        (
            "history_without_session",
            "Requests that bring a history and no session; these may change versions between turns",
            &counts.history_without_session,
        ),
        (
            "sessions_by_response",
            "Requests without a session key whose session was found by a response that they name",
            &counts.sessions_by_response,
        ),
        (
            "sessions_by_answer",
            "Requests without a session key whose session was found by our answer inside of them",
            &counts.sessions_by_answer,
        ),
        (
            "answers_ambiguous",
            "Requests without a session key whose answer inside sessions of several versions got",
            &counts.answers_ambiguous,
        ),
        (
            "answers_forgotten",
            "Remembered answers and questions that were forgotten to make room",
            &counts.answers_forgotten,
        ),
        (
            "responses_forgotten",
            "Responses of which it was forgotten whose they were, to make room for newer ones",
            &counts.responses_forgotten,
        ),
        ("provider_busy", "Requests refused because too many were under way to their provider", &counts.busy),
        ("provider_stalls", "Answers in whose middle the provider fell silent", &counts.stalled),
        ("unpriced", "Requests for models without a price, while others have one", &counts.unpriced),
        ("version_overrides", "Requests that named their version", &counts.version_overrides),
        (
            "usage_chunks_removed",
            "Chunks with the usage that clients had not asked for",
            &counts.usage_chunks_removed,
        ),
    ] {
        counter(registry, name, help, load(count));
    }
}

fn otlp(registry: &mut Registry, otlp: &Otlp) {
    let registry = registry.sub_registry_with_prefix("otlp");
    let counts = &otlp.counts;
    for (name, help, count) in [
        ("spans", "Spans that came", &counts.spans),
        ("records", "Log records that came", &counts.records),
        ("responses", "Model calls that were stored as responses", &counts.responses),
        ("outcomes", "Evaluations that were stored as outcomes", &counts.outcomes),
        ("exposures", "Flags evaluated for a session with the version that it has", &counts.exposures),
        ("duplicates", "Facts that were stored before", &counts.duplicates),
        ("seen_by_gateway", "Model calls that the gateway itself had seen", &counts.seen),
        ("ignored", "Model calls and flags of prompts that are not ours", &counts.ignored),
        ("rejected", "What was refused, with a reason to its sender", &counts.rejected),
        ("unjoined", "Model calls and evaluations that nothing gave a session in time", &counts.unjoined),
    ] {
        counter(registry, name, help, load(count));
    }
    let waiting = otlp.links.lock().unwrap_or_else(PoisonError::into_inner).waiting();
    let waiting = u64::try_from(waiting).unwrap_or(u64::MAX);
    gauge(registry, "waiting", "Model calls and evaluations that wait for their session", waiting);
}

fn ingest(registry: &mut Registry, sources: Sources<'_>) {
    let resolver = sources.control.resolver();
    let dropped = resolver.signals.dropped();
    let counts = sources.ingest;
    {
        let registry = registry.sub_registry_with_prefix("queue");
        counter(
            registry,
            "dropped_contacts",
            "Assignments that did not fit into the queue",
            dropped.contacts(),
        );
        counter(registry, "dropped_facts", "Facts that did not fit into the queue", dropped.facts());
    }
    {
        let registry = registry.sub_registry_with_prefix("ingest");
        counter(registry, "facts", "Facts that are stored and counted", counts.written());
        counter(registry, "contacts", "Assignments that are stored", counts.contacts());
        counter(registry, "duplicates", "Facts whose id was counted before", counts.duplicates());
        counter(
            registry,
            "dropped",
            "Facts dropped because the store was away for too long",
            counts.dropped(),
        );
        counter(registry, "batches", "Transactions that were committed", counts.batches());
        counter(registry, "failures", "Transactions that failed", counts.failures());
        gauge(registry, "waiting", "Assignments and facts that wait for the store", counts.waiting());
    }
    let registry = registry.sub_registry_with_prefix("sessions");
    let pins = &resolver.pins;
    gauge(
        registry,
        "pinned",
        "Sessions that keep their version",
        u64::try_from(pins.len()).unwrap_or(u64::MAX),
    );
    gauge(registry, "pinned_bytes", "Memory of the pins", u64::try_from(pins.bytes()).unwrap_or(u64::MAX));
    counter(
        registry,
        "unpinned",
        "New sessions that got stable without a pin because the table was full",
        load(&resolver.counts.unpinned),
    );
    counter(
        registry,
        "wait_timeouts",
        "New sessions that waited in vain for a change of weight",
        load(&resolver.counts.wait_timeouts),
    );
    counter(registry, "keyless", "Requests without a session", load(&resolver.counts.keyless));
}

fn samples(registry: &mut Registry, counts: &SampleCounts) {
    let registry = registry.sub_registry_with_prefix("samples");
    counter(registry, "stored", "Conversation samples that were stored", counts.stored());
    counter(
        registry,
        "dropped",
        "Conversation samples lost because the queue was full or the store failed",
        counts.dropped(),
    );
    counter(
        registry,
        "displaced",
        "Conversation samples that newer ones took the place of before their expiry",
        counts.displaced(),
    );
    counter(
        registry,
        "displaced_early",
        "Those of rollouts among them whose session was not quiet for a minute, so that no judge could read them",
        counts.displaced_early(),
    );
    counter(registry, "redactions", "Places taken out of conversation samples", counts.redactions());
}

fn control(registry: &mut Registry, control: &Control) {
    let registry = registry.sub_registry_with_prefix("control");
    let counts = &control.counts;
    for (name, help, count) in [
        ("ticks", "Ticks of rollouts", &counts.ticks),
        ("transitions", "Transitions that were committed", &counts.transitions),
        ("conflicts", "Commits that found that somebody else was first", &counts.conflicts),
        ("store_failures", "Ticks and commits that the store failed", &counts.store_failures),
        ("evidence_reads", "Times that the evidence of a pack was added up for metrics", &counts.views),
        ("put_off", "Changes of weight put off because pins were not durable in time", &counts.put_off),
    ] {
        counter(registry, name, help, load(count));
    }
}

fn notify(registry: &mut Registry, notifier: &Notifier) {
    let registry = registry.sub_registry_with_prefix("notify");
    let counters = [
        ("delivered", "Events that a receiver took"),
        ("failures", "Attempts to tell a receiver that failed"),
        ("dead", "Events that went to the dead letters of a receiver"),
        ("dead_dropped", "Dead letters of a receiver that made room for later ones"),
        ("unknown", "Entries of the audit log that this release cannot tell of"),
    ];
    let families = counters.map(|_| Counters::default());
    for (receiver, counts) in notifier.counts() {
        for (family, count) in families.iter().zip(counts) {
            family.get_or_create(&vec![("receiver", receiver.to_owned())]).inc_by(count);
        }
    }
    for ((name, help), family) in counters.into_iter().zip(families) {
        registry.register(name, help, family);
    }
}

/// Labels of one series.
type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter>;

/// What is shown of every pack.
#[derive(Debug, Default)]
struct PackMetrics {
    weight: Gauges,
    segment_weight: Gauges,
    unreadable: Counters,
    forced: Gauges,
    active: Gauges,
    phase: Gauges,
    holds: Gauges,
    failed_checks: Gauges,
    share: Gauges,
    sessions: Counters,
    requests: Counters,
    failures: Counters,
}

async fn packs(registry: &mut Registry, control: &Control) {
    let metrics = PackMetrics::default();
    let mut measured = Measured::with_room(MOST_METRICS);
    let mut unread = 0_u64;
    for name in control.names().await {
        match tokio::time::timeout(PACK_WITHIN, control.recent_view(&name)).await {
            Ok(Ok(Some(view))) => {
                metrics.add(&name, &view);
                measured.add(&name, &view);
            }
            Ok(Ok(None)) => {}
            // The store is away: what it would tell is absent, and that it is shows.
            Ok(Err(_)) | Err(_) => unread += 1,
        }
    }
    gauge(
        registry,
        "packs_unread",
        "Packs that this scrape could not read, because the store is away",
        unread,
    );
    measured.register(registry);
    let PackMetrics {
        weight,
        segment_weight,
        unreadable,
        forced,
        active,
        phase,
        holds,
        failed_checks,
        share,
        sessions,
        requests,
        failures,
    } = metrics;
    let pack = registry.sub_registry_with_prefix("pack");
    pack.register("weight_percent", "Set share of new sessions that get the canary", weight);
    pack.register(
        "segment_weight_percent",
        "The same of each segment, where there are several",
        segment_weight,
    );
    pack.register(
        "segment_unreadable",
        "Requests for which a segment could not tell, because an attribute was missing or of another type",
        unreadable,
    );
    pack.register("forced", "1 while everything is forced to stable", forced);
    let rollout = registry.sub_registry_with_prefix("rollout");
    rollout.register("active", "1 while a rollout is under way", active);
    rollout.register("phase", "1 for the phase of the current or latest rollout", phase);
    rollout.register("hold", "1 for each cause that holds the rollout", holds);
    rollout.register("failed_checks", "Failed checks in a row", failed_checks);
    rollout.register("canary_share_percent", "Measured share of the canary over the whole rollout", share);
    rollout.register("sessions", "Sessions assigned in the current or latest rollout", sessions);
    rollout.register("requests", "Requests seen in the current or latest rollout", requests);
    rollout.register("failures", "Requests that failed in the current or latest rollout", failures);
}

impl PackMetrics {
    fn add(&self, name: &PackName, view: &PackView) {
        let pack = || ("pack", name.to_string());
        let flag = |on: bool| f64::from(u8::from(on));
        let active = view.state.active();
        let weight = active.map_or(0.0, |(rollout, _)| rollout.weight().percent());
        self.weight.get_or_create(&vec![pack()]).set(weight);
        if let Some((rollout, _)) = active.filter(|_| view.plan.segments.len() > 1) {
            for ((segment, unreadable), weight) in view.segments.unreadable().zip(rollout.weights()) {
                let labels = vec![pack(), ("segment", segment.to_string())];
                self.segment_weight.get_or_create(&labels).set(weight.percent());
                self.unreadable.get_or_create(&labels).inc_by(unreadable);
            }
        }
        self.forced.get_or_create(&vec![pack()]).set(flag(view.forced));
        self.active.get_or_create(&vec![pack()]).set(flag(active.is_some()));
        if let Some((_, active)) = active {
            self.failed_checks.get_or_create(&vec![pack()]).set(f64::from(active.failed_checks));
            for cause in active.holds.keys() {
                self.holds.get_or_create(&vec![pack(), ("cause", cause.to_string())]).set(1.0);
            }
        }
        let (Some(rollout), Some(measured)) = (&view.state.rollout, &view.measured) else { return };
        self.phase.get_or_create(&vec![pack(), ("phase", rollout.phase(&view.plan).to_string())]).set(1.0);
        let assigned = measured.assigned.iter().fold(SidesView::default(), |sum, assigned| SidesView {
            stable: sum.stable + assigned.stable,
            canary: sum.canary + assigned.canary,
        });
        let shown = &measured.shown;
        let requests = SidesView { stable: shown.stable.requests, canary: shown.canary.requests };
        for (of, sides) in [("sessions", assigned), ("requests", requests)] {
            if let Some(share) = percent(sides) {
                self.share.get_or_create(&vec![pack(), ("of", of.to_owned())]).set(share);
            }
        }
        for (variant, version, sessions, tally) in [
            ("stable", &rollout.stable, assigned.stable, &shown.stable),
            ("canary", &rollout.canary, assigned.canary, &shown.canary),
        ] {
            let labels = vec![pack(), ("variant", variant.to_owned()), ("version", version.to_string())];
            self.sessions.get_or_create(&labels).inc_by(sessions);
            self.requests.get_or_create(&labels).inc_by(tally.requests);
            self.failures(&labels, tally);
        }
    }

    fn failures(&self, labels: &Labels, tally: &Tally) {
        for kind in [ErrorKind::Provider, ErrorKind::Request, ErrorKind::App] {
            let word = match kind {
                ErrorKind::Provider => "provider",
                ErrorKind::Request => "request",
                ErrorKind::App => "app",
            };
            let mut labels = labels.clone();
            labels.push(("kind", word.to_owned()));
            self.failures.get_or_create(&labels).inc_by(tally.errors.get(&kind).copied().unwrap_or(0));
        }
    }
}
