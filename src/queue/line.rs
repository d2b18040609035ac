//! The line in which the threads of one side of the queue sleep: producers until there is room,
//! consumers until there is a value. A call wakes the thread that has waited longest.
//!
//! # Why no thread sleeps too long
//!
//! A thread that wants to sleep first joins the line, and then looks once more whether it has to
//! (`still`); it does both under the lock. A thread that makes room or puts a value does that
//! first, and then looks whether the line is empty. Both looks are `SeqCst`, as are the ring's own
//! steps, so at least one thread sees the other: either the sleeper sees the room or the value, or
//! the caller sees the sleeper. `concurrent-queue` doesn't document that its steps are `SeqCst`.
//! Version 2.5 has them so, and `Cargo.toml` allows no other.
//!
//! A call takes one sleeper out of the line, so that the next call goes to the next sleeper: a
//! hand-over wakes one thread at most. A called thread always tries its put or get once more before
//! it returns, even after its time limit. So if it was called, it uses the value or the room, and
//! no other sleeper misses that call. If another thread that never slept was faster, the called
//! thread joins the line again. The same holds for a thread whose operation was cancelled: it
//! leaves the line by itself, and tries once more.
//!
//! Watchers are the channels of `select!`. Every call sends them a message as well, because the
//! thread behind a channel may not take the value.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::patience::{Patience, SpinBudget};
use crate::sync::blocking::{self, Lent};
use crate::sync::interrupt::{self, InterruptibleWait};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, spin_turn, thread};
use crate::time::Deadline;

pub(super) struct Line {
    /// The number of sleepers and watchers. Written under the lock of `waiting`, and read without
    /// it, so that a hand-over takes no lock if the line is empty.
    len: AtomicUsize,
    /// Whether there are watchers. Written under the lock of `waiting`, and read without it.
    watched: AtomicBool,
    waiting: Mutex<Waiting>,
    outlook: SpinBudget,
}

struct Waiting {
    sleepers: VecDeque<Arc<Sleeper>>,
    /// Each channel has room for one message, which says: look again.
    watchers: Vec<Sender<()>>,
}

impl Waiting {
    fn tell_watchers(&mut self) {
        // A full channel still holds the last message, and one is enough. If the receiver was
        // dropped, the watcher is removed.
        self.watchers.retain(|watcher| !matches!(watcher.try_send(()), Err(TrySendError::Disconnected(()))));
    }
}

struct Sleeper {
    called: AtomicBool,
    thread: thread::Thread,
    /// The thread's place in an executor, which another thread may take while this one sleeps.
    place: Option<Arc<dyn Lent>>,
}

impl Line {
    pub(super) fn new() -> Line {
        Line {
            len: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
            waiting: Mutex::new(Waiting { sleepers: VecDeque::new(), watchers: Vec::new() }),
            outlook: SpinBudget::new(),
        }
    }

    /// How often a thread that can't go on should look again before it calls
    /// [`sleep`](Line::sleep).
    pub(super) fn patience(&self) -> Patience {
        self.outlook.patience()
    }

    /// Sleeps until a call comes, `deadline` passes, or the operation that this thread runs is
    /// cancelled; returns at once if `still` says that there is no reason to sleep. In any case the
    /// caller has to try its put or get again, because a call may come together with the deadline
    /// or the cancel. Returns whether there was a cancel, after which the try is the last.
    pub(super) fn sleep(&self, deadline: Deadline, still: impl Fn() -> bool) -> bool {
        let me =
            Arc::new(Sleeper { called: AtomicBool::new(false), thread: thread::current(), place: blocking::place() });
        let mut waiting = self.waiting.lock();
        waiting.sleepers.push_back(me.clone());
        self.publish(&waiting);
        if !still() {
            waiting.sleepers.pop_back();
            self.publish(&waiting);
            drop(waiting);
            // Another thread may be in the middle of its put or get, and may need this core to
            // finish it.
            spin_turn();
            return false;
        }
        drop(waiting);
        // A call may come sooner than it takes to fall asleep.
        let mut patience = self.patience();
        while !me.is_called() && patience.turn() && !interrupt::is_cancelled() {}
        if me.is_called() {
            return false;
        }
        let start = Instant::now();
        // Not earlier: most waits are over by now, and both take a lock of the executor's.
        let wait = InterruptibleWait::begin(me.place.clone());
        if let Some(place) = &me.place {
            place.lend();
        }
        let mut is_interrupted = false;
        while !me.is_called() {
            is_interrupted = wait.is_interrupted();
            if is_interrupted || deadline.is_past() {
                self.leave(&me);
                break;
            }
            thread::park_until(deadline.at());
        }
        if let Some(place) = &me.place {
            // `call` does this as well, but it may have done so before we lent the place.
            place.come_back();
        }
        self.outlook.slept(start);
        is_interrupted
    }

    /// Takes a sleeper that gives up out of the line, unless a call has taken it out already.
    fn leave(&self, me: &Arc<Sleeper>) {
        let mut waiting = self.waiting.lock();
        if let Some(place) = waiting.sleepers.iter().position(|sleeper| Arc::ptr_eq(sleeper, me)) {
            waiting.sleepers.remove(place);
            self.publish(&waiting);
        }
    }

    /// Wakes the thread that has slept longest, if one sleeps, and sends a message to every
    /// watcher. For the other side of the queue, after each put or get.
    pub(super) fn call_one(&self) {
        if self.len.load(Ordering::SeqCst) == 0 {
            // Most hand-overs end here, without a lock.
            return;
        }
        let mut waiting = self.waiting.lock();
        let first = waiting.sleepers.pop_front();
        waiting.tell_watchers();
        self.publish(&waiting);
        // Not under the lock: the woken thread would have to wait for it.
        drop(waiting);
        if let Some(first) = first {
            first.call();
        }
    }

    /// Wakes every sleeper and sends a message to every watcher: the queue was closed, or a stop
    /// flag was set.
    pub(super) fn call_all(&self) {
        let mut waiting = self.waiting.lock();
        let all = std::mem::take(&mut waiting.sleepers);
        waiting.tell_watchers();
        self.publish(&waiting);
        drop(waiting);
        all.into_iter().for_each(|sleeper| sleeper.call());
    }

    /// A channel that gets a message with each call, unless the last message is still in it. The
    /// caller has to look once after this, because a value or room may have come just before.
    pub(super) fn watch(&self) -> Receiver<()> {
        let (sender, receiver) = bounded(1);
        let mut waiting = self.waiting.lock();
        waiting.watchers.push(sender);
        self.publish(&waiting);
        receiver
    }

    /// Sends another message to the watchers after a put or get of this line's side, if
    /// `is_reason_left`: a message says only that one more put or get may succeed.
    pub(super) fn call_watchers(&self, is_reason_left: impl Fn() -> bool) {
        // Relaxed: a watcher that registers after this looks for itself.
        if self.watched.load(Ordering::Relaxed) && is_reason_left() {
            let mut waiting = self.waiting.lock();
            waiting.tell_watchers();
            self.publish(&waiting);
        }
    }

    /// Disconnects the channels of all watchers, because the queue is closed.
    pub(super) fn end_watches(&self) {
        let mut waiting = self.waiting.lock();
        let watchers = std::mem::take(&mut waiting.watchers);
        self.publish(&waiting);
        drop(waiting);
        drop(watchers);
    }

    /// Updates the counters that other threads read without the lock.
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
            // Before the thread runs again: otherwise the thread in its place would begin one more
            // operation.
            place.come_back();
        }
        self.thread.unpark();
    }
}
