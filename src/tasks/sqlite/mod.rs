//! Durable tasks in a SQLite file, compiled in: no server, many threads and many processes of one
//! machine.
//!
//! Writers are combined: the thread that finds the writing connection free commits for all that
//! wait ([`writer`]). Readers have connections of their own and never wait. The journal is a
//! write-ahead log with full durability: what was acknowledged survives a power cut. Files on
//! network file systems are refused.

mod backup;
mod caller;
mod claim;
mod connection;
mod depth;
mod fence;
mod file;
mod filesystem;
mod interrupt;
mod journal;
mod lanes;
mod limits;
mod look;
mod migrate;
mod produce;
mod read;
mod ready;
mod reap;
mod schedule;
mod steer;
mod steps;
mod types;
mod unique;
mod watch;
mod writer;

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

pub use self::interrupt::interrupt_on_cancel;

use self::connection::Clock;
use self::file::Files;
use self::watch::Watch;
use self::writer::Writer;
use super::access::Access;
use super::depth::QueueDepth;
use super::durable::Journal;
use super::engine::{Claimed, Engine, Held, Part, Reaped, Step, Stepped, TaskRef};
use super::error::{Result, TaskError};
use super::limits::{Limits, Searches};
use super::look::{Statuses, TaskFilter, TaskPage};
use super::new_task::Checked;
use super::schedule::{Firing, Stored};
use super::signal::{News, Signal};
use super::stats::QueueStats;
use super::status::{LogEntry, Response, TaskInfo, TaskStatus};
use super::steer::Steering;
use super::task_type::TaskType;
use super::unique::Accepted;
use super::worker_id::WorkerId;
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// How much a commit outlives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// A power cut: every commit waits for the disk. The default.
    #[default]
    Full,
    /// A crash of the process, but not of the machine: a power cut may lose the last commits,
    /// though never tear one.
    Process,
}

/// Settings of a queue in a SQLite file.
#[derive(Clone, Debug)]
pub(super) struct SqliteSettings {
    pub(super) path: PathBuf,
    pub(super) access: Access,
    pub(super) durability: Durability,
    /// How long a writer waits for those of other processes.
    pub(super) busy_timeout: Duration,
    /// The largest size of the file; `None` is SQLite's own, of many terabytes.
    pub(super) max_file_size: Option<u64>,
    /// Added to the wall clock: for tests of clocks that are wrong.
    pub(super) clock: Clock,
}

impl SqliteSettings {
    pub(super) fn new(path: &Path) -> SqliteSettings {
        SqliteSettings {
            path: path.to_owned(),
            access: Access::Create,
            durability: Durability::default(),
            busy_timeout: Duration::from_secs(30),
            max_file_size: None,
            clock: Clock::default(),
        }
    }
}

/// The most reading connections that are kept for later.
const KEPT_READERS: usize = 4;

pub(super) struct SqliteEngine {
    /// Ends before the rest is closed.
    _watch: Watch,
    settings: SqliteSettings,
    writer: Arc<Writer>,
    readers: Mutex<Vec<Connection>>,
    /// The names of the types of the last claim: mostly the next one's, too, and there may be
    /// thousands.
    claimed: Mutex<Arc<[String]>>,
    searches: Searches,
    signal: Arc<Signal>,
    files: Files,
    /// How many steps of durable functions work in a transaction of their own, in this process.
    transactions: AtomicUsize,
    /// Tells this database from others, when a caller hands in a connection.
    pub(super) database: String,
}

impl SqliteEngine {
    /// Opens the queue, makes or updates its schema as `access` allows, and starts the thread that
    /// looks for commits of other processes. `NoQueue` if there is no file and none may be created;
    /// `NetworkFileSystem` for a file that is not on a disk of this machine.
    pub(super) fn open(mut settings: SqliteSettings) -> Result<SqliteEngine> {
        settings.path = filesystem::checked(&settings.path)?;
        if settings.access != Access::Create && !settings.path.exists() {
            return Err(TaskError::NoQueue { place: settings.path.display().to_string() });
        }
        let db = connection::open_writer(&settings)?;
        migrate::migrate(&db, &settings)?;
        let database = connection::database_id(&db)?;
        let files = Files::at(&settings.path);
        let writer = Arc::new(Writer::new(db, files.clone(), settings.busy_timeout, settings.clock.clone()));
        let (readers, claimed) = (Mutex::new(Vec::new()), Mutex::new(Arc::from([])));
        let signal = Arc::new(Signal::new());
        let watch = Watch::start(&writer, &files, &signal)?;
        let (searches, transactions) = (Searches::default(), AtomicUsize::new(0));
        Ok(SqliteEngine {
            _watch: watch,
            settings,
            writer,
            readers,
            claimed,
            searches,
            signal,
            files,
            transactions,
            database,
        })
    }

