//! Threads at the ends of a [bounded queue](crate::queue): [`PeriodicSubmitter`] puts values on a
//! schedule, [`Processor`] has values handled on an executor, and [`Pipeline`] connects stages by
//! such queues.
//!
//! Promises: a submitter either puts or drops each value that it offers, and counts which. Each
//! value that a processor takes is handled once, even if the processor is stopped, the queue is
//! closed or the executor is shut down meanwhile. A panic in a user's code is contained and
//! counted. Each submitter and each processor has one thread of its own, named after it
//! (`submitter-1`, `processor-1`), so a put that waits for room holds no thread of an executor.
//! None of them polls.
//!
//! The id of a submitter or processor is one more than that of the last of its kind on the same
//! queue. That is enough to tell them apart in a log.

mod cadence;
mod calls;
mod control;
mod failure;
mod processor;
mod stages;
mod submitter;

pub use failure::Failure;
pub use processor::{Processor, ProcessorBuilder, ProcessorStats};
pub use stages::{Pipeline, PipelineBuilder};
pub use submitter::{Dropped, PeriodicSubmitter, SubmitterBuilder, SubmitterStats};
