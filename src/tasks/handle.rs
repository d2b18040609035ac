//! One task, for the program that enqueued it or asks for it.

use std::time::Duration;

use super::engine::TaskRef;
use super::error::Result;
use super::queue::TaskQueue;
use super::status::{LogEntry, Response, TaskInfo, TaskStatus};
use super::unique::Accepted;

/// Names a task of a queue. It holds nothing of it: drop it, and the task goes on.
#[derive(Clone, Debug)]
pub struct TaskHandle {
    queue: TaskQueue,
    id: Option<i64>,
    name: TaskRef,
    existed: bool,
}

impl TaskHandle {
    pub(super) fn new(queue: TaskQueue, name: TaskRef) -> TaskHandle {
        TaskHandle { queue, id: None, name, existed: false }
    }

    /// Of a task that was to be enqueued by this name.
    pub(super) fn accepted(queue: TaskQueue, task: Accepted, mut name: TaskRef) -> TaskHandle {
        let existed = task.existing.is_some();
        if let Some(identifier) = task.existing {
            name.identifier = identifier;
        }
        TaskHandle { queue, id: Some(task.id), name, existed }
    }

    /// Whether its enqueuing found it in the place of the task that was to be enqueued, because of
    /// its [`Unique`](super::Unique).
    pub fn existed(&self) -> bool {
        self.existed
    }

    /// The task's number, if this handle came from its enqueuing. A [retry](TaskQueue::retry) of a
    /// task with a key gives it another one.
    pub fn id(&self) -> Option<i64> {
        self.id
    }

    pub(super) fn name(&self) -> &TaskRef {
        &self.name
    }

    /// The task's type.
    pub fn task_type(&self) -> &str {
        &self.name.task_type
    }

    /// The task's identifier.
    pub fn identifier(&self) -> &str {
        &self.name.identifier
    }

    /// Where it stands.
    ///
    /// # Errors
    /// [`TaskError::NotFound`](super::TaskError::NotFound), as of all that follow.
    pub fn status(&self) -> Result<TaskStatus> {
        self.queue.status(&self.name.task_type, &self.name.identifier)
    }

    /// All that is known of it.
    ///
    /// # Errors
    /// Those of [`status`](TaskHandle::status).
    pub fn info(&self) -> Result<TaskInfo> {
        self.queue.info(&self.name.task_type, &self.name.identifier)
    }

    /// Waits until it has ended: [`TaskQueue::wait`].
    ///
    /// # Errors
    /// Those of [`TaskQueue::wait`].
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<TaskStatus> {
        self.queue.wait(&self.name.task_type, &self.name.identifier, timeout)
    }

    /// Its log, oldest first.
    ///
    /// # Errors
    /// Those of [`status`](TaskHandle::status).
    pub fn log(&self) -> Result<Vec<LogEntry>> {
        self.queue.log(&self.name.task_type, &self.name.identifier)
    }

    /// What its handler stored.
    ///
    /// # Errors
    /// Those of [`status`](TaskHandle::status).
    pub fn response(&self) -> Result<Option<Response>> {
        self.queue.response(&self.name.task_type, &self.name.identifier)
    }

    /// Cancels it: [`TaskQueue::cancel`].
    ///
    /// # Errors
    /// Those of [`TaskQueue::cancel`].
    pub fn cancel(&self) -> Result<TaskStatus> {
        self.queue.cancel(&self.name.task_type, &self.name.identifier)
    }

    /// Cancels it, with a reason for its log.
    ///
    /// # Errors
    /// Those of [`cancel`](TaskHandle::cancel).
    pub fn cancel_because(&self, reason: &str) -> Result<TaskStatus> {
        self.queue.cancel_because(&self.name, reason)
    }

    /// Has it run again if it failed or was cancelled: [`TaskQueue::retry`].
    ///
    /// # Errors
    /// Those of [`TaskQueue::retry`].
    pub fn retry(&self) -> Result<()> {
        self.queue.retry(&self.name.task_type, &self.name.identifier)
    }

    /// Deletes it: [`TaskQueue::delete`].
    ///
    /// # Errors
    /// Those of [`TaskQueue::delete`].
    pub fn delete(&self) -> Result<()> {
        self.queue.delete(&self.name.task_type, &self.name.identifier)
    }
}
