//! A pause that ends early if the caller of the request says so, or if the operation that this
//! thread runs is cancelled.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::sync::{interrupt, thread};
use crate::time::Deadline;

/// How often a wait calls the caller's `cancelled`, which can't wake the waiting thread.
const LOOK: Duration = Duration::from_millis(100);

/// A caller's way to end a wait, if there is one.
pub(crate) type Cancelled<'a> = Option<&'a (dyn Fn() -> bool + 'a)>;

/// Whether a wait has to end: this thread's operation was cancelled, or `cancelled` returns true.
pub(super) fn is_cancelled(cancelled: Cancelled<'_>) -> bool {
    interrupt::is_cancelled() || cancelled.is_some_and(|cancelled| cancelled())
}

/// A caller's `cancelled` that stays true once it has returned true. The wait that has seen it may
/// end with another error, after which the next wait asks again.
pub(super) fn lasting(cancelled: impl Fn() -> bool) -> impl Fn() -> bool {
    let was = Cell::new(false);
    move || {
        was.set(was.get() || cancelled());
        was.get()
    }
}

/// When to call `cancelled` again, if there is one.
pub(super) fn next_look(cancelled: Cancelled<'_>) -> Option<Instant> {
    cancelled.map(|_| Instant::now() + LOOK)
}

/// Waits for `delay`, at most until `deadline`. Returns false if `cancelled` returned true
/// meanwhile, or, at once, if the operation that this thread runs is cancelled.
pub(crate) fn pause(delay: Duration, deadline: Deadline, cancelled: Cancelled<'_>) -> bool {
    let (end, sleeper) = (Deadline::start(delay), thread::current());
    let _interrupt = interrupt::on_cancel(move || sleeper.unpark());
    while !is_cancelled(cancelled) {
        if end.is_past() || deadline.is_past() {
            return true;
        }
        thread::park_until([end.at(), deadline.at(), next_look(cancelled)].into_iter().flatten().min());
    }
    false
}
