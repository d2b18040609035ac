//! How requests that were held back are queued, and how those that have not started are cancelled.

use std::sync::Arc;

use super::core::Core;
use super::current;
use super::lifecycle::Outside;
use super::order::{Entered, Released};
use super::pool::Task;
use super::request::{NO_TICKET, Observer, Status};
use crate::lanes::LaneKey;
use crate::sync::Ordering;

impl Core {
    /// Queues requests that another one stood in the way of until `now`, on the executor's clock.
    pub(super) fn release(self: &Arc<Core>, released: Released, now: u64) {
        if released.is_empty() {
            return;
        }
        if released.iter().any(|job| job.head().is_limited()) {
            return self.release_or_ask(released, now);
        }
        self.release_all(released, now);
    }

    /// As `release`, where some have to wait for their turn.
    fn release_or_ask(self: &Arc<Core>, released: Released, now: u64) {
        if let (Some(room), Some(key)) = (&self.room, released.key) {
            room.leave_lane(key);
        }
        for job in released {
            if job.head().is_limited() {
                self.ask_limit(job);
            } else {
                self.release_all(Released::one(job), now);
            }
        }
    }

    /// Queues one request that nothing holds back any more.
    pub(super) fn release_admitted(self: &Arc<Core>, job: Task) {
        self.release_all(Released::one(job), self.clock.now());
    }

    /// Queues the requests at `now`, but for those that were cancelled meanwhile, and wakes or
    /// starts a thread. None of them may have a limit to ask. Call it under no lock: if the system
    /// refuses threads, it runs operations.
    fn release_all(self: &Arc<Core>, released: Released, now: u64) {
        let key = released.key;
        // Before they are queued, because each gives its place back when it starts.
        let places = released.iter().count() as u64;
        if let Some(room) = &self.room {
            room.enter_queue(places);
        }
        // Kept for the subscriber of their spans, which is called under no lock.
        let traced: Vec<Task> = if cfg!(feature = "tracing") { released.iter().cloned().collect() } else { Vec::new() };
        let mut count = 0;
        let wakeup = self.pool.push_released(released, now, |job, observed| {
            count += 1;
            if observed {
                self.observers.wake_threads(job.head());
            }
        });
        if let Some(room) = &self.room {
            (count..places).for_each(|_| room.leave_queue());
            if let Some(key) = key {
                room.leave_lane(key);
            }
        }
        self.act(wakeup);
        traced.iter().for_each(|job| job.head().trace.queued());
    }

    /// Queues one request that was held back by something else than its key.
    pub(super) fn release_one(self: &Arc<Core>, job: Task) {
        self.release(Released::one(job), self.clock.now());
    }

    /// Cancels a request that was on its way from one place to the next while `cancel_all` looked
    /// at both.
    pub(super) fn stop_late(self: &Arc<Core>, job: &Task) {
        if self.is_stopped(job.head()) {
            self.cancel(job);
        }
    }

    /// Orders and queues requests whose time has come.
    pub(super) fn release_due(self: &Arc<Core>, lane: Option<LaneKey>, job: Task) {
        self.order_due(lane, &job);
        self.stop_late(&job);
    }

    pub(super) fn order_due(self: &Arc<Core>, lane: Option<LaneKey>, job: &Task) {
        let Some(key) = lane else { return self.release_one(job.clone()) };
        match self.order.enter_accepted(key, job) {
            Entered::Ready => self.release_one(job.clone()),
            Entered::Deferred => self.note_dependent(job),
            Entered::Full => {
                self.cancel(job);
            }
            Entered::Closed => {}
        }
    }

    /// Takes a request out if it has not started, otherwise tells its operation. Says whether it
    /// did.
    pub(super) fn cancel(self: &Arc<Core>, job: &Task) -> bool {
        self.cancel_for(job, false)
    }

    /// As `cancel`; a time limit has passed if the request `is_expired`.
    pub(super) fn cancel_for(self: &Arc<Core>, job: &Task, is_expired: bool) -> bool {
        job.head().request_cancel();
        let is_out = self.take_out(job, is_expired);
        if !is_out {
            self.interrupt(job);
        }
        is_out
    }

    /// Ends the wait of a request that runs, and calls its hooks.
    fn interrupt(self: &Arc<Core>, job: &Task) {
        let foreign = self.interrupts.wake_wait(job.head());
        if !current::is_timer() {
            foreign.call();
        } else if !foreign.is_empty() {
            self.call_foreign(Outside::enter(self), move || foreign.call());
        }
    }

    /// Takes a request out if it has not started. Says whether it did.
    pub(super) fn take_out(self: &Arc<Core>, job: &Task, is_expired: bool) -> bool {
        // A shutdown that finds the request cancelled also waits for its callbacks.
        let outside = Outside::enter(self);
        let head = job.head();
        let now = self.clock.now();
        let Some((before, observed)) = head.cancel(now, is_expired) else {
            return false;
        };
        let deferred = before == Status::Deferred;
        // Release: pairs with `stats`, which then also sees the acceptance.
        let counter = if deferred { &self.cancelled_deferred } else { &self.cancelled_queued };
        counter.fetch_add(1, Ordering::Release);
        if deferred && head.ticket() == NO_TICKET {
            self.order.await_entry();
        }
        let ((), released) = self.order.leave(head, || ());
        if let Some(room) = &self.room {
            if !deferred {
                room.leave_queue();
            } else if let Some(key) = released.key {
                room.leave_lane(key);
            }
        }
        self.release(released, now);
        head.trace.end(Status::Cancelled);
        let entry = if observed { self.observers.take(head) } else { None };
        if let Some(alarm) = entry.as_ref().and_then(|entry| entry.alarm) {
            drop(self.timer.remove(alarm));
        }
        self.unfollow(job);
        if head.is_limited() {
            self.forget_limited(head);
        }
        let told = entry.map(|entry| entry.tell(Status::Cancelled)).unwrap_or_default();
        let (others, foreign): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|observer| matches!(observer, Observer::Others(_)));
        if !others.is_empty() {
            // First, because the end of a group is not to wait for callbacks and destructors.
            current::call_nested(move || others.into_iter().for_each(|group| group.tell(Status::Cancelled)));
        }
        let doomed = job.clone();
        self.call_foreign(outside, move || {
            doomed.discard();
            drop(doomed);
            foreign.into_iter().for_each(|observer| observer.tell(Status::Cancelled));
        });
        if !deferred {
            self.pool.note_stale();
        }
        true
    }
}
