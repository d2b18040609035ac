//! A pause on the caller's own thread.

use std::time::Duration;

use crate::client::http;
use crate::time::Deadline;

/// Waits for `delay` on the caller's thread. Returns false if `cancelled` returned true meanwhile,
/// or if the thread runs an operation of an executor and that was cancelled.
pub(crate) fn pause(delay: Duration, cancelled: &dyn Fn() -> bool) -> bool {
    http::pause(delay, Deadline::start(None), Some(&cancelled))
}
