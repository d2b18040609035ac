//! The order of all keys, in shards, so that requests on different keys seldom meet at one lock.

// A model has one shard.
#![cfg_attr(loom, allow(clippy::modulo_one))]

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::request::{Head, Job, Kind, NO_TICKET, Status};
use crate::lanes::{KeyHasher, LaneKey, Lanes};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};

/// A power of two. The low five bits of a ticket say which. Fewer in a model, whose states they
/// multiply.
const SHARDS: usize = if cfg!(loom) { 1 } else { 32 };

pub(super) struct Order {
    keys: KeyHasher,
    shards: Box<[CachePadded<Shard>]>,
    /// Whether new requests are refused. Read under a shard's lock: see `close`.
    closed: AtomicBool,
}

struct Shard {
    lanes: Mutex<Lanes<Arc<dyn Job>>>,
    /// Requests ever deferred here, by their key or otherwise. Written under the lock.
    deferred: AtomicU64,
}

/// What became of a request that was to enter its lane.
pub(super) enum Entered {
    /// It may run.
    Ready,
    /// It is held back by an earlier one.
    Deferred,
    /// The bound on the requests that one key holds back is reached.
    Full,
    /// New requests are refused.
    Closed,
}

/// The requests that may run because another one has left its lane. Most often none or one.
#[derive(Default)]
pub(super) struct Released {
    first: Option<Arc<dyn Job>>,
    rest: Vec<Arc<dyn Job>>,
    /// The lane that was left, if there was one.
    pub(super) key: Option<LaneKey>,
}

