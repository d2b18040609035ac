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
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The time limit passed first. Nothing was cancelled and every handle is still good: wait again, or cancel.
    Timeout {
        /// The limit that passed.
        limit: Duration,
        /// How many requests were still unfinished; 0 if only threads were still ending. After a reset, how many old
        /// threads still were.
        left: u64,
    },

    /// The executor takes no new work, because `shutdown` was called. `reset` opens it again.
    ShutDown,

    /// The executor holds as many unstarted requests as its capacity allows. Nothing was accepted: try again later.
    QueueFull,

    /// The request was cancelled before it started. From [`sleep`](crate::sleep): the operation that sleeps was cancelled.
    Cancelled,

    /// The operation panicked, with this message. The thread that ran it lives on.
    Panicked(String),

    /// The operation returned this error, kept as it was: [`operation`](Error::operation) gives it back, and it is the
    /// [source](std::error::Error::source). `{}` prints it as well; `{:#}` prints it with all of its own sources.
    Operation(BoxError),

    /// The result was taken before, by an earlier wait, `try_take` or `then`.
    ResultTaken,

    /// The request waited for can't start, or can't end, until the operation that waits for it has ended.
    WouldDeadlock,

    /// A setting or an argument makes no sense; the text names it and the remedy.
    Invalid(String),

    /// The operating system refused to start a thread that is needed: the executor's first, and then nothing was accepted; or
    /// one that runs what an operation waits for, and then every handle is still good. Try again when others have ended.
    Spawn(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Timeout { limit, left } => write!(
                f,
                "timed out after {limit:?} with {left} unfinished; nothing was cancelled, wait again or cancel"
            ),
            Error::ShutDown => {
                f.write_str("the executor is shut down and takes no new requests; reset it to open it again")
            }
            Error::QueueFull => f.write_str(
                "the executor's queue is full; wait for a request to start, or build it with another `on_full`",
            ),
            Error::Cancelled => f.write_str("the request was cancelled"),
            Error::Panicked(message) => write!(f, "the operation panicked: {message}"),
            Error::Operation(error) if f.alternate() => write!(f, "the operation failed: {}", chain(&**error)),
            Error::Operation(error) => write!(f, "the operation failed: {error}"),
            Error::ResultTaken => f.write_str("the result of this request was taken before; a result is taken once"),
            Error::WouldDeadlock => {
                f.write_str("waiting here would deadlock: the request can't end before the operation that waits for it")
            }
            Error::Invalid(why) => f.write_str(why),
            Error::Spawn(_) => {
                f.write_str("no thread could be started; try again, or allow the process more threads or memory")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Operation(error) => Some(&**error),
            Error::Spawn(error) => Some(error),
            _ => None,
        }
    }
}

/// An error with its sources, in one line. Some errors print their source themselves, and some are their own: nothing is
/// repeated, and it ends after 16 sources.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    for _ in 0..16 {
        let Some(source) = next else { break };
        let words = source.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = source.source();
    }
    text
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
    fn the_text_says_why_and_a_chain_repeats_nothing() {
        let why = "x".parse::<u8>().expect_err("no number");
        let error = Error::Operation(Box::new(Error::Operation(why.into())));
        let text = "the operation failed: the operation failed: invalid digit found in string";
        assert_eq!((error.to_string(), format!("{error:#}"), chain(&error)), (text.into(), text.into(), text.into()));
        let error = Error::Operation(Error::Spawn(std::io::Error::other("no memory")).into());
        assert!(error.to_string().ends_with("threads or memory"), "{error}");
        assert!(format!("{error:#}").ends_with("threads or memory: no memory"), "{error:#}");
        let source = std::error::Error::source(&error).expect("the original");
        assert!(matches!(source.downcast_ref(), Some(Error::Spawn(_))), "{source}");
    }

    #[test]
    fn a_chain_that_never_ends_is_cut() {
        #[derive(Debug, thiserror::Error)]
        #[error("round")]
        struct Ring;
        #[derive(Debug)]
        struct Loop;
        impl fmt::Display for Loop {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("round and round")
            }
        }
        impl std::error::Error for Loop {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(self)
            }
        }
        assert_eq!((chain(&Ring), chain(&Loop)), ("round".into(), "round and round".into()));
    }
}
