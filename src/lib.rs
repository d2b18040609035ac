//! Slow blocking operations, run concurrently on OS threads, in order where order matters, without
//! an async runtime.
//!
//! Ordinary code hands an operation to a pool of threads, goes on working, and collects the result,
//! with a time limit if it wants one. Nothing has to become `async`, and nothing has to be wired by
//! hand.
//!
//! # Hello world
//!
//! ```
//! use fulmar::{async_submit, async_wait_request};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! struct Prices;
//!
//! impl Prices {
//!     /// Slow and blocking: a file, a database, a network.
//!     fn read(&self, symbol: &str) -> Result<f64, std::io::Error> {
//!         Ok(symbol.len() as f64)
//!     }
//! }
//!
//! let prices = Arc::new(Prices);
//! let request = async_submit(&prices, Prices::read, false, "AAPL")?; // returns at once
//! // .. other work ..
//! let price = async_wait_request(&request, Duration::from_secs(30))?; // the typed result, or a clear error
//! assert_eq!(price, 4.0);
//! # Ok::<(), fulmar::Error>(())
//! ```
//!
//! Four arguments: the store, what to do with it, whether that changes something (`is_modifier`),
//! and with what. The `async_*` functions use one executor for the whole process, with
//! `FULMAR_THREADS` threads; [`Executor::builder`] makes others, and closures that belong to no
//! store are [`spawn`](Executor::spawn)ed.
//!
//! # Waiting
//!
//! For one request, for all of many in their order, for any of them, or for each as it comes. A
//! wait changes nothing but to take the result, which is taken once; after a time limit the handle
//! is as good as before. `None` means no limit, and zero only looks. A request is also a
//! [`Future`], for callers that do have a runtime.
//!
//! ```
//! use fulmar::{Executor, as_completed};
//! use std::time::Duration;
//!
//! let executor = Executor::builder().threads(4).build()?;
//! let squares = |n: u64| executor.spawn(move || n * n);
//!
//! let all = [squares(1)?, squares(2)?, squares(3)?];
//! assert_eq!(executor.wait_requests(&all, Duration::from_secs(30))?, [1, 4, 9]);
//!
//! let some = [squares(4)?, squares(5)?];
//! let first = executor.wait_any_request(&some, None)?;
//! assert!(some[first].is_done());
//! for (index, square) in as_completed(&some, None) {
//!     assert_eq!(square?, [16, 25][index]);
//! }
//!
//! let next = squares(6)?.then(|square| Ok::<_, std::fmt::Error>(square + 1))?;
//! next.on_complete(|status| assert_eq!(status, fulmar::Status::Completed));
//! assert_eq!(next.wait(None)?, 37);
//! # Ok::<(), fulmar::Error>(())
//! ```
//!
//! An operation may wait for others, even on a single thread: another thread works in its place
//! meanwhile. So may one that puts into a full [`queue`] or gets from an empty one. What could
//! never end is refused at once, with [`Error::WouldDeadlock`], where the executor knows what the
//! wait is for; of a queue it doesn't.
//!
//! # Order
//!
//! Requests on one key of one store behave as if run in the order of their submission: accessors
//! share, a modifier runs alone, and no request overtakes an earlier one that it clashes with.
//! Different keys and stores never wait for each other, and a request that waits holds no thread.
//! Text is its own key, a tuple has its first element's, and types of your own say theirs
//! ([`Args`]). What has no key, as a number or a path, is ordered among all of its store that has
//! none: modifiers by number run one at a time, unless the number goes in as text.
//!
//! ```
//! use fulmar::{Error, Executor};
//! use std::collections::HashMap;
//! use std::sync::{Arc, RwLock};
//!
//! type Table = RwLock<HashMap<String, f64>>;
//!
//! fn write(table: &Table, (symbol, price): (&str, f64)) -> Result<(), String> {
//!     table.write().map_err(|error| error.to_string())?.insert(symbol.into(), price);
//!     Ok(())
//! }
//!
//! fn read(table: &Table, symbol: &str) -> Result<f64, String> {
//!     let table = table.read().map_err(|error| error.to_string())?;
//!     table.get(symbol).copied().ok_or(format!("unknown symbol `{symbol}`"))
//! }
//!
//! let executor = Executor::builder().threads(4).build()?;
//! let table = Arc::new(Table::default());
//! executor.submit(&table, write, true, ("AAPL", 210.0))?;
//! executor.submit(&table, write, true, ("AAPL", 211.5))?;
//! assert_eq!(executor.submit(&table, read, false, "AAPL")?.wait(None)?, 211.5);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Errors and timeouts
//!
//! The error of an operation comes back with its type, a panic as [`Error::Panicked`] with its
//! message. A time limit bounds the wait, not the operation: [cancel](AsyncRequest::cancel) that,
//! or give it a time limit of its own ([`Executor::within`]).
//!
//! In an operation that runs, a cancel ends what waits: for requests, groups and [`batch`]es, for
//! room in an executor, for time ([`sleep`]), each with [`Error::Interrupted`]; at a [`queue`] and
//! for tasks, whose errors say so; and calls of the HTTP client. Nothing is lost by that. What
//! those waits are for goes on, and what is there already comes all the same. Other calls that
//! block need a hook ([`on_cancel`]), and loops ask [`is_cancelled`]. In a [`shield`] nothing is
//! interrupted.
//!
//! ```
//! use fulmar::{Error, Executor};
//! use std::num::ParseIntError;
//! use std::sync::{Arc, mpsc};
//! use std::time::Duration;
//!
//! let executor = Executor::builder().threads(1).build()?;
//! let parse = |_: &(), text: &str| text.parse::<u8>();
//! let failed = executor.submit(&Arc::new(()), parse, false, "many")?.wait(None).unwrap_err();
//! assert!(failed.operation::<ParseIntError>().is_some());
//! assert_eq!(failed.to_string(), "the operation failed: invalid digit found in string");
//!
//! let (open, gate) = mpsc::channel();
//! let slow = executor.spawn(move || gate.recv())?;
//! let timeout = slow.wait(Duration::from_millis(1)).unwrap_err();
//! assert!(timeout.is_timeout());
//! open.send("after all")?;
//! assert_eq!(slow.wait(None)??, "after all");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Later, and again and again
//!
//! [`Executor::submit_after`] submits once a delay has passed, [`Executor::submit_every`] on a
//! fixed schedule until it is cancelled. Neither holds a thread meanwhile: one for all of them
//! sleeps until the next is due.
//!
//! # Resizing
//!
//! [`Executor::resize`] changes the number of threads while they work. [`Executor::reset`] starts
//! over with new ones, which take over what is queued. A bounded queue
//! ([`Builder::queue_capacity`]) says what a submission does when it is full: refuse, wait, or run
//! on the submitter's thread.
//!
//! # Shutting down
//!
//! [`Executor::shutdown`] refuses new requests, finishes the accepted ones, and says how many are
//! left if time runs out. `reset` opens again. A program that returns from `main` takes its threads
//! with it, so shut down first, or wait for what matters. [`Executor::stats`] has the counters,
//! which add up in every snapshot:
//!
//! ```
//! use fulmar::{Error, Executor};
//! use std::time::Duration;
//!
//! let executor = Executor::builder().threads(2).build()?;
//! let request = executor.spawn(|| 7)?;
//! executor.shutdown(Duration::from_secs(30))?;
//! assert!(matches!(executor.spawn(|| 8), Err(Error::ShutDown)));
//! assert_eq!(request.wait(None)?, 7);
//! let stats = executor.stats();
//! assert_eq!((stats.submitted, stats.completed, stats.threads), (1, 1, 0));
//! # Ok::<(), Error>(())
//! ```
//!
//! # Producers and consumers
//!
//! [`queue::bounded`] is a queue with a limit, for threads that make work and threads that do it;
//! [`pipeline`] has submitters on a cadence and processors on an executor for its two ends, and
//! pipelines: stages, each on threads of its own, with such queues between them.
//!
//! # Custom stores
//!
//! Any type behind an `Arc` is a store, and any method of up to six arguments, function or closure
//! an operation ([`Operation`]): where it borrows, the arguments may be owned. Arguments without a
//! key of their own go in as [`keyed`]`(key, args)`, and what threads can't share, as a database
//! connection, is made for each of them by [`PerThread`]. A type that implements `Store` (feature
//! `json`) has operations with names, and arguments and results as JSON, so that a request can come
//! from a file or a message: `async_submit(&store, "read", false, json!({"symbol": "AAPL"}))`.
//!
//! # From threads to durable
//!
//! The same four arguments work on a queue that survives a crash:
//! `queue.submit("store", "op", is_modifier, args)`. It is in an embedded SQLite file for the
//! processes of one machine (feature `sqlite`), or on a PostgreSQL server for many machines
//! (feature `postgres`), and has tasks of many types, workers in any number of processes, retries,
//! pauses, order by key and a log: the chapter `tasks`.
//!
//! # What it promises
//!
//! 1. Every accepted request ends exactly once: completed, failed, panicked or cancelled. Resizes,
//!    resets, shutdowns, panics, dropped handles and timed-out waits lose none and run none twice.
//! 2. A wait changes nothing. Waiting for many is all or nothing.
//! 3. Order on one key of one store, as above. A deferred request holds no thread and no polling;
//!    an idle key costs no memory.
//! 4. A wait inside an operation never deadlocks: what can't end before the operation that waits is
//!    told at once.
//! 5. Cancelling takes out for good what has not started, tells what runs, and ends its waits.
//! 6. Resizes are live, resets move what is queued, shutdowns finish what was accepted. Threads
//!    start when needed.
//! 7. Idle threads use no CPU. A wake-up goes to one thread, and only where one sleeps.
//! 8. Counters add up in every snapshot.
//! 9. What the caller did before a submission is seen by the operation; what that did is seen after
//!    the wait.
//! 10. `#![deny(unsafe_code)]`, and two files that argue for theirs: the memory of a request, and,
//!     with the feature `postgres`, the bindings to a client library in C.
//! 11. Progress: a queued request is within reach of every free thread, and requests start in the
//!     order in which they were queued. What an operation waits for, and what the submitter to a
//!     full queue runs itself, go before.
//! 12. A wait keeps its word inside operations, too. Time limits hold, the first that ends is the
//!     first that is told, and nothing runs on the waiting thread: another thread works in its
//!     place meanwhile, beyond the number that was set.
//! 13. No code of others breaks it: panics in operations, destructors, callbacks, hooks and
//!     subscribers are contained, and when a shutdown returns, threads and callbacks have ended.
//!
//! # When not to use this crate
//!
//! - **Many small computations on data in memory**: [rayon](https://docs.rs/rayon). Its work
//!   stealing, parallel iterators and borrowing scopes are made for that. Here an operation is
//!   owned, `'static`, and worth a microsecond at least.
//! - **Tens of thousands of connections waiting at once**: [tokio](https://docs.rs/tokio). A
//!   blocked operation holds a thread here. If the program is async already, its `spawn_blocking`
//!   needs no second pool.
//! - **Three long-lived workers**: `std::thread`. A pool pays where operations are many, and want
//!   limits, order, results, time limits and an orderly end.
//! - **Work that must survive the process**: not an [`Executor`], but a durable queue: features
//!   `sqlite` and `postgres`, chapter `tasks`.
//!
//! # Features
//!
//! - `default`: `openeo` and `pairs`, and what they need: `http` and `json`.
//! - `json`: named operations, with `serde_json::Value` arguments and results (`Store`).
//! - `pairs`: a client of IBM PAIRS, also known as Environmental Intelligence Geospatial: queries,
//!   one by one or in batches.
//! - `progress`: progress of a batch, drawn on standard error: bars on a terminal, plain lines
//!   elsewhere.
//! - `openeo`: a client of openEO back-ends: batch jobs from the process graph to the files, one by
//!   one or many at once (`client::openeo`).
//! - `http`: HTTP for blocking clients: kept connections, time limits, retries, expiring tokens,
//!   rate limits, downloads that arrive whole (`client::http`).
//! - `postgres`: durable tasks on a PostgreSQL server, shared by many machines; compiles its client
//!   library in. For Unix.
//! - `cron`: schedules by cron expressions in time zones, for durable tasks.
//! - `postgres-tls`: TLS for the connections to PostgreSQL, by the system's OpenSSL, whose headers
//!   the build needs.
//! - `sqlite`: durable tasks on SQLite, compiled in: a queue in one file that survives a crash, for
//!   the processes of one machine.
//! - `tasks`: durable tasks: types, handlers and workers, without a database; `sqlite` and
//!   `postgres` bring one.
//! - `tracing`: spans for the stages of every request (deferred, queued, running), through the
//!   `tracing` facade.
//!
//! Without any, the crate depends on `concurrent-queue`, `crossbeam-channel`, `crossbeam-utils`,
//! `parking_lot` and `thiserror`, and on no async runtime under any.
//!
//! # The way into the code
//!
//! `docs/architecture.md` has the picture, and the life of a request, of a remote job and of a task
//! with the files that they pass; `docs/glossary.md` says what each word means.

