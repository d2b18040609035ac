//! Waiting without sleeping: on a condition variable with a deadline, looking at what may end the
//! wait.

use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};
use crate::time::Deadline;

/// How often a wait asks a caller's `cancelled`, which has no way to wake the waiting thread.
const LOOK: Duration = Duration::from_millis(100);

/// A caller's way to end a wait, if there is one.
pub(crate) type Cancelled<'a> = Option<&'a (dyn Fn() -> bool + 'a)>;

/// When to ask `cancelled` again, if there is one.
pub(super) fn next_look(cancelled: Cancelled<'_>) -> Option<Instant> {
    cancelled.map(|_| Instant::now() + LOOK)
}

/// Waits for `delay`, at most until `deadline`. `false` if `cancelled` said so meanwhile.
pub(crate) fn pause(delay: Duration, deadline: Deadline, cancelled: Cancelled<'_>) -> bool {
    let end = Deadline::start(delay);
    let (lock, cond) = (Mutex::new(()), Condvar::new());
    let mut guard = lock.lock();
    loop {
        if cancelled.is_some_and(|cancelled| cancelled()) {
            return false;
        }
        if end.is_past() || deadline.is_past() {
            return true;
        }
        let look = next_look(cancelled);
        match [end.at(), deadline.at(), look].into_iter().flatten().min() {
            // Only the clock wakes it.
            Some(at) => drop(cond.wait_until(&mut guard, at)),
            None => cond.wait(&mut guard),
        }
    }
}
