//! One thread's life: take a job, run it, look for more, search a moment, sleep, leave.

use std::sync::Arc;

use super::{ASLEEP, Crew, DISMISSED, Idle, Pool, Seat};
use crate::sync::{Ordering, spin_limit, spin_loop, thread};

/// The body of a pool thread, which starts as the pool's searching worker.
pub(super) fn run<C: Crew>(crew: &C, seat: &Arc<Seat<C::Job>>) {
    let mut desk = crew.sit_down(Some(seat.index));
    let mut searching = true;
    while let Some(job) = next(crew, seat, &mut desk, &mut searching) {
        crew.work(job, &mut desk);
    }
    crew.stand_up(desk);
    let pool = crew.pool();
    pool.state.lock().vacate(seat);
    pool.changed.notify_all();
}

/// The next job, however long that takes; `None` when the thread is to end.
fn next<C: Crew>(crew: &C, seat: &Arc<Seat<C::Job>>, desk: &mut C::Desk, searching: &mut bool) -> Option<C::Job> {
    // Relaxed: the order to leave protects nothing, and a job more does no harm.
    if !seat.leave.load(Ordering::Relaxed) {
        if let Some(job) = seat.batch.lock().pop_front() {
            return Some(job);
        }
    }
    let pool = crew.pool();
    let mut searched = false;
    loop {
        let mut state = pool.state.lock();
        if seat.leave.load(Ordering::Relaxed) {
            state.searching &= !*searching;
            let summons = state.summon_for_work();
            drop(state);
            pool.act(crew, summons);
            return None;
        }
        if let Some(job) = state.take(seat) {
            pool.publish_backlog(&state);
            state.searching &= !std::mem::take(searching);
            // Whoever finds work sends the next one for the rest of it, so that the submitters need not.
            let summons = state.summon_for_work();
            drop(state);
            pool.act(crew, summons);
            return Some(job);
        }
        if !state.open {
            state.searching &= !std::mem::take(searching);
            state.leave(seat);
            return None;
        }
        if !searched && (*searching || !state.searching) && spin_limit() > 0 {
            state.searching = true;
            *searching = true;
            drop(state);
            search(pool);
            searched = true;
            continue;
        }
        state.searching &= !std::mem::take(searching);
        state.idle.push(Idle { seat: seat.clone(), thread: thread::current() });
        drop(state);
        crew.rest(desk);
        if sleep(seat) == DISMISSED {
            return None;
        }
        *searching = true;
        searched = false;
    }
}

/// Spins until the queue has something, or until sleeping would have been cheaper.
fn search<J>(pool: &Pool<J>) {
    for _ in 0..spin_limit() {
        if pool.backlog.load(Ordering::Relaxed) > 0 {
            break;
        }
        spin_loop();
    }
}

/// Sleeps until whoever took this worker out of the idle list says why.
fn sleep<J>(seat: &Seat<J>) -> u8 {
    loop {
        // Acquire: pairs with the store in `Idle::wake`.
        let why = seat.wake.swap(ASLEEP, Ordering::Acquire);
        if why != ASLEEP {
            return why;
        }
        thread::park();
    }
}
