//! The executor: operations go in, in order per key, and results come out, on threads of its own.
//!
//! Promises: those of the crate's front page, each tested under its name. Left to others: a request's own state
//! (`request`), order as plain data (`lanes`), threads (`pool`).

mod builder;
mod core;
mod global;
mod operation;
mod order;
mod roles;
mod schedule;
mod stats;
#[cfg(feature = "json")]
mod store;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use builder::{Builder, OnFull};
pub use global::{
    async_await_termination, async_reset_pool, async_shutdown, async_submit, async_total_requests,
    async_wait_any_request, async_wait_request, async_wait_requests,
};
pub use operation::{Args, Operation};
pub(crate) use schedule::Alarmed;
pub use schedule::Periodic;
pub use stats::Stats;
#[cfg(feature = "json")]
pub use store::Store;

use self::core::Core;
use self::order::Place;
use self::schedule::Due;
use crate::error::{Error, Result};
use crate::request::{self, AsyncRequest, Kind};
use crate::time::Deadline;
use crate::timer::Alarm;

/// A handle to threads that run submitted operations. Cloning it is cheap and gives a handle to the same threads.
///
/// When the last handle is dropped, what was accepted is finished, and then the threads end. The drop doesn't wait for that, and
/// a process that returns from `main` doesn't either: call [`shutdown`](Executor::shutdown) first, or wait for what matters.
#[derive(Clone)]
pub struct Executor {
    owner: Arc<Owner>,
}

/// Closes the core when the last handle goes. Requests and threads hold the core without it.
struct Owner {
    core: Arc<Core>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl Executor {
    fn new(core: Arc<Core>) -> Executor {
        Executor { owner: Arc::new(Owner { core }) }
    }

    fn core(&self) -> &Arc<Core> {
        &self.owner.core
    }

    /// The process-wide executor, with `FULMAR_THREADS` threads; by default the number of cores, but at least 4.
    pub fn global() -> &'static Executor {
        global::executor()
    }

    /// Settings for an executor of one's own.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Submits `op` on `store` and returns at once with a handle to its result.
    ///
    /// Requests on one store and one key ([`Args`]) keep their order: accessors share, a modifier (`is_modifier`) runs
    /// alone, and nobody overtakes an earlier request that it clashes with. Different keys and different stores never
    /// wait for each other. A store is known by its `Arc`: clones of one are the same store.
    ///
    /// # Memory consistency
    /// What the caller did before happens-before the operation.
    /// # Errors
    /// [`Error::ShutDown`]; [`Error::QueueFull`] as [`OnFull`] says; [`Error::Spawn`] if there is no thread at all and none
    /// can be started. In each case nothing was accepted.
    /// # Examples
    /// ```
    /// use fulmar::Executor;
    /// use std::sync::{Arc, Mutex};
    ///
    /// struct Log(Mutex<Vec<String>>);
    /// impl Log {
    ///     fn add(&self, line: &str) -> Result<usize, std::fmt::Error> {
    ///         let mut lines = self.0.lock().expect("nobody panics under it");
    ///         lines.push(line.to_owned());
    ///         Ok(lines.len())
    ///     }
    /// }
    ///
    /// let executor = Executor::builder().threads(2).build()?;
    /// let log = Arc::new(Log(Mutex::default()));
    /// let request = executor.submit(&log, Log::add, true, "hello")?;
    /// assert_eq!(request.wait(None)?, 1);
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn submit<S, A, O>(&self, store: &Arc<S>, op: O, is_modifier: bool, args: A) -> Result<AsyncRequest<O::Output>>
    where
        S: ?Sized + Send + Sync + 'static,
        A: Args + Send + 'static,
        O: Operation<S, A> + Send + 'static,
        O::Output: Send + 'static,
    {
        let place = self.place(store, is_modifier, &args);
        let store = store.clone();
        self.core().submit(place, move || op.call(&store, args).map_err(Error::Operation))
    }

