//! The crate's error: each text says what was tried and what the caller can do.
//!
//! An operation's error keeps its type: [`Error::Operation`] holds the original, and
//! [`Error::operation`] downcasts it.

use std::fmt;
use std::io;
use std::time::Duration;

/// An error of any type, as an operation returned it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a submission was refused, or why a wait gave no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The time limit passed first. Nothing was cancelled and every handle is still good: wait
    /// again, or cancel.
    Timeout {
        /// The limit that passed.
        limit: Duration,
        /// How many requests were unfinished; 0 if the wait was only for threads to end. After a
        /// reset: how many threads of the old pool were still there.
        left: u64,
    },

    /// The executor takes no new work, because `shutdown` was called. `reset` opens it again.
    ShutDown,

    /// The executor holds as many unstarted requests as its capacity allows. Nothing was accepted:
    /// try again later.
    QueueFull,

    /// The request was cancelled before it started.
    Cancelled,

    /// The operation that waits here was cancelled, or its time limit has passed, before the wait
    /// was over. What it waits for goes on untouched, and every handle is still good: wait for it
    /// elsewhere, or in [`shield`](crate::shield).
    Interrupted,

    /// A time limit of the request, or of its group, passed before the request started, and it
    /// never ran. From [`Group::wait`](crate::Group::wait): the group's time limit passed before it
    /// was done.
    Expired,

    /// The operation panicked, with this message. The thread that ran it lives on.
    Panicked(String),

    /// The operation returned this error. [`operation`](Error::operation) downcasts it, and it is
    /// this error's [source](std::error::Error::source). `{}` prints its text, too; `{:#}` also
    /// prints its sources.
    Operation(BoxError),

    /// An earlier wait, `try_take` or `then` took the result: a result can be taken once.
    ResultTaken,

    /// An operation waits for a request that can't start or can't end before this operation has
    /// ended.
    WouldDeadlock,

    /// A setting or an argument is invalid; the text names it and says what to use instead.
    Invalid(String),

    /// The operating system refused to start a thread. If it was the executor's first thread,
    /// nothing was accepted. If it was the thread that should run the request that an operation
    /// waits for, every handle is still good. Try again when other threads have ended.
    Spawn(io::Error),
}

impl fmt::Display for Error {
    /// Writes what happened and what the caller can do, without a full stop. `{:#}` adds the
    /// sources of an operation's error.
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
            Error::Interrupted => {
                f.write_str("the operation that waits was cancelled; what it waits for goes on, and its handle is good")
            }
            Error::Expired => f.write_str("its time limit passed; what had not started by then never ran"),
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

/// The texts of an error and of its sources in one line, for notes and logs.
///
/// Some errors include their source's text in their own, so a text that was just printed is left
/// out. Some errors return themselves as their source, so it stops after 16 sources.
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
    /// Whether the wait's time limit passed. If so, the request goes on, and its handle is still
    /// good.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }

    /// Whether the same call may succeed later with nothing else changed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Timeout { .. } | Error::QueueFull | Error::Spawn(_))
    }

    /// The operation's own error, if this is [`Error::Operation`] and the error has the type `E`.
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
