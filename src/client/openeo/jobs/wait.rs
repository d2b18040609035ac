//! Waiting for one job, with a line for each look.
//!
//! The caller's own thread waits, on a clock and nothing else. Hundreds of jobs are better served
//! by [`run_jobs`](crate::client::openeo::run_jobs), which also makes, starts and downloads them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::BatchJob;
use super::new_job::NewJob;
use super::wait_options::WaitOptions;
use crate::client::http::{HttpError, HttpErrorKind};
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pause::pause;
use crate::client::openeo::api::step::is_soft;
use crate::client::openeo::documents::job::{JobDescription, JobStatus};
use crate::client::openeo::documents::log::{LogLevel, Logs};
use crate::client::openeo::documents::text::plain;
use crate::time::Deadline;

/// After how many looks in a row at a job that was started, and still is as it was made, it is
/// started again; and how often.
pub(crate) const IDLE_LOOKS: u32 = 3;
pub(crate) const RESTARTS: u32 = 3;

impl BatchJob {
    /// Starts the job, and waits for its end. It prints how the job stands at each look, and if it
    /// fails, its error logs. Where the back-end takes the start and nothing comes of it, it is
    /// sent again.
    ///
    /// # Timing
    /// Monotonic clock, counted from this call; the time limit bounds the wait, not the job.
    /// # Errors
    /// [`OpenEoError::JobFailed`], with the error logs, if it ends otherwise than finished;
    /// [`OpenEoError::TimeLimit`] and [`OpenEoError::TooManySoftErrors`], after which the job goes
    /// on; the back-end's.
    pub fn start_and_wait(&self, options: WaitOptions<'_>) -> Result<JobDescription, OpenEoError> {
        let mut wait = Wait::new(options);
        wait.say(self, "send 'start'");
        self.start()?;
        wait.is_started_here = true;
        wait.until_end(self)
    }

    /// Waits for the end of a job that was started before, here or elsewhere.
    ///
    /// # Errors
    /// As for [`start_and_wait`](BatchJob::start_and_wait). A job that is never started is waited
    /// for until the limit.
    pub fn wait(&self, options: WaitOptions<'_>) -> Result<JobDescription, OpenEoError> {
        Wait::new(options).until_end(self)
    }
}

impl Connection {
    /// Makes a job, starts it and waits for its end: [`create_job`](Connection::create_job) and
    /// [`BatchJob::start_and_wait`].
    ///
    /// # Errors
    /// Those of both.
    pub fn execute_batch(&self, job: impl Into<NewJob>, options: WaitOptions<'_>) -> Result<BatchJob, OpenEoError> {
        let job = self.create_job(job)?;
        job.start_and_wait(options)?;
        Ok(job)
    }
}

/// One wait, with its clock and its lines.
pub(super) struct Wait<'a> {
    pub(super) options: WaitOptions<'a>,
    /// Whether a job that still is as it was made has been started nevertheless.
    is_started_here: bool,
    began: Instant,
    deadline: Deadline,
}

