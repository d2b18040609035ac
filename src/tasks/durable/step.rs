//! Steps: a closure that runs, and whose result is stored, once.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::function::Durable;
use super::journal::{Entry, Kind, State};
use crate::backoff::RetryPolicy;
use crate::error::BoxError;
use crate::error::chain;
use crate::executor;
use crate::panics;
#[cfg(feature = "postgres")]
use crate::tasks::PostgresTransaction;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::tasks::caller::{CallersTransaction, Keeping};
use crate::tasks::engine::Wait;
use crate::tasks::error::{Result, TaskError};
use crate::tasks::new_task::{check_size, clean, to_json};
use crate::tasks::worker_id::random_number;

#[cfg(feature = "sqlite")]
const DOING: &str = "working in a step";

/// How a step is run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[must_use = "options do nothing until a step is run with them"]
pub struct StepOptions {
    retry: Option<RetryPolicy>,
    time_limit: Option<Duration>,
}

impl StepOptions {
    /// No policy of its own and no time limit.
    pub fn new() -> StepOptions {
        StepOptions::default()
    }

    /// Has a step that fails run again as the policy says, without a thread meanwhile; its last
    /// failure is stored, as a result is, so that the function may go on with it. Without a policy
    /// a failure is not stored: it is the task's, whose type has a policy, too, and the step runs
    /// again with it.
    pub fn retry(mut self, policy: RetryPolicy) -> StepOptions {
        self.retry = Some(policy);
        self
    }

    /// How long the closure may take. Then it is interrupted, as by a cancel of the task:
    /// [`is_cancelled`](crate::is_cancelled) is true in it, its waits, [`sleep`](crate::sleep)s and
    /// HTTP calls end, its hooks are called ([`on_cancel`](crate::on_cancel)), and so do the
    /// statements of its transaction. Whatever it returns then, the step has failed; its own error
    /// is the source of the one that says so.
    ///
    /// Requests that it has submitted go on, unless they are in a [`Group`](crate::Group) that it
    /// drops.
    pub fn time_limit(mut self, limit: Duration) -> StepOptions {
        self.time_limit = Some(limit);
        self
    }

    /// Runs the closure of a step, for as long as it may take.
    fn attempt<T>(self, name: &str, work: impl FnOnce() -> Result<T, BoxError>) -> Result<T> {
        let failed = |source| TaskError::Step { step: name.to_owned(), source };
        let start = Instant::now();
        let done = match self.time_limit {
            None => panics::catch(work),
            Some(limit) => executor::run_within(limit, || panics::catch(work)).map_err(|error| failed(error.into()))?,
        };
        // Once it was interrupted, it is late: the alarm rings at the limit, and not before.
        let limit = self.time_limit.filter(|limit| start.elapsed() >= *limit);
        match (done, limit) {
            (Ok(Ok(value)), None) => Ok(value),
            (Ok(Err(source)), None) => Err(failed(source)),
            (Ok(done), Some(limit)) => Err(failed(Late { limit, source: done.err() }.into())),
            (Err(panic), _) => Err(failed(format!("panicked: {panic}").into())),
        }
    }
}

/// Why a step has failed that took too long.
#[derive(Debug)]
struct Late {
    limit: Duration,
    source: Option<BoxError>,
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it took longer than its limit of {:?}", self.limit)
    }
}

