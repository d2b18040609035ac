//! The bound of a bounded queue, and the line of submitters that wait for room.
//!
//! What is bounded: the requests that wait for a thread, together, and those that one key holds
//! back, for each key. So a slow key fills its own lane and no other, and memory is bounded by the
//! number of keys in use. Requests that wait for their time, and continuations, were accepted as
//! such: they are never refused and take no room until they are queued.
//!
//! Submitters that wait for the same thing are let in in the order in which they came, one woken at
//! a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::lanes::LaneKey;
use crate::sync::thread::{self, Thread};
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// What a submission does when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// Returns [`Error::QueueFull`](crate::Error::QueueFull) at once.
    Reject,
    /// Waits for room, at most this long, and returns [`Error::QueueFull`](crate::Error::QueueFull)
    /// then: first come, first let in. Inside an operation another thread works meanwhile in its
    /// place; where only the end of that operation could make room, it is refused at once.
    Wait(Duration),
    /// Runs the operation, and what is ahead of it on its key, on the submitting thread before it
    /// returns: the submitter slows down to what the threads can bear. Where 16 operations run
    /// inside one another on that thread's stack, the pool runs it while the submitter waits.
    CallerRuns,
}

pub(super) struct Room {
    pub(super) limit: u64,
    pub(super) on_full: OnFull,
    state: Mutex<RoomState>,
}

pub(super) struct RoomState {
    /// Requests that wait for a thread.
    queued: u64,
    line: VecDeque<Arc<Waiter>>,
}

/// What there is no room in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Queue,
    Lane(LaneKey),
}

/// A submitter in the line.
pub(super) struct Waiter {
    thread: Thread,
    wants: Full,
    called: AtomicBool,
}

impl Room {
    pub(super) fn new(limit: u64, on_full: OnFull) -> Room {
        Room { limit, on_full, state: Mutex::new(RoomState { queued: 0, line: VecDeque::new() }) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, RoomState> {
        self.state.lock()
    }

    /// A queued request has started, or was cancelled.
    pub(super) fn leave_queue(&self) {
        let mut state = self.state.lock();
        state.queued = state.queued.saturating_sub(1);
        state.call(Full::Queue);
    }

    /// Requests were queued that were accepted before, whether there is room or not.
    pub(super) fn enter_queue(&self, count: u64) {
        self.state.lock().queued += count;
    }

    /// A request is no longer held back on this lane.
    pub(super) fn leave_lane(&self, key: LaneKey) {
        self.state.lock().call(Full::Lane(key));
    }

    /// Has all that wait look again: the executor was closed.
    pub(super) fn call_all(&self) {
        self.state.lock().line.iter().for_each(|waiter| waiter.call());
    }
}

/// The bound as one submission meets it.
pub(super) struct Bound<'a> {
    state: &'a mut RoomState,
    me: Option<&'a Arc<Waiter>>,
    /// `None`: accepted in any case, and counted.
    pub(super) limit: Option<u64>,
    /// Places in the queue that it has taken.
    taken: u64,
}

impl<'a> Bound<'a> {
    /// `me` is the submitter's place in the line, if it has one.
    pub(super) fn new(state: &'a mut RoomState, me: Option<&'a Arc<Waiter>>, limit: Option<u64>) -> Bound<'a> {
        Bound { state, me, limit, taken: 0 }
    }

    /// Whether others came before that wait for the same.
    pub(super) fn is_behind(&self, wants: Full) -> bool {
        let mine = |waiter: &Arc<Waiter>| self.me.is_some_and(|me| Arc::ptr_eq(me, waiter));
        let before = self.state.line.iter().take_while(|waiter| !mine(waiter));
        self.limit.is_some() && before.into_iter().any(|waiter| waiter.wants == wants)
    }

    /// Takes a place in the queue, if there is one.
    pub(super) fn take_place(&mut self) -> bool {
        let fits = self.limit.is_none_or(|limit| self.state.queued < limit) && !self.is_behind(Full::Queue);
        self.state.queued += u64::from(fits);
        self.taken += u64::from(fits);
        fits
    }

    /// The submission was refused.
    pub(super) fn give_back(&mut self) {
        self.state.queued -= std::mem::take(&mut self.taken);
    }
}

impl RoomState {
    /// Joins the line at its end; or stays at its place in it, and waits for `wants` from now on.
    pub(super) fn join(&mut self, me: &mut Option<Arc<Waiter>>, wants: Full) {
        let waiter = Arc::new(Waiter { thread: thread::current(), wants, called: AtomicBool::new(false) });
        let place = me.as_ref().and_then(|me| self.line.iter().position(|other| Arc::ptr_eq(me, other)));
        match place {
            Some(place) => {
                let before = std::mem::replace(&mut self.line[place], waiter.clone());
                if before.wants != wants {
                    // It no longer stands in front of those that wait for what it wanted before.
                    self.call(before.wants);
                }
            }
            None => self.line.push_back(waiter.clone()),
        }
        *me = Some(waiter);
    }

    /// Leaves the line, let in or not. There may be room for the next one as well, or still.
    pub(super) fn leave_line(&mut self, me: &Arc<Waiter>) {
        self.line.retain(|waiter| !Arc::ptr_eq(waiter, me));
        self.call(me.wants);
    }

    /// Calls the first one in the line that waits for this.
    fn call(&mut self, wants: Full) {
        if let Some(waiter) = self.line.iter().find(|waiter| waiter.wants == wants) {
            waiter.call();
        }
    }
}

impl Waiter {
    fn call(&self) {
        // Release: pairs with the load in `is_called`. The lock that protects the room is taken
        // anyway.
        self.called.store(true, Ordering::Release);
        self.thread.unpark();
    }

    pub(super) fn is_called(&self) -> bool {
        self.called.load(Ordering::Acquire)
    }
}
