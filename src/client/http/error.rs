//! The error of a request: it says what was asked of which server, what went wrong, and what the
//! caller can do.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use url::Url;

use super::kind::HttpErrorKind;
use super::method::Method;
use super::redact::{self, Secrets};
use super::wire::Fault;
use crate::error::BoxError;

/// Why a request got no reply, or one that can't be used.
///
/// The text names method, URL, attempts and the server's message. It contains no secrets, and only
/// the names of the URL's query.
///
/// ```
/// use fulmar::client::http::{HttpClient, HttpErrorKind};
///
/// let client = HttpClient::builder().build()?;
/// let error = client.get("ftp://host.example/file?key=abc").send().unwrap_err();
/// assert_eq!(error.kind(), HttpErrorKind::Invalid);
/// assert_eq!(error.url(), "ftp://host.example/file?key=***");
/// assert!(!error.is_retryable());
/// # Ok::<(), fulmar::Error>(())
/// ```
pub struct HttpError(Box<Inner>);

struct Inner {
    kind: HttpErrorKind,
    method: Method,
    url: String,
    attempts: u32,
    message: String,
    body: String,
    content_type: Option<String>,
    retry_after: Option<Duration>,
    may_have_arrived: bool,
    retryable: bool,
    source: Option<BoxError>,
}

