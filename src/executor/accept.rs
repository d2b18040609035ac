//! How requests are accepted: one or many, now or later, after another one.

use std::sync::Arc;
use std::time::Instant;

use super::core::{Closed, Core, Due, OrderBy};
use super::order::Entered;
use super::pool::{Closed as PoolClosed, Task, Wakeup};
use super::request::{Call, Callback, Job, Request, Status};
use super::room::{Bound, Full, OnFull, Room};
use crate::error::{Error, Result};
use crate::lanes::LaneKey;
use crate::sync::Ordering;
use crate::timer::{Alarm, Untimed};

/// What became of requests that were to be accepted together.
pub(super) enum Entry {
    /// They are, and this thread is to be woken or started.
    Accepted(Wakeup),
    /// There is no room for them.
    Full(Full),
}

impl Core {
    /// Accepts one request, and gives its typed half.
    pub(super) fn submit<T, F>(self: &Arc<Core>, order_by: OrderBy, operation: F) -> Result<Arc<Request<F, T>>>
    where
        T: Send + 'static,
        F: Call<T> + Send + 'static,
    {
        self.submit_prepared(order_by, operation, |_| {})
    }

    /// As `submit`; `prepare` is called before other threads see the request.
    pub(super) fn submit_prepared<T, F>(
        self: &Arc<Core>,
        order_by: OrderBy,
        operation: F,
        prepare: impl FnOnce(&Task),
    ) -> Result<Arc<Request<F, T>>>
    where
        T: Send + 'static,
        F: Call<T> + Send + 'static,
    {
        self.ensure_thread().map_err(Error::Spawn)?;
        // On a lane other threads see it before it is queued: they must not run what may be
        // refused.
        let alone = order_by.lane.is_none() || self.room.is_some();
        let status = if alone { Status::Queued } else { Status::Deferred };
        let request = self.request(order_by, status, self.clock.now(), operation);
        let job: Task = request.clone();
        prepare(&job);
        match &self.room {
            None => self.accept(order_by.lane, job)?,
            Some(room) => self.accept_bounded(room, &[(order_by.lane, job)])?,
        }
        request.head().trace.accepted();
        Ok(request)
    }

    /// Whether many requests are accepted one by one, so that an error leaves those before it.
    pub(super) fn accepts_one_by_one(&self) -> bool {
        self.room.as_ref().is_some_and(|room| room.on_full == OnFull::CallerRuns)
    }

    /// Accepts many requests at once, or none; but see `accepts_one_by_one`.
    pub(super) fn submit_many<T, F>(
        self: &Arc<Core>,
        operations: impl IntoIterator<Item = (OrderBy, F)>,
        prepare: impl FnMut(&Task),
    ) -> Result<Vec<Arc<Request<F, T>>>>
    where
        T: Send + 'static,
        F: Call<T> + Send + 'static,
    {
        let submitted = self.clock.now();
        // Made before any lock is taken, because the iterator is the user's.
        let mut jobs: Vec<(Option<LaneKey>, Task)> = Vec::new();
        let mut requests = Vec::new();
        for (order_by, operation) in operations {
            let request = self.request(order_by, Status::Queued, submitted, operation);
            jobs.push((order_by.lane, request.clone()));
            requests.push(request);
        }
        self.ensure_thread().map_err(Error::Spawn)?;
        jobs.iter().map(|(_, job)| job).for_each(prepare);
        match &self.room {
            None => self.accept_unbounded(&jobs)?,
            Some(room) if self.accepts_one_by_one() => {
                jobs.iter().try_for_each(|job| self.accept_bounded(room, std::slice::from_ref(job)))?;
            }
            Some(room) => self.accept_bounded(room, &jobs)?,
        }
        requests.iter().for_each(|request| request.head().trace.accepted());
        Ok(requests)
    }

    /// Accepts a request whose time comes later.
    pub(super) fn submit_at<T, F>(
        self: &Arc<Core>,
        at: Instant,
        order_by: OrderBy,
        operation: F,
        prepare: impl FnOnce(&Task),
    ) -> Result<Arc<Request<F, T>>>
    where
        T: Send + 'static,
        F: Call<T> + Send + 'static,
    {
        let request = self.request(order_by, Status::Deferred, self.clock.now(), operation);
        request.head().defer();
        let job: Task = request.clone();
        prepare(&job);
        self.accept_deferred()?;
        request.head().trace.accepted();
        let due = Due::Request { job, lane: order_by.lane };
        match self.set_alarm(at, due, None) {
            Ok(alarm) => {
                // It may have started, or have been cancelled, in the meantime.
                if !self.observers.set_alarm(request.head(), alarm) {
                    drop(self.timer.remove(alarm));
                }
                let job: Task = request.clone();
                self.stop_late(&job);
                Ok(request)
            }
            Err(refused) => {
                self.order.undo_defer_elsewhere();
                self.pool.nudge();
                Err(refused)
            }
        }
    }