    /// One look at the database as of one moment.
    fn read<R>(&self, look: impl Fn(&Connection, i64) -> Result<R>) -> Result<R> {
        self.with_reader(|db| {
            connection::patiently(self.settings.busy_timeout, "reading", || {
                let snapshot = db.unchecked_transaction().map_err(connection::failed("reading"))?;
                // Here, because a try before this one may have waited for a lock.
                look(&snapshot, self.settings.clock.now())
            })
        })
    }

    /// The same names, to be kept by another thread.
    fn kept(&self, types: &[String]) -> Arc<[String]> {
        let mut claimed = self.claimed.lock();
        if **claimed != *types {
            *claimed = types.into();
        }
        Arc::clone(&claimed)
    }

    fn with_reader<R>(&self, work: impl FnOnce(&Connection) -> Result<R>) -> Result<R> {
        self.files.check()?;
        let kept = self.readers.lock().pop();
        let db = match kept {
            Some(db) => db,
            None => connection::open_reader(&self.settings)?,
        };
        let seen = work(&db);
        let mut readers = self.readers.lock();
        if readers.len() < KEPT_READERS {
            readers.push(db);
        }
        seen
    }

    fn write<R: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnMut(&Connection, i64) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.writer.write(doing, work)
    }
}

impl Engine for SqliteEngine {
    fn signal(&self) -> &Signal {
        &self.signal
    }

    fn put_type(&self, task_type: TaskType, replace: bool) -> Result<()> {
        self.write("registering a task type", move |db, _| types::put(db, &task_type, replace))?;
        self.signal.ring(News::Work);
        Ok(())
    }

    fn remove_type(&self, name: &str, force: bool) -> Result<()> {
        let name = name.to_owned();
        self.write("unregistering a task type", move |db, _| types::remove(db, &name, force))?;
        // It may have been the children of one that waits for them.
        self.signal.ring(News::Work);
        self.signal.ring(News::End);
        Ok(())
    }

    fn types(&self) -> Result<Vec<TaskType>> {
        self.read(|db, _| types::all(db))
    }

    fn set_capacity(&self, capacity: Option<u64>) -> Result<()> {
        self.write("setting the capacity", move |db, _| produce::set_capacity(db, capacity))
    }

    fn enqueue(&self, tasks: Vec<Checked>) -> Result<Vec<Accepted>> {
        let ids = self.write("enqueuing", move |db, now| produce::enqueue(db, now, &tasks))?;
        self.signal.ring(News::Work);
        Ok(ids)
    }

    fn info(&self, task: &TaskRef) -> Result<Option<TaskInfo>> {
        self.read(|db, _| read::info(db, task))
    }

    fn statuses(&self, tasks: &[TaskRef]) -> Result<Vec<Option<i64>>> {
        self.read(|db, _| read::statuses(db, tasks))
    }

    fn log(&self, task: &TaskRef) -> Result<Option<Vec<LogEntry>>> {
        self.read(|db, _| read::log(db, task))
    }

    fn response(&self, task: &TaskRef) -> Result<Option<Option<Response>>> {
        self.read(|db, _| read::response(db, task))
    }

    fn delete(&self, task: &TaskRef) -> Result<()> {
        let task = task.clone();
        self.write("deleting a task", move |db, now| produce::delete(db, now, &task))?;
        self.signal.ring(News::Work);
        self.signal.ring(News::End);
        Ok(())
    }

    fn cancel(&self, task: &TaskRef, reason: &str) -> Result<TaskStatus> {
        let (task, reason) = (task.clone(), reason.to_owned());
        let status = self.write("cancelling a task", move |db, now| produce::cancel(db, now, &task, &reason))?;
        self.signal.ring(News::Work);
        self.signal.ring(News::End);
        Ok(status)
    }

