//! The errors of the PAIRS client: each says for which query, what was tried, and why it failed.

use crate::client::http::archive::ArchiveError;
use crate::client::http::{HttpError, HttpErrorKind};
use crate::client::pairs::StatusCode;

/// Why a call or a query failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairsError {
    /// A query is invalid; the text names the field.
    #[error("this isn't a PAIRS query: {0}")]
    Query(String),

    /// A setting, an option or an id is invalid; the text names it and says what to use instead.
    #[error("{0}")]
    Invalid(String),

    /// The request failed, or was refused.
    #[error(transparent)]
    Http(#[from] HttpError),

    /// The call was not sent, because the client could not get a token for it. The sources say why.
    #[error("there is no token for the call")]
    Credentials {
        /// Whether the client may get one later.
        is_retryable: bool,
        /// Which call.
        source: HttpError,
    },

    /// Credentials were refused, or the host that turns them into a token failed. No secret is in
    /// the text.
    #[error("no token from {host}: {message}")]
    Authentication {
        /// The host that was asked.
        host: &'static str,
        /// The host's message.
        message: String,
        /// Whether the same request may succeed later.
        is_retryable: bool,
    },

    /// The server's answer isn't what the protocol promises; the text says what was expected and
    /// what came.
    #[error("the PAIRS server's answer makes no sense: {0}")]
    Reply(String),

    /// The answer to a submission was lost, and it isn't known whether its job exists. The client
    /// doesn't submit it again: look for it in the [list](super::Client::list).
    #[error(
        "the answer to submitting query {name:?} was lost, and its job may exist: look into the list of jobs ({why})"
    )]
    LostReply {
        /// The query's name; empty if it has none.
        name: String,
        /// Why the list of jobs doesn't show it.
        why: String,
        /// The error with which the answer was lost.
        source: Box<PairsError>,
    },

    /// The server redirected a submission, and no job came of it: the client was given another URL
    /// than the API's.
    #[error("the server sent the submission on to {to}, and no job came of that: name the URL of its API as the host")]
    SentOn {
        /// The URL of the redirect, without the parts that may be secret.
        to: String,
    },

    /// Only a part of a point query's values came; the text says how that is known. The server has
    /// created no job.
    #[error("the values of points came in part: {0}")]
    Incomplete(String),

    /// The query ended on the server without a result.
    #[error("query {id} ended as {status} ({code}){message}", code = .code.code(), message = after(.message))]
    Failed {
        /// The query's id.
        id: String,
        /// How it ended.
        code: StatusCode,
        /// The server's text for that, as it came.
        status: String,
        /// The server's message; empty if there was none.
        message: String,
    },

    /// Two queries could not be merged.
    #[error("query {other} could not be merged into {base}: {reason}")]
    Merge {
        /// The query that the other was to be merged into.
        base: String,
        /// The other.
        other: String,
        /// What the server's status means here.
        reason: &'static str,
        /// The server's refusal.
        source: HttpError,
    },

    /// The downloaded file is neither an archive nor JSON nor CSV, or it is damaged. It was
    /// removed.
    #[error("the download of query {id} is useless: {reason}")]
    Download {
        /// The query's id.
        id: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The downloaded archive could not be unpacked. If it is damaged, it was removed. If it is
    /// complete, it is kept, and the source has its path.
    #[error("the archive of query {id} could not be unpacked{kept}", kept = kept(.source))]
    Archive {
        /// The query's id.
        id: String,
        /// What is wrong with it.
        source: ArchiveError,
    },

    /// A file or folder could not be written.
    #[error("{path} could not be written")]
    File {
        /// Which one.
        path: String,
        /// The operating system's error.
        source: std::io::Error,
    },
}

/// `: message`, or nothing.
fn after(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// For the error's text: that the archive was kept, if it was.
fn kept(source: &ArchiveError) -> &'static str {
    match source {
        ArchiveError::Refused { .. } => ", and was kept",
        ArchiveError::TooLarge { .. } => ", and was kept: unpack it with other limits, or set `archive_limits`",
        _ => "",
    }
}

impl PairsError {
    pub(super) fn reply(text: impl Into<String>) -> PairsError {
        PairsError::Reply(text.into())
    }

    pub(super) fn file(path: &std::path::Path, source: std::io::Error) -> PairsError {
        PairsError::File { path: path.display().to_string(), source }
    }

    /// Whether the same call may succeed later with nothing else changed. That doesn't mean that
    /// repeating it is harmless: a submission whose answer was lost may have created a job.
    pub fn is_retryable(&self) -> bool {
        match self {
            // `Content`: a proxy sent a page in place of data.
            PairsError::Http(error) => error.kind() == HttpErrorKind::Content || error.is_retryable(),
            PairsError::Credentials { is_retryable, .. } | PairsError::Authentication { is_retryable, .. } => {
                *is_retryable
            }
            PairsError::Reply(_) | PairsError::Incomplete(_) | PairsError::Download { .. } => true,
            // Another download may be undamaged, but an archive with an unsafe name will have it
            // again.
            PairsError::Archive { source, .. } => matches!(source, ArchiveError::Damaged { .. }),
            _ => false,
        }
    }
}
