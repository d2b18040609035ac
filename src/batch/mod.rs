//! Runs many jobs on other machines, with a limited number of them in flight, and without a thread
//! for each.
//!
//! A remote job is [submitted, polled until it is ready, and its result is fetched](RemoteJob).
//! Here a job is a state machine: each step is one call on a thread of an
//! [`Executor`](crate::Executor), and between two steps the job is only an entry in a heap. Eight
//! threads carry ten thousand jobs in flight.
//!
//! ```text
//!  jobs ──▶ waiting ──▶│ window: submit ▸ poll ▸ .. ▸ poll ▸ fetch │──▶ report, in input order
//!                      │   steps on `max_concurrent` threads at most      │
//!                      │   between steps: asleep until their time  │
//! ```
//!
//! - **Window, threads and polls are separate settings**: how many jobs are in flight
//!   ([`window`](BatchRunnerBuilder::window)), how many steps run at once
//!   ([`max_concurrent`](BatchRunnerBuilder::max_concurrent)), and how often each job is polled
//!   ([`poll`](BatchRunnerBuilder::poll)).
//! - **One failure never affects another job.** A step that fails with a temporary error is called
//!   again after a backoff. The report has every job, in input order, with its result or its error.
//! - **Time limits** for each job and for the whole batch. They, and [`Batch::cancel`], interrupt
//!   the step at work and cancel the job, if the service can do that.
//! - **Events** as they happen ([`on_event`](BatchRunnerBuilder::on_event)), and counters at any
//!   time ([`Batch::stats`]).
//!
//! Any number of batches share one executor. See [`RemoteJob`] for an example.

mod context;
mod event;
mod handle;
mod job;
#[cfg(feature = "progress")]
mod progress;
mod report;
mod run;
mod runner;
mod window;

pub use context::Context;
pub use event::{BatchStats, Event, EventKind};
pub use handle::Batch;
pub use job::{JobError, Poll, RemoteJob, Stage, Submitted};
pub use report::{Attempts, BatchReport, JobFailure, JobReport, StopReason};
pub use runner::{BatchRunner, BatchRunnerBuilder};
