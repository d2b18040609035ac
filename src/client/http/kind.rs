//! The kinds of errors, in a file of their own because all others here use them.

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The request, the URL or a setting is invalid; nothing was sent.
    Invalid,
    /// There was no connection: the host's name can't be looked up, nothing listens there, or the
    /// network is down. Nothing was sent.
    Connect,
    /// The connection could not be encrypted: the certificate isn't trusted, or client and server
    /// have no version of TLS in common. Nothing was sent.
    Tls,
    /// The proxy didn't connect: it refuses the host, asks for a password, can't be reached, or its
    /// settings are invalid. The server got nothing.
    Proxy,
    /// A time limit passed.
    Timeout,
    /// The connection broke, or the reply wasn't HTTP.
    Broken,
    /// The server answered with this status, 400 or more.
    Status(u16),
    /// A redirect that the client doesn't follow: without a URL, to another scheme, in a circle, or
    /// one that would send the request's data to another origin.
    Redirect,
    /// The reply is larger than the limit.
    TooLarge,
    /// The reply isn't what the caller expects: another type, length or checksum, or not JSON.
    Content,
    /// The client could not get or renew credentials.
    Unauthorized,
    /// The client's own rate limit allows no request now, and nothing was sent. Only with
    /// [`once`](super::RequestBuilder::once), or if the request's time limit would pass before its
    /// turn.
    RateLimited,
    /// A file could not be read or written, or exists and must not be replaced.
    File,
    /// Another download to the same file name is under way.
    Busy,
    /// The caller cancelled the request, or the operation of an executor that sends it was
    /// [cancelled](crate::AsyncRequest::cancel).
    Cancelled,
}
