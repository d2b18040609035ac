//! Steering: what an operator does to tasks, one or by filter, and to whole types.
//!
//! What a filter fits is changed in batches, each of them one short transaction, whose size follows
//! how long the last one took: so no other session is held up for longer than a few dozen
//! milliseconds, however many tasks there are.

use std::time::{Duration, Instant};

use super::engine::TaskRef;
use super::error::{Result, TaskError};
use super::look::{Statuses, TaskFilter};
use super::new_task::{Start, clean};
use super::queue::TaskQueue;
use super::status::TaskStatus;
use super::transition::{Change, Facts, transition};

/// How long a batch is to take.
const BATCH_TIME: Duration = Duration::from_millis(20);

/// How many tasks the first batch has, and any batch at most.
const FIRST_BATCH: usize = 100;
const LARGEST_BATCH: usize = 2_000;

/// Something that is done to tasks.
#[derive(Clone, Debug)]
pub(super) enum Steering {
    /// `Failed` and `Cancelled` -> `Accepted`. The counts of failures and of lost attempts begin
    /// anew, and a response goes; the log stays. With a key the task is the last in its order,
    /// under a new number.
    Retry { reason: String },
    /// As [`Engine::cancel`](super::engine::Engine::cancel).
    Cancel { reason: String },
    /// All that no worker holds.
    Delete,
    /// Of what waits.
    Priority(i16),
    /// Of what waits.
    Start(Start),
}

impl Steering {
    /// Those that it may be done to.
    pub(super) fn from(&self) -> Statuses {
        use TaskStatus::{Accepted, Cancelled, Failed, Finished, Paused};
        let allows = |change| {
            let allows = |status: &TaskStatus| transition(change, Facts::at(*status)).is_some();
            Statuses::of(TaskStatus::ALL.into_iter().filter(allows))
        };
        match self {
            Steering::Retry { .. } => allows(Change::Retry),
            Steering::Cancel { .. } => allows(Change::Cancel),
            Steering::Delete => Statuses::of([Accepted, Paused, Finished, Failed, Cancelled]),
            Steering::Priority(_) | Steering::Start(_) => Statuses::of([Accepted, Paused]),
        }
    }

    /// What the log says of it, where the caller says nothing.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn words(&self) -> String {
        match self {
            Steering::Retry { reason } | Steering::Cancel { reason } => reason.clone(),
            Steering::Delete => String::new(),
            Steering::Priority(priority) => format!("its priority is {priority} now"),
            Steering::Start(_) => "it has another time to start now".into(),
        }
    }
}

impl TaskQueue {
    /// Has a task that failed or was cancelled run again, at once: it is `Accepted`, its counts of
    /// failures and lost attempts begin anew, so that it has all of its type's retries, and what it
    /// had stored as a response is gone. Its log, its checkpoint and the steps of a
    /// [durable function](super::durable) stay, a step that failed for good included: to have that
    /// run anew, [`fork`](TaskQueue::fork) the task from it. If it has a key, it goes
    /// behind the others that wait there, and gets a new number. The queue's capacity doesn't hold
    /// it up.
    ///
    /// # Errors
    /// [`TaskError::NotFound`]; [`TaskError::WrongStatus`] for one that neither failed nor was
    /// cancelled.
    pub fn retry(&self, task_type: &str, identifier: &str) -> Result<()> {
        self.steer_one(task_type, identifier, "retried", &Steering::Retry { reason: RETRIED.into() })
    }

    /// [Retries](TaskQueue::retry) all tasks that a filter fits; returns how many. Others may go on
    /// meanwhile, and if it fails midway, what it has done is done.
    ///
    /// # Errors
    /// Those of the database.
    pub fn retry_all(&self, filter: &TaskFilter) -> Result<u64> {
        self.steer_all(filter, &Steering::Retry { reason: RETRIED.into() })
    }

    /// [Cancels](TaskQueue::cancel) all tasks that a filter fits and that have not ended: at once
    /// what has not started, and what runs is told. Returns how many, as
    /// [`retry_all`](TaskQueue::retry_all) does.
    ///
    /// # Errors
    /// Those of the database.
    pub fn cancel_all(&self, filter: &TaskFilter, reason: &str) -> Result<u64> {
        let cancelled = self.steer_all(filter, &Steering::Cancel { reason: clean(reason) })?;
        self.cancel_children(None, "its parent was cancelled")?;
        Ok(cancelled)
    }

    /// [Deletes](TaskQueue::delete) all tasks that a filter fits and that no worker holds, waiting
    /// ones included. Returns how many, as [`retry_all`](TaskQueue::retry_all) does.
    ///
    /// # Errors
    /// Those of the database.
    pub fn delete_all(&self, filter: &TaskFilter) -> Result<u64> {
        self.steer_all(filter, &Steering::Delete)
    }

    /// Gives a task that waits, or is paused, another priority.
    ///
    /// # Errors
    /// [`TaskError::NotFound`]; [`TaskError::WrongStatus`] for one that a worker holds, or that has
    /// ended.
    pub fn set_priority(&self, task_type: &str, identifier: &str, priority: i16) -> Result<()> {
        self.steer_one(task_type, identifier, "given another priority", &Steering::Priority(priority))
    }

