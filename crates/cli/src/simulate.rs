//! `serin simulate`: many rollouts of a manifest on virtual time, without a server.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::builder::styling::Style;
use serde::Serialize;
use serin_core::metric::nearest;
use serin_core::plan::Strategy;
use serin_core::rollout::HoldCause;
use serin_sim::{ApplyError, Batch, Progress, Proportion, Report, Scenario, Spread, simulate_batch};

use crate::manifest_file::{Loaded, load};
use crate::status_view::{paragraph, percent, thousands};
use crate::terminal::{BAD, Cell, GOOD, LOOK, OutputFlag, QUIET, STRONG, Table, bar, duration, paint};
use crate::told::{Exit, Told};

/// Characters of the progress bar.
const PROGRESS_BAR: usize = 30;
/// How often the progress bar is drawn.
const FRAME: Duration = Duration::from_millis(100);
/// When progress is first told where there is no terminal; from then on each time that it takes half as long again.
const FIRST_LINE: Duration = Duration::from_secs(2);

/// Run a rollout many times on virtual time, and tell how often harm is caught
#[derive(Debug, clap::Args)]
#[command(after_help = built_in_scenarios())]
pub(crate) struct SimulateArgs {
    /// The manifest (YAML or JSON); `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// What is true about the two versions: a built-in scenario, or a file (YAML)
    #[arg(long, value_name = "NAME|FILE")]
    scenario: String,
    /// How many rollouts
    #[arg(long, value_name = "COUNT", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
    /// The same seed gives the same answer
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// New sessions per second, instead of what the scenario says
    #[arg(long, value_name = "RATE")]
    sessions_per_second: Option<f64>,
    #[command(flatten)]
    output: OutputFlag,
}

/// The list of built-in scenarios, for the help.
fn built_in_scenarios() -> String {
    let scenarios: Vec<Scenario> = Scenario::names().filter_map(Scenario::built_in).collect();
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    let rows: Vec<String> =
        scenarios.iter().map(|scenario| format!("  {:width$}  {}", scenario.name, scenario.about)).collect();
    format!("Built-in scenarios:\n{}", rows.join("\n"))
}

/// Many rollouts of one manifest, as data.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    pack: String,
    version: String,
    /// What is true in the scenario.
    pub(crate) about: String,
    /// New sessions per second.
    pub(crate) sessions_per_second: f64,
    /// The most times its planned length that a rollout was given.
    most_lengths: u64,
    #[serde(flatten)]
    pub(crate) report: Report,
}

/// Simulates rollouts; an interrupt ends it with a report about those that are over.
pub(crate) async fn run(args: &SimulateArgs) -> anyhow::Result<Exit> {
    let many = Many { runs: args.runs, seed: args.seed, sessions_per_second: args.sessions_per_second };
    let scenario = many.scenario(&args.scenario)?;
    let loaded = load(&args.file)?;
    let (answer, is_stopped) = simulated(&loaded, &args.file, scenario, many).await?;
    args.output.print(&answer, table)?;
    if is_stopped {
        let (over, asked) = (thousands(answer.report.runs), thousands(u64::from(args.runs)));
        return Err(Told::new(format!("interrupted after {over} of {asked} rollouts")).into());
    }
    Ok(Exit::Done)
}

/// How many rollouts, and at which traffic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Many {
    /// How many.
    pub(crate) runs: u32,
    /// The same seed gives the same answer.
    pub(crate) seed: u64,
    /// New sessions per second, instead of what the scenario says.
    pub(crate) sessions_per_second: Option<f64>,
}

impl Many {
    /// A scenario by its name or file, with this traffic.
    pub(crate) fn scenario(self, named: &str) -> Result<Scenario, Told> {
        let mut scenario = scenario(named)?;
        if let Some(rate) = self.sessions_per_second {
            if !(rate > 0.0 && rate <= 10_000.0) {
                return Err(Told::new(format!("{rate} sessions per second cannot be simulated"))
                    .hint("give a rate above 0 and up to 10000"));
            }
            scenario.traffic.sessions_per_s = rate;
        }
        Ok(scenario)
    }
}

