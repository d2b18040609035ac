//! Durable tasks: a queue that survives a crash, for many workers.

// Without an engine there is nothing to open, and half of this lies idle.
#![cfg_attr(not(feature = "sqlite"), allow(dead_code))]

mod bell;
mod caller;
mod claim;
mod engine;
mod error;
mod handle;
mod handler;
mod maintenance;
mod new_task;
mod queue;
mod retry;
mod schema;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;
mod status;
mod store;
mod task_type;
mod worker;
mod worker_id;

pub use caller::{Acceptable, CallersTransaction};
pub use claim::Claim;
pub use error::{Result, TaskError};
pub use handle::TaskHandle;
pub use handler::{Handler, TaskContext};
pub use maintenance::Tidied;
pub use new_task::{LARGEST_PAYLOAD, NewTask};
pub use queue::{QueueBuilder, TaskQueue};
pub use retry::RetryPolicy;
/// The crate whose connections [`TaskQueue::enqueue_in`] takes.
#[cfg(feature = "sqlite")]
pub use rusqlite;
#[cfg(feature = "sqlite")]
pub use sqlite::Durability;
pub use stats::{QueueStats, TypeStats};
pub use status::{LogEntry, Response, TaskInfo, TaskStatus};
pub use store::DurableRequest;
pub use task_type::TaskType;
pub use worker::{Worker, WorkerBuilder, WorkerStats};
pub use worker_id::WorkerId;
