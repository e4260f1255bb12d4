//! Everything that is not a chat that passes through: versions, events, many open streams, a long run.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::load::{self, Answer, KNOWN_SESSIONS, Prompt, Requests, Sessions};
use crate::process::free_address;
use crate::report::{median, quantile, row, title};
use crate::stage::{Nginx, Provider, STATIC_BYTES, Serin};
use crate::{CONNECTIONS, ROUNDS, Run, measure, print_runs};

const RESOLVES: u64 = 40_000;
const EVENTS_EACH: u64 = 100;
const EVENT_REQUESTS: u64 = 5_000;
const OPEN_STREAMS: u64 = 5_000;
/// Streams whose chunks are timed, one after the other.
const TIMED_STREAMS: u64 = 20;
const SOAK: Duration = Duration::from_secs(60);
const SOAK_REQUESTS: u64 = 2_000;
/// After so many rounds of a soak its sessions come again.
const SOAK_SERIES: u64 = 50;
/// Requests with a prompt before a soak; Serin remembers whose the newest 200 000 answers were.
const WARM_UP: u64 = 250_000;
const LONG_SOAK: Duration = Duration::from_secs(30 * 60);
/// Requests of each kind per second of the long run.
const LONG_SOAK_RATE: u32 = 300;

/// How a version is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// By `/v1/resolve`.
    Resolve,
    /// As the value of a flag, by OFREP.
    Flag,
}

