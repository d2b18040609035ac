//! The report of a batch: the outcome of every job.

use std::fmt;
use std::time::Duration;

use super::event::BatchStats;
use super::job::Stage;
use crate::error::BoxError;

/// Every job of a batch, in input order, with its outcome.
#[derive(Debug)]
#[non_exhaustive]
pub struct BatchReport<T> {
    /// One for each job, at the job's place in the input.
    pub jobs: Vec<JobReport<T>>,
    /// The counters at the end.
    pub stats: BatchStats,
    /// From the start of the batch to the end of its last job.
    pub elapsed: Duration,
    /// Why the batch was stopped before all of its jobs had ended, if it was.
    pub stopped: Option<StopReason>,
}

impl<T> BatchReport<T> {
    /// Whether every job has succeeded.
    pub fn is_success(&self) -> bool {
        self.stats.succeeded == self.stats.total
    }

    /// The jobs without a result, in input order.
    pub fn failures(&self) -> impl Iterator<Item = &JobReport<T>> {
        self.jobs.iter().filter(|job| job.outcome.is_err())
    }
}

impl<T> fmt::Display for BatchReport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {:.1} s", self.stats, self.elapsed.as_secs_f64())?;
        self.stopped.map_or(Ok(()), |reason| write!(f, "; {reason}"))
    }
}

/// The outcome of one job. Times are counted from the start of the batch.
#[derive(Debug)]
#[non_exhaustive]
pub struct JobReport<T> {
    /// Its place in the input, from 0.
    pub index: usize,
    /// The service's name for the job, if it was created.
    pub id: Option<String>,
    /// Its result, or why there is none.
    pub outcome: Result<T, JobFailure>,
    /// When its first call of `submit` began.
    pub started: Option<Duration>,
    /// When the service confirmed that it was created.
    pub submitted: Option<Duration>,
    /// When it ended.
    pub ended: Duration,
    /// How often each step was called.
    pub attempts: Attempts,
    /// Remarks of its steps and of the batch: see [`Context::note`](super::Context::note).
    pub notes: Vec<String>,
}

/// How often each step of a job was called, retries included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempts {
    /// Calls of `submit`.
    pub submit: u32,
    /// Calls of `poll`.
    pub poll: u32,
    /// Calls of `fetch`.
    pub fetch: u32,
    /// Calls of `cancel`.
    pub cancel: u32,
}

impl Attempts {
    pub(super) fn count(&mut self, stage: Stage) {
        let calls = match stage {
            Stage::Submit => &mut self.submit,
            Stage::Poll => &mut self.poll,
            Stage::Fetch => &mut self.fetch,
            Stage::Cancel => &mut self.cancel,
        };
        *calls = calls.saturating_add(1);
    }
}

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobFailure {
    /// A step returned a fatal error, or failed too often. [`JobFailure::error`] downcasts the
    /// step's error.
    #[error("{stage} failed at attempt {attempt}")]
    Failed {
        /// Which step.
        stage: Stage,
        /// The number of the last attempt, from 1.
        attempt: u32,
        /// What the step returned.
        source: BoxError,
    },
    /// A step panicked.
    #[error("{stage} panicked: {message}")]
    Panicked {
        /// Which step.
        stage: Stage,
        /// The panic's message.
        message: String,
    },
    /// The job's time limit passed. The remote job was cancelled, if the service can do that.
    #[error("it took longer than its limit of {limit:?}")]
    TimedOut {
        /// The limit, counted from its start.
        limit: Duration,
    },
    /// The batch was stopped. If the job was submitted, the remote job was cancelled, if the
    /// service can do that; otherwise a note in the report says that it may still run.
    #[error("{0}")]
    Stopped(StopReason),
}

impl JobFailure {
    /// The error that a step returned, if this is [`JobFailure::Failed`] and the error has the type
    /// `E`.
    pub fn error<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            JobFailure::Failed { source, .. } => source.downcast_ref(),
            _ => None,
        }
    }
}

/// Why a batch was stopped before all of its jobs had ended by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// [`Batch::cancel`](super::Batch::cancel) was called.
    Cancelled,
    /// The [time limit](super::BatchRunnerBuilder::time_limit) of the batch passed.
    TimeLimit,
    /// As many jobs failed as
    /// [`stop_after_failures`](super::BatchRunnerBuilder::stop_after_failures) allows. The jobs in
    /// flight were finished.
    TooManyFailures,
    /// The executor was shut down. No thread was left to cancel the jobs in flight, so their notes
    /// say that they may still run.
    ShutDown,
    /// The system refused to start a thread for the executor. The jobs in flight are left as after
    /// a shutdown.
    NoThread,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopReason::Cancelled => "the batch was cancelled",
            StopReason::TimeLimit => "the batch ran out of its time limit",
            StopReason::TooManyFailures => "too many jobs of the batch failed",
            StopReason::ShutDown => "the executor was shut down",
            StopReason::NoThread => "the executor could start no thread",
        })
    }
}
