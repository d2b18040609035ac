//! A ledger in a SQLite file, for the processes of one machine.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, TransactionBehavior, params_from_iter};

use super::owner::{self, Owner};
use super::store::{Cell, Outcome, Statements, Store, Work};
use crate::sync::Mutex;

/// How long a write waits for another process.
const BUSY: Duration = Duration::from_secs(30);

pub(super) struct SqliteStore {
    path: PathBuf,
    owner: Owner,
    db: Mutex<Connection>,
}

impl SqliteStore {
    /// Opens the ledger's file, and makes the file, the tables and the campaign's name if they are
    /// missing. From now on this process takes part in the campaign, under a random name and with a
    /// lock on a file beside the ledger, until the store is dropped.
    ///
    /// Fails if a file can't be opened, written or locked, or if other processes write for longer
    /// than `BUSY`. It doesn't check the version: `Ledger::with` does.
    pub(super) fn open(path: &Path) -> Outcome<SqliteStore> {
        let mut db = Connection::open(path)?;
        let own = db.query_row("SELECT lower(hex(randomblob(8)))", [], |row| row.get(0))?;
        let beside = |error| io::Error::other(format!("a file beside it can't be locked: {error}"));
        let owner = Owner::new(path, own).map_err(beside)?;
        db.busy_timeout(BUSY)?;
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        // A row is on the disk before the request that it speaks of.
        db.pragma_update(None, "synchronous", "FULL")?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(include_str!("schema.sql"))?;
        tx.execute(
            "INSERT INTO campaign (one, version, name) VALUES (1, ?, lower(hex(randomblob(8)))) ON CONFLICT DO NOTHING",
            [super::ledger::VERSION],
        )?;
        tx.commit()?;
        Ok(SqliteStore { path: path.to_owned(), owner, db: Mutex::new(db) })
    }
}

impl Store for SqliteStore {
    fn read(&self, work: Work<'_>) -> Outcome<()> {
        work(&mut On(&self.db.lock()))
    }

    fn write(&self, work: Work<'_>) -> Outcome<()> {
        let mut db = self.db.lock();
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        work(&mut On(&tx))?;
        Ok(tx.commit()?)
    }

    fn owner(&self) -> &str {
        self.owner.name()
    }

    fn is_alive(&self, owner: &str) -> bool {
        owner::is_alive(&self.path, owner)
    }
}

struct On<'a>(&'a Connection);

impl Statements for On<'_> {
    fn rows(&mut self, sql: &str, values: &[Cell]) -> Outcome<Vec<Vec<Cell>>> {
        let mut statement = self.0.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(values.iter().map(value)))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let cells = (0..columns).map(|column| row.get_ref(column).map(cell)).collect::<Result<_, _>>()?;
            found.push(cells);
        }
        Ok(found)
    }

    fn execute(&mut self, sql: &str, values: &[Cell]) -> Outcome<usize> {
        Ok(self.0.prepare_cached(sql)?.execute(params_from_iter(values.iter().map(value)))?)
    }
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Int(number) => Value::Integer(*number),
        Cell::Real(number) => Value::Real(*number),
        Cell::Text(text) => Value::Text(text.clone()),
    }
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Integer(number) => Cell::Int(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(bytes) => Cell::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Null | ValueRef::Blob(_) => Cell::Null,
    }
}