#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod backoff;
pub mod batch;
#[cfg(all(feature = "sqlite", any(feature = "openeo", feature = "pairs")))]
pub mod campaign;
#[cfg(feature = "http")]
pub mod client;
#[cfg(all(any(feature = "sqlite", feature = "postgres"), not(loom)))]
mod combine;
#[cfg(loom)]
#[doc(hidden)]
pub mod combine;
mod error;
mod executor;
mod lanes;
mod panics;
pub mod pipeline;
pub mod queue;
mod sync;
#[cfg(feature = "tasks")]
pub mod tasks;
mod time;
#[cfg(not(loom))]
mod timer;
#[cfg(loom)]
#[doc(hidden)]
pub mod timer;
mod trace;

/// The README's code is compiled and run with the examples of the documentation. It shows the
/// clients and the tasks as well.
#[cfg(all(doctest, feature = "openeo", feature = "pairs", feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Its `select!` takes what [`AsyncRequest::done`], [`RequestSet::receiver`] and the halves of a
/// [`queue`] give, and `tick` needs no thread.
pub use crossbeam_channel;
pub use error::{BoxError, Error, Result};
#[cfg(feature = "json")]
pub use executor::Store;
pub use executor::{
    Args, AsyncRequest, Builder, CallbackHandle, CancelHook, Executor, Group, GroupStats, Handles, Infallible,
    IntoOutput, Keyed, Kind, Lend, OnFull, Operation, PerThread, Periodic, Policy, RequestSet, Stats, Status, Through,
    TimeLimits, as_completed, async_await_termination, async_reset_pool, async_shutdown, async_submit,
    async_total_requests, async_wait_any_request, async_wait_request, async_wait_requests, detached, infallible,
    is_cancelled, keyed, keyless, on_cancel, remaining, shield, sleep, wait_all, wait_each,
};
pub use executor::{Limit, Map, MapCompleted, Priority};
#[cfg(not(any(loom, shuttle)))]
pub use executor::{Scope, ScopedRequest, scope};
