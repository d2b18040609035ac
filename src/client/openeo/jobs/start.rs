//! Starting a job once, although the reply may be lost: a job that has finished and is started
//! again runs again, and is paid for again.
//!
//! ```text
//! send -> started
//!      -> refused: an error
//!      -> unclear: look at the job -> it is on its way: started
//!                                  -> still `created`: send again, after some looks if the first may still be under way
//! ```

use std::time::Duration;

use super::job::BatchJob;
use crate::client::http::{HttpErrorKind, Method};
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pause::pause;
use crate::client::openeo::documents::job::JobStatus;
use crate::trace::event;

/// How often a start is sent at most.
const STARTS: u32 = 4;

/// How often a job is looked at whose start may still be under way, and how long after the first
/// time.
const LOOKS: u32 = 4;
const SETTLED: Duration = Duration::from_millis(500);

impl BatchJob {
    /// Starts it; one that has ended is computed anew. After a reply that was lost or says 5xx it
    /// looks whether the job was started, before it tries again.
    ///
    /// # Errors
    /// The back-end's. [`OpenEoError::is_not_our_turn`] says that too many jobs run already. After
    /// an unclear answer to a start of a job that had ended before, and has ended now, it isn't
    /// known whether it ran in between: that answer is the error.
    pub fn start(&self) -> Result<(), OpenEoError> {
        let had_ended = !self.is_new() && self.describe().is_ok_and(|found| found.status().is_ended());
        let mut start = Start { had_ended, ..Start::default() };
        loop {
            match start.advance(self) {
                Ok(Progress::Started) => return Ok(()),
                Ok(Progress::Look(after)) if pause(after, &|| false) => {}
                Ok(Progress::Again) => {}
                Ok(Progress::Look(_)) => {
                    return Err(start.error.unwrap_or_else(|| OpenEoError::reply("a start without an answer")));
                }
                // How the start was lost says more than that the look failed.
                Err(error) => return Err(start.error.unwrap_or(error)),
            }
        }
    }

    /// Sends a start once more if the job still is as it was made: a back-end may take a start and
    /// forget it. A start of a job that is queued or running has no effect (openEO API 1.2).
    /// Whether it was sent; what came of it is for later looks to see.
    pub(crate) fn start_if_created(&self) -> Result<bool, OpenEoError> {
        // Asked itself: a list may be late.
        if self.describe()?.status() != JobStatus::Created {
            return Ok(false);
        }
        match Start::default().send(self) {
            Err(error) if error.is_not_our_turn() => Ok(false),
            outcome => outcome.map(|_| true),
        }
    }
}

/// A start on its way, step by step: each is one call.
#[derive(Default)]
pub(crate) struct Start {
    sent: u32,
    /// How the last reply was lost, until it is known what came of it.
    error: Option<OpenEoError>,
    looks: u32,
    was_unclear: bool,
    /// Whether the job had ended before, so that its end says nothing.
    had_ended: bool,
}

/// What a step has come to.
pub(crate) enum Progress {
    Started,
    /// It is unclear: call again after a while, to look.
    Look(Duration),
    /// It had no effect: call again, to send it again.
    Again,
}

impl Start {
    /// Whether a start was sent that may have had an effect, or may have yet.
    pub(crate) fn may_have_started(&self) -> bool {
        self.was_unclear
    }

    /// One call. After an error it may be called again, and goes on where it was.
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

    fn look(&mut self, job: &BatchJob, is_under_way: bool) -> Result<Progress, OpenEoError> {
        match job.describe()?.status() {
            status if self.had_ended && status.is_ended() => {
                return Err(self.error.take().unwrap_or_else(|| OpenEoError::reply("a start without an answer")));
            }
            JobStatus::Created | JobStatus::Canceled => {}
            // Whatever it is now, it was started.
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

/// Whether the server may have done it all the same, or may do it the next time.
fn is_unclear(error: &OpenEoError) -> bool {
    !error.is_not_our_turn()
        && !error.is_unreachable()
        && (error.is_retryable() || error.may_have_arrived() || error.status().is_some_and(|status| status >= 500))
        && error.code() != Some("FeatureUnsupported")
}

/// Whether the wait for the answer has ended, and not the work on it.
fn is_under_way(error: &OpenEoError) -> bool {
    error.http().is_some_and(|http| http.kind() == HttpErrorKind::Timeout) || error.status() == Some(504)
}
