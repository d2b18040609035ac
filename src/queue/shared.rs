//! What the two halves share: a ring of values, and a line of sleeping threads for each side.
//!
//! The ring is `concurrent-queue`'s, after Vyukov's bounded queue: a put that finds room and a get
//! that finds a value take no lock. The ring keeps its closed flag in the word that every put has
//! to change. So a put either comes before the close or is refused, and if a get returns "closed",
//! nothing is left in the ring and no put is on its way.
//!
//! A thread that finds no room or no value looks again for a moment, and then sleeps in a line.
//! `line` beside this file argues why no thread sleeps too long.

use std::iter;
use std::mem;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_utils::CachePadded;

use super::line::Line;
use crate::error::{Error, Result as FulmarResult};
use crate::sync::interrupt;
use crate::sync::{AtomicBool, AtomicU64, ConcurrentQueue, Ordering, PopError, PushError};
use crate::time::Deadline;

pub(super) struct Shared<T> {
    ring: ConcurrentQueue<T>,
    capacity: usize,
    // Each on a cache line of its own, so that producers and consumers don't slow each other down.
    producers: CachePadded<Line>,
    consumers: CachePadded<Line>,
    pub(super) submitters: AtomicU64,
    pub(super) processors: AtomicU64,
}

/// Why a put failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutRefusal {
    /// There was no room before the deadline.
    Full,
    Closed,
    /// The caller's stop flag is up.
    Stopped,
    /// The operation that waits was cancelled.
    Interrupted,
}

/// Why a get failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GetRefusal {
    /// There was no value before the deadline.
    Empty,
    /// The queue is closed, and nothing is left in it.
    Closed,
    /// The caller's stop flag is up.
    Stopped,
    /// The operation that waits was cancelled.
    Interrupted,
}

/// Wakes all threads that wait for the queue, so that each looks at its stop flag.
pub(crate) trait Nudge: Send + Sync {
    fn nudge(&self);
}

impl<T> Shared<T> {
    /// An empty queue. Fails if there is no memory for the ring.
    pub(super) fn new(capacity: usize) -> FulmarResult<Shared<T>> {
        if capacity == 0 {
            return Err(Error::Invalid("a queue of capacity 0 can't hold a value: use 1 or more".into()));
        }
        // The ring allocates a word and a value for each slot, and aborts the process if there is
        // no memory. So ask first, in a way that returns an error.
        if Vec::<(usize, T)>::new().try_reserve_exact(capacity).is_err() {
            return Err(Error::Invalid(format!(
                "there is no memory for a queue of {capacity} values, {} bytes each: use a smaller capacity",
                mem::size_of::<(usize, T)>()
            )));
        }
        Ok(Shared {
            ring: ConcurrentQueue::bounded(capacity),
            capacity,
            producers: CachePadded::new(Line::new()),
            consumers: CachePadded::new(Line::new()),
            submitters: AtomicU64::new(0),
            processors: AtomicU64::new(0),
        })
    }

    /// Puts `value` into the ring as soon as there is room, and then wakes one consumer. Gives up,
    /// and returns the value, at `deadline`, if the queue is closed, if `stop` is set, or if the
    /// operation that this thread runs is cancelled.
    pub(super) fn put(
        &self,
        mut value: T,
        deadline: Deadline,
        stop: Option<&AtomicBool>,
    ) -> Result<(), (PutRefusal, T)> {
        let mut patience = self.producers.patience();
        let mut last_try = deadline.is_zero().then_some(PutRefusal::Full);
        loop {
            value = match self.ring.push(value) {
                Ok(()) => {
                    self.consumers.call_one();
                    self.producers.call_watchers(|| !self.ring.is_full());
                    return Ok(());
                }
                Err(PushError::Closed(value)) => return Err((PutRefusal::Closed, value)),
                Err(PushError::Full(value)) => value,
            };
            // Only after a last try of the ring, which has just failed.
            if let Some(why) = last_try.filter(|_| !self.is_halfway()) {
                return Err((why, value));
            }
            if is_up(stop) {
                return Err((PutRefusal::Stopped, value));
            }
            if !patience.turn() {
                let is_full = || self.ring.is_full() && !self.is_closed() && !is_up(stop);
                last_try = if self.producers.sleep(deadline, is_full) {
                    Some(PutRefusal::Interrupted)
                } else {
                    deadline.is_past().then_some(PutRefusal::Full)
                };
                patience = self.producers.patience();
            } else if interrupt::is_cancelled() {
                // Each turn: on a busy machine a yield takes a time slice of every other thread.
                last_try = Some(PutRefusal::Interrupted);
            }
        }
    }

