//! The handle of a request: what users ask and want of it.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::core::{Core, Way};
use super::current;
use super::on_cancel;
use super::operation::IntoOutput;
use super::pool::Task;
use super::request::{Head, Kind, Observer, Outcome, Status};
use super::wait::block::Blocked;
use super::wait::graph::would_deadlock;
use super::wait::park;
use super::waits::Node;
use crate::error::{Error, Result};
use crate::time::Deadline;

/// The handle of a submitted request.
///
/// Dropping it does not cancel the request. It is also a [`Future`], for callers that have a
/// runtime: it needs none of its own, and any number of threads and one task may wait for the same
/// request; one of them gets the result. Polled inside an operation that is cancelled, it is ready
/// with [`Error::Interrupted`], and may be polled again later.
#[must_use = "a failure is only seen by who waits for it; to let a request go on unseen, `drop` its handle"]
pub struct AsyncRequest<T> {
    request: Arc<dyn Outcome<T>>,
    core: Arc<Core>,
    /// Whether it may have left a waker behind.
    polled: bool,
}

impl<T> AsyncRequest<T> {
    pub(super) fn new(request: Arc<dyn Outcome<T>>, core: Arc<Core>) -> AsyncRequest<T> {
        AsyncRequest { request, core, polled: false }
    }

    /// Its number: unique in its executor, in the order of submission on each thread.
    pub fn id(&self) -> u64 {
        self.request.head().id()
    }

    /// Whether it was submitted as an accessor or as a modifier.
    pub fn kind(&self) -> Kind {
        self.request.head().kind()
    }

    /// Where it stands now.
    pub fn status(&self) -> Status {
        self.request.head().status()
    }

    /// Whether it has ended, in whatever way.
    pub fn is_done(&self) -> bool {
        self.request.head().is_done()
    }