    /// Has `due` fired at `at`, unless there was a shutdown since its `session`; without one it was
    /// accepted already.
    pub(super) fn set_alarm(&self, at: Instant, due: Due, session: Option<u64>) -> Result<Alarm> {
        self.timer.insert(self, at, due, session).map_err(|untimed| match untimed {
            Untimed::Closed => self.why_closed(),
            Untimed::Spawn(error) => Error::Spawn(error),
        })
    }

    /// Submits a part of what was accepted as a whole, a series or a batch: it is not refused for a
    /// full queue.
    pub(super) fn submit_accepted<T, F>(
        self: &Arc<Core>,
        order_by: OrderBy,
        operation: F,
        prepare: impl FnOnce(&Task),
    ) -> Result<Arc<Request<F, T>>>
    where
        T: Send + 'static,
        F: Call<T> + Send + 'static,
    {
        self.ensure_thread().map_err(Error::Spawn)?;
        let request = self.request(order_by, Status::Queued, self.clock.now(), operation);
        let jobs: [(_, Task); 1] = [(order_by.lane, request.clone())];
        prepare(&jobs[0].1);
        match &self.room {
            None => self.accept_unbounded(&jobs)?,
            Some(room) => {
                let accepted = self.accept_within(room, &jobs, None)?;
                debug_assert!(accepted.is_none(), "nothing is full without a limit");
            }
        }
        request.head().trace.accepted();
        Ok(request)
    }

    /// Accepts a request that follows `first`, and is released by its end.
    pub(super) fn submit_follower<T, F>(
        self: &Arc<Core>,
        first: &Task,
        operation: F,
        prepare: impl FnOnce(&Task),
    ) -> Result<Arc<Request<F, T>>>
    where
        T: Send + 'static,
        F: Call<T> + Send + 'static,
    {
        self.accept_deferred()?;
        let request = self.request(OrderBy::FREE, Status::Deferred, self.clock.now(), operation);
        request.head().defer();
        request.head().trace.accepted();
        let (core, job): (_, Task) = (self.clone(), request.clone());
        prepare(&job);
        // Before the release can happen: a thread that waits for the follower has to find what it
        // follows.
        self.follow(&job, first);
        let number = job.head().id();
        let release: Callback = Box::new(move |_| {
            core.unfollow(&job);
            core.release_one(job.clone());
            core.stop_late(&job);
        });
        if let Err(release) = self.observers.follow(first.head(), number, release) {
            release(first.head().status());
        }
        let job: Task = request.clone();
        self.stop_late(&job);
        Ok(request)
    }

    pub(super) fn request<T, F>(
        &self,
        order_by: OrderBy,
        status: Status,
        submitted: u64,
        operation: F,
    ) -> Arc<Request<F, T>>
    where
        T: Send + 'static,
        F: Call<T> + Send + 'static,
    {
        Arc::new(Request::new(self.next_number(), order_by.terms, status, submitted, operation))
    }

