//! What the two halves share, and the protocol between them.
//!
//! Two locks, so that a put and a get don't wait for each other: producers append to `inbox` under the inlet's,
//! consumers take from `outbox` under the outlet's, and a consumer that finds its side empty swaps the two under both.
//! Values come out in the order in which they went in, because only an empty `outbox` is swapped. The idea is that of
//! Michael and Scott's two-lock queue (PODC 1996), with vectors in place of nodes. Both locks are only ever taken in the
//! order outlet, inlet.
//!
//! # Why no wake-up is lost
//!
//! Of the consumers: one goes to sleep only after it saw, under both locks, no value and no close; before it lets go of
//! the inlet's lock it sets `consumers_asleep` there, and it lets go of the outlet's only in going to sleep. So the put
//! that brings the next value finds the mark, takes it off, locks the outlet, by when the consumer is asleep, and calls
//! one. While the mark is off and consumers sleep, there is one on its way, which on leaving, with or without a value,
//! calls the next if values are left, or else sets the mark again. So a hand-over wakes one thread, and as many as there
//! are values get up one after the other, each called by the one before.
//!
//! Of the producers: the same the other way round, with `producers_asleep` under the outlet's lock. Only the order of the
//! locks forbids to take the outlet's second, so a producer that finds the queue full takes both anew and looks again.
//!
//! Close and nudge set their flag, take each side's lock once, by when who was about to sleep is asleep, and call all.
//!
//! A thread that was called may find that another, which never slept, was faster; it sleeps again. So those who sleep are
//! called in the order in which they fell asleep, but nobody is held back in favour of them.

use std::collections::VecDeque;
use std::mem;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, spin_turn, spin_turns};
use crate::time::Deadline;

pub(super) struct Shared<T> {
    // Apart, so that the two sides don't fight for one cache line.
    inlet: CachePadded<Inlet<T>>,
    outlet: CachePadded<Outlet<T>>,
    pub(super) capacity: usize,
    pub(super) submitters: AtomicU64,
    pub(super) processors: AtomicU64,
}

struct Inlet<T> {
    state: Mutex<InletState<T>>,
    /// There is room, or a reason to look.
    room: Condvar,
    /// `InletState::puts`, for a look without the lock.
    puts: AtomicUsize,
}

struct InletState<T> {
    inbox: VecDeque<T>,
    closed: bool,
    /// Values ever put, and those of them that were gone when a producer last looked. Both may wrap around.
    puts: usize,
    gone: usize,
    /// Producers in `room`.
    sleepers: usize,
    /// Consumers sleep and none of them was called yet.
    consumers_asleep: bool,
}

struct Outlet<T> {
    state: Mutex<OutletState<T>>,
    /// There is a value, or a reason to look.
    values: Condvar,
    /// Values ever taken. Written under the lock.
    gets: AtomicUsize,
}

struct OutletState<T> {
    outbox: VecDeque<T>,
    /// Consumers in `values`.
    sleepers: usize,
    /// Producers sleep and none of them was called yet.
    producers_asleep: bool,
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
    pub(super) fn new(capacity: usize) -> Shared<T> {
        Shared {
            inlet: CachePadded::new(Inlet {
                state: Mutex::new(InletState {
                    inbox: VecDeque::new(),
                    closed: false,
                    puts: 0,
                    gone: 0,
                    sleepers: 0,
                    consumers_asleep: false,
                }),
                room: Condvar::new(),
                puts: AtomicUsize::new(0),
            }),
            outlet: CachePadded::new(Outlet {
                state: Mutex::new(OutletState { outbox: VecDeque::new(), sleepers: 0, producers_asleep: false }),
                values: Condvar::new(),
                gets: AtomicUsize::new(0),
            }),
            capacity,
            submitters: AtomicU64::new(0),
            processors: AtomicU64::new(0),
        }
    }

