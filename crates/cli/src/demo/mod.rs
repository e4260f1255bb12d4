//! `serin demo`: two whole rollouts in one process, in under three minutes.
//!
//! A server, a stand-in provider and simulated users run together and talk over real HTTP. A better
//! prompt is shipped to everyone; then a worse one is caught and rolled back. Everything shown is read
//! from the API, as anyone else would read it.

mod traffic;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use serin_core::ids::PackName;
use serin_core::parse;
use serin_provider::{Provider, Script};
use serin_server::api::types::{Phase, RolloutView};
use serin_server::server::Server;

use self::traffic::Traffic;
use crate::api::{ApplyOptions, Client, ServerArgs};
use crate::audit;
use crate::live::Live;
use crate::serve::start_embedded;
use crate::status_view::{self, Depth, thousands};
use crate::terminal::{BAD, GOOD, QUIET, STRONG, paint};
use crate::told::{Exit, Told};

/// The pack of the demo.
const PACK: &str = "support";
/// The prompt that the simulated users talk to.
const PROMPT: &str = "support/answer";
/// Conversations with the first version before the second one comes: what a comparison starts from.
const WARM_UP_SESSIONS: u64 = 300;
/// How long the warm-up may take.
const WARM_UP_WITHIN: Duration = Duration::from_secs(40);
/// How long a rollout may take; the planned length is 45 seconds.
const ROLLOUT_WITHIN: Duration = Duration::from_secs(110);
/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_millis(400);
/// The seed of the simulated users.
const SEED: u64 = 7;

/// The files of the demo: manifests and packs by name.
const FILES: [(&str, &str); 6] = [
    ("support-1.0.0.yaml", include_str!("../../../../examples/demo/support-1.0.0.yaml")),
    ("support-1.0.0.pack.json", include_str!("../../../../examples/demo/support-1.0.0.pack.json")),
    ("support-2.0.0.yaml", include_str!("../../../../examples/demo/support-2.0.0.yaml")),
    ("support-2.0.0.pack.json", include_str!("../../../../examples/demo/support-2.0.0.pack.json")),
    ("support-3.0.0.yaml", include_str!("../../../../examples/demo/support-3.0.0.yaml")),
    ("support-3.0.0.pack.json", include_str!("../../../../examples/demo/support-3.0.0.pack.json")),
];

/// Watch two rollouts from beginning to end, with nothing to set up
///
/// Starts a server, a stand-in LLM provider and simulated users in this process, ships a better prompt
/// to everyone, then a worse one that is caught and rolled back. Takes about a minute and a half.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Leave everything running afterwards, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Where the server keeps its data; a folder that is removed at the end when left out
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// The port of the control plane; a free one when left out
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    port: u16,
    /// The port of the data plane; a free one when left out
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    data_port: u16,
}

/// What the stand-in provider answers in the demo.
pub(crate) fn script() -> Script {
    Script::parse(include_str!("../../../../examples/demo/provider.yaml"))
        .expect("the demo's script is tested")
}

/// Runs the demo; fails when one of the rollouts ends otherwise than it should.
pub(crate) async fn run(args: &DemoArgs) -> anyhow::Result<Exit> {
    let own_folder = match &args.data_dir {
        Some(_) => None,
        None => {
            Some(tempfile::Builder::new().prefix("serin-demo-").tempdir().context("no temporary folder")?)
        }
    };
    let data_dir = match (&args.data_dir, &own_folder) {
        (Some(given), _) => given.clone(),
        (None, Some(own)) => own.path().to_owned(),
        (None, None) => unreachable!("one of the two is there"),
    };
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let provider = Provider::start(script(), loopback(0)).await?;
    let upstream = format!("http://{}", provider.addr());
    let server = start_embedded(&data_dir, loopback(args.data_port), loopback(args.port), &upstream).await?;

    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let ended = tokio::select! {
        ended = story(&server) => ended.map(|(exit, traffic)| (exit, Some(traffic))),
        _ = &mut interrupted => {
            anstream::println!("\n{}", paint(QUIET, "interrupted"));
            Ok((Exit::Failed, None))
        }
    };
    if let Ok((Exit::Done, Some(_users_go_on))) = &ended {
        if args.keep {
            keep(&format!("http://{}", server.control_addr()), &data_dir).await?;
            interrupted.await.context("could not wait for an interrupt")?;
        } else {
            farewell();
        }
    }
    server.shutdown().await;
    provider.shutdown().await;
    ended.map(|(exit, _)| exit)
}

