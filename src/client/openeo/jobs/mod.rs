//! Batch jobs, one by one: from the process graph to the end of the job.

pub(super) mod change;
pub(super) mod create;
pub(super) mod graph;
pub(super) mod job;
pub(super) mod list;
pub(super) mod logs;
pub(super) mod new_job;
pub(super) mod start;
mod validation;
pub(super) mod wait;
pub(super) mod wait_many;
pub(super) mod wait_options;
