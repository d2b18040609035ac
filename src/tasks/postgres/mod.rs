//! Durable tasks on a PostgreSQL server, for workers on many machines.
//!
//! Every operation is one transaction, most of them one statement. A claim locks what it takes and
//! skips what others have locked, so that workers don't wait for each other. Where a check and a
//! change must be one step across rows (the capacity, a limit at once, an order by key), an
//! advisory lock comes first, and the look at the rows after it.
//!
//! Connections that break are replaced, and what was under way is tried again: if that is refused,
//! a look for its own entry in the log says whether it has happened. News go by `NOTIFY`, rarely
//! ([`notifier`]); polling finds what they miss.

mod caller;
mod claim;
mod combine;
mod connection;
mod depth;
mod error;
mod families;
mod fault;
mod fence;
mod journal;
mod keep;
mod lanes;
mod libpq;
mod limits;
mod look;
mod migrate;
mod notifier;
#[cfg(test)]
mod plans;
mod pool;
mod produce;
mod read;
mod reap;
mod schedule;
#[cfg(all(feature = "sqlite", any(feature = "openeo", feature = "pairs")))]
mod session;
mod sql;
mod steer;
mod steps;
mod target;
#[cfg(test)]
mod tests;
mod trail;
mod types;
mod unique;
mod value;
mod waker;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::caller::PostgresTransaction;
use self::claim::{Claims, Wish};
use self::connection::{Connection, Limits};
use self::error::PgError;
use self::fault::{Fault, told};
use self::notifier::Notifier;
use self::pool::{Pool, PooledConnection};
#[cfg(all(feature = "sqlite", any(feature = "openeo", feature = "pairs")))]
pub(crate) use self::session::{PgSession, PgStatements};
use self::steps::UnansweredSteps;
use self::target::Target;
use super::access::Access;
use super::depth::QueueDepth;
use super::durable::Journal;
use super::engine::{Claimed, Engine, Held, Part, Reaped, Step, Stepped, TaskRef};
use super::error::{Result, TaskError};
use super::limits::Limits as TypeLimits;
use super::look::{Statuses, TaskFilter, TaskPage};
use super::new_task::Checked;
use super::schedule::{Firing, Stored};
use super::signal::{News, Signal};
use super::stats::QueueStats;
use super::status::{LogEntry, Response, TaskInfo, TaskStatus};
use super::steer::Steering;
use super::task_type::TaskType;
use super::unique::Accepted;
use super::worker_id::{WorkerId, random_number};
use crate::backoff::Backoff;
use crate::combine::Combiner;
use crate::sync::{Condvar, Mutex};

/// Settings of a queue on a PostgreSQL server.
#[derive(Clone, Debug)]
pub(super) struct PostgresSettings {
    target: Target,
    /// Past a pooler, for news.
    pub(super) direct: Option<String>,
    pub(super) password: Option<PasswordSource>,
    pub(super) schema: Option<String>,
    pub(super) access: Access,
    limits: Limits,
    /// How long an operation of a user is tried again while the server can't be reached.
    pub(super) patience: Duration,
    /// The most connections of this process, those for news and for leases aside.
    pub(super) connections: usize,
    /// From which age on a foreign transaction is warned of.
    pub(super) old_snapshot: Duration,
}

impl PostgresSettings {
    /// From a URL or `keyword=value` words.
    pub(super) fn new(conninfo: &str) -> Result<PostgresSettings> {
        let target = Target::parse(conninfo).map_err(|error| told("reading the connection string", error))?;
        let limits = Limits {
            connect: Duration::from_secs(10),
            statement: Duration::from_secs(60),
            lock: Duration::from_secs(10),
            heartbeat: Duration::from_secs(5),
        };
        let (patience, old_snapshot) = (Duration::from_secs(10), Duration::from_secs(60));
        let (direct, password, schema, access) = (None, None, None, Access::Create);
        Ok(PostgresSettings {
            target,
            direct,
            password,
            schema,
            access,
            limits,
            patience,
            connections: 8,
            old_snapshot,
        })
    }
}

/// Shows nothing of itself.
#[derive(Clone)]
pub(super) struct PasswordSource(pub(super) target::Password);

impl fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordSource")
    }
}

pub(super) struct PostgresEngine {
    core: Core,
    combiner: Combiner<PostgresEngine>,
    keeps: Combiner<Core>,
    claims: Claims,
    doubts: UnansweredSteps,
    notifier: Notifier,
    signal: Arc<Signal>,
}

