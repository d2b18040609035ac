//! Waiting for jobs: one, with a line for each look, or many at once.
//!
//! The caller's own thread waits, on a clock and nothing else. Who has hundreds of jobs is better served by
//! [`run_jobs`](super::run_jobs), which also makes, starts and downloads them.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Connection, Pace};
use super::description::{JobDescription, JobStatus};
use super::error::OpenEoError;
use super::job::BatchJob;
use super::logs::{LogLevel, Logs};
use super::pause::pause;
use crate::backoff::Backoff;
use crate::client::http::{HttpError, HttpErrorKind};
use crate::time::Deadline;

/// How long one job, or the list, may keep others waiting that are waited for as well: as long as they wait anyway until the
/// next look, within these limits.
const BRIEF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// From so many jobs of one back-end on, the job list is asked once instead of each job.
pub(super) const LIST_FROM: usize = 4;

type Printer<'a> = Box<dyn FnMut(&str) + 'a>;

/// How to wait for a job, and what to say meanwhile. The defaults are the Python client's.
///
/// ```
/// use fulmar::client::openeo::WaitOptions;
/// use std::time::Duration;
///
/// let mut lines = Vec::new();
/// let options = WaitOptions::new().time_limit(Duration::from_secs(3600)).printer(|line| lines.push(line.to_owned()));
/// # drop(options);
/// ```
#[must_use = "options are for `start_and_wait`, `wait` and `wait_jobs`"]
pub struct WaitOptions<'a> {
    poll: Backoff,
    soft_errors: u32,
    soft_error_pause: Duration,
    time_limit: Option<Duration>,
    require_success: bool,
    show_error_logs: bool,
    printer: Printer<'a>,
    cancelled: Box<dyn Fn() -> bool + 'a>,
}

impl<'a> WaitOptions<'a> {
    /// The defaults: lines on standard output.
    pub fn new() -> WaitOptions<'a> {
        WaitOptions {
            poll: Backoff::new(Duration::from_secs(5)).factor(1.25).cap(Duration::from_secs(60)),
            soft_errors: 10,
            soft_error_pause: Duration::from_secs(30),
            time_limit: None,
            require_success: true,
            show_error_logs: true,
            // Not `println!`: that nobody reads any more is no reason to panic.
            printer: Box::new(|line| drop(writeln!(std::io::stdout(), "{line}"))),
            cancelled: Box::new(|| false),
        }
    }

    /// The delays between looks. Defaults to 5 s, growing by a quarter each time, up to 60 s.
    pub fn poll(mut self, schedule: Backoff) -> WaitOptions<'a> {
        self.poll = schedule;
        self
    }

    /// How many looks in a row may fail softly (no connection, a timeout, 429, 502, 503, 504), and how long to wait after each.
    /// Defaults to 10, 30 s apart; longer where the server says so, up to an hour.
    pub fn soft_errors(mut self, count: u32, pause: Duration) -> WaitOptions<'a> {
        self.soft_errors = count;
        self.soft_error_pause = pause;
        self
    }

    /// How long to wait in all. Then the error is [`OpenEoError::TimeLimit`], and the job goes on. Defaults to no limit.
    pub fn time_limit(mut self, limit: impl Into<Option<Duration>>) -> WaitOptions<'a> {
        self.time_limit = limit.into();
        self
    }

    /// Whether a job that ends otherwise than finished is an error. Defaults to yes.
    pub fn require_success(mut self, required: bool) -> WaitOptions<'a> {
        self.require_success = required;
        self
    }

    /// Whether the error logs of a job that failed are printed. Defaults to yes.
    pub fn show_error_logs(mut self, shown: bool) -> WaitOptions<'a> {
        self.show_error_logs = shown;
        self
    }

    /// Called with each line. Defaults to standard output.
    pub fn printer(mut self, print: impl FnMut(&str) + 'a) -> WaitOptions<'a> {
        self.printer = Box::new(print);
        self
    }

    /// Prints nothing.
    pub fn quiet(self) -> WaitOptions<'a> {
        self.printer(|_| {})
    }

    /// Asked before each look, and ten times a second between two; `true` ends the wait with [`OpenEoError::Cancelled`], and the
    /// job goes on. A look that is on its way delays that up to its own time limit.
    pub fn cancelled(mut self, cancelled: impl Fn() -> bool + 'a) -> WaitOptions<'a> {
        self.cancelled = Box::new(cancelled);
        self
    }
}