/// Which version a session gets, beside nginx and a small file.
pub(crate) async fn resolve(nginx: Option<&Path>, workers: usize, asking: Asking) -> anyhow::Result<()> {
    let what = match asking {
        Asking::Resolve => "/v1/resolve",
        Asking::Flag => "/ofrep/v1/evaluate/flags/PACK",
    };
    title(&format!(
        "POST {what} beside a file of {STATIC_BYTES} bytes: {RESOLVES} requests a run, medians of {ROUNDS}"
    ));
    println!("  {:<30}{:>12}{:>14}{:>12}{:>12}", "", "requests/s", "CPU/request", "CPU x nginx", "range");
    let serin = Serin::start(free_address()?)?;
    serin.apply_pack()?;
    let nginx = nginx.map(|program| Nginx::start(program, free_address()?, workers)).transpose()?;
    let mut files: Vec<Run> = Vec::new();
    for (sessions, name) in [(Sessions::Known, "pinned sessions"), (Sessions::New, "new sessions")] {
        let (mut runs, mut ratios, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        // The first round warms up and does not count.
        for round in 0..=ROUNDS {
            let series = format!("{sessions:?}-{round}");
            let requests = match asking {
                Asking::Resolve => Requests::resolve(serin.data, sessions, &series),
                Asking::Flag => Requests::flag(serin.data, sessions, &series),
            };
            let run = measure(&serin.server, &requests, RESOLVES, None).await?;
            let beside = match &nginx {
                Some(nginx) => {
                    Some(measure(&nginx.server, &Requests::file(nginx.buffered), RESOLVES, None).await?)
                }
                None => None,
            };
            if round > 0 {
                runs.push(run);
                if let Some(file) = beside {
                    files.push(file);
                    ratios.push(run.cpu_us / file.cpu_us);
                    rates.push(run.per_second / file.per_second);
                }
            }
        }
        print_runs(name, &runs, &ratios);
        if !rates.is_empty() {
            row("  of nginx's rate", &format!("{:.2}", median(rates)));
        }
    }
    if !files.is_empty() {
        print_runs("nginx, file", &files, &[]);
    }
    Ok(())
}

/// Events in batches; each is durable and counted once when it is answered.
pub(crate) async fn events() -> anyhow::Result<()> {
    title(&format!(
        "POST /v1/events, {EVENTS_EACH} outcomes in each, {EVENT_REQUESTS} requests, {CONNECTIONS} connections"
    ));
    let serin = Serin::start(free_address()?)?;
    serin.apply_pack()?;
    let known = Requests::resolve(serin.data, Sessions::Known, "");
    load::run(&known, CONNECTIONS, KNOWN_SESSIONS, None).await?;
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    let each = EVENTS_EACH as f64;
    for (series, name) in [
        ("first", "new events"),
        ("second", "new events, a fuller table"),
        ("second", "the same again: duplicates"),
    ] {
        let requests = Requests::events(serin.data, EVENTS_EACH, series);
        let run = measure(&serin.server, &requests, EVENT_REQUESTS, None).await?;
        row(name, &format!("{:.0} events/s", run.per_second * each));
        row("  CPU per event", &format!("{:.1} us", run.cpu_us / each));
    }
    Ok(())
}

/// What many open streams take, and how late their chunks come.
pub(crate) async fn open_streams() -> anyhow::Result<()> {
    title(&format!("{OPEN_STREAMS} streams open at once"));
    let slow = Provider::start(3_000)?;
    for (prompt, name) in [(Prompt::Own, "passing through"), (Prompt::Pack, "prompt of a pack")] {
        let serin = Serin::start(slow.address)?;
        serin.apply_pack()?;
        sleep(Duration::from_secs(1));
        let before = serin.server.resident_kib()?;
        let requests = Requests::chat(serin.data, Answer::Stream, prompt, "open");
        let streams = load::open_streams(&requests, OPEN_STREAMS).await?;
        let with = serin.server.resident_kib()?;
        drop(streams);
        row(&format!("{name}: resident at rest"), &format!("{:.1} MiB", mib(before)));
        row("  with all of them open", &format!("{:.1} MiB", mib(with)));
        #[expect(clippy::cast_precision_loss, reason = "some thousand")]
        let each = with.saturating_sub(before) as f64 / OPEN_STREAMS as f64;
        row("  for each stream", &format!("{each:.1} KiB"));
    }

    title(&format!("Time between chunks that are sent 10 ms apart, {TIMED_STREAMS} streams, one at a time"));
    let paced = Provider::start(10)?;
    let serin = Serin::start(paced.address)?;
    serin.apply_pack()?;
    let ask = |address, prompt| Requests::chat(address, Answer::StreamWithUsage, prompt, "gaps");
    let targets = [
        ("the provider itself", ask(paced.address, Prompt::Own)),
        ("serin, passing through", ask(serin.data, Prompt::Own)),
        ("serin, prompt of a pack", ask(serin.data, Prompt::Pack)),
    ];
    let mut all: Vec<Vec<f64>> = vec![Vec::new(); targets.len()];
    for n in 0..TIMED_STREAMS {
        for (gaps, (_, requests)) in all.iter_mut().zip(&targets) {
            gaps.extend(load::gaps(requests, n).await?.iter().map(|gap| gap.as_secs_f64() * 1e3));
        }
    }
    for (gaps, (name, _)) in all.into_iter().zip(&targets) {
        let (p50, p99, worst) = (median(gaps.clone()), quantile(gaps.clone(), 0.99), quantile(gaps, 1.0));
        row(name, &format!("{p50:.2}, 99 % {p99:.2}, worst {worst:.2} ms"));
    }
    Ok(())
}

/// As much as a server can take for a minute: what it takes itself must stay flat.
pub(crate) async fn soak() -> anyhow::Result<()> {
    title(&format!("Steady load for {} s, half of it with a prompt of a pack", SOAK.as_secs()));
    let (_provider, serin) = warm().await?;
    let started = Instant::now();
    let (mut round, mut told) = (0_u64, 0_u64);
    while started.elapsed() < SOAK {
        for requests in both_kinds(&serin, round) {
            load::run(&requests, CONNECTIONS, SOAK_REQUESTS, None).await?;
        }
        round += 1;
        let minute_sixth = started.elapsed().as_secs() / 10;
        if minute_sixth > told {
            told = minute_sixth;
            let resident = format!("{:.1} MiB", mib(serin.server.resident_kib()?));
            row(&format!("after {} s, {} requests", told * 10, round * 2 * SOAK_REQUESTS), &resident);
        }
    }
    Ok(())
}

/// The same at a low rate for half an hour, as a server that has much to do and time to do it.
pub(crate) async fn long_soak() -> anyhow::Result<()> {
    let minutes = LONG_SOAK.as_secs() / 60;
    title(&format!(
        "{LONG_SOAK_RATE} requests/s of each kind for {minutes} minutes, half of all with a prompt of a pack"
    ));
    let (_provider, serin) = warm().await?;
    let (started, before) = (Instant::now(), serin.server.cpu()?);
    let (mut round, mut told) = (0_u64, 0_u64);
    while started.elapsed() < LONG_SOAK {
        load::in_turn(&both_kinds(&serin, round), LONG_SOAK_RATE, SOAK_REQUESTS).await?;
        round += 1;
        let fives = started.elapsed().as_secs() / 300;
        if fives > told {
            told = fives;
            let resident = mib(serin.server.resident_kib()?);
            let cpu = serin.server.cpu()?.saturating_sub(before).as_secs_f64();
            let share = 100.0 * cpu / started.elapsed().as_secs_f64();
            row(
                &format!("after {} min, {} requests", told * 5, round * 2 * SOAK_REQUESTS),
                &format!("{resident:.1} MiB, {share:.1} % of a core"),
            );
        }
    }
    Ok(())
}

/// Serin with everything full that has a limit, so that what still grows is a leak.
async fn warm() -> anyhow::Result<(Provider, Serin)> {
    let provider = Provider::start(0)?;
    let serin = Serin::start(provider.address)?;
    serin.apply_pack()?;
    let rounds = WARM_UP.div_ceil(SOAK_REQUESTS);
    for round in 0..rounds {
        for requests in both_kinds(&serin, round) {
            load::run(&requests, CONNECTIONS, SOAK_REQUESTS, None).await?;
        }
    }
    let resident = format!("{:.1} MiB", mib(serin.server.resident_kib()?));
    row(&format!("warm, after {} requests at full speed", rounds * 2 * SOAK_REQUESTS), &resident);
    Ok((provider, serin))
}

/// Answers that pass through, and streams with a prompt, whose sessions come again after some rounds.
fn both_kinds(serin: &Serin, round: u64) -> [Requests; 2] {
    let series = format!("soak-{}", round % SOAK_SERIES);
    [(Answer::Json, Prompt::Own), (Answer::Stream, Prompt::Pack)]
        .map(|(answer, prompt)| Requests::chat(serin.data, answer, prompt, &series))
}

#[expect(clippy::cast_precision_loss, reason = "memory of one process")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}
