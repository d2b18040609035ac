//! What a user implements for a batch: a remote job, with three steps that don't wait.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::Context;
use crate::error::BoxError;

/// A job that runs on another machine: it is submitted, polled now and then, and its result is
/// fetched.
///
/// The batch calls one step of a job at a time, on a thread of the executor. A step should talk to
/// the service once and return. The batch does the waiting between polls and before another
/// attempt, without a thread. If a step panics, the job fails.
///
/// ```text
/// submit -> poll .. poll -> fetch        a retried step is called again, on the same value
///    \                       /
///     `-- answered at once -'            cancel: from anywhere after submit, instead of what would come next
/// ```
///
/// If the batch is cancelled, or a time limit passes, a step at work is interrupted: inside of it
/// [`fulmar::is_cancelled`](crate::is_cancelled) is true, HTTP calls of this crate and
/// [`sleep`](crate::sleep)s end, and [`on_cancel`](crate::on_cancel) hooks are called. Whatever
/// error it then returns, the job was cancelled and hasn't failed, and `cancel` is called. If
/// `submit` was interrupted, the report says that the job may exist.
///
/// ```
/// use fulmar::batch::{BatchRunner, Context, JobError, Poll, RemoteJob, Submitted};
/// use std::time::Duration;
///
/// /// Done when it was asked twice.
/// struct Sum { numbers: Vec<u64>, asked: u32 }
///
/// impl RemoteJob for Sum {
///     type Output = u64;
///
///     fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
///         Ok(Submitted::Accepted { id: format!("sum of {}", self.numbers.len()) })
///     }
///
///     fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
///         self.asked += 1;
///         if self.asked == 2 { Ok(Poll::Ready) } else { Ok(Poll::pending("running")) }
///     }
///
///     fn fetch(&mut self, _: &mut Context<'_>) -> Result<u64, JobError> {
///         Ok(self.numbers.iter().sum())
///     }
/// }
///
/// let jobs = (1..=3).map(|n| Sum { numbers: (0..=n).collect(), asked: 0 });
/// let report = BatchRunner::builder().poll_every(Duration::from_millis(1)).build()?.run(jobs)?;
/// let sums: Vec<u64> = report.jobs.into_iter().filter_map(|job| job.outcome.ok()).collect();
/// assert_eq!(sums, [1, 3, 6]);
/// # Ok::<(), fulmar::Error>(())
/// ```
pub trait RemoteJob: Send + 'static {
    /// The result, which [`fetch`](RemoteJob::fetch) returns.
    type Output: Send + 'static;

    /// Asks the service to create and start the job.
    ///
    /// # Errors
    /// The [`JobError`] says whether the batch calls `submit` again. If a reply was lost, the job
    /// may exist: look for it before you create another, and [note](Context::note) it if you can't
    /// find out.
    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError>;

    /// Asks the service for the job's state.
    ///
    /// # Errors
    /// If the service says that the job has failed, return a [fatal](JobError::fatal) error. If the
    /// service could not be asked, return one that is [tried again](JobError::retry).
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError>;

    /// Fetches the result, after `poll` or `submit` said that it is ready.
    ///
    /// # Errors
    /// The [`JobError`] says whether the batch calls `fetch` again, on the same value: it may go on
    /// with a part that was fetched before.
    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<Self::Output, JobError>;

    /// Cancels the job, if the service can do that. The batch calls this if it was cancelled or a
    /// time limit has passed after `submit` succeeded. The default does nothing.
    ///
    /// # Errors
    /// An error becomes a note in the report. The job's outcome stays the same.
    fn cancel(&mut self, cx: &mut Context<'_>) -> Result<(), JobError> {
        let _ = cx;
        Ok(())
    }
}

/// The service's answer to the creation of a job. Events and the report show its `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The service will work on the job: poll it.
    Accepted {
        /// The service's name for the job.
        id: String,
    },
    /// The result is ready already: it is fetched next, without a poll.
    Ready {
        /// The service's name for the job. If it gives none, make one up.
        id: String,
    },
}

/// The service's answer to a poll.
#[derive(Clone, Debug, PartialEq)]
pub enum Poll {
    /// The result isn't ready: poll again later.
    Pending {
        /// The service's name for the state. A change of it is an event.
        state: Cow<'static, str>,
        /// Which share of the work is done, from 0 to 1, if the service says so.
        progress: Option<f32>,
        /// When to poll again, if the service says so. It replaces the delay of the batch's
        /// schedule, but is at least that schedule's first delay and at most an hour.
        retry_after: Option<Duration>,
    },
    /// The result can be fetched.
    Ready,
}

impl Poll {
    /// [`Poll::Pending`] with a state, and nothing else.
    pub fn pending(state: impl Into<Cow<'static, str>>) -> Poll {
        Poll::Pending { state: state.into(), progress: None, retry_after: None }
    }
}

/// Why a step failed, and what the batch does next.
///
/// It prints as the error that it was made from, and has that error's source.
#[derive(Debug)]
pub struct JobError {
    pub(super) source: BoxError,
    pub(super) then: Then,
}

/// What the batch does after a step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Fail,
    Retry { after: Option<Duration> },
    Wait { at_least: Duration },
}

impl JobError {
    /// The job fails at once, because another attempt would change nothing.
    pub fn fatal(error: impl Into<BoxError>) -> JobError {
        JobError { source: error.into(), then: Then::Fail }
    }

    /// The batch calls the step again after its [backoff](super::BatchRunnerBuilder::backoff),
    /// until it has made all of its [attempts](super::BatchRunnerBuilder::attempts).
    pub fn retry(error: impl Into<BoxError>) -> JobError {
        JobError { source: error.into(), then: Then::Retry { after: None } }
    }

    /// Sets the least time until the next call, because the service said so. Has no effect on a
    /// fatal error.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> JobError {
        match &mut self.then {
            Then::Fail => {}
            Then::Retry { after } => *after = Some(delay),
            Then::Wait { at_least } => *at_least = delay,
        }
        self
    }

    /// The step did nothing, because it has to wait for its turn, for example because of the
    /// client's own rate limit. The batch calls it again after at least `delay`, as often as
    /// necessary, and doesn't count this as an attempt.
    pub fn wait(error: impl Into<BoxError>, delay: Duration) -> JobError {
        JobError { source: error.into(), then: Then::Wait { at_least: delay } }
    }

    /// Whether the step did nothing and only waits for its turn: see [`wait`](JobError::wait).
    pub fn is_wait(&self) -> bool {
        matches!(self.then, Then::Wait { .. })
    }

    /// The error that it was made from, if that has the type `E`.
    #[cfg(all(feature = "sqlite", any(feature = "openeo", feature = "pairs")))]
    pub(crate) fn error<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.source.downcast_ref()
    }

    /// The error that it was made from.
    #[cfg(all(feature = "sqlite", any(feature = "openeo", feature = "pairs")))]
    pub(crate) fn cause(&self) -> &(dyn std::error::Error + 'static) {
        &*self.source
    }

    /// Whether the job fails at once: see [`fatal`](JobError::fatal).
    pub fn is_fatal(&self) -> bool {
        self.then == Then::Fail
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl std::error::Error for JobError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}

/// A step of a [`RemoteJob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// [`RemoteJob::submit`].
    Submit,
    /// [`RemoteJob::poll`].
    Poll,
    /// [`RemoteJob::fetch`].
    Fetch,
    /// [`RemoteJob::cancel`].
    Cancel,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Submit => "submit",
            Stage::Poll => "poll",
            Stage::Fetch => "fetch",
            Stage::Cancel => "cancel",
        })
    }
}
