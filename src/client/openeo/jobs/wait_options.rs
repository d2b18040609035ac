//! The options of waiting for a job.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use crate::backoff::Backoff;

type Printer<'a> = Box<dyn FnMut(&str) + 'a>;

/// Options of waiting for a job: delays, limits, and what is printed. The defaults are the Python
/// client's.
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
    pub(super) poll: Backoff,
    pub(super) soft_errors: u32,
    pub(super) soft_error_pause: Duration,
    pub(super) time_limit: Option<Duration>,
    pub(super) require_success: bool,
    pub(super) show_error_logs: bool,
    pub(super) printer: Printer<'a>,
    pub(super) cancelled: Box<dyn Fn() -> bool + 'a>,
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
            // Not `println!`: it panics if the reader of a pipe has closed it.
            printer: Box::new(|line| drop(writeln!(std::io::stdout(), "{line}"))),
            cancelled: Box::new(|| false),
        }
    }

    /// The delays between looks. Defaults to 5 s, growing by a quarter each time, up to 60 s.
    pub fn poll(mut self, schedule: Backoff) -> WaitOptions<'a> {
        self.poll = schedule;
        self
    }

    /// How many looks in a row may have a soft error (no connection, a timeout, 429, 502, 503,
    /// 504), and how long to wait after each. Defaults to 10 and 30 s. If the server asks for a
    /// longer pause, it waits for that, up to an hour.
    pub fn soft_errors(mut self, count: u32, pause: Duration) -> WaitOptions<'a> {
        self.soft_errors = count;
        self.soft_error_pause = pause;
        self
    }

    /// How long to wait in all. After that the wait fails with
    /// [`TimeLimit`](crate::client::openeo::OpenEoError::TimeLimit), and the job goes on. Defaults
    /// to no limit.
    pub fn time_limit(mut self, limit: impl Into<Option<Duration>>) -> WaitOptions<'a> {
        self.time_limit = limit.into();
        self
    }

    /// Whether it is an error if the job ends with another status than `finished`. Defaults to yes.
    pub fn require_success(mut self, required: bool) -> WaitOptions<'a> {
        self.require_success = required;
        self
    }

    /// Whether the error logs of a job that failed are printed. Defaults to yes.
    pub fn show_error_logs(mut self, shown: bool) -> WaitOptions<'a> {
        self.show_error_logs = shown;
        self
    }

    /// A function that gets each line. By default lines go to standard output.
    pub fn printer(mut self, print: impl FnMut(&str) + 'a) -> WaitOptions<'a> {
        self.printer = Box::new(print);
        self
    }

    /// Prints nothing.
    pub fn quiet(self) -> WaitOptions<'a> {
        self.printer(|_| {})
    }

    /// A function that ends the wait when it returns true. It is called before each look, and ten
    /// times a second between two. Then the wait fails with
    /// [`Cancelled`](crate::client::openeo::OpenEoError::Cancelled), and the job goes on. A request
    /// that is running first ends, or reaches its own time limit.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_grow_by_a_quarter_from_5_to_60_seconds() {
        let options = WaitOptions::new();
        let delays: Vec<u64> = (0..14).map(|look| options.poll.delay(look).as_millis() as u64 / 10).collect();
        assert_eq!(delays, [500, 625, 781, 976, 1220, 1525, 1907, 2384, 2980, 3725, 4656, 5820, 6000, 6000]);
    }
}
