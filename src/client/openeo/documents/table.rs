//! Tables for terminals. Pure.

use std::fmt;

use crate::client::openeo::documents::text::plain;

/// How wide a column gets at most, in characters, unless it is the last.
const WIDEST: usize = 60;

/// Rows of text under a heading, in columns as wide as they must be.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Table {
        let mut table = Table { rows: Vec::new() };
        // The heading may have an id, which is from the back-end and isn't safe to print, either.
        table.row(heading);
        table
    }

    pub(crate) fn row(&mut self, cells: &[&str]) {
        let last = cells.len().saturating_sub(1);
        let cells = cells.iter().enumerate();
        self.rows.push(cells.map(|(at, text)| plain(text, if at == last { usize::MAX } else { WIDEST })).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (at, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_harmless() {
        let mut table = Table::new(&["id", "\u{1b}title\n"]);
        table.row(&["j-1", "NDVI"]);
        table.row(&["j-200", "a\nb\u{1b}[2J"]);
        assert_eq!(table.to_string(), "id     title\nj-1    NDVI\nj-200  a b [2J");
    }
}
