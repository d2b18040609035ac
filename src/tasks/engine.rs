//! What a database has to do for a queue: operations on plain data, each of them one atomic step.
//!
//! # The contract
//!
//! - **One step each.** Every call is one transaction: all of it is durable when it returns `Ok`,
//!   and nothing of it happened if it returns an error, [`TaskError::Unreachable`] aside.
//! - **Fenced.** A claim adds one to the task's token. What a worker does to a task is guarded by
//!   number, token, worker, a lease that is not over, and the states that it may leave; where no
//!   row fits, the answer is [`Stepped::Stale`] and nothing was written. To give the task up it
//!   suffices that the lease was not taken away yet.
//! - **The database's clock.** No time of a caller is compared with one of the database: durations
//!   go in, and the engine adds them to the time there.
//! - **Logged.** Every change writes its log entry in the same transaction.
//! - **Tellers and listeners.** The engine rings its [`Signal`] when work may have become ready or
//!   a task has ended, whether by its own commit or by news from others; a thread that waits also
//!   looks by itself, every poll interval.
//!
//! Callers have checked sizes and names. A new engine passes `tests/tasks`, all of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::depth::QueueDepth;
use super::durable::{Entry, Journal};
use super::error::Result;
use super::limits::Limits;
use super::look::{Statuses, TaskFilter, TaskPage};
use super::new_task::Checked;
use super::schedule::{Firing, Stored};
use super::signal::Signal;
use super::stats::QueueStats;
use super::status::{LogEntry, Response, TaskInfo, TaskStatus};
use super::steer::Steering;
use super::task_type::TaskType;
use super::unique::Accepted;
use super::worker_id::WorkerId;
use crate::backoff::RetryPolicy;

