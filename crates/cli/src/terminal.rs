//! What people see: colours, aligned columns, bars, and the formats of `--output`.
//!
//! Everything is printed through `anstream`, which drops the colours when the output is no terminal
//! or `NO_COLOR` is set.

use std::fmt::Write as _;

use anyhow::Context;
use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

/// Bold.
pub(crate) const STRONG: Style = Style::new().bold();
/// Dimmed, for what explains.
pub(crate) const QUIET: Style = Style::new().dimmed();
/// Good news.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Something to look at.
pub(crate) const LOOK: Style = AnsiColor::Yellow.on_default();
/// Bad news.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Where something is.
pub(crate) const PLACE: Style = AnsiColor::Blue.on_default().bold();
/// A version on trial.
pub(crate) const TRIAL: Style = AnsiColor::Cyan.on_default();

/// How a reading command writes what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// The server's answer as JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

/// The flag of every reading command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct OutputFlag {
    /// How to write the answer
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Output,
}

impl OutputFlag {
    /// Prints an answer: as data, or for people through `table`.
    pub(crate) fn print<T: Serialize>(
        self,
        answer: &T,
        table: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let text = match self.output {
            Output::Table => table(answer),
            Output::Json => {
                serde_json::to_string_pretty(answer).context("could not write the answer as JSON")?
            }
            Output::Yaml => serde_saphyr::to_string(answer).context("could not write the answer as YAML")?,
        };
        anstream::println!("{}", text.trim_end());
        Ok(())
    }
}

/// Text in a style.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A cell of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    /// Text at the left of its column.
    pub(crate) fn left(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Text at the right of its column, for numbers.
    pub(crate) fn right(text: impl Into<String>) -> Self {
        Self { text: text.into(), right: true, ..Self::default() }
    }

    /// The same cell in a style.
    pub(crate) fn style(self, style: Style) -> Self {
        Self { style, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Aligned columns under a dimmed heading.
#[derive(Debug, Default)]
pub(crate) struct Table {
    indent: &'static str,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headings; one that ends with `>` is aligned to the right.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let heading = |text: &&str| match text.strip_suffix('>') {
            Some(text) => Cell::right(text).style(QUIET),
            None => Cell::left(*text).style(QUIET),
        };
        Self { indent: "", rows: vec![headings.iter().map(heading).collect()] }
    }

    /// The same table moved to the right.
    pub(crate) fn indented(self) -> Self {
        Self { indent: "  ", ..self }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| self.rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = self.indent.to_owned();
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.width());
                let text = paint(cell.style, &cell.text);
                let is_last = column + 1 == row.len();
                match (cell.right, is_last) {
                    (true, _) => write!(line, "{padding}{text}")?,
                    (false, true) => line.push_str(&text),
                    (false, false) => write!(line, "{text}{padding}")?,
                }
                if !is_last {
                    line.push_str("   ");
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A bar that is full at a share of 1; shares outside 0 to 1 are clamped.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of the width of a terminal"
    )]
    let filled = (share * width as f64).round() as usize;
    // Something is shown as soon as there is something.
    let filled = if share > 0.0 { filled.max(1) } else { 0 };
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled))
}

/// A length of time for people: `45s`, `3m05s`, `2h07m`, `3d04h`.
pub(crate) fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// How long ago something was: `12s ago`.
pub(crate) fn ago(then: jiff::Timestamp, now: jiff::Timestamp) -> String {
    match now.duration_since(then).as_secs() {
        ..=0 => "just now".to_owned(),
        seconds => format!("{} ago", duration(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_what_is_seen_and_not_by_what_is_sent() {
        let mut table = Table::new(&["METRIC", "VALUE>", "STATUS"]);
        table.row([
            Cell::left("success_rate").style(STRONG),
            Cell::right("94.2%"),
            Cell::left("OK").style(GOOD),
        ]);
        table.row([Cell::left("p99"), Cell::right("2.81s"), Cell::left("Watch")]);
        let plain = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(
            plain,
            "METRIC         VALUE   STATUS\nsuccess_rate   94.2%   OK\np99            2.81s   Watch\n"
        );
    }

    #[test]
    fn a_bar_shows_something_as_soon_as_there_is_something() {
        assert_eq!(
            [0.0, 0.001, 0.5, 1.0, 7.0, f64::NAN].map(|share| bar(share, 4)),
            ["░░░░", "█░░░", "██░░", "████", "████", "░░░░"]
        );
    }

    #[test]
    fn lengths_of_time_have_two_units_at_most() {
        assert_eq!([-1, 59, 185, 7_620, 273_600].map(duration), ["0s", "59s", "3m05s", "2h07m", "3d04h"]);
    }
}
