//! An origin: scheme, host and port of a server, to which credentials belong.

use std::fmt;

use url::Url;

/// A scheme, a host and a port: what credentials, secret headers and rate limits belong to. (RFC
/// 6454)
///
/// ```
/// use fulmar::client::http::Origin;
///
/// let origin = Origin::of("https://Example.org/v2?x=1").expect("a URL with a host");
/// assert_eq!(origin.to_string(), "https://example.org:443");
/// assert_ne!(Some(origin), Origin::of("http://example.org/v2"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an `http` or `https` URL; `None` for anything else.
    pub fn of(url: &str) -> Option<Origin> {
        Origin::of_url(&Url::parse(url).ok()?)
    }

    pub(super) fn of_url(url: &Url) -> Option<Origin> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let host = url.host_str().filter(|host| !host.is_empty())?.to_owned();
        Some(Origin { scheme: url.scheme().to_owned(), host, port: url.port_or_known_default()? })
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host, in lower case; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port. If the URL has none, the scheme's default.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}
