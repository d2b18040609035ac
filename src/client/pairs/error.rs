//! What can go wrong between here and a PAIRS server, said so that the reader knows which query,
//! what was tried and why.

use crate::client::http::archive::ArchiveError;
use crate::client::http::{HttpError, HttpErrorKind};
use crate::client::pairs::StatusCode;

/// Why a call, or a query, came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairsError {
    /// What was given as a query isn't one; the text names the field.
    #[error("this is no PAIRS query: {0}")]
    Query(String),

    /// A setting, an option or an id makes no sense; the text names it and the remedy.
    #[error("{0}")]
    Invalid(String),

    /// The request failed, or was refused.
    #[error(transparent)]
    Http(#[from] HttpError),

    /// The call was not sent, because no token could be had for it. The sources say why.
    #[error("there is no token for the call")]
    Credentials {
        /// Whether there may be one later.
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
        /// What it said.
        message: String,
        /// Whether it may say otherwise later.
        is_retryable: bool,
    },

    /// The server's answer isn't what the protocol promises; the text says what was expected and
    /// what came.
    #[error("the PAIRS server's answer makes no sense: {0}")]
    Reply(String),

    /// The answer to a submission was lost, and it can't be told whether its job exists. It is not
    /// submitted again: look into the [list](super::Client::list) for it.
    #[error(
        "the answer to submitting query {name:?} was lost, and its job may exist: look into the list of jobs ({why})"
    )]
    LostReply {
        /// The query's name; empty if it has none.
        name: String,
        /// Why the list doesn't tell.
        why: String,
        /// How the answer was lost.
        source: Box<PairsError>,
    },

    /// The server sent a submission on to another place, and what answers there took none. The
    /// client was given another URL than that of the API.
    #[error("the server sent the submission on to {to}, and no job came of that: name the URL of its API as the host")]
    SentOn {
        /// Where to, without what may be secret.
        to: String,
    },

    /// The values of points came in part; the text says how that is known. Nothing was made on the
    /// server.
    #[error("the values of points came in part: {0}")]
    Incomplete(String),

    /// The query ended on the server without a result.
    #[error("query {id} ended as {status} ({code}){message}", code = .code.code(), message = after(.message))]
    Failed {
        /// The query's id.
        id: String,
        /// How it ended.
        code: StatusCode,
        /// The server's word for it, as it came.
        status: String,
        /// What the server said besides; empty if it said nothing.
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

    /// What was downloaded is no archive, no JSON and no CSV, or is damaged. It was removed.
    #[error("the download of query {id} is useless: {reason}")]
    Download {
        /// The query's id.
        id: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The archive that was downloaded could not be unpacked. It was removed if it is damaged; one
    /// that came whole is kept, in the place that the source names.
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
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// `: message`, or nothing.
fn after(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// What is left to the caller of an archive that came whole.
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

    /// Whether the same call may succeed later with nothing else changed. It doesn't say that
    /// repeating is harmless: a submission whose answer was lost may have created a job.
    pub fn is_retryable(&self) -> bool {
        match self {
            // Content: a page of a proxy in place of data.
            PairsError::Http(error) => error.kind() == HttpErrorKind::Content || error.is_retryable(),
            PairsError::Credentials { is_retryable, .. } | PairsError::Authentication { is_retryable, .. } => {
                *is_retryable
            }
            PairsError::Reply(_) | PairsError::Incomplete(_) | PairsError::Download { .. } => true,
            // Another download may be whole; one with a name that climbs stays so.
            PairsError::Archive { source, .. } => matches!(source, ArchiveError::Damaged { .. }),
            _ => false,
        }
    }
}
