//! What wants to be told of a request's end: threads, callbacks, iterations, tasks, continuations.
//!
//! Few requests have any, so they lie in a table beside the requests, as the sleepers of a futex
//! do, and a request that has none pays one bit. The bit and the table agree because an observer is
//! entered, and the bit set, under the lock of the table's shard, and only while the request has
//! not ended: a thread that publishes the end either sees the bit and then finds the entry, or
//! published first, and then the observer is refused.

// A model has one shard.
#![cfg_attr(loom, allow(clippy::modulo_one))]

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use crossbeam_utils::CachePadded;

use super::cell::Head;
use super::status::Status;
use crate::panics;
use crate::sync::Mutex;
use crate::sync::thread::{self, Thread};
use crate::timer::Alarm;

/// Fewer in a model, whose states they multiply.
const SHARDS: usize = if cfg!(loom) { 1 } else { 16 };

/// The observers of all requests of an executor.
pub(crate) struct Observers {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
}

type Shard = HashMap<usize, Entry, BuildHasherDefault<AddressHasher>>;

/// The observers of one request.
#[derive(Default)]
pub(crate) struct Entry {
    observers: Vec<Observer>,
    /// Release the requests that follow this one. Called first, because observers may wait for
    /// those.
    followers: Vec<(u64, Callback)>,
    /// The request's entry in the timer, if it waits for its time.
    pub(crate) alarm: Option<Alarm>,
}

pub(crate) type Callback = Box<dyn FnOnce(Status) + Send>;

/// A blocked thread that doesn't count as at work until its wait is over.
pub(crate) trait AtWork: Send + Sync {
    /// Has it count again, if its wait is over.
    fn come_back(&self);
}

/// What a request belongs to, and ends with.
pub(crate) trait Belongs: Send + Sync {
    /// Its request has ended. Returns whether that ends the others.
    fn ended(&self, status: Status) -> bool;
    /// Cancels the others, whose hooks and destructors are the user's code.
    fn cancel_others(&self);
}

pub(crate) enum Observer {
    /// A thread in a wait. It is also told when the request is queued, and when its lane changes.
    /// One that is at work for an executor counts as such again before it is woken.
    Thread(Thread, Option<Arc<dyn AtWork>>),
    /// A callback of the user's, with a number to take it back by.
    Callback(u64, Callback),
    /// An iteration over results as they come, and the request's index in it.
    Inbox(Arc<Inbox>, usize),
    /// A task of an async runtime.
    Task(Waker),
    /// A channel in which nothing is sent, and whose end is the request's. The receiver is for the
    /// next who asks for one.
    Done(Sender<Infallible>, Receiver<Infallible>),
    /// The group or the time limit that the request is in.
    Member(Arc<dyn Belongs>),
    /// The same, if the end of the request ends the others.
    Others(Arc<dyn Belongs>),
}

impl Observers {
    pub(crate) fn new() -> Observers {
        Observers { shards: (0..SHARDS).map(|_| CachePadded::new(Mutex::new(Shard::default()))).collect() }
    }

    /// Enters `observer`, unless the request has ended: then it comes back.
    pub(crate) fn register(&self, head: &Head, observer: Observer) -> Result<(), Observer> {
        let replaced = {
            let mut shard = self.shard(head);
            if !head.observe() {
                return Err(observer);
            }
            let observers = &mut shard.entry(head.address()).or_default().observers;
            // There is one handle to poll, and only its latest waker counts.
            let old = match &observer {
                Observer::Task(_) => observers.iter().position(|old| matches!(old, Observer::Task(_))),
                _ => None,
            };
            let replaced = old.map(|old| observers.remove(old));
            observers.push(observer);
            replaced
        };
        // Dropped only here: a waker's destructor is code of the user's, and must not run under our
        // lock.
        panics::contain(|| drop(replaced));
        Ok(())
    }

