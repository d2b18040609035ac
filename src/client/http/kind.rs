//! The kinds of errors, below everything that tells of one.

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The request, the URL or a setting makes no sense; nothing was sent.
    Invalid,
    /// No connection came about: the host's name can't be looked up, nothing listens there, the
    /// network is down. Nothing was sent.
    Connect,
    /// The connection could not be secured: the certificate isn't trusted, or the server speaks no
    /// TLS that we do. Nothing was sent.
    Tls,
    /// The proxy let nothing through: it refuses the host, wants a password, can't be reached, or
    /// its settings make no sense. The server got nothing.
    Proxy,
    /// A time limit passed.
    Timeout,
    /// The connection broke, or what came over it was no HTTP.
    Broken,
    /// The server answered with this status, 400 or more.
    Status(u16),
    /// A redirect that isn't followed: to nowhere, to another scheme, in a circle, or one that
    /// would carry data to a stranger.
    Redirect,
    /// The reply is larger than what was agreed to.
    TooLarge,
    /// The reply is not what was asked for: other type, other length, other checksum, no JSON.
    Content,
    /// Credentials could not be had or renewed.
    Unauthorized,
    /// The client's own rate limit: nothing was sent. Only in the mode
    /// [`once`](super::RequestBuilder::once), or if the time limit passes before the turn would
    /// come.
    RateLimited,
    /// A file could not be written, or may not.
    File,
    /// Another download to the same file name is under way.
    Busy,
    /// The caller cancelled.
    Cancelled,
}
