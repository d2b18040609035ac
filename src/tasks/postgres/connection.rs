//! One connection: statements with a time limit, rows with types, transactions that roll back by
//! themselves, and waits for notifications.
//!
//! Every statement is sent and its answer collected without blocking in libpq: this side waits on
//! the socket, with a limit. A connection whose answer did not come in time, or that broke, is done
//! with: each further statement fails, and the owner makes a new one. Before that the server is
//! asked to give up what it does for us, or it would go on there.
//!
//! # Poolers
//!
//! A pooler that lends a session for one transaction shows by the number of the session's process,
//! which is another than the one that it gave us. Then nothing is left in a session: settings are
//! `LOCAL`, and so each statement has a transaction; nothing is prepared; `LISTEN` is for a
//! connection that leads past the pooler.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::durable::place;
use super::error::PgError;
use super::libpq::{self, Answer, Notification, Outcome, Phase, Raw, Ready};
use super::target::{Target, identifier};
use super::value::{Column, Param};
use super::waker::Waker;
use crate::sync::interrupt;

/// The oldest server that knows all that the statements ask for (`AS MATERIALIZED`,
/// `plan_cache_mode`).
const OLDEST: i32 = 12;

/// What every session has, whatever its role or its database says. Of commits only those are
/// touched that would be acknowledged before any disk has them.
const SESSION: &str = "SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
    SET standard_conforming_strings = on; SET client_min_messages = error;
    SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// The same for one transaction, of which the session knows nothing afterwards.
const LOCAL: &str = "SET LOCAL standard_conforming_strings = on; SET LOCAL client_min_messages = error;
    SET LOCAL enable_seqscan = off; SET LOCAL jit = off";

/// For one transaction: its commit is on the disk before it is acknowledged.
const DURABLE: &str =
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";

/// What a transaction of the user's may have left in a session that isn't ours to discard: all of
/// `DISCARD ALL` but plans, which change no answer, and statements that were prepared by the
/// protocol, which are other clients' own.
const CLEANSE: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *;
    SELECT pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP;
    DO $$ DECLARE of_ours text; BEGIN
        FOR of_ours IN SELECT name FROM pg_prepared_statements WHERE from_sql LOOP EXECUTE format('DEALLOCATE %I', of_ours); END LOOP;
    END $$";

/// The server's name for a statement that was given up.
const GIVEN_UP: &str = "57014";

/// How long the server may take to give up a statement.
const GIVE_UP: Duration = Duration::from_secs(2);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For each address that a connection string names; whole seconds, at least one.
    pub(super) connect: Duration,
    /// For each statement, on this side; the server gives up its side, too.
    pub(super) statement: Duration,
    /// For each lock that another transaction holds, be it of a row, a table, or one of ours.
    pub(super) lock: Duration,
    /// How soon a peer that went away without a word should be noticed.
    pub(super) heartbeat: Duration,
}

pub(super) struct Connection {
    raw: Raw,
    place: String,
    limit: Duration,
    /// What SQL writes before the names of the queue's tables; `None` until it is known.
    schema: Option<Arc<str>>,
    /// The limits of the server's side, as settings.
    limits: [(&'static str, u128); 3],
    /// The session is lent by a pooler, for one transaction at a time.
    pooled: bool,
    /// By text; the text is part of the program, so there are only so many.
    prepared: HashMap<&'static str, CString>,
    /// Whether statements of the user's may have changed the session.
    strange: bool,
    /// Ends a wait for an answer if the operation that waits is cancelled; made when it is needed.
    stop: Option<Waker>,
    /// Set while a statement is under way: a thread that leaves in the middle leaves a connection
    /// that can't be used.
    broken: bool,
}

/// Statements that happen together, or not at all. Dropped without a commit it rolls back.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    connection: &'a mut Connection,
    open: bool,
}

/// An answer's rows.
pub(super) struct Rows(Answer);

#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    answer: &'a Answer,
    row: usize,
}

