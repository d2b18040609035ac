//! What the pool's lock protects, and every decision made under it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::queue::Queue;
use super::{ASLEEP, Idle, Seat, Summons};
use crate::sync::{AtomicBool, AtomicU8, Mutex, Ordering};

/// The most jobs that one worker takes at once.
const BATCH: usize = 32;

pub(super) struct State<J> {
    pub(super) queue: Queue<J>,
    /// All threads that have not ended, those told to leave included.
    pub(super) seats: Vec<Arc<Seat<J>>>,
    /// The indices that were given out and that no seat has now.
    free: BTreeSet<usize>,
    /// The seats not told to leave.
    pub(super) live: usize,
    /// The sleepers, the latest last: it is woken first, because its memory is warm.
    pub(super) idle: Vec<Idle<J>>,
    /// Whether a worker is looking for a job, or is on the way: starting, woken, or spinning. There is at most one, and
    /// as long as there is, no push wakes another.
    pub(super) searching: bool,
    /// How many seats may have a batch with jobs in it.
    batches: usize,
    /// The number of threads to grow to.
    pub(super) target: usize,
    /// Whether new jobs are taken.
    pub(super) open: bool,
    /// Jobs ever queued.
    pub(super) pushed: u64,
    /// Counts the resets.
    pub(super) epoch: u64,
    /// Counts what those who wait for the end wait for.
    pub(super) events: u64,
}

impl<J> State<J> {
    pub(super) fn new(target: usize) -> State<J> {
        State {
            queue: Queue::new(),
            seats: Vec::new(),
            free: BTreeSet::new(),
            live: 0,
            idle: Vec::new(),
            searching: false,
            batches: 0,
            target,
            open: true,
            pushed: 0,
            epoch: 0,
            events: 0,
        }
    }

    /// Picks the one to look for a job, if jobs wait and nobody looks yet.
    pub(super) fn summon_for_work(&mut self) -> Summons<J> {
        if self.searching || (self.queue.len() == 0 && self.batches == 0) {
            return Summons::None;
        }
        self.summon()
    }

    /// Picks a sleeper, or a seat for a new thread, to be the searching worker.
    pub(super) fn summon(&mut self) -> Summons<J> {
        let summons = if let Some(idle) = self.idle.pop() {
            Summons::Wake(idle)
        } else if self.live < self.target {
            Summons::Start(self.take_seat())
        } else {
            return Summons::None;
        };
        self.searching = true;
        summons
    }

    fn take_seat(&mut self) -> Arc<Seat<J>> {
        let seat = Arc::new(Seat {
            // The lowest one, so that names are used again. Where none is free, the seats have all those before.
            index: self.free.pop_first().unwrap_or(self.seats.len()),
            epoch: self.epoch,
            batch: Mutex::new(VecDeque::new()),
            batched: AtomicBool::new(false),
            leave: AtomicBool::new(false),
            wake: AtomicU8::new(ASLEEP),
        });
        self.seats.push(seat.clone());
        self.live += 1;
        seat
    }

    /// The next job for a worker whose batch is empty; and, if it is `brisk` and many wait, more for its batch.
    pub(super) fn take(&mut self, seat: &Seat<J>, brisk: bool) -> Option<J> {
        self.set_batched(seat, false);
        let Some(job) = self.queue.pop_front() else {
            return self.steal(seat);
        };
        // A batch is a bet that its jobs are short: lost, they start late, or out of order where they are stolen. So it
        // takes a worker whose last one was, and a share that leaves as much for each of the others, twice over.
        let share = (self.queue.len() / (2 * self.target.max(1))).min(BATCH - 1);
        if brisk && share > 0 {
            let mut batch = seat.batch.lock();
            batch.extend((0..share).map_while(|_| self.queue.pop_front()));
            drop(batch);
            self.set_batched(seat, true);
        }
        Some(job)
    }

    /// Half of somebody's batch.
    fn steal(&mut self, seat: &Seat<J>) -> Option<J> {
        if self.batches == 0 {
            return None;
        }
        let mut stolen = self.seats.iter().find_map(|victim| {
            // Relaxed: under the pool's lock.
            let batch = victim.batched.load(Ordering::Relaxed).then(|| victim.batch.lock());
            let mut batch = batch.filter(|batch| !batch.is_empty())?;
            let rest = batch.len() / 2;
            Some(batch.split_off(rest))
        })?;
        let job = stolen.pop_front();
        if !stolen.is_empty() {
            seat.batch.lock().append(&mut stolen);
            self.set_batched(seat, true);
        }
        job
    }

    fn set_batched(&mut self, seat: &Seat<J>, batched: bool) {
        // Relaxed: under the pool's lock.
        if seat.batched.swap(batched, Ordering::Relaxed) != batched {
            if batched { self.batches += 1 } else { self.batches -= 1 }
        }
    }

    /// Tells threads to end until no more than `target` are left: sleepers first, the newest of the busy ones then.
    /// The caller wakes the returned.
    pub(super) fn dismiss_surplus(&mut self) -> Vec<Idle<J>> {
        let surplus = self.live.saturating_sub(self.target);
        let dismissed: Vec<Idle<J>> = self.idle.drain(..surplus.min(self.idle.len())).collect();
        for idle in &dismissed {
            self.dismiss(&idle.seat);
        }
        let busy = self.seats.iter().rev().filter(|seat| !seat.leave.load(Ordering::Relaxed));
        let surplus: Vec<Arc<Seat<J>>> = busy.take(self.live.saturating_sub(self.target)).cloned().collect();
        for seat in &surplus {
            self.dismiss(seat);
        }
        dismissed
    }

    /// Tells one thread to end, and gives what it had taken to the others.
    pub(super) fn dismiss(&mut self, seat: &Seat<J>) {
        self.leave(seat);
        let batch = std::mem::take(&mut *seat.batch.lock());
        self.set_batched(seat, false);
        self.queue.push_front_all(batch);
    }

    /// Counts a thread that is to end.
    pub(super) fn leave(&mut self, seat: &Seat<J>) {
        // Relaxed: under the pool's lock. The worker looks without it, and sees it late at worst.
        if !seat.leave.swap(true, Ordering::Relaxed) {
            self.live -= 1;
        }
    }

    /// Forgets a thread that has ended.
    pub(super) fn vacate(&mut self, seat: &Arc<Seat<J>>) {
        self.seats.retain(|other| !Arc::ptr_eq(other, seat));
        self.free.insert(seat.index);
        if self.seats.is_empty() {
            self.free.clear();
        }
        self.events += 1;
    }
}