impl Default for WaitOptions<'_> {
    fn default() -> Self {
        WaitOptions::new()
    }
}

impl fmt::Debug for WaitOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitOptions")
            .field("poll", &self.poll)
            .field("soft_errors", &self.soft_errors)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

impl BatchJob {
    /// Starts the job, and waits for its end. It prints how the job stands at each look, and if it fails, its error logs.
    ///
    /// # Timing
    /// Monotonic clock, counted from this call; the time limit bounds the wait, not the job.
    /// # Errors
    /// [`OpenEoError::JobFailed`], with the error logs, if it ends otherwise than finished; [`OpenEoError::TimeLimit`] and
    /// [`OpenEoError::TooManySoftErrors`], after which the job goes on; the back-end's.
    pub fn start_and_wait(&self, options: WaitOptions<'_>) -> Result<JobDescription, OpenEoError> {
        let mut wait = Wait::new(options);
        wait.say(self, "send 'start'");
        self.start()?;
        wait.until_end(self)
    }

    /// Waits for the end of a job that was started before, here or elsewhere.
    ///
    /// # Errors
    /// As for [`start_and_wait`](BatchJob::start_and_wait). A job that nobody ever starts is waited for until the limit.
    pub fn wait(&self, options: WaitOptions<'_>) -> Result<JobDescription, OpenEoError> {
        Wait::new(options).until_end(self)
    }
}

impl Connection {
    /// Waits for many jobs at once, of this back-end or others, in input order: how each has ended, or why that can't be
    /// told. From four jobs on, a back-end is asked for its job list once instead of for each. A line is printed for each
    /// change of a status.
    ///
    /// The error of one job is its own: the others are still waited for. A look that takes longer than the pause between two (at
    /// least 1 s, at most 10 s) counts as failed softly, and is made after the others the next time, so that one job whose status
    /// doesn't come keeps nobody waiting. A back-end that doesn't answer is left alone until the next round, and if it answered
    /// nothing in this one, that is a soft error of all its jobs.
    pub fn wait_jobs(jobs: &[BatchJob], options: WaitOptions<'_>) -> Vec<Result<JobDescription, OpenEoError>> {
        let mut wait = Wait::new(options);
        let mut open: Vec<Watched> = jobs.iter().map(Watched::new).collect();
        for round in 0.. {
            let brief = wait.options.poll.delay(round).clamp(BRIEF.0, BRIEF.1);
            wait.look_at_all(&mut open, brief);
            let left = open.iter().filter(|watched| watched.end.is_none()).count();
            if left == 0 {
                break;
            }
            if !wait.let_pass(wait.options.poll.delay(round)) {
                for watched in open.iter_mut().filter(|watched| watched.end.is_none()) {
                    watched.end = Some(Err(wait.out_of_time(watched.job, watched.last.clone())));
                }
            }
        }
        open.into_iter().map(|watched| watched.end.unwrap_or_else(|| Err(gone(watched.job)))).collect()
    }
}

/// One of many jobs that are waited for.
struct Watched<'a> {
    job: &'a BatchJob,
    last: Option<JobStatus>,
    soft: u32,
    /// When its own look failed softly the last time, unless it has succeeded since.
    failed: Option<Instant>,
    /// Until when it is left alone.
    not_before: Option<Instant>,
    end: Option<Result<JobDescription, OpenEoError>>,
}

