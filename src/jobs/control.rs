//! A thread of our own and its handles: its counters, the word to stop, the news of its end.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::queue::Nudge;
use crate::sync::blocking::Lending;
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, thread};
use crate::time::Deadline;

pub(super) struct Control<S> {
    inner: Mutex<Inner<S>>,
    /// A stop, an end, or something in `stats` that a thread waits for.
    changed: Condvar,
    stop: AtomicBool,
    /// Reaches the thread while it waits for the queue.
    nudge: Arc<dyn Nudge>,
}

struct Inner<S> {
    stats: S,
    ended: bool,
}

impl<S: Copy + Default + Send + 'static> Control<S> {
    pub(super) fn new(nudge: Arc<dyn Nudge>) -> Arc<Control<S>> {
        let inner = Mutex::new(Inner { stats: S::default(), ended: false });
        Arc::new(Control { inner, changed: Condvar::new(), stop: AtomicBool::new(false), nudge })
    }

    /// Starts the thread that this controls.
    pub(super) fn start(self: &Arc<Self>, name: String, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let ending = Ending(self.clone());
        let body = move || {
            // Moved in first, so that it is dropped last: all that the body holds is gone when the end is told.
            let _ending = ending;
            body();
        };
        thread::spawn(name, None, body).map_err(Error::Spawn)
    }

    pub(super) fn stats(&self) -> S {
        self.inner.lock().stats
    }

    /// Counts something, and tells those who wait for the counters.
    pub(super) fn count(&self, count: impl FnOnce(&mut S)) {
        count(&mut self.inner.lock().stats);
        self.changed.notify_all();
    }

    /// The flag that tells the thread to stop, for waits on the queue to look at.
    pub(super) fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }

    pub(super) fn is_stopping(&self) -> bool {
        // Relaxed: it protects nothing.
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells the thread to stop, wherever it waits.
    pub(super) fn stop(&self) {
        // Relaxed: a thread that waits looks at it under a lock that is taken here next, first our own, then the queue's.
        if !self.stop.swap(true, Ordering::Relaxed) {
            drop(self.inner.lock());
            self.changed.notify_all();
            self.nudge.nudge();
        }
    }

    /// The thread sleeps until `at`, `None` being never, or until it is told to stop. Says whether it was.
    pub(super) fn sleep_until(&self, at: Option<Instant>) -> bool {
        let mut inner = self.inner.lock();
        while !self.is_stopping() && at.is_none_or(|at| Instant::now() < at) {
            match at {
                None => self.changed.wait(&mut inner),
                Some(at) => drop(self.changed.wait_until(&mut inner, at)),
            }
        }
        self.is_stopping()
    }

    /// The thread waits until `is_so` of the counters, or until it is told to stop. Says whether it was.
    pub(super) fn wait_until(&self, is_so: impl Fn(&S) -> bool) -> bool {
        let mut inner = self.inner.lock();
        while !self.is_stopping() && !is_so(&inner.stats) {
            self.changed.wait(&mut inner);
        }
        self.is_stopping()
    }

    /// Another thread waits until this one has ended and `is_so` of its counters, which come back; or how they stand
    /// when time has run out.
    pub(super) fn wait_for_end(&self, deadline: Deadline, is_so: impl Fn(&S) -> bool) -> std::result::Result<S, S> {
        // In an operation: what it waits for may need this very thread.
        let _lending = (!deadline.is_zero()).then(Lending::begin);
        let mut inner = self.inner.lock();
        let is_over = |inner: &Inner<S>| inner.ended && is_so(&inner.stats);
        while !is_over(&inner) && !deadline.is_past() {
            match deadline.at() {
                None => self.changed.wait(&mut inner),
                Some(at) => drop(self.changed.wait_until(&mut inner, at)),
            }
        }
        if is_over(&inner) { Ok(inner.stats) } else { Err(inner.stats) }
    }
}

/// Tells the end of the thread when it is dropped there, whatever happened.
struct Ending<S: Copy + Default + Send + 'static>(Arc<Control<S>>);

impl<S: Copy + Default + Send + 'static> Drop for Ending<S> {
    fn drop(&mut self) {
        self.0.inner.lock().ended = true;
        self.0.changed.notify_all();
    }
}
