//! fulmar
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod backoff;
mod error;
mod executor;
mod lanes;
mod pool;
mod request;
mod sync;
mod time;

pub use error::{BoxError, Error, Result};
#[cfg(feature = "json")]
pub use executor::Store;
pub use executor::{
    Args, Builder, Executor, OnFull, Operation, Stats, async_await_termination, async_reset_pool, async_shutdown,
    async_submit, async_total_requests, async_wait_any_request, async_wait_request, async_wait_requests,
};
pub use request::{AsyncRequest, Kind, Status, as_completed, is_cancelled};