/// Rollouts of one manifest in one scenario, and whether an interrupt ended them early.
pub(crate) async fn simulated(
    loaded: &Loaded,
    file: &Path,
    scenario: Scenario,
    many: Many,
) -> anyhow::Result<(Answer, bool)> {
    if loaded.plan.strategy == Strategy::Immediate {
        return Err(Told::new(format!("{} has `strategy: immediate`", file.display()))
            .hint("there is nothing to simulate: everyone gets the new version at once")
            .into());
    }
    let unknown = scenario.unknown_segments(&loaded.plan);
    if !unknown.is_empty() {
        let names: Vec<&str> = loaded.plan.segments.iter().map(|segment| segment.name.as_str()).collect();
        let message = format!("scenario {} has sessions of {}", scenario.name, unknown.join(", "));
        return Err(Told::new(message).hint(format!("the manifest has {}", names.join(", "))).into());
    }
    let mut manifest = loaded.json.clone();
    if let Some(spec) = manifest.get_mut("spec").and_then(serde_json::Value::as_object_mut) {
        // The prompts change nothing here, and each rollout would read them.
        spec.remove("source");
    }
    let batch = Batch::new(many.runs, many.seed);
    let progress = Arc::new(Progress::default());
    let simulating = tokio::task::spawn_blocking({
        let (manifest, scenario, progress) = (manifest.to_string(), scenario.clone(), progress.clone());
        move || simulate_batch(&manifest, &scenario, batch, &progress)
    });
    let report = watched(simulating, &progress, many.runs).await?.map_err(refused)?;
    if progress.is_stopped() && report.runs == 0 {
        return Err(Told::new("interrupted before the first rollout was over").into());
    }
    let answer = Answer {
        pack: loaded.plan.pack.to_string(),
        version: loaded.plan.version.to_string(),
        about: scenario.about,
        sessions_per_second: scenario.traffic.sessions_per_s,
        most_lengths: batch.most_lengths,
        report,
    };
    Ok((answer, progress.is_stopped()))
}

fn refused(error: ApplyError) -> Told {
    match error {
        ApplyError::Unreadable(problems) => Told::new(format!("could not read the manifest: {problems}")),
        ApplyError::Refused(refused) => {
            Told::new(format!("this manifest cannot be rolled out: {refused}")).hint(refused.hint())
        }
    }
}

/// The built-in scenario of a name, or the one in a file.
fn scenario(named: &str) -> Result<Scenario, Told> {
    if let Some(scenario) = Scenario::built_in(named) {
        return Ok(scenario);
    }
    let is_path = named.contains(['/', '\\', '.']) || Path::new(named).is_file();
    if !is_path {
        let told = Told::new(format!("no scenario is called {named:?}, and no file either"));
        let names: Vec<&str> = Scenario::names().collect();
        let told = match nearest(named, names.iter().copied()) {
            Some(near) => told.hint(format!("did you mean {near}?")),
            None => told,
        };
        return Err(told.hint(format!("built in are {}; or name a file", names.join(", "))));
    }
    let text = std::fs::read_to_string(named)
        .map_err(|error| Told::new(format!("could not read scenario {named}: {error}")))?;
    Scenario::parse(&text).map_err(|error| Told::new(format!("{named}: {error}")))
}

/// Waits for a batch and shows how far it is; an interrupt stops it.
async fn watched<T>(
    mut simulating: tokio::task::JoinHandle<T>,
    progress: &Progress,
    runs: u32,
) -> anyhow::Result<T> {
    let mut shown = Shown::new(runs);
    let mut frames = tokio::time::interval(FRAME);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let done = loop {
        tokio::select! {
            done = &mut simulating => break done,
            _ = frames.tick() => shown.show(progress.finished()),
            interrupted = &mut interrupt, if !progress.is_stopped() => {
                interrupted.context("could not wait for an interrupt")?;
                progress.stop();
            }
        }
    };
    shown.clear();
    done.context("the simulation broke off")
}

/// Progress on standard error: a bar on a terminal, now and then a line elsewhere.
struct Shown {
    runs: u32,
    began: Instant,
    next_line: Duration,
    is_terminal: bool,
    is_drawn: bool,
}

