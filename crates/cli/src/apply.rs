//! `serin apply`: publishes a version and ships it.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;
use serin_core::units::HoldFor;
use serin_server::api::types::{AppliedOutcome, AppliedView, GateState, PackDetail, RolloutView};

use crate::api::{ApplyOptions, Client, ServerArgs};
use crate::manifest_file::load;
use crate::status_view;
use crate::terminal::{GOOD, LOOK, STRONG, TRIAL, paint};
use crate::told::Exit;
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
    let client = Client::new(&args.server)?;
    if loaded.pack.is_some() {
        let stable = client.stable_prompts(&loaded.plan.pack).await?;
        for warning in stable.iter().flat_map(|stable| loaded.beside(stable)) {
            anstream::eprintln!("{warning}\n");
        }
    }
    let options =
        ApplyOptions { dry_run: args.dry_run, restart: args.restart, reason: args.reason.as_deref() };
    let applied = client.apply(&loaded.json, options).await?;
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

    let mut last = String::new();
    let pack = &loaded.plan.pack;
    let seen = wait(&client, pack, Some(&applied.version), args.timeout, |detail| {
        let Some(rollout) = &detail.rollout else { return };
        // One line for each change; the age of a check is none.
        let line = status_view::line(rollout);
        if line != last && args.output == ApplyOutput::Text {
            anstream::println!("{}", line);
            last = line;
        }
    })
    .await?;
    let exit = seen.exit.unwrap_or(Exit::TimedOut);
    let rollout = seen.pack.rollout.as_ref();
    match args.output {
        ApplyOutput::Text => anstream::println!("\n{}", outcome(&seen.pack, exit)),
        ApplyOutput::Json => println!(
            "{:#}",
            json!({ "applied": applied, "outcome": word(exit), "exit_code": exit as u8, "rollout": rollout })
        ),
        ApplyOutput::Junit => print!("{}", junit(&applied, rollout, exit)),
    }
    Ok(exit)
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
    let mut cases = Vec::new();
    let gates = rollout.map(|rollout| rollout.gates.as_slice()).unwrap_or_default();
    for gate in gates {
        let said = format!("{} (canary {}, {} sessions)", gate.rule, gate.shown, gate.samples);
        let name = escaped(&format!("{} {}", gate.metric, gate.rule));
        let body = match gate.state {
            GateState::Pass => String::new(),
            GateState::NotApplicable | GateState::NoData => {
                format!("<skipped message=\"{}\"/>", escaped(gate.state.as_str()))
            }
            GateState::AtRisk | GateState::Fail => {
                format!("<failure message=\"{}\"/>", escaped(&format!("{}: {said}", gate.state)))
            }
        };
        cases.push(format!(
            "    <testcase classname=\"{}.gates\" name=\"{name}\">{body}</testcase>",
            applied.pack
        ));
    }
    let reason = match rollout {
        Some(RolloutView { end: Some(end), .. }) => end.reason.clone(),
        Some(RolloutView { holds, .. }) if !holds.is_empty() => {
            let holds: Vec<String> =
                holds.iter().map(|hold| format!("{} ({})", hold.shown, hold.reason)).collect();
            holds.join(", ")
        }
        Some(_) | None => applied.message.clone(),
    };
    let body = match exit {
        Exit::Done => String::new(),
        Exit::RolledBack | Exit::OnHold | Exit::TimedOut | Exit::Failed | Exit::Usage => {
            format!("<failure message=\"{}\"/>", escaped(&format!("{}: {reason}", word(exit))))
        }
    };
    let name = escaped(&format!("{} {}", applied.pack, applied.version));
    cases
        .insert(0, format!("    <testcase classname=\"{}\" name=\"{name}\">{body}</testcase>", applied.pack));
    let count = |what: &str| cases.iter().filter(|case| case.contains(what)).count();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">\n{}\n  </testsuite>\n</testsuites>\n",
        cases.len(),
        count("<failure"),
        count("<skipped"),
        cases.join("\n"),
    )
}

/// Text as an XML attribute holds it.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
