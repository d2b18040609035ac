//! The queue as its users see it: what producers, askers and workers of their own call.

use std::collections::BTreeSet;
use std::fmt;
#[cfg(feature = "sqlite")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::access::Access;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::access::ReadOnly;
use super::claim::Claim;
use super::engine::{Engine, TaskRef};
use super::error::{Result, TaskError};
use super::handle::TaskHandle;
use super::limits;
use super::metrics::Metrics;
use super::new_task::{Checked, NewTask, clean};
#[cfg(feature = "postgres")]
use super::postgres::{PasswordSource, PostgresEngine, PostgresSettings};
#[cfg(feature = "sqlite")]
use super::sqlite::{Durability, SqliteEngine, SqliteSettings};
use super::stats::QueueStats;
use super::status::{LogEntry, Response, TaskInfo, TaskStatus};
use super::task_type::{TaskType, check_name};
use super::wait::Waiters;
use super::worker_id::WorkerId;
use crate::sync::Ordering;

/// A durable queue. Cloning it is cheap and gives a handle to the same connections.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use fulmar::tasks::{NewTask, TaskError, TaskQueue, TaskStatus, TaskType};
///
/// # let folder = std::env::temp_dir().join(format!("fulmar-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
/// let queue = TaskQueue::open(folder.join("queue.db"))?;
/// queue.register(TaskType::new("SequenceSum"))?;
/// queue.enqueue(NewTask::new("SequenceSum", "Task001").input(&[1, 2, 3, 4, 5]))?;
/// assert_eq!(queue.status("SequenceSum", "Task001")?, TaskStatus::Accepted);
///
/// let again = queue.enqueue(NewTask::new("SequenceSum", "Task001"));
/// assert!(matches!(again, Err(TaskError::Duplicate { .. })));
/// queue.delete("SequenceSum", "Task001")?;
/// # std::fs::remove_dir_all(&folder).ok();
/// # }
/// # Ok::<(), fulmar::tasks::TaskError>(())
/// ```
#[derive(Clone)]
pub struct TaskQueue {
    shared: Arc<Shared>,
}

/// What all handles of a queue share.
pub(super) struct Shared {
    pub(super) engine: Box<dyn Engine>,
    pub(super) poll: Duration,
    pub(super) waiters: Waiters,
    pub(super) metrics: Metrics,
    pub(super) context: Option<ContextSource>,
}

/// Asked for the context of the thread that enqueues.
#[derive(Clone)]
pub(super) struct ContextSource(Arc<dyn Fn() -> Option<String> + Send + Sync>);

impl fmt::Debug for ContextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContextSource")
    }
}

/// Settings of a [`TaskQueue`].
///
/// Some are for one engine alone, and say so. The other one refuses them: an option that does
/// nothing would be taken for one that does.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct QueueBuilder {
    poll: Duration,
    context: Option<ContextSource>,
    access: Access,
    #[cfg(feature = "sqlite")]
    durability: Option<Durability>,
    busy_timeout: Option<Duration>,
    #[cfg(feature = "sqlite")]
    max_file_size: Option<u64>,
    #[cfg(feature = "sqlite")]
    clock: Option<i64>,
    #[cfg(feature = "postgres")]
    connections: Option<usize>,
    #[cfg(feature = "postgres")]
    old_transaction: Option<Duration>,
    #[cfg(feature = "postgres")]
    schema: Option<String>,
    #[cfg(feature = "postgres")]
    direct: Option<String>,
    #[cfg(feature = "postgres")]
    password: Option<PasswordSource>,
}

impl QueueBuilder {
    /// How often those who wait look by themselves, for what no news tells them: tasks that other
    /// processes enqueued or ended, and those whose time has come. Defaults to 100 ms, at least 1
    /// ms, at most a day. An idle look reads one row.
    pub fn poll_interval(mut self, interval: Duration) -> QueueBuilder {
        self.poll = interval.clamp(Duration::from_millis(1), Duration::from_secs(24 * 3_600));
        self
    }