/// What every operation needs.
struct Core {
    pool: Pool,
    patience: Duration,
    old_snapshot: Duration,
}

impl PostgresEngine {
    pub(super) fn open(settings: PostgresSettings) -> Result<PostgresEngine> {
        let PostgresSettings { target, direct, password, schema, access, limits, patience, connections, old_snapshot } =
            settings;
        let limits = Limits { lock: patience, ..limits };
        let password = password.map(|PasswordSource(password)| password);
        let direct = direct.map(|conninfo| Target::parse(&conninfo)).transpose();
        let direct = direct.map_err(|error| told("reading the direct connection string", error))?;
        let (target, mut direct) =
            (target.with_password(password.clone()), direct.map(|direct| direct.with_password(password)));
        let mut core = Core { pool: Pool::new(target, limits, connections), patience, old_snapshot };
        let doing = "finding the queue's schema";
        let schema = core.attempt(doing, Duration::ZERO, limits.statement, |db, _| {
            migrate::find_schema(db, schema.as_deref(), access)
        })?;
        core.pool.set_schema(&schema);
        direct.iter_mut().for_each(|direct| direct.set_schema(&schema));
        let target = direct.unwrap_or_else(|| core.pool.target.clone());
        core.attempt("bringing the schema up to date", Duration::ZERO, limits.statement, |db, _| {
            migrate::migrate(db, access)
        })?;
        let signal = Arc::new(Signal::new());
        let notifier = Notifier::start(target, limits, Arc::clone(&signal))
            .map_err(|error| TaskError::Unreachable { doing: "starting to listen for news", source: error.into() })?;
        Ok(PostgresEngine {
            core,
            combiner: Combiner::new([(); combine::AT_ONCE]),
            keeps: Combiner::new([(); combine::AT_ONCE]),
            claims: Claims::new(),
            doubts: UnansweredSteps::new(),
            notifier,
            signal,
        })
    }

    fn tell(&self, news: News) {
        self.notifier.tell(news);
    }

    /// Does steps of several threads in one statement.
    fn step_together(&self, steps: &[Step]) -> Result<Vec<Stepped>> {
        // A thread with steps to do tries again itself, and may be told to stop meanwhile.
        let (patience, limit) = (self.core.patience.min(Duration::from_secs(1)), self.core.pool.limits.statement);
        let result = self
            .core
            .attempt("changing tasks", patience, limit, |db, in_doubt| steps::step(db, steps, &self.doubts, in_doubt));
        let result = result.map(|steps::Outcome { stepped, opened, ended }| {
            if ended {
                self.tell(News::End);
            }
            // An end may make room below a limit at once, too.
            if opened || ended && self.claims.know_a_limit() {
                self.tell(News::Work);
            }
            stepped
        });
        self.doubts.settle(steps, &result);
        result
    }
}

impl Core {
    /// Runs `work` with a connection, and again with another one if that broke, for at most
    /// `patience`, but twice at least. Each statement has `limit`. `work` is told whether an
    /// earlier try may have been done after all.
    fn attempt<R>(
        &self,
        doing: &'static str,
        patience: Duration,
        limit: Duration,
        work: impl FnMut(&mut Connection, bool) -> Result<R, Fault>,
    ) -> Result<R> {
        self.attempt_with(doing, patience, limit, Pool::take, work)
    }

