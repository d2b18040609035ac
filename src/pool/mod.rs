//! A resizable pool of OS threads: who takes which job, who sleeps, who is woken, who leaves.
//!
//! Promises: every pushed job is handed to exactly one worker, in the order of the pushes but for batches of very short
//! ones taken side by side; no worker sleeps while a job waits and nobody is on the way to it; a push wakes at most one
//! thread, and only one that sleeps; parked threads use no CPU; the number of threads changes while jobs wait and run.
//! `README.md` beside this file argues each of them.
//!
//! Left to others: what a job is and whether it still wants to run ([`Crew`]), results, order, counting.
//!
//! Sources: the single searching worker follows Go's scheduler (Vyukov, "Scalable Go Scheduler Design Doc", 2012), the
//! batches with stealing follow Cilk's (Blumofe, Leiserson, 1999), taken under one lock for the sake of a short proof.

mod queue;
mod state;
mod worker;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::panics;
use crate::sync::{AtomicBool, AtomicU8, AtomicUsize, Condvar, Mutex, Ordering, thread};
use crate::time::Deadline;
use state::State;

/// What the pool's threads work for.
pub(crate) trait Crew: Send + Sync + Sized + 'static {
    type Job: Send + Sync + 'static;
    /// What one thread keeps from job to job.
    type Desk;

    fn pool(&self) -> &Pool<Self::Job>;
    /// For a new thread to keep.
    fn shared(&self) -> Arc<Self>;
    /// Runs under no lock. Must not panic.
    fn work(&self, job: Self::Job, desk: &mut Self::Desk);
    /// Whether a queued job still waits to be run: not if it was cancelled, or run by somebody who waited for it.
    fn is_live(job: &Self::Job) -> bool;
    /// The thread has started, and `index` is the number in its name; or, without one, it is borrowed for a while.
    fn sit_down(&self, index: Option<usize>) -> Self::Desk;
    /// Whether the thread's last job was so short that a batch saves more than it costs the order.
    fn is_brisk(&self, desk: &Self::Desk) -> bool;
    /// The thread found nothing to do for a while, or is about to.
    fn rest(&self, desk: &mut Self::Desk);
    /// The thread is about to end.
    fn stand_up(&self, desk: Self::Desk);
}

/// Why a push was refused.
#[derive(Debug)]
pub(crate) enum Refused {
    Closed,
    Spawn(io::Error),
}

pub(crate) struct Pool<J> {
    state: Mutex<State<J>>,
    /// The queue's length, for a searching worker to look at without the lock.
    backlog: AtomicUsize,
    /// Queued jobs that were run or cancelled out of turn since the last sweep, at most.
    stale: AtomicUsize,
    /// A thread has ended, or somebody outside the pool has something to tell those who wait for the end.
    changed: Condvar,
    thread_name: String,
    stack_size: Option<usize>,
}

/// One thread's place in the pool.
pub(crate) struct Seat<J> {
    index: usize,
    /// The `reset` after which it was taken.
    epoch: u64,
    /// Jobs taken from the queue together, still open to other workers.
    batch: Mutex<VecDeque<J>>,
    /// Whether it is counted in `State::batches`. Read and written under the pool's lock.
    batched: AtomicBool,
    /// Set under the pool's lock: the thread ends after its current job.
    leave: AtomicBool,
    /// Why the thread was woken: `ASLEEP`, `SUMMONED` or `DISMISSED`.
    wake: AtomicU8,
}

const ASLEEP: u8 = 0;
/// Woken to look for a job, as the pool's one searching worker.
const SUMMONED: u8 = 1;
/// Woken to end.
const DISMISSED: u8 = 2;

/// A sleeping worker. Whoever takes it out of the idle list owes it a wake-up.
pub(crate) struct Idle<J> {
    seat: Arc<Seat<J>>,
    thread: thread::Thread,
}

impl<J> Idle<J> {
    fn wake(self, why: u8) {
        // Release: pairs with the load in `worker::sleep`, so that the woken thread sees what the lock-holder decided.
        self.seat.wake.store(why, Ordering::Release);
        self.thread.unpark();
    }
}

/// What the pool's lock-holder decided and somebody has to do once the lock is free.
#[must_use]
pub(crate) enum Summons<J> {
    None,
    Wake(Idle<J>),
    Start(Arc<Seat<J>>),
}