/// Both rollouts, and what they came to.
async fn story(server: &Server) -> anyhow::Result<(Exit, Traffic)> {
    let control = format!("http://{}", server.control_addr());
    let client =
        Client::new(&ServerArgs { server: control.clone(), key: None, actor: Some("demo".to_owned()) })?;
    let data = format!("http://{}", server.data_addr());
    say("1", "A support agent is in service: its prompt is the pack `support`, version 1.0.0.");
    detail(&format!("gateway {data}/v1, control plane {control}"));
    detail(&format!("watch it in a browser: {}", paint(STRONG, format!("{control}/packs/{PACK}"))));
    apply(&client, "1.0.0", "first version").await?;
    let traffic = Traffic::start(data, PROMPT, SEED).context("could not start the simulated users")?;
    detail("simulated users talk to it: 60 new conversations a second, over HTTP, with an outcome each");
    warm_up(&traffic).await?;

    say("2", "Version 2.0.0 is applied: a better prompt. Watch it replace 1.0.0, 45 minutes in 45 seconds.");
    let good = ship(&client, "2.0.0", "says the next step first", &traffic).await?;
    let completed = good.phase == Phase::Completed;
    detail(&match completed {
        true => paint(
            GOOD,
            "2.0.0 is the new stable. Nobody had to watch, and no conversation changed its prompt half way.",
        ),
        false => paint(BAD, format!("2.0.0 did not complete: {}", status_view::line(&good))),
    });

    say(
        "3",
        "Version 3.0.0 is applied: it looked good on paper. In service it is slow for some, and helps fewer.",
    );
    let bad = ship(&client, "3.0.0", "considers every possibility", &traffic).await?;
    let caught = bad.phase == Phase::RolledBack;
    detail(&match caught {
        true => paint(GOOD, "3.0.0 was caught and rolled back by itself: everyone is on 2.0.0 again."),
        false => paint(BAD, format!("3.0.0 was not rolled back: {}", status_view::line(&bad))),
    });
    report(&client, &bad, &traffic).await?;

    let exit = if completed && caught { Exit::Done } else { Exit::Failed };
    Ok((exit, traffic))
}

/// Publishes one of the demo's versions.
async fn apply(client: &Client, version: &str, reason: &str) -> Result<(), Told> {
    let file = |name: &str| FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    let manifest =
        file(&format!("support-{version}.yaml")).expect("the demo has a manifest for each version");
    let pack = file(&format!("support-{version}.pack.json")).expect("the demo has a pack for each version");
    let mut json = parse::to_json(manifest).expect("the demo's manifests are tested");
    let pack: Value = serde_json::from_str(pack).expect("the demo's packs are tested");
    if let Some(source) = json.pointer_mut("/spec/source") {
        *source = json!({ "inline": pack });
    }
    let options =
        ApplyOptions { dry_run: false, restart: false, reason: Some(reason), override_policy: None };
    client.apply(&json, options).await.map(|_| ())
}

