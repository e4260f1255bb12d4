//! `serin apply`: publishes a version and ships it.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;
use serin_core::units::HoldFor;
use serin_server::api::types::{AppliedOutcome, AppliedView, GateState, PackDetail, RolloutView};

use crate::api::{ApplyOptions, Client, ServerArgs};
use crate::junit::{Case, Outcome, ReportFile, ReportForm, document};
use crate::live::Live;
use crate::manifest_file::{Loaded, load};
use crate::status_view;
use crate::terminal::{GOOD, LOOK, STRONG, TRIAL, paint};
use crate::told::{Exit, Told};
use crate::wait::wait;

/// Publish a manifest; a new version of a known pack starts as a canary
///
/// The prompts of `spec.source.file` are read here and sent along. With --wait the exit code tells how
/// it ended: 0 completed, 10 rolled back or superseded, 11 on hold, 12 timed out, 1 any other error.
#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// The manifest, YAML or JSON; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// Wait until the rollout is over, or needs a person
    #[arg(long)]
    wait: bool,
    /// How long to wait at most, such as 90s, 45m or 2h
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "wait")]
    timeout: Option<Duration>,
    /// Begin the rollout of the same version anew: step 0, fresh evidence
    #[arg(long)]
    restart: bool,
    /// Only say what would happen
    #[arg(long, conflicts_with_all = ["wait", "restart"])]
    dry_run: bool,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Apply although rules of the policy say no, and why; for admins, kept in the audit log
    #[arg(long, value_name = "TEXT")]
    override_policy: Option<String>,
    /// Write a report to a file too: junit=FILE, json=FILE or markdown=FILE. May be repeated
    #[arg(long = "report", value_name = "FORM=FILE", value_parser = ReportFile::parse, requires = "wait")]
    reports: Vec<ReportFile>,
    /// How to write the result
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    output: ApplyOutput,
    #[command(flatten)]
    server: ServerArgs,
}

/// How `apply` writes its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum ApplyOutput {
    /// For people.
    #[default]
    Text,
    /// What was done and where the rollout stands, as JSON.
    Json,
    /// A test report in which each gate is a test, for pipelines.
    Junit,
}

/// Reads a length of time.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    HoldFor::parse(text).map(HoldFor::as_std).map_err(|error| error.to_string())
}

/// Applies the manifest, and waits if asked to.
pub(crate) async fn run(args: &ApplyArgs) -> anyhow::Result<Exit> {
    let loaded = load(&args.file)?;
    for warning in &loaded.warnings {
        anstream::eprintln!("{warning}\n");
    }
    for report in &args.reports {
        report.prepare()?;
    }
    let client = Client::new(&args.server)?;
    if loaded.pack.is_some() {
        let stable = client.stable_prompts(&loaded.plan.pack).await?;
        for warning in stable.iter().flat_map(|stable| loaded.beside(stable)) {
            anstream::eprintln!("{warning}\n");
        }
    }
    let options = ApplyOptions {
        dry_run: args.dry_run,
        restart: args.restart,
        reason: args.reason.as_deref(),
        override_policy: args.override_policy.as_deref(),
    };
    let applied = match client.apply(&loaded.json, options).await {
        Ok(applied) => applied,
        Err(told) => return Err(args.report_failure(&loaded, loaded.placed(told))?.into()),
    };
    if args.output == ApplyOutput::Text {
        announce(&applied);
    }
    if !args.wait {
        match args.output {
            ApplyOutput::Text => {}
            ApplyOutput::Json => println!("{:#}", json!({ "applied": applied })),
            ApplyOutput::Junit => print!("{}", junit(&applied, None, Exit::Done)),
        }
        return Ok(Exit::Done);
    }

    let mut shown = Shown::new(args.output == ApplyOutput::Text);
    let seen =
        wait(&client, &loaded.plan.pack, Some(&applied.version), args.timeout, |pack| shown.show(pack));
    let seen = match seen.await {
        Ok(seen) => seen,
        Err(told) => return Err(args.report_failure(&loaded, told)?.into()),
    };
    let exit = seen.exit.unwrap_or(Exit::TimedOut);
    let rollout = seen.pack.rollout.as_ref();
    match args.output {
        ApplyOutput::Text => shown.end(&outcome(&seen.pack, exit)),
        ApplyOutput::Json => print!("{}", data(&applied, rollout, exit)),
        ApplyOutput::Junit => print!("{}", junit(&applied, rollout, exit)),
    }
    args.write_reports(&applied, rollout, exit)?;
    Ok(exit)
}

impl ApplyArgs {
    /// Writes an error into every report, so that a pipeline reads there why there is no more in it.
    fn report_failure(&self, loaded: &Loaded, told: Told) -> Result<Told, Told> {
        let (pack, version) = (&loaded.plan.pack, &loaded.plan.version);
        let name = format!("{pack} {version}");
        let why = format!("{}: {}", word(Exit::Failed), told.message);
        for report in &self.reports {
            let text = match report.form {
                ReportForm::Junit => {
                    document(&name, &[Case::new(pack.as_str(), name.as_str(), Outcome::Failed(why.clone()))])
                }
                ReportForm::Json => {
                    let exit = Exit::Failed;
                    format!(
                        "{:#}\n",
                        json!({ "outcome": word(exit), "exit_code": exit as u8, "error": told.message })
                    )
                }
                ReportForm::Markdown => format!("### `{pack}` {version}: failed\n\n{}\n", told.message),
            };
            report.write(&text)?;
        }
        Ok(told)
    }

