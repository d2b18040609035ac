//! What the two halves share: a ring of values, two lines of sleepers, and the protocol of closing.
//!
//! The ring is `crossbeam-queue`'s, after Vyukov's bounded queue: a put and a get that find room and values take no lock.
//! Who finds none looks again for a moment, then sleeps in a line (`line` beside this file argues why nobody sleeps too
//! long).
//!
//! # How it closes
//!
//! The ring can't be closed, so a put may be at it just when somebody closes the queue. Three steps keep "closed and
//! empty" final:
//!
//! 1. A put looks for `closed` before its push, and again after it.
//! 2. A get or a drain that finds the ring empty after it saw `closed` *seals* the queue, under `end`'s lock, if it is still empty
//!    then. A sealed queue hands out nothing.
//! 3. A put whose second look sees `closed` takes that lock too. If the queue is not sealed, its value is in, since
//!    whoever seals it finds the ring empty, and so the value gone. If it is, the put takes all that came too late out of
//!    the ring and finds its own value there or among what others took out before: refused. Or it doesn't find it, because a
//!    get that began before the seal was faster: taken in, and handed out.
//!
//! A put whose second look does not see `closed` was in time: its push came before the look, the look before the close,
//! and the close before the seal's look at the ring, all in one total order (every access named here is `SeqCst`, as are
//! the ring's own). So the seal found its value gone.

use std::iter;
use std::mem;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::line::Line;
use super::patience::Patience;
use crate::error::{Error, Result as FulmarResult};
use crate::sync::{ArrayQueue, AtomicBool, AtomicU64, Mutex, Ordering};
use crate::time::Deadline;

pub(super) struct Shared<T> {
    ring: ArrayQueue<Entry<T>>,
    closed: AtomicBool,
    /// `End::sealed`, for a look without the lock.
    sealed: AtomicBool,
    end: Mutex<End<T>>,
    // Apart, so that the two sides don't fight for one cache line.
    producers: CachePadded<Line>,
    consumers: CachePadded<Line>,
    pub(super) submitters: AtomicU64,
    pub(super) processors: AtomicU64,
}

/// A value, and which of the puts under way it belongs to.
struct Entry<T> {
    put: usize,
    value: T,
}

struct End<T> {
    sealed: bool,
    /// Values that came after the seal, until their puts take them back.
    late: Vec<Entry<T>>,
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
        // What the ring is about to take, asked for in a way that can be refused.
        if Vec::<(usize, Entry<T>)>::new().try_reserve_exact(capacity).is_err() {
            return Err(Error::Invalid(format!(
                "there is no memory for a queue of {capacity} values, {} bytes each: use a smaller capacity",
                mem::size_of::<(usize, Entry<T>)>()
            )));
        }
        Ok(Shared {
            ring: ArrayQueue::new(capacity),
            closed: AtomicBool::new(false),
            sealed: AtomicBool::new(false),
            end: Mutex::new(End { sealed: false, late: Vec::new() }),
            producers: CachePadded::new(Line::new()),
            consumers: CachePadded::new(Line::new()),
            submitters: AtomicU64::new(0),
            processors: AtomicU64::new(0),
        })
    }

    /// Takes `value` in as soon as there is room.
    pub(super) fn put(&self, value: T, deadline: Deadline, stop: Option<&AtomicBool>) -> Result<(), (PutRefusal, T)> {
        // On this thread's stack, so no other put under way has the same.
        let here = 0_u8;
        let put = std::ptr::from_ref(&here).addr();
        let mut entry = Entry { put, value };
        let mut patience = Patience::new();
        let mut timed_out = deadline.is_zero();
        loop {
            if self.is_closed() {
                return Err((PutRefusal::Closed, entry.value));
            }
            entry = match self.ring.push(entry) {
                Ok(()) => break,
                Err(refused) => refused,
            };
            if timed_out {
                return Err((PutRefusal::Full, entry.value));
            }
            if is_up(stop) {
                return Err((PutRefusal::Stopped, entry.value));
            }
            if !patience.turn() {
                let is_full = || self.ring.is_full() && !self.is_closed() && !is_up(stop);
                self.producers.sleep(deadline, is_full);
                timed_out = deadline.is_past();
                patience = Patience::new();
            }
        }
        if self.is_closed() {
            if let Some(value) = self.take_back(put) {
                return Err((PutRefusal::Closed, value));
            }
        }
        self.consumers.call_one();
        Ok(())
    }

    /// The value of a put that came after the end.
    fn take_back(&self, put: usize) -> Option<T> {
        let mut end = self.end.lock();
        if !end.sealed {
            return None;
        }
        end.late.extend(iter::from_fn(|| self.ring.pop()));
        let own = end.late.iter().position(|late| late.put == put)?;
        Some(end.late.swap_remove(own).value)
    }

    /// Hands out the oldest value as soon as there is one.
    pub(super) fn get(&self, deadline: Deadline, stop: Option<&AtomicBool>) -> Result<T, GetRefusal> {
        let mut patience = Patience::new();
        let mut timed_out = deadline.is_zero();
        loop {
            if self.is_sealed() {
                return Err(GetRefusal::Closed);
            }
            if let Some(value) = self.take() {
                return Ok(value);
            }
            if self.is_closed() {
                return self.take_or_seal().ok_or(GetRefusal::Closed);
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
                patience = Patience::new();
            }
        }
    }

    fn take(&self) -> Option<T> {
        let entry = self.ring.pop()?;
        self.producers.call_one();
        Some(entry.value)
    }

    /// Of a closed queue.
    fn take_or_seal(&self) -> Option<T> {
        let mut end = self.end.lock();
        if end.sealed {
            return None;
        }
        // Nobody waits for the room: a closed queue takes nothing in.
        let entry = self.ring.pop();
        if entry.is_none() {
            end.sealed = true;
            self.sealed.store(true, Ordering::SeqCst);
        }
        entry.map(|entry| entry.value)
    }

    /// Takes out all there is: of an open queue no more than it holds at once, however fast others put; of a closed one
    /// all there will ever be, so that no put gets in behind it.
    pub(super) fn drain(&self) -> Vec<T> {
        let now = Deadline::start(Duration::ZERO);
        let mut next = || self.get(now, None).ok();
        let mut drained: Vec<T> = iter::from_fn(&mut next).take(self.ring.capacity()).collect();
        if self.is_closed() {
            drained.extend(iter::from_fn(next));
        }
        drained
    }

    /// Takes nothing in from now on, and tells all who wait.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::SeqCst)
    }

    pub(super) fn len(&self) -> usize {
        if self.is_sealed() { 0 } else { self.ring.len() }
    }

    pub(super) fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    fn wake_all(&self) {
        self.producers.call_all();
        self.consumers.call_all();
    }
}

impl<T> Drop for Shared<T> {
    /// A ring that is dropped forgets the values behind one whose destructor panics; a vector goes on.
    fn drop(&mut self) {
        drop(iter::from_fn(|| self.ring.pop()).collect::<Vec<_>>());
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
