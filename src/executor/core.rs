//! Where order, pool and requests meet: what happens to a request from its acceptance to its end.
//!
//! Locks are taken in this order: the order's, then a request's cell or the pool's. No code of users runs under any.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::builder::{Hooks, OnFull};
use super::order::{Closed, Order, Place};
use super::schedule::Due;
use super::stats::{Stats, Stripes};
use crate::error::{Error, Result};
use crate::lanes::{Keys, LaneKey};
use crate::panics;
use crate::pool::{Pool, Refused, Summons};
use crate::request::{self, AsyncRequest, Clock, Head, Job, Kind, NO_TICKET, Request, Status};
use crate::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::time::Deadline;
use crate::timer::{Alarm, Timer, Untimed};

pub(super) struct Core {
    pub(super) me: Weak<Core>,
    pub(super) pool: Pool<Arc<dyn Job>>,
    pub(super) timer: Timer<Due>,
    pub(super) order: Mutex<Order>,
    pub(super) keys: Keys,
    pub(super) clock: Clock,
    next_id: AtomicU64,
    pub(super) ran: Stripes,
    /// Requests at work on threads that are not the pool's.
    pub(super) outside: AtomicU64,
    capacity: Option<Capacity>,
    pub(super) hooks: Hooks,
}

/// A bound on the requests that have not started.
struct Capacity {
    limit: u64,
    on_full: OnFull,
    /// A request has started, or was cancelled.
    space: Condvar,
}