    pub(super) fn next_number(&self) -> u64 {
        // Relaxed: all it has to be is unique.
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn accept_deferred(&self) -> Result<()> {
        if self.order.defer_elsewhere() { Ok(()) } else { Err(self.why_closed()) }
    }

    /// Orders a new request, and queues it if it may run.
    fn accept(self: &Arc<Core>, lane: Option<LaneKey>, job: Task) -> Result<()> {
        if let Some(key) = lane {
            match self.order.enter(key, &job) {
                Entered::Ready => {}
                Entered::Deferred => return Ok(()),
                Entered::Full => return Err(Error::QueueFull),
                Entered::Closed => return Err(self.why_closed()),
            }
            return self.queue_ready(job);
        }
        let wakeup = self.pool.push([job]).map_err(|PoolClosed| self.why_closed())?;
        self.act(wakeup);
        Ok(())
    }

    /// Queues a request that has entered its lane.
    fn queue_ready(self: &Arc<Core>, job: Task) -> Result<()> {
        match self.pool.push_entered(job.clone()) {
            Ok(wakeup) => {
                self.act(wakeup);
                Ok(())
            }
            Err(PoolClosed) => {
                self.withdraw(&job);
                Err(self.why_closed())
            }
        }
    }

    /// Takes a request out of its lane that was not accepted after all.
    fn withdraw(self: &Arc<Core>, job: &Task) {
        let ((), released) = self.order.leave(job.head(), || ());
        self.release(released, self.clock.now());
    }

    fn accept_unbounded(self: &Arc<Core>, jobs: &[(Option<LaneKey>, Task)]) -> Result<()> {
        if let Entry::Accepted(wakeup) = self.enter_many(jobs, None)? {
            self.act(wakeup);
        }
        Ok(())
    }

    /// Accepts new requests, all of them or none, for a submitter that is not in the line; says
    /// what is full beyond the `limit`, if there is one.
    pub(super) fn accept_within(
        self: &Arc<Core>,
        room: &Room,
        jobs: &[(Option<LaneKey>, Task)],
        limit: Option<u64>,
    ) -> Result<Option<Full>> {
        let entry = self.enter_many(jobs, Some(Bound::new(&mut room.lock(), None, limit)))?;
        match entry {
            Entry::Accepted(wakeup) => {
                self.act(wakeup);
                Ok(None)
            }
            Entry::Full(full) => Ok(Some(full)),
        }
    }

    /// Orders new requests and queues those that may run: all of them, or none. With a `bound`,
    /// only if there is room for all of them; if not, says what is full.
    ///
    /// The caller acts on the wake-up, once it has let go of the room: where the system refuses
    /// threads, that runs users' operations.
    pub(super) fn enter_many(
        self: &Arc<Core>,
        jobs: &[(Option<LaneKey>, Task)],
        mut bound: Option<Bound<'_>>,
    ) -> Result<Entry> {
        // They were made before a `shutdown_now`, and a reset has opened the executor since: they
        // would run as told to stop.
        if jobs.first().is_some_and(|(_, job)| self.is_stopped(job.head())) {
            return Err(Error::ShutDown);
        }
        // Their lanes stay locked until all is decided: none of them may start before all are
        // accepted.
        let mut lanes = self.order.lock(jobs.iter().filter_map(|(lane, _)| *lane));
        let mut ready: Vec<Task> = Vec::with_capacity(jobs.len());
        let mut entered = 0;
        let mut refusal: Result<Option<Full>> = Ok(None);
        for (lane, job) in jobs {
            if let Some(key) = *lane {
                if bound.as_ref().is_some_and(|bound| bound.is_behind(Full::Lane(key))) {
                    refusal = Ok(Some(Full::Lane(key)));
                    break;
                }
                match lanes.enter(key, job, bound.as_ref().and_then(|bound| bound.limit)) {
                    Entered::Ready => entered += 1,
                    Entered::Deferred => {
                        entered += 1;
                        continue;
                    }
                    Entered::Full if bound.is_some() => {
                        refusal = Ok(Some(Full::Lane(key)));
                        break;
                    }
                    Entered::Full => {
                        refusal = Err(Error::QueueFull);
                        break;
                    }
                    Entered::Closed => {
                        refusal = Err(self.why_closed());
                        break;
                    }
                }
            } else {
                entered += 1;
            }
            if bound.as_mut().is_some_and(|bound| !bound.take_place()) {
                refusal = Ok(Some(Full::Queue));
                break;
            }
            ready.push(job.clone());
        }
        if matches!(refusal, Ok(None)) {
            match self.pool.push(ready) {
                Ok(wakeup) => return Ok(Entry::Accepted(wakeup)),
                Err(PoolClosed) => refusal = Err(self.why_closed()),
            }
        }
        if let Some(bound) = &mut bound {
            bound.give_back();
        }
        if refusal.is_ok() && self.order.is_closed() {
            refusal = Err(self.why_closed());
        }
        // The last first, so that none of them is let in by the one before it.
        for (_, job) in jobs[..entered].iter().rev() {
            lanes.withdraw(job.head());
        }
        if entered > 0 {
            // They counted as deferred for a moment, in which `wait_idle` may have looked.
            self.pool.nudge_idle();
        }
        Ok(Entry::Full(refusal?.expect("neither full nor closed: it was accepted above")))
    }

    pub(super) fn why_closed(&self) -> Error {
        // It may have been opened again meanwhile.
        self.closed.lock().as_ref().map_or(Error::ShutDown, Closed::error)
    }
}