    fn attempt_with<'a, R>(
        &'a self,
        doing: &'static str,
        patience: Duration,
        limit: Duration,
        take: impl Fn(&'a Pool) -> Result<PooledConnection<'a>, Fault>,
        mut work: impl FnMut(&mut Connection, bool) -> Result<R, Fault>,
    ) -> Result<R> {
        let start = Instant::now();
        let pauses = Backoff::new(Duration::from_millis(10)).cap(Duration::from_secs(1)).jitter(0.5);
        let (mut in_doubt, seed) = (false, random_number());
        for tries in 0.. {
            let done = take(&self.pool).and_then(|mut db| {
                db.set_limit(limit);
                work(&mut db, in_doubt)
            });
            let error = match done {
                Ok(done) => return Ok(done),
                Err(Fault::Task(error)) => return Err(error),
                Err(Fault::Pg(error)) => error,
            };
            in_doubt |= matches!(error, PgError::Lost { .. }) || error.sqlstate().is_some() && error.is_lost();
            if matches!(error, PgError::Lost { .. }) {
                self.pool.clear();
            }
            let worth_it = (error.is_lost() || error.is_conflict()) && !error.is_for_good();
            // A lock that was waited for so long is held by a session that is frozen, or has
            // forgotten it.
            if error.is_conflict() && start.elapsed() >= patience && (tries > 0 || !patience.is_zero()) {
                return Err(TaskError::Busy { waited: start.elapsed() });
            }
            if !worth_it || (tries > 0 && start.elapsed() >= patience) {
                return Err(told(doing, error));
            }
            // That there is no connection is told where it is looked for, once.
            if !matches!(error, PgError::Connect { .. }) {
                crate::trace::event!(WARN, "PostgreSQL: another try", doing = doing, error = error.to_string());
            }
            if tries > 0 {
                // A condition variable that is never notified: no thread of ours can end the wait
                // for a server.
                let (idle, never) = (Mutex::new(()), Condvar::new());
                never.wait_until(&mut idle.lock(), Instant::now() + pauses.delay_with(tries, seed));
            }
        }
        Err(TaskError::Busy { waited: start.elapsed() })
    }

    /// For what a user asked for: worth some patience.
    fn patiently<R>(
        &self,
        doing: &'static str,
        work: impl FnMut(&mut Connection, bool) -> Result<R, Fault>,
    ) -> Result<R> {
        self.attempt(doing, self.patience, self.pool.limits.statement, work)
    }

    /// For work that is repeated later anyway: its statements get a short time limit, so that a
    /// dead server is noticed soon.
    fn promptly<R>(
        &self,
        doing: &'static str,
        work: impl FnMut(&mut Connection, bool) -> Result<R, Fault>,
    ) -> Result<R> {
        self.attempt(doing, Duration::ZERO, 2 * self.pool.limits.heartbeat, work)
    }

    /// As [`Core::promptly`], even if all connections are in use: for what would cost the leases of
    /// tasks at work.
    fn at_once<R>(
        &self,
        doing: &'static str,
        work: impl FnMut(&mut Connection, bool) -> Result<R, Fault>,
    ) -> Result<R> {
        self.attempt_with(doing, Duration::ZERO, 2 * self.pool.limits.heartbeat, Pool::take_reserved, work)
    }
}

impl Engine for PostgresEngine {
    fn signal(&self) -> &Signal {
        &self.signal
    }

    fn put_type(&self, task_type: TaskType, replace: bool) -> Result<()> {
        self.core.patiently("registering a task type", |db, _| types::put(db, &task_type, replace))?;
        self.claims.forget_types();
        self.tell(News::Work);
        Ok(())
    }

    fn remove_type(&self, name: &str, force: bool) -> Result<()> {
        if has_zero(name) {
            return Err(TaskError::UnknownType(name.to_owned()));
        }
        self.core.patiently("unregistering a task type", |db, in_doubt| match types::remove(db, name, force) {
            // It was ours that removed it, or another's: it is gone, as was asked for.
            Err(Fault::Task(TaskError::UnknownType(_))) if in_doubt => Ok(()),
            result => result,
        })?;
        // It may have been the children of one that waits for them.
        self.tell(News::Work);
        self.tell(News::End);
        Ok(())
    }

    fn types(&self) -> Result<Vec<TaskType>> {
        self.core.patiently("reading the task types", |db, _| types::all(db))
    }

    fn set_capacity(&self, capacity: Option<u64>) -> Result<()> {
        self.core.patiently("setting the capacity", |db, _| produce::set_capacity(db, capacity))
    }

    fn enqueue(&self, tasks: Vec<Checked>) -> Result<Vec<Accepted>> {
        // By it we know our own, if the answer to the commit is lost.
        let mark = (random_number() >> 1) as i64;
        let ids = self.core.patiently("enqueuing", |db, in_doubt| match produce::enqueue(db, &tasks, mark) {
            // What stands in its way may be its own first try. That may have committed while this
            // one waited for it, so that it takes a look afterwards.
            Err(Fault::Task(error @ (TaskError::Duplicate { .. } | TaskError::QueueFull { .. }))) if in_doubt => {
                produce::find_marked(db, &tasks, mark)?.ok_or(error.into())
            }
            result => result,
        })?;
        self.tell(News::Work);
        Ok(ids)
    }

    fn info(&self, task: &TaskRef) -> Result<Option<TaskInfo>> {
        if is_impossible(task) {
            return Ok(None);
        }
        self.core.patiently("reading a task", |db, _| read::info(db, task))
    }

