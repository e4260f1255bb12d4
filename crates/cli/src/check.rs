//! `serin check`: everything that can be proven about a manifest and its prompts before they are merged.

mod show;

use std::path::PathBuf;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;
use serin_core::forecast::{Forecast, TimetableEntry, sentences, timetable};
use serin_core::lint::lint_traffic;
use serin_core::plan::{Plan, Strategy};
use serin_core::units::HoldFor;

use crate::junit::{ReportFile, ReportForm};
use crate::lint::AgainstArgs;
use crate::manifest_file::{Findings, Loaded, examine};
use crate::plan::rate;
use crate::simulate::{Answer, Many, sentences as simulated_sentences, simulated};
use crate::status_view::thousands;
use crate::timetable::moment;
use crate::told::{Detail, Exit, Severity, Told};
use crate::traffic::TrafficArgs;

/// The scenarios that are simulated unless others are named: one without harm, and one with.
const SCENARIOS: [&str; 2] = ["healthy", "regression"];

/// New sessions that a simulated rollout has at most by its plan, so that plans of days are simulated in seconds.
const MOST_SESSIONS: f64 = 30_000.0;

/// Rollouts of a scenario, unless a number is given.
const RUNS: u32 = 100;

/// The same for a plan of more than half a day: it is checked every minute, in each rollout.
const RUNS_OF_A_LONG_PLAN: u32 = 20;

/// From here on a plan is long.
const HALF_A_DAY: HoldFor = HoldFor::from_hours(12);

/// Prove a manifest before it is merged: lint, plan and simulate in one report
///
/// It fails (exit code 1) when the manifest or its pack has an error, when the rollout never ends at the
/// given traffic, when a healthy version is rolled back more often than promised, or when too many harmful
/// ones become stable. Warnings fail it only with --deny-warnings.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The manifest (YAML or JSON); `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Add the calendar of a rollout that starts then, such as 2026-12-01T22:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Timestamp>,
    /// A scenario to simulate, by name or file, instead of `healthy` and `regression`. May be repeated
    #[arg(long = "scenario", value_name = "NAME|FILE")]
    scenarios: Vec<String>,
    /// How many rollouts of each scenario: 100, or 20 of a plan of more than half a day; 0 simulates none
    #[arg(long, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    runs: Option<u32>,
    /// The same seed gives the same answer
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// The share of harmful versions that must not become stable
    #[arg(long, value_name = "PERCENT", default_value = "80%", value_parser = share)]
    least_caught: f64,
    /// Fail on warnings too
    #[arg(long)]
    deny_warnings: bool,
    #[command(flatten)]
    against: AgainstArgs,
    /// Write a report to a file too: junit=FILE, json=FILE or markdown=FILE. May be repeated
    #[arg(long = "report", value_name = "FORM=FILE", value_parser = ReportFile::parse)]
    reports: Vec<ReportFile>,
    /// How to write the result
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    output: CheckOutput,
}

/// How `check` writes its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum CheckOutput {
    /// For people.
    #[default]
    Text,
    /// As data.
    Json,
    /// A comment for a pull request.
    Markdown,
    /// A test report, for pipelines.
    Junit,
}

/// Reads `80%` or `80`.
fn share(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.trim().trim_end_matches('%').trim_end().parse().ok();
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("{text:?} is no share such as 80%"))
}

/// How one part of the proof ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// It holds.
    Ok,
    /// It holds, and something deserves a look.
    Warning,
    /// It does not hold.
    Failed,
    /// It was not looked at.
    Skipped,
}

/// One part of the proof.
#[derive(Debug, Serialize)]
struct Part {
    /// `lint`, `plan` or `simulate`.
    part: &'static str,
    /// What it holds, in a few words.
    what: String,
    verdict: Verdict,
    /// The reason in one sentence.
    message: String,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    /// Absent where the manifest could not be read.
    pack: Option<String>,
    version: Option<String>,
    /// Whether nothing failed.
    ok: bool,
    parts: Vec<Part>,
    problems: Vec<Detail>,
    /// At the given traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    forecast: Option<Forecast>,
    /// What the forecast means.
    sentences: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timetable: Option<Vec<TimetableEntry>>,
    simulations: Vec<Simulated>,
    #[serde(skip)]
    plan: Option<Plan>,
}

/// One scenario, and what its numbers mean.
#[derive(Debug, Serialize)]
struct Simulated {
    #[serde(flatten)]
    answer: Answer,
    sentences: Vec<String>,
}

