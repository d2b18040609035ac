//! The queue in numbers.

use std::time::Duration;

use super::status::TaskStatus;

/// A snapshot of a queue, on all machines together.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QueueStats {
    /// One entry for each registered type, by name.
    pub types: Vec<TypeStats>,
    /// How many tasks may wait; `None` means no limit.
    pub capacity: Option<u64>,
    /// Whether all types are [paused](super::TaskQueue::pause).
    pub paused: bool,
    /// What needs an operator's attention, in words, such as a foreign transaction that keeps the
    /// database from cleaning up.
    pub warnings: Vec<String>,
}

/// What to say of a capacity in the database that is no number of tasks. The SQL function says it,
/// too.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const SENSELESS_CAPACITY: &str =
    "the queue's capacity makes no sense in the database: set it anew with `set_capacity`";

/// How many may wait isn't known, so that no more are taken.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) fn senseless_capacity() -> super::error::TaskError {
    super::error::TaskError::Database { doing: "reading the capacity", source: SENSELESS_CAPACITY.into() }
}

/// The tasks of one type.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TypeStats {
    /// The type's name.
    pub name: String,
    /// How many tasks stand where, in the order of [`TaskStatus`]: ended ones until they are
    /// deleted.
    pub(super) counts: [u64; 7],
    /// How long the oldest task that could start now has been waiting, counted from when it could.
    pub oldest_ready: Option<Duration>,
    /// How many ended in the last 60 s.
    pub ended_last_minute: u64,
    /// Whether no worker takes its tasks, because the type is
    /// [paused](super::TaskQueue::pause_type), or all are.
    pub paused: bool,
}

impl TypeStats {
    /// How many tasks of the type stand at `status`.
    pub fn count(&self, status: TaskStatus) -> u64 {
        self.counts[status as usize]
    }
}

impl QueueStats {
    /// How many tasks of all types stand at `status`.
    pub fn count(&self, status: TaskStatus) -> u64 {
        self.types.iter().map(|of_type| of_type.count(status)).sum()
    }

    /// How many tasks there are.
    pub fn total(&self) -> u64 {
        TaskStatus::ALL.iter().map(|&status| self.count(status)).sum()
    }

    /// How many tasks have not ended.
    pub fn depth(&self) -> u64 {
        TaskStatus::ALL.iter().filter(|status| !status.is_ended()).map(|&status| self.count(status)).sum()
    }

    /// How long the oldest task that could start now has been waiting.
    pub fn oldest_ready(&self) -> Option<Duration> {
        self.types.iter().filter_map(|of_type| of_type.oldest_ready).max()
    }
}
