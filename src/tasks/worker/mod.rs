//! A worker: takes tasks, has their handlers run, keeps its leases, and drains when told to.
//!
//! ```text
//! claim loop --batch--> buffer --> runners, at most `max_concurrent` --> handler
//!     --> [end of this task, start of the next]: one step
//! heartbeat: all leases of the worker in one statement, every third of a lease; what is not in the answer is lost
//! ```
//!
//! Handlers run on an executor. The claim loop, heartbeats, looks for cancellations and maintenance
//! run on a small executor of the worker's own and by its timer, so that no handler can keep a
//! lease from being renewed.
//!
//! One file for each thing that it does: `claim`, `handlers`, `leases`, `maintenance`, `stop`,
//! `stuck`. What they share is in `shared`.

mod claim;
mod event;
mod handlers;
mod leases;
mod maintenance;
mod shared;
mod stop;
mod stuck;
mod testing;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use self::event::Listener;
pub use self::event::TaskEvent;
use self::shared::Shared;
pub use self::testing::Attempted;
use super::error::{Result, TaskError};
use super::handler::{Handler, TaskContext};
use super::queue::TaskQueue;
use super::typed::TypedTask;
use super::worker_id::WorkerId;
use crate::error::BoxError;
use crate::executor::{Executor, Periodic, detached};
use crate::time::Deadline;
use crate::trace::event;

/// Threads for the claim loop, heartbeats, cancellations, maintenance and schedules: none of them
/// has to wait for another.
const BACKGROUND_THREADS: usize = 5;

/// How often a worker looks for schedules whose time has come.
const SCHEDULES: Duration = Duration::from_secs(1);

/// Takes tasks of a [`TaskQueue`] and runs their handlers, until it is [drained](Worker::drain) or
/// dropped.
///
/// Beside the threads of its handlers it has a timer and up to five threads of its own, for claims,
/// leases, cancellations, maintenance and schedules; each starts when it is first needed, the last
/// of them after some ten seconds. Tasks that wait, or sleep, hold none of them.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskStatus, TaskType, Worker};
///
/// # let folder = std::env::temp_dir().join(format!("fulmar-worker-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
/// let queue = TaskQueue::open(folder.join("queue.db"))?;
/// queue.register(TaskType::new("SequenceSum"))?;
///
/// let worker = Worker::builder(&queue)
///     .max_concurrent(4)
///     .handle("SequenceSum", |task: &TaskContext| {
///         let numbers: Vec<f64> = task.input()?;
///         task.store_response(numbers.iter().sum::<f64>().to_string(), "text/plain")
///     })
///     .start()?;
///
/// let task = queue.enqueue(NewTask::new("SequenceSum", "Task001").input(&[1, 2, 3, 4, 5]))?;
/// assert_eq!(task.wait(None)?, TaskStatus::Finished);
/// assert_eq!(task.response()?.expect("it stored one").text()?, "15");
/// worker.drain(None)?;
/// # std::fs::remove_dir_all(&folder).ok();
/// # }
/// # Ok::<(), fulmar::tasks::TaskError>(())
/// ```
#[must_use = "dropping a worker stops it"]
pub struct Worker {
    shared: Arc<Shared>,
    /// Heartbeats, looks for cancellations, maintenance; they end with the worker.
    background: Vec<Periodic>,
    /// Kept for its threads.
    _background_executor: Executor,
}

/// What a worker has done so far: a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Tasks taken.
    pub claimed: u64,
    /// Attempts started.
    pub started: u64,
    /// Attempts after which the task was finished.
    pub finished: u64,
    /// Attempts after which the task had failed.
    pub failed: u64,
    /// Attempts that failed, or were called off, and are to be retried.
    pub retried: u64,
    /// Attempts that paused.
    pub paused: u64,
    /// Attempts after which the task was cancelled.
    pub cancelled: u64,
    /// Attempts of which the lease was lost before they ended, so that what they came to was
    /// discarded.
    pub stale: u64,
    /// Tasks put back before they started.
    pub given_back: u64,
    /// Handlers at work now.
    pub running: u64,
    /// Of those, the ones that have lost their task: its time limit passed, or its lease. They keep
    /// a thread until they return; if the number stays, a handler doesn't ask
    /// [`is_cancelled`](super::TaskContext::is_cancelled), or hangs.
    pub stuck: u64,
    /// Threads that were added for those: one for each handler that has not returned by the next
    /// heartbeat, but no more than run [at once](WorkerBuilder::max_concurrent), and none on an
    /// executor that was [given](WorkerBuilder::executor). When these hang, too, the worker takes
    /// no more tasks until a handler returns: end the process then.
    pub replaced: u64,
    /// Types of its handlers that aren't registered, when it looked last, on its maintenance:
    /// no task of theirs can exist. They may be misspelt, or yet to be
    /// [registered](TaskQueue::register).
    pub unregistered: u64,
    /// Calls of the database that failed, and were or will be tried again.
    pub errors: u64,
}