    /// Asked for the context of each enqueuing, on the thread that enqueues: what is to be told of
    /// its task wherever it runs, such as W3C's `traceparent`. Tasks that have [one of their
    /// own](NewTask::trace_context) keep it. A context beyond 512 bytes, or with a control
    /// character, is left out, and so is one of a source that panics. On PostgreSQL a context costs
    /// an enqueuing two round trips more.
    pub fn trace_context(mut self, source: impl Fn() -> Option<String> + Send + Sync + 'static) -> QueueBuilder {
        self.context = Some(ContextSource(Arc::new(source)));
        self
    }

    /// Opens a queue that is there, and makes none: a path or a schema with a slip of the pen is
    /// [`TaskError::NoQueue`]. Its schema is brought up to date still.
    pub fn existing_only(mut self) -> QueueBuilder {
        self.access = Access::Existing;
        self
    }

    /// Opens a queue that is there to look at it: whatever would change it is
    /// [`TaskError::ReadOnly`], and its schema stays as it is. For dashboards, for roles that may
    /// only read, and for a standby of PostgreSQL. The folder of a SQLite file has to be writable
    /// if no other process has the queue open, because the log's index beside the file is made
    /// then.
    pub fn read_only(mut self) -> QueueBuilder {
        self.access = Access::ReadOnly;
        self
    }

    /// How much a commit to a SQLite file outlives. Defaults to [`Durability::Full`]. On PostgreSQL
    /// that is the server's `synchronous_commit`.
    #[cfg(feature = "sqlite")]
    pub fn durability(mut self, durability: Durability) -> QueueBuilder {
        self.durability = Some(durability);
        self
    }

    /// How long a call waits for a writer of another process before it is [`TaskError::Busy`], or
    /// for a PostgreSQL server that can't be reached before it is [`TaskError::Unreachable`].
    /// Defaults to 30 s, and to 10 s on PostgreSQL.
    pub fn busy_timeout(mut self, limit: Duration) -> QueueBuilder {
        self.busy_timeout = Some(limit);
        self
    }

    /// How large a SQLite file may grow, in bytes; beyond it, calls that need room are
    /// [`TaskError::DiskFull`]. Defaults to what the disk holds.
    #[cfg(feature = "sqlite")]
    pub fn max_file_size(mut self, bytes: u64) -> QueueBuilder {
        self.max_file_size = Some(bytes);
        self
    }

    /// The most connections to a PostgreSQL server at once. Calls beyond it wait for one, but not
    /// what renews the leases of workers, which may take one more; and one more listens for news.
    /// Defaults to 8, at least 1.
    #[cfg(feature = "postgres")]
    pub fn connections(mut self, most: usize) -> QueueBuilder {
        self.connections = Some(most);
        self
    }

    /// From which age on [`stats`](TaskQueue::stats) warns of a transaction of another program on
    /// the PostgreSQL server, which keeps it from cleaning up after tasks. Defaults to 60 s.
    #[cfg(feature = "postgres")]
    pub fn old_transaction(mut self, age: Duration) -> QueueBuilder {
        self.old_transaction = Some(age);
        self
    }

    /// The PostgreSQL schema that the queue's tables are in, which
    /// [`connect`](QueueBuilder::connect) makes if it isn't there. Every name is qualified with it,
    /// in functions, too: no `search_path` matters. Defaults to the first schema of the session's
    /// `search_path` when the queue is opened; one that has a queue in another schema behind that
    /// is refused.
    #[cfg(feature = "postgres")]
    pub fn schema(mut self, name: impl Into<String>) -> QueueBuilder {
        self.schema = Some(name.into());
        self
    }

    /// A connection string past a pooler, for one connection that listens for news: a pooler in
    /// transaction mode can't listen. Without it, and behind such a pooler, those who wait find
    /// what others did within the poll interval. Unused where [`connect`](QueueBuilder::connect)
    /// leads to the server itself.
    #[cfg(feature = "postgres")]
    pub fn direct(mut self, conninfo: impl Into<String>) -> QueueBuilder {
        self.direct = Some(conninfo.into());
        self
    }

