//! A resizable set of OS threads: which of them takes which job, sleeps, is woken, leaves.
//!
//! Promises: jobs are handed out one at a time, in the order of the pushes but for those with a
//! head start, and each that is queued can be taken by each free thread; with fewer threads at work
//! than the pool may have, no job waits unless a thread is on its way to it; a push wakes at most
//! one thread, and only one that sleeps; parked threads use no CPU; a thread that is blocked in a
//! wait doesn't count as at work, so another one stands in for it; the number of threads changes
//! while jobs wait and run. `README.md` beside this file argues each of them.
//!
//! Left to others: running a job, and starting a thread (`worker`).
//!
//! Sources: the single searching worker follows Go's scheduler (Vyukov, "Scalable Go Scheduler
//! Design Doc", 2012), the threads that stand in follow `ForkJoinPool`'s compensation (Lea,
//! java.util.concurrent), the two locks of the queue Michael and Scott ("Simple, Fast, and
//! Practical Non-Blocking and Blocking Concurrent Queue Algorithms", PODC 1996).

mod queue;
mod ranked;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::request::{Job, Status};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{
    AtomicBool, AtomicI64, AtomicU8, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, spin_turn, spin_turns,
};
use crate::time::Deadline;
use queue::Queue;
use ranked::{AWAITED, NO_RANK};
use state::State;

/// What the queue holds.
pub(super) type Task = Arc<dyn Job>;

/// A push was refused, because the pool is closed.
#[derive(Debug)]
pub(super) struct Closed;

pub(super) struct Pool {
    /// What workers take from. The lock is taken before the state's.
    front: CachePadded<Mutex<Queue<Task>>>,
    state: CachePadded<Mutex<State>>,
    /// Whether something was pushed since the last exchange of the queues, or is awaited. A hint,
    /// as those below.
    work: CachePadded<AtomicBool>,
    hints: CachePadded<Hints>,
    /// A thread has ended, or another part of the executor has something to tell those who wait for
    /// the end.
    changed: Condvar,
    /// How many threads wait until all others sleep. Raised under the state's lock, and so seen
    /// under it by each thread that goes to sleep later.
    watchers: AtomicUsize,
    thread_name: String,
    stack_size: Option<usize>,
    /// How long a thread sleeps before it ends.
    idle_timeout: Option<Duration>,
}

/// Copies of what the state holds, for looks without the lock. A thread that acts on one takes the
/// lock and looks again.
struct Hints {
    /// What may go before the front's first job: the rank of the first one with a head start, or
    /// `NO_RANK`. `AWAITED` if a blocked operation waits for something that no thread has looked
    /// at: that comes before the queue, or each operation that waits for its parts would have the
    /// next one start instead, with a thread of its own.
    first_rank: AtomicI64,
    /// Whether a thread may have to stop working: see [`State::has_surplus`].
    surplus: AtomicBool,
    /// [`State::live`].
    live: AtomicUsize,
    /// Queued jobs that were cancelled, or run out of turn, since the last sweep.
    stale: AtomicUsize,
}

/// One thread's place in the pool.
pub(super) struct Seat {
    pub(super) index: usize,
    /// The `reset` after which it started.
    epoch: u64,
    /// Set under the pool's lock: the thread ends after what it runs now.
    leave: AtomicBool,
    /// Changed under the pool's lock: the thread runs the user's start hook.
    in_hook: AtomicBool,
    /// Why the thread was woken: `ASLEEP`, `TO_WORK` or `TO_END`.
    wake: AtomicU8,
}

const ASLEEP: u8 = 0;
/// Woken to look for work, as the pool's one searching worker.
const TO_WORK: u8 = 1;
/// Woken to end.
const TO_END: u8 = 2;

/// What became of a thread that was to start.
pub(super) enum Started {
    Joinable(JoinHandle<()>),
    /// Its scope joins it.
    #[cfg_attr(any(loom, shuttle), allow(dead_code, reason = "models have no scopes"))]
    Scoped,
    Refused,
}

