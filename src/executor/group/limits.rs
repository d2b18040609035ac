//! Time limits of requests: until their end, and until their start.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cancel_scope::CancelScope;
use super::member::{Operation as Boxed, Target};
use super::policy::Policy;
use super::{Group, submissions};
use crate::error::{Error, Result};
use crate::executor::args::Args;
use crate::executor::core::{OrderBy, Way};
use crate::executor::current;
use crate::executor::front::Executor;
use crate::executor::handle::AsyncRequest;
use crate::executor::operation::{IntoOutput, Operation};
use crate::executor::read_write::read_and_write;

/// Submits with time limits: made by [`Executor::within`] and [`Executor::start_within`], and by
/// those of a [`Group`].
#[must_use = "it submits nothing by itself"]
pub struct TimeLimits<'a> {
    executor: &'a Executor,
    /// `None` for what the current operation belongs to.
    target: Option<&'a Target>,
    deadline: Option<Instant>,
    start_by: Option<Instant>,
}

impl Executor {
    /// A time limit for a request, or for a group, from this call until its end.
    ///
    /// When it passes, the request is cancelled: if it has not started, it never runs, and a wait
    /// gives [`Error::Expired`]; if it runs, it is told ([`is_cancelled`](crate::is_cancelled)),
    /// its hooks are called ([`on_cancel`](crate::on_cancel)), and it decides what to return. What
    /// the operation submits while it runs, in whatever way, has the same limit, or an earlier one,
    /// and [`remaining`] says how much is left.
    ///
    /// Hooks, callbacks and destructors that a limit brings about run on threads beside the pool,
    /// 16 at most, where they delay no other limit, and need no thread that may be blocked.
    ///
    /// The limit is the request's, not that of a wait for it. It holds during a shutdown as well.
    /// Monotonic clock; a sum past the clock's range is no limit.
    ///
    /// ```
    /// use fulmar::{Error, Executor};
    /// use std::time::Duration;
    ///
    /// let executor = Executor::builder().threads(1).build()?;
    /// let limits = executor.within(Duration::from_millis(20));
    /// let slow = limits.spawn(|| fulmar::sleep(Duration::from_secs(3_600)))?;
    /// let queued = limits.spawn(|| "the only thread is busy until then")?;
    /// assert!(matches!(queued.wait(None), Err(Error::Expired)));
    /// assert!(slow.wait(None).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn within(&self, limit: Duration) -> TimeLimits<'_> {
        TimeLimits::new(self, None).within(limit)
    }

    /// A time limit for what a request waits in the queue, from this call until its start.
    ///
    /// If it has not started by then, it never runs, and a wait gives [`Error::Expired`]. If it
    /// has, the limit means nothing any more. It isn't inherited by what the operation submits.
    ///
    /// ```
    /// use fulmar::{Error, Executor};
    /// use std::time::Duration;
    ///
    /// let executor = Executor::builder().threads(1).build()?;
    /// let late = executor.start_within(Duration::ZERO).spawn(|| "too late")?;
    /// assert!(matches!(late.wait(None), Err(Error::Expired)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn start_within(&self, limit: Duration) -> TimeLimits<'_> {
        TimeLimits::new(self, None).start_within(limit)
    }
}

