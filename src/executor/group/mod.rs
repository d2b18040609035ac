//! Requests that end together, and time limits that hold for what a request submits.
//!
//! Promises: no request of a group outlives the group; a cancel and a time limit reach all
//! requests, groups and time limits inside; each request that is submitted to a group ends as one
//! that succeeded, failed or was cancelled in its `GroupStats`. A request outside of groups and
//! time limits pays one look at a thread-local. Left to others: how one request is cancelled
//! (`release`), what its cancel calls (`interrupts`), and points in time (`timer`).
//!
//! A group or a time limit is a `CancelScope`, called *scope* here: the tree of scopes is in
//! `cancel_scope`, one request of a scope in `member`. Why a cancel and a submission at the same
//! time don't miss each other: "Cancel against submit" in `cancel_scope`.
//!
//! Sources: the nurseries and cancel scopes of Trio, `coroutineScope` and `supervisorScope` of
//! Kotlin, and `StructuredTaskScope` of Java (JEP 505).

pub(super) mod cancel_scope;
mod limits;
mod member;
mod policy;
mod through;
mod waiting;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cancel_scope::{CancelScope, Why};
pub use limits::{TimeLimits, detached, remaining};
use member::{Operation as Boxed, Target};
pub use policy::{GroupStats, Policy};
pub use through::Through;

use super::args::Args;
use super::core::{Core, OrderBy, Way};
use super::current;
use super::front::Executor;
use super::handle::AsyncRequest;
use super::operation::{IntoOutput, Operation};
use super::read_write::read_and_write;
use super::request::Outcome;
#[cfg(not(any(loom, shuttle)))]
use super::scope::Borrowed;
use crate::error::{Error, Result};
use crate::time::Deadline;

/// Requests that end together: made by [`Executor::group`].
///
/// A group ends when it is dropped: that cancels what is still in it, and waits for it. So no
/// request outlives the function that keeps the group, even if it returns early, with `?` or by a
/// panic. To let the requests finish, [`wait`](Self::wait) first.
///
/// What an operation of the group submits while it runs belongs to the group, to any executor and
/// in any way: through a [limit](Executor::limit), by a [`map`](Executor::map), in a
/// [`scope`](crate::scope()) as well; and so does a group that it makes. Periodic work
/// ([`submit_every`](Executor::submit_every)) ends with the group, too, but only a run that is on
/// is waited for. [`detached`] makes exceptions. Belonging is not inherited by threads that an
/// operation starts by itself, and by callbacks of a request's end.
///
/// A group may be shared, as `&Group` or in an `Arc`, to submit to it and to cancel it from
/// elsewhere. If one of its own operations drops the last reference, the drop cancels and can't
/// wait.
///
/// ```
/// use fulmar::{Executor, Policy};
///
/// let executor = Executor::builder().threads(4).build()?;
/// let group = executor.group(Policy::All);
/// let symbol = group.spawn(|| "AAPL".to_owned())?;
/// let price = group.spawn(|| "189.5".parse::<f64>())?; // Its failure would cancel the other one.
/// group.wait(None)?;
/// assert_eq!((symbol.wait(None)?, price.wait(None)?), ("AAPL".to_owned(), 189.5));
/// # Ok::<(), fulmar::Error>(())
/// ```
#[must_use = "a group ends when it is dropped"]
pub struct Group {
    executor: Executor,
    target: Target,
}

impl Executor {
    /// A group of requests that end together as `policy` says. Inside an operation of another group
    /// it lies in that one.
    ///
    /// A time limit for the whole group: `executor.within(limit).group(policy)`.
    ///
    /// ```
    /// use fulmar::{Executor, Policy};
    ///
    /// let executor = Executor::builder().threads(2).build()?;
    /// let group = executor.group(Policy::Any);
    /// let mirrors = [group.spawn(|| "x".parse::<u8>())?, group.spawn(|| "7".parse::<u8>())?];
    /// group.wait(None)?; // Returns when one has succeeded, and the other has ended.
    /// assert_eq!(mirrors.iter().find_map(|mirror| mirror.try_take()?.ok()), Some(7));
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn group(&self, policy: Policy) -> Group {
        Group::new(self, current::scope(), None, None, policy)
    }

    /// Accepts an operation, in the group and under the time limit of the operation that submits
    /// it.
    pub(super) fn admit<T, F>(&self, way: Way<'_>, operation: F) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        self.core().admit(way, operation)
    }

    /// As `admit`, for many at once.
    pub(super) fn admit_many<T, F>(
        &self,
        operations: impl IntoIterator<Item = (OrderBy, F)>,
    ) -> Result<Vec<AsyncRequest<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let core = self.core();
        if let Some(scope) = current::scope() {
            return Target::inherited(scope).submit_all(core, operations);
        }
        let requests = core.submit_many(operations, |_| {})?;
        Ok(requests.into_iter().map(|request| AsyncRequest::new(request, core.clone())).collect())
    }
}