    /// Takes the request out for good if it has not started, and says whether it did.
    ///
    /// One that runs is told ([`is_cancelled`](crate::is_cancelled)), its waits end
    /// ([`Error::Interrupted`]), its hooks are called ([`on_cancel`](crate::on_cancel)), and it
    /// decides by itself; its result comes as it does without the call.
    ///
    /// ```
    /// use fulmar::{Error, Executor, Status};
    /// use std::sync::mpsc;
    ///
    /// let executor = Executor::builder().threads(1).build()?;
    /// let (open, gate) = mpsc::channel::<()>();
    /// let busy = executor.spawn(move || gate.recv().is_ok())?;
    /// let waiting = executor.spawn(|| unreachable!("cancelled before it started"))?;
    /// assert!(waiting.cancel());
    /// assert_eq!(waiting.status(), Status::Cancelled);
    /// assert!(matches!(waiting.wait(None), Err::<(), _>(Error::Cancelled)));
    /// open.send(())?;
    /// assert!(busy.wait(None)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) -> bool {
        !self.is_done() && self.core.cancel(&self.request.clone().as_job())
    }

    /// As [`cancel`](AsyncRequest::cancel), but one that runs isn't told.
    pub(crate) fn take_out(&self) -> bool {
        !self.is_done() && self.core.take_out(&self.request.clone().as_job(), false)
    }

    /// Waits until the request has ended, for at most `timeout`, and takes the result.
    ///
    /// After a timeout the request goes on and the handle is still good.
    ///
    /// # Timing
    /// Monotonic clock, counted from this call. `None` means no limit, zero looks once, and a sum
    /// past the clock's range is no limit. Inside an operation all of this holds as well: another
    /// thread works meanwhile in the place of the one that waits, so that a pool whose operations
    /// wait has more threads for a while than it was built with. If that operation is cancelled, or
    /// its time limit passes, the wait ends: at once, if that was before. A result that is there is
    /// returned all the same.
    /// # Memory consistency
    /// What the caller did before the submission happens-before the operation; what the operation
    /// did happens-before the return from here.
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Operation`] with the operation's own error;
    /// [`Error::Panicked`]; [`Error::Cancelled`]; [`Error::ResultTaken`] if the result was taken
    /// before; [`Error::Interrupted`], if the operation that waits here was cancelled: the request
    /// goes on, and the handle is still good; [`Error::WouldDeadlock`], at once, if the request
    /// can't end before the operation that waits here; [`Error::Spawn`] if the request needs a
    /// thread, the system refuses one, and 16 operations run inside one another on this thread's
    /// stack already.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<T> {
        park::for_one(self, Deadline::start(timeout))?;
        self.request.take().unwrap_or(Err(Error::ResultTaken))
    }

    /// Takes the result if there is one by now, with the errors of [`wait`](AsyncRequest::wait).
    pub fn try_take(&self) -> Option<Result<T>> {
        self.request.take()
    }

    /// What the operation panicked with, once: to downcast it, or to go on with it
    /// ([`std::panic::resume_unwind`]). [`Error::Panicked`] has its text.
    ///
    /// ```
    /// let executor = fulmar::Executor::builder().threads(1).build()?;
    /// let request = executor.spawn(|| std::panic::panic_any(7_u8))?;
    /// assert!(request.wait(None).is_err());
    /// assert_eq!(request.panic_payload().and_then(|payload| payload.downcast().ok()), Some(Box::new(7_u8)));
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn panic_payload(&self) -> Option<Box<dyn Any + Send>> {
        self.request.panic_payload()
    }

    /// Calls `callback` once when the request has ended, with its final status: on the thread that
    /// ended it, or at once if it has ended. The result stays in the handle. Callbacks are called
    /// in their order, after all waiting threads have been told. If one panics, the others are
    /// still called. If callbacks end requests whose callbacks end others, 16 are called inside one
    /// another, and the rest when the innermost has returned.
    ///
    /// The thread is one of the pool's, that of a caller of [`cancel`](AsyncRequest::cancel), or,
    /// at a time limit, one beside the pool: keep the callback short, or submit. The returned
    /// handle takes the callback back; dropping that handle does nothing.
    pub fn on_complete(&self, callback: impl FnOnce(Status) + Send + 'static) -> CallbackHandle {
        let number = self.core.next_number();
        let observer = Observer::Callback(number, Box::new(callback));
        if let Err(callback) = self.core.observers.register(self.head(), observer) {
            let status = self.status();
            current::call_nested(move || callback.tell(status));
        }
        CallbackHandle { job: self.request.clone().as_job(), core: self.core.clone(), number }
    }

    /// A receiver for `crossbeam_channel::select!`: it disconnects when the request has ended, in
    /// whatever way, and never receives anything. The result stays in the handle. For many requests
    /// there is [`RequestSet`](crate::RequestSet).
    ///
    /// Any number of threads may select it, and it stays ready: a loop that goes on after the end
    /// selects `crossbeam_channel::never()` in its place. It costs no thread. Inside an operation
    /// prefer a wait of this crate: a `select!` there keeps the thread of the pool.
    ///
    /// ```
    /// use fulmar::crossbeam_channel::{select, tick};
    /// use std::time::Duration;
    ///
    /// let executor = fulmar::Executor::builder().threads(1).build()?;
    /// let (request, ticks) = (executor.spawn(|| 7)?, tick(Duration::from_millis(5)));
    /// let value = loop {
    ///     select! {
    ///         recv(request.done()) -> _ => break request.wait(None)?,
    ///         recv(ticks) -> _ => println!("still at work"),
    ///     }
    /// };
    /// assert_eq!(value, 7);
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn done(&self) -> Receiver<Infallible> {
        self.core.observers.done(self.head())
    }

    /// When the request started, counted from its submission; `None` until it has.
    pub fn schedule_delay(&self) -> Option<Duration> {
        self.request.head().times().delay
    }

    /// How long the operation ran; `None` until it has ended.
    pub fn execution_duration(&self) -> Option<Duration> {
        self.request.head().times().duration
    }

    /// From submission to the end; `None` until it has ended.
    pub fn total_time(&self) -> Option<Duration> {
        self.request.head().times().total
    }

    /// Another handle, for the crate's own use: users have one, so that a result has one owner.
    pub(crate) fn share(&self) -> AsyncRequest<T> {
        AsyncRequest::new(self.request.clone(), self.core.clone())
    }

    /// Puts back a value that was taken, for another wait.
    pub(super) fn restore(&self, value: T) {
        self.request.restore(value);
    }

    pub(super) fn head(&self) -> &Head {
        self.request.head()
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn node(&self) -> Node {
        Node { job: self.request.clone().as_job(), core: self.core.clone() }
    }
}

impl<T: Send + 'static> AsyncRequest<T> {
    /// Runs `next` on the pool with the value, once there is one, and returns the handle of that.
    ///
    /// The result now belongs to `next`: a wait on this handle gives [`Error::ResultTaken`] once it
    /// has run. If this request fails, panics or is cancelled, `next` is not called, and its
    /// request fails with the same error.
    ///
    /// The new request counts as accepted, and as deferred, from now on: a shutdown waits for it.
    /// It is an accessor without a key or a store, and so waits for nothing else.
    ///
    /// ```
    /// let executor = fulmar::Executor::builder().threads(1).build()?;
    /// let length = executor.spawn(|| "AAPL".to_owned())?.then(|symbol| Ok::<_, std::fmt::Error>(symbol.len()))?;
    /// assert_eq!(length.wait(None)?, 4);
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ShutDown`]: nothing was accepted and this handle is as it was.
    pub fn then<R>(&self, next: impl FnOnce(T) -> R + Send + 'static) -> Result<AsyncRequest<R::Output>>
    where
        R: IntoOutput<Output: Send + 'static>,
    {
        let result = Reserved::new(self.request.clone());
        let operation = move || next(result.take()?).into_output().map_err(Error::Operation);
        self.core.admit(Way::After(&self.request.clone().as_job()), operation)
    }
}

/// The result of a request that belongs to a continuation from now on; back in its handle if that
/// never runs.
struct Reserved<T> {
    first: Arc<dyn Outcome<T>>,
    /// Not if another continuation came before.
    is_mine: bool,
}

impl<T> Reserved<T> {
    fn new(first: Arc<dyn Outcome<T>>) -> Reserved<T> {
        let is_mine = !first.head().reserve(true);
        Reserved { first, is_mine }
    }

    fn take(self) -> Result<T> {
        let result = if self.is_mine { self.first.take_reserved() } else { None };
        result.unwrap_or(Err(Error::ResultTaken))
    }
}

impl<T> Drop for Reserved<T> {
    fn drop(&mut self) {
        if self.is_mine {
            self.first.head().reserve(false);
        }
    }
}

/// Takes a callback back: see [`AsyncRequest::on_complete`].
pub struct CallbackHandle {
    job: Task,
    core: Arc<Core>,
    number: u64,
}

impl CallbackHandle {
    /// Has the callback never called, and drops it. Says whether it did: not if it was called, or
    /// is being called.
    ///
    /// ```
    /// use fulmar::Executor;
    /// use std::sync::mpsc;
    ///
    /// let executor = Executor::builder().threads(1).build()?;
    /// let (open, gate) = mpsc::channel::<()>();
    /// let request = executor.spawn(move || gate.recv().is_ok())?;
    /// let callback = request.on_complete(|_| unreachable!("taken back"));
    /// assert!(callback.cancel());
    /// open.send(())?;
    /// assert!(request.wait(None)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) -> bool {
        let mine = |observer: &Observer| matches!(observer, Observer::Callback(number, _) if *number == self.number);
        self.core.observers.remove(self.job.head(), mine)
    }
}