    /// Asked for the password before each connection to the PostgreSQL server is made, for tokens
    /// that live for minutes. It wins over one in the connection string. It is called on whatever
    /// thread needs the connection; its error is [`TaskError::Unreachable`], and it is asked again.
    #[cfg(feature = "postgres")]
    pub fn password(
        mut self,
        source: impl Fn() -> std::result::Result<String, crate::error::BoxError> + Send + Sync + 'static,
    ) -> QueueBuilder {
        self.password = Some(PasswordSource(Arc::new(source)));
        self
    }

    /// What is wrong with this machine's clock, in milliseconds: for tests on SQLite.
    #[doc(hidden)]
    #[cfg(feature = "sqlite")]
    pub fn clock_offset(mut self, millis: i64) -> QueueBuilder {
        self.clock = Some(millis);
        self
    }

    /// Opens the queue in the SQLite file `path`, which is made if it isn't there, and brings its
    /// schema up to date.
    ///
    /// # Errors
    /// [`TaskError::SchemaTooNew`], [`TaskError::NetworkFileSystem`], [`TaskError::Invalid`] for a
    /// path that names no file, [`TaskError::OptionOfOther`] for an option of PostgreSQL alone,
    /// [`TaskError::Busy`], and what the file system says.
    #[cfg(feature = "sqlite")]
    pub fn open(self, path: impl AsRef<Path>) -> Result<TaskQueue> {
        #[cfg(all(feature = "sqlite", feature = "postgres"))]
        self.refuse("SQLite", &self.of_postgres())?;
        let mut settings = SqliteSettings::new(path.as_ref());
        settings.durability = self.durability.unwrap_or_default();
        settings.busy_timeout = self.busy_timeout.unwrap_or(settings.busy_timeout);
        settings.max_file_size = self.max_file_size;
        settings.clock.set(self.clock.unwrap_or(0));
        settings.access = self.access;
        Ok(TaskQueue::new(SqliteEngine::open(settings)?, self))
    }

    /// Opens the queue on the PostgreSQL server that `conninfo` leads to, a URL
    /// `postgres://user:password@host/database` or libpq's `keyword=value` words, and brings its
    /// schema up to date. The tables are in [`schema`](QueueBuilder::schema). TLS takes the feature
    /// `postgres-tls`; without it, `sslmode=require` is refused.
    ///
    /// A pooler in transaction mode, as PgBouncer's, is recognised: then nothing is left in a
    /// session, at the cost of two more round trips a statement. Have news come [past
    /// it](QueueBuilder::direct).
    ///
    /// While the server can't be reached later, calls of users are tried again for `busy_timeout`,
    /// 10 s unless it is set.
    ///
    /// # Errors
    /// [`TaskError::Invalid`] for a string that can't be read; [`TaskError::OptionOfOther`] for an
    /// option of SQLite alone; [`TaskError::SchemaTooNew`]; [`TaskError::Unreachable`].
    #[cfg(feature = "postgres")]
    pub fn connect(self, conninfo: &str) -> Result<TaskQueue> {
        #[cfg(all(feature = "sqlite", feature = "postgres"))]
        self.refuse("PostgreSQL", &self.of_sqlite())?;
        let mut settings = PostgresSettings::new(conninfo)?;
        settings.patience = self.busy_timeout.unwrap_or(settings.patience);
        settings.connections = self.connections.unwrap_or(settings.connections);
        settings.old_snapshot = self.old_transaction.unwrap_or(settings.old_snapshot);
        settings.schema.clone_from(&self.schema);
        settings.direct.clone_from(&self.direct);
        settings.password.clone_from(&self.password);
        settings.access = self.access;
        Ok(TaskQueue::new(PostgresEngine::open(settings)?, self))
    }