/// What ended a wait for notifications.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Notified(Vec<Notification>),
    Rung,
    Nothing,
}

impl Connection {
    /// Connects, and sets the session up: what is committed is on the disk, and seen by the next
    /// statement, and the server gives up statements that take far too long, and transactions that
    /// were left open.
    ///
    /// Statements are planned once, for tables of any size: a plan made while they were empty would
    /// read all of them, and would be kept. So whole tables are not read where an index will do.
    ///
    /// # Errors
    /// [`PgError::Connect`] with what the server or the system said, without the password;
    /// [`PgError::Invalid`] for a database that can't hold every text.
    pub(super) fn open(target: &Target, limits: Limits) -> Result<Connection, PgError> {
        let place = target.place().to_owned();
        let raw = Raw::connect(&target.options(limits.connect, limits.heartbeat)?).map_err(|message| {
            let mut message = one_line(&message);
            let for_good = is_for_good(&message);
            if message.contains("server is in hot standby mode") {
                message += ": it is a standby, which takes no tasks; name its primary, or all servers, host=a,b";
            }
            PgError::Connect { place: place.clone(), message, for_good }
        })?;
        let version = raw.server_version();
        if version < OLDEST * 10_000 {
            let message = format!("the server has version {}, and {OLDEST} or newer is needed", version / 10_000);
            return Err(PgError::Connect { place, message, for_good: true });
        }
        // In any other, a message with a letter that it lacks would be refused as if the task's row
        // made no sense.
        let encoding = raw.setting(c"server_encoding").unwrap_or_default();
        if !matches!(&*encoding, "UTF8" | "SQL_ASCII") {
            return Err(PgError::Invalid(format!(
                "the database at {place} has the encoding {encoding}, which can't hold every text: \
                 create one with ENCODING 'UTF8' for the queue"
            )));
        }
        // The server's limit comes a little later: this side's has the better message.
        let statement = limits.statement.as_millis().saturating_add(1_000).min(i32::MAX as u128);
        let limits_there = [
            ("statement_timeout", statement),
            ("idle_in_transaction_session_timeout", statement),
            ("lock_timeout", limits.lock.as_millis().clamp(1, i32::MAX as u128)),
        ];
        let mut connection = Connection {
            raw,
            place,
            limit: limits.statement,
            schema: target.schema(),
            limits: limits_there,
            pooled: false,
            prepared: HashMap::new(),
            strange: false,
            stop: None,
            broken: false,
        };
        let process: i64 = connection.query_once("SELECT pg_backend_pid()", &[])?.only()?.get(0)?;
        connection.pooled = process != connection.raw.process();
        if encoding == "SQL_ASCII" {
            // Such a database may hold bytes that aren't UTF-8. The server would refuse to send
            // them, and so every row beside them; poolers know this setting, and give each client
            // its own.
            connection.script("SET client_encoding = 'SQL_ASCII'")?;
        }
        connection.set_up()?;
        Ok(connection)
    }

    fn set_up(&mut self) -> Result<(), PgError> {
        if self.pooled {
            return Ok(());
        }
        let limits = self.limits.map(|(name, millis)| format!("SET {name} = {millis}; ")).concat();
        self.script(&format!("{limits}{SESSION}"))
    }

    /// Whether a pooler lends the session, for one transaction at a time.
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// From here on the queue's tables are found in this schema.
    pub(super) fn set_schema(&mut self, schema: Option<Arc<str>>) {
        self.schema = schema;
    }

    /// Where the queue's tables are, as SQL writes it.
    pub(super) fn schema(&self) -> &str {
        self.schema.as_deref().unwrap_or_default()
    }

    /// From here on statements of the user's are run, which may leave anything in the session.
    pub(super) fn estrange(&mut self) {
        self.strange = true;
    }