impl fmt::Debug for CallbackHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackHandle").field("request", &self.job.head().id()).finish_non_exhaustive()
    }
}

/// Waits until all of `requests` have ended, for at most `timeout` together, and takes their values
/// in the same order.
///
/// All or nothing: on an error or a timeout, every other result is still in its handle. Of several
/// errors it is the first in the order of `requests` that is returned, and it is taken from its
/// handle. Only if another thread takes one of the results in the very moment in which they are
/// taken here, the others are seen as taken until they are put back.
pub(super) fn wait_all<T>(requests: &[AsyncRequest<T>], timeout: impl Into<Option<Duration>>) -> Result<Vec<T>> {
    let missing = |request: &AsyncRequest<T>| request.request.take().unwrap_or(Err(Error::ResultTaken));
    if let Some(failed) = park::for_all(requests, Deadline::start(timeout))? {
        return missing(&requests[failed]).and(Err(Error::ResultTaken));
    }
    let mut values = Vec::with_capacity(requests.len());
    for request in requests {
        match missing(request) {
            Ok(value) => values.push(value),
            Err(error) => {
                // Another thread took one before: those taken here go back.
                for (request, value) in requests.iter().zip(values) {
                    request.request.restore(value);
                }
                return Err(error);
            }
        }
    }
    Ok(values)
}

/// Waits until one of `requests` has ended, for at most `timeout`, and returns its index. Takes
/// nothing.
pub(super) fn wait_any<T>(requests: &[AsyncRequest<T>], timeout: impl Into<Option<Duration>>) -> Result<usize> {
    if requests.is_empty() {
        return Err(Error::Invalid(
            "a wait for any of 0 requests would never end: give `wait_any` at least one".into(),
        ));
    }
    park::for_any(requests, Deadline::start(timeout))
}

impl<T> Future for AsyncRequest<T> {
    type Output = Result<T>;

    /// Takes the result if the request has ended; otherwise registers the task, to be woken when it
    /// ends.
    ///
    /// In an operation, it lets another thread of the pool work in this one's place, because the
    /// operation is about to block. It is ready with [`Error::WouldDeadlock`] if the request can't
    /// end before that operation, and with [`Error::Interrupted`] if the operation was cancelled.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        if let Some(taken) = self.request.take() {
            self.leave_poll();
            return Poll::Ready(taken);
        }
        let task = Observer::Task(context.waker().clone());
        if self.core.observers.register(self.head(), task).is_err() {
            self.leave_poll();
            return Poll::Ready(self.request.take().unwrap_or(Err(Error::ResultTaken)));
        }
        self.polled = true;
        if on_cancel::wake_task(self.head(), context.waker()) {
            return Poll::Ready(Err(Error::Interrupted));
        }
        if current::is_worker() {
            // An operation that polls is about to block its thread.
            let node = self.node();
            if would_deadlock(std::slice::from_ref(&node)) {
                return Poll::Ready(Err(Error::WouldDeadlock));
            }
            Blocked::lend(&node);
        }
        Poll::Pending
    }
}

impl<T> AsyncRequest<T> {
    /// An operation that polled it has no need to be woken for it any more.
    fn leave_poll(&self) {
        if self.polled {
            on_cancel::leave_task(self.head());
        }
    }
}

impl<T> Drop for AsyncRequest<T> {
    fn drop(&mut self) {
        self.leave_poll();
        if self.polled && !self.is_done() {
            let is_task = |observer: &Observer| matches!(observer, Observer::Task(_));
            self.core.observers.remove(self.head(), is_task);
        }
    }
}

impl<T> fmt::Debug for AsyncRequest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.request.head();
        f.debug_struct("AsyncRequest")
            .field("id", &head.id())
            .field("kind", &head.kind())
            .field("status", &head.status())
            .finish_non_exhaustive()
    }
}
