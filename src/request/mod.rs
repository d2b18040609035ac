//! One submitted request: its handle, its state machine, and the waits over one and over many.
//!
//! Promises: a request ends exactly once; a wait changes nothing but to take the result, once; what the operation did is
//! seen by whoever sees its end. Left to others: when it runs, and in which order (`lanes`, `pool`), reached through
//! [`Host`].

mod completed;
mod current;
mod graph;
mod host;
mod observe;
mod state;
mod trace;
mod wait;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use completed::as_completed;
pub use current::is_cancelled;
pub use state::{Kind, Status};

pub(crate) use current::{enter_host, is_worker, is_worker_of};
pub(crate) use host::{Clock, Ended, Host, Lap, NO_TICKET};
pub(crate) use observe::{set_alarm, stir};
pub(crate) use state::{Head, Job, Outcome, Request};

use crate::error::{BoxError, Error, Result};
use crate::time::Deadline;
use graph::Node;
use observe::{Observer, register};

/// The handle of a submitted request.
///
/// Dropping it does not cancel the request. It is also a [`Future`], for callers that have a runtime: it needs none of
/// its own, and any number of threads and one task may wait for the same request; one of them gets the result.
pub struct AsyncRequest<T> {
    core: Arc<dyn Outcome<T>>,
    host: Arc<dyn Host>,
}

impl<T> AsyncRequest<T> {
    pub(crate) fn new(core: Arc<dyn Outcome<T>>, host: Arc<dyn Host>) -> AsyncRequest<T> {
        AsyncRequest { core, host }
    }

    /// Its number: unique in its executor, in the order of submission on each thread.
    pub fn id(&self) -> u64 {
        self.core.head().id()
    }

    /// Whether it was submitted as an accessor or as a modifier.
    pub fn kind(&self) -> Kind {
        self.core.head().kind()
    }

    /// Where it stands now.
    pub fn status(&self) -> Status {
        self.core.head().status()
    }

    /// Whether it has ended, in whatever way.
    pub fn is_done(&self) -> bool {
        self.core.head().is_done()
    }