impl Core {
    /// Submits `operation` as `admit_to` does, to the group or the time limit of the operation that
    /// this thread runs, if there is one.
    pub(super) fn admit<T, F>(self: &Arc<Core>, way: Way<'_>, operation: F) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        self.admit_to(current::scope(), way, operation)
    }

    /// Submits `operation` to this executor, to start as `way` says, and returns the handle that
    /// gets its result or its error. If `Way::Now` finds no room in the queue, this call refuses,
    /// waits, or runs the operation, as the executor's `OnFull` says.
    ///
    /// `scope` is the group or the time limit of the request: its cancel cancels the request, and a
    /// wait for the group waits for it. If `scope` has ended before, the returned request is
    /// cancelled already, and the executor never gets it. Fails if the executor is shut down or
    /// full, if the system refuses a thread, or if a cancel interrupts the wait for room: then the
    /// operation is dropped, and `scope` doesn't count it.
    pub(super) fn admit_to<T, F>(
        self: &Arc<Core>,
        scope: Option<Arc<CancelScope>>,
        way: Way<'_>,
        operation: F,
    ) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let request: Arc<dyn Outcome<T>> = match (scope, way) {
            (Some(scope), way) => Target::inherited(scope).submit(self, way, Box::new(operation) as Boxed<T>)?,
            (None, Way::Now(order_by)) => self.submit(order_by, operation)?,
            (None, Way::At(at, order_by)) => self.submit_at(at, order_by, operation, |_| {})?,
            (None, Way::After(first)) => self.submit_follower(first, operation, |_| {})?,
            (None, Way::Accepted(order_by)) => self.submit_accepted(order_by, operation, |_| {})?,
            (None, Way::Limited(order_by, permits)) => self.submit_limited(order_by, permits, operation, |_| {})?,
        };
        Ok(AsyncRequest::new(request, self.clone()))
    }

    /// Submits an operation that may borrow: it lies with its [`scope`](crate::scope()), and
    /// `operation` holds its number. The request is queued now, and belongs to the group or the
    /// time limit of the operation that this thread runs, as with `admit`.
    #[cfg(not(any(loom, shuttle)))]
    pub(super) fn admit_borrowed(self: &Arc<Core>, order_by: OrderBy, operation: Borrowed) -> Result<AsyncRequest<()>> {
        let request: Arc<dyn Outcome<()>> = match current::scope() {
            Some(scope) => Target::inherited(scope).submit(self, Way::Now(order_by), operation)?,
            None => self.submit(order_by, operation)?,
        };
        Ok(AsyncRequest::new(request, self.clone()))
    }
}

impl Target {
    /// The target of a request that an operation of `scope` submits. The end of such a request
    /// doesn't count for the group's policy, and the request has no time by which it must start.
    fn inherited(scope: Arc<CancelScope>) -> Target {
        Target { scope, is_direct: false, start_by: None }
    }

    fn submit_all<T, F>(
        &self,
        core: &Arc<Core>,
        operations: impl IntoIterator<Item = (OrderBy, F)>,
    ) -> Result<Vec<AsyncRequest<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        // The iterator is the user's, and may submit.
        let boxed =
            operations.into_iter().map(|(order_by, operation)| (order_by, Box::new(operation) as Boxed<T>)).collect();
        let requests = self.submit_many(core, boxed)?;
        Ok(requests.into_iter().map(|request| AsyncRequest::new(request, core.clone())).collect())
    }
}

/// The ways to submit to something that has an executor and a target.
macro_rules! submissions {
    () => {
        /// Submits an operation, as [`Executor::submit`]. If the group, or the time limit, has
        /// ended before, the request is cancelled from the start.
        ///
        /// # Errors
        /// Those of [`Executor::submit`], and [`Error::Spawn`](crate::Error::Spawn) if there is a
        /// time limit and the timer's thread can't be started.
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
            let (executor, target) = self.parts();
            let order_by = executor.order_by(store, is_modifier, &args);
            let store = store.clone();
            let operation: Boxed<_> = Box::new(move || op.call(&store, args).map_err(Error::Operation));
            let request = target.submit(executor.core(), Way::Now(order_by), operation)?;
            Ok(AsyncRequest::new(request, executor.core().clone()))
        }

        read_and_write!();

        /// Submits an operation for each of `args`, all or none, as [`Executor::submit_many`].
        ///
        /// # Errors
        /// Those of [`Executor::submit_many`], and of [`submit`](Self::submit).
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
            let (executor, target) = self.parts();
            target.submit_all(
                executor.core(),
                args.into_iter().map(|args| {
                    let (op, order_by) = (op.clone(), executor.order_by(store, is_modifier, &args));
                    let store = store.clone();
                    (order_by, move || op.call(&store, args).map_err(Error::Operation))
                }),
            )
        }

        /// Submits a closure that is ordered with nothing. What it returns is a `Result` or can't
        /// be a failure ([`IntoOutput`](crate::IntoOutput)): unlike for [`Executor::spawn`], an
        /// `Err` is a failure of the request.
        ///
        /// # Errors
        /// Those of [`submit`](Self::submit).
        pub fn spawn<R, F>(&self, f: F) -> Result<AsyncRequest<R::Output>>
        where
            R: IntoOutput<Output: Send + 'static>,
            F: FnOnce() -> R + Send + 'static,
        {
            let (executor, target) = self.parts();
            let operation: Boxed<_> = Box::new(move || f().into_output().map_err(Error::Operation));
            let request = target.submit(executor.core(), Way::Now(OrderBy::FREE), operation)?;
            Ok(AsyncRequest::new(request, executor.core().clone()))
        }
    };
}
use submissions;

