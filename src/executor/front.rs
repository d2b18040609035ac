//! What users hold: operations are submitted, waited for, and the threads steered through it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alarm::Alarmed;
use super::args::Args;
use super::core::{Core, Due, OrderBy, Way};
use super::current;
use super::handle::{self, AsyncRequest};
use super::on_cancel;
use super::operation::Operation;
use super::read_write::read_and_write;
use super::request::{Kind, Request, Terms};
use super::stats::Stats;
use super::threads;
use super::wait::block::Blocked;
use super::wait::graph::{Edges, end_would_deadlock};
use super::waits::Wait;
use crate::error::{Error, Result};
use crate::sync::interrupt::{self, Interrupt};
use crate::time::Deadline;
use crate::timer::Alarm;

/// A handle to threads that run submitted operations. Cloning it is cheap and gives a handle to the
/// same threads.
///
/// When the last handle is dropped, what was accepted is finished, and then the threads end. The
/// drop doesn't wait for that, and a process that returns from `main` doesn't either: call
/// [`shutdown`](Executor::shutdown) first, or wait for what matters.
///
/// The child of a `fork` has none of the threads, and what it submits waits for ever. Before its
/// first submission it calls [`reset`](Executor::reset) with a timeout of zero, whose
/// [`Error::Timeout`] counts the threads that stayed with the parent. Fork while no request starts
/// or ends: a lock that another thread holds at that moment stays locked in the child.
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
    pub(super) fn new(core: Arc<Core>) -> Executor {
        on_cancel::serve_lower_floors();
        Executor { owner: Arc::new(Owner { core }) }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.owner.core
    }

    /// Submits `op` on `store` and returns at once with a handle to its result.
    ///
    /// Requests on one store and one key ([`Args`]) keep their order: accessors share, a modifier
    /// (`is_modifier`) runs alone, and no request overtakes an earlier one that it clashes with.
    /// Different keys and different stores never wait for each other. A store is known by its
    /// `Arc`: clones of one are the same store.
    ///
    /// # Memory consistency
    /// What the caller did before happens-before the operation.
    /// # Errors
    /// [`Error::ShutDown`]; [`Error::QueueFull`] as [`OnFull`](crate::OnFull) says;
    /// [`Error::Spawn`] if there is no thread at all and none can be started. In each case nothing
    /// was accepted.
    /// # Examples
    /// ```
    /// use fulmar::Executor;
    /// use std::sync::{Arc, Mutex};
    ///
    /// struct Log(Mutex<Vec<String>>);
    /// impl Log {
    ///     fn add(&self, line: &str) -> Result<usize, std::fmt::Error> {
    ///         let mut lines = self.0.lock().expect("no thread panics under it");
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
    pub fn submit<S, A, O, M>(
        &self,
        store: &Arc<S>,
        op: O,
        is_modifier: bool,
        args: A,
    ) -> Result<AsyncRequest<O::Output>>
    where
        S: ?Sized + Send + Sync + 'static,
        A: Args + Send + 'static,
        O: Operation<S, A, M> + Send + 'static,
        O::Output: Send + 'static,
    {
        let order_by = self.order_by(store, is_modifier, &args);
        let store = store.clone();
        self.admit(Way::Now(order_by), move || op.call(&store, args).map_err(Error::Operation))
    }

    read_and_write!();

    /// Submits a closure that is ordered with nothing. What it returns is the result, an `Err` too.
    ///
    /// # Errors
    /// Those of [`submit`](Executor::submit).
    pub fn spawn<T, F>(&self, f: F) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.admit(Way::Now(OrderBy::FREE), move || Ok(f()))
    }

    /// A step of something that is on already, and promised to be finished: a closure that
    /// `shutdown_now` leaves alone.
    pub(crate) fn spawn_kept<T, F>(&self, f: F) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.handle(self.core().submit(OrderBy::KEPT, move || Ok(f())))
    }

    /// As `spawn_kept`, and never refused for a full queue.
    pub(crate) fn spawn_accepted<T, F>(&self, f: F) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.handle(self.core().submit_accepted(OrderBy::KEPT, move || Ok(f()), |_| {}))
    }

    /// Calls code of the user's: on this thread, or, if that is a timer's, on one beside the pool.
    pub(crate) fn call_foreign(&self, foreign: impl FnOnce() + Send + 'static) {
        self.core().call_detached(foreign);
    }

    /// An error if it takes no request before a reset gives it a size: its own, from the
    /// environment, makes no sense.
    pub(crate) fn check_settings(&self) -> Result<()> {
        self.core().check_settings()
    }

    /// Rings `alarmed` at `at`, unless it is called off or the executor is shut down before; then
    /// it is told of that. No wait and no shutdown waits for it, because it was not submitted.
    pub(crate) fn alarm_at(&self, at: Instant, alarmed: Arc<dyn Alarmed>) -> Result<Alarm> {
        let core = self.core();
        core.set_alarm(at, Due::Alarm(alarmed), Some(core.timer.session()))
    }

    /// Calls an alarm off, unless it has rung.
    pub(crate) fn call_off(&self, alarm: Alarm) {
        drop(self.core().timer.remove(alarm));
    }

    /// Submits `op` once for each of `args`, in their order: as many [`submit`](Executor::submit)s,
    /// but cheaper, and all or none.
    ///
    /// # Errors
    /// Those of [`submit`](Executor::submit); on a bounded queue the whole has to fit in at once,
    /// and [`Error::Invalid`] says if it never can. With
    /// [`OnFull::CallerRuns`](crate::OnFull::CallerRuns) requests are accepted one by one, and
    /// those before an error stay accepted.
    pub fn submit_many<S, A, O, M>(
        &self,
        store: &Arc<S>,
        op: O,
        is_modifier: bool,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Vec<AsyncRequest<O::Output>>>
    where
        S: ?Sized + Send + Sync + 'static,
        A: Args + Send + 'static,
        O: Operation<S, A, M> + Clone + Send + 'static,
        O::Output: Send + 'static,
    {
        self.admit_many(args.into_iter().map(|args| {
            let (op, order_by) = (op.clone(), self.order_by(store, is_modifier, &args));
            let store = store.clone();
            (order_by, move || op.call(&store, args).map_err(Error::Operation))
        }))
    }

    pub(super) fn handle<T, F>(&self, accepted: Result<Arc<Request<F, T>>>) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        Ok(AsyncRequest::new(accepted?, self.core().clone()))
    }

    pub(super) fn order_by<S: ?Sized>(&self, store: &Arc<S>, is_modifier: bool, args: &impl Args) -> OrderBy {
        // As long as a request refers to the store, nothing else has its address.
        let address = Arc::as_ptr(store).cast::<()>().addr();
        let lane = Some(self.core().order.key(address, args.key()));
        OrderBy { lane, terms: Terms::plain(Kind::of(is_modifier)) }
    }

    /// Waits for one request: [`AsyncRequest::wait`].
    ///
    /// # Errors
    /// Those of [`AsyncRequest::wait`].
    pub fn wait_request<T>(&self, request: &AsyncRequest<T>, timeout: impl Into<Option<Duration>>) -> Result<T> {
        request.wait(timeout)
    }

    /// Waits until all of `requests` have ended, for at most `timeout` together, and takes their
    /// values in the same order.
    ///
    /// All or nothing: on an error or a timeout, every other result is still in its handle.
    ///
    /// # Errors
    /// Those of [`AsyncRequest::wait`]. Of several failed requests it is the first in the order of
    /// `requests` whose error is returned, and taken.
    pub fn wait_requests<T>(
        &self,
        requests: &[AsyncRequest<T>],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Vec<T>> {
        handle::wait_all(requests, timeout)
    }

    /// Waits until one of `requests` has ended, in whatever way, and returns its index. Its result
    /// stays in the handle; a request whose result was taken counts as ended, so leave it out the
    /// next time.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Invalid`] without requests; [`Error::WouldDeadlock`] if none of
    /// them can end before the operation that waits here.
    pub fn wait_any_request<T>(
        &self,
        requests: &[AsyncRequest<T>],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<usize> {
        handle::wait_any(requests, timeout)
    }

    /// Changes the number of threads while requests wait and run. More threads start when they are
    /// needed; surplus ones end after their current request, idle ones at once.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no threads, or more than 65,536.
    pub fn resize(&self, threads: usize) -> Result<()> {
        let core = self.core();
        core.act(core.pool.resize(threads::checked(threads)?));
        Ok(())
    }

    /// Starts over with new threads, `threads` of them or as many as before, which take over all
    /// that is queued; an executor that was shut down takes requests again. Then waits until the
    /// old threads have ended, each after the request that it is running.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number that makes no sense, or none where `FULMAR_THREADS` makes
    /// none, and [`Error::WouldDeadlock`] inside an operation of this executor, whose thread is one
    /// of the old ones, or of another one that an old thread waits for, unless `timeout` is zero:
    /// nothing was changed. [`Error::Timeout`]: the reset is done, and `left` old threads are still
    /// running their last request; zero looks once. [`Error::Interrupted`]: the same, if the
    /// operation that waits here was cancelled.
    pub fn reset(&self, threads: impl Into<Option<usize>>, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let core = self.core();
        let threads = match threads.into() {
            Some(threads) => threads::checked(threads)?,
            None => core.check_settings().map(|()| core.pool.target())?,
        };
        let deadline = Deadline::start(timeout);
        let ending = Ending::begin(core, Wait::Threads(core.clone()), deadline)?.until_cancelled(core);
        let epoch = core.reopen(threads);
        match core.pool.wait_for_epoch(epoch, deadline, || ending.is_interrupted()) {
            0 => Ok(()),
            _ if ending.is_interrupted() => Err(Error::Interrupted),
            left => Err(Error::Timeout { limit: deadline.limit(), left: left as u64 }),
        }
    }

    /// Refuses new requests from now on, then waits until what was accepted is finished, callbacks
    /// included, and the threads have ended and were joined: the destructors of their thread-locals
    /// have run. [`reset`](Executor::reset) opens for business again.
    ///
    /// # Errors
    /// [`Error::Timeout`]: `left` requests are unfinished, and go on. [`Error::WouldDeadlock`]
    /// inside an operation of this executor, or of another one that a request here waits for,
    /// unless `timeout` is zero, which begins the shutdown and looks once: nothing was changed.
    /// [`Error::Interrupted`], if the operation that waits here was cancelled: the shutdown goes
    /// on, and [`await_termination`](Executor::await_termination) waits for its end.
    pub fn shutdown(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let deadline = Deadline::start(timeout);
        let ending = self.ending(deadline)?;
        self.core().close();
        self.core().wait_for_end(deadline, || ending.is_interrupted())
    }

    /// Refuses new requests from now on, cancels those that have not started, also what waits for
    /// its key, for its time or for another request, and says how many. It doesn't wait:
    /// [`await_termination`](Executor::await_termination) does.
    ///
    /// Waits for what was cancelled give [`Error::Cancelled`]. What runs is told
    /// ([`is_cancelled`](crate::is_cancelled)), its waits end, its hooks are called
    /// ([`on_cancel`](crate::on_cancel)), and it goes on to its own end. What
    /// [processors](crate::pipeline), [batches](crate::batch) and workers of tasks have begun with
    /// here is finished, as they promise; they begin with nothing more. An operation may call it,
    /// and is told as well.
    ///
    /// ```
    /// use fulmar::{Error, Executor};
    /// use std::sync::mpsc;
    ///
    /// let executor = Executor::builder().threads(1).build()?;
    /// let (started, starts) = mpsc::channel();
    /// let running = executor.spawn(move || {
    ///     started.send(()).ok();
    ///     while !fulmar::is_cancelled() { std::thread::yield_now() }
    ///     "stopped early"
    /// })?;
    /// starts.recv()?;
    /// let queued = executor.spawn(|| unreachable!("cancelled before it started"))?;
    /// assert_eq!(executor.shutdown_now(), 1);
    /// executor.await_termination(None)?;
    /// assert_eq!(running.wait(None)?, "stopped early");
    /// assert!(matches!(queued.wait(None), Err::<(), _>(Error::Cancelled)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_now(&self) -> usize {
        let accepted_below = self.core().close();
        self.core().cancel_all(accepted_below)
    }

    /// Waits until nothing is left to do: each request that was accepted has ended, callbacks
    /// included, and the threads rest. It closes nothing. While others go on submitting, there may
    /// be no such moment.
    ///
    /// What waits for its time is waited for; periodic work only while a run of it is on.
    ///
    /// ```
    /// let executor = fulmar::Executor::builder().threads(4).build()?;
    /// for n in 0..100 {
    ///     drop(executor.spawn(move || n * n)?); // Whose handles nothing keeps.
    /// }
    /// executor.wait_idle(None)?;
    /// assert_eq!(executor.stats().completed, 100);
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`], with `left` requests unfinished; zero looks once.
    /// [`Error::WouldDeadlock`], at once, inside an operation of this executor, or of another one
    /// that a request here waits for, unless `timeout` is zero. [`Error::Interrupted`], if the
    /// operation that waits here was cancelled.
    pub fn wait_idle(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let deadline = Deadline::start(timeout);
        let ending = self.ending(deadline)?;
        self.core().wait_for_idle(deadline, || ending.is_interrupted())
    }

    /// Waits, after a [`shutdown`](Executor::shutdown), until all is finished and the threads have
    /// ended. A reset meanwhile ends the wait as well.
    ///
    /// # Errors
    /// Those of [`shutdown`](Executor::shutdown), and [`Error::Invalid`] if it was not called.
    pub fn await_termination(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let deadline = Deadline::start(timeout);
        let ending = self.ending(deadline)?;
        if !self.core().is_closed() {
            return Err(Error::Invalid("the executor is open and would never terminate: call `shutdown` first".into()));
        }
        self.core().wait_for_end(deadline, || ending.is_interrupted())
    }

    fn ending(&self, deadline: Deadline) -> Result<Ending> {
        let core = self.core();
        Ok(Ending::begin(core, Wait::End(core.clone()), deadline)?.until_cancelled(core))
    }

    /// The number of threads that it grows to. [`Stats::threads`] says how many there are: they
    /// start when needed.
    pub fn threads(&self) -> usize {
        self.core().pool.target()
    }

    /// A snapshot of the counters, which adds up.
    pub fn stats(&self) -> Stats {
        self.core().stats()
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// This thread waits for an executor's end, as long as this lives.
pub(super) struct Ending {
    _edges: Option<Edges>,
    blocked: Option<Blocked>,
    /// Wakes the thread if the operation that waits is cancelled.
    interrupt: Option<Interrupt>,
    looks_once: bool,
}

impl Ending {
    /// An error if the end would have to wait for what this thread is at work on.
    pub(super) fn begin(core: &Core, end: Wait, deadline: Deadline) -> Result<Ending> {
        let looks_once = deadline.is_zero();
        let outside = Ending { _edges: None, blocked: None, interrupt: None, looks_once };
        if looks_once {
            return Ok(outside);
        }
        if current::is_worker_of(core) {
            return Err(Error::WouldDeadlock);
        }
        if !current::is_worker() {
            return Ok(outside);
        }
        let edges = deadline.is_never().then(|| Edges::enter(end.clone()));
        if end_would_deadlock(&end) {
            return Err(Error::WouldDeadlock);
        }
        Ok(Ending { _edges: edges, blocked: Blocked::enter_any(), ..outside })
    }

    /// Has the wait look at `is_interrupted` when the operation around it is cancelled.
    fn until_cancelled(mut self, core: &Arc<Core>) -> Ending {
        if !self.looks_once {
            let (place, core) = (self.blocked.as_ref().map(Blocked::place), core.clone());
            self.interrupt = Some(interrupt::on_cancel(move || {
                // Before the thread runs again, as in each wait.
                if let Some(place) = place {
                    place.come_back();
                }
                core.nudge_all();
            }));
        }
        self
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.is_some() && interrupt::is_cancelled()
    }
}