    /// Takes the request out for good if it has not started, and says whether it did.
    ///
    /// One that runs is told ([`is_cancelled`]) and decides by itself; its result comes as it does without the call.
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
        !self.is_done() && self.host.cancel(&self.core.clone().as_job())
    }

    /// Waits until the request has ended, for at most `timeout`, and takes the result.
    ///
    /// After a timeout the request goes on and the handle is still good.
    ///
    /// # Timing
    /// Monotonic clock, counted from this call. `None` is no limit, zero looks once, and a sum past the clock's range is
    /// no limit. Inside an operation, a queued request is run by the waiting thread itself; once it has begun, it is run
    /// to its end, whatever the limit.
    /// # Memory consistency
    /// What the caller did before the submission happens-before the operation; what the operation did happens-before
    /// the return from here.
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Operation`] with the operation's own error; [`Error::Panicked`];
    /// [`Error::Cancelled`]; [`Error::ResultTaken`] if somebody took the result before; [`Error::WouldDeadlock`], at once,
    /// if the request can't end before the operation that waits here.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<T> {
        wait::for_one(self, Deadline::start(timeout))?;
        self.core.take().unwrap_or(Err(Error::ResultTaken))
    }

    /// Takes the result if there is one by now, with the errors of [`wait`](AsyncRequest::wait).
    pub fn try_take(&self) -> Option<Result<T>> {
        self.core.take()
    }

    /// Calls `callback` once when the request has ended, with its final status: on the thread that ended it, or at once
    /// if it has ended. The result stays in the handle. Callbacks are called in their order, once all who wait have been
    /// told. A panic in one concerns nobody else.
    ///
    /// The thread is one of the pool's: keep it short, or submit.
    pub fn on_complete(&self, callback: impl FnOnce(Status) + Send + 'static) {
        if let Err(callback) = register(self.job(), Observer::Callback(Box::new(callback))) {
            callback.tell(self.status());
        }
    }

    /// When the request started, counted from its submission; `None` until it has.
    pub fn schedule_delay(&self) -> Option<Duration> {
        self.core.times().delay
    }

    /// How long the operation ran; `None` until it has ended.
    pub fn execution_duration(&self) -> Option<Duration> {
        self.core.times().duration
    }

    /// From submission to the end; `None` until it has ended.
    pub fn total_time(&self) -> Option<Duration> {
        self.core.times().total
    }

    /// Runs the request, and what is ahead of it, on this thread. Returns when it has ended, or when it can't from here.
    pub(crate) fn run_here(&self) {
        // It can't where the caller is itself ahead of it: then it stays accepted, and is run later.
        let _ = wait::help(&[self.node()], Deadline::start(None));
    }

    /// Another handle, for the crate's own use: users have one, so that a result has one owner.
    pub(crate) fn share(&self) -> AsyncRequest<T> {
        AsyncRequest { core: self.core.clone(), host: self.host.clone() }
    }

    fn job(&self) -> &(dyn Job + 'static) {
        self.core.job()
    }

    fn node(&self) -> Node {
        Node { job: self.core.clone().as_job(), host: self.host.clone() }
    }
}

impl<T: Send + 'static> AsyncRequest<T> {
    /// Runs `next` on the pool with the value, once there is one, and returns the handle of that.
    ///
    /// The result now belongs to `next`: a wait on this handle gives [`Error::ResultTaken`] once it has run. If this
    /// request fails, panics or is cancelled, `next` is not called, and its request fails with the same error.
    ///
    /// The new request counts as accepted, and as deferred, from now on: a shutdown waits for it. It is an accessor
    /// without a key or a store, and so waits for nothing else.
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
    pub fn then<U, E>(&self, next: impl FnOnce(T) -> Result<U, E> + Send + 'static) -> Result<AsyncRequest<U>>
    where
        U: Send + 'static,
        E: Into<BoxError>,
    {
        let first = self.core.clone();
        let operation = move || {
            let value = first.take().unwrap_or(Err(Error::ResultTaken))?;
            next(value).map_err(|error| Error::Operation(error.into()))
        };
        let (id, submitted) = self.host.accept_follower()?;
        let request = Arc::new(Request::new(id, Kind::Accessor, Status::Deferred, submitted, operation));
        let follower = AsyncRequest { core: request, host: self.host.clone() };
        follower.core.head().accepted();
        // Before the release can happen: who waits for the follower has to find what it follows.
        graph::push_wait(follower.job(), vec![self.node()]);
        let (host, job) = (self.host.clone(), follower.core.clone().as_job());
        let release = Box::new(move |_| {
            drop(graph::pop_wait(&*job));
            host.release(job);
        });
        if let Err(release) = observe::follow(self.job(), release) {
            release(self.status());
        }
        Ok(follower)
    }
}

/// Waits until all of `requests` have ended, for at most `timeout` together, and takes their values in the same order.
///
/// All or nothing: on an error or a timeout, every other result is still in its handle. Of several errors it is the
/// first in the order of `requests` that is returned, and it is taken from its handle. Only if another thread takes one of
/// the results in the very moment in which they are taken here, the others are seen as taken until they are put back.
pub(crate) fn wait_all<T>(requests: &[AsyncRequest<T>], timeout: impl Into<Option<Duration>>) -> Result<Vec<T>> {
    let missing = |request: &AsyncRequest<T>| request.core.take().unwrap_or(Err(Error::ResultTaken));
    if let Some(failed) = wait::for_all(requests, Deadline::start(timeout))? {
        return missing(&requests[failed]).and(Err(Error::ResultTaken));
    }
    let mut values = Vec::with_capacity(requests.len());
    for request in requests {
        match missing(request) {
            Ok(value) => values.push(value),
            Err(error) => {
                // Somebody took one before: those taken here go back.
                for (request, value) in requests.iter().zip(values) {
                    request.core.restore(value);
                }
                return Err(error);
            }
        }
    }
    Ok(values)
}

/// Waits until one of `requests` has ended, for at most `timeout`, and returns its index. Takes nothing.
pub(crate) fn wait_any<T>(requests: &[AsyncRequest<T>], timeout: impl Into<Option<Duration>>) -> Result<usize> {
    if requests.is_empty() {
        return Err(Error::Invalid("none of no requests can end: wait_any needs at least one".into()));
    }
    wait::for_any(requests, Deadline::start(timeout))
}

impl<T> Future for AsyncRequest<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        if let Some(taken) = self.core.take() {
            return Poll::Ready(taken);
        }
        match register(self.job(), Observer::Task(context.waker().clone())) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(self.core.take().unwrap_or(Err(Error::ResultTaken))),
        }
    }
}

impl<T> fmt::Debug for AsyncRequest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.core.head();
        f.debug_struct("AsyncRequest")
            .field("id", &head.id())
            .field("kind", &head.kind())
            .field("status", &head.status())
            .finish_non_exhaustive()
    }
}