/// A sleeping worker. The thread that takes it out of the idle list has to wake it.
pub(super) struct Idle {
    seat: Arc<Seat>,
    thread: thread::Thread,
}

impl Idle {
    fn wake(self, why: u8) {
        // Release: pairs with the load in `Pool::sleep`, so the woken thread sees what was decided
        // under the lock.
        self.seat.wake.store(why, Ordering::Release);
        self.thread.unpark();
    }
}

/// What was decided under the pool's lock, to be done once no lock is held.
#[must_use]
pub(super) enum Wakeup {
    None,
    Wake(Idle),
    Start(Arc<Seat>),
}

/// What a blocked operation waits for. A thread that stands in for it runs these before it takes
/// from the queue.
pub(super) struct Awaited {
    jobs: Mutex<VecDeque<Task>>,
    waiter: thread::Thread,
}

impl Awaited {
    /// Of an operation on this thread.
    pub(super) fn new(jobs: impl IntoIterator<Item = Task>) -> Arc<Awaited> {
        Arc::new(Awaited { jobs: Mutex::new(jobs.into_iter().collect()), waiter: thread::current() })
    }

    /// The next one that can be run now. `ahead` finds what has to be run first for one that its
    /// key holds back.
    pub(super) fn next(&self, ahead: impl Fn(&Task) -> Option<Task>) -> Option<Task> {
        // Dropped once the lock is free: the last handle of a job may run a user's destructor.
        let mut started: Vec<Task> = Vec::new();
        let mut jobs = self.jobs.lock();
        for _ in 0..jobs.len() {
            let job = jobs.front().cloned()?;
            match job.head().status() {
                Status::Queued => return jobs.pop_front(),
                Status::Deferred => {
                    if let Some(ahead) = ahead(&job) {
                        return Some(ahead);
                    }
                    // Nothing can be done for it now.
                    jobs.rotate_left(1);
                }
                // It has started: its end is up to the thread that runs it.
                _ => started.extend(jobs.pop_front()),
            }
        }
        None
    }

    /// Has the thread that waits look again.
    fn unpark(&self) {
        self.waiter.unpark();
    }

    /// The wait is over.
    pub(super) fn close(&self) {
        let jobs = std::mem::take(&mut *self.jobs.lock());
        drop(jobs);
    }
}

/// What one worker knows between two jobs.
pub(super) struct Turn {
    pub(super) seat: Arc<Seat>,
    /// Whether it is the pool's searching worker.
    searching: bool,
    /// Whether it has spun since its last job.
    searched: bool,
    /// The blocked operation that it stands in for.
    awaited: Option<Arc<Awaited>>,
    /// The thread that it has to wake or start, now that it holds no lock.
    pub(super) wakeup: Wakeup,
}

impl Turn {
    /// Of a thread that has just started, as the pool's searching worker.
    pub(super) fn new(seat: Arc<Seat>) -> Turn {
        Turn { seat, searching: true, searched: false, awaited: None, wakeup: Wakeup::None }
    }
}

/// What a worker is to do next.
pub(super) enum Next {
    Run(Task),
    /// Ask again: there may be a thread to wake first.
    LookAgain,
    /// There is nothing: look for a moment whether something comes, then ask again.
    Spin,
    /// There is nothing, and this worker is in the idle list: [`Pool::sleep`].
    Sleep,
    End,
}

impl Pool {
    /// A pool without threads: they start when there is work. At most `threads` of them are at work
    /// at once. `stack_size` is in bytes, `None` the default of the standard library. A thread that
    /// has slept for `idle_timeout` ends; with `None` it stays.
    pub(super) fn new(
        threads: usize,
        thread_name: String,
        stack_size: Option<usize>,
        idle_timeout: Option<Duration>,
    ) -> Pool {
        Pool {
            front: CachePadded::new(Mutex::new(Queue::new())),
            state: CachePadded::new(Mutex::new(State::new(threads))),
            work: CachePadded::new(AtomicBool::new(false)),
            hints: CachePadded::new(Hints::new()),
            changed: Condvar::new(),
            watchers: AtomicUsize::new(0),
            thread_name,
            stack_size,
            idle_timeout,
        }
    }