    /// Makes a session that the user's statements have used as good as new: their settings, role
    /// and locks are gone.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub(super) fn restore(&mut self) -> Result<(), PgError> {
        if self.strange && !self.pooled {
            self.prepared.clear();
            self.script("DISCARD ALL")?;
            self.set_up()?;
        }
        self.strange = false;
        Ok(())
    }

    /// Before a commit of the user's statements: what they have left in the session of a pooler's,
    /// where the next one to use it would find it.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub(super) fn cleanse(&mut self) -> Result<(), PgError> {
        if !self.pooled {
            return Ok(());
        }
        self.script(&format!("{}; {DURABLE}", self.cleansing()))
    }

    fn cleansing(&self) -> String {
        // A pooler brings this setting along with its client. Asked for by the server's name, which
        // it takes.
        let encoding = self.raw.setting(c"client_encoding").unwrap_or_else(|| "UTF8".into());
        format!("{CLEANSE}; SET client_encoding = '{encoding}'")
    }

    fn roll_back(&mut self) -> Result<(), PgError> {
        if !(self.pooled && self.strange) {
            return self.script("ROLLBACK");
        }
        // Locks and prepared statements of the session outlive a transaction that is rolled back.
        // The pooler lends us the same session for as long as one is open.
        let begun = if self.is_in_transaction() { "ROLLBACK AND CHAIN" } else { "BEGIN" };
        self.script(&format!("{begun}; {}; COMMIT", self.cleansing()))
    }

    /// Whether it can serve. Does not ask the server; [`Connection::ping`] does.
    pub(super) fn is_good(&self) -> bool {
        !self.broken && self.raw.is_good()
    }

    /// Whether it can serve, after a look at what the server has said meanwhile. Asks nothing.
    pub(super) fn is_fresh(&mut self) -> bool {
        let fresh = self.is_good() && self.raw.phase() == Phase::Idle && self.raw.consume();
        self.broken |= !fresh;
        fresh && self.raw.is_good()
    }

    /// # Errors
    /// [`PgError::Lost`] if the server does not answer within the limit.
    pub(super) fn ping(&mut self) -> Result<(), PgError> {
        self.query("SELECT true", &[]).map(drop)
    }

    /// Whether a transaction is under way.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.raw.phase() != Phase::Idle
    }

    /// How long a statement may take from now on, on this side.
    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Runs one statement of the program with its parameters. It is prepared at its first run.
    ///
    /// # Errors
    /// [`PgError::Refused`] with the server's reason; [`PgError::Lost`] if the answer is not known.
    pub(super) fn query(&mut self, sql: &'static str, params: &[Param<'_>]) -> Result<Rows, PgError> {
        if self.pooled {
            if self.raw.phase() != Phase::Idle {
                return self.query_once(sql, params);
            }
            let mut tx = self.begin()?;
            let rows = tx.query_once(sql, params)?;
            tx.commit()?;
            return Ok(rows);
        }
        let name = match self.prepared.get(sql) {
            Some(name) => name.clone(),
            None => {
                let (name, text) = (c_text(&format!("fulmar_{}", self.prepared.len()))?, c_text(&self.qualified(sql))?);
                self.run(|raw| raw.send_prepare(&name, &text))?;
                self.prepared.insert(sql, name.clone());
                name
            }
        };
        let result = self.run_with(params, |raw, values| raw.send_prepared(&name, values));
        // The table or the statement changed under the plan. A new session knows neither.
        if matches!(result.as_ref().err().and_then(PgError::sqlstate), Some("0A000" | "26000")) {
            self.broken = true;
            return Err(self.lost("a prepared statement no longer fits the database"));
        }
        result
    }

    /// The statements that were prepared, each with the plan that this session keeps for it.
    #[cfg(test)]
    pub(super) fn plans(&mut self) -> Vec<(&'static str, String)> {
        let prepared: Vec<_> = self.prepared.iter().map(|(sql, name)| (*sql, name.clone())).collect();
        let plan = |(sql, name): (&'static str, CString)| {
            let params = (1..).take_while(|n| sql.contains(&format!("${n}::"))).map(|_| "NULL").collect::<Vec<_>>();
            let params = if params.is_empty() { String::new() } else { format!("({})", params.join(", ")) };
            let explain = format!("EXPLAIN (COSTS OFF) EXECUTE {}{params}", name.to_str().expect("ours"));
            let rows = self.query_text(&explain, &[]).expect("explained").texts();
            (sql, rows.into_iter().flatten().flatten().collect::<Vec<_>>().join("\n"))
        };
        prepared.into_iter().map(plan).collect()
    }

    /// Runs one statement whose text is not the program's own, with its parameters.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub(super) fn query_once(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Rows, PgError> {
        let text = c_text(&self.qualified(sql))?;
        self.run_with(params, |raw, values| raw.send_once(&text, values))
    }

    fn qualified<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        self.schema.as_deref().map_or(Cow::Borrowed(sql), |schema| qualify(sql, schema).into())
    }

    /// Runs one statement of a user's, with parameters and rows in text.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub(super) fn query_text(&mut self, sql: &str, params: &[Option<&str>]) -> Result<Rows, PgError> {
        self.send_text(sql, params, None)
    }

    /// As [`Connection::query_text`], and given up if the operation that runs it is cancelled: the
    /// server is asked to, over a connection as safe as this one, and its answer is awaited. So the
    /// request hits no later statement.
    ///
    /// # Errors
    /// As [`Connection::query`]; [`PgError::Refused`] with `57014` if it was given up.
    pub(super) fn query_interruptibly(&mut self, sql: &str, params: &[Option<&str>]) -> Result<Rows, PgError> {
        if !interrupt::is_inside() {
            return self.query_text(sql, params);
        }
        if interrupt::is_cancelled() {
            let message = "the operation was cancelled before it was sent".into();
            return Err(PgError::Refused { sqlstate: GIVEN_UP.into(), message });
        }
        let stop = match self.stop.take() {
            Some(stop) => stop,
            None => Waker::new().map_err(|error| self.lost(&error.to_string()))?,
        };
        // What rang for an earlier statement is over.
        stop.hear();
        let rings = stop.clone();
        let hook = interrupt::on_cancel(move || rings.ring());
        let result = self.send_text(sql, params, Some(&stop));
        drop(hook);
        self.stop = Some(stop);
        result
    }

    fn send_text(&mut self, sql: &str, params: &[Option<&str>], stop: Option<&Waker>) -> Result<Rows, PgError> {
        let sql = c_text(sql)?;
        let params = params.iter().map(|text| text.map(c_text).transpose()).collect::<Result<Vec<_>, _>>()?;
        self.run_until(stop, |raw| raw.send_text(&sql, &params))
    }

    /// As [`Connection::query`]: how many rows the statement has changed.
    pub(super) fn execute(&mut self, sql: &'static str, params: &[Param<'_>]) -> Result<u64, PgError> {
        self.query(sql, params).map(|rows| rows.affected())
    }

    /// Runs statements without parameters, one after the other, in one transaction of their own
    /// unless one is open.
    ///
    /// # Errors
    /// The first that fails; those behind it are not run.
    pub(super) fn script(&mut self, sql: &str) -> Result<(), PgError> {
        let text = c_text(sql)?;
        self.run(|raw| raw.send(&text)).map(drop)
    }

    /// Begins a transaction, at the isolation level `READ COMMITTED`.
    ///
    /// # Errors
    /// As [`Connection::query`], and [`PgError::Invalid`] inside of another one.
    pub(super) fn begin(&mut self) -> Result<Transaction<'_>, PgError> {
        if self.is_good() && self.raw.phase() != Phase::Idle {
            return Err(PgError::invalid("a transaction can't begin inside another one: end that one first"));
        }
        if self.pooled {
            let limits = self.limits.map(|(name, millis)| format!("SET LOCAL {name} = {millis}; ")).concat();
            self.script(&format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {limits}{LOCAL}; {DURABLE}"))?;
        } else {
            self.script("BEGIN ISOLATION LEVEL READ COMMITTED")?;
        }
        Ok(Transaction { connection: self, open: true })
    }

    /// Asks for the notifications of a channel.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub(super) fn listen(&mut self, channel: &str) -> Result<(), PgError> {
        self.script(&format!("LISTEN {}", identifier(channel)))
    }

    /// Waits for notifications of the channels listened to, until the waker rings, or until
    /// `deadline`; `None` is never.
    ///
    /// # Errors
    /// [`PgError::Lost`] if the connection breaks meanwhile.
    pub(super) fn wait(&mut self, waker: &Waker, deadline: Option<Instant>) -> Result<Heard, PgError> {
        if !self.is_good() {
            return Err(self.gone());
        }
        loop {
            if !self.raw.consume() {
                return Err(self.broke());
            }
            let notifications: Vec<_> = std::iter::from_fn(|| self.raw.notification()).collect();
            if !notifications.is_empty() {
                return Ok(Heard::Notified(notifications));
            }
            match self.ready(false, Some(waker), deadline)? {
                Ready { waker: true, .. } => {
                    waker.hear();
                    return Ok(Heard::Rung);
                }
                Ready { socket: true, .. } => {}
                Ready { .. } => return Ok(Heard::Nothing),
            }
        }
    }

    fn run_with(
        &mut self,
        params: &[Param<'_>],
        send: impl FnOnce(&mut Raw, &[Option<&[u8]>]) -> bool,
    ) -> Result<Rows, PgError> {
        if params.iter().any(Param::has_zero) {
            return Err(PgError::invalid("PostgreSQL takes no zero byte in a text"));
        }
        let encoded: Vec<_> = params.iter().map(Param::encode).collect();
        let values: Vec<_> = encoded.iter().map(|value| value.as_deref()).collect();
        self.run(|raw| send(raw, &values))
    }

    /// Sends, and collects the answers: the first that failed, or else the last.
    fn run(&mut self, send: impl FnOnce(&mut Raw) -> bool) -> Result<Rows, PgError> {
        self.run_until(None, send)
    }

    /// As `run`, and has the server give it up if `stop` rings.
    fn run_until(&mut self, stop: Option<&Waker>, send: impl FnOnce(&mut Raw) -> bool) -> Result<Rows, PgError> {
        if !self.is_good() {
            return Err(self.gone());
        }
        let deadline = Instant::now().checked_add(self.limit);
        self.broken = true;
        place();
        if !send(&mut self.raw) {
            return Err(self.broke());
        }
        // While the server talks it may not listen: what it says is read even if not all was sent.
        while !self.raw.flush().ok_or_else(|| self.broke())? {
            if !self.ready(true, None, deadline)?.socket {
                return Err(self.late());
            }
            if !self.raw.consume() {
                return Err(self.broke());
            }
        }
        let mut kept: Option<Answer> = None;
        let (mut deadline, mut given_up, mut is_stopped) = (deadline, false, false);
        loop {
            while self.raw.is_busy() {
                let ready = self.ready(false, stop.filter(|_| !is_stopped), deadline)?;
                is_stopped |= ready.waker;
                if !ready.socket || is_stopped && !given_up {
                    // The thread that gives up here takes another connection: what goes on there
                    // would hold its locks beside that, and be one session more than there may be.
                    let until = Instant::now() + GIVE_UP;
                    if given_up || !self.raw.cancel(until) {
                        return Err(self.late());
                    }
                    (deadline, given_up) = (Some(until), true);
                    continue;
                }
                if !self.raw.consume() {
                    return Err(self.told(kept));
                }
            }
            let Some(answer) = self.raw.answer() else { break };
            match answer.outcome() {
                // It would be the answer for ever.
                Outcome::Unexpected => return Err(PgError::Unexpected(format!("`{}`", answer.command()))),
                _ if kept.as_ref().is_some_and(|kept| kept.outcome() == Outcome::Failed) => {}
                _ => kept = Some(answer),
            }
        }
        match kept {
            Some(answer) if given_up && answer.sqlstate().as_deref() == Some(GIVEN_UP) => {
                self.broken = !self.raw.is_good();
                let message = match is_stopped {
                    true => "the operation was cancelled, so that it was told to give up".into(),
                    false => format!("no answer within {:?}, so that it was told to give up", self.limit),
                };
                Err(PgError::Refused { sqlstate: GIVEN_UP.into(), message })
            }
            Some(answer) if answer.outcome() == Outcome::Done => {
                self.broken = false;
                Ok(Rows(answer))
            }
            kept => {
                let error = self.told(kept);
                self.broken = error.is_lost() || !self.raw.is_good();
                Err(error)
            }
        }
    }

    fn ready(&self, write: bool, waker: Option<&Waker>, deadline: Option<Instant>) -> Result<Ready, PgError> {
        let socket = self.raw.socket().ok_or_else(|| self.lost("its socket is closed"))?;
        libpq::wait(socket, write, waker.map(Waker::fd), deadline).map_err(|error| self.lost(&error.to_string()))
    }

    /// What an answer says went wrong, or the connection if there is none.
    fn told(&mut self, answer: Option<Answer>) -> PgError {
        let constraint = answer.as_ref().and_then(Answer::constraint);
        match answer.map(|answer| (answer.sqlstate(), answer.message())) {
            Some((Some(_), _)) if constraint.as_deref() == Some("fulmar_task_pkey") => {
                PgError::SequenceBehind { schema: self.schema().to_owned() }
            }
            Some((Some(sqlstate), message)) if sqlstate == "25006" => {
                let message = format!(
                    "{}: it is a standby, or was made read-only; name the primary, or all servers, host=a,b",
                    one_line(&message)
                );
                PgError::Refused { sqlstate, message }
            }
            Some((Some(sqlstate), message)) => PgError::Refused { sqlstate, message: one_line(&message) },
            _ => self.broke(),
        }
    }

    fn broke(&mut self) -> PgError {
        self.broken = true;
        let message = self.raw.message();
        self.lost(&message)
    }

    fn late(&self) -> PgError {
        self.lost(&format!("no answer within {:?}", self.limit))
    }

    fn gone(&self) -> PgError {
        self.lost("it was given up before")
    }

    fn lost(&self, message: &str) -> PgError {
        PgError::Lost { place: self.place.clone(), message: one_line(message) }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("place", &self.place).field("good", &self.is_good()).finish_non_exhaustive()
    }
}