    /// A channel that ends with the request; the same for all who ask, so that a loop that asks
    /// each time leaves one behind.
    pub(crate) fn done(&self, head: &Head) -> Receiver<Infallible> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let mut shard = self.shard(head);
        // Where the request has ended, the sender goes with this call.
        if head.observe() {
            let observers = &mut shard.entry(head.address()).or_default().observers;
            for observer in observers.iter() {
                if let Observer::Done(_, known) = observer {
                    return known.clone();
                }
            }
            observers.push(Observer::Done(sender, receiver.clone()));
        }
        receiver
    }

    /// Has `release` called at the end, before all observers. It comes back if the request has
    /// ended.
    pub(crate) fn follow(&self, head: &Head, id: u64, release: Callback) -> Result<(), Callback> {
        let mut shard = self.shard(head);
        if !head.observe() {
            return Err(release);
        }
        shard.entry(head.address()).or_default().followers.push((id, release));
        Ok(())
    }

    /// Takes back what `follow` entered: its follower was cancelled.
    pub(crate) fn unfollow(&self, head: &Head, id: u64) {
        let taken = self.edit(head, |entry| {
            let position = entry.followers.iter().position(|(follower, _)| *follower == id)?;
            Some(entry.followers.swap_remove(position))
        });
        drop(taken);
    }

    /// Notes where the timer has the request. Returns `false` if the request has ended.
    pub(crate) fn set_alarm(&self, head: &Head, alarm: Alarm) -> bool {
        let mut shard = self.shard(head);
        let waits = head.observe();
        if waits {
            shard.entry(head.address()).or_default().alarm = Some(alarm);
        }
        waits
    }

    /// Takes one observer out again. Returns whether it was there.
    pub(crate) fn remove(&self, head: &Head, is_it: impl Fn(&Observer) -> bool) -> bool {
        let taken = self.edit(head, |entry| {
            let position = entry.observers.iter().position(&is_it)?;
            Some(entry.observers.remove(position))
        });
        let found = taken.is_some();
        // Outside the lock: it may hold values of the user's.
        panics::contain(|| drop(taken));
        found
    }

    /// Has the threads look again that wait for a request: it was queued, or its lane has changed.
    pub(crate) fn wake_threads(&self, head: &Head) {
        if let Some(entry) = self.shard(head).get(&head.address()) {
            for observer in &entry.observers {
                if let Observer::Thread(thread, _) = observer {
                    thread.unpark();
                }
            }
        }
    }

    /// Takes all observers of a request that has ended.
    pub(crate) fn take(&self, head: &Head) -> Option<Entry> {
        self.shard(head).remove(&head.address())
    }

    fn edit<R>(&self, head: &Head, change: impl FnOnce(&mut Entry) -> Option<R>) -> Option<R> {
        let mut shard = self.shard(head);
        let Slot::Occupied(mut entry) = shard.entry(head.address()) else { return None };
        let changed = change(entry.get_mut());
        // A request may stay for long: what left it must not leave an empty entry behind.
        if entry.get().is_empty() {
            entry.remove();
        }
        changed
    }

    fn shard(&self, head: &Head) -> crate::sync::MutexGuard<'_, Shard> {
        // Allocations are 16 bytes apart at least.
        self.shards[(head.address() >> 4) % SHARDS].lock()
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.observers.is_empty() && self.followers.is_empty() && self.alarm.is_none()
    }

    /// Releases the followers and wakes the threads. Returns the callbacks and tasks, in the order
    /// in which they registered: they are code of the user's, which may take its time.
    pub(crate) fn tell(self, status: Status) -> Vec<Observer> {
        self.followers.into_iter().for_each(|(_, release)| panics::contain(|| release(status)));
        let mut foreign = Vec::new();
        for observer in self.observers {
            match observer {
                Observer::Callback(..) => foreign.push(observer),
                Observer::Member(belongs) => {
                    if belongs.ended(status) {
                        foreign.push(Observer::Others(belongs));
                    }
                }
                observer => observer.tell(status),
            }
        }
        foreign
    }
}

impl Observer {
    /// Tells this one observer. A panic in code of the user's stays here.
    pub(crate) fn tell(self, status: Status) {
        panics::contain(move || match self {
            Observer::Thread(thread, at_work) => {
                if let Some(at_work) = at_work {
                    at_work.come_back();
                }
                thread.unpark();
            }
            Observer::Callback(_, callback) => callback(status),
            Observer::Inbox(inbox, index) => inbox.put(index),
            Observer::Task(waker) => waker.wake(),
            Observer::Done(sender, _) => drop(sender),
            Observer::Member(belongs) => drop(belongs.ended(status)),
            Observer::Others(belongs) => belongs.cancel_others(),
        });
    }
}

/// The indices of ended requests, in the order in which they ended.
pub(crate) struct Inbox {
    ended: Mutex<VecDeque<usize>>,
    reader: Mutex<Option<Thread>>,
}

impl Inbox {
    pub(crate) fn new() -> Arc<Inbox> {
        Arc::new(Inbox { ended: Mutex::new(VecDeque::new()), reader: Mutex::new(None) })
    }

    pub(crate) fn put(&self, index: usize) {
        self.ended.lock().push_back(index);
        let reader = self.reader.lock().take();
        if let Some(reader) = reader {
            reader.unpark();
        }
    }

    pub(crate) fn take(&self) -> Option<usize> {
        self.ended.lock().pop_front()
    }

    /// Parks until there is an index, or until `at`, or spuriously.
    pub(crate) fn park(&self, at: Option<Instant>) -> Option<usize> {
        // Registered before the last look: a `put` after it finds this thread.
        *self.reader.lock() = Some(thread::current());
        let ended = self.take();
        if ended.is_none() {
            thread::park_until(at);
        }
        ended.or_else(|| self.take())
    }
}

/// Spreads an address over the word, of which the table uses the top and the bottom.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("an address writes one usize");
    }

    fn write_usize(&mut self, address: usize) {
        // Fibonacci hashing: Knuth, "The Art of Computer Programming" 3, 6.4.
        self.0 = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}
