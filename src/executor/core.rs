//! What an executor consists of. The methods stand in the files of what they do: `accept`,
//! `release`, `worker`, `wait`, `lifecycle`.
//!
//! Locks are taken in this order: the room's, a lane shard's, the pool's front, the pool's state,
//! an observer shard's. No code of users runs under any.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crossbeam_channel::Sender;
use crossbeam_utils::CachePadded;

use super::alarm::Alarmed;
use super::clock::Clock;
use super::hooks::Hooks;
use super::interrupts::Interrupts;
use super::order::Order;
use super::permits::{Limited, Permits};
use super::pool::{Pool, Seat, Task};
use super::request::{Kind, Observers, Terms};
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
    /// The requests that have a limit to ask, or wait for their turn, by their addresses.
    pub(super) limited: Mutex<HashMap<usize, Limited>>,
    pub(super) room: Option<Room>,
    pub(super) clock: Clock,
    /// On a cache line of its own, for submitters write it all the time.
    pub(super) next_id: CachePadded<AtomicU64>,
    pub(super) ran: Stripes,
    pub(super) aside: Mutex<Aside>,
    pub(super) cancelled_deferred: AtomicU64,
    pub(super) cancelled_queued: AtomicU64,
    /// What is numbered below it, and isn't kept, is not to start any more: `shutdown_now`.
    pub(super) stopped: AtomicU64,
    /// What is numbered below it, and isn't kept, is told to end.
    pub(super) told: AtomicU64,
    /// Requests at work, and callbacks being called, on threads that are not the pool's.
    pub(super) outside: AtomicU64,
    /// How often in a row the system has refused to start a thread.
    pub(super) refusals: AtomicU64,
    pub(super) hooks: Hooks,
    /// If its threads are a scope's: the scope's thread that starts them.
    pub(super) keeper: Option<Sender<Errand>>,
    /// Why new requests are refused, if they are.
    pub(super) closed: Mutex<Option<Closed>>,
    /// Held while the executor closes or opens, because both change several parts one by one.
    /// Taken before all other locks.
    pub(super) lifecycle: Mutex<()>,
}

/// The threads beside the pool, for the file of that name.
#[derive(Default)]
pub(super) struct Aside {
    /// Kept here until a thread has been found for it, so that a refusal doesn't drop it.
    pub(super) calls: VecDeque<Box<dyn FnOnce() + Send>>,
    pub(super) core: Option<Arc<Core>>,
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.close();
        }
    }
}

/// What the keeper of a scope is asked for.
#[cfg_attr(any(loom, shuttle), allow(dead_code, reason = "models have no scopes"))]
pub(super) enum Errand {
    /// A thread that borrows.
    Start(Arc<Seat>),
    /// To drop the operation with this number, whose request was cancelled.
    Drop(u64),
    End,
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
pub(super) struct OrderBy {
    /// `None` is ordered with nothing.
    pub(super) lane: Option<LaneKey>,
    pub(super) terms: Terms,
}

impl OrderBy {
    /// Ordered with nothing.
    pub(super) const FREE: OrderBy = OrderBy { lane: None, terms: Terms::plain(Kind::Accessor) };
    /// A step of a part of the crate that promises to finish it.
    pub(super) const KEPT: OrderBy = OrderBy { lane: None, terms: Terms { kept: true, ..OrderBy::FREE.terms } };
}

/// How a submission is accepted.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    Now(OrderBy),
    At(Instant, OrderBy),
    After(&'a Task),
    /// Never refused for a full queue.
    Accepted(OrderBy),
    /// When it has its turn.
    Limited(OrderBy, &'a Arc<Permits>),
}

impl Way<'_> {
    pub(super) fn kind(self) -> Kind {
        match self {
            Way::Now(order_by) | Way::At(_, order_by) | Way::Accepted(order_by) | Way::Limited(order_by, _) => {
                order_by.terms.kind
            }
            Way::After(_) => Kind::Accessor,
        }
    }
}

/// What the timer fires.
pub(super) enum Due {
    /// A request, to be ordered and queued now.
    Request { job: Task, lane: Option<LaneKey> },
    /// A part of the crate that wants to be told.
    Alarm(Arc<dyn Alarmed>),
    /// A time limit of what was accepted, which holds during a shutdown as well.
    Limit(Arc<dyn Alarmed>),
    /// A thread is missing: try again to start it.
    Thread,
}

impl Core {
    pub(super) fn new(pool: Pool, capacity: Option<(u64, OnFull)>, hooks: Hooks, closed: Option<Closed>) -> Arc<Core> {
        Core::of_threads(pool, capacity, hooks, closed, None)
    }

    /// As `new`, with threads that a `keeper` starts.
    pub(super) fn of_threads(
        pool: Pool,
        capacity: Option<(u64, OnFull)>,
        hooks: Hooks,
        closed: Option<Closed>,
        keeper: Option<Sender<Errand>>,
    ) -> Arc<Core> {
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
            limited: Mutex::new(HashMap::new()),
            room: capacity.map(|(limit, on_full)| Room::new(limit, on_full)),
            clock: Clock::new(),
            next_id: CachePadded::new(AtomicU64::new(1)),
            ran: Stripes::new(),
            aside: Mutex::new(Aside::default()),
            cancelled_deferred: AtomicU64::new(0),
            cancelled_queued: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
            told: AtomicU64::new(0),
            outside: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            hooks,
            keeper,
            closed: Mutex::new(closed),
            lifecycle: Mutex::new(()),
        })
    }
}