impl Group {
    fn new(
        executor: &Executor,
        parent: Option<Arc<CancelScope>>,
        deadline: Option<Instant>,
        start_by: Option<Instant>,
        policy: Policy,
    ) -> Group {
        let scope = CancelScope::new(parent, executor.core().clone(), deadline, Some(policy));
        Group { executor: executor.clone(), target: Target { scope, is_direct: true, start_by } }
    }

    fn parts(&self) -> (&Executor, &Target) {
        (&self.executor, &self.target)
    }

    submissions!();

    /// A group inside this one: it ends with it at the latest, and keeps its time limit.
    ///
    /// This one's policy doesn't look at it: a failure inside is told by the inner group's
    /// [`wait`](Self::wait).
    ///
    /// Keep both: a group that is dropped ends what lies in it. So in a chain of calls the one in
    /// the middle, which nothing keeps, ends the inner one with the statement:
    ///
    /// ```
    /// use fulmar::{Error, Executor, Policy};
    ///
    /// let executor = Executor::builder().threads(1).build()?;
    /// let orphan = executor.group(Policy::All).group(Policy::Each);
    /// let never = orphan.spawn(|| "too late")?;
    /// assert!(matches!(never.wait(None), Err(Error::Cancelled)));
    ///
    /// let outer = executor.group(Policy::All);
    /// let inner = outer.group(Policy::Each);
    /// assert_eq!(inner.spawn(|| "in time")?.wait(None)?, "in time");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn group(&self, policy: Policy) -> Group {
        Group::new(&self.executor, Some(self.target.scope.clone()), None, None, policy)
    }

    /// A time limit, from now, for a request, or a group, of this one: see [`Executor::within`].
    pub fn within(&self, limit: Duration) -> TimeLimits<'_> {
        TimeLimits::new(&self.executor, Some(&self.target)).within(limit)
    }

    /// A time limit, from now, for the start of a request of this one: see
    /// [`Executor::start_within`].
    pub fn start_within(&self, limit: Duration) -> TimeLimits<'_> {
        TimeLimits::new(&self.executor, Some(&self.target)).start_within(limit)
    }

    /// Waits, for at most `timeout`, until all that is in the group has ended, and says what came
    /// of it. What is submitted meanwhile is waited for as well.
    ///
    /// Inside an operation it waits as [`AsyncRequest::wait`] does: another thread works in its
    /// place. The group can be used again afterwards, unless its [policy](Policy), a cancel or
    /// its time limit has ended it.
    ///
    /// # Errors
    /// [`Error::Timeout`]: `timeout` passed, and nothing was cancelled. [`Policy::All`]: the first
    /// failure in time, which is taken from its handle. [`Policy::Any`]: the first failure, if none
    /// succeeded; [`Error::Invalid`] without requests. [`Error::Expired`] if the group's own time
    /// limit has passed, except for [`Policy::Each`]. [`Error::Cancelled`] if the group was
    /// cancelled, or if its first failure was taken from its handle before.
    /// [`Error::Interrupted`], if the operation that waits here was cancelled: the group goes on.
    /// [`Error::WouldDeadlock`] if the group can't end before the operation that waits here: if
    /// that is one of its own. [`Error::Spawn`] as for [`AsyncRequest::wait`].
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<GroupStats> {
        self.target.scope.wait(Deadline::start(timeout))?;
        self.target.scope.outcome()
    }

    /// Cancels all that is in the group, and in the groups in it: what has not started never runs,
    /// what runs is told, as by [`AsyncRequest::cancel`]. Returns at once, and says whether the
    /// group had not ended before.
    pub fn cancel(&self) -> bool {
        self.target.scope.cancel(Why::Cancelled)
    }

    /// How much is left of the group's time limit, which may be inherited: zero if it has passed,
    /// `None` without one.
    pub fn remaining(&self) -> Option<Duration> {
        limits::remaining_of(&self.target.scope)
    }

    /// A snapshot of its account.
    pub fn stats(&self) -> GroupStats {
        self.target.scope.lock().stats
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let scope = &self.target.scope;
        scope.cancel(Why::Cancelled);
        // The timer's thread must not block. It is here only if the system refuses the thread that
        // is to call users' code in its place.
        if !current::is_timer() {
            scope.wait_for_end();
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