impl fmt::Display for WorkerStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WorkerStats { claimed, started, finished, failed, retried, paused, cancelled, stale, given_back, .. } =
            self;
        write!(
            f,
            "{claimed} claimed, {given_back} given back; {started} started = {finished} finished + {failed} failed"
        )?;
        write!(f, " + {retried} retried + {paused} paused + {cancelled} cancelled + {stale} stale")?;
        write!(f, " + {} running", self.running)
    }
}

/// Settings of a [`Worker`].
#[must_use = "a builder does nothing until `start`"]
pub struct WorkerBuilder {
    queue: TaskQueue,
    handlers: HashMap<String, Arc<dyn Handler>>,
    executor: Option<Executor>,
    max_concurrent: Option<usize>,
    batch: Option<usize>,
    start_together: usize,
    lease: Duration,
    maintenance: Option<Duration>,
    id: WorkerId,
    listener: Option<Listener>,
}

impl WorkerBuilder {
    /// Has `handler` run for tasks of `task_type`. Only types with a handler are taken. A second
    /// one for the same type replaces the first.
    pub fn handle(mut self, task_type: impl Into<String>, handler: impl Handler) -> WorkerBuilder {
        self.handlers.insert(task_type.into(), Arc::new(handler));
        self
    }

    /// Has `work` run for the tasks of `kind`, with their inputs. Errors of any type go out by `?`.
    pub fn handle_typed<I: DeserializeOwned + 'static>(
        self,
        kind: TypedTask<I>,
        work: impl Fn(&TaskContext, I) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> WorkerBuilder {
        self.handle(kind.name(), kind.handler(work))
    }

    /// Where handlers run. Defaults to an executor of the worker's own, with
    /// [`max_concurrent`](WorkerBuilder::max_concurrent) threads. A thread that has begun with
    /// tasks goes on as long as there are some. If the executor is shut down, the worker puts back
    /// what has not started and takes no more; if it is full, the worker tries again after a
    /// second.
    pub fn executor(mut self, executor: &Executor) -> WorkerBuilder {
        self.executor = Some(executor.clone());
        self
    }

    /// How many handlers may run at once, at least 1. Defaults to the threads of the executor, or
    /// to the number of cores, but at least 4.
    pub fn max_concurrent(mut self, tasks: usize) -> WorkerBuilder {
        self.max_concurrent = Some(tasks);
        self
    }

    /// How many tasks this worker has ready beside those at work, at least 1, and so how many it
    /// takes at once. The more, the cheaper for the database, and the more wait here where another
    /// machine might have started them; what has not started is not charged with an attempt if this
    /// worker dies. By default as many as it will get to within 100 ms, by how long the last ones
    /// took, but no more than run [at once](WorkerBuilder::max_concurrent): none of those that take
    /// long.
    pub fn batch(mut self, tasks: usize) -> WorkerBuilder {
        self.batch = Some(tasks);
        self
    }

    /// How many tasks a thread may start together, at least 1: one commit starts them, and one ends
    /// them, which makes many small tasks much cheaper. The price: a task that has ended is told of
    /// only with the last of its fellows, and if this worker dies, all of them are charged with a
    /// lost attempt, whichever was at work. From then on each is started alone, so that a poison
    /// task takes no other along twice; give the type a restart limit of at least 1. A [time
    /// limit](super::TaskType::time_limit) counts from the start that they share: let it be long
    /// enough for all of them. Only tasks that are in the [batch](WorkerBuilder::batch) and that no
    /// other thread could take are started so. Defaults to 1.
    pub fn start_together(mut self, tasks: usize) -> WorkerBuilder {
        self.start_together = tasks;
        self
    }

    /// How long a task stays with this worker after its last sign of life; it gives one every third
    /// of that. Short leases are taken up sooner after a crash, long ones bear longer outages of
    /// the database and stops of the process. Says nothing about how long a task may take. Defaults
    /// to 30 s; at least 30 ms.
    pub fn lease(mut self, time: Duration) -> WorkerBuilder {
        self.lease = time;
        self
    }

