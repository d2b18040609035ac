//! The executor as a whole: its counters, and how it closes, opens again and ends.

use std::cell::Cell;
use std::sync::Arc;

use super::core::{Closed, Core, Due};
use super::current;
use super::request::Head;
use super::stats::Stats;
use crate::error::{Error, Result};
use crate::panics;
use crate::sync::Ordering;
use crate::time::Deadline;
use crate::timer::{Clockwork, Timer};

impl Core {
    /// A snapshot of the counters. They are read one after the other while requests go on, in an
    /// order in which the sum in `Stats` always holds.
    pub(super) fn stats(&self) -> Stats {
        // In the opposite order of a request's life: what is counted at a stage is then counted at
        // all earlier ones.
        let ran = self.ran.read();
        let cancelled_queued = self.cancelled_queued.load(Ordering::Acquire);
        let cancelled_deferred = self.cancelled_deferred.load(Ordering::Acquire);
        let (pushed, released) = self.pool.pushed();
        let deferred = self.order.deferred();
        Stats {
            // `released` were deferred and then pushed: count them once.
            submitted: pushed - released + deferred,
            deferred: deferred - released - cancelled_deferred,
            queued: pushed - ran.started - cancelled_queued,
            running: ran.started - ran.completed - ran.failed - ran.panicked - ran.refused,
            completed: ran.completed,
            failed: ran.failed,
            panicked: ran.panicked,
            cancelled: cancelled_deferred + cancelled_queued + ran.refused,
            threads: self.pool.threads(),
        }
    }

    /// Refuses new requests from now on. Returns a number above those of all that were accepted.
    pub(super) fn close(&self) -> u64 {
        let lifecycle = self.lifecycle.lock();
        self.closed.lock().get_or_insert(Closed::ShutDown);
        self.order.close();
        self.pool.close();
        let accepted_below = self.next_number();
        // A thread that the system has refused is tried again as long as it has work: there may be
        // no other one, and those that wait for the end start none.
        let is_missing = self.pool.has_queued();
        // What was accepted keeps its time; a series has no end of its own.
        let given_up = self.timer.close(|due| match due {
            Due::Request { .. } | Due::Limit(_) => true,
            Due::Thread => is_missing,
            Due::Alarm(_) => false,
        });
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
        accepted_below
    }

    /// Takes out what has not started of the requests that are numbered below `accepted_below`, and
    /// tells those that run. Only after `close`. Says how many it took out.
    pub(super) fn cancel_all(self: &Arc<Core>, accepted_below: u64) -> usize {
        // SeqCst: before all looks, so that what passes from one place to the next behind them is
        // stopped there (`stop_late`).
        self.stopped.fetch_max(accepted_below, Ordering::SeqCst);
        // Along a request's way, so that none gets past a place before it is looked at.
        let timed = self.timer.select(|due| match due {
            Due::Request { job, .. } => Some(job.clone()),
            _ => None,
        });
        let following = self.waits.lock().followers();
        // The last of each lane first: otherwise the end of one would start the next.
        let ordered = self.order.unstarted();
        let limited = self.limited.lock().values().map(|limited| limited.job.clone()).collect();
        let queued = self.pool.unstarted();
        let unstarted = [timed, following, ordered, limited, queued];
        let cancelled =
            unstarted.iter().flatten().filter(|job| self.is_stopped(job.head()) && self.cancel(job)).count();
        // What runs is told last: its end would have the next one start. Before the look for hooks,
        // as in `cancel`.
        self.told.fetch_max(accepted_below, Ordering::SeqCst);
        self.interrupts.call_below(accepted_below);
        cancelled
    }

    /// Whether `shutdown_now` has the request not start any more.
    pub(super) fn is_stopped(&self, head: &Head) -> bool {
        // SeqCst: pairs with `cancel_all`.
        !head.is_kept() && head.id() < self.stopped.load(Ordering::SeqCst)
    }

    /// Whether `shutdown_now` has told the request to end.
    pub(super) fn is_told(&self, head: &Head) -> bool {
        // SeqCst: as above.
        !head.is_kept() && head.id() < self.told.load(Ordering::SeqCst)
    }

    /// Waits until nothing is left of what was accepted, and all threads sleep; or until the wait
    /// `is_interrupted`, for which `nudge_all` has it look.
    pub(super) fn wait_for_idle(&self, deadline: Deadline, is_interrupted: impl Fn() -> bool) -> Result<()> {
        let _watch = self.pool.watch_idle();
        // AcqRel, and a read-modify-write: pairs with the one in `Outside::drop`. If that comes
        // first, this thread sees what the other one has counted; otherwise that one sees that this
        // one watches.
        let outside = || self.outside.fetch_add(0, Ordering::AcqRel);
        let is_idle = |_| {
            outside();
            // In this order: callbacks are called behind the ends that the counters tell.
            self.stats().unfinished() == 0 && outside() == 0 && self.pool.all_sleep()
        };
        self.wait_for_pool(deadline, is_idle, is_interrupted)
    }

    /// Waits until `ended` says so, as [`Pool::wait_for_end`](super::pool::Pool::wait_for_end).
    fn wait_for_pool(
        &self,
        deadline: Deadline,
        ended: impl Fn(bool) -> bool,
        is_interrupted: impl Fn() -> bool,
    ) -> Result<()> {
        let has_ended = Cell::new(false);
        let is_over = |no_thread| {
            has_ended.set(ended(no_thread));
            has_ended.get() || is_interrupted()
        };
        match (self.pool.wait_for_end(deadline, is_over), has_ended.get()) {
            (true, true) => Ok(()),
            (true, false) => Err(Error::Interrupted),
            (false, _) => Err(Error::Timeout { limit: deadline.limit(), left: self.stats().unfinished() }),
        }
    }

    /// Has all look again who wait for the end of threads, those beside the pool included.
    pub(super) fn nudge_all(&self) {
        self.pool.nudge();
        self.nudge_aside();
    }

    /// Takes requests again, or still, with new threads. Returns what to wait for the end of the
    /// old ones with.
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

    /// Waits until nothing is left of what was accepted, and no thread; or until the wait
    /// `is_interrupted`, for which `nudge_all` has it look. Only after `close`.
    pub(super) fn wait_for_end(&self, deadline: Deadline, is_interrupted: impl Fn() -> bool + Copy) -> Result<()> {
        let reopened = || !self.is_closed();
        // SeqCst: pairs with `Outside`, so that either this look finds it gone, or it finds the
        // executor closed.
        let ended = |no_thread: bool| {
            let idle = || self.outside.load(Ordering::SeqCst) == 0 && !self.timer.is_running();
            reopened() || (no_thread && self.stats().unfinished() == 0 && idle())
        };
        self.wait_for_pool(deadline, ended, is_interrupted)?;
        if !reopened() {
            self.timer.join();
            self.end_aside(deadline, &is_interrupted)?;
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
}

impl Drop for Outside {
    fn drop(&mut self) {
        // SeqCst: pairs with the looks in `wait_for_end` and in `wait_for_idle`.
        self.0.outside.fetch_sub(1, Ordering::SeqCst);
        if self.0.order.is_closed() || self.0.pool.is_watched() {
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
        current::set_timer();
        for due in due {
            match due {
                Due::Request { job, lane } => core.release_due(lane, job),
                Due::Alarm(alarmed) | Due::Limit(alarmed) => panics::contain(|| alarmed.ring()),
                Due::Thread => core.start_missing(),
            }
        }
    }

    fn wound_down(&self) {
        self.pool.nudge();
    }
}
