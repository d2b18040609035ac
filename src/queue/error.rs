//! The errors of the queue: one small type for each method. A put that fails returns its value in
//! the error.

use std::fmt;

/// Why [`put`](super::Producer::put) took nothing in. The value comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PutError<T> {
    /// The queue is closed.
    Closed(T),
    /// There was no room, and the operation that puts was cancelled, or its time limit passed.
    Interrupted(T),
}

/// Why [`try_put`](super::Producer::try_put) took nothing in. The value comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryPutError<T> {
    /// There is no room now.
    Full(T),
    /// There never will be: the queue is closed.
    Closed(T),
}

/// Why [`put_timeout`](super::Producer::put_timeout) took nothing in. The value comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PutTimeoutError<T> {
    /// There was no room in time.
    Timeout(T),
    /// There never will be: the queue is closed.
    Closed(T),
    /// There was no room, and the operation that puts was cancelled, or its own time limit passed.
    Interrupted(T),
}

/// Why [`get`](super::Consumer::get) gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    /// The queue is closed, and nothing is left in it.
    #[error("the queue is closed and nothing is left in it")]
    Closed,
    /// There was no value, and the operation that gets was cancelled, or its time limit passed.
    #[error("the queue is empty, and the operation that waits was cancelled")]
    Interrupted,
}

/// Why [`try_get`](super::Consumer::try_get) gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryGetError {
    /// There is no value now.
    #[error("the queue is empty")]
    Empty,
    /// There never will be: the queue is closed, and nothing is left in it.
    #[error("the queue is closed and nothing is left in it")]
    Closed,
}

/// Why [`get_timeout`](super::Consumer::get_timeout) gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GetTimeoutError {
    /// No value came in time.
    #[error("the queue stayed empty until the time limit")]
    Timeout,
    /// There never will be one: the queue is closed, and nothing is left in it.
    #[error("the queue is closed and nothing is left in it")]
    Closed,
    /// There was no value, and the operation that gets was cancelled, or its own time limit passed.
    #[error("the queue is empty, and the operation that waits was cancelled")]
    Interrupted,
}

impl<T> PutError<T> {
    /// The value that was not taken in.
    pub fn into_inner(self) -> T {
        match self {
            PutError::Closed(value) | PutError::Interrupted(value) => value,
        }
    }

    /// Whether the operation that puts was cancelled; otherwise the queue is closed.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, PutError::Interrupted(_))
    }
}

impl<T> TryPutError<T> {
    /// The value that was not taken in.
    pub fn into_inner(self) -> T {
        match self {
            TryPutError::Full(value) | TryPutError::Closed(value) => value,
        }
    }

    /// Whether there may be room later.
    pub fn is_full(&self) -> bool {
        matches!(self, TryPutError::Full(_))
    }
}

impl<T> PutTimeoutError<T> {
    /// The value that was not taken in.
    pub fn into_inner(self) -> T {
        match self {
            PutTimeoutError::Timeout(value) | PutTimeoutError::Closed(value) | PutTimeoutError::Interrupted(value) => {
                value
            }
        }
    }

    /// Whether the time limit of the call passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, PutTimeoutError::Timeout(_))
    }
}

const CLOSED: &str = "the queue is closed and takes no more values";
const INTERRUPTED: &str = "the queue is full, and the operation that waits was cancelled";

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutError::Closed(_) => CLOSED,
            PutError::Interrupted(_) => INTERRUPTED,
        })
    }
}

impl<T> fmt::Display for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryPutError::Full(_) => "the queue is full",
            TryPutError::Closed(_) => CLOSED,
        })
    }
}

impl<T> fmt::Display for PutTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutTimeoutError::Timeout(_) => "the queue stayed full until the time limit",
            PutTimeoutError::Closed(_) => CLOSED,
            PutTimeoutError::Interrupted(_) => INTERRUPTED,
        })
    }
}

// By hand, because a derive would ask that values can be printed.
impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_interrupted() { "Interrupted(..)" } else { "Closed(..)" })
    }
}

impl<T> fmt::Debug for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full() { "Full(..)" } else { "Closed(..)" })
    }
}

impl<T> fmt::Debug for PutTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutTimeoutError::Timeout(_) => "Timeout(..)",
            PutTimeoutError::Closed(_) => "Closed(..)",
            PutTimeoutError::Interrupted(_) => "Interrupted(..)",
        })
    }
}

impl<T> std::error::Error for PutError<T> {}
impl<T> std::error::Error for TryPutError<T> {}
impl<T> std::error::Error for PutTimeoutError<T> {}