    /// How often this worker looks for lost and retired tasks, of all workers. Defaults to half a
    /// lease.
    pub fn maintenance_interval(mut self, interval: Duration) -> WorkerBuilder {
        self.maintenance = Some(interval);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`TaskError::Invalid`] for settings that make no sense; [`TaskError::Executor`] if the
    /// system refuses a thread, or for the global executor if `FULMAR_THREADS` makes no sense.
    pub fn start(self) -> Result<Worker> {
        let invalid = |text: &str| Err(TaskError::Invalid(text.into()));
        let cores = crate::sync::thread::cores().max(4);
        let max_concurrent =
            self.max_concurrent.unwrap_or_else(|| self.executor.as_ref().map_or(cores, Executor::threads));
        if max_concurrent == 0 || self.batch == Some(0) || self.start_together == 0 {
            return invalid("a worker of 0 tasks at once does nothing: use 1 or more");
        }
        if self.handlers.is_empty() {
            return invalid("a worker without a handler takes nothing: give it one with `handle`");
        }
        if self.lease < Duration::from_millis(30) {
            return invalid("a lease below 30 ms can't be kept: use a longer one");
        }
        let executor = match &self.executor {
            Some(executor) => executor.clone(),
            None => Executor::builder().threads(max_concurrent).thread_name("worker").build()?,
        };
        executor.check_settings()?;
        let background_executor = Executor::builder().threads(BACKGROUND_THREADS).thread_name("worker-bg").build()?;
        let (poll, lease) = (self.queue.poll(), self.lease);
        let maintenance = self.maintenance.unwrap_or(lease / 2).max(Duration::from_millis(1));
        let shared = Arc::new(Shared::new(self, executor, max_concurrent));
        let mut background = Vec::new();
        let mut every = |period, work: fn(&Shared)| -> Result<()> {
            let work = move |shared: &Shared, ()| -> Result<(), TaskError> {
                work(shared);
                Ok(())
            };
            background.push(background_executor.submit_every(period, &shared, work, false, ())?);
            Ok(())
        };
        every(lease / 3, |shared| {
            shared.look_for_stuck();
            shared.heartbeat();
        })?;
        every(poll, Shared::poll_cancellations)?;
        every(maintenance, Shared::maintain)?;
        every(SCHEDULES, Shared::fire_schedules)?;
        let claimer = shared.clone();
        // A worker that an operation starts ends by its own rules, not with that operation's group.
        drop(detached(|| background_executor.spawn(move || claimer.claim_loop()))?);
        event!(INFO, "worker started", worker = shared.id.to_string(), max_concurrent = max_concurrent);
        Ok(Worker { shared, background, _background_executor: background_executor })
    }
}

impl Worker {
    /// Settings for a worker on `queue`.
    pub fn builder(queue: &TaskQueue) -> WorkerBuilder {
        WorkerBuilder {
            queue: queue.clone(),
            handlers: HashMap::new(),
            executor: None,
            max_concurrent: None,
            batch: None,
            start_together: 1,
            lease: Duration::from_secs(30),
            maintenance: None,
            id: WorkerId::new(),
            listener: None,
        }
    }

    /// Who it is: new for each worker.
    pub fn id(&self) -> &WorkerId {
        &self.shared.id
    }

    /// What it has done so far.
    pub fn stats(&self) -> WorkerStats {
        self.shared.stats()
    }

    /// Takes no more tasks, puts those back that have not started, without charging them, and waits
    /// until the handlers at work have returned. They can see it
    /// ([`TaskContext::is_stopping`](super::TaskContext::is_stopping)) and pause.
    ///
    /// Once this has returned well, the worker holds nothing.
    ///
    /// # Errors
    /// [`TaskError::Timeout`]: `left` handlers are still at work. They are told to stop
    /// ([`TaskContext::is_cancelled`](super::TaskContext::is_cancelled)), and until the worker is
    /// dropped their leases are kept, and what they come to is written: call it again to wait
    /// longer. Those that obey and return an error go back to the queue, at the price of a restart;
    /// those that don't go back when their leases are over. A claim on its way counts as one of
    /// them, so a limit of zero may be too short for an idle worker, too.
    pub fn drain(&self, timeout: impl Into<Option<Duration>>) -> Result<WorkerStats> {
        let deadline = Deadline::start(timeout);
        self.shared.stop_claiming();
        match self.shared.wait_for_end(deadline) {
            0 => {
                self.end_background();
                event!(INFO, "worker drained", worker = self.shared.id.to_string(), stats = self.stats().to_string());
                Ok(self.stats())
            }
            left => {
                self.shared.cancel_handlers();
                Err(TaskError::Timeout { limit: deadline.limit(), left: left as u64 })
            }
        }
    }

    fn end_background(&self) {
        for periodic in &self.background {
            periodic.cancel();
        }
    }
}

impl Drop for Worker {
    /// Stops it: takes no more tasks, puts those back that have not started, tells the handlers at
    /// work, waits for none of them. A handler that obeys and returns an error puts its task back,
    /// at the price of a restart.
    fn drop(&mut self) {
        self.shared.stop_claiming();
        self.shared.abandon();
        self.end_background();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("id", &self.shared.id).field("stats", &self.stats()).finish_non_exhaustive()
    }
}