impl Shown {
    fn new(runs: u32) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { runs, began: Instant::now(), next_line: FIRST_LINE, is_terminal, is_drawn: false }
    }

    fn show(&mut self, finished: u32) {
        if self.is_terminal {
            let text = progress_text(finished, self.runs, self.began.elapsed());
            eprint!("\r  {text}\x1b[K");
            self.is_drawn = true;
        } else if self.began.elapsed() >= self.next_line {
            eprintln!("{} of {} rollouts", thousands(u64::from(finished)), thousands(u64::from(self.runs)));
            self.next_line = self.next_line.mul_f64(1.5);
        }
    }

    fn clear(&mut self) {
        if self.is_drawn {
            eprint!("\r\x1b[K");
            let _ = std::io::stderr().flush();
            self.is_drawn = false;
        }
    }
}

fn progress_text(finished: u32, runs: u32, elapsed: Duration) -> String {
    let share = f64::from(finished) / f64::from(runs.max(1));
    let left = match share {
        share if share > 0.0 => {
            let seconds = elapsed.as_secs_f64() * (1.0 - share) / share;
            #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates")]
            let seconds = seconds.ceil() as i64;
            format!(" · {} left", duration(seconds))
        }
        _ => String::new(),
    };
    format!(
        "{} {} of {} rollouts{left}",
        bar(share, PROGRESS_BAR),
        thousands(u64::from(finished)),
        thousands(u64::from(runs))
    )
}

fn table(answer: &Answer) -> String {
    let report = &answer.report;
    let rate = percent(answer.sessions_per_second);
    let mut text = format!(
        "{} {}   {}   {}\n",
        paint(STRONG, &answer.pack),
        answer.version,
        report.scenario,
        paint(QUIET, format!("{} rollouts, {rate} sessions/s, seed {}", thousands(report.runs), report.seed))
    );
    if !answer.about.is_empty() {
        text.push_str(&paragraph(&answer.about, QUIET));
    }
    text.push('\n');
    text.push_str(&ends(report));
    if let Some(spreads) = spreads(report) {
        text.push('\n');
        text.push_str(&spreads);
    }
    text.push('\n');
    for sentence in sentences(answer) {
        text.push_str(&paragraph(&sentence, Style::new()));
    }
    text
}

fn ends(report: &Report) -> String {
    // What is good news depends on whether the new version is harmful.
    let (back, through) = if report.harmful { (GOOD, BAD) } else { (BAD, GOOD) };
    let mut table = Table::new(&["END", "ROLLOUTS>", "SHARE>", "95% INTERVAL"]).indented();
    for (name, share, style) in [
        ("rolled back", report.rolled_back, back),
        ("completed", report.completed, through),
        ("unfinished", report.unfinished, LOOK),
    ] {
        let Proportion { count, share, low, high } = share;
        let name = Cell::left(name);
        table.row([
            if count > 0 { name.style(style) } else { name },
            Cell::right(thousands(count)),
            Cell::right(format!("{:.1}%", share * 100.0)),
            Cell::left(format!("{:.1}% to {:.1}%", low * 100.0, high * 100.0)).style(QUIET),
        ]);
    }
    table.to_string()
}

/// Times and exposures; nothing when no rollout ended.
fn spreads(report: &Report) -> Option<String> {
    let minutes = |value: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates")]
        let seconds = (value * 60.0).round() as i64;
        duration(seconds)
    };
    let sessions = |value: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of sessions")]
        let count = value.round() as u64;
        thousands(count)
    };
    type Show<'a> = &'a dyn Fn(f64) -> String;
    let is_late = report.onset.is_some_and(|onset| onset.from.millis() > 0);
    let since = |spread: Option<Spread>| spread.filter(|_| is_late);
    let rows: [(&str, Option<Spread>, Show<'_>); 5] = [
        ("time to the rollback", report.minutes_to_rollback, &minutes),
        ("  since the harm began", since(report.minutes_from_onset), &minutes),
        ("sessions exposed to a rolled back canary", report.exposed, &sessions),
        ("  since the harm began", since(report.exposed_since_onset), &sessions),
        ("time to the completion", report.minutes_to_completion, &minutes),
    ];
    let mut table = Table::new(&["", "MEDIAN>", "5%>", "95%>", "MEAN>"]).indented();
    let mut is_empty = true;
    for (name, spread, show) in rows {
        let Some(spread) = spread else { continue };
        is_empty = false;
        table.row([
            Cell::left(name),
            Cell::right(show(spread.median)).style(STRONG),
            Cell::right(show(spread.p5)),
            Cell::right(show(spread.p95)),
            Cell::right(show(spread.mean)),
        ]);
    }
    (!is_empty).then(|| table.to_string())
}

