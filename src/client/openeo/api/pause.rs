//! Waiting without sleeping: on a condition variable with a deadline, looking at what may end the wait.

use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};

/// How often a wait asks a caller's `cancelled`, which has no way to wake anybody.
const LOOK: Duration = Duration::from_millis(100);

/// Lets `delay` pass on the caller's own thread. `false` if `cancelled` said so meanwhile, or the operation of an executor
/// that waits here was cancelled.
pub(crate) fn pause(delay: Duration, cancelled: &dyn Fn() -> bool) -> bool {
    let end = Instant::now().checked_add(delay);
    let (lock, cond) = (Mutex::new(()), Condvar::new());
    let mut guard = lock.lock();
    loop {
        if cancelled() || crate::request::is_cancelled() {
            return false;
        }
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            return true;
        }
        let look = now + LOOK;
        // Woken by nobody but the clock.
        let _ = cond.wait_until(&mut guard, end.map_or(look, |end| end.min(look)));
    }
}