    fn statuses(&self, tasks: &[TaskRef]) -> Result<Vec<Option<i64>>> {
        self.core.patiently("looking where tasks stand", |db, _| read::statuses(db, tasks))
    }

    fn log(&self, task: &TaskRef) -> Result<Option<Vec<LogEntry>>> {
        if is_impossible(task) {
            return Ok(None);
        }
        self.core.patiently("reading a log", |db, _| read::log(db, task))
    }

    fn response(&self, task: &TaskRef) -> Result<Option<Option<Response>>> {
        if is_impossible(task) {
            return Ok(None);
        }
        self.core.patiently("reading a response", |db, _| read::response(db, task))
    }

    fn delete(&self, task: &TaskRef) -> Result<()> {
        if is_impossible(task) {
            return Err(not_found(task));
        }
        self.core.patiently("deleting a task", |db, in_doubt| match produce::delete(db, task) {
            Err(Fault::Task(TaskError::NotFound { .. })) if in_doubt => Ok(()),
            result => result,
        })?;
        self.tell(News::Work);
        self.tell(News::End);
        Ok(())
    }

    fn cancel(&self, task: &TaskRef, reason: &str) -> Result<TaskStatus> {
        if is_impossible(task) {
            return Err(not_found(task));
        }
        let status = self.core.patiently("cancelling a task", |db, _| produce::cancel(db, task, reason))?;
        self.tell(News::Work);
        self.tell(News::End);
        Ok(status)
    }

    fn stats(&self) -> Result<QueueStats> {
        let mut stats = self.core.patiently("counting tasks", |db, _| read::stats(db, self.core.old_snapshot))?;
        stats.warnings.extend(self.claims.warning());
        Ok(stats)
    }

    fn depth(&self) -> Result<QueueDepth> {
        self.core.patiently("counting tasks", |db, _| depth::depth(db))
    }

    fn list(&self, filter: &TaskFilter, limit: usize) -> Result<TaskPage> {
        if filter.texts().any(has_zero) {
            return Ok(TaskPage { tasks: Vec::new(), next: None });
        }
        self.core.patiently("listing tasks", |db, _| look::list(db, filter, limit))
    }

    fn find(&self, filter: &TaskFilter, limit: usize) -> Result<(Vec<i64>, Option<i64>)> {
        if filter.texts().any(has_zero) {
            return Ok((Vec::new(), None));
        }
        self.core.patiently("listing tasks", |db, _| look::find(db, filter, limit))
    }

    fn count(&self, filter: &TaskFilter) -> Result<u64> {
        if filter.texts().any(has_zero) {
            return Ok(0);
        }
        self.core.patiently("counting tasks", |db, _| look::count(db, filter))
    }

    fn steer(&self, tasks: &[i64], from: Statuses, steering: &Steering) -> Result<u64> {
        let done = self.core.patiently("steering tasks", |db, _| steer::steer(db, tasks, from, steering))?;
        self.tell(News::Work);
        self.tell(News::End);
        Ok(done)
    }

    fn set_paused(&self, task_type: Option<&str>, paused: bool) -> Result<()> {
        if let Some(name) = task_type.filter(|name| has_zero(name)) {
            return Err(TaskError::UnknownType(name.to_owned()));
        }
        self.core.patiently("pausing", |db, _| steer::set_paused(db, task_type, paused))?;
        self.tell(News::Work);
        Ok(())
    }

    fn put_limits(&self, task_type: &str, limits: Option<TypeLimits>) -> Result<bool> {
        if has_zero(task_type) {
            return Err(TaskError::UnknownType(task_type.to_owned()));
        }
        let had = self.core.patiently("setting limits", |db, _| limits::put(db, task_type, limits))?;
        self.claims.forget_types();
        self.tell(News::Work);
        Ok(had)
    }

    fn limits(&self) -> Result<Vec<(String, Option<TypeLimits>)>> {
        self.core.patiently("reading limits", |db, _| limits::all(db))
    }

    fn claim(
        &self,
        worker: &WorkerId,
        types: &[String],
        limit: usize,
        lease: Duration,
        message: &str,
    ) -> Result<Vec<Claimed>> {
        let doing = "claiming tasks";
        self.core.promptly(doing, |db, in_doubt| {
            if in_doubt {
                // The caller has to know that there may be tasks of its own of which it hasn't
                // heard.
                let source = "the connection broke before it was known what was taken".into();
                return Err(TaskError::Unreachable { doing, source }.into());
            }
            self.claims.claim(db, Wish { worker, limit, lease, message }, types)
        })
    }