    /// The options of SQLite alone, and whether they are set.
    #[cfg(all(feature = "sqlite", feature = "postgres"))]
    fn of_sqlite(&self) -> [(&'static str, bool); 3] {
        [
            ("durability", self.durability.is_some()),
            ("max_file_size", self.max_file_size.is_some()),
            ("clock_offset", self.clock.is_some()),
        ]
    }

    /// The options of PostgreSQL alone, and whether they are set.
    #[cfg(all(feature = "sqlite", feature = "postgres"))]
    fn of_postgres(&self) -> [(&'static str, bool); 5] {
        [
            ("connections", self.connections.is_some()),
            ("old_transaction", self.old_transaction.is_some()),
            ("schema", self.schema.is_some()),
            ("direct", self.direct.is_some()),
            ("password", self.password.is_some()),
        ]
    }

    #[cfg(all(feature = "sqlite", feature = "postgres"))]
    fn refuse(&self, engine: &'static str, options: &[(&'static str, bool)]) -> Result<()> {
        match options.iter().find(|(_, is_set)| *is_set) {
            Some(&(option, _)) => Err(TaskError::OptionOfOther { option, engine }),
            None => Ok(()),
        }
    }
}

impl TaskQueue {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    fn new(engine: impl Engine, builder: QueueBuilder) -> TaskQueue {
        let QueueBuilder { poll, context, access, .. } = builder;
        let engine: Box<dyn Engine> =
            if access == Access::ReadOnly { Box::new(ReadOnly(engine)) } else { Box::new(engine) };
        TaskQueue {
            shared: Arc::new(Shared {
                engine,
                poll,
                waiters: Waiters::default(),
                metrics: Metrics::default(),
                context,
            }),
        }
    }

    /// Settings for a queue.
    pub fn builder() -> QueueBuilder {
        QueueBuilder {
            poll: Duration::from_millis(100),
            context: None,
            access: Access::Create,
            #[cfg(feature = "sqlite")]
            durability: None,
            busy_timeout: None,
            #[cfg(feature = "sqlite")]
            max_file_size: None,
            #[cfg(feature = "sqlite")]
            clock: None,
            #[cfg(feature = "postgres")]
            connections: None,
            #[cfg(feature = "postgres")]
            old_transaction: None,
            #[cfg(feature = "postgres")]
            schema: None,
            #[cfg(feature = "postgres")]
            direct: None,
            #[cfg(feature = "postgres")]
            password: None,
        }
    }

    /// Opens the queue in the SQLite file `path`, which is made if it isn't there:
    /// [`QueueBuilder::open`].
    ///
    /// # Errors
    /// Those of [`QueueBuilder::open`].
    #[cfg(feature = "sqlite")]
    pub fn open(path: impl AsRef<Path>) -> Result<TaskQueue> {
        TaskQueue::builder().open(path)
    }

    /// Opens the queue on a PostgreSQL server: [`QueueBuilder::connect`].
    ///
    /// # Errors
    /// Those of [`QueueBuilder::connect`].
    #[cfg(feature = "postgres")]
    pub fn connect(conninfo: &str) -> Result<TaskQueue> {
        TaskQueue::builder().connect(conninfo)
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        &*self.shared.engine
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Tasks as an engine may store them, with the context of this enqueuing.
    pub(super) fn checked(&self, tasks: impl IntoIterator<Item = NewTask>) -> Result<Vec<Checked>> {
        let mut tasks = tasks.into_iter().map(NewTask::checked).collect::<Result<Vec<Checked>>>()?;
        if let Some(ContextSource(source)) = &self.shared.context {
            let context = crate::panics::catch(|| source()).ok().flatten();
            let context = context.filter(|context| check_name("a context", context).is_ok());
            for task in &mut tasks {
                if task.context.is_none() {
                    task.context.clone_from(&context);
                }
            }
        }
        Ok(tasks)
    }

    pub(super) fn waiters(&self) -> &Waiters {
        &self.shared.waiters
    }

    pub(super) fn poll(&self) -> Duration {
        self.shared.poll
    }

    /// Registers a task type, or gives one that is registered these settings. They hold for tasks
    /// that exist, too: at their next start, failure, loss or prune.
    ///
    /// # Errors
    /// [`TaskError::Invalid`] for a name or a limit that makes no sense; those of the database.
    pub fn register(&self, task_type: TaskType) -> Result<()> {
        task_type.check()?;
        self.engine().put_type(task_type, true)
    }

    /// Removes a task type that has no tasks.
    ///
    /// # Errors
    /// [`TaskError::UnknownType`]; [`TaskError::InUse`] as long as there are tasks, ended ones
    /// included.
    pub fn unregister(&self, task_type: &str) -> Result<()> {
        self.engine().remove_type(task_type, false)
    }

    /// Removes a task type and all of its tasks. Workers that hold some are told that they lost
    /// them.
    ///
    /// # Errors
    /// [`TaskError::UnknownType`].
    pub fn force_unregister(&self, task_type: &str) -> Result<()> {
        self.engine().remove_type(task_type, true)
    }

    /// All registered types, by name. One whose row makes no sense is left out: register it again.
    ///
    /// # Errors
    /// Those of the database.
    pub fn task_types(&self) -> Result<Vec<TaskType>> {
        self.engine().types()
    }

    /// How many tasks may wait to be started ([`TaskStatus::Accepted`] and
    /// [`TaskStatus::Scheduled`]), for all who use the database; `None` means no limit, as at
    /// first. What waits beyond a new limit stays. Counting costs each enqueuing a look at as many
    /// entries of an index.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_capacity(&self, tasks: impl Into<Option<u64>>) -> Result<()> {
        self.engine().set_capacity(tasks.into())
    }

