//! Credentials: which origins they are for, how they are added to a request, and how they are
//! renewed if the server refuses them.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::origin::Origin;
use super::redact::{HIDDEN, Secrets};
use crate::error::{BoxError, Error, Result};
use crate::time::Deadline;

/// Adds credentials to the requests to the origins that they belong to.
///
/// [`Basic`], [`Bearer`] and [`Tokens`](super::Tokens) do for most services. A client may have
/// several; the first that belongs to the origin of a request is asked.
///
/// Called from many threads at once.
pub trait Authenticate: Send + Sync {
    /// Whether these credentials are for this origin. If not, the client calls no other method of
    /// the trait for it.
    fn belongs_to(&self, origin: &Origin) -> bool;

    /// Adds credentials to one request. It may fetch them first, as long as the request has time
    /// left ([`Credentials::remaining`]).
    ///
    /// # Errors
    /// Any error: the request isn't sent, and its error has this one as its source.
    fn apply(&self, credentials: &mut Credentials) -> Result<(), BoxError>;

    /// Whether this reply, of a status of 400 or more, means that the credentials have expired, so
    /// that renewing them helps. Defaults to never.
    fn is_expired(&self, status: u16, body: &str) -> bool {
        let _ = (status, body);
        false
    }

    /// Renews the credentials, unless another thread has done so since they were applied. After
    /// that the client sends the request once more, whatever its method, because the server has
    /// refused it and not processed it.
    ///
    /// # Errors
    /// Any error: the request's error has this one as its source. The default returns an error that
    /// says that these credentials can't be renewed.
    fn renew(&self, renewal: &Renewal) -> Result<(), BoxError> {
        let _ = renewal;
        Err("these credentials can't be renewed".into())
    }
}

/// The credentials of one request, for [`Authenticate::apply`] to fill in.
pub struct Credentials {
    pub(super) headers: Vec<(String, String)>,
    pub(super) secrets: Secrets,
    pub(super) generation: u64,
    pub(super) deadline: Deadline,
    pub(super) once: bool,
}

impl Credentials {
    /// Sets a header of the request, and replaces one of that name that the caller set. No error or
    /// log shows its value.
    pub fn header(&mut self, name: &str, value: &str) {
        self.secrets.add(value);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// Another text that errors must not show if a server repeats it.
    pub fn hide(&mut self, secret: &str) {
        self.secrets.add(secret);
    }

    /// Sets the number of these credentials' generation, which [`Renewal::generation`] returns if
    /// the server refuses them.
    pub fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// How much of the request's time limit is left; `None` means no limit.
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.deadline)
    }

    /// Whether the request waits only for the network ([`once`](super::RequestBuilder::once)). Then
    /// fetching credentials mustn't wait for a backoff, either.
    pub fn is_once(&self) -> bool {
        self.once
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Credentials")
            .field("headers", &names)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The request for which credentials are renewed: for [`Authenticate::renew`].
#[derive(Debug)]
pub struct Renewal {
    pub(super) generation: u64,
    pub(super) deadline: Deadline,
    pub(super) once: bool,
}

impl Renewal {
    /// The generation that the refused request carried, as [`Credentials::set_generation`] said.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How much of the request's time limit is left; `None` means no limit.
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.deadline)
    }

    /// As [`Credentials::is_once`]. Pass it on to the requests that fetch the new credentials.
    pub fn is_once(&self) -> bool {
        self.once
    }
}

fn remaining(deadline: Deadline) -> Option<Duration> {
    deadline.at().map(|at| at.saturating_duration_since(std::time::Instant::now()))
}

/// User and password, on each request to one origin. (RFC 7617)
///
/// ```
/// use fulmar::client::http::Basic;
///
/// let auth = Basic::new("https://pairs.example", "me", "a password");
/// assert!(!format!("{auth:?}").contains("a password"));
/// ```
pub struct Basic {
    origin: Option<Origin>,
    header: String,
    password: String,
}

impl Basic {
    /// Credentials for the origin of `url`; its path doesn't matter. If `url` isn't an `http` or
    /// `https` URL, they are never used.
    pub fn new(url: &str, user: &str, password: &str) -> Basic {
        let header = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Basic { origin: Origin::of(url), header, password: password.to_owned() }
    }
}

impl Authenticate for Basic {
    fn belongs_to(&self, origin: &Origin) -> bool {
        self.origin.as_ref() == Some(origin)
    }

    fn apply(&self, credentials: &mut Credentials) -> Result<(), BoxError> {
        credentials.header("Authorization", &self.header);
        credentials.hide(&self.password);
        Ok(())
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic").field("origin", &self.origin).field("password", &HIDDEN).finish_non_exhaustive()
    }
}

/// A token that doesn't expire while it is in use, on each request to one origin. (RFC 6750)
pub struct Bearer {
    origin: Option<Origin>,
    header: String,
}

impl Bearer {
    /// A token for the origin of `url`; its path doesn't matter. If `url` isn't an `http` or
    /// `https` URL, it is never used.
    pub fn new(url: &str, token: &str) -> Bearer {
        Bearer { origin: Origin::of(url), header: format!("Bearer {token}") }
    }
}

impl Authenticate for Bearer {
    fn belongs_to(&self, origin: &Origin) -> bool {
        self.origin.as_ref() == Some(origin)
    }

    fn apply(&self, credentials: &mut Credentials) -> Result<(), BoxError> {
        credentials.header("Authorization", &self.header);
        Ok(())
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("origin", &self.origin).field("token", &HIDDEN).finish()
    }
}

/// The origins of the URLs for which a caller gives credentials.
pub(super) fn origins(urls: &[&str]) -> Result<Vec<Origin>> {
    urls.iter()
        .map(|url| {
            Origin::of(url).ok_or_else(|| Error::Invalid("credentials are for an http or https URL with a host".into()))
        })
        .collect()
}
