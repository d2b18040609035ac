//! Steps: a closure that runs, and whose result is stored, once.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
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
use crate::panics;
#[cfg(feature = "postgres")]
use crate::tasks::PostgresTransaction;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::tasks::caller::{CallersTransaction, Keeping};
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

    /// Has a step that fails run again as the policy says, without a thread meanwhile; its last failure is stored, as a
    /// result is, so that the function may go on with it. Without a policy a failure is not stored: it is the task's,
    /// whose type has a policy, too, and the step runs again with it.
    pub fn retry(mut self, policy: RetryPolicy) -> StepOptions {
        self.retry = Some(policy);
        self
    }

    /// How long the closure may take. What it returns later has failed. The closure is not interrupted: no thread can be.
    pub fn time_limit(mut self, limit: Duration) -> StepOptions {
        self.time_limit = Some(limit);
        self
    }

    /// The failure of a step that began then, if it has taken too long.
    fn late(self, name: &str, start: Instant) -> Option<TaskError> {
        let limit = self.time_limit.filter(|limit| start.elapsed() > *limit)?;
        let source = format!("it took longer than its limit of {limit:?}").into();
        Some(TaskError::Step { step: name.to_owned(), source })
    }
}

impl Durable<'_> {
    /// What `work` gives, which runs until its result was stored, and never after. In the first run, too, it is the value as
    /// later runs read it from JSON. A result that can't be read back, such as a number that is none, is a failure of the step.
    ///
    /// Between the end of `work` and the commit of its result a crash may come: then it runs again. See
    /// [`step_in`](Durable::step_in) for exactly once.
    ///
    /// # Errors
    /// [`TaskError::Step`] with the error of `work`, or with its panic; [`TaskError::CodeChanged`];
    /// [`TaskError::TooLarge`] above 64 MiB; [`TaskError::Stale`]; [`TaskError::Cancelled`];
    /// [`TaskError::Paused`] after a call that pauses; [`TaskError::Invalid`] for a name that is empty or longer than 512 bytes,
    /// and inside of another step; those of the database.
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
    /// As there; [`TaskError::Paused`] before another attempt.
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
    /// As there.
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
    /// As [`step`](Durable::step), in a transaction on the queue's database: what `work` writes there and its result are one
    /// commit, so that it happens exactly once. If `work` fails, nothing was written.
    ///
    /// On SQLite no other thread or process writes meanwhile, the queue included: a call of the queue inside of `work`
    /// would wait for it. Enqueue with [`enqueue_in`](crate::tasks::TaskQueue::enqueue_in).
    ///
    /// # Errors
    /// As there.
    pub fn step_in<T, E>(&self, name: &str, work: impl FnOnce(&StepTransaction<'_>) -> Result<T, E>) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        E: Into<BoxError>,
    {
        self.step_in_with(name, StepOptions::new(), work)
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    /// As [`step_in`](Durable::step_in), with options. What an attempt that failed, or took too long, has written is rolled back.
    ///
    /// # Errors
    /// As there; [`TaskError::Paused`] before another attempt.
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
        let (start, begun) = (Instant::now(), entry.clone());
        self.set_inside(Some(name));
        let done = self.transaction(|tx| {
            let written = panics::catch(|| write(work(tx)));
            let (value, body) = match written {
                Ok(Ok(written)) => written,
                Ok(Err(source)) => return Err(TaskError::Step { step: name.to_owned(), source }),
                Err(panic) => return Err(panicked(name, &panic)),
            };
            check_size("result of a step", &body)?;
            if let Some(late) = options.late(name, start) {
                return Err(late);
            }
            let attempts = entry.attempts + 1;
            let entry = Entry { state: State::Done, attempts, until: None, body: Some(body.into()), ..entry };
            let holder = self.task().holder();
            if !tx.callers().keep(self.task().queue(), Keeping(holder, entry))? {
                return Err(self.stale());
            }
            Ok(value)
        });
        self.set_inside(None);
        match done {
            Err(error @ TaskError::Step { .. }) => Err(self.failed(name, begun, options, error)),
            done => done,
        }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    fn transaction<R>(&self, work: impl FnOnce(&StepTransaction<'_>) -> Result<R>) -> Result<R> {
        let queue = self.task().queue();
        #[cfg(feature = "sqlite")]
        if let Some(engine) = queue.engine().as_any().downcast_ref::<crate::tasks::sqlite::SqliteEngine>() {
            return engine.transaction(|db| work(&StepTransaction(On::Sqlite(db))));
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
        let start = Instant::now();
        self.set_inside(Some(name));
        let done = panics::catch(work);
        self.set_inside(None);
        let late = options.late(name, start);
        let error = match (done, late) {
            (Ok(Ok(body)), None) => {
                check_size("result of a step", &body)?;
                let body: Arc<[u8]> = body.into();
                let attempts = entry.attempts + 1;
                self.keep(
                    Entry { state: State::Done, attempts, until: None, body: Some(Arc::clone(&body)), ..entry },
                    None,
                )?;
                return Ok((number, body));
            }
            (Ok(Ok(_)), Some(late)) => late,
            (Ok(Err(source)), _) => TaskError::Step { step: name.to_owned(), source },
            (Err(panic), _) => panicked(name, &panic),
        };
        Err(self.failed(name, entry, options, error))
    }

    /// What a failed attempt comes to: a pause until the next one, the step's last failure, or the task's.
    fn failed(&self, name: &str, entry: Entry, options: StepOptions, error: TaskError) -> TaskError {
        let Some(retry) = options.retry else {
            return error;
        };
        let failures = u32::try_from(entry.attempts).unwrap_or(u32::MAX);
        let delay = retry.delay(failures, random_number());
        let state = if delay.is_some() { State::Begun } else { State::Failed };
        let why = clean(&source_of(&error));
        let attempts = entry.attempts + 1;
        if let Err(error) = self.keep(Entry { state, attempts, body: Some(why.as_bytes().into()), ..entry }, None) {
            return error;
        }
        match delay {
            Some(delay) => self.wait(
                &format!("attempt {attempts} of the step `{name}` failed, next in {delay:.1?}: {why}"),
                Some(delay),
            ),
            None => error,
        }
    }
}

/// The value as every later run reads it, and its bytes. One that can't be read back is not stored: no later run could get
/// past it.
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

fn panicked(name: &str, panic: &str) -> TaskError {
    TaskError::Step { step: name.to_owned(), source: format!("panicked: {panic}").into() }
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
    /// Runs one statement with its parameters as text, `?1`, `?2`, .. on SQLite and `$1`, `$2`, .. on PostgreSQL, where SQLite
    /// knows `$1` as a name, too. Returns how many rows it changed.
    ///
    /// # Errors
    /// [`TaskError::Database`] with the database's reason.
    pub fn execute(&self, sql: &str, params: &[Option<&str>]) -> Result<u64> {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            On::Sqlite(db) => {
                let changed = db.execute(sql, rusqlite::params_from_iter(params));
                Ok(changed.map_err(|error| TaskError::Database { doing: DOING, source: error.into() })? as u64)
            }
            #[cfg(feature = "postgres")]
            On::Postgres(tx) => tx.execute(sql, params),
        }
    }

    /// The connection, if the queue is on SQLite.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&self) -> Option<&rusqlite::Connection> {
        match &self.0 {
            On::Sqlite(db) => Some(db),
            #[cfg(feature = "postgres")]
            On::Postgres(_) => None,
        }
    }

    /// As [`execute`](StepTransaction::execute): the rows it gives, each value as text, or nothing for null. Bytes that are no text have
    /// their bad parts replaced.
    ///
    /// # Errors
    /// As there.
    pub fn query(&self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Vec<Option<String>>>> {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            On::Sqlite(db) => {
                let failed = |error: rusqlite::Error| TaskError::Database { doing: DOING, source: error.into() };
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
