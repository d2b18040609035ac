//! The errors of the openEO client: each says what was tried, on which job or URL, and why it
//! failed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::client::http::{HttpError, HttpErrorKind};
use crate::client::openeo::documents::job::JobStatus;
use crate::client::openeo::documents::log::Logs;
use crate::client::openeo::documents::text::plain;
use crate::error::Error;

/// How many characters of a back-end's message an error shows at most.
const WORDS: usize = 500;

/// Why a call or a job failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenEoError {
    /// An argument or a setting is invalid; the text names it and says what to use instead.
    #[error("{0}")]
    Invalid(String),

    /// The back-end refused the request, with an error as openEO defines it.
    #[error(transparent)]
    Api(ApiError),

    /// The request failed, or a server that doesn't speak openEO, such as a proxy, refused it.
    #[error(transparent)]
    Http(HttpError),

    /// The OIDC provider gave no token. No secret is in the text.
    #[error("no access from the identity provider {provider}: {message}")]
    Authentication {
        /// The provider's id or URL.
        provider: String,
        /// The provider's message, or what is missing.
        message: String,
        /// The request that failed, if one did.
        source: Option<HttpError>,
    },

    /// The back-end's answer isn't what the protocol promises; the text says what was expected.
    #[error("the back-end's answer makes no sense: {0}")]
    Reply(String),

    /// The reply to the creation of a job was lost, and it isn't known whether the job exists: the
    /// job list could not be read, may be incomplete, or has a job that may be the one. Look into
    /// the job list before you create it again.
    #[error("the reply to creating job {title:?} was lost, and it may exist: look into the job list ({why})")]
    LostReply {
        /// The title of the job, empty if it has none.
        title: String,
        /// Why the job list doesn't tell; names the jobs that may be the one.
        why: String,
        /// The error with which the reply was lost. In a batch, which looks again, it may be the
        /// error of the last look.
        source: Box<OpenEoError>,
    },

    /// The job has ended with another status than `finished`.
    #[error("batch job '{id}' didn't finish successfully: status {status}{}", first_of(.logs))]
    JobFailed {
        /// Which job.
        id: String,
        /// How it ended: canceled or error.
        status: JobStatus,
        /// Its error logs, as far as they could be read.
        logs: Logs,
    },

    /// The time limit of a wait has passed. The job goes on: wait again, or stop it.
    #[error("batch job '{id}' is {status} after {limit:?}, and goes on: wait again, or stop it")]
    TimeLimit {
        /// Which job.
        id: String,
        /// Its last known status.
        status: JobStatus,
        /// The limit.
        limit: Duration,
    },

    /// Too many requests in a row failed while waiting for a job. The job goes on.
    #[error("asking for the status of batch job '{id}' failed {count} times")]
    TooManySoftErrors {
        /// Which job.
        id: String,
        /// How many failed.
        count: u32,
        /// The last failure. If a back-end failed for many jobs at once, they share it.
        source: Arc<OpenEoError>,
    },

    /// The caller cancelled a wait or a download. The job goes on.
    #[error("waiting for batch job '{id}' was cancelled; the job goes on")]
    Cancelled {
        /// Which job.
        id: String,
    },

    /// The job has no such asset, or it isn't clear which one is meant; the text names the assets
    /// that it has.
    #[error("batch job '{id}': {reason}")]
    Asset {
        /// Which job.
        id: String,
        /// What is wrong.
        reason: String,
    },

    /// Some downloads failed; the files of the others are there.
    #[error("batch job '{id}': {} of {total} assets could not be downloaded", .failed.len())]
    Downloads {
        /// Which job.
        id: String,
        /// How many assets there are.
        total: usize,
        /// The keys of those that failed, and why.
        failed: Vec<(String, String)>,
        /// The first failure.
        source: Box<OpenEoError>,
    },

    /// The results say that the job hasn't finished (`openeo:status`), so more may come.
    #[error("the results of batch job '{id}' are partial: its status is {status}; {} files are there", .files.len())]
    PartialResults {
        /// Which job.
        id: String,
        /// The job's status in the results.
        status: JobStatus,
        /// What was downloaded, in the order of the keys.
        files: Vec<PathBuf>,
    },

    /// A file or folder could not be read or written.
    #[error("{path} could not be {verb}", path = .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// An error of the executor or of a setting.
    #[error(transparent)]
    Fulmar(#[from] Error),
}