    /// Takes `value` in as soon as there is room.
    pub(super) fn put(&self, value: T, deadline: Deadline, stop: Option<&AtomicBool>) -> Result<(), (PutRefusal, T)> {
        let mut slept = false;
        let mut lingered = false;
        let mut timed_out = deadline.is_zero();
        let mut inlet = self.inlet.state.lock();
        let refusal = loop {
            if inlet.closed {
                break Some(PutRefusal::Closed);
            }
            if self.has_room(&mut inlet) {
                break None;
            }
            if timed_out {
                break Some(PutRefusal::Full);
            }
            if is_up(stop) {
                break Some(PutRefusal::Stopped);
            }
            drop(inlet);
            if !lingered {
                self.linger(|len| len < self.capacity);
                lingered = true;
                inlet = self.inlet.state.lock();
                continue;
            }
            let mut outlet = self.outlet.state.lock();
            inlet = self.inlet.state.lock();
            // With the outlet's lock held, what is gone is known for sure.
            if inlet.closed || is_up(stop) || self.has_room(&mut inlet) {
                continue;
            }
            outlet.producers_asleep = true;
            drop(outlet);
            inlet.sleepers += 1;
            timed_out = wait(&self.inlet.room, &mut inlet, deadline);
            inlet.sleepers -= 1;
            slept = true;
            lingered = false;
        };
        let mut call = false;
        let result = match refusal {
            None => {
                inlet.inbox.push_back(value);
                inlet.puts = inlet.puts.wrapping_add(1);
                self.inlet.puts.store(inlet.puts, Ordering::Relaxed);
                call = mem::take(&mut inlet.consumers_asleep);
                Ok(())
            }
            Some(refusal) => Err((refusal, value)),
        };
        let others = slept && inlet.sleepers > 0;
        drop(inlet);
        if call {
            self.call_consumer();
        }
        if others {
            self.pass_room_on();
        }
        result
    }

    /// Hands out the oldest value as soon as there is one.
    pub(super) fn get(&self, deadline: Deadline, stop: Option<&AtomicBool>) -> Result<T, GetRefusal> {
        let mut slept = false;
        let mut lingered = false;
        let mut timed_out = deadline.is_zero();
        let mut outlet = self.outlet.state.lock();
        let result = loop {
            if let Some(value) = outlet.outbox.pop_front() {
                break Ok(value);
            }
            let mut inlet = self.inlet.state.lock();
            if !inlet.inbox.is_empty() {
                mem::swap(&mut inlet.inbox, &mut outlet.outbox);
                continue;
            }
            if inlet.closed {
                break Err(GetRefusal::Closed);
            }
            if timed_out {
                break Err(GetRefusal::Empty);
            }
            if is_up(stop) {
                break Err(GetRefusal::Stopped);
            }
            if !lingered {
                drop(inlet);
                drop(outlet);
                self.linger(|len| len > 0);
                lingered = true;
                outlet = self.outlet.state.lock();
                continue;
            }
            inlet.consumers_asleep = true;
            drop(inlet);
            outlet.sleepers += 1;
            timed_out = wait(&self.outlet.values, &mut outlet, deadline);
            outlet.sleepers -= 1;
            slept = true;
            lingered = false;
        };
        let call = result.is_ok() && self.count_gone(&mut outlet, 1);
        if slept && outlet.sleepers > 0 {
            self.pass_values_on(&outlet);
        }
        drop(outlet);
        if call {
            self.call_producer();
        }
        result
    }

    /// Takes out all there is.
    pub(super) fn drain(&self) -> Vec<T> {
        let mut outlet = self.outlet.state.lock();
        let mut inlet = self.inlet.state.lock();
        let older = mem::take(&mut outlet.outbox);
        let newer = mem::take(&mut inlet.inbox);
        drop(inlet);
        let call = self.count_gone(&mut outlet, older.len() + newer.len());
        drop(outlet);
        if call {
            self.call_producer();
        }
        let mut values = Vec::from(older);
        values.extend(newer);
        values
    }