impl Released {
    /// A request that was held back by something else.
    pub(super) fn one(job: Arc<dyn Job>) -> Released {
        Released { first: Some(job), ..Released::default() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Job>> {
        self.first.iter().chain(&self.rest)
    }

    fn push(&mut self, job: Arc<dyn Job>) {
        if self.first.is_none() {
            self.first = Some(job);
        } else {
            self.rest.push(job);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl IntoIterator for Released {
    type Item = Arc<dyn Job>;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Arc<dyn Job>>, std::vec::IntoIter<Arc<dyn Job>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.rest)
    }
}

impl Order {
    pub(super) fn new(closed: bool) -> Order {
        let shard = || Shard { lanes: Mutex::new(Lanes::new()), deferred: AtomicU64::new(0) };
        Order {
            keys: KeyHasher::new(),
            shards: (0..SHARDS).map(|_| CachePadded::new(shard())).collect(),
            closed: AtomicBool::new(closed),
        }
    }

    /// The key of a lane; see [`KeyHasher::key`].
    pub(super) fn key(&self, store: usize, key: Option<&str>) -> LaneKey {
        self.keys.key(store, key)
    }

    /// Enters a new request into its lane.
    pub(super) fn enter(&self, key: LaneKey, job: &Arc<dyn Job>) -> Entered {
        let number = key.shard(SHARDS);
        let mut lanes = self.shards[number].lanes.lock();
        self.enter_new(&mut lanes, number, key, job, None)
    }

    /// Enters a new request into the lane of `key`, in the shard `number`, whose lock the caller
    /// holds as `lanes`. If the lane holds it back, marks and counts it as deferred. `Full` if the
    /// lane already holds back `limit` requests, or if the shard has no room; `Closed` if new
    /// requests are refused.
    fn enter_new(
        &self,
        lanes: &mut Lanes<Arc<dyn Job>>,
        number: usize,
        key: LaneKey,
        job: &Arc<dyn Job>,
        limit: Option<u64>,
    ) -> Entered {
        if self.is_closed() {
            return Entered::Closed;
        }
        if limit.is_some_and(|limit| lanes.backlog(key) >= limit) {
            return Entered::Full;
        }
        let Some(ready) = enter(lanes, number, key, job) else { return Entered::Full };
        if ready {
            return Entered::Ready;
        }
        job.head().defer();
        self.shards[number].count_deferred();
        Entered::Deferred
    }

    /// Locks the lanes of all `keys`, for requests that are accepted together.
    pub(super) fn lock(&self, keys: impl Iterator<Item = LaneKey>) -> LockedLanes<'_> {
        let mut numbers: Vec<usize> = keys.map(|key| key.shard(SHARDS)).collect();
        // In one order for all threads, so that no two wait for each other.
        numbers.sort_unstable();
        numbers.dedup();
        let locked = numbers.into_iter().map(|number| (number, self.shards[number].lanes.lock())).collect();
        LockedLanes { order: self, locked }
    }

    /// Enters a request that was accepted before, and held back since by its time. `Closed` says
    /// that it was cancelled meanwhile.
    pub(super) fn enter_accepted(&self, key: LaneKey, job: &Arc<dyn Job>) -> Entered {
        let number = key.shard(SHARDS);
        // The first shard's lock excludes a cancel that looks for the ticket: see `await_entry`.
        let mut first = self.shards[0].lanes.lock();
        let mut own = (number != 0).then(|| self.shards[number].lanes.lock());
        if job.head().status() != Status::Deferred {
            return Entered::Closed;
        }
        match enter(own.as_mut().unwrap_or(&mut first), number, key, job) {
            None => Entered::Full,
            Some(true) => Entered::Ready,
            Some(false) => Entered::Deferred,
        }
    }

    /// Waits until a thread in the middle of `enter_accepted` has given its request a ticket. One
    /// that comes later finds the request cancelled.
    pub(super) fn await_entry(&self) {
        drop(self.shards[0].lanes.lock());
    }

    /// Counts a request as held back that is on no lane yet, because of its time or of the one that
    /// it follows. Returns `false`, and counts nothing, if new requests are refused.
    pub(super) fn defer_elsewhere(&self) -> bool {
        let _lanes = self.shards[0].lanes.lock();
        let open = !self.is_closed();
        if open {
            self.shards[0].count_deferred();
        }
        open
    }

    /// Takes back `defer_elsewhere`: the request was refused after all.
    pub(super) fn undo_defer_elsewhere(&self) {
        let _lanes = self.shards[0].lanes.lock();
        self.shards[0].uncount_deferred();
    }

    /// Takes a request off its lane, and shows the end with `show` under the lane's lock. So a
    /// thread that sees the end finds the lane without it, and what starts behind it finds it
    /// ended.
    pub(super) fn leave<R>(&self, head: &Head, show: impl FnOnce() -> R) -> (R, Released) {
        let mut released = Released::default();
        if head.ticket() == NO_TICKET {
            return (show(), released);
        }
        let mut lanes = self.lanes_of(head.ticket());
        let shown = show();
        if head.ticket() != NO_TICKET {
            let key = lanes.leave(head.ticket() / SHARDS as u32, |job| released.push(job.clone()));
            released.key = Some(key);
            head.set_ticket(NO_TICKET);
        }
        (shown, released)
    }

    /// The lane that a request is held back on, if it is, and, if that lane is new to the caller,
    /// those in front that run, or that wait for the turn of their limit.
    pub(super) fn ahead(&self, head: &Head, is_new: impl FnOnce(u32) -> bool) -> Option<(u32, Vec<Arc<dyn Job>>)> {
        let lanes = self.held_back(head)?;
        let ticket = head.ticket() / SHARDS as u32;
        let lane = lanes.lane(ticket) * SHARDS as u32 + head.ticket() % SHARDS as u32;
        // What is queued starts whatever waits.
        let may_be_stuck = |job: &&Arc<dyn Job>| match job.head().status() {
            Status::Running => true,
            Status::Deferred => job.head().is_limited(),
            _ => false,
        };
        let ahead = || lanes.admitted(ticket).filter(may_be_stuck).cloned().collect();
        Some((lane, if is_new(lane) { ahead() } else { Vec::new() }))
    }

    /// A request that is queued and has to end before the one held back can start.
    pub(super) fn queued_ahead(&self, head: &Head) -> Option<Arc<dyn Job>> {
        let lanes = self.held_back(head)?;
        lanes.admitted(head.ticket() / SHARDS as u32).find(|job| job.head().status() == Status::Queued).cloned()
    }

    /// Whether a request is on the lane of `key`.
    pub(super) fn is_on(&self, head: &Head, key: LaneKey) -> bool {
        if head.ticket() == NO_TICKET {
            return false;
        }
        let lanes = self.lanes_of(head.ticket());
        head.ticket() != NO_TICKET && lanes.key(head.ticket() / SHARDS as u32) == key
    }

    /// The requests that have not started, the last of each lane first.
    pub(super) fn unstarted(&self) -> Vec<Arc<dyn Job>> {
        let mut unstarted = Vec::new();
        for shard in &self.shards {
            let lanes = shard.lanes.lock();
            let is_unstarted = |(job, held): (&Arc<dyn Job>, bool)| match job.head().status() {
                Status::Queued => true,
                // One that could have started at once is deferred only until the queue has taken
                // it, which may refuse it yet.
                Status::Deferred => held,
                _ => false,
            };
            unstarted.extend(lanes.backwards().filter(|entry| is_unstarted(*entry)).map(|(job, _)| job.clone()));
        }
        unstarted
    }

    /// Refuses new requests from now on. When this returns, a thread that still saw the order open
    /// has finished.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for shard in &self.shards {
            drop(shard.lanes.lock());
        }
    }

