//! A proof in each of its forms.

use clap::builder::styling::Style;

use super::{Part, Report, Verdict};
use crate::junit::{Case, Outcome, document};
use crate::plan::{steps_in_short, timeline};
use crate::status_view::paragraph;
use crate::terminal::{BAD, Cell, GOOD, LOOK, QUIET, STRONG, Table, paint};
use crate::timetable::chart;
use crate::told::{Detail, Severity};

/// Problems of a comment; what is more is counted.
const MOST_PROBLEMS: usize = 50;

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Ok => GOOD,
            Self::Warning => LOOK,
            Self::Failed => BAD,
            Self::Skipped => QUIET,
        }
    }
}

impl Report {
    /// The pack with its version, or the file where neither is known.
    fn name(&self) -> String {
        match (&self.pack, &self.version) {
            (Some(pack), Some(version)) => format!("{pack} {version}"),
            (_, _) => self.file.clone(),
        }
    }

    fn conclusion(&self) -> String {
        let count = |verdict| self.parts.iter().filter(|part| part.verdict == verdict).count();
        let (failed, of) = (count(Verdict::Failed), self.parts.len() - count(Verdict::Skipped));
        match failed {
            0 => "everything holds".to_owned(),
            failed => format!("{failed} of {of} parts failed"),
        }
    }
}

/// For people.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        text.push_str(&format!("{problem}\n\n"));
    }
    text.push_str(&paint(STRONG, report.name()));
    if report.pack.is_some() {
        text.push_str(&format!("   {}", paint(QUIET, &report.file)));
    }
    text.push_str("\n\n");
    if let (Some(plan), Some(entries)) = (&report.plan, &report.timetable) {
        text.push_str(&chart(plan, entries));
        text.push('\n');
    }
    if let Some(forecast) = &report.forecast {
        text.push_str(&timeline(&forecast.steps));
        text.push('\n');
    }
    for sentence in &report.sentences {
        text.push_str(&paragraph(sentence, Style::new()));
    }
    for simulated in &report.simulations {
        let name = &simulated.answer.report.scenario;
        text.push_str(&format!("\n  {}   {}\n", paint(STRONG, name), paint(QUIET, &simulated.answer.about)));
        for sentence in &simulated.sentences {
            text.push_str(&paragraph(sentence, QUIET));
        }
    }
    let mut table = Table::new(&["PART", "WHAT", "VERDICT", "BECAUSE"]).indented();
    for Part { part, what, verdict, message } in &report.parts {
        table.row([
            Cell::left(*part),
            Cell::left(what),
            Cell::left(verdict.word()).style(verdict.style()),
            Cell::left(message),
        ]);
    }
    let style = if report.ok { GOOD } else { BAD };
    format!("{}\n\n{table}\n{}\n", text.trim_end(), paint(style, report.conclusion()))
}

/// As data.
pub(super) fn json(report: &Report) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(report)?)
}

/// Text in a cell of a Markdown table, and anywhere else where it must not become markup.
fn plain(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace('@', "&#64;")
}

/// A comment for a pull request.
pub(super) fn markdown(report: &Report) -> String {
    let sign = if report.ok { "✅" } else { "❌" };
    let mut text = format!("### {sign} {}: {}\n\n", plain(&report.name()), report.conclusion());
    text.push_str("| part | what | verdict | because |\n| --- | --- | --- | --- |\n");
    for Part { part, what, verdict, message } in &report.parts {
        let verdict = match verdict {
            Verdict::Failed => "**failed**",
            Verdict::Ok | Verdict::Warning | Verdict::Skipped => verdict.word(),
        };
        text.push_str(&format!("| {part} | {} | {verdict} | {} |\n", plain(what), plain(message)));
    }
    if !report.problems.is_empty() {
        text.push_str("\n**Found by lint**\n\n");
        for problem in report.problems.iter().take(MOST_PROBLEMS) {
            text.push_str(&format!("- {}\n", plain(&in_a_line(problem))));
        }
        if let Some(more @ 1..) = report.problems.len().checked_sub(MOST_PROBLEMS) {
            text.push_str(&format!("- and {more} more\n"));
        }
    }
    if let Some(forecast) = &report.forecast {
        text.push_str("\n<details><summary>Steps</summary>\n\n");
        text.push_str(
            "| step | weight | hold | takes | canary sessions |\n| --- | --- | --- | --- | --- |\n",
        );
        for step in &forecast.steps {
            let [number, weight, hold, takes, sessions] = steps_in_short(step);
            text.push_str(&format!("| {number} | {} | {hold} | {takes} | {sessions} |\n", plain(&weight)));
        }
        text.push('\n');
        for sentence in &report.sentences {
            text.push_str(&format!("{}\n", plain(sentence)));
        }
        text.push_str("\n</details>\n");
    }
    for simulated in &report.simulations {
        let name = plain(&simulated.answer.report.scenario);
        text.push_str(&format!(
            "\n<details><summary>Scenario {name}</summary>\n\n{}\n\n",
            plain(&simulated.answer.about)
        ));
        for sentence in &simulated.sentences {
            text.push_str(&format!("- {}\n", plain(sentence)));
        }
        text.push_str("\n</details>\n");
    }
    text
}

fn in_a_line(problem: &Detail) -> String {
    let Detail { severity, rule, message, file, path, line, column, excerpt: _, hint } = problem;
    let severity = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let rule = rule.as_ref().map_or_else(String::new, |rule| format!(" `{rule}`"));
    let hint = hint.as_ref().map_or_else(String::new, |hint| format!(" (hint: {hint})"));
    format!("{severity}{rule} {file}:{line}:{column} `{path}`: {message}{hint}")
}

/// A test report: one test for each part, and one for each error.
pub(super) fn junit(report: &Report) -> String {
    let class = report.pack.clone().unwrap_or_else(|| report.file.clone());
    let case = |part: &Part| {
        let outcome = match part.verdict {
            Verdict::Ok | Verdict::Warning => Outcome::Passed,
            Verdict::Failed => Outcome::Failed(part.message.clone()),
            Verdict::Skipped => Outcome::Skipped(part.message.clone()),
        };
        let name =
            if part.what.is_empty() { part.part.to_owned() } else { format!("{}: {}", part.part, part.what) };
        let said = match part.part {
            "lint" => report.problems.iter().map(in_a_line).collect::<Vec<_>>().join("\n"),
            _ => part.message.clone(),
        };
        Case { output: said, ..Case::new(class.as_str(), name, outcome) }
    };
    document(&report.name(), &report.parts.iter().map(case).collect::<Vec<_>>())
}