impl Transaction<'_> {
    /// Makes it lasting.
    ///
    /// # Errors
    /// [`PgError::Refused`]: nothing was done. [`PgError::Lost`]: all of it was, or nothing; look
    /// before you repeat it.
    pub(super) fn commit(mut self) -> Result<(), PgError> {
        self.open = false;
        let rows = self.connection.run(|raw| raw.send(c"COMMIT"))?;
        match &*rows.0.command() {
            "COMMIT" => Ok(()),
            // An earlier statement failed, and its error was passed over.
            _ => Err(PgError::Refused { sqlstate: "25P02".into(), message: "the transaction was aborted".into() }),
        }
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open && self.connection.is_good() && self.connection.roll_back().is_err() {
            // The server rolls back what a closed connection leaves open.
            self.connection.broken = true;
        }
    }
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.0.rows()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len()).map(|row| Row { answer: &self.0, row })
    }

    pub(super) fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }

    /// The one row that the statement always has.
    ///
    /// # Errors
    /// [`PgError::Unexpected`] if it has none.
    pub(super) fn only(&self) -> Result<Row<'_>, PgError> {
        self.first().ok_or_else(|| PgError::Unexpected("no row where there is always one".into()))
    }

    /// All of it, as text.
    pub(super) fn texts(&self) -> Vec<Vec<Option<String>>> {
        let value = |row, column| self.0.value(row, column).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        (0..self.len()).map(|row| (0..self.0.columns()).map(|column| value(row, column)).collect()).collect()
    }

    /// How many rows were changed, or found.
    pub(super) fn affected(&self) -> u64 {
        // `INSERT 0 3`, `UPDATE 3`, `SELECT 3`; `BEGIN` has none.
        self.0.command().rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in them may be a secret.
        f.debug_struct("Rows").field("command", &self.0.command()).field("len", &self.len()).finish()
    }
}

