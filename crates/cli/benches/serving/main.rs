//! What Serin costs, beside nginx as a plain proxy: `make bench`.
//!
//! ```text
//! load (64 connections) ─┬─> serin serve ─┬─> serin provider, which answers at once
//!                        └─> nginx ───────┘
//! ```
//!
//! Load, proxies and provider share the processors, so that requests per second say what the whole
//! machine does; CPU per request is that of the proxy's processes alone, and the number to look at.
//! Runs of Serin and nginx alternate, ratios are those of neighbouring runs, and medians are told.
//!
//! `cargo bench -p serin-cli --bench serving -- json pins` runs the named parts only:
//! `json`, `stream`, `paced`, `latency`, `resolve`, `ofrep`, `events`, `streams`, `soak`, `pins`, `memory`.
//! `soak-30m`, half an hour at a low rate, runs only when it is named.

#![expect(
    clippy::disallowed_methods,
    reason = "processes of this benchmark come to rest between measurements"
)]

mod beside;
mod load;
mod pins;
mod process;
mod report;
mod stage;

use std::time::Duration;

use crate::beside::Asking;
use crate::load::{Answer, Prompt, Requests, Sessions};
use crate::process::Server;
use crate::report::{median, quantile, row, title};
use crate::stage::{Nginx, Serin, Stage};

pub(crate) const CONNECTIONS: usize = 64;
pub(crate) const ROUNDS: usize = 5;
/// Sessions pinned when memory, a step and a rollback are measured.
const SESSIONS: [(&str, u64); 2] = [("a million", 1_000_000), ("five million", 5_000_000)];
/// The low rate at which the added latency is measured, per second and server.
const LOW_RATE: u32 = 50;
const LOW_RATE_REQUESTS: u64 = 500;

fn main() -> anyhow::Result<()> {
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runs = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    let threads = std::thread::available_parallelism()?.get();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let program = Nginx::program();
    if program.is_none() {
        println!("nginx is not installed: its part of the comparison is left out");
    }
    println!("{threads} cores, as many worker threads of Serin and worker processes of nginx");

    if runs("json") || runs("stream") || runs("latency") {
        let stage = Stage::set(0, program.as_deref(), threads)?;
        if runs("json") {
            let what = "JSON, 1 kB there and 0.8 kB back";
            runtime.block_on(compare(&stage, what, Answer::Json, 20_000))?;
        }
        if runs("stream") {
            let what = "Stream of 20 chunks, all at once";
            runtime.block_on(compare(&stage, what, Answer::Stream, 10_000))?;
        }
        if runs("latency") {
            runtime.block_on(latency(&stage))?;
        }
    }
    if runs("paced") {
        let stage = Stage::set(1, program.as_deref(), threads)?;
        let what = "Stream of 20 chunks, 1 ms apart";
        runtime.block_on(compare(&stage, what, Answer::Stream, 5_000))?;
    }
    if runs("resolve") {
        runtime.block_on(beside::resolve(program.as_deref(), threads, Asking::Resolve))?;
    }
    if runs("ofrep") {
        runtime.block_on(beside::resolve(program.as_deref(), threads, Asking::Flag))?;
    }
    if runs("events") {
        runtime.block_on(beside::events())?;
    }
    if runs("streams") {
        runtime.block_on(beside::open_streams())?;
    }
    if runs("soak") {
        runtime.block_on(beside::soak())?;
    }
    // Half an hour of it only for whoever asks.
    if named.iter().any(|name| name == "soak-30m") {
        runtime.block_on(beside::long_soak())?;
    }
    if runs("pins") {
        title("Assignment, in process, one thread, a million sessions pinned");
        pins::print()?;
    }
    if runs("memory") {
        runtime.block_on(memory())?;
    }
    Ok(())
}

/// What one run was like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) per_second: f64,
    pub(crate) cpu_us: f64,
}

pub(crate) async fn measure(
    server: &Server,
    requests: &Requests,
    total: u64,
    length: Option<usize>,
) -> anyhow::Result<Run> {
    let before = server.cpu_when_quiet()?;
    let elapsed = load::run(requests, CONNECTIONS, total, length).await?;
    let spent = server.cpu_when_quiet()?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "some thousand")]
    let count = total as f64;
    Ok(Run { per_second: count / elapsed.as_secs_f64(), cpu_us: spent.as_secs_f64() * 1e6 / count })
}

