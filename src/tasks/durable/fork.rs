//! What is done to functions from outside: events, and running one again from a step on.

use serde::Serialize;

use super::function::numbered;
use crate::tasks::engine::{Part, TaskRef};
use crate::tasks::error::{Result, TaskError};
use crate::tasks::handle::TaskHandle;
use crate::tasks::new_task::{NewTask, to_json};
use crate::tasks::queue::TaskQueue;
use crate::tasks::task_type::check_name;

impl TaskQueue {
    /// Sends an event to a task, for [`event`](super::Durable::event): kept until the function asks
    /// for it, in the order in which events of that name came. Each is taken once.
    ///
    /// # Errors
    /// [`TaskError::NotFound`]; [`TaskError::WrongStatus`] if the task has ended;
    /// [`TaskError::TooLarge`]; [`TaskError::Invalid`] for a name that is none; those of the
    /// database.
    pub fn send_event(
        &self,
        task_type: &str,
        identifier: &str,
        name: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<()> {
        self.send(task_type, identifier, name, None, value).map(drop)
    }

    /// As [`send_event`](TaskQueue::send_event), once for each `key`: false if an event of that
    /// name and key was sent before.
    ///
    /// # Errors
    /// Those of [`send_event`](TaskQueue::send_event).
    pub fn send_event_once(
        &self,
        task_type: &str,
        identifier: &str,
        name: &str,
        key: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<bool> {
        check_name("the key of an event", key)?;
        self.send(task_type, identifier, name, Some(key), value)
    }

    fn send(
        &self,
        task_type: &str,
        identifier: &str,
        name: &str,
        key: Option<&str>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<bool> {
        self.engine().may_write()?;
        check_name("the name of an event", name)?;
        let body = to_json(value).map_err(|why| why.error("event", "the event"))?;
        let task = TaskRef { task_type: task_type.to_owned(), identifier: identifier.to_owned() };
        self.engine().journal().send_event(&task, name, key, &body)
    }

    /// Runs a durable function again as the new task `fork`, from the step `step` on. The new task
    /// begins with copies of all results that were stored before that step; the old task stays as
    /// it is, with its log and its steps. `number` says which use of the name is meant, from 1.
    /// Events that the old task took before that step are among the copies; send it later ones
    /// anew.
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")] {
    /// # use fulmar::tasks::{TaskError, TaskQueue};
    /// # let queue = TaskQueue::open("queue.db")?;
    /// let again = queue.fork("campaign", "europe", "book", 1, "europe-2")?;
    /// # }
    /// # Ok::<(), fulmar::tasks::TaskError>(())
    /// ```
    ///
    /// # Errors
    /// [`TaskError::NotFound`]; [`TaskError::Invalid`] if it has stored no such step; those of
    /// [`enqueue`](TaskQueue::enqueue).
    pub fn fork(&self, task_type: &str, identifier: &str, step: &str, number: u32, fork: &str) -> Result<TaskHandle> {
        self.engine().may_write()?;
        let (journal, task) =
            (self.engine().journal(), TaskRef { task_type: task_type.into(), identifier: identifier.into() });
        let missing = || TaskError::NotFound { task_type: task_type.into(), identifier: identifier.into() };
        let id = journal.find(&task)?.ok_or_else(missing)?;
        let (_, entries) = journal.steps(id)?;
        let number = i64::from(number).saturating_sub(1);
        let from = entries.iter().find(|entry| entry.name == step && entry.number == number).ok_or_else(|| {
            TaskError::Invalid(format!(
                "the task `{identifier}` of type `{task_type}` has stored no step {}",
                numbered(step, number)
            ))
        })?;
        let input = self.engine().load(id, Part::Input)?.unwrap_or_default();
        let message = format!("forked from `{identifier}` at {}", numbered(step, number));
        let new = NewTask::new(task_type, fork).input_bytes(input).message(message);
        if let [new] = &*self.checked([new])? {
            journal.copy(id, new, from.ord)?;
        }
        Ok(self.task(task_type, fork))
    }
}
