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
    /// The process-wide executor, with `FULMAR_THREADS` threads; by default the number of cores, but at least 4.
    pub fn global() -> &'static Executor {
        GLOBAL.get_or_init(Builder::build_global)
    }
}

/// [`Executor::submit`] on the global executor.
///
/// A return from `main` doesn't wait for it: call [`async_shutdown`] first, or wait for what matters.
///
/// # Errors
/// As there; and [`Error::Invalid`](crate::Error::Invalid) if `FULMAR_THREADS` makes no sense, until
/// [`async_reset_pool`] gives a size.
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
/// As there.
pub fn async_wait_request<T>(request: &AsyncRequest<T>, timeout: impl Into<Option<Duration>>) -> Result<T> {
    request.wait(timeout)
}

/// Waits for all of many: [`Executor::wait_requests`].
///
/// # Errors
/// As there.
pub fn async_wait_requests<T>(requests: &[AsyncRequest<T>], timeout: impl Into<Option<Duration>>) -> Result<Vec<T>> {
    Executor::global().wait_requests(requests, timeout)
}

/// Waits for any of many: [`Executor::wait_any_request`].
///
/// # Errors
/// As there.
pub fn async_wait_any_request<T>(requests: &[AsyncRequest<T>], timeout: impl Into<Option<Duration>>) -> Result<usize> {
    Executor::global().wait_any_request(requests, timeout)
}

/// [`Executor::shutdown`] of the global executor.
///
/// # Errors
/// As there.
pub fn async_shutdown(timeout: impl Into<Option<Duration>>) -> Result<()> {
    Executor::global().shutdown(timeout)
}

/// [`Executor::await_termination`] of the global executor.
///
/// # Errors
/// As there.
pub fn async_await_termination(timeout: impl Into<Option<Duration>>) -> Result<()> {
    Executor::global().await_termination(timeout)
}

/// [`Executor::reset`] of the global executor; without a size, to that of `FULMAR_THREADS` or the default.
///
/// # Errors
/// As there.
pub fn async_reset_pool(pool_size: impl Into<Option<usize>>, timeout: impl Into<Option<Duration>>) -> Result<()> {
    let threads = pool_size.into().map_or_else(threads::from_environment, Ok)?;
    Executor::global().reset(threads, timeout)
}

/// How many requests the global executor has accepted since the process started.
pub fn async_total_requests() -> u64 {
    Executor::global().stats().submitted
}
