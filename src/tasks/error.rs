//! What can go wrong with durable tasks, typed, with the remedy in the text.

use std::path::PathBuf;
use std::time::Duration;

use super::status::TaskStatus;
use crate::error::{BoxError, Error};

/// The result of this room.
pub type Result<T, E = TaskError> = std::result::Result<T, E>;

/// Why an operation on a [`TaskQueue`](super::TaskQueue) failed.
///
/// `?` turns it into [`fulmar::Error::Operation`](crate::Error::Operation), whose
/// [`operation`](crate::Error::operation) gives it back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// As many tasks wait as the queue's capacity allows. Nothing was accepted: try again later.
    #[error("the queue is full: {capacity} tasks are waiting; try again when some have started")]
    QueueFull {
        /// The capacity.
        capacity: u64,
    },

    /// A task of this type has this identifier already. Nothing was accepted.
    #[error("a task `{identifier}` of type `{task_type}` exists; use another identifier, or delete it first")]
    Duplicate {
        /// The task's type.
        task_type: String,
        /// Its identifier.
        identifier: String,
    },

    /// There is no such task: it was never accepted, was deleted, or has outlived its retention.
    #[error("there is no task `{identifier}` of type `{task_type}`")]
    NotFound {
        /// The type that was asked for.
        task_type: String,
        /// The identifier that was asked for.
        identifier: String,
    },

    /// No such type is registered.
    #[error("the task type `{0}` is not registered; register it first")]
    UnknownType(String),

    /// There is no schedule of this name.
    #[error("there is no schedule `{0}`; put it first")]
    UnknownSchedule(String),

    /// The type still has tasks, so it was not unregistered.
    #[error("{tasks} tasks of type `{task_type}` exist; delete them, or unregister by force")]
    InUse {
        /// The type.
        task_type: String,
        /// How many tasks it has.
        tasks: u64,
    },

    /// A worker holds the task, so it was not deleted.
    #[error("a worker holds the task `{identifier}` of type `{task_type}`; cancel it and wait for its end")]
    Held {
        /// The task's type.
        task_type: String,
        /// Its identifier.
        identifier: String,
    },

    /// The task stands where that can't be done. Nothing was changed.
    #[error("the task `{identifier}` of type `{task_type}` is {status}, where it can't be {what}")]
    WrongStatus {
        /// The task's type.
        task_type: String,
        /// Its identifier.
        identifier: String,
        /// Where it stands.
        status: TaskStatus,
        /// What was asked for.
        what: &'static str,
    },

    /// The worker no longer holds this attempt: its lease ran out, its time limit passed, or the
    /// task was deleted. Nothing was written; stop working on it.
    #[error("this worker has lost its lease on task {task}; nothing was written, stop working on it")]
    Stale {
        /// The task's number.
        task: i64,
    },

    /// Something is larger than a task may carry. Nothing was written.
    #[error("the {what} has {bytes} bytes, and at most {limit} are allowed; store it elsewhere and pass its name")]
    TooLarge {
        /// `input`, `response` or `checkpoint`.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The largest size.
        limit: u64,
    },

    /// An argument makes no sense; the text names it and the remedy.
    #[error("{0}")]
    Invalid(String),

    /// The queue's engine knows no such option. Nothing was opened.
    #[error("a queue on {engine} has no option `{option}`; leave it out there")]
    OptionOfOther {
        /// The builder's method.
        option: &'static str,
        /// The engine that was to be opened.
        engine: &'static str,
    },

    /// The task ended without a result.
    #[error("the task ended without a result: {reason}")]
    Failed {
        /// What its log says last.
        reason: String,
    },

    /// The task was cancelled.
    #[error("the task was cancelled")]
    Cancelled,

    /// The time limit of a wait passed. Nothing was cancelled: wait again.
    #[error("timed out after {limit:?}; nothing was cancelled, wait again or cancel")]
    Timeout {
        /// The limit that passed.
        limit: Duration,
        /// How much was unfinished.
        left: u64,
    },

    /// The operation that waits here was cancelled before the wait was over. What it waits for goes
    /// on.
    #[error("the operation that waits was cancelled; the task goes on, wait for it elsewhere or in `shield`")]
    Interrupted,

    /// A newer version of this program has opened the database. Nothing was changed.
    #[error("the database has schema {found}, and this program knows {known}; use a newer program")]
    SchemaTooNew {
        /// What the database has.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },

    /// A queue that was opened [read-only](super::QueueBuilder::read_only) has an older schema,
    /// which only a program that may write can bring up to date.
    #[error("the database has schema {found}, and this program reads {known}; open it once to write")]
    SchemaTooOld {
        /// What the database has.
        found: i64,
        /// What is known here.
        known: i64,
    },

    /// There is no queue to open, and none was to be made.
    #[error("there is no queue in `{place}`; check its name, or create the queue first")]
    NoQueue {
        /// The file, or the schema of a server's database.
        place: String,
    },

    /// The queue was opened to be looked at.
    #[error("the queue was opened read-only; nothing was changed")]
    ReadOnly,

    /// Tasks could not be written out or read in.
    #[error("{doing} failed")]
    Transfer {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: BoxError,
    },

    /// The file lies where SQLite's shared memory does not work, and a database would be corrupted.
    #[error("`{}` lies on a network file system ({kind}), where SQLite corrupts; use a local disk, or PostgreSQL", path.display())]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
        /// The kind of file system.
        kind: String,
    },

    /// A file of the database was moved, removed or replaced while it was open. Nothing was
    /// written: what is written there from now on, no process would find again.
    #[error("`{}` was moved, removed or replaced while it was open; nothing was written, put it back, or open the queue anew", path.display())]
    FileReplaced {
        /// The database, or the log or shared memory beside it.
        path: PathBuf,
    },

    /// Another process has been writing all this time, or was stopped while it wrote. Nothing was
    /// written: try again.
    #[error("another process has held the database for {waited:?}; nothing was written, try again")]
    Busy {
        /// How long was waited.
        waited: Duration,
    },

    /// The disk, or the database's largest size, is full. Nothing was written.
    #[error("no space is left for the database while {doing}; nothing was written, make room and try again")]
    DiskFull {
        /// What was tried.
        doing: &'static str,
        /// What the database said.
        source: BoxError,
    },

    /// The database can't be reached now. Whether a change was written is unknown; try again.
    #[error("the database can't be reached while {doing}")]
    Unreachable {
        /// What was tried.
        doing: &'static str,
        /// What was seen.
        source: BoxError,
    },

    /// The database, or what was read from it, is at fault.
    #[error("the database failed while {doing}")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: BoxError,
    },

    /// A durable function has to wait. Return this error with `?`: the task is paused, and runs
    /// again when what it waits for is there.
    #[error("the function has to wait; return this error with `?`")]
    Paused,

    /// A step of a durable function failed.
    #[error("the step `{step}` failed")]
    Step {
        /// Its name.
        step: String,
        /// The step's own error.
        source: BoxError,
    },

    /// The stored steps of a durable function are not those that its code asks for. No closure was
    /// run.
    #[error("the code of the function has changed: {stored}, but {asked}; let old runs keep old code with `patch`")]
    CodeChanged {
        /// What is stored.
        stored: String,
        /// What the code asked for.
        asked: String,
    },

    /// A child of a durable function ended without a result.
    #[error("the child `{identifier}` of type `{task_type}` ended without a result: {reason}")]
    Child {
        /// The child's type.
        task_type: String,
        /// Its identifier.
        identifier: String,
        /// What its log says last.
        reason: String,
    },

    /// The executor that the worker runs on gave an error.
    #[error("the worker's executor failed")]
    Executor(#[source] Box<Error>),
}

impl TaskError {
    /// Whether the same call may succeed later with nothing else changed.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            TaskError::QueueFull { .. }
                | TaskError::Timeout { .. }
                | TaskError::Busy { .. }
                | TaskError::DiskFull { .. }
                | TaskError::Unreachable { .. }
        )
    }

    /// Whether the database could not do what was asked for now, whatever that was.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, TaskError::Busy { .. } | TaskError::DiskFull { .. } | TaskError::Unreachable { .. })
    }

    /// Whether this worker has lost the task.
    pub fn is_stale(&self) -> bool {
        matches!(self, TaskError::Stale { .. })
    }
}

impl From<TaskError> for Error {
    fn from(error: TaskError) -> Error {
        Error::Operation(error.into())
    }
}

impl From<Error> for TaskError {
    fn from(error: Error) -> TaskError {
        TaskError::Executor(Box::new(error))
    }
}