impl<'a> Wait<'a> {
    pub(super) fn new(options: WaitOptions<'a>) -> Wait<'a> {
        let deadline = Deadline::start(options.time_limit);
        Wait { options, is_started_here: false, began: Instant::now(), deadline }
    }

    fn until_end(&mut self, job: &BatchJob) -> Result<JobDescription, OpenEoError> {
        let (mut looks, mut soft, mut last) = (0, 0, None);
        let (mut idle, mut restarts) = (0, 0);
        loop {
            let delay = match job.describe_within(self.left()) {
                Ok(found) => {
                    soft = 0;
                    self.say(job, &format!("{} (progress {})", found.status(), found.shown_progress()));
                    if found.status().is_ended() {
                        return self.end(job, found);
                    }
                    idle = if found.status() == JobStatus::Created { idle + 1 } else { 0 };
                    if self.is_started_here && idle >= IDLE_LOOKS && restarts < RESTARTS {
                        self.say(job, "the start had no effect: send 'start' again");
                        (idle, restarts) = (0, restarts + 1);
                        // What comes of it is seen by the next look.
                        let _ = job.start_if_created();
                    }
                    last = Some(found.status());
                    looks += 1;
                    self.options.poll.delay(looks - 1)
                }
                Err(error) if is_soft(&error) => {
                    soft += 1;
                    if soft > self.options.soft_errors {
                        return Err(too_many(job, soft, Arc::new(error)));
                    }
                    self.say(job, &format!("{} while polling job status: {error}", kind_of(&error)));
                    self.soft_pause(&error)
                }
                Err(error) => return Err(error),
            };
            if !self.let_pass(delay) {
                return Err(self.out_of_time(job, last));
            }
        }
    }

    /// What the end of a job means.
    pub(super) fn end(&mut self, job: &BatchJob, found: JobDescription) -> Result<JobDescription, OpenEoError> {
        let status = found.status();
        if !self.options.require_success || status == JobStatus::Finished {
            return Ok(found);
        }
        let logs = job.logs(None, LogLevel::Error);
        if self.options.show_error_logs {
            self.show_logs(job, &logs);
        }
        // That they can't be had is not why it failed.
        let logs = logs.unwrap_or_else(|error| Logs::none(format!("they could not be had: {error}")));
        Err(OpenEoError::JobFailed { id: job.id().to_owned(), status, logs })
    }

    fn show_logs(&mut self, job: &BatchJob, logs: &Result<Logs, OpenEoError>) {
        let id = job.id();
        let print = &mut self.options.printer;
        print("");
        print(&format!("Your batch job '{id}' failed."));
        print("Logs can be inspected in an openEO (web) editor");
        print(&format!("or with `connection.job(\"{id}\").logs(None, None)`."));
        print("");
        match logs {
            Ok(logs) => {
                print("Printing logs:");
                print(&logs.to_string());
            }
            Err(error) => print(&format!("The logs could not be had: {error}")),
        }
    }

    pub(super) fn say(&mut self, job: &BatchJob, what: &str) {
        let line = format!("{} Job '{}': {what}", clock(self.began.elapsed()), plain(job.id(), 200));
        (self.options.printer)(&line);
    }

    /// What is left of the time limit.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadline.at().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Waits, at most until the deadline; `false` if there is no more time, or it was cancelled.
    pub(super) fn let_pass(&self, delay: Duration) -> bool {
        let passed = pause(self.left().map_or(delay, |left| delay.min(left)), &*self.options.cancelled);
        passed && !self.deadline.is_past()
    }

    /// Whether nothing more is asked. A limit of nothing means one look at each job.
    pub(super) fn is_over(&self) -> bool {
        let is_late = self.deadline.is_past() && !self.deadline.is_zero();
        is_late || (self.options.cancelled)() || crate::executor::is_cancelled()
    }

    pub(super) fn soft_pause(&self, error: &OpenEoError) -> Duration {
        let asked = error.http().and_then(HttpError::retry_after).unwrap_or_default();
        self.options.soft_error_pause.max(asked.min(Duration::from_secs(3600)))
    }

    pub(super) fn out_of_time(&self, job: &BatchJob, last: Option<JobStatus>) -> OpenEoError {
        let id = job.id().to_owned();
        if !self.deadline.is_past() {
            return OpenEoError::Cancelled { id };
        }
        let status = last.unwrap_or_else(|| JobStatus::of("unknown"));
        OpenEoError::TimeLimit { id, status, limit: self.deadline.limit() }
    }
}

pub(super) fn too_many(job: &BatchJob, count: u32, source: Arc<OpenEoError>) -> OpenEoError {
    OpenEoError::TooManySoftErrors { id: job.id().to_owned(), count, source }
}

pub(super) fn kind_of(error: &OpenEoError) -> &'static str {
    match error.http().map(HttpError::kind) {
        Some(HttpErrorKind::Status(_)) => "Service availability error",
        _ => "Connection error",
    }
}

/// `1:02:03`, as Python prints a time span; days come first: `2 days, 1:02:03`.
fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let time = format!("{hours}:{minutes:02}:{rest:02}");
    match days {
        0 => time,
        1 => format!("1 day, {time}"),
        days => format!("{days} days, {time}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_print_as_in_python() {
        let shown = |seconds| clock(Duration::from_secs(seconds));
        assert_eq!([shown(0), shown(36), shown(3_723)], ["0:00:00", "0:00:36", "1:02:03"]);
        assert_eq!([shown(86_400), shown(200_000)], ["1 day, 0:00:00", "2 days, 7:33:20"]);
    }
}