pub(super) trait Engine: fmt::Debug + Send + Sync + 'static {
    /// The signal that the engine rings, as the contract says.
    fn signal(&self) -> &Signal;

    /// Inserts a type. If there is one of its name, that gets these settings with `replace`, and
    /// stays as it is without.
    fn put_type(&self, task_type: TaskType, replace: bool) -> Result<()>;

    /// Removes a type; with `force` all of its tasks, too, those at work included, whose workers
    /// become stale. `UnknownType`, `InUse`.
    fn remove_type(&self, name: &str, force: bool) -> Result<()>;

    fn types(&self) -> Result<Vec<TaskType>>;

    /// How many tasks may wait (`Accepted` and `Scheduled`); `None` means no limit.
    fn set_capacity(&self, capacity: Option<u64>) -> Result<()>;

    /// Inserts all of `tasks`, in their order, or none, and says which task stands for each. Mostly
    /// that is the task itself. If a task is unique and another of its key is there, it is that
    /// one, which is changed as the new task asks. The capacity is checked in the same transaction,
    /// for the tasks that are inserted. `QueueFull`, `Duplicate`, `UnknownType`.
    fn enqueue(&self, tasks: Vec<Checked>) -> Result<Vec<Accepted>>;

    fn info(&self, task: &TaskRef) -> Result<Option<TaskInfo>>;

    /// Where each of `tasks` stands, as the status's code: one that makes no sense keeps none of
    /// the others from being told. `None`: there is no such task.
    fn statuses(&self, tasks: &[TaskRef]) -> Result<Vec<Option<i64>>>;

    /// Oldest first; `None` if there is no such task.
    fn log(&self, task: &TaskRef) -> Result<Option<Vec<LogEntry>>>;

    /// The outer `None`: no such task; the inner one: it has no response.
    fn response(&self, task: &TaskRef) -> Result<Option<Option<Response>>>;

    /// Deletes a task that no worker holds, with all that belongs to it. `NotFound`, `Held`.
    fn delete(&self, task: &TaskRef) -> Result<()>;

    /// `Accepted`, `Scheduled` and `Paused` become `Cancelled`; `Running` gets its request noted;
    /// what has ended stays. Returns where the task stands then. `NotFound`.
    fn cancel(&self, task: &TaskRef, reason: &str) -> Result<TaskStatus>;

    fn stats(&self) -> Result<QueueStats>;

    /// What has not ended, without a look at what has. Reads only.
    fn depth(&self) -> Result<QueueDepth>;

    /// A page of tasks, of no more than `limit`, which is at least one. Reads no more than some
    /// thousand rows; one that makes no sense is passed over.
    fn list(&self, filter: &TaskFilter, limit: usize) -> Result<TaskPage>;

    /// As [`list`](Engine::list), the tasks' numbers alone.
    fn find(&self, filter: &TaskFilter, limit: usize) -> Result<(Vec<i64>, Option<i64>)>;

    /// How many tasks the filter fits, wherever it begins.
    fn count(&self, filter: &TaskFilter) -> Result<u64>;

    /// Does `steering` to those of `tasks` whose status is in `from`, in one transaction. Returns
    /// how many it changed. If the connection broke and the engine tried again, it may leave out of
    /// the count what the first try had changed.
    fn steer(&self, tasks: &[i64], from: Statuses, steering: &Steering) -> Result<u64>;

    /// Pauses the claims of a type's tasks, or lets them go on; without a type, those of all tasks.
    /// `UnknownType`.
    fn set_paused(&self, task_type: Option<&str>, paused: bool) -> Result<()>;

    /// Gives a type these limits in place of others, or takes them away; says whether it had some.
    /// `UnknownType`.
    fn put_limits(&self, task_type: &str, limits: Option<Limits>) -> Result<bool>;

    /// The limits of all types that have some, by name: `None` where they make no sense.
    fn limits(&self) -> Result<Vec<(String, Option<Limits>)>>;

    /// Takes up to `limit` ready tasks of `types` for `worker`: those of higher priority first,
    /// then the older ones. `types` is sorted and names each type once. A type that isn't
    /// registered has no tasks.
    ///
    /// A task that is taken is `Scheduled`, with a new token and a lease. Its log says
    /// [`taken_by`], and `message` behind that. A task stays where it is while its type has as many
    /// at work as it may have, while the order of its key forbids it, or while a limit holds it
    /// back. A row that can't be read doesn't keep others from being taken.
    ///
    /// # Errors
    /// Also if the engine can't tell what was taken, because the answer to the commit was lost.
    fn claim(
        &self,
        worker: &WorkerId,
        types: &[String],
        limit: usize,
        lease: Duration,
        message: &str,
    ) -> Result<Vec<Claimed>>;

    /// Does each of `steps`, in their order, and says of each what became of it. They are
    /// independent of each other: a stale one changes nothing for the rest.
    fn step(&self, steps: Vec<Step>) -> Result<Vec<Stepped>>;

    /// Renews the leases of all tasks that `worker` holds and of which neither the lease nor the
    /// time limit is over, all at once, and returns them. What is not in the answer is lost. A task
    /// that another session has locked may be left as it is, if no worker can take it away
    /// meanwhile: the others don't wait for it.
    fn heartbeat(&self, worker: &WorkerId, lease: Duration) -> Result<Vec<Held>>;

    /// Those of the worker's running tasks whose cancellation was asked for. Reads only.
    fn cancel_requests(&self, worker: &WorkerId) -> Result<Vec<Held>>;

    /// What a task carries. `NotFound` if it was deleted meanwhile; a part that was never stored is
    /// `None`.
    fn load(&self, task: i64, part: Part) -> Result<Option<Vec<u8>>>;

    /// How long it is until a task of `types`, which are sorted, may be claimed: zero if one may be
    /// now, `None` if none waits. Reads only. It leaves out how many of a type may run at once:
    /// nothing tells when a task that runs will end.
    fn next_due(&self, types: &[String]) -> Result<Option<Duration>>;

    /// Takes up to `limit` tasks whose lease or time limit is over away from their workers. A
    /// `Scheduled` task becomes ready again, and no attempt is counted, because its handler hasn't
    /// started. For a `Running` task a lost attempt is counted. It becomes ready again, or `Failed`
    /// beyond the restart limit, or `Cancelled` if that was asked for. A row that can't be read
    /// doesn't keep others from being rescued.
    fn reap(&self, limit: usize) -> Result<Reaped>;

    /// Deletes up to `limit` ended tasks whose retention is over; returns how many it deleted.
    fn prune(&self, limit: usize) -> Result<u64>;

    /// For tests: lets `time` pass. Moves all times of tasks back, except those in their logs, and
    /// the time of schedules forward.
    fn pass_time(&self, time: Duration) -> Result<()>;

    /// The time of schedules: the database's, in milliseconds since 1970, and what has
    /// [passed](Engine::pass_time).
    fn now(&self) -> Result<i64>;

    /// The schema's version in the database, and the newest that this program knows.
    fn schema(&self) -> Result<(i64, i64)>;

    /// Inserts a schedule, or changes the settings of the one of that name. That one stays paused
    /// if it was, and keeps its times if rule and zone are the same.
    fn put_schedule(&self, schedule: Stored) -> Result<()>;

    /// Removes a schedule. `false` if there is none of that name.
    fn remove_schedule(&self, name: &str) -> Result<bool>;

    /// The time of schedules, and all schedules by name. If `due`, only those whose time has come
    /// and that aren't paused. A schedule that can't be read is left out.
    fn schedules(&self, due: bool) -> Result<(i64, Vec<Stored>)>;

    /// Pauses a schedule, or lets it go on at `next`. `false` if there is none of that name.
    fn pause_schedule(&self, name: &str, next: Option<i64>) -> Result<bool>;

    /// Does a firing, and says how many tasks were enqueued. `None`: the schedule is not due at
    /// that time, because another process has fired it, or it was changed. `QueueFull`,
    /// `UnknownType`.
    fn fire(&self, firing: Firing) -> Result<Option<u64>>;

    /// What durable functions need of it.
    fn journal(&self) -> &dyn Journal;

    /// `ReadOnly`, if nothing may be written.
    fn may_write(&self) -> Result<()> {
        Ok(())
    }

    /// For a database's own parts of the room to recognise their engine.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// What the log says of a claim: eight characters will do to tell workers apart.