    /// Gives all tasks that a filter fits and that wait, or are paused, another priority. Returns
    /// how many, as [`retry_all`](TaskQueue::retry_all) does.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_priority_all(&self, filter: &TaskFilter, priority: i16) -> Result<u64> {
        self.steer_all(filter, &Steering::Priority(priority))
    }

    /// Has a task that waits, or is paused, start no earlier than `delay` from now; zero is at
    /// once. Its place in the order of its key stays.
    ///
    /// # Errors
    /// [`TaskError::NotFound`]; [`TaskError::WrongStatus`] for one that a worker holds, or that has
    /// ended.
    pub fn reschedule(&self, task_type: &str, identifier: &str, delay: Duration) -> Result<()> {
        self.steer_one(task_type, identifier, "rescheduled", &Steering::Start(Start::After(delay)))
    }

    /// [Reschedules](TaskQueue::reschedule) all tasks that a filter fits and that wait, or are
    /// paused. Returns how many, as [`retry_all`](TaskQueue::retry_all) does.
    ///
    /// # Errors
    /// Those of the database.
    pub fn reschedule_all(&self, filter: &TaskFilter, delay: Duration) -> Result<u64> {
        self.steer_all(filter, &Steering::Start(Start::After(delay)))
    }

    /// Has no worker, on any machine, take tasks of a type until it is
    /// [resumed](TaskQueue::resume_type). What was taken before goes on; enqueuing does, too. It
    /// outlives restarts of everything.
    ///
    /// # Errors
    /// [`TaskError::UnknownType`].
    pub fn pause_type(&self, task_type: &str) -> Result<()> {
        self.engine().set_paused(Some(task_type), true)
    }

    /// Ends [`pause_type`](TaskQueue::pause_type); no error if it wasn't paused.
    ///
    /// # Errors
    /// [`TaskError::UnknownType`].
    pub fn resume_type(&self, task_type: &str) -> Result<()> {
        self.engine().set_paused(Some(task_type), false)
    }

    /// As [`pause_type`](TaskQueue::pause_type), for all types, those that are registered later
    /// included. Types that are paused by themselves stay so after [`resume`](TaskQueue::resume).
    ///
    /// # Errors
    /// Those of the database.
    pub fn pause(&self) -> Result<()> {
        self.engine().set_paused(None, true)
    }

    /// Ends [`pause`](TaskQueue::pause).
    ///
    /// # Errors
    /// Those of the database.
    pub fn resume(&self) -> Result<()> {
        self.engine().set_paused(None, false)
    }

    fn steer_one(&self, task_type: &str, identifier: &str, what: &'static str, steering: &Steering) -> Result<()> {
        let info = self.info(task_type, identifier)?;
        let from = steering.from();
        if from.has(info.status) && self.engine().steer(&[info.id], from, steering)? == 1 {
            return Ok(());
        }
        // It may have changed since that look.
        let TaskRef { task_type, identifier } =
            TaskRef { task_type: task_type.to_owned(), identifier: identifier.to_owned() };
        let status = self.status(&task_type, &identifier)?;
        Err(TaskError::WrongStatus { task_type, identifier, status, what })
    }

    /// Does `steering` to all tasks that the filter fits and whose status allows it, batch by
    /// batch, in the order of their numbers. An empty filter fits all tasks. Returns how many it
    /// changed. If a batch fails, the batches before it stay done, and their count is lost.
    fn steer_all(&self, filter: &TaskFilter, steering: &Steering) -> Result<u64> {
        let from = steering.from();
        let mut rest = filter.among(from);
        let from = rest.statuses.unwrap_or(from);
        let (mut done, mut size) = (0, FIRST_BATCH);
        loop {
            let (tasks, next) = self.engine().find(&rest, size)?;
            if !tasks.is_empty() {
                let start = Instant::now();
                done += self.engine().steer(&tasks, from, steering)?;
                size = next_size(size, tasks.len(), start.elapsed());
            }
            match next {
                Some(next) => rest = rest.after(next),
                None => return Ok(done),
            }
        }
    }
}

const RETRIED: &str = "retried by hand";

/// How many tasks the next batch has, after one of `done` took `time`: at most twice as many as the
/// last one.
fn next_size(size: usize, done: usize, time: Duration) -> usize {
    let fitting = done as f64 * BATCH_TIME.as_secs_f64() / time.as_secs_f64().max(1e-6);
    // A float beyond the range becomes its end.
    (fitting as usize).clamp(1, size.saturating_mul(2).min(LARGEST_BATCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_slowly_and_shrink_at_once() {
        assert_eq!(next_size(100, 100, Duration::from_millis(1)), 200);
        assert_eq!(next_size(100, 100, Duration::ZERO), 200);
        assert_eq!(next_size(1_600, 1_600, Duration::from_millis(1)), LARGEST_BATCH);
        assert_eq!(next_size(1_000, 1_000, BATCH_TIME * 10), 100);
        assert_eq!(next_size(10, 10, Duration::from_secs(600)), 1);
        assert_eq!(next_size(100, 5, Duration::from_millis(5)), 20, "few of many say how long one takes");
    }
}
