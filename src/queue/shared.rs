//! What the two halves share: a ring of values, and two lines of sleepers.
//!
//! The ring is `concurrent-queue`'s, after Vyukov's bounded queue: a put and a get that find room and values take no lock.
//! It keeps its end, closed or not, in the word that every put has to change, so a put comes before the close or is
//! refused, and a get that is told "closed" knows that nothing is left and nothing on its way.
//!
//! Who finds no room or no value looks again for a moment, then sleeps in a line (`line` beside this file argues why
//! no thread sleeps too long).

use std::iter;
use std::mem;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_utils::CachePadded;

use super::line::Line;
use crate::error::{Error, Result as FulmarResult};
use crate::sync::{AtomicBool, AtomicU64, ConcurrentQueue, Ordering, PopError, PushError};
use crate::time::Deadline;

pub(super) struct Shared<T> {
    ring: ConcurrentQueue<T>,
    capacity: usize,
    // Apart, so that the two sides don't fight for one cache line.
    producers: CachePadded<Line>,
    consumers: CachePadded<Line>,
    pub(super) submitters: AtomicU64,
    pub(super) processors: AtomicU64,
}

/// Why a value was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutRefusal {
    /// No room in time.
    Full,
    Closed,
    /// The caller's stop flag is up.
    Stopped,
}

/// Why no value was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GetRefusal {
    /// None in time.
    Empty,
    /// None ever.
    Closed,
    /// The caller's stop flag is up.
    Stopped,
}

/// Wakes all who wait for the queue, so that those among them who were told to stop see it.
pub(crate) trait Nudge: Send + Sync {
    fn nudge(&self);
}

impl<T> Shared<T> {
    pub(super) fn new(capacity: usize) -> FulmarResult<Shared<T>> {
        if capacity == 0 {
            return Err(Error::Invalid("a queue of capacity 0 can't hold a value: use 1 or more".into()));
        }
        // What the ring is about to take, a word and a value each, asked for in a way that can be refused.
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

    /// Takes `value` in as soon as there is room.
    pub(super) fn put(
        &self,
        mut value: T,
        deadline: Deadline,
        stop: Option<&AtomicBool>,
    ) -> Result<(), (PutRefusal, T)> {
        let mut patience = self.producers.patience();
        let mut timed_out = deadline.is_zero();
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
            if timed_out && !self.is_halfway() {
                return Err((PutRefusal::Full, value));
            }
            if is_up(stop) {
                return Err((PutRefusal::Stopped, value));
            }
            if !patience.turn() {
                let is_full = || self.ring.is_full() && !self.is_closed() && !is_up(stop);
                self.producers.sleep(deadline, is_full);
                timed_out = deadline.is_past();
                patience = self.producers.patience();
            }
        }
    }

    /// Whether there is room although a put was just told that there is none: a ring of one refuses it, too, while a get is
    /// halfway out of it. That is over in a moment.
    #[cold]
    fn is_halfway(&self) -> bool {
        self.capacity == 1 && !self.ring.is_full()
    }

    /// Hands out the oldest value as soon as there is one.
    pub(super) fn get(&self, deadline: Deadline, stop: Option<&AtomicBool>) -> Result<T, GetRefusal> {
        let mut patience = self.consumers.patience();
        let mut timed_out = deadline.is_zero();
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
            if timed_out {
                return Err(GetRefusal::Empty);
            }
            if is_up(stop) {
                return Err(GetRefusal::Stopped);
            }
            if !patience.turn() {
                let is_empty = || self.ring.is_empty() && !self.is_closed() && !is_up(stop);
                self.consumers.sleep(deadline, is_empty);
                timed_out = deadline.is_past();
                patience = self.consumers.patience();
            }
        }
    }

    /// Takes out all there is, but no more than the queue holds at once, however fast others put. Of a closed one that is all
    /// there will ever be.
    pub(super) fn drain(&self) -> Vec<T> {
        let now = Deadline::start(Duration::ZERO);
        iter::from_fn(|| self.get(now, None).ok()).take(self.capacity).collect()
    }

    /// Takes nothing in from now on, and tells all who wait.
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
            // The close may have come before the watch.
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
    /// A ring that is dropped forgets the values behind one whose destructor panics; a vector goes on.
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
    // Relaxed: a flag that protects nothing. Before a sleep it is read under a lock that its setter takes next, in `call_all`.
    stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
}
