//! What goes wrong between a request and its reply, before anything knows of methods and URLs.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

use super::super::kind::HttpErrorKind;
use crate::error::BoxError;

/// What went wrong on the wire. It may travel inside of an [`io::Error`], through readers that know
/// nothing else.
#[derive(Debug)]
pub(in super::super) struct Fault {
    pub(in super::super) kind: HttpErrorKind,
    pub(in super::super) text: Cow<'static, str>,
    /// Whether the server may have got the request.
    pub(in super::super) arrived: bool,
    pub(in super::super) retryable: bool,
    /// Whether the connection ended before the first byte of a reply: one that was kept may have
    /// been closed meanwhile.
    pub(super) unanswered: bool,
    pub(in super::super) source: Option<BoxError>,
}

impl Fault {
    /// Before the request was sent.
    pub(super) fn before(kind: HttpErrorKind, text: impl Into<Cow<'static, str>>, retryable: bool) -> Fault {
        Fault { kind, text: text.into(), arrived: false, retryable, unanswered: false, source: None }
    }

    /// The connection broke, or what came over it was no HTTP.
    pub(super) fn broken(text: impl Into<Cow<'static, str>>) -> Fault {
        Fault { arrived: true, ..Fault::before(HttpErrorKind::Broken, text, true) }
    }

    pub(super) fn timeout(text: &'static str) -> Fault {
        Fault { arrived: true, ..Fault::before(HttpErrorKind::Timeout, text, true) }
    }

    pub(super) fn cancelled() -> Fault {
        let text = "it was cancelled while the server thought about it";
        Fault { arrived: true, ..Fault::before(HttpErrorKind::Cancelled, text, false) }
    }

    pub(super) fn with_source(mut self, source: impl Into<BoxError>) -> Fault {
        self.source = Some(source.into());
        self
    }

    /// What a reader reports: a fault that travelled through it, or what the reader itself found
    /// wrong.
    pub(in super::super) fn of_reader(error: io::Error, otherwise: &'static str) -> Fault {
        match error.downcast::<Fault>() {
            Ok(fault) => fault,
            Err(error) => Fault::broken(otherwise).with_source(error),
        }
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
