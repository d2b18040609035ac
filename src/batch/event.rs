//! The events and counters of a batch.

use std::fmt;
use std::time::Duration;

use super::job::{JobError, Stage};
use super::report::JobFailure;

/// An event of a batch: something has happened to a job. The events of one job come in order; those
/// of different jobs may come from several threads at once.
#[derive(Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// Which job: its place in the input, from 0.
    pub index: usize,
    /// The service's name for the job, once it was submitted.
    pub id: Option<&'a str>,
    /// What has happened.
    pub kind: EventKind<'a>,
}

/// What has happened to a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// The job takes its place in the window and is about to be submitted.
    Started,
    /// The service has created the job.
    Submitted,
    /// The service reports another state than before.
    StateChanged {
        /// The new state, in the service's words.
        state: &'a str,
    },
    /// The service reports another share of the work as done than before.
    Progress {
        /// From 0 to 1.
        share: f32,
    },
    /// Its result is being downloaded.
    Downloading {
        /// How many bytes have arrived.
        bytes: u64,
        /// How many there are in all, if that is known.
        total: Option<u64>,
    },
    /// A step failed with a temporary error, and will be called again.
    Retrying {
        /// Which step.
        stage: Stage,
        /// The number of the attempt that failed, from 1.
        attempt: u32,
        /// How long it is until the next attempt.
        delay: Duration,
        /// Why.
        error: &'a JobError,
    },
    /// A step called [`Context::note`](super::Context::note).
    Noted {
        /// The remark.
        text: &'a str,
    },
    /// The job has succeeded, and its result is in the report.
    Done,
    /// The job has ended without a result.
    Failed {
        /// Why. Cancelled jobs and those that ran out of time are here, too.
        failure: &'a JobFailure,
    },
}

/// The counters of a batch, as one snapshot:
/// `total = waiting + active + succeeded + failed + cancelled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStats {
    /// Jobs in all.
    pub total: usize,
    /// Jobs that have not started yet.
    pub waiting: usize,
    /// Jobs in the window: started and not ended.
    pub active: usize,
    /// Jobs that ended with a result.
    pub succeeded: usize,
    /// Jobs that ended without a result because of an error, a panic or their own time limit.
    pub failed: usize,
    /// Jobs that ended without a result because the batch was stopped: by `cancel`, its time limit,
    /// its limit on failures or a shutdown.
    pub cancelled: usize,
    /// Jobs that the service has confirmed as created.
    pub submitted: usize,
    /// Polls made.
    pub polls: u64,
    /// Steps that were called again after a temporary error.
    pub retries: u64,
    /// Bytes of results that have arrived.
    pub bytes: u64,
}

impl BatchStats {
    /// Jobs that have ended.
    pub fn ended(&self) -> usize {
        self.succeeded + self.failed + self.cancelled
    }
}

impl fmt::Display for BatchStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BatchStats { total, waiting, active, succeeded, failed, cancelled, retries, .. } = self;
        write!(f, "{total} jobs = {waiting} waiting + {active} active + {succeeded} succeeded + {failed} failed")?;
        write!(f, " + {cancelled} cancelled; {retries} retries")
    }
}
