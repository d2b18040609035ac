//! What a thread of this module shares with the handles to it: its counters, the flag to stop it,
//! and whether it has ended.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::queue::Nudge;
use crate::sync::blocking::Lending;
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, interrupt, thread};
use crate::time::Deadline;

pub(super) struct Control<S> {
    inner: Mutex<Inner<S>>,
    /// Notified of a stop, of the thread's end, and of each change of `stats`.
    changed: Condvar,
    stop: AtomicBool,
    /// Wakes the thread while it waits for the queue.
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

    /// Starts the thread, which runs `body`.
    pub(super) fn start(self: &Arc<Self>, name: String, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let ending = Ending(self.clone());
        let body = move || {
            // A local of this closure, so that it is dropped after the body and all that the body
            // holds: a thread that waits for the end finds the user's values dropped.
            let _ending = ending;
            body();
        };
        thread::spawn(name, None, body).map_err(Error::Spawn)
    }

    pub(super) fn stats(&self) -> S {
        self.inner.lock().stats
    }

    /// Changes the counters, and wakes the threads that wait for them.
    pub(super) fn count(&self, count: impl FnOnce(&mut S)) {
        count(&mut self.inner.lock().stats);
        self.changed.notify_all();
    }

    /// The flag that tells the thread to stop: its waits for the queue look at it.
    pub(super) fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }

    pub(super) fn is_stopping(&self) -> bool {
        // Relaxed: the flag protects no data.
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells the thread to stop, and wakes it wherever it waits.
    pub(super) fn stop(&self) {
        // Relaxed: the thread looks at the flag under a lock before it sleeps, ours or the queue's,
        // and we take both of them after this. So it either sees the flag or is woken.
        if !self.stop.swap(true, Ordering::Relaxed) {
            drop(self.inner.lock());
            self.changed.notify_all();
            self.nudge.nudge();
        }
    }

    /// Called by the thread itself: sleeps until `at` (`None`: for ever), or until it is told to
    /// stop. Returns whether it should stop.
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

    /// Called by the thread itself: waits until `is_so` is true of the counters, or until it is
    /// told to stop. Returns whether it should stop.
    pub(super) fn wait_until(&self, is_so: impl Fn(&S) -> bool) -> bool {
        let mut inner = self.inner.lock();
        while !self.is_stopping() && !is_so(&inner.stats) {
            self.changed.wait(&mut inner);
        }
        self.is_stopping()
    }

    /// Called by other threads: waits until the thread has ended and `is_so` is true of its
    /// counters, and returns them. If `deadline` passes first, `left` says what is unfinished.
    pub(super) fn wait_for_end(
        self: &Arc<Self>,
        deadline: Deadline,
        is_so: impl Fn(&S) -> bool,
        left: impl FnOnce(&S) -> u64,
    ) -> Result<S> {
        let waits = !deadline.is_zero();
        // If an operation waits here, lend its thread: what it waits for may need one.
        let _lending = waits.then(Lending::begin);
        let control = self.clone();
        let wake = move || {
            // The waiting thread looks for the cancel under the lock, and so has seen it after
            // this, or sleeps.
            drop(control.inner.lock());
            control.changed.notify_all();
        };
        let _interrupt = waits.then(|| interrupt::on_cancel(wake));
        let mut inner = self.inner.lock();
        loop {
            if inner.ended && is_so(&inner.stats) {
                return Ok(inner.stats);
            }
            if waits && interrupt::is_cancelled() {
                return Err(Error::Interrupted);
            }
            if deadline.is_past() {
                return Err(Error::Timeout { limit: deadline.limit(), left: left(&inner.stats) });
            }
            match deadline.at() {
                None => self.changed.wait(&mut inner),
                Some(at) => drop(self.changed.wait_until(&mut inner, at)),
            }
        }
    }
}

/// Marks the thread as ended when it is dropped, also if the thread panicked.
struct Ending<S: Copy + Default + Send + 'static>(Arc<Control<S>>);

impl<S: Copy + Default + Send + 'static> Drop for Ending<S> {
    fn drop(&mut self) {
        self.0.inner.lock().ended = true;
        self.0.changed.notify_all();
    }
}