impl<'a> Watched<'a> {
    fn new(job: &'a BatchJob) -> Watched<'a> {
        Watched { job, last: None, soft: 0, failed: None, not_before: None, end: None }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.end.is_none() && self.not_before.is_none_or(|at| now >= at)
    }
}

struct Wait<'a> {
    options: WaitOptions<'a>,
    began: Instant,
    deadline: Deadline,
}

impl<'a> Wait<'a> {
    fn new(options: WaitOptions<'a>) -> Wait<'a> {
        let deadline = Deadline::start(options.time_limit);
        Wait { options, began: Instant::now(), deadline }
    }

    fn until_end(&mut self, job: &BatchJob) -> Result<JobDescription, OpenEoError> {
        let (mut looks, mut soft, mut last) = (0, 0, None);
        loop {
            let delay = match job.describe_within(self.left()) {
                Ok(found) => {
                    soft = 0;
                    self.say(job, &format!("{} (progress {})", found.status(), found.shown_progress()));
                    if found.status().is_ended() {
                        return self.end(job, found);
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

    /// One look at each job that is due, as far as its back-end answers.
    fn look_at_all(&mut self, open: &mut [Watched<'_>], brief: Duration) {
        let now = Instant::now();
        let mut due: Vec<&mut Watched<'_>> = open.iter_mut().filter(|watched| watched.is_due(now)).collect();
        // Whose status didn't come, comes last.
        due.sort_by_key(|watched| watched.failed);
        while let Some(root) = due.first().map(|watched| watched.job.connection().clone()) {
            let (of_root, others) =
                due.into_iter().partition(|watched| watched.job.connection().root_url() == root.root_url());
            self.look_at_back_end(&root, of_root, brief);
            due = others;
        }
    }

    fn look_at_back_end(&mut self, root: &Connection, due: Vec<&mut Watched<'_>>, brief: Duration) {
        // What the list doesn't tell, each job does.
        let listed = if due.len() >= LIST_FROM && !self.is_over() {
            root.first_page(due.len() * 2, Pace::Patient, Some(brief)).unwrap_or_default()
        } else {
            Vec::new()
        };
        let mut answers = !listed.is_empty();
        let mut due = due.into_iter();
        while let Some(watched) = due.next() {
            if self.is_over() {
                return;
            }
            let listed = listed.iter().find(|entry| entry.id() == watched.job.id());
            let Err(error) = self.look(watched, listed.map(JobDescription::status), brief) else {
                answers = true;
                continue;
            };
            watched.failed = Some(Instant::now());
            let (is_silent, error) = (is_silence(&error), Arc::new(error));
            self.put_off(watched, &error);
            if watched.end.is_none() {
                self.say(watched.job, &format!("{} while polling job status: {error}", kind_of(&error)));
            }
            if is_silent {
                due.filter(|_| !answers).for_each(|other| self.put_off(other, &error));
                return;
            }
        }
    }

    /// One look at one job; the error is a soft one.
    fn look(
        &mut self,
        watched: &mut Watched<'_>,
        listed: Option<JobStatus>,
        brief: Duration,
    ) -> Result<(), OpenEoError> {
        let job = watched.job;
        if let Some(status) = listed.filter(|status| !status.is_ended() && !matches!(status, JobStatus::Other(_))) {
            self.tell_change(watched, status);
            return Ok(());
        }
        match job.describe_within(Some(self.left().map_or(brief, |left| left.min(brief)))) {
            Ok(found) => {
                self.tell_change(watched, found.status());
                if found.status().is_ended() {
                    watched.end = Some(self.end(job, found));
                }
            }
            Err(error) if is_soft(&error) => return Err(error),
            Err(error) => watched.end = Some(Err(error)),
        }
        Ok(())
    }

    /// After a soft error a job is left alone for a while, or, if that was one too many, for good.
    fn put_off(&self, watched: &mut Watched<'_>, error: &Arc<OpenEoError>) {
        watched.soft += 1;
        watched.not_before = Instant::now().checked_add(self.soft_pause(error));
        if watched.soft > self.options.soft_errors {
            watched.end = Some(Err(too_many(watched.job, watched.soft, Arc::clone(error))));
        }
    }

    fn tell_change(&mut self, watched: &mut Watched<'_>, status: JobStatus) {
        (watched.soft, watched.failed) = (0, None);
        if watched.last.as_ref() != Some(&status) {
            self.say(watched.job, status.as_str());
            watched.last = Some(status);
        }
    }

    /// What the end of a job means.
    fn end(&mut self, job: &BatchJob, found: JobDescription) -> Result<JobDescription, OpenEoError> {
        let status = found.status();
        if !self.options.require_success || status == JobStatus::Finished {
            return Ok(found);
        }
        let logs = job.logs(None, LogLevel::Error);
        if self.options.show_error_logs {
            self.show_logs(job, &logs);
        }
        Err(OpenEoError::JobFailed { id: job.id().to_owned(), status, logs: logs.unwrap_or_default() })
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

    fn say(&mut self, job: &BatchJob, what: &str) {
        let line = format!("{} Job '{}': {what}", clock(self.began.elapsed()), super::text::plain(job.id(), 200));
        (self.options.printer)(&line);
    }

    /// What is left of the time limit.
    fn left(&self) -> Option<Duration> {
        self.deadline.at().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Waits, at most until the deadline; `false` if there is no more time, or it was cancelled.
    fn let_pass(&self, delay: Duration) -> bool {
        let passed = pause(self.left().map_or(delay, |left| delay.min(left)), &*self.options.cancelled);
        passed && !self.deadline.is_past()
    }

    /// Whether nothing more is asked. A limit of nothing means one look at each job.
    fn is_over(&self) -> bool {
        let is_late = self.deadline.is_past() && !self.deadline.is_zero();
        is_late || (self.options.cancelled)() || crate::request::is_cancelled()
    }

    fn soft_pause(&self, error: &OpenEoError) -> Duration {
        let asked = error.http().and_then(HttpError::retry_after).unwrap_or_default();
        self.options.soft_error_pause.max(asked.min(Duration::from_secs(3600)))
    }

    fn out_of_time(&self, job: &BatchJob, last: Option<JobStatus>) -> OpenEoError {
        let id = job.id().to_owned();
        if !self.deadline.is_past() {
            return OpenEoError::Cancelled { id };
        }
        let status = last.unwrap_or_else(|| JobStatus::of("unknown"));
        OpenEoError::TimeLimit { id, status, limit: self.deadline.limit() }
    }
}

fn gone(job: &BatchJob) -> OpenEoError {
    OpenEoError::Cancelled { id: job.id().to_owned() }
}

fn too_many(job: &BatchJob, count: u32, source: Arc<OpenEoError>) -> OpenEoError {
    OpenEoError::TooManySoftErrors { id: job.id().to_owned(), count, source }
}

/// What passes by itself.
pub(super) fn is_soft(error: &OpenEoError) -> bool {
    error.is_retryable()
}

/// Whether the next question would mostly come to the same, after as long a wait.
fn is_silence(error: &OpenEoError) -> bool {
    use HttpErrorKind::{Broken, Connect, Proxy, RateLimited, Timeout, Tls};
    matches!(error.http().map(HttpError::kind), Some(Broken | Connect | Proxy | RateLimited | Timeout | Tls))
}

fn kind_of(error: &OpenEoError) -> &'static str {
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

    #[test]
    fn looks_grow_by_a_quarter_from_5_to_60_seconds() {
        let options = WaitOptions::new();
        let delays: Vec<u64> = (0..14).map(|look| options.poll.delay(look).as_millis() as u64 / 10).collect();
        assert_eq!(delays, [500, 625, 781, 976, 1220, 1525, 1907, 2384, 2980, 3725, 4656, 5820, 6000, 6000]);
    }
}
