//! How requests that were held back are queued, and how those that have not started are cancelled.

use std::sync::Arc;

use super::core::Core;
use super::current;
use super::lifecycle::Outside;
use super::order::{Entered, Released};
use super::pool::Task;
use super::request::{NO_TICKET, Status};
use crate::lanes::LaneKey;
use crate::sync::Ordering;

impl Core {
    /// Queues requests that another one stood in the way of.
    pub(super) fn release(self: &Arc<Core>, released: Released) {
        if released.is_empty() {
            return;
        }
        let key = released.key;
        // Before they are queued, because each gives its place back when it starts.
        let places = released.iter().count() as u64;
        if let Some(room) = &self.room {
            room.enter_queue(places);
        }
        // Kept for the subscriber of their spans, which is called under no lock.
        let traced: Vec<Task> = if cfg!(feature = "tracing") { released.iter().cloned().collect() } else { Vec::new() };
        let mut count = 0;
        let wakeup = self.pool.push_released(released, |job, observed| {
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
        self.release(Released::one(job));
    }

    /// Orders and queues requests whose time has come.
    pub(super) fn release_due(self: &Arc<Core>, lane: Option<LaneKey>, job: Task) {
        let Some(key) = lane else { return self.release_one(job) };
        match self.order.enter_accepted(key, &job) {
            Entered::Ready => self.release_one(job),
            // A thread that waits for it may find that it waits for itself now.
            Entered::Deferred => self.observers.wake_threads(job.head()),
            Entered::Full => {
                self.cancel(&job);
            }
            Entered::Closed => {}
        }
    }

    /// Takes a request out if it has not started, otherwise tells its operation. Says whether it did.
    pub(super) fn cancel(self: &Arc<Core>, job: &Task) -> bool {
        // A shutdown that finds the request cancelled also waits for its callbacks.
        let outside = Outside::enter(self);
        let head = job.head();
        let Some((before, observed)) = head.cancel(self.clock.now()) else {
            self.interrupts.call(head);
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
        self.release(released);
        head.trace.end(Status::Cancelled);
        let entry = if observed { self.observers.take(head) } else { None };
        if let Some(alarm) = entry.as_ref().and_then(|entry| entry.alarm) {
            drop(self.timer.remove(alarm));
        }
        self.unfollow(job);
        let foreign = entry.map(|entry| entry.tell(Status::Cancelled)).unwrap_or_default();
        let doomed = job.clone();
        current::call_nested(move || {
            {
                // A wait for this executor's end, in a callback, would wait for the callback.
                let _scope = current::enter_core(outside.core());
                doomed.discard();
                drop(doomed);
                foreign.into_iter().for_each(|observer| observer.tell(Status::Cancelled));
            }
            drop(outside);
        });
        if !deferred {
            self.pool.note_stale();
        }
        true
    }
}