/// Waits until the first version has enough conversations to compare with.
async fn warm_up(traffic: &Traffic) -> Result<(), Told> {
    let started = Instant::now();
    let mut live = Live::default();
    loop {
        let sessions = traffic.counts().sessions.load(Ordering::Relaxed);
        if Live::is_possible() {
            live.draw(&paint(
                QUIET,
                format!("  {} of {WARM_UP_SESSIONS} conversations to compare with", sessions),
            ));
        }
        if sessions >= WARM_UP_SESSIONS {
            live.clear();
            detail(&format!("{} conversations so far: enough to compare with", thousands(sessions)));
            return Ok(());
        }
        if started.elapsed() > WARM_UP_WITHIN {
            let counts = traffic.counts();
            return Err(Told::new(format!(
                "only {sessions} conversations in {} s, {} requests got no answer",
                WARM_UP_WITHIN.as_secs(),
                counts.unanswered.load(Ordering::Relaxed)
            ))
            .hint("is this machine very busy?"));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Applies a version and shows its rollout until it is over.
async fn ship(
    client: &Client,
    version: &str,
    reason: &str,
    traffic: &Traffic,
) -> anyhow::Result<RolloutView> {
    let pack = PackName::parse(PACK).expect("the demo's pack has a name");
    apply(client, version, reason).await?;
    let started = Instant::now();
    let in_place = Live::is_possible();
    let mut live = Live::default();
    let mut last = None;
    loop {
        let rollout = client.rollout(&pack).await?.context("the rollout has just been started")?;
        let is_over = rollout.phase.is_over();
        if in_place {
            live.draw(&frame(&rollout, traffic));
        } else {
            let place =
                (rollout.phase, rollout.progress.as_ref().map(|progress| progress.step), rollout.holds.len());
            if last != Some(place) {
                anstream::println!("  {:>3} s  {}", started.elapsed().as_secs(), line(&rollout));
                last = Some(place);
            }
        }
        if is_over || started.elapsed() > ROLLOUT_WITHIN {
            live.keep();
            if !in_place {
                anstream::println!("\n{}", indented(&status_view::rollout(&rollout, Depth::Short)));
            }
            return Ok(rollout);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// What is drawn again and again while a rollout goes on.
fn frame(rollout: &RolloutView, traffic: &Traffic) -> String {
    let counts = traffic.counts();
    let seen = format!(
        "users     {} conversations, {} requests, {} outcomes reported",
        thousands(counts.sessions.load(Ordering::Relaxed)),
        thousands(counts.requests.load(Ordering::Relaxed)),
        thousands(counts.outcomes.load(Ordering::Relaxed)),
    );
    indented(&format!("\n{}  {}\n", status_view::rollout(rollout, Depth::Short), paint(QUIET, seen)))
}

/// A rollout in one line: where it stands, and how the metrics with a gate compare.
fn line(rollout: &RolloutView) -> String {
    let place = rollout.progress.as_ref().map_or_else(
        || format!("{}", rollout.phase),
        |progress| format!("{} step {}/{}", rollout.phase, progress.step + 1, progress.of),
    );
    let judged = rollout.metrics.iter().filter(|metric| metric.gate.is_some());
    let compared: Vec<String> = judged
        .map(|metric| format!("{} {} (stable {})", metric.metric, metric.canary_shown, metric.stable_shown))
        .collect();
    let holds: Vec<&str> = rollout.holds.iter().map(|hold| hold.shown.as_str()).collect();
    let holds = if holds.is_empty() { String::new() } else { format!("  on hold: {}", holds.join(", ")) };
    format!("{place:<21} {:>4}%  {}{holds}", status_view::percent(rollout.weight), compared.join(", "))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}

/// Who saw the bad version, and what the audit log says about it.
async fn report(client: &Client, bad: &RolloutView, traffic: &Traffic) -> anyhow::Result<()> {
    let pack = PackName::parse(PACK).expect("the demo's pack has a name");
    let sessions = traffic.counts().sessions.load(Ordering::Relaxed);
    #[expect(clippy::cast_precision_loss, reason = "a share of a few thousand conversations")]
    let share = bad.exposure.sessions as f64 / sessions.max(1) as f64 * 100.0;
    anstream::println!();
    detail(&format!(
        "{} {} of {} conversations met 3.0.0, {share:.1}%. Without a canary it would have been all of them.",
        paint(STRONG, "exposure:"),
        thousands(bad.exposure.sessions),
        thousands(sessions),
    ));
    detail(&format!("{} who decided what, and why:", paint(STRONG, "audit log:")));
    let mut entries = Vec::new();
    let mut after = None;
    loop {
        let page = client.audit(Some(&pack), after).await?;
        entries.extend(page.entries);
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    entries.retain(|entry| entry.rollout.as_deref() == Some(bad.id.as_str()));
    anstream::println!("{}", indented(&audit::entries(&entries)));
    let verified = client.audit_verify(None).await?;
    if verified.intact {
        detail(&format!("the log is a hash chain, and intact: {} entries", verified.entries.unwrap_or(0)));
    }
    Ok(())
}

/// What to try while everything keeps running.
async fn keep(control: &str, data_dir: &Path) -> anyhow::Result<()> {
    let folder = data_dir.join("manifests");
    tokio::fs::create_dir_all(&folder).await.context("could not write the demo's manifests")?;
    for (name, text) in FILES {
        tokio::fs::write(folder.join(name), text).await.context("could not write the demo's manifests")?;
    }
    let again = folder.join("support-3.0.0.yaml");
    say("4", "Everything keeps running, with traffic, until Ctrl-C. Try, in a browser and another terminal:");
    for (command, why) in [
        (format!("{control}/packs/{PACK}"), "the dashboard, in a browser"),
        (format!("export SERIN_SERVER={control}"), ""),
        (format!("serin apply -f {} --restart", again.display()), "the bad version once more"),
        ("serin status support --watch".to_owned(), "gates, metrics side by side, holds"),
        ("serin pause support --reason \"let me look\"".to_owned(), "and resume, promote, rollback"),
        ("serin explain support --session user-7-1".to_owned(), "why a session has its version"),
        ("serin history support".to_owned(), "every rollout so far"),
    ] {
        let why = if why.is_empty() { String::new() } else { paint(QUIET, format!("   # {why}")) };
        anstream::println!("    {}{why}", paint(STRONG, command));
    }
    Ok(())
}

fn farewell() {
    anstream::println!("\n{}", paint(STRONG, "What to try next"));
    for (command, why) in [
        ("serin demo --keep", "the same, left running for you to play with"),
        ("serin init", "a pack and manifest from a prompt of yours"),
        ("serin lint -f examples/support-prompts.yaml", "check a manifest"),
        ("serin serve --help", "the server, in front of your provider"),
    ] {
        anstream::println!("  {}{}", paint(STRONG, format!("{command:<46}")), paint(QUIET, why));
    }
}

fn say(number: &str, text: &str) {
    anstream::println!("\n{} {}", paint(STRONG, format!("{number}.")), paint(STRONG, text));
}

fn detail(text: &str) {
    anstream::println!("  {text}");
}

#[cfg(test)]
mod tests {
    use serin_core::lint::lint;
    use serin_core::prompt::Pack;

    use super::*;

    #[test]
    fn the_files_of_the_demo_are_valid() {
        script();
        for pair in FILES.chunks(2) {
            let plan =
                parse::parse(pair[0].1).unwrap_or_else(|problems| panic!("{}: {problems}", pair[0].0)).plan;
            let lints = lint(&plan);
            assert!(lints.iter().all(|lint| lint.rule != "high-first-weight"), "{}: {lints:?}", pair[0].0);
            let pack =
                Pack::parse(pair[1].1).unwrap_or_else(|problems| panic!("{}: {problems:?}", pair[1].0));
            assert_eq!((pack.id(), pack.version()), (&plan.pack, &plan.version));
        }
    }
}
