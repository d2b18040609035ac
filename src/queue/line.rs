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
//! thread at most. (Watchers, the channels of `select!`, are told with every call, because nothing says whether the thread behind one
//! will take the value.) The called thread looks for a value or for room before anything else, so that a call is never lost on
//! one that only leaves. A thread that never slept may be faster; then the called one lines up again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::patience::{Outlook, Patience};
use crate::sync::blocking::{self, Lent};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, spin_turn, thread};
use crate::time::Deadline;

pub(super) struct Line {
    /// How many there are, for a look without the lock. Written under it.
    len: AtomicUsize,
    /// Whether it has watchers, for a look without the lock. Written under it.
    watched: AtomicBool,
    waiting: Mutex<Waiting>,
    outlook: Outlook,
}

struct Waiting {
    sleepers: VecDeque<Arc<Sleeper>>,
    /// Each has room for one message: look again.
    watchers: Vec<Sender<()>>,
}

impl Waiting {
    fn tell_watchers(&mut self) {
        // One that was told, and has not looked yet, is told already; one whose receiver is gone goes.
        self.watchers.retain(|watcher| !matches!(watcher.try_send(()), Err(TrySendError::Disconnected(()))));
    }
}

struct Sleeper {
    called: AtomicBool,
    thread: thread::Thread,
    /// Its place in an executor, which another thread may take meanwhile.
    place: Option<Arc<dyn Lent>>,
}

impl Line {
    pub(super) fn new() -> Line {
        Line {
            len: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
            waiting: Mutex::new(Waiting { sleepers: VecDeque::new(), watchers: Vec::new() }),
            outlook: Outlook::new(),
        }
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
        let mut waiting = self.waiting.lock();
        waiting.sleepers.push_back(me.clone());
        self.publish(&waiting);
        if !still() {
            waiting.sleepers.pop_back();
            self.publish(&waiting);
            drop(waiting);
            // The reason may be that of a thread that is halfway, and may want this core to go on.
            spin_turn();
            return;
        }
        drop(waiting);
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
        let mut waiting = self.waiting.lock();
        if let Some(place) = waiting.sleepers.iter().position(|sleeper| Arc::ptr_eq(sleeper, me)) {
            waiting.sleepers.remove(place);
            self.publish(&waiting);
        }
    }

    /// Wakes one, if there is one.
    pub(super) fn call_one(&self) {
        if self.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiting = self.waiting.lock();
        let first = waiting.sleepers.pop_front();
        waiting.tell_watchers();
        self.publish(&waiting);
        drop(waiting);
        if let Some(first) = first {
            first.call();
        }
    }

    pub(super) fn call_all(&self) {
        let mut waiting = self.waiting.lock();
        let all = std::mem::take(&mut waiting.sleepers);
        waiting.tell_watchers();
        self.publish(&waiting);
        drop(waiting);
        all.into_iter().for_each(|sleeper| sleeper.call());
    }

    /// A channel that gets a message with each call, unless the last one is still in it. The caller has to look once after this, as
    /// one that lines up does.
    pub(super) fn watch(&self) -> Receiver<()> {
        let (sender, receiver) = bounded(1);
        let mut waiting = self.waiting.lock();
        waiting.watchers.push(sender);
        self.publish(&waiting);
        receiver
    }

    /// After a put or a get that has left a reason for another one: a watcher is told of one at a time.
    pub(super) fn call_watchers(&self, is_reason_left: impl Fn() -> bool) {
        // Relaxed: who watches from now on looks for itself.
        if self.watched.load(Ordering::Relaxed) && is_reason_left() {
            let mut waiting = self.waiting.lock();
            waiting.tell_watchers();
            self.publish(&waiting);
        }
    }

    /// There is no more to be told: the channels of the watchers disconnect.
    pub(super) fn end_watches(&self) {
        let mut waiting = self.waiting.lock();
        let watchers = std::mem::take(&mut waiting.watchers);
        self.publish(&waiting);
        drop(waiting);
        drop(watchers);
    }

    fn publish(&self, waiting: &Waiting) {
        self.watched.store(!waiting.watchers.is_empty(), Ordering::Relaxed);
        self.len.store(waiting.sleepers.len() + waiting.watchers.len(), Ordering::SeqCst);
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
