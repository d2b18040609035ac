//! One connection for other rooms of the crate: transactions of statements in text, in a schema of
//! theirs, and a lock that the session holds. A connection that broke is made anew, by the
//! transaction that finds it broken if that hasn't begun to commit.

use std::time::Duration;

use super::connection::{Connection, Limits, Transaction};
use super::error::PgError;
use super::target::{Target, identifier};
use crate::error::BoxError;

/// Nothing here takes longer.
const LIMIT: Duration = Duration::from_secs(30);

/// How soon the server notices a machine that went away without a word, for as long as the session
/// lasts.
const KEEP_ALIVE: &str = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4";

/// A session, its schema, and its lock.
pub(crate) struct PgSession {
    target: Target,
    schema: String,
    held: Option<i64>,
    connection: Option<Connection>,
}

/// Statements of one transaction; parameters and rows are text.
pub(crate) trait PgStatements {
    fn rows(&mut self, sql: &str, values: &[Option<String>]) -> Result<Vec<Vec<Option<String>>>, BoxError>;
    /// How many rows were changed.
    fn execute(&mut self, sql: &str, values: &[Option<String>]) -> Result<u64, BoxError>;
    /// Statements without parameters.
    fn script(&mut self, sql: &str) -> Result<(), BoxError>;
}

type Work<'a> = &'a mut dyn FnMut(&mut dyn PgStatements) -> Result<(), BoxError>;

impl PgSession {
    /// Connects.
    pub(crate) fn open(conninfo: &str, schema: &str) -> Result<PgSession, BoxError> {
        let target = Target::parse(conninfo)?;
        let mut session = PgSession { target, schema: identifier(schema), held: None, connection: None };
        session.connection = Some(session.connect()?);
        Ok(session)
    }

    /// Host, port and database.
    pub(crate) fn place(&self) -> &str {
        self.target.place()
    }

    /// The number of a lock, by a name of sixteen hexadecimal digits.
    pub(crate) fn key(name: &str) -> i64 {
        i64::from_be_bytes(u64::from_str_radix(name, 16).unwrap_or_default().to_be_bytes())
    }

    /// Holds the lock of that name for as long as the session lasts, and each later one.
    pub(crate) fn hold(&mut self, name: &str) -> Result<(), BoxError> {
        self.held = Some(PgSession::key(name));
        self.connection = None;
        self.connection = Some(self.connect()?);
        Ok(())
    }

    /// Runs statements that happen together, or not at all; `makes_schema` if they are the first.
    /// `work` may be called anew.
    pub(crate) fn transact(&mut self, makes_schema: bool, work: Work<'_>) -> Result<(), BoxError> {
        let kept = self.connection.take().filter(Connection::is_good);
        let mut may_be_stale = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect()?,
        };
        loop {
            let mut is_committing = false;
            let outcome = run(&mut connection, &self.schema, makes_schema, &mut *work, &mut is_committing);
            let is_good = connection.is_good();
            // The server may have ended the session long ago: nothing of this transaction has
            // happened.
            if outcome.is_err() && !is_good && may_be_stale && !is_committing {
                may_be_stale = false;
                connection = self.connect()?;
                continue;
            }
            self.connection = is_good.then_some(connection);
            return outcome;
        }
    }

    fn connect(&self) -> Result<Connection, BoxError> {
        let limits = Limits { connect: Duration::from_secs(10), statement: LIMIT, lock: LIMIT, heartbeat: LIMIT };
        let mut connection = Connection::open(&self.target, limits)?;
        if connection.is_pooled() {
            let text =
                "a campaign needs a session of its own, and a pooler lends one for each transaction: connect past it";
            return Err(PgError::invalid(text).into());
        }
        connection.script(KEEP_ALIVE)?;
        if let Some(key) = self.held {
            // The server may still believe in the session before.
            connection.query_text("SELECT pg_advisory_lock($1::bigint)", &[Some(&key.to_string())])?;
        }
        Ok(connection)
    }
}

/// Runs `work` in one transaction, with `schema`, which is quoted already, as its search path, and
/// commits. With `makes_schema` it first makes the schema if there is none. Sets `is_committing`
/// before it sends the commit: if it fails with that set, the transaction may have been committed,
/// and otherwise it was not.
fn run(
    connection: &mut Connection,
    schema: &str,
    makes_schema: bool,
    work: Work<'_>,
    is_committing: &mut bool,
) -> Result<(), BoxError> {
    let mut tx = connection.begin()?;
    if makes_schema {
        // Two that make it at once would collide.
        tx.script("SELECT pg_advisory_xact_lock(hashtext('fulmar campaign'))")?;
        tx.script(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"))?;
    }
    tx.script(&format!("SET LOCAL search_path TO {schema}"))?;
    work(&mut On(&mut tx))?;
    *is_committing = true;
    Ok(tx.commit()?)
}

struct On<'a, 'b>(&'a mut Transaction<'b>);

impl PgStatements for On<'_, '_> {
    fn rows(&mut self, sql: &str, values: &[Option<String>]) -> Result<Vec<Vec<Option<String>>>, BoxError> {
        let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        Ok(self.0.query_text(sql, &values)?.texts())
    }

    fn execute(&mut self, sql: &str, values: &[Option<String>]) -> Result<u64, BoxError> {
        let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        Ok(self.0.query_text(sql, &values)?.affected())
    }

    fn script(&mut self, sql: &str) -> Result<(), BoxError> {
        Ok(self.0.script(sql)?)
    }
}
