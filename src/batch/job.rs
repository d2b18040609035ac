//! What a remote job is to a batch: three steps, none of which waits.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::Context;
use crate::error::BoxError;

/// A job that runs on another machine: submitted, asked about now and then, and its result fetched.
///
/// Each step is called on a thread of the executor, one at a time, and is to talk to the service once and return: waiting,
/// between polls or before another attempt, is the batch's affair, and costs no thread. A step that panics fails the job.
///
/// ```text
/// submit -> poll .. poll -> fetch        a retried step is called again, on the same value
///    \                       /
///     `-- answered at once -'            cancel: from anywhere after submit, instead of what would come next
/// ```
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
    /// What is fetched in the end.
    type Output: Send + 'static;

    /// Has the service create the job, and start it.
    ///
    /// # Errors
    /// Whether another attempt is made is for the [`JobError`] to say. After a lost reply the job may exist: it is for this
    /// method to look before it creates another, and to [note](Context::note) what it could not find out.
    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError>;

    /// Asks how it stands.
    ///
    /// # Errors
    /// A job that the service says has failed is a [fatal](JobError::fatal) error here.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError>;

    /// Fetches the result.
    ///
    /// # Errors
    /// As for the other steps. What was fetched in part is for the next attempt to go on with.
    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<Self::Output, JobError>;

    /// Stops the job where the service can: called when the batch was cancelled or a time limit has passed, after `submit`
    /// has succeeded. Does nothing unless implemented.
    ///
    /// # Errors
    /// Noted in the report; they change no outcome.
    fn cancel(&mut self, cx: &mut Context<'_>) -> Result<(), JobError> {
        let _ = cx;
        Ok(())
    }
}

/// What a service answers to a job's creation. The `id` is what the service calls it, for events and the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The job is on its way.
    Accepted {
        /// The service's name for the job.
        id: String,
    },
    /// The answer is there already, and is fetched next, without a poll.
    Ready {
        /// The service's name for the job, or one's own if it has none.
        id: String,
    },
}

/// What a service answers when asked about a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Poll {
    /// Not yet: ask again later.
    Pending {
        /// What the service calls this state; a change of it is an event.
        state: Cow<'static, str>,
        /// How much is done, from 0 to 1, where the service says.
        progress: Option<f32>,
        /// When to ask again, where the service says: it wins over the schedule, between its first delay and an hour.
        retry_after: Option<Duration>,
    },
    /// The result can be fetched.
    Ready,
}

impl Poll {
    /// Not yet, and no more is known than the state.
    pub fn pending(state: impl Into<Cow<'static, str>>) -> Poll {
        Poll::Pending { state: state.into(), progress: None, retry_after: None }
    }
}

/// Why a step did not succeed, and what is to follow.
///
/// It prints as the error that it was made of, and has that error's source.
#[derive(Debug)]
pub struct JobError {
    pub(super) source: BoxError,
    pub(super) then: Then,
}

/// What follows a step that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Fail,
    Retry { after: Option<Duration> },
    Wait { at_least: Duration },
}

impl JobError {
    /// The job has failed, and another attempt would change nothing.
    pub fn fatal(error: impl Into<BoxError>) -> JobError {
        JobError { source: error.into(), then: Then::Fail }
    }

    /// Another attempt may succeed. It is made after the batch's [backoff](super::BatchRunnerBuilder::backoff), and there
    /// are as many as its [attempts](super::BatchRunnerBuilder::attempts).
    pub fn retry(error: impl Into<BoxError>) -> JobError {
        JobError { source: error.into(), then: Then::Retry { after: None } }
    }

    /// Not before `delay`, because the service said so. Changes nothing about a fatal error.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> JobError {
        match &mut self.then {
            Then::Fail => {}
            Then::Retry { after } => *after = Some(delay),
            Then::Wait { at_least } => *at_least = delay,
        }
        self
    }

    /// Nothing was tried, because it is not our turn: one's own rate limit, say. Called again after at least `delay`,
    /// however often; this is no attempt.
    pub fn wait(error: impl Into<BoxError>, delay: Duration) -> JobError {
        JobError { source: error.into(), then: Then::Wait { at_least: delay } }
    }

    /// Whether nothing was tried, and the step is only called again later.
    pub fn is_wait(&self) -> bool {
        matches!(self.then, Then::Wait { .. })
    }

    /// What it was made of, if that has the type `E`.
    #[cfg(all(feature = "sqlite", any(feature = "openeo", feature = "pairs")))]
    pub(crate) fn error<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.source.downcast_ref()
    }

    /// What it was made of.
    #[cfg(all(feature = "sqlite", any(feature = "openeo", feature = "pairs")))]
    pub(crate) fn cause(&self) -> &(dyn std::error::Error + 'static) {
        &*self.source
    }

    /// Whether the job has failed for good.
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
