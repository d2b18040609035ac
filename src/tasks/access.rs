//! What a program may do with a queue: make it, change it, or only look at it.

use std::any::Any;
use std::time::Duration;

use super::depth::QueueDepth;
use super::durable::Journal;
use super::engine::{Claimed, Engine, Held, Part, Reaped, Step, Stepped, TaskRef};
use super::error::{Result, TaskError};
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Access {
    /// Makes the queue if it isn't there.
    #[default]
    Create,
    /// It has to be there.
    Existing,
    /// It has to be there, and stays as it is.
    ReadOnly,
}

impl Access {
    /// What to do with a queue of schema `found`, 0 being none: true to bring it to `newest`.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn migrates(self, found: i64, newest: i64, place: impl FnOnce() -> String) -> Result<bool> {
        match self {
            _ if found > newest => Err(TaskError::SchemaTooNew { found, known: newest }),
            Access::Existing | Access::ReadOnly if found == 0 => Err(TaskError::NoQueue { place: place() }),
            Access::ReadOnly if found < newest => Err(TaskError::SchemaTooOld { found, known: newest }),
            _ => Ok(found < newest),
        }
    }
}

/// An engine that refuses whatever would write.
#[derive(Debug)]
pub(super) struct ReadOnly<E>(pub(super) E);

impl<E: Engine> Engine for ReadOnly<E> {
    fn signal(&self) -> &Signal {
        self.0.signal()
    }

    fn put_type(&self, _: TaskType, _: bool) -> Result<()> {
        Err(TaskError::ReadOnly)
    }

    fn remove_type(&self, _: &str, _: bool) -> Result<()> {
        Err(TaskError::ReadOnly)
    }

    fn types(&self) -> Result<Vec<TaskType>> {
        self.0.types()
    }

    fn set_capacity(&self, _: Option<u64>) -> Result<()> {
        Err(TaskError::ReadOnly)
    }

    fn enqueue(&self, _: Vec<Checked>) -> Result<Vec<Accepted>> {
        Err(TaskError::ReadOnly)
    }

    fn info(&self, task: &TaskRef) -> Result<Option<TaskInfo>> {
        self.0.info(task)
    }

    fn statuses(&self, tasks: &[TaskRef]) -> Result<Vec<Option<i64>>> {
        self.0.statuses(tasks)
    }

    fn log(&self, task: &TaskRef) -> Result<Option<Vec<LogEntry>>> {
        self.0.log(task)
    }

    fn response(&self, task: &TaskRef) -> Result<Option<Option<Response>>> {
        self.0.response(task)
    }

    fn delete(&self, _: &TaskRef) -> Result<()> {
        Err(TaskError::ReadOnly)
    }

    fn cancel(&self, _: &TaskRef, _: &str) -> Result<TaskStatus> {
        Err(TaskError::ReadOnly)
    }

    fn stats(&self) -> Result<QueueStats> {
        self.0.stats()
    }

    fn depth(&self) -> Result<QueueDepth> {
        self.0.depth()
    }

    fn list(&self, filter: &TaskFilter, limit: usize) -> Result<TaskPage> {
        self.0.list(filter, limit)
    }

    fn find(&self, filter: &TaskFilter, limit: usize) -> Result<(Vec<i64>, Option<i64>)> {
        self.0.find(filter, limit)
    }

    fn count(&self, filter: &TaskFilter) -> Result<u64> {
        self.0.count(filter)
    }

    fn steer(&self, _: &[i64], _: Statuses, _: &Steering) -> Result<u64> {
        Err(TaskError::ReadOnly)
    }

    fn set_paused(&self, _: Option<&str>, _: bool) -> Result<()> {
        Err(TaskError::ReadOnly)
    }

    fn put_limits(&self, _: &str, _: Option<Limits>) -> Result<bool> {
        Err(TaskError::ReadOnly)
    }

    fn limits(&self) -> Result<Vec<(String, Option<Limits>)>> {
        self.0.limits()
    }

    fn claim(&self, _: &WorkerId, _: &[String], _: usize, _: Duration, _: &str) -> Result<Vec<Claimed>> {
        Err(TaskError::ReadOnly)
    }

    fn step(&self, _: Vec<Step>) -> Result<Vec<Stepped>> {
        Err(TaskError::ReadOnly)
    }

    fn heartbeat(&self, _: &WorkerId, _: Duration) -> Result<Vec<Held>> {
        Err(TaskError::ReadOnly)
    }

    fn cancel_requests(&self, worker: &WorkerId) -> Result<Vec<Held>> {
        self.0.cancel_requests(worker)
    }

    fn load(&self, task: i64, part: Part) -> Result<Option<Vec<u8>>> {
        self.0.load(task, part)
    }

    fn next_due(&self, types: &[String]) -> Result<Option<Duration>> {
        self.0.next_due(types)
    }

    fn reap(&self, _: usize) -> Result<Reaped> {
        Err(TaskError::ReadOnly)
    }

    fn prune(&self, _: usize) -> Result<u64> {
        Err(TaskError::ReadOnly)
    }

    fn pass_time(&self, _: Duration) -> Result<()> {
        Err(TaskError::ReadOnly)
    }

    fn now(&self) -> Result<i64> {
        self.0.now()
    }

    fn schema(&self) -> Result<(i64, i64)> {
        self.0.schema()
    }

    fn put_schedule(&self, _: Stored) -> Result<()> {
        Err(TaskError::ReadOnly)
    }

    fn remove_schedule(&self, _: &str) -> Result<bool> {
        Err(TaskError::ReadOnly)
    }

    fn schedules(&self, due: bool) -> Result<(i64, Vec<Stored>)> {
        self.0.schedules(due)
    }

    fn pause_schedule(&self, _: &str, _: Option<i64>) -> Result<bool> {
        Err(TaskError::ReadOnly)
    }

    fn fire(&self, _: Firing) -> Result<Option<u64>> {
        Err(TaskError::ReadOnly)
    }

    fn journal(&self) -> &dyn Journal {
        self.0.journal()
    }

    fn may_write(&self) -> Result<()> {
        Err(TaskError::ReadOnly)
    }

    /// A backup reads.
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(all(test, any(feature = "sqlite", feature = "postgres")))]
mod tests {
    use super::*;

    #[test]
    fn who_may_only_look_brings_no_schema_up_to_date() {
        let check = |access: Access, found| access.migrates(found, 5, || "here".into());
        for access in [Access::Create, Access::Existing, Access::ReadOnly] {
            assert!(matches!(check(access, 6), Err(TaskError::SchemaTooNew { found: 6, known: 5 })));
            assert!(matches!(check(access, 5), Ok(false)));
        }
        assert!(matches!((check(Access::Create, 0), check(Access::Existing, 4)), (Ok(true), Ok(true))));
        assert!(matches!(check(Access::Existing, 0), Err(TaskError::NoQueue { place }) if place == "here"));
        assert!(matches!(check(Access::ReadOnly, 0), Err(TaskError::NoQueue { .. })));
        assert!(matches!(check(Access::ReadOnly, 4), Err(TaskError::SchemaTooOld { found: 4, known: 5 })));
    }
}
