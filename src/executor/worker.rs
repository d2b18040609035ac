//! One thread's life, and a request's way through it: take a job, run it, look for more, spin,
//! sleep, leave.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::core::{Core, Due, Errand};
use super::current::{self, Worker};
use super::lifecycle::Outside;
use super::pool::{Next, Seat, Started, Task, Turn, Wakeup};
use super::request::Host;
use super::stats::StripeOf;
use crate::error::Result;
use crate::sync::{AtomicBool, Ordering, thread};
use crate::time::Deadline;

/// What a thread keeps between the requests that it runs: its stripe of the counters, and the time
/// when the last one ended, which is when the next one starts. So a request costs one look at the
/// clock, not two.
pub(super) struct WorkerLocal<'a> {
    stripe: StripeOf,
    /// The operations that its scope's requests borrow, if it is a scope's thread.
    borrowed: Option<&'a dyn Operations>,
    /// Whether the thread is one of the pool's; on others the executor has to count what they run.
    seated: bool,
    last: Option<u64>,
}

/// The operations of a scope, which lie there because they borrow.
pub(super) trait Operations {
    /// Calls the one with this number, once.
    fn call(&self, number: u64) -> Result<()>;
}

/// What an operation is run by.
struct Running<'a> {
    clock: &'a Clock,
    borrowed: Option<&'a dyn Operations>,
    refused: Cell<Option<bool>>,
}

impl Host for Running<'_> {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn call_borrowed(&self, number: u64) -> Option<Result<()>> {
        self.borrowed.map(|operations| operations.call(number))
    }

    fn refuse(&self, is_expired: bool) {
        self.refused.set(Some(is_expired));
    }

    fn refused(&self) -> Option<bool> {
        self.refused.get()
    }
}

impl<'a> WorkerLocal<'a> {
    fn new(stripe: StripeOf, seated: bool, borrowed: Option<&'a dyn Operations>) -> WorkerLocal<'a> {
        WorkerLocal { stripe, borrowed, seated, last: None }
    }

    fn start(&mut self, clock: &Clock) -> u64 {
        self.last.take().unwrap_or_else(|| clock.now())
    }

    /// Time has passed that is not the next request's.
    fn rest(&mut self) {
        self.last = None;
    }
}

/// How long to wait before a thread is tried again that the system has refused: twice as long each
/// time.
const RETRY: Duration = Duration::from_millis(10);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

impl Core {
    /// Wakes or starts the thread that was picked under the pool's lock.
    pub(super) fn act(self: &Arc<Core>, wakeup: Wakeup) {
        match wakeup {
            Wakeup::None => {}
            Wakeup::Wake(idle) => self.pool.wake(idle),
            Wakeup::Start(seat) => {
                if self.start(seat).is_err() {
                    self.retry_thread();
                }
            }
        }
    }

    /// Starts the pool's first thread, if there is none.
    pub(super) fn ensure_thread(self: &Arc<Core>) -> io::Result<()> {
        if self.pool.has_thread() {
            return Ok(());
        }
        let Some(seat) = self.pool.first_thread() else { return Ok(()) };
        self.start(seat).inspect_err(|_| {
            // Another submitter may have been accepted while this thread was being started.
            self.run_stranded();
        })
    }

    /// Starts the thread for which the pool has set `seat` aside, and tells the pool whether the
    /// system gave it. An executor of a scope asks the scope's keeper instead, which tells the pool
    /// later.
    ///
    /// Fails if the system refuses the thread, or if the scope has ended; the seat is free again
    /// then. Call it under no lock, because it takes the pool's.
    fn start(self: &Arc<Core>, seat: Arc<Seat>) -> io::Result<()> {
        self.pool.join_gone();
        if let Some(keeper) = &self.keeper {
            // Only the scope can start a thread that borrows. Whether it could, it says later.
            return keeper.send(Errand::Start(seat.clone())).map_err(|_| {
                self.pool.started(&seat, Started::Refused);
                io::Error::other("the scope has ended")
            });
        }
        let name = self.pool.name_of(seat.index);
        let (core, own_seat) = (self.clone(), seat.clone());
        let (last_core, last_seat) = (self.clone(), seat.clone());
        let body = move || live(core, own_seat, None);
        let started =
            thread::spawn_joinable(name, self.pool.stack_size(), body, move || last_core.pool.gone(&last_seat));
        match started {
            Ok(handle) => {
                self.pool.started(&seat, Started::Joinable(handle));
                self.refusals.store(0, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.pool.started(&seat, Started::Refused);
                Err(error)
            }
        }
    }

    /// The system refused a thread that is needed. Those that live go on with fewer; it is tried
    /// again after a while, and whenever a thread has ended a request. Where there is none at all,
    /// and no timer either, the thread that needs it runs what is queued, so that nothing is lost.
    pub(super) fn retry_thread(self: &Arc<Core>) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let timed = self.timer.insert(&**self, Instant::now() + self.retry_pause(), Due::Thread, None);
        if timed.is_err() && !self.pool.has_thread() {
            self.run_stranded();
        }
    }