/// Proves what can be proven.
pub(crate) async fn run(args: &CheckArgs) -> anyhow::Result<Exit> {
    let many = Many { runs: RUNS, seed: args.seed, sessions_per_second: None };
    let named = |name: &&str| (*name).to_owned();
    let scenarios = if args.scenarios.is_empty() {
        SCENARIOS.iter().map(named).collect()
    } else {
        args.scenarios.clone()
    };
    // What is called wrongly is said before anything takes time.
    for scenario in &scenarios {
        many.scenario(scenario)?;
    }
    for report in &args.reports {
        report.prepare()?;
    }
    let report = proven(args, many, &scenarios).await?;
    match args.output {
        CheckOutput::Text => anstream::println!("{}", show::text(&report).trim_end()),
        CheckOutput::Json => println!("{}", show::json(&report)?),
        CheckOutput::Markdown => println!("{}", show::markdown(&report).trim_end()),
        CheckOutput::Junit => print!("{}", show::junit(&report)),
    }
    for file in &args.reports {
        file.write(&match file.form {
            ReportForm::Junit => show::junit(&report),
            ReportForm::Json => show::json(&report)?,
            ReportForm::Markdown => show::markdown(&report),
        })?;
    }
    Ok(if report.ok { Exit::Done } else { Exit::Failed })
}

async fn proven(args: &CheckArgs, many: Many, scenarios: &[String]) -> anyhow::Result<Report> {
    let Findings { details, loaded } = examine(&args.file)?;
    let mut report = Report {
        file: args.file.display().to_string(),
        pack: None,
        version: None,
        ok: false,
        parts: Vec::new(),
        problems: details,
        forecast: None,
        sentences: Vec::new(),
        timetable: None,
        simulations: Vec::new(),
        plan: None,
    };
    let has_errors = report.problems.iter().any(|problem| problem.severity == Severity::Error);
    let Some(mut loaded) = loaded else {
        if !has_errors {
            return Err(Told::new(format!("{} is a pack file and no manifest", args.file.display()))
                .hint("name the manifest whose `spec.source.file` points to it")
                .into());
        }
        report.parts.push(lint(&report.problems, args.deny_warnings));
        for part in ["plan", "simulate"] {
            report.parts.push(skipped(part, "the manifest has errors"));
        }
        return Ok(report);
    };
    report.pack = Some(loaded.plan.pack.to_string());
    report.version = Some(loaded.plan.version.to_string());
    let policy = args.against.policy().await?;
    report.problems.extend(loaded.against(&policy));
    policy.impose(&mut loaded.plan);
    if let Some(stable) = args.against.stable(&loaded).await? {
        report.problems.extend(loaded.beside(&stable));
    }
    let traffic = args.traffic.given(&loaded.plan)?;
    let forecast = traffic.as_ref().map(|traffic| Forecast::new(&loaded.plan, traffic, None));
    if let Some(forecast) = &forecast {
        let lints = lint_traffic(&loaded.plan, forecast);
        report.problems.extend(lints.iter().map(|lint| loaded.warning(lint)));
        report.sentences = sentences(&loaded.plan, forecast);
    }
    report.parts.push(lint(&report.problems, args.deny_warnings));
    report.parts.push(plan(&loaded.plan, forecast.as_ref()));
    report.timetable = args.from.map(|from| timetable(&loaded.plan, from));
    let many = Many { sessions_per_second: traffic.map(|traffic| traffic.sessions_per_second()), ..many };
    simulate(args, many, scenarios, &loaded, &mut report).await?;
    report.forecast = forecast;
    report.ok = report.parts.iter().all(|part| part.verdict != Verdict::Failed);
    report.plan = Some(loaded.plan);
    Ok(report)
}

fn skipped(part: &'static str, why: &str) -> Part {
    Part { part, what: String::new(), verdict: Verdict::Skipped, message: why.to_owned() }
}

fn lint(problems: &[Detail], deny_warnings: bool) -> Part {
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let plural = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    let verdict = match (errors, warnings) {
        (0, 0) => Verdict::Ok,
        (0, _) if !deny_warnings => Verdict::Warning,
        (_, _) => Verdict::Failed,
    };
    let message = match (errors, warnings) {
        (0, 0) => "nothing to say".to_owned(),
        (0, warnings) => plural(warnings, "warning"),
        (errors, 0) => plural(errors, "error"),
        (errors, warnings) => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
    };
    Part { part: "lint", what: "the manifest and its pack".to_owned(), verdict, message }
}

