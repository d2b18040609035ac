//! What can go wrong, said so that the reader knows what was tried and what to do.
//!
//! Errors of an operation keep their type: [`Error::Operation`] holds the original, to be downcast.

use std::fmt;
use std::io;
use std::time::Duration;

/// Any error of an operation, as it came.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a submission was refused, or why a wait gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The time limit passed first. Nothing was cancelled and every handle is still good: wait again, or cancel.
    #[error("timed out after {limit:?} with {left} unfinished; nothing was cancelled, wait again or cancel")]
    Timeout {
        /// The limit that passed.
        limit: Duration,
        /// How many requests were still unfinished; 0 if only threads were still ending. After a reset, how many old
        /// threads still were.
        left: u64,
    },

    /// The executor takes no new work, because `shutdown` was called. `reset` opens it again.
    #[error("the executor is shut down and takes no new requests; reset it to open it again")]
    ShutDown,

    /// The executor holds as many unstarted requests as its capacity allows. Nothing was accepted: try again later.
    #[error("the executor's queue is full; wait for a request to start, or build it with another `on_full`")]
    QueueFull,

    /// The request was cancelled before it started.
    #[error("the request was cancelled before it started")]
    Cancelled,

    /// The operation panicked, with this message. The thread that ran it lives on.
    #[error("the operation panicked: {0}")]
    Panicked(String),

    /// The operation returned this error, kept as it was: `downcast_ref` gives it back. It is the `source`, so `{}` does
    /// not repeat it; `{:#}` prints it with all of its own sources.
    #[error(fmt = operation)]
    Operation(#[source] BoxError),

    /// The result was taken before, by an earlier wait, `try_take` or `then`.
    #[error("the result of this request was taken before; a result is taken once")]
    ResultTaken,

    /// The request waited for can't start, or can't end, until the operation that waits for it has ended.
    #[error("waiting here would deadlock: the request can't end before the operation that waits for it")]
    WouldDeadlock,

    /// A setting or an argument makes no sense; the text names it and the remedy.
    #[error("{0}")]
    Invalid(String),

    /// The operating system refused to start a thread that is needed: the executor's first, and then nothing was accepted; or
    /// one that runs what an operation waits for, and then every handle is still good. Try again when others have ended.
    #[error("no thread could be started; try again, or allow the process more threads or memory")]
    Spawn(#[source] io::Error),
}

fn operation(error: &BoxError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the operation failed")?;
    let mut next: Option<&dyn std::error::Error> = f.alternate().then_some(&**error as _);
    while let Some(error) = next {
        write!(f, ": {error}")?;
        next = error.source();
    }
    Ok(())
}

impl Error {
    /// Whether a time limit passed. The request goes on, and its handle is still good.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }

    /// Whether the same call may succeed later with nothing else changed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Timeout { .. } | Error::QueueFull | Error::Spawn(_))
    }

    /// The error of the operation, if that is what this is and it has the type `E`.
    ///
    /// ```
    /// let error = fulmar::Error::Operation("no such symbol".parse::<u8>().unwrap_err().into());
    /// assert!(error.operation::<std::num::ParseIntError>().is_some());
    /// ```
    pub fn operation<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            Error::Operation(error) => error.downcast_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alternate_form_prints_the_chain_and_the_plain_one_does_not() {
        let inner = "x".parse::<u8>().expect_err("no number");
        let error = Error::Operation(Box::new(Error::Operation(inner.into())));
        assert_eq!(error.to_string(), "the operation failed");
        assert_eq!(format!("{error:#}"), "the operation failed: the operation failed: invalid digit found in string");
    }
}