    /// Accepts a task. Once this returns, the task survives a crash.
    ///
    /// # Errors
    /// [`TaskError::QueueFull`], [`TaskError::Duplicate`], [`TaskError::UnknownType`],
    /// [`TaskError::TooLarge`], [`TaskError::Invalid`]: nothing was accepted.
    pub fn enqueue(&self, task: NewTask) -> Result<TaskHandle> {
        let handles = self.enqueue_many([task])?;
        handles
            .into_iter()
            .next()
            .ok_or_else(|| TaskError::Database { doing: "enqueuing", source: "the database gave no number".into() })
    }

    /// Accepts all of `tasks`, in their order, in one step, or none of them. Much cheaper than one
    /// after the other.
    ///
    /// # Errors
    /// Those of [`enqueue`](TaskQueue::enqueue); the queue must have room for all.
    pub fn enqueue_many(&self, tasks: impl IntoIterator<Item = NewTask>) -> Result<Vec<TaskHandle>> {
        let tasks = self.checked(tasks)?;
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<TaskRef> = tasks.iter().map(Checked::name).collect();
        let accepted = self.metrics().enqueue.time(|| self.engine().enqueue(tasks))?;
        for (task, name) in accepted.iter().zip(&names) {
            let is_new = u64::from(task.existing.is_none());
            self.metrics().of_type(&name.task_type).enqueued.fetch_add(is_new, Ordering::Relaxed);
        }
        Ok(accepted.into_iter().zip(names).map(|(task, name)| TaskHandle::accepted(self.clone(), task, name)).collect())
    }

    /// A handle to a task, whether it exists or not.
    pub fn task(&self, task_type: &str, identifier: &str) -> TaskHandle {
        TaskHandle::new(self.clone(), name(task_type, identifier))
    }

    /// Where a task stands.
    ///
    /// # Errors
    /// [`TaskError::NotFound`].
    pub fn status(&self, task_type: &str, identifier: &str) -> Result<TaskStatus> {
        Ok(self.info(task_type, identifier)?.status)
    }

    /// All that is known of a task, but for what it carries.
    ///
    /// # Errors
    /// [`TaskError::NotFound`].
    pub fn info(&self, task_type: &str, identifier: &str) -> Result<TaskInfo> {
        let name = name(task_type, identifier);
        self.engine().info(&name)?.ok_or_else(|| not_found(&name))
    }

    /// Every change of a task, oldest first.
    ///
    /// # Errors
    /// [`TaskError::NotFound`].
    pub fn log(&self, task_type: &str, identifier: &str) -> Result<Vec<LogEntry>> {
        let name = name(task_type, identifier);
        self.engine().log(&name)?.ok_or_else(|| not_found(&name))
    }

    /// What the task's handler stored, if it stored something.
    ///
    /// # Errors
    /// [`TaskError::NotFound`].
    pub fn response(&self, task_type: &str, identifier: &str) -> Result<Option<Response>> {
        let name = name(task_type, identifier);
        self.engine().response(&name)?.ok_or_else(|| not_found(&name))
    }

