//! The error of this folder, which knows nothing of methods and URLs: the caller makes an
//! `HttpError` of it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

use super::super::kind::HttpErrorKind;
use crate::error::BoxError;

/// What went wrong with a connection or a reply. It may be wrapped in an [`io::Error`], to pass
/// through readers that know only those.
#[derive(Debug)]
pub(in super::super) struct Fault {
    pub(in super::super) kind: HttpErrorKind,
    pub(in super::super) text: Cow<'static, str>,
    /// Whether the server may have got the request.
    pub(in super::super) arrived: bool,
    pub(in super::super) retryable: bool,
    /// Whether the connection ended before the first byte of a reply. If it was kept from an
    /// earlier request, the server may just have closed it.
    pub(super) unanswered: bool,
    /// Whether a proxy couldn't reach the address that it was told. It may reach another one.
    pub(super) unreached: bool,
    pub(in super::super) source: Option<BoxError>,
}

impl Fault {
    /// A fault before the request was sent.
    pub(super) fn before(kind: HttpErrorKind, text: impl Into<Cow<'static, str>>, retryable: bool) -> Fault {
        Fault { kind, text: text.into(), arrived: false, retryable, unanswered: false, unreached: false, source: None }
    }

    /// The connection broke, or the reply wasn't HTTP.
    pub(super) fn broken(text: impl Into<Cow<'static, str>>) -> Fault {
        Fault { arrived: true, ..Fault::before(HttpErrorKind::Broken, text, true) }
    }

    pub(super) fn timeout(text: &'static str) -> Fault {
        Fault { arrived: true, ..Fault::before(HttpErrorKind::Timeout, text, true) }
    }

    pub(super) fn cancelled() -> Fault {
        Fault { arrived: true, ..Fault::before(HttpErrorKind::Cancelled, "it was cancelled", false) }
    }

    pub(super) fn with_source(mut self, source: impl Into<BoxError>) -> Fault {
        self.source = Some(source.into());
        self
    }

    /// The fault that `error` wraps, or else what `otherwise` makes of it.
    pub(super) fn within(error: io::Error, otherwise: impl FnOnce(io::Error) -> Fault) -> Fault {
        error.downcast::<Fault>().unwrap_or_else(otherwise)
    }

    /// The fault that `error` wraps. If it wraps none, the reader itself has failed, and the text
    /// is `otherwise`.
    pub(in super::super) fn of_reader(error: io::Error, otherwise: &'static str) -> Fault {
        Fault::within(error, |error| Fault::broken(otherwise).with_source(error))
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        io::Error::other(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