    fn write_reports(
        &self,
        applied: &AppliedView,
        rollout: Option<&RolloutView>,
        exit: Exit,
    ) -> Result<(), Told> {
        for report in &self.reports {
            let text = match report.form {
                ReportForm::Junit => junit(applied, rollout, exit),
                ReportForm::Json => data(applied, rollout, exit),
                ReportForm::Markdown => markdown(applied, rollout, exit),
            };
            report.write(&text)?;
        }
        Ok(())
    }
}

/// A comment for a pull request: how it ended, and what each gate read last.
fn markdown(applied: &AppliedView, rollout: Option<&RolloutView>, exit: Exit) -> String {
    let mut text =
        format!("### `{}` {}: {}\n\n", applied.pack, applied.version, word(exit).replace('_', " "));
    let Some(rollout) = rollout else { return text + &applied.message + "\n" };
    text.push_str("| gate | rule | canary | state | sessions |\n| --- | --- | --- | --- | --- |\n");
    for gate in &rollout.gates {
        let cells = [&gate.metric, &gate.rule, &gate.shown].map(|cell| cell.replace('|', "\\|"));
        text.push_str(&format!("| {} | {} | {} |\n", cells.join(" | "), gate.state, gate.samples));
    }
    text
}

/// Progress while waiting: drawn in place on a terminal, one line for each change elsewhere.
struct Shown {
    is_text: bool,
    in_place: bool,
    live: Live,
    last: String,
}

impl Shown {
    fn new(is_text: bool) -> Self {
        Self { is_text, in_place: Live::is_possible(), live: Live::default(), last: String::new() }
    }

    fn show(&mut self, pack: &PackDetail) {
        let Some(rollout) = &pack.rollout else { return };
        if !self.is_text {
            return;
        }
        if self.in_place {
            self.live.draw(&status_view::rollout(rollout, status_view::Depth::Full));
            return;
        }
        // The age of a check is no change.
        let line = status_view::line(rollout);
        if line != self.last {
            anstream::println!("{line}");
            self.last = line;
        }
    }

    /// The last words take the place of what was drawn.
    fn end(&mut self, outcome: &str) {
        self.live.clear();
        anstream::println!("\n{outcome}");
    }
}

fn announce(applied: &AppliedView) {
    let style = match applied.outcome {
        AppliedOutcome::Unchanged | AppliedOutcome::PlanKept => LOOK,
        AppliedOutcome::FirstStable | AppliedOutcome::Immediate => GOOD,
        AppliedOutcome::Started | AppliedOutcome::Superseded => TRIAL,
        AppliedOutcome::RolledBack => LOOK,
    };
    let would = if applied.dry_run { "would be applied: " } else { "" };
    anstream::println!("{would}{}", paint(style, &applied.message));
    if applied.rollout.is_some() && !applied.dry_run {
        anstream::println!("watch it: {}", paint(STRONG, format!("serin status {} --watch", applied.pack)));
    }
}

fn word(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "completed",
        Exit::RolledBack => "rolled_back",
        Exit::OnHold => "on_hold",
        Exit::TimedOut => "timed_out",
        Exit::Failed | Exit::Usage => "failed",
    }
}

/// The last words after waiting.
pub(crate) fn outcome(pack: &PackDetail, exit: Exit) -> String {
    let mut text = match &pack.rollout {
        Some(rollout) => status_view::rollout(rollout, status_view::Depth::Full),
        None => status_view::idle(pack),
    };
    match exit {
        Exit::OnHold => text.push_str(&paint(LOOK, "on hold: see above what clears it\n")),
        Exit::TimedOut => {
            text.push_str(&paint(LOOK, "not over yet: the rollout goes on without anyone waiting\n"))
        }
        Exit::Done | Exit::Failed | Exit::Usage | Exit::RolledBack => {}
    }
    text
}

/// A report in the form that pipelines read as tests: the rollout, and each gate.
fn junit(applied: &AppliedView, rollout: Option<&RolloutView>, exit: Exit) -> String {
    let reason = match rollout {
        Some(RolloutView { end: Some(end), .. }) => end.reason.clone(),
        Some(RolloutView { holds, .. }) if !holds.is_empty() => {
            let holds: Vec<String> =
                holds.iter().map(|hold| format!("{} ({})", hold.shown, hold.reason)).collect();
            holds.join(", ")
        }
        Some(_) | None => applied.message.clone(),
    };
    let outcome = match exit {
        Exit::Done => Outcome::Passed,
        Exit::RolledBack | Exit::OnHold | Exit::TimedOut | Exit::Failed | Exit::Usage => {
            Outcome::Failed(format!("{}: {reason}", word(exit)))
        }
    };
    let name = format!("{} {}", applied.pack, applied.version);
    let mut cases = vec![Case::new(applied.pack.as_str(), name.as_str(), outcome)];
    for gate in rollout.map(|rollout| rollout.gates.as_slice()).unwrap_or_default() {
        let outcome = match gate.state {
            GateState::Pass => Outcome::Passed,
            GateState::NotApplicable | GateState::NoData => Outcome::Skipped(gate.state.as_str().to_owned()),
            GateState::AtRisk | GateState::Fail => Outcome::Failed(format!(
                "{}: {} (canary {}, {} sessions)",
                gate.state, gate.rule, gate.shown, gate.samples
            )),
        };
        let class = format!("{}.gates", applied.pack);
        cases.push(Case::new(class, format!("{} {}", gate.metric, gate.rule), outcome));
    }
    document(&name, &cases)
}

/// What was done and how it ended, as data.
fn data(applied: &AppliedView, rollout: Option<&RolloutView>, exit: Exit) -> String {
    let json =
        json!({ "applied": applied, "outcome": word(exit), "exit_code": exit as u8, "rollout": rollout });
    format!("{json:#}\n")
}
