//! A task as its producer describes it.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::engine::TaskRef;
use super::error::{Result, TaskError};
use super::task_type::check_name;
use super::unique::{CheckedUnique, Unique};
use super::worker_id::random_name;

/// The largest input, response or checkpoint: 64 MiB.
pub const LARGEST_PAYLOAD: usize = 64 << 20;

/// The longest message of a log entry, in bytes; what goes beyond is cut off.
const LONGEST_MESSAGE: usize = 8 << 10;

/// A task to be enqueued.
///
/// ```
/// use fulmar::tasks::NewTask;
/// use std::time::Duration;
///
/// let task = NewTask::new("SequenceSum", "Task001")
///     .input(&[1, 2, 3, 4, 5])
///     .message("from the guide")
///     .priority(10)
///     .run_after(Duration::from_secs(60));
/// assert_eq!(task.identifier(), "Task001");
/// ```
#[derive(Clone)]
#[must_use = "a task does nothing until it is enqueued"]
pub struct NewTask {
    pub(super) task_type: String,
    pub(super) identifier: String,
    pub(super) input: Result<Vec<u8>, Unwritten>,
    pub(super) message: String,
    pub(super) priority: i16,
    pub(super) start: Start,
    pub(super) key: Option<String>,
    pub(super) is_modifier: bool,
    pub(super) unique: Option<Unique>,
    pub(super) context: Option<String>,
}

/// When a task may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    After(Duration),
    At(SystemTime),
}

impl NewTask {
    /// A task with an input of JSON `null`, of priority 0, that may start at once.
    pub fn new(task_type: impl Into<String>, identifier: impl Into<String>) -> NewTask {
        NewTask {
            task_type: task_type.into(),
            identifier: identifier.into(),
            input: Ok(b"null".into()),
            message: String::new(),
            priority: 0,
            start: Start::After(Duration::ZERO),
            key: None,
            is_modifier: false,
            unique: None,
            context: None,
        }
    }

    /// As [`new`](NewTask::new), with an identifier of chance, which no other task has.
    pub fn unnamed(task_type: impl Into<String>) -> NewTask {
        NewTask::new(task_type, random_name())
    }

    /// What the handler gets, as JSON. A value that can't be written as JSON is an error of the
    /// enqueuing.
    pub fn input(mut self, input: &(impl Serialize + ?Sized)) -> NewTask {
        self.input = to_json(input);
        self
    }

    /// What the handler gets, as it is.
    pub fn input_bytes(mut self, input: impl Into<Vec<u8>>) -> NewTask {
        self.input = Ok(input.into());
        self
    }

    /// The first message of the task's log. Defaults to none.
    pub fn message(mut self, message: impl Into<String>) -> NewTask {
        self.message = message.into();
        self
    }

    /// Higher ones start first, equal ones in the order of their acceptance. Defaults to 0.
    pub fn priority(mut self, priority: i16) -> NewTask {
        self.priority = priority;
        self
    }

    /// Starts no earlier than `delay` after it was accepted, by the database's clock. Defaults to
    /// zero.
    pub fn run_after(mut self, delay: Duration) -> NewTask {
        self.start = Start::After(delay);
        self
    }

    /// Starts no earlier than `time`, by the database's clock.
    pub fn run_at(mut self, time: SystemTime) -> NewTask {
        self.start = Start::At(time);
        self
    }

    /// Keeps the order of `key` among the tasks of this type, on all machines: accessors share, a
    /// modifier runs alone, and no task overtakes an earlier one that it clashes with. A task keeps
    /// its place until it has ended, while it is paused, waits for its time or its next attempt,
    /// too. Defaults to no order.
    pub fn ordered(mut self, key: impl Into<String>, is_modifier: bool) -> NewTask {
        self.key = Some(key.into());
        self.is_modifier = is_modifier;
        self
    }

    /// Is enough once: if another task of the type with the same key is there, that stands for this
    /// one. Defaults to none but the identifier.
    pub fn unique(mut self, unique: Unique) -> NewTask {
        self.unique = Some(unique);
        self
    }

    /// The context of the program that enqueues it, such as W3C's `traceparent`, at most 512 bytes:
    /// its handler gets it ([`TaskContext::trace_context`](super::TaskContext::trace_context)).
    /// Defaults to what [`QueueBuilder::trace_context`](super::QueueBuilder::trace_context) gives.
    pub fn trace_context(mut self, context: impl Into<String>) -> NewTask {
        self.context = Some(context.into());
        self
    }

    /// The type that was given.
    pub fn task_type(&self) -> &str {
        &self.task_type
    }

    /// The identifier that was given.
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// Checked at the door, so that engines see only what they can store. The SQL function
    /// `fulmar_enqueue` says the same: a test compares all ways in, `tests/tasks/ways_in.rs`.
    pub(super) fn checked(self) -> Result<Checked> {
        check_name("the name of a task type", &self.task_type)?;
        check_name("the identifier of a task", &self.identifier)?;
        if let Some(key) = self.key.as_deref().filter(|key| !key.is_empty()) {
            check_name("the key of a task's order", key)?;
        }
        let input =
            self.input.map_err(|why| why.error("input", &format!("the input of task `{}`", self.identifier)))?;
        check_size("input", &input)?;
        if let Some(context) = &self.context {
            check_name("the context of a task", context)?;
        }
        let unique = self.unique.map(|unique| unique.checked(&input)).transpose()?;
        Ok(Checked {
            task_type: self.task_type,
            identifier: self.identifier,
            input,
            message: clean(&self.message),
            priority: self.priority,
            start: self.start,
            key: self.key,
            is_modifier: self.is_modifier,
            unique,
            context: self.context,
        })
    }
}

