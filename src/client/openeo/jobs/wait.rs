//! Waits for one job, and prints a line each time that it asks for the job's status.
//!
//! The caller's thread does the waiting. For many jobs use
//! [`run_jobs`](crate::client::openeo::run_jobs), which also creates, starts and downloads them.

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

/// If a job was started and still is `created` so many times in a row, it is started again; and how
/// often at most.
pub(crate) const IDLE_LOOKS: u32 = 3;
pub(crate) const RESTARTS: u32 = 3;

impl BatchJob {
    /// Starts the job and waits for its end. Each time that it asks for the status it prints a
    /// line, and if the job fails it prints its error logs. If the back-end accepts the start and
    /// then forgets it, the start is sent again.
    ///
    /// # Timing
    /// Monotonic clock, counted from this call. The time limit ends the wait, not the job.
    /// # Errors
    /// - [`OpenEoError::JobFailed`], with the error logs, if the job ends with another status than
    ///   `finished`.
    /// - [`OpenEoError::TimeLimit`] or [`OpenEoError::TooManySoftErrors`] if the wait ends first:
    ///   the job goes on.
    /// - The back-end's error, if it refuses.
    pub fn start_and_wait(&self, options: WaitOptions<'_>) -> Result<JobDescription, OpenEoError> {
        let mut wait = Wait::new(options);
        wait.say(self, "send 'start'");
        self.start()?;
        wait.is_started_here = true;
        wait.until_end(self)
    }

    /// Waits for the end of a job that was started before, by this program or another. If the job
    /// is never started, it waits until the time limit.
    ///
    /// # Errors
    /// The same as for [`start_and_wait`](BatchJob::start_and_wait), without those of the start.
    pub fn wait(&self, options: WaitOptions<'_>) -> Result<JobDescription, OpenEoError> {
        Wait::new(options).until_end(self)
    }
}

impl Connection {
    /// Creates a job, starts it and waits for its end: [`create_job`](Connection::create_job) and
    /// [`BatchJob::start_and_wait`] in one call.
    ///
    /// # Errors
    /// The errors of these two.
    pub fn execute_batch(&self, job: impl Into<NewJob>, options: WaitOptions<'_>) -> Result<BatchJob, OpenEoError> {
        let job = self.create_job(job)?;
        job.start_and_wait(options)?;
        Ok(job)
    }
}

/// The state of one wait.
pub(super) struct Wait<'a> {
    pub(super) options: WaitOptions<'a>,
    /// Whether this wait has started the job, so that it should start it again if it stays
    /// `created`.
    is_started_here: bool,
    began: Instant,
    deadline: Deadline,
}

impl<'a> Wait<'a> {
    pub(super) fn new(options: WaitOptions<'a>) -> Wait<'a> {
        let deadline = Deadline::start(options.time_limit);
        Wait { options, is_started_here: false, began: Instant::now(), deadline }
    }

    /// Asks for the job's status, prints it and pauses, until the job has ended: then returns what
    /// `end` makes of the last description. If this wait has started the job and it stays
    /// `created`, sends the start again, `RESTARTS` times at most.
    ///
    /// Fails after more than `soft_errors` soft errors in a row, at the first other error, and if
    /// the time limit passes or the caller cancels. The job goes on then.
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
                        // Ignore an error: the next look shows whether the job was started.
                        let _ = job.start_if_created();
                    }
                    last = Some(found.status());
                    looks += 1;
                    self.options.poll.delay(looks - 1)
                }
                Err(_) if crate::executor::is_cancelled() => return Err(self.out_of_time(job, last)),
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

    /// Turns the description of a job that has ended into the outcome of the wait. If it isn't
    /// `finished` and the options require that, the outcome is an error with the job's error logs.
    pub(super) fn end(&mut self, job: &BatchJob, found: JobDescription) -> Result<JobDescription, OpenEoError> {
        let status = found.status();
        if !self.options.require_success || status == JobStatus::Finished {
            return Ok(found);
        }
        let logs = job.logs(None, LogLevel::Error);
        if self.options.show_error_logs {
            self.show_logs(job, &logs);
        }
        // If the logs can't be read, the error is still that the job failed.
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

    /// How much of the time limit is left.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadline.at().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Waits for `delay`, at most until the deadline. Returns false if the time is up, or if the
    /// caller cancelled.
    pub(super) fn let_pass(&self, delay: Duration) -> bool {
        let passed = pause(self.left().map_or(delay, |left| delay.min(left)), &*self.options.cancelled);
        passed && !self.deadline.is_past()
    }

    /// Whether the time is up, so that no more requests are made. With a limit of zero, each job is
    /// asked about once.
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
