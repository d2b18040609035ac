//! The executor: operations go in, in order per key, and results come out, on threads of its own.
//!
//! Promises: those of the crate's front page, each tested under its name. Left to others: order as plain data (`lanes`),
//! points in time (`timer`).
//!
//! ```text
//! front, builder, global, schedule, handle    what users call
//! operation, args, shape, per_thread, store    what can be submitted
//! accept -> release -> worker                 a request's way: accepted, held back and queued, run to its end
//! interrupts, sleep                           what a cancel does to a request that runs
//! select                                      results that come out of a channel
//! wait, lifecycle                             threads that wait for requests, and for the end of the executor
//! core                                        what all of these share
//! order, pool, request, room, waits           state machines: of the keys, the threads, one request, the bound, the waits
//! ```

mod accept;
mod alarm;
mod args;
mod builder;
mod clock;
mod core;
mod current;
mod front;
mod global;
mod handle;
mod hooks;
mod interrupts;
mod lifecycle;
mod operation;
mod order;
mod per_thread;
mod pool;
mod release;
mod request;
mod room;
mod schedule;
mod select;
mod shape;
mod sleep;
mod stats;
#[cfg(feature = "json")]
mod store;
mod threads;
mod wait;
mod waits;
mod worker;

pub(crate) use alarm::Alarmed;
pub use args::{Args, Keyed, keyed, keyless};
pub use builder::Builder;
pub use current::is_cancelled;
pub use front::Executor;
pub use global::{
    async_await_termination, async_reset_pool, async_shutdown, async_submit, async_total_requests,
    async_wait_any_request, async_wait_request, async_wait_requests,
};
pub use handle::{AsyncRequest, CallbackHandle};
pub use interrupts::{CancelHook, on_cancel};
pub use operation::{Infallible, IntoOutput, Operation, infallible};
pub use per_thread::PerThread;
pub use request::{Kind, Status};
pub use room::OnFull;
pub use schedule::Periodic;
pub use select::RequestSet;
pub use shape::Lend;
pub use sleep::sleep;
pub use stats::Stats;
#[cfg(feature = "json")]
pub use store::Store;
pub(crate) use wait::block::Blocked;
pub use wait::completed::as_completed;
pub use wait::together::{Handles, wait_all, wait_each};