    pub(super) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Requests ever deferred.
    pub(super) fn deferred(&self) -> u64 {
        self.shards.iter().map(|shard| shard.deferred.load(Ordering::Acquire)).sum()
    }

    fn lanes_of(&self, ticket: u32) -> MutexGuard<'_, Lanes<Arc<dyn Job>>> {
        self.shards[ticket as usize % SHARDS].lanes.lock()
    }

    fn held_back(&self, head: &Head) -> Option<MutexGuard<'_, Lanes<Arc<dyn Job>>>> {
        if head.ticket() == NO_TICKET {
            return None;
        }
        let lanes = self.lanes_of(head.ticket());
        // One that its lane has admitted may still wait for the turn of its limit.
        let is_held_back = head.status() == Status::Deferred
            && head.ticket() != NO_TICKET
            && lanes.is_deferred(head.ticket() / SHARDS as u32);
        is_held_back.then_some(lanes)
    }
}

type LockedShard<'a> = MutexGuard<'a, Lanes<Arc<dyn Job>>>;

/// The lanes of several keys, locked together.
pub(super) struct LockedLanes<'a> {
    order: &'a Order,
    /// By the number of the shard.
    locked: Vec<(usize, LockedShard<'a>)>,
}

impl LockedLanes<'_> {
    /// Enters a new request into its lane, where at most `limit` may be held back.
    pub(super) fn enter(&mut self, key: LaneKey, job: &Arc<dyn Job>, limit: Option<u64>) -> Entered {
        let number = key.shard(SHARDS);
        let order = self.order;
        order.enter_new(self.lanes(number), number, key, job, limit)
    }

    /// Undoes `enter`. All that entered later have to be withdrawn before.
    pub(super) fn withdraw(&mut self, head: &Head) {
        if head.ticket() == NO_TICKET {
            return;
        }
        let number = head.ticket() as usize % SHARDS;
        self.lanes(number).leave(head.ticket() / SHARDS as u32, |_| {});
        head.set_ticket(NO_TICKET);
        if head.status() == Status::Deferred {
            // The next try may find it ready: it must not enter the queue as one that is held back.
            head.undo_defer();
            self.order.shards[number].uncount_deferred();
        }
    }

    fn lanes(&mut self, number: usize) -> &mut Lanes<Arc<dyn Job>> {
        let place = self.locked.binary_search_by_key(&number, |(locked, _)| *locked);
        &mut self.locked[place.expect("`lock` was told of each key")].1
    }
}

impl Shard {
    fn uncount_deferred(&self) {
        self.deferred.store(self.deferred.load(Ordering::Relaxed) - 1, Ordering::Release);
    }

    fn count_deferred(&self) {
        // No read-modify-write: the lock is held.
        self.deferred.store(self.deferred.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}

/// `None` if the lanes are full.
fn enter(lanes: &mut Lanes<Arc<dyn Job>>, shard: usize, key: LaneKey, job: &Arc<dyn Job>) -> Option<bool> {
    let (ticket, ready) = lanes.enter(key, job.head().kind() == Kind::Modifier, job.clone()).ok()?;
    job.head().set_ticket(ticket * SHARDS as u32 + shard as u32);
    Some(ready)
}