impl<'a> Row<'a> {
    /// The value of a column, counted from 0.
    ///
    /// # Errors
    /// [`PgError::Unexpected`] if there is no such column, or its type is another.
    pub(super) fn get<T: Column<'a>>(&self, column: usize) -> Result<T, PgError> {
        let oid = self.answer.column_type(column);
        T::read(oid, self.answer.value(self.row, column)).ok_or_else(|| {
            PgError::Unexpected(format!("column {column}, of type {oid}, is not what the program expects"))
        })
    }
}

/// Puts the schema before each name of the queue's: nothing is searched, whatever the session's
/// path says. They are names that begin with `fulmar_`; inside of a literal the whole literal is
/// one.
fn qualify(sql: &str, schema: &str) -> String {
    const OURS: &str = "fulmar_";
    let mut qualified = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    while let Some(at) = rest.find(OURS) {
        let (before, from) = rest.split_at(at);
        qualified.push_str(before);
        match before.chars().next_back().or_else(|| qualified.chars().next_back()) {
            Some('\'') => {
                qualified.push_str(&schema.replace('\'', "''"));
                qualified.push('.');
            }
            Some(c) if c.is_alphanumeric() || matches!(c, '_' | '.' | '"' | '$') => {}
            _ => {
                qualified.push_str(schema);
                qualified.push('.');
            }
        }
        qualified.push_str(OURS);
        rest = &from[OURS.len()..];
    }
    qualified.push_str(rest);
    qualified
}

