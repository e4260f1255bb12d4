//! A part of the terminal that is drawn again in place.

use std::io::{IsTerminal, Write};

/// Text at the bottom of the output that the next frame replaces.
#[derive(Debug, Default)]
pub(crate) struct Live {
    drawn: usize,
}

impl Live {
    /// Whether frames can be drawn in place: the output is a terminal.
    pub(crate) fn is_possible() -> bool {
        std::io::stdout().is_terminal()
    }

    /// Draws a frame over the one before; what does not fit on the screen is cut off.
    pub(crate) fn draw(&mut self, frame: &str) {
        let (columns, rows) = terminal_size::terminal_size()
            .map_or((100, 30), |(width, height)| (usize::from(width.0), usize::from(height.0)));
        let lines: Vec<String> = frame
            .trim_end()
            .lines()
            .take(rows.saturating_sub(1))
            .map(|line| clipped(line, columns))
            .collect();
        self.clear();
        anstream::println!("{}", lines.join("\n"));
        self.drawn = lines.len().max(1);
    }

    /// Takes the last frame away.
    pub(crate) fn clear(&mut self) {
        if self.drawn > 0 {
            // Sent past `anstream`, which drops movements together with the colours.
            let mut out = std::io::stdout();
            let _ = write!(out, "\x1b[{}A\x1b[J", self.drawn);
            let _ = out.flush();
            self.drawn = 0;
        }
    }

    /// Leaves the last frame where it is; the next one begins below.
    pub(crate) fn keep(&mut self) {
        self.drawn = 0;
    }
}

/// The line without what is beyond a number of columns; colours take no column.
fn clipped(line: &str, columns: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    let mut escaped = false;
    for c in line.chars() {
        if c == '\x1b' {
            escaped = true;
        }
        if escaped {
            text.push(c);
            escaped = !c.is_ascii_alphabetic();
        } else if column < columns {
            text.push(c);
            column += 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen() {
        assert_eq!(clipped("\x1b[31mabc\x1b[0mdef", 4), "\x1b[31mabc\x1b[0md");
        assert_eq!(clipped("abc", 10), "abc");
    }
}