    /// Takes nothing in from now on, and tells all who wait.
    pub(super) fn close(&self) {
        self.inlet.state.lock().closed = true;
        self.wake_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inlet.state.lock().closed
    }

    pub(super) fn len(&self) -> usize {
        let inlet = self.inlet.state.lock();
        inlet.puts.wrapping_sub(self.outlet.gets.load(Ordering::Relaxed))
    }

    fn has_room(&self, inlet: &mut InletState<T>) -> bool {
        let has_room = |inlet: &InletState<T>| inlet.puts.wrapping_sub(inlet.gone) < self.capacity;
        // The consumers' cache line only when it seems to be needed: what is gone only grows.
        has_room(inlet) || {
            // Acquire: pairs with `count_gone`, so that what a consumer did before its get is seen by whoever fills the
            // place that it made.
            inlet.gone = self.outlet.gets.load(Ordering::Acquire);
            has_room(inlet)
        }
    }

    /// Counts values as taken. Says whether the caller, once it holds no lock, has to call a producer.
    fn count_gone(&self, outlet: &mut OutletState<T>, count: usize) -> bool {
        // Relaxed: written under the lock that is held.
        let gets = self.outlet.gets.load(Ordering::Relaxed).wrapping_add(count);
        // Release: pairs with the load in `has_room`.
        self.outlet.gets.store(gets, Ordering::Release);
        count > 0 && mem::take(&mut outlet.producers_asleep)
    }

    fn call_consumer(&self) {
        // Once through the lock: who set the mark is asleep by then.
        drop(self.outlet.state.lock());
        self.outlet.values.notify_one();
    }

    fn call_producer(&self) {
        drop(self.inlet.state.lock());
        self.inlet.room.notify_one();
    }

    /// A called consumer leaves while others sleep: they are owed a call, or the mark.
    fn pass_values_on(&self, outlet: &OutletState<T>) {
        let mut inlet = self.inlet.state.lock();
        if outlet.outbox.is_empty() && inlet.inbox.is_empty() {
            inlet.consumers_asleep = true;
        } else {
            self.outlet.values.notify_one();
        }
    }

    /// The same for a producer.
    fn pass_room_on(&self) {
        let mut outlet = self.outlet.state.lock();
        let mut inlet = self.inlet.state.lock();
        if inlet.sleepers == 0 {
            return;
        }
        if self.has_room(&mut inlet) {
            self.inlet.room.notify_one();
        } else {
            outlet.producers_asleep = true;
        }
    }

    fn wake_all(&self) {
        drop(self.inlet.state.lock());
        self.inlet.room.notify_all();
        drop(self.outlet.state.lock());
        self.outlet.values.notify_all();
    }

    /// Lets other threads run for a moment, until `is_so` of the length: a sleep and a wake-up cost more than what a busy
    /// queue needs to move on.
    fn linger(&self, is_so: impl Fn(usize) -> bool) {
        for _ in 0..spin_turns() {
            // Relaxed: hints. Read one after the other they may not fit together; the locked look decides.
            let gets = self.outlet.gets.load(Ordering::Relaxed);
            if is_so(self.inlet.puts.load(Ordering::Relaxed).wrapping_sub(gets)) {
                return;
            }
            spin_turn();
        }
    }
}

impl<T: Send> Nudge for Shared<T> {
    fn nudge(&self) {
        self.wake_all();
    }
}

fn is_up(stop: Option<&AtomicBool>) -> bool {
    // Relaxed: a flag that protects nothing. It is read under a lock that its setter takes next, in `wake_all`.
    stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
}

/// Sleeps until called. Says whether time has run out, after which the caller looks once more.
fn wait<S>(condvar: &Condvar, guard: &mut MutexGuard<'_, S>, deadline: Deadline) -> bool {
    match deadline.at() {
        None => {
            condvar.wait(guard);
            false
        }
        Some(at) => condvar.wait_until(guard, at).timed_out(),
    }
}
