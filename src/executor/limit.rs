//! At most so many operations at once, of those that are submitted through one limit.
//!
//! Promises: no more of them run than the limit says; one that waits for its turn holds no thread,
//! and keeps its place on its key; turns come in the order in which the requests could have started
//! without it. Left to others: order (`order`), and all else of a request's way. What has no limit
//! pays nothing: its request has a flag that says so, beside others.
//!
//! ```text
//! submitted -> on its lane -> admitted there -> waits for its turn
//!           -> has it: queued -> runs -> gives it on
//! ```
//!
//! The turn is a value that the operation owns. It goes with the operation: when that has returned,
//! has panicked, or was cancelled.
//!
//! Source: `SetLimit` of Go's errgroup, which holds up the submitter (and so deadlocks if an
//! operation submits); here the request waits.

use std::fmt;
use std::sync::Arc;

use super::args::Args;
use super::core::{Core, OrderBy, Way};
use super::front::Executor;
use super::handle::AsyncRequest;
use super::operation::Operation;
use super::permits::{Limited, Permits};
use super::pool::Task;
use super::read_write::read_and_write;
use super::request::{Call, Head, Host, Job, Request, Status, Terms};
use crate::error::{Error, Result};

impl Executor {
    /// Makes a limit: of the requests that are submitted through it, at most `max_concurrent` run
    /// at once.
    ///
    /// ```
    /// use fulmar::Executor;
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    ///
    /// /// A server that bears two at once.
    /// struct Server(AtomicUsize);
    /// impl Server {
    ///     fn ask(&self, question: u32) -> u32 {
    ///         assert!(self.0.fetch_add(1, SeqCst) < 2);
    ///         self.0.fetch_sub(1, SeqCst);
    ///         question + 1
    ///     }
    /// }
    ///
    /// let executor = Executor::builder().threads(8).build()?;
    /// let (server, two) = (Arc::new(Server(AtomicUsize::new(0))), executor.limit(2)?);
    /// let answers = (0..100).map(|n| two.submit(&server, Server::ask, false, n));
    /// let answers = answers.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(executor.wait_requests(&answers, None)?.len(), 100);
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0, which lets nothing start.
    pub fn limit(&self, max_concurrent: usize) -> Result<Limit> {
        if max_concurrent == 0 {
            return Err(Error::Invalid("a limit of 0 lets nothing start: use 1 or more".into()));
        }
        Ok(Limit { executor: self.clone(), permits: Arc::new(Permits::new(max_concurrent)) })
    }
}

/// A way to an [`Executor`] that lets at most so many run at once: one for each store, for each
/// key, or for several stores together, as it is shared. Clones are the same limit.
///
/// A request that waits for its turn holds no thread, keeps its place in the order of its key, and
/// counts as deferred. An operation's submissions belong to its group and its time limit here as
/// elsewhere; to submit to a group from outside there is [`Group::through`](crate::Group::through).
/// No [queue capacity](crate::Builder::queue_capacity) bounds how many wait. A turn lasts as long as
/// the operation runs, waits in it included: one that waits without a time limit for a request that
/// needs its turn gets [`Error::WouldDeadlock`].
#[derive(Clone)]
pub struct Limit {
    executor: Executor,
    permits: Arc<Permits>,
}

impl Limit {
    /// Submits an operation that runs when it has its turn: [`Executor::submit`] for the rest.
    ///
    /// # Errors
    /// Those of [`Executor::submit`], but never [`Error::QueueFull`].
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
        let order_by = self.executor.order_by(store, is_modifier, &args);
        let store = store.clone();
        let way = Way::Limited(order_by, &self.permits);
        self.executor.admit(way, move || op.call(&store, args).map_err(Error::Operation))
    }

    read_and_write!();

    /// Submits a closure that is ordered with nothing, and runs when it has its turn.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub fn spawn<T, F>(&self, f: F) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.executor.admit(Way::Limited(OrderBy::FREE, &self.permits), move || Ok(f()))
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (running, waiting) = self.permits.counts();
        f.debug_struct("Limit")
            .field("max_concurrent", &self.permits.max_concurrent)
            .field("running", &running)
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}

impl Limit {
    pub(super) fn executor(&self) -> &Executor {
        &self.executor
    }

    pub(super) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }
}

/// A request's right to its turn, and then the turn, which its operation owns.
struct Permit {
    core: Arc<Core>,
    permits: Arc<Permits>,
    number: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(next) = self.permits.give_on(self.number) {
            self.core.release_limited(next);
        }
    }
}

/// An operation with its permit, which goes when all of the operation is gone: the fields are
/// dropped in their order.
pub(super) struct Permitted<F> {
    operation: F,
    permit: Permit,
}

impl<T, F: Call<T>> Call<T> for Permitted<F> {
    const MAY_REFUSE: bool = F::MAY_REFUSE;

    fn call(self, host: &dyn Host) -> Result<T> {
        let Permitted { operation, permit } = self;
        let _permit = permit;
        operation.call(host)
    }
}

impl Core {
    /// Accepts a request that waits for its turn.
    pub(super) fn submit_limited<T, F>(
        self: &Arc<Core>,
        order_by: OrderBy,
        permits: &Arc<Permits>,
        operation: F,
        prepare: impl FnOnce(&Task),
    ) -> Result<Arc<Request<Permitted<F>, T>>>
    where
        T: Send + 'static,
        F: Call<T> + Send + 'static,
    {
        self.ensure_thread().map_err(Error::Spawn)?;
        let number = self.next_number();
        let permit = Permit { core: self.clone(), permits: permits.clone(), number };
        let operation = Permitted { operation, permit };
        let order_by = OrderBy { terms: Terms { limited: true, ..order_by.terms }, ..order_by };
        let request = self.request(order_by, Status::Deferred, self.clock.now(), operation);
        request.head().defer();
        let job: Task = request.clone();
        prepare(&job);
        self.accept_deferred()?;
        request.head().trace.accepted();
        let limited = Limited { job: job.clone(), permits: permits.clone(), number, is_in_line: false };
        self.limited.lock().insert(job.head().address(), limited);
        self.order_due(order_by.lane, &job);
        self.stop_late(&job);
        Ok(request)
    }

    /// Nothing but its limit holds the request back any more.
    pub(super) fn ask_limit(self: &Arc<Core>, job: Task) {
        // It is no longer there if it was cancelled.
        let asked = self.limited.lock().get(&job.head().address()).map(|known| (known.permits.clone(), known.number));
        let Some((permits, number)) = asked else { return };
        if permits.ask(number, &job) {
            return self.release_limited(job);
        }
        // No longer there if it has been given its turn meanwhile.
        if let Some(known) = self.limited.lock().get_mut(&job.head().address()) {
            known.is_in_line = true;
        }
        self.note_dependent(&job);
    }

    /// Queues a request whose turn it is.
    fn release_limited(self: &Arc<Core>, job: Task) {
        self.forget_limited(job.head());
        self.release_admitted(job.clone());
        self.stop_late(&job);
    }

    /// The request has its turn, or was cancelled.
    pub(super) fn forget_limited(&self, head: &Head) {
        let known = self.limited.lock().remove(&head.address());
        drop(known);
    }

    /// The turns of which the request waits for one, if it does.
    pub(super) fn awaited_turns(&self, head: &Head) -> Option<Arc<Permits>> {
        let limited = self.limited.lock();
        limited.get(&head.address()).filter(|limited| limited.is_in_line).map(|limited| limited.permits.clone())
    }
}
