//! What is known of a task: where it stands, what happened to it, what it gave.

use std::fmt;
use std::time::SystemTime;

use super::error::{Result, TaskError};

/// Where a task stands.
///
/// ```text
/// enqueue -> Accepted --claim--> Scheduled --start--> Running --finish--> Finished
///              ^  ^ ^               |                 | | | \--fail----> Failed
///              |  | \--given back---/                 | | |
///              |  \-------failed, to be retried-------/ | \--pause--> Paused --claim, in time--> Scheduled
///              \----------lease or time limit lost------/ (restart limit reached: Failed)
///
/// Accepted | Scheduled | Paused --cancel--> Cancelled      Running --cancel--> told, then Cancelled or Finished
/// ```
/// Only the worker whose fence token the task bears leaves `Scheduled` and `Running`, or the reaper
/// once the lease is over. `Finished` never changes again; `Failed` and `Cancelled` only if the
/// task is [retried](super::TaskQueue::retry), which makes it `Accepted` once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TaskStatus {
    /// In the queue, or waiting there for its time, its place in the order of its key, or its next
    /// attempt.
    Accepted,
    /// A worker has taken it, and will start it.
    Scheduled,
    /// Its handler is at work.
    Running,
    /// Its handler gave its thread back, and named when to go on.
    Paused,
    /// Its handler returned well.
    Finished,
    /// Its handler failed, or too many workers were lost with it.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl TaskStatus {
    pub(super) const ALL: [TaskStatus; 7] = [
        TaskStatus::Accepted,
        TaskStatus::Scheduled,
        TaskStatus::Running,
        TaskStatus::Paused,
        TaskStatus::Finished,
        TaskStatus::Failed,
        TaskStatus::Cancelled,
    ];

    /// Whether it is final.
    pub fn is_ended(self) -> bool {
        matches!(self, TaskStatus::Finished | TaskStatus::Failed | TaskStatus::Cancelled)
    }

    /// Its number in the database, which stays as it is: files of earlier versions have it.
    pub(super) fn code(self) -> i64 {
        self as i64
    }

    pub(super) fn from_code(code: i64) -> Result<TaskStatus> {
        let known = usize::try_from(code).ok().and_then(|code| TaskStatus::ALL.get(code).copied());
        known.ok_or_else(|| TaskError::Database {
            doing: "reading a status",
            source: format!("there is no status {code}").into(),
        })
    }
}

impl fmt::Display for TaskStatus {
    /// In capitals, as in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            TaskStatus::Accepted => "ACCEPTED",
            TaskStatus::Scheduled => "SCHEDULED",
            TaskStatus::Running => "RUNNING",
            TaskStatus::Paused => "PAUSED",
            TaskStatus::Finished => "FINISHED",
            TaskStatus::Failed => "FAILED",
            TaskStatus::Cancelled => "CANCELLED",
        })
    }
}

/// All that is known of one task, but for what it carries.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TaskInfo {
    /// Its number, which no other task of the database ever has.
    pub id: i64,
    /// Its type.
    pub task_type: String,
    /// Its identifier, unique within the type.
    pub identifier: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Higher ones start first.
    pub priority: i16,
    /// How many attempts have started, those after a pause included.
    pub starts: u32,
    /// How many attempts failed since it paused last.
    pub failures: u32,
    /// How many attempts were lost with their worker, or passed the time limit, since it paused
    /// last.
    pub lost: u32,
    /// From 0 to 1, as its handler said last.
    pub progress: f32,
    /// Its cancellation was asked for while it ran.
    pub cancel_requested: bool,
    /// The key of its order, if it has one.
    pub key: Option<String>,
    /// Whether it runs alone on its key.
    pub is_modifier: bool,
    /// When it was accepted, by the database's clock.
    pub created: SystemTime,
    /// It starts no earlier, by the database's clock.
    pub run_at: SystemTime,
    /// When it ended.
    pub ended: Option<SystemTime>,
    /// What its log says last, if it says something and no worker holds the task: of one that
    /// failed, or waits for another attempt, why.
    pub message: Option<String>,
}

/// One change of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEntry {
    /// When, by the database's clock.
    pub time: SystemTime,
    /// Where the task stood then.
    pub status: TaskStatus,
    /// What was said about it.
    pub message: String,
}

/// What a handler stored for the program that asked for the task.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The media type, such as `application/json`.
    pub media_type: String,
    /// The response itself.
    pub body: Vec<u8>,
}

impl Response {
    /// The response as text.
    ///
    /// # Errors
    /// [`TaskError::Invalid`] if it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).map_err(|_| {
            TaskError::Invalid(format!("the response of type `{}` is not text: use its bytes", self.media_type))
        })
    }

    /// The response read as JSON.
    ///
    /// # Errors
    /// [`TaskError::Invalid`] if it is none, or of another shape.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| TaskError::Invalid(format!("the response is not the JSON that was asked for: {error}")))
    }
}

impl fmt::Debug for Response {
    /// Without the body, which may be large or secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("media_type", &self.media_type).field("bytes", &self.body.len()).finish()
    }
}