    /// The name of the thread with this number, or this part.
    pub(super) fn name_of(&self, part: impl std::fmt::Display) -> String {
        format!("{}-{part}", self.thread_name)
    }

    /// The threads' stack, in bytes, where it was set.
    pub(super) fn stack_size(&self) -> Option<usize> {
        self.stack_size
    }

    // Jobs.

    /// Queues new jobs, unless the pool is closed: then it takes none of them.
    pub(super) fn push(&self, jobs: impl IntoIterator<Item = Task>) -> Result<Wakeup, Closed> {
        self.push_each(jobs, |_| {})
    }

    /// As `push`, for a job that other threads can see on its lane, and may run only once it is
    /// queued.
    pub(super) fn push_entered(&self, job: Task) -> Result<Wakeup, Closed> {
        // Under the lock in which it is counted, and only if the pool takes it.
        self.push_each([job], |job| job.head().undo_defer())
    }

    fn push_each(&self, jobs: impl IntoIterator<Item = Task>, queued: impl Fn(&Task)) -> Result<Wakeup, Closed> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(Closed);
        }
        for job in jobs {
            queued(&job);
            state.queue(job);
        }
        Ok(self.wake_for_pushed(state))
    }

    /// Queues jobs that were accepted before and held back, closed or not; but those that were
    /// cancelled meanwhile. Calls `queued` with each that is queued, at `now`, and whether it is
    /// observed.
    pub(super) fn push_released(
        &self,
        jobs: impl IntoIterator<Item = Task>,
        now: u64,
        mut queued: impl FnMut(&Task, bool),
    ) -> Wakeup {
        let mut state = self.state.lock();
        for job in jobs {
            // Under the lock in which it is counted, so that each snapshot finds it at one place.
            let (is_queued, is_observed) = job.head().queue(now);
            if is_queued {
                queued(&job, is_observed);
                state.queue(job);
                state.released += 1;
            }
        }
        self.wake_for_pushed(state)
    }

    fn wake_for_pushed(&self, mut state: MutexGuard<'_, State>) -> Wakeup {
        self.note_work();
        if state.starting > 0 {
            // Whether the threads in their hooks are enough depends on what the front holds.
            self.publish(&state);
            drop(state);
            return self.missing_thread();
        }
        let wakeup = state.wake_for_work(0);
        self.publish(&state);
        wakeup
    }

    fn note_work(&self) {
        // Relaxed: a hint. Written only if it changes, because a thread that spins reads it.
        if !self.work.load(Ordering::Relaxed) {
            self.work.store(true, Ordering::Relaxed);
        }
    }

    /// A thread that has just started is about to run the user's hook, which may take long, and may
    /// wait for what it submits: another thread searches meanwhile.
    pub(super) fn enter_hook(&self, turn: &mut Turn) -> Wakeup {
        let front = self.front.lock();
        let mut state = self.state.lock();
        // One that a reset told to leave takes no job afterwards, so it doesn't count.
        if !turn.seat.leave.load(Ordering::Relaxed) {
            turn.seat.in_hook.store(true, Ordering::Relaxed);
            state.starting += 1;
            state.in_hooks += 1;
        }
        state.searching &= !std::mem::take(&mut turn.searching);
        let wakeup = state.wake_for_work(front.len());
        self.publish(&state);
        wakeup
    }

    /// The hook has returned. The thread searches again, unless another one does: jobs may have
    /// come for which no thread was started, because this one was on its way.
    pub(super) fn leave_hook(&self, turn: &mut Turn) {
        let mut state = self.state.lock();
        if turn.seat.in_hook.swap(false, Ordering::Relaxed) && !turn.seat.leave.load(Ordering::Relaxed) {
            state.starting -= 1;
            state.in_hooks -= 1;
            turn.searching = !std::mem::replace(&mut state.searching, true);
        }
    }

    /// What a worker is to do next. `ahead` finds what has to run first for a job that its key
    /// holds back.
    pub(super) fn next(&self, turn: &mut Turn, ahead: impl Fn(&Task) -> Option<Task>) -> Next {
        // Relaxed: neither protects anything. One job more does no harm.
        if turn.seat.leave.load(Ordering::Relaxed) || self.hints.surplus.load(Ordering::Relaxed) {
            if let Some(next) = self.step_back(turn) {
                return next;
            }
        }
        if let Some(awaited) = &turn.awaited {
            if let Some(job) = awaited.next(&ahead) {
                return self.found(turn, job);
            }
            turn.awaited = None;
        }
        let mut front = self.front.lock();
        // Relaxed: a hint.
        if !turn.searching {
            let first_rank = self.hints.first_rank.load(Ordering::Relaxed);
            if let Some(job) = take_first(&mut front, first_rank) {
                drop(front);
                return self.found(turn, job);
            }
        }
        let mut state = self.state.lock();
        if let Some(awaited) = state.awaited.pop_front() {
            // What it has to offer is looked at under no lock.
            turn.awaited = Some(awaited);
            self.publish(&state);
            self.hand_on_search(turn, state, front.len());
            return Next::LookAgain;
        }
        if front.len() == 0 {
            std::mem::swap(&mut *front, &mut state.back);
            self.work.store(false, Ordering::Relaxed);
        }
        let first_rank = state.ranked.first_rank();
        let first = take_first(&mut front, first_rank).or_else(|| self.take_ranked(&mut state));
        if let Some(job) = first {
            let more = front.len();
            drop(front);
            self.hand_on_search(turn, state, more);
            return self.found(turn, job);
        }
        // Both locks are held and all queues are empty: what is pushed from now on finds this
        // worker searching, or in the idle list.
        if !state.open || turn.seat.leave.load(Ordering::Relaxed) {
            state.searching &= !std::mem::take(&mut turn.searching);
            state.leave(&turn.seat);
            self.publish(&state);
            return Next::End;
        }
        if !turn.searched && (turn.searching || !state.searching) && spin_turns() > 0 {
            state.searching = true;
            turn.searching = true;
            turn.searched = true;
            return Next::Spin;
        }
        state.searching &= !std::mem::take(&mut turn.searching);
        self.lie_down(&mut state, turn);
        Next::Sleep
    }

    fn take_ranked(&self, state: &mut State) -> Option<Task> {
        let job = state.ranked.pop()?;
        self.publish(state);
        Some(job)
    }

    fn found(&self, turn: &mut Turn, job: Task) -> Next {
        turn.searched = false;
        Next::Run(job)
    }

    /// The searching worker has found something: it sends the next one for the rest, so that
    /// submitters need not.
    fn hand_on_search(&self, turn: &mut Turn, mut state: MutexGuard<'_, State>, front: usize) {
        if std::mem::take(&mut turn.searching) {
            state.searching = false;
            turn.wakeup = state.wake_for_work(front);
            self.publish(&state);
        }
    }

    /// A worker that was told to leave ends. One that is too many ends, too, or goes to sleep
    /// although there may be work: as many threads are at work as may be.
    fn step_back(&self, turn: &mut Turn) -> Option<Next> {
        let front = self.front.lock();
        let mut state = self.state.lock();
        let leaves = turn.seat.leave.load(Ordering::Relaxed);
        if !leaves && !state.has_surplus() {
            self.publish(&state);
            return None;
        }
        state.searching &= !std::mem::take(&mut turn.searching);
        if let Some(awaited) = turn.awaited.take() {
            state.awaited.push_front(awaited);
        }
        // After a close no push would wake it.
        let ends = leaves || !state.open || state.dismisses_surplus();
        if ends {
            state.leave(&turn.seat);
        } else {
            self.lie_down(&mut state, turn);
        }
        turn.wakeup = state.wake_for_work(front.len());
        self.publish(&state);
        Some(if ends { Next::End } else { Next::Sleep })
    }

    fn lie_down(&self, state: &mut State, turn: &Turn) {
        state.idle.push(Idle { seat: turn.seat.clone(), thread: thread::current() });
        if self.watchers.load(Ordering::Relaxed) > 0 {
            state.events += 1;
            self.changed.notify_all();
        }
    }

    /// Spins until something is pushed, or until sleeping would have been cheaper.
    pub(super) fn spin(&self) {
        for _ in 0..spin_turns() {
            if self.work.load(Ordering::Relaxed) {
                break;
            }
            spin_turn();
        }
    }

    /// Sleeps until the thread that took this worker out of the idle list says why, or for as long
    /// as an idle thread stays. Returns whether there is work.
    pub(super) fn sleep(&self, turn: &mut Turn) -> bool {
        let mut deadline = Deadline::start(self.idle_timeout);
        loop {
            // Acquire: pairs with the store in `Idle::wake`.
            match turn.seat.wake.load(Ordering::Acquire) {
                ASLEEP if deadline.is_past() => {
                    if self.retire(&turn.seat) {
                        return false;
                    }
                    // Another thread has taken it out of the idle list, and is about to wake it.
                    deadline = Deadline::start(None);
                }
                ASLEEP => thread::park_until(deadline.at()),
                why => {
                    // Relaxed: the next waker finds this worker in the idle list, under the pool's
                    // lock.
                    turn.seat.wake.store(ASLEEP, Ordering::Relaxed);
                    turn.searching = why == TO_WORK;
                    turn.searched = false;
                    return why == TO_WORK;
                }
            }
        }
    }

    /// Ends a worker that has slept for long enough, unless it was taken out of the idle list.
    fn retire(&self, seat: &Arc<Seat>) -> bool {
        let mut state = self.state.lock();
        let Some(place) = state.idle.iter().position(|idle| Arc::ptr_eq(&idle.seat, seat)) else { return false };
        state.idle.remove(place);
        state.leave(seat);
        self.publish(&state);
        true
    }

    /// The thread of `seat` blocks in a wait: another one may work in its place, first of all on
    /// what is `awaited`. `blocked` says from now on that it doesn't count.
    pub(super) fn block(&self, seat: &Seat, blocked: &AtomicBool, awaited: Option<Arc<Awaited>>) -> Wakeup {
        let front = self.front.lock();
        let mut state = self.state.lock();
        if awaited.is_some() {
            state.awaited.extend(awaited);
            self.note_work();
        }
        // Relaxed: changed under the lock alone.
        blocked.store(true, Ordering::Relaxed);
        // One that was told to leave doesn't count any more, and has successors.
        if !seat.leave.load(Ordering::Relaxed) {
            state.waiting += 1;
            // It takes no job before its wait is over.
            state.starting -= usize::from(seat.in_hook.load(Ordering::Relaxed));
        }
        let wakeup = state.wake_for_work(front.len());
        self.publish(&state);
        wakeup
    }

    /// What a blocked operation waits for can be run now, after it could not.
    pub(super) fn offer(&self, awaited: &Arc<Awaited>) -> Wakeup {
        let front = self.front.lock();
        let mut state = self.state.lock();
        if !state.awaited.iter().any(|other| Arc::ptr_eq(other, awaited)) {
            state.awaited.push_back(awaited.clone());
        }
        self.note_work();
        let wakeup = state.wake_for_work(front.len());
        self.publish(&state);
        wakeup
    }

    /// Whether no thread will come for what an operation waits for, because the system refuses to
    /// start one.
    pub(super) fn is_unattended(&self, awaited: &Arc<Awaited>) -> bool {
        let state = self.state.lock();
        let offered = state.awaited.iter().any(|other| Arc::ptr_eq(other, awaited));
        // A thread in its start hook will come.
        offered && !state.searching && state.starting == 0 && state.at_work() < state.target
    }

    /// The thread of `seat` is back from a wait, or about to be, unless it is already. If that
    /// makes too many, the next one to finish a job steps back.
    pub(super) fn unblock<'a>(
        &self,
        seat: &Seat,
        blocked: &AtomicBool,
        awaited: impl IntoIterator<Item = &'a Arc<Awaited>>,
    ) {
        let mut state = self.state.lock();
        for awaited in awaited {
            state.awaited.retain(|other| !Arc::ptr_eq(other, awaited));
        }
        if !blocked.swap(false, Ordering::Relaxed) {
            return;
        }
        if !seat.leave.load(Ordering::Relaxed) {
            state.waiting -= 1;
            state.starting += usize::from(seat.in_hook.load(Ordering::Relaxed));
        }
        self.publish(&state);
    }

    /// One queued job was cancelled, or run out of turn. Sweeps such jobs out when they are half of
    /// the queue, so that they hold no memory while every thread is busy, at an amortised cost of
    /// O(1).
    pub(super) fn note_stale(&self) {
        // Relaxed: an estimate that protects nothing.
        let stale = self.hints.stale.fetch_add(1, Ordering::Relaxed) + 1;
        if stale % 64 != 0 {
            return;
        }
        let mut front = self.front.lock();
        let mut state = self.state.lock();
        if stale * 2 < front.len() + state.back.len() + state.ranked.len() {
            return;
        }
        self.hints.stale.store(0, Ordering::Relaxed);
        let is_live = |job: &Task| job.head().status() == Status::Queued;
        let mut swept = front.sweep(is_live);
        swept.append(&mut state.back.sweep(is_live));
        swept.append(&mut state.ranked.sweep(is_live));
        self.publish(&state);
        drop(state);
        drop(front);
        // Here, without the locks, because the last handle of a job may run a destructor of the
        // user's.
        drop(swept);
    }

    /// Takes one job out, for a thread that is not the pool's, where there is no thread at all.
    pub(super) fn take_stranded(&self) -> Option<Task> {
        let mut front = self.front.lock();
        let mut state = self.state.lock();
        if state.live > 0 {
            return None;
        }
        front.pop_front().or_else(|| state.back.pop_front()).or_else(|| self.take_ranked(&mut state))
    }

    // Threads.

    /// Whether there is a thread at all. One that is about to end may still count.
    pub(super) fn has_thread(&self) -> bool {
        self.hints.live.load(Ordering::Relaxed) > 0
    }

    /// The first thread, for the caller to start, if there is none and the pool takes jobs.
    pub(super) fn first_thread(&self) -> Option<Arc<Seat>> {
        let mut state = self.state.lock();
        if state.live > 0 || !state.open {
            return None;
        }
        state.searching = true;
        let seat = state.add_thread();
        self.publish(&state);
        Some(seat)
    }

    /// A thread that is missing although work waits: its start was refused before, or was not
    /// needed as long as the front's length was unknown.
    pub(super) fn missing_thread(&self) -> Wakeup {
        let front = self.front.lock();
        let mut state = self.state.lock();
        let wakeup = state.wake_for_work(front.len());
        self.publish(&state);
        wakeup
    }

    pub(super) fn wake(&self, idle: Idle) {
        idle.wake(TO_WORK);
    }

    /// The system has started the thread of `seat`, or has refused it.
    pub(super) fn started(&self, seat: &Arc<Seat>, started: Started) {
        let mut state = self.state.lock();
        match started {
            Started::Joinable(_) | Started::Scoped => state.started(seat, started),
            Started::Refused => {
                state.refused(seat);
                // They have to help themselves: see `is_unattended`.
                state.awaited.iter().for_each(|awaited| awaited.unpark());
            }
        }
        self.publish(&state);
        drop(state);
        self.changed.notify_all();
    }

    /// The thread-locals of the thread of `seat` are destroyed.
    pub(super) fn gone(&self, seat: &Arc<Seat>) {
        self.state.lock().gone(seat);
        self.changed.notify_all();
    }

    /// Changes the number of threads while jobs wait and run. Surplus threads end after their
    /// current job, idle ones now.
    pub(super) fn resize(&self, threads: usize) -> Wakeup {
        let front = self.front.lock();
        let mut state = self.state.lock();
        let dismissed = state.resize(threads);
        let wakeup = state.wake_for_work(front.len());
        self.publish(&state);
        drop(state);
        drop(front);
        dismissed.into_iter().for_each(|idle| idle.wake(TO_END));
        wakeup
    }

    /// Opens the pool with `threads` new threads, which take over all that is queued. The old
    /// threads end after their current job: [`wait_for_epoch`](Pool::wait_for_epoch) with the
    /// returned number waits for them.
    pub(super) fn reset(&self, threads: usize) -> (u64, Wakeup) {
        let front = self.front.lock();
        let mut state = self.state.lock();
        state.open = true;
        let dismissed = state.dismiss_all();
        state.target = threads;
        state.epoch += 1;
        state.events += 1;
        // A thread that was on its way ends without looking for work.
        state.searching = false;
        let epoch = state.epoch;
        let wakeup = state.wake_for_work(front.len());
        self.publish(&state);
        drop(state);
        drop(front);
        self.changed.notify_all();
        dismissed.into_iter().for_each(|idle| idle.wake(TO_END));
        (epoch, wakeup)
    }

    /// Takes no new jobs. Threads end when nothing is queued; a job released later starts one
    /// again.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        let idle = std::mem::take(&mut state.idle);
        for idle in &idle {
            state.leave(&idle.seat);
        }
        self.publish(&state);
        drop(state);
        idle.into_iter().for_each(|idle| idle.wake(TO_END));
    }

    /// How many threads there are, but for those that are too many, and stop after what they run.
    pub(super) fn threads(&self) -> usize {
        let state = self.state.lock();
        state.live - state.at_work().saturating_sub(state.target)
    }

    /// The number of threads that may be at work.
    pub(super) fn target(&self) -> usize {
        self.state.lock().target
    }

    /// Jobs queued since the pool was made, and how many of them were held back before: both of one
    /// moment.
    pub(super) fn pushed(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.pushed, state.released)
    }

    // Ends.

    /// Waits until all threads of before `epoch` have ended, thread-locals and all, or until the
    /// wait `is_interrupted`, of which [`nudge`](Pool::nudge) tells. Returns how many are left.
    pub(super) fn wait_for_epoch(&self, epoch: u64, deadline: Deadline, is_interrupted: impl Fn() -> bool) -> usize {
        loop {
            // Read the count of events first: if a thread ends after we have looked, the count
            // differs, and the wait below returns at once.
            let events = self.state.lock().events;
            self.join_gone();
            let mut state = self.state.lock();
            let left = state.threads_before(epoch);
            if left == 0 || deadline.is_past() || is_interrupted() {
                return left;
            }
            self.await_event(&mut state, events, deadline);
        }
    }

    /// Waits until `ended` says so, which is asked whenever a thread ends, after a reset, and when
    /// [`nudge`](Pool::nudge) is called, and told whether there is no thread any more. Returns
    /// whether it did.
    pub(super) fn wait_for_end(&self, deadline: Deadline, ended: impl Fn(bool) -> bool) -> bool {
        loop {
            // As above.
            let events = self.state.lock().events;
            self.join_gone();
            let has_threads = self.state.lock().has_threads();
            // Outside the lock, because `ended` takes locks of its own.
            if ended(!has_threads) {
                return true;
            }
            if deadline.is_past() {
                return false;
            }
            self.await_event(&mut self.state.lock(), events, deadline);
        }
    }

    fn await_event(&self, state: &mut MutexGuard<'_, State>, events: u64, deadline: Deadline) {
        while state.events == events && !deadline.is_past() {
            match deadline.at() {
                None => self.changed.wait(state),
                Some(at) => drop(self.changed.wait_until(state, at)),
            }
        }
    }

    /// Has those who wait for the end look again each time when a thread goes to sleep, for as long
    /// as this lives.
    pub(super) fn watch_idle(&self) -> IdleWatch<'_> {
        let _state = self.state.lock();
        // SeqCst: pairs with `is_watched`.
        self.watchers.fetch_add(1, Ordering::SeqCst);
        IdleWatch(self)
    }

    /// Whether a thread waits until all others sleep.
    pub(super) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) > 0
    }

    /// Whether no thread runs anything, or is on its way to it: not one that was told to leave
    /// either, which may still be in a callback.
    pub(super) fn all_sleep(&self) -> bool {
        let state = self.state.lock();
        state.live == state.idle.len() && !state.has_leaving()
    }

    /// Has those look again who wait until all threads sleep, if there are any.
    pub(super) fn nudge_idle(&self) {
        let mut state = self.state.lock();
        // Under the lock: a thread that comes to watch later sees what the caller did before.
        if self.is_watched() {
            state.events += 1;
            self.changed.notify_all();
        }
    }

    /// Whether a job is queued, or awaited.
    pub(super) fn has_queued(&self) -> bool {
        let front = self.front.lock();
        let state = self.state.lock();
        state.work(front.len()) > 0
    }

    /// The queued jobs.
    pub(super) fn unstarted(&self) -> Vec<Task> {
        let front = self.front.lock();
        let state = self.state.lock();
        front.iter().chain(state.back.iter()).chain(state.ranked.iter()).cloned().collect()
    }

    /// Has those who wait for the end look again.
    pub(super) fn nudge(&self) {
        self.state.lock().events += 1;
        self.changed.notify_all();
    }

    /// Joins the threads whose thread-locals are destroyed, so that their memory is given back.
    pub(super) fn join_gone(&self) {
        let handles = self.state.lock().take_gone();
        if handles.is_empty() {
            return;
        }
        let joined = handles.len();
        for handle in handles {
            // A worker contains every panic, so there is no error to report.
            let _ = handle.join();
        }
        let mut state = self.state.lock();
        state.joining -= joined;
        state.events += 1;
        drop(state);
        self.changed.notify_all();
    }

    /// Copies what is looked at without the lock.
    fn publish(&self, state: &State) {
        // Relaxed: hints. Who acts on one takes the lock and looks again. Written only where they
        // change, because all workers read them.
        if self.hints.live.load(Ordering::Relaxed) != state.live {
            self.hints.live.store(state.live, Ordering::Relaxed);
        }
        let first_rank = if state.awaited.is_empty() { state.ranked.first_rank() } else { AWAITED };
        if self.hints.first_rank.load(Ordering::Relaxed) != first_rank {
            self.hints.first_rank.store(first_rank, Ordering::Relaxed);
        }
        if self.hints.surplus.load(Ordering::Relaxed) != state.has_surplus() {
            self.hints.surplus.store(state.has_surplus(), Ordering::Relaxed);
        }
    }
}

/// The front's first job, unless one that ranks `first_rank` goes before it.
fn take_first(front: &mut Queue<Task>, first_rank: i64) -> Option<Task> {
    // Mostly there is none, and no look at the memory of the first job, which another thread wrote.
    if first_rank != NO_RANK && front.first()?.head().rank() > first_rank {
        return None;
    }
    front.pop_front()
}

/// A thread waits until all others sleep.
pub(super) struct IdleWatch<'a>(&'a Pool);

impl Drop for IdleWatch<'_> {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hints {
    fn new() -> Hints {
        Hints {
            first_rank: AtomicI64::new(NO_RANK),
            surplus: AtomicBool::new(false),
            live: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
        }
    }
}