impl std::error::Error for Late {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl Durable<'_> {
    /// What `work` gives, which runs until its result was stored, and never after. In the first
    /// run, too, it is the value as later runs read it from JSON. A result that can't be read back,
    /// such as a number that is none, is a failure of the step.
    ///
    /// Between the end of `work` and the commit of its result a crash may come: then it runs again.
    /// See [`step_in`](Durable::step_in) for exactly once.
    ///
    /// # Errors
    /// [`TaskError::Step`] with the error of `work`, or with its panic; [`TaskError::CodeChanged`];
    /// [`TaskError::TooLarge`] above 64 MiB; [`TaskError::Stale`]; [`TaskError::Cancelled`];
    /// [`TaskError::Paused`] after a call that pauses; [`TaskError::Invalid`] for a name that is
    /// empty or longer than 512 bytes, and inside of another step; those of the database.
    pub fn step<T, E>(&self, name: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        E: Into<BoxError>,
    {
        self.step_with(name, StepOptions::new(), work)
    }

    /// As [`step`](Durable::step), with options.
    ///
    /// # Errors
    /// Those of [`step`](Durable::step), and [`TaskError::Paused`] before another attempt.
    pub fn step_with<T, E>(&self, name: &str, options: StepOptions, work: impl FnOnce() -> Result<T, E>) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        E: Into<BoxError>,
    {
        let mut fresh = None;
        let write = || {
            let (value, body) = write(work())?;
            fresh = Some(value);
            Ok(body)
        };
        let (number, body) = self.run(name, options, true, write)?;
        fresh.map_or_else(|| self.read(name, number, &body), Ok)
    }

    /// As [`step_with`](Durable::step_with), with a result of bytes that are stored as they are.
    ///
    /// # Errors
    /// Those of [`step_with`](Durable::step_with).
    pub fn step_bytes<E: Into<BoxError>>(
        &self,
        name: &str,
        options: StepOptions,
        work: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>> {
        let (_, body) = self.run(name, options, false, || work().map_err(Into::into))?;
        Ok(body.to_vec())
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    /// As [`step`](Durable::step), in a transaction on the queue's database: what `work` writes
    /// there and its result are one commit, so that it happens exactly once. If `work` fails,
    /// nothing was written.
    ///
    /// On SQLite no other thread or process writes meanwhile, the queue included: a call of the
    /// queue inside of `work` would wait for it. Enqueue with
    /// [`enqueue_in`](crate::tasks::TaskQueue::enqueue_in). Leases that can't be renewed for so long
    /// last longer by that time. But keep it shorter than the leases of workers in other processes:
    /// those tell their handlers to stop.
    ///
    /// # Errors
    /// Those of [`step`](Durable::step).
    pub fn step_in<T, E>(&self, name: &str, work: impl FnOnce(&StepTransaction<'_>) -> Result<T, E>) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        E: Into<BoxError>,
    {
        self.step_in_with(name, StepOptions::new(), work)
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    /// As [`step_in`](Durable::step_in), with options. What an attempt that failed, or took too
    /// long, has written is rolled back.
    ///
    /// # Errors
    /// Those of [`step_in`](Durable::step_in), and [`TaskError::Paused`] before another attempt.
    pub fn step_in_with<T, E>(
        &self,
        name: &str,
        options: StepOptions,
        work: impl FnOnce(&StepTransaction<'_>) -> Result<T, E>,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        E: Into<BoxError>,
    {
        let entry = self.ask(name, Kind::Step)?;
        let number = entry.number;
        if let Some(body) = stored(name, &entry)? {
            return self.read(name, number, &body);
        }
        self.set_inside(Some(name));
        let mut work = Some(work);
        let done = self.task().outlast(|| {
            let done = self.transaction(|tx| {
                let work = work.take().ok_or(TaskError::Paused)?;
                let (value, body) = options.attempt(name, || write(work(tx)))?;
                check_size("result of a step", &body)?;
                let attempts = entry.attempts + 1;
                let entry =
                    Entry { state: State::Done, attempts, until: None, body: Some(body.into()), ..entry.clone() };
                let holder = self.task().holder();
                if !tx.callers().keep(self.task().queue(), Keeping(holder, entry))? {
                    return Err(TaskError::Stale { task: self.task().id() });
                }
                Ok(value)
            });
            // A transaction that was not begun is tried again; what has run, no second time in this
            // run.
            if work.is_some() { done.map(Ok) } else { Ok(done) }
        });
        self.set_inside(None);
        match done.and_then(|done| done) {
            Err(error @ TaskError::Step { .. }) => Err(self.failed(name, entry, options, error)),
            // The commit: the next run finds whether it was done.
            Err(error) if error.is_outage() => {
                self.task().set_cut_off();
                Err(error)
            }
            // Here, because it calls hooks of the user's, which are not to be called under the
            // locks of the transaction.
            Err(TaskError::Stale { .. }) => Err(self.stale()),
            done => done,
        }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    fn transaction<R>(&self, work: impl FnOnce(&StepTransaction<'_>) -> Result<R>) -> Result<R> {
        let queue = self.task().queue();
        #[cfg(feature = "sqlite")]
        if let Some(engine) = queue.engine().as_any().downcast_ref::<crate::tasks::sqlite::SqliteEngine>() {
            return engine.transaction(&self.task().holder(), |db| work(&StepTransaction(On::Sqlite(db))));
        }
        #[cfg(feature = "postgres")]
        return queue.postgres_transaction(|tx| work(&StepTransaction(On::Postgres(tx))));
        #[cfg(not(feature = "postgres"))]
        Err(TaskError::Invalid(format!(
            "{queue:?} has no transactions, so that {} was not run",
            std::any::type_name_of_val(&work)
        )))
    }

    /// The stored result of a step, which is run if there is none.
    fn run(
        &self,
        name: &str,
        options: StepOptions,
        is_json: bool,
        work: impl FnOnce() -> Result<Vec<u8>, BoxError>,
    ) -> Result<(i64, Arc<[u8]>)> {
        let entry = Entry { is_json, ..self.ask(name, Kind::Step)? };
        let number = entry.number;
        if let Some(body) = stored(name, &entry)? {
            return Ok((number, body));
        }
        self.set_inside(Some(name));
        let done = options.attempt(name, work);
        self.set_inside(None);
        let body: Arc<[u8]> = match done {
            Ok(body) => {
                check_size("result of a step", &body)?;
                body.into()
            }
            Err(error) => return Err(self.failed(name, entry, options, error)),
        };
        let attempts = entry.attempts + 1;
        self.keep(Entry { state: State::Done, attempts, until: None, body: Some(Arc::clone(&body)), ..entry })?;
        Ok((number, body))
    }

    /// What a failed attempt comes to: a pause until the next one, the step's last failure, or the
    /// task's.
    fn failed(&self, name: &str, entry: Entry, options: StepOptions, error: TaskError) -> TaskError {
        // An attempt that was told to stop has not failed: it may be why. The operation around it
        // may have been, too.
        let is_cancelled = self.task().is_cancelled() || executor::is_cancelled();
        let Some(retry) = options.retry.filter(|_| !is_cancelled) else {
            return error;
        };
        let failures = u32::try_from(entry.attempts).unwrap_or(u32::MAX);
        let delay = retry.delay(failures, random_number());
        let state = if delay.is_some() { State::Begun } else { State::Failed };
        let why = clean(&source_of(&error));
        let attempts = entry.attempts + 1;
        let entry = Entry { state, attempts, body: Some(why.as_bytes().into()), ..entry };
        match delay {
            Some(after) => self.wait(
                &format!("attempt {attempts} of the step `{name}` failed, next in {after:.1?}: {why}"),
                Wait { after, until: None, entry: Some(entry), is_timed: false },
            ),
            None => self.keep(entry).err().unwrap_or(error),
        }
    }
}

/// The value as every later run reads it, and its bytes. One that can't be read back is not stored:
/// no later run could get past it.
fn write<T, E>(done: Result<T, E>) -> Result<(T, Vec<u8>), BoxError>
where
    T: Serialize + DeserializeOwned,
    E: Into<BoxError>,
{
    let value = done.map_err(Into::into)?;
    let body = to_json(&value).map_err(|why| why.error("result of a step", "the result"))?;
    match serde_json::from_slice(&body) {
        Ok(value) => Ok((value, body)),
        Err(error) => Err(format!("its result, written as JSON, can't be read back: {error}").into()),
    }
}

/// The result of an earlier run, or its last failure.
fn stored(name: &str, entry: &Entry) -> Result<Option<Arc<[u8]>>> {
    match (entry.state, &entry.body) {
        (State::Begun, _) => Ok(None),
        (State::Done, body) => Ok(Some(body.clone().unwrap_or_default())),
        (State::Failed, body) => {
            let why = String::from_utf8_lossy(body.as_deref().unwrap_or_default()).into_owned();
            Err(TaskError::Step { step: name.to_owned(), source: why.into() })
        }
    }
}

fn source_of(error: &TaskError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), chain)
}

#[cfg(feature = "sqlite")]
fn text(value: rusqlite::types::ValueRef<'_>) -> Option<String> {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// The statements on a connection end with a cancel for as long as this lives; those of the queue
/// itself don't.
#[cfg(feature = "sqlite")]
struct Interruptible<'a>(&'a rusqlite::Connection);

#[cfg(feature = "sqlite")]
impl<'a> Interruptible<'a> {
    /// An error if the transaction was ended, as SQLite does when it is interrupted in a write:
    /// what is written now would be committed by itself.
    fn begin(db: &'a rusqlite::Connection) -> Result<Interruptible<'a>> {
        if db.is_autocommit() {
            let source = "the step's transaction was ended before: an earlier error says why".into();
            return Err(TaskError::Database { doing: DOING, source });
        }
        crate::tasks::interrupt_on_cancel(db);
        Ok(Interruptible(db))
    }
}

#[cfg(feature = "sqlite")]
impl Drop for Interruptible<'_> {
    fn drop(&mut self) {
        self.0.progress_handler(0, None::<fn() -> bool>);
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
/// The transaction of a [`step_in`](Durable::step_in).
pub struct StepTransaction<'a>(On<'a>);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
enum On<'a> {
    #[cfg(feature = "sqlite")]
    Sqlite(&'a rusqlite::Connection),
    #[cfg(feature = "postgres")]
    Postgres(&'a dyn Statements),
}

/// Without the lifetime of the connection behind it.
#[cfg(feature = "postgres")]
trait Statements {
    fn execute(&self, sql: &str, params: &[Option<&str>]) -> Result<u64>;
    fn query(&self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Vec<Option<String>>>>;
    fn callers(&self) -> &dyn CallersTransaction;
}

#[cfg(feature = "postgres")]
impl Statements for PostgresTransaction<'_> {
    fn execute(&self, sql: &str, params: &[Option<&str>]) -> Result<u64> {
        PostgresTransaction::execute(self, sql, params)
    }

    fn query(&self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Vec<Option<String>>>> {
        PostgresTransaction::query(self, sql, params)
    }

    fn callers(&self) -> &dyn CallersTransaction {
        self
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl StepTransaction<'_> {
    /// Runs one statement with its parameters as text, `?1`, `?2`, .. on SQLite and `$1`, `$2`, ..
    /// on PostgreSQL, where SQLite knows `$1` as a name, too. Returns how many rows it changed.
    ///
    /// If the task is cancelled, or the step's time limit passes, the statement is given up, and
    /// the step with it: what it has written is rolled back.
    ///
    /// # Errors
    /// [`TaskError::Database`] with the database's reason.
    pub fn execute(&self, sql: &str, params: &[Option<&str>]) -> Result<u64> {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            On::Sqlite(db) => {
                let _interruptible = Interruptible::begin(db)?;
                let changed = db.execute(sql, rusqlite::params_from_iter(params));
                Ok(changed.map_err(|error| TaskError::Database { doing: DOING, source: error.into() })? as u64)
            }
            #[cfg(feature = "postgres")]
            On::Postgres(tx) => tx.execute(sql, params),
        }
    }

    /// The connection, if the queue is on SQLite. What runs on it directly isn't given up.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&self) -> Option<&rusqlite::Connection> {
        match &self.0 {
            On::Sqlite(db) => Some(db),
            #[cfg(feature = "postgres")]
            On::Postgres(_) => None,
        }
    }

    /// As [`execute`](StepTransaction::execute): the rows it gives, each value as text, or nothing
    /// for null. Bytes that aren't text have their bad parts replaced.
    ///
    /// # Errors
    /// Those of [`execute`](StepTransaction::execute).
    pub fn query(&self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Vec<Option<String>>>> {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            On::Sqlite(db) => {
                let failed = |error: rusqlite::Error| TaskError::Database { doing: DOING, source: error.into() };
                let _interruptible = Interruptible::begin(db)?;
                let mut sql = db.prepare(sql).map_err(failed)?;
                let columns = sql.column_count();
                let rows = sql.query_map(rusqlite::params_from_iter(params), |row| {
                    (0..columns).map(|column| Ok(text(row.get_ref(column)?))).collect()
                });
                rows.and_then(Iterator::collect).map_err(failed)
            }
            #[cfg(feature = "postgres")]
            On::Postgres(tx) => tx.query(sql, params),
        }
    }

    /// For [`enqueue_in`](crate::tasks::TaskQueue::enqueue_in).
    pub fn callers(&self) -> &dyn CallersTransaction {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            On::Sqlite(db) => *db,
            #[cfg(feature = "postgres")]
            On::Postgres(tx) => tx.callers(),
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl fmt::Debug for StepTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepTransaction").finish_non_exhaustive()
    }
}