impl<'a> TimeLimits<'a> {
    pub(super) fn new(executor: &'a Executor, target: Option<&'a Target>) -> TimeLimits<'a> {
        TimeLimits { executor, target, deadline: None, start_by: target.and_then(|target| target.start_by) }
    }

    /// As [`Executor::within`]; of several limits the earliest holds.
    pub fn within(self, limit: Duration) -> TimeLimits<'a> {
        TimeLimits { deadline: earlier(self.deadline, limit), ..self }
    }

    /// As [`Executor::start_within`]; of several limits the earliest holds.
    pub fn start_within(self, limit: Duration) -> TimeLimits<'a> {
        TimeLimits { start_by: earlier(self.start_by, limit), ..self }
    }

    /// A group with these limits: the one for all of it, the one for the start for each request
    /// that is submitted to the group itself.
    ///
    /// ```
    /// use fulmar::{Executor, Policy};
    /// use std::time::Duration;
    ///
    /// let executor = Executor::builder().threads(2).build()?;
    /// let group = executor.within(Duration::from_millis(20)).group(Policy::Each);
    /// let fast = group.spawn(|| "fast")?;
    /// let slow = group.spawn(|| fulmar::sleep(Duration::from_secs(3_600)))?;
    /// let stats = group.wait(None)?; // What has come in time.
    /// assert_eq!((stats.succeeded, stats.failed), (1, 1));
    /// assert_eq!(fast.wait(None)?, "fast");
    /// assert!(slow.wait(None).is_err());
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn group(&self, policy: Policy) -> Group {
        Group::new(self.executor, self.parent(), self.deadline, self.start_by, policy)
    }

    submissions!();

    fn parent(&self) -> Option<Arc<CancelScope>> {
        self.target.map(|target| target.scope.clone()).or_else(current::scope)
    }

    pub(super) fn parts(&self) -> (&Executor, Target) {
        let (parent, core) = (self.parent(), self.executor.core());
        let scope = match parent {
            Some(parent) if self.deadline.is_none() => parent,
            parent => CancelScope::new(parent, core.clone(), self.deadline, None),
        };
        (self.executor, Target { scope, is_direct: self.target.is_some(), start_by: self.start_by })
    }
}

impl fmt::Debug for TimeLimits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeLimits")
            .field("deadline", &self.deadline)
            .field("start_by", &self.start_by)
            .finish_non_exhaustive()
    }
}

/// How much is left of the time limit of the operation that calls this: its own, or the one that it
/// has inherited from its group or from the operation that submitted it.
///
/// Zero if it has passed; `None` without a limit, and outside of an operation.
///
/// ```
/// use fulmar::{Executor, remaining};
/// use std::time::Duration;
///
/// let executor = Executor::builder().threads(1).build()?;
/// let minute = Duration::from_secs(60);
/// let inner = executor.within(minute).spawn({
///     let executor = executor.clone();
///     move || executor.spawn(remaining)?.wait(None)
/// })?;
/// assert!(inner.wait(None)?.is_some_and(|left| left <= minute), "inherited");
/// assert_eq!(executor.spawn(remaining)?.wait(None)?, None);
/// # Ok::<(), fulmar::Error>(())
/// ```
pub fn remaining() -> Option<Duration> {
    remaining_of(&*current::scope()?)
}

pub(super) fn remaining_of(scope: &CancelScope) -> Option<Duration> {
    Some(scope.deadline()?.saturating_duration_since(Instant::now()))
}

/// Calls `f`; what it submits, and the groups that it makes, belong neither to the group of the
/// operation that calls this nor under its time limit.
///
/// It is for what has to happen although the group is cancelled, an undo for one, and for what a
/// library keeps beyond the call in which it was started. Outside of a group it just calls `f`.
///
/// ```
/// use fulmar::{Executor, Policy, detached};
///
/// let executor = Executor::builder().threads(2).build()?;
/// let group = executor.group(Policy::All);
/// let outer = executor.clone();
/// let undo = group.spawn(move || {
///     while !fulmar::is_cancelled() { std::thread::yield_now() }
///     detached(|| outer.spawn(|| "undone"))
/// })?;
/// # fulmar::Executor::spawn(&executor, || ())?.wait(None)?;
/// # while undo.status() != fulmar::Status::Running { std::thread::yield_now() }
/// group.cancel();
/// assert!(group.wait(None).is_err());
/// assert_eq!(undo.wait(None)?.wait(None)?, "undone");
/// # Ok::<(), fulmar::Error>(())
/// ```
pub fn detached<R>(f: impl FnOnce() -> R) -> R {
    let _scope = current::enter_scope(None);
    f()
}

/// The earlier of `known` and `limit` from now.
fn earlier(known: Option<Instant>, limit: Duration) -> Option<Instant> {
    let new = Instant::now().checked_add(limit);
    match (known, new) {
        (Some(known), Some(new)) => Some(known.min(new)),
        (known, new) => known.or(new),
    }
}