/// Whether a refusal to log in stays one until an operator changes something. A client is told no
/// SQLSTATE before it has logged in, so that the words have to tell; in another language it is
/// taken for one that may pass.
fn is_for_good(message: &str) -> bool {
    const WORDS: [&str; 9] = [
        "authentication failed",
        "is not permitted to log in",
        "does not exist",
        "no pg_hba.conf entry",
        "permission denied for database",
        "is not currently accepting connections",
        "certificate verify failed",
        "does not support SSL",
        "no such database",
    ];
    WORDS.iter().any(|words| message.contains(words))
}

fn c_text(text: &str) -> Result<CString, PgError> {
    CString::new(text).map_err(|_| PgError::invalid("PostgreSQL takes no zero byte in a text"))
}

/// libpq's messages go over lines, with tabs between.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_ours_is_qualified_and_no_other() {
        let schema = identifier("it's \"odd\"");
        for (sql, expected) in [
            ("SELECT 1", "SELECT 1"),
            ("SELECT nextval('fulmar_task_number')", r#"SELECT nextval('"it''s ""odd""".fulmar_task_number')"#),
            (
                "FROM fulmar_task t,fulmar_task_type",
                r#"FROM "it's ""odd""".fulmar_task t,"it's ""odd""".fulmar_task_type"#,
            ),
            (r#"FROM "a".fulmar_task, my_fulmar_task"#, r#"FROM "a".fulmar_task, my_fulmar_task"#),
        ] {
            assert_eq!(qualify(sql, &schema), expected);
        }
    }

    #[test]
    fn a_refusal_that_passes_is_told_from_one_that_does_not() {
        assert!(is_for_good("FATAL: password authentication failed for user \"x\""));
        assert!(is_for_good("FATAL: role \"x\" is not permitted to log in"));
        assert!(is_for_good("FATAL: database \"x\" does not exist"));
        for passing in [
            "FATAL: the database system is starting up",
            "FATAL: sorry, too many clients already",
            "Connection refused",
        ] {
            assert!(!is_for_good(passing), "{passing}");
        }
    }
}