pub(super) fn taken_by(worker: &str) -> String {
    format!("taken by worker {worker:.8}")
}

/// What stands between that and a message of the worker's.
pub(super) const SAYING: &str = ": ";

/// A task, as its users name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TaskRef {
    pub(super) task_type: String,
    pub(super) identifier: String,
}

/// What a worker gets with a task.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) id: i64,
    pub(super) token: i64,
    pub(super) task_type: String,
    pub(super) identifier: String,
    /// Attempts started before this one.
    pub(super) starts: u32,
    pub(super) failures: u32,
    /// The type's policy.
    pub(super) retry: RetryPolicy,
    /// The input, if it is small enough to come along; else it is [loaded](Engine::load) when asked
    /// for.
    pub(super) input: Option<Vec<u8>>,
    pub(super) has_checkpoint: bool,
    /// The context of the program that enqueued it.
    pub(super) context: Option<String>,
    /// How long it could have started before it was taken.
    pub(super) waited: Duration,
}

/// One thing that a worker does to one task. Cheap to clone, for another try.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) task: i64,
    pub(super) token: i64,
    pub(super) worker: WorkerId,
    pub(super) action: Action,
    /// The handler has finished the task in a transaction of its own. If that was committed, the
    /// step is done; the action is for where it was not.
    pub(super) finished_in: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    /// `Scheduled` -> `Running`; charges the attempt, and begins the time limit. The log says which
    /// attempt it is.
    Start,
    /// `Running` -> `Finished`, with its last message.
    Finish { message: String, response: Option<Arc<Response>> },
    /// `Running` -> `Accepted` after `retry`, or `Failed` without; `Cancelled` if that was asked
    /// for. Counts a failure.
    Fail { reason: String, retry: Option<Duration>, response: Option<Arc<Response>> },
    /// `Running` -> `Paused` until `after` has passed; `Cancelled` if that was asked for. A
    /// checkpoint replaces the one before; none leaves it.
    Pause { message: String, after: Duration, checkpoint: Option<Arc<[u8]>>, response: Option<Arc<Response>> },
    /// As `Pause`, of a durable function.
    Wait { message: String, wait: Arc<Wait> },
    /// `Running` -> `Accepted`, or `Failed` beyond the restart limit; `Cancelled` if that was asked
    /// for. Counts a lost attempt, as the reaper does, whose words about the limit follow the
    /// reason.
    Lose { reason: String },
    /// `Scheduled` -> `Accepted`, as if it had not been claimed, its log aside; the time from which
    /// it could start stays.
    GiveBack { reason: String },
    /// `Running` stays. `None` leaves the progress as it is.
    Note { progress: Option<f32>, message: String },
}