    fn retry_pause(&self) -> Duration {
        let refusals = self.refusals.load(Ordering::Relaxed).min(16);
        RETRY.saturating_mul(1 << refusals).min(LONGEST_RETRY)
    }

    /// Parks a thread that waits for requests. While a thread is missing it looks now and then
    /// whether one can be had: the system may have refused the timer's as well.
    pub(super) fn park(self: &Arc<Core>, deadline: Deadline) {
        if self.refusals.load(Ordering::Relaxed) == 0 {
            return thread::park_until(deadline.at());
        }
        let retry = Instant::now() + self.retry_pause();
        thread::park_until(Some(deadline.at().map_or(retry, |at| at.min(retry))));
        self.start_missing();
    }

    /// The time has come to try again.
    pub(super) fn start_missing(self: &Arc<Core>) {
        self.act(self.pool.missing_thread());
    }

    fn run_stranded(self: &Arc<Core>) {
        while let Some(job) = self.pool.take_stranded() {
            self.run_now(job);
        }
    }

    /// Runs a queued request on this thread, which is not the pool's, or ahead of its turn.
    pub(super) fn run_now(self: &Arc<Core>, job: Task) -> bool {
        // A lap of its own: an outer request's time goes on.
        self.run(job, &mut WorkerLocal::new(StripeOf::shared(), false, None))
    }

    /// Runs a request from its start to its end. Returns whether it did: not if it was cancelled,
    /// or has started elsewhere.
    fn run(self: &Arc<Core>, job: Task, lap: &mut WorkerLocal<'_>) -> bool {
        let Some(begun) = job.head().begin() else {
            // It may be the last handle of one that has ended elsewhere: a wait in the result's
            // destructor is a wait on this thread.
            let _scope = current::enter_core(self);
            drop(job);
            return false;
        };
        let outside = (!lap.seated).then(|| Outside::enter(self));
        self.ran.count_start(lap.stripe);
        if let Some(room) = &self.room {
            room.leave_queue();
        }
        // Until the end, callbacks and destructors included: a wait in one of them is a wait on
        // this thread.
        let scope = current::enter(job.clone(), self);
        let running = Running { clock: &self.clock, borrowed: lap.borrowed, refused: Cell::new(None) };
        let ended = job.call(begun, lap.start(&self.clock), &running);
        self.interrupts.end(job.head());
        let status = ended.status;
        let end = ended.at;
        lap.last = Some(end);
        // Before the end is seen, so that a waiter that returns finds it counted.
        self.ran.count_end(lap.stripe, status);
        job.head().trace.end(status);
        let (observed, released) = self.order.leave(job.head(), || job.head().publish(ended));
        self.release(released, end);
        if observed {
            if let Some(entry) = self.observers.take(job.head()) {
                scope.end_operation();
                let foreign = entry.tell(status);
                if !foreign.is_empty() {
                    // It may be called later, and on a thread that is not the pool's a shutdown
                    // waits for it.
                    let outside = outside.as_ref().map(|_| Outside::enter(self));
                    current::call_nested(move || {
                        foreign.into_iter().for_each(|observer| observer.tell(status));
                        drop(outside);
                    });
                }
                lap.rest();
            }
        }
        scope.leave_request();
        if Arc::strong_count(&job) == 1 {
            // The time of the unclaimed result's destructor is not the next request's.
            lap.rest();
        }
        drop(job);
        drop(scope);
        drop(outside);
        true
    }
}

/// The body of a pool's thread, which starts as the pool's searching worker.
pub(super) fn live(core: Arc<Core>, seat: Arc<Seat>, borrowed: Option<&dyn Operations>) {
    current::set_worker(Some(Worker {
        core: core.clone(),
        seat: seat.clone(),
        lent: Arc::new(AtomicBool::new(false)),
    }));
    let mut lap = WorkerLocal::new(StripeOf::seat(seat.index), true, borrowed);
    let mut turn = Turn::new(seat);
    if core.hooks.has_start() {
        core.act(core.pool.enter_hook(&mut turn));
        {
            // A wait in a hook is a wait on this thread.
            let _scope = current::enter_core(&core);
            core.hooks.start();
        }
        core.pool.leave_hook(&mut turn);
    }
    loop {
        let next = core.pool.next(&mut turn, |job| core.order.queued_ahead(job.head()));
        core.act(std::mem::replace(&mut turn.wakeup, Wakeup::None));
        match next {
            Next::Run(job) => {
                core.run(job, &mut lap);
                // Relaxed: a hint that the system has refused a thread lately.
                if core.refusals.load(Ordering::Relaxed) > 0 {
                    core.start_missing();
                }
            }
            Next::LookAgain => {}
            Next::Spin => {
                lap.rest();
                core.pool.spin();
            }
            Next::Sleep => {
                lap.rest();
                if !core.pool.sleep(&mut turn) {
                    break;
                }
            }
            Next::End => break,
        }
    }
    {
        let _scope = current::enter_core(&core);
        core.hooks.stop();
    }
    current::set_worker(None);
}