impl Core {
    pub(super) fn new(
        pool: Pool<Arc<dyn Job>>,
        capacity: Option<(u64, OnFull)>,
        hooks: Hooks,
        closed: Option<Closed>,
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
            order: Mutex::new(Order::new(closed)),
            keys: Keys::new(),
            clock: Clock::new(),
            next_id: AtomicU64::new(1),
            ran: Stripes::new(),
            outside: AtomicU64::new(0),
            capacity: capacity.map(|(limit, on_full)| Capacity { limit, on_full, space: Condvar::new() }),
            hooks,
        })
    }

    /// Accepts one request.
    pub(super) fn submit<T: Send + 'static>(
        self: &Arc<Core>,
        place: Place,
        operation: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<AsyncRequest<T>> {
        let request = self.request(place.kind, self.clock.now(), operation);
        let job: Arc<dyn Job> = request.clone();
        let Some(capacity) = &self.capacity else {
            match place.lane {
                // Without a key there is nothing to order, and the pool's lock is enough.
                None => {
                    job.head().accepted();
                    self.queue_new(job)?;
                }
                lane => self.admit(self.order.lock(), &[(lane, job)])?,
            }
            return Ok(self.handle(request));
        };
        let mut order = self.order.lock();
        let caller_runs = self.make_room(capacity, &mut order, 1)?;
        self.admit(order, &[(place.lane, job)])?;
        let handle = self.handle(request);
        if caller_runs {
            handle.run_here();
        }
        Ok(handle)
    }

    /// Accepts many requests at once, or none.
    pub(super) fn submit_many<T, F>(
        self: &Arc<Core>,
        operations: impl IntoIterator<Item = (Place, F)>,
    ) -> Result<Vec<AsyncRequest<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let submitted = self.clock.now();
        // Made before any lock is taken, because the iterator is the user's.
        let mut jobs: Vec<(Option<LaneKey>, Arc<dyn Job>)> = Vec::new();
        let mut handles = Vec::new();
        for (place, operation) in operations {
            let request = self.request(place.kind, submitted, operation);
            jobs.push((place.lane, request.clone()));
            handles.push(self.handle(request));
        }
        let Some(capacity) = &self.capacity else {
            self.admit(self.order.lock(), &jobs)?;
            return Ok(handles);
        };
        if let OnFull::CallerRuns = capacity.on_full {
            for (job, handle) in jobs.iter().zip(&handles) {
                let mut order = self.order.lock();
                let caller_runs = self.make_room(capacity, &mut order, 1)?;
                self.admit(order, std::slice::from_ref(job))?;
                if caller_runs {
                    handle.run_here();
                }
            }
        } else {
            let mut order = self.order.lock();
            let caller_runs = self.make_room(capacity, &mut order, jobs.len() as u64)?;
            self.admit(order, &jobs)?;
            if caller_runs {
                handles.iter().for_each(AsyncRequest::run_here);
            }
        }
        Ok(handles)
    }

    /// Accepts a request whose time comes later.
    pub(super) fn submit_at<T: Send + 'static>(
        self: &Arc<Core>,
        at: Instant,
        place: Place,
        operation: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<AsyncRequest<T>> {
        let request = self.request(place.kind, self.clock.now(), operation);
        let job: Arc<dyn Job> = request.clone();
        job.head().defer();
        self.accept_deferred()?;
        job.head().accepted();
        let due = Due::Request { job: job.clone(), lane: place.lane };
        match self.set_alarm(at, due, None) {
            Ok(alarm) => {
                request::set_alarm(&*job, alarm);
                Ok(self.handle(request))
            }
            Err(refused) => {
                self.order.lock().deferred -= 1;
                self.pool.nudge();
                Err(refused)
            }
        }
    }

    /// Has `due` fired at `at`, unless there was a shutdown since its `session`; without one it was accepted already.
    pub(super) fn set_alarm(&self, at: Instant, due: Due, session: Option<u64>) -> Result<Alarm> {
        self.timer.insert(self, at, due, session).map_err(|untimed| match untimed {
            Untimed::Closed => self.why_closed(),
            Untimed::Spawn(error) => Error::Spawn(error),
        })
    }

    /// Submits a part of what was accepted as a whole, a series or a batch: it is not refused for a full queue.
    pub(super) fn submit_accepted<T: Send + 'static>(
        self: &Arc<Core>,
        place: &Place,
        operation: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<AsyncRequest<T>> {
        let request = self.request(place.kind, self.clock.now(), operation);
        self.admit(self.order.lock(), &[(place.lane, request.clone() as Arc<dyn Job>)])?;
        Ok(self.handle(request))
    }

    /// Orders and queues requests whose time has come.
    pub(super) fn release_due(&self, due: Vec<(Option<LaneKey>, Arc<dyn Job>)>) {
        let mut order = self.order.lock();
        let mut ready = Vec::new();
        for (lane, job) in due {
            // Only under this lock is a deferred request cancelled; then nothing of users' is left in it.
            if job.head().status() != Status::Deferred {
                continue;
            }
            // Handed over, not shared: the last one to hold a result is not to be this thread, but one that can wait
            // for its destructor.
            if order.may_run(lane, &job) {
                ready.push(job);
            } else {
                // A worker that waits for it has to run what is ahead of it now.
                request::stir(&*job);
            }
        }
        let summons = self.queue_released(&mut order, ready);
        drop(order);
        self.pool.act(self, summons);
    }

    pub(super) fn accept_deferred(&self) -> Result<()> {
        let mut order = self.order.lock();
        order.check_open()?;
        order.deferred += 1;
        Ok(())
    }

    fn request<T, F>(&self, kind: Kind, submitted: u64, operation: F) -> Arc<Request<F, T>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        Arc::new(Request::new(self.new_id(), kind, Status::Queued, submitted, operation))
    }

    pub(super) fn new_id(&self) -> u64 {
        // Relaxed: all it has to be is unique.
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn handle<T, F>(self: &Arc<Core>, request: Arc<Request<F, T>>) -> AsyncRequest<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        AsyncRequest::new(request, self.clone())
    }

    fn queue_new(&self, job: Arc<dyn Job>) -> Result<()> {
        let summons = self.pool.push(self, [job]).map_err(|refused| self.refusal(refused))?;
        self.pool.act(self, summons);
        Ok(())
    }

    /// Puts new requests into their lanes and queues those that may run: all of them, or none. Allocates nothing of its
    /// own, because everybody waits for this lock.
    fn admit(&self, mut order: MutexGuard<'_, Order>, jobs: &[(Option<LaneKey>, Arc<dyn Job>)]) -> Result<()> {
        order.check_open()?;
        let mut any_ready = false;
        for (lane, job) in jobs {
            any_ready |= order.enter(*lane, job);
        }
        let summons = if any_ready {
            // Nobody else can reach them yet: what is not deferred stays queued.
            let is_ready = |job: &&Arc<dyn Job>| job.head().status() == Status::Queued;
            match self.pool.push(self, jobs.iter().map(|(_, job)| job).filter(is_ready).cloned()) {
                Ok(summons) => summons,
                Err(refused) => {
                    order.withdraw(jobs);
                    drop(order);
                    return Err(self.refusal(refused));
                }
            }
        } else {
            Summons::None
        };
        drop(order);
        self.pool.act(self, summons);
        Ok(())
    }

    fn refusal(&self, refused: Refused) -> Error {
        match refused {
            Refused::Spawn(error) => {
                // Somebody else may have been accepted while it was being started.
                self.pool.run_stranded(self);
                Error::Spawn(error)
            }
            Refused::Closed => self.why_closed(),
        }
    }

    fn why_closed(&self) -> Error {
        // It may have been opened again meanwhile.
        self.order.lock().closed.as_ref().map_or(Error::ShutDown, Closed::error)
    }

    /// Makes sure that `wanted` more requests fit in, or says that the caller is to run them.
    fn make_room(&self, capacity: &Capacity, order: &mut MutexGuard<'_, Order>, wanted: u64) -> Result<bool> {
        let fits = |order: &Order| self.unstarted(order).saturating_add(wanted) <= capacity.limit;
        // Whether it is closed is `admit`'s to say, full or not.
        if fits(order) || order.closed.is_some() {
            return Ok(false);
        }
        match capacity.on_full {
            OnFull::CallerRuns => Ok(true),
            // The room might be waited for on the very thread that has to make it, or that somebody waits for who has to.
            OnFull::Wait(_) if request::is_worker() => Ok(true),
            _ if wanted > capacity.limit => Err(Error::Invalid(format!(
                "{wanted} requests at once never fit into a queue of {}: submit fewer, or build a larger one",
                capacity.limit
            ))),
            OnFull::Reject => Err(Error::QueueFull),
            OnFull::Wait(limit) => {
                let deadline = Deadline::start(limit);
                while order.closed.is_none() && !fits(order) {
                    let timed_out = match deadline.at() {
                        None => {
                            capacity.space.wait(order);
                            false
                        }
                        Some(at) => capacity.space.wait_until(order, at).timed_out(),
                    };
                    if timed_out && order.closed.is_none() && !fits(order) {
                        return Err(Error::QueueFull);
                    }
                }
                Ok(false)
            }
        }
    }

    fn unstarted(&self, order: &Order) -> u64 {
        let started = self.ran.read().started;
        order.submitted(self.pool.pushed()) - order.cancelled_deferred - order.cancelled_queued - started
    }

    /// Lets the next waiting submitter look whether there is room.
    pub(super) fn offer_space(&self) {
        // Nobody waits with another rule, and the lock is everybody's.
        if let Some(capacity @ Capacity { on_full: OnFull::Wait(_), .. }) = &self.capacity {
            // Under the lock, so that it can't fall between a submitter's look and its sleep.
            let _order = self.order.lock();
            capacity.space.notify_all();
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let ran = self.ran.read();
        let order = self.order.lock();
        let pushed = self.pool.pushed();
        let cancelled = order.cancelled_deferred + order.cancelled_queued;
        Stats {
            submitted: order.submitted(pushed),
            deferred: order.deferred - order.released - order.cancelled_deferred,
            queued: pushed - ran.started - order.cancelled_queued,
            running: ran.started - ran.completed - ran.failed - ran.panicked,
            completed: ran.completed,
            failed: ran.failed,
            panicked: ran.panicked,
            cancelled,
            threads: self.pool.threads(),
        }
    }

    /// Refuses new requests from now on.
    pub(super) fn close(&self) {
        let mut order = self.order.lock();
        order.closed.get_or_insert(Closed::ShutDown);
        self.pool.close();
        // What was accepted keeps its time; a series has no end of its own.
        let given_up = self.timer.close(|due| matches!(due, Due::Request { .. }));
        drop(order);
        self.offer_space();
        for given_up in given_up {
            match given_up {
                Due::Run(series) => {
                    series.give_up();
                    // It may be the last to hold what the operation captured.
                    panics::contain(|| drop(series));
                }
                Due::Alarm(alarmed) => panics::contain(|| alarmed.give_up()),
                Due::Request { .. } => {}
            }
        }
    }

    /// Takes requests again, or still, with new threads. Returns what to wait for the end of the old ones with.
    pub(super) fn reopen(&self, threads: usize) -> u64 {
        let mut order = self.order.lock();
        order.closed = None;
        self.timer.open();
        let (epoch, summons) = self.pool.reset(threads);
        drop(order);
        self.pool.act(self, summons);
        epoch
    }

    /// An error if it was never opened, because a setting from outside makes no sense.
    pub(super) fn check_settings(&self) -> Result<()> {
        match &self.order.lock().closed {
            Some(closed @ Closed::Misconfigured(_)) => Err(closed.error()),
            _ => Ok(()),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.order.lock().closed.is_some()
    }

    /// Waits until nothing is left of what was accepted, and no thread. Only after `close`.
    pub(super) fn wait_for_end(&self, deadline: Deadline) -> Result<()> {
        let reopened = || !self.is_closed();
        // Acquire: pairs with `settled`, so that whoever is told of the end finds every handle done.
        let ended = |no_thread: bool| {
            let idle = || self.outside.load(Ordering::Acquire) == 0 && !self.timer.is_running();
            reopened() || (no_thread && self.stats().unfinished() == 0 && idle())
        };
        if self.pool.wait_for_end(deadline, ended) {
            return Ok(());
        }
        Err(Error::Timeout { limit: deadline.limit(), left: self.stats().unfinished() })
    }

    /// Takes a request out of its lane and queues those that it stood in the way of.
    pub(super) fn leave(&self, order: &mut Order, head: &Head) -> Summons<Arc<dyn Job>> {
        let mut released = Vec::new();
        order.lanes.leave(head.ticket(), |job| released.push(job.clone()));
        head.set_ticket(NO_TICKET);
        if released.is_empty() {
            return Summons::None;
        }
        self.queue_released(order, released)
    }

    pub(super) fn queue_released(&self, order: &mut Order, mut released: Vec<Arc<dyn Job>>) -> Summons<Arc<dyn Job>> {
        // Cancelled ones have left their lane under the same lock, so only a follower can be cancelled here.
        released.retain(|job| job.queue());
        order.released += released.len() as u64;
        self.pool.push_accepted(released)
    }
}