    fn stats(&self) -> Result<QueueStats> {
        let mut stats = self.read(read::stats)?;
        if let Some(bytes) = self.files.log_size().filter(|bytes| *bytes > connection::LONG_LOG) {
            let held = self.with_reader(connection::unfinished_log)?;
            stats.warnings.extend((held > connection::LONG_LOG).then(|| {
                format!(
                    "the write-ahead log has grown to {} MiB: a connection to the SQLite file has kept a read transaction open, and \
                     until that ends the log can't be reused, and reads get slower",
                    bytes >> 20
                )
            }));
        }
        Ok(stats)
    }

    fn depth(&self) -> Result<QueueDepth> {
        self.read(depth::depth)
    }

    fn list(&self, filter: &TaskFilter, limit: usize) -> Result<TaskPage> {
        self.read(|db, now| look::list(db, now, filter, limit))
    }

    fn find(&self, filter: &TaskFilter, limit: usize) -> Result<(Vec<i64>, Option<i64>)> {
        self.read(|db, now| look::find(db, now, filter, limit))
    }

    fn count(&self, filter: &TaskFilter) -> Result<u64> {
        self.read(|db, now| look::count(db, now, filter))
    }

    fn steer(&self, tasks: &[i64], from: Statuses, steering: &Steering) -> Result<u64> {
        let (tasks, steering) = (tasks.to_owned(), steering.clone());
        let done = self.write("steering tasks", move |db, now| steer::steer(db, now, &tasks, from, &steering))?;
        self.signal.ring(News::Work);
        self.signal.ring(News::End);
        Ok(done)
    }

    fn set_paused(&self, task_type: Option<&str>, paused: bool) -> Result<()> {
        let task_type = task_type.map(str::to_owned);
        self.write("pausing", move |db, _| steer::set_paused(db, task_type.as_deref(), paused))?;
        self.signal.ring(News::Work);
        Ok(())
    }

    fn put_limits(&self, task_type: &str, limits: Option<Limits>) -> Result<bool> {
        let task_type = task_type.to_owned();
        let had = self.write("setting limits", move |db, now| limits::put(db, now, &task_type, limits))?;
        self.searches.forget();
        self.signal.ring(News::Work);
        Ok(had)
    }

    fn limits(&self) -> Result<Vec<(String, Option<Limits>)>> {
        self.read(|db, _| limits::all(db))
    }

    fn claim(
        &self,
        worker: &WorkerId,
        types: &[String],
        limit: usize,
        lease: Duration,
        message: &str,
    ) -> Result<Vec<Claimed>> {
        let (worker, types, message) = (worker.clone(), self.kept(types), message.to_owned());
        let mut wish = claim::Wish { worker, types, limit, lease, message };
        let claim = |wish: claim::Wish, found: Vec<i64>| {
            self.write("claiming tasks", move |db, now| claim::claim(db, now, &wish, &found))
        };
        let (mut taken, cut) = claim(wish.clone(), Vec::new())?;
        // Of these types the claim looked at a part only, and took too few. A search on a reading
        // connection finds the rest, and a second claim takes what it found.
        for one in cut {
            wish.limit = limit.saturating_sub(taken.len());
            let search = || self.read(|db, now| limits::search(db, now, &one));
            let more = self.searches.take(one.type_id(), wish.limit, search).and_then(|found| {
                if found.is_empty() {
                    return Ok(());
                }
                let (more, _) = claim(wish.clone(), found.clone())?;
                if more.len() >= wish.limit {
                    let left = found.into_iter().filter(|id| !more.iter().any(|claimed| claimed.id == *id));
                    self.searches.put_back(one.type_id(), left);
                }
                taken.extend(more);
                Ok(())
            });
            match more {
                // What was taken before is ours, and no other worker would know of it.
                Err(error) if !taken.is_empty() => {
                    crate::trace::event!(WARN, "a claim ended early", error = format!("{error:?}"));
                }
                more => more?,
            }
        }
        Ok(taken)
    }