    /// Submits a closure that is ordered with nothing. What it returns is the result, an `Err` too.
    ///
    /// # Errors
    /// Those of [`submit`](Executor::submit).
    pub fn spawn<T, F>(&self, f: F) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.core().submit(Place { kind: Kind::Accessor, lane: None }, move || Ok(f()))
    }

    /// Part of something that is on already: a closure that is never refused for a full queue, but after a shutdown.
    pub(crate) fn spawn_accepted<T, F>(&self, f: F) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.core().submit_accepted(&Place { kind: Kind::Accessor, lane: None }, move || Ok(f()))
    }

    /// An error if it takes no request before a reset gives it a size: its own, from the environment, makes no sense.
    pub(crate) fn check_settings(&self) -> Result<()> {
        self.core().check_settings()
    }

    /// Has `alarmed` rung at `at`, unless it is called off or there is a shutdown before, of which it is told. Waits for
    /// nobody and is waited for by nobody: it was not submitted.
    pub(crate) fn alarm_at(&self, at: Instant, alarmed: Arc<dyn Alarmed>) -> Result<Alarm> {
        let core = self.core();
        core.set_alarm(at, Due::Alarm(alarmed), Some(core.timer.session()))
    }

    /// Calls an alarm off, unless it has rung.
    pub(crate) fn call_off(&self, alarm: Alarm) {
        drop(self.core().timer.remove(alarm));
    }

    /// Whether this is one of its threads, at work.
    pub(crate) fn is_here(&self) -> bool {
        request::is_worker_of(&**self.core())
    }

    /// Submits `op` once for each of `args`, in their order: as many [`submit`](Executor::submit)s, but cheaper, and all
    /// or none.
    ///
    /// # Errors
    /// Those of [`submit`](Executor::submit); on a bounded queue the whole has to fit in at once, and [`Error::Invalid`] says
    /// if it never can. With
    /// [`OnFull::CallerRuns`] requests are accepted one by one, and those before an error stay accepted.
    pub fn submit_many<S, A, O>(
        &self,
        store: &Arc<S>,
        op: O,
        is_modifier: bool,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Vec<AsyncRequest<O::Output>>>
    where
        S: ?Sized + Send + Sync + 'static,
        A: Args + Send + 'static,
        O: Operation<S, A> + Clone + Send + 'static,
        O::Output: Send + 'static,
    {
        self.core().submit_many(args.into_iter().map(|args| {
            let (op, place) = (op.clone(), self.place(store, is_modifier, &args));
            let store = store.clone();
            (place, move || op.call(&store, args).map_err(Error::Operation))
        }))
    }

    fn place<S: ?Sized>(&self, store: &Arc<S>, is_modifier: bool, args: &impl Args) -> Place {
        // As long as a request refers to the store, nothing else has its address.
        let address = Arc::as_ptr(store).cast::<()>().addr();
        let kind = if is_modifier { Kind::Modifier } else { Kind::Accessor };
        Place { kind, lane: Some(self.core().keys.key(address, args.key())) }
    }

    /// Waits for one request: [`AsyncRequest::wait`].
    ///
    /// # Errors
    /// As there.
    pub fn wait_request<T>(&self, request: &AsyncRequest<T>, timeout: impl Into<Option<Duration>>) -> Result<T> {
        request.wait(timeout)
    }

    /// Waits until all of `requests` have ended, for at most `timeout` together, and takes their values in the same
    /// order.
    ///
    /// All or nothing: on an error or a timeout, every other result is still in its handle.
    ///
    /// # Errors
    /// Those of [`AsyncRequest::wait`]. Of several failed requests it is the first in the order of `requests` whose error
    /// is returned, and taken.
    pub fn wait_requests<T>(
        &self,
        requests: &[AsyncRequest<T>],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Vec<T>> {
        request::wait_all(requests, timeout)
    }

    /// Waits until one of `requests` has ended, in whatever way, and returns its index. Its result stays in the handle;
    /// a request whose result was taken counts as ended, so leave it out the next time.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Invalid`] without requests; [`Error::WouldDeadlock`] if none of them can end before
    /// the operation that waits here.
    pub fn wait_any_request<T>(
        &self,
        requests: &[AsyncRequest<T>],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<usize> {
        request::wait_any(requests, timeout)
    }

    /// Changes the number of threads while requests wait and run. More threads start when they are needed; surplus ones
    /// end after their current request, idle ones at once.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no threads, or more than 65,536.
    pub fn resize(&self, threads: usize) -> Result<()> {
        self.core().pool.resize(&**self.core(), builder::checked_threads(threads)?);
        Ok(())
    }

    /// Starts over with new threads, `threads` of them or as many as before, which take over all that is queued; an
    /// executor that was shut down takes requests again. Then waits until the old threads have ended, each after the
    /// request that it is running.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number that makes no sense, or none where `FULMAR_THREADS` makes none, and
    /// [`Error::WouldDeadlock`] inside an operation of this executor, whose thread is one of the old ones, unless
    /// `timeout` is zero: nothing was changed. [`Error::Timeout`]: the reset is done, and `left` old threads are still
    /// running their last request; zero looks once.
    pub fn reset(&self, threads: impl Into<Option<usize>>, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let core = self.core();
        let threads = match threads.into() {
            Some(threads) => builder::checked_threads(threads)?,
            None => core.check_settings().map(|()| core.pool.target())?,
        };
        let deadline = self.deadline(timeout)?;
        let epoch = core.reopen(threads);
        match core.pool.wait_for_epoch(epoch, deadline) {
            0 => Ok(()),
            left => Err(Error::Timeout { limit: deadline.limit(), left: left as u64 }),
        }
    }

    /// Refuses new requests from now on, then waits until what was accepted is finished and the threads have ended.
    /// [`reset`](Executor::reset) opens for business again.
    ///
    /// # Errors
    /// [`Error::Timeout`]: `left` requests are unfinished, and go on. [`Error::WouldDeadlock`] inside an operation of this
    /// executor, unless `timeout` is zero, which begins the shutdown and looks once: nothing was changed.
    pub fn shutdown(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let deadline = self.deadline(timeout)?;
        self.core().close();
        self.core().wait_for_end(deadline)
    }

    /// Waits, after a [`shutdown`](Executor::shutdown), until all is finished and the threads have ended. A reset
    /// meanwhile ends the wait as well.
    ///
    /// # Errors
    /// Those of [`shutdown`](Executor::shutdown), and [`Error::Invalid`] if it was not called.
    pub fn await_termination(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let deadline = self.deadline(timeout)?;
        if !self.core().is_closed() {
            return Err(Error::Invalid("the executor is open and would never terminate: call `shutdown` first".into()));
        }
        self.core().wait_for_end(deadline)
    }

    /// The number of threads that it grows to. [`Stats::threads`] says how many there are: they start when needed.
    pub fn threads(&self) -> usize {
        self.core().pool.target()
    }

    /// A snapshot of the counters, which adds up.
    pub fn stats(&self) -> Stats {
        self.core().stats()
    }

    /// Waiting for this executor's threads to end, on one of them, would be waiting for oneself.
    fn deadline(&self, timeout: impl Into<Option<Duration>>) -> Result<Deadline> {
        let deadline = Deadline::start(timeout);
        if !deadline.is_zero() && request::is_worker_of(&**self.core()) {
            return Err(Error::WouldDeadlock);
        }
        Ok(deadline)
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