impl fmt::Debug for NewTask {
    /// Without the input, which may be large or secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewTask")
            .field("task_type", &self.task_type)
            .field("identifier", &self.identifier)
            .field("priority", &self.priority)
            .field("key", &self.key)
            .field("is_modifier", &self.is_modifier)
            .finish_non_exhaustive()
    }
}

/// A task that an engine may store as it is.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) task_type: String,
    pub(super) identifier: String,
    pub(super) input: Vec<u8>,
    pub(super) message: String,
    pub(super) priority: i16,
    pub(super) start: Start,
    pub(super) key: Option<String>,
    pub(super) is_modifier: bool,
    pub(super) unique: Option<CheckedUnique>,
    pub(super) context: Option<String>,
}

impl Checked {
    pub(super) fn name(&self) -> TaskRef {
        TaskRef { task_type: self.task_type.clone(), identifier: self.identifier.clone() }
    }
}

pub(super) fn check_size(what: &'static str, bytes: &[u8]) -> Result<()> {
    check_length(what, bytes.len() as u64)
}

pub(super) fn check_length(what: &'static str, bytes: u64) -> Result<()> {
    let limit = LARGEST_PAYLOAD as u64;
    if bytes > limit { Err(TaskError::TooLarge { what, bytes, limit }) } else { Ok(()) }
}

/// Why there is no JSON.
#[derive(Clone)]
pub(super) enum Unwritten {
    TooLarge(u64),
    Inexpressible(String),
}

impl Unwritten {
    /// Of a kind of payload, and of this very one.
    pub(super) fn error(self, what: &'static str, which: &str) -> TaskError {
        match self {
            Unwritten::TooLarge(bytes) => TaskError::TooLarge { what, bytes, limit: LARGEST_PAYLOAD as u64 },
            Unwritten::Inexpressible(why) => TaskError::Invalid(format!("{which} can't be written as JSON: {why}")),
        }
    }
}

/// A value as JSON. One that is too large is counted, and not kept.
pub(super) fn to_json(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, Unwritten> {
    let mut json = Bounded { kept: Vec::with_capacity(128), bytes: 0 };
    serde_json::to_writer(&mut json, value).map_err(|error| Unwritten::Inexpressible(error.to_string()))?;
    if json.bytes > LARGEST_PAYLOAD as u64 { Err(Unwritten::TooLarge(json.bytes)) } else { Ok(json.kept) }
}

/// Keeps what may be stored, and of all else the size.
struct Bounded {
    kept: Vec<u8>,
    bytes: u64,
}

impl Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.bytes = self.bytes.saturating_add(part.len() as u64);
        if self.bytes <= LARGEST_PAYLOAD as u64 {
            self.kept.extend_from_slice(part);
        } else {
            self.kept = Vec::new();
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message as every database can hold it: not endless, and without the character that PostgreSQL
/// refuses.
pub(super) fn clean(message: &str) -> String {
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < message.len() { " .." } else { "" };
    format!("{}{cut}", message[..end].replace('\0', "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_database_could_hold_is_refused_at_the_door() {
        let refused = |task: NewTask| matches!(task.checked(), Err(TaskError::Invalid(_)));
        assert!(refused(NewTask::new("", "a")));
        assert!(refused(NewTask::new("t", "")));
        assert!(refused(NewTask::new("t", "a\0b")));
        assert!(refused(NewTask::new("t", "x".repeat(513))));
        assert!(refused(NewTask::new("t", "a").ordered("k\n", true)));
        let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(refused(NewTask::new("t", "a").input(&unwritable)), "JSON has no such keys");
        assert!(!refused(NewTask::new("t", "x".repeat(512)).ordered("", true)), "the empty key is one as well");
    }

    #[test]
    fn what_is_too_large_is_counted_and_not_kept() {
        /// More text than a task may carry.
        struct Huge;
        impl Serialize for Huge {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq((0..66).map(|_| "x".repeat(1 << 20)))
            }
        }
        let refused = NewTask::new("t", "a").input(&Huge).checked().err().expect("too large");
        // Each with its quotes and a comma or bracket, and one bracket more.
        let size = 66 * ((1 << 20) + 3) + 1;
        assert!(matches!(refused, TaskError::TooLarge { what: "input", bytes, .. } if bytes == size), "{refused}");
        assert_eq!(to_json("fits").ok().expect("small"), b"\"fits\"");
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let long = clean(&"ü".repeat(10_000));
        assert!(long.len() <= LONGEST_MESSAGE + 3 && long.ends_with("ü .."));
        assert_eq!(clean("a\0b"), "a\u{fffd}b");
    }
}
