//! The handle to a batch that was started.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::BatchStats;
use super::job::RemoteJob;
use super::report::BatchReport;
use super::run::{Run, Running, Tell};
use super::window::Rules;
use crate::error::Result;
use crate::executor::Executor;
use crate::sync::interrupt;
use crate::time::Deadline;

/// A handle to a batch that was started. Dropping it doesn't stop the batch.
#[must_use = "what becomes of the jobs is told by `wait`"]
pub struct Batch<T> {
    run: Arc<dyn Running<T>>,
}

impl<T> Batch<T> {
    pub(super) fn start<J: RemoteJob<Output = T>>(
        executor: Executor,
        jobs: Vec<J>,
        began: Instant,
        rules: Rules,
        listeners: Vec<Arc<Tell>>,
    ) -> Batch<T> {
        Batch { run: Arc::new(Run::start(executor, jobs, began, rules, listeners)) }
    }

    /// Waits for the end, which comes soon if the operation that calls this is cancelled: so is the
    /// batch, then.
    pub(crate) fn finish(&self) -> Result<BatchReport<T>>
    where
        T: 'static,
    {
        let run = self.run.clone();
        let _hook = interrupt::on_cancel(move || run.cancel());
        self.wait_through()
    }

    /// Waits for the end, also in an operation that is cancelled.
    pub(crate) fn wait_through(&self) -> Result<BatchReport<T>> {
        self.run.wait(Deadline::start(None), false)
    }

    /// Waits until every job has ended and the listeners have got all events, for at most
    /// `timeout`, and takes the report. After a timeout the batch goes on, and the handle is still
    /// good. If an operation of an executor calls this, another thread works in its place
    /// meanwhile.
    ///
    /// # Errors
    /// - [`Error::Timeout`](crate::Error::Timeout) if `timeout` passes first; `left` jobs have not
    ///   ended.
    /// - [`Error::Interrupted`](crate::Error::Interrupted) if that operation is cancelled; the batch
    ///   goes on.
    /// - [`Error::ResultTaken`](crate::Error::ResultTaken) if an earlier wait took the report.
    /// - [`Error::WouldDeadlock`](crate::Error::WouldDeadlock) if a step or a callback of this batch
    ///   calls this.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<BatchReport<T>> {
        self.run.wait(Deadline::start(timeout), true)
    }

    /// The counters of the batch.
    pub fn stats(&self) -> BatchStats {
        self.run.stats()
    }

    /// Whether every job has ended, and the listeners have got all events.
    pub fn is_done(&self) -> bool {
        self.run.is_done()
    }

    /// Starts no more jobs, and cancels those in flight, if the service can do that. Steps at work
    /// are interrupted: their HTTP calls end, and their [`sleep`](crate::sleep)s and
    /// [`on_cancel`](crate::on_cancel) hooks are called. The job's
    /// [`cancel`](super::RemoteJob::cancel) follows, and isn't interrupted itself. Returns at once:
    /// [`wait`](Batch::wait) waits for the end, and other threads call the callbacks. Has no effect
    /// on a batch that has ended.
    pub fn cancel(&self) {
        self.run.cancel();
    }
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
