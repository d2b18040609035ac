//! What all tasks of one kind have in common.

use std::time::Duration;

use super::error::{Result, TaskError};
use crate::backoff::RetryPolicy;

/// The settings of a task type, kept in the database. What its tasks do is the worker's:
/// [`WorkerBuilder::handle`](super::WorkerBuilder::handle).
///
/// ```
/// use fulmar::tasks::{RetryPolicy, TaskType};
/// use std::time::Duration;
///
/// let sums = TaskType::new("SequenceSum")
///     .time_limit(Duration::from_secs(60))
///     .retention(Duration::from_secs(600))
///     .restart_limit(3)
///     .retry(RetryPolicy::times(5))
///     .max_concurrent(4);
/// assert_eq!(sums.name(), "SequenceSum");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a task type does nothing until it is registered"]
pub struct TaskType {
    pub(super) name: String,
    pub(super) time_limit: Option<Duration>,
    pub(super) retention: Option<Duration>,
    pub(super) restart_limit: u32,
    pub(super) retry: RetryPolicy,
    pub(super) max_concurrent: Option<u32>,
}

impl TaskType {
    /// A type without a time limit, kept for ever, restarted up to 3 times, not retried, without a
    /// limit at once.
    pub fn new(name: impl Into<String>) -> TaskType {
        let (time_limit, retention, max_concurrent) = (None, None, None);
        TaskType {
            name: name.into(),
            time_limit,
            retention,
            restart_limit: 3,
            retry: RetryPolicy::never(),
            max_concurrent,
        }
    }

    /// How long one attempt may take from its start. Then it is lost, like one whose worker died:
    /// the task goes back to the queue, and its handler is told. It says nothing about the lease,
    /// which is shorter and renewed. Defaults to no limit; whole milliseconds count.
    pub fn time_limit(mut self, limit: impl Into<Option<Duration>>) -> TaskType {
        self.time_limit = limit.into();
        self
    }

    /// How long an ended task is kept before it is deleted; a child of a durable function no less
    /// than until its parent has read what it gave. Defaults to for ever.
    pub fn retention(mut self, time: impl Into<Option<Duration>>) -> TaskType {
        self.retention = time.into();
        self
    }

    /// How many lost attempts are made up for. One more, and the task has failed. A pause that is
    /// reached, or a wait of a durable function, has the count begin anew. Defaults to 3.
    pub fn restart_limit(mut self, restarts: u32) -> TaskType {
        self.restart_limit = restarts;
        self
    }

    /// What happens after a handler's error or panic. Attempts that were lost with their worker
    /// count for the [restart limit](TaskType::restart_limit) instead; this count, too, begins anew
    /// with a pause. Defaults to [`RetryPolicy::never`].
    pub fn retry(mut self, policy: RetryPolicy) -> TaskType {
        self.retry = policy;
        self
    }

    /// How many tasks of this type may be held by workers at once, on all machines together.
    /// Defaults to no limit.
    pub fn max_concurrent(mut self, tasks: impl Into<Option<u32>>) -> TaskType {
        self.max_concurrent = tasks.into();
        self
    }

    /// The type's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn check(&self) -> Result<()> {
        check_name("the name of a task type", &self.name)?;
        if self.max_concurrent == Some(0) {
            return Err(TaskError::Invalid(format!(
                "none of type `{}` at once would never run: use 1 or more",
                self.name
            )));
        }
        Ok(())
    }
}

/// The longest name, identifier or key, in bytes.
const LONGEST_NAME: usize = 512;

/// Names are text that every database and log can hold.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > LONGEST_NAME {
        let bytes = name.len();
        return Err(TaskError::Invalid(format!("{what} has {bytes} bytes: use 1 to {LONGEST_NAME}")));
    }
    if name.contains(char::is_control) {
        return Err(TaskError::Invalid(format!("{what} has a control character: leave it out")));
    }
    Ok(())
}
