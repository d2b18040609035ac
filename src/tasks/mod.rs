//! Durable tasks: a queue that survives a crash, for any number of workers.
//!
//! A producer enqueues a task: a type, an identifier, an input. From then on it is in a database,
//! and whatever crashes, it will be worked on. Workers take tasks, run their handlers on threads,
//! and store what they come to. A program that wants to know asks: where it stands, what happened
//! to it, what it gave.
//!
//! ```
//! # #[cfg(feature = "sqlite")] {
//! use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskStatus, TaskType, Worker};
//! use std::time::Duration;
//!
//! # let folder = std::env::temp_dir().join(format!("fulmar-chapter-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
//! let queue = TaskQueue::open(folder.join("queue.db"))?;
//! queue.register(
//!     TaskType::new("SequenceSum")
//!         .time_limit(Duration::from_secs(60))
//!         .retention(Duration::from_secs(600))
//!         .restart_limit(3),
//! )?;
//!
//! let task = queue.enqueue(NewTask::new("SequenceSum", "Task001").input(&[1, 2, 3, 4, 5]))?;
//!
//! // Here, in another process, or in many:
//! let worker = Worker::builder(&queue)
//!     .handle("SequenceSum", |task: &TaskContext| {
//!         let numbers: Vec<f64> = task.input()?;
//!         task.store_response(numbers.iter().sum::<f64>().to_string(), "text/plain")
//!     })
//!     .start()?;
//!
//! assert_eq!(task.wait(Duration::from_secs(60))?, TaskStatus::Finished);
//! assert_eq!(task.response()?.expect("it stored one").text()?, "15");
//! for entry in task.log()? {
//!     println!("{:?} {} {}", entry.time, entry.status, entry.message);
//! }
//! task.delete()?;
//! worker.drain(Duration::from_secs(60))?;
//! # std::fs::remove_dir_all(&folder).ok();
//! # }
//! # Ok::<(), fulmar::tasks::TaskError>(())
//! ```
//!
//! # What is promised
//!
//! - **What was accepted is there.** [`enqueue`](TaskQueue::enqueue) returns when the task is on
//!   the disk. With [`enqueue_in`](TaskQueue::enqueue_in) it is there if, and only if, your own
//!   transaction commits.
//! - **At least once.** A task runs until a handler has ended it, or a limit is reached. It may run
//!   more than once: a worker can die, or be cut off, after the handler did its work and before the
//!   database heard of it. No queue can do better for what handlers do elsewhere. What they do in
//!   the queue's own database happens exactly once with [`finish_in`](TaskContext::finish_in):
//!   their effects and the end of the task are one commit.
//! - **Ended once.** Of all attempts of a task exactly one ends it: one `Finished`, `Failed` or
//!   `Cancelled` in its log, with the response of that very attempt, in one commit. No worker
//!   changes a final state again; an operator may [retry](TaskQueue::retry) what failed.
//! - **One at a time**, as far as the database knows: a task has one lease at a time, and what a
//!   worker without it says is refused. On its machine, a worker that was cut off may go on for a
//!   while: see below.
//!
//! # What a fence guarantees
//!
//! Each claim of a task gives it a new token. All that a worker does to the task, it does with its
//! token; once another worker has claimed the task, or the lease is over, the old token fits
//! nothing. So a worker that was stopped for an hour (a virtual machine moved, a laptop was closed)
//! can wake up and finish its work, and nothing happens: the call says [`TaskError::Stale`], the
//! outcome is discarded, and a [`Worker`] counts it ([`WorkerStats::stale`]).
//!
//! The fence protects the queue, not the rest of the world. If a handler writes elsewhere, and
//! doing so twice would hurt, give that system something to refuse the second by: the task's
//! identifier as a key of its own, or [`TaskContext::fence`], which only grows, to be compared with
//! the last one seen.
//!
//! # Where a task goes
//!
//! [`TaskStatus`] draws it. What decides is one pure function, which both databases act by: a test
//! holds each of them against it, in every combination of what is done and what is known. To print
//! the table: `cargo test --lib --all-features transition::tests::table -- --nocapture`.
//!
//! # How to write a handler
//!
//! - **Make it repeatable.** The second attempt finds what the first left. Write to a temporary
//!   name and rename; insert with the identifier as the key; ask the remote service for the job
//!   before creating it.
//! - **Return errors.** An error or a panic is retried as the type's [`RetryPolicy`] says, and its
//!   text, with all of its sources, is in the log. [`TaskContext::fail`] is for what no retry can
//!   mend.
//! - **Ask whether to stop.** A task that takes long looks at [`TaskContext::is_cancelled`] now and
//!   then: it was cancelled, or the lease is lost, or the worker stops for good: return an error
//!   then. Only a cancel ends the task; otherwise it goes back to the queue, and a restart is
//!   charged. [`TaskContext::is_stopping`] says that the worker is being drained: pause, if you
//!   can.
//! - **Don't wait on a thread.** For what takes its time elsewhere, [`TaskContext::pause_with`]
//!   gives the thread back, names when to go on, and keeps a state. Ten thousand remote jobs in
//!   progress are ten thousand rows, and no thread. So don't wait for other tasks in a handler
//!   either: they may need the very thread that waits.
//! - **Keep large things elsewhere.** Inputs and responses may have 64 MiB, but a file's name is
//!   shorter.
//!
//! # Limits, leases and restarts
//!
//! A *lease* is how long a task stays with a worker that gives no sign of life. Workers renew all
//! of their leases in one statement every third of a lease, so its length says nothing about how
//! long a task may take. Too short, and a pause of the process (swapping, a slow disk, a stopped
//! machine) loses the task to another worker, which costs an attempt; too long, and the tasks of a
//! crashed process wait for so long. The default of 30 s bears outages of the database of 20 s.
//! Take 5 s where crashes are likelier than stalls, and minutes where the database may be away.
//!
//! A *time limit* ([`TaskType::time_limit`]) is how long one attempt may take, healthy or not.
//! Beyond it the attempt is lost: the task goes back, and the handler is told. A handler that
//! neither returns nor asks hangs on to its thread. The worker replaces that thread by another one,
//! and at most as many as run at once, so that no other type starves ([`WorkerStats::stuck`],
//! [`WorkerStats::replaced`], [`TaskEvent::Stuck`], `fulmar_stuck_total`). When those hang, too, it
//! takes no more tasks until a handler returns: watch the numbers, and end the process then.
//!
//! A *restart limit* ([`TaskType::restart_limit`]) counts lost attempts: those whose worker died,
//! those beyond the time limit, those whose outcome could not be written, and those that returned
//! an error because their worker stopped or their lease was lost. It is what stops a poison task,
//! which kills each worker that runs it. A *retry policy* ([`TaskType::retry`]) counts failed
//! attempts: those whose handler said so. What was only claimed and not started is charged with
//! neither. An attempt that ends in a pause has got on, and both counts begin anew: a function that
//! sleeps and waits for months outlives more crashes than one.
//!
//! All times are the database's: a worker whose clock is wrong does no harm. On SQLite that is the
//! machine's clock, which all of its processes share; if it is set forward, leases end early, and
//! tasks may start again, but still none ends twice; if it is set back, the tasks of dead workers
//! wait for so long.
//!
//! # Order, limits, priorities
//!
//! Tasks start by [priority](NewTask::priority), then by age. [`NewTask::ordered`] keeps the order
//! of a key across all machines, as an [`Executor`](crate::Executor) does in one process: accessors
//! share, a modifier runs alone, none overtakes. A task keeps its place while it is paused, or
//! waits for its next attempt, so that a modifier that fails three times is still before those that
//! came after it. [`TaskType::max_concurrent`] limits how many tasks of a type are held by workers
//! at once. [`TaskQueue::set_capacity`] bounds what waits; beyond it, enqueuing is
//! [`TaskError::QueueFull`].
//!
//! More limits of a type are in the database, for all machines, and are changed while tasks wait:
//! [`TaskQueue::set_limits`].
//!
//! - [**At once by key**](Limits::max_concurrent_by_key): `NewTask::ordered("tenant-7", false)`
//!   gives a task its key; modifiers run alone still.
//! - [**Rates**](Limits::rate) by token bucket, of the type and of [each key](Limits::rate_by_key),
//!   by the database's clock. Without a [burst](Rate::burst), starts are spread evenly over the
//!   period, and no period has more than it may. Each attempt counts, when a worker takes it. A
//!   worker that waits for a rate wakes when the next start is due.
//! - [**Turns**](Limits::turns): a hundred thousand tasks of one key don't hold up the ten of
//!   another.
//! - [**Ageing**](Limits::ageing): what waits long enough comes before newer tasks of a higher
//!   priority.
//!
//! What is held back holds back nothing else: a claim looks at some hundred tasks at the front of a
//! type, and then goes from key to key, past up to 1,000 that are held back. So give each task of
//! such a type a key: one without is found only while it is among the first hundred. Types without
//! limits pay nothing for them; claims of one with limits take turns, as those of one with a limit
//! at once. If another program has written limits that make no sense, no worker takes tasks of that
//! type until they are set anew or removed: workers log a warning, and [`stats`](TaskQueue::stats)
//! has it among its warnings.
//!
//! ```
//! # #[cfg(feature = "sqlite")] {
//! # use fulmar::tasks::{Limits, NewTask, Rate, TaskError, TaskQueue, TaskType};
//! # use std::time::Duration;
//! # let folder = std::env::temp_dir().join(format!("fulmar-chapter-limits-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
//! # let queue = TaskQueue::open(folder.join("queue.db"))?;
//! queue.register(TaskType::new("export").max_concurrent(20))?;
//! let per_minute = Rate::new(60, Duration::from_secs(60)).burst(5);
//! let limits = Limits::new().max_concurrent_by_key(3).rate_by_key(per_minute);
//! queue.set_limits("export", limits.turns(true))?;
//! queue.enqueue(NewTask::new("export", "report 1").ordered("tenant-7", false))?;
//! # std::fs::remove_dir_all(&folder).ok();
//! # }
//! # Ok::<(), fulmar::tasks::TaskError>(())
//! ```
//!
//! [`TaskQueue::submit`] puts all of it into the executor's four arguments:
//! `submit("store", "op", is_modifier, args)` enqueues a named operation of a
//! [`Store`](crate::Store) that workers have registered.
//!
//! # One is enough
//!
//! An identifier is unique for as long as its task exists. [`NewTask::unique`] is about more: of
//! the tasks with the same key, or the same input, one stands for all, while it waits, until it has
//! ended, or for a period, and the one that waits may be replaced or pushed back: see [`Unique`].
//! The look and the enqueuing are one step on all machines; on PostgreSQL they take a lock of the
//! key for the time of a commit.
//!
//! # Schedules
//!
//! [`TaskQueue::put_schedule`] has a task enqueued every so often, or, with the feature `cron`, by
//! a cron expression in a time zone. Schedules are in the database: any worker fires them, whatever
//! it handles, and each time is fired once, however many machines look. Workers look once a second.
//! Put them each time a program starts: what is there already keeps its times, so that what was
//! missed while no worker ran is made up for as [`Missed`] says.
//!
#![cfg_attr(not(feature = "cron"), doc = "```ignore")]
#![cfg_attr(feature = "cron", doc = "```no_run")]
//! # use fulmar::tasks::{Missed, NewTask, Schedule, TaskError, TaskQueue, TaskType};
//! # use std::time::Duration;
//! # let queue = TaskQueue::open("queue.db")?;
//! queue.register(TaskType::new("report").retention(Duration::from_secs(7 * 86_400)))?;
//! let weekdays = Schedule::cron("report", "30 8 * * 1-5", NewTask::new("report", "morning")).zone("Europe/Vienna");
//! queue.put_schedule(weekdays.missed(Missed::Skip))?;
//! # Ok::<(), TaskError>(())
//! ```
//!
//! A fixed time of the day fires once a day when clocks are set, too: `Schedule::zone` says how. A
//! run that is still at work doesn't keep the next one from being enqueued: have the task be unique
//! [until it has ended](Unique::until_ended), and the next one is left out; or give it a key
//! ([`NewTask::ordered`]), and it waits.
//!
//! # Stopping
//!
//! [`Worker::drain`] takes no more tasks, puts back at once what has not started, and waits for the
//! handlers at work. Call it on SIGTERM, with a limit below that of the supervisor that will kill
//! the process. If it doesn't get that far, nothing is lost: leases end, and other workers take
//! over.
//!
//! # What operators do
//!
//! - **Look.** [`TaskQueue::list`] gives the tasks that a [`TaskFilter`] fits (type, status, key,
//!   age, text of the error), page by page: a page reads at most some thousand rows, beside
//!   millions. [`TaskQueue::depth`] counts what waits and runs, and may be asked often;
//!   [`TaskQueue::stats`] counts all tasks, and so reads the index of those that have ended. For
//!   psql, Grafana and the like the views `fulmar_tasks` and `fulmar_depth` have statuses in words
//!   and times as times.
//! - **Mend.** [`TaskQueue::retry`] has a task that failed or was cancelled run again, its log
//!   kept; [`retry_all`](TaskQueue::retry_all), [`cancel_all`](TaskQueue::cancel_all) and
//!   [`delete_all`](TaskQueue::delete_all) do it by filter, in batches of some 20 ms, so that no
//!   other process is held up.
//! - **Rearrange.** [`TaskQueue::set_priority`] and [`TaskQueue::reschedule`] change what waits.
//! - **Pause.** [`TaskQueue::pause_type`] and [`TaskQueue::pause`] have no worker, on any machine,
//!   take tasks until they are resumed: while a service that they need is down, or during a
//!   migration. It is in the database, and outlives restarts.
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")] {
//! # use fulmar::tasks::{TaskError, TaskFilter, TaskQueue, TaskStatus};
//! # let queue = TaskQueue::open("queue.db")?;
//! let refused = TaskFilter::new().of_type("mail").status([TaskStatus::Failed]).saying("connection refused");
//! for task in queue.list(&refused, 20)?.tasks {
//!     println!("{} {:?} {}", task.identifier, task.ended, task.message.unwrap_or_default());
//! }
//! println!("{} are tried again", queue.retry_all(&refused)?);
//! # }
//! # Ok::<(), fulmar::tasks::TaskError>(())
//! ```
//!
//! # Operations
//!
//! - **Sizing.** One worker a process is enough. Its threads are
//!   [`max_concurrent`](WorkerBuilder::max_concurrent): as many as handlers wait or compute at a
//!   time. A process takes up to `QueueBuilder::connections` connections to PostgreSQL, and two
//!   more for leases and for news: ten by default, so that 20 processes need 200 of the server's. A
//!   commit costs a flush of the disk whatever it holds: [`enqueue_many`](TaskQueue::enqueue_many)
//!   and [`start_together`](WorkerBuilder::start_together) share one among many tasks. Give each
//!   type a [`retention`](TaskType::retention), or what has ended is kept for ever.
//! - **Cron.** No process is the scheduler: see [Schedules](#schedules). A program without a worker
//!   calls [`fire_schedules`](TaskQueue::fire_schedules).
//! - **Schemas.** On PostgreSQL `QueueBuilder::schema` says whose tables. Each tenant may have a
//!   queue in a schema of its own, and its role needs no rights elsewhere. The first process of a
//!   new version brings the schema up to date, under a lock, and its role must have the right to.
//!   Older programs refuse to open a newer schema and change nothing, so stop them first. One that
//!   is still open goes on by its own rules: its worker logs a warning once, and
//!   [`stats`](TaskQueue::stats) has it among its warnings.
//! - **Poolers.** Behind PgBouncer in transaction mode give `QueueBuilder::direct` a way past it,
//!   for news. In session mode nothing is to be done.
//! - **TLS.** The feature `postgres-tls`, and `sslmode=verify-full` in the connection string:
//!   `require` encrypts, and trusts any server. `QueueBuilder::password` is asked before each
//!   login, for tokens that live for minutes.
//! - **Backups.** `TaskQueue::backup` copies a SQLite file in use. A copy by other means leaves out
//!   the log beside the file. PostgreSQL has `pg_dump` and its archives. After a restore, tasks run
//!   again that had ended since: handlers are repeatable for that, too.
//! - **Dashboards.** Open the queue [`read_only`](QueueBuilder::read_only), or select from the
//!   views `fulmar_tasks`, `fulmar_depth` and `fulmar_schedules`. Alarms are worth having on the
//!   age of the oldest task that could start, on failed tasks, on the warnings of
//!   [`stats`](TaskQueue::stats), and on [`WorkerStats::stuck`].
//! - **Exactly once.** What a handler does in the queue's own database is committed with the end of
//!   its task by [`finish_in`](TaskContext::finish_in), and [`enqueue_in`](TaskQueue::enqueue_in)
//!   puts the next task into the same transaction. So each step of a chain over one database
//!   happens once, whatever crashes.
//! - **One at once by key.** Tasks with a key that are all modifiers ([`NewTask::ordered`]) run one
//!   at a time for each key, on all machines.
//!
//! # What is seen
//!
//! [`TaskQueue::open_metrics`] is a page for Prometheus and the like: how many tasks wait and run,
//! how long they waited, and how long handlers, claims and commits took.
//! [`WorkerBuilder::on_event`] tells a program of its own attempts. With the feature `tracing` each
//! attempt is a span, `task`; what goes wrong is an event at `WARN`.
//!
//! The context of the program that enqueues goes with the task: [`QueueBuilder::trace_context`] is
//! asked for it, as W3C's `traceparent` for example, and [`TaskContext::trace_context`] gives it to
//! the handler, on whichever machine.
//!
//! # Testing your handlers
//!
//! [`WorkerBuilder::run_due`] runs what may start now, what is scheduled for now included, on the
//! test's own thread, with the handlers of your worker, and [`TaskQueue::pass_time`] lets an hour
//! pass at once. Both work on either engine.
//!
//! # SQLite
//!
//! The database is compiled in and lies in one file, for the threads and processes of one machine.
//! Each commit waits for the disk (`Durability::Full`), so the threads that want to write at the
//! same time share commits; readers never wait. Processes wait for each other by short, uneven
//! pauses, up to [`QueueBuilder::busy_timeout`]; no caller ever hears `database is locked`. The
//! file may hold your own tables, too: ours begin with `fulmar_`. Network file systems are refused,
//! because SQLite corrupts there.
//!
//! What this process enqueues is found at once. What other processes enqueue or end is found within
//! some milliseconds: while a thread waits, another one looks at the file 200 times a second, which
//! takes less than a hundredth of a core.
//!
//! A connection that keeps a read transaction open keeps the write-ahead log from being reused:
//! [`TaskQueue::stats`] warns when the log has grown beyond 16 MiB for that reason. When the reader
//! has gone, the log shrinks again.
//!
//! # PostgreSQL
//!
//! With the feature `postgres`, `TaskQueue::connect` opens the queue on a server, for workers on
//! any number of machines. Its tables begin with `fulmar_` and lie in the schema that
//! `QueueBuilder::schema` names. Workers claim without waiting for each other: each skips what
//! another one has locked. What happens in one process is told to the others by `NOTIFY`, some
//! dozens of times a second at most, and only after the commit, because PostgreSQL lets one commit
//! with a `NOTIFY` pass at a time; whatever is missed is found within
//! [`QueueBuilder::poll_interval`].
//!
//! What was accepted is on the server's disk: where a role or a database says
//! `synchronous_commit = off`, the queue's sessions say `on`; other levels are left as they are.
//!
//! A connection that breaks is replaced. What was under way is tried again for
//! [`QueueBuilder::busy_timeout`]; a commit whose answer was lost is looked up first, so that
//! nothing is done twice, and nothing that was done is taken for a failure. A server that is gone
//! without a word is noticed within 10 s. A statement that is given up here is cancelled there. A
//! login that is refused until an operator changes something fails at once, and is tried again
//! every 30 s at most.
//!
//! A pooler in transaction mode, as PgBouncer's, is recognised by the numbers of its sessions: then
//! settings are local to a transaction, nothing is prepared, and a statement takes three round
//! trips. News need `QueueBuilder::direct`; without that they are found by polling. TLS needs the
//! feature `postgres-tls`, and `QueueBuilder::password` is for tokens that don't live long.
//!
//! Transactions of your own enqueue at READ COMMITTED if tasks have a key, or are unique, or the
//! queue has a capacity; others are refused. The database's encoding must be UTF8, or SQL_ASCII:
//! others lack letters.
//!
//! While a transaction of another program stays open, PostgreSQL can't clean up after tasks, and
//! claims walk past all that were taken since: [`TaskQueue::stats`] warns of it, with the session's
//! number. In that state claims may for a second pass over a task that was given back, while others
//! of its priority wait. A capacity, a limit at once and an order each take a lock for the time of
//! a commit: so many enqueuings with a capacity share the speed of one disk's commits, one after
//! the other.
//!
//! # From SQLite to PostgreSQL
//!
//! Take SQLite until you need a second machine, or more commits than one disk gives: it is a file,
//! and there is no server to keep. Everything on this page is the same on both engines, and one
//! suite of tests runs on both. To move, have producers open the new queue and register the same
//! types there, let a worker on the old queue run until its [`stats`](TaskQueue::stats) have a
//! depth of zero, and keep the file for the responses that may still be asked for. What waits for
//! long can be moved: [`TaskQueue::export`] writes it as lines of JSON, and [`TaskQueue::import`]
//! reads them. Paused tasks come along with their checkpoints and stored steps, and those that have
//! ended, with their logs and responses, if the filter names their statuses.