/// How long a durable function waits, and what is stored of that in the same commit.
#[derive(Clone, Debug, Default)]
pub(super) struct Wait {
    /// From the time on at which the pause is stored.
    pub(super) after: Duration,
    /// Until when by the database's clock, which an earlier run has stored: in place of `after`.
    pub(super) until: Option<i64>,
    /// Stored if the task is paused, and not if it is cancelled.
    pub(super) entry: Option<Entry>,
    /// Whether the entry is to say when the pause ends.
    pub(super) is_timed: bool,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl Action {
    /// What the log is to say.
    pub(super) fn words(&self) -> &str {
        match self {
            Action::Start => "",
            Action::Finish { message: words, .. }
            | Action::Fail { reason: words, .. }
            | Action::Pause { message: words, .. }
            | Action::Wait { message: words, .. }
            | Action::Lose { reason: words }
            | Action::GiveBack { reason: words }
            | Action::Note { message: words, .. } => words,
        }
    }

    /// How long the task waits if it goes back; `None` if its time to start stays.
    pub(super) fn delay(&self) -> Option<Duration> {
        match self {
            Action::Fail { retry, .. } => *retry,
            Action::Pause { after, .. } => Some(*after),
            Action::Wait { wait, .. } => Some(wait.after),
            Action::Lose { .. } => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// Whether the task can't start at once if it goes back.
    pub(super) fn is_delayed(&self) -> bool {
        self.wait().is_some_and(|wait| wait.until.is_some()) || self.delay().is_some_and(|delay| !delay.is_zero())
    }

    pub(super) fn wait(&self) -> Option<&Wait> {
        match self {
            Action::Wait { wait, .. } => Some(wait),
            _ => None,
        }
    }

    pub(super) fn response(&self) -> Option<&Response> {
        match self {
            Action::Finish { response, .. } | Action::Fail { response, .. } | Action::Pause { response, .. } => {
                response.as_deref()
            }
            _ => None,
        }
    }

    pub(super) fn checkpoint(&self) -> Option<&[u8]> {
        match self {
            Action::Pause { checkpoint, .. } => checkpoint.as_deref(),
            _ => None,
        }
    }

    pub(super) fn progress(&self) -> Option<f32> {
        match self {
            Action::Note { progress, .. } => *progress,
            _ => None,
        }
    }
}

#[cfg(feature = "postgres")]
impl Step {
    /// About how much of it there is to send, in bytes.
    pub(super) fn size(&self) -> usize {
        let (response, checkpoint) = (self.action.response(), self.action.checkpoint());
        let entry = self.action.wait().and_then(|wait| wait.entry.as_ref());
        self.action.words().len()
            + entry.map_or(0, Entry::size)
            + response.map_or(0, |response| response.body.len())
            + checkpoint.map_or(0, <[u8]>::len)
    }
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stepped {
    /// It is done, and the task stands there now.
    Done(TaskStatus),
    /// The worker no longer holds the task. Nothing was written.
    Stale,
}

/// A task that a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: i64,
    pub(super) token: i64,
    pub(super) cancel_requested: bool,
}

/// What a task may carry, its response aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Input,
    Checkpoint,
}

/// What the reaper did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reaped {
    pub(super) returned: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    /// Rows that could not be rescued, because what they say makes no sense.
    pub(super) bad: u64,
}

impl Reaped {
    pub(super) fn total(&self) -> u64 {
        self.returned + self.failed + self.cancelled + self.bad
    }
}
