//! One task in the hands of a worker of one's own making.

use std::time::Duration;

use super::engine::{Action, Claimed};
use super::error::{Result, TaskError};
use super::handler::{Handler, TaskContext};
use super::queue::TaskQueue;
use super::status::TaskStatus;
use super::worker_id::WorkerId;

/// A task that a worker took with [`TaskQueue::dequeue`]. Every call is fenced: once the lease is
/// over, by the database's clock, it is [`TaskError::Stale`] and changes nothing, even if no other
/// worker has the task yet. Only [`give_back`](Claim::give_back) and [`lose`](Claim::lose) do what
/// they say until the lease is taken away. Dropping it leaves the task to the lease.
#[derive(Debug)]
pub struct Claim {
    task: TaskContext,
}

impl Claim {
    pub(super) fn new(queue: TaskQueue, worker: WorkerId, claimed: Claimed) -> Claim {
        Claim { task: TaskContext::new(queue, worker, claimed) }
    }

    /// The task, as its handler sees it.
    pub fn task(&self) -> &TaskContext {
        &self.task
    }

    /// Starts it: from now on the attempt counts, and its time limit runs.
    ///
    /// # Errors
    /// [`TaskError::Stale`], as of all that follow, also if it was started before; those of the
    /// database.
    pub fn start(&self) -> Result<()> {
        self.task.act(Action::Start).map(drop)
    }

    /// Ends the attempt well, with what was stored in [`task`](Claim::task); or as that was told to
    /// fail or to pause.
    ///
    /// # Errors
    /// Those of [`start`](Claim::start), also if it was not started.
    pub fn finish(&self) -> Result<TaskStatus> {
        let outcome = self.task.outcome(Ok(()));
        self.task.act(outcome)
    }

    /// Ends the attempt with an error: the task is retried as its type says, or has failed. If an
    /// earlier call said that the lease is lost, it [gives the task up](Claim::lose) instead.
    ///
    /// # Errors
    /// Those of [`finish`](Claim::finish).
    pub fn fail(&self, reason: &str) -> Result<TaskStatus> {
        let outcome = self.task.outcome(Err(reason.to_owned()));
        self.task.act(outcome)
    }

    /// Gives an attempt up whose outcome is not known, or whose end can't be written: it
    /// is charged as lost, not as failed. The task goes back to the queue at once, or has failed
    /// beyond its type's restart limit, as if its worker had died.
    ///
    /// # Errors
    /// Those of [`finish`](Claim::finish).
    pub fn lose(&self, reason: &str) -> Result<TaskStatus> {
        self.task.act(Action::Lose { reason: super::new_task::clean(reason) })
    }

    /// Starts it, runs `handler`, and ends the attempt as that says.
    ///
    /// Any thread may call this. A cancel of the task interrupts the handler, its waits and calls,
    /// as in a [`Worker`](super::Worker): when [`renew`](Claim::renew), which another thread calls,
    /// finds it. So does a lost lease. Inside an operation of an executor, that operation's cancel
    /// interrupts it as well, and the task goes back to the queue. For calls that the crate knows
    /// nothing of there is [`on_cancel`](crate::on_cancel).
    ///
    /// ```standalone_crate
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{NewTask, TaskContext, TaskQueue, TaskStatus, TaskType, WorkerId};
    /// use std::time::Duration;
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-claim-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// let queue = TaskQueue::open(folder.join("queue.db"))?;
    /// queue.register(TaskType::new("nap"))?;
    /// let (task, lease) = (queue.enqueue(NewTask::new("nap", "one"))?, Duration::from_secs(60));
    /// let claim = queue.dequeue(&WorkerId::new(), &["nap"], 1, lease)?.pop().expect("it is ready");
    /// let (started, starts) = std::sync::mpsc::channel();
    /// let nap = move |_: &TaskContext| {
    ///     started.send(()).ok();
    ///     fulmar::sleep(Duration::from_secs(3_600))
    /// };
    /// let ended = std::thread::scope(|scope| {
    ///     let run = scope.spawn(|| claim.run(&nap));
    ///     starts.recv().expect("it starts");
    ///     task.cancel()?;
    ///     claim.renew(lease)?; // Again and again, well before the lease is over.
    ///     run.join().expect("no panic")
    /// })?;
    /// assert_eq!(ended, TaskStatus::Cancelled);
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`start`](Claim::start). An error of the handler is none here: it is the task's.
    pub fn run(&self, handler: &impl Handler) -> Result<TaskStatus> {
        self.run_dyn(handler)
    }

    pub(super) fn run_dyn(&self, handler: &dyn Handler) -> Result<TaskStatus> {
        self.start()?;
        let outcome = self.task.attempt_with(handler);
        self.task.act(outcome)
    }

    /// Puts a task back that was not started. No attempt is charged.
    ///
    /// # Errors
    /// Those of [`start`](Claim::start).
    pub fn give_back(&self, reason: &str) -> Result<()> {
        self.task.act(Action::GiveBack { reason: super::new_task::clean(reason) }).map(drop)
    }

    /// Keeps all tasks that this claim's worker holds for `lease` from now on.
    ///
    /// # Errors
    /// [`TaskError::Stale`]: this task is no longer among them.
    pub fn renew(&self, lease: Duration) -> Result<()> {
        let held = self.task.queue().engine().heartbeat(self.task.worker(), lease)?;
        let fence = (self.task.id(), self.task.fence());
        match held.iter().find(|held| (held.id, held.token) == fence) {
            Some(held) => {
                if held.cancel_requested {
                    self.task.set_cancelled().interrupt();
                }
                Ok(())
            }
            None => {
                self.task.set_lost().interrupt();
                Err(TaskError::Stale { task: self.task.id() })
            }
        }
    }
}
