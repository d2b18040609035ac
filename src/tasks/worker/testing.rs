//! For tests of programs that use the queue: handlers on the test's own thread, and time that
//! passes at its word.

use std::time::Duration;

use super::super::error::{Result, TaskError};
use super::super::queue::TaskQueue;
use super::super::status::TaskStatus;
use super::WorkerBuilder;

/// More attempts than that in one call are a task that is due again and again.
const MOST_ATTEMPTS: usize = 1_000;

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempted {
    /// The task's type.
    pub task_type: String,
    /// Its identifier.
    pub identifier: String,
    /// Where the attempt has left it.
    pub status: TaskStatus,
}

impl WorkerBuilder {
    /// Runs all tasks that may start now, one after the other, on this thread, those included that
    /// their handlers enqueue and those of schedules whose time has come; returns when none is
    /// left. Nothing else starts, and no time passes by itself: for tests, with
    /// [`pass_time`](TaskQueue::pass_time) for what is due later.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{NewTask, RetryPolicy, TaskContext, TaskError, TaskQueue, TaskStatus, TaskType, Worker};
    /// use std::time::Duration;
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-due-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
    /// let queue = TaskQueue::open(folder.join("queue.db"))?;
    /// queue.register(TaskType::new("mail").retry(RetryPolicy::times(1).first(Duration::from_secs(600))))?;
    /// let handlers = Worker::builder(&queue).handle("mail", |task: &TaskContext| {
    ///     if task.failures() == 0 { Err("connection refused") } else { Ok(()) }
    /// });
    ///
    /// queue.enqueue(NewTask::new("mail", "order-1"))?;
    /// assert_eq!(handlers.run_due()?[0].status, TaskStatus::Accepted);
    /// assert!(handlers.run_due()?.is_empty(), "its next attempt is not due");
    /// queue.pass_time(Duration::from_secs(3_600))?;
    /// assert_eq!(handlers.run_due()?[0].status, TaskStatus::Finished);
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), fulmar::tasks::TaskError>(())
    /// ```
    ///
    /// # Errors
    /// Those of the database; [`TaskError::Invalid`] after 1,000 attempts: some task is due again
    /// and again. An error of a handler is none here: it is the task's.
    pub fn run_due(&self) -> Result<Vec<Attempted>> {
        let types: Vec<&str> = self.handlers.keys().map(|name| &**name).collect();
        let mut attempted = Vec::new();
        self.queue.fire_schedules()?;
        while let Some(claim) = self.queue.dequeue(&self.id, &types, 1, self.lease)?.pop() {
            let (task_type, identifier) = (claim.task().task_type().to_owned(), claim.task().identifier().to_owned());
            if attempted.len() == MOST_ATTEMPTS {
                claim.give_back("a test had enough")?;
                return Err(TaskError::Invalid(format!(
                    "{MOST_ATTEMPTS} attempts, and task `{identifier}` of type `{task_type}` is due: does it retry or pause \
                     without a delay for ever?"
                )));
            }
            // What was claimed is of one of these types.
            let Some(handler) = self.handlers.get(&task_type) else { continue };
            let status = claim.run_dyn(&**handler)?;
            attempted.push(Attempted { task_type, identifier, status });
        }
        Ok(attempted)
    }
}

impl TaskQueue {
    /// Lets time pass for all tasks in the database, as if it had been waited for: times to start
    /// come, leases and time limits end, retention is over, schedules are due. For tests, on a
    /// database of their own: it moves the times of all tasks back, of which only their logs are
    /// not aware, and the clock of schedules forth. Workers, and [`tidy`](TaskQueue::tidy), act on
    /// it the next time they look.
    ///
    /// # Errors
    /// Those of the database.
    pub fn pass_time(&self, time: Duration) -> Result<()> {
        self.engine().pass_time(time)
    }
}
