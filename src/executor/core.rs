//! What an executor consists of. The methods stand in the files of what they do: `accept`, `release`, `worker`, `wait`,
//! `lifecycle`.
//!
//! Locks are taken in this order: the room's, a lane shard's, the pool's front, the pool's state, an observer shard's.
//! No code of users runs under any.

use std::sync::{Arc, Weak};

use crossbeam_utils::CachePadded;

use super::alarm::Alarmed;
use super::clock::Clock;
use super::hooks::Hooks;
use super::interrupts::Interrupts;
use super::order::Order;
use super::pool::{Pool, Task};
use super::request::{Kind, Observers};
use super::room::{OnFull, Room};
use super::stats::Stripes;
use super::waits::Waits;
use crate::error::Error;
use crate::lanes::LaneKey;
use crate::sync::{AtomicU64, Mutex};
use crate::timer::Timer;

pub(super) struct Core {
    pub(super) me: Weak<Core>,
    pub(super) pool: Pool,
    pub(super) timer: Timer<Due>,
    pub(super) order: Order,
    pub(super) observers: Observers,
    pub(super) interrupts: Interrupts,
    /// What the requests of this executor wait for.
    pub(super) waits: Mutex<Waits>,
    pub(super) room: Option<Room>,
    pub(super) clock: Clock,
    /// On a cache line of its own, for submitters write it all the time.
    pub(super) next_id: CachePadded<AtomicU64>,
    pub(super) ran: Stripes,
    pub(super) cancelled_deferred: AtomicU64,
    pub(super) cancelled_queued: AtomicU64,
    /// Requests at work, and callbacks being called, on threads that are not the pool's.
    pub(super) outside: AtomicU64,
    /// How often in a row the system has refused to start a thread.
    pub(super) refusals: AtomicU64,
    pub(super) hooks: Hooks,
    /// Why new requests are refused, if they are.
    pub(super) closed: Mutex<Option<Closed>>,
    /// Held while the executor closes or opens, because both change several parts one by one.
    /// Taken before all other locks.
    pub(super) lifecycle: Mutex<()>,
}

/// Why an executor takes no requests.
#[derive(Clone)]
pub(super) enum Closed {
    ShutDown,
    /// A setting from outside makes no sense, and this says so.
    Misconfigured(String),
}

impl Closed {
    pub(super) fn error(&self) -> Error {
        match self {
            Closed::ShutDown => Error::ShutDown,
            Closed::Misconfigured(message) => Error::Invalid(message.clone()),
        }
    }
}

/// What a submission is ordered by.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) kind: Kind,
    /// `None` is ordered with nothing.
    pub(super) lane: Option<LaneKey>,
}

/// What the timer fires.
pub(super) enum Due {
    /// A request, to be ordered and queued now.
    Request { job: Task, lane: Option<LaneKey> },
    /// A part of the crate that wants to be told.
    Alarm(Arc<dyn Alarmed>),
    /// A thread is missing: try again to start it.
    Thread,
}

impl Core {
    pub(super) fn new(pool: Pool, capacity: Option<(u64, OnFull)>, hooks: Hooks, closed: Option<Closed>) -> Arc<Core> {
        let timer = Timer::new(pool.name_of("timer"), pool.stack_size());
        if closed.is_some() {
            pool.close();
            timer.close(|_| true);
        }
        Arc::new_cyclic(|me| Core {
            me: me.clone(),
            timer,
            pool,
            order: Order::new(closed.is_some()),
            observers: Observers::new(),
            interrupts: Interrupts::new(),
            waits: Mutex::new(Waits::default()),
            room: capacity.map(|(limit, on_full)| Room::new(limit, on_full)),
            clock: Clock::new(),
            next_id: CachePadded::new(AtomicU64::new(1)),
            ran: Stripes::new(),
            cancelled_deferred: AtomicU64::new(0),
            cancelled_queued: AtomicU64::new(0),
            outside: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            hooks,
            closed: Mutex::new(closed),
            lifecycle: Mutex::new(()),
        })
    }
}