// Without an engine there is nothing to open, and half of this lies idle.
#![cfg_attr(not(any(feature = "sqlite", feature = "postgres")), allow(dead_code))]

mod access;
mod caller;
mod claim;
mod depth;
pub mod durable;
mod engine;
mod error;
mod handle;
mod handler;
mod limits;
mod look;
mod maintenance;
mod metrics;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod names;
mod new_task;
#[cfg(feature = "postgres")]
mod postgres;
mod queue;
mod schedule;
mod schema;
mod signal;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;
mod status;
mod steer;
mod store;
mod task_type;
mod transfer;
#[cfg_attr(not(all(feature = "sqlite", feature = "postgres")), allow(dead_code, reason = "each engine uses its part"))]
mod transition;
mod typed;
mod unique;
mod wait;
mod worker;
mod worker_id;

pub use crate::backoff::RetryPolicy;
pub use caller::{Acceptable, CallersTransaction, Ending, Keeping};
pub use claim::Claim;
pub use depth::{QueueDepth, TypeDepth};
pub use error::{Result, TaskError};
pub use handle::TaskHandle;
pub use handler::{Handler, TaskContext};
pub use limits::{Limits, Rate};
pub use look::{TaskFilter, TaskPage};
pub use maintenance::Tidied;
pub use new_task::{LARGEST_PAYLOAD, NewTask};
#[cfg(feature = "postgres")]
pub use postgres::PostgresTransaction;
#[cfg(all(feature = "postgres", feature = "sqlite", any(feature = "openeo", feature = "pairs")))]
pub(crate) use postgres::{PgSession, PgStatements};
pub use queue::{QueueBuilder, TaskQueue};
/// The crate whose connections [`TaskQueue::enqueue_in`] takes.
#[cfg(feature = "sqlite")]
pub use rusqlite;
pub use schedule::{Missed, Schedule, ScheduleInfo};
#[cfg(feature = "sqlite")]
pub use sqlite::{Durability, interrupt_on_cancel};
pub use stats::{QueueStats, TypeStats};
pub use status::{LogEntry, Response, TaskInfo, TaskStatus};
pub use store::DurableRequest;
pub use task_type::TaskType;
pub use transfer::Imported;
pub use typed::{TypedTask, handler};
pub use unique::{Accepted, Unique};
pub use worker::{Attempted, TaskEvent, Worker, WorkerBuilder, WorkerStats};
pub use worker_id::WorkerId;