impl HttpError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> HttpErrorKind {
        self.0.kind
    }

    /// The method of the request.
    pub fn method(&self) -> Method {
        self.0.method
    }

    /// The URL of the last request, without user, password, fragment and the values of its query.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// How many times the client sent the request, or tried to; 0 if it never did.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The status of the server's reply, if this is [`HttpErrorKind::Status`].
    pub fn status(&self) -> Option<u16> {
        match self.0.kind {
            HttpErrorKind::Status(status) => Some(status),
            _ => None,
        }
    }

    /// The server's message, or what is wrong: one line of about 500 characters at most, without
    /// secrets.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The body of the server's reply, for protocols that describe errors there: at most 64 KiB,
    /// without the secrets that the request carried. Empty if there was none.
    pub fn body(&self) -> &str {
        &self.0.body
    }

    /// The type of the body, without parameters and in lower case: `application/json`.
    pub fn content_type(&self) -> Option<&str> {
        self.0.content_type.as_deref()
    }

    /// How long the server asked to wait before the next request, or how long it is until the
    /// client's own rate limit allows one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the same request may succeed later with nothing else changed. It doesn't say that
    /// repeating is harmless: for that, ask [`may_have_arrived`](HttpError::may_have_arrived), too.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Whether the server may have done what the request asked. `false` only if it certainly
    /// hasn't: there was no connection, the request wasn't sent, or the server refused it (4xx,
    /// 503).
    ///
    /// After a `POST` that creates something, `true` means: look for it before you send the request
    /// again. `false` can be wrong if a gateway says 503 after it has lost the server behind it;
    /// with such gateways, look as well, as the clients of this crate do.
    pub fn may_have_arrived(&self) -> bool {
        self.0.may_have_arrived
    }

    /// Whether this side ended the wait for the reply, so that the server may still be at it.
    #[cfg(feature = "openeo")]
    pub(crate) fn is_hung(&self) -> bool {
        matches!(self.0.kind, HttpErrorKind::Timeout | HttpErrorKind::Cancelled)
    }

    /// Whether this side or a proxy ended the wait for the reply, so that the server behind it may
    /// still be at it: 504, and those of Cloudflare and other proxies that mean the same.
    #[cfg(any(feature = "openeo", feature = "pairs"))]
    pub(crate) fn is_given_up(&self) -> bool {
        use HttpErrorKind::{Cancelled, Status, Timeout};
        matches!(self.0.kind, Timeout | Cancelled | Status(504 | 520 | 522 | 524 | 598 | 599))
    }

    /// Whether a proxy may have answered that lost the server behind it, or didn't reach it.
    #[cfg(any(feature = "openeo", feature = "pairs"))]
    pub(crate) fn is_of_proxy(&self) -> bool {
        matches!(self.0.kind, HttpErrorKind::Status(502 | 503 | 521 | 523 | 525..=527))
    }

    pub(super) fn new(kind: HttpErrorKind, method: Method, url: &Url, message: impl Into<String>) -> HttpError {
        HttpError::shown(kind, method, redact::url(url), message.into())
    }

    /// Makes an error about a URL that has no secrets in it any more, and need not be a valid one.
    /// Its kind alone decides whether it is retryable and whether the request may have arrived;
    /// `retryable` and `arrived` correct that.
    pub(super) fn shown(kind: HttpErrorKind, method: Method, url: String, message: String) -> HttpError {
        use HttpErrorKind::*;
        let retryable = match kind {
            Connect | Timeout | Broken | RateLimited | Busy => true,
            Status(status) => matches!(status, 408 | 429 | 502 | 503 | 504),
            _ => false,
        };
        let may_have_arrived = match kind {
            Invalid | Connect | Tls | Proxy | Unauthorized | RateLimited | Busy => false,
            Status(status) => !(400..500).contains(&status) && status != 503,
            _ => true,
        };
        HttpError(Box::new(Inner {
            kind,
            method,
            url,
            attempts: 0,
            message,
            body: String::new(),
            content_type: None,
            retry_after: None,
            may_have_arrived,
            retryable,
            source: None,
        }))
    }

    pub(super) fn with_source(mut self, source: impl Into<BoxError>) -> HttpError {
        self.0.source = Some(source.into());
        self
    }

    pub(super) fn with_reply(mut self, body: String, content_type: Option<String>) -> HttpError {
        self.0.body = body;
        self.0.content_type = content_type;
        self
    }

    pub(super) fn with_retry_after(mut self, after: Option<Duration>) -> HttpError {
        self.0.retry_after = after;
        self
    }

    pub(super) fn with_attempts(mut self, attempts: u32) -> HttpError {
        self.0.attempts = attempts;
        self
    }

    pub(super) fn retryable(mut self, retryable: bool) -> HttpError {
        self.0.retryable = retryable;
        self
    }

    pub(super) fn arrived(mut self, may_have_arrived: bool) -> HttpError {
        self.0.may_have_arrived = may_have_arrived;
        self
    }

    /// Makes an error of a fault of the connection, and hides secrets in it, because a fault may
    /// repeat what a server sent.
    pub(super) fn of_fault(fault: Fault, method: Method, url: &Url, secrets: &Secrets) -> HttpError {
        let text = redact::plain(&secrets.hide(&fault.text), redact::WORDS);
        let error = HttpError::new(fault.kind, method, url, text).arrived(fault.arrived).retryable(fault.retryable);
        match fault.source {
            None => error,
            Some(source) => error.with_source(cause(source, secrets)),
        }
    }

    /// Makes an error of a failure to read a body.
    pub(super) fn of_body(error: io::Error, method: Method, url: &Url, secrets: &Secrets) -> HttpError {
        let fault = Fault::of_reader(error, "the reply could not be decompressed");
        HttpError::of_fault(fault, method, url, secrets)
    }
}

/// The source of an error without secrets. Errors of the standard library keep their type; those of
/// other crates become text, so that their types aren't part of our interface.
fn cause(source: BoxError, secrets: &Secrets) -> BoxError {
    let text = redact::plain(&secrets.hide(&source.to_string()), redact::WORDS);
    match source.downcast_ref::<io::Error>() {
        Some(error) => io::Error::new(error.kind(), text).into(),
        None => text.into(),
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { method, url, attempts, message, .. } = &*self.0;
        write!(f, "{method} {url}")?;
        match self.0.kind {
            HttpErrorKind::Status(status) if message.is_empty() => write!(f, " was answered with status {status}")?,
            HttpErrorKind::Status(status) => write!(f, " was answered with status {status}: {message}")?,
            _ => write!(f, " failed: {message}")?,
        }
        if *attempts > 1 {
            write!(f, " ({attempts} attempts)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the body: it is long, and a server may put anything into it.
        f.debug_struct("HttpError")
            .field("kind", &self.0.kind)
            .field("method", &self.0.method)
            .field("url", &self.0.url)
            .field("attempts", &self.0.attempts)
            .field("message", &self.0.message)
            .field("retry_after", &self.0.retry_after)
            .field("may_have_arrived", &self.0.may_have_arrived)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
