//! The executor as a whole: its counters, and how it closes, opens again and ends.

use std::sync::Arc;

use super::core::{Closed, Core, Due};
use super::stats::Stats;
use crate::error::{Error, Result};
use crate::panics;
use crate::sync::Ordering;
use crate::time::Deadline;
use crate::timer::{Clockwork, Timer};

impl Core {
    pub(super) fn stats(&self) -> Stats {
        // In the opposite order of a request's life: what is counted at a stage is then counted at all earlier ones.
        let ran = self.ran.read();
        let cancelled_queued = self.cancelled_queued.load(Ordering::Acquire);
        let cancelled_deferred = self.cancelled_deferred.load(Ordering::Acquire);
        let (pushed, released) = self.pool.pushed();
        let deferred = self.order.deferred();
        Stats {
            submitted: pushed - released + deferred,
            deferred: deferred - released - cancelled_deferred,
            queued: pushed - ran.started - cancelled_queued,
            running: ran.started - ran.completed - ran.failed - ran.panicked,
            completed: ran.completed,
            failed: ran.failed,
            panicked: ran.panicked,
            cancelled: cancelled_deferred + cancelled_queued,
            threads: self.pool.threads(),
        }
    }

    /// Refuses new requests from now on.
    pub(super) fn close(&self) {
        let lifecycle = self.lifecycle.lock();
        self.closed.lock().get_or_insert(Closed::ShutDown);
        self.order.close();
        self.pool.close();
        // What was accepted keeps its time; a series has no end of its own.
        let given_up = self.timer.close(|due| matches!(due, Due::Request { .. }));
        if let Some(room) = &self.room {
            room.call_all();
        }
        // A series that is told so drops what its user captured: not under a lock.
        drop(lifecycle);
        for given_up in given_up {
            if let Due::Alarm(alarmed) = given_up {
                panics::contain(|| alarmed.give_up());
            }
        }
    }

    /// Takes requests again, or still, with new threads. Returns what to wait for the end of the old ones with.
    pub(super) fn reopen(self: &Arc<Core>, threads: usize) -> u64 {
        // Without it, a shutdown at the same time may close parts that were just opened.
        let lifecycle = self.lifecycle.lock();
        let mut closed = self.closed.lock();
        self.timer.open();
        let (epoch, wakeup) = self.pool.reset(threads);
        self.order.open();
        *closed = None;
        drop(closed);
        drop(lifecycle);
        self.act(wakeup);
        epoch
    }

    /// An error if it was never opened, because a setting from outside makes no sense.
    pub(super) fn check_settings(&self) -> Result<()> {
        match &*self.closed.lock() {
            Some(closed @ Closed::Misconfigured(_)) => Err(closed.error()),
            _ => Ok(()),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.lock().is_some()
    }

    /// Waits until nothing is left of what was accepted, and no thread. Only after `close`.
    pub(super) fn wait_for_end(&self, deadline: Deadline) -> Result<()> {
        let reopened = || !self.is_closed();
        // SeqCst: pairs with `Outside`, so that either this look finds it gone, or it finds the executor closed.
        let ended = |no_thread: bool| {
            let idle = || self.outside.load(Ordering::SeqCst) == 0 && !self.timer.is_running();
            reopened() || (no_thread && self.stats().unfinished() == 0 && idle())
        };
        if !self.pool.wait_for_end(deadline, ended) {
            return Err(Error::Timeout { limit: deadline.limit(), left: self.stats().unfinished() });
        }
        if !reopened() {
            self.timer.join();
        }
        Ok(())
    }
}

/// Code at work for an executor on a thread that is not its pool's: a shutdown waits for it.
pub(super) struct Outside(Arc<Core>);

impl Outside {
    pub(super) fn enter(core: &Arc<Core>) -> Outside {
        core.outside.fetch_add(1, Ordering::Relaxed);
        Outside(core.clone())
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.0
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // SeqCst: pairs with the load in `wait_for_end`.
        self.0.outside.fetch_sub(1, Ordering::SeqCst);
        if self.0.order.is_closed() {
            self.0.pool.nudge();
        }
    }
}

impl Clockwork for Core {
    type Entry = Due;

    fn timer(&self) -> &Timer<Due> {
        &self.timer
    }

    fn shared(&self) -> Arc<Core> {
        self.me.upgrade().expect("the caller of a method holds the core")
    }

    fn fire(&self, due: Vec<Due>) {
        let core = self.shared();
        for due in due {
            match due {
                Due::Request { job, lane } => core.release_due(lane, job),
                Due::Alarm(alarmed) => panics::contain(|| alarmed.ring()),
                Due::Thread => core.start_missing(),
            }
        }
    }

    fn wound_down(&self) {
        self.pool.nudge();
    }
}
