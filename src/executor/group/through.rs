//! Requests of a group, or with time limits, that take turns.

use std::fmt;
use std::sync::Arc;

use super::member::{Operation as Boxed, Target};
use super::{Group, TimeLimits};
use crate::error::{Error, Result};
use crate::executor::args::Args;
use crate::executor::core::{OrderBy, Way};
use crate::executor::handle::AsyncRequest;
use crate::executor::limit::Limit;
use crate::executor::operation::{IntoOutput, Operation};
use crate::executor::read_write::read_and_write;

/// Submits to a group, or with time limits, what runs when it has its turn: made by
/// [`Group::through`] and [`TimeLimits::through`].
#[must_use = "it submits nothing by itself"]
pub struct Through<'a> {
    target: Target,
    limit: &'a Limit,
}

impl Group {
    /// Submits to this group through `limit`: at most so many run at once, of this group and of all
    /// else that is submitted through it.
    ///
    /// What waits for its turn holds no thread, as in the [limit](crate::Limit), and ends with the
    /// group, as all in it. The requests run on the limit's executor.
    ///
    /// ```
    /// use fulmar::{Executor, Policy};
    ///
    /// let executor = Executor::builder().threads(8).build()?;
    /// let two = executor.limit(2)?; // For all who ask this server.
    /// let group = executor.group(Policy::All);
    /// let answers = (0..100_u32).map(|n| group.through(&two).spawn(move || n + 1));
    /// let answers = answers.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(group.wait(None)?.succeeded, 100);
    /// assert_eq!(executor.wait_requests(&answers, None)?.iter().sum::<u32>(), 5_050);
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn through<'a>(&self, limit: &'a Limit) -> Through<'a> {
        Through { target: self.parts().1.clone(), limit }
    }
}

impl TimeLimits<'_> {
    /// Submits with these time limits through `limit`. They begin as without it, so that a request
    /// may still wait for its turn when one passes: then it never runs.
    ///
    /// ```
    /// use fulmar::{Error, Executor};
    /// use std::time::Duration;
    ///
    /// let executor = Executor::builder().threads(4).build()?;
    /// let one = executor.limit(1)?;
    /// let (open, gate) = std::sync::mpsc::channel::<()>();
    /// let busy = one.spawn(move || gate.recv().is_ok())?;
    /// let late = executor.start_within(Duration::from_millis(10)).through(&one).spawn(|| "too late")?;
    /// assert!(matches!(late.wait(None), Err(Error::Expired)));
    /// open.send(()).expect("it waits");
    /// assert!(busy.wait(None)?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn through<'a>(&self, limit: &'a Limit) -> Through<'a> {
        Through { target: self.parts().1, limit }
    }
}

impl Through<'_> {
    /// Submits an operation, as [`Limit::submit`]. If the group, or the time limit, has ended
    /// before, the request is cancelled from the start.
    ///
    /// # Errors
    /// Those of [`Limit::submit`], and [`Error::Spawn`] if there is a time limit and the timer's
    /// thread can't be started.
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
        let order_by = self.limit.executor().order_by(store, is_modifier, &args);
        let store = store.clone();
        self.admit(order_by, Box::new(move || op.call(&store, args).map_err(Error::Operation)))
    }

    read_and_write!();

    /// Submits a closure that is ordered with nothing, as [`Group::spawn`]: an `Err` is a failure
    /// of the request.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub fn spawn<R, F>(&self, f: F) -> Result<AsyncRequest<R::Output>>
    where
        R: IntoOutput<Output: Send + 'static>,
        F: FnOnce() -> R + Send + 'static,
    {
        self.admit(OrderBy::FREE, Box::new(move || f().into_output().map_err(Error::Operation)))
    }

    fn admit<T: Send + 'static>(&self, order_by: OrderBy, operation: Boxed<T>) -> Result<AsyncRequest<T>> {
        let core = self.limit.executor().core();
        let request = self.target.submit(core, Way::Limited(order_by, self.limit.permits()), operation)?;
        Ok(AsyncRequest::new(request, core.clone()))
    }
}

impl fmt::Debug for Through<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Through").field("limit", self.limit).finish_non_exhaustive()
    }
}
