//! Waits on the caller's own thread.

use std::time::Duration;

use crate::client::http;
use crate::time::Deadline;

/// Lets `delay` pass on the caller's own thread. `false` if `cancelled` said so meanwhile, or the
/// operation of an executor that waits here was cancelled.
pub(crate) fn pause(delay: Duration, cancelled: &dyn Fn() -> bool) -> bool {
    http::pause(delay, Deadline::start(None), Some(&|| cancelled() || crate::executor::is_cancelled()))
}
