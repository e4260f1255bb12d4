//! Statements over many rows at once.
//!
//! Each statement costs a hand-over to the thread of its connection and back, which is several times the
//! work of one row. The texts are few and fixed, so that each is prepared once.
//!
//! The places of their arguments have no names: SQLite takes `$1` for a name, and the library below looks the
//! name of each place up in the list of all of them, which costs more than the row. (PostgreSQL wants the
//! numbers; its engine will make its texts with them.)

use super::db::{Row, Tx, Value};

/// Rows of one statement; what is left over goes into the next smaller one.
const SIZES: [usize; 4] = [128, 16, 4, 1];

/// A statement with a list of rows in it, each of so many columns.
#[derive(Debug)]
pub(super) struct ManyRows<const COLUMNS: usize> {
    texts: [String; SIZES.len()],
}

impl<const COLUMNS: usize> ManyRows<COLUMNS> {
    /// A statement whose rows stand between `head` and `tail`.
    pub(super) fn new(head: &str, tail: &str) -> Self {
        let row = format!("({})", ["?"; COLUMNS].join(", "));
        let text = |size: usize| format!("{head} {} {tail}", vec![row.as_str(); size].join(", "));
        Self { texts: SIZES.map(text) }
    }

    /// Runs it over all rows and tells how many it changed.
    pub(super) async fn execute<T>(
        &'static self,
        tx: &mut Tx,
        rows: &[T],
        values: impl Fn(&T) -> [Value; COLUMNS],
    ) -> Result<u64, sqlx::Error> {
        let mut changed = 0;
        for (text, rows) in self.statements(rows) {
            changed += tx.execute(text, flat(rows, &values)).await?;
        }
        Ok(changed)
    }

    /// Runs it over all rows, and hands back what it returns.
    pub(super) async fn fetch<T>(
        &'static self,
        tx: &mut Tx,
        rows: &[T],
        values: impl Fn(&T) -> [Value; COLUMNS],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let mut returned = Vec::with_capacity(rows.len());
        for (text, rows) in self.statements(rows) {
            returned.extend(tx.fetch(text, flat(rows, &values)).await?);
        }
        Ok(returned)
    }

    fn statements<'r, T>(&'static self, rows: &'r [T]) -> Vec<(&'static str, &'r [T])> {
        let mut statements = Vec::new();
        let mut rest = rows;
        for (size, text) in SIZES.into_iter().zip(&self.texts) {
            let (whole, left) = rest.split_at(rest.len() - rest.len() % size);
            statements.extend(whole.chunks(size).map(|rows| (text.as_str(), rows)));
            rest = left;
        }
        statements
    }
}

/// The values of rows, one after the other.
fn flat<T, const COLUMNS: usize>(rows: &[T], values: impl Fn(&T) -> [Value; COLUMNS]) -> Vec<Value> {
    let mut flat = Vec::with_capacity(rows.len() * COLUMNS);
    rows.iter().for_each(|row| flat.extend(values(row)));
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::LazyLock;

    #[test]
    fn every_row_is_in_one_statement_in_order() {
        static PAIRS: LazyLock<ManyRows<2>> = LazyLock::new(|| ManyRows::new("VALUES", "END"));
        let rows: Vec<usize> = (0..203).collect();
        let statements = PAIRS.statements(&rows);
        let sizes: Vec<usize> = statements.iter().map(|(_, rows)| rows.len()).collect();
        assert_eq!(sizes, [128, 16, 16, 16, 16, 4, 4, 1, 1, 1]);
        let all: Vec<usize> = statements.iter().flat_map(|(_, rows)| *rows).copied().collect();
        assert_eq!(all, rows);
        assert_eq!(statements[9].0, "VALUES (?, ?) END");
        assert_eq!(statements[5].0, "VALUES (?, ?), (?, ?), (?, ?), (?, ?) END");
        assert!(PAIRS.statements::<usize>(&[]).is_empty());
    }
}
