//! What starts before others, or after them.
//!
//! A priority is a time: so much earlier, or later, than it was queued a request counts as queued.
//! One idea, with a unit, under which no request starves. Left to others: which one a thread takes
//! (`pool`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::args::Args;
use super::core::{OrderBy, Way};
use super::front::Executor;
use super::handle::AsyncRequest;
use super::operation::Operation;
use super::read_write::read_and_write;
use super::request::Terms;
use crate::error::{Error, Result};

impl Executor {
    /// High priority: what is submitted through it counts as queued `head_start` earlier, and so
    /// starts before what has been queued for less than that. A request is queued from its
    /// submission on, or, if its key, its time or a limit holds it back, from the end of that.
    ///
    /// Nothing starves: a request without a head start is overtaken only by those that are queued
    /// at most `head_start` after it. So choose the time for which the others may be held
    /// up: with an hour it is as good as an absolute priority, and with 100 ms a short one.
    ///
    /// ```
    /// use fulmar::Executor;
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let executor = Executor::builder().threads(1).build()?;
    /// let (open, gate) = mpsc::channel::<()>();
    /// let busy = executor.spawn(move || gate.recv())?;
    ///
    /// let (started, starts) = mpsc::channel();
    /// let note = |what| { let started = started.clone(); move || started.send(what) };
    /// let report = executor.behind(Duration::from_secs(60)).spawn(note("report"))?;
    /// let page = executor.spawn(note("page"))?;
    /// let click = executor.ahead(Duration::from_secs(5)).spawn(note("click"))?;
    ///
    /// open.send(())?;
    /// executor.wait_requests(&[report, page, click], None)?;
    /// assert_eq!(starts.try_iter().collect::<Vec<_>>(), ["click", "page", "report"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "priority")]
    #[doc(alias = "high priority")]
    pub fn ahead(&self, head_start: Duration) -> Priority {
        Priority { executor: self.clone(), head_start: head_start.as_secs_f32() }
    }

    /// Low priority: what is submitted through it counts as queued `delay` later, and so lets pass
    /// what is queued within that time. A thread that has nothing else to do runs it at
    /// once.
    #[doc(alias = "priority")]
    #[doc(alias = "low priority")]
    #[doc(alias = "background")]
    pub fn behind(&self, delay: Duration) -> Priority {
        Priority { executor: self.clone(), head_start: -delay.as_secs_f32() }
    }
}

/// A way to an [`Executor`] whose requests start before others, or after them: see
/// [`ahead`](Executor::ahead) and [`behind`](Executor::behind).
///
/// It decides which of the queued requests a free thread takes, and nothing else. On one key the
/// order stays that of the submissions, so a request waits for those before it there, whose own
/// priority stays. What an operation submits has no priority of its operation's; what it waits
/// for is run before what is queued, as always. In a full queue a request is treated as any other.
/// Times are kept to seven digits.
#[derive(Clone)]
pub struct Priority {
    executor: Executor,
    /// In seconds, below zero for those that let others pass.
    head_start: f32,
}

impl Priority {
    /// Submits an operation that starts when its priority says: [`Executor::submit`] for the rest.
    ///
    /// # Errors
    /// Those of [`Executor::submit`].
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
        self.executor.admit(self.way(order_by), move || op.call(&store, args).map_err(Error::Operation))
    }

    read_and_write!();

    /// Submits a closure that is ordered with nothing, and starts when its priority says.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub fn spawn<T, F>(&self, f: F) -> Result<AsyncRequest<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.executor.admit(self.way(OrderBy::FREE), move || Ok(f()))
    }

    fn way(&self, order_by: OrderBy) -> Way<'static> {
        Way::Now(OrderBy { terms: Terms { head_start: self.head_start, ..order_by.terms }, ..order_by })
    }
}

impl fmt::Debug for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Priority").field("head_start_seconds", &self.head_start).finish_non_exhaustive()
    }
}