    /// Deletes a task with its input, response and log. One that a worker holds has to be cancelled
    /// first.
    ///
    /// # Errors
    /// [`TaskError::NotFound`], [`TaskError::Held`].
    pub fn delete(&self, task_type: &str, identifier: &str) -> Result<()> {
        self.engine().delete(&name(task_type, identifier))
    }

    /// Cancels a task: at once for good if it has not started or is paused; if it runs, its handler
    /// is told ([`TaskContext::is_cancelled`](super::TaskContext::is_cancelled)) and decides.
    /// Returns where the task stands then: `Cancelled`, `Running`, or that it had ended before.
    ///
    /// # Errors
    /// [`TaskError::NotFound`].
    pub fn cancel(&self, task_type: &str, identifier: &str) -> Result<TaskStatus> {
        self.cancel_because(&name(task_type, identifier), "cancelled")
    }

    /// The queue in numbers.
    ///
    /// # Errors
    /// Those of the database.
    pub fn stats(&self) -> Result<QueueStats> {
        let mut stats = self.engine().stats()?;
        stats.warnings.extend(self.newer_schema()?);
        stats.warnings.extend(self.senseless_limits()?.iter().map(|name| limits::warning(name)));
        Ok(stats)
    }

    /// What to say if a newer program has brought the schema up to date since this one opened the
    /// queue.
    pub(super) fn newer_schema(&self) -> Result<Option<String>> {
        let (found, known) = self.engine().schema()?;
        Ok((found > known).then(|| {
            format!(
                "a newer program has brought the database to schema {found}, and this one knows {known}: replace this program, \
                 which goes on by the rules of the older schema, and which the queue refuses once it opens it again"
            )
        }))
    }

    /// Takes up to `limit` tasks of `types` for a worker of your own making, those of higher
    /// priority first, then the older ones. Each is to be [started](Claim::start) before `lease` is
    /// over, and kept with [`renew`](Claim::renew). A [`Worker`](super::Worker) does all that by
    /// itself.
    ///
    /// # Errors
    /// Those of the database. None ready isn't an error.
    pub fn dequeue(&self, worker: &WorkerId, types: &[&str], limit: usize, lease: Duration) -> Result<Vec<Claim>> {
        self.dequeue_with_message(worker, types, limit, lease, "")
    }

    /// As [`dequeue`](TaskQueue::dequeue), with a message for the log of each, behind what that
    /// says of the worker. On PostgreSQL it costs a commit of its own.
    ///
    /// # Errors
    /// Those of [`dequeue`](TaskQueue::dequeue).
    pub fn dequeue_with_message(
        &self,
        worker: &WorkerId,
        types: &[&str],
        limit: usize,
        lease: Duration,
        message: &str,
    ) -> Result<Vec<Claim>> {
        // A type that is named twice has its tasks once.
        let types: Vec<String> = BTreeSet::from_iter(types).into_iter().map(|&name| name.to_owned()).collect();
        let message = clean(message);
        let claimed = self.metrics().claim.time(|| self.engine().claim(worker, &types, limit, lease, &message))?;
        Ok(claimed.into_iter().map(|claimed| Claim::new(self.clone(), worker.clone(), claimed)).collect())
    }

    /// Notes why a task is cancelled.
    pub(super) fn cancel_because(&self, name: &TaskRef, reason: &str) -> Result<TaskStatus> {
        let status = self.engine().cancel(name, &clean(reason))?;
        if status == TaskStatus::Cancelled {
            self.cancel_children(None, "its parent was cancelled")?;
        }
        Ok(status)
    }
}

impl fmt::Debug for TaskQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskQueue").field("engine", &self.shared.engine).finish_non_exhaustive()
    }
}

fn name(task_type: &str, identifier: &str) -> TaskRef {
    TaskRef { task_type: task_type.to_owned(), identifier: identifier.to_owned() }
}

fn not_found(name: &TaskRef) -> TaskError {
    TaskError::NotFound { task_type: name.task_type.clone(), identifier: name.identifier.clone() }
}