    fn step(&self, steps: Vec<Step>) -> Result<Vec<Stepped>> {
        self.combiner.run(self, steps)
    }

    fn heartbeat(&self, worker: &WorkerId, lease: Duration) -> Result<Vec<Held>> {
        self.core.at_once("renewing leases", |db, _| claim::heartbeat(db, worker, lease))
    }

    fn cancel_requests(&self, worker: &WorkerId) -> Result<Vec<Held>> {
        self.core.promptly("looking for cancellations", |db, _| claim::cancel_requests(db, worker))
    }

    fn load(&self, task: i64, part: Part) -> Result<Option<Vec<u8>>> {
        self.core.patiently("reading what a task carries", |db, _| read::load(db, task, part))
    }

    fn next_due(&self, types: &[String]) -> Result<Option<Duration>> {
        self.core.promptly("looking for the next task", |db, _| claim::next_due(db, types, &self.claims))
    }

    fn reap(&self, limit: usize) -> Result<Reaped> {
        let reaped = self.core.promptly("rescuing lost tasks", |db, _| reap::reap(db, limit))?;
        if reaped.total() > 0 {
            self.tell(News::Work);
            self.tell(News::End);
        }
        Ok(reaped)
    }

    fn prune(&self, limit: usize) -> Result<u64> {
        self.core.promptly("deleting retired tasks", |db, _| reap::prune(db, limit))
    }

    fn pass_time(&self, time: Duration) -> Result<()> {
        self.core.patiently("letting time pass", |db, _| steer::pass_time(db, time))?;
        self.claims.forget_searches();
        self.tell(News::Work);
        Ok(())
    }

    fn now(&self) -> Result<i64> {
        self.core.patiently("asking for the time", |db, _| schedule::now(db))
    }

    fn schema(&self) -> Result<(i64, i64)> {
        self.core.patiently("reading the schema's version", |db, _| migrate::versions(db))
    }

    fn put_schedule(&self, schedule: Stored) -> Result<()> {
        self.core.patiently("putting a schedule", |db, _| schedule::put(db, &schedule))
    }

    fn remove_schedule(&self, name: &str) -> Result<bool> {
        if has_zero(name) {
            return Ok(false);
        }
        self.core.patiently("removing a schedule", |db, in_doubt| Ok(schedule::remove(db, name)? || in_doubt))
    }

    fn schedules(&self, due: bool) -> Result<(i64, Vec<Stored>)> {
        self.core.promptly("reading schedules", |db, _| schedule::all(db, due))
    }

    fn pause_schedule(&self, name: &str, next: Option<i64>) -> Result<bool> {
        if has_zero(name) {
            return Ok(false);
        }
        self.core.patiently("pausing a schedule", |db, _| schedule::pause(db, name, next))
    }

    fn fire(&self, firing: Firing) -> Result<Option<u64>> {
        // If the first try was committed and its answer lost, the second finds that the schedule's
        // time has moved on.
        let fired = self.core.promptly("firing a schedule", |db, _| schedule::fire(db, &firing))?;
        if fired.is_some_and(|tasks| tasks > 0) {
            self.tell(News::Work);
        }
        Ok(fired)
    }

    fn journal(&self) -> &dyn Journal {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for PostgresEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresEngine").field("target", &self.core.pool.target).finish_non_exhaustive()
    }
}

/// A duration as the database keeps it: whole milliseconds, rounded up, so that nothing is early.
fn millis(duration: Duration) -> i64 {
    // Far beyond any clock, and far from an overflow where it is added to one.
    const FOR_EVER: i64 = i64::MAX / 4;
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(FOR_EVER).min(FOR_EVER)
}

/// Whether PostgreSQL can't hold such a name, so that no task has it.
fn is_impossible(task: &TaskRef) -> bool {
    has_zero(&task.task_type) || has_zero(&task.identifier)
}

fn has_zero(name: &str) -> bool {
    name.contains('\0')
}

fn not_found(task: &TaskRef) -> TaskError {
    TaskError::NotFound { task_type: task.task_type.clone(), identifier: task.identifier.clone() }
}

/// A number that the database has and that makes no sense here.
fn nonsense(doing: &'static str, what: String) -> Fault {
    Fault::Task(TaskError::Database { doing, source: what.into() })
}
