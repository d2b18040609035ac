//! Many jobs on other people's machines, a window of them in flight at a time, and no thread that sleeps.
//!
//! A remote job is [submitted, polled until it is ready, and its result fetched](RemoteJob). Here that is a state machine:
//! each step is one call on a thread of an [`Executor`](crate::Executor), and between two steps a job is an entry in a heap.
//! Eight threads carry ten thousand jobs in flight.
//!
//! ```text
//!  jobs ──▶ waiting ──▶│ window: submit ▸ poll ▸ .. ▸ poll ▸ fetch │──▶ report, in input order
//!                      │   steps on `at_once` threads at most      │
//!                      │   between steps: asleep until their time  │
//! ```
//!
//! - **Window, threads and polls are separate**: how many jobs are in flight ([`window`](BatchRunnerBuilder::window)), how many
//!   steps are at work ([`at_once`](BatchRunnerBuilder::at_once)), how often each job is asked about
//!   ([`poll`](BatchRunnerBuilder::poll)).
//! - **One failure never touches another job.** Soft errors are tried again with backoff; the report has every job, in input
//!   order, with its result or its error.
//! - **Time limits** for one job and for the whole; [`Batch::cancel`] stops what is in flight where the service can.
//! - **Events** as they happen ([`on_event`](BatchRunnerBuilder::on_event)), counters at any time ([`Batch::stats`]).
//!
//! Any number of batches share one executor. See [`RemoteJob`] for an example.

mod context;
mod event;
mod job;
#[cfg(feature = "progress")]
mod progress;
mod report;
mod run;
mod runner;
mod window;

pub use context::Context;
pub use event::{BatchStats, Event, EventKind};
pub use job::{JobError, Poll, RemoteJob, Stage, Submitted};
pub use report::{Attempts, BatchReport, JobFailure, JobReport, StopReason};
pub use run::Batch;
pub use runner::{BatchRunner, BatchRunnerBuilder};