/// What the numbers mean.
pub(crate) fn sentences(answer: &Answer) -> Vec<String> {
    let report = &answer.report;
    let runs = report.runs;
    let mut told = Vec::new();
    if report.harmful {
        let promoted = thousands(report.bad_promoted);
        told.push(format!(
            "The harmful version became stable in {promoted} of {} rollouts.",
            thousands(runs)
        ));
    } else if report.rolled_back.count > 0 {
        told.push(
            "Every one of these rollbacks is a false alarm: the new version is not harmful.".to_owned(),
        );
    }
    if !report.culprits.is_empty() {
        let named: BTreeMap<&str, u64> =
            report.culprits.iter().map(|(metric, count)| (metric.as_str(), *count)).collect();
        told.push(format!("Named as the cause: {}.", counts(named.into_iter(), report.rolled_back.count)));
    }
    let holds = |held: &BTreeMap<HoldCause, u64>, of: u64| {
        counts(held.iter().map(|(cause, count)| (words(*cause), *count)), of)
    };
    if !report.held.is_empty() {
        told.push(format!("Held at least once by: {}.", holds(&report.held, runs)));
    }
    if report.unfinished.count > 0 {
        let why = if report.unfinished_held.is_empty() {
            "nothing held them at that moment".to_owned()
        } else {
            format!("held by {}", holds(&report.unfinished_held, report.unfinished.count))
        };
        let most = answer.most_lengths;
        told.push(format!("Unfinished after {most} times the planned length: {why}."));
    }
    match (report.onset.and_then(|onset| onset.bound_canary), report.ratio_to_bound) {
        (Some(bound), Some(ratio)) => told.push(format!(
            "Any test as careful as this needs {bound:.0} exposed sessions on average to see this harm; these \
             rollouts took {ratio:.1} times as many."
        )),
        (Some(bound), None) => told.push(format!(
            "Any test as careful as this needs {bound:.0} exposed sessions on average to see this harm."
        )),
        (None, _) if report.onset.is_some() => told.push(
            "There is no information bound to compare with: the plan ends before any test could see this harm, or \
             the harm is no share of single requests."
                .to_owned(),
        ),
        (None, _) if report.harmful => {
            told.push("No gate measures this harm directly, so there is no bound to compare with.".to_owned());
        }
        (None, _) => {}
    }
    told
}

/// Things with their counts: `at risk (12%), no data (3%)`.
fn counts<'a>(things: impl Iterator<Item = (&'a str, u64)>, of: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts of rollouts stay far below 2^52")]
    let share = |count: u64| count as f64 / of.max(1) as f64 * 100.0;
    let shown: Vec<String> = things.map(|(name, count)| format!("{name} ({:.1}%)", share(count))).collect();
    shown.join(", ")
}

fn words(cause: HoldCause) -> &'static str {
    match cause {
        HoldCause::Paused => "a pause",
        HoldCause::AtRisk => "a gate at risk",
        HoldCause::NoData => "too few sessions",
        HoldCause::Unproven => "a gate not yet shown to be within the margin",
        HoldCause::StableFails => "stable failing as well",
        HoldCause::Degraded => "a degraded metric",
        HoldCause::SampleRatio => "a sample-ratio mismatch",
        HoldCause::ProviderUnreachable => "an unreachable provider",
        HoldCause::ApprovalDue => "an approval that nobody gives",
        HoldCause::NoBaseline => "no baseline",
        HoldCause::Deadline => "the deadline",
        HoldCause::Unobserved => "a crash of the server",
        HoldCause::ForcedStable => "the force-stable file",
        HoldCause::Frozen => "a freeze",
        HoldCause::Alert => "an alert",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_how_long_it_takes() {
        let text = progress_text(250, 1_000, Duration::from_secs(20));
        assert_eq!(text, "████████░░░░░░░░░░░░░░░░░░░░░░ 250 of 1,000 rollouts · 1m00s left");
        assert!(!progress_text(0, 1_000, Duration::ZERO).contains("left"));
    }
}