impl<J: Send + Sync + 'static> Pool<J> {
    pub(crate) fn new(threads: usize, thread_name: String, stack_size: Option<usize>) -> Pool<J> {
        Pool {
            state: Mutex::new(State::new(threads)),
            backlog: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
            changed: Condvar::new(),
            thread_name,
            stack_size,
        }
    }

    /// What a thread is named that has this number, or this part.
    pub(crate) fn name_of(&self, part: impl std::fmt::Display) -> String {
        format!("{}-{part}", self.thread_name)
    }

    /// The threads' stack, in bytes, where it was set.
    pub(crate) fn stack_size(&self) -> Option<usize> {
        self.stack_size
    }

    /// Queues new jobs, all or none, under one lock: none if the pool is closed or can't start its first thread. The
    /// caller owes the summons to [`act`](Pool::act) once it holds no lock of its own.
    pub(crate) fn push<C: Crew<Job = J>>(
        &self,
        crew: &C,
        jobs: impl IntoIterator<Item = J>,
    ) -> Result<Summons<J>, Refused> {
        loop {
            let mut state = self.state.lock();
            if !state.open {
                return Err(Refused::Closed);
            }
            if state.live == 0 {
                // With no thread at all there must be one before a job is accepted, or nobody might ever run it.
                if let Summons::Start(seat) = state.summon() {
                    drop(state);
                    self.start(crew, seat).map_err(Refused::Spawn)?;
                    continue;
                }
            }
            return Ok(self.enqueue(&mut state, jobs));
        }
    }

    /// Queues jobs that were accepted before, closed or not. The caller owes the summons.
    pub(crate) fn push_accepted(&self, jobs: impl IntoIterator<Item = J>) -> Summons<J> {
        self.enqueue(&mut self.state.lock(), jobs)
    }

    fn enqueue(&self, state: &mut State<J>, jobs: impl IntoIterator<Item = J>) -> Summons<J> {
        for job in jobs {
            state.queue.push_back(job);
            state.pushed += 1;
        }
        self.publish_backlog(state);
        state.summon_for_work()
    }

    /// Changes the number of threads while jobs wait and run. Surplus threads end after their current job, idle ones now.
    pub(crate) fn resize<C: Crew<Job = J>>(&self, crew: &C, threads: usize) {
        let mut state = self.state.lock();
        state.target = threads;
        let dismissed = state.dismiss_surplus();
        self.publish_backlog(&state);
        let summons = state.summon_for_work();
        drop(state);
        dismissed.into_iter().for_each(|idle| idle.wake(DISMISSED));
        self.act(crew, summons);
    }

    /// Opens the pool with `threads` new threads, which take over all that is queued. The old threads end after their
    /// current job: [`wait_for_epoch`](Pool::wait_for_epoch) with the returned number waits for them.
    /// The caller owes the summons.
    pub(crate) fn reset(&self, threads: usize) -> (u64, Summons<J>) {
        let mut state = self.state.lock();
        state.open = true;
        state.target = 0;
        let dismissed = state.dismiss_surplus();
        state.target = threads;
        state.epoch += 1;
        state.events += 1;
        self.changed.notify_all();
        let epoch = state.epoch;
        self.publish_backlog(&state);
        let summons = state.summon_for_work();
        drop(state);
        dismissed.into_iter().for_each(|idle| idle.wake(DISMISSED));
        (epoch, summons)
    }

    /// Takes no new jobs. Threads end when nothing is queued; a job released later starts one again.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        let idle = std::mem::take(&mut state.idle);
        for idle in &idle {
            state.dismiss(&idle.seat);
        }
        drop(state);
        idle.into_iter().for_each(|idle| idle.wake(DISMISSED));
    }

    /// How many threads are at work, or asleep, or about to start; those told to end don't count.
    pub(crate) fn threads(&self) -> usize {
        self.state.lock().live
    }

    /// The number of threads that the pool grows to.
    pub(crate) fn target(&self) -> usize {
        self.state.lock().target
    }

    /// Jobs queued since the pool was made.
    pub(crate) fn pushed(&self) -> u64 {
        self.state.lock().pushed
    }

    /// Waits until all threads of before `epoch` have ended. Returns how many are left.
    pub(crate) fn wait_for_epoch(&self, epoch: u64, deadline: Deadline) -> usize {
        let mut state = self.state.lock();
        loop {
            let left = state.seats.iter().filter(|seat| seat.epoch < epoch).count();
            if left == 0 || deadline.is_past() {
                return left;
            }
            self.wait_changed(&mut state, deadline);
        }
    }

    /// Waits until `ended` says so, which is asked whenever a thread ends, after a reset, and when [`nudge`](Pool::nudge) is
    /// called, and told whether there is no thread any more. Returns whether it did.
    pub(crate) fn wait_for_end(&self, deadline: Deadline, ended: impl Fn(bool) -> bool) -> bool {
        loop {
            let (events, empty) = {
                let state = self.state.lock();
                (state.events, state.seats.is_empty())
            };
            // Outside the lock, because `ended` takes locks of its own. What changes after `events` was read changes it.
            if ended(empty) {
                return true;
            }
            if deadline.is_past() {
                return false;
            }
            let mut state = self.state.lock();
            while state.events == events && !deadline.is_past() {
                self.wait_changed(&mut state, deadline);
            }
        }
    }

    /// Has those who wait for the end look again.
    pub(crate) fn nudge(&self) {
        self.state.lock().events += 1;
        self.changed.notify_all();
    }

    /// One queued job was run or cancelled out of turn. Sweeps such jobs out when they are half of the queue, so that
    /// they hold no memory while every thread is busy, at an amortised cost of O(1).
    pub(crate) fn note_stale<C: Crew<Job = J>>(&self) {
        // Relaxed: an estimate that protects nothing.
        let stale = self.stale.fetch_add(1, Ordering::Relaxed) + 1;
        if stale < 64 || stale * 2 < self.backlog.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        self.stale.store(0, Ordering::Relaxed);
        let swept = state.queue.sweep(C::is_live);
        self.publish_backlog(&state);
        drop(state);
        // Here, without the lock, because the last handle of a job may run a destructor of the user's.
        for job in swept {
            panics::contain(|| drop(job));
        }
    }

    fn publish_backlog(&self, state: &State<J>) {
        // Relaxed: a hint. Whoever acts on it takes the lock and looks again.
        self.backlog.store(state.queue.len(), Ordering::Relaxed);
    }

    fn wait_changed(&self, state: &mut crate::sync::MutexGuard<'_, State<J>>, deadline: Deadline) {
        match deadline.at() {
            None => self.changed.wait(state),
            Some(at) => drop(self.changed.wait_until(state, at)),
        }
    }

    /// Wakes or starts the thread that was summoned.
    pub(crate) fn act<C: Crew<Job = J>>(&self, crew: &C, summons: Summons<J>) {
        match summons {
            Summons::None => {}
            Summons::Wake(idle) => idle.wake(SUMMONED),
            Summons::Start(seat) => {
                if self.start(crew, seat).is_err() {
                    self.run_stranded(crew);
                }
            }
        }
    }

    fn start<C: Crew<Job = J>>(&self, crew: &C, seat: Arc<Seat<J>>) -> io::Result<()> {
        let name = self.name_of(seat.index);
        let started = {
            let (crew, seat) = (crew.shared(), seat.clone());
            thread::spawn(name, self.stack_size, move || worker::run(&*crew, &seat))
        };
        started.inspect_err(|_| {
            let mut state = self.state.lock();
            state.searching = false;
            state.leave(&seat);
            state.vacate(&seat);
            self.changed.notify_all();
        })
    }

    /// The system refused a thread. Those that live go on with fewer; where there is none, whoever released the jobs runs
    /// them, so that none is lost.
    pub(crate) fn run_stranded<C: Crew<Job = J>>(&self, crew: &C) {
        let mut desk = None;
        loop {
            let mut state = self.state.lock();
            if state.live > 0 {
                return;
            }
            let Some(job) = state.queue.pop_front() else {
                self.publish_backlog(&state);
                break;
            };
            drop(state);
            crew.work(job, desk.get_or_insert_with(|| crew.sit_down(None)));
        }
        if let Some(desk) = desk {
            crew.stand_up(desk);
        }
    }
}