/// A back-end's refusal. (openEO API 1.2, "Errors")
///
/// It prints code, message and the back-end's id of the incident, for which its support asks.
#[derive(Debug)]
#[non_exhaustive]
pub struct ApiError {
    /// openEO's or the back-end's own code: `JobNotFound`.
    pub code: String,
    /// The back-end's message, on one line.
    pub message: String,
    /// The back-end's id of the incident, if it gives one.
    pub id: Option<String>,
    /// The status of the reply.
    pub status: u16,
    source: Box<HttpError>,
}

impl ApiError {
    /// The refused request.
    pub fn http(&self) -> &HttpError {
        &self.source
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ApiError { code, message, id, status, source } = self;
        write!(f, "{} {}: {code} ({status}): {message}", source.method(), source.url())?;
        id.as_ref().map_or(Ok(()), |id| write!(f, " (incident {id})"))
    }
}

impl std::error::Error for ApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Skip the refused request, which prints the same text as this error.
        std::error::Error::source(&self.source)
    }
}

impl From<HttpError> for OpenEoError {
    fn from(error: HttpError) -> OpenEoError {
        let Some(status) = error.status() else { return OpenEoError::Http(error) };
        let Ok(Value::Object(body)) = serde_json::from_str(error.body()) else { return OpenEoError::Http(error) };
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(|text| plain(text, WORDS));
        let (Some(code), Some(message)) = (text("code"), text("message")) else { return OpenEoError::Http(error) };
        OpenEoError::Api(ApiError { code, message, id: text("id"), status, source: Box::new(error) })
    }
}

impl OpenEoError {
    /// openEO's code for it, if the back-end gave one: `JobNotFound`.
    pub fn code(&self) -> Option<&str> {
        match self {
            OpenEoError::Api(error) => Some(&error.code),
            _ => None,
        }
    }

    /// The status of the reply, if there was one.
    pub fn status(&self) -> Option<u16> {
        self.http().and_then(HttpError::status)
    }

    /// The failed request, if it is one.
    pub fn http(&self) -> Option<&HttpError> {
        match self {
            OpenEoError::Api(error) => Some(error.http()),
            OpenEoError::Http(error) => Some(error),
            OpenEoError::Authentication { source, .. } => source.as_ref(),
            OpenEoError::LostReply { source, .. } | OpenEoError::Downloads { source, .. } => source.http(),
            _ => None,
        }
    }

    /// Whether the same call may succeed later with nothing else changed. That doesn't mean that
    /// repeating it is harmless.
    pub fn is_retryable(&self) -> bool {
        match self {
            OpenEoError::Api(error) => self.is_not_our_turn() || error.http().is_retryable(),
            // A gateway that sent a page in place of a reply may work again later.
            OpenEoError::Http(error) => error.is_retryable() || error.kind() == HttpErrorKind::Content,
            OpenEoError::Authentication { source, .. } => source.as_ref().is_some_and(HttpError::is_retryable),
            OpenEoError::TimeLimit { .. } | OpenEoError::TooManySoftErrors { .. } => true,
            // The job may still finish.
            OpenEoError::PartialResults { status, .. } => !status.is_ended(),
            OpenEoError::Downloads { source, .. } => source.is_retryable(),
            OpenEoError::Fulmar(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether the back-end takes no more jobs or requests just now: try again later.
    pub fn is_not_our_turn(&self) -> bool {
        self.code() == Some("ConcurrentJobLimit") || self.status() == Some(429)
    }

    /// Whether the back-end doesn't know the job, or doesn't any more. Some answer 422 if an id
    /// doesn't have the form of their ids.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some("JobNotFound") || matches!(self.status(), Some(404 | 422))
    }

    /// Whether the back-end couldn't be reached: no server answered, or its certificate isn't
    /// trusted. Nothing was sent, and a later call may succeed.
    pub(crate) fn is_unreachable(&self) -> bool {
        use HttpErrorKind::{Connect, Proxy, Tls};
        matches!(self.http().map(HttpError::kind), Some(Connect | Proxy | Tls))
    }

    /// Whether the server may have done what the request asked: see
    /// [`HttpError::may_have_arrived`].
    pub(crate) fn may_have_arrived(&self) -> bool {
        self.http().is_some_and(|error| error.may_have_arrived() || error.status() == Some(503))
    }

    pub(crate) fn reply(text: impl Into<String>) -> OpenEoError {
        OpenEoError::Reply(text.into())
    }

    pub(crate) fn written(path: &Path, source: std::io::Error) -> OpenEoError {
        OpenEoError::File { path: path.to_owned(), verb: "written", source }
    }
}

/// For the error's text: a colon and the first error of the logs, or nothing.
fn first_of(logs: &Logs) -> String {
    logs.iter().next().map_or_else(String::new, |entry| format!(": {}", plain(entry.message(), WORDS)))
}