    fn step(&self, steps: Vec<Step>) -> Result<Vec<Stepped>> {
        let (doing, steps) = ("changing tasks", Arc::<[Step]>::from(steps));
        let all = steps.clone();
        let changed = match self.write(doing, move |db, now| steps::step(db, now, &all)) {
            // Perhaps one of the rows makes no sense. Nothing was written, so do the steps again,
            // each in a savepoint: then that row alone is set aside.
            Err(TaskError::Database { .. }) => self.write(doing, move |db, now| steps::step_by_step(db, now, &steps)),
            other => other,
        }?;
        if changed.iter().any(|stepped| matches!(stepped, Stepped::Done(status) if status.is_ended())) {
            self.signal.ring(News::End);
        }
        // Something may have been given back, or its end have opened a lane or made room below a
        // limit at once.
        if changed.iter().any(|stepped| !matches!(stepped, Stepped::Done(TaskStatus::Running) | Stepped::Stale)) {
            self.signal.ring(News::Work);
        }
        Ok(changed)
    }

    fn heartbeat(&self, worker: &WorkerId, lease: Duration) -> Result<Vec<Held>> {
        let (of, is_step_at_work) = (worker.clone(), || self.transactions.load(Ordering::Relaxed) > 0);
        let was_at_work = is_step_at_work();
        match self.write("renewing leases", move |db, now| claim::heartbeat(db, now, &of, lease)) {
            // A step of ours keeps all others from writing, too. At its end it makes up for that.
            Err(TaskError::Busy { .. }) if was_at_work || is_step_at_work() => {
                self.read(|db, _| claim::held(db, worker))
            }
            held => held,
        }
    }

    fn cancel_requests(&self, worker: &WorkerId) -> Result<Vec<Held>> {
        self.read(|db, _| claim::cancel_requests(db, worker))
    }

    fn load(&self, task: i64, part: Part) -> Result<Option<Vec<u8>>> {
        self.read(|db, _| read::load(db, task, part))
    }

    fn next_due(&self, types: &[String]) -> Result<Option<Duration>> {
        self.read(|db, now| claim::next_due(db, now, types, &self.searches))
    }

    fn reap(&self, limit: usize) -> Result<Reaped> {
        // Looked for without the writer's lock first: mostly there is nothing.
        if !self.read(reap::is_due)? {
            return Ok(Reaped::default());
        }
        let reaped = self.write("rescuing lost tasks", move |db, now| reap::reap(db, now, limit))?;
        if reaped.total() > 0 {
            self.signal.ring(News::Work);
            self.signal.ring(News::End);
        }
        Ok(reaped)
    }

    fn prune(&self, limit: usize) -> Result<u64> {
        if !self.read(reap::is_retired)? {
            return Ok(0);
        }
        self.write("deleting retired tasks", move |db, now| reap::prune(db, now, limit))
    }

    fn pass_time(&self, time: Duration) -> Result<()> {
        self.write("letting time pass", move |db, _| steer::pass_time(db, time))?;
        self.searches.forget();
        self.signal.ring(News::Work);
        Ok(())
    }

    fn now(&self) -> Result<i64> {
        self.read(schedule::time)
    }

    fn schema(&self) -> Result<(i64, i64)> {
        self.read(|db, _| migrate::versions(db))
    }

    fn put_schedule(&self, schedule: Stored) -> Result<()> {
        self.write("putting a schedule", move |db, _| schedule::put(db, &schedule))
    }

    fn remove_schedule(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.write("removing a schedule", move |db, _| schedule::remove(db, &name))
    }

    fn schedules(&self, due: bool) -> Result<(i64, Vec<Stored>)> {
        self.read(|db, now| {
            let now = schedule::time(db, now)?;
            Ok((now, schedule::all(db, due.then_some(now))?))
        })
    }

    fn pause_schedule(&self, name: &str, next: Option<i64>) -> Result<bool> {
        let name = name.to_owned();
        self.write("pausing a schedule", move |db, _| schedule::pause(db, &name, next))
    }

    fn fire(&self, firing: Firing) -> Result<Option<u64>> {
        let fired = self.write("firing a schedule", move |db, now| schedule::fire(db, now, &firing))?;
        if fired.is_some_and(|tasks| tasks > 0) {
            self.signal.ring(News::Work);
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

impl fmt::Debug for SqliteEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteEngine").field("path", &self.settings.path).finish_non_exhaustive()
    }
}

/// A duration as the database keeps it: whole milliseconds, rounded up, so that nothing is early.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

fn not_found(task: &TaskRef) -> TaskError {
    TaskError::NotFound { task_type: task.task_type.clone(), identifier: task.identifier.clone() }
}
