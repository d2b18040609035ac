//! A ledger on a PostgreSQL server, for many machines.
//!
//! Each campaign has a schema of its own. Writers take turns by the lock of the campaign's one row.
//! That a process is at work, the server knows by a lock that its session holds: it falls with the
//! session, however the process ends. One whose session broke takes the lock again under its name;
//! if another has taken its rows over meanwhile, the ledger refuses what it writes about them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::store::{Cell, Outcome, Statements, Store, Work};
use crate::error::BoxError;
use crate::sync::Mutex;
use crate::tasks::{PgSession, PgStatements};

/// For how long it is believed that another process is at work.
const BELIEVED: Duration = Duration::from_secs(5);

/// How long the server may take to notice that a session has ended.
const NOTICE: &str = "SET LOCAL lock_timeout = '1s'";

pub(super) struct PostgresStore {
    session: Mutex<PgSession>,
    place: String,
    owner: String,
    alive: Mutex<HashMap<String, Instant>>,
}

impl PostgresStore {
    pub(super) fn open(conninfo: &str, schema: &str) -> Outcome<PostgresStore> {
        let mut session = PgSession::open(conninfo, schema)?;
        let place = session.place().to_owned();
        let mut owner = String::new();
        session.transact(true, &mut |tx| {
            let found = tx.rows("SELECT left(replace(gen_random_uuid()::text, '-', ''), 16)", &[])?;
            owner = found.into_iter().flatten().flatten().next().unwrap_or_default();
            tx.script(include_str!("postgres.sql"))?;
            let sql = "INSERT INTO campaign (one, version, name)
                 VALUES (1, $1, left(replace(gen_random_uuid()::text, '-', ''), 16)) ON CONFLICT DO NOTHING";
            tx.rows(sql, &[Some(super::ledger::VERSION.to_string())]).map(drop)
        })?;
        session.hold(&owner)?;
        Ok(PostgresStore { session: Mutex::new(session), place, owner, alive: Mutex::new(HashMap::new()) })
    }

    /// Host, port and database.
    pub(super) fn place(&self) -> &str {
        &self.place
    }
}

impl Store for PostgresStore {
    fn read(&self, work: Work<'_>) -> Outcome<()> {
        self.session.lock().transact(false, &mut |tx| work(&mut On(tx)))
    }

    fn write(&self, work: Work<'_>) -> Outcome<()> {
        self.session.lock().transact(false, &mut |tx| {
            tx.rows("SELECT 1 FROM campaign WHERE one = 1 FOR UPDATE", &[])?;
            work(&mut On(tx))
        })
    }

    fn owner(&self) -> &str {
        &self.owner
    }

    fn is_alive(&self, owner: &str) -> bool {
        if self.alive.lock().get(owner).is_some_and(|at| at.elapsed() < BELIEVED) {
            return true;
        }
        let key = PgSession::key(owner).to_string();
        // It can be had if it is free, or within the time that the server takes to notice an end.
        let outcome = self.session.lock().transact(false, &mut |tx| {
            tx.script(NOTICE)?;
            tx.rows("SELECT pg_advisory_xact_lock($1::bigint)", &[Some(key.clone())]).map(drop)
        });
        if outcome.is_err() {
            self.alive.lock().insert(owner.to_owned(), Instant::now());
        }
        outcome.is_err()
    }
}

struct On<'a>(&'a mut dyn PgStatements);

impl Statements for On<'_> {
    fn rows(&mut self, sql: &str, values: &[Cell]) -> Outcome<Vec<Vec<Cell>>> {
        let cell = |value: Option<String>| value.map_or(Cell::Null, Cell::Text);
        let rows = self.0.rows(sql, &texts(values))?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect())
    }

    fn execute(&mut self, sql: &str, values: &[Cell]) -> Outcome<usize> {
        let count = self.0.execute(sql, &texts(values))?;
        usize::try_from(count).map_err(|error| BoxError::from(error.to_string()))
    }
}

fn texts(values: &[Cell]) -> Vec<Option<String>> {
    values.iter().map(Cell::text).collect()
}
