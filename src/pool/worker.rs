//! One thread's life: take a job, run it, look for more, search a moment, sleep, leave.

use std::sync::Arc;

use super::{ASLEEP, Crew, DISMISSED, Idle, Seat};
use crate::sync::{Ordering, pause, spin_turn, spin_turns, thread};

/// A backlog that is worth the way to the queue.
const ENOUGH: usize = 32;

/// How many pauses, of some 10 ns, a busy submitter takes for a job or two.
const GROWTH: u32 = 25;

/// The body of a pool thread, which starts as the pool's searching worker.
pub(super) fn run<C: Crew>(crew: &C, seat: &Arc<Seat<C::Job>>) {
    let mut desk = crew.sit_down(Some(seat.index));
    let mut worker = Worker { crew, seat, searching: true, surge: false };
    while let Some(job) = worker.next(&mut desk) {
        crew.work(job, &mut desk);
    }
    crew.stand_up(desk);
    let pool = crew.pool();
    pool.state.lock().vacate(seat);
    pool.changed.notify_all();
}

struct Worker<'a, C: Crew> {
    crew: &'a C,
    seat: &'a Arc<Seat<C::Job>>,
    /// Whether it is the pool's searching worker.
    searching: bool,
    /// Whether jobs come faster than they are taken one by one.
    surge: bool,
}

impl<C: Crew> Worker<'_, C> {
    /// The next job, however long that takes; `None` when the thread is to end.
    fn next(&mut self, desk: &mut C::Desk) -> Option<C::Job> {
        let (crew, seat, pool) = (self.crew, self.seat, self.crew.pool());
        // Relaxed: the order to leave protects nothing, and a job more does no harm.
        if !seat.leave.load(Ordering::Relaxed) {
            if let Some(job) = seat.batch.lock().pop_front() {
                return Some(job);
            }
        }
        let brisk = crew.is_brisk(desk);
        let mut searched = false;
        if self.surge && brisk {
            self.gather();
        }
        loop {
            let mut state = pool.state.lock();
            if seat.leave.load(Ordering::Relaxed) {
                state.searching &= !self.searching;
                let summons = state.summon_for_work();
                drop(state);
                pool.act(crew, summons);
                return None;
            }
            self.surge = state.queue.len() > 1;
            if let Some(job) = state.take(seat, brisk) {
                pool.publish_backlog(&state);
                state.searching &= !std::mem::take(&mut self.searching);
                // Whoever finds work sends the next one for the rest of it, so that the submitters need not.
                let summons = state.summon_for_work();
                drop(state);
                pool.act(crew, summons);
                return Some(job);
            }
            if !state.open {
                state.searching &= !std::mem::take(&mut self.searching);
                state.leave(seat);
                return None;
            }
            if !searched && (self.searching || !state.searching) && spin_turns() > 0 {
                state.searching = true;
                self.searching = true;
                drop(state);
                crew.rest(desk);
                self.search();
                searched = true;
                continue;
            }
            state.searching &= !std::mem::take(&mut self.searching);
            state.idle.push(Idle { seat: seat.clone(), thread: thread::current() });
            drop(state);
            crew.rest(desk);
            if sleep(seat) == DISMISSED {
                return None;
            }
            self.searching = true;
            searched = false;
        }
    }

    /// Spins until the queue has something, or until sleeping would have been cheaper.
    fn search(&self) {
        for _ in 0..spin_turns() {
            if self.crew.pool().backlog.load(Ordering::Relaxed) > 0 {
                break;
            }
            spin_turn();
        }
    }

    /// Lets the queue grow for as long as it grows, so that the submitter and this thread don't fight over every job.
    fn gather(&self) {
        let mut seen = 0;
        loop {
            let backlog = self.crew.pool().backlog.load(Ordering::Relaxed);
            if backlog == seen || backlog >= ENOUGH {
                break;
            }
            seen = backlog;
            pause(GROWTH);
        }
    }
}

/// Sleeps until whoever took this worker out of the idle list says why.
fn sleep<J>(seat: &Seat<J>) -> u8 {
    loop {
        // Acquire: pairs with the store in `Idle::wake`.
        let why = seat.wake.load(Ordering::Acquire);
        if why != ASLEEP {
            // Relaxed: the next waker finds this worker in the idle list, under the pool's lock.
            seat.wake.store(ASLEEP, Ordering::Relaxed);
            return why;
        }
        thread::park();
    }
}
