//! `serin lint`: looks manifests and packs over, without a server.

use std::path::PathBuf;

use serde::Serialize;

use crate::manifest_file::examine;
use crate::terminal::{GOOD, LOOK, OutputFlag, paint};
use crate::told::{Detail, Exit, Severity};

/// Check manifests and pack files, without a server
#[derive(Debug, clap::Args)]
pub(crate) struct LintArgs {
    /// Manifests (YAML or JSON) or pack files; `-` is standard input
    #[arg(long = "file", short = 'f', required = true, num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputFlag,
}

/// What was found, as data.
#[derive(Serialize)]
struct Report {
    errors: usize,
    warnings: usize,
    problems: Vec<Detail>,
}

/// Lints the files; fails when one of them has an error.
pub(crate) fn run(args: &LintArgs) -> anyhow::Result<Exit> {
    let mut problems = Vec::new();
    for file in &args.files {
        problems.extend(examine(file)?.details);
    }
    let count = |severity| problems.iter().filter(|problem: &&Detail| problem.severity == severity).count();
    let report = Report { errors: count(Severity::Error), warnings: count(Severity::Warning), problems };
    args.output.print(&report, |report| table(report, args.files.len()))?;
    Ok(if report.errors > 0 { Exit::Failed } else { Exit::Done })
}

fn table(report: &Report, files: usize) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        text.push_str(&format!("{problem}\n\n"));
    }
    let plural = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    let looked = plural(files, "file");
    let found = match (report.errors, report.warnings) {
        (0, 0) => paint(GOOD, format!("{looked}: nothing to say")),
        (0, n) => paint(LOOK, format!("{looked}: {}", plural(n, "warning"))),
        (n, 0) => format!("{looked}: {}", plural(n, "error")),
        (n, m) => format!("{looked}: {}, {}", plural(n, "error"), plural(m, "warning")),
    };
    text + &found
}
