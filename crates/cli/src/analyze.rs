//! `serin analyze`: judges counts that were collected elsewhere.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use serin_core::retrospect::{GateCounts, Judgement, Question, Unjudgeable, Verdict, judge};

use crate::manifest_file::{Source, read_text};
use crate::terminal::{BAD, Cell, GOOD, LOOK, OutputFlag, QUIET, Table, bar, paint};
use crate::told::{Detail, Exit, Severity, Told};

/// Characters of an evidence bar.
const EVIDENCE_BAR: usize = 20;

/// Judge counts that were collected elsewhere, by the tests that a rollout is judged by
#[derive(Debug, clap::Args)]
pub(crate) struct AnalyzeArgs {
    /// The counts (JSON); `-` is standard input
    file: PathBuf,
    #[command(flatten)]
    output: OutputFlag,
}

/// Judges the counts; the exit code says that they could be judged, not what came out.
pub(crate) fn run(args: &AnalyzeArgs) -> anyhow::Result<Exit> {
    let text = read_text(&args.file)?;
    let source = Source { name: args.file.display().to_string(), text: &text };
    let question = read(&source)?;
    let judgement = judge(&question).map_err(|error| unjudgeable(&source, &question, &error))?;
    args.output.print(&judgement, |judgement| table(&question, judgement))?;
    Ok(Exit::Done)
}

/// Reads a question; what is wrong is shown where it stands.
fn read(source: &Source<'_>) -> Result<Question, Told> {
    let value: Value = serde_json::from_str(source.text).map_err(|error| {
        let at = serin_core::manifest::At {
            line: u32::try_from(error.line()).unwrap_or(0),
            column: u32::try_from(error.column()).unwrap_or(0),
        };
        let message = without_place(&error);
        cannot(source, vec![source.detail(Severity::Error, "", at, &message, None)])
    })?;
    // One gate at a time, so that each mistake is shown at its gate.
    let gates = value.get("gates").and_then(Value::as_array);
    let mut details: Vec<Detail> = Vec::new();
    for (index, gate) in gates.into_iter().flatten().enumerate() {
        if let Err(error) = GateCounts::deserialize(gate) {
            details.push(mistake(source, &format!("gates[{index}]"), &error));
        }
    }
    if !details.is_empty() {
        return Err(cannot(source, details));
    }
    serde_json::from_value(value).map_err(|error| cannot(source, vec![mistake(source, "", &error)]))
}

fn mistake(source: &Source<'_>, path: &str, error: &serde_json::Error) -> Detail {
    let message = without_place(error);
    let (message, hint) = if message.contains("untagged enum Sessions") {
        let hint = "write `{\"sessions\": 200, \"bad\": 12}` or `{\"values\": [[0.5, 12], ...]}`";
        ("`canary` or `stable` of a comparison is neither counted nor valued".to_owned(), Some(hint))
    } else if message.contains("`test`") || message.contains("unknown variant") {
        (message, Some("`test` is `stable` (canary against stable) or `threshold` (a share against a limit)"))
    } else {
        (message, None)
    };
    source.detail(Severity::Error, path, source.place_of(path), &message, hint)
}

/// The message of an error; its place is shown apart.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.rsplit_once(" at line ").map_or(message.clone(), |(message, _)| message.to_owned())
}

fn cannot(source: &Source<'_>, details: Vec<Detail>) -> Told {
    Told { message: format!("{} cannot be judged as it stands", source.name), details, hints: Vec::new() }
}

fn unjudgeable(source: &Source<'_>, question: &Question, error: &Unjudgeable) -> Told {
    let names = question.gates.iter().map(name);
    // Of two gates with the same name the later one is the mistake.
    let index = names.enumerate().filter(|(_, name)| *name == error.gate).map(|(index, _)| index).next_back();
    let path = index.map_or_else(String::new, |index| format!("gates[{index}]"));
    let message = format!(
        "{}{}",
        if index.is_some() { format!("{:?}: ", error.gate) } else { String::new() },
        error.problem
    );
    cannot(source, vec![source.detail(Severity::Error, &path, source.place_of(&path), &message, None)])
}

fn name(gate: &GateCounts) -> &str {
    match gate {
        GateCounts::Stable { name, .. } | GateCounts::Threshold { name, .. } => name,
    }
}

fn table(question: &Question, judgement: &Judgement) -> String {
    let limit = -(1.0 - question.confidence).ln();
    let row = |name: &str, log_e: f64, verdict: Verdict| {
        let size = (log_e / limit).clamp(0.0, 1.0);
        let style = style(verdict);
        [
            Cell::left(name),
            Cell::left(word(verdict)).style(style),
            Cell::right(e_value(log_e)),
            Cell::right(format!("{log_e:.3}")),
            Cell::left(bar(size, EVIDENCE_BAR)).style(if size > 0.5 { LOOK } else { QUIET }),
        ]
    };
    let mut table = Table::new(&["GATE", "VERDICT", "E>", "LN E>", "EVIDENCE"]).indented();
    for gate in &judgement.gates {
        table.row(row(&gate.name, gate.log_e, gate.verdict));
    }
    table.row(row("all together", judgement.combined.log_e, judgement.combined.verdict));
    let act = (1.0 / (1.0 - question.confidence)).round();
    let told = match judgement.combined.verdict {
        Verdict::Fail => format!("{}: {}", paint(BAD, "proven broken"), judgement.culprits.join(", ")),
        Verdict::Pass => "nothing is proven broken; that does not prove that nothing is".to_owned(),
        Verdict::Unproven => "nothing is proven yet".to_owned(),
        Verdict::NoData => "there is nothing to judge".to_owned(),
    };
    format!(
        "{table}\n  {told}\n  {}",
        paint(
            QUIET,
            format!(
                "at {}% confidence it acts when E of all together reaches {act} (ln E {limit:.3})",
                question.confidence * 100.0
            )
        )
    )
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fail => "fail",
        Verdict::Pass => "pass",
        Verdict::Unproven => "unproven",
        Verdict::NoData => "no data",
    }
}

fn style(verdict: Verdict) -> clap::builder::styling::Style {
    match verdict {
        Verdict::Fail => BAD,
        Verdict::Pass => GOOD,
        Verdict::Unproven | Verdict::NoData => LOOK,
    }
}

/// An e-value with the digits that mean something.
fn e_value(log_e: f64) -> String {
    let value = log_e.exp();
    if (0.01..10_000.0).contains(&value) { format!("{value:.2}") } else { format!("{value:.1e}") }
}
