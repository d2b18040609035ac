//! The process-wide executor, and the functions that use it: the crate's only singleton.

use std::sync::Arc;
use std::time::Duration;

use super::args::Args;
use super::builder::Builder;
use super::front::Executor;
use super::handle::AsyncRequest;
use super::operation::Operation;
use super::threads;
use crate::error::Result;
use crate::sync::OnceLock;

static GLOBAL: OnceLock<Executor> = OnceLock::new();

impl Executor {
    /// The process-wide executor, with `FULMAR_THREADS` threads; by default the number of cores,
    /// but at least 4.
    ///
    /// # In a library
    /// The global executor is the program's: its threads are shared, and a shutdown, a reset or a
    /// wait until it is idle reaches the requests of all who use it. So a library does none of
    /// that. It
    ///
    /// - takes an [`&Executor`](Executor) from its caller, or falls back on this one;
    /// - keeps its requests in a [`Group`](crate::Group) of its own: to cancel it, to wait for it
    ///   and to drop it ends what is the library's, and nothing else;
    /// - makes a group that is to outlive the call in [`detached`](crate::detached), for otherwise
    ///   a group that is made inside an operation ends with that operation's;
    /// - has stores of its own: requests of different stores never wait for each other's order;
    /// - makes its own executor, by [`Executor::builder`], for operations that run for as long as
    ///   the program does: each would take a thread from all others.
    ///
    /// A group that is made in a call, and ended in it, needs none of this care: in an operation it
    /// takes part in the caller's cancel and time limit.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use fulmar::{AsyncRequest, Error, Executor, Group, Policy, detached};
    ///
    /// /// A library's front: all that it has at work ends with it.
    /// pub struct Feed {
    ///     requests: Group,
    /// }
    ///
    /// impl Feed {
    ///     pub fn new(executor: &Executor) -> Feed {
    ///         Feed { requests: detached(|| executor.group(Policy::Each)) }
    ///     }
    ///
    ///     pub fn price(&self, symbol: &str) -> Result<AsyncRequest<usize>, Error> {
    ///         let symbol = symbol.to_owned();
    ///         self.requests.spawn(move || symbol.len())
    ///     }
    ///
    ///     /// Lets what is at work finish, for so long, and cancels the rest.
    ///     pub fn close(self, limit: Duration) {
    ///         let _ = self.requests.wait(limit);
    ///     }
    /// }
    ///
    /// let (one, other) = (Feed::new(Executor::global()), Feed::new(Executor::global()));
    /// one.close(Duration::from_secs(1));
    /// assert_eq!(other.price("AAPL")?.wait(None)?, 4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn global() -> &'static Executor {
        GLOBAL.get_or_init(Builder::build_global)
    }
}

/// [`Executor::submit`] on the global executor.
///
/// A return from `main` doesn't wait for it: call [`async_shutdown`] first, or wait for what
/// matters.
///
/// # Errors
/// Those of [`Executor::submit`], and [`Error::Invalid`](crate::Error::Invalid) if `FULMAR_THREADS`
/// makes no sense, until [`async_reset_pool`] gives a size.
pub fn async_submit<S, A, O, M>(store: &Arc<S>, op: O, is_modifier: bool, args: A) -> Result<AsyncRequest<O::Output>>
where
    S: ?Sized + Send + Sync + 'static,
    A: Args + Send + 'static,
    O: Operation<S, A, M> + Send + 'static,
    O::Output: Send + 'static,
{
    Executor::global().submit(store, op, is_modifier, args)
}

/// Waits for one request of whichever executor: [`AsyncRequest::wait`].
///
/// # Errors
/// Those of [`AsyncRequest::wait`].
pub fn async_wait_request<T>(request: &AsyncRequest<T>, timeout: impl Into<Option<Duration>>) -> Result<T> {
    request.wait(timeout)
}

/// Waits for all of many: [`Executor::wait_requests`].
///
/// # Errors
/// Those of [`Executor::wait_requests`].
pub fn async_wait_requests<T>(requests: &[AsyncRequest<T>], timeout: impl Into<Option<Duration>>) -> Result<Vec<T>> {
    Executor::global().wait_requests(requests, timeout)
}

/// Waits for any of many: [`Executor::wait_any_request`].
///
/// # Errors
/// Those of [`Executor::wait_any_request`].
pub fn async_wait_any_request<T>(requests: &[AsyncRequest<T>], timeout: impl Into<Option<Duration>>) -> Result<usize> {
    Executor::global().wait_any_request(requests, timeout)
}

/// [`Executor::shutdown`] of the global executor, for all who use it. A library doesn't call it:
/// see [`Executor::global`].
///
/// # Errors
/// Those of [`Executor::shutdown`].
pub fn async_shutdown(timeout: impl Into<Option<Duration>>) -> Result<()> {
    Executor::global().shutdown(timeout)
}

/// [`Executor::await_termination`] of the global executor.
///
/// # Errors
/// Those of [`Executor::await_termination`].
pub fn async_await_termination(timeout: impl Into<Option<Duration>>) -> Result<()> {
    Executor::global().await_termination(timeout)
}

/// [`Executor::reset`] of the global executor; without a size, to that of `FULMAR_THREADS` or the
/// default.
///
/// # Errors
/// Those of [`Executor::reset`].
pub fn async_reset_pool(pool_size: impl Into<Option<usize>>, timeout: impl Into<Option<Duration>>) -> Result<()> {
    let threads = pool_size.into().map_or_else(threads::from_environment, Ok)?;
    Executor::global().reset(threads, timeout)
}

/// How many requests the global executor has accepted since the process started.
pub fn async_total_requests() -> u64 {
    Executor::global().stats().submitted
}
