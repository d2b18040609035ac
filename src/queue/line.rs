//! Threads that sleep until there is a reason to look again, the longest asleep first.
//!
//! # Why no thread sleeps too long
//!
//! Who wants to sleep lines up first and then looks once more for its reason (`still`), both under the lock. Who makes
//! a reason, a value or room, makes it first and then looks whether a thread is in the line. Both are `SeqCst`, as are the
//! ring's own steps, so one of the two sees the other: the sleeper its reason, or the caller a sleeper. `concurrent-queue`
//! doesn't document that. It is so in its versions 2.5, and `Cargo.toml` takes no other.
//!
//! A call takes one sleeper out of the line, so that the next call is for the next one, or for none: a hand-over wakes one
//! thread at most. The called thread looks for a value or for room before anything else, so that a call is never lost on
//! one that only leaves. A thread that never slept may be faster; then the called one lines up again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::patience::{Outlook, Patience};
use crate::sync::blocking::{self, Lent};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, spin_turn, thread};
use crate::time::Deadline;

pub(super) struct Line {
    /// How many there are, for a look without the lock. Written under it.
    len: AtomicUsize,
    sleepers: Mutex<VecDeque<Arc<Sleeper>>>,
    outlook: Outlook,
}

struct Sleeper {
    called: AtomicBool,
    thread: thread::Thread,
    /// Its place in an executor, which another thread may take meanwhile.
    place: Option<Arc<dyn Lent>>,
}

impl Line {
    pub(super) fn new() -> Line {
        Line { len: AtomicUsize::new(0), sleepers: Mutex::new(VecDeque::new()), outlook: Outlook::new() }
    }

    /// For a thread that has found no reason to go on, before it sleeps here.
    pub(super) fn patience(&self) -> Patience {
        self.outlook.patience()
    }

    /// Sleeps until called or `deadline`, or not at all unless it is `still` so. Then the caller has to look, whichever it
    /// was: a call may have come together with the deadline.
    pub(super) fn sleep(&self, deadline: Deadline, still: impl Fn() -> bool) {
        let me =
            Arc::new(Sleeper { called: AtomicBool::new(false), thread: thread::current(), place: blocking::place() });
        let mut sleepers = self.sleepers.lock();
        sleepers.push_back(me.clone());
        self.publish(&sleepers);
        if !still() {
            sleepers.pop_back();
            self.publish(&sleepers);
            drop(sleepers);
            // The reason may be that of a thread that is halfway, and may want this core to go on.
            spin_turn();
            return;
        }
        drop(sleepers);
        // The call may come sooner than sleep would.
        let mut patience = self.patience();
        while !me.is_called() && patience.turn() {}
        if me.is_called() {
            return;
        }
        let start = Instant::now();
        if let Some(place) = &me.place {
            // Only now: most waits are over before this, and cost the executor nothing.
            place.lend();
        }
        while !me.is_called() {
            thread::park_until(deadline.at());
            if deadline.is_past() {
                self.leave(&me);
                break;
            }
        }
        if let Some(place) = &me.place {
            // The call may have come before the place was lent.
            place.come_back();
        }
        self.outlook.slept(start);
    }

    /// Takes a sleeper out, unless a call did meanwhile.
    fn leave(&self, me: &Arc<Sleeper>) {
        let mut sleepers = self.sleepers.lock();
        if let Some(place) = sleepers.iter().position(|sleeper| Arc::ptr_eq(sleeper, me)) {
            sleepers.remove(place);
            self.publish(&sleepers);
        }
    }

    /// Wakes one, if there is one.
    pub(super) fn call_one(&self) {
        if self.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut sleepers = self.sleepers.lock();
        let first = sleepers.pop_front();
        self.publish(&sleepers);
        drop(sleepers);
        if let Some(first) = first {
            first.call();
        }
    }

    pub(super) fn call_all(&self) {
        let mut sleepers = self.sleepers.lock();
        let all = std::mem::take(&mut *sleepers);
        self.publish(&sleepers);
        drop(sleepers);
        all.into_iter().for_each(|sleeper| sleeper.call());
    }

    fn publish(&self, sleepers: &VecDeque<Arc<Sleeper>>) {
        self.len.store(sleepers.len(), Ordering::SeqCst);
    }
}

impl Sleeper {
    fn is_called(&self) -> bool {
        // Acquire: pairs with `call`.
        self.called.load(Ordering::Acquire)
    }

    fn call(&self) {
        self.called.store(true, Ordering::Release);
        if let Some(place) = &self.place {
            // Before it runs again: or the thread in its place would begin one more operation meanwhile.
            place.come_back();
        }
        self.thread.unpark();
    }
}