/// Requests per second and CPU per request under full load.
async fn compare(stage: &Stage, what: &str, answer: Answer, total: u64) -> anyhow::Result<()> {
    let Stage { serin, nginx, .. } = stage;
    title(&format!("{what}: {CONNECTIONS} connections, {total} requests a run, medians of {ROUNDS}"));
    println!("  {:<30}{:>12}{:>14}{:>12}{:>12}", "", "requests/s", "CPU/request", "x nginx", "range");
    let nginx = nginx.as_ref().map(|nginx| {
        let address = match answer {
            Answer::Json => nginx.buffered,
            Answer::Stream | Answer::StreamWithUsage => nginx.unbuffered,
        };
        (&nginx.server, Requests::chat(address, answer, Prompt::Own, "nginx"))
    });
    let mut of_nginx = Vec::new();
    for (prompt, name) in [(Prompt::Own, "serin, passing through"), (Prompt::Pack, "serin, prompt of a pack")]
    {
        let mut runs = Vec::new();
        let mut ratios = Vec::new();
        // The first round warms up and does not count.
        for round in 0..=ROUNDS {
            let series = format!("{what}-{round}").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let requests = Requests::chat(serin.data, answer, prompt, &series);
            let length = load::answer_length(&requests).await?;
            let run = measure(&serin.server, &requests, total, Some(length)).await?;
            if round > 0 {
                runs.push(run);
            }
            if let Some((server, requests)) = &nginx {
                let length = load::answer_length(requests).await?;
                let beside = measure(server, requests, total, Some(length)).await?;
                if round > 0 {
                    of_nginx.push(beside);
                    ratios.push(run.cpu_us / beside.cpu_us);
                }
            }
        }
        print_runs(name, &runs, &ratios);
    }
    if !of_nginx.is_empty() {
        print_runs("nginx", &of_nginx, &[]);
    }
    Ok(())
}

pub(crate) fn print_runs(name: &str, runs: &[Run], ratios: &[f64]) {
    let per_second = median(runs.iter().map(|run| run.per_second).collect());
    let cpu_us = median(runs.iter().map(|run| run.cpu_us).collect());
    let (ratio, range) = if ratios.is_empty() {
        (String::new(), String::new())
    } else {
        let edge = |share| quantile(ratios.to_vec(), share);
        (format!("{:.2}", median(ratios.to_vec())), format!("{:.2}-{:.2}", edge(0.0), edge(1.0)))
    };
    println!("  {name:<30}{per_second:>12.0}{:>14}{ratio:>12}{range:>12}", format!("{cpu_us:.1} us"));
}

/// What a proxy adds to the time of an answer when the machine has little to do.
async fn latency(stage: &Stage) -> anyhow::Result<()> {
    let Stage { provider, serin, nginx } = stage;
    title(&format!("Added latency at {LOW_RATE} requests/s to each, {LOW_RATE_REQUESTS} requests"));
    let to = |address, prompt| Requests::chat(address, Answer::Json, prompt, "latency");
    let mut targets =
        vec![to(provider.address, Prompt::Own), to(serin.data, Prompt::Own), to(serin.data, Prompt::Pack)];
    targets.extend(nginx.as_ref().map(|nginx| to(nginx.buffered, Prompt::Own)));
    let times = load::in_turn(&targets, LOW_RATE, LOW_RATE_REQUESTS).await?;
    let milliseconds = |times: &[Duration]| times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    let at = |index: usize, share: f64| quantile(milliseconds(&times[index]), share);
    let direct = (at(0, 0.5), at(0, 0.99));
    row("the provider itself, p50 and p99", &format!("{:.2}  {:.2} ms", direct.0, direct.1));
    for (index, name) in
        [(1, "serin, passing through, adds"), (2, "serin, prompt of a pack, adds"), (3, "nginx adds")]
    {
        if index < times.len() {
            let (p50, p99) = (at(index, 0.5) - direct.0, at(index, 0.99) - direct.1);
            row(name, &format!("{p50:.2}  {p99:.2} ms"));
        }
    }
    Ok(())
}

/// Resident memory at rest, and with some million sessions that came over `/v1/resolve`; then how fast a step and
/// a rollback reach them.
async fn memory() -> anyhow::Result<()> {
    for (many, sessions) in SESSIONS {
        title(&format!("Resident memory of serin serve, and {many} sessions"));
        with_sessions(many, sessions).await?;
    }
    Ok(())
}

async fn with_sessions(many: &str, sessions: u64) -> anyhow::Result<()> {
    // No request of this part goes to a provider.
    let serin = Serin::start(process::free_address()?)?;
    serin.apply_pack()?;
    std::thread::sleep(Duration::from_secs(1));
    let mib = |kib: u64| format!("{} MiB", kib / 1_024);
    row("at rest, one pack", &mib(serin.server.resident_kib()?));
    let requests = Requests::resolve(serin.data, Sessions::New, "session");
    let elapsed = load::run(&requests, CONNECTIONS, sessions, None).await?;
    serin.server.cpu_when_quiet()?;
    row(&format!("with {many} sessions pinned"), &mib(serin.server.resident_kib()?));
    #[expect(clippy::cast_precision_loss, reason = "some million")]
    let per_second = sessions as f64 / elapsed.as_secs_f64();
    row("new sessions over /v1/resolve", &format!("{per_second:.0} /s"));

    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let canary = load::session_on(serin.data, "session", sessions, "canary").await?;
    let step = load::order(serin.control, "promote").await?;
    row("a step, committed and in force", &milliseconds(step));
    let (answered, reached) = load::rollback(serin.control, serin.data, &canary).await?;
    row("a rollback reaches a canary session after", &milliseconds(reached));
    row("  and is answered after", &milliseconds(answered));
    Ok(())
}
