//! What works at both ends of a [bounded queue](crate::queue): submitters on a cadence, and processors on an executor; and
//! pipelines, whose stages have such a queue between them.
//!
//! Promises: every value that a submitter offers is either put or dropped, and counted so; every value that a processor
//! takes is handled, once, whatever is stopped, closed or shut down meanwhile; a panic in code of users is counted and
//! goes nowhere; each has one thread of its own, named after it (`submitter-1`, `processor-1`), so a put that waits holds
//! no thread of an executor; none polls.
//!
//! Their ids are small numbers, each one larger than the last of its kind on the same queue: enough to tell them apart in
//! a log, and easier to read there than a UUID, which would say no more.

mod cadence;
mod calls;
mod control;
mod failure;
mod pipeline;
mod processor;
mod submitter;

pub use failure::Failure;
pub use pipeline::{Pipeline, PipelineBuilder};
pub use processor::{Processor, ProcessorBuilder, ProcessorStats};
pub use submitter::{Dropped, PeriodicSubmitter, SubmitterBuilder, SubmitterStats};
