//! What happens to the jobs of a batch, told as it happens, and counted.

use std::fmt;
use std::time::Duration;

use super::job::{JobError, Stage};
use super::report::JobFailure;

/// Something has happened to a job. Events of one job come in their order; those of different jobs come from several
/// threads at once.
#[derive(Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// Which job: its place in the input, from 0.
    pub index: usize,
    /// What the service calls it, once it was submitted.
    pub id: Option<&'a str>,
    /// What has happened.
    pub kind: EventKind<'a>,
}

/// What has happened to a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// It is about to be submitted, and takes its place in the window.
    Started,
    /// The service has created it.
    Submitted,
    /// The service calls its state something else than before.
    StateChanged {
        /// The new state, in the service's words.
        state: &'a str,
    },
    /// The service tells how much is done, and it is not what it was.
    Progress {
        /// From 0 to 1.
        share: f32,
    },
    /// Its result is being downloaded.
    Downloading {
        /// How much is there.
        bytes: u64,
        /// Of how much, where that is known.
        total: Option<u64>,
    },
    /// A step did not succeed, and is tried again.
    Retrying {
        /// Which step.
        stage: Stage,
        /// The number of the attempt that did not succeed, from 1.
        attempt: u32,
        /// When the next one is made.
        delay: Duration,
        /// Why.
        error: &'a JobError,
    },
    /// A step had something to say.
    Noted {
        /// The words.
        text: &'a str,
    },
    /// It has succeeded, and its result is there.
    Done,
    /// It has not succeeded, for this reason.
    Failed {
        /// Why: cancelled jobs and those out of time are here, too.
        failure: &'a JobFailure,
    },
}

/// How a batch stands, in one snapshot: `total = waiting + active + succeeded + failed + cancelled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStats {
    /// Jobs in all.
    pub total: usize,
    /// Not started yet.
    pub waiting: usize,
    /// In the window.
    pub active: usize,
    /// Ended with a result.
    pub succeeded: usize,
    /// Ended without, by an error, a panic or a time limit of their own.
    pub failed: usize,
    /// Ended without, because the batch was stopped: by `cancel`, its time limit, its limit on failures or a shutdown.
    pub cancelled: usize,
    /// Jobs that the service has created, as far as it said so.
    pub submitted: usize,
    /// Polls made.
    pub polls: u64,
    /// Steps that were tried again.
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
