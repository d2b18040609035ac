//! Where a ledger is kept: what it asks of a database, the same of SQLite and of PostgreSQL.
//!
//! One text serves both. Its parameters are `$1`, `$2`, .. and come up in this order, for SQLite
//! numbers them as it meets them.

use crate::error::BoxError;

/// What a database says.
pub(super) type Outcome<T> = std::result::Result<T, BoxError>;

/// A value in a row or a statement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
}

/// Statements that happen together, or not at all.
pub(super) trait Statements {
    /// Runs a statement, and gives its rows.
    fn rows(&mut self, sql: &str, values: &[Cell]) -> Outcome<Vec<Vec<Cell>>>;

    /// Runs a statement, and says how many rows it has changed.
    fn execute(&mut self, sql: &str, values: &[Cell]) -> Outcome<usize>;

    /// The first column of the first row.
    fn one(&mut self, sql: &str, values: &[Cell]) -> Outcome<Option<Cell>> {
        Ok(self.rows(sql, values)?.into_iter().next().and_then(|row| row.into_iter().next()))
    }
}

pub(super) type Work<'a> = &'a mut dyn FnMut(&mut dyn Statements) -> Outcome<()>;

/// A database with a ledger in it, and this process's part in the campaign.
pub(super) trait Store: Send + Sync {
    /// Runs statements that only read.
    fn read(&self, work: Work<'_>) -> Outcome<()>;

    /// Runs statements that no other process's writes come between. `work` may be called anew.
    fn write(&self, work: Work<'_>) -> Outcome<()>;

    /// The name of this process.
    fn owner(&self) -> &str;

    /// Whether the process of that name is at work. When in doubt it is: then its rows are left
    /// alone.
    fn is_alive(&self, owner: &str) -> bool;
}

impl Cell {
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Cell::Null => None,
            Cell::Int(number) => Some(number.to_string()),
            Cell::Real(number) => Some(number.to_string()),
            Cell::Text(text) => Some(text.clone()),
        }
    }

    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Cell::Int(number) => Some(*number),
            Cell::Text(text) => text.parse().ok(),
            Cell::Null | Cell::Real(_) => None,
        }
    }

    pub(super) fn real(&self) -> Option<f64> {
        match self {
            Cell::Real(number) => Some(*number),
            Cell::Int(number) => Some(*number as f64),
            Cell::Text(text) => text.parse().ok(),
            Cell::Null => None,
        }
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Cell {
        Cell::Int(number)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Cell {
        Cell::Real(number)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}
