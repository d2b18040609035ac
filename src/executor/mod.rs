//! The executor: operations go in, in order per key, and results come out, on threads of its own.
//!
//! Promises: those of the crate's front page, each tested under its name. Left to others: order as
//! plain data (`lanes`), points in time (`timer`).
//!
//! ```text
//! front, builder, global, schedule, handle    what users call
//! map, limit, permits, priority, scope        other ways in: many, so many at once, first or last,
//!                                             borrowed
//! operation, args, shape, per_thread, store   what can be submitted
//! accept -> release -> worker                 a request's way: accepted, held back, queued, run
//! group                                       what ends together, and time limits
//! interrupts, on_cancel, sleep                what a cancel does to a request that runs: its waits
//!                                             end, its hooks are called
//! interruptible, time_limit                   what a request runs and is cancelled by itself
//! aside                                       users' code that the timer must not call
//! select                                      results that come out of a channel
//! wait, lifecycle                             waits for requests, and for the executor's end
//! core                                        what all of these share
//! order, pool, request, room, waits           state machines: keys, threads, a request, the bound
//! ```

mod accept;
mod alarm;
mod args;
mod aside;
mod builder;
mod clock;
mod core;
mod current;
mod front;
mod global;
mod group;
mod handle;
mod hooks;
mod interruptible;
mod interrupts;
mod lifecycle;
mod limit;
mod map;
mod on_cancel;
mod operation;
mod order;
mod per_thread;
mod permits;
mod pool;
mod priority;
mod read_write;
mod release;
mod request;
mod room;
mod schedule;
#[cfg(not(any(loom, shuttle)))]
mod scope;
mod select;
mod shape;
mod sleep;
mod stats;
#[cfg(feature = "json")]
mod store;
mod threads;
#[cfg(feature = "tasks")]
mod time_limit;
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
pub use group::{Group, GroupStats, Policy, Through, TimeLimits, detached, remaining};
pub use handle::{AsyncRequest, CallbackHandle};
pub(crate) use interruptible::{Interruptible, Told};
pub use limit::Limit;
pub use map::{Map, MapCompleted};
pub use on_cancel::{CancelHook, on_cancel, shield};
pub use operation::{Infallible, IntoOutput, Operation, infallible};
pub use per_thread::PerThread;
pub use priority::Priority;
pub use request::{Kind, Status};
pub use room::OnFull;
pub use schedule::Periodic;
#[cfg(not(any(loom, shuttle)))]
pub use scope::{Scope, ScopedRequest, scope};
pub use select::RequestSet;
pub use shape::Lend;
pub use sleep::sleep;
pub use stats::Stats;
#[cfg(feature = "json")]
pub use store::Store;
#[cfg(feature = "tasks")]
pub(crate) use time_limit::run_within;
pub(crate) use wait::block::Blocked;
pub use wait::completed::as_completed;
pub use wait::together::{Handles, wait_all, wait_each};
