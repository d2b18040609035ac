//! Starts a job once, even if a reply is lost. If a finished job were started again, it would run
//! and be billed again.
//!
//! ```text
//! send -> started
//!      -> refused: an error
//!      -> unclear: look at the job -> it is on its way: started
//!                                  -> still `created`: send again, after some looks if the first may still be under way
//! ```

use std::time::Duration;

use super::job::BatchJob;
use crate::client::http::{HttpError, Method};
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pause::pause;
use crate::client::openeo::documents::job::JobStatus;
use crate::trace::event;

/// How often a start is sent at most.
const STARTS: u32 = 4;

/// If a start may still be in progress: how often to look at the job, and how long after the lost
/// reply for the first time.
const LOOKS: u32 = 4;
const SETTLED: Duration = Duration::from_millis(500);

impl BatchJob {
    /// Starts the job. If it has ended, the back-end computes it anew. If the reply is lost or has
    /// a status of 500 or more, this looks whether the job was started, before it sends the start
    /// again.
    ///
    /// # Errors
    /// The back-end's error. If too many jobs run already, [`OpenEoError::is_not_our_turn`] is true
    /// of it. If the job had ended before and the reply was lost, and the job has ended now, it
    /// isn't known whether it ran in between: then the error is that of the lost reply.
    pub fn start(&self) -> Result<(), OpenEoError> {
        let had_ended = self.describe().is_ok_and(|found| found.status().is_ended());
        let mut start = Start { had_ended, ..Start::default() };
        loop {
            match start.advance(self) {
                Ok(Progress::Started) => return Ok(()),
                Ok(Progress::Look(after)) if pause(after, &|| false) => {}
                Ok(Progress::Again) => {}
                Ok(Progress::Look(_)) => {
                    // The operation that waits here was cancelled during the pause.
                    return Err(start.error.unwrap_or_else(|| OpenEoError::reply("a start without an answer")));
                }
                // If the look has failed, the error of the start says more.
                Err(error) => return Err(start.error.unwrap_or(error)),
            }
        }
    }

    /// Sends a start once more if the job's status is still `created`: a back-end may accept a
    /// start and forget it. Starting a job that is queued or running has no effect (openEO API
    /// 1.2). Returns whether it sent one; the caller's next look shows its effect.
    pub(crate) fn start_if_created(&self) -> Result<bool, OpenEoError> {
        // Ask for the job itself, because the job list may be out of date.
        if self.describe()?.status() != JobStatus::Created {
            return Ok(false);
        }
        match Start::default().send(self) {
            Err(error) if error.is_not_our_turn() => Ok(false),
            outcome => outcome.map(|_| true),
        }
    }
}

/// The start of a job, in steps. A step is one call, and doesn't wait.
#[derive(Default)]
pub(crate) struct Start {
    sent: u32,
    /// The error with which the last reply was lost, as long as its effect isn't known.
    error: Option<OpenEoError>,
    looks: u32,
    was_unclear: bool,
    /// Whether the job had ended before the start. Then an ended job doesn't show that it ran
    /// again.
    had_ended: bool,
}

/// The outcome of a step.
pub(crate) enum Progress {
    Started,
    /// The effect is unclear: call again after this time, to look.
    Look(Duration),
    /// The start had no effect: call again, to send it again.
    Again,
}

impl Start {
    /// Whether a start with a lost reply was sent, which may have started the job, or still may.
    pub(crate) fn may_have_started(&self) -> bool {
        self.was_unclear
    }

    /// Does one step: sends the start, or looks for its effect. After an error it can be called
    /// again, and continues.
    pub(crate) fn advance(&mut self, job: &BatchJob) -> Result<Progress, OpenEoError> {
        match &self.error {
            None => self.send(job),
            Some(error) => {
                let is_under_way = is_under_way(error);
                self.look(job, is_under_way)
            }
        }
    }

    fn send(&mut self, job: &BatchJob) -> Result<Progress, OpenEoError> {
        let connection = job.connection();
        self.sent += 1;
        let error = match connection.send(connection.request(Method::Post, &job.path("/results"))) {
            Ok(_) => return Ok(Progress::Started),
            Err(error) => error,
        };
        if !is_unclear(&error) {
            return Err(error);
        }
        event!(DEBUG, "a start had an unclear answer", id = job.id(), error = error.to_string());
        let is_under_way = is_under_way(&error);
        (self.error, self.looks, self.was_unclear) = (Some(error), 0, true);
        if is_under_way { Ok(Progress::Look(SETTLED)) } else { self.look(job, false) }
    }

    /// Asks for the job's status after a start with an unclear reply. `Started` if the status shows
    /// that the start had an effect; `Again` if it had none. `Look` if the server may still be at
    /// the start, which `is_under_way` says, `LOOKS - 1` times in a row at most.
    ///
    /// Fails if the status can't be read. Fails with the error of the start if it was sent `STARTS`
    /// times without effect, or if the job had ended before and has ended now.
    fn look(&mut self, job: &BatchJob, is_under_way: bool) -> Result<Progress, OpenEoError> {
        match job.describe()?.status() {
            status if self.had_ended && status.is_ended() => {
                return Err(self.error.take().unwrap_or_else(|| OpenEoError::reply("a start without an answer")));
            }
            JobStatus::Created | JobStatus::Canceled => {}
            // Any other status shows that the job was started.
            _ => return Ok(Progress::Started),
        }
        self.looks += 1;
        if is_under_way && self.looks < LOOKS {
            return Ok(Progress::Look(SETTLED * 2u32.pow(self.looks)));
        }
        match self.error.take() {
            Some(error) if self.sent >= STARTS => Err(error),
            _ => Ok(Progress::Again),
        }
    }
}

/// Whether the job may have been started in spite of the error, or another attempt may succeed.
fn is_unclear(error: &OpenEoError) -> bool {
    !error.is_not_our_turn()
        && !error.is_unreachable()
        && (error.is_retryable() || error.may_have_arrived() || error.status().is_some_and(|status| status >= 500))
        && error.code() != Some("FeatureUnsupported")
}

/// Whether the server may still be working on the request: only the wait for its reply has ended.
fn is_under_way(error: &OpenEoError) -> bool {
    error.http().is_some_and(HttpError::is_given_up)
}