fn plan(plan: &Plan, forecast: Option<&Forecast>) -> Part {
    let steps = format!("{} steps in {}", plan.steps.len(), plan.planned_length());
    let (verdict, message) = match (plan.strategy, forecast) {
        (Strategy::Immediate, _) => (Verdict::Warning, "everyone gets the version at once".to_owned()),
        (Strategy::Canary, None) => {
            (Verdict::Ok, format!("{steps} by the clock; with --sessions-per-day also what its gates see"))
        }
        (Strategy::Canary, Some(forecast)) => match forecast.expected_length {
            None => (
                Verdict::Failed,
                format!("{steps} by the clock, and no end at {}", rate(forecast.sessions_per_second)),
            ),
            Some(length) if forecast.fits() => {
                (Verdict::Ok, format!("{steps}; {length} at {}", rate(forecast.sessions_per_second)))
            }
            Some(length) => (
                Verdict::Warning,
                format!(
                    "{steps} by the clock; {length} at {}: steps wait",
                    rate(forecast.sessions_per_second)
                ),
            ),
        },
    };
    Part { part: "plan", what: "the rollout".to_owned(), verdict, message }
}

async fn simulate(
    args: &CheckArgs,
    many: Many,
    scenarios: &[String],
    loaded: &Loaded,
    report: &mut Report,
) -> anyhow::Result<()> {
    let is_long = loaded.plan.planned_length() > HALF_A_DAY;
    let runs = args.runs.unwrap_or(if is_long { RUNS_OF_A_LONG_PLAN } else { RUNS });
    let many = Many { runs, ..many };
    let why_not = match (runs, loaded.plan.strategy) {
        (_, Strategy::Immediate) => Some("everyone gets the version at once: there is nothing to simulate"),
        (0, Strategy::Canary) => Some("--runs 0"),
        (_, Strategy::Canary) => None,
    };
    if let Some(why) = why_not {
        report.parts.push(skipped("simulate", why));
        return Ok(());
    }
    for named in scenarios {
        let mut scenario = many.scenario(named)?;
        let most = MOST_SESSIONS / loaded.plan.planned_length().secs_f64().max(1.0);
        scenario.traffic.sessions_per_s = scenario.traffic.sessions_per_s.min(most);
        let (answer, is_stopped) = simulated(loaded, &args.file, scenario, many).await?;
        if is_stopped {
            return Err(Told::new(format!("interrupted while simulating {named}")).into());
        }
        report.parts.push(scenario_part(&answer, loaded.plan.analysis.confidence, args.least_caught));
        report.simulations.push(Simulated { sentences: simulated_sentences(&answer), answer });
    }
    Ok(())
}

/// What a scenario shows: a harmful version must not become stable, an equal one must not be blamed.
fn scenario_part(answer: &Answer, confidence: f64, least_caught: f64) -> Part {
    let simulation = &answer.report;
    let runs = thousands(simulation.runs);
    let percent = |share: f64| format!("{:.0}%", share * 100.0);
    let (verdict, message) = if simulation.harmful {
        let caught = 1.0 - simulation.completed.share;
        let verdict = if caught < least_caught { Verdict::Failed } else { Verdict::Ok };
        let message = format!(
            "{} of {runs} harmful versions became stable, {} were rolled back, {} still held; at least {} must be caught, that is rolled back or held",
            thousands(simulation.completed.count),
            thousands(simulation.rolled_back.count),
            thousands(simulation.unfinished.count),
            percent(least_caught)
        );
        (verdict, message)
    } else {
        let most = 1.0 - confidence;
        let verdict = if simulation.rolled_back.low > most {
            Verdict::Failed
        } else if simulation.unfinished.share > 0.5 {
            Verdict::Warning
        } else {
            Verdict::Ok
        };
        let message = format!(
            "{} of {runs} versions without harm were rolled back, {} became stable, {} still held; at most {} may be rolled back",
            thousands(simulation.rolled_back.count),
            thousands(simulation.completed.count),
            thousands(simulation.unfinished.count),
            percent(most)
        );
        (verdict, message)
    };
    let what = format!("{} at {}", simulation.scenario, rate(answer.sessions_per_second));
    Part { part: "simulate", what, verdict, message }
}