    /// Whether the ring has just refused a put although it has room. A ring of capacity 1 does so
    /// while a get is in the middle of taking the value out, which is over in a moment.
    #[cold]
    fn is_halfway(&self) -> bool {
        self.capacity == 1 && !self.ring.is_full()
    }

    /// Takes the oldest value as soon as there is one, and then wakes one producer. Gives up at
    /// `deadline`, if the queue is closed and empty, if `stop` is set, or if the operation that
    /// this thread runs is cancelled.
    pub(super) fn get(&self, deadline: Deadline, stop: Option<&AtomicBool>) -> Result<T, GetRefusal> {
        let mut patience = self.consumers.patience();
        let mut last_try = deadline.is_zero().then_some(GetRefusal::Empty);
        loop {
            match self.ring.pop() {
                Ok(value) => {
                    self.producers.call_one();
                    self.consumers.call_watchers(|| !self.ring.is_empty());
                    return Ok(value);
                }
                Err(PopError::Closed) => return Err(GetRefusal::Closed),
                Err(PopError::Empty) => {}
            }
            if let Some(why) = last_try {
                return Err(why);
            }
            if is_up(stop) {
                return Err(GetRefusal::Stopped);
            }
            if !patience.turn() {
                let is_empty = || self.ring.is_empty() && !self.is_closed() && !is_up(stop);
                last_try = if self.consumers.sleep(deadline, is_empty) {
                    Some(GetRefusal::Interrupted)
                } else {
                    deadline.is_past().then_some(GetRefusal::Empty)
                };
                patience = self.consumers.patience();
            } else if interrupt::is_cancelled() {
                // As in `put`.
                last_try = Some(GetRefusal::Interrupted);
            }
        }
    }

    /// Takes out all values, but no more than the capacity, because other threads may put faster
    /// than this one takes. If the queue is closed, these are all that there will ever be.
    pub(super) fn drain(&self) -> Vec<T> {
        let now = Deadline::start(Duration::ZERO);
        iter::from_fn(|| self.get(now, None).ok()).take(self.capacity).collect()
    }

    /// Refuses puts from now on, and wakes all threads that wait.
    pub(super) fn close(&self) {
        self.ring.close();
        self.wake_all();
        self.producers.end_watches();
        self.consumers.end_watches();
    }

    /// A channel with a message while there may be room.
    pub(super) fn watch_room(&self) -> Receiver<()> {
        self.watch(&self.producers, || !self.ring.is_full())
    }

    /// A channel with a message while there may be a value.
    pub(super) fn watch_values(&self) -> Receiver<()> {
        self.watch(&self.consumers, || !self.ring.is_empty())
    }

    fn watch(&self, line: &Line, is_reason: impl Fn() -> bool) -> Receiver<()> {
        let receiver = line.watch();
        line.call_watchers(is_reason);
        if self.is_closed() {
            // `close` may have ended all watches before this one was registered.
            line.end_watches();
        }
        receiver
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ring.is_closed()
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    fn wake_all(&self) {
        self.producers.call_all();
        self.consumers.call_all();
    }
}

impl<T> Drop for Shared<T> {
    /// Moves the values into a vector first. If one destructor panics, a vector still drops the
    /// other values, but the ring would leak them.
    fn drop(&mut self) {
        drop(iter::from_fn(|| self.ring.pop().ok()).collect::<Vec<_>>());
    }
}

impl<T: Send> Nudge for Shared<T> {
    fn nudge(&self) {
        self.wake_all();
    }
}

fn is_up(stop: Option<&AtomicBool>) -> bool {
    // Relaxed: the flag protects no data. A thread can't miss it and sleep on: it reads the flag
    // under the line's lock before it sleeps, and the thread that sets the flag takes that lock
    // next, in `call_all`.
    stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
}
